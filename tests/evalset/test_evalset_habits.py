"""Books that set punctuation otherwise than English ones: as many passages, and damage elsewhere is still damage."""

import numpy as np
import pytest

from ltm.evalset.habits import as_usual
from ltm.evalset.passages import EvalBook
from ltm.evalset.sentences import sentences
from ltm.records import Book

FRENCH = (
    "Il entra lentement ; elle sortit. « Qui est là ? » demanda-t-elle. Elle dit : « C’est moi ! » Élise répondit-elle."
)
GERMAN = "»Wer ist da?« fragte sie. Er sagte: »Ich bin es.« Über dem Haus stand der Mond; niemand kam."
SWEDISH = "”Vem är där?” frågade hon. Han svarade: ”Det är jag.” Åter blev det tyst i huset."
SPANISH = "«¿Quién es?», preguntó ella. —Soy yo —dijo él—. Él entró. ¿Por qué no? ¡Qué noche!"
BOOKS = {
    "French": FRENCH,
    "French without spaces": FRENCH.replace(" ;", ";").replace(" ?", "?").replace(" :", ":").replace(" !", "!"),
    "French, close": "Il entra; elle sortit. «Qui est là?» demanda-t-elle. «C’est moi!» Élise répondit-elle.",
    "German": GERMAN,
    "German, low marks": GERMAN.replace("»", "„").replace("«", "“"),
    "Swedish": SWEDISH,
    "Swedish, guillemets": SWEDISH.replace("”", "»"),
    "Spanish": SPANISH,
    "Polish": "„Kto tam?” spytała ona. Łukasz odparł: „To ja, jestem.” Świt był blisko; nikt nie szedł dalej.",
}
ENGLISH = "“Who is it?” she asked. He said: “It is I.” The moon stood above the house; nobody came."


def of(text):
    book = Book("b", "T", "A", None, "xx", "g", "s", "pd", 0, "eval_a", len(text.split()), len(text), [0], {})
    return EvalBook.of(book, text)


def passages(text):
    book = of(text)
    spans = [book.span(first, 60) for first in book.tiles(60, np.random.default_rng(0))]
    return [book.slice(span) for span in spans if span], len(spans)


@pytest.mark.parametrize("text", BOOKS.values(), ids=BOOKS)
def test_a_book_gives_passages_whatever_its_marks(text):
    found, tiles = passages("\n\n".join([text] * 200))
    assert tiles > 40
    assert len(found) >= 0.95 * tiles
    marks = (".", "!", "?", ".«", ".“", ".”", ".»", "! »")
    assert all(piece.endswith(marks) for piece in found)
    assert all(piece.count("„") == piece.count("“") for piece in found if "„" in piece and "“" in piece)


@pytest.mark.parametrize("text", BOOKS.values(), ids=BOOKS)
def test_a_book_is_read_with_every_offset_in_its_place(text):
    text = "\n\n".join([text] * 20)
    usual = as_usual(text, 0, len(text))
    assert len(usual) == len(text)
    assert as_usual(usual, 0, len(usual)) == usual
    assert all(s.sound for s in sentences(text, 0, len(text)))


def test_short_speech_is_no_heading():
    text = "\n\n".join(["»Ja.«", "»Nein.«", GERMAN] * 20)
    found = [s for s in sentences(text, 0, len(text)) if text[s.start : s.end] in ("»Ja.«", "»Nein.«")]
    assert len(found) == 40
    assert all(s.sound and s.closes and s.opens for s in found)


@pytest.mark.parametrize(
    "damaged",
    ["He went out ; nobody saw him.", "He was there” that night.", "He was »there and then.", "Who is it ? he asked."],
)
def test_what_is_rare_in_a_book_is_damage(damaged):
    text = "\n\n".join([*[ENGLISH] * 20, damaged, *[ENGLISH] * 20])
    assert as_usual(text, 0, len(text)) is text
    assert [text[s.start : s.end] for s in sentences(text, 0, len(text)) if not s.sound] == [damaged]


def test_marks_that_lack_their_partner_are_told_in_every_habit():
    text = "\n\n".join([*[GERMAN] * 20, "Er war da« und ging.", *[GERMAN] * 20])
    assert [text[s.start : s.end] for s in sentences(text, 0, len(text)) if not s.sound] == ["Er war da« und ging."]


@pytest.mark.parametrize("text", ["", "\n\n", "It was so. " * 300 + "\n\n", "* * *"])
def test_a_book_without_paragraphs_holds_nothing(text):
    book = of(text)
    assert list(book.tiles(60, np.random.default_rng(0))) == []
    assert book.names == []
    assert book.span(0, 60) is None
