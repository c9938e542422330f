"""Means with a 90% bootstrap interval, their differences, and how they are written down."""
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000


@dataclass
class Estimate:
    """A mean (or what is computed of means) with its bootstrap: value (...), draws (RESAMPLES, ...)."""
    value: np.ndarray
    draws: np.ndarray

    @classmethod
    def of(cls, values, statistic=lambda means: means):
        """statistic of the mean over the first axis of `values` (n, ...). The things that are drawn are the same for
        the same n, so that the difference of two runs on the same pairs is that of paired samples."""
        values = np.asarray(values, dtype=np.float64)
        n, rng = len(values), np.random.default_rng(0)
        if n == 1:  # one thing says nothing about the next one
            value = np.asarray(statistic(values[0]))
            return cls(value, np.full((RESAMPLES, *value.shape), np.nan))
        flat = values.reshape(n, -1)
        means = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) @ flat / n for _ in range(RESAMPLES)])
        return cls(statistic(values.mean(0)), statistic(means.reshape(RESAMPLES, *values.shape[1:])))

    def interval(self):
        """Ends of the 90% interval: (2, ...)."""
        return np.percentile(self.draws, [5, 95], axis=0)

    def __sub__(self, other):
        return Estimate(self.value - other.value, self.draws - other.draws)


def rows_text(title, columns, rows):
    """A table of {label: Estimate (columns,)}, half the width of the 90% interval under each value."""
    first, width = max([len(label) for label in rows] + [12]), max([len(column) + 2 for column in columns] + [8])
    lines = [f'{title} (±: half of the 90% interval)', ' ' * first + ''.join(column.rjust(width) for column in columns)]
    for label, estimate in rows.items():
        low, high = estimate.interval()
        for name, sign, values in ((label, '', estimate.value), ('', '±', (high - low) / 2)):
            cells = ('-' if np.isnan(value) else f'{sign}{value:.3f}' for value in values)
            lines.append(name.ljust(first) + ''.join(cell.rjust(width) for cell in cells))
    return '\n'.join(lines) + '\n'


def with_difference(labels, estimates):
    """{label: Estimate}; of two that have the same shape also their difference."""
    rows = dict(zip(labels, estimates))
    if len(estimates) == 2 and estimates[0].value.shape == estimates[1].value.shape:
        rows['difference'] = estimates[1] - estimates[0]
    return rows


MISSING = Estimate(np.array(np.nan), np.full(RESAMPLES, np.nan))


def side_by_side(estimates):
    """One Estimate (n,) of n that are numbers; a None of them becomes nan."""
    estimates = [e or MISSING for e in estimates]
    return Estimate(np.stack([e.value for e in estimates]), np.stack([e.draws for e in estimates], 1))


def plain(value):
    """`value` as JSON has it; an Estimate as its mean and the ends of its 90% interval."""
    if isinstance(value, Estimate):
        low, high = value.interval()
        return dict(mean=plain(value.value), low=plain(low), high=plain(high))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def difference(one, other):
    """What can be subtracted of two runs' findings: {name: Estimate or dict}."""
    if isinstance(one, dict) and isinstance(other, dict):
        parts = {key: difference(one[key], other[key]) for key in one if key in other}
        return {key: part for key, part in parts.items() if part is not None} or None
    both = isinstance(one, Estimate) and isinstance(other, Estimate) and one.value.shape == other.value.shape
    return other - one if both else None
