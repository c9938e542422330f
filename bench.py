"""Speed and memory on the present device, in one run: every figure is a median of repeated measurements.

    python bench.py                     # all cases: a table and out/bench.json
    python bench.py --size=mini --vocab_size=32768 --block_size=512 --micro_batch_size=4 --json=FILE   # one training step
    python bench.py --profile=True --size=mini                                        # where its time goes

MFU is the share of the measured peak of matrix products that a training step uses: 6 floating-point operations for
each parameter of blocks and head and the attention, a token (GPTConfig.flops_per_token).
"""
import time

START = time.perf_counter()  # before the imports: users wait for them, too

import json as json_module
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from checkpoint import write_json
from configurator import ConfigError, run
from prepare import train_tokenizer
from device import autocast, can_compile, describe, measure_peak, memory_advice, pick_device, pick_dtype, synchronize
from evaluate import window_losses
from data import Language, LanguageMix, open_shard
from model import GPT, SIZES, GPTConfig

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


def median_seconds(action, device, count):
    """Median duration of action(), after one that does not count."""
    action()
    times = []
    for _ in range(count):
        synchronize(device)
        start = time.perf_counter()
        action()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def training_step(size, vocab, block, micro, where, number_format, compiled):
    """One forward and backward pass over micro x block tokens and one step of Adam: a dict of figures.

    tokens_per_second counts the pass and the step of Adam, as if each pass were a step; tokens_per_second_accumulated
    leaves Adam out, as in a batch of many passes."""
    torch.manual_seed(0)
    config = GPTConfig(**SIZES[size], block_size=block, vocab_size=vocab)
    model = GPT(config).to(where)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=where.type in ('cpu', 'cuda'))
    fast = torch.compile(model) if compiled and can_compile(where) else model
    tokens = torch.randint(1, vocab, (micro, block + 1), device=where)
    idx, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    context = autocast(where, number_format)

    def one_pass():
        with context:
            loss, _ = fast(idx, targets, per_token=True)
        loss.backward()

    def one_step():
        one_pass()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    one_step()
    synchronize(where)
    first = time.perf_counter() - START
    if where.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(where)
    step = median_seconds(one_step, where, repeats)
    bare = median_seconds(one_pass, where, repeats)
    memory = (torch.cuda.max_memory_allocated(where) if where.type == 'cuda'
              else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    if profile:
        show_profile(one_step, where)
    peak = measure_peak(where, number_format, seconds=1.0)
    count = micro * block
    return dict(size=size, vocab_size=vocab, block_size=block, micro_batch_size=micro, compiled=fast is not model,
                dtype=str(number_format).removeprefix('torch.'), tokens_per_second=count / step,
                tokens_per_second_accumulated=count / bare, mfu=count / step * config.flops_per_token() / peak,
                mfu_accumulated=count / bare * config.flops_per_token() / peak, peak_flops=peak,
                start_to_first_step_s=first, peak_memory_bytes=memory)


def show_profile(action, where):
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if where.type == 'cuda':
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiler:
        action()
    order = 'self_cuda_time_total' if where.type == 'cuda' else 'self_cpu_time_total'
    print(profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60))


def in_own_process(**case):
    """training_step of a case in a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'figures.json')
        settings = dict(case, json=path, repeats=repeats, device=device, dtype=dtype, compile=compile)
        done = subprocess.run([sys.executable, __file__, *(f'--{k}={v}' for k, v in settings.items())],
                              capture_output=True, text=True)
        if done.returncode:
            return dict(case, error=(done.stderr.strip().splitlines() or [f'ended with status {done.returncode}'])[-1])
        return json_module.loads(Path(path).read_text())


def evaluation(where, number_format):
    """Seconds for a scored token of the sliding window, 128 of 512 as in the paper, GPT mini."""
    config = GPTConfig(**SIZES['mini'], block_size=512, vocab_size=32768)
    model, windows = GPT(config).to(where), 16 if where.type == 'cpu' else 512
    stream = np.random.default_rng(0).integers(1, 32768, 512 + 128 * windows)
    seconds = median_seconds(lambda: window_losses(model, stream, 128, context=autocast(where, number_format)), where, 3)
    return dict(seconds_per_scored_token=seconds / (128 * windows), size='mini', vocab_size=32768)


def heads(where, number_format):
    """{way: seconds} of a head with its loss alone, both passes over 2,048 tokens of GPT mini: as model.py does it, with
    all logits at once, and, where this torch has it, with torch's own chunks (which fall out of torch.compile)."""
    model = GPT(GPTConfig(**SIZES['mini'], block_size=512, vocab_size=32768)).to(where)
    states = torch.randn(2048, 512, device=where, requires_grad=True)
    targets = torch.randint(1, 32768, (2048,), device=where)
    ways = {'in chunks': lambda: model.head_loss(states, targets)[0],
            'all logits': lambda: F.cross_entropy(model.head(states).float(), targets)}
    if compile and can_compile(where):
        ways = {name: torch.compile(way) for name, way in ways.items()}
    if hasattr(F, 'linear_cross_entropy'):
        ways['F.linear_cross_entropy'] = lambda: F.linear_cross_entropy(
            states.to(number_format), model.head.weight.to(number_format), targets,
            options=torch.nn.LinearCrossEntropyOptions())

    def both_passes(way):
        with autocast(where, number_format):
            loss = way()
        loss.backward()
        states.grad = model.head.weight.grad = None

    return {name: median_seconds(lambda: both_passes(way), where, repeats) for name, way in ways.items()}


def loader():
    """The batches of the paper's largest run (four times the data, Figure 2) over a sparse shard of its corpus: seconds a
    batch of 128 x 512, seconds until the first, and memory."""
    with tempfile.NamedTemporaryFile() as file:
        os.truncate(file.name, 2 * PAPER_TOKENS)
        shard = open_shard(file.name)
        corpus = SimpleNamespace(name='sparse', train=shard, vocab_size=16384, folder='')
        table = np.arange(16384, dtype=np.int32)
        languages = [Language('en1', corpus, table), Language('en2', corpus, table + 16384)]
        before, start = anonymous_memory(), time.perf_counter()
        mix = LanguageMix(languages, [[0.9, 0.1]], 4 * 18265, 128, 512, 0)
        seconds_to_start = time.perf_counter() - start
        steps = iter(range(10**6))
        seconds = median_seconds(lambda: mix.batch(next(steps)), torch.device('cpu'), 50)
        return dict(tokens=PAPER_TOKENS, seconds_per_batch=seconds, seconds_to_start=seconds_to_start,
                    memory_bytes=anonymous_memory() - before)


def anonymous_memory():
    """Memory of this process that no file stands behind, bytes (Linux; elsewhere its peak)."""
    try:
        with open('/proc/self/status') as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith('RssAnon'))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def encoding():
    """MB of text a second that prepare.py turns into tokens, all cores, on invented words (16 MB)."""
    rng = random.Random(0)
    words = [''.join(rng.choice('bdfgklmnprstvz') + rng.choice('aeiou') for _ in range(rng.randint(1, 4)))
             for _ in range(20000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, 'text')
        text.mkdir()
        for number in range(64):
            (text / f'{number}.txt').write_text(' '.join(rng.choices(words, weights, k=50000)))
        total = sum(path.stat().st_size for path in text.iterdir())
        sample = [path.read_text() for path in list(text.iterdir())[:4]]
        Path(folder, 'tokenizer.model').write_bytes(train_tokenizer(sample, 4096))
        seconds = []
        for number in range(2):
            start = time.perf_counter()
            subprocess.run([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'prepare.py'),
                            f'--corpus=c{number}', f'--source={text}', '--tokenizer=tokenizer.model'], cwd=folder,
                           check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
    return dict(megabytes_per_second=total / min(seconds) / 1e6, megabytes=total / 1e6, cores=os.cpu_count())


def all_cases(where, number_format, path):
    """Every case of the table: the sizes of the paper with 1, 2 and 10 languages of 16,384 pieces. Writes the figures to
    `path` after each."""
    cases = [dict(size=size, vocab_size=16384 * n) for size in SIZES for n in (1, 2, 10)]
    if where.type == 'cpu':  # the larger ones take minutes a step there
        cases = [case for case in cases if case['size'] == 'mini' or case['vocab_size'] <= 32768][:5]
    figures = dict(device=describe(where), torch=torch.__version__, peaks={
        name: measure_peak(where, kind, seconds=2.0) for name, kind in
        (('float32', torch.float32), (str(number_format).removeprefix('torch.'), number_format))}, steps=[])
    with tqdm(total=len(cases) + 4, desc='bench', unit=' cases') as progress:
        for case in cases:
            figures['steps'].append(in_own_process(**case, block_size=512, micro_batch_size=micro_batch_size))
            write_json(path, figures)
            progress.update(1)
        for name, measure in (('heads', lambda: heads(where, number_format)), ('loader', loader), ('encoding', encoding),
                              ('evaluation', lambda: evaluation(where, number_format))):
            figures[name] = measure()
            write_json(path, figures)
            progress.update(1)
    return figures


def step_line(f):
    if 'error' in f:
        return f'{f["size"]:<8}{f["vocab_size"]:>9,}  {f["error"]}'
    return (f'{f["size"]:<8}{f["vocab_size"]:>9,}{f["micro_batch_size"]:>5} x {f["block_size"]:<5}{f["dtype"]:<10}'
            f'{f["tokens_per_second"]:>12,.0f}{f["tokens_per_second_accumulated"]:>14,.0f}{f["mfu"]:>8.0%}'
            f'{f["mfu_accumulated"]:>13.0%}{f["peak_memory_bytes"] / 2**30:>11.1f}{f["start_to_first_step_s"]:>16.1f}')


HEADER = (f'{"size":<8}{"entries":>9}{"pass":>8}{"":>5}{"dtype":<10}{"tokens/s":>12}{"without Adam":>14}{"MFU":>8}'
          f'{"w/o Adam":>13}{"peak GiB":>11}{"to 1st step, s":>16}')


def show(figures):
    print(f'{figures["device"]}, torch {figures["torch"]}')
    print('peak of matrix products: ' + ', '.join(f'{n} {p / 1e9:,.0f} GFLOP/s' for n, p in figures['peaks'].items()))
    print(f'medians of {repeats}\n{HEADER}')
    for step in figures['steps']:
        print(step_line(step))
    e, d, c = figures['evaluation'], figures['loader'], figures['encoding']
    print('head and loss, 2,048 tokens of mini, 32,768 entries: '
          + ', '.join(f'{name} {seconds:.3f} s' for name, seconds in figures['heads'].items()))
    print(f'sliding-window evaluation, {e["size"]}: {1e6 * e["seconds_per_scored_token"]:,.0f} us a scored token')
    fastest = max([f['tokens_per_second_accumulated'] for f in figures['steps'] if 'error' not in f], default=0)
    print(f'batches of 128 x 512 over {d["tokens"]:,} tokens: {1e3 * d["seconds_per_batch"]:.2f} ms each, '
          f'{d["seconds_per_batch"] * fastest / (128 * 512):.3%} of the fastest step above, '
          f'{d["memory_bytes"] / 2**20:.1f} MiB, the first after '
          f'{d["seconds_to_start"]:.1f} s')
    print(f'encoding: {c["megabytes_per_second"]:.1f} MB/s on {c["cores"]} cores, start of the processes included')


def main():
    where = pick_device(device)
    number_format = pick_dtype(dtype, where)
    if profile and not size:
        raise ConfigError(f'profile looks at one training step: say which with --size={"|".join(SIZES)}')
    path = json or ('' if size else 'out/bench.json')
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with memory_advice('lower micro_batch_size'):
        if size:
            if size not in SIZES:
                raise ConfigError(f'size must be one of {", ".join(SIZES)}, not {size!r}')
            figures = training_step(size, vocab_size, block_size, micro_batch_size, where, number_format, compile)
            print(f'medians of {repeats}\n{HEADER}\n{step_line(figures)}')
            if path:
                write_json(path, figures)
        else:
            show(all_cases(where, number_format, path))


if __name__ == '__main__':
    run(globals(), main)
