"""Replicates of a campaign: draw what is uncertain, then play the phases in order.

Random numbers belong to their source (speed, jitter, ...), so that a source can be switched off while all others keep
theirs. With several replicates the systematic draws are spread evenly over their distributions (Latin hypercube; McKay,
Beckman and Conover 1979), so that ten replicates of a large campaign already give a usable range. Letters: see
`schedule`, and S systematic sources.
"""

# ruff: noqa: N802, N803, N806, N815 - names end in the shape of their array
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from ltm.forecast.schedule import LEDGER, EventQueue, Floats, Ints, Jobs, Outage, Packed, add_kept, pack
from ltm.forecast.workers import Phase, Range, WorkerKind

Z90 = 1.6448536269514722  # half of a 90 % range of a normal distribution, in standard deviations
_PACK_NUMBERS = 4_000_000  # replicates x jobs x kinds that `pack` may hold at once
_PACK_WORKERS = 256  # beyond these, a heap for each replicate is faster than one array for all
_PACK_REPLICATES = 16  # and below these
_SPARE_ATTEMPTS = 50.0  # times the expected number, before a replicate is given up as hopeless

Source = Literal["speed", "phases", "jitter", "stragglers", "failures", "preemptions"]
SOURCES: tuple[Source, ...] = ("speed", "phases", "jitter", "stragglers", "failures", "preemptions")


@dataclass(frozen=True)
class Replicates:
    """What R simulated campaigns came to."""

    ends_RP: Floats  # when each phase ended
    pool_start_R: Floats
    ledger_RLK: Floats
    interruptions_R2: Floats

    @property
    def makespan_R(self) -> Floats:
        """When the last job of each campaign ended."""
        return np.asarray(self.ends_RP.max(axis=1))


@dataclass(frozen=True)
class _Batch:
    """The jobs between two barriers, longest first within each phase, and the phases they belong to."""

    phases: list[int]
    jobs_N: Ints  # place of each job in the list of all jobs
    size_N: Floats
    stage_N: Ints
    by_driver: bool


@dataclass(frozen=True)
class _Draws:
    """Everything random but the interruptions; a source that is switched off has its typical value."""

    pace_RM: Floats
    slow_RM: Floats
    fixed_RP: Floats  # seconds
    sigma_K: Floats  # of the logarithm of the jitter

    def work_KN(self, seed: int, replicate: int, size_N: Floats, jobs_N: Ints, n_jobs: int) -> Floats:
        """Return the work of some jobs in one replicate, with the jitter of each kind."""
        if not self.sigma_K.any():
            return np.tile(size_N, (len(self.sigma_K), 1))
        z_N = np.random.default_rng([seed, 3, replicate]).standard_normal(n_jobs)[jobs_N]
        sigma_K1 = self.sigma_K[:, None]
        return np.asarray(size_N * np.exp(sigma_K1 * z_N - sigma_K1**2 / 2))


def play(
    kinds: Sequence[WorkerKind], phases: Sequence[Phase], n_replicates: int, seed: int, off: Collection[Source]
) -> Replicates:
    """Play all replicates; random numbers do not depend on what is switched off."""
    draws = _draw(kinds, phases, n_replicates, seed, off)
    outages = [_outage(kind, off) for kind in kinds]
    batches = _batches(phases)
    n_jobs = sum(phase.n_jobs for phase in phases)
    calm = not any(outage.rate or outage.checkpoint_seconds for outage in outages)
    n_workers = draws.pace_RM.shape[1]
    together = n_workers == 1 or (n_workers <= _PACK_WORKERS and n_replicates >= _PACK_REPLICATES)
    if calm and together and n_replicates * n_jobs * len(kinds) <= _PACK_NUMBERS:
        return _play_together(kinds, batches, draws, outages, seed, n_jobs)
    limit = _SPARE_ATTEMPTS * expected_attempts(kinds, phases) + 10_000
    played = [_play(kinds, batches, draws, outages, seed, n_jobs, limit, r) for r in range(n_replicates)]
    ends, starts, ledgers, interruptions = zip(*played, strict=True)
    return Replicates(np.array(ends), np.array(starts), np.array(ledgers), np.array(interruptions, dtype=float))


def _play(
    kinds: Sequence[WorkerKind],
    batches: Sequence[_Batch],
    draws: _Draws,
    outages: list[Outage],
    seed: int,
    n_jobs: int,
    limit: float,
    replicate: int,
) -> tuple[Floats, float, Floats, list[int]]:
    """Play one replicate event by event."""
    fixed_P = draws.fixed_RP[replicate]
    ends_P = np.zeros(len(fixed_P))
    now, queue, pool_start = 0.0, None, 0.0
    rng = np.random.default_rng([seed, 4, replicate])
    for batch in batches:
        if batch.by_driver:
            now += float(fixed_P[batch.phases[0]])
            ends_P[batch.phases] = now
            continue
        if queue is None:
            pool_start = now
            kind_M = _kind_M(kinds)
            queue = EventQueue(draws.pace_RM[replicate], draws.slow_RM[replicate], kind_M, outages, rng, now, limit)
        fixed_N = fixed_P[np.array(batch.phases)[batch.stage_N]]
        work_KN = draws.work_KN(seed, replicate, batch.size_N, batch.jobs_N, n_jobs)
        ends_P[batch.phases] = queue.run(Jobs(work_KN, fixed_N, batch.stage_N, len(batch.phases)), now)
        now = float(ends_P[batch.phases].max())
    if queue is None:
        return ends_P, now, np.zeros((len(LEDGER), len(kinds))), [0, 0]
    return ends_P, pool_start, queue.close(now), queue.interruptions


def _play_together(
    kinds: Sequence[WorkerKind],
    batches: Sequence[_Batch],
    draws: _Draws,
    outages: list[Outage],
    seed: int,
    n_jobs: int,
) -> Replicates:
    """Play all replicates at once, where nothing can be interrupted."""
    n_replicates, n_workers = draws.pace_RM.shape
    kind_M, startup_K = _kind_M(kinds), np.array([outage.startup_seconds for outage in outages])
    ends_RP = np.zeros(draws.fixed_RP.shape)
    now_R, state, pool_start_R = np.zeros(n_replicates), None, None
    for batch in batches:
        if batch.by_driver:
            now_R = now_R + draws.fixed_RP[:, batch.phases[0]]
            ends_RP[:, batch.phases] = now_R[:, None]
            continue
        if state is None:
            pool_start_R = now_R
            state = Packed(now_R[:, None] + startup_K[kind_M], np.zeros((n_replicates, n_workers)))
        np.maximum(state.free_RM, now_R[:, None], out=state.free_RM)
        work_KRN = np.stack(
            [draws.work_KN(seed, r, batch.size_N, batch.jobs_N, n_jobs) for r in range(n_replicates)], axis=1
        )
        fixed_RN = draws.fixed_RP[:, np.array(batch.phases)[batch.stage_N]]
        ends = pack(state, work_KRN, fixed_RN, draws.pace_RM, draws.slow_RM, kind_M, batch.stage_N)
        ends_RP[:, batch.phases] = np.stack(ends, axis=1)
        now_R = ends_RP[:, batch.phases].max(axis=1)
    ledger_RLK = np.zeros((n_replicates, len(LEDGER), len(kinds)))
    if state is not None:
        for replicate, ledger_LK in enumerate(ledger_RLK):
            ledger_LK[LEDGER.index("startup")] = np.bincount(kind_M) * startup_K
            add_kept(ledger_LK, state.kept_RM[replicate], draws.slow_RM[replicate], kind_M)
    start_R = now_R if pool_start_R is None else pool_start_R
    return Replicates(ends_RP, start_R, ledger_RLK, np.zeros((n_replicates, 2)))


def _draw(
    kinds: Sequence[WorkerKind], phases: Sequence[Phase], n_replicates: int, seed: int, off: Collection[Source]
) -> _Draws:
    kind_M = _kind_M(kinds)
    z_RS = spread(n_replicates, len(kinds) + len(phases), np.random.default_rng([seed, 1]))
    z_RK, z_RP = z_RS[:, : len(kinds)], z_RS[:, len(kinds) :]
    speed_RK = _split_log_normal([kind.run_range for kind in kinds], z_RK * ("speed" not in off))
    fixed_RP = _split_log_normal([phase.seconds_range for phase in phases], z_RP * ("phases" not in off))
    fraction_M = np.array([kind.straggler_fraction for kind in kinds])[kind_M] * ("stragglers" not in off)
    slowdown_M = np.array([kind.straggler_slowdown for kind in kinds])[kind_M]
    u_RM = np.random.default_rng([seed, 2]).random((n_replicates, len(kind_M)))
    slow_RM = np.where(u_RM < fraction_M, slowdown_M, 1.0)
    jitter_K = np.array([kind.jitter_fraction for kind in kinds]) * ("jitter" not in off)
    return _Draws(speed_RK[:, kind_M] * slow_RM, slow_RM, fixed_RP, np.sqrt(np.log1p(jitter_K**2)))


def spread(n_replicates: int, n_sources: int, rng: np.random.Generator) -> Floats:
    """Return standard normal draws of shape (R, S), spread evenly over the distribution if there are several."""
    if n_replicates == 1:
        return rng.standard_normal((1, n_sources))
    normal = NormalDist()
    z_R = np.array([normal.inv_cdf((i + 0.5) / n_replicates) for i in range(n_replicates)])
    return np.stack([rng.permutation(z_R) for _ in range(n_sources)], axis=1)


def _split_log_normal(ranges: Sequence[Range], z_RS: Floats) -> Floats:
    """Return draws whose median and 5 % and 95 % points are those of the ranges; a range around 0 stays 0."""
    median_S = np.array([r.median for r in ranges])
    safe_S = np.where(median_S > 0, median_S, 1.0)
    low_S, high_S = (np.where(median_S > 0, [getattr(r, end) for r in ranges], 1.0) for end in ("low", "high"))
    down_S, up_S = np.log(safe_S / low_S) / Z90, np.log(high_S / safe_S) / Z90
    return np.asarray(median_S * np.exp(z_RS * np.where(z_RS < 0, down_S, up_S)))


def _batches(phases: Sequence[Phase]) -> list[_Batch]:
    """Cut the phases at their barriers."""
    groups: list[list[int]] = []
    for place, phase in enumerate(phases):
        alone = phase.barrier or not groups or phases[groups[-1][-1]].one_per == "campaign"
        if alone:
            groups.append([place])
        else:
            groups[-1].append(place)
    first = np.cumsum([0] + [phase.n_jobs for phase in phases])
    batches = []
    for group in groups:
        orders = [np.argsort(-phases[p].sizes, kind="stable") for p in group]
        batches.append(
            _Batch(
                phases=group,
                jobs_N=np.concatenate([first[p] + order for p, order in zip(group, orders, strict=True)]),
                size_N=np.concatenate([phases[p].sizes[order] for p, order in zip(group, orders, strict=True)]),
                stage_N=np.repeat(np.arange(len(group)), [phases[p].n_jobs for p in group]),
                by_driver=phases[group[0]].one_per == "campaign",
            )
        )
    return batches


def _outage(kind: WorkerKind, off: Collection[Source]) -> Outage:
    outage = kind.outage
    if "failures" in off:
        outage = replace(outage, failure_rate=0.0)
    return replace(outage, preemption_rate=0.0) if "preemptions" in off else outage


def _kind_M(kinds: Sequence[WorkerKind]) -> Ints:
    return np.repeat(np.arange(len(kinds)), [kind.count for kind in kinds])


def expected_attempts(kinds: Sequence[WorkerKind], phases: Sequence[Phase]) -> float:
    """Return about how many attempts all jobs take, each kind having its share by speed."""
    capacity_K = np.array([kind.count / kind.run_seconds for kind in kinds])
    attempts = 0.0
    for kind, share in zip(kinds, capacity_K / capacity_K.sum(), strict=True):
        for phase in (p for p in phases if p.one_per == "job"):
            seconds_N = phase.sizes * kind.run_seconds + phase.seconds
            stretch_N = np.minimum(seconds_N, kind.checkpoint_every_seconds + kind.checkpoint_seconds)
            n_stretches_N = np.where(stretch_N > 0, seconds_N / np.where(stretch_N > 0, stretch_N, 1.0), 0.0)
            exponent_N = np.minimum(kind.outage.rate * (stretch_N + kind.restart_seconds), 50.0)
            attempts += float(share) * float((1 + n_stretches_N * np.expm1(exponent_N)).sum())
    return attempts
