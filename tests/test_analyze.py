"""analyze.py and its measures: against the paper's own code, against loops, and end to end."""

import itertools
import json
import shutil
from types import SimpleNamespace

from lib.configurator import ConfigError, settings_of

import networkx as nx
import numpy as np
import pytest
import similarity
import torch
import torch.nn.functional as F
from conftest import TINY, refused, script
from matplotlib import image
from torch.utils._python_dispatch import TorchDispatchMode

import analyze
from data import DOCUMENT_END, Language, aligned_lines, pack, sequence_pairs
from lib.similarity import (
    Estimate,
    cka,
    compare_states,
    compare_vectors,
    difference,
    gradient_similarity,
    hsic_terms,
    match_tokens,
    over_seeds,
    plain,
    retrieval,
    tables,
    token_cosines,
)
from model import GPT, GPTConfig

QUICK = dict(device='cpu', max_tokens=32, pairs=6, word2vec_dim=16, word2vec_steps=8)


@pytest.fixture(scope='session')
def trained(made_once, tmp_path_factory):
    """A folder with runs of a moment, out/even, out/uneven and (of another seed)
    out/seed_1 of clones, out/anchored and out/disjoint of two
    corpora, out/alone of one language, and text.en and text.fr, aligned line by line."""
    root = tmp_path_factory.mktemp('runs')
    shutil.copytree(made_once / 'data', root / 'data')
    real = ['--corpora=[en,fr]', '--languages=[en,fr]', '--max_steps=8']
    for name, more in dict(
        even=['--stages=[[0.5,0.5]]'],
        uneven=['--keep_checkpoints=[5,10]'],
        seed_1=['--seed=1'],
        anchored=[*real, '--vocabulary=anchored'],
        disjoint=real,
        alone=['--corpora=[en]', '--languages=[en]', '--stages=[[1]]', '--max_steps=1'],
    ).items():
        done = script(
            'train',
            *TINY,
            '--warmup_steps=0',
            '--max_steps=20',
            *more,
            f'--out_dir=out/{name}',
            cwd=root,
        )
        assert done.returncode == 0, done.stderr
    for language in ('en', 'fr'):
        text = (made_once / f'text_{language}' / '0000.txt').read_text().split('.')
        (root / f'text.{language}').write_text('\n'.join(line.strip() for line in text[:25]) + '\n')
    return root


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A folder of one's own like `trained`, which is also the current one."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def studied(place, monkeypatch):
    """Function of settings: runs analyze.py's main with them."""
    defaults = {name: getattr(analyze, name) for name in settings_of(analyze.__file__)}

    def call(**settings):
        for name, value in (defaults | QUICK | settings).items():
            monkeypatch.setattr(analyze, name, value)
        analyze.main()

    return call


def tiny_model(seed=0, **more):
    shape = (
        dict(n_layer=2, n_head=3, head_dim=8, n_embd=20, mlp_dim=44, block_size=16, vocab_size=106)
        | more
    )
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


# --- against the paper's own code -----------------------------------------------------------------


@pytest.mark.parametrize('kind', ['clone', 'match'])
def test_hidden_and_gradient_similarities_are_those_of_the_papers_code(
    kind, reference, reference_model
):
    pairs = list(zip(reference[f'{kind}_l1'], reference[f'{kind}_l2']))
    assert len(pairs) == 5
    for i, (one, other) in enumerate(pairs):
        states = compare_states(reference_model, one, other, clones=kind == 'clone')
        found = states['positions' if kind == 'clone' else 'matched']
        np.testing.assert_allclose(found, reference[f'{kind}_hidden_sims'][:, i], atol=1e-5)
        found = gradient_similarity(reference_model, torch.from_numpy(one), torch.from_numpy(other))
        assert found.keys() == dict(reference_model.named_parameters()).keys()
        for name, cosine in found.items():
            # The gradient of a key bias is 0: what rounding leaves of it is no figure to compare.
            tolerance = 1e-2 if name.endswith('attn.k.bias') else 1e-5
            assert abs(cosine - reference[f'{kind}_grad_sims/{name}'][i]) < tolerance, name


def test_the_true_gradient_of_a_key_bias_is_zero():
    model = tiny_model().double()
    gradients = similarity.loss_gradients(model, np.arange(1, 16))
    for name, gradient in gradients.items():
        assert (gradient.norm() < 1e-6) == name.endswith('attn.k.bias'), name


# --- matching -------------------------------------------------------------------------------------


@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (6, 6), (4, 9), (9, 4)])
def test_the_matching_is_a_full_one_of_the_largest_weight(shape):
    for seed in range(5):
        weights = np.random.default_rng(seed).normal(size=shape)
        rows, columns = match_tokens(torch.from_numpy(weights))
        assert len(rows) == len(set(rows)) == len(set(columns)) == min(shape)
        graph = nx.Graph(
            (('row', i), ('column', j), dict(weight=w)) for (i, j), w in np.ndenumerate(weights)
        )
        expected = sum(
            graph.edges[edge]['weight']
            for edge in nx.max_weight_matching(graph, maxcardinality=True)
        )
        assert abs(weights[rows, columns].sum() - expected) < 1e-9


def best_weight(weights):
    """The largest weight of a matching, full or not, of the rows one after the other."""
    if not len(weights):
        return 0
    rest = weights[1:]
    chosen = [w + best_weight(np.delete(rest, j, 1)) for j, w in enumerate(weights[0])]
    return max([best_weight(rest), *chosen])


@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (5, 5), (4, 6), (6, 4)])
def test_a_matching_above_a_threshold_is_the_heaviest_of_the_pairs_above_it(shape):
    for seed in range(5):
        weights = np.random.default_rng(seed).uniform(-1, 1, size=shape)
        for threshold in (0.01, 0.5, 0.9):
            rows, columns = match_tokens(weights, threshold)
            assert len(rows) == len(set(rows)) == len(set(columns))
            assert (weights[rows, columns] > threshold).all()
            expected = best_weight(np.where(weights > threshold, weights, 0))
            assert abs(weights[rows, columns].sum() - expected) < 1e-9


def test_a_token_without_a_counterpart_stays_alone_above_a_threshold():
    cosines = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert [side.tolist() for side in match_tokens(cosines)] == [[0, 1], [0, 1]]
    assert [side.tolist() for side in match_tokens(cosines, 0.3)] == [[0], [0]]
    assert match_tokens(cosines, 0.95).shape == (2, 0)


def test_the_share_of_tokens_matched_falls_with_the_threshold():
    model, one, other = tiny_model(), np.arange(1, 9), np.arange(60, 70)
    assert 'share' not in compare_states(model, one, other, False)
    shares = [compare_states(model, one, other, False, t)['share'] for t in (0.01, 0.3, 0.99)]
    assert (shares[0] > 0.5).all() and (shares[0] >= shares[1]).all() and (shares[2] == 0).all()
    assert (shares[0] <= 16 / 18).all()  # eight tokens cannot give ten a partner each


def test_matching_finds_a_shuffled_sequence_again_where_states_depend_on_nothing_but_the_token():
    model, rng = tiny_model(), np.random.default_rng(0)
    with torch.no_grad():
        model.wpe.weight.zero_()
        for block in model.blocks:
            block.attn.o.weight.zero_()
    tokens = rng.permutation(np.arange(1, 106))[:12]
    found = compare_states(model, tokens, rng.permutation(tokens), clones=True)
    np.testing.assert_allclose(found['matched'], 1, atol=1e-5)
    assert (found['positions'] < 0.9).all()


def test_tokens_that_clones_read_in_another_order_are_compared_where_they_stand(place, monkeypatch):
    monkeypatch.setattr(analyze, 'device', 'cpu')
    monkeypatch.setattr(analyze, 'pairs', 4)
    run = analyze.Run('out/even')
    with torch.no_grad():  # states depend on nothing but the token, and the languages are the same
        for block in run.model.blocks:
            block.attn.o.weight.zero_()
        run.model.wpe.weight.zero_()
        run.model.wte.weight[run.languages[1].table] = run.model.wte.weight[run.languages[0].table]
    run.languages[1].order = 'reversed'
    np.testing.assert_allclose(analyze.study_hidden(run)['positions'].value, 1, atol=1e-5)


# --- hidden states and gradients ------------------------------------------------------------------


def same_under_both_vocabularies(model):
    """The model with the weights of entries 53 to 105 a copy of those of 0 to 52."""
    with torch.no_grad():
        for weight in (model.wte.weight, model.head.weight):
            weight[53:] = weight[:53]
    return model


def test_clones_with_the_same_weights_are_the_same_in_every_measure():
    model, tokens = (
        same_under_both_vocabularies(tiny_model()),
        np.array([3, 17, 5, 44, 9, 28, 1, 50, 2, 31]),
    )
    found = compare_states(model, tokens, tokens + 53, True)
    for measure in ('positions', 'matched', 'retrieval'):
        np.testing.assert_allclose(found[measure], 1, atol=1e-5)
    np.testing.assert_allclose(cka(found['hsic']), 1, atol=1e-5)
    assert (found['any'] < 0.95).all()
    for name, cosine in gradient_similarity(model, tokens, tokens + 53).items():
        if name.startswith('blocks.') and not name.endswith('k.bias') or name == 'wpe.weight':
            assert abs(cosine - 1) < 1e-4, name
    assert (
        abs(gradient_similarity(model, tokens, tokens + 53)['wte.weight']) < 1e-6
    )  # rows of different entries


def test_measures_on_pairs_of_states_are_those_of_loops():
    model, one, other = tiny_model(), np.arange(1, 8), np.arange(60, 71)
    found = compare_states(model, one, other, False)
    assert 'positions' not in found
    states = [
        model.hidden_states(torch.from_numpy(tokens)[None])[:, 0].detach()
        for tokens in (one, other)
    ]
    for layer in range(2):
        cosines = np.array(
            [
                [F.cosine_similarity(x, y, dim=0).item() for y in states[1][layer]]
                for x in states[0][layer]
            ]
        )
        assert abs(found['any'][layer] - cosines.mean()) < 1e-5
        np.testing.assert_allclose(token_cosines(model, one, other)[layer], cosines, atol=1e-5)


def test_no_tensor_is_larger_than_the_scores_of_all_pairs():
    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                Largest.seen = max(Largest.seen, tensor.numel() if torch.is_tensor(tensor) else 0)
            return out

    model = tiny_model(n_embd=60, block_size=128)
    for compare in (
        lambda *sides: token_cosines(model, *sides),
        lambda *sides: compare_states(model, *sides, True),
    ):
        Largest.seen = 0
        with Largest():
            compare(np.arange(1, 101), np.arange(2, 102))
        assert (
            100 * 100 <= Largest.seen <= 3 * 100 * 100
        )  # the scores of three heads; with the width it is 60 times that


def test_padding_does_not_count_and_what_cannot_be_compared_is_refused():
    model, one, other = tiny_model(), np.arange(1, 9), np.arange(60, 68)
    padded = np.pad(one, (0, 5))
    found, same = (compare_states(model, tokens, other, True) for tokens in (one, padded))
    for measure, values in found.items():
        np.testing.assert_allclose(same[measure], values, rtol=1e-6)
    assert gradient_similarity(model, padded, other) == gradient_similarity(model, one, other)
    with pytest.raises(ConfigError, match='8 and 7 tokens'):
        compare_states(model, one, other[:7], True)
    for function in (token_cosines, gradient_similarity):
        with pytest.raises(ConfigError, match='empty'):
            function(model, np.zeros(4, int), other)
    with pytest.raises(ConfigError, match='no next token'):
        gradient_similarity(model, one[:1], other)


def test_gradient_similarity_is_the_cosine_of_autograds_gradients():
    model, one, other = tiny_model(), np.arange(1, 9), np.arange(60, 71)
    gradients = []
    for tokens in (one, other):
        model.zero_grad()
        idx = torch.from_numpy(tokens)[None]
        F.cross_entropy(model(idx[:, :-1])[0], idx[0, 1:]).backward()
        gradients.append({name: p.grad.flatten().clone() for name, p in model.named_parameters()})
    for name, cosine in gradient_similarity(model, one, other).items():
        if not name.endswith('k.bias'):
            assert (
                abs(
                    cosine
                    - F.cosine_similarity(gradients[0][name], gradients[1][name], dim=0).item()
                )
                < 1e-5
            ), name


def test_linear_cka_knows_rotated_states_and_is_not_fooled_by_few_tokens():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(40, 12)) * np.arange(1, 13))
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(12, 12)))[0])
    assert abs(cka(np.array(hsic_terms(x, 3 * x @ rotation + 5))) - 1) < 1e-9
    unrelated = [hsic_terms(*torch.from_numpy(rng.normal(size=(2, 10, 64)))) for _ in range(300)]
    assert (
        abs(cka(np.mean(unrelated, 0))) < 0.05
    )  # the usual estimate gives 0.87 for 10 tokens of 64 dimensions
    # what the unbiased estimate is: the mean over quadruples of different tokens
    x, y = torch.from_numpy(rng.normal(size=(2, 6, 3)))
    k, m = (x @ x.T).numpy(), (y @ y.T).numpy()
    direct = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i, j, q, r in itertools.permutations(range(6), 4)
    ]
    assert abs(hsic_terms(x, y)[0] - np.mean(direct)) < 1e-9


def test_retrieval_counts_both_directions():
    cosines = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.3, 0.2, 0.6]])
    everything = np.arange(3)
    assert retrieval(cosines, everything, everything) == pytest.approx((2 / 3 + 3 / 3) / 2)


def test_vectors_are_compared_with_their_partners_and_with_controls():
    rng = np.random.default_rng(1)
    one = rng.normal(size=(50, 8)) + 1
    other = one + 0.3 * rng.normal(size=(50, 8))
    found = compare_vectors(one, other)
    cosines = np.array(
        [[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in other] for x in one]
    )
    assert found['pairs'].value == pytest.approx(np.diag(cosines).mean(), abs=1e-6)
    assert found['retrieval'].value == pytest.approx((cosines.argmax(1) == np.arange(50)).mean())
    assert found['any'].value == pytest.approx(cosines.mean(), abs=1e-6)
    low, high = found['any'].interval()
    assert low < found['any'].value < high
    assert abs(found['random'].value - (cosines.sum() - np.trace(cosines)) / (50 * 49)) < 0.1
    assert set(compare_vectors(one, other[:30], paired=False)) == {'random', 'any'}
    two = compare_vectors(np.eye(2), np.eye(2))  # the only random pairs that do not correspond
    assert two['random'].value == 0 and two['pairs'].value == 1
    assert set(compare_vectors(np.eye(1), np.eye(1))) == {'pairs'}


def turned_copy(rng, noise, n=300, width=16):
    """Vectors (n, width) and the same after a rotation and a shift, with noise."""
    one = rng.normal(size=(n, width)) + 2
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    return one, one @ rotation - 3 + noise * rng.normal(size=(n, width))


def test_the_same_geometry_that_is_shifted_and_turned_is_found_by_its_measure_alone():
    rng = np.random.default_rng(0)
    one, other = turned_copy(rng, noise=0.1)
    times = rng.integers(0, 1000, 300)
    plain_measures = compare_vectors(one, other, times=times)
    assert plain_measures['csls'].value < 0.05 and plain_measures['chance'].value == 1 / 300
    geometry = similarity.compare_geometry(one, other, times=times)
    assert geometry['centred']['csls'].value < 0.05
    assert geometry['turned']['csls'].value > 0.95
    assert geometry['turned']['pairs'].value > 0.95
    assert abs(geometry['turned']['frequency'].value) < 0.1
    shifted = similarity.compare_geometry(one, one + 5, times=times)
    assert shifted['centred']['pairs'].value == pytest.approx(1)


def test_a_turn_is_tested_on_pieces_that_it_was_not_fitted_on():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 40, 32))  # 20 pairs can be turned onto each other, untested
    geometry = similarity.compare_geometry(one, other)
    assert abs(geometry['turned']['pairs'].value) < 0.1
    assert geometry['turned']['csls'].value < 0.15


def test_csls_is_not_deceived_by_a_vector_that_is_near_to_all():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(60, 8)) + 1
    other = one + 0.6 * rng.normal(size=(60, 8))
    other[0] = one.mean(0)  # a hub
    measures = compare_vectors(one, other)
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other))
    cosines = one @ other.T
    near = np.sort(cosines, 0)[-10:].mean(0), np.sort(cosines, 1)[:, -10:].mean(1)
    scores = 2 * cosines - near[0] - near[1][:, None]
    expected = (scores.argmax(1) == np.arange(60)).mean()
    assert measures['csls'].value == pytest.approx(expected)
    assert measures['csls'].value > measures['retrieval'].value


@pytest.mark.parametrize('n', [2, 3, 7, 500])
def test_a_piece_of_the_same_frequency_is_another_one_a_few_ranks_away(n):
    rng = np.random.default_rng(0)
    times = rng.permutation(n) * 10
    others = similarity.alike_in_rank(times, rng)
    assert (others != np.arange(n)).all()
    assert (abs(times[others] - times) <= 50).all()
    assert n < 500 or len(set(others)) > 200


# --- intervals ------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_that_of_theory_and_differences_are_paired():
    values = np.random.default_rng(0).normal(3, 2, size=(400, 2))
    low, high = Estimate.of(values).interval()
    np.testing.assert_allclose((high - low) / 2, 1.645 * values.std(0) / 20, rtol=0.12)
    np.testing.assert_allclose(Estimate.of(values).value, values.mean(0))
    shifted = Estimate.of(values + 0.5) - Estimate.of(values)
    np.testing.assert_allclose(shifted.interval(), 0.5)  # the same pairs are drawn for both
    assert np.isnan(Estimate.of(values[:1]).interval()).all()  # one value says nothing about others
    row = Estimate.joined([Estimate.of(values[:, 0]), None])
    assert plain(row)['mean'] == [pytest.approx(values[:, 0].mean()), None]


def test_sequences_of_one_document_are_drawn_together():
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(40), 8)
    values = rng.normal(size=40)[documents]  # a document has nothing new after its first sequence
    by_document, alone = Estimate.of(values, documents), Estimate.of(values)
    assert by_document.value == alone.value == values.mean()
    widths = [np.diff(estimate.interval())[0] for estimate in (by_document, alone)]
    assert widths[0] == pytest.approx(np.diff(Estimate.of(values[::8]).interval())[0])
    assert widths[0] / widths[1] == pytest.approx(8**0.5, rel=0.15)
    single = Estimate.of(values, np.zeros(320))
    assert np.isnan(single.interval()).all()  # one document says nothing about the next


@pytest.mark.parametrize('count', [3, 8, 30])
def test_nine_of_ten_intervals_over_documents_hold_the_truth(count):
    rng, trials = np.random.default_rng(0), 1000
    documents = np.repeat(np.arange(count), 6)
    values = rng.normal(size=(count, trials))[documents]
    values += 0.5 * rng.normal(size=(len(documents), trials))
    low, high = Estimate.of(values, documents).interval()
    assert 0.85 < ((low < 0) & (high > 0)).mean() < 0.95
    low, high = Estimate.of(values).interval()
    assert ((low < 0) & (high > 0)).mean() < 0.7  # what sequences that count alone would claim


@pytest.mark.parametrize('count', [2, 4])
def test_at_least_nine_of_ten_intervals_over_seeds_hold_the_truth(count):
    rng, trials = np.random.default_rng(0), 1000
    text = rng.normal(size=(20, trials))  # what a document does to all runs alike
    runs = []
    for _ in range(count):
        noise = rng.normal(size=trials) + rng.normal(size=(20, trials))
        runs.append(dict(a=Estimate.of(text + noise)))
    low, high = over_seeds(runs)['a'].interval()
    assert 0.85 < ((low < 0) & (high > 0)).mean() < 0.98
    low, high = runs[0]['a'].interval()
    assert ((low < 0) & (high > 0)).mean() < 0.7  # the interval of that model alone


def test_results_of_seeds_become_one_and_their_mean_is_subtracted():
    rng = np.random.default_rng(0)
    runs = [dict(kind='x', part=dict(a=Estimate.of(rng.normal(size=(9, 2))))) for _ in range(3)]
    pooled = over_seeds(runs)
    means = [run['part']['a'].value for run in runs]
    np.testing.assert_allclose(pooled['part']['a'].value, np.mean(means, axis=0))
    assert pooled['kind'] == 'x' and over_seeds(runs[:1])['part']['a'] is runs[0]['part']['a']
    change = difference(pooled, runs[0])
    assert change.keys() == {'part'}
    np.testing.assert_allclose(change['part']['a'].value, means[0] - np.mean(means, axis=0))


def test_a_table_has_a_row_for_each_run_a_column_for_each_block_and_the_difference():
    first, second = (dict(cka=Estimate.of(np.full((3, 2), value))) for value in (0.25, 0.75))
    (table,) = tables(['A', 'B'], [first, second])
    title, columns, *rows = [line.split() for line in table.splitlines()]
    assert title == ['linear', 'CKA'] and columns == ['1', '2']
    assert rows[::2] == [
        ['A'] + ['0.250'] * 2,
        ['B'] + ['0.750'] * 2,
        ['difference'] + ['0.500'] * 2,
    ]
    assert rows[1::2] == [['±0.000'] * 2] * 3


# --- parallel text --------------------------------------------------------------------------------


def test_lines_are_joined_while_both_sides_fit():
    def packed(*lengths, most=10, least=3):
        number = itertools.count()
        lines = [tuple([next(number)] * n for n in line) for line in lengths]
        return [tuple(map(len, pair)) for pair in pack(lines, most, least)]

    assert packed((4, 3), (6, 2), (1, 1), (3, 3)) == [(10, 5), (4, 4)]
    assert packed((4, 3), (2, 8), (5, 1)) == [(4, 3), (7, 9)]  # one side alone ends a sequence
    assert packed((4, 3), (11, 2), (2, 8)) == [
        (4, 3)
    ]  # the long line is skipped; the last pair has a side under 3
    assert packed((4, 3), (3, 11), (2, 3)) == [(6, 6)]  # and what is around it is joined
    assert packed((9, 2), (9, 9)) == [(9, 9)]
    assert packed((4, 3), (3, 0), (2, 3)) == [(6, 6)]  # as is one without a translation
    assert packed() == packed((11, 1)) == []
    one, other = next(pack([([1], [2]), ([3, 4], [5])], 10, 1))
    assert one == [1, 3, 4] and other == [2, 5]


def test_aligned_files_must_be_aligned(tmp_path):
    for name, text in dict(a='one\ntwo\n', b='un\ndeux\ntrois\n', c='', d='\n \n').items():
        (tmp_path / name).write_text(text)
    a, b, c, d = (str(tmp_path / name) for name in 'abcd')
    assert list(aligned_lines([a, a])) == [('one', 'one'), ('two', 'two')]
    for paths, words in (
        ((a, b), '2 and 3'),
        ((a, c), 'empty'),
        ((d, a), 'empty'),
        ((a, str(tmp_path / 'e')), 'no file'),
    ):
        with pytest.raises(ConfigError, match=words):
            list(aligned_lines(paths))


def test_clones_without_parallel_text_get_sequences_of_the_test_set():
    tokens = np.arange(3, 1003, dtype=np.uint16)
    tokens[[120, 655]] = DOCUMENT_END
    corpus = SimpleNamespace(name='c', test=tokens)
    one, other = Language('en1', corpus, None), Language('en2', corpus, None)
    found = sequence_pairs(one, other, [], 4, 100, 25)
    assert [side[0] for side, _, _ in found] == [3, 303, 603, 903]
    assert all((side_1 == side_2).all() for side_1, side_2, _ in found)
    assert [document for *_, document in found] == [0, 1, 1, 2]  # those of the middle tokens
    assert len(sequence_pairs(one, other, [], 500, 100, 25)) == 10
    corpus.test = corpus.test[:99]
    with pytest.raises(ConfigError, match='fewer than one sequence'):
        sequence_pairs(one, other, [], 4, 100, 25)


# --- word vectors ---------------------------------------------------------------------------------


def test_word_vectors_know_the_neighbours_of_a_word():
    rng = np.random.default_rng(0)
    half = rng.integers(0, 2, 4000)[
        :, None
    ]  # sentences of the words 1 to 9, or of the words 11 to 19
    sentences = (rng.integers(1, 10, (4000, 32)) + 10 * half).astype(np.int64)
    mix = SimpleNamespace(batch=lambda step: (sentences[80 * step : 80 * step + 80],))
    vectors = analyze.word_vectors(mix, 50, 21, 16)
    known = torch.cat([vectors[1, start : start + 9] for start in (1, 11)])
    one, other = F.normalize(known - known.mean(0), dim=-1).split(
        9
    )  # all turn away from the noise alike
    within, between = ((one @ one.T).sum() - 9) / 72, (one @ other.T).mean()
    assert within > between + 0.3
    assert torch.equal(vectors, analyze.word_vectors(mix, 50, 21, 16))
    assert (vectors[:, 20] == 0).all()  # an id that does not occur


# --- runs, end to end -----------------------------------------------------------------------------

STUDIES = ['embeddings', 'frequency', 'hidden', 'gradients', 'lens', 'switch', 'matching']
STUDIES += ['word2vec']


def means_of(found):
    """All means in the JSON of a study."""
    if isinstance(found, dict) and set(found) == {'mean', 'low', 'high'}:
        yield from np.ravel(
            np.array([found['low'], found['mean'], found['high']], float).T.reshape(-1, 3)
        ).reshape(-1, 3)
    elif isinstance(found, dict):
        for value in found.values():
            yield from means_of(value)
    elif isinstance(found, list):
        for value in found:
            yield from means_of(value)


def check_files(folder, names, together=()):
    for name in names:
        found = json.loads((folder / f'{name}.json').read_text())
        means = np.array(list(means_of(found)))
        if name != 'matching':
            assert len(means) and np.isfinite(means).all(), name
            most = (
                9 if name in ('lens', 'switch') else 1.5
            )  # losses; all else are cosines and shares
            assert (means[:, 0] <= means[:, 2]).all() and (abs(means[:, 1]) < most).all(), name
        picture = image.imread(folder / f'{"-".join([name, *together])}.png')
        assert min(picture.shape[:2]) > 200 and picture[..., :3].std() > 0.02, name


def test_all_studies_of_one_run_of_clones(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    done = script(
        'analyze',
        '--out_dir=out/uneven',
        '--study=all',
        *(f'--{k}={v}' for k, v in QUICK.items()),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    check_files(tmp_path / 'out/uneven', STUDIES)
    assert not any(
        ' - ' in line or line.endswith(' -') for line in done.stdout.splitlines()
    )  # nothing is missing
    assert 'of this model' in done.stdout and '±: half of the 90% interval' in done.stdout
    found = json.loads((tmp_path / 'out/uneven/hidden.json').read_text())
    assert (
        len(found['positions']['mean']) == 2
        and found['language_2'] == 'en2'
        and 0.6 < found['share_1'] < 1
    )


def test_two_runs_of_clones_side_by_side(studied, place, capsys):
    studied(out_dirs=['out/even', 'out/uneven'], study='all')
    for name in ('even', 'uneven'):
        assert all((place / f'out/{name}/{study}.json').is_file() for study in STUDIES)
    check_files(place / 'out/even', STUDIES, together=['even', 'uneven'])
    difference = json.loads((place / 'out/even/hidden-even-uneven.json').read_text())['difference']
    one, other = (
        json.loads((place / f'out/{name}/hidden.json').read_text()) for name in ('even', 'uneven')
    )
    np.testing.assert_allclose(
        difference['positions']['mean'],
        np.subtract(other['positions']['mean'], one['positions']['mean']),
        atol=1e-9,
    )
    said = capsys.readouterr().out
    assert 'difference' in said and 'of these two models' in said


def test_runs_that_differ_in_their_seed_alone_are_one_row_with_a_wider_interval(
    studied, place, capsys
):
    studied(out_dirs=['out/uneven', 'out/even', 'out/seed_1'], study='hidden,gradients,matching')
    said = capsys.readouterr().out
    assert 'uneven and 1 more seed' in said and 'of these two models and their seeds' in said
    found = {
        name: json.loads((place / f'out/{name}/hidden.json').read_text())['any']
        for name in ('uneven', 'seed_1')
    }
    together = json.loads((place / 'out/uneven/hidden-uneven-even-seed_1.json').read_text())
    assert len(together['runs']) == 2 and together['runs'][1].startswith('even (')
    mean = together['values'][0]['any']
    np.testing.assert_allclose(
        mean['mean'], np.mean([run['mean'] for run in found.values()], axis=0)
    )
    width = np.subtract(mean['high'], mean['low'])
    assert width.mean() > np.subtract(found['uneven']['high'], found['uneven']['low']).mean()
    check_files(
        place / 'out/uneven',
        ['hidden', 'gradients', 'matching'],
        together=['uneven', 'even', 'seed_1'],
    )


def test_a_copy_of_a_run_is_no_other_seed(studied, place, capsys):
    shutil.copytree(place / 'out/even', place / 'out/copy')
    studied(out_dirs=['out/even', 'out/copy'], study='embeddings')
    said = capsys.readouterr().out
    assert 'more seed' not in said and 'difference' in said


def test_hidden_states_resample_the_documents_of_the_test_set(studied, place, monkeypatch, capsys):
    documents = []
    compared = similarity.Estimate.of

    def of(values, numbers=None, *statistic):
        documents.append(numbers)
        return compared(values, numbers, *statistic)

    monkeypatch.setattr(similarity.Estimate, 'of', of)
    studied(out_dir='out/even', study='hidden', pairs=40, max_tokens=16)
    corpus = analyze.load_run('out/even')[1][0].corpus
    assert (
        set(documents[0]) <= set(range(corpus.info['test']['documents']))
        and len(set(documents[0])) > 1
    )
    assert f'40 pairs of sequences of {len(set(documents[0]))} documents' in capsys.readouterr().out
    documents.clear()
    studied(out_dir='out/even', study='hidden', parallel=['text.en'], min_tokens=4)
    assert len(documents[0]) > 1 and documents[0] == list(range(len(documents[0])))


def test_clones_beside_real_languages(studied, place):
    studied(
        out_dirs=['out/even', 'out/disjoint'],
        study='hidden',
        parallel=['text.en', 'text.fr'],
        min_tokens=4,
    )
    check_files(place / 'out/even', ['hidden'], together=['even', 'disjoint'])
    difference = json.loads((place / 'out/even/hidden-even-disjoint.json').read_text())[
        'difference'
    ]
    assert 'matched' in difference and 'positions' not in difference


def test_ten_clones_that_share_some_pieces_in_two_stages(made_once, tmp_path, monkeypatch, studied):
    shutil.copytree(made_once / 'data', tmp_path / 'data', dirs_exist_ok=True)
    names = [f'en{n}' for n in range(10)]
    stages = [[0.5] + [0.5 / 9] * 9, [0.1] * 10]
    done = script(
        'train',
        *TINY,
        f'--corpora={["en"] * 10}',
        f'--languages={names}',
        f'--stages={stages}',
        '--cloned_fraction=0.5',
        '--warmup_steps=0',
        '--max_steps=4',
        '--out_dir=out/ten',
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    studied(out_dir='out/ten', study='all', language_2='en7', pairs=1)
    names = [name for name in STUDIES if name != 'switch']  # one text has no unrelated one
    found = {name: json.loads((tmp_path / f'out/ten/{name}.json').read_text()) for name in names}
    assert 'en7: others' in found['lens']['mass'] and 'en0: shared' in found['lens']['mass']
    assert (
        found['embeddings']['compared'] == '249 clones' and found['hidden']['language_2'] == 'en7'
    )
    assert found['hidden']['matched']['low'] == [
        None,
        None,
    ]  # of a single pair there is no interval
    assert 0.1 < found['hidden']['share_1'] < 0.5


@pytest.mark.parametrize('name', ['anchored', 'disjoint'])
def test_all_studies_of_real_languages(studied, place, name, capsys):
    studied(
        out_dir=f'out/{name}',
        study='all',
        parallel=['text.en', 'text.fr'],
        min_tokens=4,
        sentence_1='Ba de fi.',
        sentence_2='Ba go lu.',
    )
    said = capsys.readouterr().out
    assert ('one and the same entry' in said) == (name == 'anchored')
    studies = [study for study in STUDIES if study not in ('frequency', 'word2vec')]
    studies = STUDIES if name == 'disjoint' else studies
    check_files(place / f'out/{name}', studies)
    found = json.loads((place / f'out/{name}/hidden.json').read_text())
    assert 'matched' in found and 'positions' not in found


def test_a_piece_and_its_clone_are_compared_in_the_models_own_rows(studied, place):
    studied(out_dir='out/uneven', study='embeddings')
    found = json.loads((place / 'out/uneven/embeddings.json').read_text())
    model, languages, _ = analyze.load_run('out/uneven')
    rows = np.setdiff1d(np.arange(500), [0])  # padding is one and the same
    one, other = (model.wte.weight[language.table[rows]].detach() for language in languages)
    assert found['input']['pairs']['mean'] == pytest.approx(
        F.cosine_similarity(one, other).mean().item(), abs=1e-6
    )


def test_frequencies_hold_every_piece_once(studied, place):
    studied(out_dir='out/disjoint', study='frequency')
    found = json.loads((place / 'out/disjoint/frequency.json').read_text())
    alike = int(found['compared'].split()[0].replace(',', ''))
    assert alike - 3 <= sum(found['pieces'].values()) <= alike  # bins of one piece are left out
    bins = [[int(end.replace(',', '')) for end in name.split(' to ')] for name in found['pieces']]
    assert all(a[-1] < b[0] for a, b in zip(bins, bins[1:]))
    assert found['pieces'].keys() == found['input'].keys() == found['output'].keys()


def test_pieces_are_read_as_often_as_the_run_says(place, monkeypatch):
    monkeypatch.setattr(analyze, 'device', 'cpu')
    for name in ('uneven', 'disjoint'):
        run = analyze.Run(f'out/{name}')
        times = run.times_read(run.steps)
        scores = json.loads((place / f'out/{name}/results.json').read_text())['languages']
        assert times.sum() == run.steps * 8 * 32
        for language in run.languages:
            assert times[language.table].sum() == scores[language.name]['tokens_seen']


def test_the_matching_shows_the_tokens_as_text(studied, place, capsys):
    studied(out_dir='out/even', study='matching', sentence_1='Ba de fi.')
    found = json.loads((place / 'out/even/matching.json').read_text())
    assert ''.join(found['tokens'][0]).replace('▁', ' ').strip() == 'Ba de fi.'
    assert found['tokens'][0] == found['tokens'][1] and found['share'] == 1
    assert (
        len(found['matches']) == len(found['tokens'][0])
        and found['tokens'][0][0] in capsys.readouterr().out
    )


def test_with_a_threshold_the_matching_says_how_many_tokens_have_a_match(studied, place, capsys):
    studied(
        out_dir='out/even', study='matching,hidden', sentence_1='Ba de fi.', matching_threshold=0.9
    )
    found = json.loads((place / 'out/even/matching.json').read_text())
    assert all(cosine > 0.9 for *_, cosine in found['matches'])
    assert found['share'] == len(found['matches']) / len(found['tokens'][0]) < 1
    said = capsys.readouterr().out
    assert (
        f'{found["share"]:.0%} of the tokens matched' in said and 'share of tokens matched' in said
    )
    check_files(place / 'out/even', ['matching', 'hidden'])


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(out_dir='out/alone'), 'one language'),
        (dict(out_dir='out/even', language_2='en7'), 'en7'),
        (dict(out_dir='out/even', language_1='en1', language_2='en1'), 'choose two'),
        (dict(out_dir='out/disjoint', study='hidden'), 'no clones'),
        (dict(out_dir='out/disjoint', study='gradients'), 'no clones'),
        (dict(out_dir='out/disjoint', study='matching', sentence_1='Ba'), 'sentence_2'),
        (
            dict(out_dir='out/disjoint', study='hidden', parallel=['text.en', 'short.fr']),
            'same number of lines',
        ),
        (dict(out_dir='out/disjoint', study='hidden', parallel=['text.en', 'empty.fr']), 'empty'),
        (
            dict(
                out_dir='out/disjoint',
                study='hidden',
                parallel=['text.en', 'text.fr'],
                min_tokens=99,
            ),
            'min_tokens',
        ),
        (
            dict(
                out_dir='out/disjoint',
                study='hidden',
                parallel=['text.en', 'blank.fr'],
                min_tokens=20,
            ),
            '24 empty on a side',
        ),
        (dict(out_dir='out/even', study='hidden', parallel=['a', 'b', 'c']), 'one file or two'),
        (dict(out_dir='out/even', sentence_1='Ba de fi.', shown=[40, 60]), r'41 \(shown\) to 32'),
        (dict(out_dir='out/even', sentence_2='Ba de fi.'), 'give both'),
        (dict(out_dir='out/nowhere'), 'no run in out/nowhere; .*python train.py CONFIG'),
        (dict(), 'what to analyze'),
        (dict(out_dirs=['out/even', 'out/even']), 'different names'),
        (dict(out_dir='out/even', study='colours'), 'embeddings'),
        (dict(out_dir='out/even', matching_threshold=1.0), 'matching_threshold'),
        (dict(out_dir='out/uneven', study='hidden', steps='5,7'), 'no checkpoint of step 7'),
        (dict(out_dir='out/uneven', study='hidden', steps='first'), 'steps must be all'),
        (dict(out_dir='out/uneven', study='hidden,matching', steps='all'), 'leave out --steps'),
        (dict(out_dir='out/even', study='switch', pairs=1), 'needs more pairs'),
        (dict(out_dir='out/even', shown=[4, 2]), 'shown'),
        (dict(out_dir='out/even', pairs=0), 'pairs'),
    ],
)
def test_what_cannot_be_analyzed_is_refused(studied, place, settings, words):
    lines = (place / 'text.fr').read_text().splitlines(True)
    (place / 'short.fr').write_text(''.join(lines[:-1]))
    (place / 'blank.fr').write_text('\n' * (len(lines) - 1) + 'ba\n')
    (place / 'empty.fr').write_text('')
    with pytest.raises(ConfigError, match=words):
        studied(**settings)
    assert not list(place.glob('out/*/*.png'))


def test_studies_over_training_steps_end_with_what_they_say_of_the_last_checkpoint(studied, place):
    names = 'embeddings,frequency,hidden,gradients,lens,switch'
    studied(out_dir='out/uneven', study=names)
    studied(out_dir='out/uneven', study='all', steps='all')
    found, last = {}, {}
    for name in names.split(','):
        (values,) = json.loads((place / f'out/uneven/{name}-steps.json').read_text()).values()
        assert values['steps'] == [5, 10, 20], name
        found[name] = values['figures']
        last[name] = json.loads((place / f'out/uneven/{name}.json').read_text())
        picture = image.imread(place / f'out/uneven/{name}-steps.png')
        assert min(picture.shape[:2]) > 200 and picture[..., :3].std() > 0.02, name
    turned = last['embeddings']['input_geometry']['turned']['pairs']['mean']
    for line, expected in (
        (found['embeddings']['cosine of input vectors']['turned as well'], turned),
        (found['hidden']['linear CKA']['block 2'], last['hidden']['cka']['mean'][1]),
        (
            found['gradients']['cosine of gradients']['macro average'],
            last['gradients']['tensors']['macro average']['mean'],
        ),
        (
            found['lens']['mass on en2, en1 read']['block 1'],
            last['lens']['mass']['en1: en2']['mean'][0],
        ),
        (
            found['switch']['loss on en2']['nothing'],
            last['switch']['switch']['en2: nothing']['all']['mean'],
        ),
    ):
        assert line['mean'][2] == pytest.approx(expected, abs=1e-6)
        assert line['mean'][0] != line['mean'][2] and len(line['low']) == len(line['high']) == 3


def test_runs_over_training_steps_side_by_side(studied, place):
    studied(out_dirs=['out/uneven', 'out/even'], study='lens,embeddings', steps='all', pairs=4)
    found = json.loads((place / 'out/uneven/lens-steps-uneven-even.json').read_text())
    assert [values['steps'] for values in found.values()] == [[5, 10, 20], [20]]
    assert (place / 'out/uneven/embeddings-steps-uneven-even.png').is_file()


@pytest.mark.parametrize('name', ['hidden', 'gradients', 'lens', 'switch', 'matching'])
def test_what_a_language_makes_of_a_sequence_is_decided_in_one_place(
    name, studied, place, monkeypatch
):
    def refuse(language, side):
        raise ConfigError(f'{language.name} reads nothing')

    monkeypatch.setattr(Language, 'ids', refuse)
    with pytest.raises(ConfigError, match='reads nothing'):
        studied(out_dir='out/even', study=name)


def test_the_last_block_of_the_lens_is_the_models_own_loss(studied, place):
    studied(out_dir='out/uneven', study='lens', pairs=10)
    found = json.loads((place / 'out/uneven/lens.json').read_text())
    model, languages, _ = analyze.load_run('out/uneven')
    for language in languages:
        losses = []
        for side, *_ in analyze.test_sequences(language.corpus, 10, 32):
            idx = torch.from_numpy(language.table[side].astype(np.int64))[None]
            losses.append(model(idx[:, :-1], idx[:, 1:]).item())
        said = found['lens'][f'{language.name}: next piece']['mean'][-1]
        assert said == pytest.approx(np.mean(losses), abs=1e-5)


def test_a_refusal_is_one_sentence_and_a_failure(place):
    refused(script('analyze', '--out_dir=out/alone', cwd=place), 'one language')


def test_without_gensim_its_study_says_what_to_do(studied, place, monkeypatch, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'gensim.models', None)
    with pytest.raises(ConfigError, match='pip install gensim'):
        studied(out_dir='out/even', study='word2vec')
    studied(out_dir='out/even', study='all')
    assert 'left out' in capsys.readouterr().out
    check_files(place / 'out/even', STUDIES[:-1])
    assert not (place / 'out/even/word2vec.json').exists()
