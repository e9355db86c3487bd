"""The README of an exported run: which study, which books by title, which scores, how to load it.

Reads: `runs/<run_id>/run.json` (Run), `sets/variants.parquet` (Variant), `books/catalogue.parquet` (Book) and, if it
is there, `scores/measures.parquet` (Measure). Titles only: no author's text, no path and no machine's name leaves the
work folder.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ltm.books.catalogue import read_catalogue
from ltm.export.shapes import ARCHITECTURES
from ltm.model.sizes import ModelConfig
from ltm.records import Book, Measure, Run, Variant
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, read_rows

_JOINERS = "\u200c\u200d"  # invisible, but part of how Persian, Hindi and emoji are spelled
_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_{}[]<>#|!~$&"})


def write_card(work: WorkFolder, run: Run, config: ModelConfig, study: str, question: str) -> str:
    """Return the README of one run in Markdown.

    Raises:
        StoreError: the catalogue or the design is missing or damaged.
    """
    return _card(work, run, "transformers", _head(run, config, study, question), _loading())


def write_adapter_card(work: WorkFolder, run: Run, base: str, study: str, question: str) -> str:
    """Return the README of adapters that a run trained beside a base model; raises as `write_card`."""
    return _card(work, run, "peft", _adapter_head(run, base, study, question), _adapter_loading(base))


def _card(work: WorkFolder, run: Run, library: str, head: str, loading: str) -> str:
    variant = next((v for v in read_variants(work) if v.variant_id == run.variant_id), None)
    books = {book.book_id: book for book in read_catalogue(work)}
    used = [books[i] for i in variant.book_ids if i in books] if variant else []
    parts = [_front_matter(used, library), head]
    if variant:
        parts += [_books(variant, used), _rights(used)]
    path = work.path("scores", "measures.parquet")
    measures = [m for m in read_rows(path, Measure) if m.run_id == run.run_id] if path.exists() else []
    if measures:
        parts.append(_scores(measures))
    return "\n".join([*parts, loading])


def _front_matter(books: Sequence[Book], library: str) -> str:
    languages = sorted({book.language for book in books if book.language.isalpha()})
    lines = ["---", f"library_name: {library}", "pipeline_tag: text-generation", "tags: [ltm]"]
    if languages:
        lines.append("language: [" + ", ".join(f'"{code}"' for code in languages) + "]")  # quoted: no is not false
    return "\n".join([*lines, "---", ""])


def _head(run: Run, config: ModelConfig, study: str, question: str) -> str:
    kind = ARCHITECTURES["mistral" if config.family == "llama" and config.window else config.family]
    lines = [
        f"# {_plain(run.model)}, run {run.run_id} of the study {_plain(study)}",
        "",
        f"A micro language model of {run.n_params:,} parameters ({kind}, vocabulary {config.vocab_size}, context "
        f"{config.block_size} tokens), trained by ltm from random weights (seed {run.init_seed}) on {run.n_tokens:,} "
        f"tokens in {run.n_steps:,} steps. Its loss at the end was {run.final_loss:.3f} nats per token. It is one run "
        "of a study of training sets; it knows nothing but the books below, and is no assistant.",
        "",
    ]
    if question.strip():
        lines[2:2] = [f"The study asks: {_plain(question)}", ""]
    return "\n".join(lines)


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


def _scores(measures: Sequence[Measure]) -> str:
    lines = [
        "## Scores",
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


def _adapter_head(run: Run, base: str, study: str, question: str) -> str:
    lines = [
        f"# Adapters of run {run.run_id} of the study {_plain(study)}",
        "",
        f"Low-rank adapters beside {_plain(base)}, trained by ltm (seed {run.init_seed}) on {run.n_tokens:,} tokens in "
        f"{run.n_steps:,} steps. The loss at the end was {run.final_loss:.3f} nats per token. The base model is not "
        "here, and its licence stands for what is made with it.",
        "",
    ]
    if question.strip():
        lines[2:2] = [f"The study asks: {_plain(question)}", ""]
    return "\n".join(lines)


def _adapter_loading(base: str) -> str:
    return f"""## How to load it

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{_plain(base)}"), ".")
```
"""


def _loading() -> str:
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
