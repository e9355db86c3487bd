"""Names and titles brought to one spelling, so that editions of one work and books of one author are found.

Cyrillic is written in Latin letters and spelling variants are levelled (Dostoevsky, Dostoyevsky, Dostoevskij). Two
people may share a key: that only makes the unit which is held out larger, never lets a held-out author into training.
"""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata

from ltm.books.words import word_set

UNKNOWN = "unknown"
_NAMELESS = frozenset(
    ("", UNKNOWN, "anonymous", "anon", "various", "various authors", "неизвестен", "неизвестный автор",
     "автор неизвестен",
     "сборник", "коллектив авторов", "народное творчество")
)  # fmt: skip
_LETTERS = {
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ё": "e", "ж": "zh", "з": "z", "и": "i", "й": "i",
    "к": "k", "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f",
    "х": "h", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "sch", "ъ": "", "ы": "y", "ь": "", "э": "e", "ю": "yu", "я": "ya",
    "і": "i", "ѣ": "e", "ѳ": "f", "ѵ": "i", "є": "e", "ї": "i", "ґ": "g",
}  # fmt: skip
_VARIANTS = (  # ways to write one sound, in order
    ("shch", "sch"), ("tch", "ch"), ("tsch", "ch"), ("tz", "ts"), ("ts", "c"), ("kh", "h"), ("ye", "e"), ("yo", "e"),
    ("jo", "e"), ("ju", "yu"), ("ja", "ya"), ("iu", "yu"), ("ia", "ya"),
    ("yi", "i"), ("ii", "i"), ("ij", "i"), ("iy", "i"),
    ("yj", "i"), ("yy", "i"), ("y", "i"), ("j", "i"), ("w", "v"), ("ff", "v"), ("x", "ks"), ("ck", "k"), ("ph", "f"),
    ("ss", "s"), ("ll", "l"), ("nn", "n"), ("ii", "i"),
)  # fmt: skip
_SAME_FIRST = {"j": "i", "y": "i", "w": "v"}
_TITLES = word_set("sir dr st mr mrs jr sr de von van graf lord lady count baron rev prof the abbe saint")
_ARTICLE = re.compile(r"^(?:the|a|an|le|la|les|der|die|das|el|il|l)\s+")
_SUBTITLE = re.compile(
    r"\s*(?:[:;(\[—]|\.\s| - | or,? |, or,? |, a (?:novel|romance|tale|story|play|comedy|tragedy)\b).*$"
)


_SEVERAL = re.compile(r"[;&/]|and|with|и")  # quick: true of every field that names several people
_BETWEEN = re.compile(r"\s*(?:;|&|/|\band\b|\bwith\b|(?<=\w)\s+и\s+(?=\w))\s*")
_NOTES = re.compile(r"\([^)]*\)?|\bq\d+\b")
_NAME_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def transliterate(text: str) -> str:
    """Return a text in lower-case Latin letters without accents.

    >>> transliterate("Фёдор Достоевский"), transliterate("Émile Zola"), transliterate("Палата №6")
    ('fedor dostoevskii', 'emile zola', 'palata no6')
    """
    if text.isascii():
        return text.lower()
    plain = "".join(_LETTERS.get(letter, letter) for letter in text.lower())
    # lowered again: what some signs stand for has capitals (№ is No)
    return "".join(c for c in unicodedata.normalize("NFKD", plain).lower() if not unicodedata.combining(c))


def slug(text: str) -> str:
    """Return the letters and digits of a text in one spelling; equal for a name and the file name made of it."""
    return re.sub(r"[^a-z0-9]", "", _level(transliterate(text)))


def author_keys(author: str) -> list[tuple[str, str]]:
    """Return a key (last name, first initial) for each author that a name field names; empty if unknown.

    Different spellings of one name (`H.G. Wells`, `Wells, Herbert George (1866-1946)`) get the same key.

    >>> author_keys("H.G. Wells") == author_keys("Wells, Herbert George (1866-1946)")
    True
    >>> author_keys("Фёдор Достоевский") == author_keys("Fyodor Dostoyevsky")
    True
    """
    keys = []
    for name in _BETWEEN.split(author) if _SEVERAL.search(author) else (author,):
        if name.casefold().strip(" .,") in _NAMELESS:
            continue
        plain = transliterate(name)
        if "(" in plain or "q" in plain:  # digits are no part of a word of a name anyway
            plain = _NOTES.sub(" ", plain)
        last, comma, first = plain.partition(",")
        words = _NAME_WORD.findall(f"{first} {last}" if comma else plain)
        words = [word for word in words if word not in _TITLES]
        if words:
            keys.append((_level_name(words[-1]), _SAME_FIRST.get(words[0][0], words[0][0])))
    return keys


def title_key(title: str) -> str:
    """Return a title in one spelling: no article, subtitle, accents or marks; numbers of volumes stay.

    >>> title_key("The Moonstone: A Romance"), title_key("Анна Каренина") == title_key("Anna Karenina")
    ('moonstone', True)
    """
    plain = transliterate(title).strip()
    volume = re.search(r"\b(?:vol(?:ume)?|part|book|tom|chast|kniga)\.? ?(\d+|[ivx]+)\b", plain)
    short = _SUBTITLE.sub("", plain)
    short = _ARTICLE.sub("", short if len(short) >= 3 else plain)
    key = re.sub(r"[^a-z0-9]", "", _level(short)) or slug(title)
    return f"{key}#{volume[1]}" if volume and volume[0] not in short else key


def same_author(one: str, other: str) -> bool:
    """Tell whether two name fields may name one person, spelled differently."""
    keys, others = author_keys(one), author_keys(other)
    return any(
        a == b or (a[1] == b[1] and difflib.SequenceMatcher(None, a[0], b[0]).ratio() >= 0.8)
        for a in keys
        for b in others
    )


def _level(text: str) -> str:
    for variant, usual in _VARIANTS:
        if variant in text:
            text = text.replace(variant, usual)
    return text


_level_name = functools.lru_cache(maxsize=1 << 16)(_level)  # last names come again
