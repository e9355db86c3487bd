"""Text to token ids, fast and exact: gigatoken where it gives the ids of Hugging Face tokenizers, else those.

gigatoken remembers how each word was cut and encodes 20 to 60 times as fast as tokenizers do. Its ids are the same
but where the two follow different editions of Unicode: letters that came with Unicode 17 are letters to gigatoken 0.10
and nothing in particular to tokenizers 0.23. A text that has one of them is encoded by tokenizers. Found by comparing
the two on every code point (`tests/tokens/test_encoder.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint32]

# first and last code point of what became a letter or a digit with Unicode 17
NEW_LETTERS = (
    (0x088F, 0x088F), (0x0C5C, 0x0C5C), (0x0CDC, 0x0CDC), (0xA7CE, 0xA7CF), (0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4),
    (0xA7F1, 0xA7F1), (0x10940, 0x10959), (0x10EC5, 0x10EC7), (0x11DB0, 0x11DDB), (0x11DE0, 0x11DE9),
    (0x16EA0, 0x16EB8), (0x16EBB, 0x16ED3), (0x16FF2, 0x16FF6), (0x187F8, 0x187FF), (0x18D09, 0x18D1E),
    (0x18D80, 0x18DF2), (0x1E6C0, 0x1E6DE), (0x1E6E0, 0x1E6E2), (0x1E6E4, 0x1E6E5), (0x1E6E7, 0x1E6ED),
    (0x1E6F0, 0x1E6F4), (0x1E6FE, 0x1E6FF), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD), (0x323B0, 0x33479),
)  # fmt: skip
_ONE_OF_THEM = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in NEW_LETTERS) + "]")
# seven times as fast as the above, and true of everything that the above is true of
_PERHAPS_ONE = re.compile("[\u088f\u0c5c\u0cdc\ua7ce\ua7cf\ua7d2\ua7d4\ua7f1\U00010940-\U00033479]")
_RENEW_CHARACTERS = 200_000_000  # gigatoken forgets no word that it has seen, and a large library has very many
# one of each thing that could be cut differently: contractions, digits, spaces, scripts, marks, joined emoji
_PROBE = (
    "It's 1,000.5 we'LL don’t\n\n  x\t\r\n a_b<|text|> \x00\x85\xa0\u2028\u3000 Ёлка 漢字かな 한국어 ไทย שלום "
    "١٢٣ ½Ⅷ² e\u0301 ǅ ª 👩\u200d👧 🏳\ufe0f\u200d🌈 \ufeff\ufffd ... -- 's"
)


class Encoder:
    """Encodes with the tokenizer that a `tokenizer.json` describes; special tokens in a text are only text."""

    def __init__(self, backend: Any) -> None:
        self._exact = backend
        described: dict[str, Any] = json.loads(backend.to_str())
        self._json = json.dumps({**described, "added_tokens": []})
        self._fast: Callable[[str], Ids] | None = None
        self._until_renewed = 0
        self.slow_because = ""  # why the exact library encodes everything
        if not _is_plain(described):
            self.slow_because = "this tokenizer is not of the kind that ltm trains"
        elif not self._renew():
            self.slow_because = "gigatoken is missing (pip install gigatoken)"
        elif not self._agrees():
            self.slow_because = "gigatoken gives other ids than tokenizers"
        self.fast = not self.slow_because

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, shape (n,); half of a surrogate pair counts as U+FFFD."""
        if not self.fast or has_new_letter(text):
            return self._encode_exactly(text)
        if self._until_renewed < 0:
            self._renew()
        self._until_renewed -= len(text)
        return self._encode_fast(text)

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of several texts; without gigatoken on all cores."""
        if self.fast:
            return [self.encode(text) for text in texts]
        found = self._exact.encode_batch_fast([_whole(text) for text in texts], add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in found]

    def _encode_fast(self, text: str) -> Ids:
        assert self._fast is not None
        try:
            return self._fast(text)
        except TypeError:  # half of a surrogate pair
            return self._fast(_whole(text))

    def _encode_exactly(self, text: str) -> Ids:
        return np.array(self._exact.encode(_whole(text), add_special_tokens=False).ids, dtype=np.uint32)

    def _renew(self) -> bool:
        try:
            from gigatoken import Tokenizer
        except ImportError:
            return False
        try:
            self._fast = Tokenizer.from_json(self._json).encode
        except Exception:  # a kind of tokenizer that it does not know; the other one encodes everything
            return False
        self._until_renewed = _RENEW_CHARACTERS
        return True

    def _agrees(self) -> bool:
        """Return whether the two give the same ids on a few lines that have one of everything."""
        try:
            return bool(np.array_equal(self._encode_fast(_PROBE), self._encode_exactly(_PROBE)))
        except Exception:
            return False


def has_new_letter(text: str) -> bool:
    """Return whether the two libraries might cut a text differently."""
    return not text.isascii() and _PERHAPS_ONE.search(text) is not None and _ONE_OF_THEM.search(text) is not None


def _is_plain(described: dict[str, Any]) -> bool:
    """Return whether a tokenizer is of the kind that the two libraries were compared for: GPT-2's, as ltm trains it.

    A tokenizer that came with a model may have normalisers, other ways to cut text, or tokens that are matched before
    anything is cut; it is not worth a wrong id to encode these faster.
    """
    cutter = described.get("pre_tokenizer") or {}
    model = described.get("model") or {}
    return (
        described.get("normalizer") is None
        and described.get("truncation") is None
        and cutter.get("type") == "ByteLevel"
        and not cutter.get("add_prefix_space", True)
        and cutter.get("use_regex", True)
        and model.get("type") == "BPE"
        and not model.get("ignore_merges")
        and not any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and all(token.get("special") for token in described.get("added_tokens", []))
    )


def _whole(text: str) -> str:
    """Return a text in which halves of surrogate pairs are joined, and those left over are U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
