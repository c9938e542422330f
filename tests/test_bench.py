"""lab/bench.py: the figures of a training step."""

import re

import pytest
from conftest import in_process, refused

from model import SIZES, GPTConfig


def test_the_benchmark_measures_a_training_step(tmp_path):
    small = '--vocab_size=512 --block_size=32 --micro_batch_size=1 --seconds=0.1'.split()
    done = in_process('lab.bench', *small, '--compile=False', '--device=cpu', cwd=tmp_path)
    names = ' tokens/s', ' GiB', ' of', ' GFLOP/s'
    speed, memory, mfu, peak = (
        float(re.search(rf'([\d,.]+){name}', done.stdout)[1].replace(',', '')) for name in names
    )
    flops = GPTConfig(**SIZES['mini'], block_size=32, vocab_size=512).flops_per_token()
    assert mfu == pytest.approx(speed * flops / peak / 1e9, rel=0.05, abs=1e-4)
    assert 0 < mfu < 1 and memory > 0.05
    refused(in_process('lab.bench', '--size=huge', cwd=tmp_path), 'size')
