# The first language alone: put it behind the file of an experiment.
corpora = corpora[:1]
languages = ['en']
stages = [[1.0]]
