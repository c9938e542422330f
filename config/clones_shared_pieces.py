# Figure 8: two clones, balanced, that share a part of the vocabulary; here a tenth (90% is cloned).
# The other points are this file with another --cloned_fraction, see config/README.md.
corpora = ['books_en', 'books_en']
languages = ['en1', 'en2']
stages = [[0.5, 0.5]]
cloned_fraction = 0.9
