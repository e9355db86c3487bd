"""How fast a model answers and what it needs: prompt, answer, cache, quantised weights, passages found in books.

Reads: `data/inference.json`, the constants of `formulas_inference`, fitted on `data/inference.csv`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from ltm.errors import ConfigError, InputError
from ltm.forecast.constants import Constants
from ltm.forecast.devices import Device
from ltm.forecast.formulas import BYTES_PER_TOKEN
from ltm.forecast.formulas_inference import inference, inference_memory
from ltm.forecast.question import TOKENS_PER_PAGE
from ltm.forecast.render import Amount, amount, single, wrapped
from ltm.forecast.shapes import Shape
from ltm.units import format_count

_GIB = 1024**3
MEMORY_RANGE = 1.08  # programs differ in buffers and in what they keep unquantised
_INDEX_SHARE = 0.6  # size of an index of words beside its text


@dataclass(frozen=True, slots=True)
class Quant:
    """A way to store weights."""

    name: str
    weight_bytes: float  # scales included
    packed: float  # 1 = unpacked on the fly


QUANTS = {
    quant.name: quant
    for quant in (
        Quant("f32", 4.0, 0.0), Quant("f16", 2.0, 0.0), Quant("bf16", 2.0, 0.0), Quant("q8", 1.0625, 1.0),
        Quant("q8_0", 1.0625, 1.0), Quant("q6_k", 0.82, 1.0), Quant("q5_k_m", 0.71, 1.0), Quant("q4", 0.606, 1.0),
        Quant("q4_k_m", 0.606, 1.0), Quant("q4_0", 0.5625, 1.0),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class InferenceCase:
    """One question to a model on one kind of device, as numbers for `formulas_inference`."""

    n_layer: float
    n_embd: float
    n_head: float
    n_kv_head: float
    head_size: float
    n_hidden: float
    vocab_size: float
    gated: float
    tied: float
    n_params: float
    weight_bytes: float
    packed: float
    context_tokens: float
    prompt_tokens: float
    answer_tokens: float
    cache_bytes: float = 2.0
    batch: float = 1.0
    n_devices: float = 1.0
    rag_passages: float = 0.0
    rag_tokens: float = 0.0  # in the library that is searched


@dataclass(frozen=True)
class Inference:
    """What an answer takes; ranges are 90 %."""

    shape: Shape
    device: Device
    case: InferenceCase
    quant: str
    memory_gib: Amount
    memory_parts_bytes: dict[str, float]
    fits: bool
    prefill_tokens_per_second: Amount  # of all answers together
    decode_tokens_per_second: Amount
    first_token_seconds: Amount
    answer_seconds: Amount
    retrieval_seconds: float
    limited_by: str  # of writing the answer
    prefill_limited_by: str
    cards_needed: int
    index_bytes: float
    index_seconds: float  # to build it, once


def inference_case(
    model: Shape, quant: Quant, context: float, prompt: float, answer: float, **more: float
) -> InferenceCase:
    """Return the case of a model with so many tokens of context, prompt and answer."""
    return InferenceCase(
        model.n_layer, model.n_embd, model.n_head, model.n_kv_head, model.head_size, model.n_hidden, model.vocab_size,
        float(model.gated), float(model.tied), float(model.n_params), quant.weight_bytes, quant.packed, context, prompt,
        answer, **more,
    )  # fmt: skip


def forecast_inference(
    model: Shape,
    card: Device,
    quant: str = "f16",
    *,
    context: int = 8192,
    prompt: int = 4096,
    answer: int = 300,
    batch: int = 1,
    n_devices: int = 1,
    rag_passages: int = 0,
    passage_tokens: int = 400,
    books: int = 0,
) -> Inference:
    """Return memory and speed of a model that answers, with its sources' passages in the prompt.

    Args:
        model: Any decoder.
        card: Each of the devices; several hold consecutive layers.
        quant: How weights are stored: a key of `QUANTS`.
        context: Tokens that the cache has room for, for each answer under way.
        prompt: Tokens read before the answer, the passages among them.
        answer: Tokens written.
        batch: Answers under way at a time.
        n_devices: How many devices.
        rag_passages: Passages found in a library for each prompt.
        passage_tokens: Tokens of one.
        books: Books of 500 pages that are searched.

    Raises:
        InputError: numbers that cannot be, all at once.
    """
    problems = _problems(quant, context, prompt, answer, batch, n_devices, rag_passages, passage_tokens, books)
    if len(problems) == 1:
        raise InputError(*problems[0])
    if problems:
        raise ConfigError([f"{message} ({hint})" for message, hint in problems])
    library = float(books * 500 * TOKENS_PER_PAGE)
    case = inference_case(
        model, QUANTS[quant], float(context), float(prompt), float(answer), batch=float(batch),
        n_devices=float(n_devices), rag_passages=float(rag_passages), rag_tokens=library,
    )  # fmt: skip
    return _answered(model, card, quant, case)


def _answered(model: Shape, card: Device, quant: str, case: InferenceCase) -> Inference:
    k = inference_constants()
    memory = {name: float(value) for name, value in inference_memory(case, k).items()}
    found = {name: float(np.asarray(value)) for name, value in inference(case, card, k).items()}
    total = memory.pop("total") / _GIB
    room = card.memory_bytes / _GIB * case.n_devices
    return Inference(
        shape=model, device=card, case=case, quant=quant,
        memory_gib=Amount(total, total / MEMORY_RANGE, total * MEMORY_RANGE),
        memory_parts_bytes=memory,
        fits=room <= 0 or total * math.sqrt(MEMORY_RANGE) <= room,
        prefill_tokens_per_second=_wide(found["prefill"], found["prefill_factor"]),
        decode_tokens_per_second=_wide(found["decode"], found["decode_factor"]),
        first_token_seconds=_wide(found["first_token_seconds"], found["prefill_factor"]),
        answer_seconds=_wide(found["answer_seconds"], found["answer_factor"]),
        retrieval_seconds=found["retrieval_seconds"],
        limited_by=_largest(found, "decode", ("bandwidth", "compute", "launch")),
        prefill_limited_by=_largest(found, "prefill", ("compute", "bandwidth")),
        cards_needed=max(1, math.ceil(total * math.sqrt(MEMORY_RANGE) / (card.memory_bytes / _GIB)))
        if card.memory_bytes > 0 else int(case.n_devices),
        index_bytes=case.rag_tokens * BYTES_PER_TOKEN * (1 + _INDEX_SHARE),
        index_seconds=case.rag_tokens * k.index_token_seconds,
    )  # fmt: skip


def _problems(
    quant: str, context: int, prompt: int, answer: int, batch: int, n_devices: int, passages: int, size: int, books: int
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if quant not in QUANTS:
        near = difflib.get_close_matches(quant, list(QUANTS), n=1, cutoff=0.0)[0]
        found.append(
            (f"--quant {quant}: there is no such way to store weights", f"nearest: {near}; {', '.join(QUANTS)}")
        )
    for name, value, least in (
        ("context", context, 1), ("prompt", prompt, 1), ("answer", answer, 1), ("batch", batch, 1),
        ("gpus", n_devices, 1), ("rag-passages", passages, 0), ("passage-tokens", size, 1), ("books", books, 0),
    ):  # fmt: skip
        if not least <= value < 10**12:
            found.append((f"--{name} is {value}", f"it must be at least {least}"))
    if min(context, prompt, answer) > 0 and prompt + answer > context:
        found.append((f"--prompt {prompt} and --answer {answer} do not fit in --context {context}",
                      f"use --context {prompt + answer}"))  # fmt: skip
    if passages > 0 and size > 0 and passages * size > prompt:
        found.append((f"{passages} passages of {size} tokens are more than --prompt {prompt}",
                      f"use --prompt {passages * size + 200} or --rag-passages {prompt // size}"))  # fmt: skip
    return found


def _wide(value: float, factor: float) -> Amount:
    return Amount(value, value / factor, value * factor)


def _largest(found: dict[str, float], stage: str, names: tuple[str, ...]) -> str:
    name = max(names, key=lambda name: found[f"{stage}_{name}"])
    return "launch overhead" if name == "launch" else name


@functools.cache
def inference_constants() -> Constants:
    """Return the shipped constants of inference."""
    text = (files("ltm.forecast") / "data" / "inference.json").read_text(encoding="utf-8")
    return Constants({name: entry["value"] for name, entry in json.loads(text).items() if isinstance(entry, dict)})


def to_text(found: Inference, width: int) -> str:
    """Return it as a person reads it."""
    case = found.case
    cards = found.device.name if case.n_devices == 1 else f"{case.n_devices:g} x {found.device.name}"
    passages = f", {case.rag_passages:g} of its passages from {_library(case)}" if case.rag_passages else ""
    head = (
        f"{found.shape.name} ({format_count(found.shape.parameters)} parameters, {found.quant}) answers on {cards}: "
        f"a prompt of {case.prompt_tokens:,.0f} tokens{passages}, an answer of {case.answer_tokens:,.0f}, "
        f"{case.batch:g} at a time, room for {case.context_tokens:,.0f} tokens each"
    )
    room = f" of {single(found.device.memory_bytes / _GIB, 'gib')}" + (" a card" if case.n_devices > 1 else "")
    lines = [
        ("memory", _ranged(found.memory_gib, "gib") + f"{room}: {'fits' if found.fits else _too_large(found)}"),
        ("reading", _ranged(found.prefill_tokens_per_second, "tokens_per_s").replace(" (", " tokens/s (", 1)
         + f", limited by {found.prefill_limited_by}"),
        ("writing", _ranged(found.decode_tokens_per_second, "tokens_per_s").replace(" (", " tokens/s (", 1)
         + f", limited by {found.limited_by}"),
        ("first word", "after " + _ranged(found.first_token_seconds.times(1 / 3600), "hours")),
        ("answer", "after " + _ranged(found.answer_seconds.times(1 / 3600), "hours")),
        ("memory is", ", ".join(f"{k} {single(size / _GIB, 'gib')}" for k, size in found.memory_parts_bytes.items())),
    ]  # fmt: skip
    if case.rag_passages:
        lines.append(("search", f"about {single(found.retrieval_seconds * 1000, '')} ms a question by words (BM25) in "
                      f"main memory; text and index {single(found.index_bytes / _GIB, 'gib')}, built once in "
                      f"{single(found.index_seconds / 3600, 'hours')} on one core"))  # fmt: skip
    lines.append(
        ("range", "90 %; it is wide because programs that run models differ, most of all on data-centre cards")
    )
    return wrapped(head, width) + "\n\n" + "\n".join(wrapped(text, width, f"  {name:<12}") for name, text in lines)


def _library(case: InferenceCase) -> str:
    books = case.rag_tokens / (500 * TOKENS_PER_PAGE)
    return f"{books:,.0f} books" if books else "a library"


def _too_large(found: Inference) -> str:
    return f"does not fit; {found.cards_needed} cards would hold it, or a smaller --quant or --context"


def _ranged(value: Amount, kind: str) -> str:
    return amount(value.value, value.low, value.high, kind)


def to_document(found: Inference) -> dict[str, Any]:
    """Return it as plain values."""
    values = {
        name: dataclasses.asdict(getattr(found, name))
        for name in (
            "memory_gib",
            "prefill_tokens_per_second",
            "decode_tokens_per_second",
            "first_token_seconds",
            "answer_seconds",
        )
    }
    return {
        "model": {"name": found.shape.name, "parameters": found.shape.parameters},
        "device": found.device.name,
        "quant": found.quant,
        "settings": dataclasses.asdict(found.case),
        **values,
        "memory_parts_bytes": found.memory_parts_bytes,
        "fits": found.fits,
        "cards_needed": found.cards_needed,
        "limited_by": found.limited_by,
        "prefill_limited_by": found.prefill_limited_by,
        "retrieval_seconds": found.retrieval_seconds,
        "index_bytes": found.index_bytes,
        "index_seconds": found.index_seconds,
        "range": "90 %",
    }
