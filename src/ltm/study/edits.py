"""What an edited study would do to the runs that are already there: found out before anything is written.

Reads: `study.json` (the settings that the work folder was made with), markers, design, queue. Writes: `earlier/`, the
queue and design as they were before a change that was accepted, so that `ltm why` can still explain every old run.
Nothing of a run is deleted: one that is no longer asked for stays on the disk, and counts again when the change is
undone.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltm.config import Document
from ltm.errors import InputError, LtmError, StoreError
from ltm.records import Variant
from ltm.runs import index, queue
from ltm.runs.section import WITHOUT_EFFECT
from ltm.sets import stage as sets_stage
from ltm.sets.stage import read_variants, used_books
from ltm.store import WorkFolder, fingerprint, read_json, write_bytes, write_json
from ltm.study.rounds import Rounds
from ltm.study.settings import StudySettings, differences
from ltm.study.standing import stage_inputs
from ltm.tokens.stream import read_shards
from ltm.tokens.tokenizer import identity
from ltm.units import format_seconds

# Sections that change how results are shown, followed or paid for, never what was trained or drawn.
_FREE_TO_CHANGE = (
    "budget",
    "dashboard",
    "dialogue",
    "forecast",
    "patterns",
    "scores",
    "question",
    "trackers",
    "overrides",
    "work",
)
# Where files lie and how fast runs are trained; what the files hold is noticed by the stages themselves.
_WITHOUT_EFFECT = (
    *("runs.workers", "runs.retries", "runs.checkpoint_seconds", "books.path", "books.manifest"),
    *(f"runs.{name}" for name in WITHOUT_EFFECT),
)
_SHOWN_LINES = 12
EARLIER = "earlier"


@dataclass(frozen=True)
class Edit:
    """What going on with a study would change in its work folder."""

    changed: list[str] = field(default_factory=list)  # `file:line:column: section.key: old -> new`
    causes: list[str] = field(default_factory=list)  # what changed beside the settings
    kept: int = 0  # finished runs that the study still asks for
    dropped: list[str] = field(default_factory=list)  # finished runs that it would no longer ask for
    dropped_seconds: float = 0.0  # of training
    added: int | None = None  # runs to be trained; None = known only once the library is read
    rescored: int = 0  # finished runs whose scores are made again

    @property
    def loses(self) -> bool:
        """Whether finished work would no longer be used."""
        return bool(self.dropped or self.rescored)

    def in_words(self) -> list[str]:
        """Return what changed, what is kept and what is made again, a line each."""
        lines = [*self.changed[:_SHOWN_LINES], *self.causes]
        if len(self.changed) > _SHOWN_LINES:
            lines.insert(_SHOWN_LINES, f"... and {len(self.changed) - _SHOWN_LINES} more settings")
        lines.append(f"kept: {self.kept} finished runs")
        if self.dropped:
            took = format_seconds(self.dropped_seconds)
            lines.append(
                f"no longer used: {len(self.dropped)} finished runs ({took} of training); their files stay, "
                "and they count again if you change it back"
            )
        if self.rescored:
            lines.append(f"asked again: the questions change, so {self.rescored} finished runs are scored anew")
        if self.added is None:
            lines.append("to be trained: known once the library is read")
        elif self.added:
            lines.append(f"to be trained: {self.added} runs")
        return lines


def look(settings: StudySettings, document: Document, work: WorkFolder) -> Edit:
    """Return what a start with these settings would change; writes nothing.

    Raises:
        LibraryError: the edited design asks for more books than there are.
    """
    if not work.path("runs", "jobs.json").exists() or not work.path("study.json").exists():
        return Edit()  # nothing was trained yet
    try:
        jobs = queue.read_jobs(work)[1]
        changed = changed_settings(settings, work)
    except (StoreError, KeyError, TypeError):
        return Edit()  # damaged: the stages find out themselves, and build it anew
    shown = [f"{_where(document, line)}{line}" for line in changed]
    complete = list(index.briefs(work, [job.run_id for job in jobs]))
    wanted, rescored, causes = _wanted(settings, work, changed)
    return _counted(work, shown, causes, complete, wanted, rescored)


def changed_settings(settings: StudySettings, work: WorkFolder) -> list[str]:
    """Return `section.key: old -> new` for each setting that can change what comes out.

    Raises:
        StoreError: the work folder's `study.json` is damaged.
    """
    old = read_json(work.path("study.json"))
    if not isinstance(old, dict):
        raise StoreError(f"{work.path('study.json')} is damaged")
    new = json.loads(settings.model_dump_json())
    before, after = ({k: v for k, v in side.items() if k not in _FREE_TO_CHANGE} for side in (old, new))
    added = _keys_with_defaults(before, after)
    lines = differences(before, after)
    without = (*_WITHOUT_EFFECT, *added)
    return [line for line in lines if not any(line.startswith((f"{name}:", f"{name}.")) for name in without)]


def _keys_with_defaults(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the settings that the old study could not have: those of a newer ltm, which stand at their defaults."""
    found: list[str] = []
    for key, value in after.items():
        name = f"{prefix}{key}"
        if key not in before:
            found.append(name)
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping):
            found += _keys_with_defaults(before[key], value, f"{name}.")
    return found


def allow(edit: Edit, accept_changes: bool, work: WorkFolder) -> None:
    """Refuse an edit that makes finished work useless, unless it is accepted.

    Raises:
        InputError: says what changed, what is kept and what is made again.
    """
    if edit.loses and not accept_changes:
        raise InputError(
            f"the study in {work.root} was edited since its runs were made:\n  " + "\n  ".join(edit.in_words()),
            "add --accept-changes to go on, change it back (give the same --set again), or choose another --work; "
            "nothing was written",
        )


def keep_earlier(work: WorkFolder, edit: Edit) -> None:
    """Keep the queue and the design as they were before a change."""
    try:
        jobs = queue.read_jobs(work)[1]
        names = {key: queue.keep_recipe(work, shared) for key, shared in queue.read_shared(work).items()}
        folder = work.path(EARLIER, fingerprint([names, [dataclasses.asdict(job) for job in jobs]]))
        if (folder / "about.json").exists():
            return
        for source in (("study.json",), ("runs", "jobs.json"), ("sets", "variants.parquet")):
            write_bytes(folder / source[-1], work.path(*source).read_bytes())
    except (StoreError, OSError):
        return  # what is not whole explains nothing
    about = {"recipes": names, "until": _now(), "changed": edit.changed + edit.causes, "runs": len(jobs)}
    write_json(folder / "about.json", about)


def _wanted(
    settings: StudySettings, work: WorkFolder, changed: Sequence[str]
) -> tuple[set[str] | None, int, list[str]]:
    """Return the run ids that the study asks for (None: cannot be told yet), runs to be scored again, and why."""
    outputs: dict[str, str] = {}
    try:
        inputs = stage_inputs(settings, "books", outputs)
    except LtmError:
        return _stored(work), 0, []  # no library here: the build says so
    if _is_torn(work):
        return _stored(work), 0, []  # files are damaged or gone: they are made again, which is no edit
    found = work.output_of("books", inputs)
    if found is None:
        why = [] if _touches(changed, "books", "seed") else ["the library's files, or ltm's way of reading, changed"]
        return None, _scored(work), why
    outputs["books"] = found
    causes: list[str] = []
    rescored = 0
    asked = stage_inputs(settings, "evalset", outputs)
    if work.output_of("evalset") is not None and work.output_of("evalset", asked) is None:
        rescored = _scored(work)
        causes += [] if _touches(changed, "evalset", "seed") else ["the eval file, or ltm's way of asking, changed"]
    variants, found_sets, drawn_anew = _variants(settings, work, outputs)
    drawn_by_settings = _touches(changed, "sets", "rounds", "seed")
    if drawn_anew and _touches(changed, "sets.count"):
        causes += _why_not_grown(settings, work, variants)
    if drawn_anew and not drawn_by_settings and {v.variant_id for v in variants} - _stored_variants(work):
        causes.append("the way of drawing sets changed")
    if not _same_tokenizer(settings, work, {**outputs, **found_sets}, changed):
        causes += [] if _touches(changed, "tokens") else ["ltm's way of making tokens changed"]
        return set(), rescored, causes
    stored = _stored(work)
    if not changed and not drawn_anew and _run_ids(settings, work, variants[:1]) <= stored:
        return stored, rescored, causes  # the usual case, and there may be many
    return _run_ids(settings, work, variants), rescored, causes


def _why_not_grown(settings: StudySettings, work: WorkFolder, variants: Sequence[Variant]) -> list[str]:
    """Return in words why another `sets.count` does not only add sets, or nothing where it does."""
    if settings.rounds.enabled:
        return ["a study in rounds divides its runs anew for another sets.count: all its sets are drawn anew"]
    if _stored_variants(work) <= {v.variant_id for v in variants}:
        return []
    return ["sets are drawn anew: they are only added to where sets.count grows and nothing else of the design changes"]


def _is_torn(work: WorkFolder) -> bool:
    """Return whether what the runs were made from is damaged, or was just cleared away because it was."""
    needed = (
        ("books", "done.json"),
        ("sets", "variants.parquet"),
        ("tokens", "done.json"),
        ("tokens", "shards.parquet"),
    )
    if not all(work.path(*parts).exists() for parts in needed):
        return True
    try:
        for stage in ("books", "sets", "tokens", "evalset"):
            if work.path(stage, "done.json").exists():
                read_json(work.path(stage, "done.json"))
                work.check(stage)
    except StoreError:
        return True
    return False


def _stored_variants(work: WorkFolder) -> set[str]:
    try:
        return {variant.variant_id for variant in read_variants(work)}
    except StoreError:
        return set()


def _touches(changed: Sequence[str], *sections: str) -> bool:
    return any(line.startswith((f"{section}.", f"{section}:")) for line in changed for section in sections)


def _stored(work: WorkFolder) -> set[str]:
    return {job.run_id for job in queue.read_jobs(work)[1]}


def _scored(work: WorkFolder) -> int:
    return sum(1 for job in queue.read_jobs(work)[1] if work.path("scores", f"{job.run_id}.parquet").exists())


def _variants(
    settings: StudySettings, work: WorkFolder, outputs: Mapping[str, str]
) -> tuple[list[Variant], dict[str, str], bool]:
    """Return the design of the edited study, what identifies it, and whether it is drawn anew (and not stored).

    Of a study in rounds only the first can be drawn before its runs are scored.
    """
    rounds = Rounds(settings, work)
    if rounds.enabled:
        found = rounds.output(outputs["books"])
    else:
        found = work.output_of("sets", stage_inputs(settings, "sets", outputs))
    if found is None:
        return drawn(settings, work), {}, True
    return read_variants(work), {"sets": found, "used": used_books(work)}, False


def drawn(settings: StudySettings, work: WorkFolder) -> list[Variant]:
    """Return the variants of a study's first round as they come out of its seed and the stored catalogue.

    Raises:
        LibraryError: there are too few books.
        StoreError: the catalogue is missing or damaged.
    """
    section, rounds = settings.sets, Rounds(settings, work)
    if rounds.enabled:
        return rounds.preview()
    return sets_stage.drawn(section, work, settings.seed)


def _same_tokenizer(
    settings: StudySettings, work: WorkFolder, outputs: Mapping[str, str], changed: Sequence[str]
) -> bool:
    """Return whether the tokens stage would make the tokenizer that is there: all but the design is as it was.

    Where a marker is lost to damage, the settings decide.
    """
    stored = work.output_of("sets")
    if stored is None or work.output_of("tokens") is None:
        return not _touches(changed, "tokens", "books")
    before = {**outputs, "sets": stored, "used": _used(work)}
    return work.output_of("tokens", stage_inputs(settings, "tokens", before)) is not None


def _used(work: WorkFolder) -> str:
    try:
        return used_books(work)
    except StoreError:
        return ""


def _run_ids(settings: StudySettings, work: WorkFolder, variants: Sequence[Variant]) -> set[str]:
    """Return the ids of the runs of some variants; a book that was never cut into tokens makes a new run anyway."""
    shards = read_shards(work)
    known = [v for v in variants if all(book in shards for book in v.book_ids)]
    ids = {job.run_id for job in Rounds(settings, work).jobs(known, identity(work), shards)}
    new = (v for v in variants if any(book not in shards for book in v.book_ids))
    return ids | {f"new {v.variant_id} {seed}" for v in new for seed in v.init_seeds}


def _counted(
    work: WorkFolder, shown: list[str], causes: list[str], complete: list[str], wanted: set[str] | None, rescored: int
) -> Edit:
    dropped = [run_id for run_id in complete if wanted is None or run_id not in wanted]
    seconds = sum(run.seconds for run_id in dropped if (run := queue.read_run(work, run_id)) is not None)
    kept = len(complete) - len(dropped)
    if wanted is None:
        return Edit(shown, causes, kept, dropped, seconds, None, 0)
    before = set(index.briefs(work, sorted(wanted))) if shown or causes else set(complete)  # of earlier settings too
    return Edit(shown, causes, kept, dropped, seconds, len(wanted - before), min(rescored, kept))


def _where(document: Document, line: str) -> str:
    """Return `file:line:column: ` of a changed setting, where the file has it."""
    location = tuple(line.split(":")[0].split("."))
    return f"{document.where(location)}: " if location in document.positions else ""


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
