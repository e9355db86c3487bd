"""One byte-level BPE tokenizer, trained once on a neutral sample, kept as a Hugging Face `tokenizer.json`."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ltm.errors import StoreError
from ltm.seal import file_digest, sidecar
from ltm.store import WorkFolder, fingerprint, write_text
from ltm.tokens import adopted
from ltm.tokens.encoder import Encoder
from ltm.tokens.train import BOS, train_backend

__all__ = ["BOS", "Tokenizer", "identity", "load", "save", "train"]


class Tokenizer:
    """Encode text to ids and back; every text can be encoded, nothing is unknown."""

    def __init__(self, backend: Any, start: str = BOS) -> None:
        self._backend = backend
        backend.encode_special_tokens = True  # a book that spells the start mark out is still only text
        self.vocab_size: int = backend.get_vocab_size()
        self.bos_id: int = backend.token_to_id(start)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The fast way from text to ids, made when it is first needed."""
        return Encoder(self._backend)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without a start mark; half of a surrogate pair counts as U+FFFD."""
        ids: list[int] = self.encoder.encode(text).tolist()
        return ids

    @functools.cached_property
    def marks(self) -> dict[str, int]:
        """The special tokens by their text; `encode` reads them as plain text."""
        added = self._backend.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    def encode_marked(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens stand for themselves: for templates, never for books."""
        if not self.marks:
            return self.encode(text)
        pattern = "|".join(re.escape(mark) for mark in sorted(self.marks, key=len, reverse=True))
        ids: list[int] = []
        for piece in re.split(f"({pattern})", text):
            if piece in self.marks:
                ids.append(self.marks[piece])
            elif piece:
                ids += self.encode(piece)
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of several texts."""
        return [ids.tolist() for ids in self.encoder.encode_many(texts)]

    def to_json(self) -> str:
        """Return it as the text of a `tokenizer.json`."""
        text: str = self._backend.to_str(pretty=True)
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, start marks left out."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer; the vocabulary may come out smaller when the text has too few pairs."""
    return Tokenizer(train_backend(texts, vocab_size))


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write `tokenizer.json`, whole."""
    text = tokenizer._backend.to_str(pretty=True)
    write_text(path, text)
    write_text(sidecar(path), file_digest(path) + "\n")


def identity(work: WorkFolder) -> str:
    """Return a fingerprint of the study's tokenizer: part of what makes two runs the same."""
    return fingerprint(work.path("tokens", "tokenizer.json").read_text(encoding="utf-8"))


def load(work: WorkFolder) -> Tokenizer:
    """Load the study's tokenizer.

    Raises:
        StoreError: it is missing or damaged.
    """
    return from_folder(work.path("tokens"))


def from_folder(folder: Path) -> Tokenizer:
    """Load the tokenizer of a folder: `tokenizer.json`, and `tokenizer_config.json` where others have trained it.

    Raises:
        StoreError: it is missing or damaged.
    """
    from tokenizers import Tokenizer as Backend

    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run `ltm tokens STUDY`") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise StoreError(f"{path} is damaged", "delete the tokens folder and run again") from None
    beside = folder / adopted.CONFIG  # of a tokenizer that others have trained
    if not beside.exists():
        return Tokenizer(Backend.from_str(text))
    start = adopted.start_token(text, beside.read_text(encoding="utf-8"))
    return Tokenizer(Backend.from_str(text), start or BOS)
