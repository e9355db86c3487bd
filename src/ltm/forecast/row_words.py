"""What people write in tables of runs: frameworks, precisions, attention, sharding - in many spellings - as codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ltm.errors import InputError
from ltm.forecast.case import CHECKPOINTING

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


@dataclass(frozen=True, slots=True)
class Framework:
    """A program that trains: what it does where a row is silent."""

    name: str  # '' = unknown
    kernels: int = 0  # plain, hand-fused, compiled
    loop: int = 0  # usual, tuned, whole production runs
    prints_allocated: bool = False  # its memory is what it allocates, not what the driver shows
    pure: bool = False  # weights in 16 bits without fp32 copies
    recomputes_adapters: bool = True  # checkpointing is on with LoRA unless said otherwise
    adapts_all: bool = False  # LoRA on every linear layer
    untied: bool = False  # keeps input and output embeddings apart


# The first whose word occurs in the text; frameworks of one family share a name, and so what was learned of it.
_FRAMEWORKS: tuple[tuple[str, Framework], ...] = (
    ("llm-foundry", Framework("llm-foundry", 1, 1)),
    ("megatron", Framework("megatron-deepspeed", 1, 1)),
    ("languini", Framework("languini")),
    ("thunder", Framework("litgpt + thunder", 0, 1, True, True, False, untied=True)),
    ("litgpt", Framework("litgpt", 0, 0, True, True, False, untied=True)),
    ("automodel", Framework("nemo automodel", 1, 1)),
    ("nemo", Framework("nemo", 1, 1)),
    ("nanochat", Framework("nanochat", 0, 1, True)),
    ("parameter-golf", Framework("parameter-golf", 0, 1, True)),
    ("modded", Framework("modded-nanogpt", 0, 1, True)),
    ("maxtext", Framework("maxtext", 2, 1)),
    ("t5x", Framework("jax", 2, 1)),
    ("easylm", Framework("jax", 2, 1)),
    ("levanter", Framework("jax", 2, 1)),
    ("jax", Framework("jax", 2, 1)),
    ("neox", Framework("gpt-neox", 1, 2)),
    ("mlx", Framework("mlx", 1, 1, recomputes_adapters=False)),
    ("unsloth", Framework("unsloth", 1, 1, adapts_all=True)),
    ("llm.c", Framework("llm.c", 2, 1)),
    ("nanotron", Framework("nanotron", 1, 2)),
    ("meta internal", Framework("meta internal", 1, 2)),
    ("torchtitan", Framework("torchtitan", 0, 1, True)),
    ("olmo", Framework("olmo", 0, 1)),
    ("colossal", Framework("colossal-ai", 1, 1)),
    ("autoresearch", Framework("autoresearch", 0, 0, True)),
    ("nanogpt", Framework("nanogpt", 0, 1, True)),
    ("axolotl", Framework("axolotl", adapts_all=True)),
    ("torchtune", Framework("torchtune", 0, 0, True, True)),
    ("peft", Framework("peft", adapts_all=True)),
    ("mps", Framework("mps")),
    ("factory", Framework("hf")),
    ("hugging", Framework("hf")),
    ("transformers", Framework("hf")),
    ("trl", Framework("hf")),
    ("hf", Framework("hf")),
    ("deepspeed", Framework("deepspeed")),
    ("lightning", Framework("lightning")),
)


def framework(text: str) -> Framework:
    """Return what is known of a framework by its name."""
    plain = text.lower()
    for word, found in _FRAMEWORKS:
        if word in plain:
            return found
    return Framework(plain.split("(")[0].strip())


def number(row: Mapping[str, str], key: str) -> float:
    """Return a number of a row, 0 where it is not told; `8,388,608`, `0.5M`, `2k` and `8 GPUs` are understood.

    Raises:
        InputError: it is no number, or not above 0.
    """
    text = (row.get(key) or "").strip()
    if not text:
        return 0.0
    match = re.fullmatch(
        r"([+-]?[\d,_]*\.?\d+(?:e[+-]?\d+)?)\s?([kmbgt]?)(?:\s?(?:gpus?|tokens?|cards?|gi?b|b))?", text.lower()
    )
    if match is None:
        raise InputError(f"`{key}` is not a number: {text}", "leave it empty if unknown")
    value = float(match[1].replace(",", "").replace("_", "")) * _UNITS[match[2]]
    if not 0 < value < 1e18:
        raise InputError(f"`{key}` is {text}", "it must be above 0; leave it empty if unknown")
    return value


def whole(row: Mapping[str, str], key: str, most: float = 1e7) -> float:
    """Return a whole number of a row, 0 where it is not told.

    Raises:
        InputError: it is a fraction or absurdly large.
    """
    value = number(row, key)
    if value != int(value) or value > most:
        raise InputError(f"`{key}` is {row.get(key)}", f"it must be a whole number up to {most:,.0f}")
    return value


def parallel(text: str, n_devices: float) -> dict[str, float]:
    """Return degrees and ZeRO stage from words such as `TP4 DP8 PP2`, `HSDP`, `DeepSpeed ZeRO stage 3`.

    Raises:
        InputError: it needs other cards than there are, or something that is not modelled.
    """
    plain = text.lower()
    if re.search(r"offload|streamed|\bep[ :=_-]?\d*[2-9]", plain):
        raise InputError(f"`{text}`: offloading and expert parallelism are not forecast", "leave the row out")

    def degree(letters: str) -> float:
        match = re.search(rf"(?<![a-z])(?:{letters})[ :=_-]*(\d+)(?!\d)", plain)
        return float(match[1]) if match else 1.0

    found = {
        "tp": degree("tp|tensor[_ -]?(?:model[_ -])?parallel(?:[_ -]?size)?"),
        "pp": degree("pp|pipeline[_ -]?(?:model[_ -])?parallel(?:[_ -]?size)?"),
        "cp": degree("cp|sp|context[_ -]?parallel(?:[_ -]?size)?"),
        "interleave": degree("vp"),
        "zero": _zero(plain, n_devices),
    }
    used = found["tp"] * found["pp"] * found["cp"]
    if used > n_devices or degree("dp") * used > n_devices:
        raise InputError(f"{text} needs more than {n_devices:g} cards", "mend n_gpu or parallelism")
    return found


def _zero(plain: str, n_devices: float) -> float:
    stage = re.search(r"(?:zero|stage)[ :=_-]*(?:stage[ :=_-]*)?([0-3])(?!\d)", plain)
    if "shard_grad_op" in plain:
        return 2.0
    if stage:
        return float(stage[1])
    if "fsdp" in plain or "hsdp" in plain or "hybrid_shard" in plain or (not plain and n_devices > 1):
        return 3.0
    return 1.0 if "sharded optimizer" in plain or "distributed optimizer" in plain else 0.0


def attention(text: str, plain_by_default: bool) -> float:
    """Return the code of the attention kernel."""
    words = text.lower()
    if not words:
        return 0.0 if plain_by_default else 1.0
    if re.search(r"flash.?(attention)?.?3|fa3|\(te\)|cudnn|transformer engine", words):
        return 2.0
    if "flex" in words:
        return 3.0
    slow = ("eager", "none", "math", "unknown", "vanilla", "naive", "standard", "manual", "plain", "torch", "no")
    return 0.0 if any(re.search(rf"\b{word}\b", words) for word in slow) and "flash" not in words else 1.0


def checkpointing(text: str, by_default: bool) -> float:
    """Return the share of the forward pass that is computed again."""
    words = text.lower()
    if not words:
        return float(by_default)
    if words in ("none", "no", "false", "off", "0", "disabled"):
        return 0.0
    partial = "select" in words or "sac" in words.split() or "partial" in words
    return CHECKPOINTING["selective"] if partial else 1.0


def kernels(text: str, known: Framework) -> float:
    """Return 0 plain, 1 hand-fused, 2 compiled."""
    words = text.lower()
    compiled = ("yes", "true", "xla", "thunder", "compile", "inductor", "reduce-overhead", "max-autotune", "jit", "1")
    if not words.startswith("no") and any(word in words for word in compiled):
        return 2.0
    return 1.0 if "unsloth" in words else float(known.kernels)


def precision(text: str) -> str:
    """Return fp32, tf32, fp16, bf16 or fp8; '' where nothing is told.

    Raises:
        InputError: it is none of them.
    """
    words = text.lower()
    if not words:
        return ""
    for found, pattern in (
        ("bf16", r"bf16.*fp8 head"),
        ("fp8", r"fp8|float8|e4m3|mxfp8"),
        ("bf16", r"bf16|bfloat16"),
        ("fp16", r"fp16|float16|half|\b16\b|16-mixed"),
        ("fp16", r"amp.*tf32"),
        ("tf32", r"tf32"),
        ("fp32", r"fp32|float32|single|full|\b32\b"),
        ("bf16", r"\bamp\b|mixed"),
        ("bf16", r"nf4|int8|int4|bnb|4-?bit|8-?bit"),  # of the frozen weights; products run in 16 bits
    ):
        if re.search(pattern, words):
            return found
    raise InputError(f"`precision` is not understood: {text}", "fp32, tf32, fp16, bf16 or fp8")
