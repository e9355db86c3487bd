"""One question answered: speed, time, memory, energy, cost with their ranges, what limits it, and what would fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ltm.forecast import fits, here
from ltm.forecast.case import ATTENTIONS, CHECKPOINTING, KERNELS, LOOPS, METHODS, OPTIMIZERS, PRECISIONS
from ltm.forecast.estimate import Bill, Forecast, bill, forecast
from ltm.forecast.fits import Way
from ltm.forecast.question import Asked, evaluation_seconds
from ltm.forecast.render import Amount, amount, single, wrapped
from ltm.units import format_count

_GIB = 1024**3
_ATTENTION_WORDS = {"eager": "plain attention", "flash": "FlashAttention", "flash3": "FlashAttention 3",
                    "flex": "FlexAttention"}  # fmt: skip
FIXED_WORDS = {"start": "start-up", "compile": "compiling", "warm_up": "warm-up", "load_weights": "loading weights",
                "tokenize": "tokenizing", "evaluate": "evaluating", "save": "saving"}  # fmt: skip
_ADVICE = {
    "compute": "a faster card or fewer parameters",
    "bandwidth": "compiling, fused kernels or a larger micro batch",
    "launch overhead": "a larger micro batch or compiling",
    "network": "faster links, a larger batch, or fewer cards",
}


@dataclass(frozen=True)
class Answer:
    """What comes of a question."""

    asked: Asked
    forecast: Forecast
    bill: Bill
    ways: tuple[Way, ...]  # what fits in its place; empty if it fits


def answer(asked: Asked) -> Answer:
    """Return the forecast and the bill of a question, and what would fit if it does not."""
    found = forecast_asked(asked)
    ways = () if fits.likely(found) else tuple(fits.nearest(asked.case, asked.device))
    return Answer(asked, found, bill_of(asked, found), ways)


def forecast_asked(asked: Asked) -> Forecast:
    """Return the forecast of a question, from the calibration of this machine where there is one."""
    usual = forecast(asked.case, asked.device)
    if not asked.this_machine:
        return usual
    return here.measured(usual) or here.unmeasured(usual)


def bill_of(asked: Asked, found: Forecast) -> Bill:
    """Return the bill of a question's data in a setup: padding counts as work, evaluation and tokenizing are in it."""
    faster = here.scoring_speedup(found)
    extra = {"evaluate": evaluation_seconds(found.tokens_per_second, asked.distinct_tokens, faster)}
    measured = here.fixed_seconds(found, asked.shape.parameters, asked.distinct_tokens)
    return bill(found, asked.tokens / asked.packing, asked.prices, asked.distinct_tokens, extra, measured)


def speed(found: Forecast, packing: float = 1.0) -> Amount:
    """Return useful tokens per second of all cards."""
    return Amount(found.tokens_per_second, found.tokens_per_second_low, found.tokens_per_second_high).times(packing)


def memory_gib(found: Forecast) -> Amount:
    """Return the peak memory of one card in GiB."""
    return Amount(found.peak_memory_bytes, found.peak_memory_low, found.peak_memory_high).times(1 / _GIB)


def hours(paid: Bill) -> Amount:
    """Return the whole time in hours."""
    return Amount(paid.seconds, paid.seconds_low, paid.seconds_high).times(1 / 3600)


def energy_kwh(paid: Bill) -> Amount:
    """Return the energy in kWh."""
    return Amount(paid.energy_kwh, paid.energy_kwh_low, paid.energy_kwh_high)


def cost_usd(paid: Bill) -> Amount:
    """Return the cost in USD."""
    return Amount(paid.cost_usd, paid.cost_usd_low, paid.cost_usd_high)


def fitting_words(found: Forecast) -> str:
    """Return whether a setup fits, in words."""
    if fits.surely(found):
        return "fits"
    if fits.likely(found):
        return "likely fits"
    return "may not fit" if found.fits else "does not fit"


def limited_by(found: Forecast) -> str:
    """Return what limits a setup: memory where it does not fit, else what the step's time goes into."""
    return found.limited_by if found.fits else "memory"


def limit_words(found: Forecast) -> str:
    """Return what limits a setup, and what would help."""
    if found.fits:
        return f"{found.limited_by}; what would help: {_ADVICE[found.limited_by]}"
    return f"memory; on a card that held it, {found.limited_by}"


def cards_text(asked: Asked, cards: float = 0) -> str:
    """Return the machine in words."""
    n = int(cards or asked.case.n_devices)
    if n == 1:
        return asked.device.name if asked.device.name.startswith("this") else f"one {asked.device.name}"
    return f"{n:,} x {asked.device.name}"


def setting_words(asked: Asked) -> list[str]:
    """Return how it is trained, in words."""
    case, method = asked.case, METHODS[int(asked.case.method)]
    share = {value: name for name, value in CHECKPOINTING.items()}.get(case.checkpointing, "partial")
    words = [
        PRECISIONS[int(case.precision)],
        _ATTENTION_WORDS[ATTENTIONS[int(case.attention)]],
        "compiled" if KERNELS[int(case.kernels)] == "compiled" else "not compiled",
        {"adamw": "AdamW", "adamw8bit": "8-bit AdamW", "muon": "Muon", "sgd": "SGD"}[OPTIMIZERS[int(case.optimizer)]],
        {"tuned": "a program written for speed", "usual": "a usual script", "whole": "a whole production run"}[
            LOOPS[int(case.loop)]
        ],
    ]
    if method != "full":
        name = {"lora": "LoRA", "qlora": "QLoRA"}[method]
        words.insert(0, f"{name} of rank {case.lora_rank:g} on all linear layers")
    if case.checkpointing:
        words.append(f"{share} checkpointing")
    if case.n_devices > 1:
        words.append(f"ZeRO-{case.zero:g}" + (" (FSDP)" if case.zero == 3 else "") if case.zero else "DDP")
        words += [f"{name} {value:g}" for name, value in (("tp", case.tp), ("pp", case.pp)) if value > 1]
    if asked.packing < 1:
        words.append(f"{asked.packing:.0%} of the positions useful")
    return words


def what_text(asked: Asked) -> str:
    """Return what is trained, in words."""
    count = format_count(asked.shape.parameters)
    if asked.case.method:
        way = "fine-tuned"
    else:
        way = "trained on, from given weights," if asked.case.continued else "trained from scratch"
    name = asked.shape.name if count.lower() == asked.shape.name.lower() else f"{asked.shape.name} ({count} parameters)"
    return f"{name} {way} on {asked.data_text}"


def batch_text(asked: Asked, fitting: bool = True) -> str:
    """Return the batch in words."""
    case = asked.case
    automatic = asked.auto_micro_batch and fitting and not asked.device.arch.startswith("CPU")
    which = " (the largest that fits)" if automatic else ""
    steps = max(1, round(asked.tokens / asked.packing / case.global_batch_tokens))
    return (
        f"micro batch {case.micro_batch:g} x {case.seq_len:g} tokens{which}, {format_count(case.global_batch_tokens)} "
        f"tokens a step, {steps:,} step{'s' if steps > 1 else ''}"
    )


def to_text(found: Answer, width: int) -> str:
    """Return an answer as a person reads it."""
    asked, result, paid = found.asked, found.forecast, found.bill
    case = asked.case
    head = [
        what_text(asked),
        f"on {cards_text(asked)}: " + ", ".join(setting_words(asked)),
        batch_text(asked, fits.likely(result)),
    ]
    each = " a card" if case.n_devices > 1 else ""
    room = f" of {single(result.device.memory_bytes / _GIB, 'gib')}{each}" if result.device.memory_bytes > 0 else each
    rate = speed(result, asked.packing)
    lines = [
        ("speed", amount(rate.value, rate.low, rate.high, "tokens_per_s").replace(" (", " tokens/s (", 1)),
        ("time", _ranged(hours(paid), "hours")),
        ("memory", _ranged(memory_gib(result), "gib") + f"{room}: {fitting_words(result)}"),
        ("energy", _ranged(energy_kwh(paid), "kwh")),
        ("cost", _ranged(cost_usd(paid), "usd") + f", {_price_words(asked)}"),
        ("limit", limit_words(result)),
        ("of peak", f"{single(result.mfu, 'share')} of {result.device.peak_flops / 1e12:,.4g} dense TFLOPS{each}"),
        ("range", f"90 %; it is wide because {paid.width_reason}"),
        ("step is", _shares(result.parts_seconds)),
        ("memory is", _parts(result)),
        ("fixed", _fixed(paid)),
    ]
    text = "\n".join(wrapped(line, width) for line in head)
    text += "\n\n" + "\n".join(wrapped(value, width, f"  {name:<11}") for name, value in lines)
    if found.ways or not fits.likely(result):
        text += "\n\n" + ways_text(found, width)
    notes = notes_of(found)
    if notes:
        text += "\n\n" + "\n".join(wrapped(note, width, "- ") for note in notes)
    return text


def notes_of(found: Answer) -> list[str]:
    """Return remarks on an answer."""
    if not found.asked.this_machine:
        return list(found.asked.notes)
    what = "a processor" if here.is_processor(found.forecast.device) else "this card"
    guessed = here.compiling_not_timed(found.forecast)
    plain = "; what compiling gains is usual, not timed: `ltm forecast calibrate --compile`" if guessed else ""
    note = (
        f"measured: the calibration of this machine, for ltm's own training engine{plain}"
        if found.forecast.measured
        else f"usual rates of {what}, which may be far off; `ltm forecast calibrate` measures this one (for full "
        "training with AdamW, in fp32 or bf16)"
    )
    return [note, *here.unusable(), *found.asked.notes]


def ways_text(found: Answer, width: int) -> str:
    """Return what fits in place of a setting that does not."""
    if not found.ways:
        return wrapped("No setting was found that fits: take a card with more memory, or a smaller model.", width)
    lines = ["What fits instead:"]
    for way in found.ways:
        result = way.forecast
        paid, rate = bill_of(found.asked, result), speed(result, found.asked.packing)
        lines.append(
            wrapped(
                f"{way.words}: {_ranged(memory_gib(result), 'gib')}{' a card' if way.cards > 1 else ''} "
                f"({fitting_words(result)}), {single(rate.value, 'tokens_per_s')} tokens/s, "
                f"{_ranged(hours(paid), 'hours')}, {single(paid.cost_usd, 'usd')}",
                width,
                "  - ",
            )
        )
    return "\n".join(lines)


def to_document(found: Answer) -> dict[str, Any]:
    """Return an answer as plain values."""
    asked, result, paid = found.asked, found.forecast, found.bill
    return {
        "what": what_text(asked),
        "model": {"name": asked.shape.name, "parameters": asked.shape.parameters},
        "device": asked.device.name,
        "n_devices": int(asked.case.n_devices),
        "settings": settings_document(asked),
        "tokens": asked.tokens,
        "tokens_per_second": _document(speed(result, asked.packing)),
        "seconds": _document(hours(paid).times(3600)),
        "fixed_seconds": {**paid.fixed_seconds, **paid.extra_seconds},
        "peak_memory_bytes": _document(memory_gib(result).times(_GIB)),
        "memory_parts_bytes": result.memory_parts_bytes,
        "parts_seconds": result.parts_seconds,
        "energy_kwh": _document(energy_kwh(paid)),
        "cost_usd": _document(cost_usd(paid)),
        "mfu": result.mfu,
        "limited_by": limited_by(result),
        "fits": fitting_words(result),
        "width_reason": paid.width_reason,
        "range": "90 %",
        "instead": [_way_document(found, way) for way in found.ways],
        "notes": notes_of(found),
    }


def settings_document(asked: Asked) -> dict[str, Any]:
    """Return the settings as the flags write them."""
    case = asked.case
    return {
        "method": METHODS[int(case.method)],
        "precision": PRECISIONS[int(case.precision)],
        "attention": ATTENTIONS[int(case.attention)],
        "compile": case.kernels == 2,
        "checkpointing": {value: name for name, value in CHECKPOINTING.items()}.get(case.checkpointing),
        "optimizer": OPTIMIZERS[int(case.optimizer)],
        "loop": LOOPS[int(case.loop)],
        "micro_batch": int(case.micro_batch),
        "seq_len": int(case.seq_len),
        "batch_tokens": int(case.global_batch_tokens),
        "packing": asked.packing,
        "zero": int(case.zero),
        "tp": int(case.tp),
        "pp": int(case.pp),
        "gpus": int(case.n_devices),
        "lora_rank": int(case.lora_rank),
    }


def _way_document(found: Answer, way: Way) -> dict[str, Any]:
    paid = bill_of(found.asked, way.forecast)
    return {
        "change": way.words,
        "trains_all_weights": way.trains_all,
        "n_devices": way.cards,
        "peak_memory_bytes": _document(memory_gib(way.forecast).times(_GIB)),
        "tokens_per_second": _document(speed(way.forecast, found.asked.packing)),
        "seconds": _document(hours(paid).times(3600)),
        "cost_usd": _document(cost_usd(paid)),
        "fits": fitting_words(way.forecast),
    }


def _document(value: Amount) -> dict[str, float]:
    return {"value": value.value, "low": value.low, "high": value.high}


def _ranged(value: Amount, kind: str) -> str:
    return amount(value.value, value.low, value.high, kind)


def _price_words(asked: Asked) -> str:
    prices = asked.prices
    power = f"electricity at ${prices.usd_per_kwh:.2f} a kWh"
    if prices.usd_per_hour:
        return (
            f"rent at ${prices.usd_per_hour:.2f} an hour{' and card' if asked.case.n_devices > 1 else ''} and {power}"
        )
    return f"{power} alone; --usd-per-hour adds rent"


def _shares(parts: dict[str, float]) -> str:
    total = sum(parts.values())
    order = sorted(parts, key=lambda name: -parts[name])
    return ", ".join(f"{name} {parts[name] / total:.0%}" for name in order if parts[name] >= 0.01 * total)


def _parts(result: Forecast) -> str:
    parts = result.memory_parts_bytes
    order = sorted(parts, key=lambda name: -parts[name])
    return ", ".join(f"{name} {single(parts[name] / _GIB, 'gib')}" for name in order if parts[name] >= 0.05 * _GIB)


def _fixed(paid: Bill) -> str:
    every = {**paid.fixed_seconds, **paid.extra_seconds}
    words = [f"{FIXED_WORDS.get(name, name)} {single(s / 3600, 'hours')}" for name, s in every.items() if s >= 0.5]
    return f"{single(sum(every.values()) / 3600, 'hours')} (to a factor of two): {', '.join(words)}"
