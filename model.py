"""The GPT of the paper (Section 3): pre-norm blocks, learned positions, tanh GELU, an untied head.

Where it differs from GPT-2, the paper's code does: the token embedding is multiplied by
sqrt(width), heads may be narrower or wider than width / heads, and the head has no bias. Shapes in
comments: B sequences, T positions, C width (n_embd), V vocabulary entries, N = B * T tokens.
"""

import functools
import math
import re
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

PAD = 0  # the one padding id of all languages; a target of PAD does not count
CHUNK_LOGITS = 64 << 20  # so many logits are held at once while a loss is computed

SIZES = {  # non-embedding parameters: 10.5M, 85M, 302M
    'mini': dict(n_layer=4, n_head=8, head_dim=32, n_embd=512, mlp_dim=2048),
    'small': dict(n_layer=12, n_head=12, head_dim=64, n_embd=768, mlp_dim=3072),
    'medium': dict(n_layer=24, n_head=16, head_dim=64, n_embd=1024, mlp_dim=4096),
}


@dataclass
class GPTConfig:
    n_layer: int
    n_head: int
    head_dim: int
    n_embd: int
    mlp_dim: int
    block_size: int  # the longest sequence, tokens
    vocab_size: int  # of the model: all languages together

    def flops_per_token(self):
        """Floating-point operations of training on one token, both passes: 6 for each parameter of
        blocks and head, and the attention over a full window as if it had no causal mask."""
        width = self.n_head * self.head_dim
        blocks = self.n_layer * (4 * self.n_embd * width + 2 * self.n_embd * self.mlp_dim)
        attention = 12 * self.n_layer * width * self.block_size
        return 6 * (blocks + self.vocab_size * self.n_embd) + attention


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.n_head * config.head_dim
        self.n_head, self.head_dim = config.n_head, config.head_dim
        self.q = nn.Linear(config.n_embd, width)
        self.k = nn.Linear(config.n_embd, width)
        self.v = nn.Linear(config.n_embd, width)
        self.o = nn.Linear(width, config.n_embd)

    def forward(self, x, past=None):
        """x: (B, T, C); returns the same. past: keys and values of the positions before x, a list
        that is replaced by those up to the end of x; unless it is empty, T must be 1."""
        # three tensors, since Figures 11-13 look at their gradients apart, but one matrix product
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        bias = torch.cat([self.q.bias, self.k.bias, self.v.bias])
        qkv = F.linear(x, weight, bias).view(*x.shape[:2], 3, self.n_head, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
        causal = not past
        if past is not None:
            past[:] = [torch.cat(pair, 2) for pair in zip(past, (k, v))] if past else [k, v]
            k, v = past
        if x.device.type == 'cpu':  # where the backward pass of bf16 attention takes twice as long
            with torch.autocast('cpu', enabled=False):
                q, k, v = q.float(), k.float(), v.float()
                y = F.scaled_dot_product_attention(q, k, v, is_causal=causal).to(qkv.dtype)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.o(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fc = nn.Linear(config.n_embd, config.mlp_dim)
        self.proj = nn.Linear(config.mlp_dim, config.n_embd)

    def forward(self, x):
        return self.proj(F.gelu(self.fc(x), approximate='tanh'))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x, past=None):
        x = x + self.attn(self.ln1(x), past)
        return x + self.mlp(self.ln2(x))


def chunk_gradients(hidden, targets, token_weights, weight, grad_weight):
    """The loss of a chunk of n tokens and its gradients.

    hidden: (n, C); targets: (n,); token_weights: (n,) of the losses in the gradient, or None;
    weight: (V, C); grad_weight: (V, C) float32 that the gradient of the weight is added to in
    place, or None. Returns (losses (n,) float32, gradient of their sum by
    hidden, the same by weight (float32))."""
    logits = (hidden @ weight.T).float()
    lse = logits.logsumexp(-1, keepdim=True)
    counts = (targets != PAD)[:, None]
    losses = torch.where(counts, lse - logits.gather(-1, targets[:, None]), 0.0)[:, 0]
    entry = torch.arange(weight.shape[0], device=targets.device)
    grad = (logits - lse).exp() - (entry == targets[:, None]).float()
    if token_weights is not None:
        grad = grad * token_weights[:, None]
    grad = torch.where(counts, grad, 0.0).to(hidden.dtype)  # not of the mean: fp16 would underflow
    part = grad.T @ hidden
    grad_weight = part.float() if grad_weight is None else grad_weight.add_(part)
    return losses, grad @ weight, grad_weight


@functools.cache
def compiled_chunk_gradients():
    return torch.compile(chunk_gradients)


def chunks_of(hidden, targets, entries, token_weights=None):
    """List of (hidden, targets, weights or None) of equally many tokens each, whose logits are at
    most CHUNK_LOGITS.

    Padding fills up the last one: the chunks have one shape, for which one compiled function is
    made."""
    count = -(-len(targets) // max(1, CHUNK_LOGITS // entries))
    rows = -(-len(targets) // count)
    missing = count * rows - len(targets)
    hidden, targets = F.pad(hidden, (0, 0, 0, missing)), F.pad(targets, (0, missing), value=PAD)
    weights = [None] * count
    if token_weights is not None:
        weights = F.pad(token_weights, (0, missing)).split(rows)
    return list(zip(hidden.split(rows), targets.split(rows), weights))


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of a linear head that never holds all logits.

    The gradients are made in the forward pass, while the logits of a chunk are there: logits are
    neither kept nor computed twice. Returns the mean loss in nats over the targets that are not
    PAD, and the loss of each token, (N,), which carries no gradient."""

    @staticmethod
    def forward(hidden, weight, targets, token_weights, dtype, compiled):
        # hidden (N, C); weight (V, C); targets (N,); token_weights (N,) or None; dtype: that of
        # the matrix products
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        chunk = compiled_chunk_gradients() if compiled else chunk_gradients
        losses, grad_hidden, grad_weight = [], [], None
        for h, t, w in chunks_of(hidden, targets, len(weight), token_weights):
            loss, grad, grad_weight = chunk(h, t, w, weight, grad_weight)
            losses.append(loss)
            grad_hidden.append(grad)
        losses = torch.cat(losses)[: len(targets)]
        grad_hidden = torch.cat(grad_hidden)[: len(targets)]
        scale = 1.0 / (targets != PAD).sum().clamp(min=1)
        total = losses if token_weights is None else losses * token_weights
        return total.sum() * scale, losses, scale, grad_hidden, grad_weight

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # no zeros as large as the weight for what has no gradient
        ctx.save_for_backward(*output[2:])
        ctx.dtypes = [x.dtype for x in inputs[:2]]

    @staticmethod
    def backward(ctx, grad_loss, *_):
        scale, grad_hidden, grad_weight = ctx.saved_tensors
        scale = scale * grad_loss
        grad_weight.mul_(scale)  # in place: a large vocabulary's has hundreds of megabytes
        gradients = (grad_hidden * scale).to(ctx.dtypes[0]), grad_weight.to(ctx.dtypes[1])
        return *gradients, None, None, None, None


@torch.compiler.disable
def cross_entropy(hidden, weight, targets, token_weights, compiled):
    """(mean loss, (N,) losses) in nats of hidden (N, C), a head's weight (V, C) and targets (N,).

    token_weights: (N,) of the losses in the mean, or None; its divisor stays the number of targets.

    A graph of torch.compile would unroll the loop over chunks, and take longer to compile for
    more of them: the loop stays outside, and what it calls is compiled if `compiled`."""
    device, dtype = hidden.device.type, hidden.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled():
            arguments = hidden, weight, targets, token_weights, dtype, compiled
            return LinearCrossEntropy.apply(*arguments)[:2]
        weight = weight.to(dtype)
        losses = [
            F.cross_entropy((h @ weight.T).float(), t, ignore_index=PAD, reduction='none')
            for h, t, _ in chunks_of(hidden.to(dtype), targets, len(weight))
        ]
    losses = torch.cat(losses)[: len(targets)]
    return losses.sum() / (targets != PAD).sum().clamp(min=1), losses


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith('bias'):
                nn.init.zeros_(parameter)
            elif '.ln' not in name and not name.startswith('ln'):
                depth = math.sqrt(2 * config.n_layer) if name.endswith('mlp.proj.weight') else 1
                nn.init.normal_(parameter, std=0.02 / depth)

    def non_embedding_parameters(self):
        """Number of parameters without the two embeddings and the head, as Section 3 counts."""
        outside = sum(p.numel() for p in (self.wte.weight, self.wpe.weight, self.head.weight))
        return sum(p.numel() for p in self.parameters()) - outside

    def embed(self, idx, start=0):
        """idx: (B, T) ids of the positions from `start` on; returns (B, T, C)."""
        end = start + idx.shape[1]
        if end > self.config.block_size:
            limit = self.config.block_size
            raise ValueError(f'a sequence of {end} tokens is longer than block_size {limit}')
        return self.wte(idx) * math.sqrt(self.config.n_embd) + self.wpe.weight[start:end]

    def residual_stream(self, idx, cache=None):
        """Yields the residual stream (B, T, C) after each block, one at a time."""
        start = cache[0][0].shape[2] if cache and cache[0] else 0
        x = self.embed(idx, start)
        for block, past in zip(self.blocks, cache or [None] * len(self.blocks)):
            x = block(x, past)
            yield x

    def hidden_states(self, idx):
        """Residual stream after each block, (n_layer, B, T, C)."""
        return torch.stack(list(self.residual_stream(idx)))

    def new_cache(self):
        """An empty cache of keys and values: a list for each block."""
        return [[] for _ in self.blocks]

    def forward(self, idx, targets=None, last_n=None, per_token=False, weights=None, cache=None):
        """idx: (B, T) ids. Without targets: logits (B, T, V), or of the last `last_n` positions.

        With targets (B, T): mean cross entropy in nats over the targets that are not PAD, of the
        last `last_n` positions if given; with per_token also the (B, T or last_n) losses, which
        carry no gradient. In training the sequences may have weights (B,) in that mean, whose
        divisor stays the number of targets. With a cache idx follows what the cache holds, which
        it is added to: at first many positions, later one at a time."""
        *_, x = self.residual_stream(idx, cache)
        x = self.ln_f(x if last_n is None else x[:, -last_n:])
        if targets is None:
            return self.head(x)
        targets = targets if last_n is None else targets[:, -last_n:]
        if weights is not None:
            weights = weights[:, None].expand(targets.shape).flatten()
        compiled = torch.compiler.is_compiling()  # torch.compile of the model
        states = x.flatten(0, 1)
        loss, losses = cross_entropy(states, self.head.weight, targets.flatten(), weights, compiled)
        return (loss, losses.view(targets.shape)) if per_token else loss

    def load_languini(self, state_dict):
        """Takes the weights of a checkpoint of the paper's own code; returns the model.

        Any prefix before the known names is ignored (`module._orig_mod.`). Raises ValueError when a
        tensor is missing, unknown or of another shape."""
        renamed = {}
        for name, tensor in state_dict.items():
            if not name.endswith('mask'):  # a buffer, not a weight
                name = re.sub(r'^.*?\b(?=(\w+_embedding|layers|ln_f|linear)\.)', '', name)
                parts = [LANGUINI_NAMES.get(part, part) for part in name.split('.')]
                renamed['.'.join(parts)] = tensor
        try:
            self.load_state_dict(renamed)
        except RuntimeError as error:
            raise ValueError(' '.join(str(error).split())) from None
        return self


LANGUINI_NAMES = dict(input_embedding='wte', position_embedding='wpe', layers='blocks')
LANGUINI_NAMES |= dict(linear_Q='q', linear_K='k', linear_V='v', linear_O='o')
LANGUINI_NAMES |= dict(c_fc='fc', c_proj='proj', linear='head')
