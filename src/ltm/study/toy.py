"""`recipe.toy`: the same study, small enough for a minute or two on two CPU cores, with nothing to fetch first.

Same code path: the same engine, method, schedule, layout of processes and stages. What shrinks is the library (the
King James books that come with ltm), the model (a base is made on the spot, with random weights), and the counts.
Writes: the made base, once, in the cache folder.
"""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from pathlib import Path
from typing import Any

from ltm.store import cache_folder

_BLOCK = 64
_SETS = {"books_per_set": 5, "book_tokens": 512, "epochs": 1, "passage_tokens": 64}
_MOST_VARIANTS, _MOST_PROCESSES = 6, 2
_SMALL = {"llama": "llama-0.1m", "mistral": "mistral-0.5m", "gpt2": "gpt2-0.5m"}
_SHAPE = {"n_layer": 2, "n_head": 2, "n_kv_head": 2, "n_embd": 32, "n_hidden": 64}
_VOCABULARY = 400


def wanted(data: dict[str, Any]) -> bool:
    """Return whether a study file asks to be shrunk."""
    recipe = data.get("recipe")
    return isinstance(recipe, dict) and recipe.get("toy") is True


def shrink(data: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a study made small; what is malformed is left for the checks to name."""
    small = copy.deepcopy(data)
    section = {name: small.setdefault(name, {}) for name in ("books", "sets", "tokens", "model", "runs", "evalset")}
    if not all(isinstance(value, dict) for value in section.values()):
        return data
    small["books"] = {"source": "kjv"}
    section["sets"] |= _SETS | {"count": min(_MOST_VARIANTS, _count(section["sets"].get("count")))}
    section["tokens"] |= {"vocab_size": _VOCABULARY, "sample_bytes": 100_000}
    _shrink_model(section["model"])
    _shrink_runs(section["runs"])
    section["evalset"] |= {"items_per_family": 8, "context_words": 40}
    small.pop("rounds", None)
    small.pop("budget", None)
    return small


def _count(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return _MOST_VARIANTS


def _shrink_model(model: dict[str, Any]) -> None:
    if model.get("base") is not None:
        model["base"] = str(made_base())
    family = str(model.get("size", "llama")).split("-")[0]
    model |= {"size": _SMALL.get(family, "llama-0.1m"), "block_size": _BLOCK}
    model |= _SHAPE if model.get("base") is None else {}


def _shrink_runs(runs: dict[str, Any]) -> None:
    processes = min(_MOST_PROCESSES, _count(runs.get("processes_per_run", 1)))
    runs |= {"batch_tokens": 2 * _BLOCK * processes, "micro_batch_tokens": 0, "processes_per_run": processes}
    runs |= {"workers": 1, "compile": "auto"}


def made_base() -> Path:
    """Return a small random Llama with a byte-level tokenizer, made when it is first asked for."""
    folder = cache_folder() / "toy" / "base-1"
    if (folder / "config.json").exists():
        return folder
    import torch

    from ltm.runs.engines.base_model import need

    transformers = need("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "base"
        made.mkdir()
        _write_tokenizer(made)
        transformers.logging.disable_progress_bar()
        transformers.LlamaForCausalLM(config).save_pretrained(made)
        with contextlib.suppress(OSError):  # another process made it meanwhile
            made.rename(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    from ltm.books import kjv
    from ltm.tokens.train import BOS, train_backend

    backend = train_backend([kjv.load()[0].text], 384)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
    marks = {"bos_token": BOS, "eos_token": BOS, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(marks), encoding="utf-8")
