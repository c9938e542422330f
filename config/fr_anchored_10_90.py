# Table 3, row 13: English and French, anchored, 10/90. The paper: PPL 39.5 and 16.5, TEff 1.33 and
# 0.96.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'anchored'
stages = [[0.1, 0.9]]
