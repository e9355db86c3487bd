"""How many runs and sets each round of a study has, from its settings alone.

Reads: the settings. Writes: nothing. The default of 1000 runs is that of SCIENCE 2.3: pilot 100, exploration 600,
adaptive 180, confirmation 120. What whole sets cannot use goes to the exploration, so that exactly `sets.count` runs
come out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltm.sets.section import SetsSection
from ltm.sets.templates import Templates
from ltm.study.rounds_section import ROUNDS
from ltm.study.settings import StudySettings

FEWEST_PILOT_SETS, USUAL_PILOT_SETS = 4, 8
SLOW = "lr/4"  # the recipe of the re-runs at a quarter of the learning rate


@dataclass(frozen=True)
class RoundSize:
    """What one round is laid out for."""

    name: str
    n_runs: int
    n_sets: int
    detail: dict[str, int]


def sizes(settings: StudySettings) -> list[RoundSize]:
    """Return the rounds that have runs, in their order; without rounds one exploration of `sets.count` variants."""
    sets, rounds = settings.sets, settings.rounds
    if not rounds.enabled:
        counts = Templates(sets, sets.shares.model_dump(), in_runs=False).counts(sets.count)
        n_sets = sum(counts.values())
        return [RoundSize("exploration", sets.count + counts["seeds"], n_sets, counts)]
    share = {name: getattr(rounds.shares, name) for name in ROUNDS}
    pilot, adaptive, confirmation = (
        _pilot(settings, round(share["pilot"] * sets.count)),
        _adaptive(settings, round(share["adaptive"] * sets.count)),
        _confirmation(settings, round(share["confirmation"] * sets.count)),
    )
    left = sets.count - pilot.n_runs - adaptive.n_runs - confirmation.n_runs
    found = [pilot, exploration(settings, left), adaptive, confirmation]
    return [size for size in found if size.n_runs > 0 or size.name == "exploration"]


def exploration(settings: StudySettings, n_runs: int) -> RoundSize:
    """Return the exploration with so many runs."""
    sets = settings.sets
    if n_runs < 1:
        return RoundSize("exploration", n_runs, 0, {})
    counts = Templates(sets, sets.shares.model_dump(), in_runs=True).counts(n_runs)
    return RoundSize("exploration", n_runs, sum(counts.values()), counts)


def pilot_cells(sets: SetsSection) -> int:
    """Return the variants of one set of the pilot: in two orders, with and without gaps (see `Drawer.pilot`)."""
    ordered = sets.shares.order > 0
    sparse = sets.shares.gaps > 0
    if sets.base_order == "shuffled" and sparse:
        return 3  # mixed passages, book after book, book after book with gaps
    mixed = ordered and sets.contrast_orders[0] == "shuffled"
    return 1 + ordered + sparse * (2 if ordered and not mixed else 1)


def pilot_runs_per_set(settings: StudySettings) -> int:
    """Return the runs of one set of the pilot, those of other recipes included."""
    pilot = settings.rounds.pilot
    return pilot.seeds * (pilot_cells(settings.sets) + pilot.slow_lr + len(pilot.recipes))


def _pilot(settings: StudySettings, budget: int) -> RoundSize:
    each = pilot_runs_per_set(settings)
    n_sets = budget // each
    return RoundSize("pilot", n_sets * each, n_sets, {"runs_per_set": each})


def _adaptive(settings: StudySettings, budget: int) -> RoundSize:
    random = round(settings.rounds.random_share * budget)
    return RoundSize("adaptive", budget, budget, {"proposed": budget - random, "random": random})


def _confirmation(settings: StudySettings, budget: int) -> RoundSize:
    rounds = settings.rounds
    finalists = int(rounds.finalist_share * budget / rounds.finalist_seeds)
    controls = (budget - finalists * rounds.finalist_seeds) // rounds.control_seeds
    n_runs = finalists * rounds.finalist_seeds + controls * rounds.control_seeds
    return RoundSize("confirmation", n_runs, finalists + controls, {"finalists": finalists, "controls": controls})


def misfits(settings: StudySettings) -> list[tuple[str, str]]:
    """Return (setting, what does not fit) for rounds that are too small to be what they are called."""
    if not settings.rounds.enabled:
        return []
    found = []
    count, shares = settings.sets.count, settings.rounds.shares
    by_name = {size.name: size for size in sizes(settings)}
    each = pilot_runs_per_set(settings)
    n_sets = round(shares.pilot * count) // each
    if shares.pilot > 0 and n_sets < FEWEST_PILOT_SETS:
        least = FEWEST_PILOT_SETS * each
        text = (
            f"gives the pilot {round(shares.pilot * count)} of {count} runs: {n_sets} sets of {each} runs each, but it "
        )
        text += f"needs {FEWEST_PILOT_SETS} sets to tell sets from seeds; nearest: sets.count "
        found.append(("rounds.shares.pilot", f"{text}{_up(least / shares.pilot)}, or a share of {least / count:.2g}"))
    if (explored := by_name["exploration"].n_runs) < 8:
        text = f"leaves {max(0, explored)} of {count} runs for the exploration; at least 8 are needed"
        found.append(("rounds.shares.exploration", f"{text}; nearest: sets.count {_up(8 / shares.exploration)}"))
    if shares.adaptive > 0 and by_name.get("adaptive", RoundSize("", 0, 0, {})).n_runs < 2:
        text = f"gives the adaptive round less than 2 of {count} runs; nearest: sets.count {_up(2 / shares.adaptive)}"
        found.append(("rounds.shares.adaptive", text + ", or 0 to leave it out"))
    last = by_name.get("confirmation")
    if shares.confirmation > 0 and (last is None or not last.detail["finalists"] or not last.detail["controls"]):
        rounds = settings.rounds
        least_finalist = rounds.finalist_seeds / rounds.finalist_share
        fewest = max(least_finalist, rounds.control_seeds / (1 - rounds.finalist_share))
        text = f"gives the confirmation {round(shares.confirmation * count)} of {count} runs, too few for a finalist "
        nearest = _up(fewest / shares.confirmation)
        text += f"and a random set with their seeds; nearest: sets.count {nearest}, or 0 to leave it out"
        found.append(("rounds.shares.confirmation", text))
    return found


def warnings(settings: StudySettings) -> list[tuple[str, str]]:
    """Return (setting, text) for what is allowed but tells little."""
    if not settings.rounds.enabled:
        return []
    by_name = {size.name: size for size in sizes(settings)}
    pilot = by_name.get("pilot")
    if pilot is not None and FEWEST_PILOT_SETS <= pilot.n_sets < USUAL_PILOT_SETS:
        text = f"leaves the pilot {pilot.n_sets} sets: what it says of reliability and recipes will be rough; "
        return [
            (
                "rounds.shares.pilot",
                f"{text}{USUAL_PILOT_SETS} sets take {USUAL_PILOT_SETS * pilot.detail['runs_per_set']} runs",
            )
        ]
    return []


def _up(value: float) -> int:
    return int(-(-value // 1))
