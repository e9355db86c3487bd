"""The tokenizer of a model that others have trained, taken over as it is.

Reads: a `tokenizer.json`, and `tokenizer_config.json` beside it. Writes: both under the same names in `tokens/`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ltm.errors import InputError
from ltm.store import WorkFolder, write_text

CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"  # where newer folders keep what older ones have in the config
# What separates texts where nothing else is said, in the order of trust.
_STARTS = ("<|begin_of_text|>", "<s>", "<bos>", "<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>")


def adopt(path: Path, work: WorkFolder) -> None:
    """Copy a tokenizer into the study's folder.

    Raises:
        InputError: it is missing or damaged, or has no token that can stand before a text.
    """
    text = read(path)
    beside = path.parent / CONFIG
    config = beside.read_text(encoding="utf-8") if beside.is_file() else "{}"
    config = with_template(config, path.parent)
    if start_token(text, config) is None:
        raise InputError(
            f"{path} names no token that stands before a text", f"name one in {CONFIG} beside it as `bos_token`"
        )
    write_text(work.path("tokens", "tokenizer.json"), text)
    write_text(work.path("tokens", CONFIG), config)


def with_template(config: str, folder: Path) -> str:
    """Return the text of a tokenizer's config with its chat template in it; of several named ones the default."""
    path = folder / _TEMPLATE
    try:
        values: Any = json.loads(config)
        template = path.read_text(encoding="utf-8") if path.is_file() else values.get("chat_template")
    except (OSError, ValueError, AttributeError):
        return config
    if isinstance(template, list):
        template = next((row.get("template") for row in template if row.get("name") == "default"), None)
    if template == values.get("chat_template"):
        return config
    return json.dumps({**values, "chat_template": template}, indent=2, ensure_ascii=False) + "\n"


def read(path: Path) -> str:
    """Return the text of a `tokenizer.json`.

    Raises:
        InputError: it is missing or no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        text = path.read_text(encoding="utf-8")
        Tokenizer.from_str(text)
    except FileNotFoundError:
        raise InputError(f"there is no tokenizer {path}", "give a tokenizer.json of Hugging Face tokenizers") from None
    except Exception as error:  # tokenizers raises plain Exception for what it cannot read
        raise InputError(f"{path} is no tokenizer: {error}", "save the tokenizer again") from None
    return text


def start_token(tokenizer: str, config: str) -> str | None:
    """Return the token that stands before every text: the model's own start, else its end, else a usual one."""
    known = {str(token["content"]) for token in json.loads(tokenizer).get("added_tokens", [])}
    try:
        values: Any = json.loads(config)
    except json.JSONDecodeError:
        values = {}
    for key in ("bos_token", "eos_token"):
        named = values.get(key)
        named = named.get("content") if isinstance(named, dict) else named
        if named in known:
            return str(named)
    return next((token for token in _STARTS if token in known), None)
