"""The figures of the page in a notebook: `study.figures.book_effects()` gives the same chart and the same rows.

Reads: the work folder, through `Inputs`. Writes: nothing, unless `save` is asked for. A specification on the page names
its words, colours and rows; here they are put in once (as `assets/charts.js` does it in the browser), and the drawing
goes to the notebook as SVG: it needs neither a network nor a script nor an extension of Jupyter or marimo.
"""

from __future__ import annotations

import copy
import functools
import html
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ltm.dashboard.inputs import read_inputs
from ltm.dashboard.page import all_chapters, all_words, style_sheet
from ltm.dashboard.tables import Figure, pack
from ltm.errors import InputError
from ltm.store import WorkFolder, write_bytes

NAMES = {
    "book_effects": "book", "feature_effects": "feature", "order_effects": "order", "gap_effects": "gap",
    "best_sets": "ranks", "leaderboard": "board",
}  # fmt: skip
"""Names that say more than the figure's own; every figure has its own too."""
_WIDTH = 720
_TITLE = r'id="figure-{name}".*?<h3>.*?<span lang="{language}">(.*?)</span>'
_LIGHT_DARK = re.compile(r"--(\w[\w-]*): light-dark\((#[0-9a-f]+), (#[0-9a-f]+)\)")


class Figures:
    """Every figure of a study's result page, by name; `dir()` lists them.

    Args:
        work: The study's work folder.
        language: `en` or `ru`: of words in charts and of captions.
    """

    def __init__(self, work: WorkFolder, language: str = "en") -> None:
        self._work, self._language = work, language

    @functools.cached_property
    def _words(self) -> dict[str, Any]:
        return all_words(self._language, read_inputs(self._work).effects)

    @functools.cached_property
    def _found(self) -> dict[str, tuple[Figure, str]]:
        """Return every figure with its title."""
        found: dict[str, tuple[Figure, str]] = {}
        for chapter in all_chapters(read_inputs(self._work)).values():
            for name, figure in chapter.figures.items():
                title = re.search(_TITLE.format(name=re.escape(name), language=self._language), chapter.body, re.DOTALL)
                text = html.unescape(title[1]) if title and figure.spec else self._words.get(figure.caption, name)
                found[name] = figure, text
        return found

    def names(self) -> list[str]:
        """Return the names of the figures that there is something for."""
        told = {own: name for name, own in NAMES.items()}
        return sorted(told.get(name, name) for name, (figure, _) in self._found.items() if figure.rows)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.names()]

    def __getattr__(self, name: str) -> Callable[..., NotebookFigure]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.get, name)

    def get(self, name: str, choice: str = "") -> NotebookFigure:
        """Return a figure.

        Args:
            name: One of `names()`.
            choice: Of a figure that shows one ability or family at a time: which; empty = what the page opens with.

        Raises:
            InputError: there is no such figure or choice.
        """
        figure, title = self._found.get(NAMES.get(name, name), (None, ""))
        if figure is None or not figure.rows:
            raise InputError(f"there is no figure `{name}`", f"there are: {', '.join(self.names()) or 'none yet'}")
        choices = list(dict.fromkeys(str(row[figure.filter]) for row in figure.rows)) if figure.filter else []
        if choice and choice not in choices:
            raise InputError(f"`{name}` has no `{choice}`", f"there are: {', '.join(choices) or 'no choices'}")
        return NotebookFigure(name, figure, title, choice or _first_choice(figure), self._language, self._words)

    def __repr__(self) -> str:
        return f"figures of {self._work.root}: {', '.join(self.names()) or 'none yet'}"


class NotebookFigure:
    """One figure: its rows, its Vega-Lite specification, and how a notebook shows it."""

    def __init__(
        self, name: str, figure: Figure, title: str, choice: str, language: str, words: dict[str, Any]
    ) -> None:
        self.name, self.choice, self.language = name, choice, language
        self._figure, self._title, self._words = figure, title, words
        self._figure_name = NAMES.get(name, name)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The records that the page draws, shows as a table and lets people take away: all of them."""
        return _rounded(self._figure.rows)

    @property
    def frame(self) -> Any:
        """The same rows as a pandas DataFrame (polars, where there is no pandas).

        Raises:
            InputError: neither is installed.
        """
        try:
            import pandas as pd
        except ImportError:
            try:
                import polars as pl
            except ImportError:
                hint = "pip install 'ltm[notebook]'; `.rows` and `.save(\"rows.parquet\")` need neither"
                raise InputError("a frame needs pandas or polars", hint) from None
            return pl.DataFrame(self.rows, infer_schema_length=None)
        return pd.DataFrame(self.rows)

    @property
    def title(self) -> str:
        """What the figure shows."""
        chosen = f" · {self._words.get(f'term.{self.choice}', self.choice)}" if self.choice else ""
        return f"{self._title}{chosen}"

    @property
    def summary(self) -> str:
        """The figure in words; empty where none were made."""
        return self._figure.summary.get(self.language, "")

    @property
    def spec(self) -> dict[str, Any] | None:
        """The chart as a whole Vega-Lite specification with its rows; None for a figure that is a table only."""
        return None if self._figure.spec is None else _spec(self._figure, self._words, self.choice, self.title)

    def svg(self) -> str | None:
        """Return the drawing; None for a figure that is a table only."""
        spec = self.spec
        if spec is None:
            return None
        import vl_convert

        drawn: str = vl_convert.vegalite_to_svg(spec)
        return drawn

    def save(self, path: str | Path) -> Path:
        """Write the rows (`.csv`, `.parquet`) or the drawing (`.svg`, `.png`, `.json`: the specification).

        Raises:
            InputError: the ending is none of these, or the figure is a table only.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind in (".csv", ".parquet"):
            write_bytes(path, _table_bytes(self.rows, kind))
            return path
        if kind not in (".svg", ".png", ".json"):
            raise InputError(f"cannot save a figure as `{path.name}`", "endings: .csv .parquet .svg .png .json")
        spec = self.spec
        if spec is None:
            raise InputError(f"`{self.name}` is a table and has no drawing", "save it as .csv or .parquet")
        write_bytes(path, _drawing_bytes(spec, kind))
        return path

    def _repr_html_(self) -> str:
        svg = self.svg()
        label = html.escape(f"{self.title}. {self.summary}".strip(), quote=True)
        if svg is None:
            return f"<p>{html.escape(self.title)}</p>{_html_table(self._figure, self._words, self.rows)}"
        return f'<div role="img" aria-label="{label}">{svg}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002
        """Return what a notebook may show: HTML with the drawing inside, or words."""
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"{self.title} ({len(self._figure.rows)} rows){': ' + self.summary if self.summary else ''}"


def _first_choice(figure: Figure) -> str:
    """Return the choice that the page opens with: the first with something claimed."""
    if not figure.filter:
        return ""
    told = (row for row in figure.rows if row.get("verdict") in ("raises", "lowers"))
    return str(next(told, figure.rows[0])[figure.filter])


@functools.cache
def _colours() -> dict[str, str]:
    """Return the colours of the light theme by name."""
    return {name: light for name, light, _ in _LIGHT_DARK.findall(style_sheet())}


def _rounded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with the digits that the page has."""
    packed = pack(rows)
    return [dict(zip(packed["keys"], values, strict=True)) for values in packed["rows"]]


def _spec(figure: Figure, words: dict[str, Any], choice: str, title: str) -> dict[str, Any]:
    rows = _drawn(figure, figure.rows, choice, words)
    spec: dict[str, Any] = _fill(copy.deepcopy(figure.spec), words, rows)
    extra = {name: _drawn(figure, more, choice, words) for name, more in figure.extra.items()}
    spec["datasets"] = {**spec.get("datasets", {}), "rows": spread(rows), **extra}
    spec |= {"width": _WIDTH, "title": {"text": title, "anchor": "start"}, "background": _colours()["surface"]}
    spec.pop("autosize", None)
    spec["config"] = {"legend": {"orient": "top"}, "view": {"stroke": None}, "lineBreak": "\n"}
    spec["config"]["axis"] = {"gridColor": _colours()["line"], "labelLimit": 300, "titleFontWeight": "normal"}
    return spec


def _drawn(figure: Figure, rows: Sequence[dict[str, Any]], choice: str, words: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows as the page draws them: of the chosen value, with words for codes (the codes stay as `<key>_key`)."""
    terms = [*(key for key, form in figure.columns if form == "term"), "kind", "axis"]
    made = []
    for row in _rounded(rows):
        if figure.filter and figure.filter in row and str(row[figure.filter]) != choice:
            continue
        for key in terms:
            if row.get(key) is not None:
                row[f"{key}_key"] = row[key]
                row[key] = words.get(f"{figure.prefix.get(key, 'term.')}{row[key]}", str(row[key]))
        if "label" in row:
            by_name = bool(figure.labels)
            prefix, name = (figure.labels, row.get("name")) if by_name else (figure.prefix.get("label"), row["label"])
            row["label"] = words.get(f"{prefix}{name}", row["label"]) if prefix else row["label"]
            row["title"] = row["label"]
        made.append(row)
    return made


def spread(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the dose figure with the series of one dose side by side (`x`), as the page has them."""
    kinds = list(dict.fromkeys(row["gap_kind"] for row in rows if "gap_kind" in row and "dropped" in row))
    for row in rows:
        if kinds and row.get("dropped") is not None:
            row["x"] = row["dropped"] + (kinds.index(row["gap_kind"]) - (len(kinds) - 1) / 2) * 0.014
    return rows


def _fill(node: Any, words: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Replace `@key` by words, `$name` by colours and [`%column`] by its values in the rows."""
    if isinstance(node, str):
        if node.startswith("@"):
            return words.get(node[1:], node[1:])
        return _colours().get(node[1:], node) if node.startswith("$") else node
    if isinstance(node, list):
        if node and isinstance(node[0], str) and node[0].startswith("%"):
            values = dict.fromkeys(row[node[0][1:]] for row in rows if node[0][1:] in row)
            return [_fill(value, words, rows) for value in values]
        return [_fill(child, words, rows) for child in node]
    if isinstance(node, dict):
        return {key: child if key == "$schema" else _fill(child, words, rows) for key, child in node.items()}
    return node


def _table_bytes(rows: list[dict[str, Any]], kind: str) -> bytes:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    keys = list(dict.fromkeys(key for row in rows for key in row))
    sink = pa.BufferOutputStream()
    if kind == ".parquet":
        pyarrow.parquet.write_table(pa.table({key: [row.get(key) for row in rows] for key in keys}), sink)
    else:
        listed = {key: [_flat(row.get(key)) for row in rows] for key in keys}
        pyarrow.csv.write_csv(pa.table(listed), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _flat(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _drawing_bytes(spec: dict[str, Any], kind: str) -> bytes:
    import vl_convert

    if kind == ".json":
        return json.dumps(spec, ensure_ascii=False, indent=1).encode()
    if kind == ".svg":
        drawn: str = vl_convert.vegalite_to_svg(spec)
        return drawn.encode()
    picture: bytes = vl_convert.vegalite_to_png(spec, scale=2)
    return picture


def _html_table(figure: Figure, words: dict[str, Any], rows: list[dict[str, Any]], most: int = 25) -> str:
    """Return the first rows as an HTML table, escaped."""
    keys = [key for key, _ in figure.columns]
    head = "".join(f"<th>{html.escape(words.get(f'col.{key}', key))}</th>" for key in keys)
    body = ""
    for row in rows[:most]:
        cells = ("–" if row.get(key) is None else str(row[key]) for key in keys)
        body += f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
