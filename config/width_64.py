# Width 64: put it behind lab.py. A narrow model learns best at a higher rate.
n_head = 2
n_embd = 64
mlp_dim = 256
learning_rate = 3e-3
min_learning_rate = 3e-5
