"""What a campaign is made of: kinds of workers, and phases of jobs; every number is checked where it enters.

Kept apart from the simulation so that a study, a table or a page can describe a campaign without running one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ltm.errors import InputError
from ltm.forecast.schedule import Floats, Outage

_INF = float("inf")


@dataclass(frozen=True)
class Range:
    """A median with its 90 % range."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class WorkerKind:
    """Some workers that are alike.

    Args:
        name: For people.
        count: How many.
        run_seconds: A run of size 1 on one of them, all others busy.
        run_seconds_low: Lower end of the 90 % range of `run_seconds`; the error is the same for all runs (one draw a
            replicate, split log-normal). By default there is none.
        run_seconds_high: Upper end.
        jitter_fraction: Coefficient of variation between runs (log-normal, mean 1).
        startup_seconds: Before the first run, and after each absence.
        straggler_fraction: Share of workers that are slow for the whole campaign.
        straggler_slowdown: How many times slower these are.
        hours_between_failures: Mean busy hours of one worker between failures (exponential).
        repair_seconds: A failed worker is away for so long.
        preemptions_per_hour: Of one busy worker, without notice.
        preempted_seconds: A pre-empted worker is away for so long, and not paid.
        checkpoint_every_seconds: Seconds of work between checkpoints; infinite: an interrupted run starts anew.
        checkpoint_seconds: Writing one.
        restart_seconds: Taking an interrupted run up again.
        watts: Draw of a busy worker.
        idle_watts: Draw of a waiting one, or one in repair.
        usd_per_hour: Rent of one worker from its start to the end of the campaign.

    Raises:
        InputError: a number that cannot be.
    """

    name: str
    count: int
    run_seconds: float
    run_seconds_low: float | None = None
    run_seconds_high: float | None = None
    jitter_fraction: float = 0.0
    startup_seconds: float = 0.0
    straggler_fraction: float = 0.0
    straggler_slowdown: float = 1.0
    hours_between_failures: float = _INF
    repair_seconds: float = 0.0
    preemptions_per_hour: float = 0.0
    preempted_seconds: float = 0.0
    checkpoint_every_seconds: float = _INF
    checkpoint_seconds: float = 0.0
    restart_seconds: float = 0.0
    watts: float = 0.0
    idle_watts: float = 0.0
    usd_per_hour: float = 0.0

    def __post_init__(self) -> None:
        where = f"worker kind {self.name!r}"
        if isinstance(self.count, bool) or self.count != int(self.count) or self.count < 1:
            raise InputError(f"{where}: count is {self.count}", "give at least one worker, or leave the kind out")
        for name in ("run_seconds", "hours_between_failures", "checkpoint_every_seconds"):
            check(where, name, getattr(self, name), above=True, infinite=name != "run_seconds")
        for name in _NOT_NEGATIVE:
            check(where, name, getattr(self, name))
        check(where, "straggler_slowdown", self.straggler_slowdown, least=1.0)
        if self.straggler_fraction > 1:
            raise InputError(f"{where}: straggler_fraction is {self.straggler_fraction}", "give a share from 0 to 1")
        check_range(where, "run_seconds", self.run_range)

    @property
    def run_range(self) -> Range:
        """Seconds of a run of size 1, with the range filled in."""
        return filled(self.run_seconds, self.run_seconds_low, self.run_seconds_high)

    @property
    def outage(self) -> Outage:
        """What interrupts these workers, in the words of the scheduler."""
        return Outage(
            failure_rate=1 / (3600 * self.hours_between_failures),
            preemption_rate=self.preemptions_per_hour / 3600,
            out_seconds=(self.repair_seconds, self.preempted_seconds),
            startup_seconds=self.startup_seconds,
            restart_seconds=self.restart_seconds,
            checkpoint_every_seconds=self.checkpoint_every_seconds,
            checkpoint_seconds=self.checkpoint_seconds,
        )


_NOT_NEGATIVE = (
    "jitter_fraction", "startup_seconds", "straggler_fraction", "repair_seconds", "preemptions_per_hour",
    "preempted_seconds", "checkpoint_seconds", "restart_seconds", "watts", "idle_watts", "usd_per_hour",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Phase:
    """Some jobs of a campaign.

    Args:
        name: For people.
        n_jobs: How many jobs are dealt to the workers.
        size: Work of a job relative to one run; one number, or one for each job.
        seconds: Fixed seconds of each job on top, the same on every kind of worker (stragglers are slower here too).
        seconds_low: Lower end of the 90 % range of `seconds` (one draw a replicate).
        seconds_high: Upper end.
        one_per: `job`, or `campaign`: done once for all by the driver, in `seconds`, while the workers wait.
        barrier: Wait for all earlier phases; False: the jobs are dealt as soon as those of the phase before are.

    Raises:
        InputError: no jobs, or a number that cannot be.
    """

    name: str
    n_jobs: int = 1
    size: ArrayLike = 1.0
    seconds: float = 0.0
    seconds_low: float | None = None
    seconds_high: float | None = None
    one_per: Literal["job", "campaign"] = "job"
    barrier: bool = True
    sizes: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        where = f"phase {self.name!r}"
        if isinstance(self.n_jobs, bool) or self.n_jobs != int(self.n_jobs) or self.n_jobs < 1:
            raise InputError(f"{where}: n_jobs is {self.n_jobs}", "give at least one job, or leave the phase out")
        sizes = np.asarray(self.size, dtype=float)
        if sizes.ndim > 1 or (sizes.ndim == 1 and len(sizes) != self.n_jobs):
            raise InputError(f"{where}: sizes of shape {sizes.shape} for {self.n_jobs} jobs", "give one size a job")
        if not np.all(np.isfinite(sizes) & (sizes >= 0)):
            raise InputError(f"{where}: a size is negative or not a finite number", "give sizes relative to one run")
        check(where, "seconds", self.seconds)
        check_range(where, "seconds", self.seconds_range)
        if self.one_per not in ("job", "campaign"):
            raise InputError(f"{where}: one_per is {self.one_per!r}", "write job or campaign")
        if self.one_per == "campaign" and (self.n_jobs > 1 or not self.barrier):
            raise InputError(f"{where}: what the driver does once has one job and a barrier", "write one_per='job'")
        object.__setattr__(self, "sizes", np.full(self.n_jobs, float(sizes)) if sizes.ndim == 0 else sizes)

    @property
    def seconds_range(self) -> Range:
        """Fixed seconds, with the range filled in."""
        return filled(self.seconds, self.seconds_low, self.seconds_high)


def study_phases(
    *,
    pilot_runs: int = 0,
    exploration_runs: int,
    confirmation_runs: int = 0,
    prepare_seconds: Range = Range(0.0, 0.0, 0.0),
    run_overhead_seconds: float = 0.0,
    score_size: float = 0.05,
    score_seconds: float = 0.0,
    tuned_models: int = 0,
    tune_size: float = 0.2,
    report_seconds: Range = Range(0.0, 0.0, 0.0),
) -> list[Phase]:
    """Return the phases of a whole study: books to dashboard, with the dialogue tuning of the best models.

    Args:
        pilot_runs: Runs before the barrier at which the design is checked.
        exploration_runs: Runs of the search; scored as they end, no barrier between.
        confirmation_runs: Runs after the barrier at which the best variants are known; scored too.
        prepare_seconds: Books, sets, tokens and eval set, done once by the driver.
        run_overhead_seconds: Fixed seconds of each run (open the stream, compile, save).
        score_size: Work of scoring one model relative to one run.
        score_seconds: Fixed seconds of scoring one.
        tuned_models: Models that are tuned on dialogues at the end.
        tune_size: Work of tuning one relative to one run.
        report_seconds: Patterns and dashboard, done once by the driver.

    Raises:
        InputError: a number that cannot be.
    """
    phases = []
    if prepare_seconds.high > 0:
        phases.append(_driver("prepare", prepare_seconds))
    for name, n_runs in (("pilot", pilot_runs), ("exploration", exploration_runs), ("confirmation", confirmation_runs)):
        if n_runs:
            phases.append(Phase(name, n_runs, seconds=run_overhead_seconds))
            phases.append(Phase(f"scores of {name}", n_runs, score_size, score_seconds, barrier=False))
    if tuned_models:
        phases.append(Phase("dialogue", tuned_models, tune_size, run_overhead_seconds))
    if report_seconds.high > 0:
        phases.append(_driver("report", report_seconds))
    return phases


def _driver(name: str, seconds: Range) -> Phase:
    return Phase(name, 1, 0.0, seconds.median, seconds.low, seconds.high, one_per="campaign")


def filled(value: float, low: float | None, high: float | None) -> Range:
    """Return a range whose missing ends are its median."""
    return Range(value, value if low is None else low, value if high is None else high)


def check(
    where: str, name: str, value: float, *, above: bool = False, infinite: bool = False, least: float = 0.0
) -> None:
    """Hold a number against its limits.

    Raises:
        InputError: it is NaN, below `least` (or not above it), or infinite where that has no meaning.
    """
    if math.isnan(value) or value < least or (above and value == least) or (math.isinf(value) and not infinite):
        limit = f"{'above' if above else 'at least'} {least:g}" + ("" if infinite else " and finite")
        raise InputError(f"{where}: {name} is {value}", f"give a number {limit}")


def check_range(where: str, name: str, value: Range) -> None:
    """Hold a range against its order.

    Raises:
        InputError: low > median, median > high, or an end that cannot be.
    """
    check(where, f"{name}_low", value.low, above=value.median > 0)
    check(where, f"{name}_high", value.high)
    if not value.low <= value.median <= value.high:
        raise InputError(
            f"{where}: {name} is {value.median:g} with a range from {value.low:g} to {value.high:g}",
            "the 90 % range must hold the value: low <= value <= high",
        )
