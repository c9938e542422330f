# The lab, the set-up of FINDINGS.md: two clones of English novels at 90/10 in a GPT of 1.6M
# parameters on 4.1M tokens, six minutes on one CPU core that multiplies bfloat16.
# Its corpora are made by lab.py, or as the last section of config/README.md says.
# Every run has the same wsd schedule: one long run of one language, branched, gives the law.
corpora = ['novels_en', 'novels_en']
languages = ['en1', 'en2']
stages = [[0.9, 0.1]]
size = ''
n_layer = 2
n_head = 8
head_dim = 32
n_embd = 256
mlp_dim = 1024
block_size = 64
batch_size = 32
max_steps = 2000
warmup_steps = 40
learning_rate = 1e-3
min_learning_rate = 1e-5
lr_schedule = 'wsd'
eval_interval = 250
final_windows = 8192
checkpoint_interval = 500
