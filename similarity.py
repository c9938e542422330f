"""How alike a model treats two languages: hidden states, gradients, vectors.

Pure functions of Sections 4.2 and 5.2 and Appendices C, F and G; analyze.py makes tables and pictures of them. Shapes in
comments: L blocks, T positions, C width, n pairs. A sequence is given as ids of the model's vocabulary, 1-D, and may be
padded with 0 at its end.
"""

from dataclasses import dataclass
import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from configurator import ConfigError


RESAMPLES = 1000


@dataclass
class Estimate:
    """A mean (or what is computed of means) with its bootstrap: value (...), draws (RESAMPLES, ...)."""
    value: np.ndarray
    draws: np.ndarray

    @classmethod
    def of(cls, values, statistic=lambda means: means):
        """statistic of the mean over the first axis of `values` (n, ...). The things that are drawn are the same for
        the same n, so that the difference of two runs on the same pairs is that of paired samples."""
        values = np.asarray(values, dtype=np.float64)
        n, rng = len(values), np.random.default_rng(0)
        if n == 1:  # one thing says nothing about the next one
            value = np.asarray(statistic(values[0]))
            return cls(value, np.full((RESAMPLES, *value.shape), np.nan))
        flat = values.reshape(n, -1)
        means = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) @ flat / n for _ in range(RESAMPLES)])
        return cls(statistic(values.mean(0)), statistic(means.reshape(RESAMPLES, *values.shape[1:])))

    def interval(self):
        """Ends of the 90% interval: (2, ...)."""
        return np.percentile(self.draws, [5, 95], axis=0)

    def __sub__(self, other):
        return Estimate(self.value - other.value, self.draws - other.draws)


def rows_text(title, columns, rows):
    """A table of {label: Estimate (columns,)}, half the width of the 90% interval under each value."""
    first, width = max([len(label) for label in rows] + [12]), max([len(column) + 2 for column in columns] + [8])
    lines = [f'{title} (±: half of the 90% interval)', ' ' * first + ''.join(column.rjust(width) for column in columns)]
    for label, estimate in rows.items():
        low, high = estimate.interval()
        for name, sign, values in ((label, '', estimate.value), ('', '±', (high - low) / 2)):
            cells = ('-' if np.isnan(value) else f'{sign}{value:.3f}' for value in values)
            lines.append(name.ljust(first) + ''.join(cell.rjust(width) for cell in cells))
    return '\n'.join(lines) + '\n'


def with_difference(labels, estimates):
    """{label: Estimate}; of two that have the same shape also their difference."""
    rows = dict(zip(labels, estimates))
    if len(estimates) == 2 and estimates[0].value.shape == estimates[1].value.shape:
        rows['difference'] = estimates[1] - estimates[0]
    return rows


MISSING = Estimate(np.array(np.nan), np.full(RESAMPLES, np.nan))


def side_by_side(estimates):
    """One Estimate (n,) of n that are numbers; a None of them becomes nan."""
    estimates = [e or MISSING for e in estimates]
    return Estimate(np.stack([e.value for e in estimates]), np.stack([e.draws for e in estimates], 1))


def plain(value):
    """`value` as JSON has it; an Estimate as its mean and the ends of its 90% interval."""
    if isinstance(value, Estimate):
        low, high = value.interval()
        return dict(mean=plain(value.value), low=plain(low), high=plain(high))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def difference(one, other):
    """What can be subtracted of two runs' findings: {name: Estimate or dict}."""
    if isinstance(one, dict) and isinstance(other, dict):
        parts = {key: difference(one[key], other[key]) for key in one if key in other}
        return {key: part for key, part in parts.items() if part is not None} or None
    both = isinstance(one, Estimate) and isinstance(other, Estimate) and one.value.shape == other.value.shape
    return other - one if both else None


# --- hidden states ----------------------------------------------------------------------------------------------------

def without_padding(tokens):
    """(T,) int64 ids of a sequence, its padding dropped. Raises ConfigError when nothing is left."""
    tokens = np.asarray(tokens.cpu() if torch.is_tensor(tokens) else tokens).astype(np.int64)
    tokens = np.trim_zeros(tokens, 'b')
    if not len(tokens):
        raise ConfigError('a sequence is empty or nothing but padding: there is no token to compare')
    return tokens


def same_length(one, other):
    if len(one) != len(other):
        raise ConfigError(f'position by position, sequences of {len(one)} and {len(other)} tokens cannot be compared: '
                          'only those of clones can; match the tokens of real languages')


@torch.no_grad()
def residual_states(model, tokens):
    """Yields the residual stream of one sequence after each block: (T, C) float32."""
    idx = torch.from_numpy(tokens)[None].to(next(model.parameters()).device)
    for states in model.residual_stream(idx):
        yield states[0].float()


def cosines_of(states_1, states_2):
    """(T1, T2) cosine of each state of one (T1, C) with each of the other (T2, C)."""
    return F.normalize(states_1, dim=-1) @ F.normalize(states_2, dim=-1).T


def match_tokens(similarity):
    """Row and column indices of a maximum-weight full matching of a rectangular matrix (Appendix G).

    Every token of the shorter side gets one of the longer; no token has two."""
    similarity = similarity.cpu() if torch.is_tensor(similarity) else similarity
    return linear_sum_assignment(np.asarray(similarity, dtype=np.float64), maximize=True)


def hidden_similarity(model, tokens_1, tokens_2, match=False):
    """Mean cosine of corresponding tokens' hidden states after each block: (L,) (Tables 2 and 4).

    Corresponding are the tokens at the same position or, with `match`, those that a maximum-weight full matching on
    the mean cosine over all blocks makes a pair. Raises ConfigError for sequences that do not allow it."""
    if match:
        cosines = token_cosines(model, tokens_1, tokens_2)
        return cosines[:, *match_tokens(cosines.mean(0))].mean(1)
    tokens_1, tokens_2 = without_padding(tokens_1), without_padding(tokens_2)
    same_length(tokens_1, tokens_2)
    return np.array([F.cosine_similarity(x, y, dim=-1).mean().item()
                     for x, y in zip(residual_states(model, tokens_1), residual_states(model, tokens_2))])


def token_cosines(model, tokens_1, tokens_2):
    """Cosines of all pairs of tokens' hidden states after each block: (L, T1, T2); no states are kept for it."""
    tokens_1, tokens_2 = without_padding(tokens_1), without_padding(tokens_2)
    return torch.stack([cosines_of(x, y) for x, y in zip(residual_states(model, tokens_1),
                                                         residual_states(model, tokens_2))]).cpu().numpy()


def compare_states(model, tokens_1, tokens_2, clones):
    """All that is measured on the hidden states of one pair of sequences, {measure: (L,) or (L, 3)}.

      positions  mean cosine of the tokens at the same position (clones only)
      matched    mean cosine of matched tokens
      any        mean cosine of all pairs of a token of one and a token of the other: the control for anisotropy
      retrieval  share of tokens whose nearest among the other sequence's tokens is the one at their position (clones) or
                 their match, both directions averaged; by chance 1 / T for clones, but more for matches, which these
                 same cosines have chosen: compare it between runs
      hsic       what linear CKA is made of, see `hsic_terms`, over the same pairs of tokens"""
    tokens_1, tokens_2 = without_padding(tokens_1), without_padding(tokens_2)
    states = [torch.stack(list(residual_states(model, tokens))) for tokens in (tokens_1, tokens_2)]
    cosines = torch.stack([cosines_of(x, y) for x, y in zip(*states)]).cpu().numpy()
    rows, columns = match_tokens(cosines.mean(0))
    found = dict(matched=cosines[:, rows, columns].mean(1), any=cosines.mean((1, 2)))
    if clones:
        same_length(tokens_1, tokens_2)
        rows = columns = np.arange(len(tokens_1))
        found['positions'] = cosines[:, rows, columns].mean(1)
    found['retrieval'] = np.array([retrieval(c, rows, columns) for c in cosines])
    found['hsic'] = np.array([hsic_terms(x[rows], y[columns]) for x, y in zip(*states)])
    return found


def retrieval(similarity, rows, columns):
    """Share of the pairs (rows[i], columns[i]) that are each other's largest entry of the matrix, row and column
    counted one half each."""
    return ((similarity.argmax(1)[rows] == columns).mean() + (similarity.argmax(0)[columns] == rows).mean()) / 2


def hsic_terms(x, y):
    """Unbiased estimates of HSIC(x, y), HSIC(x, x) and HSIC(y, y) for linear kernels; x (T, C), y (T, D), T > 3.

    Linear CKA is the first over the root of the product of the others. The usual estimate of it is far too high for
    fewer tokens than dimensions; these terms may be averaged over sequences first (Song et al. 2012, Nguyen et al. 2021)."""
    def kernel(states):
        states = states.cpu().double()  # not every device has doubles
        states = states - states.mean(0)  # the same in theory, and numerically kinder
        return (states @ states.T).fill_diagonal_(0)

    def hsic(k, l):
        n, sums = len(k), (k.sum(0), l.sum(0))
        return ((k * l).sum() + sums[0].sum() * sums[1].sum() / ((n - 1) * (n - 2))
                - 2 * (sums[0] @ sums[1]) / (n - 2)).item() / (n * (n - 3))

    if len(x) < 4:
        return [float('nan')] * 3
    k, l = kernel(x), kernel(y)
    return [hsic(k, l), hsic(k, k), hsic(l, l)]


def cka(terms):
    """Linear CKA of mean HSIC terms (..., 3); 1 for states that are rotations of each other, about 0 for unrelated."""
    return terms[..., 0] / np.sqrt(np.maximum(terms[..., 1] * terms[..., 2], 1e-300))


# --- gradients --------------------------------------------------------------------------------------------------------

def loss_gradients(model, tokens):
    """{parameter: gradient} of the mean next-token loss of one sequence."""
    tokens = without_padding(tokens)
    if len(tokens) < 2:
        raise ConfigError('a sequence of one token has no next token to predict, and so no gradient')
    idx = torch.from_numpy(tokens)[None].to(next(model.parameters()).device)
    with torch.enable_grad():
        loss = model(idx[:, :-1], idx[:, 1:])
    names, parameters = zip(*model.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters)))


def gradient_similarity(model, tokens_1, tokens_2):
    """Cosine of the gradients of two sequences' losses, {parameter: float} (Appendix F).

    The key bias gets 0: it adds the same to all scores of a query, which the softmax does not see, so its gradient is 0
    and what a computer finds there is rounding."""
    def cosine(x, y):  # F.cosine_similarity makes copies of both
        return (x.flatten() @ y.flatten() / (x.norm() * y.norm()).clamp(min=1e-30)).item()

    one, other = loss_gradients(model, tokens_1), loss_gradients(model, tokens_2)
    return {name: 0.0 if name.endswith('attn.k.bias') else cosine(one[name], other[name]) for name in one}


# --- vectors ----------------------------------------------------------------------------------------------------------

def compare_vectors(one, other, paired=True, seed=0):
    """Cosines of two sets of vectors (n, C) and (m, C), on which row i of one corresponds to row i of the other if
    `paired` (Appendix C): {measure: Estimate}.

      pairs      of corresponding vectors
      retrieval  share of vectors whose nearest in the other set is the corresponding one
      random     of random pairs that do not correspond
      any        of all pairs, n * m of them

    With a single vector on a side there are no others to compare with: only `pairs` remains."""
    one, other = (F.normalize(torch.as_tensor(x).float(), dim=-1) for x in (one, other))
    found, rng, size = {}, np.random.default_rng(seed), min(len(one), len(other))
    if paired:
        found['pairs'] = Estimate.of((one * other).sum(-1).numpy())
    if size == 1:
        return found
    chosen = rng.permutation(len(one))[:size], rng.permutation(len(other))[:size]
    if paired:
        nearest = torch.cat([(part @ other.T).argmax(1) for part in one.split(1024)])
        found['retrieval'] = Estimate.of((nearest == torch.arange(len(one))).float().numpy())
        chosen = chosen[0], np.roll(chosen[0], 1)  # next in a circle: never the vector's own partner
    found['random'] = Estimate.of((one[chosen[0]] * other[chosen[1]]).sum(-1).numpy())
    # the mean over all pairs is the product of the two mean vectors, and what vectors add to it gives its spread
    means = one.mean(0), other.mean(0)
    parts = Estimate.of((one @ means[1]).numpy()), Estimate.of((other @ means[0]).numpy())
    value = parts[0].value
    found['any'] = Estimate(value, parts[0].draws + parts[1].draws - value)
    return found
