"""One compact decoder: Llama-like, Mistral-like or GPT-2-like by configuration.

Pure PyTorch; it knows tokens and nothing of books. Shape letters: B batch, T tokens, D width, H heads, K key and
value heads, C head size, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltm.model.loss import linear_cross_entropy
from ltm.model.norm import rms_norm
from ltm.model.sizes import ModelConfig


class GPT(nn.Module):
    """A decoder that maps tokens to the next token's logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        gpt2 = config.family == "gpt2"
        self.embed = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.block_size, config.n_embd) if gpt2 else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = _norm(config)
        self.unembed = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.unembed.weight = self.embed.weight
        self.cos_TC: Tensor
        self.sin_TC: Tensor
        self.mask_TT: Tensor
        cos_TC, sin_TC = _rotary(config.head_size, config.block_size, config.rope_theta)
        self.register_buffer("cos_TC", cos_TC, persistent=False)
        self.register_buffer("sin_TC", sin_TC, persistent=False)
        self.register_buffer("mask_TT", _mask(config.block_size, config.window), persistent=False)

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """Return the normed last hidden state, shape (B, T, D); T is at most the block size."""
        T = tokens_BT.shape[1]
        x_BTD = self.embed(tokens_BT)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions.weight[:T]
        rotary = (self.cos_TC[:T], self.sin_TC[:T])
        for block in self.blocks:
            x_BTD = block(x_BTD, rotary, self.mask_TT)
        return self.norm(x_BTD)

    def head(self, x: Tensor) -> Tensor:
        """Return logits over the vocabulary for hidden states of any leading shape."""
        return self.unembed(x)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return logits, shape (B, T, V)."""
        return self.head(self.hidden(tokens_BT))

    def loss(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats per token, computed in float32."""
        return linear_cross_entropy(self.hidden(tokens_BT).flatten(0, 1), self.unembed.weight, targets_BT.flatten())


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.mlp_norm = _norm(config)
        self.mlp = GeluMlp(config) if config.family == "gpt2" else SwiGlu(config)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_TT: Tensor) -> Tensor:
        """Return the block's output, shape (B, T, D)."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotary, mask_TT)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class RmsNorm(nn.Module):
    """Divide by the root mean square over the width, times a gain; half the passes of PyTorch's own on a CPU."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normed input, same shape."""
        if x.device.type != "cpu":
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Causal self-attention with grouped keys and values and, for mistral, a sliding window."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        bias = config.family == "gpt2"
        self.qkv = nn.Linear(config.n_embd, (config.n_head + 2 * config.n_kv_head) * config.head_size, bias=bias)
        self.out = nn.Linear(config.n_head * config.head_size, config.n_embd, bias=bias)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_TT: Tensor) -> Tensor:
        """Return what each position gathers from the positions before it, shape (B, T, D)."""
        config = self.config
        B, T, _ = x_BTD.shape
        heads = (config.n_head + config.n_kv_head, config.n_kv_head)
        qk_BTHC, v_BTKC = self.qkv(x_BTD).view(B, T, sum(heads), config.head_size).split(heads, dim=2)
        if config.family != "gpt2":
            qk_BTHC = _rotate(qk_BTHC, *rotary)  # queries and keys at once: half the calls
        q_BHTC, k_BKTC = qk_BTHC.transpose(1, 2).split([config.n_head, config.n_kv_head], dim=1)
        v_BKTC = v_BTKC.transpose(1, 2)
        y_BHTC = _attend(q_BHTC, k_BKTC, v_BKTC, mask_TT[:T, :T], config)
        return self.out(y_BHTC.transpose(1, 2).reshape(B, T, -1))


class SwiGlu(nn.Module):
    """The feed-forward part of Llama: gate and up in one matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.n_embd, 2 * config.n_hidden, bias=False)
        self.down = nn.Linear(config.n_hidden, config.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return down(silu(gate) * up)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GeluMlp(nn.Module):
    """The feed-forward part of GPT-2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, config.n_hidden)
        self.down = nn.Linear(config.n_hidden, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """Return down(gelu(up))."""
        return self.down(F.gelu(self.up(x), approximate="tanh"))


def init_weights(model: GPT, seed: int) -> None:
    """Fill all weights from a seed: normal with sd 0.02, residual outputs scaled by depth (GPT-2's rule).

    The same seed gives the same weights on every device, since they are drawn on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    residual_sd = 0.02 / math.sqrt(2 * model.config.n_layer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            sd = residual_sd if name.endswith(("out.weight", "down.weight")) else 0.02
            drawn = torch.empty(parameter.shape).normal_(0.0, sd, generator=generator)
            parameter.copy_(drawn)


def _norm(config: ModelConfig) -> nn.Module:
    if config.family == "gpt2":
        return nn.LayerNorm(config.n_embd)
    return RmsNorm(config.n_embd)


def _rotary(head_size: int, block_size: int, theta: float) -> tuple[Tensor, Tensor]:
    frequencies = theta ** (-torch.arange(0, head_size, 2).float() / head_size)
    angles_TC = torch.outer(torch.arange(block_size).float(), frequencies)
    return angles_TC.cos(), angles_TC.sin()


def _rotate(x_BTHC: Tensor, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
    """Rotate halves, as Llama's published weights expect."""
    one, two = x_BTHC.chunk(2, dim=-1)
    cos, sin = cos_TC[:, None].to(x_BTHC.dtype), sin_TC[:, None].to(x_BTHC.dtype)
    return torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)


def _mask(block_size: int, window: int) -> Tensor:
    """Return 0 where a position may look and -inf where it may not, shape (T, T)."""
    row, column = torch.arange(block_size)[:, None], torch.arange(block_size)[None, :]
    allowed = column <= row
    if window:
        allowed &= column > row - window
    return torch.zeros(block_size, block_size).masked_fill_(~allowed, float("-inf"))


def _attend(q_BHTC: Tensor, k_BKTC: Tensor, v_BKTC: Tensor, mask_TT: Tensor, config: ModelConfig) -> Tensor:
    if q_BHTC.device.type == "cpu":
        # Plain matrix products: the backward pass of the CPU's fused kernel takes over half of a step (LOG.md).
        groups = config.n_head // config.n_kv_head
        if groups > 1:
            k_BKTC, v_BKTC = k_BKTC.repeat_interleave(groups, 1), v_BKTC.repeat_interleave(groups, 1)
        B, H, T, _ = q_BHTC.shape
        mask_NTT = mask_TT.to(q_BHTC.dtype).expand(B * H, T, T)
        q, k, v = (x.reshape(B * H, T, -1) for x in (q_BHTC, k_BKTC, v_BKTC))
        scores = torch.baddbmm(mask_NTT, q, k.transpose(1, 2), alpha=config.head_size**-0.5)
        return (scores.softmax(-1) @ v).view(B, H, T, -1)
    mask = mask_TT.to(q_BHTC.dtype) if config.window else None
    return F.scaled_dot_product_attention(
        q_BHTC, k_BKTC, v_BKTC, attn_mask=mask, is_causal=mask is None, enable_gqa=config.n_kv_head != config.n_head
    )
