"""Go on with a text, token by token: sampling, stop mark, and letters that come in pieces.

Sampling in this order: penalty for repetition (Keskar et al. 2019), temperature, the k likeliest, the likeliest that
make up p (Holtzman et al. 2020). The same seed gives the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ltm.errors import InputError
from ltm.model.decode import Memory, read
from ltm.model.gpt import GPT
from ltm.tokens.tokenizer import Tokenizer

_LOOK_BACK = 64  # tokens that count as repeated
_LONGEST_LETTER = 8  # tokens that may stand for one letter: no letter has more than four bytes
_BROKEN = "\ufffd"  # how a decoder shows bytes that are not a letter yet


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.8  # 0 = always the likeliest
    top_k: int = 0  # 0 = all
    top_p: float = 0.95
    repeat_penalty: float = 1.1  # 1 = none
    max_tokens: int = 200
    seed: int = 1

    def checked(self) -> Sampling:
        """Return it, if all of it makes sense.

        Raises:
            InputError: says which setting does not.
        """
        bounds = {
            "temperature": (0.0, 5.0), "top_k": (0, 1_000_000), "top_p": (0.01, 1.0), "repeat_penalty": (0.5, 3.0),
            "max_tokens": (1, 100_000), "seed": (0, 2**31 - 1),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                nearest = min(max(value, low), high) if value == value else low
                raise InputError(f"{name} is {value:g}, not between {low:g} and {high:g}", f"nearest: {nearest:g}")
        return self


class Reader(Protocol):
    """A model that remembers what it has read."""

    block_size: int

    def read(self, tokens: Sequence[int], known: int) -> Tensor:
        """Return the logits of the token that follows the last, shape (V,); the first `known` were read before."""


class OwnReader:
    """A model of this project's decoder.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: GPT) -> None:
        self.model, self.block_size = model, model.config.block_size
        self._memory = Memory(model)
        self._device = model.embed.weight.device

    def read(self, tokens: Sequence[int], known: int) -> Tensor:
        """Return the logits of the token that follows the last."""
        self._memory.cut(known)
        return read(self.model, torch.tensor(tokens[known:], device=self._device), self._memory)


class Writer:
    """A model that goes on with texts; what two texts begin with in common is read once.

    Args:
        reader: The model.
        tokenizer: The one that it was trained with.
        marked: Whether prompts are made by a template: they are whole, and special tokens in them stand for themselves.
        ends: Tokens that end a text, beside the start mark of the next one.
    """

    def __init__(self, reader: Reader, tokenizer: Tokenizer, marked: bool = False, ends: Collection[int] = ()) -> None:
        self.reader, self.tokenizer, self.marked = reader, tokenizer, marked
        self.block_size = reader.block_size
        self._ends = {tokenizer.bos_id, *ends}
        self._read: list[int] = []

    def go_on(self, prompt: str, sampling: Sampling, stopped: Callable[[], bool] = lambda: False) -> Iterator[str]:
        """Yield pieces of text as they are made, until the model ends the text, the limit, or `stopped`.

        A prompt that is longer than the context is cut at its beginning; so is what has been read when the context is
        full, by half.
        """
        generator = torch.Generator().manual_seed(sampling.seed)
        room = max(1, self.block_size - max(1, min(sampling.max_tokens, self.block_size // 2)))
        tokenizer = self.tokenizer
        tokens = tokenizer.encode_marked(prompt) if self.marked else [tokenizer.bos_id, *tokenizer.encode(prompt)]
        tokens = tokens[-room:]
        letters = _Letters(self.tokenizer)
        logits_V = self._fill(tokens)
        for _ in range(sampling.max_tokens):
            token = choose(logits_V, sampling, tokens, generator)
            if token in self._ends or stopped():
                break
            tokens.append(token)
            if piece := letters.add(token):
                yield piece
            if len(tokens) > self.block_size:
                tokens = tokens[-(self.block_size // 2 + 1) :]
            logits_V = self._fill(tokens)
        if rest := letters.rest():
            yield rest

    def _fill(self, tokens: Sequence[int]) -> Tensor:
        """Read what of these tokens was not read yet."""
        common = 0
        limit = min(len(tokens) - 1, len(self._read))  # the last token is always read: its logits are wanted
        while common < limit and tokens[common] == self._read[common]:
            common += 1
        self._read = list(tokens)
        return self.reader.read(tokens, common)


def choose(logits_V: Tensor, sampling: Sampling, before: Sequence[int], generator: torch.Generator) -> int:
    """Return the next token."""
    logits_V = logits_V.cpu().clone()
    if sampling.repeat_penalty != 1.0 and before:
        seen = torch.tensor(sorted(set(before[-_LOOK_BACK:])))
        values = logits_V[seen]
        logits_V[seen] = torch.where(values > 0, values / sampling.repeat_penalty, values * sampling.repeat_penalty)
    if sampling.temperature == 0.0:
        return int(logits_V.argmax())
    logits_V = logits_V / sampling.temperature
    if 0 < sampling.top_k < len(logits_V):
        logits_V[logits_V < logits_V.topk(sampling.top_k).values[-1]] = float("-inf")
    probabilities, order = logits_V.softmax(-1).sort(descending=True, stable=True)
    if sampling.top_p < 1.0:
        probabilities[(probabilities.cumsum(0) - probabilities) >= sampling.top_p] = 0.0
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])


class _Letters:
    """Tokens as text; a letter whose bytes are not all there waits."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._waiting = tokenizer, list[int]()

    def add(self, token: int) -> str:
        self._waiting.append(token)
        text = self._tokenizer.decode(self._waiting)
        if text.endswith(_BROKEN) and len(self._waiting) < _LONGEST_LETTER:
            return ""
        self._waiting.clear()
        return text

    def rest(self) -> str:
        return self._tokenizer.decode(self._waiting)
