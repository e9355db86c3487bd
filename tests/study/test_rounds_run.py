"""A study in rounds on real books: what is drawn when, what stays sealed, and what a kill leaves."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

import ltm
from ltm.errors import StoreError
from ltm.progress import Progress
from ltm.records import Measure, Variant
from ltm.runs import queue
from ltm.sets.stage import read_variants, verify
from ltm.store import read_json, read_rows, write_rows

SMALL = {
    "rounds.enabled": True, "rounds.shares.pilot": 0.4, "rounds.shares.exploration": 0.34,
    "rounds.shares.adaptive": 0.13, "rounds.shares.confirmation": 0.13, "sets.count": 62, "sets.books_per_set": 8,
    "sets.book_tokens": 1024, "sets.base_order": "random", "sets.contrast_orders": ["reverse"],
    "sets.passage_tokens": 64, "sets.shares.single": 0.5, "sets.shares.seeds": 0.1, "sets.shares.order": 0.4,
    "sets.shares.gaps": 0, "tokens.vocab_size": 400, "tokens.sample_bytes": 200_000, "model.size": "llama-0.1m",
    "model.n_embd": 32, "model.block_size": 128, "runs.batch_tokens": 256, "runs.workers": 2,
    "runs.checkpoint_seconds": 0.3, "evalset.families": ["F0", "L1"], "evalset.items_per_family": 12,
    "evalset.context_words": 40, "patterns.redraws": 199, "rounds.finalist_seeds": 2, "rounds.control_seeds": 1,
}  # fmt: skip
NAMES = ["pilot", "exploration", "adaptive", "confirmation"]
opened: list[str] = []
_listening = [False]


def _listen(event, arguments):
    if _listening[0] and event == "open" and str(arguments[0]).endswith("bank_b.parquet"):
        opened.append(str(arguments[0]))


sys.addaudithook(_listen)  # of this process; it cannot be taken off again, so it looks away when nobody listens


class Telling(Progress):
    """Keeps what was said, and calls back at every line."""

    def __init__(self, at_line=lambda text: None):
        super().__init__(quiet=True)
        self.lines, self.at_line = [], at_line

    def say(self, text):
        self.lines.append(text)
        self.at_line(text)


def load(work, **changes):
    return ltm.load("demo", {**SMALL, **changes}, work=str(work))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole study; whether anybody looked at bank B is noted at the moment when the confirmation is drawn."""
    work = tmp_path_factory.mktemp("rounds")
    seen = {}

    def at_line(text):
        if text.startswith("evalset   bank b"):
            opened.clear()
        if "confirmation:" in text:
            seen["opened"], seen["answers"] = list(opened), (work / "scores" / "bank_b").exists()
        if text.startswith("round     adaptive"):
            seen["status"] = load(work).status()

    study = load(work)
    progress = Telling(at_line)
    _listening[0] = True
    try:
        assert study.run(progress=progress)["failed_runs"] == {}
    finally:
        _listening[0] = False
    return study, progress.lines, seen


def test_the_rounds_come_one_after_another_and_use_every_run(finished):
    study, lines, seen = finished
    status = study.status()
    assert [(r["round"], r["state"]) for r in status["rounds"]] == [(name, "complete") for name in NAMES]
    assert sum(r["runs"] for r in status["rounds"]) == len(study.jobs()) == 62 == status["runs"]["complete"]
    assert set(status["stages"].values()) == {"complete"}
    said = [line.split()[1] for line in lines if line.startswith("round") and line.split()[1][:-1] in NAMES]
    assert [word.strip(":") for word in said] == NAMES
    early = {r["round"]: r["state"] for r in seen["status"]["rounds"]}
    assert early == {"pilot": "complete", "exploration": "complete", "adaptive": "to come", "confirmation": "to come"}
    assert seen["status"]["stages"]["runs"] == "waiting"  # those of later rounds are still to come
    assert seen["status"]["eta_seconds"] > 0
    assert any(line.startswith("pilot") and ("go:" in line) for line in lines)


def test_the_design_grows_and_is_whole(finished):
    study, _, _ = finished
    variants = read_variants(study.work)
    assert [v.index for v in variants] == list(range(len(variants)))
    assert len({v.variant_id for v in variants}) == len(variants)
    assert verify(study.work) == ""
    assert list(dict.fromkeys(v.round for v in variants)) == NAMES
    blocks = {}
    for v in variants:
        blocks.setdefault(v.block, set()).add(v.round)
    assert all(len(names) == 1 for names in blocks.values())
    about = read_json(study.work.path("sets", "design.json"))["rounds"]
    assert [row["round"] for row in about] == NAMES


def test_adaptive_sets_are_chosen_by_scores_but_for_a_random_share(finished):
    study, _, _ = finished
    adaptive = [v for v in read_variants(study.work) if v.round == "adaptive"]
    drawn = [v for v in adaptive if v.drawn]
    assert len(adaptive) == 8
    assert len(drawn) == 3
    assert {v.template for v in drawn} == {"random"}
    assert {v.template for v in adaptive if not v.drawn} == {"proposed"}
    proposed = [frozenset(v.book_ids) for v in adaptive if not v.drawn]
    assert len(set(proposed)) == len(proposed)
    assert all(len(books) == 8 for books in proposed)


def test_the_pilot_tries_a_quarter_of_the_learning_rate_apart_from_everything_else(finished):
    study, _, _ = finished
    slow = {v.variant_id: v for v in read_variants(study.work) if v.recipe == "lr/4"}
    assert slow
    assert all(v.aside and v.round == "pilot" for v in slow.values())
    recipes = queue.read_recipes(study.work)
    assert recipes["lr/4"].runs.lr == study.settings.runs.lr / 4
    runs = {job.run_id: job.variant_id for job in study.jobs()}
    ordinary = {r.run_id for r in read_rows(study.work.path("scores", "measures.parquet"), Measure)}
    aside = {r.run_id for r in read_rows(study.work.path("scores", "aside.parquet"), Measure)}
    assert {runs[r] for r in aside} == set(slow)
    assert not ordinary & aside
    learned = read_json(study.work.path("sets", "pilot", "learned.json"))
    assert {"abilities", "slow_lr", "recipes", "recipe", "go", "words", "h2"} <= set(learned)
    assert 0 <= learned["h2"] <= 1


def test_bank_b_stays_sealed_until_the_confirmation(finished):
    study, _, seen = finished
    assert seen["opened"] == []
    assert not seen["answers"]
    variants = {v.variant_id: v for v in read_variants(study.work)}
    last = {j.run_id for j in study.jobs() if variants[j.variant_id].round == "confirmation"}
    on_b = {path.stem for path in study.work.path("scores", "bank_b").glob("*.parquet")}
    on_a = {path.stem for path in study.work.path("scores").glob("*.parquet")}
    assert {r for r in on_b if not r.startswith("untrained")} == last
    assert not on_a & last
    confirmed = {r.run_id for r in read_rows(study.work.path("scores", "confirmed.parquet"), Measure)}
    assert confirmed == last


def test_finalists_have_fresh_seeds_and_excerpts_and_controls_are_random(finished):
    study, _, _ = finished
    variants = read_variants(study.work)
    last = [v for v in variants if v.round == "confirmation"]
    before = [v for v in variants if v.round != "confirmation"]
    assert not {s for v in last for s in v.init_seeds} & {s for v in before for s in v.init_seeds}
    assert not {v.stream_seed for v in last} & {v.stream_seed for v in before}
    finalists = [v for v in last if v.template == "finalist"]
    about = read_json(study.work.path("sets", "confirmation", "round.json"))["finalists"]
    by_id = {v.variant_id: v for v in before}
    for fresh, entry in zip(finalists, about, strict=True):
        old = by_id[entry["of"]]
        assert (fresh.book_ids, fresh.order, fresh.gap_kind) == (old.book_ids, old.order, old.gap_kind)
        assert not fresh.drawn
        assert len(fresh.init_seeds) == 2
    posterior = [entry["posterior"] for entry in about]
    assert posterior == sorted(posterior, reverse=True)
    assert all(v.drawn for v in last if v.template == "control")


def test_nothing_to_do_is_nothing_done(finished):
    study, _, _ = finished
    assert study.run(progress=Progress(quiet=True))["built"] == []


def test_an_edited_round_is_noticed(finished, tmp_path):
    import shutil

    study, _, _ = finished
    shutil.copytree(study.work.root, tmp_path / "w")
    again = load(tmp_path / "w")
    path = again.work.path("sets", "variants.parquet")
    rows = read_rows(path, Variant)
    write_rows(path, [*rows[:-1], ltm.records.dataclasses.replace(rows[-1], drawn=False)], Variant)
    with pytest.raises(StoreError, match="changed after it was drawn"):
        again.run(progress=Progress(quiet=True))


def test_until_a_stage_stops_there_in_the_round_that_is_under_way(tmp_path):
    work = tmp_path / "w"
    load(work).run(until="sets", progress=Progress(quiet=True))
    assert {v.round for v in read_variants(load(work).work)} == {"pilot"}
    assert not (work / "runs" / "jobs.json").exists()
    for _ in range(2):
        load(work).run(until="runs", progress=Progress(quiet=True))
        study = load(work)
        assert {v.round for v in read_variants(study.work)} == {"pilot"}
        assert study.status()["runs"]["complete"] == len(study.jobs()) == 24
        assert study.status()["stages"]["runs"] == "waiting"


def test_the_study_goes_on_with_the_recipe_that_the_pilot_chose(tmp_path, monkeypatch):
    """The pilot is made to choose; which recipe is really the best is a matter of the machine."""
    from ltm.study import pilot

    learn = pilot.learn
    monkeypatch.setattr(pilot, "learn", lambda *arguments: {**learn(*arguments), "recipe": "recipe 1"})
    shares = {"pilot": 0.6, "exploration": 0.4, "adaptive": 0, "confirmation": 0}
    changes = {
        **{f"rounds.shares.{name}": share for name, share in shares.items()},
        "sets.count": 40, "rounds.pilot.slow_lr": False,
        "rounds.pilot.recipes": [{"runs.lr": 0.002, "sets.base_order": "shuffled", "sets.book_tokens": 512}],
    }  # fmt: skip
    study = load(tmp_path, **changes)
    study.run(until="scores", progress=Progress(quiet=True))
    variants = {v.variant_id: v for v in read_variants(study.work)}
    explored = [v for v in variants.values() if v.round == "exploration"]
    assert {(v.recipe, v.aside) for v in explored} == {("recipe 1", False)}
    assert {v.aside for v in variants.values() if v.round == "pilot" and not v.recipe} == {True}
    assert {v.aside for v in variants.values() if v.round == "pilot" and v.recipe} == {False}
    recipe, jobs = queue.read_jobs(study.work)
    assert (recipe.runs.lr, recipe.sets.book_tokens) == (0.002, 512)
    tokens = {job.run_id: queue.read_run(study.work, job.run_id).n_tokens for job in jobs}
    for job in jobs:
        assert tokens[job.run_id] == (4096 if variants[job.variant_id].recipe else 8192)
    measured = {r.run_id for r in read_rows(study.work.path("scores", "measures.parquet"), Measure)}
    assert measured == {job.run_id for job in jobs if not variants[job.variant_id].aside}
    assert load(tmp_path, **changes).run(until="scores", progress=Progress(quiet=True))["built"] == []


@pytest.mark.slow
def test_killed_at_random_moments_it_draws_the_same_rounds_and_finds_the_same(finished, tmp_path):
    """kill -9 of the whole process tree, again and again, in every round; the findings must be the same bytes."""
    study, _, _ = finished
    command = [sys.executable, "-m", "ltm.cli", "run", "demo", "--quiet", "--work", str(tmp_path)]
    command += [part for k, v in SMALL.items() for part in ("--set", f"{k}={v}")]
    moments, kills, code = random.Random(7), 0, None
    while code is None:
        with open(tmp_path / "log", "wb") as stderr:
            process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=stderr)
            deadline = time.time() + 240
            while not (tmp_path / "forecast.json").exists() and process.poll() is None and time.time() < deadline:
                time.sleep(0.05)
            try:
                code = process.wait(timeout=moments.uniform(3, 14) if kills < 12 else 900)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
    assert code == 0, (tmp_path / "log").read_text()
    assert kills >= 4
    names = ["sets/variants.parquet", "sets/design.json", "scores/measures.parquet", "scores/confirmed.parquet"]
    for name in [*names, "patterns/effects.parquet", "patterns/findings.json"]:
        assert (tmp_path / name).read_bytes() == study.work.path(*name.split("/")).read_bytes(), name
