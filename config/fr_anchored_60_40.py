# Figure 3: English and French, anchored, 60/40. The paper gives the figure without numbers.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'anchored'
stages = [[0.6, 0.4]]
