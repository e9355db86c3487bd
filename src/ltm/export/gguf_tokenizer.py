"""A `tokenizer.json` as llama.cpp wants it: tokens and their kinds by id, merges or scores, and how texts are split.

llama.cpp has one piece of code for each way of splitting and knows it by name, so that only tokenizers whose splitting
is exactly one of those can go over; all others are refused with the reason. The names and expressions are those of
llama.cpp's own conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ltm.errors import InputError

_NORMAL, _UNKNOWN, _CONTROL, _USER, _BYTE = 1, 2, 3, 4, 6  # llama.cpp's token types
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# Expression, whether whole words are taken before merges -> llama.cpp's name
_SPLITS = {(_LLAMA_3, True): "llama-bpe", (_LLAMA_3.replace("{1,3}", ""), False): "qwen2"}
_ALIKE = "only tokenizers that split as those of GPT-2, SmolLM, Llama 3, Qwen 2 or Llama 2 can; export with --to hf"


@dataclass(frozen=True)
class Pieces:
    """What a GGUF file says of a tokenizer."""

    model: str  # llama.cpp's word for the algorithm: gpt2 (byte-level BPE) or llama (SentencePiece's)
    split: str  # its name for the way of splitting
    tokens: list[str]
    kinds: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    adds_space: bool = False  # before a text


def tokenizer_pieces(value: Mapping[str, Any], vocab_size: int) -> Pieces:
    """Return a `tokenizer.json` as llama.cpp wants it.

    Args:
        value: Its contents.
        vocab_size: Rows of the model; those that no token uses get names of their own.

    Raises:
        InputError: llama.cpp would cut texts into other tokens; says why.
    """
    model = value["model"]
    if model.get("type") != "BPE":
        raise InputError(f"the tokenizer is not a byte-level BPE but {model.get('type')}", _ALIKE)
    tokens = [f"[UNUSED{i}]" for i in range(vocab_size)]
    kinds = [_CONTROL] * vocab_size
    for token, index in model["vocab"].items():
        tokens[index], kinds[index] = token, _NORMAL
    for row in value.get("added_tokens", []):
        if row["id"] >= vocab_size:
            raise InputError(f"token {row['content']} has no row in the model", "the tokenizer belongs to another one")
        tokens[row["id"]], kinds[row["id"]] = row["content"], _CONTROL if row["special"] else _USER
    if model.get("byte_fallback"):
        return _sentence_pieces(value, tokens, kinds)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return Pieces("gpt2", _split(value), tokens, kinds, merges)


def _split(value: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for how a byte-level BPE splits texts."""
    before = value.get("pre_tokenizer") or {}
    steps = before["pretokenizers"] if before.get("type") == "Sequence" else [before]
    if not steps or any(steps[-1].get(key) != wanted for key, wanted in _BYTE_LEVEL.items()):
        shown = " + ".join(str(step.get("type")) for step in steps)
        raise InputError(f"the tokenizer is not a byte-level BPE that llama.cpp knows ({shown})", _ALIKE)
    whole_words = bool(value["model"].get("ignore_merges"))
    name = _named(steps, whole_words)
    if name is None:
        raise InputError("the tokenizer splits texts in a way that llama.cpp does not know by name", _ALIKE)
    normalizer = value.get("normalizer")
    if normalizer is not None and (name, normalizer.get("type")) != ("qwen2", "NFC"):  # a no-op for usual texts
        raise InputError("the tokenizer changes texts before it cuts them, which llama.cpp does not", _ALIKE)
    return name


def _named(steps: list[Mapping[str, Any]], whole_words: bool) -> str | None:
    own = steps[-1].get("use_regex", True)
    first = steps[0]
    if len(steps) == 1:
        return "gpt-2" if own and not whole_words else None
    if len(steps) != 2:
        return None
    if first.get("type") == "Digits":
        return "smollm" if own and first.get("individual_digits") and not whole_words else None
    pattern = (first.get("pattern") or {}).get("Regex")
    isolated = first.get("type") == "Split" and first.get("behavior") == "Isolated" and not first.get("invert")
    return _SPLITS.get((str(pattern), whole_words)) if isolated and not own else None


def _sentence_pieces(value: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> Pieces:
    """Return a BPE with bytes to fall back on as SentencePiece's, whose order of merging is that of the ids."""
    model = value["model"]
    for number in range(256):
        name = f"<0x{number:02X}>"
        if name not in model["vocab"]:
            raise InputError(f"the tokenizer has no token {name} to fall back on, which llama.cpp needs", _ALIKE)
        kinds[model["vocab"][name]] = _BYTE
    if model.get("unk_token") in model["vocab"]:
        kinds[model["vocab"][model["unk_token"]]] = _UNKNOWN
    joined = ["".join(pair if not isinstance(pair, str) else pair.split(" ", 1)) for pair in model["merges"]]
    made = [model["vocab"][token] for token in joined]
    if made != sorted(made):
        raise InputError("the tokenizer's merges are not in the order of its tokens, as llama.cpp takes them", _ALIKE)
    scores = [-float(index) if kind == _NORMAL else 0.0 for index, kind in enumerate(kinds)]
    return Pieces("llama", "default", tokens, kinds, scores=scores, adds_space=_adds_space(value))


def _adds_space(value: Mapping[str, Any]) -> bool:
    """Return whether a space is put before every text; how spaces become `▁` must be SentencePiece's way."""
    normalizer, before = value.get("normalizer"), value.get("pre_tokenizer")
    steps = [normalizer] if normalizer else []
    if normalizer and normalizer.get("type") == "Sequence":
        steps = normalizer["normalizers"]
    replaces = any(s.get("type") == "Replace" and s.get("content") == "▁" for s in steps)
    if before is None and replaces and all(s.get("type") in ("Prepend", "Replace") for s in steps):
        return any(step.get("type") == "Prepend" for step in steps)
    if not steps and before and before.get("type") == "Metaspace" and before.get("split") is False:
        return bool(before.get("prepend_scheme") in ("always", "first"))
    raise InputError("the tokenizer turns spaces into `▁` in another way than llama.cpp", _ALIKE)
