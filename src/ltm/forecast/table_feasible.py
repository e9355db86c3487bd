"""Can it be done at all on the cards at hand: training from scratch, fine-tuning, answering with passages from books.

Each row says yes, with which settings, no and why, or how many cards; a training that fits but takes longer than a year
is no either.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ltm.forecast import answer as answers
from ltm.forecast import fits
from ltm.forecast.answer import Answer
from ltm.forecast.fits import Way
from ltm.forecast.inference import Inference, forecast_inference
from ltm.forecast.question import Question
from ltm.forecast.render import Column, Table, Value, single
from ltm.forecast.shapes import shape
from ltm.forecast.tables import USUAL_MODELS, ask_each, base_row, notes_of, several
from ltm.units import format_count

_YEAR_SECONDS = 8766 * 3600.0
_TUNED, _ANSWERING = "7b", "3b"
_TUNING_TOKENS = "10M"
_PASSAGES, _PASSAGE_TOKENS, _BOOKS = 8, 400, 1000
_ENOUGH_TOKENS = 20  # per parameter (Hoffmann et al. 2022, "Training compute-optimal large language models")


@dataclass(frozen=True)
class _Row:
    what: str
    question: Question


def feasible(question: Question) -> Table:
    """Return what can be done on the cards that the question names."""
    models = USUAL_MODELS if question.model is None else several(question.model)
    data = {} if question.tokens or question.books else {"tokens": "10B"}
    rows = [
        _Row(
            f"train {model} from scratch",
            dataclasses.replace(question, model=model, method=None, lora_rank=None, **data),
        )
        for model in models
    ]
    tuned = _TUNED if question.model is None else models[-1]
    open_data = {} if question.tokens or question.books else {"tokens": _TUNING_TOKENS}
    for method, name in (("full", "in full"), ("lora", "with LoRA"), ("qlora", "with QLoRA")):
        rank = question.lora_rank if method != "full" else None
        rows.append(
            _Row(
                f"fine-tune {tuned} {name}",
                dataclasses.replace(question, model=tuned, method=method, lora_rank=rank, continued=True, **open_data),
            )
        )
    asked = ask_each([row.question for row in rows], question)
    found = [answers.answer(one) for one in asked]
    cells = [_trained(row.what, answer) for row, answer in zip(rows, found, strict=True)]
    answering = _ANSWERING if question.model is None else models[-1]
    for quant in ("f16", "q4"):
        result = forecast_inference(
            shape(answering), asked[0].device, quant, n_devices=int(asked[0].case.n_devices), rag_passages=_PASSAGES,
            passage_tokens=_PASSAGE_TOKENS, books=_BOOKS,
        )  # fmt: skip
        cells.append(_answered(answering, result))
    return Table(
        name="feasible",
        title=f"What can be done on {answers.cards_text(asked[0])} (90 % ranges)",
        columns=(
            Column("what", "what"), Column("possible", "possible"), Column("how", "how"),
            Column("tokens_per_s", "tokens/s", "tokens_per_s"), Column("time_hours", "time", "hours"),
            Column("peak_memory_gib", "memory a card", "gib"), Column("remark", "remark"),
        ),
        rows=cells,
        notes=(
            f"Training: {asked[0].data_text}; fine-tuning: {asked[-1].data_text}; answering: a prompt of 4,096 tokens "
            f"with {_PASSAGES} passages from {_BOOKS} books, 300 tokens of answer; its time is that of one answer.",
            *notes_of(asked, found),
        ),
        settings={**answers.settings_document(asked[0]), "gpu": asked[0].device.name},
    )  # fmt: skip


def _trained(what: str, found: Answer) -> dict[str, Value]:
    asked = found.asked
    possible, how, shown, remark = _judged(found)
    if shown is None:
        return {"what": what, "possible": possible, "how": how, "tokens_per_s": None, "time_hours": None,
                "peak_memory_gib": None, "remark": remark}  # fmt: skip
    row = base_row(dataclasses.replace(found, forecast=shown.forecast, bill=shown.bill))
    if shown.bill.seconds > _YEAR_SECONDS:
        cards = int(asked.case.n_devices) * round(shown.bill.seconds / (_YEAR_SECONDS / 12) + 0.5)
        possible, remark = "no", f"it would take over a year; about {cards:,} cards for a month"
    elif not asked.case.method and not asked.case.continued and not remark:
        remark = _enough(found, shown)
    keys = ("tokens_per_s", "time_hours", "peak_memory_gib", "energy_kwh", "cost_usd", "of_peak", "limited_by")
    return {"what": what, "possible": possible, "how": how, **{key: row[key] for key in keys}, "remark": remark}


def _judged(found: Answer) -> tuple[str, str, Answer | None, str]:
    """Return the verdict, how, the answer to show (None = nothing fits) and a remark."""
    asked = found.asked
    if not found.ways and fits.likely(found.forecast):
        return "yes", f"micro batch {found.forecast.case.micro_batch:g}", found, ""
    same = next((w for w in found.ways if w.cards == asked.case.n_devices and _same_method(found, w)), None)
    more = next((w for w in found.ways if w.cards > asked.case.n_devices), None)
    other = next((w for w in found.ways if not _same_method(found, w)), None)
    if same is not None:
        verdict = "yes, with" if fits.likely(same.forecast) else "perhaps, with"
        return verdict, same.words, _paid(found, same), "" if more is None else f"surely: {more.words}"
    memory = answers.memory_gib(found.forecast).value
    room = asked.device.memory_bytes / 1024**3
    why = f"needs {single(memory, 'gib')}, the card has {single(room, 'gib')}"
    instead = "" if other is None else f"; on these cards: {other.words}"
    if more is not None:
        return f"with {more.cards} cards", more.words, _paid(found, more), why + instead
    return "no", "nothing fits", None, why + instead


def _same_method(found: Answer, way: Way) -> bool:
    return way.forecast.case.method == found.asked.case.method


def _paid(found: Answer, way: Way) -> Answer:
    return dataclasses.replace(found, forecast=way.forecast, bill=answers.bill_of(found.asked, way.forecast))


def _enough(found: Answer, shown: Answer) -> str:
    """Return how the data compares with what a model of this size can use."""
    wanted = _ENOUGH_TOKENS * found.asked.shape.parameters
    if found.asked.distinct_tokens >= 0.8 * wanted:
        return "enough text"
    hours = shown.bill.seconds / 3600 * wanted / found.asked.tokens
    return f"{format_count(wanted)} tokens (20 a parameter) would take {single(hours, 'hours')}"


def _answered(model: str, found: Inference) -> dict[str, Value]:
    cards = found.case.n_devices
    gib = found.memory_gib.times(1 / cards)
    remark = (
        f"reads {single(found.prefill_tokens_per_second.value, 'tokens_per_s')} tokens/s, first word after "
        f"{single(found.first_token_seconds.value / 3600, 'hours')}; "
        f"search {single(found.retrieval_seconds * 1000, '')} ms"
    )
    return {
        "what": f"answer with {model}, books searched",
        "possible": "yes" if found.fits else f"with {found.cards_needed} cards",
        "how": f"{found.quant} weights",
        "tokens_per_s": found.decode_tokens_per_second,
        "time_hours": found.answer_seconds.times(1 / 3600),
        "peak_memory_gib": gib,
        "limited_by": found.limited_by,
        "remark": remark,
    }
