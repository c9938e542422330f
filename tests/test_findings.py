"""Every figure of FINDINGS.md is in the results, at the digits that are printed."""

import csv
import fnmatch
import json
import re

import pytest
from conftest import REPO

from lib.runs import load_runs

ALONE = {run['run']: run['languages'] for run in load_runs(REPO / 'results/lab')}  # controls, too
ROWS = list(csv.DictReader((REPO / 'results/lab.csv').open()))
TEXT, README = ((REPO / f).read_text(encoding='utf-8') for f in ('FINDINGS.md', 'README.md'))
FIGURE = re.compile(r'(?<![\w.])-?\d+\.\d+(?![\w.]*\.\d)')
# what the text takes from elsewhere: the paper's claims, and sizes of the set-up
OTHER = {'1.6', '1.2', '1.10', '1.05', '1.0', '26.6', '2.66', '4.1', '0.41', '0.4', '12.3', '13.3'}


def numbers(value):
    """All numbers inside nested lists, dicts and rows of text."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    try:
        return [float(value)]
    except (TypeError, ValueError):
        return []


def is_in(figure, values):
    digits = len(figure.partition('.')[2])
    return any(abs(float(figure) - value) < 0.5001 * 10**-digits for value in values)


def unsupported(text, rows, others=()):
    """Figures of `text` that no row has; what follows the name of a run must be in its rows; of
    controls, `NAME*` names several."""
    missing = []
    for part in re.split(r'\n(?=\n|- |\| )', text):
        for clause in re.split(r'(?=`[\w.*-]+`)', part):
            named = re.match(r'(`([\w.*-]+)`)?', clause)[2]
            own = [row for row in rows if row['run'] == named]
            own = own or [ALONE[name] for name in fnmatch.filter(ALONE, named or '')]
            values = numbers(own) or numbers(rows) + list(others)
            figures = set(FIGURE.findall(clause)) - OTHER
            missing += [figure for figure in figures if not is_in(figure, values)]
    return missing


def other_results():
    files = [*REPO.glob('results/studies/*.json'), *REPO.glob('results/single/*/results.json')]
    stored = [json.loads(path.read_text()) for path in files]
    tables = [list(csv.DictReader(path.open())) for path in REPO.glob('results/paper_*.csv')]
    return numbers(stored) + numbers(tables)


def test_every_figure_of_the_findings_is_in_the_results():
    assert unsupported(TEXT, ROWS, other_results()) == []
    text, readme = (' '.join(page.split()) for page in (TEXT, README))
    found = re.findall(r'[\d.]+ \[[\d., ]+\]', re.search('So far, on novels.*?## ', readme)[0])
    assert len(found) > 3 and all(interval in text for interval in found)


@pytest.mark.parametrize('wrong', ['`clones_90_10` | 27.8 | 39.9', 'a transfer of 77.77'])
def test_a_figure_that_the_results_lack_is_found(wrong):
    assert unsupported(wrong, ROWS, other_results())


def test_lines_have_120_columns_and_every_run_named_is_there():
    lines = [line for line in TEXT.splitlines() if not line.startswith('|')]
    assert max(map(len, lines)) <= 120
    named = re.findall(r'`(\w+_\d+\w*)`', TEXT)
    assert len(named) > 15 and set(named) <= {row['run'] for row in ROWS}
