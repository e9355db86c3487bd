"""What tests share: where the development books lie, and how to write a small library of one's own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import ARGUMENTS, CHROMIUM

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["LTM_CACHE"] = tempfile.mkdtemp(prefix="ltm-tests-")  # no test learns from, or teaches, the user's machine

REAL_BOOKS = Path(__file__).parents[2] / "shared" / "books"


@pytest.fixture(scope="session")
def real_books() -> Path:
    """A folder of real books beside the project; absent for most people."""
    if not REAL_BOOKS.is_dir():
        pytest.skip("no folder of real books beside the project (../shared/books)")
    return REAL_BOOKS


@pytest.fixture(scope="session")
def kjv_texts() -> dict[str, str]:
    """The text of each book of the embedded library, by title."""
    from ltm.books import kjv

    return {book.title: book.text for book in kjv.load()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser; it starts only for tests that ask for it."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()
