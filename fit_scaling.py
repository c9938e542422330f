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
from dataclasses import dataclass
from pathlib import Path

from lib.configurator import ConfigError, run

import numpy as np

from lib import runs as table
from lib.bootstrap import document_weights, generator, interval, widening
from lib.files import write_json
from lib.laws import B_MAX, B_MIN, UNIT, Interpolation, PowerLaw, fit, to_y
from lib.paper import paper_rows, read_csv
from lib.plots import COLORS, log_ticks, picture
from lib.tables import align, ppl_text, short, with_interval

out = 'out'  # folder of the runs; the tables and the picture are written here too
least_tokens = 0  # fit the laws to budgets of at least so many tokens; 0: all
wide = False  # print every column; else what fits 100 columns

# --- a law and its resamples ----------------------------------------------------------------------

RESAMPLES = 1000
MAX_MISFIT = 0.05  # above this RMS residual in log perplexity, interpolate instead
HOLDS = 0.005  # a residual of so much for each degree of freedom is that of runs on a power law
ENOUGH = dict(power=5, interpolation=6)  # budgets that an interval needs
SHARED = 0.5  # part of a branch's noise that all branches of its trunk share
RESIDUALS = 2.0  # variance of a branch over that of its residuals, which show no shared noise


@dataclass
class Law:
    """The law of one group: its points and curve, and the resampled curves.

    points: (n,) tokens, perplexities, standard errors. curve, resampled: PowerLaw or Interpolation
    of one and of RESAMPLES data sets, or None. noise: standard deviation of a run's log perplexity,
    with `dof` degrees of freedom; noises: resampled (R,). problem: why there is no curve, or else
    no interval."""

    label: str
    runs: list
    tokens: np.ndarray
    ppl: np.ndarray
    ppl_se: np.ndarray
    curve: object = None
    resampled: object = None
    misfit: float = 0.0  # RMS residual of the power law, in log perplexity
    noise: float = 0.0
    noise_from: str = ''
    dof: int = 0
    trunks: int = 1
    problem: str = ''
    holds_from: float = 0.0  # tokens of the smallest budget from which a power law holds
    noises: object = None

    @property
    def kind(self):
        return 'power law' if isinstance(self.curve, PowerLaw) else 'interpolation'


def law_of(label, results, replicates=(), resamples=RESAMPLES, branches=False):
    """The Law of monolingual results, {run: result}.

    replicates: log perplexities of the seeds of each compared run, (languages, seeds) each. Their
    spread is the run noise where it has two degrees of freedom; else the residuals of the power law
    are. branches: the runs share trunks, and with them noise."""
    results = dict(sorted(results.items(), key=lambda item: item[1]['tokens_seen']))
    runs, values = list(results), list(results.values())
    columns = (
        np.array([v[key] for v in values], float) for key in ('tokens_seen', 'ppl', 'ppl_se')
    )
    law = Law(label, runs, *columns)
    law.trunks = max((len(v['log_ppl']) for v in values), default=0)
    law.problem = determines_none(law.tokens, law.ppl)
    if law.problem:
        return law
    log_tokens, log_ppl = np.log(law.tokens), np.log(law.ppl)
    law.curve = fit(log_tokens, log_ppl[None])
    if law.curve.b[0] > 0.99 * B_MAX:
        law.problem = 'the perplexity stops falling after the smallest budget; add smaller ones'
        law.curve = None
        return law
    weights = np.array([len(v['log_ppl']) for v in values])
    residuals = log_ppl - np.log(law.curve.ppl(law.tokens))
    law.misfit = float(np.sqrt(np.mean(residuals**2)))
    if law.misfit > MAX_MISFIT:
        half = np.full((1, len(values) - 1), 0.5)
        law.curve = Interpolation(log_tokens, log_ppl[None], half)
    squares, left = (weights * residuals**2).sum(), len(values) - 3  # three parameters
    if branches:
        squares *= RESIDUALS
    set_noise(law, values, replicates, (squares, left))
    law.problem = no_interval(law)
    if not law.problem:
        resample(law, values, (squares, left), branches, resamples)
    law.holds_from = power_law_from(log_tokens, log_ppl)
    return law


def determines_none(tokens, ppl):
    """Why the runs determine no law; empty if they do."""
    numbers, budgets = np.concatenate([tokens, ppl]), np.unique(tokens)
    if len(budgets) < 3:
        there = f'there are {len(budgets)} ({", ".join(map(short, budgets)) or "none"})'
        return f'a scaling law needs monolingual runs of at least 3 budgets; {there}'
    if not ((0 < numbers) & (numbers < np.inf)).all():
        return 'budgets and perplexities of a scaling law must be finite and above zero'
    first, last = (to_y(ppl[tokens == budget]).mean() for budget in budgets[[0, -1]])
    if last <= first:
        return 'the perplexity does not fall from the smallest to the largest budget'
    return ''


def set_noise(law, values, replicates, residuals):
    """Run noise from replicates (of the compared runs, and once for all budgets of a law: they
    share their trunks), else from residuals."""
    spreads = [np.array(v) for v in replicates if len(v[0]) > 1]
    spreads = [(v.shape[1] - 1, v.var(1, ddof=1).mean()) for v in spreads]
    own = [np.var(v['log_ppl'], ddof=1) for v in values if len(v['log_ppl']) > 1]
    if own:
        spreads.append((law.trunks - 1, np.mean(own)))
    spreads = [(n, variance) for n, variance in spreads if math.isfinite(variance)]
    squares, dof = sum(n * variance for n, variance in spreads), sum(n for n, _ in spreads)
    law.noise_from = 'replicates'
    if dof < 2 and law.kind == 'power law':
        (squares, dof), law.noise_from = residuals, 'residuals'
    if dof < 2:
        law.noise_from, dof = '', 0
    law.noise, law.dof = math.sqrt(squares / dof) if dof else 0.0, int(dof)


def no_interval(law):
    """Why a law gives no intervals; empty if it does."""
    count, needed = len(set(law.tokens)), ENOUGH[law.kind.split()[0]]
    off = f'{count} budgets lie {law.misfit:.0%} off a power law' if law.misfit > MAX_MISFIT else ''
    if count < needed:
        return f'{off or f"{count} budgets"}: an interval needs {needed} at least'
    if not law.dof:
        return f'{off or "run noise is unknown"}: train a second and third seed of the mixture'
    return ''


def resample(law, values, residuals, branches, resamples):
    """Parametric bootstrap: the curve of its own points plus document and run noise.

    The noise is known from few degrees of freedom, so a factor common to a resample makes it
    Student's t. Where residuals are larger than replicates explain, the runs do not quite follow
    the law, and have errors as large as the residuals."""
    rng = generator(*law.ppl)
    law.noises = law.noise * np.sqrt(law.dof / rng.chisquare(law.dof, resamples))
    squares, left = residuals
    misfit = 1.0
    if law.kind == 'power law' and left >= 2:
        misfit = max(1.0, math.sqrt(squares / left) / max(law.noise, 1e-9))
    shared, errors = rng.standard_normal((resamples, law.trunks)), []
    for result in values:
        seeds = len(result['log_ppl'])
        own = rng.standard_normal((resamples, seeds))
        if branches:
            own = math.sqrt(1 - SHARED) * own + math.sqrt(SHARED) * shared[:, :seeds]
        errors.append(document_errors(result, resamples) + misfit * law.noises * own.mean(1))
    if law.kind == 'power law':
        centre = np.log(law.curve.ppl(law.tokens))
        law.resampled = fit(np.log(law.tokens), centre + np.stack(errors, 1))
    else:
        place = rng.uniform(-0.2, 1.2, (resamples, len(values) - 1))
        log_ppl = np.log(law.ppl) + np.stack(errors, 1)
        law.resampled = Interpolation(np.log(law.tokens), log_ppl, place)


def document_errors(result, resamples):
    """Resampled errors (R,) of a log perplexity that come from the choice of test documents."""
    loss, tokens = result['document_loss'], result['document_tokens']
    if len(loss) < 2:
        return np.zeros(resamples)
    weights = document_weights(len(loss), resamples)
    errors = weights @ loss / (weights @ tokens) - loss.sum() / tokens.sum()
    return widening(len(loss)) * errors


def power_law_from(log_tokens, log_ppl):
    """Tokens of the smallest budget from which five budgets or more follow a power law to within
    HOLDS; 0 where all do or none."""
    for first in range(len(log_tokens) - 4):
        x, y = log_tokens[first:], log_ppl[first:]
        misfit = y - np.log(fit(x, y[None]).ppl(np.exp(x)))
        if (misfit**2).sum() / (len(x) - 3) < HOLDS**2:
            return float(np.exp(x[0])) if first else 0.0
    return 0.0


# --- a run by a law -------------------------------------------------------------------------------


def equivalents(law, results):
    """Of each result (dict or None): (log perplexity, log MLTE) and their resamples (R,), or None
    where the law has none."""
    found = []
    for role, result in enumerate(results):
        if result is None:
            found.append(None)
            continue
        resampled, ppl = None, result['ppl']
        if law.resampled is not None:
            rng = generator(ppl, role)
            noise = law.noises * rng.standard_normal(len(law.noises))
            errors = noise / math.sqrt(len(result['log_ppl']))
            resampled = math.log(ppl) + errors + document_errors(result, len(errors))
        found.append((math.log(ppl), resampled))
    return found


MEASURES = ('mlpe', 'mlte', 'teff', 'control_teff', 'transfer', 'transfer_nats', 'tau')
MEASURES += ('reread_teff', 'gain', 'gain_nats')


def measure(law, result, control=None, reread=None, others=0.0):
    """{name: value, name_interval: (low, high) or None} of MEASURES for a result and its controls.

    control: the best that reads once, or None; where the monolingual run on as many tokens is
    better, TEff 1, that is the control. reread: the best of at most the compute of the mixture.
    others: tokens of the other languages. Ratios are of TEff, so that controls of other seeds,
    which have a few tokens more or less, do not count as better or worse."""
    roles = [result, control, reread]
    pairs = equivalents(law, roles)

    def numbers(curve, log_ppl, monolingual):
        """MEASURES as a dict, of numbers or of resamples."""
        seen = result['tokens_seen']
        mlpe = np.log(curve.ppl(seen)).reshape(-1)
        mlte = [None if p is None else curve.tokens(np.exp(p)) for p in log_ppl]
        values = dict(mlpe=np.exp(mlpe), mlte=mlte[0], teff=mlte[0] / seen)
        with np.errstate(all='ignore'):
            if control is not None:
                values['control_teff'] = mlte[1] / control['tokens_seen']
                best = 1.0 if monolingual else values['control_teff']
                values['transfer'] = values['teff'] / best
                values['transfer_nats'] = (mlpe if monolingual else log_ppl[1]) - log_ppl[0]
                if others:
                    values['tau'] = (values['transfer'] - 1) * seen / others
            if reread is not None:
                values['reread_teff'] = mlte[2] / reread['tokens_seen']
                values['gain'] = values['teff'] / values['reread_teff']
                values['gain_nats'] = log_ppl[2] - log_ppl[0]
        return values

    points = [None if pair is None else np.array([pair[0]]) for pair in pairs]
    monolingual = False
    if control is not None:
        control_teff = law.curve.tokens(control['ppl'])[0] / control['tokens_seen']
        monolingual = bool(control_teff < 1)
    values = {k: float(v[0]) for k, v in numbers(law.curve, points, monolingual).items()}
    values['monolingual_control'] = monolingual
    if law.resampled is None:
        return values | {f'{name}_interval': None for name in MEASURES}
    drawn = numbers(law.resampled, [pair and pair[1] for pair in pairs], monolingual)
    ends = {name: None for name in MEASURES}
    for name, resamples in drawn.items():
        least = -math.inf if name.endswith('nats') or name == 'tau' else 0.0
        ends[name] = tuple(float(end) for end in interval(resamples, least))
    return values | {f'{name}_interval': pair for name, pair in ends.items()}


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
    notes = []
    if law and law.curve:
        others = sum(r['tokens_seen'] for r in member['languages'].values()) - result['tokens_seen']
        pair = [control and control['languages'][name] for control in (once, reread)]
        values = measure(law, result, *pair, others)
        if values.pop('monolingual_control'):
            row |= dict(control='the law', control_ppl=values['mlpe'])
        row |= values
        row |= dict(budgets=len(set(law.tokens)), trunks=law.trunks, reading=law.kind)
        row['largest_budget'] = float(law.tokens.max())
        notes.append(law.problem and f'no interval: {law.problem}')
        if len(result['document_loss']) < 2:
            notes.append('one test document: intervals leave out its error')
        low, high = law.tokens.min() / MARGIN, law.tokens.max() * MARGIN
        read = [r for r in (result, *pair) if r]
        reached = [r['tokens_seen'] for r in read]
        reached += [law.curve.tokens(r['ppl'])[0] for r in read]
        if not all(low <= tokens <= high for tokens in reached):
            row['reading'] = 'extrapolated'
        if law.kind == 'interpolation':
            notes += hole_notes(row, law, [result, *pair])
    elif law:
        notes.append(f'no law: {law.problem}')
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


COLUMNS = dict(teff='TEff', transfer='transfer', transfer_nats='nats', gain='gain over re-reading')
MORE = dict(mlpe='MLPE', mlte='MLTE', control_teff='control TEff', gain_nats='nats', tau='tau')


def table_text(rows, every=False):
    """The table of rows: perplexity, TEff, transfer, gain; with `every` all measures, too."""
    measures = COLUMNS | (MORE if every else {})
    measures = {k: v for k, v in measures.items() if any(row[k] is not None for row in rows)}
    notes = list(dict.fromkeys(row['note'] for row in rows if row['note']))
    lines = [('run', 'language', 'tokens', 'PPL', *measures.values(), '')]
    for row in rows:
        run_name = row['run'] if every else shortened(row['run'])
        mark = '*' * (row['reading'] == 'extrapolated')
        mark += f' {notes.index(row["note"]) + 1}' if row['note'] else ''
        cells = [cell(row, key) for key in measures]
        seeds = f' x{row["seeds"]}' if row['seeds'] > 1 else ''
        line = (run_name + seeds, row['language'], short(row['tokens_seen']), ppl_text(row['ppl']))
        lines.append((*line, *cells, mark.strip()))
    text = [align(lines, 2), *(f'{number}  {note}' for number, note in enumerate(notes, 1))]
    if any(row['reading'] == 'extrapolated' for row in rows):
        text.append('*  tokens seen or a token equivalent lie outside the budgets of the law')
    alone = [row for row in rows if not row['control'] and not row['monolingual']]
    if alone:
        advice = 'python train.py CONFIG --only=LANGUAGE'
        text.append(
            f'{len(alone)} of {len(rows)} have no control: their TEff may come from more optimiser '
            f'steps alone; train one: {advice}'
        )
    return '\n'.join(text)


def shortened(name, most=30):
    return name if len(name) <= most else f'{name[: most - 9]}...{name[-6:]}'


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
