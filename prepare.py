"""Text to tokens: makes the corpus data/NAME/ from a source of documents (all: lib/sources.py).

    python prepare.py                                 # data/docs, from what is installed
    python prepare.py --corpus=books_en --source=FOLDER
    python prepare.py --corpus=books_fr --source=hf:PleIAs/French-PD-Books --max_bytes=2e10

data/NAME/ holds tokenizer.model (SentencePiece), train.bin and test.bin (uint16 token ids, each
document ended by <D>) and corpus.json, which describes them. Memory does not grow with the corpus.

A hash of a document's text decides whether it is tested on. So the test set stays the same as a
corpus grows, and a document and its copy are never on both sides. Pieces of a single text file
share names and plot, so its end is the test set. If a dataset of the hub breaks off, the corpus is
made of what has arrived.
"""

import contextlib
import hashlib
import itertools
import math
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

from lib.configurator import ConfigError, defaults_of, require, run

import numpy as np
from tqdm import tqdm

from data import Corpus, fingerprint
from lib.files import lock, write_json
from lib.formats import in_words
from lib.sources import documents
from lib.tokenizer import DOCUMENT_END, open_tokenizer, train_tokenizer, warn_of_foreign

corpus = 'docs'  # name of the corpus: it is made in data_dir/NAME
data_dir = 'data'  # folder of the corpora
source = 'docs'  # a file, a folder, docs, eltec:LANGUAGE or hf:DATASET (see lib/sources.py)
tokenizer = ''  # an existing SentencePiece .model file; empty: a new one is trained on the corpus
vocab_size = 16384  # pieces of a new tokeniser, at most 65,535
test_fraction = 0.05  # fraction of the documents, or of a single text file, for the test set
max_bytes = 0  # stop after so many bytes of text (UTF-8); 0: read all

PARTS = 'train', 'test'
TOKENIZER_BYTES = 128 << 20  # a new tokeniser learns from at most so much text
BATCH_BYTES = 4 << 20  # text that all cores encode at once


def read(notes):
    """Documents of the source that are not empty, until there are max_bytes of text. If the hub
    fails after some of them, notes['incomplete'] becomes the reason."""
    held = 0
    with tqdm(desc='reading', total=max_bytes or None, unit='B', unit_scale=True) as progress:
        try:
            for text in filter(str.strip, documents(source, notes)):
                yield text
                size = len(text.encode())
                held += size
                progress.update(size)
                if max_bytes and held >= max_bytes:
                    return
        except ConfigError as error:
            require(held and source.startswith('hf:'), str(error))
            notes['incomplete'] = str(error)


def batches(texts, size):
    """Lists of two or more texts (for two parts) with `size` bytes, or with all that there are."""
    batch, held = [], 0
    for text in texts:
        batch.append(text)
        held += len(text.encode())
        if held >= size and len(batch) > 1:
            yield batch
            batch, held = [], 0
    yield batch


def test_number(text):
    """Number in [0, 1) from a text alone; below `test_fraction` a document is in the test set."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big') / 2**64


def split(first, is_one_text):
    """The function (place, text) -> 'train' or 'test' that divides the documents of the source.

    first: those that a tokeniser may learn from. If their hashes choose none of them (a small
    corpus), the one with the lowest number is tested on. Raises ConfigError for an empty part."""
    require(first, f'{source} is empty: there is no text in it')
    needed = 'two are needed, one for the test set (a plain text file is cut into several)'
    within = f' within max_bytes={max_bytes:,}' if max_bytes else ''
    require(len(first) > 1, f'{source} is a single document{within}; {needed}')
    end, limit = math.inf, max(test_fraction, min(map(test_number, first)))
    if is_one_text:
        count = sum(1 for _ in read({}))
        end, limit = count - max(1, round(test_fraction * count)), -1

    def part_of(place, text):
        return 'test' if place >= end or test_number(text) <= limit else 'train'

    some = any(part_of(place, text) == 'train' for place, text in enumerate(first))
    reason = f'all documents of {source} are the same or fall into the test set'
    require(some, f'{reason}; more are needed, or a lower --test_fraction')
    return part_of


def write_shards(texts, part_of, folder):
    """Encodes documents into folder/train.bin and test.bin; returns what corpus.json says of each
    part: dict(tokens, documents, bytes, byte_or_unknown, fingerprint)."""
    about, pieces = {part: Counter() for part in PARTS}, open_tokenizer(folder / 'tokenizer.model')
    with contextlib.ExitStack() as stack:
        files = {part: stack.enter_context(open(folder / f'{part}.bin', 'wb')) for part in PARTS}
        progress = stack.enter_context(tqdm(desc='encoding', unit='B', unit_scale=True))
        places = itertools.count()
        for batch in batches(texts, BATCH_BYTES):
            for text, ids in zip(batch, pieces.encode(batch)):
                part, tokens = part_of(next(places), text), np.array([*ids, DOCUMENT_END], 'uint16')
                files[part].write(tokens)
                size, foreign = len(text.encode()), pieces.count_foreign(tokens)
                counts = dict(tokens=len(tokens), documents=1, bytes=size, byte_or_unknown=foreign)
                about[part].update(counts)
                progress.update(size)
    marks = {part: fingerprint(folder / f'{part}.bin') for part in PARTS}
    return {part: dict(about[part], fingerprint=marks[part]) for part in PARTS}


def make(folder, settings):
    """Writes the files of the corpus into `folder`; returns what corpus.json says."""
    notes, model = {}, folder / 'tokenizer.model'
    if tokenizer:
        open_tokenizer(tokenizer)  # a bad one is refused before any text is read
        shutil.copy(tokenizer, model)
    with contextlib.closing(read(notes)) as texts:
        try:
            first = next(batches(texts, TOKENIZER_BYTES))
            part_of = split(first, notes.pop('is_one_text', False))
            if not tokenizer:
                print(f'training a tokeniser of {vocab_size:,} pieces')
                learnt = (t for place, t in enumerate(first) if part_of(place, t) == 'train')
                model.write_bytes(train_tokenizer(learnt, vocab_size))
        except ConfigError as error:  # what has arrived may be too little
            raise ConfigError(notes.get('incomplete', str(error))) from None
        shards = write_shards(itertools.chain(first, texts), part_of, folder)
    made = open_tokenizer(model)
    pieces = dict(pieces=made.size, sha256=made.hash)
    about = dict(corpus=corpus, settings=settings, **shards, tokenizer=pieces, **notes)
    write_json(folder / 'corpus.json', about)
    return about


def report(folder, about):
    """Prints what a corpus holds, and warns of what is odd in it. Raises ConfigError where only a
    part of the source arrived."""
    total = sum(about[part]['tokens'] for part in PARTS)
    print(f'{folder}: {total:,} tokens of {about["tokenizer"]["pieces"]:,} pieces')
    for part in PARTS:
        tokens, texts, size = (about[part][key] for key in ('tokens', 'documents', 'bytes'))
        line = f'{part}: {tokens / total:.1%} of them, {texts:,} documents, {size:,} bytes'
        if 'byte_or_unknown' in about[part]:  # not in older corpora
            foreign = about[part]['byte_or_unknown']
            line += f', {foreign / tokens:.2%} byte pieces or unknown characters'
            warn_of_foreign(f'the {part} text', foreign, tokens)
        print(line)
    print(f'left out of the source: {in_words(about.get("left_out", {}))}')
    if texts < 5 or tokens > 2 * test_fraction * total:  # of the test set
        odd = f'{texts} documents, {tokens / total:.0%} of all tokens, not {test_fraction:.0%}'
        print(f'warning: test set of {odd}; more and shorter documents help', file=sys.stderr)
    incomplete = about.get('incomplete')
    require(not incomplete, f'{folder} has only the part of {source} that arrived: {incomplete}')


def main():
    is_name = re.fullmatch(r'[\w.-]*\w', corpus) and not corpus.startswith('.')
    require(is_name, f'corpus must be a plain name of letters, digits, - and _, not {corpus!r}')
    fits = 3 <= vocab_size <= 65535
    require(fits, f'vocab_size must lie between 3 and 65,535, not {vocab_size}')
    require(0 < test_fraction < 1, f'test_fraction must lie between 0 and 1, not {test_fraction}')
    require(max_bytes >= 0, f'max_bytes must not be negative: {max_bytes}')
    settings = {k: globals()[k] for k in defaults_of(__file__) if k not in ('corpus', 'data_dir')}
    folder, making = Path(data_dir, corpus), Path(data_dir, f'.{corpus}.making')
    making.mkdir(parents=True, exist_ok=True)
    with lock(making):
        try:
            if folder.exists():
                about = Corpus(corpus, data_dir).info
                made = defaults_of(__file__) | about['settings']
                others = [
                    f'{name}={made[name]!r}' for name in settings if made[name] != settings[name]
                ]
                advice = f'({", ".join(others)}); choose another --corpus or delete it'
                require(not others, f'{folder} was made with other settings {advice}')
                print(f'{folder} already exists; delete it to rebuild it')
            else:
                about = make(making, settings)
                os.rename(making, folder)
                (folder / '.lock').unlink()
            report(folder, about)
        finally:
            shutil.rmtree(making, ignore_errors=True)


if __name__ == '__main__':
    run(globals(), main)
