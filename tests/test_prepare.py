"""Text to shards: prepare.py as a user runs it, on text made up here."""

import gzip
import hashlib
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from lib.configurator import ConfigError, defaults_of

import numpy as np
import pytest
import sentencepiece
from conftest import environment, in_process, refused, works, write_documents
from test_sources import fake_datasets, some_texts

import prepare
from data import Corpus
from lib import tokenizer, workers
from lib.tokenizer import DOCUMENT_END, Tokenizer, train_tokenizer

PARTS = 'train', 'test'
# Separated by |, which is in none of them.
AWKWARD = (
    'a| a|  a|a |a  |\na|a\n|a\n\n\nb|\n \n a \n |\ta\tb\t|a  b   c    d|it\'s "so"|\\n'
    '|{"text": "x"}|🙂 👩\u200d👧 \U0010ffff|e\u0301 é E\u0301|中文字、日本語'
    '|a\x00b\x01\x7f\x0b\x0c\x1c\x85|\ufffd|\u2028a\u2029b|\u00a0x\u3000y\u200b|\ufeffx'
    '|ﬁ A\u030a \u212b ſ ½|a\rb|a\r\nb|<D>|a<D>b| <D> |<0x41> <unk> <pad> <s> </s>|⁇|a ⁇ b'
).split('|') + ['-' * 100, f'x{" " * 100}x']
ALPHABET = [*'  \n\té🙂\u0301\u00a0\u3000字.\x00', '  ', '\r\n', '<D>', 'ba', 'da ', '12']
RANDOM = random.Random(0)
MADE_UP = [''.join(RANDOM.choices(ALPHABET, k=RANDOM.randint(1, 40))) for _ in range(400)]


def documents_of(corpus, part):
    """The texts of the documents of a shard, each of which ends with the end of document."""
    tokens, pieces = getattr(corpus, part), corpus.load_tokenizer()
    assert tokens.dtype == np.uint16 and tokens[-1] == DOCUMENT_END
    ends = np.flatnonzero(tokens == DOCUMENT_END) + 1
    return [pieces.decode(ids[:-1].tolist()) for ids in np.split(tokens, ends)[:-1]]


def write_jsonl(path, texts):
    content = ''.join(json.dumps(dict(text=text, other=1)) + '\n' for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


@pytest.fixture
def small(monkeypatch):
    """Constants so small that little text takes all the paths that much text takes."""
    monkeypatch.setattr(prepare, 'BATCH_BYTES', 2000)
    monkeypatch.setattr(prepare, 'TOKENIZER_BYTES', 20_000)


def made(*arguments, corpus='x'):
    """prepare.py in this process and the working directory, without a failure."""
    return works('prepare', f'--corpus={corpus}', *arguments)


def not_made(*arguments, words, corpus='x'):
    """prepare.py ends with one sentence that has `words` in it."""
    refused(in_process('prepare', f'--corpus={corpus}', *arguments), *words)


@pytest.fixture(scope='module')
def pieces(tmp_path_factory):
    path = tmp_path_factory.mktemp('tokenizer') / 'x.model'
    path.write_bytes(train_tokenizer((f'{one} <D> <unk> <0x41>' for one in some_texts(100)), 450))
    return Tokenizer(path)


def test_text_comes_back_from_its_tokens_as_it_was(pieces):
    for text in [*AWKWARD, ' ', '   ', '\n', '\r', '\x00', *MADE_UP]:
        ids = pieces.encode(text)
        assert pieces.decode(ids) == text, ascii(text)
        assert not {0, 1, 2} & set(ids)  # padding, unknown, end of document: never made from text
    usual = ' '.join(some_texts(3))
    assert pieces.size == 450 and len(pieces.encode(usual)) < 0.6 * len(usual)
    for text, count in {'ba da\n\tka\r\x0c': 0, 'ba é\n': 2, '字🙂': 7, '': 0}.items():
        assert pieces.count_foreign(pieces.encode(text)) == count  # white space does not count


@pytest.mark.parametrize('wrong', [5000, 200])
def test_the_size_that_a_refusal_advises_is_possible(wrong):
    with pytest.raises(ConfigError, match=f'{wrong:,} pieces.*--vocab_size=') as refusal:
        train_tokenizer(iter(some_texts(5)), wrong)
    advised = int(str(refusal.value).rpartition('=')[2])
    assert train_tokenizer(iter(some_texts(5)), advised)


def other_tokenizer(path, **settings):
    options = dict(model_type='bpe', hard_vocab_limit=False, vocab_size=400, minloglevel=2)
    texts, prefix = iter(some_texts(50)), str(path.with_suffix(''))
    options |= dict(sentence_iterator=texts, model_prefix=prefix) | settings
    sentencepiece.SentencePieceTrainer.train(**options)
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
def test_long_text_is_encoded_in_parts_as_it_is_in_one(tmp_path, monkeypatch, settings):
    special = dict(pad_id=0, unk_id=1, eos_id=2, bos_id=-1)
    pieces = Tokenizer(other_tokenizer(tmp_path / 'x.model', **special, **settings))
    texts = [*AWKWARD, *some_texts(5), *(text + '▁' for text in MADE_UP)]
    for size in (1, 9):
        monkeypatch.setattr(tokenizer, 'PART', size)
        assert pieces.encode(texts) == pieces.model.encode(texts)


def test_no_more_threads_encode_than_the_job_has_cores_and_they_get_parts(pieces, monkeypatch):
    if hasattr(os, 'sched_getaffinity'):
        monkeypatch.setattr(os, 'cpu_count', lambda: 32)
        assert workers.cores() == len(os.sched_getaffinity(0))
    text, encode = 'many words ' * 10_000, mock.Mock(wraps=pieces.model.encode)
    expected = pieces.model.encode(text)
    monkeypatch.setattr(tokenizer, 'cores', lambda: 3)
    monkeypatch.setattr(pieces.model, 'encode', encode)
    assert pieces.encode(text) == expected
    parts, threads = encode.call_args.args[0], encode.call_args.kwargs['num_threads']
    assert threads == 3 and tokenizer.PART <= max(map(len, parts)) < tokenizer.PART + 5


def test_another_kind_of_tokeniser_is_refused_before_text_is_read(here):
    for number, ids in enumerate(([1, 2, 0], [3, 0, 1], [0, 2, 1], [0, 1, -1])):
        names = dict(zip(('pad_id', 'unk_id', 'eos_id'), ids), bos_id=-1)
        other_tokenizer(here / f'{number}.model', **names)
    (here / 'text.model').write_text('no model')
    for name in ('0', '1', '2', '3', 'text', 'missing'):
        not_made('--source=text', f'--tokenizer={name}.model', words=[f'{name}.model'])
    assert not any(here.glob('data/*'))


class Letters(Tokenizer):
    """A tokeniser of another kind: every lower-case letter is a token."""

    size, hash = 40, 'letters'

    def __init__(self, path):
        assert Path(path).read_bytes() == b'model'

    def encode(self, texts):
        return [[ord(letter) - 87 if letter.islower() else 3 for letter in text] for text in texts]

    def count_foreign(self, tokens):
        return 0


def test_another_tokeniser_is_another_class(here, monkeypatch):
    monkeypatch.setattr(prepare, 'train_tokenizer', lambda texts, size: b'model')
    monkeypatch.setattr(prepare, 'open_tokenizer', Letters)
    text = write_documents(here / 'text', 9, length=50)
    made('--source=text', '--vocab_size=40')
    tokens = np.concatenate([np.fromfile(here / f'data/x/{p}.bin', np.uint16) for p in PARTS])
    texts = Letters.encode(None, [path.read_text() for path in text.iterdir()])
    assert sorted(tokens.tolist()) == sorted([token for ids in texts for token in [*ids, 2]])


def test_a_corpus_holds_every_document_up_to_max_bytes_and_corpus_json_describes_it(here):
    texts = [text for pair in zip(some_texts(len(AWKWARD)), AWKWARD) for text in pair]
    more = [*texts[:6], '', ' \n ', *texts[6:], *['beyond max_bytes'] * 9]
    write_jsonl(here / 'text.jsonl.gz', more)
    size = sum(len(text.encode()) for text in texts)
    settings = '--vocab_size=400', '--test_fraction=0.2', f'--max_bytes={size}'
    made('--source=text.jsonl.gz', '--data_dir=elsewhere/corpora', *settings)
    corpus = Corpus('x', here / 'elsewhere/corpora')
    about = json.loads((corpus.folder / 'corpus.json').read_text())
    held, pieces = {part: documents_of(corpus, part) for part in PARTS}, corpus.load_tokenizer()
    tested = [text for text in texts if prepare.test_number(text) < 0.2]
    assert held == dict(train=[text for text in texts if text not in tested], test=tested)
    for part in PARTS:
        tokens = getattr(corpus, part)
        assert about[part]['documents'] == len(held[part]) == (tokens == DOCUMENT_END).sum()
        assert about[part]['bytes'] == sum(len(text.encode()) for text in held[part])
        assert about[part]['tokens'] == len(tokens) and tokens.max() < 400 == corpus.vocab_size
        foreign = sum(pieces.count_foreign(pieces.encode(text)) for text in held[part])
        assert about[part]['byte_or_unknown'] == foreign > 0
    model = (corpus.folder / 'tokenizer.model').read_bytes()
    assert about['tokenizer'] == dict(pieces=400, sha256=hashlib.sha256(model).hexdigest())
    assert about['settings'].keys() == defaults_of(prepare.__file__).keys() - {'corpus', 'data_dir'}
    assert about['settings']['source'] == 'text.jsonl.gz'
    assert os.listdir(corpus.folder.parent) == ['x'] and len(os.listdir(corpus.folder)) == 4


def parts_of(texts, fraction, monkeypatch):
    monkeypatch.setattr(prepare, 'test_fraction', fraction)
    return list(map(prepare.split(texts, False), itertools.count(), texts))


def test_the_test_set_stays_the_same_as_a_corpus_grows_and_copies_never_straddle(monkeypatch):
    texts = [f'document {number}' for number in range(4000)]
    for fraction in (0.05, 0.5, 0.9):
        parts = parts_of(texts, fraction, monkeypatch)
        assert abs(parts.count('test') / 4000 - fraction) < 0.03
        assert parts_of(['new', *texts, *texts], fraction, monkeypatch)[1:] == 2 * parts
    for number in range(50):  # one document is tested even where the hashes choose none
        texts = [f'{number} a', f'{number} b', f'{number} c', f'{number} a']
        parts = parts_of(texts, 1e-9, monkeypatch)
        assert set(parts) == set(PARTS) and parts[0] == parts[3]


@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_the_end_of_a_single_text_file_is_its_test_set_in_one_part(here, monkeypatch, suffix):
    monkeypatch.setattr(prepare, 'BATCH_BYTES', 50_000)
    monkeypatch.setattr(prepare, 'TOKENIZER_BYTES', 100_000)
    lines = [f'{line}\n' for text in some_texts(60, 1500) for line in text.splitlines()]
    lines[-200:] = [line[:-1] + ' 字\n' for line in lines[-200:]]
    path, text = here / f'book.txt{suffix}', ''.join(lines)
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    for name, more in dict(whole=[], begin=['--max_bytes=200_000']).items():
        arguments = [f'--source={path}', '--vocab_size=400', '--test_fraction=0.2', *more]
        made(*arguments, corpus=name)
        corpus = Corpus(name)
        train, test = (documents_of(corpus, part) for part in PARTS)
        assert text.startswith(''.join(train + test))
        assert len(test) == round(0.2 * len(train + test)) > 1
        assert (''.join(train + test) == text) == (name == 'whole')
        # The tokeniser learns from training text only.
        assert '字' not in corpus.load_tokenizer().spellings()


def test_a_short_text_file_keeps_one_piece_for_testing(here):
    for count in (2, 9):
        (here / 'x.txt').write_text('some words\n' * (1490 * count))
        made('--source=x.txt', '--vocab_size=270', corpus=f'x{count}')
        assert [len(documents_of(Corpus(f'x{count}'), part)) for part in PARTS] == [count - 1, 1]


def test_max_bytes_reads_no_document_that_it_does_not_need(monkeypatch):
    monkeypatch.setattr(prepare, 'max_bytes', 9)
    monkeypatch.setenv('TQDM_DISABLE', '1')
    texts = iter(['four', '  ', 'cinq', '\n', 'é', 'not this'])
    monkeypatch.setattr(prepare, 'documents', lambda *_: texts)
    assert list(prepare.read({})) == ['four', 'cinq', 'é'] and next(texts) == 'not this'


def test_shards_do_not_depend_on_cores_and_batches(here, small, monkeypatch):
    write_documents(here / 'text', 60, length=150)
    files = []
    for cores, size in ((1, 2000), (3, 1 << 20)):
        monkeypatch.setattr(tokenizer, 'cores', lambda cores=cores: cores)
        monkeypatch.setattr(prepare, 'BATCH_BYTES', size)
        made('--source=text', '--vocab_size=400', f'--data_dir={cores}')
        files.append({path.name: path.read_bytes() for path in (here / f'{cores}/x').iterdir()})
    assert files[0] == files[1] and len(files[0]) == 4


def test_what_a_source_held_is_said_and_recorded_and_said_again(here):
    text = write_documents(here / 'text', 100, length=50)
    write_jsonl(text / 'x.jsonl', [None, 'a text', '', None])
    (text / 'a.pdf').write_text('x')
    arguments = '--source=text', '--vocab_size=300', '--test_fraction=0.1'
    done = made(*arguments)
    about = Corpus('x').info
    assert about['left_out'] == {'null texts': 2, '.pdf': 1} and 'warning' not in done.stderr
    for word in ('2 null texts', '1 .pdf', *(f'{about[p]["documents"]:,} doc' for p in PARTS)):
        assert word in done.stdout
    assert made(*arguments).stdout.endswith(done.stdout.partition('pieces\n')[2])


LONG_TEST_TEXTS = [text for text in some_texts(60, 3000) if prepare.test_number(text) < 0.2]


@pytest.mark.parametrize(
    'texts, fraction, word',
    [
        ([text + '字文' * 40 for text in some_texts(40)], 0.5, 'byte pieces'),
        (some_texts(60) + LONG_TEST_TEXTS[:5], 0.2, 'test set'),
        (some_texts(10), 0.1, 'test set'),
    ],
)
def test_what_is_odd_gets_a_warning(here, made_once, texts, fraction, word):
    write_jsonl(here / 'x.jsonl', texts)
    model = made_once / 'data/en/tokenizer.model'
    done = made('--source=x.jsonl', f'--tokenizer={model}', f'--test_fraction={fraction}')
    assert 'warning' in done.stderr and word in done.stderr
    assert Path('data/x/tokenizer.model').read_bytes() == model.read_bytes()


def test_a_stream_that_breaks_off_leaves_a_corpus_of_what_arrived(here, small, monkeypatch):
    texts, arguments = some_texts(60), ['--source=hf:a/b', '--vocab_size=300']
    for count, kept in ((50, True), (1, False), (0, False)):
        rows = [dict(text=text) for text in texts[:count]]
        fake_datasets(monkeypatch, [*rows, ConnectionError('the network is down')])
        not_made(*arguments, words=['a/b', 'network is down'], corpus=f'x{count}')
        assert (here / f'data/x{count}').exists() == kept
    corpus = Corpus('x50')
    held = documents_of(corpus, 'train') + documents_of(corpus, 'test')
    assert sorted(held) == sorted(texts[:50]) and corpus.info['revision'] == 'c0ffee'
    not_made(*arguments, words=['network is down'], corpus='x50')


BAD_SETTINGS = (
    'vocab_size=65536 vocab_size=0 vocab_size=20000 vocab_size=50 test_fraction=0 test_fraction=1 '
    'test_fraction=0.9999999 max_bytes=-1 corpus=../x corpus= corpus=.x source=empty.txt '
    'source=blank.txt source=missing source=one source=same source=far.jsonl'
)


@pytest.mark.parametrize('argument', BAD_SETTINGS.split())
def test_a_bad_setting_or_source_gets_one_sentence_and_leaves_nothing(here, small, argument):
    write_jsonl(here / 'x.jsonl', ['document a of two', 'document b of two'])
    write_jsonl(here / 'far.jsonl', [*some_texts(100), 3])
    for name, text in {'one/0': 'alone', 'same/0': 'twice', 'same/1': 'twice', 'empty': ''}.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / f'{name}.txt').write_text(text)
    (here / 'blank.txt').write_text(' \n\n\t')
    setting, _, value = argument.partition('=')
    words = [value if setting == 'source' else setting]
    not_made('--source=x.jsonl', '--vocab_size=300', f'--{argument}', words=words)
    assert not any(here.glob('data/*'))


def test_a_full_disk_ends_with_one_sentence_and_leaves_nothing(here):
    write_documents(here / 'text', 80)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        not_made('--source=text', '--vocab_size=300', words=['File too large'])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any(here.glob('data/*'))


def test_the_same_command_again_says_so_and_does_nothing(made_once, workplace):
    def files():
        paths = [path for path in workplace.rglob('*') if path.is_file()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    path = Path('data/en/corpus.json')
    path.write_text(path.read_text().replace('"max_bytes": 0', '"older": 0'))  # has its default
    before, arguments = files(), [f'--source={made_once}/text_en', '--vocab_size=500']
    assert 'data/en already exists' in made(*arguments, corpus='en').stdout
    assert files() == before and len(before) == 8
    for name, value in dict(vocab_size=400, source='other', test_fraction=0.1, max_bytes=9).items():
        not_made(*arguments, f'--{name}={value}', words=['data/en', f'{name}='], corpus='en')
    assert files() == before


@pytest.fixture
def waiting(here):
    """waiting(texts, made): prepare.py as a process of its own. It got `texts` through a pipe, has
    made the file `made` and waits for more. Returns (process, rest): rest(texts) sends it more
    documents and the end."""
    os.mkfifo(here / 'pipe.jsonl')
    pipe, processes = os.open(here / 'pipe.jsonl', os.O_RDWR), []
    code = (
        'import signal, sys, prepare\nfrom lib import configurator\n'
        # A shell starts a background job deaf to Ctrl-C, and its children inherit that.
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        'prepare.BATCH_BYTES, prepare.TOKENIZER_BYTES = 1000, 9000\n'
        'sys.argv = ["prepare.py", "--corpus=x", "--source=pipe.jsonl", "--vocab_size=300"]\n'
        'configurator.run(vars(prepare), prepare.main)'
    )

    def send(texts):
        os.write(pipe, ''.join(json.dumps(dict(text=text)) + '\n' for text in texts).encode())

    def rest(texts):
        send(texts)
        os.close(pipe)

    def call(texts, made):
        output = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process = subprocess.Popen([sys.executable, '-c', code], env=environment(), **output)
        processes.append(process)
        send(texts)
        deadline = time.monotonic() + 60
        while not (here / 'data/.x.making' / made).exists():
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process, rest

    yield call
    for process in processes:
        process.kill()


def test_a_second_process_for_the_same_corpus_is_refused_and_the_first_loses_nothing(waiting, here):
    texts = some_texts(60)
    first, rest = waiting(texts[:5], '.lock')
    write_documents(here / 'text', 60, length=50)
    not_made('--source=text', '--vocab_size=300', words=['another process', 'x'])
    made('--source=text', '--vocab_size=300', corpus='y')
    rest(texts[5:])
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert sorted(os.listdir('data')) == ['x', 'y'] and len(os.listdir('data/x')) == 4
    held = [text for part in PARTS for text in documents_of(Corpus('x'), part)]
    assert sorted(held) == sorted(texts)


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_leaves_no_corpus_and_the_next_succeeds(waiting, here, number):
    process, _ = waiting(some_texts(55), 'train.bin')
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130 and 'interrupted' in err and 'Traceback' not in err
        assert not any(here.glob('data/*'))
    with pytest.raises(ConfigError, match='there is no corpus'):
        Corpus('x')
    write_documents(here / 'text', 30, length=50)
    made('--source=text', '--vocab_size=300')
    assert len(documents_of(Corpus('x'), 'train')) > 20 and os.listdir('data') == ['x']


@pytest.mark.parametrize('name', ['train.bin', 'test.bin', 'tokenizer.model', 'corpus.json'])
def test_a_damaged_corpus_is_refused_with_what_to_do(workplace, name):
    path, other = (Path('data', corpus, name) for corpus in ('en', 'fr'))
    old, damages = path.read_bytes(), [other.read_bytes()]
    damages += [bytes([old[0] ^ 1]) + old[1:], old[:-2] + bytes([old[-2] ^ 1]) + old[-1:]]
    if name == 'corpus.json':
        wrong = dict(train=None), dict(tokenizer=3)
        damages = [json.dumps(json.loads(old) | entry).encode() for entry in wrong]
    for damaged in (None, old[:-100], *damages):
        path.unlink(missing_ok=True)
        if damaged:
            path.write_bytes(damaged)
        not_made('--source=text', words=[path, 'delete data/en'], corpus='en')
