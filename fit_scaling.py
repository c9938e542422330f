"""Monolingual scaling laws, token equivalents and transfer (Section 3, Appendix B, Figure 5).

    python fit_scaling.py                             # the runs of out/: tables, files, Figure 5
    python fit_scaling.py --least_tokens=1_300_000    # laws of the larger budgets alone

  MLPE      monolingual perplexity equivalent: the law's perplexity at the tokens that the run saw
  MLTE      monolingual token equivalent: the tokens a monolingual run needs for the perplexity
  TEff      token efficiency, MLTE / tokens seen: 1 for a monolingual run
  transfer  TEff / TEff of the best control that reads the tokens once: what the other languages add
            to as many exposures. Controls are the runs of train.py --only=LANGUAGE, at several
            learning rates and batch sizes, and the monolingual run on as many tokens, whose TEff
            is 1.
  gain      TEff / TEff of the best control of at most the compute of the mixture, which may re-read
            its text (train.py --only=LANGUAGE --epochs=4): whether the other languages pay at all
  nats      log perplexity of that control minus that of the run
  tau       (transfer - 1) * own / other tokens: own tokens that a token of the others is worth
All intervals are 90% intervals. A row without one says why, and which runs would give it.
"""

import csv
import json
import math
from pathlib import Path
from textwrap import fill

from lib.configurator import ConfigError, run

import numpy as np

from lib import runs as table
from lib.bootstrap import interval
from lib.files import write_json
from lib.laws import B_MIN, UNIT, PowerLaw, errors_of, law_of
from lib.paper import paper_rows, read_csv
from lib.plots import COLORS, log_ticks, picture
from lib.tables import align, ppl_text, short, with_interval

out = 'out'  # folder of the runs; the tables and the picture are written here too
least_tokens = 0  # fit the laws to budgets of at least so many tokens; 0: all
wide = False  # print every column; else what fits 100 columns

# --- a run by a law -------------------------------------------------------------------------------


MEASURES = ('mlpe', 'mlte', 'teff', 'control_teff', 'transfer', 'transfer_nats', 'tau')
MEASURES += ('reread_teff', 'gain', 'gain_nats')


def measure(law, result, control=None, reread=None, others=0.0):
    """{name: value, name_interval: (low, high)} of MEASURES for a result and its controls; None
    where it is unknown. Nats need no law.

    control: the best that reads once, or None; where the monolingual run on as many tokens is
    better, TEff 1, that is the control (`monolingual_control`). reread: the best of at most the
    compute of the mixture. others: tokens of the other languages. Ratios are of TEff, so that a
    control of another seed is not better for a few tokens more."""
    roles = {'run': result, 'control': control, 'reread': reread}
    roles = {role: one for role, one in roles.items() if one is not None}
    monolingual = False
    if control is not None and law.curve is not None:
        monolingual = bool(law.curve.tokens(control['ppl'])[0] < control['tokens_seen'])

    def numbers(log_ppl, curve):
        """MEASURES as a dict of arrays, from log perplexities by role: (1,) or resamples (R,)."""
        values, seen = {}, result['tokens_seen']
        if curve is not None:
            mlte = {role: curve.tokens(np.exp(x)) for role, x in log_ppl.items()}
            teff = {role: tokens / roles[role]['tokens_seen'] for role, tokens in mlte.items()}
            values |= dict(mlpe=np.reshape(curve.ppl(seen), -1), mlte=mlte['run'])
            values |= dict(teff=teff['run'])
        for name, role in (('transfer', 'control'), ('gain', 'reread')):
            by_law = role == 'control' and monolingual
            if role in roles and not (by_law and curve is None):
                other = np.log(values['mlpe']) if by_law else log_ppl[role]
                values[f'{name}_nats'] = other - log_ppl['run']
            if role in roles and curve is not None:
                values[f'{role}_teff'] = teff[role]
                with np.errstate(all='ignore'):
                    values[name] = teff['run'] / (1.0 if by_law else teff[role])
        if others and 'transfer' in values:
            values['tau'] = (values['transfer'] - 1) * seen / others
        return values

    points = {role: np.log([one['ppl']]) for role, one in roles.items()}
    values = {name: float(value[0]) for name, value in numbers(points, law.curve).items()}
    ends = {}
    if law.noises is not None:
        errors = {role: errors_of(one, law.noises, role) for role, one in roles.items()}
        resampled = {role: points[role] + errors[role] for role in roles}
        for name, drawn in numbers(resampled, law.resampled).items():
            signed = name.endswith('nats') or name == 'tau'
            ends[name] = tuple(map(float, interval(drawn, -math.inf if signed else 0.0)))
    unknown = dict.fromkeys(MEASURES)
    ends = {f'{name}_interval': end for name, end in (unknown | ends).items()}
    return unknown | values | ends | dict(monolingual_control=monolingual)


# --- all runs -------------------------------------------------------------------------------------

MARGIN = 1.02  # languages are drawn, so that 10% comes out as 9.98%: not yet extrapolated


def analyse(runs):
    """The law of each group of runs, {group: Law}, and the rows: a dict for each language of each
    run that is not a control, see `row_of`."""
    groups, found = {}, {}
    mixes = [member for member in runs if not member['settings']['only']]
    for member in mixes:
        for name in table.trained(member):
            result, group = member['languages'][name], table.group_of(member, name)
            about = groups.setdefault(group, dict(label=table.label_of(member, name), results={}))
            replicates = about.setdefault('replicates', {})
            controls = controls_of(member, name, runs)
            found[member['run'], name] = group, controls
            if table.is_monolingual(member):
                if result['tokens_seen'] >= least_tokens:
                    about['results'][member['run']] = result
                    branches = about.get('branches') or bool(member['settings']['init_from'])
                    about['branches'] = branches
                continue
            replicates[member['run']] = [result['log_ppl']]
            for control in controls['best']:
                if control:  # the others, of rates that lost, are noisier than what is compared
                    replicates[control['run']] = [control['languages'][name]['log_ppl']]
    laws = {}
    for group, about in groups.items():
        how = dict(branches=about.get('branches', False))
        laws[group] = law_of(
            about['label'], about['results'], list(about['replicates'].values()), **how
        )
    rows = []
    for member in mixes:
        for name in member['languages']:
            group, controls = found.get((member['run'], name), ('', None))
            rows.append(row_of(member, name, group, laws.get(group), controls))
    return laws, rows


def controls_of(member, name, runs):
    """The control runs of a language of a run: all of them, and the `best` [that reads once, of at
    most the mixture's compute], each a run or None."""
    every = table.controls_of(member, name, runs) if len(table.trained(member)) > 1 else []
    read = sum(result['tokens_seen'] for result in member['languages'].values())

    def tokens_read(control):
        result = control['languages'][name]
        return result.get('tokens_read', result['tokens_seen'])

    def best(candidates):
        return min(candidates, key=lambda c: c['languages'][name]['ppl'], default=None)

    once = [control for control in every if control['settings']['epochs'] <= 1]
    rereading = any(control['settings']['epochs'] > 1 for control in every)
    cheap = [c for c in every if rereading and tokens_read(c) <= MARGIN * read]
    return dict(all=every, once=once, cheap=cheap, best=[best(once), best(cheap)])


def row_of(member, name, group, law, controls):
    """One language of a run, as scaling.json and scaling.csv have it; None is unknown.

    Beside MEASURES and their intervals: what was trained (run, settings, steps, shares by stage),
    measured (tokens_seen, ppl, ppl_se, documents), compared (control, reread_control, how many were
    tried), and how it was read: `reading` (power law, interpolation, extrapolated), budgets, trunks
    and a note that says what is missing."""
    settings, result = member['settings'], member['languages'][name]
    index = list(member['languages']).index(name)
    seen = name in table.trained(member)
    row = dict(run=member['run'], language=name, group=group, corpus=result['corpus'])
    row |= dict(order=result['order'], seeds=len(member['seeds']), steps=member.get('steps'))
    row['shares'] = [stage[index] for stage in settings['stages']]
    row['monolingual'] = seen and table.is_monolingual(member)
    for key in ('tokens_seen', 'ppl', 'ppl_se', 'loss', 'bits_per_byte', 'epochs'):
        row[key] = result.get(key)
    row |= {key: None for name in MEASURES for key in (name, f'{name}_interval')}
    row |= dict(control='', reread_control='', controls_tried=0, rates_tried=0)
    row |= dict(reading='', budgets=0, trunks=0, largest_budget=None, add_budgets=[], note='')
    if not seen:
        return finished(row | dict(note='the run never saw this language'), member, name)
    once, reread = controls['best'] if controls else (None, None)
    every = controls['all'] if controls else []
    rates = {control['settings']['learning_rate'] for control in every}
    row |= dict(controls_tried=len(every), rates_tried=len(rates))
    for key, control in (('control', once), ('reread_control', reread)):
        row[key] = control['run'] if control else ''
        row[f'{key}_ppl'] = control['languages'][name]['ppl'] if control else None
    notes, pair = [], [control and control['languages'][name] for control in (once, reread)]
    others = sum(r['tokens_seen'] for r in member['languages'].values()) - result['tokens_seen']
    values = measure(law, result, *pair, others)
    if values.pop('monolingual_control'):
        row |= dict(control='the law', control_ppl=values['mlpe'])
    row |= values
    if law.curve is not None:
        row |= dict(budgets=len(set(law.tokens)), trunks=law.trunks, reading=law.kind)
        row['largest_budget'] = float(law.tokens.max())
        low, high = law.tokens.min() / MARGIN, law.tokens.max() * MARGIN
        read = [r for r in (result, *pair) if r]
        reached = [r['tokens_seen'] for r in read]
        reached += [law.curve.tokens(r['ppl'])[0] for r in read]
        if not all(low <= tokens <= high for tokens in reached):
            row['reading'] = 'extrapolated'
        if law.kind == 'interpolation':
            notes += hole_notes(row, law, [result, *pair])
    if law.problem:
        notes.insert(0, f'no {"interval" if law.curve else "law"}: {law.problem}')
    if len(result['document_loss']) < 2:
        notes.append('one test document: intervals leave out its error')
    if row['monolingual']:
        row |= dict(teff=1.0, teff_interval=None)
    row['note'] = '; '.join(filter(None, notes))
    return finished(row, member, name)


def hole_notes(row, law, results):
    """Notes on readings between two budgets that leave the curve open; takes the intervals of what
    rests on them away."""
    rests = ('teff', 'mlte'), ('control_teff', 'transfer', 'tau'), ('reread_teff', 'gain')
    notes, broken, wanted = [], set(), []
    for result, names in zip(results, rests):
        hole = result and law.curve.hole(result['ppl'])
        if hole is None:
            continue
        broken |= set(names) | ({'transfer', 'gain', 'tau'} if result is results[0] else set())
        wanted.append(math.sqrt(hole[0] * hole[1]))
        ends = ' and '.join(map(short, hole))
        notes.append(f'the law is open between the budgets {ends}: add {short(wanted[-1])}')
    row |= {f'{name}_interval': None for name in broken} | dict(add_budgets=sorted(set(wanted)))
    return dict.fromkeys(notes)


def finished(row, member, name):
    """Adds what a row says of its run as a whole, and of the paper's run that it repeats."""
    row |= dict(paper_rows='', paper_ppl=None, paper_teff=None)
    published, seen = paper_rows(member), table.trained(member)
    if published and name in seen:
        figures = published[0]['languages'][min(seen.index(name), 1)]
        row['paper_rows'] = ', '.join(other['name'] for other in published)
        row |= dict(paper_ppl=figures['ppl'], paper_teff=figures['teff'])
    about = ('settings', 'model', 'wall_time_s', 'device', 'dtype', 'commit', 'dirty')
    return row | {key: member.get(key) for key in about}


def load_paper_laws():
    """{language: PowerLaw} of GPT small, from results/paper_laws.csv."""
    rows = read_csv('paper_laws.csv')
    return {row['language']: PowerLaw(*(float(row[key]) for key in 'abc')) for row in rows}


# --- tables and files -----------------------------------------------------------------------------


def cell(row, key):
    """A measure of a row with its interval; `> limit` where it is beyond the law's budgets."""
    value, limit = row[key], row['largest_budget']

    def write(value):
        if key == 'mlpe':
            return ppl_text(value)
        if key == 'mlte':
            return short(value) if math.isfinite(value) else f'> {short(limit)}'
        if math.isinf(value):
            return f'> {limit / row["tokens_seen"]:.2f}' if key.endswith('teff') else 'inf'
        return f'{value:.3f}' if key in ('tau', 'transfer_nats', 'gain_nats') else f'{value:.2f}'

    return with_interval(value, row[f'{key}_interval'], write)


COLUMNS = dict(teff='TEff', transfer='transfer [90%]', gain='gain over re-reading')
MORE = dict(mlpe='MLPE', mlte='MLTE', control_teff='TEff of control', transfer_nats='nats')
MORE |= dict(tau='tau', gain_nats='nats, re-reading')


def table_text(rows, every=False):
    """The table of rows: perplexity, TEff, transfer, gain; with `every` all measures, too."""
    measures = COLUMNS | (MORE if every else {})
    measures = {k: v for k, v in measures.items() if any(row[k] is not None for row in rows)}
    notes = list(dict.fromkeys(row['note'] for row in rows if row['note']))
    lines = [('run', 'language', 'tokens', 'PPL', *measures.values(), '')]
    for row in rows:
        name = (
            row['run']
            if every or len(row['run']) <= 32
            else f'{row["run"][:22]}...{row["run"][-7:]}'
        )
        name += f' x{row["seeds"]}' if row['seeds'] > 1 else ''
        mark = '*' * (row['reading'] == 'extrapolated')
        mark += f' {notes.index(row["note"]) + 1}' if row['note'] else ''
        cells = [
            cell(row if every or key != 'teff' else row | dict(teff_interval=None), key)
            for key in measures
        ]
        line = name, row['language'], short(row['tokens_seen']), ppl_text(row['ppl'])
        lines.append((*line, *cells, mark.strip()))
    text = [f'{number}  {note}' for number, note in enumerate(notes, 1)]
    if any(row['reading'] == 'extrapolated' for row in rows):
        text.append('*  tokens seen or a token equivalent lie outside the budgets of the law')
    alone = [row for row in rows if not row['control'] and not row['monolingual']]
    if alone:
        text.append(
            f'{len(alone)} of {len(rows)} have no control: their TEff may come from more optimiser '
            'steps alone; train one: python train.py CONFIG --only=LANGUAGE'
        )
    return '\n'.join(
        [align(lines, 2), *(fill(line, 100, subsequent_indent='   ') for line in text)]
    )


def describe(law):
    """A law in one line, with what keeps it from being trusted."""
    if law.curve is None:
        return f'no law: {law.problem}'
    count = len(law.tokens)
    if law.kind == 'interpolation':
        text = f'interpolated between {count} runs, which lie {law.misfit:.1%} off a power law'
    else:
        a, b, c = (float(value[0]) for value in (law.curve.a, law.curve.b, law.curve.c))
        text = f'1/PPL = {c:.5g} - {a:.5g} * (tokens / {short(UNIT)})^-{b:.4g} from {count} runs'
        text += f' that lie {law.misfit:.1%} off' if count > 3 else ''
        text += '; b at its lower bound: no levelling off' if b < 1.01 * B_MIN else ''
    text += f'; {law.trunks} trunks' if law.trunks > 1 else ''
    noise = f'{law.noise:.1%}, from {law.noise_from} ({law.dof} degrees of freedom)'
    text += f'; run noise {noise if law.dof else "unknown"}'
    if law.holds_from:
        tokens = round(law.holds_from)
        text += f'; a power law holds from {short(tokens)} on: --least_tokens={tokens}'
    return text


def law_entry(group, law):
    """A law as scaling.json has it, with its points and curve, so that no figure needs a refit."""
    entry = dict(group=group, label=law.label, runs=law.runs, kind=law.kind, problem=law.problem)
    entry |= {key: getattr(law, key).tolist() for key in ('tokens', 'ppl', 'ppl_se')}
    for key in ('misfit', 'noise', 'noise_from', 'dof', 'trunks', 'holds_from'):
        entry[key] = getattr(law, key)
    if law.kind == 'power law':
        entry |= {key: float(getattr(law.curve, key)[0]) for key in 'abc'}
    entry['curve'] = None
    if law.curve is not None:
        tokens = np.geomspace(law.tokens.min(), law.tokens.max(), 60)
        curve = dict(tokens=tokens, ppl=np.array([float(law.curve.ppl(t)[0]) for t in tokens]))
        if law.resampled is not None:
            ends = np.transpose([interval(law.resampled.ppl(t)) for t in tokens])
            curve |= dict(low=ends[0], high=ends[1])
        entry['curve'] = {key: values.tolist() for key, values in curve.items()}
    return entry


def write_files(folder, laws, rows):
    """scaling.json and scaling.csv; null and an empty cell where a number is unknown or
    infinite."""
    entries = [law_entry(group, law) for group, law in laws.items()]
    write_json(folder / 'scaling.json', dict(laws=entries, rows=rows))
    write_csv(folder / 'scaling.csv', rows)
    return entries


def write_csv(path, rows):
    """Rows as CSV: an interval as two columns, without settings and other nested values."""
    flat = []
    for row in rows:
        columns = {}
        for key, value in row.items():
            if key.endswith('_interval'):
                low, high = (key.replace('interval', end) for end in ('low', 'high'))
                columns[low], columns[high] = value or (None, None)
            elif key == 'shares':
                columns[key] = ' > '.join(f'{share:g}' for share in value)
            elif not isinstance(value, (dict, list)) and key != 'group':
                columns[key] = value
        flat.append(columns)
    with Path(path).open('w', newline='') as file:
        writer = csv.DictWriter(file, flat[0])
        writer.writeheader()
        for line in flat:
            writer.writerow({k: f'{v:.5g}' if isinstance(v, float) else v for k, v in line.items()})


def load_scaling(folder):
    """(laws, rows) of scaling.json, which is made anew where it is older than a run. Raises
    ConfigError without a finished run."""
    folder = Path(folder)
    path, results = folder / 'scaling.json', list(folder.glob('*/results.json'))
    newest = max((result.stat().st_mtime for result in results), default=0.0)
    if not results or not path.exists() or path.stat().st_mtime < newest:
        return scale(folder)
    stored = json.loads(path.read_text(encoding='utf-8'))
    return stored['laws'], stored['rows']


def scale(folder):
    """Analyses the runs of a folder and writes scaling.json, scaling.csv and figure5.png; returns
    (laws, rows) as scaling.json has them. Raises ConfigError without a finished run."""
    members = table.load_runs(folder)
    if not members:
        advice = 'train some with python train.py config/NAME.py, or name their folder with --out='
        raise ConfigError(
            f'there is no finished run in {folder}/ (no {folder}/RUN/results.json); {advice}'
        )
    laws, rows = analyse(members)
    entries = write_files(folder, laws, rows)
    for law in laws.values():
        print(f'{law.label}: {describe(law)}')
    draw_laws(entries, folder / 'figure5.png')
    return entries, rows


def draw_laws(laws, path):
    """Figure 5: the monolingual runs of each text, and the law of each model with its 90% band."""
    texts = {}
    for law in laws:
        if law['curve']:
            texts.setdefault(law['label'].split(',')[0], []).append(law)
    if not texts:
        return False
    size = (5.2 * min(2, len(texts)), 4 * -(-len(texts) // 2))
    grid = dict(nrows=-(-len(texts) // 2), ncols=min(2, len(texts)))
    with picture(path, '', size, **grid) as axes:
        for ax, (text, members) in zip(axes.flat, texts.items()):
            for color, law in zip(COLORS * len(members), members):
                draw_law(ax, law, color)
            ax.set(title=text, xlabel='tokens', ylabel='perplexity')
            log_ticks(ax.xaxis, short)
            log_ticks(ax.yaxis)
        for ax in list(axes.flat)[len(texts) :]:
            ax.axis('off')
    return True


def draw_law(axes, law, color):
    """The points of a law of scaling.json and its curve within them."""
    curve = {key: np.array(values, float) for key, values in law['curve'].items()}
    label = law['label'].partition(', ')[2]
    axes.plot(curve['tokens'], curve['ppl'], color=color, lw=1.4)
    axes.errorbar(law['tokens'], law['ppl'], fmt='o', ms=4, color=color, label=label)
    if 'low' in curve:
        band = curve['low'], curve['high']
        axes.fill_between(curve['tokens'], *band, color=color, alpha=0.15, lw=0)


def main():
    entries, rows = scale(Path(out))
    print('\n' + table_text([row for row in rows if wide or not row['monolingual']], wide))
    print(f'\nwrote {out}/scaling.json, {out}/scaling.csv, {out}/figure5.png')


if __name__ == '__main__':
    run(globals(), main)
