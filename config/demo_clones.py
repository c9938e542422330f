# The mixture of `make demo`: two clones of the docs text at 90/10, in the model of laptop.py. The
# paper, with a model of 85M parameters on 1.2B tokens (Table 1, row 5): PPL 22.5 and 32.8, TEff 1.00
# and 2.08.
corpora = ['docs', 'docs']
languages = ['en1', 'en2']
stages = [[0.9, 0.1]]
