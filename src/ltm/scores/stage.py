"""Score every run on a bank of items, and condense the answers.

Reads: weights (`runs/`), `evalset/bank_*.parquet` (Item), the tokenizer, `sets/variants.parquet` (Variant).
Writes: `scores/<run_id>.parquet` (Score; for bank b `scores/bank_b/<run_id>.parquet`), `scores/measures.parquet`
(Measure), `scores/reliability.parquet` (Reliability). Raw answers stay on disk; everything else can be computed from
them again. Models with random weights (`untrained-1`, ...) are scored like runs and give the chance level; they are no
rows of the measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ltm import records
from ltm.errors import StoreError
from ltm.evalset.bank import bank_fingerprint, read_bank
from ltm.progress import Progress
from ltm.records import Item, Measure, Reliability, Run, Score
from ltm.scores import measures, reliability
from ltm.scores.section import ScoresSection
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, as_json, fingerprint, read_json, read_rows, write_bytes, write_json, write_rows
from ltm.tokens.tokenizer import identity

if TYPE_CHECKING:
    from ltm.runs.executors.local import LocalExecutor

VERSION = 2
UNTRAINED = "untrained-"
_METADATA = b"ltm_bank"
_warm: dict[tuple[str, str, int], Any] = {}  # items as tokens, kept by a worker between runs


def untrained_ids(section: ScoresSection) -> list[str]:
    """Return the ids of the models with random weights that measure chance."""
    return [f"{UNTRAINED}{number}" for number in range(1, section.untrained + 1)]


def pending(work: WorkFolder, run_ids: Sequence[str], fingerprint_of_bank: str, bank: str = "a") -> list[str]:
    """Return which of the runs have no scores, or scores of another bank or version."""
    return [run_id for run_id in run_ids if _bank_of(_path(work, run_id, bank)) != _mark(fingerprint_of_bank)]


def score_run(work_root: str, run_id: str, bank: str = "a") -> dict[str, Any]:
    """Score one run, or one untrained model, and write its raw answers; runs inside a worker process.

    Args:
        work_root: The work folder.
        run_id: Which run; `untrained-1` and so on are the study's model with random weights.
        bank: a or b.

    Raises:
        StoreError: weights, tokenizer or bank are missing or damaged.
        DataError: an item cannot be scored with this block size.
    """
    from ltm.runs.hardware import pick_device
    from ltm.runs.queue import read_jobs
    from ltm.scores.score import logprobs_of

    work = WorkFolder(Path(work_root))
    started = time.monotonic()
    recipe, _ = read_jobs(work)
    device = pick_device(recipe.runs)
    model, block_size = _model(work, run_id, recipe.model, device)
    prepared, mark = _prepared(work, bank, block_size)
    logprobs = prepared.answers(logprobs_of(model, prepared, device))
    _write(_path(work, run_id, bank), run_id, prepared, logprobs, mark)
    return {
        "run_id": run_id,
        "cells": len(prepared.item_ids),
        "cut_contexts": prepared.n_cut_contexts,
        "cut_continuations": prepared.n_cut_continuations,
        "seconds": time.monotonic() - started,
    }


def build(
    section: ScoresSection, work: WorkFolder, runs: list[Run], workers: Callable[[], LocalExecutor], progress: Progress
) -> Any:
    """Score what has no scores yet on warm workers, then condense; `workers` starts them if they are needed.

    Raises:
        StoreError: a run cannot be scored.
    """
    from ltm.runs.executors.local import Job

    _drop_stale_untrained(work)
    wanted = [*untrained_ids(section), *(run.run_id for run in runs)]
    todo = pending(work, wanted, bank_fingerprint(work, section.bank), section.bank)
    if todo:
        task = progress.task("scores", len(wanted), "models")
        task.done = task.skipped = len(wanted) - len(todo)
        jobs = [Job(run_id, (str(work.root), run_id, section.bank)) for run_id in todo]
        for outcome in workers().map(score_run, jobs):
            if not outcome.ok:
                raise StoreError(f"model {outcome.key} cannot be scored: {outcome.error}", outcome.trace)
            task.advance()
    return condense(section, work, runs, progress)


def _drop_stale_untrained(work: WorkFolder) -> None:
    """Delete the scores of untrained models of another shape or tokenizer; runs have ids of their own for that."""
    from ltm.runs.queue import read_jobs

    mark = fingerprint([read_jobs(work)[0].model.model_dump(), identity(work)])
    path = work.path("scores", "untrained.json")
    if not path.exists() or read_json(path) != mark:
        for stale in work.path("scores").rglob(f"{UNTRAINED}*.parquet"):
            stale.unlink()
        write_json(path, mark)


def condense(section: ScoresSection, work: WorkFolder, runs: list[Run], progress: Progress) -> Any:
    """Write measures and reliability from the raw answers; return what identifies them.

    Raises:
        StoreError: a run or an untrained model has not been scored on the present bank, or the design is missing.
    """
    items = read_bank(work, section.bank)
    mark = _mark(bank_fingerprint(work, section.bank))
    trained = _tables(work, items, [run.run_id for run in runs], section.bank, mark)
    chance = _tables(work, items, untrained_ids(section), section.bank, mark)
    rows = measures.measures(trained, [run.run_id for run in runs])
    ids = [run.variant_id for run in runs]
    layout = reliability.Layout.of(ids, [run.init_seed for run in runs], read_variants(work))
    judged = reliability.judge(trained, chance, ids, section, layout)
    write_rows(work.path("scores", "measures.parquet"), rows, Measure)
    write_rows(work.path("scores", "reliability.parquet"), judged, Reliability)
    admitted = [row.family for row in judged if row.admitted and row.family != reliability.WHOLE_ABILITY]
    progress.say(f"scores    {len(runs)} runs; families that can be measured: {', '.join(admitted) or 'none'}")
    values = [[row.run_id, row.family, _plain(row.value), _plain(row.accuracy), row.n_items] for row in rows]
    return {"bank": mark, "measures": fingerprint(values), "admitted": admitted}


def report(work: WorkFolder) -> dict[str, Any]:
    """Return how well each family and ability can be measured, for `--json`.

    Raises:
        StoreError: the stage has not been run.
    """
    rows = read_rows(work.path("scores", "reliability.parquet"), Reliability)
    return {"reliability": [as_json(row) for row in rows], "n_runs": max((row.n_runs for row in rows), default=0)}


def _model(work: WorkFolder, run_id: str, section: Any, device: str) -> tuple[Any, int]:
    from ltm.model.gpt import GPT
    from ltm.model.init import init_weights
    from ltm.runs.checkpoint import load_model
    from ltm.tokens.tokenizer import load

    if not run_id.startswith(UNTRAINED):
        return load_model(work, run_id, device)
    config = section.shape(load(work).vocab_size)
    model = GPT(config)
    init_weights(model, int(fingerprint(run_id, 8), 16))
    return model.to(device).eval(), config.block_size


def _prepared(work: WorkFolder, bank: str, block_size: int) -> tuple[Any, str]:
    """Return the bank as tokens, from the last call in this process where nothing has changed."""
    from ltm.scores.score import prepare
    from ltm.tokens.tokenizer import load

    paths = (work.path("evalset", f"bank_{bank}.parquet"), work.path("tokens", "tokenizer.json"))
    try:
        stamps = [[stat.st_mtime_ns, stat.st_size, stat.st_ino] for stat in (path.stat() for path in paths)]
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename} is missing", "run the stage that writes it") from None
    key = (str(paths[0]), fingerprint(stamps), block_size)
    if key not in _warm:
        items = read_bank(work, bank)
        tokenizer = load(work)
        mark = _mark(fingerprint([item.item_id for item in items]))
        _warm.clear()
        _warm[key] = (prepare(items, tokenizer.encode, tokenizer.bos_id, block_size), mark)
    value: tuple[Any, str] = _warm[key]
    return value


def _mark(fingerprint_of_bank: str) -> str:
    return f"{fingerprint_of_bank}/{VERSION}"


def _path(work: WorkFolder, run_id: str, bank: str) -> Path:
    name = f"{run_id}.parquet"
    return work.path("scores", name) if bank == "a" else work.path("scores", f"bank_{bank}", name)


def _bank_of(path: Path) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):  # missing or damaged: it is scored again
        return None
    return bytes(metadata.get(_METADATA, b"")).decode()


def _write(path: Path, run_id: str, prepared: Any, logprobs: NDArray[np.float64], mark: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "run_id": [run_id] * len(prepared.item_ids),
        "item_id": prepared.item_ids,
        "cell": prepared.cells,
        "logprob": logprobs,
        "n_bytes": prepared.n_bytes,
        "n_tokens": prepared.n_tokens,
        "n_context_tokens": prepared.n_context_tokens,
    }
    schema = records.schema(Score)
    table = pa.Table.from_arrays(
        [pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema
    )
    sink = pa.BufferOutputStream()
    # least and greatest value leave NaN out, and DuckDB takes from them that `isnan(logprob)` is never true
    counted = [name for name in schema.names if name != "logprob"]
    marked = table.replace_schema_metadata({_METADATA: mark.encode()})
    pq.write_table(marked, sink, compression="zstd", write_statistics=counted)
    write_bytes(path, sink.getvalue().to_pybytes())


def _tables(
    work: WorkFolder, items: list[Item], run_ids: Sequence[str], bank: str, mark: str
) -> list[measures.FamilyTable]:
    """Return the family tables of some runs; rows of a score file are in the order of the bank."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_cells = sum(len(item.contexts) for item in items)
    logprob_RC, n_bytes_RC = (np.empty((len(run_ids), n_cells)) for _ in range(2))
    for row, run_id in enumerate(run_ids):
        path = _path(work, run_id, bank)
        try:
            file = pq.ParquetFile(path)
            marked = bytes((file.schema_arrow.metadata or {}).get(_METADATA, b"")).decode()
            table = file.read(["logprob", "n_bytes"])
        except (OSError, pa.ArrowException):
            raise StoreError(f"{path} is missing or damaged", "run `ltm scores STUDY` again") from None
        if marked != mark or len(table) != n_cells:
            raise StoreError(f"{path} belongs to another bank of items", "run `ltm scores STUDY` again")
        logprob_RC[row] = table["logprob"].to_numpy()
        n_bytes_RC[row] = table["n_bytes"].to_numpy()
    return measures.family_tables(items, logprob_RC, n_bytes_RC)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
