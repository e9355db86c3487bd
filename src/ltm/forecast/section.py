"""The `forecast` section of a study: what an hour of this machine costs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ltm.config import Section


class ForecastSection(Section):
    """Prices of time."""

    watts: Annotated[float, Field(ge=0)] | None = None
    """Power drawn while training; by default 65 W for each CPU worker, 350 W for each GPU."""
    usd_per_kwh: Annotated[float, Field(ge=0)] = 0.20
    """Price of electricity."""
    usd_per_hour: Annotated[float, Field(ge=0)] = 0.0
    """Rent of the machine."""
