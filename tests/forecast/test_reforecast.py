"""The time left, learnt from finished runs: against campaigns whose end is known."""

import dataclasses
import heapq
import math
import time

import numpy as np
import pytest

from ltm.errors import InputError
from ltm.forecast import reforecast as module
from ltm.forecast.reforecast import RunDone, RunUnderWay, reforecast
from ltm.forecast.workers import Range

PLAN = Range(100.0, 70.0, 140.0)


@dataclasses.dataclass
class Campaign:
    """A campaign as it went, and what was known when a fifth of its runs were finished."""

    total: float
    now: float
    finished: list
    running: list
    waiting: np.ndarray

    def forecast(self, plan, workers, **options):
        return reforecast(
            plan, workers, self.finished, self.waiting, running=self.running, elapsed_seconds=self.now, **options
        )

    def naive(self):
        """The rule of three: as long a run as until now."""
        n_finished = len(self.finished)
        return self.now / n_finished * (n_finished + len(self.running) + len(self.waiting))


def campaign(seed, sizes, workers, paces, *, jitter=0.05, slow_share=0.0, suspended=False, overhead=0.0, at=0.2):
    """Deal jobs, longest first, to the worker that is free first; an independent truth."""
    rng = np.random.default_rng(seed)
    kinds = [kind for kind, count in workers.items() for _ in range(count)]
    sizes = np.sort(sizes)[::-1]
    factor = np.exp(jitter * rng.standard_normal(len(sizes)))
    factor[rng.random(len(sizes)) < slow_share] *= 2.0
    free = [(0.0, w) for w in range(len(kinds))]
    rows = []
    for job, size in enumerate(sizes):
        start, w = free[0]
        seconds = overhead + size * paces[kinds[w]] * factor[job]
        if suspended and job == 1:
            seconds += 8 * paces[kinds[w]]
        heapq.heapreplace(free, (start + seconds, w))
        rows.append((start, seconds, size, kinds[w]))
    ends = sorted(start + seconds for start, seconds, _, _ in rows)
    now = ends[math.ceil(at * len(rows)) - 1]
    return Campaign(
        total=ends[-1],
        now=now,
        finished=[RunDone(s, size, kind) for start, s, size, kind in rows if start + s <= now],
        running=[
            RunUnderWay((now - start) / s, size, kind, now - start)
            for start, s, size, kind in rows
            if start <= now < start + s
        ],
        waiting=np.array([size for start, s, size, kind in rows if start > now]),
    )


def wrong_plan(seed, pace=100.0):
    """A plan whose middle is off by up to 40 % either way, with a range as wide as that."""
    off = np.exp(np.random.default_rng([seed, 7]).uniform(-math.log(1.4), math.log(1.4)))
    return Range(pace * off, pace * off / 1.4, pace * off * 1.4)


SHAPES = [
    pytest.param(np.ones(30), 1, id="30 runs, 1 worker"),
    pytest.param(np.ones(60), 4, id="60 runs, 4 workers"),
    pytest.param(np.ones(100), 8, id="100 runs, 8 workers, half-empty last round"),
    pytest.param(np.random.default_rng(0).uniform(0.3, 3.0, 80), 4, id="80 runs of different sizes, 4 workers"),
    pytest.param(np.ones(600), 16, id="600 runs, 16 workers, passed in bulk"),
]


@pytest.mark.parametrize(("sizes", "workers"), SHAPES)
def test_at_a_fifth_of_the_runs_the_total_is_within_5_percent(sizes, workers):
    errors, naive, inside = [], [], []
    for seed in range(100):
        truth = campaign(seed, sizes, {"": workers}, {"": 100.0})
        total = truth.forecast(wrong_plan(seed), workers).total_seconds
        errors.append(total.median / truth.total - 1)
        naive.append(truth.naive() / truth.total - 1)
        inside.append(total.low <= truth.total <= total.high)
    errors, naive = np.abs(errors), np.abs(naive)
    assert np.mean(errors < 0.05) >= 0.9
    assert np.median(errors) <= np.median(naive) + 0.005  # never worse than the rule of three ...
    assert 0.8 <= np.mean(inside) <= 0.98


def test_the_rule_of_three_is_wrong_where_the_last_round_is_half_empty():
    truths = [campaign(seed, np.ones(100), {"": 8}, {"": 100.0}) for seed in range(30)]
    naive = np.median([abs(t.naive() / t.total - 1) for t in truths])
    ours = np.median([abs(t.forecast(PLAN, 8).total_seconds.median / t.total - 1) for t in truths])
    assert naive > 0.1
    assert ours < 0.02


def test_one_suspended_laptop_does_not_ruin_it():
    errors, naive = [], []
    for seed in range(50):
        truth = campaign(seed, np.ones(100), {"": 4}, {"": 100.0}, suspended=True, at=0.5)
        now = truth.forecast(wrong_plan(seed), 4)
        assert max(run.seconds for run in truth.finished) > 800
        assert now.set_aside == 1
        errors.append(abs(now.seconds_left.median / (truth.total - truth.now) - 1))
        naive.append(abs((truth.naive() - truth.now) / (truth.total - truth.now) - 1))
    assert np.mean(np.array(errors) < 0.05) >= 0.9
    assert np.median(naive) > 0.1
    plain = [RunDone(100.0 + i % 3) for i in range(8)]
    clean, hit = (reforecast(PLAN, 2, runs, 40).seconds_left.median for runs in (plain, [*plain, RunDone(5000.0)]))
    assert hit == pytest.approx(clean, rel=0.02)


def test_slow_runs_that_keep_coming_are_expected_to_come_again():
    errors, without = [], []
    for seed in range(60):
        truth = campaign(seed, np.ones(300), {"": 4}, {"": 100.0}, slow_share=0.15)
        total = truth.forecast(wrong_plan(seed), 4).total_seconds.median
        bulk = truth.now + len(truth.waiting) * 100 / 4
        errors.append(abs(total / truth.total - 1))
        without.append(abs(bulk / truth.total - 1))
    assert np.mean(np.array(errors) < 0.05) >= 0.9
    assert np.median(without) > 2 * np.median(errors)


def test_kinds_of_different_speed():
    workers, paces = {"big": 2, "small": 4}, {"big": 50.0, "small": 150.0}
    errors = []
    for seed in range(60):
        truth = campaign(seed, np.ones(120), workers, paces)
        plan = {kind: wrong_plan(seed, pace) for kind, pace in paces.items()}
        errors.append(truth.forecast(plan, workers).total_seconds.median / truth.total - 1)
    assert np.mean(np.abs(errors) < 0.05) >= 0.9


def test_overhead_that_does_not_grow_with_the_size():
    sizes = np.random.default_rng(1).uniform(0.1, 2.0, 80)
    errors, blind = [], []
    for seed in range(60):
        truth = campaign(seed, sizes, {"": 2}, {"": 100.0}, overhead=60.0)
        errors.append(truth.forecast(wrong_plan(seed), 2, overhead_seconds=60.0).total_seconds.median / truth.total - 1)
        blind.append(truth.forecast(wrong_plan(seed), 2).total_seconds.median / truth.total - 1)
    assert np.mean(np.abs(errors) < 0.05) >= 0.9
    assert np.median(np.abs(blind)) > 3 * np.median(np.abs(errors))


# What is learnt, and how fast


def test_without_finished_runs_it_is_the_plan():
    result = reforecast(PLAN, 1, [], 10, jitter_fraction=0.0)
    left = result.seconds_left
    assert (left.median, left.low, left.high) == pytest.approx(
        (1000, 1000 * math.sqrt(0.5), 1000 * math.sqrt(2)), rel=0.02
    )
    assert result.plan_weight == 1
    assert result.words == "from the plan: no run is finished yet"


def test_the_plan_loses_its_weight_run_by_run():
    results = [reforecast(PLAN, 1, [RunDone(150.0)] * n, 50) for n in (0, 1, 3, 10, 100)]
    weights = [r.plan_weight for r in results]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] < 0.1
    medians = [r.run_seconds[""].median for r in results]
    assert medians == sorted(medians)
    assert medians[1] > 135
    assert medians[-1] == pytest.approx(150, rel=0.005)
    assert results[-1].words == "from 100 finished runs: a run takes 2 min 30 s, 1 min 40 s were planned"


def test_a_plan_that_was_too_sure_of_itself_is_contradicted():
    sure = Range(100.0, 99.0, 101.0)
    assert reforecast(sure, 1, [RunDone(140.0)] * 5, 10).run_seconds[""].median == pytest.approx(140, rel=0.01)
    exact = Range(100.0, 100.0, 100.0)
    assert reforecast(exact, 1, [RunDone(140.0)] * 5, 10).run_seconds[""].median == pytest.approx(140, rel=0.03)


def test_a_kind_without_runs_learns_from_the_others():
    plan = {"seen": PLAN, "unseen": Range(200.0, 140.0, 280.0)}
    finished = [RunDone(130.0, kind="seen")] * 10
    now = reforecast(plan, {"seen": 1, "unseen": 1}, finished, 10).run_seconds
    assert now["seen"].median == pytest.approx(130, rel=0.01)
    assert 220 < now["unseen"].median < 260
    assert now["unseen"].high / now["unseen"].low > 1.3 * now["seen"].high / now["seen"].low


def test_a_run_under_way_tells_its_speed_before_any_is_finished():
    slow = RunUnderWay(0.8, elapsed_seconds=160.0)
    result = reforecast(PLAN, 1, [], 4, running=[slow])
    assert result.seconds_left.median == pytest.approx(40 + 4 * 200, rel=0.05)
    early = dataclasses.replace(slow, fraction_done=0.05)  # too early: start-up is most of it
    assert reforecast(PLAN, 1, [], 4, running=[early]).seconds_left.median < 600


def test_packing_of_the_rest():
    finished = [RunDone(100.0)] * 200
    exact = dict(jitter_fraction=0.0)
    assert reforecast(PLAN, 4, finished, 9, **exact).seconds_left.median == pytest.approx(300, rel=0.01)
    assert reforecast(PLAN, 2, finished, [3.0, 1.0, 1.0, 1.0], **exact).seconds_left.median == pytest.approx(
        300, rel=0.01
    )
    half = [RunUnderWay(0.5), RunUnderWay(0.9)]
    left = reforecast(PLAN, 2, finished, 1, running=half, **exact).seconds_left
    assert left.median == pytest.approx(110, rel=0.01)
    two_rounds = reforecast(PLAN, 4, finished, 5, later_rounds=[np.ones(1)], **exact).seconds_left
    assert two_rounds.median == pytest.approx(300, rel=0.01)


def test_a_long_queue_passed_in_bulk_ends_like_one_packed_run_by_run(monkeypatch):
    sizes = np.random.default_rng(5).uniform(0.5, 1.5, 3000)
    running = [RunUnderWay(f) for f in np.linspace(0, 0.95, 20)]
    finished = [RunDone(100.0 + i) for i in range(-5, 6)]
    plan = {"": PLAN, "slow": Range(220.0, 180.0, 260.0)}
    for waiting in (3000, sizes):
        options = dict(running=running)
        bulk = reforecast(plan, {"": 20, "slow": 10}, finished, waiting, **options).seconds_left
        monkeypatch.setattr(module, "_EXACT_RUNS", 10**6)
        one_by_one = reforecast(plan, {"": 20, "slow": 10}, finished, waiting, **options).seconds_left
        monkeypatch.undo()
        for end in ("median", "low", "high"):
            assert getattr(bulk, end) == pytest.approx(getattr(one_by_one, end), rel=0.01)


def test_a_queue_of_a_hundred_thousand_runs_is_re_forecast_at_once():
    finished = [RunDone(100.0 + i % 7) for i in range(20_000)]
    started = time.perf_counter()
    left = reforecast(PLAN, 1000, finished, 80_000).seconds_left
    assert time.perf_counter() - started < 5  # 0.3 s on a quiet core
    assert left.median == pytest.approx(80_000 / 1000 * 103, rel=0.02)


def test_pure_and_done():
    finished = [RunDone(100.0), RunDone(120.0)]
    assert reforecast(PLAN, 3, finished, 20) == reforecast(PLAN, 3, finished, 20)
    done = reforecast(PLAN, 0, finished, 0, elapsed_seconds=220.0)
    assert done.seconds_left == Range(0, 0, 0)
    assert done.total_seconds == Range(220, 220, 220)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(workers=0), "there are no workers"),
        (dict(waiting=-1), "-1 runs are waiting"),
        (dict(waiting=[1.0, 0.0]), "size of a waiting run"),
        (dict(waiting=[1.0, math.nan]), "size of a waiting run"),
        (dict(prior=Range(100, 120, 140)), "range from 120 to 140"),
        (dict(prior=Range(math.nan, 1, 2)), "seconds is nan"),
        (dict(prior={}), "no kind of worker"),
        (dict(finished=[RunDone(-5.0)]), "seconds is -5"),
        (dict(finished=[RunDone(math.inf)]), "seconds is inf"),
        (dict(finished=[RunDone(5.0, kind="gpu")]), "no plan for the workers 'gpu'"),
        (dict(running=[RunUnderWay(1.5)]), "is 1.5 done"),
        (dict(elapsed_seconds=-1.0), "elapsed_seconds is -1"),
    ],
)
def test_bad_input(arguments, words):
    values = dict(prior=PLAN, workers=2, finished=[], waiting=3)
    values.update(arguments)
    with pytest.raises(InputError, match=words) as error:
        reforecast(**values)
    assert error.value.hint
