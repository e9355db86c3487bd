"""Forecasts as people read them: amounts with units and ranges; tables for the terminal, Markdown, CSV and JSON.

A table's rows hold plain numbers in the unit that its column's key names (`time_hours`, `peak_memory_gib`); only here
do they become text. A range is always a 90 % range.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltm.units import format_count

_LEAST_FOLDED = 26  # columns that a last column of text is content with; it goes on below itself


@dataclass(frozen=True, slots=True)
class Amount:
    """A number with its 90 % range; a NaN is one that cannot be told."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Amount:
        """Return it in another unit."""
        return Amount(self.value * factor, self.low * factor, self.high * factor)


Value = str | float | int | None | Amount


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its key carries the unit, `kind` says how a number is written."""

    key: str
    heading: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """An answer with several rows."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: list[dict[str, Value]]
    notes: tuple[str, ...] = ()
    more: tuple[Column, ...] = ()  # numbers that only files show
    settings: Mapping[str, Any] = field(default_factory=dict)


def amount(value: float, low: float, high: float, kind: str) -> str:
    """Return an amount with its range, all in one unit.

    >>> amount(29.2, 24.4, 36.1, "hours")
    '29 h (24 to 36)'
    >>> amount(232_244, 148_000, 291_000, "tokens_per_s")
    '232k (148k to 291k)'
    """
    if not math.isfinite(value):
        return "-"
    if kind in ("tokens_per_s", "count"):
        return f"{_count(value)} ({_count(low)} to {_count(high)})"
    factor, unit, before = _unit(value, kind)
    texts = [_digits(number * factor) for number in (value, low, high)]
    return f"{before}{texts[0]}{unit} ({before}{texts[1]} to {before}{texts[2]})"


def single(value: float, kind: str) -> str:
    """Return a number with its unit.

    >>> single(0.004, "hours"), single(1500, "usd"), single(0.39, "share")
    ('14 s', '$1,500', '39 %')
    """
    if not math.isfinite(value):
        return "-"
    if kind in ("tokens_per_s", "count"):
        return _count(value)
    if kind == "signed_gib":
        return "0" if abs(value) < 0.005 else f"{'+' if value > 0 else '-'}{_digits(abs(value))} GiB"
    factor, unit, before = _unit(value, kind)
    return f"{before}{_digits(value * factor)}{unit}"


def _count(value: float) -> str:
    return format_count(value) if abs(value) >= 99.5 else _digits(value)


def _unit(value: float, kind: str) -> tuple[float, str, str]:
    """Return the factor, the unit after the number, and what stands before it."""
    size = abs(value)
    if kind == "hours":
        if size < 90 / 3600:
            return 3600.0, " s", ""
        if size < 1.5:
            return 60.0, " min", ""
        if size < 72:
            return 1.0, " h", ""
        return (1 / 24, " d", "") if size < 24 * 730 else (1 / 8766, " years", "")
    if kind == "kwh":
        return (1000.0, " Wh", "") if size < 0.5 else (0.001, " MWh", "") if size >= 10_000 else (1.0, " kWh", "")
    units = {"gib": (1.0, " GiB", ""), "usd": (1.0, "", "$"), "share": (100.0, " %", ""), "times": (1.0, "x", "")}
    return units.get(kind, (1.0, "", ""))


def _digits(value: float) -> str:
    """Return a number with about two digits, as a person would say it; three from 100 on."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 99.5:
        rounded = round(value, 2 - math.floor(math.log10(size)))
        return f"{rounded:,.0f}"
    if size >= 9.95:
        return f"{value:.0f}"
    decimals = max(1, 1 - math.floor(math.log10(size)))
    return f"{value:.{min(decimals, 6)}f}".removesuffix(".0")


def cell(value: Value, kind: str) -> str:
    """Return one value of a table as text."""
    if value is None:
        return "-"
    if isinstance(value, Amount):
        return amount(value.value, value.low, value.high, kind)
    return value if isinstance(value, str) else single(float(value), kind)


def to_text(table: Table, width: int) -> str:
    """Return a table for a terminal of so many columns; one that is too wide continues below, first column repeated."""
    grid = [_aligned(column, table) for column in table.columns]
    blocks: list[list[list[str]]] = [[grid[0]]]
    for column, cells in zip(table.columns[1:], grid[1:], strict=True):
        wide = (
            min(len(cells[0]), _LEAST_FOLDED)
            if column is table.columns[-1] and column.kind == "text"
            else len(cells[0])
        )
        if sum(len(c[0]) + 2 for c in blocks[-1]) + wide > width and len(blocks[-1]) > 1:
            blocks.append([grid[0]])
        blocks[-1].append(cells)
    parts = [wrapped(table.title, width)]
    for block in blocks:
        lines = ["  ".join(cells).rstrip() for cells in zip(*block, strict=True)]
        parts.append("\n".join(_folded(line, block, width) for line in lines))
    parts += [wrapped(note, width, "- ") for note in table.notes[:1]]
    rest = "\n".join(wrapped(note, width, "- ") for note in table.notes[1:])
    text = "\n\n".join(parts)
    return f"{text}\n{rest}" if rest else text


def _aligned(column: Column, table: Table) -> list[str]:
    """Return a column's heading and cells, equally wide, numbers in front of their ranges flush right."""
    texts = [cell(row.get(column.key), column.kind) for row in table.rows]
    if column.kind != "text":
        fronts = [text.split(" (", 1)[0] if " (" in text else text for text in texts]
        most = max((len(front) for front in fronts), default=0)
        texts = [" " * (most - len(front)) + text for front, text in zip(fronts, texts, strict=True)]
    width = max(len(text) for text in [column.heading, *texts])
    return [text.ljust(width) for text in [column.heading, *texts]]


def _folded(line: str, block: Sequence[Sequence[str]], width: int) -> str:
    """Break a long last text below its own column."""
    if len(line) <= width:
        return line
    start = sum(len(cells[0]) + 2 for cells in block[:-1])
    room = width - start
    if room < 20:
        return line
    pieces = textwrap.wrap(line[start:], room)
    return "\n".join([line[:start] + pieces[0], *(" " * start + piece for piece in pieces[1:])])


def wrapped(text: str, width: int, mark: str = "") -> str:
    """Return a paragraph of at most so many columns."""
    return textwrap.fill(
        text,
        width,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )


def to_markdown(table: Table) -> str:
    """Return a table in Markdown, with its title and notes."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"

    lines = [f"**{table.title}**", "", line([c.heading for c in table.columns]), line(["---"] * len(table.columns))]
    lines += [line([cell(row.get(c.key), c.kind) for c in table.columns]) for row in table.rows]
    lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines).rstrip()


def to_csv(table: Table) -> str:
    """Return a table as CSV: one column a number, `_low` and `_high` beside those with a range."""
    columns = (*table.columns, *table.more)
    ranged = {c.key for c in columns if any(isinstance(row.get(c.key), Amount) for row in table.rows)}
    heads = [name for c in columns for name in _names(c.key, c.key in ranged)]
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(heads)
    for row in table.rows:
        writer.writerow([text for c in columns for text in _plain(row.get(c.key), c.key in ranged)])
    return sink.getvalue()


def _names(key: str, ranged: bool) -> list[str]:
    return [key, f"{key}_low", f"{key}_high"] if ranged else [key]


def _plain(value: Value, ranged: bool) -> list[str]:
    if isinstance(value, Amount):
        return [_plain_number(x) for x in (value.value, value.low, value.high)]
    text = "" if value is None else value if isinstance(value, str) else _plain_number(float(value))
    return [text, "", ""] if ranged else [text]


def _plain_number(value: float) -> str:
    if not math.isfinite(value):
        return ""
    if abs(value) >= 1e5 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.5g}"


def to_document(table: Table) -> dict[str, Any]:
    """Return a table as plain values for JSON; an amount is `{value, low, high}`."""
    return {
        "table": table.name,
        "title": table.title,
        "settings": dict(table.settings),
        "rows": [{key: _value(value) for key, value in row.items()} for row in table.rows],
        "notes": list(table.notes),
        "range": "90 %",
    }


def _value(value: Value) -> Any:
    return dataclasses.asdict(value) if isinstance(value, Amount) else value


def finite(value: Any) -> Any:
    """Return plain values as JSON can hold them: numbers that are not finite become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(child) for key, child in value.items()}
    return [finite(child) for child in value] if isinstance(value, (list, tuple)) else value


WRITERS: dict[str, Callable[[Table], str]] = {"markdown": to_markdown, "csv": to_csv}
