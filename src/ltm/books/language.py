"""The language of a text: by its letters, by the commonest words, and by py3langid where these do not decide.

Nothing is downloaded: the model lies inside the package py3langid (97 languages).
"""

from __future__ import annotations

import re
from collections import Counter

from ltm.books.words import word_set

_PROBE_CHARS = 3000
_PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)  # not the very beginning: title pages and prefaces are often in another language
_WORD = re.compile(r"[^\W\d_]+")
_COMMON = {  # words that no other of these languages shares so often; their share of a text is 15 to 30 %
    "en": word_set("the of and to was that his with he it had for as her not you is be she him"),
    "ru": word_set("и не что на он как то все но его это был так же она мы за бы по ей"),
}
_SURE_SHARE = 0.1  # of words, above which the language is beyond doubt
_CYRILLIC = ("ru", "uk", "bg", "sr", "be", "mk")
_LETTERS = {  # letters that only one Cyrillic language has
    "ru": "ыэёѣѳ",
    "uk": "їєґ",
    "be": "ў",
    "sr": "ђћјљњџ",
    "mk": "ѓќѕ",
}


def detect(text: str) -> str:
    """Return the ISO 639-1 code of the language that most probes of the text are in (`und` for an empty text)."""
    if not text.strip():
        return "und"
    probes = [text[int(place * len(text)) :][:_PROBE_CHARS] for place in _PLACES]
    votes = Counter(filter(None, map(_of_probe, probes)))
    if not votes:
        return _model(text[:_PROBE_CHARS])
    best, n_votes = votes.most_common(1)[0]
    return best if 2 * n_votes > votes.total() else _model(" ".join(probes))


def _of_probe(probe: str) -> str:
    words = [word.lower() for word in _WORD.findall(probe)]
    if not words:
        return ""
    shares = {language: sum(word in common for word in words) / len(words) for language, common in _COMMON.items()}
    best = max(shares, key=lambda language: shares[language])
    letters = Counter(probe.lower())
    cyrillic = sum(n for letter, n in letters.items() if "а" <= letter <= "ѵ")
    latin = sum(n for letter, n in letters.items() if "a" <= letter <= "ÿ" and letter.isalpha())
    if cyrillic > latin:
        return _cyrillic(letters, shares["ru"])
    return best if best == "en" and shares["en"] > _SURE_SHARE else _model(probe)


def _cyrillic(letters: Counter[str], russian_words: float) -> str:
    """Tell the Cyrillic languages by the letters that one of them has alone; old Russian has і and ъ as well."""
    own = {language: sum(letters[letter] for letter in alone) for language, alone in _LETTERS.items()}
    best = max(own, key=lambda language: own[language])
    if own[best] >= 3:
        return best
    if letters["ъ"] > letters["ы"] + 3:
        return "bg"
    return "ru" if russian_words > 0.02 or letters["ы"] else _model("".join(letters.elements()))


def _model(text: str) -> str:
    import py3langid

    return str(py3langid.classify(text)[0])
