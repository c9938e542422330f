"""Monolingual scaling laws: their form, fit, and resamples; interpolation where no law holds.

A curve has ppl(tokens) and tokens(ppl) of R data sets at once. to_y and to_ppl are its form.
"""

import math
from dataclasses import dataclass

import numpy as np

from lib.estimate import document_weights, generator, widening
from lib.tables import short

UNIT = 1_197_015_040  # tokens of the paper's standard run: 18,265 steps of 128 x 512 tokens
B_MIN, B_MAX = 0.01, 10.0  # exponents tried; at B_MIN the law is almost straight in log tokens
FORM = '1/PPL'  # what to_y returns, for tables


def to_y(ppl):
    """1/PPL, as in the paper: y = c - a * (tokens / UNIT)^(-b). It must rise as the PPL falls."""
    return 1 / np.asarray(ppl, float)


def to_ppl(y):
    """The perplexity of y; infinite where there is none."""
    return np.where(y > 0, 1 / y, np.inf)


@dataclass
class PowerLaw:
    """to_y(PPL) = c - a * (tokens / UNIT)^(-b); a, b, c: numbers, or arrays (R,) of resamples."""

    kind = 'power law'
    a: float
    b: float
    c: float

    @np.errstate(all='ignore')
    def ppl(self, tokens):
        """Perplexity after `tokens` of monolingual training (MLPE)."""
        return to_ppl(self.c - self.a * (np.asarray(tokens, float) / UNIT) ** -self.b)

    @np.errstate(all='ignore')
    def tokens(self, ppl):
        """Tokens of monolingual training that reach `ppl` (MLTE); infinite where none do."""
        gap = self.c - to_y(ppl)
        return np.where(gap > 0, (self.a / gap) ** (1 / self.b) * UNIT, np.inf)

    def hole(self, ppl):
        return None


def fit(log_tokens, log_ppl):
    """The PowerLaw of R data sets, log_ppl (R, n) at log_tokens (n,): least squares in to_y(PPL).

    For a given b the law is a straight line, so only b is searched: on a grid, then five times on a
    finer one around the best value. a stays above 0: a law that would rise becomes flat."""
    y, x = to_y(np.exp(log_ppl)), log_tokens - log_tokens.mean()
    rows, grid = np.arange(len(y))[:, None], np.linspace(math.log(B_MIN), math.log(B_MAX), 65)
    finer = np.broadcast_to(grid, (len(y), 65))
    for _ in range(6):
        log_b = finer
        z = np.exp(-np.exp(log_b)[..., None] * x)  # (R, k, n): y is a straight line in z
        mean = z.mean(-1, keepdims=True)
        z -= mean
        product = np.einsum('rn,rkn->rk', y, z)
        a = -product / np.einsum('rkn,rkn->rk', z, z)
        best = np.where(a > 0, -a * product, 0).argmax(1)[:, None]  # explains most
        step = log_b[:, 1:2] - log_b[:, :1]
        finer = (log_b[rows, best] + step * np.linspace(-1, 1, 33)).clip(grid[0], grid[-1])
    a, mean = np.maximum(a[rows, best], 1e-12)[:, 0], mean[rows, best][:, 0, 0]
    b = np.exp(log_b[rows, best])[:, 0]
    return PowerLaw(a * np.exp(b * (log_tokens.mean() - math.log(UNIT))), b, y.mean(1) + a * mean)


# --- interpolation --------------------------------------------------------------------------------

HOLE = math.log(1.34)  # neighbouring budgets further apart leave a hole in the curve ...
OPEN = 0.04  # ... where log tokens are uncertain by more than this
BEND = 2.0  # between segments whose slopes differ by a larger factor the curve has a bend


class Interpolation:
    """A curve through the budgets, in log tokens (n,) and log perplexity (R, n), for runs off any
    power law: at the phase transition perplexity falls by a third within twice the tokens.

    Between two budgets a curve without inflection lies between the chord and the extensions of the
    neighbouring chords. `place` (R, n - 1): where in that range: 0.5, in resamples in PLACES."""

    kind = 'interpolation'

    def __init__(self, log_tokens, log_ppl, place):
        x, budget = np.unique(log_tokens, return_inverse=True)  # runs of one budget are one point
        log_ppl = np.stack([log_ppl[:, budget == i].mean(1) for i in range(len(x))], axis=1)
        rising = np.maximum.accumulate(-log_ppl, axis=1) + 1e-9 * np.arange(len(x))
        self.x, self.y, self.place = np.broadcast_to(x, rising.shape), rising, place

    def ppl(self, tokens):
        return np.exp(-between(np.log(tokens), self.x, self.y, self.place)[0])

    @np.errstate(over='ignore')  # infinite, far beyond the budgets
    def tokens(self, ppl):
        return np.exp(between(-np.log(ppl), self.y, self.x, self.place)[0])

    def hole(self, ppl):
        """The budgets, in tokens, between which the curve is too uncertain at `ppl`, or None."""
        _, left, half = between(-np.log(ppl), self.y, self.x, self.place)
        low, high = self.x[0, left[0] : left[0] + 2]
        uncertain = half[0] > OPEN and high - low > HOLE
        return (float(np.exp(low)), float(np.exp(high))) if uncertain else None


def between(at, x, y, place):
    """Values at `at`, (R,) or one for all, of rising curves through x, y (R, n); straight beyond.

    Returns (values (R,), index of the point to the left (R,), half the range of values (R,))."""
    rows, last = np.arange(len(x)), x.shape[1] - 2
    left = ((np.broadcast_to(at, len(x))[:, None] >= x).sum(1) - 1).clip(0, last)
    width, slopes = np.diff(x)[rows, left], np.diff(y) / np.maximum(np.diff(x), 1e-12)
    before, chord, after = (slopes[rows, (left + i).clip(0, last)] for i in (-1, 0, 1))
    p = (at - x[rows, left]) / width  # 0 at the left point, 1 at the right one
    on_chord = y[rows, left] + chord * p * width
    # how far both extensions are from the chord, cut at the values of the two points
    limits = y[rows, left] - on_chord, y[rows, left + 1] - on_chord
    of_left = ((before - chord) * p * width).clip(*limits)
    of_right = ((chord - after) * (1 - p) * width).clip(*limits)
    of_left = np.where(left == 0, of_right, of_left)
    of_right = np.where(left == last, of_left, of_right)
    one_sided = of_left * of_right >= 0
    nearer = np.where(abs(of_left) < abs(of_right), of_left, of_right)
    centre = np.where(one_sided, nearer, (1 - p) * of_left + p * of_right) / 2
    # an inflection between the points, or a bend at one of them, widens the range
    inflection = np.where(one_sided, 0, (abs(of_left) + abs(of_right)) / 8)
    ratios = np.stack([before / chord, after / chord])
    bend = np.where((np.maximum(ratios, 1 / ratios) > BEND).any(0), 0.1 * width * chord, 0)
    half = np.max([abs(centre), inflection, bend], axis=0)
    curve = centre + (2 * place[rows, left] - 1) * half
    inside = (p >= 0) & (p <= 1)
    return on_chord + np.where(inside, curve, 0), left, np.where(inside, half, 0)


# --- the law of a group of runs -------------------------------------------------------------------

RESAMPLES = 10_000  # so many that their random numbers do not decide an interval
MAX_MISFIT = 0.05  # above this RMS residual in log perplexity, interpolate instead
HOLDS = 0.005  # a power law holds for runs with at most this residual for each degree of freedom
ENOUGH = {'power law': 5, 'interpolation': 6}  # budgets that an interval needs
SHARED = 0.5  # fraction of a branch's noise variance that all branches of its trunk share
RESIDUALS = 2.0  # noise variance of branches over that of their residuals, which lack this part
PLACES = -0.3, 1.3  # of the interpolations of resamples


@dataclass
class Law:
    """The law of a group of monolingual runs, and the resamples that intervals come from."""

    label: str
    runs: list  # names, by tokens
    tokens: np.ndarray  # (n,)
    ppl: np.ndarray  # (n,)
    trunks: int  # seeds of each run
    epochs: float = 0.0  # how often a run read its text, at most
    problem: str = ''  # why there is no curve, or else no interval
    curve: object = None  # PowerLaw, Interpolation or None
    misfit: float = 0.0  # RMS residual of the power law, in log perplexity
    holds_from: float = 0.0  # tokens from which a power law holds; 0: all or none
    noise: float = 0.0  # standard deviation of a run's log perplexity
    noise_from: str = ''  # replicates or residuals
    dof: int = 0  # degrees of freedom of the noise
    noises: object = None  # resamples of the noise, (R,) or None
    resampled: object = None  # curves of R data sets, or None


def law_of(label, results, replicates=(), branches=False, resamples=RESAMPLES):
    """The Law of monolingual results, {run: result}. replicates: log perplexities of the seeds of
    each compared run, for the run noise; branches: the runs share trunks, and with them noise."""
    results = dict(sorted(results.items(), key=lambda item: item[1]['tokens_seen']))
    values = list(results.values())
    columns = (np.array([v[key] for v in values], float) for key in ('tokens_seen', 'ppl'))
    seeds = np.array([len(value['log_ppl']) for value in values])
    law = Law(label, list(results), *columns, trunks=int(max(seeds, default=0)))
    law.epochs = max((value.get('epochs') or 0.0 for value in values), default=0.0)
    law.problem = undetermined(law.tokens, law.ppl)
    squares, dof = 0.0, 0  # of the residuals
    if not law.problem:
        x, y = np.log(law.tokens), np.log(law.ppl)
        law.curve, law.holds_from = fit(x, y[None]), power_law_from(x, y)
        residuals = y - np.log(law.curve.ppl(law.tokens))
        law.misfit = float(np.sqrt(np.mean(residuals**2)))
        if law.misfit > MAX_MISFIT:
            law.curve = Interpolation(x, y[None], np.full((1, len(x) - 1), 0.5))
        else:  # the law has three parameters
            squares, dof = (seeds * residuals**2).sum(), len(x) - 3
            squares *= RESIDUALS if branches else 1
    rng = generator(*law.ppl)
    law.noise, law.noise_from, law.dof = noise_of(values, law.trunks, replicates, (squares, dof))
    if law.dof:  # few degrees of freedom: a factor for each resample makes errors Student's t
        law.noises = law.noise * np.sqrt(law.dof / rng.chisquare(law.dof, resamples))
    law.problem = law.problem or no_interval(law)
    if not law.problem:
        misfit = math.sqrt(squares / dof) / max(law.noise, 1e-9) if dof > 1 else 1
        law.resampled = resample(law, values, max(1, misfit) * law.noises, branches, rng)
    return law


def undetermined(tokens, ppl):
    """Why runs determine no law; '' if they do."""
    budgets = np.unique(tokens)
    if len(budgets) < 3:
        there = f'there are {len(budgets)} ({", ".join(map(short, budgets)) or "none"})'
        return f'a scaling law needs monolingual runs of at least 3 budgets; {there}'
    if not all(0 < number < math.inf for number in (*tokens, *ppl)):
        return 'budgets and perplexities of a scaling law must be finite and above zero'
    first, last = (to_y(ppl[tokens == budget]).mean() for budget in budgets[[0, -1]])
    if last <= first:
        return 'the perplexity does not fall from the smallest to the largest budget'
    if fit(np.log(tokens), np.log(ppl)[None]).b[0] > 0.99 * B_MAX:
        return 'the perplexity stops falling after the smallest budget; add smaller ones'
    return ''


def power_law_from(log_tokens, log_ppl):
    """Tokens of the smallest of five budgets or more that follow a power law; 0: all or none do."""
    for first in range(len(log_tokens) - 4):
        x, y = log_tokens[first:], log_ppl[first:]
        residuals = y - np.log(fit(x, y[None]).ppl(np.exp(x)))
        if (residuals**2).sum() / (len(x) - 3) < HOLDS**2:
            return float(np.exp(x[0])) if first else 0.0
    return 0.0


def noise_of(values, trunks, replicates, residuals):
    """Run noise: (standard deviation, source, degrees of freedom), zeros where it is unknown. From
    the replicates where they have two degrees of freedom, else from the residuals of the power law,
    (sum of squares, degrees of freedom). Replicates of all budgets share trunks and count once."""
    found = [(len(seeds) - 1, np.var(seeds, ddof=1)) for seeds in replicates if len(seeds) > 1]
    own = [np.var(v['log_ppl'], ddof=1) for v in values if len(v['log_ppl']) > 1]
    found += [(trunks - 1, np.mean(own))] if own else []
    found = [(n, variance) for n, variance in found if math.isfinite(variance)]
    sums = sum(n * variance for n, variance in found), sum(n for n, _ in found)
    for source, (squares, dof) in dict(replicates=sums, residuals=residuals).items():
        if dof > 1:
            return math.sqrt(squares / dof), source, dof
    return 0.0, '', 0


def no_interval(law):
    """Why a law gives no intervals, and what would help; '' if it does."""
    count, needed = len(set(law.tokens)), ENOUGH[law.curve.kind]
    budgets = f'{count} budgets'
    if law.misfit > MAX_MISFIT:
        budgets += f' lie {law.misfit:.0%} off a power law'
    if count < needed:
        steepest = int(np.diff(np.log(law.ppl)).argmin())  # the curve is least known there
        between = short(math.sqrt(law.tokens[steepest] * law.tokens[steepest + 1]))
        return f'{budgets}: an interval needs {needed} at least; add {between} first'
    return '' if law.dof else f'{budgets}: train a second and third seed of the mixture'


def resample(law, values, noises, branches, rng):
    """Parametric bootstrap: R curves of the law's points with document and run noise."""
    shared, errors = rng.standard_normal((len(noises), law.trunks)), []
    for result in values:
        own = rng.standard_normal((len(noises), len(result['log_ppl'])))
        if branches:
            own = math.sqrt(1 - SHARED) * own + math.sqrt(SHARED) * shared[:, : own.shape[1]]
        errors.append(document_errors(result, len(noises)) + noises * own.mean(1))
    x, errors = np.log(law.tokens), np.stack(errors, 1)
    if law.curve.kind == 'power law':
        return fit(x, np.log(law.curve.ppl(law.tokens)) + errors)
    places = rng.uniform(*PLACES, (len(noises), len(x) - 1))
    return Interpolation(x, np.log(law.ppl) + errors, places)


def document_errors(result, resamples):
    """Resampled errors (R,) of a log perplexity that come from the choice of test documents."""
    loss, tokens = result['document_loss'], result['document_tokens']
    if len(loss) < 2:
        return np.zeros(resamples)
    weights = document_weights(len(loss), resamples)
    errors = weights @ loss / (weights @ tokens) - loss.sum() / tokens.sum()
    return widening(len(loss)) * errors


def errors_of(result, noises, role):
    """Resampled errors (R,) of a log perplexity from documents and the run noise of a role."""
    own = generator(result['ppl'], *role.encode()).standard_normal(len(noises))
    return document_errors(result, len(noises)) + noises * own / math.sqrt(len(result['log_ppl']))
