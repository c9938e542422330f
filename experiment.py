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
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib.configurator import ConfigError, defaults_of, read_settings, require, run, run_name

import numpy as np
import torch
from tqdm import tqdm

import fit_scaling
import report
import train
from lib import machine, runs
from lib.log import Log
from lib.workers import cores
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


@dataclass(order=True)
class Job:
    """A run of train.py. rank: the most important first; tokens: trained on; needs: the trunk that
    it branches off; first: the step where it does; steps: its last one."""

    rank: int
    name: str
    arguments: list = field(compare=False)
    tokens: float = field(compare=False)
    steps: int = field(compare=False)
    needs: str = field(default='', compare=False)
    first: int = field(default=0, compare=False)


class Experiment:
    """The mixtures of an experiment, and the runs that answer what one language does for another.

    base: settings of train.py; files: its arguments as given."""

    def __init__(self, base, files, folder):
        self.base, self.files, self.folder = base, files, Path(folder)
        self.step_tokens = base['batch_size'] * base['block_size']
        self.mixtures = {ratio: stages_of(ratio, base) for ratio in ratios}
        self.mixtures = self.mixtures or {'mix': base['stages']}
        self.asked = list(asked) or self.rare_languages()
        require(
            set(self.asked) <= set(base['languages']),
            f'asked must be some of {", ".join(base["languages"])}, not {self.asked}',
        )

    def share(self, stages, language):
        return float(np.mean(stages, axis=0)[self.base['languages'].index(language)])

    def rare_languages(self):
        """The languages that have less than half of the tokens in a mixture; else the last one."""
        names = self.base['languages']
        shares = {n: min(self.share(s, n) for s in self.mixtures.values()) for n in names}
        return [name for name in names if 0 < shares[name] < 0.5 - 1e-9] or names[-1:]

    def job(self, rank, name, tokens, steps=0, **settings):
        settings |= dict(out_dir=str(self.folder / name))
        arguments = [f'--{key}={as_text(value)}' for key, value in settings.items()]
        arguments = [*self.files, '--lr_schedule=wsd', *arguments]
        return Job(rank, name, arguments, tokens, steps or self.base['max_steps'])

    def mixture_jobs(self):
        """The mixtures and the controls, with their seeds; ranks interleave the kinds."""
        total, peak = self.base['max_steps'] * self.step_tokens, self.base['learning_rate']
        for ratio, stages in self.mixtures.items():
            for seed in range(seeds):
                end, settings = ('', {}) if seed == 0 else (f'-seed_{seed}', dict(seed=seed))
                settings |= dict(stages=stages) if ratios else {}
                yield self.job(10 * seed, ratio + end, total, **settings)
                for language in self.asked:
                    own = total * self.share(stages, language)
                    if not 0 < own < total:
                        continue
                    name = f'{ratio}-only_{language}'
                    for i, times in enumerate(rates):
                        rate = dict(learning_rate=peak * times)
                        rate |= dict(min_learning_rate=self.base['min_learning_rate'] * times)
                        text, rate = (f'-rate_{peak * times:g}', rate) if times != 1 else ('', {})
                        only = dict(settings, only=language, **rate)
                        yield self.job(10 * seed + 1 + 3 * i, name + text + end, own, **only)
                        for count in epochs if i == 0 or seed == 0 else ():
                            again = f'{name}-x{count}{text}{end}'
                            if count * own <= 1.02 * total:  # at most the compute of the mixture
                                rank = 10 * seed + 3 + 2 * i
                                steps = round(count * own / self.step_tokens)
                                yield self.job(
                                    rank, again, count * own, steps, **only, epochs=count
                                )

    def law_jobs(self, language):
        """The trunk of a language's law and its branches, with budgets around the tokens of every
        run and control."""
        total = self.base['max_steps'] * self.step_tokens
        own = [total * self.share(stages, language) for stages in self.mixtures.values()]
        own = [tokens for tokens in own if tokens]
        least = max(0.5 * min(own), 2.5 * self.base['warmup_steps'] * self.step_tokens)
        most = max(min(total, 5 * max(own)), 2 * least)
        steps = np.unique(np.round(np.geomspace(least, most, budgets) / self.step_tokens))
        trunk, *shorter = [int(step) for step in steps[::-1]]
        kept = [decay_start(step, self.base['decay_fraction']) for step in shorter]
        name = f'law_{language}_{trunk}'
        settings = dict(alone=language, max_steps=trunk, keep_checkpoints=sorted(kept))
        yield self.job(2, name, trunk * self.step_tokens, trunk, **settings)
        for step in shorter:
            yield self.branch(language, name, step)

    def branch(self, language, trunk, step):
        """A monolingual run of `step` steps that branches off a trunk."""
        first = decay_start(step, self.base['decay_fraction'])
        settings = dict(alone=language, max_steps=step, init_from=str(self.folder / trunk))
        job = self.job(
            2, f'law_{language}_{step}', (step - first) * self.step_tokens, step, **settings
        )
        return replace(job, needs=trunk, first=first)

    def text(self, language):
        """What the law of a language is measured on: its corpus and order."""
        index, orders = self.base['languages'].index(language), self.base['orders']
        return self.base['corpora'][index], orders[index] if orders else ''

    def jobs(self):
        """All runs, the most important first."""
        found = list(self.mixture_jobs())
        laws = {self.text(language): language for language in self.asked[::-1]}
        for language in laws.values():  # clones share a law
            found += self.law_jobs(language)
        return sorted(found)

    def more_jobs(self, known):
        """Branches at the budgets that the measure asks for, of runs that are not `known`."""
        _, rows = fit_scaling.analyse(runs.load_runs(self.folder))
        names, found = {job.name for job in known}, {}
        trunks = {job.name.split('_')[1]: job.needs for job in known if job.needs}
        for language, trunk in trunks.items():
            text = self.text(language)
            for row in (row for row in rows if row['language'] in self.base['languages']):
                for tokens in row['add_budgets'] if self.text(row['language']) == text else ():
                    job = self.branch(language, trunk, round(tokens / self.step_tokens))
                    if job.name not in names:
                        found[job.name] = job
        return list(found.values())


def stages_of(ratio, base):
    """The stages of a ratio such as 90_10. Raises ConfigError."""
    try:
        shares = [float(part) for part in ratio.split('_')]
    except ValueError:
        shares = []
    valid = len(shares) == len(base['languages']) and sum(shares) > 0
    require(valid, f'ratios must be as 90_10, a share of each language, not {ratio!r}')
    return [[share / sum(shares) for share in shares]]


def as_text(value):
    """A setting as the command line has it, without spaces."""
    return json.dumps(value).replace(' ', '') if isinstance(value, list) else value


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
    chosen, used, names = [], 0.0, {job.name: job for job in jobs}
    for job in jobs:
        needed = [names[job.needs], job] if job.needs else [job]
        needed = [one for one in needed if one not in chosen]
        hours = sum(map(hours_of, needed))
        if used + hours <= limit:
            chosen, used = chosen + needed, used + hours
    return chosen


def print_plan(jobs, left_out, hours_of, folder, gigabytes):
    """The runs, their hours and disk, and what the answer will lack."""
    done = [job for job in jobs if finished(folder, job)]
    hours, names = sum(hours_of(job) for job in jobs if job not in done), [j.name for j in jobs]
    for job in jobs:
        mark = 'finished' if job in done else f'{hours_of(job):.2f} h'
        print(f'{job.name:<40}{fit_scaling.short(job.tokens):>8} tokens  {mark}')
    tokens = fit_scaling.short(sum(job.tokens for job in jobs))
    print(f'{len(jobs)} runs, {len(done)} of them finished, {tokens} tokens')
    print(f'{hours:.1f} hours on this machine, at most {gigabytes:.1f} GB in {folder}')
    for lacks, text in (
        (left_out, f'left out for budget_hours: {", ".join(job.name for job in left_out)}'),
        (not any('-seed_' in name for name in names), 'one seed: no intervals, run noise unknown'),
        (sum(name.startswith('law_') for name in names) < 6, 'few budgets: no intervals of tokens'),
    ):
        print(text) if lacks else None


# --- training them --------------------------------------------------------------------------------


def finished(folder, job):
    return (folder / job.name / 'results.json').exists()


def work(pipe, environment):
    """A worker process: trains the runs whose arguments it receives, and sends back why one failed,
    or ''. Runs of one shape are compiled once. It ends with its parent."""
    os.environ.update(environment)
    torch.set_num_threads(int(environment['OMP_NUM_THREADS']))
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(train_one(pipe.recv()))


def train_one(arguments):
    out_dir = next(a for a in reversed(arguments) if a.startswith('--out_dir=')).partition('=')[2]
    log = Path(f'{out_dir}.log')
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            values, stems, overrides = read_settings(TRAIN, defaults_of(TRAIN), arguments)
            vars(train).update(values)
            train.main(stems, overrides)
        except (ConfigError, OSError) as error:
            return str(error)
        except (SystemExit, KeyboardInterrupt):
            sys.exit()  # its checkpoint is written
        except Exception as error:  # the other runs go on
            return f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
    return ''


class Queue:
    """Worker processes that train jobs, one at a time each."""

    def __init__(self, folder, count, gpus):
        context = multiprocessing.get_context('spawn')
        threads = {'OMP_NUM_THREADS': str(max(1, cores() // count))}
        os.environ.update(threads)  # read when a process imports torch
        self.folder, self.workers, self.running = folder, [], {}
        for number in range(count):
            gpu = {'CUDA_VISIBLE_DEVICES': str(number % gpus)} if gpus else {}
            pipe, other = context.Pipe()
            process = context.Process(target=work, args=(other, threads | gpu), daemon=True)
            process.start()
            self.workers.append((process, pipe))

    def train(self, jobs, cost_of):
        """Trains the jobs that are not finished, and prints their perplexities. Returns {name:
        reason} of those that failed."""
        waiting = [job for job in jobs if not finished(self.folder, job)]
        failed, total = {}, round(sum(map(cost_of, jobs)))
        with tqdm(total=total, unit=' s', desc='experiment') as progress:
            while waiting or self.running:
                self.collect(failed, progress)
                lost = [job for job in waiting if job.needs in failed]
                failed |= {job.name: f'it needs {job.needs}' for job in lost}
                waiting = [job for job in waiting if job not in lost]
                if not any(process.is_alive() for process, _ in self.workers):
                    failed |= {job.name: 'the processes were killed' for job in waiting}
                    break
                self.assign(waiting)
                share = {job.name: self.share_done(job) for job in self.running.values()}
                left = {job.name for job in waiting}
                done = sum(cost_of(j) * share.get(j.name, 1) for j in jobs if j.name not in left)
                progress.set_description(' and '.join(share) or 'experiment', refresh=False)
                progress.update(round(done) - progress.n)
                time.sleep(0.3)
        return failed

    def collect(self, failed, progress):
        """Takes what the workers have done."""
        for index, (process, pipe) in enumerate(self.workers):
            if index in self.running and (pipe.poll() or not process.is_alive()):
                job = self.running.pop(index)
                reason = pipe.recv() if pipe.poll() else 'its process was killed'
                if reason:
                    failed[job.name] = reason
                    progress.write(f'{job.name} failed: {reason}', file=sys.stderr)
                    continue
                results = json.loads((self.folder / job.name / 'results.json').read_text())
                scores = results['languages'].items()
                text = ', '.join(f'{name} {score["ppl"]:.1f}' for name, score in scores)
                progress.write(f'{job.name}: perplexity {text}')

    def assign(self, waiting):
        """Gives idle workers the first jobs whose trunks are there."""
        for index, (process, pipe) in enumerate(self.workers):
            if index not in self.running and process.is_alive():
                for job in waiting:
                    if not job.needs or (self.folder / job.needs / 'results.json').exists():
                        waiting.remove(job)
                        self.running[index] = job
                        pipe.send(job.arguments)
                        break

    def share_done(self, job):
        """How much of a run is done, by the last line of its log."""
        log = self.folder / job.name / 'log.jsonl'
        for line in reversed(log.read_text().splitlines()[-3:] if log.exists() else []):
            with contextlib.suppress(ValueError, KeyError):
                done = json.loads(line)['step'] + 1 - job.first
                return min(1.0, max(0.0, done / (job.steps - job.first)))
        return 0.0

    def stop(self):
        """Lets the running jobs write a checkpoint, and ends the processes."""
        for process, _ in self.workers:
            process.terminate()
        for process, _ in self.workers:
            process.join()


# --- the answer -----------------------------------------------------------------------------------


def answer(folder):
    """Prints the table and the finding of what is finished, and writes the report."""
    laws, rows = fit_scaling.scale(folder)
    print('\n' + fit_scaling.table_text([row for row in rows if not row['monolingual']]))
    print(f'\nwrote {report.write(folder, laws, rows)}')
    for sentence in report.findings(rows):
        print(sentence)


def main():
    base, stems, overrides = read_settings(TRAIN, defaults_of(TRAIN), files)
    vars(train).update(base)
    train.check_settings()
    folder = Path(out or os.path.join('out', run_name(stems, overrides)))
    experiment = Experiment(base, files, folder)
    jobs = experiment.jobs()
    if print_:
        for job in jobs:
            print('python train.py', *(f"'{a}'" if '[' in a else a for a in job.arguments))
        return
    gpus = torch.cuda.device_count() if base['device'] in ('auto', 'cuda') else 0
    count = at_once or gpus or min(2, cores())
    torch.set_num_threads(max(1, cores() // count))
    speed, parameters = measured(base)

    def seconds_of(job):  # with a few seconds to start and to evaluate
        return job.tokens / speed + 5

    def hours_of(job):
        return seconds_of(job) / count / 3600

    kept = fitting(jobs, hours_of, budget_hours or math.inf)
    left_out = [job for job in jobs if job not in kept]
    trunks = [job for job in kept if any(job.name == other.needs for other in kept)]
    checkpoints = len(kept) + len(trunks) * budgets * 3
    print_plan(kept, left_out, hours_of, folder, checkpoints * parameters * 4 / 1e9)
    if plan:
        return
    queue = Queue(folder, count, gpus)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        failed = queue.train(kept, seconds_of)
        for _ in range(ROUNDS):
            more = experiment.more_jobs(kept) if not failed and not budget_hours else []
            if more:
                print(f'the measure asks for {len(more)} more budgets')
                failed = queue.train(more, seconds_of)
                kept += more
    except KeyboardInterrupt:
        failed = {}
        print('\nstopping: the answer is of the finished runs; rerun to resume', file=sys.stderr)
    finally:
        queue.stop()
    answer(folder)
    if failed:
        raise ConfigError(f'{len(failed)} runs failed: {", ".join(failed)}; rerun to try again')


if __name__ == '__main__':
    own = {name.rstrip('_') for name in defaults_of(__file__)} | {'help'}
    mine = [a for a in sys.argv[1:] if a.partition('=')[0].lstrip('-').replace('-', '_') in own]
    files, sys.argv[1:] = [a for a in sys.argv[1:] if a not in mine], mine
    run(globals(), main)
