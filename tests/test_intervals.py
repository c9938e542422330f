"""The 90% intervals hold the truth where the runs of this project are, in simulation.

    python tests/test_intervals.py 400    # all cells in full, with 400 data sets each

The truth is a power law with a drop in front of it, fitted to the twelve budgets of the lab's law
(residuals 0.3%). Branches of one trunk share when it reaches the drop. Runs have noise in tokens
and in perplexity, as measured on replicates, and noise on each of eleven test documents.
"""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fit_scaling
from fit_scaling import measure
from lib import laws
from lib.laws import law_of

DOCUMENTS = 11
LAB = np.array([100, 150, 200, 300, 500, 650, 800, 1000, 1200, 2000, 2800, 4000]) * 2048
SEVEN, FOUR, THREE = LAB[[0, 1, 2, 3, 4, 6, 8]], LAB[[2, 4, 7, 9]], LAB[[2, 4, 9]]
SIX = np.array([150, 300, 600, 1000, 1800, 3000]) * 2166  # the lab's four layers, shifted
DENSE = np.sort([*LAB, *(np.array([250, 350, 400, 450, 550, 600, 720, 900]) * 2048)])
PAST = np.array([800, 1200, 1600, 2250, 3100, 4250, 5900, 8050, 13000]) * 2048
LARGE = np.array([700, 900, 1150, 1450, 1850, 2400, 3100, 4000, 6500]) * 2048


def log_perplexity(tokens):
    """Truth: a plateau that falls slowly, then a drop to a power law."""
    x = np.log(np.asarray(tokens, float) / 1e6)
    power = -np.log(np.maximum(0.10294 - 0.0703 * np.exp(-0.55178 * x), 1e-3))
    plateau, drop = 3.4998 - 0.18571 * x, 1 / (1 + np.exp(14.0 * (x - 0.0275)))
    return drop * plateau + (1 - drop) * power


def simulated(rng, tokens, seeds=1, shift=0.0, common=0.0, own=(0.006, 0.004), seen=0.0):
    """A result of `seen` tokens that are equivalent to `tokens`, as load_runs pools its seeds.

    shift, common: noise that the run shares with others, in log tokens and log perplexity; own:
    standard deviations of its own noise in both."""
    own = rng.standard_normal((2, seeds)) * np.array(own)[:, None]
    log_ppl = log_perplexity(tokens * np.exp(-shift + own[0])) + common + own[1]
    documents = 0.008 * rng.standard_normal(DOCUMENTS)
    mean = log_ppl.mean() + documents.mean()
    result = dict(ppl=math.exp(mean), log_ppl=list(log_ppl + documents.mean()))
    result |= dict(document_loss=log_ppl.mean() + documents, document_tokens=np.ones(DOCUMENTS))
    return result | dict(tokens_seen=float(seen or tokens))


def data_set(rng, budgets, places, seeds, trunks=1, replicates=True):
    """(a law of branches of `trunks` trunks, the results of a mixture and its control); both are
    equivalent to `places`, two numbers of tokens."""
    luck = rng.standard_normal((trunks, 2)) * (0.01, 0.0015)
    points = {}
    for budget in budgets:
        parts = [simulated(rng, budget, 1, *one, (0.0, 0.002)) for one in luck]
        point = parts[0] | dict(log_ppl=[part['log_ppl'][0] for part in parts])
        point['document_loss'] = np.mean([part['document_loss'] for part in parts], axis=0)
        points[str(budget)] = point | dict(ppl=math.exp(np.mean(point['log_ppl'])))
    results = [simulated(rng, place, seeds, seen=places[1] / 1.2) for place in places]
    spread = [result['log_ppl'] for result in results]
    if seeds == 1 and replicates:  # other runs of the group have seeds
        spread = [simulated(rng, 8e5, 3)['log_ppl'] for _ in range(4)]
    return law_of('', points, spread, resamples=400, branches=True), results


def coverage(budgets, places, seeds, data_sets, **more):
    """(share of the data sets with an interval, share of those that hold the true transfer, median
    half width in log)."""
    rng, held, widths, chosen = np.random.default_rng(0), [], [], places
    for _ in range(data_sets):
        if places is None:  # random, up to a transfer of 3
            low, high = np.log(budgets[0] * 1.05), np.log(budgets[-1] * 0.9)
            control = rng.uniform(low, high - 0.1)
            chosen = np.exp([rng.uniform(control, min(high, control + math.log(3))), control])
        law, results = data_set(rng, budgets, chosen, seeds, **more)
        ends = measure(law, *results)['transfer_interval']
        if ends:
            held.append(ends[0] <= chosen[0] / chosen[1] <= ends[1])
            widths.append(math.log(ends[1] / ends[0]) / 2)
    share = len(held) / data_sets
    return share, np.mean(held) if held else math.nan, np.median(widths) if held else math.nan


NINETY, EIGHTY = (1.136e6, 0.455e6), (1.46e6, 1.065e6)  # equivalents of the lab's mixtures
SINGLE = dict(replicates=False)
CELLS = {  # budgets, places of mixture and control, seeds
    '12 budgets, three seeds': (LAB, None, 3),
    '12 budgets, one seed': (LAB, None, 1),
    '12 budgets, two trunks': (LAB, None, 3, dict(trunks=2)),
    '12 budgets, 80/20': (LAB, EIGHTY, 1),
    '20 budgets, one seed': (DENSE, None, 1),
    '20 budgets, 90/10': (DENSE, NINETY, 3),
    '20 budgets, 80/20': (DENSE, EIGHTY, 1),
    '7 budgets, one seed': (SEVEN, None, 1),
    '6 budgets, one seed': (SIX, None, 1),
    '6 budgets, three seeds': (SIX, None, 3),
    '4 budgets, three seeds': (FOUR, None, 3),
    '3 budgets, three seeds': (THREE, None, 3),
    'past the drop, 4 budgets': (PAST[[1, 3, 5, 8]], None, 3),
    'past the drop, 5 budgets': (PAST[[1, 3, 5, 7, 8]], None, 3),
    'past the drop, 5 budgets, no replicates': (PAST[[1, 2, 4, 6, 8]], None, 1, SINGLE),
    'past the drop, 6 budgets, no replicates': (PAST[[0, 2, 4, 6, 7, 8]], None, 1, SINGLE),
    'past the drop, 9 budgets': (PAST, None, 3),
    'past the drop, 9 budgets, two trunks': (PAST, None, 3, dict(trunks=2)),
    'past the drop, larger model, three seeds': (LARGE, (3.15e6, 2.9e6), 3),
    'past the drop, 9 budgets, no replicates': (PAST, None, 1, SINGLE),
}


def of_cell(name, data_sets):
    budgets, places, seeds, *more = CELLS[name]
    return coverage(budgets, places, seeds, data_sets, **dict(*more))


def test_intervals_hold_the_truth_where_the_runs_are(data_sets=30):
    shares = {}
    for name, (budgets, places, *_) in CELLS.items():
        given, held, _ = of_cell(name, data_sets)
        if len(budgets) < 5:  # too few to know the curve: no interval is better than a wrong one
            assert given == 0, name
            continue
        assert given > (0.9 if budgets[0] == PAST[0] or places else 0), name
        count = max(1, round(given * data_sets))
        slack = 2.5 * math.sqrt(0.9 * 0.1 / count)
        assert held > 0.85 - slack, (name, held)
        if places is None:
            shares[name] = held, count
    held, count = np.transpose(list(shares.values()))
    assert 0.88 < (held * count).sum() / count.sum() < 0.98


@pytest.mark.parametrize(
    'places, noise, cells',
    [
        ((0.5, 0.5), 1.0, ['12 budgets, one seed', '7 budgets, one seed', '12 budgets, 80/20']),
        (laws.PLACES, 0.1, ['past the drop, 9 budgets', 'past the drop, 5 budgets']),
    ],
)
def test_intervals_that_leave_an_error_out_do_not_hold(monkeypatch, places, noise, cells):
    exact = laws.errors_of
    monkeypatch.setattr(laws, 'PLACES', places)
    monkeypatch.setattr(laws, 'OPEN', 9.0)  # intervals in holes, too
    monkeypatch.setattr(fit_scaling, 'errors_of', lambda r, n, role: noise * exact(r, n, role))
    assert np.mean([of_cell(name, 40)[1] for name in cells]) < 0.8


if __name__ == '__main__':
    for cell in CELLS:
        found = of_cell(cell, int(sys.argv[1]))
        print('{:<42} given {:5.0%}, hold {:5.1%}, half width {:5.1%}'.format(cell, *found))
