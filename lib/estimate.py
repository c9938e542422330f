"""Means with 90% intervals, and results of studies: pooled, subtracted, as text and as JSON.

A result is {heading: {line: {place: Estimate}}}; places are blocks, bins, training steps or names.
"""

import itertools
import unicodedata
from dataclasses import dataclass

import numpy as np
from scipy import stats
from tqdm import tqdm

RESAMPLES = 1000  # of the bootstrap
ALL = 'all'  # the place of a mean over all bins


@dataclass
class Estimate:
    """A mean, or a statistic of means, (...), and its bootstrap resamples, (RESAMPLES, ...)."""

    value: np.ndarray
    resamples: np.ndarray

    @classmethod
    def of(cls, values, documents=None, statistic=None):
        """The mean of `values` (n, ...) over its first axis, or a statistic, a function, of it.

        documents: (n,) document numbers; values of one document are resampled together. None: each
        value is resampled by itself. Estimates of equally many documents resample the same ones, so
        the difference of two runs on the same text is a paired one. A single document has no
        interval: its resamples are nan."""
        values = np.asarray(values, dtype=np.float64)
        statistic = statistic or np.asarray
        value = np.asarray(statistic(values.mean(0)))
        names = np.arange(len(values)) if documents is None else documents
        _, document, sizes = np.unique(names, return_inverse=True, return_counts=True)
        n, rng = len(sizes), np.random.default_rng(0)
        if n == 1:
            return cls.exact(value)
        sums = np.zeros((n, values[0].size))
        np.add.at(sums, document, values.reshape(len(values), -1))
        counts = (np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(RESAMPLES))
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

    def over(self, places=None):
        """{place: Estimate} along the first axis; without names the places are blocks, from 1."""
        return {place: self[i] for i, place in enumerate(places or range(1, len(self.value) + 1))}

    def interval(self):
        """Ends of the 90% interval: (2, ...)."""
        return np.percentile(self.resamples, [5, 95], axis=0)


def widening(n):
    """Factor that makes the bootstrap of a mean of n values as wide as Student's 90% interval."""
    return stats.t.ppf(0.95, n - 1) / stats.norm.ppf(0.95) * (n / (n - 1)) ** 0.5


def measured(sequences, measure, title, **statistics):
    """The Estimates of what measure(*sides), a dict, finds in `sequences`, which end with the
    number of a document: {name: Estimate}. statistics: of some of the names, see Estimate.of."""
    found = [measure(*sides) for *sides, _ in tqdm(sequences, title, leave=False)]
    documents = [number for *_, number in sequences]
    values = {name: [one[name] for one in found] for name in found[0]}
    return {name: Estimate.of(of, documents, statistics.get(name)) for name, of in values.items()}


# --- results of studies ---------------------------------------------------------------------------


def over_seeds(results, group=0):
    """Pools a study's results of several seeds: averages Estimates, recursing into dicts.

    Seeds are resampled as documents are; each `group`, a number, resamples its own."""
    first, n = results[0], len(results)
    if isinstance(first, dict):
        keys = [key for key in first if all(key in result for result in results)]
        return {key: over_seeds([result[key] for result in results], group) for key in keys}
    if n == 1:
        return first
    values = np.stack([estimate.value for estimate in results])
    chosen = np.random.default_rng((1, group)).integers(n, size=(RESAMPLES, n))
    spread = values[chosen].mean(1) - values.mean(0)
    resamples = np.mean([estimate.resamples for estimate in results], axis=0)
    return Estimate(values.mean(0), resamples + widening(n) * spread)


def difference(first, second):
    """The second less the first of two results: Estimates, or dicts of what both have."""
    if isinstance(first, Estimate):
        return second - first
    parts = {key: difference(first[key], second[key]) for key in first if key in second}
    return {key: part for key, part in parts.items() if part}


def over_training(results, axis):
    """Results {step: result} of several checkpoints as one result over training steps.

    Of numbered places, such as blocks, the first, the middle and the last one become panels, or
    'all' where there is that; names become lines. axis: what numbered places are called."""
    found, panels = [], {}
    for heading, lines in results[max(results)].items():
        places = list(dict.fromkeys(place for cells in lines.values() for place in cells))
        numbered = is_numbered(places)
        if numbered:
            ends = {0, (len(places) - 1) // 2, len(places) - 1}
            places = [ALL] if ALL in places else [places[i] for i in sorted(ends)]
        for line, (row, place) in itertools.product(lines, enumerate(places)):
            title = f'{heading}, {axis} {place}' if numbered and place != ALL else heading
            name = line if numbered else ', '.join(filter(None, (line, place)))
            parts = {step: r.get(heading, {}).get(line, {}) for step, r in results.items()}
            cells = {step: part[place] for step, part in parts.items() if place in part}
            found += [(row if numbered else 0, title, name, cells)] if cells else []
    for _, title, name, cells in sorted(found, key=lambda one: one[0]):
        panels.setdefault(title, {})[name] = cells
    return panels


def is_numbered(places):
    """Whether places are numbers or bins such as 4-7, not names."""
    return all(str(place)[0].isdigit() or place == ALL for place in places)


def width_of(text):
    """Columns of a text in a font of fixed width: two for each East Asian character."""
    wide = sum(unicodedata.east_asian_width(character) in 'WF' for character in text)
    return len(text) + wide - sum(unicodedata.category(c) in ('Mn', 'Me', 'Cf') for c in text)


def tables(results):
    """Results of some runs, {label: result}, as text: a table for each heading, with half of the
    90% interval under each value. Generator."""
    for heading in dict.fromkeys(heading for result in results.values() for heading in result):
        rows = []
        for label, result in results.items():
            lines = result.get(heading, {})
            rows += [(label, {})] if any(lines) else []
            rows += [(f'  {name}' if name else label, cells) for name, cells in lines.items()]
        columns = list(dict.fromkeys(place for _, cells in rows for place in cells))
        heads = [f'{place:,}' if isinstance(place, int) else place for place in columns]
        first, width = max(width_of(name) for name, _ in rows), max(8, *(len(h) + 2 for h in heads))
        fitting, lines = max(1, (100 - first) // width), [heading]
        for part in (slice(i, i + fitting) for i in range(0, len(columns), fitting)):
            table = [('', heads[part])]
            for name, cells in rows:
                texts = [text_of(cells.get(place)) for place in columns[part] if cells]
                table += zip((name, ''), zip(*texts)) if texts else [(name, ())]
            for name, texts in table:
                line = ' ' * (first - width_of(name)) + ''.join(text.rjust(width) for text in texts)
                lines += [name + line] if line.strip() or name else []
        yield '\n'.join([*lines, ''])


def text_of(estimate):
    """A value and half of its interval as text."""
    if estimate is None or np.isnan(estimate.value):
        return '-', ''
    low, high = estimate.interval()
    if np.isnan(low):
        return f'{estimate.value:z.3f}', ''
    return f'{estimate.value:z.3f}', f'±{(high - low) / 2:.3f}'


def as_json(value):
    """A result as JSON has it, an Estimate as its mean and the ends of its 90% interval."""
    if isinstance(value, Estimate):
        return dict(zip(('mean', 'low', 'high'), map(float, (value.value, *value.interval()))))
    return {k: as_json(v) for k, v in value.items()} if isinstance(value, dict) else value
