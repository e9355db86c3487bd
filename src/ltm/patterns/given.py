"""Scores from elsewhere: a CSV of run_id, ability and score, laid over the stored design of a study.

Reads: the CSV; `sets/variants.parquet` (Variant), `runs/jobs.json` where runs were laid out. Nothing need be trained.

What a run is called: its id in `runs/jobs.json`; or `VARIANT_ID`, each repetition being the variant's next seed; or
`VARIANT_ID/K`, where K is the number of a seed, from 0, or the init seed itself (`-`, `:`, `_`, `.` do as well as `/`).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ltm.errors import DataError, InputError
from ltm.patterns.table import Ability, Floats, Ints, Table, seed_unit
from ltm.records import Variant

_COLUMNS = ("run_id", "ability", "score")
_LARGEST_BYTES = 2 << 30
_MARK = re.compile(r"[/:_.\-]")
_NOT_NUMBERS = {"", "nan", "na", "n/a", "null", "none", "-", "."}


@dataclass(frozen=True)
class Given:
    """A table of scores as given, and what could not be used."""

    table: Table
    n_rows: int
    n_used: int


@dataclass(frozen=True)
class _Row:
    line: int
    run: str
    ability: str
    score: float  # NaN = not a number


def read_scores(path: Path) -> list[_Row]:
    """Read the rows of a score table; scores that are no numbers become NaN.

    Raises:
        InputError: there is no such file, it is not text, or a column is missing.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", "give a CSV with the columns run_id, ability, score")
    if path.stat().st_size > _LARGEST_BYTES:
        raise InputError(f"{path} is larger than 2 GiB", "split it by ability")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from None
    first = text.split("\n", 1)[0]
    mark = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=mark)
    header = [name.strip().lower() for name in next(reader, [])]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}; its columns: {', '.join(header) or 'none'}",
            "the first line must be run_id,ability,score",
        )
    at = [header.index(name) for name in _COLUMNS]
    rows = []
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) <= max(at):
            raise InputError(f"{path}:{reader.line_num}: {len(fields)} columns, not {len(header)}", "mend this line")
        run, ability, raw = (fields[i].strip() for i in at)
        rows.append(_Row(reader.line_num, run, ability, _number(raw, path, reader.line_num)))
    if not rows:
        raise InputError(f"{path} has no rows", "give one row per run and ability")
    return rows


def _number(raw: str, path: Path, line: int) -> float:
    if raw.lower() in _NOT_NUMBERS:
        return math.nan
    try:
        value = float(raw)
    except ValueError:
        raise InputError(
            f"{path}:{line}: `{raw}` is not a number", "leave the score empty where there is none"
        ) from None
    return value if math.isfinite(value) else math.nan


def table_of(
    rows: Sequence[_Row], variants: Sequence[Variant], jobs: Mapping[str, tuple[int, int]], where: str = "the table"
) -> Given:
    """Return the scores as a table over the design, in the units in which they were given.

    Args:
        rows: What `read_scores` gave.
        variants: The stored design.
        jobs: run id -> (index of the variant, init seed), where runs were laid out.
        where: Name of the file in messages.

    Raises:
        DataError: no row names a run of this design, or two rows contradict each other.
    """
    dropped: Counter[str] = Counter()
    unique = _unique(variants, dropped)
    names = _Names(unique, jobs)
    scores: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    called: dict[tuple[str, int], str] = {}
    repeated: Counter[tuple[str, str]] = Counter()
    seen: dict[tuple[str, str, int], _Row] = {}
    abilities: list[str] = []
    for row in rows:
        found = names.find(row.run)
        if found is None:
            dropped["rows that name no run of this design"] += 1
            continue
        variant, seed = found
        if seed is None:
            seed = repeated[row.ability, variant.variant_id]
            repeated[row.ability, variant.variant_id] += 1
        key = (variant.variant_id, seed)
        if not _fits(row, key, seen, dropped, where):
            continue
        called.setdefault(key, row.run if row.run in jobs else names.run_id(variant, seed))
        if row.ability not in abilities:
            abilities.append(row.ability)
        if math.isfinite(row.score):
            scores[row.ability][key] = row.score
        else:
            dropped["scores that are not a number"] += 1
    if not called:
        raise DataError(
            f"none of the {len(rows)} rows of {where} names a run of this design; the first is `{rows[0].run}`",
            f"a run is called, for example, {names.example()}",
        )
    return Given(_table(unique, called, abilities, scores, dropped), len(rows), len(seen))


def _unique(variants: Sequence[Variant], dropped: Counter[str]) -> dict[str, Variant]:
    found: dict[str, Variant] = {}
    for variant in sorted(variants, key=lambda v: (v.index, v.variant_id)):
        if variant.variant_id in found:
            dropped["duplicated variants"] += 1
        else:
            found[variant.variant_id] = variant
    return found


def _fits(
    row: _Row, key: tuple[str, int], seen: dict[tuple[str, str, int], _Row], dropped: Counter[str], where: str
) -> bool:
    """Return whether a row is the first of its run and ability."""
    before = seen.setdefault((row.ability, *key), row)
    if before is row:
        return True
    same = before.score == row.score or not (math.isfinite(before.score) or math.isfinite(row.score))
    if not same:
        raise DataError(
            f"{where}: lines {before.line} and {row.line} give run {row.run} two different scores of {row.ability}",
            "keep one of them",
        )
    dropped["duplicated rows"] += 1
    return False


class _Names:
    """All names that a run may have."""

    def __init__(self, variants: Mapping[str, Variant], jobs: Mapping[str, tuple[int, int]]) -> None:
        self.variants, self.jobs = variants, jobs
        self.by_index = {variant.index: variant for variant in variants.values()}
        self.run_of = {place: run_id for run_id, place in jobs.items()}

    def find(self, name: str) -> tuple[Variant, int | None] | None:
        """Return the variant and the number of its seed; None for the seed means: the next one."""
        if name in self.jobs:
            index, init_seed = self.jobs[name]
            variant = self.by_index.get(index)
            return (variant, _seed_number(variant, init_seed)) if variant is not None else None
        if name in self.variants:
            return self.variants[name], None
        for mark in _MARK.finditer(name):
            head, tail = name[: mark.start()], name[mark.end() :]
            if head in self.variants and tail.isdecimal():
                return self.variants[head], _seed_number(self.variants[head], int(tail))
        return None

    def run_id(self, variant: Variant, seed: int) -> str:
        """Return the id that a run has, or would have."""
        if seed < len(variant.init_seeds):
            laid_out = self.run_of.get((variant.index, variant.init_seeds[seed]))
            if laid_out is not None:
                return laid_out
        return f"{variant.variant_id}/{seed}"

    def example(self) -> str:
        """Return how a run may be called."""
        variant = next(iter(self.variants.values()), None)
        if variant is None:
            return "VARIANT_ID"
        return f"{self.run_id(variant, 0)}, {variant.variant_id} or {variant.variant_id}/0"


def _seed_number(variant: Variant, given: int) -> int:
    return variant.init_seeds.index(given) if given in variant.init_seeds else given


def _table(
    variants: Mapping[str, Variant],
    called: Mapping[tuple[str, int], str],
    abilities: Sequence[str],
    scores: Mapping[str, Mapping[tuple[str, int], float]],
    dropped: Counter[str],
) -> Table:
    place = {variant_id: i for i, variant_id in enumerate(variants)}
    runs = sorted(called, key=lambda key: (place[key[0]], key[1]))
    scored = {variant_id for variant_id, _ in called}
    # runs of a confirmation and of losing recipes are scored apart: without scores here they are not missed
    wanted = (v for v in variants.values() if v.variant_id in scored or not (v.aside or v.round == "confirmation"))
    planned = sum(len(variant.init_seeds) for variant in wanted)
    if planned > len(runs):
        dropped["planned runs that are missing"] = planned - len(runs)
    used = sorted({place[variant_id] for variant_id, _ in runs})
    everything = list(variants.values())
    at = {number: i for i, number in enumerate(used)}
    kept = tuple(everything[number] for number in used)
    variant_of: Ints = np.array([at[place[variant_id]] for variant_id, _ in runs], dtype=np.int64)
    sets = np.array([kept[v].set_id for v in variant_of], dtype=np.int64)
    values: dict[str, Floats] = {}
    facts: dict[str, Ability] = {}
    for name in sorted(abilities):
        score = np.array([scores.get(name, {}).get(key, np.nan) for key in runs])
        values[name], facts[name] = score, _facts(name, score, variant_of, sets)
    return Table(tuple(called[key] for key in runs), kept, variant_of, values, facts, dict(sorted(dropped.items())))


def _facts(name: str, score: Floats, variant_of: Ints, sets: Ints) -> Ability:
    """Return what is known of a given ability: it counts as admitted, as its gate is not known here."""
    finite = np.isfinite(score)
    spread = float(np.std(score[finite])) if finite.any() else 0.0
    size = float(np.max(np.abs(score[finite]), initial=0.0))
    constant = spread <= 1e-12 * max(1.0, size)
    noise, sd = seed_unit(score, variant_of, sets) if not constant else ("none", 1.0)
    made = Ability(name, True, "", ("given",), "score", 1.0, int(finite.sum()), int((~finite).sum()), constant)
    return replace(made, seed_sd=sd, noise=noise)
