# Figure 3: English and French, disjoint, 95/5. The other ratios of the figure are this file with other --stages,
# see config/README.md; 50/50, 90/10 and 10/90 are table3_row07.py to 09.py. The paper gives the figure without numbers.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'disjoint'
stages = [[0.95, 0.05]]
