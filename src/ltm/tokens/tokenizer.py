"""One byte-level BPE tokenizer, trained once on a neutral sample, kept as a Hugging Face `tokenizer.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ltm.errors import StoreError
from ltm.store import WorkFolder, fingerprint, write_text

BOS = "<|text|>"  # stands before every piece of text that does not continue the one before


class Tokenizer:
    """Encode text to ids and back; every text can be encoded, nothing is unknown."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        backend.encode_special_tokens = True  # a book that spells the start mark out is still only text
        self.vocab_size: int = backend.get_vocab_size()
        self.bos_id: int = backend.token_to_id(BOS)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without a start mark."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of several texts, on all cores."""
        return [e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, start marks left out."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer; the vocabulary may come out smaller when the text has too few pairs."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return Tokenizer(backend)


def save(tokenizer: Tokenizer, path: Path) -> None:
    """Write `tokenizer.json`, whole."""
    text = tokenizer._backend.to_str(pretty=True)
    write_text(path, text)


def identity(work: WorkFolder) -> str:
    """Return a fingerprint of the study's tokenizer: part of what makes two runs the same."""
    return fingerprint(work.path("tokens", "tokenizer.json").read_text(encoding="utf-8"))


def load(work: WorkFolder) -> Tokenizer:
    """Load the study's tokenizer.

    Raises:
        StoreError: it is missing or damaged.
    """
    from tokenizers import Tokenizer as Backend

    path = work.path("tokens", "tokenizer.json")
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing", "run `ltm tokens STUDY`") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise StoreError(f"{path} is damaged", "delete the tokens folder and run again") from None
    return Tokenizer(Backend.from_str(text))
