"""The bootstrap over documents and runs that all intervals rest on."""

import functools

import numpy as np
from scipy import stats

LEVEL = 0.9  # of every interval


@functools.cache
def document_weights(documents, resamples):
    """How often each test document occurs in each resample: (resamples, documents) float.

    It depends on these two numbers alone, so that two runs on the same documents are resampled
    together and an error that they share cancels in their difference."""
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
