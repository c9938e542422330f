"""The runs of FINDINGS.md: trains what results/lab does not have yet, two runs at a time.

    python -m lab.lab                     # or make lab; rerun to resume
    python -m lab.lab --plan=True         # the runs, and which are finished; trains nothing
    python -m lab.lab --groups=[balance]  # some groups of runs

Runs train in out/lab/RUN. Of a finished one results.json, a few kilobytes, is copied to
results/lab/RUN, and its presence marks the run as finished. results/lab.csv has a row for each
language of each run (results/README.md explains its columns). The most important groups come first.
To repeat all of it, move results/lab away.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from lib.configurator import read_settings, require, run

import experiment
import fit_scaling
from lab import charts
from lib import commands, runs

groups = []  # train these groups of runs only, see --plan=True; empty: all
plan = False  # print the runs, and train nothing
source_en = 'eltec:eng'  # where prepare.py finds English novels; or a folder of text files
source_fr = 'eltec:fra'  # the French ones

HERE = Path(__file__).resolve().parent.parent
RESULTS, OUT = Path('results/lab'), Path('out/lab')
LAB = ('config/lab.py',)
WIDTHS = {width: (*LAB, f'config/width_{width}.py') for width in (64, 128)}
EN = ('--corpora=[novels_en]', '--languages=[en]', '--stages=[[1.0]]')
FR = ('--corpora=[novels_fr]', '--languages=[fr]', '--stages=[[1.0]]')
PAIR = ('--corpora=[novels_en,novels_fr]', '--languages=[en,fr]')
ANCHORED, ALIGNED = '--vocabulary=anchored', '--init_embeddings=spelling'
KEPT = '--keep_checkpoints=[100,250,500,1000,1500]'  # for studies over training
TEN = (f'--corpora={["novels_en"] * 10}', f'--languages={[f"en{i}" for i in range(1, 11)]}')
# steps of the runs of a law
LENGTHS = (100, 150, 200, 300, 500, 650, 800, 1000, 1200, 2000, 2800, 4000)
WITHIN = (250, 350, 400, 450, 550, 600, 720, 900)  # further ones, within the transition
SHORTER, LONGER = (100, 150, 200, 300, 500, 800, 1200), (150, 300, 600, 1000, 1800, 3000)
DENSE = (200, 300, 400, 500, 600, 700, 900)
PAST_FROM = 1_330_000  # tokens from which the lab's model follows a power law
PAST = (800, 1200, 1600, 2250, 3100, 4250, 5900, 8050, 13000)  # past the phase transition
FLOAT32 = ('--dtype=float32', '--eval_interval=500', '--checkpoint_interval=500')
FAR = (*FLOAT32, '--max_steps=13000', '--keep_checkpoints=[500,1000,2000,4000,8000]')
EIGHT = (*FLOAT32, '--batch_size=8', '--max_steps=52000')  # the same tokens in batches of eight
EVEN, HIGH, LOW = [0.5, 0.5], [0.9, 0.1], [0.1, 0.9]


# --- the table of runs ----------------------------------------------------------------------------


def rated(rate):
    return commands.rate_arguments(rate, rate / 100)


def sized(layers, width, rate):
    """Arguments of a model of a size, in bfloat16."""
    shape = dict(n_layer=layers, n_embd=width, n_head=width // 32, mlp_dim=4 * width)
    return *(f'--{k}={v}' for k, v in shape.items()), '--dtype=bfloat16', *rated(rate)


def order(of_en2, of_en1=''):
    return f"--orders=['{of_en1}','{of_en2}']"


def table():
    """{group: {run: arguments of train.py}}; a run's seeds and controls are runs of their own."""
    found = {}

    def mix(name, stages, *more, files=LAB, controls=('en2',), rates=(), **options):
        arguments = [*files, f'--stages={json.dumps(stages)}', *more]
        rates = [(rate, rate / 100) for rate in rates]
        return commands.mix(name, arguments, controls, rates=rates, **options)

    def add(group, *parts, **options):
        found.setdefault(group, {}).update(mix(*parts, **options))

    def add_law(group, name, *arguments, lengths):
        members = commands.law(name, arguments, lengths, OUT)
        found.setdefault(group, {}).update(members)

    def add_once(group, name, stages, rates, *arguments, language='en2', seeds=(0, 1, 2)):
        """Controls that read once in batches of eight, at further rates."""
        once = f'--only={language}', '--epochs=1', '--control_batch=8'
        for rate in rates:
            run = f'{name}-only_{language}-batch_8-rate_{rate:g}'
            add(group, run, stages, *arguments, *once, *rated(rate), controls=(), seeds=seeds)

    add_law('law', 'en', *LAB, *EN, lengths=LENGTHS + WITHIN)
    both, half, slow = (5e-4, 2e-3), (5e-4,), dict(rates=(5e-4,))
    # past the phase transition, and before it in the same number format
    add_law('past', 'past_en', *LAB, *FLOAT32, *EN, lengths=PAST)
    tuned = dict(rates=both, again=(4, 10), batches=(8, 32))
    add('past', 'past_90_10', [HIGH], *FAR, seeds=(0, 1, 2), **tuned)
    add('past', 'past_50_50', [EVEN], *FAR, seeds=(0, 1, 2), rates=half)
    add_law('past', 'past_en-seed_1', *LAB, *FLOAT32, *EN, '--seed=1', lengths=PAST)
    for rate in both:
        add('past', f'past_90_10-rate_{rate:g}', [HIGH], *FAR, *rated(rate), controls=())
    lengths = (3200, 4800, 6400, 9000, 12400, 17000, 23600)
    add_law('past_8', 'batch_8_en', *LAB, *FLOAT32, *EN, '--batch_size=8', lengths=lengths)
    add('past_8', 'batch_8_90_10', [HIGH], *EIGHT, controls=(), seeds=(0, 1, 2))
    add('past_8', 'batch_8_90_10-rate_0.0005', [HIGH], *EIGHT, *rated(5e-4), controls=())
    once = 'batch_8_90_10-only_en2-x1', [HIGH], *EIGHT, '--only=en2', '--epochs=1'
    add('past_8', *once, controls=(), seeds=(0, 1, 2))
    add_once('past_8', 'past_90_10', [HIGH], (2.5e-4, 5e-4, 2e-3), *FAR)
    add_once('past_8', 'past_50_50', [EVEN], (5e-4,), *FAR, seeds=(0,))
    # larger models: {name: (layers, width, rate)}
    sizes = dict(past_deep=(4, 256, 1e-3), past_wide=(2, 512, 7e-4), large=(4, 512, 7e-4))
    lengths = (700, 900, 1150, 1450, 1850, 2400, 3100, 4000, 6500)
    for name, (layers, width, rate) in sizes.items():
        model = sized(layers, width, rate)
        add_law('past_large', f'{name}_en', *LAB, *EN, *model, lengths=lengths)
        model = *model, '--max_steps=13000'
        tuned = dict(seeds=(0, 1, 2), again=(4,), batches=(8,))
        add('past_large', f'{name}_90_10', [HIGH], *model, **tuned)
        add_once('past_large', f'{name}_90_10', [HIGH], (0.7 * rate, rate / 2, rate / 4), *model)
        for other in (rate / 2, 0.7 * rate, rate * 2):
            tried = f'{name}_90_10-rate_{other:g}', [HIGH], *model, *rated(other)
            add('past_large', *tried, controls=())
        add('past_large', f'{name}_50_50', [EVEN], *model, seeds=(0, 1, 2))
        add_once('past_large', f'{name}_50_50', [EVEN], (rate / 2,), *model, seeds=(0,))
    large = sized(*sizes['large'])
    eight = *large, *rated(3.5e-4), '--batch_size=8', '--max_steps=52000'
    add('past_large', 'batch_8_large_90_10-rate_0.00035', [HIGH], *eight, controls=())
    for rate, steps in ((1.4e-3, 1300), (3.5e-4, 900)):  # of monolingual runs
        tried = *large, *rated(rate), f'--max_steps={steps}'
        add('past_large', f'large_en-rate_{rate:g}_{steps}', [[1.0]], *EN, *tried, controls=())
    # other ratios, languages and neighbours past the transition
    tuned = dict(seeds=(0, 1, 2), rates=both, again=(4,), batches=(8,))
    add('past_ratio', 'past_80_20', [[0.8, 0.2]], *FAR, **tuned)
    add_once('past_ratio', 'past_80_20', [[0.8, 0.2]], (5e-4,), *FAR)
    add_law('past_french', 'past_fr', *LAB, *FLOAT32, *FR, lengths=PAST[:7])
    add('past_french', 'past_fr_disjoint_90_10', [HIGH], *FAR, *PAIR, controls=('fr',), **tuned)
    french = *FAR, *PAIR
    add_once('past_french', 'past_fr_disjoint_90_10', [HIGH], both, *french, language='fr')
    for kind in ('scrambled_2', 'scrambled_16'):
        beside = f'past_beside_{kind}_90_10', [HIGH], *FAR, order('', kind)
        add('past_order', *beside, controls=(), seeds=(0, 1))
    add_law('before', 'f32_en', *LAB, *FLOAT32, *EN, lengths=DENSE)
    tuned = dict(rates=half, again=(4, 10), batches=(8,))
    add('before', 'f32_clones_90_10', [HIGH], *FLOAT32, seeds=(0, 1, 2), **tuned)
    # takeaways 1 and 2
    add('balance', 'clones_90_10', [HIGH], KEPT, seeds=(0, 1, 2), rates=both)
    add('balance', 'clones_50_50', [EVEN], KEPT, seeds=(0, 1, 2))
    for rate in both:  # of further controls, of the first seed
        name, only = f'clones_50_50-only_en2-rate_{rate:g}', (*rated(rate), '--only=en2')
        add('tuned', name, [EVEN], KEPT, *only, controls=())
    # controls of the measure: shared tokens and embeddings that start the same must show transfer
    add('measure', 'shared_pieces_90_10', [HIGH], '--cloned_fraction=0.5', controls=())
    add('measure', 'aligned_90_10', [HIGH], KEPT, ALIGNED, controls=())
    # another trunk: how much of a law is chance
    add_law('law_again', 'en-seed_1', *LAB, *EN, '--seed=1', lengths=LENGTHS[:-2])
    # four layers and three times the tokens, narrow and wide
    for name, rate, count in (('narrow', 1e-2, 2), ('deep', 2e-3, 3)):
        files = (*LAB, f'config/{name}.py')
        add_law(name, f'{name}_en', *files, *EN, lengths=LONGER)
        options = dict(files=files, seeds=range(count), rates=(rate,))
        add(name, f'{name}_90_10', [HIGH], KEPT, **options)
        add(name, f'{name}_aligned_90_10', [HIGH], KEPT, ALIGNED, files=files, controls=())
    # where transfer begins: width, and tokens
    for width, files in WIDTHS.items():
        group, wide = f'width_{width}', dict(files=files)
        add_law(group, f'{group}_en', *files, *EN, lengths=LENGTHS)
        add(group, f'{group}_90_10', [HIGH], **wide, seeds=(0, 1), rates=(1e-2,))
        add(group, f'{group}_50_50', [EVEN], **wide)
    aligned = dict(files=WIDTHS[64], controls=(), seeds=(0, 1))
    add('width_64', 'width_64_aligned_90_10', [HIGH], KEPT, ALIGNED, **aligned)
    for share in (5, 20, 30):
        stages, ratio = [[1 - share / 100, share / 100]], f'{100 - share}_{share}'
        add('ratio', f'clones_{ratio}', stages, rates=both)
        add('steps', f'width_64_{ratio}', stages, files=WIDTHS[64], rates=(1e-2,))
    # how languages differ: from clone to real language by order and by vocabulary
    for name in ('reversed', 'shuffled_2', 'shuffled_8'):
        one = (*EN, f"--orders=['{name}']")
        add('differ', f'{name}_90_10', [HIGH], order(name), **slow)
        more = mix(f'{name}_90_10', [HIGH], order(name), seeds=(1, 2), **slow)
        found['differ'] |= {run: more[run] for run in more if '-only_' in run}  # for the noise
        add_law('differ', f'{name}_en', *LAB, *one, lengths=SHORTER)
    for name in ('reversed', 'shuffled_8', 'shuffled_16'):
        add('neighbour', f'beside_{name}_90_10', [HIGH], order('', name), controls=())
    add('differ', 'shared_all_90_10', [HIGH], '--cloned_fraction=0.0', controls=())
    for shared, fraction in (('half', 0.5), ('all', 0.0)):
        for name in ('reversed', 'shuffled_8'):
            parts = f'--cloned_fraction={fraction}', order(name)
            add('axes', f'shared_{shared}_{name}_90_10', [HIGH], *parts, controls=())
    # takeaway 6
    add_law('french', 'fr', *LAB, *FR, lengths=LENGTHS[:-2])
    for ratio, stages, controls, count, rates in (
        ('90_10', HIGH, ('fr',), 3, half),
        ('50_50', EVEN, ('en', 'fr'), 1, ()),
        ('10_90', LOW, ('en',), 1, half),
    ):
        options = dict(controls=controls, seeds=range(count), rates=rates)
        add('french', f'fr_anchored_{ratio}', [stages], *PAIR, ANCHORED, **options)
        add('french', f'fr_disjoint_{ratio}', [stages], *PAIR, controls=())
    # takeaways 5 and 8
    add('schedules', 'clones_90_10_then_10_90', [HIGH, LOW], controls=('en1', 'en2'))
    add('schedules', 'clones_100_0_then_0_100', [[1.0, 0.0], [0.0, 1.0]])
    each = dict(controls=('en', 'fr'))
    add('schedules', 'fr_anchored_90_10_then_10_90', [HIGH, LOW], *PAIR, ANCHORED, **each)
    stages = [HIGH, LOW, EVEN, EVEN]
    add('schedules', 'fr_anchored_90_10_10_90_then_50_50', stages, *PAIR, ANCHORED, **each)
    # takeaway 3
    add('ten', 'clones10_balanced', [[0.1] * 10], *TEN, **slow)
    add('ten', 'clones10_main_50', [[0.5] + [0.5 / 9] * 9], *TEN, **slow)
    # takeaways 4 and 7
    for ratio, stages, rates in (('90_10', [HIGH], half), ('50_50', [EVEN], ())):
        parts = f'fr_anchored_{ratio}_twice', stages, *PAIR, ANCHORED, '--max_steps=4000'
        add('data', *parts, controls=('fr',), rates=rates)
        for name, steps in (('half', 1000), ('twice', 4000)):
            parts = f'clones_{ratio}_{name}', stages, f'--max_steps={steps}'
            add('tokens', *parts, rates=rates)
    return found


# --- training and results -------------------------------------------------------------------------


def job(name, arguments):
    arguments = [a if a.startswith('--') else str(HERE / a) for a in arguments]
    return commands.job(name, arguments, OUT)


def summarise():
    """Writes results/lab.csv, a row for each language of each run, and the pictures. Rows of the
    groups `past*` are measured by the laws of the larger budgets, which are power laws."""
    members, scaled = runs.load_runs(RESULTS), []
    for fit_scaling.least_tokens in (0, PAST_FROM):
        laws, rows = fit_scaling.analyse(members)
        entries = [fit_scaling.law_entry(group, law) for group, law in laws.items()]
        scaled.append((entries, rows))
    (laws, rows), (past_laws, past_rows) = scaled
    train = commands.TRAIN
    base, *_ = read_settings(train, [str(HERE / 'config/lab.py')])
    group_of = {name: group for group, found in table().items() for name in found}
    for number, (row, past) in enumerate(zip(rows, past_rows)):
        group = group_of.get(row['run'], '')
        rows[number] = (past if group.startswith('past') else row) | dict(lab_group=group)
        differ = runs.differing(row['settings'], base, runs.FREE)
        rows[number]['differs'] = ' '.join(f'{name}={row["settings"][name]}' for name in differ)
    fit_scaling.write_csv(RESULTS.parent / 'lab.csv', rows)
    charts.draw(members, rows, laws, past_laws, RESULTS.parent)
    print(f'wrote {RESULTS.parent}/lab.csv and the pictures lab_*.png')


def make_corpora(sources):
    """Makes the corpora (name, source) that are not there yet, as all runs of the lab read them."""
    for corpus, source in sources:
        how = [f'--corpus={corpus}', f'--source={source}', '--vocab_size=512']
        command = [sys.executable, str(HERE / 'prepare.py'), *how, '--test_fraction=0.1']
        made = Path('data', corpus).exists() or not subprocess.run(command).returncode
        require(made, 'the corpus could not be made, see above')


def main():
    every = table()
    known = ', '.join(every)
    require(set(groups) <= set(every), f'groups must be some of {known}, not {groups}')
    chosen = {name: a for g in every if g in (groups or every) for name, a in every[g].items()}
    jobs = [job(name, arguments) for name, arguments in chosen.items()]
    lacking = [one for one in jobs if not (RESULTS / one.name / 'results.json').exists()]
    # a trunk is trained again where its checkpoints are gone
    trunks = {one.needs for one in lacking if not (OUT / one.needs).exists()}
    missing = [one for one in jobs if one in lacking or one.name in trunks]
    for one in jobs if plan else ():
        mark = '' if one in missing else 'finished'
        print(f'{one.name:<48}{fit_scaling.short(one.tokens):>8} tokens  {mark}')
    tokens = fit_scaling.short(sum(one.tokens for one in missing))
    print(f'{len(jobs)} runs, {len(missing)} to train, {tokens} tokens')
    if plan:
        return
    make_corpora([('novels_en', source_en), ('novels_fr', source_fr)])
    queue = experiment.Queue(2)
    try:
        failed = queue.train(missing, lambda one: one.tokens / 1e4)
    finally:
        queue.stop()
        for one in lacking:
            if one.finished:
                (RESULTS / one.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(OUT / one.name / 'results.json', RESULTS / one.name)
        summarise()
    require(not failed, f'{len(failed)} runs failed: {", ".join(failed)}')


if __name__ == '__main__':
    run(globals(), main)
