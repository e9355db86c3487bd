"""Rehearse a study on a small part of its own library, to learn what each stage costs on this machine.

Reads: the library (a random part of its files), the study's own texts and questions where they stand already.
Writes: a temporary folder, which is deleted; nothing in the study's work folder.

The very code of every stage runs, with the parallelism that the study will have, on as little as tells its cost; a
recording `Progress` notes when each file, book and bank was done, so that what is paid once can be told from what is
paid for each byte. Constants measured elsewhere would be wrong on every other machine, model and library.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltm.books import stage as books_stage
from ltm.books.catalogue import TextStore, read_catalogue, write_catalogue
from ltm.books.folder import BookFile, check_folder, list_files
from ltm.books.manifest import find_manifest
from ltm.books.parallel import most_workers
from ltm.errors import DamagedError
from ltm.evalset import stage as evalset_stage
from ltm.forecast.bill import Z90, Costs
from ltm.progress import Progress, Task
from ltm.records import Book
from ltm.runs import hardware, probe
from ltm.runs.executors.base import Executor
from ltm.runs.queue import Recipe
from ltm.sets import stage as sets_stage
from ltm.sets.section import SharesSection
from ltm.store import WorkFolder
from ltm.study import aftermath
from ltm.study.effort import Effort, Library
from ltm.study.processes import Load, children_peak_bytes, peak_bytes
from ltm.study.settings import StudySettings
from ltm.tokens import stage as tokens_stage

KJV_BYTES, KJV_BOOKS = 4_350_000, 66
_PARALLEL_BYTES = 8_200_000  # a library this large is read by several processes, and so must the sample be
_FEWEST_BOOKS = 12
_LARGEST_FILE = 20_000_000  # in a sample; archives and collected works would crowd everything else out
# Tables of words and 13-grams outgrow the caches: by how much a byte costs more with so many times as many of them.
_LOOKUP_GROWTH, _SORT_GROWTH = 0.1, 0.5
_BUSY = 0.1  # of the processors: less is the noise of any machine
_MOST_LOAD = 0.8  # what other programs took may be gone while the study runs, or may not: the range spans both


@dataclass
class Recorder(Progress):
    """Notes when things were done, and prints nothing."""

    marks: list[float] = field(default_factory=list)  # a task began, and each of its units was done
    said: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(quiet=True)
        self.began = time.monotonic()

    def task(self, stage: str, total: int, unit: str) -> Task:
        """Note the beginning of a task."""
        self.marks.append(time.monotonic() - self.began)
        return super().task(stage, total, unit)

    def draw(self, text: str, finished: bool) -> None:  # noqa: ARG002
        """Note that a unit is done."""
        self.marks.append(time.monotonic() - self.began)

    def say(self, text: str) -> None:  # noqa: ARG002
        """Note a message."""
        self.said.append(time.monotonic() - self.began)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began


def rehearse(
    settings: StudySettings, work: WorkFolder, pool: Executor, effort: Effort, progress: Progress
) -> tuple[Costs, Library]:
    """Return what every stage costs here, and what the library holds.

    Raises:
        LtmError: the library or the model cannot be used at all.
    """
    with _folder(pool) as scratch:
        progress.say("plan      a part of the library is read, cleaned and turned into tokens and questions")
        costs, library = _library(settings, work, scratch, effort)
        recipe = Recipe(settings.sets, settings.model, settings.runs)
        n_workers = hardware.n_workers(settings.runs, hardware.pick_device(settings.runs))
        progress.say(f"plan      the model is trained for some seconds on {n_workers} workers")
        probing = Load()
        seconds, rounds = effort.run_seconds, effort.rounds
        runs = probe.measure_runs(scratch, recipe, pool, n_workers, seconds, rounds, again=effort.after)
        share = min(_MOST_LOAD, probing.others())
        share = share if share > _BUSY else 0.0
        costs = dataclasses.replace(
            costs,
            workers_seconds=runs.start_seconds,
            tokens_per_second=runs.tokens_per_second / (1 - share) ** 0.5,
            run_seconds=runs.run_seconds,
            checkpoint_share=runs.checkpoint_share,
            weights_bytes=runs.weights_bytes,
            rows_bytes_per_run=runs.row_bytes + 4096,
            spread={**costs.spread, "runs": runs.spread},
            source="a rehearsal of this study on this machine",
        )
        progress.say("plan      the model answers questions; scores, patterns and page are made of made-up numbers")
        costs = aftermath.measure(settings, work, scratch, pool, n_workers, costs, library, effort)
        if share:
            progress.say(f"plan      other programs took {share:.0%} of the processors meanwhile: will they go on?")
        costs = dataclasses.replace(
            costs,
            worker_bytes=float(children_peak_bytes()),
            driver_bytes=float(peak_bytes()) or costs.driver_bytes,
            machine_spread=max(costs.machine_spread, -math.log(1 - share) / 2 / Z90),
            score_seconds=costs.score_seconds * (1 - share) ** 0.5,
        )
        return costs, library


@contextlib.contextmanager
def _folder(pool: Executor) -> Iterator[WorkFolder]:
    """Give a folder that is deleted; workers that a stop leaves at work end before, else they would make it again."""
    with tempfile.TemporaryDirectory(prefix="ltm-plan-", ignore_cleanup_errors=True) as name:
        work = WorkFolder(Path(name) / "work")
        work.create()
        try:
            yield work
        except BaseException:
            pool.close(graceful=False)  # what they train is thrown away
            raise


def _library(settings: StudySettings, work: WorkFolder, scratch: WorkFolder, effort: Effort) -> tuple[Costs, Library]:
    """Lay out books, a small design, tokens and questions in the scratch folder, and time it."""
    costs, library = Costs(), None
    if work.path("books", "catalogue.parquet").exists():
        with contextlib.suppress(DamagedError):  # the stage will mend it; the books themselves are there
            library = _from_catalogue(work, scratch, effort.library_bytes)
    if library is None:
        costs, library = _read_sample(settings, scratch, effort.library_bytes)
    costs = dataclasses.replace(costs, sets_seconds=_timed(lambda: _small_design(settings, scratch)))
    costs = _tokens(settings, scratch, costs, library.train_bytes)
    return _questions(settings, scratch, costs, library), library


def _timed(action: Callable[[], Any]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def _from_catalogue(work: WorkFolder, scratch: WorkFolder, limit: int) -> Library:
    """Copy some of the study's own books."""
    books = read_catalogue(work)
    rng = np.random.default_rng(0)
    chosen: list[Book] = []
    pools = {pool: [b for b in books if b.pool == pool] for pool in ("train", "eval_a", "eval_b")}
    for pool, share in (("train", 0.7), ("eval_a", 0.15), ("eval_b", 0.15)):
        left = limit * share
        for i in rng.permutation(len(pools[pool])):
            if left <= 0 and sum(b.pool == pool for b in chosen) >= 2:
                break
            chosen.append(pools[pool][i])
            left -= pools[pool][i].n_bytes
    texts, copies = TextStore(work), TextStore(scratch)
    for book in chosen:
        copies.write(book.book_id, texts.read(book.book_id))
    write_catalogue(scratch, chosen, [])
    train = pools["train"]
    held_out = len(books) - len(train)
    total = float(sum(b.n_bytes for b in books))
    return Library(len(books), total, len(train), float(sum(b.n_bytes for b in train)), held_out, True)


def _read_sample(settings: StudySettings, scratch: WorkFolder, limit: int) -> tuple[Costs, Library]:
    """Read a part of the library with the books stage itself."""
    section, files = settings.books, _files(settings)
    n_files, n_bytes = (len(files), sum(f.n_bytes for f in files)) if files else (KJV_BOOKS, KJV_BYTES)
    if section.max_books is not None and n_files > section.max_books:
        n_bytes, n_files = round(n_bytes * section.max_books / n_files), section.max_books
    sampled, sizes = section, [n_bytes / max(1, n_files)] * n_files
    if files:
        target = max(limit, _PARALLEL_BYTES) if n_bytes >= _PARALLEL_BYTES else limit
        if n_bytes > 1.3 * target:
            chosen = _choose(files, target)
            sampled = _copied(settings, chosen, scratch.root.parent / "library")
            sizes = [float(f.n_bytes) for f in sorted(chosen, key=lambda f: f.relative)]
    elif n_bytes > 1.3 * limit:
        count = max(_FEWEST_BOOKS, round(n_files * limit / n_bytes))
        sampled, sizes = section.model_copy(update={"max_books": count}), sizes[:count]
    note = Recorder()
    books_stage.build(sampled, scratch, settings.seed, note)
    seconds = note.seconds
    books = read_catalogue(scratch)
    train = [b for b in books if b.pool == "train"]
    scale = n_bytes / max(1.0, sum(sizes))
    fixed, per_byte = _line(note.marks, sizes, most_workers())
    tail = max(0.0, seconds - note.marks[-1])
    whole = scale <= 1.001
    library = Library(
        n_files=n_files,
        file_bytes=float(n_bytes),
        train_books=len(train) if whole else max(1, round(len(train) * scale)),
        train_bytes=sum(b.n_bytes for b in train) * max(1.0, scale),
        held_out_books=(len(books) - len(train)) * max(1.0, scale),
        exact=whole,
    )
    costs = Costs(
        books_seconds=seconds if whole else fixed + 0.5 * tail,
        books_seconds_per_byte=0.0 if whole else per_byte + 0.5 * tail / max(1.0, sum(sizes)),
        spread={"books": 0.05 if whole else 0.08},
    )
    return costs, library


def _line(marks: list[float], sizes: list[float], n_parallel: int) -> tuple[float, float]:
    """Return (seconds before the work flows, seconds per byte) from when each file was done.

    The slope is taken while all processes are busy: from when the first files are done to before the last ones are.
    """
    done = marks[1:]
    first, last = min(n_parallel, len(done)) - 1, len(done) - n_parallel
    n_bytes = sum(sizes[first + 1 : last + 1])
    if last - first < _FEWEST_BOOKS // 2 or n_bytes <= 0 or done[last] <= done[first]:
        return 0.0, marks[-1] / max(1.0, sum(sizes))
    per_byte = (done[last] - done[first]) / n_bytes
    return max(0.0, done[first] - per_byte * sum(sizes[: first + 1])), per_byte


def _files(settings: StudySettings) -> list[BookFile]:
    if settings.books.source == "kjv":
        return []
    root = check_folder(settings.books.path)
    return [f for f in list_files(root, settings.books.manifest) if not f.problem]


def _choose(files: list[BookFile], target: int) -> list[BookFile]:
    """Return random files of about so many bytes in all, with the mean size of the library."""
    usable = [f for f in files if f.n_bytes <= _LARGEST_FILE] or files
    order = np.random.default_rng(0).permutation(len(usable))
    chosen: list[BookFile] = []
    total = 0
    for i in order:
        if total >= target and len(chosen) >= _FEWEST_BOOKS:
            break
        chosen.append(usable[i])
        total += usable[i].n_bytes
    return chosen


def _copied(settings: StudySettings, chosen: list[BookFile], folder: Path) -> Any:
    """Copy files and their manifest to a folder of the same name; return the section that reads it."""
    root = check_folder(settings.books.path).absolute()
    target = folder / root.name
    for file in chosen:
        copy = target / file.relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.opened, copy)
    manifest = find_manifest(root, settings.books.manifest)
    changes: dict[str, Any] = {"path": str(target), "held_out_authors": [], "max_books": None, "manifest": None}
    if manifest is not None:
        beside = manifest.resolve().parent == root.resolve().parent
        copy = (folder if beside else target) / manifest.name
        shutil.copyfile(manifest, copy)
        changes["manifest"] = str(copy)
    return settings.books.model_copy(update=changes)


def _small_design(settings: StudySettings, scratch: WorkFolder) -> None:
    """Draw a few sets of the sampled books, of the study's size where there are enough."""
    n_train = sum(b.pool == "train" for b in read_catalogue(scratch))
    shares = SharesSection(single=1.0, seeds=0.0, order=0.0, gaps=0.0)
    size = max(1, min(settings.sets.books_per_set, n_train))
    count = max(4, -(-n_train // size))
    changes = {
        "count": count,
        "books_per_set": size,
        "shares": shares,
        "spacing": 1,
        "among": None,
        "editions": "apart",
    }
    section = settings.sets.model_copy(update=changes)
    sets_stage.build(section, scratch, settings.seed, Progress(quiet=True))


def _tokens(settings: StudySettings, scratch: WorkFolder, costs: Costs, train_bytes: float) -> Costs:
    used = {book_id for variant in sets_stage.read_variants(scratch) for book_id in variant.book_ids}
    n_bytes = sum(b.n_bytes for b in read_catalogue(scratch) if b.book_id in used)
    wanted = settings.tokens.sample_bytes
    note = Recorder()
    tokens_stage.build(settings.tokens, scratch, settings.seed, note)
    scale = min(wanted, train_bytes) / max(1.0, min(wanted, n_bytes))  # the sample may hold less text than is wanted
    trained, encoded, end = note.marks[0], note.marks[-1] - note.marks[0], note.seconds - note.marks[-1]
    tokens = scratch.path("tokens", "tokens.bin").stat().st_size
    return dataclasses.replace(
        costs,
        tokens_seconds=trained * max(1.0, scale) + end,
        tokens_seconds_per_byte=encoded / max(1, n_bytes),
        text_bytes_per_byte=1.0 + tokens / max(1, n_bytes),
    )


def _questions(settings: StudySettings, scratch: WorkFolder, costs: Costs, library: Library) -> Costs:
    """Build both banks from the sampled held-out books."""
    books = read_catalogue(scratch)
    train_bytes = sum(b.n_bytes for b in books if b.pool == "train")
    n_held_out = sum(b.pool != "train" for b in books)
    note = Recorder()
    evalset_stage.build(settings.evalset, scratch, settings.seed, note)
    sorted_, compared = note.marks[0], note.marks[-1] - note.marks[0]
    cut = note.seconds - note.marks[-1]
    more_held_out = max(1.0, library.held_out_books / max(1, n_held_out))
    more_text = max(1.0, library.train_bytes / max(1, train_bytes))
    return dataclasses.replace(
        costs,
        evalset_seconds=0.5 * cut,  # items are as many as are wanted; half of the work goes by the books they are from
        evalset_seconds_per_byte=compared / max(1, train_bytes) * more_text**_LOOKUP_GROWTH,
        evalset_seconds_per_book=(0.5 * cut + sorted_ * more_held_out**_SORT_GROWTH) / max(1, n_held_out),
    )
