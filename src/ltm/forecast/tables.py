"""The tables that users ask for, and two of them: training from scratch, and books.

Each table takes a question and returns a `Table` for `render`. A field that the question leaves open is spread over the
table's usual values (five model sizes, 1 to 1000 books); a field may also hold several values with commas between.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

from ltm.errors import ConfigError, InputError
from ltm.forecast import answer as answers
from ltm.forecast import fits
from ltm.forecast.answer import Answer
from ltm.forecast.flags import Given, flag
from ltm.forecast.question import Asked, Question, ask
from ltm.forecast.render import Amount, Column, Table, Value, single
from ltm.units import format_count

TABLES = ("train", "books", "speedups", "feasible", "campaign")
USUAL_MODELS = ("125m", "355m", "1.3b", "3b", "7b")
_USUAL_BOOKS = ("1", "10", "100", "1000")
_BOOK_PAGES, _BOOK_EPOCHS = 500, 3
_MORE_EPOCHS = (3, 5)
Maker = Callable[..., Table]


def make(name: str, question: Question, **options: Any) -> Table:
    """Return a table by name.

    Raises:
        InputError: there is no such table, or the question is wrong.
    """
    if name not in TABLES:
        near = difflib.get_close_matches(name, TABLES, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no table `{name}`", f"nearest: {near}; one of {', '.join(TABLES)}")
    return _maker(name)(question, **options)


def _maker(name: str) -> Maker:
    """Return what makes a table; the larger ones are imported when they are asked for."""
    if name == "speedups":
        from ltm.forecast.table_speedups import speedups

        return speedups
    if name == "feasible":
        from ltm.forecast.table_feasible import feasible

        return feasible
    if name == "campaign":
        from ltm.forecast.table_campaign import campaign

        return campaign
    return train if name == "train" else books


def train(question: Question) -> Table:
    """Return training from scratch: models x tokens, on 10B tokens unless said otherwise."""
    asked = ask_each(_grid(question, model=USUAL_MODELS, tokens=("10B",), epochs=("1",)), question)
    single_pass = question.epochs is None and question.books is None
    several = len({a.data_text for a in asked}) > 1
    columns = [
        Column("model", "model"), *([Column("data", "data")] if several else []),
        Column("tokens_per_s", "tokens/s", "tokens_per_s"), Column("time_hours", "time", "hours"),
        *([Column(f"time_{n}_epochs_hours", f"{n} epochs", "hours") for n in _MORE_EPOCHS] if single_pass else []),
        Column("peak_memory_gib", "memory", "gib"), Column("energy_kwh", "energy", "kwh"),
        Column("cost_usd", "cost", "usd"), Column("of_peak", "of peak", "share"), Column("limited_by", "limit"),
        Column("setting", "setting"),
    ]  # fmt: skip
    found = [answers.answer(a) for a in asked]
    data = "" if several else f" on {asked[0].data_text}"
    return Table(
        name="train",
        title=f"Training from scratch{data}, on {answers.cards_text(asked[0])} (90 % ranges)",
        columns=tuple(columns),
        rows=[_train_row(one, single_pass) for one in found],
        notes=notes_of(asked, found),
        settings={**answers.settings_document(asked[0]), "gpu": asked[0].device.name},
    )


def _train_row(found: Answer, single_pass: bool) -> dict[str, Value]:
    found = settled(found)
    row = base_row(found)
    for n in _MORE_EPOCHS if single_pass else ():
        again = dataclasses.replace(found.asked, tokens=found.asked.tokens * n)
        row[f"time_{n}_epochs_hours"] = answers.hours(answers.bill_of(again, found.forecast))
    return row


def books(question: Question) -> Table:
    """Return short trainings on books, fixed costs included: 1 to 1000 books of 500 pages, 3 epochs."""
    grid = _grid(question, model=("125m",), books=_USUAL_BOOKS, pages=(str(_BOOK_PAGES),), epochs=(str(_BOOK_EPOCHS),))
    asked = ask_each(grid, question)
    found = [settled(answers.answer(a)) for a in asked]
    several = len({a.shape.name for a in asked}) > 1
    columns = (
        *([Column("model", "model")] if several else []), Column("books", "books"), Column("tokens", "tokens", "count"),
        Column("time_hours", "time", "hours"), Column("training_hours", "training", "hours"),
        Column("fixed_hours", "fixed", "hours"), Column("tokens_per_s", "tokens/s", "tokens_per_s"),
        Column("peak_memory_gib", "memory", "gib"), Column("energy_kwh", "energy", "kwh"),
        Column("cost_usd", "cost", "usd"), Column("width_reason", "the range is wide because"),
    )  # fmt: skip
    first = asked[0]
    model = "" if several else f" of {first.shape.name} ({format_count(first.shape.parameters)} parameters)"
    size = f"books of {first.question.pages} pages, {float(str(first.question.epochs)):g} epochs"
    return Table(
        name="books",
        title=f"Training{model} from scratch on {size}, on {answers.cards_text(first)} (90 % ranges)",
        columns=columns,
        rows=[_book_row(one) for one in found],
        notes=(
            "Fixed: " + _fixed_words(found[-1]) + " in the last row; known to a factor of two.",
            *notes_of(asked, found, reason=False),
        ),
        settings={**answers.settings_document(first), "gpu": first.device.name},
    )


def _book_row(found: Answer) -> dict[str, Value]:
    paid = found.bill
    fixed = sum(paid.fixed_seconds.values()) + sum(paid.extra_seconds.values())
    row = base_row(found)
    row |= {
        "books": format(int(str(found.asked.question.books)), ","),
        "tokens": found.asked.tokens,
        "training_hours": _training_hours(found),
        "fixed_hours": fixed / 3600,
        "width_reason": paid.width_reason,
    }
    return row


def _training_hours(found: Answer) -> Amount:
    result, positions = found.forecast, found.asked.tokens / found.asked.packing
    rates = (result.tokens_per_second, result.tokens_per_second_high, result.tokens_per_second_low)
    value, low, high = (positions / rate / 3600 for rate in rates)
    return Amount(value, low, high)


def _fixed_words(found: Answer) -> str:
    every = {**found.bill.fixed_seconds, **found.bill.extra_seconds}
    words = [f"{answers.FIXED_WORDS.get(k, k)} {single(s / 3600, 'hours')}" for k, s in every.items() if s >= 0.5]
    return ", ".join(words)


def base_row(found: Answer) -> dict[str, Value]:
    """Return what every table says of a training."""
    return {
        "model": found.asked.shape.name,
        "parameters": found.asked.shape.parameters,
        "data": found.asked.data_text,
        "tokens_per_s": answers.speed(found.forecast, found.asked.packing),
        "time_hours": answers.hours(found.bill),
        "peak_memory_gib": answers.memory_gib(found.forecast),
        "energy_kwh": answers.energy_kwh(found.bill),
        "cost_usd": answers.cost_usd(found.bill),
        "of_peak": found.forecast.mfu,
        "limited_by": answers.limited_by(found.forecast),
        "setting": setting_text(found),
        "width_reason": found.bill.width_reason,
    }


def setting_text(found: Answer) -> str:
    """Return the setting of a row: its micro batch, or what had to change to fit."""
    case = found.forecast.case
    if found.ways:
        return found.ways[0].words
    verdict = answers.fitting_words(found.forecast)
    return f"micro batch {case.micro_batch:g}" + ("" if verdict == "fits" else f", {verdict}")


def settled(found: Answer) -> Answer:
    """Return the answer for the nearest setting that trains all weights, if the one asked for does not fit.

    An answer that nothing helps stays as it is and says so.
    """
    way = next((way for way in found.ways if way.trains_all or found.asked.case.method), None)
    if way is None:
        return found
    paid = answers.bill_of(found.asked, way.forecast)
    return dataclasses.replace(found, forecast=way.forecast, bill=paid, ways=(way,))


def several(value: Given) -> list[str]:
    """Return the values of a field that may hold several."""
    return [part.strip() for part in str(value).split(",") if part.strip()]


def _grid(question: Question, **usual: Sequence[str]) -> list[Question]:
    """Return a question for each combination of values of the named fields, the last of them fastest."""
    if question.books is not None and "tokens" in usual:
        usual = {("books" if name == "tokens" else name): values for name, values in usual.items()}
        usual.setdefault("pages", (str(_BOOK_PAGES),))
    if "model" in usual and any(getattr(question, f) is not None for f in ("n_layer", "n_embd")) and not question.model:
        usual = {name: values for name, values in usual.items() if name != "model"}
    found = [question]
    for name, values in usual.items():
        given = getattr(question, name)
        found = [
            dataclasses.replace(one, **{name: value})
            for one in found
            for value in (values if given is None else several(given))
        ]
    return found


def ask_each(questions: Sequence[Question], origin: Question) -> list[Asked]:
    """Return every question understood.

    Raises:
        InputError: what is wrong with any of them, each problem once.
    """
    asked, problems = list[Asked](), dict[str, InputError]()
    for question in questions:
        try:
            asked.append(ask(question))
        except ConfigError as error:
            problems |= {text: error for text in error.problems if text not in problems}
        except InputError as error:
            problems.setdefault(f"{error.message} ({error.hint})", error)
    if len(problems) == 1:
        raise next(iter(problems.values()))
    if problems:
        raise ConfigError(list(problems))
    if not asked:
        empty = [flag(f.name) for f in dataclasses.fields(origin) if str(getattr(origin, f.name)).strip(", ") == ""]
        raise InputError(f"no value between the commas of {', '.join(empty)}", "write 125m,1.3b or 1,10,100")
    return asked


def notes_of(asked: Sequence[Asked], found: Sequence[Answer], reason: bool = True) -> tuple[str, ...]:
    """Return remarks that hold for a whole table, each once."""
    first = asked[0]
    notes = dict.fromkeys(["Setting: " + ", ".join(answers.setting_words(first)) + ", sequences of "
                           + " or ".join(sorted({f"{a.case.seq_len:g}" for a in asked})) + " tokens, the largest micro "
                           "batch that fits unless a row says otherwise."])  # fmt: skip
    if reason:
        notes["Ranges are wide because " + found[-1].bill.width_reason + "."] = None
    tight = [f.asked.shape.name for f in found if not f.ways and not fits.likely(f.forecast)]
    if tight:
        notes[f"No setting was found that fits: {', '.join(dict.fromkeys(tight))}."] = None
    price = first.prices
    rent = f"rent ${price.usd_per_hour:.2f} an hour and card, " if price.usd_per_hour else "no rent (--usd-per-hour), "
    notes[f"Cost: {rent}electricity ${price.usd_per_kwh:.2f} a kWh."] = None
    notes |= dict.fromkeys(note for a in asked for note in a.notes if "assumed" not in note)
    return tuple(notes)
