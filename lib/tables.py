"""Tables of text for the terminal."""


def align(rows, left=1):
    """Rows of cells (text; the first row is the head) as lines of aligned columns, the first `left`
    columns to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    cells = (f'{{:{"<" if place < left else ">"}{width}}}' for place, width in enumerate(widths))
    form = '  '.join(cells)
    return '\n'.join(form.format(*row).rstrip() for row in rows)
