# GPT mini (Figures 2, 9, 10): put it behind the file of an experiment.
size = 'mini'
