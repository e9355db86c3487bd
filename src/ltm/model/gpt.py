"""One compact decoder: Llama-like, Mistral-like or GPT-2-like by configuration.

Pure PyTorch; it knows tokens and nothing of books. Shape letters: B batch, T tokens, D width, H heads, K key and
value heads, C head size, V vocabulary, P wanted places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ltm.model.attention import attend
from ltm.model.branches import Branches, Seen, attend_seen
from ltm.model.loss import linear_cross_entropy
from ltm.model.sizes import ModelConfig

NORM_EPS = 1e-5


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
        cos_TC, sin_TC = rotary(config.head_size, config.block_size, config.rope_theta)
        self.register_buffer("cos_TC", cos_TC, persistent=False)
        self.register_buffer("sin_TC", sin_TC, persistent=False)
        self.recompute = False  # drop a block's activations and make them again in the backward pass

    def hidden(self, tokens_BT: Tensor, documents_BT: Tensor | None = None, branches: Branches | None = None) -> Tensor:
        """Return the normed last hidden state, ready for the output layer, shape (B, T, D).

        Args:
            tokens_BT: T is at most the block size; with branches a row may be longer, their texts may not.
            documents_BT: The number of each token's document, where attention must not leave it.
            branches: Where texts that begin alike share their beginning; in place of documents. If they name wanted
                places, their states alone are returned, shape (P, D).
        """
        T = tokens_BT.shape[1]
        x_BTD = self.embed(tokens_BT)
        depth = slice(T) if branches is None else branches.depth_BT
        if self.positions is not None:
            x_BTD = x_BTD + self.positions.weight[depth]
        angles = (self.cos_TC[depth], self.sin_TC[depth])
        seen = None if branches is None else branches.seen(self.config.window, x_BTD.dtype)
        wanted_P = None if branches is None else branches.wanted_P
        for block in self.blocks:
            if self.recompute and self.training:
                x_BTD = checkpoint(block, x_BTD, angles, documents_BT, use_reentrant=False, preserve_rng_state=False)
            else:
                last = block is self.blocks[-1]  # what is not wanted ends with its key and value there
                x_BTD = block(x_BTD, angles, documents_BT, seen, wanted_P if last else None)
        x_BTD = self.norm(x_BTD)
        return x_BTD * self.config.logit_scale if self.config.logit_scale != 1.0 else x_BTD

    def head(self, x: Tensor) -> Tensor:
        """Return logits over the vocabulary for hidden states of any leading shape."""
        return self.unembed(x)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return logits, shape (B, T, V)."""
        return self.head(self.hidden(tokens_BT))

    def loss(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        scale: Tensor | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """Return the mean cross-entropy in nats per token, computed in float32.

        Args:
            tokens_BT: Inputs.
            targets_BT: The token after each input.
            scale: Factor on the gradients alone; None = 1.
            documents_BT: As for `hidden`.
        """
        x_ND = self.hidden(tokens_BT, documents_BT).flatten(0, 1)
        return linear_cross_entropy(x_ND, self.unembed.weight, targets_BT.flatten(), scale)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.mlp_norm = _norm(config)
        self.mlp = GeluMlp(config) if config.family == "gpt2" else SwiGlu(config)

    def forward(
        self,
        x_BTD: Tensor,
        angles: tuple[Tensor, Tensor],
        documents_BT: Tensor | None = None,
        seen: Seen | None = None,
        wanted_P: Tensor | None = None,
    ) -> Tensor:
        """Return the block's output, shape (B, T, D), or (P, D) of wanted places."""
        gathered = self.attention(self.attention_norm(x_BTD), angles, documents_BT, seen, wanted_P)
        x = (x_BTD if wanted_P is None else x_BTD.flatten(0, 1)[wanted_P]) + gathered
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    """Causal self-attention with grouped keys and values and, for mistral, a sliding window."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        bias = config.family == "gpt2"
        self.qkv = nn.Linear(config.n_embd, (config.n_head + 2 * config.n_kv_head) * config.head_size, bias=bias)
        self.out = nn.Linear(config.n_head * config.head_size, config.n_embd, bias=bias)

    def forward(
        self,
        x_BTD: Tensor,
        angles: tuple[Tensor, Tensor],
        documents_BT: Tensor | None = None,
        seen: Seen | None = None,
        wanted_P: Tensor | None = None,
    ) -> Tensor:
        """Return what each position gathers from the positions before it, shape (B, T, D), or (P, D) of wanted ones."""
        config = self.config
        B, T, _ = x_BTD.shape
        H, K = config.n_head, config.n_kv_head
        qk_BTHC, v_BTKC = self.qkv(x_BTD).view(B, T, H + 2 * K, config.head_size).split([H + K, K], dim=2)
        if config.family != "gpt2":
            qk_BTHC = rotated(qk_BTHC, *angles)  # queries and keys at once: half the calls
        q_BTHC, k_BTKC = qk_BTHC.split([H, K], dim=2)
        if seen is None:
            y = attend(q_BTHC, k_BTKC, v_BTKC, config.attention_scale, config.window, documents_BT)
        else:
            y = attend_seen(q_BTHC, k_BTKC, v_BTKC, config.attention_scale, seen, wanted_P)
        return self.out(y.flatten(-2))


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


def _norm(config: ModelConfig) -> nn.Module:
    return nn.LayerNorm(config.n_embd) if config.family == "gpt2" else nn.RMSNorm(config.n_embd, eps=NORM_EPS)


def rotary(head_size: int, block_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of every position's rotation, each of shape (T, C / 2), float32."""
    # Written as in transformers: another last bit here is 1e-4 in the logits of a 15M model (LOG.md).
    frequencies = 1.0 / theta ** (torch.arange(0, head_size, 2).float() / head_size)
    angles_TC = torch.outer(torch.arange(block_size).float(), frequencies)
    return angles_TC.cos(), angles_TC.sin()


def rotated(x_BTHC: Tensor, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
    """Rotate halves, as Llama's published weights expect."""
    one, two = x_BTHC.chunk(2, dim=-1)
    cos, sin = cos_TC[..., None, :].to(x_BTHC.dtype), sin_TC[..., None, :].to(x_BTHC.dtype)
    return torch.cat((one * cos - two * sin, two * cos + one * sin), dim=-1)
