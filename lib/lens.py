"""What a model predicts, and in which language: after each block, by position, after code switches.

Pure functions; analyze.py makes studies of them. The logit lens (nostalgebraist 2020; of
multilingual models Wendler et al. 2024) reads the residual stream after each block as if it were
the last one. Shapes: L blocks, T positions, V embedding rows; a sequence is embedding rows (T,).
"""

import itertools

from lib.configurator import require

import numpy as np
import torch

from lib.estimate import ALL
from lib.similarity import batch_of
from lib.tokenizer import PAD

# what a text is read after, in its own language or in the other one
CONTEXTS = 'nothing', 'own, the text before', 'other, the text before', 'other, the text itself'
CONTEXTS += 'other, unrelated', 'own, unrelated'


# --- the logit lens -------------------------------------------------------------------------------


def groups_of(first, second, vocab_size):
    """The rows of two languages, {group: (V,) bool}: those that only the first or the second has,
    both share, or neither has, as padding. Raises ConfigError for a language of such a name."""
    has = np.zeros((2, vocab_size), bool)
    has[0, first.table] = has[1, second.table] = True
    has[:, PAD] = False
    own = {first.name: has[0] & ~has[1], second.name: has[1] & ~has[0]}
    groups = dict(shared=has.all(0), others=~has.any(0))
    free = groups.keys().isdisjoint(own)
    require(free, f'no language can be called {" or ".join(groups)} in this study')
    return own | groups


def pieces_of(language):
    """What identifies each piece of a language: its spelling. Bytes and control pieces stand for no
    text of their own, so they correspond in clones only."""
    tokenizer, name = language.corpus.load_tokenizer(), language.corpus.name
    spelled = enumerate(tokenizer.spellings())
    return [(name, token) if tokenizer.is_fallback(token) else text for token, text in spelled]


def rows_alike(tables, spellings, vocab_size):
    """For each row those of all languages that are spelled like it, itself among them, then -1:
    (V, languages) int64. tables, spellings: rows and spellings of each language's pieces."""
    rows_of = {}  # spelling -> rows, each once
    for row, spelling in itertools.chain(*map(zip, tables, spellings)):
        if row != PAD:
            rows_of.setdefault(spelling, {})[row] = True
    alike = np.full((vocab_size, len(tables)), -1)
    for rows in map(list, rows_of.values()):
        alike[rows, : len(rows)] = rows
    return alike


@torch.no_grad()
def lens(model, tokens, groups, alike, chunk_logits):
    """What the final norm and head make of the residual stream after each block of one sequence.

    groups: as of `groups_of`; alike: as of `rows_alike`; chunk_logits: at most this many logits are
    materialised at once. Returns

    mass      probability of each group of rows, mean over the positions: {group: (L,)}
    loss      on the true next piece, nats: (L,)
    any_loss  on the piece in any language, by the sum of the probabilities of its rows: (L,)

    Probability spread evenly over two languages makes `loss` log 2 = 0.69 more than `any_loss`; a
    larger difference means that the model predicts the other language."""
    tokens, size, measures = batch_of(model, tokens), max(1, chunk_logits // len(alike)), []
    masks = torch.tensor(np.stack([*groups.values()], 1)).float().to(tokens.device)  # (V, groups)
    targets = tokens[0, 1:]
    members = torch.from_numpy(alike).to(tokens.device)[targets]
    for states in model.residual_stream(tokens[:, :-1]):
        parts = []
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            logs = model.head(model.ln_f(states[0, part])).float().log_softmax(-1)
            every = logs.gather(1, members[part].clamp(min=0))
            every = every.masked_fill(members[part] < 0, -torch.inf).logsumexp(1, keepdim=True)
            own = logs.gather(1, targets[part, None])
            parts.append(torch.cat([logs.exp() @ masks, -own, -every], 1))
        measures.append(torch.cat(parts).mean(0))
    *mass, loss, any_loss = torch.stack(measures, 1).cpu().numpy()
    return dict(zip(groups, mass)), loss, any_loss


# --- losses by position, and after a code switch --------------------------------------------------


@torch.no_grad()
def losses_after(model, contexts, text):
    """Losses of a text (T,) but for its first piece after each context, nats: (contexts, T - 1)."""
    idx = np.full((len(contexts), max(map(len, contexts)) + len(text)), PAD, np.int64)
    targets = np.full_like(idx, PAD)  # which do not count
    for row, target, context in zip(idx, targets, contexts):
        end = len(context) + len(text)
        row[:end] = np.concatenate([context, text])
        target[len(context) : end - 1] = text[1:]
    idx, targets = (torch.from_numpy(x).to(model.head.weight.device) for x in (idx, targets))
    _, losses = model(idx, targets, per_token=True)
    return losses[targets != PAD].view(len(contexts), -1).float().cpu().numpy()


def contexts_of(sequences, length, follow):
    """List of (before, text, unrelated, document): a text in two languages, what stands before it
    and what stands before another one. sequences: list of (side_1, side_2, document) of at most
    `length` tokens. If they `follow` each other each is a text, else the second half of each is."""
    half, parts = length // 2, list(zip(sequences, sequences[1:]))
    if not follow:
        parts = [((a[:half], b[:half], n), (a[half:], b[half:], n)) for a, b, n in sequences]
    parts = [([s[-half:] for s in a], [s[:half] for s in b], n) for (*a, _), (*b, n) in parts]
    others = parts[len(parts) // 2 :] + parts[: len(parts) // 2]
    return [(*part[:2], other[0], part[2]) for part, other in zip(parts, others)]


def bins_of(longest):
    """Bins of the pieces of a text that were read before a prediction: {name: slice of losses}."""
    starts = [2**power for power in range(longest.bit_length()) if 2**power < longest]
    bins = {}
    for start, end in zip(starts, starts[1:] + [longest]):
        bins[str(start) if end == start + 1 else f'{start}-{end - 1}'] = slice(start - 1, end - 1)
    return bins | {ALL: slice(0, longest - 1)}


def sums_by_bin(losses, bins):
    """Sums and numbers of the losses (contexts, T - 1) in each bin: (contexts, bins, 2)."""
    parts = [losses[:, part] for part in bins.values()]
    return np.stack([[(row.sum(), len(row)) for row in part] for part in parts], 1)


def mean_loss(sums):
    """Mean loss of mean sums and numbers (..., 2), nan where there are none."""
    return sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], np.nan)
