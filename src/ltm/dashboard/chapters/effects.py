"""Chapters of effects: what raises and what lowers each ability, drawn with intervals over the yardstick of luck.

Reads: Effect rows and `patterns/findings.json`. Writes: nothing. Only claimed effects are ever given a direction.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from ltm.dashboard import charts, figures, tables
from ltm.dashboard.effect_units import SEED, first_measured, noise, unit_word, units
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, note
from ltm.dashboard.names import effect_name
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import LANGUAGES, Capital, Fixed, Signed, Term, both, joined, say, spans, texts
from ltm.records import Effect

NEEDS = ("patterns/effects.parquet",)
NAMED_EFFECTS = 4  # per direction, in a chapter's sentence


def effects(inputs: Inputs, kind: str) -> Chapter:
    """Return the chapter of one kind of effect: book, feature, order, gap or interaction."""
    mine = [effect for effect in inputs.effects if effect.kind == kind]
    if not mine:
        return Chapter(both("effects.absent" if inputs.effects else "effects.wait"), needs=NEEDS)
    chapter = Chapter(effect_sentence(mine, kind), needs=NEEDS)
    add_forest(chapter, inputs, mine, kind, kind)
    return chapter


def add_forest(
    chapter: Chapter,
    inputs: Inputs,
    mine: Sequence[Effect],
    kind: str,
    name: str,
    more: dict[str, dict[str, object]] | None = None,
) -> None:
    """Put a drawing of some effects of one kind into a chapter, with what it can and cannot tell.

    Args:
        chapter: Gets the drawing and its notes.
        inputs: For the units.
        mine: The effects.
        kind: Their kind.
        name: Of the drawing; its title is the word `effects.<name>.figure`.
        more: Further columns by the effect's name: column -> value.
    """
    rows = figures.effect_rows(mine, kind, units(inputs))
    columns = list(tables.EFFECT_COLUMNS)
    for extra in dict.fromkeys(key for values in (more or {}).values() for key in values):
        columns.insert(1, (extra, "term" if extra == "meaning" else "text"))
        for row in rows:
            row[extra] = (more or {}).get(row["name"], {}).get(extra)
    chapter.add(
        name,
        Figure(
            rows,
            columns,
            charts.forest(),
            filter="ability",
            choice=first_measured(inputs),
            labels=f"name.{kind}.",
            search="js.search_rows",
            prefix={"axis": "axis.effect.", "unit": "unit.effect.", "meaning": "feature."},
            extra={"band": band_rows(inputs, {row["ability"] for row in rows})},
            summary=summary(rows, kind, inputs),
        ),
        f"effects.{name}.figure",
        "effects.subtitle",
    )
    first = sum("band" in figure.extra for figure in chapter.figures.values()) == 1  # said once a chapter
    chapter.body += note(both("effects.hollow") if first else "", _resolution(mine, inputs))
    drawn = max(sum(r["shown"] for r in rows if r["ability"] == a) for a in {r["ability"] for r in rows})
    total = len({effect.name for effect in mine})
    if drawn < total:
        chapter.body += note(both("effects.drawn", n=drawn, total=total))


def band_rows(inputs: Inputs, abilities: Iterable[str]) -> list[Record]:
    """Return the yardstick by ability: one standard deviation of one run's luck to both sides."""
    found = [(ability, noise(inputs, ability)) for ability in sorted(abilities, key=figures.ability_order)]
    return [{"ability": ability, "low": -sd, "high": sd} for ability, sd in found if sd]


def effect_sentence(mine: Sequence[Effect], kind: str) -> str:
    """Return what is claimed of some effects, as HTML: how many, and the strongest in both directions."""
    claimed = [e for e in mine if figures.verdict(e) != "unclear"]
    total = len({effect.name for effect in mine})
    if not claimed:
        return both("effects.only_none") if total == 1 else both(f"effects.{kind}.none", total=total)
    n_claimed = len({effect.name for effect in claimed})
    text = both("effects.only_some") if total == 1 else both(f"effects.{kind}.some", n=n_claimed, total=total)
    for key, strongest in directions(claimed):
        text += " " + spans({language: listing(language, key, strongest) for language in LANGUAGES})
    return text


def directions(claimed: Iterable[Effect], most: int = NAMED_EFFECTS) -> list[tuple[str, list[list[Effect]]]]:
    """Return the key of a sentence and the strongest claimed effects, by name, for each direction that has any."""
    found = []
    ordered = sorted(claimed, key=lambda e: (-abs(e.estimate), e.ability, e.name))
    for direction, key in (("raises", "effects.up"), ("lowers", "effects.down")):
        by_name: dict[str, list[Effect]] = {}
        for effect in ordered:
            if figures.verdict(effect) == direction:
                by_name.setdefault(f"{effect.kind} {effect.name}", []).append(effect)
        if by_name:
            found.append((key, list(by_name.values())[:most]))
    return found


def listing(language: str, key: str, strongest: list[list[Effect]]) -> str:
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


def summary(rows: Sequence[Record], kind: str, inputs: Inputs) -> dict[str, str]:
    """Return a drawing of effects in words: per ability how many go which way, and the strongest."""
    known = units(inputs)
    parts = []
    for ability in dict.fromkeys(row["ability"] for row in rows):
        mine = [row for row in rows if row["ability"] == ability]
        drawn = [row for row in mine if row["shown"]]
        if not drawn:
            continue
        top = max(drawn, key=lambda row: (row["verdict"] != "unclear", abs(row["estimate"])))
        counts = {v: sum(row["verdict"] == v for row in mine) for v in ("raises", "lowers", "unclear")}
        parts.append(
            {
                language: say(
                    language,
                    "effects.summary",
                    ability=Capital(Term(f"term.{ability}", ability)),
                    label=effect_name(language, kind, top["name"], top["label"]),
                    estimate=Signed(top["estimate"]),
                    low=Signed(top["low"]),
                    high=Signed(top["high"]),
                    unit=unit_word(known.get(ability, "seed")),
                    **counts,
                )
                for language in LANGUAGES
            }
        )
    return joined(texts("effects.summary_of"), *parts) if parts else {}


def _resolution(mine: Sequence[Effect], inputs: Inputs) -> str:
    known = units(inputs)
    widths: dict[str, list[float]] = {}
    for e in mine:
        if number(e.low) is not None and number(e.high) is not None:
            widths.setdefault(known.get(e.ability, SEED), []).append((e.high - e.low) / 2)
    if not widths:
        return ""
    parts = [
        texts("effects.width", width=Fixed(statistics.median(own)), unit=unit_word(unit))
        for unit, own in sorted(widths.items(), key=lambda pair: (pair[0] != SEED, pair[0]))
    ]
    listed = {language: ", ".join(part[language] for part in parts) for language in LANGUAGES}
    return spans({language: say(language, "effects.resolution", list=listed[language]) for language in LANGUAGES})
