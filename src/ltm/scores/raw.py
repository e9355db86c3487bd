"""The raw answers of one model, as stored: a Parquet file whose metadata say which bank and what made it.

Reads and writes: `scores/<run_id>.parquet`, `scores/bank_b/<run_id>.parquet` (Score).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltm import records
from ltm.errors import DamagedError, StoreError
from ltm.records import Item, Score
from ltm.scores.plan import Plan
from ltm.seal import BLANK, is_whole, sealed
from ltm.store import WorkFolder, write_bytes

VERSION = 5
_METADATA = b"ltm_bank"
_AGAIN = "run `ltm scores STUDY` again"


def mark_of(bank: str, own: str = "") -> str:
    """Return what a score file is marked with: its bank, this code, and what else made it."""
    return f"{bank}/{VERSION}" + (f"/{own}" if own else "")


def path_of(work: WorkFolder, run_id: str, bank: str) -> Path:
    """Return where the answers of a model are."""
    name = f"{run_id}.parquet"
    return work.path("scores", name) if bank == "a" else work.path("scores", f"bank_{bank}", name)


def stored_mark(path: Path) -> str | None:
    """Return what a file is marked with; None where it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return bytes(metadata.get(_METADATA, b"")).decode()


def write_answers(path: Path, run_id: str, plan: Plan, logprobs_C: NDArray[np.float64], mark: str) -> None:
    """Write the answers of a model to all cells of a bank, whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "run_id": [run_id] * len(plan.item_ids),
        "item_id": plan.item_ids,
        "cell": plan.cells,
        "logprob": logprobs_C,
        "n_bytes": plan.n_bytes,
        "n_tokens": plan.n_tokens,
        "n_context_tokens": plan.n_context_tokens,
    }
    schema = records.schema(Score)
    table = pa.Table.from_arrays(
        [pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema
    )
    sink = pa.BufferOutputStream()
    # least and greatest value leave NaN out, and DuckDB takes from them that `isnan(logprob)` is never true
    counted = [name for name in schema.names if name != "logprob"]
    marked = table.replace_schema_metadata({_METADATA: mark.encode()})
    with pq.ParquetWriter(sink, marked.schema, compression="zstd", write_statistics=counted) as writer:
        writer.write_table(marked)
        writer.add_key_value_metadata({"seal": BLANK})
    write_bytes(path, sealed(sink.getvalue().to_pybytes()))


def read_answers(
    work: WorkFolder, items: Sequence[Item], marks: dict[str, str], bank: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log-probabilities and scored bytes, one row per model and one column per cell of the bank.

    Args:
        work: The work folder.
        items: The bank; rows of a score file are in its order.
        marks: What the file of each model has to be marked with, in the order of the rows.
        bank: a or b.

    Raises:
        DamagedError: a file is missing or not what was written.
        StoreError: a file belongs to another bank; names it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_cells = sum(len(item.contexts) for item in items)
    logprob_RC, n_bytes_RC = (np.empty((len(marks), n_cells)) for _ in range(2))
    for row, (run_id, mark) in enumerate(marks.items()):
        path = path_of(work, run_id, bank)
        try:
            data = path.read_bytes()
            if not is_whole(data):
                raise DamagedError(path)
            file = pq.ParquetFile(pa.BufferReader(data))
            found = bytes((file.schema_arrow.metadata or {}).get(_METADATA, b"")).decode()
            table = file.read(["logprob", "n_bytes"])
        except (OSError, pa.ArrowException):
            raise DamagedError(path) from None
        if found != mark or len(table) != n_cells:
            raise StoreError(f"{path} belongs to another bank of items", _AGAIN)
        logprob_RC[row] = table["logprob"].to_numpy()
        n_bytes_RC[row] = table["n_bytes"].to_numpy()
    return logprob_RC, n_bytes_RC
