"""The only numbers that are called confirmed: finalists against fresh control sets, new seeds, the sealed bank B.

Reads: `scores/confirmed.parquet` (Measure) and the variants of the round `confirmation`. What was scored while
finalists were chosen is no part of it: keeping those scores would keep their luck.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ltm.patterns.locale import LANGUAGES, number, rounded
from ltm.patterns.ranking import CONFIRMATION, Ranking
from ltm.patterns.table import Floats, Table
from ltm.records import Variant

CONTROL = "control"


def confirm(table: Table, ranking: Ranking) -> dict[str, Any] | None:
    """Return the finalists against the control sets, best first, and how much of their lead was luck.

    Args:
        table: Scores of the confirmation runs.
        ranking: The ranking from which the finalists were taken; gives what was expected of them.

    Returns:
        None where there are no confirmation runs, or no control sets to compare them with.
    """
    by = [name for name in ranking.by if name in table.abilities and not table.abilities[name].constant]
    if not by:
        return None
    score = np.mean([table.standard(name) for name in by], axis=0)
    runs: dict[int, list[float]] = defaultdict(list)
    for row, v in enumerate(table.variant_of):
        if table.variants[v].round == CONFIRMATION and np.isfinite(score[row]):
            runs[int(v)].append(float(score[row]))
    controls = [v for v in runs if table.variants[v].template == CONTROL]
    finalists = [v for v in runs if table.variants[v].template != CONTROL]
    if not finalists or len(controls) < 2:
        return None
    base = np.array([np.mean(runs[v]) for v in controls])
    noise, df = _noise([runs[v] for v in runs])
    expected = {_content(table.variants[i]): p for i, p in _expected(table, ranking)}
    rows = [_row(table.variants[v], runs[v], base, noise, df, expected) for v in finalists]
    rows.sort(key=lambda r: (-r["confirmed"], r["variant_id"]))
    known = [(r["expected"], r["confirmed"]) for r in rows if r["expected"] is not None]
    return {
        "abilities": by,
        "n_controls": len(controls),
        "finalists": rows,
        "mean_expected": rounded(float(np.mean([e for e, _ in known]))) if known else None,
        "mean_confirmed": rounded(float(np.mean([r["confirmed"] for r in rows]))),
        "text": {language: _words(rows, len(controls), language) for language in LANGUAGES},
    }


def _noise(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the pooled standard deviation between seeds and its degrees of freedom."""
    df = sum(len(g) - 1 for g in groups)
    if df <= 0:
        return float("nan"), 0
    return float(np.sqrt(sum(float(np.sum((np.array(g) - np.mean(g)) ** 2)) for g in groups) / df)), df


def _content(variant: Variant) -> tuple[Any, ...]:
    return tuple(variant.book_ids), variant.order, variant.gap_kind, variant.density, variant.spacing


def _expected(table: Table, ranking: Ranking) -> list[tuple[int, float]]:
    place = {variant.variant_id: i for i, variant in enumerate(table.variants)}
    return [(place[row.variant_id], row.posterior) for row in ranking.rows if row.variant_id in place]


def _row(
    variant: Variant, own: Sequence[float], base: Floats, noise: float, df: int, expected: dict[tuple[Any, ...], float]
) -> dict[str, Any]:
    from scipy.special import stdtrit

    lead = float(np.mean(own) - base.mean())
    se = float(np.sqrt(noise**2 / len(own) + np.var(base, ddof=1) / len(base))) if df else float("nan")
    half = float(stdtrit(df + len(base) - 1, 0.95)) * se if df else float("nan")
    return {
        "variant_id": variant.variant_id,
        "n_runs": len(own),
        "confirmed": rounded(lead),
        "low": rounded(lead - half),
        "high": rounded(lead + half),
        "expected": rounded(expected.get(_content(variant))),
    }


def _words(rows: Sequence[dict[str, Any]], n_controls: int, language: Any) -> str:
    best = rows[0]
    mean = number(best["confirmed"], language, sign=True)
    low, high = (number(best[k], language, sign=True) if best[k] is not None else "?" for k in ("low", "high"))
    if language == "en":
        return (
            f"Confirmed on bank B with fresh seeds: the best of {len(rows)} finalists ({best['variant_id']}) lies "
            f"{mean} seed sd (90 % from {low} to {high}) above {n_controls} random control sets."
        )
    return (
        f"Подтверждено на банке B с новыми запусками: лучший из финалистов ({best['variant_id']}, всего {len(rows)}) "
        f"отличается на {mean} σ повторов (90 % от {low} до {high}) от случайных контрольных наборов ({n_controls})."
    )
