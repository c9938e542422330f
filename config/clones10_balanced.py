# Table 1, row 6: ten clones, balanced. The paper: PPL 35.5 (EN1) and 35.7 (the other nine), TEff
# 1.69 and 1.67.
corpora = ['books_en'] * 10
languages = [f'en{i}' for i in range(1, 11)]
stages = [[0.1] * 10]
