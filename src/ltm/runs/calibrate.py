"""`ltm forecast calibrate`: measure this machine for at most a minute, and keep what was found.

Writes: `$LTM_CACHE/machines/<fingerprint>.json` (`ltm.forecast.machine`). Everything is timed in worker processes like
those that train: pieces of a step, whole steps of different shapes on one worker, the same with all workers busy, a few
of compiled code, peak memory, and what surrounds training. Rounds are interleaved and the quiet ones count, since
neighbours on a machine slow it for seconds at a time.
"""

from __future__ import annotations

import datetime
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltm.errors import InputError, TrainError
from ltm.forecast.machine import Machine, describe, load_machine, margin, save_machine
from ltm.forecast.machine_fit import MemoryPeak, PieceTiming, StepTiming, fit_machine
from ltm.forecast.machine_work import DTYPES, Case
from ltm.progress import Progress
from ltm.runs import calibrate_costs, calibrate_pieces, calibrate_steps, capabilities, hardware
from ltm.runs.engine import compiled_folder
from ltm.runs.executors.local import Job, LocalExecutor, Outcome
from ltm.runs.section import RunsSection
from ltm.store import fingerprint
from ltm.units import format_bytes, format_count, format_seconds

SECONDS = 60.0
_PIECES_FRACTION, _STEPS_FRACTION, _BUSY_FRACTION = 0.2, 0.32, 0.14  # of the time given; the rest takes what it takes
_MEMORY_FRACTION, _COMPILED_FRACTION = 0.15, 0.08
_QUIET_FRACTION = 0.25  # a wider range than this is not the model's fault
_MOST_ROUNDS = 12
_FEWEST_PEAKS, _PEAKS_AT_ONCE = 6, 3


@dataclass
class _Found:
    """What a probe has found so far."""

    pieces: list[PieceTiming] = field(default_factory=list)
    steps: list[StepTiming] = field(default_factory=list)
    busy: list[StepTiming] = field(default_factory=list)
    compiled: list[StepTiming] = field(default_factory=list)
    peaks: list[MemoryPeak] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


def calibrate(
    budget_seconds: float = SECONDS,
    progress: Progress | None = None,
    compile: bool = False,  # noqa: A002 - the word that users know
    device: str = "auto",
    save: bool = True,
) -> Machine:
    """Probe this machine, fit its constants, and keep the record.

    Args:
        budget_seconds: The probe takes at most about this long; compiling comes on top.
        progress: Is told what is being measured.
        compile: Also time compiled steps, where there is a compiler; a minute more, the first time.
        device: auto, cpu, cuda or mps.
        save: Write the record to the cache.

    Raises:
        InputError: CUDA is asked for but not there.
        TrainError: the workers could not run the probe.
        StoreError: the cache cannot be written.
    """
    started = time.monotonic()
    say = progress or Progress(quiet=True)
    device = _device(device)
    n_workers = hardware.n_workers(RunsSection(), device)
    found = _measure(device, n_workers, budget_seconds, compile, say)
    fit = fit_machine(found.pieces, found.steps, found.busy, found.peaks, found.compiled)
    description = describe(device)
    machine = Machine(
        fingerprint=fingerprint(description),
        device=device,
        description=description,
        made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        probe_seconds=time.monotonic() - started,
        n_workers=n_workers,
        constants=fit.constants,
        multipliers=fit.multipliers,
        contention=fit.contention,
        memory=fit.memory,
        residuals=fit.residuals,
        costs=found.costs,
        compiled=fit.compiled,
        dtype=_dtype(device),
        compiles=device != "mps" and capabilities.has_compiler(),
        rates=found.rates,
    )
    if save:
        save_machine(machine)
    return machine


def calibrate_all(
    budget_seconds: float = SECONDS,
    progress: Progress | None = None,
    compile: bool = False,  # noqa: A002 - the word that users know
    device: str = "auto",
) -> list[Machine]:
    """Probe the processor and, where PyTorch sees one, the GPU; or the one that is asked for. Keep their records.

    Args:
        budget_seconds: Of each probe.
        progress: Is told what is being measured.
        compile: Also time compiled steps, where there is a compiler; a minute more, the first time.
        device: auto (all there are), cpu or cuda.

    Raises:
        InputError: CUDA is asked for but not there.
        TrainError: the workers could not run the probe.
        StoreError: the cache cannot be written.
    """
    found = _device("auto")
    if device == "cuda" and found != "cuda":
        raise InputError("--device cuda: PyTorch sees no GPU here", "use --device cpu, or a PyTorch built for the GPU")
    devices = [device] if device != "auto" else list(dict.fromkeys(["cpu", found]))
    return [calibrate(budget_seconds, progress, compile, one) for one in devices]


def _device(wanted: str) -> str:
    if wanted == "mps":
        return wanted
    return hardware.pick_device(RunsSection(device=wanted))  # type: ignore[arg-type]


def _dtype(device: str) -> str:
    """Return what runs are trained in where nothing else is said."""
    found = str(hardware.pick_dtype(RunsSection(), device)).removeprefix("torch.")
    return found if found in DTYPES else "float32"


def _measure(device: str, n_workers: int, budget: float, compiled: bool, say: Progress) -> _Found:
    found = _Found()
    started = time.monotonic()
    with LocalExecutor(1) as pool:  # a fresh process: its start and its peak memory are part of the answer
        _ask(pool, calibrate_costs.ready)
        found.costs["worker_start_seconds"] = time.monotonic() - started
        say.say("calibrate: what surrounds training")
        found.costs |= _ask(pool, calibrate_costs.costs, device)
        found.rates = _ask(pool, _rates_of(device), device)
        say.say("calibrate: pieces of a training step")
        pieces = calibrate_pieces.plan(device)
        random.Random(0).shuffle(pieces)  # a probe that runs out of time has then some of every kind
        found.pieces = _ask(pool, calibrate_pieces.time_pieces, pieces, _PIECES_FRACTION * budget, device)
        say.say("calibrate: whole training steps")
        found.steps = _steps(pool, calibrate_steps.plan(device), _STEPS_FRACTION * budget, device, 1)
    say.say("calibrate: memory of a worker")
    found.peaks = _peaks(_MEMORY_FRACTION * budget, device, n_workers)
    if n_workers > 1 and device == "cpu":
        say.say(f"calibrate: training steps on {n_workers} workers at once")
        with LocalExecutor(n_workers) as pool:
            cases = calibrate_steps.busy_plan(device)
            found.busy = _steps(pool, cases, _BUSY_FRACTION * budget, device, n_workers)
    if compiled and device != "mps" and capabilities.has_compiler():
        _compiled(found, device, n_workers, _COMPILED_FRACTION * budget, say)
    return found


def _compiled(found: _Found, device: str, n_workers: int, seconds: float, say: Progress) -> None:
    """Compile a few shapes, one on each worker at a time, then time them in a worker that finds them in the cache."""
    cases = calibrate_steps.compiled_plan(device, _dtype(device))
    say.say("calibrate: compiling")
    kept = _kept_codes()
    with LocalExecutor(n_workers if device == "cpu" else 1) as pool:
        jobs = [Job(str(index), (case, device)) for index, case in enumerate(cases)]
        outcomes = list(pool.map(calibrate_steps.compile_one, jobs))
    if not all(outcome.ok for outcome in outcomes):  # a compiler that does not work: the study would not compile either
        say.say(f"calibrate: torch.compile does not work here: {next(o.error for o in outcomes if not o.ok)}")
        return
    if _kept_codes() - kept == len(cases):
        found.costs["compile_seconds"] = sum(outcome.value for outcome in outcomes) / len(cases)
    elif (before := load_machine(device)) and "compile_seconds" in before.costs:
        found.costs["compile_seconds"] = before.costs["compile_seconds"]
    say.say("calibrate: compiled training steps")
    with LocalExecutor(1) as pool:
        found.compiled = _steps(pool, cases, seconds, device, 1, compiled=True)


def _kept_codes() -> int:
    return sum(1 for _ in compiled_folder().glob("*.done"))


def _peaks(seconds: float, device: str, n_workers: int) -> list[MemoryPeak]:
    """Return the peak memory of each case in a process of its own, a few at once, until the time is over."""
    end = time.monotonic() + seconds
    at_once = min(n_workers, _PEAKS_AT_ONCE) if device == "cpu" else 1
    peaks: list[MemoryPeak] = []
    plan = calibrate_steps.memory_plan(device)
    for start in range(0, len(plan), at_once):
        some = plan[start : start + at_once]
        if time.monotonic() > end and len(peaks) >= _FEWEST_PEAKS:
            break
        with LocalExecutor(len(some)) as pool:  # as many workers as jobs: each has one
            jobs = [Job(str(index), (case, device)) for index, case in enumerate(some)]
            outcomes = _checked(pool.map(calibrate_steps.memory_peak, jobs))
            peaks += [MemoryPeak(some[int(outcome.key)], outcome.value) for outcome in outcomes]
    return peaks


def _rates_of(device: str) -> Callable[..., Any]:
    if device == "cpu":
        return calibrate_costs.rates
    from ltm.runs.calibrate_gpu import gpu_rates

    return gpu_rates


def _ask(pool: LocalExecutor, task: Callable[..., Any], *arguments: Any) -> Any:
    """Return what one worker answers.

    Raises:
        TrainError: it could not.
    """
    return _ask_all(pool, task, arguments, 1)[0]


def _ask_all(pool: LocalExecutor, task: Callable[..., Any], arguments: Sequence[Any], n_workers: int) -> list[Any]:
    jobs = [Job(str(index), tuple(arguments)) for index in range(n_workers)]
    return [outcome.value for outcome in _checked(pool.map(task, jobs))]


def _checked(outcomes: Iterable[Outcome]) -> list[Outcome]:
    found = list(outcomes)
    for outcome in found:
        if not outcome.ok:
            raise TrainError(
                f"the probe could not run here: {outcome.error}",
                "a script that calls ltm needs `if __name__ == '__main__':`; else report this message",
            )
    return found


def _steps(
    pool: LocalExecutor, cases: list[Case], seconds: float, device: str, n_workers: int, compiled: bool = False
) -> list[StepTiming]:
    """Return the typical step of every case, over all workers that timed it at the same time."""
    answers = _ask_all(pool, calibrate_steps.time_steps, (cases, seconds, _MOST_ROUNDS, device, compiled), n_workers)
    timings = []
    for index, case in enumerate(cases):
        by_worker = [calibrate_steps.typical(answer[index]) for answer in answers if answer[index]]
        if len(by_worker) == n_workers:  # on a slow machine the time may end before every case had its turn
            timings.append(StepTiming(case, sum(by_worker) / n_workers))
    return timings


def lines(machine: Machine) -> list[str]:
    """Return what `ltm forecast calibrate` prints: what was measured, and some forecasts made from it."""
    about = machine.description
    step, busy, memory = (margin(machine.residuals[kind]) - 1 for kind in ("step", "busy", "memory"))
    result = [
        f"machine {machine.fingerprint}: {about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, "
        f"PyTorch {about['torch']}, {machine.device}; probed in {format_seconds(machine.probe_seconds)}",
        *(
            f"matmul {dtype}: {1 / c['mm_flop'] / 1e9:,.0f} GFLOP/s"
            for dtype, c in machine.constants.items()
            if c["mm_flop"]
        ),
        "correction of the sum of pieces to whole steps: "
        + "; ".join(
            f"{dtype} " + ", ".join(f"{name} {factor:.2f}" for name, factor in factors.items())
            for dtype, factors in machine.multipliers.items()
        ),
        f"90 % of shapes left out lie within {step:.0%} alone"
        + (f", {busy:.0%} with all workers busy" if machine.residuals["busy"] else "")
        + (f", {margin(machine.residuals['compiled']) - 1:.0%} compiled" if machine.compiled else "")
        + f"; memory within {memory:.0%}",
    ]
    if step > _QUIET_FRACTION:
        result.append("this range is wide: other programs may have run meanwhile; calibrate again on a quiet machine")
    if machine.compiles and not machine.compiled:
        result.append(
            "no compiled step was timed, so the usual gain is assumed, in a wider range; --compile times some"
        )
    measured = {**dict(sorted(machine.costs.items())), **machine.rates}
    result += [f"{_label(name)}: {_number(name, value)}" for name, value in measured.items()]
    return [*result, *_examples(machine)]


def _examples(machine: Machine) -> list[str]:
    from ltm.model.sizes import SIZES

    how = f"{machine.dtype}, {'compiled' if machine.compiles else 'not compiled'}, 8 sequences a step"
    result = ["", f"in {how}:", "size            tokens/s of one worker    all busy    peak memory    limited by"]
    for name in ("llama-0.2m", "llama-1m", "gpt2-5m", "mistral-5m", "llama-15m", "llama-30m"):
        batch = 8 * SIZES[name].block_size
        alone = machine.predict(SIZES[name], batch, compiled=machine.compiles)
        busy = machine.predict(SIZES[name], batch, n_workers=machine.n_workers, compiled=machine.compiles)
        rate = f"{format_count(alone.tokens_per_second)} ({format_count(alone.low)} - {format_count(alone.high)})"
        result.append(
            f"{name:<16}{rate:<26}{format_count(busy.tokens_per_second):<12}"
            f"{format_bytes(alone.peak_memory_bytes):<15}{alone.limited_by}"
        )
    return result


def _label(name: str) -> str:
    return name.removesuffix("_bytes_per_second").removesuffix("_flops_per_second").replace("_", " ")


def _number(name: str, value: float) -> str:
    if name.endswith("flops_per_second"):
        return f"{value / 1e9:,.1f} GFLOP/s"
    if name == "memory_bytes":
        return format_bytes(value)
    if name.endswith("bytes_per_second"):
        return f"{value / 1e6:,.1f} MB/s"
    if "seconds" in name:
        return f"{value:.3g} s"
    return f"{value:.2f}"
