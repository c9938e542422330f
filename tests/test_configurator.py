"""Settings of a command line, tried on a small script and on the real ones."""

import importlib
import json
import os
import subprocess
import sys

from lib.configurator import ConfigError, defaults_of, read_settings, run_name

import pytest
from conftest import REPO, environment, refused, script

SMALL_SCRIPT = '''
"""A script with a setting of each kind."""
import json

from lib.configurator import run

steps = 10  # how many
rate = 0.5  # how fast
fast = True  # whether to hurry
names = ['a', 'b']  # who takes part
rows = [[0.9, 0.1]]  # a row each
kept = []  # what to keep
place = 'here'  # where

CONSTANT = 3  # no setting


def main(stems, overrides):
    later = 1  # no setting either
    print(json.dumps(dict(steps=steps, rate=rate, fast=fast, names=names, rows=rows, kept=kept,
                          place=place, stems=stems, overrides=overrides)))


if __name__ == '__main__':
    run(globals(), main)
'''
DEFAULTS = dict(steps=10, rate=0.5, fast=True, names=['a', 'b'], rows=[[0.9, 0.1]], kept=[])
DEFAULTS |= dict(place='here', stems=[])


@pytest.fixture
def small(tmp_path, monkeypatch, capsys):
    """small(*arguments, a=SOURCE, ...) writes config files a.py, ... and runs the script, here in
    the same process, since there are many to run."""
    path = tmp_path / 'small.py'
    path.write_text(SMALL_SCRIPT)
    monkeypatch.chdir(tmp_path)

    def call(*arguments, **configs):
        for name, source in configs.items():
            (tmp_path / f'{name}.py').write_text(source)
        monkeypatch.setattr(sys, 'argv', ['small.py', *arguments])
        status = 0
        try:
            exec(compile(SMALL_SCRIPT, path, 'exec'), dict(__name__='__main__', __file__=str(path)))
        except SystemExit as stop:
            status = stop.code
        return subprocess.CompletedProcess(sys.argv, status, *capsys.readouterr())

    return call


def settings(done, *more):
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    return {name: value for name, value in printed.items() if name != 'overrides' or name in more}


def one_line(done, *words):
    sentence = refused(done, *words)
    assert done.stderr == sentence + '\n' and sentence.startswith('small.py: ')
    assert done.stdout == ''
    return sentence


CONFIGS = dict(a='steps = 20\nplace = "there"', b='rate = 0.25\nsteps = 30', c='steps = 2 * steps')
CONFIGS['own'] = (  # a config may compute with names of its own
    'import math\nfrom math import sqrt\n_n = 4\ndef half(x):\n    return x / 2\n'
    'names = [f"n{_i}" for _i in range(_n)]\nsteps = int(sqrt(math.floor(half(50))))\n'
    'rows = ((0.5, 0.5),)'
)


@pytest.mark.parametrize(
    'arguments, expected',
    [
        ('', {}),
        ('--steps=1_000 --rate=1e-3 --fast=False', dict(steps=1000, rate=0.001, fast=False)),
        ('--rows=[[0.5,0.5],[1,0]]', dict(rows=[[0.5, 0.5], [1, 0]])),
        ('--kept=[1,2] --place=there', dict(kept=[1, 2], place='there')),
        ('--rate=2 --steps=2e3', dict(rate=2.0, steps=2000)),
        ('--steps=3 --steps=4', dict(steps=4)),
        ('--names=["x","y","z"]', dict(names=['x', 'y', 'z'])),
        ('--names=("x","y")', dict(names=['x', 'y'])),
        ('--names=[]', dict(names=[])),
        ('--names=[en,fr-1]', dict(names=['en', 'fr-1'])),  # a shell ate the quotes
        ('--names=[90_10,5_5]', dict(names=['90_10', '5_5'])),  # no numbers 9010 and 55
        # later files win over earlier ones, and the command line over all
        ('a.py b.py', dict(steps=30, rate=0.25, place='there', stems=['a', 'b'])),
        ('a.py --steps=7 b.py', dict(steps=7, rate=0.25, place='there', stems=['a', 'b'])),
        ('a.py c.py c.py', dict(steps=80, place='there', stems=['a', 'c', 'c'])),
        ('own.py', dict(names=[f'n{i}' for i in range(4)], steps=5, rows=[[0.5, 0.5]])),
    ],
)
def test_configs_compose_and_every_kind_of_value_is_understood(small, arguments, expected):
    arguments = arguments.split()
    stems = [name[:-3] for name in arguments if name.endswith('.py')]
    found = settings(small(*arguments, **CONFIGS))
    assert found == DEFAULTS | dict(stems=stems) | expected and type(found['rate']) is float


AS_IT_IS = ['a=b', '=', '', 'two words', '3', 'True', '[a,b]', "it's", '--x', 'a~/b', '~ about']
HOME = {'~': '/home/a', '~/runs/a': '/home/a/runs/a', 'eltec:~/texts': 'eltec:/home/a/texts'}


@pytest.mark.parametrize('text, expected', [*zip(AS_IT_IS, AS_IT_IS), *HOME.items()])
def test_text_is_taken_as_it_is_but_for_the_home_folder(small, monkeypatch, text, expected):
    monkeypatch.setenv('HOME', '/home/a')
    assert settings(small(f'--place={text}'))['place'] == expected
    assert settings(small(f'--names={[text, "x"]}'))['names'] == [expected, 'x']
    assert settings(small('a.py', a=f'place = {text!r}'))['place'] == expected


@pytest.mark.parametrize(
    'wrong, words',
    [
        # an unknown setting, with a guess if one is close
        ('--step=3', "'step' 'steps'"),
        ('--nmaes=[x]', "'nmaes' 'names'"),
        ('--Rate=1', "'Rate' 'rate'"),
        *((f'--{name}=1', f"'{name}'") for name in ('CONSTANT', 'lr', 'config')),
        # a value of a wrong type
        *((f'--steps={v}', 'steps whole') for v in ('many', '1.5', 'True', "'3'", '', '{[]:1}')),
        *((f'--rate={value}', 'rate number') for value in ('fast', '[1]', 'False')),
        *((f'--fast={value}', 'fast True False') for value in ('1', 'yes', 'None')),
        *((f'--names={value}', 'names list') for value in ('x', '{"a"}', '[1,2]')),
        *((f'--rows={value}', 'rows list') for value in ('[0.9,0.1]', '[[0.9,x]]')),
        ('--kept=3', 'kept list'),
        # neither a config nor a setting
        *((word, word) for word in ('--steps', '-x', '-steps=3', '--', '--=3', 'no_such.py')),
        # a faulty config
        ('steps = = 3', 'faulty.py SyntaxError'),
        ('steps = stpes', 'faulty.py NameError stpes'),
        ('steps = 1 / 0', 'faulty.py ZeroDivisionError'),
        ('steps = 2.5', 'faulty.py steps 2.5'),
        ('rows = [1.0]', 'faulty.py rows [1.0]'),
        ('place = 3', 'faulty.py place 3'),
        ('stpes = 3', "faulty.py 'stpes' 'steps'"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(small, wrong, words):
    argument = 'faulty.py' if ' = ' in wrong else wrong
    sentence = one_line(small(argument, faulty=wrong), *words.split())
    if words == f"'{wrong[2:-2]}'":  # without a guess
        assert not any(repr(name) in sentence for name in DEFAULTS)


def test_a_process_of_its_own_prints_one_line_or_other_letters_for_those_of_a_terminal(tmp_path):
    (tmp_path / 'small.py').write_text(SMALL_SCRIPT.replace('json.dumps', 'str'))
    command, env = [sys.executable, 'small.py'], environment(PYTHONIOENCODING='latin-1')
    how = dict(cwd=tmp_path, env=env, text=True, capture_output=True)
    one_line(subprocess.run([*command, '--stesp=3'], **how), 'steps')
    done = subprocess.run([*command, '--place=ж'], **how)
    assert done.returncode == 0 and "'place': '?'" in done.stdout


def test_a_dash_is_an_underscore_and_the_usual_short_names_are_known_to_the_guess():
    train = REPO / 'train.py'
    values, _, _ = read_settings(train, ['--batch-size=3'])
    assert values['batch_size'] == 3 != defaults_of(train)['batch_size']
    for short, name in dict(lr='learning_rate', steps='max_steps', ctx='block_size').items():
        with pytest.raises(ConfigError, match=f"{short}.*'{name}'"):
            read_settings(train, [f'--{short}=1'])


def test_a_run_is_named_after_its_configs_and_what_the_command_line_changes(small, tmp_path):
    arguments = ['a.py', '--steps=7', '--fast=True', '--rows=[[0.5,0.5]]']
    for order in (arguments, arguments[::-1]):  # the name has the order of the settings
        done = settings(small(*order, a='rate = 1'), 'overrides')
        assert list(done['overrides']) == ['steps', 'rows']  # fast is True without it
        assert run_name(done['stems'], done['overrides']) == 'a-steps_7-rows_0.5_0.5'
    assert run_name([], {}) == 'default' and run_name(['a', 'b'], {}) == 'a-b'
    names = [run_name(['a'], dict(names=['ж' * 40] * n)) for n in (3, 4, 4)]  # long ones
    assert names[0] != names[1] == names[2] and all(len(name.encode()) <= 120 for name in names)
    (tmp_path / names[0]).mkdir()


def test_help_prints_each_setting_with_its_comment_and_its_present_value(small):
    for arguments in (['--help', 'a.py', '--rate=2'], ['a.py', '--rate=2', '-h']):
        done = small(*arguments, a='place = "there"')
        assert done.returncode == 0 and done.stderr == ''
        lines = [line.strip() for line in done.stdout.splitlines()]
        shown = {a: b for a, b in zip(lines, lines[1:]) if a.startswith('--')}
        assert shown == {
            '--steps=10': 'how many',
            '--rate=2.0': 'how fast',
            '--fast=True': 'whether to hurry',
            "--names=['a', 'b']": 'who takes part',
            '--rows=[[0.9, 0.1]]': 'a row each',
            '--kept=[]': 'what to keep',
            "--place='there'": 'where',
        }


SCRIPTS = [
    '.'.join(path.relative_to(REPO).with_suffix('').parts)
    for path in sorted([*REPO.glob('*.py'), *REPO.glob('lab/*.py')])
    if "__name__ == '__main__'" in path.read_text()
]


@pytest.fixture
def without_torch(here):
    """The environment of a process in which an import of torch fails."""
    (here / 'torch.py').write_text('raise SystemExit("torch was imported")')
    yield environment(PYTHONPATH=f'{here}{os.pathsep}{REPO}')
    assert [path.name for path in here.iterdir() if path.name[0] != '_'] == ['torch.py']


@pytest.mark.parametrize('name', SCRIPTS)
def test_help_of_a_script_needs_no_torch_and_every_setting_has_a_comment(without_torch, name):
    done = script(name, '--help', env=without_torch)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    named = [number for number, line in enumerate(lines) if line.startswith('  --')]
    assert len(named) == len(defaults_of(REPO / f'{name.replace(".", "/")}.py'))
    assert all(len(lines[number + 1].strip()) > 3 for number in named), lines


def test_importing_what_prepares_text_runs_nothing_and_needs_no_torch(without_torch):
    command = [sys.executable, '-c', 'import prepare, schedule', '--help']
    done = subprocess.run(command, env=without_torch, text=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


@pytest.mark.parametrize('path', sorted((REPO / 'config').glob('*.py')), ids=lambda path: path.stem)
def test_config_is_for_its_script_and_says_what_it_is(path):
    module = importlib.import_module('prepare' if path.name == 'demo_data.py' else 'train')
    values, stems, _ = read_settings(module.__file__, [str(path)])
    assert stems == [path.stem] and path.read_text().startswith('# ')
    assert values != defaults_of(module.__file__), f'{path.name} sets nothing'
    if module.__name__ == 'train':
        names = values['languages']
        assert len(values['corpora']) == len(names) == len(set(names))
        rows = values['stages']
        assert all(len(row) == len(names) and abs(sum(row) - 1) < 1e-6 for row in rows)
