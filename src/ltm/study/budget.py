"""The budget of a study: the bill held against it, and what could be left out to keep it.

Reads: the bill, the size of the work folder. Writes: nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm.errors import BudgetError
from ltm.forecast.bill import energy_and_money
from ltm.forecast.section import BudgetSection, ForecastSection
from ltm.model.sizes import SIZES
from ltm.store import WorkFolder
from ltm.study.knowing import design_of, knowable
from ltm.study.round_sizes import misfits
from ltm.study.settings import StudySettings
from ltm.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from ltm.study.plan import Forecast

WITHIN, AT_RISK, LIKELY_OVER, OVER = "within", "at risk", "likely over", "over"
_FEWEST_VARIANTS, _FEWEST_STEPS = 8, 20
_SPEED_BY_SIZE = 0.7  # a model of half the parameters trains 2 ** 0.7 times as many tokens a second (micro models)
_TRIES = 24


def spent(seconds: float, watts: float, prices: ForecastSection, work: WorkFolder | None) -> dict[str, float]:
    """Return hours, kWh, USD and bytes of disk that are spent; without a folder the disk is not measured."""
    kwh, usd = energy_and_money(seconds, watts, prices.usd_per_kwh, prices.usd_per_hour)
    disk = {} if work is None else {"disk": float(folder_bytes(work))}
    return {"hours": seconds / 3600, "kwh": kwh, "usd": usd, **disk}


def folder_bytes(work: WorkFolder) -> int:
    """Return the bytes of all files of a work folder; files that vanish meanwhile count nothing."""
    total = 0
    for folder, _, names in os.walk(work.root):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(folder, name).stat().st_size
    return total


def is_held(work: WorkFolder) -> bool:
    """Return whether a process holds the work folder now."""
    return work.owner() is not None


def held(section: BudgetSection, bill: Mapping[str, Any], gone: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return each limit with what the whole study will have taken (middle, low, high), and a verdict.

    `over`: even the low end is above the limit; `likely over`: the middle is; `at risk`: the high end is.
    """
    rows = []
    for name, limit in section.limits().items():
        middle, low, high = _whole(name, bill, gone)
        state = OVER if low > limit else LIKELY_OVER if middle > limit else AT_RISK if high > limit else WITHIN
        row = {"what": name, "limit": limit, "forecast": middle, "low": low, "high": high}
        rows.append({**row, "spent": gone[name], "verdict": state})
    return rows


def _whole(name: str, bill: Mapping[str, Any], gone: Mapping[str, float]) -> tuple[float, float, float]:
    """Return middle, low and high of the whole study, what is spent included."""
    if name == "disk":
        low, high = bill["disk_bytes_range"]
        middle, low, high = (max(gone[name], float(x)) for x in (bill["disk_bytes"], low, high))
        return middle, low, high
    if name == "hours":
        left, low, high = (bill[key] / 3600 for key in ("seconds", "seconds_low", "seconds_high"))
    else:
        key = "energy_kwh" if name == "kwh" else "cost_usd"
        left, (low, high) = bill[key], bill[f"{key}_range"]
    return gone[name] + left, gone[name] + low, gone[name] + high


def refuse_if_over(rows: list[dict[str, Any]]) -> None:
    """Raise where even the low end of the forecast is above a limit.

    Raises:
        BudgetError: says which limit and by how much.
    """
    over = [row for row in rows if row["verdict"] == OVER]
    if over:
        raise BudgetError(
            "the study does not fit its budget: " + "; ".join(in_words(row) for row in over),
            "`ltm plan STUDY` says what could be left out; raise the budget, or give --over-budget",
        )


def warning(rows: list[dict[str, Any]]) -> str:
    """Return a line about limits that will probably be passed, or nothing."""
    likely = [row for row in rows if row["verdict"] == LIKELY_OVER]
    return "budget    " + "; ".join(in_words(row) for row in likely) if likely else ""


def in_words(row: Mapping[str, Any]) -> str:
    """Return a limit and its forecast as a phrase.

    >>> in_words({"what": "hours", "limit": 1, "forecast": 2, "low": 1.5, "high": 2.5, "verdict": "over"})
    'hours: 2 h 0 min forecast (1 h 30 min to 2 h 30 min), 1 h 0 min allowed: over'
    """
    name = row["what"]
    middle, low, high, limit = (amount(name, row[key]) for key in ("forecast", "low", "high", "limit"))
    return f"{name}: {middle} forecast ({low} to {high}), {limit} allowed: {row['verdict']}"


def amount(name: str, value: float) -> str:
    """Return an amount of a budget's quantity with its unit."""
    name = name.split()[0]
    if name == "hours":
        return format_seconds(3600 * value)
    return format_bytes(value) if name == "disk" else f"{value:.3g} {'kWh' if name == 'kwh' else 'USD'}"


def alternatives(
    settings: StudySettings, forecast: Forecast, gone: Mapping[str, float], n_books: int
) -> list[dict[str, Any]]:
    """Return changes that keep the budget, each with its bill, what is lost, and the `--set` that makes it.

    Empty where the middle of the forecast is within all limits. Every proposal was priced again and fits; one that
    cannot fit is left out.
    """
    section = settings.budget
    if all(row["verdict"] in (WITHIN, AT_RISK) for row in held(section, forecast.bill(settings), gone)):
        return []
    offer = _Offer(settings, forecast, gone, n_books)
    found = [offer.variants(), offer.seeds(), offer.tokens(), offer.model()]
    return [row for row in found if row is not None]


class _Offer:
    """Prices changed studies and keeps those that fit."""

    def __init__(self, settings: StudySettings, forecast: Forecast, gone: Mapping[str, float], n_books: int) -> None:
        self.settings, self.forecast, self.gone, self.n_books = settings, forecast, gone, n_books
        self.before = self._power(settings)

    def variants(self) -> dict[str, Any] | None:
        """Offer the largest number of variants that fits."""
        count = _largest(lambda n: self._fits({"sets.count": n}), _FEWEST_VARIANTS, self.settings.sets.count)
        if count is None:
            return None
        changed = self._changed({"sets.count": count})
        return self._row(
            f"{count} variants in place of {self.settings.sets.count}", {"sets.count": count}, self._lost(changed)
        )

    def seeds(self) -> dict[str, Any] | None:
        """Offer to train no variant twice, with as many variants as then fit."""
        if not self.settings.sets.shares.seeds or not self._others():
            return None
        none = {"sets.shares.seeds": 0}
        count = _largest(lambda n: self._fits({**none, "sets.count": n}), _FEWEST_VARIANTS, self.settings.sets.count)
        if count is None:
            return None
        changes = {**none, "sets.count": count}
        lost = [
            "no variant is trained twice: how loud the seed's noise is stays unknown, and effects have no such unit"
        ]
        return self._row(f"no second seeds, {count} variants", changes, [*lost, *self._lost(self._changed(changes))])

    def tokens(self) -> dict[str, Any] | None:
        """Offer fewer tokens of each book."""
        sets, runs = self.settings.sets, self.settings.runs
        fewest = max(
            16, sets.passage_tokens, -(-_FEWEST_STEPS * runs.batch_tokens // (sets.books_per_set * sets.epochs))
        )
        quota = _largest(lambda n: self._fits({"sets.book_tokens": n}), fewest, sets.book_tokens)
        if quota is None:
            return None
        share = quota / sets.book_tokens
        lost = [
            f"every model reads {share:.0%} of the text: it is weaker, and abilities may no longer be measurable",
            "sets a book and detectable effects in seed sd stay as they are, but the effects themselves shrink",
        ]
        return self._row(
            f"{format_count(quota)} tokens of each book in place of {format_count(sets.book_tokens)}",
            {"sets.book_tokens": quota},
            lost,
        )

    def model(self) -> dict[str, Any] | None:
        """Offer the largest smaller model of the same family that fits."""
        family = self.settings.model.shape(self.settings.tokens.vocab_size).family
        block = self.settings.model.shape(self.settings.tokens.vocab_size).block_size
        names = [name for name, shape in SIZES.items() if shape.family == family and shape.block_size == block]
        for name in sorted(names, key=self._params, reverse=True):
            smaller = self._params(name) < self.forecast.load.n_params
            if smaller and self._fits({"model.size": name}):
                lost = [
                    f"{format_count(self._params(name))} parameters in place of "
                    f"{format_count(self.forecast.load.n_params)}: what is found holds for a weaker model",
                    "its speed is judged from its size: `ltm plan` with this setting measures it",
                ]
                return self._row(f"the model {name}", {"model.size": name}, lost)
        return None

    def _others(self) -> float:
        shares = self.settings.sets.shares
        return shares.single + shares.order + shares.gaps

    def _params(self, name: str) -> int:
        changed = self.settings.model.model_copy(update={"size": name})
        return changed.shape(self.settings.tokens.vocab_size).n_params

    def _changed(self, changes: Mapping[str, Any]) -> StudySettings:
        values = self.settings.model_dump()
        for dotted, value in changes.items():
            *path, last = dotted.split(".")
            target = values
            for key in path:
                target = target[key]
            target[last] = value
        return StudySettings.model_validate(values)

    def _forecast(self, changes: Mapping[str, Any]) -> Forecast:
        """Return the forecast of the changed study; what is done already is not counted as saved."""
        settings, load, costs = self._changed(changes), self.forecast.load, self.forecast.costs
        n_runs = int(design_of(settings)["n_runs"])
        n_params = settings.model.shape(settings.tokens.vocab_size).n_params
        speed = (load.n_params / n_params) ** _SPEED_BY_SIZE
        changed = dataclasses.replace(
            load,
            n_runs=n_runs,
            runs_left=float(n_runs) if load.runs_left == load.n_runs else load.runs_left * n_runs / load.n_runs,
            models_to_score=load.models_to_score + n_runs - load.n_runs,
            run_tokens=settings.sets.run_tokens,
            n_params=n_params,
            n_variants=settings.sets.count,
        )
        priced = dataclasses.replace(
            costs,
            tokens_per_second=costs.tokens_per_second * speed,
            score_seconds=costs.score_seconds / speed,
            weights_bytes=costs.weights_bytes * n_params / load.n_params,
            patterns_seconds=costs.patterns_seconds * settings.sets.count / max(1, load.n_variants),
        )
        return dataclasses.replace(self.forecast, load=changed, costs=priced)

    def _fits(self, changes: Mapping[str, Any]) -> bool:
        if misfits(self._changed(changes)):  # rounds too small to be what they are called
            return False
        rows = held(self.settings.budget, self._forecast(changes).bill(self.settings), self.gone)
        return all(row["verdict"] in (WITHIN, AT_RISK) for row in rows)

    def _power(self, settings: StudySettings) -> dict[str, Any]:
        return knowable(settings, self.n_books)

    def _lost(self, changed: StudySettings) -> list[str]:
        """Return in words how much less the changed design finds out."""
        before, after = self.before, self._power(changed)
        books = max(1, self.n_books)
        lines = [
            f"{after['n_sets']} sets in place of {before['n_sets']}: "
            f"{after['n_sets'] / books:.1f} sets a book, not {before['n_sets'] / books:.1f}"
        ]
        effects = [
            f"{name} {_effect(before[key])} -> {_effect(after[key])}"
            for name, key in (
                ("book", "smallest_book_effect"),
                ("order", "smallest_order_effect"),
                ("gaps", "smallest_gap_effect"),
            )
            if before[key] != after[key]
        ]
        if effects:
            lines.append("smallest effect found in 4 of 5 studies, in seed sd: " + ", ".join(effects))
        h2 = "0.5"
        old, new = (side["accuracy_of_predicted_scores"][h2] for side in (before, after))
        lines.append(f"correlation of predicted with true scores, if h2 is {h2}: {old:.2f} -> {new:.2f}")
        return lines

    def _row(self, change: str, settings: Mapping[str, Any], lost: list[str]) -> dict[str, Any]:
        bill = self._forecast(settings).bill(self.settings)
        return {
            "change": change,
            "set": " ".join(f"--set {key}={value}" for key, value in settings.items()),
            "seconds": bill["seconds"],
            "seconds_low": bill["seconds_low"],
            "seconds_high": bill["seconds_high"],
            "energy_kwh": bill["energy_kwh"],
            "cost_usd": bill["cost_usd"],
            "disk_bytes": bill["disk_bytes"],
            "n_runs": bill["n_runs"],
            "lost": lost,
        }


def _largest(fits: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the largest number from `low` to below `high` that fits, None where not even `low` does."""
    if low >= high or not fits(low):
        return None
    high -= 1
    for _ in range(_TRIES):
        if low >= high:
            break
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _effect(size: float) -> str:
    return f"{size:.1f}" if size < float("inf") else "none"
