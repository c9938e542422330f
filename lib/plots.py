"""All drawing: the style, points with intervals, and the pictures of the studies."""

import contextlib
import functools
import re
import textwrap
import unicodedata
import warnings

import numpy as np
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from lib.estimate import ALL, places_of
from lib.tables import width_of

# --- style ----------------------------------------------------------------------------------------

plt.switch_backend('Agg')  # files only, no windows

DPI = 160
# the colours of Okabe and Ito, which colour-blind readers can tell apart, and a brown
COLORS = '#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000 #8B5A2B'.split()
GREY = '#555555'
MARKERS = 'osD^vP'  # of the first language, the second, more
STYLE = {'font.size': 9, 'axes.titlesize': 9.5, 'axes.grid': True, 'grid.alpha': 0.25}
STYLE |= {'axes.spines.top': False, 'axes.spines.right': False, 'axes.axisbelow': True}
STYLE |= {'legend.frameon': False, 'legend.fontsize': 8.5, 'text.parse_math': False}


def legend_entries(axes):
    """{label: artist} of some axes. A name may begin with an underscore, which matplotlib hides."""
    artists = [artist for ax in axes for artist in (*ax.containers, *ax.lines)]
    named = {str(artist.get_label()): artist for artist in artists}
    unnamed = re.compile(r'_(child|container)\d+|_nolegend_').fullmatch
    return {label: artist for label, artist in named.items() if not unnamed(label)}


@functools.cache
def fonts_for(letters):
    """Names of installed fonts that have some letters, Noto first; prints those that none has."""
    lacking = {c for c in letters if unicodedata.category(c) not in ('Cc', 'Cf', 'Zs')}
    families, paths = [], font_manager.findSystemFonts()  # newer than matplotlib's cache
    paths.sort(key=lambda path: ('Noto' not in path, 'Regular' not in path, path))
    for path in [*map(font_manager.findfont, ('monospace', 'DejaVu Sans')), *paths]:
        font = font_manager.get_font(path) if lacking else None
        found = lacking.intersection(map(chr, font.get_charmap())) if font else ()
        if found:
            font_manager.fontManager.addfont(path)
            families.append(font.family_name)
            lacking -= found
    if lacking:
        text = f'{" ".join(sorted(lacking)[:10])} ({len(lacking)} letters)'
        print(f'no installed font has {text}; fonts-noto-core and fonts-noto-cjk have most letters')
    return families


@contextlib.contextmanager
def picture(file, title, size, **layout):
    """Axes (rows, columns) of a picture of `size` inches; saves it with title and legend."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=size, squeeze=False, layout='constrained', **layout)
        yield axes
        entries = legend_entries(axes.flat)
        if entries:
            columns = max(1, int(14 * size[0] / (8 + max(map(width_of, entries)))))
            figure.legend(entries.values(), entries, loc='outside lower center', ncols=columns)
        figure.suptitle(textwrap.fill(title, int(11 * size[0])), fontsize=10)
        texts = figure.findobj(plt.Text)
        families = fonts_for(frozenset(''.join(text.get_text() for text in texts)))
        for text in texts:
            text.set_fontfamily([*text.get_fontfamily(), *families])
        with warnings.catch_warnings(action='ignore'):  # of a glyph that no font has, once said
            figure.savefig(file, format='png', dpi=DPI)
        plt.close(figure)


def log_ticks(axis, write='{:g}'.format):
    """A log axis with plain numbers on it."""
    axis.axes.set(**{f'{axis.axis_name}scale': 'log'})
    subs = (1, 2, 5) if axis.axis_name == 'x' else (1, 1.5, 2, 3, 4, 5, 7)
    axis.set_major_locator(LogLocator(subs=subs))  # has linear steps where few of these fit
    axis.set_major_formatter(lambda value, _: write(value))
    axis.set_minor_formatter(NullFormatter())


def draw_points(axes, points, fmt, aside=0, **look):
    """Markers with 90% bars at points (x, y, low, high), from three places on joined by a line, and
    shifted right by `aside` typographic points. fmt: marker and dash."""
    x, y, low, high = np.array(sorted(points)).T
    bars = np.maximum([y - low, high - y], 0)
    fmt = fmt if len(set(x)) > 2 else fmt[0]
    moved = ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    for artist in axes.errorbar(x, y, bars, fmt=fmt, capsize=2.5, lw=1.3, **look).get_children():
        artist.set_transform(axes.transData + moved)


# --- studies --------------------------------------------------------------------------------------

CONTROLS = {'random', 'frequency-matched', 'all pairs', 'chance', 'nothing'}  # grey, dotted
CONTROLS |= {'own, unrelated', 'other, unrelated'}


def draw_study(path, title, results, axis):
    """A panel for each heading of each run, and of the difference, in `results`, {label: result};
    one scale for headings of one first word. axis: what numbered places are called."""
    panels, first_of_kind = {}, {}
    for label, result in results.items():
        for heading, lines in result.items():
            heading = f'difference: {heading}' if label == 'difference' else heading
            for name, cells in lines.items():
                panels.setdefault(heading, {})[label, name] = cells
    names = list(dict.fromkeys(name for lines in panels.values() for _, name in lines))
    columns = next((n for n in (4, 3, 2) if len(panels) % n == 0), min(3, len(panels)))
    rows = -(-len(panels) // columns)
    size = max(6, 1.8 + 3.1 * columns), 1.1 + 3.2 * rows
    with picture(path, f'{title}; bars: 90% intervals', size, nrows=rows, ncols=columns) as axes:
        for ax, (heading, lines) in zip(axes.flat, panels.items()):
            kind = re.match(r'(difference: )?\w*', heading)[0]
            ax.sharey(first_of_kind.setdefault(kind, ax))
            ax.set_title(textwrap.fill(heading, 38))
            draw_lines(ax, lines, list(results), names, axis)
            if heading.startswith('difference'):
                ax.axhline(0, color=GREY, lw=0.8)
        for ax in axes.flat[len(panels) :]:
            ax.axis('off')


def draw_lines(axes, lines, labels, names, axis):
    """The lines of a panel, {(label, name): {place: Estimate}}. Several labels have a colour each,
    and their names a marker each. The mean over all bins is in the tables only."""
    places, numbered = places_of(lines.values())
    places = [place for place in places if place != ALL] or places
    for i, ((label, name), cells) in enumerate(lines.items()):
        number = labels.index(label) if labels[1:] else names.index(name)
        control, color = name in CONTROLS, COLORS[number % len(COLORS)]
        color = GREY if control and not labels[1:] else color
        fmt = MARKERS[names.index(name) % len(MARKERS)] + ('-:'[control] if numbered else '')
        label = ': '.join(filter(None, (label if labels[1:] else '', name)))
        found = [(x, cells[place]) for x, place in enumerate(places) if place in cells]
        points = [(x, cell.value, *cell.interval()) for x, cell in found]
        draw_points(axes, points, fmt, 2 * i - len(lines) + 1, color=color, label=label, ms=4)
    every = 1 + len(places) // 16 if numbered else 1
    texts = list(map(str, places[::every]))
    crowded = dict(rotation=45, ha='right') if len(''.join(texts)) > 30 else {}
    axes.set_xticks(range(0, len(places), every), texts, **crowded)
    axes.set_xlabel(axis if numbered else '')
    axes.margins(x=0.12)


def draw_gradients(path, title, results):
    """Heat maps, kinds of tensors x blocks, of the first heading of each result."""
    maps = {label: next(iter(r.panels.values())) for label, r in results.items() if r.panels}
    size = 2 + sum(max(3.4, 1 + 0.42 * len(next(iter(m.values())))) for m in maps.values()), 6.2
    with picture(path, title, size, ncols=len(maps), sharey=True) as axes:
        for ax, (label, kinds) in zip(axes[0], maps.items()):
            blocks = next(iter(kinds.values()))
            matrix = np.array([[cell.value for cell in cells.values()] for cells in kinds.values()])
            image = ax.imshow(matrix, cmap='coolwarm', vmin=-1, vmax=1, alpha=0.7, aspect='auto')
            for (row, column), value in np.ndenumerate(matrix):
                ax.text(column, row, f'{value:z.2f}', ha='center', va='center', fontsize=7)
            ax.set(title=f'{label}\nmacro average {matrix.mean():z.2f}', xlabel='block')
            ax.set_xticks(range(len(blocks)), blocks)
            ax.set_yticks(range(len(kinds)), kinds)
            ax.grid(False)
        ax.figure.colorbar(image, ax=axes, label='cosine of gradients', shrink=0.6)


def draw_matching(path, title, results):
    """Two columns of tokens for each run, lines between matched ones; ... stands for the rest."""
    found = {label: result.more for label, result in results.items() if result.more}
    _, end = next(iter(found.values()))['shown']
    cosines = [cosine for more in found.values() for *_, cosine in more['matches']] or [0]
    scale = plt.cm.ScalarMappable(plt.Normalize(min(cosines), max(cosines)), 'viridis_r')
    with picture(path, title, (1.5 + 4 * len(found), 1.5 + 0.22 * end), ncols=len(found)) as axes:
        for ax, (label, more) in zip(axes[0], found.items()):
            for side, tokens, name in zip((0, 1), more['tokens'], more['names']):
                look = dict(va='center', ha=('right', 'left')[side])
                ax.text(side, -2, name, style='italic', **look)
                for place, token in enumerate([*tokens[:end], *['...'] * (len(tokens) > end)]):
                    ax.text(side, place, token, family='monospace', **look)
            for *places, cosine in more['matches']:
                if min(places) < end:
                    look = dict(color=scale.to_rgba(cosine), lw=0.6 + 2.4 * scale.norm(cosine))
                    ax.plot([0.03, 0.97], np.minimum(places, end), **look)
            ax.set(xlim=(0, 1), ylim=(end + 0.5, -2.5), title=label)
            ax.axis('off')
        ax.figure.colorbar(scale, ax=axes, label='mean cosine over the blocks', shrink=0.6)
