# Table 3, row 15: English and French, anchored, four stages: 90/10, 10/90, then balanced. The
# paper: PPL 26.4 and 18.5, TEff 0.85 and 1.00.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'anchored'
stages = [[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]]
