"""A whole campaign in rounds with scores of a known truth: nothing is trained, all else is as in a study.

Reads: the settings and `books/catalogue.parquet` of a study. Writes: a work folder of its own, with the design of every
round as `rounds` draws it from the simulated scores of the rounds before, `scores.csv` and `confirmed.csv` (columns of
`ltm patterns --scores`) and `truth.json`.

Adaptive sets are chosen by their scores, and what was chosen by luck looks like a finding to a naive analysis. A
campaign where nothing is real, played often enough, tells how often something is claimed all the same. The pilot is not
played: it re-plans how runs are divided and chooses a recipe, which takes models; its runs go to the exploration.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltm.errors import InputError
from ltm.patterns.context import Context, read_context
from ltm.patterns.simulate import measure_row, reliability_row, run_row
from ltm.patterns.truth import Truth, books_of, true_effects, true_means
from ltm.progress import Progress
from ltm.records import Measure, Reliability, Variant
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, as_json, write_json, write_rows, write_text
from ltm.study.rounds import CONFIRMATION, PILOT, Rounds
from ltm.study.settings import StudySettings, changed_settings

_BOOKS = "simulated"  # stands for the output of the books stage
_NOISE_STREAM = 0x51AD


@dataclass
class _Scores:
    """What was simulated so far, by run: (variant, number of its seed)."""

    truth: Truth
    seed: int
    of_run: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)
    mean_of: dict[str, float] = field(default_factory=dict)
    luck_of_set: dict[tuple[str, int], float] = field(default_factory=dict)

    def add(self, variants: Sequence[Variant], context: Context) -> None:
        """Score the variants that have no score yet."""
        runs, means = true_means(variants, context, self.truth)
        for (variant, number), mean in zip(runs, means.tolist(), strict=True):
            if (variant.variant_id, number) in self.of_run:
                continue
            self.mean_of[variant.variant_id] = mean
            noise = np.random.default_rng([self.seed, _NOISE_STREAM, int(variant.variant_id, 16), number])
            values = {}
            for ability in self.truth.abilities:
                luck = self._luck(ability, variant.set_id)
                value = mean + luck + self.truth.seed_sd * float(noise.standard_normal())
                values[ability] = self.truth.offset + self.truth.scale * value
            self.of_run[variant.variant_id, number] = values

    def _luck(self, ability: str, set_id: int) -> float:
        place = list(self.truth.abilities).index(ability)
        rng = np.random.default_rng([self.seed, _NOISE_STREAM, place, set_id])
        return self.luck_of_set.setdefault((ability, set_id), self.truth.set_sd * float(rng.standard_normal()))


def play(
    settings: StudySettings, source: WorkFolder, truth: Truth, seed: int, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Play the rounds of a study and write its scores; returns what was written and what the rounds brought.

    Args:
        settings: Of the study; rounds are switched on.
        source: The study's work folder; its catalogue is read.
        truth: What is planted. Effects per standard deviation are those of the exploration's sets.
        seed: Of the noise.
        folder: A new work folder.
        progress: Told about the rounds.

    Raises:
        InputError: the folder is in use, or the truth holds what cannot be carried from round to round.
        StoreError: the study has no catalogue yet.
    """
    if truth.places or truth.sets:
        raise InputError(
            "places and whole-set terms cannot be planted in rounds", "plant books, features, orders, gaps"
        )
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty", "name a new folder: --out DIR")
    work = WorkFolder(folder)
    work.create()
    work.path("books").mkdir()
    shutil.copyfile(source.path("books", "catalogue.parquet"), work.path("books", "catalogue.parquet"))
    rounds = Rounds(_without_pilot(settings), work)
    write_json(work.path("study.json"), rounds.settings.model_dump(mode="json"))
    scores: _Scores | None = None
    first: list[Variant] = []
    while scores is None or not rounds.is_last(_BOOKS):
        rounds.advance(_BOOKS, True, progress)
        variants = read_variants(work)
        context = read_context(work, variants)
        if scores is None:
            first = variants
            scores = _Scores(_by_books(truth, variants, context), seed)
        scores.add(variants, context)
        _write_rows(work, variants, scores)
    found = _written(work, read_variants(work), scores)
    effects = true_effects(first, read_context(work, first), scores.truth)
    means = scores.mean_of
    written = {
        "planted": dataclasses.asdict(truth),
        "effects": effects,
        "variants": means,
        "rounds": found,
        "seed": seed,
    }
    write_json(folder / "truth.json", written)
    paths = {name: str(folder / file) for name, file in (("scores", "scores.csv"), ("truth", "truth.json"))}
    return {**paths, "work": str(folder), "runs": len(scores.of_run), "rounds": found}


def _without_pilot(settings: StudySettings) -> StudySettings:
    shares = settings.rounds.shares
    return changed_settings(
        settings,
        {
            "rounds.enabled": True,
            f"rounds.shares.{PILOT}": 0.0,
            "rounds.shares.exploration": shares.pilot + shares.exploration,
        },
    )


def _by_books(truth: Truth, variants: Sequence[Variant], context: Context) -> Truth:
    """Return the truth with planted features as effects of books, so that it means the same in every round."""
    if not truth.features:
        return truth
    return dataclasses.replace(truth, books=books_of(truth, variants, context), features={})


def _write_rows(work: WorkFolder, variants: Sequence[Variant], scores: _Scores) -> None:
    """Write what the next round is drawn from: runs, measures and reliability, as the stages write them."""
    measures = []
    for variant in variants:
        for number, init_seed in enumerate(variant.init_seeds):
            row = run_row(variant, init_seed)
            path = work.path("runs", row.run_id, "run.json")
            if not path.exists():
                write_json(path, as_json(row))
            if variant.round != CONFIRMATION:
                of_run = scores.of_run[variant.variant_id, number]
                measures += [measure_row(row.run_id, ability, value) for ability, value in of_run.items()]
    write_rows(work.path("scores", "measures.parquet"), measures, Measure)
    seed_sd = scores.truth.scale * scores.truth.seed_sd
    rows = [reliability_row(ability, True, len(measures)) for ability in scores.truth.abilities]
    rows = [dataclasses.replace(row, seed_sd=seed_sd) for row in rows]
    write_rows(work.path("scores", "reliability.parquet"), rows, Reliability)


def _written(work: WorkFolder, variants: Sequence[Variant], scores: _Scores) -> list[dict[str, Any]]:
    """Write both tables of scores; returns for each round what its sets are worth in truth."""
    tables = {name: io.StringIO() for name in ("scores.csv", "confirmed.csv")}
    writers = {name: csv.writer(out, lineterminator="\n") for name, out in tables.items()}
    for writer in writers.values():
        writer.writerow(["run_id", "ability", "score"])
    for variant in variants:
        writer = writers["confirmed.csv" if variant.round == CONFIRMATION else "scores.csv"]
        for number in range(len(variant.init_seeds)):
            for ability, value in scores.of_run[variant.variant_id, number].items():
                writer.writerow([f"{variant.variant_id}/{number}", ability, repr(value)])
    for name, out in tables.items():
        write_text(work.path(name), out.getvalue())
    found = []
    for name in dict.fromkeys(v.round for v in variants):
        own = [v for v in variants if v.round == name]
        worth = {kind: [scores.mean_of[v.variant_id] for v in own if v.drawn == kind] for kind in (False, True)}
        row = {"round": name, "variants": len(own), "chosen_by_scores": len(worth[False])}
        row |= {
            f"mean_truth_{label}": round(float(np.mean(worth[kind])), 4)
            for kind, label in ((True, "at_random"), (False, "chosen"))
            if worth[kind]
        }
        found.append(row)
    return found
