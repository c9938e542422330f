"""From text to shards: sources.py and prepare.py as a user runs them, on text made up here."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import types
from pathlib import Path

from lib.configurator import ConfigError

import numpy as np
import pytest
import sentencepiece
import sources
from conftest import (
    REPO,
    environment,
    invented_words,
    pseudo_text,
    refused,
    script,
    write_documents,
)

import prepare
from data import Corpus, aligned_lines
from lib.sources import documents

AWKWARD = [
    'a',
    ' a',
    '  a',
    'a ',
    'a  ',
    '\na',
    'a\n',
    'a\n\n\nb',
    '\n \n a \n ',
    '\ta\tb\t',
    'a  b   c    d',
    '-' * 100,
    'x' + ' ' * 100 + 'x',
    '🙂 👩\u200d👩\u200d👧 \U0010ffff',
    'e\u0301 é E\u0301',
    '中文字、日本語',
    'a\x00b\x01\x7f\x0b\x0c\x1c\x85',
    '\u2028a\u2029b',
    '\u00a0x\u3000y\u200b',
    '\ufeffx',
    'ﬁ A\u030a \u212b ſ ½',
    'a\rb',
    'a\r\nb',
    '<D>',
    'a<D>b',
    ' <D> ',
    '<0x41> <unk> <pad> <s> </s>',
    '⁇',
    'a ⁇ b',
    '\ufffd',
    'it\'s "so"',
    '\\n',
    '{"text": "x"}',
]


def documents_of(corpus, part):
    """The texts of the documents of a shard, each of which ends with the end of document."""
    tokens, pieces = getattr(corpus, part), corpus.load_tokenizer()
    assert tokens.dtype == np.uint16 and tokens[-1] == 2
    return [
        pieces.decode(ids[:-1].tolist())
        for ids in np.split(tokens, np.flatnonzero(tokens == 2) + 1)[:-1]
    ]


def write_jsonl(path, texts):
    lines = ''.join(json.dumps(dict(text=text, other=1)) + '\n' for text in texts)
    opened = gzip.open(path, 'wt') if path.suffix == '.gz' else open(path, 'w')
    with opened as file:
        file.write(lines)
    return path


def some_texts(count, length=60):
    words = invented_words(3)
    return [pseudo_text(words, length, random.Random(number)) for number in range(count)]


def tuned(
    cwd, *arguments, cores=2, wait=True, path='', before=None, timeout=120, code='', **constants
):
    """prepare.py with other constants: little text takes all the paths that much text takes."""
    code = (
        f'import os, signal, sys\nimport prepare, configurator\nos.cpu_count = lambda: {cores}\n'
        # A shell starts a background job deaf to Ctrl-C, and its children inherit that.
        'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
        f'vars(prepare).update({constants!r})\n{code}\n'
        f'sys.argv = ["prepare.py", *{list(map(str, arguments))!r}]\n'
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
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def prepare_py(here, monkeypatch, capsys):
    """prepare_py(*arguments): prepare.py in this process, for commands that encode no text."""

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['prepare.py', *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(REPO / 'prepare.py'), run_name='__main__')
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, status, out, err)

    return call


def nothing_made(folder):
    assert not (folder / 'data').exists() or list((folder / 'data').iterdir()) == []


# --- sources --------------------------------------------------------------------------------------


def test_a_folder_is_read_by_path_and_a_txt_file_is_a_document(tmp_path):
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / '1.txt').write_text('b1\n\nb1')
    (tmp_path / 'a.txt').write_bytes('\ufeffwith a mark\r\nand other line ends\rhere'.encode())
    (tmp_path / 'c.txt.gz').write_bytes(gzip.compress('c é'.encode()))
    write_jsonl(tmp_path / 'd.jsonl', ['d1', 'd2\r\n'])
    write_jsonl(tmp_path / 'e.jsonl.gz', ['e1'])
    (tmp_path / 'ignored.md').write_text('no')
    assert list(documents(str(tmp_path))) == [
        'with a mark\nand other line ends\nhere',
        'b1\n\nb1',
        'c é',
        'd1',
        'd2\r\n',
        'e1',
    ]


@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_a_text_file_is_cut_into_documents_without_losing_a_character(tmp_path, suffix):
    text = (
        ''.join(some_texts(40, 600))
        + 'y' * 100_000
        + ' '
        + 'many words ' * 20_000
        + '\n\n'
        + 'the end'
    )
    path = tmp_path / f'all.txt{suffix}'
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    parts = list(documents(str(path)))
    assert ''.join(parts) == text
    assert all(len(part) < 6 * sources.PIECE for part in parts) and len(parts) > 20
    ordinary = parts[:5]
    assert all(
        sources.PIECE <= len(part) < 2 * sources.PIECE and part.endswith('\n') for part in ordinary
    )


@pytest.mark.parametrize('name', ['x.jsonl', 'x.jsonl.gz'])
def test_jsonl_gives_its_texts_and_skips_blank_lines(tmp_path, name):
    path = write_jsonl(tmp_path / name, AWKWARD)
    content = gzip.decompress(path.read_bytes()) if name.endswith('.gz') else path.read_bytes()
    content = content.replace(b'\n', b'\n\n', 3)
    path.write_bytes(gzip.compress(content) if name.endswith('.gz') else content)
    assert list(documents(str(path))) == AWKWARD


NOVEL = """<?xml version="1.0" encoding="UTF-8"?>
<TEI xmlns="http://www.tei-c.org/ns/1.0"><teiHeader><fileDesc><titleStmt><title>not this</title>
</titleStmt></fileDesc></teiHeader><text><front><div><p>nor this</p></div></front><body>
 <head>The Title</head>
 <div type="chapter"><head>I. A
   Beginning</head><pb n="1"/>
  <p>It was a won<pb n="2"/>derful   day<note n="1">an editor's <hi>note</hi></note>, she
     <hi rend="italic">said</hi> &amp; left.</p> <!-- a comment -->
  <pb n="3"/><p>The <foreign xml:lang="fr">été</foreign> began,
  <pb n="4"/>and ended.</p><note>not this either</note>
  <quote><lg><l>One line,</l><l>another line.</l></lg></quote>
  <p>He sang <quote><l>la la</l></quote> and slept.</p>
  <div><div><p>Deep.</p></div></div><milestone/><trailer>The end</trailer>
 </div></body><back><div><p>nor that</p></div></back></text></TEI>"""
NOVEL_LINES = [
    'The Title',
    'I. A Beginning',
    'It was a wonderful day, she said & left.',
    'The été began, and ended.',
    'One line,',
    'another line.',
    'He sang',
    'la la',
    'and slept.',
    'Deep.',
    'The end',
]


def test_a_local_copy_of_eltec_gives_the_body_a_line_for_each_paragraph_verse_and_heading(tmp_path):
    (tmp_path / 'level1').mkdir()
    (tmp_path / 'level1' / 'ENG2.xml').write_text(NOVEL)
    (tmp_path / 'level1' / 'ENG1.xml').write_bytes(
        NOVEL.replace('UTF-8', 'ISO-8859-1').replace('Deep.', 'First.').encode('latin-1')
    )
    (tmp_path / 'level1' / 'x.xml').mkdir()
    first, second = documents(f'eltec:{tmp_path}')
    assert second == '\n'.join(NOVEL_LINES) + '\n'
    assert first == second.replace('Deep.', 'First.')


def test_eltec_downloads_an_archive_and_reads_its_level_1(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / 'ELTeC-xyz.tar.gz', 'w:gz') as archive:
        folder = tarfile.TarInfo('R/level1/x.xml')
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ('R/level0/A.xml', 'R/level1/B.xml', 'R/README.md', 'R/level1/C.xml'):
            text = NOVEL.replace('Deep.', name).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    monkeypatch.setattr(sources, 'ELTEC_URL', (tmp_path / 'ELTeC-').as_uri() + '{}.tar.gz')
    found = list(documents('eltec:xyz'))  # among them a folder that is named like a novel
    assert ['level1/B.xml' in found[0], 'level1/C.xml' in found[1], len(found)] == [True, True, 2]
    whole = (tmp_path / 'ELTeC-xyz.tar.gz').read_bytes()
    (tmp_path / 'ELTeC-abc.tar.gz').write_bytes(whole[: len(whole) // 2])
    for language in ('abc', 'missing'):
        with pytest.raises(
            ConfigError, match='fetch the repository elsewhere.*--source=eltec:FOLDER'
        ):
            list(documents(f'eltec:{language}'))


def test_eltec_that_cannot_be_reached_says_the_way_out(monkeypatch):
    monkeypatch.setattr(sources, 'ELTEC_URL', 'http://127.0.0.1:9/ELTeC-{}')
    with pytest.raises(
        ConfigError, match='127.0.0.1:9/ELTeC-eng cannot be read.*--source=eltec:FOLDER'
    ):
        list(documents('eltec:eng'))


def test_eltec_that_breaks_off_says_the_way_out(monkeypatch):
    server = socket.create_server(('127.0.0.1', 0))

    def answer():
        connection, _ = server.accept()
        connection.recv(10_000)
        head = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n'
        connection.sendall(head + gzip.compress(b'x')[:15])
        connection.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    monkeypatch.setattr(sources, 'ELTEC_URL', f'http://127.0.0.1:{server.getsockname()[1]}/{{}}')
    with pytest.raises(
        ConfigError, match='/eng cannot be read.*IncompleteRead.*--source=eltec:FOLDER'
    ):
        list(documents('eltec:eng'))
    thread.join()
    server.close()


def make_package(site, name, requires=(), **modules):
    """A package as pip leaves it in a folder of sys.path; its modules cannot be imported."""
    (site / name).mkdir(parents=True)
    record = []
    for module, source in modules.items():
        (site / name / f'{module}.py').write_text(
            source + '\nraise RuntimeError("imported")\n', encoding='utf-8'
        )
        record.append(f'{name}/{module}.py,,\n')
    info = site / f'{name}-1.0.dist-info'
    info.mkdir()
    lines = ''.join(f'Requires-Dist: {requirement}\n' for requirement in requires)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{lines}')
    (info / 'RECORD').write_text(''.join(sorted(record, reverse=True)) + f'{name}/data.csv,,\n')


def test_docs_are_the_prose_of_the_required_packages_in_a_fixed_order_and_once(
    tmp_path, monkeypatch
):
    site = tmp_path / 'site'
    needed = ['Apple_pkg>=1', 'hiddenpkg; extra == "test"', 'not-installed-pkg; python_version>"3"']
    make_package(
        site,
        'zebrapkg',
        needed,
        b='''"""This module is about zebras and where they may be found.

    >>> zebra()
    this is the output of the code and not prose at all

    Too short.

    ==== ====
    one  two of a table that is no prose either for sure
    ==== ====
    """
class Zebra:
    """An animal that has ``many`` stripes and :class:`runs <Run>`
    over the wide plains of its continent."""
    def f(self):
        "A paragraph that stands in two of the packages is read once."
    if True:
        async def g(self):
            \'\'\'Even a function in a condition in a class is documented here.\'\'\'
add_docstr(f, "A documentation string that is passed to a function, which is an unusual way of it")
print("A text that is passed to a function which does not document anything, so it is left out")
''',
        a='"""The first module of the package comes before the second one."""',
        empty='"""Short."""',
        broken='def (:\n"""A module that is not Python is left out of all this."""',
    )
    make_package(
        site,
        'apple_pkg',
        ['zebrapkg'],
        one='def f():\n    """A paragraph that stands in two of the packages is read once."""',
    )
    make_package(
        site, 'hiddenpkg', h='"""Nobody has asked for this package and so nobody reads it."""'
    )
    monkeypatch.syspath_prepend(str(site))
    requirements = tmp_path / 'requirements.txt'
    requirements.write_text('# a comment\nzebrapkg==1.0\n')
    found = list(sources.docs(requirements))
    assert found == [
        'A paragraph that stands in two of the packages is read once.\n',
        'The first module of the package comes before the second one.\n',
        'This module is about zebras and where they may be found.\n\n'
        'An animal that has many stripes and runs over the wide plains of its continent.\n\n'
        'Even a function in a condition in a class is documented here.\n\n'
        'A documentation string that is passed to a function, which is an unusual way of it\n',
    ]


def fake_datasets(monkeypatch, rows):
    def load_dataset(name, *configuration, split, streaming):
        assert (split, streaming) == ('train', True) and configuration in ((), ('en-fr',))
        if name == 'no/such':
            raise FileNotFoundError('it does not exist\nsecond line')
        return iter(rows)

    monkeypatch.setitem(sys.modules, 'datasets', types.SimpleNamespace(load_dataset=load_dataset))


def test_hf_streams_the_text_column_or_the_one_that_is_named(monkeypatch):
    fake_datasets(
        monkeypatch, [dict(complete_text='one', other='x'), dict(complete_text=None, other='y')]
    )
    assert list(documents('hf:PleIAs/French-PD-Books')) == ['one', '']
    assert list(documents('hf:PleIAs/French-PD-Books:other')) == ['x', 'y']


def test_hf_has_configurations_and_columns_of_columns(monkeypatch):
    fake_datasets(
        monkeypatch,
        [dict(translation=dict(en='yes', fr='oui')), dict(translation=dict(en='no', fr='non'))],
    )
    assert list(aligned_lines(['hf:a/b/en-fr:translation.en', 'hf:a/b/en-fr:translation.fr'])) == [
        ('yes', 'oui'),
        ('no', 'non'),
    ]
    for column in ('translation.de', 'translation.en.x'):
        with pytest.raises(ConfigError, match=f"no column '{column}'"):
            list(documents(f'hf:a/b:{column}'))


@pytest.mark.parametrize(
    'name, words',
    [
        ('a/b:nothing', "no column 'nothing'.*complete_text"),
        ('a/b:id', 'not text'),
        ('no/such', 'FileNotFoundError: it does not exist\\).*\\.jsonl'),
    ],
)
def test_hf_that_cannot_be_streamed_says_the_way_out(monkeypatch, name, words):
    fake_datasets(monkeypatch, [dict(id=1, complete_text='one')])
    with pytest.raises(ConfigError, match=words):
        list(documents(f'hf:{name}'))


def test_hf_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ConfigError, match='pip install datasets'):
        list(documents('hf:a/b'))


# --- the tokeniser --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def pieces(tmp_path_factory):
    path = tmp_path_factory.mktemp('tokenizer') / 'x.model'
    path.write_bytes(
        prepare.train_tokenizer((text + ' <D> <unk> <0x41>' for text in some_texts(100)), 450)
    )
    return prepare.load_tokenizer(path)


@pytest.mark.parametrize('text', AWKWARD + [' ', '   ', '\n', '\r', '\x00'], ids=ascii)
def test_text_comes_back_from_its_tokens_as_it_was(pieces, text):
    ids = pieces.encode(text)
    assert pieces.decode(ids) == text
    assert not {0, 1, 2} & set(ids)  # padding, unknown and end of document are never made from text


def test_random_text_comes_back_from_its_tokens_as_it_was(pieces):
    rng = random.Random(0)
    alphabet = [
        ' ',
        '  ',
        '\n',
        '\t',
        'é',
        '🙂',
        '<D>',
        'ba',
        'da ',
        'ka',
        '\u0301',
        '字',
        '.',
        '\r\n',
        '\x00',
    ]
    for _ in range(300):
        text = ''.join(rng.choices(alphabet, k=rng.randint(1, 40)))
        assert pieces.decode(pieces.encode(text)) == text


def test_a_tokeniser_has_the_pieces_that_were_asked_for(pieces):
    assert len(pieces) == 450
    assert [pieces.id_to_piece(i) for i in range(3)] == [
        '<pad>',
        '<unk>',
        '<D>',
    ] and pieces.unk_id() == 1
    usual = ' '.join(some_texts(3))
    assert len(pieces.encode(usual)) < 0.6 * len(usual)


def test_the_size_that_a_refusal_advises_is_possible():
    texts = some_texts(5)
    for wrong, words in ((5000, 'at most'), (200, 'at least')):
        with pytest.raises(
            ConfigError, match=f'{wrong:,} pieces.*{words}.*--vocab_size='
        ) as refusal:
            prepare.train_tokenizer(iter(texts), wrong)
        advised = int(str(refusal.value).rpartition('=')[2])
        assert sentencepiece.SentencePieceProcessor(
            model_proto=prepare.train_tokenizer(iter(texts), advised)
        )


def other_tokenizer(path, **settings):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(some_texts(50)),
        model_prefix=str(path.with_suffix('')),
        vocab_size=400,
        minloglevel=2,
        **{'model_type': 'bpe', 'hard_vocab_limit': False, **settings},
    )
    return path


@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(normalization_rule_name='identity', remove_extra_whitespaces=False),
        dict(add_dummy_prefix=False),
        dict(split_by_whitespace=False),
        dict(treat_whitespace_as_suffix=True),
        dict(model_type='unigram'),
        dict(user_defined_symbols=[' the ', 'ba da', '<x>']),
        dict(byte_fallback=True),
        dict(normalization_rule_name='nmt_nfkc_cf', remove_extra_whitespaces=False),
        dict(split_by_unicode_script=False),
        dict(allow_whitespace_only_pieces=True, remove_extra_whitespaces=False),
        dict(
            max_sentencepiece_length=3,
            split_digits=True,
            byte_fallback=True,
            remove_extra_whitespaces=False,
        ),
    ],
    ids=str,
)
def test_encoding_word_by_word_is_encoding_as_sentencepiece_does(tmp_path, settings):
    model = other_tokenizer(
        tmp_path / 'x.model', pad_id=0, unk_id=1, eos_id=2, bos_id=-1, **settings
    )
    pieces, rng = prepare.load_tokenizer(model), random.Random(0)
    encode = prepare.WordEncoder(pieces)
    alphabet = [' ', ' ', '  ', *'\n\té🙂▁\u0301\u00a0\u3000', '<D>', 'ba', 'da', 'ka', 'the', '12']
    made_up = [''.join(rng.choices(alphabet, k=rng.randint(1, 30))) for _ in range(500)]
    for text in AWKWARD + some_texts(5) + made_up:
        assert np.frombuffer(encode(text), np.uint16).tolist() == pieces.encode(text), ascii(text)


@pytest.mark.parametrize(
    'ids',
    [
        dict(),
        dict(pad_id=3),
        dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
        dict(pad_id=0, unk_id=1, eos_id=-1, bos_id=-1),
    ],
    ids=str,
)
def test_a_tokeniser_with_other_special_ids_is_refused(prepare_py, here, ids):
    model = other_tokenizer(here / 'other.model', **ids)
    done = prepare_py('--corpus=x', '--source=text', f'--tokenizer={model}')
    refused(done, 'other.model', 'padding at id 0', 'eos_id=2')
    nothing_made(here)


def test_what_is_no_tokeniser_is_refused(prepare_py, here):
    (here / 'x.model').write_text('no model')
    refused(
        prepare_py('--corpus=x', '--source=text', '--tokenizer=x.model'),
        'x.model is not a SentencePiece model',
    )
    refused(
        prepare_py('--corpus=x', '--source=text', '--tokenizer=y.model'),
        'there is no tokeniser y.model',
    )
    nothing_made(here)


# --- a corpus -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def awkward_corpus(tmp_path_factory):
    """A corpus from the beginning of a .jsonl.gz: (its folder, its awkward and usual documents)."""
    root = tmp_path_factory.mktemp('awkward')
    texts = [text for pair in zip(some_texts(len(AWKWARD)), AWKWARD) for text in pair]
    source = write_jsonl(
        root / 'text.jsonl.gz', texts[:6] + ['', ' \n '] + texts[6:] + ['beyond max_bytes'] * 9
    )
    done = script(
        'prepare',
        '--corpus=x',
        f'--source={source}',
        '--vocab_size=400',
        '--test_fraction=0.2',
        f'--max_bytes={sum(len(text.encode()) for text in texts)}',
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    return root, texts


def test_a_corpus_holds_every_document_up_to_max_bytes_as_it_was_in_its_order(awkward_corpus):
    root, texts = awkward_corpus
    corpus = Corpus('x', root / 'data')
    train, test = documents_of(corpus, 'train'), documents_of(corpus, 'test')
    assert sorted(train + test) == sorted(texts)
    assert train == [text for text in texts if text in set(train)]
    assert test == [text for text in texts if text in set(test)]
    assert 0.05 < len(test) / len(texts) < 0.4


def test_corpus_json_says_what_the_shards_hold(awkward_corpus):
    root, texts = awkward_corpus
    folder, corpus = root / 'data' / 'x', Corpus('x', root / 'data')
    about = json.loads((folder / 'corpus.json').read_text())
    for part in ('train', 'test'):
        held = documents_of(corpus, part)
        assert about[part]['documents'] == len(held) == (getattr(corpus, part) == 2).sum()
        assert about[part]['bytes'] == sum(len(text.encode()) for text in held)
        assert (
            about[part]['tokens']
            == len(getattr(corpus, part))
            == (folder / f'{part}.bin').stat().st_size / 2
        )
    model = (folder / 'tokenizer.model').read_bytes()
    assert about['tokenizer'] == dict(pieces=400, sha256=hashlib.sha256(model).hexdigest())
    assert about['settings']['source'] == str(root / 'text.jsonl.gz') and corpus.vocab_size == 400
    assert max(corpus.train.max(), corpus.test.max()) < 400
    assert sorted(os.listdir(root / 'data')) == ['x']


def test_the_test_set_stays_the_same_as_a_corpus_grows_and_copies_never_straddle(
    made_once, tmp_path
):
    text = write_documents(tmp_path / 'text', 40, length=50)
    model = made_once / 'data' / 'en' / 'tokenizer.model'
    arguments = [f'--source={text}', f'--tokenizer={model}', '--test_fraction=0.2']
    assert script('prepare', '--corpus=small', *arguments, cwd=tmp_path).returncode == 0
    before = {path.read_text() for path in text.iterdir()}
    write_documents(text, 120, length=50)
    for path in list(text.iterdir()):
        shutil.copy(path, text / f'copy_{path.name}')
    assert script('prepare', '--corpus=large', *arguments, cwd=tmp_path).returncode == 0
    small, large = (Corpus(name, tmp_path / 'data') for name in ('small', 'large'))
    assert (tmp_path / 'data' / 'large' / 'tokenizer.model').read_bytes() == model.read_bytes()
    assert set(documents_of(small, 'test')) == set(documents_of(large, 'test')) & before
    for corpus, copies in ((small, 1), (large, 2)):
        train, test = documents_of(corpus, 'train'), documents_of(corpus, 'test')
        assert len(test) > 2 * copies and not set(train) & set(test)
        assert len(train) == copies * len(set(train)) and len(test) == copies * len(set(test))


def test_the_share_of_test_documents_is_about_the_test_fraction():
    numbers = [prepare.test_number(f'document {number}') for number in range(4000)]
    assert 0 <= min(numbers) and max(numbers) < 1
    for fraction in (0.05, 0.5, 0.9):
        assert abs(np.mean(np.array(numbers) < fraction) - fraction) < 0.03


def test_a_small_corpus_has_a_test_document_even_where_the_hash_chooses_none(monkeypatch):
    for number in range(50):
        texts = [f'{number} a', f'{number} b', f'{number} c', f'{number} a']
        monkeypatch.setattr(prepare, 'test_fraction', 1e-9)
        first, rest = prepare.split(iter(texts))
        assert [text for _, text in first] == texts and list(rest) == []
        assert {part for part, _ in first} == {'train', 'test'} and first[0][0] == first[3][0]


@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_the_end_of_a_single_text_file_is_its_test_set_in_one_part(tmp_path, suffix):
    lines = [f'{line}\n' for text in some_texts(60, 1500) for line in text.splitlines()]
    lines[-200:] = [line[:-1] + ' 字\n' for line in lines[-200:]]
    path, text = tmp_path / f'book.txt{suffix}', ''.join(lines)
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    for name, more in dict(whole=[], begin=['--max_bytes=200_000']).items():
        done = tuned(
            tmp_path,
            f'--corpus={name}',
            f'--source={path}',
            '--vocab_size=400',
            '--test_fraction=0.2',
            *more,
            BATCH_BYTES=50_000,
            TOKENIZER_BYTES=100_000,
        )
        assert done.returncode == 0, done.stderr
        corpus = Corpus(name, tmp_path / 'data')
        train, test = documents_of(corpus, 'train'), documents_of(corpus, 'test')
        assert (
            text.startswith(''.join(train + test))
            and len(test) == round(0.2 * len(train + test)) > 1
        )
        assert (''.join(train + test) == text) == (name == 'whole')
        assert corpus.load_tokenizer().piece_to_id('字') == 1  # it learns from training text alone


def test_a_short_text_file_keeps_one_piece_for_testing_and_needs_another(here, monkeypatch):
    monkeypatch.setattr(prepare, 'source', 'x.txt')
    for pieces, split in ((2, ['train', 'test']), (9, ['train'] * 8 + ['test'])):
        (here / 'x.txt').write_text('word word\n' * (1600 * pieces))
        first, rest = prepare.split(documents('x.txt'), prepare.training_pieces())
        assert [part for part, _ in first] == split and list(rest) == []
    (here / 'x.txt').write_text('word\n')
    with pytest.raises(ConfigError, match='x.txt is a single document'):
        prepare.split(documents('x.txt'), prepare.training_pieces())
    monkeypatch.setattr(prepare, 'source', write_jsonl(here / 'x.jsonl', ['a', 'b']))
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
    (here / 'x.txt.gz').write_bytes(gzip.compress(b'a\nb'))
    for source, limit, size in (
        ('text', 0, folder),
        ('text', 99, 99),
        ('text', 10**9, folder),
        ('x.jsonl', 0, line.stat().st_size),
        ('x.txt.gz', 0, None),
        ('docs', 0, None),
        ('eltec:eng', 0, None),
        ('hf:a/b', 0, None),
        ('hf:a/b', 500, 500),
    ):
        monkeypatch.setattr(prepare, 'source', source)
        monkeypatch.setattr(prepare, 'max_bytes', limit)
        assert prepare.text_size() == size, (source, limit)


def test_max_bytes_stops_at_the_end_of_a_document_and_reads_none_that_it_does_not_need():
    for limit in (9, 10):
        texts = iter(['four', '  ', 'cinq', 'é', 'not this', 'nor this'])
        assert list(prepare.limited(texts, limit)) == ['four', 'cinq', 'é']
        assert next(texts) == 'not this'
    assert list(prepare.limited(iter(['a', '', '\n', 'b']), 0)) == ['a', 'b']


def test_shards_do_not_depend_on_the_processes_and_test_text_teaches_the_tokeniser_nothing(
    tmp_path,
):
    text, words = tmp_path / 'text', random.Random(0)
    text.mkdir()
    for number, usual in enumerate(some_texts(60, 150)):
        marked = usual + '字' * 30
        (text / f'{number:02}.txt').write_text(
            marked if prepare.test_number(marked) < 0.2 else usual
        )
    # a document that takes long, among others that do not
    (text / '50_long.txt').write_text(' '.join(f'{words.randrange(10**12)}' for _ in range(5000)))
    made = []
    for cores in (1, 3):
        folder = tmp_path / str(cores)
        folder.mkdir()
        done = tuned(
            folder,
            '--corpus=x',
            f'--source={text}',
            '--vocab_size=400',
            '--test_fraction=0.2',
            cores=cores,
            BATCH_BYTES=2000,
            TOKENIZER_BYTES=20_000,
        )
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in (folder / 'data' / 'x').iterdir()})
    assert made[0] == made[1] and len(made[0]) == 4
    corpus, texts = (
        Corpus('x', folder / 'data'),
        [path.read_text() for path in sorted(text.iterdir())],
    )
    assert documents_of(corpus, 'train') == [
        text for text in texts if prepare.test_number(text) >= 0.2
    ]
    assert documents_of(corpus, 'test') == [
        text for text in texts if prepare.test_number(text) < 0.2
    ]
    assert (
        any('字' in text for text in texts[:20]) and corpus.load_tokenizer().piece_to_id('字') == 1
    )


# --- bad input ------------------------------------------------------------------------------------


def write_bad_input(folder):
    (folder / 'empty.txt').write_text('')
    (folder / 'blank.txt').write_text(' \n\n\t')
    for name in ('no_text', 'one', 'two', 'same', 'latin', 'no_novels', 'not_xml', 'not_tei'):
        (folder / name).mkdir()
    (folder / 'no_text' / 'x.pdf').write_text('x')
    (folder / 'one' / 'x.txt').write_text('alone in the world\n')
    for name in ('a', 'b'):
        (folder / 'two' / f'{name}.txt').write_text(f'document {name} of two\n')
        (folder / 'same' / f'{name}.txt').write_text('the same words\n')
    (folder / 'latin' / 'a.txt').write_text('fine\n')
    (folder / 'latin' / 'b.txt').write_bytes('café'.encode('latin-1'))
    (folder / 'latin.txt').write_bytes('café'.encode('utf-16'))
    whole = gzip.compress(random.Random(0).randbytes(3000).hex().encode())
    (folder / 'half.txt.gz').write_bytes(whole[: len(whole) // 2])
    (folder / 'hurt.txt.gz').write_bytes(whole[:100] + b'\xff' * 50 + whole[150:])
    (folder / 'plain.txt.gz').write_text('not gzipped')
    for name, line in dict(
        bad='{"text": "x"',
        field='{"txt": "x"}',
        list='["text"]',
        number='3',
        kind='{"text": 3}',
        half='{"text": "\\ud800"}',
    ).items():
        (folder / f'{name}.jsonl').write_text('{"text": "a"}\n\n' + line + '\n{"text": "b"}\n')
    (folder / 'not_xml' / 'a.xml').write_text('<TEI><text>')
    (folder / 'not_tei' / 'a.xml').write_text('<html><body>x</body></html>')


@pytest.mark.parametrize(
    'source, words',
    [
        ('empty.txt', ['empty.txt is empty']),
        ('blank.txt', ['blank.txt is empty']),
        ('no_text', ['no .txt or .jsonl']),
        ('missing.txt', ['no file or folder missing.txt']),
        ('one', ['single document']),
        ('same', ['are the same']),
        ('latin', ['latin/b.txt is not UTF-8']),
        ('latin.txt', ['latin.txt is not UTF-8']),
        ('half.txt.gz', ['half.txt.gz is not a whole gzip file']),
        ('hurt.txt.gz', ['hurt.txt.gz is not a whole gzip file']),
        ('plain.txt.gz', ['plain.txt.gz is not a whole gzip file']),
        ('bad.jsonl', ['bad.jsonl, line 3', '"text"']),
        ('field.jsonl', ['field.jsonl, line 3', '"text"']),
        ('list.jsonl', ['list.jsonl, line 3']),
        ('number.jsonl', ['number.jsonl, line 3']),
        ('kind.jsonl', ['kind.jsonl, line 3', 'is not text']),
        ('half.jsonl', ['half.jsonl, line 3', 'is not text']),
        ('eltec:', ['eltec:eng']),
        ('eltec:no_novels', ['no_novels holds no ELTeC novels']),
        ('eltec:not_xml', ['a.xml is not XML']),
        ('eltec:not_tei', ['a.xml is not TEI']),
        ('eltec:no such folder', ['no folder no such folder', 'eltec:eng']),
    ],
)
def test_bad_text_gets_one_sentence_and_leaves_nothing(prepare_py, here, source, words):
    write_bad_input(here)
    refused(prepare_py('--corpus=x', f'--source={source}'), *words)
    nothing_made(here)


@pytest.mark.parametrize(
    'argument, words',
    [
        ('--vocab_size=65536', ['vocab_size', '65,535']),
        ('--vocab_size=0', ['vocab_size']),
        ('--vocab_size=20000', ['20,000', 'at most', '--vocab_size=']),
        ('--vocab_size=50', ['at least', '--vocab_size=']),
        ('--test_fraction=0', ['test_fraction']),
        ('--test_fraction=1', ['test_fraction']),
        ('--max_bytes=-1', ['max_bytes']),
        ('--corpus=../x', ['plain name', '../x']),
        ('--corpus=', ['plain name']),
        ('--corpus=.x', ['plain name']),
        ('--test_fraction=0.9999999', ['lower --test_fraction']),
    ],
)
def test_a_bad_setting_gets_one_sentence_and_leaves_nothing(prepare_py, here, argument, words):
    write_bad_input(here)
    refused(prepare_py('--corpus=x', '--source=two', argument), *words)
    nothing_made(here)


def test_bad_text_far_behind_in_a_stream_gets_one_sentence_and_leaves_nothing(tmp_path):
    path = write_jsonl(tmp_path / 'text.jsonl', some_texts(100))
    path.write_text(path.read_text() + '{"text": 3}\n')
    done = tuned(
        tmp_path,
        '--corpus=x',
        f'--source={path}',
        '--vocab_size=300',
        BATCH_BYTES=1000,
        TOKENIZER_BYTES=9000,
    )
    refused(done, 'text.jsonl, line 101')
    nothing_made(tmp_path)


def test_a_full_disk_ends_with_one_sentence_and_leaves_nothing(tmp_path):
    text = write_documents(tmp_path / 'text', 80)

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    # writing slower than reading and encoding, so that all of it is under way when the disk is full
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
    done = tuned(
        tmp_path,
        '--corpus=x',
        f'--source={text}',
        '--vocab_size=300',
        before=small_disk,
        timeout=60,
        code=slow_disk,
        BATCH_BYTES=500,
    )
    refused(done, 'File too large')
    nothing_made(tmp_path)


# --- twice, killed, damaged -----------------------------------------------------------------------


def test_the_same_command_again_says_so_and_does_nothing(
    made_once, workplace, prepare_py, monkeypatch
):
    def files():
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in workplace.rglob('*')
            if path.is_file()
        }

    monkeypatch.chdir(workplace)
    before = files()
    done = prepare_py('--corpus=en', f'--source={made_once}/text_en', '--vocab_size=500')
    assert done.returncode == 0 and 'data/en is there already' in done.stdout, done.stderr
    assert files() == before and len(before) == 8


@pytest.mark.parametrize(
    'argument', ['--vocab_size=400', '--source=other', '--test_fraction=0.1', '--max_bytes=99']
)
def test_the_same_name_with_other_settings_is_refused(
    made_once, workplace, prepare_py, monkeypatch, argument
):
    monkeypatch.chdir(workplace)
    name = argument[2:].partition('=')[0]
    done = prepare_py('--corpus=en', f'--source={made_once}/text_en', '--vocab_size=500', argument)
    refused(
        done,
        'data/en was made with other settings',
        f'({name}=',
        'choose another --corpus or delete it',
    )
    Corpus('en')


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
    write_documents(tmp_path / 'text', 60, length=100)

    def call(at):
        for name in ('reached', 'hang_at'):
            (tmp_path / name).unlink(missing_ok=True)
        if at is not None:
            (tmp_path / 'hang_at').write_text(str(at))
        process = tuned(
            tmp_path,
            '--corpus=x',
            '--source=hf:a/b',
            '--vocab_size=300',
            path=tmp_path / 'fake',
            wait=False,
            BATCH_BYTES=1000,
            TOKENIZER_BYTES=9000,
        )
        deadline = time.monotonic() + 60
        while at is not None and not (tmp_path / 'reached').exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    return call


def test_a_killed_run_leaves_nothing_that_passes_for_a_corpus_and_the_next_succeeds(
    hanging, tmp_path
):
    for at in (5, 55):  # while it reads for the tokeniser, and while it encodes
        process = hanging(at)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert (tmp_path / 'data' / '.x.making' / 'tokenizer.model').exists() == (at == 55)
        with pytest.raises(ConfigError, match='there is no corpus .*x; make it with'):
            Corpus('x', tmp_path / 'data')
    process = hanging(None)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    texts = [path.read_text() for path in sorted((tmp_path / 'text').iterdir())]
    corpus = Corpus('x', tmp_path / 'data')
    assert sorted(documents_of(corpus, 'train') + documents_of(corpus, 'test')) == sorted(texts)
    assert os.listdir(tmp_path / 'data') == ['x']


def test_a_second_process_for_the_same_corpus_gets_one_sentence_and_the_first_loses_nothing(
    hanging, tmp_path
):
    first = hanging(5)
    try:
        (tmp_path / 'hang_at').unlink()
        again = tuned(tmp_path, '--corpus=x', f'--source={tmp_path}/text', '--vocab_size=300')
        refused(again, 'another process is making data/x')
        other = tuned(tmp_path, '--corpus=y', f'--source={tmp_path}/text', '--vocab_size=300')
        assert other.returncode == 0, other.stderr
        (tmp_path / 'go_on').touch()
        _, err = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 0, err
    assert sorted(os.listdir(tmp_path / 'data')) == ['x', 'y']
    assert len(os.listdir(tmp_path / 'data' / 'x')) == 4
    corpus = Corpus('x', tmp_path / 'data')
    assert len(documents_of(corpus, 'train')) + len(documents_of(corpus, 'test')) == 60


def test_an_interrupted_run_says_so_and_leaves_nothing(hanging, tmp_path):
    process = hanging(5)
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


def change_first(path):
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def change_last(path):
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


def change_json(**changes):
    def change(path):
        about = json.loads(path.read_text())
        path.write_text(
            json.dumps(
                {key: value for key, value in {**about, **changes}.items() if value is not None}
            )
        )

    return change


def other_corpus(name):
    def replace(path):
        other = path.parent.parent / 'fr' / name
        path.write_bytes(other.read_bytes())

    return replace


@pytest.mark.parametrize(
    'name, damage, words',
    [
        ('train.bin', cut, 'train.bin has .* bytes where .* belong'),
        ('test.bin', cut, 'test.bin has .* bytes'),
        ('train.bin', change_first, 'is not the shard'),
        ('train.bin', change_last, 'is not the shard'),
        ('test.bin', change_first, 'is not the shard'),
        ('test.bin', change_last, 'is not the shard'),
        ('train.bin', other_corpus('train.bin'), 'train.bin has .* bytes'),
        ('train.bin', Path.unlink, 'train.bin has 0 bytes'),
        (
            'tokenizer.model',
            other_corpus('tokenizer.model'),
            'tokenizer.model is not the tokeniser .*put it back',
        ),
        ('tokenizer.model', cut, 'tokenizer.model is not the tokeniser'),
        ('tokenizer.model', Path.unlink, 'is missing'),
        ('corpus.json', cut, 'corpus.json is damaged'),
        ('corpus.json', Path.unlink, 'corpus.json is missing'),
        ('corpus.json', change_json(train=None), 'corpus.json is damaged'),
        ('corpus.json', change_json(tokenizer=3), 'corpus.json is damaged'),
        ('corpus.json', change_json(test=dict(tokens='x')), 'corpus.json is damaged'),
    ],
    ids=lambda value: getattr(value, '__name__', None),
)
def test_a_damaged_corpus_is_refused_with_what_to_do(
    made_once, workplace, prepare_py, monkeypatch, name, damage, words
):
    monkeypatch.chdir(workplace)
    Corpus('en')
    damage(workplace / 'data' / 'en' / name)
    with pytest.raises(
        ConfigError, match=f'data/en.*{words}.*delete data/en|data/en/{words}.*delete data/en'
    ):
        Corpus('en')
    refused(
        prepare_py('--corpus=en', f'--source={made_once}/text_en', '--vocab_size=500'),
        name,
        'delete data/en',
    )


def test_a_shard_of_another_corpus_of_the_same_size_is_refused(workplace):
    folder = workplace / 'data' / 'en'
    size = (folder / 'train.bin').stat().st_size
    (folder / 'train.bin').write_bytes(
        (workplace / 'data' / 'fr' / 'train.bin').read_bytes()[:size]
    )
    assert (folder / 'train.bin').stat().st_size == size
    with pytest.raises(
        ConfigError, match='train.bin is not the shard that was written for this corpus.*delete'
    ):
        Corpus('en', workplace / 'data')


def test_a_corpus_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(
        ConfigError, match='no corpus .*nothing; make it with: python prepare.py --corpus=nothing'
    ):
        Corpus('nothing', tmp_path)
