"""The second half of a rehearsal: what scoring, patterns and the page cost.

Reads: the scratch folder of the rehearsal with its trained probes, and the study's own questions where they stand.
Writes: scores and a page in the scratch folder. The statistics run on made-up scores of the study's own design, at its
own size where that is cheap; the number of redraws is cut, since the time is in proportion to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import Counter
from typing import Any

import numpy as np

from ltm.books.catalogue import TextStore, read_catalogue
from ltm.errors import LtmError, StoreError
from ltm.evalset import evalfile
from ltm.evalset.bank import read_bank
from ltm.evalset.questions import wanted_items
from ltm.forecast.bill import Costs
from ltm.patterns.effects import estimate_effects
from ltm.patterns.ranking import rank
from ltm.patterns.table import Rows, make_table
from ltm.progress import Progress
from ltm.records import Book, Item, Measure, Reliability, Run, Variant
from ltm.runs import probe
from ltm.runs.executors.base import Executor, Job
from ltm.scores import stage as scores_stage
from ltm.sets.design import draw
from ltm.store import WorkFolder, write_rows
from ltm.study.effort import Effort, Library
from ltm.study.settings import StudySettings
from ltm.tokens.tokenizer import load

_FORWARD_SPEEDUP = 2.5  # scored tokens a second over trained ones
_CHARACTERS_PER_TOKEN = 2.5
_ROUNDS = 2
_SAMPLE_CHARACTERS = 20_000  # of each book
_MOST_RUNS, _FEWEST_RUNS = 240, 60  # of the made-up table
_REDRAWS = (100, 500)


def measure(
    settings: StudySettings,
    work: WorkFolder,
    scratch: WorkFolder,
    pool: Executor,
    n_workers: int,
    costs: Costs,
    library: Library,
    effort: Effort,
) -> Costs:
    """Add to the costs what comes after training.

    Raises:
        LtmError: the questions cannot be asked of this model.
    """
    costs = _scores(settings, work, scratch, pool, n_workers, costs, library, effort)
    if not effort.after:
        return costs
    costs = _patterns(settings, scratch, costs, library)
    return _page(settings, scratch, costs)


def _scores(
    settings: StudySettings,
    work: WorkFolder,
    scratch: WorkFolder,
    pool: Executor,
    n_workers: int,
    costs: Costs,
    library: Library,
    effort: Effort,
) -> Costs:
    """Score the probes on a bank that takes seconds; scale to the bank that the study will have."""
    items, scale = _bank(settings, work, scratch, library)
    seconds = _characters(items) / _CHARACTERS_PER_TOKEN / (costs.tokens_per_second * _FORWARD_SPEEDUP)
    kept = items[:: max(1, round(seconds / effort.score_seconds))]
    write_rows(scratch.path("evalset", "bank_a.parquet"), kept, Item)
    scale *= _characters(items) / max(1.0, _characters(kept))
    run_ids = probe.trained(scratch)

    def score(n_jobs: int) -> float:
        calls = [Job(str(i), (str(scratch.root), run_ids[i % len(run_ids)])) for i in range(n_jobs)]
        began = time.monotonic()
        outcomes = list(pool.map(scores_stage.score_run, calls))
        failed = [outcome for outcome in outcomes if not outcome.ok]
        if failed:
            raise LtmError(f"the model cannot answer the questions: {failed[0].error}", "see `ltm check STUDY`")
        return time.monotonic() - began

    first = score(n_workers)
    one = score(n_workers * _ROUNDS) / _ROUNDS
    path = scratch.path("scores", f"{run_ids[0]}.parquet")
    return dataclasses.replace(
        costs,
        scores_seconds=max(0.0, first - one),  # nearly all of it imports; the questions as tokens are quick
        score_seconds=one * scale,
        rows_bytes_per_run=costs.rows_bytes_per_run + path.stat().st_size * scale,
        spread={**costs.spread, "scores": 0.05 if abs(scale - 1) < 0.05 else 0.10},
    )


def _bank(settings: StudySettings, work: WorkFolder, scratch: WorkFolder, library: Library) -> tuple[list[Item], float]:
    """Return the study's own questions, or the rehearsed ones and how much longer the study's will be."""
    with contextlib.suppress(StoreError):  # none yet, or of a library that was changed since
        return read_bank(work, "a"), 1.0
    items = read_bank(scratch, "a")
    if not items:
        raise LtmError("not one question can be built from the held-out books", "hold out more or longer books")
    wanted = wanted_items(settings.evalset, evalfile.load(settings.evalset.path))
    held_out = sum(b.pool == "eval_a" for b in read_catalogue(scratch))
    growth = max(1.0, 0.5 * library.held_out_books / max(1, held_out))
    built = Counter(item.family for item in items if not item.control)  # controls are as many as their share
    expected = 0.0
    for family, n in built.items():
        own = [item for item in items if item.family == family]
        expected += _characters(own) * min(wanted.get(family, n), n * growth) / n
    return items, expected / _characters(items) * _token_ratio(scratch)


def _token_ratio(scratch: WorkFolder) -> float:
    """Return how many tokens a word takes in all sampled books over the held-out ones that the questions are from.

    Items are so many words long, but books differ in tokens a word, and a sample holds few of them out.
    """
    tokenizer, texts = load(scratch), TextStore(scratch)
    ratios: dict[str, list[float]] = {"all": [], "eval_a": []}
    for book in read_catalogue(scratch):
        text = texts.read(book.book_id)
        middle = text[max(0, (len(text) - _SAMPLE_CHARACTERS) // 2) :][:_SAMPLE_CHARACTERS]
        ratio = len(tokenizer.encode(middle)) / max(1, len(middle.split()))
        ratios["all"].append(ratio)
        if book.pool == "eval_a":
            ratios["eval_a"].append(ratio)
    own = ratios["eval_a"] or ratios["all"]
    return (sum(ratios["all"]) / len(ratios["all"])) / (sum(own) / len(own))


def _characters(items: list[Item]) -> float:
    return float(sum(len(c) + len(o) for i in items for c, o in zip(i.contexts, i.continuations, strict=True)))


def _patterns(settings: StudySettings, scratch: WorkFolder, costs: Costs, library: Any) -> Costs:
    """Estimate effects and rank on a made-up table; larger studies are extrapolated from two smaller ones."""
    books = _books(scratch, max(settings.sets.books_per_set, library.train_books))
    count = settings.sets.count
    n_small = min(count, _MOST_RUNS)
    large = _statistics(settings, books, n_small)
    if count <= _MOST_RUNS:
        return dataclasses.replace(costs, patterns_seconds=large, patterns_seconds_per_run=0.0)
    small = _statistics(settings, books, _FEWEST_RUNS)
    power = max(1.0, math.log(max(large, 1e-3) / max(small, 1e-3)) / math.log(n_small / _FEWEST_RUNS))
    whole = large * (count / n_small) ** power
    spread = {**costs.spread, "patterns": 0.3}
    return dataclasses.replace(costs, patterns_seconds=whole, patterns_seconds_per_run=0.0, spread=spread)


def _books(scratch: WorkFolder, count: int) -> list[Book]:
    """Return as many books as the study will have, with the features of the sampled ones."""
    sampled = read_catalogue(scratch)
    return [
        dataclasses.replace(sampled[i % len(sampled)], book_id=f"{i:016x}", pool="train", rank=i) for i in range(count)
    ]


def _statistics(settings: StudySettings, books: list[Book], count: int) -> float:
    """Return the seconds of all effects and the ranking for so many variants, all redraws included."""
    variants, _ = draw(
        settings.sets.model_copy(update={"count": count, "among": None, "editions": "apart"}), books, settings.seed
    )
    rows = _rows(settings, variants, books)
    section = settings.patterns
    seconds = []
    for redraws in _REDRAWS:
        began = time.monotonic()
        table = make_table(rows)
        estimate_effects(table, rows.books, section.level, min(redraws, section.redraws), settings.seed)
        seconds.append(time.monotonic() - began)
    began = time.monotonic()
    rank(table, section.level)
    ranked = time.monotonic() - began
    per_redraw = max(0.0, seconds[1] - seconds[0]) / (_REDRAWS[1] - _REDRAWS[0])
    return seconds[1] + per_redraw * max(0, section.redraws - _REDRAWS[1]) + ranked


def _rows(settings: StudySettings, variants: list[Variant], books: list[Book]) -> Rows:
    file = evalfile.load(settings.evalset.path)
    counts = wanted_items(settings.evalset, file)
    families = [f for f in file.families if f.name in counts]
    rng = np.random.default_rng(0)
    runs = [_run(v, seed) for v in variants for seed in v.init_seeds]
    measures = [
        Measure(run.run_id, f.ability, f.name, value, 0.5, half_1=value, half_2=value, n_items=f.items)
        for run in runs
        for f in families
        for value in (float(rng.normal()),)
    ]
    names = sorted({(f.ability, f.name) for f in families} | {(f.ability, "*") for f in families})
    reliability = [
        Reliability(a, f, len(runs), 80, 0.0, 0.0, 9.0, 0.5, 0.9, 0.5, 0.3, 0.7, 1.0, True, "") for a, f in names
    ]
    return Rows(variants, runs, measures, reliability, {book.book_id: book for book in books})


def _run(variant: Variant, seed: int) -> Run:
    run_id = f"{variant.variant_id}-{seed}"
    return Run(run_id, variant.variant_id, seed, "", 1, 1, 1, 1.0, 1.0, 0.0, "cpu", "", 1.0, [], [], "", "", "")


def _page(settings: StudySettings, scratch: WorkFolder, costs: Costs) -> Costs:
    from ltm.dashboard.stage import build, page_path

    began = time.monotonic()
    section = settings.dashboard.model_copy(update={"path": "page.html"})
    build(section, scratch, Progress(quiet=True))
    seconds = time.monotonic() - began
    n_bytes = page_path(section, scratch).stat().st_size
    return dataclasses.replace(costs, dashboard_seconds=seconds, fixed_bytes=costs.fixed_bytes + n_bytes)
