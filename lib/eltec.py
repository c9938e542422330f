"""Novels of the European Literary Text Collection: TEI files, downloaded or a local copy."""

import http.client
import os
import re
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from lib.configurator import ConfigError, require

from lib.formats import BROKEN, in_words, members, opened

URL = 'https://github.com/COST-ELTeC/ELTeC-{}/archive/HEAD.tar.gz'
BREAKS = 'pb', 'lb', 'cb', 'gb', 'milestone'  # elements that may stand between or within words


def eltec(place, left_out):
    """Novels of ELTeC: the body of level 1, or of level 0 of a language that has no level 1.

    place: a language (downloaded), or a folder or archive. Raises ConfigError."""
    require(place, 'eltec: needs a language or a folder, for example eltec:eng')
    found, read = False, _tei_of_folder if os.path.isdir(place) else _tei_of_archive
    for name, xml in read(place):
        if text := _tei_body(xml, name):
            found = True
            yield text
        else:
            left_out[f'{name} (no <text><body>)'] += 1
    reason = f' ({in_words(left_out)})' if left_out else ''
    require(found, f'{place} holds no TEI novels: no *.xml, level1/*.xml or level0/*.xml{reason}')


def _tei_of_folder(folder):
    def xml_of(*patterns):
        paths = [path for pattern in patterns for path in Path(folder).glob(pattern)]
        return sorted(p for p in paths if p.suffix.lower() == '.xml' and p.is_file())

    for path in xml_of('*', 'level1/*') or xml_of('level0/*'):
        yield path, path.read_bytes()


def _tei_of_archive(place):
    is_name = re.fullmatch('[A-Za-z0-9-]+', place)
    local = os.path.exists(place)
    require(local or is_name, f'there is no {place}; a language is written like eltec:eng')
    url, zero, found = place if local else URL.format(place), [], False
    try:
        with open(place, 'rb') if local else urllib.request.urlopen(url, timeout=60) as response:
            kind, file = opened(response, url)
            require(kind in ('zip', 'tar'), f'it is {kind}')
            for name, open_member in members(file, kind):
                level = open_member and re.search(r'\blevel([01])/[^/]*\.xml$', name, re.I)
                if level and level[1] == '1':
                    found = True
                    yield name, open_member().read()
                elif level and not found:
                    zero.append((name, open_member().read()))
    except (ConfigError, http.client.HTTPException, *BROKEN) as error:
        advice = 'fetch the repository elsewhere and give its folder: --source=eltec:FOLDER'
        raise ConfigError(f'{url} cannot be read ({error}); {advice}') from None
    yield from () if found else zero


def _tei_body(xml, name):
    """Text of the <body> of a TEI file, without notes: a paragraph, verse or heading a line; ''
    without a body. Raises ConfigError for what is not XML."""
    try:
        body = ElementTree.fromstring(xml).find('.//{*}text/{*}body')
    except ElementTree.ParseError as error:
        raise ConfigError(f'{name} is not XML: {error}') from None

    def text_of(element, inside_line):  # \0 ends a line and \x01 a break; XML cannot hold these
        # A comment has no name.
        tag = element.tag.rpartition('}')[2] if isinstance(element.tag, str) else 'note'
        if tag == 'note':
            return ''
        if tag in BREAKS and inside_line:
            return '' if element.get('break') == 'no' else '\x01'
        own_line = not inside_line or tag in ('p', 'l', 'head')
        holds_lines = own_line and tag in ('body', 'div', 'quote', 'lg', 'floatingText')
        parts = [element.text or '']
        for child in element:
            parts += [text_of(child, not holds_lines), child.tail or '']
        text = ''.join(parts)
        return f'\0{text}\0' if own_line else text

    text = _without_breaks(text_of(body, False)) if body is not None else ''
    lines = [' '.join(line.split()) for line in text.split('\0')]
    return ''.join(f'{line}\n' for line in lines if line)


def _without_breaks(text):
    """A text with a space at each break, unless it stands in a word.

    Editions seldom mark these: the joined parts are a word of the text, and not both parts are."""
    words = set(re.findall(r'\w+', re.sub(r'\w*\x01+\w*', ' ', text).casefold()))

    def joined(match):
        parts = match[1].casefold(), match[2].casefold()
        is_word = ''.join(parts) in words and not words.issuperset(parts)
        return match[1] if is_word else f'{match[1]} '

    text = re.sub(r'(\w+)\x01+(?=(\w+))', joined, text)
    text = re.sub(r'(?<=[\w.,;:!?…»”)])\x01+(?=[\w«“„(])', ' ', text)
    return text.replace('\x01', '')
