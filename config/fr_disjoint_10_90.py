# Table 3, row 9: English and French, disjoint, 10/90. The paper: PPL 43.5 and 16.4, TEff 1.10 and
# 0.97.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'disjoint'
stages = [[0.1, 0.9]]
