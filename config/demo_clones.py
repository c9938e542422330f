# The demo: two clones of the docs text at 90/10 in a tiny model, minutes on two CPU cores. The paper, with a model of 85M
# parameters on 1.2B tokens (Table 1, row 5): PPL 22.5 and 32.8, TEff 1.00 and 2.08. demo.py has the other runs.
corpora = ['docs', 'docs']
languages = ['en1', 'en2']
stages = [[0.9, 0.1]]
size = ''
n_layer = 4
n_head = 4
head_dim = 32
n_embd = 128
mlp_dim = 512
block_size = 128
batch_size = 32
max_steps = 600
warmup_steps = 40
learning_rate = 2e-3
min_learning_rate = 2e-5
eval_interval = 200
checkpoint_interval = 200
