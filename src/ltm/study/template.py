"""A new study file, commented, with the line that lets editors complete and check it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ltm.errors import InputError
from ltm.store import write_text
from ltm.study.settings import NAME_PATTERN, StudySettings

_TEXT = """\
# yaml-language-server: $schema={schema}
# One file is one question. Every key and its default: `ltm schema`.
name: "{name}"
question: Which books, orders and gaps make a small model better at linking, transfer and synthesis?
seed: 1

books:
  source: kjv            # the 66 books inside ltm; for your own: path: DIR (txt, md, html, epub, fb2, zip)

sets:
  count: 96              # variants; each is trained once, those that measure the noise twice
  books_per_set: 20
  book_tokens: 5k        # tokens that each book gives

tokens:
  vocab_size: 1024

model:
  size: llama-0.2m       # 0.1m to 7b; also gpt2-... and mistral-...

runs:
  batch_tokens: 512      # tokens per step; the model reads 128 at a time

evalset:
  context_words: 70      # questions must fit the model's context

budget:                  # `ltm plan` holds the forecast against it, `ltm run` stops cleanly when it is reached
  hours: 24              # also: usd, kwh, disk (20GB)

# next:  ltm check {file}     everything wrong at once
#        ltm plan {file}      time, disk, memory, money - and what the study can find out
#        ltm run {file}       start, or go on
"""


def write_template(name: str) -> Path:
    """Write `NAME.yaml` and its schema in the current directory.

    Raises:
        InputError: the file exists, or the name cannot name a study.
    """
    stem = name.removesuffix(".yaml")
    path = Path(f"{stem}.yaml")
    if path.exists():
        raise InputError(f"{path} exists already", "choose another name: ltm init NAME")
    if not re.fullmatch(NAME_PATTERN, stem):
        raise InputError(f"`{name}` cannot name a study", "use Latin letters, digits, -, _ and .")
    schema = Path(".ltm-schema.json")
    write_text(schema, json.dumps(StudySettings.model_json_schema(), indent=1) + "\n")
    write_text(path, _TEXT.format(name=stem, file=path.name, schema=schema.name))
    return path
