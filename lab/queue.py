"""Trains a list of runs, some at a time, under one progress bar; demo.py and lab.py use it.

A run that is finished costs nothing and one that was stopped goes on, so a list may be given again.
Small models do not use many cores well: two runs with a core each train more than one with two.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib.configurator import ConfigError, read_settings

from tqdm import tqdm

import train
from model import SIZES, GPTConfig
from schedule import decay_start

HERE = Path(__file__).resolve().parent
SHAPE = ('n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim')


class Job:
    """A run of train.py that may not be trained yet: its folder, arguments and settings.

    cost: floating-point operations of its training, about. needs: the run that it begins with, a
    trunk or a trained model, or None."""

    def __init__(self, out, arguments, pieces=512):
        """arguments: of train.py, where a configuration is a file beside this one. pieces: of each
        language. Raises ConfigError where train.py would not know an argument."""
        self.out = Path(out)
        self.arguments = [a if a.startswith('--') else str(HERE / a) for a in arguments]
        self.arguments.append(f'--out_dir={out}')
        defaults = {name: getattr(train, name) for name in train.SETTINGS}
        self.settings, *_ = read_settings(HERE / 'train.py', defaults, self.arguments)
        chosen = self.settings
        self.needs = chosen['init_from'] and Path(chosen['init_from'])
        steps, names = chosen['max_steps'], chosen['languages']
        if chosen['only']:  # a control trains on its language's share of the sequences
            shares = [row[names.index(chosen['only'])] for row in chosen['stages']]
            steps, names = steps * sum(shares) / len(shares), [chosen['only']]
        elif self.needs and chosen.get('trainable', 'all') == 'all':  # a branch of a trunk
            steps -= decay_start(steps, chosen['decay_fraction'])
        shape = SIZES.get(chosen['size'], {}) | {n: chosen[n] for n in SHAPE if chosen[n]}
        config = GPTConfig(**shape, block_size=chosen['block_size'], vocab_size=len(names) * pieces)
        tokens = steps * chosen['batch_size'] * chosen['block_size']
        self.cost = tokens * config.flops_per_token()

    def finished(self):
        return (self.out / 'results.json').exists()

    def share_done(self):
        """How much of the run is done, by the last line of its log."""
        log = self.out / 'log.jsonl'
        for line in reversed(log.read_text().splitlines() if log.exists() else []):
            try:
                return (json.loads(line)['step'] + 1) / self.settings['max_steps']
            except (ValueError, KeyError):  # the line is just being written
                continue
        return 0.0


# --- lists of runs --------------------------------------------------------------------------------


def law(out, name, *arguments, lengths):
    """{run: arguments} of monolingual runs of these lengths (steps), which give a law.

    All of them are branches of the longest one, the trunk, which must have lr_schedule='wsd'."""
    trunk = f'{name}_{max(lengths)}'
    branches = [length for length in lengths if length < max(lengths)]
    kept = [decay_start(length) for length in branches]
    runs = {trunk: [*arguments, f'--max_steps={max(lengths)}', f'--keep_checkpoints={kept}']}
    for length in branches:
        branch = f'--init_from={Path(out, trunk)}'
        runs[f'{name}_{length}'] = [*arguments, f'--max_steps={length}', branch]
    return runs


def mix(name, files, stages, *arguments, controls=('en2',), seeds=(0,), rates=()):
    """{run: arguments} of a mix, of its replicates, and of the controls of some of its languages.

    rates: learning rates of more controls; of several the best one counts."""
    arguments = [*files, f'--stages={json.dumps(stages)}', *arguments]
    runs = {}
    for seed in seeds:
        ending, more = (f'-seed_{seed}', [f'--seed={seed}']) if seed else ('', [])
        runs[name + ending] = [*arguments, *more]
        for language in controls:
            control = f'{name}-only_{language}'
            only = [*arguments, f'--only={language}', *more]
            runs[control + ending] = only
            for peak in rates:
                rate = [f'--learning_rate={peak:g}', f'--min_learning_rate={peak / 100:g}']
                runs[f'{control}-rate_{peak:g}{ending}'] = [*only, *rate]
    return runs


# --- training them --------------------------------------------------------------------------------


def cores():
    return os.cpu_count() or 1


def train_all(jobs, at_once=0, when_finished=lambda name: None):
    """Trains the jobs, {name: Job}, in their order, `at_once` at a time (0: one for each core, at
    most two). Calls when_finished(name) for each.

    A run that fails is told at once, and the others go on. Raises ConfigError at the end where some
    failed."""
    at_once = at_once or min(2, cores())
    threads = str(max(1, cores() // at_once))
    environment = dict(os.environ, OMP_NUM_THREADS=threads)
    waiting, running, failed = dict(jobs), {}, []
    progress = tqdm(total=sum(job.cost for job in jobs.values()), unit=' FLOP', unit_scale=True)

    def start(job):
        command = [sys.executable, str(HERE / 'train.py'), *job.arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    with ThreadPoolExecutor(at_once) as pool, progress:
        while waiting or running:
            unfinished = {job.out for job in [*waiting.values(), *map(jobs.get, running)]}
            for name, job in list(waiting.items()):
                if job.needs in unfinished or len(running) == at_once:
                    continue
                del waiting[name]
                if job.needs and not job.needs.exists():
                    failed.append(name)
                    progress.write(f'{name} is left out: it needs {job.needs}', file=sys.stderr)
                    continue
                running[name] = pool.submit(start, job)
            for name, future in list(running.items()):
                if not future.done():
                    continue
                del running[name]
                process = future.result()
                if process.returncode:
                    failed.append(name)
                    reason = (process.stderr.strip() or 'no message').splitlines()[-1]
                    progress.write(f'{name} failed: {reason}', file=sys.stderr)
                else:
                    last = process.stdout.strip().splitlines()[-1]
                    place = f'run {list(jobs).index(name) + 1} of {len(jobs)}'
                    progress.write(f'{place}: {last}')
                    when_finished(name)
            done = sum(
                job.cost * (job.share_done() if name in running else 1.0)
                for name, job in jobs.items()
                if name not in waiting
            )
            progress.set_description(' and '.join(running), refresh=False)
            progress.update(done - progress.n)
            time.sleep(0.5)
    if failed:
        raise ConfigError(f'{len(failed)} of {len(jobs)} runs failed: {", ".join(failed)}')
