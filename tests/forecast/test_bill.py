"""The bill: it adds up, follows the work, and its range is no sum of lows."""

import dataclasses

import pytest

from ltm.forecast.bill import STAGES, Costs, Workload, price, stage_seconds
from ltm.forecast.section import BudgetSection, parse_size

LOAD = Workload(
    n_runs=100, runs_left=100.0, models_to_score=103.0, run_tokens=1_000_000, n_params=1_000_000, n_workers=2,
    device="cpu", file_bytes=20e6, train_bytes=8e6, encoded_bytes=8e6, held_out_books=10.0, n_variants=100,
)  # fmt: skip
COSTS = Costs(tokens_per_second=10_000.0, run_seconds=0.5, workers_seconds=4.0, score_seconds=2.0, scores_seconds=1.0)


def bill(costs=COSTS, **changes):
    return price(dataclasses.replace(LOAD, **changes), costs, None, 0.2, 1.0)


def test_stages_add_up_and_ranges_hold_the_middle():
    value = bill()
    assert [row["stage"] for row in value["stages"]] == list(STAGES)
    assert value["seconds"] == pytest.approx(sum(row["seconds"] for row in value["stages"]))
    assert all(row["low"] <= row["seconds"] <= row["high"] for row in value["stages"])
    assert value["cost_usd"] == pytest.approx(value["energy_kwh"] * 0.2 + value["seconds"] / 3600)
    assert value["energy_kwh"] == pytest.approx(130.0 * value["seconds"] / 3.6e6)


def test_training_is_rounds_of_equal_runs():
    def of_runs(**changes):
        return stage_seconds(dataclasses.replace(LOAD, **changes), COSTS)["runs"]

    assert of_runs() == pytest.approx(4.0 + 50 * (100.0 + 0.5))
    assert of_runs(runs_left=99.0) == of_runs()  # the last round is half empty
    assert of_runs(runs_left=98.5) == pytest.approx(4.0 + 49.25 * 100.5)  # a run that is half trained
    assert of_runs(runs_left=0.0) == 0.0
    assert of_runs(n_workers=3) == pytest.approx(4.0 + 34 * 100.5)


def test_untrained_models_are_scored_too_and_workers_start_once():
    seconds = stage_seconds(LOAD, COSTS)
    assert seconds["scores"] == pytest.approx(1.0 + 52 * 2.0 + 0.1 + 100 * 0.005)
    only_scores = stage_seconds(dataclasses.replace(LOAD, runs_left=0.0), COSTS)
    assert only_scores["scores"] == pytest.approx(seconds["scores"] + 4.0)


def test_what_stands_costs_nothing_and_says_what_it_took():
    value = bill(done={"books": 12.5, "sets": 0.1})
    rows = {row["stage"]: row for row in value["stages"]}
    assert rows["books"]["seconds"] == rows["books"]["high"] == 0.0
    assert rows["books"]["measured"] == 12.5
    assert "measured" not in rows["tokens"]


def test_own_spreads_add_in_quadrature_and_the_shared_one_adds_as_it_is():
    even = Costs(tokens_per_second=1e6, run_seconds=0.0, spread=dict.fromkeys(STAGES, 0.3), machine_spread=0.0)
    value = bill(even)
    assert value["seconds_low"] > sum(row["low"] for row in value["stages"])
    assert value["seconds_high"] < sum(row["high"] for row in value["stages"])
    shared = dataclasses.replace(even, spread=dict.fromkeys(STAGES, 0.0), machine_spread=0.3)
    value = bill(shared)
    assert value["seconds_low"] == pytest.approx(sum(row["low"] for row in value["stages"]))
    assert "busy" in value["why"]
    assert "trains" in bill(dataclasses.replace(COSTS, spread={"runs": 0.2}))["why"]


def test_earlier_studies_correct_a_stage():
    plain, corrected = bill(), bill(dataclasses.replace(COSTS, factor={"runs": 1.2}))
    runs = STAGES.index("runs")
    assert corrected["stages"][runs]["seconds"] == pytest.approx(1.2 * plain["stages"][runs]["seconds"])
    assert corrected["stages"][0] == plain["stages"][0]


def test_disk_and_memory_follow_models_and_workers():
    small, large = bill(), bill(n_runs=200)
    assert large["disk_bytes"] - small["disk_bytes"] == pytest.approx(100 * (4e6 + 150_000))
    assert bill(n_workers=4)["memory_bytes"] - small["memory_bytes"] == pytest.approx(2 * (350e6 + 20e6))


def test_sizes_of_a_budget():
    assert BudgetSection(disk="20GB").limits() == {"disk": 20e9}
    assert BudgetSection(hours=2, usd=0.5).limits() == {"hours": 2.0, "usd": 0.5}
    assert parse_size("1.5 GiB") == 1610612736
    for wrong in ("twenty", "5 parsecs", "-3GB"):
        with pytest.raises(ValueError, match="not a size"):
            parse_size(wrong)
    for wrong in ({"hours": 0}, {"usd": -1}, {"disk": 0}, {"days": 3}):
        with pytest.raises(ValueError, match="."):
            BudgetSection(**wrong)
