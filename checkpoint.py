"""Checkpoints and the files of a run's folder.

They are written aside, synced and renamed, and read with a check of every byte.
"""

import fcntl
import json
import os
import re
import sys
import zipfile
from pathlib import Path

import torch

from configurator import ConfigError, require
from data import alone, build_languages
from model import GPT, GPTConfig
from runs import DEFAULTS


def write_file(path, write):
    """Makes `path` by write(binary file): complete and on disk, or not at all.

    Raises OSError for a full disk."""
    aside = Path(f'{path}.tmp')
    try:
        with open(aside, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        cause = error  # torch.save hides the reason that the disk gave
        while cause is not None and not getattr(cause, 'errno', None):
            cause = cause.__context__
        if cause is not None:
            raise OSError(cause.errno, cause.strerror, cause.filename or str(path)) from None
        raise
    folder = os.open(Path(path).parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path, value):
    """Writes `value` as JSON, lists of numbers on one line each."""
    text = json.dumps(value, indent=2)
    text = re.sub(r'\[[^][{}"]*\]', lambda numbers: ' '.join(numbers[0].split()), text)
    write_file(path, lambda file: file.write(f'{text}\n'.encode()))


def checkpoint_paths(out):
    """{step: path} of the checkpoints in a run's folder, by step; other files are ignored."""
    files = Path(out).glob('checkpoint_*.pt')
    names = {path: re.fullmatch(r'checkpoint_(\d+)\.pt', path.name) for path in files}
    return dict(sorted((int(name[1]), path) for path, name in names.items() if name))


def save_checkpoint(out, state, keep=()):
    """Writes out/checkpoint_STEP.pt; the last older one and those of steps `keep` stay."""
    path = Path(out) / f'checkpoint_{state["step"]:07d}.pt'
    write_file(path, lambda file: torch.save(state, file))
    older = [step for step in checkpoint_paths(out) if step < state['step']]
    for step in set(older[:-1]) - set(keep):
        checkpoint_paths(out)[step].unlink()


def read_checkpoint(path):
    """A checkpoint's dict, on CPU. Raises ConfigError when it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not compare the checksums
        if damaged is None:
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise ConfigError(f'{path} is damaged ({type(error).__name__})') from None
    raise ConfigError(f'{path} is damaged (checksum of {damaged})')


def last_checkpoint(out, at_most=None):
    """The newest whole checkpoint of a run (dict), or None; it says so when it passes over one.

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


def load_run(out):
    """A run of train.py for evaluation: (model on CPU, list of Language, checkpoint dict).

    Raises ConfigError."""
    state = last_checkpoint(out)
    require(state, f'there is no run in {out}; make one with: python train.py CONFIG')
    chosen = DEFAULTS | state['settings']
    languages, entries = build_languages(*(chosen[key] for key in LANGUAGE_SETTINGS))
    if chosen.get('only'):
        languages, entries = alone(languages, chosen['only'])
    check_corpora(state, languages, out)
    model = GPT(GPTConfig(**state['model_config']))
    model.load_state_dict(state['model'])
    return model.eval(), languages, state


LANGUAGE_SETTINGS = ('corpora', 'languages', 'vocabulary', 'cloned_fraction', 'seed', 'orders')


def corpora_identity(languages):
    """{corpus: [hash of the tokeniser, fingerprint of the training shard]} of a run."""
    corpora = [language.corpus for language in languages]
    return {c.name: [c.tokenizer_hash, c.info['train']['fingerprint']] for c in corpora}


def check_corpora(state, languages, out):
    """Raises ConfigError when a corpus is not the one that the run in `out` was made with."""
    for name, identity in corpora_identity(languages).items():
        same = state['corpora'].get(name) == identity
        require(same, f'data/{name} is not the corpus of {out}; give that its name back')


def lock(out):
    """Holds a run's folder for this process until it ends.

    Raises ConfigError when another process has it."""
    file = open(Path(out) / '.lock', 'w')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f'another process is training in {out}') from None
    return file
