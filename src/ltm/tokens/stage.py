"""Train the tokenizer and store the tokens of every book that some variant uses, once.

Reads: clean text, `sets/variants.parquet` (Variant). Writes: `tokens/tokenizer.json`, `tokens/tokens.bin` (flat
uint16 or uint32), `tokens/shards.parquet` (Shard). Sets, orders and gaps are index lists into that one file.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ltm.books.catalogue import TextStore, read_catalogue
from ltm.progress import Progress
from ltm.records import Book, Shard
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, fingerprint, read_rows, store_error, write_rows
from ltm.tokens.section import TokensSection
from ltm.tokens.tokenizer import Tokenizer, load, save, train

VERSION = 1


def build(section: TokensSection, work: WorkFolder, seed: int, progress: Progress) -> Any:
    """Write tokenizer, token file and index; returns a fingerprint of the tokenizer and the shards."""
    store = TextStore(work)
    books = sorted((b for b in read_catalogue(work) if b.pool == "train"), key=lambda b: b.book_id)
    tokenizer = train(_neutral_sample(books, store, section.sample_bytes), section.vocab_size)
    path = work.path("tokens", "tokenizer.json")
    save(tokenizer, path)
    used = {book_id for variant in read_variants(work) for book_id in variant.book_ids}
    shards = _write_tokens(work, tokenizer, [b for b in books if b.book_id in used], store, progress)
    write_rows(work.path("tokens", "shards.parquet"), shards, Shard)
    return [fingerprint(path.read_text(encoding="utf-8")), [[s.book_id, s.n_tokens] for s in shards]]


def report(work: WorkFolder) -> dict[str, Any]:
    """Return the size of the vocabulary and how many tokens each book has.

    Raises:
        StoreError: the stage has not been run.
    """
    shards = read_rows(work.path("tokens", "shards.parquet"), Shard)
    return {
        "vocab_size": load(work).vocab_size,
        "tokens": sum(shard.n_tokens for shard in shards),
        "books": len(shards),
        "tokens_by_book": {shard.book_id: shard.n_tokens for shard in shards},
    }


def token_dtype(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest type that holds every id."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def _neutral_sample(books: list[Book], store: TextStore, sample_bytes: int) -> Iterator[str]:
    """Yield an equal share of each book, from its middle, so that no book shapes the vocabulary more than another."""
    share = max(200, sample_bytes // len(books))
    for book in books:
        text = store.read(book.book_id)
        start = max(0, (len(text) - share) // 2)
        yield text[start : start + share]


def _write_tokens(
    work: WorkFolder, tokenizer: Tokenizer, books: list[Book], store: TextStore, progress: Progress
) -> list[Shard]:
    dtype = token_dtype(tokenizer.vocab_size)
    path = work.path("tokens", "tokens.bin")
    temporary = path.with_name(".tokens.bin.tmp")
    task = progress.task("tokens", len(books), "books")
    shards: list[Shard] = []
    position = 0
    try:
        with open(temporary, "wb") as file:
            for book in books:
                pieces = [np.array(ids, dtype=dtype) for ids in tokenizer.encode_many(_chapters(book, store))]
                starts = np.cumsum([0, *(len(p) for p in pieces)])
                for piece in pieces:
                    file.write(piece.tobytes())
                n_tokens = int(starts[-1])
                shards.append(Shard(book.book_id, position, n_tokens, [int(s) for s in starts[:-1]]))
                position += n_tokens
                task.advance()
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise store_error(error, path) from error
    return shards


def _chapters(book: Book, store: TextStore) -> list[str]:
    text = store.read(book.book_id)
    bounds = [*book.chapter_starts, len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds) if b > a]
