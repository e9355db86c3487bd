"""Check a study, in its work folder or in an archive: files, design, run ids, weights, scores, findings - and the runs.

Reads: the work folder or archive. Writes: nothing there; a run that is trained again, findings that are inferred again
and a library that is read again lie in a temporary folder.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ltm.errors import DamagedError, InputError, LtmError
from ltm.progress import Progress
from ltm.runs import queue
from ltm.seal import check_file
from ltm.sets import stage as sets_stage
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder
from ltm.study import provenance
from ltm.study.archive import opened
from ltm.study.edits import drawn
from ltm.study.pack import STUDY, WEIGHTS
from ltm.study.study import Study, load
from ltm.tokens.stream import read_shards
from ltm.tokens.tokenizer import identity

OK, WRONG, UNKNOWN = "ok", "wrong", "cannot tell"
_SHOWN = 5
_SEALED = (".json", ".parquet", ".safetensors")


@dataclass(frozen=True)
class Check:
    """One thing that was checked."""

    name: str
    verdict: str  # ok, wrong or cannot tell
    words: str
    details: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All checks of one study."""

    target: str
    id: str  # of an archive's contents; empty for a work folder
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.verdict != WRONG for check in self.checks)

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"target": self.target, "id": self.id, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def in_words(self) -> str:
        """Return it as a person reads it."""
        head = f"{self.target}{f' (id {self.id})' if self.id else ''}"
        lines = [head]
        for check in self.checks:
            lines.append(f"  {check.verdict:<11} {check.name}: {check.words}")
            lines += [f"              {line}" for line in check.details[:_SHOWN]]
            if len(check.details) > _SHOWN:
                lines.append(f"              ... and {len(check.details) - _SHOWN} more (--json has all)")
        n_wrong = sum(check.verdict == WRONG for check in self.checks)
        return "\n".join(
            [*lines, f"{n_wrong} of {len(self.checks)} checks found something wrong" if n_wrong else "fine"]
        )


def verify_folder(study: Study, rerun: int, progress: Progress) -> Report:
    """Check a study in its work folder.

    Args:
        study: Bound to its work folder.
        rerun: How many of its runs to train again.
        progress: Told what happens.

    Raises:
        InputError: there is nothing to check.
    """
    if not study.work.path("runs", "jobs.json").exists():
        raise InputError(f"{study.work.root} has no runs to check", "run the study first: ltm run STUDY")
    checks = [_seals(study.work), *_contents(study, progress)]
    if rerun:
        checks.append(_again(study, study.work, rerun, progress))
    return Report(str(study.work.root), "", checks)


def verify_archive(path: Path, rerun: int, library: str | None, progress: Progress) -> Report:
    """Check a study in an archive; with `rerun`, read the library anew and train runs from it.

    Args:
        path: The archive.
        rerun: How many of its runs to train again.
        library: Folder of the books, where the archive's study has a library of its own.
        progress: Told what happens.

    Raises:
        InputError: it is not an archive of `ltm pack`.
    """
    with opened(path) as (folder, manifest, problems):
        files = manifest["files"]
        n_bytes = sum(int(about["bytes"]) for about in files.values())
        words = f"{len(files)} files, {n_bytes:,} bytes, each with the hash on the list"
        checks = [
            Check("files", WRONG, f"{len(problems)} problems", problems) if problems else Check("files", OK, words)
        ]
        if left := manifest.get("left_out"):
            reasons = sorted({str(row["why"]) for row in left})
            checks.append(Check("left out", UNKNOWN, f"{len(left)} files stayed where the study was made", reasons))
        if (folder / STUDY).exists() and (folder / "runs" / "jobs.json").exists():
            study = load(folder / STUDY, _inputs(folder), work=str(folder))
            checks += _contents(study, progress)
            if rerun:
                with _elsewhere(study, library, progress) as (found, place):
                    checks += found
                    checks += [_again(study, place, rerun, progress)] if place is not None else []
        return Report(str(path), str(manifest.get("id", "")), checks)


def _inputs(folder: Path) -> dict[str, Any]:
    from ltm.study.pack import EVAL_FILE

    path = folder / EVAL_FILE
    return {"evalset.path": str(path)} if path.exists() else {}


def _contents(study: Study, progress: Progress) -> list[Check]:
    """Return what the files say of each other."""
    work = study.work
    named: list[tuple[str, Callable[[], Check]]] = [
        ("design", lambda: _design(study)),
        ("run ids", lambda: _run_ids(study)),
        ("runs", lambda: _rows(work)),
        ("weights", lambda: _weights(work)),
        ("scores", lambda: _scores(work)),
        ("findings", lambda: _findings(study, progress)),
    ]
    checks = []
    for name, check in named:
        try:
            checks.append(check())
        except DamagedError as error:
            checks.append(Check(name, WRONG, error.message))
        except LtmError as error:
            checks.append(Check(name, UNKNOWN, error.message))
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            checks.append(Check(name, WRONG, f"a file does not hold what it should ({type(error).__name__}: {error})"))
    return checks


def _seals(work: WorkFolder) -> Check:
    damaged, n_files = [], 0
    for folder, names, files in os.walk(work.root):
        names[:] = [name for name in names if name not in ("trackers", "export")]
        for name in files:
            if name.endswith(_SEALED) and not name.startswith("."):
                n_files += 1
                try:
                    check_file(Path(folder, name))
                except LtmError:
                    damaged.append(Path(folder, name).relative_to(work.root).as_posix())
    if damaged:
        return Check("files", WRONG, f"{len(damaged)} of {n_files} files are not what was written", sorted(damaged))
    return Check("files", OK, f"{n_files} files are what was written")


def _design(study: Study) -> Check:
    if problem := sets_stage.verify(study.work):
        return Check("design", WRONG, problem)
    variants = read_variants(study.work)
    first = {v.variant_id: v for v in drawn(study.settings, study.work)}
    stored = {v.variant_id: v for v in variants}
    if lost := first.keys() - stored.keys():
        words = f"drawn again, {len(lost)} of {len(first)} variants come out otherwise"
        return Check("design", WRONG, words, sorted(lost))
    drawn_again = f"{len(first)} of {len(variants)} variants" if len(first) < len(variants) else f"all {len(first)}"
    return Check(
        "design", OK, f"its hash is the one it was drawn with; drawn again from its seed, {drawn_again} the same"
    )


def _run_ids(study: Study) -> Check:
    known = provenance.origins(study.work)
    wrong = [run_id for run_id, origin in known.items() if origin.recomputed not in (run_id, None)]
    lost = sum(origin.recomputed is None for origin in known.values())
    if wrong:
        return Check("run ids", WRONG, f"{len(wrong)} of {len(known)} do not follow from what they name", sorted(wrong))
    asked = study.jobs_by_settings()
    stored = {job.run_id for job in study.jobs()}
    if asked != stored:
        words = f"the settings ask for {len(asked - stored)} runs that are not in the queue"
        return Check("run ids", WRONG, words, sorted(asked ^ stored))
    note = f"; of {lost} the recipe is not recorded" if lost else ""
    return Check("run ids", OK, f"{len(known) - lost} recomputed, all the same{note}")


def _rows(work: WorkFolder) -> Check:
    jobs = queue.read_jobs(work)[1]
    wrong, complete = [], 0
    for job in jobs:
        run = queue.read_run(work, job.run_id)
        if run is None:
            continue
        complete += 1
        if (run.run_id, run.variant_id, run.init_seed) != (job.run_id, job.variant_id, job.init_seed):
            wrong.append(f"{job.run_id}: its row is another run's")
        elif not math.isfinite(run.final_loss) or (run.curve_tokens and run.curve_tokens[-1] != run.n_tokens):
            wrong.append(f"{job.run_id}: its curve does not end with its last token")
    if wrong:
        return Check("runs", WRONG, f"{len(wrong)} rows contradict themselves", wrong)
    return Check("runs", OK if complete == len(jobs) else UNKNOWN, f"{complete} of {len(jobs)} are finished")


def _weights(work: WorkFolder) -> Check:
    folders = {job.run_id: work.path("runs", job.run_id) for job in queue.read_jobs(work)[1]}
    kept = [i for i, folder in folders.items() if (folder / WEIGHTS).exists() or any(folder.glob("*/*.safetensors"))]
    if not kept:
        return Check("weights", UNKNOWN, "none are here; their hashes stand in the runs' rows")
    from ltm.runs import checkpoint
    from ltm.runs.engines.start import kept_digest

    wrong = []
    for run_id in kept:
        run, path = queue.read_run(work, run_id), folders[run_id] / WEIGHTS
        try:
            own = path.exists()  # else a model of transformers, or adapters
            digest = checkpoint.digest_of(checkpoint.read_weights(path)) if own else kept_digest(folders[run_id])
        except LtmError:
            digest = ""
        if run is not None and run.weights_sha256 and digest != run.weights_sha256:
            wrong.append(run_id)
    if wrong:
        return Check("weights", WRONG, f"{len(wrong)} of {len(kept)} are not those that were trained", wrong)
    return Check("weights", OK, f"{len(kept)} are those that were trained, bit for bit")


def _scores(work: WorkFolder) -> Check:
    jobs = [job.run_id for job in queue.read_jobs(work)[1] if queue.state_of(work, job.run_id) == "complete"]
    missing = [run_id for run_id in jobs if not work.path("scores", f"{run_id}.parquet").exists()]
    if missing:
        return Check("scores", UNKNOWN, f"{len(missing)} of {len(jobs)} finished runs have none", missing)
    return Check("scores", OK, f"all {len(jobs)} finished runs have theirs")


def _findings(study: Study, progress: Progress) -> Check:
    """Infer the findings again from the rows, and compare the bytes."""
    from ltm.patterns import stage

    work = study.work
    names = ("effects.parquet", "ranking.parquet", "findings.json")
    if not all(work.path("patterns", name).exists() for name in names):
        return Check("findings", UNKNOWN, "there are none yet")
    progress.say("verify    the findings are inferred again")
    with _mirror(work, leave="patterns") as copy:
        stage.build(study.settings.patterns, copy, study.settings.seed, Progress(quiet=True))
        other = [n for n in names if copy.path("patterns", n).read_bytes() != work.path("patterns", n).read_bytes()]
    if other:
        return Check("findings", WRONG, "inferred again from the rows, they come out otherwise", other)
    return Check("findings", OK, "inferred again from the rows: the same bytes")


@contextlib.contextmanager
def _mirror(work: WorkFolder, leave: str) -> Iterator[WorkFolder]:
    """Give a temporary work folder that shows all of another one but one stage, which may be built there."""
    with tempfile.TemporaryDirectory(prefix="ltm-verify-") as folder:
        for path in work.root.resolve().iterdir():
            if path.name != leave and not path.name.startswith("."):
                (Path(folder) / path.name).symlink_to(path)
        yield _Mirror(Path(folder), work.root.resolve())


class _Mirror(WorkFolder):
    """A work folder whose stages lie in another one."""

    def __init__(self, root: Path, source: Path) -> None:
        super().__init__(root)
        self.source = source

    def path(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        if any(path.resolve().is_relative_to(base.resolve()) for base in (self.root, self.source)):
            return path
        return super().path(*parts)


@contextlib.contextmanager
def _elsewhere(
    study: Study, library: str | None, progress: Progress
) -> Iterator[tuple[list[Check], WorkFolder | None]]:
    """Make the archive's tokens here, from its own or from the library; gives what differs, and where they lie."""
    if study.work.path("tokens", "tokens.bin").exists():
        yield [], study.work
        return
    if study.settings.books.source == "folder" and library is None:
        yield [Check("library", UNKNOWN, "no run can be trained again without the books: --library DIR")], None
        return
    with tempfile.TemporaryDirectory(prefix="ltm-verify-") as folder:
        over: dict[str, Any] = {**_inputs(study.work.root), **({"books.path": library} if library else {})}
        again = load(study.work.path(STUDY), over, work=folder)
        progress.say("verify    the library is read again")
        try:
            again.run(until="tokens", progress=progress)
        except LtmError as error:
            yield [Check("library", WRONG, f"it cannot be read here: {error.message}")], None
            return
        checks = [_same_books(study.work, again.work)]
        checks.append(_same_tokens(study.work, again.work))
        yield checks, again.work if all(check.verdict == OK for check in checks) else None


def _same_books(work: WorkFolder, again: WorkFolder) -> Check:
    from ltm.books.catalogue import columns

    one, two = (
        dict(zip(*(columns(side, ["book_id", "title"]).column(i).to_pylist() for i in (0, 1)), strict=True))
        for side in (work, again)
    )
    lost = sorted(one[book] for book in one.keys() - two.keys())
    more = sorted(two[book] for book in two.keys() - one.keys())
    if lost or more:
        details = [f"not here: {title}" for title in lost] + [f"only here: {title}" for title in more]
        return Check("library", WRONG, f"{len(lost)} books are missing and {len(more)} are new", details)
    return Check("library", OK, f"all {len(one)} books have the same text")


def _same_tokens(work: WorkFolder, again: WorkFolder) -> Check:
    if identity(work) != identity(again):
        return Check("tokens", WRONG, "the tokenizer comes out otherwise")
    one, two = read_shards(work), read_shards(again)
    other = [book for book in one if book not in two or one[book].chapter_starts != two[book].chapter_starts]
    if other:
        return Check("tokens", WRONG, f"{len(other)} books are cut into other tokens", sorted(other))
    return Check("tokens", OK, f"the same tokenizer, and the same tokens of {len(one)} books")


def _again(study: Study, tokens: WorkFolder, count: int, progress: Progress) -> Check:
    """Train some runs again and compare the weights' bits, else the losses."""
    from ltm.study.retrain import retrain

    try:
        return retrain(study.work, tokens, count, progress)
    except LtmError as error:
        return Check("trained again", WRONG, error.message)
