"""The GPT against the paper's own code, and against plain PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import languini_name
from torch._dynamo.testing import CompileCounter

from evaluate import window_losses
from model import GPT, PAD, SIZES, GPTConfig, chunk_gradients

TINY = GPTConfig(
    n_layer=2, n_head=3, head_dim=8, n_embd=20, mlp_dim=44, block_size=16, vocab_size=53
)


def test_logits_loss_and_hidden_states_are_those_of_the_papers_code(reference, reference_model):
    x, y = torch.from_numpy(reference['x']), torch.from_numpy(reference['y'])
    with torch.no_grad():
        assert np.allclose(reference_model(x)[:, 3::4], reference['logits'], atol=1e-4)
        assert np.allclose(
            reference_model.hidden_states(x)[:, :, 3::4], reference['hidden'], atol=1e-4
        )
        assert abs(reference_model(x, y).item() - reference['loss']) < 1e-5


def test_gradients_are_those_of_the_papers_code(reference, reference_model):
    reference_model.zero_grad()
    reference_model(torch.from_numpy(reference['x']), torch.from_numpy(reference['y'])).backward()
    gradients = {name: p.grad.flatten() for name, p in reference_model.named_parameters()}
    assert gradients.keys() == set(reference['names'])
    parts = [gradients[name] for name in reference['names']]
    norms = [part.double().norm() for part in parts]
    assert np.allclose(norms, reference['gradient_norms'], rtol=1e-4, atol=1e-6)
    elements = torch.cat([part[:: max(1, len(part) // 128)] for part in parts])
    assert np.allclose(elements, reference['gradients'], atol=1e-6)


def test_sliding_window_loss_is_that_of_the_papers_code(reference, reference_model):
    losses, _ = window_losses(
        reference_model, reference['stream'], int(reference['stream_last_n']), batch_size=7
    )
    assert losses.size == reference['stream_count']
    assert abs(losses.astype(np.float64).sum() / reference['stream_loss_sum'] - 1) < 1e-5


def test_sizes_have_the_papers_parameter_counts():
    counts = {'mini': 10.5e6, 'small': 85e6, 'medium': 302e6}
    for size, expected in counts.items():
        with torch.device('meta'):
            model = GPT(GPTConfig(**SIZES[size], block_size=512, vocab_size=16384))
        assert abs(model.non_embedding_parameters() / expected - 1) < 0.005, size
        assert model.head.weight is not model.wte.weight and model.head.bias is None


def test_weights_begin_as_the_paper_has_them():
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(
            n_layer=8, n_head=4, head_dim=16, n_embd=64, mlp_dim=256, block_size=32, vocab_size=500
        )
    )
    for name, parameter in model.named_parameters():
        if name.endswith('bias'):
            assert not parameter.any(), name
        elif 'ln' in name:
            assert (parameter == 1).all(), name
        else:
            std = 0.02 / 4 if name.endswith('mlp.proj.weight') else 0.02
            assert abs(parameter.std().item() / std - 1) < 0.1, name


def plain_loss(model, idx, targets, last_n):
    logits = model(idx)[:, -last_n:].flatten(0, 1)
    return F.cross_entropy(logits, targets[:, -last_n:].flatten(), ignore_index=PAD)


@pytest.mark.parametrize('last_n', [16, 5])
def test_the_chunked_loss_and_its_gradients_are_those_of_cross_entropy_over_all_logits(
    last_n, monkeypatch
):
    torch.manual_seed(1)
    model = GPT(TINY)
    idx, targets = (
        torch.randint(1, 53, (3, 16)),
        torch.randint(0, 53, (3, 16)),
    )  # some targets are padding
    rows_held = []
    forward = torch.Tensor.logsumexp
    monkeypatch.setattr(
        torch.Tensor,
        'logsumexp',
        lambda x, *a, **k: rows_held.append(len(x)) or forward(x, *a, **k),
    )
    monkeypatch.setattr('model.CHUNK_LOGITS', 53 * 7)  # seven tokens at a time
    loss, per_token = model(idx, targets, last_n=last_n, per_token=True)
    (2 * loss).backward()
    assert max(rows_held) <= 7 and len(set(rows_held)) == 1  # one shape, for one compiled function
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected = plain_loss(model, idx, targets, last_n)
    (2 * expected).backward()
    assert torch.allclose(loss, expected, atol=1e-6)
    for name, parameter in model.named_parameters():
        assert torch.allclose(ours[name], parameter.grad, atol=1e-6), name
    with torch.no_grad():
        again, per_token_again = model(idx, targets, last_n=last_n, per_token=True)
    assert torch.allclose(again, loss) and torch.allclose(per_token_again, per_token, atol=1e-6)
    assert (per_token[targets[:, -last_n:] == PAD] == 0).all()


def test_more_chunks_compile_no_more_graphs_and_give_the_same_gradients(monkeypatch):
    torch.manual_seed(1)
    model = GPT(TINY)
    idx, targets = torch.randint(1, 53, (3, 16)), torch.randint(0, 53, (3, 16))
    (expected := plain_loss(model, idx, targets, 16)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    graphs = []
    for rows in (20, 7, 2):  # 3, 7 and 24 chunks
        torch.compiler.reset()
        counter = CompileCounter()
        chunk = torch.compile(chunk_gradients, backend=counter)
        monkeypatch.setattr('model.compiled_chunk_gradients', lambda chunk=chunk: chunk)
        monkeypatch.setattr('model.CHUNK_LOGITS', 53 * rows)
        model.zero_grad()
        loss = torch.compile(model, backend=counter)(idx, targets)
        loss.backward()
        graphs.append(counter.frame_count)
        assert torch.allclose(loss, expected, atol=1e-6)
        for name, parameter in model.named_parameters():
            assert torch.allclose(parameter.grad, gradients[name], atol=1e-6), name
    assert graphs[0] == graphs[1] == graphs[2] and graphs[0] > 1  # the chunk is one of them


def test_logits_of_the_last_positions_are_the_last_logits():
    model, idx = GPT(TINY), torch.randint(1, 53, (2, 16))
    assert torch.allclose(model(idx, last_n=3), model(idx)[:, -3:], atol=1e-6)


def test_no_position_sees_what_comes_after_it():
    model, idx = GPT(TINY), torch.randint(1, 53, (1, 16))
    changed = idx.clone()
    changed[0, 9] = 1 + changed[0, 9] % 52
    same = (model(idx) == model(changed)).all(-1)[0]
    assert same[:9].all() and not same[9:].any()


def test_the_residual_stream_ends_in_the_logits():
    model, idx = GPT(TINY), torch.randint(1, 53, (2, 16))
    states = model.hidden_states(idx)
    assert states.shape == (2, 2, 16, 20)
    assert torch.allclose(model.head(model.ln_f(states[-1])), model(idx), atol=1e-6)


def test_a_sequence_longer_than_the_block_is_refused():
    with pytest.raises(ValueError, match='longer than block_size 16'):
        GPT(TINY)(torch.ones(1, 17, dtype=torch.long))


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda w: w.pop('ln_f.bias'), 'Missing key.*ln_f.bias'),
        (
            lambda w: w.update({'layers.0.attn.linear_X.weight': torch.ones(1)}),
            'Unexpected key.*linear_X',
        ),
        (lambda w: w.update({'linear.weight': torch.ones(3, 3)}), r'size mismatch for head.weight'),
        (
            lambda w: w.update(
                {f'layers.7.{n}': torch.ones(20) for n in ('ln1.weight', 'ln1.bias')}
            ),
            'Unexpected key.*blocks.7.ln1',
        ),
    ],
)
def test_a_foreign_checkpoint_is_refused_with_what_is_wrong(change, words):
    weights = {languini_name(name): p.detach() for name, p in GPT(TINY).named_parameters()}
    change(weights)
    with pytest.raises(ValueError, match=words):
        GPT(TINY).load_languini(weights)


def test_windows_are_scored_as_one_by_one():
    torch.manual_seed(2)
    model, stream = GPT(TINY), np.random.default_rng(0).integers(1, 53, 101)
    losses, starts = window_losses(model, stream, 4)
    assert len(starts) == (101 - 1 - 16) // 4 + 1
    for w, start in enumerate(starts):
        window = torch.from_numpy(stream[start : start + 17])[None]
        expected = F.cross_entropy(model(window[:, :-1])[0], window[0, 1:], reduction='none')[-4:]
        assert np.allclose(losses[w], expected.detach(), atol=1e-5)
