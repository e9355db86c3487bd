"""The first chapter: what makes a good set, how sure that is, and what to do next - for a person with three minutes.

Reads: `patterns/findings.json`, Effect and Reliability rows. Writes: nothing. Sentences of single findings are those of
`ltm.patterns`; what is said here about all of them together follows from numbers alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ltm.dashboard import figures, tables
from ltm.dashboard.chapters.advice import advice
from ltm.dashboard.chapters.confirmed import confirmed_unit, finalist_rows
from ltm.dashboard.chapters.effects import directions, listing
from ltm.dashboard.effect_units import ranked_by, unit_of, unit_word
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, bullets, folded, heading, table_slot
from ltm.dashboard.sentences import entries_of, texts_of
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import (
    LANGUAGES,
    Argument,
    Capital,
    Fixed,
    Percent,
    Several,
    Signed,
    Term,
    both,
    joined,
    say,
    show,
    spans,
    texts,
)

NEEDS = ("study.json", "patterns/findings.json")
# A sentence of `ltm.patterns`: what, then in brackets how sure, then how it held up elsewhere.
_FINDING = re.compile(r"(.+) \((90[^()]*)\)\.?\s*(.*)$", re.DOTALL)
_BIG, _MOST = 3, 60
_HALF = 0.5


def answer(inputs: Inputs) -> Chapter:
    """Return the strongest findings in words, or that nothing could be told apart; how sure; and what next."""
    if not inputs.findings:
        steps = advice(inputs)
        body = heading("answer.next") + bullets(steps) if steps else ""
        return Chapter(both("answer.wait"), body, needs=NEEDS)
    found = [f for f in entries_of(inputs.findings.get("findings")) if f.get("claimed", True)]
    chapter = Chapter(_lead(inputs, len(found)), needs=NEEDS)
    if found:
        chapter.body += f'<ol class="findings">{"".join(_finding(inputs, entry) for entry in found[:_BIG])}</ol>'
    if len(found) > _BIG:
        rest = "".join(_finding(inputs, entry) for entry in found[_BIG:_MOST])
        chapter.body += folded("answer.more", f'<ol class="findings small">{rest}</ol>')
    chapter.body += heading("answer.sure") + bullets(_how_sure(inputs, found))
    if steps := advice(inputs):
        chapter.body += heading("answer.next") + bullets(steps)
    _add_omnibus(chapter, inputs)
    for key, opened in (("not_told_apart", False), ("notes", False)):
        listed = [texts_of(entry) for entry in _list(inputs.findings.get(key))]
        chapter.body += folded(f"answer.{key}", bullets([text for text in listed if text]), opened)
    return chapter


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _lead(inputs: Inputs, n_found: int) -> str:
    if not n_found:
        return both("answer.none")
    claimed = [effect for effect in inputs.effects if figures.verdict(effect) != "unclear"]
    sentences = [both("answer.some", n=n_found)]
    for key, strongest in directions(claimed, 3) if n_found > 1 else []:  # one finding stands in full just below
        sentences.append(spans({language: listing(language, key, strongest) for language in LANGUAGES}))
    return " ".join(sentences)


def _finding(inputs: Inputs, entry: dict[str, Any]) -> str:
    """Return one finding: its sentence large, its interval and what it survived small."""
    estimate, low, high = (number(entry.get(key)) for key in ("estimate", "low", "high"))
    direction = "" if estimate is None else (" up" if estimate > 0 else " down")
    parts = {language: _FINDING.match(text) for language, text in texts_of(entry).items()}
    detail = ""
    if all(parts.values()):  # the sentence brings its own interval and q-value: they are set smaller
        sentence = {language: f"{match[1]}." for language, match in parts.items() if match}
        small = {language: _closed(match[2], match[3]) for language, match in parts.items() if match}
        detail = spans(small)
    else:
        sentence = texts_of(entry)
        shown = re.search(r"\d", sentence.get("en", "")) is not None
        if not shown and None not in (estimate, low, high):  # never the same number twice
            unit = unit_word(unit_of(inputs, [str(entry.get("ability"))]))
            values: dict[str, Argument] = {
                "estimate": Signed(estimate),
                "low": Signed(low),
                "high": Signed(high),
                "unit": unit,
            }
            detail = both("answer.interval", **values)
    small_line = f'<p class="detail">{detail}</p>' if detail else ""
    return f'<li class="finding-item{direction}"><p>{spans(sentence)}</p>{small_line}</li>'


def _closed(inside: str, after: str) -> str:
    return f"{inside[:1].upper()}{inside[1:]}. {after}".strip()


def _how_sure(inputs: Inputs, found: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return what is to be believed of the claims, one sentence each."""
    sentences = [_confirmed(inputs)]
    level = number(inputs.findings.get("level"))
    if found and level is not None:
        sentences.append(texts("answer.level", level=Percent(level)))
        held = [f for f in found if number(f.get("refits")) and number(f.get("survives")) is not None]
        well = sum(f["survives"] > _HALF * f["refits"] for f in held)
        if len(held) == 1:
            sentences.append(texts("answer.held_only" if well else "answer.not_held_only"))
        elif held:
            sentences.append(texts("answer.held", n=well, total=len(held)))
    sentences.append(_omnibus_sentence(inputs))
    sentences += _predictions(inputs)
    luck = inputs.findings.get("luck")
    share = number(luck.get("share_of_luck")) if isinstance(luck, dict) else None
    if isinstance(luck, dict) and share is not None:
        sentences.append(texts("answer.luck", top=number(luck.get("n")), share=Percent(min(1.0, max(0.0, share)))))
    sentences += _smallest(inputs)
    return [sentence for sentence in sentences if sentence]


def _confirmed(inputs: Inputs) -> dict[str, str]:
    """Return whether the finalists did better than random sets; which of them is said in their own chapter."""
    rows, found = finalist_rows(inputs), inputs.findings.get("confirmed")
    if not rows or not isinstance(found, dict):
        return texts("answer.unconfirmed")
    n, low = int(number(found.get("n_better")) or 0), number(found.get("mean_low"))
    values: dict[str, Argument] = {
        key: Signed(number(found.get(f"mean_{key}"))) for key in ("confirmed", "low", "high")
    }
    values |= {"total": len(rows), "unit": unit_word(confirmed_unit(inputs))}
    if n:
        return texts("answer.confirmed", n=n, **values)
    return texts("answer.confirmed_together" if (low or 0.0) > 0 else "answer.not_confirmed", **values)


def _omnibus(inputs: Inputs) -> list[dict[str, Any]]:
    rows = [row for row in _list(inputs.findings.get("omnibus")) if isinstance(row, dict)]
    return [r for r in rows if isinstance(r.get("ability"), str) and isinstance(r.get("kind"), str)]


def _measured(inputs: Inputs) -> set[str]:
    """Return the abilities that passed the gate."""
    return {name for name, own in figures.by_ability(inputs.findings.get("abilities")) if own.get("admitted")}


def _family_verdict(row: dict[str, Any], measured: set[str]) -> str:
    if row.get("passed"):
        return "something"
    return "nothing" if row["ability"] in measured else "unmeasured"


def _omnibus_sentence(inputs: Inputs) -> dict[str, str]:
    rows = _omnibus(inputs)
    if not rows:
        return {}
    measured = _measured(inputs)
    rows = [row for row in rows if row["ability"] in measured] or rows
    passed = [row for row in rows if row.get("passed")]
    if not passed:
        return texts("answer.no_family", n=len(rows))
    return {language: _passed(language, passed, len(rows)) for language in LANGUAGES}


def _passed(language: str, passed: list[dict[str, Any]], total: int) -> str:
    by_ability: dict[str, list[str]] = {}
    for row in passed:
        by_ability.setdefault(row["ability"], []).append(_word(language, "kind." + row["kind"]))
    listed = "; ".join(f"{_word(language, ability)} – {', '.join(kinds)}" for ability, kinds in by_ability.items())
    return say(language, "answer.families", n=len(passed), total=total, list=listed)


def _word(language: str, key: str) -> str:
    return show(language, Term(f"term.{key}", key))


def _predictions(inputs: Inputs) -> list[dict[str, str]]:
    """Return how well the score of a set that was left out is predicted, for the abilities that rank the sets."""
    known = dict(figures.by_ability(inputs.findings.get("prediction")))
    found = []
    for ability in ranked_by(inputs):
        lds, chance = (number(known.get(ability, {}).get(key)) for key in ("lds", "null_high"))
        if lds is None or chance is None:
            continue
        values: dict[str, Argument] = {"lds": Fixed(lds), "chance": Fixed(max(0.0, chance))}
        key = "answer.predicted" if lds > chance else "answer.unpredicted"
        found.append(texts(key, ability=Capital(Term(f"term.{ability}", ability)), **values))
    return found


def _smallest(inputs: Inputs) -> list[dict[str, str]]:
    """Return how large the effect of a book must be to be found, for every ability that can be measured."""
    parts = []
    for ability, own in figures.by_ability(inputs.findings.get("abilities")):
        size = number(own.get("smallest_book_effect"))
        if size is None or not own.get("admitted"):
            continue
        unit = unit_word(unit_of(inputs, [ability]))
        parts.append(texts("answer.smallest_of", ability=Term(f"term.{ability}", ability), size=Fixed(size), unit=unit))
    if not parts:
        return []
    listed = {language: ", ".join(part[language] for part in parts) for language in LANGUAGES}
    return [{language: say(language, "answer.smallest", list=listed[language]) for language in LANGUAGES}]


def _add_omnibus(chapter: Chapter, inputs: Inputs) -> None:
    """Put the families of tests, each as a whole, into the chapter: they come before any single effect."""
    measured = _measured(inputs)
    claims: dict[tuple[str, str], int] = {}
    for effect in inputs.effects:
        key = (effect.ability, figures.family_of(effect))
        claims[key] = claims.get(key, 0) + (figures.verdict(effect) != "unclear")
    rows: list[Record] = [
        {
            "ability": row["ability"],
            "tests": row["kind"],
            "n_tests": number(row.get("n")),
            "p": number(row.get("p")),
            "q": number(row.get("q")),
            "claims": claims.get((row["ability"], row["kind"]), 0),
            "family_verdict": _family_verdict(row, measured),
        }
        for row in sorted(_omnibus(inputs), key=lambda r: (figures.ability_order(r["ability"]), r["kind"]))
    ]
    if rows:
        summary = joined(_omnibus_sentence(inputs), texts("answer.omnibus_note"))
        prefix = {"tests": "term.kind.", "family_verdict": "term.family."}
        figure = Figure(rows, tables.OMNIBUS_COLUMNS, caption="caption.omnibus", prefix=prefix, summary=summary)
        chapter.figures["omnibus"] = figure
        chapter.body += folded("answer.omnibus", table_slot("omnibus"))


def terms(names: Iterable[str]) -> Several:
    """Return names of abilities or families as words."""
    return Several(tuple(Term(f"term.{name}", name) for name in names))
