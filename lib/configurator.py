"""Settings the nanoGPT way, made strict: python SCRIPT.py [CONFIG.py ...] [--key=value ...]

A script keeps its settings as module globals above its first function, each with a comment. A
config file is plain Python that sets some of them; later files win over earlier ones and the
command line wins over all. A config sees the values before it: `max_steps = 2 * max_steps` works.
Names that begin with an underscore are the config's own. `--help` prints all settings.
"""

import ast
import difflib
import hashlib
import os
import re
import sys
import types
from pathlib import Path


class ConfigError(Exception):
    """Bad input, said in one sentence; `run` prints it and exits with status 1."""


def require(holds, message):
    """Raises ConfigError with this message unless the condition holds."""
    if not holds:
        raise ConfigError(message)


EXPECTED = {bool: 'True or False', int: 'a whole number', float: 'a number', list: 'a list: [A,B]'}
HELP = {'--help', '-h'}
NICKNAMES = dict(lr='learning_rate', steps='max_steps', model='size', bs='batch_size')
NICKNAMES |= dict(ctx='block_size', layers='n_layer', heads='n_head', width='n_embd', out='out_dir')


def _assignments(script):
    """{name: (value as an ast node, comment)} of the settings of a script: its lower-case globals
    above its first function or class."""
    source, found = Path(script).read_text(encoding='utf-8'), {}
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            break
        name = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ''
        if name.isidentifier() and name.islower():
            found[name] = node.value, lines[node.end_lineno - 1].partition('  # ')[2]
    return found


def defaults_of(script):
    """{name: value} of the settings of a script, without running it."""
    return {name: ast.literal_eval(node) for name, (node, _) in _assignments(script).items()}


def _expanded(value):
    """Text with the home folder in place of a leading ~, also behind a source's name and colon."""
    found = re.fullmatch(r'(|\w+:)(~.*)', value) if isinstance(value, str) else None
    return found[1] + os.path.expanduser(found[2]) if found else value


def _checked(name, value, default):
    """`value` in the type of `default`; raises ConfigError where that would lose something."""
    kind = type(default)
    if kind is list and isinstance(value, (list, tuple)):
        inner = {str: str, list: (list, tuple)}.get(type(default[0]), object) if default else object
        elements = 'text' if inner is str else 'lists'
        valid = all(isinstance(element, inner) for element in value)
        require(valid, f'{name} must be a list of {elements}, not {value!r}')
        return [_expanded(element) for element in value]
    whole = type(value) is float and value.is_integer()
    if type(value) is kind or (kind, type(value)) == (float, int) or (kind is int and whole):
        return kind(_expanded(value))
    raise ConfigError(f'{name} must be {EXPECTED.get(kind, "text")}, not {value!r}')


def _parse(name, text, default):
    """The value that the command line's `text` stands for."""
    if isinstance(default, str):
        return _expanded(text)
    # a shell takes the quotes out of --languages=['en','fr']; bare words in a list are text
    bare = isinstance(default, list) and re.fullmatch(r'\[([^\[\]\'"]+)\]', text.strip())
    words = [word.strip() for word in bare[1].split(',') if word.strip()] if bare else text
    try:  # [90_10] are words, which Python takes for numbers
        value = words if bare and '_' in text else ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        value = words
    return _checked(name, value, default)


def _require_known(name, values, where):
    near = {NICKNAMES.get(name)} & values.keys() or difflib.get_close_matches(name, values, 1)
    guess = f', perhaps {[*near][0]!r}' if near else ''
    require(name in values, f'{where}: there is no setting {name!r}{guess}; --help lists all')


def _apply_file(path, values):
    require(os.path.isfile(path), f'no config file {path}; settings are given as --key=value')
    namespace = dict(values, __file__=path)
    try:
        exec(compile(Path(path).read_text(encoding='utf-8'), path, 'exec'), namespace)
    except Exception as error:
        raise ConfigError(f'{path} does not run: {type(error).__name__}: {error}') from error
    for name, value in namespace.items():
        if not (name.startswith('_') or isinstance(value, types.ModuleType) or callable(value)):
            _require_known(name, values, path)
            values[name] = _checked(f'{path}: {name}', value, values[name])


def read_settings(script, arguments):
    """The settings that the `arguments` of a script (path) ask for: (values, stems, overrides).

    stems: names of the config files without folder and .py; overrides: {name: value} that the
    command line changed. Raises ConfigError, or SystemExit for --help."""
    values = defaults_of(script)
    files = [argument for argument in arguments if not argument.startswith('-')]
    for path in files:
        _apply_file(path, values)
    of_files = dict(values)
    for argument in arguments:  # after the files: the command line wins
        if argument in files or argument in HELP:
            continue
        name, equals, text = argument.removeprefix('--').partition('=')
        name = name.replace('-', '_')
        name = f'{name}_' if f'{name}_' in values else name  # a builtin's name: print_
        require(argument[:2] == '--' and name, f'{argument} is no config file and no --key=value')
        _require_known(name, values, 'command line')
        require(equals, f'{argument} needs an equals sign and a value: --{name}=VALUE')
        values[name] = _parse(name, text, values[name])
    if not HELP.isdisjoint(arguments):
        path = Path(script)
        name = f'-m lab.{path.stem}' if path.parent.name == 'lab' else path.name
        print(f'usage: python {name} [CONFIG.py ...] [--key=value ...]\n')
        for name, (_, comment) in _assignments(script).items():
            print(f'  --{name.rstrip("_")}={values[name]!r}\n        {comment}')
        raise SystemExit(0)
    stems = [Path(path).stem for path in files]
    overrides = {name: value for name, value in values.items() if value != of_files[name]}
    return values, stems, overrides


def run_name(stems, overrides):
    """Name of a run: its config files and what the command line changed, clones-max_steps_9132. A
    hash replaces the end of a name beyond 120 bytes, since file systems take 255."""
    text = {name: re.sub(r'[^\w.]+', '_', str(v)).strip('_') for name, v in overrides.items()}
    name = '-'.join([*(stems or ['default']), *map('_'.join, text.items())]).encode()
    if len(name) > 120:
        name = name[:109] + b'-' + hashlib.sha256(name).hexdigest()[:10].encode()
    return name.decode(errors='ignore')


def run(namespace, main):
    """Sets the globals of a script from the command line, then runs `main`, with (stems, overrides)
    if it takes arguments. A ConfigError becomes one line on stderr and status 1, Ctrl-C 130."""
    if hasattr(sys.stdout, 'reconfigure'):  # a terminal may lack the letters of a language
        sys.stdout.reconfigure(errors='replace')
    script = os.path.basename(namespace['__file__'])
    try:
        values, stems, overrides = read_settings(namespace['__file__'], sys.argv[1:])
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
        text = f'{error.strerror}: {error.filename}' if error.filename else error.strerror
        print(f'{script}: {text}; what was finished before is kept', file=sys.stderr)
    sys.exit(1)


# A script imports this module before all others, so --help does not wait for torch.
_script = Path(getattr(sys.modules['__main__'], '__file__', None) or '/').resolve()
if _script.parent in (_root := Path(__file__).resolve().parent.parent, _root / 'lab'):
    if not sys.stderr.isatty():  # a log file needs no progress bar ten times a second
        os.environ.setdefault('TQDM_MININTERVAL', '20')
    if not HELP.isdisjoint(sys.argv[1:]):
        run({'__file__': str(_script)}, None)
