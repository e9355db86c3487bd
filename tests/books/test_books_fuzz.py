"""Damaged files of every format: no crash, no hang, nothing written; each comes back as a book or a reason.

The seeds are small books made here, and the real files of the development library where it is. The quick part runs
everywhere; `-m slow` runs the whole.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import re
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ltm.books.folder import BookFile
from ltm.books.parallel import FileTask, prepare_file
from ltm.books.prepare import Prepared, Wanted
from ltm.books.readers import read_file
from ltm.records import Rejected

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "books" / "formats"
LIMIT_SECONDS = 10.0
PROSE = "The river ran past the mill, and nobody asked; «никто не спросил», — сказала она. “Why?” It was 1850.\n\n" * 60
MARKUP = [
    b"<",
    b">",
    b"&",
    b"&#0;",
    b"&lt",
    b"<!--",
    b"]]>",
    b"<![CDATA[",
    b"<!DOCTYPE a [<!ENTITY b '",
    b"\x00",
    b"\xff\xfe",
]
TEXTS = [
    b"[", b"{1}", b"*** START OF THE PROJECT GUTENBERG EBOOK ***\n", b"CONTENTS\n", b"\r", b"\xf0\x9f\x98\x80", b"-\n",
    b"[Transcriber's Note:", b"End of the Project Gutenberg", b"\n\n\n\n", b"I.\n\n", b" " * 500, b"_" * 300, b"*END*",
]  # fmt: skip


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def small_books() -> dict[str, bytes]:
    """Return a small honest file of every format, by name."""
    head = "<html><head><title>T</title></head><body><h2>I</h2>"
    page = f"{head}<p>{PROSE}</p><sup>1</sup><pre>a\nb</pre></body></html>".encode()
    xhtml = page.replace(b"<html>", b'<html xmlns="http://www.w3.org/1999/xhtml">')
    opf = (
        b'<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>T</dc:title>'
        b'<dc:creator id="c">A B</dc:creator>'
        b'<meta refines="#c" property="role">aut</meta></metadata><manifest><item id="a" href="a.xhtml" '
        b'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine></package>'
    )
    container = b'<container><rootfiles><rootfile full-path="c.opf"/></rootfiles></container>'
    epub = zipped({"META-INF/container.xml": container, "c.opf": opf, "a.xhtml": xhtml})
    fb2 = (
        '<?xml version="1.0" encoding="utf-8"?><FictionBook><description><title-info><book-title>T</book-title><author>'
        "<last-name>A</last-name></author></title-info></description><body><section><title><p>1</p></title>"
        f"<p>{PROSE}</p>"
        "<poem><stanza><v>a</v></stanza></poem></section></body><binary id='x'>AAAA</binary></FictionBook>"
    ).encode()
    tei = f"<TEI><teiHeader/><text><body><div><head>I</head><p>{PROSE}</p><l>a</l></div></body></text></TEI>".encode()
    gutenberg = (
        "The Project Gutenberg EBook of T, by A B\n\nTitle: T\nAuthor: A B\n\n"
        "*** START OF THIS PROJECT GUTENBERG EBOOK T ***\n\n"
        f"Produced by X\n\nCONTENTS\n\nI. A\nII. B\nIII. C\n\nI. A\n\n{PROSE}\n\nII. B\n\n{PROSE}III. C\n\n{PROSE}\n"
        "End of the Project Gutenberg EBook of T\n\n*** END OF THIS PROJECT GUTENBERG EBOOK T ***\n"
    ).encode()
    lines = b"\n".join(json.dumps({"text": PROSE, "meta": {"title": f"T{n}"}}).encode() for n in range(4))
    return {
        "a.txt": gutenberg,
        "b.txt": PROSE.encode("cp1251", errors="replace"),
        "c.txt": PROSE.encode("utf-16"),
        "a.md": f"---\ntitle: T\nauthor: [A]\n---\n# One\n\n{PROSE}\nTwo\n===\n*x* [y](z)[^1]\n".encode(),
        "a.html": page,
        "a.epub": epub,
        "a.fb2": fb2,
        "a.fb2.zip": zipped({"a.fb2": fb2}),
        "a.xml": tei,
        "a.zip": zipped({"a.txt": gutenberg, "b/c.zip": zipped({"d.fb2": fb2}), "e.epub": epub}),
        "a.tar.gz": tarred({"a.txt": gutenberg, "b.html": page}),
        "a.tar": tarred({"a.txt": gutenberg}, "w"),
        "a.txt.gz": gzip.compress(gutenberg),
        "a.txt.bz2": bz2.compress(gutenberg),
        "a.txt.xz": lzma.compress(gutenberg),
        "a.jsonl": lines,
        "a.jsonl.gz": gzip.compress(lines),
        "a.parquet": parquet([{"title": "T", "text": PROSE}, {"title": "U", "text": ""}]),
    }


def cut(data: bytes, rng: random.Random, _other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip(data: bytes, rng: random.Random, _other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 32, 256))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def remove(data: bytes, rng: random.Random, _other: bytes) -> bytes:
    begin = rng.randrange(len(data))
    return data[:begin] + data[begin + rng.randrange(1, 2000) :]


def repeat(data: bytes, rng: random.Random, _other: bytes) -> bytes:
    begin = rng.randrange(len(data))
    piece = data[begin : begin + rng.choice((1, 16, 500))]
    return data[:begin] + piece * rng.choice((2, 100, 2000)) + data[begin:]


def insert(data: bytes, rng: random.Random, _other: bytes) -> bytes:
    for _ in range(rng.choice((1, 5, 40))):
        begin = rng.randrange(len(data))
        data = data[:begin] + rng.choice(MARKUP + TEXTS) * rng.choice((1, 1, 30)) + data[begin:]
    return data


def splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def fill(data: bytes, rng: random.Random, _other: bytes) -> bytes:
    begin = rng.randrange(len(data))
    return data[:begin] + bytes([rng.choice((0, 32, 255))]) * rng.choice((10, 5000)) + data[begin + 10 :]


MUTATIONS: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (
    cut,
    flip,
    remove,
    repeat,
    insert,
    splice,
    fill,
)


def mutated(seeds: dict[str, bytes], n_cases: int, seed: int) -> list[tuple[str, bytes]]:
    """Return damaged files: one mutation, or two one after the other."""
    rng = random.Random(seed)
    names = sorted(seeds)
    cases = []
    for number in range(n_cases):
        name = names[number % len(names)]
        data = seeds[name]
        for _ in range(rng.choice((1, 1, 2))):
            data = rng.choice(MUTATIONS)(data or b"x", rng, seeds[rng.choice(names)])
        # a file may also lie about what it is
        cases.append((rng.choice(names) if rng.random() < 0.1 else name, data))
    return cases


def check(cases: list[tuple[str, bytes]], folder: Path) -> None:
    slowest = (0.0, "")
    before = sorted(folder.parent.iterdir())
    for number, (name, data) in enumerate(cases):
        path = folder / f"{number}.{name.partition('.')[2]}"
        path.write_bytes(data)
        file = BookFile(path.name, str(path), len(data), 0)
        begin = time.process_time()
        outcome = prepare_file(FileTask(file, 0, {}, {}, Wanted(frozenset(), 1)))
        slowest = max(slowest, (time.process_time() - begin, f"{number} {name}"))
        assert outcome, (number, name)
        for item in outcome:
            if isinstance(item, Rejected):
                assert item.reason
                # a fault that a reader did not foresee is caught, but is a fault all the same
                assert not re.search(r"[A-Z][a-z]+Error:", item.reason), (number, name, item.reason)
            else:
                assert isinstance(item, Prepared)
                assert item.book.n_words > 0
                assert item.book.chapter_starts[0] == 0
                assert item.book.chapter_starts == sorted(set(item.book.chapter_starts))
                assert item.text.isprintable() or not set(item.text) & set("\x00\ue000\ufeff\r")
                item.text.encode()
        path.unlink()
    assert slowest[0] < LIMIT_SECONDS, slowest
    assert sorted(folder.parent.iterdir()) == before
    assert list(folder.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "work"
    inner.mkdir()
    return inner


def test_every_seed_is_read_as_it_is() -> None:
    for name, data in small_books().items():
        found = read_file(data, name)
        assert any(item.book is not None for item in found), (name, found)


def test_damaged_small_files(folder: Path) -> None:
    check(mutated(small_books(), 216, seed=1), folder)


@pytest.mark.slow
def test_many_damaged_small_files(folder: Path) -> None:
    check(mutated(small_books(), 1800, seed=2), folder)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the development library ../shared/books is not here")
def test_damaged_real_files(folder: Path) -> None:
    seeds = {path.name: path.read_bytes() for path in REAL.iterdir() if path.stat().st_size < 1_500_000}
    check(mutated(seeds, 400, seed=3), folder)
