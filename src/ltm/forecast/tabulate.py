"""Answer whole tables of setups: rows in the columns of `data/throughput.csv`, with a forecast beside each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ltm.errors import InputError
from ltm.forecast.case import Case
from ltm.forecast.constants import document
from ltm.forecast.estimate import Forecast, check_precision, forecast_many
from ltm.forecast.rows import Row, Setup, setup

COLUMNS = (
    "forecast_tokens_per_s",
    "forecast_tokens_per_s_low",
    "forecast_tokens_per_s_high",
    "forecast_peak_mem_gib",
    "forecast_peak_mem_gib_low",
    "forecast_peak_mem_gib_high",
    "limited_by",
    "reason",
)


def forecast_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return every row with its forecast: rates of all devices together, memory of one device.

    Measured columns are not read. A row that cannot be answered has empty numbers and its reason in words; one that is
    answered says in `reason` what makes its range wide.
    """
    setups: list[Setup | str] = [_setup_or_reason(row) for row in rows]
    answered = [(found, row) for found, row in zip(setups, rows, strict=True) if isinstance(found, Setup)]
    cases = [_with_experience(found, row.get("source", "")) for found, row in answered]
    forecasts = iter(forecast_many(cases, [found.device for found, _ in answered]))
    return [
        {**row, **(_no_answer(found) if isinstance(found, str) else _cells(next(forecasts), found.n_devices_told))}
        for row, found in zip(rows, setups, strict=True)
    ]


def _setup_or_reason(row: Row) -> Setup | str:
    try:
        found = setup(row)
        check_precision(found.case, found.device)
    except InputError as error:
        return f"{error.message}; {error.hint}" if error.hint else error.message
    return found


def _with_experience(found: Setup, source: str) -> Case:
    """Return the case with what was learned of its framework and, if runs of it took part in the fit, its source."""
    learned = document()["frameworks"].get(found.framework, {})
    seen = document()["sources"].get(source)
    of_source = seen["speed"] if seen and found.framework in seen["frameworks"] else None
    return dataclasses.replace(
        found.case,
        speed_scale=learned.get("speed", 1.0) * (of_source or 1.0),
        launch_scale=learned.get("launch", 1.0),
        memory_extra=learned.get("memory_gb", 0.0) * 1e9,
        known=float(of_source is not None),
        guesses=float(found.guesses),
    )


def _cells(result: Forecast, n_devices_told: bool) -> dict[str, str]:
    gib = 1024**3
    share = 1.0 if n_devices_told else result.case.n_devices
    numbers = (
        result.tokens_per_second / share,
        result.tokens_per_second_low / share,
        result.tokens_per_second_high / share,
        result.peak_memory_bytes / gib,
        result.peak_memory_low / gib,
        result.peak_memory_high / gib,
    )
    texts = [f"{number:.5g}" if number < 1e5 else f"{number:.0f}" for number in numbers]
    reason = result.width_reason if result.fits else f"does not fit the card's memory; {result.width_reason}"
    if share > 1:
        reason = f"n_gpu is not told: the rate is that of one card of {share:.0f}; {reason}"
    return dict(zip(COLUMNS, [*texts, result.limited_by, reason], strict=True))


def _no_answer(reason: str) -> dict[str, str]:
    return dict.fromkeys(COLUMNS[:-1], "") | {"reason": reason}
