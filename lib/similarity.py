"""How alike a model treats two languages: its hidden states, gradients and vectors.

Pure functions of Sections 4.2 and 5.2 and Appendices C, F and G; analyze.py makes tables and
pictures of them. Shapes in comments: L blocks, T positions, C width, n pairs. A sequence is given
as ids of the model's vocabulary, 1-D, and may be padded with 0 at its end.
"""

from dataclasses import dataclass

from lib.configurator import ConfigError

import networkx
import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment

# --- means and their intervals --------------------------------------------------------------------

RESAMPLES = 1000


@dataclass
class Estimate:
    """A mean, or what is computed of means, (...), and its bootstrap, (RESAMPLES, ...)."""

    value: np.ndarray
    draws: np.ndarray

    @classmethod
    def of(cls, values, documents=None, statistic=lambda means: means):
        """The statistic of the mean of `values` (n, ...) over its first axis.

        documents: (n,) numbers; what comes from one document is drawn together. None: each value
        is drawn by itself. Two Estimates of as many documents draw the same ones, so that the
        difference of two runs on the same text is that of paired samples. One document says
        nothing about the next: its draws are nan."""
        values = np.asarray(values, dtype=np.float64)
        value = np.asarray(statistic(values.mean(0)))
        names = np.arange(len(values)) if documents is None else documents
        _, document, sizes = np.unique(names, return_inverse=True, return_counts=True)
        n, rng = len(sizes), np.random.default_rng(0)
        if n == 1:
            return cls(value, np.full((RESAMPLES, *value.shape), np.nan))
        sums = np.zeros((n, values[0].size))
        np.add.at(sums, document, values.reshape(len(values), -1))
        times = (np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(RESAMPLES))
        means = np.stack([t @ sums / (t @ sizes) for t in times])
        draws = statistic(means.reshape(RESAMPLES, *values.shape[1:]))
        return cls(value, value + widening(n) * (draws - value))

    @classmethod
    def joined(cls, estimates):
        """One Estimate (n,) of n that are numbers; a None of them becomes nan."""
        missing = cls(np.array(np.nan), np.full(RESAMPLES, np.nan))
        estimates = [estimate or missing for estimate in estimates]
        values, draws = [e.value for e in estimates], [e.draws for e in estimates]
        return cls(np.stack(values), np.stack(draws, axis=1))

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        return Estimate(self.value[index], self.draws[(slice(None), *index)])

    def __sub__(self, other):
        return Estimate(self.value - other.value, self.draws - other.draws)

    def interval(self):
        """Ends of the 90% interval: (2, ...)."""
        return np.percentile(self.draws, [5, 95], axis=0)


def widening(n):
    """What makes the bootstrap of the mean of n things as wide as Student's 90% interval."""
    return stats.t.ppf(0.95, n - 1) / stats.norm.ppf(0.95) * (n / (n - 1)) ** 0.5


def over_seeds(results, group=0):
    """Results of a study of runs that differ in their seed alone, as those of one: a dict is gone
    through, an Estimate becomes that of the mean over the runs, the rest is that of the first run.

    The runs are drawn anew besides the documents; each `group`, a number, draws its own seeds."""
    first, n = results[0], len(results)
    if isinstance(first, dict):
        keys = [key for key in first if all(key in values for values in results)]
        return {key: over_seeds([values[key] for values in results], group) for key in keys}
    if not isinstance(first, Estimate) or n == 1:
        return first
    values = np.stack([estimate.value for estimate in results])
    drawn = np.random.default_rng((1, group)).integers(n, size=(RESAMPLES, n))
    spread = values[drawn].mean(1) - values.mean(0)
    draws = np.mean([estimate.draws for estimate in results], axis=0)
    return Estimate(values.mean(0), draws + widening(n) * spread)


def difference(first, second):
    """What can be subtracted of two runs' results: {name: Estimate or dict}, None for nothing."""
    if isinstance(first, dict) and isinstance(second, dict):
        parts = {key: difference(first[key], second[key]) for key in first if key in second}
        return {key: part for key, part in parts.items() if part is not None} or None
    both = isinstance(first, Estimate) and isinstance(second, Estimate)
    return second - first if both and first.value.shape == second.value.shape else None


def plain(value):
    """`value` as JSON has it; an Estimate as its mean and the ends of its 90% interval."""
    if isinstance(value, Estimate):
        value = dict(zip(('mean', 'low', 'high'), (value.value, *value.interval())))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return np.where(np.isfinite(value), value, None).tolist()
    return value


# --- hidden states --------------------------------------------------------------------------------


def batch_of(model, tokens):
    """(1, T) int64 ids of a sequence without its padding, where the model is. Raises ConfigError
    for an empty one."""
    tokens = np.trim_zeros(np.asarray(tokens, np.int64), 'b')
    if not len(tokens):
        raise ConfigError('a sequence is empty or all padding: there is no token to compare')
    return torch.from_numpy(tokens)[None].to(model.head.weight.device)


@torch.no_grad()
def residual_states(model, tokens):
    """The residual stream of one sequence after each block: (L, T, C) float32."""
    return model.hidden_states(batch_of(model, tokens))[:, 0].float()


def cosines_of(states_1, states_2):
    """Cosine of each state of one (L, T1, C) with each of the other (L, T2, C): (L, T1, T2)."""
    sides = zip(F.normalize(states_1, dim=-1), F.normalize(states_2, dim=-1))
    return torch.stack([x @ y.T for x, y in sides]).cpu().numpy()


def token_cosines(model, tokens_1, tokens_2):
    """Cosines of all pairs of tokens' hidden states after each block: (L, T1, T2)."""
    return cosines_of(residual_states(model, tokens_1), residual_states(model, tokens_2))


def match_tokens(cosines, threshold=0):
    """Row and column indices of the matched tokens of a matrix of cosines (T1, T2) (Appendix G).

    A maximum-weight full matching: every token of the shorter side gets one of the longer side,
    and no token has two. With a threshold a pair must have a cosine above it, so tokens may stay
    alone: the matching is the one of the largest weight among the pairs that are left."""
    cosines = np.asarray(cosines, dtype=np.float64)
    if not threshold:
        return linear_sum_assignment(cosines, maximize=True)
    graph = networkx.Graph()
    for i, j in np.argwhere(cosines > threshold):
        graph.add_edge(('row', int(i)), ('column', int(j)), weight=cosines[i, j])
    matches = [dict(ends) for ends in networkx.max_weight_matching(graph)]
    pairs = sorted((match['row'], match['column']) for match in matches)
    return np.array(pairs, dtype=int).reshape(-1, 2).T


def compare_states(model, tokens_1, tokens_2, clones, threshold=0, places=None):
    """All that is measured on the hidden states of one pair of sequences, {measure: (L,) or (L, 3)}
    (Tables 2 and 4). places: where each token of the text stands in the sequences of two clones,
    (2, T), if they read it in orders that differ. Raises ConfigError for clones of unequal length.

    positions  mean cosine of the tokens at the same position (clones only)
    matched    the same of those that the full matching on the mean cosine over all blocks joins
    any        the same of all pairs: the control for anisotropy
    retrieval  share of tokens whose nearest in the other sequence is the one at their position
               (clones) or their match, both directions averaged; by chance 1 / T for clones, but
               more for matches, which these same cosines have chosen: compare it between runs
    share      share of the tokens matched above the threshold (if one is given)
    hsic       what linear CKA is made of, see `hsic_terms`, over the pairs of `retrieval`"""
    states = [residual_states(model, tokens) for tokens in (tokens_1, tokens_2)]
    cosines = cosines_of(*states)
    rows, columns = match_tokens(cosines.mean(0))
    measures = dict(matched=cosines[:, rows, columns].mean(1), any=cosines.mean((1, 2)))
    if clones:
        _, length, other = cosines.shape
        if length != other:
            raise ConfigError(
                f'clones need sequences of one length, not {length} and {other} tokens'
            )
        rows, columns = places or [np.arange(length)] * 2
        measures['positions'] = cosines[:, rows, columns].mean(1)
    measures['retrieval'] = np.array([retrieval(c, rows, columns) for c in cosines])
    if threshold:
        matches = np.array([len(match_tokens(c, threshold)[0]) for c in cosines])
        measures['share'] = 2 * matches / sum(cosines.shape[1:])
    measures['hsic'] = np.array([hsic_terms(x[rows], y[columns]) for x, y in zip(*states)])
    return measures


def retrieval(cosines, rows, columns):
    """Share of the pairs (rows[i], columns[i]) that are each other's largest entry of the matrix,
    row and column counted one half each."""
    in_rows, in_columns = cosines.argmax(1)[rows] == columns, cosines.argmax(0)[columns] == rows
    return (in_rows.mean() + in_columns.mean()) / 2


def hsic_terms(x, y):
    """Unbiased estimates of HSIC(x, y), HSIC(x, x) and HSIC(y, y) for linear kernels; x (T, C),
    y (T, D), T > 3.

    Linear CKA is the first over the root of the product of the others. The usual estimate of it is
    far too high for fewer tokens than dimensions; these terms may be averaged over sequences first
    (Song et al. 2012, Nguyen et al. 2021)."""

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
    """Linear CKA of mean HSIC terms (..., 3): 1 for rotations, about 0 for unrelated states."""
    return terms[..., 0] / np.sqrt(np.maximum(terms[..., 1] * terms[..., 2], 1e-300))


# --- gradients ------------------------------------------------------------------------------------


def loss_gradients(model, tokens):
    """{parameter: gradient} of the mean next-token loss of one sequence."""
    idx = batch_of(model, tokens)
    if idx.shape[1] < 2:
        raise ConfigError('a sequence of one token has no next token to predict, so no gradient')
    with torch.enable_grad():
        loss = model(idx[:, :-1], idx[:, 1:])
    names, parameters = zip(*model.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters)))


def gradient_similarity(model, tokens_1, tokens_2):
    """Cosine of the gradients of two sequences' losses, {parameter: float} (Appendix F).

    The key bias gets 0: it adds the same to all scores of a query, which the softmax does not see,
    so its gradient is 0 and what a computer finds there is rounding."""
    first, second = loss_gradients(model, tokens_1), loss_gradients(model, tokens_2)
    cosines = dict.fromkeys(first, 0.0)
    for name in cosines:
        if not name.endswith('attn.k.bias'):
            x, y = first[name], second[name]
            norms = (x.norm() * y.norm()).clamp(min=1e-30)
            cosines[name] = (x.flatten() @ y.flatten() / norms).item()
    return cosines


# --- vectors --------------------------------------------------------------------------------------


def compare_vectors(first, second, paired=True, seed=0, times=None):
    """Cosines of two sets of vectors (n, C) and (m, C), {measure: Estimate}; if `paired`, row i of
    one corresponds to row i of the other (Appendix C).

    pairs      of corresponding vectors
    frequency  of vectors that do not correspond, but whose pieces were read about as often; times:
               how often those of `second` were, (m,), or None
    random     of random pairs that do not correspond
    any        of all pairs, n * m of them
    retrieval  share of vectors whose nearest in the other set is the corresponding one
    csls       the same by CSLS, see `nearest_vectors`
    chance     what both are by chance

    With a single vector on a side there are no others: only `pairs` remains."""
    first, second = (F.normalize(torch.as_tensor(x).float(), dim=-1) for x in (first, second))
    measures, rng, size = {}, np.random.default_rng(seed), min(len(first), len(second))

    def mean_cosine(rows, columns):
        return Estimate.of((first[rows] * second[columns]).sum(-1).numpy())

    everything = slice(None)
    if paired:
        measures['pairs'] = mean_cosine(everything, everything)
    if size == 1:
        return measures
    if paired and times is not None:
        measures['frequency'] = mean_cosine(everything, alike_in_rank(times, rng))
    rows, columns = (rng.permutation(len(vectors))[:size] for vectors in (first, second))
    if paired:
        columns = np.roll(rows, 1)  # the next in a circle is never a vector's own partner
    measures['random'] = mean_cosine(rows, columns)
    # The mean over all pairs is the product of the two mean vectors; its spread is the sum of
    # what the vectors of each side add to it.
    by_first = Estimate.of((first @ second.mean(0)).numpy())
    by_second = Estimate.of((second @ first.mean(0)).numpy())
    draws = by_first.draws + by_second.draws - by_first.value
    measures['any'] = Estimate(by_first.value, draws)
    if paired:
        for name, nearest in zip(('retrieval', 'csls'), nearest_vectors(first, second)):
            measures[name] = Estimate.of((nearest == torch.arange(size)).numpy())
        measures['chance'] = Estimate(np.array(1 / size), np.full(RESAMPLES, 1 / size))
    return measures


def alike_in_rank(times, rng, most=5):
    """For each piece another one that is at most so many ranks away by `times` (n,), how often
    each was read: (n,) indices, n > 1."""
    n, order = len(times), np.argsort(times, kind='stable')
    apart = rng.integers(1, max(1, min(most, (n - 1) // 2)) + 1, n) * rng.choice([-1, 1], n)
    ranks = np.arange(n) + apart
    ranks = np.where((ranks < 0) | (ranks >= n), np.arange(n) - apart, ranks)
    return order[ranks][np.argsort(order)]


def nearest_vectors(first, second, neighbours=10):
    """For each of `first` (n, C) the nearest of `second` (m, C), unit vectors, by cosine and by
    CSLS: two of (n,) indices.

    CSLS subtracts from a cosine the mean cosine of each of the two vectors to its ten nearest in
    the other set, so that a vector that is near to all of them is not the answer to every question
    (Conneau et al. 2018). That of the vector that asks is the same for all answers."""
    count, parts = min(neighbours, len(first)), second.split(1024)
    density = torch.cat([(part @ first.T).topk(count)[0].mean(1) for part in parts])
    cosines = (part @ second.T for part in first.split(1024))
    nearest = [(part.argmax(1), (2 * part - density).argmax(1)) for part in cosines]
    return [torch.cat(parts) for parts in zip(*nearest)]


def compare_geometry(first, second, seed=0, times=None):
    """Whether two sets of corresponding vectors (n, C) have the same geometry, {step: what
    compare_vectors says after it}:

    centred  the mean of each set is subtracted: a direction of its own for each language
    turned   and one is turned to the other by an orthogonal Procrustes map, fitted on the pairs of
             one half of the pieces and applied to the other half, in both directions

    If the pieces of a half are fewer than the dimensions, the map is not determined, and what it
    finds is too little. Compare with pieces of the same frequency, whose part of the geometry can
    be turned, too."""
    sides = [torch.as_tensor(x).float() for x in (first, second)]
    centred = [vectors - vectors.mean(0) for vectors in sides]
    turned = [torch.empty_like(vectors) for vectors in sides]
    halves = np.array_split(np.random.default_rng(seed).permutation(len(first)), 2)
    for fitted, tested in (halves, halves[::-1]):
        x, y = (F.normalize(side - side[fitted].mean(0), dim=-1) for side in sides)
        turn, _ = orthogonal_procrustes(x[fitted].double().numpy(), y[fitted].double().numpy())
        turned[0][tested], turned[1][tested] = x[tested] @ torch.from_numpy(turn).float(), y[tested]
    results = {}
    for name, sides in dict(centred=centred, turned=turned).items():
        results[name] = compare_vectors(*sides, seed=seed, times=times)
        del results[name]['any'], results[name]['chance']
    return results


# --- tables ---------------------------------------------------------------------------------------

# what the measures are called: of hidden states and gradients, and of vectors
TITLES = dict(
    input='cosine of input vectors',
    output='cosine of output vectors',
    input_geometry='geometry of input vectors: cosine and retrieval',
    output_geometry='geometry of output vectors: cosine and retrieval',
    positions='cosine, same position',
    matched='cosine, matched tokens',
    any='cosine, all pairs of tokens',
    retrieval='retrieval',
    share='share of tokens matched',
    cka='linear CKA',
    gradients='cosine of gradients (0 for the key bias, which has none)',
    tensors='cosine of gradients, macro average of the blocks and other tensors',
    mass='probability mass on entries by block, input: entries',
    lens='loss on the next piece by block, nats; "any language": the entries of all languages that '
    'are spelled alike (a piece and its clones) or shared are added up',
    switch='loss on a text by pieces of it that were read, nats, text: context',
    told='what a context tells of the text: loss after unrelated text in its language less loss '
    'after it, nats, text: context',
)
NAMES = dict(
    pairs='corresponding',
    frequency='same frequency',
    any='all pairs',
    csls='CSLS',
    centred='without the means',
    turned='turned as well',
)


def tables(labels, results):
    """The results of a study of some runs as text, each measure a table: generator.

    An Estimate (L,) is the row of a run, the blocks its columns; so is a dict of single Estimates,
    a column each. A dict of such rows makes a table for each run. Two runs get their difference."""
    for key, title in TITLES.items():
        parts = {label: values[key] for label, values in zip(labels, results) if values.get(key)}
        if len(parts) == 2:
            parts['difference'] = difference(*parts.values())
        parts = {label: part for label, part in parts.items() if part is not None}
        for label, part in list(parts.items()):
            cells = part.values() if isinstance(part, dict) else []
            if any(isinstance(cell, dict) or cell.value.ndim for cell in cells):
                yield table_text(f'{label}: {title}', parts.pop(label))
        if parts:
            yield table_text(title, parts)
    for label, values in zip(labels, results):
        if values.get('pieces'):
            counts = (f'{name}: {count:,}' for name, count in values['pieces'].items())
            yield f'{label}: pieces in each row, {"; ".join(counts)}\n'


def table_text(title, rows, columns=None):
    """A table of {label: Estimate (n,) or {name: Estimate}}, half of the 90% interval under each
    value. columns: what n stands for; None: the blocks."""
    names = dict.fromkeys(name for row in rows.values() if isinstance(row, dict) for name in row)
    if names:
        columns = [NAMES.get(name, name) for name in names]
        rows = {label: Estimate.joined(map(row.get, names)) for label, row in rows.items()}
    blocks = max(len(row.value) for row in rows.values())
    columns = columns or [str(block + 1) for block in range(blocks)]
    rows = {NAMES.get(label, label): row for label, row in rows.items()}
    first, width = max(12, *map(len, rows)), max(8, *(len(column) + 2 for column in columns))
    lines = [title, ' ' * first + ''.join(column.rjust(width) for column in columns)]
    for label, estimate in rows.items():
        low, high = estimate.interval()
        for name, sign, values in ((label, '', estimate.value), ('', '±', (high - low) / 2)):
            cells = ('-' if np.isnan(value) else f'{sign}{value:.3f}' for value in values)
            lines.append(name.ljust(first) + ''.join(cell.rjust(width) for cell in cells))
    return '\n'.join(lines) + '\n'
