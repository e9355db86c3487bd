"""The chapters of the best sets: the ranking with its leaderboard, and the ideal set that the books predict.

Reads: Ranked, Variant, Book and Effect rows, `patterns/findings.json`. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ltm.dashboard import charts, curve_charts, figures, tables
from ltm.dashboard.chapters.confirmed import best_confirmed
from ltm.dashboard.effect_units import ranked_by, ranking_unit, told_unit, unit_word
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, note
from ltm.dashboard.sentences import told
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Argument, Several, Signed, Term, both, joined, spans, texts
from ltm.records import Book

_LISTED = 3000  # books of a set that are listed


def sets(inputs: Inputs) -> Chapter:
    """Return the ranking and the leaderboard; the page's script makes the rows of the leaderboard."""
    needs = ("patterns/ranking.parquet", "sets/variants.parquet")
    unit = ranking_unit(inputs)
    rows = figures.rank_rows(inputs.ranked, inputs.variants, unit)
    usable = [row for row in rows if row["shown"]]
    chapter = Chapter(both("sets.none"), needs=needs)
    if usable:
        told = _best_words(inputs, usable[0], unit)
        chapter = Chapter(spans(told), f"<p>{both('sets.note')}</p>", needs=needs)
        prefix = {"axis": "axis.posterior."}
        chart = Figure(rows, tables.RANK_COLUMNS, charts.ranks(), prefix=prefix, summary=told)
        chapter.add("ranks", chart, "sets.figure", f"sets.subtitle.{unit}")
    if inputs.runs:
        abilities = sorted({name for entry in inputs.ranked for name in entry.abilities}, key=figures.ability_order)
        columns = [*tables.BOARD_COLUMNS, *((f"ability.{name}", "sign") for name in abilities)]
        chapter.add(
            "board", Figure([], columns, caption="caption.board", search="js.search", detail=bool(inputs.books))
        )
    return chapter


def _best_words(inputs: Inputs, best: Record, unit: str) -> dict[str, str]:
    total = len(inputs.ranked) - 1
    tied = sum(entry.tied_with_best for entry in inputs.ranked) - 1
    values: dict[str, Argument] = {key: Signed(best[key]) for key in ("posterior", "low", "high")}
    abilities = Several(tuple(Term(f"term.{name}", name) for name in ranked_by(inputs)))
    first = texts("sets.best", run=best["run"][:8], unit=unit_word(unit), abilities=abilities, **values)
    if total <= 0:
        return first
    return joined(first, texts("sets.tied", n=tied, total=total) if tied > 0 else texts("sets.alone", total=total))


def ideal(inputs: Inputs) -> Chapter:
    """Return the set that the books' effects predict to be best: its books, order, gaps, range and rivals."""
    needs = ("patterns/findings.json",)
    found = inputs.findings.get("ideal_set")
    ids = [b for b in found.get("book_ids", []) if isinstance(b, str)] if isinstance(found, dict) else []
    if not isinstance(found, dict) or not ids:
        return Chapter(both("ideal.none" if inputs.findings else "ideal.wait"), needs=needs)
    unit, said = told_unit(inputs, found), told(found) or texts("ideal.listed")
    chapter = Chapter(spans(said), f"<p>{both('ideal.note')}</p>", needs=needs)
    rows = range_rows(inputs, found, unit)
    prefix = {"axis": "axis.posterior.", "label": "term.range."}
    words = _range_summary(rows, unit)
    chart = Figure(rows, tables.RANGE_COLUMNS, curve_charts.ranges(), prefix=prefix, summary=words)
    chapter.add("ranges", chart, "ideal.figure", f"sets.subtitle.{unit}")
    books = ideal_books(inputs, found)
    more: list[tables.Column] = [(key, "sign") for key in books[0] if key.startswith("ability.")]
    table = Figure(
        books, [*tables.IDEAL_COLUMNS, *more], caption="caption.ideal", search="js.search_books", summary=said
    )
    chapter.add("ideal", table)
    chapter.body += note(both(_listing_order(found)[1]))
    return chapter


def _ids(found: dict[str, Any], key: str) -> set[str]:
    value = found.get(key)
    return {b for b in value if isinstance(b, str)} if isinstance(value, list) else set()


def range_rows(inputs: Inputs, found: dict[str, Any], unit: str) -> list[Record]:
    """Return the ideal set's predicted range beside the best set that was trained, and the best confirmed one."""
    best = min(inputs.ranked, key=lambda entry: (entry.place, entry.run_id), default=None)
    confirmed = best_confirmed(inputs)
    rows = [("ideal", "predicted", found.get("predicted"), found.get("low"), found.get("high"))]
    if best is not None:
        rows.append(("trained", "measured", best.posterior, best.low, best.high))
    if confirmed is not None:
        rows.append(("confirmed", "confirmed_value", confirmed["confirmed"], confirmed["low"], confirmed["high"]))
    return [
        {
            "label": label,
            "kind": kind,
            "estimate": number(value),
            "low": number(low),
            "high": number(high),
            "axis": unit,
        }
        for label, kind, value, low, high in rows
        if number(value) is not None
    ]


def _range_summary(rows: list[Record], unit: str) -> dict[str, str]:
    parts = []
    for row in rows:
        values: dict[str, Argument] = {key: Signed(row[key]) for key in ("estimate", "low", "high")}
        parts.append(texts("ideal.range", label=Term(f"term.range.{row['label']}"), unit=unit_word(unit), **values))
    return joined(*parts)


_SORTED: dict[str, Callable[[Book], tuple[Any, ...]]] = {
    "chronological": lambda book: (book.year is None, book.year or 0),
    "given": lambda book: (False, book.rank),
    "readability_up": lambda book: ("flesch" not in book.features, -book.features.get("flesch", 0.0)),
    "readability_down": lambda book: ("flesch" not in book.features, book.features.get("flesch", 0.0)),
}


def _listing_order(found: dict[str, Any]) -> tuple[str, str]:
    order = found.get("order")
    if isinstance(order, str) and order in _SORTED:
        return order, "ideal.listed_in_order"
    return "", "ideal.listed_by_effect"


def ideal_books(inputs: Inputs, found: dict[str, Any]) -> list[Record]:
    """Return the books of the ideal set and those that could as well be in it, in training order or best first."""
    ids = [b for b in found.get("book_ids", []) if isinstance(b, str)]
    sure, open_ = _ids(found, "sure"), _ids(found, "open")
    abilities = ranked_by(inputs)
    effects = {(e.name, e.ability): e for e in inputs.effects if e.kind == "book"}
    books = {book.book_id: book for book in inputs.books}
    inside = set(ids)
    rows: list[Record] = []
    for book_id in [*ids, *sorted(open_ - inside)][:_LISTED]:
        book = books.get(book_id)
        own = [effects.get((book_id, ability)) for ability in abilities]
        values = [number(effect.shrunk) if effect else None for effect in own]
        known = [value for value in values if value is not None]
        named = {f"ability.{a}": value for a, value in zip(abilities, values, strict=True)}
        rows.append(
            {
                "title": book.title if book else book_id,
                "author": book.author if book else "",
                "year": book.year if book else None,
                "membership": _membership(book_id, inside, sure, open_),
                "expected": sum(known) / len(known) if known else None,
                **(named if len(abilities) > 1 else {}),
                "$id": book_id,
            }
        )
    order, _ = _listing_order(found)
    rows.sort(key=lambda row: (row["$id"] not in inside, *_place(books.get(row["$id"]), order), *_worth(row)))
    for row in rows:
        del row["$id"]
    return rows


def _membership(book_id: str, inside: set[str], sure: set[str], open_: set[str]) -> str:
    if book_id in inside:
        return "sure" if book_id in sure else "open_in" if book_id in open_ else "in_set"
    return "open_out"


def _place(book: Book | None, order: str) -> tuple[Any, ...]:
    if not order or book is None:
        return ()
    return tuple(_SORTED[order](book))


def _worth(row: Record) -> tuple[float, str]:
    return (-(row["expected"] or 0.0), row["title"])
