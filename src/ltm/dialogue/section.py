"""The `dialogue` section of a study: how the best models learn to answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ltm.config import Count, Section


class DialogueSection(Section):
    """The dialogue layer: the best models of the ranking are tuned on conversations, and tested again."""

    top: Annotated[int, Field(ge=0)] = 10
    """Models that get it, from the head of the ranking; 0 = none."""
    path: str | None = None
    """A JSONL file of conversations, one `{"messages": [{"role": ..., "content": ...}, ...]}` a line; by default they
    are found in the training books: quoted speech, and speech after a dash in Russian."""
    method: Literal["full", "lora"] = "full"
    """All weights, or low-rank adapters that are merged afterwards."""
    lora_rank: Annotated[int, Field(ge=1)] = 8
    """Of the adapters."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate; it rises for a tenth of the steps and falls in a line to 0."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Times the conversations are read."""
    batch_conversations: Annotated[int, Field(ge=1)] = 16
    """Conversations of one step."""
    most_conversations: Annotated[Count, Field(ge=10)] = 20_000
    """More are thinned out evenly."""
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the books (of the lines of a file) whose conversations only test."""
