"""Figures 1 to 5 and 8 to 10 from whatever runs exist, what the paper says of each, and the commands that make them.

A function draws the panels of a figure or of a part of it and returns them with the names of the runs that it drew.
Our runs are grouped by text, model and tokens, so that lines join what can be compared; the paper's points stand
beside them where the axes mean the same. TEff is a ratio and compares further than perplexity does.
"""
import contextlib
import csv
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

from fit_scaling import (RESULTS, SHAPES, UNIT, group_of, kind_of, label_of, load_paper_laws, load_paper_runs, short,
                         trained)

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

# --- what the paper says, and what makes it (config/README.md has the same by experiment) ---------------------------

ROWS = {('1', 2): 'table1_row01.py --max_steps=9132 --out_dir=out/table1_row02',
        ('1', 3): 'table1_row01.py --max_steps=1826 --out_dir=out/table1_row03',
        ('1', 10): 'table1_row04.py config/data_2x.py', ('1', 12): 'table1_row04.py config/data_3x.py',
        ('1', 11): 'table1_row09.py config/data_2x.py', ('1', 13): 'table1_row09.py config/data_3x.py',
        ('3', 5): 'table3_row04.py --max_steps=9132 --out_dir=out/table3_row05',
        ('3', 6): 'table3_row04.py --max_steps=1826 --out_dir=out/table3_row06',
        ('3', 17): 'table3_row11.py config/data_2x.py', ('3', 19): 'table3_row11.py config/data_3x.py',
        ('3', 18): 'table3_row14.py config/data_2x.py', ('3', 20): 'table3_row14.py config/data_3x.py'}
BUDGETS = '913 1826 3653 5480 7306 9132 10959 12786 14612 15525 16438 17352 18265 27398 36530 54795'


def commands(*rows, behind=('',)):
    """A line for each config of `rows` with each config of `behind` after it."""
    return '\n'.join(f'python train.py config/{row}.py' + (f' config/{more}.py' if more else '')
                     for row in rows for more in behind)


def sweep(config, name, shares):
    """A loop over the percentages of the first language."""
    return (f'for p in {shares}; do\n  python train.py config/{config}.py '
            f'"--stages=[[0.$p,0.$((100 - p))]]" --out_dir=out/{name}_$p\ndone')


def all_sizes(rows):
    return (f'for row in {" ".join(rows)}; do\n'
            '  for data in "" config/data_2x.py config/data_3x.py config/data_4x.py; do\n'
            '    for size in "" config/size_mini.py config/size_medium.py; do\n'
            '      python train.py config/$row.py $size $data\n    done\n  done\ndone')


MONOLINGUAL = """for steps in 80 200 400 800; do
  python train.py CONFIG.py --corpora=[CORPUS] --languages=[en] --stages=[[1.0]] --max_steps=$steps \\
    --out_dir=out/NAME_$steps
done"""
LAWS = f"""for steps in {BUDGETS}; do
  python train.py config/table1_row01.py --max_steps=$steps --out_dir=out/mono_en_$steps
  python train.py config/table3_row04.py --max_steps=$steps --out_dir=out/mono_fr_$steps
done
python fit_scaling.py"""
GLUE = """for run in table1_row04 clones_60 clones_70 clones_80 table1_row05 clones_95_5; do
  python finetune.py --out_dir=out/$run --glue_dir=FOLDER --train_language=en1
done"""
ANCHORS = """python train.py config/anchors.py
for cloned in 0.95 0.75 0.5 0.25; do
  python train.py config/anchors.py --cloned_fraction=$cloned --out_dir=out/anchors_$cloned
done
python train.py config/table1_row04.py"""
STUDIES = 'python analyze.py --out_dir=out/RUN --study=all'
CLONES, ANCHORED = ['table1_row04', 'table1_row05'], ['table3_row11', 'table3_row12']
DATA, SIZES = ['data_2x', 'data_3x', 'data_4x'], ['size_mini', 'size_medium']


def more_data_and_sizes(rows):
    return [('more data', commands(*rows, behind=['', *DATA])), ('model sizes', commands(*rows, behind=['', *SIZES]))]


FIGURES = {  # number: (title, what the paper says, [(part, the commands that make it)])
    '1': ('two clones by ratio',
          'Section 4.2, Takeaway 2: two clones in equal parts hardly help each other, but the rarer of two unequal '
          'ones does much better than a model that saw its tokens alone, at 90/10 as if it had seen twice as '
          'many. So it is for tasks that are learnt in EN1 and asked in EN2.',
          [('perplexity and TEff', commands('table1_row04', 'table1_row05', 'clones_95_5') + '\n'
            + sweep('clones_95_5', 'clones', '80 70 60')), ('accuracy on GLUE', GLUE)]),
    '2': ('two clones, more data and larger models',
          'Section 4.4, Takeaway 4: with longer training and with larger models 90/10 gains on 50/50, until it is '
          'better in both languages.', more_data_and_sizes(CLONES)),
    '3': ('English and French by ratio',
          'Section 5.2, Takeaway 6: the rarer of two real languages gains, too, but less than a clone would, and '
          'less with disjoint vocabularies; equal parts are the worst for TEff.',
          [('', '\n'.join([commands(*(f'table3_row{row}' for row in ('07', '08', '09', '11', '12', '13')),
                                    'fr_anchored_95_5', 'fr_disjoint_95_5'),
                           sweep('fr_anchored_95_5', 'fr_anchored', '80 70 60 40 30 20'),
                           sweep('fr_disjoint_95_5', 'fr_disjoint', '80 70 60 40 30 20')]))]),
    '4': ('English and French, more data and larger models',
          'Section 5.3, Takeaway 7: with longer training the rarer real language loses what it gained at 90/10, '
          'unlike a clone; larger models help it.', more_data_and_sizes(ANCHORED)),
    '5': ('monolingual perplexity by tokens',
          'Section 3, Appendix B: how the perplexity of one language falls with its tokens follows a power law. '
          'The law turns a perplexity into tokens, and so says what the other languages were worth.', [('', LAWS)]),
    '8': ('two clones with anchor points',
          'Appendix D.1: a few pieces that both clones share already lower the perplexity of both by much.',
          [('', ANCHORS)]),
    '9': ('two clones, all sizes and amounts of data',
          'Appendix E: what Figure 2 shows along two lines, for all combinations.', [('', all_sizes(CLONES))]),
    '10': ('English and French, all sizes and amounts of data',
           'Appendix E: what Figure 4 shows along two lines, for all combinations.', [('', all_sizes(ANCHORED))]),
}
TABLES = {  # number: (title, what the paper says)
    '1': ('clones of English',
          'Sections 4.1 to 4.5, Takeaways 1, 3 and 5: equal parts cost tokens (row 4), an unequal mix makes the '
          'rarer clone cheap (row 5), ten clones profit even when balanced, and more with a main language (rows 6 '
          'and 7), and a mix that is unequal at each time but balanced over the run can beat equal parts in both '
          '(rows 9 to 13).'),
    '3': ('English and French',
          'Sections 5.1 to 5.4, Takeaways 6 and 8: between real languages the rarer one gains less, more with a '
          'shared vocabulary (rows 7 to 13), and no schedule was found that helps both (rows 10 and 14 to 20).'),
}


def row_command(table, row):
    """The command that makes a row of the paper's tables."""
    if table == '3' and row <= 3:
        table = '1'
    return f'python train.py config/{ROWS.get((table, row), f"table{table}_row{row:02}.py")}'


# --- Figures 1 and 3: by ratio --------------------------------------------------------------------------------------

def by_length(case):
    """What runs share that differ in their mix alone."""
    return law_groups(case), short(case['tokens'])


def ratio_panels(cases, published, kind):
    """PPL and TEff by the share of the second language, for each group of runs that differ in nothing else.

    Of the groups of a text those with three ratios and more are drawn, or else the one with the most: the pairs of
    50/50 and 90/10 at other sizes are for the figures of scale."""
    panels, papers, drawn, shown, ratios = [], [], set(), set(), {}
    groups = grouped(mixes(cases, kind), by_length)
    for title, members in groups.items():
        ratios.setdefault(members[0]['text'], {})[title] = len({case['share'] for case in members})
    for title, members in groups.items():
        others, first = ratios[members[0]['text']], members[0]
        if others[title] < 3 and title != max(others, key=others.get):
            continue
        theirs = [p for p in mixes(published, kind) if p['vocabulary'] == first['vocabulary']]
        same = [p for p in theirs if alike(first, p) and short(p['tokens']) == short(first['tokens'])]
        standard = [p for p in theirs if p['tokens'] == UNIT]
        ratio_panel(panels, title, members, same, 'ppl')
        if any(row['teff'] is not None for case in members for row in case['languages']):
            ratio_panel(panels, title, members, same or standard, 'teff')
        if not same and first['vocabulary'] not in shown:
            about = f', {first["vocabulary"]}' if kind == 'pair' else ''
            ratio_panel(papers, f'the paper: GPT small, 1.2B tokens{about}', [], standard, 'ppl')
        shown.add(first['vocabulary'])
        drawn |= {case['run'] for case in members}
    return panels + papers, drawn


def ratio_panel(panels, title, ours, theirs, what):
    shown = ours or theirs
    names = names_of(shown)
    with panel(panels, title, xlabel=f'share of {names[1]} in the training tokens (%)', ylabel=TITLES[what]) as axes:
        draw_lines(axes, [
            language_line(role, names[role] if cases is shown else None,
                          points(cases, lambda case: 100 * case['share'], role, what), hollow)
            for cases, hollow in ((ours, False), (theirs, True)) for role in (0, 1)], what)
        shares = np.linspace(min(case['share'] for case in shown), max(case['share'] for case in shown), 100)
        for role, part in enumerate((1 - shares, shares)):
            law = shown[0]['languages'][role]['law']
            if what == 'ppl' and law and shares[0] < shares[-1]:
                y = law.ppl(part * shown[0]['tokens'])
                axes.plot(100 * shares, np.where(y < DRAWN_PPL, y, np.nan), ls='-.', lw=1, color=LANGUAGES[role],
                          alpha=0.7, label=f'{names[role]} alone on its share (law)')
        ratio_axis(axes, shown[0]['kind'])


def ratio_axis(axes, kind):
    """Percent of the second language; of clones, which are alike, it is the rarer one."""
    if kind == 'clones':
        axes.set(xlim=(0, 53), xticks=[5, 10, 20, 30, 40, 50])
    else:
        axes.set(xlim=(0, 100), xticks=range(0, 101, 10))


def glue_panels(cases, folder):
    """Figure 1, right: accuracy by ratio of models fine-tuned in the first language, mean over the tasks that all
    runs of a group have; the paper's is the mean over its ten."""
    panels, drawn = [], set()
    tasks_of = {case['run']: tasks for case in mixes(cases, 'clones') if (tasks := accuracies(folder, case))}
    theirs = list(csv.DictReader((RESULTS / 'paper_glue.csv').read_text(encoding='utf-8').splitlines()))
    tuned = [case for case in mixes(cases, 'clones') if case['run'] in tasks_of]
    for title, members in grouped(tuned, by_length).items():
        tasks = sorted(set.intersection(*(set(tasks_of[case['run']]) for case in members)))
        if not tasks:
            continue
        names = names_of(members)
        with panel(panels, f'{title}; mean of {", ".join(tasks)} (the paper: of ten)', ylabel=TITLES['accuracy'],
                   xlabel=f'share of {names[1]} in the training tokens (%)') as axes:
            lines = [language_line(role, names[role], [
                (100 * case['share'], *mean_accuracy(tasks_of[case['run']], tasks, role)) for case in members])
                for role in (0, 1)]
            lines += [language_line(role, None, [(100 * float(row['p_en2']), *[float(row[column])] * 3)
                                                 for row in theirs], hollow=True)
                      for role, column in enumerate(('en1', 'en2'))]
            draw_lines(axes, lines, 'accuracy')
            axes.axhline(np.mean([tasks_of[members[0]['run']][task]['majority'] for task in tasks]), color=GREY,
                         ls='-.', lw=1, label='majority class')
            ratio_axis(axes, 'clones')
        drawn |= {case['run'] for case in members}
    return panels, drawn


# --- Figures 2, 4, 9, 10: more data, other sizes --------------------------------------------------------------------

def scale_panels(cases, published, kind, by):
    """PPL and TEff of each ratio by `by`, tokens or parameters: of each text the runs with the most of them."""
    panels, drawn, same_axes, pools = [], set(), False, {}

    def fixed(case):
        return law_groups(case) if by == 'tokens' else (case['text'], case['rate'], short(case['tokens']))

    def reach(members):  # how many budgets or sizes one ratio has; then the paper's own, then the most runs
        ratios = {case['ratio']: set() for case in members}
        for case in members:
            ratios[case['ratio']].add(short(case[by]))
        own = any(case['paper_size'] == 'small' and case['tokens'] == UNIT for case in members)
        return max(map(len, ratios.values())), own, len(members)
    for members in grouped(mixes(cases, kind), fixed).values():
        pools.setdefault((members[0]['text'], members[0]['rate']), []).append(members)
    for candidates in pools.values():
        ours = telling(max(candidates, key=reach), lambda case: short(case[by]))
        if not ours or reach(ours)[0] < 2:
            continue
        theirs = [p for p in mixes(published, kind) if p['ratio'] in RATIOS and any(
            alike(case, p) and (by == 'tokens' or short(case['tokens']) == short(p['tokens'])) for case in ours)]
        scale_pair(panels, ours, theirs, by)
        drawn |= {case['run'] for case in ours}
        same_axes = same_axes or bool(theirs)
    if panels and not same_axes and by == 'tokens':
        vocabulary = 'anchored' if kind == 'pair' else 'disjoint'
        scale_pair(panels, [], [p for p in mixes(published, kind)
                                if p['ratio'] in RATIOS and p['vocabulary'] == vocabulary], by)
    return panels, drawn


def scale_pair(panels, ours, theirs, by):
    shown = ours or theirs
    first = shown[0]
    fixed = first['size'] if by == 'tokens' else f'{short(first["tokens"])} tokens'
    xlabel = 'tokens of the training run, all languages' if by == 'tokens' else 'parameters without embeddings'
    at = {case['size']: case['parameters'] for case in theirs + ours}  # the same column for ours and the paper's
    for what in ('ppl', 'teff'):
        lines = ratio_lines(ours, theirs, lambda case: case['tokens'] if by == 'tokens' else at[case['size']], what)
        if all(line.hollow == bool(ours) for line in lines):
            continue
        with panel(panels, f'{first["label"] if ours else "the paper"}, {fixed}', ylabel=TITLES[what],
                   xlabel=xlabel) as axes:
            draw_lines(axes, lines, what)
            ticks = ({short(case['tokens']): case['tokens'] for case in shown + theirs} if by == 'tokens' else
                     {f'{short(value)}\n{size.replace("layers of", "x")}': value for size, value in at.items()})
            axes.set_xscale('log')
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(list(ticks.values()), list(ticks))
            axes.margins(x=0.12)


def combination_panels(cases, published, kind):
    """All combinations of model size and data, smallest first, as columns."""
    panels, drawn, texts = [], set(), {}
    for case in mixes(cases, kind):
        texts.setdefault((case['text'], case['rate']), []).append(case)
    for ours in texts.values():
        columns = sorted({(case['size'], short(case['tokens'])): case for case in ours}.values(),
                         key=lambda case: (case['parameters'], case['tokens']))
        place = {(case['size'], short(case['tokens'])): i for i, case in enumerate(columns)}
        theirs = [p for p in mixes(published, kind) if p['ratio'] in RATIOS and any(
            alike(case, p) and short(case['tokens']) == short(p['tokens']) for case in ours)]
        for what in ('ppl', 'teff') if len(columns) > 1 else ():
            lines = ratio_lines(ours, theirs, lambda case: place[case['size'], short(case['tokens'])], what)
            if all(line.hollow for line in lines):
                continue
            series = list(dict.fromkeys((line.color, line.marker) for line in lines))
            shift = {one: 0.7 * ((i + 0.5) / len(series) - 0.5) for i, one in enumerate(series)}
            lines = [line._replace(dash='', points=[(x + shift[line.color, line.marker], *rest)
                                                    for x, *rest in line.points]) for line in lines]
            with panel(panels, ours[0]['label'], ylabel=TITLES[what], xlabel='model and tokens of the run') as axes:
                draw_lines(axes, lines, what, size=5 if len(columns) < 7 else 4)
                column_axis(axes, columns)
            drawn |= {case['run'] for case in telling(ours, lambda case: place[case['size'], short(case['tokens'])])}
    return panels, drawn


def column_axis(axes, columns):
    """Names of the columns, and lines between them, heavier where the model changes."""
    few = len(columns) < 7
    labels = [(case['size'].removeprefix('GPT ').replace('layers of', 'x'), short(case['tokens']))
              for case in columns]
    axes.set_xticks(range(len(columns)), [('\n' if few else ' ').join(label) for label in labels],
                    rotation=0 if few else 90)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.grid(False, axis='x')
    for i in range(1, len(columns)):
        width, color = (0.5, '#e8e8e8') if columns[i]['size'] == columns[i - 1]['size'] else (1, '#bbbbbb')
        axes.axvline(i - 0.5, lw=width, color=color, zorder=0)


# --- Figures 5 and 8 ------------------------------------------------------------------------------------------------

def law_panels(cases, published):
    """Figure 5: the monolingual runs of each text with the law and the 90% band of each model."""
    panels, drawn, texts = [], set(), {}
    for case in cases:
        if case['kind'] == 'alone':
            texts.setdefault(case['text'], {}).setdefault(case['languages'][0]['group'], []).append(case)
    for models in sorted(texts.values(), key=lambda models: -sum(map(len, models.values()))):
        first = next(iter(models.values()))[0]
        with panel(panels, first['label'], xlabel='tokens of the training run', ylabel=TITLES['ppl']) as axes:
            lines, sizes = [], [members[0]['size'] for members in models.values()]
            for i, (group, members) in enumerate(sorted(models.items(), key=lambda item: item[1][0]['parameters'])):
                law, color = members[0]['languages'][0]['law'], OTHERS[i % len(OTHERS)]
                label = members[0]['size'] if sizes.count(members[0]['size']) == 1 else label_of(group)
                lines.append(Line(textwrap.fill(label + ('' if law else ' (no law)'), 40),
                                  points(members, lambda case: case['tokens'], 0, 'ppl'), color, 'o', ''))
                if law:
                    draw_law(axes, law, color)
            theirs = [p for p in published if p['kind'] == 'alone'
                      and any(alike(members[0], p) for members in models.values())]
            if theirs:
                law, x = theirs[0]['languages'][0]['law'], np.geomspace(0.05, 3, 100) * UNIT
                axes.plot(x, law.ppl(x), ':', color=GREY, lw=1.4, label="the paper's law, GPT small")
                lines.append(Line(None, points(theirs, lambda case: case['tokens'], 0, 'ppl'), GREY, 'o', '', True))
            draw_lines(axes, lines, 'ppl')
            for axis, write in ((axes.xaxis, short), (axes.yaxis, '{:g}'.format)):
                log_ticks(axes, axis, write)
        drawn |= {case['run'] for members in models.values() for case in members}
    return panels, drawn


def draw_law(axes, law, color):
    """A law over its budgets, dashed a little beyond them."""
    low, high = min(law.fitted_tokens), max(law.fitted_tokens)
    inside, wider = np.geomspace(low, high, 100), np.geomspace(low / 1.5, 2.5 * high, 100)
    axes.plot(wider, np.where(law.ppl(wider) < DRAWN_PPL, law.ppl(wider), np.nan), '--', lw=1, color=color)
    axes.plot(inside, law.ppl(inside), lw=1.6, color=color)
    if law.dof:
        axes.fill_between(inside, *np.minimum(law.ppl_interval(inside), DRAWN_PPL), color=color, alpha=0.15, lw=0)


def anchor_panels(cases, published):
    """Figure 8: PPL of two balanced clones by the share of pieces that they have in common; with all of them in
    common there is one language, whose law is the level to reach."""
    panels, drawn = [], set()
    balanced = [case for case in cases if case['kind'] == 'clones' and case['ratio'] == '50/50']
    for title, members in grouped(balanced, by_length).items():
        if not any(case['anchors'] for case in members):
            continue
        theirs = [p for p in mixes(published, 'clones') if p['ratio'] == '50/50' and alike(members[0], p)
                  and short(p['tokens']) == short(members[0]['tokens'])]
        with panel(panels, title, xlabel='share of the vocabulary that both clones use (%)',
                   ylabel=TITLES['ppl']) as axes:
            draw_lines(axes, [
                language_line(role, None if hollow else names_of(shown)[role],
                              points(shown, lambda case: 100 * case['anchors'], role, 'ppl'), hollow)
                for shown, hollow in ((members, False), (theirs, True)) for role in (0, 1)], 'ppl')
            law = members[0]['languages'][0]['law']
            if law and law.ppl(members[0]['tokens']) < DRAWN_PPL:
                axes.axhline(law.ppl(members[0]['tokens']), color=GREY, ls='-.', lw=1,
                             label='one language alone on all tokens (law)')
            axes.set_xlim(-4, 104)
        drawn |= {case['run'] for case in members}
    return panels, drawn
