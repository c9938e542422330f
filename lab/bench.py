"""Speed and memory of a training step and of the evaluation, as medians.

    python -m lab.bench --size=mini --vocab_size=16384
    python -m lab.bench --size=mini --profile=True       # and where the time of a step goes

MFU is the fraction of the measured peak of matrix products that a step uses: 6 floating-point
operations for each parameter of blocks and head, and the attention (GPTConfig.flops_per_token).
"""

import resource

from lib.configurator import require, run

import numpy as np
import torch
from torch.utils.benchmark import Timer

from evaluate import window_losses
from lib import machine
from lib.tables import align
from model import GPT, SIZES, GPTConfig, make_optimizer

size = 'mini'  # mini, small or medium
vocab_size = 32768  # embedding rows
block_size = 512  # tokens of a sequence
micro_batch_size = 4  # sequences of a micro-batch
seconds = 10.0  # repeat each measurement for so long, after a warm-up
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # auto, bfloat16, float16, float32
compile = True  # torch.compile the model
profile = False  # print where the time of a training step goes (torch.profiler)


def median_seconds(action):
    how = dict(globals=dict(action=action), num_threads=torch.get_num_threads())
    return Timer('action()', **how).blocked_autorange(min_run_time=seconds).median


def training_step(model, place, context):
    """Seconds of a micro-batch and a step of Adam on it, and of the micro-batch alone."""
    optimizer = make_optimizer(model.parameters(), 1e-4)
    trained = torch.compile(model) if compile and machine.can_compile(place) else model
    tokens = torch.randint(1, vocab_size, (micro_batch_size, block_size + 1), device=place)
    idx, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def one_micro_batch():
        with context:
            loss, _ = trained(idx, targets, per_token=True)
        loss.backward()

    def one_step():
        one_micro_batch()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    found = median_seconds(one_step), median_seconds(one_micro_batch)
    if profile:
        with torch.profiler.profile() as profiler:
            one_step()
        order = f'self_{place.type}_time_total'
        print(profiler.key_averages().table(sort_by=order, row_limit=25))
    return found


def main():
    require(size in SIZES, f'size must be one of {", ".join(SIZES)}, not {size!r}')
    place = machine.pick_device(device)
    machine.make_deterministic(place)  # as train.py does
    compute_dtype, cuda = machine.pick_dtype(dtype, place), place.type == 'cuda'
    how = dict(last_n=block_size // 4, context=machine.autocast(place, compute_dtype))
    stream = np.random.default_rng(0).integers(1, vocab_size, block_size * (129 if cuda else 5))
    with machine.memory_advice('lower micro_batch_size'):
        model = GPT(GPTConfig(**SIZES[size], block_size=block_size, vocab_size=vocab_size))
        step, micro_batch = training_step(model.to(place), place, how['context'])
        window = median_seconds(lambda: window_losses(model, stream, **how))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = torch.cuda.max_memory_allocated(place) if cuda else memory
    peak = machine.measure_peak(place, compute_dtype, seconds=1.0)
    tokens = micro_batch_size * block_size
    figures = {
        'tokens/s, a step of Adam for each micro-batch': tokens / step,
        'tokens/s, without Adam': tokens / micro_batch,
        'MFU': tokens / step * model.config.flops_per_token() / peak,
        'peak of matrix products, GFLOP/s': peak / 1e9,
        'memory, GiB': memory / 2**30,
        'evaluation, tokens/s': (len(stream) - block_size) / window,
    }
    print(f'{machine.describe(place)}, torch {torch.__version__}, medians of {seconds:g} s')
    lines = [(name, f'{value:,.2f}') for name, value in figures.items()]
    print(align([(f'{size}, {compute_dtype}', ''), *lines]))


if __name__ == '__main__':
    run(globals(), main)
