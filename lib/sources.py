"""Where text comes from: a source is a stream of documents (str) in a fixed order.

FILE                      a text file, cut at line ends into pieces of about 16 KB; JSON lines or
                          Parquet, a document a row; tar or zip, whose files are read as a folder's
FOLDER                    all such files below it, by path; a .txt file is a document
FILE:FIELD, FOLDER:FIELD  rows have their text in FIELD instead of `text` or `complete_text`;
                          translation.en is the field `en` of the field `translation`
docs                      documentation strings of the packages that requirements.txt installs
eltec:eng, eltec:fra, ... 100 novels of the European Literary Text Collection, downloaded
eltec:FOLDER              a local copy of them (or its archive), or other TEI files (.xml)
hf:OWNER/DATASET[/CONFIGURATION][@REVISION][:FIELD]
                          the split `train`, streamed with Hugging Face `datasets`

Files may be compressed (.gz, .bz2, .xz, .zst). formats.py knows what a file is.
"""

import ast
import contextlib
import importlib.metadata
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path

from lib.configurator import ConfigError, require

from lib import formats
from lib.eltec import eltec
from lib.formats import in_words, intact, opened, optional, text_of
from lib.workers import in_order

REQUIREMENTS = Path(__file__).resolve().parent.parent / 'requirements.txt'
READ = r'\.(txt|jsonl|ndjson|json|parquet|zip|tar|t[gbx]z2?)(\.(gz|bz2|xz|zst))?'  # in a folder


def documents(source, notes=None):
    """Generator of the documents (str) of a source; '' for a null text.

    notes: dict that gets `left_out`, a Counter of what was not read, by kind, and the `revision` of
    a dataset. Raises ConfigError for what cannot be read."""
    notes = {} if notes is None else notes
    left_out = notes['left_out'] = Counter()
    kind, _, rest = source.partition(':')
    if source == 'docs':
        return docs()
    if kind == 'eltec':
        return eltec(rest, left_out)
    return hugging_face(rest, notes) if kind == 'hf' else files(source, left_out)


# --- files ----------------------------------------------------------------------------------------


def path_of(source):
    """The path of a source and the field that it names, or ''. Raises ConfigError."""
    path, _, field = source.rpartition(':')
    if os.path.exists(source) or not os.path.exists(path):
        path, field = source, ''
    others = 'other sources are docs, eltec:LANGUAGE, eltec:FOLDER (TEI) and hf:DATASET'
    require(os.path.exists(path), f'there is no file or folder {path!r}; {others}')
    return Path(path), field


def is_text_file(source):
    """Whether a source is a single text file, whose documents are pieces of one text."""
    if source.partition(':')[0] in ('docs', 'eltec', 'hf') or path_of(source)[0].is_dir():
        return False
    with open(path_of(source)[0], 'rb') as file:
        return opened(file, source)[0] == 'text'


def files(source, left_out):
    """Documents of a file or of a folder of files."""
    path, field = path_of(source)
    if path.is_dir():
        return _read_all(formats.folder(path), path, field, left_out)
    return _read(partial(open, path, 'rb'), path, field, left_out, formats.pieces)


def sentences(source):
    """The lines of a text file, or the texts of rows ('' for null): one side of parallel text."""
    if source.startswith('hf:'):
        return hugging_face(source.removeprefix('hf:'), dict(left_out=Counter()))
    path, field = path_of(source)
    return _read(partial(open, path, 'rb'), path, field, Counter(), formats.lines, archives=False)


def _read_all(found, place, field, left_out, archives=True):
    """Documents of the files of a folder or archive: (name, function that opens it or None)."""
    read = False
    for name, open_file in found:
        name = os.path.normpath(name)
        ending = re.search(r'(\.\w+(\.(gz|bz2|xz|zst))?)?$', name.lower())[0]
        hidden = re.search(r'(^|/)\.', name)
        if open_file and not hidden and re.fullmatch(READ, ending):
            read = True
            yield from _read(open_file, f'{place}/{name}', field, left_out, formats.whole, archives)
        else:
            kind = 'hidden' if hidden else ending or 'without ending'
            left_out[kind if open_file else 'links or devices'] += 1
    tei = f'; eltec:{place} reads TEI files' if left_out['.xml'] else ''
    reason = f'{place} holds no text, JSON lines, Parquet, tar or zip ({in_words(left_out)}){tei}'
    require(read, reason)


def _read(open_file, name, field, left_out, read_text, archives=True):
    """Documents of a file; read_text(file, name) gives those of a text."""
    with intact(name), open_file() as file:
        kind, file = opened(file, str(name))
        if kind == 'text':
            yield from read_text(file, name)
        elif kind in ('rows', 'parquet'):
            for place, row in formats.rows(file, kind, name):
                yield text_of(row, field, place, left_out)
        elif kind in ('zip', 'tar') and archives:
            yield from _read_all(formats.members(file, kind), name, field, left_out, archives=False)
        else:
            also = ', tar and zip' if archives else ', but no archive within an archive'
            raise ConfigError(f'{name} is {kind}; text, JSON lines, Parquet{also} are read')


# --- docs: prose that every installation has ------------------------------------------------------


def docs(requirements=REQUIREMENTS):
    """The documentation strings of the packages of a requirements file and of what they need.

    A module is a document. A paragraph is kept where it comes first, in the order of packages,
    paths and lines."""
    paths, seen = [], set()
    for package in sorted(_required(requirements)):
        modules = [f for f in importlib.metadata.files(package) or [] if f.suffix == '.py']
        paths += sorted(str(module.locate()) for module in modules)
    with contextlib.closing(in_order(_paragraphs, paths)) as modules:
        for paragraphs in modules:
            new = dict.fromkeys(text for text in paragraphs if text not in seen)
            seen.update(new)
            if new:
                yield '\n\n'.join(new) + '\n'


def _required(requirements):
    """Names of the installed packages that a file asks for, directly or through others."""
    asked, names = requirements.read_text().splitlines(), set()
    while asked:
        name = re.match(r'[\w.-]*', line := asked.pop())[0].lower().replace('_', '-')
        if name and name not in names and 'extra ==' not in line:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # other platforms
                asked += importlib.metadata.requires(name) or []
                names.add(name)
    return names


def _paragraphs(path):
    """The paragraphs of a module that are prose (list of str)."""
    try:
        module = ast.parse(Path(path).read_text(encoding='utf-8'))
    except (OSError, SyntaxError, ValueError):
        return []
    return [paragraph for text in _docstrings(module) for paragraph in _prose(text)]


def _docstrings(node):
    """Documentation strings of a module by line, also those given to add_docstr and its like."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        if text := ast.get_docstring(node, clean=False):
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
        mark_up = r'[-=~^*#+| \t.:]*|\.\. .*|:[a-z]+:'
        lines = [line for line in lines if not re.fullmatch(mark_up, line)]
        joined = re.sub(r':[\w:]+:`~?([^`<]*)[^`]*`', r'\1', ' '.join(lines))
        joined = re.sub(r'\s+', ' ', re.sub(r'[`*]+', '', joined)).strip()
        words = re.findall(r"\b[a-zA-Z][a-z']*\b", joined)
        if len(words) >= 6 and sum(map(len, words)) > 0.6 * len(joined):
            yield joined


# --- Hugging Face ---------------------------------------------------------------------------------


@contextlib.contextmanager
def hub(name, advice):
    """The module `datasets`, for the data set `name`; its failures become a ConfigError."""
    datasets = optional('datasets')
    try:
        yield datasets
    except ConfigError:
        raise
    except Exception as error:  # the library raises many kinds; to the user they are one
        reason = (str(error).splitlines() or ['no reason given'])[0][:200]
        reason = f'{type(error).__name__}: {reason}); check the name and the connection'
        raise ConfigError(f'the dataset {name} cannot be loaded ({reason}, or {advice}') from None


def hugging_face(name, notes):
    """Texts of the split `train` of a dataset, streamed; '' for null.

    name: OWNER/DATASET[/CONFIGURATION][@REVISION][:FIELD]. notes['revision'] becomes the commit
    that is read. Raises ConfigError."""
    parts = r'(\w[\w.-]*(?:/\w[\w.-]*)?)(?:/([^/@:]+))?(?:@([^:]+))?(?::(.+))?'
    found = re.fullmatch(parts, name)
    require(found, f'hf:{name} is no dataset of the hub; a folder is given as --source=FOLDER')
    repository, configuration, revision, field = found.groups()
    with hub(name, 'save it as .jsonl and give that file') as datasets:
        with contextlib.suppress(Exception):  # if the hub is out of reach, the next call says so
            revision = optional('huggingface_hub').dataset_info(repository, revision=revision).sha
        notes['revision'] = revision or 'unknown'
        options = dict(revision=revision, split='train', streaming=True)
        rows = datasets.load_dataset(repository, configuration, **options)
        for number, row in enumerate(rows, 1):
            place = f'hf:{name}, row {number:,}'
            yield text_of(row, field, place, notes['left_out'])
