"""Means with 90% intervals, and results of studies: pooled, subtracted, as text and as JSON.

A result is {heading: {line: {place: Estimate}}}; places are blocks, bins, training steps or names.
"""

import itertools
import re
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from lib.bootstrap import document_weights, widening
from lib.tables import align, width_of

RESAMPLES = 1000  # of the bootstrap
ALL = 'all'  # the place of a mean over all bins


@dataclass
class Estimate:
    """A mean, or a statistic of means, (...), and its bootstrap resamples, (RESAMPLES, ...)."""

    value: np.ndarray
    resamples: np.ndarray

    @classmethod
    def of(cls, values, documents=None, statistic=np.asarray, seed=0):
        """The mean of `values` (n, ...) over its first axis, or a statistic, a function, of it.

        documents: (n,) document numbers; values of one document are resampled together. None: each
        value is resampled by itself. Estimates of equally many documents and of one seed resample
        the same ones, so the difference of two runs on the same text is a paired one. A single
        document has no interval: its resamples are nan."""
        values = np.asarray(values, float)
        value = np.asarray(statistic(values.mean(0)))
        names = np.arange(len(values)) if documents is None else documents
        _, document, sizes = np.unique(names, return_inverse=True, return_counts=True)
        if len(sizes) == 1:
            return cls.exact(value)
        sums = np.zeros((len(sizes), values[0].size))
        np.add.at(sums, document, values.reshape(len(values), -1))
        weights = document_weights(len(sizes), RESAMPLES, seed)
        means = weights @ sums / (weights @ sizes)[:, None]
        resamples = statistic(means.reshape(RESAMPLES, *values.shape[1:]))
        return cls(value, value + widening(len(sizes)) * (resamples - value))

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

    def over(self, places=None, *more):
        """{place: Estimate} along the first axis, with `more` nested along the next ones; None: the
        places are blocks, from 1."""
        places = enumerate(places or range(1, len(self.value) + 1))
        return {place: self[i].over(*more) if more else self[i] for i, place in places}

    def interval(self):
        """Ends of the 90% interval: (2, ...)."""
        return np.percentile(self.resamples, [5, 95], axis=0)


def measured(sequences, measure, title, **statistics):
    """The Estimates of what measure(*sides), a dict, finds in `sequences`, which end with the
    number of a document: {name: Estimate}. statistics: of some of the names, see Estimate.of."""
    found = [measure(*sides) for *sides, _ in tqdm(sequences, title, leave=False)]
    values = {name: [one[name] for one in found] for name in found[0]}
    how, documents = {name: [statistics[name]] for name in statistics}, [s[-1] for s in sequences]
    return {name: Estimate.of(of, documents, *how.get(name, ())) for name, of in values.items()}


# --- results of studies ---------------------------------------------------------------------------


def over_seeds(results, group=0):
    """Pools a study's results of several seeds: averages Estimates, recursing into dicts.

    Seeds are resampled as documents are; each `group`, a number, resamples its own."""
    first = results[0]
    if isinstance(first, dict):
        keys = [key for key in first if all(key in result for result in results)]
        return {key: over_seeds([result[key] for result in results], group) for key in keys}
    if len(results) == 1:
        return first
    seeds = Estimate.of([estimate.value for estimate in results], seed=group + 1)
    resamples = np.mean([estimate.resamples for estimate in results], axis=0)
    return Estimate(seeds.value, resamples + seeds.resamples - seeds.value)


def difference(first, second):
    """The second less the first of two results: Estimates, or dicts of what both have."""
    if isinstance(first, Estimate):
        return second - first
    parts = {key: difference(first[key], second[key]) for key in first if key in second}
    return {key: part for key, part in parts.items() if part}


def places_of(lines):
    """The places of some lines, {place: Estimate} each, and whether they are numbered: numbers or
    bins such as 4-7, which are in order, ALL at the end; not names."""
    places = list(dict.fromkeys(itertools.chain(*lines)))
    numbers = {place: re.match(r'\d+', str(place)) for place in places if place != ALL}
    if not all(numbers.values()):
        return places, False
    ordered = sorted(numbers, key=lambda place: int(numbers[place][0]))
    return ordered + [ALL] * (ALL in places), True


def over_training(results, axis):
    """Results {step: result} of several checkpoints as one result over training steps.

    Of numbered places, such as blocks, the first, the middle and the last one become panels, or
    ALL where there is that; names become lines. axis: what numbered places are called."""
    found, panels = [], {}
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
            found += [(row * numbered, title, name, cells)] if cells else []
    for _, title, name, cells in sorted(found, key=lambda one: one[0]):
        panels.setdefault(title, {})[name] = cells
    return panels


def tables(results):
    """Results of some runs, {label: result}, as text: a table for each heading. Generator."""
    for heading in dict.fromkeys(heading for result in results.values() for heading in result):
        rows = []
        for label, result in results.items():
            lines = result.get(heading, {})
            rows += [(label, None)] if any(lines) else []
            rows += [(f'  {name}' if name else label, cells) for name, cells in lines.items()]
        columns, _ = places_of(cells or () for _, cells in rows)
        texts = [['', *map(str, columns)]]
        for name, cells in rows:
            blank = '' if cells is None else '-'
            texts.append([name, *(str((cells or {}).get(place, blank)) for place in columns)])
        first, *widths = (max(map(width_of, column)) for column in zip(*texts))
        fitting = max(1, (100 - first) // (2 + max(widths, default=0)))
        starts = range(1, len(columns) + 1, fitting)
        parts = [align([text[:1] + text[i : i + fitting] for text in texts]) for i in starts]
        yield '\n'.join([heading, *parts, ''])


def as_json(value):
    """A result as JSON has it, an Estimate as its mean and the ends of its 90% interval."""
    if isinstance(value, Estimate):
        return dict(zip(('mean', 'low', 'high'), map(float, (value.value, *value.interval()))))
    return {k: as_json(v) for k, v in value.items()} if isinstance(value, dict) else value
