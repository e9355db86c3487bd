"""What the patterns read of a study beside its scores: books, clusters, the schedule, and whether the design is whole.

Reads: `books/catalogue.parquet` (Book, only those that are needed), `sets/clusters.parquet` (Cluster),
`sets/design.json`, `runs/jobs.json` or `study.json` (the training recipe).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ltm.patterns.order import schedule_kernel
from ltm.patterns.table import Floats
from ltm.records import Book, Cluster, Shard, Variant, from_table
from ltm.store import WorkFolder, read_json, read_rows

UNIQUE = "unique_share"  # of a book's token quota: text that is not repeated


@dataclass(frozen=True)
class Context:
    """What every analysis of one study shares."""

    books: Mapping[str, Book]  # those of the design, and those of the eval set
    clusters: Mapping[str, int] = field(default_factory=dict)
    kernel: Floats | None = None  # weight of each part of one epoch in the final weights; None = not known
    edited: str = ""  # why the stored design cannot be trusted; empty = it can


def read_context(work: WorkFolder, variants: Iterable[Variant]) -> Context:
    """Read the context of a study; what is not there is left empty."""
    used = {book_id for variant in variants for book_id in variant.book_ids}
    clusters = work.path("sets", "clusters.parquet")
    rows = read_rows(clusters, Cluster) if clusters.exists() else []
    return Context(
        _with_unique_share(work, read_books(work, used)),
        {row.book_id: row.cluster for row in rows},
        read_kernel(work),
        edited(work),
    )


def read_books(work: WorkFolder, used: set[str]) -> dict[str, Book]:
    """Return the books that some set holds and those of the eval set; a library may have a million others."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = work.path("books", "catalogue.parquet")
    if not path.exists():
        return {}
    wanted = pc.field("book_id").isin(pa.array(sorted(used), type=pa.string())) | (pc.field("pool") != "train")
    return {book.book_id: book for book in from_table(pq.read_table(path, filters=wanted), Book)}


def _with_unique_share(work: WorkFolder, books: dict[str, Book]) -> dict[str, Book]:
    """Return the books with the share of their token quota that is text of its own: a short book is read again."""
    path = work.path("tokens", "shards.parquet")
    study = work.path("study.json")
    if not path.exists() or not study.exists():
        return books
    quota = read_json(study).get("sets", {}).get("book_tokens", 0)
    share = {s.book_id: min(1.0, s.n_tokens / quota) for s in read_rows(path, Shard)} if quota else {}
    return {
        b: replace(book, features={**book.features, UNIQUE: share[b]}) if b in share else book
        for b, book in books.items()
    }


def read_kernel(work: WorkFolder) -> Floats | None:
    """Return the schedule's kernel over one epoch of a run, or None where the recipe is not known."""
    from ltm.runs.schedule import learning_rate
    from ltm.runs.section import RunsSection
    from ltm.sets.section import SetsSection

    for name in (("runs", "jobs.json"), ("study.json",)):
        path = work.path(*name)
        if path.exists():
            value: dict[str, Any] = read_json(path)
            if "runs" not in value or "sets" not in value:
                continue
            runs = RunsSection(**_known(RunsSection, value["runs"]))
            sets = SetsSection(**_known(SetsSection, value["sets"]))
            n_steps = max(1, sets.run_tokens // runs.batch_tokens)
            rates = np.array([learning_rate(runs, step, n_steps) for step in range(n_steps)])
            kernel = schedule_kernel(rates, runs.weight_decay)
            per_epoch = n_steps // sets.epochs
            if sets.epochs > 1 and per_epoch:
                kernel = kernel[: per_epoch * sets.epochs].reshape(sets.epochs, per_epoch).mean(axis=0)
            return kernel
    return None


def _known(section: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in section.model_fields}


def edited(work: WorkFolder) -> str:
    """Return why the stored design is not the one that was drawn; empty where it is, or where no hash was stored."""
    from ltm.sets.stage import verify

    return verify(work) if work.path("sets", "design.json").exists() else ""
