# Do languages share without a common word order? Put it behind a config of two languages, as
# lab.py: the second one is read and evaluated from its end to its beginning.
orders = ['', 'reversed']
