"""The figures of the report: one table of what they show, and one style of drawing.

A function draws the panels of a figure, or of a part of one, and names the runs that it drew. A
line joins runs that can be compared: of one text, model and length. Filled markers are ours, hollow
ones the paper's; they share a panel where its axes mean the same for both. TEff and transfer are
ratios, which compare further than perplexities do.
"""

import contextlib
import csv
import functools
import io
import json
import math
import sys
import textwrap
from collections import namedtuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from fit_scaling import (
    RESULTS,
    SCORED,
    SHAPES,
    UNIT,
    group_of,
    kind_of,
    label_of,
    load_paper_laws,
    load_paper_runs,
    short,
    trained,
)

# --- style ----------------------------------------------------------------------------------------

plt.switch_backend('Agg')  # files only, no windows

SIZE, DPI = (5, 4), 160  # inches and dots an inch of a panel
# the colours of Okabe and Ito, which colour-blind readers can tell apart
OTHERS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000']
LANGUAGES = OTHERS[:2]
RATIOS = {'50/50': OTHERS[2], '90/10': OTHERS[3], '10/90': OTHERS[4]}
GREY = '#555555'
MARKERS, DASHES = 'os', ['-', '--']  # of the first and the second language
STYLE = {'font.size': 9, 'axes.titlesize': 9.5, 'axes.grid': True, 'grid.alpha': 0.25}
STYLE |= {'axes.spines.top': False, 'axes.spines.right': False, 'axes.axisbelow': True}
STYLE |= {'legend.frameon': False, 'legend.fontsize': 8.5}
TITLES = dict(ppl='perplexity on the test set', teff='token efficiency TEff')
TITLES |= dict(transfer='transfer', accuracy='accuracy after fine-tuning')
LEVELS = dict(teff='1: as a monolingual run', transfer='1: as its control')
Z90 = 1.645  # standard errors to either side of a 90% interval
DRAWN_PPL = 1e6  # a larger perplexity is a number of the tables only

Panel = namedtuple('Panel', 'png alt')  # bytes, and what they show in words
# points: (x, y, low, high); without a dash they are not joined
Line = namedtuple('Line', 'label points color marker dash hollow', defaults=[False])


@contextlib.contextmanager
def panel(into, title, **settings):
    """Axes to draw on; a Panel of them goes to the list `into`. The legend stands below."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=SIZE, dpi=DPI, layout='constrained')
        axes.set(**settings)
        axes.set_title(textwrap.fill(title, 62))
        yield axes
        entries = list(zip(*axes.get_legend_handles_labels()))
        entries.sort(key=lambda entry: isinstance(entry[0], plt.Line2D))  # laws and levels last
        alt = f'{title}: {axes.get_ylabel()} by {axes.get_xlabel()}'
        if any(line.get_markerfacecolor() == 'white' for line in axes.lines):
            hollow = plt.Line2D([], [], color=GREY, marker='o', mfc='white', ms=7, ls=':')
            entries.append((hollow, 'hollow: the paper'))
            alt += '; hollow markers: the paper'
        if entries:
            columns = 2 if max(len(label) for _, label in entries) > 16 else 3
            figure.legend(*zip(*entries), loc='outside lower center', ncols=columns)
        buffer = io.BytesIO()
        figure.savefig(buffer, format='png')
        plt.close(figure)
        into.append(Panel(buffer.getvalue(), alt))


def stitch(panels):
    """One PNG (bytes) of a figure's panels, two beside each other."""
    pictures = [plt.imread(io.BytesIO(panel.png))[:, :, :3] for panel in panels]
    if len(pictures) % 2 and len(pictures) > 1:
        pictures.append(np.ones_like(pictures[0]))
    rows = [np.hstack(pictures[i : i + 2]) for i in range(0, len(pictures), 2)]
    buffer = io.BytesIO()
    plt.imsave(buffer, np.vstack(rows), format='png')
    return buffer.getvalue()


def measured(row, what):
    """(value, low, high) of a language's figure and its 90% interval; None where it has none.

    A figure beyond the reach of the law stands where its lower limit is, and has no upper end."""
    if what == 'ppl':
        ppl, half = row['ppl'], Z90 * row['ppl_se']
        return (ppl, max(ppl - half, ppl / 2), ppl + half) if ppl < DRAWN_PPL else None
    value = row.get(what)
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        limit = row['largest_budget'] / row['tokens_seen']
        limit /= row['control_teff'] if what == 'transfer' else 1
        return limit, limit, math.inf
    low, high = row.get(f'{what}_interval') or (value, value)
    return value, min(low, value), max(high, value)


def points(cases, x_of, role, what):
    """(x, y, low, high) of the first (role 0) or second (1) language of each case that has them."""
    found = [(x_of(case), measured(case['languages'][role], what)) for case in cases]
    return [(x, *values) for x, values in found if values]


def draw_lines(axes, lines, what, size=5):
    """Markers, 90% bars and lines through the means; a bar that leaves the picture is an arrow."""
    lines = [line for line in lines if line.points]
    if not lines:
        return
    ys = [y for line in lines for _, y, _, _ in line.points]
    top = 1.8 * max(ys)
    for line in lines:
        x, y, low, high = np.array(sorted(line.points)).T
        look = dict(ms=size, zorder=3, color=line.color, label=line.label)
        if line.hollow:
            look |= dict(mfc='white', ms=size + 4, mew=1.3, zorder=2.5)
        if line.dash:
            places = sorted(set(x))
            means = [y[x == place].mean() for place in places]
            dash = ':' if line.hollow else line.dash
            axes.plot(places, means, ls=dash, lw=1.4, color=line.color, zorder=2)
        bars = [y - low, np.minimum(high, top) - y]
        axes.errorbar(x, y, bars, fmt=line.marker, capsize=3, elinewidth=1.2, **look)
        if (high > top).any():
            axes.plot(x[high > top], np.full((high > top).sum(), top), '^', color=line.color, ms=6)
    if what in LEVELS:
        axes.axhline(1, color=GREY, lw=1, zorder=1, label=LEVELS[what])
    if what == 'ppl' and max(ys) > 4 * min(ys):
        log_ticks(axes, axes.yaxis)


def log_ticks(axes, axis, write='{:g}'.format):
    """A log axis with plain numbers on it."""
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)('log')
    low, high = axis.get_view_interval()
    subs = (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
    if high > 4 * low:
        subs = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 4, 5, 7)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_locator(NullLocator())


# --- cases: runs as the figures see them ----------------------------------------------------------

# With another value of these a run is no plain mix of languages: it is compared with its like.
UNUSUAL = ('loss_weights', 'start_entries', 'start_noise', 'trainable', 'orders')


def case_of(run, rows, laws):
    """A run of ours as a case; rows: {(run, language): row} of fit_scaling.analyse."""
    import train  # late: it brings torch

    settings, model, languages = run['settings'], run['model'], []
    for name in trained(run):
        result = run['languages'][name]
        group, column = group_of(run, result), list(run['languages']).index(name)
        about = dict(kind=kind_of(name, result['corpus']), group=group, law=laws[group]['law'])
        about |= dict(shares=[stage[column] for stage in settings['stages']])
        languages.append(rows[run['run'], name] | about)
    shape = SHAPES.get((model['n_layer'], model['n_embd'])) if model['block_size'] == 512 else None
    weights = 4 * model['n_head'] * model['head_dim'] + 2 * model['mlp_dim']
    real = len({row['corpus'] for row in languages}) > 1
    unusual = [name for name in UNUSUAL if name in settings]
    unusual = [name for name in unusual if settings[name] != getattr(train, name, None)]
    case = dict(run=run['run'], languages=languages, paper_size=shape, rate=settings_of(settings))
    case |= dict(
        size=f'GPT {shape}' if shape else f'{model["n_layer"]} layers of {model["n_embd"]}'
    )
    case |= dict(parameters=model['n_layer'] * model['n_embd'] * weights)
    case |= dict(tokens=settings['max_steps'] * settings['batch_size'] * model['block_size'])
    case |= dict(vocabulary=settings['vocabulary'] if real else 'disjoint')
    case |= dict(shared=round(1 - settings.get('cloned_fraction', 1), 4) if languages[1:] else 0)
    case |= dict(unusual=', '.join(f'{name} {settings[name]}' for name in unusual))
    return finished(case)


def settings_of(settings):
    return tuple(settings[key] for key in ('learning_rate', 'min_learning_rate', 'lr_schedule'))


def finished(case):
    """Adds what follows from a case's languages: kind, ratio ('90/10'), share of the second."""
    languages = case['languages']
    corpora, names = [row['corpus'] for row in languages], [row['language'] for row in languages]
    kinds = {1: 'alone', 2: 'pair' if len(set(corpora)) > 1 else 'clones'}
    case['kind'] = kinds.get(len(languages), 'many')
    if case['kind'] == 'clones':
        languages.sort(key=lambda row: -sum(row['shares']))
    elif [row['kind'] for row in languages] == ['fr', 'en']:
        languages.reverse()
    case['turned'] = names != [row['language'] for row in languages]
    case['kinds'] = tuple(row['kind'] for row in languages)
    case['text'] = tuple((row['corpus'], row['group'].tokenizer) for row in languages)
    case['text'] += (case['vocabulary'],)
    constant = all(min(row['shares']) == max(row['shares']) for row in languages)
    case['share'], case['ratio'] = None, ''
    if constant and len(languages) == 2:
        case['share'] = languages[1]['shares'][0]
        case['ratio'] = '/'.join(f'{100 * row["shares"][0]:.3g}' for row in languages)
    label = [' + '.join(dict.fromkeys(corpora))]
    label += [case['vocabulary']] if case['kind'] == 'pair' else []
    case['label'] = ', '.join(label + ([case['unusual']] if case['unusual'] else []))
    return case


def cases_of(runs, laws, rows):
    """The cases of all runs but the controls, which are no mixes."""
    cases, by_name = [], {(row['run'], row['language']): row for row in rows}
    for run in runs:
        try:
            if not run['settings'].get('only'):
                cases.append(case_of(run, by_name, laws))
        except (LookupError, TypeError, ValueError) as error:
            print(
                f'warning: {run["run"]} is not drawn: its results.json lacks {error}',
                file=sys.stderr,
            )
    return cases


@functools.cache
def paper_cases():
    """The published runs of one or two languages as cases, each once."""
    laws, cases = load_paper_laws(), {}
    layers, width = next(shape for shape, size in SHAPES.items() if size == 'small')
    group = namedtuple('PaperGroup', 'tokenizer')('')
    for run in load_paper_runs():
        if len(run['kinds']) > 2:
            continue
        languages = []
        for i, row in enumerate(run['languages']):
            shares = [stage[i] for stage in run['stages']]
            about = dict(language=row['name'], corpus=row['kind'], ppl_se=0.0, group=group)
            languages.append(row | about | dict(shares=shares, law=laws[row['kind']]))
        case = dict(run=run['name'], languages=languages, paper_size=run['size'], rate=())
        case |= dict(size=f'GPT {run["size"]}', parameters=12 * layers * width**2, unusual='')
        case |= dict(tokens=run['steps'] * 128 * 512, shared=0)
        case = finished(case | dict(vocabulary=run['vocabulary'].replace('-', 'disjoint')))
        key = case['kinds'], case['vocabulary'], case['tokens'], str(run['stages'])
        cases.setdefault(key, case)
    return list(cases.values())


def alike(case, published):
    """Whether a case of ours has the languages, vocabulary and model size of the paper's."""
    if case['unusual']:
        return False
    return all(case[key] == published[key] for key in ('kind', 'kinds', 'vocabulary', 'paper_size'))


def same_length(case, other):
    return short(case['tokens']) == short(other['tokens'])


def laws_of(case):
    """What runs share whose perplexities compare: text, model, optimisation, unusual settings."""
    return tuple(row['group'] for row in case['languages']), case['vocabulary'], case['unusual']


def all_but_ratio(case):
    return laws_of(case), case['shared'], short(case['tokens'])


def grouped(cases, key):
    """{title: cases} of cases that agree in `key`: plain mixes first, then by number of cases."""
    groups, titles = {}, {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)

    def order(members):
        return bool(members[0]['unusual'] or members[0]['shared']), -len(members)

    for members in sorted(groups.values(), key=order):
        first, shared = members[0], {case['shared'] for case in members}
        rest = f'{short(first["tokens"])} tokens'
        if len(shared) == 1 and first['shared']:
            rest += f', {first["shared"]:.0%} of the pieces shared'
        title = f'{first["label"]}, {first["size"]}, {rest}'
        if title in titles:
            title = f'{label_of(first["languages"][0]["group"])}, {rest}'
        while title in titles:
            title += "'"
        titles[title] = members
    return titles


def mixes(cases, *kinds):
    """The runs of two languages at one ratio."""
    return [case for case in cases if case['kind'] in kinds and case['share'] is not None]


def plain_mixes(cases, kind):
    return [case for case in mixes(cases, kind) if not (case['shared'] or case['unusual'])]


def names_of(cases):
    """Names of both languages; a clone that is the rarer one elsewhere may be the first here."""
    return [row['language'].upper() for row in min(cases, key=lambda c: c['turned'])['languages']]


# --- Figures 1 and 3: by ratio --------------------------------------------------------------------


def language_line(role, label, values, hollow=False, control=False):
    """A language's line over percents, a little aside so that neither hides the other."""
    aside = [(x + 0.8 * (role - 0.5) + 0.6 * control, *rest) for x, *rest in values]
    marker, dash = ('x', '-.') if control else (MARKERS[role], DASHES[role])
    return Line(label, aside, LANGUAGES[role], marker, dash, hollow)


def ratio_panels(cases, kind):
    """PPL, TEff and transfer by the share of the second language, for each group of runs that
    differ in nothing else.

    Of the groups of a text those with three ratios are drawn, or else the first with the most."""
    panels, papers, drawn, vocabularies = [], [], set(), set()
    groups = grouped(mixes(cases, kind), all_but_ratio)
    count = {title: len({case['share'] for case in members}) for title, members in groups.items()}
    for title, members in groups.items():
        first = members[0]
        rivals = [other for other in groups if groups[other][0]['text'] == first['text']]
        special = first['unusual'] or first['shared']
        most = title == max(rivals, key=count.get) and not special
        if not (most or count[title] >= (2 if special else 3)):
            continue
        theirs = mixes(paper_cases(), kind)
        theirs = [p for p in theirs if p['vocabulary'] == first['vocabulary']]
        same = [p for p in theirs if alike(first, p) and same_length(first, p)]
        standard = [p for p in theirs if p['tokens'] == UNIT]
        ratio_panel(panels, title, members, same, 'ppl')
        rows = [row for case in members for row in case['languages']]
        if any(row['teff'] is not None for row in rows):
            ratio_panel(panels, title, members, same or standard, 'teff')
        if any(measured(row, 'transfer') for row in rows):
            ratio_panel(panels, title, members, [], 'transfer')
        if not same and first['vocabulary'] not in vocabularies:
            about = f', {first["vocabulary"]}' if kind == 'pair' else ''
            title = f'the paper: GPT small, 1.2B tokens{about}'
            ratio_panel(papers, title, [], standard, 'ppl')
        vocabularies.add(first['vocabulary'])
        drawn |= {case['run'] for case in members}
    return panels + papers, drawn


def ratio_panel(panels, title, ours, theirs, what):
    shown = ours or theirs
    names, lines = names_of(shown), []
    for cases, hollow in ((ours, False), (theirs, True)):
        for role in (0, 1):
            values = points(cases, lambda case: 100 * case['share'], role, what)
            label = names[role] if cases is shown else None
            lines.append(language_line(role, label, values, hollow))
    for role in (0, 1) if what == 'teff' else ():
        values = points(ours, lambda case: 100 * case['share'], role, 'control_teff')
        lines.append(language_line(role, f"{names[role]}'s control", values, control=True))
    with panel(panels, title, xlabel=share_of(names), ylabel=TITLES[what]) as axes:
        draw_lines(axes, lines, what)
        shares = np.linspace(*(end(case['share'] for case in shown) for end in (min, max)), 100)
        for role, part in enumerate((1 - shares, shares)):
            law = shown[0]['languages'][role]['law']
            if what == 'ppl' and law and shares[0] < shares[-1]:
                y = law.ppl(part * shown[0]['tokens'])
                look = dict(ls='-.', lw=1, color=LANGUAGES[role], alpha=0.7)
                look['label'] = f'{names[role]} alone on its share (law)'
                axes.plot(100 * shares, np.where(y < DRAWN_PPL, y, np.nan), **look)
        ratio_axis(axes, shown[0]['kind'])


def share_of(names):
    return f'share of {names[1]} in the training tokens (%)'


def ratio_axis(axes, kind):
    """Percent of the second language; of clones, which are alike, it is the rarer one."""
    clones = kind == 'clones'
    axes.set_xlim(0, 53 if clones else 100)
    axes.set_xticks([5, 10, 20, 30, 40, 50] if clones else range(0, 101, 10))


def accuracies(root, case):
    """{task: dict(majority, languages: [(mean, low, high)])} of a run's finetune.json, where it was
    fine-tuned in the first language, as in the figure; else empty."""
    path, tasks, first = root / case['run'] / 'finetune.json', {}, case['languages'][0]['language']
    if not path.exists():
        return tasks
    try:
        results = json.loads(path.read_text(encoding='utf-8'))
        if results.get('train_language', first) != first:
            return tasks
        for task, entry in results['tasks'].items():
            scores = [entry['languages'][row['language']] for row in case['languages']]
            values = [(s['mean'], *(s.get('interval') or [s['mean']] * 2)) for s in scores]
            tasks[task] = dict(majority=float(entry['majority']), languages=np.array(values, float))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        print(f'warning: {path} is damaged; not all of it is drawn', file=sys.stderr)
    return tasks


def mean_accuracy(tasks, names, role):
    """(mean, low, high) over the tasks `names`, whose errors are independent."""
    values = np.array([tasks[name]['languages'][role] for name in names])
    mean = values[:, 0].mean()
    below, above = (np.linalg.norm(values[:, 0] - values[:, i]) / len(values) for i in (1, 2))
    return mean, mean - below, mean + above


def glue_panels(cases, root):
    """Figure 1, right: accuracy by ratio after fine-tuning in the first language, a mean over the
    tasks that all runs of a group have; the paper's is the mean over its ten."""
    panels, drawn = [], set()
    tasks_of = {case['run']: accuracies(root, case) for case in mixes(cases, 'clones')}
    tuned = [case for case in mixes(cases, 'clones') if tasks_of[case['run']]]
    published = list(csv.DictReader((RESULTS / 'paper_glue.csv').open(encoding='utf-8')))
    for title, members in grouped(tuned, all_but_ratio).items():
        tasks = sorted(set.intersection(*(set(tasks_of[case['run']]) for case in members)))
        if not tasks:
            continue
        names, lines = names_of(members), []
        for role in (0, 1):
            means = [mean_accuracy(tasks_of[case['run']], tasks, role) for case in members]
            values = [(100 * case['share'], *mean) for case, mean in zip(members, means)]
            lines.append(language_line(role, names[role], values))
        for role, column in enumerate(('en1', 'en2')):
            values = [(100 * float(row['p_en2']), *[float(row[column])] * 3) for row in published]
            lines.append(language_line(role, None, values, hollow=True))
        title += f'; mean of {", ".join(tasks)} (the paper: of ten)'
        with panel(panels, title, xlabel=share_of(names), ylabel=TITLES['accuracy']) as axes:
            draw_lines(axes, lines, 'accuracy')
            majority = np.mean([tasks_of[members[0]['run']][task]['majority'] for task in tasks])
            axes.axhline(majority, color=GREY, ls='-.', lw=1, label='majority class')
            ratio_axis(axes, 'clones')
        drawn |= {case['run'] for case in members}
    return panels, drawn


# --- Figures 2, 4, 9, 10: more data, other sizes --------------------------------------------------

SCALES = dict(tokens='tokens of the training run', parameters='model, by its parameters')
SCALES |= dict(both='model and tokens of the run')


def place(case, by):
    """Where a case stands on the axis `by`: what makes cases stand together."""
    tokens = short(case['tokens'])
    return {'tokens': tokens, 'parameters': case['size'], 'both': (case['size'], tokens)}[by]


def fixed(case, by):
    """What the runs of a panel have in common."""
    if by == 'tokens':
        return case['text'], laws_of(case)
    return case['text'], case['rate'], by == 'both' or short(case['tokens'])


def telling(cases, by):
    """The cases at 50/50 and 90/10, and those of ratios that stand at more than one place."""
    places = {}
    for case in cases:
        places.setdefault(case['ratio'], set()).add(place(case, by))
    return [c for c in cases if c['ratio'] in ('50/50', '90/10') or len(places[c['ratio']]) > 1]


def reach(cases, by):
    """How many places one ratio has, then how many cases there are."""
    ratios = {case['ratio'] for case in cases}
    counts = [len({place(c, by) for c in cases if c['ratio'] == ratio}) for ratio in ratios]
    return max(counts, default=0), len(cases)


def scale_panels(cases, kind, by):
    """PPL and TEff of each ratio by tokens, parameters or both: of each text and learning rate the
    runs of one model, or of one length, that stand at the most places."""
    panels, drawn, pools = [], set(), {}
    for case in plain_mixes(cases, kind):
        pool = pools.setdefault((case['text'], case['rate']), {})
        pool.setdefault(fixed(case, by), []).append(case)
    published = [p for p in mixes(paper_cases(), kind) if p['ratio'] in RATIOS]
    compared = False
    for pool in pools.values():
        ours = telling(max(pool.values(), key=lambda members: reach(members, by)), by)
        if reach(ours, by)[0] < 2:
            continue

        def beside(p, ours=ours):
            return any(alike(c, p) and (by == 'tokens' or same_length(c, p)) for c in ours)

        theirs = [p for p in published if beside(p)]
        scale_pair(panels, ours, theirs, by)
        drawn |= {case['run'] for case in ours}
        compared = compared or bool(theirs)
    if panels and not compared and by == 'tokens':
        vocabulary = 'anchored' if kind == 'pair' else 'disjoint'
        scale_pair(panels, [], [p for p in published if p['vocabulary'] == vocabulary], by)
    return panels, drawn


def scale_pair(panels, ours, theirs, by):
    """The panels of PPL and TEff; their axes have a tick for each place, to scale but for both."""
    shown = ours or theirs
    order = sorted(theirs + ours, key=lambda case: (case['parameters'], case['tokens']))
    ticks = {place(case, by): index for index, case in enumerate(order)}
    ticks = {at: index for index, at in enumerate(dict.fromkeys(ticks))}
    if by != 'both':
        ticks |= {place(case, by): math.log2(case[by]) for case in theirs + ours}  # ours wins
    text = shown[0]['label'] if ours else 'the paper'
    about = dict(tokens=shown[0]['size'], parameters=f'{short(shown[0]["tokens"])} tokens', both='')
    for what in ('ppl', 'teff'):
        lines = ratio_lines(ours, theirs, lambda case: ticks[place(case, by)], what, by)
        if all(line.hollow == bool(ours) for line in lines):
            continue
        if by == 'both':
            lines = side_by_side(lines)
        title = ', '.join(filter(None, (text, about[by])))
        with panel(panels, title, ylabel=TITLES[what], xlabel=SCALES[by]) as axes:
            draw_lines(axes, lines, what, size=5 if len(ticks) < 7 else 4)
            names = [at if by == 'tokens' else label_of_place(at) for at in ticks]
            crowded = len(ticks) > 6
            axes.set_xticks(list(ticks.values()), names, rotation=90 if crowded else 0)
            axes.margins(x=0.12)


def label_of_place(at):
    size, *tokens = [at] if isinstance(at, str) else at
    return '\n'.join([size.removeprefix('GPT ').replace('layers of', 'x'), *tokens])


def ratio_lines(ours, theirs, x_of, what, by):
    """A line for each ratio and language: 50/50, 90/10 and what else is drawn at two places."""
    lines, extra = [], iter(OTHERS[::-1])
    ratios = sorted({case['ratio'] for case in telling(ours or theirs, by)})
    colors = {ratio: RATIOS.get(ratio) or next(extra, GREY) for ratio in ratios}
    for cases, hollow in ((ours, False), (theirs, True)):
        for ratio in ratios:
            same = [case for case in cases if case['ratio'] == ratio]
            for role in (0, 1) if same else ():
                label = None if hollow and ours else f'{ratio} {names_of(same)[role]}'
                look = colors[ratio], MARKERS[role], DASHES[role], hollow
                lines.append(Line(label, points(same, x_of, role, what), *look))
    return [line for line in lines if line.points]


def side_by_side(lines):
    """The lines without their dashes, each series a little aside of the others."""
    series = list(dict.fromkeys((line.color, line.marker) for line in lines))
    shift = {key: 0.7 * ((i + 0.5) / len(series) - 0.5) for i, key in enumerate(series)}
    moved = []
    for line in lines:
        aside = [(x + shift[line.color, line.marker], *rest) for x, *rest in line.points]
        moved.append(line._replace(points=aside, dash=''))
    return moved


# --- Figures 5 and 8 ------------------------------------------------------------------------------


def law_panels(laws):
    """Figure 5: the monolingual runs of each text, with the law of each model and its 90% band."""
    panels, drawn, texts = [], set(), {}
    for group, entry in laws.items():
        if entry['runs']:
            key = (group.corpus, *(getattr(group, name) for name in SCORED))
            texts.setdefault(key, {})[group] = entry
    for models in sorted(texts.values(), key=lambda models: -len(models)):
        corpus, lines, sizes = next(iter(models)).corpus, [], [size_of(group) for group in models]
        with panel(panels, corpus, xlabel=SCALES['tokens'], ylabel=TITLES['ppl']) as axes:
            for color, (group, entry) in zip(OTHERS * len(models), models.items()):
                label = size_of(group) if sizes.count(size_of(group)) == 1 else label_of(group)
                label = textwrap.fill(label + ('' if entry['law'] else ' (no law)'), 40)
                rows = [dict(ppl=p, ppl_se=se) for p, se in zip(entry['ppl'], entry['ppl_se'])]
                values = [(x, measured(row, 'ppl')) for x, row in zip(entry['tokens'], rows)]
                values = [(x, *value) for x, value in values if value]
                lines.append(Line(label, values, color, 'o', ''))
                if entry['law']:
                    draw_law(axes, entry['law'], color)
                drawn |= set(entry['runs'])
            kind = kind_of('', corpus)
            theirs = [p for p in paper_cases() if p['kind'] == 'alone' and p['kinds'] == (kind,)]
            if theirs and 'GPT small' in sizes:
                law, x = theirs[0]['languages'][0]['law'], np.geomspace(0.05, 3, 100) * UNIT
                axes.plot(x, law.ppl(x), ':', color=GREY, label="the paper's law, GPT small")
                values = points(theirs, lambda case: case['tokens'], 0, 'ppl')
                lines.append(Line(None, values, GREY, 'o', '', True))
            draw_lines(axes, lines, 'ppl')
            log_ticks(axes, axes.xaxis, short)
            log_ticks(axes, axes.yaxis)
    return panels, drawn


def size_of(group):
    name = SHAPES.get((group.n_layer, group.n_embd)) if group.block_size == 512 else None
    return f'GPT {name}' if name else f'{group.n_layer} layers of {group.n_embd}'


def draw_law(axes, law, color):
    """A law over its budgets, dashed a little beyond them."""
    low, high = min(law.fitted_tokens), max(law.fitted_tokens)
    inside, wider = np.geomspace(low, high, 100), np.geomspace(low / 1.5, 2.5 * high, 100)
    y = np.where(law.ppl(wider) < DRAWN_PPL, law.ppl(wider), np.nan)
    axes.plot(wider, y, '--', lw=1, color=color)
    axes.plot(inside, law.ppl(inside), lw=1.6, color=color)
    if law.draws:
        ends = np.minimum(law.ppl_interval(inside), DRAWN_PPL)
        axes.fill_between(inside, *ends, color=color, alpha=0.15, lw=0)


def shared_panels(cases):
    """Figure 8: PPL of two balanced clones by the share of pieces that they have in common. With
    all in common there is one language, whose law is the level to reach."""
    panels, drawn = [], set()
    balanced = [c for c in mixes(cases, 'clones') if c['ratio'] == '50/50' and not c['unusual']]
    for title, members in grouped(balanced, lambda c: (laws_of(c), short(c['tokens']))).items():
        if not any(case['shared'] for case in members):
            continue
        theirs = [p for p in mixes(paper_cases(), 'clones') if p['ratio'] == '50/50']
        theirs = [p for p in theirs if alike(members[0], p) and same_length(members[0], p)]
        lines = []
        for shown, hollow in ((members, False), (theirs, True)):
            for role in (0, 1):
                label = None if hollow else names_of(shown)[role]
                values = points(shown, lambda case: 100 * case['shared'], role, 'ppl')
                lines.append(language_line(role, label, values, hollow))
        xlabel = 'share of the vocabulary that both clones use (%)'
        with panel(panels, title, xlabel=xlabel, ylabel=TITLES['ppl']) as axes:
            draw_lines(axes, lines, 'ppl')
            law = members[0]['languages'][0]['law']
            if law and law.ppl(members[0]['tokens']) < DRAWN_PPL:
                level = law.ppl(members[0]['tokens'])
                label = 'one language alone on all tokens (law)'
                axes.axhline(level, color=GREY, ls='-.', lw=1, label=label)
            axes.set_xlim(-4, 104)
        drawn |= {case['run'] for case in members}
    return panels, drawn


# --- the table of figures -------------------------------------------------------------------------

# What is drawn: {part: function of (cases, laws, folder of the runs)}. Commands: the heading of
# config/README.md under which they stand.
Figure = namedtuple('Figure', 'title claim parts commands')


def by_ratio(kind):
    return lambda cases, laws, root: ratio_panels(cases, kind)


def by_scale(kind, by):
    return lambda cases, laws, root: scale_panels(cases, kind, by)


def scales(kind):
    return {'more data': by_scale(kind, 'tokens'), 'model sizes': by_scale(kind, 'parameters')}


FIGURES = {
    '1': Figure(
        'two clones by ratio',
        'Section 4.2, Takeaway 2: two clones in equal parts hardly help each other, but the rarer '
        'of two unequal clones does much better than a model that saw its tokens alone: at 90/10 '
        'as if it had seen twice as many. So it is for tasks that are learnt in EN1 and asked in '
        'EN2.',
        {
            'perplexity, TEff and transfer': by_ratio('clones'),
            'accuracy on GLUE': lambda cases, laws, root: glue_panels(cases, root),
        },
        'Figure 1',
    ),
    '2': Figure(
        'two clones, more data and larger models',
        'Section 4.4, Takeaway 4: with longer training and with larger models 90/10 gains on '
        '50/50, until it is better in both languages.',
        scales('clones'),
        'Figure 2',
    ),
    '3': Figure(
        'English and French by ratio',
        'Section 5.2, Takeaway 6: the rarer of two real languages gains, too, but less than a '
        'clone would, and less with disjoint vocabularies; equal parts are the worst for TEff.',
        {'': by_ratio('pair')},
        'Figure 3',
    ),
    '4': Figure(
        'English and French, more data and larger models',
        'Section 5.3, Takeaway 7: with longer training the rarer real language loses what it '
        'gained at 90/10, unlike a clone; larger models help it.',
        scales('pair'),
        'Figure 4',
    ),
    '5': Figure(
        'monolingual perplexity by tokens',
        'Section 3, Appendix B: the perplexity of one language falls with its tokens by a power '
        'law. The law turns a perplexity into tokens, and so gives TEff its meaning.',
        {'': lambda cases, laws, root: law_panels(laws)},
        'Figure 5',
    ),
    '8': Figure(
        'two clones with anchor points',
        'Appendix D.1: a few pieces that both clones share already lower the perplexity of both '
        'by much.',
        {'': lambda cases, laws, root: shared_panels(cases)},
        'Figure 8',
    ),
    '9': Figure(
        'two clones, all sizes and amounts of data',
        'Appendix E: what Figure 2 shows along two lines, for all combinations.',
        {'': by_scale('clones', 'both')},
        'Figure 9',
    ),
    '10': Figure(
        'English and French, all sizes and amounts of data',
        'Appendix E: what Figure 4 shows along two lines, for all combinations.',
        {'': by_scale('pair', 'both')},
        'Figure 9',
    ),
}
