"""The five tables: contents as promised, ranges in order, the same numbers in every form."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from ltm.errors import InputError
from ltm.forecast.answer import answer
from ltm.forecast.question import Question, ask
from ltm.forecast.render import Amount, Column, Table, amount, finite, single, to_csv, to_document, to_markdown, to_text
from ltm.forecast.table_campaign import Plan
from ltm.forecast.tables import TABLES, make


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return {name: make(name, Question()) for name in TABLES if name != "campaign"} | {
        "campaign": make("campaign", Question(), plan=Plan(variants=200, replicates=20))
    }


@pytest.mark.parametrize("name", TABLES)
def test_every_range_holds_its_value_and_every_form_works(tables, name):
    table = tables[name]
    for row in table.rows:
        for key, value in row.items():
            if isinstance(value, Amount):
                assert value.low <= value.value <= value.high, (name, key)
    for width in (60, 80, 200):
        text = to_text(table, width)
        tables_lines = text.splitlines()
        assert max(len(line) for line in tables_lines) <= max(width, 100)
    assert to_markdown(table).count("\n|") >= len(table.rows) + 1
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(rows) == len(table.rows)
    json.dumps(finite(to_document(table)), allow_nan=False)


def test_train_has_the_five_sizes_and_epochs_multiply_the_time(tables):
    rows = tables["train"].rows
    assert [row["model"] for row in rows] == ["125m", "355m", "1.3b", "3b", "7b"]
    assert rows[0]["time_hours"].value < rows[1]["time_hours"].value < rows[2]["time_hours"].value
    ratio = rows[0]["time_5_epochs_hours"].value / rows[0]["time_hours"].value
    assert 4 < ratio < 5, "tokenizing and start-up are paid once"
    assert "8-bit AdamW" in rows[4]["setting"], "7B in full does not fit 96 GB as asked"


def test_a_row_is_the_single_answer(tables):
    found = answer(ask(Question(model="355m", tokens="10B")))
    row = tables["train"].rows[1]
    assert row["time_hours"].value == pytest.approx(found.bill.seconds / 3600)
    assert row["tokens_per_s"].high == pytest.approx(found.forecast.tokens_per_second_high)


def test_several_models_and_amounts_make_a_grid():
    table = make("train", Question(model="125m,1b", tokens="1B,2B,3B", epochs=2, gpus=2))
    assert len(table.rows) == 6
    assert "time_5_epochs_hours" not in table.rows[0]


def test_books_cost_what_training_and_fixed_costs_cost(tables):
    rows = tables["books"].rows
    assert [row["books"] for row in rows] == ["1", "10", "100", "1,000"]
    for row in rows:
        assert row["time_hours"].value == pytest.approx(row["training_hours"].value + row["fixed_hours"])
    assert rows[0]["fixed_hours"] > rows[0]["training_hours"].value, "below 50M tokens fixed costs outweigh"
    assert rows[3]["fixed_hours"] < 0.2 * rows[3]["training_hours"].value
    assert rows[3]["tokens"] == 750e6
    assert 0.5 < rows[3]["training_hours"].value < 2, "1000 books on this card: about an hour"


def _change(table: Table, words: str) -> dict:
    return next(row for row in table.rows if words in row["change"])


def test_speedups_tell_time_and_memory_and_what_is_no_gain(tables):
    table = tables["speedups"]
    groups = {row["group"] for row in table.rows}
    assert groups >= {
        "attention",
        "compile",
        "precision",
        "accumulation",
        "checkpointing",
        "method",
        "sharding",
        "packing",
    }
    plain = _change(table, "attention: plain")
    assert plain["times_as_fast"].value < 0.9
    assert plain["memory_change_gib"] > 0
    assert _change(table, "checkpointing: full")["memory_change_gib"] < 0
    assert _change(table, "checkpointing: full")["times_as_fast"].value < 1
    for name in ("ZeRO-1", "ZeRO-2"):
        row = _change(table, f"sharding: {name}")
        assert row["times_as_fast"] == pytest.approx(1)
        assert "changes nothing" in row["verdict"]
    assert "not here" in _change(table, "FlashAttention 3")["verdict"]
    assert _change(table, "packing")["times_as_fast"] == pytest.approx(0.3)


def test_speedups_are_against_the_users_own_case():
    table = make("speedups", Question(model="1.3b", gpu="H100", gpus=8, packing=0.4))
    assert _change(table, "every position useful")["times_as_fast"] == pytest.approx(2.5)
    assert _change(table, "ZeRO-3")["memory_change_gib"] < -5
    assert "not here" not in _change(table, "precision: fp8")["verdict"]
    lora = _change(table, "method: LoRA")["times_as_fast"]
    assert 1.1 < lora.value < 2.5, "the forward pass and most of the backward pass stay"


def test_fp8_where_the_card_lacks_it_says_so():
    table = make("speedups", Question(gpu="A100"))
    assert "cannot compute in it" in _change(table, "precision: fp8")["verdict"]


def test_feasible_answers_each_question(tables):
    rows = {row["what"]: row for row in tables["feasible"].rows}
    assert rows["train 125m from scratch"]["possible"] == "yes"
    assert rows["train 7b from scratch"]["possible"] == "yes, with"
    assert "would take" in rows["train 7b from scratch"]["remark"]
    assert rows["fine-tune 7b with LoRA"]["possible"] == "yes"
    assert rows["answer with 3b, books searched"]["possible"] == "yes"


def test_feasible_says_no_and_how_many_cards():
    rows = {row["what"]: row for row in make("feasible", Question(gpu="RTX 3060")).rows}
    assert rows["train 7b from scratch"]["possible"].startswith("with ")
    assert "the card has 12 GiB" in rows["train 7b from scratch"]["remark"]
    assert rows["fine-tune 7b with LoRA"]["possible"] == "no"
    assert rows["fine-tune 7b with QLoRA"]["possible"] in ("yes, with", "perhaps, with")


def test_feasible_says_no_to_what_takes_years():
    rows = {row["what"]: row for row in make("feasible", Question(tokens="1T")).rows}
    assert rows["train 3b from scratch"]["possible"] == "no"
    assert "cards for a month" in rows["train 3b from scratch"]["remark"]


def test_a_campaign_is_its_runs_and_shrinks_with_cards(tables):
    rows = tables["campaign"].rows
    one = answer(ask(Question(books=100, pages=500, epochs=3)))
    runs = 200 * one.bill.seconds / 3600
    assert rows[0]["time_hours"].value == pytest.approx(runs, rel=0.15)
    assert 6 < rows[0]["time_hours"].value / rows[1]["time_hours"].value < 8.5
    assert rows[2]["useful"] < rows[0]["useful"]


def test_trouble_makes_a_campaign_longer_and_says_so():
    calm = make("campaign", Question(gpus=4), plan=Plan(variants=40, replicates=20)).rows[0]
    trouble = Plan(
        variants=40, replicates=20, straggler_fraction=0.5, straggler_slowdown=3.0, hours_between_failures=0.5
    )
    rough = make("campaign", Question(gpus=4), plan=trouble).rows[0]
    assert rough["time_hours"].value > 1.2 * calm["time_hours"].value
    assert "stragglers" in rough["lost"]
    assert rough["failures"] > 0


def test_a_campaign_of_runs_that_do_not_fit_is_refused():
    with pytest.raises(InputError, match="does not fit on one"):
        make("campaign", Question(model="7b", gpu="RTX 4090"))
    with pytest.raises(InputError, match="--variants is 0"):
        make("campaign", Question(), plan=Plan(variants=0))


def test_problems_of_all_rows_are_told_once():
    with pytest.raises(InputError) as caught:
        make("train", Question(model="125m,xx", precision="bf16", gpu="T4", tokens="1B,0"))
    for words in ("cannot compute", "unknown model: xx", "--tokens is 0"):
        assert str(caught.value).count(words) == 1
    with pytest.raises(InputError, match="commas of --model"):
        make("train", Question(model=","))
    with pytest.raises(InputError, match="nearest: train"):
        make("trian", Question())


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.001, "hours", "3.6 s"), (0.5, "hours", "30 min"), (29.4, "hours", "29 h"), (100, "hours", "4.2 d"),
        (30_000, "hours", "3.4 years"), (0.02, "kwh", "20 Wh"), (12.34, "kwh", "12 kWh"), (1234, "usd", "$1,230"),
        (0.061, "share", "6.1 %"), (math.nan, "usd", "-"), (-3.4, "signed_gib", "-3.4 GiB"), (0, "signed_gib", "0"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(value, kind, text):
    assert single(value, kind) == text


def test_a_range_keeps_one_unit():
    assert amount(1.4, 0.7, 2.8, "hours") == "84 min (42 to 168)"


def test_csv_has_units_and_ends_in_columns():
    table = Table(
        "t", "T", (Column("time_hours", "time", "hours"),), [{"time_hours": Amount(2, 1, 4)}, {"time_hours": None}]
    )
    assert to_csv(table) == "time_hours,time_hours_low,time_hours_high\n2,1,4\n,,\n"


def test_cells_of_a_table_cannot_break_markdown():
    table = Table("t", "T", (Column("a", "a"),), [{"a": "x|y"}])
    assert "x\\|y" in to_markdown(table)
