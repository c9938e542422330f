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
from pathlib import Path

from lib.configurator import run as run_script

import numpy as np
from jinja2 import Environment, FileSystemLoader
from tqdm import tqdm

import fit_scaling
from fit_scaling import MEASURES, by_text, cell, draw_text, load_scaling
from lib.files import write_file
from lib.laws import FORM, UNIT
from lib.paper import load_paper_runs, published_laws, read_csv
from lib.plots import COLORS, GREY, MARKERS, draw_points, log_ticks, picture
from lib.rows import caption, grouped, measured, named_groups, natural, runs_of, usual_of
from lib.runs import LENGTH, RATES
from lib.tables import ppl_text, short
from lib.tasks import TASKS, mean_over_tasks

out = 'out'  # folder of the runs; the page goes to its folder report/
least_tokens = 0  # fit the laws to budgets of at least so many tokens; 0: all
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
    seeds = f'{row["seeds"]} seeds of ' if row['seeds'] > 1 else ''
    text = f'{row["source"]} {verdict(row, "transfer") or "beside"} {row["name"]} at {run.ratio} '
    text += f'({seeds}{run.name}): PPL {ppl_text(row["ppl"])}'
    missing, epochs = [], min(4, int(1.02 * run.tokens / row['tokens_seen']))  # of equal compute
    by_hand = row['settings']['lr_schedule'] != 'wsd'  # experiment.py trains with wsd alone
    for key, label, control, kind, times in (
        ('transfer', 'transfer at equal exposures', 'control', 'control', 0),
        ('gain', 'gain over re-reading', 'reread_control', 'control that re-reads', epochs),
    ):
        if row[control]:
            known = f'{label} {cell(row, key)}'
            if row[key] is None:  # without a law
                known = f'{kind} PPL {ppl_text(row[f"{control}_ppl"])}'
            text += f'; {known}, {cell(row, f"{key}_nats")} nats'
        elif times != 1:  # else it is the mixture's compute to read once
            again = f' --epochs={times if by_hand else [times]}' if times else ''
            by = f'train.py CONFIG --only={row["language"]}' if by_hand else 'experiment.py CONFIG'
            missing.append(f'a {kind} (python {by}{again})')
    effect = verdict(row, 'gain')
    text += f': {effect}' if effect in ('helps', 'costs') else ''
    if row['teff'] is not None and not row['control']:
        text += f'; TEff {cell(row, "teff")}, from more optimiser steps or from {row["source"]}'
    needed = f'Missing: {" and ".join(missing)}' if missing else ''
    note = row['note'][:1].upper() + row['note'][1:]
    return '. '.join(filter(None, (text.replace(' [', ' [90%: ', 1), needed, note))) + '.'


def verdict(row, name):
    """What the interval of transfer or gain shows, or of its nats; '' without one."""
    for key, nothing in ((name, 1), (f'{name}_nats', 0)):
        if row[f'{key}_interval']:
            low, high = row[f'{key}_interval']
            return 'helps' if low > nothing else 'costs' if high < nothing else UNCLEAR
    return ''


# --- figures --------------------------------------------------------------------------------------

SHAPE = {'n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim'}
SIZE = SHAPE | {'stages', 'batch_size', 'max_steps'}
VIEWS = dict(  # x of a figure: the settings in which its runs may differ, title of the axis
    share=({'stages'}, 'share of {} in the training tokens'),
    tokens=({'stages'} | LENGTH, 'tokens of the training run'),
    parameters=(SIZE | RATES, 'parameters of the model without embeddings'),
    shared=({'stages', 'cloned_fraction'}, 'share of the vocabulary that both clones use'),
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


def draw_view(page, runs, view, kind='', measures=('ppl', 'teff', 'transfer', 'gain'), about=''):
    """Measures of pairs of languages, for the groups of runs that differ in the view; where no
    group has two ratios, by share for each run."""
    usual = usual_of(runs)
    groups = grouped([run for run in runs if run.share is not None], VIEWS[view][0])
    wide = [group for group in groups if len({getattr(run, view) for run in group}) > 1]
    for group in sorted(wide, key=len, reverse=True) or (groups if view == 'share' else []):
        corpora = ', '.join(dict.fromkeys(row['corpus'] for row in group[0].rows))
        title = f'{group[0].who} ({corpora}), {title_of(group[0], usual, view)}{about}'
        for what in measures:
            draw_measure(page, kind or view, title, group, view, what)


def title_of(run, usual, view, without=frozenset()):
    """What the runs of a figure have in common."""
    parts = [run.size * (view != 'parameters'), f'{short(run.tokens)} tokens' * (view != 'tokens')]
    without = without | VIEWS[view][0] | SHAPE | {'max_steps', 'corpora'}
    return ', '.join(filter(None, [*parts, caption(run.settings, usual, without)]))


def draw_measure(page, kind, title, runs, view, what):
    """A panel of a measure by the view: by share a line for each language, beside its controls and
    law; else for each ratio and language. Hollow: the paper's numbers."""
    xlabel, (ylabel, level, beside) = VIEWS[view][1], FIGURES[what]
    looks = {what: ('{}', '{}-'), f'paper_{what}': ('{}: the paper', '{}:')}
    looks |= beside if view == 'share' else {}
    lines, colors = {}, {}
    for run in sorted(runs, key=lambda run: natural(run.ratio)):
        for i, row in enumerate(run.rows):
            whose = row['language'] if view == 'share' else run.ratio
            own = whose if view == 'share' else f'{whose} {row["language"]}'
            color = colors.setdefault(whose, COLORS[len(colors) % len(COLORS)])
            for key, (label, fmt) in looks.items():
                if point := measured(row, key):
                    line = key, label.format(own), fmt.format(MARKERS[i]), color, i
                    lines.setdefault(line, []).append((getattr(run, view), *point))
    if view != 'share':  # a ratio with one place is among the others by share
        lines = {k: points for k, points in lines.items() if len({x for x, *_ in points}) > 1}
    if not {what, f'paper_{what}'} & {key for key, *_ in lines}:
        return
    with page.panel(kind, title, xlabel.format(runs[0].rows[-1]['language']), ylabel) as axes:
        xs, ys, *_ = zip(*itertools.chain(*lines.values()))
        top = 1.8 * max(1, *ys)  # longer bars leave the picture
        for (key, label, fmt, color, i), points in lines.items():
            points = [(x, y, low, min(high, 1.1 * top)) for x, y, low, high in points]
            look = dict(mfc='white', ms=9, zorder=2) if key == f'paper_{what}' else dict(ms=5)
            draw_points(axes, points, fmt, 4 * i, color=color, label=label, **look)
        if level:
            axes.axhline(1, color=GREY, lw=1, zorder=1, label=level)
        if what == 'ppl':
            log_ticks(axes.yaxis)
        if view in ('share', 'shared'):
            axes.xaxis.set_major_formatter(lambda x, _: f'{100 * x:g}%')
            axes.set_xlim(-0.05 * max(xs), 1.1 * max(xs))
        else:
            log_ticks(axes.xaxis, short)
        axes.set_ylim(top=min(top, axes.get_ylim()[1]))


LOGS = dict(reread_control=(' re-reading', ':'), control=(' control', '--'), run=('', '-'))


def draw_training(page, runs):
    """The loss over steps of each mixture that has a log and of its controls, at most three
    languages; circles: the logarithm of quick perplexities on test text."""
    for run in [run for run in runs if (page.folder / run.name / 'log.jsonl').exists()]:
        with page.panel('training', run.name, 'optimiser steps', 'loss (nats a token)') as axes:
            for row, color in zip((run.asked if run.rows[3:] else run.rows)[:3], COLORS):
                for role, (about, dash) in LOGS.items():
                    log, language = page.folder / row[role] / 'log.jsonl', row['language']
                    losses = log_of(log, 'losses', language)
                    if losses.size:
                        axes.plot(*smooth(losses), dash, color=color, label=language + about)
                    steps, ppl = log_of(log, 'perplexity', language)
                    filled = color if role == 'run' else 'w'
                    axes.plot(steps, np.log(ppl), 'o', color=color, mfc=filled, ms=4)
            log_ticks(axes.xaxis, short)


def log_of(path, key, language):
    """Steps and values, (2, n), of the entries of a log.jsonl that have the key and language."""
    points = []
    for line in path.read_text(encoding='utf-8').splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError, LookupError):  # of a line that was cut, too
            entry = json.loads(line)
            points.append((entry['step'] + 1, entry[key][language]))
    return np.reshape(points, (-1, 2)).T


def smooth(points):
    """Means of points, (2, n), over parts that grow with the step."""
    starts = np.unique(np.geomspace(1, points.shape[1], 60).astype(int)) - 1
    return np.add.reduceat(points, starts, axis=1) / np.diff([*starts, points.shape[1]])


def draw_glue(page, runs):
    """Figure 1, right: accuracy by ratio after fine-tuning in one language, mean over the tasks."""
    paper = {float(row['p_en2']): (row['en1'], row['en2']) for row in read_csv('paper_glue.csv')}
    tuned = {}
    paths = {run: page.folder / run.name / 'finetune.json' for run in runs}
    for run, path in [(run, path) for run, path in paths.items() if path.exists()]:
        try:
            results = json.loads(path.read_text(encoding='utf-8'))
            tasks = {name: task for name, task in results['tasks'].items() if 'languages' in task}
            tasks.pop('mnli_mm' if 'mnli' in tasks else '', None)  # the paper counts MNLI once
            for i, row in enumerate(run.rows):
                if any(row['language'] not in task['languages'] for task in tasks.values()):
                    continue  # a language of another corpus
                mean = mean_over_tasks(tasks.values(), row['language'])
                row |= dict(accuracy=mean['mean'], accuracy_interval=mean['interval'])
                row['majority'] = mean['majority']
                known = row['paper_rows'] and tasks.keys() == TASKS.keys() - {'mnli_mm'}
                if known and run.share in paper:
                    row['paper_accuracy'] = float(paper[run.share][i])
            about = f'fine-tuned in {results["train_language"]}, mean of {", ".join(sorted(tasks))}'
            tuned.setdefault(about, []).append(run)
        except (ValueError, LookupError, TypeError, AttributeError):
            print(f'warning: {path} is damaged; it is not drawn', file=sys.stderr)
    for about, members in tuned.items():
        draw_view(page, members, 'share', 'glue', ['accuracy'], f', {about}')


def draw_texts(page, kind, laws):
    """Figure 5 for each text: its monolingual runs, and the laws within their budgets."""
    for text, members in by_text(laws).items():
        with page.panel(kind, text, 'tokens', 'perplexity') as axes:
            draw_text(axes, members, {})


# --- the pages ------------------------------------------------------------------------------------


class Page:
    """A page, folder/report/NAME.html, and its figures, which are also PNG files beside it."""

    def __init__(self, folder, name):
        self.folder, self.figures = Path(folder), {}  # of each kind: [(path, what it shows)]
        self.path = self.folder / 'report' / f'{name}.html'
        self.path.parent.mkdir(exist_ok=True)
        for old in self.path.parent.glob(f'{name}-*.png'):
            old.unlink()
        self.progress = tqdm(desc='drawing', unit=' figures', disable=None)

    @contextlib.contextmanager
    def panel(self, kind, title, xlabel, ylabel):
        """Axes of a new figure of a kind."""
        figures = self.figures.setdefault(kind, [])
        path = self.path.with_name(f'{self.path.stem}-{kind}-{len(figures) + 1}.png')
        with picture(path, title, (4.6, 3.8)) as ((axes,),):
            axes.set(xlabel=xlabel, ylabel=ylabel)
            yield axes
        figures.append((path, f'{title}: {ylabel} by {xlabel}'))
        self.progress.update()

    def write(self, **values):
        """Writes the page from lib/NAME.html and the values; returns its path."""
        self.progress.close()
        loader = FileSystemLoader(Path(__file__).resolve().parent / 'lib')
        pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        values |= dict(measures=MEASURES, form=FORM, cell=cell, ppl_text=ppl_text, short=short)
        values |= dict(b64encode=base64.b64encode, log=math.log, time=time, verdict=verdict)
        text = pages.get_template(self.path.name).render(vars(self) | values)
        write_file(self.path, lambda file: file.write(text.encode()))
        return self.path


def write(folder, laws, rows):
    """Writes folder/report/report.html from the laws and rows of scaling.json; returns its path."""
    page, runs = Page(folder, 'report'), runs_of(rows)
    mixes = [run for run in runs if not run.monolingual]
    for view in VIEWS:
        draw_view(page, mixes, view)
    draw_training(page, mixes)
    draw_glue(page, runs)
    draw_texts(page, 'laws', laws)
    known = [run for run in mixes if any(row['transfer'] or row['gain'] for row in run.rows)]
    groups = grouped(known, {'corpora', 'languages', 'orders', 'stages'})
    groups = [g for g in groups if len(set().union(*(run.languages for run in g))) > 2]
    matrices = [(title_of(g[0], usual_of(mixes), 'share', {'orders'}), g) for g in groups]
    files = sorted(page.folder.glob('*/*.*'), key=lambda path: natural(str(path)))
    values = dict(runs=runs, mixes=mixes, laws=laws, matrices=matrices, files=files)
    return page.write(findings=findings(rows), groups=named_groups(mixes or runs, laws), **values)


def write_paper(folder, laws, rows):
    """Writes folder/report/paper.html: the rows of Tables 1 and 3 and the figures of the paper, our
    runs in its setting beside them, and the commands of those that are missing."""
    page, runs, pairs, figures = Page(folder, 'paper'), runs_of(rows), [], {}
    for theirs in load_paper_runs():
        shown = [run for run in runs if theirs.name in run.rows[0]['paper_rows'].split(', ')]
        shown = shown or [theirs]
        pairs += [(theirs, run) for run in shown]
        if theirs.share is not None:
            number = 3 if 'fr' in theirs.kinds else 1
            if theirs.tokens == UNIT:
                figures.setdefault((number, 'share', theirs.vocabulary), []).extend(shown)
            figures.setdefault((number + 1, 'tokens', theirs.vocabulary), []).extend(shown)
    for (number, view, vocabulary), members in figures.items():
        for what in ('ppl', 'teff'):
            draw_measure(page, f'figure{number}', f'GPT small, {vocabulary}', members, view, what)
    names = {run.name for _, run in pairs}
    ours = [law for law in laws if names & set(law['runs'])]
    draw_texts(page, 'figure5', [*published_laws(), *ours])
    return page.write(pairs=pairs, glue=read_csv('paper_glue.csv'))


def main():
    fit_scaling.least_tokens = least_tokens
    scaling = load_scaling(out)
    print(f'wrote {(write_paper if paper else write)(out, *scaling)}')
    if not paper:
        print(*findings(scaling[1]), sep='\n')


if __name__ == '__main__':
    run_script(globals(), main)
