"""Numbers that describe a book's text; the pattern stage asks which of them make a book worth training on.

The list is fixed before any model is trained (choosing features after seeing scores would find patterns in noise).
Word lists exist for English and Russian; for other languages the features that need one are 0, so compare those
features within one language only. All are computed on the first `SAMPLE_CHARS` characters, from the arrays of
`ltm.books.words`. What depends on the rest of the library (novelty, text vectors, likeness to the eval pools) is in
`ltm.books.library`.
"""

from __future__ import annotations

import functools
import math
import re
import zlib
from collections.abc import Sequence

import numpy as np

from ltm.books import lexicon
from ltm.books.words import Words, belongs, class_table, count_words, find_words

__all__ = ["DEFINITIONS", "SAMPLE_CHARS", "compute", "count_words"]

SAMPLE_CHARS = 64_000
_COMPRESS_BYTES = 32_768  # zlib's ratio depends on the length, so all books give the same
_MTLD_WORDS = 10_000
_MTLD_THRESHOLD = 0.72
_RARE_WORDS = 5_000
_FAR_WORDS = 500

DEFINITIONS: dict[str, str] = {
    "log_words": "natural logarithm of the number of words in the whole book",
    "mean_sentence_words": "words per sentence, mean",
    "sentence_variation": "standard deviation of words per sentence, divided by the mean",
    "mean_word_letters": "letters per word, mean",
    "mean_paragraph_words": "words per paragraph, mean",
    "flesch": "Flesch reading ease (206.8 - 1.015 x words per sentence - 84.6 x syllables per word; "
    "Russian, Oborneva: 206.8 - 1.3 x and 60.1 x); more is easier",
    "mtld": "measure of textual lexical diversity (McCarthy & Jarvis 2010), both directions, first 10,000 words",
    "rare_word_share": "share of the first 5,000 words that occur there once",
    "word_entropy": "entropy of the words' frequencies in the first 5,000 words, bits",
    "common_word_share": "share of words that are among the 50 most frequent of the sample",
    "compression_ratio": "bytes after zlib divided by bytes before, first 32 KiB; less is more repetitive",
    "dialogue_share": "share of paragraphs that begin with a quotation mark or a dash, or quote in their middle",
    "question_share": "question marks behind a word, per sentence, at most 1",
    "exclamation_share": "exclamation marks behind a word, per sentence, at most 1",
    "comma_rate": "commas per word",
    "semicolon_rate": "semicolons and colons per word",
    "dash_rate": "dashes per word",
    "name_density": "capitalised words inside sentences that never occur in lower case, per word",
    "name_recurrence": "share of such names that come back after more than 500 words",
    "name_gap": "natural logarithm of the words between two places of one name, mean",
    "name_variety": "different names per name",
    "first_person_share": "share of words that are first-person pronouns (English, Russian)",
    "second_person_share": "share of words that are second-person pronouns (English, Russian)",
    "third_person_share": "share of words that are third-person pronouns (English, Russian)",
    "narrator_share": "share of first-person pronouns among all pronouns outside dialogue: who tells the story",
    "number_share": "share of words that are numerals, in digits or in words (English, Russian)",
    "past_tense_share": "share of words that look like a past tense (-ed, was, had ...; Russian -л, -ла, -ло, -ли)",
    "connective_share": "share of words that link causes and conditions: because, therefore, if, although ... (en, ru)",
    "speech_share": "share of words about speaking: said, asked, answered ... (English, Russian)",
    "perception_share": "share of words about seeing, hearing and feeling (English, Russian)",
    "mind_share": "share of words about thinking, knowing and wishing (English, Russian)",
    "motion_share": "share of words about going, coming and falling (English, Russian)",
    "time_share": "share of words about time: day, then, soon, before ... (English, Russian)",
    "concrete_share": "share of words for things of the house, the body and nature (English, Russian)",
    "foreign_share": "share of letters that are not of the book's main alphabet",
    "verse_share": "share of lines that stand in paragraphs of several lines (verse, lists)",
    "log_chapter_words": "natural logarithm of the mean number of words in a chapter, whole book",
}

_QUOTED = re.compile(r"\A[\"“«„‘'—–-]|[“«\"][^“”«»\"]{2,300}[”»\"]")
_RUSSIAN_PAST = re.compile(r"^[а-яё]+[аяеиоуыё]л(?:а|о|и|ся|ась|ось|ись)?$")
_MARKS = {"end": ".!?…", "question": "?", "exclamation": "!", "comma": ",", "semicolon": ";:", "dash": "—–"}
_MARK_BITS = {name: np.uint8(1 << place) for place, name in enumerate(_MARKS)}
_VOWEL, _RUSSIAN_VOWEL = np.uint8(64), np.uint8(128)
_LAST_CODE = 0x10000


def compute(
    text: str, language: str, n_words: int, n_chapters: int = 1, words: Words | None = None
) -> dict[str, float]:
    """Return every feature of `DEFINITIONS` for a clean text; all are finite.

    Args:
        text: The clean text; only the first `SAMPLE_CHARS` characters are looked at.
        language: ISO 639-1; chooses word lists and Flesch coefficients.
        n_words: Words of the whole book.
        n_chapters: Chapters of the whole book.
        words: The words of the text where they are known already.
    """
    sample = _Sample(text[:SAMPLE_CHARS], language, words)
    features = {
        "log_words": math.log(max(n_words, 1)),
        "log_chapter_words": math.log(max(n_words / max(n_chapters, 1), 1)),
        "compression_ratio": _compression(sample.text),
    }
    features |= sample.layout()
    if sample.n:
        features |= sample.sentences() | sample.richness() | sample.names() | sample.lists()
    return {name: round(float(features.get(name, 0.0)), 6) + 0.0 for name in DEFINITIONS}


class _Sample:
    """The beginning of a book, as text and as arrays with one element a word."""

    def __init__(self, text: str, language: str, words: Words | None) -> None:
        words = words if words is not None else find_words(text)
        self.text, self.language = text, language
        self.n = int(np.searchsorted(words.ends, len(text), side="right"))
        self.codes = words.codes[: len(text)]
        self.starts, self.ends = words.starts[: self.n], words.ends[: self.n]
        self.hashes, self.capital = words.hashes[: self.n], words.capital[: self.n]
        self.paragraphs = text.split("\n\n")
        newline = self.codes == 10
        doubled = np.zeros(len(self.codes), dtype=bool)
        doubled[1:] = newline[1:] & newline[:-1]
        self.paragraph_of = np.cumsum(doubled)[self.starts] if self.n else np.empty(0, np.int64)
        self.uniques, first, self.inverse, self.counts = np.unique(
            self.hashes, return_index=True, return_inverse=True, return_counts=True
        )
        self.forms = [text[self.starts[i] : self.ends[i]].lower() for i in first]
        self._kinds = _mark_table()[np.minimum(self.codes, _LAST_CODE)]
        self._marks = {name: np.flatnonzero(self._kinds & bit) for name, bit in _MARK_BITS.items()}

    def _in_gap(self, mark: str) -> np.ndarray:
        """Return how many such marks stand between each word and the next one (or the end)."""
        places = self._marks[mark]
        after = np.append(self.starts[1:], len(self.codes))
        return np.searchsorted(places, after) - np.searchsorted(places, self.ends)

    def sentences(self) -> dict[str, float]:
        ends = self._in_gap("end")
        next_capital = np.append(self.capital[1:] | (self.codes[self.starts[1:]] < 58), True)
        short = belongs(self.hashes, lexicon.hashes("abbreviations", self.language))
        initial = self.capital & (self.ends - self.starts == 1) & ~belongs(self.hashes, lexicon.PRONOUN_LETTERS)
        gap = np.append(self.starts[1:], len(self.codes)) - self.ends
        is_short = (short | initial) & (ends == 1) & (gap <= 3)
        new_paragraph = np.append(self.paragraph_of[1:] != self.paragraph_of[:-1], True)
        stops = np.flatnonzero(((ends > 0) & next_capital & ~is_short) | new_paragraph)
        lengths = np.diff(np.append(-1, stops))
        mean = float(lengths.mean())
        question = self._in_gap("question") > 0
        exclamation = (self._in_gap("exclamation") > 0) & ~question
        return {
            "mean_sentence_words": mean,
            "sentence_variation": float(lengths.std()) / mean,
            "question_share": min(1.0, float(question.sum()) / len(stops)),
            "exclamation_share": min(1.0, float(exclamation.sum()) / len(stops)),
            "flesch": self._flesch(mean),
        }

    def _flesch(self, sentence_words: float) -> float:
        vowel = (self._kinds & _VOWEL) != 0
        vowel[1:] &= ~vowel[:-1].copy()
        places = np.flatnonzero(vowel)
        syllables = np.searchsorted(places, self.ends) - np.searchsorted(places, self.starts)
        if self.language == "ru":  # every vowel is a syllable
            places = np.flatnonzero(self._kinds & _RUSSIAN_VOWEL)
            syllables = np.searchsorted(places, self.ends) - np.searchsorted(places, self.starts)
        elif self.language == "en":
            last = self.codes[self.ends - 1] | 32
            before = self.codes[np.maximum(self.ends - 2, 0)] | 32
            silent = (last == ord("e")) & (before != ord("l")) & (before != ord("e")) & (syllables > 1)
            syllables = syllables - silent
        per_word = float(np.maximum(syllables, 1).mean())
        by_sentence, by_word = (1.3, 60.1) if self.language == "ru" else (1.015, 84.6)
        return 206.835 - by_sentence * sentence_words - by_word * per_word

    def richness(self) -> dict[str, float]:
        head = self.inverse[:_RARE_WORDS]
        counts = np.bincount(head)
        counts = counts[counts > 0]
        shares = counts / len(head)
        return {
            "mean_word_letters": float((self.ends - self.starts).mean()),
            "mean_paragraph_words": self.n / len(self.paragraphs),
            "mtld": _mtld(self.inverse[:_MTLD_WORDS]),
            "rare_word_share": float((counts == 1).sum()) / len(head),
            "word_entropy": float(-(shares * np.log2(shares)).sum()),
            "common_word_share": float(np.sort(self.counts)[-50:].sum()) / self.n,
            "comma_rate": len(self._marks["comma"]) / self.n,
            "semicolon_rate": len(self._marks["semicolon"]) / self.n,
            "dash_rate": (len(self._marks["dash"]) + self.text.count("--") + self.text.count(" - ")) / self.n,
        }

    def names(self) -> dict[str, float]:
        """A name is a word that is capitalised after a word or comma and never appears in lower case."""
        gap = self.starts[1:] - self.ends[:-1]
        before = self.codes[self.ends[:-1]]
        inside = np.zeros(self.n, dtype=bool)
        inside[1:] = (gap == 1) & (before == 32) | (gap == 2) & ((before == ord(",")) | (before == ord(";")))
        longer = self.ends - self.starts > 1
        lower = np.zeros(len(self.uniques), dtype=bool)
        lower[self.inverse[~self.capital]] = True
        named = np.zeros(len(self.uniques), dtype=bool)
        named[self.inverse[inside & self.capital & longer]] = True
        named &= ~lower & ~belongs(self.uniques, lexicon.hashes("first_person", "en"))
        is_name = named[self.inverse]
        places = np.flatnonzero(is_name)
        if not len(places):
            return {}
        which = self.inverse[places]
        order = np.argsort(which, kind="stable")
        same = which[order][1:] == which[order][:-1]
        distance = np.diff(places[order])[same]
        n_names = int(named.sum())
        far = len(np.unique(which[order][1:][same][distance > _FAR_WORDS]))
        return {
            "name_density": len(places) / self.n,
            "name_recurrence": far / n_names,
            "name_gap": float(np.log(distance).mean()) if len(distance) else 0.0,
            "name_variety": n_names / len(places),
        }

    def lists(self) -> dict[str, float]:
        def member(name: str) -> np.ndarray:
            return belongs(self.uniques, lexicon.hashes(name, self.language))

        def share(unique: np.ndarray) -> float:
            return float(self.counts[unique].sum()) / self.n

        first, second, third = member("first_person"), member("second_person"), member("third_person")
        digits = np.array([form[0] in "0123456789" for form in self.forms], dtype=bool)
        found = {
            "first_person_share": share(first),
            "second_person_share": share(second),
            "third_person_share": share(third),
            "number_share": share(member("numerals") | digits),
            "connective_share": share(member("connectives")),
            "past_tense_share": share(self._looks_past()),
        }
        groups = lexicon.group_of_forms(self.forms, self.language)
        found |= {f"{group}_share": share(groups == place) for place, group in enumerate(lexicon.GROUPS)}
        quoted = np.array([_QUOTED.search(p) is not None for p in self.paragraphs])
        found["dialogue_share"] = float(quoted.mean())
        told = ~quoted[np.minimum(self.paragraph_of, len(quoted) - 1)]
        own = int((first[self.inverse] & told).sum())
        others = int(((second | third)[self.inverse] & told).sum())
        found["narrator_share"] = own / max(own + others, 1)
        return found

    def _looks_past(self) -> np.ndarray:
        if self.language == "ru":
            return np.array([_RUSSIAN_PAST.match(form) is not None for form in self.forms], dtype=bool)
        if self.language != "en":
            return np.zeros(len(self.forms), dtype=bool)
        ends_ed = np.array([len(form) > 3 and form.endswith("ed") for form in self.forms], dtype=bool)
        return ends_ed | belongs(self.uniques, lexicon.hashes("past", "en"))

    def layout(self) -> dict[str, float]:
        lines = [paragraph.count("\n") + 1 for paragraph in self.paragraphs]
        table = class_table()
        letters = self.codes[(table[np.minimum(self.codes, len(table) - 1)] & 1) != 0]
        cyrillic = int(((letters >= 0x400) & (letters < 0x530)).sum())
        latin = int((letters < 0x250).sum())
        return {
            "verse_share": sum(n for n in lines if n > 1) / max(sum(lines), 1),
            "foreign_share": 1 - max(cyrillic, latin, len(letters) - cyrillic - latin) / max(len(letters), 1),
        }


@functools.cache
def _mark_table() -> np.ndarray:
    """Return what every code point counts as, in bits."""
    table = np.zeros(_LAST_CODE + 1, np.uint8)
    for name, letters in _MARKS.items():
        table[[ord(letter) for letter in letters]] |= _MARK_BITS[name]
    table[lexicon.VOWEL_CODES] |= _VOWEL
    table[lexicon.RUSSIAN_VOWEL_CODES] |= _RUSSIAN_VOWEL
    return table


def _mtld(words: np.ndarray) -> float:
    """Return the measure of `Words` given as numbers, 0 below ten words."""
    if len(words) < 10:
        return 0.0
    order = np.argsort(words, kind="stable")
    repeats = words[order][1:] == words[order][:-1]
    before = np.full(len(words), -1)
    before[order[1:][repeats]] = order[:-1][repeats]
    after = np.full(len(words), len(words))
    after[order[:-1][repeats]] = order[1:][repeats]
    backward = (len(words) - 1 - after)[::-1]
    return (_mtld_one_way(before.tolist()) + _mtld_one_way(backward.tolist())) / 2


def _mtld_one_way(before: Sequence[int]) -> float:
    """Go through a text once; `before` is the last place of the same word, below 0 for none."""
    factors = 0.0
    start = kinds = 0
    for place, last in enumerate(before):
        if last < start:
            kinds += 1  # a new word can only raise the ratio
        elif kinds <= _MTLD_THRESHOLD * (place - start + 1):
            factors += 1
            start, kinds = place + 1, 0
    if start < len(before):
        factors += (1 - kinds / (len(before) - start)) / (1 - _MTLD_THRESHOLD)
    return len(before) / factors if factors > 0 else float(len(before))


def _compression(sample: str) -> float:
    data = sample.encode()[:_COMPRESS_BYTES]
    return len(zlib.compress(data, 6)) / len(data) if data else 0.0
