# Table 1, row 8: first EN1 only, then EN2 only. The paper: PPL over 1 billion and 31.4, TEff of EN2
# 0.47.
corpora = ['books_en', 'books_en']
languages = ['en1', 'en2']
stages = [[1.0, 0.0], [0.0, 1.0]]
