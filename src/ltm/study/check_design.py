"""Whether a design can be drawn: rounds that fit their runs, recipes that can be trained, orders whose facts are there.

Reads: the settings and the library's manifest. Facts that only the books themselves tell are looked at when sets are
drawn.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltm.config import Document
from ltm.errors import ConfigError, InputError
from ltm.sets.order import needs
from ltm.sets.shelf import read_ids
from ltm.study import round_sizes
from ltm.study.check_training import check_training
from ltm.study.notes import Notes
from ltm.study.settings import StudySettings, changed_settings

_IN_A_RECIPE = {  # of the section `sets`; all of `runs` and `model`
    *("sets.book_tokens", "sets.epochs", "sets.passage_tokens", "sets.base_order", "sets.spacing", "sets.turns"),
}
_IN_MANIFEST = ("year", "genre")


def check_design(settings: StudySettings, notes: Notes, files: Mapping[str, int] | None) -> None:
    """Note everything about sets and rounds that can be told before the library is read."""
    for key, text in round_sizes.misfits(settings):
        notes.problem(key, text, "rounds", "sets.count", "sets.shares")
    for key, text in round_sizes.warnings(settings):
        notes.warning(key, text, "rounds", "sets.count")
    if settings.rounds.enabled:
        _check_recipes(settings, notes, files)
        if settings.scores.bank == "b":
            text = "is b, but with rounds bank B stays sealed for the confirmation; nearest: a"
            notes.problem("scores.bank", text, "rounds")
    _check_orders(settings, notes)
    _check_spacing(settings, notes)
    _check_sizes(settings, notes)
    if settings.sets.among is not None:
        try:
            n_ids = len(read_ids(settings.sets.among))
        except InputError as error:
            notes.problem("sets.among", f"{error.message} ({error.hint})")
        else:
            if n_ids < settings.sets.books_per_set:
                notes.problem(
                    "sets.among", f"names {n_ids} books, fewer than the {settings.sets.books_per_set} of a set"
                )


def _check_recipes(settings: StudySettings, notes: Notes, files: Mapping[str, int] | None) -> None:
    """Complain of recipes that change what is asked, or that could not be trained."""
    for place, recipe in enumerate(settings.rounds.pilot.recipes):
        key, name = "rounds.pilot.recipes", f"recipe {place + 1}"
        wrong = [k for k in recipe if k not in _IN_A_RECIPE and not k.startswith(("runs.", "model."))]
        if wrong or not recipe:
            allowed = ", ".join(sorted(_IN_A_RECIPE))
            what = f"changes {', '.join(wrong)}" if wrong else "changes nothing"
            notes.problem(key, f"{name} {what}; it may change runs.*, model.*, {allowed}")
            continue
        try:
            changed = changed_settings(settings, recipe)
        except ConfigError as error:
            notes.problem(key, f"{name}: {'; '.join(error.problems)}")
            continue
        own = Notes(Document({}, {}, name))
        check_training(changed, own, files)
        for text in own.problems:
            notes.problem(key, text)


def _check_orders(settings: StudySettings, notes: Notes) -> None:
    """Complain of an order whose fact the manifest does not have for any file, where nothing else could tell it."""
    sets = settings.sets
    wanted = {order: needs(order) for order in sets.contrast_orders} if sets.shares.order > 0 else {}
    wanted = {order: fact for order, fact in wanted.items() if fact in _IN_MANIFEST}
    if not wanted or settings.books.source != "folder" or not settings.books.path:
        return
    known = _facts(settings)
    for order, fact in wanted.items():
        if known is not None and fact not in known:
            text = f"has `{order}`, which needs the {fact} of the books, but the manifest gives none"
            notes.problem("sets.contrast_orders", text, "books.manifest", "books.path")


def _facts(settings: StudySettings) -> set[str] | None:
    """Return which facts the manifest gives for some book; None where files may tell them themselves."""
    from ltm.books.manifest import find_manifest

    root = Path(str(settings.books.path))
    plain = {".txt", ".md"}
    try:
        if any(path.suffix.lower() not in plain for path in _some_files(root)):
            return None
        path = find_manifest(root, settings.books.manifest)
        if path is None:
            return set()
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.DictReader(file)
            return {name for row in rows for name in _IN_MANIFEST if str(row.get(name) or "").strip()}
    except (InputError, OSError, csv.Error):
        return None


def _some_files(root: Path) -> list[Path]:
    """Return the first files of a folder, itself and below; the manifest does not count."""
    found: list[Path] = []
    for path in root.rglob("*"):
        if path.is_file() and path.name != "manifest.csv" and not path.name.startswith("."):
            found.append(path)
        if len(found) >= 500:
            break
    return found


def _check_spacing(settings: StudySettings, notes: Notes) -> None:
    sets = settings.sets
    comes_back = sets.spacing == 0 or ("repetition" in sets.contrast_orders and sets.shares.order > 0)
    if comes_back and sets.epochs < 2:
        key = "sets.spacing" if sets.spacing == 0 else "sets.contrast_orders"
        text = "asks for spaced repetition, but every book is read once; nearest: sets.epochs 2"
        notes.problem(key, text, "sets.epochs")
    if "in_turns" in sets.contrast_orders and sets.turns > sets.books_per_set:
        text = f"is {sets.turns}, above sets.books_per_set {sets.books_per_set}"
        notes.problem("sets.turns", f"{text}; nearest: {sets.books_per_set}", "sets.books_per_set")


def _check_sizes(settings: StudySettings, notes: Notes) -> None:
    """Warn of shares that give a kind of block no block, although it was asked for."""
    sets = settings.sets
    asked: dict[str, Any] = sets.shares.model_dump()
    explored = {size.name: size for size in round_sizes.sizes(settings)}["exploration"]
    for name, share in asked.items():
        if share > 0 and explored.detail and explored.detail.get(name, 0) == 0:
            text = f"is {share:g}, but {explored.n_runs} runs leave no block of that kind"
            notes.warning(f"sets.shares.{name}", text, "sets.count", "rounds")
