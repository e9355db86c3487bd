"""Moments of a run: training is the same with and without, answers are those of the weights, nothing is asked twice."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from ltm.books.catalogue import TextStore, book_id
from ltm.model.section import ModelSection
from ltm.progress import Progress
from ltm.records import Book, Item, Snapshot
from ltm.runs import checkpoint, moments, queue, worker
from ltm.runs.section import RunsSection
from ltm.scores import snapshots
from ltm.scores.score import score_items
from ltm.scores.section import ScoresSection
from ltm.sets.section import SetsSection
from ltm.sets.stage import build as build_sets
from ltm.store import WorkFolder, read_rows, write_rows
from ltm.tokens import stage as tokens
from ltm.tokens import tokenizer
from ltm.tokens.section import TokensSection

MODEL = ModelSection(size="llama-0.1m", n_layer=1, n_embd=16, n_head=1, n_kv_head=1, n_hidden=32, block_size=32)


def study(root, kjv_texts):
    work = WorkFolder(root)
    books = []
    for rank, title in enumerate(["Ruth", "Jonah", "Esther"]):
        text = kjv_texts[title]
        TextStore(work).write(book_id(text), text)
        books.append(Book(book_id(text), title, "", None, "en", "", "", "", rank, "train", 1, len(text), [0], {}))
    write_rows(work.path("books", "catalogue.parquet"), books, Book)
    sets = SetsSection(
        count=1, books_per_set=2, book_tokens=1600, shares={"single": 1, "seeds": 0, "order": 0, "gaps": 0}
    )
    build_sets(sets, work, 1, Progress(quiet=True))
    tokens.build(TokensSection(vocab_size=300, sample_bytes=20_000), work, 1, Progress(quiet=True))
    items = [Item(f"P-{k}", "a", "linking", "P", "en", f"b{k}", "pair", ["And he"] * 2, [" said", " went"], k % 2,
                  tier="fast" if k < 4 else "full") for k in range(6)]  # fmt: skip
    write_rows(work.path("evalset", "bank_a.parquet"), items, Item)
    section = RunsSection(batch_tokens=64, device="cpu", compile=False, workers=1, checkpoint_seconds=0.01)
    recipe = queue.Recipe(sets, MODEL, section)
    return work, recipe, queue.plan_jobs(work, recipe)[0].run_id, items


def forget():
    for kept in (worker._queue, worker._tokens):
        kept.cache_clear()
    snapshots._ready.clear()


@pytest.fixture
def pair(tmp_path, kjv_texts):
    plain = study(tmp_path / "plain", kjv_texts)
    watched = study(tmp_path / "watched", kjv_texts)
    return plain, watched


def test_training_is_the_same_and_answers_are_those_of_the_weights(pair):
    (plain, _, run_id, _), (work, recipe, _, items) = pair
    planned = snapshots.plan_moments(work, ScoresSection(snapshots=4), recipe.sets.run_tokens, 64)
    assert planned[-1] == 3200
    assert len(planned) == 4
    for folder in (plain, work):
        forget()
        worker.train_run(str(folder.root), run_id, "v1")
    one, two = (load_file(w.path("runs", run_id, checkpoint.WEIGHTS)) for w in (plain, work))
    assert all((one[name] == two[name]).all() for name in one)
    assert not plain.path("runs", run_id, moments.FOLDER).exists()
    files = sorted(work.path("runs", run_id, moments.FOLDER).glob("*.parquet"), key=lambda f: int(f.stem))
    assert [int(f.stem) for f in files] == planned
    made = tokenizer.load(work)
    model, block = checkpoint.load_model(work, run_id, "cpu")
    rows = score_items(model, made.encode, made.bos_id, items[:4], block)
    stored = pq.ParquetFile(files[-1]).read(["logprob"])["logprob"].to_numpy()
    assert stored == pytest.approx([r[2] for r in rows], abs=1e-12)
    assert snapshots.collect(work, items, [run_id]) == 4
    table = read_rows(work.path("scores", "snapshots.parquet"), Snapshot)
    assert [(row.tokens, row.family) for row in table] == [(t, "P") for t in planned]
    assert np.isfinite([row.value for row in table]).all()


def test_answers_that_stand_are_not_made_again_and_others_are_left_out(pair):
    _, (work, recipe, run_id, _) = pair
    snapshots.plan_moments(work, ScoresSection(snapshots=2, snapshot_spacing="linear"), recipe.sets.run_tokens, 64)
    forget()
    worker.train_run(str(work.root), run_id, "v1")
    files = list(work.path("runs", run_id, moments.FOLDER).glob("*.parquet"))
    stamps = {f.name: f.stat().st_mtime_ns for f in files}
    work.path("runs", run_id, "run.json").unlink()
    forget()
    worker.train_run(str(work.root), run_id, "v2")  # as after a crash right before the end
    assert {f.name: f.stat().st_mtime_ns for f in files} == stamps
    changed = [Item(f"Q-{k}", "a", "linking", "P", "en", "b", "pair", [""] * 2, [" x", " y"], 0) for k in range(3)]
    assert snapshots.collect(work, changed, [run_id]) == 0  # scores of another bank say nothing about this one
    assert not work.path("scores", "snapshots.parquet").exists()


def test_moments_are_spaced_as_asked_and_turned_off(tmp_path):
    work = WorkFolder(tmp_path)
    linear = snapshots.plan_moments(work, ScoresSection(snapshots=4, snapshot_spacing="linear"), 6400, 64)
    assert linear == [1600, 3200, 4800, 6400]
    log = snapshots.plan_moments(work, ScoresSection(snapshots=4), 6400, 64)
    assert log[-1] == 6400
    ratios = np.diff(np.log(log))
    assert ratios == pytest.approx(ratios.mean(), rel=0.3)
    assert len(snapshots.plan_moments(work, ScoresSection(snapshots=64), 640, 64)) <= 10
    assert snapshots.plan_moments(work, ScoresSection(), 6400, 64) == []
    assert not work.path("runs", moments.FILE).exists()


def test_a_work_folder_names_only_functions_of_ltm(tmp_path):
    from types import SimpleNamespace

    from ltm.store import write_json

    work = WorkFolder(tmp_path)
    write_json(work.path("runs", moments.FILE), {"tokens": [64], "call": "os:abort"})
    trainer = SimpleNamespace(state=SimpleNamespace(step=1), section=SimpleNamespace(batch_tokens=64))
    moments.Moments(work, "r").look(trainer)  # would end the process


def test_fast_items_without_a_tier_are_a_fixed_sample():
    items = [Item(f"i{k}", "a", "linking", "P", "en", "b", "pair", [""] * 2, [" x", " y"], 0) for k in range(700)]
    fast = snapshots.fast_items(items)
    assert len(fast) == snapshots.FAST_ITEMS
    assert fast == snapshots.fast_items(items)
    assert [i.item_id for i in fast] == [i.item_id for i in items if i in fast]
