"""Aligned text: sentences of two languages that say the same, joined to sequences (Appendix F).

A source of one side is a text file with a sentence a line, JSON lines, Parquet or hf:DATASET:FIELD.
A source of pairs is a table of two columns (.tsv). A carriage return ends a line only before a line
feed. Files may be compressed.
"""

import itertools
import re
from collections import Counter
from functools import partial

from lib.configurator import require

import numpy as np

from lib.formats import XML, lines, opened, readable
from lib.sources import documents, path_of
from lib.tokenizer import DOCUMENT_END, warn_of_foreign


def aligned_lines(sources, names):
    """Generator of tuples, a sentence of each of the languages `names`; '' for none.

    sources: one for each language, or one of pairs. Raises ConfigError; for sources of unequal
    length before the first sentence, since those after a gap would be wrong pairs."""
    has_pairs = len(names) == 2 or re.search(r'\.tsv(\.\w+)?$', sources[0], re.I)
    if len(sources) == 1 and has_pairs:
        yield from _pairs(sources[0], names)
        return
    sentences = partial(documents, of_text=lines)
    files = [source for source in sources if not source.startswith('hf:')]
    counts = [sum(1 for _ in sentences(source)) for source in files]
    numbers = ' and '.join(f'{count:,}' for count in counts)
    uneven = f'{" and ".join(sources)} need the same number of lines, not {numbers or "these"}'
    require(len(set(counts)) < 2, uneven)
    for texts in itertools.zip_longest(*map(sentences, sources)):
        require(None not in texts, uneven)
        yield tuple(map(str.strip, texts))


def _pairs(source, names):
    with readable(source), open(path_of(source)[0], 'rb') as file:
        kind, file = opened(file, source)
        require(kind != XML, f'{source} is XML; give two text files (OPUS has them as Moses)')
        for number, line in enumerate(lines(file, source), 1):
            columns = line.split('\t') if line.strip() else ['', '']
            found = f'{source}, line {number}, has {len(columns)} columns, not two with a tab'
            require(len(columns) == 2, f'{found}; or give two files: --parallel=[FILE.en,FILE.fr]')
            yield tuple(map(str.strip, columns[: len(names)]))


def pack(lines, max_tokens, min_tokens):
    """Joins consecutive lines to sequences of min_tokens to max_tokens. Generator.

    A line or sequence is a tuple of token lists, one for each side. Lines that are too long or
    empty on any side are skipped as if they were not there."""
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
    document), two arrays of ids of the corpora and the number of the document (int).

    Parallel text does not mark its documents, so each pair has a number of its own. Clones of one
    corpus get the same array twice. first, second: Language; parallel: two sources, or one of
    pairs; for clones also one side (of two the first) or none. Raises ConfigError when there is
    nothing to compare."""
    clones = first.corpus is second.corpus
    text = 'give aligned text, --parallel=[FILE.en,FILE.fr] or [FILE.tsv]'
    require(clones or parallel, f'{first.name} and {second.name} are no clones: {text}')
    require(len(parallel) <= 2, f'parallel text is one source or two, not {len(parallel)}')
    if not parallel:
        return test_sequences(first.corpus, pairs, max_tokens)
    languages = [first] if clones else [first, second]
    names = [language.name for language in languages]
    tokenizers = [language.corpus.load_tokenizer() for language in languages]
    count = Counter()

    def encoded():
        for texts in aligned_lines(parallel, names):
            tokens = [pieces.encode(text) for pieces, text in zip(tokenizers, texts)]
            count.update(read=1, long=max(map(len, tokens)) > max_tokens, empty=not all(tokens))
            yield tokens

    joined = list(itertools.islice(pack(encoded(), max_tokens, min_tokens), pairs))
    skipped = f'{count["long"]:,} of them too long, {count["empty"]:,} empty on a side'
    made = f'{len(joined):,} sequences of {min_tokens} to {max_tokens} tokens'
    made = f'{" and ".join(parallel)}: {made} from {count["read"]:,} lines ({skipped})'
    require(joined, f'{made}; lower min_tokens, or is the order not {", ".join(names)}?')
    print(made)
    for side, (name, pieces) in enumerate(zip(names, tokenizers)):
        tokens = np.concatenate([sides[side] for sides in joined])
        text = f'{parallel[side % len(parallel)]} for {name}'
        warn_of_foreign(text, pieces.count_foreign(tokens), len(tokens))
    arrays = [[np.array(side) for side in sides] for sides in joined]
    return [(sides[0], sides[-1], number) for number, sides in enumerate(arrays)]


def test_sequences(corpus, pairs, max_tokens):
    """At most `pairs` sequences of a corpus's test set, spread evenly over it: list of (sequence,
    the same, number of the document that its middle token belongs to)."""
    starts = np.arange(len(corpus.test) // max_tokens) * max_tokens
    require(len(starts), f'{corpus.name}/test.bin has fewer than one sequence of {max_tokens=}')
    starts = starts[np.linspace(0, len(starts) - 1, min(pairs, len(starts))).astype(int)]
    ends = np.flatnonzero(np.asarray(corpus.test) == DOCUMENT_END)
    documents = np.searchsorted(ends, starts + max_tokens // 2)
    sequences = [np.array(corpus.test[start : start + max_tokens]) for start in starts]
    return [(ids, ids, int(number)) for ids, number in zip(sequences, documents)]
