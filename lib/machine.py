"""The machine a script runs on: device, number format, memory, compiler, peak speed."""

import contextlib
import os
import platform
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from lib.configurator import ConfigError, require

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16, 'float32': torch.float32}


def pick_device(name='auto'):
    """torch.device of a setting: auto, cpu, cuda, cuda:1, mps. Raises ConfigError without it."""
    if name == 'auto':
        kinds = dict(cuda=torch.cuda, mps=torch.backends.mps)
        name = next((kind for kind, backend in kinds.items() if backend.is_available()), 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f'device {name!r} cannot be used: {str(error).splitlines()[0]}') from None
    return device


def make_deterministic(device):
    """The same numbers each time from any number of threads: on a CPU a compiled model would add up
    the gradients of its entries in whatever order. Not on a GPU, where it costs speed."""
    if device.type == 'cpu':
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it finds errors, and is slow


def describe(device):
    """What the device is called, for logs."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    found = re.search(r'model name\s*:(.*)', read('/proc/cpuinfo'))
    name = found[1].strip() if found else platform.machine()
    return f'{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads'


def read(path):
    """The text of a file that Linux has, or nothing elsewhere."""
    try:
        return Path(path).read_text()
    except OSError:
        return ''


def pick_dtype(name, device):
    """torch.dtype of the matrix products. 'auto' is bfloat16 where the hardware multiplies it, else
    float16 on a GPU, else float32."""
    if name != 'auto':
        require(name in DTYPES, f'dtype must be auto, {", ".join(DTYPES)}, not {name!r}')
        return DTYPES[name]
    if device.type == 'cuda':
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    # These CPUs multiply bfloat16 (AVX512-bf16, AMX, Arm); emulation would be slower.
    fast = {'avx512_bf16', 'amx_bf16', 'bf16', 'svebf16'} & set(read('/proc/cpuinfo').split())
    return torch.bfloat16 if device.type == 'cpu' and fast else torch.float32


def autocast(device, dtype):
    """Context in which matrix products are made in `dtype`."""
    plain = dtype == torch.float32
    return contextlib.nullcontext() if plain else torch.autocast(device.type, dtype)


def can_compile(device):
    """Whether torch.compile finds what it needs: on CPU a C++ compiler."""
    compilers = os.environ.get('CXX', 'g++'), 'c++', 'clang++'
    return device.type != 'cpu' or any(map(shutil.which, compilers))


def available_bytes(device):
    """Memory that is free for use now, bytes."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    found = re.search(r'MemAvailable: *(\d+) kB', read('/proc/meminfo'))
    free = int(found[1]) * 1024 if found else 8 << 30
    limit, used = (read(f'/sys/fs/cgroup/memory.{part}').strip() for part in ('max', 'current'))
    return min(free, int(limit) - int(used)) if limit.isdigit() else free


def largest_micro_batch(config, compute_dtype, device, parameters):
    """How many sequences should fit the device in one pass.

    A sequence keeps for the backward pass what is estimated from the tensors of a block. Kept free:
    gradients, Adam's moments and copies for the products (16 bytes a parameter), and a chunk of
    logits."""
    width = config.n_head * config.head_dim
    element = 4 if compute_dtype == torch.float32 else 2
    products = (4 * config.n_embd + 5 * width + 3 * config.mlp_dim) * element
    per_token = config.n_layer * (products + 3 * config.n_embd * 4)
    per_sequence = 1.3 * config.block_size * (per_token + 8 * config.n_embd)
    cuda = device.type == 'cuda'
    usable = 0.85 if cuda else 0.5 / int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    free = available_bytes(device) * usable - 16 * parameters - (1 << 30)
    # Larger passes are not faster on a CPU, whose caches are small.
    most = float('inf') if cuda else 16384 / config.block_size
    return max(1, int(min(free / per_sequence, most)))


def micro_batch_of(counts, largest):
    """Micro-batch size for steps of `counts` sequences, at most `largest`.

    All micro-batches are padded to this one size, so that one compiled graph serves them. A
    constant count gets its largest divisor; other counts get the size of least total cost, where
    each micro-batch costs two sequences on top."""
    sizes = np.arange(1, min(largest, counts.max()) + 1)
    if counts.min() == counts.max():
        return int(sizes[counts.max() % sizes == 0].max())
    parts = np.ceil(counts[:, None] / sizes).sum(0)
    return int(sizes[(parts * (sizes + 2)).argmin()])


def prefetch(make, items):
    """Generator of make(item); a thread makes each while the device works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        following = None
        for item in items:
            ready, following = following, pool.submit(make, item)
            if ready:
                yield ready.result()
        if following:
            yield following.result()


def synchronize(device):
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def measure_peak(device, dtype, n=None, seconds=0.3):
    """Floating-point operations per second: the best of repeated n x n matrix products."""
    if n is None:
        n = 8192 if device.type == 'cuda' else 2048
        n = 512 if device.type == 'cpu' and dtype == torch.float16 else n  # slow on a CPU
    a, b = torch.randn(n, n, device=device).to(dtype), torch.randn(n, n, device=device).to(dtype)
    a @ b
    best, end = float('inf'), time.perf_counter() + seconds
    while best == float('inf') or time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


OUT_OF_MEMORY = ('out of memory', "can't allocate memory", 'not enough memory')


@contextlib.contextmanager
def memory_advice(advice):
    """Turns running out of memory on the device into a ConfigError that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY):
            raise ConfigError(f'out of memory: {advice}') from None
        raise


# --- processes and signals ------------------------------------------------------------------------


class Processes:
    """This process among those of torchrun: rank, world (how many), device. Alone: 0 of 1."""

    def __init__(self, device):
        """device: the setting of that name; raises ConfigError where it is not there."""
        self.rank, self.world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        self.distributed, name = 'RANK' in os.environ, device
        if self.distributed and device in ('auto', 'cuda') and torch.cuda.is_available():
            name = f'cuda:{os.environ["LOCAL_RANK"]}'
        self.device = pick_device(name)
        if self.device.type == 'cuda':
            torch.cuda.set_device(self.device)
        if self.distributed:
            dist.init_process_group('nccl' if self.device.type == 'cuda' else 'gloo')

    def sum(self, array):
        """Sum over the processes of a float64 array."""
        if not self.distributed:
            return array
        tensor = torch.from_numpy(array).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def close(self):
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()


class Signals:
    """SIGTERM and Ctrl-C are remembered until the run can stop; a second one ends it at once."""

    number = 0

    def listen(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.remember)

    def remember(self, number, frame):
        self.number = number
        # not print, which may be interrupted in the middle of its own work
        os.write(2, b'\nstopping after this step; once more ends at once\n')
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.SIG_DFL)
