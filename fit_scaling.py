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

import numpy as np
from scipy.optimize import minimize_scalar

from configurator import ConfigError
from configurator import run as run_script
from paper import RESULTS, SHAPES, kind_of, load_paper_runs, paper_rows, read_csv  # noqa: F401
from runs import (  # noqa: F401
    SCORED,
    best_control,
    controls_of,
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
        """90% interval (low, high) of MLPE at `tokens`, a number or (n,); None without draws."""
        if self.draws is None:
            return None
        return quantiles(self.draws.ppl(np.asarray(tokens, float)[..., None]))

    def residuals(self):
        """Log perplexities of the fitted runs less those of the law: (n,)."""
        return np.log(self.fitted_ppl) - np.log(self.ppl(np.array(self.fitted_tokens)))

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
    third within a factor of two of tokens. It has the methods of PowerLaw, and no residuals.

    log_ppl: (n,), or (R, n) of a bootstrap, in the order of fitted_tokens."""

    fitted_tokens: tuple
    log_ppl: np.ndarray
    misfit: float = 0.0  # of the power law, the root mean square of its residuals
    noise: float = 0.0
    noise_from: str = ''
    dof: int = 0
    draws: object = None

    ppl_interval = PowerLaw.ppl_interval

    @property
    def fitted_ppl(self):
        return tuple(np.exp(self.log_ppl))

    def _lines(self):
        """Log tokens (n,) and, as rows, log perplexities that never rise (R, n)."""
        falling = np.minimum.accumulate(np.atleast_2d(self.log_ppl), axis=1)
        return np.log(self.fitted_tokens), falling

    def ppl(self, tokens):
        x, rows = self._lines()
        at = np.log(np.asarray(tokens, float))
        draws = np.stack([extended(at, x, y) for y in rows], axis=-1)  # (..., 1, R) or (..., R)
        draws = draws[..., 0, :] if self.log_ppl.ndim > 1 and at.ndim > 1 else draws
        return plain(np.exp(draws if self.log_ppl.ndim > 1 else draws[..., 0]))

    def tokens(self, ppl):
        x, rows = self._lines()
        at = np.log(np.asarray(ppl, float))
        if self.log_ppl.ndim == 1:
            return plain(np.exp(extended(-at, -rows[0], x)))
        return np.exp([extended(-value, -y, x) for value, y in zip(at, rows)])

    def residuals(self):
        return np.zeros(len(self.fitted_tokens))

    def fitted_again(self, log_ppl):
        return Interpolation(self.fitted_tokens, log_ppl)


def extended(at, x, y):
    """np.interp that goes on at both ends as between the two outermost points. x must not fall."""
    x, first = np.unique(x, return_index=True)  # of budgets with one perplexity the smallest
    y = y[first]
    if len(x) == 1:
        return np.where(at == x[0], y[0], np.where(at > x[0], np.inf, -np.inf))
    slopes = (y[[1, -1]] - y[[0, -2]]) / (x[[1, -1]] - x[[0, -2]])
    below, above = y[0] + slopes[0] * (at - x[0]), y[-1] + slopes[1] * (at - x[-1])
    return np.where(at < x[0], below, np.where(at > x[-1], above, np.interp(at, x, y)))


def plain(value):
    return value if value.ndim else float(value)


def best_a_c(b, log_x, y):
    """Least-squares a and c of y = c - a * x^(-b) for exponents b (R,) and points y (R, n) or (n,).

    Returns a (R,) and c (R,). For a given b this is a straight line. a stays above 0: a law that
    would rise becomes flat."""
    z = np.exp(-np.multiply.outer(b, log_x))
    mean = z.mean(1)
    z = z - mean[:, None]
    a = np.maximum(-(y * z).sum(1) / (z * z).sum(1), 1e-12)
    return a, y.mean(-1) + a * mean


def refit(log_x, y):
    """Least-squares a, b, c, each (R,), of R data sets y (R, n) at once.

    A grid over b, with the best a and c for each of its values, cannot miss the minimum. The vertex
    of the parabola through the best three values then gives b to about 1e-4."""
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
    if not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise ValueError(
            'the budgets and perplexities of a scaling law must be finite and above zero'
        )
    budgets = np.unique(tokens)
    if len(budgets) < 3:
        names = ', '.join(map(short, budgets)) or 'none'
        raise ValueError(
            'a scaling law needs monolingual runs of at least 3 budgets; '
            f'there are {len(budgets)} ({names})'
        )
    y = 1 / ppl
    if y[tokens == budgets[-1]].mean() <= y[tokens == budgets[0]].mean():
        raise ValueError(
            'the perplexity does not fall from the smallest to the largest budget; check these runs'
        )
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
        raise ValueError(
            'the perplexity stops falling right after the smallest budget, which no power law '
            'does; check these runs or add smaller budgets'
        )
    a, c = best_a_c(b, log_x, y)
    if a <= 1e-9:
        raise ValueError('the perplexity does not fall with the tokens; check these runs')
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


def document_error(result, draws):
    """Log perplexity on resampled test documents less that on the documents as they are: (draws,).

    All runs have the same draws, so that an error common to them cancels in the comparison."""
    loss, tokens = result['document_loss'], result['document_tokens']
    weights = document_weights(len(loss), draws)
    return weights @ loss / (weights @ tokens) - loss.sum() / tokens.sum()


def run_noise(law, results, replicates):
    """Standard deviation of a run's log perplexity, its degrees of freedom, and where it is from.

    replicates: log perplexities of the seeds of each pooled run, (languages, seeds). Their spread
    counts where it has two degrees of freedom, else the residuals of the law."""
    spreads = [np.array(values) for values in replicates if len(values[0]) > 1]
    spreads = [(v.shape[1] - 1, v.var(1, ddof=1).mean()) for v in spreads if np.isfinite(v).all()]
    dof, origin = sum(count for count, _ in spreads), 'replicates'
    squares = sum(count * variance for count, variance in spreads)
    if dof < 2:
        squares, dof, origin = *residual_squares(law, results), 'residuals'
    if dof < 2 or not math.isfinite(squares):
        return 0.0, 0, ''
    return math.sqrt(squares / dof), dof, origin


def residual_squares(law, results):
    """Sum of squares of residuals, as of runs of one seed, and its degrees of freedom:
    the law has three parameters."""
    if isinstance(law, Interpolation):
        return 0.0, 0
    seeds = [len(result['log_ppl']) for result in results]
    return (seeds * law.residuals() ** 2).sum(), len(results) - 3


def law_of(results, replicates=(), draws=DRAWS):
    """The law of monolingual results with its bootstrap: a PowerLaw, or an Interpolation where six
    budgets or more lie further than LOOSE off it. Raises ValueError where there is none."""
    law = fit_power_law([r['tokens_seen'] for r in results], [r['ppl'] for r in results])
    misfit = float(np.sqrt(np.mean(law.residuals() ** 2)))
    if misfit > LOOSE and len(set(law.fitted_tokens)) >= 6:
        order = np.argsort(law.fitted_tokens)
        results = [results[i] for i in order]
        log_ppl = np.log(law.fitted_ppl)[order]
        law = Interpolation(tuple(r['tokens_seen'] for r in results), log_ppl, misfit)
    law.noise, law.dof, law.noise_from = run_noise(law, results, replicates)
    if law.dof:
        law.draws = bootstrap(law, results, draws)
    return law


def bootstrap(law, results, draws):
    """The law of arrays (draws,): fitted again to its own values, with the error of resampled
    documents and run noise in each. The noise is known from few degrees of freedom: a factor common
    to all runs of a draw makes it Student's t.

    Residuals that are larger than replicates explain say that the runs follow no power law; then
    the runs of the fit have errors as large as the residuals."""
    rng = generator(*law.fitted_ppl)
    noise = law.noise * np.sqrt(law.dof / rng.chisquare(law.dof, draws))
    squares, dof = residual_squares(law, results)
    misfit = max(1, math.sqrt(squares / dof) / max(law.noise, 1e-9)) if dof >= 2 else 1
    errors = [error_draws(result, misfit * noise, rng) for result in results]
    again = law.fitted_again(np.log(law.ppl(np.array(law.fitted_tokens))) + np.stack(errors, 1))
    again.noise = noise
    return again


def error_draws(result, noise, rng):
    """Errors of a result's log perplexity, of documents and of the run, for `noise` (draws,)."""
    run_error = noise * rng.standard_normal(len(noise)) / math.sqrt(len(result['log_ppl']))
    return document_error(result, len(noise)) + run_error


def token_equivalence(law, seen, ppl, control_seen=None, control_ppl=None):
    """{name: value} of all that the law says of a perplexity after `seen` tokens of a language.

    A law and perplexities of draws (R,) give draws of each value."""
    mlte = law.tokens(ppl)
    values = dict(mlpe=law.ppl(seen), mlte=mlte, teff=mlte / seen)
    if control_ppl is not None:
        control_mlte = law.tokens(control_ppl)
        with np.errstate(all='ignore'):
            transfer = plain(np.divide(mlte, control_mlte))
        values |= dict(control_teff=control_mlte / control_seen, transfer=transfer)
    return values


def measure(law, result, control=None):
    """token_equivalence of a result and its control, with NAME_interval (low, high) of each value;
    the intervals are None where nothing is known of the run noise."""
    pair = [result] if control is None else [result, control]
    values = token_equivalence(law, *(n for r in pair for n in (r['tokens_seen'], r['ppl'])))
    if law.draws is None:
        return values | {f'{name}_interval': None for name in values}
    arguments = []
    for role, member in enumerate(pair):
        rng = generator(member['ppl'], role)
        error = error_draws(member, law.draws.noise, rng)
        arguments += [member['tokens_seen'], member['ppl'] * np.exp(error)]
    draws = token_equivalence(law.draws, *arguments)
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
    laws, controls = {}, {}
    mixes = [run for run in runs if not run['settings']['only']]
    for run in mixes:
        for name in trained(run):
            group = group_of(run, run['languages'][name])
            laws.setdefault(group, dict(label=label_of(group), results={}, replicates={}))
            results, replicates = laws[group]['results'], laws[group]['replicates']
            log_ppl = run['languages'][name]['log_ppl']
            replicates.setdefault(run['run'], []).append(log_ppl)
            if is_monolingual(run):
                results[run['run']] = run['languages'][name]
            for control in controls_of(run, name, runs):
                replicates[control['run']] = [control['languages'][name]['log_ppl']]
            controls[run['run'], name] = best_control(run, name, runs)
    laws = {group: fitted(**entry) for group, entry in laws.items()}
    if law_schedule:
        use_schedule(laws, law_schedule)
    rows = []
    for run in mixes:
        for name, result in run['languages'].items():
            entry = laws.get(group_of(run, result)) if name in trained(run) else None
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

    chosen = [(group, entry) for group, entry in laws.items() if group.lr_schedule == lr_schedule]
    by_rest = {rest(group): entry for group, entry in chosen}
    if not chosen:
        raise ConfigError(f'there is no run with lr_schedule {lr_schedule!r}; choose cosine or wsd')
    for group, entry in laws.items():
        if group.lr_schedule != lr_schedule:
            other = by_rest.get(rest(group), {})
            problem = other.get('problem', f'no {lr_schedule} runs are like these')
            label = f'{entry["label"]}, by the law of {lr_schedule}'
            entry |= dict(law=other.get('law'), problem=problem, label=label)


MEASURES = ('mlpe', 'mlte', 'teff', 'control_teff', 'transfer')
REST = ('control', 'control_learning_rate', 'control_ppl', 'extrapolated', 'interpolated_teff')
PUBLISHED = ('paper_rows', 'paper_ppl', 'paper_teff')


def row_of(run, name, entry, control):
    """The figures of one language of a run; None is unknown, infinite is out of the law's reach.

    entry: of its law, None where the run never saw the language; control: a run or None. The TEff
    of a monolingual run is 1 by definition; its MLTE and MLPE show how far the law is from it."""
    result = run['languages'][name]
    seen, ppl = result['tokens_seen'], result['ppl']
    monolingual = is_monolingual(run) and name in trained(run)
    intervals = [f'{key}_interval' for key in MEASURES]
    row = dict(run=run['run'], language=name, corpus=result['corpus'], monolingual=monolingual)
    row |= dict(seeds=len(run['seeds']), tokens_seen=seen, ppl=ppl, ppl_se=result['ppl_se'])
    row |= dict.fromkeys((*MEASURES, *intervals, *REST, 'largest_budget', *PUBLISHED))
    row |= dict(control='', extrapolated=False, paper_rows='', note='')
    if control:
        rate, scored = control['settings']['learning_rate'], control['languages'][name]
        row |= dict(control=control['run'], control_learning_rate=rate, control_ppl=scored['ppl'])
    if entry and entry['law']:
        law = entry['law']
        row |= measure(law, result, control and control['languages'][name])
        low, high = min(law.fitted_tokens) / MARGIN, max(law.fitted_tokens) * MARGIN
        reached = [seen, row['mlte'], law.tokens(row['control_ppl'] or ppl)]
        row['extrapolated'] = not all(low <= tokens <= high for tokens in reached)
        row['largest_budget'] = max(law.fitted_tokens)
        row['interpolated_teff'] = interpolated_teff(law, seen, ppl)
        row['note'] = '' if law.draws else NO_NOISE
    elif entry:
        row['note'] = 'no law: ' + entry['problem']
    else:
        row['note'] = 'the run never saw this language'
    if monolingual:
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
    laws = {}
    for row in read_csv('paper_laws.csv'):
        laws[row['language']] = PowerLaw(*(float(row[key]) for key in ('a', 'b', 'c', 'unit')))
    return laws


def recompute_paper():
    """Every published TEff beside that which follows from its perplexity and the paper's law."""
    laws, rows = load_paper_laws(), []
    for published in load_paper_runs():
        for language in published['languages']:
            mlte = laws[language['kind']].tokens(language['ppl'])
            monolingual = len(published['kinds']) == 1
            teff = 1.0 if monolingual else mlte / language['tokens_seen']
            row = dict(name=published['name'], language=language['name'], monolingual=monolingual)
            row |= dict(tokens_seen=language['tokens_seen'], ppl=language['ppl'], mlte=mlte)
            difference = teff - language['teff']
            rows.append(row | dict(teff=teff, paper_teff=language['teff'], difference=difference))
    return rows


def paper_text(rows):
    """The table of recomputed TEff, and how many of them agree."""
    lines = [('run', 'language', 'tokens', 'PPL', 'MLTE', 'TEff here', 'paper', 'difference')]
    for row in rows:
        ppl = f'{row["ppl"]:.3f}' if row['ppl'] < 1e9 else '> 1B'
        numbers = (f'{row["teff"]:.6f}', f'{row["paper_teff"]:g}', f'{row["difference"]:+.6f}')
        sizes = (short(row['tokens_seen']), ppl, short(row['mlte']))
        lines.append((row['name'], row['language'], *sizes, *numbers))
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
    return '\n'.join(
        '  '.join(
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def table_text(rows):
    """Two tables: the perplexities and their equivalents, then TEff taken apart."""
    head = ('run', 'language', 'seeds', 'tokens', 'PPL', '± s.e.', 'MLPE [90%]', 'MLTE [90%]')
    lines = [(*head, 'paper', 'PPL', 'TEff')]
    for row in rows:
        published = ('', '', '')
        if row['paper_rows']:
            teff = f'{row["paper_teff"]:.2f}'
            published = (row['paper_rows'], ppl_text(row['paper_ppl']), teff)
        numbers = (short(row['tokens_seen']), ppl_text(row['ppl']), f'{row["ppl_se"]:.2f}')
        cells = (cell(row, 'mlpe'), cell(row, 'mlte'))
        lines.append((row['run'], row['language'], f'{row["seeds"]}', *numbers, *cells, *published))
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
        control = ('-', '', '')
        if row['control']:
            name = row['control'].replace(row['run'], '...', 1)
            control = (name, ppl_text(row['control_ppl']), f'{row["control_learning_rate"]:g}')
        other = row['interpolated_teff']
        check = (
            f'{other:.2f}' if other and abs(math.log(row['teff'] / other)) > math.log(CHECK) else ''
        )
        marks = ['*'] if row['extrapolated'] else []
        marks += [f'{notes.index(row["note"]) + 1}'] if row['note'] else []
        measures = (cell(row, key) for key in ('teff', 'control_teff', 'transfer'))
        lines.append((row['run'], row['language'], *measures, *control, check, ' '.join(marks)))
    text = [align(lines)]
    text += [f'{number}  {note}' for number, note in enumerate(notes, 1)]
    if any(row['extrapolated'] for row in rows):
        text.append('*  tokens seen or an MLTE lie outside the budgets of the law')
    if any(line[-2] for line in lines[1:]):
        text.append('log-log: TEff by interpolation between budgets where it is 10% or more away')
    alone = [row for row in rows if not row['control']]
    if alone:
        text.append(
            f'{len(alone)} of {len(rows)} have no control: TEff alone cannot tell what the other '
            'languages did from what more steps did; train one: '
            'python train.py CONFIG --only=LANGUAGE'
        )
    return '\n'.join(text)


def finite(value):
    """A value for JSON, which has null where a figure is infinite or undefined."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_files(folder, laws, rows):
    """scaling.json and scaling.csv. JSON has null, CSV inf, where a figure has no upper limit."""
    fits = []
    for entry in laws.values():
        fit = {key: value for key, value in entry.items() if key != 'law'}
        for key in ('a', 'b', 'c', 'unit') if isinstance(entry['law'], PowerLaw) else ():
            fit[key] = getattr(entry['law'], key)
        fits.append(fit)
    text = json.dumps(finite(dict(laws=fits, rows=rows)), indent=2, allow_nan=False)
    (folder / 'scaling.json').write_text(text + '\n')
    flat = []
    for row in rows:
        columns = {}
        for key, value in row.items():
            if key.endswith('_interval'):
                key = key.removesuffix('_interval')
                columns[f'{key}_low'], columns[f'{key}_high'] = value or ('', '')
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
        text += f' from {count} runs'
        if count > 3:
            text += f' that lie {np.sqrt(np.mean(law.residuals() ** 2)):.1%} off'
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
        raise ConfigError(
            f'there is no finished run in {out}/ (no {out}/RUN/results.json); train some with '
            'python train.py config/NAME.py, or name their folder with --out='
        )
    laws, rows = analyse(runs, law_schedule)
    for entry in laws.values():
        law = entry['law']
        print(f'{entry["label"]}: {describe(law) if law else "no law: " + entry["problem"]}')
    print('\n' + table_text(rows))
    for name in stray_controls(runs):
        print(f'{name} is the control of no run here with the same settings and test set')
    write_files(Path(out), laws, rows)
    drawn = draw_figure5(laws, Path(out) / 'figure5.png')
    print(
        f'\nwrote {out}/scaling.json, {out}/scaling.csv' + (f', {out}/figure5.png' if drawn else '')
    )


if __name__ == '__main__':
    run_script(globals(), main)
