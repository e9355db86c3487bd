"""The `rounds` section of a study: whether it learns in rounds, and how the runs are divided among them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ltm.config import Section

Share = Annotated[float, Field(ge=0, le=1)]
RoundName = Literal["pilot", "exploration", "adaptive", "confirmation"]
ROUNDS: tuple[RoundName, ...] = ("pilot", "exploration", "adaptive", "confirmation")


class RoundSharesSection(Section):
    """How the runs are divided among the rounds; the four add up to 1, and a round without runs is left out."""

    pilot: Share = 0.10
    """How loud seeds, orders and gaps are against sets; which recipe finds most per hour; whether to go on."""
    exploration: Share = 0.60
    """Sets drawn at random: what books, orders and gaps do."""
    adaptive: Share = 0.18
    """Sets that should score well by what is known so far, and some at random."""
    confirmation: Share = 0.12
    """The best variants and random ones, trained with fresh seeds and asked questions that nobody has used before."""

    @model_validator(mode="after")
    def _whole(self) -> RoundSharesSection:
        total = sum(getattr(self, name) for name in ROUNDS)
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the shares of the rounds add up to {total:.4g}, not to 1")
        if self.exploration <= 0:
            raise ValueError("exploration has no share: every finding comes from its random sets")
        return self


class PilotSection(Section):
    """What the pilot tries."""

    seeds: Annotated[int, Field(ge=2, le=8)] = 2
    """Runs of every variant of the pilot, with a start each."""
    slow_lr: bool = True
    """Train the base variants once more at a quarter of the learning rate: does the ranking of the sets change?"""
    recipes: list[dict[str, Any]] = Field(default_factory=list)
    """Other ways to train, each as settings over the study's own (`{runs.lr: 1e-3, sets.epochs: 2}`): the base variants
    are trained with each, and the study goes on with the one that finds most per hour."""


class RoundsSection(Section):
    """Learn in rounds: pilot, exploration, adaptive, confirmation. `rounds: on` takes all defaults."""

    enabled: bool = False
    """Off: one round of random sets, `sets.count` variants. On: `sets.count` runs in four rounds."""
    shares: RoundSharesSection = RoundSharesSection()
    """How the runs are divided among the rounds."""
    pilot: PilotSection = PilotSection()
    """What the pilot tries beside the study's own settings."""
    random_share: Share = 0.4
    """Share of the adaptive round that is drawn at random, so that its sets can be compared with what chance gives."""
    most_shared: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the books that two proposed sets may have in common."""
    finalist_seeds: Annotated[int, Field(ge=2)] = 4
    """Fresh seeds of each finalist."""
    seeds_by: Literal["equal", "decisive"] = "equal"
    """The finalists' seeds: the same number each, or, of the same number of runs, two each and the rest where they
    decide most who is among the ten best."""
    control_seeds: Annotated[int, Field(ge=1)] = 2
    """Fresh seeds of each random set that the finalists are compared with."""
    finalist_share: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Share of the confirmation's runs that finalists get; the rest goes to random sets."""

    @model_validator(mode="before")
    @classmethod
    def _on_or_off(cls, data: Any) -> Any:
        if isinstance(data, bool):
            return {"enabled": data}
        if isinstance(data, str) and data.lower() in ("on", "off"):
            return {"enabled": data.lower() == "on"}
        if isinstance(data, dict) and data and "enabled" not in data:
            return {**data, "enabled": True}  # who says how the rounds should be wants them
        return data
