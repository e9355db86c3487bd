"""Train the tokenizer and store the tokens of every book that some variant uses, once.

Reads: clean text, `sets/variants.parquet` (Variant). Writes: `tokens/tokenizer.json`, `tokens/tokens.bin` (flat
uint16 or uint32), `tokens/shards.parquet` (Shard). Sets, orders and gaps are index lists into that one file. Books
that come with later rounds are added at its end; a start that was cut short goes on with the book it was at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltm.books.catalogue import TextStore, columns
from ltm.progress import Progress
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, fingerprint
from ltm.tokens import adopted
from ltm.tokens.encode import Wanted, encode_books
from ltm.tokens.index import read_index
from ltm.tokens.section import TokensSection
from ltm.tokens.token_file import TokenFile, token_dtype
from ltm.tokens.tokenizer import Tokenizer, identity, load, save, train

__all__ = ["VERSION", "build", "report", "token_dtype"]

VERSION = 2
_LEAST_SHARE = 2000  # characters of a sampled book: from shorter ones little is learned, and files cost time


def build(section: TokensSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Write tokenizer, token file and index; returns a fingerprint of the tokenizer and the shards."""
    if section.tokenizer is not None:
        adopted.adopt(Path(section.tokenizer), work)
    else:
        work.path("tokens", adopted.CONFIG).unlink(missing_ok=True)
        save(
            train(_neutral_sample(work, section.sample_bytes), section.vocab_size),
            work.path("tokens", "tokenizer.json"),
        )
    tokenizer = load(work)
    if not tokenizer.encoder.fast:
        progress.say(f"tokens    encoded by tokenizers, the same ids but slower: {tokenizer.encoder.slow_because}")
    books = _used(work)
    made_from = {"tokenizer": identity(work), "version": VERSION}
    with TokenFile(work, made_from, token_dtype(tokenizer.vocab_size)) as file:
        missing = [book for book in books if book.book_id not in file]
        _add(file, work, tokenizer, missing, len(books), progress)
        counts = file.finish(book.book_id for book in books)
    return [fingerprint(work.path("tokens", "tokenizer.json").read_text(encoding="utf-8")), counts]


def inputs(section: TokensSection) -> Any:
    """Return what a tokenizer that is taken over holds: its contents matter, not where it lies."""
    return None if section.tokenizer is None else fingerprint(adopted.read(Path(section.tokenizer)))


def report(work: WorkFolder) -> dict[str, Any]:
    """Return the size of the vocabulary and how many tokens each book has.

    Raises:
        StoreError: the stage has not been run.
    """
    shards = read_index(work.path("tokens", "shards.parquet"))
    return {
        "vocab_size": load(work).vocab_size,
        "tokens": shards.n_tokens,
        "books": len(shards),
        "tokens_by_book": {shard.book_id: shard.n_tokens for shard in shards.values()},
    }


def _add(
    file: TokenFile, work: WorkFolder, tokenizer: Tokenizer, missing: list[Wanted], n_books: int, progress: Progress
) -> None:
    task = progress.task("tokens", n_books, "books")
    task.skipped = task.done = n_books - len(missing)
    for encoded in encode_books(work, tokenizer, missing):
        file.add(encoded)
        task.advance()
    if not missing:
        task.advance(0)


def _used(work: WorkFolder) -> list[Wanted]:
    """Return the training books that some variant reads, by id."""
    used = {book_id for variant in read_variants(work) for book_id in variant.book_ids}
    table = columns(work, ["book_id", "pool", "n_bytes", "chapter_starts"], used)
    rows = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
    return sorted(Wanted(book_id, n_bytes, chapters) for book_id, pool, n_bytes, chapters in rows if pool == "train")


def _neutral_sample(work: WorkFolder, sample_bytes: int) -> Iterator[str]:
    """Yield an equal share of each book, from its middle, so that no book shapes the vocabulary more than another.

    Of a large library, books taken evenly from the order of their ids, which is the order of a hash.
    """
    table = columns(work, ["book_id", "pool"])
    train_ids = np.sort(np.array(_train_ids(table.column("book_id").to_pylist(), table.column("pool").to_pylist())))
    most = max(1, sample_bytes // _LEAST_SHARE)
    if len(train_ids) > most:
        train_ids = train_ids[np.arange(most) * len(train_ids) // most]
    share = max(200, sample_bytes // max(1, len(train_ids)))
    store = TextStore(work)
    for book_id in train_ids.tolist():
        text = store.read(book_id)
        start = max(0, (len(text) - share) // 2)
        yield text[start : start + share]


def _train_ids(book_ids: Sequence[str], pools: Sequence[str]) -> list[str]:
    return [book_id for book_id, pool in zip(book_ids, pools, strict=True) if pool == "train"]
