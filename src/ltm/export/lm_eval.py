"""A bank of items as a task folder for lm-evaluation-harness: scores checked by a tool that nobody here wrote.

Reads: `evalset/bank_a.parquet` (Item), `tokens/tokenizer.json`. Writes: a folder with a task per family (YAML and
JSONL), a group of all, `ltm_task.py` and a README with the command. The harness turns context and continuation into
tokens together, ltm apart: items where that differs are left out and counted, as are those that the block size cuts
(the harness would cut the start mark off first) and those that ask for more than log-probabilities.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ltm.errors import InputError
from ltm.evalset.bank import read_bank
from ltm.export.hf import whole_folder
from ltm.records import Item
from ltm.runs.queue import read_jobs
from ltm.scores.measures import has_neutral
from ltm.scores.rules import WITHOUT_LOGPROBS
from ltm.store import WorkFolder, write_text
from ltm.tokens.tokenizer import Tokenizer, load

GROUP = "ltm"


def export_tasks(work: WorkFolder, folder: Path, bank: str = "a", block_size: int | None = None) -> dict[str, Any]:
    """Write a bank as a task folder; returns the tasks with their items, and what was left out and why.

    Args:
        work: The study's work folder.
        folder: To be made.
        bank: a or b.
        block_size: Of the models that will be asked; None = of the study's runs, which must have been laid out.

    Raises:
        InputError: the folder exists, or no item can be asked by the harness.
        StoreError: the bank or the tokenizer is missing or damaged, or the folder cannot be written.
    """
    items = read_bank(work, bank)
    tokenizer = load(work)
    if block_size is None:
        block_size = read_jobs(work)[0].model.shape(tokenizer.vocab_size).block_size
    chosen, left_out = select(items, tokenizer, block_size)
    if not chosen:
        raise InputError(
            f"none of the {len(items)} items can be asked by lm-evaluation-harness: {dict(left_out)}",
            "build the eval set with shorter items: --set evalset.context_words=...",
        )
    families: dict[str, list[Item]] = {}
    for item in chosen:
        families.setdefault(_task_name(item), []).append(item)
    with whole_folder(folder) as temporary:
        for name, own in families.items():
            write_text(temporary / f"{name}.jsonl", "".join(f"{_line(item)}\n" for item in own))
            write_text(temporary / f"{name}.yaml", _task(name, own[0]))
        write_text(temporary / "_group.yaml", _group(list(families)))
        write_text(temporary / "ltm_task.py", (files("ltm") / "data" / "lm_eval" / "ltm_task.py").read_text("utf-8"))
        write_text(temporary / "README.md", _readme(folder.name, block_size, left_out))
    return {
        "folder": str(folder),
        "tasks": {name: len(own) for name, own in families.items()},
        "left_out": dict(left_out),
        "command": _command(folder.name),
    }


def select(items: Sequence[Item], tokenizer: Tokenizer, block_size: int) -> tuple[list[Item], Counter[str]]:
    """Return the items that the harness turns into the same tokens as ltm, and how many were left out by reason."""
    chosen, left_out = [], Counter[str]()
    known: dict[str, list[int]] = {}

    def tokens_of(text: str) -> list[int]:
        if text not in known:
            known[text] = tokenizer.encode(text)
        return known[text]

    for item in items:
        pairs = list(zip(item.contexts, item.continuations, strict=True))
        if item.rule in WITHOUT_LOGPROBS:
            left_out["asks for more than log-probabilities"] += 1
        elif any(len(tokens_of(context)) + len(tokens_of(text)) > block_size for context, text in pairs):
            left_out["longer than the block size"] += 1
        elif any(
            context
            and (context != context.rstrip() or tokens_of(context + text) != tokens_of(context) + tokens_of(text))
            for context, text in pairs
        ):
            left_out["other tokens when context and continuation are joined"] += 1
        else:
            chosen.append(item)
    return chosen, left_out


def _task_name(item: Item) -> str:
    plain = "".join(letter if letter.isalnum() else "_" for letter in f"{item.family}_{item.control}".strip("_"))
    return f"{GROUP}_{plain}".lower()


def _line(item: Item) -> str:
    value = {
        "id": item.item_id,
        "rule": item.rule,
        "gold": item.gold,
        "neutral": has_neutral(item),
        "cluster": item.cluster,
        "contexts": item.contexts,
        "continuations": item.continuations,
    }
    return json.dumps(value, ensure_ascii=False)


def _task(name: str, first: Item) -> str:
    lines = [
        f"task: {name}",
        "class: !function ltm_task.LtmTask",
        f"dataset_path: json # {name}.jsonl, which the class reads",
        "output_type: multiple_choice",
        "test_split: test",
        "num_fewshot: 0",
        f"metadata: {{version: 1, ability: {first.ability}, family: {first.family}, rule: {first.rule}}}",
    ]
    return "\n".join(lines) + "\n"


def _group(names: Sequence[str]) -> str:
    return f"group: {GROUP}\ntask:\n" + "".join(f"  - {name}\n" for name in names)


def _command(folder: str) -> str:
    return (
        f"lm_eval --model hf --model_args pretrained=MODEL,add_bos_token=True,dtype=float32 --include_path {folder} "
        f"--tasks {GROUP} --batch_size 16 --log_samples --output_path results"
    )


def _readme(folder: str, block_size: int, left_out: Counter[str]) -> str:
    lines = [
        "# Items of ltm for lm-evaluation-harness",
        "",
        "MODEL is a folder that `ltm export STUDY RUN` wrote. Works offline (`HF_HUB_OFFLINE=1`).",
        "",
        f"    {_command(folder)}",
        "",
        "`add_bos_token=True` matters: the models have seen a start mark before every text.",
        f"They read {block_size} tokens. Where two options are nearly tied, float32 may decide either way.",
    ]
    if left_out:
        lines += ["", "Left out, because the harness would ask something else:", ""]
        lines += [f"- {count} items: {reason}" for reason, count in sorted(left_out.items())]
    return "\n".join(lines) + "\n"
