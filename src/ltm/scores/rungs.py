"""How runs under way compare, from the fast items that they were asked at one moment.

Reads: `runs/<run_id>/moments/<tokens>.parquet` (raw answers), the bank. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from ltm.evalset.bank import items_fingerprint, read_bank
from ltm.runs.moments import FOLDER
from ltm.scores.measures import family_tables
from ltm.scores.raw import mark_of, stored_mark
from ltm.scores.snapshots import fast_items
from ltm.store import WorkFolder


def scores_at(work: WorkFolder, run_ids: Sequence[str], tokens: int, bank: str = "a") -> dict[str, float]:
    """Return the score of each run after so many trained tokens; runs without answers are left out.

    A run's score is the mean over the families of its value, standardised over the runs that are compared: families
    have units of their own.
    """
    fast = fast_items(read_bank(work, bank))
    mark = mark_of(items_fingerprint(fast), "fast")
    paths = {run_id: work.path("runs", run_id, FOLDER, f"{tokens}.parquet") for run_id in run_ids}
    answered = [run_id for run_id in run_ids if stored_mark(paths[run_id]) == mark]
    if len(answered) < 2:
        return {}
    tables = [pq.ParquetFile(paths[run_id]).read(["logprob", "n_bytes"]) for run_id in answered]
    logprob_RC, n_bytes_RC = (
        np.array([table[name].to_numpy() for table in tables], dtype=float) for name in ("logprob", "n_bytes")
    )
    values_FR = np.array([table.values() for table in family_tables(fast, logprob_RC, n_bytes_RC)])
    spread_F1 = values_FR.std(axis=1, keepdims=True)
    z_FR = (values_FR - values_FR.mean(axis=1, keepdims=True)) / np.where(spread_F1 > 0, spread_F1, 1.0)
    return dict(zip(answered, np.nanmean(z_FR, axis=0).tolist(), strict=True))
