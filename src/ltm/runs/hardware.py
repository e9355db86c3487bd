"""What the machine can do: device, precision, and its measured matrix rate."""

from __future__ import annotations

import functools
import os
import time
from typing import Literal

import torch

from ltm.errors import InputError
from ltm.forecast.machine_work import repays_compiling
from ltm.model.sizes import ModelConfig
from ltm.runs import capabilities
from ltm.runs.engine import EngineSettings
from ltm.runs.section import RunsSection


def pick_device(section: RunsSection) -> str:
    """Return `cpu`, `cuda` or `mps`.

    Raises:
        InputError: a GPU is asked for but not there.
    """
    if section.device == "cuda" and not torch.cuda.is_available():
        raise InputError("runs.device is cuda, but PyTorch sees no GPU here", "use --set runs.device=auto")
    if section.device == "mps" and not torch.backends.mps.is_available():
        raise InputError("runs.device is mps, but PyTorch sees no Apple GPU here", "use --set runs.device=auto")
    if section.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return section.device


def pick_dtype(section: RunsSection, device: str) -> torch.dtype:
    """Return the precision of matrix products and activations; weights are updated in float32 whatever it is."""
    wanted = section.dtype
    if wanted == "auto":
        wanted = _fastest_dtype(device)
    if wanted == "tf32":
        return torch.float32
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def _fastest_dtype(device: str) -> Literal["float32", "bfloat16", "float16"]:
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device == "mps":
        return "float32"
    flags = capabilities.cpu_flags()
    return "bfloat16" if flags and flags & capabilities.FAST_BFLOAT16 else "float32"


def should_compile(section: RunsSection, device: str, n_params: int, run_tokens: int) -> bool:
    """Return whether a run is compiled; `auto` decides by the run alone, so that a study can grow and stay one."""
    if section.compile != "auto":
        return section.compile
    return repays_compiling(device, n_params, run_tokens) and capabilities.has_compiler()


def engine_settings(section: RunsSection, config: ModelConfig, run_tokens: int) -> EngineSettings:
    """Return what a study's runs are trained by on this machine.

    Raises:
        InputError: a GPU is asked for but not there.
    """
    device = pick_device(section)
    return EngineSettings(
        config,
        device,
        pick_dtype(section, device),
        compiled=should_compile(section, device, config.n_params, run_tokens),
        recompute=section.activation_checkpointing,
        tf32=section.dtype == "tf32",
    )


def n_workers(section: RunsSection, device: str) -> int:
    """Return how many worker processes to start."""
    if section.workers:
        return section.workers
    return {"cuda": torch.cuda.device_count(), "mps": 1}.get(device) or len(os.sched_getaffinity(0))


def n_devices(device: str) -> int:
    """Return how many devices of a kind this machine has; its processors count as one."""
    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def workers_on_each(section: RunsSection, device: str) -> int:
    """Return how many workers share one device."""
    return -(-n_workers(section, device) // n_devices(device))


def environments(device: str) -> list[dict[str, str]]:
    """Return the environment of the workers of each graphics card, so that each sees only its own; empty for others.

    A choice of cards that was made before (`CUDA_VISIBLE_DEVICES`) is kept.
    """
    if device != "cuda":
        return []
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    cards = chosen if len(chosen) >= n_devices(device) else [str(number) for number in range(n_devices(device))]
    return [{"CUDA_VISIBLE_DEVICES": card} for card in cards[: n_devices(device)]]


@functools.cache
def matmul_flops(device: str, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a square matrix product in this process, best of a few short rounds."""
    size = 512 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(4):
            a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - start))
    return best
