"""Forecasts: what `formulas` says of a case on a device, with its range, its reason and its bill."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltm.errors import InputError
from ltm.forecast import formulas, formulas_page
from ltm.forecast.case import PRECISIONS, Case, Columns, case_columns, device_columns
from ltm.forecast.constants import constants, document
from ltm.forecast.devices import Device

TIME_PARTS = ("matmul", "attention", "elementwise", "vocabulary", "optimizer", "launch", "network", "bubble")
_SPEEDS = ("tokens_per_second", "tokens_per_second_low", "tokens_per_second_high")
MEMORY_PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "workspace", "framework", "fragments")
REASONS = {
    "from_framework": "training programs differ: data loading, logging and kernels that no setting names",
    "from_launch": "the host starts kernels more slowly than the card runs them, and hosts differ",
    "from_network": "links between cards and pipeline stages vary from cluster to cluster",
    "from_adapters": "libraries run adapters at different speed",
    "from_plain_attention": "plain attention depends on how much of it the compiler fuses",
    "from_guesses": "the shape, batch, sequence length or number of cards had to be guessed",
}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a case takes on a device; `_low` and `_high` bound the 90 % range."""

    case: Case
    device: Device
    tokens_per_second: float
    tokens_per_second_low: float
    tokens_per_second_high: float
    step_seconds: float
    parts_seconds: dict[str, float]
    limited_by: str  # compute, bandwidth, launch overhead or network
    mfu: float  # model FLOPs over the nominal dense peak
    peak_memory_bytes: float
    peak_memory_low: float
    peak_memory_high: float
    memory_parts_bytes: dict[str, float]
    fits: bool
    width_reason: str
    watts: float
    measured: bool = False  # from the calibration of this machine, not from usual rates


@dataclass(frozen=True, slots=True)
class Prices:
    """What an hour costs: rent of one device, electricity; power only where it is measured."""

    usd_per_hour: float = 0.0
    usd_per_kwh: float = 0.20
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """A whole training: time, energy, money; `_low` and `_high` bound the 90 % range."""

    tokens: float
    seconds: float
    seconds_low: float
    seconds_high: float
    fixed_seconds: dict[str, float]
    energy_kwh: float
    energy_kwh_low: float
    energy_kwh_high: float
    cost_usd: float
    cost_usd_low: float
    cost_usd_high: float
    width_reason: str
    extra_seconds: dict[str, float] = field(default_factory=dict)


def arrays(c: Columns, d: Columns) -> dict[str, Any]:
    """Return every result of `formulas` for cases and devices side by side, each of shape (n,).

    This is the fast way: ten thousand forecasts take well under a second.
    """
    k = constants()
    step = formulas.step_seconds(c, d, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = formulas.spread(c, d, k)
    return {
        "step": step,
        "memory": formulas.memory_bytes(c, d, k),
        "spread": spread,
        "watts": formulas.power_watts(c, d, k),
        "peak_flops": formulas_page.nominal_peak(c, d),
        "tokens_per_second": step["step_tokens"] / step["total"],
    }


def forecast_many(cases: Sequence[Case], devices: Sequence[Device]) -> list[Forecast]:
    """Return a forecast per pair of case and device.

    Raises:
        InputError: a device lacks the precision of its case.
    """
    for case, card in zip(cases, devices, strict=True):
        check_precision(case, card)
    if not cases:
        return []
    found = arrays(case_columns(cases), device_columns([with_experience(card) for card in devices]))
    return [_one(found, i, case, card) for i, (case, card) in enumerate(zip(cases, devices, strict=True))]


def forecast(case: Case, device: Device) -> Forecast:
    """Return the forecast of one case on one device."""
    return forecast_many([case], [device])[0]


def bill(
    result: Forecast,
    tokens: float,
    prices: Prices,
    distinct_tokens: float = 0.0,
    extra: Mapping[str, float] | None = None,
    measured: Mapping[str, float] | None = None,
) -> Bill:
    """Return the bill of training on so many tokens.

    Args:
        result: The forecast of the setup.
        tokens: Tokens to train on, repetitions counted.
        distinct_tokens: Tokens that have to be tokenized first; 0 = done before.
        extra: Seconds of other work, by name (evaluation, for example).
        measured: Fixed seconds that were measured, in place of usual ones of the same name.

    Raises:
        InputError: there are no tokens.
    """
    if not tokens > 0:
        raise InputError(f"{tokens:g} tokens cannot be trained on", "give --tokens 10B, or --books and --pages")
    c, d = case_columns([result.case]), device_columns([result.device])
    fixed = {name: float(np.ravel(v)[0]) for name, v in formulas.fixed_seconds(c, d, distinct_tokens).items()}
    fixed |= measured or {}
    beside = sum(fixed.values()) + sum((extra or {}).values())
    speed = {name: getattr(result, name) for name in _SPEEDS}
    known = prices.watts is not None  # else the mean power is itself a forecast
    made = formulas_page.amounts(
        speed,
        tokens,
        beside,
        prices.watts * result.case.n_devices if prices.watts is not None else result.watts,
        1.0 if known else formulas_page.POWER_RANGE,
        prices.usd_per_kwh,
        prices.usd_per_hour * result.case.n_devices,
    )
    reason = (
        "start-up, compiling and tokenizing outweigh the training itself"
        if made["mostly_fixed"]
        else result.width_reason
    )
    return Bill(
        tokens=tokens,
        seconds=made["seconds"],
        seconds_low=made["seconds_low"],
        seconds_high=made["seconds_high"],
        fixed_seconds=fixed,
        energy_kwh=made["kwh"],
        energy_kwh_low=made["kwh_low"],
        energy_kwh_high=made["kwh_high"],
        cost_usd=made["usd"],
        cost_usd_low=made["usd_low"],
        cost_usd_high=made["usd_high"],
        width_reason=reason,
        extra_seconds=dict(extra or {}),
    )


def check_precision(case: Case, card: Device) -> None:
    """Raise InputError if the device cannot compute in the precision of the case."""
    name = PRECISIONS[int(case.precision)]
    rate = (card.fp32_flops, card.tf32_flops, card.fp16_flops, card.bf16_flops, card.fp8_flops)[int(case.precision)]
    if not rate > 0:
        instead = "fp16" if name == "bf16" and card.fp16_flops else "bf16" if card.bf16_flops else "fp32"
        raise InputError(f"{card.name} cannot compute in {name}", f"use {instead}")


def with_experience(card: Device) -> Device:
    """Return the card with what was learned of its architecture."""
    learned = document()["architectures"].get(card.arch.split()[0], 1.0)
    return dataclasses.replace(card, speed_scale=card.speed_scale * learned)


def _one(found: dict[str, Any], i: int, case: Case, card: Device) -> Forecast:
    step, memory, spread = found["step"], found["memory"], found["spread"]
    rate, total = float(found["tokens_per_second"][i]), float(memory["total"][i])
    parts = {name: float(np.broadcast_to(step[name], step["total"].shape)[i]) for name in TIME_PARTS}
    held = {name: float(np.broadcast_to(memory[name], memory["total"].shape)[i]) for name in MEMORY_PARTS}
    reasons = {name: float(spread[name][i]) for name in REASONS}
    return Forecast(
        case=case,
        device=card,
        tokens_per_second=rate,
        tokens_per_second_low=rate / float(spread["time_high"][i]),
        tokens_per_second_high=rate / float(spread["time_low"][i]),
        step_seconds=float(step["total"][i]),
        parts_seconds=parts,
        limited_by=_limited_by(step, i),
        mfu=float(step["model_flops"][i]) * case.n_devices / float(step["total"][i] * found["peak_flops"][i]),
        peak_memory_bytes=total,
        peak_memory_low=total * float(spread["memory_low"][i]),
        peak_memory_high=total * float(spread["memory_high"][i]),
        memory_parts_bytes=held,
        fits=bool(card.memory_bytes <= 0 or total <= card.memory_bytes),
        width_reason=REASONS[max(reasons, key=lambda name: reasons[name])],
        watts=float(found["watts"][i]),
    )


def _limited_by(step: dict[str, Any], i: int) -> str:
    shares = {
        "compute": step["compute_bound"][i],
        "bandwidth": step["memory_bound"][i],
        "launch overhead": step["launch"][i],
        "network": step["network"][i] + step["bubble"][i],
    }
    return max(shares, key=lambda name: float(shares[name]))
