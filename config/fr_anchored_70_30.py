# Figure 3: English and French, anchored, 70/30. The paper gives the figure without numbers.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'anchored'
stages = [[0.7, 0.3]]
