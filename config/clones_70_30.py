# Figure 1: two clones, 70/30. The paper gives the figure without numbers.
corpora = ['books_en', 'books_en']
languages = ['en1', 'en2']
stages = [[0.7, 0.3]]
