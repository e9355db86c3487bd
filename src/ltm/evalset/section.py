"""The `evalset` section of a study: which eval file, how many items, how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltm.config import Section


class EvalsetSection(Section):
    """The questions that every model is asked; they are cut from books that no model is trained on."""

    path: str | None = None
    """An eval file of your own; without it the one that comes with ltm (`ltm_eval_set.yaml`) is used."""
    items_per_family: Annotated[int, Field(ge=1, le=20_000)] | None = None
    """Items of every family in each bank; without it the number that stands in the eval file. A family that is off
    there (0 items) stays off."""
    context_words: Annotated[int, Field(ge=40, le=4000)] = 140
    """Words of the longest item, context and continuation together. 140 words of English are about 220 tokens of a
    2048-word vocabulary; raise it with the model's block size."""
    max_books: Annotated[int, Field(ge=1)] = 100
    """Held-out books that a bank is cut from at most; they are chosen evenly over the genres."""
