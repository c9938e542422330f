# Table 3, row 16: English and French, anchored, 95/5 for a quarter, then 35/65. The paper: PPL 26.3
# and 18.7, TEff 0.86 and 0.95.
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'anchored'
stages = [[0.95, 0.05], [0.35, 0.65], [0.35, 0.65], [0.35, 0.65]]
