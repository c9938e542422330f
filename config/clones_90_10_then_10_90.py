# Table 1, row 9: 90/10, then 10/90. The paper: PPL 26.5 and 24.4, TEff 0.83 and 1.18. Row 11 is
# twice the data (config/data_2x.py behind it: 22.8 and 20.4, TEff 0.83 and 1.60), row 13 three
# times (data_3x.py: 21.5 and 19.3, TEff 0.77 and 1.63).
corpora = ['books_en', 'books_en']
languages = ['en1', 'en2']
stages = [[0.9, 0.1], [0.1, 0.9]]
