"""What a worker does with a run: killed for real and taken up again, failed cleanly, the next ones not disturbed."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from ltm.books.catalogue import TextStore, book_id
from ltm.errors import TrainError
from ltm.model.section import ModelSection
from ltm.progress import Progress
from ltm.records import Book
from ltm.runs import checkpoint, hardware, queue, stage, worker
from ltm.runs.engine import Engine
from ltm.runs.section import RunsSection
from ltm.runs.train import Trainer
from ltm.runs.worker import train_run
from ltm.sets.section import SetsSection
from ltm.sets.stage import build as build_sets
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, read_json, write_rows
from ltm.tokens import stage as tokens
from ltm.tokens.section import TokensSection
from ltm.tokens.stream import open_stream, read_shards
from ltm.tokens.tokenizer import load

TITLES = ["Ruth", "Jonah", "Esther", "Nahum", "Joel", "Titus"]
MODEL = ModelSection(size="llama-0.1m", n_layer=1, n_embd=16, n_head=1, n_kv_head=1, n_hidden=32, block_size=32)
RUNS = {"batch_tokens": 64, "device": "cpu", "compile": False, "workers": 1, "checkpoint_seconds": 0.02}


def study(root, kjv_texts, count=3, **runs):
    """Lay out sets, tokens and the queue of a small study; returns its folder, recipe and jobs."""
    work = WorkFolder(root)
    books = []
    for rank, title in enumerate(TITLES):
        text = kjv_texts[title]
        book = book_id(text)
        TextStore(work).write(book, text)
        books.append(Book(book, title, "", None, "en", "", "", "", rank, "train", 1, len(text.encode()), [0], {}))
    write_rows(work.path("books", "catalogue.parquet"), books, Book)
    sets = SetsSection(
        count=count, books_per_set=4, book_tokens=3200, shares={"single": 1, "seeds": 0, "order": 0, "gaps": 0}
    )
    build_sets(sets, work, 1, Progress(quiet=True))
    tokens.build(TokensSection(vocab_size=300, sample_bytes=20_000), work, 1, Progress(quiet=True))
    recipe = queue.Recipe(sets, MODEL, RunsSection(**{**RUNS, **runs}))
    return work, recipe, queue.plan_jobs(work, recipe)


def final_weights(work, run_id):
    return load_file(work.path("runs", run_id, checkpoint.WEIGHTS))


def trainer_of(work, recipe, job):
    """The trainer that the worker would make for a job."""
    tokenizer = load(work)
    settings = hardware.engine_settings(recipe.runs, recipe.model.shape(tokenizer.vocab_size), recipe.sets.run_tokens)
    v = next(v for v in read_variants(work) if v.index == job.variant_index)
    stream = open_stream(work, v, recipe.sets, read_shards(work), tokenizer.bos_id, tokenizer.vocab_size)
    return Trainer(recipe.runs, Engine(settings), stream, recipe.n_steps(), job.init_seed)


def test_killed_without_warning_a_run_ends_with_the_bits_of_the_undisturbed_one(tmp_path, kjv_texts):
    changes = {"dtype": "float16", "micro_batch_tokens": 32, "optimizer": "muon", "average": "ema"}
    (calm, _, jobs), (rough, _, _) = (study(tmp_path / name, kjv_texts, **changes) for name in ("calm", "rough"))
    run_id = jobs[0].run_id
    train_run(str(calm.root), run_id, "1")
    code = "import sys; from ltm.runs.worker import train_run; train_run(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(rough.root), run_id, "1"]
    folder = rough.path("runs", run_id)
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.time() + 60
    while _stored_step(folder) < 50 and process.poll() is None and time.time() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "run.json").exists()
    assert queue.state_of(rough, run_id) == "lost"
    assert 50 <= _stored_step(folder) < 200
    train_run(str(rough.root), run_id, "1")
    one, two = final_weights(calm, run_id), final_weights(rough, run_id)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = [queue.read_run(work, run_id) for work in (calm, rough)]
    assert rows[0].curve_loss == rows[1].curve_loss
    assert rows[0].dtype == "float16"
    assert sorted(p.name for p in folder.iterdir()) == ["run.json", "weights.safetensors"]


def _stored_step(folder):
    try:
        return checkpoint.json.loads(checkpoint._read(folder / checkpoint.CHECKPOINT)[1]["run"])["state"]["step"]
    except Exception:  # not there yet
        return -1


def test_a_run_whose_loss_is_not_finite_fails_with_its_books_and_the_next_ones_go_on(tmp_path, kjv_texts):
    work, recipe, jobs = study(tmp_path, kjv_texts)
    lost, others = jobs[0], jobs[1:]
    trainer = trainer_of(work, recipe, lost)
    trainer.state.step = 100
    trainer.weights.master_N.fill_(float("nan"))
    checkpoint.save_checkpoint(work.path("runs", lost.run_id, checkpoint.CHECKPOINT), trainer)
    with stage.workers(recipe.runs) as pool:
        complete = stage.build(work, recipe, jobs, pool, Progress(quiet=True))
    assert complete == [job.run_id for job in others]
    failure = read_json(work.path("runs", lost.run_id, "failed.json"))
    assert "the loss is no longer finite at step 101 of 200" in failure["error"]
    assert "tokens 6400 to 6464" in failure["error"]
    assert failure["attempts"] == 1  # it would come out the same again
    read = trainer.stream.places(6400, 64)
    inside = [b for b, s in read_shards(work).items() if any(s.start <= place < s.start + s.n_tokens for place in read)]
    assert inside
    assert all(book in failure["error"] for book in inside)
    assert sum(book in failure["error"] for book in read_shards(work)) == len(inside)
    assert queue.state_of(work, lost.run_id) == "failed"
    # The same worker, alone and in a fresh folder, gives the runs after the failed one the same bits.
    train_again, _, _ = study(tmp_path / "again", kjv_texts)
    train_run(str(train_again.root), others[0].run_id, "1")
    one, two = (final_weights(w, others[0].run_id) for w in (work, train_again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_failing_run_says_so_in_one_message(tmp_path, kjv_texts):
    work, _, jobs = study(tmp_path, kjv_texts, lr=1e30, clip_norm=1e30, warmup_share=0.0)
    with pytest.raises(TrainError, match=r"finite at step \d+ of 200: .* of the stream, from the books [0-9a-f]"):
        train_run(str(work.root), jobs[0].run_id, "1")
    assert not work.path("runs", jobs[0].run_id, "weights.safetensors").exists()


def test_a_resumed_run_keeps_its_micro_batch_where_memory_has_become_scarcer(tmp_path, kjv_texts, monkeypatch):
    work, recipe, jobs = study(tmp_path, kjv_texts)
    monkeypatch.setattr(worker, "_fits", {})
    trainer = trainer_of(work, recipe, jobs[0])
    checkpoint.save_checkpoint(work.path("runs", jobs[0].run_id, checkpoint.CHECKPOINT), trainer)
    train_run(str(work.root), jobs[0].run_id, "1", micro_tokens=32)
    assert queue.read_run(work, jobs[0].run_id).micro_batch_tokens == 64
