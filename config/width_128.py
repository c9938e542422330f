# Width 128: put it behind lab.py. A narrow model learns best at a higher rate.
n_head = 4
n_embd = 128
mlp_dim = 512
learning_rate = 2e-3
min_learning_rate = 2e-5
