"""The README of an exported run: which study, which books by title, which scores, how to load it.

Reads: `runs/<run_id>/run.json` (Run), `sets/variants.parquet` (Variant), `books/catalogue.parquet` (Book) and, if it
is there, `scores/measures.parquet` (Measure). Titles only: no author's text, no path and no machine's name leaves the
work folder.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ltm.books.catalogue import read_catalogue
from ltm.export.shapes import ARCHITECTURES
from ltm.model.sizes import ModelConfig
from ltm.records import Book, Measure, Run, Variant
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, read_json, read_rows

_JOINERS = "\u200c\u200d"  # invisible, but part of how Persian, Hindi and emoji are spelled
_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>#|!~$&"})


@dataclass(frozen=True)
class Origin:
    """What a run began from."""

    base: str = ""  # the base model by its name alone; empty = random weights
    licence: str = ""  # of the base model, as its README names it
    method: str = "full"


def write_card(
    work: WorkFolder,
    run: Run,
    config: ModelConfig,
    study: str,
    question: str,
    origin: Origin | None = None,
    tuned: bool = False,
) -> str:
    """Return the README of one run in Markdown.

    Args:
        work: The study's work folder.
        run: The run.
        config: Its shape.
        study: The study's name.
        question: What the study asks.
        origin: What it began from; None = random weights.
        tuned: Whether it is what the dialogue layer made of it.

    Raises:
        StoreError: the catalogue or the design is missing or damaged.
    """
    origin = origin or Origin()
    head = _base_head(run, origin, study, question) if origin.base else _head(run, config, study, question)
    return _card(work, run, "transformers", head, _loading(tuned), origin, tuned)


def write_adapter_card(
    work: WorkFolder, run: Run, origin: Origin, study: str, question: str, tuned: bool = False
) -> str:
    """Return the README of adapters that a run trained beside a base model; raises as `write_card`."""
    head, loading = _adapter_head(run, origin.base, study, question), _adapter_loading(origin.base)
    return _card(work, run, "peft", head, loading, origin, tuned)


def _card(work: WorkFolder, run: Run, library: str, head: str, loading: str, origin: Origin, tuned: bool) -> str:
    variant = next((v for v in read_variants(work) if v.variant_id == run.variant_id), None)
    books = {book.book_id: book for book in read_catalogue(work)}
    used = [books[i] for i in variant.book_ids if i in books] if variant else []
    parts = [_front_matter(used, library, origin), head]
    if tuned:
        parts.append(_dialogue(work, run))
    if variant:
        parts += [_books(variant, used), _rights(used)]
    path = work.path("scores", "measures.parquet")
    measures = [m for m in read_rows(path, Measure) if m.run_id == run.run_id] if path.exists() else []
    if measures:
        parts.append(_scores(measures, tuned))
    return "\n".join([*parts, loading])


def _front_matter(books: Sequence[Book], library: str, origin: Origin) -> str:
    languages = sorted({book.language for book in books if book.language.isalpha()})
    lines = ["---", f"library_name: {library}", "pipeline_tag: text-generation", "tags: [ltm]"]
    if origin.base:
        lines.append(f"base_model: {json.dumps(origin.base)}")
    if origin.licence:
        lines.append(f"license: {json.dumps(origin.licence)}")
    if languages:
        lines.append("language: [" + ", ".join(f'"{code}"' for code in languages) + "]")  # quoted: no is not false
    return "\n".join([*lines, "---", ""])


def _headed(title: str, question: str, text: str) -> str:
    """Return the beginning of a card: its title, what the study asks if it asks something, and what this is."""
    asked = [f"The study asks: {_plain(question)}", ""] if question.strip() else []
    return "\n".join([f"# {title}", "", *asked, text, ""])


def _head(run: Run, config: ModelConfig, study: str, question: str) -> str:
    kind = ARCHITECTURES["mistral" if config.family == "llama" and config.window else config.family]
    text = (
        f"A micro language model of {run.n_params:,} parameters ({kind}, vocabulary {config.vocab_size}, context "
        f"{config.block_size} tokens), trained by ltm from random weights (seed {run.init_seed}) on {run.n_tokens:,} "
        f"tokens in {run.n_steps:,} steps. Its loss at the end was {run.final_loss:.3f} nats per token. It is one run "
        "of a study of training sets; it knows nothing but the books below, and is no assistant."
    )
    return _headed(f"{_plain(run.model)}, run {run.run_id} of the study {_plain(study)}", question, text)


def _books(variant: Variant, books: Sequence[Book]) -> str:
    lines = [
        "## What it was trained on",
        "",
        f"{len(variant.book_ids)} books, order: {_plain(variant.order)}; share of each book that was kept: "
        f"{variant.density:.0%} (gaps: {_plain(variant.gap_kind)}); books read in turns: "
        f"{variant.spacing or 'spaced repetition'}. In training order:",
        "",
    ]
    lines += [f"{place}. {_plain(book.title) or book.book_id}" for place, book in enumerate(books, 1)]
    return "\n".join([*lines, ""])


def _rights(books: Sequence[Book]) -> str:
    """Return what the library says of its books' rights; ltm does not judge them."""
    counts = Counter(_plain(book.licence) for book in books)
    silent = sum(n for licence, n in counts.items() if licence.lower() in ("", "unknown"))
    lines = ["## Rights of the books", "", "As the library that was read states them:", ""]
    lines += [f"- {licence}: {n}" for licence, n in sorted(counts.items()) if licence.lower() not in ("", "unknown")]
    if silent:
        lines.append(f"- not stated: {silent}. Find out before you pass the model on.")
    return "\n".join([*lines, ""])


def _scores(measures: Sequence[Measure], tuned: bool) -> str:
    lines = [
        "## Scores" + (", before it was tuned on conversations" if tuned else ""),
        "",
        "Value: mean margin in nats per byte, more is better; F0: minus bits per byte of held-out text.",
        "",
        "| ability | family | value | accuracy | items |",
        "|---|---|---|---|---|",
    ]
    for m in sorted(measures, key=lambda m: (m.ability, m.family)):
        accuracy = "" if math.isnan(m.accuracy) else f"{m.accuracy:.3f}"
        value = "" if math.isnan(m.value) else f"{m.value:.5f}"
        lines.append(f"| {_plain(m.ability)} | {_plain(m.family)} | {value} | {accuracy} | {m.n_items} |")
    return "\n".join([*lines, ""])


_WAYS = {
    "full": "all of its weights were trained on",
    "lora": "low-rank adapters were trained beside it, and are part of its matrices here",
    "qlora": "low-rank adapters were trained beside it in four bits; here its matrices are what those four bits stand "
    "for, with the adapters in them",
}


def _base_head(run: Run, origin: Origin, study: str, question: str) -> str:
    licence = f" ({_plain(origin.licence)}, as its README says)" if origin.licence else " (not stated in its README)"
    text = (
        f"{_plain(origin.base)} ({run.n_params:,} parameters), trained further by ltm (seed {run.init_seed}) on "
        f"{run.n_tokens:,} tokens in {run.n_steps:,} steps: {_WAYS[origin.method]}. Its loss at the end was "
        f"{run.final_loss:.3f} nats per token. The licence of the base model{licence} stands for what was made of it. "
        "It is one run of a study of training sets."
    )
    return _headed(f"{_plain(origin.base)}, run {run.run_id} of the study {_plain(study)}", question, text)


def _dialogue(work: WorkFolder, run: Run) -> str:
    """Return what was done after the run; the end of its row in the work folder is no field of `Tuned`."""
    row: dict[str, Any] = read_json(work.path("dialogue", run.run_id, "tuned.json"))
    before, after = row["held_out_before"], row["held_out_after"]
    return (
        f"After that it was tuned on {row['n_train']:,} conversations (loss on answers alone): answers of held-out "
        f"conversations went from {before:.3f} to {after:.3f} bits per byte. It is asked by its chat template.\n"
    )


def _adapter_head(run: Run, base: str, study: str, question: str) -> str:
    text = (
        f"Low-rank adapters beside {_plain(base)}, trained by ltm (seed {run.init_seed}) on {run.n_tokens:,} tokens in "
        f"{run.n_steps:,} steps. The loss at the end was {run.final_loss:.3f} nats per token. The base model is not "
        "here, and its licence stands for what is made with it."
    )
    return _headed(f"Adapters of run {run.run_id} of the study {_plain(study)}", question, text)


def _adapter_loading(base: str) -> str:
    return f"""## How to load it

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{_plain(base)}"), ".")
```
"""


def _loading(tuned: bool) -> str:
    if tuned:
        return """## How to ask it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (auto.from_pretrained(".") for auto in (AutoModelForCausalLM, AutoTokenizer))
asked = [{"role": "user", "content": "Where are you going?"}]
tokens = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
answer = model.generate(**tokens, max_new_tokens=40)[0, tokens["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
```
"""
    return """## How to load it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (auto.from_pretrained(".") for auto in (AutoModelForCausalLM, AutoTokenizer))
print(tokenizer.decode(model.generate(**tokenizer("In the beginning", return_tensors="pt"), max_new_tokens=40)[0]))
```

The tokenizer adds no start mark. In training one stood before every text that did not continue the one before; to put
it there: `[tokenizer.bos_token_id] + tokenizer(text).input_ids`.
"""


def _plain(text: str) -> str:
    """Return a stranger's text as one line that Markdown shows as it is, without characters that nobody sees."""
    line = " ".join(text.split())
    return "".join(char for char in line if char.isprintable() or char in _JOINERS).translate(_MARKDOWN)
