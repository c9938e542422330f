"""The commands of the pages are accepted by their scripts."""

import functools
import re
import subprocess

from lib.configurator import defaults_of, read_settings, run_name

import pytest
from conftest import REPO


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
    for config in set(re.findall(r'config/\w+\.py', markdown)) - {'config/NAME.py'}:
        assert (REPO / config).exists(), config
    monkeypatch.chdir(REPO)
    folders, count, settings = {}, 0, functools.cache(defaults_of)
    for script, *arguments in commands_of(markdown):
        if script == 'SCRIPT.py' or {'config/NAME.py', '--help'} & set(arguments):
            continue
        values, stems, overrides = read_settings(REPO / script, settings(REPO / script), arguments)
        count += 1
        if script == 'train.py':
            folder = values['out_dir'] or 'out/' + run_name(stems, overrides)
            assert folders.setdefault(folder, values) == values, folder  # no two runs in a folder
    assert count > 10
