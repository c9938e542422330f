"""Work on all cores that the job may use."""

import collections
import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

from lib.configurator import ConfigError


def cores():
    """Number of cores that this process may use; the machine may have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def end_with_parent():
    """Ends this process when its parent does, which may be killed at any time."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _start(start, *arguments):
    end_with_parent()
    start(*arguments)


def in_order(function, items, start=tuple, *arguments):
    """Generator of function(item) for every item, in order and a few items ahead; to be closed.

    There are at most as many processes as cores and as items; a single one is this process. Each
    calls start(*arguments) first. Raises ConfigError when a process is killed."""
    items = iter(items)
    first = list(itertools.islice(items, 3 * cores()))
    processes = min(cores(), len(first))
    if processes < 2:
        start(*arguments)
        yield from map(function, itertools.chain(first, items))
        return
    spawn = multiprocessing.get_context('spawn')  # a fork would carry the threads of torch
    pool = ProcessPoolExecutor(processes, spawn, _start, (start, *arguments))
    try:
        # Ctrl-C reaches all processes. New ones start with it blocked; the parent stops them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        pending = collections.deque([pool.submit(function, item) for item in first])
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
    except BrokenProcessPool:
        raise ConfigError('one of the processes was killed; did memory run out?') from None
    finally:
        pool.shutdown(cancel_futures=True)
