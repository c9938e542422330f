# The corpus of the demo, for prepare.py: the documentation strings of the installed packages.
corpus = 'docs'
source = 'docs'
vocab_size = 512
