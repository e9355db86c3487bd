"""The `patterns` stage: from scores to effects, a ranking and findings in words.

Reads: Variant, Run, Measure, Reliability and Book rows. Writes: `patterns/effects.parquet` (Effect),
`patterns/ranking.parquet` (Ranked), `patterns/findings.json` (no times and no paths: equal rows give equal bytes).
"""

from __future__ import annotations

from typing import Any

from ltm.patterns.section import PatternsSection
from ltm.progress import Progress
from ltm.records import Effect, Ranked
from ltm.store import WorkFolder, as_json, read_json, read_rows, write_json, write_rows

VERSION = 3


def build(section: PatternsSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Estimate all effects, rank the variants and write both with their words.

    Returns:
        The findings as plain values.

    Raises:
        StoreError: an earlier stage's file is missing or damaged.
        DataError: no run has a score, or rows contradict each other.
    """
    from ltm.patterns.analysis import analyse, findings
    from ltm.patterns.context import read_context
    from ltm.patterns.table import make_table, read_input

    task = progress.task("patterns", 3, "steps")
    table = make_table(read_input(work))
    context = read_context(work, table.variants)
    task.advance(note="scores read")
    analysis = analyse(section, table, context, seed)
    task.advance(note="effects estimated")
    found = findings(section, analysis)
    write_rows(work.path("patterns", "effects.parquet"), analysis.estimated.effects, Effect)
    write_rows(work.path("patterns", "ranking.parquet"), analysis.ranking.rows, Ranked)
    write_json(work.path("patterns", "findings.json"), found)
    task.advance(note=f"{len(found['findings'])} findings")
    return found


def report(work: WorkFolder) -> dict[str, Any]:
    """Return what `ltm patterns STUDY --json` prints: `effects`, `top` (best first), `findings`, `abilities`, ...

    Raises:
        StoreError: the stage is not finished, or its files are damaged.
    """
    from ltm.patterns.analysis import placed

    found = read_json(work.path("patterns", "findings.json"))
    effects = read_rows(work.path("patterns", "effects.parquet"), Effect)
    ranked = read_rows(work.path("patterns", "ranking.parquet"), Ranked)
    return {**found, "effects": [as_json(effect) for effect in effects], "variants": placed(ranked)}
