# The corpus of the demo, for prepare.py: the documentation strings of the installed packages, in 1,024 pieces.
corpus = 'docs'
source = 'docs'
vocab_size = 1024
