"""Ask a tuned model the same items again, and hold its answers against those of before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ltm.evalset.bank import read_bank
from ltm.records import Gain, Reliability
from ltm.runs.queue import read_jobs
from ltm.scores import ask, measures
from ltm.scores.raw import mark_of, path_of, write_answers
from ltm.scores.score import answer_bank
from ltm.store import WorkFolder, read_rows, read_table

BANK = "a"
_ANSWERS = "answers.parquet"


def ask_again(work: WorkFolder, run_id: str, model: Any) -> None:
    """Write a tuned model's answers to the bank beside its weights; the model is not of use for training afterwards.

    Raises:
        StoreError: bank or tokenizer are missing.
    """
    from ltm.scores.forward import Scorer

    recipe, _ = read_jobs(work)
    asked = ask.questions(work, BANK, model.config.block_size)
    if recipe.runs.engine == "native":
        scorer = Scorer(model)
    else:
        from ltm.scores.foreign import ForeignScorer

        scorer = ForeignScorer(model)
    section = ask.settings_of(work)
    answers = answer_bank(scorer, asked.items, asked.plan, asked.tokenizer, section, recipe.sets.run_tokens)
    write_answers(_path(work, run_id), run_id, asked.plan, answers, mark_of(asked.bank))


def gains_of(work: WorkFolder, run_id: str) -> list[Gain]:
    """Return what every family of items was before and after.

    Raises:
        StoreError: answers are missing.
    """
    items = read_bank(work, BANK)
    pair = [read_table(path, ["logprob", "n_bytes"]) for path in (path_of(work, run_id, BANK), _path(work, run_id))]
    logprob_RC, n_bytes_RC = (np.stack([table[name].to_numpy() for table in pair]) for name in ("logprob", "n_bytes"))
    rows = read_rows(work.path("scores", "reliability.parquet"), Reliability)
    seed_sd = {row.family: row.seed_sd for row in rows}
    gains = []
    for table in measures.family_tables(items, logprob_RC, n_bytes_RC):
        values, accuracy = table.values(), table.accuracy()
        sd = seed_sd.get(table.family, np.nan)
        change = float(values[1] - values[0]) / sd if sd > 0 else np.nan
        both = (float(values[0]), float(values[1]), float(change), float(accuracy[0]), float(accuracy[1]))
        gains.append(Gain(run_id, table.ability, table.family, *both))
    return gains


def _path(work: WorkFolder, run_id: str) -> Path:
    return work.path("dialogue", run_id, _ANSWERS)
