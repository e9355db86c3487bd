"""Draw the design of a study and store it so that it can be redrawn exactly.

Reads: `books/catalogue.parquet` (Book), `design_steps.json`. Writes: `sets/variants.parquet` (Variant),
`sets/design.json` (seed, settings, balance and a hash of every variant), `design_steps.json` (which counts the design
grew through), `sets/clusters.parquet` (Cluster) where sets lean towards kinds of books.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ltm.errors import StoreError
from ltm.progress import Progress
from ltm.records import Cluster, Variant, schema
from ltm.sets import steps
from ltm.sets.design import Drawer
from ltm.sets.section import SetsSection
from ltm.sets.shelf import read_ids, read_shelf
from ltm.store import WorkFolder, fingerprint, read_json, read_rows, write_json, write_rows, write_table

VERSION = 4
METHOD = 1  # of drawing; together with seed and settings it says what a p-value redraws


def inputs(section: SetsSection) -> Any:
    """Return what the design is made from beside settings and books: the ids in the file `among`.

    Raises:
        InputError: the file cannot be read.
    """
    return None if section.among is None else fingerprint(read_ids(section.among))


def build(section: SetsSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Draw the variants of a study of one round; returns their ids.

    Raises:
        LibraryError: there are too few books, or an order needs what no book has.
    """
    drawer = open_drawer(section, work, seed)
    found = steps.growth(section, drawer, work, METHOD)
    steps.keep(found, work)  # before the sets: a start that is killed now goes on to the same ones
    made = store(drawer, work, steps.grown(drawer, found.counts), progress, {"counts": found.counts})
    if len(found.counts) > 1:
        progress.say(f"sets      the first {found.counts[-2]} variants are those that were there, the others are new")
    return made


def drawn(section: SetsSection, work: WorkFolder, seed: int) -> list[Variant]:
    """Return the design of a study of one round as `build` would draw it; nothing is written."""
    drawer = open_drawer(section, work, seed)
    return steps.grown(drawer, steps.growth(section, drawer, work, METHOD).counts)


def open_drawer(section: SetsSection, work: WorkFolder, seed: int) -> Drawer:
    """Return what draws the sets of a study from its library."""
    return Drawer(section, read_shelf(work, section.editions, section.among), seed)


def store(
    drawer: Drawer,
    work: WorkFolder,
    variants: Sequence[Variant],
    progress: Progress,
    more: dict[str, Any] | None = None,
) -> Any:
    """Write a design, its description (with what `more` adds) and its clusters; returns the ids of its variants."""
    section = drawer.section
    design = drawer.describe(variants)
    write_rows(work.path("sets", "variants.parquet"), variants, Variant)
    _store_clusters(drawer, work)
    about = {"hash": hash_of(variants), "books_hash": _books_hash(variants), "method": METHOD}
    settings = section.model_dump(exclude={"among"})
    write_json(work.path("sets", "design.json"), {**design, **about, "settings": settings, **(more or {})})
    low, high = design["balance"]["sets_per_book"]
    kinds = f", leaning towards {design['kinds']['n_kinds']} kinds of books" if "kinds" in design else ""
    progress.say(
        f"sets      {len(variants)} variants of {section.books_per_set} books in {design['n_sets']} sets{kinds}, "
        f"{design['n_runs']} runs; each book stands in {low}-{high} sets"
    )
    for note in design["notes"]:
        progress.say(f"warning: {note}")
    return [v.variant_id for v in variants]


def hash_of(variants: Sequence[Variant]) -> str:
    """Return a hash of everything that a design says of its variants."""
    names = [field.name for field in dataclasses.fields(Variant)]
    return fingerprint([{name: getattr(v, name) for name in names} for v in variants])


def _books_hash(variants: Sequence[Variant]) -> str:
    return fingerprint(sorted({book for v in variants for book in v.book_ids}))


def _store_clusters(drawer: Drawer, work: WorkFolder) -> None:
    """Write the kind of every book, in columns: a million rows are no million objects."""
    path = work.path("sets", "clusters.parquet")
    if drawer.cluster_B is None:
        path.unlink(missing_ok=True)
        return
    import pyarrow as pa

    columns = [drawer.shelf.book_ids, pa.array(drawer.cluster_B)]
    write_table(path, pa.Table.from_arrays(columns, schema=schema(Cluster)))


def read_variants(work: WorkFolder) -> list[Variant]:
    """Return the variants of the stored design, in design order."""
    return read_rows(work.path("sets", "variants.parquet"), Variant)


def verify(work: WorkFolder) -> str:
    """Return why the stored design cannot be trusted, or nothing.

    A p-value redraws what the design says was drawn; a design that was edited afterwards says nothing of the kind.
    """
    design = read_json(work.path("sets", "design.json"))
    variants = read_variants(work)
    ids = [v.variant_id for v in variants]
    if len(set(ids)) < len(ids):
        return f"sets/variants.parquet has {len(ids) - len(set(ids))} duplicated variants"
    if design.get("hash") != hash_of(variants):
        return "sets/variants.parquet was changed after it was drawn: its hash is not the one in sets/design.json"
    return ""


def refuse_if_edited(work: WorkFolder) -> None:
    """Raise where the stored design is not the one that was drawn.

    Raises:
        StoreError: says what differs.
    """
    if problem := verify(work):
        raise StoreError(problem, "delete the folder `sets` to draw the same design again: runs that fit it are kept")


def used_books(work: WorkFolder) -> str:
    """Return a fingerprint of which books some variant uses: tokens depend on nothing else of a design."""
    design: dict[str, Any] = read_json(work.path("sets", "design.json"))
    return str(design.get("books_hash", design.get("hash")))


def report(work: WorkFolder) -> dict[str, Any]:
    """Return the stored design for `ltm sets STUDY --json`.

    Raises:
        StoreError: there is none, or it was edited.
    """
    refuse_if_edited(work)
    design: dict[str, Any] = read_json(work.path("sets", "design.json"))
    return design
