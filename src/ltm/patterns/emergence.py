"""How many tokens a variant needs before an ability leaves chance, analysed like any score.

Reads: `scores/snapshots.parquet` (Snapshot: checkpoints asked the fast items), `scores/reliability.parquet` (chance and
seed sd of every family). An ability has left chance when its score, averaged over families in seed standard deviations,
lies two of them above chance and stays there. The score is minus the binary logarithm of the tokens, so one unit is a
doubling and more is better; a run that never gets there counts as one doubling beyond its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm.patterns.locale import LANGUAGES, number, term
from ltm.patterns.table import Ability, Floats, Table, seed_unit
from ltm.records import Effect, Reliability, Snapshot

_LEFT = 2.0  # seed standard deviations above chance
_FEWEST_CHECKPOINTS = 2
_MOST_NEVER = 0.5  # share of runs that never leave chance, beyond which nothing is estimated


@dataclass(frozen=True)
class Emergence:
    """When one ability leaves chance, over all runs."""

    n_runs: int
    n_never: int
    median_tokens: float  # NaN where half of the runs never do


def tokens_needed(tokens: Sequence[int], score: Floats) -> float:
    """Return the tokens after which a score stays at or above `_LEFT`; infinite where it never does.

    >>> tokens_needed([1000, 2000, 4000], np.array([0.0, 1.0, 3.0])) == 2000 * 2**0.5
    True
    """
    below = np.flatnonzero(score < _LEFT)
    if len(below) and below[-1] == len(score) - 1:
        return math.inf
    if not len(below):
        return float(tokens[0])
    at = int(below[-1])
    share = (_LEFT - float(score[at])) / float(score[at + 1] - score[at])
    low, high = math.log2(tokens[at]), math.log2(tokens[at + 1])
    return float(2.0 ** (low + share * (high - low)))


def emergence_table(
    snapshots: Sequence[Snapshot], reliability: Sequence[Reliability], table: Table
) -> tuple[Table, dict[str, Emergence]]:
    """Return the table of -log2(tokens needed) over the runs of a table of scores, and a summary by ability."""
    facts = {(r.ability, r.family): r for r in reliability}
    series: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in snapshots:
        known = facts.get((row.ability, row.family))
        if known is None or not (known.seed_sd > 0 and math.isfinite(row.value)) or row.tokens <= 0:
            continue
        series[row.ability, row.run_id][row.tokens].append((row.value - known.chance) / known.seed_sd)
    scores: dict[str, Floats] = {}
    abilities: dict[str, Ability] = {}
    summaries: dict[str, Emergence] = {}
    sets = np.array([table.variants[v].set_id for v in table.variant_of], dtype=np.int64)
    for name, own in table.abilities.items():
        found = [_of_run(series.get((name, run_id), {})) for run_id in table.run_ids]
        known_runs = [value for value in found if value is not None]
        if not known_runs:
            continue
        never = sum(not math.isfinite(needed) for needed, _ in known_runs)
        median = float(np.median([needed for needed, _ in known_runs]))
        summaries[name] = Emergence(len(known_runs), never, median if math.isfinite(median) else math.nan)
        if never > _MOST_NEVER * len(known_runs):
            continue
        score = np.array([math.nan if v is None else -math.log2(min(v[0], 2.0 * v[1])) for v in found])
        finite = np.isfinite(score)
        constant = bool(np.std(score[finite]) <= 1e-12)
        noise, sd = ("none", 1.0) if constant else seed_unit(score, table.variant_of, sets)
        scores[name] = score
        abilities[name] = dataclasses.replace(
            own, unit="doubling", unit_sd=1.0, seed_sd=sd, noise=noise, n_runs=int(finite.sum()),
            n_missing=int((~finite).sum()), constant=constant,
        )  # fmt: skip
    return Table(table.run_ids, table.variants, table.variant_of, scores, abilities), summaries


def _of_run(series: Mapping[int, Sequence[float]]) -> tuple[float, int] | None:
    """Return (tokens needed, tokens of the last checkpoint), or None where there are too few checkpoints."""
    if len(series) < _FEWEST_CHECKPOINTS:
        return None
    tokens = sorted(series)
    return tokens_needed(tokens, np.array([float(np.mean(series[t])) for t in tokens])), tokens[-1]


def as_plain(summaries: Mapping[str, Emergence], effects: Sequence[Effect], sentence: Any) -> dict[str, dict[str, Any]]:
    """Return, by ability, when it emerges and what moves that."""
    from ltm.patterns.locale import rounded

    found = {}
    for name, summary in summaries.items():
        claimed = sorted((e for e in effects if e.ability == name and e.claimed), key=lambda e: (e.p, e.kind, e.name))
        found[name] = {
            **{k: rounded(v) if isinstance(v, float) else v for k, v in dataclasses.asdict(summary).items()},
            "text": {language: _words(name, summary, language) for language in LANGUAGES},
            "findings": [
                {"kind": e.kind, "name": e.name, "estimate": rounded(e.estimate), "q": rounded(e.q),
                 "text": {language: sentence(e, "doubling", language) for language in LANGUAGES}}
                for e in claimed
            ],
        }  # fmt: skip
    return found


def _words(name: str, summary: Emergence, language: Any) -> str:
    ability = term("ability", name, language)
    start = ability[:1].upper() + ability[1:]
    known = math.isfinite(summary.median_tokens)
    size = number(summary.median_tokens / 1e6, language) if known else ""
    if language == "en":
        when = f"half of the runs leave chance within {size} million tokens" if known else "most runs stay at chance"
        return f"{start}: {when}; {summary.n_never} of {summary.n_runs} runs never leave it."
    when = f"половина запусков выходит за случайный уровень за {size} млн токенов" if known else "большинство — нет"
    return f"{start}: {when}; не выходят за случайный уровень: {summary.n_never} из {summary.n_runs}."
