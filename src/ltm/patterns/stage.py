"""The `patterns` stage: from scores to effects, a ranking and findings in words.

Reads: Variant, Run, Measure, Reliability and Book rows. Writes: `patterns/effects.parquet` (Effect),
`patterns/ranking.parquet` (Ranked), `patterns/findings.json` (no times and no paths: equal rows give equal bytes).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ltm.patterns.section import PatternsSection
from ltm.progress import Progress
from ltm.records import Effect, Ranked
from ltm.store import WorkFolder, as_json, read_json, read_rows, write_json, write_rows

VERSION = 2


def build(section: PatternsSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Estimate all effects, rank the variants and write both with their words.

    Returns:
        The findings as plain values.

    Raises:
        StoreError: an earlier stage's file is missing or damaged.
        DataError: no run has a score, or rows contradict each other.
    """
    from ltm.patterns.effects import estimate_effects
    from ltm.patterns.ranking import rank
    from ltm.patterns.table import make_table, read_input

    task = progress.task("patterns", 3, "steps")
    rows = read_input(work)
    table = make_table(rows)
    task.advance(note="scores read")
    estimated = estimate_effects(table, rows.books, section.level, section.redraws, seed)
    task.advance(note="effects estimated")
    ranking = rank(table, section.level)
    found = _findings(section, table, estimated, ranking)
    write_rows(work.path("patterns", "effects.parquet"), estimated.effects, Effect)
    write_rows(work.path("patterns", "ranking.parquet"), ranking.rows, Ranked)
    write_json(work.path("patterns", "findings.json"), found)
    task.advance(note=f"{len(found['findings'])} findings")
    return found


def _findings(section: PatternsSection, table: Any, estimated: Any, ranking: Any) -> dict[str, Any]:
    from ltm.patterns import words
    from ltm.patterns.locale import rounded

    abilities = {}
    for name, facts in table.abilities.items():
        summary = asdict(estimated.summaries[name]) if name in estimated.summaries else {}
        values = {**asdict(facts), **summary}
        abilities[name] = {
            key: rounded(value) if isinstance(value, float) else list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
        }
    return {
        "level": section.level,
        "redraws": section.redraws,
        "n_runs": len(table.run_ids),
        "n_variants": len(table.variants),
        "n_sets": len({v.set_id for v in table.variants}),
        "n_blocks": len({v.block for v in table.variants}),
        "dropped": table.dropped,
        "abilities": abilities,
        "findings": words.findings(estimated.effects, table.abilities),
        "not_told_apart": words.not_told_apart(estimated.effects, table.abilities),
        "notes": words.notes(table, estimated, ranking),
        "ranked_by": list(ranking.by),
        "n_tied_with_best": sum(row.tied_with_best for row in ranking.rows),
        "top": [_placed(row) for row in ranking.rows[: section.top]],
    }


def _placed(row: Ranked) -> dict[str, Any]:
    from ltm.patterns.locale import rounded

    values = as_json(row)
    values["abilities"] = {name: rounded(value) for name, value in row.abilities.items()}
    return {key: rounded(value) if isinstance(value, float) else value for key, value in values.items()}


def report(work: WorkFolder) -> dict[str, Any]:
    """Return what `ltm patterns STUDY --json` prints: `effects`, `top` (best first), `findings`, `abilities`, ...

    Raises:
        StoreError: the stage is not finished, or its files are damaged.
    """
    found = read_json(work.path("patterns", "findings.json"))
    effects = read_rows(work.path("patterns", "effects.parquet"), Effect)
    return {**found, "effects": [as_json(effect) for effect in effects]}
