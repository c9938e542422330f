# Figure 1: two clones, 80/20. The paper gives the figure without numbers.
corpora = ['books_en', 'books_en']
languages = ['en1', 'en2']
stages = [[0.8, 0.2]]
