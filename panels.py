"""Pictures of runs: what is drawn (cases), and the axes, lines and markers that all figures of the report share.

A case is a run with the languages that it was trained on, of ours or of the paper, in one form. Filled markers are
ours with 90% bars, hollow ones the paper's. Circles and full lines are the first language (the more frequent of two
clones), squares and dashed lines the second.
"""
import contextlib
import io
import json
import math
import sys
import textwrap
from collections import namedtuple

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fit_scaling import SHAPES, group_of, kind_of, label_of, load_paper_laws, load_paper_runs, trained
from power_law import short

SIZE, DPI = (5, 4), 160  # inches and dots an inch of a panel
# Okabe and Ito's colours, which colour-blind readers tell apart
LANGUAGES = ['#0072B2', '#D55E00']
RATIOS = {'50/50': '#009E73', '90/10': '#CC79A7', '10/90': '#E69F00'}
OTHERS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000']
GREY = '#555555'
MARKERS, DASHES = 'os', ['-', '--']
STYLE = {'font.size': 9, 'axes.titlesize': 9.5, 'axes.spines.top': False, 'axes.spines.right': False,
         'axes.grid': True, 'grid.alpha': 0.25, 'axes.axisbelow': True, 'legend.frameon': False,
         'legend.fontsize': 8.5}
TITLES = dict(ppl='perplexity on the test set', teff='token efficiency TEff', accuracy='accuracy after fine-tuning')
Z90 = 1.645  # standard errors to either side of a 90% interval
DRAWN_PPL = 1e6  # beyond it a perplexity is only a number of the table

Line = namedtuple('Line', 'label points color marker dash hollow', defaults=[False])  # points: (x, y, low, high)
Panel = namedtuple('Panel', 'png alt')  # bytes, and what they show in words


# --- the cases ------------------------------------------------------------------------------------------------------

def paper_size(model):
    """mini, small or medium where a model has that shape, else None."""
    return SHAPES.get((model['n_layer'], model['n_embd'])) if model['block_size'] == 512 else None


def case_of(one, rows, laws):
    """A run of ours as the figures see it; `rows` are its languages' figures from fit_scaling.analyse."""
    names, settings, model = trained(one), one['settings'], one['model']
    languages = []
    for name in names:
        entry = one['languages'][name]
        column = [row[list(one['languages']).index(name)] for row in settings['stages']]
        group = group_of(one, entry)
        languages.append(next(row for row in rows if (row['run'], row['language']) == (one['run'], name))
                         | dict(kind=kind_of(name, entry['corpus']), shares=column, group=group,
                                law=laws[group]['law'], tokenizer=entry.get('tokenizer') or ''))
    name = paper_size(model)
    weights = 4 * model['n_embd'] * model['n_head'] * model['head_dim'] + 2 * model['n_embd'] * model['mlp_dim']
    return finished(dict(
        run=one['run'], ours=True, languages=languages, paper_size=name,
        vocabulary=settings['vocabulary'] if len({row['corpus'] for row in languages}) > 1 else 'disjoint',
        anchors=round(1 - settings.get('cloned_fraction', 1), 4) if len(languages) > 1 else 0,
        size=f'GPT {name}' if name else f'{model["n_layer"]} layers of {model["n_embd"]}',
        parameters=model.get('non_embedding_parameters') or model['n_layer'] * weights,
        tokens=settings['max_steps'] * settings['batch_size'] * model['block_size'],
        rate=tuple(settings[key] for key in ('learning_rate', 'min_learning_rate', 'lr_schedule'))))


def finished(case):
    """What follows from a case's languages: their order, kind of run, ratio ('90/10') and share of the second one."""
    languages = case['languages']
    two, texts = len(languages) == 2, {row['corpus'] for row in languages}
    case['kind'] = 'alone' if len(languages) == 1 else 'many' if not two else 'pair' if len(texts) > 1 else 'clones'
    names = [row['language'] for row in languages]
    if case['kind'] == 'clones':
        languages.sort(key=lambda row: -sum(row['shares']))
    elif [row['kind'] for row in languages] == ['fr', 'en']:
        languages.reverse()
    case['turned'] = names != [row['language'] for row in languages]
    constant = all(min(row['shares']) == max(row['shares']) for row in languages)
    case['share'] = languages[1]['shares'][0] if two and constant else None
    case['ratio'] = '/'.join(f'{100 * row["shares"][0]:.3g}' for row in languages) if two and constant else ''
    case['kinds'] = tuple(row['kind'] for row in languages)
    case['text'] = tuple((row['corpus'], row.get('tokenizer', '')) for row in languages), case['vocabulary']
    case['label'] = ' + '.join(dict.fromkeys(row['corpus'] for row in languages)) + (
        f', {case["vocabulary"]}' if case['kind'] == 'pair' else '')
    return case


def cases_of(runs, laws, rows):
    cases = []
    for one in runs:
        try:
            cases.append(case_of(one, rows, laws))
        except (LookupError, TypeError, ValueError) as error:
            print(f'warning: {one["run"]} is not drawn, its results.json lacks {error}', file=sys.stderr)
    return cases


def paper_cases():
    """The published runs as cases; each row once."""
    laws, cases = load_paper_laws(), {}
    layers, width = next(shape for shape, name in SHAPES.items() if name == 'small')
    for published in load_paper_runs():
        if len(published['kinds']) > 2:
            continue
        languages = [dict(language=row['name'], corpus=row['kind'], kind=row['kind'], tokens_seen=row['tokens_seen'],
                          ppl=row['ppl'], ppl_se=0.0, teff=row['teff'], teff_interval=None, law=laws[row['kind']],
                          shares=[stage[i] for stage in published['stages']])
                     for i, row in enumerate(published['languages'])]
        case = finished(dict(
            run=published['name'], ours=False, languages=languages, paper_size=published['size'], anchors=0,
            vocabulary=published['vocabulary'].replace('-', 'disjoint'), size=f'GPT {published["size"]}',
            parameters=12 * layers * width ** 2, tokens=published['steps'] * 128 * 512, rate=()))
        cases.setdefault((case['kinds'], case['vocabulary'], case['tokens'], str(published['stages'])), case)
    return list(cases.values())


def accuracies(folder, case):
    """{task: dict(majority, languages: [(mean, low, high)])} of a run's finetune.json; empty where it has none, or was
    fine-tuned in another language than the first, as the figure has it."""
    path, found = folder / case['run'] / 'finetune.json', {}
    if not path.exists():
        return found
    try:
        results = json.loads(path.read_text(encoding='utf-8'))
        if results.get('train_language', case['languages'][0]['language']) != case['languages'][0]['language']:
            return found
        for task, entry in results['tasks'].items():
            scores = [entry['languages'][row['language']] for row in case['languages']]
            found[task] = dict(majority=float(entry['majority']), languages=[
                (float(one['mean']), *map(float, one.get('interval') or [one['mean']] * 2)) for one in scores])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        print(f'warning: {path} is damaged or of another format; not all of it is drawn', file=sys.stderr)
    return found


def mean_accuracy(tasks, names, role):
    """(mean, low, high) over the tasks `names`, whose errors are independent."""
    values = np.array([tasks[name]['languages'][role] for name in names])
    mean = values[:, 0].mean()
    below, above = (np.sqrt(((values[:, 0] - values[:, i]) ** 2).sum()) / len(values) for i in (1, 2))
    return mean, mean - below, mean + above


def alike(case, published):
    """Whether a case of ours shares axes with the paper's: the same languages, vocabulary and size of model."""
    return all(case[key] == published[key] for key in ('kind', 'kinds', 'vocabulary', 'paper_size'))


def grouped(cases, key):
    """{title: cases} of the cases that agree in `key`, those with the most runs first; no two titles are the same."""
    groups = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    titles = {}
    for members in sorted(groups.values(), key=len, reverse=True):
        first = members[0]
        title = f'{first["label"]}, {first["size"]}, {short(first["tokens"])} tokens'
        if title in titles:
            title = f'{label_of(first["languages"][0]["group"])}, {short(first["tokens"])} tokens'
        while title in titles:
            title += "'"
        titles[title] = members
    return titles


def law_groups(case):
    return tuple(row['group'] for row in case['languages']), case['vocabulary']


def mixes(cases, kind):
    """The runs of two languages at one ratio and without shared pieces."""
    return [case for case in cases if case['kind'] == kind and case['share'] is not None and not case['anchors']]


# --- drawing --------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def panel(into, title, **settings):
    """Axes to draw on; appends the Panel to the list `into`. The legend stands below, where it covers nothing."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=SIZE, dpi=DPI, layout='constrained')
        axes.set(**settings)
        axes.set_title(textwrap.fill(title, 62))
        yield axes
        # languages first, then laws and levels
        entries = sorted(zip(*axes.get_legend_handles_labels()), key=lambda entry: isinstance(entry[0], plt.Line2D))
        alt = f'{title}: {axes.get_ylabel()} by {axes.get_xlabel()}'.replace('\n', ' ')
        if any(line.get_markerfacecolor() == 'white' for line in axes.lines):
            hollow = plt.Line2D([], [], color=GREY, marker='o', mfc='white', ms=7, ls=':')
            entries.append((hollow, 'hollow: the paper'))
            alt += '; hollow markers: the paper'
        if entries:
            widest = max(len(label) for _, label in entries)
            figure.legend(*zip(*entries), loc='outside lower center', ncols=2 if widest > 16 else 3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format='png')
        plt.close(figure)
        into.append(Panel(buffer.getvalue(), alt))


def measured(row, what):
    """(value, low, high) of a language's figure with its 90% interval; None where it has none.

    A TEff beyond the law's reach is drawn where its lower limit is: at the largest budget of the law."""
    if what == 'ppl':
        half, ppl = Z90 * row['ppl_se'], row['ppl']
        return (ppl, max(ppl - half, ppl / 2), ppl + half) if ppl < DRAWN_PPL else None
    if row['teff'] is None:
        return None
    if math.isinf(row['teff']):
        limit = row['largest_budget'] / row['tokens_seen']
        return limit, limit, math.inf
    low, high = row['teff_interval'] or (row['teff'], row['teff'])
    return row['teff'], low if math.isfinite(low) else row['teff'], high


def points(cases, x_of, role, what):
    found = [(x_of(case), measured(case['languages'][role], what)) for case in cases]
    return [(x, *values) for x, values in found if values]


def draw_lines(axes, lines, what, size=5):
    """Markers of `size` points, 90% bars, lines through the means; a bar that leaves the picture ends in an arrow."""
    lines = [line for line in lines if line.points]
    if not lines:
        return
    ys = [y for line in lines for _, y, _, _ in line.points]
    top = 1.8 * max(ys)
    for line in lines:
        x, y, low, high = np.array(sorted(line.points)).T
        look = dict(mfc='white', ms=size + 4, mew=1.3, zorder=2.5) if line.hollow else dict(ms=size, zorder=3)
        if line.dash:
            at = sorted(set(x))
            axes.plot(at, [y[x == one].mean() for one in at], ls=':' if line.hollow else line.dash, lw=1.4,
                      color=line.color, zorder=2)
        axes.errorbar(x, y, [y - low, np.minimum(high, top) - y], fmt=line.marker, capsize=3, elinewidth=1.2,
                      color=line.color, label=line.label, **look)
        if (high > top).any():
            axes.plot(x[high > top], np.full((high > top).sum(), top), '^', color=line.color, ms=6)
    if what == 'teff':
        axes.axhline(1, color=GREY, lw=1, zorder=1, label='1: as a monolingual run')
    if what == 'ppl' and max(ys) > 4 * min(ys):
        log_ticks(axes, axes.yaxis)


def log_ticks(axes, axis, write='{:g}'.format):
    """A log axis with plain numbers on it."""
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)('log')
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 4, 5, 7) if high > 4 * low else (
        1, 1.2, 1.4, 1.7, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_locator(NullLocator())


def names_of(cases):
    """Names of the first and second language; a clone that is elsewhere the rarer one may be the first here."""
    return [row['language'].upper() for row in min(cases, key=lambda case: case['turned'])['languages']]


def language_line(role, label, found, hollow=False):
    """The line of the first or second language over percents, a little aside so that neither hides the other."""
    aside = [(x + 0.8 * (role - 0.5), *rest) for x, *rest in found]
    return Line(label, aside, LANGUAGES[role], MARKERS[role], DASHES[role], hollow)


def telling(cases, x_of):
    """The cases at 50/50, 90/10 and at ratios that a figure of scale shows more than once."""
    return [case for case in cases if case['ratio'] in ('50/50', '90/10')
            or len({x_of(other) for other in cases if other['ratio'] == case['ratio']}) > 1]


def ratio_lines(ours, theirs, x_of, what):
    """A line for each ratio and language: 50/50, 90/10 and what else is drawn at two places."""
    lines, extra = [], iter(OTHERS[::-1])
    wanted = {case['ratio'] for case in telling(ours or theirs, x_of)}
    wanted = sorted(wanted, key=lambda ratio: (ratio != '50/50', ratio))
    colors = {ratio: RATIOS.get(ratio) or next(extra, GREY) for ratio in wanted}
    for members, hollow in ((ours, False), (theirs, True)):
        for ratio in wanted:
            same = [case for case in members if case['ratio'] == ratio]
            for role in (0, 1) if same else ():
                label = None if hollow and ours else f'{ratio} {names_of(same)[role]}'
                lines.append(Line(label, points(same, x_of, role, what), colors[ratio], MARKERS[role], DASHES[role],
                                  hollow))
    return [line for line in lines if line.points]


def stitch(panels):
    """One PNG (bytes) of a figure's panels, two beside each other."""
    pictures = [plt.imread(io.BytesIO(one.png))[:, :, :3] for one in panels]
    if len(pictures) % 2 and len(pictures) > 1:
        pictures.append(np.ones_like(pictures[0]))
    buffer = io.BytesIO()
    plt.imsave(buffer, np.vstack([np.hstack(pictures[i:i + 2]) for i in range(0, len(pictures), 2)]), format='png')
    return buffer.getvalue()
