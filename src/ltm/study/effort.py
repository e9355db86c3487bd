"""How much a rehearsal may do, and what it finds out about the library: words that plan and rehearsal share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How much a rehearsal may do."""

    library_bytes: int
    run_seconds: float  # of one timed job
    rounds: int
    score_seconds: float  # of one model that answers questions
    after: bool  # patterns and page too


THOROUGH = Effort(24_000_000, 4.0, 3, 3.0, True)
BRIEF = Effort(2_000_000, 1.0, 2, 0.7, False)  # it is part of the run, and is not to lengthen a small one


@dataclass(frozen=True)
class Library:
    """What a library will be once it is read: measured where it stands, otherwise scaled up from a sample."""

    n_files: int
    file_bytes: float
    train_books: int
    train_bytes: float
    held_out_books: float  # of both banks together
    exact: bool
