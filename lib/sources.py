"""Where text comes from: a source is a stream of documents (str), one at a time in a fixed order.

FILE.txt                    one text file, cut at line ends into pieces of about 16 KB
FILE.jsonl                  a document a line, in its field `text`
FOLDER                      all .txt (a document each) and .jsonl files below it, by path
docs                        documentation strings of the packages that requirements.txt installs
eltec:eng, eltec:fra, ...   100 novels of the European Literary Text Collection, downloaded
eltec:FOLDER                a local copy of them (a folder with level1/*.xml)
hf:OWNER/DATASET[/CONFIGURATION][:COLUMN]
                            streamed with Hugging Face `datasets`; dots name a column of columns:
                            hf:Helsinki-NLP/europarl/en-fr:translation.en

Files may also end in .gz.
"""

import ast
import contextlib
import gzip
import http.client
import importlib.metadata
import inspect
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

from lib.configurator import ConfigError

from tqdm import tqdm

REQUIREMENTS = Path(__file__).resolve().parent.parent / 'requirements.txt'
PIECE = 16384  # characters: where one text file is cut
ELTEC_URL = 'https://github.com/COST-ELTeC/ELTeC-{}/archive/HEAD.tar.gz'


def documents(source):
    """Generator of the documents (str) of a source. Raises ConfigError for what cannot be read."""
    kind, _, rest = source.partition(':')
    if source == 'docs':
        return docs()
    readers = dict(eltec=eltec, hf=hugging_face)
    return readers[kind](rest) if kind in readers else files(Path(source))


# --- text files -----------------------------------------------------------------------------------


def is_text_file(source):
    """Whether a source is a single text file, whose documents are pieces of one text."""
    path = Path(source)
    return source != 'docs' and path.is_file() and '.jsonl' not in path.suffixes


def paths_of(path):
    """The files that a text file, a .jsonl file or a folder of them stands for, in order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        others = 'other sources are docs, eltec:LANGUAGE and hf:DATASET'
        raise ConfigError(f'there is no file or folder {path}; {others}')
    paths = [name for name in sorted(path.rglob('*')) if name.is_file()]
    paths = [name for name in paths if re.search(r'\.(txt|jsonl)(\.gz)?$', name.name)]
    if not paths:
        raise ConfigError(f'{path} holds no .txt or .jsonl file (.gz allowed)')
    return paths


def file_bytes(source):
    """Bytes of a source's files, which are at least those of its text; None where not known."""
    if source.partition(':')[0] in ('docs', 'eltec', 'hf'):
        return None
    paths = paths_of(Path(source))
    packed = any(path.suffix == '.gz' for path in paths)
    return None if packed else sum(path.stat().st_size for path in paths)


def files(path):
    """Documents of a text file, a .jsonl file or a folder of them."""
    for name in paths_of(path):
        if not is_text_file(name):
            yield from _jsonl(name)
        elif name == path:
            yield from _pieces(path)
        else:
            yield ''.join(text_lines(name))


def text_lines(path):
    """Lines of a UTF-8 file, without a byte-order mark; any line end is read as \\n."""
    opener = gzip.open if path.suffix == '.gz' else open
    try:
        with opener(path, 'rt', encoding='utf-8-sig') as file:
            yield from file
    except UnicodeDecodeError as error:
        advice = 'convert it first, for example with iconv'
        raise ConfigError(f'{path} is not UTF-8 text ({error.reason}); {advice}') from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigError(f'{path} is not a whole gzip file: {error}') from None


def _pieces(path):
    """Cuts a text file at the first line end after PIECE characters; a longer line at a space."""
    piece = ''
    for line in text_lines(path):
        start = 0
        while len(line) - start > 4 * PIECE:
            cut = line.rfind(' ', start + 1, start + PIECE) + 1 or start + PIECE
            yield piece + line[start:cut]
            piece, start = '', cut
        piece += line[start:]
        if len(piece) >= PIECE:
            yield piece
            piece = ''
    yield piece


def is_text(value):
    """Whether a value of JSON is text that can be written as UTF-8."""
    return isinstance(value, str) and not re.search('[\ud800-\udfff]', value)


def _jsonl(path):
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        place = f'{path}, line {number}'
        try:
            text = json.loads(line)['text']
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f'{place}: not a JSON object with a field "text"') from None
        if not is_text(text):
            raise ConfigError(f'{place}: the field "text" is not text')
        yield text


# --- docs: prose that every installation has ------------------------------------------------------


def docs(requirements=REQUIREMENTS):
    """The documentation strings of the packages of a requirements file and of what they need.

    A module is a document. A paragraph is kept where it comes first, in the order of packages,
    paths and lines."""
    paths, seen = [], set()
    for name in sorted(_distributions(requirements)):
        package = importlib.metadata.distribution(name)
        modules = [file for file in package.files or [] if file.suffix == '.py']
        paths += sorted(str(package.locate_file(file)) for file in modules)
    # A fork would carry the threads of a caller that has used torch.
    with multiprocessing.get_context('spawn').Pool() as pool:
        modules = pool.imap(_module_paragraphs, paths, chunksize=16)
        for paragraphs in tqdm(modules, desc='reading', total=len(paths), unit=' modules'):
            new = dict.fromkeys(text for text in paragraphs if text not in seen)
            seen.update(new)
            if new:
                yield '\n\n'.join(new) + '\n'


def _distributions(requirements):
    """Names of the installed packages that a file asks for, directly or through others."""
    lines = requirements.read_text().splitlines()
    asked, names = [line for line in lines if line and not line.startswith('#')], set()
    while asked:
        requirement = asked.pop()
        name = re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')
        if name in names or 'extra ==' in requirement:
            continue
        try:
            asked += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        names.add(name)
    return names


def _module_paragraphs(path):
    try:
        tree = ast.parse(Path(path).read_text(encoding='utf-8'))
    except (OSError, SyntaxError, ValueError):
        return []
    texts = map(inspect.cleandoc, _docstrings(tree))
    return [paragraph for text in texts for paragraph in _prose(text)]


def _docstrings(node):
    """Documentation strings of a module by line, also those given to add_docstr and its like."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield text
    for child in getattr(node, 'body', []):
        call = child.value if isinstance(child, ast.Expr) else None
        if not isinstance(call, ast.Call):
            yield from _docstrings(child)
        elif 'doc' in ast.unparse(call.func):
            constants = [part.value for part in ast.walk(call) if isinstance(part, ast.Constant)]
            yield from (text for text in constants if isinstance(text, str) and len(text) > 80)


def _prose(text):
    """The paragraphs of a documentation string that are prose: no code, no tables, no mark-up."""
    code = ('>>>', '...', '$ ', '.. code', '.. math', '.. plot', '+--', '===')
    for paragraph in re.split(r'\n[ \t]*\n', text):
        lines = [line.strip() for line in paragraph.splitlines()]
        if any(line.startswith(code) for line in lines):
            continue
        mark_up = r'[-=~^*#+| .:]*|\.\. .*|:[a-z]+:'
        lines = [line for line in lines if not re.fullmatch(mark_up, line)]
        joined = re.sub(r':[\w:]+:`~?([^`<]*)[^`]*`', r'\1', ' '.join(lines))
        joined = re.sub(r'\s+', ' ', re.sub(r'[`*]+', '', joined)).strip()
        words = re.findall(r"\b[a-zA-Z][a-z']*\b", joined)
        if len(words) >= 6 and sum(map(len, words)) > 0.6 * len(joined):
            yield joined


# --- ELTeC: TEI novels ----------------------------------------------------------------------------


def eltec(place):
    """Novels of ELTeC, the body of level 1. place: a language (downloaded) or a local copy."""
    if not place:
        raise ConfigError('eltec: needs a language or a folder, for example eltec:eng')
    if os.path.exists(place):
        copies = [*Path(place).glob('level1/*.xml'), *Path(place).glob('*.xml')]
        novels = sorted(path for path in copies if path.is_file())
        if not novels:
            raise ConfigError(f'{place} holds no ELTeC novels: there is no level1/*.xml in it')
        yield from (_tei_body(path.read_bytes(), path) for path in novels)
        return
    if not re.fullmatch('[A-Za-z0-9-]+', place):
        raise ConfigError(f'there is no folder {place}; a language is written like eltec:eng')
    url = ELTEC_URL.format(place)
    broken = (OSError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)
    try:
        with (
            urllib.request.urlopen(url, timeout=60) as response,
            tarfile.open(fileobj=response, mode='r|gz') as archive,
        ):
            for member in archive:
                if re.search(r'/level1/[^/]*\.xml$', member.name) and member.isfile():
                    yield _tei_body(archive.extractfile(member).read(), member.name)
    except broken as error:
        advice = 'fetch the repository elsewhere and give its folder: --source=eltec:FOLDER'
        raise ConfigError(f'{url} cannot be read ({error}); {advice}') from None


def _tei_body(xml, name):
    """Text of the <body> of a TEI file, without notes: a paragraph, verse or heading a line."""
    try:
        body = ElementTree.fromstring(xml).find('.//{*}text/{*}body')
    except ElementTree.ParseError as error:
        raise ConfigError(f'{name} is not XML: {error}') from None
    if body is None:
        raise ConfigError(f'{name} is not TEI: it has no <text><body>')

    def text_of(element, inside_line):  # with \0, which XML cannot hold, at the ends of lines
        # A comment has no name.
        tag = element.tag.rpartition('}')[2] if isinstance(element.tag, str) else 'note'
        if tag == 'note':
            return ''
        own_line = not inside_line or tag in ('p', 'l', 'head')
        holds_lines = own_line and tag in ('body', 'div', 'quote', 'lg', 'floatingText')
        parts = [element.text or '']
        for child in element:
            parts += [text_of(child, not holds_lines), child.tail or '']
        text = ''.join(parts)
        return f'\0{text}\0' if own_line else text

    lines = [' '.join(line.split()) for line in text_of(body, False).split('\0')]
    return '\n'.join(line for line in lines if line) + '\n'


# --- Hugging Face ---------------------------------------------------------------------------------


@contextlib.contextmanager
def hub(name, advice):
    """The module `datasets`, for the data set `name`; its failures become a ConfigError."""
    try:
        import datasets
    except ImportError:
        raise ConfigError('hf: sources need the package datasets: pip install datasets') from None
    try:
        yield datasets
    except ConfigError:
        raise
    except Exception as error:  # the library raises many kinds; to the user they are one
        lines = str(error).splitlines() or ['no reason given']
        reason = f'{type(error).__name__}: {lines[0]}); check the name and the connection'
        raise ConfigError(f'the dataset {name} cannot be loaded ({reason}, or {advice}') from None


def hugging_face(name):
    """Texts of the split `train` of a dataset, streamed; '' where a row has none.

    name: OWNER/DATASET[/CONFIGURATION][:COLUMN[.COLUMN]]; without a column it is `text` or
    `complete_text`."""
    name, _, column = name.partition(':')
    owner, *rest = name.split('/')
    with hub(name, 'save it as .jsonl and give that file') as datasets:
        repository = '/'.join([owner, *rest[:1]])
        rows = datasets.load_dataset(repository, *rest[1:], split='train', streaming=True)
        for row in rows:
            column = column or next((c for c in ('text', 'complete_text') if c in row), '')
            text = row
            for key in column.split('.'):
                names = sorted(text) if isinstance(text, dict) else []
                if key not in names:
                    advice = f'{", ".join(names) or "none below"}: --source=hf:{name}:COLUMN'
                    raise ConfigError(f'{name} has no column {column!r}; there is {advice}')
                text = text[key]
            if not isinstance(text or '', str):
                advice = 'name another behind a colon'
                raise ConfigError(f'{name}: column {column!r} is not text; {advice}')
            yield text or ''
