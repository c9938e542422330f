"""Runs for one GPU, ready: each list prints its plan and its hours on this machine, then trains.

    python -m lab.night                  # make night: past the transition, at four sizes of model
    python -m lab.night --table1=True    # make table1: the paper's Table 1, with controls
    python -m lab.night --plan=True      # prints the plan and trains nothing

The night takes half an hour of an H200, by the speed of 44 such runs there, six at once, since so
small steps wait for launches of kernels. Table 1 takes some 36 hours, by the speed of a step, or a
week of a card of 24 GB. Its most important rows come first. Rerun to resume.
"""

import subprocess
import sys
from pathlib import Path

from lib.configurator import read_settings, require, run

import torch

import experiment
from lab.lab import HERE, make_corpora
from lib.commands import TRAIN, job, mix
from lib.paper import read_csv

table1 = False  # train the rows of Table 1 instead
plan = False  # print the plan and train nothing
at_once = 8  # runs of the night at a time on a GPU
source_en = 'eltec:eng'  # where prepare.py finds English novels; or a folder of text files

# (layers, width): peak learning rate
GRID = {(2, 256): 1e-3, (4, 256): 1e-3, (2, 512): 7e-4, (4, 512): 7e-4}
ROWS = (5, 4, 9, 7, 6, 8, 1, 2, 3, 11, 10, 13, 12)  # of Table 1, the most important first
SEEDED = (5, 4)  # rows with three seeds, and further monolingual runs (steps): intervals need them
BUDGETS = (913, 3653)


def night():
    """Command lines of experiment.py, one for each size: two ratios, three seeds, 26.6M tokens."""
    for (layers, width), rate in GRID.items():
        shape = dict(n_layer=layers, n_embd=width, n_head=width // 32, mlp_dim=4 * width)
        shape |= dict(learning_rate=rate, min_learning_rate=rate / 100, max_steps=13000)
        given = [f'--{name}={value}' for name, value in shape.items()]
        given += ['--ratios=[90_10,50_50]', '--asked=[en2]', '--seeds=3', '--epochs=[4,10]']
        given += [f'--at_once={at_once}', f'--out=out/night/{layers}_layers_{width}']
        yield [sys.executable, str(HERE / 'experiment.py'), str(HERE / 'config/lab.py'), *given]


def jobs_of_table1():
    """The jobs of Table 1, each row followed by the control runs of its second language; further
    seeds come before the rows 10 to 13, which have more data."""
    jobs = []
    rows = {int(row['row']): row for row in read_csv('paper_runs.csv') if row['table'] == '1'}
    for number in ROWS:
        words = rows[number]['config'].split()
        config = [word if word.startswith('--') else str(HERE / word) for word in words]
        controls = ['en2'] if 'en2' in rows[number]['languages'] else []
        more = dict(seeds=range(3 if number in SEEDED else 1), rates=[(3e-4, 3e-6)], again=[2, 4])
        found = mix(f'row_{number:02}', config, controls, **more)
        for steps in BUDGETS if number == 1 else ():
            found[f'row_01-steps_{steps}'] = [*config, f'--max_steps={steps}']
        of_row = [job(name, arguments, 'out/table1') for name, arguments in found.items()]
        # no measure reads a control that costs more than the mixture
        jobs += [one for one in of_row if one.tokens <= 1.02 * of_row[0].tokens]
    return sorted(jobs, key=lambda one: 2 if 'row_1' in one.name else '-seed_' in one.name)


def finish(command):
    """Runs a command; returns its exit status. After Ctrl-C it may still answer, then this ends."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def main():
    if table1:
        base, *_ = read_settings(TRAIN, [str(HERE / 'config/clones_90_10.py')])
        experiment.plan = plan
        experiment.carry_out(base, jobs_of_table1(), Path('out/table1'))
        return
    usable = plan or torch.cuda.is_available()
    require(usable, 'torch finds no GPU; make demo is for a CPU, and --plan=True prints the plan')
    make_corpora([('novels_en', source_en)])
    commands = list(night())
    failed = [c for c in commands if finish([*c, '--plan=True'])]
    failed = [c for c in commands if not plan and finish(c)] or failed
    require(not failed, f'{len(failed)} of {len(commands)} experiments failed, see above')


if __name__ == '__main__':
    run(globals(), main)
