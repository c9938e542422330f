"""Checkpoints in a run's folder: written whole, and read with a check of every byte."""

import re
import sys
import zipfile
from pathlib import Path

from lib.configurator import ConfigError, require

import torch

from lib.files import write_file


def checkpoint_paths(out):
    """{step: path} of the checkpoints in a run's folder, in order; other files are ignored."""
    files = Path(out).glob('checkpoint_*.pt')
    names = {path: re.fullmatch(r'checkpoint_(\d+)\.pt', path.name) for path in files}
    return dict(sorted((int(name[1]), path) for path, name in names.items() if name))


def save_checkpoint(out, state, keep=(), spare=1):
    """Writes out/checkpoint_STEP.pt; the newest `spare` before it and those of `keep` remain."""
    path = Path(out) / f'checkpoint_{state["step"]:07d}.pt'
    write_file(path, lambda file: torch.save(state, file))
    paths = checkpoint_paths(out)
    before = [step for step in paths if step < state['step']]
    for step in set(before[: len(before) - spare]) - set(keep):
        paths[step].unlink()


def read_checkpoint(path):
    """A checkpoint's dict, on CPU. Raises ConfigError when it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not compare the checksums
        if damaged is None:
            return torch.load(path, map_location='cpu', weights_only=True)
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise ConfigError(f'{path} is damaged ({type(error).__name__})') from None
    raise ConfigError(f'{path} is damaged (checksum of {damaged})')


def last_checkpoint(out, at_most=None):
    """The newest undamaged checkpoint of a run (dict) up to step `at_most`, or None; prints which
    damaged ones it skips.

    Raises ConfigError when all are damaged."""
    paths = checkpoint_paths(out)
    steps = [step for step in paths if at_most is None or step <= at_most]
    for step in reversed(steps):
        try:
            return read_checkpoint(paths[step])
        except ConfigError as error:
            print(f'{error}; falling back to the one before', file=sys.stderr)
    require(not steps, f'every checkpoint in {out} is damaged; delete them to start again')
    return None


def load_state(part, state, what):
    """part.load_state_dict(state). Raises ConfigError where `what` was made by other code: with
    other weights, or as the state of an optimiser with other settings."""
    own, stored = (either.get('param_groups', []) for either in (part.state_dict(), state))
    free = {'lr', 'fused'}  # follow the schedule and the device
    pairs = [(a, b, key) for a, b in zip(own, stored) for key in b.keys() - free]
    other = ', '.join(sorted({key for a, b, key in pairs if a.get(key, ...) != b[key]}))
    require(not other, f'{what} has other settings than this code: {other}')
    try:
        part.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(f'{what} does not fit this code: {str(error)[:200]!r}') from None
