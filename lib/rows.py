"""The rows of scaling.json as runs: their names, shares and groups, for tables and figures."""

import itertools
import json
import math
import re

from lib.runs import DEFAULTS, FREE, LAW, LENGTH, SEED, canonical, comparable, differing
from lib.tables import short


class Run:
    """The rows of a run, and what tables and figures ask of it.

    rows: of the languages that it saw, with their `source`, the others; every: of all. ratio: as
    '90/10 then 10/90'; share: of the second of two languages, None where it changes. tokens: of all
    languages; parameters: without embeddings; shared: part of the vocabulary."""

    def __init__(self, rows):
        self.name, self.every, self.settings = rows[0]['run'], rows, comparable(rows[0])
        self.rows = [row for row in rows if row['tokens_seen']]
        self.monolingual = any(row['monolingual'] for row in rows)
        self.languages = [row['name'] for row in self.rows]
        for row in self.rows:
            others = [name for name in self.languages if name != row['name']]
            row['source'] = 'the rest of the mixture' if others[1:] else ''.join(others)
        self.who = '/'.join(self.languages)
        if self.languages[3:]:
            self.who = f'{self.languages[0]}..{self.languages[-1]}'
        self.tokens = sum(row['tokens_seen'] for row in self.rows)
        self.text = [json.loads(row['group'])[1:] for row in self.rows]  # that measures them
        s, stages = self.settings, list(zip(*(row['shares'] for row in self.rows)))
        self.ratio = ratio_of(stages)
        self.share = stages[0][1] if len(self.rows) == 2 and len(set(stages)) == 1 else None
        self.shared = 1 - s['cloned_fraction']
        weights = 4 * s['n_head'] * s['head_dim'] + 2 * s['mlp_dim']
        self.parameters = s['n_layer'] * s['n_embd'] * weights
        self.size = f'{s["n_layer"]} layers of {s["n_embd"]}'

    @property
    def asked(self):
        """Rows of languages with a control, else of less than half of the tokens, else the last."""
        controlled = [row for row in self.rows if row['control'] or row['reread_control']]
        rare = [row for row in self.rows if row['tokens_seen'] < 0.49 * self.tokens]
        return controlled or rare or self.rows[-1:]


def runs_of(rows):
    """The runs of rows, by name. Rows get the `name` of their language; null ends are infinite."""
    found = {}
    for row in json.loads(json.dumps(rows), parse_constant=lambda name: None):
        for key in [key for key in row if key.endswith('_interval') and row[key]]:
            low, high = row[key]
            row[key] = -math.inf if low is None else low, math.inf if high is None else high
        if row['reading'] and row['mlte'] is None:  # beyond all budgets of the law
            row |= dict(mlte=math.inf, teff=1.0 if row['monolingual'] else math.inf)
        row['name'] = f'{row["language"]} {row["order"]}'.strip()
        found.setdefault(row['run'], []).append(row)
    return [Run(found[name]) for name in sorted(found, key=natural)]


def natural(name):
    """A key that sorts numbers in a name as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)]


def ratio_of(stages):
    """'90/10', '90/10 then 10/90', '50/5.56 x9'."""
    texts = []
    for stage in stages:
        same = itertools.groupby(f'{100 * share:.3g}' for share in stage)
        counts = [(share, len(list(equal))) for share, equal in same]
        parts = [f'{share} x{n}' if n > 3 else '/'.join([share] * n) for share, n in counts]
        texts.append('/'.join(parts))
    return ' then '.join(texts)


def grouped(runs, may_differ):
    """Lists of runs that differ in seed and `may_differ`; in tokens only if LENGTH may differ."""
    groups, may_differ = {}, FREE | SEED | may_differ
    for run in runs:
        same = {name: value for name, value in run.settings.items() if name not in may_differ}
        length = '' if LENGTH <= may_differ else short(run.tokens)
        text = '' if 'corpora' in may_differ else run.text
        groups.setdefault(canonical([same, length, text]), []).append(run)
    return list(groups.values())


def usual_of(runs):
    """The most frequent value of each setting."""
    names = set().union(*(run.settings for run in runs))
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: max(every, key=every.count) for name, every in values.items()}


def caption(settings, usual, without=frozenset()):
    """The settings that are not the usual ones: 'vocabulary=anchored orders=-,reversed'."""
    names = differing(settings, usual, FREE | SEED | {'stages', 'languages', 'size'} | without)
    return ' '.join(f'{name}={as_text(settings.get(name))}' for name in names)


def as_text(value):
    if isinstance(value, list):
        return ','.join(map(as_text, value)) or '-'
    return f'{value:g}' if isinstance(value, float) else str(value) or '-'


def named_groups(runs, laws):
    """[dict(title, common, differing, runs: [(ratio and differing settings, run)])] of the runs of
    one model and optimisation."""
    labels, found = {law['group']: law['label'].partition(', ')[2] for law in laws}, {}
    for group in grouped(runs, LAW):
        title, usual = labels[group[0].rows[0]['group']], usual_of(group)
        if title in found:  # the label does not name the setting in which they differ
            title += f', {caption(usual, found[title]["usual"], LAW)}'
        differ = {name for run in group for name in differing(run.settings, usual, FREE | SEED)}
        about = dict(title=title, usual=usual, common=caption(usual, DEFAULTS, differ), runs=[])
        for run in group:
            named = run.settings['languages'] != usual['languages']
            text = caption(run.settings, usual, {'corpora'} if named else set())
            about['runs'].append((f'{run.ratio} {text}'.strip(), run))
        found[title] = about | dict(differing=sorted(differ))
    return list(found.values())


def measured(row, key):
    """(value, low, high) of a measure and its 90% interval; None where it is unknown, or a
    perplexity too large to draw. A TEff beyond the law is at its lower limit, without upper end."""
    value = row.get(key)
    if value is None or ('ppl' in key and value > 1e6):
        return None
    if math.isinf(value):
        limit = row['largest_budget'] / row['tokens_seen']
        return limit, limit, math.inf
    low, high = row.get(f'{key}_interval') or (value, value)
    if key == 'ppl':
        half = 1.645 * (row['ppl_se'] or 0)
        low, high = value - half, value + half
    return value, max(0, min(low, value)), max(high, value)
