"""Rounds without training: their sizes, what the pilot learns from planted scores, who becomes a finalist."""

import dataclasses

import numpy as np
import pytest

import ltm
from ltm.errors import ConfigError
from ltm.patterns.knowledge import expected_accuracy
from ltm.records import Measure, Ranked, Run, Variant
from ltm.sets.design import Drawer
from ltm.sets.shelf import blank_shelf
from ltm.study import knowing, pilot, round_sizes, rounds
from ltm.study.settings import changed_settings

BASE = {
    "rounds.enabled": True,
    "sets.base_order": "random",
    "sets.contrast_orders": ["reverse"],
    "sets.shares.single": 0.4,
}


def settings(**changes):
    return ltm.load("demo", {**BASE, **changes}).settings


def test_a_thousand_runs_are_divided_as_the_science_says():
    found = {s.name: s for s in round_sizes.sizes(settings(**{"sets.count": 1000}))}
    assert {name: s.n_runs for name, s in found.items()} == {
        "pilot": 100, "exploration": 600, "adaptive": 180, "confirmation": 120,
    }  # fmt: skip
    assert found["pilot"].n_sets == 10
    assert found["adaptive"].detail == {"proposed": 108, "random": 72}
    assert found["confirmation"].detail == {"finalists": 24, "controls": 12}


@pytest.mark.parametrize("count", [400, 417, 1000, 12_345])
def test_every_run_is_used_whatever_the_count(count):
    for changes in ({}, {"rounds.shares": {"pilot": 0.3, "exploration": 0.5, "adaptive": 0.0, "confirmation": 0.2}}):
        own = settings(**{"sets.count": count, **changes})
        assert sum(s.n_runs for s in round_sizes.sizes(own)) == count
        assert round_sizes.misfits(own) == []


def test_rounds_can_be_turned_on_in_any_of_the_usual_ways():
    for given in (True, "on", {"enabled": True}, {"random_share": 0.5}):
        assert ltm.load("demo", {"rounds": given}).settings.rounds.enabled
    for given in (False, "off", {"enabled": False}):
        assert not ltm.load("demo", {"rounds": given}).settings.rounds.enabled
    assert not ltm.load("demo").settings.rounds.enabled


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"sets.count": 100}, "rounds.shares.pilot", "gives the pilot 10 of 100 runs: 1 sets of 10 runs each"),
        ({"sets.count": 100}, "rounds.shares.pilot", "nearest: sets.count 400, or a share of 0.4"),
        (
            {
                "sets.count": 400,
                "rounds.shares": {"pilot": 0.2, "exploration": 0.79, "adaptive": 0.005, "confirmation": 0.005},
            },
            "rounds.shares.confirmation",
            "too few for a finalist and a random set",
        ),
    ],
)
def test_rounds_that_do_not_fit_the_count_are_said_with_the_nearest_that_do(changes, key, said):
    own = settings(**changes)
    assert any(k == key and said in text for k, text in round_sizes.misfits(own)), round_sizes.misfits(own)


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(ConfigError, match=r"add up to 1\.2, not to 1"):
        settings(**{"rounds.shares": {"pilot": 0.3, "exploration": 0.6, "adaptive": 0.18, "confirmation": 0.12}})
    with pytest.raises(ConfigError, match="exploration has no share"):
        settings(**{"rounds.shares": {"pilot": 0.5, "exploration": 0.0, "adaptive": 0.3, "confirmation": 0.2}})


def test_a_recipe_lies_over_the_study_and_its_runs_have_ids_of_their_own():
    own = settings(**{"sets.count": 400, "rounds.pilot.recipes": [{"runs.lr": 0.001, "sets.epochs": 2}]})
    assert rounds.with_recipe(own, "recipe 1").runs.lr == 0.001
    assert rounds.with_recipe(own, "recipe 1").sets.epochs == 2
    assert rounds.with_recipe(own, round_sizes.SLOW).runs.lr == own.runs.lr / 4
    from ltm.records import Shard
    from ltm.runs.queue import make_jobs

    variant = Variant("v" * 12, 0, "pilot", 0, 0, "pilot", "base", ["a"], "random", "none", 1.0, 1, 5, [1])
    recipes = {n: rounds.recipe_of(rounds.with_recipe(own, n)) for n in ("", "recipe 1", round_sizes.SLOW)}
    rows = [dataclasses.replace(variant, recipe=name) for name in recipes]
    jobs = make_jobs(recipes[""], rows, "tokenizer", {"a": Shard("a", 0, 100, [0])}, recipes)
    assert len({job.run_id for job in jobs}) == 3
    assert [job.recipe for job in jobs] == list(recipes)
    with pytest.raises(ConfigError, match="no such setting"):
        changed_settings(own, {"runs.lrr": 1})


def planted_cells(rng, n_sets, set_sd, order_sd=0.0, gap_sd=0.0, seed_sd=1.0, seeds=2):
    """The pilot's layout with scores whose variances are known."""
    variants, runs, values = [], [], []
    for s in range(n_sets):
        of_set = set_sd * rng.standard_normal()
        of_order, of_gap = order_sd * rng.standard_normal(2), gap_sd * rng.standard_normal(2)
        for arm, o, g in (("base", 0, 0), ("order", 1, 0), ("gap", 0, 1), ("order+gap", 1, 1)):
            vid = f"{s}-{arm}"
            variant = Variant(
                vid, len(variants), "pilot", s, s, "pilot", arm, ["a"], "random", "none", 1.0, 1, 1, [1, 2]
            )
            variants.append(variant)
            for seed in range(seeds):
                values.append(of_set + of_order[o] + of_gap[g] + seed_sd * rng.standard_normal())
                runs.append((f"{vid}-{seed}", variant, seed))
    rows = [
        Run(r, v.variant_id, seed, "", 1, 1, 1, 2.0, 1.0, 0.0, "cpu", "", 1.0, [], [], "", "", "")
        for r, v, seed in runs
    ]
    return pilot.Cells(rows, [v for _, v, _ in runs]), np.array(values)


def test_the_pilot_tells_the_variances_apart_without_bias():
    rng = np.random.default_rng(0)
    found = [pilot._minque(c.variants, y) for c, y in (planted_cells(rng, 10, 1.0, 0.8, 0.5) for _ in range(150))]
    mean = {name: np.mean([f[name] for f in found]) for name in ("set", "order", "gaps", "seed")}
    assert mean["seed"] == pytest.approx(1.0, abs=0.04)
    assert mean["set"] == pytest.approx(1.0, abs=0.15)  # cutting at 0 adds a little
    assert mean["order"] == pytest.approx(0.8**2 / 2, abs=0.06)  # half: two orders about their mean
    assert mean["gaps"] == pytest.approx(0.5**2 / 2, abs=0.06)


def test_the_interval_of_h2_holds_the_truth_and_noise_is_not_taken_for_sets():
    rng = np.random.default_rng(1)
    inside, noise = [], []
    for _ in range(20):
        cells, values = planted_cells(rng, 12, 1.0)
        row = pilot.components(cells, values)
        inside.append(row["h2_low"] <= 0.5 <= row["h2_high"])
        noise.append(pilot.components(*planted_cells(rng, 12, 0.0))["h2"])
    assert np.mean(inside) >= 0.7  # a bootstrap over twelve sets is a little narrow
    assert np.median(noise) < 0.05


def measures(cells, values, family="F0", ability="fluency"):
    return [
        Measure(run.run_id, ability, family, float(v), 0.5, float(v), float(v), 10)
        for run, v in zip(cells.runs, values, strict=True)
    ]


def test_the_recipe_that_finds_most_per_hour_is_chosen():
    rng = np.random.default_rng(2)
    loud, loud_values = planted_cells(rng, 30, 1.0, seed_sd=1.0)
    quiet, quiet_values = planted_cells(rng, 30, 1.0, seed_sd=0.3)
    slow = pilot.Cells([dataclasses.replace(r, seconds=20.0) for r in quiet.runs], quiet.variants)
    families = {"fluency": ["F0"]}
    one = pilot._per_hour(loud, measures(loud, loud_values), families)
    two = pilot._per_hour(quiet, measures(quiet, quiet_values), families)
    three = pilot._per_hour(slow, measures(slow, quiet_values), families)
    assert two["findings_per_hour"] > one["findings_per_hour"] > three["findings_per_hour"]
    assert two["findings_per_hour"] == pytest.approx(1800 * two["h2"], rel=0.01)


def test_a_ranking_that_hangs_on_the_learning_rate_is_seen():
    rng = np.random.default_rng(3)
    cells, values = planted_cells(rng, 12, 2.0, seed_sd=0.2)
    base = [i for i, v in enumerate(cells.variants) if v.arm == "base"]
    again = [dataclasses.replace(cells.runs[i], run_id=f"s{i}") for i in base]
    slow = pilot.Cells(again, [cells.variants[i] for i in base])
    families, usual = {"fluency": ["F0"]}, measures(cells, values)
    same = pilot._agreement(cells, slow, usual + measures(slow, values[base]), families)["fluency"]
    flipped = pilot._agreement(cells, slow, usual + measures(slow, -values[base]), families)["fluency"]
    assert same["agreement"] == 1.0
    assert flipped["agreement"] == -1.0
    assert same["ceiling"] > 0.9
    found = {"abilities": {}, "slow_lr": {"fluency": flipped}, "recipes": {}, "shares": None, "go": False,
             "counted": ["fluency"], "h2": 0.0}  # fmt: skip
    assert "the ranking hangs on it" in " ".join(pilot._words(settings(**{"sets.count": 400}), found))


def test_quiet_orders_and_gaps_give_their_blocks_to_books():
    own = settings(**{"sets.count": 400, "sets.shares.order": 0.3, "sets.shares.gaps": 0.3, "sets.shares.seeds": 0.0})
    shares = pilot._shares(own, [{"order_and_gaps_over_seed": 0.05}])
    assert shares["order"] + shares["gaps"] == pytest.approx(0.2)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert pilot._shares(own, [{"order_and_gaps_over_seed": 0.05}, {"order_and_gaps_over_seed": 0.5}]) is None


def test_no_go_is_said_when_nothing_tells_sets_apart():
    own = settings(**{"sets.count": 1000})
    found = {"go": False, "counted": ["fluency"], "h2": 0.01}
    assert pilot._verdict(own, found).startswith("no-go: fluency tells sets apart by 1% only")
    go = pilot._verdict(own, {"go": True, "counted": ["fluency"], "h2": 0.5, "n_books": 200})
    n_sets = next(s.n_sets for s in round_sizes.sizes(own) if s.name == "exploration")
    assert f"to {expected_accuracy(n_sets, 200, 0.5):.2f}" in go


def test_the_pilot_is_a_factorial_in_every_set_with_common_seeds():
    drawer = Drawer(settings(**{"sets.count": 1000, "sets.books_per_set": 6}).sets, blank_shelf(30), 1)
    variants = drawer.pilot(10)
    assert len(variants) == 40
    for s in range(10):
        cells = [v for v in variants if v.set_id == s]
        assert [v.arm for v in cells] == ["base", "order", "gap", "order+gap"]
        assert len({tuple(v.init_seeds) for v in cells}) == len({v.stream_seed for v in cells}) == 1
        assert cells[1].book_ids == cells[0].book_ids[::-1] == cells[3].book_ids
        assert (cells[2].gap_kind, cells[2].density) == (cells[3].gap_kind, cells[3].density) != ("none", 1.0)
    assert round_sizes.pilot_cells(drawer.section) == 4


@pytest.mark.parametrize(
    ("changes", "arms"),
    [
        ({"sets.shares.gaps": 0}, ["base", "order"]),
        ({"sets.shares.order": 0}, ["base", "gap"]),
        ({"sets.base_order": "shuffled", "sets.contrast_orders": ["random"]}, ["base", "order", "order+gap"]),
        ({"sets.contrast_orders": ["shuffled"]}, ["base", "order", "gap"]),
        ({"sets.shares.order": 0, "sets.shares.gaps": 0}, ["base"]),
    ],
)
def test_the_pilot_leaves_out_what_the_study_does_not_ask(changes, arms):
    own = settings(**{"sets.count": 1000, "sets.books_per_set": 6, **changes}).sets
    assert [v.arm for v in Drawer(own, blank_shelf(30), 1).pilot(1)] == arms
    assert round_sizes.pilot_cells(own) == len(arms)


def test_finalists_are_the_best_by_posterior_and_of_different_sets():
    by_id = {
        f"v{i}": Variant(f"v{i}", i, "exploration", i, i // 3, "order", "base", [], "random", "none", 1.0, 1, 1, [1])
        for i in range(12)
    }
    by_id["v1"] = dataclasses.replace(by_id["v1"], aside=True)
    ranked = [Ranked(i + 1, f"r{i}", f"v{i}", 12.0 - i, 0.0, 0.0, 99.0 - i, False, {}) for i in range(12)]
    chosen = [row.variant_id for row in rounds._finalists(ranked, by_id, 5)]
    assert chosen == ["v0", "v2", "v3", "v4", "v6"]  # v1 stands aside, v5 is the third of its set


def test_what_a_study_can_know_is_said_before_it_runs():
    own = settings(**{"sets.count": 1000, "sets.books_per_set": 100})
    values = knowing.knowable(own, 200)
    words = " ".join(knowing.in_words(values))
    assert values["n_sets"] == sum(s.n_sets for s in round_sizes.sizes(own)[:2]) + 72
    for part in ("sets for 200 books", "feature", "order", "gaps", "if h2 is 0.5", "for a book worth 0.3", "luck"):
        assert part in words
    large = knowing.knowable(own, 1_000_000)
    assert large["n_kinds"] == 256
    assert large["accuracy_by_kinds"]["0.5"] > 10 * large["accuracy_of_predicted_scores"]["0.5"]
    assert "single books cannot be told apart" in knowing.in_words(large)[0]


def test_an_assumed_h2_gives_way_to_the_piloted_one(tmp_path):
    from ltm.store import WorkFolder, write_json

    own = settings(**{"sets.count": 1000})
    work = WorkFolder(tmp_path)
    assert knowing.knowable(own, 100, work)["h2_from"] == "assumed"
    write_json(work.path("sets", "pilot", "learned.json"), {"h2": 0.37, "recipe": ""})
    write_json(work.path("sets", "exploration", "done.json"), {"inputs": "", "output": ""})
    values = knowing.knowable(own, 100, work)
    assert (values["h2_from"], values["h2"], list(values["by_h2"])) == ("the pilot", 0.37, ["0.37"])
    assert "h2 0.37 (the pilot)" in knowing.in_words(values)[1]
