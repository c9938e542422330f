"""Monolingual scaling laws: their form, fit, interpolation where no law holds, and resamples.

A curve has ppl(tokens) and tokens(ppl), of R data sets at once, so that a bootstrap is one call. To
change the form of the law, change to_y and to_ppl.
"""

import math
from dataclasses import dataclass

import numpy as np

from lib.bootstrap import document_weights, generator, widening
from lib.tables import short

UNIT = 1_197_015_040  # tokens of the paper's standard run: 18,265 steps of 128 x 512 tokens
B_MIN, B_MAX = 0.01, 10.0  # exponents tried; at B_MIN the law is almost straight in log tokens


def to_y(ppl):
    """The quantity that follows y = c - a * (tokens / UNIT)^(-b): 1/PPL, as in the paper's code."""
    with np.errstate(all='ignore'):
        return 1 / np.asarray(ppl, float)


def to_ppl(y):
    """The perplexity of y; infinite where there is none."""
    with np.errstate(all='ignore'):
        return np.where(y > 0, 1 / np.asarray(y, float), np.inf)


@dataclass
class PowerLaw:
    """to_y(PPL) = c - a * (tokens / UNIT)^(-b); a, b, c are numbers, or arrays (R,) of
    resamples."""

    a: float
    b: float
    c: float

    def ppl(self, tokens):
        """Perplexity after `tokens` of monolingual training (MLPE)."""
        with np.errstate(all='ignore'):
            return to_ppl(self.c - self.a * (np.asarray(tokens, float) / UNIT) ** -self.b)

    def tokens(self, ppl):
        """Tokens of monolingual training that reach `ppl` (MLTE); infinite where none do."""
        with np.errstate(all='ignore'):
            gap = self.c - to_y(ppl)
            return np.where(gap > 0, (self.a / gap) ** (1 / self.b) * UNIT, np.inf)


def fit(log_tokens, log_ppl):
    """PowerLaw of arrays (R,): least squares in to_y(PPL) of R data sets, log_ppl (R, n).

    For a given b the law is a straight line, so only b is searched: a grid, then three finer ones
    around the best value. a stays above 0: a law that would rise becomes flat."""
    y, x = to_y(np.exp(log_ppl)), log_tokens - log_tokens.mean()
    rows = np.arange(len(y))[:, None]

    def lines(log_b):  # (R, k) -> z (R, k, n) centred, its mean, and a (R, k)
        z = np.exp(-np.exp(log_b)[..., None] * x)
        mean = z.mean(-1, keepdims=True)
        z = z - mean
        a = -np.einsum('rn,rkn->rk', y, z) / np.einsum('rkn,rkn->rk', z, z)
        return z, mean[..., 0], a

    grid = np.linspace(math.log(B_MIN), math.log(B_MAX), 65)
    log_b = np.broadcast_to(grid, (len(y), 65))
    for _ in range(6):
        z, mean, a = lines(log_b)
        explained = np.where(a > 0, a * -np.einsum('rn,rkn->rk', y, z), 0)
        best, step = explained.argmax(1)[:, None], log_b[:, 1:2] - log_b[:, :1]
        finer = log_b[rows, best] + step * np.linspace(-1, 1, 33)
        log_b = finer.clip(grid[0], grid[-1])
    a, mean = np.maximum(a[rows, best], 1e-12)[:, 0], mean[rows, best][:, 0]
    b = np.exp(log_b[:, 16])
    return PowerLaw(a * np.exp(b * (log_tokens.mean() - math.log(UNIT))), b, y.mean(1) + a * mean)


# --- interpolation --------------------------------------------------------------------------------

HOLE = math.log(1.34)  # neighbouring budgets further apart leave a hole in the curve ...
OPEN = 0.04  # ... where they also leave log tokens open by so much in both directions
BEND = 2.0  # slopes of neighbouring segments that differ more have a bend between them


@dataclass
class Interpolation:
    """A curve through the budgets, in log tokens and log perplexity, for runs that follow no power
    law: near the phase transition at which a model starts to use context, perplexity falls by a
    third within a factor of two of tokens.

    Between two budgets a curve without inflection lies between the chord and the extensions of the
    neighbouring chords. The estimate is half way; a resample is at `place` of that range, 0 to 1,
    or a little beyond it. log_tokens: (n,); log_ppl: (R, n); place: (R, n - 1)."""

    log_tokens: np.ndarray
    log_ppl: np.ndarray
    place: np.ndarray

    def ppl(self, tokens):
        x, y = self._curve()
        at = np.broadcast_to(np.log(tokens), len(y))
        return np.exp(-between(at, x, y, self.place)[0])

    def tokens(self, ppl):
        x, y = self._curve()
        at = np.broadcast_to(-np.log(ppl), len(y))
        with np.errstate(over='ignore'):  # infinite, far beyond the budgets
            return np.exp(between(at, y, x, self.place)[0])

    def hole(self, ppl):
        """The budgets, (2,) tokens, between which the curve is open at `ppl`, or None."""
        x, y = self._curve()
        _, left, half = between(-np.log([ppl]), y, x, self.place)
        ends = x[0, left[0] : left[0] + 2]
        return np.exp(ends) if half[0] > OPEN and np.diff(ends)[0] > HOLE else None

    def _curve(self):
        """Log tokens and -log PPL, each (R, n), rising."""
        y = np.maximum.accumulate(-self.log_ppl, axis=1) + 1e-9 * np.arange(len(self.log_tokens))
        return np.broadcast_to(self.log_tokens, y.shape), y


def between(at, x, y, place):
    """Values at `at` (R,) of curves through the points x, y (R, n), rising; straight beyond them.

    Returns (values (R,), index of the point on the left (R,), half of the range (R,) that the
    neighbouring points leave open)."""
    rows, last = np.arange(len(x)), x.shape[1] - 2
    left = ((at[:, None] >= x).sum(1) - 1).clip(0, last)
    width, slopes = np.diff(x)[rows, left], np.diff(y) / np.maximum(np.diff(x), 1e-12)
    before, chord, after = (slopes[rows, (left + i).clip(0, last)] for i in (-1, 0, 1))
    p = (at - x[rows, left]) / width
    on_chord, inside = y[rows, left] + chord * p * width, (p >= 0) & (p <= 1)
    # how far the two extensions lie from the chord, within the two points
    limits = y[rows, left] - on_chord, y[rows, left + 1] - on_chord
    of_left = ((before - chord) * p * width).clip(*limits)
    of_right = ((chord - after) * (1 - p) * width).clip(*limits)
    of_left, of_right = (
        np.where(left == 0, of_right, of_left),
        np.where(left == last, of_left, of_right),
    )
    one_sided = of_left * of_right >= 0
    nearer = np.where(abs(of_left) < abs(of_right), of_left, of_right)
    centre = np.where(one_sided, nearer, (1 - p) * of_left + p * of_right) / 2
    # an inflection may lie in the segment, or beside it: then the range is a little wider
    steps = np.stack([before / chord, chord / before, after / chord, chord / after])
    bends = steps.max(0) > BEND
    inflected = np.where(one_sided, 0, (abs(of_left) + abs(of_right)) / 8)
    half = np.maximum(abs(centre), np.maximum(inflected, np.where(bends, 0.1 * width * chord, 0)))
    curve = centre + (2 * place[rows, left] - 1) * half
    return on_chord + np.where(inside, curve, 0), left, np.where(inside, half, 0)


# --- the law of a group of runs -------------------------------------------------------------------

RESAMPLES = 1000
MAX_MISFIT = 0.05  # above this RMS residual in log perplexity, interpolate instead
HOLDS = 0.005  # a power law holds for runs with at most this residual for each degree of freedom
ENOUGH = {'power law': 5, 'interpolation': 6}  # budgets that an interval needs
SHARED = 0.5  # part of the variance of a branch that all branches of its trunk share
RESIDUALS = 2.0  # variance of a branch over that of its residuals, which lack the shared part
PLACES = -0.3, 1.3  # of an interpolation, see there


@dataclass
class Law:
    """The law of one group: its points and curve, and the resampled curves.

    tokens, ppl, ppl_se: (n,) of `runs`. curve, resampled: PowerLaw or Interpolation of one and of
    RESAMPLES data sets, or None. noise: standard deviation of a run's log perplexity, with `dof`
    degrees of freedom; noises: its resamples (R,), or None. problem: why there is no curve, or else
    no interval. holds_from: tokens of the smallest budget from which a power law holds, 0 for none
    or all."""

    label: str
    runs: list
    tokens: np.ndarray
    ppl: np.ndarray
    ppl_se: np.ndarray
    trunks: int = 0
    curve: object = None
    resampled: object = None
    misfit: float = 0.0  # RMS residual of the power law, in log perplexity
    noise: float = 0.0
    noise_from: str = ''
    dof: int = 0
    noises: object = None
    problem: str = ''
    holds_from: float = 0.0

    @property
    def kind(self):
        return 'power law' if isinstance(self.curve, PowerLaw) else 'interpolation'


def law_of(label, results, replicates=(), branches=False, resamples=RESAMPLES):
    """The Law of monolingual results, {run: result}.

    replicates: log perplexities of the seeds of each compared run, (languages, seeds) each. Their
    spread is the run noise where it has two degrees of freedom; else the residuals of the power law
    are. branches: the runs share trunks, and with them noise."""
    results = dict(sorted(results.items(), key=lambda item: item[1]['tokens_seen']))
    values, keys = list(results.values()), ('tokens_seen', 'ppl', 'ppl_se')
    columns = [np.array([value[key] for value in values], float) for key in keys]
    seeds = np.array([len(value['log_ppl']) for value in values])
    law = Law(label, list(results), *columns, trunks=int(max(seeds, default=0)))
    law.problem = undetermined(law.tokens, law.ppl)
    squares, left = 0.0, 0  # of the residuals, and their degrees of freedom
    if not law.problem:
        log_tokens, log_ppl = np.log(law.tokens), np.log(law.ppl)
        law.curve = fit(log_tokens, log_ppl[None])
        residuals = log_ppl - np.log(law.curve.ppl(law.tokens))
        law.misfit = float(np.sqrt(np.mean(residuals**2)))
        law.holds_from = power_law_from(log_tokens, log_ppl)
        if law.misfit > MAX_MISFIT:
            half = np.full((1, len(values) - 1), 0.5)
            law.curve = Interpolation(log_tokens, log_ppl[None], half)
        else:  # the law has three parameters
            squares, left = (seeds * residuals**2).sum(), len(values) - 3
            squares *= RESIDUALS if branches else 1
    rng = generator(*law.ppl)
    set_noise(law, values, replicates, (squares, left), rng.chisquare, resamples)
    law.problem = law.problem or no_interval(law)
    if not law.problem:
        misfit = math.sqrt(squares / left) / max(law.noise, 1e-9) if left >= 2 else 1
        resample(law, values, max(1, misfit) * law.noises, branches, rng)
    return law


def undetermined(tokens, ppl):
    """Why runs determine no law; empty if they do."""
    numbers, budgets = np.concatenate([tokens, ppl]), np.unique(tokens)
    if len(budgets) < 3:
        there = f'there are {len(budgets)} ({", ".join(map(short, budgets)) or "none"})'
        return f'a scaling law needs monolingual runs of at least 3 budgets; {there}'
    if not ((0 < numbers) & (numbers < np.inf)).all():
        return 'budgets and perplexities of a scaling law must be finite and above zero'
    first, last = (to_y(ppl[tokens == budget]).mean() for budget in budgets[[0, -1]])
    if last <= first:
        return 'the perplexity does not fall from the smallest to the largest budget'
    if fit(np.log(tokens), np.log(ppl)[None]).b[0] > 0.99 * B_MAX:
        return 'the perplexity stops falling after the smallest budget; add smaller ones'
    return ''


def power_law_from(log_tokens, log_ppl):
    """Tokens of the smallest budget from which five budgets or more follow a power law to within
    HOLDS; 0 where all do or none."""
    for first in range(len(log_tokens) - 4):
        x, y = log_tokens[first:], log_ppl[first:]
        misfit = y - np.log(fit(x, y[None]).ppl(np.exp(x)))
        if (misfit**2).sum() / (len(x) - 3) < HOLDS**2:
            return float(np.exp(x[0])) if first else 0.0
    return 0.0


def set_noise(law, values, replicates, residuals, chisquare, resamples):
    """Run noise from replicates: of the compared runs, and once for all budgets of the law, which
    share their trunks; else from residuals, (sum of squares, degrees of freedom).

    Few degrees of freedom determine it, so one factor for each resample makes it Student's t."""
    spreads = [np.array(v) for v in replicates if len(v[0]) > 1]
    spreads = [(v.shape[1] - 1, v.var(1, ddof=1).mean()) for v in spreads]
    own = [np.var(v['log_ppl'], ddof=1) for v in values if len(v['log_ppl']) > 1]
    spreads += [(law.trunks - 1, np.mean(own))] if own else []
    spreads = [(n, variance) for n, variance in spreads if math.isfinite(variance)]
    squares, dof = sum(n * variance for n, variance in spreads), sum(n for n, _ in spreads)
    source = 'replicates'
    if dof < 2:
        (squares, dof), source = residuals, 'residuals'
    if dof >= 2:
        law.noise, law.noise_from, law.dof = math.sqrt(squares / dof), source, int(dof)
        law.noises = law.noise * np.sqrt(dof / chisquare(dof, resamples))


def no_interval(law):
    """Why a law gives no intervals; empty if it does."""
    count, needed = len(set(law.tokens)), ENOUGH[law.kind]
    off = f'{count} budgets lie {law.misfit:.0%} off a power law' if law.misfit > MAX_MISFIT else ''
    if count < needed:
        return f'{off or f"{count} budgets"}: an interval needs {needed} at least'
    if not law.dof:
        return f'{off or "run noise is unknown"}: train a second and third seed of the mixture'
    return ''


def resample(law, values, noises, branches, rng):
    """Parametric bootstrap: the curve of its own points plus document and run noise, (R,)."""
    shared, errors = rng.standard_normal((len(noises), law.trunks)), []
    for result in values:
        own = rng.standard_normal((len(noises), len(result['log_ppl'])))
        if branches:
            own = math.sqrt(1 - SHARED) * own + math.sqrt(SHARED) * shared[:, : own.shape[1]]
        errors.append(document_errors(result, len(noises)) + noises * own.mean(1))
    log_tokens, errors = np.log(law.tokens), np.stack(errors, 1)
    if law.kind == 'power law':
        law.resampled = fit(log_tokens, np.log(law.curve.ppl(law.tokens)) + errors)
    else:
        places = rng.uniform(*PLACES, (len(noises), len(values) - 1))
        law.resampled = Interpolation(log_tokens, np.log(law.ppl) + errors, places)


def document_errors(result, resamples):
    """Resampled errors (R,) of a log perplexity that come from the choice of test documents."""
    loss, tokens = result['document_loss'], result['document_tokens']
    if len(loss) < 2:
        return np.zeros(resamples)
    weights = document_weights(len(loss), resamples)
    errors = weights @ loss / (weights @ tokens) - loss.sum() / tokens.sum()
    return widening(len(loss)) * errors


def errors_of(result, noises, role=''):
    """Resampled errors (R,) of a log perplexity from documents and run noise. role: results in
    other roles have other run noise."""
    own = generator(result['ppl'], *role.encode()).standard_normal(len(noises))
    return document_errors(result, len(noises)) + noises * own / math.sqrt(len(result['log_ppl']))
