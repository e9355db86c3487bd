"""Short answers: let a model go on greedily and compare with what is accepted, as SQuAD and lm-evaluation-harness
do."""

from __future__ import annotations

import math
import re
import unicodedata

import torch

from ltm.model.gpt import GPT
from ltm.records import Item
from ltm.tokens.tokenizer import Tokenizer

_SPARE_TOKENS = 4  # beyond the longest accepted answer, so that a word that goes on is seen to go on
_MARKS = re.compile(r"[^\w\s]")
_SPACE = re.compile(r"\s+")


def generated(model: GPT, item: Item, tokenizer: Tokenizer) -> float:
    """Return 0 where the greedy answer to an item is an accepted one, else minus infinity: its log-probability.

    Args:
        model: In evaluation mode.
        item: `contexts[0]` is the prompt, the continuations are the accepted answers.
        tokenizer: The model's.
    """
    accepted = {normalised(answer) for answer in item.continuations}
    n_tokens = max(len(tokenizer.encode(answer)) for answer in item.continuations) + _SPARE_TOKENS
    text = greedy(model, tokenizer, item.contexts[0], n_tokens)
    n_words = {len(answer.split()) for answer in accepted}
    words = normalised(text.splitlines()[0] if text.splitlines() else "").split()
    answers = {" ".join(words[:n]) for n in n_words} | {" ".join(words)}
    return 0.0 if accepted & answers else -math.inf


@torch.inference_mode()
def greedy(model: GPT, tokenizer: Tokenizer, prompt: str, n_tokens: int) -> str:
    """Return the likeliest next tokens after a prompt, one after the other, until the start mark."""
    device = next(model.parameters()).device
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    made: list[int] = []
    while len(made) < n_tokens:
        window = torch.tensor([[*ids, *made][-model.config.block_size :]], device=device)
        token = int(model.head(model.hidden(window)[:, -1]).argmax(-1))
        if token == tokenizer.bos_id:
            break
        made.append(token)
    return tokenizer.decode(made)


def normalised(text: str) -> str:
    """Return a text in lower case without punctuation and spare white space.

    >>> normalised("  The Lamp, ")
    'the lamp'
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _SPACE.sub(" ", _MARKS.sub(" ", plain)).strip()
