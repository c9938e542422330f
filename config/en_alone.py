# Table 1, row 1 (and Table 3, row 1): English alone, 1.2B tokens. The paper: PPL 21.9, TEff 1. Row
# 2 is half of it and row 3 a tenth: --max_steps=9132 (25.3) and --max_steps=1826 (48.4). The law of
# Figure 5 needs more budgets, see config/README.md.
corpora = ['books_en']
languages = ['en']
stages = [[1.0]]
