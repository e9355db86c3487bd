"""Records of the data files that an eval file names: JSON Lines, JSON, CSV. What is wrong is told with file and line.

Reads: the files. Writes: nothing. Lines may end in any way, and a byte order mark is passed over; what is read in two
ways by two readers - a key twice, NaN, a heading twice - is refused, and so is what no text and no number can be.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ltm.errors import ConfigError

HINT = "mend the items at these places; docs/evalset.md shows how items of your own are written"
MOST_PROBLEMS = 50  # of one set of items; the same mistake in every line of a long file is told often enough
_SHOWN = 60  # letters of a wrong value in a message
_NUL = "the character NUL (\\u0000) is no text"
_HALF = "half of a surrogate pair (\\ud800 to \\udfff) is no character"
_ESCAPE = re.compile(  # of a JSON text: whole pairs first, so that a half is one that is left over
    r"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(?P<wrong>\\u0000|\\u[dD][89a-fA-F]\w\w)|\\."
)
_LARGE = re.compile(r"\d[eE]\+?\d\d|\d{250}")  # only there can a number be beyond all numbers of a computer
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<number>-?\d+\.?\d*(?:[eE][+-]?\d+)?)')
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Row:
    """One record of a file: its place and what stands there."""

    where: str
    value: Any


class _NotWanted(ValueError):
    """JSON by its grammar, but no text or no number."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.at = at


class Problems:
    """Problems in the order in which they were found."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, where: str, text: str) -> None:
        """Note one."""
        self.lines.append(f"{where}: {text}")

    def raise_any(self) -> None:
        """Raise all that were noted.

        Raises:
            ConfigError: there was at least one.
        """
        if self.lines:
            raise ConfigError(self.lines, HINT)


def read_rows(path: Path, name: str, named_at: str, problems: Problems, kind: str = "") -> Iterator[Row]:
    """Yield the records of a JSONL, JSON or CSV file with `file:line`; `kind` stands in for the file's suffix."""
    text = _text(path, name, named_at, problems)
    if text is None:
        return
    suffix = kind if kind and path.suffix.lower() != ".tsv" else path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        yield from _jsonl(text, name, problems)
    elif suffix == ".json":
        yield from _json(text, name, problems)
    elif suffix in (".csv", ".tsv"):
        yield from _csv(text, name, "\t" if suffix == ".tsv" else ",", problems)
    else:
        problems.add(named_at, f"{name}: items are read from .jsonl, .json, .csv and .tsv files")


def shown(value: Any) -> str:
    """Return a wrong value as a message shows it: not more than its beginning."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _text(path: Path, name: str, named_at: str, problems: Problems) -> str | None:
    try:
        data = path.read_bytes()
    except OSError as error:
        problems.add(named_at, f"cannot read {name}: {error.strerror}")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        problems.add(f"{name}:{line}", f"not UTF-8 text (byte {error.start}); save the file as UTF-8")
        return None


def _jsonl(text: str, name: str, problems: Problems) -> Iterator[Row]:
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if not line.strip():
            continue
        try:
            yield Row(f"{name}:{number}", _loaded(line))
        except json.JSONDecodeError as error:
            problems.add(f"{name}:{number}:{error.colno}", f"not JSON: {error.msg}")
        except (ValueError, RecursionError) as error:
            problems.add(f"{name}:{number}", f"not JSON that can be read: {_in_words(error)}")


def _json(text: str, name: str, problems: Problems) -> Iterator[Row]:
    try:
        value = _loaded(text)
    except json.JSONDecodeError as error:
        if _is_json(text.lstrip().partition("\n")[0]):  # JSON lines under another name, as the harness takes them
            yield from _jsonl(text, name, problems)
        else:
            problems.add(f"{name}:{error.lineno}:{error.colno}", f"not JSON: {error.msg}")
        return
    except (ValueError, RecursionError) as error:
        line = f":{len(_LINE_END.findall(text, 0, error.at)) + 1}" if isinstance(error, _NotWanted) else ""
        problems.add(f"{name}{line}", f"not JSON that can be read: {_in_words(error)}")
        return
    if not isinstance(value, list):
        value = [value]
    for place, row in enumerate(value):
        yield Row(f"{name}[{place}]", row)


def _loaded(text: str) -> Any:
    value = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_number)
    _check(text)
    return value


def _check(text: str) -> None:
    """Look at what a JSON text writes with escapes, and at its numbers.

    Raises:
        _NotWanted: a string holds NUL or half of a surrogate pair, or a number is infinite.
    """
    for match in _ESCAPE.finditer(text) if "\\u" in text else ():
        if match["wrong"]:
            raise _NotWanted(_NUL if match["wrong"] == "\\u0000" else _HALF, match.start())
    for match in _TOKEN.finditer(text) if _LARGE.search(text) else ():
        number = match["number"]
        if number and number.strip("-0123456789") and math.isinf(float(number)):
            short = number if len(number) <= _SHOWN else f"{number[:_SHOWN]}..."
            raise _NotWanted(f"{short} is too large for a number", match.start())


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in names if names.count(key) > 1)!r} stands twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _in_words(error: ValueError | RecursionError) -> str:
    return "brackets in brackets without end" if isinstance(error, RecursionError) else str(error).partition(";")[0]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _csv(text: str, name: str, delimiter: str, problems: Problems) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        wrong = next((column for column in header if not column or header.count(column) > 1), None)
        if any("\0" in column for column in header):
            problems.add(f"{name}:1", f"not CSV that can be read: {_NUL}")
            return
        if wrong is not None:
            problems.add(f"{name}:1", f"the heading {wrong!r} stands twice" if wrong else "a column has no heading")
            return
        line = reader.line_num + 1
        for values in reader:
            if any("\0" in value for value in values):
                problems.add(f"{name}:{line}", f"not CSV that can be read: {_NUL}")
            elif len(values) != len(header) and any(values):
                problems.add(f"{name}:{line}", f"has {len(values)} columns, the heading {len(header)}")
            elif any(values):
                yield Row(f"{name}:{line}", dict(zip(header, values, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        problems.add(f"{name}:{reader.line_num}", f"not CSV: {error}")
