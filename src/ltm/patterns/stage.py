"""The `patterns` stage: from scores to effects, a ranking and findings in words.

Reads: Variant, Run, Measure, Reliability and Book rows. Writes: `patterns/effects.parquet` (Effect),
`patterns/ranking.parquet` (Ranked), `patterns/findings.json` (no times and no paths: equal rows give equal bytes).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ltm.patterns.section import PatternsSection
from ltm.progress import Progress
from ltm.records import Effect, Measure, Ranked, Snapshot
from ltm.store import WorkFolder, as_json, read_json, read_rows, write_json, write_rows

if TYPE_CHECKING:
    from ltm.patterns.analysis import Analysis
    from ltm.patterns.table import Rows

VERSION = 7


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
    rows = read_input(work)
    table = make_table(rows)
    context = read_context(work, table.variants)
    task.advance(note="scores read")
    analysis = analyse(section, table, context, seed)
    task.advance(note="effects estimated")
    found = {
        **findings(section, analysis),
        "confirmed": _confirmed(work, rows, analysis),
        "emergence": _emergence(section, work, rows, analysis, seed),
        "conditions": conditions(work),
    }
    write_rows(work.path("patterns", "effects.parquet"), analysis.estimated.effects, Effect)
    write_rows(work.path("patterns", "ranking.parquet"), analysis.ranking.rows, Ranked)
    write_json(work.path("patterns", "findings.json"), found)
    task.advance(note=f"{len(found['findings'])} findings")
    return found


def _confirmed(work: WorkFolder, rows: Rows, analysis: Analysis) -> Any:
    """Return what the sealed bank says of the finalists; None before there is a confirmation."""
    from ltm.patterns.confirmed import confirm
    from ltm.patterns.table import make_table

    path = work.path("scores", "confirmed.parquet")
    measures = read_rows(path, Measure) if path.exists() else []
    if not measures:
        return None
    table = make_table(dataclasses.replace(rows, measures=[*rows.measures, *measures]))
    return confirm(table, analysis.ranking, analysis.table)


def _emergence(section: PatternsSection, work: WorkFolder, rows: Rows, analysis: Analysis, seed: int) -> Any:
    """Return when abilities leave chance, and what moves that; empty without scored checkpoints."""
    from ltm.patterns.effects import estimate_effects
    from ltm.patterns.emergence import as_plain, emergence_table
    from ltm.patterns.sentences import sentence

    path = work.path("scores", "snapshots.parquet")
    snapshots = read_rows(path, Snapshot) if path.exists() else []
    if not snapshots:
        return {}
    table, summaries = emergence_table(snapshots, rows.reliability, analysis.table)
    context = analysis.context
    found = estimate_effects(
        table, context.books, section.level, section.redraws, seed, context.clusters, context.kernel
    )
    write_rows(work.path("patterns", "emergence.parquet"), found.effects, Effect)
    return as_plain(summaries, found.effects, sentence)


def conditions(work: WorkFolder) -> dict[str, Any]:
    """Return what all claims are conditional on, as the study's settings say it."""
    path = work.path("study.json")
    if not path.exists():
        return {}
    study = read_json(path)
    picked = {
        "model": ("size", "parametrization"),
        "runs": ("optimizer", "lr", "schedule", "weight_decay", "batch_tokens", "document_mask"),
        "sets": ("books_per_set", "book_tokens", "epochs", "base_order", "common_init"),
        "tokens": ("vocab_size",),
    }
    return {
        f"{part}.{key}": study[part][key] for part, keys in picked.items() for key in keys if key in study.get(part, {})
    }


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
