"""Read setups from tables in the columns of `data/throughput.csv`: published runs, or a user's own list.

Measured columns are ignored. What a row leaves open is filled with what the framework of its time would do; a row that
cannot be answered gets a reason in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ltm.errors import InputError
from ltm.forecast.case import CHECKPOINTING, Case
from ltm.forecast.devices import Device, device
from ltm.forecast.shapes import Shape, of_size, public_shape

Row = Mapping[str, str]
_USUAL_MICRO_TOKENS = 8192.0  # a usual micro batch where none is told
_NETWORKS = (("H100", 400e9), ("H200", 400e9), ("B200", 400e9), ("A100", 200e9), ("V100", 25e9))
_USUAL_NETWORK = 25e9
# Frameworks that bring kernels of their own, whatever the row says of compiling.
_FUSED = (
    "llm-foundry",
    "megatron-deepspeed",
    "nemo",
    "nemo automodel",
    "gpt-neox",
    "meta internal",
    "nanotron",
    "unsloth",
    "mlx",
)
_TUNED = (
    "llm-foundry",
    "megatron-deepspeed",
    "nemo",
    "nemo automodel",
    "nanochat",
    "modded-nanogpt",
    "parameter-golf",
    "llm.c",
    "maxtext",
    "levanter",
    "torchtitan",
    "unsloth",
    "nanogpt",
    "mlx",
    "olmo",
    "litgpt + thunder",
)
_PRINT_ALLOCATED = (
    "litgpt",
    "litgpt + thunder",
    "nanochat",
    "nanogpt",
    "modded-nanogpt",
    "parameter-golf",
    "torchtitan",
    "autoresearch",
)
_COMPILED = ("llm.c", "maxtext", "levanter")


@dataclass(frozen=True, slots=True)
class Setup:
    """A row understood: its case, its device, and the framework that ran it ('' = unknown)."""

    case: Case
    device: Device
    framework: str
    guesses: int  # of what time depends on: shape, batch, sequence length, cards


def setup(row: Row) -> Setup:
    """Return what a row describes.

    Raises:
        InputError: the model, the card or a number is missing or makes no sense.
    """
    card = device(_need(row, "gpu", "name a card"))
    shape = _shape(row)
    n_devices, known = _devices(row)
    parallel = _parallel(row, n_devices)
    framework = framework_of(row)
    dp = max(1.0, n_devices / (parallel["tp"] * parallel["pp"] * parallel["cp"]))
    seq_len = _number(row, "seq_len") or 2048.0
    micro, batch = _batch(row, seq_len, dp)
    window, attention = _attention(row, framework)
    method = row.get("method") or "full"
    precision, mixed = _precision(row, card, method, framework)
    case = Case(
        n_layer=shape.n_layer,
        n_embd=shape.n_embd,
        n_head=shape.n_head,
        n_kv_head=shape.n_kv_head,
        head_size=shape.head_size,
        n_hidden=shape.n_hidden,
        vocab_size=shape.vocab_size,
        gated=float(shape.gated),
        tied=float(shape.tied),
        learned_positions=float(shape.learned_positions),
        window=float(window or shape.window),
        seq_len=seq_len,
        micro_batch=micro,
        global_batch_tokens=batch,
        precision=precision,
        mixed=mixed,
        attention=attention,
        checkpointing=_checkpointing(row, method, framework),
        kernels=_kernels(row, framework),
        n_devices=n_devices,
        devices_per_node=min(8.0, n_devices),
        node_link=node_link(card),
        optimizer=_optimizer(row),
        loop=_loop(row, framework),
        allocated_only=float(framework in _PRINT_ALLOCATED),
        **parallel,
    )
    guesses = sum(not _number(row, key) for key in ("n_layer", "micro_batch", "seq_len")) + (not known)
    return Setup(_with_method(case, row, method, framework), card, framework, guesses)


def node_link(card: Device) -> float:
    """Return the bytes/s of the network that usually joins machines with such cards."""
    return next((rate for word, rate in _NETWORKS if word in card.name), _USUAL_NETWORK)


def framework_of(row: Row) -> str:
    """Return a short name of the framework: the unit within which speed settings are shared."""
    text = (row.get("framework") or "").lower()
    for word in ("llm-foundry", "megatron-deepspeed", "languini", "litgpt + thunder", "litgpt", "nemo automodel",
                 "nemo",
                 "nanochat", "parameter-golf", "modded-nanogpt", "maxtext", "gpt-neox", "mlx", "unsloth", "llm.c",
                 "nanotron", "streamft", "meta internal", "levanter", "torchtitan", "olmo", "autoresearch", "nanogpt",
                 "axolotl", "deepspeed", "mps", "peft", "hf", "trl", "lightning"):  # fmt: skip
        if word in text:
            return word
    return text.split("(")[0].strip()


def _shape(row: Row) -> Shape:
    name = row.get("model_name") or ""
    if re.search(r"\bmoe\b|gpt-oss|deepseek v[23]|kimi|mixtral|\d+b-a\d+b", name.lower()):
        raise InputError(f"`{name}` is a mixture of experts", "forecasts are for dense decoders")
    if "streamed" in (row.get("parallelism") or ""):
        raise InputError("weights that stay on disk or in host memory are not forecast", "leave the row out")
    known = public_shape(name)
    n_params = _number(row, "params")
    layers, width = _number(row, "n_layer"), _number(row, "d_model")
    if not layers or not width:
        if known is not None:
            return known
        n_params = n_params or _params_in(name)
        if not n_params:
            raise InputError(f"the model `{name}` is unknown", "fill n_layer and d_model, or params")
        return of_size(n_params, name)
    heads = _number(row, "n_head") or (known.n_head if known else max(1.0, width // 64))
    kv = _number(row, "n_kv_head") or (known.n_kv_head if known else heads)
    vocab = _number(row, "vocab") or (known.vocab_size if known else 50_304.0)
    if heads % kv:
        raise InputError(f"n_kv_head {kv:g} does not divide n_head {heads:g}", "mend the row")
    head_size = known.head_size if known and known.n_embd == width and known.n_head == heads else int(width // heads)
    gated, tied = _gated(row, known), (known.tied if known else width < 2000)
    usual = -(-8 * width / 3 // 64) * 64 if gated else 4 * width
    hidden = _number(row, "d_ff") or (known.n_hidden if known else usual)
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
    width, hidden = _number(row, "d_model"), _number(row, "d_ff")
    return not (width and hidden and abs(hidden / width - 4.0) < 0.01) or "llama" in name


def _params_in(name: str) -> float:
    match = re.search(r"(\d+(?:\.\d+)?)\s?([mb])\b", name.lower())
    return float(match[1]) * (1e6 if match[2] == "m" else 1e9) if match else 0.0


def _devices(row: Row) -> tuple[float, bool]:
    given = _number(row, "n_gpu")
    if given:
        return given, True
    return (
        1.0 if (row.get("parallelism") or "").lower() in ("single", "") and _number(row, "year") < 2000 else 64.0
    ), False


def _parallel(row: Row, n_devices: float) -> dict[str, float]:
    text = (row.get("parallelism") or "").lower()

    def degree(letters: str) -> float:
        match = re.search(rf"\b{letters}\s?=?\s?(\d+)\b", text)
        return float(match[1]) if match else 1.0

    found = {"tp": degree("tp"), "pp": degree("pp"), "cp": degree("cp"), "interleave": degree("vp"), "zero": 0.0}
    if found["tp"] * found["pp"] * found["cp"] > n_devices:
        raise InputError(f"{row.get('parallelism')} needs more than {n_devices:g} cards", "mend n_gpu or parallelism")
    if "shard_grad_op" in text or re.search(r"zero-?\s?2", text):
        found["zero"] = 2.0
    elif "fsdp" in text or re.search(r"zero-?\s?3", text) or (not text and n_devices > 1):
        found["zero"] = 3.0
    elif re.search(r"zero-?\s?1", text) or "sharded optimizer" in text or "distributed optimizer" in text:
        found["zero"] = 1.0
    return found


def _batch(row: Row, seq_len: float, dp: float) -> tuple[float, float]:
    micro, batch = _number(row, "micro_batch"), _number(row, "global_batch_tokens")
    if not micro:
        micro = max(1.0, _USUAL_MICRO_TOKENS // seq_len)
        if batch:
            micro = max(1.0, min(micro, batch // (seq_len * dp)))
    return micro, max(batch, micro * seq_len) if batch else micro * seq_len * dp


def _attention(row: Row, framework: str) -> tuple[float, float]:
    """Return the sliding window that the row tells of (0 = none), and the code of the kernel."""
    text = (row.get("attention") or "").lower()
    note = (row.get("note") or "").lower()
    window = 1024.0 if "sliding" in note and (_number(row, "seq_len") or 0) > 1024 else 0.0
    if "flash3" in text or "fa3" in text or "(te)" in text or "cudnn" in text:
        return window, 2.0
    if "flex" in text:
        return 1024.0, 3.0
    if text and text not in ("eager", "none", "math", "unknown"):
        return window, 1.0
    if text:
        return window, 0.0
    old = (_number(row, "year") or 2024) < 2023 or framework in ("megatron-deepspeed",)
    return window, 0.0 if old else 1.0


def _precision(row: Row, card: Device, method: str, framework: str) -> tuple[float, float]:
    """Return the code of the precision of products, and whether fp32 master weights stand beside it."""
    text = (row.get("precision") or "").lower()
    pure = (
        framework.startswith("litgpt")
        or "true" in text
        or "pure" in (row.get("parallelism") or "").lower()
        or method != "full"
    )
    if "fp8" in text and "head" not in text:
        return 4.0, 1.0
    if "bf16" in text:
        if not card.bf16_flops and "fp16" not in text:
            raise InputError(f"{card.name} has no bf16", "use fp16 or fp32")
        return 3.0, float(not pure)
    if "fp16" in text or "half" in text:
        return 2.0, float(not pure)
    if "tf32" in text and "amp" not in text:
        return 1.0, 0.0
    if "fp32" in text or "float32" in text or (not text and card.arch.startswith(("Apple", "CPU"))):
        return 0.0, 0.0
    return (3.0 if card.bf16_flops >= card.fp16_flops * 0.9 and card.bf16_flops else 2.0), float(not pure)


def _checkpointing(row: Row, method: str, framework: str) -> float:
    text = (row.get("activation_checkpointing") or "").lower()
    if not text:  # what these trainers do unless told otherwise
        adapters_by_default = method != "full" and framework in ("hf", "peft", "unsloth", "axolotl")
        return float(
            adapters_by_default or (framework == "litgpt" and "fsdp" in (row.get("parallelism") or "").lower())
        )
    if "select" in text:
        return CHECKPOINTING["selective"]
    return float(text in ("yes", "true", "full", "on", "gradient"))


def _kernels(row: Row, framework: str) -> float:
    """Return 0 plain, 1 hand-fused, 2 compiled."""
    text = (row.get("compile") or "").lower()
    words = ("yes", "true", "xla", "thunder", "compile", "inductor")
    if (any(word in text for word in words) and not text.startswith("no")) or framework in _COMPILED:
        return 2.0
    return 1.0 if framework in _FUSED or "unsloth" in text else 0.0


def _loop(row: Row, framework: str) -> float:
    """Return 0 usual, 1 written for speed, 2 a whole production run (rates derived from its hours)."""
    if framework in _TUNED:
        return 1.0
    return 2.0 if not row.get("parallelism") and framework in ("gpt-neox", "meta internal", "nanotron") else 0.0


def _optimizer(row: Row) -> float:
    note = (row.get("note") or "").lower()
    if "muon" in note or "muon" in (row.get("model_name") or "").lower():
        return 2.0
    if "8bit" in note or "8-bit" in note or "paged" in note:
        return 1.0
    return 3.0 if re.search(r"\bsgd\b", note) else 0.0


def _with_method(case: Case, row: Row, method: str, framework: str) -> Case:
    if method == "full":
        return case
    if method not in ("lora", "qlora"):
        raise InputError(f"unknown method: {method}", "full, lora or qlora")
    note = (row.get("note") or "").lower()
    rank = re.search(r"rank\s?=?\s?(\d+)", note)
    every = framework in ("unsloth", "peft", "axolotl")
    return replace(
        case,
        method=1.0 if method == "lora" else 2.0,
        lora_rank=float(rank[1]) if rank else 64.0 if framework == "peft" else 8.0,
        lora_attention=1.0 if every else 0.5,
        lora_mlp=1.0 if every else 0.0,
        lora_embeddings=float("emb" in note and "trainable" in note),
        mixed=0.0,
    )


def _need(row: Row, key: str, hint: str) -> str:
    value = (row.get(key) or "").strip()
    if not value:
        raise InputError(f"the column `{key}` is empty", hint)
    return value


def _number(row: Row, key: str) -> float:
    text = (row.get(key) or "").strip()
    if not text:
        return 0.0
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"`{key}` is not a number: {text}", "leave it empty if unknown") from error
    if not 0 <= value < 1e18:
        raise InputError(f"`{key}` is {text}", "it must be above 0")
    return value
