"""List scheduling: jobs in a fixed order go to whichever worker is free first, with or without outages of the workers.

Two engines give the same times to the last bit where nothing fails: `pack` steps through the jobs once for all
replicates together, `EventQueue` plays one replicate event by event and knows failures, pre-emptions and checkpoints.

Letters: R replicates, K kinds of workers, M workers, N jobs, P stages (phases between two barriers). All times are in
seconds. A job of work 1 takes `pace` seconds; its `fixed` seconds do not depend on the kind of the worker.
"""

# ruff: noqa: N803, N806, N815 - names end in the shape of their array
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

from ltm.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Where the seconds of workers go, one row of a ledger each; what is left of the makespan is waiting.
LEDGER = ("kept", "slow", "checkpoints", "startup", "lost_failures", "repair", "lost_preemptions", "away")
_KEPT, _SLOW, _CHECKPOINTS, _STARTUP, _LOST, _OUT = 0, 1, 2, 3, (4, 6), (5, 7)  # pairs: by failure, by pre-emption
_DRAWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Outage:
    """How one kind of worker is interrupted, and what it costs; rates are per busy second of one worker."""

    failure_rate: float = 0.0
    preemption_rate: float = 0.0
    out_seconds: tuple[float, float] = (0.0, 0.0)  # after a failure, after a pre-emption; start-up comes on top
    startup_seconds: float = 0.0
    restart_seconds: float = 0.0
    checkpoint_every_seconds: float = float("inf")
    checkpoint_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Interruptions of either sort per busy second."""
        return self.failure_rate + self.preemption_rate


@dataclass(frozen=True)
class Jobs:
    """Jobs between two barriers, in the order in which they are dealt out."""

    work_KN: Floats  # with the jitter of each kind
    fixed_N: Floats
    stage_N: Ints
    n_stages: int


@dataclass
class Packed:
    """The state of R replicates of a pool without outages; `pack` moves it on."""

    free_RM: Floats
    kept_RM: Floats


def pack(
    state: Packed, work_KRN: Floats, fixed_RN: Floats, pace_RM: Floats, slow_RM: Floats, kind_M: Ints, stage_N: Ints
) -> list[Floats]:
    """Deal jobs to the workers that are free first, in all replicates at once; no worker ever fails.

    Ties go to the worker with the smaller index.

    Returns:
        When the last job of each stage ended, P arrays of shape (R,); `state` is moved on in place.
    """
    n_replicates, n_workers = state.free_RM.shape
    n_stages = int(stage_N[-1]) + 1
    ends = [np.full(n_replicates, -np.inf) for _ in range(n_stages)]
    if n_workers == 1:
        took_RN = work_KRN[0] * pace_RM + fixed_RN * slow_RM
        ends_RN = np.cumsum(np.concatenate([state.free_RM, took_RN], axis=1), axis=1)[:, 1:]
        for stage in range(n_stages):
            ends[stage] = ends_RN[:, stage_N == stage].max(axis=1, initial=-np.inf)
        state.kept_RM[:, 0] += took_RN.sum(axis=1)
        state.free_RM[:, 0] = ends_RN[:, -1]
        return ends
    free, kept, pace, slow = (a.reshape(-1) for a in (state.free_RM, state.kept_RM, pace_RM, slow_RM))
    first, rows = np.arange(n_replicates) * n_workers, np.arange(n_replicates)
    work_NKR, fixed_NR = np.ascontiguousarray(work_KRN.transpose(2, 0, 1)), np.ascontiguousarray(fixed_RN.T)
    one_kind = len(work_KRN) == 1
    for job, stage in enumerate(stage_N.tolist()):
        worker = state.free_RM.argmin(axis=1)
        place = first + worker
        work = work_NKR[job, 0] if one_kind else work_NKR[job, kind_M[worker], rows]
        took = work * pace[place] + fixed_NR[job] * slow[place]
        end = free[place] + took
        free[place] = end
        kept[place] += took
        np.maximum(ends[stage], end, out=ends[stage])
    return ends


class EventQueue:
    """One replicate of a pool whose workers may fail or be pre-empted, played event by event.

    Interruptions strike busy workers only, at exponential times; the job loses what it did since its last checkpoint,
    goes back to the head of the queue, and is taken up by the next free worker, of whatever kind. The worker is away,
    then starts again. A start-up itself is never interrupted.

    Args:
        pace_M: Seconds of a job of work 1.
        slow_M: How many times slower than its kind a worker is, at least 1.
        kind_M: Index of its kind.
        outages: One for each kind.
        rng: Source of the interruptions.
        start: When the workers are called; they are ready after their start-up.
        most_attempts: Attempts at jobs after which the pool is said to make no progress.
    """

    def __init__(
        self,
        pace_M: Floats,
        slow_M: Floats,
        kind_M: Ints,
        outages: list[Outage],
        rng: np.random.Generator,
        start: float = 0.0,
        most_attempts: float = float("inf"),
    ) -> None:
        self._pace, self._slow, self._kind = pace_M.tolist(), slow_M.tolist(), kind_M.tolist()
        self._outages = outages
        self._fails = [outages[kind].rate > 0 or outages[kind].checkpoint_seconds > 0 for kind in self._kind]
        self._draw = _stream(rng)
        self._attempts_left = most_attempts
        self.free = [start + outages[kind].startup_seconds for kind in self._kind]
        self.kept = [0.0] * len(self._kind)
        self._ledger = [[0.0] * len(outages) for _ in LEDGER]
        for kind in self._kind:
            self._ledger[_STARTUP][kind] += outages[kind].startup_seconds
        self.interruptions = [0, 0]  # failures, pre-emptions
        self._partial: dict[int, tuple[float, int]] = {}  # job: what is left of it, and what interrupted it last
        self._cut: dict[int, int] = {}  # worker: cause of the interruption that ends its attempt
        self._last_out: dict[int, tuple[int, float, float]] = {}  # worker: cause, start of its last absence, its end

    def run(self, jobs: Jobs, start: float) -> list[float]:
        """Work through the jobs from `start` on and return when the last one of each stage ended.

        Raises:
            InputError: interruptions come faster than the jobs get on.
        """
        works, fixed, stage = jobs.work_KN.tolist(), jobs.fixed_N.tolist(), jobs.stage_N.tolist()
        work_of = [works[kind] for kind in self._kind]
        pace, slow, fails, kept = self._pace, self._slow, self._fails, self.kept
        ends = [start] * jobs.n_stages
        n_jobs = n_left = len(fixed)
        fresh = 0
        again: list[int] = []  # interrupted jobs, by their place in the order
        idle: list[int] = []
        running = [-1] * len(pace)
        heap = [(max(free, start), worker) for worker, free in enumerate(self.free)]
        heapify(heap)
        self._partial.clear()
        while n_left:
            now, worker = heap[0]
            job = running[worker]
            if job >= 0:
                if worker in self._cut:
                    running[worker] = -1
                    heapreplace(heap, (now + self._leave(worker, now), worker))
                    heappush(again, job)
                    if idle:
                        heappush(heap, (now, heappop(idle)))
                    continue
                n_left -= 1
                ends[stage[job]] = now
            if again:
                job = heappop(again)
            elif fresh < n_jobs:
                job = fresh
                fresh += 1
            else:
                running[worker] = -1
                heappush(idle, heappop(heap)[1])
                continue
            took = work_of[worker][job] * pace[worker] + fixed[job] * slow[worker]
            if fails[worker]:
                took = self._attempt(job, worker, took)
            else:
                took = self._resume(job, worker, took) if job in self._partial else took
                kept[worker] += took
            running[worker] = job
            heapreplace(heap, (now + took, worker))
        for worker in range(len(pace)):
            self.free[worker] = now
        for back, worker in heap:
            self.free[worker] = max(now, back)
        return ends

    def close(self, end: float) -> Floats:
        """Return the ledger, shape (8, K), of the campaign that ended at `end`; absences do not count beyond it."""
        for worker, (cause, left, back) in self._last_out.items():
            kind = self._kind[worker]
            beyond = max(0.0, back - max(end, left))
            startup = min(beyond, self._outages[kind].startup_seconds)
            self._ledger[_STARTUP][kind] -= startup
            self._ledger[_OUT[cause]][kind] -= beyond - startup
        ledger_LK = np.array(self._ledger)
        add_kept(ledger_LK, np.array(self.kept), np.array(self._slow), np.array(self._kind))
        return ledger_LK

    def _resume(self, job: int, worker: int, full: float) -> float:
        """Return the seconds of what is left of an interrupted job on a worker that never fails."""
        left, cause = self._partial.pop(job)
        restart = self._outages[self._kind[worker]].restart_seconds
        self._ledger[_LOST[cause]][self._kind[worker]] += restart
        self.kept[worker] -= restart  # the caller counts the whole as kept
        return float(full * left + restart)

    def _attempt(self, job: int, worker: int, full: float) -> float:
        """Return the seconds until the job is done or cut off; in the second case note what is left of it."""
        kind = self._kind[worker]
        outage, ledger = self._outages[kind], self._ledger
        left, restart, last_cause = 1.0, 0.0, 0
        if job in self._partial:
            left, last_cause = self._partial[job]
            restart = outage.restart_seconds
        work = full * left
        every, write = outage.checkpoint_every_seconds, outage.checkpoint_seconds
        written = write * max(0, math.ceil(work / every) - 1) if write else 0.0
        whole = restart + work + written
        until = self._draw() / outage.rate if outage.rate else float("inf")
        if until >= whole:
            self.kept[worker] += work
            ledger[_CHECKPOINTS][kind] += written
            ledger[_LOST[last_cause]][kind] += restart
            self._partial.pop(job, None)
            return whole
        self._attempts_left -= 1
        if self._attempts_left < 0:
            raise InputError(
                "the campaign does not get on: its workers are interrupted before they reach the next checkpoint",
                "write checkpoints more often (checkpoint_every_seconds), or use workers that fail less",
            )
        cause = int(self._draw_share() * outage.rate >= outage.failure_rate)
        n_saved = max(0.0, until - restart) // (every + write)
        saved = min(n_saved * every, work) if n_saved else 0.0
        self.kept[worker] += saved
        ledger[_CHECKPOINTS][kind] += n_saved * write
        spent_restarting = min(until, restart)
        ledger[_LOST[last_cause]][kind] += spent_restarting
        ledger[_LOST[cause]][kind] += until - spent_restarting - n_saved * (every + write if n_saved else 0.0)
        self.interruptions[cause] += 1
        self._partial[job] = (left - saved / full, cause)
        self._cut[worker] = cause
        return until

    def _leave(self, worker: int, now: float) -> float:
        """Send an interrupted worker away and return after how many seconds it is ready again."""
        cause, kind = self._cut.pop(worker), self._kind[worker]
        out, startup = self._outages[kind].out_seconds[cause], self._outages[kind].startup_seconds
        self._ledger[_OUT[cause]][kind] += out
        self._ledger[_STARTUP][kind] += startup
        self._last_out[worker] = (cause, now, now + out + startup)
        return float(out + startup)

    def _draw_share(self) -> float:
        """Return a uniform draw from the same stream."""
        share: float = math.exp(-self._draw())
        return share


def add_kept(ledger_LK: Floats, kept_M: Floats, slow_M: Floats, kind_M: Ints) -> None:
    """Enter the seconds of work that was kept: what a worker of normal speed needs, and the excess of the slow ones."""
    n_kinds = ledger_LK.shape[1]
    ledger_LK[_KEPT] += np.bincount(kind_M, weights=kept_M / slow_M, minlength=n_kinds)
    ledger_LK[_SLOW] += np.bincount(kind_M, weights=kept_M * (1 - 1 / slow_M), minlength=n_kinds)


def _stream(rng: np.random.Generator) -> Callable[[], float]:
    """Return a function that gives one unit exponential after another, drawn many at once."""
    stock: list[float] = []

    def draw() -> float:
        if not stock:
            stock.extend(rng.exponential(size=_DRAWS_AT_ONCE).tolist())
        return stock.pop()

    return draw
