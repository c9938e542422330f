# Twice the data: put it behind the file of an experiment, whose name it joins
# (out/clones_90_10-data_2x).
max_steps = 2 * max_steps
