"""lens.py: the logit lens by language and losses after a code switch, against loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_analyze import tiny_model

from data import Language
from lib import lens
from lib.tokenizer import PAD
from model import CHUNK_LOGITS

TOKENS = np.array([3, 17, 5, 44, 9, 28, 1, 50, 2, 31])


def clones(shared=0):
    """Two tables of 53 pieces; the clone shares the first of them."""
    first = np.arange(53)
    second = np.where((first <= shared) | (first == PAD), first, first + 53)
    spellings = [f'piece {token}' for token in range(53)]
    return [first, second], [spellings, spellings]


def languages_of(tables):
    return [Language(name, None, table) for name, table in zip(('en1', 'en2'), tables)]


def test_a_row_belongs_to_one_language_to_both_or_to_none():
    tables, _ = clones(shared=10)
    groups = lens.groups_of(*languages_of(tables), 106)
    assert groups[PAD] == 3 and set(groups[1:11]) == {2}
    assert set(groups[11:53]) == {0} and set(groups[64:]) == {1}
    assert set(groups[53:64]) == {3}  # of the clones of shared pieces there are none


def test_rows_that_are_spelled_alike_stand_for_one_piece():
    tables, spellings = clones(shared=1)
    alike = lens.rows_alike(tables, spellings, 106)
    assert alike[20].tolist() == alike[73].tolist() == [20, 73]
    assert alike[1].tolist() == [1, -1] and alike[PAD].tolist() == [-1, -1]
    real = lens.rows_alike(
        [np.array([0, 1, 2]), np.array([0, 4, 5])], [['', 'a', 'b'], ['', 'b', 'c']], 6
    )
    assert [set(row) - {-1} for row in real.tolist()] == [set(), {1}, {2, 4}, set(), {2, 4}, {5}]


def test_the_lens_after_a_block_is_the_model_that_ends_there():
    model, (tables, spellings) = tiny_model(), clones(shared=10)
    groups = lens.groups_of(*languages_of(tables), 106)
    alike = lens.rows_alike(tables, spellings, 106)
    measures = lens.lens(model, TOKENS, groups, alike, CHUNK_LOGITS)
    states = model.hidden_states(torch.from_numpy(TOKENS)[None, :-1])[:, 0]
    for block in range(2):
        chances = model.head(model.ln_f(states[block])).softmax(-1).detach().numpy()
        mass = [chances[:, groups == group].sum(1).mean() for group in range(4)]
        np.testing.assert_allclose(measures['mass'][:, block], mass, atol=1e-5)
        own = chances[np.arange(9), TOKENS[1:]]
        assert measures['loss'][block] == pytest.approx(-np.log(own).mean(), abs=1e-4)
        other = [chances[i, t + 53] if t > 10 else 0 for i, t in enumerate(TOKENS[1:])]
        assert measures['alike'][block] == pytest.approx(-np.log(own + other).mean(), abs=1e-4)
    np.testing.assert_allclose(measures['mass'].sum(0), 1, atol=1e-5)


def test_a_model_that_says_every_piece_in_both_languages_alike_saves_log_2():
    model, (tables, spellings) = tiny_model(), clones()
    with torch.no_grad():
        model.head.weight[53:] = model.head.weight[:53]
    groups = lens.groups_of(*languages_of(tables), 106)
    measures = lens.lens(
        model, TOKENS, groups, lens.rows_alike(tables, spellings, 106), CHUNK_LOGITS
    )
    np.testing.assert_allclose(measures['loss'] - measures['alike'], np.log(2), atol=1e-5)
    np.testing.assert_allclose(*measures['mass'][:2], atol=1e-5)


def test_the_lens_of_many_rows_goes_part_by_part():
    model, (tables, spellings) = tiny_model(), clones()
    arguments = model, TOKENS, lens.groups_of(*languages_of(tables), 106)
    alike = lens.rows_alike(tables, spellings, 106)
    whole = lens.lens(*arguments, alike, CHUNK_LOGITS)
    for name, values in lens.lens(*arguments, alike, 2 * 106).items():
        np.testing.assert_allclose(values, whole[name], atol=1e-5)


def test_losses_after_a_context_are_those_of_the_sequence_of_both():
    model, text = tiny_model(), TOKENS + 53
    contexts = [np.array([], int), TOKENS[:4], TOKENS]
    losses = lens.losses_after(model, contexts, text)
    assert losses.shape == (3, 9)
    for row, context in zip(losses, contexts):
        idx = torch.from_numpy(np.concatenate([context, text]))
        expected = F.cross_entropy(model(idx[None, :-1])[0], idx[1:], reduction='none')[-9:]
        np.testing.assert_allclose(row, expected.detach(), atol=1e-4)


@pytest.mark.parametrize('longest', [2, 3, 8, 32, 33])
def test_bins_hold_every_loss_of_a_text_once(longest):
    *parts, every = [list(range(longest - 1))[part] for part in lens.bins_of(longest).values()]
    assert sum(parts, []) == every == list(range(longest - 1))
    assert '4-7' in lens.bins_of(32) and list(lens.bins_of(9))[-2:] == ['8', 'all']


def test_mean_losses_count_every_piece_of_texts_of_different_lengths():
    bins = lens.bins_of(9)
    texts = [np.full((6, 8), 1.0), np.full((6, 2), 4.0)]
    sums = np.mean([lens.losses_by_bin(losses, bins) for losses in texts], axis=0)
    means = dict(zip(bins, lens.mean_loss(sums)[0]))
    assert means == {'1': 2.5, '2-3': 2, '4-7': 1, '8': 1, 'all': pytest.approx(16 / 10)}


def test_the_gain_from_a_context_is_over_unrelated_text_in_its_language():
    loss = dict(zip(lens.CONTEXTS, [5.0, 2.0, 3.0, 1.0, 4.0, 2.5]))
    sums = np.array([[(3 * value, 3)] for value in loss.values()])
    assert lens.context_gain(sums)[:, 0].tolist() == [0.5, 1.0, 3.0]
