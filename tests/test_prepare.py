"""Text to shards: prepare.py as a user runs it, on text made up here."""

import contextlib
import gzip
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from lib.configurator import ConfigError, settings_of

import numpy as np
import pytest
import sentencepiece
from conftest import REPO, environment, refused, write_documents
from test_sources import fake_datasets, some_texts

import prepare
from data import Corpus
from lib import configurator, encoding, workers
from lib.sources import documents
from lib.tokenizer import Tokenizer

PARTS = 'train', 'test'
DEFAULTS = {name: getattr(prepare, name) for name in settings_of(prepare.__file__)}
# Separated by |, which is in none of them.
AWKWARD = (
    'a| a|  a|a |a  |\na|a\n|a\n\n\nb|\n \n a \n |\ta\tb\t|a  b   c    d|it\'s "so"|\\n'
    '|{"text": "x"}|🙂 👩\u200d👩\u200d👧 \U0010ffff|e\u0301 é E\u0301|中文字、日本語'
    '|a\x00b\x01\x7f\x0b\x0c\x1c\x85|\ufffd|\u2028a\u2029b|\u00a0x\u3000y\u200b|\ufeffx'
    '|ﬁ A\u030a \u212b ſ ½|a\rb|a\r\nb|<D>|a<D>b| <D> |<0x41> <unk> <pad> <s> </s>|⁇|a ⁇ b'
).split('|') + ['-' * 100, f'x{" " * 100}x']


def documents_of(corpus, part):
    """The texts of the documents of a shard, each of which ends with the end of document."""
    tokens, pieces = getattr(corpus, part), corpus.load_tokenizer()
    assert tokens.dtype == np.uint16 and tokens[-1] == 2
    return [
        pieces.decode(ids[:-1].tolist())
        for ids in np.split(tokens, np.flatnonzero(tokens == 2) + 1)[:-1]
    ]


def write_jsonl(path, texts):
    content = ''.join(json.dumps(dict(text=text, other=1)) + '\n' for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def prepare_py(here, monkeypatch, capsys):
    """prepare_py(*arguments): prepare.py in this process, in `here`; cores: how many it may use,
    other keywords: constants, so that little text takes all the paths that much text takes."""

    def call(*arguments, cores=1, **constants):
        monkeypatch.setattr(workers, 'cores', lambda: cores)
        for name, value in constants.items():
            monkeypatch.setattr(encoding if name == 'BATCH_BYTES' else prepare, name, value)
        monkeypatch.setattr(sys, 'argv', ['prepare.py', '--corpus=x', *map(str, arguments)])
        status = 0
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in DEFAULTS.items():
                    patch.setattr(prepare, name, value)
                configurator.run(vars(prepare), prepare.main)
        except SystemExit as stop:
            status = stop.code
        return subprocess.CompletedProcess(sys.argv, status, *capsys.readouterr())

    return call


def started(cwd, *arguments, path='', before=None, code='', wait=True):
    """prepare.py as a process of its own, on two cores and with small batches."""
    code = (
        'import signal, sys\nimport prepare\nfrom lib import configurator, encoding, workers\n'
        # A shell starts a background job deaf to Ctrl-C, and its children inherit that.
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'workers.cores, encoding.BATCH_BYTES, prepare.TOKENIZER_BYTES = lambda: 2, 1000, 9000\n'
        f'{code}\nsys.argv = {["prepare.py", *map(str, arguments)]!r}\n'
        'configurator.run(vars(prepare), prepare.main)'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONPATH=f'{path}{os.pathsep}{REPO}'),
        preexec_fn=before,
    )
    if not wait:
        return process
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def nothing_made(folder):
    assert not (folder / 'data').exists() or list((folder / 'data').iterdir()) == []


# --- the tokeniser --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def pieces(tmp_path_factory):
    path = tmp_path_factory.mktemp('tokenizer') / 'x.model'
    path.write_bytes(Tokenizer.train((text + ' <D> <unk> <0x41>' for text in some_texts(100)), 450))
    return Tokenizer(path)


@pytest.mark.parametrize('text', AWKWARD + [' ', '   ', '\n', '\r', '\x00'], ids=ascii)
def test_text_comes_back_from_its_tokens_as_it_was(pieces, text):
    ids = pieces.encode(text)
    assert pieces.decode(ids) == text
    assert not {0, 1, 2} & set(ids)  # padding, unknown and end of document are never made from text


def test_random_text_comes_back_from_its_tokens_as_it_was(pieces):
    rng = random.Random(0)
    alphabet = ' |  |\n|\t|é|🙂|<D>|ba|da |ka|\u0301|字|.|\r\n|\x00'.split('|')
    for _ in range(300):
        text = ''.join(rng.choices(alphabet, k=rng.randint(1, 40)))
        assert pieces.decode(pieces.encode(text)) == text


def test_a_tokeniser_has_the_pieces_that_were_asked_for(pieces):
    assert pieces.size == 450
    assert pieces.spellings()[:3] == ['<pad>', '<unk>', '<D>'] and pieces.model.unk_id() == 1
    usual = ' '.join(some_texts(3))
    assert len(pieces.encode(usual)) < 0.6 * len(usual)


@pytest.mark.parametrize('wrong', [5000, 200])
def test_the_size_that_a_refusal_advises_is_possible(wrong):
    with pytest.raises(ConfigError, match=f'{wrong:,} pieces.*--vocab_size=') as refusal:
        Tokenizer.train(iter(some_texts(5)), wrong)
    advised = int(str(refusal.value).rpartition('=')[2])
    assert Tokenizer.train(iter(some_texts(5)), advised)


def other_tokenizer(path, **settings):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(some_texts(50)),
        model_prefix=str(path.with_suffix('')),
        vocab_size=400,
        minloglevel=2,
        **{'model_type': 'bpe', 'hard_vocab_limit': False, **settings},
    )
    return path


OTHER_TOKENIZERS = (
    dict(normalization_rule_name='identity', remove_extra_whitespaces=False),
    dict(normalization_rule_name='nmt_nfkc_cf', remove_extra_whitespaces=False),
    dict(user_defined_symbols=[' the ', 'ba da', '<x>']),
    dict(allow_whitespace_only_pieces=True, remove_extra_whitespaces=False),
    dict(max_sentencepiece_length=3, split_digits=True, remove_extra_whitespaces=False),
    *(dict([(name, False)]) for name in ('add_dummy_prefix', 'split_by_whitespace')),
    *(dict([(name, True)]) for name in ('treat_whitespace_as_suffix', 'byte_fallback')),
    *(dict(split_by_unicode_script=False), dict(model_type='unigram'), dict()),
)


@pytest.mark.parametrize('settings', OTHER_TOKENIZERS, ids=str)
def test_encoding_word_by_word_is_encoding_as_sentencepiece_does(tmp_path, settings):
    special = dict(pad_id=0, unk_id=1, eos_id=2, bos_id=-1)
    model = other_tokenizer(tmp_path / 'x.model', **special, **settings)
    pieces, rng = Tokenizer(model), random.Random(0)
    encode = encoding.WordEncoder(pieces)
    alphabet = [' ', ' ', '  ', *'\n\té🙂▁\u0301\u00a0\u3000', '<D>', 'ba', 'da', 'ka', 'the', '12']
    made_up = [''.join(rng.choices(alphabet, k=rng.randint(1, 30))) for _ in range(500)]
    for text in AWKWARD + some_texts(5) + made_up:
        assert np.frombuffer(encode(text), np.uint16).tolist() == pieces.encode(text), ascii(text)


def test_another_kind_of_tokeniser_is_refused_before_text_is_read(prepare_py, here):
    for number, ids in enumerate(([1, 2, 0], [3, 0, 1], [0, 2, 1], [0, 1, -1])):
        names = dict(zip(('pad_id', 'unk_id', 'eos_id'), ids), bos_id=-1)
        other_tokenizer(here / f'{number}.model', **names)
    (here / 'text.model').write_text('no model')
    for name in ('0', '1', '2', '3', 'text', 'missing'):
        done = prepare_py('--source=text', f'--tokenizer={name}.model')
        refused(done, f'{name}.model')
    nothing_made(here)


def test_words_that_do_not_come_again_are_not_remembered(pieces):
    encode, rng = encoding.WordEncoder(pieces), random.Random(0)
    before, text = len(encode), ''.join(rng.choices('字中文本語', k=20_000))
    for start in range(0, len(text), 50):
        encode(f'the {text[start : start + 50]} the {text[start : start + 9_000]}')
    assert len(encode) == before + 1
    encode.WORDS = 10
    for text in some_texts(9):
        encode(text)
        encode('a')
        assert len(encode) <= 10 + len(set(text.split(' ')))


def test_bytes_and_unknown_characters_are_counted_but_for_white_space(pieces):
    for text, count in {'ba da\n\tka\r\x0c': 0, 'ba é\n': 2, '字🙂': 7, '': 0}.items():
        assert pieces.count_foreign(pieces.encode(text)) == count


class Letters(Tokenizer):
    """A tokeniser of another kind: every lower-case letter is a token."""

    size, hash, train = 40, 'letters', staticmethod(lambda texts, size: b'model')

    def __init__(self, path):
        assert Path(path).read_bytes() == b'model'

    def encode(self, text):
        return [10 + ord(letter) - ord('a') if letter.islower() else 3 for letter in text]

    def spelling(self, token):
        return chr(87 + token) if 10 <= token < 36 else ' '

    def is_fallback(self, token):
        return token < 4


def test_another_tokeniser_is_another_class(prepare_py, here, monkeypatch):
    for module in (prepare, encoding):
        monkeypatch.setattr(module, 'Tokenizer', Letters)
    text = write_documents(here / 'text', 9, length=50)
    done = prepare_py(f'--source={text}', '--vocab_size=40')
    assert done.returncode == 0, done.stderr
    tokens = np.concatenate([np.fromfile(here / f'data/x/{p}.bin', np.uint16) for p in PARTS])
    texts = [Letters.encode(None, path.read_text()) for path in text.iterdir()]
    assert sorted(tokens.tolist()) == sorted([token for ids in texts for token in [*ids, 2]])


# --- a corpus -------------------------------------------------------------------------------------


@pytest.fixture
def awkward_corpus(prepare_py, here):
    """A corpus from the beginning of a .jsonl.gz: (itself, its awkward and usual documents)."""
    texts = [text for pair in zip(some_texts(len(AWKWARD)), AWKWARD) for text in pair]
    more = [*texts[:6], '', ' \n ', *texts[6:], *['beyond max_bytes'] * 9]
    write_jsonl(here / 'text.jsonl.gz', more)
    size = sum(len(text.encode()) for text in texts)
    arguments = '--vocab_size=400', '--test_fraction=0.2', f'--max_bytes={size}'
    done = prepare_py('--source=text.jsonl.gz', '--data_dir=elsewhere/corpora', *arguments)
    assert done.returncode == 0, done.stderr
    return Corpus('x', here / 'elsewhere/corpora'), texts


def test_a_corpus_holds_every_document_up_to_max_bytes_as_it_was_in_its_order(awkward_corpus):
    corpus, texts = awkward_corpus
    train, test = (documents_of(corpus, part) for part in PARTS)
    assert sorted(train + test) == sorted(texts)
    assert train == [text for text in texts if text in set(train)]
    assert test == [text for text in texts if text in set(test)]
    assert 0.05 < len(test) / len(texts) < 0.4


def test_corpus_json_says_what_the_shards_hold(awkward_corpus):
    corpus, _ = awkward_corpus
    about = json.loads((corpus.folder / 'corpus.json').read_text())
    pieces = corpus.load_tokenizer()
    for part in PARTS:
        held, tokens = documents_of(corpus, part), getattr(corpus, part)
        assert about[part]['documents'] == len(held) == (tokens == 2).sum()
        assert about[part]['bytes'] == sum(len(text.encode()) for text in held)
        assert about[part]['tokens'] == len(tokens)
        assert about[part]['byte_or_unknown'] == sum(
            pieces.count_foreign(pieces.encode(text)) for text in held
        )
        assert tokens.max() < 400 == corpus.vocab_size
    model = (corpus.folder / 'tokenizer.model').read_bytes()
    assert about['tokenizer'] == dict(pieces=400, sha256=hashlib.sha256(model).hexdigest())
    assert about['settings'].keys() == DEFAULTS.keys() - {'corpus', 'data_dir'}
    assert about['settings']['source'] == 'text.jsonl.gz'
    assert os.listdir(corpus.folder.parent) == ['x'] and len(os.listdir(corpus.folder)) == 4


def test_the_test_set_stays_the_same_as_a_corpus_grows_and_copies_never_straddle(
    made_once, prepare_py, here
):
    text = write_documents(here / 'text', 40, length=50)
    model = made_once / 'data' / 'en' / 'tokenizer.model'
    arguments = ['--source=text', f'--tokenizer={model}', '--test_fraction=0.2']
    assert prepare_py('--corpus=small', *arguments).returncode == 0
    before = {path.read_text() for path in text.iterdir()}
    write_documents(text, 120, length=50)
    for path in list(text.iterdir()):
        shutil.copy(path, text / f'copy_{path.name}')
    assert prepare_py('--corpus=large', *arguments).returncode == 0
    small, large = Corpus('small'), Corpus('large')
    assert (large.folder / 'tokenizer.model').read_bytes() == model.read_bytes()
    assert set(documents_of(small, 'test')) == set(documents_of(large, 'test')) & before
    for corpus, copies in ((small, 1), (large, 2)):
        train, test = (documents_of(corpus, part) for part in PARTS)
        assert len(test) > 2 * copies and not set(train) & set(test)
        assert len(train) == copies * len(set(train)) and len(test) == copies * len(set(test))


def test_the_share_of_test_documents_is_about_the_test_fraction():
    numbers = [prepare.test_number(f'document {number}') for number in range(4000)]
    assert 0 <= min(numbers) and max(numbers) < 1
    for fraction in (0.05, 0.5, 0.9):
        assert abs(np.mean(np.array(numbers) < fraction) - fraction) < 0.03


def test_a_small_corpus_has_a_test_document_even_where_the_hash_chooses_none(monkeypatch):
    monkeypatch.setattr(prepare, 'test_fraction', 1e-9)
    for number in range(50):
        texts = [f'{number} a', f'{number} b', f'{number} c', f'{number} a']
        first, rest = prepare.split(iter(texts))
        assert [text for _, text in first] == texts and list(rest) == []
        assert {part for part, _ in first} == {'train', 'test'} and first[0][0] == first[3][0]


@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_the_end_of_a_single_text_file_is_its_test_set_in_one_part(prepare_py, here, suffix):
    lines = [f'{line}\n' for text in some_texts(60, 1500) for line in text.splitlines()]
    lines[-200:] = [line[:-1] + ' 字\n' for line in lines[-200:]]
    path, text = here / f'book.txt{suffix}', ''.join(lines)
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    for name, more in dict(whole=[], begin=['--max_bytes=200_000']).items():
        arguments = [f'--corpus={name}', f'--source={path}', '--vocab_size=400']
        small = dict(BATCH_BYTES=50_000, TOKENIZER_BYTES=100_000)
        done = prepare_py(*arguments, '--test_fraction=0.2', *more, **small)
        assert done.returncode == 0, done.stderr
        corpus = Corpus(name)
        train, test = (documents_of(corpus, part) for part in PARTS)
        assert text.startswith(''.join(train + test))
        assert len(test) == round(0.2 * len(train + test)) > 1
        assert (''.join(train + test) == text) == (name == 'whole')
        # The tokeniser learns from training text only.
        assert '字' not in corpus.load_tokenizer().spellings()


def test_a_short_text_file_keeps_one_piece_for_testing_and_needs_another(here, monkeypatch):
    monkeypatch.setattr(prepare, 'source', 'x.txt')
    for pieces, split in ((2, ['train', 'test']), (9, ['train'] * 8 + ['test'])):
        (here / 'x.txt').write_text('word word\n' * (1600 * pieces))
        first, rest = prepare.split(documents('x.txt'), prepare.training_pieces())
        assert [part for part, _ in first] == split and list(rest) == []
    (here / 'x.txt').write_text('word\n')
    with pytest.raises(ConfigError, match='x.txt'):
        prepare.split(documents('x.txt'), prepare.training_pieces())
    monkeypatch.setattr(prepare, 'source', str(write_jsonl(here / 'x.txt', ['a', 'b'])))
    assert prepare.training_pieces() is None


def test_the_first_documents_decide_what_is_tested_as_the_streamed_ones_do(monkeypatch):
    texts = some_texts(200, 20)
    monkeypatch.setattr(prepare, 'test_fraction', 0.3)
    together, _ = prepare.split(iter(texts))
    monkeypatch.setattr(prepare, 'TOKENIZER_BYTES', 3000)
    first, rest = prepare.split(texts := iter(texts))
    assert 2 < len(first) < 100
    assert first + list(rest) == together


def test_progress_has_a_total_where_the_size_of_the_source_is_known(here, monkeypatch):
    text, line = write_documents(here / 'text', 3, length=50), write_jsonl(here / 'x.jsonl', ['é'])
    folder = sum(path.stat().st_size for path in text.iterdir())
    (here / 'x.txt.GZ').write_bytes(gzip.compress(b'a\nb'))
    known = dict(text=folder) | {'x.jsonl:text': line.stat().st_size}
    for source in 'text x.jsonl:text x.txt.GZ docs eltec:eng hf:a/b'.split():
        monkeypatch.setattr(prepare, 'source', source)
        for limit in (0, 99, 10**9):
            monkeypatch.setattr(prepare, 'max_bytes', limit)
            sizes = [size for size in (known.get(source), limit) if size]
            assert prepare.text_size() == min(sizes, default=None), (source, limit)


def test_max_bytes_stops_at_the_end_of_a_document_and_reads_none_that_it_does_not_need():
    for limit in (9, 10):
        texts = iter(['four', '  ', 'cinq', 'é', 'not this', 'nor this'])
        assert list(prepare.limited(texts, limit)) == ['four', 'cinq', 'é']
        assert next(texts) == 'not this'
    assert list(prepare.limited(iter(['a', '', '\n', 'b']), 0)) == ['a', 'b']


def test_shards_do_not_depend_on_the_processes_and_test_text_teaches_the_tokeniser_nothing(
    prepare_py, here
):
    text, words = here / 'text', random.Random(0)
    text.mkdir()
    for number, usual in enumerate(some_texts(60, 150)):
        marked = usual + '字' * 30
        tested = prepare.test_number(marked) < 0.2
        (text / f'{number:02}.txt').write_text(marked if tested else usual)
    # a document that takes long, among others that do not
    (text / '50_long.txt').write_text(' '.join(f'{words.randrange(10**12)}' for _ in range(5000)))
    made, small = [], dict(BATCH_BYTES=2000, TOKENIZER_BYTES=20_000)
    for cores in (1, 3):
        arguments = ['--source=text', '--vocab_size=400', '--test_fraction=0.2']
        done = prepare_py(*arguments, f'--data_dir={cores}', cores=cores, **small)
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in (here / f'{cores}/x').iterdir()})
    assert made[0] == made[1] and len(made[0]) == 4
    corpus, texts = Corpus('x', '3'), [path.read_text() for path in sorted(text.iterdir())]
    for part, tested in zip(PARTS, (False, True)):
        held = [text for text in texts if (prepare.test_number(text) < 0.2) == tested]
        assert documents_of(corpus, part) == held
    assert any('字' in text for text in texts[:20])
    assert '字' not in corpus.load_tokenizer().spellings()


def test_neither_prepare_nor_its_workers_import_torch(tmp_path):
    (tmp_path / 'fake').mkdir()
    (tmp_path / 'fake' / 'torch.py').write_text('raise RuntimeError("torch was imported")')
    text = write_documents(tmp_path / 'text', 20, length=100)
    arguments = ['--corpus=x', f'--source={text}', '--vocab_size=300']
    done = started(tmp_path, *arguments, path=tmp_path / 'fake')
    assert done.returncode == 0, done.stderr
    assert len(Corpus('x', tmp_path / 'data').train)


def test_there_are_no_more_processes_than_cores_of_the_job_and_batches(monkeypatch):
    if hasattr(os, 'sched_getaffinity'):
        monkeypatch.setattr(os, 'cpu_count', lambda: 32)
        assert workers.cores() == len(os.sched_getaffinity(0))
    for cores, items, most in ((1, 9, 1), (8, 1, 1), (2, 9, 2), (8, 3, 3)):
        monkeypatch.setattr(workers, 'cores', lambda cores=cores: cores)
        found = list(
            workers.in_order(eval, [f'{n}, __import__("os").getpid()' for n in range(items)])
        )
        assert [number for number, _ in found] == list(range(items))
        processes = {process for _, process in found}
        assert len(processes) <= most and (os.getpid() in processes) == (most == 1)


# --- what a source held ---------------------------------------------------------------------------


def test_what_a_source_held_is_said_and_recorded(prepare_py, here):
    text = write_documents(here / 'text', 100, length=50)
    write_jsonl(text / 'x.jsonl', [None, 'a text', None])
    (text / 'a.pdf').write_text('x')
    done = prepare_py('--source=text', '--vocab_size=300', '--test_fraction=0.1')
    assert done.returncode == 0 and 'warning' not in done.stderr, done.stderr
    about = Corpus('x').info
    assert about['left_out'] == {'null texts': 2, '.pdf': 1}
    for word in ('2 null texts', '1 .pdf', *(f'{about[p]["documents"]:,} doc' for p in PARTS)):
        assert word in done.stdout
    assert prepare_py('--source=text', '--vocab_size=300', '--test_fraction=0.1').stdout.endswith(
        done.stdout.partition('pieces\n')[2]
    )


LONG_TEST_TEXTS = [text for text in some_texts(60, 3000) if prepare.test_number(text) < 0.2]


@pytest.mark.parametrize(
    'texts, fraction, word',
    [
        ([text + '字文' * 40 for text in some_texts(40)], 0.5, 'byte pieces'),
        (some_texts(60) + LONG_TEST_TEXTS[:5], 0.2, 'test set'),
        (some_texts(10), 0.1, 'test set'),
    ],
    ids=['another script', 'uneven documents', 'few documents'],
)
def test_what_is_odd_gets_a_warning(prepare_py, here, made_once, texts, fraction, word):
    write_jsonl(here / 'x.jsonl', texts)
    model = made_once / 'data/en/tokenizer.model'
    arguments = f'--tokenizer={model}', f'--test_fraction={fraction}'
    done = prepare_py('--source=x.jsonl', *arguments)
    assert done.returncode == 0 and 'warning' in done.stderr and word in done.stderr


def test_a_stream_that_breaks_off_leaves_a_corpus_of_what_arrived(prepare_py, here, monkeypatch):
    texts = some_texts(60)
    for count, kept in ((50, True), (1, False), (0, False)):
        rows = [dict(text=text) for text in texts[:count]]
        fake_datasets(monkeypatch, [*rows, ConnectionError('the network is down')])
        arguments = '--source=hf:a/b', '--vocab_size=300', f'--corpus=x{count}'
        done = prepare_py(*arguments, BATCH_BYTES=2000, TOKENIZER_BYTES=9000)
        refused(done, 'a/b', 'network is down')
        assert (here / f'data/x{count}').exists() == kept
    corpus = Corpus('x50')
    held = documents_of(corpus, 'train') + documents_of(corpus, 'test')
    assert sorted(held) == sorted(texts[:50]) and corpus.info['revision'] == 'c0ffee'
    assert 'network is down' in corpus.info['incomplete']
    refused(prepare_py('--source=hf:a/b', '--vocab_size=300', '--corpus=x50'), 'network is down')


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'source', ['empty.txt', 'blank.txt', 'missing', 'one', 'same', 'far.jsonl']
)
def test_a_source_without_a_corpus_in_it_gets_one_sentence_and_leaves_nothing(
    prepare_py, here, source
):
    (here / 'empty.txt').write_text('')
    (here / 'blank.txt').write_text(' \n\n\t')
    for name, texts in dict(one=['alone'], same=['the same words'] * 2).items():
        (here / name).mkdir()
        for number, text in enumerate(texts):
            (here / name / f'{number}.txt').write_text(text)
    write_jsonl(here / 'far.jsonl', [*some_texts(100), 3])
    small = dict(BATCH_BYTES=1000, TOKENIZER_BYTES=9000, cores=2)
    refused(prepare_py(f'--source={source}', '--vocab_size=300', **small), source)
    nothing_made(here)


BAD_SETTINGS = (
    'vocab_size=65536 vocab_size=0 vocab_size=20000 vocab_size=50 test_fraction=0 test_fraction=1 '
    'test_fraction=0.9999999 max_bytes=-1 corpus=../x corpus= corpus=.x'
).split()


@pytest.mark.parametrize('argument', BAD_SETTINGS)
def test_a_bad_setting_gets_one_sentence_and_leaves_nothing(prepare_py, here, argument):
    write_jsonl(here / 'x.jsonl', ['document a of two', 'document b of two'])
    refused(prepare_py('--source=x.jsonl', f'--{argument}'), argument.partition('=')[0])
    nothing_made(here)


def test_a_full_disk_ends_with_one_sentence_and_leaves_nothing(tmp_path):
    text = write_documents(tmp_path / 'text', 80)

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    # Writing is slower than reading and encoding: all of it is under way when the disk is full.
    slow_disk = """
import io, time
class SlowFile(io.BufferedWriter):
    def write(self, content):
        time.sleep(0.05)
        return super().write(content)
def slow_open(path, mode='r'):
    return SlowFile(io.FileIO(path, mode)) if mode == 'wb' else open(path, mode)
prepare.open = slow_open
"""
    arguments = '--corpus=x', f'--source={text}', '--vocab_size=300'
    done = started(tmp_path, *arguments, before=small_disk, code=slow_disk)
    refused(done, 'File too large')
    nothing_made(tmp_path)


# --- twice, killed, damaged -----------------------------------------------------------------------


def test_the_same_command_again_says_so_and_does_nothing(
    made_once, workplace, prepare_py, monkeypatch
):
    def files():
        paths = [path for path in workplace.rglob('*') if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    before, arguments = files(), [f'--source={made_once}/text_en', '--vocab_size=500']
    done = prepare_py('--corpus=en', *arguments)
    assert done.returncode == 0 and 'data/en already exists' in done.stdout, done.stderr
    assert files() == before and len(before) == 8
    for argument in ('vocab_size=400', 'source=other', 'test_fraction=0.1', 'max_bytes=99'):
        done = prepare_py('--corpus=en', *arguments, f'--{argument}')
        refused(done, 'data/en', f'{argument.partition("=")[0]}=')
    assert files() == before


FAKE_DATASETS = """
import os, time
from pathlib import Path

def load_dataset(name, split, streaming):
    for number, path in enumerate(sorted(Path('text').iterdir())):
        if Path('hang_at').exists() and number == int(Path('hang_at').read_text()):
            Path('reached').touch()
            while not Path('go_on').exists():
                time.sleep(0.02)
        yield dict(text=path.read_text())
"""


@pytest.fixture
def hanging(tmp_path):
    """hanging(at): prepare.py, once it hangs before document `at`; with None it does not hang."""
    (tmp_path / 'fake').mkdir()
    (tmp_path / 'fake' / 'datasets.py').write_text(FAKE_DATASETS)
    (tmp_path / 'fake' / 'huggingface_hub.py').write_text('raise ImportError')
    write_documents(tmp_path / 'text', 60, length=100)

    def call(at):
        for name in ('reached', 'hang_at'):
            (tmp_path / name).unlink(missing_ok=True)
        if at is not None:
            (tmp_path / 'hang_at').write_text(str(at))
        arguments = '--corpus=x', '--source=hf:a/b', '--vocab_size=300'
        process = started(tmp_path, *arguments, path=tmp_path / 'fake', wait=False)
        deadline = time.monotonic() + 60
        while at is not None and not (tmp_path / 'reached').exists():
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    return call


def workers_of(process):
    """Ids of the processes that encode for another one."""
    lines = subprocess.run(['ps', '-eo', 'pid,ppid,args'], text=True, capture_output=True).stdout
    rows = [line.split(None, 2) for line in lines.splitlines()[1:]]
    return [
        int(pid) for pid, parent, line in rows if int(parent) == process.pid and 'spawn' in line
    ]


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    return False


def test_a_killed_run_leaves_nothing_that_passes_for_a_corpus_and_the_next_succeeds(
    hanging, tmp_path
):
    for at in (5, 55):  # while it reads for the tokeniser, and while it encodes
        process = hanging(at)
        encoders = workers_of(process)
        assert len(encoders) == (2 if at == 55 else 0)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert (tmp_path / 'data' / '.x.making' / 'tokenizer.model').exists() == (at == 55)
        with pytest.raises(ConfigError, match='there is no corpus'):
            Corpus('x', tmp_path / 'data')
        deadline = time.monotonic() + 60
        while any(map(is_running, encoders)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    process = hanging(None)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    texts = [path.read_text() for path in sorted((tmp_path / 'text').iterdir())]
    corpus = Corpus('x', tmp_path / 'data')
    assert sorted(documents_of(corpus, 'train') + documents_of(corpus, 'test')) == sorted(texts)
    assert os.listdir(tmp_path / 'data') == ['x']


def test_a_killed_worker_ends_the_run_with_one_sentence_and_leaves_nothing(hanging, tmp_path):
    process = hanging(55)
    os.kill(workers_of(process)[-1], signal.SIGKILL)
    time.sleep(1)  # until that is noticed; else the other worker may do all of the rest
    (tmp_path / 'go_on').touch()
    out, err = process.communicate(timeout=60)
    refused(subprocess.CompletedProcess([], process.returncode, out, err), 'killed')
    assert process.returncode == 1
    nothing_made(tmp_path)


def test_a_second_process_for_the_same_corpus_gets_one_sentence_and_the_first_loses_nothing(
    hanging, prepare_py, here
):
    first = hanging(5)
    try:
        refused(prepare_py('--source=text', '--vocab_size=300'), 'another process', 'x')
        done = prepare_py('--corpus=y', '--source=text', '--vocab_size=300')
        assert done.returncode == 0, done.stderr
        (here / 'go_on').touch()
        _, err = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 0, err
    assert sorted(os.listdir(here / 'data')) == ['x', 'y']
    assert len(os.listdir(here / 'data' / 'x')) == 4
    corpus = Corpus('x')
    assert len(documents_of(corpus, 'train')) + len(documents_of(corpus, 'test')) == 60


def test_an_interrupted_run_says_so_and_leaves_nothing(hanging, tmp_path):
    process = hanging(55)
    os.kill(workers_of(process)[0], signal.SIGINT)  # a terminal sends it to all processes
    for _ in range(20):  # Python drops a Ctrl-C that falls into a destructor
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and 'interrupted' in err and 'Traceback' not in err
    nothing_made(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def change(place):
    def change_byte(path):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    return change_byte


def change_json(**changes):
    def write(path):
        about = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in about.items() if value}))

    return write


def other_corpus(path):
    path.write_bytes((path.parent.parent / 'fr' / path.name).read_bytes())


def other_corpus_of_its_size(path):
    path.write_bytes((path.parent.parent / 'fr' / path.name).read_bytes()[: path.stat().st_size])


@pytest.mark.parametrize(
    'name, damage',
    [
        *((f'{part}.bin', d) for part in PARTS for d in (cut, change(0), change(-2), Path.unlink)),
        ('train.bin', other_corpus),
        ('train.bin', other_corpus_of_its_size),
        *(('tokenizer.model', damage) for damage in (other_corpus, cut, Path.unlink)),
        ('corpus.json', cut),
        ('corpus.json', Path.unlink),
        ('corpus.json', change_json(train=None)),
        ('corpus.json', change_json(tokenizer=3)),
        ('corpus.json', change_json(test=dict(tokens='x'))),
    ],
)
def test_a_damaged_corpus_is_refused_with_what_to_do(
    made_once, workplace, prepare_py, name, damage
):
    path = workplace / 'data' / 'en' / name
    before = path.read_bytes()
    Corpus('en')
    damage(path)
    assert not path.exists() or path.read_bytes() != before
    with pytest.raises(ConfigError, match=f'data/en/{name}.*delete data/en'):
        Corpus('en')
    arguments = f'--source={made_once}/text_en', '--vocab_size=500'
    refused(prepare_py('--corpus=en', *arguments), name, 'delete data/en')


def test_a_corpus_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match='nothing.* prepare.py --corpus=nothing'):
        Corpus('nothing', tmp_path)
