"""The fast trainer writes the very file that Hugging Face's trainer writes."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from ltm.tokens import train as train_module
from ltm.tokens.train import BOS, train_backend

CORPORA = {
    "one word": ["banana"],
    "nothing": [],
    "empty texts": ["", ""],
    "spaces": ["   \n\n\t  "],
    "ties": ["ab cd ef gh ba dc fe hg"],
    "one letter": ["aaaaaaaaaaaaaaaa aaaa aa a"],
    "scripts": ["Ёлка и ёлка, шестьсот шестьдесят 漢字かな 한국어 שלום ١٢٣ 🎄🎄 e\u0301 é\n\n" * 3],
    "start marks": [f"a {BOS} b {BOS} text text {BOS}{BOS}"] * 3,
    "borders": ["the th", "e the", "he the\n", "\nthe"],
    "controls": ["\x00\x00\x00 \x01\x7f \x85 \xa0\xa0\xa0"],
    "surrogates": ["good \ud800 bad \udfff bad"],
}


@pytest.fixture(autouse=True)
def always_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train small corpora the fast way too."""
    monkeypatch.setattr(train_module, "_SMALL_BYTES", 1)


def assert_same(texts: list[str], vocab_size: int) -> None:
    fast, slow = train_backend(iter(texts), vocab_size), train_module._slowly(iter(texts), vocab_size)
    assert fast.to_str() == slow.to_str()


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("vocab_size", [257, 262, 400])
def test_small_corpora(name: str, vocab_size: int) -> None:
    assert_same(CORPORA[name], vocab_size)


def test_random_corpora_full_of_ties() -> None:
    rng = random.Random(9)
    for _ in range(60):
        letters = rng.choice(["ab", "abcde", "аяё е", "xyz \n", "a🎄é ", "0123456789., "])
        texts = ["".join(rng.choices(letters, k=rng.randint(1, 200))) for _ in range(rng.randint(1, 6))]
        assert_same(texts, rng.choice([258, 270, 300, 600]))


def test_the_embedded_library(kjv_texts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(kjv_texts.values())[:20]
    slow = train_module._slowly(iter(texts), 2048).to_str()
    monkeypatch.setattr(train_module, "_slowly", None)  # so that only the fast way is there
    assert train_backend(iter(texts), 2048).to_str() == slow


def test_letters_that_the_two_libraries_know_differently() -> None:
    assert_same(["x\u0c5c's \u0c5c's y's \U000323b0's " * 200], 300)


def test_real_books(real_books: Path) -> None:
    texts = [p.read_bytes().decode("utf-8", "replace")[:20_000] for p in sorted(real_books.rglob("*.txt"))[::8]]
    assert_same(texts, 4096)


def test_training_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    train_backend(["some text"], 300)
    print("after")
    out, err = capfd.readouterr()
    assert (out, err) == ("before\nafter\n", "")


def test_without_the_fast_library_the_file_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = train_backend(CORPORA["scripts"], 400).to_str()
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert train_backend(CORPORA["scripts"], 400).to_str() == fast
