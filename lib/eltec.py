"""Novels of the European Literary Text Collection: TEI files, downloaded or a local copy."""

import io
import os
import re
import urllib.request
import xml.etree.ElementTree as ElementTree

from lib.configurator import require

from lib.formats import folder, in_words, members, opened, readable

URL = 'https://github.com/COST-ELTeC/ELTeC-{}/archive/HEAD.tar.gz'
BREAKS = 'pb', 'lb', 'cb', 'gb', 'milestone'  # elements that may stand between or within words
BLOCKS = 'body', 'div', 'quote', 'lg', 'floatingText'  # elements whose children are lines


def eltec(place, left_out):
    """Novels of ELTeC: the body of level 1, or of level 0 of a language that has no level 1.

    place: a language (downloaded), or a folder or archive. Raises ConfigError."""
    valid = os.path.exists(place) or re.fullmatch('[A-Za-z0-9-]+', place)
    require(valid, f'there is no {place!r}: eltec: takes a folder or a language, as in eltec:eng')
    found = False
    for name, xml in _novels(place if os.path.exists(place) else URL.format(place)):
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
        for name, open_file in folder(place) if os.path.isdir(place) else _archive(place):
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
        yield from members(content, kind)


def _body(xml, name):
    """Text of the <body> of a TEI file, without notes: a paragraph, verse or heading a line; ''
    without a body. Raises ConfigError for what is not XML."""
    with readable(name):
        body = ElementTree.fromstring(xml).find('.//{*}text/{*}body')

    def text_of(element, inside_line):  # \0 ends a line and \x01 a break; XML cannot hold these
        # A comment has no name.
        tag = element.tag.rpartition('}')[2] if isinstance(element.tag, str) else 'note'
        if tag == 'note':
            return ''
        if tag in BREAKS and inside_line:
            return '' if element.get('break') == 'no' else '\x01'
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
