"""Novels of the European Literary Text Collection: TEI files, downloaded or a local copy."""

import http.client
import io
import os
import re
import urllib.request
import xml.etree.ElementTree as ElementTree

from lib.configurator import ConfigError, require

from lib.formats import BROKEN, CHUNK, folder, in_words, intact, members, opened

URL = 'https://github.com/COST-ELTeC/ELTeC-{}/archive/HEAD.tar.gz'
BREAKS = 'pb', 'lb', 'cb', 'gb', 'milestone'  # elements that may stand between or within words
BLOCKS = 'body', 'div', 'quote', 'lg', 'floatingText'  # elements whose children are lines


def eltec(place, left_out):
    """Novels of ELTeC: the body of level 1, or of level 0 of a language that has no level 1.

    place: a language (downloaded), or a folder or archive. Raises ConfigError."""
    valid = os.path.exists(place) or re.fullmatch('[A-Za-z0-9-]+', place)
    require(valid, f'there is no {place!r}: eltec: takes a folder or a language, as in eltec:eng')
    found = False
    for name, xml in _novels(place, place if os.path.exists(place) else URL.format(place)):
        if text := _body(xml, name):
            found = True
            yield text
        else:
            left_out[f'{name} (no <text><body>)'] += 1
    reason = f'no *.xml, level1/*.xml or level0/*.xml; left out: {in_words(left_out)}'
    require(found, f'{place} holds no TEI novels: {reason}')


def _novels(place, url):
    """(name, XML) of the files of the level that is read."""
    found, level_0 = False, []
    try:
        for name, open_file in _files(place, url):
            level = open_file and re.fullmatch(r'(.*\blevel([01])/)?[^/]*\.xml', name, re.I)
            if level and level[2] == '0':
                level_0.append((name, open_file().read()))
            elif level:
                found = True
                yield name, open_file().read()
    except (ConfigError, http.client.HTTPException, *BROKEN) as error:
        advice = 'fetch the repository elsewhere and give its folder: --source=eltec:FOLDER'
        raise ConfigError(f'{url} cannot be read ({error}); {advice}') from None
    yield from [] if found else level_0


def _files(place, url):
    if os.path.isdir(place):
        yield from folder(place)
        return
    with open(url, 'rb') if url == place else urllib.request.urlopen(url, timeout=60) as file:
        kind, file = opened(io.BufferedReader(file, CHUNK), url)
        require(kind in ('zip', 'tar'), f'it is {kind}')
        yield from members(file, kind)


def _body(xml, name):
    """Text of the <body> of a TEI file, without notes: a paragraph, verse or heading a line; ''
    without a body. Raises ConfigError for what is not XML."""
    with intact(name):
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
