"""Everything wrong with a study at once, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ltm.config import Document
from ltm.errors import ConfigError, InputError
from ltm.runs.queue import Recipe
from ltm.study.settings import StudySettings

Say = Callable[[str, str], None]  # report a problem: setting, what is wrong with it

_FEWEST_STEPS = 10
# English takes about 1.3 tokens a word with a vocabulary of 8,000 and 1.8 with 1,000.
_USUAL_WORDS_PER_TOKEN, _MOST_WORDS_PER_TOKEN = 0.55, 0.75


def problems(settings: StudySettings, document: Document) -> list[str]:
    """Return what would stop the study, each with its place in the file; empty = fine."""
    found: list[str] = []

    def say(key: str, text: str) -> None:
        found.append(f"{document.where(tuple(key.split('.')))}: `{key}` {text}")

    _check_library(settings, say)
    _check_training(settings, say)
    _check_eval_file(settings, say)
    _check_context(settings, say)
    return found


def _check_library(settings: StudySettings, say: Say) -> None:
    from ltm.books.stage import inputs

    if settings.books.source == "folder" and settings.books.path is None:
        return  # a recipe that leaves the library to its user; `ltm run` asks for it
    key = "books.path" if settings.books.path else "books.source"
    try:
        files = inputs(settings.books)
    except InputError as error:
        say(key, f"{error.message}" + (f" ({error.hint})" if error.hint else ""))
        return
    n_files = _count_files(files) if settings.books.path else 66
    if n_files is None:
        return
    expected = n_files - max(3, round(n_files * settings.books.held_out_share))
    if settings.sets.books_per_set > expected:
        say(
            "sets.books_per_set",
            f"is {settings.sets.books_per_set}, but the library has {n_files} files, "
            f"of which about {expected} are for training",
        )


def _count_files(listing: dict[str, Any]) -> int | None:
    """Return how many books there can be; None where an archive may hold any number."""
    names = [str(row[0]).lower() for row in listing["files"]]
    return None if any(name.endswith(".zip") for name in names) else len(names)


def _check_training(settings: StudySettings, say: Say) -> None:
    runs, sets = settings.runs, settings.sets
    shape = settings.model.shape(settings.tokens.vocab_size)
    for key in ("batch_tokens", "micro_batch_tokens"):
        value = getattr(runs, key)
        if value % shape.block_size:
            nearest = max(1, round(value / shape.block_size)) * shape.block_size
            say(f"runs.{key}", f"is {value}, not a multiple of the block size {shape.block_size}; nearest: {nearest}")
    n_steps = Recipe(sets, settings.model, runs).n_steps()
    if n_steps < _FEWEST_STEPS:
        say("runs.batch_tokens", f"leaves {n_steps} steps for {sets.run_tokens} tokens a run; at least {_FEWEST_STEPS}")
    if sets.passage_tokens > sets.book_tokens:
        say("sets.passage_tokens", f"is {sets.passage_tokens}, above sets.book_tokens {sets.book_tokens}")
    if sets.spacing > sets.books_per_set:
        say("sets.spacing", f"is {sets.spacing}, above sets.books_per_set {sets.books_per_set}")
    if runs.device == "cuda" or runs.compile or runs.dtype == "bfloat16":
        _check_hardware(settings, say)


def _check_context(settings: StudySettings, say: Say) -> None:
    """Complain when questions cannot fit the model's context: they would be cut or left out."""
    block_size = settings.model.shape(settings.tokens.vocab_size).block_size
    words = settings.evalset.context_words
    if words > _MOST_WORDS_PER_TOKEN * block_size:
        nearest = int(_USUAL_WORDS_PER_TOKEN * block_size)
        say("evalset.context_words", f"is {words}, too long for a context of {block_size} tokens; try {nearest}")


def _check_hardware(settings: StudySettings, say: Say) -> None:
    from ltm.runs import hardware

    try:
        hardware.pick_device(settings.runs)
    except InputError as error:
        say("runs.device", f"{error.message} ({error.hint})")
    if settings.runs.compile and not hardware.has_compiler():
        say("runs.compile", "needs a C++ compiler: install g++, or set runs.compile to false")


def _check_eval_file(settings: StudySettings, say: Say) -> None:
    from ltm.evalset.evalfile import load

    try:
        load(settings.evalset.path)
    except ConfigError as error:
        for problem in error.problems:
            say("evalset.path", problem)
    except InputError as error:
        say("evalset.path", error.message)
