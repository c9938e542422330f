# Table 3, row 8: English and French, disjoint, 90/10. The paper: PPL 22.5 and 31.9, TEff 1.00 and
# 1.05.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'disjoint'
stages = [[0.9, 0.1]]
