"""The monolingual scaling law 1/PPL = c - a * x^(-b) and its 90% intervals (Section 3, Appendix B).

Shapes in comments: n fitted points, R resampled data sets.
"""
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtri, stdtrit

UNIT = 1_197_015_040  # tokens of the paper's standard run: 18,265 steps of 128 sequences of 512
B_MIN, B_MAX = 0.01, 10.0  # exponents looked at; at B_MIN the law is as good as straight in log tokens
LEVEL, DRAWS = 0.9, 2000  # of the intervals


def best_a_c(b, log_x, y):
    """Least-squares a and c of y = c - a * x^(-b) for given exponents b (R,) and points y (R, n); both (R,).

    For a fixed b this is a straight line. a stays above 0: a law that would fall becomes flat."""
    z = np.exp(-np.multiply.outer(b, log_x))
    mean = z.mean(1)
    z = z - mean[:, None]
    a = np.maximum(-(y * z).sum(1) / (z * z).sum(1), 1e-12)
    return a, y.mean(1) + a * mean


def refit(log_x, y):
    """Least-squares (a, b, c), each (R,), of R data sets y (R, n) at once.

    A grid over b with the best a and c for each of its values cannot miss the minimum; the vertex of the parabola
    through the best three then gives b to about 1e-4, far less than the noise that this is used to measure."""
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
    return best_a_c(b, log_x, y)[0], b, best_a_c(b, log_x, y)[1]


def fit_power_law(tokens, ppl, unit=UNIT):
    """The PowerLaw of monolingual runs: perplexities `ppl` after `tokens`; least squares on 1/PPL as in the paper.

    Raises ValueError where the runs do not determine a law."""
    tokens, ppl = np.asarray(tokens, float), np.asarray(ppl, float)
    if tokens.shape != ppl.shape or tokens.ndim != 1:
        raise ValueError('a scaling law needs one perplexity for each budget')
    if not (np.isfinite(tokens).all() and np.isfinite(ppl).all() and (tokens > 0).all() and (ppl > 0).all()):
        raise ValueError('the budgets and perplexities of a scaling law must be finite and above zero')
    budgets = np.unique(tokens)
    if len(budgets) < 3:
        raise ValueError(f'a scaling law needs monolingual runs of at least 3 budgets; there are {len(budgets)} '
                         f'({", ".join(map(short, budgets)) or "none"})')
    y = 1 / ppl
    if y[tokens == budgets[-1]].mean() <= y[tokens == budgets[0]].mean():
        raise ValueError('the perplexity does not fall from the smallest to the largest budget; check these runs')
    centre = np.exp(np.log(tokens).mean())  # fitted around it, so that no power is huge
    log_x, scale = np.log(tokens / centre), y.mean()
    b = float(refit(log_x, y[None] / scale)[1][0])
    if 1.001 * B_MIN < b < 0.999 * B_MAX:  # inside: the grid's b to the last digit

        def errors(log_b):
            a, c = best_a_c(np.exp(log_b), log_x, y[None] / scale)
            return y / scale - c + a * np.exp(-np.exp(log_b) * log_x)

        solution = least_squares(errors, math.log(b), jac='3-point', method='lm', xtol=1e-14, ftol=1e-14, gtol=1e-14)
        if not (solution.success and abs(solution.x[0] - math.log(b)) < 0.1):
            raise ValueError('the fit of the scaling law did not converge; check the perplexities of these runs')
        b = float(np.exp(solution.x[0]))
    if b > 0.99 * B_MAX:
        raise ValueError('the perplexity stops falling right after the smallest budget, which no power law does; '
                         'check these runs or add smaller budgets')
    (a,), (c,) = scale * np.array(best_a_c(np.array([b]), log_x, y[None] / scale))
    if a <= 1e-9 * scale:
        raise ValueError('the perplexity does not fall with the tokens; check these runs')
    return PowerLaw(float(a * (centre / unit) ** b), b, float(c), unit, tuple(tokens.tolist()), tuple(ppl.tolist()))


@dataclass
class PowerLaw:
    """1/PPL = c - a * (tokens / unit)^(-b). Its methods take numbers or arrays.

    The intervals resample the fit: noise as large as the residuals is put on the law's points and the law is fitted
    again, DRAWS times, while the evaluated perplexity moves by its own standard error. Noise is relative to the
    perplexity. Four budgets leave one degree of freedom, too few residuals to draw from: the noise is normal, its
    variance that of the residuals over the share that three parameters leave of it, and it is widened by Student's t
    over the normal quantile. A law made from coefficients alone is taken as exact."""
    a: float
    b: float
    c: float
    unit: float = UNIT
    fitted_tokens: tuple = ()
    fitted_ppl: tuple = ()

    def ppl(self, tokens):
        """Perplexity after `tokens` of monolingual training (MLPE); infinite where the law's 1/PPL is below 0."""
        with np.errstate(divide='ignore'):
            y = self.c - self.a * np.power(np.asarray(tokens, float) / self.unit, -self.b)
        return plain(reciprocal(y))

    def tokens(self, ppl):
        """Tokens of monolingual training that reach `ppl` (MLTE); infinite where the law never gets there."""
        return plain(invert(1 / np.asarray(ppl, float), self.a, self.b, self.c) * self.unit)

    @property
    def dof(self):
        """Degrees of freedom that the three parameters leave; with 0 the residuals say nothing about the noise."""
        return max(0, len(self.fitted_tokens) - 3)

    @property
    def unknown_noise(self):
        return len(self.fitted_tokens) > 0 and self.dof == 0

    def _weights(self, tokens):
        """How much each of the n fitted points moves the law's 1/PPL at `tokens` (m,): (m, n), to first order."""
        centre = np.exp(np.log(self.fitted_tokens).mean())

        def slopes(t):  # by c, by a, by b, each up to a factor that does not matter
            log_x = np.log(np.asarray(t) / centre)
            z = np.exp(-self.b * log_x)
            return np.stack([np.ones_like(z), z, z * log_x], 1)
        return slopes(tokens) @ np.linalg.pinv(slopes(self.fitted_tokens), rcond=1e-12)

    def noise(self):
        """Standard deviation of the fitted perplexities around the law, relative to them; 0 where nothing tells."""
        if self.dof == 0:
            return 0.0
        fitted = 1 / self.ppl(np.array(self.fitted_tokens))
        residuals = 1 / np.array(self.fitted_ppl) - fitted
        left = np.eye(len(fitted)) - self._weights(self.fitted_tokens)  # what the fit leaves of noise on the points
        return math.sqrt((residuals ** 2).sum() / (left ** 2 @ fitted ** 2).sum())

    def _resampled(self, widen, rng):
        """DRAWS laws (a, b, c), each (DRAWS,), refitted to the law's own points with noise `widen` times as large."""
        if self.dof == 0:
            return tuple(np.full(DRAWS, value) for value in (self.a, self.b, self.c))
        x = np.array(self.fitted_tokens) / self.unit
        centre = np.exp(np.log(x).mean())
        noise = rng.standard_normal((DRAWS, len(x))) * self.noise() * widen
        a, b, c = refit(np.log(x / centre), (1 + noise) / self.ppl(x * self.unit))
        return a * centre ** b, b, c

    def ppl_interval(self, tokens):
        """90% interval (low, high) of MLPE; None where the fit has no residuals to tell."""
        if self.dof == 0:
            return None
        a, b, c = (value[:, None] for value in self._resampled(student(self.dof), np.random.default_rng(0)))
        y = c - a * np.power(np.atleast_1d(tokens) / self.unit, -b)
        return tuple(end if np.ndim(tokens) else float(end[0]) for end in quantiles(reciprocal(y)))

    def tokens_interval(self, ppl, ppl_se):
        """90% interval (low, high) of MLTE for a perplexity and its standard error; None without any error to count.

        Only a part of the error has few degrees of freedom, so the sum has more (Welch and Satterthwaite). That
        estimate trusts small residuals too much where they are small by luck: the fit's variance is counted twice
        in it, which keeps the coverage near 90% whichever of the two errors is the larger. (With four budgets a known
        error can so narrow the interval that the unknown one alone would need.)"""
        error = ppl_se / ppl
        if self.dof == 0 and not error > 0:
            return None
        widen = 1.0
        if self.dof:
            at = np.clip(self.tokens(ppl), min(self.fitted_tokens) / 1e3, max(self.fitted_tokens) * 1e3)
            points = self.noise() / self.ppl(np.array(self.fitted_tokens))  # sd of the 1/PPL of each fitted point
            of_fit = 2 * (self._weights([at])[0] ** 2 @ points ** 2) * ppl ** 2
            widen = student(self.dof * (1 + error ** 2 / max(of_fit, 1e-30)) ** 2)
        rng = np.random.default_rng(0)
        y = (1 + rng.standard_normal(DRAWS) * error * widen) / ppl
        return tuple(map(float, quantiles(invert(y, *self._resampled(widen, rng)) * self.unit)))


def invert(y, a, b, c):
    """x of y = c - a * x^(-b); infinite where y is not below c."""
    gap = c - y
    with np.errstate(divide='ignore', over='ignore'):
        return np.where(gap > 0, np.power(a / np.where(gap > 0, gap, 1), 1 / b), np.inf)


def reciprocal(y):
    """PPL of 1/PPL; infinite where that is not above 0."""
    return np.where(y > 0, 1 / np.where(y > 0, y, 1), np.inf)


def plain(value):
    return value if value.ndim else float(value)


def student(dof):
    """Student's t over the normal quantile at the ends of an interval."""
    tail = (1 + LEVEL) / 2
    return float(stdtrit(min(dof, 1e6), tail) / ndtri(tail))


def quantiles(draws):
    """The ends of the interval; draws may be infinite, so none is made up between two of them."""
    return np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0, method='nearest')


def short(tokens):
    """1.2B, 120M, 655k"""
    for size, letter in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
        if tokens >= size:
            return f'{tokens / size:.3g}{letter}' if tokens < 1e13 else f'{tokens:.0e}'
    return f'{tokens:.0f}'


def coverage(truth, budgets, seen, teff, noise, ppl_se, datasets, seed=0):
    """How often the interval of TEff holds the truth, for runs simulated around the law `truth`.

    budgets: of the monolingual runs, seen: tokens of the evaluated language, both as fractions of the law's unit;
    noise: of the fitted perplexities, ppl_se: of the evaluated one, both relative. Returns the shares of data sets:
    coverage, above and below (the interval is too high, too low), open (no upper end); the median of high / low."""
    rng = np.random.default_rng(seed)
    tokens, right = np.array(budgets) * truth.unit, seen * teff * truth.unit
    ends = []
    for _ in range(datasets):
        law = fit_power_law(tokens, truth.ppl(tokens) * (1 + noise * rng.standard_normal(len(tokens))), truth.unit)
        ppl = truth.ppl(right) * (1 + ppl_se * rng.standard_normal())
        ends.append(law.tokens_interval(ppl, ppl_se * ppl))
    low, high = np.array(ends).T
    above, below = float((low > right).mean()), float((high < right).mean())
    return dict(coverage=1 - above - below, above=above, below=below, open=float(np.isinf(high).mean()),
                width=float(np.median(high / low)))
