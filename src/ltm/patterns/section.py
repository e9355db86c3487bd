"""The `patterns` section of a study: how sure a claim has to be, and how much is computed to find out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltm.config import Count, Section


class PatternsSection(Section):
    level: Annotated[float, Field(gt=0, le=0.5)] = 0.10
    """False discovery rate that a claim must keep; also the chance of any claim in a study where nothing matters."""

    redraws: Annotated[Count, Field(ge=99, le=1_000_000)] = 9999
    """Redraws of the design behind each randomisation p-value; the smallest p is 1 / (redraws + 1)."""

    top: Annotated[int, Field(ge=1, le=1000)] = 10
    """How many of the best variants are named."""
