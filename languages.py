"""Languages and the mix of them that a model trains on.

A language is a corpus plus a lookup table from the corpus's token ids to the model's vocabulary. Clones are several
tables over one corpus (Section 4), real languages are tables over several corpora (Section 5); both can be mixed.

What a training step holds is a pure function of the seed and the step: two counter-based random functions below,
`uniforms` and `shuffled`, give the n-th draw and the n-th place of a shuffled order without any draw before it.
"""
from dataclasses import dataclass

import numpy as np

from configurator import ConfigError
from data import Corpus
from model import PAD


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
