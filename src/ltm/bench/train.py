"""`ltm bench train`: how fast this machine trains micro models, beside what else one would run on it.

All contenders get the same shape, tokens, batch and precision, live in processes that are started and warmed up once,
and then take turns, a few seconds each, round after round; only one runs at a time. What counts are ratios inside a
round: a neighbour that slows the machine for a minute slows everybody.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ltm.bench.crew import Crew
from ltm.bench.lineup import ENGINE, YARDSTICK, Contender, line_up, missing
from ltm.bench.question import DEFAULT_SIZES, DTYPES, Question, case_of, check, full_name
from ltm.bench.rows import BenchRow, Found, bench_row
from ltm.bench.statistics import turn_order
from ltm.errors import InputError, TrainError
from ltm.forecast.machine import describe
from ltm.forecast.machine_work import Case
from ltm.progress import Progress
from ltm.units import format_count


def bench_train(question: Question, progress: Progress | None = None) -> Iterator[BenchRow]:
    """Yield one row for each size, as soon as it is measured.

    Raises:
        InputError: something asked for does not exist or is not here; raised before anything is started.
        TrainError: ltm itself could not train. (A peer that cannot gets a reason in its row.)
    """
    check(question)
    device = _device(question)
    dtype = _dtype(question, device)
    sizes = question.sizes or DEFAULT_SIZES[device]
    cases = [(size, case_of(size, question, device, dtype)) for size in sizes]
    return _measured(question, cases, device, progress or Progress(quiet=True))


def _measured(question: Question, cases: Sequence[tuple[str, Case]], device: str, say: Progress) -> Iterator[BenchRow]:
    machine = describe(device) | {"versions": _versions()}
    for size, case in cases:
        with tempfile.TemporaryDirectory(prefix="ltm-bench-") as folder:
            lineup = line_up(question, case, _n_cores(), device, folder)
            found = _take_turns(question, lineup, Path(folder), size, say)
        yield bench_row(size, full_name(size), question, case, lineup, found, machine)


def _take_turns(
    question: Question, lineup: Sequence[Contender], folder: Path, size: str, say: Progress
) -> dict[str, Found]:
    """Warm everybody up, then let them run in turns."""
    found = {contender.key: Found() for contender in lineup}
    by_key = {contender.key: contender for contender in lineup}
    crews: dict[str, Crew] = {}
    with ExitStack() as stack:
        for contender in lineup:
            say.say(f"{size}: starting {contender.name}")
            crew = _warm_crew(contender, found[contender.key], folder, stack)
            if crew is not None:
                crews[contender.key] = crew
            else:
                say.say(f"{size}: {contender.name} is left out: {found[contender.key].reason}")
        for index in range(question.rounds):
            for key in turn_order([contender.key for contender in lineup], index):
                if key not in crews:
                    continue
                try:
                    found[key].turns.append(crews[key].turn(question.seconds))
                except TrainError as error:
                    _leave_out(by_key[key], found[key], error)
                    crews.pop(key).close()
            _say_round(size, index, question.rounds, found, say)
    return found


def _warm_crew(contender: Contender, found: Found, folder: Path, stack: ExitStack) -> Crew | None:
    """Return a contender's processes, warm, with the fastest attention that it ships; None if it cannot run here."""
    found.reason = missing(contender.peer)
    best: Crew | None = None
    for attention in () if found.reason else contender.attentions:
        crew = Crew(f"{contender.name} {attention}".strip(), contender.seats(attention), folder)
        stack.callback(crew.close)
        try:
            crew.warm()
        except TrainError as error:
            _leave_out(contender, found, error)
            crew.close()
            continue
        found.tried[attention or "its own"] = _step_seconds(crew)
        slower = crew if best and _step_seconds(best) <= _step_seconds(crew) else best
        best = best if slower is crew else crew
        if slower is not None:
            slower.close()
    if best is not None:
        found.reason, found.ready = "", best.ready
    return best


def _leave_out(contender: Contender, found: Found, error: TrainError) -> None:
    """Keep why a peer has no figures; without ltm or the yardstick there is nothing to compare."""
    if contender.peer in (ENGINE, YARDSTICK):
        raise error
    found.reason, found.turns = error.message, []


def _step_seconds(crew: Crew) -> float:
    return sum(ready.step_seconds for ready in crew.ready) / len(crew.ready)


def _say_round(size: str, index: int, rounds: int, found: dict[str, Found], say: Progress) -> None:
    rates = {key: value.rates()[-1] for key, value in found.items() if value.turns}
    ours = rates.pop(ENGINE)
    rates.pop(YARDSTICK)
    beside = "".join(f", {ours / rate:.2f}x {key}" for key, rate in rates.items())
    say.say(f"{size}: round {index + 1} of {rounds}: {format_count(ours)} tokens/s{beside}")


def _device(question: Question) -> str:
    from ltm.runs.hardware import pick_device
    from ltm.runs.section import RunsSection

    try:
        return pick_device(RunsSection(device=question.device))  # type: ignore[arg-type]
    except InputError:
        raise InputError(
            f"--device {question.device}: PyTorch sees no GPU here", "use --device cpu, or a PyTorch built for the GPU"
        ) from None


def _dtype(question: Question, device: str) -> str:
    from ltm.runs.hardware import pick_dtype
    from ltm.runs.section import RunsSection

    picked = pick_dtype(RunsSection(dtype=question.dtype), device)  # type: ignore[arg-type]
    name = str(picked).removeprefix("torch.")
    return (
        name if name in DTYPES else "float32"
    )  # a card without bfloat16: float16 scales losses, everybody differently


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _versions() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("ltm", "torch", "transformers", "accelerate"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
