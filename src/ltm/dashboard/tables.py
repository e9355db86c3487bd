"""What the page's script needs to show each figure: its rows, columns, filter and drawing, packed small.

Reads: figure records. Writes: the JSON part of the page. A column is (key, format); its heading is the word `col.<key>`
and the formats are those of `assets/text.js`: text, term, int, num, num3, sign, pct, year.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ltm.dashboard.figures import Record

Column = tuple[str, str]

EFFECT_COLUMNS: list[Column] = [
    ("label", "text"),
    ("ability", "term"),
    ("estimate", "sign"),
    ("low", "sign"),
    ("high", "sign"),
    ("p", "num3"),
    ("q", "num3"),
    ("shrunk", "sign"),
    ("n", "int"),
    ("verdict", "term"),
]
RANK_COLUMNS: list[Column] = [
    ("place", "int"),
    ("run", "code"),
    ("posterior", "sign"),
    ("low", "sign"),
    ("high", "sign"),
    ("tied", "term"),
    ("order", "term"),
    ("gap_kind", "term"),
    ("density", "pct"),
    ("raw", "sign"),
]
DOSE_COLUMNS: list[Column] = [
    ("ability", "term"),
    ("family", "term"),
    ("gap_kind", "term"),
    ("dropped", "pct"),
    ("estimate", "sign"),
    ("low", "sign"),
    ("high", "sign"),
    ("n", "int"),
]
RELIABILITY_COLUMNS: list[Column] = [
    ("ability", "term"),
    ("family", "term"),
    ("gate", "term"),
    ("icc", "num"),
    ("icc_low", "num"),
    ("icc_high", "num"),
    ("split_half", "num"),
    ("z_over_chance", "num"),
    ("accuracy", "pct"),
    ("mean", "num3"),
    ("chance", "num3"),
    ("seed_sd", "num3"),
    ("n_items", "int"),
    ("n_runs", "int"),
    ("reason", "text"),
]
CURVE_COLUMNS: list[Column] = [
    ("arm", "term"),
    ("tokens", "int"),
    ("loss", "num3"),
    ("low", "num3"),
    ("high", "num3"),
    ("n", "int"),
]
TIME_COLUMNS: list[Column] = [
    ("stage", "term"),
    ("forecast", "num"),
    ("low", "num"),
    ("high", "num"),
    ("measured", "num"),
]
BILL_COLUMNS: list[Column] = [
    ("what", "term"),
    ("forecast", "num"),
    ("low", "num"),
    ("high", "num"),
    ("measured", "num"),
]
GENRE_COLUMNS: list[Column] = [("genre", "term"), ("pool", "term"), ("books", "int"), ("n_words", "int")]
BOOK_COLUMNS: list[Column] = [
    ("title", "text"),
    ("author", "text"),
    ("year", "year"),
    ("language", "term"),
    ("genre", "term"),
    ("pool", "term"),
    ("n_words", "int"),
]
TUNED_COLUMNS: list[Column] = [
    ("place", "int"),
    ("run", "code"),
    ("method", "term"),
    ("n_train", "int"),
    ("held_out_before", "num3"),
    ("held_out_after", "num3"),
]
GAIN_COLUMNS: list[Column] = [
    ("run", "code"),
    ("ability", "term"),
    ("family", "term"),
    ("change", "sign"),
    ("before", "num3"),
    ("after", "num3"),
    ("accuracy_before", "pct"),
    ("accuracy_after", "pct"),
]
REJECTED_COLUMNS: list[Column] = [("source", "text"), ("step", "term"), ("reason", "text")]


@dataclass(frozen=True)
class Figure:
    """One figure or table of the page, as the script gets it."""

    rows: list[Record]
    columns: list[Column]
    spec: dict[str, Any] | None = None
    """Drawing; None = a table only."""
    filter: str = ""
    """Column that the reader chooses one value of."""
    labels: str = ""
    """Prefix of the words that replace `label`, where there is one for the row's `name`."""
    extra: dict[str, list[Record]] = field(default_factory=dict)
    """Further rows that the drawing names."""
    caption: str = ""
    """Key of the table's caption."""
    prefix: dict[str, str] = field(default_factory=dict)
    """Prefix of the words of a term column, where it is not `term.`."""
    search: str = ""
    """Key of the search field's label; empty = no search."""
    detail: bool = False
    """Rows open to show their books."""

    def packed(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "table": pack(self.rows),
            "columns": [list(column) for column in self.columns],
            "spec": self.spec,
            "filter": self.filter,
            "labels": self.labels,
            "extra": {name: pack(rows) for name, rows in self.extra.items()},
            "caption": self.caption,
            "prefix": self.prefix,
            "search": self.search,
            "detail": self.detail,
        }


def pack(rows: Sequence[Record]) -> dict[str, Any]:
    """Return rows as keys and lists of values, numbers to six digits: half the size of a list of objects.

    >>> pack([{"a": 1.23456789, "b": "x"}, {"a": None, "b": "y"}])
    {'keys': ['a', 'b'], 'rows': [[1.23457, 'x'], [None, 'y']]}
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return {"keys": keys, "rows": [[_short(row.get(key)) for key in keys] for row in rows]}


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def script_json(value: Any) -> str:
    """Return JSON that can stand inside a script element whatever text it holds (`</script>`, `<!--`, U+2028)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(character, escape)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
