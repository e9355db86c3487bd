"""Numbers that describe a book's text; the pattern stage asks which of them make a book worth training on.

The list is fixed before any model is trained (choosing features after seeing scores would find patterns in noise).
Word lists exist for English and Russian; for other languages the features that need one are 0, so compare those
features within one language only. All are computed on the first `SAMPLE_CHARS` characters.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
import statistics
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib.resources import files

SAMPLE_CHARS = 100_000
_COMPRESS_BYTES = 65_536  # zlib's ratio depends on the length, so all books give the same
_MTLD_WORDS = 15_000
_MTLD_THRESHOLD = 0.72
_RARE_WORDS = 5_000

DEFINITIONS: dict[str, str] = {
    "log_words": "natural logarithm of the number of words in the whole book",
    "mean_sentence_words": "words per sentence, mean",
    "sentence_variation": "standard deviation of words per sentence, divided by the mean",
    "mean_word_letters": "letters per word, mean",
    "mean_paragraph_words": "words per paragraph, mean",
    "flesch": "Flesch reading ease (206.8 - 1.015 x words per sentence - 84.6 x syllables per word; "
    "Russian, Oborneva: 206.8 - 1.3 x and 60.1 x); more is easier",
    "mtld": "measure of textual lexical diversity (McCarthy & Jarvis 2010), both directions, first 15,000 words",
    "rare_word_share": "share of the first 5,000 words that occur there once",
    "compression_ratio": "bytes after zlib divided by bytes before, first 64 KiB; less is more repetitive",
    "dialogue_share": "share of paragraphs that begin with a quotation mark or a dash, or quote in their middle",
    "question_share": "share of sentences that end with a question mark",
    "exclamation_share": "share of sentences that end with an exclamation mark",
    "name_density": "capitalised words inside sentences that never occur in lower case, per word",
    "name_recurrence": "share of such names that come back after more than 500 words",
    "first_person_share": "share of words that are first-person pronouns (English, Russian)",
    "number_share": "share of words that are numerals, in digits or in words (English, Russian)",
    "past_tense_share": "share of words that look like a past tense (-ed, was, had ...; Russian -л, -ла, -ло, -ли)",
    "connective_share": "share of words that link causes and conditions: because, therefore, if, although ... (en, ru)",
    "verse_share": "share of lines that stand in paragraphs of several lines (verse, lists)",
}

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_NO_WORDS = " \n.!?…\"'”’»)]}([{«“‘—–-*_"
_SENTENCE = re.compile(r"[^.!?…]*[.!?…]+[\"'”’»)\]]*|[^.!?…]+$")
_QUOTED_START = re.compile(r"^[\"“«„‘'—–-]")
_QUOTED_INSIDE = re.compile(r"[“«\"][^“”«»\"]{2,300}[”»\"]")
_INSIDE = re.compile(r"[\w,;] ([^\W\d_][\w’'-]+)")
_ENGLISH_I = re.compile(r"I['’]\w+$")
_VOWELS = re.compile(r"[aeiouyàâäéèêëîïôöùûüаеёиоуыэюя]+")
_RUSSIAN_VOWELS = re.compile(r"[аеёиоуыэюя]")
_RUSSIAN_PAST = re.compile(r"[а-яё]+[аяеиоуыё]л(?:а|о|и|ся|ась|ось|ись)?$")


def count_words(text: str) -> int:
    """Return the number of words: runs of letters and digits, joined by inner apostrophes and hyphens.

    >>> count_words("Don't look back, half-wit!")
    3
    """
    return len(_WORD.findall(text))


def compute(text: str, language: str, n_words: int) -> dict[str, float]:
    """Return every feature of `DEFINITIONS` for a clean text; all are finite.

    Args:
        text: The clean text; only the first `SAMPLE_CHARS` characters are looked at.
        language: ISO 639-1; chooses word lists and Flesch coefficients.
        n_words: Words of the whole book.
    """
    sample = text[:SAMPLE_CHARS]
    paragraphs = sample.split("\n\n")
    words = _WORD.findall(sample)
    lower = [word.casefold().replace("’", "'") for word in words]
    counts = Counter(lower)
    features = {"log_words": math.log(max(n_words, 1))}
    features["mean_word_letters"] = sum(map(len, words)) / max(len(words), 1)
    features |= _sentences(sample)
    features["mean_paragraph_words"] = len(words) / max(len(paragraphs), 1)
    features["flesch"] = _flesch(counts, features["mean_sentence_words"], language)
    features["mtld"] = _mtld(lower[:_MTLD_WORDS])
    features["rare_word_share"] = _once(lower[:_RARE_WORDS])
    features["compression_ratio"] = _compression(sample)
    features["dialogue_share"] = _dialogue(paragraphs)
    features |= _names(sample, words, lower)
    numerals = _word_list("numerals", language)
    features["first_person_share"] = _share(counts, _word_list("first_person", language).__contains__)
    features["number_share"] = _share(counts, lambda word: word in numerals or word.isdigit())
    features["past_tense_share"] = _share(counts, _looks_past(language))
    features["connective_share"] = _share(counts, _word_list("connectives", language).__contains__)
    features["verse_share"] = _verse(paragraphs)
    return {name: round(features[name], 6) if math.isfinite(features[name]) else 0.0 for name in DEFINITIONS}


def _sentences(sample: str) -> dict[str, float]:
    pieces = [piece for paragraph in sample.split("\n\n") for piece in _SENTENCE.findall(paragraph)]
    counted = [(piece, n) for piece in pieces if (n := len(piece.split())) and piece.strip(_NO_WORDS)]
    lengths = [n for _, n in counted] or [0]
    mean = statistics.fmean(lengths)
    tails = [sentence.rstrip("\"'”’»)] \n") for sentence, _ in counted]
    return {
        "mean_sentence_words": mean,
        "sentence_variation": statistics.pstdev(lengths) / mean if mean else 0.0,
        "question_share": sum(tail.endswith("?") for tail in tails) / max(len(tails), 1),
        "exclamation_share": sum(tail.endswith("!") for tail in tails) / max(len(tails), 1),
    }


def _flesch(counts: Counter[str], sentence_words: float, language: str) -> float:
    pattern = _RUSSIAN_VOWELS if language == "ru" else _VOWELS
    syllables = sum(n * max(1, _syllables(word, pattern, language)) for word, n in counts.items())
    per_word = syllables / max(counts.total(), 1)
    by_sentence, by_word = (1.3, 60.1) if language == "ru" else (1.015, 84.6)
    return 206.835 - by_sentence * sentence_words - by_word * per_word


def _syllables(word: str, pattern: re.Pattern[str], language: str) -> int:
    n = len(pattern.findall(word))
    silent_e = language == "en" and word.endswith("e") and not word.endswith(("le", "ee")) and n > 1
    return n - 1 if silent_e else n


def _mtld(words: list[str]) -> float:
    if len(words) < 10:
        return 0.0
    return (_mtld_one_way(words) + _mtld_one_way(words[::-1])) / 2


def _mtld_one_way(words: list[str]) -> float:
    factors = 0.0
    seen: set[str] = set()
    length = 0
    for word in words:
        seen.add(word)
        length += 1
        if len(seen) / length <= _MTLD_THRESHOLD:
            factors += 1
            seen.clear()
            length = 0
    if length:
        factors += (1 - len(seen) / length) / (1 - _MTLD_THRESHOLD)
    return len(words) / factors if factors > 0 else float(len(words))


def _once(words: list[str]) -> float:
    return sum(n == 1 for n in Counter(words).values()) / max(len(words), 1)


def _compression(sample: str) -> float:
    data = sample.encode()[:_COMPRESS_BYTES]
    return len(zlib.compress(data, 6)) / len(data) if data else 0.0


def _dialogue(paragraphs: list[str]) -> float:
    spoken = sum(bool(_QUOTED_START.match(p) or _QUOTED_INSIDE.search(p)) for p in paragraphs)
    return spoken / max(len(paragraphs), 1)


def _names(sample: str, words: list[str], lower: list[str]) -> dict[str, float]:
    """A name is a word that is capitalised after a word or comma and never appears in lower case."""
    ordinary = {word for word in set(words) if word[0].islower()}
    after_word = set(_INSIDE.findall(sample))
    names = {
        word.casefold().replace("’", "'")
        for word in after_word
        if word[0].isupper() and word.casefold() not in ordinary and not _ENGLISH_I.match(word)
    }
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(lower):
        if word in names:
            places[word].append(place)
    far = sum(any(b - a > 500 for a, b in itertools.pairwise(p)) for p in places.values())
    return {
        "name_density": sum(map(len, places.values())) / max(len(lower), 1),
        "name_recurrence": far / max(len(places), 1),
    }


def _share(counts: Counter[str], belongs: Callable[[str], bool]) -> float:
    return sum(n for word, n in counts.items() if belongs(word)) / max(counts.total(), 1)


@functools.cache
def _word_list(name: str, language: str) -> frozenset[str]:
    table = json.loads(files("ltm").joinpath("data", "word_lists.json").read_text(encoding="utf-8"))
    return frozenset(str(table[name].get(language, "")).split())


def _looks_past(language: str) -> Callable[[str], bool]:
    irregular = _word_list("past", language)
    if language == "en":
        return lambda word: (len(word) > 3 and word.endswith("ed")) or word in irregular
    if language == "ru":
        return lambda word: bool(_RUSSIAN_PAST.match(word))
    return lambda _: False


def _verse(paragraphs: list[str]) -> float:
    counts = [paragraph.count("\n") + 1 for paragraph in paragraphs]
    return sum(n for n in counts if n > 1) / max(sum(counts), 1)
