"""Give the best models their dialogue layer, and ask them again what it gained or cost.

Reads: `patterns/ranking.parquet` (Ranked), weights, `evalset/bank_*.parquet`, conversations. Writes:
`dialogue/<run_id>/` with the tuned weights, `tuned.json` (Tuned) last; `dialogue/tuned.parquet` (Tuned),
`dialogue/gains.parquet` (Gain).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.dialogue import conversations
from ltm.dialogue.section import DialogueSection
from ltm.errors import StoreError
from ltm.progress import Progress
from ltm.records import Gain, Ranked, Tuned
from ltm.store import WorkFolder, as_json, fingerprint, read_json, read_rows, write_json, write_rows

if TYPE_CHECKING:
    from ltm.runs.executors.base import Executor

VERSION = 2
_ROW, _WEIGHTS = "tuned.json", "weights.safetensors"


def inputs(section: DialogueSection) -> Any:
    """Return what the user's file of conversations holds."""
    return None if section.path is None else fingerprint(Path(section.path).read_bytes().decode("utf-8", "replace"))


def build(
    section: DialogueSection, work: WorkFolder, seed: int, workers: Callable[[], Executor], progress: Progress
) -> Any:
    """Tune the head of the ranking on warm workers; `workers` starts them if they are needed.

    Raises:
        ConfigError: the user's file is malformed.
        StoreError: a model cannot be tuned.
    """
    from ltm.runs.executors.base import Job

    best = read_rows(work.path("patterns", "ranking.parquet"), Ranked)[: section.top]
    n_train, n_held = conversations.gather(section, work, progress) if best else (0, 0)
    if n_train < section.batch_conversations:
        if best:
            progress.say(f"dialogue  {n_train} conversations in the books: too few, nothing is tuned")
        return _write(work, [], [])
    mark = _mark(section, work, seed)
    todo = [row for row in best if _read(work, row.run_id, mark) is None]
    task = progress.task("dialogue", len(best), "models")
    task.done = task.skipped = len(best) - len(todo)
    jobs = [Job(r.run_id, (str(work.root), r.run_id, r.place, section.model_dump(), seed, mark)) for r in todo]
    for outcome in workers().map(tune_run, jobs) if jobs else ():
        if not outcome.ok:
            raise StoreError(f"run {outcome.key} cannot be tuned: {outcome.error}", outcome.trace)
        task.advance()
    from ltm.dialogue.gains import gains_of  # PyTorch comes with it

    tuned = [row for row in (_read(work, r.run_id, mark) for r in best) if row is not None]
    gains = [gain for row in tuned for gain in gains_of(work, row.run_id)]
    better = sum(row.held_out_after < row.held_out_before for row in tuned)
    progress.say(
        f"dialogue  {len(tuned)} models tuned on {n_train} conversations, {n_held} held out; {better} answer better"
    )
    return _write(work, tuned, gains)


def tune_run(root: str, run_id: str, place: int, values: dict[str, Any], seed: int, mark: str) -> dict[str, float]:
    """Tune one model, score it again and keep it; runs inside a worker process.

    Raises:
        StoreError: weights or conversations are missing.
        TrainError: the loss is no longer finite.
    """
    from ltm.dialogue import tune
    from ltm.dialogue.gains import ask_again
    from ltm.dialogue.template import template_of
    from ltm.tokens.tokenizer import load

    work, section = WorkFolder(Path(root)), DialogueSection(**values)
    began = time.monotonic()
    tokenizer, template = load(work), template_of(work)
    model, keep = _open(work, run_id)
    block_size = model.config.block_size
    train, held = (
        tune.encode(conversations.read_stored(work, name), template, tokenizer, block_size)
        for name in (conversations.TRAIN, conversations.HELD_OUT)
    )
    before = tune.bits_per_byte(model, held)
    n_steps, loss = tune.tune(model, train, section, seed)
    folder = work.path("dialogue", run_id)
    folder.mkdir(parents=True, exist_ok=True)
    keep(model, folder)
    after = tune.bits_per_byte(model, held)
    ask_again(work, run_id, model)
    row = Tuned(
        run_id, place, section.method, len(train), len(held), n_steps, loss, before, after, time.monotonic() - began
    )
    write_json(folder / _ROW, as_json(row) | {"mark": mark})
    return {"seconds": row.seconds}


def tuned_weights(work: WorkFolder, run_id: str) -> Path | None:
    """Return the folder of a run's tuned model, or None where it has none."""
    folder = work.path("dialogue", run_id)
    return folder if (folder / _ROW).exists() else None


def report(work: WorkFolder) -> dict[str, Any]:
    """Return what the dialogue layer gained or cost, for `--json`.

    Raises:
        StoreError: the stage has not been run.
    """
    tuned = read_rows(work.path("dialogue", "tuned.parquet"), Tuned)
    gains = read_rows(work.path("dialogue", "gains.parquet"), Gain)
    return {"tuned": [as_json(row) for row in tuned], "gains": [as_json(row) for row in gains]}


def _open(work: WorkFolder, run_id: str) -> tuple[Any, Callable[[Any, Path], None]]:
    """Return a run's model ready to be trained on, and what writes it to a folder."""
    from ltm.runs import checkpoint, hardware
    from ltm.runs.queue import read_jobs

    recipe, _ = read_jobs(work)
    device = hardware.pick_device(recipe.runs)
    if recipe.runs.engine == "native":
        model, _ = checkpoint.load_model(work, run_id, device)

        def keep(tuned: Any, folder: Path) -> None:
            weights = {name: p.data for name, p in tuned.named_parameters()}  # a tied embedding once
            checkpoint.save_weights(folder / _WEIGHTS, weights, tuned.config)

        return model, keep
    from ltm.runs.engines import start

    def keep_foreign(tuned: Any, folder: Path) -> None:
        start.save_tuned(work, tuned.model, folder)

    return start.load_scored(work, run_id, device, trainable=True), keep_foreign


def _mark(section: DialogueSection, work: WorkFolder, seed: int) -> str:
    """Return what a tuned model was made from, besides its run."""
    texts = [
        work.path("dialogue", name).read_text(encoding="utf-8")
        for name in (conversations.TRAIN, conversations.HELD_OUT)
    ]
    values = section.model_dump(exclude={"top", "path"})
    return fingerprint([VERSION, values, texts, seed])


def _read(work: WorkFolder, run_id: str, mark: str) -> Tuned | None:
    try:
        value = read_json(work.path("dialogue", run_id, _ROW))
        if value.pop("mark") != mark:
            return None
        return Tuned(**value)
    except (StoreError, KeyError, TypeError):
        return None


def _write(work: WorkFolder, tuned: list[Tuned], gains: list[Gain]) -> Any:
    write_rows(work.path("dialogue", "tuned.parquet"), tuned, Tuned)
    write_rows(work.path("dialogue", "gains.parquet"), gains, Gain)
    models = [[row.run_id, row.n_steps, _plain(row.held_out_after)] for row in tuned]
    return fingerprint([models, [[gain.run_id, gain.family, _plain(gain.after)] for gain in gains]])


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
