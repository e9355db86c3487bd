"""SQL over all tables of a study: DuckDB reads the Parquet and JSON files of the work folder where they lie."""

from __future__ import annotations

from typing import Any

from ltm.errors import InputError, StoreError
from ltm.store import WorkFolder

TABLES = {
    "books": "books/catalogue.parquet",
    "rejected": "books/rejected.parquet",
    "variants": "sets/variants.parquet",
    "shards": "tokens/shards.parquet",
    "items": "evalset/bank_*.parquet",
    "runs": "runs/*/run.json",
    "scores": "scores/" + "?" * 12 + ".parquet",  # run ids have 12 characters
    "measures": "scores/measures.parquet",
    "reliability": "scores/reliability.parquet",
    "effects": "patterns/effects.parquet",
    "ranking": "patterns/ranking.parquet",
}


def query(work: WorkFolder, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the column names and rows of a SQL statement over the study's tables.

    Raises:
        InputError: DuckDB refuses the statement; the message is DuckDB's, with the tables that exist.
        StoreError: the study has no tables yet.
    """
    import duckdb

    connection = duckdb.connect(":memory:")
    present = []
    for name, pattern in TABLES.items():
        if not any(work.root.glob(pattern)):
            continue
        path = str(work.root / pattern).replace("'", "''")
        reader = "read_json_auto" if pattern.endswith(".json") else "read_parquet"
        connection.execute(f"create view {name} as select * from {reader}('{path}', union_by_name = true)")
        present.append(name)
    if not present:
        raise StoreError(f"{work.root} has no tables yet", "run the study first: ltm run STUDY")
    try:
        cursor = connection.execute(sql)
        rows = cursor.fetchall()
    except duckdb.Error as error:
        raise InputError(f"SQL: {error}", f"tables here: {', '.join(present)}") from None
    return [column[0] for column in cursor.description or []], rows
