"""Settings the nanoGPT way, made strict: python SCRIPT.py [CONFIG.py ...] [--key=value ...]

A script keeps its settings as module globals above its first function, each with a comment. A
config file is plain Python that sets some of them; later files win over earlier ones and the
command line wins over all. A config sees the settings as they stand when it is read, so
`max_steps = 2 * max_steps` works. Names that begin with an underscore are the config's own.
`--help` prints every setting with its comment and its present value.
"""

import ast
import difflib
import functools
import itertools
import os
import re
import sys
import types
from pathlib import Path

from tqdm import tqdm


class ConfigError(Exception):
    """Bad input, said in one sentence; `run` prints it and exits with status 1."""


def require(holds, message):
    """Raises ConfigError with this message unless the condition holds."""
    if not holds:
        raise ConfigError(message)


EXPECTED = {bool: 'True or False', int: 'a whole number', float: 'a number', str: 'text'}
EXPECTED[list] = 'a list'
HELP = {'--help', '-h'}


def settings_of(script):
    """{name: comment} of the settings of a script: its lower-case globals above its first function
    or class.

    A comment stands behind its setting; indented comment lines may follow and belong to it."""
    source, comments = Path(script).read_text(encoding='utf-8'), {}
    lines, is_more = source.splitlines(), re.compile(r'\s+#').match
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            break
        name = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ''
        if name.isidentifier() and name.islower():
            rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
            rest = [rest, *itertools.takewhile(is_more, lines[node.end_lineno :])]
            comments[name] = ' '.join(line.strip().lstrip('#').strip() for line in rest)
    return comments


def defaults_of(script):
    """{name: value} of the settings of a script, without running it."""
    names, values = settings_of(script), {}
    for node in ast.parse(Path(script).read_text(encoding='utf-8')).body:
        name = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ''
        if name in names:
            values[name] = ast.literal_eval(node.value)
    return values


def _checked(name, value, default):
    """`value` in the type of `default`; raises ConfigError where that would lose something."""
    kind = type(default)
    if kind is list and isinstance(value, (list, tuple)):
        inner = {str: str, list: (list, tuple)}.get(type(default[0]), object) if default else object
        elements = 'text' if inner is str else 'lists'
        valid = all(isinstance(element, inner) for element in value)
        require(valid, f'{name} must be a list of {elements}, not {value!r}')
        return list(value)
    whole = type(value) is float and value.is_integer()
    if type(value) is kind or (kind, type(value)) == (float, int) or (kind is int and whole):
        return kind(value)
    raise ConfigError(f'{name} must be {EXPECTED[kind]}, not {value!r}')


def _parse(name, text, default):
    """The value that the command line's `text` stands for."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        # a shell takes the quotes out of --languages=['en','fr']; bare words in a list are text
        bare = re.fullmatch(r'\[([^\[\]\'"]+)\]', text.strip())
        is_list = isinstance(default, list)
        if not (is_list and bare):
            example = f': --{name}=[{text}]' if is_list and '[' not in text else ''
            expected = EXPECTED[type(default)]
            raise ConfigError(f'{name} must be {expected}, not {text!r}{example}') from None
        value = [word.strip() for word in bare[1].split(',') if word.strip()]
    return _checked(name, value, default)


def _known(name, values, where):
    if name not in values:
        near = difflib.get_close_matches(name, values, 1, 0.0)
        raise ConfigError(
            f'{where}: there is no setting {name!r}; the nearest is {near[0]!r} (--help lists all)'
        )


def _apply_file(path, values):
    found = os.path.isfile(path)
    require(found, f'there is no config file {path}; settings are given as --key=value')
    namespace = dict(values, __file__=path)
    try:
        exec(compile(Path(path).read_text(encoding='utf-8'), path, 'exec'), namespace)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f'{path} does not run: {type(error).__name__}: {error}') from error
    for name, value in namespace.items():
        if not (name.startswith('_') or isinstance(value, types.ModuleType) or callable(value)):
            _known(name, values, path)
            values[name] = _checked(f'{path}: {name}', value, values[name])


def read_settings(script, defaults, arguments):
    """The settings that a command line asks for.

    script: path of the script. defaults: {name: value} that it starts from. arguments: what follows
    the script's name. Returns (values, stems, overrides): stems are the names of the config files
    without folder and .py, overrides {name: value} what the command line changed. Raises
    ConfigError, or SystemExit for --help."""
    comments = settings_of(script)
    values = {name: defaults[name] for name in comments}
    files = [argument for argument in arguments if not argument.startswith('-')]
    for path in files:
        _apply_file(path, values)
    of_files = dict(values)
    for argument in arguments:  # after the files: the command line wins
        if argument in files or argument in HELP:
            continue
        name, equals, text = argument.removeprefix('--').partition('=')
        name = name.replace('-', '_')
        valid = argument.startswith('--') and name
        require(valid, f'{argument} is neither a config file nor --key=value')
        _known(name, values, 'command line')
        require(
            equals, f'{argument} needs a value, with an equals sign and no space: --{name}=VALUE'
        )
        values[name] = _parse(name, text, values[name])
    if not HELP.isdisjoint(arguments):
        print(f'usage: python {os.path.basename(script)} [CONFIG.py ...] [--key=value ...]\n')
        for name, comment in comments.items():
            print(f'  --{name}={values[name]!r}\n        {comment}')
        raise SystemExit(0)
    stems = [Path(path).stem for path in files]
    overrides = {name: value for name, value in values.items() if value != of_files[name]}
    return values, stems, overrides


def run_name(stems, overrides):
    """Name of a run: its config files, then what the command line changed in them.

    clones_90_10 with --max_steps=9132 is `clones_90_10-max_steps_9132`."""
    parts = stems or ['default']
    for name, value in overrides.items():
        text = re.sub(r'[^\w.]+', '_', str(value)).strip('_')
        parts = [*parts, f'{name}_{text}']
    return '-'.join(parts)


def run(namespace, main):
    """Sets the globals of a script (`namespace`) from the command line, then runs `main`.

    `main` gets the stems of the config files and the overrides of the command line if it takes
    arguments. A ConfigError becomes one line on stderr and exit status 1; Ctrl-C becomes 130."""
    if not sys.stderr.isatty():  # a log file needs no progress bar ten times a second
        # TQDM_MININTERVAL would do, but tqdm reads it when it is imported, before this.
        tqdm.__init__ = functools.partialmethod(tqdm.__init__, mininterval=20)
    script = os.path.basename(namespace['__file__'])
    try:
        values, stems, overrides = read_settings(namespace['__file__'], namespace, sys.argv[1:])
        namespace.update(values)
        return main(stems, overrides) if main.__code__.co_argcount else main()
    except ConfigError as error:
        print(f'{script}: {error}', file=sys.stderr)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno is None:
            raise
        place = f': {error.filename}' if error.filename else ''
        text = f'{error.strerror}{place}; what was finished before is kept'
        print(f'{script}: {text}', file=sys.stderr)
    sys.exit(1)
