"""From a config to an answer: plans, trains and measures an experiment.

    python experiment.py config/clones_90_10.py --plan=True   # runs, hours, disk; trains nothing
    python experiment.py config/clones_90_10.py               # trains them and answers
    python experiment.py config/clones_90_10.py --ratios=[90_10,50_50] --budget_hours=8
    python experiment.py config/clones_90_10.py --print=True   # the train.py commands, one a line

For each ratio it trains the mixture and its replicates. For each target language it adds control
runs and a law, whose runs branch off one long run, the trunk. At the end it prints the table of
fit_scaling.py and writes the page of report.py. All of it is in out/NAME. Rerun a command to resume
it; after Ctrl-C it answers with what is finished. Arguments that are not below are those of
train.py; all runs have lr_schedule='wsd', so that the law is cheap.
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
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from lib.configurator import ConfigError, defaults_of, read_settings, require, run, run_name

import numpy as np
import torch
from tqdm import tqdm

import fit_scaling
import report
import sample
import train
from data import Corpus
from lib import machine, runs
from lib.commands import TRAIN, branch, fitting, job, law, low_resource, mix, print_plan, stages_of
from lib.log import Log
from lib.workers import cores, end_with_parent, interrupt_once

ratios = []  # of a series of mixtures, as [90_10,50_50]; empty: the stages of the config
asked = []  # target languages; empty: those with less than half of the tokens
seeds = 3  # replicates of each mixture and of its controls
rates = [1.0, 0.5]  # learning rates of the controls, times that of the mixture
epochs = [4]  # of re-reading controls, within the mixture's compute and longer than the warm-up
budgets = 10  # initial runs of a law; more are added where it is too uncertain
budget_hours = 0.0  # skip the least important runs beyond so many hours; 0: train all
at_once = 0  # runs at a time; 0: one for each GPU, or two on a CPU of several cores
out = ''  # folder of the experiment; empty: out/ and the names of the configs and overrides
plan = False  # print the plan and train nothing; its hours are for runs that share no GPU
print_ = False  # print the plain train.py commands, in an order that works, and train nothing

ROUNDS = 2  # of added budgets


# --- the runs and their plan ----------------------------------------------------------------------


class Experiment:
    """The mixtures of an experiment, and the runs that answer what one language does for another.

    base: settings of train.py; arguments: those that gave them."""

    def __init__(self, base, arguments, folder):
        self.base, self.folder = base, Path(folder)
        self.arguments, names = [*arguments, '--lr_schedule=wsd'], base['languages']
        stages = {ratio: stages_of(ratio, names) for ratio in ratios} or {'mix': base['stages']}
        self.shares = {r: dict(zip(names, np.mean(s, axis=0).tolist())) for r, s in stages.items()}
        rare = set().union(*map(low_resource, self.shares.values()))
        self.asked = list(asked) or [name for name in names if name in rare]
        mixed = [name for name in names if any(s[name] for s in self.shares.values())]
        require(set(self.asked) <= set(mixed), f'asked must be some of {mixed}, not {self.asked}')
        require(len(base['corpora']) == len(names), f'corpora must be one for each of {names}')
        valid = budgets > 2 and seeds > 0 == base['seed'] and min(at_once, budget_hours) >= 0
        text = 'budgets=3 or more, seeds=1 or more, seed=0, at_once and budget_hours 0 or more'
        require(valid, f'experiment.py needs {text}')
        positive = all(isinstance(n, (int, float)) and n > 0 for n in (*rates, *epochs))
        require(positive, f'rates and epochs must be above 0, not {rates} and {epochs}')
        require(len(base['orders']) in (0, len(names)), f'orders must be one for each of {names}')
        planned = ['alone', 'only', 'epochs', 'control_batch', 'out_dir']
        planned = [n for n in planned + ['init_from'] * (not base['train_only']) if base[n]]
        require(not planned, f'{", ".join(planned)}: an experiment plans this itself; see --out')
        scratch = ['--train_only=', '--init_from='] if base['train_only'] else []
        self.scratch = [*self.arguments, *scratch]  # of monolingual runs
        self.laws = {self.text(name): name for name in self.asked[::-1]}  # clones share one
        peak, end = base['learning_rate'], base['min_learning_rate']
        tuned, found = [(peak * times, end * times) for times in rates if times != 1], {}
        least = (1.1 * base['warmup_steps'] + 2) / base['max_steps']  # longer than the warm-up
        most = 1.02  # the mixture's compute
        for ratio, shares in self.shares.items():
            text = json.dumps(stages[ratio]).replace(' ', '')
            arguments = [*self.arguments, *([f'--stages={text}'] if ratios else [])]
            found |= mix(ratio, arguments, (), range(seeds))
            for name in (name for name in self.asked if 0 < shares[name] < 1):
                again = [n for n in epochs if least < n * shares[name] <= most]
                found |= mix(ratio, arguments, [name], range(seeds), tuned, again)
        for language in self.laws.values():
            how = self.lengths(language), self.folder, base['decay_fraction']
            found |= law(f'law_{language}', [*self.scratch, f'--alone={language}'], *how)
        jobs = [job(name, arguments, self.folder) for name, arguments in found.items()]
        self.jobs = sorted(jobs, key=lambda one: one.rank)

    def text(self, language):
        """What the law of a language is measured on: its corpus and order."""
        index, orders = self.base['languages'].index(language), self.base['orders']
        return self.base['corpora'][index], orders[index] if orders else ''

    def lengths(self, language):
        """Steps of the runs of a law: around the tokens of every mixture and control."""
        steps, warmup = self.base['max_steps'], self.base['warmup_steps']
        same = [name for name in self.asked if self.text(name) == self.text(language)]
        own = [steps * one[name] for one in self.shares.values() for name in same if one[name]]
        least = max(np.clip(2.5 * warmup, 0.5 * min(own), 0.9 * min(own)), 1.25 * warmup)
        most = max(min(steps, 5 * max(own)), 2 * least)
        return [round(length) for length in np.geomspace(least, most, budgets)]

    def more_jobs(self):
        """Branches at the budgets that the measure asks for and that are not there yet."""
        _, rows = fit_scaling.analyse(runs.load_runs(self.folder))
        known, found = {one.name for one in self.jobs}, {}
        rows = [row for row in rows if row['language'] in self.base['languages']]
        for text, language in self.laws.items():
            name, alone = f'law_{language}', [*self.scratch, f'--alone={language}']
            trunk = next(one.needs for one in self.jobs if one.needs.rpartition('_')[0] == name)
            for row in (row for row in rows if self.text(row['language']) == text):
                for tokens in row['add_budgets']:
                    length = round(tokens / self.base['batch_size'] / self.base['block_size'])
                    found[f'{name}_{length}'] = branch(alone, length, self.folder / trunk)
        more = [job(name, a, self.folder) for name, a in found.items() if name not in known]
        self.jobs += more
        return more


def measured(base):
    """(seconds of a step of the mixture, how many of them are there whatever its tokens, parameters
    of the model). Matrix products at half of the peak speed count as work on the tokens."""
    vars(train).update(base)
    times, processes = [], machine.Processes(base['device'])
    with tempfile.TemporaryDirectory() as scratch:
        training = train.Training(base, Path(scratch), processes)
        training.log = Log(base | dict(wandb_project=''), Path(scratch), processes, 0)
        for batch, drawn in training.batches():
            start = time.perf_counter()
            training.take_step(batch, drawn)
            machine.synchronize(processes.device)
            times.append(time.perf_counter() - start)  # the first compiles
            if sum(times[1:]) > 10 or len(times) == training.steps:
                break
    seconds = float(np.median(times[1:]))
    work = base['batch_size'] * base['block_size'] * training.config.flops_per_token()
    products = 2 * work / machine.measure_peak(processes.device, training.compute_dtype)
    return seconds, max(0.0, seconds - products), training.parameters


# --- training them --------------------------------------------------------------------------------


def start_worker(environment):
    os.environ.update(environment)
    tqdm.set_lock(threading.RLock())  # its own one between processes outlives a process that ends
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    torch._dynamo.config.recompile_limit = 64  # a worker trains models of many shapes
    end_with_parent()


def train_one(arguments):
    """Runs train.py in this process, its output in out_dir.log. Returns why it failed, or ''."""
    values, stems, overrides = read_settings(TRAIN, arguments)
    log = Path(f'{values["out_dir"]}.log')
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            vars(train).update(values)
            train.main(stems, overrides)
        except BaseException as error:  # SystemExit, too: the process takes the next run
            if not isinstance(error, (ConfigError, SystemExit)):
                traceback.print_exc()  # to the log
            return ' '.join(str(error).split())[:300] or type(error).__name__
    return ''


class Queue:
    """Workers: each trains one job at a time and compiles each shape of a model once."""

    def __init__(self, count, gpus=0):
        os.environ['OMP_NUM_THREADS'] = str(max(1, cores() // count))  # read on import of torch
        os.environ['RUNS_ON_DEVICE'] = str(-(-count // (gpus or 1)))  # which share its memory
        self.gpus, self.running = gpus, {}  # {future: (number of its process, job)}
        self.pools = [self.process(number) for number in range(count)]

    def process(self, number):
        visible = os.environ.get('CUDA_VISIBLE_DEVICES') or ','.join(map(str, range(self.gpus)))
        gpu = {'CUDA_VISIBLE_DEVICES': visible.split(',')[number % self.gpus]} if self.gpus else {}
        return ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), start_worker, (gpu,))

    def train(self, jobs, cost_of):
        """Trains the jobs that are not finished, and prints their perplexities. Returns {name:
        reason} of those that failed. cost_of: seconds of a job, about, for the progress bar."""
        jobs, failed = [one for one in jobs if not one.finished], {}
        waiting = list(jobs)
        with tqdm(total=round(sum(map(cost_of, jobs))), unit=' s') as progress:
            while waiting or self.running:
                self.assign(waiting)
                done, _ = wait(self.running, timeout=0.3, return_when='FIRST_COMPLETED')
                for future in done:
                    number, one = self.running.pop(future)
                    try:
                        reason = future.result()
                    except BrokenProcessPool:
                        reason, self.pools[number] = 'its process was killed', self.process(number)
                    if reason:
                        lost = [other for other in waiting if other.needs == one.name]
                        waiting = [other for other in waiting if other not in lost]
                        failed |= {other.name: reason for other in [one, *lost]}
                        reason = f'failed: {reason}'
                    progress.write(f'{one.name}: {reason or one.perplexities()}', file=sys.stderr)
                active = [one for _, one in self.running.values()]
                left = sum(cost_of(one) * (1 - one.share_done()) for one in active)
                left += sum(map(cost_of, waiting))
                progress.set_description(' and '.join(one.name for one in active), refresh=False)
                progress.update(round(progress.total - left) - progress.n)
        return failed

    def assign(self, waiting):
        """Gives idle processes the first jobs whose trunks are trained."""
        busy = {number for number, _ in self.running.values()}
        for number in set(range(len(self.pools))) - busy:
            before = {one.name for one in [*waiting, *(one for _, one in self.running.values())]}
            one = next((one for one in waiting if one.needs not in before), None)
            if one:
                waiting.remove(one)
                self.running[self.submit(number, train_one, one.arguments)] = number, one

    def submit(self, number, function, argument):
        """The future of function(argument) in a process; a new one inherits an ignored Ctrl-C."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        future = self.pools[number].submit(function, argument)
        signal.signal(signal.SIGINT, handler)
        return future

    def stop(self):
        """Lets the running jobs write a checkpoint, and ends the processes."""
        for process in multiprocessing.active_children() if self.running else ():
            process.terminate()
        for pool in self.pools:
            pool.shutdown(cancel_futures=True)


# --- the answer -----------------------------------------------------------------------------------


def write_samples(folder, names):
    """Two samples in each language that a mixture saw, for the report: folder/RUN/samples.txt. They
    continue the language's test text: without a prompt, all languages of an anchored vocabulary
    give the same text. A language in another order has none."""
    about = defaults_of(sample.__file__) | dict(num_samples=2, max_new_tokens=60)
    for name in (name for name in names if (folder / name / 'results.json').exists()):
        results = json.loads((folder / name / 'results.json').read_text())
        settings = runs.full_settings(results['settings'])
        order = dict(zip(settings['languages'], settings['orders']))
        with (folder / name / 'samples.txt').open('w') as file, contextlib.redirect_stdout(file):
            for language in (one for one in runs.trained(results) if not order.get(one)):
                corpus = Corpus(results['languages'][language]['corpus'], settings['data_dir'])
                first = corpus.test[: min(8, results['model']['block_size'] // 2)].tolist()
                text = corpus.load_tokenizer().decode(first).replace('\ufffd', '')  # half a letter
                vars(sample).update(about, out_dir=str(folder / name), language=language)
                sample.prompt = ' '.join(text.split())
                print(f'{language}, after "{sample.prompt}":')
                sample.main()


def carry_out(base, jobs, folder, mixtures=(), more_jobs=list):
    """Prints the plan of jobs (most important first) and their hours, trains them, and answers.

    base: settings of train.py whose speed is measured; mixtures: names of runs to sample from;
    more_jobs: called for further jobs after these. Raises ConfigError where some fail."""
    for one in jobs:
        reason = train_one(one.arguments) if one.finished else ''
        require(not reason, f'{reason} (--out=FOLDER)')  # the config has been edited
    gpus = torch.cuda.device_count() if base['device'] in ('auto', 'cuda') else 0
    one_device = base['device'] not in ('auto', 'cpu', 'cuda')
    count = at_once or gpus or (1 if one_device else min(2, cores()))
    queue, failed, stopped = Queue(count, gpus), {}, 0
    # not in this process: a GPU may admit one process alone
    seconds, overhead, parameters = queue.submit(0, measured, base).result()
    of_a_step = base['batch_size'] * base['block_size']

    def seconds_of(one):  # 5 to start and to evaluate
        work = one.tokens / of_a_step * (seconds - overhead)
        return (one.steps - one.first) * overhead + work + 5

    def hours_of(one):
        return seconds_of(one) / min(count, gpus or count) / 3600

    kept = fitting(jobs, hours_of, budget_hours or math.inf)
    print_plan(kept, [one for one in jobs if one not in kept], hours_of, parameters)
    if not any('-seed_' in one.name for one in kept) or budgets < 6:
        print('intervals need two seeds and six budgets, or a law that is a power law')
    if plan:
        queue.stop()
        return
    signal.signal(signal.SIGTERM, interrupt_once)
    try:
        failed = queue.train(kept, seconds_of)
        for _ in range(0 if failed or budget_hours else ROUNDS):
            more = more_jobs()
            if more:
                print(f'the measure asks for {len(more)} more budgets')
                failed |= queue.train(more, seconds_of)
    except KeyboardInterrupt:
        stopped = 130
        print('\nstopping: the answer is of the finished runs; rerun to resume', file=sys.stderr)
    finally:
        queue.stop()
    write_samples(folder, mixtures)
    laws, rows = fit_scaling.scale(folder)
    print('\n' + fit_scaling.table_text([row for row in rows if not row['monolingual']]))
    print(f'\nwrote {report.write(folder, laws, rows)}')
    print('\n'.join(report.findings(rows)))
    require(not failed, f'{len(failed)} runs failed: {", ".join(failed)}; rerun to try again')
    sys.exit(stopped)


def main():
    base, stems, overrides = read_settings(TRAIN, train_arguments)
    if ratios:  # instead of the stages of the config
        base['stages'] = stages_of(ratios[0], base['languages'])
    vars(train).update(base)
    train.check_settings()
    folder = Path(out or os.path.join('out', run_name(stems, overrides)))
    planned = Experiment(base, train_arguments, folder)
    if print_:
        for one in sorted(planned.jobs, key=lambda one: bool(one.needs)):  # trunks first
            print(shlex.join(['python', 'train.py', *one.arguments]))
    else:
        carry_out(base, planned.jobs, folder, planned.shares, planned.more_jobs)


if __name__ == '__main__':
    own = {name.rstrip('_') for name in defaults_of(__file__)} | {'help'}
    mine = [a for a in sys.argv[1:] if a.partition('=')[0].lstrip('-').replace('-', '_') in own]
    train_arguments, sys.argv[1:] = [a for a in sys.argv[1:] if a not in mine], mine
    run(globals(), main)
