"""Interventions on languages: what they do to the loss, the gradient and the weights."""

import json
from pathlib import Path
from unittest import mock

from lib.configurator import ConfigError

import numpy as np
import pytest
import torch
from conftest import REPO, TINY_CONFIG, in_process, refused, works

from data import Language, build_languages
from lib.checkpoint import checkpoint_paths, read_checkpoint
from lib.interventions import EMBEDDINGS, copy_known, own_rows, row_pairs, scaled_loss_weights


def train(out, *configs, how=in_process, **settings):
    Path('tiny.py').write_text(TINY_CONFIG)
    settings = dict(max_steps=20, out_dir=f'out/{out}', keep_checkpoints=[20]) | settings
    return how('train', 'tiny.py', *configs, **settings)


def trained(out, *configs, **settings):
    """Trains a run: (its last checkpoint, what was printed)."""
    done = train(out, *configs, how=works, **settings)
    return read_checkpoint(checkpoint_paths(f'out/{out}')[20]), done.stdout


@pytest.mark.parametrize('given, weights', [([0.9, 0.1], [1.8, 0.2]), ([3, 3], [1, 1])])
def test_a_weight_multiplies_the_gradient_and_no_logged_loss(training_of, given, weights):
    training = training_of(stages=[[0.5, 0.5]], loss_weights=given, micro_batch_size=3)
    batch, drawn = next(training.batches())
    assert len(set(drawn.tolist())) == 2
    losses = training.compute_gradients(batch, drawn, len(drawn))
    computed = {name: p.grad.clone() for name, p in training.model.named_parameters()}
    training.model.zero_grad()
    logits, targets = training.model(batch[0]), batch[1]
    each = torch.nn.functional.cross_entropy(logits.mT, targets, reduction='none').mean(1)
    assert torch.allclose(losses, each, atol=1e-5)
    (torch.tensor(weights)[drawn] * each).mean().backward()
    for name, parameter in training.model.named_parameters():
        assert torch.allclose(computed[name], parameter.grad, atol=1e-6), name


def test_the_expected_weight_of_a_sequence_is_one():
    for stages, weights, expected in (
        ([[0.9, 0.1]], [1, 9], [1 / 1.8, 9 / 1.8]),
        ([[1.0, 0.0], [0.5, 0.5]], [1, 0], [4 / 3, 0]),
    ):
        scaled = scaled_loss_weights(weights, stages, ['en1', 'en2'])
        assert scaled.tolist() == pytest.approx(expected)
        assert np.mean(stages, axis=0) @ scaled == pytest.approx(1)


@pytest.mark.parametrize('noise', [0.3, 0])
def test_a_clone_starts_as_the_language_that_it_is_a_clone_of_plus_noise(training_of, noise):
    plain = training_of(n_embd=64)
    training = training_of(n_embd=64, init_embeddings='spelling', init_noise=noise)
    first, second = (language.table[2:] for language in training.trained)
    for name, weight in training.model.named_parameters():
        other = plain.model.get_parameter(name)
        if name not in EMBEDDINGS:
            assert torch.equal(weight, other), name
            continue
        assert torch.equal(weight[first], other[first]), name
        difference = (weight[second] - weight[first]) / weight[first].std(0)
        assert difference.std().item() == pytest.approx(noise, rel=0.03)
        assert abs(difference.mean().item()) < 0.02


def test_tokens_spelled_the_same_start_as_the_same(made_once):
    languages, _ = build_languages(['en', 'fr'], ['en', 'fr'], root=made_once / 'data')
    spellings = {}
    for language in languages:
        texts = language.corpus.load_tokenizer().spellings()
        spellings |= {row: texts[token] for token, row in enumerate(language.table) if token > 1}
    ours, theirs = ({spellings[row] for row in lang.table[2:]} for lang in languages)
    pairs = row_pairs(languages)
    assert {spellings[row] for row, _ in pairs} == ours & theirs and 300 < len(pairs) < 499
    for row, source in pairs:
        assert row in languages[1].table and source in languages[0].table
        assert spellings[row] == spellings[source]


def test_a_language_added_to_a_run_changes_its_own_embeddings_alone(workplace):
    old, _ = trained('old', corpora=['en'], languages=['en'], stages=[[1]])
    (workplace / 'pair.py').write_text("corpora = languages = ['en', 'fr']")
    configs = 'pair.py', REPO / 'config/add_language.py'
    settings = dict(init_from='out/old', init_embeddings='spelling')
    new, printed = trained('new', *configs, **settings)
    assert 'out/old' in printed and 'spelling' in printed
    (en, fr), rows = build_languages(['en', 'fr'], ['en', 'fr'], root=workplace / 'data')
    for name, weight in new['model'].items():
        if name in EMBEDDINGS:
            assert len(weight) == rows and torch.equal(weight[en.table], old['model'][name])
        else:
            assert torch.equal(weight, old['model'][name]), name
    assert len(new['optimizer']['state']) == 2 and new['step'] == 20  # Adam of the two alone
    lines = (workplace / 'out/new/log.jsonl').read_text().splitlines()
    assert json.loads(lines[-1])['loss'] < json.loads(lines[0])['loss'] - 0.1
    control, _ = trained('control', *configs, **settings, only='fr')
    assert control['step'] == 20 and len(control['optimizer']['state']) > 2
    refused(train('wide', *configs, **settings, n_embd=24), 'out/old')
    refused(train('other', *configs, **settings | dict(init_from='out/nowhere')), 'out/nowhere')
    text = "corpora, languages = ['en', 'en', 'fr'], ['en', 'en2', 'fr']"
    (workplace / 'pair.py').write_text(text)
    refused(train('three', *configs, **settings), 'out/old', 'en2', 'train_only')


def test_a_language_of_another_tokeniser_is_not_copied():
    here, there = (Language('en', mock.Mock(tokenizer_hash=name), None) for name in 'ab')
    with pytest.raises(ConfigError, match='tokeniser'):
        copy_known(None, [here], 'fr', None, [there], 'out/old')


def test_frozen_rows_stay_whatever_the_optimiser_does(workplace, training_of, monkeypatch):
    def with_decay(model, rate):
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, rate, momentum=0.9, weight_decay=0.1)

    monkeypatch.setattr('train.make_optimizer', with_decay)
    begun = training_of(stages=[[0.5, 0.5]]).model.state_dict()
    monkeypatch.chdir(workplace)
    state, _ = trained('r', train_only='en2', stages=[[0.5, 0.5]])
    (first, second), _ = build_languages(['en', 'en'], ['en1', 'en2'], root=workplace / 'data')
    for name, weight in state['model'].items():
        if name in EMBEDDINGS:
            assert torch.equal(weight[first.table], begun[name][first.table])
            assert (weight[second.table[1:]] != begun[name][second.table[1:]]).any(1).all()
        else:
            assert torch.equal(weight, begun[name]), name


def test_shared_rows_and_padding_are_nobodys_own(made_once):
    root = made_once / 'data'
    languages, _ = build_languages(['en', 'en'], ['a', 'b'], cloned_fraction=0.4, root=root)
    own, tables = set(own_rows(languages, 'b')), [set(language.table) for language in languages]
    assert len(own) in (199, 200) and 0 not in own
    assert tables[1] - own == tables[0] & tables[1]


@pytest.mark.parametrize('config', 'loss_weights_90_10 aligned_start reversed shuffled_8'.split())
def test_the_config_of_each_intervention_is_listed_after_another(workplace, config):
    trained('r', REPO / f'config/{config}.py')
