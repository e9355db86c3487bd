"""What a study will be able to find out, before it is run.

Source: accuracy of predicted scores r = sqrt(N h2 / (N h2 + B)) (Daetwyler's genomic prediction formula) and the
smallest detectable effect 2.8 / sqrt(N p (1 - p)) for 80 % power at two-sided 5 % (SCIENCE 0.1, 2.2 and 3.4).
"""

from __future__ import annotations

import math
from typing import Any

_ASSUMED_H2 = (0.3, 0.5, 0.8)


def power(n_sets: int, n_books: int, books_per_set: int, n_order_blocks: int, n_gap_blocks: int) -> dict[str, Any]:
    """Return smallest detectable effects in seed standard deviations, and expected accuracy by reliability h2.

    Book effects are compared between sets whose own scores spread by about sqrt(1 / (1 - h2)) seed sd; the value for
    h2 = 0.5 is given. An infinite value means: this design cannot tell.
    """
    share = books_per_set / max(1, n_books)
    spread = math.sqrt(2.0)
    information = n_sets * share * (1 - share)
    return {
        "n_sets": n_sets,
        "n_books": n_books,
        "sets_per_book": n_sets * share,
        "smallest_book_effect": _detectable(spread, information),
        "smallest_order_effect": _detectable(math.sqrt(2.0), n_order_blocks),
        "smallest_gap_effect": _detectable(math.sqrt(2.0), n_gap_blocks),
        "accuracy_of_predicted_scores": {
            str(h2): math.sqrt(n_sets * h2 / (n_sets * h2 + n_books)) if n_books else 0.0 for h2 in _ASSUMED_H2
        },
    }


def in_words(values: dict[str, Any]) -> list[str]:
    """Return the same as sentences."""

    def effect(key: str) -> str:
        size = values[key]
        return f"{size:.1f} seed sd" if math.isfinite(size) else "none (no such blocks)"

    accuracy = values["accuracy_of_predicted_scores"]
    ratio = values["n_sets"] / max(1, values["n_books"])
    return [
        f"{values['n_sets']} sets for {values['n_books']} books, each book in {values['sets_per_book']:.1f} of them"
        + (" - single books can only be told apart if their effect is large" if ratio < 5 else ""),
        f"smallest effect found in 4 of 5 studies: book {effect('smallest_book_effect')}, "
        f"order {effect('smallest_order_effect')}, gaps {effect('smallest_gap_effect')}",
        "correlation of predicted with true scores of new sets: "
        + ", ".join(f"{value:.2f} if h2 is {h2}" for h2, value in accuracy.items()),
    ]


def _detectable(spread: float, information: float) -> float:
    return 2.8 * spread / math.sqrt(information) if information > 0 else math.inf
