"""The transfer law: a language's perplexity from its own tokens and those of the others.

    python fit_scaling.py --study=transfer  # out/transfer_law.json and out/transfer_law.png

The law is the monolingual one, L, at effective tokens: PPL = L(steps * effective), where
  effective = own                                   own tokens alone: no transfer
  effective = own + tau * other                     Longpre et al. 2025 (ATLAS, arXiv 2510.22037)
  effective = own + k * own^alpha * other^beta      Hernandez et al. 2021
with a tau (or k) for each ordered pair of a receiver and a giver, which may be below 0; of several
givers the terms add up. tau is how many own tokens one token of the other is worth.

A mix also takes more steps than L's runs on as many tokens. The control knows what those are worth:
it has the mix's steps and own tokens alone, and reaches MLTE(control) = steps * own. So the fit is
of transfer = effective / own, the factor that MLTE(control) needs:

    log PPL(run) = log L(MLTE(control) * (1 + tau * other / own)) + error

by least squares in log perplexity. That is least squares in log transfer, each run weighed by how
well it is known: the error of a run is one of log perplexity, equal in all runs, and where L
flattens it is a large one of tokens, in the end an infinite one. With no transfer the error is
log(PPL(run) / PPL(control)), which knows no L at all.

The intervals refit all of it, L too, to resampled test documents and run noise, as fit_scaling.py
does. Mixes are left out and predicted in turn to compare the forms. Where the runs cannot tell
pairs of languages apart, languages of one text count as one (clones do the same for each other).
A run enters with each of its languages that has a control, if its mix stays the same throughout.
"""

import json
import math
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares
from tqdm import tqdm

from configurator import ConfigError
from fit_scaling import (
    NO_NOISE,
    align,
    analyse,
    error_draws,
    finite,
    generator,
    measure,
    quantiles,
    short,
    with_interval,
)
from runs import DEFAULTS, SCORED, best_control, group_of, load_runs, trained

MIXES = 3  # that a receiver needs
DRAWS = 500  # of the bootstrap, each a fit
FORMS = {'own': 'own', 'tau': 'own + tau * other', 'k': 'own + k * own^alpha * other^beta'}
LOWEST, HIGHEST = (-1.0, 0.05), (1.5, 2.0)  # alpha and beta
NO_CONTROL = 'no control'
LEAST = 0.05  # below this share of the own tokens, log effective goes on as a straight line
# Settings that change what languages do for each other, beside those of group_of.
KNOBS = ('vocabulary', 'cloned_fraction', 'loss_weights', 'start_entries', 'start_noise')
KNOBS += ('trainable', 'parallel_epochs')
USUAL = DEFAULTS | dict(vocabulary='disjoint', cloned_fraction=1.0)

# own: tokens (n,), other: (n, pairs), both in a unit; the law: a, b, c (n,), of which `worth`,
# MLTE(control) in the law's unit, (n,) is an argument; log_ppl: (n,)
Data = namedtuple('Data', 'own other worth a b c log_ppl')


# --- the fit --------------------------------------------------------------------------------------


def log_perplexity(theta, form, data):
    """Log perplexity (n,) of the law at `theta`, and its derivatives (n, len(theta)).

    theta: nothing, tau of each pair, or k of each pair, alpha and beta."""
    pairs = data.other.shape[1]
    alpha, beta = theta[pairs:] if form == 'k' else (0.0, 1.0)
    k = theta[:pairs] if len(theta) else np.zeros(pairs)
    log_own, there = np.log(data.own)[:, None], data.other > 0
    log_other = np.log(np.where(there, data.other, 1))
    shape = there * np.exp((alpha - 1) * log_own + beta * log_other)
    effective = 1 + shape @ k
    inside = np.maximum(effective, LEAST)
    log_worth = np.log(data.worth) + np.log(inside) + (effective - inside) / LEAST
    power = data.a * np.exp(-data.b * np.clip(log_worth, -50, 50))
    inverse = np.maximum(data.c - power, 1e-9)
    slope = -data.b * power / inverse / inside
    derivatives = [shape, ((shape * k) @ np.ones(pairs))[:, None] * log_own]
    derivatives.append((shape * log_other) @ k[:, None])
    derivatives = np.hstack(derivatives)[:, : len(theta)]
    return -np.log(inverse), slope[:, None] * derivatives


def fit(form, data, start=None):
    """Least-squares theta of a form."""
    pairs = data.other.shape[1]
    if form == 'own':
        return np.zeros(0)
    ends = np.full((2, pairs + 2 * (form == 'k')), np.inf) * [[-1], [1]]
    if form == 'k':
        ends[:, pairs:] = LOWEST, HIGHEST
    if start is None:
        start = np.zeros(pairs)
        if form == 'k':
            start = np.array([*fit('tau', data), 0.0, 1.0])
    solution = least_squares(
        lambda theta: log_perplexity(theta, form, data)[0] - data.log_ppl,
        start,
        lambda theta: log_perplexity(theta, form, data)[1],
        bounds=ends,
        x_scale='jac',
        ftol=1e-7,
        max_nfev=60,
    )
    return solution.x


def parameters(form, pairs):
    return dict(own=0, tau=pairs, k=pairs + 2)[form]


def error_of(theta, form, data):
    """Root mean square error of log perplexity."""
    return math.sqrt(np.mean((log_perplexity(theta, form, data)[0] - data.log_ppl) ** 2))


def log_transfer(log_ppl, data):
    """Log transfer (n,) of runs of these log perplexities; infinite beyond the law's reach."""
    with np.errstate(all='ignore'):
        gap = data.c - np.exp(-log_ppl)
        tokens = np.where(gap > 0, (data.a / gap) ** (1 / data.b), np.inf)
        return np.log(tokens / data.worth)


def left_out_errors(form, data, mixes):
    """Root mean square errors of log perplexity and of log transfer in mixes (n,) that are left
    out of the fit in turn; None where the rest cannot determine the form."""
    predicted = np.zeros(len(mixes))
    for mix in set(mixes):
        out = np.array([other == mix for other in mixes])
        rest, held = (Data(*(values[rows] for values in data)) for rows in (~out, out))
        if len(rest.own) < parameters(form, data.other.shape[1]):
            return None, None
        predicted[out] = log_perplexity(fit(form, rest), form, held)[0]
    errors = [predicted - data.log_ppl]
    transfers = log_transfer(data.log_ppl, data)
    errors.append((log_transfer(predicted, data) - transfers)[np.isfinite(transfers)])
    return tuple(math.sqrt(np.mean(error**2)) if len(error) else None for error in errors)


def bootstrap(form, theta, data, points):
    """Intervals (low, high), each (len(theta),), of a fit, or None where a law has no draws.

    In each draw the laws are refitted, and the fitted perplexities and those of the controls have
    errors of documents and of the run. Errors of fit that are larger than these explain widen the
    interval by as much: the runs do not follow the form."""
    if any(point['law'].draws is None for point in points):
        return None
    drawn = dict(worth=[], a=[], b=[], c=[], log_ppl=[])
    fitted, _ = log_perplexity(theta, form, data)
    for value, point in zip(fitted, points):
        law, ends = point['law'].draws, (point['result'], point['control'])
        errors = [error_draws(r, law.noise, generator(r['ppl'], i)) for i, r in enumerate(ends)]
        drawn['worth'].append(law.tokens(ends[1]['ppl'] * np.exp(errors[1])) / law.unit)
        drawn['log_ppl'].append(value + errors[0])
        for name in 'abc':
            drawn[name].append(getattr(law, name))
    drawn = {name: np.stack(values)[:, :DRAWS] for name, values in drawn.items()}
    thetas, squares = np.full((len(theta), DRAWS), np.nan), []
    for i in tqdm(range(DRAWS), desc=f'intervals of {FORMS[form]}', leave=False):
        draw = data._replace(**{name: values[:, i] for name, values in drawn.items()})
        if all(np.isfinite(values).all() for values in draw):
            thetas[:, i] = fit(form, draw, theta)
            squares.append(error_of(thetas[:, i], form, draw) ** 2)
    noise = math.sqrt(np.mean(squares)) if squares and np.mean(squares) > 0 else np.inf
    misfit = max(1.0, error_of(theta, form, data) / noise)
    return quantiles(theta[:, None] + misfit * (thetas - theta[:, None]), least=-np.inf)


# --- the runs -------------------------------------------------------------------------------------


def collect(runs, law_schedule=''):
    """The set-ups of the runs of two or more languages: {key: dict(label, points, left_out, runs,
    lacking)}, with a point for each language of a run that a fit can use, a Counter of the reasons
    why others cannot, the names of all runs, and `lacking`: what sides_of says where a control is
    missing. A point is sides_of with law, result, control (its result), transfer and interval."""
    laws, _ = analyse(runs, law_schedule)
    setups = {}
    for run in runs:
        if run['settings']['only'] or len(trained(run)) < 2:
            continue
        for name in trained(run):
            result = run['languages'][name]
            label, key = setup_of(run, result)
            empty = dict(label=label, points=[], left_out=Counter(), runs={}, lacking=[])
            setup = setups.setdefault(key, empty)
            setup['runs'][run['run']] = True
            point = point_of(run, name, laws[group_of(run, result)], runs)
            if isinstance(point, dict):
                setup['points'].append(point)
            else:
                setup['left_out'][point] += 1
                setup['lacking'] += [sides_of(run, name)] if point == NO_CONTROL else []
    return setups


def sides_of(run, name):
    """dict of run, language, mix (the shares as text), others {language: tokens} and texts
    {language: its corpus and order}."""
    others, texts = {}, {}
    for other in trained(run):
        language = run['languages'][other]
        texts[other] = ' '.join(part for part in (language['corpus'], language['order']) if part)
        if other != name:
            others[other] = language['tokens_seen']
    mix = '/'.join(f'{100 * share:.3g}' for share in run['settings']['stages'][0])
    return dict(run=run['run'], language=name, mix=mix, others=others, texts=texts)


def point_of(run, name, entry, runs):
    """A point of `collect`, or the reason why there is none. entry: of its law in analyse."""
    control = best_control(run, name, runs)
    if len({tuple(row) for row in run['settings']['stages']}) > 1:
        return 'the mix changes'
    law = entry['law']
    if law is None:
        return f'no law: {entry["problem"]}'
    if control is None:
        return NO_CONTROL
    results = dict(result=run['languages'][name], control=control['languages'][name])
    if not math.isfinite(law.tokens(results['control']['ppl'])):
        return "a control beyond the law's reach"
    values = measure(law, *results.values())
    transfer = dict(transfer=values['transfer'], interval=values['transfer_interval'])
    return sides_of(run, name) | results | dict(law=law) | transfer


def setup_of(run, result):
    """(label, key) of what mixes must share for one transfer law: all of group_of but the text and
    its test, and the settings that change what languages do for each other."""
    group, settings = group_of(run, result), run['settings']
    knobs = {key: settings.get(key, '') for key in KNOBS}
    if settings['trainable'] != 'all':
        knobs['init_from'] = settings.get('init_from')
    label = (
        f'{group.n_layer} layers of {group.n_embd}, {group.batch_size} x {group.block_size} tokens '
        f'a step, {group.lr_schedule} from {group.learning_rate:g}'
    )
    for key, value in knobs.items():
        if value != USUAL.get(key, ''):
            label += f', {key} {value}'
    shared = group._replace(corpus='', **dict.fromkeys(SCORED, ''))
    return label, (shared, json.dumps(knobs, sort_keys=True))


def by_name(point, language):
    return language


def by_text(point, language):
    return point['texts'][language]


def others_of(point, key):
    """{giver: tokens} of a point, languages called by `key`."""
    others = Counter()
    for language, tokens in point['others'].items():
        others[key(point, language)] += tokens
    return others


def choose(setup):
    """(key, points, problems): the points whose pairs can be told apart, languages called by name
    or, where that lets more points in, by text; and what is missing for each other receiver."""
    choices = []
    for key in (by_name, by_text):
        receivers = {}
        for point in setup['points'] + setup['lacking']:
            receivers.setdefault(key(point, point['language']), []).append(point)
        points, problems = [], []
        for receiver, members in sorted(receivers.items()):
            there = [point for point in members if 'transfer' in point]
            problem = problem_of(receiver, there, members, key)
            problems += [problem] if problem else []
            points += [] if problem else there
        choices.append((key, points, problems))
    return max(choices, key=lambda choice: len(choice[1]))  # by name, where both have as many


def problem_of(receiver, points, members, key):
    """Which runs are missing to tell the pairs of a receiver apart; empty where none are.

    members: the points and those that lack a control."""
    mixes = sorted({point['mix'] for point in points})
    givers = sorted({giver for point in members for giver in others_of(point, key)})
    ratios = [
        [others_of(point, key)[giver] / point['result']['tokens_seen'] for giver in givers]
        for point in points
    ]
    if len(mixes) >= MIXES and len(givers) < len(points):
        sizes = np.linalg.svd(ratios, compute_uv=False)  # languages are drawn: never quite equal
        if sizes[-1] > 0.03 * sizes[0]:
            return ''
    text = (
        f'the transfer law of {receiver} needs controls of at least {max(MIXES, len(givers) + 1)} '
        f'mixes of different ratios and has those of {len(mixes)} ({", ".join(mixes) or "none"})'
    )
    lacking, advice = {}, []
    for point in members:
        if 'transfer' not in point:
            name = f'{point["run"]} ({point["mix"]})'
            lacking.setdefault(point['language'], []).append(name)
    if len({point['mix'] for point in members}) < MIXES or not lacking:
        advice.append('mixes of other ratios (--stages=) with controls (--only=)')
    for language, runs in lacking.items():
        names = ', '.join(runs[:5]) + (f' and {len(runs) - 5} more' if len(runs) > 5 else '')
        advice.append(f'python train.py CONFIG --only={language} for {names}')
    return f'{text}; train {"; ".join(advice)}'


def fitted(setup):
    """What transfer_law.json holds of a set-up. Raises ValueError where the runs are too few."""
    key, points, problems = choose(setup)
    if not points:
        raise ValueError(
            '; '.join(problems or [f'no run can be used: {reasons_text(setup["left_out"])}'])
        )
    names = [key(point, point['language']) for point in points]
    pairs = sorted(
        {(n, giver) for n, point in zip(names, points) for giver in others_of(point, key)}
    )
    own = np.array([point['result']['tokens_seen'] for point in points], float)
    other = np.array(
        [
            [others_of(point, key)[giver] * (receiver == name) for receiver, giver in pairs]
            for name, point in zip(names, points)
        ],
        float,
    )
    unit = float(np.exp(np.log(own).mean()))
    laws = [point['law'] for point in points]
    worth = [law.tokens(point['control']['ppl']) / law.unit for law, point in zip(laws, points)]
    numbers = [np.array([getattr(law, name) for law in laws]) for name in 'abc']
    log_ppl = np.log([point['result']['ppl'] for point in points])
    data = Data(own / unit, other / unit, np.array(worth), *numbers, log_ppl)
    mixes = [point['mix'] for point in points]

    result = dict(setup=setup['label'], pooled=key is by_text, runs=list(setup['runs']))
    result |= dict(left_out=dict(setup['left_out']), problems=problems, unit=unit, forms=[])
    result['pairs'] = [dict(receiver=receiver, giver=giver) for receiver, giver in pairs]
    result['points'] = [
        dict(run=point['run'], receiver=name, mix=point['mix'], own=point['result']['tokens_seen'])
        | dict(others=dict(others_of(point, key)), transfer=point['transfer'])
        | dict(transfer_interval=point['interval'])
        for name, point in zip(names, points)
    ]
    result['note'] = NO_NOISE if any(law.draws is None for law in laws) else ''
    for form in FORMS:
        count = parameters(form, len(pairs))
        entry = dict(form=FORMS[form], parameters=count)
        result['forms'].append(entry)
        entry |= dict.fromkeys(('error', 'left_out_error', 'left_out_transfer_error'))
        if count >= len(points):
            continue
        theta = fit(form, data)
        errors = left_out_errors(form, data, mixes)
        entry |= dict(error=error_of(theta, form, data))
        entry |= dict(left_out_error=errors[0], left_out_transfer_error=errors[1])
        predicted = np.exp(log_transfer(log_perplexity(theta, form, data)[0], data))
        for point, value in zip(result['points'], predicted):
            point[f'transfer_by_{form}'] = float(value)
        ends = bootstrap(form, theta, data, points) if count else None
        keys = [(pair, form) for pair in result['pairs']] if count else []
        keys += [(result, 'alpha'), (result, 'beta')] if form == 'k' else []
        for i, (place, name) in enumerate(keys):
            place[name] = float(theta[i])
            place[f'{name}_interval'] = ends and (float(ends[0][i]), float(ends[1][i]))
    return result


# --- the study ------------------------------------------------------------------------------------


def reasons_text(left_out):
    return ', '.join(f'{count} ({reason})' for reason, count in left_out.items())


def text_of(result):
    """The tables of a set-up: the pairs, then the forms and how well each predicts."""

    def number(value):
        return f'{value:.2f}'

    text = [f'{result["setup"]}: {len(result["points"])} languages of mixes with a control']
    if result['left_out']:
        text[0] += f'; left out: {reasons_text(result["left_out"])}'
    if result['pooled']:
        text.append('languages of one text count as one')
    lines = [('receiver', 'giver', 'tau [90%]', 'k [90%]')]
    for pair in result['pairs']:
        cells = [
            with_interval(pair.get(name), pair.get(f'{name}_interval'), number)
            for name in ('tau', 'k')
        ]
        lines.append((pair['receiver'], pair['giver'], *cells))
    text += ['', align(lines)]
    if 'alpha' in result:
        powers = [
            f'{name} {with_interval(result[name], result[f"{name}_interval"], number)}'
            for name in ('alpha', 'beta')
        ]
        text.append(f'{", ".join(powers)}; k is of tokens in units of {short(result["unit"])}')
    if result['note']:
        text.append(result['note'])
    heads = ('error of PPL', 'in left-out mixes', 'of their transfer')
    lines = [('effective tokens', 'parameters', *heads)]
    for entry in result['forms']:
        errors = (entry[name] for name in ('error', 'left_out_error', 'left_out_transfer_error'))
        cells = ('-' if error is None else f'{error:.2%}' for error in errors)
        lines.append((entry['form'], str(entry['parameters']), *cells))
    text += ['', align(lines), *result['problems']]
    return '\n'.join(text)


def study(out, law_schedule=''):
    """Prints the transfer law of each set-up in the folder `out` and writes transfer_law.json and
    transfer_law.png there. Raises ConfigError, naming the missing runs, where there is none."""
    setups = collect(load_runs(out), law_schedule)
    results, problems = [], []
    for setup in setups.values():
        try:
            results.append(fitted(setup))
        except ValueError as error:
            problems.append(f'{setup["label"]}: {error}')
    if not results:
        raise ConfigError('; '.join(problems) or f'there is no run of two languages in {out}/')
    for result in results:
        print(text_of(result) + '\n')
    for problem in problems:
        print(f'no transfer law of {problem}')
    path = Path(out) / 'transfer_law.json'
    path.write_text(json.dumps(finite(results), indent=2, allow_nan=False) + '\n')
    draw(results, Path(out) / 'transfer_law.png')
    print(f'wrote {path}, {out}/transfer_law.png')


# --- the picture ----------------------------------------------------------------------------------


def draw(results, path):
    """A row for each set-up: transfer against the ratio of others' to own tokens with the law of
    each pair, measured against fitted transfer, and from three languages on the matrix of tau."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    names = [
        sorted({p[side] for p in r['pairs'] for side in ('receiver', 'giver')}) for r in results
    ]
    columns = 3 if max(map(len, names)) >= 3 else 2
    size = (5.4 * columns, 4.6 * len(results))
    figure, rows = plt.subplots(
        len(results), columns, figsize=size, layout='constrained', squeeze=False
    )
    for axes, result, languages in zip(rows, results, names):
        colors = {receiver: f'C{i}' for i, receiver in enumerate(languages)}
        draw_ratios(axes[0], result, colors)
        draw_fitted(axes[1], result, colors)
        if columns == 3 and len(languages) >= 3:
            draw_matrix(axes[2], result, languages)
        elif columns == 3:
            axes[2].axis('off')
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plain_numbers(axis):
    """Numbers as 0.5, 1, 2, 5 on a logarithmic axis, which may be shorter than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.set_minor_formatter(NullFormatter())


def bars_of(point):
    """Error bars (2, 1) of a transfer up to 90% limits; none where they are not known."""
    interval, transfer = point['transfer_interval'], point['transfer']
    if not interval or not np.isfinite([*interval, transfer]).all():
        return None
    return [[max(0, transfer - interval[0])], [max(0, interval[1] - transfer)]]


def draw_ratios(axes, result, colors):
    for point in result['points']:
        ratio = sum(point['others'].values()) / point['own']
        color, marker = colors[point['receiver']], 'o' if len(point['others']) == 1 else 's'
        axes.errorbar(
            ratio, point['transfer'], bars_of(point), fmt=marker, ms=5, capsize=3, color=color
        )
    ratios = [sum(point['others'].values()) / point['own'] for point in result['points']]
    x = np.geomspace(min(ratios) / 1.3, max(ratios) * 1.3, 200)
    receivers = Counter(pair['receiver'] for pair in result['pairs'])
    for pair in result['pairs']:
        if receivers[pair['receiver']] > 1:  # mixes of several givers lie on no single curve
            continue
        color = colors[pair['receiver']]
        label = f'{pair["receiver"]} from {pair["giver"]}: tau {pair["tau"]:.2f}'
        axes.plot(x, 1 + pair['tau'] * x, lw=2, color=color, label=label)
        if pair['tau_interval']:
            low, high = (1 + end * x for end in pair['tau_interval'])
            axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
        axes.legend(fontsize=8)
    axes.axhline(1, color='0.5', lw=1, ls=':')
    measured = [p['transfer'] for p in result['points'] if math.isfinite(p['transfer'])]
    axes.set_ylim(min([*measured, 1]) / 1.3, max([*measured, 1]) * 1.5)
    axes.set(xscale='log', yscale='log', xlabel="others' tokens / own tokens")
    axes.set(ylabel='transfer (bars and bands: 90%)', title='own + tau * other')
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)


def draw_fitted(axes, result, colors):
    values = [1.0]
    for form, marker in (('tau', 'o'), ('k', '^')):
        for point in result['points']:
            if f'transfer_by_{form}' not in point or not math.isfinite(point['transfer']):
                continue
            pair = point[f'transfer_by_{form}'], point['transfer']
            values += pair
            filled = colors[point['receiver']] if form == 'tau' else 'none'
            axes.plot(*pair, marker, ms=6, mfc=filled, mec=colors[point['receiver']])
    for form, marker, filled in (('tau', 'o', '0.4'), ('k', '^', 'none')):
        axes.plot([], [], marker, mfc=filled, mec='0.4', label=FORMS[form])
    for receiver in sorted({point['receiver'] for point in result['points']}):
        axes.plot([], [], 's', color=colors[receiver], label=receiver)
    ends = [max(min(values), 0.01) / 1.15, max(values) * 1.15]
    axes.plot(ends, ends, color='0.5', lw=1, ls=':')
    axes.set(xscale='log', yscale='log', xlim=ends, ylim=ends, title='What the law says')
    axes.set(xlabel='fitted transfer', ylabel='measured transfer')
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.legend(fontsize=8)


def draw_matrix(axes, result, languages):
    matrix = np.full((len(languages), len(languages)), np.nan)
    for pair in result['pairs']:
        matrix[languages.index(pair['receiver']), languages.index(pair['giver'])] = pair['tau']
    most = np.nanmax(np.abs(matrix)) or 1
    picture = axes.imshow(matrix, cmap='RdBu', vmin=-most, vmax=most)
    for pair in result['pairs']:
        place = languages.index(pair['giver']), languages.index(pair['receiver'])
        text = with_interval(pair['tau'], pair['tau_interval'], '{:.2f}'.format).replace(
            ' [', '\n['
        )
        dark = abs(pair['tau']) > 0.6 * most
        axes.text(*place, text, ha='center', va='center', color='w' if dark else 'k', fontsize=8)
    axes.set_xticks(range(len(languages)), languages)
    axes.set_yticks(range(len(languages)), languages)
    axes.set(
        xlabel='giver', ylabel='receiver', title="tau: own tokens that one of the giver's is worth"
    )
    axes.figure.colorbar(picture, ax=axes, shrink=0.8)
