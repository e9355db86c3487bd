"""From the log-probabilities of an item's cells to what the item says: a margin, a logit, right or wrong.

Margins in nats per byte, more is better (l = log-probability, B = bytes of the continuation):

- pair: (l[right] - l[other]) / B. Right if above 0.
- choice: s = l / B; where the second half of the cells repeats the options after a neutral context,
  s = (l - l_neutral) / B (pointwise mutual information). Margin: s[right] - mean of the others. Right if s is highest.
- likelihood (lm-evaluation-harness multiple_choice): margin as for choice without a neutral context. Right if the
  summed log-probability is highest (`acc`); `acc_norm`: if it is highest per byte.
- contrast, cells (P,c) (P',c) (P,c') (P',c'): (l0 - l1) / B(c) - (l2 - l3) / B(c'). Right if above 0.
- gain, cells (b) (a b) (a' b): bits per byte after a', b less those after a, b. Right if above 0.
- synergy, cells both c, both c', A c, A c', B c, B c', neither c, neither c': m(X) = (l(c|X) - l(c'|X)) / B;
  m(both) - m(A) - m(B) + m(neither). Right if above 0.
- bits_per_byte: minus bits per byte, total bits over total bytes.
- generate: 1 where the greedy answer is an accepted one, else 0 (the cell's log-probability holds 0 or minus infinity).
- adapt: minus the area under the loss curve of an adapter, in nats per byte (the first cell holds it).

The logit is the same difference in nats, not per byte: for options log p_norm - log(1 - p_norm), where p_norm is the
share of the right one in what all options get (DataDecide's likelihood metric), limited to +-4 (SCIENCE 3.3).
A tie counts one half, or 1/n among n options. Sources: lm-evaluation-harness, EWoK (contrasts), DataDecide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CUT_IS_FINE = ("gain", "bits_per_byte")  # rules whose items stay in when the block size cuts them
UNASKED = "unasked"  # in place of a rule that has nothing to ask of a model that sees no contexts
WITHOUT_LOGPROBS = ("generate", "adapt", UNASKED)  # rules whose cells are answered by other means, or not at all
WITHOUT_LOGIT = ("bits_per_byte", "adapt", "generate", UNASKED)
LOGIT_LIMIT = 4.0
TIE_PER_BYTE = 1e-7  # nats; below the noise of float32 sums
TIE = 1e-5  # nats, of whole log-probabilities
_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])  # both, A, B, neither


@dataclass(frozen=True)
class Answers:
    """What runs (R) say to items (I) of one shape; NaN where a rule has no such thing."""

    margin_RI: Array
    weight_RI: Array
    correct_RI: Array
    logit_RI: Array
    normed_RI: Array  # acc_norm of a likelihood item, else as `correct_RI`
    gold_bits_RI: Array  # of the right continuation, in bits ...
    gold_bytes_RI: Array  # ... and its bytes; 0 = the rule has no right continuation


def answers(rule: str, l_RIc: Array, b_RIc: Array, gold_I: NDArray[np.int64], neutral: bool) -> Answers:
    """Return what the cells of items of one rule and shape say.

    Args:
        rule: One of the rules above.
        l_RIc: Log-probability of each cell, nats.
        b_RIc: Bytes of each continuation.
        gold_I: The right cell of each item, where the rule has one.
        neutral: Whether the second half of the cells repeats the options after a neutral context.

    Raises:
        ValueError: there is no such rule.
    """
    b_RIc = b_RIc.astype(float)
    none = np.full(l_RIc.shape[:2], np.nan)
    weight = np.ones(l_RIc.shape[:2])
    normed = None
    if rule == "bits_per_byte":
        bits, size = l_RIc[..., 0] / math.log(2), b_RIc[..., 0]
        return Answers(bits, size, none, none, none, -bits, size)
    if rule == UNASKED:
        return Answers(weight * 0, weight * 0, none, none, none, none, weight * 0)
    if rule == "adapt":
        return Answers(l_RIc[..., 0], weight, none, none, none, none, weight * 0)
    if rule == "generate":
        right = (l_RIc[..., 0] > -1).astype(float)
        return Answers(right, weight, right, none, right, none, weight * 0)
    if rule in ("choice", "likelihood"):
        margin, logit, correct, normed = _options(l_RIc, b_RIc, gold_I, neutral, rule == "likelihood")
    else:
        margin, logit = _differences(rule, l_RIc, b_RIc, gold_I)
        correct = np.where(margin > TIE_PER_BYTE, 1.0, np.where(margin < -TIE_PER_BYTE, 0.0, 0.5))
    cells = _gold_cells(rule, gold_I)
    index = np.broadcast_to(cells[None], (len(l_RIc), *cells.shape))
    gold_bits = -np.take_along_axis(l_RIc, index, axis=2).sum(-1) / math.log(2)
    gold_bytes = np.take_along_axis(b_RIc, index, axis=2).sum(-1)
    logit = np.clip(logit, -LOGIT_LIMIT, LOGIT_LIMIT)
    return Answers(margin, weight, correct, logit, correct if normed is None else normed, gold_bits, gold_bytes)


def _differences(rule: str, l_RIc: Array, b_RIc: Array, gold_I: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return margin per byte and difference in nats of the rules that compare likelihoods with signs."""
    if rule == "pair":
        nats = np.where(gold_I == 0, 1.0, -1.0) * (l_RIc[..., 0] - l_RIc[..., 1])
        return nats / b_RIc[..., :2].mean(-1), nats
    if rule == "contrast":
        one, two = l_RIc[..., 0] - l_RIc[..., 1], l_RIc[..., 2] - l_RIc[..., 3]
        return one / b_RIc[..., 0] - two / b_RIc[..., 2], one - two
    if rule == "gain":
        per_byte = l_RIc[..., 1] / b_RIc[..., 1] - l_RIc[..., 2] / b_RIc[..., 2]
        return per_byte / math.log(2), l_RIc[..., 1] - l_RIc[..., 2]
    if rule == "synergy":
        nats = ((l_RIc[..., 0::2] - l_RIc[..., 1::2]) * _SIGNS).sum(-1)
        per_byte = (l_RIc[..., 0::2] / b_RIc[..., 0::2] - l_RIc[..., 1::2] / b_RIc[..., 1::2]) * _SIGNS
        return per_byte.sum(-1), nats
    raise ValueError(f"unknown rule: {rule}")


def _options(
    l_RIc: Array, b_RIc: Array, gold_I: NDArray[np.int64], neutral: bool, by_sum: bool
) -> tuple[Array, Array, Array, Array]:
    """Return margin, logit of p_norm, right, and right per byte of items with one right option."""
    n = l_RIc.shape[2] // 2 if neutral else l_RIc.shape[2]
    raw_RIo = l_RIc[..., :n] - l_RIc[..., n:] if neutral else l_RIc
    s_RIo = raw_RIo / b_RIc[..., :n]
    index = np.broadcast_to(gold_I[None, :, None], (*s_RIo.shape[:2], 1))
    right = np.take_along_axis(s_RIo, index, axis=2)[..., 0]
    margin = right - (s_RIo.sum(-1) - right) / (n - 1)
    normed = _highest(s_RIo, index, TIE_PER_BYTE)
    correct = _highest(raw_RIo, index, TIE) if by_sum else normed
    own = np.take_along_axis(raw_RIo, index, axis=2)
    others = raw_RIo.copy()
    np.put_along_axis(others, index, -np.inf, axis=2)
    top = others.max(-1, keepdims=True)
    rest = top[..., 0] + np.log(np.exp(others - top).sum(-1))
    return margin, own[..., 0] - rest, correct, normed


def _highest(values_RIo: Array, index: NDArray[np.int64], tie: float) -> Array:
    """Return 1 where the right option is the highest, 1/n where it is tied with n - 1 others, else 0."""
    best = values_RIo.max(-1, keepdims=True)
    tied = values_RIo >= best - tie
    right = np.take_along_axis(tied, index, axis=2)[..., 0]
    return np.where(right, 1.0 / tied.sum(-1), 0.0)


def _gold_cells(rule: str, gold_I: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which cells of each item hold a right continuation after its full context, shape (I, n)."""
    fixed = {"contrast": (0, 3), "gain": (1,), "synergy": (0,)}
    if rule in fixed:
        return np.tile(np.array(fixed[rule], dtype=np.int64), (len(gold_I), 1))
    return gold_I[:, None]
