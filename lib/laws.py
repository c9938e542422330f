"""The form of a monolingual scaling law, its fit, and the interpolation where no law holds.

Pure functions of log tokens and log perplexity. A curve has ppl(tokens) and tokens(ppl), of R data
sets at once, so that a bootstrap is one call. To change the form, change to_y and to_ppl.
"""

import math
from dataclasses import dataclass

import numpy as np

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
