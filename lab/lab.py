"""The runs of FINDINGS.md: trains what results/lab does not have yet, two runs at a time.

    python lab.py                     # or make lab; the same command again goes on
    python lab.py --plan=True         # the runs, which are finished, how long the rest will take
    python lab.py --groups=[balance]  # some groups of runs only

Runs train in out/lab/RUN. A finished one leaves its results.json, a few kilobytes, in
results/lab/RUN, which is what makes it finished; results/lab.csv has a line for each language of
each run, with TEff, that of the control and the transfer. The groups come in the order of their
worth, so that the first night buys the first answers. To repeat all of it, move results/lab away.
"""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

from lib.configurator import ConfigError, run

import numpy as np
from jobs import HERE, Job, cores, law, mix, train_all
from matplotlib import pyplot as plt

from figures import DPI, GREY, OTHERS, STYLE
from fit_scaling import analyse, draw_figure5
from lib.machine import measure_peak, pick_device, pick_dtype
from lib.paper import load_paper_runs
from lib.runs import load_runs
from train import FREE

groups = []  # train these groups of runs only, see --plan=True; empty: all
plan = False  # print the runs and how long they will take, and train nothing
source_en = 'eltec:eng'  # where prepare.py finds English novels; or a folder of text files
source_fr = 'eltec:fra'  # the French ones

RESULTS, OUT = Path('results/lab'), Path('out/lab')
LAB = ('config/lab.py',)
WIDTHS = {width: (*LAB, f'config/width_{width}.py') for width in (64, 128)}
EN = ('--corpora=[novels_en]', '--languages=[en]', '--stages=[[1.0]]')
FR = ('--corpora=[novels_fr]', '--languages=[fr]', '--stages=[[1.0]]')
PAIR = ('--corpora=[novels_en,novels_fr]', '--languages=[en,fr]')
ANCHORED, ALIGNED = '--vocabulary=anchored', '--start_entries=clones'
KEPT = '--keep_checkpoints=[100,250,500,1000,1500]'  # for studies over training
TEN = (f'--corpora={["novels_en"] * 10}', f'--languages={[f"en{i}" for i in range(1, 11)]}')
LENGTHS = (100, 150, 200, 300, 500, 650, 800, 1000, 1200, 2000, 2800, 4000)  # steps, of a law
SHORTER = (100, 150, 200, 300, 500, 800, 1200)
LONGER = (150, 300, 600, 1000, 1800, 3000)  # the same where the base run has 3,000
RATES = dict(narrow=1e-2, deep=2e-3)  # of more controls
SEEDS = dict(narrow=(0, 1), deep=(0, 1, 2))
SLOWER = (5e-4,)  # one more, of controls of a language with a tenth of the tokens or less


# --- the table of runs ----------------------------------------------------------------------------


def table():
    """{group: {run: arguments of train.py}}; a run's seeds and controls are runs of their own."""
    even, skewed, turned = [0.5, 0.5], [0.9, 0.1], [0.1, 0.9]
    groups = {'law': law(OUT, 'en', *LAB, *EN, lengths=LENGTHS)}

    def add(group, name, stages, *arguments, files=LAB, **options):
        groups.setdefault(group, {}).update(mix(name, files, stages, *arguments, **options))

    # takeaways 1 and 2
    add('balance', 'clones_90_10', [skewed], KEPT, seeds=(0, 1, 2), rates=(5e-4, 2e-3))
    add('balance', 'clones_50_50', [even], KEPT, seeds=(0, 1, 2))
    for rate in (5e-4, 2e-3):  # of more controls, of the first seed
        peak = (f'--learning_rate={rate:g}', f'--min_learning_rate={rate / 100:g}', '--only=en2')
        add('tuned', f'clones_50_50-only_en2-rate_{rate:g}', [even], KEPT, *peak, controls=())
    # controls of the measure: pieces in common and entries that start alike must show transfer
    add('measure', 'shared_pieces_90_10', [skewed], '--cloned_fraction=0.5', controls=())
    add('measure', 'aligned_90_10', [skewed], KEPT, ALIGNED, controls=())
    # another trunk: how much of a law is chance
    groups['law_again'] = law(OUT, 'en-seed_1', *LAB, *EN, '--seed=1', lengths=LENGTHS[:-2])
    # four layers and three times the tokens, narrow and wide
    for name in ('narrow', 'deep'):
        files = (*LAB, f'config/{name}.py')
        groups[name] = law(OUT, f'{name}_en', *files, *EN, lengths=LONGER)
        options = dict(files=files, seeds=SEEDS[name], rates=(RATES[name],))
        add(name, f'{name}_90_10', [skewed], KEPT, **options)
        add(name, f'{name}_aligned_90_10', [skewed], KEPT, ALIGNED, files=files, controls=())
    # where transfer begins: width, and tokens
    for width, files in WIDTHS.items():
        groups.setdefault(f'width_{width}', {}).update(
            law(OUT, f'width_{width}_en', *files, *EN, lengths=LENGTHS)
        )
        add(
            f'width_{width}',
            f'width_{width}_90_10',
            [skewed],
            files=files,
            seeds=(0, 1),
            rates=(1e-2,),
        )
        add(f'width_{width}', f'width_{width}_50_50', [even], files=files)
    aligned = 'width_64_aligned_90_10'
    add('width_64', aligned, [skewed], KEPT, ALIGNED, files=WIDTHS[64], controls=(), seeds=(0, 1))
    for share in (5, 20, 30):
        stages = [[1 - share / 100, share / 100]]
        name = f'clones_{100 - share}_{share}'
        add('ratio', name, stages, rates=(5e-4, 2e-3))
        add('steps', f'width_64_{100 - share}_{share}', stages, files=WIDTHS[64], rates=(1e-2,))
    # how languages differ: from clone to foreign language by order and by vocabulary
    for order in ('reversed', 'shuffled_2', 'shuffled_8'):
        only = (*EN, f"--orders=['{order}']")
        both = f"--orders=['','{order}']"
        add('differ', f'{order}_90_10', [skewed], both, rates=SLOWER)
        more = mix(f'{order}_90_10', LAB, [skewed], both, seeds=(1, 2), rates=SLOWER)
        groups['differ'] |= {name: more[name] for name in more if '-only_' in name}  # for the noise
        groups['differ'] |= law(OUT, f'{order}_en', *LAB, *only, lengths=SHORTER)
    # a frequent language that teaches no use of context, or another one
    for order in ('reversed', 'shuffled_8', 'shuffled_16'):
        both = f"--orders=['{order}','']"
        add('neighbour', f'beside_{order}_90_10', [skewed], both, controls=())
    for pieces, fraction in (('half', 0.5), ('all', 0.0)):
        shared = f'--cloned_fraction={fraction}'
        if pieces == 'all':
            add('differ', 'shared_all_90_10', [skewed], shared, controls=())
        for order in ('reversed', 'shuffled_8'):
            name, both = f'shared_{pieces}_{order}_90_10', f"--orders=['','{order}']"
            add('axes', name, [skewed], shared, both, controls=())
    # takeaway 6
    groups['french'] = law(OUT, 'fr', *LAB, *FR, lengths=LENGTHS[:-2])
    controls = {'50_50': ('en', 'fr'), '90_10': ('fr',), '10_90': ('en',)}
    for ratio, stages in (('90_10', skewed), ('50_50', even), ('10_90', turned)):
        options = dict(controls=controls[ratio], seeds=(0, 1, 2) if ratio == '90_10' else (0,))
        options |= dict(rates=() if ratio == '50_50' else SLOWER)
        add('french', f'fr_anchored_{ratio}', [stages], *PAIR, ANCHORED, **options)
        add('french', f'fr_disjoint_{ratio}', [stages], *PAIR, controls=())
    # takeaways 5 and 8
    add('schedules', 'clones_90_10_then_10_90', [skewed, turned], controls=('en1', 'en2'))
    add('schedules', 'clones_100_0_then_0_100', [[1.0, 0.0], [0.0, 1.0]])
    name = 'fr_anchored_90_10_then_10_90'
    add('schedules', name, [skewed, turned], *PAIR, ANCHORED, controls=('en', 'fr'))
    name = 'fr_anchored_90_10_10_90_then_50_50'
    stages = [skewed, turned, even, even]
    add('schedules', name, stages, *PAIR, ANCHORED, controls=('en', 'fr'))
    # takeaway 3
    add('ten', 'clones10_balanced', [[0.1] * 10], *TEN, rates=SLOWER)
    add('ten', 'clones10_main_50', [[0.5] + [0.5 / 9] * 9], *TEN, rates=SLOWER)
    # takeaways 4 and 7
    for ratio, stages in (('90_10', [skewed]), ('50_50', [even])):
        name, more = f'fr_anchored_{ratio}_twice', (*PAIR, ANCHORED, '--max_steps=4000')
        rates = () if ratio == '50_50' else SLOWER
        add('data', name, stages, *more, controls=('fr',), rates=rates)
    # by tokens
    for name, steps in (('half', 1000), ('twice', 4000)):
        for ratio, stages in (('90_10', [skewed]), ('50_50', [even])):
            rates = () if ratio == '50_50' else SLOWER
            add('tokens', f'clones_{ratio}_{name}', stages, f'--max_steps={steps}', rates=rates)
    groups['deep'] = groups.pop('deep')  # the dearest comes last
    return groups


# --- what is finished, how long the rest takes, what came out -------------------------------------


def finished(name):
    return (RESULTS / name / 'results.json').exists()


def keep(name):
    """Copies what a finished run says of itself to results/lab."""
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(OUT / name / 'results.json', RESULTS / name / 'results.json')


def flops_per_second(jobs):
    """Speed of the queue: that of the finished runs, or before there are any a third of the peak,
    since products are small and evaluation and compiling cost time, too."""
    done = {name: job for name, job in jobs.items() if finished(name)}
    if done:
        results = [json.loads((RESULTS / name / 'results.json').read_text()) for name in done]
        seconds = sum(result['wall_time_s'] for result in results)
        return min(2, cores()) * sum(job.cost for job in done.values()) / seconds
    device = pick_device()
    return measure_peak(device, pick_dtype('auto', device)) / 3


def print_plan(chosen, jobs):
    """Prints the runs of the chosen groups; `jobs` are those of all groups, for the speed."""
    speed = flops_per_second(jobs)
    print(f'{"group":<12}{"runs":>6}{"finished":>10}{"hours left":>12}')
    for group, runs in chosen.items():
        done = [name for name in runs if finished(name)]
        left = sum(jobs[name].cost for name in runs if name not in done)
        print(f'{group:<12}{len(runs):>6}{len(done):>10}{left / speed / 3600:>12.1f}')
    names = {name for runs in chosen.values() for name in runs}
    left = [jobs[name].cost for name in names if not finished(name)]
    print(f'{len(names)} runs, {len(left)} to train, about {sum(left) / speed / 3600:.1f} hours')


def summarise():
    """Writes results/lab.csv, a line for each language of each run, and the pictures."""
    runs = load_runs(RESULTS)
    if not runs:
        return
    base = Job(OUT / 'none', LAB).settings
    by_name = {member['run']: member for member in runs}
    lines = []
    laws, rows = analyse(runs)
    for row in rows:
        member = by_name[row['run']]
        differing = [
            f'{name}={value}'
            for name, value in member['settings'].items()
            if name not in FREE and name in base and value != base[name]
        ]
        line = dict(run=row['run'], language=row['language'], settings=' '.join(differing))
        for key in ('seeds', 'tokens_seen', 'ppl', 'control', 'control_ppl'):
            line[key] = row[key]
        for key in ('teff', 'control_teff', 'transfer'):
            line[key] = row[key]
            line[f'{key}_low'], line[f'{key}_high'] = row[f'{key}_interval'] or ('', '')
        line |= dict(hours=round(member['wall_time_s'] / 3600, 3), machine=member['device'])
        lines.append(line | dict(dtype=member['dtype']))
    with open(RESULTS.parent / 'lab.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        for line in lines:
            writer.writerow({k: f'{v:.5g}' if isinstance(v, float) else v for k, v in line.items()})
    draw({(row['run'], row['language']): row for row in rows}, RESULTS.parent)
    drawn = draw_figure5(laws, RESULTS.parent / 'lab_laws.png')
    print(f'wrote {RESULTS.parent}/lab.csv, lab_teff.png, lab_axes.png' + ', lab_laws.png' * drawn)


TOLD = {  # (run, language): what the picture of transfer calls it
    ('clones_50_50', 'en2'): 'clones 50/50',
    ('clones_70_30', 'en2'): 'clones 70/30',
    ('clones_80_20', 'en2'): 'clones 80/20',
    ('clones_90_10', 'en2'): 'clones 90/10',
    ('clones_95_5', 'en2'): 'clones 95/5',
    ('fr_disjoint_50_50', 'fr'): 'French 50% beside English, disjoint',
    ('fr_disjoint_90_10', 'fr'): 'French 10% beside English, disjoint',
    ('fr_anchored_90_10', 'fr'): 'French 10% beside English, anchored',
    ('fr_disjoint_10_90', 'en'): 'English 10% beside French, disjoint',
    ('reversed_90_10', 'en2'): 'reversed English 10%',
    ('shuffled_8_90_10', 'en2'): 'English shuffled in eights 10%',
    ('beside_reversed_90_10', 'en2'): 'English 10% beside reversed English',
    ('beside_shuffled_8_90_10', 'en2'): 'English 10% beside shuffled in eights',
    ('beside_shuffled_16_90_10', 'en2'): 'English 10% beside shuffled in sixteens',
    ('clones10_balanced', 'en2'): 'one of ten clones, 10% each',
    ('clones10_main_50', 'en2'): 'one of nine clones beside a main one',
    ('clones_90_10_then_10_90', 'en2'): '90/10, then 10/90: second clone',
    ('clones_90_10_then_10_90', 'en1'): '90/10, then 10/90: first clone',
    ('clones_90_10_half', 'en2'): 'clones 90/10, half of the tokens',
    ('clones_90_10_twice', 'en2'): 'clones 90/10, twice the tokens',
    ('width_64_50_50', 'en2'): 'width 64: clones 50/50',
    ('width_64_90_10', 'en2'): 'width 64: clones 90/10',
    ('width_128_50_50', 'en2'): 'width 128: clones 50/50',
    ('width_128_90_10', 'en2'): 'width 128: clones 90/10',
    ('narrow_90_10', 'en2'): 'width 64, four layers, 12M tokens: 90/10',
    ('deep_90_10', 'en2'): 'width 256, four layers, 12M tokens: 90/10',
    ('aligned_90_10', 'en2'): 'clones 90/10, entries start alike',
    ('shared_pieces_90_10', 'en2'): 'clones 90/10, half of the pieces in common',
    ('shared_all_90_10', 'en2'): 'clones 90/10, all pieces in common',
}


AXES = {  # (order, share of the pieces in common): the run at 90/10
    ('the same', 0): 'clones_90_10',
    ('the same', 50): 'shared_pieces_90_10',
    ('the same', 100): 'shared_all_90_10',
    ('shuffled in pairs', 0): 'shuffled_2_90_10',
    ('shuffled in eights', 0): 'shuffled_8_90_10',
    ('shuffled in eights', 50): 'shared_half_shuffled_8_90_10',
    ('shuffled in eights', 100): 'shared_all_shuffled_8_90_10',
    ('reversed', 0): 'reversed_90_10',
    ('reversed', 50): 'shared_half_reversed_90_10',
    ('reversed', 100): 'shared_all_reversed_90_10',
}


def draw(rows, folder):
    """lab_teff.png: TEff by share beside its control and the paper's, and every transfer;
    lab_axes.png: transfer by order and vocabulary. rows: {(run, language): row of analyse}."""
    told = {key: label for key, label in TOLD.items() if rows.get(key, {}).get('transfer')}
    with plt.rc_context(STYLE):
        size = (10, max(4, 0.26 * len(told) + 1.2))
        figure, (left, right) = plt.subplots(1, 2, figsize=size, layout='constrained')
        draw_shares(left, rows)
        draw_transfers(right, [(rows[key], label) for key, label in told.items()])
        figure.savefig(folder / 'lab_teff.png', dpi=DPI)
        plt.close(figure)
        figure, axes = plt.subplots(figsize=(5, 3.2), layout='constrained')
        draw_axes(axes, rows)
        figure.savefig(folder / 'lab_axes.png', dpi=DPI)
        plt.close(figure)


def draw_shares(axes, rows):
    """TEff of the second language by its share of the tokens, in the mix and alone."""
    shares = (5, 10, 20, 30, 50)
    for width, what, label, color, mark in (
        ('', 'teff', 'EN2 beside EN1', OTHERS[1], 'o-'),
        ('', 'control_teff', 'EN2 alone in as many steps', OTHERS[0], 's-'),
        ('width_64_', 'teff', 'width 64: EN2 beside EN1', OTHERS[4], 'o--'),
        ('width_64_', 'control_teff', 'width 64: EN2 alone', OTHERS[5], 's--'),
    ):
        prefix = width or 'clones_'
        found = [(rows.get((f'{prefix}{100 - s}_{s}', 'en2'), {}), s) for s in shares]
        found = [(row, share) for row, share in found if row.get(what)]
        y = np.array([row[what] for row, _ in found])
        ends = np.array([row[f'{what}_interval'] or (row[what],) * 2 for row, _ in found])
        bars = abs(ends.reshape(-1, 2).T - y)
        x = [share for _, share in found]
        axes.errorbar(x, y, bars, fmt=mark, color=color, capsize=3, ms=5, label=label)
    published = {'two clones': {}, 'ten clones': {}}
    for theirs in load_paper_runs():
        if (
            set(theirs['kinds']) == {'en'}
            and len(theirs['stages']) == 1
            and theirs['steps'] == 18265
        ):
            kind = {2: 'two clones', 10: 'ten clones'}.get(len(theirs['kinds']), '')
            if kind:
                published[kind][100 * theirs['stages'][0][1]] = theirs['languages'][1]['teff']
    for (kind, points), mark in zip(published.items(), ('D:', '*')):
        x = sorted(points)
        label = f'EN2 in the paper, {kind} (85M parameters)'
        axes.plot(x, [points[share] for share in x], mark, color=GREY, mfc='none', label=label)
    axes.axhline(1, color=GREY, lw=1)
    axes.set(xscale='log', yscale='log', xlabel='share of EN2 in the tokens (%)')
    axes.set(ylabel='token efficiency TEff', title='TEff: the other language, or more steps?')
    axes.set_xticks([5, 10, 20, 30, 50], ['5', '10', '20', '30', '50'])
    axes.set_yticks([0.8, 1, 1.5, 2, 3, 4], ['0.8', '1', '1.5', '2', '3', '4'])
    axes.minorticks_off()
    axes.figure.legend(loc='outside lower center', ncols=3)


def draw_transfers(axes, told):
    """A bar for each (row, label) from above downwards."""
    for place, (row, _) in enumerate(told):
        low, high = row['transfer_interval'] or (row['transfer'],) * 2
        axes.plot([low, min(high, 1e3)], [-place, -place], color=OTHERS[1])
        axes.plot(row['transfer'], -place, 'o', color=OTHERS[1])
    axes.axvline(1, color=GREY, lw=1)
    axes.set_yticks([-place for place in range(len(told))], [label for _, label in told])
    axes.set(xscale='log', xlabel='transfer: 1 where the other language did nothing')
    axes.set_title('Transfer to the second language, 90% intervals')
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set_xticks([0.8, 1, 1.5, 2, 3, 5, 8])
    axes.minorticks_off()


def draw_axes(axes, rows):
    """Transfer at 90/10, from clone to foreign language by order and by vocabulary."""
    orders, shares = (list(dict.fromkeys(values)) for values in zip(*AXES))
    grid = np.full((len(orders), len(shares)), np.nan)
    for (order, share), name in AXES.items():
        row = rows.get((name, 'en2'), {})
        if row.get('transfer'):
            place = orders.index(order), shares.index(share)
            grid[place] = np.log(row['transfer'])
            text = f'{row["transfer"]:.2f}'
            if row['transfer_interval']:
                text += '\n[{:.2f}, {:.2f}]'.format(*row['transfer_interval'])
            axes.text(*place[::-1], text, ha='center', va='center', fontsize=8)
    axes.imshow(grid, cmap='RdYlBu_r', vmin=-np.log(20), vmax=np.log(20), aspect='auto')
    axes.grid(False)
    axes.set_yticks(range(len(orders)), orders)
    axes.set_xticks(range(len(shares)), [f'{share}%' for share in shares])
    axes.set(xlabel='pieces in common', ylabel="order of EN2's text")
    axes.set_title('Transfer to EN2 at 90/10')


def make_corpora():
    for corpus, source in (('novels_en', source_en), ('novels_fr', source_fr)):
        if not Path('data', corpus).exists():
            how = [f'--corpus={corpus}', f'--source={source}', '--vocab_size=512']
            command = [sys.executable, str(HERE / 'prepare.py'), *how, '--test_fraction=0.1']
            if subprocess.run(command).returncode:
                raise ConfigError('the corpus could not be made, see above')


def main():
    every = table()
    if not set(groups) <= set(every):
        raise ConfigError(f'groups must be some of {", ".join(every)}, not {groups}')
    chosen = {group: runs for group, runs in every.items() if group in (groups or every)}
    jobs = {name: Job(OUT / name, of) for runs in every.values() for name, of in runs.items()}
    print_plan(chosen, jobs)
    if plan:
        return
    make_corpora()
    names = (name for runs in chosen.values() for name in runs)
    missing = {name: jobs[name] for name in names if not finished(name)}
    try:
        train_all(missing, when_finished=keep)
    finally:
        summarise()


if __name__ == '__main__':
    run(globals(), main)
