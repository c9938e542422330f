"""The pictures of the studies of analyze.py.

Most are panels of lines over blocks, bins, shares of languages or training steps. What is drawn at
one place is called figures: {heading of a panel: {name of a line: Estimate of a number}}. The
figures_of functions choose those of a study that are drawn over training steps.
"""

import contextlib
import itertools
import re
import textwrap
from collections import namedtuple

import numpy as np
from matplotlib import pyplot as plt

from figures import DPI, GREY, OTHERS, STYLE
from lib import lens
from lib.similarity import NAMES, TITLES, Estimate

KINDS = ('input', 'output')  # of embeddings and of word vectors
Row = namedtuple('Row', 'label share values')  # a run, or the mean of several seeds
HEADINGS = dict(mass='mass on entries, {} read', lens='loss, {} read')  # {}: a language
HEADINGS |= dict(switch='loss on {}', told='told by the context of {}')
FREE_AXES = 'cosine', 'loss', 'saved', 'told'  # kinds of panels that do not go from 0 to 1
MARKS = 'osD^vP'
CONTROLS = {'same frequency', 'turned as well, same frequency', 'random', 'all pairs', 'chance'}
CONTROLS |= {lens.CONTEXTS[0], *lens.CONTEXTS[-2:]}  # drawn in grey


@contextlib.contextmanager
def picture(path, title, size, **layout):
    """Axes (rows, columns) of a picture of `size` inches; saves it with title and legend."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=size, squeeze=False, layout='constrained', **layout)
        yield axes
        entries = [zip(*ax.get_legend_handles_labels()) for ax in axes.flat]
        handles = {label: handle for handle, label in itertools.chain(*entries)}
        if handles:
            most = max(1, int(14 * size[0] / (8 + max(map(len, handles)))))
            columns = -(-len(handles) // -(-len(handles) // most))  # of about equal length
            place = dict(loc='outside lower center', ncols=columns)
            figure.legend(handles.values(), handles, **place)
        figure.suptitle(textwrap.fill(title, int(10 * size[0])), fontsize=11)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def draw_lines(path, title, series, xlabel, x, ticks):
    """A panel for each heading, with its lines. series: {label: {place: figures}}; several series
    have a color each, and their lines a mark each. x: {place: its position on the axis}; ticks:
    {place: text} of those that are named.

    Lines stand a little beside each other. Cosines share their axis, and so do losses; shares, mass
    and CKA go from 0 to 1."""
    parts = {label: joined(figures.values()) for label, figures in series.items()}
    headings = list(dict.fromkeys(heading for panels in parts.values() for heading in panels))
    lines_of = [lines for panels in parts.values() for lines in panels.values()]
    names = list(dict.fromkeys(name for lines in lines_of for name in lines))
    several, count, gaps = len(series) > 1, len(series) * len(names), np.diff(sorted(x.values()))
    apart = min([0.012 * (sum(gaps) or 1), *(0.6 * gaps / count)])
    width = 1.8 + 3 * len(headings) if len(headings) > 2 else 2 + 4 * len(headings)
    crowded = dict(rotation=30, ha='right') if len(''.join(ticks.values())) > 28 else {}
    with picture(path, f'{title}; bars: 90% intervals', (width, 4.4), ncols=len(headings)) as axes:
        axes = dict(zip(headings, axes[0]))
        for number, (label, panels) in enumerate(parts.items()):
            places = np.array([x[place] for place in series[label]])
            for heading, name in [(h, name) for h in panels for name in panels[h]]:
                value, (low, high) = panels[heading][name].value, panels[heading][name].interval()
                bars, row = np.maximum([value - low, high - value], 0), names.index(name)
                color = OTHERS[(number if several else row) % len(OTHERS)]
                color = GREY if name in CONTROLS and not several else color
                mark = MARKS[row % len(MARKS)] + (':' if name in CONTROLS else '-')
                look = dict(color=color, fmt=mark, ms=4, lw=1.2, capsize=2)
                look['label'] = ': '.join(filter(None, [label if several else '', name]))
                beside = places + apart * (number * len(names) + row - (count - 1) / 2)
                axes[heading].errorbar(beside, value, bars, **look)
        kinds = [re.split(r'\W', heading)[0] for heading in headings]
        for kind, (heading, ax) in zip(kinds, axes.items()):
            ax.set_title(textwrap.fill(heading, 38), parse_math=False)
            ax.set_xlabel(xlabel)
            ax.set_xticks([x[place] for place in ticks], ticks.values(), **crowded)
            ax.margins(x=0.5 / (len(ticks) + 1))
            same = [other for other, its in zip(axes.values(), kinds) if its == kind]
            limits = [other.get_ylim() for other in same] if kind in FREE_AXES else [(-0.03, 1.03)]
            ax.set_ylim(min(limits)[0], max(high for _, high in limits))


def joined(figures):
    """Figures at n places as one, with Estimates (n,), nan where there are none."""
    figures, result = list(figures), {}
    for heading, line in dict.fromkeys((h, line) for f in figures for h in f for line in f[h]):
        cells = [part.get(heading, {}).get(line) for part in figures]
        result.setdefault(heading, {})[line] = Estimate.joined(cells)
    return result


def draw_rows(rows, title, path, figures_by_place, xlabel):
    """A series for each run; figures_by_place(values): {place: figures}. Places are numbers, or
    bins like 4-7."""
    series = {row.label: figures_by_place(row.values) for row in rows}
    places = {place for figures in series.values() for place in figures}
    places = sorted(places, key=lambda place: int(str(place).split('-')[0]))
    texts = [f'{place:,}' if isinstance(place, int) else place for place in places]
    shown = slice(None, None, 1 + len(places) // 13)
    x, ticks = dict(zip(places, range(len(places)))), dict(zip(places[shown], texts[shown]))
    draw_lines(path, title, series, xlabel, x, ticks)


def draw_steps(series, title, path):
    """Figures over training. series: {label: {step: figures}}."""
    steps = sorted({step for figures in series.values() for step in figures})
    doubling = steps[-1] > 20 * max(1, steps[0])  # these stand evenly
    x = dict(zip(steps, np.log(steps) if doubling else steps))
    ticks = {step: str(step) for step in steps[:: 1 + (len(steps) - 1) // 8]}
    draw_lines(path, title, series, 'training steps', x, ticks)


def figures_of_vectors(values):
    """Cosines and CSLS retrieval, as they are and after each step of compare_geometry."""
    figures = {}
    for kind in KINDS:
        plain, turned = values.get(kind, {}), values.get(f'{kind}_geometry', {})
        kinds = {NAMES[name]: cells for name, cells in {'pairs': plain, **turned}.items()}
        cosines = {name: cells['pairs'] for name, cells in kinds.items() if 'pairs' in cells}
        retrieval = {name: cells['csls'] for name, cells in kinds.items() if 'csls' in cells}
        if retrieval:
            retrieval['chance'] = plain['chance']
        if 'frequency' in plain:
            cosines[NAMES['frequency']] = plain['frequency']
        if turned:
            name = f'{NAMES["turned"]}, {NAMES["frequency"]}'
            cosines[name] = turned['turned']['frequency']
        if not cosines and plain:
            cosines = {NAMES.get(name, name): plain[name] for name in ('random', 'any')}
        figures |= {TITLES[kind]: cosines, f'CSLS retrieval, {kind} vectors': retrieval}
    return {heading: lines for heading, lines in figures.items() if lines}


def draw_vectors(rows, title, path):
    """Figures over the share of the first language; of one run, and of runs of equal shares,
    over their names."""
    by_share = 1 < len(rows) == len({f'{row.share:.2f}' for row in rows})
    rows = sorted((row for row in rows if row.values.get('input')), key=lambda row: row.share)
    x, names = [100 * row.share for row in rows], [f'{100 * row.share:.0f}' for row in rows]
    xlabel = 'share of the first language, %'
    if not by_share:
        x, names, xlabel = range(len(rows)), [textwrap.fill(row.label, 20) for row in rows], ''
    figures = dict(enumerate(figures_of_vectors(row.values) for row in rows))
    draw_lines(path, title, {'': figures}, xlabel, dict(enumerate(x)), dict(enumerate(names)))


def figures_of_frequency(values):
    """Cosine of corresponding vectors in each half decade."""
    return {
        TITLES[kind]: {name: cosines['pairs'] for name, cosines in values[kind].items()}
        for kind in KINDS
        if values[kind]  # anchored runs have none
    }


def draw_frequency(rows, title, path):
    """Cosines of corresponding and of random vectors in each half decade."""

    def by_bin(values):
        return {
            int(name.split()[0].replace(',', '')): {
                TITLES[kind]: {NAMES.get(key, key): e for key, e in values[kind][name].items()}
                for kind in KINDS
            }
            for name in values['pieces']
        }

    draw_rows(rows, title, path, by_bin, 'times that the rarer piece was read, at least')


def figures_at(values, kinds, place):
    """Figures of what lens or switch measured after a block or in a bin."""
    figures = {}
    for kind in kinds:
        for key, measured in values.get(kind, {}).items():
            language, line = key.split(': ', 1)
            if line != 'difference':
                figures.setdefault(HEADINGS[kind].format(language), {})[line] = measured[place]
    return figures


def draw_blocks(rows, title, path):
    """What hidden and lens measured, over the blocks."""

    def by_block(values):
        measured = [name for name in TITLES if isinstance(values.get(name), Estimate)]
        estimate, *_ = [values[name] for name in measured] or values['lens'].values()
        return {
            block + 1: {TITLES[name]: {'': values[name][block]} for name in measured}
            | figures_at(values, ('mass', 'lens'), block)
            for block in range(len(estimate.value))
        }

    draw_rows(rows, title, path, by_block, 'block')


def draw_switch(rows, title, path):
    """Losses, and what contexts tell, by how many pieces of the text were read; of several runs
    only the latter."""
    kinds = ('switch', 'told') if len(rows) == 1 else ('told',)

    def by_bin(values):
        *bins, _ = next(iter(values['told'].values()))  # the last is all of them
        return {name: figures_at(values, kinds, name) for name in bins}

    draw_rows(rows, title, path, by_bin, 'pieces of the text that were read')


def figures_of_switch(values):
    """Losses after each context, and what it tells, over all positions."""
    return figures_at(values, ('switch', 'told'), 'all')


def at_blocks(estimate):
    """{name of a block: Estimate} of the first, a middle and the last block."""
    last = len(estimate.value) - 1
    return {f'block {block + 1}': estimate[block] for block in sorted({0, last // 2, last})}


def figures_of_hidden(values):
    """Each measure after the first, a middle and the last block."""
    return {TITLES[name]: at_blocks(values[name]) for name in TITLES if name in values}


def figures_of_lens(values):
    """After some blocks the mass on the other language's entries and what the loss is less when
    entries of any language count; and the loss."""
    mass, losses, figures = values['mass'], values['lens'], {}
    languages = list(dict.fromkeys(key.split(': ')[0] for key in losses))
    for language, other in zip(languages, languages[::-1]):
        if f'{language}: {other}' in mass:  # anchored entries may all be shared
            figures[f'mass on {other}, {language} read'] = at_blocks(mass[f'{language}: {other}'])
        saved = at_blocks(losses[f'{language}: difference'])
        figures[f'saved by any language, {language} read'] = saved
    last = {f'{name} read': losses[f'{name}: next piece'][-1] for name in languages}
    return figures | {'loss on the next piece': last}


def figures_of_gradients(values):
    """Cosines of tensors outside of the blocks, and mean over the kinds of some blocks."""
    kinds, title = values['gradients'].values(), 'cosine of gradients'
    draws = np.mean([kind.draws for kind in kinds], axis=0)
    blocks = at_blocks(Estimate(np.mean([kind.value for kind in kinds], axis=0), draws))
    return {title: values['tensors'], f'{title}, mean of the kinds of tensors': blocks}


def draw_gradients(rows, title, path):
    """Heat maps, kinds of tensors x blocks, of each run and of the difference of two."""
    kinds, panels = list(rows[0].values['gradients']), {}
    for row in rows:
        macro = row.values['tensors']['macro average'].value
        matrix = np.stack([estimate.value for estimate in row.values['gradients'].values()])
        panels[f'{row.label}\nmacro average {macro:.2f}'] = matrix
    if len(rows) == 2 and len({matrix.shape for matrix in panels.values()}) == 1:
        first, second = panels.values()
        panels['difference'] = second - first
    blocks = max(matrix.shape[1] for matrix in panels.values())
    size = 2 + len(panels) * max(3.4, 1 + 0.42 * blocks), 6.2
    with picture(path, title, size, ncols=len(panels), sharey=True) as axes:
        for ax, (heading, matrix) in zip(axes[0], panels.items()):
            image = ax.imshow(matrix, cmap='RdBu_r', vmin=-1, vmax=1, aspect='auto')
            for (row, column), value in np.ndenumerate(matrix):
                look = dict(fontsize=7, color='white' if abs(value) > 0.6 else 'black')
                text = f'{value:.2f}'.replace('-0.00', '0.00')
                ax.text(column, row, text, ha='center', va='center', **look)
            ax.set(title=heading, xlabel='block')
            ax.set_xticks(range(matrix.shape[1]), range(1, matrix.shape[1] + 1))
            ax.set_yticks(range(len(kinds)), kinds)
            ax.grid(False)
        ax.figure.colorbar(image, ax=axes, label='cosine of gradients', shrink=0.6)


def draw_matching(rows, title, path):
    """Two rows of tokens for each run, lines between those that are matched.

    A line that ends at ... leads to a token before or after those that are shown."""
    first, end = rows[0].values['shown']
    texts = [tokens[first:end] for row in rows for tokens in row.values['tokens']]
    space = 1.6  # behind each token, characters
    width = max([30] + [sum(len(text) + space for text in line) for line in texts])
    cosines = [cosine for row in rows for *_, cosine in row.values['matches']] or [0]
    scale, colors = plt.Normalize(min(cosines), max(cosines)), plt.get_cmap('viridis_r')
    size = 0.088 * width + 2.6, 0.8 + 2.8 * len(rows)
    box = dict(boxstyle='square,pad=0.15', fc='0.95', ec='0.6', lw=0.6)
    look = dict(ha='center', va='center', fontsize=10, family='monospace', parse_math=False)
    with picture(path, title, size, nrows=len(rows)) as axes:
        for ax, row in zip(axes[:, 0], rows):
            places = []  # of each side, {position: x}
            for tokens, y in zip(row.values['tokens'], (1, 0)):
                lengths = np.array([len(text) + space for text in tokens[first:end]])
                x = (width - lengths.sum() - space) / 2 + np.cumsum(lengths) - lengths / 2
                places.append(dict(enumerate(x, first)))
                for position, x in places[-1].items():
                    ax.text(x, y, tokens[position], bbox=box, zorder=5, **look)
            for *tokens, cosine in row.values['matches']:
                if tokens[0] not in places[0] and tokens[1] not in places[1]:
                    continue
                x, weight = [], float(scale(cosine))
                for place, token, y in zip(places, tokens, (1, 0)):
                    x.append(place.get(token, -3 if token < first else width + 3))
                    if token not in place:
                        ax.text(x[-1], y, '...', ha='center', va='center', family='monospace')
                ax.plot(x, [0.91, 0.09], color=colors(weight), lw=0.6 + 2.4 * weight)
            for name, y in zip(row.values['names'], (1, 0)):
                ax.text(-6, y, name, ha='right', va='center', weight='bold', parse_math=False)
            margin = 7 + 1.3 * max(map(len, row.values['names']))
            ax.set(xlim=(-margin, width + 5), ylim=(-0.15, 1.15))
            ax.set_title(row.label, parse_math=False)
            ax.axis('off')
        mapped = plt.cm.ScalarMappable(scale, colors)
        ax.figure.colorbar(mapped, ax=axes, label='mean cosine over the blocks', shrink=0.9)
