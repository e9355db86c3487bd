"""The chapter of emergence: how many tokens an ability needs to leave chance, arm by arm.

Reads: Snapshot, Reliability, Run, Variant and Effect rows (`patterns/emergence.parquet`). Writes: nothing. An ability
has left chance when its score, averaged over families in seed standard deviations, stays two of them above chance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ltm.dashboard import charts, curve_charts, figures, tables
from ltm.dashboard.curves import MAX_ARMS
from ltm.dashboard.effect_units import DOUBLING
from ltm.dashboard.figures import Record, ability_order
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, note
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Argument, Capital, Fixed, Term, both, joined, spans, texts
from ltm.records import Reliability, Snapshot, Variant

NEEDS = ("scores/snapshots.parquet",)
LEFT = 2.0  # seed standard deviations above chance
_FEWEST_MOMENTS = 2
_BOOTSTRAPS = 400

Series = dict[str, list[tuple[int, float]]]  # run -> (tokens, score above chance), by tokens


def emergence(inputs: Inputs) -> Chapter:
    """Return scores during training, and the tokens that each arm needs."""
    if not inputs.snapshots:
        return Chapter(both("emergence.off" if inputs.measures else "emergence.wait"), needs=NEEDS)
    series = above_chance(inputs.snapshots, inputs.reliability)
    if not series:
        return Chapter(both("emergence.no_scale"), needs=NEEDS)
    arm_of = _arms(inputs)
    needed = needed_rows(series, arm_of)
    told = [_words(needed, ability) for ability in series]
    chapter = Chapter(spans(joined(*told)), f"<p>{both('emergence.rule')}</p>", needs=NEEDS)
    rows = curve_rows(series, arm_of)
    words = joined(texts("emergence.summary"), *told)
    figure = Figure(rows, tables.EMERGENCE_COLUMNS, curve_charts.emergence(), filter="ability", summary=words)
    figure.extra["left"] = [{"ability": ability, "score": LEFT} for ability in series]
    chapter.add("emergence", figure, "emergence.figure", "emergence.subtitle")
    figure = Figure(needed, tables.NEEDED_COLUMNS, curve_charts.needed(), filter="ability", summary=joined(*told))
    figure.prefix["label"] = "term."
    chapter.add("needed", figure, "emergence.needed", "emergence.needed_subtitle")
    _add_effects(chapter, inputs)
    return chapter


def _arms(inputs: Inputs) -> dict[str, str]:
    design: dict[str, Variant] = {variant.variant_id: variant for variant in inputs.variants}
    return {run.run_id: design[run.variant_id].arm for run in inputs.runs if run.variant_id in design}


def above_chance(snapshots: Iterable[Snapshot], reliability: Iterable[Reliability]) -> dict[str, Series]:
    """Return, by ability and run, the mean over families of (value - chance) / seed sd at every moment."""
    facts = {(row.ability, row.family): row for row in reliability}
    at: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in snapshots:
        known = facts.get((row.ability, row.family))
        sd, chance = (number(known.seed_sd), number(known.chance)) if known else (None, None)
        if sd and sd > 0 and chance is not None and number(row.value) is not None and row.tokens > 0:
            at[row.ability][row.run_id][row.tokens].append((row.value - chance) / sd)
    found: dict[str, Series] = {}
    for ability in sorted(at, key=ability_order):
        runs = {run: sorted((t, float(np.mean(v))) for t, v in moments.items()) for run, moments in at[ability].items()}
        kept = {run: points for run, points in runs.items() if len(points) >= _FEWEST_MOMENTS}
        if kept:
            found[ability] = kept
    return found


def tokens_needed(points: Sequence[tuple[int, float]]) -> float:
    """Return the tokens from which a score stays at or above `LEFT`, between moments on a logarithmic axis.

    Infinite where it never does.

    >>> tokens_needed([(1000, 0.0), (2000, 1.0), (4000, 3.0)]) == 2000 * 2**0.5
    True
    """
    below = [i for i, (_, score) in enumerate(points) if score < LEFT]
    if not below:
        return float(points[0][0])
    last = below[-1]
    if last == len(points) - 1:
        return math.inf
    (t0, s0), (t1, s1) = points[last], points[last + 1]
    share = (LEFT - s0) / (s1 - s0)
    return float(2.0 ** (math.log2(t0) + share * (math.log2(t1) - math.log2(t0))))


def needed_rows(series: Mapping[str, Series], arm_of: Mapping[str, str]) -> list[Record]:
    """Return, by ability and arm, the median of the tokens needed with the 90 % interval of a bootstrap over runs.

    A run that never leaves chance counts as one that needs more than its last moment: where more than half never do,
    the median is unknown and the row says only that.
    """
    rows: list[Record] = []
    for ability, runs in series.items():
        groups = _by_arm(runs, arm_of)
        for arm in groups:
            values = np.array([tokens_needed(runs[run]) for run in groups[arm]])
            ends = [runs[run][-1][0] for run in groups[arm]]
            rng = np.random.default_rng([len(rows), len(values)])
            draws = np.median(rng.choice(values, (_BOOTSTRAPS, len(values))), axis=1)
            low, high = (float(x) for x in np.quantile(draws, [0.05, 0.95], method="nearest"))
            median, end = float(np.median(values)), float(max(ends))
            rows.append(
                {
                    "ability": ability,
                    "label": arm,
                    "tokens": median if math.isfinite(median) else end,
                    "low": low if math.isfinite(low) else end,
                    "high": high if math.isfinite(high) else end,
                    "n": len(values),
                    "never": int(np.isinf(values).sum()),
                    "beyond": "measured" if math.isfinite(median) else "beyond",
                    "shown": True,
                }
            )
    return rows


def _by_arm(runs: Series, arm_of: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for run in sorted(runs):
        groups[arm_of.get(run, "unknown")].append(run)
    largest = sorted(groups, key=lambda arm: (-len(groups[arm]), arm))[:MAX_ARMS]
    return {arm: groups[arm] for arm in sorted(largest, key=lambda arm: (arm != "base", arm))}


def curve_rows(series: Mapping[str, Series], arm_of: Mapping[str, str]) -> list[Record]:
    """Return the median score above chance by ability, arm and moment, with the middle half of the runs."""
    rows: list[Record] = []
    for ability, runs in series.items():
        for arm, members in _by_arm(runs, arm_of).items():
            by_moment: dict[int, list[float]] = defaultdict(list)
            for run in members:
                for tokens, score in runs[run]:
                    by_moment[tokens].append(score)
            for tokens in sorted(by_moment):
                if 2 * len(by_moment[tokens]) < len(members):
                    continue
                low, middle, high = (float(x) for x in np.quantile(by_moment[tokens], [0.25, 0.5, 0.75]))
                row = {"arm": arm, "tokens": tokens, "score": middle, "low": low, "high": high}
                rows.append({"ability": ability, **row, "n": len(by_moment[tokens])})
    return rows


def _words(rows: Sequence[Record], ability: str) -> dict[str, str]:
    mine = [row for row in rows if row["ability"] == ability]
    known = [row for row in mine if row["beyond"] == "measured"]
    term = Capital(Term(f"term.{ability}", ability))
    never, total = sum(row["never"] for row in mine), sum(row["n"] for row in mine)
    if not known:
        return texts("emergence.at_chance", ability=term, n=never, total=total)
    first = known[0]  # the base where it is there; the quickest of several would be picked by luck
    values: dict[str, Argument] = {key: Fixed(first[key], 0) for key in ("tokens", "low", "high")}
    arm = Term(f"term.{first['label']}", first["label"])
    return texts("emergence.leaves", ability=term, arm=arm, n=never, total=total, **values)


def _add_effects(chapter: Chapter, inputs: Inputs) -> None:
    """Put what saves tokens into the chapter, where it was worked out."""
    mine = [effect for effect in inputs.emergence if effect.kind != "book" or effect.claimed]
    if not mine:
        chapter.body += note(both("emergence.no_effects"))
        return
    rows: list[Record] = []
    for kind in dict.fromkeys(effect.kind for effect in mine):
        made = figures.effect_rows(mine, kind, dict.fromkeys((e.ability for e in mine), DOUBLING))
        rows += [{**row, "name": f"{kind}.{row['name']}"} for row in made]
    strongest = sorted(rows, key=lambda row: (row["verdict"] == "unclear", -abs(row["estimate"] or 0.0)))
    shown = {id(row) for row in strongest[: figures.DRAWN_EFFECTS] if row["shown"]}
    for row in rows:
        row["shown"] = id(row) in shown
    claimed = sum(row["verdict"] != "unclear" for row in rows)
    told = texts("emergence.effects", n=claimed, total=len(rows))
    prefix = {"axis": "axis.effect.", "unit": "unit.effect."}
    figure = Figure(
        rows,
        tables.EFFECT_COLUMNS,
        charts.forest(),
        filter="ability",
        labels="name.",
        prefix=prefix,
        summary=told,
        extra={"band": []},
    )
    chapter.body += f"<p>{spans(told)}</p>"
    chapter.add("emergence_effects", figure, "emergence.effects_figure", "emergence.effects_subtitle")
