"""What one language does for another, on a laptop: two clones at two ratios, each with its control.

    python demo.py     # or make demo

Trains EN1 and EN2 at 90/10 and at 50/50, EN2's sequences of each alone in as many steps (the
controls), and English alone at several lengths, which give the law; then prints the law, the table
of TEff and transfer, and writes the report, whose finding is the last line. The command may be
stopped and given again.
"""

import os
import subprocess
import sys

from lib.configurator import ConfigError, run

from jobs import HERE, Job, law, mix, train_all

steps = 1600  # of the two mixes and of the longest run of English alone
budgets = [0.06, 0.1, 0.14, 0.2, 0.35, 0.6, 1.0]  # lengths of English alone, shares of `steps`
rates = [2e-3]  # learning rates of more controls of the rare clone: the best one counts


def training_runs():
    """{run: Job}, in the order of training."""
    files, length = ('config/demo_clones.py',), f'--max_steps={steps}'
    alone = (*files, 'config/alone.py')
    lengths = [round(share * steps) for share in budgets]
    runs = law('out', 'demo_alone', *alone, lengths=lengths)
    runs |= mix('demo_90_10', files, [[0.9, 0.1]], length, rates=rates, seeds=(0, 1))
    runs |= mix('demo_50_50', files, [[0.5, 0.5]], length)
    jobs = {name: Job(os.path.join('out', name), arguments) for name, arguments in runs.items()}
    return dict(sorted(jobs.items(), key=lambda item: -item[1].cost))


def python(script, *arguments):
    return subprocess.run([sys.executable, str(HERE / script), *arguments]).returncode


def main():
    if python('prepare.py', str(HERE / 'config/demo_data.py')):
        raise ConfigError('the corpus could not be made, see above')
    train_all(training_runs())
    for script in ('fit_scaling.py', 'report.py'):
        print(f'\n--- python {script}', flush=True)
        if python(script):
            raise ConfigError(f'{script} failed, see above')


if __name__ == '__main__':
    run(globals(), main)
