# Is it the share of the data or of the gradient that matters? Put it behind a config of two
# languages, as lab.py: data 50/50, the gradient 90/10. Compare with data of 90/10.
stages = [[0.5, 0.5]]
loss_weights = [0.9, 0.1]
