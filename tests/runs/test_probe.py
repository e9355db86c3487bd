"""The rehearsal's training: by the code that the study's own runs will be trained by."""

from types import SimpleNamespace

import pytest

from ltm.model.section import ModelSection
from ltm.runs import capabilities, probe
from ltm.runs.queue import Recipe
from ltm.runs.section import RunsSection
from ltm.sets.section import SetsSection


@pytest.fixture(autouse=True)
def tokens(monkeypatch):
    monkeypatch.setattr(probe, "load", lambda _: SimpleNamespace(vocab_size=512))
    monkeypatch.setattr(probe, "room", lambda *_: (1024, 5e9))
    monkeypatch.setattr(capabilities, "has_compiler", lambda: True)


def as_the_study(book_tokens, **runs):
    sets = SetsSection(books_per_set=10, book_tokens=book_tokens)
    return probe._as_the_study(None, Recipe(sets, ModelSection(size="llama-1m"), RunsSection(device="cpu", **runs)))


def test_long_runs_are_rehearsed_compiled_and_short_ones_are_not():
    long, micro_tokens, free_bytes = as_the_study(1_000_000)
    assert long.runs.compile is True
    assert (micro_tokens, free_bytes) == (1024, 5e9)
    short, _, _ = as_the_study(100)
    assert short.runs.compile is False


def test_what_the_study_says_of_compiling_stands():
    assert as_the_study(1_000_000, compile=False)[0].runs.compile is False
    assert as_the_study(100, compile=True)[0].runs.compile is True
