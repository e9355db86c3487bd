"""The text of `time_to_bpb.py`: training books, their tokens in any vocabulary, and the held-out windows.

Held-out text is the same bytes for every contender: of each window the first part is context that is not scored, the
rest is scored whatever tokens it is cut into. Nobody sees text before its window; inside it everybody sees as much as
its block holds, at least half of it before every scored token.
"""

from __future__ import annotations

import csv
import math
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ltm.errors import InputError
from ltm.tokens import tokenizer as tokenizers

N_TRAIN, N_HELD_OUT = 60, 8
_SEED = 20
_WINDOWS_PER_BOOK, _CONTEXT_BYTES, _SCORED_BYTES = 24, 384, 512  # 24 x 8 x 512 = 98 kB scored
_TOKENIZER_BYTES = 4_000_000
_ROWS = 32  # of one forward pass
CHARACTERS = 0  # stands for the vocabulary of single characters

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Window:
    """A piece of a held-out book."""

    context: str
    scored: str


class Text:
    """Books and tokens; what takes long is made once and kept in a folder.

    Args:
        books: A folder with `manifest.csv` and the books' files, or the folder of one language in it.
        work: Where tokens are kept.
    """

    def __init__(self, books: Path, work: Path) -> None:
        self.work = work
        train, held_out = _choose(books)
        self._train = [_read(path) for path in train]
        self._held_out = [_read(path) for path in held_out]
        self.names = {"train": [path.name for path in train], "held out": [path.name for path in held_out]}

    def characters(self) -> list[str]:
        """Return all characters, as nanoGPT's `prepare.py` finds them: of the whole text, held-out part included."""
        return sorted({character for text in (*self._train, *self._held_out) for character in text})

    def windows(self) -> list[Window]:
        """Return the held-out windows, spread evenly over the books; both parts begin at a word."""
        found = []
        for text in self._held_out:
            starts = np.linspace(0, len(text), _WINDOWS_PER_BOOK + 2).astype(int)[1:-1]
            for near in starts:
                start = text.index(" ", near)
                middle = text.index(" ", start + _CONTEXT_BYTES)
                found.append(Window(text[start:middle], _first_bytes(text[middle : middle + _SCORED_BYTES])))
        return found

    def encoder(self, vocab_size: int) -> Callable[[str], list[int]]:
        """Return what turns text into ids; vocabulary `CHARACTERS` counts characters."""
        if vocab_size == CHARACTERS:
            number = {character: i for i, character in enumerate(self.characters())}
            return lambda text: [number[character] for character in text]
        return self._tokenizer(vocab_size).encode

    def tokens(self, vocab_size: int) -> tuple[npt.NDArray[np.uint16], list[int]]:
        """Return the ids of all training books one after another, and the length of each."""
        path = self.work / f"tokens-{vocab_size}.npz"
        if not path.exists():
            encode = self.encoder(vocab_size)
            pieces = [np.array(encode(text), dtype=np.uint16) for text in self._train]
            _save(path, tokens=np.concatenate(pieces), lengths=[len(piece) for piece in pieces])
        stored = np.load(path)
        return stored["tokens"], stored["lengths"].tolist()

    def _tokenizer(self, vocab_size: int) -> tokenizers.Tokenizer:
        from tokenizers import Tokenizer as Backend

        path = self.work / f"tokenizer-{vocab_size}.json"
        if not path.exists():
            share = _TOKENIZER_BYTES // len(self._train)
            sample = [text[len(text) // 3 : len(text) // 3 + share] for text in self._train]
            tokenizers.save(tokenizers.train(sample, vocab_size), path)
        return tokenizers.Tokenizer(Backend.from_file(str(path)))


@torch.no_grad()
def bits_per_byte(text: Text, vocab_size: int, block_size: int, logits_of: Logits) -> float:
    """Return the code length of the scored bytes.

    Args:
        text: Gives the windows.
        vocab_size: Of the model's tokens; `CHARACTERS` for characters.
        block_size: The longest input.
        logits_of: Maps tokens (B, T) to logits (B, T, V).
    """
    encode = text.encoder(vocab_size)
    nats, n_bytes = 0.0, 0
    rows: dict[int, list[tuple[list[int], list[int]]]] = {}
    for window in text.windows():
        context, scored = encode(window.context), encode(window.scored)
        n_bytes += len(window.scored.encode())
        for inputs, targets in _rows(context, scored, block_size):
            rows.setdefault(len(inputs), []).append((inputs, targets))
    for same_length in rows.values():
        for start in range(0, len(same_length), _ROWS):
            part = same_length[start : start + _ROWS]
            losses = logits_of(torch.tensor([inputs for inputs, _ in part])).float().log_softmax(-1)
            for loss, (_, targets) in zip(losses, part, strict=True):
                picked = loss[-len(targets) :].gather(1, torch.tensor(targets)[:, None])
                nats -= float(picked.double().sum())
    return nats / math.log(2) / n_bytes


def _rows(context: list[int], scored: list[int], block_size: int) -> list[tuple[list[int], list[int]]]:
    """Return inputs and the targets that stand behind the last of them; every scored token is a target once."""
    ids, rows = context + scored, []
    for first in range(len(context), len(ids), block_size // 2):
        end = min(len(ids), first + block_size // 2)
        rows.append((ids[max(0, end - 1 - block_size) : end - 1], ids[first:end]))
    return rows


def _choose(books: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of the training books and of the held-out ones, which are by other authors, one each."""
    folder = books if (books / "manifest.csv").is_file() else books.parent
    if not (folder / "manifest.csv").is_file():
        raise InputError(f"--books {books}: there is no manifest.csv in it or above it", "--books shared/books")
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["language"] == "en"]
    order = np.random.default_rng(_SEED).permutation(len(rows))
    held_out: dict[str, dict[str, Any]] = {}
    for row in (rows[i] for i in order):
        if len(held_out) < N_HELD_OUT:
            held_out.setdefault(row["author"], row)
    train = [rows[i] for i in order if rows[i]["author"] not in held_out][:N_TRAIN]
    if len(train) < N_TRAIN:
        raise InputError(f"--books {books}: {len(train)} books by other authors are left, {N_TRAIN} are needed")
    return [folder / row["file"] for row in train], [folder / row["file"] for row in held_out.values()]


def _read(path: Path) -> str:
    return unicodedata.normalize("NFC", path.read_text(encoding="utf-8"))


def _first_bytes(text: str) -> str:
    return text.encode()[:_SCORED_BYTES].decode(errors="ignore")


def _save(path: Path, **arrays: Any) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(temporary, **arrays)
    temporary.replace(path)
