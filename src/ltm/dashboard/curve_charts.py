"""Draw what runs along an axis - places of a run, tokens of training - and pairs of before and after.

Reads: nothing. Writes: nothing; see `ltm.dashboard.charts` for how specifications are written.
"""

from __future__ import annotations

import functools
from typing import Any

import altair as alt

from ltm.dashboard.charts import (
    DASHES,
    SERIES_COLOURS,
    SHAPES,
    Spec,
    bare_line,
    coloured,
    filled,
    finish,
    line_of,
    named,
    series,
    shaped,
    tooltip,
    zero,
)


@functools.cache
def kernel() -> Spec:
    """Return the weight of each place of a run in its end result, over the line of equal weight."""
    x = alt.X("position:Q", title="@axis.position", axis=alt.Axis(format=".0%"))
    equal = bare_line().encode(y=alt.datum(1))
    area = named().mark_area(opacity=0.18, color="$series1").encode(x=x, y=alt.Y("weight:Q"))
    line = (
        named()
        .mark_line(strokeWidth=2.4, color="$series1")
        .encode(
            x=x,
            y=alt.Y("weight:Q", title="@axis.weight"),
            tooltip=tooltip(("position", "Q", ".0%"), ("weight", "Q", ".2f"), ("rate", "Q", ".2~g")),
        )
    )
    return finish(alt.layer(area, equal, line).properties(height=220))


@functools.cache
def emergence() -> Spec:
    """Return the score over training by arm, the band of the middle half, and the line at which chance is left."""
    x = alt.X(
        "tokens:Q",
        title="@axis.tokens",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~s", tickCount=5),
    )
    legend = alt.Legend(title=None, symbolOpacity=1)
    colour = alt.Color("arm:N", scale=series("arm", SERIES_COLOURS), legend=legend)
    dash = alt.StrokeDash("arm:N", scale=series("arm", DASHES), legend=legend)
    y = alt.Y("score:Q", title="@axis.above_chance")
    chance = bare_line().encode(y=alt.datum(0))
    left = named("left").mark_rule(strokeDash=[4, 4], color="$soft").encode(y="score:Q")
    band = named().mark_area(opacity=0.13).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
    line = named().mark_line(strokeWidth=2.2).encode(x=x, y=y, color=colour, strokeDash=dash)
    point = (
        named()
        .mark_point(filled=True, size=55, opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=alt.Shape("arm:N", scale=series("arm", SHAPES), legend=legend),
            tooltip=tooltip(
                ("arm", "N", ""), ("tokens", "Q", ",d"), ("score", "Q", ".2f"), ("low", "Q", ".2f"),
                ("high", "Q", ".2f"), ("n", "Q", ",d"),
            ),
        )
    )  # fmt: skip
    return finish(alt.layer(chance, left, band, line, point).properties(height=320))


@functools.cache
def needed() -> Spec:
    """Return the tokens that runs of each arm need before an ability leaves chance, with the middle half."""
    y = line_of("label")
    scale = alt.Scale(type="log", nice=False, padding=12)
    x = alt.X("low:Q", title="@axis.tokens_needed", scale=scale, axis=alt.Axis(format="~s", tickCount=5))
    rows = named().transform_filter("datum.shown")
    kinds, legend = ["@term.measured", "@term.beyond"], alt.Legend(title=None)
    colour = alt.Color("beyond:N", scale=alt.Scale(domain=kinds, range=["$raise", "$quiet"]), legend=legend)
    shape = shaped("beyond", kinds, ["circle", "triangle-right"])
    interval = rows.mark_rule(strokeWidth=2.5, opacity=0.75).encode(x=x, x2="high:Q", y=y, color=colour)
    point = rows.mark_point(size=90, opacity=1, filled=True).encode(
        x=alt.X("tokens:Q", scale=scale),
        y=y,
        color=colour,
        shape=shape,
        tooltip=tooltip(
            ("label", "N", ""), ("tokens", "Q", ",d"), ("low", "Q", ",d"), ("high", "Q", ",d"), ("n", "Q", ",d"),
            ("never", "Q", ",d"),
        ),
    )  # fmt: skip
    return finish(alt.layer(interval, point).properties(height=alt.Step(26)))


@functools.cache
def confirmed() -> Spec:
    """Return what was expected of each finalist beside what fresh runs gave, from the mean of the random sets."""
    y = line_of("label")
    kinds = ["@term.confirmed_value", "@term.expected"]
    colour = coloured("kind", kinds, ["$raise", "$lower"])
    rows = named("folded").transform_filter("isValid(datum.value)")
    interval = named("folded").transform_filter("isValid(datum.low)")
    rule = interval.mark_rule(strokeWidth=2.5, opacity=0.8).encode(
        x=alt.X("low:Q", title=["%axis"]), x2="high:Q", y=y, color=colour
    )
    point = rows.mark_point(size=95, opacity=1, strokeWidth=1.8).encode(
        x="value:Q",
        y=y,
        color=colour,
        fill=filled("kind", kinds, ["$raise", "$surface"]),
        shape=shaped("kind", kinds, ["circle", "diamond"]),
        tooltip=tooltip(
            ("label", "N", ""), ("kind", "N", ""), ("value", "Q", "+.2f"), ("low", "Q", "+.2f"), ("high", "Q", "+.2f"),
            ("n_runs", "Q", ",d"),
        ),
    )  # fmt: skip
    return finish(alt.layer(zero(), rule, point).properties(height=alt.Step(28)))


@functools.cache
def ranges() -> Spec:
    """Return a few numbers with their ranges, each kind with a mark of its own."""
    y = line_of("label")
    kinds = ["@term.predicted", "@term.measured", "@term.confirmed_value"]
    colour = coloured("kind", kinds, ["$lower", "$quiet", "$raise"])
    shape = shaped("kind", kinds, ["diamond", "square", "circle"])
    interval = (
        named()
        .mark_rule(strokeWidth=3, opacity=0.8)
        .encode(x=alt.X("low:Q", title=["%axis"]), x2="high:Q", y=y, color=colour)
    )
    point = (
        named()
        .mark_point(filled=True, size=110, opacity=1)
        .encode(
            x="estimate:Q",
            y=y,
            color=colour,
            shape=shape,
            tooltip=tooltip(("label", "N", ""), ("estimate", "Q", "+.2f"), ("low", "Q", "+.2f"), ("high", "Q", "+.2f")),
        )
    )
    return finish(alt.layer(zero(), interval, point).properties(height=alt.Step(34)))


@functools.cache
def shares() -> Spec:
    """Return shares between 0 and 1 with their intervals, one line each."""
    y = line_of("label")
    x = alt.X("low:Q", title="@axis.h2", scale=alt.Scale(domain=[0, 1], clamp=True))
    interval = named().mark_rule(strokeWidth=2.5, opacity=0.8, color="$raise").encode(x=x, x2="high:Q", y=y)
    point = (
        named()
        .mark_point(filled=True, size=90, opacity=1, color="$raise")
        .encode(
            x="estimate:Q",
            y=y,
            tooltip=tooltip(("label", "N", ""), ("estimate", "Q", ".2f"), ("low", "Q", ".2f"), ("high", "Q", ".2f")),
        )
    )
    return finish(alt.layer(interval, point).properties(height=alt.Step(28)))


@functools.cache
def against_simple() -> Spec:
    """Return right answers of the trained models beside those of models that cannot have the ability."""
    y = line_of("label")
    kinds = ["@term.model.trained", "@term.model.unigram", "@term.model.ngram", "@term.model.ending"]
    colours = ["$raise", "$quiet", "$lower", "$series3"]
    colour: Any = coloured("kind", kinds, colours)
    beside = alt.YOffset("kind:N", scale=alt.Scale(domain=kinds))
    shape = shaped("kind", kinds, ["circle", "square", "triangle-up", "diamond"])
    x = alt.X("value:Q", title="@axis.right", axis=alt.Axis(format=".0%"), scale=alt.Scale(zero=False))
    rows = named("folded")
    interval = (
        rows.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2.5, opacity=0.8)
        .encode(x="low:Q", x2="high:Q", y=y, yOffset=beside, color=colour)
    )
    point = rows.mark_point(filled=True, size=80, opacity=1).encode(
        x=x, y=y, yOffset=beside, color=colour, shape=shape,
        tooltip=tooltip(
            ("label", "N", ""), ("kind", "N", ""), ("value", "Q", ".1%"), ("low", "Q", ".1%"), ("high", "Q", ".1%")
        ),
    )  # fmt: skip
    return finish(alt.layer(interval, point).properties(height=alt.Step(44)))


@functools.cache
def gap_curve() -> Spec:
    """Return what gaps do beyond leaving out as much text, against the share left out."""
    share = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1])
    x = alt.X("dropped:Q", title="@axis.dropped", axis=share, scale=alt.Scale(domain=[0, 1]))
    line = named().mark_line(strokeWidth=2, color="$series1", strokeDash=[5, 3]).encode(x=x, y="estimate:Q")
    interval = (
        named()
        .mark_rule(strokeWidth=2.5, opacity=0.75, color="$series1")
        .encode(x=x, y=alt.Y("low:Q", title=["%axis"]), y2="high:Q")
    )
    point = named().mark_point(filled=True, size=90, opacity=1, color="$series1").encode(
        x=x,
        y="estimate:Q",
        tooltip=tooltip(
            ("dropped", "Q", ".0%"), ("estimate", "Q", "+.2f"), ("low", "Q", "+.2f"), ("high", "Q", "+.2f"),
            ("n", "Q", ",d"),
        ),
    )  # fmt: skip
    return finish(alt.layer(bare_line().encode(y=alt.datum(0)), line, interval, point).properties(height=280))


@functools.cache
def gains() -> Spec:
    """Return what tuning changed in every family of questions, with intervals over the models."""
    y = line_of("label")
    ways = [f"@term.change.{way}" for way in ("raises", "lowers", "unclear")]
    colour = coloured("change_verdict", ways, ["$raise", "$lower", "$quiet"])
    shapes = alt.Scale(domain=ways, range=["triangle-right", "triangle-left", "circle"])
    interval = (
        named()
        .mark_rule(strokeWidth=2.5, opacity=0.8)
        .encode(x=alt.X("low:Q", title="@axis.change"), x2="high:Q", y=y, color=colour)
    )
    point = named().mark_point(size=90, opacity=1, strokeWidth=1.6).encode(
        x="estimate:Q",
        y=y,
        color=colour,
        fill=filled("change_verdict", ways, ["$raise", "$lower", "$surface"]),
        shape=alt.Shape("change_verdict:N", scale=shapes),
        tooltip=tooltip(
            ("label", "N", ""), ("estimate", "Q", "+.2f"), ("low", "Q", "+.2f"), ("high", "Q", "+.2f"), ("n", "Q", ",d")
        ),
    )  # fmt: skip
    return finish(alt.layer(zero(), interval, point).properties(height=alt.Step(26)))
