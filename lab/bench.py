# ruff: noqa: E402
"""Speed and memory of one training step, and of the evaluation and the loader, as medians.

    python -m lab.bench --size=mini --vocab_size=16384
    python -m lab.bench --size=mini --profile=True       # and where the time of a step goes

MFU is the fraction of the measured peak of matrix products that a step uses: 6 floating-point
operations for each parameter of blocks and head, and the attention (GPTConfig.flops_per_token).
"""

import time

START = time.perf_counter()  # before the imports: users wait for them, too

import os
import resource
import statistics
import tempfile
from types import SimpleNamespace

from lib.configurator import require, run

import numpy as np
import torch

from data import Language, LanguageMix, open_shard
from evaluate import window_losses
from lib import machine
from lib.tables import align
from model import GPT, SIZES, GPTConfig, make_optimizer

size = 'mini'  # mini, small or medium
vocab_size = 32768  # embedding rows
block_size = 512  # tokens of a sequence
micro_batch_size = 4  # sequences of a micro-batch
repeats = 7  # measurements of each figure, after a warm-up
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # auto, bfloat16, float16, float32
compile = True  # torch.compile the model
profile = False  # print where the time of a training step goes (torch.profiler)

PAPER_TOKENS = 23_900_000_000  # of its English corpus (Section 3)


def median_seconds(action, torch_device, count):
    """Median duration of action(), after one that does not count."""
    action()
    times = []
    for _ in range(count):
        machine.synchronize(torch_device)
        start = time.perf_counter()
        action()
        machine.synchronize(torch_device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def training_step(torch_device, compute_dtype):
    """One micro-batch and one step of Adam: a dict of figures.

    tokens_per_second counts Adam as if each micro-batch were a step; tokens_per_second_accumulated
    leaves it out, as in a step of many micro-batches."""
    torch.manual_seed(0)
    config = GPTConfig(**SIZES[size], block_size=block_size, vocab_size=vocab_size)
    model = GPT(config).to(torch_device)
    optimizer = make_optimizer(model.parameters(), 1e-4)
    compiled = compile and machine.can_compile(torch_device)
    trained = torch.compile(model) if compiled else model
    tokens = torch.randint(1, vocab_size, (micro_batch_size, block_size + 1), device=torch_device)
    idx, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def one_micro_batch():
        with machine.autocast(torch_device, compute_dtype):
            loss, _ = trained(idx, targets, per_token=True)
        loss.backward()

    def one_step():
        one_micro_batch()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    one_step()
    machine.synchronize(torch_device)
    first, cuda = time.perf_counter() - START, torch_device.type == 'cuda'
    if cuda:
        torch.cuda.reset_peak_memory_stats(torch_device)
    step = median_seconds(one_step, torch_device, repeats)
    accumulated = median_seconds(one_micro_batch, torch_device, repeats)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = torch.cuda.max_memory_allocated(torch_device) if cuda else memory
    if profile:
        with torch.profiler.profile() as profiler:
            one_step()
        order = f'self_{torch_device.type}_time_total'
        print(profiler.key_averages().table(sort_by=order, row_limit=25))
    peak = machine.measure_peak(torch_device, compute_dtype, seconds=1.0)
    speed, alone = (micro_batch_size * block_size / seconds for seconds in (step, accumulated))
    figures = dict(compiled=compiled, tokens_per_second=speed, tokens_per_second_accumulated=alone)
    figures |= dict(mfu=speed * config.flops_per_token() / peak, peak_gflops=peak / 1e9)
    return figures | dict(peak_memory_gib=memory / 2**30, start_to_first_step_s=first)


def evaluation(torch_device, compute_dtype):
    """Seconds for a scored token of the sliding window, a quarter of a sequence as in the paper."""
    config = GPTConfig(**SIZES[size], block_size=block_size, vocab_size=vocab_size)
    model, windows = GPT(config).to(torch_device), 16 if torch_device.type == 'cpu' else 512
    stream = np.random.default_rng(0).integers(1, vocab_size, block_size * (1 + windows // 4))
    context = machine.autocast(torch_device, compute_dtype)

    def evaluate():
        window_losses(model, stream, block_size // 4, context=context)

    return median_seconds(evaluate, torch_device, 3) / (len(stream) - block_size)


def loader():
    """Seconds for a batch of the paper's largest run (128 x 512, four times the data, Figure 2)
    over a sparse shard of its corpus, and until the first batch."""
    with tempfile.NamedTemporaryFile() as file:
        os.truncate(file.name, 2 * PAPER_TOKENS)
        shard = open_shard(file.name)
        corpus = SimpleNamespace(name='sparse', train=shard, vocab_size=16384, folder='')
        table, start = np.arange(16384, dtype=np.int32), time.perf_counter()
        languages = [Language(f'en{n + 1}', corpus, table + 16384 * n) for n in range(2)]
        mix = LanguageMix(languages, [[0.9, 0.1]], 4 * 18265, 128, 512, 0)
        until_first, steps = time.perf_counter() - start, iter(range(10**6))
        return median_seconds(lambda: mix.batch(next(steps)), torch.device('cpu'), 50), until_first


def main():
    require(size in SIZES, f'size must be one of {", ".join(SIZES)}, not {size!r}')
    torch_device = machine.pick_device(device)
    machine.make_deterministic(torch_device)  # as train.py does
    compute_dtype = machine.pick_dtype(dtype, torch_device)
    with machine.memory_advice('lower micro_batch_size'):
        figures = training_step(torch_device, compute_dtype)
        scored, (batch, until_first) = evaluation(torch_device, compute_dtype), loader()
    print(f'{machine.describe(torch_device)}, torch {torch.__version__}, medians of {repeats}')
    rows = [(name, f'{value:,.2f}') for name, value in figures.items()]
    rows += [('evaluation_us_per_scored_token', f'{1e6 * scored:,.0f}')]
    rows += [
        ('loader_ms_per_batch', f'{1e3 * batch:.2f}'),
        ('loader_first_s', f'{until_first:.1f}'),
    ]
    print(align([(f'{size}, {compute_dtype}', 'figure'), *rows]))


if __name__ == '__main__':
    run(globals(), main)
