"""Campaigns in rounds with a known truth: what was chosen by scores is used for choosing and never for p-values."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import binom, kstest

import ltm
from ltm.cli import main
from ltm.errors import InputError
from ltm.patterns.effects import estimate_effects
from ltm.patterns.simulate import Planted, simulate
from ltm.patterns.table import make_table, read_input
from ltm.patterns.truth import Truth
from ltm.progress import Progress
from ltm.records import Book, Variant
from ltm.sets.stage import verify
from ltm.store import WorkFolder, read_json, read_rows, write_rows
from ltm.study.campaign import play

QUIET = Progress(quiet=True)
SETTINGS = {
    "sets.count": 200, "sets.books_per_set": 15, "sets.base_order": "random", "sets.contrast_orders": ["reverse"],
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    work = WorkFolder(tmp_path_factory.mktemp("source"))
    books = simulate(Planted(40, 15, n_single=2), 3).books.values()
    write_rows(work.path("books", "catalogue.parquet"), list(books), Book)
    return work


def played(source, folder, truth, seed=1):
    settings = ltm.load("demo", {**SETTINGS, "seed": seed}).settings
    return play(settings, source, truth, seed, folder, QUIET)


def effects_of(folder, redraws=499):
    work = WorkFolder(folder)
    books = {b.book_id: b for b in read_rows(work.path("books", "catalogue.parquet"), Book)}
    return estimate_effects(make_table(read_input(work)), books, 0.1, redraws, 1)


def test_adaptive_sets_are_better_and_enter_no_p_value(source, tmp_path):
    good = {f"book{i:05d}": 1.0 for i in range(6)}
    found = played(source, tmp_path / "a", Truth(books=good))
    rounds = {row["round"]: row for row in found["rounds"]}
    assert list(rounds) == ["exploration", "adaptive", "confirmation"]
    assert rounds["adaptive"]["mean_truth_chosen"] > rounds["adaptive"]["mean_truth_at_random"] + 1.0
    assert rounds["confirmation"]["mean_truth_chosen"] > rounds["exploration"]["mean_truth_at_random"] + 1.0
    assert verify(WorkFolder(tmp_path / "a")) == ""
    variants = read_rows(tmp_path / "a" / "sets" / "variants.parquet", Variant)
    effects = {e.name: e for e in effects_of(tmp_path / "a").effects if e.kind == "book"}
    drawn = {v.set_id for v in variants if v.drawn and v.round != "confirmation"}
    assert {e.n for e in effects.values()} == {len(drawn)}
    assert sum(effects[b].claimed for b in good) >= 3
    with open(tmp_path / "a" / "scores.csv", encoding="utf-8") as stream:
        ids = {row["run_id"].split("/")[0] for row in csv.DictReader(stream)}
    assert ids == {v.variant_id for v in variants if v.round != "confirmation"}


def test_the_same_seed_plays_the_same_campaign(source, tmp_path):
    for name in ("a", "b"):
        played(source, tmp_path / name, Truth(books={"book00001": 0.5}, features={"feature_2": 0.4}))
    for file in ("scores.csv", "confirmed.csv", "truth.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    truth = read_json(tmp_path / "a" / "truth.json")
    assert {e["name"] for e in truth["effects"] if e["kind"] == "book"} >= {"book00001", "book00002"}


def test_what_cannot_be_played_is_said(source, tmp_path):
    with pytest.raises(InputError, match="places"):
        played(source, tmp_path / "a", Truth(places={"late:feature_1": 1.0}))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        played(source, tmp_path / "full", Truth())


def test_the_verb_plays_rounds_and_patterns_reads_what_it_wrote(tmp_path, capsys):
    sets = [f"--set={key}={json.dumps(value)}" for key, value in {**SETTINGS, "sets.count": 120}.items()]
    work, out = str(tmp_path / "w"), str(tmp_path / "played")
    assert main(["simulate", "demo", "--work", work, *sets, "--rounds", "--out", out, "--books", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["patterns", "demo", "--work", found["work"], "--scores", found["scores"], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"effects", "variants", "top", "omnibus"} <= set(told)
    assert told["dropped"] == {}


@pytest.mark.slow
def test_campaigns_where_nothing_is_real_claim_as_seldom_as_they_say(source, tmp_path):
    claims, p = 0, []
    for seed in range(60):
        played(source, tmp_path / str(seed), Truth(set_sd=0.5), seed)
        effects = effects_of(tmp_path / str(seed), 199).effects
        claims += any(e.claimed for e in effects)
        p.append(float(np.random.default_rng(seed).choice([e.p for e in effects if e.kind == "book"])))
    assert claims <= binom.ppf(0.99, 60, 0.12)
    assert kstest(p, "uniform").pvalue > 0.01
