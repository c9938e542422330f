"""Where text comes from: every kind of source, whole, damaged, or of a kind that is not read."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import re
import stat
import sys
import tarfile
import types
import zipfile
from functools import partial

from lib.configurator import ConfigError

import pytest
from conftest import invented_words, pseudo_text

from lib import formats, sources
from lib.sources import documents

TEXTS = [
    'One red kite.\nA line.',
    'Zwei \u2028 Zeilen\x85 é 字\n',
    'a \x0c form feed',
    '{"text": 3}',
]
ROWS = ''.join(json.dumps(dict(text=text, url='{}')) + '\n' for text in TEXTS).encode()
MEMBERS = [(f'd/{number}.TXT', text.encode()) for number, text in enumerate(TEXTS[:3])]
OTHERS = [('d/a.pdf', b'%PDF'), ('__MACOSX/._0.txt', b'\0\5'), ('d/README', b'x'), ('e.txt', b'')]
LINK, TWO_LINKS = {'links or devices': 1}, {'links or devices': 2}
OTHER_KINDS = {'.pdf': 1, 'hidden': 1, 'without ending': 1, **LINK}


def some_texts(count, length=60):
    words = invented_words(3)
    return [pseudo_text(words, length, random.Random(number)) for number in range(count)]


def tar(members, form=tarfile.PAX_FORMAT):
    """A tar file of (name, content), a folder before them and a link behind them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w', format=form) as archive:
        found = [('d', tarfile.DIRTYPE, b''), *((n, tarfile.REGTYPE, c) for n, c in members)]
        for name, kind, content in [*found, ('l.txt', tarfile.SYMTYPE, b'')]:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), 'd'
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zipped(members):
    file, link = io.BytesIO(), zipfile.ZipInfo('l.txt')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in [('d/', b''), *members, (link, b'd')]:
            archive.writestr(name, content)
    return file.getvalue()


def zstandard(content):
    name = 'compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd'
    return pytest.importorskip(name).compress(content)


COMPRESSIONS = dict(gz=gzip.compress, bz2=bz2.compress, xz=lzma.compress, zst=zstandard)


def parquet(*columns):
    """A Parquet file with a row group for every two rows. columns: (name, values)."""
    table, file = pytest.importorskip('pyarrow').table(dict(columns)), io.BytesIO()
    pytest.importorskip('pyarrow.parquet').write_table(table, file, row_group_size=2)
    return file.getvalue()


def read(tmp_path, name, content, field=''):
    """(documents, what was left out) of a file of this name."""
    (tmp_path / name).write_bytes(content() if callable(content) else content)
    notes = {}
    found = list(documents(str(tmp_path / name) + field, notes))
    return [text for text in found if text], dict(notes['left_out'])


@pytest.mark.parametrize(
    'name, content',
    {
        **{f'a.jsonl.{end}': partial(how, ROWS) for end, how in COMPRESSIONS.items()},
        'a.Json.GZ': gzip.compress(ROWS),
        'a.jsonl': ROWS,
        'a.NDJSON': b'\xef\xbb\xbf' + ROWS,
        'a.json': ROWS.replace(b'\n', b'\r\n'),
        'b.jsonl.zst': lambda: zstandard(ROWS[:50]) + zstandard(ROWS[50:]),
        'two parts.gz': gzip.compress(ROWS[:99]) + gzip.compress(ROWS[99:]) + bytes(99_999),
        'two layers.xz': lzma.compress(gzip.compress(ROWS)),
        'dump.txt': ROWS,
        'no name': b' \n' + ROWS,
        'blank lines.jsonl': ROWS.replace(b'\n', b'\n\r\n'),
        'a.parquet': lambda: parquet(('id', [1, 2, 3, 4]), ('text', TEXTS)),
        'a.parquet.gz': lambda: gzip.compress(parquet(('text', TEXTS))),
        'b': lambda: parquet(('complete_text', TEXTS)),
    }.items(),
)
def test_rows_are_documents_by_the_first_bytes_of_a_file(tmp_path, name, content):
    assert read(tmp_path, name, content) == (TEXTS, {})


ROWS_INSIDE = [('1.txt.gz', gzip.compress(b'one')), ('2.jsonl.xz', lzma.compress(ROWS))]
NAMES_INSIDE = [('/a/1.txt', b'one'), ('../2.txt', b'hidden'), ('./3.txt', b'three')]


@pytest.mark.parametrize(
    'name, content, texts, left_out',
    [
        ('a.tar', tar(MEMBERS + OTHERS), TEXTS[:3], OTHER_KINDS),
        ('b.tar', tar(MEMBERS + OTHERS, tarfile.USTAR_FORMAT), TEXTS[:3], OTHER_KINDS),
        ('c', tar(MEMBERS + OTHERS, tarfile.GNU_FORMAT), TEXTS[:3], OTHER_KINDS),
        ('a.TGZ', gzip.compress(tar(MEMBERS + OTHERS)), TEXTS[:3], OTHER_KINDS),
        ('a.tar.xz', lzma.compress(tar(MEMBERS + OTHERS)), TEXTS[:3], OTHER_KINDS),
        ('a.tar.zst', lambda: zstandard(tar(MEMBERS + OTHERS)), TEXTS[:3], OTHER_KINDS),
        ('a.zip', zipped(MEMBERS + OTHERS), TEXTS[:3], OTHER_KINDS),
        ('a.txt', zipped(MEMBERS + OTHERS), TEXTS[:3], OTHER_KINDS),
        ('d.tar', tar(ROWS_INSIDE), ['one', *TEXTS], LINK),
        ('a.zip.gz', gzip.compress(zipped(ROWS_INSIDE)), ['one', *TEXTS], LINK),
        ('e.tar', tar(NAMES_INSIDE), ['one', 'three'], LINK | {'hidden': 1}),
        ('f.tar', lambda: tar([('a.parquet', parquet(('text', TEXTS)))]), TEXTS, LINK),
        ('b.zip', lambda: zipped([('a.parquet', parquet(('text', TEXTS)))]), TEXTS, LINK),
        ('c.zip', zipped([('a.tgz', gzip.compress(tar(MEMBERS)))]), TEXTS[:3], TWO_LINKS),
        ('g.tar', tar([('a.zip', zipped(MEMBERS))]), TEXTS[:3], TWO_LINKS),
    ],
)
def test_archives_give_documents_and_count_the_rest(tmp_path, name, content, texts, left_out):
    assert read(tmp_path, name, content) == (texts, left_out)


def damaged(content, at=0.5):
    at = int(len(content) * at)
    return content[:at] + bytes(byte ^ 0x55 for byte in content[at : at + 9]) + content[at + 9 :]


LONG = [(f'{number}.txt', os.urandom(700).hex().encode()) for number in range(9)]
USTAR = tar(LONG, tarfile.USTAR_FORMAT)
BAD_FILES = {
    **{f'cut.{end}': lambda how=how: how(ROWS)[:-9] for end, how in COMPRESSIONS.items()},
    **{f'hurt.{end}': lambda how=how: damaged(how(ROWS)) for end, how in COMPRESSIONS.items()},
    'cut in text.tar': tar(LONG)[:6000],
    'cut in header.tar': USTAR[: 512 + 2048 * 3 + 700],
    'cut after text.tar': USTAR[: 512 + 2048 * 3],
    'hurt header.tar': damaged(USTAR, (512 + 2048 * 3 + 1) / 20480),
    'two in one.tar': tar(LONG) + tar(LONG),
    'cut.tgz': gzip.compress(tar(LONG))[:-4000],
    'cut.zip': zipped(LONG)[:-30],
    'hurt.zip': damaged(zipped(LONG), 0.2),
    'empty.zip': b'',
    'zeros.tar': bytes(10240),
    'cut.parquet': lambda: parquet(('text', TEXTS))[:-20],
    'empty.parquet': b'',
    'no text.zip': zipped([('word/document.xml', b'<?xml version="1.0"?><w/>')]),
    'cut within.tar': tar([('0.txt', b'text'), ('1.zip', zipped(MEMBERS)[:-30])]),
    'a.csv': b'text,url\nx,y\n',
    'a.TSV.gz': gzip.compress(b'text\turl\n'),
    'pretty.json': json.dumps([dict(text=text) for text in TEXTS], indent=1).encode(),
    'object.json': json.dumps(dict(a=TEXTS), indent=1).encode(),
    'list.json': json.dumps([dict(text=text) for text in TEXTS]).encode(),
    'novel.xml': b'<?xml version="1.0"?><TEI/>',
    'page.txt': b'\n<!DOCTYPE html><p>text</p>',
    'paper.txt': b'%PDF-1.7 text',
    'text.rtf': b'{\\rtf1 text}',
    'a.7z': b'7z\xbc\xaf\x27\x1c',
    'pointer.txt': b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n',
    'utf16.txt': 'Text.'.encode('utf-16'),
    'utf16 without mark.txt': 'Text.'.encode('utf-16-le'),
    'nul.txt': b'one\0two',
    'late nul, line 20001': b'one\n' * 20_000 + b'a\0b',
    'latin, line 3': 'a\nb\ncafé\n'.encode('latin-1'),
    'late latin, line 20001': b'many words\n' * 20_000 + b'caf\xe9',
    'half a character, line 2': 'a\né'.encode()[:-1],
    'surrogate, line 1': b'\xed\xa0\x80',
    'no json, line 3.jsonl': b'{"text": "a"}\n\n{"text": "x"\n{"text": "b"}',
    'deep, line 1.jsonl': b'{"text": ' + b'[' * 10_000,
    'no field, line 2.jsonl': b'{"text": "a"}\n{"txt": "x"}',
    'list, line 1.jsonl': b'["text"]',
    'number, line 1.jsonl': b'3',
    'kind, line 2.jsonl': b'{"text": "a"}\n{"text": 0}',
    'half surrogate, line 1.jsonl': b'{"text": "\\ud800"}',
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_a_bad_file_gets_one_sentence_with_its_name_and_line(tmp_path, name):
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, name, BAD_FILES[name])
    sentence = str(refusal.value)
    assert name.partition(', line')[0] in sentence and '\n' not in sentence
    line = name.partition(', line ')[2].partition('.')[0]
    assert not line or re.search(rf'line {line}\b', sentence.removeprefix(str(tmp_path / name)))


@pytest.mark.parametrize('source', ['a.zst', 'a.parquet', 'hf:a/b'])
def test_without_its_package_a_source_says_what_to_install(here, monkeypatch, source):
    for package in ('backports.zstd', 'compression.zstd', 'pyarrow.parquet', 'datasets'):
        monkeypatch.setitem(sys.modules, package, None)
    (here / 'a.zst').write_bytes(b'\x28\xb5\x2f\xfd')
    (here / 'a.parquet').write_bytes(b'PAR1')
    with pytest.raises(ConfigError, match=r'pip install (\w+\.zstd|pyarrow|datasets)'):
        list(documents(source))


def test_a_source_may_name_the_field_of_its_rows_and_null_is_counted(tmp_path):
    rows = [{'a.b': 'one', 'a': {'b': 'two', 'c': None}, 'text': 'three'}] * 2
    lines = ''.join(map('{}\n'.format, map(json.dumps, rows))).encode()
    for field, text in {':a.b': 'one', ':text': 'three', '': 'three'}.items():
        assert read(tmp_path, 'a.jsonl', lines, field) == ([text] * 2, {})
    assert list(documents(f'{tmp_path}:a.b')) == ['one'] * 2
    assert read(tmp_path, 'b.jsonl', lines, ':a.c') == ([], {'null texts': 2})
    for field in (':d', ':a', ':a.d', ':text.x'):
        with pytest.raises(ConfigError, match='b.jsonl, line 1.*' + field[1:]):
            read(tmp_path, 'b.jsonl', lines, field)
    assert read(tmp_path, 'a:b.txt', b'a colon in a name') == (['a colon in a name'], {})
    nested = partial(parquet, ('a', [dict(b='one'), dict(b=None), None]))
    assert read(tmp_path, 'a.parquet', nested, ':a.b') == (['one'], {'null texts': 2})


def test_a_folder_gives_all_its_files_by_path_and_counts_the_others(tmp_path):
    folder = tmp_path / 'folder'
    for name, content in {
        'b/1.txt': b'b1\n\nb1',
        'a.TXT': '\ufeffmark\r\nother line ends\rhere\x85'.encode(),
        'c.txt.gz': gzip.compress('c é'.encode()),
        'd.JSONL': b'{"text": "d1"}\n{"text": "d2\\r\\n"}',
        'e.tar': tar(MEMBERS[:1]),
        '../elsewhere/deep/9.txt': b'far',
        **dict.fromkeys(['x.xml', 'y.XML', 'z.csv.gz', 'README', 'b/v1.5.md'], b'no'),
        **dict.fromkeys(['.hidden.txt', '.git/x.txt'], b'no'),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    links = {'linked': '../elsewhere', 'again': 'b', 'b/loop': '..', 'gone.txt': 'nowhere'}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / 'pipe.txt')
    notes, mark = {}, 'mark\nother line ends\nhere\x85'
    texts = [mark, 'b1\n\nb1', 'c é', 'd1', 'd2\r\n', TEXTS[0], 'far']
    assert list(documents(str(folder), notes)) == texts
    others = {'.xml': 2, '.csv.gz': 1, 'without ending': 1, 'hidden': 2, '.md': 1}
    assert notes['left_out'] == others | {'links or devices': 3}
    assert '2 .xml' in formats.in_words(notes['left_out'])


@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_a_text_file_is_cut_into_documents_without_losing_a_character(tmp_path, suffix):
    usual = ''.join(some_texts(40, 600))
    text = usual + 'y' * 300_000 + ' ' + 'many words ' * 20_000 + '\n\nthe end'
    path = tmp_path / f'all.txt{suffix}'
    path.write_bytes(gzip.compress(text.encode()) if suffix else text.encode())
    parts = list(documents(str(path)))
    assert ''.join(parts) == text
    assert all(len(part) < 6 * formats.PIECE for part in parts) and len(parts) > 20
    for part in parts[:5]:
        assert formats.PIECE <= len(part) < 2 * formats.PIECE and part.endswith('\n')
    path.write_bytes(text.replace('\n', '\r').encode())  # as an old Mac ends lines
    assert list(documents(str(path))) == parts


def test_a_line_without_an_end_is_read_in_parts():
    file = io.BytesIO(b'x' * 10_000_000)
    pieces = formats.pieces(file, 'x')
    assert len(next(pieces)) == len(next(pieces)) == formats.PIECE and file.tell() < 1_000_000


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
  <div><div><p>Deep. Wonderful!</p></div></div><milestone/><trailer>The end</trailer>
 </div></body><back><div><p>nor that</p></div></back></text></TEI>"""
NOVEL_TEXT = """The Title
I. A Beginning
It was a wonderful day, she said & left.
The été began, and ended.
One line,
another line.
He sang
la la
and slept.
Deep. Wonderful!
The end
"""


def tei(text):
    return f'<TEI><text><body><p>{text}</p></body></text></TEI>'


PAGE_BREAKS = {
    'the red<pb/>kite rose': 'the red kite rose',
    'the red<lb/>kite, <cb/>rose': 'the red kite, rose',
    'won<pb break="no"/>derful': 'wonderful',
    'won\n  <lb break="no"/>\n derful': 'wonderful',
    'won<pb/>derful and Wonderful': 'wonderful and Wonderful',
    'won<pb/><milestone/>derful, wonderful': 'wonderful, wonderful',
    'to<pb/>day, to and day, today': 'to day, to and day, today',  # both parts are words
    'un<pb/>be<pb/>known': 'un be known',
    'He left.<pb/>She came': 'He left. She came',
    'the kite<pb/>“rose”<pb/>, it said': 'the kite “rose”, it said',
    'half-<pb/>day l’<pb/>an (<pb/>x': 'half-day l’an (x',
    'a <pb/>b<pb/> c': 'a b c',
}


def test_a_novel_has_a_line_for_each_paragraph_and_a_page_break_is_a_space_but_in_a_word(tmp_path):
    latin = NOVEL.replace('UTF-8', 'ISO-8859-1').encode('latin-1')
    novels = {latin: NOVEL_TEXT, NOVEL.encode(): NOVEL_TEXT}
    novels |= {tei(text).encode(): f'{line}\n' for text, line in PAGE_BREAKS.items()}
    for number, xml in enumerate(novels):
        (tmp_path / f'{number:02}.xml').write_bytes(xml)
    assert list(documents(f'eltec:{tmp_path}')) == list(novels.values())


def test_eltec_is_level_1_or_else_0_of_a_folder_archive_or_download(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, 'ELTEC', (tmp_path / 'ELTeC-').as_uri() + '{}.tar.gz')
    path = tmp_path / 'ELTeC-xyz.tar.gz'
    for names, read in (
        (('level0/A.xml', 'level1/B.xml', 'level1/C.xml'), ['level1/B.xml', 'level1/C.xml']),
        (('level1/B.xml', 'level0/A.xml'), ['level1/B.xml']),
        (('level0/A.xml', 'level0/B.XML'), ['level0/A.xml', 'level0/B.XML']),
    ):
        members = {name: tei(name) for name in names} | {f'{read[0][:6]}/no.xml': '<teiHeader/>'}
        folder = tmp_path / '-'.join(names).replace('/', '_')
        (folder / 'level1/dir.xml').mkdir(parents=True)
        (folder / 'level0').mkdir()
        for name, xml in members.items():
            (folder / name).write_text(xml)
        archived = [(f'R/{name}', xml.encode()) for name, xml in members.items()]
        path.write_bytes(gzip.compress(tar([*archived, ('R/README.md', b'x')])))
        for source in ('eltec:xyz', f'eltec:{path}', f'eltec:{folder}'):
            notes = {}
            assert list(documents(source, notes)) == [f'{name}\n' for name in read]
            assert 'no.xml' in formats.in_words(notes['left_out'])
    whole = path.read_bytes()
    (tmp_path / 'ELTeC-abc.tar.gz').write_bytes(whole[: len(whole) // 2])
    for language in ('abc', 'missing'):
        with pytest.raises(ConfigError, match=f'{language}.*--source=eltec:FOLDER'):
            list(documents(f'eltec:{language}'))


DOCUMENTED = '''"""This module is about zebras and where they may be found.

    >>> zebra()
    this is the output of the code and not prose at all

    ==== ====
    one  two of a table that is no prose either for sure
    ==== ====
    """
class Zebra:
    """An animal that has ``many`` stripes and :class:`runs <Run>`
    over the wide plains of its continent."""
    def f(self):
        """A paragraph that stands in two of the packages is read once."""
code = """int of_another_language_that_is_written_here(void) {"""
print("A text that is passed to a function which does not document anything, so it is left out")
'''


def test_docs_are_the_prose_of_the_required_packages_in_a_fixed_order_and_once(here, monkeypatch):
    first = '"""The first module of the package comes before the second one."""'
    again = 'def f():\n    """A paragraph that stands in two of the packages is read once."""'
    modules = dict(empty='"""Short."""', b=DOCUMENTED, a=first)
    packages = dict(zebrapkg=modules, apple_pkg=dict(one=again), unasked=dict(u=first.upper()))
    for name, modules in packages.items():
        (info := here / f'{name}-1.0.dist-info').mkdir()
        (here / name).mkdir()
        for module, text in modules.items():
            (here / name / f'{module}.py').write_text(f'{text}\nraise RuntimeError')
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
        files = 'gone.py', 'data.csv', *(f'{module}.py' for module in modules)
        (info / 'RECORD').write_text(''.join(f'{name}/{file},,\n' for file in files))
    monkeypatch.syspath_prepend(str(here))
    (here / 'requirements.txt').write_text('# a comment\nzebrapkg==1.0\napple-pkg>=1\n')
    assert list(sources.docs(here / 'requirements.txt')) == [
        'A paragraph that stands in two of the packages is read once.\n',
        'The first module of the package comes before the second one.\n',
        'This module is about zebras and where they may be found.\n\n'
        'An animal that has many stripes and runs over the wide plains of its continent.\n',
    ]


def fake_datasets(monkeypatch, rows, revision='c0ffee'):
    """The package `datasets` with one dataset, whose rows may end with an error."""

    def load_dataset(name, configuration, **options):
        options, pinned = [options.pop('split'), options.pop('streaming')], options
        assert options == ['train', True] and configuration in (None, 'en-fr')
        assert pinned == dict(revision=revision)
        if name == 'no/such':
            raise FileNotFoundError('it does not exist ' + 'x' * 2000 + '\nsecond line')
        for row in rows:
            if isinstance(row, Exception):
                raise row
            yield row

    def dataset_info(name, revision):
        return types.SimpleNamespace(sha=revision or 'c0ffee')

    hub = types.SimpleNamespace(dataset_info=dataset_info) if revision else None
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    monkeypatch.setitem(sys.modules, 'datasets', types.SimpleNamespace(load_dataset=load_dataset))


def test_hf_streams_a_column_of_a_configuration_of_one_revision(monkeypatch):
    rows = [dict(complete_text='one', other='x'), dict(complete_text=None, other='y')]
    for revision in ('c0ffee', None):
        notes, nulls = {}, {'null texts': 1}
        fake_datasets(monkeypatch, rows, revision)
        assert list(documents('hf:PleIAs/French-PD-Books', notes)) == ['one', '']
        assert notes == dict(revision=revision or 'unknown', left_out=nulls)
        assert list(documents('hf:PleIAs/French-PD-Books:other')) == ['x', 'y']
    rows = [dict(translation=dict(en='yes', fr='oui')), dict(translation=dict(en='no', fr='non'))]
    fake_datasets(monkeypatch, rows, 'abc123')
    assert list(documents('hf:a/b/en-fr@abc123:translation.en')) == ['yes', 'no']


OF_NO_KIND = ['missing.txt', 'tei:x', 'novels', 'a.jsonl:text:x']
BAD_NOVELS = ['', 'empty', 'not_xml', 'not_tei', 'no such folder', 'eng']
BAD_DATASETS = 'no/such /data/set ./set ../set a/b/c/d a/b:id a/b:a.x a/b:a.b.x a/b:a'.split()
BAD_SOURCES = [*OF_NO_KIND, 'empty', *(f'eltec:{name}' for name in BAD_NOVELS)]
BAD_SOURCES += [f'hf:{name}' for name in ['', *BAD_DATASETS]]


@pytest.mark.parametrize('source', BAD_SOURCES)
def test_a_source_without_text_gets_one_short_sentence(here, monkeypatch, source):
    monkeypatch.setattr(sources, 'ELTEC', 'http://127.0.0.1:9/ELTeC-{}')
    fake_datasets(monkeypatch, [dict(id=1, complete_text='one', a=dict(b='two'))])
    for name, xml in dict(novels='<TEI/>', not_xml='<TEI><text>', not_tei='<html>x</html>').items():
        (here / name).mkdir()
        (here / name / 'a.xml').write_text(xml)
    (here / 'empty').mkdir()
    with pytest.raises(ConfigError) as refusal:
        list(documents(source))
    sentence, name = str(refusal.value), source.removeprefix('eltec:').removeprefix('hf:')
    assert all(part in sentence for part in name.split(':'))
    assert '\n' not in sentence and len(sentence) < 500
    assert 'eltec:' in sentence or source not in OF_NO_KIND
