"""Scaling laws: known laws come back, the paper's TEff come out, intervals cover, and out/ becomes a report."""
import csv
import json
import math

import numpy as np
import pytest
from conftest import refused, script

from fit_scaling import analyse, kind_of, load_paper_laws, load_paper_runs, load_runs, paper_rows, recompute_paper
from fit_scaling import UNIT, PowerLaw, coverage, fit_power_law

FOUR = [0.1, 0.25, 0.5, 1.0]
SIXTEEN = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.5, 2, 3]  # the paper's own
EN = PowerLaw(0.0386839, 0.20725333, 0.08406525)


@pytest.mark.parametrize('law', [EN, PowerLaw(0.05686383, 0.19327436, 0.11919068), PowerLaw(0.004, 0.8, 0.05),
                                 PowerLaw(0.0001, 2, 0.05), PowerLaw(0.3, 0.03, 0.36),
                                 PowerLaw(0.006, 0.4, 0.03, 5e6)])
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


@pytest.mark.parametrize('tokens, ppl, words', [
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
])
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
    assert max(abs(row['difference']) for row in exact) < 1e-4  # far closer than asked, so the laws are the paper's
    assert all(abs(row['difference']) < 0.01 for row in rounded)


def test_a_scheduled_run_counts_the_tokens_it_saw_of_a_language():
    runs = {row['name']: row for row in load_paper_runs()}
    seen = {name: [language['tokens_seen'] for language in row['languages']] for name, row in runs.items()}
    assert seen['Table 1 row 8'] == pytest.approx([UNIT / 2, UNIT / 2])
    assert seen['Table 3 row 16'] == pytest.approx([UNIT / 2, UNIT / 2])
    assert seen['Table 1 row 7'] == pytest.approx([UNIT / 2, UNIT / 18], rel=1e-5)
    assert seen['Figure 2 2x'] == pytest.approx([1.8 * UNIT, 0.2 * UNIT])
    assert len(runs['Table 1 row 7']['stages'][0]) == 10


@pytest.mark.parametrize('fractions, seen, teff', [
    (FOUR, 0.1, 2.0), (FOUR, 0.5, 0.9), ([0.05, 0.1, 0.25, 0.5, 0.75, 1], 0.25, 2.0)])
def test_ninety_percent_intervals_hold_the_truth_as_often_as_they_say(fractions, seen, teff):
    found = coverage(EN, fractions, seen, teff, noise=0.02, ppl_se=0.02, datasets=200)
    assert 0.85 <= found['coverage'] <= 0.95
    assert found['above'] > 0 and found['below'] > 0


def test_intervals_are_the_same_each_time_and_widen_with_the_error():
    tokens = np.array(SIXTEEN) * UNIT
    law = fit_power_law(tokens, EN.ppl(tokens) * ([1.01, 0.98, 1.02, 0.99] * 4))
    low, high = law.tokens_interval(30, 0.6)
    assert (low, high) == law.tokens_interval(30, 0.6)
    assert low < law.tokens(30) < high
    sure, unsure = law.tokens_interval(30, 0.06), law.tokens_interval(30, 1.5)
    assert unsure[0] < low < sure[0] < sure[1] < high < unsure[1]
    around = law.ppl_interval(3e8)
    assert around[0] < law.ppl(3e8) < around[1]
    assert law.ppl_interval(tokens)[0].shape == (16,)


def test_an_interval_knows_only_the_errors_that_it_is_told():
    tokens = np.array([0.1, 0.3, 1.0]) * UNIT
    three = fit_power_law(tokens, EN.ppl(tokens))  # meets its points exactly: no residuals
    assert three.unknown_noise and three.ppl_interval(1e8) is None and three.tokens_interval(30, 0) is None
    low, high = three.tokens_interval(30, 0.3)
    z = 1.645 * 0.01 / 30  # of 1/PPL
    assert [low, high] == pytest.approx([EN.tokens(1 / (1 / 30 - z)), EN.tokens(1 / (1 / 30 + z))], rel=0.01)
    exact = PowerLaw(EN.a, EN.b, EN.c)
    assert not exact.unknown_noise and exact.tokens_interval(30, 0.3) == pytest.approx((low, high))


# the runs of out/, as train.py leaves them

SMALL = dict(n_layer=12, n_head=12, head_dim=64, n_embd=768, mlp_dim=3072, block_size=512, vocab_size=32768)


def write_run(folder, name, stages, ppl, corpora=('books_en', 'books_en'), languages=('en1', 'en2'), steps=18265,
              model=SMALL, ppl_se=0.1, **settings):
    """A results.json with all that fit_scaling.py reads; `ppl`: (tokens seen, index) -> perplexity."""
    tokens = [steps * 128 * 512 * sum(p) / len(stages) for p in zip(*stages)]
    defaults = dict(stages=stages, corpora=list(corpora), languages=list(languages), vocabulary='disjoint',
                    cloned_fraction=1.0, batch_size=128, learning_rate=6e-4, min_learning_rate=6e-6,
                    lr_schedule='cosine', max_steps=steps)
    results = dict(run=name, settings=defaults | settings, model=model, languages={
        language: dict(corpus=corpus, tokenizer='abcdef0123', tokens_seen=int(seen), ppl=ppl(seen, i), ppl_se=ppl_se)
        for i, (language, corpus, seen) in enumerate(zip(languages, corpora, tokens))})
    path = folder / name / 'results.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(results))
    return results


def write_mono(folder, fractions, corpus='books_en', law=EN, noise=0.01, **more):
    for i, fraction in enumerate(fractions):
        write_run(folder, f'mono_{corpus}_{i}', [[1.0]], lambda seen, _: law.ppl(seen) * (1 + noise * (-1) ** i),
                  corpora=[corpus], languages=[corpus[-2:]], steps=round(18265 * fraction), **more)


def test_the_runs_of_a_folder_become_a_table_files_and_a_picture(tmp_path):
    out, french = tmp_path / 'out', load_paper_laws()['fr']
    write_mono(out, FOUR, noise=0)
    write_mono(out, [0.1, 0.5], corpus='books_fr', law=french)
    write_run(out, 'row05', [[0.9, 0.1]], lambda seen, i: EN.ppl(seen * (1.0, 2.0)[i]))
    write_run(out, 'great', [[0.1, 0.9]], lambda seen, i: (EN.ppl(0.9 * seen), 10.0)[i])
    write_run(out, 'frfr', [[0.5, 0.5]], lambda seen, i: 20.0, corpora=['books_fr', 'books_fr'])
    (out / 'torn').mkdir()
    (out / 'torn' / 'results.json').write_text('{"run": "to')
    (out / 'other').mkdir()
    (out / 'other' / 'results.json').write_text('{"accuracy": 0.7}')

    done = script('fit_scaling', '--paper_curves=True', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.strip().splitlines()
    assert len(warnings) == 2 and all(f'{name}/results.json' in done.stderr for name in ('torn', 'other'))
    assert 'books_fr' in done.stdout and 'at least 3 budgets; there are 2 (120M, 598M)' in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith('great') and ' en2 ' in line]
    assert line.split()[-4:] == ['>', '1.2B', '>', '1.11*']  # of 1.08B tokens seen
    [line] = [line for line in done.stdout.splitlines() if line.startswith('row05') and ' en2 ' in line]
    assert ' 2.00 [' in line and '*' not in line and 'Table 1 row 5' in line and line.endswith('32.8  2.08')

    rows = {(row['run'], row['language']): row for row in json.loads((out / 'scaling.json').read_text())['rows']}
    assert rows['row05', 'en2']['teff'] == pytest.approx(2, abs=1e-4)
    assert rows['row05', 'en2']['mlte'] == pytest.approx(0.2 * UNIT, rel=1e-4)
    assert rows['row05', 'en2']['mlpe'] == pytest.approx(EN.ppl(0.1 * UNIT), rel=1e-4)
    low, high = rows['row05', 'en2']['teff_interval']
    assert low < 2 < high
    assert rows['great', 'en2']['mlte'] is None and rows['great', 'en2']['extrapolated']
    assert rows['great', 'en1']['teff'] == pytest.approx(0.9, abs=1e-4) and rows['great', 'en1']['extrapolated']
    assert rows['frfr', 'en1']['teff'] is None
    assert rows['mono_books_en_3', 'en']['teff'] == 1
    with (out / 'scaling.csv').open() as file:
        flat = {(row['run'], row['language']): row for row in csv.DictReader(file)}
    assert flat.keys() == rows.keys()
    assert float(flat['row05', 'en2']['teff_low']) == low and flat['great', 'en2']['teff'] == 'inf'
    assert (out / 'figure5.png').read_bytes().startswith(b'\x89PNG')


def test_laws_are_fitted_only_to_comparable_runs(tmp_path):
    write_mono(tmp_path, FOUR)
    write_run(tmp_path, 'row04', [[0.5, 0.5]], lambda seen, i: 26.0)
    write_run(tmp_path, 'mini', [[0.5, 0.5]], lambda seen, i: 26.0, model=SMALL | dict(n_layer=4, n_embd=512))
    write_run(tmp_path, 'faster', [[0.5, 0.5]], lambda seen, i: 26.0, learning_rate=1e-3)
    write_run(tmp_path, 'unused', [[1.0, 0.0]], lambda seen, i: 22.0 if i == 0 else 1e9)  # monolingual, two clones
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
        write_run(tmp_path, f'branch_{i}', [[1.0]], lambda seen, _: wsd.ppl(seen), corpora=['books_en'], languages=['en'],
                  steps=round(18265 * fraction), lr_schedule='wsd')
    write_run(tmp_path, 'row05', [[0.9, 0.1]], lambda seen, i: EN.ppl(seen * (1.0, 2.0)[i]))
    for chosen, law in {'': EN, 'cosine': EN, 'wsd': wsd}.items():
        laws, rows = analyse(load_runs(tmp_path), chosen)
        assert sorted(len(entry['runs']) for entry in laws.values()) == [4, 4]
        [row] = [row for row in rows if row['run'] == 'row05' and row['language'] == 'en2']
        assert row['teff'] == pytest.approx(law.tokens(row['ppl']) / row['tokens_seen'], rel=1e-3)
    refused(script('fit_scaling', f'--out={tmp_path}', '--law_schedule=linear', cwd=tmp_path), 'linear')


def test_a_law_of_three_budgets_says_that_its_noise_is_unknown(tmp_path):
    write_mono(tmp_path / 'out', [0.1, 0.3, 1.0])
    write_run(tmp_path / 'out', 'row04', [[0.5, 0.5]], lambda seen, i: 26.0)
    done = script('fit_scaling', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith('row04') and ' en1 ' in line]
    assert line.split('  Table')[0].rstrip().endswith(']+') and 'three budgets leave no residuals' in done.stdout


def test_runs_of_the_paper_are_recognised_by_their_setup(tmp_path):
    def names(*args, **more):
        name = f'run{len(list(tmp_path.iterdir()))}'
        return [row['name'] for row in paper_rows(write_run(tmp_path, name, *args, lambda seen, i: 20.0, **more))]
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
    assert names([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]], vocabulary='anchored', **fr) == ['Table 3 row 15']
    assert names([[1.0]], corpora=['books_en'], languages=['en']) == ['Table 1 row 1', 'Table 3 row 1']
    assert names([[0.0, 1.0]], steps=9132, **fr) == ['Table 3 row 5']


def test_a_language_is_known_by_whole_words():
    names = [('en1', 'docs'), ('l1', 'eltec_eng'), ('a', 'french'), ('trench', 'docs')]
    assert [kind_of(*words) for words in names] == ['en', 'en', 'fr', '']


def test_the_command_line_recomputes_the_paper(tmp_path):
    done = script('fit_scaling', '--paper=True', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '54 of 56' in done.stdout and 'not: Table 3 row 19 en (+0.0090), Table 3 row 19 fr' in done.stdout


def test_a_folder_without_runs_says_what_to_do(tmp_path):
    refused(script('fit_scaling', cwd=tmp_path), 'no finished run in out/', 'train.py')
    refused(script('fit_scaling', '--study=coverige', cwd=tmp_path), 'coverage')
