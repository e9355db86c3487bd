"""Where runs come from: every run that a work folder has ever asked for, with all that its id is the fingerprint of.

Reads: `runs/jobs.json`, `runs/<run_id>/run.json`, `runs/recipes/`, `sets/variants.parquet`, and what is kept of them in
`earlier/`. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ltm.books.catalogue import read_books
from ltm.errors import InputError, LtmError, StoreError
from ltm.records import Book, Variant
from ltm.runs import queue
from ltm.store import WorkFolder, read_json, read_rows
from ltm.study.edits import EARLIER

_OF_VARIANT = ("book_ids", "order", "gap_kind", "density", "spacing", "stream_seed")  # what its id is made of
_NAMES = {"version": "training code", "tokenizer": "tokenizer"}
BOOKS = "variant.book_ids"


@dataclass(frozen=True)
class Origin:
    """All that one run's id is the fingerprint of.

    Args:
        run_id: Of the run.
        variant_id: Of its training set.
        cuts: How its books were cut into tokens.
        seed: Of its initial weights.
        shared: What all runs of its study were made from; None where it was lost.
        variant: Its training set; None where it was lost.
        wanted: Whether the present queue asks for it.
        index: Its place in its design.
    """

    run_id: str
    variant_id: str
    cuts: str
    seed: int
    shared: dict[str, Any] | None
    variant: Variant | None
    wanted: bool
    index: int = -1

    @property
    def recomputed(self) -> str | None:
        """The id that all this gives; None where a part was lost."""
        if self.shared is None:
            return None
        return queue.run_id_of(self.shared, self.variant_id, self.cuts, self.seed)

    def made_from(self) -> dict[str, Any]:
        """Return everything flat, by name as in the study file; equal values mean the same run."""
        found: dict[str, Any] = {}
        for key, value in (self.shared or {}).items():
            if isinstance(value, Mapping):
                found |= _flat(value, f"{key}.")
            else:
                found[_NAMES.get(key, key)] = value
        if self.variant is not None:
            found |= {f"variant.{name}": getattr(self.variant, name) for name in _OF_VARIANT}
        else:
            found["variant"] = self.variant_id
        return {**found, "cuts": self.cuts, "init_seed": self.seed}


def origins(work: WorkFolder) -> dict[str, Origin]:
    """Return every run that is known, the present queue's first, by id.

    Raises:
        StoreError: the study has no runs yet.
    """
    found: dict[str, Origin] = {}
    variants = _variants(work)
    _add(found, queue.read_jobs(work)[1], queue.read_shared(work), variants, wanted=True)
    for folder in sorted(work.path(EARLIER).glob("*/about.json")):
        about = _read(work, EARLIER, folder.parent.name, "about.json")
        value = _read(work, EARLIER, folder.parent.name, "jobs.json")
        past = [queue.Job(**job) for job in value.get("jobs", [])]
        then = {key: recipe_of(work, str(name)) for key, name in about.get("recipes", {}).items()}
        _add(found, past, then, variants, wanted=False)
    for path in sorted(work.path("runs").glob("*/run.json")):
        run = queue.read_run(work, path.parent.name)
        if run is not None and run.run_id not in found and run.recipe:
            shared = recipe_of(work, run.recipe)
            variant = variants.get(run.variant_id)
            found[run.run_id] = Origin(
                run.run_id, run.variant_id, run.cuts, run.init_seed, shared, variant, False,
                -1 if variant is None else variant.index,
            )  # fmt: skip
    return found


def recipe_of(work: WorkFolder, name: str) -> dict[str, Any] | None:
    """Return what the runs of a recipe were made from; None where it was lost or damaged."""
    return _read(work, "runs", "recipes", f"{name}.json") or None


def find_run(work: WorkFolder, wanted: str, known: Iterable[str]) -> str:
    """Return the run id that a text is or begins.

    Raises:
        InputError: none or several are called so.
    """
    ids = list(known)
    matches = [wanted] if wanted in ids else sorted(run_id for run_id in ids if wanted and run_id.startswith(wanted))
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise InputError(
            f"no run in {work.root} begins with `{wanted}`", "ids: ltm sql STUDY 'select run_id, final_loss from runs'"
        )
    shown = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
    raise InputError(f"`{wanted}` is the beginning of {len(matches)} runs: {shown}", "give more of the id")


def nearest(origin: Origin, among: Iterable[Origin]) -> Origin | None:
    """Return the run that differs in the fewest things, the same place in the design preferred; None if none is near.

    Raises nothing: a run with a lost recipe is compared by what is left.
    """
    own = origin.made_from()

    def distance(other: Origin) -> tuple[int, int, str]:
        theirs = other.made_from()
        n = sum(own.get(key) != theirs.get(key) for key in own.keys() | theirs.keys())
        return n + (other.seed != origin.seed), int(other.index != origin.index), other.run_id

    return min((other for other in among if other.run_id != origin.run_id), key=distance, default=None)


def changes(old: Mapping[str, Any], new: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """Return `name: old -> new` for all that differs between two runs' origins; books by title, order in words."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        one, two = old.get(key), new.get(key)
        if one == two:
            continue
        if key == BOOKS and isinstance(one, list) and isinstance(two, list):
            lines += book_changes(one, two, titles)
        else:
            lines.append(f"{key}: {plain(one)} -> {plain(two)}")
    return lines


def book_changes(old: list[str], new: list[str], titles: Mapping[str, str]) -> list[str]:
    """Return which books left, which came, and whether the common ones stand in another order."""
    lines = []
    for words, these, others in (("left", old, set(new)), ("came", new, set(old))):
        if names := [titles.get(book, book) for book in these if book not in others]:
            lines.append(f"{len(names)} {'book' if len(names) == 1 else 'books'} {words}: {', '.join(names)}")
    common_old = [book for book in old if book in set(new)]
    common_new = [book for book in new if book in set(old)]
    if common_old != common_new:
        agree = order_agreement(common_old, common_new)
        first = next(i for i, (a, b) in enumerate(zip(common_old, common_new, strict=True)) if a != b)
        one, two = (titles.get(books[first], books[first]) for books in (common_old, common_new))
        lines.append(
            f"order of the {len(common_old)} common books differs: {agree:.0%} of pairs stand in the same order; "
            f"first at place {first + 1}: {one} -> {two}"
        )
    return lines


def order_agreement(old: list[str], new: list[str]) -> float:
    """Return the share of pairs of books that stand in the same order in both lists (1 - Kendall's distance).

    >>> order_agreement(["a", "b", "c"], ["c", "b", "a"]), order_agreement(["a", "b", "c"], ["a", "c", "b"])
    (0.0, 0.6666666666666666)
    """
    place = {book: i for i, book in enumerate(new)}
    ranks = [place[book] for book in old]
    n_pairs = len(ranks) * (len(ranks) - 1) // 2
    same = sum(ranks[i] < ranks[j] for i in range(len(ranks)) for j in range(i + 1, len(ranks)))
    return same / n_pairs if n_pairs else 1.0


def titles_of(work: WorkFolder, book_ids: Iterable[str]) -> dict[str, str]:
    """Return the titles of books that the catalogue still has."""
    try:
        books: list[Book] = read_books(work, book_ids)
    except LtmError:
        return {}
    return {book.book_id: book.title for book in books}


def plain(value: Any) -> str:
    """Return a setting's value as it stands in a study file; what is not set is said so."""
    if value is None:
        return "(none)"
    return "true" if value is True else "false" if value is False else str(value)


def _add(
    found: dict[str, Origin],
    jobs: Iterable[queue.Job],
    recipes: Mapping[str, dict[str, Any] | None],
    variants: Mapping[str, Variant],
    wanted: bool,
) -> None:
    for job in jobs:
        if job.run_id not in found:
            found[job.run_id] = Origin(
                job.run_id,
                job.variant_id,
                job.cuts,
                job.init_seed,
                recipes.get(job.recipe),
                variants.get(job.variant_id),
                wanted,
                job.variant_index,
            )


def _variants(work: WorkFolder) -> dict[str, Variant]:
    """Return all variants, earlier designs' too, by id."""
    found: dict[str, Variant] = {}
    paths = [work.path("sets", "variants.parquet"), *sorted(work.path(EARLIER).glob("*/variants.parquet"))]
    for path in paths:
        try:
            rows = read_rows(path, Variant)
        except (StoreError, LtmError):
            continue  # of an older ltm, or damaged: it explains nothing
        for variant in rows:
            found.setdefault(variant.variant_id, variant)
    return found


def _read(work: WorkFolder, *parts: str) -> dict[str, Any]:
    try:
        value = read_json(work.path(*parts))
    except StoreError:
        return {}
    return value if isinstance(value, dict) else {}


def _flat(value: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, child in value.items():
        found |= _flat(child, f"{prefix}{key}.") if isinstance(child, Mapping) else {f"{prefix}{key}": child}
    return found
