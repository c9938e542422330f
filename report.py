"""The page about the runs of a folder: what one language does for another.

    python report.py                # out/report/report.html, and each figure as a PNG beside it
    python report.py --out=out/lab
    python report.py --paper=True   # out/report/paper.html: the paper's runs, ours beside them

A page holds its pictures, so it can be sent as one file. fit_scaling.py defines the measures and
writes the rows; nothing is fitted here. All intervals are 90% intervals.
"""

import base64
import contextlib
import io
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

from fit_scaling import MEASURES, cell, draw_laws, load_paper_laws, load_scaling
from lib.files import write_file
from lib.laws import UNIT
from lib.paper import load_paper_runs, read_csv
from lib.plots import COLORS, GREY, MARKERS, draw_points, log_ticks, panel
from lib.rows import caption, grouped, measured, named_groups, natural, ratio_of, runs_of, usual_of
from lib.runs import LENGTH, RATES
from lib.tables import ppl_text, short
from lib.tasks import mean_over_tasks

out = 'out'  # folder of the runs; the page goes to its folder report/
paper = False  # write the page of the paper's tables and figures instead

# --- findings -------------------------------------------------------------------------------------

UNCLEAR = 'has no clear effect on'
NO_MIXTURE = 'No mixture of languages is finished: python experiment.py CONFIG trains one.'


def findings(rows):
    """What the other languages do for each asked language of each mixture, in words and numbers,
    and what is missing. Mixtures with controls, of usual settings and of most seeds come first."""
    runs, found = [run for run in runs_of(rows) if run.languages[1:]], []
    usual = usual_of(runs)
    for run in runs:
        special = bool(caption(run.settings, usual))
        for row in run.asked:
            order = not row['control'], row['transfer'] is None, special, -row['seeds']
            found.append((*order, row['tokens_seen'], run.name, finding(run, row)))
    return [text for *_, text in sorted(found)] or [NO_MIXTURE]


def finding(run, row):
    """The finding about a row of a mixture, with the commands of the controls that are missing."""
    name, others = row['name'], [other for other in run.languages if other != row['name']]
    source = 'the rest of the mixture' if others[1:] else others[0]
    seeds = f'{row["seeds"]} seeds of ' if row['seeds'] > 1 else ''
    start = f'{source} {verdict(row, "transfer") or "beside"} {name} at {run.ratio}'
    start += f' ({seeds}{run.name}): PPL {ppl_text(row["ppl"])}'
    numbers, missing = '', []
    epochs = min(4, int(1.02 * run.tokens / row['tokens_seen']))  # in the mixture's compute
    for key, label, control, kind, more in (
        ('transfer', 'transfer at equal exposures', 'control', 'control', ''),
        ('gain', 'gain over re-reading', 'reread_control', 'control that re-reads', '--epochs='),
    ):
        if row[control]:
            effect, known = verdict(row, key), f'{kind} PPL {ppl_text(row[f"{control}_ppl"])}'
            known = known if row[key] is None else f'{label} {cell(row, key)}'
            numbers += f'; {known}, {cell(row, f"{key}_nats")} nats'
            numbers += f': {effect}' if more and effect in ('helps', 'costs') else ''
        elif not more or epochs > 1:
            more = f' {more}{epochs}' if more else ''
            missing.append(f'a {kind} (python train.py CONFIG --only={row["language"]}{more})')
    if row['teff'] is not None and not row['control']:
        numbers += f'; TEff {cell(row, "teff")}, from more optimiser steps or from {source}'
    sentences = [start + numbers.replace(' [', ' [90%: ', 1)]
    sentences += [f'Missing: {" and ".join(missing)}'] if missing else []
    sentences += [row['note'][0].upper() + row['note'][1:]] if row['note'] else []
    return '. '.join(sentences) + '.'


def verdict(row, name):
    """What the interval of transfer or gain shows, or of its nats; '' without one."""
    for key, nothing in ((name, 1), (f'{name}_nats', 0)):
        if row[f'{key}_interval']:
            low, high = row[f'{key}_interval']
            return 'helps' if low > nothing else 'costs' if high < nothing else UNCLEAR
    return ''


# --- figures --------------------------------------------------------------------------------------

SHAPE = {'n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim'}
VIEWS = dict(  # x of a figure: the settings in which its runs may differ, title of the axis
    share=({'stages'}, 'share of {} in the training tokens (%)'),
    tokens=({'stages'} | LENGTH, 'tokens of the training run'),
    parameters=({'stages'} | SHAPE | RATES, 'parameters of the model without embeddings'),
    shared=({'stages', 'cloned_fraction'}, 'share of the vocabulary that both clones use (%)'),
)
CONTROL, REREAD = ('{}: control', 'x--'), ('{}: re-reading', '+-.')
LAW = '{}: monolingual (law)', '.:'
FIGURES = dict(  # y: title of the axis, what 1 means, {key of what is beside it: (label, look)}
    ppl=('test perplexity', '', dict(control_ppl=CONTROL, reread_control_ppl=REREAD, mlpe=LAW)),
    teff=('TEff', '1: as a monolingual run', dict(control_teff=CONTROL, reread_teff=REREAD)),
    transfer=('transfer', '1: as its control', {}),
    gain=('gain over re-reading', '1: as re-reading', {}),
    accuracy=('accuracy after fine-tuning', '', dict(majority=('{}: majority class', '_:'))),
)


def draw_view(panels, runs, view):
    """Perplexity, TEff, transfer and gain of pairs of languages, for the groups of runs that differ
    in the view; where no group has two ratios, by share for each run."""
    usual = usual_of(runs)
    groups = grouped([run for run in runs if run.share is not None], VIEWS[view][0])
    wide = [group for group in groups if len({getattr(run, view) for run in group}) > 1]
    for group in sorted(wide, key=len, reverse=True) or (groups if view == 'share' else []):
        corpora = ', '.join(dict.fromkeys(row['corpus'] for row in group[0].rows))
        title = f'{group[0].who} ({corpora}), {title_of(group[0], usual, view)}'
        for what in ('ppl', 'teff', 'transfer', 'gain'):
            draw_measure(panels, title, group, what, view)


def title_of(run, usual, view, without=frozenset()):
    """What the runs of a figure have in common."""
    parts = [run.size * (view != 'parameters'), f'{short(run.tokens)} tokens' * (view != 'tokens')]
    without = without | VIEWS[view][0] | SHAPE | {'max_steps', 'corpora'}
    return ', '.join(filter(None, [*parts, caption(run.settings, usual, without)]))


def draw_measure(panels, title, runs, what, view):
    """A panel of a measure: a line for each language, or for each ratio and language. Hollow: the
    paper's numbers."""
    names, ratios, lines = [row['language'] for row in runs[0].rows], {}, []
    (_, xlabel), (ylabel, level, beside) = VIEWS[view], FIGURES[what]
    percent = view in ('share', 'shared')
    for run in runs:
        ratios.setdefault('' if view == 'share' else run.ratio, []).append(run)
    for number, ratio in enumerate(sorted(ratios, key=natural)):
        chosen = ratios[ratio]
        if ratio and len({getattr(run, view) for run in chosen}) < 2:
            continue
        for i, name in enumerate(names):
            color, own = COLORS[(2 + number if ratio else i) % 7], f'{ratio} {name}'.strip()
            kinds = {what: (own, MARKERS[i] + '-'), f'paper_{what}': (own, MARKERS[i] + ':')}
            for key, (label, fmt) in (kinds if ratio else kinds | beside).items():
                found = [(getattr(run, view), measured(run.rows[i], key)) for run in chosen]
                if percent:  # a little apart, so that no language hides the other
                    found = [(100 * x + 0.8 * i, y) for x, y in found]
                points = [(x, *y) for x, y in found if y]
                look = dict(color=color, label=label.format(name))
                if key == f'paper_{what}':
                    look |= dict(mfc='white', ms=9, mew=1.3, zorder=2.5)
                lines += [(key, points, fmt, look)] if points else []
    if not {what, f'paper_{what}'} & {key for key, *_ in lines}:
        return
    with panel(panels, title, xlabel=xlabel.format(names[-1]), ylabel=ylabel) as axes:
        ys = [y for _, points, *_ in lines for _, y, *_ in points]
        top = 1.8 * max([*ys, 1] if level else ys)  # a bar across the level is not cut below it
        for _, points, fmt, look in lines:
            draw_points(axes, points, top, fmt, **look)
        if level:
            axes.axhline(1, color=GREY, lw=1, zorder=1, label=level)
        if what == 'ppl' and max(ys) > 4 * min(ys):
            log_ticks(axes.yaxis)
        if percent:
            places = [100 * getattr(run, view) for run in runs]
            axes.set_xlim(min(places) - 4, max(places) + 4)
        else:
            log_ticks(axes.xaxis, short)


def draw_training(panels, folder, runs):
    """The loss over steps of each mixture that has a log and of its controls, at most three
    languages; circles: the logarithm of quick perplexities on test text."""
    for run in runs:
        if not (folder / run.name / 'log.jsonl').exists():
            continue
        labels = dict(xlabel='optimiser steps', ylabel='loss (nats a token)')
        with panel(panels, run.name, **labels) as axes:
            for row, color in zip((run.asked if run.rows[3:] else run.rows)[:3], COLORS):
                looks = {row['reread_control']: (' re-reading', ':')}  # one control can be both
                looks |= {row['control']: (' control', '--'), run.name: ('', '-')}
                for name, (about, dash) in looks.items():
                    steps, loss = log_of(folder / name / 'log.jsonl', 'losses', row['language'])
                    if len(steps):
                        look = dict(color=color, ls=dash, lw=1.2, label=row['language'] + about)
                        axes.plot(smooth(steps), smooth(loss), **look)
                    steps, ppl = log_of(folder / name / 'log.jsonl', 'perplexity', row['language'])
                    look = dict(color=color, mfc=color if name == run.name else 'w', ms=4)
                    axes.plot(steps, np.log(ppl), 'o', **look)
            log_ticks(axes.xaxis, short)


def log_of(path, key, language):
    """Steps and values, (2, n), of the entries of a log.jsonl that have the key and language."""
    points = []
    for line in path.read_text(encoding='utf-8').splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, LookupError):  # of a line that was cut, too
            entry = json.loads(line)
            points.append((entry['step'] + 1, entry[key][language]))
    return np.reshape(points, (-1, 2)).T


def smooth(values):
    """Means over parts that grow with the step."""
    starts = np.unique(np.geomspace(1, len(values), 60).astype(int)) - 1
    return np.add.reduceat(values, starts) / np.diff([*starts, len(values)])


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
        for group in grouped([run for run in members if run.share is not None], VIEWS['share'][0]):
            title = f'{group[0].who}, {title_of(group[0], usual_of(runs), "share")}, {about}'
            draw_measure(panels, title, group, 'accuracy', 'share')


def draw_texts(panels, laws):
    """Figure 5 for each text: its monolingual runs, and the laws within their budgets."""
    texts = {}
    for law in laws:
        texts.setdefault(law['label'].partition(', ')[0], []).append(law)
    for text, members in texts.items():
        if draw_laws(members, buffer := io.BytesIO()):
            panels.append((buffer.getvalue(), f'{text}: perplexity of monolingual runs by tokens'))


# --- the pages ------------------------------------------------------------------------------------


def matrices(runs):
    """[(title, sources, targets, {(source, target): [(share of the target, row)]})] where there are
    three languages or more. In a mixture of three or more the source is all others."""
    found, usual = [], usual_of(runs)
    for group in grouped(runs, {'corpora', 'languages', 'orders', 'stages'}):
        cells, names = {}, set()
        pairs = [(row, run.languages) for run in group for row in run.rows]
        for row, languages in sorted(pairs, key=lambda pair: pair[0]['shares']):
            others = [name for name in languages if name != row['name']]
            source = 'all others' if others[1:] else ''.join(others)
            if source and (row['transfer'] is not None or row['gain'] is not None):
                share = ratio_of([[share] for share in row['shares']])
                cells.setdefault((source, row['name']), []).append((f'{share}%', row))
                names.update(languages)
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


def picture_of(path, alt=''):
    png = path.read_bytes()
    width = round(0.6 * int.from_bytes(png[16:20]))  # pixels at which 9 points can be read
    data = base64.b64encode(png).decode()
    return dict(name=path.stem, alt=alt or path.stem, width=width, data=data)


def write_page(folder, name, drawings, **values):
    """Writes folder/report/NAME.html of lib/NAME.html, and the drawings, {name: function that adds
    panels to a list}, as PNG files of their names. Returns the path of the page."""
    target, figures = folder / 'report', {}
    target.mkdir(exist_ok=True)
    for kind, draw in tqdm(drawings.items(), 'drawing', disable=None):
        draw(panels := [])
        for old in target.glob(f'{kind}_*.png'):
            old.unlink()
        for number, (png, alt) in enumerate(panels, 1):
            path = target / f'{kind}_{number}.png'
            path.write_bytes(png)
            figures.setdefault(kind, []).append(picture_of(path, alt))
    loader = FileSystemLoader(Path(__file__).resolve().parent / 'lib')
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    values |= dict(show=show, short=short, verdict=verdict, ppl_text=ppl_text, log=math.log)
    values |= dict(figures=figures, folder=folder, measures=MEASURES)
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
    drawings = {view: partial(draw_view, runs=mixes, view=view) for view in VIEWS}
    drawings |= dict(training=partial(draw_training, folder=folder, runs=mixes))
    drawings |= dict(glue=partial(draw_glue, folder=folder, runs=runs))
    drawings |= dict(laws=partial(draw_texts, laws=laws))
    values = dict(runs=runs, mixes=mixes, laws=laws, samples=samples, studies=studies, dates=dates)
    values |= dict(groups=named_groups(mixes or runs, laws), findings=findings(rows))
    values |= dict(matrices=matrices(mixes))
    return write_page(folder, 'report', drawings, **values)


def published(runs):
    """Pairs of a published run and a run of ours that repeats it, or itself where none does. Its
    rows have the paper's numbers as paper_ppl and paper_teff, as ours have."""
    pairs = []
    for theirs in load_paper_runs():
        ours = [run for run in runs if theirs['name'] in run.rows[0]['paper_rows'].split(', ')]
        scores = [(one['name'], one['ppl'], one['teff']) for one in theirs['languages']]
        keys = 'language', 'paper_ppl', 'paper_teff'
        theirs = SimpleNamespace(**theirs, rows=[dict(zip(keys, score)) for score in scores])
        pairs += [(theirs, run) for run in ours or [theirs]]
    return pairs


def paper_laws():
    """The paper's laws as scaling.json has ours."""
    for row in read_csv('paper_laws.csv'):
        language, fractions = row['language'], row['fitted_fractions'].split()
        runs = [run['languages'][0] for run in load_paper_runs() if run['kinds'] == [language]]
        tokens = UNIT * np.geomspace(float(fractions[0]), float(fractions[-1]), 60)
        curve = dict(tokens=tokens, ppl=load_paper_laws()[language].ppl(tokens))
        law = dict(label=f'{language} in the paper, GPT small', runs=runs, curve=curve)
        yield law | dict(zip(('tokens', 'ppl'), zip(*((r['tokens_seen'], r['ppl']) for r in runs))))


def write_paper(folder, laws, rows):
    """Writes folder/report/paper.html: the rows of Tables 1 and 3 and the figures of the paper, our
    runs in its setting beside them, and the commands of those that are missing."""
    ours = [run for run in runs_of(rows) if run.rows[0]['paper_rows']]
    pairs, names = published(ours), {run.name for run in ours}

    def draw(panels, number):  # Figures 1 to 4
        kinds, view = ['en', 'en' if number < 3 else 'fr'], 'share' if number % 2 else 'tokens'
        shown = [pair for pair in pairs if pair[0].kinds == kinds and pair[0].share is not None]
        shown = [pair for pair in shown if view == 'tokens' or pair[0].tokens == UNIT]
        for vocabulary, what in itertools.product(('disjoint', 'anchored'), ('ppl', 'teff')):
            chosen = [run for theirs, run in shown if theirs.vocabulary == vocabulary]
            if chosen:
                draw_measure(panels, f'GPT small, {vocabulary}', chosen, what, view)

    drawings = {f'figure{number}': partial(draw, number=number) for number in (1, 2, 3, 4)}
    laws = [*paper_laws(), *(law for law in laws if names & set(law['runs']))]
    drawings['figure5'] = partial(draw_texts, laws=laws)
    return write_page(folder, 'paper', drawings, pairs=pairs, glue=read_csv('paper_glue.csv'))


def main():
    folder = Path(out)
    laws, rows = load_scaling(folder)
    print(f'wrote {(write_paper if paper else write)(folder, laws, rows)}')
    if not paper:
        print(*findings(rows), sep='\n')


if __name__ == '__main__':
    run_script(globals(), main)
