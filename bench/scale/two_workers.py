"""How much two workers train in the time of one: whole studies of real runs, in turns.

    python bench/scale/two_workers.py --folder DIR [--rounds 6] [--size llama-0.5m] [--tokens 140000]

A study is prepared once (books, tokens, sets, eval set); each round copies it twice and trains its runs with one and
with two workers. The rate is tokens trained after every worker has finished its first run, over the time that they
took: starting and compiling are not in it. Beside it stands what two processes of plain matrix products reach.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path

RUNS = 16


def command(work: Path, options: argparse.Namespace, *more: str) -> list[str]:
    tokens = options.tokens // 20
    settings = {
        "sets.count": RUNS, "sets.books_per_set": 20, "sets.book_tokens": tokens, "sets.shares.seeds": 0,
        "sets.shares.single": 1, "sets.shares.order": 0, "sets.shares.gaps": 0, "model.size": options.size,
    }  # fmt: skip
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "ltm.cli", "run", "demo", "--quiet", "--work", str(work), *given, *more]


def rate(work: Path, workers: int) -> float:
    """Return tokens a second of the runs that began when all workers were warm."""
    rows = [json.loads(path.read_text()) for path in sorted(work.glob("runs/*/run.json"))]
    ends = sorted((datetime.fromisoformat(row["finished_at"]).timestamp(), row["n_tokens"]) for row in rows)
    warm = ends[workers - 1][0]
    counted = ends[workers:]
    return sum(tokens for _, tokens in counted) / (counted[-1][0] - warm)


def multiply(seconds: float) -> int:
    """Multiply matrices on one core and return how often it was done."""
    import torch

    torch.set_num_threads(1)
    a = torch.randn(512, 512)
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        a @ a
        done += 1
    return done


def products(seconds: float = 4.0) -> float:
    """Return how much two processes multiply in the time of one."""
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(multiply, [0.2, 0.2]))
        alone = pool.submit(multiply, seconds).result()
        return sum(pool.map(multiply, [seconds, seconds])) / alone


def main() -> None:
    """Take turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--size", default="llama-0.5m")
    parser.add_argument("--tokens", type=int, default=140_000)
    options = parser.parse_args()
    os.environ["LTM_CACHE"] = str(options.folder / "cache")
    prepared = options.folder / "prepared"
    if not prepared.exists():
        subprocess.run(command(prepared, options, "--until", "evalset"), check=True)
    found: dict[int, list[float]] = {1: [], 2: []}
    plain: list[float] = []
    for _ in range(options.rounds):
        for workers in (1, 2):
            work = options.folder / f"work-{workers}"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(prepared, work)
            subprocess.run(command(work, options, "--until", "runs", "--set", f"runs.workers={workers}"), check=True)
            found[workers].append(rate(work, workers))
        plain.append(products())
        ratios = [two / one for one, two in zip(found[1], found[2], strict=True)]
        print(
            f"one {found[1][-1]:,.0f}, two {found[2][-1]:,.0f} tokens/s, ratio {ratios[-1]:.2f} "
            f"(median {statistics.median(ratios):.2f} of {len(ratios)}); products {plain[-1]:.2f} "
            f"(median {statistics.median(plain):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
