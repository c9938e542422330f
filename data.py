"""What training reads: token shards, languages and the mix of them, aligned text.

A corpus is a pair of memory-mapped uint16 shards in data/NAME/, made by prepare.py. A language is a
corpus plus a lookup table from the corpus's token ids to the model's vocabulary: clones are several
tables over one corpus, each with an offset of its own (Section 4), real languages are tables over
several corpora (Section 5), and both can be mixed.
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

from configurator import ConfigError, require
from model import PAD
from schedule import language_probabilities
from sources import hugging_face, text_lines

UNKNOWN, DOCUMENT_END = 1, 2  # token ids of every corpus; 0 is padding


# --- corpora: memory-mapped shards ----------------------------------------------------------------


class Corpus:
    """A finished corpus in data/NAME: `train` and `test` (memory-mapped uint16 tokens) and `info`
    (corpus.json).

    Raises ConfigError when it is missing, or not what its corpus.json says."""

    def __init__(self, name, root='data'):
        self.name, self.folder = name, Path(root) / name
        again = f'delete {self.folder} and make it again'
        require(
            self.folder.exists(),
            f'there is no corpus {self.folder}; make it with: python prepare.py --corpus={name} '
            '--source=SOURCE (a folder of text files, docs, eltec:eng, hf:PleIAs/English-PD, ...), '
            'or as the head of its config or config/README.md says',
        )
        try:
            self.info = json.loads((self.folder / 'corpus.json').read_text())
            self.vocab_size = self.info['tokenizer']['pieces']
            self.tokenizer_hash = self.info['tokenizer']['sha256']
            path = self.folder / 'tokenizer.model'
            same = sha256(path) == self.tokenizer_hash
            require(same, f'{path} is not the tokeniser of the shards; put it back, or {again}')
            for part in ('train', 'test'):
                path, expected = self.folder / f'{part}.bin', self.info[part]
                size = path.stat().st_size if path.exists() else 0
                belong = 2 * expected['tokens']
                require(
                    size == belong, f'{path} has {size:,} bytes where {belong:,} belong; {again}'
                )
                same = fingerprint(path) == expected['fingerprint']
                require(same, f'{path} is not the shard that was written for this corpus; {again}')
                setattr(self, part, open_shard(path, in_order=part == 'test'))
        except FileNotFoundError as error:
            raise ConfigError(f'{error.filename} is missing; {again}') from None
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f'{self.folder}/corpus.json is damaged; {again}') from None

    def load_tokenizer(self):
        return load_tokenizer(self.folder / 'tokenizer.model')


def open_shard(path, in_order=False):
    """The tokens of a shard, memory-mapped: (N,) uint16."""
    shard = np.memmap(path, dtype=np.uint16, mode='r')
    if not in_order and hasattr(mmap, 'MADV_RANDOM'):
        # Without this advice the system reads far ahead of every sequence, for nothing.
        shard.base.madvise(mmap.MADV_RANDOM)
    return shard


def sha256(path):
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def fingerprint(path, ends=1 << 16):
    """Hash of a shard's first and last 64 KiB, which tells a foreign shard of any size at once."""
    with open(path, 'rb') as file:
        head = file.read(ends)
        file.seek(max(0, os.path.getsize(path) - ends))
        return hashlib.sha256(head + file.read()).hexdigest()[:32]


def load_tokenizer(path):
    """SentencePiece model of `path`.

    Raises ConfigError unless ids 0 to 2 are padding, unknown and end of document."""
    require(os.path.isfile(path), f'there is no tokeniser {path}')
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError):
        raise ConfigError(f'{path} is not a SentencePiece model') from None
    count = len(pieces)
    require(count < 1 << 16, f'{path} has {count:,} pieces, and 16 bits hold at most 65,535')
    special = count > DOCUMENT_END and all(
        pieces.is_control(token) or re.fullmatch('<.*>', pieces.id_to_piece(token))
        for token in (PAD, DOCUMENT_END)
    )
    require(
        special and pieces.unk_id() == UNKNOWN,
        f'{path} does not have padding at id 0, unknown at 1 and end of document at 2; train it '
        'with pad_id=0, unk_id=1, eos_id=2',
    )
    return pieces


# --- languages ------------------------------------------------------------------------------------


@dataclass
class Language:
    """A corpus, the entry of each of its tokens in the model's vocabulary, and an order of text.

    table: (corpus.vocab_size,) int32. order: '', 'reversed', or 'shuffled_K', where the tokens of
    each window of K change places, in all windows alike. So languages of the same pieces get
    another structure (K et al. 2020, Deshpande et al. 2022)."""

    name: str
    corpus: Corpus
    table: np.ndarray
    order: str = ''

    @property
    def window(self):
        """Tokens that change places among themselves; 1 where the order has no windows."""
        return int(self.order.removeprefix('shuffled_')) if 'shuffled' in self.order else 1

    def positions(self, length):
        """Where in a text of `length` tokens each token of the language stands: (length,) int64.

        The text begins with a window; of one that its end cuts, the tokens that are there keep
        the order that they have in a whole window."""
        if self.order == 'reversed':
            return np.arange(length)[::-1]
        permutation = np.random.default_rng(3).permutation(self.window)
        starts = np.arange(0, length, self.window)
        positions = (starts[:, None] + permutation).ravel()
        return positions[positions < length]

    def ids(self, tokens):
        """The entries of a text of the corpus, (N,) tokens, in the order of the language."""
        return self.table[tokens[self.positions(len(tokens))] if self.order else tokens]


def build_languages(
    corpora, names, vocabulary='disjoint', cloned_fraction=1.0, seed=0, orders=(), root='data'
):
    """The languages of a run and the size of the model's vocabulary: (list of Language, entries).

    corpora, names: one of each for every language; a corpus that is named again makes a clone of
    its first language. vocabulary: 'disjoint', or 'anchored', where a piece that is spelled alike
    in two corpora is one entry (Appendix D.2). cloned_fraction: share of the pieces of which a
    clone has a copy of its own, drawn at random; the others it shares with the language it is a
    clone of (Appendix D.1); a smaller share is a subset of a larger one. orders: the order of each
    language, or none. Padding is id 0 for all. Raises ConfigError."""
    orders, count = list(orders) or [''] * len(names), len(names)
    valid = all(re.fullmatch(r'|reversed|shuffled_([2-9]|[1-9]\d+)', str(o)) for o in orders)
    require(
        valid and len(orders) == count,
        f"orders must have '', 'reversed' or 'shuffled_K' (K at least 2) for each of the {count} "
        f'languages, not {orders}',
    )
    require(names and len(corpora) == count, f'{len(corpora)} corpora for {count} languages')
    require(len(set(names)) == count, f'two languages have the same name: {names}')
    valid = vocabulary in ('disjoint', 'anchored')
    require(valid, f"vocabulary must be 'disjoint' or 'anchored', not {vocabulary!r}")
    valid = 0 <= cloned_fraction <= 1
    require(valid, f'cloned_fraction must lie between 0 and 1, not {cloned_fraction}')
    valid = vocabulary == 'disjoint' or len(set(corpora)) > 1
    require(valid, 'an anchored vocabulary joins two corpora; for clones set cloned_fraction')
    opened = {name: Corpus(name, root) for name in dict.fromkeys(corpora)}
    tables, entry_of = {}, {}  # corpus -> table of its first language; piece -> entry
    for name, corpus in opened.items():
        pieces = [(name, token) for token in range(corpus.vocab_size)]
        if vocabulary == 'anchored':  # pieces that are spelled alike are one
            tokenizer = corpus.load_tokenizer()
            pieces = [tokenizer.id_to_piece(token) for token in range(corpus.vocab_size)]
        tables[name] = np.array([entry_of.setdefault(piece, len(entry_of)) for piece in pieces])
    entries = len(entry_of)
    languages = []
    for number, (corpus, name, order) in enumerate(zip(corpora, names, orders)):
        table = tables[corpus].copy()
        if corpus in corpora[:number]:  # a clone: an entry for each piece that it does not share
            shuffled = np.random.default_rng(seed).permutation(len(table))
            cloned = np.sort(shuffled[: round(cloned_fraction * len(table))])
            table[cloned] = entries + np.arange(len(cloned))
            entries += len(cloned)
        table[PAD] = PAD
        languages.append(Language(name, opened[corpus], table.astype(np.int32), order))
    return languages, entries


def alone(languages, name):
    """A language in a vocabulary of its own: (list of that one Language, entries)."""
    language = next(language for language in languages if language.name == name)
    entries = language.corpus.vocab_size
    table = np.arange(entries, dtype=np.int32)
    return [Language(name, language.corpus, table, language.order)], entries


def own_entries(languages, name):
    """The entries of a language that no other has: (n,) int32. Padding is nobody's."""
    (own,) = (language.table for language in languages if language.name == name)
    others = [language.table for language in languages if language.name != name]
    return np.setdiff1d(own, np.concatenate([[PAD], *others]))


def entry_pairs(languages, alike):
    """Which entries may start as which others: (n, 2) int, an entry and the one that it starts as.

    alike 'clones': each piece of a clone and that of the language that it is a clone of.
    'spelling': each piece of a later language and that of the first language, where it is spelled
    alike (as FOCUS does, Dobler and de Melo 2023). Else a file of two columns, a word of the first
    language and of the last one, where each is one piece (dictionaries serve so in WECHSEL,
    Minixhofer et al. 2022); the first line of a word counts. Entries that the other language has,
    too, are left out. Raises ConfigError when there is nothing to pair."""
    listed, rows = alike not in ('clones', 'spelling'), []
    if listed:
        found = Path(alike).is_file()
        require(found, f"start_entries is 'clones', 'spelling' or a file; there is no {alike}")
        rows = [line.split() for line in text_lines(Path(alike))]
    require(all(len(r) in (0, 2) for r in rows), f'{alike} must have two words on each line')
    pairs = {}  # entry -> the entry that it starts as
    for language in languages[-1:] if listed else languages[1:]:
        clones = [other for other in languages if other.corpus is language.corpus]
        source = clones[0] if alike == 'clones' else languages[0]
        first, second = source.corpus.load_tokenizer(), language.corpus.load_tokenizer()
        tokens = [(token_of(first, row[0]), token_of(second, row[1])) for row in rows if row]
        if not listed:
            tokens = [(i, second.piece_to_id(first.id_to_piece(i))) for i in range(len(first))]
        shared = set(source.table.tolist())
        for source_token, token in tokens:
            entry = int(language.table[token])
            if UNKNOWN not in (source_token, token) and entry not in shared:
                pairs.setdefault(entry, int(source.table[source_token]))
    require(pairs, f'start_entries={alike!r} finds no entry that could start as another')
    return np.array(list(pairs.items()))


def token_of(pieces, word):
    """The token of a word that is one piece, or of a piece that is spelled so; else UNKNOWN."""
    tokens = pieces.encode(word)
    return tokens[0] if len(tokens) == 1 else pieces.piece_to_id(word)


# --- the mix --------------------------------------------------------------------------------------


class LanguageMix:
    """The batches of a run, decided by the seed before its first step.

    Each sequence draws its language with the probabilities of its step. A corpus is read in chunks
    of block_size tokens in a shuffled order. Each chunk belongs to one language for good, in
    proportion to what the languages of the corpus will read, so clones never read the same text. A
    language reads all of its chunks before it reads them again in a new order. With
    `parallel_epochs` the clones of a corpus share its chunks: after the first epoch a chunk may
    come back in another language, which is parallel text. A run of one stage begins like every
    longer run with the same probabilities."""

    def __init__(
        self, languages, stages, max_steps, batch_size, block_size, seed, parallel_epochs=False
    ):
        """stages: a row of p(language) for each of the equally long stages of the run.

        Raises ConfigError when a language that is drawn has not a single chunk to read."""
        for language in languages:
            require(
                block_size % language.window == 0 == max(1, block_size // 4) % language.window,
                f'the order {language.order} of {language.name} needs a block_size of which a '
                f'quarter is divisible by {language.window}, not {block_size}',
            )
        self.languages, self.block_size, self.seed = languages, block_size, seed
        probabilities = [language_probabilities(s, max_steps, stages) for s in range(max_steps)]
        bounds = np.cumsum(probabilities, axis=1)
        draws = np.random.default_rng(seed).random((max_steps, batch_size))
        self.drawn = np.zeros(draws.shape, np.int16)  # language (index) of each sequence
        for index in range(len(languages) - 1):  # the last bound is 1, or just below by rounding
            self.drawn += draws >= bounds[:, index, None]
        counts = [(self.drawn == index).sum(1) for index in range(len(languages))]
        self.before = np.zeros((max_steps + 1, len(languages)), np.int64)  # sequences before a step
        self.before[1:] = np.cumsum(counts, axis=1).T
        self._share_chunks(np.mean(stages, axis=0), parallel_epochs)

    def _share_chunks(self, shares, parallel_epochs):
        """Gives the chunks of every corpus to its readers: each of its languages, or all in one."""
        self.readers = []  # (languages that read in turn, their chunks in the order of reading)
        corpora = list({id(lang.corpus): lang.corpus for lang in self.languages}.values())
        for number, corpus in enumerate(corpora):
            members = [i for i, lang in enumerate(self.languages) if lang.corpus is corpus]
            chunks = (len(corpus.train) - 1) // self.block_size
            order = np.arange(max(0, chunks), dtype=np.uint32)
            np.random.default_rng((self.seed, number)).shuffle(order)
            groups = [members] if parallel_epochs else [[member] for member in members]
            sizes = np.array([shares[group].sum() for group in groups])
            ends = np.round(np.cumsum(sizes) / max(sizes.sum(), 1e-9) * len(order)).astype(int)
            for group, part in zip(groups, np.split(order, ends[:-1])):
                require(
                    len(part) or not self.before[-1, group].any(),
                    f'corpus {corpus.name} has {len(corpus.train):,} training tokens, too few to '
                    f'give {self.languages[group[0]].name} a sequence of block_size '
                    f'{self.block_size}; use a smaller block_size or more text',
                )
                self.readers.append((group, part))
        self._orders = {}  # (reader, epoch) -> the chunks in the order of that epoch

    def _chunk(self, reader, number):
        """The chunk that the `number`-th sequence of a reader reads."""
        own = self.readers[reader][1]
        epoch, place = divmod(number, len(own))
        if epoch and (reader, epoch) not in self._orders:
            generator = np.random.default_rng((self.seed, reader, epoch))
            self._orders[reader, epoch] = generator.permutation(own)
            self._orders.pop((reader, epoch - 2), None)
        return self._orders[reader, epoch][place] if epoch else own[place]

    def batch(self, step, rows=slice(None)):
        """Sequences `rows` (slice or indices) of a step: inputs and targets, each (rows,
        block_size) int64, and the language (index) of each. Targets are the inputs moved by one."""
        drawn = self.drawn[step].astype(np.int64)
        chunks = np.empty(len(drawn), np.int64)
        for reader, (group, _) in enumerate(self.readers):
            read = int(self.before[step, group].sum())
            for number, row in enumerate(np.flatnonzero(np.isin(drawn, group)), read):
                chunks[row] = self._chunk(reader, number)
        drawn, chunks = drawn[rows], chunks[rows]
        tokens = np.empty((len(drawn), self.block_size + 1), np.int64)
        for row, (language, chunk) in enumerate(zip(drawn, chunks)):
            tokens[row] = self._read(self.languages[language], chunk)
        return tokens[:, :-1], tokens[:, 1:], drawn

    def _read(self, language, chunk):
        """A chunk and the token behind it, in the order of the language: (block_size + 1,) ids.

        A shuffled chunk is that of the whole text shuffled: the token behind it is the first one
        of the next window. A reversed chunk is one of the whole text reversed."""
        start = chunk * self.block_size
        end = start + self.block_size + language.window
        try:
            return language.ids(language.corpus.train[start:end])[: self.block_size + 1]
        except IndexError:
            folder = language.corpus.folder
            raise ConfigError(
                f'{folder}/train.bin holds a token that its tokeniser does not have; '
                f'delete {folder} and make it again'
            ) from None

    def epochs(self, step):
        """{language: how often it has read its text before `step`} (float)."""
        return {
            self.languages[index].name: self.before[step, group].sum() / max(1, len(chunks))
            for group, chunks in self.readers
            for index in group
        }


# --- parallel text --------------------------------------------------------------------------------


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
