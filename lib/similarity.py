"""Similarity of two languages inside a model: hidden states, gradients and embeddings.

Pure functions of Sections 4.2 and 5.2 and Appendices C, F and G; analyze.py makes studies of them.
L blocks, T positions, C width, V embedding rows; a sequence is rows (T,), 0 at its end is padding.
"""

from lib.configurator import require

import networkx
import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment

from lib.estimate import Estimate

# --- hidden states --------------------------------------------------------------------------------


def batch_of(model, tokens):
    """(1, T) int64 rows of a sequence without its padding, on the model's device. Raises
    ConfigError for an empty one."""
    tokens = np.trim_zeros(np.asarray(tokens, np.int64), 'b')
    require(len(tokens), 'a sequence is empty or all padding: there is no token to compare')
    return torch.from_numpy(tokens)[None].to(model.head.weight.device)


@torch.no_grad()
def hidden_states(model, tokens):
    """The residual stream of one sequence after each block: (L, T, C) float32."""
    return model.hidden_states(batch_of(model, tokens))[:, 0].float()


def token_cosines(*states):
    """Cosine of each state of one (L, T1, C) with each of the other (L, T2, C): (L, T1, T2)."""
    sides = zip(*(F.normalize(side, dim=-1) for side in states))
    return torch.stack([x @ y.T for x, y in sides]).cpu().numpy()


def match_tokens(cosines, threshold=0):
    """Row and column indices of the matched tokens of a matrix of cosines (T1, T2) (Appendix G).

    A maximum-weight matching. Without a threshold it is full: every token of the shorter side has
    one of the longer side. With one it is of the pairs above it, so tokens may stay unmatched."""
    cosines = np.asarray(cosines, float)
    if not threshold:
        return np.stack(linear_sum_assignment(cosines, maximize=True))
    graph = networkx.Graph()
    for i, j in np.argwhere(cosines > threshold).tolist():
        graph.add_edge((0, i), (1, j), weight=cosines[i, j])
    ends = map(dict, networkx.max_weight_matching(graph))  # {0: row, 1: column}
    return np.array(sorted((pair[0], pair[1]) for pair in ends), int).reshape(-1, 2).T


def compare_states(model, tokens_1, tokens_2, positions=None, threshold=0):
    """Measures of the hidden states of a pair of sequences, {measure: (L,) or (L, 3)} (Tables 2 and
    4). positions: for clones, where each token of the text stands in both sequences, (2, T).

    same position  mean cosine of the tokens at the same position of the text (clones only)
    matched        of those that the full matching by the mean cosine over all blocks joins
    all pairs      of all pairs of tokens: the control for anisotropy
    retrieval      share of tokens whose nearest in the other sequence is the one at their position,
                   else their match, which these cosines have chosen; both directions averaged
    linear CKA     what it is made of, see `hsic_terms`, over the pairs of `retrieval`
    share of tokens matched  above the threshold (if one is given)"""
    states = [hidden_states(model, tokens) for tokens in (tokens_1, tokens_2)]
    cosines = token_cosines(*states)
    lengths = cosines.shape[1:]
    rows, columns = match_tokens(cosines.mean(0))
    measures = {'matched': cosines[:, rows, columns].mean(1), 'all pairs': cosines.mean((1, 2))}
    if positions is not None:
        rows, columns = positions
        same = lengths[0] == lengths[1] == len(rows)
        require(same, f'clones need sequences of one length, not {lengths[0]} and {lengths[1]}')
        measures['same position'] = cosines[:, rows, columns].mean(1)
    measures['retrieval'] = [retrieval(block, rows, columns) for block in cosines]
    measures['linear CKA'] = [hsic_terms(x[rows], y[columns]) for x, y in zip(*states)]
    if threshold:
        matches = [match_tokens(block, threshold).shape[1] for block in cosines]
        measures['share of tokens matched'] = 2 * np.array(matches) / sum(lengths)
    return measures


def retrieval(cosines, rows, columns):
    """Share of pairs (rows[i], columns[i]) with the largest cosine of their row, and of their
    column, averaged."""
    in_rows, in_columns = cosines.argmax(1)[rows] == columns, cosines.argmax(0)[columns] == rows
    return (in_rows.mean() + in_columns.mean()) / 2


def hsic_terms(x, y):
    """Unbiased estimates of HSIC(x, y), HSIC(x, x) and HSIC(y, y) for linear kernels; x (T, C),
    y (T, D), T > 3; to be averaged before `cka`, whose usual estimate is far too high for fewer
    tokens than dimensions (Song et al. 2012, Nguyen et al. 2021)."""

    def kernel(states):
        states = states.cpu().double()  # not every device has doubles
        states = states - states.mean(0)  # the same in theory, and numerically kinder
        return (states @ states.T).fill_diagonal_(0)

    def hsic(k, m):
        n, k_sums, m_sums = len(k), k.sum(0), m.sum(0)
        total = (k * m).sum() + k_sums.sum() * m_sums.sum() / ((n - 1) * (n - 2))
        return (total - 2 * (k_sums @ m_sums) / (n - 2)).item() / (n * (n - 3))

    k, m = kernel(x), kernel(y)
    return [hsic(k, m), hsic(k, k), hsic(m, m)]


def cka(terms):
    """Linear CKA of mean `hsic_terms` (..., 3): 1 for rotations, about 0 for unrelated states."""
    return terms[..., 0] / np.sqrt(np.maximum(terms[..., 1] * terms[..., 2], 1e-300))


# --- gradients ------------------------------------------------------------------------------------


def loss_gradients(model, tokens):
    """{parameter: gradient} of the mean next-token loss of one sequence."""
    idx = batch_of(model, tokens)
    require(idx.shape[1] > 1, 'a sequence of one token has no next token, so no gradient')
    names, parameters = zip(*model.named_parameters())
    return dict(zip(names, torch.autograd.grad(model(idx[:, :-1], idx[:, 1:]), parameters)))


def gradient_similarity(model, tokens_1, tokens_2):
    """Cosine of the gradients of two sequences' losses, {parameter: float} (Appendix F). 0 for one
    that is 0 but for rounding, as of the key bias: the softmax cancels a shift of all scores."""
    first, second = loss_gradients(model, tokens_1), loss_gradients(model, tokens_2)
    rounding = 1e-6 * max(gradient.norm() for gradient in first.values())
    cosines = dict.fromkeys(first, 0.0)
    for name in first:
        x, y = first[name].flatten(), second[name].flatten()
        if min(x.norm(), y.norm()) > rounding:
            cosines[name] = F.cosine_similarity(x, y, 0, 1e-15).item()
    return cosines


# --- embeddings -----------------------------------------------------------------------------------


def compare_vectors(first, second, times, rows=None, seed=0):
    """Cosines of corresponding vectors (n, C) and (n, C), n > 1, and of controls (Appendix C):
    {measure: Estimate}. times: how often each row was read in training, (V,); rows: those of the
    vectors, (2, n); without it n is V. Runs of equally many rows resample the same ones.

    corresponding      corresponding vectors
    frequency-matched  pairs that do not correspond, but were read about as often
    random, all pairs  random pairs that do not correspond; all n * n pairs
    cosine, CSLS       share of vectors whose nearest in the other set is the corresponding one, by
                       cosine and by CSLS, see `nearest_vectors`; chance: by chance"""
    first, second = (F.normalize(side, dim=-1) for side in tensors_of(first, second))
    rng, n = np.random.default_rng(seed), len(first)
    pieces, of_second = (np.arange(n), np.arange(n)) if rows is None else rows
    matched, order = frequency_matched(times[of_second], rng), rng.permutation(n)
    by_cosine, by_csls = (nearest == torch.arange(n) for nearest in nearest_vectors(first, second))
    values = {
        'corresponding': (first * second).sum(-1),
        'frequency-matched': (first * second[matched]).sum(-1),
        # the next in a circle is never a vector's own partner
        'random': (first[order] * second[np.roll(order, 1)]).sum(-1),
        'all pairs': first @ second.mean(0),
        'cosine': by_cosine,
        'CSLS': by_csls,
        'second': second @ first.mean(0),
    }
    stacked = torch.stack(list(values.values()), 1)
    measures = dict(zip(values, Estimate.of(stacked, pieces, among=len(times))))
    # The mean over all pairs is the product of the two mean vectors; its spread is the sum of what
    # the vectors of each side add to it.
    x, y = measures['all pairs'], measures.pop('second')
    measures['all pairs'] = Estimate(x.value, x.resamples + y.resamples - x.value)
    return measures | dict(chance=Estimate.exact(1 / n))


def tensors_of(*sides):
    return [torch.as_tensor(side).detach().float().cpu() for side in sides]


def frequency_matched(times, rng, most=5):
    """For each of n > 1 pieces another one at most so many ranks away by times read (n,): (n,)."""
    n, order = len(times), np.argsort(times, kind='stable')
    apart = rng.integers(1, max(1, min(most, (n - 1) // 2)) + 1, n) * rng.choice([-1, 1], n)
    ranks = np.arange(n) + apart
    ranks = np.where((ranks < 0) | (ranks >= n), np.arange(n) - apart, ranks)
    return order[ranks][np.argsort(order)]


def nearest_vectors(first, second, neighbours=10):
    """For each of `first` (n, C) the nearest of `second` (m, C), unit vectors, by cosine and by
    CSLS: two of (n,) indices. CSLS subtracts an answer's mean cosine to its nearest in the other
    set, so that hubs do not answer every query (Conneau et al. 2018)."""
    count, parts = min(neighbours, len(first)), second.split(1024)
    density = torch.cat([(part @ first.T).topk(count)[0].mean(1) for part in parts])
    cosines = (part @ second.T for part in first.split(1024))
    nearest = [(part.argmax(1), (2 * part - density).argmax(1)) for part in cosines]
    return [torch.cat(parts) for parts in zip(*nearest)]


def transformed(first, second, seed=0):
    """Corresponding vectors (n, C), n > 3, before and after maps that keep their geometry:
    {name of the map: two of (n, C)}.

    centred  the mean of each set is subtracted: a direction of its own for each language
    rotated  and one side is rotated to the other by an orthogonal Procrustes map, fitted on one
             half of the pieces and applied to the other half, in both directions

    A half with fewer pieces than dimensions underdetermines the map, and the similarity is too low.
    Compare with frequency-matched pairs: a rotation aligns frequency, too."""
    sides = tensors_of(first, second)
    centred = [vectors - vectors.mean(0) for vectors in sides]
    rotated = [torch.empty_like(vectors) for vectors in sides]
    halves = np.array_split(np.random.default_rng(seed).permutation(len(first)), 2)
    for fitted, tested in (halves, halves[::-1]):
        x, y = (F.normalize(side - side[fitted].mean(0), dim=-1) for side in sides)
        rotation, _ = orthogonal_procrustes(x[fitted].double().numpy(), y[fitted].double().numpy())
        rotated[0][tested] = x[tested] @ torch.from_numpy(rotation).float()
        rotated[1][tested] = y[tested]
    return {'as trained': sides, 'centred': centred, 'rotated': rotated}


def word_vectors(sentences, rows, dim, seed=0):
    """{kind: vectors (rows, dim)} of Gensim's Word2Vec on sentences, which it reads twice.

    As in the paper: continuous bag of words, 5 on each side, 20 noise words, one epoch. Rows that
    occur less than five times get zeros. With several threads the result depends on their race."""
    from gensim.models import Word2Vec

    how = dict(vector_size=dim, window=5, negative=20, epochs=1, seed=seed + 1, workers=1)
    model, vectors = Word2Vec(sentences, **how), {}
    for kind, found in dict(input=model.wv.vectors, output=model.syn1neg).items():
        vectors[kind] = torch.zeros(rows, dim)
        vectors[kind][[int(word) for word in model.wv.index_to_key]] = torch.from_numpy(found)
    return vectors
