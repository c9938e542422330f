# ruff: noqa: E402
"""Speed and memory on the present device, in one run: every figure is a median of measurements.

    python bench.py                     # all cases: a table and out/bench.json
    python bench.py --size=mini --vocab_size=32768 --micro_batch_size=4   # one training step
    python bench.py --size=mini --profile=True                            # where its time goes

MFU is the share of the measured peak of matrix products that a training step uses: 6 floating-point
operations for each parameter of blocks and head, and the attention (GPTConfig.flops_per_token).
"""

import time

START = time.perf_counter()  # before the imports: users wait for them, too

import json as json_module
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from lib.configurator import ConfigError, run

import numpy as np
import torch
from tqdm import tqdm

from data import Language, LanguageMix, open_shard
from evaluate import window_losses
from lib import machine
from lib.files import write_json
from model import GPT, SIZES, GPTConfig, make_optimizer

size = ''  # one training step of this size only; empty: all cases
vocab_size = 32768  # entries of the model's vocabulary
block_size = 512  # tokens of a sequence
micro_batch_size = 4  # sequences of a pass
repeats = 7  # measurements of each figure, after a warm-up
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # auto, bfloat16, float16, float32
compile = True  # torch.compile the model
json = ''  # file for the figures; empty: out/bench.json when all cases run
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
    """One pass of the settings and one step of Adam: a dict of figures.

    tokens_per_second counts Adam as if each pass were a step; tokens_per_second_accumulated leaves
    it out, as in a step of many passes."""
    torch.manual_seed(0)
    config = GPTConfig(**SIZES[size], block_size=block_size, vocab_size=vocab_size)
    model = GPT(config).to(torch_device)
    optimizer = make_optimizer(model.parameters(), 1e-4)
    compiled = compile and machine.can_compile(torch_device)
    trained = torch.compile(model) if compiled else model
    tokens = torch.randint(1, vocab_size, (micro_batch_size, block_size + 1), device=torch_device)
    idx, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def one_pass():
        with machine.autocast(torch_device, compute_dtype):
            loss, _ = trained(idx, targets, per_token=True)
        loss.backward()

    def one_step():
        one_pass()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    one_step()
    machine.synchronize(torch_device)
    first = time.perf_counter() - START
    if torch_device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(torch_device)
    step = median_seconds(one_step, torch_device, repeats)
    accumulated = median_seconds(one_pass, torch_device, repeats)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch_device.type == 'cuda':
        memory = torch.cuda.max_memory_allocated(torch_device)
    if profile:
        with torch.profiler.profile() as profiler:
            one_step()
        order = f'self_{torch_device.type}_time_total'
        print(profiler.key_averages().table(sort_by=order, row_limit=25))
    peak = machine.measure_peak(torch_device, compute_dtype, seconds=1.0)
    flops = micro_batch_size * block_size * config.flops_per_token()
    return dict(
        size=size,
        vocab_size=vocab_size,
        block_size=block_size,
        micro_batch_size=micro_batch_size,
        compiled=compiled,
        dtype=str(compute_dtype).removeprefix('torch.'),
        tokens_per_second=micro_batch_size * block_size / step,
        tokens_per_second_accumulated=micro_batch_size * block_size / accumulated,
        mfu=flops / step / peak,
        mfu_accumulated=flops / accumulated / peak,
        peak_flops=peak,
        start_to_first_step_s=first,
        peak_memory_bytes=memory,
    )


def in_own_process(**case):
    """training_step of a case in a process of its own, so that its peak memory is its own."""
    with tempfile.NamedTemporaryFile('r') as file:
        case |= dict(block_size=512, micro_batch_size=micro_batch_size)
        common = dict(json=file.name, repeats=repeats, device=device, dtype=dtype, compile=compile)
        arguments = [f'--{name}={value}' for name, value in (case | common).items()]
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f'ended with status {done.returncode}']
            return dict(case, error=lines[-1])
        return json_module.loads(Path(file.name).read_text())


def evaluation(torch_device, compute_dtype):
    """Seconds for a scored token of the sliding window, 128 of 512 as in the paper, GPT mini."""
    model = GPT(GPTConfig(**SIZES['mini'], block_size=512, vocab_size=32768)).to(torch_device)
    windows = 16 if torch_device.type == 'cpu' else 512
    stream = np.random.default_rng(0).integers(1, 32768, 512 + 128 * windows)
    context = machine.autocast(torch_device, compute_dtype)
    seconds = median_seconds(
        lambda: window_losses(model, stream, 128, context=context), torch_device, 3
    )
    return dict(seconds_per_scored_token=seconds / (128 * windows), size='mini', vocab_size=32768)


def loader():
    """The batches of the paper's largest run (four times the data, Figure 2) over a sparse shard
    of its corpus: seconds for a batch of 128 x 512, seconds until the first, and memory."""
    with tempfile.NamedTemporaryFile() as file:
        os.truncate(file.name, 2 * PAPER_TOKENS)
        shard = open_shard(file.name)
        corpus = SimpleNamespace(name='sparse', train=shard, vocab_size=16384, folder='')
        table = np.arange(16384, dtype=np.int32)
        languages = [Language(f'en{n + 1}', corpus, table + 16384 * n) for n in range(2)]
        before, start = anonymous_memory(), time.perf_counter()
        mix = LanguageMix(languages, [[0.9, 0.1]], 4 * 18265, 128, 512, 0)
        seconds_to_start, numbers = time.perf_counter() - start, iter(range(10**6))
        seconds = median_seconds(lambda: mix.batch(next(numbers)), torch.device('cpu'), 50)
        memory = anonymous_memory() - before
    figures = dict(tokens=PAPER_TOKENS, seconds_per_batch=seconds)
    return dict(figures, seconds_to_start=seconds_to_start, memory_bytes=memory)


def anonymous_memory():
    """Memory of this process that no file stands behind, bytes (Linux; elsewhere its peak)."""
    try:
        with open('/proc/self/status') as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith('RssAnon'))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def all_cases(torch_device, compute_dtype, path):
    """The sizes of the paper with 1, 2 and 10 languages of 16,384 pieces, the evaluation and the
    batches. Writes the figures to `path` after each, and prints them."""
    cases = [(name, 16384 * n) for name in SIZES for n in (1, 2, 10)]
    if torch_device.type == 'cpu':  # the larger ones take minutes a step there
        cases = cases[:5]
    kinds = {str(kind).removeprefix('torch.'): kind for kind in (torch.float32, compute_dtype)}
    peaks = {k: machine.measure_peak(torch_device, kind, seconds=2.0) for k, kind in kinds.items()}
    about = dict(device=machine.describe(torch_device), torch=torch.__version__, peaks=peaks)
    steps = []
    for name, entries in tqdm(cases, desc='bench', unit=' cases'):
        steps.append(in_own_process(size=name, vocab_size=entries))
        write_json(path, dict(about, steps=steps))
    batches, scored = loader(), evaluation(torch_device, compute_dtype)
    write_json(path, dict(about, steps=steps, loader=batches, evaluation=scored))
    speeds = ', '.join(f'{name} {peak / 1e9:,.0f} GFLOP/s' for name, peak in peaks.items())
    print(f'{about["device"]}, torch {about["torch"]}\npeak of matrix products: {speeds}')
    print_steps(steps)
    print(
        f'sliding-window evaluation, mini: {1e6 * scored["seconds_per_scored_token"]:,.0f} us for '
        f'a scored token\nbatches of 128 x 512 over {PAPER_TOKENS:,} tokens: '
        f'{1e3 * batches["seconds_per_batch"]:.2f} ms each, '
        f'{batches["memory_bytes"] / 2**20:.1f} MiB, '
        f'the first after {batches["seconds_to_start"]:.1f} s'
    )


def print_steps(steps):
    """The table of training steps: a line for the figures of each, or its error."""
    head = 'size entries pass dtype tokens/s accumulated MFU accumulated peak_GiB first_step_s'
    cells = (
        '{size} {vocab_size:,} {micro_batch_size}x{block_size} {dtype} {tokens_per_second:,.0f} '
        '{tokens_per_second_accumulated:,.0f} {mfu:.0%} {mfu_accumulated:.0%} {gibibytes:.1f} '
        '{start_to_first_step_s:.1f}'
    )
    columns = 10 * '{:>13}'
    print(f'medians of {repeats}\n{columns.format(*head.split())}')
    for step in steps:
        if 'error' in step:
            print(f'{step["size"]:>8}{step["vocab_size"]:>9,}  {step["error"]}')
        else:
            row = cells.format(**step, gibibytes=step['peak_memory_bytes'] / 2**30)
            print(columns.format(*row.split()))


def main():
    torch_device = machine.pick_device(device)
    machine.make_deterministic(torch_device)  # as train.py does
    compute_dtype = machine.pick_dtype(dtype, torch_device)
    if profile and not size:
        raise ConfigError(f'profile is of one training step: add --size={"|".join(SIZES)}')
    if size and size not in SIZES:
        raise ConfigError(f'size must be one of {", ".join(SIZES)}, not {size!r}')
    path = json or ('' if size else 'out/bench.json')
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with machine.memory_advice('lower micro_batch_size'):
        if not size:
            all_cases(torch_device, compute_dtype, path)
            return
        figures = training_step(torch_device, compute_dtype)
    print_steps([figures])
    if path:
        write_json(path, figures)


if __name__ == '__main__':
    run(globals(), main)
