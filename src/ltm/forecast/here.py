"""The machine at hand as it was measured: its calibration in place of usual rates, where it covers the question.

Reads: the record of `ltm forecast calibrate`, which describes ltm's own training engine (all weights, AdamW,
one process).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ltm.errors import InputError
from ltm.forecast.case import KERNELS, PRECISIONS, Case
from ltm.forecast.devices import Device, device
from ltm.forecast.estimate import Forecast
from ltm.forecast.formulas import BYTES_PER_TOKEN
from ltm.forecast.machine_work import repays_compiling
from ltm.model.sizes import ModelConfig

if TYPE_CHECKING:
    from ltm.forecast.machine import Machine

_PRECISION = {"float32": "fp32", "bfloat16": "bf16"}
_DTYPES = {float(PRECISIONS.index(word)): dtype for dtype, word in _PRECISION.items()}
_TIMED = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp8": "float8"}
_COMPILED = float(KERNELS.index("compiled"))
_REASON = "shapes that the calibration of this machine left out were this far off"
_UNMEASURED_RANGE = 2.5
USUAL_SCORING_SPEEDUP = 3.0  # a forward pass takes about a third of a training step
_SAMPLE_BYTES = 4e6  # of text that a tokenizer learns from
_PARTS = {"matmul": "matmul", "attention": "attention", "elementwise": "elementwise", "loss": "vocabulary",
          "parameters": "optimizer", "overhead": "launch"}  # fmt: skip


def measured(usual: Forecast) -> Forecast | None:
    """Return the forecast of this machine's calibration, or None where there is none or it does not cover the case."""
    case, record = usual.case, _record(usual.device)
    config = _config(case)
    if record is None or config is None or case.precision not in _DTYPES:
        return None
    micro = int(case.micro_batch * case.seq_len)
    batch = max(micro, round(case.global_batch_tokens / micro) * micro)
    try:
        found = record.predict(config, batch, micro, _DTYPES[case.precision], compiled=case.kernels == _COMPILED)
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
        fits=usual.device.memory_bytes <= 0 or found.peak_memory_bytes <= usual.device.memory_bytes,
        width_reason=_REASON, measured=True,
    )  # fmt: skip


def fixed_seconds(found: Forecast, n_parameters: float, distinct_tokens: float) -> dict[str, float]:
    """Return the start-up, compiling, tokenizing and saving measured here, by the names of the bill's fixed parts."""
    record = _record(found.device) if found.measured else None
    if record is None:
        return {}
    costs = record.costs
    fixed: dict[str, float] = {}
    if "worker_start_seconds" in costs:
        build = costs.get("build_seconds_per_parameter", 0.0) * n_parameters
        fixed |= {"start": costs["worker_start_seconds"] + build, "warm_up": found.step_seconds}
    if costs.get("encode_bytes_per_second"):
        fixed["tokenize"] = distinct_tokens * BYTES_PER_TOKEN / costs["encode_bytes_per_second"]
        if costs.get("tokenizer_train_bytes_per_second") and not found.case.continued:
            sample = min(_SAMPLE_BYTES, distinct_tokens * BYTES_PER_TOKEN)
            fixed["tokenize"] += sample / costs["tokenizer_train_bytes_per_second"]
    if found.case.kernels == _COMPILED and "compile_seconds" in costs:
        fixed["compile"] = costs["compile_seconds"]
    if costs.get("weights_write_bytes_per_second"):
        fixed["save"] = 4.0 * n_parameters / costs["weights_write_bytes_per_second"]
    return fixed


def usual_precision(card: Device) -> str:
    """Return what ltm trains in on this machine where nothing else is said; empty where it was not calibrated."""
    record = _record(card)
    return _PRECISION[record.dtype] if record else ""


def compiles(card: Device, n_params: float, tokens: float) -> bool:
    """Return whether ltm compiles a run of so many tokens on this machine; not where it was not calibrated."""
    record = _record(card)
    return bool(record and record.compiles and repays_compiling(record.device, n_params, tokens))


def compiling_not_timed(found: Forecast) -> bool:
    """Say whether compiled steps are forecast here without one having been timed in this precision."""
    record = _record(found.device) if found.measured else None
    if record is None or found.case.kernels != _COMPILED:
        return False
    return _DTYPES[found.case.precision] not in record.compiled


def unmeasured(usual: Forecast) -> Forecast:
    """Return a forecast from usual rates, for a processor as wide as these are uncertain."""
    if not is_processor(usual.device):
        return usual
    return dataclasses.replace(
        usual,
        tokens_per_second_low=usual.tokens_per_second / _UNMEASURED_RANGE,
        tokens_per_second_high=usual.tokens_per_second * _UNMEASURED_RANGE,
        width_reason="this machine was not measured",
    )


def scoring_speedup(found: Forecast) -> float:
    """Return how many tokens are scored in the time that one is trained in: as measured, else as is usual."""
    record = _record(found.device) if found.measured else None
    return (record.costs.get("score_tokens_per_trained_token", 0.0) if record else 0.0) or USUAL_SCORING_SPEEDUP


def is_processor(card: Device) -> bool:
    """Say whether a device of this machine is its processor, not its GPU."""
    return card.arch.startswith("CPU")


def this_gpu() -> Device | None:
    """Return this machine's GPU, if its calibration can be used: by its data sheet where known, else as timed."""
    from ltm.forecast.machine import load_machine

    record = load_machine("cuda")
    if record is None:
        return None
    name = str(record.description.get("processor", "GPU"))
    try:
        card = device(name)
    except InputError:
        try:
            card = device(_timed_sheet(name, record.rates))
        except InputError:  # a probe that ran out of time has no rates
            return None
    return dataclasses.replace(card, name=f"this machine's {card.name}")


def unusable() -> list[str]:
    """Return a sentence about each record of this machine that is there but damaged, old or unreadable."""
    from ltm.forecast.machine import load_machine

    said: list[str] = []
    for kind in ("cuda", "cpu"):
        load_machine(kind, lambda text: said.append(text.replace("\n  hint: ", "; ")))
    return said


def _record(card: Device) -> Machine | None:
    from ltm.forecast.machine import load_machine  # reads files: not for questions about other machines

    return load_machine("cpu" if is_processor(card) else "cuda")


def _timed_sheet(name: str, rates: Mapping[str, float]) -> dict[str, float | str]:
    """Return the data sheet of a card that no list knows, from the raw rates of its calibration."""
    sheet: dict[str, float | str] = {
        "name": name,
        "memory_gib": rates.get("memory_bytes", 0.0) / 1024**3,
        "bandwidth_gbps": rates.get("bandwidth_bytes_per_second", 0.0) / 1e9,
    }
    for key, dtype in _TIMED.items():
        timed = [rate / 1e12 for name, rate in rates.items() if name.startswith(f"matmul_{dtype}_")]
        if timed:
            sheet[f"{key}_tflops"] = max(timed)
    return sheet


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
