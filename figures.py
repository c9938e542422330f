"""The figures of the report: one table of what they show, and one style of drawing.

A function draws the panels of a figure, or of a part of one, and names the runs that it drew: all
that can be compared and make two points. Filled markers are ours, hollow ones the paper's; they
share a panel where its axes mean the same for both, which for ratios they do more often.
"""

import functools
import itertools
import json
import math
import sys
import textwrap
from collections import namedtuple

import numpy as np

from fit_scaling import UNIT, load_paper_laws
from lib.paper import SHAPES, kind_of, load_paper_runs, read_csv
from lib.plots import (
    COLORS,
    DASHES,
    GREY,
    MARKERS,
    PERCENTS,
    TITLES,
    Line,
    draw_points,
    log_ticks,
    panel,
    short,
)
from lib.runs import DEFAULTS, SCORED, Group, group_of, label_of, trained

MEASURES = ('ppl', 'teff', 'transfer')
Z90 = 1.645  # standard errors to either side of a 90% interval
DRAWN_PPL = 1e6  # a larger perplexity is a number of the tables only


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


def points(cases, by, role, what):
    """[(x, y, low, high)] of the first (role 0) or second (1) language of each case that has them.
    Shares are percents, a little aside so that neither language hides the other."""
    found = []
    for case in cases:
        x, values = case[by], measured(case['languages'][role], what)
        if by in PERCENTS:
            x = 100 * x + (1.0 if what == 'control_teff' else 0.8 * role - 0.4)
        found += [(x, *values)] if values else []
    return found


# --- cases: runs as the figures see them ----------------------------------------------------------

# With another value of these a run is no plain mix of languages: it is compared with its like.
UNUSUAL = ('loss_weights', 'start_entries', 'start_noise', 'trainable', 'orders')
PAPER = Group(**dict.fromkeys(Group._fields, '') | dict(n_layer=12, n_head=12, head_dim=64))
PAPER = PAPER._replace(n_embd=768, mlp_dim=3072, block_size=512, batch_size=128)
ALL_BUT_RATIO = 'laws shared length'
SAME = 'kinds vocabulary size unusual'  # of a run in the paper's setting


def cases_of(runs, laws, rows):
    """The cases of all runs but the controls, which are no mixes. laws, rows: of `analyse`."""
    by_name, cases = {(row['run'], row['language']): row for row in rows}, []
    for run in runs:
        settings, languages = run['settings'], []
        for name in () if settings['only'] else trained(run):
            group, i = group_of(run, run['languages'][name]), list(run['languages']).index(name)
            about = dict(group=group, law=laws[group]['law'], kind=kind_of(name, group.corpus))
            shares = [stage[i] for stage in settings.get('stages', ())]
            languages.append(by_name[run['run'], name] | about | dict(shares=shares))
        unusual = (
            f'{name} {settings[name]}' for name in UNUSUAL if settings[name] != DEFAULTS[name]
        )
        shared = round(1 - settings.get('cloned_fraction', 1), 4)
        if languages:
            steps, vocabulary = settings.get('max_steps', 0), settings.get('vocabulary', '')
            about = steps, vocabulary, ', '.join(unusual), shared
            cases.append(case_of(run['run'], languages, *about))
    return cases


@functools.cache
def paper_cases():
    """The published runs of one or two languages as cases."""
    laws, cases = load_paper_laws(), []
    for run in load_paper_runs():
        languages = []
        for i, row in enumerate(run['languages']):
            about = dict(language=row['name'], corpus=row['kind'], ppl_se=0.0, group=PAPER)
            shares = [stage[i] for stage in run['stages']]
            languages.append(row | about | dict(law=laws[row['kind']], shares=shares))
        if len(run['kinds']) <= 2:
            cases.append(case_of(run['name'], languages, run['steps'], run['vocabulary']))
    return cases


def case_of(run, languages, steps, vocabulary, unusual='', shared=0):
    """A run as a dict, with what follows from the rows of its languages: kind, ratio ('90/10'),
    share of the second language, which is the rarer clone, or French."""
    corpora = list(dict.fromkeys(row['corpus'] for row in languages))
    kind = 'pair' if len(corpora) > 1 else 'clones'
    kind = kind if len(languages) == 2 else 'many' if languages[1:] else 'alone'
    order = [row['kind'] == 'fr' if kind == 'pair' else -sum(row['shares']) for row in languages]
    ordered = [languages[i] for i in np.argsort(order, kind='stable')]
    constant = kind in ('pair', 'clones') and all(len(set(row['shares'])) == 1 for row in languages)
    vocabulary, group = vocabulary if kind == 'pair' else 'disjoint', ordered[0]['group']
    tokens = steps * group.batch_size * group.block_size
    weights = 4 * group.n_head * group.head_dim + 2 * group.mlp_dim
    special = [unusual, f'{shared:.0%} of the pieces shared' if shared else '']
    label = [' + '.join(corpora), vocabulary if kind == 'pair' else '', *special]
    return dict(
        run=run,
        languages=ordered,
        kind=kind,
        vocabulary=vocabulary,
        unusual=unusual,
        shared=shared,
        special=any(special),
        label=', '.join(filter(None, label)),
        corpora=' + '.join(corpora),
        size=size_of(group),
        length=f'{short(tokens)} tokens',
        tokens=tokens,
        parameters=group.n_layer * group.n_embd * weights,
        published=group is PAPER,
        turned=ordered[0] is not languages[0],
        kinds=tuple(row['kind'] for row in ordered),
        text=(*((row['corpus'], row['group'].tokenizer) for row in ordered), vocabulary),
        # what runs share whose perplexities compare
        laws=(tuple(row['group'] for row in ordered), vocabulary, unusual),
        rate=(group.learning_rate, group.min_learning_rate, group.lr_schedule),
        share=ordered[1]['shares'][0] if constant else None,
        ratio='/'.join(f'{100 * row["shares"][0]:.3g}' for row in ordered) if constant else '',
    )


def size_of(group):
    name = SHAPES.get((group.n_layer, group.n_embd)) if group.block_size == 512 else None
    return f'GPT {name}' if name else f'{group.n_layer} layers of {group.n_embd}'


def mixes(cases, *kinds):
    """The runs of two languages at one ratio."""
    return [case for case in cases if case['kind'] in kinds and case['share'] is not None]


def published(case, keys):
    """The paper's mixes that have what a case of ours has under the keys."""
    theirs = mixes(paper_cases(), case['kind'])
    return [p for p in theirs if all(p[key] == case[key] for key in keys.split())]


def standard(case):
    """The paper's mixes of a vocabulary in its usual length."""
    return [p for p in published(case, 'vocabulary') if p['tokens'] == UNIT]


def grouped(cases, keys, title='{label}, {size}, {length}'):
    """[(title, cases)] of cases that agree in the keys: plain mixes first, then by their number."""
    groups, titled = {}, []
    for case in cases:
        groups.setdefault(tuple(case[key] for key in keys.split()), []).append(case)
    for members in sorted(groups.values(), key=lambda group: (group[0]['special'], -len(group))):
        text = title.format_map(members[0])
        if text in dict(titled):
            text = f'{label_of(members[0]["languages"][0]["group"])}, {members[0]["length"]}'
        titled.append((text, members))
    return titled


def names_of(cases):
    """Names of both languages; a clone that is the rarer one elsewhere may be the first here."""
    return [row['language'].upper() for row in min(cases, key=lambda c: c['turned'])['languages']]


# --- figures of mixes -----------------------------------------------------------------------------


def chart(panels, title, cases, what, by, language=''):
    """A panel of our cases and the paper's by share, shared, tokens or parameters: a line for each
    language; by size for each ratio and language, or of one language for each ratio and size."""
    first, names, lines = cases[0], names_of(cases), []
    by_size = sorted(cases, key=lambda case: case['parameters'])
    marks = list(dict.fromkeys(case['size'] for case in by_size)) if language else names
    ratios = [''] if by in PERCENTS else sorted({case['ratio'] for case in cases})
    for hollow, ratio, mark in itertools.product((False, True), ratios, marks):
        chosen = [c for c in cases if c['published'] == hollow and ratio in ('', c['ratio'])]
        chosen = [c for c in chosen if mark in (*names, c['size'])]
        i = marks.index(mark)
        color = COLORS[(2 + ratios.index(ratio)) % 7 if ratio else i]
        values = points(chosen, by, names.index(language or mark), what)
        look = color, MARKERS[i % 5], DASHES[i % 3], hollow
        lines.append(Line(f'{ratio} {mark}'.strip(), values, *look))
    if not any(line.points for line in lines if line.hollow == first['published']):
        return
    for role in (0, 1) if what == 'teff' and by == 'share' else ():
        values = points(cases, by, role, 'control_teff')
        lines.append(Line(f"{names[role]}'s control", values, COLORS[role], 'x', '-.'))
    xlabel = TITLES[by].format(names[1])
    with panel(panels, title, xlabel=xlabel, ylabel=TITLES[what]) as axes:
        draw_points(axes, lines, what)
        if by not in PERCENTS:
            return log_ticks(axes.xaxis, short)
        clones = by == 'share' and first['kind'] == 'clones'  # the second is the rarer one
        axes.set(xlim=(0, 53) if clones else (-4, 104))
        axes.set_xticks([5, 10, 20, 30, 40, 50] if clones else range(0, 101, 10))
        if what == 'accuracy':
            level = first['languages'][0]['majority']
            axes.axhline(level, color=GREY, ls='-.', lw=1, label='majority class')
        x = np.linspace(min(case[by] for case in cases), max(case[by] for case in cases), 100)
        for role, part in enumerate((1 - x, x) if by == 'share' else (np.ones(100),)):
            law = first['languages'][role]['law'] if what == 'ppl' else None
            if law:
                y = law.ppl(part * first['tokens'])
                amount = 'its share' if by == 'share' else 'all tokens'
                label = f'{names[role]} alone on {amount} (law)'
                look = dict(ls='-.', lw=1, color=COLORS[role], alpha=0.7, label=label)
                axes.plot(100 * x, np.where(y < DRAWN_PPL, y, np.nan), **look)


VIEWS = dict(  # by: (what the runs of a panel share, its title, what the paper's run has in common)
    share=(ALL_BUT_RATIO, '{label}, {size}, {length}', 'shared length'),
    shared=('laws ratio length', '{corpora}, {ratio}, {size}, {length}', 'ratio length'),
    tokens=('laws shared', '{label}, {size}', 'shared ratio'),
    parameters=('text rate label length', '{label}, {length}', 'ratio length'),
    all=('text rate label', '{label}', 'shared ratio'),
)


def mix_panels(cases, kind, by):
    """PPL, TEff and transfer by the share of the second language, by the share of the pieces that
    both have, by tokens or parameters; by 'all', each language by tokens, in all sizes.

    All groups of runs are drawn that differ in nothing else but the ratio, and make two points.
    TEff by share has the paper's beside it always, PPL a panel of the paper's where it has not."""
    panels, drawn, papers = [], set(), {}
    keys, form, common = VIEWS[by]
    x = 'tokens' if by == 'all' else by
    for title, ours in grouped(mixes(cases, kind), keys, form):
        theirs = {p['run']: p for c in ours for p in published(c, f'{SAME} {common}')}
        theirs, usual = list(theirs.values()), standard(ours[0]) if by == 'share' else []
        if len({case[x] for case in ours + theirs}) < 2:
            continue
        for what, name in itertools.product(MEASURES, names_of(ours) if by == 'all' else ['']):
            beside = theirs or (usual if what == 'teff' else [])
            chart(panels, f'{title}, {name}'.strip(', '), ours + beside, what, x, name)
        drawn |= {case['run'] for case in ours}
        if usual and not papers.get(ours[0]['vocabulary']):
            papers[ours[0]['vocabulary']] = theirs
    for vocabulary, theirs in papers.items():
        if not theirs:
            theirs = standard(dict(kind=kind, vocabulary=vocabulary))
            title = 'the paper: {label}, {size}, {length}'.format_map(theirs[0])
            chart(panels, title, theirs, 'ppl', 'share')
    return panels, drawn


# --- Figure 1, right: fine-tuning -----------------------------------------------------------------


def fine_tuned(root, case):
    """{task: entry} of a run's finetune.json, where it was fine-tuned in the first language, as in
    the figure; else empty."""
    path, first = root / case['run'] / 'finetune.json', case['languages'][0]['language']
    try:
        results = json.loads(path.read_text(encoding='utf-8')) if path.exists() else dict(tasks={})
        entries = {name: e for name, e in results['tasks'].items() if 'languages' in e}
        return entries if results.get('train_language', first) == first else {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        print(f'warning: {path} is damaged; it is not drawn', file=sys.stderr)
        return {}


def glue_panels(cases, root):
    """Accuracy by ratio after fine-tuning in the first language, a mean over the tasks, of runs
    that were tuned on the same; the paper's is the mean over its ten."""
    panels, drawn, theirs, tuned = [], set(), [], []
    for row in read_csv('paper_glue.csv'):
        languages = [dict(language=name, accuracy=float(row[name])) for name in ('en1', 'en2')]
        case = dict(share=float(row['p_en2']), languages=languages, published=True, turned=False)
        theirs.append(case | dict(size='', parameters=0, ratio=''))
    for case in mixes(cases, 'clones'):
        entries = fine_tuned(root, case)
        if entries:
            languages = [row | mean_accuracy(entries, row['language']) for row in case['languages']]
            tuned.append(case | dict(languages=languages, tasks=', '.join(sorted(entries))))
    form = '{label}, {size}, {length}; mean of {tasks} (the paper: of ten)'
    for title, members in grouped(tuned, f'{ALL_BUT_RATIO} tasks', form):
        chart(panels, title, members + theirs, 'accuracy', 'share')
        drawn |= {case['run'] for case in members}
    return panels, drawn


def mean_accuracy(entries, language):
    """The mean over tasks, whose errors are independent, and what the majority class would have."""
    scores = [entry['languages'][language] for entry in entries.values()]
    values = np.array([(score['mean'], *score['interval']) for score in scores])
    mean = values[:, 0].mean()
    below, above = (np.linalg.norm(values[:, 0] - values[:, i]) / len(values) for i in (1, 2))
    majority = np.mean([entry['majority'] for entry in entries.values()])
    return dict(accuracy=mean, accuracy_interval=(mean - below, mean + above), majority=majority)


# --- Figure 5 -------------------------------------------------------------------------------------


def law_panels(laws):
    """Figure 5: the monolingual runs of each text, with the law of each model and its 90% band."""
    panels, drawn, texts = [], set(), {}
    for group, entry in laws.items():
        if entry['runs']:
            key = group.corpus, *(getattr(group, name) for name in SCORED)
            texts.setdefault(key, {})[group] = entry
    for (corpus, order, *_), models in sorted(texts.items(), key=lambda item: -len(item[1])):
        lines, sizes = [], [size_of(group) for group in models]
        title = f'{corpus}, {order}' if order else corpus
        with panel(panels, title, xlabel=TITLES['tokens'], ylabel=TITLES['ppl']) as axes:
            for i, (group, entry) in enumerate(models.items()):
                label = size_of(group) if sizes.count(size_of(group)) == 1 else label_of(group)
                label = textwrap.fill(label + ('' if entry['law'] else ' (no law)'), 40)
                runs = zip(*(entry[key] for key in ('tokens', 'ppl', 'ppl_se')))
                rows = [(x, measured(dict(ppl=y, ppl_se=se), 'ppl')) for x, y, se in runs]
                values = [(x, *value) for x, value in rows if value]
                lines.append(Line(label, values, COLORS[i % 7], 'o', ''))
                if entry['law']:
                    draw_law(axes, entry['law'], COLORS[i % 7])
                drawn |= set(entry['runs'])
            kinds = (kind_of('', corpus),)
            theirs = [p for p in paper_cases() if p['kind'] == 'alone' and p['kinds'] == kinds]
            if theirs and 'GPT small' in sizes:
                law, x = theirs[0]['languages'][0]['law'], np.geomspace(0.05, 3, 100) * UNIT
                axes.plot(x, law.ppl(x), ':', color=GREY, label="the paper's law, GPT small")
                values = points(theirs, 'tokens', 0, 'ppl')
                lines.append(Line(None, values, GREY, 'o', '', True))
            draw_points(axes, lines, 'ppl')
            log_ticks(axes.xaxis, short)
            log_ticks(axes.yaxis)
    return panels, drawn


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


# --- the table of figures -------------------------------------------------------------------------

# parts: {name: which runs and by what}, see `draw`; commands: their heading in config/README.md
Figure = namedtuple('Figure', 'title claim parts commands')
FIGURES = {
    '1': Figure(
        'two clones by ratio',
        'Section 4.2, Takeaway 2: equal parts hardly help each other, but the rarer of two clones '
        'does much better than a model that saw its tokens alone: at 90/10 as if it had seen twice '
        'as many. So it is for tasks that are learnt in EN1 and asked in EN2.',
        {'perplexity, TEff and transfer': 'clones share', 'accuracy on GLUE': 'glue'},
        'Figure 1',
    ),
    '2': Figure(
        'two clones, more data and larger models',
        'Section 4.4, Takeaway 4: with longer training and with larger models 90/10 gains on '
        '50/50, until it is better in both languages.',
        {'more data': 'clones tokens', 'model sizes': 'clones parameters'},
        'Figure 2',
    ),
    '3': Figure(
        'English and French by ratio',
        'Section 5.2, Takeaway 6: the rarer of two real languages gains, too, but less than a '
        'clone would, and less with disjoint vocabularies; equal parts are the worst for TEff.',
        {'': 'pair share'},
        'Figure 3',
    ),
    '4': Figure(
        'English and French, more data and larger models',
        'Section 5.3, Takeaway 7: with longer training the rarer real language loses what it '
        'gained at 90/10, unlike a clone; larger models help it.',
        {'more data': 'pair tokens', 'model sizes': 'pair parameters'},
        'Figure 4',
    ),
    '5': Figure(
        'monolingual perplexity by tokens',
        'Section 3, Appendix B: the perplexity of one language falls with its tokens by a power '
        'law. The law turns a perplexity into tokens, and so gives TEff its meaning.',
        {'': 'laws'},
        'Figure 5',
    ),
    '8': Figure(
        'two clones with anchor points',
        'Appendix D.1: a few pieces that both clones share lower the perplexity of both by much.',
        {'': 'clones shared'},
        'Figure 8',
    ),
    '9': Figure(
        'two clones, all sizes and amounts of data',
        'Appendix E: what Figure 2 shows along two lines, for all combinations.',
        {'': 'clones all'},
        'Figure 9',
    ),
    '10': Figure(
        'English and French, all sizes and amounts of data',
        'Appendix E: what Figure 4 shows along two lines, for all combinations.',
        {'': 'pair all'},
        'Figure 9',
    ),
}


def draw(part, cases, laws, root):
    """The panels of a part of a figure and the names of the runs on them. root: their folder."""
    if part == 'laws':
        return law_panels(laws)
    return glue_panels(cases, root) if part == 'glue' else mix_panels(cases, *part.split())
