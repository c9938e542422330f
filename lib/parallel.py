"""Aligned text: lines of two languages that say the same, joined to sequences (Appendix F)."""

import itertools
from pathlib import Path

from lib.configurator import require

import numpy as np

from lib.sources import hugging_face, text_lines
from lib.tokenizer import DOCUMENT_END


def line_source(source):
    """Function that opens a source of lines again and again.

    source: a text file (.gz allowed), or hf:DATASET:COLUMN. Raises ConfigError."""
    if source.startswith('hf:'):
        return lambda: hugging_face(source.removeprefix('hf:'))
    found = Path(source).is_file()
    require(found, f'there is no file {source}; give --parallel=[FILE.en,FILE.fr]')
    return lambda: text_lines(Path(source))


def aligned_lines(sources):
    """Generator of tuples, a line of each source.

    Raises ConfigError for a missing or empty source, and for sources of unequal length. Files are
    counted before the first line is given, since the lines after a gap would be wrong pairs."""
    opened = {source: line_source(source) for source in sources}
    files = [source for source in sources if not source.startswith('hf:')]
    lengths = [sum(1 for _ in opened[source]()) for source in files]
    for source in files:
        require(any(map(str.strip, opened[source]())), f'{source} is empty: it has no line of text')
    uneven = f'{" and ".join(sources)} are not aligned: both need the same number of lines'
    require(len(set(lengths)) < 2, f'{uneven}, not {" and ".join(f"{n:,}" for n in lengths)}')
    for lines in itertools.zip_longest(*(opened[source]() for source in sources)):
        require(None not in lines, uneven)
        yield tuple(line.strip() for line in lines)


def pack(lines, max_tokens, min_tokens):
    """Joins consecutive lines to sequences of at most `max_tokens`.

    A line is a tuple of token lists, one for each side. Yields tuples of token lists of at least
    `min_tokens`. A line that is longer than `max_tokens` or empty on any side is skipped as if it
    were not there."""
    joined = None
    for sides in itertools.chain(lines, [None]):  # at last, what is joined is given
        if sides and (max(map(len, sides)) > max_tokens or not all(sides)):
            continue
        if joined and sides and all(len(a) + len(b) <= max_tokens for a, b in zip(joined, sides)):
            joined = tuple(a + b for a, b in zip(joined, sides))
            continue
        if joined and min(map(len, joined)) >= min_tokens:
            yield joined
        joined = sides


def sequence_pairs(first, second, parallel, pairs, max_tokens, min_tokens):
    """Sequences that say the same in two languages: list of at most `pairs` (side_1, side_2,
    document), two arrays of ids of the corpora and a number (int).

    Sequences of one number come from one document. Parallel text does not mark its documents, so
    each of its pairs has a number of its own. first, second: Language; clones of one corpus get
    the same array twice. parallel: two sources, for clones also one (of two they take the first)
    or none. Raises ConfigError when there is nothing to compare."""
    clones = first.corpus is second.corpus
    require(
        clones or len(parallel) == 2,
        f'{first.name} and {second.name} are no clones: their tokens cannot be compared position '
        'by position, give two files aligned line by line, --parallel=[FILE.en,FILE.fr], or for '
        'the matching alone --sentence_1 and --sentence_2',
    )
    require(len(parallel) <= 2, f'parallel text is one file or two, not {len(parallel)}')
    if clones and not parallel:
        return test_sequences(first.corpus, pairs, max_tokens)
    languages = [first] if clones else [first, second]
    tokenizers = [language.corpus.load_tokenizer() for language in languages]
    count = dict(lines=0, long=0, empty=0)

    def encoded():
        for aligned in aligned_lines(parallel):
            tokens = [pieces.encode(line) for pieces, line in zip(tokenizers, aligned)]
            count['lines'] += 1
            count['long'] += max(map(len, tokens)) > max_tokens
            count['empty'] += not all(tokens)
            yield tokens

    joined = list(itertools.islice(pack(encoded(), max_tokens, min_tokens), pairs))
    lengths = f'{min_tokens} to {max_tokens} tokens'
    read = (
        f'{" and ".join(parallel)}: {count["lines"]:,} lines read, {count["long"]:,} of them '
        f'longer than {max_tokens} tokens and {count["empty"]:,} empty on a side, and the others'
    )
    require(
        joined,
        f'{read} do not join to a sequence of {lengths}; are the files in the order of the '
        f'languages ({", ".join(language.name for language in languages)})? Else lower min_tokens',
    )
    print(f'{read} joined to {len(joined):,} sequences of {lengths}')
    arrays = [[np.array(side) for side in sides] for sides in joined]
    return [(sides[0], sides[-1], number) for number, sides in enumerate(arrays)]


def test_sequences(corpus, pairs, max_tokens):
    """At most `pairs` sequences of a corpus's test set, spread evenly over it: list of (sequence,
    the same, number of the document that its middle token belongs to)."""
    starts = np.arange(len(corpus.test) // max_tokens) * max_tokens
    text = f'the test set of {corpus.name} has fewer than one sequence of max_tokens {max_tokens}'
    require(len(starts), text)
    starts = starts[np.linspace(0, len(starts) - 1, min(pairs, len(starts))).astype(int)]
    ends = np.flatnonzero(np.asarray(corpus.test) == DOCUMENT_END)
    documents = np.searchsorted(ends, starts + max_tokens // 2)
    sequences = [np.array(corpus.test[start : start + max_tokens]) for start in starts]
    return [(ids, ids, int(number)) for ids, number in zip(sequences, documents)]
