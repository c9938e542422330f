"""Files of a run or corpus: written whole or not at all, and locked while they are written."""

import fcntl
import json
import os
import re
import sys
from pathlib import Path

from lib.configurator import ConfigError


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
    """Writes `value` as JSON, lists of numbers on one line each; null where a number is infinite or
    undefined."""
    value = json.loads(json.dumps(value), parse_constant=lambda name: None)
    text = json.dumps(value, indent=2)
    text = re.sub(r'\[[^][{}"]*\]', lambda numbers: ' '.join(numbers[0].split()), text)
    write_file(path, lambda file: file.write(f'{text}\n'.encode()))


def read_json(path):
    """The value of a JSON file. Raises ConfigError when it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError:
        raise ConfigError(f'{path} is damaged; delete it and rerun what wrote it') from None


def lock(folder):
    """Holds a folder for this process until the returned file is closed. Raises ConfigError when
    another process holds it. A file system without locks gets a warning."""
    file = open(Path(folder) / '.lock', 'w')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f'another process is using {folder}') from None
    except OSError as error:
        text = f'warning: cannot lock {folder} ({error.strerror}); start nothing else in it'
        print(text, file=sys.stderr)
    return file
