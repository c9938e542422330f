"""What training reads: token shards, languages, and the mixture of languages.

A corpus is a pair of memory-mapped uint16 shards in data/NAME/, made by prepare.py. A language is a
corpus plus a lookup table from the corpus's token ids to the embedding rows of the model. Clones
are several tables over one corpus, each with an offset of its own (Section 4); real languages are
tables over several corpora (Section 5). One model can have both.
"""

import copy
import hashlib
import json
import math
import mmap
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from lib.configurator import ConfigError, require

import numpy as np

from lib.tokenizer import PAD, open_tokenizer, sha256
from schedule import language_probabilities

# --- corpora: memory-mapped shards ----------------------------------------------------------------


class Corpus:
    """A corpus in data/NAME: `train` and `test` (memory-mapped uint16 token ids) and `info`
    (corpus.json).

    Raises ConfigError when it is missing or differs from what its corpus.json says."""

    def __init__(self, name, root='data'):
        self.name, self.folder = name, Path(root) / name
        again = f'delete {self.folder} and rebuild it'
        missing = f'there is no corpus {name} in {Path(root).resolve()} (data_dir); make it with'
        how = f'python prepare.py --corpus={name} --source=FOLDER, or as config/README.md says'
        require(self.folder.exists(), f'{missing}: {how}')
        try:
            self.info = json.loads((self.folder / 'corpus.json').read_text())
            self.vocab_size = self.info['tokenizer']['pieces']
            self.tokenizer_hash = self.info['tokenizer']['sha256']
            path = self.folder / 'tokenizer.model'
            same = sha256(path) == self.tokenizer_hash
            require(same, f'{path} is not the tokeniser of the shards; put it back, or {again}')
            for part in ('train', 'test'):
                path, expected = self.folder / f'{part}.bin', self.info[part]
                same = path.stat().st_size == 2 * expected['tokens']
                same = same and fingerprint(path) == expected['fingerprint']
                require(same, f'{path} is not the shard that was written for this corpus; {again}')
                shard = np.memmap(path, dtype=np.uint16, mode='r')
                if part == 'train' and hasattr(mmap, 'MADV_RANDOM'):
                    shard.base.madvise(mmap.MADV_RANDOM)  # else the system reads far ahead
                setattr(self, part, shard)
        except FileNotFoundError as error:
            raise ConfigError(f'{error.filename} is missing; {again}') from None
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f'{self.folder}/corpus.json is damaged; {again}') from None

    def load_tokenizer(self):
        return open_tokenizer(self.folder / 'tokenizer.model')


def fingerprint(path, ends=1 << 16):
    """Hash of the first and last 64 KiB of a shard: cheap for any size, and tells a foreign one."""
    with open(path, 'rb') as file:
        head = file.read(ends)
        file.seek(max(0, os.path.getsize(path) - ends))
        return hashlib.sha256(head + file.read()).hexdigest()[:32]


# --- languages ------------------------------------------------------------------------------------


def position_hash(positions):
    """A pseudo-random uint64 for each position of a text."""
    x = positions.astype(np.uint64)
    for factor in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F):
        x = (x + np.uint64(factor)) * np.uint64(factor)
        x ^= x >> np.uint64(31)
    return x


# The orders of a text: languages of the same tokens with another structure (K et al. 2020,
# Deshpande et al. 2022). An entry says in which order the K tokens of a window are read: offsets
# (K,), or (W, K) for windows that begin at the positions `starts` (W,). A language names the order
# with a number for K; without _K the whole text is one window, wherever the text is cut.
ORDERS = {
    '': lambda starts, K: np.arange(K),
    'reversed': lambda starts, K: np.arange(K)[::-1],
    'shuffled_K': lambda starts, K: np.random.default_rng(3).permutation(K),  # the same in all
    'scrambled_K': lambda starts, K: position_hash(starts[:, None] + np.arange(K)).argsort(1),
}


@dataclass
class Language:
    """A corpus, a lookup table from its token ids to embedding rows, and an order of text."""

    name: str
    corpus: Corpus
    table: np.ndarray  # (corpus.vocab_size,) int32
    order: str = ''  # a key of ORDERS with a number for K

    @property
    def window(self):
        """Window size K of the order in tokens, 1 without windows."""
        return int(re.search(r'_(\d+)$|$', self.order)[1] or 1)

    def positions(self, length, start=0):
        """Position in a text of `length` tokens of each token that is read: (length,) int64.

        start: where this text begins in a longer one, at a whole window; its end may cut one."""
        size = self.window if self.window > 1 else max(1, length)
        starts = np.arange(0, length, size)
        offsets = ORDERS[re.sub(r'_\d+$', '_K', self.order)](start + starts, size)
        positions = (starts[:, None] + offsets).ravel()
        return positions[positions < length]

    def ids(self, tokens, start=0):
        """Embedding rows of a text (N,) of the corpus's token ids, in the order of the language."""
        return self.table[tokens[self.positions(len(tokens), start)] if self.order else tokens]


def build_languages(
    corpora, names, vocabulary='disjoint', cloned_fraction=1.0, seed=0, orders=(), root='data'
):
    """The languages of a run, and how many embedding rows they need: (list of Language, rows).

    corpora, names: one of each for every language; a corpus named again makes a clone of its first
    language. vocabulary: 'disjoint', or 'anchored': tokens of two corpora that are spelled alike
    share a row (Appendix D.2). cloned_fraction: fraction of the vocabulary that is duplicated for
    a clone, drawn at random; the rest is shared (Appendix D.1). A smaller fraction is a subset of a
    larger one. orders: the order of each language, or none. Padding is row 0 of all languages.
    Raises ConfigError."""
    orders, count = list(orders) or [''] * len(names), len(names)
    require(names and len(corpora) == count, f'{len(corpora)} corpora for {count} languages')
    require(len(set(names)) == count, f'two languages have the same name: {names}')
    # only a number of at least 2 stands for K
    keys = [re.sub(r'_([2-9]|[1-9]\d+)$', '_K', str(o).replace('K', '?')) for o in orders]
    ordered = len(keys) == count and ORDERS.keys() >= set(keys)
    any_of = f'one of {", ".join(map(repr, ORDERS))} (K at least 2)'
    require(ordered, f'orders must have {any_of} for each of the {count} languages, not {orders}')
    known = vocabulary in ('disjoint', 'anchored')
    require(known, f'vocabulary is disjoint or anchored, not {vocabulary}')
    require(0 <= cloned_fraction <= 1, f'cloned_fraction must be 0 to 1, not {cloned_fraction}')
    joined = vocabulary == 'disjoint' or len(set(corpora)) > 1
    require(joined, 'an anchored vocabulary joins two corpora; for clones set cloned_fraction')
    opened = {name: Corpus(name, root) for name in dict.fromkeys(corpora)}
    tables, row_of = {}, {}  # corpus -> table of its first language; spelling -> row
    for name, corpus in opened.items():
        spellings = [(name, token) for token in range(corpus.vocab_size)]
        if vocabulary == 'anchored':
            spellings = corpus.load_tokenizer().spellings()
        tables[name] = np.array([row_of.setdefault(text, len(row_of)) for text in spellings])
    rows = len(row_of)
    languages = []
    for number, (corpus, name, order) in enumerate(zip(corpora, names, orders)):
        table = tables[corpus].copy()
        if corpus in corpora[:number]:  # a clone: a new row for each token that it does not share
            shuffled = np.random.default_rng(seed).permutation(len(table))
            cloned = np.sort(shuffled[: round(cloned_fraction * len(table))])
            table[cloned] = rows + np.arange(len(cloned))
            rows += len(cloned)
        table[PAD] = PAD
        languages.append(Language(name, opened[corpus], table.astype(np.int32), order))
        every = np.arange(2 * languages[-1].window)
        once = np.array_equal(np.sort(languages[-1].positions(len(every))), every)
        require(once, f'the order {order} does not read each token once')
    return languages, rows


def monolingual(languages, name):
    """One language with a vocabulary of its own: ([Language], rows)."""
    language = next(language for language in languages if language.name == name)
    rows = language.corpus.vocab_size
    return [replace(language, table=np.arange(rows, dtype=np.int32))], rows


# --- the mixture ----------------------------------------------------------------------------------


class LanguageMix:
    """The batches of a run. The seed decides all of them before the first step.

    Each sequence draws its language with the probabilities of its step. A corpus is read in chunks
    of block_size tokens in a shuffled order. Each chunk is assigned to one language, in proportion
    to the tokens that the languages of the corpus will read, so clones never read the same text. A
    language reads all of its chunks before it re-reads them in a new order. A run of one stage
    begins with the same batches as any longer run with the same probabilities.

    drawn, chunks: (max_steps, batch_size), the language (index) of each sequence, and the chunk;
    counts: sequences of each step; before: (max_steps + 1, languages), sequences of each language
    before a step; epochs: {language: how often the run reads its text}."""

    def __init__(self, languages, stages, max_steps, batch_size, block_size, seed):
        """stages: p(language), a row for each of the equally long stages of the run.

        Raises ConfigError when a language is drawn that has no chunk to read."""
        for language in languages:
            text = f'the order {language.order} of {language.name} needs a block_size whose quarter'
            fits = block_size % language.window == 0 == max(1, block_size // 4) % language.window
            require(fits, f'{text} is divisible by {language.window}, not {block_size}')
        self.languages, self.block_size, self.seed = languages, block_size, seed
        probabilities = [language_probabilities(s, max_steps, stages) for s in range(max_steps)]
        bounds = np.cumsum(probabilities, axis=1)
        bounds = bounds / bounds[:, -1:]  # stages may add up to 1 less rounding
        draws = np.random.default_rng(seed).random((max_steps, batch_size))
        self.drawn = np.zeros(draws.shape, np.int16)
        for index in range(len(languages) - 1):
            self.drawn += draws >= bounds[:, index, None]
        counts = [(self.drawn == index).sum(1) for index in range(len(languages))]
        self.counts = np.full(max_steps, batch_size)
        self.before = np.pad(np.cumsum(counts, axis=1).T, ((1, 0), (0, 0)))
        self.chunks, self.epochs = np.zeros(draws.shape, np.uint32), {}
        for place, (index, own) in enumerate(self._assigned(np.mean(stages, axis=0))):
            name, read = languages[index].name, self.before[-1, index]
            text = f'{languages[index].corpus.name} has too few training tokens to give {name} a'
            enough = len(own) or not read
            require(enough, f'{text} sequence: use more text or a smaller block_size')
            self.epochs[name] = read / max(1, len(own))
            again = range(1, math.ceil(self.epochs[name]))
            epochs = [own] + [self._rng(place, epoch).permutation(own) for epoch in again]
            self.chunks[self.drawn == index] = np.concatenate(epochs)[:read]

    def _rng(self, *place):
        return np.random.default_rng((self.seed, *place))

    def _assigned(self, shares):
        """Generator of a language (index) and its chunks (n,) uint32 in the order of its first
        epoch, corpus by corpus. shares: of the languages in the run, (languages,)."""
        corpora = list({id(lang.corpus): lang.corpus for lang in self.languages}.values())
        for number, corpus in enumerate(corpora):
            members = [i for i, lang in enumerate(self.languages) if lang.corpus is corpus]
            order = np.arange((len(corpus.train) - 1) // self.block_size, dtype=np.uint32)
            self._rng(number).shuffle(order)
            sizes = shares[members]
            ends = np.round(np.cumsum(sizes) / max(sizes.sum(), 1e-9) * len(order)).astype(int)
            yield from zip(members, np.split(order, ends[:-1]))

    def batch(self, step, rows=slice(None)):
        """Sequences `rows` (slice or indices) of a step: inputs and targets, each (rows,
        block_size) int64, and the language (index) of each.

        Targets are the inputs shifted by one. The token after a chunk with windows is the first one
        of the next window. A reversed chunk is a chunk of the reversed text."""
        drawn, chunks = self.drawn[step][rows].astype(np.int64), self.chunks[step][rows]
        T = self.block_size
        tokens = np.empty((len(drawn), T + 1), np.int64)
        for row, index, chunk in zip(tokens, drawn, chunks.tolist()):
            language, start = self.languages[index], chunk * T
            text = language.corpus.train[start : start + T + language.window]
            try:
                row[:] = language.ids(text, start)[: T + 1]
            except IndexError:
                shard = f'{language.corpus.folder}/train.bin'
                lacks = 'has a token id that its tokeniser lacks; delete the folder and rebuild it'
                raise ConfigError(f'{shard} {lacks}') from None
        return tokens[:, :-1], tokens[:, 1:], drawn

    def control(self, language, epochs=0, batch_size=0):
        """The batches of a control run: the sequences that a language has in this mix, and no
        others. language: with the table of its own model.

        Without `epochs` they come at the same steps as in the mix. Otherwise all of them are read
        `epochs` times in batches of `batch_size`, first in the order of the mix and then in new
        orders; an epoch may end within a batch."""
        index = [lang.name for lang in self.languages].index(language.name)
        own, control = self.drawn == index, copy.copy(self)
        control.chunks = [chunks[rows] for chunks, rows in zip(self.chunks, own)]
        if epochs:
            once = self.chunks[own]
            again = [self._rng(index, epoch).permutation(once) for epoch in range(1, epochs)]
            read = np.concatenate([once, *again])
            control.chunks = np.split(read, range(batch_size, len(read), batch_size))
            control.epochs = {name: epochs * number for name, number in self.epochs.items()}
        control.counts = np.array([len(chunks) for chunks in control.chunks])
        control.drawn = [np.full(count, index) for count in control.counts]
        control.languages = {index: language}
        return control
