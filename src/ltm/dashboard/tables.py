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
    ("lfsr", "num3"),
    ("shrunk", "sign"),
    ("n", "int"),
    ("unit", "term"),
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
    ("reason", "text"),
    ("icc", "num"),
    ("icc_low", "num"),
    ("icc_high", "num"),
    ("split_half", "num"),
    ("snr", "num"),
    ("detectable", "num3"),
    ("decision_accuracy", "pct"),
    ("z_over_chance", "num"),
    ("z_over_ngram", "num"),
    ("accuracy", "pct"),
    ("unigram", "num"),
    ("ngram", "num"),
    ("ending", "num"),
    ("mean", "num3"),
    ("chance", "num3"),
    ("seed_sd", "num3"),
    ("item_sd", "num3"),
    ("alpha", "num"),
    ("metric", "term"),
    ("n_items", "int"),
    ("n_runs", "int"),
]
SIMPLE_COLUMNS: list[Column] = [
    ("label", "term"), ("ability", "term"), ("accuracy", "pct"), ("unigram", "pct"), ("ngram", "pct"),
    ("ending", "pct"), ("n_items", "int"),
]  # fmt: skip
CORRELATION_COLUMNS: list[Column] = [
    ("one", "term"), ("two", "term"), ("plain", "sign"), ("without_fluency", "sign"), ("disattenuated", "sign"),
    ("together", "term"),
]  # fmt: skip
OMNIBUS_COLUMNS: list[Column] = [
    ("ability", "term"), ("tests", "term"), ("n_tests", "int"), ("p", "num3"), ("q", "num3"), ("claims", "int"),
    ("family_verdict", "term"),
]  # fmt: skip
BOARD_COLUMNS: list[Column] = [
    ("place", "int"), ("run", "code"), ("posterior", "sign"), ("low", "sign"), ("high", "sign"), ("tied", "term"),
    ("order", "term"), ("gap_kind", "term"), ("density", "pct"), ("round", "term"), ("raw", "sign"), ("loss", "num3"),
]  # fmt: skip
RANGE_COLUMNS: list[Column] = [
    ("label", "term"), ("kind", "term"), ("estimate", "sign"), ("low", "sign"), ("high", "sign"),
]  # fmt: skip
IDEAL_COLUMNS: list[Column] = [
    ("title", "text"), ("author", "text"), ("year", "year"), ("membership", "term"), ("expected", "sign"),
]  # fmt: skip
CONFIRMED_COLUMNS: list[Column] = [
    ("label", "code"), ("confirmed", "sign"), ("low", "sign"), ("high", "sign"), ("expected", "sign"),
    ("n_runs", "int"), ("order", "term"), ("gap_kind", "term"), ("density", "pct"),
]  # fmt: skip
KERNEL_COLUMNS: list[Column] = [("position", "pct"), ("weight", "num3"), ("rate", "num3")]
GAP_CURVE_COLUMNS: list[Column] = [
    ("ability", "term"), ("dropped", "pct"), ("estimate", "sign"), ("low", "sign"), ("high", "sign"), ("n", "int"),
]  # fmt: skip
EMERGENCE_COLUMNS: list[Column] = [
    ("ability", "term"), ("arm", "term"), ("tokens", "int"), ("score", "sign"), ("low", "sign"), ("high", "sign"),
    ("n", "int"),
]  # fmt: skip
NEEDED_COLUMNS: list[Column] = [
    ("ability", "term"), ("label", "term"), ("tokens", "int"), ("low", "int"), ("high", "int"), ("n", "int"),
    ("never", "int"), ("beyond", "term"),
]  # fmt: skip
ROUND_COLUMNS: list[Column] = [
    ("round", "term"), ("round_state", "term"), ("runs", "int"), ("runs_done", "int"), ("variants", "int"),
    ("sets", "int"), ("drawn", "int"), ("aside", "int"),
]  # fmt: skip
H2_COLUMNS: list[Column] = [
    ("label", "term"), ("estimate", "num"), ("low", "num"), ("high", "num"), ("order_and_gaps", "num"),
    ("n_runs", "int"),
]  # fmt: skip
RECIPE_COLUMNS: list[Column] = [
    ("recipe", "text"), ("h2", "num"), ("seconds", "num"), ("findings_per_hour", "num"), ("chosen", "term"),
]  # fmt: skip
GROUP_COLUMNS: list[Column] = [("group", "term"), ("books", "int"), ("held", "int"), ("n_words", "int")]
RIGHTS_COLUMNS: list[Column] = [("group", "text"), ("books", "int"), ("held", "int"), ("n_words", "int")]
REJECTED_STEP_COLUMNS: list[Column] = [("step", "term"), ("files", "int")]
LOST_COLUMNS: list[Column] = [
    ("run", "code"), ("state", "term"), ("attempts", "int"), ("reason", "text"), ("log", "text"),
]  # fmt: skip
DROPPED_COLUMNS: list[Column] = [("thing", "term"), ("which", "text"), ("count", "int"), ("reason", "text")]
FAMILY_GAIN_COLUMNS: list[Column] = [
    ("label", "term"), ("ability", "term"), ("estimate", "sign"), ("low", "sign"), ("high", "sign"), ("n", "int"),
    ("change_verdict", "term"),
]  # fmt: skip
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
    ("licence", "text"),
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
REJECTED_COLUMNS: list[Column] = [
    ("source", "text"), ("step", "term"), ("reason", "text"), ("instead", "text"), ("language", "term"),
]  # fmt: skip


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
    choice: str = ""
    """Value of `filter` that the figure opens on; empty = the first one with a claimed effect, or the first of all."""
    summary: dict[str, str] = field(default_factory=dict)
    """The figure in words, by language, for those who do not see it; empty = none."""

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
            "choice": self.choice,
            "summary": self.summary,
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
