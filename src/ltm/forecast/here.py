"""The machine at hand as it was measured: its calibration in place of usual rates, where it covers the question.

Reads: the record of `ltm forecast calibrate`, which describes ltm's own training engine (all weights, AdamW,
one process).
"""

from __future__ import annotations

import dataclasses

from ltm.errors import InputError
from ltm.forecast.case import Case
from ltm.forecast.estimate import Bill, Forecast
from ltm.model.sizes import ModelConfig

_DTYPES = {0.0: "float32", 3.0: "bfloat16"}
_REASON = "shapes that the calibration of this machine left out were this far off"
_UNMEASURED_RANGE = 2.5
_BYTES_PER_TOKEN = 4.5  # of text, as in the bill of every training
_PARTS = {"matmul": "matmul", "attention": "attention", "elementwise": "elementwise", "loss": "vocabulary",
          "parameters": "optimizer", "overhead": "launch"}  # fmt: skip


def measured(usual: Forecast) -> Forecast | None:
    """Return the forecast of this machine's calibration, or None where there is none or it does not cover the case."""
    from ltm.forecast.machine import load_machine  # reads files: not for questions about other machines

    case = usual.case
    record = load_machine("cpu")
    config = _config(case)
    if record is None or config is None or case.precision not in _DTYPES:
        return None
    micro = int(case.micro_batch * case.seq_len)
    batch = max(micro, round(case.global_batch_tokens / micro) * micro)
    try:
        found = record.predict(config, batch, micro, _DTYPES[case.precision])
    except InputError:
        return None
    return dataclasses.replace(
        usual,
        tokens_per_second=found.tokens_per_second, tokens_per_second_low=found.low, tokens_per_second_high=found.high,
        step_seconds=batch / found.tokens_per_second,
        parts_seconds={_PARTS.get(name, name): seconds for name, seconds in found.parts_seconds.items()},
        limited_by="bandwidth" if found.limited_by == "memory bandwidth" else found.limited_by,
        mfu=usual.mfu * found.tokens_per_second / usual.tokens_per_second,
        peak_memory_bytes=found.peak_memory_bytes, peak_memory_low=found.peak_memory_bytes_low,
        peak_memory_high=found.peak_memory_bytes_high,
        memory_parts_bytes=_rescaled(usual.memory_parts_bytes, found.peak_memory_bytes),
        fits=found.peak_memory_bytes <= usual.device.memory_bytes,
        width_reason=_REASON,
    )  # fmt: skip


def rebilled(paid: Bill, found: Forecast, n_parameters: float, distinct_tokens: float) -> Bill:
    """Return the bill with the start-up, tokenizing and saving that were measured in place of usual ones."""
    from ltm.forecast.machine import load_machine

    record = load_machine("cpu")
    if record is None:
        return paid
    costs = record.costs
    fixed = dict(paid.fixed_seconds)
    if "worker_start_seconds" in costs:
        build = costs.get("build_seconds_per_parameter", 0.0) * n_parameters
        fixed |= {"start": costs["worker_start_seconds"] + build, "warm_up": found.step_seconds}
    if costs.get("encode_bytes_per_second"):
        fixed["tokenize"] = distinct_tokens * _BYTES_PER_TOKEN / costs["encode_bytes_per_second"]
    if costs.get("weights_write_bytes_per_second"):
        fixed["save"] = 4.0 * n_parameters / costs["weights_write_bytes_per_second"]
    more = sum(fixed.values()) - sum(paid.fixed_seconds.values())
    before = (paid.seconds, paid.seconds_low, paid.seconds_high)
    after = tuple(s + share * more for s, share in zip(before, (1.0, 0.5, 2.0), strict=True))
    mid, low, high = (new / old for new, old in zip(after, before, strict=True))  # energy and money go with time
    return dataclasses.replace(
        paid, seconds=after[0], seconds_low=after[1], seconds_high=after[2], fixed_seconds=fixed,
        energy_kwh=paid.energy_kwh * mid, energy_kwh_low=paid.energy_kwh_low * low,
        energy_kwh_high=paid.energy_kwh_high * high, cost_usd=paid.cost_usd * mid, cost_usd_low=paid.cost_usd_low * low,
        cost_usd_high=paid.cost_usd_high * high,
    )  # fmt: skip


def unmeasured(usual: Forecast) -> Forecast:
    """Return a forecast from usual rates of a processor, as wide as these are uncertain."""
    return dataclasses.replace(
        usual,
        tokens_per_second_low=usual.tokens_per_second / _UNMEASURED_RANGE,
        tokens_per_second_high=usual.tokens_per_second * _UNMEASURED_RANGE,
        width_reason="this machine was not measured",
    )


def is_measured(found: Forecast) -> bool:
    """Say whether a forecast is from the calibration of this machine."""
    return found.width_reason == _REASON


def _rescaled(parts: dict[str, float], total: float) -> dict[str, float]:
    """Return parts in the proportions of the formulas that add up to the measured whole."""
    factor = total / max(1.0, sum(parts.values()))
    return {name: size * factor for name, size in parts.items()}


def _config(case: Case) -> ModelConfig | None:
    """Return the model of a case for ltm's own engine, or None if that engine does not train so."""
    if case.method or case.optimizer or case.checkpointing or case.n_devices > 1:
        return None
    family = "gpt2" if case.learned_positions else "mistral" if case.window else "llama"
    if bool(case.gated) == (family == "gpt2") or case.head_size * case.n_head != case.n_embd:
        return None
    try:
        return ModelConfig(
            family, int(case.n_layer), int(case.n_head), int(case.n_kv_head), int(case.n_embd), int(case.n_hidden),
            int(case.vocab_size), int(case.seq_len), window=int(case.window), tie_embeddings=bool(case.tied),
        )  # fmt: skip
    except ValueError:
        return None
