"""A study on the embedded library that is trained in no time: real books, sets and tokens, and rows of runs made up."""

import dataclasses

import ltm
from ltm.progress import Progress
from ltm.records import Run
from ltm.runs import queue
from ltm.store import as_json, fingerprint, write_json
from ltm.study.rounds import Rounds, recipe_of
from ltm.tokens.tokenizer import identity

SETTINGS = {
    "sets.count": 8, "sets.books_per_set": 5, "sets.book_tokens": 1024, "sets.passage_tokens": 64,
    "tokens.vocab_size": 400, "tokens.sample_bytes": 100_000, "model.size": "llama-0.1m", "model.n_embd": 32,
    "model.block_size": 64, "runs.batch_tokens": 256, "runs.workers": 1, "evalset.items_per_family": 8,
    "evalset.context_words": 40,
}  # fmt: skip


def load(work, **changes):
    """Return the study, bound to a work folder."""
    return ltm.load("demo", {**SETTINGS, **changes}, work=str(work))


def finished(work, n_complete=None, **changes):
    """Return a study whose books, sets and tokens stand, and whose first runs have made-up rows."""
    study = load(work, **changes)
    study.run(until="tokens", progress=Progress(quiet=True))
    jobs = lay_out(study)
    for job in jobs[:n_complete]:
        write_run(study, job)
    return study


def lay_out(study):
    """Lay out the queue as a study does, in rounds or not."""
    rounds = Rounds(study.settings, study.work)
    return queue.plan_jobs(study.work, recipe_of(rounds.effective()), rounds.recipes())


def write_run(study, job, **changes):
    """Write the row of a run as a worker would."""
    row = Run(
        job.run_id, job.variant_id, job.init_seed, "llama-0.1m", 45_000, 5_120, 20, 12.5, 400.0, 0.1, "cpu",
        "float32", 4.0 + int(job.run_id[:2], 16) / 1000, [2_560, 5_120], [5.5, 4.2], "there:1",
        "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:13+00:00", {"ltm": "0.1.0", "torch": "2.13.0"},
        recipe=fingerprint(queue.made_from(study.recipe, identity(study.work))), cuts=job.cuts,
        hardware={"cpu": "a processor"}, weights_sha256=fingerprint(job.run_id, 64),
    )  # fmt: skip
    row = dataclasses.replace(row, **changes)
    write_json(study.work.path("runs", job.run_id, "run.json"), as_json(row))
    return row
