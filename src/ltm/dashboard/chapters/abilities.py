"""The chapter of abilities: how well each can be measured, what could not be, and whether they are more than one.

Reads: Reliability rows, `scores/report.json`. Writes: nothing.
"""

from __future__ import annotations

import math
from typing import Any

from ltm.dashboard import charts, curve_charts, figures, tables
from ltm.dashboard.chapters.reasons import in_words
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, definitions, note
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import (
    Capital,
    Fixed,
    Percent,
    Several,
    Term,
    both,
    joined,
    spans,
    texts,
)
from ltm.records import FLUENCY, Reliability

NEEDS = ("scores/reliability.parquet",)
_Z90 = 1.6449
_MODELS = ("unigram", "ngram", "ending")


def abilities(inputs: Inputs) -> Chapter:
    """Return which abilities can be measured at this size, against what chance and simple models reach."""
    rows = reliability_rows(inputs.reliability)
    if not rows:
        return Chapter(both("abilities.none"), needs=NEEDS)
    told = _measurable(rows)
    chapter = Chapter(spans(told), needs=NEEDS)
    words = joined(told, *(_ability_words(row) for row in rows if row["family"] == "*"))
    chapter.add(
        "reliability",
        Figure(
            rows,
            _columns(rows),
            charts.reliability(),
            caption="caption.reliability",
            prefix={"label": "term.", "metric": "term.metric."},
            summary=words,
        ),
        "abilities.figure",
        "abilities.subtitle",
    )
    chapter.body += note(both("abilities.gate"))
    _add_simple(chapter, inputs.reliability)
    _add_correlations(chapter, inputs.score_report)
    chapter.body += definitions("linking", "transfer", "synthesis", "fluency")
    return chapter


def reliability_rows(reliability: list[Reliability]) -> list[Record]:
    """Return one record per item family and one per whole ability (family `*`), abilities in their usual order.

    `reason` is in English and `reason_ru` in Russian; the page shows the one of its language.
    """
    families: dict[str, list[str]] = {}
    for entry in reliability:
        if entry.family != "*":
            families.setdefault(entry.ability, []).append(entry.family)
    ordered = sorted(reliability, key=lambda r: (figures.ability_order(r.ability), r.family != "*", r.family))
    return [_row(entry, families.get(entry.ability, [])) for entry in ordered]


def _row(entry: Reliability, families: list[str]) -> Record:
    why = in_words(entry, sorted(families))
    numbers = (
        "mean",
        "chance",
        "z_over_chance",
        "z_over_ngram",
        "accuracy",
        *_MODELS,
        "split_half",
        "icc",
        "icc_low",
        "icc_high",
        "snr",
        "detectable",
        "decision_accuracy",
        "seed_sd",
        "item_sd",
        "alpha",
    )
    return {
        "ability": entry.ability,
        "family": entry.family,
        "label": entry.ability if entry.family == "*" else entry.family,
        "n_runs": entry.n_runs,
        "n_items": entry.n_items,
        "metric": entry.metric,
        **{name: number(getattr(entry, name)) for name in numbers},
        "gate": "admitted" if entry.admitted else "not_admitted",
        "reason": why.get("en") or None,
        "reason_ru": why.get("ru") or None,
    }


def _columns(rows: list[Record]) -> list[tables.Column]:
    """Return the columns that say anything here."""
    return [c for c in tables.RELIABILITY_COLUMNS if any(row.get(c[0]) is not None for row in rows)]


def _measurable(rows: list[Record]) -> dict[str, str]:
    whole = [row for row in rows if row["family"] == "*" and row["ability"] != FLUENCY]
    whole = whole or [row for row in rows if row["ability"] != FLUENCY]
    good = list(dict.fromkeys(row["ability"] for row in whole if row["gate"] == "admitted"))
    bad = list(dict.fromkeys(row["ability"] for row in whole if row["ability"] not in good))
    total = len(good) + len(bad)
    if good:
        told = texts("abilities.some", n=len(good), total=total, list=_terms(good))
        return joined(told, texts("abilities.not", list=_terms(bad))) if bad else told
    fluent = any(row["ability"] == FLUENCY and row["gate"] == "admitted" for row in rows)
    told = texts("abilities.nothing", total=total) if total else {}
    return joined(told, texts("abilities.only_fluency") if fluent else texts("abilities.no_claims"))


def _terms(names: list[str]) -> Several:
    return Several(tuple(Term(f"term.{name}", name) for name in names))


def _ability_words(row: Record) -> dict[str, str]:
    ability = Capital(Term(f"term.{row['ability']}", row["ability"]))
    told = texts(
        "abilities.summary",
        ability=ability,
        icc=Fixed(row["icc"]),
        low=Fixed(row["icc_low"]),
        high=Fixed(row["icc_high"]),
        half=Fixed(row["split_half"]),
        z=Fixed(row["z_over_chance"], 1),
    )
    why = {"en": row["reason"], "ru": row["reason_ru"]}
    if row["gate"] == "admitted" or not all(why.values()):
        return told
    return joined(told, {lang: texts("abilities.because", why=str(text))[lang] for lang, text in why.items()})


def _add_simple(chapter: Chapter, reliability: list[Reliability]) -> None:
    """Put right answers of trained and of simple models, family by family, into the chapter."""
    rows = [row for row in reliability_rows(reliability) if row["family"] != "*" and row["accuracy"] is not None]
    if not rows:
        return
    folded = [
        {"label": row["label"], "kind": f"model.{kind}", "value": value, **_interval(value, row["n_items"])}
        for row in rows
        for kind, value in (("trained", row["accuracy"]), *((name, row[name]) for name in _MODELS))
        if value is not None
    ]
    words = [_simple_words(row) for row in rows]
    figure = Figure(
        rows,
        tables.SIMPLE_COLUMNS,
        curve_charts.against_simple(),
        prefix={"label": "term."},
        extra={"folded": folded},
        summary=joined(*words),
    )
    chapter.add("simple", figure, "abilities.simple", "abilities.simple_subtitle")


def _interval(share: float, n_items: int) -> dict[str, float | None]:
    """Return the 90 % range that the number of questions alone leaves to a share of right answers."""
    if n_items < 1 or not 0.0 <= share <= 1.0:
        return {"low": None, "high": None}
    half = _Z90 * math.sqrt(share * (1.0 - share) / n_items)
    return {"low": max(0.0, share - half), "high": min(1.0, share + half)}


def _simple_words(row: Record) -> dict[str, str]:
    known = [(name, row[name]) for name in _MODELS if row[name] is not None]
    label = Term(f"term.{row['label']}", row["label"])
    right = Percent(row["accuracy"])
    if not known:
        return texts("abilities.right", family=label, right=right)
    name, value = max(known, key=lambda pair: pair[1])
    model = Term(f"term.model.{name}", name)
    return texts("abilities.right_against", family=label, right=right, simple=Percent(value), model=model)


def _add_correlations(chapter: Chapter, report: dict[str, Any]) -> None:
    """Put how the abilities go together over runs into the chapter."""
    rows: list[Record] = []
    found = report.get("correlations")
    for entry in found if isinstance(found, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("one"), str):
            continue
        values = {key: number(entry.get(key)) for key in ("raw", "without_fluency", "disattenuated")}
        values["plain"] = values.pop("raw")
        verdict = (
            "one_factor" if entry.get("one_factor") else "apart" if values["disattenuated"] is not None else "noisy"
        )
        rows.append({"one": entry["one"], "two": str(entry.get("two")), **values, "together": verdict})
    if not rows:
        return
    words = [
        texts(
            f"abilities.{row['together']}",
            one=Capital(Term(f"term.{row['one']}", row["one"])),
            two=Term(f"term.{row['two']}", row["two"]),
            raw=Fixed(row["plain"]),
            true=Fixed(row["disattenuated"]),
        )
        for row in rows
    ]
    chapter.body += note(*(spans(text) for text in words))
    prefix = {"together": "term.together."}
    figure = Figure(
        rows, tables.CORRELATION_COLUMNS, caption="caption.correlations", prefix=prefix, summary=joined(*words)
    )
    chapter.add("correlations", figure)
