# Figure 1: two clones, 95/5. The other ratios of the figure are this file with other --stages, see config/README.md;
# 50/50 and 90/10 are table1_row04.py and table1_row05.py.
corpora = ['books_en', 'books_en']
languages = ['en1', 'en2']
stages = [[0.95, 0.05]]
