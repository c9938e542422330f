"""The transfer law: what was put into simulated runs comes back out of their files."""

import json
import math

import numpy as np
import pytest
from conftest import refused, script
from test_fit_scaling import EN, SIXTEEN, transition, write_mono, write_run

import transfer_law
from fit_scaling import PowerLaw, load_paper_laws
from runs import load_runs
from transfer_law import FORMS, Data, collect, fitted, log_perplexity

STEPS_ALONE = 1.5  # what more steps are worth in the simulations: MLTE of a control / its tokens
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5)


def linear(own, others, tau=0.3):
    return own + sum(tau * other for other in others)


def write_mixes(
    folder, effective, shares=SHARES, noise=0.003, laws=(EN,) * 3, controls=(0, 1), seed=0, **more
):
    """Runs of two languages at each share of the second (or of the shares given), and controls.

    effective: (own tokens, [others' tokens], index of the language) -> effective tokens."""
    rng = np.random.default_rng(seed)
    names = more.setdefault('languages', ('en1', 'en2'))

    def ppl(tokens, i):
        return laws[i].ppl(STEPS_ALONE * tokens) * math.exp(noise * rng.standard_normal())

    def in_mix(row):
        total = [18265 * 128 * 512 * share for share in row]
        return lambda own, i: ppl(effective(own, total[:i] + total[i + 1 :], i), i)

    for share in shares:
        row = share if isinstance(share, list) else [1 - share, share]
        name = 'mix_' + '_'.join(f'{p:g}' for p in row)
        write_run(folder, name, [row], in_mix(row), **more)
        for i in controls:
            control = f'{name}-only_{names[i]}'
            write_run(folder, control, [row], ppl, only=names[i], **more)


def laws_of(folder):
    return [fitted(setup) for setup in collect(load_runs(folder)).values()]


def clones(folder, effective, **more):
    write_mono(folder, SIXTEEN, noise=0.003)
    write_mixes(folder, effective, **more)
    [result] = laws_of(folder)
    return result


def left_out(result):
    return {entry['form']: entry['left_out_error'] for entry in result['forms']}


OWN, TAU, POWERS = FORMS.values()


def test_tau_of_each_direction_comes_back_within_its_interval(tmp_path):
    result = clones(tmp_path, lambda own, others, i: linear(own, others, (0.6, 0.3)[i]))
    pairs = {(pair['receiver'], pair['giver']): pair for pair in result['pairs']}
    assert pairs.keys() == {('en1', 'en2'), ('en2', 'en1')} and not result['pooled']
    for receiver, giver, tau in (('en1', 'en2', 0.6), ('en2', 'en1', 0.3)):
        low, high = pairs[receiver, giver]['tau_interval']
        assert low < tau < high and high - low < 0.2
    errors = left_out(result)
    assert min(errors, key=errors.get) == TAU
    low, high = result['alpha_interval']
    assert low < 0 < high and result['beta_interval'][0] < 1 < result['beta_interval'][1]
    assert {point['mix'] for point in result['points']} >= {'95/5', '50/50'}


def test_without_transfer_0_is_in_the_intervals(tmp_path):
    result = clones(tmp_path, lambda own, others, i: own)
    for pair in result['pairs']:
        assert pair['tau'] == pytest.approx(0, abs=0.1)
        for name in ('tau', 'k'):
            assert pair[f'{name}_interval'][0] < 0 < pair[f'{name}_interval'][1]
    assert all(point['transfer'] == pytest.approx(1, abs=0.1) for point in result['points'])


def test_without_transfer_own_tokens_predict_left_out_mixes_best(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer_law, 'bootstrap', lambda *_: None)
    errors = []
    for seed in range(6):
        errors.append(left_out(clones(tmp_path / str(seed), lambda own, _, i: own, seed=seed)))
    means = {form: np.mean([each[form] for each in errors]) for form in FORMS.values()}
    assert min(means, key=means.get) == OWN


def test_languages_that_cost_tokens_have_a_tau_below_0(tmp_path):
    result = clones(tmp_path, lambda own, others, i: linear(own, others, -0.03))
    [pair] = [pair for pair in result['pairs'] if pair['receiver'] == 'en2']
    assert pair['tau'] == pytest.approx(-0.03, abs=0.01) and pair['tau_interval'][1] < 0


def test_powers_of_own_and_other_tokens_come_back_and_predict_best(tmp_path):
    k, alpha, beta = 0.4, 0.35, 0.65  # together 1, so that k has no unit

    def effective(own, others, i):
        return own + k * own**alpha * others[0] ** beta

    result = clones(tmp_path, effective, noise=0.001, shares=(0.02, *SHARES))
    for name, truth in (('alpha', alpha), ('beta', beta)):
        low, high = result[f'{name}_interval']
        assert low < truth < high and high - low < 0.6
        assert result[name] == pytest.approx(truth, abs=0.2)
    for pair in result['pairs']:
        assert pair['k'] == pytest.approx(k, abs=0.05)
        assert pair['k_interval'][0] < k < pair['k_interval'][1]
    errors = left_out(result)
    assert errors[POWERS] < 0.5 * errors[TAU] < errors[OWN]


def test_runs_that_do_not_follow_the_form_widen_its_interval(tmp_path):
    def crooked(own, others, i):
        return linear(own, others) * (1.3 if own < others[0] / 3 else 1)

    write_mono(tmp_path, SIXTEEN, noise=0.003)
    straight, bent = tmp_path / 'straight', tmp_path / 'bent'
    widths = []
    for folder, effective in (
        (straight, lambda own, others, i: linear(own, others)),
        (bent, crooked),
    ):
        low, high = clones(folder, effective)['pairs'][1]['tau_interval']
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_clones_that_cannot_be_told_apart_count_as_one_language(tmp_path):
    shares = [[0.8, 0.101, 0.099], [0.5, 0.249, 0.251], [0.2, 0.402, 0.398]]  # as drawn
    names = ('en1', 'en2', 'en3')
    more = dict(corpora=['books_en'] * 3, languages=names, controls=(0, 1, 2), shares=shares)
    result = clones(tmp_path, lambda own, others, i: linear(own, others), **more)
    assert result['pooled'] and len(result['points']) == 9
    [pair] = result['pairs']
    assert (pair['receiver'], pair['giver']) == ('books_en', 'books_en')
    assert pair['tau_interval'][0] < 0.3 < pair['tau_interval'][1]
    assert 'languages of one text count as one' in transfer_law.text_of(result)


def test_three_languages_have_a_matrix_of_tau(tmp_path):
    truth = np.array([[0, 0.3, 0.1], [0.2, 0, -0.05], [0.1, 0.15, 0]])
    french, german = load_paper_laws()['fr'], PowerLaw(0.05, 0.2, 0.1)
    write_mono(tmp_path / 'out', SIXTEEN, noise=0.003)
    write_mono(tmp_path / 'out', SIXTEEN, corpus='books_fr', law=french, noise=0.003)
    write_mono(tmp_path / 'out', SIXTEEN, corpus='books_de', law=german, noise=0.003)
    write_mixes(
        tmp_path / 'out',
        lambda own, others, i: own + np.delete(truth[i], i) @ others,
        shares=[
            [0.6, 0.3, 0.1],
            [0.1, 0.6, 0.3],
            [0.3, 0.1, 0.6],
            [0.8, 0.1, 0.1],
            [0.4, 0.4, 0.2],
        ],
        laws=(EN, french, german),
        corpora=['books_en', 'books_fr', 'books_de'],
        languages=('en', 'fr', 'de'),
        controls=(0, 1, 2),
    )
    done = script('fit_scaling', '--study=transfer', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [result] = json.loads((tmp_path / 'out' / 'transfer_law.json').read_text())
    assert len(result['pairs']) == 6
    for pair in result['pairs']:
        place = (('en', 'fr', 'de').index(pair[side]) for side in ('receiver', 'giver'))
        assert pair['tau'] == pytest.approx(truth[tuple(place)], abs=0.05)
    assert (tmp_path / 'out' / 'transfer_law.png').read_bytes().startswith(b'\x89PNG')
    assert 'own + tau * other' in done.stdout and 'in left-out mixes' in done.stdout


def test_too_few_controls_are_refused_with_the_runs_that_are_missing(tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    refused(script('fit_scaling', '--study=transfer', cwd=tmp_path), 'no run of two languages')
    write_mixes(out, lambda own, others, i: own, controls=())
    refused(
        script('fit_scaling', '--study=transfer', cwd=tmp_path),
        '10 (no law: a scaling law needs monolingual runs',
    )
    write_mono(out, SIXTEEN)
    done = script('fit_scaling', '--study=transfer', cwd=tmp_path)
    missing = 'python train.py CONFIG --only=en2 for mix_0.5_0.5 (50/50), mix_0.65_0.35 (65/35)'
    refused(done, 'transfer law of en2 needs controls of at least 3 mixes', '0 (none)', missing)


def test_two_mixes_are_too_few_and_other_ratios_are_asked_for(tmp_path):
    write_mono(tmp_path, SIXTEEN)
    write_mixes(tmp_path, lambda own, others, i: own, shares=(0.1, 0.3))
    [setup] = collect(load_runs(tmp_path)).values()
    with pytest.raises(ValueError, match=r'has those of 2 \(70/30, 90/10\); train mixes of other'):
        fitted(setup)


def test_a_language_whose_controls_are_missing_is_named_beside_the_law_of_the_other(tmp_path):
    result = clones(tmp_path, lambda own, others, i: linear(own, others), controls=(1,))
    assert [pair['receiver'] for pair in result['pairs']] == ['en2']
    assert result['left_out'] == {'no control': 5}
    assert result['problems'][0].startswith('the transfer law of en1 needs controls')
    assert '5 (no control)' in transfer_law.text_of(result)


def test_a_run_whose_mix_changes_or_whose_knobs_are_turned_does_not_enter_the_law(tmp_path):
    write_mono(tmp_path, SIXTEEN, noise=0.003)
    write_mixes(tmp_path, lambda own, others, i: linear(own, others), controls=(1,))
    for only in ('', 'en2'):
        changes, start = [[1.0, 0.0], [0.0, 1.0]], dict(start_entries='en1')
        write_run(tmp_path, f'changes_{only}', changes, lambda own, i: 40.0, only=only)
        write_run(tmp_path, f'start_{only}', [[0.9, 0.1]], lambda own, i: 40.0, only=only, **start)
    first, second = collect(load_runs(tmp_path)).values()
    assert first['left_out'] == {'no control': 5, 'the mix changes': 2}
    assert len(first['points']) == 5 and 'start' not in first['label']
    assert len(second['points']) == 1 and second['label'].endswith('start_entries en1')


def test_languages_whose_monolingual_runs_follow_no_power_law_are_left_out(tmp_path):
    for i in range(11):
        lone = dict(corpora=['books_en'], languages=['en'], steps=1500 + 1500 * i)
        write_run(tmp_path, f'alone_{i}', [[1.0]], lambda seen, _: transition(seen), **lone)
    write_mixes(tmp_path, lambda own, others, i: own)
    [setup] = collect(load_runs(tmp_path)).values()
    assert setup['left_out'] == {'its monolingual runs follow no power law': 10}
    with pytest.raises(ValueError, match='no run can be used: 10'):
        fitted(setup)


def test_a_run_beyond_the_reach_of_the_law_stays_in_the_fit(tmp_path):
    write_mono(tmp_path, SIXTEEN, noise=0.003)
    write_mixes(tmp_path, lambda own, others, i: linear(own, others), controls=(1,))
    path = tmp_path / 'mix_0.95_0.05' / 'results.json'
    run = json.loads(path.read_text())
    run['languages']['en2']['ppl'] = 0.99 / EN.c  # which no number of tokens reaches
    path.write_text(json.dumps(run))
    [result] = laws_of(tmp_path)
    [far] = [point for point in result['points'] if point['run'] == path.parent.name]
    assert far['transfer'] == math.inf and math.isfinite(result['pairs'][0]['tau'])
    transfer_law.draw([result], tmp_path / 'law.png')


def test_without_known_run_noise_there_are_no_intervals_and_the_table_says_why(tmp_path):
    write_mono(tmp_path, [0.1, 0.25, 0.5, 1.0])
    write_mixes(tmp_path, lambda own, others, i: linear(own, others))
    [result] = laws_of(tmp_path)
    assert [pair['tau_interval'] for pair in result['pairs']] == [None, None]
    assert 'two degrees of freedom' in transfer_law.text_of(result)


@pytest.mark.parametrize('form, theta', [('tau', [0.3, -0.1]), ('k', [0.3, -0.1, 0.2, 0.7])])
def test_derivatives_of_the_law_are_those_of_small_steps(form, theta):
    rng = np.random.default_rng(0)
    other = rng.uniform(0.1, 2, (5, 2)) * [[1, 0], [1, 0], [0, 1], [1, 1], [1, 1]]
    data = Data(
        rng.uniform(0.1, 2, 5),
        other,
        rng.uniform(0.1, 1, 5),
        *np.outer([EN.a, EN.b, EN.c], [1] * 5),
        0,
    )
    theta = np.array(theta)
    _, derivatives = log_perplexity(theta, form, data)
    for i, step in enumerate(1e-6 * np.eye(len(theta))):
        up, down = (log_perplexity(theta + sign * step, form, data)[0] for sign in (1, -1))
        assert derivatives[:, i] == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-9)
