"""The GPT of the paper (Section 3): pre-norm blocks, learned positions, tanh GELU, an untied head.

Where it differs from GPT-2, the paper's code does: the token embedding is multiplied by
sqrt(width), heads may be narrower or wider than width / heads, and the head has no bias. Shapes in
comments: B sequences, T positions, C width (n_embd), V vocabulary entries, N = B * T tokens.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from lib.tokenizer import PAD  # a target of PAD does not count

CHUNK_LOGITS = 64 << 20  # at most this many logits are materialised at once

SIZES = {  # non-embedding parameters: 10.5M, 85M, 302M
    'mini': dict(n_layer=4, n_head=8, head_dim=32, n_embd=512, mlp_dim=2048),
    'small': dict(n_layer=12, n_head=12, head_dim=64, n_embd=768, mlp_dim=3072),
    'medium': dict(n_layer=24, n_head=16, head_dim=64, n_embd=1024, mlp_dim=4096),
}


@dataclass
class GPTConfig:
    """Shape of a model. A new field needs a default: what older checkpoints have without it."""

    n_layer: int
    n_head: int
    head_dim: int
    n_embd: int
    mlp_dim: int
    block_size: int  # the longest sequence, tokens
    vocab_size: int  # of the model: all languages together
    positions: str = 'learned'  # learned, or rotary, which needs an even head_dim

    def flops_per_token(self):
        """Floating-point operations of training on one token, both passes: 6 for each parameter of
        blocks and head, and the attention over a full window as if it had no causal mask."""
        width = self.n_head * self.head_dim
        blocks = self.n_layer * (4 * self.n_embd * width + 2 * self.n_embd * self.mlp_dim)
        attention = 12 * self.n_layer * width * self.block_size
        return 6 * (blocks + self.vocab_size * self.n_embd) + attention


def rotate(x):
    """Turns pairs of dimensions of x (B, heads, T, head_dim) by the position (Su et al. 2021)."""
    half = x.shape[-1] // 2
    speeds = 10_000 ** -(torch.arange(half, device=x.device) / half)
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * speeds
    cos, sin, (a, b) = angles.cos(), angles.sin(), x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.n_head * config.head_dim
        self.config = config
        self.q = nn.Linear(config.n_embd, width)
        self.k = nn.Linear(config.n_embd, width)
        self.v = nn.Linear(config.n_embd, width)
        self.o = nn.Linear(width, config.n_embd)

    def forward(self, x):
        """x: (B, T, C); returns the same."""
        # separate weights (Figures 11-13 compare their gradients), one fused matmul
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        bias = torch.cat([self.q.bias, self.k.bias, self.v.bias])
        shape = 3, self.config.n_head, self.config.head_dim
        qkv = F.linear(x, weight, bias).view(*x.shape[:2], *shape)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
        if self.config.positions == 'rotary':
            q, k = rotate(q), rotate(k)
        if x.device.type == 'cpu':  # where the backward pass of bf16 attention takes twice as long
            with torch.autocast('cpu', enabled=False):
                q, k, v = q.float(), k.float(), v.float()
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True).to(qkv.dtype)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
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

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


def chunk_gradients(hidden, targets, token_weights, weight, grad_weight):
    """Losses of a chunk of n tokens, (n,) float32, and the gradients of their sum by hidden (n, C)
    and by the head's weight (V, C) float32, which is added to grad_weight (or None).

    hidden: (n, C); targets: (n,); token_weights: (n,) of the losses in the gradient, or None."""
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


compiled_chunk_gradients = functools.cache(lambda: torch.compile(chunk_gradients, dynamic=False))


def chunks_of(hidden, targets, entries, token_weights=None):
    """List of (hidden, targets, weights or None): chunks of at most CHUNK_LOGITS logits, the last
    one padded, so that all have one shape and one compiled function."""
    count = -(-len(targets) // max(1, CHUNK_LOGITS // entries))
    rows = -(-len(targets) // count)
    missing = count * rows - len(targets)
    hidden, targets = F.pad(hidden, (0, 0, 0, missing)), F.pad(targets, (0, missing), value=PAD)
    weights = [None] * count
    if token_weights is not None:
        weights = F.pad(token_weights, (0, missing)).split(rows)
    return list(zip(hidden.split(rows), targets.split(rows), weights))


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of a linear head, without materialising all logits: the forward pass
    computes the gradients of a chunk while its logits exist.

    Returns the mean loss in nats over the targets that are not PAD, the loss of each token, (N,),
    without gradient, and what the backward pass needs."""

    @staticmethod
    def forward(hidden, weight, targets, token_weights, dtype, compiled):
        # hidden (N, C); weight (V, C); targets (N,); token_weights (N,) or None; dtype of products
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
        ctx.set_materialize_grads(False)  # else zeros as large as the weight
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
    """(mean loss, losses (N,)) in nats of hidden (N, C), the head's weight (V, C), targets (N,).

    token_weights: (N,) of the losses in the mean, or None; its divisor stays the number of targets.
    torch.compile would unroll the loop over chunks, so it compiles a chunk alone, if `compiled`."""
    device, dtype = hidden.device.type, hidden.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled():
            about = targets, token_weights, dtype, compiled
            return LinearCrossEntropy.apply(hidden, weight, *about)[:2]
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
        if config.positions == 'learned':
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
        """Number of parameters without embeddings and head, as Section 3 counts them."""
        return sum(p.numel() for part in (self.blocks, self.ln_f) for p in part.parameters())

    def residual_stream(self, idx):
        """Yields the residual stream (B, T, C) after each block, one at a time. idx: (B, T)."""
        length, limit = idx.shape[1], self.config.block_size
        if length > limit:
            raise ValueError(f'a sequence of {length} tokens is longer than block_size {limit}')
        x = self.wte(idx) * math.sqrt(self.config.n_embd)
        if self.config.positions == 'learned':
            x = x + self.wpe.weight[:length]
        for block in self.blocks:
            x = block(x)
            yield x

    def hidden_states(self, idx):
        """Residual stream after each block, (n_layer, B, T, C)."""
        return torch.stack(list(self.residual_stream(idx)))

    def forward(self, idx, targets=None, last_n=None, per_token=False, weights=None):
        """idx: (B, T) token ids. Returns logits (B, T, V); or, with targets (B, T), the mean cross
        entropy in nats over those that are not PAD, and with per_token the losses, (B, T), as well.

        last_n: of the last positions alone. weights: (B,) of the sequences' losses in the mean,
        whose divisor stays the number of targets; for training alone."""
        *_, x = self.residual_stream(idx)
        x = self.ln_f(x if last_n is None else x[:, -last_n:])
        if targets is None:
            return self.head(x)
        targets = targets if last_n is None else targets[:, -last_n:]
        if weights is not None:
            weights = weights[:, None].expand(targets.shape).flatten()
        about = targets.flatten(), weights, torch.compiler.is_compiling()
        loss, losses = cross_entropy(x.flatten(0, 1), self.head.weight, *about)
        return (loss, losses.view(targets.shape)) if per_token else loss


def make_optimizer(model, learning_rate):
    """The optimiser of the parameters that are trained: Adam without weight decay (Section 3)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = trained[0].device.type in ('cpu', 'cuda')
    return torch.optim.Adam(trained, lr=learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=fused)
