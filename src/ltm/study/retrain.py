"""Train runs of a study again and hold them against what is recorded: the same bits, or how far apart."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ltm.errors import InputError
from ltm.progress import Progress
from ltm.records import Run
from ltm.runs import queue
from ltm.store import WorkFolder

if TYPE_CHECKING:
    from ltm.study.verify import Check

TOLERANCE_NATS = 0.02  # of the loss at the end: another processor rounds differently, another recipe is farther off


def retrain(work: WorkFolder, tokens: WorkFolder, count: int, progress: Progress) -> Check:
    """Train some finished runs of a study again.

    Args:
        work: What is recorded.
        tokens: Where the tokens lie.
        count: How many runs; they are spread over the queue.
        progress: Told what happens.

    Raises:
        InputError: no run is finished, or there are no tokens here.
    """
    from ltm.study.verify import OK, WRONG, Check

    done = sorted(run.run_id for run in queue.complete_runs(work))
    if not done:
        raise InputError("no run is finished that could be trained again", "run the study first")
    if not tokens.path("tokens", "tokens.bin").exists():
        raise InputError(f"{tokens.root} has no tokens to train on", "build them: ltm tokens STUDY")
    chosen = done[:: max(1, len(done) // min(count, len(done)))][:count]
    with tempfile.TemporaryDirectory(prefix="ltm-verify-") as folder:
        scratch = WorkFolder(Path(folder))
        _lay_out(work, tokens, scratch)
        lines, good, same_bits = [], True, 0
        for run_id, error in _train(work, scratch, chosen, progress):
            before, after = queue.read_run(work, run_id), queue.read_run(scratch, run_id)
            if before is None or after is None:
                lines.append(f"{run_id}: {error or 'it was not finished'}")
                good = False
                continue
            words, fine, same = _compared(before, after)
            same_bits += same
            good = good and fine
            lines.append(f"{run_id}: {words}")
    words = f"{len(chosen)} runs, {same_bits} with the same bits"
    return Check("trained again", OK if good else WRONG, words, lines)


def _lay_out(work: WorkFolder, tokens: WorkFolder, scratch: WorkFolder) -> None:
    """Copy what training reads; tokens are linked, where they may be large."""
    scratch.create()
    for source, parts in ((work, ("runs", "jobs.json")), (work, ("sets", "variants.parquet"))):
        scratch.path(*parts).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path(*parts), scratch.path(*parts))
    scratch.path("tokens").mkdir()
    for path in tokens.path("tokens").iterdir():
        if path.is_file():
            try:
                scratch.path("tokens", path.name).hardlink_to(path)
            except OSError:  # another file system
                shutil.copyfile(path, scratch.path("tokens", path.name))


def _train(work: WorkFolder, scratch: WorkFolder, chosen: list[str], progress: Progress) -> list[tuple[str, str]]:
    from ltm.runs.executors.local import Job, LocalExecutor
    from ltm.runs.worker import train_run

    task = progress.task("verify", len(chosen), "runs trained again")
    found: list[tuple[str, str]] = []
    jobs = []
    for run_id in chosen:
        run = queue.read_run(work, run_id)
        micro = 0 if run is None else run.micro_batch_tokens
        jobs.append(Job(run_id, (str(scratch.root), run_id, "verify", micro)))
    with LocalExecutor(1) as pool:
        for outcome in pool.map(train_run, jobs):
            found.append((outcome.key, outcome.error))
            task.advance()
    return found


def _compared(before: Run, after: Run) -> tuple[str, bool, bool]:
    """Return the comparison in words, whether it is good enough, and whether all bits are the same."""
    if before.weights_sha256 and before.weights_sha256 == after.weights_sha256:
        return f"the same bits, loss {after.final_loss:.4f}", True, True
    apart = abs(after.final_loss - before.final_loss)
    where = "" if before.hardware.get("cpu") == after.hardware.get("cpu") else "; it was trained on another processor"
    why = "other bits" if before.weights_sha256 else "its bits were not recorded"
    words = f"{why}{where}, loss {before.final_loss:.4f} -> {after.final_loss:.4f}"
    fine = apart <= TOLERANCE_NATS
    return f"{words} ({'within' if fine else 'beyond'} {TOLERANCE_NATS} nats)", fine, False
