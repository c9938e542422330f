"""Monolingual scaling laws, token equivalents and transfer (Section 3, Appendix B, Figure 5).

    python fit_scaling.py                             # the runs of out/: table, files, Figure 5
    python fit_scaling.py --least_tokens=1_300_000    # fit the laws to the larger budgets only

  MLPE      monolingual perplexity equivalent: the law's perplexity at the tokens that the run saw
  MLTE      monolingual token equivalent: the tokens a monolingual run needs for the perplexity
  TEff      token efficiency, MLTE / tokens seen: 1 for a monolingual run
  transfer  TEff / TEff of the best single-epoch control (train.py --only=LANGUAGE) or of the
            monolingual run on as many tokens (1): what the other languages add
  gain      TEff / TEff of the best control within the mixture's compute, which may re-read its text
            (train.py --only=LANGUAGE --epochs=4): whether the other languages pay off
  nats      log perplexity of the control minus that of the run, for transfer and for gain
  tau       (transfer - 1) * own / other tokens: what a token of the others is worth in own tokens
Intervals are 90% intervals. A row without one says why, and which runs would give it.
"""

import csv
import json
import math
from functools import partial
from pathlib import Path
from textwrap import fill

from lib.configurator import require
from lib.configurator import run as run_script

import numpy as np

from lib.estimate import interval
from lib.files import write_json
from lib.laws import B_MIN, FORM, UNIT, PowerLaw, errors_of, law_of
from lib.paper import paper_runs_of
from lib.plots import COLORS, MARKERS, log_ticks, picture
from lib.runs import controls_of, group_of, is_monolingual, label_of, load_runs, trained
from lib.tables import align, ppl_text, short

out = 'out'  # folder of the runs; the tables and the picture are written here too
least_tokens = 0  # fit the laws to budgets of at least so many tokens; 0: all
wide = False  # print all rows and measures; else what fits 100 columns

# --- the measures of a result ---------------------------------------------------------------------

# For each measure, the results that the law converts to tokens (own: the run's tokens, converted to
# perplexity). It has no interval where the law is too uncertain for one of them.
MEASURES = dict(mlpe='own', mlte='run', teff='run', control_teff='control', transfer='run control')
MEASURES |= dict(transfer_nats='', tau='run control', reread_teff='reread', gain='run reread')
MEASURES |= dict(gain_nats='')
UNKNOWN = {key: None for name in MEASURES for key in (name, f'{name}_interval')}


def among(law, tokens):
    """Whether tokens lie within the budgets of a law."""
    return law.tokens.min() / MARGIN <= tokens <= law.tokens.max() * MARGIN


def measure(law, result, control=None, reread=None, others=0.0):
    """The MEASURES of a result, {name: value, name_interval: (low, high)}, None where unknown.

    control, reread: the best control that reads once, and within the mixture's compute, or None;
    others: tokens of the other languages. Further keys: by_law, the controls ('control', 'reread')
    that the monolingual run on as many tokens beats, within the budgets of the law; holes, pairs of
    budgets between which it is too uncertain for an interval; outside, tokens outside of them."""
    results, own = {'run': result, 'control': control, 'reread': reread}, result['tokens_seen']
    results = {role: one for role, one in results.items() if one}
    reached = {role: law.curve.tokens(one['ppl'])[0] for role, one in results.items() if law.curve}
    reached |= {'own': own} if law.curve else {}
    known = law.curve and among(law, own)
    by_law = {role for role in ('control', 'reread') if known and reached.get(role, own) < own}
    baselines = {'transfer': 'control', 'gain': 'reread'}
    baselines = {key: 'law' if role in by_law else role for key, role in baselines.items()}

    @np.errstate(all='ignore')
    def values_of(log_ppl, curve):
        """MEASURES from log perplexities by role: (1,), or resamples (R,)."""
        values, teff = {}, {}
        if curve:
            mlte = {role: curve.tokens(np.exp(x)) for role, x in log_ppl.items()}
            teff = {role: mlte[role] / results[role]['tokens_seen'] for role in mlte}
            values = dict(mlpe=curve.ppl(own), mlte=mlte['run'], teff=teff['run'])
            values |= {f'{role}_teff': teff[role] for role in teff if role != 'run'}
            log_ppl, teff = log_ppl | {'law': np.log(values['mlpe'])}, teff | {'law': 1.0}
        for name, baseline in baselines.items():
            if baseline in log_ppl:
                values[f'{name}_nats'] = log_ppl[baseline] - log_ppl['run']
            if baseline in teff:
                values[name] = teff['run'] / teff[baseline]
        if others and 'transfer' in values:
            values['tau'] = (values['transfer'] - 1) * own / others
        return values

    log_ppl = {role: np.log([one['ppl']]) for role, one in results.items()}
    found = {name: float(value[0]) for name, value in values_of(log_ppl, law.curve).items()}
    holes = {role: law.curve and law.curve.hole(one['ppl']) for role, one in results.items()}
    holes = {role: hole for role, hole in holes.items() if hole and role not in by_law}
    outside = {k: n for k, n in reached.items() if not among(law, n) and k not in by_law}
    interpolated = law.curve and law.curve.kind == 'interpolation'  # where nothing is known outside
    uncertain = {*holes, *(outside if interpolated else ())}
    if law.noises is not None:
        for role, one in results.items():
            log_ppl[role] = log_ppl[role] + errors_of(one, law.noises, role)
        for name, values in values_of(log_ppl, law.resampled).items():
            if uncertain.isdisjoint(MEASURES[name].split()):
                least = -math.inf if name.endswith('nats') or name == 'tau' else 0.0
                found[f'{name}_interval'] = tuple(map(float, interval(values, least)))
    for role in by_law:
        found |= {f'{role}_teff': 1.0, f'{role}_teff_interval': None}
    found |= dict(by_law=by_law, holes=list(holes.values()), outside=outside)
    return UNKNOWN | found


# --- all runs -------------------------------------------------------------------------------------

MARGIN = 1.02  # languages are sampled, so tokens may deviate by 2% from their share


def analyse(runs):
    """({group: Law}, rows) of runs: a row for each language of each run that is not a control."""
    mixes = [run for run in runs if not run['settings']['only']]
    groups, controls = {}, {}
    for run in mixes:
        for name in trained(run):
            groups.setdefault(group_of(run, name), []).append((run, name))
            controls[run['run'], name] = best_controls(run, name, runs)
    laws = {group: law_of_group(members, controls) for group, members in groups.items()}
    rows = [row_of(run, name, laws, controls) for run in mixes for name in run['languages']]
    return laws, rows


def best_controls(run, name, runs):
    """(all controls of a language of a run, the best single-epoch control or None, the best within
    the mixture's compute or None where none re-reads)."""
    every = controls_of(run, name, runs) if len(trained(run)) > 1 else []
    once = [control for control in every if control['settings']['epochs'] <= 1]
    budget = MARGIN * sum(result['tokens_seen'] for result in run['languages'].values())
    affordable = [c for c in every if c['languages'][name]['tokens_read'] <= budget]
    best = partial(min, key=lambda control: control['languages'][name]['ppl'], default=None)
    reread = [control for control in affordable if control not in once]
    return every, best(once), best(affordable) if reread else None


def law_of_group(members, controls):
    """The Law of a group, [(run, language)], through its monolingual runs. Run noise is that of the
    mixtures and their best controls from least_tokens on; worse controls are noisier."""
    results, replicates, branches = {}, {}, False
    for run, name in members:
        result = run['languages'][name]
        if result['tokens_seen'] < least_tokens:
            continue
        if is_monolingual(run):
            results[run['run']] = result
            branches |= bool(run['settings']['init_from'])
        else:
            for one in filter(None, (run, *controls[run['run'], name][1:])):
                replicates.setdefault(one['run'], []).append(one['languages'][name]['log_ppl'])
    noisiest = [max(clones, key=np.var) for clones in replicates.values()]  # of one run
    return law_of(label_of(*members[0]), results, noisiest, branches)


def row_of(run, name, laws, controls):
    """A row of scaling.json and scaling.csv: a language of a run; None is unknown. It has training,
    scores, the `comparison` with law and controls, and the paper's numbers for its settings."""
    languages, stages = list(run['languages']), run['settings']['stages']
    result, seen = run['languages'][name], trained(run)
    group = group_of(run, name) if name in seen else ''
    row = dict(run=run['run'], language=name, group=group, corpus=result['corpus'])
    row |= dict(order=result['order'], seeds=len(run['seeds']), steps=run.get('steps'))
    row['shares'] = [stage[languages.index(name)] for stage in stages]
    row['monolingual'] = name in seen and is_monolingual(run)
    scores = ('tokens_seen', 'ppl', 'ppl_se', 'loss', 'bits_per_byte', 'epochs')
    row |= {key: result.get(key) for key in scores} | UNKNOWN
    row |= dict(control='', reread_control='', controls_tried=0, rates_tried=0)
    row |= dict(reading='', budgets=0, trunks=0, largest_budget=None, add_budgets=[])
    row |= dict(note='the run never saw this language', control_ppl=None, reread_control_ppl=None)
    row |= dict(paper_rows='', paper_ppl=None, paper_teff=None)
    if name in seen:
        row |= comparison(run, name, laws[group], *controls[run['run'], name])
        published = paper_runs_of(run)
        if published:
            theirs = published[0].rows[min(seen.index(name), 1)]
            row['paper_rows'] = ', '.join(other.name for other in published)
            row |= {key: theirs[key] for key in ('paper_ppl', 'paper_teff')}
    about = ('settings', 'model', 'wall_time_s', 'device', 'dtype', 'commit', 'dirty')
    return row | {key: run.get(key) for key in about}


def comparison(run, name, law, every, once, reread):
    """The MEASURES of a language of a run, and the controls and the law behind them.

    reading: power law, interpolation or extrapolated; add_budgets: tokens of monolingual runs that
    would close holes of the law; note: what is missing, and why."""
    result, *compared = (one and one['languages'][name] for one in (run, once, reread))
    tokens = sum(other['tokens_seen'] for other in run['languages'].values())
    row = measure(law, result, *compared, others=tokens - result['tokens_seen'])
    row |= dict(controls_tried=len(every))
    row['rates_tried'] = len({control['settings']['learning_rate'] for control in every})
    for key, control, theirs in zip(('control', 'reread_control'), (once, reread), compared):
        if control:
            row |= {key: control['run'], f'{key}_ppl': theirs['ppl']}
    for role in row.pop('by_law'):
        key = dict(control='control', reread='reread_control')[role]
        row |= {key: 'the law', f'{key}_ppl': row['mlpe']}
    notes = [f'no {"interval" if law.curve else "law"}: {law.problem}'] if law.problem else []
    holes = {math.sqrt(low * high): (low, high) for low, high in row.pop('holes')}
    row['add_budgets'] = sorted(holes)
    for budget, ends in holes.items():
        ends = ' and '.join(map(short, ends))
        notes.append(f'the law is too uncertain between the budgets {ends}: add {short(budget)}')
    if law.curve:
        row |= dict(budgets=len(set(law.tokens)), trunks=law.trunks)
        row |= dict(reading=law.curve.kind, largest_budget=float(law.tokens.max()))
    outside = row.pop('outside').values()
    if outside:
        row['reading'] = 'extrapolated'
        far = ', '.join(short(n) if math.isfinite(n) else 'more' for n in sorted(set(outside)))
        ends = ' to '.join(map(short, (law.tokens.min(), law.tokens.max())))
        notes.append(f'{far} tokens lie outside of the budgets of the law, {ends}')
    read = dict(run=result.get('epochs'), law=law.epochs, control=(compared[0] or {}).get('epochs'))
    often = [f'the {who} {times:.2f} times' for who, times in read.items() if (times or 0) > MARGIN]
    if often:
        notes.append(f'the text is read more than once: by {", ".join(often)}')
    if len(result['document_loss']) < 2:
        notes.append('one test document: intervals leave out its error')
    if is_monolingual(run):
        row |= dict(teff=1.0, teff_interval=None)
    return row | dict(note='; '.join(notes))


# --- tables and files -----------------------------------------------------------------------------


def cell(row, key):
    """A measure of a row as `value [low, high]`; `> limit` beyond the law's budgets; - unknown."""
    value, ends, limit = row[key], row[f'{key}_interval'], row['largest_budget']

    def write(value):
        if key == 'mlpe':
            return ppl_text(value)
        if key == 'mlte':
            return short(value) if math.isfinite(value) else f'> {short(limit)}'
        if math.isinf(value):
            return f'> {limit / row["tokens_seen"]:.2f}' if key.endswith('teff') else 'inf'
        return f'{value:.3f}' if key in ('tau', 'transfer_nats', 'gain_nats') else f'{value:.2f}'

    if value is None or math.isnan(value):
        return '-'
    if ends is None or math.isinf(ends[0]):
        return write(value)
    low, high = ('inf' if math.isinf(end) else write(end) for end in ends)
    return f'{write(value)} [{low}, {high}]'


def table_text(rows, every=False):
    """The table of rows: perplexity, TEff, transfer and gain; or `every` measure."""
    titles = dict(teff='TEff', transfer='transfer [90%]', gain='gain over re-reading')
    titles = {key: key.replace('_', ' ') for key in MEASURES} if every else titles
    titles = {k: title for k, title in titles.items() if any(row[k] is not None for row in rows)}
    notes = list(dict.fromkeys(row['note'] for row in rows if row['note']))
    lines = [('run', 'language', 'tokens', 'PPL', *titles.values(), '')]
    for row in rows:
        name = row['run']
        if len(name) > 32 and not every:
            name = f'{name[:22]}...{name[-7:]}'
        name += f' x{row["seeds"]}' if row['seeds'] > 1 else ''
        mark = str(notes.index(row['note']) + 1) if row['note'] else ''
        line = name, row['language'], short(row['tokens_seen']), ppl_text(row['ppl'])
        shown = row if every else row | dict(teff_interval=None)
        lines.append((*line, *(cell(shown, key) for key in titles), mark))
    text = [f'{number}  {note}' for number, note in enumerate(notes, 1)]
    mixed = [row for row in rows if row['tokens_seen'] and not row['monolingual']]
    lacking = sum(not row['control'] for row in mixed)
    if lacking:
        why = 'their TEff may come from more optimiser steps alone'
        text.append(f'{lacking} of {len(mixed)} have no control (train.py --only=LANGUAGE): {why}')
    return '\n'.join([align(lines, 2), *(fill(x, 100, subsequent_indent='   ') for x in text)])


def describe(law):
    """A law in one line, with its caveats."""
    if not law.curve:
        return f'no law: {law.problem}'
    count = len(law.runs)
    if law.curve.kind == 'interpolation':
        text = f'interpolated between {count} runs, which lie {law.misfit:.1%} off a power law'
    else:
        a, b, c = (value[0] for value in vars(law.curve).values())
        text = f'{FORM} = {c:.5g} - {a:.5g} * (tokens / {short(UNIT)})^-{b:.4g} from {count} runs'
        text += f' that lie {law.misfit:.1%} off' if count > 3 else ''
        text += '; b at its lower bound: no levelling off' if b < 1.01 * B_MIN else ''
    text += f'; {law.trunks} trunks' if law.trunks > 1 else ''
    if law.dof:
        text += f'; run noise {law.noise:.1%}, from {law.noise_from} ({law.dof} degrees of freedom)'
    text += f'; no interval: {law.problem}' if law.problem else ''
    if law.holds_from:
        text += f'; a power law holds from --least_tokens={law.holds_from:.0f} on'
    return text


def law_entry(group, law):
    """A law as scaling.json has it, with its points and curve, so that no figure needs a refit."""
    left_out = 'curve', 'resampled', 'noises'
    entry = {k: np.asarray(v).tolist() for k, v in vars(law).items() if k not in left_out}
    entry |= dict(group=group, kind=law.curve.kind if law.curve else '', curve=None)
    if isinstance(law.curve, PowerLaw):
        entry |= {key: float(value[0]) for key, value in vars(law.curve).items()}
    if law.curve:
        tokens = np.geomspace(law.tokens.min(), law.tokens.max(), 60)
        ppl = [float(law.curve.ppl(t)[0]) for t in tokens]
        entry['curve'] = dict(tokens=tokens.tolist(), ppl=ppl)
    if law.resampled:
        ends = np.transpose([interval(law.resampled.ppl(t)) for t in tokens]).tolist()
        entry['curve'] |= dict(low=ends[0], high=ends[1])
    return entry


def write_csv(path, rows):
    """Rows as CSV: an interval as two columns, without settings and other nested values."""
    lines = []
    for row in rows:
        line = {}
        for key, value in row.items():
            if key.endswith('_interval'):
                low, high = (key.replace('interval', end) for end in ('low', 'high'))
                line[low], line[high] = value or (None, None)
            elif key == 'shares':
                line[key] = ' > '.join(f'{share:g}' for share in value)
            elif not isinstance(value, (dict, list)) and key != 'group':
                line[key] = value
        lines.append({k: f'{v:.5g}' if isinstance(v, float) else v for k, v in line.items()})
    with Path(path).open('w', newline='') as file:
        writer = csv.DictWriter(file, lines[0] if lines else ())  # controls have no rows
        writer.writeheader()
        writer.writerows(lines)


def load_scaling(folder):
    """(laws, rows) of scaling.json, rebuilt unless it is of these runs, code and least_tokens.
    Raises ConfigError without a finished run."""
    path = Path(folder, 'scaling.json')
    stored = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
    fresh = stored.get('made_of') == made_of(folder)
    return (stored['laws'], stored['rows']) if fresh else scale(folder)


def made_of(folder):
    """What laws and rows are made of: least_tokens, and the files of the runs and of the code."""
    code = [Path(__file__), *Path(__file__).parent.glob('lib/*.py')]
    files = [*Path(folder).glob('*/results.json'), *code]
    return [least_tokens, *sorted([f.parent.name, f.name, f.stat().st_mtime_ns] for f in files)]


def scale(folder):
    """Analyses the runs of a folder, and writes scaling.json, scaling.csv and figure5.png; returns
    (laws, rows). Raises ConfigError without a finished run."""
    runs, folder = load_runs(folder), Path(folder)
    missing = f'there is no finished run in {folder}/ (no {folder}/RUN/results.json)'
    require(runs, f'{missing}: train one, python train.py config/NAME.py, or set --out=FOLDER')
    laws, rows = analyse(runs)
    for law in laws.values():
        print(f'{law.label}: {describe(law)}')
    code = sorted(set().union(*(run['code'] for run in runs)))
    if len(code) > 1 or ' and edits' in ''.join(code):
        print(f'warning: runs of different or edited code are compared: {", ".join(code)}')
    entries = [law_entry(group, law) for group, law in laws.items()]
    write_json(folder / 'scaling.json', dict(made_of=made_of(folder), laws=entries, rows=rows))
    write_csv(folder / 'scaling.csv', rows)
    draw_laws(entries, folder / 'figure5.png')
    return entries, rows


def by_text(laws):
    """The laws of scaling.json that have runs: {text that they are measured on: laws}."""
    texts = {}
    for law in (law for law in laws if law['runs']):
        texts.setdefault(law['label'].partition(', ')[0], []).append(law)
    return texts


def draw_laws(laws, file):
    """Figure 5: the monolingual runs and the laws of each text; no file where there is none."""
    Path(file).unlink(missing_ok=True)
    if texts := by_text(laws):
        grid = dict(nrows=-(-len(texts) // 2), ncols=min(2, len(texts)))
        with picture(file, '', (5.2 * grid['ncols'], 4 * grid['nrows']), **grid) as axes:
            looks = {}
            for ax, (text, members) in zip(axes.flat, texts.items()):
                draw_text(ax, members, looks)
                ax.set(title=text, xlabel='tokens', ylabel='perplexity')
            for ax in axes.flat[len(texts) :]:
                ax.axis('off')


def draw_text(axes, laws, looks):
    """The runs of the laws of one text, and the curves between them with their 90% intervals.
    looks: (marker, colour) of each (label, how often it was drawn here), {} or of other panels."""
    drawn = []
    for law in laws:
        label, number = law['label'].partition(', ')[2], len(looks)
        drawn.append(label)
        look = MARKERS[number // len(COLORS) % len(MARKERS)], COLORS[number % len(COLORS)]
        marker, color = looks.setdefault((label, drawn.count(label)), look)
        label += '' if law['curve'] else ' (no law)'
        axes.plot(law['tokens'], law['ppl'], marker, ms=4, color=color, label=label)
        curve = {key: np.array(values, float) for key, values in (law['curve'] or {}).items()}
        if curve:
            axes.plot(curve['tokens'], curve['ppl'], color=color, lw=1.4)
        if 'low' in curve:
            ends = curve['low'], curve['high']
            axes.fill_between(curve['tokens'], *ends, color=color, alpha=0.15, lw=0)
    log_ticks(axes.xaxis, short)
    log_ticks(axes.yaxis)


def main():
    _, rows = scale(out)
    print('\n' + table_text([row for row in rows if wide or not row['monolingual']], wide))
    drawn = f', {out}/figure5.png' * Path(out, 'figure5.png').exists()
    print(f'\nwrote {out}/scaling.json, {out}/scaling.csv{drawn}')


if __name__ == '__main__':
    run_script(globals(), main)
