"""200 exchanges in each language, read by a person: how many of those that are found are exchanges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltm.dialogue.extract import exchanges

BOOKS = Path(__file__).parents[3] / "shared" / "books"
CHECKED = json.loads((Path(__file__).parent / "checked_exchanges.json").read_text())


@pytest.mark.skipif(not BOOKS.is_dir(), reason="needs the books that were read")
@pytest.mark.parametrize("language", ["en", "ru"])
def test_nine_of_ten_that_are_found_are_exchanges(language: str) -> None:
    found, right, there = 0, 0, 0
    for name, rows in CHECKED[language].items():
        pairs = {
            (one.start, two.start) for one, two in exchanges((BOOKS / language / name).read_bytes().decode(), language)
        }
        for start, answer, is_one in rows:
            there += is_one
            found += (start, answer) in pairs
            right += is_one and (start, answer) in pairs
    assert sum(len(rows) for rows in CHECKED[language].values()) == 200
    assert right / found >= 0.90
    assert right / there >= 0.97  # what mends one kind of mistake does not lose the rest
