# Do languages stay together that start together? Put it behind a config of clones, as lab.py and
# width_64.py: a clone's entries start as those of its language, plus noise.
start_entries = 'clones'
start_noise = 0.3
