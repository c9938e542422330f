# Table 3, row 14: English and French, anchored, 90/10, then 10/90. The paper: PPL 28.9 and 19.3,
# TEff 0.61 and 0.83. Row 18 is twice the data (config/data_2x.py behind it: 26.1 and 17.1, TEff
# 0.44 and 0.70), row 20 three times (data_3x.py: 25.1 and 16.2, TEff 0.35 and 0.63).
corpora = ['books_en', 'books_fr']
languages = ['en', 'fr']
vocabulary = 'anchored'
stages = [[0.9, 0.1], [0.1, 0.9]]
