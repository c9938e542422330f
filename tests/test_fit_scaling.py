"""Laws and transfers that are known come back; runs that may not be compared are kept apart."""

import csv
import json
import math
import os
import re

import numpy as np
import pytest
from conftest import SMALL, in_process, refused, works, write_run

import fit_scaling
from fit_scaling import analyse, measure
from lib import laws
from lib.laws import UNIT, Interpolation, PowerLaw, fit, law_of
from lib.paper import kind_of, load_paper_runs, paper_runs_of, published_laws
from lib.runs import load_runs
from lib.tables import short

FOUR = [0.1, 0.25, 0.5, 1.0]
SIX = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0]
SIXTEEN = [0.05, *np.arange(1, 9) / 10, 0.85, 0.9, 0.95, 1, 1.5, 2, 3]  # the paper's own
EN = PowerLaw(0.0386839, 0.20725333, 0.08406525)
FR = PowerLaw(0.05686383, 0.19327436, 0.11919068)


@pytest.mark.parametrize('fractions', [FOUR, SIXTEEN])
def test_laws_are_recovered_from_their_own_points(fractions):
    others = PowerLaw(0.004, 0.8, 0.05), PowerLaw(0.0001, 2, 0.05), PowerLaw(0.3, 0.03, 0.36)
    laws, tokens = [EN, FR, *others], np.array(fractions[::-1]) * UNIT
    found = vars(fit(np.log(tokens), np.log([law.ppl(tokens) for law in laws])))
    for name, values in found.items():
        assert values == pytest.approx([vars(law)[name] for law in laws], rel=1e-4)


def test_no_other_law_has_a_smaller_error_in_one_over_ppl():
    rng = np.random.default_rng(1)
    tokens = np.array(SIXTEEN) * UNIT
    ppl = EN.ppl(tokens) * (1 + 0.02 * rng.standard_normal(16))
    numbers = np.ravel(list(vars(fit(np.log(tokens), np.log(ppl)[None])).values()))

    def error(a, b, c):
        return ((1 / ppl - c + a * (tokens / UNIT) ** -b) ** 2).sum()

    for step in rng.normal(0, 1e-3, (200, 3)):
        assert error(*(numbers * (1 + step))) > error(*numbers)


def test_tokens_and_ppl_are_inverse_and_infinite_beyond_the_law():
    tokens = np.array([1e8, 3e8, 5e9])
    assert EN.tokens(EN.ppl(tokens)) == pytest.approx(tokens)
    assert EN.ppl(UNIT) == pytest.approx(1 / (0.08406525 - 0.0386839))
    assert EN.tokens(1 / EN.c * 0.999) == math.inf > EN.tokens(1 / EN.c * 1.001)
    assert EN.ppl(1.0) == math.inf  # one token: 1/PPL would be below 0
    assert 0 < EN.tokens(9e10) < 0.05 * UNIT  # Table 1 row 8


def test_every_teff_of_the_paper_follows_from_its_perplexity():
    known, compared = dict(en=EN, fr=FR), 0
    for published in load_paper_runs():
        digits = 1e-2 if published.name in ('Table 3 row 19', 'Table 3 row 20') else 1e-4
        several = len(published.kinds) > 1
        for kind, row in zip(published.kinds, published.rows) if several else ():
            teff = known[kind].tokens(row['paper_ppl']) / row['tokens_seen']
            assert teff == pytest.approx(row['paper_teff'], abs=digits)
            compared += 1
    assert compared == 56


def test_the_laws_of_the_paper_keep_their_form_when_ours_is_edited(monkeypatch):
    found = [law['curve'] for law in published_laws()]
    expected = [law.ppl(curve['tokens']) for law, curve in zip((EN, FR), found)]
    monkeypatch.setattr(laws, 'to_ppl', np.exp)
    assert EN.ppl(found[0]['tokens']) != pytest.approx(expected[0])
    for law, ppl in zip(published_laws(), expected):
        assert law['curve']['ppl'] == pytest.approx(ppl) and law['curve']['tokens'][-1] > UNIT


def result(ppl, fraction, errors=(0.0,), seeds=(0.0,)):
    """A result after a fraction of UNIT; errors in log perplexity of each document and seed."""
    log_ppl = math.log(ppl) + np.mean(errors) + np.array(seeds)
    loss = log_ppl.mean() - np.mean(errors) + np.array(errors)
    about = dict(tokens_seen=fraction * UNIT, document_tokens=np.ones(len(errors)))
    return about | dict(ppl=math.exp(log_ppl.mean()), log_ppl=log_ppl, document_loss=loss)


def reached(fraction, law=EN.ppl, seen=0.1, **more):
    """A result as good as a monolingual run on a fraction of UNIT."""
    return result(float(law(fraction * UNIT)), seen, **more)


def law_with_noise(fractions, noise, replicates=(), **more):
    signs = np.resize([1, -1, -1, 1], len(fractions))
    ppl = {f: float(EN.ppl(f * UNIT)) * (1 + noise * sign) for f, sign in zip(fractions, signs)}
    return law_of('law', {str(f): result(ppl[f], f, **more) for f in ppl}, replicates)


def width(ends):
    return math.log(ends[1] / ends[0])


def test_runs_that_determine_no_law_have_none_and_a_reason():
    reasons = set()
    for fractions, ppl in (
        ([], []),
        ([0.1, 0.1, 0.1, 1], [50, 51, 49, 20]),  # two budgets
        ([0, 0.3, 1], [50, 30, 20]),
        ([0.1, 0.3, 1], [20, 30, 50]),
        ([0.1, 0.3, 1], [20, 20, 20]),
        ([0.1, 0.3, 0.5, 1], [50, 20, 20, 20]),  # falls no longer
    ):
        law = law_of('law', {str(i): result(*at) for i, at in enumerate(zip(ppl, fractions))})
        assert law.curve is None and law.problem
        reasons.add(law.problem)
    assert len(reasons) == 5


def test_a_document_error_that_all_runs_share_cancels():
    errors = np.random.default_rng(0).normal(0, 0.5, 40)  # of the whole test set: 8%
    sure = measure(law_with_noise(SIX, 0.001), reached(0.2))
    law = law_with_noise(SIX, 0.001, errors=errors)
    shared, own = (measure(law, reached(0.2, errors=e)) for e in (errors, errors[::-1]))
    assert width(shared['teff_interval']) == pytest.approx(width(sure['teff_interval']), rel=0.1)
    assert width(shared['mlpe_interval']) > 10 * width(sure['mlpe_interval'])  # no comparison
    assert width(own['teff_interval']) > 10 * width(sure['teff_interval'])


def test_noise_of_runs_widens_every_interval_and_seeds_narrow_it():
    compared = reached(0.2), reached(0.15), reached(0.15), 0.9 * UNIT
    quiet, again, loud = (measure(law_with_noise(SIX, n), *compared) for n in (0.002, 0.002, 0.02))
    assert quiet == again
    assert quiet['transfer'] == quiet['gain'] == pytest.approx(0.2 / 0.15, rel=0.02)
    assert quiet['tau'] == pytest.approx((quiet['transfer'] - 1) / 9)
    for name in ('mlpe', 'mlte', 'teff', 'control_teff', 'reread_teff', 'transfer', 'gain'):
        low, high = quiet[f'{name}_interval']
        assert low < quiet[name] < high
        assert width(loud[f'{name}_interval']) > 4 * width((low, high))
    low, high = quiet['transfer_nats_interval']
    assert low < math.log(EN.ppl(0.15 * UNIT) / EN.ppl(0.2 * UNIT)) < high
    law = law_with_noise(SIXTEEN, 0.02)
    one, four = (measure(law, reached(0.2, seeds=[0.0] * n))['teff_interval'] for n in (1, 4))
    assert width(four) < 0.75 * width(one)


def test_the_law_is_no_control_beyond_its_budgets():
    law = law_with_noise(SIX, 0.002)
    for seen, is_control in ((0.1, True), (0.9 * SIX[0], False), (2 * SIX[-1], False)):
        below = (reached(times * seen, seen=seen) for times in (0.7, 0.8, 0.9))
        values = measure(law, *below)
        assert values['by_law'] == ({'control', 'reread'} if is_control else set())
        for name, control in dict(transfer=0.8, gain=0.9).items():
            assert values[name] == pytest.approx(0.7 / (1 if is_control else control), rel=0.02)


def test_noise_comes_from_replicates_else_from_residuals_else_there_is_no_interval():
    pair = [0.01, -0.01]  # variance 2e-4
    law = law_with_noise(SIX, 0.0, [pair] * 4)
    assert (law.noise_from, law.dof, law.noise) == ('replicates', 4, pytest.approx(math.sqrt(2e-4)))
    law = law_with_noise(SIX, 0.01)
    assert (law.noise_from, law.dof) == ('residuals', 3) and 0.005 < law.noise < 0.03
    law = law_with_noise(FOUR, 0.0, [pair] * 4)  # four budgets test no law
    assert law.resampled is None and law.problem
    assert measure(law, result(30.0, 0.1))['teff_interval'] is None
    law = law_with_noise(SIXTEEN, 0.0, seeds=pair)  # all budgets of two trunks count once
    assert law.noise_from == 'residuals'  # one degree of freedom is too few
    law = law_with_noise(SIXTEEN, 0.0, [pair], seeds=pair)
    assert (law.noise_from, law.trunks, law.dof) == ('replicates', 2, 2)


def test_intervals_survive_laws_and_runs_out_of_reach():
    law = law_with_noise(SIX, 0.04)
    for ppl in (5.0, 9e10):
        values = measure(law, result(ppl, 0.1), result(5.0, 0.1))
        assert not any(np.isnan([*values['teff_interval'], *values['transfer_interval']]))


def transition(tokens):
    """Perplexity that halves between 0.2 and 0.4 units, where context comes into use."""
    return 20 * (tokens / UNIT) ** -0.1 * (1 + 1 / (1 + (tokens / UNIT / 0.28) ** 8))


TWELVE = (0.05, 0.1, 0.15, 0.2, 0.225, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)


def law_of_transition(budgets=TWELVE, replicates=([0.001, -0.001],) * 3):
    results = {str(i): reached(f, transition, f) for i, f in enumerate(budgets[::-1])}
    return law_of('law', results, replicates)


def test_runs_with_a_transition_are_interpolated():
    law = law_of_transition()
    assert isinstance(law.curve, Interpolation) and law.misfit > 0.05
    for fraction in (0.04, 0.1, 0.21, 0.28, 0.33, 0.6, 1.2):  # at, between and beyond budgets
        ppl = transition(fraction * UNIT)
        assert law.curve.tokens(ppl)[0] == pytest.approx(fraction * UNIT, rel=0.06)
    values = measure(law, reached(0.27, transition), reached(0.22, transition))
    low, high = values['transfer_interval']
    assert low < 0.27 / 0.22 < high < 1.3 * low
    assert values['transfer'] == pytest.approx(0.27 / 0.22, rel=0.05)
    once = law_of_transition(replicates=())  # nothing shows its noise: there are no residuals
    assert once.resampled is None and once.problem
    few = law_of_transition((0.05, 0.2, 0.4, 1.0))  # perplexity falls most between 0.2 and 0.4
    assert few.resampled is None and f'add {short(math.sqrt(0.2 * 0.4) * UNIT)}' in few.problem


def test_a_reading_in_a_hole_of_the_law_has_no_interval_but_what_to_add():
    law = law_of_transition(budgets=(0.05, 0.1, 0.2, 0.4, 0.7, 0.85, 1.0))
    inside, beside = reached(0.28, transition), reached(0.8, transition)
    open_, closed = measure(law, inside, beside), measure(law, beside, beside)
    assert open_['transfer_interval'] is open_['teff_interval'] is None
    assert open_['holes'] == [pytest.approx((0.2 * UNIT, 0.4 * UNIT))]
    assert open_['control_teff_interval'] and open_['transfer_nats_interval']
    assert closed['transfer_interval'] and not closed['holes']
    beyond = measure(law, reached(0.04, transition))  # all budgets
    assert beyond['outside'].keys() == {'run'} and beyond['teff_interval'] is None
    twice = law_of_transition([*TWELVE, TWELVE[-1]])  # a trunk, and a mixture of one language
    assert twice.curve.tokens(9.0) == pytest.approx(law_of_transition().curve.tokens(9.0))
    closed = law_of_transition().curve  # certain at 0.07, between near budgets at 0.173
    assert closed.hole(transition(0.07 * UNIT)) is closed.hole(transition(0.173 * UNIT)) is None


# --- the runs of a folder -------------------------------------------------------------------------

NINETY, DOCUMENTS = [[0.9, 0.1]], (0.1, -0.1, 0.2, -0.2)


def write_mono(folder, fractions, corpus='books_en', law=EN.ppl, noise=0.01, **more):
    for i, fraction in enumerate(fractions):
        about = dict(corpora=[corpus], languages=[corpus[-2:]], max_steps=round(18265 * fraction))
        ppl = equivalent(1, math.log(1 + noise * (-1) ** i), law)
        write_run(folder, f'mono_{corpus}_{i}', [[1.0]], ppl, **about | more)


def equivalent(teff, error=0.0, law=EN.ppl):
    """Perplexity of a run whose languages have this token efficiency."""
    return lambda seen, i: law(seen * teff) * math.exp(error)


def write_mix(folder, name='mix', teff=2.0, stages=NINETY, **more):
    write_run(folder, name, stages, equivalent(teff), **more)


def write_control(folder, name, teff, stages=NINETY, **more):
    write_run(folder, name, stages, equivalent(teff), **dict(only='en2') | more)


def rows_of(folder):
    """({(run, language): row}, the laws) of a folder."""
    laws, rows = analyse(load_runs(folder))
    return {(row['run'], row['language']): row for row in rows}, list(laws.values())


def test_the_runs_of_a_folder_become_a_table_files_and_a_picture(tmp_path):
    out, french = tmp_path / 'out', 'frfr' + 80 * 'r'
    write_mix(out, 'alone', 1, [[0.0, 1.0]], max_steps=9132)  # en1 is never seen
    write_mono(out, SIX, noise=1e-4)
    write_mono(out, [0.1, 0.5], corpus='books_fr', law=FR.ppl)
    write_run(out, 'row05', NINETY, lambda seen, i: EN.ppl(seen * (1.0, 2.0)[i]))
    write_run(out, 'great', [[0.1, 0.9]], lambda seen, i: (EN.ppl(0.9 * seen), 10.0)[i])
    write_run(out, french, [[0.5, 0.5]], lambda seen, i: 20.0, corpora=['books_fr'] * 2)
    write_control(out, 'row05-only_en2', 1.6)
    for name, text in (('torn', '{"run": "to'), ('other', '{"accuracy": 0.7}')):
        (out / name).mkdir()
        (out / name / 'results.json').write_text(text)
    wide, done = (works('fit_scaling', f'--wide={w}', cwd=tmp_path) for w in (True, False))
    assert len(done.stderr.strip().splitlines()) == 2  # the two that are left out are named
    assert all(f'{name}/results.json' in done.stderr for name in ('torn', 'other'))
    lines, more = (one.stdout.split('\n\n')[1].splitlines() for one in (done, wide))
    assert max(map(len, lines)) <= 100 and len(more) > len(lines) and len(more[0]) > len(lines[0])
    stored = json.loads((out / 'scaling.json').read_text())
    rows = {(row['run'], row['language']): row for row in stored['rows']}
    row, great = rows['row05', 'en2'], rows['great', 'en2']
    assert row['teff'] == pytest.approx(2, abs=1e-2)
    assert row['teff_interval'][0] < 2 < row['teff_interval'][1]
    assert row['mlte'] == pytest.approx(0.2 * UNIT, rel=1e-2)
    assert row['mlpe'] == pytest.approx(float(EN.ppl(0.1 * UNIT)), rel=1e-3)
    assert row['paper_rows'] == 'Table 1 row 5'
    assert row['paper_teff'] == pytest.approx(2.08, abs=5e-3)
    assert great['mlte'] is None and great['reading'] == 'extrapolated'  # null is infinite
    assert rows['great', 'en1']['teff'] == pytest.approx(0.9, abs=1e-2)
    assert rows[french, 'en1']['teff'] is None and rows[french, 'en1']['note']
    assert rows['alone', 'en1']['group'] == '' and rows['alone', 'en1']['note']
    assert rows['mono_books_en_5', 'en']['teff'] == 1
    [law] = [law for law in stored['laws'] if law['curve']]
    assert set(law['runs']) == {'alone', *(f'mono_books_en_{i}' for i in range(6))}
    assert len(law['tokens']) == 7 < len(law['curve']['ppl']) == len(law['curve']['low'])
    with (out / 'scaling.csv').open() as file:
        flat = {(row['run'], row['language']): row for row in csv.DictReader(file)}
    assert flat.keys() == rows.keys()
    assert float(flat['row05', 'en2']['teff']) == pytest.approx(2, abs=0.01)
    assert (out / 'figure5.png').read_bytes().startswith(b'\x89PNG')


def test_a_folder_without_runs_is_refused_and_one_of_controls_has_no_rows(tmp_path):
    refused(in_process('fit_scaling', cwd=tmp_path), 'out/')
    write_control(tmp_path / 'out', 'alone', 1.0)
    assert fit_scaling.scale(tmp_path / 'out') == ([], [])


@pytest.mark.parametrize('change', ['a run', 'the code', 'one less', 'least_tokens'])
def test_stored_laws_and_rows_are_read_until_something_changes(tmp_path, monkeypatch, change):
    write_mono(tmp_path, SIX)
    laws, rows = fit_scaling.scale(tmp_path)
    monkeypatch.setattr(fit_scaling, 'analyse', lambda runs: 1 / 0)
    assert [row['run'] for row in fit_scaling.load_scaling(tmp_path)[1]] == [r['run'] for r in rows]
    if change == 'a run':
        write_mix(tmp_path)
        os.utime(tmp_path / 'mix/results.json', (0, 0))  # moved here, with its old time
    elif change == 'one less':
        next(tmp_path.glob('*/results.json')).unlink()
    elif change == 'least_tokens':
        monkeypatch.setattr(fit_scaling, 'least_tokens', 1)
    else:
        monkeypatch.setattr(fit_scaling, '__file__', __file__)
    with pytest.raises(ZeroDivisionError):
        fit_scaling.load_scaling(tmp_path)


def test_transfer_is_that_over_the_best_control_that_reads_once(tmp_path):
    write_mono(tmp_path, SIX, noise=1e-3, documents=DOCUMENTS)
    write_mix(tmp_path, documents=DOCUMENTS, cloned_fraction=0.5)
    for rate, teff in ((3e-4, 1.2), (1e-3, 1.6), (2e-3, 1.5)):  # whatever its rate and seed
        tuned = dict(learning_rate=rate, min_learning_rate=rate / 100, seed=1)
        write_control(tmp_path, f'alone_{rate}', teff, documents=DOCUMENTS, **tuned)
    rows, [law] = rows_of(tmp_path)
    first, row = rows['mix', 'en1'], rows['mix', 'en2']
    assert law.runs == [f'mono_books_en_{i}' for i in range(6)]  # no control is in the law
    assert not any('alone' in run for run, _ in rows)
    assert (row['control'], row['controls_tried'], row['rates_tried']) == ('alone_0.001', 3, 3)
    assert [row[name] for name in ('teff', 'control_teff')] == pytest.approx([2, 1.6], rel=0.02)
    low, high = row['transfer_interval']
    assert row['transfer'] == pytest.approx(1.25, rel=0.01) and 1 < low < 1.25 < high
    assert first['control'] == '' and first['transfer'] is row['gain'] is None  # nothing re-reads


def test_gain_is_over_re_reading_and_the_law_may_be_the_control(tmp_path):
    write_mono(tmp_path, SIX, noise=1e-3)
    write_mix(tmp_path)
    for epochs, teff in ((0, 1.2), (4, 3.0), (10, 4.0), (20, 5.0)):  # 20 costs more than the mix
        write_control(tmp_path, f'x{epochs}', teff, epochs=epochs)
    write_mix(tmp_path, 'weak', 0.97, [[0.8, 0.2]])
    for epochs in (0, 20):  # no control that re-reads has at most the compute of the mixture
        write_control(tmp_path, f'weaker{epochs}', 0.8, [[0.8, 0.2]], epochs=epochs)
    rows, _ = rows_of(tmp_path)
    row, weak = rows['mix', 'en2'], rows['weak', 'en2']
    assert weak['reread_control'] == '' and weak['gain'] is None
    assert (row['control'], row['reread_control']) == ('x0', 'x10')
    assert row['gain'] == pytest.approx(0.5, rel=0.02) and row['gain_nats'] < 0
    assert row['transfer'] == pytest.approx(2 / 1.2, rel=0.02)
    # a monolingual run on as many tokens is a control, and better than the step-matched one
    assert weak['control'] == 'the law' and weak['control_ppl'] == weak['mlpe']
    assert weak['transfer'] == weak['teff'] == pytest.approx(0.97, rel=0.01)
    assert weak['control_teff'] == 1 and weak['control_teff_interval'] is None
    assert weak['transfer_nats'] == pytest.approx(math.log(weak['mlpe'] / weak['ppl']))


APART = [dict(more=dict(test='ab')), dict(more=dict(windows=64)), dict(more=dict(last_n=8))]
APART += [dict(more=dict(tokenizer='ff')), dict(model=SMALL | dict(n_embd=512))]
APART += [dict(batch_size=64), dict(lr_schedule='wsd'), dict(warmup_steps=50)]


@pytest.mark.parametrize(
    'change, has_law, controls',
    [
        *((change, False, 1) for change in (*APART, dict(weight_decay=0.1))),
        (dict(learning_rate=1e-3), False, 2),  # controls have rates of their own
        (dict(max_steps=9132), True, 1),
        (dict(stages=[[0.8, 0.2]]), True, 1),
    ],
)
def test_runs_made_or_scored_in_another_way_are_not_compared(tmp_path, change, has_law, controls):
    write_mono(tmp_path, SIX)
    write_mix(tmp_path, **change)
    write_control(tmp_path, 'own', 1.6, **change)
    write_control(tmp_path, 'other', 1.4)
    row = rows_of(tmp_path)[0]['mix', 'en2']
    assert (row['teff'] is not None) == has_law and (row['note'] or has_law)
    assert (row['control'], row['controls_tried']) == ('own', controls)


@pytest.mark.parametrize('best, noise_from', [(0.8, 'residuals'), (1.6, 'replicates')])
def test_only_the_best_control_counts_for_the_noise(tmp_path, monkeypatch, best, noise_from):
    write_mono(tmp_path, SIX)
    write_mix(tmp_path)
    write_control(tmp_path, 'one_seed', 1.2, learning_rate=3e-4)
    for seed, error in enumerate((0.9, 1.0, 1.1)):
        about = dict(seed=seed, learning_rate=2e-3)
        write_control(tmp_path, f'three_{seed}', best * error, **about)
    rows, [law] = rows_of(tmp_path)
    assert rows['mix', 'en2']['control'] == ('one_seed' if best < 1.2 else 'three_0')
    assert law.noise_from == noise_from
    least = rows['mix', 'en2']['tokens_seen'] + 1  # nor do results below least_tokens
    monkeypatch.setattr(fit_scaling, 'least_tokens', least)
    assert rows_of(tmp_path)[1][0].noise_from != 'replicates'


def test_an_order_of_text_has_a_law_and_controls_of_its_own(tmp_path):
    write_mono(tmp_path, SIX)
    reverse = dict(orders=['', 'reversed'])
    write_mix(tmp_path, **reverse)
    write_control(tmp_path, 'first', 1.5, only='en1')
    write_control(tmp_path, 'second', 1.5)
    rows, laws = rows_of(tmp_path)
    assert sorted(len(law.runs) for law in laws) == [0, 6]
    assert rows['mix', 'en1']['control'] == 'first'  # whose order is that of the mixture's en1
    assert rows['mix', 'en2']['control'] == '' and rows['mix', 'en2']['teff'] is None
    write_control(tmp_path, 'reverse', 1.2, **reverse)
    assert rows_of(tmp_path)[0]['mix', 'en2']['control'] == 'reverse'


def test_a_language_added_to_a_trained_model_is_no_monolingual_run(tmp_path):
    write_mono(tmp_path, SIX)
    for name, teff in (('one', 2.0), ('other', 1.5)):
        added = dict(train_only='en2', init_from=f'out/{name}', max_steps=1826)
        write_mix(tmp_path, name, teff, [[0.0, 1.0]], **added)
    rows, [law] = rows_of(tmp_path)
    assert len(law.runs) == 6
    assert rows['one', 'en2']['teff'] == pytest.approx(2, rel=0.1)
    assert rows['other', 'en2']['teff'] == pytest.approx(1.5, rel=0.1)


def test_runs_that_differ_in_their_seed_are_pooled(tmp_path):
    write_mono(tmp_path, SIX, noise=0, documents=DOCUMENTS)
    errors = 0.03, -0.01, -0.02
    for seed, error in enumerate(errors):
        more = dict(hits=[seed], fixed=[1], accuracy=seed)  # of a user's own metric
        read = {'tokens_read': seed} if seed else {}  # older runs lack it
        about = dict(seed=seed, documents=DOCUMENTS, more=more | read)
        write_run(tmp_path, f'mix_{seed}', NINETY, equivalent(2.0, error), **about)
    [mix] = [run for run in load_runs(tmp_path) if run['run'].startswith('mix')]
    assert mix['seeds'] == [0, 1, 2]
    pooled = mix['languages']['en2']
    assert [pooled[name] for name in more] == [None, [1], 1] and pooled['tokens_read'] > 1
    assert math.log(pooled['ppl']) == pytest.approx(pooled['document_loss'].sum() / 40)
    rows, [law] = rows_of(tmp_path)
    row = rows['mix_0', 'en2']
    assert row['seeds'] == 3 and len(rows) == 8
    assert (law.noise_from, law.dof) == ('replicates', 2)
    assert law.noise == pytest.approx(np.std(errors, ddof=1))
    assert row['teff_interval'][0] < 2 < row['teff_interval'][1]


OLD = dict(start_entries='', start_noise=0.3, trainable='all', parallel_epochs=False)
OLD |= dict(only='', orders=[], loss_weights=[], warmup_fraction=0.0, decay_fraction=0.2)
SAME = [*({name: value} for name, value in OLD.items()), OLD, dict(orders=['', '']), dict(size='x')]
OTHER = [dict(weight_decay=0.1), dict(parallel_epochs=True), dict(orders=['', 'reversed'])]
OTHER += [dict(loss_weights=[0.5, 0.5]), dict(init_embeddings='spelling')]
OTHER += [dict(start_entries='clones'), dict(trainable='en2', init_from='a')]
ADDED = dict(start_entries='clones', start_noise=0.1, trainable='en2', init_from='a')
RENAMED = dict(init_embeddings='spelling', init_noise=0.1, train_only='en2', init_from='a')
DECAY = dict(lr_schedule='wsd', decay_fraction=0.1)


@pytest.mark.parametrize(
    'first, second, count',
    [
        *(({}, change, 1) for change in SAME),  # of no effect, or the default
        *(({}, change, 2) for change in OTHER),
        (ADDED, RENAMED, 1),
        (DECAY, DECAY | dict(decay_fraction=0.3), 2),
    ],
)
def test_settings_keep_runs_apart_by_their_effect(tmp_path, first, second, count):
    write_mix(tmp_path, 'a', **first)
    write_mix(tmp_path, 'b', **second)
    assert len(load_runs(tmp_path)) == count


def test_copies_of_runs_change_nothing(tmp_path, capsys):
    write_mono(tmp_path, SIX, out_dir='a', device='cpu')
    write_mix(tmp_path)
    write_control(tmp_path, 'mix-only_en2', 1.5)
    once, [law] = rows_of(tmp_path)
    assert 'copies' not in capsys.readouterr().out
    about = dict(corpora=['books_en'], languages=['english'], out_dir='b', device='cuda')
    again = equivalent(1, math.log(0.99))
    write_run(tmp_path, 'again', [[1]], again, final_windows=7, **about)
    write_mix(tmp_path, 'zz_mix', out_dir='c', init_from='trunk')
    write_control(tmp_path, 'zz_alone', 1.5, cloned_fraction=0.5)
    copied, [same_law] = rows_of(tmp_path)
    assert 'zz_mix (of mix)' in capsys.readouterr().out
    assert law.dof == same_law.dof == 3
    apart = dict(run='', settings='', controls_tried='', language='')
    for key, row in once.items():
        other = copied[('again', 'english') if key[0] == 'mono_books_en_5' else key]
        assert row | apart == other | apart


def test_runs_of_one_test_document_or_of_older_versions_are_read(tmp_path):
    write_mono(tmp_path, SIX)  # without documents
    unknown = dict(document_loss=[math.nan, 1], document_tokens=[3, 3])
    write_mix(tmp_path, 'nan', more=unknown)
    single = dict(document_loss=[30.0], document_tokens=[9], ppl_se=None, epochs=2.5)
    write_mix(tmp_path, 'single', more=single, max_steps=18000)
    two = dict(document_loss=[30.0, 20.0], document_tokens=[9, 6], ppl_se=math.nan)
    write_mix(tmp_path, 'old', more=two, seed=1)
    write_mix(tmp_path, 'torn', more=dict(document_loss=[1.0], document_tokens=[3, 3]), seed=3)
    rows, _ = rows_of(tmp_path)
    assert {run for run, _ in rows if 'mono' not in run} == {'nan', 'single'}
    for name in ('nan', 'single'):
        assert rows[name, 'en2']['teff_interval'] and rows[name, 'en2']['note']
    assert rows['single', 'en2']['ppl_se'] is None and '2.50 times' in rows['single', 'en2']['note']


def test_least_tokens_is_proposed_where_it_leaves_a_power_law(tmp_path, monkeypatch):
    budgets = *TWELVE, 1.5, 2.0, 3.0
    write_mono(tmp_path, budgets, law=transition, noise=0)
    write_mix(tmp_path)
    rows, [law] = rows_of(tmp_path)
    assert 0.3 * UNIT < law.holds_from <= UNIT and rows['mix', 'en2']['budgets'] == len(budgets)
    assert f'--least_tokens={law.holds_from:.0f}' in fit_scaling.describe(law)
    monkeypatch.setattr(fit_scaling, 'least_tokens', round(law.holds_from))
    rows, [law] = rows_of(tmp_path)
    assert isinstance(law.curve, PowerLaw) and law.misfit < 0.01 and law.holds_from == 0
    assert 5 <= rows['mix', 'en2']['budgets'] == len(law.runs) < len(budgets)
    assert rows['mono_books_en_0', 'en']['teff'] == 1  # still a row


def test_runs_of_the_paper_are_recognised_by_their_setup(tmp_path):
    fr = dict(corpora=['books_en', 'books_fr'], languages=['en', 'fr'])
    anchored, reversed_ = dict(fr, vocabulary='anchored'), [[0.9, 0.1], [0.1, 0.9]]
    ten = dict(corpora=['books_en'] * 10, languages=[f'en{i + 1}' for i in range(10)])
    both = ['Table 1 row 1', 'Table 3 row 1']
    changes = [dict(vocabulary='anchored'), dict(cloned_fraction=0.9), dict(lr_schedule='wsd')]
    changes += [dict(model=SMALL | dict(n_layer=4, n_embd=512)), *OTHER]
    for number, (stages, more, expected) in enumerate(
        (
            (NINETY, {}, ['Table 1 row 5']),
            *((NINETY, change, []) for change in changes),
            ([[0.85, 0.15]], {}, []),
            (NINETY, dict(max_steps=36530), ['Figure 2 2x']),
            (reversed_, {}, ['Table 1 row 9']),
            ([[0.1] * 10], ten, ['Table 1 row 6']),
            ([[0.5] + [0.5 / 9] * 9], ten, ['Table 1 row 7']),
            (NINETY, fr, ['Table 3 row 8']),
            (NINETY, anchored, ['Table 3 row 12']),
            ([*reversed_, [0.5, 0.5], [0.5, 0.5]], anchored, ['Table 3 row 15']),
            ([[1.0]], dict(corpora=['books_en'], languages=['en']), both),
            ([[0.0, 1.0]], dict(fr, max_steps=9132), ['Table 3 row 5']),
        )
    ):
        written = write_run(tmp_path, f'run{number}', stages, lambda seen, i: 20.0, **more)
        assert [theirs.name for theirs in paper_runs_of(written)] == expected


def test_a_language_is_known_by_whole_words():
    names = [('en1', 'docs'), ('l1', 'eltec_eng'), ('a', 'french'), ('trench', 'docs')]
    assert [kind_of(*words) for words in names] == ['en', 'en', 'fr', '']


@pytest.mark.parametrize('other', [{}, dict(seed=1), dict(only='en2')])
@pytest.mark.parametrize('code', [{}, dict(commit='abcdefabcdef'), dict(dirty=True)])
def test_different_or_edited_code_is_named_of_seeds_and_controls_too(tmp_path, capsys, other, code):
    results = write_run(tmp_path, 'mix', NINETY, lambda seen, i: 20.0)
    if other:
        results = write_run(tmp_path, 'other', NINETY, lambda seen, i: 19.0, **other)
    (tmp_path / results['run'] / 'results.json').write_text(json.dumps(results | code))
    fit_scaling.scale(tmp_path)
    named = '01234567 and edits' if code.get('dirty') else 'abcdefab'
    differs = code and (other or 'dirty' in code)
    assert (named in capsys.readouterr().out) == bool(differs)


def test_the_table_counts_the_languages_without_a_control_that_the_mixture_saw(tmp_path):
    names = dict(languages=['a', 'b', 'c'], corpora=['a', 'b', 'c'])
    write_run(tmp_path, 'pair', [[0.5, 0.5, 0.0]], lambda seen, i: 20.0, **names)
    text = fit_scaling.table_text(analyse(load_runs(tmp_path))[1])
    assert re.search(r'^(\d+) of (\d+) ', text, re.M).groups() == ('2', '2')
