"""Attention in trees of tokens: texts that begin alike are read as one, each of them as if it stood alone.

Trees are written depth first, so what a place sees is its branch: all places before it whose subtree it lies in. On a
CPU neighbours are answered together from the few keys that any of them sees; elsewhere a mask says who sees whom. Shape
letters: B batch, T tokens, H query heads, K key and value heads, C head size, N = B T places of all rows, P wanted
places, Q queries and S keys of a stretch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ltm.model.attention import fused_attention

_STRETCH = 64  # queries at once


@dataclass(frozen=True)
class Branches:
    """Trees of tokens, written depth first: texts that begin alike share their beginning."""

    depth_BT: Tensor  # place of a token in its own text, from 0
    end_BT: Tensor  # a token is seen by the places of its row from its own to this one, exclusive
    wanted_P: Tensor | None = None  # places whose last states are needed, through all rows, ascending; None = all

    def seen(self, window: int, dtype: torch.dtype) -> Seen:
        """Return what each place sees: a mask of shape (B, 1, T, T), or stretches for a CPU without a compiler."""
        if self.end_BT.device.type == "cpu" and not torch.compiler.is_compiling():
            B, T = self.end_BT.shape
            return [self._stretch(b, start, window, dtype) for b in range(B) for start in range(0, T, _STRETCH)]
        place_T = torch.arange(self.end_BT.shape[1], device=self.end_BT.device)
        seen_BTT = (place_T[:, None] >= place_T) & (place_T[:, None] < self.end_BT[:, None, :])
        if window:
            seen_BTT &= self.depth_BT[:, :, None] - self.depth_BT[:, None, :] < window
        return seen_BTT[:, None]

    def _stretch(self, row: int, start: int, window: int, dtype: torch.dtype) -> Stretch:
        """Return a few neighbours: what any of them sees before the first, the first one's branch holds as well."""
        depth_T, end_T = self.depth_BT[row], self.end_BT[row]
        stop = min(start + _STRETCH, len(end_T))
        query_Q = torch.arange(start, stop)
        above_T = end_T[:start] > start
        if window:
            above_T &= depth_T[:start] > depth_T[start:stop].min() - window
        key_S = torch.cat((above_T.nonzero()[:, 0], query_Q))
        seen_QS = (key_S <= query_Q[:, None]) & (query_Q[:, None] < end_T[key_S])
        if window:
            seen_QS &= depth_T[query_Q, None] - depth_T[key_S] < window
        bias_QS = torch.zeros(seen_QS.shape, dtype=dtype).masked_fill_(~seen_QS, float("-inf"))
        first = row * len(end_T)
        return Stretch(first + start, first + key_S, bias_QS)


@dataclass(frozen=True)
class Stretch:
    """Neighbouring queries and the keys that any of them sees; places count through all rows of the batch."""

    start: int  # the first query; the last stands before the next stretch
    key_S: Tensor
    bias_QS: Tensor  # what to add to the scores: 0, or minus infinity where a key is not seen


Seen = Tensor | list[Stretch]


def attend_seen(
    q_BTHC: Tensor, k_BTKC: Tensor, v_BTKC: Tensor, scale: float, seen: Seen, wanted_P: Tensor | None = None
) -> Tensor:
    """Return what each position gathers from those it sees, shape (B, T, H, C); of the wanted ones, shape (P, H, C).

    Args:
        q_BTHC: As for `attend`, and so are `k_BTKC`, `v_BTKC` and `scale`.
        seen: Made by `Branches.seen`.
        wanted_P: As in `Branches`.
    """
    if isinstance(seen, list):
        y_PHC = torch.cat(list(_by_stretch(q_BTHC, k_BTKC, v_BTKC, scale, seen, wanted_P)))
        return y_PHC.view_as(q_BTHC) if wanted_P is None else y_PHC
    y_BTHC = fused_attention(q_BTHC, k_BTKC, v_BTKC, scale, seen)
    return y_BTHC if wanted_P is None else y_BTHC.flatten(0, 1)[wanted_P]


def _by_stretch(
    q_BTHC: Tensor, k_BTKC: Tensor, v_BTKC: Tensor, scale: float, stretches: list[Stretch], wanted_P: Tensor | None
) -> Iterator[Tensor]:
    """Give the answers of one stretch after the other: no key is read that nobody there sees."""
    q_PHC, k_NKC, v_NKC = (x.flatten(0, 1) for x in (q_BTHC, k_BTKC, v_BTKC))
    bounds = torch.tensor([*(one.start for one in stretches), len(q_PHC)])
    if wanted_P is not None:
        q_PHC, bounds = q_PHC.index_select(0, wanted_P), torch.searchsorted(wanted_P, bounds)
    for one, low, high in zip(stretches, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if low == high:
            continue
        bias_QS = one.bias_QS if wanted_P is None else one.bias_QS.index_select(0, wanted_P[low:high] - one.start)
        k_SKC, v_SKC = (x.index_select(0, one.key_S) for x in (k_NKC, v_NKC))
        yield fused_attention(q_PHC[None, low:high], k_SKC[None], v_SKC[None], scale, bias_QS)[0]
