"""SQL over all tables of a study: DuckDB reads the Parquet and JSON files of the work folder where they lie."""

from __future__ import annotations

from typing import Any

from ltm.errors import InputError, StoreError
from ltm.store import WorkFolder

TABLES = {
    "books": "books/catalogue.parquet",
    "rejected": "books/rejected.parquet",
    "variants": "sets/variants.parquet",
    "clusters": "sets/clusters.parquet",
    "shards": "tokens/shards.parquet",
    "items": "evalset/bank_*.parquet",
    "runs": "runs/*/run.json",
    "scores": "scores/" + "?" * 12 + ".parquet",  # run ids have 12 characters
    "measures": "scores/measures.parquet",
    "confirmed": "scores/confirmed.parquet",
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
    present: list[str] = []
    damaged: list[str] = []
    for name, pattern in TABLES.items():
        if not any(work.root.glob(pattern)):
            continue
        path = str(work.root / pattern).replace("'", "''")
        reader = "read_json_auto" if pattern.endswith(".json") else "read_parquet"
        try:
            connection.execute(f"create view {name} as select * from {reader}('{path}', union_by_name = true)")
        except duckdb.Error:
            damaged.append(name)
        else:
            present.append(name)
    if not present:
        raise StoreError(f"{work.root} has no tables yet", "run the study first: ltm run STUDY")
    try:
        cursor = connection.execute(sql)
        rows = cursor.fetchall() if cursor is not None else []
    except duckdb.Error as error:
        raise InputError(f"SQL: {error}", _tables_in_words(present, damaged)) from None
    if cursor is None:
        raise InputError("SQL: the statement is empty", _tables_in_words(present, damaged))
    return [column[0] for column in cursor.description or []], rows


def _tables_in_words(present: list[str], damaged: list[str]) -> str:
    text = f"tables here: {', '.join(present)}"
    return f"{text}; damaged: {', '.join(damaged)}" if damaged else text
