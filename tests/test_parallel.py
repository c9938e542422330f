"""Aligned text: two files and tables, and the sequences that they are joined to."""

import gzip
import itertools
import json
from types import SimpleNamespace

from lib.configurator import ConfigError

import numpy as np
import pytest
from conftest import invented_words
from test_sources import fake_datasets, tar

from data import Corpus, Language
from lib.parallel import aligned_lines, pack, sequence_pairs
from lib.tokenizer import DOCUMENT_END

PAIRS = [('yes', 'oui'), ('no\u2028\x85 \x0c\r way', 'non'), ('', 'vide'), ('a & b', 'a et b')]
EN, FR = ('\n'.join(side).encode() for side in zip(*PAIRS))
NAMES = ['en', 'fr']


def write(folder, **files):
    for name, content in files.items():
        content = content.encode() if isinstance(content, str) else content
        (folder / name.replace('__', '.')).write_bytes(content)


def test_only_a_line_feed_ends_a_line_of_aligned_text(here, monkeypatch):
    rows = ''.join(json.dumps(dict(text=text or None)) + '\n' for text, _ in PAIRS)
    fake_datasets(monkeypatch, [dict(a=dict(en=one or None, fr=other)) for one, other in PAIRS])
    hub = ['hf:a/b/en-fr:a.en', 'hf:a/b/en-fr:a.fr']
    table = '\r\n'.join(map('\t'.join, PAIRS))
    write(here, en=EN, fr=FR.replace(b'\n', b'\r\n'), en__jsonl=rows, both__tsv=table)
    write(here, fr__gz=gzip.compress(b'\xef\xbb\xbf' + FR), pairs=gzip.compress(table.encode()))
    for sources in (['en', 'fr'], ['en.jsonl', 'fr.gz'], hub, ['both.tsv'], ['pairs']):
        assert list(aligned_lines(sources, NAMES)) == PAIRS, sources
    for source in ('en', 'both.tsv'):
        assert list(aligned_lines([source], ['x'])) == [(text,) for text, _ in PAIRS]


@pytest.mark.parametrize(
    'sources, word',
    [
        ('two three', '2 and 3'),
        ('two empty', 'empty.* 2 and 0'),
        ('. two', 'directory'),
        ('two', 'two, line 1, has 1 column'),
        ('columns.tsv', 'columns.tsv, line 2, has 3 column'),
        ('latin.tsv', 'latin.tsv, line 2'),
        ('pairs.tmx', 'pairs.tmx is XML.* two text files'),
        ('missing', 'missing'),
        *((f'two {name}', name) for name in ('missing', 'two.tsv', 'pairs.tmx')),
        *((f'two archive.{kind}', f'archive.{kind}') for kind in ('zip', 'tar')),
    ],
)
def test_text_that_is_not_aligned_gets_one_sentence(here, sources, word):
    write(here, two='one\ntwo\n', three='un\ndeux\ntrois\n', empty='')
    write(here, two__tsv='a\tb', columns__tsv='a\tb\na\tb\tc', latin__tsv=b'a\tb\n\xe9\tb')
    write(here, archive__zip='PK\x03\x04', archive__tar=tar([('a', b'x')]), pairs__tmx='<tmx>')
    with pytest.raises(ConfigError, match=word) as refusal:
        list(aligned_lines(sources.split(), ['hu', 'uk']))
    assert '\n' not in str(refusal.value)


def test_lines_are_joined_while_both_sides_fit():
    def packed(*lengths, most=10, least=3):
        number = itertools.count()
        lines = [tuple([next(number)] * n for n in line) for line in lengths]
        return [tuple(map(len, pair)) for pair in pack(lines, most, least)]

    assert packed((4, 3), (6, 2), (1, 1), (3, 3)) == [(10, 5), (4, 4)]
    assert packed((4, 3), (2, 8), (5, 1)) == [(4, 3), (7, 9)]  # one side alone ends a sequence
    assert packed((4, 3), (11, 2), (2, 8)) == [(4, 3)]  # too long; then a side below 3
    assert packed((4, 3), (3, 11), (2, 3)) == [(6, 6)]  # and what is around it is joined
    assert packed((9, 2), (9, 9)) == [(9, 9)]
    assert packed((4, 3), (3, 0), (2, 3)) == [(6, 6)]  # as is one without a translation
    assert packed() == packed((11, 1)) == []
    one, other = next(pack([([1], [2]), ([3, 4], [5])], 10, 1))
    assert one == [1, 3, 4] and other == [2, 5]


def test_clones_without_parallel_text_get_sequences_of_the_test_set():
    tokens = np.arange(3, 1003, dtype=np.uint16)
    tokens[[120, 655]] = DOCUMENT_END
    corpus = SimpleNamespace(name='c', test=tokens)
    one, other = Language('en1', corpus, None), Language('en2', corpus, None)
    found = sequence_pairs(one, other, [], 4, 100, 25)
    assert [side[0] for side, _, _ in found] == [3, 303, 603, 903]
    assert all((side_1 == side_2).all() for side_1, side_2, _ in found)
    assert [document for *_, document in found] == [0, 1, 1, 2]  # those of the middle tokens
    assert len(sequence_pairs(one, other, [], 500, 100, 25)) == 10
    corpus.test = corpus.test[:99]
    with pytest.raises(ConfigError, match='fewer than one sequence'):
        sequence_pairs(one, other, [], 4, 100, 25)


def test_pairs_are_tokens_of_both_languages_and_foreign_text_gets_a_warning(workplace, capsys):
    en, fr = (Language(name, Corpus(name), None) for name in NAMES)
    words = invented_words(1), invented_words(2)
    lines = ['\n'.join(' '.join(side[n : n + 5]) for n in range(0, 100, 5)) for side in words]
    write(workplace, en=lines[0], fr=lines[1], foreign='Ελλάδα\n' * 20, blank='\n' * 20)
    found = sequence_pairs(en, fr, ['en', 'fr'], 3, 64, 4)
    assert [number for *_, number in found] == [0, 1, 2]
    for side, language in enumerate((en, fr)):
        decoded = language.corpus.load_tokenizer().decode(found[0][side].tolist())
        assert lines[side].replace('\n', ' ').startswith(decoded) and decoded
    clones = sequence_pairs(en, en, ['en', 'fr'], 3, 64, 4)
    assert all((a == b).all() for a, b, _ in clones) and (clones[0][0][:9] == found[0][0][:9]).all()
    assert 'warning' not in capsys.readouterr().err
    sequence_pairs(en, fr, ['en', 'foreign'], 3, 64, 4)
    assert 'foreign' in capsys.readouterr().err
    for sources, least in (('', 4), ('en fr en', 4), ('en fr', 64), ('en blank', 4)):
        with pytest.raises(ConfigError):
            sequence_pairs(en, fr, sources.split(), 3, 64, least)
