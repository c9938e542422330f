# Narrow: put it behind lab.py. Four layers of width 64 on 12.3M tokens, in which a clone gains
# nothing from the other one, unless its entries start as the other's (config/aligned_start.py).
n_layer = 4
n_head = 2
n_embd = 64
mlp_dim = 256
batch_size = 64
max_steps = 3000
learning_rate = 3e-3
min_learning_rate = 3e-5
