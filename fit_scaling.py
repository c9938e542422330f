"""Monolingual scaling laws, token equivalence and transfer (Section 3, Appendix B, Figure 5).

    python fit_scaling.py                   # the runs of out/: tables, files, Figure 5
    python fit_scaling.py --paper=True      # the paper's TEff again, from its perplexities and laws
    python fit_scaling.py --study=transfer  # the transfer law: what the others' tokens are worth
    python fit_scaling.py --study=coverage  # how often 90% intervals hold the truth in simulations

A language's tokens in a run are worth as many tokens as a monolingual run needs for its perplexity.
  MLPE      monolingual perplexity equivalence: the law's perplexity at the tokens that the run saw
  MLTE      monolingual token equivalence: the tokens at which the law reaches the run's perplexity
  TEff      token efficiency: MLTE / tokens seen
  transfer  MLTE of the run / MLTE of its control
A TEff above 1 has two causes: the other languages, and more optimiser steps on the same tokens. The
control (train.py --only=LANGUAGE) has the steps and the tokens without the other languages.
"""

import csv
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from lib.configurator import ConfigError
from lib.configurator import run as run_script

import numpy as np
from scipy.optimize import minimize_scalar

from lib.paper import load_paper_runs, paper_rows, read_csv
from lib.runs import (
    best_control,
    group_of,
    is_monolingual,
    label_of,
    load_runs,
    stray_controls,
    trained,
)

out = 'out'  # folder of the runs; the tables and the picture are written here too
law_schedule = ''  # measure all runs by the laws of this lr_schedule; empty: each by its own
paper = False  # recompute the paper's own TEff instead, from the figures in results/
study = ''  # transfer: the transfer law of the runs; coverage: the intervals on simulated runs


# --- the law --------------------------------------------------------------------------------------

UNIT = 1_197_015_040  # tokens of the paper's standard run: 18,265 steps of 128 sequences of 512
NUMBERS = ('a', 'b', 'c', 'unit')  # of a law in a file
B_MIN, B_MAX = 0.01, 10.0  # exponents tried; at B_MIN the law is as good as straight in log tokens


@dataclass
class PowerLaw:
    """1/PPL = c - a * (tokens / unit)^(-b). Its methods take numbers or arrays, and so may a, b, c.

    draws: a PowerLaw whose a, b, c are arrays (R,), the bootstrap of the fit, or None.
    noise: standard deviation of a run's log perplexity, with `dof` degrees of freedom."""

    a: float
    b: float
    c: float
    unit: float = UNIT
    fitted_tokens: tuple = ()
    fitted_ppl: tuple = ()
    misfit: float = 0.0  # root mean square of the residuals, in log perplexity
    noise: float = 0.0
    noise_from: str = ''
    dof: int = 0
    draws: object = None

    def ppl(self, tokens):
        """Perplexity after `tokens` of monolingual training (MLPE); infinite where 1/PPL <= 0."""
        with np.errstate(all='ignore'):
            y = self.c - self.a * np.power(np.asarray(tokens, float) / self.unit, -self.b)
            return plain(np.where(y > 0, 1 / y, np.inf))

    def tokens(self, ppl):
        """Tokens of monolingual training that reach `ppl` (MLTE); infinite where none do."""
        with np.errstate(all='ignore'):
            gap = self.c - 1 / np.asarray(ppl, float)
            return plain(np.where(gap > 0, (self.a / gap) ** (1 / self.b) * self.unit, np.inf))

    def ppl_interval(self, tokens):
        """90% interval (low, high), (2, n), of MLPE at `tokens` (n,); None without draws."""
        return self.draws and np.transpose([quantiles(self.draws.ppl(n)) for n in tokens])

    def fitted_again(self, log_ppl):
        """PowerLaw of arrays (R,) of other perplexities (R, n) after the same tokens."""
        x = np.array(self.fitted_tokens) / self.unit
        centre = np.exp(np.log(x).mean())
        a, b, c = refit(np.log(x / centre), np.exp(-log_ppl))
        return PowerLaw(a * centre**b, b, c, self.unit)


@dataclass
class Interpolation:
    """Straight lines in log tokens and log perplexity between the budgets, for runs that follow no
    power law: near the step at which a model begins to use its context, perplexity falls by a
    third within a factor of two of tokens. It has the methods of PowerLaw.

    log_ppl: (n,), or (R, n) of a bootstrap, in the order of fitted_tokens."""

    fitted_tokens: tuple
    log_ppl: np.ndarray
    misfit: float = 0.0  # of the power law
    noise: float = 0.0
    noise_from: str = ''
    dof: int = 0
    draws: object = None

    ppl_interval = PowerLaw.ppl_interval

    @property
    def fitted_ppl(self):
        return tuple(np.exp(self.log_ppl))

    def _lines(self):
        """Log tokens (n,), and log perplexities that never rise, as log_ppl."""
        return np.log(self.fitted_tokens), np.minimum.accumulate(self.log_ppl, axis=-1)

    def ppl(self, tokens):
        x, y = self._lines()
        return plain(np.exp(on_lines(np.log(tokens), x, y.T)))

    def tokens(self, ppl):
        x, y = self._lines()
        if y.ndim == 1:
            return plain(np.exp(on_lines(-np.log(ppl), -y, x)))
        log_tokens = [on_lines(at, -row, x) for at, row in zip(-np.log(ppl), y)]
        with np.errstate(over='ignore'):  # infinite, far beyond the budgets
            return np.exp(log_tokens)

    def fitted_again(self, log_ppl):
        return Interpolation(self.fitted_tokens, log_ppl)


def on_lines(at, x, y):
    """Values at `at`, (), (m,) or with R columns, of straight lines through x (n,) and y, (n,) or
    (n, R), that go on at both ends. x must not fall; of equal x the first counts."""
    x, first = np.unique(x, return_index=True)
    y = y[first]
    if len(x) == 1:
        return np.where(at == x[0], y[0], np.where(at > x[0], np.inf, -np.inf))
    left = (np.searchsorted(x, at, 'right') - 1).clip(0)
    line = left.clip(max=len(x) - 2)
    slope = (y[line + 1] - y[line]).T / (x[line + 1] - x[line])
    return (slope * (at - x[left])).T + y[left]


def plain(value):
    return value if value.ndim else float(value)


def best_a_c(b, log_x, y):
    """Least-squares a and c, each (R,), of y = c - a * x^(-b), a straight line for a given b, for
    b (R,) and y (R, n) or (n,). a stays above 0: a law that would rise becomes flat."""
    z = np.exp(-np.multiply.outer(b, log_x))
    mean = z.mean(1)
    z = z - mean[:, None]
    a = np.maximum(-(y * z).sum(1) / (z * z).sum(1), 1e-12)
    return a, y.mean(-1) + a * mean


def refit(log_x, y):
    """Least-squares a, b, c, each (R,), of R data sets y (R, n) at once. A grid over b cannot miss
    the minimum; the vertex of the parabola through its best three values gives b to about 1e-4."""
    grid = np.linspace(math.log(B_MIN), math.log(B_MAX), 128)
    z = np.exp(-np.multiply.outer(np.exp(grid), log_x))
    z -= z.mean(1, keepdims=True)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    explained = -y @ z.T  # (R, grid); the squared error falls as this rises
    best = explained.argmax(1)
    inner = best.clip(1, len(grid) - 2)
    left, middle, right = (explained[np.arange(len(y)), inner + shift] for shift in (-1, 0, 1))
    bend = np.minimum(left - 2 * middle + right, -1e-300)
    vertex = np.where(best == inner, ((left - right) / (2 * bend)).clip(-1, 1), best - inner)
    b = np.exp(grid[inner] + vertex * (grid[1] - grid[0]))
    a, c = best_a_c(b, log_x, y)
    return a, b, c


def fit_power_law(tokens, ppl, unit=UNIT):
    """PowerLaw of monolingual runs of perplexity `ppl` (n,) after `tokens` (n,).

    Least squares on 1/PPL, as in the paper. Raises ValueError where the runs determine no law."""
    tokens, ppl = np.asarray(tokens, float), np.asarray(ppl, float)
    if tokens.shape != ppl.shape or tokens.ndim != 1:
        raise ValueError('a scaling law needs one perplexity for each budget')
    numbers = np.concatenate([tokens, ppl])
    if not ((0 < numbers) & (numbers < np.inf)).all():
        raise ValueError('budgets and perplexities of a scaling law must be finite and above zero')
    budgets = np.unique(tokens)
    if len(budgets) < 3:
        there = f'there are {len(budgets)} ({", ".join(map(short, budgets)) or "none"})'
        raise ValueError(f'a scaling law needs monolingual runs of at least 3 budgets; {there}')
    y = 1 / ppl
    if y[tokens == budgets[-1]].mean() <= y[tokens == budgets[0]].mean():
        raise ValueError('the perplexity does not fall from the smallest to the largest budget')
    centre = np.exp(np.log(tokens).mean())  # fitted around it, so that no power is huge
    log_x, scale = np.log(tokens / centre), y.mean()
    y = y / scale

    def squared_error(log_b):
        b = np.exp([log_b])
        a, c = best_a_c(b, log_x, y)
        return ((y - c + a * np.exp(-b * log_x)) ** 2).sum()

    near = math.log(refit(log_x, y[None])[1][0])
    ends = (max(near - 0.1, math.log(B_MIN)), min(near + 0.1, math.log(B_MAX)))
    b = np.exp([minimize_scalar(squared_error, bounds=ends, options=dict(xatol=1e-10)).x])
    if b > 0.99 * B_MAX:
        raise ValueError('the perplexity stops falling after the smallest budget; add smaller ones')
    a, c = best_a_c(b, log_x, y)
    if a <= 1e-9:
        raise ValueError('the perplexity does not fall with the tokens')
    a, b, c = float((scale * a * (centre / unit) ** b)[0]), float(b[0]), float(scale * c[0])
    return PowerLaw(a, b, c, unit, tuple(tokens.tolist()), tuple(ppl.tolist()))


# --- intervals ------------------------------------------------------------------------------------

LEVEL, DRAWS = 0.9, 2000
NO_NOISE = (
    'no interval: run noise needs two degrees of freedom, of five budgets that follow a power law '
    'or of replicates (runs with another seed)'
)
LOOSE = 0.05  # a power law whose runs lie further off in log perplexity measures nothing


def quantiles(draws, least=0.0):
    """Ends (low, high) of the interval of draws (..., R) of at least `least`, each (...).

    Draws may be infinite, so none is made up between two of them, and undefined, inf/inf, which
    counts as low for the lower end and as high for the upper one."""
    ends = (((1 - LEVEL) / 2, least), ((1 + LEVEL) / 2, np.inf))
    return tuple(
        plain(np.quantile(np.where(np.isnan(draws), rest, draws), end, axis=-1, method='nearest'))
        for end, rest in ends
    )


def generator(*numbers):
    """A random generator that depends on the numbers alone: equal results have equal draws."""
    return np.random.default_rng(np.array(numbers, float).view(np.uint64))


@functools.cache
def document_weights(documents, draws):
    """How often each test document is drawn: (draws, documents), the same for all runs."""
    shares = np.full(documents, 1 / documents)
    return np.random.default_rng(0).multinomial(documents, shares, draws).astype(float)


def error_draws(result, noise, rng):
    """Errors of a result's log perplexity, of documents and of the run, for `noise` (draws,). All
    runs have the same draws of documents, so that an error common to them cancels."""
    loss, tokens = result['document_loss'], result['document_tokens']
    weights = document_weights(len(loss), len(noise))
    run_error = noise * rng.standard_normal(len(noise)) / math.sqrt(len(result['log_ppl']))
    return weights @ loss / (weights @ tokens) - loss.sum() / tokens.sum() + run_error


def law_of(results, replicates=(), draws=DRAWS):
    """The law of monolingual results with its bootstrap: a PowerLaw, or an Interpolation where six
    budgets or more lie further than LOOSE off it. Raises ValueError where there is none.

    replicates: log perplexities of the seeds of each pooled run, (languages, seeds). Their spread
    is the run noise where it has two degrees of freedom, else the residuals of the law are."""
    law = fit_power_law([r['tokens_seen'] for r in results], [r['ppl'] for r in results])
    residuals = np.log(law.fitted_ppl) - np.log(law.ppl(np.array(law.fitted_tokens)))
    law.misfit = float(np.sqrt(np.mean(residuals**2)))
    seeds = [len(result['log_ppl']) for result in results]
    residuals = (seeds * residuals**2).sum(), len(results) - 3  # the law has three parameters
    if law.misfit > LOOSE and len(set(law.fitted_tokens)) >= 6:
        results = sorted(results, key=lambda result: result['tokens_seen'])
        log_ppl, residuals = np.log([result['ppl'] for result in results]), (0.0, 0)
        law = Interpolation(tuple(r['tokens_seen'] for r in results), log_ppl, law.misfit)
    spreads = [np.array(values) for values in replicates if len(values[0]) > 1]
    spreads = [(v.shape[1] - 1, v.var(1, ddof=1).mean()) for v in spreads if np.isfinite(v).all()]
    squares, dof = sum(n * variance for n, variance in spreads), sum(n for n, _ in spreads)
    law.noise_from = 'replicates'
    if dof < 2:
        (squares, dof), law.noise_from = residuals, 'residuals'
    if dof < 2 or not math.isfinite(squares):
        law.noise_from = ''
        return law
    law.noise, law.dof = math.sqrt(squares / dof), dof
    law.draws = bootstrap(law, results, residuals, draws)
    return law


def bootstrap(law, results, residuals, draws):
    """The law of arrays (draws,): fitted again to its own values with errors of documents and runs.

    The noise is known from few degrees of freedom: a factor common to all runs of a draw makes it
    Student's t. residuals: (sum of squares, degrees of freedom); where they are larger than
    replicates explain, the runs follow no power law and have errors as large as the residuals."""
    rng = generator(*law.fitted_ppl)
    noise = law.noise * np.sqrt(law.dof / rng.chisquare(law.dof, draws))
    squares, dof = residuals
    misfit = max(1, math.sqrt(squares / dof) / max(law.noise, 1e-9)) if dof >= 2 else 1
    errors = [error_draws(result, misfit * noise, rng) for result in results]
    again = law.fitted_again(np.log(law.ppl(np.array(law.fitted_tokens))) + np.stack(errors, 1))
    again.noise = noise
    return again


def measure(law, result, control=None):
    """{name: value} of what the law says of a result and its control: mlpe, mlte, teff, transfer,
    control_teff, and NAME_interval (low, high) of each, None where the run noise is unknown."""
    pair = [result] if control is None else [result, control]

    def equivalents(law, ppl):
        """Of these perplexities of the pair, numbers or draws (R,)."""
        seen, mlte = result['tokens_seen'], [law.tokens(value) for value in ppl]
        values = dict(mlpe=law.ppl(seen), mlte=mlte[0], teff=mlte[0] / seen)
        if control is not None:
            values['control_teff'] = mlte[1] / control['tokens_seen']
            with np.errstate(all='ignore'):
                values['transfer'] = plain(np.divide(*mlte))
        return values

    values = equivalents(law, [member['ppl'] for member in pair])
    if law.draws is None:
        return values | {f'{name}_interval': None for name in values}
    ppl = []
    for role, member in enumerate(pair):
        error = error_draws(member, law.draws.noise, generator(member['ppl'], role))
        ppl.append(member['ppl'] * np.exp(error))
    draws = equivalents(law.draws, ppl)
    return values | {f'{name}_interval': quantiles(draws[name]) for name in values}


# --- laws and table of all runs -------------------------------------------------------------------

MARGIN = 1.02  # not yet extrapolated: languages are drawn, so that 10% comes out as 9.98%
CHECK = 1.1  # a TEff that is this much above or below the interpolated one is worth a look


def analyse(runs, law_schedule=''):
    """The law of each group of runs, and each language of each run measured by its group's law, or
    with `law_schedule` by that of the same group with this lr_schedule.

    Returns (laws, rows). laws: {group: dict(label, runs, tokens, ppl, ppl_se, law, problem, noise,
    noise_from, dof)}; law is None where `problem` says why. rows: dicts as `row_of` makes them; a
    control has no row of its own. Raises ConfigError where no run has the law_schedule."""
    groups, controls = {}, {}
    mixes = [run for run in runs if not run['settings']['only']]
    for run in mixes:
        for name in trained(run):
            result = run['languages'][name]
            results, replicates = groups.setdefault(group_of(run, result), ({}, {}))
            replicates.setdefault(run['run'], []).append(result['log_ppl'])
            if is_monolingual(run):
                results[run['run']] = result
            control = controls[run['run'], name] = best_control(run, name, runs)
            if control:  # the others, of rates that lost, are noisier than what is compared
                replicates[control['run']] = [control['languages'][name]['log_ppl']]
    laws = {group: fitted(label_of(group), *members) for group, members in groups.items()}
    if law_schedule:
        use_schedule(laws, law_schedule)
    rows = []
    for run in mixes:
        for name, result in run['languages'].items():
            entry = laws[group_of(run, result)] if name in trained(run) else None
            rows.append(row_of(run, name, entry, controls.get((run['run'], name))))
    return laws, rows


def fitted(label, results, replicates):
    """The entry of a group in `laws`, from {run: result} of its monolingual runs."""
    results = dict(sorted(results.items(), key=lambda item: item[1]['tokens_seen']))
    entry = dict(label=label, runs=list(results), law=None, problem='')
    entry |= dict(noise=0.0, noise_from='', dof=0)
    for name, key in (('tokens', 'tokens_seen'), ('ppl', 'ppl'), ('ppl_se', 'ppl_se')):
        entry[name] = [result[key] for result in results.values()]
    try:
        law = law_of(list(results.values()), list(replicates.values()))
        entry |= dict(law=law, noise=law.noise, noise_from=law.noise_from, dof=law.dof)
    except ValueError as error:
        entry['problem'] = str(error)
    return entry


def use_schedule(laws, lr_schedule):
    """Gives each group the law of the group that differs from it in the schedule alone."""

    def rest(group):
        return group._replace(lr_schedule='', decay_fraction=0)

    chosen = {rest(g): entry for g, entry in laws.items() if g.lr_schedule == lr_schedule}
    if not chosen:
        raise ConfigError(f'there is no run with lr_schedule {lr_schedule!r}; choose cosine or wsd')
    none = dict(law=None, problem=f'no {lr_schedule} runs are like these')
    for group, entry in laws.items():
        if group.lr_schedule != lr_schedule:
            other = chosen.get(rest(group), none)
            entry |= dict(law=other['law'], problem=other['problem'])
            entry['label'] += f', by the law of {lr_schedule}'


MEASURES = ('mlpe', 'mlte', 'teff', 'control_teff', 'transfer')
ROW = ('run', 'language', 'corpus', 'monolingual', 'seeds', 'tokens_seen', 'ppl', 'ppl_se')
ROW += (*MEASURES, *(f'{name}_interval' for name in MEASURES), 'control', 'control_learning_rate')
ROW += ('control_ppl', 'extrapolated', 'interpolated_teff', 'largest_budget', 'paper_rows')
ROW = dict.fromkeys((*ROW, 'paper_ppl', 'paper_teff', 'note'))


def row_of(run, name, entry, control):
    """The figures of one language of a run; None is unknown, infinite is out of the law's reach.

    entry: of its law, None where the run never saw the language; control: a run or None. The TEff
    of a monolingual run is 1 by definition; its MLTE and MLPE show how far the law is from it."""
    result = run['languages'][name]
    row = ROW | dict(run=run['run'], language=name, seeds=len(run['seeds']), control='')
    row |= {key: result[key] for key in ('corpus', 'tokens_seen', 'ppl', 'ppl_se')}
    row |= dict(monolingual=is_monolingual(run) and name in trained(run), extrapolated=False)
    row |= dict(paper_rows='', note='the run never saw this language')
    if control:
        rate, scored = control['settings']['learning_rate'], control['languages'][name]
        row |= dict(control=control['run'], control_learning_rate=rate, control_ppl=scored['ppl'])
    if entry and entry['law']:
        law, seen, ppl = entry['law'], result['tokens_seen'], result['ppl']
        row |= measure(law, result, control and scored)
        low, high = min(law.fitted_tokens) / MARGIN, max(law.fitted_tokens) * MARGIN
        reached = [seen, row['mlte'], law.tokens(row['control_ppl'] or ppl)]
        row['extrapolated'] = not all(low <= tokens <= high for tokens in reached)
        row['largest_budget'] = max(law.fitted_tokens)
        row['interpolated_teff'] = interpolated_teff(law, seen, ppl)
        row['note'] = '' if law.draws else NO_NOISE
    elif entry:
        row['note'] = 'no law: ' + entry['problem']
    if row['monolingual']:
        row |= dict(teff=1.0, teff_interval=None, extrapolated=False, interpolated_teff=None)
    published = paper_rows(run)
    if published and name in trained(run):
        figures = published[0]['languages'][min(trained(run).index(name), 1)]
        names = ', '.join(other['name'] for other in published)
        row |= dict(paper_rows=names, paper_ppl=figures['ppl'], paper_teff=figures['teff'])
    return row


def interpolated_teff(law, seen, ppl):
    """TEff by the straight line in log tokens and log perplexity between the two nearest budgets;
    None outside the budgets."""
    order = np.argsort(law.fitted_tokens)
    x, y = np.log(law.fitted_tokens)[order], -np.log(law.fitted_ppl)[order]
    y = np.maximum.accumulate(y)  # noise may let a longer run be the worse one
    log_tokens = np.interp(-math.log(ppl), y, x, left=np.nan, right=np.nan)
    return None if np.isnan(log_tokens) else float(np.exp(log_tokens) / seen)


# --- the paper's own TEff -----------------------------------------------------------------------


def load_paper_laws():
    """{language: PowerLaw} of GPT small, from results/paper_laws.csv."""
    rows = read_csv('paper_laws.csv')
    return {row['language']: PowerLaw(*(float(row[key]) for key in NUMBERS)) for row in rows}


def recompute_paper():
    """Every published TEff beside that which follows from its perplexity and the paper's law."""
    laws, rows = load_paper_laws(), []
    for published in load_paper_runs():
        monolingual = len(published['kinds']) == 1
        for language in published['languages']:
            seen, ppl = language['tokens_seen'], language['ppl']
            mlte = laws[language['kind']].tokens(ppl)
            teff = 1.0 if monolingual else mlte / seen
            row = dict(name=published['name'], language=language['name'], monolingual=monolingual)
            row |= dict(tokens_seen=seen, ppl=ppl, mlte=mlte, teff=teff)
            rows.append(row | dict(paper_teff=language['teff'], difference=teff - language['teff']))
    return rows


def paper_text(rows):
    """The table of recomputed TEff, and how many of them agree."""
    lines = [('run', 'language', 'tokens', 'PPL', 'MLTE', 'TEff here', 'paper', 'difference')]
    for row in rows:
        ppl = f'{row["ppl"]:.3f}' if row['ppl'] < 1e9 else '> 1B'
        numbers = (short(row['tokens_seen']), ppl, short(row['mlte']), f'{row["teff"]:.6f}')
        published = (f'{row["paper_teff"]:g}', f'{row["difference"]:+.6f}')
        lines.append((row['name'], row['language'], *numbers, *published))
    mixes = [row for row in rows if not row['monolingual']]
    far = [row for row in mixes if abs(row['difference']) > 0.002]
    names = ', '.join(f'{row["name"]} {row["language"]} ({row["difference"]:+.4f})' for row in far)
    return (
        f'{align(lines)}\n{len(mixes) - len(far)} of {len(mixes)} TEff of multilingual runs agree '
        f'within 0.002; not: {names}\nof rows 19 and 20 of Table 3 only rounded figures are known; '
        'the TEff of a monolingual run is 1 by definition'
    )


# --- tables and files -----------------------------------------------------------------------------


def short(tokens):
    """1.2B, 120M, 655k"""
    for size, letter in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
        if tokens >= size:
            return f'{tokens / size:.3g}{letter}' if tokens < 1e13 else f'{tokens:.0e}'
    return f'{tokens:.0f}'


def ppl_text(ppl):
    return f'{ppl:.1f}' if ppl < 1e6 else '> 1M' if ppl < 1e9 else '> 1B'


def with_interval(value, interval, write):
    """`value [low, high]`, each written by `write`; - where the value is None."""
    if value is None:
        return '-'
    if interval is None or math.isinf(interval[0]):
        return write(value)
    ends = ('inf' if math.isinf(end) else write(end) for end in interval)
    return f'{write(value)} [{", ".join(ends)}]'


def cell(row, key):
    """A figure of a row with its interval; one beyond the law's reach has a lower limit."""
    limit = row['largest_budget']

    def write(value):
        if key == 'mlpe':
            return ppl_text(value)
        if key == 'mlte':
            return short(value) if math.isfinite(value) else f'> {short(limit)}'
        if math.isnan(value):
            return '?'
        if key == 'transfer' and math.isinf(value):
            return 'inf'
        return f'{value:.2f}' if math.isfinite(value) else f'> {limit / row["tokens_seen"]:.2f}'

    return with_interval(row[key], row[f'{key}_interval'], write)


def align(lines):
    """Text of a table, the first line its head; the first two columns to the left."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    form = '  '.join(f'{{:{"<" if i < 2 else ">"}{width}}}' for i, width in enumerate(widths))
    return '\n'.join(form.format(*line).rstrip() for line in lines)


def table_text(rows):
    """Two tables: the perplexities and their equivalents, then TEff taken apart."""
    head = ('run', 'language', 'seeds', 'tokens', 'PPL', '± s.e.', 'MLPE [90%]', 'MLTE [90%]')
    lines = [(*head, 'paper', 'PPL', 'TEff')]
    for row in rows:
        line = (row['run'], row['language'], f'{row["seeds"]}', short(row['tokens_seen']))
        line += (ppl_text(row['ppl']), f'{row["ppl_se"]:.2f}', cell(row, 'mlpe'), cell(row, 'mlte'))
        published = ('', '', '')
        if row['paper_rows']:
            published = row['paper_rows'], ppl_text(row['paper_ppl']), f'{row["paper_teff"]:.2f}'
        lines.append(line + published)
    if not any(row['paper_rows'] for row in rows):
        lines = [line[: len(head)] for line in lines]
    mixes = [row for row in rows if not row['monolingual']]
    return align(lines) + ('\n\n' + transfer_text(mixes) if mixes else '')


def transfer_text(rows):
    """The table of TEff, its control's and the transfer, with a legend."""
    notes = list(dict.fromkeys(row['note'] for row in rows if row['note']))
    head = ('run', 'language', 'TEff [90%]', 'control TEff [90%]', 'transfer [90%]')
    lines = [(*head, 'control', 'PPL', 'from', 'log-log', 'note')]
    for row in rows:
        measures = (cell(row, key) for key in ('teff', 'control_teff', 'transfer'))
        control, other = ('-', '', ''), row['interpolated_teff']
        if row['control']:
            name = row['control'].replace(row['run'], '...', 1)
            control = (name, ppl_text(row['control_ppl']), f'{row["control_learning_rate"]:g}')
        far = other and not 1 / CHECK <= row['teff'] / other <= CHECK
        marks = '*' * row['extrapolated']
        if row['note']:
            marks = f'{marks} {notes.index(row["note"]) + 1}'.strip()
        check = f'{other:.2f}' if far else ''
        lines.append((row['run'], row['language'], *measures, *control, check, marks))
    text = [align(lines), *(f'{number}  {note}' for number, note in enumerate(notes, 1))]
    if any(row['extrapolated'] for row in rows):
        text.append('*  tokens seen or an MLTE lie outside the budgets of the law')
    if any(line[-2] for line in lines[1:]):
        text.append('log-log: TEff by interpolation between budgets where it is 10% or more away')
    alone = [row for row in rows if not row['control']]
    if alone:
        doubt = 'TEff alone cannot tell what the other languages did from what more steps did'
        advice = f'{doubt}; train one: python train.py CONFIG --only=LANGUAGE'
        text.append(f'{len(alone)} of {len(rows)} have no control: {advice}')
    return '\n'.join(text)


def write_json(path, value):
    """JSON has null where a figure is infinite or undefined."""
    value = json.loads(json.dumps(value), parse_constant=lambda name: None)
    path.write_text(json.dumps(value, indent=2) + '\n')


def write_files(folder, laws, rows):
    """scaling.json and scaling.csv. JSON has null, CSV inf, where a figure has no upper limit."""
    fits = []
    for entry in laws.values():
        law, fit = entry['law'], {key: value for key, value in entry.items() if key != 'law'}
        if isinstance(law, PowerLaw):
            fit |= {key: getattr(law, key) for key in NUMBERS}
        fits.append(fit)
    write_json(folder / 'scaling.json', dict(laws=fits, rows=rows))
    flat = []
    for row in rows:
        columns = {}
        for key, value in row.items():
            if key.endswith('_interval'):
                low, high = (key.replace('interval', end) for end in ('low', 'high'))
                columns[low], columns[high] = value or ('', '')
            else:
                columns[key] = value
        flat.append(columns)
    with (folder / 'scaling.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, flat[0])
        writer.writeheader()
        writer.writerows(flat)


def describe(law):
    """A law in one line, with what keeps it from being trusted."""
    count = len(law.fitted_tokens)
    if isinstance(law, Interpolation):
        text = f'lines between {count} runs, which lie {law.misfit:.1%} off any power law'
    else:
        text = f'1/PPL = {law.c:.5g} - {law.a:.5g} * (tokens / {short(law.unit)})^-{law.b:.4g}'
        off = f' that lie {law.misfit:.1%} off' if count > 3 else ''
        text += f' from {count} runs{off}'
    noise = f'{law.noise:.1%}, from {law.noise_from} ({law.dof} degrees of freedom)'
    text += f'; run noise {noise if law.dof else "unknown"}'
    if isinstance(law, PowerLaw) and law.b < 1.01 * B_MIN:
        text += '; b is at its lower bound: no levelling off in sight'
    return text


def draw_figure5(laws, path):
    """Figure 5 as the report has it. Returns whether there was anything to draw."""
    from figures import law_panels, stitch  # late: figures imports this file

    panels, _ = law_panels(laws)
    if panels:
        path.write_bytes(stitch(panels))
    return bool(panels)


def main():
    if study not in ('', 'coverage', 'transfer'):
        raise ConfigError(f"study must be 'transfer', 'coverage' or nothing, not {study!r}")
    if study == 'coverage':
        import interval_coverage  # imported late: it imports this file

        return interval_coverage.study()
    if paper:
        return print(paper_text(recompute_paper()))
    if study == 'transfer':
        import transfer_law  # imported late: it imports this file

        return transfer_law.study(out, law_schedule)
    runs = load_runs(out)
    if not runs:
        advice = 'train some with python train.py config/NAME.py, or name their folder with --out='
        raise ConfigError(
            f'there is no finished run in {out}/ (no {out}/RUN/results.json); {advice}'
        )
    laws, rows = analyse(runs, law_schedule)
    for entry in laws.values():
        law = entry['law']
        print(f'{entry["label"]}: {describe(law) if law else "no law: " + entry["problem"]}')
    print('\n' + table_text(rows))
    for name in stray_controls(runs):
        print(f'{name} is the control of no run here with the same settings and test set')
    write_files(Path(out), laws, rows)
    picture = f'{out}/figure5.png'
    drawn = f', {picture}' if draw_figure5(laws, Path(picture)) else ''
    print(f'\nwrote {out}/scaling.json, {out}/scaling.csv{drawn}')


if __name__ == '__main__':
    run_script(globals(), main)
