"""The paper's finding on a laptop: the smallest set of runs that shows it, then the law, the table and the report.

    python demo.py

Two runs at a time where there are two cores: small models do not use two cores well. Runs that are finished are not
trained again, so the command may be stopped and given again.
"""
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from configurator import ConfigError, run

steps = 600  # of the two multilingual runs and of the longest monolingual one
budgets = [0.1, 0.25, 0.5, 1.0]  # of the monolingual runs, shares of `steps`
ratios = [[0.5, 0.5], [0.9, 0.1]]  # p(language) of the runs on two clones
config = 'config/demo_clones.py'  # what the runs have in common

HERE = Path(__file__).resolve().parent


def training_runs():
    """{name of the run: (steps, arguments of train.py)}, the longest first."""
    runs = {}
    for ratio in ratios:
        runs['demo_' + '_'.join(f'{100 * p:.0f}' for p in ratio)] = steps, [f'--stages={[ratio]}']
    for share in sorted(budgets, reverse=True):
        short = round(share * steps)
        runs[f'demo_alone_{short}'] = short, ['--corpora=[docs]', '--languages=[en]', '--stages=[[1.0]]']
    return {name: (length, [config, *more, f'--max_steps={length}', f'--out_dir=out/{name}'])
            for name, (length, more) in runs.items()}


def python(script, *arguments, **options):
    """Runs a script of this folder; arguments that name a config file are looked up here, too."""
    found = [str(HERE / a) if a.endswith('.py') and not os.path.exists(a) else a for a in arguments]
    return subprocess.run([sys.executable, str(HERE / script), *found], **options)


def train_all(runs, at_once):
    """Trains the runs, `at_once` at a time, under one progress bar; raises ConfigError when one fails."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(max(1, (os.cpu_count() or 1) // at_once)))
    begun = []

    def train(name):
        begun.append(name)
        return name, python('train.py', *runs[name][1], env=environment, capture_output=True, text=True)

    with ThreadPoolExecutor(at_once) as pool, \
            tqdm(total=sum(length for length, _ in runs.values()), unit=' steps', dynamic_ncols=True) as progress:
        waiting = [pool.submit(train, name) for name in runs]
        while waiting:
            for future in [f for f in waiting if f.done()]:
                waiting.remove(future)
                name, done = future.result()
                if done.returncode:
                    for other in waiting:
                        other.cancel()
                    raise ConfigError(f'{name} failed: {done.stderr.strip().splitlines()[-1]}')
                progress.write(f'\n--- run {list(runs).index(name) + 1} of {len(runs)}: '
                               f'python train.py {" ".join(runs[name][1])}\n{done.stdout.strip()}')
            progress.n = sum(min(steps_done(name), runs[name][0]) for name in begun)
            now = [name for name in begun if not Path('out', name, 'results.json').exists()]
            progress.set_description(f'run {" and ".join(str(list(runs).index(n) + 1) for n in now) or len(begun)} '
                                     f'of {len(runs)}: {", ".join(now)}')
            time.sleep(0.5)


def steps_done(name):
    log = Path('out', name, 'log.jsonl')
    return sum(line.startswith('{"step"') and '"loss"' in line for line in log.open()) if log.exists() else 0


def main():
    if python('prepare.py', 'config/demo_data.py').returncode:
        raise ConfigError('the corpus could not be made, see above')
    train_all(training_runs(), at_once=2 if (os.cpu_count() or 1) > 1 else 1)
    for script in ('fit_scaling.py', 'report.py'):
        print(f'\n--- python {script}', flush=True)
        if python(script).returncode:
            raise ConfigError(f'{script} failed, see above')


if __name__ == '__main__':
    run(globals(), main)
