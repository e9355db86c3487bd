"""The chapters of the page: each opens with its finding in a sentence, then shows the figures behind it.

Reads: `Inputs`. Writes: nothing; a chapter is HTML text plus the figures that the script fills in. Sentences are
written in every language at once (see `ltm.dashboard.words`), and only claimed effects are ever given a direction.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass, field
from typing import Any

from ltm.dashboard import charts, curves, figures, tables
from ltm.dashboard.inputs import Inputs, number, plain
from ltm.dashboard.names import effect_name
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import LANGUAGES, Argument, Duration, Fixed, Several, Signed, Term, both, same, say, spans
from ltm.records import Effect

CHAPTERS = (
    "answer",
    "sets",
    "books",
    "features",
    "order",
    "gaps",
    "abilities",
    "dialogue",
    "curves",
    "time",
    "library",
    "method",
)
NAMED_EFFECTS = 4  # per direction, in a chapter's sentence
_CLOSING = re.compile(r"(.+) \(([^()]+)\)\.?$", re.DOTALL)


@dataclass
class Chapter:
    """One chapter: its sentence, its body and the files it depends on."""

    finding: str
    body: str = ""
    figures: dict[str, Figure] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


def answer(inputs: Inputs) -> Chapter:
    """Return the strongest findings in words, or that nothing could be told apart."""
    found = [f for f in _entries(inputs.findings.get("findings")) if f.get("claimed", True)]
    needs = ("study.json", "patterns/findings.json")
    if not inputs.findings:
        return Chapter(both("answer.wait"), needs=needs)
    finding = both("answer.some", n=len(found)) if found else both("answer.none")
    body = ""
    if found:
        body += f'<ol class="findings">{"".join(_finding(entry) for entry in found[:3])}</ol>'
    if len(found) > 3:
        rest = "".join(_finding(entry) for entry in found[3:60])
        body += f'<details><summary>{both("answer.more")}</summary><ol class="findings small">{rest}</ol></details>'
    body += _text_list("answer.not_told_apart", inputs.findings.get("not_told_apart"), opened=not found)
    body += _text_list("answer.notes", inputs.findings.get("notes"), opened=True)
    return Chapter(finding, body, needs=needs)


def _entries(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict) and _texts(entry)] if isinstance(value, list) else []


def _texts(entry: Any) -> dict[str, str]:
    """Return a note's text per language, from `{"text": {...}}`, `{"en": ...}` or plain text."""
    if isinstance(entry, str):
        return {"en": plain(entry)}
    if not isinstance(entry, dict):
        return {}
    inner = entry.get("text", entry)
    if isinstance(inner, str):
        return {"en": plain(inner)}
    return {k: plain(v) for k, v in inner.items() if isinstance(v, str)} if isinstance(inner, dict) else {}


def _finding(entry: dict[str, Any]) -> str:
    estimate, low, high = (number(entry.get(key)) for key in ("estimate", "low", "high"))
    direction = "" if estimate is None else (" up" if estimate > 0 else " down")
    parts = {language: _CLOSING.match(text) for language, text in _texts(entry).items()}
    if all(parts.values()):  # the sentence brings its own interval and q-value: they are set smaller
        sentence = {language: f"{match[1]}." for language, match in parts.items() if match}
        detail = spans({language: match[2] for language, match in parts.items() if match})
    else:
        sentence, detail = _texts(entry), ""
        if None not in (estimate, low, high):
            detail = both("answer.interval", estimate=Signed(estimate), low=Signed(low), high=Signed(high))
    return f'<li class="finding-item{direction}"><p>{spans(sentence)}</p><p class="detail">{detail}</p></li>'


def _text_list(title: str, value: Any, opened: bool) -> str:
    texts = [_texts(entry) for entry in value] if isinstance(value, list) else []
    items = "".join(f"<li>{spans(text)}</li>" for text in texts if text)
    if not items:
        return ""
    return f"<details{' open' if opened else ''}><summary>{both(title)}</summary><ul>{items}</ul></details>"


def _ranked_by(inputs: Inputs) -> Several:
    names = inputs.findings.get("ranked_by")
    return Several(tuple(Term(f"term.{n}", str(n)) for n in names) if isinstance(names, list) else ())


def sets(inputs: Inputs) -> Chapter:
    """Return the leaderboard."""
    needs = ("patterns/ranking.parquet", "sets/variants.parquet")
    titles = {book.book_id: place for place, book in enumerate(inputs.books)}
    rows = figures.rank_rows(inputs.ranked, inputs.variants, titles)
    usable = [row for row in rows if row["posterior"] is not None]
    if not usable:
        return Chapter(both("sets.none"), needs=needs)
    best, others = usable[0], len(usable) - 1
    tied = sum(row["tied"] == "tied" for row in usable[1:])
    finding = both(
        "sets.best",
        run=best["run"],
        posterior=Signed(best["posterior"]),
        low=Signed(best["low"]),
        high=Signed(best["high"]),
        abilities=_ranked_by(inputs),
    )
    finding += " " + (both("sets.tied", n=tied, total=others) if tied else both("sets.alone", total=others))
    chart = Figure(rows=[r for r in rows if r["shown"]], columns=tables.RANK_COLUMNS, spec=charts.ranks())
    abilities = sorted({key for row in rows for key in row if key.startswith("ability.")}, key=_ability_key)
    board = Figure(
        rows=rows,
        columns=[*tables.RANK_COLUMNS, *((key, "sign") for key in abilities)],
        caption="caption.board",
        search="js.search",
        detail=bool(inputs.books),
    )
    body = f"<p>{both('sets.note')}</p>" + figure_slot("ranks", "sets.figure", "effects.subtitle") + table_slot("board")
    return Chapter(finding, body, {"ranks": chart, "board": board}, needs)


def _ability_key(column: str) -> tuple[int, str]:
    return figures.ability_order(column.removeprefix("ability."))


def effects(inputs: Inputs, kind: str) -> Chapter:
    """Return the chapter of one kind of effect: book, feature, order or gap."""
    needs = ("patterns/effects.parquet",)
    mine = [effect for effect in inputs.effects if effect.kind == kind]
    if not inputs.effects:
        return Chapter(both("effects.wait"), needs=needs)
    if not mine:
        return Chapter(both("effects.absent"), needs=needs)
    rows = figures.effect_rows(mine, kind)
    spec = charts.forest()
    chart = Figure(rows, tables.EFFECT_COLUMNS, spec, filter="ability", labels=f"name.{kind}.", search="js.search_rows")
    body = figure_slot(kind, f"effects.{kind}.figure", "effects.subtitle") + _resolution(mine)
    drawn = max(sum(r["shown"] for r in rows if r["ability"] == a) for a in {r["ability"] for r in rows})
    total = len({effect.name for effect in mine})
    if drawn < total:
        body += f'<p class="note">{both("effects.drawn", n=drawn, total=total)}</p>'
    return Chapter(_effect_sentence(mine, kind), body, {kind: chart}, needs)


def _effect_sentence(mine: list[Effect], kind: str) -> str:
    claimed = [e for e in mine if figures.verdict(e) != "unclear"]
    total = len({effect.name for effect in mine})
    if not claimed:
        return both(f"effects.{kind}.none", total=total)
    text = both(f"effects.{kind}.some", n=len({effect.name for effect in claimed}), total=total)
    for direction, key in (("raises", "effects.up"), ("lowers", "effects.down")):
        by_name: dict[str, list[Effect]] = {}
        for effect in sorted(claimed, key=lambda e: (-abs(e.estimate), e.ability, e.name)):
            if figures.verdict(effect) == direction:
                by_name.setdefault(effect.name, []).append(effect)
        if by_name:
            strongest = list(by_name.values())[:NAMED_EFFECTS]
            text += " " + spans({language: _listing(language, key, strongest) for language in LANGUAGES})
    return text


def _listing(language: str, key: str, strongest: list[list[Effect]]) -> str:
    """Return `Raising: Emma (linking +1.2, fluency +0.8); ...` from effects that are grouped by name."""
    parts = []
    for group in strongest:
        first = group[0]
        changes = (
            say(
                language,
                "effects.ability",
                ability=Term(f"term.{e.ability}", e.ability),
                estimate=Signed(e.estimate, 1),
            )
            for e in group
        )
        label = effect_name(language, first.kind, first.name, first.label)
        label = f"\u2068{label}\u2069"  # a title written from right to left keeps to itself
        parts.append(say(language, "effects.one", label=label, list=", ".join(changes)))
    return say(language, key, list="; ".join(parts))


def _resolution(mine: list[Effect]) -> str:
    widths = [(e.high - e.low) / 2 for e in mine if number(e.low) is not None and number(e.high) is not None]
    text = both("effects.hollow")
    if widths:
        text += " " + both("effects.resolution", width=Fixed(statistics.median(widths)))
    return f'<p class="note">{text}</p>'


def gaps(inputs: Inputs) -> Chapter:
    """Return the effects of gaps, with the dose figure."""
    chapter = effects(inputs, "gap")
    rows = figures.dose_rows(inputs.variants, inputs.runs, inputs.measures, inputs.reliability)
    if rows:
        chapter.figures["dose"] = Figure(rows, tables.DOSE_COLUMNS, charts.dose(), filter="family")
        chapter.body = figure_slot("dose", "dose.figure", "dose.subtitle") + chapter.body
    return chapter


def abilities(inputs: Inputs) -> Chapter:
    """Return which abilities can be measured at this size."""
    rows = figures.reliability_rows(inputs.reliability)
    needs = ("scores/reliability.parquet",)
    if not rows:
        return Chapter(both("abilities.none"), needs=needs)
    whole = [row for row in rows if row["family"] == "*" and row["ability"] != "fluency"]
    whole = whole or [row for row in rows if row["ability"] != "fluency"]
    good = list(dict.fromkeys(row["ability"] for row in whole if row["gate"] == "admitted"))
    bad = list(dict.fromkeys(row["ability"] for row in whole if row["ability"] not in good))
    total = len(good) + len(bad)
    if good:
        finding = both("abilities.some", n=len(good), total=total, list=_terms(good))
        finding += " " + both("abilities.not", list=_terms(bad)) if bad else ""
    else:
        finding = both("abilities.nothing", total=total)
    prefix = {"label": "term."}
    chart = Figure(rows, tables.RELIABILITY_COLUMNS, charts.reliability(), caption="caption.reliability", prefix=prefix)
    body = figure_slot("reliability", "abilities.figure", "abilities.subtitle")
    return Chapter(finding, body + definitions("linking", "transfer", "synthesis"), {"reliability": chart}, needs)


def _terms(names: list[str]) -> Several:
    return Several(tuple(Term(f"term.{name}", name) for name in names))


def curves_chapter(inputs: Inputs) -> Chapter:
    """Return the loss curves."""
    needs = ("runs",)
    if not inputs.runs:
        return Chapter(both("curves.none"), needs=needs)
    quartiles = curves.final_losses(inputs.runs)
    finding = both("curves.no_loss")
    if quartiles:
        low, median, high = (Fixed(value, 3) for value in quartiles)
        finding = both("curves.some", n=len(inputs.runs), low=low, median=median, high=high)
    rows = curves.curve_rows(inputs.runs, inputs.variants)
    if not rows:
        return Chapter(finding, needs=needs)
    sample = {"sample": curves.sample_rows(inputs.runs)}
    chart = Figure(rows, tables.CURVE_COLUMNS, charts.curves(), extra=sample)
    return Chapter(finding, figure_slot("curves", "curves.figure", "curves.subtitle"), {"curves": chart}, needs)


def time_chapter(inputs: Inputs) -> Chapter:
    """Return the forecast against the measured time."""
    rows = figures.time_rows(inputs.forecast, inputs.timings)
    needs = ("forecast.json", "timings.json")
    if not rows:
        return Chapter(both("time.none"), needs=needs)
    paired = [row for row in rows if row["forecast"] and row["measured"]] or rows  # a total compares like with like
    forecast = sum(row["forecast"] or 0 for row in paired)
    measured = sum(row["measured"] or 0 for row in paired)
    if forecast and measured:
        finding = both("time.both", measured=Duration(measured), forecast=Duration(forecast))
        ranged = [r for r in rows if None not in (r["low"], r["high"], r["measured"])]
        if ranged:
            inside = sum(r["low"] <= r["measured"] <= r["high"] for r in ranged)
            finding += " " + both("time.inside", n=inside, total=len(ranged))
    elif forecast:
        finding = both("time.forecast", forecast=Duration(forecast))
    else:
        finding = both("time.measured", measured=Duration(measured))
    folded = [{"stage": r["stage"], "kind": k, "seconds": r[k]} for r in rows for k in ("forecast", "measured") if r[k]]
    chart = Figure(rows, tables.TIME_COLUMNS, charts.times(), extra={"folded": folded}, prefix={"stage": "term.stage."})
    shown, body = {"time": chart}, figure_slot("time", "time.figure", "time.subtitle")
    if bill := figures.bill_rows(inputs.forecast, rows):
        prefix = {"what": "term.bill."}
        shown["bill"] = Figure(bill, tables.BILL_COLUMNS, caption="caption.bill", prefix=prefix)
        body += table_slot("bill")
    return Chapter(finding, body, shown, needs)


def library(inputs: Inputs) -> Chapter:
    """Return what the library holds and what was left out."""
    needs = ("books/catalogue.parquet", "books/rejected.parquet")
    rejected = figures.rejected_rows(inputs.rejected)
    if not inputs.books:
        finding = both("library.none")
    else:
        finding = both(
            "library.some",
            n=len(inputs.books),
            authors=len({book.author for book in inputs.books}),
            languages=Several(
                tuple(Term(f"term.lang.{c}", c) for c in sorted({book.language for book in inputs.books}))
            ),
            held_out=sum(book.pool != "train" for book in inputs.books),
        )
        finding += " " + (
            both("library.rejected", n=len(inputs.rejected)) if rejected else both("library.none_rejected")
        )
    body, shown = "", {}
    if inputs.books:
        shown["genres"] = Figure(figures.genre_rows(inputs.books), tables.GENRE_COLUMNS, charts.genres())
        shown["library"] = Figure(
            figures.book_rows(inputs.books),
            tables.BOOK_COLUMNS,
            caption="caption.library",
            search="js.search_books",
            prefix={"language": "term.lang."},
        )
        body = figure_slot("genres", "library.figure", "library.subtitle") + table_slot("library")
    if rejected:
        shown["rejected"] = Figure(rejected, tables.REJECTED_COLUMNS, caption="caption.rejected")
        body += table_slot("rejected")
    return Chapter(finding, body, shown, needs)


def figure_slot(name: str, title: str, subtitle: str) -> str:
    """Return the place where the script draws a figure."""
    return (
        f'<figure class="figure" id="figure-{name}" data-figure="{name}">'
        f"<figcaption><h3>{both(title)}</h3><p>{both(subtitle)}</p></figcaption></figure>"
    )


def table_slot(name: str) -> str:
    """Return the place where the script lays out a table."""
    return f'<div class="figure table-only" id="figure-{name}" data-figure="{name}"></div>'


def definitions(*names: str) -> str:
    """Return a definition list of words that the page uses."""
    return (
        "<dl>"
        + "".join(f"<dt>{both(f'define.{n}.term')}</dt><dd>{both(f'define.{n}.text')}</dd>" for n in names)
        + "</dl>"
    )


def conditions(rows: list[tuple[str, Argument]]) -> str:
    """Return a list of conditions; a value given as text is text of the study and not translated."""
    items = []
    for key, value in rows:
        shown = same(value) if isinstance(value, str) else both("page.value", value=value)
        items.append(f"<dt>{both(f'cond.{key}')}</dt><dd>{shown}</dd>")
    return f'<dl class="conditions">{"".join(items)}</dl>'
