# Figure 3: English and French, disjoint, 70/30. The paper gives the figure without numbers.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'disjoint'
stages = [[0.7, 0.3]]
