"""The finished runs of a folder, and which of them may be compared.

Exact copies are left out, runs that differ in their seed alone are pooled, runs of equal text,
test, model and optimisation share a group, and controls find the mix that they are a part of.
"""

import json
import math
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np

from paper import paper_rows

SHAPE = ('n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim', 'block_size')
RATES = ('learning_rate', 'min_learning_rate')
SCORED = ('order', 'tokenizer', 'test', 'windows', 'last_n')  # what a perplexity was measured on
FIELDS = ('corpus', *SCORED, *SHAPE, 'batch_size', *RATES, 'lr_schedule', 'decay_fraction')
Group = namedtuple('Group', (*FIELDS, 'warmup_fraction', 'dtype'))
# Settings that came later than some results.json: there they have their default.
DEFAULTS = dict(only='', orders=[], loss_weights=[], start_entries='', start_noise=0.3)
DEFAULTS |= dict(trainable='all', parallel_epochs=False, warmup_fraction=0.0, decay_fraction=0.2)
# Settings whose effect is in the group, or that have none on the result.
NOT_OF_RESULTS = {'out_dir', 'size', 'dtype', 'orders', 'decay_fraction', *SHAPE}
# What a control has nothing of: it knows one language and that language's entries.
OF_MIXES = {'cloned_fraction', 'vocabulary', 'loss_weights', 'start_entries', 'start_noise'}
# A control's sequences do not depend on these settings of the run. Its rates are free: they are
# tuned, so that it is as strong as it can be.
NOT_OF_CONTROLS = {'only', 'seed', 'trainable', 'init_from', *OF_MIXES, *RATES}


def load_runs(folder):
    """The finished runs of `folder`: each results.json, copies left out and replicates pooled, that
    is, runs that differ in their seed alone made one, named as the first of them.

    A damaged or foreign file is left out with a warning."""
    originals, copies, replicates = {}, [], {}
    for path in sorted(Path(folder).glob('*/results.json')):
        try:
            run = checked(json.loads(path.read_text(encoding='utf-8')), path.parent.name)
            original = originals.setdefault(identity(run), run)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            text = 'is no results.json of train.py, or is damaged; it is left out'
            print(f'warning: {path} {text}', file=sys.stderr)
            continue
        if original is not run:
            copies.append(f'{run["run"]} (of {original["run"]})')
    if copies:
        print(f'left out, as copies of another run: {", ".join(copies)}')
    for run in originals.values():
        replicates.setdefault(identity(run, {'seed'}), []).append(run)
    return [pool(members) if members[1:] else members[0] for members in replicates.values()]


def checked(run, name):
    """A run as the rest of this file sees it, with its folder's name as `run` and its seed in
    `seeds`; languages have log_ppl: [one value a seed] and arrays document_loss, document_tokens
    (D,). Raises ValueError, LookupError or TypeError where the run is damaged."""
    languages, settings = {}, DEFAULTS | run['settings']
    orders = dict(zip(settings.get('languages', ()), settings['orders']))
    for key, language in run['languages'].items():
        ppl, ppl_se, seen = language['ppl'], language.get('ppl_se') or 0.0, language['tokens_seen']
        if not (isinstance(language['corpus'], str) and ppl > 0 and ppl_se >= 0 and seen >= 0):
            raise ValueError
        documents = [language.get(f'document_{what}') or [1.0] for what in ('loss', 'tokens')]
        documents = np.array(documents, float)
        documents = documents[:, documents[1] > 0]
        if not np.isfinite(documents[0]).all():
            documents = np.ones((2, 1))
        language = language | dict(zip(('document_loss', 'document_tokens'), documents))
        ppl_se = ppl_se if math.isfinite(ppl_se) else 0.0
        order, log_ppl = orders.get(key, ''), [math.log(ppl)]
        languages[key] = language | dict(ppl_se=ppl_se, order=order, log_ppl=log_ppl)
    run = run | dict(run=name, settings=settings, languages=languages)
    run['seeds'] = [settings.get('seed', 0)]
    if not trained(run):
        raise ValueError
    paper_rows(run)  # raises where something that is needed is not there
    return run


def pool(members):
    """One run of replicates: means of tokens seen, log perplexity and each document's loss."""
    languages = {}
    for name, first in members[0]['languages'].items():
        results = [member['languages'][name] for member in members]
        log_ppl = [value for result in results for value in result['log_ppl']]
        languages[name] = first | dict(ppl=float(np.exp(np.mean(log_ppl))), log_ppl=log_ppl)
        for key in ('tokens_seen', 'document_loss'):
            languages[name][key] = np.mean([result[key] for result in results], axis=0)
    seeds = [seed for member in members for seed in member['seeds']]
    return members[0] | dict(languages=languages, seeds=seeds)


def settings_of_result(run, ignored=()):
    """The settings that the result depends on and that group_of does not have, apart from those
    named in `ignored`."""
    from train import FREE  # imported late: it brings torch

    settings = run['settings']
    ignored = {*NOT_OF_RESULTS, *FREE, *ignored, *(OF_MIXES if settings['only'] else ())}
    idle = dict(init_from=settings['trainable'] == 'all')  # a branch is the run that it branches to
    idle |= dict(
        warmup_steps=settings['warmup_fraction'], start_noise=not settings['start_entries']
    )
    return {key: v for key, v in settings.items() if key not in ignored and not idle.get(key)}


def identity(run, ignored=()):
    """Text that is equal for runs of equal settings, text, tests and sizes."""
    groups = {name: group_of(run, language) for name, language in run['languages'].items()}
    text = json.dumps([settings_of_result(run, ignored), groups])
    return json.dumps(json.loads(text, parse_int=float), sort_keys=True)  # 1 is 1.0


def trained(run):
    """Names of the languages that a run has seen; a monolingual run and a control have one."""
    return [name for name, language in run['languages'].items() if language['tokens_seen'] > 0]


def is_monolingual(run):
    """Whether a run is one language from the start, and no control."""
    settings = run['settings']
    return len(trained(run)) == 1 and not settings['only'] and settings['trainable'] == 'all'


def group_of(run, language):
    """What runs must share for one law: text, test, model and optimisation; not the vocabulary, of
    which clones need more, nor warmup_steps: short runs need fewer."""
    values = run['settings'] | run['model'] | {key: language.get(key) or '' for key in SCORED}
    values |= dict(corpus=language['corpus'], dtype=run.get('dtype') or '')
    if values['lr_schedule'] == 'cosine':  # which has no decay_fraction
        values['decay_fraction'] = 0
    return Group(*(values[name] for name in Group._fields))


def label_of(group):
    text = ' '.join(part for part in (group.corpus, group.order) if part)
    tokenizer = f' (tokeniser {group.tokenizer[:6]})' if group.tokenizer else ''
    return (
        f'{text}{tokenizer}, {group.n_layer} layers of {group.n_embd}, {group.batch_size} '
        f'x {group.block_size} tokens a step, {group.lr_schedule} from {group.learning_rate:g}'
    )


def controls_of(run, name, runs):
    """The runs that were trained on the sequences of language `name` of a run and on no others, in
    the same steps; their learning rates are their own."""

    def sequences(member):
        group = group_of(member, member['languages'][name])
        return settings_of_result(member, NOT_OF_CONTROLS), group._replace(**dict.fromkeys(RATES))

    return [
        other
        for other in runs
        if other['settings']['only'] == name and name in other['languages']
        if sequences(other) == sequences(run)
    ]


def best_control(run, name, runs):
    """The control of language `name` of a run with the lowest perplexity, or None."""
    candidates = controls_of(run, name, runs)
    return min(candidates, key=lambda c: c['languages'][name]['ppl'], default=None)


def stray_controls(runs):
    """Names of the controls of no run that is there."""
    names = {run['run'] for run in runs if run['settings']['only']}
    for run in runs:
        for name in trained(run) if not run['settings']['only'] else ():
            names -= {control['run'] for control in controls_of(run, name, runs)}
    return sorted(names)
