"""Scores while a run is trained: at some moments it is asked the fast items, in place, so that no weights are kept.

Writes: `runs/moments.json` (which moments, before training), `runs/<run_id>/moments/<tokens>.parquet` (raw answers) by
the worker that trains, `scores/snapshots.parquet` (Snapshot) by the stage. Training is the same to the last bit with
and without: weights are copied, nothing random is drawn. A run that is resumed does not ask again what has been
answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltm.errors import StoreError
from ltm.evalset.bank import items_fingerprint, read_bank
from ltm.model.gpt import GPT
from ltm.records import Item, Snapshot
from ltm.runs.moments import FILE, FOLDER
from ltm.runs.train import Trainer
from ltm.scores.forward import Scorer
from ltm.scores.measures import family_tables
from ltm.scores.plan import Plan, make_plan
from ltm.scores.raw import mark_of, stored_mark, write_answers
from ltm.scores.rules import WITHOUT_LOGPROBS
from ltm.scores.section import ScoresSection
from ltm.store import WorkFolder, fingerprint, write_json, write_rows
from ltm.tokens.tokenizer import load

FAST_ITEMS = 500
_ANSWER = "ltm.scores.snapshots:answer_moment"
_LEAST_SHARE = 1 / 64  # of a run, at the first of logarithmic moments
_ready: dict[tuple[str, str, int], tuple[Plan, str]] = {}


def plan_moments(work: WorkFolder, section: ScoresSection, run_tokens: int, batch_tokens: int) -> list[int]:
    """Write down at how many trained tokens a run is asked the fast items; returns them.

    Args:
        work: The work folder.
        section: Says how many moments, and how they are spaced.
        run_tokens: Tokens of a run.
        batch_tokens: Tokens of a step: moments lie between two steps.
    """
    path = work.path("runs", FILE)
    n_steps = run_tokens // batch_tokens
    count = min(section.snapshots, n_steps)
    if not count:
        path.unlink(missing_ok=True)
        return []
    if section.snapshot_spacing == "log":
        shares = np.geomspace(_LEAST_SHARE if count > 1 else 1.0, 1.0, count)
    else:
        shares = np.arange(1, count + 1) / count
    steps = sorted({max(1, round(share * n_steps)) for share in shares.tolist()})
    write_json(path, {"tokens": [step * batch_tokens for step in steps], "call": _ANSWER, "bank": section.bank})
    return [step * batch_tokens for step in steps]


def answer_moment(work: WorkFolder, run_id: str, trainer: Trainer, bank: str) -> None:
    """Ask a run in training the fast items and write its raw answers, unless they stand; called by its worker.

    Raises:
        StoreError: the bank or the tokenizer is missing or damaged.
    """
    tokens = trainer.state.step * trainer.section.batch_tokens
    path = work.path("runs", run_id, FOLDER, f"{tokens}.parquet")
    config = trainer.model.config
    plan, mark = _fast_plan(work, bank, config.block_size)
    if stored_mark(path) == mark:
        return
    model = GPT(config)
    model.load_state_dict(
        {name: tensor.detach().cpu() for name, tensor in trainer.scored_weights().items()}, strict=False
    )
    write_answers(path, run_id, plan, plan.answers(Scorer(model.to(trainer.device)).logprobs(plan)), mark)


def fast_items(items: Sequence[Item]) -> list[Item]:
    """Return the items that checkpoints are asked: those of the fast tier, or else the 500 whose ids hash lowest."""
    plain = [item for item in items if not item.control and item.rule not in WITHOUT_LOGPROBS]
    fast = [item for item in plain if item.tier == "fast"]
    if fast or len(plain) <= FAST_ITEMS:
        return fast or plain
    chosen = set(sorted((fingerprint(item.item_id), item.item_id) for item in plain)[:FAST_ITEMS])
    return [item for item in plain if (fingerprint(item.item_id), item.item_id) in chosen]


def collect(work: WorkFolder, items: Sequence[Item], run_ids: Sequence[str]) -> int:
    """Write `scores/snapshots.parquet` from the raw answers of all runs; returns its rows. Without any it is
    deleted."""
    path = work.path("scores", "snapshots.parquet")
    fast = fast_items(items)
    mark = _mark(fast)
    rows: list[Snapshot] = []
    for run_id in run_ids:
        files = sorted(work.path("runs", run_id, FOLDER).glob("*.parquet"), key=lambda file: int(file.stem))
        good = [file for file in files if stored_mark(file) == mark]
        if good:
            rows += _rows(run_id, fast, good)
    if rows:
        write_rows(path, rows, Snapshot)
    else:
        path.unlink(missing_ok=True)
    return len(rows)


def _rows(run_id: str, fast: Sequence[Item], files: Sequence[Any]) -> list[Snapshot]:
    import pyarrow.parquet as pq

    columns = [pq.ParquetFile(file).read(["logprob", "n_bytes"]) for file in files]
    logprob_RC, n_bytes_RC = (
        np.array([table[name].to_numpy() for table in columns], dtype=float) for name in ("logprob", "n_bytes")
    )
    return [
        Snapshot(run_id, int(file.stem), table.ability, table.family, value, accuracy)
        for table in family_tables(fast, logprob_RC, n_bytes_RC)
        for file, value, accuracy in zip(files, table.values().tolist(), table.accuracy().tolist(), strict=True)
    ]


def _fast_plan(work: WorkFolder, bank: str, block_size: int) -> tuple[Plan, str]:
    path = work.path("evalset", f"bank_{bank}.parquet")
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run `ltm evalset STUDY`") from None
    key = (str(path), f"{stat.st_mtime_ns}", block_size)
    if key not in _ready:
        tokenizer = load(work)
        fast = fast_items(read_bank(work, bank))
        _ready.clear()
        _ready[key] = (make_plan(fast, tokenizer.encode, tokenizer.bos_id, block_size), _mark(fast))
    return _ready[key]


def _mark(fast: Sequence[Item]) -> str:
    return mark_of(items_fingerprint(fast), "fast")
