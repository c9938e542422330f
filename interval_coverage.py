"""How often the 90% intervals of fit_scaling.py hold the truth, in simulated runs.

    python fit_scaling.py --study=coverage

Runs have an error of test documents, common to all, and one of their own.
"""

import math

import numpy as np

from configurator import ConfigError
from fit_scaling import DRAWS, align, law_of, load_paper_laws, measure

STUDIED = {  # budgets as shares of UNIT, and seeds of each
    '4 budgets, 2 seeds': ([0.1, 0.25, 0.5, 1], 2),
    '6 budgets': ([0.05, 0.1, 0.25, 0.5, 0.75, 1], 1),
    '8 budgets': ([0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1], 1),
    '16 budgets': ([*np.geomspace(0.05, 1, 13), 1.5, 2, 3], 1),
}
ERRORS = (0.02, 0.02), (0.02, 0.005)  # of all test documents, common to all runs; of each run
SEEN, TEFF, CONTROL_TEFF = 0.1, 2.0, 1.5  # the truth


def simulated(truth, tokens, seeds, document_errors, noise, rng):
    """A result as `pool` leaves it, of runs of perplexity `truth` but for their errors.

    document_errors: (D,), of the log perplexity of each test document."""
    log_ppl = math.log(truth) + noise * rng.standard_normal(seeds)
    log_ppl += document_errors.mean()
    loss = document_errors - document_errors.mean() + log_ppl.mean()
    result = dict(tokens_seen=tokens, ppl=float(np.exp(log_ppl.mean())), log_ppl=list(log_ppl))
    return result | dict(document_loss=loss, document_tokens=np.ones(len(loss)))


def coverage(truth, budgets, seeds, errors, datasets, documents=30, draws=DRAWS, seed=0):
    """Shares of simulated data sets whose intervals of TEff and transfer hold the truth: a dict.

    truth: PowerLaw; budgets: as shares of its unit; errors: of documents and runs, relative."""
    rng, held = np.random.default_rng(seed), dict(teff=0, transfer=0)
    expected = dict(teff=TEFF, transfer=TEFF / CONTROL_TEFF)
    tokens, seen = np.array(budgets) * truth.unit, SEEN * truth.unit
    for _ in range(datasets):
        shift = errors[0] * math.sqrt(documents) * rng.standard_normal(documents)

        def result(at, seen, seeds=1, shift=shift):
            return simulated(truth.ppl(at), seen, seeds, shift, errors[1], rng)

        results = [result(budget, budget, seeds) for budget in tokens]
        law = law_of(results, [[r['log_ppl']] for r in results], draws)
        values = measure(law, result(seen * TEFF, seen), result(seen * CONTROL_TEFF, seen))
        for name in held:
            low, high = values[f'{name}_interval']
            held[name] += low <= expected[name] <= high
    return {name: count / datasets for name, count in held.items()}


def study_coverage(datasets=400, draws=500):
    """(text of a table, lines outside 85 to 95% beyond two binomial standard errors)."""
    truth, slack = load_paper_laws()['en'], 2 * math.sqrt(0.9 * 0.1 / datasets)
    lines, failed = [('law', 'errors of documents, runs', 'TEff', 'transfer')], []
    for name, (budgets, seeds) in STUDIED.items():
        for errors in ERRORS:
            held = coverage(truth, budgets, seeds, errors, datasets, draws=draws)
            shares = [f'{share:.1%}' for share in held.values()]
            lines.append((name, f'{errors[0]:.1%}, {errors[1]:.1%}', *shares))
            if not all(0.85 - slack <= share <= 0.95 + slack for share in held.values()):
                failed.append(f'{name} ({lines[-1][1]})')
    return align(lines), failed


def study():
    """Prints the table. Raises ConfigError where intervals are too narrow or too wide."""
    text, failed = study_coverage()
    print(text)
    if failed:
        raise ConfigError(f'90% intervals cover less than 85% or more than 95%: {failed}')
