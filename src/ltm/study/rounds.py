"""The rounds of a study: each is drawn once the one before it has scores, stored, and never drawn again.

Reads: settings, `books/catalogue.parquet`, what earlier rounds found (`patterns` table, surrogate and ranking).
Writes: per round `sets/<round>/variants.parquet` (Variant), `round.json` (what it is, and why) and `done.json`; the
whole design in `sets/variants.parquet` and `sets/design.json`; `sets/pilot/learned.json`, what the pilot taught.

A round depends on the settings, the books and the rounds before it, so that a study that is killed anywhere goes on
with the same sets. Scores decide what a round holds at the moment it is drawn; a change of how scores are judged later
on throws away no run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ltm.errors import LtmError, StoreError
from ltm.progress import Progress
from ltm.records import Variant
from ltm.runs import queue
from ltm.runs.queue import Recipe
from ltm.sets import stage as sets_stage
from ltm.sets.design import Drawer, Start, numbered
from ltm.sets.propose import Rules, propose
from ltm.sets.where_seeds import allocate
from ltm.store import WorkFolder, fingerprint, read_json, read_rows, write_json, write_rows
from ltm.study.round_sizes import SLOW, RoundSize, sizes
from ltm.study.settings import StudySettings, changed_settings

VERSION = 1  # of how rounds are drawn
PILOT, EXPLORATION, ADAPTIVE, CONFIRMATION = "pilot", "exploration", "adaptive", "confirmation"
_MOST_PARENTS = 20  # sets that proposals may be children of
_PRODUCT, _FEWEST_SEEDS = 10, 2  # models that a study is to name; seeds that every finalist gets
_Z90 = 1.6449  # half the width of a 90 % interval, in standard deviations
_MOST_OF_A_SET = 2  # finalists with the same books: the best order or gap, and the next
_MOST_OF_A_KIND = 0.6  # share of one kind of books in a proposal, where kinds are told apart
_CONFIRMATION_STREAM, _ADAPTIVE_STREAM = 0xC0F1, 0xADA9


class Rounds:
    """The rounds of one study and its work folder."""

    def __init__(self, settings: StudySettings, work: WorkFolder) -> None:
        self.settings, self.work = settings, work
        self.plan = sizes(settings)

    @property
    def enabled(self) -> bool:
        """Whether the study learns in rounds."""
        return self.settings.rounds.enabled

    def standing(self, books: str) -> list[str]:
        """Return the outputs of the rounds that are drawn, as far as each was made from the ones before it.

        Args:
            books: Output of the books stage.
        """
        outputs: list[str] = []
        for size in self.plan:
            found = self.work.output_of(f"sets/{size.name}", self._inputs(size.name, books, outputs))
            if found is None:
                break
            outputs.append(found)
        return outputs

    def drawn_names(self, books: str) -> list[str]:
        """Return the names of the rounds that are drawn."""
        return [size.name for size in self.plan[: len(self.standing(books))]]

    def _inputs(self, name: str, books: str, before: Sequence[str]) -> str:
        section = self.settings.sets
        values = [section.model_dump(exclude={"among"}), self.settings.rounds.model_dump(), sets_stage.inputs(section)]
        if name != PILOT:  # the pilot's recipes are settings over those of the study
            values += [self.settings.model.model_dump(), self.settings.runs.outcome()]
        versions = [sets_stage.VERSION, VERSION]
        return fingerprint([name, versions, *values, self.settings.seed, books, list(before)])

    def output(self, books: str) -> str | None:
        """Return what identifies the design as far as it is drawn and assembled; None where it is not."""
        outputs = self.standing(books)
        return self.work.output_of("sets", fingerprint(outputs)) if outputs else None

    def is_last(self, books: str) -> bool:
        """Return whether all rounds are drawn."""
        return len(self.standing(books)) == len(self.plan)

    def runs_to_come(self, books: str | None) -> int:
        """Return the runs of the rounds that are not drawn yet."""
        n_drawn = 0 if books is None else len(self.standing(books))
        return sum(size.n_runs for size in self.plan[n_drawn:])

    def advance(self, books: str, scored: bool, progress: Progress) -> str:
        """Draw the next round if it is its turn, and assemble the design; returns the design's output.

        Args:
            books: Output of the books stage.
            scored: Whether all runs that are drawn so far have scores.
            progress: Told what was drawn and why.
        """
        outputs = self.standing(books)
        if len(outputs) < len(self.plan) and (scored or not outputs):
            name = self.plan[len(outputs)].name
            for later in self.plan[len(outputs) :]:  # what an earlier design led to no longer holds
                self.work.path("sets", later.name, "done.json").unlink(missing_ok=True)
            if name == PILOT:
                self.work.path("sets", PILOT, "learned.json").unlink(missing_ok=True)
            variants, about = self._draw(name, progress)
            folder = self.work.path("sets", name)
            write_rows(folder / "variants.parquet", variants, Variant)
            write_json(folder / "round.json", {"round": name, **about})
            made = [sets_stage.hash_of(variants), about]
            self.work.finish(f"sets/{name}", self._inputs(name, books, outputs), made)
            outputs = self.standing(books)
        found = self.work.output_of("sets", fingerprint(outputs))
        if found is not None:
            sets_stage.refuse_if_edited(self.work)
        else:
            self._assemble(outputs, progress)
            found = self.work.output_of("sets", fingerprint(outputs))
        return str(found)

    def _assemble(self, outputs: Sequence[str], progress: Progress) -> None:
        """Write the whole design: the rounds one after another."""
        self.work.path("sets", "done.json").unlink(missing_ok=True)
        rounds = [self.read(size.name) for size in self.plan[: len(outputs)]]
        chosen = self.chosen
        variants = [dataclasses.replace(v, aside=v.recipe != chosen) for row in rounds for v in row]
        drawer = sets_stage.open_drawer(self.settings.sets, self.work, self.settings.seed)
        about = [
            {
                "round": size.name,
                "variants": len(rows),
                "runs": sum(len(v.init_seeds) for v in rows),
                "sets": len({v.set_id for v in rows}),
                "drawn_at_random": sum(v.drawn for v in rows),
                "hash": sets_stage.hash_of(rows),
            }
            for size, rows in zip(self.plan, rounds, strict=False)
        ]
        more = {"rounds": about, "recipe": chosen, "rounds_to_come": [s.name for s in self.plan[len(outputs) :]]}
        made = sets_stage.store(drawer, self.work, variants, progress, more)
        self.work.finish("sets", fingerprint(list(outputs)), made)

    def read(self, name: str) -> list[Variant]:
        """Return the variants of a round that is drawn.

        Raises:
            StoreError: the file was changed after it was drawn.
        """
        path = self.work.path("sets", name, "variants.parquet")
        variants = read_rows(path, Variant)
        about = {k: v for k, v in read_json(path.with_name("round.json")).items() if k != "round"}
        if self.work.output_of(f"sets/{name}") != fingerprint([sets_stage.hash_of(variants), about]):
            raise StoreError(
                f"sets/{name}/variants.parquet was changed after it was drawn: its hash is not the one in done.json",
                "delete the folder `sets` to draw the same design again: runs that fit it are kept",
            )
        return variants

    @property
    def learned(self) -> dict[str, Any]:
        """What the pilot taught; empty before it has scores and where there was none."""
        path = self.work.path("sets", PILOT, "learned.json")
        if not self.work.path("sets", EXPLORATION, "done.json").exists() or not path.exists():
            return {}
        value: dict[str, Any] = read_json(path)
        return value

    @property
    def chosen(self) -> str:
        """Name of the recipe that the study goes on with; empty = its own settings."""
        has_pilot = self.enabled and self.plan[0].name == PILOT
        return str(self.learned.get("recipe", "")) if has_pilot else ""

    def effective(self) -> StudySettings:
        """Return the settings that the study goes on with: its own, or those of the recipe that the pilot chose."""
        return with_recipe(self.settings, self.chosen)

    def recipes(self) -> dict[str, Recipe] | None:
        """Return all recipes by name; None where every run has the same one."""
        if not self.enabled or self.plan[0].name != PILOT:
            return None
        names = ["", *([SLOW] if self.settings.rounds.pilot.slow_lr else []), *recipe_names(self.settings)]
        return {name: recipe_of(with_recipe(self.settings, name)) for name in names}

    def jobs(self, variants: list[Variant], tokenizer: str, shards: Mapping[str, Any]) -> list[queue.Job]:
        """Return the runs that some variants ask for."""
        return queue.make_jobs(recipe_of(self.effective()), variants, tokenizer, shards, self.recipes())

    def _draw(self, name: str, progress: Progress) -> tuple[list[Variant], dict[str, Any]]:
        size = next(s for s in self.plan if s.name == name)
        earlier = [v for s in self.plan[: self.plan.index(size)] for v in self.read(s.name)]
        if name == EXPLORATION and earlier:
            self._learn(earlier, progress)
        settings = with_recipe(self.settings, "" if name == PILOT else self._fresh("recipe"))
        drawer = sets_stage.open_drawer(settings.sets, self.work, settings.seed)
        draw: dict[str, Callable[..., tuple[list[Variant], dict[str, Any]]]] = {
            PILOT: self._pilot,
            EXPLORATION: self._exploration,
            ADAPTIVE: self._adaptive,
            CONFIRMATION: self._confirmation,
        }
        variants, about = draw[name](drawer, size, earlier)
        recipe = "" if name == PILOT else self._fresh("recipe")
        if recipe:
            variants = numbered([dataclasses.replace(v, recipe=recipe) for v in variants], variants[0].index)
        n_runs = sum(len(v.init_seeds) for v in variants)
        about["words"] = [f"{name}: {len(variants)} variants, {n_runs} runs", *about.get("words", [])]
        for line in about["words"]:
            progress.say(f"round     {line}")
        return variants, about

    def preview(self) -> list[Variant]:
        """Return the first round as it would be drawn from the stored catalogue; nothing is written."""
        drawer = sets_stage.open_drawer(self.settings.sets, self.work, self.settings.seed)
        size = self.plan[0]
        return (self._pilot if size.name == PILOT else self._exploration)(drawer, size, [])[0]

    def _fresh(self, key: str) -> str:
        """Return a word of what the pilot taught, also before the exploration stands."""
        path = self.work.path("sets", PILOT, "learned.json")
        if self.plan[0].name != PILOT or not path.exists():
            return ""
        return str(read_json(path).get(key, ""))

    def _learn(self, variants: Sequence[Variant], progress: Progress) -> None:
        """Draw the pilot's lessons and keep them; they are said aloud."""
        from ltm.study.pilot import learn

        learned = learn(self.settings, self.work, variants)
        write_json(self.work.path("sets", PILOT, "learned.json"), learned)
        for line in learned["words"]:
            progress.say(f"pilot     {line}")

    def _pilot(
        self, drawer: Drawer, size: RoundSize, _earlier: Sequence[Variant]
    ) -> tuple[list[Variant], dict[str, Any]]:
        """Return the pilot's cells, and its base variants once more for every other recipe."""
        cells = drawer.pilot(size.n_sets, self.settings.rounds.pilot.seeds)
        bases = [v for v in cells if v.arm == "base"]
        again: list[Variant] = []
        for name, recipe in (self.recipes() or {}).items():
            if name:
                order = recipe.sets.base_order
                spacing = drawer.arranger.spacing(order, recipe.sets.spacing)
                again += [dataclasses.replace(v, recipe=name, aside=True, order=order, spacing=spacing) for v in bases]
        return numbered([*cells, *again], 0), {"size": dataclasses.asdict(size)}

    def _exploration(
        self, drawer: Drawer, size: RoundSize, earlier: Sequence[Variant]
    ) -> tuple[list[Variant], dict[str, Any]]:
        """Return random sets; fewer paired blocks where the pilot saw little of orders and gaps."""
        path = self.work.path("sets", PILOT, "learned.json")
        learned = read_json(path) if earlier and path.exists() else {}
        shares = learned.get("shares")
        variants = drawer.blocks(EXPLORATION, size.n_runs, True, Start.after(earlier), shares)
        return variants, {"size": dataclasses.asdict(size), "shares": shares or drawer.section.shares.model_dump()}

    def _adaptive(
        self, drawer: Drawer, size: RoundSize, earlier: Sequence[Variant]
    ) -> tuple[list[Variant], dict[str, Any]]:
        """Return proposals (Thompson draws and children of good sets) and random sets."""
        rng = np.random.default_rng([self.settings.seed, _ADAPTIVE_STREAM])
        proposals, about = self._proposals(drawer, size.detail["proposed"], earlier, rng)
        first = drawer.plain(ADAPTIVE, "proposed", proposals, Start.after(earlier), rng, drawn=False)
        random = drawer.sets(size.detail["random"], rng)
        second = drawer.plain(ADAPTIVE, "random", random, Start.after([*earlier, *first]), rng)
        return [*first, *second], {"size": dataclasses.asdict(size), **about}

    def _proposals(
        self, drawer: Drawer, count: int, earlier: Sequence[Variant], rng: np.random.Generator
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the rows of proposed sets in random order, with what they were made from."""
        from ltm.books.catalogue import read_catalogue
        from ltm.patterns.ranking import rank
        from ltm.patterns.surrogate import fit
        from ltm.patterns.table import make_table, read_input

        if not count:
            return [], {}
        table = make_table(read_input(self.work))
        shelf = drawer.shelf
        clusters = None
        if drawer.cluster_B is not None:
            clusters = dict(zip(shelf.ids(np.arange(len(shelf))), drawer.cluster_B.tolist(), strict=True))
        books = {book.book_id: book for book in read_catalogue(self.work)}
        surrogate = fit(table, books=books, clusters=clusters)
        draws = surrogate.draws(count, self.settings.seed)
        worth, row_of = _by_unit(surrogate, draws, shelf.rows(surrogate.book_ids), shelf.unit_B)
        unit_cluster = None
        if drawer.cluster_B is not None:
            unit_cluster = np.zeros(shelf.n_units, dtype=np.int64)
            unit_cluster[shelf.unit_B] = drawer.cluster_B
        by_id = {v.variant_id: v for v in earlier}
        parents = _parents(rank(table, self.settings.patterns.level).rows, by_id)
        good = [shelf.unit_B[shelf.rows(v.book_ids)] for v in parents]
        rules = Rules(drawer.section.books_per_set, self.settings.rounds.most_shared, _MOST_OF_A_KIND)
        found, made = propose(worth, rules, good, rng, unit_cluster)
        rows = [rng.permutation(row_of[units]) for units in found]
        about = {
            "abilities": list(surrogate.abilities),
            "made": {name: made.count(name) for name in sorted(set(made))},
            "expected_gain": round(float(np.mean([worth[:, u].sum(axis=1).mean() for u in found])), 3),
            "words": [
                f"{len(found)} proposals by {', '.join(surrogate.abilities)}: {made.count('thompson')} from draws of "
                f"what books bring, {made.count('crossover')} children of {len(good)} good sets"
            ],
        }
        return rows, about

    def _confirmation(
        self, drawer: Drawer, size: RoundSize, earlier: Sequence[Variant]
    ) -> tuple[list[Variant], dict[str, Any]]:
        """Return the best variants by posterior mean and random sets, with starts and excerpts never used before."""
        from ltm.patterns.ranking import rank
        from ltm.patterns.table import make_table, read_input

        rng = np.random.default_rng([self.settings.seed, _CONFIRMATION_STREAM])
        rounds, used = self.settings.rounds, {seed for v in earlier for seed in v.init_seeds}
        by_id = {v.variant_id: v for v in earlier}
        ranking = rank(make_table(read_input(self.work)), self.settings.patterns.level)
        chosen = _finalists(ranking.rows, by_id, size.detail["finalists"])
        counts = _seed_counts(chosen, rounds.finalist_seeds, rounds.seeds_by == "decisive")
        seeds = _fresh_seeds(max(*counts, rounds.control_seeds), used, rng)
        start = Start.after(earlier)
        finalists, about = [], []
        for place, row in enumerate(chosen):
            old = by_id[row.variant_id]
            fresh = dataclasses.replace(
                old,
                round=CONFIRMATION,
                block=start.block + place,
                template="finalist",
                law="finalist",
                drawn=False,
                stream_seed=int(rng.integers(1, 2**31)),
                init_seeds=seeds[: counts[place]],
            )
            finalists.append(fresh)
            about.append({"of": row.variant_id, "place": row.place, "posterior": row.posterior, "raw": row.raw})
        finalists = numbered(finalists, start.index)
        for entry, fresh in zip(about, finalists, strict=True):
            entry["variant_id"] = fresh.variant_id
        after = Start.after([*earlier, *finalists])
        controls = drawer.sets(size.detail["controls"], rng)
        random = drawer.plain(CONFIRMATION, "control", controls, after, rng, seeds[: rounds.control_seeds])
        words = [
            f"{len(finalists)} finalists with {_between(counts)} fresh seeds each and {len(random)} random sets "
            f"with {rounds.control_seeds}, on questions that no model was asked before"
        ]
        return [*finalists, *random], {"size": dataclasses.asdict(size), "finalists": about, "words": words}


def recipe_of(settings: StudySettings) -> Recipe:
    """Return what runs are trained with."""
    return Recipe(settings.sets, settings.model, settings.runs)


def recipe_names(settings: StudySettings) -> list[str]:
    """Return the names of the pilot's other recipes: `recipe 1` and so on."""
    return [f"recipe {i}" for i in range(1, len(settings.rounds.pilot.recipes) + 1)]


def with_recipe(settings: StudySettings, name: str) -> StudySettings:
    """Return the settings with those of a recipe laid over them.

    Raises:
        ConfigError: they do not go together.
    """
    if not name:
        return settings
    if name == SLOW:
        return changed_settings(settings, {"runs.lr": settings.runs.lr / 4})
    return changed_settings(settings, settings.rounds.pilot.recipes[recipe_names(settings).index(name)])


def measured_runs(work: WorkFolder, variants: Sequence[Variant]) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the complete runs of a study in three parts: those that enter effects, those aside, the confirmation's."""
    by_id = {v.variant_id: v for v in variants}
    parts: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for run in queue.complete_runs(work):
        variant = by_id[run.variant_id]
        parts[2 if variant.round == CONFIRMATION else 1 if variant.aside else 0].append(run)
    return parts


def _by_unit(surrogate: Any, draws: Any, rows: Any, units: Any) -> tuple[Any, Any]:
    """Return what each unit's best edition brings in each draw, shape (P, U), and the row of that edition, (U,)."""
    known = np.flatnonzero(rows >= 0)
    order = known[np.argsort(surrogate.mean_B[known], kind="stable")]  # of two editions the better one is written last
    n_units = int(units.max()) + 1
    best, worth = np.zeros(n_units, dtype=np.int64), np.full((len(draws), n_units), -np.inf, dtype=np.float32)
    best[units[rows[order]]] = rows[order]
    worth[:, units[rows[order]]] = draws[:, order]
    return worth, best


def _parents(ranked: Sequence[Any], by_id: Mapping[str, Variant]) -> list[Variant]:
    """Return the best variants of different sets of the usual size."""
    found: dict[int, Variant] = {}
    for row in ranked:
        variant = by_id.get(row.variant_id)
        if variant is not None and not variant.aside and variant.arm != "filled":
            found.setdefault(variant.set_id, variant)
        if len(found) == _MOST_PARENTS:
            break
    return list(found.values())


def _finalists(ranked: Sequence[Any], by_id: Mapping[str, Variant], count: int) -> list[Any]:
    """Return the best rows of a ranking by posterior mean, at most two of one set."""
    taken: dict[int, int] = {}
    found = []
    for row in ranked:
        variant = by_id.get(row.variant_id)
        if variant is None or variant.aside or taken.get(variant.set_id, 0) >= _MOST_OF_A_SET:
            continue
        taken[variant.set_id] = taken.get(variant.set_id, 0) + 1
        found.append(row)
        if len(found) == count:
            return found
    if not found:
        raise LtmError("no variant has a score, so there is none to confirm", "`ltm status STUDY` lists failed runs")
    return found


def _seed_counts(chosen: Sequence[Any], each: int, decisive: bool) -> list[int]:
    """Return how many fresh seeds each finalist gets; `decisive` gives the same number of runs where they count."""
    if not decisive:
        return [each] * len(chosen)
    spreads = [(row.high - row.low) / (2 * _Z90) for row in chosen]
    fewest = min(each, _FEWEST_SEEDS)
    return allocate([row.posterior for row in chosen], spreads, _PRODUCT, each * len(chosen), fewest)


def _between(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _fresh_seeds(count: int, used: set[int], rng: np.random.Generator) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        seed = int(rng.integers(1, 2**31))
        if seed not in used and seed not in found:
            found.append(seed)
    return found
