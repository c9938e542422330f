# How much common word order do languages need? Put it behind a config of two languages, as lab.py:
# in the second one the tokens of each window of 8 change places, everywhere in the same way.
orders = ['', 'shuffled_8']
