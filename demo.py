"""The paper's finding on a laptop: the smallest set of runs that shows it, then the law, the table and the report.

    python demo.py

Runs that are finished are not trained again, so the command may be stopped and given again.
"""
import os
import subprocess
import sys

from tqdm import tqdm

from configurator import ConfigError, run

steps = 800  # of the two multilingual runs and of the longest monolingual one
budgets = [0.1, 0.25, 0.5, 1.0]  # of the monolingual runs, shares of `steps`
ratios = [[0.5, 0.5], [0.9, 0.1]]  # p(language) of the runs on two clones

CONFIG = 'config/demo_clones.py'


def commands():
    """{title: command} in the order in which they run; a command's first word is a script."""
    prepare = {'text to tokens': ['data.py', 'config/demo_data.py']}
    clones = {'two clones, ' + '/'.join(f'{100 * p:.0f}' for p in ratio): [
        'train.py', CONFIG, f'--max_steps={steps}', f'--stages={[ratio]}',
        '--out_dir=out/demo_' + '_'.join(f'{100 * p:.0f}' for p in ratio)] for ratio in ratios}
    alone = {f'one language alone, {round(share * steps)} steps': [
        'train.py', CONFIG, '--corpora=[docs]', '--languages=[en]', '--stages=[[1.0]]',
        f'--max_steps={round(share * steps)}', f'--out_dir=out/demo_mono_{round(share * steps)}'] for share in budgets}
    return {**prepare, **clones, **alone, 'laws and token equivalence': ['fit_scaling.py'], 'report': ['report.py']}


def main():
    todo = commands()
    with tqdm(total=len(todo), desc='demo', bar_format='{desc}: {n_fmt} of {total_fmt} done, {elapsed}', leave=False,
              position=1) as progress:
        for title, command in todo.items():
            tqdm.write(f'\n=== {progress.n + 1} of {len(todo)}: {title}\n    python {" ".join(command)}')
            here = os.path.dirname(os.path.abspath(__file__))
            status = subprocess.run([sys.executable, os.path.join(here, command[0]),
                                     *(os.path.join(here, a) if a.startswith('config/') else a for a in command[1:])])
            if status.returncode:
                raise ConfigError(f'{command[0]} failed, see above; the same command goes on from there')
            progress.update(1)


if __name__ == '__main__':
    run(globals(), main)
