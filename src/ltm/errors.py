"""The family of errors that a user may meet; every one carries a hint: what to do next."""

from __future__ import annotations

from pathlib import Path


class LtmError(Exception):
    """A mistake or a fault that ltm understands and explains.

    Args:
        message: What went wrong, where and why, in one sentence.
        hint: What the user can do next, in one sentence; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class InputError(LtmError):
    """Something the user gave (study, folder, flag) cannot be used as it is."""

    exit_code = 2


class ConfigError(InputError):
    """A study file has one or more problems; `problems` lists them all, `file:line:column` first."""

    def __init__(self, problems: list[str], hint: str = "") -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = problems


class LibraryError(InputError):
    """The library has too few usable books for what the study asks."""


class BookError(LtmError):
    """One file cannot be read as a book; it is rejected and the others go on."""


class StoreError(LtmError):
    """The work folder cannot be written or holds something unusable."""


class BusyError(StoreError):
    """Another process works in this work folder."""

    exit_code = 2


class NotOurs(StoreError):
    """A folder that this ltm must not write to: a newer ltm's, or not a work folder at all."""

    exit_code = 2


class DamagedError(StoreError):
    """A file of the work folder is not what was written, or is gone; what it holds can be made again."""

    def __init__(self, path: Path, hint: str = "`ltm run STUDY` makes it again", missing: bool = False) -> None:
        super().__init__(f"{path} is {'missing' if missing else 'damaged'}", hint)
        self.path, self.missing = path, missing

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str, bool]]:
        return type(self), (self.path, self.hint, self.missing)


class DiskError(StoreError):
    """The disk is full, or so nearly full that going on would fill it."""

    exit_code = 3


class DataError(LtmError):
    """Rows that cross a stage contradict each other or their schema."""


class TrainError(LtmError):
    """A training run cannot go on (for example: its loss is no longer finite)."""


class BudgetError(LtmError):
    """The study's budget is reached, or would be before the study could be finished."""

    exit_code = 3


class MissingPartError(InputError):
    """An optional package is not installed; the hint is the install line."""
