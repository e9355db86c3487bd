"""The state of the page: one question as flat words and numbers, which its controls show and its link keeps.

0 stands for what is left open: the largest micro batch that fits, the usual batch, the model's own sequence length, the
card's usual network, the forecast's own power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ltm.errors import InputError
from ltm.forecast.case import ATTENTIONS, CHECKPOINTING, KERNELS, LOOPS, METHODS, OPTIMIZERS, PRECISIONS
from ltm.forecast.question import DEFAULT_MODEL, Asked, Question, ask
from ltm.forecast.shapes import Shape
from ltm.units import parse_count

State = dict[str, Any]
BOOK_PAGES = 500.0
SHARDINGS = ("none", "zero1", "zero2", "zero3")
CHOICES: dict[str, tuple[str, ...]] = {
    "data": ("tokens", "books"),
    "method": METHODS,
    "start": ("scratch", "continued"),
    "precision": PRECISIONS,
    "attention": ATTENTIONS,
    "kernels": KERNELS,
    "checkpointing": tuple(CHECKPOINTING),
    "optimizer": OPTIMIZERS,
    "loop": LOOPS,
    "sharding": SHARDINGS,
}
# Least and most of every number that may be typed; the sliders end earlier.
LIMITS: dict[str, tuple[float, float]] = {
    "tokens": (1e3, 1e15),
    "books": (1, 1e8),
    "pages": (1, 1e5),
    "epochs": (0.01, 1000),
    "packing": (0.01, 1),
    "n_devices": (1, 16384),
    "devices_per_node": (1, 72),
    "node_gbit": (0, 51200),
    "tp": (1, 64),
    "pp": (1, 128),
    "lora_rank": (1, 1024),
    "micro_batch": (0, 65536),
    "batch_tokens": (0, 1e9),
    "seq_len": (0, 1048576),
    "usd_per_hour": (0, 1000),
    "usd_per_kwh": (0, 10),
    "watts": (0, 5000),
    "claim_hours": (0, 1e9),
}
SHAPE_FIELDS = (
    "n_layer", "n_embd", "n_head", "n_kv_head", "head_size", "n_hidden", "vocab_size", "gated", "tied",
    "learned_positions", "window", "n_params", "seq_len",
)  # fmt: skip


def understood(question: Mapping[str, Any] | Question | Asked | None) -> Asked:
    """Return a question understood.

    Raises:
        InputError: it has a field that no question has, or something is wrong with it.
    """
    if isinstance(question, Asked):
        return question
    if isinstance(question, Mapping):
        known = [f.name for f in fields(Question)]
        unknown = sorted(set(question) - set(known))
        if unknown:
            raise InputError(f"a question has no field {unknown[0]!r}", f"it has {', '.join(known)}")
        question = Question(**question)
    return ask(question or Question())


def state_of(asked: Asked) -> State:
    """Return the page's state that asks the same question."""
    case, question = asked.case, asked.question
    checkpointing = {value: name for name, value in CHECKPOINTING.items()}[case.checkpointing]
    in_books = question.books is not None
    return {
        "model": str(question.model or DEFAULT_MODEL).lower(),
        "data": "books" if in_books else "tokens",
        "tokens": asked.distinct_tokens,
        "books": float(parse_count(question.books or 100)),
        "pages": float(parse_count(question.pages or BOOK_PAGES)),
        "epochs": asked.tokens / asked.distinct_tokens,
        "packing": asked.packing,
        "gpu": asked.device.name,
        "n_devices": case.n_devices,
        "devices_per_node": 8.0 if question.gpus_per_node is None else case.devices_per_node,
        "node_gbit": 0.0,
        "tp": case.tp,
        "pp": case.pp,
        "sharding": SHARDINGS[int(case.zero)],
        "method": METHODS[int(case.method)],
        "lora_rank": case.lora_rank or 16.0,
        "start": "continued" if case.continued else "scratch",
        "precision": PRECISIONS[int(case.precision)],
        "attention": ATTENTIONS[int(case.attention)],
        "kernels": KERNELS[int(case.kernels)],
        "checkpointing": checkpointing,
        "optimizer": OPTIMIZERS[int(case.optimizer)],
        "loop": LOOPS[int(case.loop)],
        "micro_batch": 0.0 if asked.auto_micro_batch else case.micro_batch,
        "batch_tokens": 0.0 if question.batch_tokens is None else case.global_batch_tokens,
        "seq_len": 0.0 if question.seq_len is None else case.seq_len,
        "usd_per_hour": asked.prices.usd_per_hour,
        "usd_per_kwh": asked.prices.usd_per_kwh,
        "watts": asked.prices.watts or 0.0,
        "claim_hours": 0.0,
    }


def shape_numbers(found: Shape) -> dict[str, float]:
    """Return the numbers of a shape that a case takes."""
    return {name: float(getattr(found, name)) for name in SHAPE_FIELDS}
