# Table 3, row 11: English and French, anchored, balanced. The paper: PPL 26.0 and 19.0, TEff 0.91
# and 0.88. Row 17 is twice the data (config/data_2x.py behind it: 23.0 and 16.9, TEff 0.79 and
# 0.76), row 19 three times (data_3x.py: 21.8 and 16.0, TEff 0.70 and 0.67).
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'anchored'
stages = [[0.5, 0.5]]
