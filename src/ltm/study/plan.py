"""The bill before the meal: what a study will take, and what it will be able to find out.

Reads: the study's settings, the library's file sizes, complete runs if there are any. Writes: `forecast.json`
before the first run (and when the work changes), so that forecast and measurement can be set side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.forecast.estimate import Rate, Workload, estimate
from ltm.forecast.power import in_words, power
from ltm.progress import Progress
from ltm.records import Book, Item
from ltm.runs import queue
from ltm.sets.design import draw
from ltm.store import WorkFolder, fingerprint, read_json, read_rows, write_json
from ltm.study.settings import StudySettings
from ltm.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from ltm.runs.executors.local import LocalExecutor

# Of a bank that is not built yet: families in the packaged eval file, and what an item costs to score.
_FAMILIES, _USUAL_ITEMS, _TEXTS_PER_ITEM, _TOKENS_PER_WORD = 9, 200, 2.0, 1.4
_KJV_BYTES = 4_300_000


def plan(settings: StudySettings, work: WorkFolder) -> dict[str, Any]:
    """Return the forecast of what is left, and the power of the design; probes the machine for some seconds."""
    from ltm.runs.stage import workers

    if _measured_rate(settings, work) is None:
        with workers(settings.runs) as pool:
            bill = _bill(settings, work, pool)
    else:
        bill = _bill(settings, work, None)
    books, n_files = _training_books(settings, work)
    _, design = draw(settings.sets, books, settings.seed)
    strength = power(
        design["n_sets"],
        len(books),
        settings.sets.books_per_set,
        design["templates"]["order"],
        design["templates"]["gaps"],
    )
    return {**bill, "design": design, "n_files": n_files, "power": strength, "power_in_words": in_words(strength)}


def write_forecast(
    settings: StudySettings, work: WorkFolder, pool: Callable[[], LocalExecutor], progress: Progress
) -> None:
    """Forecast the study before its first run and say so; a forecast of the same work stands."""
    path = work.path("forecast.json")
    made_for = _made_for(settings)
    if path.exists() and read_json(path).get("made_for") == made_for:
        return
    bill = {**_bill(settings, work, pool()), "made_for": made_for}
    write_json(path, bill)
    runs = bill["n_runs"]
    progress.say(
        f"forecast  {runs} runs of {format_count(bill['run_tokens'])} tokens, {format_count(bill['n_params'])} "
        f"parameters each: about {format_seconds(bill['seconds'])} "
        f"({format_seconds(bill['seconds_low'])} to {format_seconds(bill['seconds_high'])}), "
        f"{format_bytes(bill['disk_bytes'])} of disk"
    )


def _made_for(settings: StudySettings) -> str:
    """Return what a forecast is about; other settings do not change what is to be done."""
    about = ("sets", "model", "tokens", "runs", "evalset")
    return fingerprint([getattr(settings, name).model_dump() for name in about])


def _bill(settings: StudySettings, work: WorkFolder, pool: LocalExecutor | None) -> dict[str, Any]:
    from ltm.runs import hardware

    shape = settings.model.shape(settings.tokens.vocab_size)
    device = hardware.pick_device(settings.runs)
    n_workers = hardware.n_workers(settings.runs, device)
    rate = _measured_rate(settings, work) or _probed_rate(settings, pool, n_workers)
    jobs = _jobs(settings, work)
    left = sum(queue.read_run(work, job.run_id) is None for job in jobs) if jobs else None
    n_runs = len(jobs) if jobs else _expected_runs(settings)
    workload = Workload(
        n_runs=n_runs,
        runs_left=n_runs if left is None else left,
        run_tokens=settings.sets.run_tokens,
        n_params=shape.n_params,
        score_tokens=_score_tokens(settings, work),
        library_bytes=_library_bytes(settings, work),
        n_workers=n_workers,
        device=device,
    )
    prices = settings.forecast
    return estimate(workload, rate, prices.watts, prices.usd_per_kwh, prices.usd_per_hour)


def _measured_rate(settings: StudySettings, work: WorkFolder) -> Rate | None:
    """Return the rate of the complete runs, if they trained the model that these settings ask for."""
    if not work.path("runs", "jobs.json").exists():
        return None
    recipe, _ = queue.read_jobs(work)
    same = ("batch_tokens", "micro_batch_tokens", "device", "dtype", "compile", "workers")
    if recipe.model != settings.model or any(getattr(recipe.runs, k) != getattr(settings.runs, k) for k in same):
        return None
    rates = sorted(run.tokens_per_second for run in queue.complete_runs(work))
    if not rates:
        return None
    slow, fast = rates[len(rates) // 20], rates[-1 - len(rates) // 20]
    return Rate(rates[len(rates) // 2], 0.9 * slow, 1.1 * fast, "complete runs of this study")


def _probed_rate(settings: StudySettings, pool: LocalExecutor | None, n_workers: int) -> Rate:
    from ltm.runs.probe import measure_rate

    assert pool is not None  # only a measured rate needs no workers
    shape = settings.model.shape(settings.tokens.vocab_size)
    rates = measure_rate(settings.runs, shape, pool, n_workers)
    rate = sum(rates) / len(rates)
    faster = 1.4 if settings.runs.compile else 1.0  # measured gain of compiling on a CPU (LOG.md)
    return Rate(rate * faster, 0.65 * rate * faster, 1.25 * rate * faster, "a probe of this model on this machine")


def _jobs(settings: StudySettings, work: WorkFolder) -> list[queue.Job]:
    """Return the stored queue if it belongs to these settings."""
    if not work.path("runs", "jobs.json").exists():
        return []
    recipe, jobs = queue.read_jobs(work)
    return jobs if recipe == queue.Recipe(settings.sets, settings.model, settings.runs) else []


def _expected_runs(settings: StudySettings) -> int:
    books = [_stand_in(i) for i in range(settings.sets.books_per_set)]  # counts do not depend on the library
    return int(draw(settings.sets, books, settings.seed)[1]["n_runs"])


def _training_books(settings: StudySettings, work: WorkFolder) -> tuple[list[Book], int]:
    """Return the training books, or stand-ins in the expected number before the library is read."""
    path = work.path("books", "catalogue.parquet")
    if path.exists():
        books = [book for book in read_rows(path, Book) if book.pool == "train"]
        if len(books) >= settings.sets.books_per_set:
            return books, len(books)
    n_files = len(_files(settings)) if settings.books.path else 66
    expected = max(settings.sets.books_per_set, round(n_files * (1 - settings.books.held_out_share)))
    return [_stand_in(i) for i in range(expected)], n_files


def _stand_in(index: int) -> Book:
    return Book(f"{index:016x}", "", "", None, "en", "", "", "", index, "train", 0, 0, [0], {})


def _score_tokens(settings: StudySettings, work: WorkFolder) -> int:
    path = work.path("evalset", "bank_a.parquet")
    if not path.exists():
        per_family = settings.evalset.items_per_family or _USUAL_ITEMS
        return int(_FAMILIES * per_family * _TEXTS_PER_ITEM * settings.evalset.context_words * _TOKENS_PER_WORD)
    items = read_rows(path, Item)
    characters = sum(len(c) + len(o) for item in items for c, o in zip(item.contexts, item.continuations, strict=True))
    return characters // 3  # characters a token at a vocabulary of 2,000; a larger one only makes it less


def _library_bytes(settings: StudySettings, work: WorkFolder) -> int:
    path = work.path("books", "catalogue.parquet")
    if path.exists():
        return sum(book.n_bytes for book in read_rows(path, Book))
    if not settings.books.path:
        return _KJV_BYTES
    return sum(path.stat().st_size for path in _files(settings))


def _files(settings: StudySettings) -> list[Path]:
    return [path for path in Path(str(settings.books.path)).rglob("*") if path.is_file()]
