"""No file is read twice: after kills, additions, changes and removals the catalogue is the one of a fresh start."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from ltm.books import parallel, prepared, stage
from ltm.books.catalogue import TextStore, read_catalogue, read_rejected
from ltm.books.section import BooksSection
from ltm.progress import Progress
from ltm.store import WorkFolder

QUIET = Progress(quiet=True)
TEXT = "the old river ran past a mill and the child who lived there was never afraid of water or winter"
WORDS = TEXT.split()


def novel(seed: int, n_words: int = 1500) -> str:
    rng = hashlib.shake_256(str(seed).encode()).digest(n_words)
    words = [WORDS[b % len(WORDS)] + ("." if i % 15 == 14 else "") for i, b in enumerate(rng)]
    return "\n\n".join(" ".join(words[i : i + 150]) for i in range(0, n_words, 150))


def author(number: int) -> str:
    return f"Name Writer{chr(97 + number % 26)}{chr(97 + number // 26)} - Book {number}.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    root.mkdir()
    for number in range(12):
        write(root / author(number), novel(number))
    with zipfile.ZipFile(root / "two.zip", "w") as file:
        file.writestr("Jane Zipone - A.txt", novel(70))
        file.writestr("Jane Ziptwo - B.txt", novel(71))
    old(root / "two.zip")
    (root / "empty.txt").write_text("")
    old(root / "empty.txt")
    return root


def write(path: Path, text: str) -> None:
    path.write_text(text)
    old(path)


def old(path: Path, age_seconds: float = 3600) -> None:
    """As if it had lain there for an hour."""
    then = time.time_ns() - int(age_seconds * 1e9)
    os.utime(path, ns=(then, then))


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    return WorkFolder(tmp_path / "work")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, in order."""
    seen: list[str] = []
    original = parallel.prepare_file

    def noted(task):
        seen.append(task.file.relative)
        return original(task)

    monkeypatch.setattr(parallel, "prepare_file", noted)
    return seen


def build(folder: Path, work: WorkFolder, **settings: object) -> object:
    return stage.build(BooksSection(path=str(folder), **settings), work, 1, QUIET)


def assert_as_fresh(folder: Path, work: WorkFolder, result: object, tmp_path: Path, **settings: object) -> None:
    fresh = WorkFolder(tmp_path / "fresh" / str(time.monotonic_ns()))
    assert build(folder, fresh, **settings) == result
    assert read_catalogue(work) == read_catalogue(fresh)
    assert read_rejected(work) == read_rejected(fresh)
    store = TextStore(work)
    for book in read_catalogue(work):
        assert len(store.read(book.book_id).encode()) == book.n_bytes
    texts = {path.name for path in work.path("books", "text").glob("*/*")}
    assert texts == {f"{book.book_id}.txt" for book in read_catalogue(work)}


def test_an_unchanged_library_is_not_read_again(folder, work, read, tmp_path) -> None:
    first = build(folder, work)
    assert len(read) == 14
    read.clear()
    assert build(folder, work) == first
    assert read == []
    assert_as_fresh(folder, work, first, tmp_path)


def test_only_what_is_new_changed_or_told_anew_is_read(folder, work, read, tmp_path) -> None:
    build(folder, work)
    read.clear()
    write(folder / "Ann New - N.txt", novel(50))
    write(folder / author(3), novel(333))
    (folder / author(5)).unlink()
    result = build(folder, work)
    assert sorted(read) == sorted(["Ann New - N.txt", author(3)])
    assert_as_fresh(folder, work, result, tmp_path)
    read.clear()
    (folder / "manifest.csv").write_text(f"file,title\n{author(7)},A better title\n")
    result = build(folder, work)
    assert read == [author(7)]
    assert "A better title" in {book.title for book in read_catalogue(work)}
    assert_as_fresh(folder, work, result, tmp_path)


def test_settings_and_code_that_change_what_is_found_count(folder, work, read, monkeypatch) -> None:
    build(folder, work)
    read.clear()
    build(folder, work, min_words=1200)
    assert len(read) == 14
    read.clear()
    build(folder, work, min_words=1200, held_out_share=0.3, dedupe=False)  # nothing of a single file
    assert read == []
    monkeypatch.setattr(stage, "VERSION", 999)
    build(folder, work, min_words=1200)
    assert len(read) == 14


def test_a_copy_that_stays_when_its_original_goes_has_its_text(folder, work, read, tmp_path) -> None:
    write(folder / "Zed Copier - Copy.txt", novel(2))
    build(folder, work)
    copy = next(row for row in read_rejected(work) if row.step == "duplicate")
    kept = copy.instead
    (folder / kept).unlink()
    read.clear()
    result = build(folder, work)
    assert copy.source in {book.source for book in read_catalogue(work)}
    assert_as_fresh(folder, work, result, tmp_path)


def test_a_file_that_changes_while_its_time_stands_still_is_noticed(folder, work, read, tmp_path) -> None:
    path = folder / author(4)
    path.write_text(novel(4))  # now: it may be written again within the same tick of the clock
    before = path.stat()
    build(folder, work)
    read.clear()
    build(folder, work)
    assert read == []
    path.write_text(novel(40)[: before.st_size].ljust(before.st_size, "."))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = build(folder, work)
    assert read == [author(4)]
    assert_as_fresh(folder, work, result, tmp_path)


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\x00" + b"\xff" * 5000, b"nonsense" * 1000])
def test_a_damaged_store_costs_time_only(folder, work, read, damage, tmp_path) -> None:
    first = build(folder, work)
    path = work.path("books", ".prepared.sqlite")
    for other in path.parent.glob(".prepared.sqlite*"):
        other.unlink()
    path.write_bytes(damage)
    read.clear()
    assert build(folder, work) == first
    assert len(read) == 14


def test_a_smaller_draw_forgets_nothing_but_texts(folder, work, read) -> None:
    first = build(folder, work)
    read.clear()
    build(folder, work, max_books=5)
    assert read == []
    assert build(folder, work) == first
    assert len(read) == 8  # a book that was not drawn lost its text: `two.zip` holds two of those nine
    read.clear()
    build(folder, work)
    assert read == []


def test_a_removed_file_leaves_nothing_behind(folder, work) -> None:
    build(folder, work)
    (folder / author(1)).unlink()
    build(folder, work)
    store = prepared.PreparedStore.of(work, stage.VERSION)
    rows = {row[0] for row in store._database.execute("select relative from files")}
    items = {row[0] for row in store._database.execute("select relative from items")}
    store.close()
    assert author(1) not in rows | items
    assert len(rows) == 13


SLOW_BUILD = """
import sys, time
from pathlib import Path
from ltm.books import parallel, stage
from ltm.books.section import BooksSection
from ltm.progress import Progress
from ltm.store import WorkFolder
original = parallel.prepare_file
def slowly(task):
    print("x", flush=True)
    time.sleep(0.05)
    return original(task)
parallel.prepare_file = slowly
stage.build(BooksSection(path=sys.argv[1]), WorkFolder(Path(sys.argv[2])), 1, Progress(quiet=True))
"""


@pytest.mark.parametrize("after", [2, 9])
def test_kill_minus_nine_loses_the_file_in_hand_alone(folder, work, read, after, tmp_path) -> None:
    command = [sys.executable, "-c", SLOW_BUILD, str(folder), str(work.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result = build(folder, work)
    assert 14 - after <= len(read) <= 14 - after + 1
    assert_as_fresh(folder, work, result, tmp_path)


def test_all_cores_and_the_store_together(folder, work, tmp_path) -> None:
    build(folder, work)
    for number in (20, 21, 22):
        write(folder / author(number), novel(number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "_MIN_BYTES", 1)
        patch.setattr(parallel, "most_workers", lambda: 2)
        result = build(folder, work)
    assert_as_fresh(folder, work, result, tmp_path)
