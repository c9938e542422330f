# Four times the data: put it behind the file of an experiment, whose name it joins
# (out/clones_90_10-data_4x).
max_steps = 4 * max_steps
