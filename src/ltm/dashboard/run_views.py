"""The figures of single runs: what the page of one run and a comparison of two draw; their rows are made in the page.

Reads: nothing. Writes: nothing; a part of the page's JSON. Scores stand in seed standard deviations around the mean of
all runs, so that families of different kinds share one axis, with the interval that one run's seed noise allows.
"""

from __future__ import annotations

from typing import Any

from ltm.dashboard.tables import Column, Figure

Spec = dict[str, Any]

_SCORE_COLUMNS: list[Column] = [
    ("label", "term"), ("ability", "term"), ("estimate", "sign"), ("low", "sign"), ("high", "sign"), ("value", "sign3"),
    ("chance", "sign3"), ("accuracy", "pct"), ("gate", "term"),
]  # fmt: skip
_DIFFERENCE_COLUMNS: list[Column] = [
    ("label", "term"), ("ability", "term"), ("estimate", "sign"), ("low", "sign"), ("high", "sign"),
    ("verdict", "term"), ("value_a", "sign3"), ("value_b", "sign3"), ("gate", "term"),
]  # fmt: skip
_INTERVAL_LINES = [
    ("label", "N", ""), ("ability", "N", ""), ("estimate", "Q", "+.2f"), ("low", "Q", "+.2f"), ("high", "Q", "+.2f"),
]  # fmt: skip
_CURVE_COLUMNS: list[Column] = [("run", "code"), ("tokens", "int"), ("loss", "num3")]


def run_views(abilities: list[str]) -> dict[str, dict[str, Any]]:
    """Return the figures of the run page and of a comparison, packed, without rows.

    Args:
        abilities: Those that the books' expected contributions are known for.
    """
    books: list[Column] = [("order_place", "int"), ("title", "text"), ("words", "int"), ("kept", "pct")]
    books += [(f"ability.{name}", "sign") for name in abilities]
    score_words = {"label": "term."}
    made = {
        "run_scores": Figure([], _SCORE_COLUMNS, _score_spec(), caption="caption.run_scores", prefix=score_words),
        "run_books": Figure([], books, caption="caption.run_books", search="js.search_books"),
        "run_curve": Figure([], _CURVE_COLUMNS, _curve_spec(), caption="caption.run_curve"),
        "compare_scores": Figure(
            [], _DIFFERENCE_COLUMNS, _difference_spec(), caption="caption.compare_scores", prefix=score_words
        ),
        "compare_curve": Figure([], _CURVE_COLUMNS, _curve_spec(), caption="caption.compare_curve"),
    }
    packed = {name: figure.packed() for name, figure in made.items()}
    packed["run_scores"]["subtitle"] = "subtitle.run_scores"
    packed["run_curve"]["subtitle"] = packed["compare_curve"]["subtitle"] = "subtitle.run_curve"
    packed["compare_scores"]["subtitle"] = "subtitle.compare_scores"
    return packed


def _tooltip(*columns: tuple[str, str, str]) -> list[dict[str, str]]:
    kinds = {"N": "nominal", "Q": "quantitative"}
    lines = [
        {"field": name, "type": kinds[kind], "title": f"@col.{name}", "format": form} for name, kind, form in columns
    ]
    return [{key: text for key, text in line.items() if text} for line in lines]


def _forest(column: str, words: list[str], marks: dict[str, list[str]], axis: str, tooltip: list[Any]) -> Spec:
    """Return points with intervals, one line a row; `column` is told by colour and by shape."""
    y: Spec = {"field": "label", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"domain": False, "ticks": False, "grid": True}
    scaled: Spec = {
        name: {"field": column, "type": "nominal", "scale": {"domain": words, "range": marks[name]}} for name in marks
    }
    scaled["color"]["legend"] = {"title": None}
    shown = [{"filter": "datum.shown"}]
    zero: Spec = {"data": {"values": [{}]}, "mark": {"type": "rule", "color": "$ink", "strokeWidth": 1}}
    zero["encoding"] = {"x": {"datum": 0}}
    low: Spec = {"field": "low", "type": "quantitative", "title": axis}
    interval: Spec = {
        "data": {"name": "rows"},
        "transform": shown,
        "mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.75},
    }
    interval["encoding"] = {"x": low, "x2": {"field": "high"}, "y": y, "color": scaled["color"]}
    point: Spec = {"data": {"name": "rows"}, "transform": shown}
    point["mark"] = {"type": "point", "size": 90, "opacity": 1, "strokeWidth": 1.6}
    point["encoding"] = {"x": {"field": "estimate", "type": "quantitative"}, "y": y, **scaled, "tooltip": tooltip}
    return _fitted({"layer": [zero, interval, point], "height": {"step": 26}})


def _score_spec() -> Spec:
    marks = {"color": ["$raise", "$quiet"], "fill": ["$raise", "$surface"], "shape": ["circle", "square"]}
    tooltip = _tooltip(*_INTERVAL_LINES, ("gate", "N", ""))
    return _forest("gate", ["@term.admitted", "@term.not_admitted"], marks, "@axis.run_score", tooltip)


def _difference_spec() -> Spec:
    words = ["@term.a_higher", "@term.b_higher", "@term.unclear_pair"]
    marks = {
        "color": ["$raise", "$lower", "$quiet"],
        "fill": ["$raise", "$lower", "$surface"],
        "shape": ["triangle-right", "triangle-left", "circle"],
    }
    tooltip = _tooltip(*_INTERVAL_LINES, ("verdict", "N", ""))
    return _forest("verdict", words, marks, "@axis.run_difference", tooltip)


def _curve_spec() -> Spec:
    """Return the loss of one or two runs over the middle half of all runs (rows of `middle`)."""
    x: Spec = {
        "field": "tokens",
        "type": "quantitative",
        "title": "@axis.tokens",
        "axis": {"format": "~s", "tickCount": 6},
    }
    y: Spec = {"type": "quantitative", "title": "@axis.loss", "scale": {"zero": False}}
    band: Spec = {"data": {"name": "middle"}, "mark": {"type": "area", "opacity": 0.22, "color": "$quiet"}}
    band["encoding"] = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
    legend = {"title": None, "symbolType": "stroke", "symbolStrokeWidth": 2.5, "symbolSize": 400}
    colour: Spec = {"field": "run", "type": "nominal", "legend": legend}
    colour["scale"] = {"domain": ["%run"], "range": ["$series1", "$series2"]}
    dash = {
        "field": "run",
        "type": "nominal",
        "legend": legend,
        "scale": {"domain": ["%run"], "range": [[1, 0], [6, 3]]},
    }
    line: Spec = {"data": {"name": "rows"}, "mark": {"type": "line", "strokeWidth": 2.4}}
    tooltip = _tooltip(("run", "N", ""), ("tokens", "Q", ",d"), ("loss", "Q", ".3f"))
    line["encoding"] = {"x": x, "y": {**y, "field": "loss"}, "color": colour, "strokeDash": dash, "tooltip": tooltip}
    return _fitted({"layer": [band, line], "height": 320})


def _fitted(spec: Spec) -> Spec:
    schema = "https://vega.github.io/schema/vega-lite/v6.json"
    return {"$schema": schema, **spec, "width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
