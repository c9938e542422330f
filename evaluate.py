"""Perplexity of each language on its corpus's test set (Section 3).

    python evaluate.py --out_dir=out/RUN
    python evaluate.py --languini=model.pt --corpora=[books_en,books_en] --languages=[en1,en2]

A window of block_size targets moves over the test stream by `last_n`, and only its last `last_n`
targets are counted, so that each is predicted from a long context. The standard error is over
documents, whose tokens are not independent.
"""

import math

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from checkpoint import load_run, write_json
from configurator import ConfigError, run
from data import DOCUMENT_END, build_languages
from device import autocast, memory_advice, pick_device, pick_dtype
from model import GPT, GPTConfig

out_dir = ''  # folder of a run of train.py, for example out/demo_90_10
languini = ''  # instead: a checkpoint of the paper's own code, for which the next five say the rest
corpora = ['docs', 'docs']  # with languini: the corpus of each language
languages = ['en1', 'en2']  # with languini: the names of the languages
vocabulary = 'disjoint'  # with languini: disjoint or anchored
cloned_fraction = 1.0  # with languini: share of the pieces that clones do not share
head_dim = 64  # with languini: width of an attention head; the weights do not tell it
last_n = 0  # targets counted in a window, and how far it moves; 0: a quarter of block_size
max_windows = 0  # evaluate so many windows, spread evenly over the test set; 0: all of them
batch_size = 0  # windows scored at once; 0: as many as are fast on the device
device = 'auto'  # auto, cpu, cuda, cuda:1, mps
dtype = 'auto'  # auto, bfloat16, float16, float32


def window_losses(model, stream, last_n, batch_size=0, max_windows=0, context=None, quiet=True):
    """Losses of a token stream by sliding windows of the model's block_size.

    stream: (N,) ids of the model's vocabulary. Returns (losses (W, last_n) float32 in nats, starts
    (W,) of the windows); column j of window w is the loss of token starts[w] + block_size - last_n
    + 1 + j. With torch.distributed the windows are shared among the processes, and all get all
    losses. Raises ConfigError when the stream is shorter than a window."""
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

    ppl, loss (nats a token) and their standard errors over documents; bits_per_byte; scored_tokens,
    windows, last_n; and of each document with a scored token, in the order of the test set,
    document_loss (sum, nats) and document_tokens, so that runs can be compared on the same
    documents. The whole test set is put into the order of the language, so every token but those
    at its ends is scored once, also where the language is reversed."""
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
    """{language: perplexity dict}; `model` may be compiled."""
    return {language.name: perplexity(model, language, **how) for language in languages}


def table(scores):
    """The perplexities as lines of text."""
    lines = [
        f'{"language":<12}{"PPL":>10}{"± s.e.":>9}{"bits/byte":>11}{"nats/token":>12}'
        f'{"scored tokens":>15}{"documents":>11}'
    ]
    for name, s in scores.items():
        lines.append(
            f'{name:<12}{s["ppl"]:>10.2f}{s["ppl_se"]:>9.2f}{s["bits_per_byte"]:>11.3f}'
            f'{s["loss"]:>12.4f}{s["scored_tokens"]:>15,}{s["documents"]:>11,}'
        )
    return '\n'.join(lines)


def load_languini(path, corpora, names, vocabulary, cloned_fraction, head_dim):
    """Model and languages of a checkpoint of the paper's own code, whose sizes are read off the
    weights. Raises ConfigError."""
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f'there is no file {path}') from None
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(f'{path} is not a checkpoint of weights ({kind})') from None
    for key in ('model', 'model_state_dict', 'state_dict'):
        state = state.get(key, state) if isinstance(state, dict) else {}
    shape = {
        name.rpartition('_orig_mod.')[2].removeprefix('module.'): tuple(tensor.shape)
        for name, tensor in state.items()
        if torch.is_tensor(tensor)
    }
    languages, entries = build_languages(corpora, names, vocabulary, cloned_fraction)
    try:
        V, C = shape['input_embedding.weight']
        config = GPTConfig(
            n_layer=sum(name.endswith('ln1.weight') for name in shape),
            n_head=shape['layers.0.attn.linear_Q.weight'][0] // head_dim,
            head_dim=head_dim,
            n_embd=C,
            mlp_dim=shape['layers.0.mlp.c_fc.weight'][0],
            vocab_size=V,
            block_size=shape['position_embedding.weight'][0],
        )
        model = GPT(config).load_languini(state)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"{path} is not a checkpoint of the paper's code: {error}") from None
    if V != entries:
        raise ConfigError(f'{path} has {V:,} vocabulary entries, these languages have {entries:,}')
    return model.eval(), languages


def main():
    if bool(out_dir) == bool(languini):
        raise ConfigError('say what to evaluate: --out_dir=out/RUN, or --languini=FILE')
    if languini:
        made = corpora, languages, vocabulary, cloned_fraction
        model, built = load_languini(languini, *made, head_dim)
    else:
        model, built, _ = load_run(out_dir)
    compute_device = pick_device(device)
    context = autocast(compute_device, pick_dtype(dtype, compute_device))
    how = dict(last_n=last_n, batch_size=batch_size, max_windows=max_windows, context=context)
    with memory_advice('lower batch_size'):
        scores = perplexities(model.to(compute_device), built, **how, quiet=False)
    print(table(scores))
    if out_dir:
        write_json(f'{out_dir}/evaluation.json', scores)


if __name__ == '__main__':
    run(globals(), main)
