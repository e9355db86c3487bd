"""A design that grows: which counts it was drawn for, one after another.

Reads and writes: `design_steps.json`. A larger `sets.count` adds blocks and leaves those that are there, so that no
finished run is lost. The first blocks are those of the first count: a design of 96 variants that grew to 160 is not the
one of 160 drawn at once, though as even as can be (see `Drawer.more`). So the counts belong to what redraws it; they
are kept here before anything is drawn, and in `sets/design.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm.errors import StoreError
from ltm.records import Variant
from ltm.sets.design import Drawer
from ltm.sets.section import SetsSection
from ltm.store import WorkFolder, fingerprint, read_json, write_json

FILE = "design_steps.json"  # not in the folder `sets`, which may be deleted to have the same design drawn again


@dataclass(frozen=True)
class Growth:
    """The counts that a design grows through, the wanted one last, and all that this work folder has seen."""

    counts: list[int]
    paths: list[list[int]]  # latest last
    key: str


def growth(section: SetsSection, drawer: Drawer, work: WorkFolder, method: int) -> Growth:
    """Return how the design of a section comes from what was drawn here before."""
    key = _key(section, drawer, method)
    paths = _stored(work, key)
    counts = counts_for(section.count, paths)
    return Growth(counts, [*(path for path in paths if path != counts), counts], key)


def counts_for(count: int, paths: Sequence[Sequence[int]]) -> list[int]:
    """Return the counts that lead to `count`.

    A count that was drawn before comes back as it was; a larger one than the latest grows out of it; else it is drawn
    at once.

    >>> counts_for(160, [[96]]), counts_for(96, [[96], [96, 160]]), counts_for(60, [[96]])
    ([96, 160], [96], [60])
    """
    for path in reversed(paths):
        if count in path:
            return list(path[: path.index(count) + 1])
    if paths and paths[-1][-1] < count:
        return [*paths[-1], count]
    return [count]


def grown(drawer: Drawer, counts: Sequence[int]) -> list[Variant]:
    """Return the design that was drawn for the first count and grew to the last."""
    variants = drawer.blocks("exploration", counts[0], in_runs=False)
    for count in counts[1:]:
        variants += drawer.more(variants, count)
    return variants


def keep(found: Growth, work: WorkFolder) -> None:
    """Write down what was drawn."""
    write_json(work.path(FILE), {"key": found.key, "paths": found.paths})


def _stored(work: WorkFolder, key: str) -> list[list[int]]:
    """Return the paths that were drawn here from the same books and settings; none where the file is lost."""
    path = work.path(FILE)
    try:
        value: Any = read_json(path) if path.exists() else {}
    except StoreError:
        return []
    return [[int(count) for count in one] for one in value.get("paths", [])] if value.get("key") == key else []


def _key(section: SetsSection, drawer: Drawer, method: int) -> str:
    """Return a fingerprint of all that a design is drawn from, but the count."""
    shelf, digest = drawer.shelf, hashlib.sha256()
    for column in (shelf.year_B, shelf.rank_B, shelf.genre_B, shelf.language_B, shelf.unit_B, shelf.features_BF):
        digest.update(np.ascontiguousarray(column).tobytes())
    for buffer in shelf.book_ids.buffers()[1:]:  # where each id begins, and their letters
        digest.update(buffer or b"")
    values = section.model_dump(exclude={"count", "among"})
    return fingerprint([method, values, drawer.seed, list(shelf.feature_names), digest.hexdigest()])
