"""From a config to an answer: plans, trains and measures an experiment.

    python experiment.py config/clones_90_10.py --plan=True   # runs, hours, disk; trains nothing
    python experiment.py config/clones_90_10.py               # trains them and answers
    python experiment.py config/clones_90_10.py --ratios=[90_10,50_50] --budget_hours=8
    python experiment.py config/clones_90_10.py --print=True   # the train.py commands, one a line

An experiment has the mixture at each ratio, with replicates; for each language that is asked about
the control runs and the monolingual law, whose runs branch off one trunk; and the table of
fit_scaling.py and the page of report.py. All of it is in out/NAME. Rerun a command to resume it;
after Ctrl-C it answers with what is finished. Arguments that are not below are those of train.py;
all runs have lr_schedule='wsd', so that the law is cheap.
"""

import contextlib
import json
import math
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lib.configurator import ConfigError, defaults_of, read_settings, require, run, run_name

import numpy as np
import torch
from tqdm import tqdm

import fit_scaling
import report
import sample
import train
from lib import machine, runs
from lib.log import Log
from lib.tables import short
from lib.workers import cores, end_with_parent
from schedule import decay_start

ratios = []  # of a series of mixtures, as [90_10,50_50]; empty: the stages of the config
asked = []  # languages to answer for; empty: those with less than half of the tokens
seeds = 3  # replicates of each mixture and of its best kinds of control
rates = [1.0, 0.5]  # learning rates of the controls, times that of the mixture
epochs = [4]  # how often the re-reading controls read their text
budgets = 10  # monolingual runs of a law, before those that the measure asks for
budget_hours = 0.0  # leave out what is least important beyond so many hours; 0: train all
at_once = 0  # runs at a time; 0: one for each GPU, or two on a CPU of several cores
out = ''  # folder of the experiment; empty: out/ and the names of the configs and overrides
plan = False  # print the plan and train nothing
print_ = False  # print the plain train.py commands, in an order that works, and train nothing

TRAIN = Path(__file__).resolve().parent / 'train.py'
ROUNDS = 2  # times that the measure may ask for more budgets


# --- the runs -------------------------------------------------------------------------------------


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
    kept = sorted(decay_start(length, decay_fraction) for length in branches)
    keep = f'--keep_checkpoints={kept}'.replace(' ', '')
    found = {f'{name}_{trunk}': [*arguments, f'--max_steps={trunk}', keep]}
    for length in branches:
        found[f'{name}_{length}'] = branch(arguments, length, Path(folder, f'{name}_{trunk}'))
    return found


def branch(arguments, length, trunk):
    return [*arguments, f'--max_steps={length}', f'--init_from={trunk}']


@dataclass
class Job:
    """A run of train.py. tokens: that it trains on, from step `first` to step `steps`; needs: the
    name of the trunk that it branches off."""

    name: str
    arguments: list
    tokens: float
    steps: int
    first: int = 0
    needs: str = ''


def job(name, arguments, folder):
    """The Job of a run in folder/NAME. Raises ConfigError for arguments that train.py refuses."""
    arguments = [*arguments, f'--out_dir={Path(folder, name)}']
    chosen, *_ = read_settings(TRAIN, defaults_of(TRAIN), arguments)
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
    return Job(name, arguments, tokens, steps, first, needs)


def rank(one):
    """The most important jobs first: by seed, then mixture, control, law, re-reading, rates."""
    _, _, seed = one.name.partition('-seed_')
    marks = '-rate_', '-x', 'law_', '-only_'
    return int(seed or 0), 4 - next((i for i, mark in enumerate(marks) if mark in one.name), 4)


class Experiment:
    """The mixtures of an experiment, and the runs that answer what one language does for another.

    base: settings of train.py; arguments: those that gave them."""

    def __init__(self, base, arguments, folder):
        self.base, self.folder = base, Path(folder)
        self.arguments, names = [*arguments, '--lr_schedule=wsd'], base['languages']
        self.step_tokens = base['batch_size'] * base['block_size']
        stages = {ratio: stages_of(ratio, names) for ratio in ratios} or {'mix': base['stages']}
        self.shares = {r: dict(zip(names, np.mean(s, axis=0).tolist())) for r, s in stages.items()}
        least = {name: min(shares[name] for shares in self.shares.values()) for name in names}
        rare = [name for name in names if 0 < least[name] < 0.5 - 1e-9] or names[-1:]
        self.asked = list(asked) or rare
        known = set(self.asked) <= set(names)
        require(known, f'asked must be some of {", ".join(names)}, not {self.asked}')
        found = {}
        for ratio, shares in self.shares.items():
            text = json.dumps(stages[ratio]).replace(' ', '')
            arguments = [*self.arguments, *([f'--stages={text}'] if ratios else [])]
            controls = [name for name in self.asked if 0 < shares[name] < 1]
            again = [n for n in epochs if all(n * shares[c] <= 1.02 for c in controls)]
            peak, end = base['learning_rate'], base['min_learning_rate']
            tuned = [(peak * times, end * times) for times in rates if times != 1]
            found |= mix(ratio, arguments, controls, range(seeds), tuned, again)
        laws = {self.text(language): language for language in self.asked[::-1]}
        for language in laws.values():  # clones share a law
            alone, decay = [*self.arguments, f'--alone={language}'], base['decay_fraction']
            found |= law(f'law_{language}', alone, self.lengths(language), self.folder, decay)
        self.jobs = [job(name, arguments, self.folder) for name, arguments in found.items()]
        self.jobs.sort(key=rank)

    def text(self, language):
        """What the law of a language is measured on: its corpus and order."""
        index, orders = self.base['languages'].index(language), self.base['orders']
        return self.base['corpora'][index], orders[index] if orders else ''

    def lengths(self, language):
        """Steps of the runs of a law: around the tokens of every mixture and control."""
        steps = self.base['max_steps']
        own = [steps * shares[language] for shares in self.shares.values() if shares[language]]
        least = max(0.5 * min(own), 2.5 * self.base['warmup_steps'])
        most = max(min(steps, 5 * max(own)), 2 * least)
        return [round(length) for length in np.geomspace(least, most, budgets)]

    def more_jobs(self):
        """Branches at the budgets that the measure asks for and that are not there yet."""
        _, rows = fit_scaling.analyse(runs.load_runs(self.folder))
        known, found = {one.name for one in self.jobs}, {}
        for trunk in {one.needs for one in self.jobs if one.needs}:
            law_name, _, _ = trunk.rpartition('_')
            language = law_name.removeprefix('law_')
            alone = [*self.arguments, f'--alone={language}']
            text = self.text(language)
            wanted = [r['add_budgets'] for r in rows if self.text(r['language']) == text]
            for tokens in sum(wanted, []):
                length = round(tokens / self.step_tokens)
                found[f'{law_name}_{length}'] = branch(alone, length, self.folder / trunk)
        more = [job(name, a, self.folder) for name, a in found.items() if name not in known]
        self.jobs += more
        return more


def stages_of(ratio, languages):
    """The stages of a ratio such as 90_10. Raises ConfigError."""
    try:
        shares = [float(part) for part in ratio.split('_')]
    except ValueError:
        shares = []
    valid = len(shares) == len(languages) and sum(shares) > 0
    require(valid, f'ratios must be as 90_10, a share of each language, not {ratio!r}')
    return [[share / sum(shares) for share in shares]]


# --- the plan -------------------------------------------------------------------------------------


def measured(base):
    """(tokens a second, parameters) of the mixture: its first steps, for ten seconds."""
    times, processes = [], machine.Processes(base['device'])
    with tempfile.TemporaryDirectory() as scratch:
        training = train.Training(base, Path(scratch), processes)
        training.log = Log(base, Path(scratch), processes, 0)
        for batch, drawn in training.batches():
            start = time.perf_counter()
            training.take_step(batch, drawn)
            machine.synchronize(processes.device)
            times.append(time.perf_counter() - start)  # the first compiles
            if sum(times[1:]) > 10 or len(times) == training.steps:
                break
    tokens = base['batch_size'] * base['block_size']
    return tokens / float(np.median(times[1:])), training.parameters


def fitting(jobs, hours_of, limit):
    """The most important jobs that take `limit` hours at most, with the trunks they need."""
    chosen, used, names = [], 0.0, {one.name: one for one in jobs}
    for one in jobs:
        needed = [n for n in (names.get(one.needs), one) if n and n not in chosen]
        hours = sum(map(hours_of, needed))
        if used + hours <= limit:
            chosen, used = chosen + needed, used + hours
    return chosen


def print_plan(jobs, left_out, hours_of, folder, gigabytes):
    """The runs, their hours and disk, and what the answer will lack."""
    done = [one for one in jobs if finished(folder, one.name)]
    hours, names = sum(hours_of(one) for one in jobs if one not in done), [j.name for j in jobs]
    for one in jobs:
        mark = 'finished' if one in done else f'{hours_of(one):.2f} h'
        print(f'{one.name:<40}{short(one.tokens):>8} tokens  {mark}')
    print(f'{len(jobs)} runs, {len(done)} finished, {short(sum(j.tokens for j in jobs))} tokens')
    print(f'{hours:.1f} hours on this machine, at most {gigabytes:.1f} GB in {folder}')
    if left_out:
        print(f'left out for budget_hours: {", ".join(one.name for one in left_out)}')
    if not any('-seed_' in name for name in names):
        print('with one seed of the mixture run noise stays unknown: there will be no intervals')
    if sum(name.startswith('law_') for name in names) < 6:
        print('with fewer than six budgets there will be no intervals of tokens')


# --- training them --------------------------------------------------------------------------------


def finished(folder, name):
    return Path(folder, name, 'results.json').exists()


def work(pipe, environment):
    """A worker process: trains the runs whose arguments it receives, and sends back why one failed,
    or ''. Runs of one shape are compiled once."""
    os.environ.update(environment)
    torch.set_num_threads(int(environment['OMP_NUM_THREADS']))
    end_with_parent()
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(train_one(pipe.recv()))


def train_one(arguments):
    """Runs train.py in this process, its output in out_dir.log. Returns why it failed, or ''."""
    values, stems, overrides = read_settings(TRAIN, defaults_of(TRAIN), arguments)
    log = Path(f'{values["out_dir"]}.log')
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            vars(train).update(values)
            train.main(stems, overrides)
        except Exception as error:  # the other runs go on
            return ' '.join(str(error).split()) or type(error).__name__
    return ''


class Queue:
    """Worker processes that train the jobs of a folder, one at a time each."""

    def __init__(self, folder, count, gpus=0):
        context = multiprocessing.get_context('spawn')
        threads = {'OMP_NUM_THREADS': str(max(1, cores() // count))}
        os.environ.update(threads)  # read when a process imports torch
        self.folder, self.workers, self.running = Path(folder), [], {}
        for number in range(count):
            gpu = {'CUDA_VISIBLE_DEVICES': str(number % gpus)} if gpus else {}
            pipe, other = context.Pipe()
            process = context.Process(target=work, args=(other, threads | gpu), daemon=True)
            process.start()
            self.workers.append((process, pipe))

    def train(self, jobs, cost_of):
        """Trains the jobs that are not finished, and prints their perplexities. Returns {name:
        reason} of those that failed. cost_of: seconds of a job, about, for the progress bar."""
        waiting, failed = [one for one in jobs if not finished(self.folder, one.name)], {}
        with tqdm(total=round(sum(map(cost_of, jobs))), unit=' s', desc='experiment') as progress:
            while waiting or self.running:
                self.collect(failed, progress)
                lost = [one for one in waiting if one.needs in failed]
                if not any(process.is_alive() for process, _ in self.workers):
                    lost = waiting
                failed |= {one.name: one.needs or 'all processes were killed' for one in lost}
                waiting = [one for one in waiting if one not in lost]
                self.assign(waiting)
                share = {one.name: self.share_done(one) for one in self.running.values()}
                share |= {one.name: 0.0 for one in waiting}
                done = sum(cost_of(one) * share.get(one.name, 1.0) for one in jobs)
                names = ' and '.join(one.name for one in self.running.values())
                progress.set_description(names or 'experiment', refresh=False)
                progress.update(round(done) - progress.n)
                time.sleep(0.3)
        return failed

    def collect(self, failed, progress):
        """Takes back the jobs that workers have ended."""
        for index, (process, pipe) in enumerate(self.workers):
            if index in self.running and (pipe.poll() or not process.is_alive()):
                one, reason = self.running.pop(index), 'its process was killed'
                with contextlib.suppress(EOFError):
                    reason = pipe.recv() if pipe.poll() else reason
                if reason:
                    failed[one.name] = reason
                    progress.write(f'{one.name} failed: {reason}', file=sys.stderr)
                    continue
                results = json.loads((self.folder / one.name / 'results.json').read_text())
                scores = results['languages'].items()
                text = ', '.join(f'{name} {score["ppl"]:.1f}' for name, score in scores)
                progress.write(f'{one.name}: perplexity {text}')

    def assign(self, waiting):
        """Gives idle workers the first jobs whose trunks are there."""
        for index, (process, pipe) in enumerate(self.workers):
            if index not in self.running and process.is_alive():
                ready = (o for o in waiting if not o.needs or finished(self.folder, o.needs))
                one = next(ready, None)
                if one:
                    waiting.remove(one)
                    self.running[index] = one
                    pipe.send(one.arguments)

    def share_done(self, one):
        """How much of a job is done, by the last line of its log."""
        log = self.folder / one.name / 'log.jsonl'
        for line in reversed(log.read_text().splitlines()[-3:] if log.exists() else []):
            with contextlib.suppress(ValueError, KeyError):
                done = json.loads(line)['step'] + 1 - one.first
                return min(1.0, max(0.0, done / (one.steps - one.first)))
        return 0.0

    def stop(self):
        """Lets the running jobs write a checkpoint, and ends the processes."""
        for process, _ in self.workers:
            process.terminate()
        for process, _ in self.workers:
            process.join()


# --- the answer -----------------------------------------------------------------------------------


def write_samples(folder, names):
    """Two samples in each language of each mixture, for the report: folder/RUN/samples.txt."""
    for name in (name for name in names if finished(folder, name)):
        results = json.loads((folder / name / 'results.json').read_text())
        with (folder / name / 'samples.txt').open('w') as file, contextlib.redirect_stdout(file):
            for language in results['languages']:
                vars(sample).update(defaults_of(sample.__file__), out_dir=str(folder / name))
                vars(sample).update(language=language, num_samples=2, max_new_tokens=60)
                print(f'{language}:')
                sample.main()


def answer(folder):
    """Prints the table and the findings of what is finished, and writes the report."""
    laws, rows = fit_scaling.scale(folder)
    print('\n' + fit_scaling.table_text([row for row in rows if not row['monolingual']]))
    print(f'\nwrote {report.write(folder, laws, rows)}')
    for sentence in report.findings(rows):
        print(sentence)


def main():
    base, stems, overrides = read_settings(TRAIN, defaults_of(TRAIN), train_arguments)
    vars(train).update(base)
    train.check_settings()
    folder = Path(out or os.path.join('out', run_name(stems, overrides)))
    planned = Experiment(base, train_arguments, folder)
    if print_:
        for one in sorted(planned.jobs, key=lambda one: bool(one.needs)):  # trunks first
            print(shlex.join(['python', 'train.py', *one.arguments]))
        return
    gpus = torch.cuda.device_count() if base['device'] in ('auto', 'cuda') else 0
    count = at_once or gpus or min(2, cores())
    torch.set_num_threads(max(1, cores() // count))
    speed, parameters = measured(base)

    def seconds_of(one):
        return one.tokens / speed + 5  # to start and to evaluate

    def hours_of(one):
        return seconds_of(one) / count / 3600

    kept = fitting(planned.jobs, hours_of, budget_hours or math.inf)
    left_out = [one for one in planned.jobs if one not in kept]
    files = len(kept) + 3 * budgets * len({one.needs for one in kept if one.needs})
    print_plan(kept, left_out, hours_of, folder, files * parameters * 4 / 1e9)
    if plan:
        return
    queue, failed = Queue(folder, count, gpus), {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        failed = queue.train(kept, seconds_of)
        for _ in range(0 if failed or budget_hours else ROUNDS):
            more = planned.more_jobs()
            if more:
                print(f'the measure asks for {len(more)} more budgets')
                failed |= queue.train(more, seconds_of)
    except KeyboardInterrupt:
        print('\nstopping: the answer is of the finished runs; rerun to resume', file=sys.stderr)
    finally:
        queue.stop()
    write_samples(folder, planned.shares)
    answer(folder)
    if failed:
        raise ConfigError(f'{len(failed)} runs failed: {", ".join(failed)}; rerun to try again')


if __name__ == '__main__':
    own = {name.rstrip('_') for name in defaults_of(__file__)} | {'help'}
    mine = [a for a in sys.argv[1:] if a.partition('=')[0].lstrip('-').replace('-', '_') in own]
    train_arguments, sys.argv[1:] = [a for a in sys.argv[1:] if a not in mine], mine
    run(globals(), main)
