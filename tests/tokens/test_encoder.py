"""The fast encoder gives the ids of Hugging Face tokenizers, on everything; that library is the reference."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from ltm.tokens import encoder as encoder_module
from ltm.tokens.encoder import NEW_LETTERS, Encoder
from ltm.tokens.tokenizer import BOS, train

PIECES = [
    "'s", "'ll", "’s", "'S", " ", "  ", "\n", "\r\n", "\t", "\x00", "\u00a0", "\u0085", "\u2028", "\u3000", "\u200b",
    "\u200d", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "שלום", "مرحبا", "١٢٣", "½", "Ⅷ",
    "e\u0301", "é", "漢字", "ひらがな",
    "한국어", "ไทย", "Ёлка", "-", "—", "...", "_", "a_b", "123", "1,000.5", "A", "the", BOS, "\ufeff", "\ufffd",
    "\U0010ffff", "\x7f", "\x1c", "ǅ", "ª", "₂", "²",
]  # fmt: skip
CODE_POINTS = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]


@pytest.fixture(scope="module")
def tokenizer(kjv_texts):
    texts = [
        *list(kjv_texts.values())[:12],
        "Ёлка стояла в лесу. " * 50,
        "漢字かな交じり文 " * 50,
        "it's we'll don't 12 345 \n\n" * 40,
    ]
    return train(texts, 1500)


@pytest.fixture(scope="module")
def reference(tokenizer):
    """The ids that Hugging Face tokenizers gives."""
    return lambda text: tokenizer._backend.encode(text, add_special_tokens=False).ids


def test_the_fast_way_is_taken(tokenizer):
    assert tokenizer.encoder.fast


def test_random_texts_of_all_scripts(tokenizer, reference):
    rng = random.Random(3)
    for _ in range(4000):
        pieces = [
            rng.choice(PIECES) if rng.random() < 0.7 else chr(rng.choice(CODE_POINTS))
            for _ in range(rng.randint(0, 40))
        ]
        text = "".join(pieces)
        assert tokenizer.encode(text) == reference(text), ascii(text)


@pytest.mark.parametrize(("first", "last"), NEW_LETTERS)
def test_letters_that_the_two_libraries_know_differently(tokenizer, reference, first, last):
    for point in {first, last, (first + last) // 2}:
        for text in (f"a{chr(point)}'s b", f"{chr(point)}1{chr(point)}", f"плюс {chr(point)}", f"{chr(point)}'ll"):
            assert tokenizer.encode(text) == reference(text), ascii(text)


@pytest.mark.slow
def test_every_code_point_in_every_neighbourhood(tokenizer, reference):
    """Were a letter missing from NEW_LETTERS after an upgrade of either library, this names it."""
    wrong = set()

    def compare(context: str, points: list[int]) -> None:
        text = "".join(context.format(chr(c)) for c in points)
        if tokenizer.encode(text) == reference(text):
            return
        if len(points) == 1:
            wrong.add(hex(points[0]))
            return
        half = len(points) // 2
        compare(context, points[:half])
        compare(context, points[half:])

    for context in ("\n{}'s\n", "\na{}a\n", "\n1{}1\n", "\n.{}.\n", "\n {} x"):
        for start in range(0, len(CODE_POINTS), 4096):
            compare(context, CODE_POINTS[start : start + 4096])
    assert wrong == set()


def test_long_runs_of_one_thing_are_right_and_quick(tokenizer, reference):
    for unit in ("a", " ", "\n", "-", "ab", "🎄", "7", "\x00"):
        text = unit * 60_000
        assert tokenizer.encode(text) == reference(text)


def test_halves_of_surrogate_pairs(tokenizer):
    plain = tokenizer.encode("a\ufffdb🎄")
    assert tokenizer.encode("a\ud800b\ud83c\udf84") == plain  # the second is a whole pair, in two halves
    assert tokenizer.decode(plain) == "a\ufffdb🎄"
    assert tokenizer.encode("\u0c5c\ud800") == tokenizer.encode("\u0c5c\ufffd")


def test_a_start_mark_that_a_book_spells_out_is_text(tokenizer, reference):
    for text in (BOS, f"a {BOS}{BOS} b", f"{BOS[:-1]}{BOS}"):
        assert tokenizer.encode(text) == reference(text)
        assert tokenizer.bos_id not in tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_without_the_fast_library_the_ids_are_the_same(tokenizer, kjv_texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    slow = Encoder(tokenizer._backend)
    assert not slow.fast
    assert "pip install gigatoken" in slow.slow_because
    texts = [kjv_texts["Ruth"], "", "x\ud800", "".join(PIECES)]
    fast = tokenizer.encoder.encode_many(texts)
    for one, other in zip(slow.encode_many(texts), fast, strict=True):
        assert np.array_equal(one, other)


def test_a_library_that_disagrees_is_not_trusted(tokenizer, monkeypatch):
    import gigatoken

    class Wrong:
        @staticmethod
        def from_json(_: str):
            return type("T", (), {"encode": staticmethod(lambda text: np.zeros(len(text), dtype=np.uint32))})

    monkeypatch.setattr(gigatoken, "Tokenizer", Wrong)
    wary = Encoder(tokenizer._backend)
    assert not wary.fast
    assert "other ids" in wary.slow_because
    assert wary.encode("hello").tolist() == tokenizer.encode("hello")


@pytest.mark.parametrize("kind", ["added", "normalizer", "cutter", "prefix", "truncation"])
def test_tokenizers_of_another_kind_are_encoded_exactly(tokenizer, kjv_texts, kind):
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

    other = Tokenizer.from_str(tokenizer._backend.to_str())
    if kind == "added":
        other.add_tokens(["begat", "   "])
    elif kind == "normalizer":
        other.normalizer = normalizers.NFC()
    elif kind == "truncation":
        other.enable_truncation(50)
    elif kind == "prefix":
        other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        split = pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+"), "isolated")
        other.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    other.encode_special_tokens = True
    text = kjv_texts["Ruth"][-3000:] + "   12345 e\u0301 it's"
    encoder = Encoder(other)
    assert not encoder.fast
    assert encoder.encode(text).tolist() == other.encode(text, add_special_tokens=False).ids


def test_its_memory_is_emptied_now_and_then(tokenizer, reference, monkeypatch):
    monkeypatch.setattr(encoder_module, "_RENEW_CHARACTERS", 300)
    renewing = Encoder(tokenizer._backend)
    made = []
    original = renewing._renew
    monkeypatch.setattr(renewing, "_renew", lambda: made.append(1) or original())
    for number in range(40):
        text = f"word{number} and it's {number} more " * 3
        assert renewing.encode(text).tolist() == reference(text)
    assert len(made) > 5


def test_real_books(tokenizer, reference, real_books: Path):
    paths = sorted(p for p in real_books.rglob("*.txt"))
    for path in [*paths[::60], *(p for p in paths if "formats" in p.parts)]:
        text = path.read_bytes().decode("utf-8", "replace")[:120_000]
        assert tokenizer.encode(text) == reference(text), path.name
