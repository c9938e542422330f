"""Where text comes from: a source is a stream of documents (str) in a fixed order.

FILE                      a text file, cut at line ends into pieces of about 16 KB; JSON lines or
                          Parquet, a document a row; tar or zip, whose files are read as a folder's
FOLDER                    all such files below it, by path; a .txt file is a document
FILE:FIELD, FOLDER:FIELD  rows have their text in FIELD instead of `text` or `complete_text`;
                          translation.en is the field `en` of the field `translation`
docs                      documentation strings of the packages in requirements.txt
eltec:eng, eltec:fra, ... 100 novels of the European Literary Text Collection, downloaded
eltec:FOLDER              a local copy of them (or its archive), or other TEI files (.xml)
hf:OWNER/DATASET[/CONFIGURATION][@REVISION][:FIELD]
                          the split `train`, streamed with Hugging Face `datasets`

Files may be compressed (.gz, .bz2, .xz, .zst). formats.py knows what a file is.
"""

import contextlib
import importlib.metadata
import io
import os
import re
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections import Counter
from functools import partial
from pathlib import Path

from lib.configurator import ConfigError, require

from lib import formats
from lib.formats import in_words, opened, optional, readable, text_of

REQUIREMENTS = Path(__file__).resolve().parent.parent / 'requirements.txt'
READ = r'\.(txt|jsonl|ndjson|json|parquet|zip|tar|t[gbx]z2?)(\.(gz|bz2|xz|zst))?'  # in a folder


def documents(source, notes=None, of_text=formats.pieces):
    """Generator of the documents (str) of a source; '' for a null text.

    notes: dict that gets `left_out`, a Counter of what was not read, by kind; `is_one_text` for
    pieces of a single text file; and the `revision` of a dataset. of_text: formats.pieces, or
    formats.lines for one side of parallel text. Raises ConfigError for what cannot be read."""
    notes = {} if notes is None else notes
    notes['left_out'] = Counter()
    kind, _, rest = source.partition(':')
    if source == 'docs':
        return docs()
    if kind == 'eltec':
        return eltec(rest, notes['left_out'])
    if kind == 'hf':
        return hugging_face(rest, notes)
    path, field = path_of(source)
    if path.is_dir() and of_text is not formats.lines:
        return _read_all(formats.folder(path), path, field, notes)
    return _read(partial(open, path, 'rb'), path, field, notes, of_text)


# --- files ----------------------------------------------------------------------------------------


def path_of(source):
    """The path of a source and the field that it names, or ''. Raises ConfigError."""
    path, _, field = source.rpartition(':')
    if os.path.exists(source) or not os.path.exists(path):
        path, field = source, ''
    others = 'other sources are docs, eltec:LANGUAGE, eltec:FOLDER (TEI) and hf:DATASET'
    require(os.path.exists(path), f'there is no file or folder {path!r}; {others}')
    return Path(path), field


def _read_all(found, place, field, notes):
    """Documents of the files of a folder or archive: (name, function that opens it or None)."""
    read, left_out = False, notes['left_out']
    for name, open_file in found:
        name = os.path.normpath(name)
        ending = re.search(r'(\.\w+(\.(gz|bz2|xz|zst))?)?$', name.lower())[0]
        hidden = re.search(r'(^|/)\.', name)
        if open_file and not hidden and re.fullmatch(READ, ending):
            read = True
            yield from _read(open_file, f'{place}/{name}', field, notes, formats.whole)
        else:
            kind = 'hidden' if hidden else ending or 'without ending'
            left_out[kind if open_file else 'links or devices'] += 1
    tei = f'; eltec:{place} reads TEI files' if left_out['.xml'] else ''
    reason = f'{place} holds no text, JSON lines, Parquet, tar or zip ({in_words(left_out)}){tei}'
    require(read, reason)


def _read(open_file, name, field, notes, of_text):
    with readable(name), open_file() as file:
        kind, file = opened(file, str(name))
        if kind == 'text':
            if of_text is formats.pieces:
                notes['is_one_text'] = True
            yield from of_text(file, name)
        elif kind in ('rows', 'parquet'):
            for place, row in formats.rows(file, kind, name):
                yield text_of(row, field, place, notes['left_out'])
        elif kind in ('zip', 'tar') and of_text is not formats.lines:
            yield from _read_all(formats.members(file, kind), name, field, notes)
        else:
            raise ConfigError(f'{name} is {kind}; text, JSON lines, Parquet, tar and zip are read')


# --- ELTeC: novels in TEI -------------------------------------------------------------------------

ELTEC = 'https://github.com/COST-ELTeC/ELTeC-{}/archive/HEAD.tar.gz'
BREAKS = 'pb', 'lb', 'cb', 'gb', 'milestone'  # elements that may stand between or within words
BLOCKS = 'body', 'div', 'quote', 'lg', 'floatingText'  # elements whose children are lines


def eltec(place, left_out):
    """Novels of a language of ELTeC (downloaded), a folder or an archive: the bodies of level 1, or
    of level 0 where there is no level 1. Raises ConfigError."""
    valid = os.path.exists(place) or re.fullmatch('[A-Za-z0-9-]+', place)
    require(valid, f'there is no {place!r}: eltec: takes a folder or a language, as in eltec:eng')
    found = False
    for name, xml in _novels(place if os.path.exists(place) else ELTEC.format(place)):
        if text := _body(xml, f'{place}, {name},'):
            found = True
            yield text
        else:
            left_out[f'{name} (no <text><body>)'] += 1
    reason = f'no *.xml, level1/*.xml or level0/*.xml; left out: {in_words(left_out)}'
    require(found, f'{place} holds no TEI novels: {reason}')


def _novels(place):
    """(name, XML) of the files of the level that is read."""
    level_1, level_0 = False, []
    with readable(place, 'fetch the repository and give its folder: --source=eltec:FOLDER'):
        for name, open_file in formats.folder(place) if os.path.isdir(place) else _archive(place):
            level = open_file and re.fullmatch(r'(.*\blevel([01])/)?[^/]*\.xml', name, re.I)
            if level and level[2] == '0':
                level_0.append((name, open_file().read()))
            elif level:
                level_1 = True
                yield name, open_file().read()
    yield from [] if level_1 else level_0


def _archive(place):
    """The files of an archive: a file or a URL."""
    if os.path.exists(place):
        file = open(place, 'rb')
    else:
        file = io.BufferedReader(urllib.request.urlopen(place, timeout=60))
    with file:
        kind, content = opened(file, place)
        require(kind in ('zip', 'tar'), f'{place} is {kind}, no folder or archive of TEI files')
        yield from formats.members(content, kind)


def _body(xml, name):
    """Text of the <body> of a TEI file, without notes: a paragraph, verse or heading a line; ''
    without a body. Raises ConfigError for what is not XML."""
    with readable(name):
        body = ElementTree.fromstring(xml).find('.//{*}text/{*}body')

    def text_of(element, inside_line):  # \0 ends a line, \x01 and \x02 are breaks
        # A comment has no name.
        tag = element.tag.rpartition('}')[2] if isinstance(element.tag, str) else 'note'
        if tag == 'note':
            return ''
        if tag in BREAKS and inside_line:
            return '\x02' if element.get('break') == 'no' else '\x01'
        own_line = not inside_line or tag in ('p', 'l', 'head')
        parts, in_line = [element.text or ''], not own_line or tag not in BLOCKS
        for child in element:
            parts += [text_of(child, in_line), child.tail or '']
        end = '\0' if own_line else ''
        return end + ''.join(parts) + end

    text = _without_breaks(text_of(body, False)) if body is not None else ''
    lines = [' '.join(line.split()) for line in text.split('\0')]
    return ''.join(f'{line}\n' for line in lines if line)


def _without_breaks(text):
    """A text with a space at each break (\\x01) that is not within a word: there the joined parts
    are a word of the text, and not both parts are. \\x02 is always within a word."""
    text = re.sub(r'[\s\x01]*\x02[\s\x01]*', '', text)
    words = set(re.findall(r'\w+', re.sub(r'\w*\x01+\w*', ' ', text).casefold()))

    def joined(match):
        parts = match[1].casefold(), match[2].casefold()
        is_word = ''.join(parts) in words and not words.issuperset(parts)
        return match[1] if is_word else f'{match[1]} '

    text = re.sub(r'(\w+)\x01+(?=(\w+))', joined, text)
    text = re.sub(r'(?<=[\w.,;:!?…»”)])\x01+(?=[\w«“„(])', ' ', text)
    return text.replace('\x01', '')


# --- docs: prose that every installation has ------------------------------------------------------


def docs(requirements=REQUIREMENTS):
    """The documentation strings (in three quotation marks) of packages in a requirements file, a
    document for each module. Of equal paragraphs the first is kept, by package and file."""
    seen, packages = set(), re.findall(r'^[\w.-]+', requirements.read_text(), re.M)
    with readable(requirements, 'install all of it: pip install -r requirements.txt'):
        files = [f for p in sorted(packages) for f in sorted(importlib.metadata.files(p) or [])]
        modules = [file.locate() for file in files if file.suffix == '.py']
    for module in filter(os.path.isfile, modules):
        code = Path(module).read_text(encoding='utf-8', errors='replace')
        texts = '\n\n'.join(re.findall('"""(.*?)"""', code, re.S))
        if new := dict.fromkeys(text for text in _prose(texts) if text not in seen):
            seen.update(new)
            yield '\n\n'.join(new) + '\n'


def _prose(text):
    """The paragraphs of a text that are prose: no code, no tables, no mark-up."""
    code = re.compile(r'^\s*(>>>|\.\.\.|\$ |\.\. (code|math|plot)|\+--|===)|[;{}]$', re.M)
    for paragraph in re.split(r'\n[ \t]*\n', text):
        if code.search(paragraph):
            continue
        joined = re.sub(r'^\s*([-=~^*#+| \t.:]*|\.\. .*|:[a-z]+:)$', '', paragraph, flags=re.M)
        joined = re.sub(r':[\w:]+:`~?([^`<]*)[^`]*`', r'\1', joined)
        joined = ' '.join(re.sub(r'[`*]+', '', joined).split())
        words = re.findall(r"\b[a-zA-Z][a-z']*\b", joined)
        if len(words) >= 6 and sum(map(len, words)) > 0.6 * len(joined):
            yield joined


# --- Hugging Face ---------------------------------------------------------------------------------


def hugging_face(name, notes):
    """Texts of the split `train` of a dataset, streamed; '' for null. notes['revision'] becomes the
    commit that is read. Raises ConfigError."""
    parts = r'(\w[\w.-]*(?:/\w[\w.-]*)?)(?:/([^/@:]+))?(?:@([^:]+))?(?::(.+))?'
    found = re.fullmatch(parts, name)
    require(found, f'hf:{name} is no dataset of the hub; a folder is given as --source=FOLDER')
    repository, configuration, revision, field = found.groups()
    datasets, advice = optional('datasets'), 'save it as .jsonl and give that file'
    with readable(f'the dataset {name}', f'check the name and the connection, or {advice}'):
        with contextlib.suppress(Exception):  # if the hub is out of reach, the next call says so
            revision = optional('huggingface_hub').dataset_info(repository, revision=revision).sha
        notes['revision'] = revision or 'unknown'
        options = dict(revision=revision, split='train', streaming=True)
        rows = datasets.load_dataset(repository, configuration, **options)
        for number, row in enumerate(rows, 1):
            place = f'hf:{name}, row {number:,}'
            yield text_of(row, field, place, notes['left_out'])
