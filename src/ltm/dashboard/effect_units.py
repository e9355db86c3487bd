"""The unit of an effect: what one means, ability by ability.

Reads: `patterns/findings.json`. With enough repetitions it is the seed's standard deviation; with fewer it is the
residual one inside sets; scores from elsewhere stay in their own unit; emergence is counted in doublings of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.words import Term

SEED, RESIDUAL, SCORE, DOUBLING, MIXED = "seed", "residual", "score", "doubling", "mixed"
_KNOWN = (SEED, RESIDUAL, SCORE, DOUBLING)


def units(inputs: Inputs) -> dict[str, str]:
    """Return the unit that each ability's effects are in."""
    found = inputs.findings.get("abilities")
    if not isinstance(found, dict):
        return {}
    pairs = {str(name): facts.get("unit") for name, facts in found.items() if isinstance(facts, dict)}
    return {name: unit for name, unit in pairs.items() if unit in _KNOWN}


def unit_of(inputs: Inputs, abilities: Iterable[str]) -> str:
    """Return the one unit of some abilities, or `mixed` where they differ; seed where nothing is said."""
    known = units(inputs)
    found = {known.get(ability, SEED) for ability in abilities}
    return found.pop() if len(found) == 1 else MIXED if found else SEED


def told_unit(inputs: Inputs, part: Any) -> str:
    """Return the unit that a part of the findings says it is in, else that of the ranking."""
    unit = part.get("unit") if isinstance(part, dict) else None
    return unit if unit in (*_KNOWN, MIXED) else ranking_unit(inputs)


def ranking_unit(inputs: Inputs) -> str:
    """Return the unit of the ranking: that of the abilities which it is the mean of."""
    return unit_of(inputs, ranked_by(inputs))


def ranked_by(inputs: Inputs) -> list[str]:
    """Return the abilities whose mean ranks the sets."""
    names = inputs.findings.get("ranked_by")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def noise(inputs: Inputs, ability: str) -> float | None:
    """Return the standard deviation that chance alone gives one run's score, in the unit of the ability's effects."""
    facts = inputs.findings.get("abilities")
    own = facts.get(ability) if isinstance(facts, dict) else None
    sd = number(own.get("seed_sd")) if isinstance(own, dict) else None
    if units(inputs).get(ability, SEED) in (SEED, RESIDUAL):
        return 1.0
    return sd


def unit_word(unit: str) -> Term:
    """Return the word for an amount in a unit, as it stands behind a number."""
    return Term(f"unit.effect.{unit}", unit)


def first_measured(inputs: Inputs) -> str:
    """Return the ability that a figure opens on: the first of the ranking, which can be measured; else empty."""
    names = ranked_by(inputs)
    return names[0] if names else ""
