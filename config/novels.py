# A tiny model on 100 English novels, ten to twenty minutes a run on two CPU cores: clones at 90/10.
# First: python prepare.py --corpus=eltec_eng --source=eltec:eng --vocab_size=2048
# Then: python train.py config/novels.py "--stages=[[0.5,0.5]]"
corpora = ['eltec_eng', 'eltec_eng']
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
max_steps = 1600
warmup_steps = 40
learning_rate = 2e-3
min_learning_rate = 2e-5
eval_interval = 400
checkpoint_interval = 200
