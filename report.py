"""The page about the runs of a folder: what one language does for another.

    python report.py                # out/report/report.html, and each figure as a PNG beside it
    python report.py --out=out/lab
    python report.py --paper=True   # out/report/paper.html: the paper's runs, ours beside them

A page holds its pictures, so it can be sent as one file. fit_scaling.py defines the measures and
writes the rows; nothing is fitted here. All intervals are 90% intervals.
"""

import base64
import contextlib
import itertools
import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from lib.configurator import run as run_script

import numpy as np
from jinja2 import Environment, FileSystemLoader
from tqdm import tqdm

from fit_scaling import MEASURES, cell, draw_law, load_paper_laws, load_scaling
from lib.files import write_file
from lib.laws import UNIT
from lib.paper import load_paper_runs, read_csv
from lib.plots import COLORS, MARKERS, PERCENTS, TITLES, Line, draw_points, log_ticks, panel
from lib.rows import caption, grouped, measured, named_groups, natural, ratio_of, runs_of, usual_of
from lib.runs import DEFAULTS, INTERVENTIONS, LENGTH, RATES
from lib.tables import ppl_text, short
from lib.tasks import mean_over_tasks

out = 'out'  # folder of the runs; the page goes to its folder report/
paper = False  # write the page of the paper's tables and figures instead

# --- findings -------------------------------------------------------------------------------------

NO_MIXTURE = 'No mixture of languages is finished: python experiment.py CONFIG trains one.'


def findings(rows):
    """What the other languages do for each asked language of each mixture, in words and numbers,
    and what is missing. Plain mixtures with controls come first, then those of most seeds."""
    found = []
    for run in runs_of(rows):
        special = caption(run.settings, DEFAULTS, run.settings.keys() - INTERVENTIONS)
        special = bool(special or any(run.settings['orders']) or run.shared)
        for row in run.asked if run.languages[1:] else ():
            order = not row['control'], row['transfer'] is None, special, -row['seeds']
            found.append((*order, row['tokens_seen'], run.name, finding(run, row)))
    return [text for *_, text in sorted(found)] or [NO_MIXTURE]


def finding(run, row):
    """The finding about a row of a mixture, with the commands of the controls that are missing."""
    name, others = row['name'], [other for other in run.languages if other != row['name']]
    source = 'the rest of the mixture' if others[1:] else others[0]
    seeds = f', {row["seeds"]} seeds' if row['seeds'] > 1 else ''
    start = {
        'helps': f'{source} helps {name}',
        'costs': f'{source} costs {name}',
        'no effect shown': f'No effect of {source} on {name} shown',
        '': f'{name} beside {source}',
    }[verdict(row, 'transfer')]
    parts, missing = [f'{start} at {run.ratio} ({run.name}{seeds}): PPL {ppl_text(row["ppl"])}'], []
    fits = min(4, int(1.02 * run.tokens / row['tokens_seen']))  # epochs in the mixture's compute
    for key, label, control, kind in (
        ('transfer', 'transfer at equal exposures', 'control', 'control'),
        ('gain', 'gain over re-reading', 'reread_control', 'control that re-reads'),
    ):
        shown = f': {verdict(row, key)}' if key == 'gain' and verdict(row, key) else ''
        known = row[f'{key}_nats'] is not None
        nats = f', {said(row, f"{key}_nats", " nats")}{shown}' if known else ''
        if row[key] is not None:
            parts.append(f'{label} {said(row, key)}{nats}')
        elif row[control]:
            parts.append(f'{kind} PPL {ppl_text(row[f"{control}_ppl"])}{nats}')
        elif key == 'transfer' or fits > 1:
            more = f' --epochs={fits}' if key == 'gain' else ''
            missing.append(f'a {kind} (python train.py CONFIG --only={row["language"]}{more})')
    if row['teff'] is not None and not row['control']:
        parts.append(f'TEff {said(row, "teff")}, from more optimiser steps or from {source}')
    text = '; '.join(parts) + (f'. Missing: {" and ".join(missing)}' if missing else '')
    return text + (f'. {row["note"][0].upper()}{row["note"][1:]}.' if row['note'] else '.')


def verdict(row, name):
    """What the interval of transfer or gain shows, or of its nats; '' without one."""
    for key, nothing in ((name, 1), (f'{name}_nats', 0)):
        if row[f'{key}_interval']:
            low, high = row[f'{key}_interval']
            return 'helps' if low > nothing else 'costs' if high < nothing else 'no effect shown'
    return ''


def said(row, key, unit=''):
    """2.51 (90% interval 2.33 to 2.74)"""
    value, _, ends = cell(row, key).partition(' [')
    words = '' if unit and row[f'{key[:-5]}_interval'] else '90% interval '  # said of transfer
    return value + unit + (f' ({words}{ends[:-1].replace(", ", " to ")})' if ends else '')


# --- figures --------------------------------------------------------------------------------------

SHAPE = {'n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim'}
VIEWS = dict(  # x of a figure: the settings in which its runs may differ
    share={'stages'},
    tokens={'stages'} | LENGTH,
    parameters={'stages'} | SHAPE | RATES,
    shared={'stages', 'cloned_fraction'},
)
CONTROLS = [('{}: control', 'x', '--'), ('{}: re-reading', '+', '-.')]
BESIDE = dict(  # what is drawn by ratio beside a measure: {key: (label, marker, dash)}
    ppl=dict(zip(('control_ppl', 'reread_control_ppl'), CONTROLS)),
    teff=dict(zip(('control_teff', 'reread_teff'), CONTROLS)),
    accuracy=dict(majority=('majority class', '_', ':')),
)
BESIDE['ppl']['mlpe'] = '{}: monolingual (law)', '.', ':'


def draw_view(panels, runs, view):
    """Perplexity, TEff, transfer and gain of pairs of languages, for the groups of runs that differ
    in the view; by share also of single runs where no group has two ratios."""
    usual = usual_of(runs)
    groups = grouped([run for run in runs if run.share is not None], VIEWS[view])
    wide = [group for group in groups if len({getattr(run, view) for run in group}) > 1]
    for group in sorted(wide, key=len, reverse=True) or (groups if view == 'share' else []):
        corpora = ', '.join(dict.fromkeys(row['corpus'] for row in group[0].rows))
        title = f'{group[0].who} ({corpora}), {title_of(group[0], usual, view)}'
        for what in ('ppl', 'teff', 'transfer', 'gain'):
            draw_measure(panels, title, group, what, view)


def title_of(run, usual, view, without=frozenset()):
    """What the runs of a figure have in common."""
    parts = [run.size * (view != 'parameters'), f'{short(run.tokens)} tokens' * (view != 'tokens')]
    without = without | VIEWS[view] | SHAPE | {'max_steps', 'corpora'}
    return ', '.join(filter(None, [*parts, caption(run.settings, usual, without)]))


def draw_measure(panels, title, runs, what, view, published=False):
    """A panel of a measure: a line for each language, or for each ratio and language; joined where
    there are three points. published: also where only the paper has points."""
    lines, names = [], [row['language'] for row in runs[0].rows]
    ratios = [''] if view == 'share' else sorted({run.ratio for run in runs}, key=natural)
    for number, ratio in enumerate(ratios):
        chosen = [run for run in runs if ratio in ('', run.ratio)]
        if ratio and len({getattr(run, view) for run in chosen}) < 2:
            continue
        for i, name in enumerate(names):
            color, label = COLORS[(2 + number if ratio else i) % 7], f'{ratio} {name}'.strip()
            kinds = {what: (label, MARKERS[i], '-'), f'paper_{what}': (label, MARKERS[i], ':')}
            for key, (about, *look) in {} if ratio else BESIDE.get(what, {}).items():
                kinds[key] = about.format(name), *look
            for place, (key, (about, marker, dash)) in enumerate(kinds.items()):
                points = []
                for run in chosen:
                    x, values = getattr(run, view), measured(run.rows[i], key)
                    aside = 0.8 * i - 0.4 + 0.4 * (place > 1)  # no language hides the other
                    x = 100 * x + aside if view in PERCENTS else x
                    points += [(x, *values)] if values else []
                dash = dash if len({point[0] for point in points}) > 2 else ''
                lines.append(Line(about, points, color, marker, dash, place == 1))
    if any(line.points and line.marker in MARKERS for line in lines if published >= line.hollow):
        labels = dict(xlabel=TITLES[view].format(names[-1]), ylabel=TITLES[what])
        with panel(panels, title, **labels) as axes:
            draw_points(axes, lines, what)
            if view in PERCENTS:
                places = [100 * getattr(run, view) for run in runs]
                axes.set_xlim(min(places) - 4, max(places) + 4)
            else:
                log_ticks(axes.xaxis, short)


def draw_training(panels, folder, runs):
    """The loss over steps of each mixture that has a log, of its languages and the controls of the
    asked ones; circles: the logarithm of quick perplexities on test text."""
    for run in runs:
        shown = [row['language'] for row in (run.rows if len(run.rows) < 4 else run.asked[:3])]
        series = [(run.name, name, '', '-') for name in shown]
        for row in run.asked[:3]:
            kinds = ('control', ' control', '--'), ('reread_control', ' re-reading', ':')
            kinds = kinds[
                : 1 + (row['reread_control'] != row['control'])
            ]  # one control can be both
            series += [(row[key], row['language'], *look) for key, *look in kinds if row[key]]
        logs = {name: log_of(folder / name / 'log.jsonl') for name, *_ in series}
        if not logs[run.name][0]:
            continue
        labels = dict(xlabel='optimiser steps', ylabel='loss (nats a token)')
        with panel(panels, run.name, **labels) as axes:
            for name, language, about, dash in series:
                losses, quick = (found.get(language) for found in logs[name])
                look = dict(color=COLORS[shown.index(language)])
                if losses:
                    axes.plot(*binned(losses), ls=dash, lw=1.2, label=language + about, **look)
                if quick:
                    steps, ppl = np.array(quick).T
                    look |= {} if dash == '-' else dict(mfc='w')
                    axes.plot(steps, np.log(ppl), 'o', ms=4, **look)
            log_ticks(axes.xaxis, short)


def log_of(path):
    """(losses, quick perplexities) of a log.jsonl, each {language: [(step, value)]}."""
    found = {}, {}
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, LookupError):  # a line that was cut
            entry = json.loads(line)
            for series, key in zip(found, ('losses', 'perplexity')):
                for name, value in entry.get(key, {}).items():
                    series.setdefault(name, []).append((entry['step'] + 1, value))
    return found


def binned(points, count=60):
    """Means (2, bins) of points (n, 2) in bins of equal width in log x."""
    x, y = np.array(points, float).T
    bins = np.digitize(x, np.geomspace(1, x.max() + 1, count))
    number, *sums = (np.bincount(bins, weights) for weights in (np.ones_like(x), x, y))
    return np.array(sums)[:, number > 0] / number[number > 0]


def draw_glue(panels, folder, runs):
    """Figure 1, right: accuracy by ratio after fine-tuning in one language, mean over the tasks."""
    theirs, tuned = {float(row['p_en2']): row for row in read_csv('paper_glue.csv')}, {}
    for run in runs:
        path = folder / run.name / 'finetune.json'
        if not path.exists():
            continue
        try:
            results = json.loads(path.read_text(encoding='utf-8'))
            tasks = {name: task for name, task in results['tasks'].items() if 'languages' in task}
            for i, row in enumerate(run.rows):
                if all(row['language'] in task['languages'] for task in tasks.values()):
                    mean = mean_over_tasks(tasks.values(), row['language'])
                    row |= dict(accuracy=mean['mean'], accuracy_interval=mean['interval'])
                    row['majority'] = mean['majority']
                if row['paper_rows'] and run.share in theirs:
                    row['paper_accuracy'] = float(theirs[run.share][('en1', 'en2')[i]])
            about = f'fine-tuned in {results["train_language"]}, mean of {", ".join(sorted(tasks))}'
            tuned.setdefault(about, []).append(run)
        except (ValueError, LookupError, TypeError, AttributeError):
            print(f'warning: {path} is damaged; it is not drawn', file=sys.stderr)
    for about, members in tuned.items():
        for group in grouped([run for run in members if run.share is not None], VIEWS['share']):
            title = f'{group[0].who}, {title_of(group[0], usual_of(runs), "share")}, {about}'
            draw_measure(panels, title, group, 'accuracy', 'share')


def draw_laws(panels, laws):
    """Figure 5: the monolingual runs of each text, and the laws within their budgets."""
    texts = {}
    for law in laws:
        if law['runs']:
            texts.setdefault(law['label'].partition(', ')[0], []).append(law)
    for text, members in texts.items():
        with panel(panels, text, xlabel=TITLES['tokens'], ylabel=TITLES['ppl']) as axes:
            for color, law in zip(itertools.cycle(COLORS), members):
                if law['curve']:
                    draw_law(axes, law, color)
                else:
                    label = f'{law["label"].partition(", ")[2]} (no law)'
                    axes.plot(law['tokens'], law['ppl'], 'o', ms=4, color=color, label=label)
            log_ticks(axes.xaxis, short)
            log_ticks(axes.yaxis)


# --- the pages ------------------------------------------------------------------------------------


def matrices(runs):
    """[(title, sources, targets, {(source, target): [(share of the target, row)]})] where there are
    three languages or more. In a mixture of three or more the source is all others."""
    found, usual = [], usual_of(runs)
    for group in grouped(runs, {'corpora', 'languages', 'orders', 'stages'}, same_text=False):
        cells, names = {}, set()
        for run, row in ((member, row) for member in group for row in member.rows):
            others = [name for name in run.languages if name != row['name']]
            source = 'all others' if others[1:] else ''.join(others)
            if source and (row['transfer'] is not None or row['gain'] is not None):
                share = ratio_of([[share] for share in row['shares']])
                cells.setdefault((source, row['name']), []).append((f'{share}%', row))
                names.update(run.languages)
        for entries in cells.values():
            entries.sort(key=lambda entry: natural(entry[0]))
        if len(names) > 2:
            names = *sorted(names, key=natural), 'all others'
            ends = ([name for name in names if name in end] for end in zip(*cells))
            found.append((title_of(group[0], usual, 'share', {'orders'}), *ends, cells))
    return found


def show(row, key):
    """A measure with its interval; '' where it is unknown."""
    if key == 'ppl':
        known = row['ppl_se'] and row['ppl'] < 1e6
        return ppl_text(row['ppl']) + (f' ± {row["ppl_se"]:.2g}' if known else '')
    return '' if row[key] is None else cell(row, key).replace('inf', '∞')


def picture_of(path):
    png = path.read_bytes()
    width = round(0.6 * int.from_bytes(png[16:20]))  # pixels at which 9 points can be read
    return dict(name=path.stem, width=width, data=base64.b64encode(png).decode())


def write_page(folder, name, drawings, **values):
    """Writes folder/report/NAME.html of lib/NAME.html, and the drawings, {name: function that adds
    Panels to a list}, as PNG files of their names. Returns the path of the page."""
    target, figures = folder / 'report', {}
    target.mkdir(exist_ok=True)
    for kind, draw in tqdm(drawings.items(), 'drawing', disable=None):
        draw(panels := [])
        for old in target.glob(f'{kind}_*.png'):
            old.unlink()
        for number, one in enumerate(panels, 1):
            path = target / f'{kind}_{number}.png'
            path.write_bytes(one.png)
            figures.setdefault(kind, []).append(picture_of(path) | dict(alt=one.alt))
    loader = FileSystemLoader(Path(__file__).resolve().parent / 'lib')
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= dict(show=show, short=short, verdict=verdict, ppl_text=ppl_text)
    values |= dict(figures=figures, folder=folder, log=math.log, measures=MEASURES)
    text = environment.get_template(f'{name}.html').render(**values)
    write_file(target / f'{name}.html', lambda file: file.write(text.encode()))
    return target / f'{name}.html'


def write(folder, laws, rows):
    """Writes folder/report/report.html from the laws and rows of scaling.json; returns its path."""
    folder, runs, studies, samples, dates = Path(folder), runs_of(rows), {}, {}, {}
    mixes = [run for run in runs if not run.monolingual]
    for path in sorted(folder.glob('*/*.*'), key=lambda path: natural(str(path))):
        name = path.parent.name
        if path.suffix == '.png' and name != 'report':
            studies.setdefault(name, []).append(picture_of(path))
        elif path.name == 'samples.txt':
            samples[name] = path.read_text(encoding='utf-8', errors='replace')
        elif path.name == 'results.json':
            dates[name] = time.strftime('%Y-%m-%d', time.gmtime(path.stat().st_mtime))
    drawings = {view: partial(draw_view, runs=mixes, view=view) for view in VIEWS if mixes}
    drawings |= dict(training=partial(draw_training, folder=folder, runs=mixes))
    drawings |= dict(glue=partial(draw_glue, folder=folder, runs=runs))
    drawings |= dict(laws=partial(draw_laws, laws=laws))
    values = dict(runs=runs, mixes=mixes, laws=laws, samples=samples, studies=studies, dates=dates)
    values |= dict(groups=named_groups(mixes or runs, laws), findings=findings(rows))
    values |= dict(matrices=matrices(mixes) if mixes else [])
    return write_page(folder, 'report', drawings, **values)


def published(runs):
    """The paper's runs: what ours measured where it repeats one, and the paper's numbers as
    paper_ppl and paper_teff."""
    found = []
    for theirs in load_paper_runs():
        ours = [run for run in runs if theirs['name'] in run.rows[0]['paper_rows'].split(', ')]
        for run in ours or [None]:
            rows, stages = [], theirs['stages']
            for i, language in enumerate(theirs['languages']):
                about = {f'paper_{key}': language[key] for key in ('ppl', 'teff')}
                rows.append((run.rows[i] if run else {}) | about | dict(language=language['name']))
            about = dict(rows=rows, run=run, ratio=ratio_of(stages))
            about |= dict(share=stages[0][1] if len(stages) == 1 and len(stages[0]) == 2 else None)
            found.append(SimpleNamespace(**theirs | about, tokens=theirs['steps'] * 128 * 512))
    return found


def paper_laws():
    """The paper's laws as scaling.json has ours."""
    for row in read_csv('paper_laws.csv'):
        language, fractions = row['language'], row['fitted_fractions'].split()
        tokens = UNIT * np.geomspace(float(fractions[0]), float(fractions[-1]), 60)
        runs = [run for run in load_paper_runs() if run['kinds'] == [language]]
        points = {key: [run['languages'][0][key] for run in runs] for key in ('tokens_seen', 'ppl')}
        law = dict(label=f'{language} in the paper, GPT small', runs=runs, ppl=points['ppl'])
        law |= dict(curve=dict(tokens=tokens, ppl=load_paper_laws()[language].ppl(tokens)))
        yield law | dict(tokens=points['tokens_seen'])


def write_paper(folder, laws, rows):
    """Writes folder/report/paper.html: the rows of Tables 1 and 3 and the figures of the paper, our
    runs in its setting beside them, and the commands of those that are missing."""
    ours = [run for run in runs_of(rows) if run.rows[0]['paper_rows']]
    runs, names = published(ours), {run.name for run in ours}

    def draw(panels, number):  # Figures 1 to 4
        kinds, view = ['en', 'en' if number < 3 else 'fr'], 'share' if number % 2 else 'tokens'
        pairs = [run for run in runs if run.kinds == kinds and run.share is not None]
        pairs = [run for run in pairs if view == 'tokens' or run.tokens == UNIT]
        for vocabulary, what in itertools.product(('disjoint', 'anchored'), ('ppl', 'teff')):
            chosen = [run for run in pairs if run.vocabulary == vocabulary]
            if chosen:
                draw_measure(panels, f'GPT small, {vocabulary}', chosen, what, view, True)

    drawings = {f'figure{number}': partial(draw, number=number) for number in (1, 2, 3, 4)}
    laws = [*paper_laws(), *(law for law in laws if names & set(law['runs']))]
    drawings['figure5'] = partial(draw_laws, laws=laws)
    return write_page(folder, 'paper', drawings, runs=runs, glue=read_csv('paper_glue.csv'))


def main():
    folder = Path(out)
    laws, rows = load_scaling(folder)
    print(f'wrote {(write_paper if paper else write)(folder, laws, rows)}')
    if not paper:
        print(*findings(rows), sep='\n')


if __name__ == '__main__':
    run_script(globals(), main)
