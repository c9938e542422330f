"""Word vectors on the mix of languages that a run trains on (Appendix C, Figure 6 right; a question of Appendix A).

gensim       Gensim's Word2Vec as in the paper, whose vectors share no parameter between the languages
none         the same objective here, continuous bag of words with negative sampling; nothing is shared either
linear, mlp  with a layer between context and output vectors that all languages share
"""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from configurator import ConfigError

VERSIONS = ('gensim', 'none', 'linear', 'mlp')
WINDOW, NEGATIVES = 5, 20  # words on each side, noise words for each true one
TOKENS = 1024  # of one update of the torch models
VECTOR_RATE, LAYER_RATE = 2e-2, 2e-3  # learning rates of their vectors and of the shared layer; both fall to 0


def word_vectors(version, mix, steps, counts, dim, seed, device, progress):
    """Trains one version on the first `steps` steps of a mix. counts: (entries,) how often each id occurs there.

    Returns (dict(input, output) of (entries, dim) tensors, loss in nats a token or None). Raises ConfigError."""
    sentences = Sentences(mix, steps)
    if version == 'gensim':
        return gensim_word2vec(sentences, len(counts), dim, seed, progress), None
    return torch_word2vec(sentences, counts, dim, version, seed, device, progress)


class Sentences:
    """The sequences that a mix serves in its first `steps` steps, as often as they are asked for: (T,) ids each."""

    def __init__(self, mix, steps):
        self.mix, self.steps = mix, steps

    def __iter__(self):
        for step in range(self.steps):
            yield from self.mix.batch(step)[0]


def require_gensim():
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise ConfigError('Word2Vec needs the package gensim: pip install gensim; without it '
                          '--word2vec=[none,linear,mlp] trains the same objective') from None
    return Word2Vec


def gensim_word2vec(sentences, entries, dim, seed, progress):
    """Gensim's Word2Vec with its defaults (CBOW, ids seen less than five times left out: zeros here) for one epoch.

    One thread: the result of more depends on their race."""
    Word2Vec = require_gensim()
    passes = []

    class Words:
        def __iter__(self):
            passes.append(None)
            for ids in sentences:
                if len(passes) > 1:  # the first pass collects the vocabulary
                    progress.update(len(ids))
                yield ids.astype(str).tolist()

    model = Word2Vec(Words(), vector_size=dim, window=WINDOW, negative=NEGATIVES, epochs=1, seed=seed + 1, workers=1)
    known = torch.tensor([int(word) for word in model.wv.index_to_key])
    vectors = {}
    for kind, rows in dict(input=model.wv.vectors, output=model.syn1neg).items():
        vectors[kind] = torch.zeros(entries, dim)
        vectors[kind][known] = torch.from_numpy(rows)
    return vectors


class BagOfWords(nn.Module):
    """CBOW with negative sampling: the mean of the neighbours' input vectors, through a layer that all languages
    share, is scored against output vectors. layer: 'none', 'linear' or 'mlp'."""

    def __init__(self, entries, dim, layer):
        super().__init__()
        self.input = nn.Embedding(entries, dim, sparse=True)
        self.output = nn.Embedding(entries, dim, sparse=True)
        self.layer = {'none': nn.Identity, 'linear': lambda: nn.Linear(dim, dim, bias=False),
                      'mlp': lambda: nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))}[layer]()
        nn.init.normal_(self.input.weight, std=dim**-0.5)
        nn.init.zeros_(self.output.weight)

    def forward(self, tokens, noise, window):
        """Loss in nats a token. tokens: (B, T), noise: (B, NEGATIVES) ids for all tokens of a row."""
        position = torch.arange(tokens.shape[1], device=tokens.device)
        near = ((position - position[:, None]).abs() <= window).float().fill_diagonal_(0)  # (T, T)
        context = (near / near.sum(1, keepdim=True)) @ self.input(tokens)  # (B, T, dim)
        predicted = self.layer(context)
        true = (predicted * self.output(tokens)).sum(-1)
        false = predicted @ self.output(noise).transpose(1, 2)  # (B, T, NEGATIVES)
        return -(F.logsigmoid(true).mean() + F.logsigmoid(-false).sum(-1).mean())


def torch_word2vec(sentences, counts, dim, layer, seed=0, device='cpu', progress=None):
    """Trains BagOfWords for one epoch. sentences: iterable of (T,) arrays of ids; counts: (entries,) how often each id
    occurs in them, whose 3/4 power the noise follows. The window is drawn from 1 to WINDOW as in word2vec, but once an
    update, and frequent words are not thinned out.

    Returns (dict(input, output) of (entries, dim) tensors, mean loss of the last tenth in nats a token)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BagOfWords(len(counts), dim, layer).to(device)
    optimizers = {VECTOR_RATE: torch.optim.SparseAdam([model.input.weight, model.output.weight])}
    if layer != 'none':
        optimizers[LAYER_RATE] = torch.optim.Adam(model.layer.parameters())
    noise_weights, tokens, losses = torch.as_tensor(counts, dtype=torch.float64) ** 0.75, int(counts.sum()), []
    seen = 0
    for batch in batches(sentences):
        noise = torch.multinomial(noise_weights, len(batch) * NEGATIVES, replacement=True, generator=generator)
        window = int(torch.randint(1, WINDOW + 1, (), generator=generator))
        loss = model(batch.to(device), noise.view(len(batch), -1).to(device), window)
        loss.backward()
        for rate, optimizer in optimizers.items():
            optimizer.param_groups[0]['lr'] = rate * (1 - seen / tokens)
            optimizer.step()
            optimizer.zero_grad()
        seen += batch.numel()
        losses.append(loss.detach())
        if progress is not None:
            progress.update(batch.numel())
    last = torch.stack(losses[-max(1, len(losses) // 10):]).mean().item()
    return dict(input=model.input.weight.detach().cpu(), output=model.output.weight.detach().cpu()), last


def batches(sentences):
    """The sentences, all of the same length T, stacked to (B, T) tensors of about TOKENS ids."""
    rows = []
    for ids in sentences:
        rows.append(ids)
        if (len(rows) + 1) * len(ids) > TOKENS:
            yield torch.from_numpy(np.stack(rows))
            rows = []
    if rows:
        yield torch.from_numpy(np.stack(rows))
