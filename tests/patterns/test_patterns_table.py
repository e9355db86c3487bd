"""From rows to scores: scales, the admission gate, and everything that can be missing or doubled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ltm.errors import DataError
from ltm.patterns.simulate import Planted, simulate
from ltm.patterns.table import make_table
from ltm.records import Measure, Reliability

SMALL = Planted(12, 6, n_seeds=6, n_order=4, n_gaps=4)


@pytest.fixture
def rows():
    return simulate(SMALL, 1)


def _reliability(family, seed_sd, admitted, ability="linking", reason=""):
    return Reliability(ability, family, 9, 9, 0, 0, 9, 0.7, 0.9, 0.5, 0.4, 0.6, seed_sd, admitted, reason)


def test_one_family_is_scored_in_its_seed_sd(rows):
    table = make_table(rows)
    values = {m.run_id: m.value for m in rows.measures}
    raw = np.array([values[r] for r in table.run_ids])
    assert np.allclose(table.scores["linking"], (raw - raw.mean()) / rows.reliability[0].seed_sd)
    assert table.abilities["linking"].unit == "seed"
    assert table.abilities["linking"].admitted


def test_only_admitted_families_count(rows):
    noise = [replace(m, family="L2", value=1e6 * i) for i, m in enumerate(rows.measures)]
    gate = [*rows.reliability, _reliability("L2", 1.0, False)]
    both = make_table(replace(rows, measures=[*rows.measures, *noise], reliability=gate))
    assert np.array_equal(both.scores["linking"], make_table(rows).scores["linking"])
    assert both.abilities["linking"].families == ("L1",)


def test_families_of_different_scale_weigh_the_same_and_the_unit_is_the_seed_sd_of_their_mean():
    rows = simulate(replace(SMALL, n_seeds=300, n_order=0, n_gaps=0, block_sd=0.0), 1)
    rng = np.random.default_rng(0)
    second = [replace(m, family="L2", value=1000 * float(rng.standard_normal())) for m in rows.measures]
    gate = [*rows.reliability, _reliability("L2", 1000.0, True)]
    table = make_table(replace(rows, measures=[*rows.measures, *second], reliability=gate))
    facts = table.abilities["linking"]
    assert facts.families == ("L1", "L2")
    assert facts.unit == "seed"
    assert facts.unit_sd == pytest.approx(np.sqrt(0.5), rel=0.1)


def test_no_admitted_family_means_scored_but_not_admitted(rows):
    gate = [replace(r, admitted=False, reason="at chance") for r in rows.reliability]
    facts = make_table(replace(rows, reliability=gate)).abilities["linking"]
    assert not facts.admitted
    assert facts.reason == "at chance"
    assert facts.families == ("L1",)


def test_a_whole_ability_can_be_refused_although_a_family_passed(rows):
    gate = [*rows.reliability, _reliability("*", 0.5, False, reason="icc 0.1 is below 0.3")]
    facts = make_table(replace(rows, reliability=gate)).abilities["linking"]
    assert not facts.admitted
    assert facts.reason == "icc 0.1 is below 0.3"


@pytest.mark.parametrize("seed_sd", [float("nan"), 0.0])
def test_an_unknown_seed_sd_falls_back_on_the_spread_within_sets(rows, seed_sd):
    gate = [replace(r, seed_sd=seed_sd) for r in rows.reliability]
    few_pairs = [
        r for r in rows.runs if "seeds" not in next(v for v in rows.variants if v.variant_id == r.variant_id).template
    ]
    facts = make_table(replace(rows, reliability=gate, runs=few_pairs)).abilities["linking"]
    assert facts.unit == "residual"
    assert np.isfinite(facts.unit_sd)


def test_one_family_needs_enough_replicates_for_a_seed_sd():
    for n_seeds, unit in ((4, "residual"), (5, "seed")):
        table = make_table(simulate(replace(SMALL, n_seeds=n_seeds), 1))  # pairs of seeds: one df each
        assert table.abilities["linking"].unit == unit


def test_nan_scores_are_dropped_and_counted(rows):
    broken = [replace(m, value=float("nan")) if i < 3 else m for i, m in enumerate(rows.measures)]
    table = make_table(replace(rows, measures=broken))
    assert len(table.run_ids) == len(rows.runs) - 3
    assert table.dropped["measures that are not a number"] == 3
    assert table.dropped["runs without a score"] == 3
    assert table.dropped["planned runs that are missing"] == 3


def test_a_run_without_one_of_two_families_has_no_score(rows):
    second = [replace(m, family="L2") for m in rows.measures[:-2]]
    gate = [*rows.reliability, replace(rows.reliability[0], family="L2")]
    facts = make_table(replace(rows, measures=[*rows.measures, *second], reliability=gate)).abilities["linking"]
    assert (facts.n_runs, facts.n_missing) == (len(rows.runs) - 2, 2)


def test_duplicated_runs_count_once(rows):
    again = [replace(r, run_id=f"zz-{r.run_id}") for r in rows.runs[:4]]
    measures = [replace(m, run_id=f"zz-{m.run_id}") for m in rows.measures[:4]]
    table = make_table(
        replace(rows, runs=[*rows.runs, *again, rows.runs[0]], measures=[*rows.measures, *measures, rows.measures[5]])
    )
    assert table.run_ids == make_table(rows).run_ids
    assert table.dropped["duplicated runs"] == 5


def test_contradicting_measures_are_refused(rows):
    twice = [*rows.measures, replace(rows.measures[0], value=9.0)]
    with pytest.raises(DataError, match="two different values"):
        make_table(replace(rows, measures=twice))


def test_foreign_rows_are_counted_not_used(rows):
    stray = replace(rows.runs[0], run_id="stray", variant_id="of another design")
    extra = [replace(rows.measures[0], run_id="stray"), Measure("x", "swimming", "Z", 1.0, 1.0, 1.0, 1.0, 1)]
    table = make_table(replace(rows, runs=[*rows.runs, stray], measures=[*rows.measures, *extra]))
    assert table.run_ids == make_table(rows).run_ids
    assert table.dropped == {"runs of another design": 1}
    assert "swimming" not in table.abilities


def test_no_scores_at_all_is_said_with_a_hint(rows):
    for empty in (replace(rows, runs=[]), replace(rows, measures=[])):
        with pytest.raises(DataError, match="no run has a score") as caught:
            make_table(empty)
        assert caught.value.hint


def test_constant_scores_are_marked(rows):
    table = make_table(replace(rows, measures=[replace(m, value=0.25) for m in rows.measures]))
    assert table.abilities["linking"].constant


def test_the_order_of_rows_does_not_matter(rows):
    turned = replace(
        rows,
        runs=rows.runs[::-1],
        measures=rows.measures[::-1],
        variants=rows.variants[::-1],
        reliability=rows.reliability[::-1],
    )
    one, other = make_table(rows), make_table(turned)
    assert one.run_ids == other.run_ids
    assert np.array_equal(one.scores["linking"], other.scores["linking"])
