"""The only numbers that are called confirmed: finalists against fresh control sets, new seeds, the sealed bank B.

Reads: `scores/confirmed.parquet` (Measure) and the variants of the round `confirmation`. What was scored while
finalists were chosen is no part of it: keeping those scores would keep their luck.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm.patterns.locale import LANGUAGES, number, rounded
from ltm.patterns.ranking import CONFIRMATION, Ranking
from ltm.patterns.table import Floats, Table
from ltm.records import Variant

CONTROL = "control"
_OUTSIDE = 0.10  # of an interval


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
    spread, spread_df = _spread(base, {table.variants[v].set_id: float(np.mean(runs[v])) for v in finalists})
    against = _Controls(base, spread, spread_df, *_noise([runs[v] for v in runs]))
    expected = {_content(table.variants[i]): p for i, p in _expected(table, ranking)}
    rows = [_row(table.variants[v], runs[v], against, expected, len(finalists)) for v in finalists]
    rows.sort(key=lambda r: (-r["confirmed"], r["variant_id"]))
    known = [(r["expected"], r["confirmed"]) for r in rows if r["expected"] is not None]
    mean, half = against.lead([runs[v] for v in finalists], _OUTSIDE)
    found = {
        "abilities": by,
        "n_controls": len(controls),
        "finalists": rows,
        "mean_expected": rounded(float(np.mean([e for e, _ in known]))) if known else None,
        "mean_confirmed": rounded(mean),
        "mean_low": rounded(mean - half),
        "mean_high": rounded(mean + half),
    }
    return {**found, "text": {language: _words(found, language) for language in LANGUAGES}}


@dataclass(frozen=True)
class _Controls:
    """What finalists are compared with: the means of the control sets, and the noise of a run."""

    means: Floats
    spread: float  # variance between the means of sets
    spread_df: int
    noise: float
    df: int

    def lead(self, runs: Sequence[Sequence[float]], outside: float) -> tuple[float, float]:
        """Return by how much the mean of some variants lies above the controls, and half its 1 - `outside` interval.

        The controls vary as sets do, and few sets tell little of how much: the degrees of freedom are those of both
        parts of the error together (Satterthwaite 1946).
        """
        from scipy.special import stdtrit

        lead = float(np.mean([np.mean(own) for own in runs]) - self.means.mean())
        if not self.df:
            return lead, float("nan")
        seeds = self.noise**2 * sum(1.0 / len(own) for own in runs) / len(runs) ** 2
        sets = self.spread / len(self.means)
        total = max(seeds + sets, 1e-300)
        df = total**2 / max(seeds**2 / self.df + sets**2 / self.spread_df, 1e-300)
        return lead, float(stdtrit(df, 1.0 - outside / 2.0) * np.sqrt(total))


def _spread(controls: Floats, finalist_of_set: Mapping[int, float]) -> tuple[float, int]:
    """Return the variance between the means of sets and its degrees of freedom.

    Two controls alone would say next to nothing, so the finalists' sets are asked too, among themselves; but they were
    chosen to be alike, so the variance is never less than that of the controls.
    """
    chosen = np.array(list(finalist_of_set.values()))
    own = float(np.var(controls, ddof=1))
    df = len(controls) - 1 + len(chosen) - 1
    both = float(np.sum((controls - controls.mean()) ** 2) + np.sum((chosen - chosen.mean()) ** 2)) / df
    return max(own, both), df


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
    variant: Variant,
    own: Sequence[float],
    against: _Controls,
    expected: dict[tuple[Any, ...], float],
    n_finalists: int,
) -> dict[str, Any]:
    """Return one finalist; its interval holds for all at once (Bonferroni), as the best is looked at first."""
    lead, half = against.lead([own], _OUTSIDE / n_finalists)
    return {
        "variant_id": variant.variant_id,
        "n_runs": len(own),
        "confirmed": rounded(lead),
        "low": rounded(lead - half),
        "high": rounded(lead + half),
        "expected": rounded(expected.get(_content(variant))),
    }


def _words(found: dict[str, Any], language: Any) -> str:
    """Return what was confirmed: all finalists together first, since the best of several is partly lucky again."""
    rows, best = found["finalists"], found["finalists"][0]

    def signed(value: float | None) -> str:
        return "?" if value is None else number(value, language, sign=True)

    means = [signed(found[f"mean_{name}"]) for name in ("confirmed", "low", "high")]
    ends = [signed(best[name]) for name in ("confirmed", "low", "high")]
    n_better = sum((row["low"] or 0.0) > 0 for row in rows)
    expected, high = found["mean_expected"], found["mean_high"]
    short = expected is not None and high is not None and expected > high
    if language == "en":
        text = f"Confirmed on bank B with fresh seeds, against {found['n_controls']} random control sets: "
        text += (
            f"{len(rows)} finalists lie {means[0]} seed sd above them on average (90 % from {means[1]} to {means[2]}"
        )
        text += f"; {signed(expected)} was expected). " if expected is not None else "). "
        text += f"The best, {best['variant_id']}: {ends[0]} ({ends[1]} to {ends[2]}, 90 % for all finalists at once). "
        text += f"{n_better} of {len(rows)} can be called better than random sets."
        return text + (" They were expected to do better: what ranked them does not hold on bank B." if short else "")
    text = f"Проверено на банке B с новыми запусками, контрольных случайных наборов: {found['n_controls']}. "
    text += f"Финалисты ({len(rows)}) в среднем отличаются от них на {means[0]} σ повторов (90 % от {means[1]} до "
    text += f"{means[2]}; ожидалось {signed(expected)}). " if expected is not None else f"{means[2]}). "
    text += f"Лучший, {best['variant_id']}: {ends[0]} (от {ends[1]} до {ends[2]}, 90 % для всех финалистов сразу). "
    text += f"Лучше случайных наборов можно назвать {n_better} из {len(rows)}."
    return text + (" Ожидалось больше: то, по чему их отобрали, на банке B не подтвердилось." if short else "")
