"""A catalogue of a million books that nobody wrote, and what it costs to filter, rank, split and draw from it.

    python bench/library/synthetic_catalogue.py --rows 1000000

Each step runs in a process of its own; CPU seconds (all threads) and peak memory are those of that process, its start
included. Bar: all steps together 10 s and 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from ltm import records
from ltm.books import features, library
from ltm.books.catalogue import CatalogueWriter, columns, feature_matrix
from ltm.books.holdout import Rows, pools_of
from ltm.progress import Progress
from ltm.records import POOLS, Book
from ltm.store import WorkFolder

BLOCK = 50_000
LANGUAGES = np.array(["en", "ru", "fr", "de", "es", "it", "zh", "la"])
LANGUAGE_SHARES = np.array([0.6, 0.15, 0.08, 0.06, 0.05, 0.03, 0.02, 0.01])
GENRES = np.array(["fiction", "history", "poetry", "science", "philosophy", "drama", "letters", "unknown"])
SYLLABLES = [consonant + vowel for consonant in "bdgklmnrst" for vowel in "aeo"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", help="folder to keep; a temporary one by default")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.step, WorkFolder(Path(options.work)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(options.work or scratch)
        work = WorkFolder(root)
        if not work.path("books", "catalogue.parquet").exists():
            began = time.process_time()
            write(work, options.rows)
            size = work.path("books", "catalogue.parquet").stat().st_size
            print(f"{options.rows} rows written in {time.process_time() - began:.1f} CPU s, {size / 1e6:.0f} MB")
        print("| step | CPU s | wall s | peak MiB | result |\n|---|---:|---:|---:|---|")
        total = 0.0
        for step in STEPS:
            row = json.loads(run_apart(step, root))
            total += row["cpu_seconds"]
            numbers = f"{row['cpu_seconds']:.2f} | {row['wall_seconds']:.2f} | {row['peak_mib']:.0f}"
            print(f"| {step} | {numbers} | {row['result']} |")
        print(f"| all | {total:.2f} | | | |")


def run_apart(step: str, root: Path) -> str:
    command = [sys.executable, __file__, "--step", step, "--work", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run_step(step: str, work: WorkFolder) -> None:
    began = time.monotonic()
    result = STEPS[step](work)
    used = resource.getrusage(resource.RUSAGE_SELF)
    row = {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "wall_seconds": time.monotonic() - began,
        "peak_mib": used.ru_maxrss / 1024,
        "result": result,
    }
    print(json.dumps(row))


def write(work: WorkFolder, n_rows: int, seed: int = 7) -> None:
    """Write a catalogue of made-up books; a third of the authors wrote one book, a few very many."""
    names = [*features.DEFINITIONS, *library.DEFINITIONS]
    with CatalogueWriter(work) as writer:
        for first in range(0, n_rows, BLOCK):
            writer.add_table(block(first, min(BLOCK, n_rows - first), n_rows, names, seed))


def block(first: int, count: int, n_rows: int, names: list[str], seed: int) -> pa.Table:
    rng = np.random.default_rng([seed, first])
    words = np.exp(rng.normal(11.0, 0.8, count)).astype(np.int64)
    chapters = rng.integers(1, 40, count)
    ids = rng.integers(0, 2**63, count)
    rank = np.arange(first, first + count)
    author = (rng.random(count) ** 2 * n_rows / 3).astype(np.int64)
    keys = pa.DictionaryArray.from_arrays(
        pa.array(np.tile(np.arange(len(names)), count).astype(np.int8)), pa.array(names)
    )
    bounds = np.concatenate([[0], np.cumsum(chapters)])
    starts = (np.arange(bounds[-1]) - np.repeat(bounds[:-1], chapters)) * 15_000
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * len(names))
    schema = records.schema(Book)
    values: dict[str, pa.Array] = {
        "book_id": pa.array([f"{i:016x}" for i in ids.tolist()]),
        "title": pa.array([f"The {word(i)} of {word(i * 7 + 3)}" for i in rank.tolist()]),
        "author": pa.array([f"{word(a + 11).title()} {word(a * 13 + 5).title()}{a}" for a in author.tolist()]),
        "year": pa.array(rng.integers(1700, 1930, count)),
        "language": pa.array(rng.choice(LANGUAGES, count, p=LANGUAGE_SHARES)),
        "genre": pa.array(rng.choice(GENRES, count)),
        "source": pa.array([f"shelf{i // 1000}/book{i}.txt" for i in rank.tolist()]),
        "licence": pa.array(["public domain"] * count),
        "rank": pa.array(rank),
        "pool": pa.array(["train"] * count),
        "n_words": pa.array(words),
        "n_bytes": pa.array(words * 6),
        "chapter_starts": pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(starts)),
        "features": pa.MapArray.from_arrays(
            offsets, keys.cast(pa.string()), pa.array(rng.normal(size=count * len(names)).round(4))
        ),
        "unit": pa.array([f"{i:016x}" for i in ids.tolist()]),
        "quality": pa.array(rng.random(count)),
    }
    return pa.Table.from_arrays([column(values, field, count) for field in schema], schema=schema)


def column(values: dict[str, pa.Array], field: pa.Field, count: int) -> pa.Array:
    if field.name in values:
        return values[field.name].cast(field.type)
    if pa.types.is_list(field.type) or pa.types.is_map(field.type):
        return pa.array([[]] * count, type=field.type)
    return pa.nulls(count, field.type)


def word(number: int) -> str:
    return "".join(SYLLABLES[(number // 30**k) % 30] for k in range(3))


def do_filter(work: WorkFolder) -> str:
    """English novels of the 19th century that are long enough, with two features in a range."""
    table = columns(work, ["language", "year", "n_words", "book_id"])
    matrix = feature_matrix(work, ["flesch", "mtld"])
    language = np.asarray(table.column("language").to_numpy(zero_copy_only=False))
    keep = (
        (language == "en") & (table.column("year").to_numpy() >= 1800) & (table.column("n_words").to_numpy() > 20_000)
    )
    keep &= (matrix > -1).all(axis=1)
    return f"{int(keep.sum())} books"


def do_rank(work: WorkFolder) -> str:
    table = columns(work, ["quality", "n_words", "book_id"])
    quality, words = table.column("quality").to_numpy(), table.column("n_words").to_numpy()
    order = np.lexsort((words, -quality))[: len(table) // 2]
    return f"best {quality[order[0]]:.4f}, worst kept {quality[order[-1]]:.4f}"


def do_split(work: WorkFolder) -> str:
    table = columns(work, ["book_id", "author", "language", "genre", "n_words", "n_bytes"])
    texts = [table.column(name).to_pylist() for name in ("book_id", "author", "language", "genre")]
    sizes = [table.column(name).to_numpy() for name in ("n_words", "n_bytes")]
    pools = pools_of(Rows(*texts, *sizes), 0.15, [], 1)
    counts = np.bincount(pools, minlength=3)
    return ", ".join(f"{name} {count}" for name, count in zip(POOLS, counts.tolist(), strict=True))


def do_draw(work: WorkFolder) -> str:
    from ltm.sets.section import SetsSection
    from ltm.sets.stage import build

    section = SetsSection(count=1000, books_per_set=100)
    build(section, work, 1, Progress(quiet=True))
    return "1000 variants of 100 books, dispersed over kinds"


STEPS = {"filter": do_filter, "rank": do_rank, "split": do_split, "draw": do_draw}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
