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
import functools
import importlib.metadata
import inspect
import itertools
import os
import re
from collections import Counter
from pathlib import Path

from lib.configurator import ConfigError, require

from tqdm import tqdm

from lib.eltec import eltec
from lib.formats import in_words, intact, lines, members, opened, pieces, rows, text_of, whole
from lib.workers import in_order

REQUIREMENTS = Path(__file__).resolve().parent.parent / 'requirements.txt'
READ = r'\.(txt|jsonl|ndjson|json|parquet|zip|tar|t[gbx]z2?)(\.(gz|bz2|xz|zst))?$'  # in a folder
PACKED = r'\.(gz|bz2|xz|zst|zip|t[gbx]z2?|parquet)$'  # files that may hold more text than bytes


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


def file_bytes(source):
    """Bytes of a source's files, which are at least those of its text; None where not known."""
    if source.partition(':')[0] in ('docs', 'eltec', 'hf'):
        return None
    paths = paths_of(path_of(source)[0], Counter())
    packed = any(re.search(PACKED, path.name, re.I) for path in paths)
    return None if packed else sum(path.stat().st_size for path in paths)


def is_read(path, left_out, folder=None):
    """Whether a file of a folder or an archive is read, by its name; if not, it is counted."""
    name = str(path.relative_to(folder) if folder else Path(path)).lower()
    kind = re.search(r'(\.\w+(\.(gz|bz2|xz|zst))?)?$', name)[0] or 'without ending'
    kind = 'hidden' if re.search(r'(^|/)\.', name) else kind
    read = kind != 'hidden' and re.search(READ, name)
    left_out.update([] if read else [kind])
    return bool(read)


def paths_of(path, left_out):
    """The files of a folder that are read, by path; linked folders are read, too, each once."""
    if path.is_file():
        return [path]
    waiting, seen, paths = [path], set(), []
    for start in waiting:
        for folder, inner, names in os.walk(start, onerror=functools.partial(require, False)):
            if os.path.realpath(folder) in seen:
                inner.clear()
                continue
            seen.add(os.path.realpath(folder))
            waiting += sorted(p for p in (Path(folder, name) for name in inner) if p.is_symlink())
            paths += [Path(folder, name) for name in names]
    broken = [name for name in paths if not name.is_file()]
    left_out.update(['broken links'] * len(broken))
    paths = [name for name in sorted({*paths} - {*broken}) if is_read(name, left_out, path)]
    require(paths, no_text(path, left_out))
    return paths


def no_text(path, left_out):
    tei = f'; eltec:{path} reads TEI files' if left_out['.xml'] else ''
    return f'{path} holds no text, JSON lines, Parquet, tar or zip ({in_words(left_out)}){tei}'


def files(source, left_out):
    """Documents of a file or of a folder of files."""
    path, field = path_of(source)
    for name in paths_of(path, left_out):
        read_text = pieces if name == path else whole
        with intact(name), open(name, 'rb') as file:
            yield from _read(file, str(name), field, left_out, read_text)


def sentences(source):
    """The lines of a text file, or the texts of rows ('' for null): one side of parallel text."""
    if source.startswith('hf:'):
        yield from hugging_face(source.removeprefix('hf:'), {})
        return
    path, field = path_of(source)
    with intact(path), open(path, 'rb') as file:
        yield from _read(file, str(path), field, Counter(), lines, nested=True)


def _read(file, name, field, left_out, read_text, nested=False):
    """Documents of a binary file; read_text(file, name) gives those of a text."""
    kind, file = opened(file, name)
    if kind == 'text':
        yield from read_text(file, name)
    elif kind in ('rows', 'parquet'):
        for place, row in rows(file, kind, name, field):
            yield text_of(row, field, place, left_out)
    elif kind in ('zip', 'tar'):
        require(not nested, f'{name} is an archive ({kind}); unpack it first')
        found = False
        for member, open_member in members(file, kind):
            if not open_member:
                left_out['links'] += 1
            elif is_read(member, left_out):
                found = True
                inner = f'{name}: {member}'
                yield from _read(open_member(), inner, field, left_out, whole, nested=True)
        require(found, no_text(name, left_out))
    else:
        raise ConfigError(f'{name} is {kind}; text, JSON lines, Parquet, tar and zip are read')


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
    batches = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    with (
        contextlib.closing(in_order(_module_paragraphs, batches)) as modules,
        tqdm(desc='reading', total=len(paths), unit=' modules') as progress,
    ):
        for paragraphs in itertools.chain.from_iterable(modules):
            progress.update()
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


def _module_paragraphs(paths):
    """The paragraphs of each module: list of lists of text."""
    found = []
    for path in paths:
        texts = []
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            texts = _docstrings(ast.parse(Path(path).read_text(encoding='utf-8')))
        found.append([part for text in texts for part in _prose(inspect.cleandoc(text))])
    return found


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
        reason = f'{type(error).__name__}: {lines[0][:200]}); check the name and the connection'
        raise ConfigError(f'the dataset {name} cannot be loaded ({reason}, or {advice}') from None


def hugging_face(name, notes):
    """Texts of the split `train` of a dataset, streamed; '' for null.

    name: OWNER/DATASET[/CONFIGURATION][@REVISION][:FIELD]. notes['revision'] becomes the commit
    that is read. Raises ConfigError."""
    name, _, field = name.partition(':')
    name, _, revision = name.partition('@')
    is_name = re.fullmatch(r'\w[\w.-]*(/\w[\w.-]*(/[^/]+)?)?', name)
    require(is_name, f'hf:{name} is no dataset of the hub; a folder is given as --source=FOLDER')
    owner, *rest = name.split('/')
    repository, left_out = '/'.join([owner, *rest[:1]]), notes.setdefault('left_out', Counter())
    with hub(name, 'save it as .jsonl and give that file') as datasets:
        with contextlib.suppress(Exception):  # if the hub is out of reach, the next call says so
            import huggingface_hub

            revision = huggingface_hub.dataset_info(repository, revision=revision or None).sha
        notes['revision'] = revision or 'unknown'
        pinned = dict(revision=revision) if revision else {}
        loaded = datasets.load_dataset(
            repository, *rest[1:], split='train', streaming=True, **pinned
        )
        for number, row in enumerate(loaded, 1):
            yield text_of(row, field, f'hf:{name}, row {number:,}', left_out)
