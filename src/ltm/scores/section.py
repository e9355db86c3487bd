"""The `scores` section of a study: when a family of items counts as measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ltm.config import Section

Share = Annotated[float, Field(ge=0, le=1)]


class ScoresSection(Section):
    """What a family of items must show before it enters a ranking."""

    bank: Literal["a", "b"] = "a"
    """The bank that models are scored on; b is for the confirmation of findings."""
    min_runs: Annotated[int, Field(ge=3)] = 8
    """With fewer runs nothing is admitted: there is too little to judge by."""
    min_z: Annotated[float, Field(ge=0)] = 5.0
    """Mean of the runs above untrained models, in standard errors clustered by eval book."""
    min_split_half: Share = 0.7
    """Agreement of two halves of the eval books over the runs, stepped up to full length (Spearman-Brown)."""
    min_icc: Share = 0.3
    """Share of the variance between runs that is the set and not the seed."""
    min_replicates: Annotated[int, Field(ge=1)] = 8
    """Runs beyond the first of their variant that are needed before the ICC is asked for; with fewer it is shown
    but does not decide."""
    untrained: Annotated[int, Field(ge=1, le=20)] = 3
    """Models with random weights that are scored to measure chance."""
