"""The fitted constants of `formulas`, from `data/constants.json`, which `bench/forecast/fit.py` writes."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any


class Constants:
    """One float per constant, by name."""

    def __init__(self, values: dict[str, float]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:  # only for type checkers: real constants are found before
        raise AttributeError(name)


def constants() -> Constants:
    """Return the shipped constants."""
    return _loaded()


def as_dict() -> dict[str, float]:
    """Return the shipped constants as name -> number."""
    return dict(_loaded().__dict__)


@functools.cache
def document() -> dict[str, Any]:
    """Return the whole file: constants with units and meaning, effects of frameworks, sources and architectures."""
    text = (files("ltm.forecast") / "data" / "constants.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@functools.cache
def _loaded() -> Constants:
    values: dict[str, float] = {}
    for group in ("time", "memory", "spread"):
        values.update({name: entry["value"] for name, entry in document()[group].items()})
    return Constants(values)
