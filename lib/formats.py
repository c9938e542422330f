"""What a file is, by its first bytes, then by its name, and what it holds: lines, rows or members.

Compressed files (gzip, bzip2, xz, zstandard) are read as what is in them.
"""

import bz2
import contextlib
import importlib
import io
import json
import lzma
import os
import re
import stat
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
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
    rb'PAR1': 'parquet',
    rb'%PDF|%!PS|\{\\rtf': 'a PDF, PostScript or RTF file (save it as text)',
    rb'7z\xbc\xaf|Rar!': 'a 7-Zip or RAR archive (unpack it)',
    rb'version https://git-lfs': 'a pointer of Git LFS (git lfs pull fetches the file)',
    rb'\xff\xfe<\0|\xfe\xff\0<|%s(?i:<(\?xml|!doctype|html|tei|tmx)\b)' % MARK: XML,
    rb'\xff\xfe|\xfe\xff': 'UTF-16 text (convert it: iconv -f UTF-16 -t UTF-8)',
    rb'%s\{[ \t]*"' % MARK: 'rows',
    rb'%s(\{\s*"|\[\s*\{)' % MARK: 'JSON, but not one object a line (jq -c .[] converts a list)',
}
TABLE = 'a table (convert it to JSON lines)'
NAMES = dict.fromkeys(('.jsonl', '.ndjson', '.json'), 'rows') | {'.csv': TABLE, '.tsv': TABLE}
NAMES |= dict.fromkeys(('.zip', '.tar', '.tgz', '.parquet'), 'damaged or has a wrong name')

BROKEN = RuntimeError, ValueError, EOFError, OSError, zlib.error, lzma.LZMAError  # while reading
BROKEN += tarfile.TarError, zipfile.BadZipFile, ElementTree.ParseError


# --- what a file is -------------------------------------------------------------------------------


def kind_of(head, name):
    """What a file is: its first bytes decide, then its name."""
    for begin, kind in KINDS.items():
        if re.match(begin, head):
            return kind
    with contextlib.suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(head[:512], 'utf-8', 'replace')
        return 'tar'
    if b'\0' in head:
        return 'binary, or in UTF-16 (iconv converts it)'
    return NAMES.get(Path(re.sub(COMPRESSED, '', name.lower())).suffix, 'text')


def opened(file, name):
    """(kind, binary file without compression) of a buffered file. Raises ConfigError."""
    while (kind := kind_of(file.peek(CHUNK), name)) in DECODERS:
        file = io.BufferedReader(_Stream(_decompressed(file, kind, name)), CHUNK)
    if kind in ('zip', 'parquet') and not isinstance(getattr(file, 'raw', None), io.FileIO):
        file = io.BytesIO(file.read())  # their libraries move about in the file
    return kind, file


def optional(package):
    """A package that some sources need. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        name = package.partition('.')[0]
        raise ConfigError(f'this source needs the package {name}: pip install {name}') from None


def _zstandard():
    return optional('zstandard').ZstdDecompressor(max_window_size=1 << 31).decompressobj()


DECODERS = dict(bzip2=bz2.BZ2Decompressor, xz=lzma.LZMADecompressor, zstandard=_zstandard)
DECODERS |= dict(gzip=partial(zlib.decompressobj, 31))


def _decompressed(file, kind, name):
    decoder = DECODERS[kind]()
    for chunk in iter(partial(file.read, CHUNK), b''):
        while chunk := chunk.lstrip(b'\0') if decoder.eof else chunk:
            decoder = DECODERS[kind]() if decoder.eof else decoder  # files may have several parts
            try:
                yield decoder.decompress(chunk)
            except Exception as error:  # of a class that each library has for itself
                raise ConfigError(f'{name} is damaged ({kind}: {error})') from None
            chunk = decoder.unused_data
    require(decoder.eof, f'{name} is cut short: its {kind} data does not end')


class _Stream(io.RawIOBase):
    """The binary file that a generator of bytes makes."""

    def __init__(self, chunks):
        self.chunks, self.rest = chunks, memoryview(b'')

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self.rest and (chunk := next(self.chunks, None)) is not None:
            self.rest = memoryview(chunk)
        part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@contextlib.contextmanager
def intact(name):
    """What a library raises while it reads a damaged file becomes a ConfigError."""
    try:
        yield
    except BROKEN as error:
        if getattr(error, 'errno', None):  # of the disk
            raise
        raise ConfigError(f'{name} is damaged, cut short or encrypted ({error})') from None


# --- the files of a folder or archive: (name, function that opens it, None where it is no file) ---


def folder(path):
    """The files below a folder, by path. Linked folders are read, too, each once."""
    paths, seen = [], set()
    for place, inner, names in os.walk(path, onerror=partial(require, False), followlinks=True):
        inner.sort()
        if os.path.realpath(place) in seen:
            inner, names = inner.clear(), []
        seen.add(os.path.realpath(place))
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
    while member := archive.next():
        archive.members.clear()  # it would keep all of them
        if not member.isdir():
            content = partial(archive.extractfile, member)
            yield member.name, content if member.isfile() else None
    # A damaged header ends the archive, too; a whole one ends with zeros.
    end = [any(block) for block in iter(lambda: archive.fileobj.read(CHUNK), b'')]
    if any(end) or not end:
        raise tarfile.ReadError('it has no end')


def in_words(left_out):
    """How much was left out, by kind."""
    return ', '.join(f'{number:,} {kind}' for kind, number in sorted(left_out.items())) or 'nothing'


# --- text and rows --------------------------------------------------------------------------------


def is_text(value):
    """Whether a value is text that can be written as UTF-8."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


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
    """A text cut at the first line end after PIECE characters, a longer line at a space."""
    piece = line = ''
    for part in lines(file, name, None):
        line += part
        while len(line) > 4 * PIECE:
            cut = line.rfind(' ', 1, PIECE) + 1 or PIECE
            yield piece + line[:cut]
            piece, line = '', line[cut:]
        if line.endswith('\n'):
            piece, line = piece + line, ''
        if len(piece) >= PIECE:
            yield piece
            piece = ''
    yield piece + line


def rows(file, kind, name):
    """(place, row) of JSON lines or Parquet. Raises ConfigError."""
    if kind == 'rows':
        for number, line in enumerate(lines(file, name), 1):
            if line.strip():
                try:
                    yield f'{name}, line {number}', json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ConfigError(f'{name}, line {number}, is not JSON: {error}') from None
        return
    batches = optional('pyarrow.parquet').ParquetFile(file).iter_batches(100)
    for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
        yield f'{name}, row {number}', row


def text_of(row, field, place, left_out):
    """The text of a row (dict), in `field` or one of FIELDS; '' for null, which is counted.

    A dot leads into a field of a field. Raises ConfigError."""
    value, names = row, list(row) if isinstance(row, dict) else []
    field = field or next((name for name in FIELDS if name in names), FIELDS[0])
    for key in [field] if field in names else field.split('.'):
        if not isinstance(value, dict) or key not in value:
            there = f'{", ".join(map(str, names[:20])) or "none"} (SOURCE:FIELD chooses)'
            raise ConfigError(f'{place}: there is no field {field!r}; there is {there}')
        value = value[key]
        if value is None:
            left_out['null texts'] += 1
            return ''
    require(is_text(value), f'{place}: the field {field!r} is not text')
    return value
