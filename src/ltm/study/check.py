"""Everything wrong with a study at once, before anything is trained.

Reads: the study file, names and sizes of the library's files, the questions, what this machine can compute in. PyTorch
is loaded only where a card has to be asked about, so that the answer comes in a fraction of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltm.config import Document
from ltm.errors import ConfigError, InputError
from ltm.study.check_base import check_base
from ltm.study.check_design import check_design
from ltm.study.check_machine import check_machine
from ltm.study.check_trackers import check_trackers
from ltm.study.check_training import check_training
from ltm.study.notes import Notes
from ltm.study.settings import StudySettings

# English takes about 1.3 tokens a word with a vocabulary of 8,000 and 1.8 with 1,000.
_USUAL_WORDS_PER_TOKEN, _MOST_WORDS_PER_TOKEN = 0.55, 0.75


def findings(settings: StudySettings, document: Document, unread: frozenset[str] = frozenset()) -> Notes:
    """Return what would stop the study and what is hardly meant.

    Args:
        settings: The study.
        document: Its file, for the places.
        unread: Settings that stand at their default because their own value cannot be read (see `check_file`).
    """
    notes = Notes(document, unread)
    files = _check_library(settings, notes)
    if not check_base(settings, notes):
        return notes  # of a model without a shape nothing else can be said
    check_training(settings, notes, files)
    check_design(settings, notes, files)
    check_machine(settings, notes)
    _check_eval_file(settings, notes)
    _check_context(settings, notes)
    check_trackers(settings, notes)
    _check_dialogue(settings, notes)
    return notes


def _check_library(settings: StudySettings, notes: Notes) -> dict[str, int] | None:
    """Return the bytes of each file of the library; None where they are not known before it is read."""
    from ltm.books.stage import inputs

    if settings.books.source == "folder" and settings.books.path is None:
        return None  # a recipe that leaves the library to its user; `ltm run` asks for it
    key = "books.path" if settings.books.path else "books.source"
    try:
        listing = inputs(settings.books)
    except InputError as error:
        notes.problem(key, f"{error.message}" + (f" ({error.hint})" if error.hint else ""), "books")
        return None
    files = _files(listing) if settings.books.path else None
    n_files = 66 if not settings.books.path else len(files) if files is not None else None
    if n_files is None:
        return None
    expected = n_files - max(3, round(n_files * settings.books.held_out_share))
    if settings.sets.books_per_set > expected:
        notes.problem(
            "sets.books_per_set",
            f"is {settings.sets.books_per_set}, but the library has {n_files} files, "
            f"of which about {expected} are for training",
            "books",
        )
    return files


def _files(listing: dict[str, Any]) -> dict[str, int] | None:
    """Return bytes by file name; None where an archive may hold any number of books."""
    found = {str(row[0]): int(row[1]) for row in listing["files"]}
    return None if any(name.lower().endswith(".zip") for name in found) else found


def _check_context(settings: StudySettings, notes: Notes) -> None:
    """Complain when questions cannot fit the model's context: they would be cut or left out."""
    block_size = settings.model.shape(settings.tokens.vocab_size).block_size
    words = settings.evalset.context_words
    if words > _MOST_WORDS_PER_TOKEN * block_size:
        nearest = int(_USUAL_WORDS_PER_TOKEN * block_size)
        text = f"is {words}, too long for a context of {block_size} tokens; try {nearest}"
        notes.problem("evalset.context_words", text, "model.block_size", "model.size")


def _check_eval_file(settings: StudySettings, notes: Notes) -> None:
    from ltm.evalset.questions import questions

    try:
        questions(settings.evalset)
    except ConfigError as error:
        for problem in error.problems:
            notes.problem("evalset.path", problem)
    except InputError as error:
        notes.problem("evalset.path", error.message)


def _check_dialogue(settings: StudySettings, notes: Notes) -> None:
    from ltm.dialogue.conversations import read_file

    if settings.dialogue.path is None or settings.dialogue.top == 0:
        return
    try:
        sum(1 for _ in read_file(Path(settings.dialogue.path)))
    except ConfigError as error:
        for problem in error.problems:
            notes.problem("dialogue.path", problem)
    except InputError as error:
        notes.problem("dialogue.path", error.message)
