# Table 3, row 12: English and French, anchored, 90/10. The paper: PPL 22.5 and 29.0, TEff 1.00 and
# 1.27.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'anchored'
stages = [[0.9, 0.1]]
