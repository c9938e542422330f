# Table 3, row 10: English and French, disjoint, 90/10, then 10/90. The paper: PPL 29.1 and 20.5,
# TEff 0.60 and 0.66.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'disjoint'
stages = [[0.9, 0.1], [0.1, 0.9]]
