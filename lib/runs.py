"""The table of settings, which decides what is compared with what; and the finished runs.

The table names, for each kind of comparison, the settings that may differ; any other must be equal.
So resume, replicates, laws and controls keep runs apart that differ in a new setting of train.py. A
stored run that lacks it has its default, which must be what the code did before.
"""

import json
import math
import sys
from pathlib import Path

from lib.configurator import defaults_of, require

import numpy as np

# --- the table ------------------------------------------------------------------------------------

FREE = {'out_dir', 'device', 'compile', 'micro_batch_size', 'log_interval', 'wandb_project'}
FREE |= {'eval_interval', 'eval_windows', 'final_windows', 'checkpoint_interval', 'data_dir'}
FREE |= {'keep_checkpoints'}  # none of these changes the weights: they may change on resume
SEED = {'seed'}  # replicates
INTERVENTIONS = {'loss_weights', 'init_embeddings', 'init_noise', 'train_only'}
VOCABULARY = {'vocabulary', 'cloned_fraction'}
# One law measures a language in all mixtures with one model and one optimisation.
MIX = {'corpora', 'languages', 'stages', 'orders', 'only', 'epochs', 'control_batch'}
MIX |= INTERVENTIONS | VOCABULARY
LENGTH = {'max_steps', 'init_from'}  # the points of one law
RATES = {'learning_rate', 'min_learning_rate'}  # tuned in control runs
SHAPE = {'size', 'n_layer', 'n_head', 'head_dim', 'n_embd', 'mlp_dim', 'block_size', 'batch_size'}
BRANCH = {'max_steps', 'init_from', 'decay_fraction', 'min_learning_rate'}  # of a trunk
LAW = FREE | SEED | MIX | LENGTH
# A control run has one language and its vocabulary, so it ignores what acts between languages.
CONTROL = FREE | SEED | RATES | VOCABULARY | INTERVENTIONS
CONTROL |= {'only', 'init_from', 'epochs', 'control_batch', 'orders'}  # SCORED has its own order

DEFAULTS = defaults_of(Path(__file__).resolve().parent.parent / 'train.py')
# Settings of older runs: what they are called now, their values, and what is gone.
RENAMED = dict(start_entries='init_embeddings', start_noise='init_noise', trainable='train_only')
REVALUED = dict(init_embeddings={'clones': 'spelling'}, train_only={'all': ''})
RETIRED = dict(parallel_epochs=False, warmup_fraction=0.0)  # the only values that are still run
# On what a perplexity was measured; beside the settings, a law and a control must share it.
SCORED = ('order', 'tokenizer', 'test', 'windows', 'last_n')
DOCUMENTS = ('document_loss', 'document_tokens')


def full_settings(stored):
    """The settings of a stored run under today's names; what it lacks has its default."""
    settings = dict(DEFAULTS)
    for name, value in stored.items():
        name = RENAMED.get(name, name)
        known = REVALUED.get(name, {})
        value = known.get(value, value) if isinstance(value, str) else value
        if RETIRED.get(name, ...) != value:
            settings[name] = value
    return settings


def differing(first, second, may_differ):
    """Names of settings outside of `may_differ` that differ, or that only one of the two has."""
    names = (first.keys() | second.keys()) - may_differ
    return sorted(name for name in names if first.get(name, ...) != second.get(name, ...))


def refuse_other_settings(stored, settings, out, may_differ=FREE):
    """Raises ConfigError when the run in `out` was made with settings that must be equal."""
    stored = full_settings(stored)
    names, advice = differing(stored, settings, may_differ), 'choose another out_dir'
    if names == ['max_steps'] and stored['lr_schedule'] == 'wsd':
        advice += f', and branch off it with init_from={out}'
    text = (f'{name} is {stored.get(name)!r} there, {settings.get(name)!r} now' for name in names)
    require(not names, f'{out} is a run of other settings: {"; ".join(text)}; {advice}')


def comparable(run):
    """The settings of a finished run by their effect: the shape instead of its name, the number
    format that `auto` chose, and the default where a setting had no effect."""
    settings = full_settings(run['settings'])
    settings |= {name: value for name, value in run['model'].items() if name in settings}
    settings |= dict(size='', dtype=run.get('dtype') or settings['dtype'])
    idle = dict(decay_fraction=settings['lr_schedule'] == 'cosine')
    idle |= dict(init_noise=not settings['init_embeddings'], init_from=not settings['train_only'])
    idle |= dict(orders=not any(settings['orders']))
    return settings | {name: DEFAULTS[name] for name in idle if idle[name]}


def key_of(run, language, may_differ):
    """Text that is equal for results on equal text of runs that differ in `may_differ` alone."""
    result = run['languages'][language]
    same = {k: v for k, v in comparable(run).items() if k not in may_differ}
    return canonical([same, result['corpus'], [result.get(name) or '' for name in SCORED]])


def canonical(value):
    """Text that is equal for equal values; 1 is 1.0."""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)


# --- finished runs --------------------------------------------------------------------------------


def load_runs(folder):
    """The finished runs of `folder`, as dicts. Replicates (seeds) are pooled into one run with the
    name of the first. Exact copies and damaged or foreign files are left out, and named."""
    originals, copies, replicates = {}, [], {}
    for path in sorted(Path(folder).glob('*/results.json')):
        try:
            run = checked(json.loads(path.read_text(encoding='utf-8')), path.parent.name)
            # a monolingual run is the same by any name of its language
            named = {'languages'} if len(run['settings']['languages']) == 1 else set()
            original = originals.setdefault(identity(run, named), run)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            text = 'is no results.json of train.py, or is damaged; it is left out'
            print(f'warning: {path} {text}', file=sys.stderr)
            continue
        if original is not run:
            copies.append(f'{run["run"]} (of {original["run"]})')
    if copies:
        print(f'left out, as copies of another run: {", ".join(copies)}')
    for run in originals.values():
        replicates.setdefault(identity(run, SEED), []).append(run)
    return [pool(members) if members[1:] else members[0] for members in replicates.values()]


def checked(run, name):
    """A run from its results.json, with its folder's name as `run`, its `seeds`, the commits of its
    `code`, and for each language its order, log_ppl: [one value a seed], and arrays document_loss,
    document_tokens (D,). Raises ValueError, LookupError or TypeError where the file is damaged."""
    languages, settings = {}, full_settings(run['settings'])
    orders = dict(zip(settings['languages'], settings['orders']))
    for key, result in run['languages'].items():
        ppl, error, seen = result['ppl'], result.get('ppl_se'), result['tokens_seen']
        error = error if math.isfinite(error or 0) else None  # nan of one document in older runs
        if not (isinstance(result['corpus'], str) and ppl > 0 <= seen and (error or 0) >= 0):
            raise ValueError
        about = dict(ppl_se=error, order=orders.get(key, ''), log_ppl=[math.log(ppl)])
        about |= dict(tokens_read=result.get('tokens_read', seen))  # older runs lack it
        documents = np.array([result.get(name) or [1.0] for name in DOCUMENTS], float)
        documents = documents[:, documents[1] > 0]
        if not np.isfinite(documents).all():
            documents = np.ones((2, 1))  # their error is unknown
        languages[key] = result | about | dict(zip(DOCUMENTS, documents))
    run = run | dict(run=name, settings=settings, languages=languages, seeds=[settings['seed']])
    run['code'] = {(run.get('commit') or '')[:8] + ' and edits' * bool(run.get('dirty'))} - {''}
    stages = np.array(settings['stages'], float)  # raises where it is no matrix
    if not trained(run) or stages.shape[1] != len(settings['languages']):
        raise ValueError
    comparable(run)  # raises where something that it needs is missing
    return run


def pool(members):
    """One run of replicates: means of all numbers that they share, and of each document's loss."""
    languages = {}
    for name, first in members[0]['languages'].items():
        results = [member['languages'][name] for member in members]
        log_ppl = [value for result in results for value in result['log_ppl']]
        losses = [result['document_loss'] for result in results]
        unknown = dict(zip(DOCUMENTS, np.ones((2, 1))))
        same = len({len(loss) for loss in losses}) == 1  # else the error of one is unknown
        means = dict(document_loss=np.mean(losses, axis=0)) if same else unknown
        for key in {key for result in results for key in result}:
            values = [result.get(key) for result in results]
            if any(isinstance(value, (int, float)) for value in values):
                means[key] = None if None in values else float(np.mean(values))
            elif isinstance(values[0], list) and any(value != values[0] for value in values):
                means[key] = None  # no list is that of the first seed alone
        means |= dict(ppl=float(np.exp(np.mean(log_ppl))), log_ppl=log_ppl)
        languages[name] = first | means
    seeds = [seed for member in members for seed in member['seeds']]
    code = set().union(*(member['code'] for member in members))
    return members[0] | dict(languages=languages, seeds=seeds, code=code)


def identity(run, may_differ=frozenset()):
    """Text that is equal for runs of equal settings, but for `may_differ`, and equal text."""
    return canonical([key_of(run, name, FREE | may_differ) for name in run['languages']])


def trained(run):
    """Names of the languages that a run has seen; a monolingual run and a control have one."""
    return [name for name, language in run['languages'].items() if language['tokens_seen'] > 0]


def is_monolingual(run):
    """Whether a run has seen one language from scratch, and is not a control."""
    return len(trained(run)) == 1 and not (run['settings']['only'] or run['settings']['train_only'])


def group_of(run, language):
    """Text that is equal for results of one law: one text, test set, model and optimisation."""
    return key_of(run, language, LAW)


def label_of(run, language):
    """What a group is called."""
    s, result = comparable(run), run['languages'][language]
    text = ' '.join(filter(None, (result['corpus'], result['order'])))
    tokenizer = f' (tokeniser {result["tokenizer"][:6]})' if result.get('tokenizer') else ''
    new = LAW | RATES | SHAPE | {'lr_schedule', 'decay_fraction', 'warmup_steps'}
    rest = ''.join(f', {name}={s[name]}' for name in differing(s, DEFAULTS, new) if name in s)
    shape = '{n_layer} layers of {n_embd}, {batch_size} x {block_size} tokens a step'.format(**s)
    return f'{text}{tokenizer}, {shape}, {s["lr_schedule"]} from {s["learning_rate"]:g}{rest}'


def controls_of(run, name, runs):
    """The control runs of a run's language: on its sequences alone, at any learning rate."""
    key = key_of(run, name, CONTROL)
    found = (r for r in runs if r['settings']['only'] == name and name in r['languages'])
    return [other for other in found if key_of(other, name, CONTROL) == key]


def decay_start(max_steps, decay_fraction=0.2):
    """First step of a wsd run whose learning rate may fall; branches share those before."""
    return max_steps - round(decay_fraction * max_steps)
