"""Continues a text with a trained model, and shows where it switches language.

    python sample.py --out_dir=out/RUN --language=en1 --prompt='It was'

Without a prompt it begins a document. Another language than the prompt's stands in brackets: It was
[en2: the end] of it. An empty line is the end of a document.
"""

from itertools import groupby

from lib.configurator import require, run

import numpy as np
import torch
from tqdm import trange

from evaluate import load_run
from lib.machine import memory_advice, pick_device
from lib.tokenizer import DOCUMENT_END, PAD, warn_of_foreign

out_dir = ''  # folder of a run of train.py
data_dir = 'data'  # folder of the corpora; where it lacks them, that of the run
language = ''  # of the prompt; empty: the first one of the run
prompt = ''  # the text to continue
num_samples = 3  # continuations
max_new_tokens = 500  # tokens of each
temperature = 0.8  # of the softmax; 0: greedy, always the most likely token
top_k = 200  # sample from so many of the most likely tokens; 0: from all
seed = 0  # of the sampling
device = 'auto'  # auto, cpu, cuda, cuda:1, mps


@torch.no_grad()
def generate(model, idx, rows):
    """Appends max_new_tokens samples from the embedding rows `rows` to idx (B, T) int64, on the
    CPU. The model sees the last block_size tokens."""
    kept = min((top_k or len(rows)) if temperature else 1, len(rows))
    for _ in trange(max_new_tokens, desc='sampling', unit=' tokens', leave=False):
        window = idx[:, -model.config.block_size :].to(model.head.weight.device)
        logits, rank = model(window, last_n=1)[:, 0].float().cpu()[:, rows].topk(kept)
        new = torch.multinomial((logits / (temperature or 1)).softmax(1), 1)
        idx = torch.cat([idx, rows[rank.gather(1, new)]], 1)
    return idx


def spoken(idx, languages, current):
    """Yields (language, token id), both int, of a list of embedding rows. A row that languages
    share counts as the current language."""
    tokens_of = [{row: t for t, row in enumerate(lang.table.tolist())} for lang in languages]
    for row in idx:
        if row not in tokens_of[current]:
            current = next(i for i, tokens in enumerate(tokens_of) if row in tokens)
        yield current, tokens_of[current][row]


def marked(pairs, names, tokenizers, first):
    """Text of what `spoken` yields; other languages than `first` stand in brackets."""
    text = ''
    for (number, ends), group in groupby(pairs, lambda pair: (pair[0], pair[1] == DOCUMENT_END)):
        tokens, tokenizer = [token for _, token in group], tokenizers[number]
        part = '\n\n' if ends else tokenizer.decode(tokens)  # without a space in front
        spaced = text[-2:] not in ('', '\n\n') and tokenizer.spelling(tokens[0])[0] == '\u2581'
        text += ' ' * spaced + (part if ends or number == first else f'[{names[number]}: {part}]')
    return text.removeprefix('\n\n')


def main():
    require(out_dir, 'say which run continues the text: --out_dir=out/RUN')
    for name, least in dict(num_samples=1, max_new_tokens=1, temperature=0, top_k=0).items():
        require(globals()[name] >= least, f'{name} must be at least {least}')
    model, languages, _ = load_run(out_dir, data_dir)
    names, T = [lang.name for lang in languages], model.config.block_size
    require(language in ('', *names), f'language={language!r} is none of {", ".join(names)}')
    first = names.index(language or names[0])
    order = languages[first].order
    require(not order, f'{names[first]} is written in the order {order!r}: no prompt continues it')
    tokenizers = [lang.corpus.load_tokenizer() for lang in languages]
    tokens = tokenizers[first].encode(prompt.strip())
    warn_of_foreign('the prompt', tokenizers[first].count_foreign(tokens), len(tokens))
    tokens = tokens or [DOCUMENT_END]
    require(len(tokens) <= T, f'the prompt has {len(tokens):,} tokens, the model reads {T:,}')
    idx = torch.from_numpy(languages[first].table[tokens]).long().repeat(num_samples, 1)
    rows = torch.from_numpy(np.setdiff1d(np.concatenate([x.table for x in languages]), PAD))
    torch.manual_seed(seed)
    with memory_advice('lower num_samples'):
        samples = generate(model.to(pick_device(device)), idx, rows).tolist()
    spoke = [list(spoken(sample, languages, first)) for sample in samples]
    for pairs in spoke:
        print(marked(pairs, names, tokenizers, first), '-' * 20, sep='\n')
    new = [names[number] for pairs in spoke for number, _ in pairs[len(tokens) :]]
    shares = (f'{name} {new.count(name) / len(new):.1%}' for name in names)
    print(f'languages of the {len(new):,} new tokens: {", ".join(shares)}')


if __name__ == '__main__':
    run(globals(), main)
