"""All drawing: the style, panels of runs for the report, and the pictures of the studies."""

import contextlib
import functools
import io
import itertools
import re
import textwrap
import unicodedata
import warnings

import numpy as np
from matplotlib import font_manager
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lib.estimate import ALL, places_of
from lib.tables import width_of

# --- style ----------------------------------------------------------------------------------------

plt.switch_backend('Agg')  # files only, no windows

DPI = 160
# the colours of Okabe and Ito, which colour-blind readers can tell apart
COLORS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000']
GREY = '#555555'
MARKERS = 'osD^vP'  # of the first language, the second, more
STYLE = {'font.size': 9, 'axes.titlesize': 9.5, 'axes.grid': True, 'grid.alpha': 0.25}
STYLE |= {'axes.spines.top': False, 'axes.spines.right': False, 'axes.axisbelow': True}
STYLE |= {'legend.frameon': False, 'legend.fontsize': 8.5, 'text.parse_math': False}


def legend_entries(axes):
    """{label: artist} of some axes. A name may begin with an underscore, which matplotlib hides."""
    hidden, entries = re.compile(r'_(child|container)\d+|_nolegend_|').fullmatch, {}
    for artist in itertools.chain(*((*ax.containers, *ax.lines) for ax in axes)):
        if not hidden(label := str(artist.get_label())):
            entries.setdefault(label, artist)
    return entries


@functools.cache
def fonts_for(letters):
    """Names of installed fonts for some letters (a frozenset): of fixed width, DejaVu Sans, Noto,
    then any. Prints which letters no font has."""
    lacking = {c for c in letters if unicodedata.category(c) not in ('Cc', 'Cf', 'Zs')}
    families, paths = [], font_manager.findSystemFonts()  # newer than matplotlib's cache
    paths.sort(key=lambda path: ('Noto' not in path, 'Regular' not in path, path))
    for path in [*map(font_manager.findfont, ('monospace', 'DejaVu Sans')), *paths]:
        if not lacking:
            break
        font = font_manager.get_font(path)
        known = font.get_charmap()
        found = {letter for letter in lacking if ord(letter) in known}
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
            most = max(1, int(14 * size[0] / (8 + max(map(width_of, entries)))))
            columns = -(-len(entries) // -(-len(entries) // most))  # of about equal length
            place = dict(loc='outside lower center', ncols=columns)
            figure.legend(entries.values(), entries, **place)
        if title:
            figure.suptitle(textwrap.fill(title, int(10 * size[0])), fontsize=11)
        texts = figure.findobj(plt.Text)
        families = fonts_for(frozenset(itertools.chain(*(text.get_text() for text in texts))))
        for text in texts:
            text.set_fontfamily([*text.get_fontfamily(), *families])
        with warnings.catch_warnings():  # of a glyph that no font has, once said
            warnings.filterwarnings('ignore', 'Glyph')
            figure.savefig(file, format='png', dpi=DPI)
        plt.close(figure)


def log_ticks(axis, write='{:g}'.format):
    """A log axis with plain numbers on it."""
    axis.axes.set(**{f'{axis.axis_name}scale': 'log'})
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 5, 7)
    subs = subs if high > 5 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_locator(NullLocator())


# --- panels of the report -------------------------------------------------------------------------


@contextlib.contextmanager
def panel(panels, title, **labels):
    """Axes to draw on; their PNG (bytes) and what it shows in words go to the list `panels`."""
    buffer = io.BytesIO()
    with picture(buffer, '', (4.6, 3.8)) as ((axes,),):
        axes.set(title=textwrap.fill(title, 54), **labels)
        yield axes
        alt = f'{title}: {axes.get_ylabel()} by {axes.get_xlabel()}'
        if any(line.get_markerfacecolor() == 'white' for line in axes.lines):
            axes.plot([], [], 'o:', color=GREY, mfc='white', ms=7, label='hollow: the paper')
            alt += '; hollow markers: the paper'
    panels.append((buffer.getvalue(), alt))


def draw_points(axes, points, top, fmt, **look):
    """Markers with 90% bars at points (x, y, low, high), and from three places on a line through
    their means. A bar that leaves the picture at `top` ends in an arrow. fmt: marker and dash."""
    x, y, low, high = np.array(sorted(points)).T
    places = np.unique(x)
    if len(places) > 2:
        means = [y[x == place].mean() for place in places]
        axes.plot(places, means, fmt[1:], lw=1.4, color=look['color'], zorder=2)
    bars = [y - low, np.minimum(high, top) - y]
    axes.errorbar(x, y, bars, fmt=fmt[0], capsize=3, elinewidth=1.2, **dict(ms=5, zorder=3) | look)
    over = x[high > top]
    axes.plot(over, np.full(len(over), top), '^', color=look['color'], ms=6)


# --- studies --------------------------------------------------------------------------------------

UNIT = 'retrieval', 'linear', 'share', 'mass'  # first words of headings of panels from 0 to 1
CONTROLS = {'random', 'frequency-matched', 'all pairs', 'chance', 'nothing'}  # grey, dotted
CONTROLS |= {'own, unrelated', 'other, unrelated'}


def axis_of(places):
    """Where the places of a panel stand on its axis, {place: x}, in order.

    Numbers stand at their value, or at its logarithm where they grow by factors; bins and names
    stand beside each other. The mean over all bins is in the tables only."""
    places, _ = places_of([places])
    places = [place for place in places if place != ALL] or places
    x = range(len(places))
    if all(isinstance(place, int) for place in places):
        gaps = np.diff(places)
        grow = len(places) > 2 and places[0] > 0 and max(gaps) > 5 * min(gaps)
        x = np.log(places) if grow else places
    return dict(zip(places, x))


def draw_study(path, title, results, axis):
    """A panel for each heading, and for each difference of two runs.

    results: {label of a run, or 'difference': {heading: {line: {place: Estimate}}}}; axis: what
    numbered places are called."""
    panels, kinds = {}, {}
    for label, result in results.items():
        for heading, lines in result.items():
            name = f'difference: {heading}' if label == 'difference' else heading
            panels.setdefault(name, {}).update({(label, line): c for line, c in lines.items()})
    first = next(iter(results.values()))
    columns = len({heading.rpartition(' ')[0] or heading for heading in first})  # but for the place
    columns = min(columns, next((n for n in (4, 3, 2) if len(first) % n == 0), 4))
    rows = -(-len(panels) // columns)
    size = max(6, 1.8 + 3.1 * columns), 1.1 + 3.2 * rows
    names = dict.fromkeys(name for series in panels.values() for _, name in series)
    numbers = [{name: i for i, name in enumerate(one)} for one in (results, names)]
    with picture(path, f'{title}; bars: 90% intervals', size, nrows=rows, ncols=columns) as axes:
        for ax, (heading, series) in zip(axes.flat, panels.items()):
            draw_lines(ax, series, *numbers, axis)
            ax.set_title(textwrap.fill(heading, 38))
            kinds.setdefault(re.match(r'(difference: )?\w*', heading)[0], []).append(ax)
        for ax in axes.flat[len(panels) :]:
            ax.axis('off')
        for kind, same in kinds.items():
            lows, highs = zip(*(ax.get_ylim() for ax in same))
            limits = (-0.03, 1.03) if kind in UNIT else (min(lows), max(highs))
            plt.setp(same, ylim=limits)


def draw_lines(axes, series, labels, names, axis):
    """The lines of a panel, {(label, name): {place: Estimate}}. Several labels have a colour each,
    and their lines a marker each; they stand a little beside each other. labels, names: {text:
    number}, of the whole picture."""
    x = axis_of(dict.fromkeys(place for cells in series.values() for place in cells))
    (_, numbered), several, gaps = places_of([x]), len(labels) > 1, np.diff(list(x.values()))
    apart = min([0.012 * (sum(gaps) or 1), *(0.6 * gaps / len(series))])
    for number, ((label, name), cells) in enumerate(series.items()):
        control, places = name in CONTROLS, [place for place in x if place in cells]
        color = COLORS[(labels[label] if several else names[name]) % len(COLORS)]
        look = dict(color=GREY if control and not several else color, ms=4, lw=1.2, capsize=2)
        look['fmt'] = MARKERS[names[name] % len(MARKERS)] + ('-:'[control] if numbered else '')
        look['label'] = ': '.join(filter(None, (label if several else '', name)))
        values = np.array([[cells[p].value, *cells[p].interval()] for p in places]).T
        bars = np.maximum([values[0] - values[1], values[2] - values[0]], 0)
        beside = apart * (number - (len(series) - 1) / 2)
        axes.errorbar([x[place] + beside for place in places], values[0], bars, **look)
    ticks, room = [], (max(x.values()) - min(x.values())) / 12
    for place in reversed(x):  # the last one has its label
        if not ticks or x[ticks[0]] - x[place] >= room:
            ticks.insert(0, place)
    texts = [f'{place:,}' if isinstance(place, int) else place for place in ticks]
    crowded = dict(rotation=30, ha='right') if len(''.join(texts)) > 30 else {}
    axes.set_xticks([x[place] for place in ticks], texts, **crowded)
    axes.set_xlabel(axis if numbered else '')
    axes.margins(x=0.5 / (len(ticks) + 1))
    if label == 'difference':
        axes.axhline(0, color=GREY, lw=0.8)


def draw_gradients(path, title, results):
    """Heat maps, kinds of tensors x blocks, of the first heading of each result."""
    maps = {label: next(iter(r.panels.values())) for label, r in results.items() if r.panels}
    size = 2 + sum(max(3.4, 1 + 0.42 * len(next(iter(m.values())))) for m in maps.values()), 6.2
    with picture(path, title, size, ncols=len(maps), sharey=True) as axes:
        for ax, (label, kinds) in zip(axes[0], maps.items()):
            blocks = next(iter(kinds.values()))
            matrix = np.array([[cell.value for cell in cells.values()] for cells in kinds.values()])
            image = ax.imshow(matrix, cmap='RdBu_r', vmin=-1, vmax=1, aspect='auto')
            for (row, column), value in np.ndenumerate(matrix):
                look = dict(fontsize=7, color='white' if abs(value) > 0.6 else 'black')
                ax.text(column, row, f'{value:z.2f}', ha='center', va='center', **look)
            ax.set(title=f'{label}\nmacro average {matrix.mean():z.2f}', xlabel='block')
            ax.set_xticks(range(len(blocks)), blocks)
            ax.set_yticks(range(len(kinds)), kinds)
            ax.grid(False)
        ax.figure.colorbar(image, ax=axes, label='cosine of gradients', shrink=0.6)


def draw_matching(path, title, results):
    """Two rows of tokens for each run, lines between those that are matched.

    A line that ends at ... leads to a token before or after those that are shown."""
    found = {label: result.more for label, result in results.items() if result.more}
    first, end = next(iter(found.values()))['shown']
    rows = [tokens[first:end] for more in found.values() for tokens in more['tokens']]
    lengths = [np.array([width_of(token) + 1.6 for token in row]) for row in rows]  # with a space
    width, lengths = max(30, *(row.sum() for row in lengths)), iter(lengths)
    cosines = [cosine for more in found.values() for *_, cosine in more['matches']] or [0]
    scale, colors = plt.Normalize(min(cosines), max(cosines)), plt.get_cmap('viridis_r')
    box = dict(boxstyle='square,pad=0.15', fc='0.95', ec='0.6', lw=0.6)
    look = dict(ha='center', va='center', fontsize=10, family='monospace')
    size = 0.088 * width + 2.6, 0.8 + 2.8 * len(found)
    with picture(path, title, size, nrows=len(found)) as axes:
        for ax, (label, more) in zip(axes[:, 0], found.items()):
            places = []  # of each side, {position: x}
            for tokens, name, y in zip(more['tokens'], more['names'], (1, 0)):
                row = next(lengths)
                x = (width - row.sum()) / 2 + np.cumsum(row) - row / 2
                places.append(dict(enumerate(x, first)))
                for position, x in places[-1].items():
                    ax.text(x, y, tokens[position], bbox=box, zorder=5, **look)
                ax.text(-6, y, name, ha='right', va='center')
            for *tokens, cosine in more['matches']:
                x, weight = [], float(scale(cosine))
                if not any(token in place for token, place in zip(tokens, places)):
                    continue
                for place, token, y in zip(places, tokens, (1, 0)):
                    x.append(place.get(token, -3 if token < first else width + 3))
                    if token not in place:
                        ax.text(x[-1], y, '...', **look)
                ax.plot(x, [0.91, 0.09], color=colors(weight), lw=0.6 + 2.4 * weight)
            margin = 7 + 1.3 * max(map(width_of, more['names']))
            ax.set(xlim=(-margin, width + 5), ylim=(-0.15, 1.15), title=label)
            ax.axis('off')
        mapped = plt.cm.ScalarMappable(scale, colors)
        ax.figure.colorbar(mapped, ax=axes, label='mean cosine over the blocks', shrink=0.9)
