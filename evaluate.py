"""Opens a finished run, and measures the perplexity of each language on its test set (Section 3).

    python evaluate.py --out_dir=out/RUN

A window of block_size targets slides over the test stream by `last_n`, and only its last `last_n`
targets are scored, so that each is predicted from a long context. The standard error is over
documents, since the tokens of one document are not independent.
"""

import contextlib
import json
import math
import os
from pathlib import Path

from lib.configurator import ConfigError, require, run

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from data import build_languages, monolingual
from lib.checkpoint import last_checkpoint, load_state
from lib.files import write_json
from lib.machine import autocast, memory_advice, pick_device, pick_dtype
from lib.runs import full_settings
from lib.tables import align
from lib.tokenizer import DOCUMENT_END
from model import GPT, GPTConfig

out_dir = ''  # folder of a run of train.py, for example out/demo_90_10
data_dir = 'data'  # folder of the corpora; where it lacks them, that of the run
last_n = 0  # targets scored in a window, and how far it slides; 0: a quarter of block_size
max_windows = 0  # evaluate so many windows, spread evenly over the test set; 0: all of them
batch_size = 0  # windows scored at once; 0: as many as are fast on the device
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # auto, bfloat16, float16, float32


# --- opening a run --------------------------------------------------------------------------------


def load_run(out, data_dir='data'):
    """A run of train.py: (model on CPU in evaluation mode, list of Language, checkpoint dict).

    Languages that the run never read come last; a control run has one language. Raises ConfigError
    without a whole checkpoint, or without the corpora that the run was trained on, which
    `find_corpora` finds from any working directory."""
    state = last_checkpoint(out)
    require(state, f'there is no run in {out}; make one with: python train.py CONFIG')
    settings, root = full_settings(state['settings']), find_corpora(state, out, data_dir)
    names = ('corpora', 'languages', 'vocabulary', 'cloned_fraction', 'seed', 'orders')
    languages, _ = build_languages(*(settings[name] for name in names), root)
    if settings['only']:
        languages, _ = monolingual(languages, settings['only'])
    shares = dict(zip(settings['languages'], np.sum(settings['stages'], axis=0)))
    if not settings['train_only']:  # which has the other languages from another run
        languages.sort(key=lambda language: not shares[language.name])
    model = GPT(GPTConfig(**state['model_config']))
    load_state(model, state['model'], f'the model in {out}')
    return model.eval(), languages, state


def find_corpora(state, out, data_dir):
    """The folder with the corpora of the run in `out`: data_dir, or the run's own data_dir from
    here or from where the run was made.

    Raises ConfigError that says where it looked, and which folders have the missing corpora."""

    def identity(folder):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            info = json.loads((folder / 'corpus.json').read_text())
            return [info['tokenizer']['sha256'], info['train']['fingerprint']]

    stored, corpora = full_settings(state['settings']), state['corpora']
    made = Path(os.path.abspath(os.path.join(out, *['..'] * len(Path(stored['out_dir']).parts))))
    places = [Path(data_dir), Path(stored['data_dir']), made / stored['data_dir']]
    for place in places:
        if all(identity(place / name) == corpora[name] for name in corpora):
            return place
    places = dict.fromkeys(str(place.resolve()) for place in places)
    folders = {folder: identity(folder) for place in places for folder in Path(place).glob('*/')}
    moved = [f for f, it in folders.items() if it in corpora.values() and it != corpora.get(f.name)]
    advice = f'{", ".join(map(str, moved))} looks like it: give it the name back'
    looked = f'{", ".join(corpora)}, which {out} was trained on, in {", ".join(places)}'
    raise ConfigError(f'there is no corpus {looked}; {advice if moved else "set data_dir"}')


def corpora_identity(languages):
    """{corpus: [hash of the tokeniser, fingerprint of the training shard]} of a run."""
    corpora = [language.corpus for language in languages]
    return {c.name: [c.tokenizer_hash, c.info['train']['fingerprint']] for c in corpora}


# --- perplexity -----------------------------------------------------------------------------------


def window_losses(model, stream, last_n, batch_size=0, max_windows=0, context=None, quiet=True):
    """The loss in nats of each token of a stream, by sliding windows of block_size.

    stream: (N,) token ids of the model. Returns (losses (W, last_n) float32, starts (W,) of the
    windows); column j of window w is the loss of token starts[w] + block_size - last_n + 1 + j.
    With torch.distributed the processes share the windows, and all get all losses. Raises
    ConfigError when the stream is shorter than a window."""
    T = model.config.block_size
    enough = len(stream) > T
    require(enough, f'a test set of {len(stream):,} tokens is shorter than block_size {T}')
    require(0 < last_n <= T, f'last_n must be 1 to block_size {T}, not {last_n}')
    starts = np.arange(0, len(stream) - T, last_n)
    if max_windows and max_windows < len(starts):
        starts = starts[np.linspace(0, len(starts) - 1, max_windows).astype(int)]
    device = next(model.parameters()).device
    tokens_at_once = 4096 if device.type == 'cpu' else 65536  # a CPU's caches are small
    batch_size = batch_size or max(1, tokens_at_once // T)
    losses = torch.zeros(len(starts), last_n)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    firsts = range(rank * batch_size, len(starts), world * batch_size)
    for first in tqdm(firsts, 'evaluating', unit=' batches', leave=False, disable=quiet):
        chosen = starts[first : first + batch_size]
        ids = np.stack([stream[start : start + T + 1] for start in chosen]).astype(np.int64)
        window = torch.from_numpy(ids).to(device)
        with torch.no_grad(), context or autocast(device, torch.float32):
            _, part = model(window[:, :-1], window[:, 1:], last_n=last_n, per_token=True)
        losses[first : first + batch_size] = part.float().cpu()
    if world > 1:
        dist.all_reduce(losses)
    return losses.numpy(), starts


def perplexity(model, language, last_n=0, **how):
    """Perplexity of a language on its test set, as a dict. how: as of `window_losses`.

    ppl, loss (nats a token) and their standard errors over documents (None for one document);
    bits_per_byte; scored_tokens, windows, last_n; and for each document with a scored token, in the
    order of the test set, document_loss (sum, nats) and document_tokens, so that runs can be
    compared on the same documents. The whole test set is put into the order of the language, so
    every token except at its ends is scored once, in a reversed language, too."""
    T, test, about = model.config.block_size, language.corpus.test, language.corpus.info['test']
    last_n = last_n or max(1, T // 4)
    fits = last_n % language.window == 0
    require(fits, f'last_n={last_n} does not fit the order {language.order} of {language.name}')
    losses, starts = window_losses(model, language.ids(np.asarray(test)), last_n, **how)
    scored_positions = starts[:, None] + T - last_n + 1 + np.arange(last_n)
    is_end = np.asarray(test) == DOCUMENT_END
    ends_before = (np.cumsum(is_end) - is_end)[language.positions(len(test))]
    document = ends_before[scored_positions].ravel()  # of each scored token
    total, count = np.bincount(document, losses.ravel().astype(float)), np.bincount(document)
    total, count = total[count > 0], count[count > 0]
    scored, documents = int(count.sum()), len(count)
    loss, error = total.sum() / scored, None
    if documents > 1:
        # The loss is a ratio of sums: its error is the spread of what each document adds.
        spread = ((total - loss * count) ** 2).sum() * documents / (documents - 1)
        error = math.sqrt(spread) / scored
    ppl, bits = math.exp(min(loss, 700)), loss / math.log(2) * about['tokens'] / about['bytes']
    score = dict(ppl=ppl, ppl_se=error and ppl * error, loss=loss, loss_se=error)
    score |= dict(bits_per_byte=bits, scored_tokens=scored, documents=documents)
    score |= dict(windows=len(starts), last_n=last_n, document_tokens=count.tolist())
    return score | dict(document_loss=[round(value, 4) for value in total.tolist()])


def perplexities(model, languages, **how):
    """{language: dict of perplexity()}; `model` may be compiled."""
    return {language.name: perplexity(model, language, **how) for language in languages}


# title of a column: key of the score, its format
COLUMNS = {'PPL': ('ppl', '.2f'), '± s.e.': ('ppl_se', '.2f')}
COLUMNS |= {'bits/byte': ('bits_per_byte', '.3f'), 'nats/token': ('loss', '.4f')}
COLUMNS |= {'scored tokens': ('scored_tokens', ','), 'documents': ('documents', ',')}


def table(scores):
    """The perplexities as lines of text; - where a score is unknown."""
    lines = [('language', *COLUMNS)]
    for name, score in scores.items():
        cells = [(score.get(key), how) for key, how in COLUMNS.values()]
        lines.append((name, *('-' if x is None else format(x, how) for x, how in cells)))
    return align(lines)


def main():
    require(out_dir, 'say which run to evaluate: --out_dir=out/RUN')
    for name in ('last_n', 'max_windows', 'batch_size'):
        require(globals()[name] >= 0, f'{name} must be at least 0, not {globals()[name]}')
    model, languages, _ = load_run(out_dir, data_dir)
    compute_device = pick_device(device)
    context = autocast(compute_device, pick_dtype(dtype, compute_device))
    how = dict(last_n=last_n, batch_size=batch_size, max_windows=max_windows, context=context)
    with memory_advice('lower batch_size'):
        scores = perplexities(model.to(compute_device), languages, **how, quiet=False)
    part = f'_{max_windows}' if max_windows else ''
    write_json(f'{out_dir}/evaluation{part}.json', scores)
    print(table(scores))


if __name__ == '__main__':
    run(globals(), main)
