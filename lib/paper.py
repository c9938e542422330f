"""The paper's own runs, from results/paper_runs.csv, and which of them a run of ours repeats."""

import csv
import functools
import math
import re
from pathlib import Path

import numpy as np

from lib.runs import DEFAULTS, FREE, SEED, comparable, differing

RESULTS = Path(__file__).resolve().parent.parent / 'results'
SHAPES = {(4, 512): 'mini', (12, 768): 'small', (24, 1024): 'medium'}  # (n_layer, n_embd)


@functools.cache
def load_paper_runs():
    """The published runs of results/paper_runs.csv: dicts, `command` trains them. Their `languages`
    are dicts of name, kind, tokens_seen, ppl and teff of the first two languages; of ten clones the
    second stands for nine."""
    return [paper_run(row) for row in read_csv('paper_runs.csv')]


def read_csv(name):
    return list(csv.DictReader((RESULTS / name).read_text(encoding='utf-8').splitlines()))


def paper_run(row):
    """A published run from its line; 0.055556x9 there is the share of each of nine languages."""
    first, second = row['setup'].split('-')  # mono-fr, clones-10, en-fr
    kinds = [second] if first == 'mono' else [first, second]
    if first == 'clones':
        kinds = ['en'] * int(second)
    stages = []
    for stage in row['stages'].split(' > '):
        shares = [(share + 'x1').split('x')[:2] for share in stage.split('/')]
        stages.append([float(share) for share, count in shares for _ in range(int(count))])
    languages = []
    for i, column in enumerate(['l2'] if row['setup'] == 'mono-fr' else ['l1', 'l2'][: len(kinds)]):
        name = f'{kinds[i]}{i + 1}' if first == 'clones' else kinds[i]
        seen = int(row['tokens']) * sum(p[i] for p in stages) / len(stages)
        scores = dict(ppl=float(row[f'ppl_{column}']), teff=float(row[f'teff_{column}']))
        languages.append(dict(name=name, kind=kinds[i], tokens_seen=seen, **scores))
    place = row['table'].replace('fig', 'Figure ')
    if row['table'].isdigit():
        place = f'Table {row["table"]} row'
    run = dict(name=f'{place} {row["row"]}', table=row['table'], size=row['model'], kinds=kinds)
    run |= dict(vocabulary=row['vocab'], steps=int(row['steps']), stages=stages)
    return run | dict(languages=languages, command=f'python train.py {row["config"]}')


def kind_of(name, corpus):
    """'en' or 'fr' where the name of a language or of its corpus says so, else ''."""
    words = set(re.findall('[a-z]+', f'{name} {corpus}'.lower()))
    kinds = dict(fr={'fr', 'fra', 'french'}, en={'en', 'eng', 'english'})
    return next((kind for kind, names in kinds.items() if words & names), '')


# The paper's settings are the defaults of train.py; these make the rows of its tables.
VARIED = {'corpora', 'languages', 'vocabulary', 'stages', 'max_steps', 'dtype', 'warmup_steps'}
VARIED |= {'n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim', 'size'}


def paper_rows(run):
    """The published runs that a run repeats: equal settings, languages, vocabulary, size, steps and
    stages. Raises LookupError, TypeError or ValueError where the run is damaged."""
    settings, languages = comparable(run), run['languages']
    shape, steps = (settings['n_layer'], settings['n_embd']), settings['max_steps']
    columns = [i for i, name in enumerate(languages) if languages[name]['tokens_seen'] > 0]
    names = [list(languages)[i] for i in columns]
    corpora = [languages[name]['corpus'] for name in names]
    kinds = [kind_of(name, corpus) for name, corpus in zip(names, corpora)]
    stages = np.array(settings['stages'], float)[:, columns]
    other = differing(settings, DEFAULTS, FREE | SEED | VARIED)
    if set(other) - {'orders'} or any(settings['orders']) or len(set(corpora)) != len(set(kinds)):
        return []

    def same(row):
        theirs = np.array(row['stages'])
        length = math.lcm(len(theirs), len(stages))
        pair = [np.repeat(rows, length // len(rows), axis=0) for rows in (stages, theirs)]
        known = row['vocabulary'] in ('-', settings['vocabulary'])
        return known and np.allclose(*pair, rtol=0, atol=1e-5)

    ours = kinds, SHAPES.get(shape), steps
    like = [r for r in load_paper_runs() if ours == (r['kinds'], r['size'], r['steps'])]
    return [row for row in like if same(row)]
