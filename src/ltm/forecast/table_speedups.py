"""What each way to save time or memory changes, in both, for the user's own case - also where it makes things worse.

Every row changes one setting and keeps the rest, the micro batch too, so that the memory can be compared. The range of
a ratio is narrower than that of its parts, which share most of their error: half-widths are what pairs of published
runs of one source that differ in one setting show (`bench/forecast/ratios.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ltm.forecast import answer as answers
from ltm.forecast import fits
from ltm.forecast.abilities import has_attention, has_precision
from ltm.forecast.answer import Answer
from ltm.forecast.case import ATTENTIONS, CHECKPOINTING, METHODS, OPTIMIZERS, PRECISIONS, Case
from ltm.forecast.devices import Device
from ltm.forecast.estimate import Forecast, forecast_many
from ltm.forecast.question import Asked, Question, ask
from ltm.forecast.render import Amount, Column, Table, Value, single

# 90 % of measured ratios lie within exp(+-this) of the forecast ones; other settings have no pairs of their own and use
# what holds for all pairs together.
_RATIO_LOG = {"precision": 0.295, "micro batch": 0.163, "sharding": 0.266, "method": 0.841}
_RATIO_LOG_ALL = 0.194
_NOTHING = 0.02  # a smaller change is called none
_GIB = 1024**3
_TYPICAL_FILL = 0.3  # of a sequence of usual length that one short document fills where nothing is packed


@dataclass(frozen=True)
class Change:
    """One setting instead of another."""

    group: str
    words: str
    case: Case | None  # None: cannot be had here
    why: str = ""
    useful: float = 1.0  # share of the positions that hold text, relative to the case asked for


def speedups(question: Question) -> Table:
    """Return each setting against the user's own case: times as fast, memory more or less."""
    asked = ask(question)
    base = answers.answer(dataclasses.replace(asked, this_machine=False))  # like must be compared with like
    changes = list(_changes(asked))
    cases = [change.case for change in changes if change.case is not None]
    found = iter(forecast_many(cases, [asked.device] * len(cases)))
    rows = [_row(base, change, next(found) if change.case is not None else None) for change in changes]
    columns = (
        Column("change", "change"), Column("times_as_fast", "speed", "times"),
        Column("memory_change_gib", "memory", "signed_gib"), Column("verdict", "in words"),
    )  # fmt: skip
    rate, memory = answers.speed(base.forecast, asked.packing), answers.memory_gib(base.forecast)
    return Table(
        name="speedups",
        title=(
            f"What each setting changes for {answers.what_text(asked)}, on {answers.cards_text(asked)}: "
            f"{', '.join(answers.setting_words(asked))}; {answers.batch_text(asked, fits.likely(base.forecast))}"
        ),
        columns=columns,
        rows=rows,
        notes=(
            f"The case itself: {single(rate.value, 'tokens_per_s')} tokens/s, {single(memory.value, 'gib')}"
            f"{' a card' if asked.case.n_devices > 1 else ''} ({answers.fitting_words(base.forecast)}), limited by "
            f"{base.forecast.limited_by}.",
            "Speed: times as fast as the case, with the 90 % range of such ratios. Memory: more (+) or less (-) on "
            "each card at the same micro batch.",
            *(("All rates are usual ones: the calibration of a machine knows one setting alone.",)
              if asked.this_machine else ()),
            *asked.notes,
        ),
        more=(
            Column("tokens_per_s", "tokens/s", "tokens_per_s"), Column("peak_memory_gib", "memory", "gib"),
            Column("fits", "fits"),
        ),
        settings={**answers.settings_document(asked), "gpu": asked.device.name},
    )  # fmt: skip


def _changes(asked: Asked) -> Iterator[Change]:
    case, card = asked.case, asked.device
    yield from _attention(case, card)
    for code, words in ((2.0, "torch.compile"), (0.0, "no compiling")):
        if case.kernels != code:
            yield Change("compile", words, dataclasses.replace(case, kernels=code))
    yield from _precisions(case, card)
    yield from _micro_batches(case)
    for name, share in CHECKPOINTING.items():
        if case.checkpointing != share:
            yield Change("checkpointing", name, dataclasses.replace(case, checkpointing=share))
    yield from _methods(case)
    for code, name in enumerate(OPTIMIZERS):
        if case.optimizer != code and name != "sgd":
            words = {"adamw": "AdamW", "adamw8bit": "8-bit AdamW", "muon": "Muon"}[name]
            yield Change("optimizer", words, dataclasses.replace(case, optimizer=float(code)))
    yield from _sharding(case)
    if asked.packing < 1:
        yield Change("packing", "every position useful", case, useful=1 / asked.packing)
    else:
        yield Change("packing", f"none ({_TYPICAL_FILL:.0%} useful)", case, useful=_TYPICAL_FILL)


def _attention(case: Case, card: Device) -> Iterator[Change]:
    names = {"eager": "plain", "flash": "FlashAttention", "flash3": "FlashAttention 3", "flex": "FlexAttention"}
    for code, name in enumerate(ATTENTIONS):
        if case.attention == code:
            continue
        there = has_attention(card, name)
        yield Change(
            "attention", names[name], dataclasses.replace(case, attention=float(code)) if there else None,
            "" if there else f"it does not run on {card.arch}",
        )  # fmt: skip


def _precisions(case: Case, card: Device) -> Iterator[Change]:
    for code, name in enumerate(PRECISIONS):
        if case.precision == code:
            continue
        excluded = "QLoRA computes in 16 bits" if case.method == 2 and name not in ("fp16", "bf16") else ""
        excluded = excluded or ("adapters stay in 16 bits" if case.method and name == "fp8" else "")
        if excluded or not has_precision(card, name):
            yield Change("precision", name, None, excluded or f"{card.name} cannot compute in it")
            continue
        mixed = float(case.method == 0 and name in ("fp16", "bf16", "fp8"))
        yield Change("precision", name, dataclasses.replace(case, precision=float(code), mixed=mixed))


def _micro_batches(case: Case) -> Iterator[Change]:
    """Yield gradient accumulation: fewer sequences at a time, the same batch."""
    seen = {case.micro_batch}
    for divisor in (2, 4, 8):
        smaller = max(1.0, case.micro_batch // divisor)
        if smaller not in seen:
            seen.add(smaller)
            words = f"micro batch {smaller:g}, x{case.micro_batch / smaller:.3g} steps"
            yield Change("accumulation", words, dataclasses.replace(case, micro_batch=smaller))


def _methods(case: Case) -> Iterator[Change]:
    for code, name in enumerate(METHODS):
        if case.method == code:
            continue
        full = code == 0
        half = case.precision if full or case.precision in (2.0, 3.0) else 3.0
        yield Change(
            "method", {"full": "full training", "lora": "LoRA", "qlora": "QLoRA"}[name],
            dataclasses.replace(
                case, method=float(code), mixed=float(full and half >= 2), precision=half,
                lora_rank=0.0 if full else case.lora_rank or 16.0, lora_attention=1.0, lora_mlp=float(not full),
            ),
        )  # fmt: skip


def _sharding(case: Case) -> Iterator[Change]:
    replicas = case.n_devices / (case.tp * case.pp)
    names = ((0.0, "DDP"), (1.0, "ZeRO-1"), (2.0, "ZeRO-2"), (3.0, "ZeRO-3 / FSDP"))
    for stage, name in names:
        if replicas > 1 and stage != case.zero:
            yield Change("sharding", name, dataclasses.replace(case, zero=stage))
        elif replicas == 1 and stage:
            yield Change(
                "sharding", name, dataclasses.replace(case, zero=stage), "on one card there is nobody to share with"
            )


def _row(base: Answer, change: Change, found: Forecast | None) -> dict[str, Value]:
    start: dict[str, Value] = {"group": change.group, "change": f"{change.group}: {change.words}"}
    if found is None:
        return {**start, "times_as_fast": None, "memory_change_gib": None, "verdict": f"not here: {change.why}"}
    ratio = found.tokens_per_second / base.forecast.tokens_per_second * change.useful
    memory = (found.peak_memory_bytes - base.forecast.peak_memory_bytes) / _GIB
    same = found == base.forecast or (abs(math.log(ratio)) < 1e-9 and abs(memory) < 1e-9)
    group = "micro batch" if change.group == "accumulation" else change.group
    width = 0.0 if same or change.group == "packing" else _RATIO_LOG.get(group, _RATIO_LOG_ALL)
    width = min(width, 3 * abs(math.log(ratio)) + 0.05)  # what hardly changes anything is known to hardly change it
    return {
        **start,
        "times_as_fast": Amount(ratio, ratio * math.exp(-width), ratio * math.exp(width)) if width else ratio,
        "memory_change_gib": memory,
        "verdict": _verdict(base, change, found, ratio, memory),
        "tokens_per_s": answers.speed(found, base.asked.packing * change.useful),
        "peak_memory_gib": answers.memory_gib(found),
        "fits": answers.fitting_words(found),
    }


def _verdict(base: Answer, change: Change, found: Forecast, ratio: float, memory: float) -> str:
    usual = base.forecast.peak_memory_bytes / _GIB
    faster, slower = ratio > 1 + _NOTHING, ratio < 1 - _NOTHING
    saves, takes = memory < -_NOTHING * usual, memory > _NOTHING * usual
    if change.why and not (faster or slower or saves or takes):
        return f"changes nothing: {change.why}"
    words = []
    if faster or slower:
        words.append(
            f"{ratio:.2g} times as fast" if ratio >= 1.5 else f"{abs(ratio - 1):.0%} {'faster' if faster else 'slower'}"
        )
    if saves or takes:
        words.append(
            f"{'saves' if saves else 'takes'} {abs(memory) / usual:.0%} {'of the memory' if saves else 'more memory'}"
        )
    text = ", ".join(words) or "no difference to speak of"
    why = _because(change, ratio)
    if why:
        text += f": {why}"
    if not fits.likely(found) and fits.likely(base.forecast):
        text += "; does not fit at this micro batch"
    elif fits.likely(found) and not fits.likely(base.forecast):
        text += "; fits with it"
    return text


def _because(change: Change, ratio: float) -> str:
    """Return why a change is slower than its fame, or what it costs."""
    slower = ratio < 1 - _NOTHING
    if change.words == "fp8" and ratio < 1 + 5 * _NOTHING:
        return "casts and scales cost more than small products gain"
    if change.words == "QLoRA" and slower:
        return "4-bit weights are unpacked again in every pass"
    if change.group == "checkpointing" and slower:
        return "parts of the forward pass are computed twice"
    if change.words == "LoRA" and ratio < 2:
        return "the whole forward pass and most of the backward pass stay"
    if change.group == "accumulation" and slower:
        return "small products and more launches use the card less"
    if change.group == "packing":
        return "padding is computed like text"
    if change.group == "sharding" and slower:
        return "weights travel between the cards in every step"
    return "its products run at a lower rate" if slower and change.words in ("fp32", "tf32") else ""
