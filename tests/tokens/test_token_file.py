"""Tokens are stored once and whole: after kills, additions, removals and damage each book's ids are its text's ids."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ltm.books.catalogue import TextStore, book_id, write_catalogue
from ltm.errors import DamagedError
from ltm.progress import Progress
from ltm.records import Book, Variant
from ltm.store import WorkFolder, write_rows
from ltm.tokens import encode, stage, token_file
from ltm.tokens.index import read_index
from ltm.tokens.section import TokensSection
from ltm.tokens.tokenizer import load

QUIET = Progress(quiet=True)
SECTION = TokensSection(vocab_size=500, sample_bytes=20_000)


def variant(ids: list[str]) -> Variant:
    return Variant("v", 0, "exploration", 0, 0, "single", "base", ids, "random", "none", 1.0, 1, 7, [1])


@pytest.fixture
def library(tmp_path: Path, kjv_texts: dict[str, str]) -> tuple[WorkFolder, list[str]]:
    work = WorkFolder(tmp_path / "w")
    books = []
    for rank, (title, text) in enumerate(itertools.islice(kjv_texts.items(), 30, 50)):
        TextStore(work).write(book_id(text), text)
        chapters = [0, len(text) // 3, len(text) // 2]
        books.append(
            Book(book_id(text), title, "", None, "en", "", "", "", rank, "train", 1, len(text.encode()), chapters, {})
        )
    write_catalogue(work, books, [])
    return work, sorted(b.book_id for b in books)


def use(work: WorkFolder, ids: list[str]) -> None:
    write_rows(work.path("sets", "variants.parquet"), [variant(ids)], Variant)


def build(work: WorkFolder, ids: list[str]) -> object:
    use(work, ids)
    return stage.build(SECTION, work, 1, QUIET)


def assert_right(work: WorkFolder, ids: list[str]) -> None:
    """Every book in use has exactly the ids that Hugging Face tokenizers gives its chapters."""
    index = read_index(work.path("tokens", "shards.parquet"))
    assert sorted(index) == sorted(ids)
    tokens = np.fromfile(work.path("tokens", "tokens.bin"), dtype=np.uint16)
    backend = load(work)._backend
    for key, shard in index.items():
        text = TextStore(work).read(key)
        bounds = [0, len(text) // 3, len(text) // 2, len(text)]
        pieces = [backend.encode(text[a:b], add_special_tokens=False).ids for a, b in itertools.pairwise(bounds)]
        assert tokens[shard.start : shard.start + shard.n_tokens].tolist() == [i for p in pieces for i in p]
        assert shard.chapter_starts == [0, len(pieces[0]), len(pieces[0]) + len(pieces[1])]
    assert index.end <= len(tokens)
    assert not list(work.path("tokens").glob(".*.tmp"))


class Counting:
    """Counts the books that are encoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> None:
        self.books: list[str] = []
        original = encode.encode_book

        def counted(store, tokenizer, book):
            if len(self.books) == stop_after:
                raise KeyboardInterrupt
            self.books.append(book.book_id)
            return original(store, tokenizer, book)

        monkeypatch.setattr(encode, "encode_book", counted)


def test_books_that_come_later_are_added_and_nothing_is_encoded_twice(library, monkeypatch) -> None:
    work, ids = library
    counting = Counting(monkeypatch)
    first = build(work, ids[:8])
    assert_right(work, ids[:8])
    before = work.path("tokens", "tokens.bin").read_bytes()
    assert build(work, ids[:8]) == first
    build(work, ids[4:])
    assert sorted(counting.books) == ids
    assert work.path("tokens", "tokens.bin").read_bytes()[: len(before)] == before
    assert_right(work, ids[4:])


def test_how_the_file_came_about_does_not_show(library, tmp_path) -> None:
    work, ids = library
    for part in (ids[:5], ids[:9], ids):
        result = build(work, part)
    one_go = WorkFolder(tmp_path / "other")
    shutil.copytree(work.path("books"), tmp_path / "other" / "books")
    assert build(one_go, ids) == result


def test_an_interrupted_build_goes_on_where_it_was(library, monkeypatch) -> None:
    work, ids = library
    monkeypatch.setattr(token_file, "_FLUSH_BYTES", 1)
    with monkeypatch.context() as patch:
        Counting(patch, stop_after=7)
        with pytest.raises(KeyboardInterrupt):
            build(work, ids)
    counting = Counting(monkeypatch)
    build(work, ids)
    assert len(counting.books) == len(ids) - 7
    assert_right(work, ids)


def test_what_lies_behind_the_last_line_is_cut_off(library) -> None:
    work, ids = library
    build(work, ids[:6])
    with open(work.path("tokens", "tokens.bin"), "ab") as file:
        file.write(b"\x01\x02\x03" * 1000)
    with open(work.path("tokens", ".added.jsonl"), "a") as file:
        file.write('["0123456789abcdef", 0, 50')
    build(work, ids)
    assert_right(work, ids)
    build(work, ids)
    assert_right(work, ids)


def test_a_shortened_file_is_noticed_and_mended(library, monkeypatch) -> None:
    work, ids = library
    build(work, ids)
    path = work.path("tokens", "tokens.bin")
    os.truncate(path, path.stat().st_size // 2)
    with monkeypatch.context() as patch:
        Counting(patch, stop_after=2)
        with pytest.raises(KeyboardInterrupt):
            build(work, ids)
    counting = Counting(monkeypatch)
    build(work, ids)
    assert 0 < len(counting.books) < len(ids)
    assert_right(work, ids)


def test_a_damaged_index_costs_time_only(library) -> None:
    work, ids = library
    build(work, ids)
    path = work.path("tokens", "shards.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    build(work, ids)
    assert_right(work, ids)


def test_another_tokenizer_makes_all_anew(library) -> None:
    work, ids = library
    build(work, ids)
    use(work, ids[:3])
    stage.build(SECTION.model_copy(update={"vocab_size": 400}), work, 1, QUIET)
    assert load(work).vocab_size == 400
    assert_right(work, ids[:3])
    assert read_index(work.path("tokens", "shards.parquet")).end * 2 == work.path("tokens", "tokens.bin").stat().st_size


def test_a_file_that_is_mostly_unused_is_written_anew(library) -> None:
    work, ids = library
    build(work, ids)
    large = work.path("tokens", "tokens.bin").stat().st_size
    build(work, ids[5:8])
    assert work.path("tokens", "tokens.bin").stat().st_size < large / 2
    assert_right(work, ids[5:8])
    build(work, ids)
    assert_right(work, ids)


def test_all_cores_give_the_same_file(library, tmp_path, monkeypatch) -> None:
    work, ids = library
    build(work, ids)
    alone = work.path("tokens", "tokens.bin").read_bytes()
    work.path("tokens", "made_from.json").unlink()
    monkeypatch.setattr(encode, "_MIN_BYTES", 1)
    monkeypatch.setattr(encode, "_BATCH_BYTES", 100_000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    build(work, ids)
    assert work.path("tokens", "tokens.bin").read_bytes() == alone
    assert_right(work, ids)


def test_a_missing_text_is_named_and_what_stands_stays(library, monkeypatch) -> None:
    work, ids = library
    path = next(work.path("books", "text").glob(f"*/{ids[-1]}.txt"))
    build(work, ids[:3])
    path.unlink()
    use(work, ids)
    monkeypatch.setattr(stage, "_neutral_sample", lambda *_: ["the old text of the sample " * 900])
    with pytest.raises(DamagedError, match=f"{ids[-1]}.txt is missing"):
        stage.build(SECTION, work, 1, QUIET)


SLOW_BUILD = """
import sys, time
from pathlib import Path
from ltm.progress import Progress
from ltm.store import WorkFolder
from ltm.tokens import encode, stage, token_file
from ltm.tokens.section import TokensSection
token_file._FLUSH_BYTES = 1
original = encode.encode_book
def slowly(*args):
    print("x", flush=True)
    time.sleep(0.05)
    return original(*args)
encode.encode_book = slowly
stage.build(TokensSection(vocab_size=500, sample_bytes=20_000), WorkFolder(Path(sys.argv[1])), 1, Progress(quiet=True))
"""


@pytest.mark.parametrize("after", [3, 11])
def test_kill_minus_nine_loses_the_book_in_hand_alone(library, monkeypatch, after) -> None:
    work, ids = library
    use(work, ids)
    process = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(work.root)], stdout=subprocess.PIPE)
    for _ in range(after):
        assert process.stdout is not None
        process.stdout.readline()
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    counting = Counting(monkeypatch)
    build(work, ids)
    assert len(ids) - after <= len(counting.books) <= len(ids) - after + 1
    assert_right(work, ids)
