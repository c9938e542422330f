"""The machine a script runs on: device, number format, memory, compiler, peak speed."""

import collections
import contextlib
import functools
import itertools
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib.configurator import ConfigError, require

import numpy as np
import torch
import torch.distributed as dist


def pick_device(name='auto'):
    """torch.device of a setting: auto, cpu, cuda, cuda:1, mps. Raises ConfigError without it."""
    if name == 'auto':
        kinds = dict(cuda=torch.cuda, mps=torch.backends.mps)
        name = next((kind for kind, backend in kinds.items() if backend.is_available()), 'cpu')
        if name == 'cpu' and shutil.which('nvidia-smi'):
            text = f'torch {torch.__version__} cannot use the GPU that nvidia-smi is for'
            print(f'warning: {text}: install one that fits the driver', file=sys.stderr)
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f'device {name!r} cannot be used: {str(error).splitlines()[0]}') from None
    return device


def make_deterministic(device):
    """The same numbers each time on a CPU, where the threads of a compiled model would add up the
    gradients of the embeddings in any order. Not on a GPU, where it costs speed."""
    if device.type == 'cpu':
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it finds errors, and is slow


def code_version():
    """(commit, whether tracked files differ from it) of this code; (None, None) outside of git."""
    command = 'git --no-optional-locks describe --always --dirty --abbrev=40 --exclude=*'.split()
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # no git
        return None, None
    commit, dirty, _ = done.stdout.strip().partition('-dirty')
    return (commit, bool(dirty)) if done.returncode == 0 else (None, None)


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
        known = name in ('bfloat16', 'float16', 'float32')
        require(known, f'dtype must be auto, bfloat16, float16 or float32, not {name!r}')
        return getattr(torch, name)
    if device.type == 'cuda':
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    # These CPUs multiply bfloat16 (AVX512-bf16, AMX, Arm); emulation would be slower.
    fast = {'avx512_bf16', 'amx_bf16', 'bf16', 'svebf16'} & set(read('/proc/cpuinfo').split())
    return torch.bfloat16 if device.type == 'cpu' and fast else torch.float32


def autocast(device, dtype):
    """Context in which matrix products are made in `dtype`. float32 is not TF32 on a GPU, so that
    runs of a GPU and of a CPU may be compared."""
    if dtype != torch.float32:
        return torch.autocast(device.type, dtype)
    torch.set_float32_matmul_precision('highest')  # some installations begin with TF32
    return contextlib.nullcontext()


@functools.cache
def can_compile(device):
    """Whether torch.compile works, tried on a tiny function; prints why where it does not."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # compilers, their headers and Triton fail in many ways
        lines = str(error).splitlines() or [type(error).__name__]
        line = next((line for line in lines if 'error:' in line), lines[0]).strip()
        print(f'note: torch.compile does not work ({line}): uncompiled, slower', file=sys.stderr)
        return False
    return True


def available_bytes(device):
    """Memory that is free for use now, bytes."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    found = re.search(r'MemAvailable: *(\d+) kB', read('/proc/meminfo'))
    free = int(found[1]) * 1024 if found else 8 << 30
    limit, used = (read(f'/sys/fs/cgroup/memory.{part}').strip() for part in ('max', 'current'))
    return min(free, int(limit) - int(used)) if limit.isdigit() else free


def largest_micro_batch(config, compute_dtype, device, parameters):
    """Micro-batch size that should fit the device, from the tensors of a block that a sequence
    keeps for the backward pass. Kept free: gradients, Adam's moments and copies for the products
    (16 bytes a parameter), and a chunk of logits."""
    width, cuda = config.n_head * config.head_dim, device.type == 'cuda'
    element = 4 if compute_dtype == torch.float32 else 2
    products = (4 * config.n_embd + 5 * width + 3 * config.mlp_dim) * element
    per_token = config.n_layer * (products + 12 * config.n_embd) + 8 * config.n_embd
    usable = 0.85 if cuda else 0.5 / int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    usable /= int(os.environ.get('RUNS_ON_DEVICE', 1))  # of experiment.py
    free = available_bytes(device) * usable - 16 * parameters - (1 << 30)
    most = float('inf') if cuda else 16384 / config.block_size  # a CPU's caches are small
    return max(1, int(min(free / (1.3 * config.block_size * per_token), most)))


def micro_batch_of(counts, largest):
    """Micro-batch size for steps of `counts` sequences, at most `largest`. All micro-batches are
    padded to it, so that one compiled graph serves them.

    A constant count gets its largest divisor; other counts get the size of least total cost, where
    each micro-batch costs two sequences on top."""
    sizes = np.arange(1, min(largest, counts.max()) + 1)
    if counts.min() == counts.max():
        return int(sizes[counts.max() % sizes == 0].max())
    parts = np.ceil(counts[:, None] / sizes).sum(0)
    return int(sizes[(parts * (sizes + 2)).argmin()])


def prefetch(make, items, ahead=8):
    """Generator of make(item), in order; several threads make the next ones meanwhile."""
    with ThreadPoolExecutor(4) as pool:
        submitted = (pool.submit(make, item) for item in items)
        waiting = collections.deque(itertools.islice(submitted, ahead))
        while waiting:
            waiting.extend(itertools.islice(submitted, 1))
            yield waiting.popleft().result()


def synchronize(device):
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


@functools.cache
def measure_peak(device, dtype, seconds=0.3):
    """Floating-point operations per second: the best of repeated n x n matrix products."""
    slow = device.type == 'cpu' and dtype == torch.float16
    n = 8192 if device.type == 'cuda' else 256 if slow else 1024
    matrix, times = torch.randn(n, n, device=device).to(dtype), []
    while sum(times) < seconds:
        start = time.perf_counter()
        matrix @ matrix
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)


@contextlib.contextmanager
def memory_advice(advice):
    """Turns running out of memory on the device into a ConfigError that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = "out of memory|can't allocate memory|not enough memory"
        if isinstance(error, MemoryError) or re.search(words, str(error).lower()):
            raise ConfigError(f'out of memory: {advice}') from None
        raise


# --- processes and signals ------------------------------------------------------------------------


class Processes:
    """This process among those of torchrun: rank, world (how many), device. Alone: 0 of 1."""

    def __init__(self, device):
        self.rank, self.world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
        self.distributed, cuda = 'RANK' in os.environ, torch.cuda.is_available()
        if self.distributed and device in ('auto', 'cuda') and cuda:
            device = f'cuda:{os.environ["LOCAL_RANK"]}'
        self.device = pick_device(device)
        if self.device.index is not None and self.device.type == 'cuda':
            torch.cuda.set_device(self.device)
        if self.distributed:
            dist.init_process_group('cpu:gloo,cuda:nccl' if cuda else 'gloo')

    def sum(self, array):
        """Sum over the processes of a float64 array; does not wait for a GPU."""
        if self.distributed:
            dist.all_reduce(torch.from_numpy(array))  # in place
        return array

    def close(self):
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()


class Signals:
    """Context that remembers SIGTERM or Ctrl-C in `number` until the run can stop; a second Ctrl-C
    ends the process at once (SIGTERM may come twice, from experiment.py and from a scheduler). A
    signal that the process ignores stays ignored."""

    number = 0

    def __enter__(self):
        known = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        self.before = {n: known[n] for n in known if known[n] != signal.SIG_IGN}
        for number in self.before:
            signal.signal(number, self.remember)

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def remember(self, number, frame):
        self.number = number
        # not print, which may be interrupted in the middle of its own work
        os.write(2, b'\nstopping after this step (Ctrl-C again quits now)\n')
        if signal.SIGINT in self.before:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
