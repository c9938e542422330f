"""Text to tokens: makes the corpus data/NAME/ from a source of documents (all: lib/sources.py).

    python prepare.py                                 # data/docs, from what is installed
    python prepare.py --corpus=books_en --source=FOLDER
    python prepare.py --corpus=books_fr --source=hf:PleIAs/French-PD-Books --max_bytes=2e10

data/NAME/ holds tokenizer.model (SentencePiece), train.bin and test.bin (uint16 token ids, each
document ended by <D>) and corpus.json, which describes them. It is made in data/.NAME.making and
renamed when it is complete. Memory does not grow with the corpus: the tokeniser learns from the
first TOKENIZER_BYTES of training text, the rest streams.

A hash of a document's text decides whether it is tested on. So the test set stays the same as a
corpus grows, and a document and its copy are never on both sides. A single text file has no
documents, and neighbouring pieces of it share names and plot: its last `test_fraction` is the test
set. The file is read twice for that, first to count its pieces. If a dataset of the hub breaks off,
the corpus is made of what has arrived.
"""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

from lib.configurator import ConfigError, require, run, settings_of

from tqdm import tqdm

from data import Corpus, fingerprint
from lib.encoding import encoded
from lib.files import lock, write_json
from lib.formats import in_words
from lib.sources import documents, file_bytes, is_text_file
from lib.tokenizer import Tokenizer, warn_of_foreign

corpus = 'docs'  # name of the corpus: it is made in data_dir/NAME
data_dir = 'data'  # folder of the corpora
source = 'docs'  # a file, a folder, docs, eltec:LANGUAGE or hf:DATASET (see lib/sources.py)
tokenizer = ''  # an existing SentencePiece .model file; empty: a new one is trained on the corpus
vocab_size = 16384  # pieces of a new tokeniser, at most 65,535
test_fraction = 0.05  # fraction of the documents, or of a single text file, for the test set
max_bytes = 0  # stop after so many bytes of text (UTF-8); 0: read all

TOKENIZER_BYTES = 128 << 20  # a new tokeniser learns from at most so much text


# --- the shards and their split -------------------------------------------------------------------


def write_shards(texts, folder, total=None):
    """Encodes [(part, text)], of `total` bytes at most, into folder/train.bin and test.bin.

    Returns {part: dict(tokens, documents, bytes, byte_or_unknown, fingerprint)} for corpus.json."""
    about = dict(train=Counter(), test=Counter())
    with (
        open(folder / 'train.bin', 'wb') as train,
        open(folder / 'test.bin', 'wb') as test,
        contextlib.closing(encoded(texts, folder / 'tokenizer.model')) as batches,
        tqdm(desc='encoding', total=total, unit='B', unit_scale=True) as progress,
    ):
        files = dict(train=train, test=test)
        for batch in batches:
            for part, (tokens, counts) in batch.items():
                files[part].write(tokens)
                about[part].update(counts)
                progress.update(counts['bytes'])
        progress.total = progress.n  # files may hold more than text
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    marks = {part: fingerprint(folder / f'{part}.bin') for part in about}
    return {part: dict(counts, fingerprint=marks[part]) for part, counts in about.items()}


def limited(texts, limit):
    """Documents that are not empty, until `limit` bytes of them (0: all)."""
    size = 0
    for text in texts:
        if text.strip():
            yield text
            size += len(text.encode())
            if limit and size >= limit:
                return


def arrived(texts, notes):
    """Passes documents on. If the hub fails after some, notes['incomplete'] becomes the reason."""
    some = False
    try:
        for text in texts:
            yield text
            some = True
    except ConfigError as error:
        require(some and source.startswith('hf:'), str(error))
        notes['incomplete'] = str(error)


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
    test set; None: their hashes decide, and if they choose none of the first (a small corpus), the
    one with the lowest number is tested on. Raises ConfigError when a part would be empty."""
    total = min(text_size() or TOKENIZER_BYTES, TOKENIZER_BYTES)
    first = list(limited(shown(texts, 'reading', total), TOKENIZER_BYTES))
    if len(first) == 1:  # a long one
        first += itertools.islice(texts, 1)
    require(first, f'{source} is empty: there is no text in it')
    needed = 'two are needed, one for the test set (a plain text file is cut into several)'
    require(len(first) > 1, f'{source} is a single document; {needed}')
    lowest = min(map(test_number, first))

    def part_of(place, text):
        number = test_number(text)
        tested = number < test_fraction or number == lowest
        if training is not None:
            tested = place >= training
        return 'test' if tested else 'train'

    chosen = [(part_of(place, text), text) for place, text in enumerate(first)]
    reason = f'all documents of {source} are the same or fall into the test set'
    some = any(part == 'train' for part, _ in chosen)
    require(some, f'{reason}; more are needed, or a lower --test_fraction')
    others = enumerate(texts, len(first))
    return chosen, ((part_of(place, text), text) for place, text in others)


# --- the script -----------------------------------------------------------------------------------


def check_settings():
    is_name = re.fullmatch(r'[\w.-]*\w', corpus) and not corpus.startswith('.')
    require(is_name, f'corpus must be a plain name of letters, digits, - and _, not {corpus!r}')
    fits = 3 <= vocab_size <= 65535
    require(fits, f'vocab_size must lie between 3 and 65,535, not {vocab_size}')
    require(0 < test_fraction < 1, f'test_fraction must lie between 0 and 1, not {test_fraction}')
    require(max_bytes >= 0, f'max_bytes must not be negative: {max_bytes}')


def report(folder, about):
    """Prints what a corpus holds, and warns of what is odd in it.

    Raises ConfigError where only a part of the source arrived."""
    total = about['train']['tokens'] + about['test']['tokens']
    print(f'{folder}: {total:,} tokens of {about["tokenizer"]["pieces"]:,} pieces')
    for part in ('train', 'test'):
        tokens, texts, size = (about[part][key] for key in ('tokens', 'documents', 'bytes'))
        print(f'{part}: {tokens / total:.1%} of them, {texts:,} documents, {size:,} bytes', end='')
        if 'byte_or_unknown' in about[part]:  # not in older corpora
            foreign = about[part]['byte_or_unknown']
            print(f', {foreign / tokens:.2%} byte pieces or unknown characters', end='')
            warn_of_foreign(f'the {part} text', foreign, tokens)
        print()
    if 'left_out' in about:
        print(f'left out of the source: {in_words(about["left_out"])}')
    if texts < 5 or tokens > 2 * test_fraction * total:  # of the test set
        odd = f'{texts} documents, {tokens / total:.0%} of all tokens, not {test_fraction:.0%}'
        print(f'warning: test set of {odd}; more and shorter documents help', file=sys.stderr)
    incomplete = about.get('incomplete')
    require(not incomplete, f'{folder} has only the part of {source} that arrived: {incomplete}')


def make(folder, settings):
    """Writes the files of the corpus into `folder`; returns what corpus.json says."""
    if tokenizer:
        Tokenizer(tokenizer)  # a bad one is refused before any text is read
    notes, model = {}, folder / 'tokenizer.model'
    try:
        texts = limited(arrived(documents(source, notes), notes), max_bytes)
        first, others = split(texts, training_pieces())
        if tokenizer:
            shutil.copy(tokenizer, model)
        else:
            print(f'training a tokeniser of {vocab_size:,} pieces')
            learnt = (text for part, text in first if part == 'train')
            model.write_bytes(Tokenizer.train(learnt, vocab_size))
    except ConfigError as error:  # what has arrived may be too little
        raise ConfigError(notes.get('incomplete', str(error))) from None
    read = sum(len(text.encode()) for _, text in first)
    total = read if read < TOKENIZER_BYTES else text_size()  # all of a small corpus is read by now
    about = dict(corpus=corpus, settings=settings)
    about |= write_shards(itertools.chain(first, others), folder, total)
    made = Tokenizer(model)
    about['tokenizer'] = dict(pieces=made.size, sha256=made.hash)
    about |= notes
    write_json(folder / 'corpus.json', about)
    return about


def main():
    check_settings()
    names = settings_of(__file__).keys() - {'corpus', 'data_dir'}
    settings = {name: value for name, value in globals().items() if name in names}
    folder, making = Path(data_dir, corpus), Path(data_dir, f'.{corpus}.making')
    making.mkdir(parents=True, exist_ok=True)
    held = lock(making)
    try:
        if folder.exists():
            about = Corpus(corpus, data_dir).info
            made = {name: about['settings'].get(name) for name in settings}
            others = [f'{name}={made[name]!r}' for name in made if made[name] != settings[name]]
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
        held.close()


if __name__ == '__main__':
    run(globals(), main)
