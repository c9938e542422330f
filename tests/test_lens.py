"""lens.py: the logit lens by language and losses after a code switch, against loops."""

from lib.configurator import ConfigError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_model

from data import Language
from lib import lens
from lib.tokenizer import PAD
from model import CHUNK_LOGITS

TOKENS = np.array([3, 17, 5, 44, 9, 28, 1, 50, 2, 31])


def clones(shared=0):
    """Groups and rows alike of two languages of 53 pieces; EN2 shares the first of them."""
    first = np.arange(53)
    second = np.where((first <= shared) | (first == PAD), first, first + 53)
    spellings = [f'piece {token}' for token in range(53)]
    pair = [Language(name, None, table) for name, table in dict(en1=first, en2=second).items()]
    alike = lens.rows_alike([first, second], [spellings, spellings], 106)
    return lens.groups_of(*pair, 106), alike


def test_a_row_belongs_to_one_language_to_both_or_to_none():
    groups, _ = clones(shared=10)
    rows = {name: np.flatnonzero(group).tolist() for name, group in groups.items()}
    assert rows['en1'] == [*range(11, 53)] and rows['en2'] == [*range(64, 106)]
    assert rows['shared'] == [*range(1, 11)]
    assert rows['others'] == [PAD, *range(53, 64)]  # no clones of shared pieces
    with pytest.raises(ConfigError, match='others'):
        lens.groups_of(*[Language('others', None, np.arange(9))] * 2, 9)


def test_rows_that_are_spelled_alike_stand_for_one_piece():
    _, alike = clones(shared=1)
    assert alike[20].tolist() == alike[73].tolist() == [20, 73]
    assert alike[1].tolist() == [1, -1] and alike[PAD].tolist() == [-1, -1]
    tables, spellings = np.array([[0, 1, 2], [0, 4, 5]]), [['', 'a', 'b'], ['', 'b', 'c']]
    real = lens.rows_alike(tables, spellings, 6)
    assert [set(row) - {-1} for row in real.tolist()] == [set(), {1}, {2, 4}, set(), {2, 4}, {5}]


@pytest.mark.parametrize('chunk', [CHUNK_LOGITS, 2 * 106])  # at once, and in parts
def test_the_lens_after_a_block_is_the_model_that_ends_there(chunk):
    model, (groups, alike) = tiny_model(106, 32), clones(shared=10)
    mass, loss, any_loss = lens.lens(model, TOKENS, groups, alike, chunk)
    states = model.hidden_states(torch.from_numpy(TOKENS)[None, :-1])[:, 0]
    for block in range(2):
        chances = model.head(model.ln_f(states[block])).softmax(-1).detach().numpy()
        for name, rows in groups.items():
            assert mass[name][block] == pytest.approx(chances[:, rows].sum(1).mean(), abs=1e-5)
        own = chances[np.arange(9), TOKENS[1:]]
        assert loss[block] == pytest.approx(-np.log(own).mean(), abs=1e-4)
        other = [chances[i, t + 53] if t > 10 else 0 for i, t in enumerate(TOKENS[1:])]
        assert any_loss[block] == pytest.approx(-np.log(own + other).mean(), abs=1e-4)
    np.testing.assert_allclose(sum(mass.values()), 1, atol=1e-5)


def test_a_model_that_says_every_piece_in_both_languages_alike_saves_log_2():
    model, (groups, alike) = tiny_model(106, 32), clones()
    with torch.no_grad():
        model.head.weight[53:] = model.head.weight[:53]
    mass, loss, any_loss = lens.lens(model, TOKENS, groups, alike, CHUNK_LOGITS)
    np.testing.assert_allclose(loss - any_loss, np.log(2), atol=1e-5)
    np.testing.assert_allclose(mass['en1'], mass['en2'], atol=1e-5)


def test_losses_after_a_context_are_those_of_the_sequence_of_both():
    model, text = tiny_model(106, 32), TOKENS + 53
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
    sums = np.mean([lens.sums_by_bin(losses, bins) for losses in texts], axis=0)
    means = dict(zip(bins, lens.mean_loss(sums)[0]))
    assert means == {'1': 2.5, '2-3': 2, '4-7': 1, '8': 1, 'all': pytest.approx(16 / 10)}
