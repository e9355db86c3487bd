"""Short lists of English and Russian words that features count; other languages have none, and their features are 0."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from ltm.books.words import Hashes, hash_words

GROUPS = ("speech", "perception", "mind", "motion", "time", "concrete")
VOWELS = "aeiouyàâäéèêëîïôöùûüаеёиоуыэюя"
RUSSIAN_VOWELS = "аеёиоуыэюя"
VOWEL_CODES = [ord(letter) for letter in VOWELS + VOWELS.upper()]
RUSSIAN_VOWEL_CODES = [ord(letter) for letter in RUSSIAN_VOWELS + RUSSIAN_VOWELS.upper()]
PRONOUN_LETTERS = hash_words(["I", "A", "O", "Я", "А", "О"])  # single capitals that are words, not initials


@functools.cache
def hashes(name: str, language: str) -> Hashes:
    """Return the sorted hashes of a list of words; empty where the language has none."""
    return hash_words(_table()[name].get(language, "").split())


def group_of_forms(forms: Sequence[str], language: str) -> npt.NDArray[np.int8]:
    """Return for each word form (lower case) the index of its group in `GROUPS`, -1 for none."""
    whole, stems = _groups(language)
    found = np.full(len(forms), -1, dtype=np.int8)
    if not whole and not stems:
        return found
    stem = _stem_pattern(language)
    for place, form in enumerate(forms):
        group = whole.get(form, -1)
        if group < 0:
            match = stem(form)
            group = stems[match[0]] if match else -1
        if group >= 0:
            found[place] = group
    return found


@functools.cache
def _stem_pattern(language: str) -> Callable[[str], re.Match[str] | None]:
    stems = sorted(_groups(language)[1], key=len, reverse=True)  # the longest stem that fits
    return re.compile("|".join(map(re.escape, stems)) or r"(?!)").match


@functools.cache
def _groups(language: str) -> tuple[dict[str, int], dict[str, int]]:
    whole: dict[str, int] = {}
    stems: dict[str, int] = {}
    for place, group in enumerate(GROUPS):
        for word in _table()[group].get(language, "").split():
            target, form = (stems, word[:-1]) if word.endswith("*") else (whole, word)
            target.setdefault(form, place)
    return whole, stems


@functools.cache
def _table() -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = json.loads(
        files("ltm").joinpath("data", "word_lists.json").read_text(encoding="utf-8")
    )
    return table
