"""The `scores` section of a study: when a family of items counts as measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ltm.config import Count, Section

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
    untrained: Annotated[int, Field(ge=1, le=20)] = 6
    """Models with random weights that are scored to measure chance."""
    min_z_over_ngram: Annotated[float, Field(ge=0)] = 2.0
    """How clearly the runs must be better than 5-gram models of the same tokens, in standard errors; not asked of
    fluency."""
    baselines: Annotated[int, Field(ge=1, le=20)] = 8
    """Models of each simple kind that are scored beside the untrained ones: unigram and 5-gram models of the tokens of
    a run, and runs that see the options without their context. With few of them what "5-gram models" reach is what two
    sets happen to reach (bench/score_families.md)."""
    metric: Literal["auto", "margin", "logit", "accuracy"] = "auto"
    """What a score is the mean of. `auto`: per ability the one with the highest ICC in the first round, where it leads
    the margin clearly; decided once and kept in `scores/metrics.json`."""
    prune: bool = True
    """Drop items that the pilot shows to be worthless (against the rest, the same for all runs, solved by counting
    words); without pilot runs nothing is dropped. Decided once and kept in `scores/pruned.json`."""
    snapshots: Annotated[int, Field(ge=0, le=64)] = 0
    """Moments of its training at which a run is also asked the fast items; 0 = none."""
    snapshot_spacing: Literal["log", "linear"] = "log"
    """How the moments are spaced in tokens; the last is the end of the run."""
    generate_from_params: Annotated[Count, Field(ge=0)] = 100_000_000
    """Items whose answer is to be written are asked only of models with at least so many parameters."""
    adapt_share: Annotated[float, Field(gt=0, le=0.1)] = 0.02
    """Work of all adapters of a model (items of the rule `adapt`) as a share of the work of its training."""
