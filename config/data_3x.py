# Three times the data: put it behind the file of an experiment, whose name it joins
# (out/clones_90_10-data_3x).
max_steps = 3 * max_steps
