"""The GPT against the paper's own code, and against plain PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from evaluate import window_losses
from model import GPT, PAD, SIZES, GPTConfig, chunk_gradients, rotate

TINY = GPTConfig(2, 3, 8, 20, 44, 16, 53)  # layers, heads, width of a head, width, MLP, T, V


def test_logits_loss_and_hidden_states_are_those_of_the_papers_code(reference, reference_model):
    x, y = torch.from_numpy(reference['x']), torch.from_numpy(reference['y'])
    with torch.no_grad():
        assert np.allclose(reference_model(x)[:, 3::4], reference['logits'], atol=1e-4)
        states = reference_model.hidden_states(x)
        assert np.allclose(states[:, :, 3::4], reference['hidden'], atol=1e-4)
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
    last_n = int(reference['stream_last_n'])
    losses, _ = window_losses(reference_model, reference['stream'], last_n, batch_size=7)
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
    for name, parameter in GPT(GPTConfig(8, 4, 16, 64, 256, 32, 500)).named_parameters():
        if name.endswith('bias'):
            assert not parameter.any(), name
        elif 'ln' in name:
            assert (parameter == 1).all(), name
        else:
            std = 0.02 / 4 if name.endswith('mlp.proj.weight') else 0.02
            assert abs(parameter.std().item() / std - 1) < 0.1, name


def seeded(config=TINY):
    torch.manual_seed(1)
    return GPT(config)


def batch():
    """Inputs and targets (3, 16); some targets are padding."""
    return torch.randint(1, 53, (3, 16)), torch.randint(0, 53, (3, 16))


def plain_loss(model, idx, targets, last_n):
    logits = model(idx)[:, -last_n:].flatten(0, 1)
    return F.cross_entropy(logits, targets[:, -last_n:].flatten(), ignore_index=PAD)


@pytest.mark.parametrize('last_n', [16, 5])
def test_the_chunked_loss_and_its_gradients_are_those_of_all_logits_at_once(last_n, monkeypatch):
    model, (idx, targets) = seeded(), batch()
    rows_held, logsumexp = [], torch.Tensor.logsumexp

    def counted(logits, *arguments, **more):
        rows_held.append(len(logits))
        return logsumexp(logits, *arguments, **more)

    monkeypatch.setattr(torch.Tensor, 'logsumexp', counted)
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
    model, (idx, targets) = seeded(), batch()
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


@pytest.mark.parametrize('positions', ['learned', 'rotary'])
def test_logits_are_of_the_residual_stream_which_sees_order_and_no_later_position(positions):
    model, (idx, _) = seeded(GPTConfig(**vars(TINY) | dict(positions=positions))), batch()
    states, logits = model.hidden_states(idx), model(idx)
    assert states.shape == (2, 3, 16, 20)
    assert torch.allclose(model.head(model.ln_f(states[-1])), logits, atol=1e-6)
    assert torch.allclose(model(idx, last_n=3), logits[:, -3:], atol=1e-6)
    changed = idx.clone()
    changed[:, 9] = 1 + changed[:, 9] % 52
    same = (logits == model(changed)).all(-1)
    assert same[:, :9].all() and not same[:, 9:].any()
    with torch.no_grad():
        swapped = model(idx[:, [1, 0, *range(2, 16)]])
    assert not torch.allclose(swapped[:, -1], logits[:, -1], atol=1e-5)
    with pytest.raises(ValueError, match='longer than block_size 16'):
        model(torch.ones(1, 17, dtype=torch.long))


def test_rotary_positions_turn_queries_and_keys_by_their_distance():
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 1, 6, 8)
    scores = (rotate(q) @ rotate(k).mT)[0, 0]
    for apart in range(6):
        assert torch.allclose(scores.diagonal(-apart), scores[apart, 0], atol=1e-5)
    assert torch.allclose(scores[0, 0], q[0, 0, 0] @ k[0, 0, 0]) and scores[:, 0].std() > 0.01
