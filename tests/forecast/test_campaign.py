"""The simulated campaign: analytic makespans, Daly's formula, conservation of worker time, honest ranges."""

import dataclasses
import heapq
import itertools
import json
import math

import numpy as np
import pytest

from ltm.errors import InputError
from ltm.forecast import replicates as replicates_module
from ltm.forecast.campaign import simulate
from ltm.forecast.replicates import play
from ltm.forecast.schedule import LEDGER
from ltm.forecast.workers import Phase, Range, WorkerKind, study_phases

CARD = WorkerKind("card", 1, 100.0)
FAILING = dict(hours_between_failures=1.0, repair_seconds=120.0, checkpoint_every_seconds=300.0, restart_seconds=20.0)
EVERYTHING = WorkerKind(
    "spot", 6, 100.0, 80.0, 130.0, jitter_fraction=0.1, startup_seconds=5.0, straggler_fraction=0.2,
    straggler_slowdown=1.5, hours_between_failures=0.5, repair_seconds=60.0, preemptions_per_hour=1.0,
    preempted_seconds=90.0, checkpoint_every_seconds=30.0, checkpoint_seconds=1.0, restart_seconds=4.0,
    watts=300.0, idle_watts=50.0, usd_per_hour=2.0,
)  # fmt: skip


def kind(**changes):
    return dataclasses.replace(CARD, **changes)


def median(kinds, phases, **options):
    return simulate(kinds, phases, explain=False, **options).seconds.median


def list_schedule(sizes, workers, pace):
    """A second, independent list scheduler: longest first, to the worker that is free first."""
    free = [0.0] * workers
    for size in sorted(sizes, reverse=True):
        heapq.heapreplace(free, free[0] + pace * size)
    return max(free)


# Times that can be worked out by hand


def test_one_worker_takes_the_sum():
    phases = [Phase("a", 3, [1.0, 0.5, 2.0]), Phase("b", 2, 0.1, seconds=7.0)]
    assert median([kind(startup_seconds=11.0)], phases) == pytest.approx(11 + 350 + 2 * 17)


@pytest.mark.parametrize(("n_jobs", "workers"), [(1, 1), (7, 3), (8, 4), (9, 4), (3, 10), (1000, 300)])
def test_identical_jobs_take_whole_rounds(n_jobs, workers):
    assert median([kind(count=workers)], [Phase("a", n_jobs)]) == pytest.approx(math.ceil(n_jobs / workers) * 100)


def test_unequal_jobs_are_dealt_longest_first():
    rng = np.random.default_rng(3)
    for workers in (2, 5, 17):
        sizes = rng.lognormal(0, 1, 60)
        expected = list_schedule(sizes, workers, 100.0)
        assert median([kind(count=workers)], [Phase("a", 60, sizes)]) == pytest.approx(expected)


def test_the_faster_of_two_kinds_takes_more():
    fast, slow = kind(name="fast", run_seconds=10.0), kind(name="slow", run_seconds=20.0)
    assert median([slow, fast], [Phase("a", 3)]) == pytest.approx(20.0)
    assert median([slow, fast], [Phase("a", 300)]) == pytest.approx(2000.0)


def test_a_barrier_waits_and_no_barrier_does_not():
    a, b = Phase("a", 3), Phase("b", 3)
    assert median([kind(count=2)], [a, b]) == pytest.approx(400)
    assert median([kind(count=2)], [a, dataclasses.replace(b, barrier=False)]) == pytest.approx(300)


def test_the_driver_works_alone_and_before_the_workers_start():
    phases = [Phase("books", seconds=1000.0, one_per="campaign"), Phase("a", 4), Phase("report", seconds=50.0)]
    result = simulate([kind(count=4, startup_seconds=10.0, usd_per_hour=3600.0)], phases)
    assert result.seconds.median == pytest.approx(1000 + 10 + 100 + 100 + 50)
    assert [p.seconds.median for p in result.phases] == pytest.approx([1000, 110, 150])
    assert result.usd.median == pytest.approx(4 * 260)  # the pool is rented when it is needed


def test_interruptions_cost_what_renewal_theory_says():
    """Daly's equation 13 has no repair; with a repair D the exact mean is (M + D) e^(R/M) (e^(s/M) - 1) a stretch."""
    for repair_seconds in (0.0, 900.0):
        between, every, write, restart, stretches = 3600.0, 1200.0, 60.0, 100.0, 20
        card = kind(
            run_seconds=stretches * every, hours_between_failures=1.0, repair_seconds=repair_seconds,
            checkpoint_every_seconds=every, checkpoint_seconds=write, restart_seconds=restart,
        )  # fmt: skip
        played = play([card], [Phase("a")], 1500, 0, ())

        def stretch(seconds, m=between, d=repair_seconds, r=restart):
            return (m + d) * math.exp(r / m) * math.expm1(seconds / m)

        expected = (stretches - 1) * stretch(every + write) + stretch(every)
        seen = played.makespan_R
        error = seen.std() / math.sqrt(len(seen))
        assert abs(seen.mean() - expected) < 3 * error
        assert error < 0.01 * expected
        if not repair_seconds:
            daly = between * math.exp(restart / between) * math.expm1((every + write) / between) * stretches
            assert seen.mean() == pytest.approx(daly, rel=0.02)


def test_a_preemption_is_a_failure_of_another_name():
    base = dict(run_seconds=5000.0, checkpoint_every_seconds=600.0, restart_seconds=50.0)
    failing = kind(**base, hours_between_failures=0.5, repair_seconds=300.0)
    spot = kind(**base, preemptions_per_hour=2.0, preempted_seconds=300.0)
    a, b = (play([k], [Phase("a", 5)], 300, 0, ()) for k in (failing, spot))
    np.testing.assert_allclose(a.makespan_R, b.makespan_R, rtol=1e-12)
    assert a.interruptions_R2[:, 0].tolist() == b.interruptions_R2[:, 1].tolist()
    assert not a.interruptions_R2[:, 1].any()


# The engines and their books


def test_both_engines_agree_to_the_last_bit(monkeypatch):
    calm = dict(hours_between_failures=math.inf, preemptions_per_hour=0.0, checkpoint_seconds=0.0)
    first = dataclasses.replace(EVERYTHING, **calm)
    second = dataclasses.replace(first, name="slow", count=3, run_seconds=150.0, run_seconds_high=200.0)
    sizes = np.random.default_rng(1).uniform(0.2, 2.0, 40)
    phases = [
        Phase("books", seconds=30.0, seconds_low=20.0, seconds_high=60.0, one_per="campaign"),
        Phase("a", 40, sizes, seconds=2.0, seconds_low=1.0, seconds_high=4.0),
        Phase("scores", 40, 0.1, barrier=False),
        Phase("b", 7),
    ]
    for kinds in ([first, second], [dataclasses.replace(first, count=1)]):
        together = play(kinds, phases, 32, 0, ())
        monkeypatch.setattr(replicates_module, "_PACK_NUMBERS", 0)
        one_by_one = play(kinds, phases, 32, 0, ())
        monkeypatch.undo()
        assert (together.ends_RP == one_by_one.ends_RP).all()
        np.testing.assert_allclose(together.ledger_RLK, one_by_one.ledger_RLK, rtol=1e-12)
        assert together.ends_RP.std(axis=0).min() > 0


def test_work_is_conserved_through_interruptions():
    card = dataclasses.replace(EVERYTHING, jitter_fraction=0.0, straggler_fraction=0.0, run_seconds_low=100.0,
                               run_seconds_high=100.0)  # fmt: skip
    sizes = np.random.default_rng(2).uniform(0.5, 3.0, 50)
    played = play([card], [Phase("a", 50, sizes)], 20, 0, ())
    assert played.interruptions_R2.sum(axis=0).min() > 20
    np.testing.assert_allclose(played.ledger_RLK[:, LEDGER.index("kept"), 0], 100 * sizes.sum(), rtol=1e-9)


def test_a_single_worker_is_never_idle_and_all_its_time_is_accounted_for():
    alone = dataclasses.replace(EVERYTHING, count=1)
    played = play([alone], [Phase("a", 30), Phase("b", 10, 0.3)], 50, 0, ())
    np.testing.assert_allclose(played.ledger_RLK.sum(axis=(1, 2)), played.makespan_R, rtol=1e-9)


def test_shares_add_up_and_no_worker_is_charged_beyond_the_end():
    played = play([EVERYTHING], [Phase("a", 20)], 200, 0, ())
    assert (played.ledger_RLK >= -1e-9).all()
    assert (played.ledger_RLK.sum(axis=(1, 2)) <= 6 * played.makespan_R + 1e-6).all()
    shares = simulate([EVERYTHING], [Phase("a", 20)]).shares
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


def test_checkpoints_bound_what_a_failure_loses():
    for every, limit in ((60.0, 60.0 + 20.0), (math.inf, math.inf)):
        card = kind(count=3, run_seconds=2000.0, **{**FAILING, "checkpoint_every_seconds": every})
        played = play([card], [Phase("a", 30)], 30, 0, ())
        lost = played.ledger_RLK[:, LEDGER.index("lost_failures"), 0].sum() / played.interruptions_R2[:, 0].sum()
        assert lost < limit
        assert lost > 40 if every == 60.0 else lost > 500  # about half a stretch, and half a run


def test_interruptions_come_at_their_rate():
    played = play([kind(count=4, run_seconds=1000.0, **FAILING)], [Phase("a", 200)], 50, 0, ())
    busy = played.ledger_RLK[:, [LEDGER.index("kept"), LEDGER.index("lost_failures")], 0].sum()
    expected = busy / 3600
    assert played.interruptions_R2[:, 0].sum() == pytest.approx(expected, abs=4 * math.sqrt(expected))


def test_an_interrupted_run_goes_on_elsewhere():
    """A worker that is away for days does not hold its run: the other one takes it up."""
    pair = kind(count=2, run_seconds=3000.0, hours_between_failures=2.0, repair_seconds=1e7,
                checkpoint_every_seconds=60.0)  # fmt: skip
    played = play([pair], [Phase("a", 2)], 200, 0, ())
    one_failed = played.interruptions_R2[:, 0] == 1
    assert one_failed.sum() > 20
    assert (played.makespan_R[one_failed] < 6100).all()


def test_energy_and_rent():
    card = kind(count=2, watts=500.0, idle_watts=100.0, usd_per_hour=1.5)
    result = simulate([card], [Phase("a", 3)], usd_per_kwh=0.5)
    kwh = (300 * 500 + 100 * 100) / 3.6e6
    assert result.energy_kwh.median == pytest.approx(kwh)
    assert result.usd.median == pytest.approx(2 * 200 / 3600 * 1.5 + 0.5 * kwh)


# Ranges


def test_same_seed_same_result_and_another_seed_another():
    phases = [Phase("a", 40)]
    first, again, other = (simulate([EVERYTHING], phases, seed=s, replicates=30) for s in (1, 1, 2))
    assert first == again
    assert first.seconds != other.seconds
    json.dumps(first.to_dict())


def test_more_workers_are_never_slower_and_more_failures_never_faster():
    phases = [Phase("a", 60, np.linspace(0.5, 2, 60)), Phase("b", 10)]
    times = [median([dataclasses.replace(EVERYTHING, count=n)], phases) for n in (1, 2, 4, 8, 16, 32)]
    assert all(later <= 1.01 * earlier for earlier, later in itertools.pairwise(times))
    times = [median([kind(count=4, **{**FAILING, "hours_between_failures": h})], phases) for h in (9, 3, 1, 0.3, 0.1)]
    assert all(later >= 0.99 * earlier for earlier, later in itertools.pairwise(times))
    assert times[-1] > 1.5 * times[0]


def test_the_range_holds_nine_truths_of_ten():
    phases = [Phase("a", 30), Phase("b", 5, 0.5)]
    result = simulate([EVERYTHING], phases, explain=False)
    truths = np.array([simulate([EVERYTHING], phases, replicates=1, seed=1000 + s).seconds.median for s in range(300)])
    inside = np.mean((truths >= result.seconds.low) & (truths <= result.seconds.high))
    assert 0.85 <= inside <= 0.95
    assert abs(np.mean(truths <= result.seconds.median) - 0.5) < 0.1


def test_the_range_of_one_worker_is_the_range_of_a_run():
    result = simulate([kind(run_seconds_low=70.0, run_seconds_high=180.0)], [Phase("a", 10)], replicates=200)
    seconds = result.seconds
    assert (seconds.median, seconds.low, seconds.high) == pytest.approx((1000, 700, 1800), rel=0.01)


@pytest.mark.parametrize(
    ("changes", "source", "words"),
    [
        (dict(run_seconds_low=70.0, run_seconds_high=150.0, jitter_fraction=0.05), "speed", "how fast one run is on"),
        (dict(run_seconds_low=99.0, jitter_fraction=0.5), "jitter", "runs differ among themselves (50 %)"),
        (dict(jitter_fraction=0.01, straggler_fraction=0.1, straggler_slowdown=4.0), "stragglers", "slow workers"),
        (dict(jitter_fraction=0.01, hours_between_failures=0.2, repair_seconds=600.0), "failures", "once in 0.2 h"),
        (dict(jitter_fraction=0.01, preemptions_per_hour=5.0, preempted_seconds=600.0), "preemptions", "5 an hour"),
    ],
)
def test_what_makes_the_range_wide(changes, source, words):
    result = simulate([kind(count=2, **changes)], [Phase("a", 20)])
    assert max(result.widths, key=result.widths.get) == source
    assert words in result.main_reason


def test_a_long_preparation_can_be_what_is_uncertain():
    phases = [Phase("books", seconds=5000.0, seconds_low=1000.0, seconds_high=9000.0, one_per="campaign"), Phase("a")]
    assert "the fixed time of books" in simulate([kind(jitter_fraction=0.1)], phases).main_reason
    assert simulate([CARD], [Phase("a")]).main_reason.startswith("nothing varies")
    assert "averages out" in simulate([kind(jitter_fraction=0.001)], [Phase("a", 50)]).main_reason


def test_a_huge_campaign_takes_fewer_replicates_and_says_so():
    big = WorkerKind("gpu", 1000, 3600.0, 3000.0, 4500.0, jitter_fraction=0.05, hours_between_failures=1000.0,
                     checkpoint_every_seconds=600.0, repair_seconds=3600.0)  # fmt: skip
    result = simulate([big], [Phase("a", 100_000)], replicates=200, explain=False)
    assert result.replicates == 29
    assert result.seconds.median == pytest.approx(100 * 3600, rel=0.05)
    assert result.seconds.high == pytest.approx(100 * 4500, rel=0.05)


def test_the_phases_of_a_study():
    phases = study_phases(
        pilot_runs=4, exploration_runs=100, confirmation_runs=10, prepare_seconds=Range(60, 40, 90),
        run_overhead_seconds=1.0, tuned_models=10, tune_size=0.5, report_seconds=Range(10, 5, 20),
    )  # fmt: skip
    assert [p.name for p in phases] == [
        "prepare", "pilot", "scores of pilot", "exploration", "scores of exploration", "confirmation",
        "scores of confirmation", "dialogue", "report",
    ]  # fmt: skip
    runs, scored = 114, 114 * 0.05
    expected = 60 + 100 * (runs + scored + 10 * 0.5) + (runs + 10) + 10
    assert median([CARD], phases) == pytest.approx(expected, rel=0.01)
    assert [p.name for p in study_phases(exploration_runs=5)] == ["exploration", "scores of exploration"]


# What bad input gets


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(count=0), "count is 0"),
        (dict(count=1.5), "count is 1.5"),
        (dict(run_seconds=0.0), "run_seconds is 0"),
        (dict(run_seconds=math.nan), "run_seconds is nan"),
        (dict(run_seconds=math.inf), "run_seconds is inf"),
        (dict(run_seconds_low=120.0), "range from 120 to 100"),
        (dict(run_seconds_high=90.0), "range from 100 to 90"),
        (dict(run_seconds_low=0.0), "run_seconds_low is 0"),
        (dict(repair_seconds=-1.0), "repair_seconds is -1"),
        (dict(jitter_fraction=math.nan), "jitter_fraction is nan"),
        (dict(straggler_fraction=1.5), "straggler_fraction is 1.5"),
        (dict(straggler_slowdown=0.5), "straggler_slowdown is 0.5"),
        (dict(hours_between_failures=0.0), "hours_between_failures is 0"),
        (dict(checkpoint_every_seconds=0.0, hours_between_failures=1.0), "checkpoint_every_seconds is 0"),
    ],
)
def test_workers_that_cannot_be(changes, words):
    with pytest.raises(InputError, match=words) as error:
        kind(**changes)
    assert error.value.hint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(n_jobs=0), "n_jobs is 0"),
        (dict(n_jobs=2, size=[1.0]), "sizes of shape"),
        (dict(n_jobs=2, size=[1.0, math.nan]), "a size is negative or not"),
        (dict(size=-1.0), "a size is negative or not"),
        (dict(seconds=-1.0), "seconds is -1"),
        (dict(seconds=5.0, seconds_low=6.0), "range from 6 to 5"),
        (dict(one_per="worker"), "one_per is 'worker'"),
        (dict(n_jobs=2, one_per="campaign"), "has one job and a barrier"),
    ],
)
def test_phases_that_cannot_be(arguments, words):
    with pytest.raises(InputError, match=words) as error:
        Phase("a", **arguments)
    assert error.value.hint


def test_a_campaign_needs_workers_and_phases():
    for kinds, phases in (([], [Phase("a")]), ([CARD], [])):
        with pytest.raises(InputError, match="give at least one each"):
            simulate(kinds, phases)
    with pytest.raises(InputError, match="replicates is 0"):
        simulate([CARD], [Phase("a")], replicates=0)


def test_a_campaign_that_never_ends_is_refused():
    hopeless = kind(run_seconds=36_000.0, hours_between_failures=1.0)
    with pytest.raises(InputError, match="would never end") as error:
        simulate([hopeless], [Phase("a")])
    assert "checkpoint_every_seconds" in error.value.hint
    ends = dataclasses.replace(hopeless, checkpoint_every_seconds=600.0)
    assert median([ends], [Phase("a")]) < 2 * 36_000
    slow_restart = dataclasses.replace(ends, restart_seconds=36_000.0)
    with pytest.raises(InputError, match="would never end"):
        simulate([slow_restart], [Phase("a")])


def test_a_replicate_that_gets_nowhere_is_given_up():
    """The median run gets on, but the slow end of the range would need e^40 attempts."""
    unlucky = kind(run_seconds=3600.0, run_seconds_high=400_000.0, hours_between_failures=1.0)
    with pytest.raises(InputError, match="does not get on"):
        simulate([unlucky], [Phase("a")])
