"""The chapter of order: which orders, which place for which books, and what the schedule makes of a place.

Reads: Effect rows, the recipe in `study.json`, `patterns/findings.json`. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltm.dashboard import curve_charts, tables
from ltm.dashboard.chapters.books import kinds
from ltm.dashboard.chapters.effects import NEEDS, add_forest, effect_sentence
from ltm.dashboard.figures import Record, by_ability
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter, note
from ltm.dashboard.names import VERSUS
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Argument, Capital, Fixed, Percent, Term, both, texts

Floats = NDArray[np.float64]

_POINTS = 101
_FEWEST_STEPS = 3
_MOST_STEPS = 20_000  # of a schedule that is computed one by one


def order(inputs: Inputs) -> Chapter:
    """Return orders against each other, the weight of each place, and which books had better stand where."""
    mine = [effect for effect in inputs.effects if effect.kind == "order"]
    whole = [effect for effect in mine if VERSUS in effect.name]
    place = [effect for effect in mine if VERSUS not in effect.name]
    if not inputs.effects:
        chapter = Chapter(both("effects.wait"), needs=NEEDS)
    elif not mine:
        chapter = Chapter(both("effects.absent"), needs=NEEDS)
    else:
        chapter = Chapter(effect_sentence(whole, "order") if whole else both("order.one_order"), needs=NEEDS)
        chapter.body += f"<p>{effect_sentence(place, 'place')}</p>" if place else ""
    if whole:
        add_forest(chapter, inputs, whole, "order", "order")
    add_kernel(chapter, inputs)
    if place:
        add_forest(chapter, inputs, place, "order", "place")
        chapter.body += kinds(inputs, place)
    chapter.body += note(*_shares(inputs))
    return chapter


def _shares(inputs: Inputs) -> list[str]:
    """Return how much of what orders do is explained by the weight of places, where it was worked out."""
    found = inputs.findings.get("order_share")
    sentences = []
    for ability, own in by_ability(found):
        share = number(own.get("by_kernel"))
        if share is not None:
            term = Capital(Term(f"term.{ability}", ability))
            sentences.append(both("order.share", ability=term, share=Percent(min(1.0, max(0.0, share)))))
    return sentences


def add_kernel(chapter: Chapter, inputs: Inputs) -> None:
    """Put the weight of each place in a run into the chapter, where the recipe is known."""
    rows = kernel_rows(inputs.study)
    if not rows:
        return
    peak = max(rows, key=lambda row: row["weight"])
    last = sum(row["weight"] for row in rows if row["position"] >= 0.9) / sum(row["weight"] for row in rows)
    values: dict[str, Argument] = {
        "place": Percent(peak["position"]),
        "weight": Fixed(peak["weight"]),
        "last": Percent(last),
    }
    figure = Figure(rows, tables.KERNEL_COLUMNS, curve_charts.kernel(), summary=texts("order.kernel_summary", **values))
    chapter.add("kernel", figure, "order.kernel", "order.kernel_subtitle")
    chapter.body += note(both("order.kernel_summary", **values), both("order.kernel_computed"))


def kernel_rows(study: Mapping[str, Any]) -> list[Record]:
    """Return how much each moment of one pass over the books weighs in the final weights, mean 1.

    AdamW adds rate x update and multiplies what is there by (1 - rate x decay) at each step, so that step t weighs
    rate_t x the product over later s of (1 - rate_s x decay). A pass that is made several times is averaged.
    """
    recipe, sets = study.get("runs"), study.get("sets")
    if not isinstance(recipe, dict) or not isinstance(sets, dict):
        return []
    numbers = [number(sets.get(key)) for key in ("books_per_set", "book_tokens", "epochs")]
    batch, lr = number(recipe.get("batch_tokens")), number(recipe.get("lr"))
    if None in numbers or not batch or not lr or recipe.get("optimizer") != "adamw":
        return []
    per_set, tokens, epochs = (float(value or 0.0) for value in numbers)
    n_steps = min(_MOST_STEPS, max(1, int(per_set * tokens * epochs / batch)))
    rates = learning_rates(recipe, n_steps)
    if len(rates) < _FEWEST_STEPS:
        return []
    decay = number(recipe.get("weight_decay")) or 0.0
    left = np.concatenate([np.cumsum(np.log1p(-np.minimum(rates * decay, 0.999999))[::-1])[::-1][1:], [0.0]])
    weight = rates * np.exp(left)
    per_pass = n_steps // max(1, int(epochs))
    if epochs > 1 and per_pass > 0:
        passes = int(epochs)
        weight = weight[: per_pass * passes].reshape(passes, per_pass).mean(axis=0)
        rates = rates[: per_pass * passes].reshape(passes, per_pass).mean(axis=0)
    if len(weight) < _FEWEST_STEPS or not float(weight.mean()) > 0:
        return []
    place = np.linspace(0.0, 1.0, _POINTS)
    at = (np.arange(len(weight)) + 0.5) / len(weight)
    drawn = np.interp(place, at, weight / weight.mean())
    rate = np.interp(place, at, rates)
    return [
        {"position": float(p), "weight": float(w), "rate": float(r)} for p, w, r in zip(place, drawn, rate, strict=True)
    ]


def learning_rates(recipe: Mapping[str, Any], n_steps: int) -> Floats:
    """Return the learning rate of every step, shape (n_steps,); empty where the recipe is not one of this version."""
    from pydantic import ValidationError

    from ltm.errors import LtmError
    from ltm.runs.schedule import learning_rate
    from ltm.runs.section import RunsSection

    try:
        section = RunsSection(**{key: value for key, value in recipe.items() if key in RunsSection.model_fields})
    except (LtmError, ValidationError):
        return np.array([])
    return np.array([learning_rate(section, step, n_steps) for step in range(n_steps)])
