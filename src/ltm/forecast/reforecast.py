"""The time left for the whole queue, learnt from the runs that are finished, while a study is under way.

How long a run takes is a number for each kind of worker, on a logarithmic scale with a normal prior: the plan's range.
Plans are wrong in one direction for all kinds, so the priors of several kinds are correlated, and a kind without a
finished run learns from the others. The likelihood is robust: a run far above the others (a suspended laptop, one slow
disk) is set aside as an accident, which the range doubts; from the second such run on they are a habit, and as many
are expected among the runs to come. If
the finished runs contradict the plan beyond its range, the plan loses its weight. The rest of the queue, with its
half-empty last round, is then packed by list scheduling, with the runs under way credited.

Sources: Huber 1964, "Robust estimation of a location parameter" (the location of finished runs); the widening of a
contradicted prior is the moment estimate of its variance (DerSimonian and Laird 1986). Letters: D draws, K kinds of
workers, M workers, N runs.
"""

# ruff: noqa: N803, N806, N815 - names end in the shape of their array
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ltm.errors import InputError
from ltm.forecast.replicates import Z90, spread
from ltm.forecast.schedule import Floats, Ints, Packed, pack
from ltm.forecast.workers import Range, check, check_range
from ltm.units import format_seconds

_SHARED = 0.7  # correlation of the plan's errors between kinds of workers
_SCALE_PRIOR_RUNS = 2.0  # the plan's jitter counts as much as so many runs
_CLIP = 2.5  # standard deviations: Huber's bound
_OUTLIER = 4.0  # standard deviations: above these a run is set aside
_HABIT_AFTER_ONE = 0.3  # chance that the first unusually slow run was no accident
_LARGEST_FACTOR_AFTER_ONE = 3.0
_TRUSTED_FRACTION = 0.2  # a run under way tells its speed from here on; start-up weighs too much before
_DRAWS, _DRAWS_LARGE, _LARGE_WORKERS = 100, 40, 100
_EXACT_RUNS, _EXACT_ROUNDS = 100, 3  # of a long queue, so many of the last runs are packed one by one


@dataclass(frozen=True)
class RunDone:
    """A finished run: wall seconds with everything that it cost, its size relative to the plan's run, where it ran."""

    seconds: float
    size: float = 1.0
    kind: str = ""


@dataclass(frozen=True)
class RunUnderWay:
    """A run that is not finished; with its wall seconds so far it already tells its speed."""

    fraction_done: float
    size: float = 1.0
    kind: str = ""
    elapsed_seconds: float | None = None


@dataclass(frozen=True)
class Reforecast:
    """What is left; ranges are 90 %.

    `run_seconds` is a run of size 1 on each kind as known now; `plan_weight` is how much of the plan's uncertainty is
    left in it (1: nothing learnt yet; 0: the plan no longer counts); `set_aside` counts unusually slow runs.
    """

    seconds_left: Range
    total_seconds: Range
    run_seconds: dict[str, Range]
    plan_weight: float
    set_aside: int
    words: str


@dataclass(frozen=True)
class _Learnt:
    log_mean_K: Floats
    log_cov_KK: Floats
    sigma: float  # of the logarithm of one run
    n_seen: int
    n_slow: int  # of these, set aside
    slow_factor: float  # how many times longer these took
    plan_weight: float


def reforecast(
    prior: Range | Mapping[str, Range],
    workers: int | Mapping[str, int],
    finished: Sequence[RunDone],
    waiting: int | ArrayLike,
    *,
    running: Sequence[RunUnderWay] = (),
    later_rounds: Sequence[ArrayLike] = (),
    elapsed_seconds: float = 0.0,
    overhead_seconds: float = 0.0,
    jitter_fraction: float = 0.05,
) -> Reforecast:
    """Return the seconds until the last run of the queue ends.

    Args:
        prior: The plan's seconds for a run of size 1, its overhead not included; by kind if there are several.
        workers: How many there are now, by kind if there are several; a run under way always has one.
        finished: All finished runs, in any order.
        waiting: How many runs wait (of size 1), or the size of each.
        running: Runs under way.
        later_rounds: Sizes of the runs of later rounds; each waits until all runs before it are finished.
        elapsed_seconds: Wall time so far, for the total.
        overhead_seconds: The part of a run's seconds that does not grow with its size.
        jitter_fraction: The plan's guess of how much runs differ.

    Raises:
        InputError: no workers for the runs left, an unknown kind, or a number that cannot be.
    """
    priors = {"": prior} if isinstance(prior, Range) else dict(prior)
    counts = {next(iter(priors), ""): workers} if isinstance(workers, int) else dict(workers)
    rounds = [_sizes(waiting), *(_sizes(sizes) for sizes in later_rounds)]
    _check_all(priors, counts, finished, running, elapsed_seconds, overhead_seconds, jitter_fraction)
    n_left = len(running) + sum(map(len, rounds))
    kinds = sorted(priors, key=lambda kind: priors[kind].median)
    under_way = [sum(run.kind == kind for run in running) for kind in kinds]
    count_K = np.array([max(counts.get(kind, 0), n) for kind, n in zip(kinds, under_way, strict=True)])
    if n_left and not count_K.sum():
        raise InputError(f"{n_left} runs are left and there are no workers", "give the number of workers that run now")
    learnt = _learn(kinds, priors, finished, running, overhead_seconds, jitter_fraction)
    left = _pack_rest(kinds, count_K, learnt, rounds, running, overhead_seconds) if n_left else Range(0.0, 0.0, 0.0)
    sd_K = np.sqrt(np.diag(learnt.log_cov_KK))
    run_seconds = {
        kind: Range(*(overhead_seconds + float(np.exp(mean + z * sd)) for z in (0.0, -Z90, Z90)))
        for kind, mean, sd in zip(kinds, learnt.log_mean_K, sd_K, strict=True)
    }
    return Reforecast(
        seconds_left=left,
        total_seconds=Range(*(float(elapsed_seconds) + seconds for seconds in (left.median, left.low, left.high))),
        run_seconds=run_seconds,
        plan_weight=learnt.plan_weight,
        set_aside=learnt.n_slow,
        words=_words(priors, run_seconds, len(finished), learnt.n_slow, overhead_seconds),
    )


def _learn(
    kinds: Sequence[str],
    priors: Mapping[str, Range],
    finished: Sequence[RunDone],
    running: Sequence[RunUnderWay],
    overhead_seconds: float,
    jitter_fraction: float,
) -> _Learnt:
    """Return the posterior of the logarithm of the seconds of a run of size 1, kind by kind."""
    place = {kind: i for i, kind in enumerate(kinds)}
    seen = [(place[run.kind], run.seconds, run.size, 1.0) for run in finished]
    for run in running:
        if run.elapsed_seconds and run.fraction_done >= _TRUSTED_FRACTION:
            whole = run.elapsed_seconds / run.fraction_done
            seen.append((place[run.kind], whole, run.size, run.fraction_done))
    prior_mean_K = np.log([priors[kind].median for kind in kinds])
    sd_K = np.array([math.log(priors[kind].high / priors[kind].low) / (2 * Z90) for kind in kinds])
    cov_KK = np.outer(sd_K, sd_K) * (_SHARED + (1 - _SHARED) * np.eye(len(kinds)))
    sigma = math.sqrt(math.log1p(jitter_fraction**2))
    if not seen:
        return _Learnt(prior_mean_K, cov_KK, sigma, 0, 0, 1.0, 1.0)
    kind_N = np.array([row[0] for row in seen])
    seconds_N, size_N, weight_N = (np.array([row[i] for row in seen]) for i in (1, 2, 3))
    log_N = np.log(np.maximum(seconds_N - overhead_seconds, 0.05 * seconds_N) / size_N)
    residual_N, robust_sigma = _residuals(log_N, kind_N, sigma)
    slow_N = residual_N > _OUTLIER * robust_sigma
    kept_N = np.abs(residual_N) <= _OUTLIER * robust_sigma
    sigma = _spread_of(residual_N[kept_N], len(np.unique(kind_N[kept_N])), sigma)
    there = np.array([k for k in range(len(kinds)) if (kept_N & (kind_N == k)).any()])
    mean_T = np.array([np.average(log_N[m], weights=weight_N[m]) for m in (kept_N & (kind_N == k) for k in there)])
    n_T = np.array([weight_N[kept_N & (kind_N == k)].sum() for k in there])
    mean_K, post_KK, weight = _update(prior_mean_K, cov_KK, there, mean_T, sigma**2 / n_T)
    n_slow = int(slow_N.sum())
    return _Learnt(
        log_mean_K=mean_K,
        log_cov_KK=post_KK,
        sigma=sigma,
        n_seen=len(seen),
        n_slow=n_slow,
        slow_factor=math.exp(_lower_median(residual_N[slow_N])) if n_slow else 1.0,
        plan_weight=weight,
    )


def _residuals(log_N: Floats, kind_N: Ints, plan_sigma: float) -> tuple[Floats, float]:
    """Return how far each run is from the location of its kind, and the spread of the bulk of the runs.

    The lower median starts the search because what disturbs a run makes it slower, never faster.
    """
    residual_N = log_N.copy()
    for kind in np.unique(kind_N):
        residual_N[kind_N == kind] -= _lower_median(log_N[kind_N == kind])
    n_free = len(log_N) - len(np.unique(kind_N))
    mad = 1.4826 * _lower_median(np.abs(residual_N))
    sigma = math.sqrt((_SCALE_PRIOR_RUNS * plan_sigma**2 + n_free * mad**2) / (_SCALE_PRIOR_RUNS + n_free))
    for kind in np.unique(kind_N):
        mine = kind_N == kind
        for _ in range(10):
            residual_N[mine] -= np.clip(residual_N[mine], -_CLIP * sigma, _CLIP * sigma).mean()
    return residual_N, max(sigma, 1e-6)  # equal runs have no spread


def _spread_of(residual_N: Floats, n_fitted: int, plan_sigma: float) -> float:
    """Return the spread of the runs that were kept, widened for how little is known of it (Student's t)."""
    freedom = max(0, len(residual_N) - n_fitted)
    known = _SCALE_PRIOR_RUNS + freedom
    sigma = math.sqrt((_SCALE_PRIOR_RUNS * plan_sigma**2 + float(residual_N @ residual_N)) / known)
    return max(1e-6, sigma * (1 + (Z90**2 + 1) / (4 * known)))


def _lower_median(values: Floats) -> float:
    return float(np.sort(values)[(len(values) - 1) // 2])


def _update(
    mean_K: Floats, cov_KK: Floats, there_T: Ints, seen_T: Floats, noise_T: Floats
) -> tuple[Floats, Floats, float]:
    """Return mean and covariance after seeing some kinds, and the share of the prior's standard deviation left."""
    gap_T = seen_T - mean_K[there_T]
    prior_TT = cov_KK[np.ix_(there_T, there_T)]
    surprise = float(gap_T @ np.linalg.solve(prior_TT + np.diag(noise_T), gap_T)) / len(gap_T)
    cov_KK = cov_KK * max(1.0, surprise) if np.any(cov_KK) else cov_KK + surprise * noise_T.max()
    prior_TT = cov_KK[np.ix_(there_T, there_T)]
    gain_KT = np.linalg.solve(prior_TT + np.diag(noise_T), cov_KK[there_T]).T
    post_KK = cov_KK - gain_KT @ cov_KK[there_T]
    before, after = np.trace(cov_KK), max(0.0, np.trace(post_KK))
    return mean_K + gain_KT @ gap_T, post_KK, math.sqrt(after / before) if before > 0 else 0.0


def _pack_rest(
    kinds: Sequence[str],
    count_K: Ints,
    learnt: _Learnt,
    rounds: Sequence[Floats],
    running: Sequence[RunUnderWay],
    overhead_seconds: float,
) -> Range:
    """Return the makespan of the runs left, over draws of what is not known."""
    kind_M = np.repeat(np.arange(len(kinds)), count_K)
    n_draws = _DRAWS if len(kind_M) <= _LARGE_WORKERS else _DRAWS_LARGE
    rng = np.random.default_rng(0)  # the draws are quadrature points: same input, same answer
    z_DK = spread(n_draws, len(kinds), rng)
    values_K, vectors_KK = np.linalg.eigh(learnt.log_cov_KK)
    root_KK = vectors_KK * np.sqrt(np.maximum(values_K, 0.0))
    pace_DK = np.exp(learnt.log_mean_K + z_DK @ root_KK.T)
    pace_DM = np.ascontiguousarray(pace_DK[:, kind_M])
    state = Packed(_credit(kinds, kind_M, pace_DK, running, learnt, overhead_seconds, rng), np.zeros(pace_DM.shape))
    share_D1, factor = _slow_runs(learnt, n_draws, rng)
    for sizes in rounds:
        size_N = np.sort(sizes)[::-1]
        n_exact = _EXACT_RUNS + _EXACT_ROUNDS * len(kind_M)
        if len(size_N) > 2 * n_exact:
            work_DM = pace_DM * (1 + share_D1 * (factor - 1)) * math.exp(learnt.sigma**2 / 2)
            spread_D1 = np.sqrt(math.expm1(learnt.sigma**2) + share_D1 * (1 - share_D1) * (factor - 1) ** 2)
            size_N = _skip(state, size_N, len(size_N) - n_exact, work_DM, spread_D1, overhead_seconds, rng)
        if len(size_N):
            work_DN = size_N * np.exp(learnt.sigma * rng.standard_normal((n_draws, len(size_N))))
            if learnt.n_slow:
                work_DN = np.where(rng.random(work_DN.shape) < share_D1, factor * work_DN, work_DN)
            stage_N = np.zeros(len(size_N), dtype=np.int64)
            fixed_DN = np.full(work_DN.shape, overhead_seconds)
            work_KDN = np.broadcast_to(work_DN, (len(kinds), *work_DN.shape))
            pack(state, work_KDN, fixed_DN, pace_DM, np.ones(pace_DM.shape), kind_M, stage_N)
        state.free_RM[:] = state.free_RM.max(axis=1, keepdims=True)
    median, low, high = np.quantile(state.free_RM[:, 0], [0.5, 0.05, 0.95], method="hazen").tolist()
    return Range(median, low, high)


def _slow_runs(learnt: _Learnt, n_draws: int, rng: np.random.Generator) -> tuple[Floats, float]:
    """Return the share of runs to come that will be slow, shape (D, 1), and how many times longer they take."""
    n, slow = learnt.n_seen, learnt.n_slow
    if slow == 0:
        return np.zeros((n_draws, 1)), 1.0
    if slow == 1:
        habit_D1 = np.arange(n_draws)[:, None] < _HABIT_AFTER_ONE * n_draws
        return habit_D1 * rng.beta(1, n, (n_draws, 1)), min(learnt.slow_factor, _LARGEST_FACTOR_AFTER_ONE)
    return rng.beta(slow - 0.5, n - slow + 1, (n_draws, 1)), learnt.slow_factor


def _credit(
    kinds: Sequence[str],
    kind_M: Ints,
    pace_DK: Floats,
    running: Sequence[RunUnderWay],
    learnt: _Learnt,
    overhead_seconds: float,
    rng: np.random.Generator,
) -> Floats:
    """Return when each worker is free, shape (D, M): what its run under way still needs, or now."""
    free_DM = np.zeros((len(pace_DK), len(kind_M)))
    next_place = {kind: int(np.searchsorted(kind_M, k)) for k, kind in enumerate(kinds)}
    factor_DN = np.exp(learnt.sigma * rng.standard_normal((len(pace_DK), len(running))))
    for run, factor_D in zip(running, factor_DN.T, strict=True):
        done = run.fraction_done
        whole_D = overhead_seconds + run.size * pace_DK[:, list(kinds).index(run.kind)] * factor_D
        if run.elapsed_seconds and done >= _TRUSTED_FRACTION:  # the further it is, the more it tells about itself
            whole_D = whole_D ** (1 - done) * (run.elapsed_seconds / done) ** done
        free_DM[:, next_place[run.kind]] = (1 - done) * whole_D
        next_place[run.kind] += 1
    return free_DM


def _skip(
    state: Packed,
    size_N: Floats,
    n_early: int,
    work_DM: Floats,
    spread_D1: Floats,
    overhead_seconds: float,
    rng: np.random.Generator,
) -> Floats:
    """Let the first `n_early` runs of a long queue pass at their mean length; return the sizes that are left.

    Every worker takes as many as it can finish evenly with the others, and keeps its phase; exact for equal runs.

    Args:
        state: When the workers are free; moved on.
        size_N: Sizes, longest first.
        n_early: How many pass.
        work_DM: Mean seconds of a run of size 1.
        spread_D1: Coefficient of variation of one run.
        overhead_seconds: Seconds that do not grow with the size.
        rng: Source of the spread.
    """
    mean_DM = overhead_seconds + float(size_N[:n_early].mean()) * work_DM
    free_DM = state.free_RM + 1e-7 * np.arange(mean_DM.shape[1]) * mean_DM  # no two are free at one time
    low_D1 = free_DM.min(axis=1, keepdims=True)
    high_D1 = free_DM.max(axis=1, keepdims=True) + n_early * mean_DM.min(axis=1, keepdims=True)
    for _ in range(60):
        middle_D1 = (low_D1 + high_D1) / 2
        n_DM = np.maximum(0, np.ceil((middle_D1 - free_DM) / mean_DM))
        fits_D1 = n_DM.sum(axis=1, keepdims=True) <= n_early
        low_D1, high_D1 = np.where(fits_D1, middle_D1, low_D1), np.where(fits_D1, high_D1, middle_D1)
    n_DM = np.maximum(0, np.ceil((low_D1 - free_DM) / mean_DM))
    state.free_RM += (n_DM + np.sqrt(n_DM) * spread_D1 * rng.standard_normal(n_DM.shape)) * mean_DM
    n_passed = int(n_DM.sum(axis=1).min())  # all that were to pass, or one less
    return size_N[n_passed:]


def _sizes(runs: int | ArrayLike) -> Floats:
    if isinstance(runs, int):
        if runs < 0:
            raise InputError(f"{runs} runs are waiting", "give 0 or more, or the size of each")
        return np.ones(runs)
    sizes = np.asarray(runs, dtype=float).reshape(-1)
    if not np.all(np.isfinite(sizes) & (sizes > 0)):
        raise InputError("the size of a waiting run is not above 0", "give sizes relative to the run of the plan")
    return sizes


def _check_all(
    priors: Mapping[str, Range],
    counts: Mapping[str, int],
    finished: Sequence[RunDone],
    running: Sequence[RunUnderWay],
    elapsed_seconds: float,
    overhead_seconds: float,
    jitter_fraction: float,
) -> None:
    """Raise InputError at the first number that cannot be."""
    if not priors:
        raise InputError("the plan has no kind of worker", "give the plan's seconds for a run, with its range")
    for kind, value in priors.items():
        check(f"plan for {kind or 'a run'}", "seconds", value.median, above=True)
        check_range(f"plan for {kind or 'a run'}", "seconds", value)
    unknown = sorted({*counts, *(run.kind for run in finished), *(run.kind for run in running)} - set(priors))
    if unknown:
        raise InputError(f"no plan for the workers {unknown[0]!r}", f"the plan knows {', '.join(map(repr, priors))}")
    for kind, count in counts.items():
        check(f"workers {kind!r}", "count", count)
    for run in finished:
        check("a finished run", "seconds", run.seconds, above=True)
        check("a finished run", "size", run.size, above=True)
    for under_way in running:
        check("a run under way", "size", under_way.size, above=True)
        check("a run under way", "elapsed_seconds", under_way.elapsed_seconds or 0.0)
        check("a run under way", "fraction_done", under_way.fraction_done)
        if under_way.fraction_done > 1:
            raise InputError(f"a run under way is {under_way.fraction_done} done", "give a fraction from 0 to 1")
    check("re-forecast", "elapsed_seconds", elapsed_seconds)
    check("re-forecast", "overhead_seconds", overhead_seconds)
    check("re-forecast", "jitter_fraction", jitter_fraction)


def _words(
    priors: Mapping[str, Range], now: Mapping[str, Range], n_finished: int, set_aside: int, overhead_seconds: float
) -> str:
    if not n_finished:
        return "from the plan: no run is finished yet"
    kind = min(priors, key=lambda name: now[name].high / now[name].low)  # the one best known
    planned, known = format_seconds(priors[kind].median + overhead_seconds), format_seconds(now[kind].median)
    where = f" on {kind}" if kind else ""
    aside = f"; {set_aside} unusually slow" if set_aside else ""
    return f"from {n_finished} finished runs: a run{where} takes {known}, {planned} were planned{aside}"
