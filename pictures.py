"""The pictures of the studies of analyze.py.

Most are panels of lines: {heading of a panel: {name of a line: Estimate (n,)}} over n places. The
figures_of functions say which figures of a study, Estimates of single numbers, are drawn over
shares of languages or over training steps.
"""

import contextlib
import itertools
import re
import textwrap
from collections import namedtuple

import numpy as np
from matplotlib import pyplot as plt

import lens
import similarity
from figures import DPI, GREY, OTHERS, STYLE
from similarity import Estimate

KINDS = ('input', 'output')  # of embeddings and of word vectors
Row = namedtuple('Row', 'label share values')  # a run, or the mean of several seeds
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
            columns = max(1, int(14 * size[0] / (8 + max(map(len, handles)))))
            place = dict(loc='outside lower center', ncols=columns)
            figure.legend(handles.values(), handles, **place)
        figure.suptitle(textwrap.fill(title, int(10 * size[0])), fontsize=11)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)


def draw_lines(path, title, series, xlabel, x, ticks):
    """A panel for each heading, with its lines. series: {label: (places, {heading: {line: Estimate
    (n,)}})}; several series have a color each, and their lines a mark each.

    Lines stand a little beside each other. Cosines share their axis, and so do losses; shares, mass
    and CKA go from 0 to 1. x, ticks: places and texts of the axis."""
    title, span = f'{title}; bars: 90% intervals', max(x) - min(x) or 1
    crowded = dict(rotation=30, ha='right') if len(''.join(map(str, ticks))) > 28 else {}
    panels = [panel for _, panels in series.values() for panel in panels.items()]
    headings = list(dict.fromkeys(heading for heading, _ in panels))
    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    looks = {}  # (label, name of a line) -> color, mark, place beside the others
    for (number, label), (row, name) in itertools.product(enumerate(series), enumerate(names)):
        color = OTHERS[(number if len(series) > 1 else row) % len(OTHERS)]
        color = GREY if name in CONTROLS and len(series) == 1 else color
        mark = MARKS[row % len(MARKS)] + (':' if name in CONTROLS else '-')
        looks[label, name] = color, mark, number * len(names) + row
    width = 1.8 + 3 * len(headings) if len(headings) > 2 else 2 + 4 * len(headings)
    gaps = [np.diff(sorted(places)) for places, _ in series.values() if len(places) > 1]
    apart = min(0.012 * span, 0.6 * min([span, *map(min, gaps)]) / len(looks))
    with picture(path, title, (width, 4.4), ncols=len(headings)) as axes:
        for label, (places, figures) in series.items():
            for heading, lines in figures.items():
                ax = axes[0][headings.index(heading)]
                for name, estimate in lines.items():
                    color, mark, number = looks[label, name]
                    low, high = estimate.interval()
                    bars = np.maximum([estimate.value - low, high - estimate.value], 0)
                    beside = np.array(places) + apart * (number - (len(looks) - 1) / 2)
                    look = dict(color=color, fmt=mark, ms=4, lw=1.2, capsize=2)
                    label_of_line = ': '.join(filter(None, [label, name]))
                    ax.errorbar(beside, estimate.value, bars, label=label_of_line, **look)
        for heading, ax in zip(headings, axes[0]):
            ax.set_title(textwrap.fill(heading, 38), parse_math=False)
            ax.set_xlabel(xlabel)
            ax.set_xticks(x, ticks, **crowded)
            ax.margins(x=0.5 / (len(x) + 1))
        kinds = [re.split(r'\W', heading)[0] for heading in headings]
        limits = {kind: [] for kind in kinds}
        for kind, ax in zip(kinds, axes[0]):
            limits[kind].append(ax.get_ylim() if kind in FREE_AXES else (-0.03, 1.03))
        for kind, ax in zip(kinds, axes[0]):
            low, high = np.transpose(limits[kind])
            ax.set_ylim(min(low), max(high))


def labelled(rows, parts):
    """{label: part} of the parts of some runs; a single run needs no label."""
    return dict(zip([row.label for row in rows] if len(rows) > 1 else [''], parts))


def joined(figures):
    """The figures {heading: {line: Estimate}} of n runs or steps as one, with Estimates (n,)."""
    keys = dict.fromkeys((h, line) for panels in figures for h in panels for line in panels[h])
    result = {}
    for heading, line in keys:
        cells = [panels.get(heading, {}).get(line) for panels in figures]
        result.setdefault(heading, {})[line] = Estimate.joined(cells)
    return result


def figures_of_vectors(values):
    """Cosines and CSLS retrieval, as they are and after each step of compare_geometry."""
    figures, names = {}, similarity.NAMES
    for kind in KINDS:
        plain, turned = values.get(kind, {}), values.get(f'{kind}_geometry', {})
        cosines = {names[name]: cell['pairs'] for name, cell in turned.items()}
        retrieval = {names[name]: cell['csls'] for name, cell in turned.items()}
        if 'pairs' in plain:
            cosines = {names['pairs']: plain['pairs']} | cosines
        if 'csls' in plain:
            retrieval = {names['pairs']: plain['csls']} | retrieval | dict(chance=plain['chance'])
        if 'frequency' in plain:
            cosines[names['frequency']] = plain['frequency']
        if turned:
            cosines[f'{names["turned"]}, {names["frequency"]}'] = turned['turned']['frequency']
        for measure in () if cosines else ('random', 'any'):
            cosines |= {names.get(measure, measure): plain[measure]} if plain else {}
        figures[similarity.TITLES[kind]] = cosines
        figures[f'CSLS retrieval, {kind} vectors'] = retrieval
    return {heading: lines for heading, lines in figures.items() if lines}


def draw_vectors(rows, title, path):
    """Figures over the share of the first language; runs of equal shares get a place each."""
    by_share = len({f'{row.share:.2f}' for row in rows}) == len(rows)
    rows = sorted((row for row in rows if row.values.get('input')), key=lambda row: row.share)
    x, ticks, xlabel = range(len(rows)), [textwrap.fill(row.label, 20) for row in rows], ''
    if by_share:
        x, xlabel = [100 * row.share for row in rows], 'share of the first language, %'
        ticks = [f'{value:.0f}' for value in x]
    panels = joined([figures_of_vectors(row.values) for row in rows])
    draw_lines(path, title, {'': (x, panels)}, xlabel, x, ticks)


def figures_of_frequency(values):
    """Cosine of corresponding vectors in each half decade."""
    return {
        similarity.TITLES[kind]: {name: cosines['pairs'] for name, cosines in values[kind].items()}
        for kind in KINDS
        if values[kind]  # anchored runs have none
    }


def draw_frequency(rows, title, path):
    names = {
        name: int(name.split()[0].replace(',', '')) for row in rows for name in row.values['input']
    }
    bins, parts = sorted(names, key=names.get), []
    for row in rows:
        panels = {}
        for kind, measure in itertools.product(KINDS, ('pairs', 'random')):
            cells = [cosines[measure] for cosines in row.values[kind].values()]
            if cells:
                lines = panels.setdefault(similarity.TITLES[kind], {})
                lines[similarity.NAMES.get(measure, measure)] = Estimate.joined(cells)
        parts.append(([bins.index(name) for name in row.values['input']], panels))
    xlabel, ticks = 'times that the rarer piece was read, at least', [f'{names[b]:,}' for b in bins]
    draw_lines(path, title, labelled(rows, parts), xlabel, range(len(bins)), ticks)


def draw_blocks(rows, title, path):
    """What hidden and lens measured, over the blocks."""
    parts = []
    for row in rows:
        panels = {  # real languages have no positions to compare
            similarity.TITLES[measure]: {'': row.values[measure]}
            for measure in similarity.TITLES
            if isinstance(row.values.get(measure), Estimate)
        }
        for kind, heading in dict(mass='mass on entries', lens='loss').items():
            for key, estimate in row.values.get(kind, {}).items():
                language, line = key.split(': ', 1)
                if line != 'difference':
                    panels.setdefault(f'{heading}, {language} read', {})[line] = estimate
        blocks = max(
            len(estimate.value) for lines in panels.values() for estimate in lines.values()
        )
        parts.append((range(1, blocks + 1), panels))
    blocks = max(len(x) for x, _ in parts)
    x = range(1, blocks + 1, 1 + blocks // 13)
    draw_lines(path, title, labelled(rows, parts), 'block', x, x)


def at_blocks(estimate, name='block'):
    """{name of a block: Estimate} of the first, a middle and the last block."""
    last = len(estimate.value) - 1
    return {f'{name} {block + 1}': estimate[block] for block in sorted({0, last // 2, last})}


def figures_of_hidden(values):
    """Each measure after the first, a middle and the last block."""
    return {
        title: at_blocks(values[measure])
        for measure, title in similarity.TITLES.items()
        if measure in values
    }


def figures_of_lens(values):
    """After some blocks the mass on the other language's entries and what the loss is less when
    entries of any language count; and the loss."""
    languages = list(dict.fromkeys(key.split(': ')[0] for key in values['lens']))
    figures = {}
    for language, other in zip(languages, languages[::-1]):
        mass = values['mass'].get(f'{language}: {other}')  # anchored entries may all be shared
        if mass:
            figures[f'mass on {other}, {language} read'] = at_blocks(mass)
        saved = values['lens'][f'{language}: difference']
        figures[f'saved by any language, {language} read'] = at_blocks(saved)
    losses = {f'{name} read': values['lens'][f'{name}: next piece'][-1] for name in languages}
    return figures | {'loss on the next piece': losses}


def switch_panels(values, kinds, cell_of):
    """{heading: {context: cell_of its bins}} of what study_switch measured."""
    panels, headings = {}, dict(switch='loss on', told='told by the context of')
    for kind in kinds:
        for key, cells in values[kind].items():
            language, context = key.split(': ', 1)
            panels.setdefault(f'{headings[kind]} {language}', {})[context] = cell_of(cells)
    return panels


def figures_of_switch(values):
    """Losses after each context, and what it tells, over all positions."""
    return switch_panels(values, ('switch', 'told'), lambda cells: cells['all'])


def draw_switch(rows, title, path):
    """Losses, and what contexts tell, by how many pieces of the text were read; of several runs
    only the latter."""

    def over_bins(cells):
        return Estimate.joined([cell for name, cell in cells.items() if name != 'all'])

    kinds = ('switch', 'told') if len(rows) == 1 else ('told',)
    panels = [switch_panels(row.values, kinds, over_bins) for row in rows]
    bins = [list(next(iter(row.values['told'].values())))[:-1] for row in rows]
    parts = [(range(len(names)), part) for names, part in zip(bins, panels)]
    ticks = max(bins, key=len)
    xlabel = 'pieces of the text that were read'
    draw_lines(path, title, labelled(rows, parts), xlabel, range(len(ticks)), ticks)


def draw_steps(series, title, path):
    """Figures over training. series: {label: (steps, figures)}."""
    x = sorted({step for chosen, _ in series.values() for step in chosen})
    shown_steps = x[:: 1 + (len(x) - 1) // 8]
    scale = np.log if x[-1] > 20 * max(1, x[0]) else np.array  # steps that double stand evenly
    parts = {label: (scale(chosen), figures) for label, (chosen, figures) in series.items()}
    parts = parts if len(parts) > 1 else {'': next(iter(parts.values()))}
    draw_lines(path, title, parts, 'training steps', scale(shown_steps), shown_steps)


def figures_of_gradients(values):
    """Cosines of tensors outside of the blocks, and mean over the kinds of some blocks."""
    kinds = values['gradients'].values()
    draws = np.mean([estimate.draws for estimate in kinds], axis=0)
    blocks = Estimate(np.mean([estimate.value for estimate in kinds], axis=0), draws)
    title = 'cosine of gradients'
    return {title: values['tensors'], f'{title}, mean of the kinds of tensors': at_blocks(blocks)}


def draw_gradients(rows, title, path):
    """Heat maps, kinds of tensors x blocks, of each run and of the difference of two."""
    kinds, panels = list(rows[0].values['gradients']), {}
    for row in rows:
        matrix = np.stack([estimate.value for estimate in row.values['gradients'].values()])
        macro = row.values['tensors']['macro average'].value
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
    width = max([30] + [sum(len(text) + 1.6 for text in line) for line in texts])  # characters
    cosines = [cosine for row in rows for *_, cosine in row.values['matches']] or [0]
    scale, colors = plt.Normalize(min(cosines), max(cosines)), plt.get_cmap('viridis_r')
    size = 0.088 * width + 2.6, 0.8 + 2.8 * len(rows)
    with picture(path, title, size, nrows=len(rows)) as axes:
        for ax, row in zip(axes[:, 0], rows):
            places = [
                draw_tokens(ax, row.values['tokens'][i][first:end], first, width, y)
                for i, y in ((0, 1), (1, 0))
            ]
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


def draw_tokens(ax, tokens, first, width, y):
    """Writes tokens from position `first` on in the middle of `width`; returns {position: x}."""
    places = {}
    x = (width - sum(len(text) + 1.6 for text in tokens)) / 2
    box = dict(boxstyle='square,pad=0.15', fc='0.95', ec='0.6', lw=0.6)
    look = dict(ha='center', va='center', fontsize=10, family='monospace', parse_math=False)
    for position, text in enumerate(tokens, first):
        places[position] = x + len(text) / 2
        ax.text(places[position], y, text, bbox=box, zorder=5, **look)
        x += len(text) + 1.6
    return places
