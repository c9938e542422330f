# Width 64: put it behind lab.py. Longer and faster, as a narrow model is cheap.
n_head = 2
n_embd = 64
mlp_dim = 256
max_steps = 3000
learning_rate = 3e-3
