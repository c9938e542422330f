"""Lists of runs: what demo.py and lab.py train, in which order, and what they say of it."""

import json

import demo
import pytest
from conftest import REPO, refused, script
from jobs import Job, law, mix

import lab

TINY = (
    '--size= --n_layer=1 --n_head=1 --head_dim=8 --n_embd=8 --mlp_dim=8 --block_size=8 '
    '--batch_size=4 --warmup_steps=1 --compile=False --final_windows=2 --eval_interval=0 '
    '--checkpoint_interval=5 --lr_schedule=wsd --corpora=[en,en] --languages=[en1,en2]'
).split()

QUEUE = """
import json, sys
from lib.configurator import run
from jobs import Job, train_all

def main():
    runs = json.load(open('queue.json'))
    jobs = {name: Job(f'out/{name}', arguments) for name, arguments in runs.items()}
    train_all(jobs, when_finished=lambda name: print('finished', name))

run(globals(), main)
"""


def train_queue(runs, cwd):
    """Trains {run: arguments} as a script of its own; returns the CompletedProcess."""
    (cwd / 'queue.json').write_text(json.dumps(runs))
    (cwd / 'train_queue.py').write_text(QUEUE)
    return script(cwd / 'train_queue', cwd=cwd)


def test_a_branch_waits_for_its_trunk_and_what_is_finished_costs_nothing(workplace):
    alone = [*TINY, '--corpora=[en]', '--languages=[en]', '--stages=[[1.0]]']
    runs = law('out', 'alone', *alone, lengths=(10, 20))
    runs = {'alone_10': runs['alone_10'], **runs}  # the branch first
    runs |= mix('half', (), [[0.5, 0.5]], *TINY, '--max_steps=10', seeds=(0, 1), rates=(1e-3,))
    assert list(runs) == [
        'alone_10', 'alone_20', 'half', 'half-only_en2', 'half-only_en2-rate_0.001',
        'half-seed_1', 'half-only_en2-seed_1', 'half-only_en2-rate_0.001-seed_1',
    ]  # fmt: skip
    done = train_queue(runs, workplace)
    assert done.returncode == 0, done.stderr
    order = [line.split()[1] for line in done.stdout.splitlines() if line.startswith('finished')]
    assert set(order) == set(runs) and order.index('alone_20') < order.index('alone_10')
    branch = json.loads((workplace / 'out/alone_10/results.json').read_text())
    assert branch['settings']['init_from'] == 'out/alone_20'
    before = (workplace / 'out/half/results.json').stat().st_mtime
    assert train_queue(runs, workplace).returncode == 0
    assert (workplace / 'out/half/results.json').stat().st_mtime == before


def test_a_run_that_fails_is_named_and_the_others_are_trained(workplace):
    runs = {'bad': [*TINY, '--stages=[[0.5,0.4]]'], 'good': [*TINY, '--max_steps=5']}
    runs['branch'] = [*TINY, '--max_steps=5', '--init_from=out/bad']
    done = train_queue(runs, workplace)
    refused(done, '2 of 3 runs failed: bad, branch')
    assert 'add up to 1' in done.stderr and 'branch is left out: it needs out/bad' in done.stderr
    assert (workplace / 'out/good/results.json').exists()


def test_the_cost_of_a_run_is_that_of_what_it_trains():
    files = ('config/lab.py',)
    full, twice = Job('out/a', files), Job('out/b', (*files, '--max_steps=4000'))
    control = Job('out/c', (*files, '--only=en2'))
    branch = Job('out/d', (*files, '--init_from=out/b'))
    assert twice.cost == 2 * full.cost
    assert control.cost / full.cost == pytest.approx(0.1, rel=0.1)
    assert branch.cost / full.cost == pytest.approx(0.2)
    assert full.needs == '' and str(branch.needs) == 'out/b'


def test_every_run_of_the_lab_and_the_demo_is_one_that_train_accepts():
    jobs = {
        name: Job(lab.OUT / name, a) for runs in lab.table().values() for name, a in runs.items()
    }
    assert len(jobs) == sum(map(len, lab.table().values())) > 80  # no name is used twice
    for name, job in {**jobs, **demo.training_runs()}.items():
        needed = job.needs and (job.needs.name in jobs or str(job.needs).startswith('out/demo'))
        assert not job.needs or needed, name
        assert ('only' in name) == bool(job.settings['only']), name


def test_the_plan_says_what_is_left_and_trains_nothing(tmp_path):
    done = script('lab', '--plan=True', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert 'runs' in last and 'hours' in last and not list(tmp_path.iterdir())
    refused(script('lab', '--groups=[nothing]', cwd=tmp_path), 'balance')


def test_results_of_the_lab_that_are_in_the_repo_are_those_of_its_table():
    names = {name for runs in lab.table().values() for name in runs}
    for path in (REPO / 'results/lab').glob('*/results.json'):
        assert path.parent.name in names
        assert json.loads(path.read_text())['run'] == path.parent.name
