"""What a file is, by its first bytes, else by its name, and its content: lines, rows, members."""

import bz2
import contextlib
import gzip
import importlib
import io
import json
import lzma
import os
import re
import stat
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

from lib.configurator import ConfigError, require

CHUNK = 1 << 16  # bytes that are read at once
PIECE = 16384  # characters: where a text file is cut
FIELDS = 'text', 'complete_text'  # of a row, unless a source names another
COMPRESSED = r'\.(gz|bz2|xz|zst)$'
MARK = rb'(\xef\xbb\xbf)?\s*'  # a byte-order mark
XML = 'XML or HTML (eltec:FOLDER reads TEI)'
KINDS = {  # what a file begins with, and what it is then
    rb'\x1f\x8b': 'gzip',
    rb'BZh[1-9](1AY&SY|\x17rE8P\x90)': 'bzip2',
    rb'\xfd7zXZ\0': 'xz',
    rb'\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18': 'zstandard',
    rb'PK(\x03\x04|\x05\x06)': 'zip',
    rb'(?s:.{257})ustar': 'tar',
    rb'PAR1': 'parquet',
    rb'%PDF|%!PS|\{\\rtf': 'a PDF, PostScript or RTF file (save it as text)',
    rb'7z\xbc\xaf|Rar!': 'a 7-Zip or RAR archive (unpack it)',
    rb'version https://git-lfs': 'a pointer of Git LFS (git lfs pull fetches the file)',
    rb'\xff\xfe<\0|\xfe\xff\0<|%s(?i:<(\?xml|!doctype|html|tei|tmx)\b)' % MARK: XML,
    rb'\xff\xfe|\xfe\xff': 'UTF-16 text (convert it: iconv -f UTF-16 -t UTF-8)',
    rb'%s\{[ \t]*"' % MARK: 'rows',
    rb'%s(\{\s*"|\[\s*\{)' % MARK: 'JSON, but not one object a line (jq -c .[] converts a list)',
    rb'(?s:.*?)\0': 'binary, or in UTF-16 (iconv converts it)',
}
TABLE = 'a table (convert it to JSON lines)'
NAMES = dict.fromkeys(('.jsonl', '.ndjson', '.json'), 'rows') | {'.csv': TABLE, '.tsv': TABLE}
NAMES |= dict.fromkeys(('.zip', '.tar', '.tgz', '.parquet'), 'damaged or has a wrong name')


# --- what a file is -------------------------------------------------------------------------------


def kind_of(head, name):
    """What a file is: its first bytes decide, then its name."""
    by_name = NAMES.get(Path(re.sub(COMPRESSED, '', name.lower())).suffix, 'text')
    return next((kind for begin, kind in KINDS.items() if re.match(begin, head)), by_name)


def opened(file, name):
    """(kind, file without compression) of a buffered binary file."""
    while (kind := kind_of(file.peek(CHUNK), name)) in DECODERS:
        file = io.BufferedReader(DECODERS[kind](file), CHUNK)
    if kind in ('zip', 'parquet') and not isinstance(getattr(file, 'raw', None), io.FileIO):
        file = io.BytesIO(file.read())  # their libraries move about in the file
    return kind, file


def optional(package, what='this source'):
    """A package that only `what` needs. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        name = package.removesuffix('.parquet')
        raise ConfigError(f'{what} needs the package {name}: pip install {name}') from None


def _zstandard(file):
    zstd = optional('compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd')
    return zstd.open(file, options={zstd.DecompressionParameter.window_log_max: 31})


DECODERS = dict(gzip=gzip.open, bzip2=bz2.open, xz=lzma.open, zstandard=_zstandard)


@contextlib.contextmanager
def readable(name, advice='is it damaged, cut short or encrypted?'):
    """What the libraries that read `name` raise becomes a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # of many kinds; to the user they are one
        reason = (str(error).splitlines() or ['no reason given'])[0][:200]
        reason = f'{type(error).__name__}: {reason}'
        raise ConfigError(f'{name} cannot be read ({reason}); {advice}') from None


# --- the files of a folder or archive: (name, function that opens it, None where it is no file) ---


def folder(path):
    """The files below a folder, by path. Linked folders are read, too, each once."""
    paths, seen = [], set()
    for place, inner, names in os.walk(path, onerror=partial(require, False), followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            inner.clear()
        else:
            seen.add(real)
            inner.sort()
            paths += [Path(place, name) for name in names]
    for file in sorted(paths):
        yield str(file.relative_to(path)), partial(open, file, 'rb') if file.is_file() else None


def members(file, kind):
    """The files of a zip or tar archive."""
    if kind == 'zip':
        archive = zipfile.ZipFile(file)
        for member in archive.infolist():
            is_link = stat.S_ISLNK(member.external_attr >> 16)
            if not member.is_dir():
                yield member.filename, None if is_link else partial(archive.open, member)
        return
    archive = tarfile.open(fileobj=file, mode='r|')
    archive.fileobj.seekable = lambda: False  # as its members are asked
    while member := archive.next():
        archive.members.clear()  # it would keep all of them
        if not member.isdir():
            content = partial(archive.extractfile, member)
            yield member.name, content if member.isfile() else None
    # A damaged header ends the archive, too; a whole one ends with zeros.
    end = [any(block) for block in iter(partial(archive.fileobj.read, CHUNK), b'')]
    if any(end) or not end:
        raise tarfile.ReadError('it has no end')


def in_words(left_out):
    """How much was left out, by kind."""
    return ', '.join(f'{number:,} {kind}' for kind, number in sorted(left_out.items())) or 'nothing'


# --- text and rows --------------------------------------------------------------------------------


def is_text(value):
    """Whether a value is text that can be written as UTF-8."""
    return isinstance(value, str) and value.encode(errors='ignore').decode() == value


def lines(file, name, newline='\n'):
    """Lines (str) of a UTF-8 file, without a byte-order mark. Raises ConfigError with the line.

    With newline=None a carriage return ends a line, too, all ends are read as \\n, and long lines
    come in parts."""
    text = io.TextIOWrapper(file, 'utf-8-sig', 'surrogateescape', newline)
    number, most = 1, -1 if newline else CHUNK
    for line in iter(partial(text.readline, most), ''):
        if '\0' in line or not is_text(line):
            reason = 'a NUL byte' if '\0' in line else 'not UTF-8 (iconv converts other encodings)'
            raise ConfigError(f'{name}, line {number}, is no text: {reason}')
        yield line
        number += line.endswith('\n')


def whole(file, name):
    """A text as one document."""
    yield ''.join(lines(file, name, None))


def pieces(file, name):
    """A text cut at the first line end after PIECE characters; a long line is cut at a space."""
    text = ''
    for part in lines(file, name, None):
        text += part
        while len(text) > 5 * PIECE:
            cut = text.rfind(' ', 1, PIECE) + 1 or PIECE
            yield text[:cut]
            text = text[cut:]
        if len(text) >= PIECE and text.endswith('\n'):
            yield text
            text = ''
    yield text


def rows(file, kind, name):
    """(place, row) of JSON lines or Parquet. Raises ConfigError."""
    if kind == 'rows':
        for number, line in enumerate(lines(file, name), 1):
            if line.strip():
                with readable(place := f'{name}, line {number},', 'is it JSON?'):
                    row = json.loads(line)
                yield place, row
        return
    batches = optional('pyarrow.parquet').ParquetFile(file).iter_batches(100)
    for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
        yield f'{name}, row {number}', row


def text_of(row, field, place, left_out):
    """The text of a row (dict), in `field` (a.b: field b of field a) or one of FIELDS; '' for null,
    which is counted. Raises ConfigError."""
    value, names = row, list(row) if isinstance(row, dict) else []
    field = field or next((name for name in FIELDS if name in names), FIELDS[0])
    for key in [field] if field in names else field.split('.'):
        if not isinstance(value, dict) or key not in value:
            there = f'{", ".join(map(str, names[:20])) or "none"} (SOURCE:FIELD chooses)'
            raise ConfigError(f'{place} has no field {field!r}; there is {there}')
        value = value[key]
        if value is None:
            left_out['null texts'] += 1
            return ''
    require(is_text(value), f'{place} has no text in the field {field!r}')
    return value
