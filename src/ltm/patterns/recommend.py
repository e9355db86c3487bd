"""The ideal set: which books, in which order, how sparse - with its predicted range, and its rivals within noise.

The recommended set is the one with the highest posterior mean; how sure each of its books is comes from posterior
draws: the share in which it is among the best. Order and gaps are recommended only where a claim supports them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm.patterns.gaps import HEAD
from ltm.patterns.surrogate import Surrogate
from ltm.records import Book, Effect

_DRAWS = 400
_SURE = 0.9
_LARGEST = 20_000  # books up to which posterior draws are made
_Z90 = 1.6449


@dataclass(frozen=True)
class Recommendation:
    """What to train on, and how sure that is; scores in seed standard deviations above the average set."""

    book_ids: list[str]
    predicted: float
    low: float  # 90 % interval
    high: float
    sure: list[str]  # of these, in nine of ten posterior draws
    open: list[str]  # books in or out of the set that could as well be the other way
    order: str  # best supported order; empty = no order is known to be better
    places: list[str]  # names of claimed terms of place
    gaps: str  # kind of gaps that a claim supports; empty = the full text
    best_tried: str  # variant_id of the best set that was trained
    n_rivals: int  # trained variants that cannot be told from the best


def recommend(
    surrogate: Surrogate, effects: Sequence[Effect], best_tried: str, n_rivals: int, seed: int
) -> Recommendation | None:
    """Return the recommended set, order and gaps; None where the books of a set cannot be told apart at all."""
    size = min(round(surrogate.set_size), len(surrogate.book_ids))
    if size < 1 or size >= len(surrogate.book_ids) or float(np.ptp(surrogate.mean_B)) <= 1e-9:
        return None
    best = np.argsort(-surrogate.mean_B, kind="stable")[:size]
    chosen = sorted(surrogate.book_ids[i] for i in best)
    mean, sd = surrogate.predict([chosen])
    sure, unsure = _how_sure(surrogate, set(best.tolist()), size, seed)
    by = set(surrogate.abilities)
    claimed = [e for e in effects if e.claimed and e.ability in by]
    return Recommendation(
        chosen,
        float(mean[0]),
        float(mean[0] - _Z90 * sd[0]),
        float(mean[0] + _Z90 * sd[0]),
        sure,
        unsure,
        _best_order(claimed),
        [e.name for e in claimed if e.kind == "order" and "_vs_" not in e.name],
        _best_gaps(claimed),
        best_tried,
        n_rivals,
    )


def _how_sure(surrogate: Surrogate, best: set[int], size: int, seed: int) -> tuple[list[str], list[str]]:
    if len(surrogate.book_ids) > _LARGEST:
        return [], []
    draws = surrogate.draws(_DRAWS, seed)
    inside = np.zeros(len(surrogate.book_ids))
    for row in draws:
        inside[np.argpartition(-row, size - 1)[:size]] += 1.0 / _DRAWS
    sure = [surrogate.book_ids[i] for i in sorted(best) if inside[i] >= _SURE]
    unsure = [surrogate.book_ids[i] for i in range(len(inside)) if 1.0 - _SURE < inside[i] < _SURE]
    return sure, unsure


def _best_order(claimed: Sequence[Effect]) -> str:
    found = [(e.low, e.name.split("_vs_")[0]) for e in claimed if e.kind == "order" and "_vs_random" in e.name]
    return max(found)[1] if found and max(found)[0] > 0 else ""


def _best_gaps(claimed: Sequence[Effect]) -> str:
    names = {e.name: e for e in claimed if e.kind == "gap"}
    if "gaps_vs_full" not in names or names["gaps_vs_full"].estimate <= 0:
        return ""
    kinds = [e for n, e in names.items() if n.endswith("_vs_truncated") and not n.startswith(("gaps", HEAD))]
    return max(kinds, key=lambda e: e.estimate).name.split("_vs_")[0] if kinds else "gaps"


def as_plain(found: Recommendation | None, books: Mapping[str, Book]) -> dict[str, Any] | None:
    """Return a recommendation as plain values with its sentences."""
    from dataclasses import asdict

    from ltm.patterns.locale import LANGUAGES, rounded

    if found is None:
        return None
    values = asdict(found)
    for key in ("predicted", "low", "high"):
        values[key] = rounded(values[key])
    values["titles"] = [books[b].title if b in books else b for b in found.book_ids]
    return {**values, "text": {language: _sentence(found, language) for language in LANGUAGES}}


def _sentence(found: Recommendation, language: Any) -> str:
    from ltm.patterns.locale import number, term

    mean, low, high = (number(v, language, sign=True) for v in (found.predicted, found.low, found.high))
    n, sure = len(found.book_ids), len(found.sure)
    order = term("order", found.order, language) if found.order else ""
    gaps = term("gap", found.gaps, language) if found.gaps else ""
    if language == "en":
        return (
            f"Recommended: a set of {n} books, predicted {mean} seed sd above the average set (90 % from {low} to "
            f"{high}); {sure} of its books are sure, {len(found.open)} books could as well be in or out. "
            + (f"Order: {order}. " if order else "No order of books is known to be better. ")
            + (f"Sparsity: {gaps}. " if gaps else "Sparsity: the full text; no gaps are known to be better. ")
            + f"Of the trained variants {found.n_rivals} cannot be told from the best."
        )
    return (
        f"Рекомендуется набор из {n} книг: прогноз {mean} σ повторов относительно среднего набора "
        f"(90 % от {low} до {high}); надёжно известно о включении книг: {sure}, неясно: {len(found.open)}. "
        + (f"Порядок: {order}. " if order else "Ни один порядок книг не показал себя лучше. ")
        + (f"Разрежение: {gaps}. " if gaps else "Разрежение: полный текст; пропуски лучше себя не показали. ")
        + f"Обученных вариантов, неотличимых от лучшего: {found.n_rivals}."
    )
