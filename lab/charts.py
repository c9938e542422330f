"""The pictures of FINDINGS.md, from the rows and laws of the lab's runs."""

import numpy as np

from fit_scaling import draw_law, draw_laws
from lib import runs as table
from lib.plots import COLORS, GREY, log_ticks, picture
from lib.tables import short

KINDS = {  # what a control is called, by its (epochs, control_batch)
    (0, 0): 'read once, at the same steps',
    (1, 8): 'read once, in batches of 8',
    (4, 0): 'read 4 times',
    (10, 0): 'read 10 times',
}
BARS = {  # (run, language): what the picture of transfer calls it
    ('past_50_50', 'en2'): 'past the transition: clones 50/50',
    ('past_90_10', 'en2'): 'past the transition: clones 90/10',
    ('f32_clones_90_10', 'en2'): 'clones 90/10, float32, 20 budgets',
    ('clones_50_50', 'en2'): 'clones 50/50',
    ('clones_70_30', 'en2'): 'clones 70/30',
    ('clones_80_20', 'en2'): 'clones 80/20',
    ('clones_90_10', 'en2'): 'clones 90/10',
    ('clones_95_5', 'en2'): 'clones 95/5',
    ('fr_disjoint_50_50', 'fr'): 'French 50% beside English, disjoint',
    ('fr_disjoint_90_10', 'fr'): 'French 10% beside English, disjoint',
    ('fr_anchored_90_10', 'fr'): 'French 10% beside English, anchored',
    ('fr_disjoint_10_90', 'en'): 'English 10% beside French, disjoint',
    ('reversed_90_10', 'en2'): 'reversed English 10%',
    ('shuffled_8_90_10', 'en2'): 'English shuffled in windows of 8, 10%',
    ('beside_reversed_90_10', 'en2'): 'English 10% beside reversed English',
    ('beside_shuffled_8_90_10', 'en2'): 'English 10% beside shuffled in eights',
    ('beside_shuffled_16_90_10', 'en2'): 'English 10% beside shuffled in sixteens',
    ('clones10_balanced', 'en2'): 'one of ten clones, 10% each',
    ('clones10_main_50', 'en2'): 'one of nine clones beside a main one',
    ('clones_90_10_half', 'en2'): 'clones 90/10, half of the tokens',
    ('clones_90_10_twice', 'en2'): 'clones 90/10, twice the tokens',
    ('width_64_90_10', 'en2'): 'width 64: clones 90/10',
    ('width_128_90_10', 'en2'): 'width 128: clones 90/10',
    ('narrow_90_10', 'en2'): 'width 64, four layers, 12M tokens: 90/10',
    ('deep_90_10', 'en2'): 'width 256, four layers, 12M tokens: 90/10',
    ('aligned_90_10', 'en2'): 'clones 90/10, embeddings start the same',
    ('shared_pieces_90_10', 'en2'): 'clones 90/10, half of the tokens shared',
    ('shared_all_90_10', 'en2'): 'clones 90/10, all tokens shared',
}
AXES = {  # (order, percent of the vocabulary that is shared): the run at 90/10
    ('the same', 0): 'clones_90_10',
    ('the same', 50): 'shared_pieces_90_10',
    ('the same', 100): 'shared_all_90_10',
    ('shuffled in pairs', 0): 'shuffled_2_90_10',
    ('shuffled in eights', 0): 'shuffled_8_90_10',
    ('shuffled in eights', 50): 'shared_half_shuffled_8_90_10',
    ('shuffled in eights', 100): 'shared_all_shuffled_8_90_10',
    ('reversed', 0): 'reversed_90_10',
    ('reversed', 50): 'shared_half_reversed_90_10',
    ('reversed', 100): 'shared_all_reversed_90_10',
}


def draw(members, rows, laws, folder):
    """All pictures. members: the runs, with the controls; rows, laws: of fit_scaling."""
    by_name = {(row['run'], row['language']): row for row in rows}
    draw_tokens(members, by_name, laws, folder / 'lab_tokens.png')
    draw_transfers(by_name, folder / 'lab_transfer.png')
    draw_axes(by_name, folder / 'lab_axes.png')
    draw_laws(laws, folder / 'lab_laws.png')


def draw_tokens(members, by_name, laws, path):
    """Perplexity of EN2 at 90/10 by its own tokens: in the mixture, in each kind of control, and in
    monolingual runs. What a point is worth is read off the law at its height."""
    shown = {'before the transition': 'f32_clones_90_10', 'past the transition': 'past_90_10'}
    shown = {title: name for title, name in shown.items() if (name, 'en2') in by_name}
    if not shown:
        return
    with picture(path, '', (4.6 * len(shown), 4.6), ncols=len(shown)) as axes:
        for ax, (title, name) in zip(axes[0], shown.items()):
            row = by_name[name, 'en2']
            law = next(law for law in laws if law['group'] == row['group'])
            draw_law(ax, law | dict(label=', monolingual runs'), GREY)
            member = next(member for member in members if member['run'] == name)
            points = {f'with EN1, {short(row["steps"])} steps': (row['ppl'], 0)}
            for control in table.controls_of(member, 'en2', members):
                settings = control['settings']
                kind = KINDS.get((settings['epochs'], settings['control_batch']))
                ppl, place = (
                    control['languages']['en2']['ppl'],
                    list(KINDS.values()).index(kind) + 1,
                )
                points[f'alone, {kind}'] = (
                    min(points.get(f'alone, {kind}', (ppl, 0))[0], ppl),
                    place,
                )
            curve = law['curve']
            for label, (ppl, place) in sorted(points.items(), key=lambda item: item[1][1]):
                x = row['tokens_seen']
                reach = np.interp(-ppl, -np.array(curve['ppl']), curve['tokens'])
                color, mark = COLORS[place], 'os^vD'[place]
                ax.plot([x, reach], [ppl, ppl], ':', color=color, lw=1)
                ax.plot(x, ppl, mark, color=color, ms=8, label=label, zorder=5)
            ax.set(title=f'{title}: {short(row["tokens_seen"])} tokens of EN2')
            ax.set(xlabel='distinct tokens of EN2', ylabel='perplexity of EN2')
            log_ticks(ax.xaxis, short)
            log_ticks(ax.yaxis)


def draw_transfers(by_name, path):
    """Transfer and nats of every set-up that has a control, from above downwards."""
    shown = {key: label for key, label in BARS.items() if by_name.get(key, {}).get('transfer')}
    size = (10.5, 0.27 * len(shown) + 1.4)
    with picture(path, '', size, ncols=2, sharey=True) as axes:
        for ax, (name, none) in zip(axes[0], dict(transfer=1, transfer_nats=0).items()):
            for place, key in enumerate(shown):
                row = by_name[key]
                ends, color = row[f'{name}_interval'], COLORS[1 if 'past' in key[0] else 0]
                if ends:
                    ax.plot(ends, [-place] * 2, color=color)
                ax.plot(row[name], -place, 'o', color=color, mfc=color if ends else 'white')
            ax.axvline(none, color=GREY, lw=1)
        axes[0, 0].set_yticks([-place for place in range(len(shown))], shown.values())
        axes[0, 0].set(title='transfer, 90% intervals (hollow: none)', xscale='log')
        axes[0, 0].set_xticks([0.7, 1, 1.5, 2, 3, 5, 9], ['0.7', '1', '1.5', '2', '3', '5', '9'])
        axes[0, 0].minorticks_off()
        axes[0, 1].set(title='nats that the other language saves over the best control')


def draw_axes(by_name, path):
    """Transfer at 90/10 from clone to foreign language, by order and by shared vocabulary."""
    orders, shares = (list(dict.fromkeys(values)) for values in zip(*AXES))
    grid = np.full((len(orders), len(shares)), np.nan)
    with picture(path, '', (5, 3.4)) as axes:
        ax = axes[0, 0]
        for (order, share), name in AXES.items():
            row = by_name.get((name, 'en2'), {})
            if row.get('transfer'):
                place = orders.index(order), shares.index(share)
                grid[place] = np.log(row['transfer'])
                text = f'{row["transfer"]:.2f}\n{row["transfer_nats"]:+.2f} nats'
                ax.text(*place[::-1], text, ha='center', va='center', fontsize=8)
        ax.imshow(grid, cmap='RdYlBu_r', vmin=-np.log(20), vmax=np.log(20), aspect='auto')
        ax.grid(False)
        ax.set_yticks(range(len(orders)), orders)
        ax.set_xticks(range(len(shares)), [f'{share}%' for share in shares])
        ax.set(xlabel='shared vocabulary', ylabel="order of EN2's text")
        ax.set_title('transfer to EN2 at 90/10')
