"""Text to tokens: makes the corpus data/NAME/ from a source of documents (see sources.py for all).

    python prepare.py                                 # data/docs, from what is installed
    python prepare.py --corpus=books_en --source=FOLDER
    python prepare.py --corpus=books_fr --source=hf:PleIAs/French-PD-Books --max_bytes=2e10

data/NAME/ holds tokenizer.model (SentencePiece), train.bin and test.bin (uint16 tokens, documents
ended by <D>) and corpus.json, which says what they are. It is made in data/.NAME.making and renamed
when it is complete. Memory does not grow with the corpus: the tokeniser learns from the first
TOKENIZER_BYTES of training text, the rest streams.

A hash of a document's text decides whether it is tested on, so the test set stays the same as a
corpus grows, and a document and its copy are never on both sides. A single text file has no
documents: neighbouring pieces of it share names and plot, so its last `test_fraction` is the test
set, in one part. The file is read twice for that, first to count its pieces.
"""

import collections
import hashlib
import itertools
import multiprocessing
import os
import re
import shutil
from pathlib import Path

from lib.configurator import ConfigError, run, settings_of

import numpy as np
from tqdm import tqdm

from data import Corpus, fingerprint
from lib.files import lock, write_json
from lib.sources import documents, file_bytes, is_text_file
from lib.tokenizer import DOCUMENT_END, Tokenizer

corpus = 'docs'  # name of the corpus: it is made in data/NAME
source = 'docs'  # a file, a folder, docs, eltec:LANGUAGE or hf:DATASET (see sources.py)
tokenizer = ''  # an existing SentencePiece .model file; empty: a new one is trained on the corpus
vocab_size = 16384  # pieces of a new tokeniser, at most 65,535
test_fraction = 0.05  # share of the documents, or of a single text file, that is kept for testing
max_bytes = 0  # stop after so many bytes of text (UTF-8); 0: read all

TOKENIZER_BYTES = 128 << 20  # a new tokeniser learns from at most so much text
BATCH_BYTES = 1 << 20  # text sent to an encoding process at once


# --- encoding on all cores ------------------------------------------------------------------------


def _bytes(ids):
    return np.array(ids, dtype=np.uint16).tobytes()


class WordEncoder(dict):
    """Encodes text word by word, each different word once; as a dict: word -> its tokens.

    That is several times faster than encoding it whole, and the same where no piece reaches over a
    space and the tokeniser leaves spaces as they are. The pieces and a PROBE tell whether they are
    so; text of another tokeniser is encoded whole."""

    PROBE = '  two  spaces, a tab\t, line ends \n\n of \u00a0two\u2003kinds \ufb01 e\u0301 \n end  '
    LIMIT = 1_000_000  # words that are remembered

    def __init__(self, pieces):
        self.pieces = pieces
        spelled = pieces.spellings()
        self.by_words = not any(' ' in piece or '\u2581' in piece[1:] for piece in spelled)
        self.by_words = self.by_words and self(self.PROBE) == _bytes(pieces.encode(self.PROBE))

    def __missing__(self, word):
        # SentencePiece puts a space before a text, which serves as the word's own. An empty word is
        # a space alone.
        ids = self.pieces.encode(word) if word else self.pieces.encode(' ')[1:]
        self[word] = _bytes(ids)
        return self[word]

    def __call__(self, text):
        """The uint16 tokens of a text that is not empty, as bytes."""
        if not self.by_words:
            return _bytes(self.pieces.encode(text))
        if len(self) > self.LIMIT:
            self.clear()
        return b''.join(map(self.__getitem__, text.split(' ')))


def _start_worker(model):
    global _encoder
    _encoder = WordEncoder(Tokenizer(model))


def _encode(batch):
    """[(part, text)] -> {part: (uint16 tokens as bytes, counts for corpus.json)}"""
    encoded = {}
    for part in ('train', 'test'):
        texts = [text for chosen, text in batch if chosen == part]
        tokens = b''.join(_encoder(text) + _bytes([DOCUMENT_END]) for text in texts)
        size = sum(len(text.encode()) for text in texts)
        encoded[part] = tokens, dict(tokens=len(tokens) // 2, documents=len(texts), bytes=size)
    return encoded


def _batches(texts):
    batch, size = [], 0
    for part, text in texts:
        batch.append((part, text))
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _encoded(pool, batches, ahead):
    """Results of _encode in the order of the batches, of which at most `ahead` are under way."""
    pending = collections.deque()
    for batch in batches:
        pending.append(pool.apply_async(_encode, [batch]))
        if len(pending) == ahead:
            yield pending.popleft().get()
    while pending:
        yield pending.popleft().get()


def write_shards(texts, folder, total=None):
    """Encodes [(part, text)], of `total` bytes at most, into folder/train.bin and test.bin.

    Returns {part: dict(tokens, documents, bytes, fingerprint)}, as corpus.json has it."""
    about = {'train': collections.Counter(), 'test': collections.Counter()}
    workers, spawn = os.cpu_count(), multiprocessing.get_context('spawn')
    with (
        open(folder / 'train.bin', 'wb') as train,
        open(folder / 'test.bin', 'wb') as test,
        spawn.Pool(workers, _start_worker, [folder / 'tokenizer.model']) as pool,
        tqdm(desc='encoding', total=total, unit='B', unit_scale=True) as progress,
    ):
        files = dict(train=train, test=test)
        for encoded in _encoded(pool, _batches(texts), 3 * workers):
            for part, (tokens, counts) in encoded.items():
                files[part].write(tokens)
                about[part].update(counts)
                progress.update(counts['bytes'])
        progress.total = progress.n  # files may hold more than text
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    marks = {part: fingerprint(folder / f'{part}.bin') for part in about}
    return {part: dict(counts, fingerprint=marks[part]) for part, counts in about.items()}


# --- the split ------------------------------------------------------------------------------------


def limited(texts, limit):
    """Documents that are not empty, until `limit` bytes of them (0: all)."""
    size = 0
    for text in texts:
        if text.strip():
            yield text
            size += len(text.encode())
            if limit and size >= limit:
                return


def text_size():
    """Bytes of text that will be read, at most; None where that is not known before."""
    return min(filter(None, (max_bytes, file_bytes(source))), default=None)


def shown(texts, what, total):
    """Passes texts on, with a progress bar of their bytes; docs has a bar of its own."""
    bar = dict(unit='B', unit_scale=True, disable=source == 'docs')
    with tqdm(desc=what, total=total, **bar) as progress:
        for text in texts:
            yield text
            progress.update(len(text.encode()))
        progress.total = progress.n  # files may hold more than text


def test_number(text):
    """Number in [0, 1) from a text alone; below `test_fraction` a document is in the test set."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big') / 2**64


def training_pieces():
    """How many pieces of a single text file come before its test set; None for other sources."""
    if not is_text_file(source):
        return None
    pieces = shown(limited(documents(source), max_bytes), 'counting', text_size())
    count = sum(1 for _ in pieces)
    return count - max(1, round(test_fraction * count))


def split(texts, training=None):
    """(part, text) of the first documents, as a list, and of the others, as a generator.

    The first are those that a tokeniser may learn from. training: how many documents precede the
    test set; None: their hashes decide, and when none of the first is chosen (a small corpus), the
    one with the lowest number is tested on. Raises ConfigError when a part would be empty."""
    total = min(text_size() or TOKENIZER_BYTES, TOKENIZER_BYTES)
    first = list(limited(shown(texts, 'reading', total), TOKENIZER_BYTES))
    if len(first) == 1:  # a long one
        first += itertools.islice(texts, 1)
    if not first:
        raise ConfigError(f'{source} is empty: there is no text in it')
    if len(first) < 2:
        needed = 'at least two are needed, one of them for the test set'
        raise ConfigError(f'{source} is a single document; {needed}')
    lowest = min(map(test_number, first))

    def part_of(place, text):
        number = test_number(text)
        tested = number < test_fraction or number == lowest
        if training is not None:
            tested = place >= training
        return 'test' if tested else 'train'

    chosen = [(part_of(place, text), text) for place, text in enumerate(first)]
    if all(part == 'test' for part, _ in chosen):
        reason = f'all documents of {source} are the same or fall into the test set'
        raise ConfigError(f'{reason}; more are needed, or a lower --test_fraction')
    others = enumerate(texts, len(first))
    return chosen, ((part_of(place, text), text) for place, text in others)


# --- the script -----------------------------------------------------------------------------------


def check_settings():
    is_name = re.fullmatch(r'[\w.-]*\w', corpus) and not corpus.startswith('.')
    for valid, message in (
        (is_name, f'corpus must be a plain name of letters, digits, - and _, not {corpus!r}'),
        (3 <= vocab_size <= 65535, f'vocab_size must lie between 3 and 65,535, not {vocab_size}'),
        (0 < test_fraction < 1, f'test_fraction must lie between 0 and 1, not {test_fraction}'),
        (max_bytes >= 0, f'max_bytes must not be negative: {max_bytes}'),
    ):
        if not valid:
            raise ConfigError(message)


def describe(about):
    train, test = about['train'], about['test']
    return (
        f'{train["tokens"]:,} training and {test["tokens"]:,} test tokens of '
        f'{about["tokenizer"]["pieces"]:,} pieces, {train["documents"]:,} and '
        f'{test["documents"]:,} documents, {train["bytes"] + test["bytes"]:,} bytes'
    )


def make(folder, settings):
    """Writes the files of the corpus into `folder`; returns what corpus.json says."""
    if tokenizer:
        Tokenizer(tokenizer)  # a bad one is refused before any text is read
    first, others = split(limited(documents(source), max_bytes), training_pieces())
    model = folder / 'tokenizer.model'
    if tokenizer:
        shutil.copy(tokenizer, model)
    else:
        print(f'training a tokeniser of {vocab_size:,} pieces')
        texts = (text for part, text in first if part == 'train')
        model.write_bytes(Tokenizer.train(texts, vocab_size))
    read = sum(len(text.encode()) for _, text in first)
    total = read if read < TOKENIZER_BYTES else text_size()  # all of a small corpus is read by now
    about = dict(corpus=corpus, settings=settings)
    about |= write_shards(itertools.chain(first, others), folder, total)
    made = Tokenizer(model)
    about['tokenizer'] = dict(pieces=made.size, sha256=made.hash)
    write_json(folder / 'corpus.json', about)
    return about


def main():
    check_settings()
    settings = {name: globals()[name] for name in settings_of(__file__) if name != 'corpus'}
    folder, making = Path('data') / corpus, Path('data') / f'.{corpus}.making'
    making.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(making)
    except ConfigError:
        raise ConfigError(f'another process is making {folder}; wait for it to end') from None
    try:
        if folder.exists():
            about = Corpus(corpus).info
            made = {name: about['settings'].get(name) for name in settings}
            others = [f'{name}={made[name]!r}' for name in made if made[name] != settings[name]]
            if others:
                advice = f'({", ".join(others)}); choose another --corpus or delete it'
                raise ConfigError(f'{folder} was made with other settings {advice}')
            print(f'{folder} is there already: {describe(about)}. Delete it to make it again.')
        else:
            about = make(making, settings)
            os.rename(making, folder)
            (folder / '.lock').unlink()
            print(f'{folder}: {describe(about)}')
    finally:
        shutil.rmtree(making, ignore_errors=True)
        held.close()


if __name__ == '__main__':
    run(globals(), main)
