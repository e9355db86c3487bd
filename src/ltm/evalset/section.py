"""The `evalset` section of a study: which eval file, which families, how many items, how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ltm.config import Section


class EvalsetSection(Section):
    """The questions that every model is asked; they are cut from books that no model is trained on."""

    path: str | None = None
    """An eval file of your own; without it the one that comes with ltm (`ltm_eval_set.yaml`) is used."""
    families: Annotated[list[str], Field(min_length=1)] | None = None
    """Only these families of the eval file; without it, all that have items there. Your own items are always asked."""
    items_per_family: Annotated[int, Field(ge=1, le=20_000)] | None = None
    """Items of every family in each bank; without it the number that stands in the eval file. A family that is off
    there (0 items) stays off."""
    items_per_ability: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Items of every ability in each bank, shared by its families as they share them in the eval file."""
    controls: bool = True
    """Whether the items with a damaged context are asked too (as many as the eval file says)."""
    context_words: Annotated[int, Field(ge=40, le=4000)] = 140
    """Words of the longest item, context and continuation together. 140 words of English are about 220 tokens of a
    2048-word vocabulary; raise it with the model's block size."""
    max_books: Annotated[int, Field(ge=1)] = 100
    """Held-out books that a bank is cut from at most; they are chosen evenly over the genres."""

    @model_validator(mode="after")
    def _one_number(self) -> EvalsetSection:
        if self.items_per_family and self.items_per_ability:
            raise ValueError("items_per_ability and items_per_family exclude each other")
        return self
