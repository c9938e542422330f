"""Settings of a command line, tried on a small script and on the real ones."""

import importlib
import json
import subprocess
import sys

import pytest
from conftest import REPO, environment, refused, script

from lib.configurator import ConfigError, read_settings, run_name

SMALL_SCRIPT = '''
"""A script with a setting of each kind."""
import json

from lib.configurator import run

steps = 10  # how many
rate = 0.5  # how fast
fast = True  # whether to hurry
names = ['a', 'b']  # who
        # takes part
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
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, status, out, err)

    return call


def settings(done, *more):
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    return {name: value for name, value in printed.items() if name != 'overrides' or name in more}


def one_line(done, *words):
    sentence = refused(done, *words)
    assert done.returncode == 1
    assert done.stderr == sentence + '\n' and sentence.startswith('small.py: ')
    assert done.stdout == ''


# --- the command line -----------------------------------------------------------------------------


def test_a_process_of_its_own_prints_one_line_and_fails(tmp_path):
    (tmp_path / 'small.py').write_text(SMALL_SCRIPT)

    def call(argument):
        return subprocess.run(
            [sys.executable, 'small.py', argument],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            env=environment(),
        )

    one_line(call('--stesp=3'), "nearest is 'steps'")
    one_line(call('--steps=x'), 'steps must be a whole number')
    assert settings(call('--steps=3'))['steps'] == 3


def test_every_kind_of_value_is_understood(small):
    found = settings(
        small(
            '--steps=1_000',
            '--rate=1e-3',
            '--fast=False',
            "--names=['x', 'y', 'z']",
            '--rows=[[0.5,0.5],[1,0]]',
            '--kept=[1,2]',
            '--place=there',
        )
    )
    assert found == dict(
        steps=1000,
        rate=0.001,
        fast=False,
        names=['x', 'y', 'z'],
        rows=[[0.5, 0.5], [1, 0]],
        kept=[1, 2],
        place='there',
        stems=[],
    )


def test_nothing_given_leaves_the_defaults(small):
    assert settings(small()) == dict(
        steps=10,
        rate=0.5,
        fast=True,
        names=['a', 'b'],
        rows=[[0.9, 0.1]],
        kept=[],
        place='here',
        stems=[],
    )


@pytest.mark.parametrize(
    'wrong, nearest',
    [
        ('--step=3', 'steps'),
        ('--nmaes=[x]', 'names'),
        ('--Rate=1', 'rate'),
        ('--place2=x', 'place'),
        ('--CONSTANT=4', ''),
        ('--later=2', ''),
    ],
)
def test_an_unknown_key_names_the_nearest_in_one_line(small, wrong, nearest):
    one_line(small(wrong), repr(wrong[2:].partition('=')[0]), f"nearest is '{nearest}")


@pytest.mark.parametrize(
    'argument, expected',
    [
        ('--steps=many', 'a whole number'),
        ('--steps=1.5', 'a whole number'),
        ('--steps=True', 'a whole number'),
        ("--steps='3'", 'a whole number'),
        ('--steps=', 'a whole number'),
        ('--steps={[]: 1}', 'a whole number'),
        ('--rate=fast', 'a number'),
        ('--rate=[1]', 'a number'),
        ('--rate=False', 'a number'),
        ('--fast=1', 'True or False'),
        ('--fast=yes', 'True or False'),
        ('--fast=None', 'True or False'),
        ('--names=x', 'a list'),
        ('--names={"a"}', 'a list'),
        ('--names=[1,2]', 'a list of text'),
        ('--rows=[0.9,0.1]', 'a list of lists'),
        ('--rows=[[0.9,x]]', 'a list'),
        ('--kept=3', 'a list'),
    ],
)
def test_a_value_of_a_wrong_type_is_told_what_is_expected(small, argument, expected):
    one_line(small(argument), f'{argument[2:].partition("=")[0]} must be {expected}, not ')


def test_a_whole_number_will_do_for_a_float_and_a_whole_float_for_an_int(small):
    found = settings(small('--rate=2', '--steps=2e3'))
    assert found['rate'] == 2 and found['steps'] == 2000
    assert (
        '"rate": 2.0' in small('--rate=2').stdout
        and '"steps": 2000,' in small('--steps=2e3').stdout
    )


@pytest.mark.parametrize(
    'text, names',
    [
        ('[en,fr]', ['en', 'fr']),
        ('[en, fr-1 ]', ['en', 'fr-1']),
        ('[en]', ['en']),
        ('("x","y")', ['x', 'y']),
        ('[]', []),
    ],
)
def test_a_list_is_understood_when_the_shell_ate_its_quotes(small, text, names):
    assert settings(small(f'--names={text}'))['names'] == names


@pytest.mark.parametrize('text', ['a=b', '=', '', 'two words', '3', 'True', '[a,b]', "it's", '--x'])
def test_text_is_taken_as_it_stands(small, text):
    assert settings(small(f'--place={text}'))['place'] == text


def test_a_dash_will_do_for_an_underscore():
    values, _, _ = read_settings(
        REPO / 'prepare.py', vars(importlib.import_module('prepare')), ['--vocab-size=300']
    )
    assert values['vocab_size'] == 300


def test_the_later_of_two_values_wins(small):
    assert settings(small('--steps=3', '--steps=4'))['steps'] == 4


@pytest.mark.parametrize('argument', ['--steps', '-x', '-steps=3', '--', '--=3'])
def test_what_is_neither_a_config_nor_a_setting_is_refused(small, argument):
    one_line(small(argument), argument)


# --- config files ---------------------------------------------------------------------------------


def test_config_files_compose_and_the_later_one_wins(small):
    found = settings(
        small('a.py', 'b.py', a='steps = 20\nplace = "there"', b='rate = 1\nsteps = 30')
    )
    assert (found['steps'], found['rate'], found['place'], found['stems']) == (
        30,
        1.0,
        'there',
        ['a', 'b'],
    )
    assert settings(small('b.py', 'a.py'))['steps'] == 20


@pytest.mark.parametrize(
    'order',
    [('--steps=7', 'a.py', 'b.py'), ('a.py', '--steps=7', 'b.py'), ('a.py', 'b.py', '--steps=7')],
)
def test_the_command_line_wins_wherever_it_stands(small, order):
    found = settings(small(*order, a='steps = 20', b='steps = 30\nrate = 0.25'))
    assert found['steps'] == 7 and found['rate'] == 0.25


def test_a_config_sees_the_settings_as_they_stand(small):
    found = settings(small('a.py', 'b.py', 'b.py', a='steps = 3', b='steps = 2 * steps'))
    assert found['steps'] == 12


def test_a_config_may_compute_with_names_of_its_own(small):
    source = (
        'import math\nfrom math import sqrt\n_n = 4\ndef half(x):\n    return x / 2\n'
        'names = [f"n{_i}" for _i in range(_n)]\n'
        'steps = int(sqrt(math.floor(half(50))))\nrows = ((0.5, 0.5),)'
    )
    found = settings(small('a.py', a=source))
    assert (
        found['names'] == ['n0', 'n1', 'n2', 'n3']
        and found['steps'] == 5
        and found['rows'] == [[0.5, 0.5]]
    )


def test_a_run_is_named_after_its_configs_and_what_the_command_line_changes(small):
    done = settings(
        small('a.py', '--steps=7', '--fast=True', '--rows=[[0.5,0.5]]', a='rate = 1'), 'overrides'
    )
    assert done['overrides'] == {
        'steps': 7,
        'rows': [[0.5, 0.5]],
    }  # fast is True without the override, too
    assert run_name(done['stems'], done['overrides']) == 'a-steps_7-rows_0.5_0.5'
    assert run_name([], {}) == 'default' and run_name(['a', 'b'], {}) == 'a-b'
    other = settings(small('--rows=[[0.5,0.5]]', '--steps=7', 'a.py', a='rate = 1'), 'overrides')
    assert (
        other['overrides'] == done['overrides']
    )  # in the order of the settings, not of the command line
    assert list(other['overrides']) == list(done['overrides'])


def test_a_missing_config_file_is_named(small):
    one_line(small('no_such.py'), 'no config file no_such.py')
    one_line(small('steps=3'), 'no config file steps=3', '--key=value')


@pytest.mark.parametrize(
    'source, words',
    [
        ('steps = = 3', ['SyntaxError', 'line 1']),
        ('steps = stpes', ['NameError', 'stpes']),
        ('steps = 1 / 0', ['ZeroDivisionError']),
        ('steps = 2.5', ['steps must be a whole number, not 2.5']),
        ('rows = [1.0]', ['rows must be a list of lists, not [1.0]']),
        ('place = 3', ['place must be text, not 3']),
        ('stpes = 3', ["no setting 'stpes'", "nearest is 'steps'"]),
    ],
)
def test_a_faulty_config_file_is_named_in_one_line(small, source, words):
    one_line(small('faulty.py', faulty=source), 'faulty.py', *words)


# --- help -----------------------------------------------------------------------------------------


def test_help_prints_each_setting_with_its_comment_and_its_present_value(small):
    for arguments in (['--help', 'a.py', '--rate=2'], ['a.py', '--rate=2', '-h']):
        done = small(*arguments, a='place = "there"')
        assert done.returncode == 0 and done.stderr == ''
        lines = [line.strip() for line in done.stdout.splitlines()]
        shown = {
            line: lines[number + 1] for number, line in enumerate(lines) if line.startswith('--')
        }
        assert shown == {
            '--steps=10': 'how many',
            '--rate=2.0': 'how fast',
            '--fast=True': 'whether to hurry',
            "--names=['a', 'b']": 'who takes part',
            '--rows=[[0.9, 0.1]]': 'a row each',
            '--kept=[]': 'what to keep',
            "--place='there'": 'where',
        }


SCRIPTS = sorted(
    path.stem for path in REPO.glob('*.py') if "__name__ == '__main__'" in path.read_text()
)


@pytest.mark.parametrize('name', SCRIPTS)
def test_every_setting_of_the_real_scripts_has_a_comment(name, capsys):
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as stop:
        read_settings(module.__file__, vars(module), ['--help'])
    lines = capsys.readouterr().out.splitlines()
    named = [number for number, line in enumerate(lines) if line.startswith('  --')]
    assert stop.value.code == 0 and len(named) > 1
    assert all(len(lines[number + 1].strip()) > 3 for number in named), lines


def test_the_settings_have_the_names_that_the_configs_rely_on():
    expected = dict(
        train="""corpora languages vocabulary cloned_fraction stages size n_layer n_head head_dim
            n_embd mlp_dim block_size batch_size micro_batch_size max_steps warmup_steps
            learning_rate min_learning_rate eval_interval checkpoint_interval out_dir seed device
            dtype compile""",
        prepare='corpus source tokenizer vocab_size test_fraction max_bytes',
    )
    for name, names in expected.items():
        module = importlib.import_module(name)
        values, *_ = read_settings(module.__file__, vars(module), [])
        assert set(names.split()) <= set(values)


# --- the real scripts and configs -----------------------------------------------------------------


def test_help_of_a_real_script_runs_nothing(tmp_path):
    done = script('prepare', '--vocab_size=777', '--help', cwd=tmp_path)
    assert (
        done.returncode == 0
        and '--vocab_size=777' in done.stdout
        and "--corpus='docs'" in done.stdout
    )
    assert list(tmp_path.iterdir()) == []


def test_importing_a_script_runs_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', 'import prepare, train, evaluate'],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('path', sorted((REPO / 'config').glob('*.py')), ids=lambda path: path.stem)
def test_config_is_for_its_script_and_says_what_it_is(path):
    module = importlib.import_module('prepare' if path.name == 'demo_data.py' else 'train')
    before, *_ = read_settings(module.__file__, vars(module), [])
    values, stems, _ = read_settings(module.__file__, vars(module), [str(path)])
    assert stems == [path.stem]
    assert values != before, f'{path.name} sets nothing'
    assert path.read_text().startswith('# ')
    if module.__name__ == 'train':
        assert len(values['corpora']) == len(values['languages']) == len(set(values['languages']))
        assert all(
            len(row) == len(values['languages']) and abs(sum(row) - 1) < 1e-6
            for row in values['stages']
        )


def test_reading_settings_changes_no_defaults():
    defaults = dict(vars(importlib.import_module('prepare')))
    with pytest.raises(ConfigError):
        read_settings(REPO / 'prepare.py', defaults, ['--vocab_size=3', '--nothing=4'])
    assert defaults['vocab_size'] == importlib.import_module('prepare').vocab_size != 3
