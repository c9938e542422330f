"""lab/bench.py: figures of a training step, the evaluation and the loader."""

import tracemalloc

import pytest
from conftest import in_process, refused

from lab import bench
from model import SIZES, GPTConfig


def test_the_benchmark_measures_a_training_step(monkeypatch, tmp_path):
    figures, original = {}, bench.training_step
    monkeypatch.setattr(bench, 'training_step', lambda *a: figures.update(original(*a)) or figures)
    monkeypatch.setattr(bench, 'evaluation', lambda *about: 1.0)
    monkeypatch.setattr(bench, 'loader', lambda: (1.0, 1.0))
    small = ['--vocab_size=512', '--block_size=32', '--micro_batch_size=1', '--repeats=1']
    done = in_process('lab.bench', *small, '--compile=False', '--device=cpu', cwd=tmp_path)
    flops = GPTConfig(**SIZES['mini'], block_size=32, vocab_size=512).flops_per_token()
    fraction = figures['tokens_per_second'] * flops / figures['peak_gflops'] / 1e9
    assert figures['mfu'] == pytest.approx(fraction) and 0 < figures['mfu'] < 1
    assert f'{figures["tokens_per_second"]:,.2f}' in done.stdout
    refused(in_process('lab.bench', '--size=huge', cwd=tmp_path), 'size')


def test_the_order_of_the_papers_largest_run_takes_no_more_of_a_larger_corpus(monkeypatch):
    mixes, held, original = [], [], bench.LanguageMix
    monkeypatch.setattr(bench, 'LanguageMix', lambda *a: mixes.append(original(*a)) or mixes[-1])
    for tokens in (10**8, 10**9):
        monkeypatch.setattr(bench, 'PAPER_TOKENS', tokens)
        tracemalloc.start()
        bench.loader()
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert held[1] == pytest.approx(held[0], rel=0.01)
