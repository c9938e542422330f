"""analyze.py and its measures: against the paper's own code, against loops, and end to end."""

import itertools
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

from lib.configurator import ConfigError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, in_process, new_run, refused, tiny_model, works
from matplotlib import image
from matplotlib import pyplot as plt
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import analyze
from data import Language
from lib import estimate, plots, similarity
from lib.estimate import Estimate, difference, over_seeds, over_training, tables
from lib.similarity import compare_states, compare_vectors, gradient_similarity, match_tokens
from model import GPT, GPTConfig

QUICK = dict(device='cpu', max_tokens=32, pairs=6, word2vec_dim=16, word2vec_steps=8)
STUDIES = list(analyze.STUDIES)
REAL = dict(parallel=['text.en', 'text.fr'], min_tokens=4)
SENTENCES = dict(sentence_1='Ba de fi.', sentence_2='Ba go lu.')


@pytest.fixture(scope='session')
def trained(made_once, tmp_path_factory):
    """A folder with tiny runs: out/even, out/uneven, its control run out/control and its replicate
    out/seed_1 of clones, out/anchored and out/disjoint of two corpora; and text.en and text.fr,
    aligned line by line."""
    root = tmp_path_factory.mktemp('runs')
    (root / 'data').symlink_to(made_once / 'data')
    real = ['--corpora=[en,fr]', '--languages=[en,fr]', '--max_steps=8']
    for name, more in dict(
        even=['--stages=[[0.5,0.5]]'],
        uneven=['--keep_checkpoints=[5,10]'],
        seed_1=['--seed=1'],
        control=['--only=en2'],
        anchored=[*real, '--vocabulary=anchored'],
        disjoint=real,
    ).items():
        settings = [*TINY, '--warmup_steps=0', '--max_steps=20', *more, f'--out_dir=out/{name}']
        works('train', *settings, cwd=root)
    for language in ('en', 'fr'):
        text = (made_once / f'text_{language}' / '0000.txt').read_text().split('.')
        (root / f'text.{language}').write_text('\n'.join(line.strip() for line in text[:25]) + '\n')
    return root


@pytest.fixture
def place(trained, here, monkeypatch):
    """The current folder is like `trained`, and the settings of analyze.py are QUICK."""
    shutil.copytree(trained, here, symlinks=True, dirs_exist_ok=True)
    monkeypatch.setattr(plots, 'DPI', 50)
    for name, value in QUICK.items():
        monkeypatch.setattr(analyze, name, value)


def called(**settings):
    """analyze.py in the current folder: its CompletedProcess."""
    return in_process('analyze', **QUICK | settings)


def study(**settings):
    """What analyze.py prints."""
    return works('analyze', **QUICK | settings).stdout


def read(path):
    """A study in out/."""
    return json.loads(Path('out', f'{path}.json').read_text())


@pytest.fixture(scope='session')
def uneven(trained, tmp_path_factory):
    """A folder in which all studies of out/uneven have been made, and what was printed."""
    folder = tmp_path_factory.mktemp('uneven')
    shutil.copytree(trained, folder, symlinks=True, dirs_exist_ok=True)
    with mock.patch.object(plots, 'DPI', 50):
        done = works('analyze', cwd=folder, out_dir='out/uneven', **QUICK)
    return folder / 'out/uneven', done.stdout


@pytest.mark.parametrize('kind', ['clone', 'match'])
def test_similarities_are_those_of_the_papers_code(kind, reference, reference_model):
    pairs = list(zip(reference[f'{kind}_l1'], reference[f'{kind}_l2']))
    assert len(pairs) == 5
    for i, (one, other) in enumerate(pairs):
        positions = [np.arange(len(one))] * 2 if kind == 'clone' else None
        states = compare_states(reference_model, one, other, positions)
        found = states['same position' if kind == 'clone' else 'matched']
        np.testing.assert_allclose(found, reference[f'{kind}_hidden_sims'][:, i], atol=1e-5)
        found = gradient_similarity(reference_model, torch.from_numpy(one), torch.from_numpy(other))
        assert found.keys() == dict(reference_model.named_parameters()).keys()
        for name, cosine in found.items():
            # The gradient of a key bias is 0: what rounding leaves of it is no figure to compare.
            tolerance = 1e-2 if name.endswith('attn.k.bias') else 1e-5
            assert abs(cosine - reference[f'{kind}_grad_sims/{name}'][i]) < tolerance, name


@pytest.mark.parametrize('threshold', [0, 0.01, 0.5, 0.9])
@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (5, 5), (4, 6), (6, 4)])
def test_a_matching_is_the_heaviest_full_one_or_of_pairs_above_a_threshold(shape, threshold):
    for seed in range(3):
        weights = np.random.default_rng(seed).uniform(-1, 1, size=shape)
        rows, columns = match_tokens(torch.from_numpy(weights), threshold)
        assert len(rows) == len(set(rows)) == len(set(columns)) <= min(shape)
        assert len(rows) == min(shape) or threshold and (weights[rows, columns] > threshold).all()
        allowed = np.where(weights > threshold, weights, 0) if threshold else weights
        allowed = allowed if shape[0] <= shape[1] else allowed.T
        full = itertools.permutations(range(max(shape)), min(shape))
        best = max(allowed[range(min(shape)), list(places)].sum() for places in full)
        assert abs(weights[rows, columns].sum() - best) < 1e-9


def test_tokens_of_clones_in_another_order_are_compared_where_they_stand(place, monkeypatch):
    run = analyze.StudiedRun('out/even')
    first, second = run.languages
    with torch.no_grad():  # states that depend on nothing but the token, the same in both languages
        run.model.wpe.weight.zero_()
        for block in run.model.blocks:
            block.attn.o.weight.zero_()
        run.model.wte.weight[second.table] = run.model.wte.weight[first.table]
    second.order = 'reversed'
    cosines = analyze.study_hidden(run).panels['cosine of hidden states']['same position']
    np.testing.assert_allclose([cell.value for cell in cosines.values()], 1, atol=1e-5)
    one, other = analyze.study_matching(run).more['tokens']
    assert one == other[::-1]
    monkeypatch.setattr(Language, 'ids', lambda language, side: language.table[np.sort(side)])
    with pytest.raises(ConfigError, match='order'):  # positions say nothing of such a language
        analyze.study_hidden(run)


def test_clones_with_the_same_weights_are_the_same_in_every_measure():
    model, tokens = tiny_model(106, 32), np.array([3, 17, 5, 44, 9, 28, 1, 50, 2, 31])
    with torch.no_grad():
        for weight in (model.wte.weight, model.head.weight):
            weight[53:] = weight[:53]
    found = compare_states(model, tokens, tokens + 53, [np.arange(10)] * 2)
    for measure in ('same position', 'matched', 'retrieval'):
        np.testing.assert_allclose(found[measure], 1, atol=1e-5)
    np.testing.assert_allclose(similarity.cka(np.array(found['linear CKA'])), 1, atol=1e-5)
    assert (found['all pairs'] < 0.95).all()
    cosines = gradient_similarity(model, tokens, tokens + 53)
    for name, cosine in cosines.items():
        if name.startswith('blocks.') and not name.endswith('k.bias') or name == 'wpe.weight':
            assert abs(cosine - 1) < 1e-4, name
    assert abs(cosines['wte.weight']) < 1e-6  # different rows


def test_measures_on_pairs_of_states_are_those_of_loops():
    model, one, other = tiny_model(106, 32), np.arange(1, 8), np.arange(60, 71)
    found = compare_states(model, one, other)
    assert found.keys() == {'matched', 'all pairs', 'retrieval', 'linear CKA'}
    name, thresholds = 'share of tokens matched', (0.01, 0.3, 0.99)
    shares = [compare_states(model, one, other, threshold=t)[name] for t in thresholds]
    assert (14 / 18 >= shares[0]).all() and (shares[0] >= shares[1]).all()  # seven tokens of eleven
    assert (shares[0] > 0.5).all() and (shares[2] == 0).all()
    sides = [similarity.hidden_states(model, tokens) for tokens in (one, other)]
    for block, (first, second) in enumerate(zip(*sides)):
        cosines = [[F.cosine_similarity(x, y, dim=0).item() for y in second] for x in first]
        assert abs(found['all pairs'][block] - np.mean(cosines)) < 1e-5
        np.testing.assert_allclose(similarity.token_cosines(*sides)[block], cosines, atol=1e-5)
    cosines = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.3, 0.2, 0.6]])
    found = similarity.retrieval(cosines, np.arange(3), np.arange(3))
    assert found == pytest.approx((2 / 3 + 3 / 3) / 2)  # both directions


def test_no_tensor_is_larger_than_the_scores_of_all_pairs():
    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(leaf.numel() for leaf in tree_leaves(out) if torch.is_tensor(leaf))
            return out

    model, sizes = GPT(GPTConfig(2, 3, 8, 60, 44, 128, 106)), []
    with Sizes():
        compare_states(model, np.arange(1, 101), np.arange(2, 102), [np.arange(100)] * 2)
    # the scores of three heads; with the width it is 60 times that
    assert 100 * 100 <= max(sizes) <= 3 * 100 * 100


def test_padding_does_not_count_and_what_cannot_be_compared_is_refused():
    model, same = tiny_model(106, 32), [np.arange(8)] * 2
    one, other, padded = np.arange(1, 9), np.arange(60, 68), np.pad(np.arange(1, 9), (0, 5))
    found = compare_states(model, one, other, same)
    for measure, values in compare_states(model, padded, other, same).items():
        np.testing.assert_allclose(found[measure], values, rtol=1e-6)
    assert gradient_similarity(model, padded, other) == gradient_similarity(model, one, other)
    for refuse, words in (
        (lambda: compare_states(model, one, other[:7], same), '8 and 7'),
        (lambda: compare_states(model, np.zeros(4, int), other), 'empty'),
        (lambda: gradient_similarity(model, np.zeros(4, int), other), 'empty'),
        (lambda: gradient_similarity(model, one[:1], other), 'no next token'),
    ):
        with pytest.raises(ConfigError, match=words):
            refuse()


def test_linear_cka_knows_rotated_states_and_is_not_fooled_by_few_tokens():
    rng, hsic_terms = np.random.default_rng(0), similarity.hsic_terms
    x = torch.from_numpy(rng.normal(size=(40, 12)) * np.arange(1, 13))
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(12, 12)))[0])
    assert abs(similarity.cka(np.array(hsic_terms(x, 3 * x @ rotation + 5))) - 1) < 1e-9
    unrelated = [hsic_terms(*torch.from_numpy(rng.normal(size=(2, 10, 64)))) for _ in range(300)]
    # the usual estimate gives 0.87 for 10 tokens of 64 dimensions
    assert abs(similarity.cka(np.mean(unrelated, 0))) < 0.05
    # what the unbiased estimate is: the mean over quadruples of different tokens
    x, y = torch.from_numpy(rng.normal(size=(2, 6, 3)))
    k, m = (x @ x.T).numpy(), (y @ y.T).numpy()
    direct = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i, j, q, r in itertools.permutations(range(6), 4)
    ]
    assert abs(hsic_terms(x, y)[0] - np.mean(direct)) < 1e-9


def test_vectors_are_compared_with_their_partners_and_with_controls():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(60, 8)) + 1
    other = one + 0.6 * rng.normal(size=(60, 8))
    other[0] = one.mean(0)  # a hub, which is near to all
    times, rows = np.r_[np.zeros(60), np.arange(60)], np.arange(120).reshape(2, 60)
    found, same = compare_vectors(one, other, times, rows), compare_vectors(one, other, times[60:])
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (one, other))
    cosines, values = x @ y.T, {name: measure.value for name, measure in found.items()}
    near = np.sort(cosines, 0)[-10:].mean(0), np.sort(cosines, 1)[:, -10:].mean(1)
    csls = 2 * cosines - near[0] - near[1][:, None]
    assert values['corresponding'] == pytest.approx(np.diag(cosines).mean(), abs=1e-6)
    assert values['cosine'] == pytest.approx((cosines.argmax(1) == np.arange(60)).mean())
    assert values['CSLS'] == pytest.approx((csls.argmax(1) == np.arange(60)).mean())
    assert values['CSLS'] > values['cosine']
    assert values['all pairs'] == pytest.approx(cosines.mean(), abs=1e-6)
    assert np.prod(found['all pairs'].interval() - values['all pairs']) < 0  # it lies between
    assert values['frequency-matched'] == same['frequency-matched'].value
    assert abs(values['random'] - (cosines.sum() - np.trace(cosines)) / (60 * 59)) < 0.1
    two = compare_vectors(np.eye(2), np.eye(2), np.arange(2))
    assert two['random'].value == 0 and two['corresponding'].value == 1


def test_the_same_geometry_that_is_shifted_and_rotated_is_found_by_its_measure_alone():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(300, 16)) + 2
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    other = one @ rotation - 3 + 0.1 * rng.normal(size=(300, 16))
    times = rng.integers(0, 1000, 300)
    sides = similarity.transformed(one, other)
    trained, centred, rotated = (compare_vectors(*two, times) for two in sides.values())
    assert trained['CSLS'].value < 0.05 and trained['chance'].value == 1 / 300
    assert centred['CSLS'].value < 0.05
    assert rotated['CSLS'].value > 0.95 and rotated['corresponding'].value > 0.95
    assert abs(rotated['frequency-matched'].value) < 0.1
    shifted = compare_vectors(*similarity.transformed(one, one + 5)['centred'], times)
    assert shifted['corresponding'].value == pytest.approx(1)
    # of forty pieces twenty can be rotated onto each other, but not those that are tested
    sides = similarity.transformed(*rng.normal(size=(2, 40, 32)))['rotated']
    rotated = compare_vectors(*sides, np.arange(40))
    assert abs(rotated['corresponding'].value) < 0.1 and rotated['CSLS'].value < 0.15


@pytest.mark.parametrize('n', [2, 3, 7, 500])
def test_a_frequency_matched_piece_is_another_one_a_few_ranks_away(n):
    rng = np.random.default_rng(0)
    times = rng.permutation(n) * 10
    others = similarity.frequency_matched(times, rng)
    assert (others != np.arange(n)).all()
    assert (abs(times[others] - times) <= 50).all()
    assert n < 500 or len(set(others)) > 200


def test_the_interval_of_a_mean_is_that_of_theory_and_differences_are_paired():
    values = np.random.default_rng(0).normal(3, 2, size=(400, 2))
    low, high = Estimate.of(values).interval()
    np.testing.assert_allclose((high - low) / 2, 1.645 * values.std(0) / 20, rtol=0.12)
    shifted = Estimate.of(values + 0.5) - Estimate.of(values)
    shifted.resamples[:9] = np.nan  # a few that are undefined
    np.testing.assert_allclose(shifted.interval(), 0.5)  # the same resamples
    one_document = Estimate.of(values, np.zeros(400))  # says nothing about the next
    assert np.isnan(one_document.interval()).all() and (one_document.value == values.mean(0)).all()


def coverage(estimate):
    """The share of the intervals of an estimate (trials,) that hold the truth, 0."""
    low, high = estimate.interval()
    return ((low < 0) & (high > 0)).mean()


def test_nine_of_ten_intervals_over_documents_and_over_seeds_hold_the_truth():
    rng = np.random.default_rng(0)
    for count in (3, 8, 30):
        documents = np.repeat(np.arange(count), 6)
        values = rng.normal(size=(count, 1000))[documents]
        values += 0.5 * rng.normal(size=values.shape)
        assert 0.85 < coverage(Estimate.of(values, documents)) < 0.95
        assert coverage(Estimate.of(values)) < 0.7  # what sequences by themselves would claim
    for count, spread in ((2, 1), (4, 1), (4, 0.1)):
        text = rng.normal(size=(20, 1000))  # what a document does to all runs
        noise = spread * (rng.normal(size=(count, 1, 1000)) + rng.normal(size=(count, 20, 1000)))
        found = [Estimate.of((text + x)[i:], range(i, 20), among=20) for i, x in enumerate(noise)]
        assert 0.85 < coverage(over_seeds(found)) < 0.98
        assert spread < 1 or coverage(found[0]) < 0.7  # the interval of that model


def constant(value, places):
    return {place: Estimate.of(np.full(3, value)) for place in places}


def test_a_table_has_a_row_for_each_run_and_line_and_a_column_for_each_place():
    one, other = ({'linear CKA': {'': constant(value, (1,))}} for value in (0.25, 0.75))
    (table,) = tables(dict(A=one, B=other, difference=difference(one, other)))
    title, columns, *rows = [line.split() for line in table.splitlines()]
    assert title == ['linear', 'CKA'] and columns == ['1']
    expected = [['A', '0.250'], ['B', '0.750'], ['difference', '0.500']]
    assert rows == [[*row, '±0.000'] for row in expected]
    blocks = range(1, 31)
    lines = dict(x=constant(1, blocks), y=constant(2, blocks) | {3: Estimate.exact(0)})
    (table,) = tables({'run': {'loss': lines}})
    assert max(map(len, table.splitlines())) <= 100  # thirty blocks in several parts
    assert table.count('run') == table.count('  x') > 1
    assert sum(line.split().count('1.000') for line in table.splitlines()) == 30


def test_results_over_training_have_the_first_middle_and_last_block_or_the_mean_over_bins():
    def result(value):
        names, bins = constant(value, ('pairs', 'random')), constant(value, ('1', '2-3', 'all'))
        blocks = constant(value, range(1, 8))
        return dict(cosine={'': names}, loss=dict(en=bins), lens=dict(a=blocks, b=blocks))

    found = over_training({5: result(0.5), 10: result(1.0)}, 'block')
    lens = [f'lens, block {block}' for block in (1, 4, 7)]
    assert found.keys() == {'cosine', 'loss', *lens}
    assert found['cosine'].keys() == {'pairs', 'random'} and found[lens[1]].keys() == {'a', 'b'}
    for lines in found.values():
        for cells in lines.values():
            assert {step: cell.value for step, cell in cells.items()} == {5: 0.5, 10: 1.0}


def test_word_vectors_know_the_neighbours_of_a_word():
    rng = np.random.default_rng(0)  # sentences of the words 1 to 9, or of the words 11 to 19
    sentences = rng.integers(1, 10, (4000, 32)) + 10 * rng.integers(0, 2, 4000)[:, None]
    how = sentences.astype(str).tolist(), 21, 16
    vectors, again = (similarity.word_vectors(*how)['output'] for _ in range(2))
    known = torch.cat([vectors[start : start + 9] for start in (1, 11)])
    one, other = F.normalize(known - known.mean(0), dim=-1).split(9)  # all avoid the noise words
    within, between = ((one @ one.T).sum() - 9) / 72, (one @ other.T).mean()
    assert within > between + 0.3
    assert torch.equal(vectors, again)
    assert (vectors[20] == 0).all()  # a row that does not occur


def estimates_in(found):
    """All (low, mean, high) in the JSON of a study."""
    if isinstance(found, dict) and found.keys() == {'mean', 'low', 'high'}:
        yield found['low'], found['mean'], found['high']
    elif isinstance(found, dict):
        for value in found.values():
            yield from estimates_in(value)


def check_files(run, names, together=()):
    """Each study has finite numbers in plausible places, and a picture that is not empty."""
    for name in names:
        path = f'{run}/{"-".join([name, *together])}'
        numbers = np.array(list(estimates_in(read(path))), float)
        most = 9 if name in ('lens', 'position', 'switch') else 1.5 + bool(together)
        assert len(numbers) and (abs(numbers[:, 1]) < most).all(), name  # losses, cosines, shares
        if name != 'matching':  # which has no interval, nor has chance
            assert np.isfinite(numbers[:, 0]).mean() > 0.9, name
            assert not (numbers[:, 0] > numbers[:, 2]).any(), name
        check_picture(f'{path}.png')


def check_picture(path):
    picture = image.imread(Path('out', path))
    assert min(picture.shape[:2]) > 100 and picture[..., :3].std() > 0.02, path


def means(cells):
    return {place: cell['mean'] for place, cell in cells.items()}


def test_all_studies_of_one_run_of_clones(uneven):
    folder, said = uneven
    check_files(folder, STUDIES)
    assert 'left out' not in said and '±: half of the 90% interval' in said
    found, after = read(folder / 'hidden'), 'on en2 after a context, nats'
    assert found['languages'] == ['en1', 'en2'] and found['linear CKA'][''].keys() == {'1', '2'}
    loss, gain = (read(folder / 'switch')[f'{kind} {after}'] for kind in ('loss', 'gain'))
    assert len(gain) == 3
    for context, cells in gain.items():  # over unrelated text in the language of the context
        own, unrelated = means(loss[context]), means(loss[f'{context.split(",")[0]}, unrelated'])
        assert means(cells) == pytest.approx({p: unrelated[p] - own[p] for p in own}, abs=1e-9)


def test_runs_that_differ_in_their_seed_alone_are_one_row_with_a_wider_interval(place, uneven):
    names, studies = ['uneven', 'even', 'seed_1'], ['hidden', 'gradients', 'matching']
    study(out_dir='out/seed_1', study='hidden')
    study(out_dirs=[f'out/{name}' for name in names], study=','.join(studies))
    check_files('uneven', studies, together=names)
    together = read('uneven/hidden-uneven-even-seed_1')
    assert ['and 1 more' in label for label in together] == [True, False, False]
    alone = [read(uneven[0] / 'hidden'), read('seed_1/hidden')]
    found = [result['linear CKA']['']['1'] for result in [*alone, *together.values()]]
    *cells, pooled, even, change = found
    assert pooled['mean'] == pytest.approx(np.mean([cell['mean'] for cell in cells]))
    assert pooled['high'] - pooled['low'] > cells[0]['high'] - cells[0]['low']
    assert change['mean'] == pytest.approx(even['mean'] - pooled['mean'], abs=1e-9)
    assert len(read('uneven/matching-uneven-even-seed_1')) == 3  # a matching has no mean
    shutil.copytree('out/even', 'out/copy')  # is no other seed
    runs = [analyze.StudiedRun(f'out/{name}') for name in ('even', 'copy')]
    assert analyze.replicates(runs) == [[run] for run in runs]
    for step, run in zip((100, 99), runs):  # controls with epochs differ in length
        vars(run).update(step=step, steps=[step], settings=run.settings | dict(seed=step, epochs=4))
    assert analyze.replicates(runs) == [runs]
    assert analyze.pooled(analyze.STUDIES['position'], runs, 0).panels


def test_a_control_run_beside_its_mixture_by_position(place):
    said = study(out_dirs=['out/uneven', 'out/control'], language_2='en2')
    assert 'left out: embeddings' in said
    check_files('uneven', ['lens', 'position'], together=['uneven', 'control'])
    assert not list(Path('out/uneven').glob('hidden*'))
    results = read('uneven/position-uneven-control').values()
    mix, control, change = (result['loss by position, nats'] for result in results)
    assert mix.keys() == {'en1', 'en2'} and control.keys() == change.keys() == {'en2'}
    expected = {bin: cell['mean'] - mix['en2'][bin]['mean'] for bin, cell in control['en2'].items()}
    assert means(change['en2']) == pytest.approx(expected, abs=1e-9)
    _, lens, _ = read('uneven/lens-uneven-control').values()
    assert lens['loss on the next piece, nats'].keys() == {'en2'}  # and nothing is said twice
    assert not any(heading.startswith(('mass', 'saved')) for heading in lens)


def test_losses_by_position_and_of_the_last_block_of_the_lens_are_the_models_own(uneven):
    model, languages, _ = analyze.load_run(uneven[0], uneven[0].parents[1] / 'data')
    for language in languages:
        losses = []
        for side, *_ in analyze.test_sequences(language.corpus, 6, 32):
            idx = torch.from_numpy(language.table[side].astype(np.int64))
            losses.append(F.cross_entropy(model(idx[None, :-1])[0], idx[1:], reduction='none'))
        losses = torch.stack(losses).detach().mean(0)
        found = means(read(uneven[0] / 'position')['loss by position, nats'][language.name])
        for name, part in {'1': slice(0, 1), '8-15': slice(7, 15), 'all': slice(0, 31)}.items():
            assert found[name] == pytest.approx(losses[part].mean().item(), abs=1e-5)
        said = means(read(uneven[0] / 'lens')['loss on the next piece, nats'][language.name])
        assert said['2'] == pytest.approx(losses.mean().item(), abs=1e-5)


def test_hidden_states_resample_the_documents_of_the_test_set(place):
    with mock.patch.object(Estimate, 'of', wraps=Estimate.of) as of:
        study(out_dir='out/even', study='hidden', parallel=['text.en'], min_tokens=4)
        _, numbers, _ = of.call_args.args
        assert len(numbers) > 1 and numbers == list(range(len(numbers)))  # each pair by itself
        study(out_dir='out/even', study='hidden', pairs=40, max_tokens=16)
        numbers = set(of.call_args.args[1])
    count = analyze.load_run('out/even')[1][0].corpus.info['test']['documents']
    assert numbers <= set(range(count)) and len(numbers) > 1
    assert read('even/hidden')['compared'] == f'40 sequences of {len(numbers)} documents'


def test_ten_clones_that_share_some_pieces(place):
    languages = [f'en{number}' for number in range(10)]
    new_run(Path('.'), 'ten', corpora=['en'] * 10, languages=languages, cloned_fraction=0.5)
    names = 'embeddings,hidden,lens,switch'
    study(out_dir='out/ten', study=names, language_2='en7', pairs=1, least_read=0)
    mass = [cells for name, cells in read('ten/lens').items() if name.startswith('mass')]
    assert [cells.keys() for cells in mass] == [{'en0', 'en7', 'shared', 'others'}] * 2
    assert read('ten/embeddings')['compared'].startswith('249 of 249 clones')
    assert read('ten/hidden')['languages'] == ['en0', 'en7']
    assert read('ten/hidden')['linear CKA']['']['1']['low'] is None  # no interval of a single pair
    assert not list(estimates_in(read('ten/switch')))  # one text has no unrelated one


def test_all_studies_of_real_languages_also_beside_clones(place):
    study(out_dir='out/disjoint', **REAL, **SENTENCES)
    check_files('disjoint', STUDIES)
    assert 'same position' not in read('disjoint/hidden')['cosine of hidden states']
    assert 'en, any language' in read('disjoint/lens')['loss on the next piece, nats']
    study(out_dirs=['out/even', 'out/disjoint'], study='hidden', **REAL)
    check_files('even', ['hidden'], together=['even', 'disjoint'])
    change = read('even/hidden-even-disjoint')['difference']['cosine of hidden states']
    assert 'matched' in change and 'same position' not in change


def test_pieces_that_share_their_row_are_not_compared(place):
    names = ['embeddings', 'frequency', 'word2vec']
    study(out_dir='out/anchored', study=','.join([*names, 'lens', 'hidden']), **REAL)
    check_files('anchored', ['lens', 'hidden'])
    for name in names:
        found = read(f'anchored/{name}')
        assert found['compared'].startswith('0 of 0 pieces') and not list(estimates_in(found))
        assert not Path(f'out/anchored/{name}.png').exists()
    assert 'en, any language' not in read('anchored/lens')['loss on the next piece, nats']


def test_studies_that_cannot_be_made_are_left_out_unless_they_are_all(place, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gensim', None)
    for run, names, left_out, sentences in (
        ('disjoint', ['gradients', 'matching'], ['gradients'], SENTENCES),
        ('disjoint', ['position', 'hidden', 'switch'], ['hidden', 'switch'], {}),
        ('even', ['position', 'word2vec'], ['word2vec'], {}),
    ):
        said = study(out_dir=f'out/{run}', study=','.join(names), **sentences)
        assert f'left out: {", ".join(left_out)}:' in said and said.count('left out') == 1
        check_files(run, set(names) - set(left_out))
        assert not any(Path(f'out/{run}/{name}.json').exists() for name in left_out)
    refused(called(out_dir='out/even', study='word2vec'), 'pip install gensim')


def test_rows_that_a_language_did_not_read_are_left_out(uneven, place):
    run = analyze.StudiedRun('out/uneven')
    times, seen = run.times_read(run.step), read(uneven[0] / 'results')['languages']
    assert times.sum() == run.step * 8 * 32
    for language in run.languages:
        assert times[language.table].sum() == seen[language.name]['tokens_seen']
    first, second = (language.table[1:] for language in run.languages)  # padding is the same
    often = (times[first] > 0) & (times[second] > 0)
    sides = (run.model.wte.weight[table[often]].detach() for table in (first, second))
    cells, found = F.cosine_similarity(*sides), read(uneven[0] / 'embeddings')
    cosine = found['cosine of input vectors, as trained']['']['corresponding']['mean']
    assert cosine == pytest.approx(cells.mean().item(), abs=1e-6)
    assert found['compared'].startswith(f'{often.sum()} of 499 clones') and 0 < often.sum() < 499
    pieces = read(uneven[0] / 'frequency')['pieces']
    assert sum(pieces.values()) == often.sum() and '0' not in pieces
    assert run.corresponding(0, 20)[0].shape == (2, 499)
    run.settings['train_only'] = 'en2'  # whose EN1 is another run's
    rows, read_by_both, _ = run.corresponding(1, 20)
    assert rows.shape[1] == (times[second] > 0).sum() > often.sum() and read_by_both[rows].all()


def test_bytes_and_control_pieces_of_two_corpora_do_not_correspond(place):
    run = analyze.StudiedRun('out/disjoint')
    first, second = (language.corpus.load_tokenizer() for language in run.languages)
    rows, *_ = run.corresponding(0, 8)
    tokens = np.flatnonzero(np.isin(run.languages[0].table, rows[0]))
    expected = set(first.spellings()) & set(second.spellings())
    expected -= {first.spelling(token) for token in range(500) if first.is_fallback(token)}
    assert {first.spelling(int(token)) for token in tokens} == expected != set()


def test_the_matching_shows_the_tokens_as_text_and_how_many_exceed_a_threshold(place):
    how = dict(out_dir='out/even', study='matching,hidden', sentence_1='Ba de fi.')
    for threshold in (0.0, 0.9):
        said, found = study(**how, matching_threshold=threshold), read('even/matching')
        one, other = found['tokens']
        assert ''.join(one).replace('▁', ' ').strip() == 'Ba de fi.' and one == other
        assert all(cosine > threshold or not threshold for *_, cosine in found['matches'])
        assert found['share'] == len(found['matches']) / len(one)
        assert (found['share'] < 1) == ('share of tokens matched' in said) == bool(threshold)
        assert f'{found["share"]:.0%} of the tokens matched' in said and one[0] in said
        check_picture('even/matching.png')


REFUSED = [
    (dict(out_dir='out/control', study='hidden'), 'one language'),
    (dict(out_dir='out/control', language_1='en1', study='lens'), 'en1'),
    (dict(out_dir='out/even', language_2='en7'), 'en7'),
    (dict(out_dir='out/even', language_1='en1', language_2='en1'), 'en1'),
    (dict(out_dir='out/disjoint', study='hidden'), 'parallel'),
    (dict(out_dir='out/disjoint', study='matching', sentence_1='Ba'), 'sentence_2'),
    (dict(out_dir='out/disjoint', parallel=['text.en', 'text.fr'], min_tokens=99), 'min_tokens'),
    (dict(out_dir='out/even', sentence_1='Ba de fi. ' * 20), 'block_size'),
    (dict(out_dir='out/even', sentence_2='Ba de fi.'), 'sentence_2'),
    (dict(out_dir='out/nowhere'), 'out/nowhere'),
    (dict(), 'out_dir'),
    (dict(out_dirs=['out/even', 'out/even']), 'out/even'),
    (dict(out_dir='out/uneven', study='hidden', steps='5,7'), 'step'),
    (dict(out_dir='out/uneven', study='hidden', steps='first'), 'steps'),
    (dict(out_dir='out/uneven', study='matching,word2vec', steps='all'), 'training'),
]
BAD = dict(study='x', matching_threshold=1, shown=0, pairs=0, max_tokens=3, least_read=-1, seed=-1)
REFUSED += [({'out_dir': 'out/even', name: value}, name) for name, value in BAD.items()]


@pytest.mark.parametrize('settings, name', REFUSED)
def test_what_cannot_be_analyzed_is_refused_before_any_work(place, settings, name):
    refused(called(**settings), name)
    assert not list(Path('out').glob('*/*.png'))


def test_studies_over_training_end_with_what_they_say_of_the_last_checkpoint(place, uneven):
    study(out_dir='out/uneven', steps='all', study='embeddings,hidden,gradients,lens,switch')
    for name, heading, block, line, point in (
        ('embeddings', 'cosine of input vectors, rotated', '', '', 'corresponding'),
        ('hidden', 'linear CKA', ', block 2', '', '2'),
        ('gradients', 'cosine of gradients, other tensors', '', '', 'macro average'),
        ('lens', 'mass on rows, en1 read', ', block 1', 'en2', '1'),
        ('switch', 'loss on en2 after a context, nats', '', 'nothing', 'all'),
    ):
        check_picture(f'uneven/{name}-steps.png')
        expected = read(uneven[0] / name)[heading][line][point]
        [found] = read(f'uneven/{name}-steps').values()
        cells = means(found[heading + block][line if point.isdigit() or line else point])
        assert list(cells) == ['5', '10', '20'], name
        assert cells['20'] == pytest.approx(expected['mean'], abs=1e-6) != cells['5']
    study(out_dirs=['out/uneven', 'out/even'], study='position', steps='all')
    found = read('uneven/position-steps-uneven-even').values()
    cells = [result['loss by position, nats']['en1'] for result in found]
    assert [list(one) for one in cells] == [['5', '10', '20'], ['20'], ['20']]
    check_picture('uneven/position-steps-uneven-even.png')


@pytest.mark.parametrize('name', ['hidden', 'gradients', 'lens', 'position', 'switch', 'matching'])
def test_what_a_language_makes_of_a_sequence_is_decided_in_one_place(name, place, monkeypatch):
    def refuse(language, side):
        raise ConfigError(f'{language.name} reads nothing')

    monkeypatch.setattr(Language, 'ids', refuse)
    refused(called(out_dir='out/even', study=name), 'reads nothing')


def test_names_in_a_picture_are_text_never_mathematics_and_never_hidden(tmp_path):
    results = {'_a$k$': {'cosine': {'_x': constant(0.5, (1, 2)), 'u$k$': constant(0.2, (1, 2))}}}
    with mock.patch.object(plt, 'close') as close:  # the figure stays open
        plots.draw_study(tmp_path / 'a.png', '$\\frac$ of _en', results, 'block')
    (figure,) = close.call_args.args
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['_x', 'u$k$']
    assert not any(text.get_parse_math() for text in figure.findobj(plt.Text))


def test_wide_letters_have_wide_boxes_and_a_missing_letter_is_named_once(tmp_path, capsys):
    assert [estimate.width_of(text) for text in ('ab', '中文', 'e\u0301')] == [2, 4, 1]
    private = '\ue123'  # no font has it
    more = dict(names=['zh', 'en'], shown=[0, 24], matches=[[0, 0, 0.5], [1, 1, 0.1]])
    more['tokens'] = [['中文', private], ['ab', 'c']]
    result = analyze.Result('one pair', {}, more)
    for name in ('a', 'b'):
        plots.draw_matching(tmp_path / f'{name}.png', 'matching', dict(run=result))
        check_picture(tmp_path / f'{name}.png')
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and private in said[0]


def test_letters_that_the_usual_fonts_lack_are_drawn_with_an_installed_one(monkeypatch, capsys):
    manager = plots.font_manager
    mono, sans, serif = (manager.findfont(f) for f in ('monospace', 'DejaVu Sans', 'DejaVu Serif'))
    known = [set(manager.get_font(path).get_charmap()) for path in (mono, sans, serif)]
    monkeypatch.setattr(manager, 'findSystemFonts', lambda: [serif])
    letter = chr(min(known[2] - known[1] - known[0]))
    assert plots.fonts_for(frozenset(letter)) == ['DejaVu Serif']
    assert not capsys.readouterr().out
