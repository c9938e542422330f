"""Laws and transfers that are known come back; runs that may not be compared are kept apart."""

import csv
import json
import math

import numpy as np
import pytest
from conftest import refused, script

import fit_scaling
from fit_scaling import analyse, load_paper_laws, measure
from lib.laws import UNIT, Interpolation, PowerLaw, fit, law_of
from lib.paper import kind_of, load_paper_runs, paper_rows
from lib.runs import controls_of, load_runs

FOUR = [0.1, 0.25, 0.5, 1.0]
FIVE = [0.05, *FOUR]
SIX = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0]
SIXTEEN = [0.05, *np.arange(1, 9) / 10, 0.85, 0.9, 0.95, 1, 1.5, 2, 3]  # the paper's own
EN = PowerLaw(0.0386839, 0.20725333, 0.08406525)


# --- the form of the law and its fit --------------------------------------------------------------


@pytest.mark.parametrize(
    'law',
    [
        EN,
        PowerLaw(0.05686383, 0.19327436, 0.11919068),
        PowerLaw(0.004, 0.8, 0.05),
        PowerLaw(0.0001, 2, 0.05),
        PowerLaw(0.3, 0.03, 0.36),
    ],
)
@pytest.mark.parametrize('fractions', [FOUR, SIXTEEN])
def test_a_law_is_recovered_from_its_own_points(law, fractions):
    tokens = np.array(fractions) * UNIT
    fitted = fit(np.log(tokens[::-1]), np.log(law.ppl(tokens[::-1]))[None])
    found = [fitted.a[0], fitted.b[0], fitted.c[0]]
    assert found == pytest.approx([law.a, law.b, law.c], rel=1e-4)


def test_no_other_law_has_a_smaller_error_in_one_over_ppl():
    rng = np.random.default_rng(1)
    tokens = np.array(SIXTEEN) * UNIT
    ppl = EN.ppl(tokens) * (1 + 0.02 * rng.standard_normal(16))
    fitted = fit(np.log(tokens), np.log(ppl)[None])
    numbers = np.array([fitted.a[0], fitted.b[0], fitted.c[0]])

    def error(a, b, c):
        return ((1 / ppl - c + a * (tokens / UNIT) ** -b) ** 2).sum()

    for step in rng.normal(0, 1e-3, (200, 3)):
        assert error(*(numbers * (1 + step))) > error(*numbers)


def test_many_data_sets_are_fitted_as_each_by_itself():
    tokens, rng = np.array(SIX) * UNIT, np.random.default_rng(0)
    log_ppl = np.log(EN.ppl(tokens)) + 0.01 * rng.standard_normal((5, 6))
    together = fit(np.log(tokens), log_ppl)
    for row, values in enumerate(log_ppl):
        assert together.b[row] == pytest.approx(fit(np.log(tokens), values[None]).b[0])


def test_tokens_and_ppl_are_inverse_and_infinite_beyond_the_law():
    tokens = np.array([1e8, 3e8, 5e9])
    assert EN.tokens(EN.ppl(tokens)) == pytest.approx(tokens)
    assert EN.ppl(UNIT) == pytest.approx(1 / (0.08406525 - 0.0386839))
    assert EN.tokens(1 / EN.c * 0.999) == math.inf > EN.tokens(1 / EN.c * 1.001)
    assert EN.ppl(1.0) == math.inf  # one token: 1/PPL would be below 0
    assert 0 < EN.tokens(9e10) < 0.05 * UNIT  # Table 1 row 8


def test_every_teff_of_the_paper_follows_from_its_perplexity():
    laws, far = load_paper_laws(), {}
    for published in load_paper_runs():
        for language in published['languages'] if len(published['kinds']) > 1 else ():
            teff = laws[language['kind']].tokens(language['ppl']) / language['tokens_seen']
            far[published['name'], language['name']] = abs(teff - language['teff'])
    rounded = {k: v for k, v in far.items() if k[0] in ('Table 3 row 19', 'Table 3 row 20')}
    assert len(far) == 56 and len(rounded) == 4 and max(rounded.values()) < 0.01
    assert max(value for key, value in far.items() if key not in rounded) < 1e-4


# --- laws of runs, and their intervals ------------------------------------------------------------


def result(ppl, tokens, errors=(0.0,), seeds=(0.0,)):
    """A result whose log perplexity has an error for each document and for each seed."""
    log_ppl = [math.log(ppl) + np.mean(errors) + error for error in seeds]
    return dict(
        tokens_seen=tokens,
        ppl=math.exp(np.mean(log_ppl)),
        ppl_se=None,
        log_ppl=log_ppl,
        document_loss=np.mean(log_ppl) - np.mean(errors) + np.array(errors),
        document_tokens=np.ones(len(errors)),
    )


def law_with_noise(fractions, noise, errors=(0.0,), replicates=(), curve=EN):
    signs = np.resize([1, -1, -1, 1], len(fractions))
    results = {
        str(f): result(curve.ppl(f * UNIT) * (1 + noise * sign), f * UNIT, errors)
        for f, sign in zip(fractions, signs)
    }
    return law_of('law', results, replicates)


def width(ends):
    return math.log(ends[1] / ends[0])


@pytest.mark.parametrize(
    'tokens, ppl, words',
    [
        ([1e8, 1e9], [50, 20], '100M, 1B'),
        ([1e8, 1e8, 1e8, 1e9], [50, 51, 49, 20], 'there are 2'),
        ([], [], 'none'),
        ([0, 3e8, 1e9], [50, 30, 20], 'above zero'),
        ([1e8, 3e8, 1e9], [20, 30, 50], 'does not fall'),
        ([1e8, 3e8, 1e9], [20, 20, 20], 'does not fall'),
        ([1e8, 3e8, 5e8, 1e9], [50, 20, 20, 20], 'stops falling'),
    ],
)
def test_runs_that_determine_no_law_have_none_and_a_reason(tokens, ppl, words):
    law = law_of('law', {str(i): result(p, t) for i, (t, p) in enumerate(zip(tokens, ppl))})
    assert law.curve is None and words in law.problem


def test_a_document_error_that_all_runs_share_cancels():
    evaluated = dict(ppl=float(EN.ppl(0.2 * UNIT)), tokens=0.1 * UNIT)
    errors = np.random.default_rng(0).normal(0, 0.5, 40)  # of the whole test set: 8%
    sure = measure(law_with_noise(SIX, 0.001), result(**evaluated))
    law = law_with_noise(SIX, 0.001, errors)
    shared = measure(law, result(**evaluated, errors=errors))
    assert width(shared['teff_interval']) == pytest.approx(width(sure['teff_interval']), rel=0.1)
    assert width(shared['mlpe_interval']) > 10 * width(sure['mlpe_interval'])  # no comparison
    own = measure(law, result(**evaluated, errors=errors[::-1]))
    assert width(own['teff_interval']) > 10 * width(sure['teff_interval'])


def test_noise_of_runs_widens_every_interval_and_seeds_narrow_it():
    evaluated = result(float(EN.ppl(0.2 * UNIT)), 0.1 * UNIT)
    control = result(float(EN.ppl(0.15 * UNIT)), 0.1 * UNIT)
    pairs = evaluated, control, control
    quiet, loud = (measure(law_with_noise(SIX, n), *pairs, 0.9 * UNIT) for n in (0.002, 0.02))
    assert quiet['transfer'] == quiet['gain'] == pytest.approx(0.2 / 0.15, rel=0.02)
    assert quiet['tau'] == pytest.approx((quiet['transfer'] - 1) / 9)
    for name in ('mlpe', 'mlte', 'teff', 'control_teff', 'transfer', 'gain'):
        low, high = quiet[f'{name}_interval']
        assert low < quiet[name] < high
        assert width(loud[f'{name}_interval']) > 4 * width((low, high))
    low, high = quiet['transfer_nats_interval']
    assert low < math.log(EN.ppl(0.15 * UNIT) / EN.ppl(0.2 * UNIT)) < high
    assert quiet == measure(law_with_noise(SIX, 0.002), *pairs, 0.9 * UNIT)  # the same each time
    law = law_with_noise(SIXTEEN, 0.02)
    one, four = (
        measure(law, result(float(EN.ppl(0.2 * UNIT)), 0.1 * UNIT, seeds=[0.0] * n)) for n in (1, 4)
    )
    assert width(four['teff_interval']) < 0.75 * width(one['teff_interval'])


def test_noise_comes_from_replicates_else_from_residuals_else_there_is_no_interval():
    pair = [[0.01, -0.01]]  # variance 2e-4
    law = law_with_noise(SIX, 0.0, replicates=[pair] * 4)
    assert (law.noise_from, law.dof, law.noise) == ('replicates', 4, pytest.approx(math.sqrt(2e-4)))
    law = law_with_noise(SIX, 0.01)
    assert (law.noise_from, law.dof) == ('residuals', 3) and 0.005 < law.noise < 0.03
    law = law_with_noise(FOUR, 0.0, replicates=[pair] * 4)  # four budgets test no law
    assert law.resampled is None and '4 budgets' in law.problem
    assert measure(law, result(30.0, 1e8))['teff_interval'] is None


def test_all_budgets_of_two_trunks_count_as_two_trunks():
    results = {
        str(f): result(float(EN.ppl(f * UNIT)), f * UNIT, seeds=(0.01, -0.01)) for f in SIXTEEN
    }
    assert law_of('law', results).noise_from == 'residuals'  # one degree of freedom is too few
    law = law_of('law', results, [[[0.01, -0.01]]])
    assert (law.trunks, law.dof) == (2, 2)


def transition(tokens):
    """Perplexity that halves between 0.2 and 0.4 units, where context comes into use."""
    return 20 * (tokens / UNIT) ** -0.1 * (1 + 1 / (1 + (tokens / UNIT / 0.28) ** 8))


ELEVEN = (0.05, 0.1, 0.15, 0.2, 0.225, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)
PAIRS = [[[0.001, -0.001]]] * 3


def law_of_transition(budgets=ELEVEN, replicates=PAIRS):
    results = {str(f): result(transition(f * UNIT), f * UNIT) for f in budgets[::-1]}
    return law_of('law', results, replicates)


def test_runs_with_a_transition_are_interpolated():
    law = law_of_transition()
    assert isinstance(law.curve, Interpolation) and law.misfit > 0.05
    power = fit(np.log(law.tokens), np.log(law.ppl)[None])
    for fraction in (0.04, 0.1, 0.21, 0.28, 0.33, 0.6, 1.2):  # at, between and beyond budgets
        ppl = transition(fraction * UNIT)
        assert law.curve.tokens(ppl)[0] == pytest.approx(fraction * UNIT, rel=0.06)
    assert abs(math.log(power.tokens(transition(0.28 * UNIT))[0] / (0.28 * UNIT))) > 0.1
    pair = result(transition(0.27 * UNIT), 0.1 * UNIT), result(transition(0.22 * UNIT), 0.1 * UNIT)
    values = measure(law, *pair)
    low, high = values['transfer_interval']
    assert low < 0.27 / 0.22 < high < 1.3 * low
    assert values['transfer'] == pytest.approx(0.27 / 0.22, rel=0.05)
    once = law_of_transition(replicates=())  # nothing shows its noise: there are no residuals
    assert once.resampled is None and 'seed' in once.problem


def test_few_budgets_over_a_transition_give_no_interval_but_say_what_to_add(tmp_path):
    law = law_of_transition(budgets=(0.1, 0.25, 0.5, 1.0))
    assert isinstance(law.curve, Interpolation) and law.resampled is None
    assert '4 budgets lie' in law.problem
    law = law_of_transition(budgets=(0.05, 0.1, 0.2, 0.4, 0.7, 0.85, 1.0))
    inside, beside = (result(transition(f * UNIT), 0.1 * UNIT) for f in (0.28, 0.8))
    row = measure(law, inside, beside)
    assert row['transfer_interval']
    notes = fit_scaling.hole_notes(row, law, [inside, beside, None])
    assert row['transfer_interval'] is row['teff_interval'] is None and len(notes) == 1
    assert row['add_budgets'][0] == pytest.approx(math.sqrt(0.2 * 0.4) * UNIT)
    row = measure(law, beside, beside)
    assert not fit_scaling.hole_notes(row, law, [beside, beside, None]) and row['transfer_interval']


def test_the_budgets_from_which_a_power_law_holds_are_proposed():
    law = law_of_transition(budgets=(*ELEVEN, 1.5, 2.0, 3.0))
    assert 0.3 * UNIT < law.holds_from <= UNIT and 'least_tokens' in fit_scaling.describe(law)
    assert law_with_noise(SIX, 0.001).holds_from == 0


def test_intervals_survive_laws_and_runs_out_of_reach():
    law = law_with_noise(SIX, 0.04)
    for ppl in (5.0, 9e10):
        values = measure(law, result(ppl, 1e8), result(5.0, 1e8))
        assert not any(np.isnan([*values['teff_interval'], *values['transfer_interval']]))


# --- the runs of a folder -------------------------------------------------------------------------

SMALL = dict(n_layer=12, n_head=12, head_dim=64, n_embd=768, mlp_dim=3072)
SMALL |= dict(block_size=512, vocab_size=32768)
NINETY, DOCUMENTS = [[0.9, 0.1]], (0.1, -0.1, 0.2, -0.2)


def write_run(folder, name, stages, ppl, model=SMALL, documents=(), more=None, **settings):
    """A results.json with all that fit_scaling.py reads; `ppl`: (tokens seen, index) -> perplexity.

    documents: errors of the log perplexity of each document; more: entries of each language; the
    rest are settings of train.py."""
    defaults = dict(stages=stages, corpora=['books_en', 'books_en'], languages=['en1', 'en2'])
    settings = defaults | dict(max_steps=18265) | settings
    corpora, languages, only = settings['corpora'], settings['languages'], settings.get('only', '')
    results = dict(run=name, settings=settings, model=model, languages={})
    for i, (language, corpus, shares) in enumerate(zip(languages, corpora, zip(*stages))):
        seen = settings['max_steps'] * 128 * 512 * sum(shares) / len(stages)
        if only in ('', language):
            value = float(ppl(seen, i))
            loss = [10 * (math.log(value) + error) for error in documents]
            about = dict(corpus=corpus, tokenizer='abcdef0123', tokens_seen=int(seen), ppl=value)
            about |= dict(ppl_se=0.1, document_loss=loss, document_tokens=[10] * len(loss))
            results['languages'][language] = about | (more or {})
    path = folder / name / 'results.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(results))
    return results


def write_mono(folder, fractions, corpus='books_en', law=EN, noise=0.01, **more):
    for i, fraction in enumerate(fractions):
        about = dict(corpora=[corpus], languages=[corpus[-2:]], max_steps=round(18265 * fraction))
        error = 1 + noise * (-1) ** i
        name = f'mono_{corpus}_{i}'
        write_run(folder, name, [[1.0]], lambda n, _, e=error: law.ppl(n) * e, **about | more)


def equivalent(teff):
    """Perplexity of a run whose languages have this token efficiency."""
    return lambda seen, i: EN.ppl(seen * teff)


def rows_of(folder):
    """({(run, language): row}, the laws) of a folder."""
    laws, rows = analyse(load_runs(folder))
    return {(row['run'], row['language']): row for row in rows}, list(laws.values())


def test_the_runs_of_a_folder_become_a_table_files_and_a_picture(tmp_path):
    out, french = tmp_path / 'out', load_paper_laws()['fr']
    write_mono(out, SIX, noise=1e-4)
    write_mono(out, [0.1, 0.5], corpus='books_fr', law=french)
    write_run(out, 'row05', NINETY, lambda seen, i: EN.ppl(seen * (1.0, 2.0)[i]))
    write_run(out, 'great', [[0.1, 0.9]], lambda seen, i: (EN.ppl(0.9 * seen), 10.0)[i])
    write_run(out, 'frfr', [[0.5, 0.5]], lambda seen, i: 20.0, corpora=['books_fr'] * 2)
    for name, text in (('torn', '{"run": "to'), ('other', '{"accuracy": 0.7}')):
        (out / name).mkdir()
        (out / name / 'results.json').write_text(text)
    done = script('fit_scaling', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.strip().splitlines()) == 2  # the two that are left out are named
    assert all(f'{name}/results.json' in done.stderr for name in ('torn', 'other'))
    assert max(map(len, done.stdout.split('\n\n')[1].splitlines())) <= 100
    stored = json.loads((out / 'scaling.json').read_text())
    rows = {(row['run'], row['language']): row for row in stored['rows']}
    row = rows['row05', 'en2']
    assert row['teff'] == pytest.approx(2, abs=1e-2)
    assert row['mlte'] == pytest.approx(0.2 * UNIT, rel=1e-2)
    assert row['mlpe'] == pytest.approx(float(EN.ppl(0.1 * UNIT)), rel=1e-3)
    assert row['teff_interval'][0] < 2 < row['teff_interval'][1]
    assert (row['paper_rows'], row['paper_teff']) == (
        'Table 1 row 5',
        pytest.approx(2.08, abs=5e-3),
    )
    great = rows['great', 'en2']
    assert great['mlte'] is None and great['reading'] == 'extrapolated'  # null is infinite
    assert rows['great', 'en1']['teff'] == pytest.approx(0.9, abs=1e-2)
    assert rows['frfr', 'en1']['teff'] is None and 'no law' in rows['frfr', 'en1']['note']
    assert rows['mono_books_en_5', 'en']['teff'] == 1
    [law] = [law for law in stored['laws'] if law['curve']]
    assert law['runs'] == [f'mono_books_en_{i}' for i in range(6)]
    assert len(law['tokens']) == 6 < len(law['curve']['ppl']) == len(law['curve']['low'])
    with (out / 'scaling.csv').open() as file:
        flat = {(row['run'], row['language']): row for row in csv.DictReader(file)}
    assert flat.keys() == rows.keys() and float(flat['row05', 'en2']['teff']) == pytest.approx(
        2, abs=0.01
    )
    assert (out / 'figure5.png').read_bytes().startswith(b'\x89PNG')


def test_stored_laws_and_rows_are_read_until_a_run_is_newer(tmp_path, monkeypatch):
    write_mono(tmp_path, SIX)
    laws, rows = fit_scaling.scale(tmp_path)
    monkeypatch.setattr(fit_scaling, 'analyse', lambda runs: 1 / 0)
    assert [row['run'] for row in fit_scaling.load_scaling(tmp_path)[1]] == [r['run'] for r in rows]
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0))
    with pytest.raises(ZeroDivisionError):
        fit_scaling.load_scaling(tmp_path)


def test_transfer_is_that_over_the_best_control_that_reads_once(tmp_path):
    write_mono(tmp_path, SIX, noise=1e-3, documents=DOCUMENTS)
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0), documents=DOCUMENTS, cloned_fraction=0.5)
    for rate, teff in ((3e-4, 1.2), (1e-3, 1.6), (2e-3, 1.5)):  # whatever its rate and seed
        tuned = dict(only='en2', learning_rate=rate, min_learning_rate=rate / 100, seed=1)
        write_run(tmp_path, f'alone_{rate}', NINETY, equivalent(teff), documents=DOCUMENTS, **tuned)
    rows, [law] = rows_of(tmp_path)
    row = rows['mix', 'en2']
    assert law.runs == [f'mono_books_en_{i}' for i in range(6)]  # no control is in the law
    assert not any('alone' in run for run, _ in rows)
    assert (row['control'], row['controls_tried'], row['rates_tried']) == ('alone_0.001', 3, 3)
    assert row['teff'] == pytest.approx(2.0, rel=0.02)
    assert row['control_teff'] == pytest.approx(1.6, rel=0.02)
    assert row['transfer'] == pytest.approx(1.25, rel=0.01)
    low, high = row['transfer_interval']
    assert 1 < low < 1.25 < high
    assert rows['mix', 'en1']['control'] == '' and rows['mix', 'en1']['transfer'] is None
    assert row['gain'] is None  # nothing re-reads


def test_the_law_is_the_control_where_the_step_matched_one_is_weaker(tmp_path):
    write_mono(tmp_path, SIX, noise=1e-3)
    write_run(tmp_path, 'mix', NINETY, equivalent(0.97))
    write_run(tmp_path, 'alone', NINETY, equivalent(0.8), only='en2')
    row = rows_of(tmp_path)[0]['mix', 'en2']
    assert row['control'] == 'the law' and row['transfer'] == row['teff'] == pytest.approx(
        0.97, rel=0.01
    )
    assert row['control_teff'] == pytest.approx(0.8, rel=0.01)
    assert row['transfer_nats'] == pytest.approx(math.log(row['mlpe'] / row['ppl']))


def test_gain_is_over_re_reading_of_at_most_the_compute_of_the_mixture(tmp_path):
    write_mono(tmp_path, SIX, noise=1e-3)
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0))
    write_run(tmp_path, 'once', NINETY, equivalent(1.2), only='en2')
    seen = round(0.1 * UNIT)
    for epochs, teff in ((4, 3.0), (10, 4.0), (20, 5.0)):  # the last costs twice the mixture
        again = dict(only='en2', epochs=epochs, more=dict(tokens_read=epochs * seen))
        write_run(tmp_path, f'x{epochs}', NINETY, equivalent(teff), **again)
    row = rows_of(tmp_path)[0]['mix', 'en2']
    assert (row['control'], row['reread_control']) == ('once', 'x10')
    assert row['gain'] == pytest.approx(0.5, rel=0.02) and row['gain_nats'] < 0
    assert row['transfer'] == pytest.approx(2 / 1.2, rel=0.02)


@pytest.mark.parametrize(
    'change',
    [
        dict(max_steps=9132),
        dict(stages=[[0.8, 0.2]]),
        dict(warmup_steps=20),
        dict(only='en1'),
        dict(more=dict(test='other')),
        dict(batch_size=64),
        dict(model=SMALL | dict(block_size=256)),
        dict(weight_decay=0.1),
    ],
)
def test_a_run_that_saw_other_sequences_is_no_control(tmp_path, change):
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0))
    write_run(tmp_path, 'alone', ppl=equivalent(1.6), **dict(stages=NINETY, only='en2') | change)
    assert rows_of(tmp_path)[0]['mix', 'en2']['control'] == ''


@pytest.mark.parametrize('best, noise_from', [(3e-4, 'residuals'), (2e-3, 'replicates')])
def test_only_the_best_control_counts_for_the_noise(tmp_path, best, noise_from):
    write_mono(tmp_path, SIX)
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0))
    write_run(tmp_path, 'one_seed', NINETY, equivalent(1.2), only='en2', learning_rate=3e-4)
    for seed, error in enumerate((0.9, 1.0, 1.1)):
        teff = equivalent(error * (1.6 if best == 2e-3 else 0.8))
        name, tuned = f'seed_{seed}', dict(only='en2', learning_rate=2e-3)
        write_run(tmp_path, name, NINETY, teff, seed=seed, **tuned)
    rows, [law] = rows_of(tmp_path)
    assert rows['mix', 'en2']['control'] == ('one_seed' if best == 3e-4 else 'seed_0')
    assert law.noise_from == noise_from


def test_an_order_of_text_has_a_law_and_controls_of_its_own(tmp_path):
    write_mono(tmp_path, FIVE)
    reverse = dict(orders=['', 'reversed'])
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0), **reverse)
    write_run(tmp_path, 'first', NINETY, equivalent(1.5), only='en1')
    write_run(tmp_path, 'second', NINETY, equivalent(1.5), only='en2')
    rows, laws = rows_of(tmp_path)
    assert sorted(len(law.runs) for law in laws) == [0, 5]
    assert rows['mix', 'en1']['control'] == 'first'  # whose order is that of the mixture's en1
    assert rows['mix', 'en2']['control'] == '' and rows['mix', 'en2']['teff'] is None
    write_run(tmp_path, 'reverse', NINETY, equivalent(1.2), only='en2', **reverse)
    assert rows_of(tmp_path)[0]['mix', 'en2']['control'] == 'reverse'


def test_a_language_added_to_a_trained_model_is_no_monolingual_run(tmp_path):
    write_mono(tmp_path, FIVE)
    for name, teff in (('one', 2.0), ('other', 1.5)):
        added = dict(train_only='en2', init_from=f'out/{name}', max_steps=1826)
        write_run(tmp_path, name, [[0.0, 1.0]], equivalent(teff), **added)
    rows, [law] = rows_of(tmp_path)
    assert len(law.runs) == 5
    assert rows['one', 'en2']['teff'] == pytest.approx(2, rel=0.1)
    assert rows['other', 'en2']['teff'] == pytest.approx(1.5, rel=0.1)


def test_runs_that_differ_in_their_seed_are_pooled(tmp_path):
    write_mono(tmp_path, FIVE, noise=0, documents=DOCUMENTS)
    errors = 0.03, -0.01, -0.02
    for seed, error in enumerate(errors):
        teff = equivalent(2.0)
        scaled = lambda seen, i, teff=teff, e=error: teff(seen, i) * math.exp(e)  # noqa: E731
        write_run(tmp_path, f'mix_{seed}', NINETY, scaled, seed=seed, documents=DOCUMENTS)
    [mix] = [run for run in load_runs(tmp_path) if run['run'].startswith('mix')]
    assert mix['seeds'] == [0, 1, 2]
    pooled = mix['languages']['en2']
    assert math.log(pooled['ppl']) == pytest.approx(pooled['document_loss'].sum() / 40)
    rows, [law] = rows_of(tmp_path)
    row = rows['mix_0', 'en2']
    assert row['seeds'] == 3 and len(rows) == 7
    assert (law.noise_from, law.dof) == ('replicates', 2)
    assert law.noise == pytest.approx(np.std(errors, ddof=1))
    assert row['teff_interval'][0] < 2 < row['teff_interval'][1]


@pytest.mark.parametrize(
    'change',
    [
        dict(more=dict(test='ab')),
        dict(more=dict(windows=64)),
        dict(more=dict(last_n=8)),
        dict(more=dict(tokenizer='ff')),
        dict(batch_size=64),
        dict(learning_rate=1e-3),
        dict(lr_schedule='wsd'),
        dict(warmup_steps=50),
        dict(model=SMALL | dict(n_embd=512)),
        dict(weight_decay=0.1),
    ],
)
def test_runs_that_were_made_or_scored_in_another_way_share_no_law(tmp_path, change):
    write_mono(tmp_path, FIVE)
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0), **change)
    rows, laws = rows_of(tmp_path)
    assert sorted(len(law.runs) for law in laws) == [0, 5]
    assert rows['mix', 'en2']['teff'] is None and 'no law' in rows['mix', 'en2']['note']


def test_settings_without_effect_do_not_keep_runs_apart(tmp_path):
    for i, fraction in enumerate((0.1, 0.2)):
        decay = dict(decay_fraction=fraction)
        write_run(tmp_path, f'wsd_{i}', NINETY, equivalent(1), lr_schedule='wsd', **decay)
        write_run(tmp_path, f'cosine_{i}', [[0.8, 0.2]], equivalent(1), **decay)
    assert len(rows_of(tmp_path)[1]) == 3  # a cosine has no decay_fraction


OLD = dict(start_entries='', start_noise=0.3, trainable='all', parallel_epochs=False)
OLD |= dict(only='', orders=[], loss_weights=[], warmup_fraction=0.0, decay_fraction=0.2)


@pytest.mark.parametrize(
    'change',
    [*({key: value} for key, value in OLD.items()), OLD, dict(orders=['', '']), dict(size='x')],
)
def test_a_run_that_writes_a_default_down_is_the_run_that_does_not(tmp_path, change, capsys):
    write_run(tmp_path, 'a', NINETY, equivalent(2.0))
    write_run(tmp_path, 'b', NINETY, equivalent(2.0), **change)
    assert len(load_runs(tmp_path)) == 1 and 'b (of a)' in capsys.readouterr().out


@pytest.mark.parametrize(
    'change',
    [
        dict(orders=['', 'reversed']),
        dict(loss_weights=[0.5, 0.5]),
        dict(start_entries='clones'),
        dict(init_embeddings='spelling'),
        dict(trainable='en2', init_from='a'),
        dict(parallel_epochs=True),
        dict(weight_decay=0.1),
    ],
)
def test_a_run_with_an_intervention_is_another_run(tmp_path, change):
    write_run(tmp_path, 'a', NINETY, equivalent(2.0))
    write_run(tmp_path, 'b', NINETY, equivalent(2.0), **change)
    both = load_runs(tmp_path)
    assert len(both) == 2 and [bool(paper_rows(run)) for run in both] == [True, False]


def test_old_names_of_settings_are_the_new_ones(tmp_path):
    old = dict(start_entries='clones', start_noise=0.1, trainable='en2', init_from='a')
    write_run(tmp_path, 'old', NINETY, equivalent(2.0), **old)
    new = dict(init_embeddings='spelling', init_noise=0.1, train_only='en2', init_from='a')
    write_run(tmp_path, 'same', NINETY, equivalent(2.0), **new)
    assert len(load_runs(tmp_path)) == 1


def test_copies_of_runs_change_nothing(tmp_path, capsys):
    def write(folder, copies):
        write_mono(folder, SIX, noise=0.01, out_dir='a', device='cpu')
        write_run(folder, 'mix', NINETY, equivalent(2.0))
        write_run(folder, 'mix-only_en2', NINETY, equivalent(1.5), only='en2')
        if copies:
            about = dict(corpora=['books_en'], languages=['en'], out_dir='b', device='cuda')
            again = lambda seen, _: EN.ppl(seen) * 0.99  # noqa: E731
            write_run(folder, 'again', [[1]], again, final_windows=7, **about)  # 1 is 1.0
            write_run(folder, 'zz_mix', NINETY, equivalent(2.0), out_dir='c', init_from='trunk')
            alone = dict(only='en2', cloned_fraction=0.5)
            write_run(folder, 'zz_alone', NINETY, equivalent(1.5), **alone)

    write(tmp_path / 'once', False)
    write(tmp_path / 'copied', True)
    once, [law] = rows_of(tmp_path / 'once')
    assert 'copies' not in capsys.readouterr().out
    copied, [same_law] = rows_of(tmp_path / 'copied')
    assert 'zz_mix (of mix)' in capsys.readouterr().out
    assert law.dof == same_law.dof == 3
    apart = dict(run='', settings='', controls_tried='')
    for key, row in once.items():
        other = copied[('again', 'en') if key[0] == 'mono_books_en_5' else key]
        assert row | apart == other | apart


def test_runs_of_one_test_document_or_of_older_versions_are_read(tmp_path):
    write_mono(tmp_path, SIX)  # without documents
    unknown = dict(document_loss=[math.nan, 1], document_tokens=[3, 3])
    write_run(tmp_path, 'nan', NINETY, equivalent(2.0), more=unknown)
    single = dict(document_loss=[30.0], document_tokens=[9], ppl_se=None, loss_se=None)
    write_run(tmp_path, 'single', NINETY, equivalent(2.0), more=single, max_steps=18000)
    write_run(tmp_path, 'old', NINETY, equivalent(2.0), more=single | dict(ppl_se=math.nan), seed=1)
    torn = dict(document_loss=[1.0], document_tokens=[3, 3])
    write_run(tmp_path, 'torn', NINETY, equivalent(2.0), more=torn, seed=3)
    rows, _ = rows_of(tmp_path)
    assert {run for run, _ in rows if 'mono' not in run} == {'nan', 'single'}
    for name in ('nan', 'single'):
        assert rows[name, 'en2']['teff_interval'] and 'document' in rows[name, 'en2']['note']
    assert rows['single', 'en2']['ppl_se'] is None


def test_least_tokens_leaves_smaller_budgets_out(tmp_path, monkeypatch):
    write_mono(tmp_path, SIX, noise=1e-3)
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0))
    monkeypatch.setattr(fit_scaling, 'least_tokens', round(0.08 * UNIT))
    rows, [law] = rows_of(tmp_path)
    assert len(law.runs) == 5 == rows['mix', 'en2']['budgets']
    assert rows['mono_books_en_0', 'en']['teff'] == 1  # still a row


def test_controls_are_found_without_another_edit_of_the_table(tmp_path):
    write_run(tmp_path, 'mix', NINETY, equivalent(2.0), weight_decay=0.1)
    write_run(tmp_path, 'mix-only_en2', NINETY, equivalent(1.0), only='en2', weight_decay=0.1)
    write_run(tmp_path, 'other', NINETY, equivalent(1.0), only='en2')
    mix, *others = load_runs(tmp_path)
    assert [run['run'] for run in controls_of(mix, 'en2', others)] == ['mix-only_en2']


def test_runs_of_the_paper_are_recognised_by_their_setup(tmp_path):
    def names(stages, **more):
        name = f'run{len(list(tmp_path.iterdir()))}'
        written = write_run(tmp_path, name, stages, lambda seen, i: 20.0, **more)
        return [row['name'] for row in paper_rows(written)]

    fr = dict(corpora=['books_en', 'books_fr'], languages=['en', 'fr'])
    anchored, turned = dict(fr, vocabulary='anchored'), [[0.9, 0.1], [0.1, 0.9]]
    ten = dict(corpora=['books_en'] * 10, languages=[f'en{i + 1}' for i in range(10)])
    both = ['Table 1 row 1', 'Table 3 row 1']
    for stages, more, expected in (
        (NINETY, {}, ['Table 1 row 5']),
        (NINETY, dict(max_steps=36530), ['Figure 2 2x']),
        (NINETY, dict(vocabulary='anchored'), []),
        (NINETY, dict(cloned_fraction=0.9), []),
        (NINETY, dict(lr_schedule='wsd'), []),
        (NINETY, dict(model=SMALL | dict(n_layer=4, n_embd=512)), []),
        ([[0.85, 0.15]], {}, []),
        (turned, {}, ['Table 1 row 9']),
        ([[0.1] * 10], ten, ['Table 1 row 6']),
        ([[0.5] + [0.5 / 9] * 9], ten, ['Table 1 row 7']),
        (NINETY, fr, ['Table 3 row 8']),
        (NINETY, anchored, ['Table 3 row 12']),
        ([*turned, [0.5, 0.5], [0.5, 0.5]], anchored, ['Table 3 row 15']),
        ([[1.0]], dict(corpora=['books_en'], languages=['en']), both),
        ([[0.0, 1.0]], dict(fr, max_steps=9132), ['Table 3 row 5']),
    ):
        assert names(stages, **more) == expected


def test_a_scheduled_run_counts_the_tokens_it_saw_of_a_language():
    seen = {
        row['name']: [language['tokens_seen'] / UNIT for language in row['languages']]
        for row in load_paper_runs()
    }
    assert seen['Table 1 row 8'] == seen['Table 3 row 16'] == pytest.approx([0.5, 0.5])
    assert seen['Table 1 row 7'] == pytest.approx([0.5, 1 / 18], rel=1e-5)
    assert seen['Figure 2 2x'] == pytest.approx([1.8, 0.2])


def test_a_language_is_known_by_whole_words():
    names = [('en1', 'docs'), ('l1', 'eltec_eng'), ('a', 'french'), ('trench', 'docs')]
    assert [kind_of(*words) for words in names] == ['en', 'en', 'fr', '']


def test_a_folder_without_runs_is_refused(tmp_path):
    refused(script('fit_scaling', cwd=tmp_path), 'out/')
