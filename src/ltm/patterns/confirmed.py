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

from ltm.patterns.locale import LANGUAGES, Language, number, rounded, term
from ltm.patterns.ranking import CONFIRMATION, Ranking
from ltm.patterns.table import Floats, Table, joint_unit
from ltm.records import Variant

CONTROL = "control"
_OUTSIDE = 0.10  # of an interval


def confirm(table: Table, ranking: Ranking, before: Table | None = None) -> dict[str, Any] | None:
    """Return the finalists against the control sets, best first, and how much of their lead was there.

    Args:
        table: Scores of the confirmation runs.
        ranking: The ranking from which the finalists were taken; gives what was expected of them.
        before: The scores that were ranked; what is told is in their units. None = they are in `table` too.

    Returns:
        None where there are no confirmation runs, or no control sets to compare them with.
    """
    by = [name for name in ranking.by if name in table.abilities and not table.abilities[name].constant]
    if not by:
        return None
    before = before or table
    unit, size = joint_unit(before, by)
    score = np.mean([table.standard(name) * _same_scale(table, before, name) for name in by], axis=0) * size
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
    expected = {_content(table.variants[i]): p * size for i, p in _expected(table, ranking)}
    rows = [_row(table.variants[v], runs[v], against, expected, len(finalists)) for v in finalists]
    rows.sort(key=lambda r: (-r["confirmed"], r["variant_id"]))
    known = [(r["expected"], r["confirmed"]) for r in rows if r["expected"] is not None]
    mean, half = against.lead([runs[v] for v in finalists], _OUTSIDE)
    found = {
        "abilities": by,
        "unit": unit,
        "n_controls": len(controls),
        "finalists": rows,
        "n_better": sum((row["low"] or 0.0) > 0 for row in rows),
        "mean_expected": rounded(float(np.mean([e for e, _ in known]))) if known else None,
        "mean_confirmed": rounded(mean),
        "mean_low": rounded(mean - half),
        "mean_high": rounded(mean + half),
    }
    return {**found, "text": {language: _words(found, language) for language in LANGUAGES}}


def _same_scale(table: Table, before: Table, name: str) -> float:
    """Return what one unit of an ability in a table is in an earlier one, by the runs that both have.

    With the runs of the confirmation the noise of the seed is known better, so their table may have another unit.
    """
    if before is table:
        return 1.0
    at = {run_id: row for row, run_id in enumerate(before.run_ids)}
    now, then = table.standard(name), before.standard(name)
    both = [(now[row], then[at[run_id]]) for row, run_id in enumerate(table.run_ids) if run_id in at]
    known = np.array([pair for pair in both if np.isfinite(pair).all()])
    spread = known.std(axis=0) if len(known) > 1 else np.ones(2)
    return float(spread[1] / spread[0]) if spread.min() > 0 else 1.0


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


def _words(found: dict[str, Any], language: Language) -> str:
    """Return what was confirmed: all finalists together first, since the best of several is partly lucky again."""
    n, mean, unit = len(found["finalists"]), _signed(found["mean_confirmed"], language), found["unit"]
    size = f"{mean} {term('unit', unit, language)}"
    if language == "en":
        who = "the finalist differs from them by" if n == 1 else f"the {n} finalists differ from them on average by"
        start = f"On bank B with fresh seeds, against {found['n_controls']} random control sets: "
        start += f"{who} {size}"
    else:
        who = "финалист отличается" if n == 1 else f"финалисты ({n}) в среднем отличаются"
        start = "На банке B, с новыми инициализациями, в сравнении со случайными контрольными наборами "
        start += f"({found['n_controls']}): {who} от них на {size}"
    sure = [
        _range(found["mean_low"], found["mean_high"], language) if found["mean_low"] is not None else "",
        _EXPECTED[language].format(_signed(found["mean_expected"], language))
        if found["mean_expected"] is not None
        else "",
    ]
    inside = "; ".join(part for part in sure if part)
    verdicts = [_VERDICTS[key][language].format(n=found["n_better"], total=n) for key in _verdicts(found)]
    return " ".join([start + (f" ({inside})." if inside else "."), *_best(found, language), *verdicts])


def _best(found: dict[str, Any], language: Language) -> list[str]:
    """Return the best of several finalists with its interval, where that is known."""
    best = found["finalists"][0]
    if len(found["finalists"]) == 1 or best["low"] is None:
        return []
    start = {"en": "The best", "ru": "Лучший"}[language]
    at_once = {"en": "for all finalists at once", "ru": "для всех финалистов сразу"}[language]
    ends = _range(best["low"], best["high"], language)
    return [f"{start} ({best['variant_id']}): {_signed(best['confirmed'], language)} ({ends}, {at_once})."]


def _verdicts(found: dict[str, Any]) -> list[str]:
    """Return the keys of who can be called better than random sets, and of whether less came than was expected."""
    n, n_better, expected, high = len(found["finalists"]), found["n_better"], found["mean_expected"], found["mean_high"]
    if high is None:
        return ["unknown"]
    if n == 1:
        keys = ["this_one" if n_better else "not_this_one"]
    else:
        keys = ["some" if n_better else "together" if found["mean_low"] > 0 else "none"]
    return keys + (["less"] if expected is not None and expected > high else [])


_EXPECTED = {"en": "{} was expected", "ru": "ожидалось {}"}
_VERDICTS: dict[str, dict[str, str]] = {
    "unknown": {
        "en": "No set was trained twice, so what chance does is not known: nothing can be said.",
        "ru": "Ни один набор не обучали дважды, поэтому разброс неизвестен: сказать ничего нельзя.",
    },
    "this_one": {
        "en": "It can be called better than random sets.",
        "ru": "Его можно назвать лучше случайных наборов.",
    },
    "not_this_one": {"en": "It cannot be told from random sets.", "ru": "От случайных наборов его не отличить."},
    "some": {
        "en": "{n} of {total} can be called better than random sets.",
        "ru": "Лучше случайных наборов можно назвать {n} из {total}.",
    },
    "together": {
        "en": "Together they are better than random sets; no single one can be called so.",
        "ru": "Вместе они лучше случайных наборов; ни об одном в отдельности этого сказать нельзя.",
    },
    "none": {
        "en": "None of them can be called better than random sets.",
        "ru": "Ни одного из них нельзя назвать лучше случайных наборов.",
    },
    "less": {
        "en": "More was expected: the rest was luck of the choice, or does not hold on bank B.",
        "ru": "Ожидалось больше: остальное было удачей при отборе или не подтвердилось на банке B.",
    },
}


def _range(low: float | None, high: float | None, language: Language) -> str:
    ends = (_signed(low, language), _signed(high, language))
    return f"90 % from {ends[0]} to {ends[1]}" if language == "en" else f"90 % от {ends[0]} до {ends[1]}"


def _signed(value: float | None, language: Language) -> str:
    return "?" if value is None else number(value, language, sign=True)
