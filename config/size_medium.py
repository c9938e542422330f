# GPT medium (Figures 2, 9, 10): put it behind the file of an experiment. As in the paper, its batch
# is twice as large and its steps half as many.
size = 'medium'
batch_size = 256
max_steps = max_steps // 2
