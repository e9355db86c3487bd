"""What a run records of where it came from, beyond its settings: versions, code and machine.

None of it enters a run's id: the id says what was asked for, this says who answered. Two machines may round
differently; when their bits differ, these fields tell what to look at first (`ltm diff`).
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from ltm.forecast.machine import cpu_model

_TRAINING_ROOMS = ("model", "runs", "sets", "tokens")  # whose code can change what comes out of a run
_PACKAGES = ("numpy", "safetensors", "tokenizers", "transformers", "peft")


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that can change a run, and a fingerprint of the code that trains (`code`)."""
    found = {"ltm": _version("ltm"), "python": platform.python_version(), "torch": torch.__version__}
    found |= {name: number for name in _PACKAGES if (number := _version(name))}
    return {**found, "code": code_fingerprint()}


@functools.cache
def code_fingerprint() -> str:
    """Return the first 12 hex digits of the SHA-256 of the source files of the rooms that train."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for room in _TRAINING_ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def machine(device: str) -> dict[str, str]:
    """Return what the run was trained on: processor, cores, memory, threads, system, graphics card."""
    found = {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "memory_bytes": str(_memory_bytes()),
        "system": f"{platform.system()} {platform.release()}",
    }
    if device.startswith("cuda"):
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return found


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
