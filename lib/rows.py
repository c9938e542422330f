"""The rows of scaling.json as runs: their names, shares and groups, for tables and figures."""

import itertools
import json
import math
import re

from lib.runs import DEFAULTS, FREE, LAW, SEED, comparable, differing

DRAWN_PPL = 1e6  # a larger perplexity is a number of the tables only


class Run:
    """The rows of a run, and what tables and figures ask of it.

    rows: of the languages that it saw; every: of the others, too. ratio: the shares of the tokens,
    '90/10 then 10/90'; share: that of the second of two languages, None where it changes. tokens:
    of all languages; parameters: without embeddings; shared: part of the vocabulary."""

    def __init__(self, rows):
        self.name, self.every, self.settings = rows[0]['run'], rows, comparable(rows[0])
        self.rows = [row for row in rows if row['tokens_seen']]
        self.monolingual = any(row['monolingual'] for row in rows)
        self.languages = [row['name'] for row in self.rows]
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
    def who(self):
        names = self.languages
        return '/'.join(names) if len(names) < 4 else f'{names[0]}..{names[-1]}'

    @property
    def asked(self):
        """Rows of the languages that have a control; without any, of those with less than half of
        the tokens, else of the last one."""
        controlled = [row for row in self.rows if row['control'] or row['reread_control']]
        rare = [row for row in self.rows if row['tokens_seen'] < 0.49 * self.tokens]
        return controlled or rare or self.rows[-1:]


def runs_of(rows):
    """The runs of some rows, by name, numbers in it as numbers. Rows get the `name` of their
    language, with its order."""
    found = {}
    for row in json.loads(json.dumps(rows), parse_constant=lambda name: None):
        for key in [key for key in row if key.endswith('_interval') and row[key]]:
            low, high = row[key]
            row[key] = -math.inf if low is None else low, math.inf if high is None else high
        if row['reading'] and row['mlte'] is None:  # beyond all budgets of the law
            row |= dict(mlte=math.inf, teff=1.0 if row['monolingual'] else math.inf)
        row['name'] = ' '.join(filter(None, (row['language'], row['order'])))
        found.setdefault(row['run'], []).append(row)
    return [Run(found[name]) for name in sorted(found, key=natural)]


def natural(name):
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', name)]


def ratio_of(stages):
    """'90/10', '90/10 then 10/90', '50/5.56 x9'."""
    texts = []
    for stage in stages:
        shares = [f'{100 * share:.3g}' for share in stage]
        runs = [(share, len(list(same))) for share, same in itertools.groupby(shares)]
        parts = [f'{share} x{n}' if n > 3 else '/'.join([share] * n) for share, n in runs]
        texts.append('/'.join(parts))
    texts = texts if len(set(texts)) > 1 else texts[:1]
    return ' then '.join(texts) if len(texts) < 6 else f'{texts[0]} to {texts[-1]}'


def grouped(runs, may_differ, same_text=True):
    """Lists of runs that differ in these settings only, and were measured on equal texts."""
    groups = []
    for run in runs:
        for group in groups:
            differ = differing(run.settings, group[0].settings, FREE | SEED | may_differ)
            if not differ and (run.text == group[0].text or not same_text):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def usual_of(runs):
    """The most frequent value of each setting."""
    values = {name: [run.settings.get(name) for run in runs] for name in runs[0].settings}
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
    """[dict(title, common, differing, runs: [(short name, run)])] of the runs of one model and
    optimisation. A short name has what differs: languages, ratio, settings."""
    labels, found = {law['group']: law['label'].partition(', ')[2] for law in laws}, {}
    for group in grouped(runs, LAW, same_text=False):
        title, usual = labels[group[0].rows[0]['group']], usual_of(group)
        if title in found:  # the label does not name the setting in which they differ
            title += f', {caption(usual, found[title]["usual"], LAW)}'
        about = found[title] = dict(title=title, usual=usual, runs=[], differing=set())
        for run in group:
            other = run.settings['languages'] != usual['languages']
            text = caption(run.settings, usual, {'corpora'} if other else set())
            about['runs'].append((f'{run.who} {run.ratio} {text}'.strip(), run))
            about['differing'].update(differing(run.settings, usual, FREE | SEED))
        about['common'] = caption(usual, DEFAULTS, about['differing'])
    return list(found.values())


def measured(row, key):
    """(value, low, high) of a measure and its 90% interval, or None. A TEff beyond the law stands
    at its lower limit, without an upper end."""
    value = row.get(key)
    if value is None or ('ppl' in key and value > DRAWN_PPL):
        return None
    if math.isinf(value):
        limit = row['largest_budget'] / row['tokens_seen']
        return limit, limit, math.inf
    low, high = row.get(f'{key}_interval') or (value, value)
    if key == 'ppl':
        half = min(1.645 * (row['ppl_se'] or 0), value / 2)
        low, high = value - half, value + half
    return value, max(0, min(low, value)), max(high, value)
