# Deep: put it behind lab.py. Four layers on 12.3M tokens: twice the depth and three times the
# tokens.
n_layer = 4
batch_size = 64
max_steps = 3000
