"""Continues a text with a trained model, and shows where it changes language on the way.

    python sample.py --out_dir=out/RUN --language=en1 --prompt='It was'
    python sample.py --out_dir=out/RUN --language=en1 --start=FILE --temperature=0.5

Text in another language than the prompt's is coloured on a terminal and stands in brackets
elsewhere: It was [en2: the end] of it. An empty line is the end of a document.
"""

import itertools
import sys
from collections import Counter
from pathlib import Path

from lib.configurator import ConfigError, run

import numpy as np
import torch
from tqdm import trange

from evaluate import load_run
from lib.machine import memory_advice, pick_device
from lib.tokenizer import DOCUMENT_END, PAD

out_dir = ''  # folder of a run of train.py
language = ''  # of the prompt; empty: the first one of the run
prompt = ''  # the text to continue
start = ''  # instead: a file with the text to continue
num_samples = 3  # continuations
max_new_tokens = 500  # tokens of each
temperature = 0.8  # below 1 what is likely is drawn more often, above 1 less often
top_k = 200  # only so many of the likeliest entries are drawn; 0: all
seed = 0  # of the draws
device = 'auto'  # auto, cpu, cuda, cuda:1, mps


def generate(model, ids, count, never, generator):
    """ids (B, T) int64 on the CPU, at most block_size long, and `count` drawn ones: (B, T + count).

    never: (V,) bool, entries that are not drawn. When the window of the model is full, its last
    half is read again as the beginning of a window."""
    window, cache, new = model.config.block_size, model.new_cache(), ids
    for _ in trange(count, desc='sampling', unit=' tokens', leave=False):
        with torch.no_grad():
            logits = model(new.to(model.head.weight.device), last_n=1, cache=cache)[:, 0].cpu()
        logits = logits.masked_fill(never, -torch.inf) / temperature
        if top_k:
            least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        new = torch.multinomial(logits.softmax(1), 1, generator=generator)
        ids = torch.cat([ids, new], 1)
        if cache[0][0].shape[2] == window:
            cache, new = model.new_cache(), ids[:, -max(1, window // 2) :]
    return ids


def spoken(ids, languages, first):
    """[(language, token of its corpus)] of a list of entries, both int.

    An entry that languages share counts for the one that is being spoken, to begin with `first`."""
    tokens_of = [{entry: t for t, entry in enumerate(lang.table.tolist())} for lang in languages]
    current, pairs = first, []
    for entry in ids:
        if entry not in tokens_of[current]:
            current = next(i for i, tokens in enumerate(tokens_of) if entry in tokens)
        pairs.append((current, tokens_of[current][entry]))
    return pairs


def marked(pairs, names, tokenizers, first, colour):
    """Text of what `spoken` returns; what is in another language than `first` is marked."""
    text = ''
    for (number, ends), group in itertools.groupby(pairs, lambda p: (p[0], p[1] == DOCUMENT_END)):
        tokens, pieces = [token for _, token in group], tokenizers[number]
        # SentencePiece leaves out the space before the first word of what it decodes.
        text += ' ' if pieces.spelling(tokens[0]).startswith('\u2581') else ''
        begin, end = f'[{names[number]}: ', ']'
        if colour:
            begin, end = f'\033[{31 + number % 6}m', '\033[0m'
        if number == first or ends:
            begin = end = ''
        text += begin + ('\n\n' if ends else pieces.decode(tokens)) + end
    return text.removeprefix(' ')


def main():
    if min(num_samples, max_new_tokens) < 1 or temperature <= 0 or top_k < 0:
        raise ConfigError('num_samples and max_new_tokens must be at least 1, temperature above 0')
    if not out_dir or bool(prompt) == bool(start):
        raise ConfigError('give a run and a text: --out_dir=out/RUN --prompt=TEXT or --start=FILE')
    model, languages, _ = load_run(out_dir)
    names = [lang.name for lang in languages]
    if language and language not in names:
        raise ConfigError(f'{out_dir} has no language {language!r}; it has {", ".join(names)}')
    first = names.index(language or names[0])
    tokenizers = [lang.corpus.load_tokenizer() for lang in languages]
    text = Path(start).read_text('utf-8', 'replace') if start else prompt
    ids = torch.from_numpy(languages[first].table[tokenizers[first].encode(text.strip())]).long()
    if not 0 < len(ids) <= model.config.block_size:
        limit = f'the model reads 1 to {model.config.block_size:,}'
        raise ConfigError(f'the prompt has {len(ids):,} tokens; {limit}')
    entries = np.concatenate([lang.table for lang in languages])
    never = ~np.isin(np.arange(model.config.vocab_size), entries[entries != PAD])
    generator, count = torch.Generator().manual_seed(seed), Counter()
    with memory_advice('lower num_samples'):
        model.to(pick_device(device))
        ids = ids.repeat(num_samples, 1)
        samples = generate(model, ids, max_new_tokens, torch.from_numpy(never), generator)
    for sample in samples.tolist():
        pairs = spoken(sample, languages, first)
        count.update(names[number] for number, _ in pairs[ids.shape[1] :])
        print(marked(pairs, names, tokenizers, first, sys.stdout.isatty()), '-' * 20, sep='\n')
    shares = ', '.join(f'{name} {count[name] / count.total():.1%}' for name in names)
    print(f'languages of the {count.total():,} new tokens: {shares}')


if __name__ == '__main__':
    run(globals(), main)
