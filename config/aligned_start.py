# Do languages stay together that start together? Put it behind a config of clones, as lab.py and
# width_64.py: a clone's embeddings start as the original's, plus noise.
init_embeddings = 'spelling'
init_noise = 0.3
