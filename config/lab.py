# The lab: two clones of English novels at 90/10 in a GPT of 3M parameters, small enough for two CPU cores.
# First: python prepare.py --corpus=novels_en --source=eltec:eng --vocab_size=512 --test_fraction=0.1
# Every run has the same wsd schedule, so that one long run of one language, branched, gives the law.
corpora = ['novels_en', 'novels_en']
languages = ['en1', 'en2']
stages = [[0.9, 0.1]]
size = ''
n_layer = 4
n_head = 8
head_dim = 32
n_embd = 256
mlp_dim = 1024
block_size = 64
batch_size = 64
max_steps = 2000
warmup_steps = 100
learning_rate = 1e-3
min_learning_rate = 1e-5
lr_schedule = 'wsd'
eval_interval = 500
final_windows = 4096
checkpoint_interval = 250
