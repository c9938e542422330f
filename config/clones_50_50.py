# Table 1, row 4: two clones, balanced. The paper: PPL 26.1 and 26.1, TEff 0.89 and 0.89. Row 10 is
# twice the data (config/data_2x.py behind it: 23.3, 0.73), row 12 three times (data_3x.py: 22.2,
# 0.64).
corpora = ['books_en', 'books_en']
languages = ['en1', 'en2']
stages = [[0.5, 0.5]]
