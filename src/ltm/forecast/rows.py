"""Read setups from tables in the columns of `data/throughput.csv`: published runs, or a user's own list.

Measured columns are ignored. What a row leaves open is filled with what the framework of its time would do; a row that
cannot be answered gets a reason in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ltm.errors import InputError
from ltm.forecast import row_words
from ltm.forecast.case import PRECISIONS, Case
from ltm.forecast.devices import Device, device
from ltm.forecast.row_words import Framework
from ltm.forecast.shapes import Shape, of_size, public_shape

Row = Mapping[str, str]
_USUAL_MICRO_TOKENS = 8192.0  # a usual micro batch where none is told
_USUAL_CLUSTER = 64.0  # cards of a run that does not tell how many
_NETWORKS = (
    *((word, 400e9) for word in ("H100", "H200", "H800", "GH200", "B200", "MI300", "MI325", "MI355")),
    ("Gaudi 3", 600e9),
    ("Gaudi 2", 300e9),
    ("A100", 200e9),
    ("MI250", 100e9),
    ("V100", 25e9),
)
_USUAL_NETWORK = 25e9


@dataclass(frozen=True, slots=True)
class Setup:
    """A row understood: its case, its device, and the framework that ran it ('' = unknown)."""

    case: Case
    device: Device
    framework: str
    guesses: int  # of what time depends on: shape, batch, sequence length, cards
    n_devices_told: bool


def setup(row: Row) -> Setup:
    """Return what a row describes.

    Raises:
        InputError: the model, the card or a number is missing or makes no sense.
    """
    card = device(_need(row, "gpu", "name a card"))
    known = row_words.framework(row.get("framework") or "")
    shape = _shape(row, known)
    n_devices = _devices(row)
    parallel = row_words.parallel(row.get("parallelism") or "", n_devices)
    dp = max(1.0, n_devices / (parallel["tp"] * parallel["pp"] * parallel["cp"]))
    seq_len = row_words.whole(row, "seq_len") or 2048.0
    micro, batch = _batch(row, seq_len, dp, parallel["pp"])
    method = row.get("method") or "full"
    precision, mixed = _precision(row, card, method, known)
    case = Case(
        n_layer=shape.n_layer,
        n_embd=shape.n_embd,
        n_head=shape.n_head,
        n_kv_head=shape.n_kv_head,
        head_size=shape.head_size,
        n_hidden=shape.n_hidden,
        vocab_size=shape.vocab_size,
        gated=float(shape.gated),
        tied=float(shape.tied and not known.untied),
        learned_positions=float(shape.learned_positions),
        seq_len=seq_len,
        micro_batch=micro,
        global_batch_tokens=batch,
        precision=precision,
        mixed=mixed,
        checkpointing=_checkpointing(row, method, known),
        kernels=row_words.kernels(row.get("compile") or "", known),
        n_devices=n_devices,
        devices_per_node=_per_node(card, n_devices),
        node_link=node_link(card),
        optimizer=_optimizer(row),
        loop=float(1 if known.loop == 2 and row.get("parallelism") else known.loop),
        allocated_only=float(known.prints_allocated),
        **_attention(row, known, shape),
        **parallel,
    )
    guesses = sum(not row.get(key) for key in ("n_layer", "micro_batch", "seq_len", "n_gpu"))
    return Setup(_with_method(case, row, method, known), card, known.name, guesses, bool(row.get("n_gpu")))


def node_link(card: Device) -> float:
    """Return the bytes/s of the network that usually joins machines with such cards."""
    return next((rate for word, rate in _NETWORKS if word in card.name), _USUAL_NETWORK)


def _shape(row: Row, framework: Framework) -> Shape:
    name = row.get("model_name") or ""
    if re.search(r"\bmoe\b|gpt-oss|deepseek v[23]|kimi|mixtral|\d+b-a\d+b", name.lower()):
        raise InputError(f"`{name}` is a mixture of experts", "forecasts are for dense decoders")
    known = public_shape(name)
    n_params = row_words.number(row, "params")
    if n_params and not 1e4 <= n_params <= 1e14:
        raise InputError(f"`params` is {row.get('params')}", "10k to 100T")
    if known and n_params and abs(known.parameters / n_params - 1) > 0.3:
        known = None  # the name misleads
    layers, width = row_words.whole(row, "n_layer", 10_000), row_words.whole(row, "d_model", 1e6)
    if not layers or not width:
        if known is not None:
            return known
        n_params = n_params or _params_in(name)
        if not n_params:
            raise InputError(f"the model `{name}` is unknown", "fill n_layer and d_model, or params")
        return of_size(n_params, name)
    heads = row_words.whole(row, "n_head", 1e5) or (known.n_head if known else max(1.0, width // 64))
    kv = row_words.whole(row, "n_kv_head", 1e5) or (known.n_kv_head if known else heads)
    vocab = row_words.whole(row, "vocab") or (known.vocab_size if known else 50_304.0)
    if heads % kv:
        raise InputError(f"n_kv_head {kv:g} does not divide n_head {heads:g}", "mend the row")
    head_size = known.head_size if known and known.n_embd == width and known.n_head == heads else int(width // heads)
    gated, tied = _gated(row, known), (known.tied if known else width < 2000) and not framework.untied
    usual = -(-8 * width / 3 // 64) * 64 if gated else 4 * width
    hidden = row_words.whole(row, "d_ff") or (known.n_hidden if known else usual)
    made = Shape(name, int(layers), int(width), int(heads), int(kv), head_size, int(hidden), int(vocab), gated, tied)
    if n_params and not known:  # the count tells which of two readings is right
        readings = [replace(made, gated=g, tied=t) for g in (gated, not gated) for t in (tied, not tied)]
        made = min(readings, key=lambda s: abs(s.parameters - n_params))
    return made


def _gated(row: Row, known: Shape | None) -> bool:
    if known:
        return known.gated
    name = (row.get("model_name") or "").lower()
    plain = ("gpt", "mpt", "pythia", "opt", "transformer", "bert", "phi", "falcon", "nanochat")
    if any(word in name for word in plain) and "swiglu" not in name:
        return False
    width, hidden = row_words.whole(row, "d_model", 1e6), row_words.whole(row, "d_ff")
    return not (width and hidden and abs(hidden / width - 4.0) < 0.01) or "llama" in name


def _params_in(name: str) -> float:
    match = re.search(r"(\d+(?:\.\d+)?)\s?([mb])\b", name.lower())
    return float(match[1]) * (1e6 if match[2] == "m" else 1e9) if match else 0.0


def _devices(row: Row) -> float:
    given = row_words.whole(row, "n_gpu")
    alone = (row.get("parallelism") or "").lower().strip() in ("single", "none", "1")
    return given or (1.0 if alone else _USUAL_CLUSTER)


def _per_node(card: Device, n_devices: float) -> float:
    """Return how many cards share a fast link: eight, or the whole pod of TPUs."""
    return n_devices if card.arch == "Google" else min(72.0 if "GB200" in card.name else 8.0, n_devices)


def _batch(row: Row, seq_len: float, dp: float, pp: float) -> tuple[float, float]:
    micro, batch = row_words.number(row, "micro_batch"), row_words.number(row, "global_batch_tokens")
    if not micro:
        micro = max(1.0, _USUAL_MICRO_TOKENS // seq_len)
        if batch:
            micro = max(1.0, min(micro, batch // (seq_len * dp)))
    if not batch:  # a pipeline is never run with fewer micro steps than would fill it
        batch = micro * seq_len * dp * (4 * pp if pp > 1 else 1.0)
    return micro, max(batch, micro * seq_len)


def _attention(row: Row, known: Framework, shape: Shape) -> dict[str, float]:
    """Return the code of the kernel and the sliding window (0 = none)."""
    old = (row_words.number(row, "year") or 2024) < 2023 or known.name == "megatron-deepspeed"
    code = row_words.attention(row.get("attention") or "", plain_by_default=old)
    sliding = "sliding" in (row.get("note") or "").lower() and row_words.number(row, "seq_len") > 1024
    return {"attention": code, "window": 1024.0 if sliding or code == 3 else float(shape.window)}


def _precision(row: Row, card: Device, method: str, known: Framework) -> tuple[float, float]:
    """Return the code of the precision of products, and whether fp32 master weights stand beside it."""
    text = row.get("precision") or ""
    found = row_words.precision(text)
    if not found:
        adapters_on_mac = method != "full" and card.arch == "Apple"
        slow = card.arch.startswith(("Apple", "CPU")) and not adapters_on_mac
        fast = "bf16" if card.bf16_flops >= card.fp16_flops * 0.9 and card.bf16_flops else "fp16"
        found = "fp32" if slow else fast
    if found == "bf16" and not card.bf16_flops:
        raise InputError(f"{card.name} has no bf16", "use fp16 or fp32")
    pure = known.pure or "true" in text.lower() or "pure" in (row.get("parallelism") or "").lower()
    return float(PRECISIONS.index(found)), float(found in ("fp16", "bf16", "fp8") and not pure and method == "full")


def _checkpointing(row: Row, method: str, known: Framework) -> float:
    sharded = known.name == "litgpt" and "fsdp" in (row.get("parallelism") or "").lower()
    usual = sharded or (method != "full" and known.recomputes_adapters)
    return row_words.checkpointing(row.get("activation_checkpointing") or "", usual)


def _optimizer(row: Row) -> float:
    note = (row.get("note") or "").lower()
    if "muon" in note or "muon" in (row.get("model_name") or "").lower():
        return 2.0
    if "8bit" in note or "8-bit" in note or "paged" in note:
        return 1.0
    return 3.0 if re.search(r"\bsgd\b", note) else 0.0


def _with_method(case: Case, row: Row, method: str, known: Framework) -> Case:
    if method == "full":
        return case
    if method not in ("lora", "qlora"):
        raise InputError(f"unknown method: {method}", "full, lora or qlora")
    note = (row.get("note") or "").lower()
    rank = re.search(r"rank\s?=?\s?(\d+)", note)
    return replace(
        case,
        method=1.0 if method == "lora" else 2.0,
        lora_rank=float(rank[1]) if rank else 64.0 if known.name == "peft" else 8.0,
        lora_attention=1.0 if known.adapts_all else 0.5,
        lora_mlp=float(known.adapts_all),
        lora_embeddings=float("emb" in note and "trainable" in note),
        mixed=0.0,
    )


def _need(row: Row, key: str, hint: str) -> str:
    value = (row.get(key) or "").strip()
    if not value:
        raise InputError(f"the column `{key}` is empty", hint)
    return value
