"""The paper's own runs, from results/paper_runs.csv, and which of them a run of ours repeats."""

import csv
import functools
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from lib.laws import UNIT
from lib.rows import ratio_of
from lib.runs import DEFAULTS, FREE, SEED, comparable, differing

RESULTS = Path(__file__).resolve().parent.parent / 'results'
# The paper's settings: the defaults of train.py and GPT small; its tables vary those in VARIED.
SMALL = dict(size='', n_layer=12, n_head=12, head_dim=64, n_embd=768, mlp_dim=3072)
VARIED = {'corpora', 'languages', 'vocabulary', 'stages', 'max_steps', 'dtype', 'warmup_steps'}


def read_csv(name):
    return list(csv.DictReader((RESULTS / name).read_text(encoding='utf-8').splitlines()))


@functools.cache
def load_paper_runs():
    """The published runs; `command` trains them. Their `rows` are of the first two languages, with
    the keys that rows of scaling.json have; of ten clones the second stands for nine."""
    found = []
    for line in read_csv('paper_runs.csv'):
        names, table = line['languages'].split('/'), line['table']
        stages = [list(map(float, stage.split('/'))) for stage in line['stages'].split(' > ')]
        run = SimpleNamespace(table=table, number=line['row'], stages=stages, rows=[])
        place = f'Table {table} row' if table in '13' else f'Figure {table[3:]}'
        run.name, run.command = f'{place} {run.number}', f'python train.py {line["config"]}'
        run.kinds = [name.rstrip('0123456789') for name in names]
        run.vocabulary, run.ratio = line['vocab'], ratio_of(stages)
        run.share = stages[0][1] if len(stages) == 1 and len(names) == 2 else None
        run.steps, run.tokens = int(line['steps']), int(line['tokens'])
        scores = [(line[f'ppl_l{i}'], line[f'teff_l{i}']) for i in (1, 2) if line[f'ppl_l{i}']]
        for name, shares, (ppl, teff) in zip(names, zip(*stages), scores):
            paper = dict(paper_ppl=float(ppl), paper_teff=float(teff))
            seen = run.tokens * sum(shares) / len(stages)
            run.rows.append(dict(language=name, tokens_seen=seen, **paper))
        found.append(run)
    return found


def published_laws():
    """The laws of GPT small as scaling.json has ours, but the published runs themselves as `runs`.
    They are laws in 1/PPL, whatever form lib/laws.py has. Generator."""
    for row in read_csv('paper_laws.csv'):
        a, b, c = (float(row[key]) for key in 'abc')
        fractions = np.array(row['fitted_fractions'].split(), float)
        x = np.geomspace(fractions.min(), fractions.max())
        language, published = row['language'], load_paper_runs()
        runs = [run.rows[0] for run in published if run.kinds == [language]]
        found = dict(label=f'{language} in the paper, GPT small', runs=runs)
        found['tokens'] = [run['tokens_seen'] for run in runs]
        found['ppl'] = [run['paper_ppl'] for run in runs]
        yield found | dict(curve=dict(tokens=UNIT * x, ppl=1 / (c - a * x**-b)))


def kind_of(name, corpus):
    """'en' or 'fr' where the name of a language or of its corpus says so, else ''."""
    words = set(re.findall('[a-z]+', f'{name} {corpus}'.lower()))
    kinds = dict(fr={'fr', 'fra', 'french'}, en={'en', 'eng', 'english'})
    return next((kind for kind, names in kinds.items() if words & names), '')


def paper_runs_of(run):
    """The published runs that a run repeats: in settings, languages, vocabulary, steps, stages.
    Raises LookupError, TypeError or ValueError where the run is damaged."""
    settings = comparable(run)
    seen = {name: one for name, one in run['languages'].items() if one['tokens_seen'] > 0}
    columns = [list(run['languages']).index(name) for name in seen]
    corpora = [language['corpus'] for language in seen.values()]
    kinds = list(map(kind_of, seen, corpora))
    stages = np.array(settings['stages'], float)[:, columns]
    other = differing(settings, DEFAULTS | SMALL, FREE | SEED | VARIED)
    if other or len(set(corpora)) != len(set(kinds)):
        return []

    def same(theirs):
        length = math.lcm(len(theirs.stages), len(stages))
        pair = [np.repeat(rows, length // len(rows), axis=0) for rows in (stages, theirs.stages)]
        known = theirs.vocabulary in ('-', settings['vocabulary'])
        return known and np.allclose(*pair, rtol=0, atol=1e-5)

    like = (theirs for theirs in load_paper_runs() if theirs.steps == settings['max_steps'])
    return [theirs for theirs in like if theirs.kinds == kinds and same(theirs)]
