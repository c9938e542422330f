# Table 3, row 4: French alone, 1.2B tokens. The paper: PPL 16.0, TEff 1. Row 5 is half of it and
# row 6 a tenth: --max_steps=9132 (18.4) and --max_steps=1826 (34.1).
corpora = ['books_fr']
languages = ['fr']
stages = [[1.0]]
