"""Monolingual scaling laws and token equivalence (Section 3, Appendix B, Figure 5).

    python fit_scaling.py                   # the runs of out/: a table, scaling.json, scaling.csv, figure5.png
    python fit_scaling.py --paper=True      # every TEff of the paper again, from its perplexities and its laws
    python fit_scaling.py --study=coverage  # how often the 90% intervals hold the truth, on simulated runs

A language's tokens in a multilingual run are worth as many tokens as a monolingual run needs for the same perplexity.
  MLTE  monolingual token equivalence: the tokens at which the law reaches the run's perplexity
  MLPE  monolingual perplexity equivalence: the law's perplexity at the tokens that the run saw of the language
  TEff  token efficiency: MLTE / tokens seen; above 1 the other languages helped
The paper gives no uncertainty. Here each of the three has a 90% interval, see power_law.py.
"""
import csv
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtri, stdtrit

from configurator import ConfigError, run

out = 'out'  # folder of the runs; the tables and the picture are written here too
law_schedule = ''  # measure all runs by the laws of this lr_schedule, cosine or wsd; empty: each by those of its own
paper = False  # recompute the paper's own TEff instead, from the figures in results/
paper_curves = False  # draw the paper's laws into Figure 5 as well
study = ''  # coverage: check the intervals on simulated runs instead
datasets = 200  # simulated data sets for each line of the study


# the law

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


# the runs

def load_runs(folder):
    """The results.json of every finished run of `folder`; a damaged or foreign one is left out with a warning."""
    runs = []
    for path in sorted(Path(folder).glob('*/results.json')):
        try:
            one = json.loads(path.read_text(encoding='utf-8'))
            if not trained(one):
                raise ValueError
            for language in one['languages'].values():
                numbers = [language['tokens_seen'], language['ppl'], language.get('ppl_se') or 0.0]
                if not (isinstance(language['corpus'], str) and min(numbers) >= 0 and language['ppl'] > 0):
                    raise ValueError
                language['ppl_se'] = numbers[2] if math.isfinite(numbers[2]) else 0.0
                label_of(group_of(one, language))  # as for all that is needed below: raises where it is not there
            paper_rows(one)
            runs.append(one | dict(run=path.parent.name))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            print(f'warning: {path} is no results.json of train.py, or is damaged; it is left out', file=sys.stderr)
    return runs


def trained(one):
    """Names of the languages that a run has seen; a monolingual run has one."""
    return [name for name, language in one['languages'].items() if language['tokens_seen'] > 0]


def group_of(one, language):
    """What runs must share for one law: the text and its tokens, the model and the settings of its optimisation.

    Not the vocabulary, of which clones need more, nor the warm-up, which must be shorter in a short run."""
    model, settings = one['model'], one['settings']
    return (language['corpus'], language.get('tokenizer') or '',
            *(model[key] for key in ('n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim', 'block_size')),
            *(settings[key] for key in ('batch_size', 'learning_rate', 'min_learning_rate', 'lr_schedule')))


def label_of(group):
    corpus, tokenizer, n_layer, _, _, n_embd, _, block_size, batch_size, rate, _, schedule = group
    return (f'{corpus}' + (f' (tokeniser {tokenizer[:6]})' if tokenizer else '') + f', {n_layer} layers of {n_embd}, '
            f'{batch_size} x {block_size} tokens a step, {schedule} from {rate:g}')


def analyse(runs, law_schedule=''):
    """Fits the law of each group and gives every language of every run its token equivalence, by the law of its own
    group or, with `law_schedule`, by that of the same group with this lr_schedule. Raises ConfigError without one.

    Returns (laws, rows). laws: {group: dict(label, runs, tokens, ppl, ppl_se, law, problem)}, `law` None where
    `problem` says why. rows: dicts as `row_of` makes them. A law that is missing leaves None in its rows."""
    laws = {}
    for one in runs:
        for name in trained(one):
            language = one['languages'][name]
            group = group_of(one, language)
            entry = laws.setdefault(group, dict(label=label_of(group), runs=[], tokens=[], ppl=[], ppl_se=[],
                                                law=None, problem=''))
            if len(trained(one)) == 1:
                entry['runs'].append(one['run'])
                for key, value in (('tokens', 'tokens_seen'), ('ppl', 'ppl'), ('ppl_se', 'ppl_se')):
                    entry[key].append(language[value])
    for entry in laws.values():
        try:
            entry['law'] = fit_power_law(entry['tokens'], entry['ppl'])
        except ValueError as error:
            entry['problem'] = str(error)
    if law_schedule:
        if law_schedule not in (one['settings']['lr_schedule'] for one in runs):
            raise ConfigError(f'there is no run with lr_schedule {law_schedule!r}; choose cosine or wsd')
        for group, entry in laws.items():
            if group[-1] != law_schedule:
                fitted = laws.get((*group[:-1], law_schedule), {})
                entry.update(law=fitted.get('law'), problem=fitted.get('problem') or f'no {law_schedule} runs are like these',
                             label=f'{entry["label"]}, by the law of {law_schedule}')
    rows = []
    for one in runs:
        published = paper_rows(one)
        for name, language in one['languages'].items():
            seen = name in trained(one)
            law = laws[group_of(one, language)]['law'] if seen else None
            row = row_of(one, name, law)
            if published and seen:
                figures = published[0]['languages'][min(trained(one).index(name), 1)]
                row.update(paper_rows=', '.join(p['name'] for p in published),
                           paper_ppl=figures['ppl'], paper_teff=figures['teff'])
            rows.append(row)
    return laws, rows


MARGIN = 1.02  # so far past the fitted budgets is no extrapolation: languages are drawn, 10% comes out as 9.98%


def row_of(one, name, law):
    """The figures of one language of a run; intervals are (low, high), infinite means out of the law's reach.

    The TEff of a monolingual run is 1 by definition; how far the law is from it shows in its MLTE and MLPE."""
    language = one['languages'][name]
    tokens, ppl, ppl_se = language['tokens_seen'], language['ppl'], language['ppl_se']
    row = dict(run=one['run'], language=name, corpus=language['corpus'], monolingual=trained(one) == [name],
               tokens_seen=tokens, ppl=ppl, ppl_se=ppl_se, mlpe=None, mlpe_interval=None,
               mlte=None, mlte_interval=None, teff=None, teff_interval=None, extrapolated=False, unknown_noise=False,
               largest_budget=None, paper_rows='', paper_ppl=None, paper_teff=None)
    if law:
        low, high = min(law.fitted_tokens) / MARGIN, max(law.fitted_tokens) * MARGIN
        mlte, interval = law.tokens(ppl), law.tokens_interval(ppl, ppl_se)
        row.update(mlpe=law.ppl(tokens), mlpe_interval=law.ppl_interval(tokens), mlte=mlte, mlte_interval=interval,
                   teff=mlte / tokens, teff_interval=interval and tuple(end / tokens for end in interval),
                   extrapolated=not (low <= tokens <= high and low <= mlte <= high),
                   unknown_noise=law.unknown_noise, largest_budget=max(law.fitted_tokens))
    if row['monolingual']:
        row.update(teff=1.0, teff_interval=None, extrapolated=False)
    return row


# the paper's runs

RESULTS = Path(__file__).resolve().parent / 'results'
SETUPS = {'mono-en': ['en'], 'mono-fr': ['fr'], 'clones-2': ['en'] * 2, 'clones-10': ['en'] * 10,
          'en-fr': ['en', 'fr']}
SHAPES = {(4, 512): 'mini', (12, 768): 'small', (24, 1024): 'medium'}  # (n_layer, n_embd)


def load_paper_runs():
    """The published runs of results/paper_runs.csv. languages: dicts of name, kind, tokens_seen, ppl, teff, for the
    first two languages (the second of ten clones stands for nine)."""
    runs = []
    for row in csv.DictReader((RESULTS / 'paper_runs.csv').read_text().splitlines()):
        kinds = SETUPS[row['setup']]
        stages = []
        for stage in row['stages'].split(' > '):
            shares = [share.split('x') for share in stage.split('/')]  # 0.055556x9 stands for nine languages
            stages.append([float(share[0]) for share in shares for _ in range(int((share + [1])[1]))])
        columns = ['l2'] if row['setup'] == 'mono-fr' else ['l1', 'l2'][:len(kinds)]
        languages = [dict(name=kinds[i] + (str(i + 1) if row['setup'].startswith('clones') else ''), kind=kinds[i],
                          tokens_seen=int(row['tokens']) * sum(p[i] for p in stages) / len(stages),
                          ppl=float(row[f'ppl_{column}']), teff=float(row[f'teff_{column}']))
                     for i, column in enumerate(columns)]
        place = f'Table {row["table"]} row' if row['table'].isdigit() else row['table'].replace('fig', 'Figure ')
        runs.append(dict(name=f'{place} {row["row"]}', table=row['table'], kinds=kinds, vocabulary=row['vocab'],
                         size=row['model'], steps=int(row['steps']), stages=stages, languages=languages))
    return runs


def load_paper_laws():
    """{language: PowerLaw} of GPT small, from results/paper_laws.csv."""
    return {row['language']: PowerLaw(*(float(row[key]) for key in ('a', 'b', 'c', 'unit')))
            for row in csv.DictReader((RESULTS / 'paper_laws.csv').read_text().splitlines())}


def kind_of(name, corpus):
    """'en' or 'fr' where the name of a language or of its corpus says so, else ''."""
    words = set(re.findall('[a-z]+', f'{name} {corpus}'.lower()))
    return 'fr' if words & {'fr', 'fra', 'french'} else 'en' if words & {'en', 'eng', 'english'} else ''


def paper_rows(one):
    """The published runs that a run repeats: the same languages, vocabulary, size, steps and stages."""
    settings, names = one['settings'], trained(one)
    corpora = [one['languages'][name]['corpus'] for name in names]
    kinds = [kind_of(name, corpus) for name, corpus in zip(names, corpora)]
    size = SHAPES.get((one['model']['n_layer'], one['model']['n_embd']))
    if settings.get('batch_size') != 128 or one['model']['block_size'] != 512 or len(set(corpora)) != len(set(kinds)):
        return []
    if len(corpora) > len(set(corpora)) and settings.get('cloned_fraction', 1) != 1:
        return []  # clones that share pieces are Figure 8
    columns = [list(one['languages']).index(name) for name in names]
    stages = np.array(settings['stages'], float)[:, columns]

    def same_stages(published):
        whole = math.lcm(len(published), len(stages))
        ours, theirs = (np.repeat(s, whole // len(s), axis=0) for s in (stages, np.array(published)))
        return np.abs(ours - theirs).max() < 1e-5
    return [row for row in load_paper_runs()
            if (row['kinds'], row['size'], row['steps']) == (kinds, size, settings.get('max_steps'))
            and (row['vocabulary'] in ('-', settings.get('vocabulary'))) and same_stages(row['stages'])]


def recompute_paper():
    """Every published TEff beside the one that follows from its perplexity, the paper's law and the tokens seen."""
    laws, rows = load_paper_laws(), []
    for published in load_paper_runs():
        for language in published['languages']:
            mlte = laws[language['kind']].tokens(language['ppl'])
            mono = len(published['kinds']) == 1  # 1 by definition
            teff = 1.0 if mono else mlte / language['tokens_seen']
            rows.append(dict(name=published['name'], language=language['name'], monolingual=mono,
                             tokens_seen=language['tokens_seen'], ppl=language['ppl'], mlte=mlte, teff=teff,
                             paper_teff=language['teff'], difference=teff - language['teff']))
    return rows


# what is shown

def align(lines):
    """Text of a table, the first line its head; the first two columns to the left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return '\n'.join('  '.join(cell.ljust(width) if i < 2 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)


def with_interval(value, interval, write):
    if value is None:
        return '-'
    if interval is None or math.isinf(interval[0]):
        return write(value)
    return f'{write(value)} [{", ".join("inf" if math.isinf(end) else write(end) for end in interval)}]'


def table_text(rows):
    """The table of all runs with its legend."""
    def ppl(value):
        return f'{value:.1f}' if value < 1e6 else '> 1M' if value < 1e9 else '> 1B'

    lines = [('run', 'language', 'tokens', 'PPL', 'MLPE [90%]', 'MLTE [90%]', 'TEff [90%]', 'paper', 'PPL', 'TEff')]
    for row in rows:
        beyond = row['mlte'] is not None and math.isinf(row['mlte'])
        limit = beyond and row['largest_budget']

        def tokens(value):
            return short(value) if math.isfinite(value) else f'> {short(limit)}'

        def teff(value):
            return f'{value:.2f}' if math.isfinite(value) else f'> {limit / row["tokens_seen"]:.2f}'
        marks = '*' * row['extrapolated'] + '+' * row['unknown_noise']
        published = (ppl(row['paper_ppl']), f'{row["paper_teff"]:.2f}') if row['paper_rows'] else ('', '')
        lines.append((row['run'], row['language'], short(row['tokens_seen']), ppl(row['ppl']),
                      with_interval(row['mlpe'], row['mlpe_interval'], ppl),
                      with_interval(row['mlte'], row['mlte_interval'], tokens),
                      with_interval(row['teff'], row['teff_interval'], teff) + marks, row['paper_rows'], *published))
    legend = ['the TEff of a monolingual run is 1 by definition; its MLTE shows how far the law is from it']
    if any(row['extrapolated'] for row in rows):
        legend.append('* the tokens seen or the MLTE lie outside the budgets of the fit')
    if any(row['unknown_noise'] for row in rows):
        legend.append('+ three budgets leave no residuals: only the error of the evaluated perplexity is counted')
    return align(lines) + '\n' + '\n'.join(legend)


def paper_text(rows):
    """The table of recomputed TEff, and how many of them agree."""
    lines = [('run', 'language', 'tokens', 'PPL', 'MLTE', 'TEff here', 'TEff paper', 'difference')]
    for row in rows:
        lines.append((row['name'], row['language'], short(row['tokens_seen']),
                      f'{row["ppl"]:.3f}' if row['ppl'] < 1e9 else '> 1B', short(row['mlte']),
                      f'{row["teff"]:.6f}', f'{row["paper_teff"]:g}', f'{row["difference"]:+.6f}'))
    mono, rest = ([row for row in rows if row['monolingual'] == which] for which in (True, False))
    far = [row for row in rest if abs(row['difference']) > 0.002]
    names = ', '.join(f'{row["name"]} {row["language"]} ({row["difference"]:+.4f})' for row in far)
    worst = max(mono, key=lambda row: abs(row['mlte'] / row['tokens_seen'] - 1))
    return (f'{align(lines)}\n{len(rest) - len(far)} of {len(rest)} TEff of multilingual runs agree within 0.002'
            + (f'; not: {names}' if far else '')
            + '\nof rows 19 and 20 of Table 3 only rounded figures are known'
            + f'\nthe {len(mono)} monolingual TEff are 1 by definition; the law itself would give '
              f'{worst["mlte"] / worst["tokens_seen"]:.3f} for {worst["name"]}')


def write_files(folder, laws, rows):
    """scaling.json and scaling.csv. JSON has null, CSV inf, where a figure has no upper limit."""
    def finite(value):
        if isinstance(value, (list, tuple)):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    fits = [{key: entry[key] for key in ('label', 'runs', 'tokens', 'ppl', 'ppl_se', 'problem')} | (
        dict(a=entry['law'].a, b=entry['law'].b, c=entry['law'].c, unit=entry['law'].unit, noise=entry['law'].noise())
        if entry['law'] else {}) for entry in laws.values()]
    fits, kept = ([{key: finite(value) for key, value in item.items()} for item in items] for items in (fits, rows))
    (folder / 'scaling.json').write_text(json.dumps(dict(laws=fits, rows=kept), indent=2, allow_nan=False) + '\n')
    with (folder / 'scaling.csv').open('w', newline='') as file:
        ends = [key for key in rows[0] if key.endswith('_interval')]  # of these two columns are made
        flat = [{key: row[key] for key in row if key not in ends}
                | {key.replace('interval', end): row[key][i] if row[key] else ''
                   for key in ends for i, end in enumerate(('low', 'high'))} for row in rows]
        writer = csv.DictWriter(file, flat[0])
        writer.writeheader()
        writer.writerows(flat)


def draw_figure5(laws, path, published):
    """Figure 5: perplexity against tokens of the monolingual runs, the law of each group and its 90% band.

    Returns whether there was anything to draw."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    drawn = [entry for entry in laws if entry['tokens'] and np.isfinite(entry['ppl']).all()]
    if not drawn:
        return False
    figure, axes = plt.subplots(figsize=(8, 5.5), layout='constrained')
    largest = max(max(entry['tokens']) for entry in drawn)
    limits = [ppl for entry in drawn for ppl in entry['ppl']]
    for i, entry in enumerate(drawn):
        law, tokens, color = entry['law'], np.array(entry['tokens'], float), f'C{i % 10}'
        axes.errorbar(tokens, entry['ppl'], 1.645 * np.array(entry['ppl_se']), fmt='o', ms=5, capsize=3, color=color,
                      label=entry['label'] + ('' if law else ' (no law)'))
        if law:
            fitted, wider = (np.geomspace(tokens.min() / s, tokens.max() * s, 100) for s in (1, 2.5))
            axes.plot(wider, law.ppl(wider), '--', lw=1, color=color)
            axes.plot(fitted, law.ppl(fitted), lw=2, color=color)
            if law.dof:
                axes.fill_between(fitted, *law.ppl_interval(fitted), color=color, alpha=0.15, lw=0)
    for i, (language, law) in enumerate(published.items()):
        x = np.geomspace(0.05, 3, 200) * UNIT
        axes.plot(x, law.ppl(x), ':', color=str(0.4 * i), label=f"the paper's {language.upper()}, GPT small")
        limits += [law.ppl(x[0]), law.ppl(x[-1])]
        largest = UNIT
    axes.set(xscale='log', yscale='log', xlabel='tokens of the training run', ylabel='perplexity on the test set',
             title='Monolingual runs and their power laws (bars and bands: 90%; dashed: extrapolated)')
    axes.set_ylim(min(limits) / 1.5, max(limits) * 1.5)
    scales = [(axes.xaxis, (1, 2, 5), short), (axes.yaxis, (1, 1.5, 2, 3, 4, 5, 7), '{:g}'.format)]
    if largest > 0.1 * UNIT:
        top = axes.secondary_xaxis('top', functions=(lambda x: x / UNIT, lambda x: x * UNIT))
        top.set_xlabel(f'fraction of {short(UNIT)} tokens')
        scales.append((top.xaxis, (1, 2, 5), '{:g}'.format))
    for axis, subs, write in scales:
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _, write=write: write(value)))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True


def describe(law):
    """A law in one line, with what keeps it from being trusted."""
    text = (f'1/PPL = {law.c:.5g} - {law.a:.5g} * (tokens / {short(law.unit)})^-{law.b:.4g} '
            f'from {len(law.fitted_tokens)} runs')
    text += f' that lie {law.noise():.1%} off' if law.dof else ', which it meets by construction'
    return text + ('; b is at its lower bound: no levelling off in sight' if law.b < 1.01 * B_MIN else '')


def study_coverage():
    """A table of how often the 90% interval of TEff holds the truth, with 2% noise on the runs around a paper's law.

    seen: share of the standard budget that the evaluated run saw of the language; PPL error: of that run."""
    sixteen = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.5, 2, 3]
    spans = [[0.1, 0.25, 0.5, 1], [0.1, 0.2, 0.4, 0.7, 1], [0.05, 0.1, 0.25, 0.5, 0.75, 1],
             [0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1], sixteen]
    lines, laws = [('budgets', 'law', 'seen', 'TEff', 'PPL error', 'coverage', 'too high', 'too low', 'median width',
                    'no upper end')], load_paper_laws()
    for span in spans:
        for name, seen, teff, ppl_se in (('en', 0.1, 2.0, 0.02), ('en', 0.5, 0.9, 0.02), ('fr', 0.9, 0.9, 0.02),
                                         ('fr', 0.25, 2.0, 0.02), ('en', 0.9, 2.0, 0.02), ('en', 0.1, 2.0, 0.002)):
            found = coverage(laws[name], span, seen, teff, 0.02, ppl_se, datasets)
            lines.append((f'{len(span)}', name.upper(), f'{seen:g}', f'{teff:g}', f'{ppl_se:.1%}',
                          *(f'{found[key]:.1%}' for key in ('coverage', 'above', 'below')),
                          f'x {found["width"]:.2f}', f'{found["open"]:.0%}'))
    return align(lines)


def main():
    if study not in ('', 'coverage'):
        raise ConfigError(f"study must be 'coverage' or nothing, not {study!r}")
    if study:
        return print(study_coverage())
    if paper:
        return print(paper_text(recompute_paper()))
    runs = load_runs(out)
    if not runs:
        raise ConfigError(f'there is no finished run in {out}/ (no {out}/RUN/results.json); train some with '
                          'python train.py config/NAME.py, or name their folder with --out=')
    laws, rows = analyse(runs, law_schedule)
    for entry in laws.values():
        print(f'{entry["label"]}: {describe(entry["law"]) if entry["law"] else "no law: " + entry["problem"]}')
    print('\n' + table_text(rows))
    write_files(Path(out), laws, rows)
    drawn = draw_figure5(laws.values(), Path(out) / 'figure5.png', load_paper_laws() if paper_curves else {})
    print(f'\nwrote {out}/scaling.json, {out}/scaling.csv' + (f', {out}/figure5.png' if drawn else ''))


if __name__ == '__main__':
    run(globals(), main)
