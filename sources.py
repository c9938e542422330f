"""Where text comes from: every source is a stream of documents (str), read one at a time in a fixed order.

    FILE.txt            one text file, cut at line ends into documents of about 16 KB
    FILE.jsonl          one document a line, in its field `text`
    FOLDER              every .txt and .jsonl below it, by path; a .txt is a document
    docs                the documentation strings of the packages that requirements.txt installs
    eltec:eng, eltec:fra, ...   100 novels of the European Literary Text Collection, downloaded;
    eltec:FOLDER        or from a local copy (a folder with level1/*.xml)
    hf:OWNER/DATASET[/CONFIGURATION][:COLUMN]   streamed with Hugging Face `datasets`; a column of columns is
                        named with dots: hf:Helsinki-NLP/europarl/en-fr:translation.en

Files may also end in .gz.
"""
import ast
import gzip
import hashlib
import http.client
import importlib.metadata
import inspect
import itertools
import json
import multiprocessing
import os
import re
import tarfile
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

from configurator import ConfigError

PIECE = 16384  # characters: where one text file is cut into documents
ELTEC_URL = 'https://github.com/COST-ELTeC/ELTeC-{}/archive/HEAD.tar.gz'


def documents(source):
    """Generator of the documents (str) of a source, see above. Raises ConfigError for what cannot be read."""
    kind, _, rest = source.partition(':')
    if source == 'docs':
        return docs()
    if kind == 'eltec':
        return eltec(rest)
    if kind == 'hf':
        return hugging_face(rest)
    return files(source)


# --- text files -------------------------------------------------------------------------------------------------------

def files(path):
    """Documents of a text file, a .jsonl file or a folder of them."""
    path = Path(path)
    if path.is_dir():
        names = [p for p in sorted(path.rglob('*')) if re.search(r'\.(txt|jsonl)(\.gz)?$', p.name) and p.is_file()]
        if not names:
            raise ConfigError(f'{path} holds no .txt or .jsonl file (.gz allowed)')
        for name in names:
            yield from _jsonl(name) if '.jsonl' in name.suffixes else [''.join(text_lines(name))]
    elif not path.is_file():
        raise ConfigError(f'there is no file or folder {path}; other sources are docs, eltec:LANGUAGE and hf:DATASET')
    elif '.jsonl' in path.suffixes:
        yield from _jsonl(path)
    else:
        yield from _pieces(path)


def text_lines(path):
    """Lines of a UTF-8 file, a byte-order mark dropped, any line end read as \\n."""
    opener = gzip.open if path.suffix == '.gz' else open
    try:
        with opener(path, 'rt', encoding='utf-8-sig') as file:
            yield from file
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path} is not UTF-8 text ({error.reason}); convert it first, for example with iconv') from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigError(f'{path} is not a whole gzip file: {error}') from None


def _pieces(path):
    """A text file has no documents of its own: it is cut at the first line end after PIECE characters, and inside
    a longer line at a space."""
    piece, size = [], 0
    for line in text_lines(path):
        start = 0
        while len(line) - start > 4 * PIECE:
            cut = line.rfind(' ', start + 1, start + PIECE) + 1 or start + PIECE
            yield ''.join(piece) + line[start:cut]
            piece, size, start = [], 0, cut
        piece.append(line[start:])
        size += len(line) - start
        if size >= PIECE:
            yield ''.join(piece)
            piece, size = [], 0
    yield ''.join(piece)


def _jsonl(path):
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)['text']
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f'{path}, line {number}: not a JSON object with a field "text"') from None
        if not isinstance(text, str) or re.search('[\ud800-\udfff]', text):
            raise ConfigError(f'{path}, line {number}: the field "text" is not text')
        yield text


# --- docs: prose that every installation has --------------------------------------------------------------------------

def docs(requirements=Path(__file__).with_name('requirements.txt')):
    """The documentation strings of the installed packages of a requirements file and of what they need; a module is
    a document. A paragraph that came before is dropped, in the order of packages, paths and lines."""
    paths = []
    for name in sorted(_requirements(requirements)):
        distribution = importlib.metadata.distribution(name)
        paths += sorted(str(distribution.locate_file(f)) for f in distribution.files or [] if f.suffix == '.py')
    seen = set()
    # fork would carry the threads of a caller that has used torch
    with multiprocessing.get_context('spawn').Pool() as pool:
        for paragraphs in pool.imap(_module_paragraphs, paths, chunksize=16):
            fresh = []
            for paragraph in paragraphs:
                key = hashlib.blake2b(paragraph.encode(), digest_size=8).digest()
                if key not in seen:
                    seen.add(key)
                    fresh.append(paragraph)
            if fresh:
                yield '\n\n'.join(fresh) + '\n'


def _requirements(path):
    """Names of the installed distributions that a requirements file asks for, directly or through others."""
    todo = [line for line in path.read_text().splitlines() if line and not line.startswith('#')]
    names = set()
    while todo:
        requirement = todo.pop()
        name = re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')
        if name in names or 'extra ==' in requirement:
            continue
        try:
            todo += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        names.add(name)
    return names


def _module_paragraphs(path):
    try:
        with open(path, encoding='utf-8') as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return []
    return [p for text in _docstrings(tree) for p in _prose(inspect.cleandoc(text))]


def _docstrings(node):
    """Documentation strings of a module in the order of its lines, those passed to add_docstr and its like as well."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield text
    for child in getattr(node, 'body', []) if isinstance(getattr(node, 'body', []), list) else []:
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
            if 'doc' in ast.unparse(child.value.func):
                for part in ast.walk(child.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value) > 80:
                        yield part.value
        else:
            yield from _docstrings(child)


def _prose(text):
    """The paragraphs of a documentation string that are prose: no code, no tables, no mark-up."""
    for paragraph in re.split(r'\n[ \t]*\n', text):
        lines = [line.strip() for line in paragraph.splitlines()]
        if any(line.startswith(('>>>', '...', '$ ', '.. code', '.. math', '.. plot', '+--', '===')) for line in lines):
            continue
        lines = [line for line in lines if not re.fullmatch(r'[-=~^*#+| .:]*|\.\. .*|:[a-z]+:', line)]
        joined = re.sub(r':[\w:]+:`~?([^`<]*)[^`]*`', r'\1', ' '.join(lines))
        joined = re.sub(r'[`*]+', '', joined)
        joined = re.sub(r'\s+', ' ', joined).strip()
        words = re.findall(r"\b[a-zA-Z][a-z']*\b", joined)
        if len(words) >= 6 and sum(map(len, words)) > 0.6 * len(joined):
            yield joined


# --- ELTeC: TEI novels ------------------------------------------------------------------------------------------------

def eltec(where):
    """Novels of ELTeC: a language code (downloaded from GitHub) or the path of a local copy; level 1, the body."""
    if not where:
        raise ConfigError('eltec: needs a language or a folder, for example eltec:eng')
    if os.path.exists(where):
        names = sorted(itertools.chain(Path(where).glob('level1/*.xml'), Path(where).glob('*.xml')))
        if not names:
            raise ConfigError(f'{where} holds no ELTeC novels: there is no level1/*.xml in it')
        for name in names:
            yield _tei_body(name.read_bytes(), name)
        return
    if not re.fullmatch('[A-Za-z0-9-]+', where):
        raise ConfigError(f'there is no folder {where}; a language is written like eltec:eng')
    url = ELTEC_URL.format(where)
    try:
        with urllib.request.urlopen(url, timeout=60) as response, tarfile.open(fileobj=response, mode='r|gz') as archive:
            for member in archive:
                if re.search(r'/level1/[^/]*\.xml$', member.name):
                    yield _tei_body(archive.extractfile(member).read(), member.name)
    except (OSError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error) as error:
        raise ConfigError(f'{url} cannot be read ({error}); fetch the repository elsewhere and give its folder: '
                          f'--source=eltec:FOLDER') from None


def _tei_body(xml, name):
    """Text of the <body> of a TEI file: a paragraph, verse line or heading a line; notes are left out."""
    try:
        body = ElementTree.fromstring(xml).find('.//{*}text/{*}body')
    except ElementTree.ParseError as error:
        raise ConfigError(f'{name} is not XML: {error}') from None
    if body is None:
        raise ConfigError(f'{name} is not TEI: it has no <text><body>')
    lines = [[]]

    def walk(element, inside):  # inside: of a line
        tag = element.tag.rpartition('}')[2] if isinstance(element.tag, str) else 'note'  # a comment has no name
        if tag == 'note':
            return
        own = not inside or tag in ('p', 'l', 'head')
        if own:
            lines.append([])
        lines[-1].append(element.text or '')
        for child in element:
            walk(child, not own or tag not in ('body', 'div', 'quote', 'lg', 'floatingText'))
            lines[-1].append(child.tail or '')
        if own:
            lines.append([])

    walk(body, False)
    joined = (' '.join(''.join(line).split()) for line in lines)
    return '\n'.join(line for line in joined if line) + '\n'


# --- Hugging Face -----------------------------------------------------------------------------------------------------

def hugging_face(name):
    """Rows of the split `train` of a dataset, streamed. name: OWNER/DATASET[/CONFIGURATION][:COLUMN[.COLUMN]]."""
    name, _, column = name.partition(':')
    try:
        import datasets
    except ImportError:
        raise ConfigError('hf: sources need the package datasets: pip install datasets') from None
    try:
        repository = '/'.join(name.split('/')[:2])
        for row in datasets.load_dataset(repository, *name.split('/')[2:], split='train', streaming=True):
            column = column or next((c for c in ('text', 'complete_text') if c in row), '')
            for key in column.split('.'):
                if not isinstance(row, dict) or key not in row:
                    raise ConfigError(f'{name} has no column {column!r}; give one of '
                                      f'{sorted(row) if isinstance(row, dict) else key}: --source=hf:{name}:COLUMN')
                row = row[key]
            if not isinstance(row or '', str):
                raise ConfigError(f'the column {column!r} of {name} is not text; give another: --source=hf:{name}:COLUMN')
            yield row or ''
    except ConfigError:
        raise
    except Exception as error:  # the library raises many kinds; to the user they are one
        raise ConfigError(f'the dataset {name} cannot be streamed ({type(error).__name__}: '
                          f'{str(error).splitlines()[0] if str(error) else "no reason given"}); check the name and the '
                          'connection, or save it as .jsonl and give that file') from None
