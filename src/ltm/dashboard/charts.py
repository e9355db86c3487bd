"""Draw the figures: Vega-Lite specifications made with Altair, free of data, words and colours.

Reads: nothing. Writes: nothing. A specification names its rows (`rows`), its words (`@key`, looked up in the reader's
language) and its colours (`$name`, taken from the light or dark theme); the page's script fills them in when the chart
scrolls into view. So one specification serves two languages, two themes and every filter. Direction and group are never
told by colour alone: shape or dash says it a second time. Intervals are drawn wherever a number is an estimate.
"""

from __future__ import annotations

import functools
from typing import Any

import altair as alt

Spec = dict[str, Any]

SERIES_COLOURS = [f"$series{i}" for i in range(1, 7)]  # Okabe-Ito, adapted to each theme in page.css
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3]]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]


def named(name: str = "rows") -> Any:
    """Return a chart of the rows that the script puts under a name."""
    return alt.Chart(alt.NamedData(name=name))


def finish(chart: Any) -> Spec:
    """Return a drawing as a specification that fills its place and has no colours or fonts of its own."""
    fitted = chart.properties(width="container", autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
    spec: Spec = fitted.to_dict(format="vega-lite")
    spec.pop("config", None)  # fonts and colours come from the page's theme
    return spec


def series(column: str, marks: list[Any]) -> Any:
    """Return a scale over the values that `column` has in the rows drawn (`%column`, put in by the page's script)."""
    return alt.Scale(domain=[f"%{column}"], range=marks)


def line_of(column: str) -> Any:
    """Return a line of the drawing for each value of a column, in the order of the rows."""
    return alt.Y(f"{column}:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False, grid=True))


def coloured(column: str, kinds: list[str], colours: list[str]) -> Any:
    """Return the colour of each kind of a column, with a legend."""
    return alt.Color(f"{column}:N", scale=alt.Scale(domain=kinds, range=colours), legend=alt.Legend(title=None))


def filled(column: str, kinds: list[str], colours: list[str]) -> Any:
    """Return what each kind's mark is filled with; the colour of the page leaves it hollow."""
    return alt.Fill(f"{column}:N", scale=alt.Scale(domain=kinds, range=colours))


def shaped(column: str, kinds: list[str], shapes: list[str]) -> Any:
    """Return the shape of each kind's mark, so that colour is never the only sign."""
    return alt.Shape(f"{column}:N", scale=alt.Scale(domain=kinds, range=shapes))


def tooltip(*columns: tuple[str, str, str]) -> list[Any]:
    """Return tooltip lines of (field, type, number format); the title is the column's word."""
    return [
        alt.Tooltip(f"{alt_field(name)}:{kind}", title=f"@col.{name}", **({"format": form} if form else {}))
        for name, kind, form in columns
    ]


def alt_field(name: str) -> str:
    """Return a field name in which dots and brackets do not mean nesting."""
    return name.replace(".", "\\.").replace("[", "\\[").replace("]", "\\]")


@functools.cache
def forest() -> Spec:
    """Return effects with their intervals, one line each; claimed ones are filled and point in their direction.

    Rows of `band` are the yardstick: what luck alone does to one run.
    """
    y = line_of("label")
    verdicts = ["@term.raises", "@term.lowers", "@term.unclear"]
    colours = ["$raise", "$lower", "$quiet"]
    colour = coloured("verdict", verdicts, colours)
    rows = named().transform_filter("datum.shown")
    interval = rows.mark_rule(strokeWidth=2.5).encode(
        x=alt.X("low:Q", title=["%axis"]),
        x2="high:Q",
        y=y,
        color=colour,
        opacity=alt.condition("datum.verdict_key === 'unclear'", alt.value(0.55), alt.value(1)),
    )
    shapes = ["triangle-right", "triangle-left", "circle"]
    point = rows.mark_point(size=90, opacity=1, strokeWidth=1.6).encode(
        x="estimate:Q",
        y=y,
        color=colour,
        fill=filled("verdict", verdicts, ["$raise", "$lower", "$surface"]),
        shape=shaped("verdict", verdicts, shapes),
        tooltip=tooltip(
            ("title", "N", ""),
            ("estimate", "Q", "+.2f"),
            ("low", "Q", "+.2f"),
            ("high", "Q", "+.2f"),
            ("q", "Q", ".3f"),
            ("lfsr", "Q", ".3f"),
            ("n", "Q", ",d"),
            ("verdict", "N", ""),
        ),
    )
    return finish(alt.layer(_band(), zero(), interval, point).properties(height=alt.Step(22)))


def _band() -> Any:
    return named("band").mark_rect(opacity=0.13, color="$quiet").encode(x="low:Q", x2="high:Q")


def bare_line() -> Any:
    """Return a thin line that waits for its place."""
    return alt.Chart(alt.InlineData(values=[{}])).mark_rule(color="$ink", strokeWidth=1)


def zero() -> Any:
    """Return the vertical line of no effect."""
    return bare_line().encode(x=alt.datum(0))


@functools.cache
def ranks() -> Spec:
    """Return the first places of the ranking with their intervals; those that may be the best are filled."""
    y = line_of("label")
    ties = ["@term.tied", "@term.behind"]
    colour = coloured("tied", ties, ["$raise", "$quiet"])
    rows = named().transform_filter("datum.shown")
    interval = rows.mark_rule(strokeWidth=2.5, opacity=0.75).encode(
        x=alt.X("low:Q", title=["%axis"]), x2="high:Q", y=y, color=colour
    )
    point = rows.mark_point(size=80, opacity=1, strokeWidth=1.6).encode(
        x="posterior:Q",
        y=y,
        color=colour,
        fill=filled("tied", ties, ["$raise", "$surface"]),
        shape=shaped("tied", ties, ["circle", "square"]),
        tooltip=tooltip(
            ("place", "Q", "d"),
            ("run", "N", ""),
            ("posterior", "Q", "+.2f"),
            ("low", "Q", "+.2f"),
            ("high", "Q", "+.2f"),
            ("order", "N", ""),
            ("gap_kind", "N", ""),
            ("density", "Q", ".0%"),
            ("tied", "N", ""),
        ),
    )
    return finish(alt.layer(zero(), interval, point).properties(height=alt.Step(20)))


@functools.cache
def dose() -> Spec:
    """Return the difference to the ungapped variant against the share of text dropped, one line per gap kind.

    The kinds stand side by side (`x`, made in the page's script) so that their intervals do not cover each other.
    """
    share = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1])
    x = alt.X("x:Q", title="@axis.dropped", axis=share, scale=alt.Scale(domain=[0, 1]))
    colour = alt.Color("gap_kind:N", scale=series("gap_kind", SERIES_COLOURS), legend=alt.Legend(title=None))
    shape = alt.Shape("gap_kind:N", scale=series("gap_kind", SHAPES), legend=alt.Legend(title=None))
    dash = alt.StrokeDash("gap_kind:N", scale=series("gap_kind", DASHES), legend=alt.Legend(title=None))
    rows = named().transform_filter("datum.shown")  # one pair alone has no interval
    line = rows.mark_line(strokeWidth=2).encode(
        x=x, y=alt.Y("estimate:Q", title="@axis.difference"), color=colour, strokeDash=dash
    )
    interval = rows.mark_rule(strokeWidth=2, opacity=0.7).encode(x=x, y="low:Q", y2="high:Q", color=colour)
    point = rows.mark_point(filled=True, size=85, opacity=1).encode(
        x=x,
        y="estimate:Q",
        color=colour,
        shape=shape,
        tooltip=tooltip(
            ("gap_kind", "N", ""),
            ("dropped", "Q", ".0%"),
            ("estimate", "Q", "+.2f"),
            ("low", "Q", "+.2f"),
            ("high", "Q", "+.2f"),
            ("n", "Q", ",d"),
        ),
    )
    none = bare_line().encode(y=alt.datum(0))
    return finish(alt.layer(none, line, interval, point).properties(height=320))


@functools.cache
def reliability() -> Spec:
    """Return how much of the difference between runs is the set and not the seed, per item family, with intervals."""
    y = line_of("label")
    gates = ["@term.admitted", "@term.not_admitted"]
    colour = coloured("gate", gates, ["$raise", "$quiet"])
    x = alt.X("icc_low:Q", title="@axis.icc", scale=alt.Scale(domain=[0, 1], clamp=True))
    interval = named().mark_rule(strokeWidth=2.5, opacity=0.75).encode(x=x, x2="icc_high:Q", y=y, color=colour)
    point = (
        named()
        .mark_point(size=90, opacity=1, strokeWidth=1.6)
        .encode(
            x="icc:Q",
            y=y,
            color=colour,
            fill=filled("gate", gates, ["$raise", "$surface"]),
            shape=shaped("gate", gates, ["circle", "square"]),
            tooltip=tooltip(
                ("ability", "N", ""),
                ("family", "N", ""),
                ("icc", "Q", ".2f"),
                ("icc_low", "Q", ".2f"),
                ("icc_high", "Q", ".2f"),
                ("split_half", "Q", ".2f"),
                ("z_over_chance", "Q", ".1f"),
                ("gate", "N", ""),
            ),
        )
    )
    return finish(alt.layer(interval, point).properties(height=alt.Step(26)))


@functools.cache
def curves() -> Spec:
    """Return the median loss by arm with the band of the middle half, over a few single runs (rows of `sample`)."""
    x = alt.X("tokens:Q", title="@axis.tokens", axis=alt.Axis(format="~s", tickCount=6))
    y = alt.Y("loss:Q", title="@axis.loss", scale=alt.Scale(zero=False))
    legend = alt.Legend(title=None, symbolType="stroke", symbolOpacity=1, symbolStrokeWidth=2.5, symbolSize=400)
    colour = alt.Color("arm:N", scale=series("arm", SERIES_COLOURS), legend=legend)
    dash = alt.StrokeDash("arm:N", scale=series("arm", DASHES), legend=legend)
    single = named("sample").mark_line(strokeWidth=0.7, opacity=0.45, color="$quiet").encode(x=x, y=y, detail="run:N")
    band = named().mark_area(opacity=0.13).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
    line = (
        named()
        .mark_line(strokeWidth=2.2)
        .encode(
            x=x,
            y=y,
            color=colour,
            strokeDash=dash,
            tooltip=tooltip(
                ("arm", "N", ""), ("tokens", "Q", ",d"), ("loss", "Q", ".3f"), ("low", "Q", ".3f"), ("high", "Q", ".3f")
            ),
        )
    )
    return finish(alt.layer(single, band, line).properties(height=360))


@functools.cache
def times() -> Spec:
    """Return the forecast of each stage with its range, and the measured time beside it, on a logarithmic axis."""
    y = line_of("stage")
    x = alt.X(
        "seconds:Q",
        title="@axis.seconds",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(format=",~g", tickCount=4, grid=False),
    )
    kinds = ["@term.forecast", "@term.measured"]
    colour = coloured("kind", kinds, ["$quiet", "$lower"])
    shape = shaped("kind", kinds, ["circle", "diamond"])
    positive = "datum.seconds > 0"
    rule = named().transform_filter("datum.low > 0 && datum.high > 0")
    interval = rule.mark_rule(strokeWidth=7, opacity=0.3, color="$quiet").encode(
        x=alt.X("low:Q", scale=alt.Scale(type="log")), x2="high:Q", y=y
    )
    folded = named("folded").transform_filter(positive)
    point = folded.mark_point(filled=True, size=100, opacity=1).encode(
        x=x,
        y=y,
        color=colour,
        shape=shape,
        tooltip=tooltip(("stage", "N", ""), ("kind", "N", ""), ("seconds", "Q", ",.1f")),
    )
    return finish(alt.layer(interval, point).properties(height=alt.Step(26)))


@functools.cache
def genres() -> Spec:
    """Return the number of books per genre, training books and held-out ones apart."""
    pools = ["@term.train", "@term.held_out"]
    bar = (
        named()
        .mark_bar(stroke="$ink", strokeWidth=0.5)
        .encode(
            x=alt.X("books:Q", title="@axis.books", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("genre:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False)),
            color=alt.Color(
                "pool:N",
                scale=alt.Scale(domain=pools, range=["$series1", "$surface"]),
                legend=alt.Legend(title=None, symbolStrokeColor="$ink", symbolStrokeWidth=0.5),
            ),
            order=alt.Order("pool:N", sort="descending"),
            tooltip=tooltip(("genre", "N", ""), ("pool", "N", ""), ("books", "Q", ",d"), ("n_words", "Q", ",d")),
        )
    )
    return finish(bar.properties(height=alt.Step(22)))
