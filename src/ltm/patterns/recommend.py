"""The ideal set: which books, in which order, how sparse - with its predicted range, and its rivals within noise.

The recommended set is the one with the highest posterior mean; how sure each of its books is comes from posterior
draws: the share in which it is among the best. Order and gaps are recommended only where a claim supports them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ltm.patterns.adaptive_shrinkage import Shrunk, shrink
from ltm.patterns.gaps import HEAD
from ltm.patterns.locale import LANGUAGES, Language, counted, number, rounded, term
from ltm.patterns.surrogate import Surrogate
from ltm.patterns.table import Ints
from ltm.records import Book, Effect

_DRAWS = 400
_SURE = 0.9
_LARGEST = 20_000  # books up to which posterior draws are made
_Z90 = 1.6449


@dataclass(frozen=True)
class Recommendation:
    """What to train on, and how sure that is; scores above the average set, in `unit`."""

    book_ids: list[str]
    predicted: float
    low: float  # 90 % interval
    high: float
    sure: list[str]  # of these, in nine of ten posterior draws; empty where not `told`
    open: list[str]  # books in or out of the set that could as well be the other way; empty where not `told`
    order: str  # best supported order; empty = no order is known to be better
    places: list[str]  # names of claimed terms of place
    gaps: str  # kind of gaps that a claim supports; empty = the full text
    best_tried: str  # variant_id of the best set that was trained
    n_rivals: int  # trained variants that cannot be told from the best
    unit: str  # of the predicted score: `seed`, `residual`, `mixed` or `score`
    abilities: tuple[str, ...]  # whose mean is predicted
    told: bool  # a test says that books matter; `low` to `high` has the luck of a single set too


def recommend(
    surrogate: Surrogate,
    effects: Sequence[Effect],
    best_tried: str,
    n_rivals: int,
    seed: int,
    unit: tuple[str, float] = ("seed", 1.0),
    told: bool = False,
) -> Recommendation | None:
    """Return the recommended set, order and gaps; None where the books of a set cannot be told apart at all.

    Args:
        surrogate: What the scores say about each book.
        effects: Of the whole study; claims alone recommend an order or gaps.
        best_tried: variant_id of the best set that was trained.
        n_rivals: Trained variants that cannot be told from it.
        seed: Of the posterior draws.
        unit: In which the score is told, and its size in that of the surrogate (`ltm.patterns.table.joint_unit`).
        told: Whether a family of tests says that books matter at all. The range cannot: where nothing matters, the
            variance that is learned for it is above zero by luck, and the set was made to be the luckiest.
    """
    size = min(round(surrogate.set_size), len(surrogate.book_ids))
    if size < 1 or size >= len(surrogate.book_ids) or float(np.ptp(surrogate.mean_B)) <= 1e-9:
        return None
    best = np.argsort(-surrogate.mean_B, kind="stable")[:size]
    chosen = sorted(surrogate.book_ids[i] for i in best)
    alone = _alone(surrogate)
    mean, sd = _predicted(surrogate, alone, best)
    # Where no test says that books matter, how sure a book is only repeats the luck that made the set.
    sure, unsure = _how_sure(surrogate, alone, set(best.tolist()), seed) if told else ([], [])
    by = set(surrogate.abilities)
    claimed = [e for e in effects if e.claimed and e.ability in by]
    return Recommendation(
        chosen,
        mean * unit[1],
        (mean - _Z90 * sd) * unit[1],
        (mean + _Z90 * sd) * unit[1],
        sure,
        unsure,
        _best_order(claimed),
        [e.name for e in claimed if e.kind == "order" and "_vs_" not in e.name],
        _best_gaps(claimed),
        best_tried,
        n_rivals,
        unit[0],
        surrogate.abilities,
        told,
    )


def _alone(surrogate: Surrogate) -> Shrunk | None:
    """Return what is believed of each book by itself; None where the study is too small for that."""
    found = surrogate.alone()
    return shrink(*found) if found is not None else None


def _predicted(surrogate: Surrogate, alone: Shrunk | None, best: Ints) -> tuple[float, float]:
    """Return (mean, standard deviation) of the score of the set of the best books above the average set.

    A normal prior takes the effects of all books to be of one size: where one book is strong and the others do nothing,
    it leaves the others' luck in, and the set that sums the luckiest is far too good to be true. So where each book
    can be told by itself, a prior learned from them is put in its place.
    """
    if alone is None:
        mean, sd = surrogate.predict([[surrogate.book_ids[i] for i in best]])
        return float(mean[0]), float(sd[0])
    weight = -surrogate.usual
    weight[best] += surrogate.set_size / len(best)
    return float(weight @ alone.means()), float(np.sqrt(weight**2 @ alone.variances() + surrogate.rest_sd**2))


def _how_sure(surrogate: Surrogate, alone: Shrunk | None, best: set[int], seed: int) -> tuple[list[str], list[str]]:
    if len(surrogate.book_ids) > _LARGEST:
        return [], []
    if alone is None:
        draws = surrogate.draws(_DRAWS, seed)
    else:
        rng = np.random.default_rng([seed, 0x1DEA])
        draws = alone.draws(_DRAWS, rng)
        size = float(np.ptp(draws)) or 1.0  # all draws may be zero
        draws = draws + 1e-9 * size * rng.standard_normal(draws.shape)  # equals in random order
    inside = np.zeros(len(surrogate.book_ids))
    for row in draws:
        inside[np.argpartition(-row, len(best) - 1)[: len(best)]] += 1.0 / _DRAWS
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
    if found is None:
        return None
    values = asdict(found)
    for key in ("predicted", "low", "high"):
        values[key] = rounded(values[key])
    values["abilities"] = list(found.abilities)
    values["titles"] = [books[b].title if b in books else b for b in found.book_ids]
    return {**values, "text": {language: _sentence(found, language) for language in LANGUAGES}}


def _sentence(found: Recommendation, language: Language) -> str:
    mean, low, high = (number(v, language, sign=True) for v in (found.predicted, found.low, found.high))
    unit, n = term("unit", found.unit, language), len(found.book_ids)
    by = ", ".join(term("ability", name, language) for name in found.abilities)
    if language == "en":
        start = f"Recommended: a set of {_books(n)}, predicted"
        if not found.told:
            start = f"No test says that it matters which books are in a set; the best predicted set, of {_books(n)}, is"
        by = f"by {by}" if len(found.abilities) == 1 else f"by the mean of {by}"
        first = f"{start} {mean} {unit} above the average set {by} (90 % from {low} to {high}"
        first += f"{_luck(found, language)})."
    else:
        books = counted(n, ("книги", "книг", "книг"))
        start = f"Рекомендуется набор из {books}, прогноз:"
        if not found.told:
            start = f"Ни одна проверка не говорит, что состав набора важен; лучший по прогнозу набор, из {books}:"
        by = f"по показателю: {by}" if len(found.abilities) == 1 else f"в среднем по показателям: {by}"
        first = f"{start} {mean} {unit} относительно среднего набора ({by}; 90 % от {low} до {high}"
        first += f"{_luck(found, language)})."
    parts = [first]
    if found.told and (found.sure or found.open):
        parts.append(_sure(len(found.sure), len(found.open), language))
    return " ".join([*parts, _order(found, language), _gaps(found, language), _rivals(found.n_rivals, language)])


def _luck(found: Recommendation, language: Language) -> str:
    """Return what luck does to the number: to a set that was picked out of noise, or to one good set."""
    en = language == "en"
    if not found.told:
        lucky = "; it is the luckiest of many sets, so the number says little"
        return lucky if en else "; это самый удачный из многих наборов, поэтому число мало о чём говорит"
    if found.low > 0:
        return ""
    if en:
        return "; by its own luck one such set may be no better than the average"
    return "; по собственной случайности один такой набор может оказаться не лучше среднего"


def _books(n: int) -> str:
    return "1 book" if n == 1 else f"{n} books"


def _sure(n_sure: int, n_open: int, language: Language) -> str:
    if language == "en":
        belong = "belongs" if n_sure == 1 else "belong"
        return (
            f"{n_sure} of its books {belong} to it with a probability of at least 90 %; "
            f"{_books(n_open)} could as well be in or out."
        )
    return f"С вероятностью не ниже 90 % нужны в нём книги: {n_sure}; могли бы и войти, и не войти: {n_open}."


def _order(found: Recommendation, language: Language) -> str:
    en, n = language == "en", len(found.places)
    if found.order:
        return f"{'Order' if en else 'Порядок'}: {term('order', found.order, language)}."
    if not found.places:
        return "No order of books is known to be better." if en else "Ни один порядок книг не показал себя лучше."
    if en:
        about = "1 finding says" if n == 1 else f"{n} findings say"
        return f"No order as a whole is known to be better, but {about} which books do better where."
    about = counted(n, ("вывод", "вывода", "выводов"))
    return f"Ни один порядок в целом не показал себя лучше, но о том, где каким книгам лучше стоять, есть {about}."


def _gaps(found: Recommendation, language: Language) -> str:
    if found.gaps:
        return f"{'Sparsity' if language == 'en' else 'Разреженность'}: {term('gap', found.gaps, language)}."
    return {
        "en": "Sparsity: the full text; no gaps are known to be better.",
        "ru": "Разреженность: полный текст; пропуски лучше себя не показали.",
    }[language]


def _rivals(n: int, language: Language) -> str:
    if language == "en":
        told = f"{n} cannot be told from the best" if n else "the best stands apart from all others"
        return f"Of the trained variants {told}."
    told = f"нельзя отличить от лучшего: {n}" if n else "лучший отличается от всех остальных"
    return f"Среди обученных вариантов {told}."
