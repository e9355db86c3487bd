"""What a study can know, before it is run: its design in numbers, and what follows from them in words.

Reads: the settings, and what a pilot measured (`sets/pilot/learned.json`) where there was one. Writes: nothing. The
formulas are those of `ltm.patterns.knowledge`; nothing is drawn for them, so a million books cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ltm.patterns import knowledge
from ltm.sets.design import DISPERSED_FROM
from ltm.sets.kinds import n_clusters
from ltm.store import WorkFolder
from ltm.study.round_sizes import sizes
from ltm.study.rounds import Rounds
from ltm.study.settings import StudySettings
from ltm.units import format_count

_ASSUMED_H2 = (0.3, 0.5, 0.8)
_SHOWN_H2 = 0.5  # of the numbers that are given once
_WANTED_EFFECTS = (0.3, 0.5, 1.0)  # of a book, in seed standard deviations
_FEWEST_SETS_PER_BOOK = 5.0  # below it single books cannot be told apart unless their effect is large


def design_of(settings: StudySettings) -> dict[str, Any]:
    """Return the counts of a design: sets, variants, runs, blocks of each template, and the rounds.

    `n_sets` are the sets that are drawn at random, the only ones that p-values come from.
    """
    rounds = sizes(settings)
    by_name = {size.name: size for size in rounds}
    templates = dict(by_name["exploration"].detail) if by_name["exploration"].detail else {}
    n_sets = sum(templates.values())
    pilot, adaptive = by_name.get("pilot"), by_name.get("adaptive")
    drawn = n_sets + (pilot.n_sets if pilot else 0) + (adaptive.detail["random"] if adaptive else 0)
    n_variants = settings.sets.count if not settings.rounds.enabled else sum(size.n_runs for size in rounds)
    return {
        "n_sets": drawn,
        "n_variants": n_variants,
        "n_runs": sum(size.n_runs for size in rounds),
        "templates": templates,
        "rounds": [{"round": s.name, "runs": s.n_runs, "sets": s.n_sets, **s.detail} for s in rounds]
        if settings.rounds.enabled
        else [],
    }


def knowable(settings: StudySettings, n_books: int, work: WorkFolder | None = None) -> dict[str, Any]:
    """Return smallest detectable effects in seed standard deviations, expected accuracy and runs needed, by h2.

    Args:
        settings: The study.
        n_books: Books that sets are drawn from.
        work: Where a pilot may have measured h2 already.

    Returns:
        `by_h2` (see `ltm.patterns.knowledge.Knowable`), `runs_needed` (book effect -> single-run sets), and once, for
        the piloted h2 or for 0.5, the numbers that a person compares.
    """
    design = design_of(settings)
    blocks = design["templates"]
    inclusion = min(1.0, settings.sets.books_per_set / max(1, n_books))
    piloted = Rounds(settings, work).learned.get("h2") if work is not None and settings.rounds.enabled else None
    h2s = (float(piloted),) if piloted is not None else _ASSUMED_H2
    shown = h2s[0] if piloted is not None else _SHOWN_H2
    common = {
        "n_sets": design["n_sets"],
        "n_books": n_books,
        "inclusion": inclusion,
        "n_order_blocks": blocks.get("order", 0),
        "n_gap_blocks": blocks.get("gaps", 0),
        "level": settings.patterns.level,
    }
    by_h2 = {f"{h2:.3g}": knowledge.knowable(**common, h2=h2) for h2 in h2s}
    kinds = _kinds(settings, n_books)
    row = knowledge.knowable(**common, h2=shown)
    return {
        "n_sets": design["n_sets"],
        "n_books": n_books,
        "sets_per_book": design["n_sets"] * inclusion,
        "h2_from": "the pilot" if piloted is not None else "assumed",
        "h2": shown,
        "by_h2": by_h2,
        **{key: row[key] for key in row if key.startswith("smallest_")},
        "accuracy_of_predicted_scores": {h2: values["expected_accuracy"] for h2, values in by_h2.items()},
        "n_kinds": kinds,
        "accuracy_by_kinds": {h2: knowledge.expected_accuracy(design["n_sets"], kinds, float(h2)) for h2 in by_h2}
        if kinds
        else {},
        "runs_needed": {
            f"{effect:g}": knowledge.runs_needed(effect, inclusion, n_books, shown, settings.patterns.level)
            for effect in _WANTED_EFFECTS
        },
        "exaggeration_of_top": row["exaggeration_of_top"],
    }


def _kinds(settings: StudySettings, n_books: int) -> int:
    """Return how many kinds of books sets lean towards; 0 where they are balanced."""
    chosen = settings.sets.design
    dispersed = chosen == "dispersed" or (chosen == "auto" and n_books >= DISPERSED_FROM)
    return n_clusters(settings.sets.clusters, n_books) if dispersed else 0


def in_words(values: Mapping[str, Any]) -> list[str]:
    """Return the same as sentences."""
    few = values["sets_per_book"] * (1 - min(1.0, values["sets_per_book"] / max(1, values["n_sets"]))) < 1
    ratio = values["n_sets"] / max(1, values["n_books"])
    hard = ratio < _FEWEST_SETS_PER_BOOK
    lines = [
        f"{values['n_sets']} sets for {values['n_books']} books, each book in {values['sets_per_book']:.3g} of them"
        + (" - single books can only be told apart if their effect is large" if hard and not few else "")
        + (" - single books cannot be told apart" if few else "")
    ]
    assumed = f"h2 {values['h2']:.2g} ({values['h2_from']})"
    lines.append(
        f"smallest effect found in 4 of 5 studies, at {assumed}: book {_effect(values, 'book')}, feature "
        f"{_effect(values, 'feature')}, order {_effect(values, 'order')}, gaps {_effect(values, 'gap')}"
    )
    accuracy = values["accuracy_of_predicted_scores"]
    lines.append(
        "correlation of predicted with true scores of new sets: "
        + ", ".join(f"{value:.2f} if h2 is {h2}" for h2, value in accuracy.items())
        + (" (h2: the share of the variance between runs that is the set)" if values["h2_from"] == "assumed" else "")
    )
    if values["accuracy_by_kinds"]:
        found = ", ".join(f"{value:.2f} if h2 is {h2}" for h2, value in values["accuracy_by_kinds"].items())
        lines.append(f"by {values['n_kinds']} kinds of books in place of single books: {found}")
    needed = [
        f"{format_count(n)} for a book worth {effect}"
        for effect, n in values["runs_needed"].items()
        if 0 < n < math.inf
    ]
    if needed:
        lines.append(f"sets of one run needed, at {assumed}: {', '.join(needed)} seed sd")
    lines.append(
        f"of the lead of the ten best single runs {values['exaggeration_of_top']:.0%} would be luck: "
        "only fresh seeds tell what they are worth"
    )
    return lines


def _effect(values: Mapping[str, Any], name: str) -> str:
    size = values[f"smallest_{name}_effect"]
    return (
        f"{size:.2g} seed sd"
        if math.isfinite(size)
        else "none (no such blocks)"
        if name in ("order", "gap")
        else "none"
    )
