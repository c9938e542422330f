"""The house: which file may import which, and one table of settings that is closed by default."""

import ast
import json
import shutil

import pytest
from conftest import REPO, TINY, refused, script

from lib import runs

FILES = sorted([*REPO.glob('*.py'), *REPO.glob('lib/*.py'), *REPO.glob('lab/*.py')])
OPTIONAL = set('backports datasets gensim huggingface_hub pyarrow safetensors tokenizers'.split())
OPTIONAL |= {'transformers', 'wandb'}
ROOMS = ['lib', 'top level', 'lab']  # a room may import from itself and those before it


def module_of(path):
    return '.'.join(path.relative_to(REPO).with_suffix('').parts)


MODULES = {module_of(path): path for path in FILES}


def room(module):
    return ROOMS.index(module.split('.')[0] if '.' in module else 'top level')


def imported(node):
    """Modules that the import statements within a node name."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module
            yield from (f'{child.module}.{alias.name}' for alias in child.names)


ARROWS = {
    name: MODULES.keys() & {*imported(ast.parse(p.read_text()))} for name, p in MODULES.items()
}


@pytest.mark.parametrize('module', MODULES)
def test_arrows_go_from_lab_to_top_level_to_lib_and_in_no_circle(module):
    assert all(room(other) <= room(module) for other in ARROWS[module])
    reached, waiting = set(), list(ARROWS[module])
    while waiting:
        reached.add(other := waiting.pop())
        waiting += ARROWS[other] - reached
    assert module not in reached


@pytest.mark.parametrize('module', MODULES)
def test_lines_are_short_and_functions_import_optional_packages_only(module):
    source = MODULES[module].read_text()
    assert max(map(len, source.splitlines())) <= 100
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef))
    names = {name.split('.')[0] for function in functions for name in imported(function)}
    assert names <= OPTIONAL


def test_runs_that_differ_in_a_new_setting_are_kept_apart(tiny_run, monkeypatch):
    old = json.loads((tiny_run / 'results.json').read_text())
    monkeypatch.setitem(runs.DEFAULTS, 'weight_decay', 0.0)
    same, other = (
        old | dict(settings=old['settings'] | dict(weight_decay=value)) for value in (0.0, 0.1)
    )
    for role in (runs.LAW, runs.CONTROL, runs.FREE | runs.SEED, runs.FREE):
        keys = [runs.key_of(run, 'en2', role) for run in (old, same, other)]
        assert keys[0] == keys[1] != keys[2]
        assert runs.differing(same['settings'], other['settings'], role) == ['weight_decay']
    runs.refuse_other_settings(old['settings'], same['settings'], tiny_run)


def test_a_run_from_before_a_new_setting_is_not_resumed_with_another_value(tiny_run, tmp_path):
    shutil.copytree(REPO / 'lib', tmp_path / 'lib')
    for path in REPO.glob('*.py'):
        shutil.copy(path, tmp_path)
    source = (tmp_path / 'train.py').read_text()
    setting = 'weight_decay = 0.0  # of the optimiser\n'
    (tmp_path / 'train.py').write_text(source.replace('# the run\n', f'# the run\n{setting}', 1))
    args = [*TINY, '--max_steps=20', '--out_dir=out/tiny', '--weight_decay=0.1']
    env = dict(PYTHONPATH=str(tmp_path))
    done = script(tmp_path / 'train', *args, cwd=tiny_run.parents[1], env=env)
    refused(done, 'weight_decay')
