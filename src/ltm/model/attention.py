"""Causal attention, by device: plain products on a CPU; on a GPU FlashAttention through SDPA, or flex attention.

What a position may see: itself and what came before, inside a sliding window if there is one, and inside its own
document if documents are told apart. Shape letters: B batch, T tokens, H query heads, K key and value heads, G query
heads of one key head (H = K G), C head size, Q queries of a chunk, S keys that the chunk sees.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 128  # queries at once: later keys are skipped, and scores stay near the core
_LEAST_FLEX_HEAD = 16  # width; a GPU's kernel for flex attention takes none below


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
    if not window and documents_BT is None:
        return fused_attention(q_BTHC, k_BTKC, v_BTKC, scale)
    if torch.compiler.is_compiling() and q_BTHC.shape[3] >= _LEAST_FLEX_HEAD:
        return flex(q_BTHC, k_BTKC, v_BTKC, scale, window, documents_BT)
    # Flex attention that is not compiled holds all scores at once; the kernel that takes a mask does not.
    T = q_BTHC.shape[1]
    return fused_attention(q_BTHC, k_BTKC, v_BTKC, scale, _seen(0, T, 0, window, documents_BT, k_BTKC.device))


def fused_attention(q_BTHC: Tensor, k_BTKC: Tensor, v_BTKC: Tensor, scale: float, seen: Tensor | None = None) -> Tensor:
    """Return attention by PyTorch's fused kernels, shape (B, T, H, C); arguments as for `attend`.

    Args:
        seen: Which keys a query sees, or what is added to its scores, of a shape that spreads to (B, H, T, T); None:
            itself and what is before it.
    """
    q_BHTC, k_BKTC, v_BKTC = (x.transpose(1, 2) for x in (q_BTHC, k_BTKC, v_BTKC))
    H, K = q_BHTC.shape[1], k_BKTC.shape[1]
    if H != K and q_BTHC.device.type == "cuda" and (seen is not None or q_BTHC.dtype != torch.bfloat16):
        # FlashAttention knows groups of heads. The kernel behind it, which takes masks, float32 and older cards, does
        # not: given groups, PyTorch would fall back to products that hold all scores.
        k_BKTC, v_BKTC = (_each_group(x, H // K) for x in (k_BKTC, v_BKTC))
    y_BHTC = F.scaled_dot_product_attention(
        q_BHTC, k_BKTC, v_BKTC, attn_mask=seen, is_causal=seen is None, scale=scale, enable_gqa=k_BKTC.shape[1] != H
    )
    return y_BHTC.transpose(1, 2)


def _each_group(x_BKTC: Tensor, n_queries: int) -> Tensor:
    """Return every key or value head once for each query head that it serves, shape (B, K G, T, C)."""
    return x_BKTC[:, :, None].expand(-1, -1, n_queries, -1, -1).flatten(1, 2)


def plain_attention(
    q_BTHC: Tensor, k_BTKC: Tensor, v_BTKC: Tensor, scale: float, window: int, documents_BT: Tensor | None
) -> Tensor:
    """Return attention by plain matrix products, a chunk of queries at a time; arguments as for `attend`.

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
        seen = _seen(start, end, first, window, documents_BT, scores.device)
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
    q_BTHC: Tensor, k_BTKC: Tensor, v_BTKC: Tensor, scale: float, window: int, documents_BT: Tensor | None
) -> Tensor:
    """Return attention by PyTorch's flex attention, which skips blocks that are masked as a whole; arguments as for
    `attend`. It is fast only where it is compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    q_BHTC, k_BKTC, v_BKTC = (x.transpose(1, 2) for x in (q_BTHC, k_BTKC, v_BTKC))
    mask = _block_mask(q_BTHC.shape[1], window, documents_BT, k_BTKC.device)
    grouped = q_BTHC.shape[2] != k_BTKC.shape[2]
    y_BHTC: Any = flex_attention(q_BHTC, k_BKTC, v_BKTC, block_mask=mask, scale=scale, enable_gqa=grouped)
    attended: Tensor = y_BHTC.transpose(1, 2)
    return attended


def _block_mask(T: int, window: int, documents_BT: Tensor | None, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        near = _near(row, column, window)
        return near if documents_BT is None else near & (documents_BT[b, row] == documents_BT[b, column])

    B = None if documents_BT is None else documents_BT.shape[0]
    return create_block_mask(seen, B, None, T, T, device=str(device))
