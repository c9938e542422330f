"""How often the 90% intervals of fit_scaling.py hold the truth, in simulated runs.

    python fit_scaling.py --study=coverage

Runs have an error of test documents, common to all, and one of their own.
"""

import math

import numpy as np

from configurator import ConfigError
from fit_scaling import align, law_of, load_paper_laws, measure

STUDIED = {  # budgets as shares of UNIT, and seeds of each
    '4 budgets, 2 seeds': ([0.1, 0.25, 0.5, 1], 2),
    '6 budgets': ([0.05, 0.1, 0.25, 0.5, 0.75, 1], 1),
    '8 budgets': ([0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1], 1),
    '16 budgets': ([*np.geomspace(0.05, 1, 13), 1.5, 2, 3], 1),
}
ERRORS = (0.02, 0.02), (0.02, 0.005)  # of all test documents, common to all runs; of each run
SEEN, TEFF, CONTROL_TEFF = 0.1, 2.0, 1.5  # the truth


def coverage(budgets, seeds, errors, datasets, draws, documents=30):
    """Shares of simulated data sets whose intervals of TEff and transfer hold the truth: a dict.

    budgets: as shares of the law's unit; errors: of documents and runs, relative."""
    truth, rng, held = load_paper_laws()['en'], np.random.default_rng(0), dict(teff=0, transfer=0)

    def result(worth, seen, seeds, shift):
        """As `pool` leaves it, of runs whose `seen` tokens are worth `worth`, but for errors.

        shift: (documents,), of the log perplexity of each test document."""
        log_ppl = math.log(truth.ppl(worth)) + errors[1] * rng.standard_normal(seeds) + shift.mean()
        ppl, loss = float(np.exp(log_ppl.mean())), shift - shift.mean() + log_ppl.mean()
        documents = dict(document_loss=loss, document_tokens=np.ones(len(loss)))
        return dict(tokens_seen=seen, ppl=ppl, log_ppl=list(log_ppl)) | documents

    for _ in range(datasets):
        shift = errors[0] * math.sqrt(documents) * rng.standard_normal(documents)
        results = [
            result(budget, budget, seeds, shift) for budget in np.array(budgets) * truth.unit
        ]
        law, seen = law_of(results, [[r['log_ppl']] for r in results], draws), SEEN * truth.unit
        runs = [result(seen * teff, seen, 1, shift) for teff in (TEFF, CONTROL_TEFF)]
        values = measure(law, *runs)
        for name, expected in (('teff', TEFF), ('transfer', TEFF / CONTROL_TEFF)):
            low, high = values[f'{name}_interval']
            held[name] += low <= expected <= high
    return {name: count / datasets for name, count in held.items()}


def study_coverage(datasets=400, draws=500):
    """(text of a table, lines outside 85 to 95% beyond two binomial standard errors)."""
    slack, failed = 2 * math.sqrt(0.9 * 0.1 / datasets), []
    lines = [('law', 'errors of documents, runs', 'TEff', 'transfer')]
    for name, (budgets, seeds) in STUDIED.items():
        for errors in ERRORS:
            shares = coverage(budgets, seeds, errors, datasets, draws).values()
            text = f'{errors[0]:.1%}, {errors[1]:.1%}'
            lines.append((name, text, *(f'{share:.1%}' for share in shares)))
            if not all(0.85 - slack <= share <= 0.95 + slack for share in shares):
                failed.append(f'{name} ({text})')
    return align(lines), failed


def study():
    """Prints the table. Raises ConfigError where intervals are too narrow or too wide."""
    text, failed = study_coverage()
    print(text)
    if failed:
        raise ConfigError(f'90% intervals cover less than 85% or more than 95%: {failed}')
