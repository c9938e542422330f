"""Text to tokens: makes the corpus data/NAME/ from a source of documents.

    python prepare.py                                                 # data/docs, from what is installed; no download
    python prepare.py --corpus=books_en --source=FOLDER               # your own text, see sources.py for all sources
    python prepare.py --corpus=books_fr --source=hf:PleIAs/French-PD-Books --max_bytes=20_000_000_000

data/NAME/ holds tokenizer.model (SentencePiece), train.bin and test.bin (uint16 tokens, documents ended by <D>) and
corpus.json, which says what they are. It is made in data/.NAME.making and renamed when it is complete. Memory does not
grow with the corpus: the tokeniser learns from the first TOKENIZER_BYTES of text, the rest streams.
"""
import collections
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import sentencepiece
from tqdm import tqdm

from configurator import ConfigError, run
from data import DOCUMENT_END, UNKNOWN, Corpus, fingerprint, load_tokenizer, sha256
from sources import documents

corpus = 'docs'  # name of the corpus: it is made in data/NAME
source = 'docs'  # where the text comes from: a file, a folder, docs, eltec:LANGUAGE or hf:DATASET (see sources.py)
tokenizer = ''  # an existing SentencePiece .model file; empty: a new one is trained on the corpus
vocab_size = 16384  # pieces of a new tokeniser, at most 65,535
test_fraction = 0.05  # share of the documents that is kept for testing
max_bytes = 0  # stop after so many bytes of text (UTF-8); 0: read all

TOKENIZER_BYTES = 128 << 20  # a new tokeniser learns from at most so much text
BATCH_BYTES = 1 << 20  # text sent to an encoding process at once












def is_test(text):
    """Number in [0, 1) from the document's text alone: it is in the test set if that is below `test_fraction`, so
    the set stays the same as a corpus grows, and a document and its copy are never on both sides."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big') / 2**64


def train_tokenizer(texts, pieces):
    """Bytes of a new SentencePiece BPE model. Text comes back as it was: nothing is normalised, what has no piece
    falls back to bytes (a line end, too). Only U+2581, SentencePiece's mark of a space, comes back as a space."""
    model = io.BytesIO()
    lines = (line[i:i + 4000] for text in texts for line in text.splitlines() for i in range(0, len(line), 4000))
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=model, model_type='bpe', vocab_size=pieces, byte_fallback=True,
            normalization_rule_name='identity', remove_extra_whitespaces=False, max_sentence_length=16000,
            pad_id=0, unk_id=UNKNOWN, eos_id=DOCUMENT_END, bos_id=-1, eos_piece='<D>',
            num_threads=16, minloglevel=2)  # not the cores of this machine: the model holds the number, its hash too
    except (RuntimeError, OSError) as error:
        most, least = re.search(r'value <= (\d+)', str(error)), re.search(r'\d+ vs (\d+)', str(error))
        advice = (f'this text supports at most {int(most[1]):,} pieces: --vocab_size={most[1]}' if most else
                  f'its characters and the 256 bytes need at least {least[1]}: --vocab_size={least[1]}' if least else
                  str(error).strip().splitlines()[-1])
        raise ConfigError(f'no tokeniser of {pieces:,} pieces can be trained: {advice}') from None
    return model.getvalue()


# --- encoding on all cores --------------------------------------------------------------------------------------------

class WordEncoder(dict):
    """Encodes text word by word, each different word once: several times the speed of encoding it whole.

    It is the same where no piece reaches over a space, and the tokeniser leaves spaces as they are; a tokeniser of
    another kind is found out by its pieces and on a PROBE, and encodes text whole. As a dict: word -> its tokens."""

    PROBE = '  two  spaces, a tab\t, line ends \n\n of \u00a0two\u2003kinds \ufb01 e\u0301 \n end  '
    LIMIT = 1_000_000  # words that are remembered

    def __init__(self, pieces):
        self.pieces = pieces
        spelled = [pieces.id_to_piece(i) for i in range(len(pieces))]
        self.by_words = not any(' ' in piece or '\u2581' in piece[1:] for piece in spelled)
        self.by_words = self.by_words and self(self.PROBE) == self._bytes(pieces.encode(self.PROBE))

    @staticmethod
    def _bytes(ids):
        return np.array(ids, dtype=np.uint16).tobytes()

    def __missing__(self, word):
        # a word's leading space is the one that SentencePiece puts before a text; an empty word is a space alone
        tokens = self[word] = self._bytes(self.pieces.encode(word) if word else self.pieces.encode(' ')[1:])
        return tokens

    def __call__(self, text):
        """The uint16 tokens of a text that is not empty, as bytes."""
        if not self.by_words:
            return self._bytes(self.pieces.encode(text))
        if len(self) > self.LIMIT:
            self.clear()
        return b''.join(map(self.__getitem__, text.split(' ')))


def _start_worker(model):
    global _encoder
    _encoder = WordEncoder(load_tokenizer(model))


def _encode(batch):
    """[(is it test, text)] -> {is it test: (uint16 tokens as bytes, documents, bytes of text)}"""
    encoded = {False: [], True: []}
    size = collections.Counter()
    end = np.uint16(DOCUMENT_END).tobytes()
    for test, text in batch:
        encoded[test] += [_encoder(text), end]
        size[test] += len(text.encode())
    return {test: (b''.join(parts), len(parts) // 2, size[test]) for test, parts in encoded.items() if parts}


def _batches(texts):
    batch, size = [], 0
    for item in texts:
        batch.append(item)
        size += len(item[1])
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write_shards(texts, folder):
    """Encodes [(is it test, text)] into folder/train.bin and test.bin; returns what corpus.json says of each."""
    names = {False: 'train', True: 'test'}
    about = {name: dict(tokens=0, documents=0, bytes=0) for name in names.values()}
    workers = os.cpu_count()
    room = threading.Semaphore(3 * workers)  # imap would read the whole source ahead of the encoding
    stopped = threading.Event()

    def throttled():
        for batch in _batches(texts):
            room.acquire()
            if stopped.is_set():
                return
            yield batch

    with open(folder / 'train.bin', 'wb') as train, open(folder / 'test.bin', 'wb') as test, \
            multiprocessing.get_context('spawn').Pool(workers, _start_worker, [folder / 'tokenizer.model']) as pool, \
            tqdm(desc='encoding', unit='B', unit_scale=True) as progress:
        try:
            for encoded in pool.imap(_encode, throttled()):
                room.release()
                for part, (tokens, documents_, bytes_) in encoded.items():
                    (test if part else train).write(tokens)
                    entry = about[names[part]]
                    entry['tokens'] += len(tokens) // 2
                    entry['documents'] += documents_
                    entry['bytes'] += bytes_
                    progress.update(bytes_)
            for file in (train, test):
                file.flush()
                os.fsync(file.fileno())
        finally:  # after an error: the pool waits for the thread that waits for room
            stopped.set()
            room.release()
    for name, entry in about.items():
        entry['fingerprint'] = fingerprint(folder / f'{name}.bin')
    return about


# --- the script -------------------------------------------------------------------------------------------------------

def limited(texts, limit):
    """Documents that are not empty, until `limit` bytes of them (0: all)."""
    size = 0
    for text in texts:
        if text.strip():
            yield text
            size += len(text.encode())
            if limit and size >= limit:
                return


def split(texts):
    """(is it test, text) of the first documents, as a list, and of the others, as a generator. When none of the first
    is chosen for the test set (a small corpus), it is the one with the lowest number. Raises ConfigError for fewer
    than two different documents."""
    first, size = [], 0
    for text in tqdm(texts, desc='reading', unit=' documents'):
        first.append((is_test(text), text))
        size += len(text.encode())
        if size >= TOKENIZER_BYTES and len(first) > 1:
            break
    if not first:
        raise ConfigError(f'{source} is empty: there is no text in it')
    if len(first) < 2:
        raise ConfigError(f'{source} is a single document; at least two are needed, one of them for the test set')
    lowest = min(number for number, _ in first)
    first = [(number < test_fraction or number == lowest, text) for number, text in first]
    if all(test for test, _ in first):
        raise ConfigError(f'all documents of {source} are the same or fall into the test set; '
                          'more documents are needed, or a lower --test_fraction')
    numbered = ((is_test(text), text) for text in texts)
    return first, ((number < test_fraction or number == lowest, text) for number, text in numbered)


def main():
    if not re.fullmatch(r'[\w.-]*\w', corpus) or corpus.startswith('.'):
        raise ConfigError(f'corpus must be a plain name of letters, digits, - and _, not {corpus!r}')
    if not 3 <= vocab_size <= 65535:
        raise ConfigError(f'vocab_size must lie between 3 and 65,535 (tokens are stored in 16 bits), not {vocab_size}')
    if not 0 < test_fraction < 1:
        raise ConfigError(f'test_fraction must lie between 0 and 1, not {test_fraction}')
    if max_bytes < 0:
        raise ConfigError(f'max_bytes must not be negative: {max_bytes}')
    settings = dict(source=source, tokenizer=tokenizer, vocab_size=vocab_size, test_fraction=test_fraction,
                    max_bytes=max_bytes)
    folder, making = Path('data') / corpus, Path('data') / f'.{corpus}.making'
    if folder.exists():
        about = Corpus(corpus).info
        differ = [f'{name}={about["settings"].get(name)!r}' for name in settings
                  if about['settings'].get(name) != settings[name]]
        if differ:
            raise ConfigError(f'{folder} was made with other settings ({", ".join(differ)}); '
                              'choose another --corpus or delete it')
        print(f'{folder} is there already: {describe(about)}. Delete it to make it again.')
        return
    if tokenizer:
        load_tokenizer(tokenizer)
    shutil.rmtree(making, ignore_errors=True)  # what a killed run left
    making.mkdir(parents=True)
    try:
        stream = limited(documents(source), max_bytes)
        first, rest = split(stream)
        if tokenizer:
            shutil.copy(tokenizer, making / 'tokenizer.model')
        else:
            print(f'training a tokeniser of {vocab_size:,} pieces')
            (making / 'tokenizer.model').write_bytes(train_tokenizer((t for test, t in first if not test), vocab_size))
        shards = write_shards(_chain(first, rest), making)
        model = making / 'tokenizer.model'
        about = dict(corpus=corpus, settings=settings, **shards,
                     tokenizer=dict(pieces=len(load_tokenizer(model)), sha256=sha256(model)))
        with open(making / 'corpus.json', 'w') as file:
            file.write(json.dumps(about, indent=2) + '\n')
            file.flush()
            os.fsync(file.fileno())
        os.rename(making, folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    print(f'{folder}: {describe(about)}')


def _chain(first, rest):
    """All of `first`, each let go of as it is used, then `rest`."""
    first.reverse()
    while first:
        yield first.pop()
    yield from rest


def describe(about):
    train, test = about['train'], about['test']
    return (f'{train["tokens"]:,} training and {test["tokens"]:,} test tokens of {about["tokenizer"]["pieces"]:,} pieces, '
            f'{train["documents"]:,} and {test["documents"]:,} documents, {train["bytes"] + test["bytes"]:,} bytes')


if __name__ == '__main__':
    run(globals(), main)
