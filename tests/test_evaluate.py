"""Perplexity, from the scores of single tokens up to the script."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import languini_name, refused, script

from data import DOCUMENT_END, build_languages
from evaluate import perplexity
from model import GPT, GPTConfig

SHAPE = dict(n_layer=2, n_head=3, head_dim=8, n_embd=20, mlp_dim=44, block_size=16)


@pytest.fixture
def trained(workplace):
    """Languages of two clones, and a model whose random weights tell them apart."""
    languages, entries = build_languages(['en', 'en'], ['en1', 'en2'], root=workplace / 'data')
    torch.manual_seed(0)
    model = GPT(GPTConfig(**SHAPE, vocab_size=entries))
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.eval(), languages


def losses_one_by_one(model, language, last_n):
    """[(loss, document)] of every scored token, each position by hand."""
    test = np.asarray(language.corpus.test).astype(int)
    ids, T, scored = language.table[test], model.config.block_size, []
    for start in range(0, len(ids) - T, last_n):
        with torch.no_grad():
            logits = model(torch.from_numpy(ids[start : start + T].astype(np.int64))[None])[0]
        for position in range(T - last_n, T):
            target = start + position + 1
            loss = F.cross_entropy(logits[position], torch.tensor(int(ids[target])))
            scored.append((loss.item(), (test[:target] == DOCUMENT_END).sum()))
    return scored


def test_perplexity_bits_and_error_are_those_of_the_tokens_one_by_one(trained):
    model, (_, second) = trained
    scored = losses_one_by_one(model, second, 4)
    score = perplexity(model, second)  # a quarter of block_size unless told otherwise
    losses = np.array([loss for loss, _ in scored])
    assert score['scored_tokens'] == len(losses)
    assert score['loss'] == pytest.approx(losses.mean(), rel=1e-5)
    assert score['ppl'] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
    about = second.corpus.info['test']
    assert score['bits_per_byte'] == pytest.approx(
        losses.mean() / math.log(2) * about['tokens'] / about['bytes'], 1e-5
    )
    documents = np.array([document for _, document in scored])
    assert score['documents'] == len(set(documents))
    resampled = []  # the standard error against a bootstrap over documents
    rng, of = np.random.default_rng(0), {d: losses[documents == d] for d in set(documents)}
    for _ in range(2000):
        chosen = rng.choice(sorted(of), len(of))
        resampled.append(sum(of[d].sum() for d in chosen) / sum(len(of[d]) for d in chosen))
    assert score['loss_se'] == pytest.approx(
        np.std(resampled), rel=0.35
    )  # few documents: the bootstrap is low


def test_fewer_windows_are_spread_over_the_whole_test_set(trained):
    model, (first, _) = trained
    whole, part = perplexity(model, first), perplexity(model, first, max_windows=40)
    assert part['scored_tokens'] == 40 * 4
    assert part['documents'] > 1 and abs(part['loss'] - whole['loss']) < 0.3


def test_a_checkpoint_of_the_papers_code_is_evaluated(trained, workplace):
    model, languages = trained
    weights = {
        'module._orig_mod.' + languini_name(name): p.detach()
        for name, p in model.named_parameters()
    }
    torch.save(weights, workplace / 'model.pt')
    args = [
        '--languini=model.pt',
        '--corpora=[en,en]',
        '--languages=[en1,en2]',
        '--head_dim=8',
        '--device=cpu',
        '--dtype=float32',
    ]
    done = script('evaluate', *args, cwd=workplace)
    assert done.returncode == 0, done.stderr
    for language in languages:
        assert f'{perplexity(model, language)["ppl"]:.2f}' in done.stdout
    refused(
        script('evaluate', *args, '--corpora=[en]', '--languages=[en1]', cwd=workplace),
        'vocabulary entries',
    )
    (workplace / 'model.pt').write_bytes(b'no checkpoint')
    refused(script('evaluate', *args, cwd=workplace), 'model.pt')


def test_what_to_evaluate_must_be_said(workplace):
    refused(script('evaluate', cwd=workplace), '--out_dir=out/RUN')
    refused(
        script('evaluate', '--out_dir=out/nothing', cwd=workplace), 'there is no run in out/nothing'
    )


def test_the_benchmark_measures_a_training_step(tmp_path):
    done = script(
        'bench',
        '--size=mini',
        '--vocab_size=512',
        '--block_size=32',
        '--micro_batch_size=1',
        '--repeats=1',
        '--compile=False',
        '--device=cpu',
        '--json=figures.json',
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / 'figures.json').read_text())
    config = GPTConfig(4, 8, 32, 512, 2048, 32, 512)
    share = figures['tokens_per_second'] * config.flops_per_token() / figures['peak_flops']
    assert figures['mfu'] == pytest.approx(share) and 0 < figures['mfu'] < 1
    refused(script('bench', '--size=huge', cwd=tmp_path), 'size must be one of mini, small, medium')


def test_flops_are_six_a_parameter_and_the_attention():
    config = GPTConfig(**SHAPE, vocab_size=100)
    model = GPT(config)
    matrices = sum(
        p.numel()
        for n, p in model.named_parameters()
        if p.dim() == 2 and not n.startswith(('wte', 'wpe'))
    )
    assert config.flops_per_token() == 6 * matrices + 12 * 2 * 24 * 16


def test_the_order_of_the_papers_largest_run_takes_little_memory():
    import bench

    figures = bench.loader()
    assert figures['tokens'] == 23_900_000_000
    assert figures['memory_bytes'] < 600e6  # 47 million chunks in an order of 4 bytes each: 188 MB
