"""`ltm patterns STUDY --scores FILE.csv`: the study's stored design with scores from elsewhere.

Reads: the CSV (see `given`), `sets/`, `books/catalogue.parquet`, `runs/jobs.json` where it is. Writes: nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltm.patterns.analysis import analyse, findings, placed
from ltm.patterns.confirmed import confirm
from ltm.patterns.context import read_context
from ltm.patterns.given import read_scores, table_of
from ltm.patterns.section import PatternsSection
from ltm.patterns.stage import conditions
from ltm.patterns.table import joint_unit
from ltm.records import Variant
from ltm.store import WorkFolder, as_json, read_json, read_rows


def analyse_scores(section: PatternsSection, work: WorkFolder, seed: int, path: Path) -> dict[str, Any]:
    """Return what a table of scores says about the design of a study, as plain values.

    Estimates are in the units of the given scores; `abilities.*.seed_sd` is one seed standard deviation in them. Ranks
    over several abilities are by their mean in seed standard deviations, of one ability in its own units.

    Raises:
        InputError: the table cannot be read.
        StoreError: the study has no design yet.
        DataError: no row names a run of the design.
    """
    variants = read_rows(work.path("sets", "variants.parquet"), Variant)
    given = table_of(read_scores(path), variants, stored_jobs(work), path.name)
    analysis = analyse(section, given.table, read_context(work, given.table.variants), seed)
    found = findings(section, analysis)
    ranked = analysis.ranking
    unit = joint_unit(given.table, ranked.by)[1]
    variants_out = placed(ranked.rows)
    for row in variants_out:
        for key in ("posterior", "low", "high", "raw"):
            row[key] = None if row[key] is None else row[key] * unit
    return {
        **found,
        "confirmed": confirm(given.table, ranked),
        "conditions": conditions(work),
        "scores": {"file": path.name, "rows": given.n_rows, "used": given.n_used, "unit": "score"},
        "effects": [as_json(effect) for effect in analysis.estimated.effects],
        "variants": variants_out,
        "top": variants_out[: section.top],
    }


def stored_jobs(work: WorkFolder) -> dict[str, tuple[int, int]]:
    """Return run id -> (index of the variant, init seed) of the stored queue; empty where runs were never laid out."""
    path = work.path("runs", "jobs.json")
    if not path.exists():
        return {}
    return {job["run_id"]: (int(job["variant_index"]), int(job["init_seed"])) for job in read_json(path)["jobs"]}
