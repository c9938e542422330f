"""Commands of train.py as data: a mixture with its replicates and control runs, and a law."""

import contextlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

from lib.configurator import read_settings, require

import numpy as np

from lib.files import read_json
from lib.runs import decay_start
from lib.tables import short

TRAIN = Path(__file__).resolve().parent.parent / 'train.py'


def mix(name, arguments, controls, seeds=(0,), rates=(), again=(), batches=()):
    """{run: arguments of train.py} of a mixture, its replicates, and its control runs.

    controls: languages that have some; rates: their further learning rates, (peak, end) each;
    again: epochs of re-reading controls; batches: batch sizes of controls that read once."""
    kinds = {'': []}
    kinds |= {f'-rate_{peak:g}': rate_arguments(peak, end) for peak, end in rates}
    kinds |= {f'-x{count}': [f'--epochs={count}'] for count in again}
    kinds |= {f'-batch_{n}': ['--epochs=1', f'--control_batch={n}'] for n in batches}
    found = {}
    for seed in seeds:
        end, seeded = (f'-seed_{seed}', [f'--seed={seed}']) if seed else ('', [])
        found[name + end] = [*arguments, *seeded]
        for language in controls:
            only = [*arguments, f'--only={language}', *seeded]
            for kind, more in kinds.items():
                found[f'{name}-only_{language}{kind}{end}'] = [*only, *more]
    return found


def rate_arguments(peak, end):
    return [f'--learning_rate={peak:g}', f'--min_learning_rate={end:g}']


def law(name, arguments, lengths, folder, decay_fraction=0.2):
    """{run: arguments of train.py} of a law: a trunk, the longest run (steps), and branches."""
    trunk, *branches = sorted(set(lengths), reverse=True)
    kept = sorted({decay_start(length, decay_fraction) for length in branches} - {0})
    keep = f'--keep_checkpoints={kept}'.replace(' ', '')
    found = {f'{name}_{trunk}': [*arguments, f'--max_steps={trunk}', keep]}
    for length in branches:
        found[f'{name}_{length}'] = branch(arguments, length, Path(folder, f'{name}_{trunk}'))
    return found


def branch(arguments, length, trunk):
    return [*arguments, f'--max_steps={length}', f'--init_from={trunk}']


def stages_of(ratio, languages):
    """The stages of a ratio such as 90_10. Raises ConfigError."""
    try:
        shares = [float(part) for part in str(ratio).split('_')]
    except ValueError:
        shares = []
    valid = len(shares) == len(languages) and min(shares) >= 0 < sum(shares)
    require(valid, f'ratios must be as 90_10, a share of each language, not {ratio!r}')
    return [[share / sum(shares) for share in shares]]


def low_resource(shares):
    """Names of the languages with less than half of a mixture, {name: share}; else its last one."""
    mixed = [name for name in shares if shares[name]]
    return [name for name in mixed if shares[name] < 0.5 - 1e-9] or mixed[-1:]


@dataclass
class Job:
    """A run of train.py in folder/name. tokens: that it trains on, from step `first` to step
    `steps`; needs: the name of the trunk that it branches off."""

    name: str
    arguments: list
    folder: Path
    tokens: float
    steps: int
    first: int = 0
    needs: str = ''

    @property
    def rank(self):
        """The most important first: by seed; mixtures and controls, laws, re-reading, rates."""
        _, _, seed = self.name.partition('-seed_')
        marks = '-rate_', '-x', 'law_'
        return int(seed or 0), 3 - next((i for i, mark in enumerate(marks) if mark in self.name), 3)

    @property
    def finished(self):
        return (self.folder / self.name / 'results.json').exists()

    def perplexities(self):
        scores = read_json(self.folder / self.name / 'results.json')['languages'].items()
        return ', '.join(f'{name} has perplexity {score["ppl"]:.1f}' for name, score in scores)

    def share_done(self):
        """How much of it is done, by the last step of its log."""
        log, text = self.folder / self.name / 'log.jsonl', ''
        with contextlib.suppress(OSError), log.open('rb') as file:
            file.seek(max(0, log.stat().st_size - 4096))
            text = file.read().decode(errors='ignore')
        steps = [self.first - 1, *map(int, re.findall(r'"step": (\d+),', text))]
        return min(1.0, max(0.0, (steps[-1] + 1 - self.first) / max(1, self.steps - self.first)))


def job(name, arguments, folder):
    """The Job of a run in folder/NAME. Raises ConfigError for arguments that train.py refuses."""
    arguments = [*arguments, f'--out_dir={Path(folder, name)}']
    chosen, *_ = read_settings(TRAIN, arguments)
    steps, first, share, needs = chosen['max_steps'], 0, 1.0, ''
    if chosen['only']:
        index = chosen['languages'].index(chosen['only'])
        share = float(np.mean(chosen['stages'], axis=0)[index]) * (chosen['epochs'] or 1)
    elif chosen['init_from'] and not chosen['train_only']:
        needs, first = Path(chosen['init_from']).name, decay_start(steps, chosen['decay_fraction'])
    tokens = (steps - first) * share * chosen['batch_size'] * chosen['block_size']
    if chosen['epochs']:
        batch = chosen['control_batch'] or chosen['batch_size']
        steps = math.ceil(tokens / batch / chosen['block_size'])
    return Job(name, arguments, Path(folder), tokens, steps, first, needs)


def fitting(jobs, hours_of, limit):
    """The most important jobs that take `limit` hours at most, with the trunks they need."""
    chosen, used, names = [], 0.0, {one.name: one for one in jobs}
    for one in jobs:
        needed = [n for n in (names.get(one.needs), one) if n and n not in chosen]
        hours = sum(map(hours_of, needed))
        if used + hours <= limit:
            chosen, used = chosen + needed, used + hours
    return chosen


def print_plan(jobs, left_out, hours_of, parameters):
    """Prints the runs, their hours and disk. parameters: of the model."""
    for one in jobs:
        mark = 'finished' if one.finished else f'{hours_of(one):.2f} h'
        print(f'{one.name:<40}{short(one.tokens):>8} tokens  {mark}')
    waiting = [one for one in jobs if not one.finished]
    done, tokens = len(jobs) - len(waiting), short(sum(one.tokens for one in jobs))
    # float32; a trunk keeps a checkpoint with optimiser for each branch
    gigabytes = sum(4 if one.needs else 1 for one in jobs) * parameters * 4 / 1e9
    print(f'{len(jobs)} runs, {done} finished, {tokens} tokens')
    print(f'{sum(map(hours_of, waiting)):.1f} hours on this machine, {gigabytes:.1f} GB of disk')
    if left_out:
        print(f'left out for budget_hours: {", ".join(one.name for one in left_out)}')
