"""A whole campaign: variants x seeds, each trained on its books, all scored, the best tuned on dialogues.

One run comes from the forecast; how runs share the cards, wait, straggle, fail and start again is simulated by
`ltm.forecast.campaign`. Rows go from one card to a cluster, unless the question says how many cards there are.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ltm.errors import ConfigError, InputError
from ltm.forecast import answer as answers
from ltm.forecast.answer import Answer
from ltm.forecast.campaign import Makespan, simulate
from ltm.forecast.formulas import BYTES_PER_TOKEN
from ltm.forecast.question import Question, ask
from ltm.forecast.render import Amount, Column, Table, Value, single
from ltm.forecast.workers import Range, WorkerKind, study_phases
from ltm.units import format_count, format_seconds

_DEFAULT = {"books": "100", "pages": "500", "epochs": "3"}
_LIBRARY_BYTES_PER_SECOND = 10e6  # reading, cleaning and tokenizing on one machine
_QUESTION_TOKENS = 2_000_000  # read by one model when it is scored on both banks
_TUNING_TOKENS = 2_000_000.0  # of dialogues, for one of the best models
_REPORT_SECONDS = 120.0
_JITTER = 0.03  # between runs of the same kind on the same card
_CHECKPOINT_SECONDS = 600.0
_LIBRARY_SIZE = 4  # distinct books of a library, per book of a set, unless it is said


@dataclass(frozen=True)
class Plan:
    """What a campaign consists of, and what goes wrong on its workers; `None` = the usual of each row."""

    variants: int = 1000
    seeds: int = 1
    top: int = 10
    library_books: int | None = None
    straggler_fraction: float | None = None
    straggler_slowdown: float | None = None
    hours_between_failures: float | None = None
    preemptions_per_hour: float | None = None
    replicates: int = 60


@dataclass(frozen=True)
class _Site:
    words: str
    cards: int
    straggler_fraction: float = 0.0
    straggler_slowdown: float = 1.0
    hours_between_failures: float = float("inf")
    preemptions_per_hour: float = 0.0


_CLUSTER = 32  # cards from which on stragglers and failures are simulated unless the flags say otherwise
_SITES = (
    _Site("one card", 1),
    _Site("8 cards", 8),
    _Site("64 cards, with failures", 64, 0.05, 1.5, 1000.0),
    _Site("1,000 cards, pre-empted", 1000, 0.05, 1.5, 1000.0, 0.02),
)


def campaign(question: Question, plan: Plan | None = None) -> Table:
    """Return the makespan of a campaign on one card, several, and clusters where workers straggle, fail and come back.

    Raises:
        InputError: a number that cannot be.
    """
    plan = plan or Plan()
    _check(plan)
    filled = question
    if question.tokens is None:
        filled = dataclasses.replace(
            question, **{name: value for name, value in _DEFAULT.items() if getattr(question, name) is None}
        )
    one = answers.answer(ask(dataclasses.replace(filled, gpus=None, gpus_per_node=None)))
    if one.ways:
        way = one.ways[0]
        raise InputError(
            f"one run of {one.asked.shape.name} does not fit on one {one.asked.device.name}, and a campaign runs each "
            "run on a card of its own", f"what would fit: {way.words}; say so with its flags",
        )  # fmt: skip
    cards = None if question.gpus is None else int(ask(dataclasses.replace(filled, micro_batch=None)).case.n_devices)
    rows = [_row(site, one, plan) for site in _sites(cards, plan)]
    runs = plan.variants * plan.seeds
    run = answers.hours(one.bill)
    return Table(
        name="campaign",
        title=(
            f"A campaign of {plan.variants:,} variants x {plan.seeds} seed{'s' if plan.seeds > 1 else ''} = {runs:,} "
            f"runs, each {answers.what_text(one.asked)}, on {one.asked.device.name} (90 % ranges)"
        ),
        columns=(
            Column("cards", "cards"), Column("time_hours", "time", "hours"), Column("energy_kwh", "energy", "kwh"),
            Column("cost_usd", "cost", "usd"), Column("useful", "useful", "share"), Column("lost", "lost to"),
            Column("width_reason", "the range is wide because"),
        ),
        rows=rows,
        notes=(
            f"One run: {single(run.value, 'hours')} ({single(run.low, 'hours')} to {single(run.high, 'hours')}), of it "
            f"{single(_fixed(one) / 3600, 'hours')} start-up, compiling and saving; then scored on "
            f"{format_count(_QUESTION_TOKENS)} tokens of questions; the best {plan.top} tuned on "
            f"{format_count(_TUNING_TOKENS)} tokens of dialogues.",
            "Useful: share of the cards' time that starts, trains and scores runs. From 32 cards on: 5 % of the cards "
            "are 1.5 times slower, each fails once in 1,000 h, work goes on from checkpoints every 10 min; pre-empted "
            "ones are taken away once in 50 h. Change it with --stragglers, --slowdown, --hours-between-failures, "
            "--preemptions-per-hour.",
            f"Setting: {', '.join(answers.setting_words(one.asked))}, micro batch {one.asked.case.micro_batch:g}.",
        ),
        more=(Column("failures", "failures", "count"), Column("preemptions", "preemptions", "count")),
        settings={**answers.settings_document(one.asked), "gpu": one.asked.device.name, **_plain(plan)},
    )  # fmt: skip


def _plain(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(plan).items() if value is not None}


def _check(plan: Plan) -> None:
    problems = [
        f"--{name} is {getattr(plan, name)} (it must be at least {least})"
        for name, least in (("variants", 1), ("seeds", 1), ("top", 0), ("replicates", 1))
        if getattr(plan, name) < least
    ]
    if plan.top > plan.variants * plan.seeds >= 1:
        problems.append(f"--top {plan.top} is more than the {plan.variants * plan.seeds} runs (give fewer)")
    if problems:
        raise ConfigError(problems)


def _sites(cards: int | None, plan: Plan) -> list[_Site]:
    sites = list(_SITES) if cards is None else [_site_of(cards)]
    names = ("straggler_fraction", "straggler_slowdown", "hours_between_failures", "preemptions_per_hour")
    said: dict[str, Any] = {name: getattr(plan, name) for name in names if getattr(plan, name) is not None}
    if said.get("straggler_fraction") and "straggler_slowdown" not in said:
        said["straggler_slowdown"] = 1.5
    return [dataclasses.replace(site, **said) for site in sites]


def _site_of(cards: int) -> _Site:
    """Return so many cards; from a few machines on some are slow and some fail."""
    if cards < _CLUSTER:
        return _Site(f"{cards:,} card{'s' if cards > 1 else ''}", cards)
    return _Site(f"{cards:,} cards, with failures", cards, 0.05, 1.5, 1000.0)


def _fixed(one: Answer) -> float:
    """Return seconds beside the steps of each run; the texts were tokenized once for all."""
    return sum(seconds for name, seconds in one.bill.fixed_seconds.items() if name != "tokenize")


def _row(site: _Site, one: Answer, plan: Plan) -> dict[str, Value]:
    done = _simulated(site, one, plan)
    shares = {name: share for name, share in done.shares.items() if name != "useful" and share >= 0.01}
    lost = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda item: -item[1]))
    return {
        "cards": site.words,
        "n_cards": site.cards,
        "time_hours": _amount(done.seconds).times(1 / 3600),
        "energy_kwh": _amount(done.energy_kwh),
        "cost_usd": _amount(done.usd),
        "useful": min(1.0, done.shares["useful"]),
        "lost": lost or "nothing",
        "failures": done.failures,
        "preemptions": done.preemptions,
        "phases": ", ".join(f"{p.name} {format_seconds(p.seconds.median)}" for p in done.phases),
        "width_reason": done.main_reason.split("; ")[0],
    }


def _amount(value: Range) -> Amount:
    return Amount(value.median, value.low, value.high)


def _simulated(site: _Site, one: Answer, plan: Plan) -> Makespan:
    asked, result, prices = one.asked, one.forecast, one.asked.prices
    positions = asked.tokens / asked.packing
    rates = (result.tokens_per_second, result.tokens_per_second_high, result.tokens_per_second_low)
    # start-up and compiling are known to a factor of two, as in the bill of one run
    beside = _fixed(one)
    mid, low, high = (positions / rate + x * beside for rate, x in zip(rates, (1.0, 0.5, 2.0), strict=True))
    one_token = 1 / result.tokens_per_second / mid
    watts = prices.watts if prices.watts is not None else result.watts
    kind = WorkerKind(
        name=asked.device.name, count=site.cards, run_seconds=mid, run_seconds_low=low, run_seconds_high=high,
        jitter_fraction=_JITTER, startup_seconds=60.0, straggler_fraction=site.straggler_fraction,
        straggler_slowdown=site.straggler_slowdown, hours_between_failures=site.hours_between_failures,
        repair_seconds=1800.0, preemptions_per_hour=site.preemptions_per_hour, preempted_seconds=1800.0,
        checkpoint_every_seconds=_CHECKPOINT_SECONDS, checkpoint_seconds=2.0 + one.bill.fixed_seconds.get("save", 0.0),
        restart_seconds=beside, watts=watts, idle_watts=0.3 * watts, usd_per_hour=prices.usd_per_hour,
    )  # fmt: skip
    library = (plan.library_books or _LIBRARY_SIZE * _books(asked.distinct_tokens)) * 250_000.0
    prepare = library * BYTES_PER_TOKEN / _LIBRARY_BYTES_PER_SECOND
    phases = study_phases(
        exploration_runs=plan.variants * plan.seeds,
        prepare_seconds=Range(prepare, prepare / 2, prepare * 2),
        score_size=_QUESTION_TOKENS / 3 * one_token,  # a forward pass alone
        score_seconds=15.0,
        tuned_models=plan.top,
        tune_size=_TUNING_TOKENS * one_token,
        report_seconds=Range(_REPORT_SECONDS, _REPORT_SECONDS / 2, _REPORT_SECONDS * 2),
    )
    return simulate([kind], phases, replicates=plan.replicates, usd_per_kwh=prices.usd_per_kwh)


def _books(distinct_tokens: float) -> float:
    return max(1.0, distinct_tokens / 250_000.0)
