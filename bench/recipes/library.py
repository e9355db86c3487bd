"""The library of a search: books, sets, tokens, and the held-out text that all runs are scored on.

The sets differ in books alone. Held-out text is a fixed number of windows from the middle parts of every held-out
book, whole authors held out, so that bits per byte can be compared between vocabularies and block sizes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ltm.books import stage
from ltm.books.catalogue import TextStore, read_catalogue
from ltm.books.section import BooksSection
from ltm.progress import Progress
from ltm.records import Book, Shard, Variant
from ltm.sets.choose import incidence
from ltm.store import WorkFolder
from ltm.tokens import tokenizer as tokenizers

N_SETS = 32
WINDOWS_PER_BOOK, WINDOW_CHARACTERS = 3, 4096
_SAMPLE_BYTES = 4_000_000  # that the tokenizer is trained on


class Library:
    """One library of books below a work folder; texts and tokens are made once and kept there."""

    def __init__(self, work: Path, path: str = "", max_books: int = 0, held_out_share: float = 0.12) -> None:
        source = {"path": path, "languages": ["en"], "max_books": max_books or None} if path else {"source": "kjv"}
        section = BooksSection(held_out_share=held_out_share, **source)
        key = hashlib.sha256(section.model_dump_json().encode()).hexdigest()[:8]
        self.name = f"{'books' if path else 'kjv'}-{key}"
        self.root = work / self.name
        self._work = WorkFolder(self.root)
        if not (self.root / "done").exists():
            self.root.mkdir(parents=True, exist_ok=True)
            stage.build(section, self._work, 1, Progress())
            (self.root / "done").touch()
        books = sorted(read_catalogue(self._work), key=lambda book: book.book_id)
        self.train = [book for book in books if book.pool == "train"]
        self.held_out = [book for book in books if book.pool != "train"]
        self._texts = TextStore(self._work)

    def sets(self, design: str, size: int) -> list[list[Book]]:
        """Return the books of all sets; the same for all recipes."""
        rng = np.random.default_rng(7)
        if design == "balanced":
            member = incidence(N_SETS, len(self.train), size, rng)
            return [[self.train[i] for i in np.flatnonzero(row)] for row in member]
        genres = sorted({book.genre for book in self.train})
        drawn = []
        for _ in range(N_SETS):
            weight = rng.dirichlet(np.full(len(genres), 0.3))
            chance = np.array([weight[genres.index(book.genre)] for book in self.train]) + 1e-4
            drawn.append(list(rng.choice(len(self.train), size, replace=False, p=chance / chance.sum())))
        return [[self.train[i] for i in chosen] for chosen in drawn]

    def tokenizer(self, vocab_size: int) -> tokenizers.Tokenizer:
        path = self.root / f"tokenizer-{vocab_size}.json"
        if not path.exists():
            share = max(200, _SAMPLE_BYTES // len(self.train))
            tokenizers.save(tokenizers.train((self._middle(book, share) for book in self.train), vocab_size), path)
        from tokenizers import Tokenizer as Backend

        return tokenizers.Tokenizer(Backend.from_file(str(path)))

    def tokens(self, vocab_size: int) -> tuple[npt.NDArray[np.uint16], dict[str, Shard]]:
        """Return the tokens of all training books and where each book lies in them."""
        path = self.root / f"tokens-{vocab_size}.npz"
        if not path.exists():
            encode = self.tokenizer(vocab_size).encode
            pieces = [np.array(encode(self._texts.read(book.book_id)), dtype=np.uint16) for book in self.train]
            temporary = path.with_suffix(f".{os.getpid()}.npz")
            np.savez(temporary, tokens=np.concatenate(pieces), lengths=[len(piece) for piece in pieces])
            temporary.replace(path)
        stored = np.load(path)
        starts = np.concatenate([[0], np.cumsum(stored["lengths"])])
        shards = {
            book.book_id: Shard(book.book_id, int(start), int(n), [0])
            for book, start, n in zip(self.train, starts, stored["lengths"], strict=False)
        }
        return stored["tokens"], shards

    def windows(self) -> list[str]:
        """Return the held-out text: windows spread evenly over every held-out book."""
        result = []
        for book in self.held_out:
            text = self._texts.read(book.book_id)
            last = max(0, len(text) - WINDOW_CHARACTERS)
            starts = np.unique(np.linspace(0, last, 2 * WINDOWS_PER_BOOK + 2).astype(int)[1:-1:2])
            result += [text[start : start + WINDOW_CHARACTERS] for start in starts]
        return result

    def _middle(self, book: Book, share: int) -> str:
        text = self._texts.read(book.book_id)
        start = max(0, (len(text) - share) // 2)
        return text[start : start + share]


def variant(set_index: int, books: Sequence[Book], stream_seed: int) -> Variant:
    """Return the chunk-shuffled variant of a set."""
    return Variant(
        variant_id=str(stream_seed), index=set_index, round="exploration", block=set_index, set_id=set_index,
        template="seeds", arm="base", book_ids=[book.book_id for book in books], order="shuffled", gap_kind="none",
        density=1.0, spacing=1, stream_seed=stream_seed, init_seeds=[0],
    )  # fmt: skip
