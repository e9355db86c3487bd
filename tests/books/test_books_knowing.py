"""Words as arrays, title pages, changes, ranks, tables, headers of all kinds: what is known and shown of a book."""

from __future__ import annotations

import gzip
import io
import itertools
import re
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm.books import gutenberg, library, notes, parallel, stage
from ltm.books.catalogue import read_catalogue, read_rejected
from ltm.books.changes import find_edits, undo
from ltm.books.clean import STEPS, clean, trace
from ltm.books.folder import BookFile, read_bytes
from ltm.books.parallel import FileTask, prepare_file
from ltm.books.prepare import Prepared, Wanted
from ltm.books.readers import read_file
from ltm.books.section import BooksSection
from ltm.books.show import describe, text_of
from ltm.books.titlepage import read_title_page
from ltm.books.words import find_words, hash_words
from ltm.errors import BookError, InputError
from ltm.progress import Progress
from ltm.records import Rejected
from ltm.store import WorkFolder

QUIET = Progress(quiet=True)
BODY = "\n\n".join(
    f"It was in the {n}th year of the long and quiet reign, when nobody in the valley expected visitors, that a "
    f"stranger came down road number {n} and asked for water, for bread, and for the name of the village."
    for n in range(60)
)
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@given(st.text(st.sampled_from("aЖёЁ9 _-'’\n.éß漢ﬁ"), max_size=300))
def test_words_are_those_of_the_pattern(text: str) -> None:
    words = find_words(text)
    assert [text[a:b] for a, b in zip(words.starts, words.ends, strict=True)] == WORD.findall(text)


def test_hashes_do_not_see_case_place_and_the_dots_of_io() -> None:
    text = "Ёлка word. " * 20_000 + "ЕЛКА WORD"
    assert len(set(find_words(text).hashes.tolist())) == 2
    many = [f"w{n}x" for n in range(50_000)]
    assert len(hash_words(many)) == 50_000
    assert len(find_words("x" * 200_000 + " y").hashes) == 2


NAMED = "The Project Gutenberg EBook of A Tale, by Ann Author\n\nTitle: A Tale\n\nAuthor: Ann Author\n\n"
SMALL_PRINT = """**The Project Gutenberg Etext of A Tale, by Ann Author**

Please take a look at the important information in this header.

**Welcome To The World of Free Plain Vanilla Electronic Texts**

***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
Why is this small print here?

*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*

"""
AUSTRALIA = """Title: A Tale
Author: Ann Author
* A Project Gutenberg of Australia eBook *
eBook No.: 0100011.txt
Language: English

Project Gutenberg of Australia eBooks are created from printed editions.

"""
START = "*** START OF THIS PROJECT GUTENBERG EBOOK A TALE ***\n\n"
HEADERS = {
    "2004": f"{NAMED}{START}Produced by Someone\n\n",
    "title over two lines": f"{NAMED}*** START OF THE PROJECT GUTENBERG EBOOK A TALE OF\nTHE VALLEY ***\n\n",
    "1994, small print": SMALL_PRINT,
    "1991, no line": "Project Gutenberg's A Tale, by Ann Author\n\nTitle: A Tale\n\n"
    "This etext is in the public domain.\n\n"
    "Information on contacting Project Gutenberg is below.\n\n",
    "Australia": AUSTRALIA,
    "German": f'{NAMED}{START}Dieses Buch wurde uns freundlicherweise vom "Gutenberg Projekt-DE" gegeben.\n\n',
}
FOOTERS = (
    "\n\nEnd of the Project Gutenberg EBook of A Tale, by Ann Author\n\n"
    "*** END OF THIS PROJECT GUTENBERG EBOOK A TALE ***\n\nX",
    "\n\n***END OF THE PROJECT GUTENBERG EBOOK A TALE***\n\n*** This file should be named 1.txt ***\n\n"
    "Updated editions",
    "\n\nEnd of Project Gutenberg's Etext of A Tale, by Ann Author\n",
    "\n\nEnde dieses Projekt Gutenberg Etextes A Tale, von Ann Author\n",
    "\n\nThe end of Project Gutenberg etext of A Tale\n",
)


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("footer", FOOTERS)
def test_every_header_and_footer_of_gutenberg(kind: str, footer: str) -> None:
    raw = HEADERS[kind] + BODY + footer
    assert clean(raw).text == BODY
    known = gutenberg.read_header(raw)
    if kind != "Australia":
        assert known["title"] == "A Tale"
    assert known.get("author", "Ann Author") == "Ann Author"


def test_two_books_in_one_file_and_a_book_about_gutenberg() -> None:
    frame = HEADERS["2004"] + "{}" + FOOTERS[0] + "\n\n"
    assert clean(frame.format(BODY) + frame.format(BODY[::-1])).text.count("It was in the 7th") == 1
    essay = BODY + "\n\nI like Project Gutenberg, and Johannes Gutenberg too.\n\n" + BODY
    assert clean(essay).text == essay


def test_licence_sentences_go_wherever_they_stand() -> None:
    left = "Project Gutenberg-tm electronic works are free, and you may copy it, give it away or re-use it."
    assert clean(f"{BODY}\n\n{left}\n\n{BODY}").text == f"{BODY}\n\n{BODY}"


def test_notes_of_transcribers_go_and_headings_stay() -> None:
    note = "Transcriber's Note\n\nMinor errors were corrected.\nSpelling was left as it was."
    assert clean(f"{BODY}\n\n\n{note}").text == BODY
    assert clean(f"{note}\n\n\nTHE FIRST BOOK\n\n{BODY}").text == f"THE FIRST BOOK\n\n{BODY}"
    inside = f"{BODY}\n\nHe read [Transcriber's note: unclear] on.\n\n{BODY}"
    assert "He read on." in clean(inside).text


def test_footnote_marks_count_up_or_stay() -> None:
    marked = "One thing[1] and two.[2] And three[3], four[4]."
    assert notes.drop_footnote_marks(marked) == "One thing and two. And three, four."
    kept = "In the year[1850] and [12] and x[7] again."
    assert notes.drop_footnote_marks(kept) == kept


def test_running_heads_go_and_chapters_stay() -> None:
    page = BODY[:1800]
    pages = "\n\n".join(f"{page}\n\nTHE OLD MILL {n}" for n in range(11, 31))
    assert "OLD MILL" not in clean(pages).text
    chapters = "\n\n".join(f"CHAPTER {n}\n\n" + BODY[: 900 + 700 * (n % 5)] for n in range(1, 12))
    assert clean(chapters).text.count("CHAPTER") == 11


@settings(max_examples=200, deadline=None)
@given(st.text("ab \n", max_size=200), st.text("ab \n", max_size=200))
def test_edits_always_give_the_other_text_and_back(before: str, after: str) -> None:
    edits = find_edits(before, after)
    assert undo(after, edits) == before
    assert all(a.start + len(a.removed) <= b.start for a, b in itertools.pairwise(edits))


def test_cleaning_is_undone_step_by_step() -> None:
    raw = (HEADERS["1994, small print"] + BODY + "\r\nA hy-\r\nphen and \u00adsoft.[1]\r\n" + FOOTERS[1]).replace(
        "\n", "\r\n"
    )
    text = clean(raw).text
    steps = trace(raw)
    assert [name for name, _ in steps] == [name for name, _ in STEPS]
    for _name, edits in reversed(steps):
        text = undo(text, edits)
    assert text.strip() == raw.strip()


PAGES = [
    ("Rupert of Hentzau\n\nAnthony Hope\n\n1898\n\nCHAPTER I", "Rupert of Hentzau", "Anthony Hope"),
    ("Aeneid\n\nVirgil\n\n19 BC\n\nBOOK I", "Aeneid", "Virgil"),
    ("[The Ball and The Cross by G.K. Chesterton 1909]\n\nI.", "The Ball and The Cross", "G.K. Chesterton"),
    ("LITTLE LORD FAUNTLEROY\n\nBy Frances Hodgson Burnett\n\nI", "Little Lord Fauntleroy", "Frances Hodgson Burnett"),
    ("Александр Пушкин\nКАПИТАНСКАЯ ДОЧКА\nБереги честь", "Капитанская дочка", "Александр Пушкин"),
    ("Денис Иванович Фонвизин. Недоросль\n\nНЕДОРОСЛЬ", "Недоросль", "Денис Иванович Фонвизин"),
    ("Горький Максим\nМещане\n\nСцены", "Мещане", "Максим Горький"),
    ("Л. Н. Толстой\nРУБКА ЛЕСА.", "Рубка леса", "Л. Н. Толстой"),
]


@pytest.mark.parametrize(("text", "title", "author"), PAGES)
def test_title_pages(text: str, title: str, author: str) -> None:
    page = read_title_page(f"{text}\n\n{BODY}", {})
    assert (page.sure["title"], page.sure["author"]) == (title, author)


def test_a_book_without_a_title_page_says_nothing_for_sure() -> None:
    assert read_title_page(BODY, {}).sure == {}
    assert read_title_page("А. О. Смирновой\n\nБез вас хочу сказать вам много\n\n" + BODY, {}).sure == {}


def test_components_do_not_show_the_language() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 128)).astype(np.float32)
    vectors[20:] += 3
    languages = ["en"] * 20 + ["ru"] * 20
    held_out = np.arange(40) % 10 == 0
    values = library.library_features(vectors, languages, held_out, np.full(40, 0.5))
    assert values.shape == (40, len(library.DEFINITIONS))
    assert np.isfinite(values).all()
    assert np.abs(values[:20, 2:].mean(axis=0)).max() < 1e-6
    assert np.allclose(values[:, 2:].std(axis=0), 1, atol=1e-5)
    assert values[held_out, 1].mean() > values[~held_out, 1].mean()
    one = library.library_features(vectors[:1], ["en"], np.array([True]), np.ones(1))
    assert np.isfinite(one).all()


def library_of(root: Path, n: int = 8) -> Path:
    root.mkdir()
    rng = np.random.default_rng(2)
    for number in range(n):
        words = rng.choice(["mill", "river", "night", "asked", "seven", "the", "of", "and", "water", "gold"], 2000)
        (root / f"Ann Writer{chr(97 + number)} - Book {number}.txt").write_text(". ".join(words))
    rows = [f"Ann Writer{chr(97 + n)} - Book {n}.txt,{(n * 5) % 8 or ''}" for n in range(n)]
    (root / "manifest.csv").write_text("file,Downloads\n" + "\n".join(rows) + "\n")
    return root


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    made = WorkFolder(tmp_path / "work")
    made.create()
    return made


def test_the_best_by_a_column_stay_and_the_others_say_their_place(tmp_path: Path, work: WorkFolder) -> None:
    root = library_of(tmp_path / "library")
    stage.build(BooksSection(path=str(root), rank_by="downloads", keep_best=5), work, 1, QUIET)
    books = read_catalogue(work)
    assert [book.rating for book in books] == [7, 6, 5, 4, 3]
    assert [book.rank for book in books] == [0, 1, 2, 3, 4]
    reasons = sorted(row.reason for row in read_rejected(work))
    assert reasons[0] == "no downloads is given; books.keep_best is 5"
    assert reasons[1] == "place 6 of 8 by downloads (2); books.keep_best is 5"
    assert stage.report(work)["rejected_by_reason"]["rank: place N of N by downloads; books.keep_best is N"] == 2
    stage.build(BooksSection(path=str(root), rank_by="-downloads", keep_best=4), work, 1, QUIET)
    assert [book.rating for book in read_catalogue(work)] == [1, 2, 3, 4]
    stage.build(BooksSection(path=str(root), rank_by="quality", keep_best=4), work, 1, QUIET)
    assert len(read_catalogue(work)) == 4
    with pytest.raises(InputError, match="downlods") as caught:
        stage.build(BooksSection(path=str(root), rank_by="downlods"), work, 1, QUIET)
    assert "downloads" in caught.value.hint
    with pytest.raises(ValueError, match="rank_by"):
        BooksSection(path="x", keep_best=5)


def test_show_tells_what_was_taken_away(tmp_path: Path, work: WorkFolder) -> None:
    root = library_of(tmp_path / "library")
    source = root / "Zed Last - Shown.txt"
    source.write_text(HEADERS["2004"] + BODY + FOOTERS[0])
    section = BooksSection(path=str(root))
    stage.build(section, work, 1, QUIET)
    book = next(book for book in read_catalogue(work) if book.title == "A Tale")
    assert (book.author, book.licence) == ("Ann Author", "Project Gutenberg License")
    value = describe(section, book)
    pieces = value["removed_text"]["Gutenberg header and licence"]["pieces"]
    assert any("START OF THIS PROJECT" in removed for _, removed, _ in pieces)
    assert value["removed"]["credits"] > 0
    assert "Produced by Someone" in text_of(value)
    source.write_text(source.read_text().replace("It was in the 3th", "It is the 3th"))
    assert "changed since" in describe(section, book)["note"]
    source.unlink()
    assert "not in the library" in describe(section, book)["note"]


def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(_data: bytes) -> str:
        while True:
            pass

    path = tmp_path / "slow.txt"
    path.write_text(BODY)
    monkeypatch.setattr("ltm.books.readers.txt.decode", forever)
    monkeypatch.setattr(parallel, "LIMIT_SECONDS", 0.2)
    task = FileTask(BookFile("slow.txt", str(path), 100, 0), 0, {}, {}, Wanted(frozenset(), 1))
    before = signal.getsignal(signal.SIGVTALRM)
    (row,) = prepare_file(task)
    assert isinstance(row, Rejected)
    assert "s of computing" in row.reason
    assert signal.getsignal(signal.SIGVTALRM) == before


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    real = open

    def touching(name: str, mode: str):
        stream = real(name, mode)
        read = stream.read

        class Stream:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                stream.close()

            def fileno(self):
                return stream.fileno()

            def read(self, size):
                data = read(size)
                path.write_text("two and more")
                return data

        return Stream()

    monkeypatch.setattr("ltm.books.folder.open", touching, raising=False)
    with pytest.raises(BookError, match="changed while it was read"):
        read_bytes(BookFile("a.txt", str(path), 3, 0))


def test_rows_of_tables_are_books_with_their_metadata() -> None:
    lines = b'{"text": "One.", "meta": {"title": "T", "authors": ["A", "B"]}}\n\n[1]\nbad\n{"n": 1}\n"just text"\n'
    found = read_file(gzip.compress(lines), "x.jsonl.gz")
    assert [item.member for item in found] == ["line 1", "line 3", "line 4", "line 5", "line 6"]
    assert found[0].book is not None
    assert (found[0].book.title, found[0].book.author) == ("T", "A; B")
    assert found[4].book is not None
    assert found[4].book.text == "just text"
    assert "not JSON" in found[2].reason
    assert "holds no text" in found[3].reason
    named = read_file(b'{"text": "short", "story": "the one"}\n', "x.jsonl", "story")
    assert named[0].book is not None
    assert named[0].book.text == "the one"


def test_tar_links_bombs_and_names_that_lead_out() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name in ("good.txt", "../evil.txt"):
            info = tarfile.TarInfo(name)
            info.size = 5
            file.addfile(info, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    found = {item.member: item for item in read_file(buffer.getvalue(), "a.tar.gz")}
    assert found["good.txt"].book is not None
    assert "leads out" in found["../evil.txt"].reason
    assert "not followed" in found["link.txt"].reason
    assert "archive bomb" in read_file(gzip.compress(b"0" * 40_000_000), "a.txt.gz")[0].reason


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"PK\x03\x04rest", "a.txt", "a zip archive"),
        (b"%PDF-1.4 rest", "a.txt", "a PDF"),
        (b"\x89PNG\r\n\x1a\n rest", "a.epub", "a picture"),
    ],
)
def test_a_file_that_is_something_else_says_so(data: bytes, name: str, said: str) -> None:
    assert said in read_file(data, name)[0].reason


def test_xml_that_lies_about_its_encoding_is_read_right() -> None:
    book = '<?xml version="1.0" encoding="{}"?><FictionBook><body><p>{{}}</p></body></FictionBook>'
    words = "Ёжик & туман в лесу"
    for said, real in (("windows-1251", "utf-8"), ("utf-8", "windows-1251"), ("utf-16", "utf-8")):
        text = (book.format(said).format(words) + " " * 10).encode(real)
        item = read_file(text, "a.fb2")[0]
        assert item.book is not None, (said, real, item.reason)
        assert item.book.text == words, (said, real, item.reason)


def test_prepared_books_know_scenes_rights_and_quality(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"CHAPTER I\n\n{BODY}\n\n* * *\n\n{BODY}\n\nCHAPTER II\n\n{BODY}")
    task = FileTask(BookFile("a.txt", str(path), path.stat().st_size, 0), 0, {}, {}, Wanted(frozenset(), 1))
    (item,) = prepare_file(task)
    assert isinstance(item, Prepared)
    assert len(item.book.chapter_starts) == 2
    assert len(item.book.scene_starts) == 3
    assert set(item.book.chapter_starts) < set(item.book.scene_starts)
    assert item.book.licence == "unknown"
    assert 0 < item.book.quality <= 1
