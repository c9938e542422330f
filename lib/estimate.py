"""90% intervals by bootstrap; means, and results of studies: pooled, subtracted, as text and JSON.

A result is {heading: {line: {place: Estimate}}}; places are blocks, bins, training steps or names.
"""

import functools
import itertools
import re
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lib.tables import align, width_of

LEVEL = 0.9  # of every interval
RESAMPLES = 1000  # of an Estimate
ALL = 'all'  # the place of a mean over all bins


@functools.cache
def document_weights(documents, resamples):
    """How often each test document occurs in each resample: (resamples, documents) float. Two runs
    on the same documents are resampled together: an error that they share cancels."""
    shares = np.full(documents, 1 / documents)
    return np.random.default_rng(0).multinomial(documents, shares, resamples).astype(float)


def widening(n):
    """Factor that makes the bootstrap of the mean of n > 1 things as wide as Student's interval."""
    end = (1 + LEVEL) / 2
    return stats.t.ppf(end, n - 1) / stats.norm.ppf(end) * (n / (n - 1)) ** 0.5


def generator(*numbers):
    """A random generator that depends on the numbers alone: equal results, equal resamples."""
    return np.random.default_rng(np.array(numbers, float).view(np.uint64))


def interval(resamples, least=-np.inf):
    """Ends (low, high) of the 90% interval of resamples (..., R), each (...).

    Resamples may be infinite, so none is interpolated between two of them; an undefined one
    (inf / inf) counts as `least` for the lower end and as infinite for the upper one."""
    ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    known = (np.where(np.isnan(resamples), rest, resamples) for rest in (least, np.inf))
    return tuple(np.quantile(x, end, axis=-1, method='nearest') for x, end in zip(known, ends))


@dataclass
class Estimate:
    """A mean, or a statistic of means, (...), and its bootstrap resamples, (RESAMPLES, ...)."""

    value: np.ndarray
    resamples: np.ndarray

    @classmethod
    @np.errstate(invalid='ignore')
    def of(cls, values, documents=None, statistic=np.asarray, seed=0, among=0):
        """The mean of `values` (n, ...) over its first axis, or a statistic, a function, of it.

        documents: (n,) document numbers; values of one document are resampled together. None: each
        by itself. among: of so many documents, numbered from 0, some have no value. Estimates of
        equally many documents and of one seed resample the same ones, so differences on the same
        text are paired. A single document has no interval: its resamples are nan."""
        values = np.asarray(values, float)
        value = np.asarray(statistic(values.mean(0)))
        names = np.arange(len(values)) if documents is None else documents
        known, document, sizes = np.unique(names, return_inverse=True, return_counts=True)
        n, rng = len(sizes), np.random.default_rng(seed)
        if n == 1:
            return cls.exact(value)
        sums = np.zeros((n, values[0].size))
        np.add.at(sums, document, values.reshape(len(values), -1))
        every, known = (among, known) if among else (n, slice(None))
        drawn = (rng.integers(every, size=every) for _ in range(RESAMPLES))
        counts = (np.bincount(numbers, minlength=every)[known] for numbers in drawn)
        means = np.stack([times @ sums / (times @ sizes) for times in counts])
        resamples = statistic(means.reshape(RESAMPLES, *values.shape[1:]))
        return cls(value, value + widening(n) * (resamples - value))

    @classmethod
    def exact(cls, value):
        """An Estimate without an interval."""
        return cls(np.asarray(value, float), np.full((RESAMPLES, *np.shape(value)), np.nan))

    def __getitem__(self, index):
        return Estimate(self.value[index], self.resamples[:, index])

    def __sub__(self, other):
        return Estimate(self.value - other.value, self.resamples - other.resamples)

    def __str__(self):
        """The value and half of the interval."""
        low, high = self.interval()
        half = '' if np.isnan(low) else f' ±{(high - low) / 2:.3f}'
        return '-' if np.isnan(self.value) else f'{self.value:z.3f}{half}'

    def interval(self):
        """Ends of the 90% interval: (2, ...); of the resamples that are defined, if most are."""
        few = np.isnan(self.resamples).mean(0) <= 0.1
        ends = np.nanpercentile(np.where(few, self.resamples, 0.0), [5, 95], axis=0)
        return np.where(few, ends, np.nan)


# --- results of studies ---------------------------------------------------------------------------


def combined(function, results):
    """function(*values) of each place that all of the results have."""
    if not isinstance(results[0], dict):
        return function(*results)
    common = [key for key in results[0] if all(key in result for result in results)]
    parts = {key: combined(function, [result[key] for result in results]) for key in common}
    return {key: part for key, part in parts.items() if part}


def over_seeds(results, group=0):
    """Averages the Estimates of several seeds, and resamples the seeds, for each `group` anew."""

    def pooled(*estimates):
        if len(estimates) == 1:
            return estimates[0]
        seeds = Estimate.of([estimate.value for estimate in estimates], seed=group + 1)
        resamples = np.mean([estimate.resamples for estimate in estimates], axis=0)
        return Estimate(seeds.value, resamples + seeds.resamples - seeds.value)

    return combined(pooled, results)


def difference(first, second):
    """The second less the first of two results, of what both have."""
    return combined(lambda one, other: other - one, [first, second])


def places_of(lines):
    """The places of some lines, {place: Estimate} each, and whether they are numbered: numbers or
    bins such as 4-7, which are sorted, ALL at the end."""
    places = list(dict.fromkeys(itertools.chain(*lines)))
    numbers = {place: re.match(r'\d+', str(place)) for place in places if place != ALL}
    if not all(numbers.values()):
        return places, False
    ordered = sorted(numbers, key=lambda place: int(numbers[place][0]))
    return ordered + [ALL] * (ALL in places), True


def over_training(results, axis):
    """Results {step: result} as one result over training steps.

    Of numbered places, called `axis`, such as blocks, the first, the middle and the last one become
    panels, or ALL where there is that; names become lines."""
    panels, rows = {}, {}
    for heading, lines in results[max(results)].items():
        places, numbered = places_of(lines.values())
        if numbered:
            ends = places[0], places[(len(places) - 1) // 2], places[-1]
            places = [ALL] if ALL in places else dict.fromkeys(ends)
        for (row, place), line in itertools.product(enumerate(places), lines):
            title = f'{heading}, {axis} {place}' if numbered and place != ALL else heading
            name = line if numbered else ', '.join(filter(None, (line, place)))
            parts = {step: r.get(heading, {}).get(line, {}) for step, r in results.items()}
            cells = {step: part[place] for step, part in parts.items() if place in part}
            if cells:
                panels.setdefault(title, {})[name] = cells
                rows.setdefault(title, row)
    return {title: panels[title] for title in sorted(panels, key=rows.get)}


def tables(results):
    """Results of some runs, {label: result}, as text: a table for each heading. Generator."""
    for heading in dict.fromkeys(itertools.chain(*results.values())):
        found = {label: result.get(heading, {}) for label, result in results.items()}
        places, _ = places_of(cells for lines in found.values() for cells in lines.values())
        rows = [['', *map(str, places)]]
        for label, lines in found.items():
            rows += [[label, *[''] * len(places)]] if any(lines) else []
            for name, cells in lines.items():
                texts = [str(cells.get(place, '-')) for place in places]
                rows.append([f'  {name}' if name else label, *texts])
        first, *widths = (max(map(width_of, column)) for column in zip(*rows))
        fitting = max(1, (100 - first) // (2 + max(widths, default=0)))
        starts = range(1, len(places) + 1, fitting)
        parts = [align([row[:1] + row[i : i + fitting] for row in rows]) for i in starts]
        yield '\n'.join([heading, *parts, ''])


def as_json(value):
    """A result as JSON has it, an Estimate as its mean and the ends of its 90% interval."""
    if isinstance(value, Estimate):
        return dict(zip(('mean', 'low', 'high'), map(float, (value.value, *value.interval()))))
    return {k: as_json(v) for k, v in value.items()} if isinstance(value, dict) else value
