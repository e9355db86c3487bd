"""Read what a study's work folder holds so far; a missing or damaged file is noted, never fatal.

Reads: study.json, books/, sets/, tokens/, runs/, evalset/, scores/, patterns/, dialogue/, forecast.json, timings.json.
Writes: nothing. The page must work at any moment of a study, so each file stands alone here: what cannot be read is
left empty and named in `Inputs.problems`, and its chapter says so.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ltm.errors import LtmError
from ltm.records import (
    Book,
    Effect,
    Gain,
    Item,
    Measure,
    Ranked,
    Rejected,
    Reliability,
    Run,
    Shard,
    Snapshot,
    Tuned,
    Variant,
)
from ltm.store import WorkFolder, read_json, read_rows

Row = TypeVar("Row")
_UNSEEN = re.compile("[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]+")
MISSING, DAMAGED = "missing", "damaged"
FAILED, STOPPED, BEGUN = "failed", "stopped", "begun"
ROUNDS = ("pilot", "exploration", "adaptive", "confirmation")
_LOG_CHARACTERS = 1500


@dataclass(frozen=True)
class Ended:
    """A run without a result: failed, stopped for good, or begun and not ended (under way, interrupted or lost)."""

    run_id: str
    state: str
    reason: str = ""
    attempts: int = 0
    log: str = ""
    """Last lines that it wrote."""


@dataclass(frozen=True)
class Inputs:
    """All rows that the page is made from; empty where a file is absent."""

    study: dict[str, Any] = field(default_factory=dict)
    books: list[Book] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    reliability: list[Reliability] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    ranked: list[Ranked] = field(default_factory=list)
    tuned: list[Tuned] = field(default_factory=list)
    gains: list[Gain] = field(default_factory=list)
    findings: dict[str, Any] = field(default_factory=dict)
    forecast: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    emergence: list[Effect] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    score_report: dict[str, Any] = field(default_factory=dict)
    questions: dict[str, Any] = field(default_factory=dict)
    """`evalset/report.json`."""
    design: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, Any] = field(default_factory=dict)
    """What the pilot taught."""
    rounds: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`sets/<round>/round.json` of the rounds that are drawn, in their order."""
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`runs/recipes/<name>.json`: what runs of one study share, all that their ids follow from but the set and seed."""
    ended: list[Ended] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    """Path below the work folder to `missing` or `damaged`."""
    unreadable: list[str] = field(default_factory=list)
    """Ids of runs whose row cannot be read."""

    @property
    def failed_runs(self) -> int:
        """Number of runs that ended with an error of their own."""
        return sum(run.state == FAILED for run in self.ended)

    @property
    def unreadable_runs(self) -> int:
        """Number of finished runs whose row cannot be read."""
        return len(self.unreadable)

    @property
    def n_planned(self) -> int:
        """Number of runs that the design asks for; 0 while it is unknown."""
        return sum(len(variant.init_seeds) for variant in self.variants)


def read_inputs(work: WorkFolder) -> Inputs:
    """Read every input of the page; nothing here raises for what the folder holds or lacks."""
    problems: dict[str, str] = {}

    def rows(name: str, cls: type[Row], optional: bool = False) -> list[Row]:
        path = work.path(*name.split("/"))
        if optional and not path.exists():
            return []
        try:
            found = read_rows(path, cls)
        except LtmError:
            problems[name] = DAMAGED if path.exists() else MISSING
            return []
        kinds = _field_kinds(cls)
        if any(not _fits(row, kinds) for row in found):
            problems[name] = DAMAGED
            return []
        return found

    def mapping(name: str, optional: bool = False) -> dict[str, Any]:
        path = work.path(*name.split("/"))
        if optional and not path.exists():
            return {}
        try:
            value = read_json(path)
        except (LtmError, OSError):
            value = None
        if not isinstance(value, dict):
            problems[name] = DAMAGED if path.exists() else MISSING
            return {}
        return value

    runs, unreadable = _read_runs(work)
    if not runs:
        problems["runs"] = DAMAGED if unreadable else MISSING
    return Inputs(
        study=clean(mapping("study.json")),
        books=[_named(book) for book in rows("books/catalogue.parquet", Book)],
        rejected=[
            replace(row, source=plain(row.source), reason=plain(row.reason), instead=plain(row.instead))
            for row in rows("books/rejected.parquet", Rejected)
        ],
        variants=rows("sets/variants.parquet", Variant),
        shards=rows("tokens/shards.parquet", Shard),
        items=rows("evalset/bank_a.parquet", Item),
        runs=runs,
        measures=rows("scores/measures.parquet", Measure),
        reliability=rows("scores/reliability.parquet", Reliability),
        effects=[replace(e, label=plain(e.label)) for e in rows("patterns/effects.parquet", Effect)],
        ranked=rows("patterns/ranking.parquet", Ranked),
        tuned=rows("dialogue/tuned.parquet", Tuned),
        gains=rows("dialogue/gains.parquet", Gain),
        findings=mapping("patterns/findings.json"),
        forecast=mapping("forecast.json"),
        timings=mapping("timings.json"),
        emergence=rows("patterns/emergence.parquet", Effect, optional=True),
        snapshots=rows("scores/snapshots.parquet", Snapshot, optional=True),
        score_report=mapping("scores/report.json", optional=True),
        questions=mapping("evalset/report.json", optional=True),
        design=mapping("sets/design.json", optional=True),
        learned=mapping("sets/pilot/learned.json", optional=True),
        rounds={n: found for n in ROUNDS if (found := mapping(f"sets/{n}/round.json", optional=True))},
        recipes={
            path.stem: mapping(f"runs/recipes/{path.name}") for path in sorted(work.path("runs").glob("recipes/*.json"))
        },
        ended=read_ended(work),
        problems=problems,
        unreadable=unreadable,
    )


def _read_runs(work: WorkFolder) -> tuple[list[Run], list[str]]:
    """Return the finished runs in the order of their ids, and the ids of those whose file could not be used."""
    folder = work.path("runs")
    runs: list[Run] = []
    unreadable: list[str] = []
    kinds = _field_kinds(Run)
    for path in sorted(folder.glob("*/run.json")) if folder.is_dir() else []:
        try:
            run = _run(read_json(path), kinds)
        except (LtmError, OSError):
            run = None
        if run is None:
            unreadable.append(path.parent.name)
        else:
            runs.append(run)
    return runs, unreadable


def _run(raw: Any, kinds: dict[str, Any]) -> Run | None:
    """Return a run from its JSON, in which NaN stands as null; None when a field is absent or of another type."""
    if not isinstance(raw, dict):
        return None
    values: dict[str, Any] = {}
    for name, kind in kinds.items():
        value = raw.get(name)
        if value is None and kind is float:
            value = math.nan
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        values[name] = value
    values["curve_loss"] = _numbers(values["curve_loss"])
    values["curve_tokens"] = _numbers(values["curve_tokens"])
    run = Run(**values)
    return run if _fits(run, kinds) else None


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list):
        return []
    return [math.nan if number(value) is None else value for value in values]


def plain(text: str) -> str:
    """Return text without control characters and without marks that turn the direction of what follows.

    >>> plain("one\\u202etwo\\nthree")
    'one two three'
    """
    return _UNSEEN.sub(" ", text).strip()


def clean(value: Any) -> Any:
    """Return a JSON value whose texts are plain.

    >>> clean({"question": "a\\u202eb", "list": ["x\\n", 1]})
    {'question': 'a b', 'list': ['x', 1]}
    """
    if isinstance(value, dict):
        return {key: clean(child) for key, child in value.items()}
    if isinstance(value, list):
        return [clean(child) for child in value]
    return plain(value) if isinstance(value, str) else value


def _named(book: Book) -> Book:
    return replace(
        book,
        title=plain(book.title),
        author=plain(book.author),
        genre=plain(book.genre),
        licence=plain(book.licence),
        source=plain(book.source),
    )


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else.

    >>> number(2), number(float("nan")), number("2"), number(True)
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _field_kinds(cls: type[Any]) -> dict[str, Any]:
    """Return what a value of each field must be an instance of: a class, or the classes of `int | None`."""
    found = {}
    for name, hint in typing.get_type_hints(cls).items():
        optional = isinstance(hint, types.UnionType)
        found[name] = typing.get_args(hint) if optional else typing.get_origin(hint) or hint
    return {entry.name: found[entry.name] for entry in dataclasses.fields(cls)}


def read_ended(work: WorkFolder) -> list[Ended]:
    """Return the runs that left a trace and no result, by id."""
    found: dict[str, Ended] = {}
    folder = work.path("runs")
    marks = ((BEGUN, "heartbeat.json"), (BEGUN, "checkpoint.safetensors"), (STOPPED, "stopped.json"))
    for state, name in (*marks, (FAILED, "failed.json")):
        for path in sorted(folder.glob(f"*/{name}")) if folder.is_dir() else []:
            if not path.with_name("run.json").exists():
                found[path.parent.name] = _ended(path, state)
    return [found[run_id] for run_id in sorted(found)]


def _ended(path: Path, state: str) -> Ended:
    raw = None
    if state != BEGUN:
        try:
            raw = read_json(path)
        except (LtmError, OSError):
            raw = None
    raw = raw if isinstance(raw, dict) else {}
    attempts = raw.get("attempts")
    log = raw.get("log") or raw.get("trace") or ""
    log = "\n".join(map(str, log)) if isinstance(log, list) else str(log)
    return Ended(
        run_id=path.parent.name,
        state=state,
        reason=plain(str(raw.get("error") or raw.get("reason") or ""))[:_LOG_CHARACTERS],
        attempts=attempts if isinstance(attempts, int) else 0,
        log=lines(log)[-_LOG_CHARACTERS:],
    )


def lines(text: str) -> str:
    """Return text whose lines are each without control characters and marks that turn the direction of text."""
    return "\n".join(plain(line) for line in text.splitlines()).strip()


def _fits(row: Any, kinds: dict[str, Any]) -> bool:
    """Tell whether a row's values have the types of its record; a foreign table may have only the names."""
    return all(isinstance(getattr(row, name), kind) for name, kind in kinds.items())
