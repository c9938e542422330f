"""Numbers and tables as text."""

import unicodedata


def width_of(text):
    """Columns of a text in a font of fixed width: two for each East Asian character."""
    wide = sum(unicodedata.east_asian_width(character) in 'WF' for character in text)
    return len(text) + wide - sum(unicodedata.category(c) in ('Mn', 'Me', 'Cf') for c in text)


def align(lines, left=1):
    """Text of a table, the first line its head; the first `left` columns are left-aligned."""
    columns = []
    for i, column in enumerate(zip(*lines)):
        spaces = [' ' * (max(map(width_of, column)) - width_of(cell)) for cell in column]
        pairs = zip(column, spaces) if i < left else zip(spaces, column)
        columns.append(map(''.join, pairs))
    return '\n'.join('  '.join(cells).rstrip() for cells in zip(*columns))


def short(tokens):
    """1.2B, 120M, 655k"""
    for size, letter in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
        if tokens >= 0.9995 * size:  # which is written as 1
            return f'{tokens / size:.3g}{letter}' if tokens < 1e13 else f'{tokens:.0e}'
    return f'{tokens:.0f}'


def ppl_text(ppl):
    return f'{ppl:.1f}' if ppl < 1e6 else '> 1M' if ppl < 1e9 else '> 1B'
