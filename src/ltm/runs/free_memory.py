"""How much memory a worker may take, and a fence that turns taking more into an error.

Reads: `/proc/meminfo` and the limits of control groups (versions 1 and 2, as containers and batch systems set them)
on Linux; `nvidia-smi`, or else PyTorch, on CUDA; PyTorch on MPS. A Linux machine that runs out of memory kills the
process instead of refusing an allocation; behind the fence the allocation fails, and the run can go on with a smaller
micro batch.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_USUAL_SHARE = 0.5  # of the physical memory, where the system does not say what is free
_NO_LIMIT = 1 << 60  # version 1 writes a number near 2^63 for none
_CONTEXT_BYTES = 600e6  # that a process takes on a card beside its tensors: CUDA's own, kernels
_ASK_SECONDS = 20.0  # the first question after a start wakes the driver


def free_bytes(device: str, n_workers: int = 1, root: Path = Path("/")) -> float:
    """Return the free memory of a device in bytes, divided by the workers that will share it.

    Of several cards the fullest counts. Ask once, before the workers start: what others have taken by then would be
    missing twice.

    Args:
        device: cpu, cuda or mps.
        n_workers: Processes on this device.
        root: Where `proc` and `sys` lie.
    """
    if device == "cpu":
        free = _cpu_free_bytes(root)
    elif device == "cuda":
        free = _card_free_bytes()
    else:
        import torch

        free = float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return max(0.0, free) / max(1, n_workers)


def _cpu_free_bytes(root: Path) -> float:
    """Return what the machine and all control groups above this process leave."""
    left = [limit - used for limit, used in _group_limits(root)]
    available = _field_bytes(root / "proc/meminfo", "MemAvailable:")
    if available is None:
        available = _USUAL_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return float(min([available, *left]))


def _group_limits(root: Path) -> list[tuple[float, float]]:
    """Return (limit, used) in bytes of every control group of this process that has a limit."""
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts, names = (
                ["sys/fs/cgroup", "sys/fs/cgroup/unified"],
                ("memory.max", "memory.current", "inactive_file"),
            )
        elif "memory" in controllers.split(","):
            mounts = ["sys/fs/cgroup/memory"]
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            for depth in range(len(parts) + 1):  # inside a container the path may not be there: its root then counts
                limit = _group_limit(root.joinpath(mount, *parts[:depth]), *names)
                found += [limit] if limit else []
    return found


def _group_limit(folder: Path, limit_name: str, used_name: str, cached_name: str) -> tuple[float, float] | None:
    limit, used = _number(folder / limit_name), _number(folder / used_name)
    if limit is None or used is None or limit >= _NO_LIMIT:
        return None
    cached = next((line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith(f"{cached_name} ")), 0)
    return limit, max(0.0, used - float(cached))  # cached files are given up before anybody is killed


def _card_free_bytes() -> float:
    """Return what the fullest of the visible cards has left.

    PyTorch can only be asked at the price of a CUDA context: half a gigabyte of each card for as long as this process
    lives, and on cards that take one process only (as some clusters set them) the place of the worker.
    """
    wanted = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    columns = "index,uuid,memory.free,name,mig.mode.current"
    command = ["nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ASK_SECONDS).stdout
        cards = [[part.strip() for part in line.split(",")] for line in told.splitlines()]
        free = {key: float(mebibytes) * 2**20 for *keys, mebibytes, _, _ in cards for key in keys}
        # CUDA numbers different cards fastest first, nvidia-smi by their place: then the least of all is safe.
        by_place = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or not any(name.isdigit() for name in wanted)
        alike = by_place or len({name for *_, name, _ in cards}) == 1
        whole = all(mig != "Enabled" for *_, mig in cards)
        if free and whole and all(name in free for name in wanted):
            return min(free[name] for name in (wanted if wanted and alike else free))
    import torch  # parts of a card (MIG) and AMD's cards

    return min(float(torch.cuda.mem_get_info(index)[0]) for index in range(torch.cuda.device_count()))


@contextlib.contextmanager
def card_fence(most_bytes: float) -> Iterator[None]:
    """Make allocations on this process's card fail beyond so many bytes in all, so that what others were promised stays
    theirs: PyTorch keeps what it has freed, and the last of several workers would find nothing."""
    import torch

    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.0, most_bytes - _CONTEXT_BYTES) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@contextlib.contextmanager
def fence(more_bytes: float, root: Path = Path("/")) -> Iterator[None]:
    """Make allocations fail that would take this process beyond so many more bytes than it has now.

    For work on a CPU only: CUDA reserves address space without using it. Does nothing where the system has no such
    limit (it is Linux's limit on private writable memory), and never loosens one that stands.
    """
    held = _field_bytes(root / "proc/self/status", "VmData:")
    if held is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(held + more_bytes)
    tighter = [limit for limit in (soft, hard, wanted) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(tighter), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _field_bytes(path: Path, name: str) -> float | None:
    """Return a `Name:  123 kB` field of a file in `/proc`."""
    for line in _lines(path):
        if line.startswith(name):
            return float(line.split()[1]) * 1024
    return None


def _number(path: Path) -> float | None:
    try:
        return float(_lines(path)[0])
    except (IndexError, ValueError):  # not there, or `max`
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
