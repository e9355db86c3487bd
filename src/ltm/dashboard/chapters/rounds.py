"""The chapter of rounds: what each was for, what the pilot taught, how proposals were made.

Reads: Variant and Run rows, `sets/pilot/learned.json`, `sets/<round>/round.json`, `sets/design.json`. Writes: nothing.
"""

from __future__ import annotations

from typing import Any

from ltm.dashboard import curve_charts, tables
from ltm.dashboard.figures import Record, by_ability
from ltm.dashboard.inputs import ROUNDS, Inputs, number
from ltm.dashboard.layout import Chapter, bullets, heading
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import (
    LANGUAGES,
    Capital,
    Fixed,
    Percent,
    Several,
    Signed,
    Term,
    both,
    joined,
    say,
    spans,
    texts,
)

NEEDS = ("sets/variants.parquet",)
_MOST_RECIPES = 20


def rounds(inputs: Inputs) -> Chapter:
    """Return the rounds with their runs, and the lessons of the pilot."""
    rows = round_rows(inputs)
    if not rows:
        return Chapter(both("rounds.wait"), needs=NEEDS)
    coming = [name for name in _names(inputs.design.get("rounds_to_come")) if name in ROUNDS]
    if len(rows) == 1 and not coming and not inputs.learned:
        chapter = Chapter(both("rounds.single", n=rows[0]["runs"], sets=rows[0]["sets"]), needs=NEEDS)
    else:
        over = not coming and all(row["round_state"] == "complete" for row in rows)
        told = texts("rounds.all" if over else "rounds.some", n=len(rows), list=_terms([row["round"] for row in rows]))
        more = texts("rounds.to_come", list=_terms(coming)) if coming else {}
        chapter = Chapter(spans(joined(told, more)), needs=NEEDS)
    table = Figure(rows, tables.ROUND_COLUMNS, caption="caption.rounds", prefix={"round_state": "term.state."})
    chapter.add("rounds", table)
    _add_pilot(chapter, inputs.learned)
    _add_proposals(chapter, inputs.rounds.get("adaptive", {}))
    return chapter


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _terms(names: list[str]) -> Several:
    return Several(tuple(Term(f"term.{name}", name) for name in names))


def round_rows(inputs: Inputs) -> list[Record]:
    """Return the rounds that are drawn, with their variants, sets and runs, planned and done."""
    done: dict[str, int] = {}
    for run in inputs.runs:
        done[run.variant_id] = done.get(run.variant_id, 0) + 1
    rows: list[Record] = []
    names = dict.fromkeys(variant.round for variant in inputs.variants)
    for name in sorted(names, key=lambda n: (ROUNDS.index(n) if n in ROUNDS else len(ROUNDS), n)):
        mine = [variant for variant in inputs.variants if variant.round == name]
        planned = sum(len(variant.init_seeds) for variant in mine)
        finished = sum(done.get(variant_id, 0) for variant_id in {variant.variant_id for variant in mine})
        rows.append(
            {
                "round": name,
                "round_state": "complete" if finished >= planned else "begun" if finished else "waiting",
                "runs": planned,
                "runs_done": min(finished, planned),
                "variants": len(mine),
                "sets": len({variant.set_id for variant in mine}),
                "drawn": sum(variant.drawn for variant in mine),
                "aside": sum(variant.aside for variant in mine),
            }
        )
    return rows


def _add_pilot(chapter: Chapter, learned: dict[str, Any]) -> None:
    """Put what the pilot taught into the chapter."""
    found = learned.get("abilities")
    rows: list[Record] = []
    for ability, own in by_ability(found):
        values = {"estimate": "h2", "low": "h2_low", "high": "h2_high", "order_and_gaps": "order_and_gaps_over_seed"}
        numbers = {k: number(own.get(v)) for k, v in values.items()}
        if None not in (numbers["estimate"], numbers["low"], numbers["high"]):
            rows.append({"label": ability, "n_runs": number(own.get("n_runs")), **numbers})
    if not rows and not learned:
        return
    chapter.body += heading("rounds.pilot") + bullets(pilot_lessons(learned))
    if rows:
        words = [_h2_words(row) for row in rows]
        prefix = {"label": "term."}
        figure = Figure(rows, tables.H2_COLUMNS, curve_charts.shares(), prefix=prefix, summary=joined(*words))
        chapter.add("h2", figure, "rounds.h2", "rounds.h2_subtitle")
    recipes = recipe_rows(learned)
    if len(recipes) > 1:
        prefix = {"chosen": "term.chosen."}
        chapter.add("recipes", Figure(recipes, tables.RECIPE_COLUMNS, caption="caption.recipes", prefix=prefix))


def _h2_words(row: Record) -> dict[str, str]:
    return texts(
        "rounds.h2_of",
        ability=Capital(Term(f"term.{row['label']}", row["label"])),
        h2=Percent(row["estimate"]),
        low=Percent(row["low"]),
        high=Percent(row["high"]),
    )


def pilot_lessons(learned: dict[str, Any]) -> list[dict[str, str]]:
    """Return what the pilot decided, one sentence each."""
    lessons = []
    h2 = number(learned.get("h2"))
    if h2 is not None and isinstance(learned.get("go"), bool):
        counted = _terms(_names(learned.get("counted")))
        lessons.append(texts("rounds.go" if learned["go"] else "rounds.no_go", h2=Percent(h2), list=counted))
    recipes = learned.get("recipes")
    if isinstance(recipes, dict) and len(recipes) > 1:
        chosen = learned.get("recipe")
        named = recipe_name(str(chosen))
        goes_on = {language: say(language, "rounds.recipe", recipe=named[language]) for language in LANGUAGES}
        lessons.append(goes_on if chosen else texts("rounds.own_recipe"))
    if isinstance(learned.get("shares"), dict):
        lessons.append(texts("rounds.quiet"))
    slow = learned.get("slow_lr")
    for ability, own in by_ability(slow):
        agreement, ceiling = (number(own.get(k)) for k in ("agreement", "ceiling"))
        if agreement is not None and ceiling is not None:
            term = Capital(Term(f"term.{ability}", ability))
            lessons.append(texts("rounds.slow", ability=term, agreement=Fixed(agreement), ceiling=Fixed(ceiling)))
    return lessons


def recipe_name(name: str) -> dict[str, str]:
    """Return the name of a recipe of the pilot by language: `recipe 1` and so on, or as it is called.

    >>> recipe_name("recipe 2"), recipe_name("lr/4")["ru"]
    ({'en': 'recipe 2', 'ru': 'рецепт 2'}, 'lr/4')
    """
    word, _, place = name.partition(" ")
    if word == "recipe" and place.isdecimal():
        return texts("rounds.recipe_name", number=place)
    return dict.fromkeys(LANGUAGES, name)


def recipe_rows(learned: dict[str, Any]) -> list[Record]:
    """Return the recipes that the pilot compared, best first."""
    found = learned.get("recipes")
    rows: list[Record] = []
    for name, own in found.items() if isinstance(found, dict) else []:
        if isinstance(own, dict):
            values = {key: number(own.get(key)) for key in ("h2", "seconds", "findings_per_hour")}
            chosen = "chosen" if name == learned.get("recipe", "") else "left"
            named = recipe_name(name) if name else texts("term.recipe.own")
            rows.append({"recipe": named["en"], "recipe_ru": named["ru"], **values, "chosen": chosen})
    rows.sort(key=lambda row: (-(row["findings_per_hour"] or 0.0), row["recipe"]))
    return rows[:_MOST_RECIPES]


def _add_proposals(chapter: Chapter, about: dict[str, Any]) -> None:
    """Put how the proposed sets of the adaptive round were made into the chapter."""
    made = about.get("made")
    if not isinstance(made, dict) or not made:
        return
    counts = {name: int(number(made.get(name)) or 0) for name in ("thompson", "crossover")}
    gain = number(about.get("expected_gain"))
    lessons = [texts("rounds.proposed", n=sum(counts.values()), **counts)]
    if gain is not None:
        lessons.append(texts("rounds.expected_gain", gain=Signed(gain)))
    chapter.body += heading("rounds.adaptive") + bullets(lessons)
