# A model for a laptop: two layers of width 128 (0.4M parameters without embeddings) on 1.4M tokens,
# two to three minutes on one CPU core. List it before a mixture of your own:
# python experiment.py config/laptop.py config/NAME.py
# Alone it is the 90/10 mixture of `make demo`, two clones of the docs text. The paper, with a model
# of 85M parameters on 1.2B tokens (Table 1, row 5): PPL 22.5 and 32.8, TEff 1.00 and 2.08.
size = ''
n_layer = 2
n_head = 4
head_dim = 32
n_embd = 128
mlp_dim = 512
block_size = 64
batch_size = 16
max_steps = 1400
warmup_steps = 40
learning_rate = 2e-3
min_learning_rate = 2e-5
lr_schedule = 'wsd'
eval_interval = 500
final_windows = 2048
checkpoint_interval = 500
