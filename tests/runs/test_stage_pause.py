"""A real queue of runs, paused and resumed from outside, and run again over files that were damaged meanwhile."""

import threading
import time

from test_worker import final_weights, study

from ltm.progress import Progress
from ltm.runs import index, queue, stage
from ltm.runs.pause import go_on, is_paused, pause
from ltm.store import read_json


def test_a_pause_ends_the_workers_and_costs_no_bit(tmp_path, kjv_texts):
    changes = {"checkpoint_seconds": 0.05, "count": 9}  # some still wait when the pause comes
    (calm, recipe, jobs), (work, _, _) = (study(tmp_path / name, kjv_texts, **changes) for name in ("calm", "paused"))
    with stage.workers(recipe.runs, calm) as pool:
        stage.build(calm, recipe, jobs, pool, Progress(quiet=True))
    seen = []

    def disturb(pool):
        wait_for(lambda: list(work.root.glob("runs/*/checkpoint.safetensors")))
        pause(work)
        wait_for(lambda: not pool.pids())
        seen.extend(queue.states(work, [job.run_id for job in jobs]).values())
        assert is_paused(work)
        assert go_on(work)

    with stage.workers(recipe.runs, work) as pool:
        thread = threading.Thread(target=disturb, args=(pool,))
        thread.start()
        complete = stage.build(work, recipe, jobs, pool, Progress(quiet=True))
        thread.join()
    assert complete == [job.run_id for job in jobs]
    assert "running" not in seen
    assert {"stopped", "waiting"} & set(seen)
    for job in jobs:
        one, two = final_weights(calm, job.run_id), final_weights(work, job.run_id)
        assert all((one[name] == two[name]).all() for name in one)


def test_rows_and_checkpoints_that_were_damaged_are_made_again(tmp_path, kjv_texts):
    work, recipe, jobs = study(tmp_path, kjv_texts)
    with stage.workers(recipe.runs, work) as pool:
        stage.build(work, recipe, jobs, pool, Progress(quiet=True))
        before = {job.run_id: read_json(work.path("runs", job.run_id, "run.json"))["final_loss"] for job in jobs}
        row = work.path("runs", jobs[0].run_id, "run.json")
        row.write_bytes(row.read_bytes()[:-30])
        (row.parent / ".checkpoint.safetensors.1-ab.tmp").write_bytes(b"begun and killed")
        (row.parent / "checkpoint.safetensors").write_bytes(b"nothing")
        assert queue.missing(work, jobs) == [jobs[0].run_id]
        stage.build(work, recipe, jobs, pool, Progress(quiet=True))
    assert {run_id: run.final_loss for run_id, run in index.complete(work, before).items()} == before
    assert sorted(path.name for path in row.parent.iterdir()) == ["run.json", "weights.safetensors"]


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()
