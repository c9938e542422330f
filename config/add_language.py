# Can a trained body serve a new language? Put it behind a config of two languages and set
# --init_from=out/RUN, a run of the first one: only the embeddings of the second train.
train_only = languages[-1]
stages = [[0] * (len(languages) - 1) + [1]]
