"""A run of a Hugging Face model as a folder that stock transformers load: adapters become part of their matrices.

Reads: `runs/<run_id>/model/` or `adapter/` (those of `dialogue/<run_id>/` for a tuned model), the base model,
`tokens/`. Writes: into a folder that exists, what `ltm.export.hf` writes for ltm's own models. The tokenizer is loaded
from its `tokenizer.json` as it stands, which is what the run was trained with, not rebuilt by a class of its own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ltm.dialogue.template import template_of
from ltm.errors import InputError
from ltm.export.hf import tokenizer_values, write_json
from ltm.export.stored import INDEX
from ltm.model.base import CONFIG, TOKENIZER, read_base, read_config, read_json_object
from ltm.runs import queue
from ltm.runs.engines import base_model
from ltm.runs.engines.start import kept_folder, load_trained
from ltm.store import WorkFolder, write_text
from ltm.tokens import adopted
from ltm.tokens.tokenizer import Tokenizer
from ltm.tokens.tokenizer import load as load_tokenizer

GENERATION = "generation_config.json"
_OF_A_PLACE = ("auto_map", "name_or_path", "tokenizer_file", "_commit_hash", "special_tokens_map_file")


def is_foreign(work: WorkFolder, run_id: str) -> bool:
    """Return whether a run is a model of transformers, and not of ltm's own decoder."""
    return any(work.path("runs", run_id, name).is_dir() for name in (base_model.MODEL, base_model.ADAPTER))


def model_values(work: WorkFolder, run_id: str, tuned: bool) -> dict[str, Any]:
    """Return the `config.json` of what a run is, without loading its weights, if they can be loaded.

    Raises:
        StoreError: the run kept nothing.
        InputError: its base model is not there, or a package that loads it.
    """
    kept = kept_folder(work, run_id, tuned)
    if kept.name == base_model.MODEL:
        return read_config(kept)
    recipe = queue.read_jobs(work)[0]
    for package in ("transformers", "peft", *(["bitsandbytes"] if recipe.runs.method == "qlora" else [])):
        base_model.need(package)
    base = Path(str(recipe.model.base))
    read_base(base)
    return read_config(base)


def write_model(work: WorkFolder, run_id: str, folder: Path, tuned: bool) -> None:
    """Write config, weights and tokenizer of a run.

    Raises:
        StoreError: what the run kept is missing.
        InputError: its base model is not there, or a package that loads it.
    """
    kept = kept_folder(work, run_id, tuned)
    if kept.name == base_model.MODEL:
        for path in sorted(kept.iterdir()):
            if path.suffix == ".safetensors" or path.name in (CONFIG, INDEX, GENERATION):
                shutil.copyfile(path, folder / path.name)
    else:
        from ltm.runs.engines.merge import write_merged

        write_merged(load_trained(work, run_id, "cpu", tuned=tuned, exact=True), folder)
    tokenizer = load_tokenizer(work)
    _write_config(folder, tokenizer, _is_from_base(work))
    if tuned:
        _end_where_the_template_does(folder, tokenizer, template_of(work).end)
    _write_tokenizer(work, folder, tokenizer, tuned)


def base_name(work: WorkFolder) -> tuple[str, str]:
    """Return the name of the study's base model and the licence that its README names; empty where there is none."""
    base = queue.read_jobs(work)[0].model.base
    if base is None:
        return "", ""
    folder = Path(base)
    try:
        return folder.name, read_base(folder).licence
    except InputError:  # gone by now; a whole model needs it no more
        return folder.name, ""


def _is_from_base(work: WorkFolder) -> bool:
    return queue.read_jobs(work)[0].model.base is not None


def _write_config(folder: Path, tokenizer: Tokenizer, from_base: bool) -> None:
    """Let the folder's config speak to whoever generates text; a model from a shape gets the study's marks."""
    values = read_config(folder)
    values.pop("_name_or_path", None)
    values["use_cache"] = True
    if not from_base:
        values |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.bos_id}
    write_json(folder / CONFIG, values)
    if not (folder / GENERATION).is_file() or not from_base:
        marks = {key: values[key] for key in ("bos_token_id", "eos_token_id") if values.get(key) is not None}
        write_json(folder / GENERATION, {**marks, "pad_token_id": tokenizer.bos_id})


def _end_where_the_template_does(folder: Path, tokenizer: Tokenizer, end: str) -> None:
    """Let stock programs stop at the end of an answer, which may be another mark than the base model's own end."""
    if end not in tokenizer.marks:
        return
    values = read_json_object(folder / GENERATION)
    own = values.get("eos_token_id")
    ends = [tokenizer.marks[end], *(own if isinstance(own, list) else [] if own is None else [own])]
    write_json(folder / GENERATION, {**values, "eos_token_id": list(dict.fromkeys(ends))})


def _write_tokenizer(work: WorkFolder, folder: Path, tokenizer: Tokenizer, tuned: bool) -> None:
    source = work.path("tokens", TOKENIZER)
    shutil.copyfile(source, folder / TOKENIZER)
    beside = work.path("tokens", adopted.CONFIG)
    if beside.is_file():
        values: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        values = {key: value for key, value in values.items() if key not in _OF_A_PLACE}
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
        if tuned:
            values["chat_template"] = template_of(work).source
    else:
        length = queue.read_jobs(work)[0].model.shape(tokenizer.vocab_size).block_size
        values = tokenizer_values(length, template_of(work).source if tuned else "")
    write_text(folder / adopted.CONFIG, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
