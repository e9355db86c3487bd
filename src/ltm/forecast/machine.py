"""One machine as measured: its constants, and what they forecast for ltm's own training engine.

Reads and writes: `$LTM_CACHE/machines/<fingerprint>.json`. `ltm.runs.calibrate` makes the record from a probe; here it
is kept, found again and asked. A step's time is the sum of its terms (`ltm.forecast.machine_work`) times the machine's
constants, times one correction per class; ranges come from leaving each probed shape out in turn.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ltm.errors import InputError, StoreError
from ltm.forecast.machine_work import (
    CLASSES,
    DTYPES,
    ENGINE,
    Case,
    average_terms,
    class_seconds,
    compiled_constants,
    memory_parts,
    step_terms,
)
from ltm.model.sizes import SIZES, ModelConfig
from ltm.store import cache_folder, fingerprint, read_json, write_json

VERSION = 2  # of the record; another one is not used
_COVERED = 0.9
_DEVICES = ("cpu", "cuda", "mps")
_LARGEST_RESIDUAL = 5.0  # ln(measured / forecast); a range of a factor 150 is no measurement
_UNTIMED_MARGIN = 1.2  # of what compiling gains, where no compiled step was timed
_CHECKED = SIZES["llama-0.1m"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one worker does, and its peak memory; ranges hold 90 %."""

    tokens_per_second: float
    low: float
    high: float
    peak_memory_bytes: float
    peak_memory_bytes_low: float
    peak_memory_bytes_high: float
    limited_by: str  # compute, memory bandwidth or launch overhead
    parts_seconds: dict[str, float]  # of one step, by class


@dataclass(frozen=True)
class Machine:
    """What a probe found out about one machine; every number is a measurement of it."""

    fingerprint: str
    device: str  # cpu, cuda or mps
    description: dict[str, Any]
    made_at: str
    probe_seconds: float
    n_workers: int  # processes when all are busy
    constants: dict[str, dict[str, float]]  # precision -> constant -> seconds per FLOP, element, row or call
    multipliers: dict[str, dict[str, float]]  # precision -> class -> correction from whole steps
    contention: dict[str, float]  # class -> factor on its time when all workers are busy
    memory: dict[str, float]  # part -> factor on its bytes; framework_bytes is a number of bytes
    residuals: dict[str, list[float]]  # step, busy, memory, compiled: ln(measured / forecast) of shapes left out
    costs: dict[str, float] = field(default_factory=dict)  # start, build, tokenizer, scoring, disk, compile; with units
    compiled: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # precision -> class -> factor on the usual gain
    dtype: str = "float32"  # what runs are trained in where nothing else is said
    compiles: bool = False  # whether there is a compiler, so that long runs are compiled
    rates: dict[str, float] = field(default_factory=dict)  # FLOP/s and bytes/s by kernel and size, for people
    version: int = VERSION

    def predict(
        self,
        config: ModelConfig,
        batch_tokens: int,
        micro_batch_tokens: int = 0,
        dtype: str = "",
        n_workers: int = 1,
        n_steps: int = 0,
        compiled: bool = False,
        averaged: bool = False,
    ) -> Prediction:
        """Return the speed and peak memory of one worker.

        Args:
            config: Any shape of ltm's decoder.
            batch_tokens: Tokens of one step.
            micro_batch_tokens: Tokens of one forward pass; 0 = the whole batch.
            dtype: float32 or bfloat16; empty = what this machine trains in where nothing else is said.
            n_workers: Processes that train at the same time.
            n_steps: Steps of the run, over which the averaging of weights is spread. 0 = very many.
            compiled: By torch.compile; where no compiled step was timed, by what compiling usually gains.
            averaged: The scored weights are an average over the last steps (`runs.average_share`).

        Raises:
            InputError: the batch holds no whole sequences, or the precision was not probed.
        """
        dtype = dtype or self.dtype
        case = Case(config, batch_tokens, micro_batch_tokens, dtype, averaged)
        if dtype not in self.multipliers:
            raise InputError(f"{dtype} was not probed on this machine", f"probed: {', '.join(self.multipliers)}")
        parts = self.step_seconds(case, n_workers, n_steps, compiled)
        rate = batch_tokens / sum(parts.values())
        spread = margin(self.residuals["busy" if n_workers > 1 and self.residuals["busy"] else "step"])
        if compiled:
            spread *= margin(self.residuals["compiled"]) if dtype in self.compiled else _UNTIMED_MARGIN
        peak = self.peak_memory_bytes(case)
        memory_spread = margin(self.residuals["memory"])
        return Prediction(
            tokens_per_second=rate,
            low=rate / spread,
            high=rate * spread,
            peak_memory_bytes=peak,
            peak_memory_bytes_low=peak / memory_spread,
            peak_memory_bytes_high=peak * memory_spread,
            limited_by=self._limit(case, parts, compiled),
            parts_seconds=parts,
        )

    def step_seconds(
        self, case: Case, n_workers: int = 1, n_steps: int = 0, compiled: bool = False
    ) -> dict[str, float]:
        """Return the seconds of one step by class."""
        terms = step_terms(case)
        if n_steps:
            terms = average_terms(terms, case, n_steps)
        corrections = self._corrections(case.dtype, compiled)
        constants = self._constants(case.dtype, compiled)
        busy = (min(n_workers, self.n_workers) - 1) / max(1, self.n_workers - 1)
        turns = max(1.0, n_workers / self.n_workers) if self.device == "cpu" else 1.0  # more processes than cores
        return {
            name: seconds * corrections[name] * (1 + busy * (self.contention.get(name, 1.0) - 1)) * turns
            for name, seconds in class_seconds(terms, constants).items()
        }

    def _corrections(self, dtype: str, compiled: bool) -> dict[str, float]:
        """Return a factor by class on the sum of pieces."""
        corrections = self.multipliers[dtype]
        if not compiled:
            return corrections
        factors = self.compiled.get(dtype, {})
        return {name: corrections[name] * factors.get(name, 1.0) for name in CLASSES}

    def _constants(self, dtype: str, compiled: bool) -> dict[str, float]:
        return compiled_constants(self.constants[dtype]) if compiled else self.constants[dtype]

    def peak_memory_bytes(self, case: Case) -> float:
        """Return the peak memory of one worker: its process on a CPU, what PyTorch allocates on a GPU."""
        parts = memory_parts(case)
        return self.memory["framework_bytes"] + sum(self.memory.get(name, 1.0) * n for name, n in parts.items())

    def _limit(self, case: Case, parts: Mapping[str, float], compiled: bool) -> str:
        terms, corrections, flops = step_terms(case), self._corrections(case.dtype, compiled), 0.0
        constants = self._constants(case.dtype, compiled)
        for name, group in (("mm_flop", "matmul"), ("dw_flop", "matmul"), ("bmm_flop", "attention")):
            flops += terms.get(name, 0.0) * constants[name] * corrections[group]
        shares = {"compute": flops, "launch overhead": parts["overhead"]}
        shares["memory bandwidth"] = sum(parts.values()) - sum(shares.values())
        return max(shares, key=lambda name: shares[name])


def margin(residuals: list[float]) -> float:
    """Return the factor either way that holds 90 % of new cases: the split-conformal quantile of |ln ratio|.

    >>> round(margin([0.01, -0.02, 0.03, -0.04, 0.05, 0.01, -0.02, 0.03, 0.04, 0.10]), 3)
    1.105
    """
    sizes = sorted(abs(r) for r in residuals)
    if not sizes:
        return 1.5  # nothing was left out to learn from
    rank = math.ceil((len(sizes) + 1) * _COVERED)
    if rank > len(sizes):  # too few to know a range that holds 90 %: the largest, and half more
        return math.exp(1.5 * sizes[-1])
    return math.exp(sizes[rank - 1])


def describe(device: str = "cpu") -> dict[str, Any]:
    """Return what makes two measurements comparable: device, processor, cores, memory, PyTorch and ltm's engine.

    No host name, no path.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        torch_version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch_version = "none"
    return {
        "device": device,
        "processor": _gpu_model() if device == "cuda" else cpu_model(),
        "cores": cores,
        "memory_gib": round(memory / 1024**3),
        "torch": torch_version,
        "engine": ENGINE,
    }


def machines_folder() -> Path:
    """Return where machines are kept: `machines` in the cache folder."""
    return cache_folder() / "machines"


def machine_path(device: str = "cpu") -> Path:
    """Return where this machine's record lies."""
    return machines_folder() / f"{fingerprint(describe(device))}.json"


def save_machine(machine: Machine) -> Path:
    """Write the record whole, under its fingerprint.

    Raises:
        StoreError: the cache cannot be written.
    """
    path = machines_folder() / f"{machine.fingerprint}.json"
    write_json(path, dataclasses.asdict(machine))
    return path


def read_machine(path: Path) -> Machine:
    """Read a record.

    Raises:
        StoreError: it is missing, cannot be read, is damaged, or of another version.
    """
    again = "run `ltm forecast calibrate`"
    try:
        values = read_json(path)
    except StoreError as error:
        raise StoreError(error.message, again) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}) and is not used", again) from None
    if not isinstance(values, dict) or values.get("version") != VERSION:
        raise StoreError(f"{path} was made by another version of ltm and is not used", again)
    try:
        machine = Machine(**values)
        _check(machine)
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise StoreError(f"{path} is damaged and is not used", again) from None
    return machine


def load_machine(device: str = "cpu", say: Callable[[str], None] | None = None) -> Machine | None:
    """Return this machine's record, or None where there is none that can be used; `say` is told why."""
    path = machine_path(device)
    if not os.path.lexists(path):
        return None
    try:
        return read_machine(path)
    except StoreError as error:
        if say:
            say(str(error))
        return None


def _check(machine: Machine) -> None:
    """Raise one of the errors of a wrong value unless all numbers that a forecast needs are there and possible."""
    if machine.device not in _DEVICES or not isinstance(machine.fingerprint, str):
        raise ValueError("it is not said of what machine")
    if type(machine.n_workers) is not int or machine.n_workers < 1 or not machine.multipliers:
        raise ValueError("no worker, or no precision")
    if machine.dtype not in DTYPES or type(machine.compiles) is not bool:
        raise ValueError("it is not said how runs are trained")
    amounts = [machine.memory["framework_bytes"], machine.probe_seconds]
    for group in (machine.memory, machine.contention, machine.costs, machine.rates):
        amounts += group.values()
    for dtype in machine.multipliers:
        amounts += [machine.constants[dtype][name] for names in CLASSES.values() for name in names]
    for corrections in (*machine.multipliers.values(), *machine.compiled.values()):
        amounts += [corrections[name] for name in CLASSES]
    if not all(0 <= amount < math.inf for amount in amounts):
        raise ValueError("a number is missing or negative")
    for kind in ("step", "busy", "memory", "compiled"):
        if not all(abs(residual) < _LARGEST_RESIDUAL for residual in machine.residuals[kind]):
            raise ValueError("a range is missing or without end")
    for dtype in machine.multipliers:
        if dtype not in DTYPES or not sum(machine.step_seconds(Case(_CHECKED, _CHECKED.block_size, 0, dtype)).values()):
            raise ValueError("a step takes no time")


@functools.cache
def cpu_model() -> str:
    """Return what the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def _gpu_model() -> str:
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                return line.split(":", 1)[1].strip()
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return found.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown GPU"
