"""Conversations in books: who answers whom, and what of a paragraph is speech."""

from __future__ import annotations

from ltm.dialogue.extract import MOST_WORDS, conversations, exchanges, messages

ENGLISH = """“Where did you leave the boat?” asked Mary.

“By the old mill,” said he. “Nobody saw me.”

“You are sure?”

Mary went to the window and looked out for a long while.

“It rains,” she said at last. “We shall stay,

“and tomorrow we go on, whatever comes.”

“Good.”
"""

RUSSIAN = """— Где ты оставил лодку? — спросила Марья.

— У старой мельницы, — сказал он. — Никто меня не видел.

Марья подошла к окну.

- Дождь, - сказала она.

- Это - не беда.
"""


def _pairs(text: str, language: str) -> list[tuple[str, str]]:
    return [(one.text, two.text) for one, two in exchanges(text, language)]


def test_another_paragraph_is_another_speaker_and_the_narrator_is_left_out() -> None:
    assert _pairs(ENGLISH, "en")[:2] == [
        ("Where did you leave the boat?", "By the old mill. Nobody saw me."),
        ("By the old mill. Nobody saw me.", "You are sure?"),
    ]


def test_a_quotation_that_is_not_closed_goes_on_in_the_same_voice() -> None:
    assert all("It rains" not in one for one, _ in _pairs(ENGLISH, "en"))


def test_speech_after_a_dash_and_a_dash_inside_speech() -> None:
    assert _pairs(RUSSIAN, "ru") == [
        ("Где ты оставил лодку?", "У старой мельницы. Никто меня не видел."),
        ("Дождь.", "Это - не беда."),
    ]


def test_speakers_are_named_where_the_narrator_names_them() -> None:
    (one, _), *_ = exchanges(ENGLISH, "en")
    assert one.speaker == "Mary"
    (one, two), *_ = exchanges(RUSSIAN, "ru")
    assert (one.speaker, two.speaker) == ("Марья", "")


def test_offsets_are_those_of_the_paragraphs() -> None:
    for one, two in exchanges(ENGLISH, "en"):
        assert ENGLISH[one.start] == "“"
        assert ENGLISH[one.start : one.end].strip() in ENGLISH
        assert one.end < two.start


def test_straight_and_single_quotes_and_apostrophes() -> None:
    text = '‘I don’t know,’ he said.\n\n‘Then who does?’\n\n"Ask her."\n\n"I will."'
    assert _pairs(text, "en") == [
        ("I don’t know.", "Then who does?"),
        ("Then who does?", "Ask her."),
        ("Ask her.", "I will."),
    ]


def test_tales_and_narration_are_no_answers() -> None:
    long = "“" + "word " * (MOST_WORDS + 1) + ".”"
    told = (
        "“Yes,” and he went on to tell how the winter had come, how the men had left, and how nobody knew their names."
    )
    assert _pairs(f"“Go on.”\n\n{long}\n\n“I see.”", "en") == []
    assert _pairs(f"“Go on.”\n\n{told}\n\n“I see.”", "en") == []
    assert _pairs("He said nothing.\n\nShe said nothing.", "en") == []


def test_messages_alternate_and_end_with_an_answer() -> None:
    running = next(iter(conversations(ENGLISH, "en")))
    assert [turn["role"] for turn in messages(running)] == ["user", "assistant"]
    assert messages(running)[1]["content"] == "By the old mill. Nobody saw me."
