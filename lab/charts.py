"""The pictures of FINDINGS.md, from the rows and laws of the lab's runs."""

import numpy as np

from fit_scaling import draw_laws, draw_text
from lib.plots import COLORS, GREY, MARKERS, log_ticks, picture
from lib.runs import controls_of, group_of
from lib.tables import short

TOKENS = {  # panels of the picture of tokens: the first of these runs that is there
    'at the phase transition': ('f32_clones_90_10', 'clones_90_10'),
    'past the phase transition': ('past_90_10',),
    'past it, a model 8 times as large': ('large_90_10',),
}
SIZES = ('past_90_10', 'past_deep_90_10', 'past_wide_90_10', 'large_90_10')
OVER = {
    'teff': 'TEff: over the monolingual law',
    'transfer': 'transfer: over the best control that reads once',
    'gain': 'gain: over the best control that may re-read',
}


def draw(members, rows, laws, past_laws, folder):
    """All pictures, of runs with their controls, rows and laws, and laws of the larger budgets."""
    by_name = {member['run']: member for member in members}
    draw_tokens(by_name, [laws, past_laws, past_laws], folder / 'lab_tokens.png')
    draw_sizes({row['run']: row for row in rows if row['language'] == 'en2'}, folder)
    draw_transfers(rows, folder / 'lab_transfer.png')
    draw_laws([law for law in laws if law['curve']], folder / 'lab_laws.png')


def draw_tokens(members, laws, path):
    """Perplexity of EN2 at 90/10 by its own tokens: in the mixture, in each kind of control, and in
    monolingual runs (laws, of each panel). Dotted lines lead to the token equivalent on the law."""
    found = [next(filter(members.get, names), None) for names in TOKENS.values()]
    shown = [(*one, members[name]) for *one, name in zip(TOKENS, laws, found) if name]
    if not shown:
        return
    looks = {}  # of each label, the same in all panels
    with picture(path, '', (3.9 * len(shown), 4.4), ncols=len(shown)) as axes:
        for ax, (title, laws_of_panel, member) in zip(axes[0], shown):
            group, own = group_of(member, 'en2'), member['languages']['en2']
            [law] = [law for law in laws_of_panel if law['group'] == group]
            label = 'monolingual runs'
            draw_text(ax, [law | dict(label=f', {label}')], {(label, 1): ('o', GREY)})
            controls = controls_of(member, 'en2', members.values())
            controls.sort(key=lambda one: (kind_of(one), -one['languages']['en2']['ppl']))
            points = {kind_of(control)[1]: control['languages']['en2'] for control in controls}
            for label, point in ({'mixture with EN1': own} | points).items():
                x, y, curve = own['tokens_seen'], point['ppl'], law['curve']
                reach = np.interp(-y, -np.array(curve['ppl']), curve['tokens']) if curve else x
                place = looks.setdefault(label, len(looks))
                ax.plot([x, reach], [y, y], ':', color=COLORS[place], lw=1)
                look = dict(color=COLORS[place], ms=8, label=label, zorder=9 - place)
                ax.plot(x, y, MARKERS[place], **look)
            about = f'{title}\n{short(own["tokens_seen"])} tokens of EN2'
            ax.set(title=about, xlabel='distinct tokens of EN2', ylabel='perplexity of EN2')


def draw_sizes(rows, folder):
    """TEff, transfer and gain of EN2 at 90/10 past the transition, by size of the model."""
    found = [rows[name] for name in SIZES if name in rows]
    if not found:
        return
    shapes = [row['settings'] for row in found]
    names = [f'{shape["n_layer"]} layers\nwidth {shape["n_embd"]}' for shape in shapes]
    with picture(folder / 'lab_sizes.png', '', (9, 3.6), ncols=2) as axes:
        for number, (key, label) in enumerate(OVER.items()):
            ax, look = axes[0, int(key == 'gain')], dict(color=COLORS[number])
            places = np.arange(len(found)) + 0.12 * (key == 'transfer')
            for place, row in zip(places, found):
                ax.plot([place, place], row[f'{key}_interval'] or [row[key]] * 2, **look)
            values = [row[key] for row in found]
            ax.plot(places, values, MARKERS[number], ms=4, label=label, **look)
            ax.set_xticks(range(len(found)), names)
            ax.set(xlim=(-0.5, len(found) - 0.5))
        axes[0, 0].axhline(1, color=GREY, lw=1)
        axes[0, 0].set(ylabel='EN2 at 90/10, past the transition')


def kind_of(control):
    """(order, label) of a kind of control."""
    epochs, batch = (control['settings'][name] for name in ('epochs', 'control_batch'))
    if not epochs:
        return (0, 0), 'control at the same steps'
    often = f're-reads {epochs} times' if epochs > 1 else 'reads once'
    return (epochs, batch), f'control {often}' + (f', batches of {batch}' if batch else '')


def draw_transfers(rows, path):
    """Transfer and nats of every set-up that has a control, the highest first."""
    rows = sorted((r for r in rows if r['transfer']), key=lambda row: row['transfer'])
    with picture(path, '', (10.5, 0.21 * len(rows) + 1.4), ncols=2, sharey=True) as axes:
        for ax, (key, none) in zip(axes[0], dict(transfer=1, transfer_nats=0).items()):
            for place, row in enumerate(rows):
                ends = row[f'{key}_interval']
                ax.plot(ends or [], [place] * len(ends or []), color=COLORS[0])
                ax.plot(row[key], place, 'o', color=COLORS[0], mfc=COLORS[0] if ends else 'white')
            ax.axvline(none, color=GREY, lw=1)
        labels = [f'{row["run"]}: {row["language"]}' for row in rows]
        axes[0, 0].set_yticks(range(len(rows)), labels, fontsize=8)
        axes[0, 0].set_ylim(-1, len(rows))
        axes[0, 0].set(title='transfer, 90% intervals (hollow: none)')
        log_ticks(axes[0, 0].xaxis)
        axes[0, 1].set(title='nats that the other language saves over the best control')
