"""The data of the figures: what is drawn is what the rows say, and nothing unclaimed is given a direction."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from synthetic_study import make_books, make_effects, make_ranking, make_runs, make_scores, make_variants

from ltm.dashboard import charts, curve_charts, curves, figures
from ltm.dashboard.tables import pack
from ltm.records import Effect


def an_effect(**changes: object) -> Effect:
    base = Effect("book", "b1", "Emma", "linking", 1.0, 0.2, 0.6, 1.4, 0.001, 0.01, 0.9, 40, True)
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "raises"),
        ({"estimate": -1.0}, "lowers"),
        ({"claimed": False}, "unclear"),
        ({"estimate": math.nan}, "unclear"),
        ({"estimate": 0.0}, "unclear"),
    ],
)
def test_only_claimed_effects_have_a_direction(changes: dict[str, object], expected: str) -> None:
    assert figures.verdict(an_effect(**changes)) == expected


def test_effects_are_ordered_and_the_strongest_are_drawn() -> None:
    effects = [
        an_effect(name=f"b{i}", label=f"B{i}", estimate=i / 10, shrunk=i / 10, claimed=False) for i in range(-40, 41)
    ]
    effects.append(an_effect(name="weak", label="Weak", estimate=0.01, shrunk=0.01, claimed=True))
    rows = figures.effect_rows(effects, "book")
    assert [row["estimate"] for row in rows] == sorted((row["estimate"] for row in rows), reverse=True)
    shown = {row["name"] for row in rows if row["shown"]}
    assert len(shown) == figures.DRAWN_EFFECTS
    assert "weak" in shown  # claimed comes before strong
    assert {"b40", "b-40"} <= shown
    assert "b1" not in shown


def test_effects_that_are_not_numbers_stay_in_the_table_and_out_of_the_drawing() -> None:
    rows = figures.effect_rows(
        [an_effect(), an_effect(name="b2", label="Emma", estimate=math.nan, low=math.inf)], "book"
    )
    broken = next(row for row in rows if row["name"] == "b2")
    assert broken["estimate"] is None
    assert broken["low"] is None
    assert not broken["shown"]
    assert sorted(row["label"] for row in rows) == ["Emma", "Emma (2)"]


def test_ranking_draws_the_first_places_and_outlives_its_design() -> None:
    rng = np.random.default_rng(1)
    books = make_books(12, rng)
    variants = make_variants(40, books, rng)
    runs = make_runs(variants, rng)
    ranked = make_ranking(runs, rng)
    ranked[3] = dataclasses.replace(ranked[3], low=math.nan)
    rows = figures.rank_rows(reversed(ranked), variants, "residual")
    assert [row["place"] for row in rows] == list(range(1, figures.DRAWN_RANKS + 1))
    first = next(v for v in variants if v.variant_id == ranked[0].variant_id)
    assert (rows[0]["order"], rows[0]["set"], rows[0]["axis"]) == (first.order, first.set_id, "residual")
    assert [row["place"] for row in rows if not row["shown"]] == [4]  # without an interval nothing is drawn
    assert figures.rank_rows(ranked, [])[0]["order"] is None


def test_dose_is_the_paired_difference_in_seed_deviations() -> None:
    rng = np.random.default_rng(2)
    books = make_books(12, rng)
    variants = make_variants(60, books, rng)
    runs = make_runs(variants, rng)
    measures, reliability = make_scores(runs, variants, rng)
    by_variant = {v.variant_id: v for v in variants}
    base_of = {v.block: run for run in runs if (v := by_variant[run.variant_id]).arm == "base"}
    value = {(m.run_id, m.family): m.value for m in measures}
    expected: dict[tuple[str, float], list[float]] = {}
    for run in runs:
        variant = by_variant[run.variant_id]
        if variant.gap_kind != "none":
            difference = (value[run.run_id, "L1"] - value[base_of[variant.block].run_id, "L1"]) / 0.004
            expected.setdefault((variant.gap_kind, round(1 - variant.density, 6)), []).append(difference)
    rows = [row for row in figures.dose_rows(variants, runs, measures, reliability) if row["family"] == "L1"]
    assert {(r["gap_kind"], r["dropped"]): r["n"] for r in rows} == {k: len(v) for k, v in expected.items()}
    for row in rows:
        assert row["estimate"] == pytest.approx(np.mean(expected[row["gap_kind"], row["dropped"]]))
        assert (row["low"] is None) == (row["n"] < 2)


def test_interval_of_a_mean_is_students() -> None:
    mean, half = figures.mean_and_half_width([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(2.919986 / math.sqrt(3), rel=1e-5)  # t(0.95, 2) from a printed table


def test_times_join_forecast_and_measurement_and_refuse_nonsense() -> None:
    rows = figures.time_rows(
        {"stages": [{"stage": "runs", "seconds": 10, "low": 5, "high": 20}, {"stage": 3}, "x", {"stage": "scores"}]},
        {"stages": {"runs": 12.5, "books": 3, "sets": "soon"}},
    )
    assert [row["stage"] for row in rows] == ["runs", "scores", "books", "sets"]
    assert rows[0] == {"stage": "runs", "forecast": 10.0, "low": 5.0, "high": 20.0, "measured": 12.5}
    assert rows[3]["measured"] is None
    assert figures.time_rows({"stages": 5}, {"stages": []}) == []


def test_the_bill_compares_the_stages_that_have_both_and_scales_its_range() -> None:
    stages = [{"stage": "start", "seconds": 6}, {"stage": "runs", "seconds": 54}, {"stage": "scores", "seconds": 60}]
    forecast = {"stages": stages, "seconds": 120, "seconds_low": 100, "seconds_high": 150, "energy_kwh": 0.012}
    rows = figures.time_rows(forecast, {"stages": {"runs": 60.0}, "other": 6.0})
    time, energy, money = figures.bill_rows(forecast, rows)
    assert time == {"what": "minutes", "forecast": 1.0, "low": 50 / 60, "high": 75 / 60, "measured": 66 / 60}
    assert (energy["forecast"], energy["measured"]) == (pytest.approx(6.0), pytest.approx(6.6))
    assert money["measured"] == 0.0
    assert figures.bill_rows({}, rows) == []
    assert figures.bill_rows(forecast, figures.time_rows(forecast, {})) == []


def test_genres_count_every_book_once() -> None:
    books = make_books(100, np.random.default_rng(3))
    books = [dataclasses.replace(book, genre=f"g{i % 30}") for i, book in enumerate(books)]
    rows = figures.genre_rows(books, limit=5)
    assert sum(row["books"] for row in rows) == 100
    assert rows[-1]["genre"] == "other_genres"


def test_curves_are_medians_over_the_runs_of_an_arm() -> None:
    rng = np.random.default_rng(4)
    variants = make_variants(9, make_books(12, rng), rng)
    runs = [
        dataclasses.replace(run, curve_tokens=[0, 100], curve_loss=[float(i), float(i) + 1])
        for i, run in enumerate(make_runs(variants, rng))
    ]
    rows = curves.curve_rows(runs, variants)
    base = [i for i, v in enumerate(variants) if v.arm == "base"]
    first = next(row for row in rows if row["arm"] == "base")
    assert rows[0]["arm"] == "base"
    assert first["tokens"] == 0
    assert first["loss"] == np.median(base)
    assert first["n"] == len(base)


def test_damaged_curves_do_not_break_the_others() -> None:
    rng = np.random.default_rng(5)
    variants = make_variants(4, make_books(12, rng), rng)
    runs = make_runs(variants, rng)
    runs[0] = dataclasses.replace(runs[0], curve_loss=[], final_loss=math.nan)
    runs[1] = dataclasses.replace(runs[1], curve_loss=[math.nan] * len(runs[1].curve_tokens))
    rows = curves.curve_rows(runs, variants)
    assert rows
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert {row["run"] for row in curves.sample_rows(runs)} == {runs[2].run_id, runs[3].run_id}
    assert curves.final_losses(runs[:1]) is None
    assert curves.curve_rows([], []) == curves.sample_rows([]) == []


def test_figures_of_a_large_study_stay_small() -> None:
    rng = np.random.default_rng(6)
    effects = make_effects(make_books(4000, rng), rng)
    assert len(figures.effect_rows(effects, "book")) <= figures.TABLE_EFFECTS


def test_specifications_hold_no_data_and_no_fixed_words() -> None:
    for name, spec in _all_specifications():
        titles = list(_values(spec, "title"))
        assert titles, name
        assert all(title is None or title == ["%axis"] or str(title).startswith("@") for title in titles), (
            name,
            titles,
        )
        assert all(not rows or rows == [{}] for rows in spec.get("datasets", {}).values())
        assert "http" not in str({k: v for k, v in spec.items() if k != "$schema"})


def _all_specifications() -> list[tuple[str, dict[str, object]]]:
    """Return every drawing: the functions of both modules that take nothing and give a specification."""
    found = []
    for module in (charts, curve_charts):
        for name, make in vars(module).items():
            if hasattr(make, "cache_info") and make.__module__ == module.__name__:
                found.append((name, make()))
    assert len(found) > 14
    return found


def _values(node: object, wanted: str) -> list[object]:
    if isinstance(node, dict):
        found = [node[wanted]] if wanted in node else []
        return found + [v for child in node.values() for v in _values(child, wanted)]
    return [v for child in node for v in _values(child, wanted)] if isinstance(node, list) else []


def test_packing_keeps_every_value() -> None:
    rows = [{"a": 1, "b": None}, {"a": 2.5, "c": [1, 2]}]
    packed = pack(rows)
    assert [dict(zip(packed["keys"], row, strict=True)) for row in packed["rows"]] == [
        {"a": 1, "b": None, "c": None},
        {"a": 2.5, "b": None, "c": [1, 2]},
    ]
