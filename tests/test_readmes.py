"""The pages: commands are accepted, the notebook runs, the data dictionary is complete."""

import csv
import json
import re
import subprocess

from lib.configurator import read_settings, run_name

import pytest
from conftest import REPO
from test_fit_scaling import SIX, write_control, write_mix, write_mono

import fit_scaling


def commands_of(markdown):
    """The command lines of a markdown file as bash would give them to python: lists of words."""
    blocks = re.findall(r'(?:^    .+\n|^\n(?=    ))+', markdown, re.M)
    blocks += re.findall(r'`([^`\n]+\.py[^`\n]*)`', markdown)
    printing = 'python() { printf "%s\\x1f" "$@"; echo; }; torchrun() { python "$@"; }; '
    printing += 'srun() { "$@"; }; PATH=\n'  # no program can run but these functions
    known = r'^(?!\s*(python |for |done|torchrun |alone=|configs=|srun |")).*$'
    found = []
    for block in blocks:
        block = re.sub(known, '', block, flags=re.M)
        block = block.replace('${configs[$SLURM_ARRAY_TASK_ID]}', '$configs')
        bash = ['bash', '-c', printing + block]
        done = subprocess.run(bash, text=True, capture_output=True, cwd=REPO)
        assert not done.returncode and not done.stderr, (block, done.stderr)
        lines = [line for line in done.stdout.splitlines() if '.py' in line]
        found += [line.rstrip('\x1f').split('\x1f') for line in lines]
    return [words[[word.endswith('.py') for word in words].index(True) :] for words in found]


@pytest.mark.parametrize('name', ['README.md', 'config/README.md'])
def test_every_config_and_command_of_the_readmes_is_accepted_by_its_script(name, monkeypatch):
    markdown = (REPO / name).read_text(encoding='utf-8')
    made = {'config/NAME.py', *re.findall(r'^    cp \S+ (\S+)', markdown, re.M)}
    for config in set(re.findall(r'config/\w+\.py', markdown)) - made:
        assert (REPO / config).exists(), config
    monkeypatch.chdir(REPO)
    folders, count = {}, 0
    for script, *arguments in commands_of(markdown):
        if script == 'SCRIPT.py' or ({'--help'} | made) & set(arguments):
            continue
        values, stems, overrides = read_settings(REPO / script, arguments)
        count += 1
        if script == 'train.py':
            folder = values['out_dir'] or 'out/' + run_name(stems, overrides)
            assert folders.setdefault(folder, values) == values, folder  # no two runs in a folder
    assert count > 10


def test_the_lines_for_a_notebook_run_from_any_folder(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = (REPO / 'README.md').read_text(encoding='utf-8').split('## In a notebook')[1]
    lines = re.search(r'(?:^    .+\n)+', section, re.M)[0].replace('\n    ', '\n').strip()
    assert len(lines.splitlines()) == 6
    found, run = {}, re.search(r"'(out/.+?)'", lines)[1]
    exec(lines.replace(run, str(tiny_run)), found)
    assert [language.name for language in found['languages']] == ['en1', 'en2']
    assert len(found['losses']) == 2 and all(2 < loss < 10 for loss in found['losses'])
    assert found['a'].shape == found['b'].shape == (found['ids'][0].shape[1], 16)
    assert -1 <= found['cosine'] <= 1


PLACEHOLDERS = dict(SEED=r'\d+', BIN=r'\d+(-\d+)?|all', BLOCK=r'block \d+', TASK='sst2|cola')
PLACEHOLDERS |= dict(HOW='as trained|centred|rotated', LANGUAGE='en[12]')
PLACEHOLDERS |= dict(RUN=r'\S+ \((\d+%/\d+%|(en1, )?en2)\)', TENSOR=r'[\w.]+\.(weight|bias)')
PLACEHOLDERS['MEASURE'] = '|'.join(fit_scaling.MEASURES)


def described(heading):
    """A pattern of all names in the first columns of the tables under a heading of
    results/README.md."""
    markdown = (REPO / 'results/README.md').read_text(encoding='utf-8')
    section = re.search(rf'^## {re.escape(heading)}.*?(?=^## |\Z)', markdown, re.M | re.S)[0]
    names = re.findall('`([^`]+)`', ' '.join(re.findall(r'^\| (.*?) \|', section, re.M)))
    named = re.compile(rf'\b({"|".join(PLACEHOLDERS)})(?![A-Z])')
    names = [named.sub(lambda word: f'({PLACEHOLDERS[word[0]]})', re.escape(n)) for n in names]
    return re.compile('|'.join(names)).fullmatch


def keys_of(value):
    """All keys within a JSON value, without those of settings and of the model's shape, and without
    the empty name of a line that is the only one."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if not isinstance(value, dict):
        return set()
    inner = (v for k, v in value.items() if k not in ('model', 'settings'))
    return set(filter(None, value)).union(*map(keys_of, inner))


def test_every_column_and_key_is_in_the_data_dictionary(tmp_path):
    about = dict(documents=[0.01, -0.01, 0.0], more=dict(loss=3.0))
    write_mono(tmp_path, SIX, **about)
    write_mix(tmp_path, **about)
    write_control(tmp_path, 'control', 1.6, **about)
    fit_scaling.scale(tmp_path)
    scaling = json.loads((tmp_path / 'scaling.json').read_text())
    curve = scaling['laws'][0]['curve']
    assert curve['low'] and scaling['laws'][0]['kind'] == 'power law'
    in_columns, in_json = described('Columns'), described('Keys of `out/scaling.json`')
    for path in (tmp_path / 'scaling.csv', REPO / 'results/lab.csv'):
        with path.open() as file:
            assert not [name for name in next(csv.reader(file)) if not in_columns(name)]
    assert not [key for key in keys_of(scaling['laws']) if not in_json(key)]
    rows = keys_of(scaling['rows'])
    assert 'teff_interval' in rows and not [k for k in rows if not (in_columns(k) or in_json(k))]
    for path in REPO.glob('results/studies/*.json'):
        keys = keys_of(json.loads(path.read_text()))
        assert not [key for key in keys if not described('Keys of `studies')(key)], path
