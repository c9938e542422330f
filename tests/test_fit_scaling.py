"""Scaling laws: known laws and transfers come back, the paper's TEff come out, intervals cover."""

import csv
import json
import math

import numpy as np
import pytest
from conftest import refused, script
from interval_coverage import study_coverage

import fit_scaling
from fit_scaling import (
    UNIT,
    PowerLaw,
    analyse,
    fit_power_law,
    law_of,
    load_paper_laws,
    measure,
    recompute_paper,
)
from lib.paper import kind_of, load_paper_runs, paper_rows
from lib.runs import load_runs, stray_controls

FOUR = [0.1, 0.25, 0.5, 1.0]
SIXTEEN = [
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.85,
    0.9,
    0.95,
    1,
    1.5,
    2,
    3,
]  # the paper's own
EN = PowerLaw(0.0386839, 0.20725333, 0.08406525)


@pytest.mark.parametrize(
    'law',
    [
        EN,
        PowerLaw(0.05686383, 0.19327436, 0.11919068),
        PowerLaw(0.004, 0.8, 0.05),
        PowerLaw(0.0001, 2, 0.05),
        PowerLaw(0.3, 0.03, 0.36),
        PowerLaw(0.006, 0.4, 0.03, 5e6),
    ],
)
@pytest.mark.parametrize('fractions', [FOUR, SIXTEEN])
def test_a_law_is_recovered_from_its_own_points(law, fractions):
    tokens = np.array(fractions) * law.unit
    fitted = fit_power_law(tokens[::-1], law.ppl(tokens[::-1]), unit=law.unit)
    assert [fitted.a, fitted.b, fitted.c] == pytest.approx([law.a, law.b, law.c], rel=1e-6)


def test_the_unit_changes_a_and_nothing_else():
    tokens = np.array(FOUR) * UNIT
    ppl = EN.ppl(tokens) * [1.01, 0.98, 1.02, 0.99]
    in_units, in_tokens = fit_power_law(tokens, ppl), fit_power_law(tokens, ppl, unit=1)
    assert in_tokens.b == pytest.approx(in_units.b) and in_tokens.a != pytest.approx(in_units.a)
    assert in_tokens.ppl(3e8) == pytest.approx(in_units.ppl(3e8))
    assert in_tokens.tokens(30) == pytest.approx(in_units.tokens(30))


def test_no_other_law_has_a_smaller_error_in_one_over_ppl():
    rng = np.random.default_rng(1)
    tokens = np.array(SIXTEEN) * UNIT
    ppl = EN.ppl(tokens) * (1 + 0.02 * rng.standard_normal(16))
    fitted = fit_power_law(tokens, ppl)

    def error(a, b, c):
        return ((1 / ppl - c + a * (tokens / UNIT) ** -b) ** 2).sum()

    least = error(fitted.a, fitted.b, fitted.c)
    for step in rng.normal(0, 1e-3, (200, 3)):
        assert error(*(np.array([fitted.a, fitted.b, fitted.c]) * (1 + step))) > least


def test_tokens_and_ppl_undo_each_other_for_numbers_and_arrays():
    tokens = np.array([1e8, 3e8, 5e9])
    assert EN.tokens(EN.ppl(tokens)) == pytest.approx(tokens)
    assert isinstance(EN.ppl(1e9), float) and isinstance(EN.tokens(30), float)
    assert EN.ppl(UNIT) == pytest.approx(1 / (0.08406525 - 0.0386839))


def test_a_perplexity_below_the_law_takes_infinitely_many_tokens():
    assert EN.tokens(1 / EN.c * 0.999) == math.inf
    assert EN.tokens(1 / EN.c * 1.001) < math.inf
    assert list(np.isinf(EN.tokens(np.array([5.0, 20.0])))) == [True, False]
    assert EN.ppl(1.0) == math.inf  # one token: 1/PPL would be below 0
    assert 0 < EN.tokens(9e10) < 0.05 * UNIT  # Table 1 row 8


@pytest.mark.parametrize(
    'tokens, ppl, words',
    [
        ([1e8, 1e9], [50, 20], ['3 budgets', 'there are 2', '100M, 1B']),
        ([1e8, 1e8, 1e8, 1e9], [50, 51, 49, 20], ['3 budgets', 'there are 2']),
        ([], [], ['3 budgets', 'none']),
        ([1e8, 3e8, 1e9], [50, math.nan, 20], ['finite']),
        ([1e8, 3e8, 1e9], [50, math.inf, 20], ['finite']),
        ([1e8, 3e8, 1e9], [50, -30, 20], ['above zero']),
        ([0, 3e8, 1e9], [50, 30, 20], ['above zero']),
        ([1e8, 3e8], [50, 30, 20], ['one perplexity']),
        ([1e8, 3e8, 1e9], [20, 30, 50], ['does not fall']),
        ([1e8, 3e8, 1e9], [20, 20, 20], ['does not fall']),
        ([1e8, 2e8, 4e8, 8e8, 1e9], [50, 70, 70, 90, 49.9], ['does not fall']),
        ([1e8, 3e8, 5e8, 1e9], [50, 20, 20, 20], ['stops falling']),
    ],
)
def test_runs_that_determine_no_law_are_refused_with_a_reason(tokens, ppl, words):
    with pytest.raises(ValueError) as error:
        fit_power_law(tokens, ppl)
    for word in words:
        assert word in str(error.value)


def test_runs_without_levelling_off_still_have_a_law_between_their_budgets():
    tokens = np.array([160, 400, 800, 1600]) * 4096  # 1/PPL rises faster than log tokens
    law = fit_power_law(tokens, [159, 94, 77, 54])
    assert law.b == pytest.approx(0.01)
    assert law.ppl(tokens) == pytest.approx([159, 94, 77, 54], rel=0.25)
    assert np.all(np.diff(law.ppl(np.geomspace(tokens[0], 4 * tokens[-1], 50))) < 0)


def test_every_teff_of_the_paper_follows_from_its_perplexity():
    rows = recompute_paper()
    rounded = [row for row in rows if row['name'] in ('Table 3 row 19', 'Table 3 row 20')]
    exact = [row for row in rows if row not in rounded and not row['monolingual']]
    assert len(rounded) == 4 and len(exact) == 52
    assert all(abs(row['difference']) < 0.002 for row in exact)
    assert (
        max(abs(row['difference']) for row in exact) < 1e-4
    )  # far closer than asked, so the laws are the paper's
    assert all(abs(row['difference']) < 0.01 for row in rounded)


def test_a_scheduled_run_counts_the_tokens_it_saw_of_a_language():
    runs = {row['name']: row for row in load_paper_runs()}
    seen = {
        name: [language['tokens_seen'] for language in row['languages']]
        for name, row in runs.items()
    }
    assert seen['Table 1 row 8'] == pytest.approx([UNIT / 2, UNIT / 2])
    assert seen['Table 3 row 16'] == pytest.approx([UNIT / 2, UNIT / 2])
    assert seen['Table 1 row 7'] == pytest.approx([UNIT / 2, UNIT / 18], rel=1e-5)
    assert seen['Figure 2 2x'] == pytest.approx([1.8 * UNIT, 0.2 * UNIT])
    assert len(runs['Table 1 row 7']['stages'][0]) == 10


# intervals

SIX = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0]


def result(ppl, tokens, errors=(0.0,), seeds=(0.0,)):
    """A result whose log perplexity has an error for each document and for each seed."""
    log_ppl = [math.log(ppl) + np.mean(errors) + error for error in seeds]
    return dict(
        tokens_seen=tokens,
        ppl=math.exp(np.mean(log_ppl)),
        log_ppl=log_ppl,
        document_loss=np.mean(log_ppl) - np.mean(errors) + np.array(errors),
        document_tokens=np.ones(len(errors)),
    )


def law_with_noise(fractions, noise, errors=(0.0,), seeds=(0.0,)):
    signs = np.resize([1, -1, -1, 1], len(fractions))
    results = [
        result(EN.ppl(f * UNIT) * (1 + noise * sign), f * UNIT, errors, seeds)
        for f, sign in zip(fractions, signs)
    ]
    return law_of(results, [[r['log_ppl']] for r in results])


def width(interval):
    return math.log(interval[1] / interval[0])


def test_ninety_percent_intervals_hold_the_truth_as_often_as_they_say():
    text, failed = study_coverage(datasets=400)
    shares = [
        float(word.rstrip('%')) for line in text.splitlines()[1:] for word in line.split()[-2:]
    ]
    assert not failed and len(shares) == 16
    assert (
        87 < np.mean(shares) < 93
    )  # of 6,400 intervals; single lines have a binomial error of 1.5
    assert max(shares) < 100


def test_the_coverage_study_fails_where_intervals_ignore_run_noise(monkeypatch):
    monkeypatch.setattr(
        fit_scaling,
        'error_draws',
        lambda result, noise, rng: 0.3 * noise * rng.standard_normal(len(noise)),
    )
    _, failed = study_coverage(datasets=40, draws=200)
    assert len(failed) > 4


def test_an_error_of_documents_that_all_runs_share_cancels():
    evaluated = dict(ppl=EN.ppl(0.2 * UNIT), tokens=0.1 * UNIT)
    errors = np.random.default_rng(0).normal(0, 0.5, 40)  # of the whole test set: 8%
    sure = measure(law_with_noise(SIX, 0.001), result(**evaluated))
    shared = measure(law_with_noise(SIX, 0.001, errors), result(**evaluated, errors=errors))
    assert width(shared['teff_interval']) == pytest.approx(width(sure['teff_interval']), rel=0.1)
    assert width(shared['mlpe_interval']) > 10 * width(sure['mlpe_interval'])  # no comparison
    own = measure(law_with_noise(SIX, 0.001, errors), result(**evaluated, errors=errors[::-1]))
    assert width(own['teff_interval']) > 10 * width(sure['teff_interval'])


def test_noise_of_runs_widens_the_intervals_of_teff_and_transfer():
    evaluated, control = (
        result(EN.ppl(0.2 * UNIT), 0.1 * UNIT),
        result(EN.ppl(0.15 * UNIT), 0.1 * UNIT),
    )
    quiet, loud = (
        measure(law_with_noise(SIX, noise), evaluated, control) for noise in (0.002, 0.02)
    )
    assert quiet['transfer'] == pytest.approx(0.2 / 0.15, rel=0.02)
    for name in ('mlpe', 'mlte', 'teff', 'control_teff', 'transfer'):
        low, high = quiet[f'{name}_interval']
        assert low < quiet[name] < high
        assert width(loud[f'{name}_interval']) > 4 * width((low, high))
    assert quiet == measure(law_with_noise(SIX, 0.002), evaluated, control)  # the same each time


def test_more_seeds_of_the_evaluated_run_narrow_its_interval():
    law = law_with_noise(SIXTEEN, 0.02)
    one, four = (
        measure(law, result(EN.ppl(0.2 * UNIT), 0.1 * UNIT, seeds=[0.0] * n)) for n in (1, 4)
    )
    assert width(four['teff_interval']) < 0.75 * width(one['teff_interval'])


def test_noise_comes_from_replicates_else_from_residuals_else_there_is_none():
    pair = (0.01, -0.01)  # variance 2e-4
    law = law_with_noise(FOUR, 0.0, seeds=pair)
    assert (law.noise_from, law.dof, law.noise) == ('replicates', 4, pytest.approx(math.sqrt(2e-4)))
    law = law_with_noise(SIX, 0.01)
    assert (law.noise_from, law.dof) == ('residuals', 3) and 0.005 < law.noise < 0.03
    law = law_with_noise(FOUR, 0.01)
    assert (law.noise_from, law.dof, law.draws) == ('', 0, None)
    assert measure(law, result(30.0, 1e8))['teff_interval'] is None


def test_runs_that_follow_no_power_law_widen_the_interval():
    pair = (0.001, -0.001)
    evaluated = result(EN.ppl(0.2 * UNIT), 0.1 * UNIT)
    straight, crooked = (
        measure(law_with_noise(SIX, off, seeds=pair), evaluated) for off in (0, 0.05)
    )
    assert width(crooked['teff_interval']) > 5 * width(straight['teff_interval'])


def transition(tokens):
    """Perplexity that halves between 0.2 and 0.4 units, as where context comes into use."""
    return 20 * (tokens / UNIT) ** -0.1 * (1 + 1 / (1 + (tokens / UNIT / 0.28) ** 8))


def law_of_transition(seeds=(0.001, -0.001)):
    budgets = [f * UNIT for f in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)]
    results = [result(transition(tokens), tokens, seeds=seeds) for tokens in budgets[::-1]]
    return law_of(results, [[r['log_ppl']] for r in results])


def test_runs_with_a_transition_are_measured_by_the_lines_between_them():
    law = law_of_transition()
    assert isinstance(law, fit_scaling.Interpolation) and law.misfit > 0.05
    assert law.noise_from == 'replicates' and 'lines between 11 runs' in fit_scaling.describe(law)
    for tokens in (0.04, 0.1, 0.22, 0.28, 0.6, 1.2):  # at budgets, between and beyond them
        ppl = transition(tokens * UNIT)
        assert law.tokens(ppl) == pytest.approx(tokens * UNIT, rel=0.06)
        assert law.ppl(law.tokens(ppl)) == pytest.approx(ppl)
    evaluated = result(transition(0.3 * UNIT), 0.1 * UNIT)
    values = measure(law, evaluated, result(transition(0.15 * UNIT), 0.1 * UNIT))
    assert values['transfer'] == pytest.approx(2, rel=0.01)
    for name in ('mlpe', 'teff', 'control_teff', 'transfer'):
        low, high = values[f'{name}_interval']
        assert low < values[name] < high < 1.1 * low
    low, high = law.ppl_interval(np.array([0.1, 0.3]) * UNIT)
    assert (low < high).all() and low.shape == (2,)
    once = law_of_transition(seeds=(0.0,))  # nothing tells its noise: there are no residuals
    assert once.draws is None and measure(once, evaluated)['teff_interval'] is None


def test_lines_measure_where_the_power_law_does_not():
    law = law_of_transition()
    power = fit_power_law(law.fitted_tokens, law.fitted_ppl)
    tokens = np.array([0.12, 0.22, 0.28, 0.33, 0.6]) * UNIT
    ppl = transition(tokens)
    by_lines, by_power = (max(abs(np.log(r.tokens(ppl) / tokens))) for r in (law, power))
    assert by_lines < 0.05 and by_power > 0.15
    assert isinstance(law_with_noise(SIX, 0.02), fit_scaling.PowerLaw)


def test_intervals_survive_laws_and_runs_out_of_reach():
    law = law_with_noise(SIX, 0.04)
    for ppl in (5.0, 9e10, math.inf):
        evaluated = result(ppl, 1e8) | dict(document_loss=np.ones(1))  # as load_runs leaves it
        values = measure(law, evaluated, result(5.0, 1e8))
        assert not any(np.isnan([*values['teff_interval'], *values['transfer_interval']]))


# the runs of out/, as train.py leaves them

SMALL = dict(
    n_layer=12, n_head=12, head_dim=64, n_embd=768, mlp_dim=3072, block_size=512, vocab_size=32768
)


def write_run(
    folder,
    name,
    stages,
    ppl,
    corpora=('books_en', 'books_en'),
    languages=('en1', 'en2'),
    steps=18265,
    model=SMALL,
    ppl_se=0.1,
    documents=(),
    more=None,
    **settings,
):
    """A results.json with all that fit_scaling.py reads; `ppl`: (tokens seen, index) -> perplexity.

    documents: errors of the log perplexity of each document; more: entries of each language."""
    tokens = [steps * 128 * 512 * sum(p) / len(stages) for p in zip(*stages)]
    defaults = dict(
        stages=stages,
        corpora=list(corpora),
        languages=list(languages),
        vocabulary='disjoint',
        cloned_fraction=1.0,
        batch_size=128,
        learning_rate=6e-4,
        min_learning_rate=6e-6,
        lr_schedule='cosine',
        max_steps=steps,
    )
    settings = defaults | settings
    results = dict(run=name, settings=settings, model=model, languages={})
    for i, (language, corpus, seen) in enumerate(zip(languages, corpora, tokens)):
        if settings.get('only', '') in ('', language):
            loss = [10 * (math.log(ppl(seen, i)) + error) for error in documents]
            results['languages'][language] = dict(
                corpus=corpus,
                tokenizer='abcdef0123',
                tokens_seen=int(seen),
                ppl=ppl(seen, i),
                ppl_se=ppl_se,
                document_loss=loss,
                document_tokens=[10] * len(loss),
            ) | (more or {})
    path = folder / name / 'results.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(results))
    return results


def write_mono(folder, fractions, corpus='books_en', law=EN, noise=0.01, **more):
    for i, fraction in enumerate(fractions):
        write_run(
            folder,
            f'mono_{corpus}_{i}',
            [[1.0]],
            lambda seen, _, sign=(-1) ** i: law.ppl(seen) * (1 + noise * sign),
            corpora=[corpus],
            languages=[corpus[-2:]],
            steps=round(18265 * fraction),
            **more,
        )


def test_the_runs_of_a_folder_become_a_table_files_and_a_picture(tmp_path):
    out, french = tmp_path / 'out', load_paper_laws()['fr']
    write_mono(out, SIX, noise=1e-4)
    write_mono(out, [0.1, 0.5], corpus='books_fr', law=french)
    write_run(out, 'row05', [[0.9, 0.1]], lambda seen, i: EN.ppl(seen * (1.0, 2.0)[i]))
    write_run(out, 'great', [[0.1, 0.9]], lambda seen, i: (EN.ppl(0.9 * seen), 10.0)[i])
    write_run(out, 'frfr', [[0.5, 0.5]], lambda seen, i: 20.0, corpora=['books_fr', 'books_fr'])
    (out / 'torn').mkdir()
    (out / 'torn' / 'results.json').write_text('{"run": "to')
    (out / 'other').mkdir()
    (out / 'other' / 'results.json').write_text('{"accuracy": 0.7}')

    done = script('fit_scaling', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.strip().splitlines()
    assert len(warnings) == 2 and all(
        f'{name}/results.json' in done.stderr for name in ('torn', 'other')
    )
    assert (
        'books_fr' in done.stdout and 'at least 3 budgets; there are 2 (120M, 598M)' in done.stdout
    )
    lines = [line for line in done.stdout.splitlines() if ' en2 ' in line]
    ppl, teff = [line for line in lines if line.startswith('great')]
    assert '> 1.2B' in ppl and '> 1.11' in teff and '*' in teff  # of 1.08B tokens seen
    ppl, teff = [line for line in lines if line.startswith('row05')]
    assert ' 2.00 [' in teff and '*' not in teff
    assert 'Table 1 row 5' in ppl and ppl.endswith('32.8  2.08')
    assert max(map(len, done.stdout.split('\n\n')[1].splitlines())) <= 150
    assert 'TEff alone cannot tell' in done.stdout and '--only=LANGUAGE' in done.stdout

    rows = {
        (row['run'], row['language']): row
        for row in json.loads((out / 'scaling.json').read_text())['rows']
    }
    assert rows['row05', 'en2']['teff'] == pytest.approx(2, abs=1e-2)
    assert rows['row05', 'en2']['mlte'] == pytest.approx(0.2 * UNIT, rel=1e-2)
    assert rows['row05', 'en2']['mlpe'] == pytest.approx(EN.ppl(0.1 * UNIT), rel=1e-3)
    low, high = rows['row05', 'en2']['teff_interval']
    assert low < 2 < high
    assert rows['great', 'en2']['mlte'] is None and rows['great', 'en2']['extrapolated']
    assert (
        rows['great', 'en1']['teff'] == pytest.approx(0.9, abs=1e-2)
        and not rows['great', 'en1']['extrapolated']
    )
    assert rows['frfr', 'en1']['teff'] is None
    assert rows['mono_books_en_5', 'en']['teff'] == 1
    with (out / 'scaling.csv').open() as file:
        flat = {(row['run'], row['language']): row for row in csv.DictReader(file)}
    assert flat.keys() == rows.keys()
    assert float(flat['row05', 'en2']['teff_low']) == low and flat['great', 'en2']['teff'] == 'inf'
    assert (out / 'figure5.png').read_bytes().startswith(b'\x89PNG')


def test_laws_are_fitted_only_to_comparable_runs(tmp_path):
    write_mono(tmp_path, FOUR)
    write_run(tmp_path, 'row04', [[0.5, 0.5]], lambda seen, i: 26.0)
    write_run(
        tmp_path,
        'mini',
        [[0.5, 0.5]],
        lambda seen, i: 26.0,
        model=SMALL | dict(n_layer=4, n_embd=512),
    )
    write_run(tmp_path, 'faster', [[0.5, 0.5]], lambda seen, i: 26.0, learning_rate=1e-3)
    write_run(
        tmp_path, 'unused', [[1.0, 0.0]], lambda seen, i: 22.0 if i == 0 else 1e9
    )  # monolingual, two clones
    laws, rows = analyse(load_runs(tmp_path))
    assert sorted(len(entry['runs']) for entry in laws.values()) == [0, 0, 5]
    teff = {(row['run'], row['language']): row['teff'] for row in rows}
    assert teff['row04', 'en1'] == pytest.approx(0.9, abs=0.1)
    assert teff['mini', 'en1'] is None and teff['faster', 'en1'] is None
    assert teff['unused', 'en1'] == 1 and teff['unused', 'en2'] is None


def test_runs_can_be_measured_by_the_law_of_another_schedule(tmp_path):
    wsd = PowerLaw(EN.a * 1.1, EN.b, EN.c)
    write_mono(tmp_path, FOUR, noise=0)
    for i, fraction in enumerate(FOUR):
        write_run(
            tmp_path,
            f'branch_{i}',
            [[1.0]],
            lambda seen, _: wsd.ppl(seen),
            corpora=['books_en'],
            languages=['en'],
            steps=round(18265 * fraction),
            lr_schedule='wsd',
        )
    write_run(tmp_path, 'row05', [[0.9, 0.1]], lambda seen, i: EN.ppl(seen * (1.0, 2.0)[i]))
    for chosen, law in {'': EN, 'cosine': EN, 'wsd': wsd}.items():
        laws, rows = analyse(load_runs(tmp_path), chosen)
        assert sorted(len(entry['runs']) for entry in laws.values()) == [4, 4]
        [row] = [row for row in rows if row['run'] == 'row05' and row['language'] == 'en2']
        assert row['teff'] == pytest.approx(law.tokens(row['ppl']) / row['tokens_seen'], rel=1e-3)
    refused(
        script('fit_scaling', f'--out={tmp_path}', '--law_schedule=linear', cwd=tmp_path), 'linear'
    )


def test_a_law_of_four_budgets_has_no_intervals_and_says_why(tmp_path):
    write_mono(tmp_path / 'out', FOUR)
    write_run(tmp_path / 'out', 'row04', [[0.5, 0.5]], lambda seen, i: 26.0)
    done = script('fit_scaling', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        'no interval: run noise needs two degrees of freedom' in done.stdout
        and 'run noise unknown' in done.stdout
    )
    _, rows = analyse(load_runs(tmp_path / 'out'))
    [row] = [row for row in rows if row['run'] == 'row04' and row['language'] == 'en1']
    assert row['teff'] and row['teff_interval'] is None and 'two degrees of freedom' in row['note']


def rows_of(folder):
    """({(run, language): row}, the laws) of a folder."""
    laws, rows = analyse(load_runs(folder))
    return {(row['run'], row['language']): row for row in rows}, list(laws.values())


NINETY = [[0.9, 0.1]]
DOCUMENTS = (0.1, -0.1, 0.2, -0.2)


def worth(teff):
    """Perplexity of a run whose languages are worth `teff` times their tokens."""
    return lambda seen, i: EN.ppl(seen * teff)


def test_transfer_is_the_token_equivalence_of_a_run_over_that_of_its_control(tmp_path):
    write_mono(tmp_path, SIX, noise=1e-3, documents=DOCUMENTS)
    write_run(tmp_path, 'mix', NINETY, worth(2.0), documents=DOCUMENTS)
    write_run(tmp_path, 'alone', NINETY, worth(1.6), only='en2', documents=DOCUMENTS)
    rows, [law] = rows_of(tmp_path)
    row = rows['mix', 'en2']
    assert law['runs'] == [f'mono_books_en_{i}' for i in range(6)]  # the control is in no law
    assert 'alone' not in {run for run, _ in rows}
    assert (row['control'], row['control_learning_rate']) == ('alone', 6e-4)
    assert row['teff'] == pytest.approx(2.0, rel=0.02)
    assert row['control_teff'] == pytest.approx(1.6, rel=0.02)
    assert (
        row['transfer']
        == pytest.approx(1.25, rel=0.01)
        == row['mlte'] / EN.tokens(row['control_ppl'])
    )
    low, high = row['transfer_interval']
    assert 1 < low < 1.25 < high
    assert rows['mix', 'en1']['control'] == '' and rows['mix', 'en1']['transfer'] is None


@pytest.mark.parametrize(
    'change',
    [
        dict(steps=9132),
        dict(stages=[[0.8, 0.2]]),
        dict(warmup_steps=20),
        dict(only='en1'),
        dict(more=dict(test='other')),
        dict(batch_size=64),
        dict(block=256),
    ],
)
def test_a_run_that_saw_other_sequences_is_no_control(tmp_path, change):
    change = dict(stages=NINETY, only='en2') | change
    if change.pop('block', 0):
        change['model'] = SMALL | dict(block_size=256)
    write_run(tmp_path, 'mix', NINETY, worth(2.0))
    write_run(tmp_path, 'alone', ppl=worth(1.6), **change)
    rows, _ = rows_of(tmp_path)
    assert rows['mix', 'en2']['control'] == ''
    if change['only'] == 'en2':
        assert stray_controls(load_runs(tmp_path)) == ['alone']


def test_the_best_of_several_controls_counts_whatever_its_rate_and_seed(tmp_path):
    write_mono(tmp_path, SIX)
    write_run(tmp_path, 'mix', NINETY, worth(2.0), cloned_fraction=0.5, seed=0)
    for rate, teff in ((3e-4, 1.2), (1e-3, 1.8), (2e-3, 1.5)):
        write_run(
            tmp_path,
            f'alone_{rate}',
            NINETY,
            worth(teff),
            only='en2',
            learning_rate=rate,
            min_learning_rate=rate / 100,
            seed=1,
        )
    row = rows_of(tmp_path)[0]['mix', 'en2']
    assert (row['control'], row['control_learning_rate']) == ('alone_0.001', 1e-3)
    assert row['transfer'] == pytest.approx(2 / 1.8, rel=0.02)
    assert stray_controls(load_runs(tmp_path)) == []


@pytest.mark.parametrize('best, noise_from', [(3e-4, 'residuals'), (2e-3, 'replicates')])
def test_only_the_best_control_has_a_say_in_the_noise(tmp_path, best, noise_from):
    write_mono(tmp_path, SIX)
    write_run(tmp_path, 'mix', NINETY, worth(2.0))
    write_run(tmp_path, 'one_seed', NINETY, worth(1.2), only='en2', learning_rate=3e-4)
    for seed, error in enumerate((0.9, 1.0, 1.1)):
        teff = worth(error * (1.6 if best == 2e-3 else 0.8))
        name = f'seed_{seed}'
        write_run(tmp_path, name, NINETY, teff, only='en2', learning_rate=2e-3, seed=seed)
    rows, [law] = rows_of(tmp_path)
    assert rows['mix', 'en2']['control_learning_rate'] == best
    assert law['noise_from'] == noise_from


def test_copies_change_nothing(tmp_path, capsys):
    def write(folder, copies):
        write_mono(folder, SIX, noise=0.01, out_dir='a', device='cpu')
        write_run(folder, 'mix', NINETY, worth(2.0))
        write_run(folder, 'mix-only_en2', NINETY, worth(1.5), only='en2')
        if copies:
            write_run(
                folder,
                'again',
                [[1.0]],
                lambda seen, _: EN.ppl(seen) * 0.99,
                corpora=['books_en'],
                languages=['en'],
                out_dir='b',
                device='cuda',
                final_windows=7,
            )
            write_run(folder, 'zz_mix', NINETY, worth(2.0), out_dir='c', init_from='trunk')
            write_run(folder, 'zz_alone', NINETY, worth(1.5), only='en2', cloned_fraction=0.5)

    write(tmp_path / 'once', False)
    write(tmp_path / 'copied', True)
    once, [law] = rows_of(tmp_path / 'once')
    assert 'copies' not in capsys.readouterr().out
    copied, [same_law] = rows_of(tmp_path / 'copied')
    assert 'zz_mix (of mix)' in capsys.readouterr().out
    assert law['law'].dof == same_law['law'].dof == 3
    for key, row in once.items():
        other = copied[('again', 'en') if key[0] == 'mono_books_en_5' else key]
        assert row | dict(run='') == other | dict(run='')


LATER = dict(only='', orders=[], loss_weights=[], start_entries='', start_noise=0.3)
LATER |= dict(trainable='all', parallel_epochs=False, warmup_fraction=0.0, decay_fraction=0.2)


@pytest.mark.parametrize(
    'change',
    [*({key: value} for key, value in LATER.items()), LATER, dict(orders=['', '']), dict(size='x')],
)
def test_a_run_that_writes_a_default_down_is_the_run_that_does_not(tmp_path, change, capsys):
    write_run(tmp_path, 'a', NINETY, worth(2.0))
    write_run(tmp_path, 'b', NINETY, worth(2.0), **change)
    assert len(load_runs(tmp_path)) == 1 and 'b (of a)' in capsys.readouterr().out


def test_whole_numbers_are_the_same_settings_as_their_fractions(tmp_path):
    write_run(tmp_path, 'a', [[1]], worth(2.0), corpora=['books_en'], languages=['en'])
    write_run(tmp_path, 'b', [[1.0]], worth(2.0), corpora=['books_en'], languages=['en'])
    assert len(load_runs(tmp_path)) == 1


@pytest.mark.parametrize(
    'change',
    [
        dict(orders=['', 'reversed']),
        dict(loss_weights=[0.5, 0.5]),
        dict(start_entries='en1'),
        dict(trainable='en2', init_from='a'),
        dict(parallel_epochs=True),
    ],
)
def test_a_run_with_a_knob_turned_is_another_run(tmp_path, change):
    write_run(tmp_path, 'a', NINETY, worth(2.0))
    assert paper_rows(write_run(tmp_path, 'b', NINETY, worth(2.0), **change)) == [] or (
        'parallel_epochs' in change
    )
    assert len(load_runs(tmp_path)) == 2


def test_a_reversed_language_has_a_law_and_controls_of_its_own(tmp_path):
    write_mono(tmp_path, FOUR)
    reverse = dict(orders=['', 'reversed'])
    write_run(tmp_path, 'mix', NINETY, worth(2.0), **reverse)
    write_run(tmp_path, 'first', NINETY, worth(1.5), only='en1')
    write_run(tmp_path, 'second', NINETY, worth(1.5), only='en2')
    rows, laws = rows_of(tmp_path)
    assert sorted(len(law['runs']) for law in laws) == [0, 4]
    assert rows['mix', 'en1']['control'] == 'first'  # whose order is that of the mix's en1
    assert rows['mix', 'en2']['control'] == '' and rows['mix', 'en2']['teff'] is None
    write_run(tmp_path, 'turned', NINETY, worth(1.2), only='en2', **reverse)
    assert rows_of(tmp_path)[0]['mix', 'en2']['control'] == 'turned'


def test_a_language_added_to_a_trained_model_is_no_monolingual_run(tmp_path):
    write_mono(tmp_path, FOUR)
    added = dict(trainable='en2', init_from='out/first')
    write_run(tmp_path, 'added', [[0.0, 1.0]], worth(2.0), steps=1826, **added)
    other = added | dict(init_from='out/second')
    write_run(tmp_path, 'other', [[0.0, 1.0]], worth(1.5), steps=1826, **other)
    rows, [law] = rows_of(tmp_path)
    assert len(law['runs']) == 4
    assert rows['added', 'en2']['teff'] == pytest.approx(2, rel=0.1)
    assert rows['other', 'en2']['teff'] == pytest.approx(1.5, rel=0.1)


def test_runs_that_differ_in_their_seed_are_pooled(tmp_path):
    write_mono(tmp_path, FOUR, noise=0, documents=DOCUMENTS)
    for seed, error in enumerate((0.03, -0.01, -0.02)):
        write_run(
            tmp_path,
            f'mix_{seed}',
            NINETY,
            lambda seen, i, e=error: EN.ppl(2 * seen) * math.exp(e),
            seed=seed,
            documents=DOCUMENTS,
        )
    runs = load_runs(tmp_path)
    [mix] = [run for run in runs if run['run'].startswith('mix')]
    assert mix['seeds'] == [0, 1, 2]
    pooled = mix['languages']['en2']
    assert math.log(pooled['ppl']) == pytest.approx(pooled['document_loss'].sum() / 40)
    rows, [law] = rows_of(tmp_path)
    row = rows['mix_0', 'en2']
    assert row['seeds'] == 3 and len(rows) == 6
    assert row['ppl'] == pytest.approx(EN.ppl(2 * row['tokens_seen']))
    assert (law['noise_from'], law['dof']) == ('replicates', 2)
    assert law['noise'] == pytest.approx(np.std([0.03, -0.01, -0.02], ddof=1))
    low, high = row['teff_interval']
    assert low < 2 < high


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
        dict(warmup_fraction=0.05),
        dict(model=SMALL | dict(n_embd=512)),
    ],
)
def test_runs_that_were_made_or_scored_in_another_way_share_no_law(tmp_path, change):
    write_mono(tmp_path, FOUR)
    write_run(tmp_path, 'mix', NINETY, worth(2.0), **change)
    rows, laws = rows_of(tmp_path)
    assert sorted(len(law['runs']) for law in laws) == [0, 4]
    assert rows['mix', 'en2']['teff'] is None and 'no law' in rows['mix', 'en2']['note']


def test_wsd_runs_share_a_law_only_where_they_decay_alike(tmp_path):
    for i, fraction in enumerate((0.1, 0.2)):
        write_run(
            tmp_path, f'wsd_{i}', NINETY, worth(1), lr_schedule='wsd', decay_fraction=fraction
        )
        write_run(
            tmp_path,
            f'cosine_{i}',
            [[0.8, 0.2]],
            worth(1),
            decay_fraction=fraction,
            warmup_steps=100 * (i + 1),
        )
    assert len(rows_of(tmp_path)[1]) == 3


def test_a_teff_far_from_that_between_the_nearest_budgets_is_printed(tmp_path):
    write_mono(tmp_path, SIX, noise=0.08)
    write_run(tmp_path, 'far', NINETY, worth(1.0))
    row = rows_of(tmp_path)[0]['far', 'en2']
    assert row['interpolated_teff'] == pytest.approx(1.0, abs=0.25)
    row |= dict(teff=1.2, interpolated_teff=1.0)
    assert 'log-log' in fit_scaling.transfer_text([row]).splitlines()[-2]
    assert ' 1.00  ' not in fit_scaling.transfer_text([row | dict(teff=1.05)]).splitlines()[1]


def test_runs_of_older_versions_and_odd_documents_are_read(tmp_path):
    write_mono(tmp_path, SIX)  # without documents
    write_run(
        tmp_path,
        'nan',
        NINETY,
        worth(2.0),
        more=dict(document_loss=[math.nan, 1], document_tokens=[3, 3]),
    )
    write_run(
        tmp_path,
        'torn',
        NINETY,
        worth(2.0),
        more=dict(document_loss=[1.0], document_tokens=[3, 3]),
        seed=3,
    )
    assert {run['run'] for run in load_runs(tmp_path)} == {
        'nan',
        *(f'mono_books_en_{i}' for i in range(6)),
    }
    assert rows_of(tmp_path)[0]['nan', 'en2']['teff_interval']


def test_runs_of_the_paper_are_recognised_by_their_setup(tmp_path):
    def names(*args, **more):
        name = f'run{len(list(tmp_path.iterdir()))}'
        return [
            row['name']
            for row in paper_rows(write_run(tmp_path, name, *args, lambda seen, i: 20.0, **more))
        ]

    fr = dict(corpora=('books_en', 'books_fr'), languages=('en', 'fr'))
    ten = dict(corpora=['books_en'] * 10, languages=[f'en{i + 1}' for i in range(10)])
    assert names([[0.9, 0.1]]) == ['Table 1 row 5']
    assert names([[0.9, 0.1]], steps=36530) == ['Figure 2 2x']
    assert names([[0.9, 0.1]], vocabulary='anchored') == []
    assert names([[0.9, 0.1]], cloned_fraction=0.9) == []
    assert names([[0.9, 0.1]], model=SMALL | dict(n_layer=4, n_embd=512)) == []
    assert names([[0.85, 0.15]]) == []
    assert names([[0.9, 0.1], [0.1, 0.9]]) == ['Table 1 row 9']
    assert names([[0.1] * 10], **ten) == ['Table 1 row 6']
    assert names([[0.5] + [0.5 / 9] * 9], **ten) == ['Table 1 row 7']
    assert names([[0.9, 0.1]], **fr) == ['Table 3 row 8']
    assert names([[0.9, 0.1]], vocabulary='anchored', **fr) == ['Table 3 row 12']
    assert names([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]], vocabulary='anchored', **fr) == [
        'Table 3 row 15'
    ]
    assert names([[1.0]], corpora=['books_en'], languages=['en']) == [
        'Table 1 row 1',
        'Table 3 row 1',
    ]
    assert names([[0.0, 1.0]], steps=9132, **fr) == ['Table 3 row 5']


def test_a_language_is_known_by_whole_words():
    names = [('en1', 'docs'), ('l1', 'eltec_eng'), ('a', 'french'), ('trench', 'docs')]
    assert [kind_of(*words) for words in names] == ['en', 'en', 'fr', '']


def test_the_command_line_recomputes_the_paper(tmp_path):
    done = script('fit_scaling', '--paper=True', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        '54 of 56' in done.stdout
        and 'not: Table 3 row 19 en (+0.0090), Table 3 row 19 fr' in done.stdout
    )


def test_a_folder_without_runs_says_what_to_do(tmp_path):
    refused(script('fit_scaling', cwd=tmp_path), 'no finished run in out/', 'train.py')
    refused(script('fit_scaling', '--study=coverige', cwd=tmp_path), 'coverage')
