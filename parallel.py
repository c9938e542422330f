"""Parallel text: two files aligned line by line, packed into pairs of sequences (Section 3, Appendices F and G).

The paper uses Europarl v7 fr-en: consecutive lines are joined while both sides stay within 512 tokens, a line with
more is skipped, and a pair with a side under 128 tokens is dropped. Clones need one side only: the other is the same
text in the other vocabulary; without parallel text they take sequences of their corpus's test set.
"""
import itertools
from pathlib import Path

import numpy as np

from configurator import ConfigError
from sources import _lines, hugging_face


def line_source(where):
    """Function that opens a source of lines again and again: a text file (.gz allowed), or hf:DATASET:COLUMN."""
    if where.startswith('hf:'):
        return lambda: hugging_face(where.removeprefix('hf:'))
    if not Path(where).is_file():
        raise ConfigError(f'there is no file {where}; parallel text is given as --parallel=[FILE.en,FILE.fr]')
    return lambda: _lines(Path(where))


def aligned_lines(sources):
    """Generator of tuples, a line of each source. Raises ConfigError for a missing or empty source, and for sources of
    unequal length; of files before the first line, since the lines after a gap would be wrong pairs."""
    opened = [line_source(where) for where in sources]
    lengths = {where: sum(1 for _ in lines()) for where, lines in zip(sources, opened) if not where.startswith('hf:')}
    for where, length in lengths.items():
        if not length or not any(line.strip() for line in line_source(where)()):
            raise ConfigError(f'{where} is empty: there is no line of text in it')
    uneven = f'{" and ".join(sources)} are not aligned: both need the same number of lines'
    if len(set(lengths.values())) > 1:
        raise ConfigError(f'{uneven}, not {" and ".join(f"{n:,}" for n in lengths.values())}')
    end = object()
    for lines in itertools.zip_longest(*(lines() for lines in opened), fillvalue=end):
        if end in lines:
            raise ConfigError(uneven)
        yield tuple(line.strip() for line in lines)


def pack(lines, max_tokens, min_tokens):
    """Joins consecutive lines, each a tuple of token lists (one for each side), to sequences of at most `max_tokens`.

    Yields tuples of token lists of at least `min_tokens`. A line that is longer than `max_tokens` or empty on any side
    is skipped as if it were not there."""
    joined = None
    for sides in itertools.chain(lines, [None]):
        if sides is not None and (max(map(len, sides)) > max_tokens or not all(sides)):
            continue
        if joined and (sides is None or any(len(a) + len(b) > max_tokens for a, b in zip(joined, sides))):
            if min(map(len, joined)) >= min_tokens:
                yield joined
            joined = None
        if sides is not None:
            joined = tuple(a + b for a, b in zip(joined, sides)) if joined else sides


def sequence_pairs(first, second, parallel, pairs, max_tokens, min_tokens):
    """Sequences that say the same in two languages: list of at most `pairs` tuples of arrays, ids of the corpora.

    first, second: Language; clones of one corpus get the same array twice. parallel: two sources, for clones also one
    (of two they take the first) or none. Raises ConfigError when there is nothing to compare."""
    clones = first.corpus is second.corpus
    if len(parallel) > 2 or len(parallel) < (0 if clones else 2):
        raise ConfigError(f'{first.name} and {second.name} are no clones: their tokens cannot be compared position by '
                          'position, give two files aligned line by line, --parallel=[FILE.en,FILE.fr], or for the '
                          'matching alone --sentence_1 and --sentence_2' if not clones
                          else f'parallel text is one file or two, not {len(parallel)}')
    if clones and not parallel:
        return test_sequences(first.corpus, pairs, max_tokens)
    sides = [first] if clones else [first, second]
    tokenizers = [language.corpus.load_tokenizer() for language in sides]
    count = dict(lines=0, long=0, empty=0)

    def encoded():
        for aligned in aligned_lines(parallel):
            tokens = [pieces.encode(line) for pieces, line in zip(tokenizers, aligned)]
            count['lines'] += 1
            count['long'] += max(map(len, tokens)) > max_tokens
            count['empty'] += not all(tokens)
            yield tokens

    found = [tuple(np.array(side) for side in packed)
             for packed in itertools.islice(pack(encoded(), max_tokens, min_tokens), pairs)]
    read = (f'{count["lines"]:,} lines read, {count["long"]:,} of them longer than {max_tokens} tokens and '
            f'{count["empty"]:,} empty on a side')
    if not found:
        raise ConfigError(f'{" and ".join(parallel)}: {read}, and the others do not join to a sequence of {min_tokens} '
                          f'to {max_tokens} tokens; the files must be in the order of the languages '
                          f'({", ".join(language.name for language in sides)}), else lower min_tokens or give more text')
    print(f'{" and ".join(parallel)}: {read}, the others joined to {len(found):,} sequences of {min_tokens} to '
          f'{max_tokens} tokens')
    return [packed * 2 if clones else packed for packed in found]


def test_sequences(corpus, pairs, max_tokens):
    """At most `pairs` sequences of a corpus's test set, spread evenly over it, each twice."""
    starts = np.arange(len(corpus.test) // max_tokens) * max_tokens
    if not len(starts):
        raise ConfigError(f'the test set of {corpus.name} has {len(corpus.test):,} tokens, fewer than one sequence of '
                          f'max_tokens {max_tokens}')
    chosen = starts[np.linspace(0, len(starts) - 1, min(pairs, len(starts))).astype(int)]
    return [(np.array(corpus.test[start:start + max_tokens]),) * 2 for start in chosen]
