"""The page about the runs of a folder: what one language does for another.

    python report.py                # out/report/report.html, and each figure as a PNG beside it
    python report.py --out=out/lab
    python report.py --paper=True   # out/report/paper.html: the paper's runs and ours beside them

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

import numpy as np
from jinja2 import Environment, FileSystemLoader
from tqdm import tqdm

from fit_scaling import MEASURES, cell, draw_law, load_paper_laws, load_scaling
from lib.configurator import run as run_script
from lib.files import write_file
from lib.laws import UNIT
from lib.paper import load_paper_runs, read_csv
from lib.plots import COLORS, MARKERS, PERCENTS, TITLES, Line, draw_points, log_ticks, panel
from lib.rows import caption, grouped, name_of, natural, ratio_text, runs_of, usual_settings
from lib.runs import DEFAULTS, FREE, INTERVENTIONS, LAW, LENGTH, RATES, SEED, differing
from lib.tables import ppl_text, short

out = 'out'  # folder of the runs; the page goes to its folder report/
paper = False  # write the page of the paper's tables and figures instead

SHAPE = {'n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim'}

# --- the findings ---------------------------------------------------------------------------------

NO_MIXTURE = 'No mixture of languages is finished: python experiment.py CONFIG trains one.'
COMMAND = 'python train.py CONFIG --only='


def findings(rows):
    """What the other languages do for each asked language of each mixture: transfer at equal
    exposures, gain over re-reading, and what is missing. Plain mixtures with controls come first,
    then those of most seeds."""
    found = []
    for run in runs_of(rows):
        special = caption(run.settings, DEFAULTS, run.settings.keys() - INTERVENTIONS)
        special = special or any(run.settings['orders']) or run.shared
        for row in run.asked if run.languages[1:] else ():
            order = not row['control'], row['transfer'] is None, bool(special), -row['seeds']
            found.append((*order, row['tokens_seen'], run.name, finding(run, row)))
    return [text for *_, text in sorted(found)] or [NO_MIXTURE]


def finding(run, row):
    name, others = name_of(row), [other for other in run.languages if other != name_of(row)]
    source = others[0] if len(others) == 1 else f'the {len(others)} other languages together'
    seeds = f', {row["seeds"]} seeds' if row['seeds'] > 1 else ''
    where = f'at {run.ratio} ({run.name}{seeds})'
    starts = dict(helps=f'{source} helps {name} {where}', costs=f'{source} costs {name} {where}')
    starts['no effect shown'] = f'{source} and {name} {where}, no effect shown'
    text = starts.get(verdict(row, 'transfer'), f'{name} beside {source} {where}')
    text += f': PPL {ppl_text(row["ppl"])}'
    for key, measure, control in (
        ('transfer', 'transfer at equal exposures', 'control'),
        ('gain', 'gain over re-reading', 'reread_control'),
    ):
        if row[key] is not None:
            text += f'; {measure} {said(row, key)}, {said(row, f"{key}_nats")} nats'
        elif row[control]:  # no law
            nats = math.log(row[f'{control}_ppl'] / row['ppl'])
            text += f'; {control.replace("_", " ")} PPL {ppl_text(row[f"{control}_ppl"])}'
            text += f', {nats:.3f} nats above'
        if key == 'gain' and verdict(row, key):
            text += f' ({verdict(row, key)})'
    if row['teff'] is not None and not row['control']:
        text += f'; TEff {said(row, "teff")}'
    missing = [] if row['control'] else [f'a control, {COMMAND}{row["language"]}']
    fits = min(4, int(1.02 * run.tokens / row['tokens_seen']))  # within the mixture's compute
    if not row['reread_control'] and fits > 1:
        again = f'{COMMAND}{row["language"]} --epochs={fits}'
        missing.append(f'a control that re-reads, {again}')
    text += f'. Missing: {"; ".join(missing)}' if missing else ''
    return f'{text}. {row["note"][:1].upper()}{row["note"][1:]}'.strip(' .') + '.'


def verdict(row, name):
    """What an interval of transfer or gain, or of its nats, shows; '' without one."""
    for key, nothing in ((name, 1), (f'{name}_nats', 0)):
        if row[f'{key}_interval']:
            low, high = row[f'{key}_interval']
            return 'helps' if low > nothing else 'costs' if high < nothing else 'no effect shown'
    return ''


def said(row, key):
    """2.51 (90% interval 2.33 to 2.74)"""
    text, _, ends = cell(row, key).partition(' [')
    return text + (f' (90% interval {ends[:-1].replace(", ", " to ")})' if ends else '')


# --- figures --------------------------------------------------------------------------------------

BESIDE = dict(  # what else is drawn by ratio: (key, label, marker)
    ppl=[('control_ppl', 'control', 'x'), ('reread_control_ppl', 're-reading', '+')],
    teff=[('control_teff', 'control', 'x'), ('reread_teff', 're-reading', '+')],
    accuracy=[('majority', 'majority class', '_')],
)
BESIDE['ppl'].append(('mlpe', 'monolingual (law)', '_'))
VIEWS = dict(  # x of a figure: the settings in which its runs may differ
    share={'stages'},
    tokens={'stages'} | LENGTH,
    parameters={'stages'} | SHAPE | RATES,
    shared={'stages', 'cloned_fraction'},
)
DRAWN_PPL = 1e6  # a larger perplexity is a number of the tables only


def measured(row, key):
    """(value, low, high) of a measure and its 90% interval, or None. Beyond the law stands its
    lower limit, without an upper end."""
    value = row.get(key)
    if value is None or ('ppl' in key and value > DRAWN_PPL):
        return None
    if math.isinf(value):
        limit = row['largest_budget'] / row['tokens_seen']
        return limit, limit, math.inf
    low, high = row.get(f'{key}_interval') or (value, value)
    if key == 'ppl':
        half = min(1.645 * (row['ppl_se'] or 0), value / 2)
        low, high = value - half, value + half
    return value, max(0, min(low, value)), max(high, value)


def draw_view(panels, runs, view):
    """Perplexity, TEff, transfer and gain of pairs of languages, for the groups of runs that differ
    in the view; by share also of single runs where no group has two ratios."""
    usual = usual_settings(runs) if runs else {}
    groups = grouped([run for run in runs if run.share is not None], VIEWS[view])
    wide = [group for group in groups if len({getattr(run, view) for run in group}) > 1]
    for group in wide or (groups if view == 'share' else []):
        corpora = ', '.join(dict.fromkeys(row['corpus'] for row in group[0].rows))
        title = f'{group[0].who} ({corpora}), {title_of(group[0], usual, view)}'
        for what in ('ppl', 'teff', 'transfer', 'gain'):
            draw_measure(panels, title, group, what, view)


def title_of(run, usual, view, without=frozenset()):
    """What the runs of a figure have in common."""
    parts = [run.size * (view != 'parameters'), f'{short(run.tokens)} tokens' * (view != 'tokens')]
    without = without | VIEWS[view] | SHAPE | {'max_steps', 'corpora'}
    return ', '.join(filter(None, [*parts, caption(run.settings, usual, without)]))


def draw_measure(panels, title, runs, what, view):
    """A panel of a measure: a line for each language, or for each ratio and language; joined where
    there are three points."""
    lines, names = [], [row['language'] for row in runs[0].rows]
    ratios = [''] if view == 'share' else sorted({run.ratio for run in runs}, key=natural)
    for number, ratio in enumerate(ratios):
        chosen = [run for run in runs if ratio in ('', run.ratio)]
        if ratio and len({getattr(run, view) for run in chosen}) < 2:
            continue
        for i, name in enumerate(names):
            color, label = COLORS[(2 + number if ratio else i) % 7], f'{ratio} {name}'.strip()
            kinds = [(what, label, MARKERS[i]), (f'paper_{what}', label, MARKERS[i])]
            if not ratio:
                kinds += [(k, f'{name}: {about}', m) for k, about, m in BESIDE.get(what, ())]
            for place, (key, about, marker) in enumerate(kinds):
                points = []
                for run in chosen:
                    x, values = getattr(run, view), measured(run.rows[i], key)
                    aside = 0.8 * i - 0.4 + 0.4 * (place > 1)  # no language hides the other
                    x = 100 * x + aside if view in PERCENTS else x
                    points += [(x, *values)] if values else []
                dash = '-' if len({point[0] for point in points}) > 2 else ''
                lines.append(Line(about, points, color, marker, dash, place == 1))
    if any(line.points and line.marker in MARKERS for line in lines):
        labels = dict(xlabel=TITLES[view].format(names[-1]), ylabel=TITLES[what])
        with panel(panels, title, **labels) as axes:
            draw_points(axes, lines, what)
            if view not in PERCENTS:
                log_ticks(axes.xaxis, short)


def draw_training(panels, folder, runs):
    """The loss over steps of each mixture that has a log, of its languages and the controls of the
    asked ones; circles: the logarithm of quick perplexities on test text."""
    for run in runs:
        shown = [row['language'] for row in (run.rows if len(run.rows) < 4 else run.asked[:3])]
        series = [(run.name, name, '', '-') for name in shown]
        for row in run.asked[:3]:
            kinds = ('control', ' control', '--'), ('reread_control', ' re-reading', ':')
            series += [(row[key], row['language'], *look) for key, *look in kinds if row[key]]
        logs = {name: log_of(folder / name / 'log.jsonl') for name, *_ in series}
        if not logs[run.name][0]:
            continue
        labels = dict(xlabel='optimiser steps', ylabel='loss (nats a token)', xscale='log')
        with panel(panels, run.name, **labels) as axes:
            for name, language, about, dash in series:
                losses, quick = (found.get(language) for found in logs[name])
                color = COLORS[shown.index(language)]
                if losses:
                    line = dict(color=color, ls=dash, lw=1.2, label=language + about)
                    axes.plot(*binned(losses), **line)
                if quick:
                    steps, ppl = np.array(quick).T
                    axes.plot(steps, np.log(ppl), 'o', ms=4, mfc=color, mec='k', color=color)


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
    theirs, groups = {float(row['p_en2']): row for row in read_csv('paper_glue.csv')}, {}
    for group in grouped([run for run in runs if run.share is not None], VIEWS['share']):
        for run in group:
            path = folder / run.name / 'finetune.json'
            try:
                results = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
                tasks = {k: v for k, v in results.get('tasks', {}).items() if 'languages' in v}
                for row in run.rows if tasks else ():
                    row |= mean_accuracy(tasks.values(), row['language'])
            except (ValueError, LookupError, TypeError, AttributeError):
                print(f'warning: {path} is damaged; it is not drawn', file=sys.stderr)
                continue
            for row, name in zip(run.rows, ('en1', 'en2')):
                if row['paper_rows'] and run.share in theirs:
                    row['paper_accuracy'] = float(theirs[run.share][name])
            if tasks:
                tuned = f'{run.who}, fine-tuned in {results["train_language"]}'
                title = f'{tuned}, mean of {", ".join(sorted(tasks))}'
                groups.setdefault((title, id(group)), []).append(run)
    for (title, _), members in groups.items():
        draw_measure(panels, title, members, 'accuracy', 'share')


def mean_accuracy(entries, language):
    """The mean over tasks, whose errors are independent, and that of the majority class."""
    scores = [entry['languages'].get(language) for entry in entries]
    if None in scores:
        return {}
    values = np.array([(score['mean'], *score['interval']) for score in scores])
    mean, _, _ = values.mean(0)
    _, below, above = np.linalg.norm(values - values[:, :1], axis=0) / len(values)
    majority = np.mean([entry['majority'] for entry in entries])
    return dict(accuracy=mean, accuracy_interval=(mean - below, mean + above), majority=majority)


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
    found, usual = [], usual_settings(runs) if runs else {}
    for group in grouped(runs, {'corpora', 'languages', 'orders', 'stages'}, same_text=False):
        cells, names = {}, list(dict.fromkeys(name for run in group for name in run.languages))
        for run in group:
            for row in run.rows:
                others = [name for name in run.languages if name != name_of(row)]
                source = 'all others' if others[1:] else ''.join(others)
                if source and (row['transfer'] is not None or row['gain'] is not None):
                    share = ratio_text([[share] for share in row['shares']])
                    cells.setdefault((source, name_of(row)), []).append((f'{share}%', row))
        if len(names) > 2 and cells:
            ends = ([n for n in (*names, 'all others') if n in end] for end in zip(*cells))
            found.append((title_of(group[0], usual, 'share', {'orders'}), *ends, cells))
    return found


def named_groups(runs, laws):
    """[dict(title, common, runs: [(short name, run)])] of the runs of one model and optimisation.
    The title has what they have in common, a name what differs: languages, ratio, settings."""
    labels, found, first = {law['group']: law['label'] for law in laws}, {}, {}
    for group in grouped(runs, LAW, same_text=False):
        title = labels[group[0].rows[0]['group']].partition(', ')[2]
        usual, names, differ = usual_settings(group), [], set()
        if title in found:  # they differ in a setting that the label does not name
            title += f', {caption(usual, first[title], LAW)}'
        for run in group:
            other = run.settings['languages'] != usual['languages']
            text = caption(run.settings, usual, {'corpora'} if other else set())
            names.append((f'{run.who} {run.ratio} {text}'.strip(), run))
            differ |= set(differing(run.settings, usual, FREE | SEED))
        about = dict(title=title, runs=names, differing=sorted(differ))
        found[title], first[title] = about | dict(common=caption(usual, DEFAULTS, differ)), usual
    return list(found.values())


def show(row, key):
    """A measure with its interval; '' where it is unknown."""
    if key == 'ppl':
        return ppl_text(row['ppl']) + (f' ± {row["ppl_se"]:.2g}' if row['ppl_se'] else '')
    return '' if row[key] is None else cell(row, key).replace('inf', '∞')


def picture_of(path):
    png = path.read_bytes()
    width = round(0.6 * int.from_bytes(png[16:20]))  # pixels at which 9 points can be read
    return dict(name=path.stem, width=width, data=base64.b64encode(png).decode())


def write_page(folder, name, drawings, **values):
    """Writes folder/report/NAME.html of the template lib/NAME.html, and the drawings, {name:
    function that adds Panels to a list}, as PNG files of their names. Returns the path."""
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
    environment.globals |= dict(show=show, short=short, name_of=name_of, verdict=verdict, log=math.log)
    text = environment.get_template(f'{name}.html').render(figures=figures, folder=folder, **values)
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
    drawings = {view: partial(draw_view, runs=mixes, view=view) for view in VIEWS}
    drawings |= dict(training=partial(draw_training, folder=folder, runs=mixes))
    drawings |= dict(glue=partial(draw_glue, folder=folder, runs=mixes))
    drawings |= dict(laws=partial(draw_laws, laws=laws))
    languages = list(dict.fromkeys(name for run in mixes or runs for name in run.languages))
    known = [row for run in runs for row in run.every]
    values = dict(runs=runs, groups=named_groups(mixes or runs, laws), laws=laws, dates=dates)
    values |= dict(matrices=matrices(mixes), samples=samples, studies=studies, languages=languages)
    values |= dict(
        rows=known, notes=list(dict.fromkeys(row['note'] for row in known if row['note']))
    )
    values |= dict(findings=findings(rows), measures=MEASURES)
    values |= dict(rowless=sorted(dates.keys() - {run.name for run in runs}, key=natural))
    return write_page(folder, 'report', drawings, **values)


def published(runs):
    """The paper's runs: what ours measured where it repeats one, and the paper's numbers as
    paper_ppl and paper_teff."""
    found = []
    for theirs in load_paper_runs():
        ours = [run for run in runs if theirs['name'] in run.rows[0]['paper_rows'].split(', ')]
        for run in ours or [None]:
            rows = []
            for i, language in enumerate(theirs['languages']):
                numbers = dict(paper_ppl=language['ppl'], paper_teff=language['teff'])
                about = dict(language=language['name'], **numbers)
                rows.append((run.rows[i] if run else {}) | about)
            stages = theirs['stages']
            about = dict(
                rows=rows, run=run, ratio=ratio_text(stages), tokens=128 * 512 * theirs['steps']
            )
            share = stages[0][-1] if len(stages) == 1 and len(stages[0]) == 2 else None
            found.append(SimpleNamespace(**theirs | about, share=share, parameters=0))
    return found


def paper_laws():
    """The paper's laws as scaling.json has ours, with their points."""
    found, runs = [], [run for run in load_paper_runs() if run['table'] == '3']
    for row in read_csv('paper_laws.csv'):
        law, fractions = load_paper_laws()[row['language']], row['fitted_fractions'].split()
        x = UNIT * np.geomspace(float(fractions[0]), float(fractions[-1]), 60)
        points = [run['languages'][0] for run in runs if run['kinds'] == [row['language']]]
        columns = {key: [point[key] for point in points] for key in ('tokens_seen', 'ppl')}
        about = dict(label=f'{row["language"]}, the paper, GPT small', runs=columns['ppl'])
        about |= dict(tokens=columns['tokens_seen'], ppl=columns['ppl'])
        found.append(about | dict(curve=dict(tokens=x, ppl=law.ppl(x))))
    return found


def write_paper(folder, rows):
    """Writes folder/report/paper.html: the rows of Tables 1 and 3 and the figures of the paper, our
    runs in its setting beside them, and the commands of those that are missing."""
    runs, drawings = published(runs_of(rows)), {}
    clones, real = ['en', 'en'], ['en', 'fr']
    for number, view, kinds in (
        (1, 'share', clones),
        (2, 'tokens', clones),
        (3, 'share', real),
        (4, 'tokens', real),
    ):
        chosen = [run for run in runs if run.kinds == kinds and run.share is not None]
        if view == 'share':
            chosen = [run for run in chosen if run.tokens == UNIT]
        drawings[f'figure{number}'] = partial(draw_paper, runs=chosen, view=view)
    drawings['figure5'] = partial(draw_laws, laws=paper_laws())
    return write_page(folder, 'paper', drawings, runs=runs, glue=read_csv('paper_glue.csv'))


def draw_paper(panels, runs, view):
    for vocabulary in dict.fromkeys(run.vocabulary for run in runs):
        chosen = [run for run in runs if run.vocabulary == vocabulary]
        for what in ('ppl', 'teff', 'transfer'):
            draw_measure(panels, f'{vocabulary}', chosen, what, view)


def main():
    folder = Path(out)
    laws, rows = load_scaling(folder)
    print(f'wrote {write_paper(folder, rows) if paper else write(folder, laws, rows)}')
    if not paper:
        print(*findings(rows), sep='\n')


if __name__ == '__main__':
    run_script(globals(), main)
