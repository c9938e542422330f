"""The pictures of analyze.py. Each function draws what the study of the same name found for one or more runs.

labels: name of each run; found: what its study returned; bars and bands are 90% intervals.
"""
import textwrap

import matplotlib
import numpy as np

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

CONTROLS = dict(random=('random pairs', 'C7', 's'), any=('all pairs, mean', 'k', '_'))


def save(figure, title, path, intervals=True):
    title += '; bars and bands: 90% intervals' * intervals
    figure.suptitle(textwrap.fill(title, int(10 * figure.get_figwidth())), fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def error(estimate):
    """Distances of the 90% interval from the value: (2, ...)."""
    low, high = estimate.interval()
    return np.stack([np.maximum(estimate.value - low, 0), np.maximum(high - estimate.value, 0)])


def alignment(panels, labels, shares, title, path):
    """Cosine of corresponding vectors and its controls (Figure 6): bars for one run, lines over the share of the first
    language for more. panels: {title: [{measure: Estimate} of each run]}."""
    columns = len(panels) // 2 if len(panels) > 2 else len(panels)  # of word vectors: a row of input, one of output
    rows = len(panels) // columns
    figure, axes = plt.subplots(rows, columns, figsize=(1.2 + 3.2 * columns, 0.6 + 3.2 * rows), sharey=True, squeeze=False,
                                layout='constrained')
    measures = dict(pairs=('corresponding', 'C0', 'o'), **CONTROLS)
    several = len(labels) > 1
    order = np.argsort(shares, kind='stable')
    ratios = len({round(100 * share) for share in shares}) == len(shares)  # else the axis has a place for each run
    x = np.array(shares)[order] * 100 if ratios else np.arange(len(labels))
    for ax, (name, runs) in zip(axes.flat, panels.items()):
        for number, (measure, (label, color, marker)) in enumerate(measures.items()):
            there = [place for place, i in enumerate(order) if measure in runs[i]]  # anchored runs have no pairs
            chosen = [runs[order[place]][measure] for place in there]
            if not chosen:
                continue
            values, errors = [float(e.value) for e in chosen], np.stack([error(e) for e in chosen], 1)
            if several:
                ax.errorbar(x[there], values, errors, color=color, marker=marker, capsize=3, label=label,
                            ls='-' if measure == 'pairs' else ':')
            else:
                ax.bar(number, values[0], yerr=errors, color=color, capsize=4, label=label, alpha=0.8, width=0.7)
        ax.axhline(0, color='0.7', lw=0.8, zorder=0)
        ax.set_title(name, fontsize=10)
        ax.grid(axis='y', alpha=0.3)
        ax.set_axisbelow(True)
        if not several:
            ax.set_xticks([])
        elif not ratios:
            ax.set_xticks(x, [labels[i].replace(' (', '\n(') for i in order], rotation=0 if len(x) < 4 else 90, fontsize=7)
            ax.margins(x=0.25)
        else:
            ax.set_xlabel('share of the first language, %')
            ax.set_xticks(x, [f'{value:.0f}' for value in x])
            ax.margins(x=0.15)
    for ax in axes[:, 0]:
        ax.set_ylabel('cosine')
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=3, fontsize=8)
    save(figure, title, path)


def frequency(labels, found, title, path):
    """Cosine of corresponding embeddings by how often the rarer was read (Figure 7)."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout='constrained')
    names = {}
    for ax, kind in zip(axes, ('input', 'output')):
        for number, (label, one) in enumerate(zip(labels, found)):
            if not one['bins']:  # an anchored vocabulary
                continue
            bins = one['bins'].values()
            x = [np.log10(max(b['low'], 0.3)) + 0.25 + 0.03 * number for b in bins]
            for b in bins:
                names[b['low']] = f'{b["low"]:,}+' if b['low'] else '0'
            for measure, style in dict(pairs='o-', random='s:').items():
                chosen = [b[kind][measure] for b in bins]
                errors = np.stack([error(e) for e in chosen], 1)
                ax.errorbar(x, [float(e.value) for e in chosen], errors, fmt=style, ms=4, capsize=2, color=f'C{number}',
                            alpha=1 if measure == 'pairs' else 0.5,
                            label=label + (': corresponding' if measure == 'pairs' else ': random pairs of the bin'))
        lows = sorted(names)
        ax.set_xticks([np.log10(max(low, 0.3)) + 0.25 for low in lows], [names[low] for low in lows], rotation=30,
                      ha='right', fontsize=8)
        ax.axhline(0, color='0.7', lw=0.8, zorder=0)
        ax.set_title(f'{kind} embeddings', fontsize=10)
        ax.set_xlabel('how often the rarer piece of a pair was read')
        ax.grid(alpha=0.3)
    axes[0].set_ylabel('cosine')
    axes[0].legend(fontsize=7)
    save(figure, title, path)


HIDDEN = dict(positions='cosine, same position', matched='cosine, matched tokens', any='cosine, all pairs of tokens',
              retrieval='retrieval', cka='linear CKA')


def hidden(labels, found, title, path):
    """What hidden states have in common, over the blocks (Tables 2 and 4 and beyond)."""
    measures = [name for name in HIDDEN if any(name in one for one in found)]
    figure, axes = plt.subplots(1, len(measures), figsize=(1 + 3 * len(measures), 3.8), layout='constrained')
    for ax, measure in zip(axes, measures):
        for number, (label, one) in enumerate(zip(labels, found)):
            if measure not in one:  # real languages have no positions to compare
                continue
            x = np.arange(1, len(one[measure].value) + 1)
            ax.plot(x, one[measure].value, 'o-', ms=4, color=f'C{number}', label=label)
            ax.fill_between(x, *one[measure].interval(), color=f'C{number}', alpha=0.25, lw=0)
        ax.set_title(HIDDEN[measure], fontsize=10)
        ax.set_xlabel('block')
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
        if measure in ('retrieval', 'cka'):
            ax.set_ylim(-0.03, 1.03)
    of_cosine = [ax for ax, measure in zip(axes, measures) if measure not in ('retrieval', 'cka')]
    limits = np.array([ax.get_ylim() for ax in of_cosine])
    for ax in of_cosine:  # to be compared with each other
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    figure.legend(*axes[-1].get_legend_handles_labels(), loc='outside lower center', ncols=min(3, len(labels)), fontsize=8)
    save(figure, title, path)


def gradients(labels, found, title, path):
    """Heat maps of gradient similarity, kinds of tensors x blocks, and the difference of two runs (Figures 11-13)."""
    panels = [(f'{label}\nmacro average {float(one["macro"].value):.2f}', one['similarity'].value, one['kinds'])
              for label, one in zip(labels, found)]
    same = len({values.shape for _, values, _ in panels}) == 1
    if len(panels) == 2 and same:
        panels.append((f'difference\n{labels[1]} - {labels[0]}', panels[1][1] - panels[0][1], panels[0][2]))
    blocks = max(values.shape[1] for _, values, _ in panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(2 + len(panels) * max(3.4, 1 + 0.42 * blocks), 6.2),
                                squeeze=False, layout='constrained')
    for ax, (name, values, kinds) in zip(axes[0], panels):
        image = ax.imshow(values, cmap='RdBu_r', vmin=-1, vmax=1, aspect='auto')
        for (row, column), value in np.ndenumerate(values):
            ax.text(column, row, f'{round(float(value), 2) + 0.0:.2f}'.replace('0.', '.'), ha='center', va='center', fontsize=7,
                    color='w' if abs(value) > 0.6 else 'k')
        ax.set_title(name, fontsize=9)
        ax.set_xticks(np.arange(values.shape[1]), np.arange(1, values.shape[1] + 1), fontsize=8)
        ax.set_yticks(np.arange(len(kinds)), kinds if ax is axes[0, 0] or not same else [''] * len(kinds), fontsize=8)
        ax.set_xlabel('block')
    figure.colorbar(image, ax=axes, label='cosine of gradients', shrink=0.6)
    save(figure, title, path, intervals=False)


CHARACTER = 0.088  # inches of a character of the size that is used


def matching(labels, found, shown, title, path):
    """The matching of a pair of sentences, a panel for each run: two rows of tokens, lines between matched ones
    (Figure 14). A line that ends at ... leads to a token before or after those that are shown, [first, end)."""
    width = max([30] + [sum(map(room, one[key][slice(*shown)])) for one in found for key in ('tokens_1', 'tokens_2')])
    figure, axes = plt.subplots(len(found), 1, figsize=((width + 10) * CHARACTER + 1.6, 0.4 + 2.8 * len(found)),
                                squeeze=False, layout='constrained')
    drawn = [(i, j, value) for one in found for i, j, value in one['matches']
             if shown[0] <= i < shown[1] or shown[0] <= j < shown[1]]
    colors, values = plt.get_cmap('viridis_r'), [value for *_, value in drawn]
    scale = plt.Normalize(min(values), max(max(values), min(values) + 1e-6))
    for ax, label, one in zip(axes[:, 0], labels, found):
        outside = set()
        ends = [place_tokens(ax, one[key], shown, width, y) for key, y in (('tokens_1', 1), ('tokens_2', 0))]
        for i, j, value in one['matches']:
            if i in ends[0] or j in ends[1]:
                x = [end.get(token, -3 if token < shown[0] else width + 3) for end, token in zip(ends, (i, j))]
                ax.plot(x, [0.91, 0.09], color=colors(scale(value)), lw=0.6 + 2.4 * scale(value), zorder=1 + scale(value))
                outside |= {(place, y) for token, end, place, y in zip((i, j), ends, x, (1, 0)) if token not in end}
        for place, y in outside:
            ax.text(place, y, '...', ha='center', va='center', fontsize=10, family='monospace')
        for name, y in zip(one['names'], (1, 0)):
            ax.text(-6, y, name, ha='right', va='center', fontsize=10, weight='bold', parse_math=False)
        ax.set(xlim=(-7 - 1.3 * max(map(len, one['names'])), width + 5), ylim=(-0.15, 1.15))
        ax.set_title(label, fontsize=9, parse_math=False)
        ax.axis('off')
    figure.colorbar(plt.cm.ScalarMappable(scale, colors), ax=axes, label='mean cosine over the blocks', aspect=12 * len(found),
                    shrink=0.9, pad=0.01)
    save(figure, title, path, intervals=False)


def room(text):
    """Width of a token's box with the gap behind it, characters."""
    return len(text) + 1.6


def place_tokens(ax, texts, shown, width, y):
    """Writes the shown tokens as a row in the middle of `width`; returns {position: x}."""
    texts = texts[slice(*shown)]
    x, places = (width - sum(map(room, texts))) / 2, {}
    for position, text in enumerate(texts, shown[0]):
        places[position] = x + room(text) / 2
        x += room(text)
        ax.text(places[position], y, text, ha='center', va='center', fontsize=10, family='monospace', parse_math=False,
                bbox=dict(boxstyle='square,pad=0.15', fc='0.95', ec='0.6', lw=0.6), zorder=5)
    return places
