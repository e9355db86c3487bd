"""The bill: it adds up, follows the work, and power follows the design."""

import dataclasses
import math

import pytest

from ltm.forecast.estimate import Rate, Workload, estimate
from ltm.forecast.power import in_words, power

LOAD = Workload(
    n_runs=100, runs_left=100, run_tokens=1_000_000, n_params=1_000_000, score_tokens=100_000,
    library_bytes=10_000_000, n_workers=2, device="cpu",
)  # fmt: skip
RATE = Rate(10_000, 8_000, 12_000, "a test")


def bill(**changes):
    return estimate(dataclasses.replace(LOAD, **changes), RATE, None, 0.2, 1.0)


def seconds(value, stage):
    return next(s["seconds"] for s in value["stages"] if s["stage"] == stage)


def test_stages_add_up_and_ranges_hold_the_middle():
    value = bill()
    assert value["seconds"] == pytest.approx(sum(s["seconds"] for s in value["stages"]))
    assert all(s["low"] <= s["seconds"] <= s["high"] for s in value["stages"])
    assert value["cost_usd"] == pytest.approx(value["energy_kwh"] * 0.2 + value["seconds"] / 3600)


def test_training_time_is_tokens_over_rate_over_workers():
    assert seconds(bill(), "runs") == pytest.approx(100 * 1e6 / 10_000 / 2, rel=0.01)
    assert seconds(bill(runs_left=50), "runs") == pytest.approx(seconds(bill(), "runs") / 2, rel=0.01)
    assert seconds(bill(runs_left=1), "runs") == pytest.approx(seconds(bill(runs_left=2), "runs"))
    assert seconds(bill(runs_left=0), "runs") < 10


def test_power_follows_the_design():
    few, many = power(40, 56, 20, 5, 5), power(160, 56, 20, 20, 5)
    assert many["smallest_book_effect"] == pytest.approx(few["smallest_book_effect"] / 2)
    assert many["smallest_order_effect"] == pytest.approx(few["smallest_order_effect"] / 2)
    assert power(1000, 200, 100, 0, 0)["accuracy_of_predicted_scores"]["0.8"] == pytest.approx(
        math.sqrt(800 / 1000), abs=1e-9
    )
    assert math.isinf(power(40, 56, 20, 0, 5)["smallest_order_effect"])
    assert "none (no such blocks)" in in_words(power(40, 56, 20, 0, 5))[1]
    assert "single books can only" in in_words(few)[0]
