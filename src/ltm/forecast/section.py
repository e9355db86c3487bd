"""The `forecast` and `budget` sections of a study: what an hour of this machine costs, and how much may be spent."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from ltm.config import Section

_SIZES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}
_SIZE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*$", re.IGNORECASE)


def parse_size(value: object) -> object:
    """Return bytes from a number or a text with a unit; anything else is left to be refused.

    >>> parse_size("20 GB"), parse_size("1.5GiB"), parse_size(1000)
    (20000000000, 1610612736, 1000)

    Raises:
        ValueError: the text is not a size.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if match is None or match[2].lower() not in _SIZES:
        raise ValueError(f"not a size: {value!r} (write 500MB, 20GB or 1.5GiB)")
    return round(float(match[1]) * _SIZES[match[2].lower()])


Limit = Annotated[float, Field(gt=0)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]


class ForecastSection(Section):
    """Prices of time."""

    watts: Annotated[float, Field(ge=0)] | None = None
    """Power drawn while training; by default 65 W for each CPU worker, 350 W for each GPU."""
    usd_per_kwh: Annotated[float, Field(ge=0)] = 0.20
    """Price of electricity."""
    usd_per_hour: Annotated[float, Field(ge=0)] = 0.0
    """Rent of the machine."""


class BudgetSection(Section):
    """The most that a study may take; `ltm plan` holds the forecast against it, `ltm run` stops when it is reached.

    Nothing here changes what is trained.
    """

    hours: Limit | None = None
    """Hours of work, over all starts."""
    usd: Limit | None = None
    """Money, at the prices of the `forecast` section."""
    kwh: Limit | None = None
    """Energy, at the power of the `forecast` section."""
    disk: Size | None = None
    """Size of the work folder: bytes, or 500MB, 20GB, 1.5GiB."""

    def limits(self) -> dict[str, float]:
        """Return the limits that are set."""
        return {name: float(value) for name, value in self.model_dump().items() if value is not None}
