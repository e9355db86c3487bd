"""The bill before the meal: what a study will take, and what it will be able to find out.

Reads: the study's settings, its library, what its work folder holds. Writes: `forecast.json` before the first run (and
when the work changes), so that forecast and measurement can be set side by side; a plan alone writes nothing there.

The unit costs come from a rehearsal of the study on this machine (see `rehearsal`), corrected by what earlier studies
took over their forecasts here (see `history`). Once runs are complete, they are the measurement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.books import stage as books_stage
from ltm.config import Section
from ltm.errors import LtmError, StoreError
from ltm.forecast.bill import Costs, Workload, draw_watts, energy_and_money, price
from ltm.progress import Progress
from ltm.runs import hardware, index, queue
from ltm.sets.shelf import read_shelf
from ltm.store import WorkFolder, fingerprint, read_json, write_json
from ltm.study import budget, history, rehearsal
from ltm.study.effort import BRIEF, THOROUGH, Effort, Library
from ltm.study.knowing import design_of, in_words, knowable
from ltm.study.processes import process_age
from ltm.study.rounds import Rounds
from ltm.study.settings import STAGES, StudySettings
from ltm.study.standing import runs_to_come, standing
from ltm.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from ltm.runs.executors.base import Executor

Pool = Callable[[], "Executor"]
_BYTES_PER_CONVERSATION, _TOKENS_PER_CONVERSATION = 5000.0, 80.0  # of English and Russian novels
_BESIDE_SECONDS = 0.4  # the study checked, its folder locked, what stands looked up


@dataclass(frozen=True)
class Forecast:
    """Everything that a bill is made from; a changed workload gives the bill of another study."""

    load: Workload
    costs: Costs
    library: Library
    rehearsed: bool  # just now, in this process

    def bill(self, settings: StudySettings) -> dict[str, Any]:
        """Return the bill at the study's prices."""
        prices = settings.forecast
        return price(self.load, self.costs, prices.watts, prices.usd_per_kwh, prices.usd_per_hour)


def plan(settings: StudySettings, work: WorkFolder, progress: Progress) -> dict[str, Any]:
    """Return the forecast of what is left, and the power of the design; rehearses the study for half a minute."""
    from ltm.runs.stage import workers

    age = process_age()
    with contextlib.ExitStack() as stack:
        forecast = _forecast(settings, work, lambda: stack.enter_context(workers(settings.runs)), THOROUGH, progress)
        ending = time.monotonic()
    if forecast.rehearsed:
        start = age + time.monotonic() - ending + _BESIDE_SECONDS
        forecast = dataclasses.replace(forecast, costs=dataclasses.replace(forecast.costs, start_seconds=start))
        history.store_plan(plan_key(settings), forecast.costs, dataclasses.asdict(forecast.library))
    n_books = _training_books(settings, work, forecast.library)
    strength = knowable(settings, n_books, work)
    bill = forecast.bill(settings)
    spent = spent_so_far(work, bill["watts"], settings)
    return {
        **bill,
        "design": design_of(settings),
        "n_files": forecast.library.n_files,
        "power": strength,
        "power_in_words": in_words(strength),
        "budget": budget.held(settings.budget, bill, spent),
        "alternatives": budget.alternatives(settings, forecast, spent, n_books),
    }


def write_forecast(settings: StudySettings, work: WorkFolder, pool: Pool, progress: Progress) -> dict[str, Any]:
    """Forecast the study before its first run and say so; a forecast of the same work stands."""
    path = work.path("forecast.json")
    about = plan_key(settings)
    if path.exists():
        stored: dict[str, Any] = read_json(path)
        if stored.get("made_for") == about and "costs" in stored:
            return _priced_now(settings, path, stored)
    age, began = process_age(), time.monotonic()
    forecast = _forecast(settings, work, pool, BRIEF, progress)
    if forecast.rehearsed:  # it was part of the run: its seconds are spent, and the workers are warm
        start = age + time.monotonic() - began + 2 * _BESIDE_SECONDS
        spread = {**forecast.costs.spread, "start": 0.05}
        costs = dataclasses.replace(forecast.costs, start_seconds=start, workers_seconds=0.0, spread=spread)
        forecast = dataclasses.replace(forecast, costs=costs)
    bill = {
        **forecast.bill(settings),
        "made_for": about,
        "spent_seconds": _seconds_so_far(work),
        "costs": dataclasses.asdict(forecast.costs),
        "library": dataclasses.asdict(forecast.library),
    }
    write_json(path, bill)
    runs = bill["n_runs"]
    progress.say(
        f"forecast  {runs} runs of {format_count(bill['run_tokens'])} tokens, {format_count(bill['n_params'])} "
        f"parameters each: about {format_seconds(bill['seconds'])} "
        f"({format_seconds(bill['seconds_low'])} to {format_seconds(bill['seconds_high'])}), "
        f"{format_bytes(bill['disk_bytes'])} of disk"
    )
    return bill


def _priced_now(settings: StudySettings, path: Path, stored: dict[str, Any]) -> dict[str, Any]:
    """Return a stored forecast at the present prices, and keep it so."""
    prices = settings.forecast
    if "n_workers" not in stored or "device" not in stored:
        return stored
    watts = draw_watts(prices.watts, stored["n_workers"], stored["device"])
    money = [
        energy_and_money(stored[key], watts, prices.usd_per_kwh, prices.usd_per_hour)
        for key in ("seconds", "seconds_low", "seconds_high")
    ]
    (kwh, usd), *ends = money
    changed: dict[str, Any] = {"watts": watts, "energy_kwh": kwh, "cost_usd": usd}
    changed |= {"energy_kwh_range": [end[0] for end in ends], "cost_usd_range": [end[1] for end in ends]}
    if any(stored.get(key) != value for key, value in changed.items()):
        stored = {**stored, **changed}
        write_json(path, stored)
    return stored


def plan_key(settings: StudySettings) -> str:
    """Return what a rehearsal is about: the settings, the library's files, the machine, the version."""
    parts = {name: value.model_dump() for name in STAGES if isinstance(value := getattr(settings, name), Section)}
    try:
        files = books_stage.inputs(settings.books)
    except LtmError:  # the library was moved away after it was read
        files = {}
    machine = history.machine_id(hardware.pick_device(settings.runs))
    return fingerprint([parts, files, settings.seed, machine, history.version()])


def _forecast(settings: StudySettings, work: WorkFolder, pool: Pool, effort: Effort, progress: Progress) -> Forecast:
    """Return workload and costs: from complete runs, a stored rehearsal, or a new one."""
    done, jobs = standing(settings, work)
    known = _known_costs(settings, work, effort)
    costs, library = known or _rehearsed_costs(settings, work, pool, effort, progress)
    load = _workload(settings, work, library, done, jobs)
    return Forecast(load, _with_runs(settings, work, costs, jobs), library, known is None)


def _known_costs(settings: StudySettings, work: WorkFolder, effort: Effort) -> tuple[Costs, Library] | None:
    """Return the costs that a study under way was begun with, or for a start those of the plan before it."""
    begun = work.path("forecast.json")
    if begun.exists() and any(work.path("runs").glob("*/run.json")):
        stored = read_json(begun)
        if stored.get("made_for") == plan_key(settings) and "costs" in stored:
            library = _library_from(stored.get("library"))
            return None if library is None else (history.costs_from(stored["costs"]), library)
    known = history.stored_plan(plan_key(settings)) if effort is BRIEF else None
    library = None if known is None else _library_from(known[1])
    return None if known is None or library is None else (known[0], library)


def _library_from(value: Any) -> Library | None:
    """Return a library as it was stored, None for that of another ltm: then the study is rehearsed again."""
    try:
        return Library(**value)
    except TypeError:
        return None


def _rehearsed_costs(
    settings: StudySettings, work: WorkFolder, pool: Pool, effort: Effort, progress: Progress
) -> tuple[Costs, Library]:
    costs, library = rehearsal.rehearse(settings, work, pool(), effort, progress)
    machine = history.machine_id(hardware.pick_device(settings.runs))
    past = history.rows(machine, history.version())
    return dataclasses.replace(costs, factor=history.corrections(past)), library


def _with_runs(settings: StudySettings, work: WorkFolder, costs: Costs, jobs: list[queue.Job]) -> Costs:
    """Return the costs with the rate of the complete runs, if there are any."""
    chosen = Rounds(settings, work).chosen
    usual = [job for job in jobs if job.recipe == chosen]
    runs = list(index.complete(work, [job.run_id for job in usual]).values())
    if not runs:
        return costs
    seconds = sum(run.seconds for run in runs) / len(runs)
    spread = dict(costs.spread) | {"runs": 0.02}
    factor = {name: value for name, value in costs.factor.items() if name != "runs"}
    rate = settings.sets.run_tokens / seconds
    return dataclasses.replace(
        costs, tokens_per_second=rate, spread=spread, factor=factor, source="complete runs of this study"
    )


def _workload(
    settings: StudySettings, work: WorkFolder, library: Library, done: list[str], jobs: list[queue.Job]
) -> Workload:
    shape = settings.model.shape(settings.tokens.vocab_size)
    device = hardware.pick_device(settings.runs)
    design = design_of(settings)
    to_come = runs_to_come(settings, work) if jobs else 0
    n_runs = len(jobs) + to_come or int(design["n_runs"])
    left = _runs_left(work, jobs) + to_come if jobs else float(n_runs)
    path = work.path("timings.json")
    seconds = read_json(path)["stages"] if path.exists() else {}
    talks = settings.books.source != "kjv" or settings.dialogue.path is not None  # nobody is quoted in the King James
    conversations = min(settings.dialogue.most_conversations, library.train_bytes / _BYTES_PER_CONVERSATION)
    used = min(1.0, sum(design["templates"].values()) * settings.sets.books_per_set / max(1, library.train_books))
    return Workload(
        n_runs=n_runs,
        runs_left=left,
        models_to_score=_models_to_score(settings, work, jobs, n_runs),
        run_tokens=settings.sets.run_tokens,
        n_params=shape.n_params,
        n_workers=hardware.n_workers(settings.runs, device),
        device=device,
        file_bytes=library.file_bytes,
        train_bytes=library.train_bytes,
        encoded_bytes=library.train_bytes * used,
        held_out_books=min(library.held_out_books, 2.0 * settings.evalset.max_books),
        n_variants=settings.sets.count,
        models_to_tune=float(min(settings.dialogue.top, n_runs)) if talks else 0.0,
        dialogue_tokens=_TOKENS_PER_CONVERSATION * settings.dialogue.epochs * conversations,
        done={name: float(seconds.get(name, 0.0)) for name in done},
    )


def _runs_left(work: WorkFolder, jobs: list[queue.Job]) -> float:
    waiting = queue.missing(work, jobs)
    begun = sum(queue.progress_of(work, run_id) for run_id in waiting)
    return float(len(waiting)) - (0.0 if begun < 0.01 else begun)


def _models_to_score(settings: StudySettings, work: WorkFolder, jobs: list[queue.Job], n_runs: int) -> float:
    """Return how many models have no answers yet, untrained ones included."""
    from ltm.evalset.bank import bank_fingerprint
    from ltm.scores.stage import pending, untrained_ids

    bank = settings.scores.bank
    wanted = [*untrained_ids(settings.scores), *(job.run_id for job in jobs)]
    everything = float(settings.scores.untrained + n_runs)
    if not jobs or not work.path("evalset", f"bank_{bank}.parquet").exists():
        return everything
    try:
        asked = pending(work, wanted, bank_fingerprint(work, bank), bank)
    except StoreError:  # of a library that was changed since: all questions are asked anew
        return everything
    return float(len(asked) + n_runs - len(jobs))


def _training_books(settings: StudySettings, work: WorkFolder, library: Library) -> int:
    """Return the number of training books, as expected before the library is read."""
    path = work.path("books", "catalogue.parquet")
    if path.exists():
        n_units = read_shelf(work, settings.sets.editions, settings.sets.among).n_units
        if n_units >= settings.sets.books_per_set:
            return n_units
    return max(settings.sets.books_per_set, library.train_books)


def spent_so_far(work: WorkFolder, watts: float, settings: StudySettings) -> dict[str, float]:
    """Return what the study has taken over all starts: hours, kWh, USD, and bytes on disk."""
    seconds = _seconds_so_far(work)
    path = work.path("timings.json")
    current = read_json(path).get("current") if path.exists() else None
    if current and budget.is_held(work):
        seconds += time.time() - current["started"]
    return budget.spent(seconds, watts, settings.forecast, work)


def _seconds_so_far(work: WorkFolder) -> float:
    """Return the seconds of all earlier starts, and of the stages that this one has ended."""
    path = work.path("timings.json")
    timings = read_json(path) if path.exists() else {"stages": {}}
    return float(sum(timings["stages"].values()) + timings.get("other", 0.0))


def record(settings: StudySettings, work: WorkFolder, forecast: dict[str, Any]) -> None:
    """Keep what a finished study took beside what was forecast, for the forecasts to come on this machine."""
    timings = read_json(work.path("timings.json"))
    measured = {**timings["stages"], "start": timings.get("other", 0.0)}
    factor = forecast.get("costs", {}).get("factor", {})
    history.append(
        {
            "machine": history.machine_id(forecast["device"]),
            "version": history.version(),
            "study": settings.name,
            "n_params": forecast["n_params"],
            "n_workers": forecast["n_workers"],
            "tokens_per_second": _mean_rate(work),
            "stages": {
                row["stage"]: [row["seconds"] / factor.get(row["stage"], 1.0), measured[row["stage"]]]
                for row in forecast["stages"]
                if row["seconds"] > 0 and measured.get(row["stage"])
            },
        }
    )


def _mean_rate(work: WorkFolder) -> float:
    rates = [run.tokens_per_second for run in queue.complete_runs(work)]
    return sum(rates) / max(1, len(rates))
