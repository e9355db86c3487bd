"""From raw log-probabilities to one number per family and run.

Margins in nats per byte, more is better (l = log-probability, B = bytes of the continuation):

- pair: (l[right] - l[other]) / B. Right if above 0.
- choice: s = l / B; where the second half of the cells repeats the options after a neutral context,
  s = (l - l_neutral) / B (pointwise mutual information). Margin: s[right] - mean of the others. Right if s is highest.
- contrast, cells (P,c) (P',c) (P,c') (P',c'): (l0 - l1) / B(c) - (l2 - l3) / B(c'). Right if above 0.
- gain, cells (b) (a b) (a' b): bits per byte after a', b less those after a, b. Right if above 0.
- bits_per_byte: minus bits per byte, total bits over total bytes.

A tie counts one half, or 1/n among n options. Margins of a family and run are pulled in to median +- 5 robust standard
deviations, so that one odd item cannot decide. Items that the block size cut, in the context (log-probability NaN) or
in the continuation (fewer bytes), are left out, except where a cut does no harm (gain, bits_per_byte).
Sources: lm-evaluation-harness (normalisation by length, PMI), EWoK (contrasts).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ltm.records import Item, Measure
from ltm.store import fingerprint

TIE_PER_BYTE = 1e-7  # nats; below the noise of float32 sums
CLIP_ROBUST_SD = 5.0
CUT_IS_FINE = ("gain", "bits_per_byte")  # rules whose items stay in when the block size cuts them
MIN_CLUSTERS = 4  # with fewer books or templates, halves and standard errors go by items

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FamilyTable:
    """All runs (R) on the items (I) of one family; a run's value is sum(num) / sum(weight)."""

    ability: str
    family: str
    clusters: list[str]  # per item
    num_RI: Array
    weight_RI: Array  # 0 = left out
    correct_RI: Array  # NaN where the rule has no right or wrong

    def values(self) -> Array:
        """Return the value of each run; NaN where a run has no usable item."""
        return ratio(self.num_RI.sum(1), self.weight_RI.sum(1))

    def accuracy(self) -> Array:
        """Return the share of usable items that each run got right."""
        used = np.where((self.weight_RI > 0) & ~np.isnan(self.correct_RI), 1.0, 0.0)
        return ratio(np.nansum(self.correct_RI * used, axis=1), used.sum(1))

    def answers(self) -> FamilyTable:
        """Return the same items with right (1), tied (0.5) or wrong (0) in place of margins; unusable ones weigh 0."""
        used = np.where((self.weight_RI > 0) & ~np.isnan(self.correct_RI), 1.0, 0.0)
        right = np.where(used > 0, self.correct_RI, 0.0)
        return dataclasses.replace(self, num_RI=right, weight_RI=used)

    def halves(self) -> NDArray[np.bool_]:
        """Return which items belong to the first of two fixed random halves of the books."""
        units = self.units()
        names = sorted(set(units), key=lambda name: fingerprint([self.family, name]))
        first = set(names[::2])
        return np.array([unit in first for unit in units], dtype=bool)

    def units(self) -> list[str]:
        """Return the cluster of each item, or the item itself where there are fewer than four clusters."""
        if len(set(self.clusters)) >= MIN_CLUSTERS:
            return self.clusters
        return [str(index) for index in range(len(self.clusters))]


def family_tables(items: Sequence[Item], logprob_RC: Array, n_bytes_RC: Array) -> list[FamilyTable]:
    """Return one table per family, in the order of the items.

    Args:
        items: The bank, in the order of the columns.
        logprob_RC: Log-probability in nats, one row per run and one column per cell. NaN where the context
            of the cell was cut so that the item cannot be answered: it weighs 0.
        n_bytes_RC: Bytes that were scored; fewer than the item's where it was cut.
    """
    starts = np.concatenate([[0], np.cumsum([len(item.contexts) for item in items])]).astype(int)
    full_C = np.array([len(text.encode()) for item in items for text in item.continuations], dtype=float)
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.family, []).append(index)
    tables = []
    for family, members in groups.items():
        n_runs = len(logprob_RC)
        num, weight, correct = (np.zeros((n_runs, len(members))) for _ in range(3))
        for shape, places in _same_shape(items, members).items():
            rule, n_cells, _ = shape
            first = items[members[places[0]]]
            columns = np.array([starts[members[p]] + np.arange(n_cells) for p in places])
            gold = np.array([items[members[p]].gold for p in places])
            l_RIc, b_RIc = logprob_RC[:, columns], n_bytes_RC[:, columns]
            whole_RI = np.ones(l_RIc.shape[:2], dtype=bool)
            if rule not in CUT_IS_FINE:
                whole_RI = np.all((b_RIc == full_C[columns]) & ~np.isnan(l_RIc), axis=2)
                l_RIc = np.where(np.isnan(l_RIc), 0.0, l_RIc)
            num[:, places], weight[:, places], correct[:, places] = _apply(
                rule, l_RIc, b_RIc, gold, _has_neutral(first)
            )
            weight[:, places] *= whole_RI
        if items[members[0]].rule != "bits_per_byte":
            num = _pull_in(num, weight)
        num = np.where(weight > 0, num, 0.0)
        clusters = [items[m].cluster for m in members]
        tables.append(FamilyTable(items[members[0]].ability, family, clusters, num, weight, correct))
    return tables


def measures(tables: Sequence[FamilyTable], run_ids: Sequence[str]) -> list[Measure]:
    """Return the rows of every run and family, run by run."""
    columns = []
    for table in tables:
        half = table.halves()
        parts = [
            ratio(table.num_RI[:, mask].sum(1), table.weight_RI[:, mask].sum(1)).tolist() for mask in (half, ~half)
        ]
        n_items = (table.weight_RI > 0).sum(1).tolist()
        columns.append((table.values().tolist(), table.accuracy().tolist(), *parts, n_items))
    return [
        Measure(run_id, table.ability, table.family, *(column[row] for column in family))
        for row, run_id in enumerate(run_ids)
        for table, family in zip(tables, columns, strict=True)
    ]


def ratio(num: Array, weight: Array) -> Array:
    """Return num / weight, NaN where the weight is 0."""
    return np.divide(num, weight, out=np.full_like(num, np.nan), where=weight > 0)


def _same_shape(items: Sequence[Item], members: Sequence[int]) -> dict[tuple[str, int, bool], list[int]]:
    shapes: dict[tuple[str, int, bool], list[int]] = {}
    for place, member in enumerate(members):
        item = items[member]
        shapes.setdefault((item.rule, len(item.contexts), _has_neutral(item)), []).append(place)
    return shapes


def _has_neutral(item: Item) -> bool:
    """Say whether the second half of a choice repeats the options after a neutral context."""
    half, odd = divmod(len(item.continuations), 2)
    return item.rule == "choice" and not odd and half > 1 and item.continuations[:half] == item.continuations[half:]


def _apply(rule: str, l_RIc: Array, b_RIc: Array, gold: NDArray[np.int64], neutral: bool) -> tuple[Array, Array, Array]:
    """Return margin, weight and correctness for items of one shape, each (R, I)."""
    ones = np.ones(l_RIc.shape[:2])
    if rule == "bits_per_byte":
        return l_RIc[..., 0] / math.log(2), b_RIc[..., 0].astype(float), np.full_like(ones, np.nan)
    if rule == "choice":
        margin, correct = _choice(l_RIc, b_RIc, gold, neutral)
        return margin, ones, correct
    if rule == "pair":
        sign = np.where(gold == 0, 1.0, -1.0)
        margin = sign * (l_RIc[..., 0] - l_RIc[..., 1]) / b_RIc[..., :2].mean(-1)
    elif rule == "contrast":
        margin = (l_RIc[..., 0] - l_RIc[..., 1]) / b_RIc[..., 0] - (l_RIc[..., 2] - l_RIc[..., 3]) / b_RIc[..., 2]
    elif rule == "gain":
        margin = (l_RIc[..., 1] / b_RIc[..., 1] - l_RIc[..., 2] / b_RIc[..., 2]) / math.log(2)
    else:
        raise ValueError(f"unknown rule: {rule}")
    correct = np.where(margin > TIE_PER_BYTE, 1.0, np.where(margin < -TIE_PER_BYTE, 0.0, 0.5))
    return margin, ones, correct


def _choice(l_RIc: Array, b_RIc: Array, gold: NDArray[np.int64], neutral: bool) -> tuple[Array, Array]:
    n = l_RIc.shape[2] // 2 if neutral else l_RIc.shape[2]
    raw = l_RIc[..., :n] - l_RIc[..., n:] if neutral else l_RIc
    s_RIo = raw / b_RIc[..., :n]
    index = np.broadcast_to(gold[None, :, None], (*s_RIo.shape[:2], 1))
    right = np.take_along_axis(s_RIo, index, axis=2)[..., 0]
    margin = right - (s_RIo.sum(-1) - right) / (n - 1)
    best = s_RIo.max(-1, keepdims=True)
    tied = s_RIo >= best - TIE_PER_BYTE
    correct = np.where(right >= best[..., 0] - TIE_PER_BYTE, 1.0 / tied.sum(-1), 0.0)
    return margin, correct


def _pull_in(num: Array, weight: Array) -> Array:
    """Limit each run's margins to its median +- 5 robust standard deviations."""
    used = np.where(weight > 0, num, np.nan)
    filled = ~np.all(np.isnan(used), axis=1)
    result = num.copy()
    if filled.any():
        part = used[filled]
        median = np.nanmedian(part, axis=1, keepdims=True)
        reach = CLIP_ROBUST_SD * 1.4826 * np.nanmedian(np.abs(part - median), axis=1, keepdims=True)
        limited = np.clip(num[filled], median - reach, median + reach)
        result[filled] = np.where(reach > 0, limited, num[filled])
    return result
