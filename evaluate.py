"""Opens a finished run, and measures the perplexity of each language on its test set (Section 3).

    python evaluate.py --out_dir=out/RUN

A window of block_size targets slides over the test stream by `last_n`, and only its last `last_n`
targets are scored, so that each is predicted from a long context. The standard error is over
documents, since the tokens of one document are not independent.
"""

import math
import re

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from data import alone, build_languages
from lib.checkpoint import last_checkpoint
from lib.configurator import ConfigError, require, run
from lib.files import write_json
from lib.machine import autocast, memory_advice, pick_device, pick_dtype
from lib.runs import full_settings
from lib.tokenizer import DOCUMENT_END
from model import GPT, GPTConfig

out_dir = ''  # folder of a run of train.py, for example out/demo_90_10
last_n = 0  # targets scored in a window, and how far it slides; 0: a quarter of block_size
max_windows = 0  # evaluate so many windows, spread evenly over the test set; 0: all of them
batch_size = 0  # windows scored at once; 0: as many as are fast on the device
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # auto, bfloat16, float16, float32


# --- opening a run --------------------------------------------------------------------------------


def load_run(out):
    """A run of train.py: (model on CPU in evaluation mode, list of Language, checkpoint dict).

    Raises ConfigError without a whole checkpoint or with another corpus than it was trained on."""
    state = last_checkpoint(out)
    require(state, f'there is no run in {out}; make one with: python train.py CONFIG')
    languages, _ = open_languages(full_settings(state['settings']))
    check_corpora(state, languages, out)
    model = GPT(GPTConfig(**state['model_config']))
    model.load_state_dict(state['model'])
    return model.eval(), languages, state


def open_languages(settings):
    """The languages that a run with these settings trains, and the embedding rows they need: (list
    of Language, rows). A control run has one language. Raises ConfigError."""
    names = ('corpora', 'languages', 'vocabulary', 'cloned_fraction', 'seed', 'orders')
    languages, rows = build_languages(*(settings[name] for name in names))
    return alone(languages, settings['only']) if settings['only'] else (languages, rows)


def corpora_identity(languages):
    """{corpus: [hash of the tokeniser, fingerprint of the training shard]} of a run."""
    corpora = [language.corpus for language in languages]
    return {c.name: [c.tokenizer_hash, c.info['train']['fingerprint']] for c in corpora}


def check_corpora(state, languages, out):
    """Raises ConfigError when a corpus is not the one that the run in `out` was trained on."""
    for name, identity in corpora_identity(languages).items():
        same = state['corpora'].get(name) == identity
        require(same, f'data/{name} is not the corpus of {out}; give that its name back')


# --- perplexity -----------------------------------------------------------------------------------


def window_losses(model, stream, last_n, batch_size=0, max_windows=0, context=None, quiet=True):
    """Losses of a token stream by sliding windows of the model's block_size.

    stream: (N,) token ids of the model. Returns (losses (W, last_n) float32 in nats, starts (W,) of
    the windows); column j of window w is the loss of token starts[w] + block_size - last_n + 1 + j.
    With torch.distributed the processes share the windows, and all get all losses. Raises
    ConfigError when the stream is shorter than a window."""
    T = model.config.block_size
    if len(stream) < T + 1:
        raise ConfigError(
            f'the test set has {len(stream):,} tokens, fewer than one window of block_size {T}'
        )
    if not 0 < last_n <= T:
        raise ConfigError(f'last_n must lie between 1 and block_size {T}, not {last_n}')
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
        losses = losses.to(device)
        dist.all_reduce(losses)
    return losses.cpu().numpy(), starts


def perplexity(model, language, last_n=0, **how):
    """Perplexity of a language on its test set, as a dict. how: as of `window_losses`.

    ppl, loss (nats a token) and their standard errors over documents (nan for one document);
    bits_per_byte; scored_tokens, windows, last_n; and for each document with a scored token, in the
    order of the test set, document_loss (sum, nats) and document_tokens, so that runs can be
    compared on the same documents. The whole test set is put into the order of the language, so
    every token except at its ends is scored once, in a reversed language, too."""
    T, test, about = model.config.block_size, language.corpus.test, language.corpus.info['test']
    last_n = last_n or max(1, T // 4)
    if last_n % language.window:
        raise ConfigError(
            f'{language.name} is {language.order}: last_n must be divisible by {language.window}, '
            f'not {last_n}'
        )
    losses, starts = window_losses(model, language.ids(np.asarray(test)), last_n, **how)
    scored_positions = starts[:, None] + T - last_n + 1 + np.arange(last_n)
    is_end = np.asarray(test) == DOCUMENT_END
    ends_before = (np.cumsum(is_end) - is_end)[language.positions(len(test))]
    document = ends_before[scored_positions].ravel()  # of each scored token
    total, count = np.bincount(document, losses.ravel().astype(float)), np.bincount(document)
    total, count = total[count > 0], count[count > 0]
    scored, documents = int(count.sum()), len(count)
    loss, error = total.sum() / scored, float('nan')
    if documents > 1:
        # The loss is a ratio of sums: its error is the spread of what each document adds.
        spread = ((total - loss * count) ** 2).sum() * documents / (documents - 1)
        error = math.sqrt(spread) / scored
    ppl = math.exp(min(loss, 700))
    return dict(
        ppl=ppl,
        ppl_se=ppl * error,
        loss=loss,
        loss_se=error,
        bits_per_byte=loss / math.log(2) * about['tokens'] / about['bytes'],
        scored_tokens=scored,
        documents=documents,
        windows=len(starts),
        last_n=last_n,
        document_loss=[round(value, 4) for value in total.tolist()],
        document_tokens=count.tolist(),
    )


def perplexities(model, languages, **how):
    """{language: dict of perplexity()}; `model` may be compiled."""
    return {language.name: perplexity(model, language, **how) for language in languages}


def table(scores):
    """The perplexities as lines of text; - where a number is unknown."""
    columns = dict(ppl='10.2f', ppl_se='9.2f', bits_per_byte='11.3f', loss='12.4f')
    columns |= dict(scored_tokens='15,', documents='11,')
    heads = 'PPL', '± s.e.', 'bits/byte', 'nats/token', 'scored tokens', 'documents'
    widths = [int(re.match(r'\d+', form)[0]) for form in columns.values()]
    lines = ['language'.ljust(12) + ''.join(h.rjust(w) for h, w in zip(heads, widths))]
    for name, score in scores.items():
        cells = []
        for (key, form), width in zip(columns.items(), widths):
            known = score[key] is not None and math.isfinite(score[key])
            cells.append(f'{score[key]:{form}}' if known else '-'.rjust(width))
        lines.append(f'{name:<12}{"".join(cells)}')
    return '\n'.join(lines)


def main():
    require(out_dir, 'say which run to evaluate: --out_dir=out/RUN')
    model, languages, _ = load_run(out_dir)
    compute_device = pick_device(device)
    context = autocast(compute_device, pick_dtype(dtype, compute_device))
    how = dict(last_n=last_n, batch_size=batch_size, max_windows=max_windows, context=context)
    with memory_advice('lower batch_size'):
        scores = perplexities(model.to(compute_device), languages, **how, quiet=False)
    print(table(scores))
    write_json(f'{out_dir}/evaluation.json', scores)


if __name__ == '__main__':
    run(globals(), main)
