"""Cores and processes."""

import multiprocessing
import os
import signal
import threading


def cores():
    """Number of cores that this process may use; the machine may have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def end_with_parent():
    """Ends this process when its parent does, which may be killed at any time."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def interrupt_once(number, frame):
    """A signal's handler: as Ctrl-C, but a second signal does not end what the first one began."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
