"""Planted truth in real training: damaged books, twins and an order must be found by real models on real books.

    python bench/truth/real_training.py BOOKS WORK [--seed N] [--sets N] [--blocks N] [--set KEY=VALUE ...]

BOOKS is a folder of real books with a manifest, WORK where both studies live; the same command goes on after a stop.

Books: 60 real books, 10 of them once more with their words shuffled, 6 once more as they are (editions kept apart).
Sets of 8 in mixed passages. Wanted: the shuffled copies are told from all other books (AUC >= .95), and no twin differs
from its original (Benjamini-Hochberg at .1 over the six differences).

Order: some real books (`--others`), a text in a letter cipher and its glossary, all in every set, in a random order and
its exact reverse, so that in one arm of each block the glossary comes first and in the other the cipher; and mixed.
Wanted: cipher texts that no model has read are predicted better where the glossary came first (z >= 5 over blocks), and
not so in the mixed arm. What part of that is the cipher's own place is said beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from planted import CIPHER, GLOSSARY, SHUFFLED, TWIN, write_books_library, write_order_library

import ltm
from ltm.progress import Progress
from ltm.records import Book, Effect, Item, Score, Variant
from ltm.runs import queue
from ltm.store import read_rows

SHARED = {
    "books.min_words": 100, "books.dedupe": False, "sets.editions": "apart", "sets.passage_tokens": 64,
    "tokens.vocab_size": 1024, "tokens.sample_bytes": 1_000_000, "model.size": "llama-0.1m", "model.n_embd": 64,
    "model.block_size": 64, "runs.batch_tokens": 512, "runs.lr": 4e-3, "evalset.families": ["F0"],
    "evalset.items_per_family": 100,    "evalset.context_words": 40, "patterns.redraws": 9999, "sets.densities": [0.5],
}  # fmt: skip
BOOKS = {
    "sets.books_per_set": 8, "sets.book_tokens": 6000, "sets.base_order": "shuffled",
    "sets.contrast_orders": ["random"],
    "sets.shares.single": 0.95, "sets.shares.seeds": 0.05, "sets.shares.order": 0.0, "sets.shares.gaps": 0.0,
}  # fmt: skip
ORDER = {
    "sets.base_order": "random",
    "sets.contrast_orders": ["reverse", "shuffled"], "sets.shares.single": 0.0, "sets.shares.seeds": 0.0,
    "sets.shares.order": 1.0, "sets.shares.gaps": 0.0, "runs.schedule": "constant",
}  # fmt: skip


_ORDER_TOKENS = 44_000


def run(name: str, work: Path, library: Path, held_out: list[str], changes: dict[str, Any], until: str) -> Any:
    """Start or go on with one of the two studies."""
    settings = {**SHARED, **changes, "name": name, "books.path": str(library), "books.held_out_authors": held_out}
    study = ltm.load("demo", settings, work=str(work / name))
    result = study.run(until=until, progress=Progress(), accept_changes=True)
    if result["failed_runs"]:
        raise SystemExit(f"{len(result['failed_runs'])} runs failed: {result['failed_runs']}")
    return study


def judge_books(study: Any, ability: str = "fluency") -> dict[str, Any]:
    """Return the AUC of the damaged books and how the twins compare, for one ability."""
    effects = read_rows(study.work.path("patterns", "effects.parquet"), Effect)
    by_title = {e.label: e for e in effects if e.kind == "book" and e.ability == ability}
    bad = [e.estimate for title, e in by_title.items() if title.startswith(SHUFFLED)]
    good = [e.estimate for title, e in by_title.items() if not title.startswith(SHUFFLED)]
    pairs = [(by_title[t.removeprefix(f"{TWIN}: ")], e) for t, e in by_title.items() if t.startswith(TWIN)]
    z = np.array([(a.estimate - b.estimate) / np.hypot(a.se, b.se) for a, b in pairs])
    from scipy.stats import norm

    p = np.sort(2 * norm.sf(np.abs(z)))
    differ = int(max((k for k in range(1, len(p) + 1) if p[k - 1] <= 0.1 * k / len(p)), default=0))
    claimed = [title for title, e in by_title.items() if e.claimed]
    return {
        "ability": ability,
        "books": len(by_title),
        "auc": round(float(np.mean([[b < g for g in good] for b in bad])), 4),
        "mean_effect_damaged": round(float(np.mean(bad)), 3),
        "mean_effect_others": round(float(np.mean(good)), 3),
        "claimed_damaged": sum(t.startswith(SHUFFLED) for t in claimed),
        "claimed_others": sum(not t.startswith(SHUFFLED) for t in claimed),
        "twin_z": [round(float(x), 2) for x in z],
        "twins_that_differ": differ,
    }


def judge_order(study: Any) -> dict[str, Any]:
    """Return the effect of the glossary before the cipher, in the ordered arms and in the mixed one."""
    books = {b.title: b.book_id for b in read_rows(study.work.path("books", "catalogue.parquet"), Book)}
    cipher, glossary = books[CIPHER], books[GLOSSARY]
    secret = {book_id for title, book_id in books.items() if title.startswith("held-out cipher")}
    items = read_rows(study.work.path("evalset", "bank_a.parquet"), Item)
    wanted = {i.item_id for i in items if i.family == "F0" and i.cluster in secret}
    variants = {v.variant_id: v for v in read_rows(study.work.path("sets", "variants.parquet"), Variant)}
    value: dict[tuple[int, str], tuple[float, Variant]] = {}
    for one in queue.complete_runs(study.work):
        rows = [s for s in read_rows(study.work.path("scores", f"{one.run_id}.parquet"), Score) if s.item_id in wanted]
        bits = -sum(s.logprob for s in rows) / sum(s.n_bytes for s in rows) / np.log(2)
        variant = variants[one.variant_id]
        value[variant.block, variant.arm] = (-bits, variant)
    blocks = sorted({block for block, _ in value})
    before = lambda v: v.book_ids.index(glossary) < v.book_ids.index(cipher)  # noqa: E731
    pairs = [
        (value[b, "base"], value[b, "reverse"]) for b in blocks if (b, "base") in value and (b, "reverse") in value
    ]
    gain = np.array([(one - two) * (1 if before(v) else -1) for (one, v), (two, _) in pairs])
    place = np.array([v.book_ids.index(cipher) - u.book_ids.index(cipher) for (_, v), (_, u) in pairs])
    sign = np.array([1 if before(v) else -1 for (_, v), _ in pairs])
    raw = np.array([one - two for (one, _), (two, _) in pairs])
    design = np.column_stack([sign, place])
    slopes = np.linalg.lstsq(design, raw, rcond=None)[0]
    noise = float(np.sum((raw - design @ slopes) ** 2)) / max(1, len(raw) - 2)
    errors = np.sqrt(noise * np.diag(np.linalg.pinv(design.T @ design)))
    apart = np.linalg.matrix_rank(design) == 2  # with nothing but the planted two, one place is the other's order
    mixed = [value[b, "shuffled"] for b in blocks if (b, "shuffled") in value]
    first = np.array([x for x, v in mixed if before(v)])
    last = np.array([x for x, v in mixed if not before(v)])
    spread = np.sqrt(first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last))
    return {
        "items": len(wanted),
        "blocks": len(pairs),
        "gain_bits_per_byte": round(float(gain.mean()), 4),
        "z": round(float(gain.mean() / (gain.std(ddof=1) / np.sqrt(len(gain)))), 2),
        "z_glossary_first_at_equal_place_of_the_cipher": round(float(slopes[0] / errors[0]), 2) if apart else None,
        "z_place_of_the_cipher": round(float(slopes[1] / errors[1]), 2) if apart else None,
        "mixed_runs": len(mixed),
        "mixed_difference": round(float(first.mean() - last.mean()), 4),
        "mixed_z": round(float((first.mean() - last.mean()) / spread), 2),
    }


def main() -> None:
    """Run both studies and print one JSON object."""
    parser = argparse.ArgumentParser(description="planted truth in real training")
    parser.add_argument("books", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sets", type=int, default=120)
    parser.add_argument("--blocks", type=int, default=150)
    parser.add_argument("--others", type=int, default=2, choices=[0, 1, 2], help="real books beside the planted two")
    parser.add_argument("--part", choices=["books", "order", "both"], default="both")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    more = dict(pair.split("=", 1) for pair in options.set)
    began = time.monotonic()
    found: dict[str, Any] = {"seed": options.seed}
    if options.part in ("books", "both"):
        library = options.work / "library-books"
        held_out = write_books_library(options.books, library, options.seed)
        changes = {**BOOKS, "seed": options.seed, "sets.count": options.sets, **more}
        study = run("books", options.work, library, held_out, changes, "patterns")
        found["books"] = judge_books(study)
        found["runs_books"] = len(study.jobs())
    if options.part in ("order", "both"):
        library = options.work / "library-order"
        held_out = write_order_library(options.books, library, options.seed, options.others)
        size = {"sets.books_per_set": 2 + options.others, "sets.book_tokens": _ORDER_TOKENS // (2 + options.others)}
        changes = {**ORDER, **size, "seed": options.seed, "sets.count": 3 * options.blocks, **more}
        study = run("order", options.work, library, held_out, changes, "patterns")
        found["order"] = judge_order(study)
        found["runs_order"] = len(study.jobs())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found["wall_seconds"] = round(time.monotonic() - began, 1)
    found["cpu_seconds_of_workers"] = round(used.ru_utime + used.ru_stime, 1)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
