"""Speed and memory of a training step: a micro-batch and Adam.

    python -m lab.bench --size=mini --vocab_size=16384

MFU is the fraction of the measured peak of matrix products that a step uses: 6 floating-point
operations for each parameter of blocks and head, and the attention (GPTConfig.flops_per_token).
"""

import resource

from lib.configurator import require, run

import torch
from torch.utils.benchmark import Timer

from lib import machine
from model import GPT, SIZES, GPTConfig, make_optimizer

size = 'mini'  # mini, small or medium
vocab_size = 32768  # embedding rows
block_size = 512  # tokens of a sequence
micro_batch_size = 4  # sequences of a micro-batch
seconds = 10.0  # repeat the step for so long
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # auto, bfloat16, float16, float32
compile = True  # torch.compile the model


def main():
    require(size in SIZES, f'size must be one of {", ".join(SIZES)}, not {size!r}')
    place = machine.pick_device(device)
    machine.make_deterministic(place)  # as train.py does
    compute_dtype = machine.pick_dtype(dtype, place)
    config = GPTConfig(**SIZES[size], block_size=block_size, vocab_size=vocab_size)
    model = GPT(config).to(place)
    optimizer = make_optimizer(model, 1e-4)
    trained = torch.compile(model) if compile and machine.can_compile(place) else model
    tokens = torch.randint(1, vocab_size, (micro_batch_size, block_size + 1), device=place)

    def step():
        with machine.autocast(place, compute_dtype):
            loss, _ = trained(tokens[:, :-1], tokens[:, 1:], per_token=True)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with machine.memory_advice('lower micro_batch_size'):
        how = dict(globals=dict(step=step), num_threads=torch.get_num_threads())
        median = Timer('step()', **how).blocked_autorange(min_run_time=seconds).median
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = torch.cuda.max_memory_allocated(place) if place.type == 'cuda' else memory
    peak = machine.measure_peak(place, compute_dtype, seconds=1.0)
    speed = micro_batch_size * block_size / median
    mfu = speed * config.flops_per_token() / peak
    print(f'{machine.describe(place)}, torch {torch.__version__}, {compute_dtype}, {size}')
    print(f'{speed:,.0f} tokens/s, median of {seconds:g} s; {memory / 2**30:.2f} GiB')
    print(f'MFU {mfu:.4f} of {peak / 1e9:,.1f} GFLOP/s')


if __name__ == '__main__':
    run(globals(), main)
