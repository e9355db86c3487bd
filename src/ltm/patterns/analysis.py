"""One analysis from a table of scores to effects, ranking and words, for a study's own scores and for given ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ltm.errors import DataError
from ltm.patterns.context import Context
from ltm.patterns.describe import Described, Kind, describe
from ltm.patterns.effects import Estimated, estimate_effects
from ltm.patterns.layout import Layout
from ltm.patterns.locale import rounded
from ltm.patterns.mixing_law import with_mixing_law
from ltm.patterns.order import claimed_places
from ltm.patterns.prediction import Prediction, exaggeration, predict_sets
from ltm.patterns.ranking import Ranking, rank
from ltm.patterns.recommend import Recommendation, as_plain, recommend
from ltm.patterns.section import PatternsSection
from ltm.patterns.sentences import named_kinds
from ltm.patterns.table import Floats, Table, joint_unit
from ltm.records import Ranked
from ltm.store import as_json

_LARGEST_RECOMMENDED = 4000  # sets
_OF_SETS = ("book", "feature", "interaction")  # families of tests about which books are in a set


@dataclass(frozen=True)
class Analysis:
    """Everything that one table of scores says."""

    table: Table
    estimated: Estimated
    ranking: Ranking
    context: Context
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    recommended: Recommendation | None = None
    kinds: Sequence[Kind] = ()  # classes of books that effects name by a number


def analyse(section: PatternsSection, table: Table, context: Context, seed: int) -> Analysis:
    """Estimate all effects and rank the variants.

    Where the stored design is not the one that was drawn, nothing is said about books, orders and gaps: who stood in
    which set is not known.
    """
    table = with_mixing_law(table)
    if context.edited:
        return Analysis(table, Estimated([], {}, {}), Ranking([], ()), context)
    estimated = estimate_effects(
        table, context.books, section.level, section.redraws, seed, context.clusters, context.kernel
    )
    made: dict[tuple[str, ...], Described] = {}

    def described(book_ids: tuple[str, ...]) -> Described:
        if book_ids not in made:
            made[book_ids] = describe(book_ids, context.books, context.clusters)
        return made[book_ids]

    def of_books(book_ids: tuple[str, ...]) -> Mapping[str, Floats]:
        return described(book_ids).columns()

    def of_runs(layout: Layout, abilities: tuple[str, ...]) -> Floats:
        claimed = {e.name for e in estimated.effects if e.claimed and e.kind == "order" and e.ability in abilities}
        return claimed_places(layout, described(layout.book_ids), context.kernel, claimed)

    ranking = rank(table, section.level, of_books, estimated.models, of_runs)
    predictions = {
        name: predict_sets(model, section.level, seed, name) for name, model in sorted(estimated.models.items())
    }
    recommended = _recommended(table, context, estimated, ranking, seed)
    return Analysis(table, estimated, ranking, context, predictions, recommended, _kinds(estimated, described))


def _kinds(estimated: Estimated, described: Callable[[tuple[str, ...]], Described]) -> list[Kind]:
    """Return the numbered classes of books that some effect names; the numbers are those of the effects."""
    layouts = {model.problem.layout.book_ids for model in estimated.models.values()}
    known = {kind.name: kind for book_ids in sorted(layouts) for kind in described(book_ids).kinds()}
    named = {name for e in estimated.effects if e.kind in ("order", "interaction") for name in named_kinds(e.name)}
    return [known[name] for name in sorted(known) if name in named]


def _recommended(
    table: Table, context: Context, estimated: Estimated, ranking: Ranking, seed: int
) -> Recommendation | None:
    """Return the ideal set by the posterior of the books; it needs one more fit, so very large studies go without."""
    from ltm.patterns import surrogate

    if not ranking.rows or len({v.set_id for v in table.variants}) > _LARGEST_RECOMMENDED:
        return None
    try:
        fitted = surrogate.fit(table, context.books, context.clusters)
    except DataError:
        return None
    tied = sum(row.tied_with_best for row in ranking.rows) - 1
    unit = joint_unit(table, fitted.abilities)
    told = any(o.passed and o.kind in _OF_SETS for o in estimated.omnibus if o.ability in fitted.abilities)
    return recommend(fitted, estimated.effects, ranking.rows[0].variant_id, tied, seed, unit, told)


def findings(section: PatternsSection, analysis: Analysis) -> dict[str, Any]:
    """Return the findings as plain values: numbers, words, and the best variants."""
    from ltm.patterns import words

    table, estimated, ranking = analysis.table, analysis.estimated, analysis.ranking
    abilities = {}
    for name, facts in table.abilities.items():
        summary = asdict(estimated.summaries[name]) if name in estimated.summaries else {}
        abilities[name] = {key: _plain(value) for key, value in {**asdict(facts), **summary}.items()}
    return {
        "level": section.level,
        "redraws": section.redraws,
        "n_runs": len(table.run_ids),
        "n_variants": len(table.variants),
        "n_sets": len({v.set_id for v in table.variants}),
        "n_blocks": len({v.block for v in table.variants}),
        "dropped": table.dropped,
        "abilities": abilities,
        "omnibus": [{key: _plain(value) for key, value in asdict(row).items()} for row in estimated.omnibus],
        "findings": words.findings(estimated.effects, table.abilities),
        "not_told_apart": words.not_told_apart(estimated.effects, table.abilities, estimated.through),
        "notes": words.notes(table, estimated, ranking, analysis.context.edited),
        "prediction": {name: _plain(asdict(found)) for name, found in analysis.predictions.items()},
        "luck": _luck(ranking, section.top),
        "dose_curve": {n: _plain(asdict(curve)) for n, (curve, _) in estimated.inside.items() if curve is not None},
        "order_share": {n: _plain(asdict(share)) for n, (_, share) in estimated.inside.items() if share is not None},
        "kinds": [words.kind(own) for own in analysis.kinds],
        "ideal_set": as_plain(analysis.recommended, analysis.context.books),
        "ranked_by": list(ranking.by),
        "n_tied_with_best": sum(row.tied_with_best for row in ranking.rows),
        "top": placed(ranking.rows[: section.top]),
    }


def _luck(ranking: Ranking, top: int) -> dict[str, Any] | None:
    """Return how much of the lead of the best raw scores is expected to be luck."""
    if not ranking.rows:
        return None
    raw = np.array([row.raw for row in ranking.rows])
    return dict(_plain(exaggeration(raw, np.array([row.posterior for row in ranking.rows]), top)))


def placed(rows: Sequence[Ranked]) -> list[dict[str, Any]]:
    """Return ranked variants as plain values."""
    return [{key: _plain(value) for key, value in as_json(row).items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return {key: _plain(child) for key, child in value.items()} if isinstance(value, dict) else value
