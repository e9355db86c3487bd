"""From the raw answers of all runs to one number per item family and run.

The value of a family is the mean of its items under one metric: `margin` (per byte; pulled in to median +- 5 robust
standard deviations, so that one odd item cannot decide), `logit` (of p_norm, limited to +-4) or `accuracy`. Which one
is decided once per ability (`ltm.scores.metric`). Items that the block size cut, in the context (log-probability NaN)
or in the continuation (fewer bytes), are left out, except where a cut does no harm (gain, bits_per_byte). Control items
make tables of their own and are never part of a family.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ltm.records import Item, Measure
from ltm.scores.rules import CUT_IS_FINE, WITHOUT_LOGIT, Answers, Array, answers
from ltm.store import fingerprint

Metric = Literal["margin", "logit", "accuracy"]
METRICS: tuple[Metric, ...] = get_args(Metric)
CLIP_ROBUST_SD = 5.0
_NONE: Array = np.zeros((0, 0))
MIN_CLUSTERS = 4  # with fewer books or templates, halves and standard errors go by items


@dataclass(frozen=True)
class FamilyTable:
    """All runs (R) on the items (I) of one family; a run's value is sum(num) / sum(weight)."""

    ability: str
    family: str
    clusters: list[str]  # per item
    num_RI: Array
    weight_RI: Array  # 0 = left out
    correct_RI: Array  # NaN where the rule has no right or wrong
    logit_RI: Array = field(default_factory=lambda: _NONE)  # NaN where the rule has none
    normed_RI: Array = field(default_factory=lambda: _NONE)  # right per byte, where it differs from `correct_RI`
    gold_bits_RI: Array = field(default_factory=lambda: _NONE)
    gold_bytes_RI: Array = field(default_factory=lambda: _NONE)
    items: list[str] = field(default_factory=list)  # their ids
    control: str = ""
    metric: Metric = "margin"  # what `num_RI` holds

    def __post_init__(self) -> None:
        for name in ("logit_RI", "normed_RI", "gold_bits_RI", "gold_bytes_RI"):
            if getattr(self, name) is _NONE:
                object.__setattr__(self, name, np.full_like(self.num_RI, np.nan))

    def values(self) -> Array:
        """Return the value of each run; NaN where a run has no usable item."""
        return ratio(self.num_RI.sum(1), self.weight_RI.sum(1))

    def accuracy(self, normed: bool = False) -> Array:
        """Return the share of usable items that each run got right, or got right per byte."""
        right = self.normed_RI if normed else self.correct_RI
        used = np.where((self.weight_RI > 0) & ~np.isnan(right), 1.0, 0.0)
        return ratio(np.nansum(right * used, axis=1), used.sum(1))

    def gold_bits_per_byte(self) -> Array:
        """Return the bits per byte of the right continuations after their contexts."""
        used = (self.weight_RI > 0) & (self.gold_bytes_RI > 0)
        bits, size = (np.where(used, x, 0.0).sum(1) for x in (self.gold_bits_RI, self.gold_bytes_RI))
        return ratio(bits, size)

    def by(self, metric: Metric) -> FamilyTable:
        """Return the same items under another metric; a table whose rule has no such thing is returned as it is."""
        if metric == self.metric or np.isnan(self.logit_RI if metric == "logit" else self.correct_RI).all():
            return self
        if metric == "margin":
            raise ValueError("margins are what a table is made with")
        values = self.correct_RI if metric == "accuracy" else self.logit_RI
        used = np.where((self.weight_RI > 0) & ~np.isnan(values), 1.0, 0.0)
        return dataclasses.replace(self, num_RI=np.where(used > 0, values, 0.0), weight_RI=used, metric=metric)

    def answers(self) -> FamilyTable:
        """Return the same items with right (1), tied (0.5) or wrong (0) in place of margins; unusable ones weigh 0."""
        used = np.where((self.weight_RI > 0) & ~np.isnan(self.correct_RI), 1.0, 0.0)
        right = np.where(used > 0, self.correct_RI, 0.0)
        return dataclasses.replace(self, num_RI=right, weight_RI=used, metric="accuracy")

    def only(self, keep_I: NDArray[np.bool_]) -> FamilyTable:
        """Return the table of some of the items."""
        names = [column.name for column in dataclasses.fields(self) if column.name.endswith("_RI")]
        columns = {name: getattr(self, name)[:, keep_I] for name in names}
        places = np.flatnonzero(keep_I).tolist()
        clusters, items = ([own[i] for i in places] if own else [] for own in (self.clusters, self.items))
        return dataclasses.replace(self, clusters=clusters, items=items, **columns)

    def of_runs(self, rows: NDArray[np.bool_]) -> FamilyTable:
        """Return the table of some of the runs."""
        names = [column.name for column in dataclasses.fields(self) if column.name.endswith("_RI")]
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

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


def family_tables(
    items: Sequence[Item], logprob_RC: Array, n_bytes_RC: Array, controls: bool = False
) -> list[FamilyTable]:
    """Return one table per family, in the order of the items.

    Args:
        items: The bank, in the order of the columns.
        logprob_RC: Log-probability in nats, one row per run and one column per cell. NaN where the cell has no answer:
            its item weighs 0.
        n_bytes_RC: Bytes that were scored; fewer than the item's where it was cut.
        controls: The tables of the control items instead, one per family and control.
    """
    starts = np.concatenate([[0], np.cumsum([len(item.contexts) for item in items])]).astype(int)
    full_C = np.array([len(text.encode()) for item in items for text in item.continuations], dtype=float)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, item in enumerate(items):
        if bool(item.control) == controls:
            groups.setdefault((item.ability, item.family, item.control), []).append(index)
    return [
        _family_table([items[m] for m in members], starts[members], full_C, logprob_RC, n_bytes_RC)
        for members in groups.values()
    ]


def _family_table(
    items: Sequence[Item], starts_I: NDArray[np.int64], full_C: Array, logprob_RC: Array, n_bytes_RC: Array
) -> FamilyTable:
    shape = (len(logprob_RC), len(items))
    columns = {column.name: np.zeros(shape) for column in dataclasses.fields(Answers)}
    for (rule, n_cells, neutral), places in _same_shape(items).items():
        cells = np.array([starts_I[p] + np.arange(n_cells) for p in places])
        gold = np.array([items[p].gold for p in places])
        l_RIc, b_RIc = logprob_RC[:, cells], n_bytes_RC[:, cells]
        if rule == "adapt":
            l_RIc, b_RIc = l_RIc[..., :1], b_RIc[..., :1]
        whole_RI = ~np.isnan(l_RIc).any(-1)
        if rule not in CUT_IS_FINE:
            whole_RI &= np.all(b_RIc == full_C[cells][..., : b_RIc.shape[-1]], axis=2)
        made = answers(rule, np.where(np.isnan(l_RIc), 0.0, l_RIc), b_RIc, gold, neutral)
        for name, column in columns.items():
            column[:, places] = getattr(made, name)
        columns["weight_RI"][:, places] *= whole_RI
    margin_RI, weight_RI = columns.pop("margin_RI"), columns.pop("weight_RI")
    if items[0].rule not in WITHOUT_LOGIT:
        margin_RI = _pull_in(margin_RI, weight_RI)
    return FamilyTable(
        ability=items[0].ability,
        family=items[0].family,
        clusters=[item.cluster for item in items],
        num_RI=np.where(weight_RI > 0, margin_RI, 0.0),
        weight_RI=weight_RI,
        correct_RI=columns["correct_RI"],
        logit_RI=columns["logit_RI"],
        normed_RI=columns["normed_RI"],
        gold_bits_RI=columns["gold_bits_RI"],
        gold_bytes_RI=columns["gold_bytes_RI"],
        items=[item.item_id for item in items],
        control=items[0].control,
    )


def measures(
    tables: Sequence[FamilyTable], run_ids: Sequence[str], metrics: Mapping[str, Metric] | None = None
) -> list[Measure]:
    """Return the rows of every run and family, run by run.

    Args:
        tables: By margins.
        run_ids: In the order of the rows.
        metrics: The metric of each ability; the margin where it is not named.
    """
    columns = []
    for table in tables:
        chosen = table.by((metrics or {}).get(table.ability, "margin"))
        half = chosen.halves()
        columns.append(
            {
                "ability": [table.ability] * len(run_ids),
                "family": [table.family] * len(run_ids),
                "value": chosen.values().tolist(),
                "accuracy": table.accuracy().tolist(),
                "half_1": chosen.only(half).values().tolist(),
                "half_2": chosen.only(~half).values().tolist(),
                "n_items": (chosen.weight_RI > 0).sum(1).tolist(),
                "metric": [chosen.metric] * len(run_ids),
                "margin": table.values().tolist(),
                "logit": table.by("logit").values().tolist() if "logit" in _has(table) else [np.nan] * len(run_ids),
                "accuracy_normed": table.accuracy(normed=True).tolist(),
                "gold_bits_per_byte": table.gold_bits_per_byte().tolist(),
            }
        )
    return [
        Measure(run_id=run_id, **{name: values[row] for name, values in family.items()})
        for row, run_id in enumerate(run_ids)
        for family in columns
    ]


def _has(table: FamilyTable) -> list[Metric]:
    """Return the metrics that a family has."""
    return [m for m in METRICS if m == "margin" or table.by(m).metric == m]


def ratio(num: Array, weight: Array) -> Array:
    """Return num / weight, NaN where the weight is 0."""
    return np.divide(num, weight, out=np.full_like(num, np.nan), where=weight > 0)


def _same_shape(items: Sequence[Item]) -> dict[tuple[str, int, bool], list[int]]:
    shapes: dict[tuple[str, int, bool], list[int]] = {}
    for place, item in enumerate(items):
        shapes.setdefault((item.rule, len(item.contexts), has_neutral(item)), []).append(place)
    return shapes


def has_neutral(item: Item) -> bool:
    """Say whether the second half of a choice repeats the options after a neutral context."""
    half, odd = divmod(len(item.continuations), 2)
    return item.rule == "choice" and not odd and half > 1 and item.continuations[:half] == item.continuations[half:]


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
