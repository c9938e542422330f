# Table 1, row 5: two clones, 90/10. The paper: PPL 22.5 and 32.8, TEff 1.00 and 2.08. With twice
# the data (config/data_2x.py behind it, Figure 2): 20.1 and 23.9, TEff 1.00 and 3.29.
corpora = ['books_en', 'books_en']
languages = ['en1', 'en2']
stages = [[0.9, 0.1]]
