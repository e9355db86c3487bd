"""The makespan of a campaign before it is run: workers of several kinds, phases with barriers, and what goes wrong.

A campaign is a list of phases; each deals its jobs, longest first, to whichever worker is free first (list scheduling).
Workers start up, are slower than planned, fail, are pre-empted, and take runs up again from checkpoints. The whole is
simulated many times with the times of each kind drawn from their 90 % ranges; what makes the range wide is found by
simulating again, with the same random numbers, without one source of variance after the other.

Why a simulation: for one worker Daly's formula would do (Daly 2006, "A higher order estimate of the optimum checkpoint
interval", eq. 13; the tests compare), but not for mixed workers, half-empty last rounds and barriers.
"""

# ruff: noqa: N803, N806 - names end in the shape of their array
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ltm.errors import InputError
from ltm.forecast.replicates import SOURCES, Replicates, Source, expected_attempts, play
from ltm.forecast.schedule import LEDGER, Floats
from ltm.forecast.workers import Phase, Range, WorkerKind, check
from ltm.units import format_seconds

_EVENTS = 3_000_000  # attempts at jobs that one call simulates before it takes fewer replicates (some seconds)
_FEWEST_REPLICATES = 10  # whose lowest and highest are the 5 % and 95 % points of an evenly spread draw
_ENOUGH = 0.9  # a source that explains so much of the range is the main one; the others are not tried
_MOST_INTERRUPTIONS = 5.0  # expected in one stretch between checkpoints: e^5 = 150 attempts, 30 times the time


@dataclass(frozen=True)
class PhaseTime:
    """By how much a phase moves the end of the campaign; phases without a barrier overlap the one before."""

    name: str
    seconds: Range


@dataclass(frozen=True)
class Makespan:
    """What a campaign takes; ranges are 90 %.

    `shares` split the time of all workers from their start to the end: `useful`, `stragglers` (what slow workers need
    more), `startup`, `checkpoints` (writing them), `failures` and `preemptions` (work lost, restarts, absences), `idle`
    (half-empty last rounds, barriers, the driver's phases). `widths` say by which fraction the range of the makespan
    narrows, on a logarithmic scale, when a source of variance is switched off; sources after one that explains nine
    tenths of it are not tried.
    """

    seconds: Range
    phases: tuple[PhaseTime, ...]
    shares: dict[str, float]
    energy_kwh: Range
    usd: Range
    failures: float
    preemptions: float
    replicates: int
    main_reason: str
    widths: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def simulate(
    kinds: Sequence[WorkerKind],
    phases: Sequence[Phase],
    *,
    replicates: int = 200,
    seed: int = 0,
    usd_per_kwh: float = 0.0,
    explain: bool = True,
) -> Makespan:
    """Return the makespan of a campaign with its range.

    Args:
        kinds: The workers.
        phases: In their order.
        replicates: How many campaigns are simulated; fewer when these are huge (`Makespan.replicates` says how many).
            One replicate is one possible campaign.
        seed: Same seed, same result.
        usd_per_kwh: Price of electricity, on top of the rent of the workers.
        explain: Find out what makes the range wide; takes up to six times as long.

    Raises:
        InputError: no workers, no phases, numbers that cannot be, or workers that fail before they get anything done.
    """
    if not kinds or not phases:
        raise InputError(f"a campaign of {len(kinds)} worker kinds and {len(phases)} phases", "give at least one each")
    if replicates < 1:
        raise InputError(f"replicates is {replicates}", "give at least 1; 200 is usual")
    check("campaign", "usd_per_kwh", usd_per_kwh)
    kinds = sorted(kinds, key=lambda kind: kind.run_seconds)  # of two free workers the faster takes the job
    _check_progress(kinds, phases)
    sources = _active(kinds, phases) if explain and replicates > 1 else []
    replicates = _affordable(kinds, phases, replicates, len(sources))
    whole = play(kinds, phases, replicates, seed, ())
    widths: dict[str, float] = {}
    seconds = _range(whole.makespan_R)
    without: dict[Source, Range] = {}
    for source in sources:
        without[source] = _range(play(kinds, phases, replicates, seed, (source,)).makespan_R)
        widths[source] = 1 - _width(without[source]) / _width(seconds) if _width(seconds) > 0 else 0.0
        if widths[source] > _ENOUGH:
            break
    kwh_R, usd_R = _bill(kinds, whole, usd_per_kwh)
    return Makespan(
        seconds=seconds,
        phases=_phase_times(phases, whole),
        shares=_shares(kinds, whole),
        energy_kwh=_range(kwh_R),
        usd=_range(usd_R),
        failures=float(whole.interruptions_R2[:, 0].mean()),
        preemptions=float(whole.interruptions_R2[:, 1].mean()),
        replicates=replicates,
        main_reason=_main_reason(kinds, phases, seconds, without) if explain else "",
        widths=widths,
    )


def _check_progress(kinds: Sequence[WorkerKind], phases: Sequence[Phase]) -> None:
    """Refuse workers that are interrupted before they reach the next checkpoint, again and again.

    Raises:
        InputError: such a campaign would never end.
    """
    sizes = [(float(phase.sizes.max()), phase.seconds) for phase in phases if phase.one_per == "job"]
    for kind in kinds:
        slow = kind.straggler_slowdown if kind.straggler_fraction else 1.0
        longest = max((slow * (size * kind.run_seconds + seconds) for size, seconds in sizes), default=0.0)
        stretch = min(longest, kind.checkpoint_every_seconds + kind.checkpoint_seconds) + kind.restart_seconds
        if kind.outage.rate * stretch > _MOST_INTERRUPTIONS:
            between = format_seconds(1 / kind.outage.rate)
            raise InputError(
                f"worker kind {kind.name!r}: a job needs {format_seconds(stretch)} without an interruption to get on, "
                f"and one comes every {between}: the campaign would never end",
                f"write checkpoints every {between} or more often (checkpoint_every_seconds), or leave this kind out",
            )


def _active(kinds: Sequence[WorkerKind], phases: Sequence[Phase]) -> list[Source]:
    """Return the sources of variance that this campaign has."""
    there: dict[Source, bool] = {
        "speed": any(kind.run_range.low < kind.run_range.high for kind in kinds),
        "phases": any(phase.seconds_range.low < phase.seconds_range.high for phase in phases),
        "jitter": any(kind.jitter_fraction > 0 for kind in kinds),
        "stragglers": any(kind.straggler_fraction > 0 and kind.straggler_slowdown > 1 for kind in kinds),
        "failures": any(kind.outage.failure_rate > 0 for kind in kinds),
        "preemptions": any(kind.outage.preemption_rate > 0 for kind in kinds),
    }
    return [source for source in SOURCES if there[source]]


def _affordable(kinds: Sequence[WorkerKind], phases: Sequence[Phase], asked: int, n_sources: int) -> int:
    events = expected_attempts(kinds, phases) * (1 + n_sources)
    return min(asked, max(_FEWEST_REPLICATES, int(_EVENTS / events)))


def _range(values_R: Floats) -> Range:
    median, low, high = np.quantile(values_R, [0.5, 0.05, 0.95], method="hazen").tolist()
    return Range(median, low, high)


def _width(value: Range) -> float:
    return math.log(value.high / value.low) if value.low > 0 else 0.0


def _phase_times(phases: Sequence[Phase], played: Replicates) -> tuple[PhaseTime, ...]:
    reached_RP = np.maximum.accumulate(played.ends_RP, axis=1)
    added_RP = np.diff(reached_RP, axis=1, prepend=0.0)
    return tuple(PhaseTime(phase.name, _range(added_RP[:, place])) for place, phase in enumerate(phases))


def _shares(kinds: Sequence[WorkerKind], played: Replicates) -> dict[str, float]:
    total = float(sum(kind.count for kind in kinds) * (played.makespan_R - played.pool_start_R).sum())
    spent = dict(zip(LEDGER, played.ledger_RLK.sum(axis=(0, 2)).tolist(), strict=True))
    shares = {
        "useful": spent["kept"],
        "stragglers": spent["slow"],
        "startup": spent["startup"],
        "checkpoints": spent["checkpoints"],
        "failures": spent["lost_failures"] + spent["repair"],
        "preemptions": spent["lost_preemptions"] + spent["away"],
    }
    shares = {name: seconds / total if total > 0 else 0.0 for name, seconds in shares.items()}
    return {**shares, "idle": 1 - sum(shares.values())}


def _bill(kinds: Sequence[WorkerKind], played: Replicates, usd_per_kwh: float) -> tuple[Floats, Floats]:
    """Return kWh and USD of each replicate; a pre-empted worker is neither paid nor draws power."""
    spent = {name: played.ledger_RLK[:, row] for row, name in enumerate(LEDGER)}
    count_K, watts_K, idle_watts_K, usd_K = (
        np.array([getattr(kind, name) for kind in kinds]) for name in ("count", "watts", "idle_watts", "usd_per_hour")
    )
    total_RK = count_K * (played.makespan_R - played.pool_start_R)[:, None]
    busy = ("kept", "slow", "checkpoints", "startup", "lost_failures", "lost_preemptions")
    busy_RK = np.sum([spent[name] for name in busy], axis=0)
    waiting_RK = total_RK - busy_RK - spent["away"]
    kwh_R = (busy_RK @ watts_K + waiting_RK @ idle_watts_K) / 3.6e6
    return kwh_R, (total_RK - spent["away"]) @ usd_K / 3600 + kwh_R * usd_per_kwh


def _main_reason(
    kinds: Sequence[WorkerKind], phases: Sequence[Phase], seconds: Range, without: dict[Source, Range]
) -> str:
    """Say in words what makes the range wide."""
    if not without:
        return "nothing varies: every time was given as exact"
    if _width(seconds) < 0.01:
        return "the range is narrower than 1 %: what varies averages out"
    source = min(without, key=lambda name: _width(without[name]))
    gain = 1 - _width(without[source]) / _width(seconds)
    if gain < 0.05:
        return "no single source: without any one of them the range stays as wide"
    rest = f"{format_seconds(without[source].low)} to {format_seconds(without[source].high)}"
    return f"{_SAY[source](kinds, phases)}; without that the range would be {100 * gain:.0f} % narrower ({rest})"


def _say_speed(kinds: Sequence[WorkerKind], _phases: Sequence[Phase]) -> str:
    kind = max(kinds, key=lambda k: _width(k.run_range) * k.count / k.run_seconds)
    low, high = format_seconds(kind.run_range.low), format_seconds(kind.run_range.high)
    return f"how fast one run is on {kind.name} ({low} to {high})"


def _say_phases(_kinds: Sequence[WorkerKind], phases: Sequence[Phase]) -> str:
    phase = max(phases, key=lambda p: p.n_jobs * (p.seconds_range.high - p.seconds_range.low))
    low, high = format_seconds(phase.seconds_range.low), format_seconds(phase.seconds_range.high)
    return f"the fixed time of {phase.name} ({low} to {high})"


def _say_jitter(kinds: Sequence[WorkerKind], _phases: Sequence[Phase]) -> str:
    return f"runs differ among themselves ({100 * max(kind.jitter_fraction for kind in kinds):.0f} %)"


def _say_stragglers(kinds: Sequence[WorkerKind], _phases: Sequence[Phase]) -> str:
    kind = max(kinds, key=lambda k: k.straggler_fraction * k.count)
    return f"slow workers ({100 * kind.straggler_fraction:.0f} % of {kind.name}, x{kind.straggler_slowdown:g})"


def _say_failures(kinds: Sequence[WorkerKind], _phases: Sequence[Phase]) -> str:
    kind = max(kinds, key=lambda k: k.outage.failure_rate * k.count)
    return f"failures (each worker of {kind.name} about once in {kind.hours_between_failures:g} h)"


def _say_preemptions(kinds: Sequence[WorkerKind], _phases: Sequence[Phase]) -> str:
    kind = max(kinds, key=lambda k: k.preemptions_per_hour * k.count)
    return f"pre-emptions ({kind.preemptions_per_hour:g} an hour on each worker of {kind.name})"


_SAY: dict[Source, Callable[[Sequence[WorkerKind], Sequence[Phase]], str]] = {
    "speed": _say_speed,
    "phases": _say_phases,
    "jitter": _say_jitter,
    "stragglers": _say_stragglers,
    "failures": _say_failures,
    "preemptions": _say_preemptions,
}
