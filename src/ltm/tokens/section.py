"""The `tokens` section of a study: one tokenizer for all its runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltm.config import Count, Section


class TokensSection(Section):
    """How text becomes tokens."""

    vocab_size: Annotated[Count, Field(ge=257, le=2**31 - 1)] = 2048
    """Size of the vocabulary: 256 bytes, one mark for the start of a text, and merges."""
    sample_bytes: Annotated[Count, Field(ge=1000)] = 4_000_000
    """Text that the tokenizer is trained on, taken evenly from all training books."""
    tokenizer: str | None = None
    """A `tokenizer.json` of Hugging Face tokenizers to take as it is, instead of training one; the base model's where
    `model.base` names one."""
