"""Draw 1,000 variants of 100 books from a million made-up books: how long it takes, how much memory.

    python bench/sets/million.py [BOOKS] [VARIANTS]

The catalogue is written in columns, with the features of the real one, 64 kinds of books and 2 % second editions.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ltm.books.features import DEFINITIONS
from ltm.progress import Progress
from ltm.records import Book, schema
from ltm.sets.section import SetsSection
from ltm.sets.stage import open_drawer, refuse_if_edited, store
from ltm.store import WorkFolder

GENRES = ("novel", "history", "science", "verse", "drama", "law", "letters", "tales")


def write_catalogue(work: WorkFolder, n_books: int, seed: int = 0) -> None:
    """Write a catalogue of made-up books."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 64, n_books)
    centres = rng.standard_normal((64, len(DEFINITIONS)))
    features = centres[kind] + 0.7 * rng.standard_normal((n_books, len(DEFINITIONS)))
    names = sorted(DEFINITIONS)
    digits = rng.integers(0, 2**63, n_books, dtype=np.int64)
    title = np.arange(n_books)
    title[rng.choice(n_books, n_books // 50, replace=False)] -= 1
    offsets = pa.array(np.arange(n_books + 1, dtype=np.int32) * len(names))
    keys = pa.DictionaryArray.from_arrays(np.tile(np.arange(len(names)), n_books), names).cast(pa.string())
    chapters = pa.ListArray.from_arrays(
        pa.array(np.arange(n_books + 1, dtype=np.int32)), pa.array(np.zeros(n_books, "i8"))
    )
    whole = np.ones(n_books, dtype=np.int64)
    columns = {
        "book_id": pa.array([f"{d:016x}" for d in digits]),
        "title": pa.array([f"Book {t}" for t in title]),
        "author": pa.array([f"Author {t // 7}" for t in title]),
        "year": pa.array(rng.integers(1500, 2000, n_books)),
        "language": pa.DictionaryArray.from_arrays(whole * 0, ["en"]).cast(pa.string()),
        "genre": pa.DictionaryArray.from_arrays(kind % len(GENRES), list(GENRES)).cast(pa.string()),
        "source": pa.array([f"{d:016x}.txt" for d in digits]),
        "licence": pa.DictionaryArray.from_arrays(whole * 0, [""]).cast(pa.string()),
        "rank": pa.array(np.arange(n_books)),
        "pool": pa.DictionaryArray.from_arrays((rng.random(n_books) < 0.02).astype(int), ["train", "eval_a"]).cast(
            pa.string()
        ),
        "n_words": pa.array(whole * 60_000),
        "n_bytes": pa.array(whole * 350_000),
        "chapter_starts": chapters,
        "features": pa.MapArray.from_arrays(offsets, keys, pa.array(features.ravel())),
    }
    none = pa.array(np.zeros(n_books + 1, dtype=np.int32))
    columns |= {
        "unit": pa.DictionaryArray.from_arrays(whole * 0, [""]).cast(pa.string()),
        "scene_starts": pa.ListArray.from_arrays(none, pa.array([], "i8")),
        "removed": pa.MapArray.from_arrays(none, pa.array([], pa.string()), pa.array([], "i8")),
        "quality": pa.array(np.zeros(n_books)),
        "rating": pa.array(np.zeros(n_books)),
    }
    target = schema(Book)
    table = pa.Table.from_arrays([columns[f.name].cast(f.type) for f in target], schema=target)
    work.path("books").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, work.path("books", "catalogue.parquet"), compression="zstd")


def main() -> None:
    """Print one JSON object."""
    n_books = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as folder:
        work = WorkFolder(Path(folder))
        write_catalogue(work, n_books)
        before = resource.getrusage(resource.RUSAGE_SELF)
        began, cpu = time.perf_counter(), before.ru_utime + before.ru_stime
        section = SetsSection(count=count, books_per_set=100)
        drawer = open_drawer(section, work, 1)
        read = time.perf_counter() - began
        variants = drawer.blocks("exploration", count, in_runs=False)
        drawn = time.perf_counter() - began
        store(drawer, work, variants, Progress())
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds = time.perf_counter() - began
        refuse_if_edited(work)
        design = json.loads(work.path("sets", "design.json").read_text())
        print(
            json.dumps(
                {
                    "books": n_books,
                    "variants": len(variants),
                    "seconds": round(seconds, 2),
                    "cpu_seconds": round(after.ru_utime + after.ru_stime - cpu, 2),
                    "read_seconds": round(read, 2),
                    "draw_seconds": round(drawn - read, 2),
                    "peak_bytes": after.ru_maxrss * 1024,
                    "peak_bytes_with_the_generator": before.ru_maxrss * 1024,
                    "balance": design["balance"],
                    "kinds": design.get("kinds"),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
