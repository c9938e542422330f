"""Languages and the mix of them that a model trains on.

A language is a corpus plus a lookup table from the corpus's token ids to the model's vocabulary. Clones are several
tables over one corpus (Section 4), real languages are tables over several corpora (Section 5); both can be mixed.

What a training step holds is a pure function of the seed and the step: two counter-based random functions below,
`uniforms` and `shuffled`, give the n-th draw and the n-th place of a shuffled order without any draw before it.
"""

import hashlib
import itertools
import json
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece

from configurator import ConfigError
from model import PAD
from sources import text_lines, hugging_face

UNKNOWN, DOCUMENT_END = 1, 2  # token ids; 0 is padding


# --- corpora: memory-mapped shards ------------------------------------------------------------------------------------

class Corpus:
    """A finished corpus in data/NAME: `train` and `test` (memory-mapped uint16 tokens) and `info` (corpus.json).

    Raises ConfigError when it is missing, or not what its corpus.json says."""

    def __init__(self, name, root='data'):
        self.name, self.folder = name, Path(root) / name
        if not self.folder.exists():
            raise ConfigError(f'there is no corpus {self.folder}; make it with: '
                              f'python prepare.py --corpus={name} --source=SOURCE (a folder of text files, docs, '
                              'eltec:eng, hf:PleIAs/English-PD, ...; see --help)')
        try:
            self.info = json.loads((self.folder / 'corpus.json').read_text())
            self.vocab_size = self.info['tokenizer']['pieces']
            self.tokenizer_hash = self.info['tokenizer']['sha256']
            if sha256(self.folder / 'tokenizer.model') != self.tokenizer_hash:
                raise ConfigError(f'{self.folder}/tokenizer.model is not the tokeniser that the shards were made with; '
                                  f'put it back, or delete {self.folder} and make it again')
            self.train, self.test = self._shard('train'), self._shard('test')
        except FileNotFoundError as error:
            raise ConfigError(f'{error.filename} is missing; delete {self.folder} and make it again') from None
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f'{self.folder}/corpus.json is damaged; delete {self.folder} and make it again') from None

    def _shard(self, part):
        path = self.folder / f'{part}.bin'
        expected = self.info[part]
        size = path.stat().st_size if path.exists() else 0
        if size != 2 * expected['tokens']:
            raise ConfigError(f'{path} has {size:,} bytes where {2 * expected["tokens"]:,} belong: it is truncated or '
                              f'not of this corpus; delete {self.folder} and make it again')
        if fingerprint(path) != expected['fingerprint']:
            raise ConfigError(f'{path} is not the shard that was written for this corpus; '
                              f'delete {self.folder} and make it again')
        return open_shard(path, in_order=part == 'test')

    def load_tokenizer(self):
        return load_tokenizer(self.folder / 'tokenizer.model')


def open_shard(path, in_order=False):
    """The tokens of a shard, memory-mapped: (N,) uint16."""
    shard = np.memmap(path, dtype=np.uint16, mode='r')
    if not in_order and hasattr(mmap, 'MADV_RANDOM'):  # else the system reads far ahead of each sequence for nothing
        shard.base.madvise(mmap.MADV_RANDOM)
    return shard


def sha256(path):
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def fingerprint(path, ends=1 << 16):
    """Hash of a shard's first and last 64 KiB: tells a foreign shard at no cost, however large it is."""
    with open(path, 'rb') as file:
        head = file.read(ends)
        file.seek(max(0, os.path.getsize(path) - ends))
        return hashlib.sha256(head + file.read()).hexdigest()[:32]


def load_tokenizer(path):
    """SentencePiece model of `path`; raises ConfigError unless ids 0 to 2 are padding, unknown and end of document."""
    if not os.path.isfile(path):
        raise ConfigError(f'there is no tokeniser {path}')
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError):
        raise ConfigError(f'{path} is not a SentencePiece model') from None
    if len(pieces) > 65535:
        raise ConfigError(f'{path} has {len(pieces):,} pieces; tokens are stored in 16 bits, so at most 65,535 fit')
    ordinary = [i for i in (0, DOCUMENT_END) if len(pieces) < 3 or not pieces.is_control(i) and
                not re.fullmatch('<.*>', pieces.id_to_piece(i))]
    if ordinary or pieces.unk_id() != UNKNOWN:
        raise ConfigError(f'{path} does not have padding at id 0, unknown at 1 and end of document at 2; '
                          'train it with pad_id=0, unk_id=1, eos_id=2')
    return pieces


# --- languages ---------------------------------------------------------------------------------------------------------

@dataclass
class Language:
    name: str
    corpus: Corpus
    table: np.ndarray  # (corpus.vocab_size,) int32: id of each of the corpus's tokens in the model's vocabulary


def build_languages(corpora, names, vocabulary='disjoint', cloned_fraction=1.0, seed=0, root='data'):
    """The languages of a run and the size of the model's vocabulary: (list of Language, entries).

    corpora, names: one of each for every language; a corpus that is named again makes a clone of its first language.
    vocabulary: 'disjoint', or 'anchored', where a piece that is spelled alike in two corpora is one entry (Appendix
    D.2). cloned_fraction: share of the pieces of which a clone has a copy of its own, drawn at random; the others it
    shares with the language it is a clone of (Appendix D.1); a smaller share is a subset of a larger one. Padding is
    id 0 for all. Raises ConfigError."""
    if len(corpora) != len(names) or not names:
        raise ConfigError(f'{len(corpora)} corpora for {len(names)} languages: give one corpus for each language')
    if len(set(names)) != len(names):
        raise ConfigError(f'two languages have the same name: {names}')
    if vocabulary not in ('disjoint', 'anchored'):
        raise ConfigError(f"vocabulary must be 'disjoint' or 'anchored', not {vocabulary!r}")
    if not 0 <= cloned_fraction <= 1:
        raise ConfigError(f'cloned_fraction must lie between 0 and 1, not {cloned_fraction}')
    if vocabulary == 'anchored' and len(set(corpora)) == 1:
        raise ConfigError('an anchored vocabulary joins two corpora, and there is one; for clones set cloned_fraction')
    opened = {name: Corpus(name, root) for name in dict.fromkeys(corpora)}
    entry_of, entries = {}, 0  # spelling -> entry, for anchors
    tables = {}  # corpus -> table of its first language
    for name, corpus in opened.items():
        if vocabulary == 'disjoint':
            table = np.arange(corpus.vocab_size) + entries
            entries += corpus.vocab_size
        else:
            pieces, table = corpus.load_tokenizer(), np.empty(corpus.vocab_size, int)
            for token in range(corpus.vocab_size):
                table[token] = entry_of.setdefault(pieces.id_to_piece(token), entries)
                entries = max(entries, int(table[token]) + 1)
        tables[name] = table
    languages, used = [], set()
    for corpus, name in zip(corpora, names):
        table = tables[corpus].copy()
        if corpus in used:
            cloned = np.random.default_rng(seed).permutation(len(table))[:round(cloned_fraction * len(table))]
            table[np.sort(cloned)] = entries + np.arange(len(cloned))
            entries += len(cloned)
        used.add(corpus)
        table[PAD] = PAD
        languages.append(Language(name, opened[corpus], table.astype(np.int32)))
    return languages, entries


# --- randomness by counter --------------------------------------------------------------------------------------------

def uniforms(seed, start, count):
    """Draws start to start + count of an endless sequence of uniform numbers in [0, 1) that `seed` names."""
    block = start // 4  # a step of Philox's counter yields four numbers
    generator = np.random.Generator(np.random.Philox(key=seed, counter=block))
    return generator.random(start - 4 * block + count)[start - 4 * block:]


def _mix(x):
    """splitmix64's finaliser: a bijection of uint64 that scatters neighbours."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def shuffled(seed, places, n, rounds=6):
    """Where a shuffled order of range(n) has its `places` (int array, each below n): a keyed bijection, so the order
    needs no memory.

    A Feistel network over a grid of a x b >= n cells, both about sqrt(n): each round shifts one coordinate by a hash
    of the other. Cells beyond n, a share of about 2 / sqrt(n), are sent through again."""
    b = np.uint64(max(1, int(np.ceil(np.sqrt(n)))))
    a = np.uint64(-(-n // int(b)))
    keys = np.random.SeedSequence(seed).generate_state(rounds, np.uint64)
    x = np.asarray(places).astype(np.uint64)
    again = np.ones(x.shape, bool)
    while again.any():
        row, column = x[again] // b, x[again] % b
        for number, key in enumerate(keys):
            if number % 2:
                column = (column + _mix(row ^ key) % b) % b
            else:
                row = (row + _mix(column ^ key) % a) % a
        x[again] = row * b + column
        again = x >= np.uint64(n)
    return x.astype(np.int64)


# --- the mix ----------------------------------------------------------------------------------------------------------

class LanguageMix:
    """The batches of a run.

    Each sequence draws its language with the probabilities of its step. A corpus is read in chunks of block_size
    tokens in a shuffled order, each chunk once, by whichever of its languages comes next; after the last chunk it
    starts over in a new order. So text is not seen twice before all of it was seen, clones do not see the same text,
    and a shorter run sees the beginning of what a longer run with the same probabilities sees."""

    def __init__(self, languages, probabilities, batch_size, block_size, seed):
        """probabilities: function of the step that gives p(language), one for each of `languages`.

        Raises ConfigError when a corpus is shorter than a sequence."""
        self.languages, self.probabilities = languages, probabilities
        self.batch_size, self.block_size, self.seed = batch_size, block_size, seed
        self.corpora = list({id(language.corpus): language.corpus for language in languages}.values())
        self.corpus_of = np.array([self.corpora.index(language.corpus) for language in languages])
        self.chunks = [(len(corpus.train) - 1) // block_size for corpus in self.corpora]
        for corpus, chunks in zip(self.corpora, self.chunks):
            if chunks < 1:
                raise ConfigError(f'corpus {corpus.name} has {len(corpus.train):,} training tokens, too few for one '
                                  f'sequence of block_size {block_size}; use a smaller block_size or more text')
        self._counted = (0, np.zeros(len(languages), np.int64))  # a step and the sequences of each language before it

    def draw(self, step, count=1):
        """Language (index) of each sequence of `count` steps: (count * batch_size,) int64."""
        cumulative = np.cumsum([self.probabilities(s) for s in range(step, step + count)], axis=1)
        numbers = uniforms(self.seed, step * self.batch_size, count * self.batch_size).reshape(count, -1)
        # above the bounds of how many languages, the last bound (1, or just below by rounding) left out
        return sum(numbers >= bound[:, None] for bound in cumulative.T[:-1]).ravel() if len(self.languages) > 1 \
            else np.zeros(numbers.size, np.int64)

    def sequences_before(self, step):
        """Sequences of each language in all steps before `step`: (languages,) int64."""
        at, counts = self._counted
        if step < at:
            at, counts = 0, np.zeros(len(self.languages), np.int64)
        while at < step:
            many = min(step - at, 4096)
            counts = counts + np.bincount(self.draw(at, many), minlength=len(self.languages))
            at += many
        self._counted = at, counts
        return counts

    def chunk(self, corpus, number):
        """Which chunks the `number`-th sequences (int array) read of a corpus (index) read."""
        chunks = self.chunks[corpus]
        found = np.empty(len(number), np.int64)
        for epoch in np.unique(number // chunks):
            here = number // chunks == epoch
            found[here] = shuffled((self.seed, corpus, int(epoch)), number[here] % chunks, chunks)
        return found

    def batch(self, step, rows=slice(None)):
        """Sequences `rows` of a step: inputs and targets, each (rows, block_size) int64, and the language (index) of
        each row. The targets are the inputs moved by one token."""
        before, drawn = self.sequences_before(step), self.draw(step)
        tokens = np.empty((self.batch_size, self.block_size + 1), np.int64)
        wanted = np.zeros(self.batch_size, bool)
        wanted[rows] = True
        for index, corpus in enumerate(self.corpora):
            of_corpus = self.corpus_of[drawn] == index
            first = before[self.corpus_of == index].sum()
            mine = np.flatnonzero(of_corpus & wanted)
            number = first + np.cumsum(of_corpus)[mine] - 1
            for row, start in zip(mine, self.chunk(index, number) * self.block_size):
                language = self.languages[drawn[row]]
                ids = corpus.train[start:start + self.block_size + 1]
                try:
                    tokens[row] = language.table[ids]
                except IndexError:
                    raise ConfigError(f'{corpus.folder}/train.bin holds a token that its tokeniser does not have; '
                                      f'delete {corpus.folder} and make it again') from None
        return tokens[rows, :-1], tokens[rows, 1:], drawn[rows]

    def epochs(self, step):
        """{corpus name: how often it has been read before `step`} (float)."""
        before = self.sequences_before(step)
        return {corpus.name: before[self.corpus_of == i].sum() / self.chunks[i] for i, corpus in enumerate(self.corpora)}


# --- parallel text ----------------------------------------------------------------------------------------------------


def line_source(where):
    """Function that opens a source of lines again and again: a text file (.gz allowed), or hf:DATASET:COLUMN."""
    if where.startswith('hf:'):
        return lambda: hugging_face(where.removeprefix('hf:'))
    if not Path(where).is_file():
        raise ConfigError(f'there is no file {where}; parallel text is given as --parallel=[FILE.en,FILE.fr]')
    return lambda: text_lines(Path(where))


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
