"""Draw the design of a study and store it so that it can be redrawn exactly.

Reads: `books/catalogue.parquet` (Book). Writes: `sets/variants.parquet` (Variant), `sets/design.json`.
"""

from __future__ import annotations

from typing import Any

from ltm.progress import Progress
from ltm.records import Book, Variant
from ltm.sets.design import draw
from ltm.sets.section import SetsSection
from ltm.store import WorkFolder, fingerprint, read_json, read_rows, write_json, write_rows

VERSION = 2


def build(section: SetsSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Draw the variants; returns their ids."""
    books = [b for b in read_rows(work.path("books", "catalogue.parquet"), Book) if b.pool == "train"]
    variants, design = draw(section, books, seed)
    ids = [v.variant_id for v in variants]
    write_rows(work.path("sets", "variants.parquet"), variants, Variant)
    write_json(work.path("sets", "design.json"), {**design, "hash": fingerprint(ids), "settings": section.model_dump()})
    low, high = design["balance"]["sets_per_book"]
    progress.say(
        f"sets      {len(variants)} variants of {section.books_per_set} books in {design['n_sets']} sets, "
        f"{design['n_runs']} runs; each book stands in {low}-{high} sets"
    )
    return ids


def read_variants(work: WorkFolder) -> list[Variant]:
    """Return the variants of the stored design, in design order."""
    return read_rows(work.path("sets", "variants.parquet"), Variant)


def report(work: WorkFolder) -> dict[str, Any]:
    """Return the stored design for `ltm sets STUDY --json`."""
    design: dict[str, Any] = read_json(work.path("sets", "design.json"))
    return design
