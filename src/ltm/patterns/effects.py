"""Effects of books, features, orders, gaps and interactions on every ability, judged together.

A book's effect is the mean score of the sets that hold it minus the mean of those that do not. With half of the library
in a set this is its Banzhaf value (Wang and Jia 2023), the data value that seed noise disturbs least. All sets are of
one size, so only differences between books exist: the effect is against the average book.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ltm.patterns import mixed
from ltm.patterns.adaptive_shrinkage import shrink, sign_rates
from ltm.patterns.books import MIN_SIDE, Contrast, book_contrasts, set_contrasts
from ltm.patterns.describe import SIMILARITY, STANDS_OUT, Described, describe
from ltm.patterns.gaps import gap_terms
from ltm.patterns.inference import bh_adjusted, simes, stream, two_stage_q
from ltm.patterns.interactions import interaction_columns, much_of, set_columns
from ltm.patterns.knowledge import wanted_z
from ltm.patterns.layout import Layout, interval, make_layout, with_column
from ltm.patterns.order import KERNEL, beside_each_other, order_estimates, primary
from ltm.patterns.table import Floats, Table
from ltm.patterns.terms import Estimate, Term, evaluate, usable
from ltm.patterns.within import DoseCurve, OrderShare, dose_curve, order_share
from ltm.records import Book, Effect

KINDS = ("book", "feature", "order", "gap", "interaction")
AGAINST = "_vs_"  # in the name of a contrast between two arms
PLACES = "order_place"  # family of which features' places matter; whole orders against each other are asked first
SHAPES = "order_shape"  # family of what a position does beyond the schedule's kernel
CONFIRMING = "confirmation"
MIN_SETS = 8  # for anything that compares whole sets
MIN_DF = 3  # of the sets, after the arms
_MOST_BESIDE = 8  # claimed books that a feature must stand beside
_LARGEST_CHECKED = 1500  # sets up to which findings are fitted again in six other ways
_TINY = 1e-9


@dataclass(frozen=True)
class Summary:
    """What a study can know about one ability, from the variance of its own scores."""

    n_sets: int
    set_share: float  # share of a run's variance that is its set
    book_share: float  # of the set's variance, the part that is the sum of its books
    residual_sd: float
    smallest_book_effect: float  # found with 80 % power although all books are tested; NaN = no book can be tested
    expected_accuracy: float  # correlation of predicted with true scores of new sets


@dataclass(frozen=True)
class Omnibus:
    """One family of tests as a whole: does anything of this kind matter for this ability?"""

    ability: str
    kind: str
    n: int
    p: float  # Simes over the family's randomisation p-values
    q: float  # Benjamini-Hochberg over the families
    passed: bool  # at the study's level: its single effects may be claimed


@dataclass(frozen=True)
class Estimated:
    """All effects of a study, and per ability and kind the reason where none could be estimated."""

    effects: list[Effect]
    skipped: dict[tuple[str, str], str]
    summaries: dict[str, Summary]
    omnibus: list[Omnibus] = field(default_factory=list)
    models: dict[str, mixed.Solved] = field(default_factory=dict)  # ability -> its mixed model
    inside: dict[str, tuple[DoseCurve | None, OrderShare | None]] = field(default_factory=dict)  # by ability
    through: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # (ability, feature) -> titles: see below


@dataclass(frozen=True)
class Setting:
    """What every ability is analysed with."""

    books: Mapping[str, Book]
    redraws: int
    seed: int
    kernel: Floats | None = None  # weight of each part of the stream in the final weights; see `order`


def estimate_effects(
    table: Table,
    books: Mapping[str, Book],
    level: float,
    redraws: int,
    seed: int,
    clusters: Mapping[str, int] | None = None,
    kernel: Floats | None = None,
) -> Estimated:
    """Estimate every effect on every ability and give each a p-value, a q-value and an interval.

    Args:
        table: Scores by run.
        books: book_id -> row; gives titles and features.
        level: False discovery rate of a claim.
        redraws: Redraws of the design per test.
        seed: Seed of the study; each (ability, kind) has its own stream of it.
        clusters: book_id -> cluster of the design, where it used any.
        kernel: Weight of each part of the training stream in the final weights (see `ltm.patterns.order`).
    """
    setting = Setting(books, redraws, seed, kernel)
    found: dict[tuple[str, str], list[Estimate]] = {}
    skipped: dict[tuple[str, str], str] = {}
    summaries: dict[str, Summary] = {}
    models: dict[str, mixed.Solved] = {}
    analyses: dict[str, _Analysis] = {}
    inside: dict[str, tuple[DoseCurve | None, OrderShare | None]] = {}
    # Sets that were chosen after looking at scores have no randomisation law; they only enter the ranking.
    drawn = np.array([v.drawn and not v.aside and v.round != CONFIRMING for v in table.variants])[table.variant_of]
    known: dict[tuple[str, ...], Described] = {}
    for name, facts in table.abilities.items():
        if facts.constant:
            skipped.update({(name, kind): "constant" for kind in KINDS})
            continue
        layout = make_layout(table, np.where(drawn, table.scores[name], np.nan))
        if not len(layout.rows):
            skipped.update({(name, kind): "no_random_sets" for kind in KINDS})
            continue
        if layout.book_ids not in known:
            known[layout.book_ids] = describe(layout.book_ids, books, clusters)
        analysis = _Analysis(name, layout, table.scores[name][layout.rows], known[layout.book_ids], setting)
        summaries[name] = analysis.summary(level)
        if analysis.solved is not None:
            models[name] = analysis.solved
            analyses[name] = analysis
            inside[name] = analysis.inside()
        for kind, estimates in analysis.by_kind().items():
            if estimates:
                found[name, kind] = estimates
            elif kind in ("book", "feature", "order", "gap"):  # the other families only refine these
                skipped[name, kind] = "too_few_blocks" if kind in ("order", "gap") else "too_few_sets"
        if not known[layout.book_ids].names:
            skipped[name, "feature"] = "no_features"
    effects, omnibus = _judge(table, found, level)
    effects, through = _beside_books(effects, analyses)
    effects = _checked(effects, analyses, table)
    return Estimated(effects, skipped, summaries, omnibus, models, inside, through)


class _Analysis:
    """One ability: the layout of its runs, its mixed model, and all effects."""

    def __init__(
        self,
        name: str,
        layout: Layout,
        score: Floats,
        known: Described,
        setting: Setting,
        ratios: Mapping[str, float] | None = None,
    ) -> None:
        self.name, self.layout, self.score, self.known, self.setting = name, layout, score, known, setting
        self.n_sets, self.n_books = layout.membership.shape
        self.df = self.n_sets - layout.n_arm_sets() - 1.0
        holders = layout.holders
        self.kept = np.flatnonzero((holders >= MIN_SIDE) & (self.n_sets - holders >= MIN_SIDE))
        # Where every book is held about as often and there are as many sets, each book has an estimate of its own, for
        # which its features need not be known; another solve of many sets would cost more than it is worth.
        self.balanced = (
            len(self.kept) == self.n_books <= self.n_sets <= _LARGEST_CHECKED and holders.min() >= 0.7 * holders.max()
        )
        self.columns = known.columns()
        problem = self._problem(self.columns)
        self.solved = mixed.fit(problem) if ratios is None else mixed.Solved(problem, ratios)
        self.plain = self.solved
        if self.balanced and self.columns and self.solved is not None:
            total = sum(self.solved.ratios.get(k, 0.0) for k in (mixed.BOOKS, *self.columns))
            ratios = {mixed.BOOKS: total, mixed.REST: self.solved.ratios.get(mixed.REST, 0.0)}
            self.plain = mixed.Solved(self._problem({}), ratios)

    def _problem(self, columns: Mapping[str, Floats]) -> mixed.Problem:
        return mixed.Problem(self.layout, mixed.make_factors(self.layout, columns), self.score)

    def _rng(self, kind: str) -> np.random.Generator:
        return stream(self.setting.seed, self.name, kind)

    @property
    def _testable(self) -> bool:
        return self.solved is not None and self.n_sets >= MIN_SETS and self.df >= MIN_DF

    def by_kind(self) -> dict[str, list[Estimate]]:
        """Return the estimates of every kind; an empty list where there are too few sets or blocks."""
        redraws = self.setting.redraws

        def inside(kind: str, terms: list[Term]) -> list[Estimate]:
            ready = [term for term in terms if usable(term)]
            return evaluate(kind, ready, self.score, redraws, self._rng(kind)) if ready else []

        return {
            "book": self._books(),
            "feature": self._features(),
            **self._orders(),
            "gap": inside("gap", gap_terms(self.layout)),
            "interaction": self._interactions(),
        }

    def _orders(self) -> dict[str, list[Estimate]]:
        """Return orders against each other, the places of features, and the shapes beyond them: a family each.

        One contrast that the design was laid out for must not drown among dozens of features' places.
        """
        solved = self.solved if self._testable else None
        rng, kernel = self._rng("order"), self.setting.kernel
        found = order_estimates(self.layout, self.score, self.known, kernel, solved, self.setting.redraws, rng)
        has_kernel = any(e.name.startswith(KERNEL) for e in found)
        first = [e for e in found if primary(e.name, has_kernel)]
        contrasts = [e for e in first if AGAINST in e.name]
        places = [e for e in first if AGAINST not in e.name]
        return {
            "order": contrasts or places,
            PLACES: places if contrasts else [],
            SHAPES: [e for e in found if not primary(e.name, has_kernel)],
        }

    def _books(self) -> list[Estimate]:
        """Return the contrast of every book that enough sets hold and enough do not."""
        if not self._testable or not len(self.kept) or self.plain is None or self.solved is None:
            return []
        found = book_contrasts(self.plain, self.kept, self.setting.redraws, self._rng("book"), self.df)
        shrunk = mixed.book_effects(self.solved)[self.kept]
        ids = [self.layout.book_ids[k] for k in self.kept]
        labels = [self.setting.books[b].title if b in self.setting.books else b for b in ids]
        return _estimates("book", ids, labels, found, shrunk, self.n_sets)

    def _features(self) -> list[Estimate]:
        """Return slopes per standard deviation, between sets, of a set's mean feature.

        Books are the unit where each has an estimate of its own; with more books than sets, sets are, and the books'
        own scatter is part of the noise. It is an association within this library, not a cause.
        """
        if not self._testable or self.solved is None:
            return []
        made: list[Estimate] = []
        if len(self.known.names) and self.n_books >= MIN_SETS:
            made += self._slopes()
        names, labels, columns = set_columns(self.layout, self.known)
        if names:
            contrast = set_contrasts(
                self.solved, columns, np.zeros(len(names)), self.setting.redraws, self._rng("set"), self.df
            )
            made += _estimates("feature", names, labels, contrast, contrast.estimate, self.n_sets)
        return made

    def _slopes(self) -> list[Estimate]:
        assert self.solved is not None
        held = self.layout.membership
        per_book = held.sum(axis=1)
        means = np.asarray(held @ self.known.values) / per_book[:, None]
        spread = means.std(axis=0)
        usual = float(np.median(per_book))
        shown = np.flatnonzero(spread > _TINY)
        if not len(shown):
            return []
        columns = self.known.values[:, shown]
        factors = self.solved.problem.factors
        own = np.zeros(len(shown))
        if "features" in factors.of_books:
            scale = float(np.max(np.abs(factors.of_books["features"])) / np.max(np.abs(self.known.values)))
            own += self.solved.ratios.get("features", 0.0) * scale**2
        df = min(self.df, max(2.0, self.n_books - len(shown) - 1.0))
        contrast = set_contrasts(
            self.solved, np.asarray(held @ columns), own, self.setting.redraws, self._rng("feature"), df
        )
        unit = usual * spread[shown]  # from one standard deviation of a book to one of the sets' means
        contrast = Contrast(contrast.estimate * unit, contrast.se * unit, contrast.p, contrast.df)
        names = [self.known.names[k] for k in shown]
        labels = [name.replace("_", " ") for name in names]
        return _estimates("feature", names, labels, contrast, contrast.estimate, self.n_books)

    def _interactions(self) -> list[Estimate]:
        if not self._testable or self.solved is None:
            return []
        names, labels, columns = interaction_columns(self.layout, self.known, self.solved, self.setting.books)
        if not names:
            return []
        contrast = set_contrasts(
            self.solved, columns, np.zeros(len(names)), self.setting.redraws, self._rng("interaction"), self.df
        )
        found = _estimates("interaction", names, labels, contrast, contrast.estimate, self.n_sets)
        if len(found) < max(2, len(names)):
            return found
        return beside_each_other(found, mixed.run_terms(self.solved, columns[self.layout.set_of]))

    def inside(self) -> tuple[DoseCurve | None, OrderShare | None]:
        """Return the dose curve of gaps, and how much of the order's variance places explain."""
        curve = dose_curve(self.layout, self.score, self.setting.seed, self.name)
        if self.solved is None:
            return curve, None
        return curve, order_share(self.layout, self.score, self.known, self.setting.kernel, self.solved)

    def others(self, table: Table, claimed: bool) -> Iterator[tuple[str, Layout, Floats]]:
        """Give the layouts and scores of other fits; all six only where something is claimed that they could deny."""
        from scipy.special import ndtri
        from scipy.stats import rankdata

        layout, n = self.layout, len(self.score)
        if self.n_sets > _LARGEST_CHECKED:
            return
        if len(self.known.similarity):
            held = layout.membership
            means = np.asarray(held @ self.known.similarity) / np.asarray(held.sum(axis=1))
            if means.std() > _TINY:
                yield SIMILARITY, replace(layout, arms=with_column(layout.arms, means[layout.set_of])), self.score
        if not claimed:
            return
        half = np.random.default_rng(0).permutation(self.n_sets) % 2
        for side in (0, 1):
            keep = np.flatnonzero(half[layout.set_of] == side)
            score = np.full(len(table.run_ids), np.nan)
            score[layout.rows[keep]] = self.score[keep]
            yield f"sets {side}", make_layout(table, score), self.score[keep]
        yield "ranks", layout, np.asarray(ndtri((rankdata(self.score) - 0.5) / n) * np.std(self.score))
        for side, scores in enumerate(table.halves.get(self.name, ())):
            if np.isfinite(scores[layout.rows]).all():
                yield f"items {side}", layout, scores[layout.rows]

    def refit(self, layout: Layout, score: Floats) -> dict[tuple[str, str], float]:
        """Return the estimates of another layout or score under the same variances."""
        if self.solved is None or not len(layout.rows):
            return {}
        known = self.known if layout.book_ids == self.known.book_ids else self.known.part(layout.book_ids)
        columns = known.columns()
        ratios = {k: v for k, v in self.solved.ratios.items() if k in (mixed.BOOKS, mixed.REST) or k in columns}
        setting = replace(self.setting, redraws=1)
        analysis = _Analysis(self.name, layout, score, known, setting, ratios)
        return {(e.kind, e.name): e.estimate for rows in analysis.by_kind().values() for e in rows}

    def beside(self, books: Sequence[Effect]) -> dict[tuple[str, str], float]:
        """Return the estimates with some books fixed beside everything."""
        layout, arms = self.layout, self.layout.arms
        held = layout.membership[:, [layout.book_ids.index(book.name) for book in books]].toarray()
        for column in held[layout.set_of].T:
            arms = with_column(arms, column)
        return self.refit(replace(layout, arms=arms), self.score)

    def behind(self, feature: Effect, books: Sequence[Effect], fit: Mapping[tuple[str, str], float]) -> list[Effect]:
        """Return the books that a feature cannot be told apart from, in a fit with these books fixed; empty = it can.

        They are those that stand out in it on the side where what they do looks like its effect.
        """
        share = dict(zip(self.layout.book_ids, much_of(feature.name, self.layout, self.known).tolist(), strict=True))
        carriers = [b for b in books if share[b.name] * np.sign(b.estimate * feature.estimate) >= STANDS_OUT]
        if (feature.kind, feature.name) in fit:
            return [] if _stays(feature, fit) else carriers
        # No value: the fit could not tell features at all, or these books alone have this one, so that it is theirs.
        for book in books:
            del share[book.name]
        return carriers if np.ptp(list(share.values())) <= _TINY else []

    def summary(self, level: float) -> Summary:
        """Return the variance components and what they allow to be found (Daetwyler et al. 2008; 80 % power)."""
        nan = float("nan")
        if self.solved is None:
            return Summary(self.n_sets, 0.0, 0.0, nan, nan, nan)
        of_set = self.solved.of_set
        books = of_set - self.solved.ratios.get(mixed.REST, 0.0)
        share = of_set / (1.0 + of_set)
        book_share = books / of_set if of_set > 0 else 0.0
        residual = float(np.sqrt(self.solved.seed_variance))
        if not self.solved.problem.factors.book_scale:
            return Summary(self.n_sets, share, 0.0, residual, nan, nan)
        smallest = nan
        if self._testable and len(self.kept):
            inclusion = self.layout.holders[self.kept] / self.n_sets
            information = self.n_sets * float(np.mean(inclusion * (1.0 - inclusion)))
            runs = float(np.mean(self.layout.runs_per_set))
            sd = residual * np.sqrt(of_set + 1.0 / runs)
            smallest = wanted_z(len(self.kept), level) * float(sd) / float(np.sqrt(information))
        runs = float(np.mean(self.layout.runs_per_set))
        useful = self.n_sets * books / (of_set + 1.0 / runs)
        accuracy = float(np.sqrt(book_share * useful / (useful + self.n_books))) if useful > 0 else 0.0
        return Summary(self.n_sets, share, book_share, residual, smallest, accuracy)


def _beside_books(
    effects: list[Effect], analyses: Mapping[str, _Analysis]
) -> tuple[list[Effect], dict[tuple[str, str], list[str]]]:
    """Return the effects without claims of features that single books stand behind, and the titles of these books.

    One strong book with much of a feature makes the sets that have much of it good, whatever the feature does. So a
    feature is claimed only if its sign and half of its size stay beside the claimed books. A feature that does much
    makes most books of a small library stand out by themselves; the few that are left cannot deny it.
    """
    made, through = list(effects), dict[tuple[str, str], list[str]]()
    for name, analysis in analyses.items():
        claimed = [e for e in effects if e.ability == name and e.claimed]
        strong = sorted((e for e in claimed if e.kind == "book"), key=lambda e: (-abs(e.estimate / e.se), e.name))
        strong, features = strong[:_MOST_BESIDE], {e.name for e in claimed if e.kind == "feature"}
        few_left = 2 * len(strong) > analysis.n_books
        if not strong or not features or few_left or analysis.n_sets > _LARGEST_CHECKED:
            continue
        left = analysis.beside(strong)
        for at, e in enumerate(made):
            if e.ability != name or e.kind != "feature" or e.name not in features:
                continue
            if books := analysis.behind(e, strong, left):
                made[at] = replace(e, claimed=False, q=1.0)
                through[name, e.name] = [book.label for book in books]
    return made, through


def share_that_lasts(effects: Sequence[Effect]) -> float | None:
    """Return the share of the claimed effects' sizes that is expected in a new study; None where nothing is claimed.

    What is claimed was picked for standing out, so its sizes are too large on average. Each family of one kind and
    ability is a sample from a distribution that is learned from all of it (see `adaptive_shrinkage`).
    """
    families: dict[tuple[str, str], list[Effect]] = {}
    for e in effects:
        families.setdefault((e.ability, e.kind), []).append(e)
    size, lasting = 0.0, 0.0
    for family in families.values():
        claimed = [at for at, e in enumerate(family) if e.claimed]
        if claimed and min(e.se for e in family) > 0:
            found = shrink(np.array([e.estimate for e in family]), np.array([e.se for e in family])).means()
            size += sum(abs(family[at].estimate) for at in claimed)
            lasting += sum(found[at] * np.sign(family[at].estimate) for at in claimed)
    return lasting / size if size > 0 else None


def _stays(e: Effect, fit: Mapping[tuple[str, str], float]) -> bool:
    """Return whether an effect keeps its sign and half of its size in another fit that has a value for it."""
    value = fit[e.kind, e.name]
    return value * e.estimate > 0 and abs(value) >= 0.5 * abs(e.estimate)


def _checked(effects: list[Effect], analyses: Mapping[str, _Analysis], table: Table) -> list[Effect]:
    """Return the effects with what becomes of them in other fits: beside eval-likeness, in halves, by ranks."""
    made = []
    for name, analysis in analyses.items():
        own = [e for e in effects if e.ability == name]
        claimed = any(e.claimed for e in own)
        fits = {how: analysis.refit(layout, score) for how, layout, score in analysis.others(table, claimed)}
        beside = fits.get(SIMILARITY, {})
        for e in own:
            seen = [fit for fit in fits.values() if (e.kind, e.name) in fit]
            kept = sum(_stays(e, fit) for fit in seen)
            adjusted = beside.get((e.kind, e.name), float("nan"))
            few = not e.claimed
            made.append(replace(e, adjusted=adjusted, survives=0 if few else int(kept), refits=0 if few else len(seen)))
    return made + [e for e in effects if e.ability not in analyses]


def _estimates(
    kind: str, names: list[str], labels: list[str], found: Contrast, shrunk: Floats, n: int
) -> list[Estimate]:
    """Return estimates as rows; what the design cannot tell from its arms has no row."""
    low, high = interval(found.estimate, found.se, found.df)
    values = np.column_stack([found.estimate, found.se, low, high, found.p, shrunk])
    told = [bool(np.isfinite(row).all()) for row in values]
    return [
        Estimate(kind, name, label, row[0], row[1], row[2], row[3], row[4], row[5], n)
        for name, label, row, known in zip(names, labels, values.tolist(), told, strict=True)
        if known
    ]


def _judge(
    table: Table, found: Mapping[tuple[str, str], list[Estimate]], level: float
) -> tuple[list[Effect], list[Omnibus]]:
    """Return effects with q-values; abilities that are not admitted are not tested, so their q is 1."""
    tested = [key for key in found if table.abilities[key[0]].admitted]
    p_of = {key: np.array([e.p for e in found[key]]) for key in found}
    q_of = dict(zip(tested, two_stage_q([p_of[key] for key in tested]), strict=True))
    whole = {key: simes(p_of[key]) for key in found}
    q_whole = dict(zip(tested, bh_adjusted(np.array([whole[key] for key in tested])), strict=True)) if tested else {}
    effects, omnibus = [], []
    for (name, kind), estimates in found.items():
        q_values = q_of.get((name, kind), np.ones(len(estimates)))
        lfsr, means = sign_rates(np.array([e.estimate for e in estimates]), np.array([e.se for e in estimates]))
        if kind != "book":
            estimates = [replace(e, shrunk=float(m)) for e, m in zip(estimates, means, strict=True)]
        q_family = float(q_whole.get((name, kind), 1.0))
        omnibus.append(Omnibus(name, kind, len(estimates), whole[name, kind], q_family, q_family <= level))
        effects += [
            Effect(
                e.kind, e.name, e.label, name, e.estimate, e.se, e.low, e.high, e.p, float(q), e.shrunk, e.n,
                (name, kind) in q_of and bool(q <= level), float(rate),
            )
            for e, q, rate in zip(estimates, q_values, lfsr, strict=True)
        ]  # fmt: skip
    return effects, omnibus
