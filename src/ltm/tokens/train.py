"""Learn the merges of a byte-level BPE tokenizer; the file is the one that Hugging Face's trainer writes.

gigatoken's trainer finds the same merges as `tokenizers.trainers.BpeTrainer`, ties included, several times as fast
(`bench/library/tokens.py`); where it is not installed the other one is used. Source of the method: Sennrich et al.
2016; pre-tokens and alphabet as in GPT-2 (Radford et al. 2019).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ltm.tokens.encoder import has_new_letter

BOS = "<|text|>"  # stands before every piece of text that does not continue the one before
_SMALL_BYTES = 200_000  # below it Hugging Face's trainer takes no time to speak of
_SEPARATOR = b"\xff"  # between texts: no UTF-8 text has this byte


def train_backend(texts: Iterable[str], vocab_size: int) -> Any:
    """Return a trained `tokenizers.Tokenizer`; the vocabulary may come out smaller when the text has too few pairs.

    Args:
        texts: What to learn from; no pair is counted across two of them.
        vocab_size: Ids in all: the start mark, 256 bytes, and merges.
    """
    try:
        from gigatoken import train_bpe
    except ImportError:
        return _slowly(texts, vocab_size)
    held: list[bytes] = []
    same = True
    for text in texts:
        held.append(text.encode("utf-8", "replace"))
        same = same and not has_new_letter(text)
    data = _SEPARATOR.join(held)
    backend = None
    if same and len(data) >= _SMALL_BYTES:
        with _silent():  # it prints how far it is, on the stream that may carry our JSON
            _, merges = train_bpe(data, vocab_size, [BOS], "huggingface", _SEPARATOR)
        backend = _assemble(merges)
    if backend is None or not _is_live(backend, vocab_size, held):
        return _slowly((text.decode() for text in held), vocab_size)
    return backend


def _is_live(backend: Any, vocab_size: int, held: list[bytes]) -> bool:
    """Return whether the last merge joins anything in the texts that it was learned from.

    When no pair is left to join, gigatoken goes on with pairs that are gone, where the other trainer stops. Pairs come
    by falling count, so if the last one is there, all are.
    """
    from gigatoken import Tokenizer

    if backend.get_vocab_size() != vocab_size:
        return False
    encode = Tokenizer.from_json(backend.to_str()).encode
    return any(bool((encode(text) == vocab_size - 1).any()) for text in held)


def _slowly(texts: Iterable[str], vocab_size: int) -> Any:
    from tokenizers import pre_tokenizers, trainers

    backend = _empty()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator((text.encode("utf-8", "replace").decode() for text in texts), trainer=trainer)
    return backend


def _empty(**model: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _assemble(merges: list[tuple[bytes, bytes]]) -> Any:
    """Return the tokenizer with these merges: the start mark, the alphabet in its order, and a token a merge."""
    from tokenizers import AddedToken, pre_tokenizers

    letters = _letters()
    pairs = [("".join(letters[b] for b in left), "".join(letters[b] for b in right)) for left, right in merges]
    vocabulary = [BOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    known = set(vocabulary)
    for left, right in pairs:
        if left + right not in known:  # two ways may lead to one token
            known.add(left + right)
            vocabulary.append(left + right)
    backend = _empty(vocab={token: i for i, token in enumerate(vocabulary)}, merges=pairs)
    backend.add_special_tokens([AddedToken(BOS, special=True, normalized=False)])
    return backend


def _letters() -> list[str]:
    """Return the printable character that stands for each byte in a byte-level vocabulary (GPT-2)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what foreign code writes to stdout and stderr away from both."""
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, nowhere)
            for descriptor in (1, 2):
                kept = os.dup(descriptor)
                stack.callback(os.close, kept)
                stack.callback(os.dup2, kept, descriptor)
                os.dup2(nowhere, descriptor)
        except OSError:  # one of them is closed: nothing to keep clean there
            pass
        yield
