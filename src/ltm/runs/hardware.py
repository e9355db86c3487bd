"""What the machine can do: device, precision, and its measured matrix rate."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import time
from pathlib import Path

import torch

from ltm.errors import InputError
from ltm.runs.section import RunsSection


def pick_device(section: RunsSection) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        InputError: CUDA is asked for but not there.
    """
    if section.device == "cuda" and not torch.cuda.is_available():
        raise InputError("runs.device is cuda, but PyTorch sees no GPU here", "use --set runs.device=auto")
    if section.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return section.device


def pick_dtype(section: RunsSection, device: str) -> torch.dtype:
    """Return the precision of matrix products; weights and optimizer are always float32."""
    if section.dtype == "auto":
        fast = torch.cuda.is_bf16_supported() if device == "cuda" else _cpu_has_amx()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if section.dtype == "bfloat16" else torch.float32


def n_workers(section: RunsSection, device: str) -> int:
    """Return how many worker processes to start."""
    if section.workers:
        return section.workers
    return torch.cuda.device_count() if device == "cuda" else len(os.sched_getaffinity(0))


def has_compiler() -> bool:
    """Return whether torch.compile finds a C++ compiler."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


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


def versions() -> dict[str, str]:
    """Return the versions that can change a run."""
    from importlib.metadata import version

    return {"ltm": version("ltm"), "torch": torch.__version__, "python": platform.python_version()}


@functools.cache
def _cpu_has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
