"""Readers: every format says what it says, and no file, however hostile, does more than be refused."""

from __future__ import annotations

import io
import zipfile

import pytest

from ltm.books.readers import HEADING, read_file
from ltm.books.readers import archive as archive_module
from ltm.books.readers.txt import decode
from ltm.errors import BookError

RUSSIAN = "Ёлка стояла в углу — «прекрасная», как говорили дети; никто уже не помнил, откуда её привезли. " * 30
ENGLISH = "The café on the corner was naïve — “so they said” — and it’s still there. " * 30


def only(data: bytes, name: str):
    found = read_file(data, name)
    assert len(found) == 1
    assert found[0].book is not None, found[0].reason
    return found[0].book


def reason(data: bytes, name: str) -> str:
    found = read_file(data, name)
    assert len(found) == 1
    assert found[0].book is None
    return found[0].reason


def make_zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1251"])
def test_russian_encodings(encoding: str) -> None:
    assert decode(RUSSIAN.encode(encoding)) == RUSSIAN


@pytest.mark.parametrize("encoding", ["koi8-r", "cp866"])
def test_old_russian_encodings(encoding: str) -> None:
    text = RUSSIAN.replace("—", "-").replace("«", '"').replace("»", '"')
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_english_encodings(encoding: str) -> None:
    assert decode(ENGLISH.encode(encoding)) == ENGLISH


def test_latin1_and_declared_encoding() -> None:
    text = "Un élève français à l'école près de la forêt où l'été s'achève. " * 20
    assert decode(text.encode("latin-1")) == text
    assert (
        decode(("Character set encoding: ISO-8859-2\n\n" + "Żółw łąka źdźbło. " * 9).encode("iso8859-2"))[-5:-2]
        == "bło"
    )


def test_a_broken_byte_does_not_turn_utf8_into_something_else() -> None:
    text = decode(RUSSIAN.encode() + b"\xd0")
    assert text.startswith(RUSSIAN)


def test_binary_named_txt_is_refused() -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
    assert "not text" in reason(png, "picture.txt")
    assert "not text" in reason(b"abc\x00\x00\x00\x01\x02" * 500, "nul.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.html", "a.epub", "a.fb2", "a.xml", "a.md"])
def test_empty_file_is_refused(name: str) -> None:
    assert reason(b"", name) == "the file is empty"
    assert reason(b"\n \x00\n", name) == "the file is empty"


def test_unknown_suffix_names_the_known_ones() -> None:
    assert ".epub" in reason(b"%PDF-1.4", "a.pdf")


def test_markdown_headings_fields_and_emphasis() -> None:
    source = (
        "# Title: A Book\n\n## Author: Jane Doe\n\n## Year: 1850\n\n---\n\n## One\n\nSome *loud* [words](http://x).\n"
    )
    book = only(source.encode(), "a.md")
    assert (book.title, book.author, book.year) == ("A Book", "Jane Doe", "1850")
    assert f"{HEADING}One" in book.text
    assert "Some loud words." in book.text
    assert "http" not in book.text


def test_html_keeps_text_and_drops_the_rest() -> None:
    page = (
        "<html><head><title>T</title><style>x{}</style><meta charset='utf-8'><meta name=author content='A. B.'></head>"
        "<body><nav>menu</nav><h2>Chapter&nbsp;I</h2><p>One <i>two</i><span class=pagenum>17</span> three.</p>"
        "<p>line<br>line two</p><script>evil()</script>tail&mdash;end</body></html>"
    )
    book = only(page.encode(), "a.html")
    assert book.author == "A. B."
    assert book.text == f"{HEADING}Chapter\u00a0I\n\nOne two three.\n\nline\nline two\n\ntail—end"


def test_html_in_cp1251_by_its_meta_tag() -> None:
    page = (
        '<html><head><meta http-equiv="Content-Type" content="text/html; charset=windows-1251"></head><body><p>Ёж</p>'
    )
    assert only(page.encode("cp1251"), "a.htm").text == "Ёж"


def make_epub(opf_extra: str = "", **members: bytes) -> bytes:
    container = b'<container><rootfiles><rootfile full-path="O/c.opf"/></rootfiles></container>'
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        "<dc:title>Deep</dc:title><dc:creator>Ann Author</dc:creator><dc:language>en-GB</dc:language></metadata>"
        "<manifest>"
        '<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="a" href="a%20a.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="t" href="t.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="t"/><itemref idref="a"/><itemref idref="b"/><itemref idref="missing"/></spine>'
        "</package>"
    )
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    parts = {
        "META-INF/container.xml": container,
        "O/c.opf": opf.encode(),
        "O/t.xhtml": page.format('<section epub:type="titlepage"><p>TITLE PAGE</p></section>').encode(),
        "O/a a.xhtml": page.format("<h2>First</h2><p>alpha</p>").encode(),
        "O/b.xhtml": page.format("<p>beta</p>").encode(),
    }
    return make_zip({**parts, **{name.replace("__", "/"): data for name, data in members.items()}})


def test_epub_in_spine_order_with_metadata() -> None:
    book = only(make_epub(), "a.epub")
    assert (book.title, book.author, book.language) == ("Deep", "Ann Author", "en")
    assert book.text == f"{HEADING}First\n\nalpha\n\n{HEADING}beta"


def test_locked_epub_is_refused() -> None:
    locked = (
        b'<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptedData><e:CipherData>'
        b'<e:CipherReference URI="O/b.xhtml"/></e:CipherData></e:EncryptedData></encryption>'
    )
    data = make_epub(**{"META-INF__encryption.xml": locked})
    assert "DRM" in reason(data, "a.epub")


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_epub_is_refused(keep: float) -> None:
    data = make_epub()
    assert "damaged" in reason(data[: int(len(data) * keep)], "a.epub")


FB2 = (
    '<?xml version="1.0" encoding="{encoding}"?><FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0">'
    "<description><title-info><genre>poetry</genre><author><first-name>Иван</first-name><last-name>Бунин</last-name></author>"
    "<book-title>Сад</book-title><date value='1900-01-01'>1900</date><lang>ru</lang></title-info>"
    "<document-info><author><nickname>scanner</nickname></author></document-info></description>"
    "<body><section><title><p>Глава 1</p></title><p>Текст<a type='note'>[1]</a> один.</p>"
    "<poem><stanza><v>строка</v><v>вторая</v></stanza></poem></section></body>"
    "<body name='notes'><section><p>сноска</p></section></body><binary>AAAA</binary></FictionBook>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "windows-1251"])
def test_fb2(encoding: str) -> None:
    book = only(FB2.format(encoding=encoding).encode(encoding), "a.fb2")
    assert (book.title, book.author, book.year, book.language, book.genre) == (
        "Сад",
        "Иван Бунин",
        "1900-01-01",
        "ru",
        "poetry",
    )
    assert book.text == f"{HEADING}Глава 1\n\nТекст один.\n\nстрока\nвторая"


def test_zip_of_books_reads_every_member_and_explains_the_others() -> None:
    data = make_zip(
        {
            "one.txt": b"First book.",
            "sub/two.fb2": FB2.format(encoding="utf-8").encode(),
            "inner.zip": make_zip({"x.txt": b"x", "deeper.zip": make_zip({"y.txt": b"y"})}),
            "__MACOSX/._one.txt": b"dropping",
            "photo.jpg": b"\xff\xd8",
        }
    )
    found = {item.member: item for item in read_file(data, "books.zip")}
    assert set(found) == {"one.txt", "sub/two.fb2", "inner.zip/x.txt", "inner.zip/deeper.zip", "photo.jpg"}
    assert found["one.txt"].book is not None
    assert found["sub/two.fb2"].book is not None
    assert "more than two deep" in found["inner.zip/deeper.zip"].reason
    assert "no reader" in found["photo.jpg"].reason


def test_tei() -> None:
    source = (
        '<TEI xmlns="http://www.tei-c.org/ns/1.0" xml:lang="en"><teiHeader><fileDesc><titleStmt>'
        "<title>X : ELTeC edition</title><author>Tupper, Martin (1810-1889).</author></titleStmt>"
        "<sourceDesc><bibl><date>1844</date></bibl>"
        "</sourceDesc></fileDesc></teiHeader><text><body><div><head>CHAPTER I</head><p>Prose.<note>no</note></p>"
        "<lg><l>a</l><l>b</l></lg></div></body></text></TEI>"
    )
    book = only(source.encode(), "a.xml")
    assert (book.title, book.author, book.year, book.language) == ("X", "Tupper, Martin", "1844", "en")
    assert book.text == f"{HEADING}CHAPTER I\n\nProse.\n\na\nb"


def test_archive_bomb_is_refused() -> None:
    data = make_zip({"bomb.txt": b"0" * (64 * 1024**2)})
    assert len(data) < 100_000
    assert "archive bomb" in reason(data, "a.zip")
    assert "archive bomb" in reason(make_epub(**{"O__b.xhtml2": b""})[:0] + make_epub_bomb(), "a.epub")


def make_epub_bomb() -> bytes:
    container = b'<container><rootfiles><rootfile full-path="c.opf"/></rootfiles></container>'
    return make_zip({"META-INF/container.xml": container, "c.opf": b"<a>" + b" " * (32 * 1024**2)})


def test_limits_count_what_comes_out_not_what_the_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_TOTAL_BYTES", 1000)
    data = make_zip({"a.txt": b"word " * 150, "b.txt": b"word " * 150}, zipfile.ZIP_STORED)
    found = read_file(data, "a.zip")
    assert found[0].book is not None
    assert "unpacks to more than" in found[1].reason
    monkeypatch.setattr(archive_module, "MAX_MEMBERS", 1)
    assert "members" in reason(data, "a.zip")


@pytest.mark.parametrize("name", ["../../etc/evil.txt", "/abs/evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_zip_slip_is_refused(name: str) -> None:
    assert "leads out" in reason(make_zip({name: b"text"}), "a.zip")


def test_zip_with_a_password_is_refused() -> None:
    data = bytearray(make_zip({"a.txt": b"secret text"}))
    data[6] |= 1  # the encryption bit of the local header ...
    data[data.index(b"PK\x01\x02") + 8] |= 1  # ... and of the directory
    assert "password" in reason(bytes(data), "a.zip")


def test_damaged_member_is_refused() -> None:
    data = bytearray(make_zip({"a.txt": bytes(range(32, 120)) * 40}))
    data[60] ^= 0xFF
    assert "damaged" in reason(bytes(data), "a.zip")


BOMB = (
    '<!DOCTYPE lolz [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]>"
)


def test_entity_bomb_and_external_entities_are_not_expanded(tmp_path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP SECRET")
    body = "<FictionBook><body><p>before {} after</p></body></FictionBook>"
    for doctype, entity in ((BOMB, "&j;"), (f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{secret}">]>', "&e;")):
        found = read_file((doctype + body.format(entity)).encode(), "a.fb2")[0]
        text = found.book.text if found.book else ""
        assert "SECRET" not in text
        assert "haha" not in text
        assert len(text) < 100


def test_very_deep_markup_is_refused() -> None:
    deep = "<FictionBook><body>" + "<section>" * 5000 + "x" + "</section>" * 5000 + "</body></FictionBook>"
    assert reason(deep.encode(), "a.fb2")


def test_a_fault_inside_a_reader_costs_one_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltm.books.readers.txt.decode", lambda data: 1 / 0)
    assert "ZeroDivisionError" in reason(b"text", "a.txt")


def test_decode_refuses_binary_with_book_error() -> None:
    with pytest.raises(BookError):
        decode(bytes(range(1, 32)) * 100)
