"""Causal attention, by device: plain products on a CPU, FlashAttention through SDPA or flex attention on a GPU.

What a position may see: itself and what came before, inside a sliding window if there is one, and inside its own
document if documents are told apart. Shape letters: B batch, T tokens, H query heads, K key and value heads, G query
heads of one key head (H = K G), C head size, Q queries of a chunk, S keys that the chunk sees.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 128  # queries at once: later keys are skipped, and scores stay near the core


def attend(
    q_BTHC: Tensor, k_BTKC: Tensor, v_BTKC: Tensor, scale: float, window: int = 0, documents_BT: Tensor | None = None
) -> Tensor:
    """Return what each position gathers from those it may see, shape (B, T, H, C).

    Args:
        q_BTHC: Queries; H is a multiple of K.
        k_BTKC: Keys.
        v_BTKC: Values.
        scale: Of the scores, before the softmax.
        window: How many positions are seen, itself included; 0 = all before.
        documents_BT: The number of each token's document; tokens of other documents are not seen.
    """
    if q_BTHC.device.type != "cuda":
        return plain_attention(q_BTHC, k_BTKC, v_BTKC, scale, window, documents_BT)
    q_BHTC, k_BKTC, v_BKTC = (x.transpose(1, 2) for x in (q_BTHC, k_BTKC, v_BTKC))
    if window or documents_BT is not None:
        y_BHTC = flex(q_BHTC, k_BKTC, v_BKTC, scale, window, documents_BT)
    else:
        grouped = q_BTHC.shape[2] != k_BTKC.shape[2]
        y_BHTC = F.scaled_dot_product_attention(q_BHTC, k_BKTC, v_BKTC, is_causal=True, scale=scale, enable_gqa=grouped)
    return y_BHTC.transpose(1, 2)


@dataclass(frozen=True)
class Branches:
    """Trees of tokens, written depth first: texts that begin alike share their beginning."""

    depth_BT: Tensor  # place of a token in its own text, from 0
    end_BT: Tensor  # a token is seen by the places of its row from its own to this one, exclusive

    def seen(self, window: int, dtype: torch.dtype) -> Tensor:
        """Return whether each place sees each, shape (B, 1, T, T); on a CPU without a compiler, what to add to scores.

        The fused kernel of a CPU turns a mask of yes and no into such numbers in every layer anew.
        """
        T = self.end_BT.shape[1]
        place = torch.arange(T, device=self.end_BT.device)
        seen_BTT = (place[:, None] >= place[None, :]) & (place[:, None] < self.end_BT[:, None, :])
        if window:
            seen_BTT &= self.depth_BT[:, :, None] - self.depth_BT[:, None, :] < window
        if seen_BTT.device.type == "cpu" and not torch.compiler.is_compiling():
            return torch.zeros(seen_BTT.shape, dtype=dtype).masked_fill_(~seen_BTT, float("-inf"))[:, None]
        return seen_BTT[:, None]


def attend_seen(q_BTHC: Tensor, k_BTKC: Tensor, v_BTKC: Tensor, scale: float, seen_BHTT: Tensor) -> Tensor:
    """Return attention to what a mask allows, none of it to the right, shape (B, T, H, C); arguments as for
    `attend`."""
    if q_BTHC.device.type != "cuda" and torch.compiler.is_compiling():  # then faster than the fused kernel
        return plain_attention(q_BTHC, k_BTKC, v_BTKC, scale, 0, None, seen_BHTT)
    q_BHTC, k_BKTC, v_BKTC = (x.transpose(1, 2) for x in (q_BTHC, k_BTKC, v_BTKC))
    grouped = q_BTHC.shape[2] != k_BTKC.shape[2]
    y_BHTC = F.scaled_dot_product_attention(
        q_BHTC, k_BKTC, v_BKTC, attn_mask=seen_BHTT, scale=scale, enable_gqa=grouped
    )
    return y_BHTC.transpose(1, 2)


def plain_attention(
    q_BTHC: Tensor,
    k_BTKC: Tensor,
    v_BTKC: Tensor,
    scale: float,
    window: int,
    documents_BT: Tensor | None,
    seen_BHTT: Tensor | None = None,
) -> Tensor:
    """Return attention by plain matrix products, a chunk of queries at a time; arguments as for `attend`.

    Where `seen_BHTT` is given, it alone says which keys a query sees; none is to its right.

    On a CPU the backward pass of the fused kernel takes over half of a training step (LOG.md). Queries that share a
    key head are stacked, so that keys and values are never repeated.
    """
    B, T, H, C = q_BTHC.shape
    K = k_BTKC.shape[2]
    q = q_BTHC.view(B, T, K, H // K, C).permute(0, 2, 3, 1, 4)  # B K G T C
    k = k_BTKC.transpose(1, 2).reshape(B * K, T, C)
    v = v_BTKC.transpose(1, 2).reshape(B * K, T, C)
    chunks = []
    for start in range(0, T, _CHUNK):
        end = min(T, start + _CHUNK)
        first = max(0, start - window + 1) if window else 0
        q_NQC = q[..., start:end, :].reshape(B * K, -1, C)
        scores = torch.bmm(q_NQC, k[:, first:end].transpose(1, 2)) * scale
        scores = scores.view(B, -1, end - start, end - first)  # B, H, Q, S
        if seen_BHTT is None:
            seen = _seen(start, end, first, window, documents_BT, scores.device)
        else:
            seen = seen_BHTT[:, :, start:end, first:end]
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        y_NQC = torch.bmm(weights.view(B * K, -1, end - first), v[:, first:end])
        chunks.append(y_NQC.view(B, K, H // K, end - start, C))
    return torch.cat(chunks, 3).permute(0, 3, 1, 2, 4).reshape(B, T, H, C)


def _seen(start: int, end: int, first: int, window: int, documents_BT: Tensor | None, device: torch.device) -> Tensor:
    """Return whether query `start..end` sees key `first..end`, shape (Q, S) or (B, 1, Q, S)."""
    row = torch.arange(start, end, device=device)[:, None]
    column = torch.arange(first, end, device=device)[None, :]
    seen = _near(row, column, window)
    if documents_BT is not None:
        same = documents_BT[:, start:end, None] == documents_BT[:, None, first:end]
        seen = seen & same[:, None]
    return seen


def _near(row: Tensor, column: Tensor, window: int) -> Tensor:
    """Return whether a query at `row` may see a key at `column`: not later, and inside the window if there is one."""
    return (column <= row) & (column > row - window) if window else column <= row


def flex(
    q_BHTC: Tensor, k_BKTC: Tensor, v_BKTC: Tensor, scale: float, window: int, documents_BT: Tensor | None
) -> Tensor:
    """Return attention by PyTorch's flex attention, which skips blocks that are masked as a whole."""
    from torch.nn.attention.flex_attention import flex_attention

    _, H, T, _ = q_BHTC.shape
    # A compiler traces into the making of the mask, and would warn that it does not see the cache.
    make = _block_mask.__wrapped__ if torch.compiler.is_compiling() else _block_mask
    device = str(q_BHTC.device)
    mask = make(T, window, device) if documents_BT is None else _documents(documents_BT, window)
    out: Any = flex_attention(q_BHTC, k_BKTC, v_BKTC, block_mask=mask, scale=scale, enable_gqa=k_BKTC.shape[1] != H)
    return out


@functools.lru_cache(maxsize=8)
def _block_mask(T: int, window: int, device: str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return _near(row, column, window)

    return create_block_mask(seen, None, None, T, T, device=device)


def _documents(documents_BT: Tensor, window: int) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    B, T = documents_BT.shape

    def seen(b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return _near(row, column, window) & (documents_BT[b, row] == documents_BT[b, column])

    return create_block_mask(seen, B, None, T, T, device=str(documents_BT.device))
