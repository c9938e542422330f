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
    log PPL(run) = log L(MLTE(control) * (1 + tau * other / own)) + error
by least squares in log perplexity, whose error is equal in all runs, where that of tokens grows
without limit as L flattens. The intervals refit all of it, L too, to resampled test documents and
run noise. Mixes are left out and predicted in turn to compare the forms. Where the runs cannot tell
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

import fit_scaling
from configurator import ConfigError
from figures import GREY, OTHERS, Line, draw_lines, log_ticks, measured, panel, stitch
from fit_scaling import NO_NOISE, align, error_draws, generator, with_interval
from runs import DEFAULTS, SCORED, group_of, label_of, load_runs, trained

MIXES = 3  # that a receiver needs
DRAWS = 500  # of the bootstrap, each a fit
FORMS = {'own': 'own', 'tau': 'own + tau * other', 'k': 'own + k * own^alpha * other^beta'}
NO_CONTROL = 'no control'
LOWEST, HIGHEST = (-1.0, 0.05), (1.5, 2.0)  # alpha and beta
LEAST = 0.05  # below this share of the own tokens, log effective goes on as a straight line
# settings that change what languages do for each other, beside those of group_of
KNOBS = ('loss_weights', 'start_entries', 'start_noise', 'trainable', 'parallel_epochs')
KNOBS = {name: DEFAULTS[name] for name in KNOBS}  # and what they usually are
KNOBS = dict(vocabulary='disjoint', cloned_fraction=1.0) | KNOBS | dict(init_from='')

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
    if start is None:
        start = np.zeros(pairs) if form == 'tau' else np.array([*fit('tau', data), 0.0, 1.0])
    ends = np.full((2, len(start)), [[-np.inf], [np.inf]])
    if form == 'k':
        ends[:, pairs:] = LOWEST, HIGHEST
    return least_squares(
        lambda theta: log_perplexity(theta, form, data)[0] - data.log_ppl,
        start,
        lambda theta: log_perplexity(theta, form, data)[1],
        bounds=ends,
        x_scale='jac',
        ftol=1e-7,
        max_nfev=60,
    ).x


def error_of(theta, form, data):
    """Root mean square error of log perplexity."""
    return math.sqrt(np.mean((log_perplexity(theta, form, data)[0] - data.log_ppl) ** 2))


def log_transfer(log_ppl, data):
    """Log transfer (n,) of runs of these log perplexities; infinite beyond the law's reach."""
    with np.errstate(all='ignore'):
        gap = data.c - np.exp(-log_ppl)
        tokens = np.where(gap > 0, (data.a / gap) ** (1 / data.b), np.inf)
        return np.log(tokens / data.worth)


def left_out_errors(form, data, mixes, parameters):
    """Root mean square errors of log perplexity and of log transfer in mixes (n,) that are left
    out of the fit in turn; nothing where the rest cannot determine the form."""
    predicted = np.zeros(len(mixes))
    for mix in set(mixes):
        out = np.array([other == mix for other in mixes])
        rest, held = (Data(*(values[rows] for values in data)) for rows in (~out, out))
        if len(rest.own) < parameters:
            return {}
        predicted[out] = log_perplexity(fit(form, rest), form, held)[0]
    transfers = log_transfer(data.log_ppl, data)
    errors = (log_transfer(predicted, data) - transfers)[np.isfinite(transfers)]
    errors = dict(left_out_error=predicted - data.log_ppl, left_out_transfer_error=errors)
    return {name: math.sqrt(np.mean(e**2)) if len(e) else None for name, e in errors.items()}


def bootstrap(form, theta, data, points):
    """[[low, high]] for each of theta, or None where a law has no draws. In each draw the laws are
    refitted, and the fitted perplexities and those of the controls have errors of documents and of
    the run. Where the runs do not follow the form, errors of fit are larger and widen it."""
    if any(point['law'].draws is None for point in points):
        return None
    drawn = []
    for log_ppl, point in zip(log_perplexity(theta, form, data)[0], points):
        law, ends = point['law'].draws, (point['scored'], point['alone'])
        errors = [error_draws(r, law.noise, generator(r['ppl'], i)) for i, r in enumerate(ends)]
        worth = law.tokens(ends[1]['ppl'] * np.exp(errors[1])) / law.unit
        drawn.append((worth, law.a, law.b, law.c, log_ppl + errors[0]))
    drawn = np.array(drawn)[..., :DRAWS]  # (n, the last five of Data, draws)
    thetas, squares = np.full((len(theta), DRAWS), np.nan), []
    for i in tqdm(range(DRAWS), desc=f'intervals of {FORMS[form]}', leave=False):
        if np.isfinite(drawn[..., i]).all():
            draw = Data(data.own, data.other, *drawn[..., i].T)
            thetas[:, i] = fit(form, draw, theta)
            squares.append(error_of(thetas[:, i], form, draw) ** 2)
    noise = math.sqrt(np.mean(squares)) if squares and np.mean(squares) > 0 else np.inf
    misfit = max(1.0, error_of(theta, form, data) / noise)
    draws = theta[:, None] + misfit * (thetas - theta[:, None])
    return np.transpose(fit_scaling.quantiles(draws, least=-np.inf)).tolist()


# --- the runs -------------------------------------------------------------------------------------


def collect(finished, law_schedule=''):
    """The set-ups of the runs of two or more languages: {key: dict(label, runs, left_out, points,
    lacking)}. left_out counts the reasons why languages of theirs cannot enter a fit.

    points: the rows of `analyse` with mix, receiver, own tokens, others {giver: tokens}, texts
    {language: corpus and order}, law, and the results `scored` and `alone`, of the control;
    lacking: the same of those without a control."""
    laws, rows = fit_scaling.analyse(finished, law_schedule)
    named, setups = {run['run']: run for run in finished}, {}
    for row in rows:
        run, name = named[row['run']], row['language']
        languages = {language: run['languages'][language] for language in trained(run)}
        if name not in languages or len(languages) < 2:
            continue
        label, key = setup_of(run)
        empty = dict(label=label, runs={}, left_out=Counter(), points=[], lacking=[])
        setup, stages = setups.setdefault(key, empty), run['settings']['stages']
        setup['runs'][row['run']] = True
        law = laws[group_of(run, languages[name])]['law']
        texts = {n: f'{r["corpus"]} {r["order"]}'.strip() for n, r in languages.items()}
        others = {n: r['tokens_seen'] for n, r in languages.items() if n != name}
        point = row | dict(receiver=name, own=row['tokens_seen'], others=Counter(others))
        alone = named[row['control']]['languages'][name] if row['control'] else None
        point |= dict(texts=texts, law=law, scored=languages[name], alone=alone)
        point['mix'] = '/'.join(f'{100 * share:.3g}' for share in stages[0])
        reasons = {
            'the mix changes': len({tuple(shares) for shares in stages}) > 1,
            row['note']: law is None,
            'its monolingual runs follow no power law': isinstance(law, fit_scaling.Interpolation),
            NO_CONTROL: alone is None,
            "a control beyond the law's reach": row['control_teff'] == math.inf,
        }
        reason = next((reason for reason, holds in reasons.items() if holds), '')
        if reason:
            setup['left_out'][reason] += 1
        if reason in ('', NO_CONTROL):
            setup['lacking' if reason else 'points'].append(point)
    return setups


def setup_of(run):
    """(label, key) of what mixes must share for one transfer law: all of group_of but the text and
    its test, and the settings that change what languages do for each other."""
    knobs = {key: run['settings'].get(key, usual) for key, usual in KNOBS.items()}
    if knobs['trainable'] == 'all':
        knobs['init_from'] = ''
    group = group_of(run, run['languages'][trained(run)[0]])
    group = group._replace(corpus='', **dict.fromkeys(SCORED, ''))
    turned = [f'{key} {value}' for key, value in knobs.items() if value != KNOBS[key]]
    return ', '.join([label_of(group).removeprefix(', '), *turned]), (group, json.dumps(knobs))


def by_text(point):
    """The point with languages of one text as one."""
    others = Counter()
    for language, tokens in point['others'].items():
        others[point['texts'][language]] += tokens
    return point | dict(receiver=point['texts'][point['language']], others=others)


def told_apart(points):
    """(points, problems): the points of receivers whose pairs can be told apart, and which runs
    are missing for each other receiver."""
    kept, problems = [], []
    for receiver in sorted({point['receiver'] for point in points}):
        members = [point for point in points if point['receiver'] == receiver]
        fit_for = [point for point in members if point['alone']]
        mixes = sorted({point['mix'] for point in fit_for})
        givers = sorted({giver for point in members for giver in point['others']})
        if len(mixes) >= MIXES and len(givers) < len(fit_for):
            ratios = [[p['others'][giver] / p['own'] for giver in givers] for p in fit_for]
            sizes = np.linalg.svd(ratios, compute_uv=False)
            if sizes[-1] > 0.03 * sizes[0]:  # languages are drawn: ratios are never quite equal
                kept += fit_for
                continue
        lacking = {}
        for point in members:
            if not point['alone']:
                names = lacking.setdefault(point['language'], [])
                names.append(f'{point["run"]} ({point["mix"]})')
        command = 'run python train.py CONFIG --only='
        advice = [f'{command}{name} for {", ".join(names)}' for name, names in lacking.items()]
        advice = advice or ['train mixes of other ratios (--stages=) with controls (--only=)']
        problems.append(
            f'the transfer law of {receiver} needs controls of at least '
            f'{max(MIXES, len(givers) + 1)} mixes of different ratios and has those of '
            f'{len(mixes)} ({", ".join(mixes) or "none"}); {"; ".join(advice)}'
        )
    return kept, problems


def fitted(setup):
    """What transfer_law.json holds of a set-up. Raises ValueError where the runs are too few."""
    members = setup['points'] + setup['lacking']
    choices = [(*told_apart(members), False), (*told_apart([*map(by_text, members)]), True)]
    points, problems, pooled = max(choices, key=lambda choice: len(choice[0]))
    if not points:
        left_out = f'no run can be used: {reasons_text(setup["left_out"])}'
        raise ValueError('; '.join(problems or [left_out]))
    pairs = sorted({(point['receiver'], giver) for point in points for giver in point['others']})
    own = np.array([point['own'] for point in points], float)
    other = [[p['others'][g] * (p['receiver'] == r) for r, g in pairs] for p in points]
    unit = float(np.exp(np.log(own).mean()))
    law = [(p['law'].tokens(p['control_ppl']), p['law']) for p in points]
    law = np.array([(tokens / law.unit, law.a, law.b, law.c) for tokens, law in law]).T
    log_ppl = np.log([point['ppl'] for point in points])
    data = Data(own / unit, np.array(other, float) / unit, *law, log_ppl)
    mixes = [point['mix'] for point in points]

    shown = ('run', 'receiver', 'mix', 'own', 'others', 'transfer', 'transfer_interval')
    result = dict(setup=setup['label'], pooled=pooled, runs=list(setup['runs']))
    result |= dict(left_out=dict(setup['left_out']), problems=problems, unit=unit, forms=[])
    result['pairs'] = [dict(receiver=receiver, giver=giver) for receiver, giver in pairs]
    result['points'] = [{key: point[key] for key in shown} for point in points]
    result['note'] = NO_NOISE if any(p['law'].draws is None for p in points) else ''
    places = [(result, 'alpha'), (result, 'beta')]
    for form, text in FORMS.items():
        count = dict(own=0, tau=len(pairs), k=len(pairs) + 2)[form]
        entry = dict(form=text, parameters=count)
        entry |= dict.fromkeys(('error', 'left_out_error', 'left_out_transfer_error'))
        result['forms'].append(entry)
        if count >= len(points):
            continue
        theta = fit(form, data)
        entry['error'] = error_of(theta, form, data)
        entry |= left_out_errors(form, data, mixes, count)
        predicted = np.exp(log_transfer(log_perplexity(theta, form, data)[0], data))
        for point, value in zip(result['points'], predicted):
            point[f'transfer_by_{form}'] = float(value)
        ends = bootstrap(form, theta, data, points) if count else None
        names = [(pair, form) for pair in result['pairs']] + places
        for i, (value, (place, name)) in enumerate(zip(theta, names)):
            place |= {name: float(value), f'{name}_interval': ends and ends[i]}
    return result


# --- the study ------------------------------------------------------------------------------------


def reasons_text(left_out):
    return ', '.join(f'{count} ({reason})' for reason, count in left_out.items())


def text_of(result):
    """The tables of a set-up: the pairs, then the forms and how well each predicts."""

    def cell(place, name):
        return with_interval(place.get(name), place.get(f'{name}_interval'), '{:.2f}'.format)

    text = [f'{result["setup"]}: {len(result["points"])} languages of mixes with a control']
    if result['left_out']:
        text[0] += f'; left out: {reasons_text(result["left_out"])}'
    if result['pooled']:
        text.append('languages of one text count as one')
    lines = [('receiver', 'giver', 'tau [90%]', 'k [90%]')]
    for pair in result['pairs']:
        lines.append((pair['receiver'], pair['giver'], cell(pair, 'tau'), cell(pair, 'k')))
    text += ['', align(lines)]
    if 'alpha' in result:
        powers = ', '.join(f'{name} {cell(result, name)}' for name in ('alpha', 'beta'))
        text.append(f'{powers}; k is of tokens in units of {fit_scaling.short(result["unit"])}')
    text += [result['note']] if result['note'] else []
    heads = ('error of PPL', 'in left-out mixes', 'of their transfer')
    lines = [('effective tokens', 'parameters', *heads)]
    for entry in result['forms']:
        form, count, *errors = entry.values()
        cells = ['-' if error is None else f'{error:.2%}' for error in errors]
        lines.append((form, str(count), *cells))
    return '\n'.join([*text, '', align(lines), *result['problems']])


def study(out, law_schedule=''):
    """Prints the transfer law of each set-up in the folder `out` and writes transfer_law.json and
    transfer_law.png there. Raises ConfigError, naming the missing runs, where there is none."""
    results, problems = [], []
    for setup in collect(load_runs(out), law_schedule).values():
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
    fit_scaling.write_json(Path(out) / 'transfer_law.json', results)
    draw(results, Path(out) / 'transfer_law.png')
    print(f'wrote {out}/transfer_law.json, {out}/transfer_law.png')


# --- the picture ----------------------------------------------------------------------------------


def draw(results, path):
    """For each set-up transfer against the ratio of others' to own tokens with the law of each
    pair, measured against fitted transfer, and from three languages on the matrix of tau."""
    panels = []
    for result in results:
        names = sorted({pair[side] for pair in result['pairs'] for side in ('receiver', 'giver')})
        colors = {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(names)}
        ratio_panel(panels, result, colors)
        fit_panel(panels, result, colors)
        if len(names) > 2:
            matrix_panel(panels, result, names)
    path.write_bytes(stitch(panels))


def ratio_panel(panels, result, colors):
    settings = dict(xlabel="others' tokens / own tokens", ylabel='transfer (90%)')
    with panel(panels, f'{result["setup"]}: own + tau * other', **settings) as axes:
        points, lines = [p for p in result['points'] if math.isfinite(p['transfer'])], []
        for name, color in colors.items():
            own = [p for p in points if p['receiver'] == name]
            own = [(p['others'].total() / p['own'], *measured(p, 'transfer')) for p in own]
            lines.append(Line(name, own, color, 'o', ''))
            pairs = [pair for pair in result['pairs'] if pair['receiver'] == name]
            if own and len(pairs) == 1:  # mixes of several givers lie on no single curve
                x, tau = np.geomspace(min(own)[0], max(own)[0]), pairs[0]['tau']
                label = f'{name} from {pairs[0]["giver"]}: tau {tau:.2f}'
                axes.plot(x, 1 + tau * x, lw=1.4, color=color, label=label)
                ends = [1 + end * x for end in pairs[0]['tau_interval'] or (tau, tau)]
                axes.fill_between(x, *ends, color=color, alpha=0.15, lw=0)
        draw_lines(axes, lines, 'transfer')
        log_log(axes)


def log_log(axes):
    log_ticks(axes.xaxis)
    log_ticks(axes.yaxis)


def fit_panel(panels, result, colors):
    settings = dict(xlabel='fitted transfer', ylabel='measured transfer')
    with panel(panels, 'What the law says', **settings) as axes:
        for form, marker in (('tau', 'o'), ('k', '^')):
            points = [p for p in result['points'] if f'transfer_by_{form}' in p]
            x, y = [p[f'transfer_by_{form}'] for p in points], [p['transfer'] for p in points]
            edges = [colors[point['receiver']] for point in points]
            look = dict(edgecolors=edges, facecolors=edges if form == 'tau' else 'none')
            axes.scatter(x, y, marker=marker, label=FORMS[form], **look)
        axes.axline((1, 1), (2, 2), color=GREY, lw=1, ls=':')
        log_log(axes)


def matrix_panel(panels, result, names):
    title = "tau: own tokens that one of the giver's is worth"
    with panel(panels, title, xlabel='giver', ylabel='receiver') as axes:
        matrix = np.full((len(names), len(names)), np.nan)
        for pair in result['pairs']:
            place = names.index(pair['receiver']), names.index(pair['giver'])
            matrix[place] = pair['tau']
            text = with_interval(pair['tau'], pair['tau_interval'], '{:.2f}'.format)
            axes.text(*place[::-1], text.replace(' [', '\n['), ha='center', va='center')
        most = np.nanmax(np.abs(matrix))
        axes.imshow(matrix, cmap='RdBu', vmin=-most, vmax=most, alpha=0.5)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.grid(False)
