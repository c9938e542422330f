# Figure 3: English and French, disjoint, 95/5. The paper gives the figure without numbers.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'disjoint'
stages = [[0.95, 0.05]]
