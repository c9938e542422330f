# Figure 3: English and French, disjoint, 80/20. The paper gives the figure without numbers.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'disjoint'
stages = [[0.8, 0.2]]
