"""Cut a held-out book into pieces that start and end with a sentence.

A `Draft` is an item before it has an id. Contexts end without white space and continuations carry the white space
that joins them, so that text = context + continuation and the boundary of tokens is the same for every option.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise

import numpy as np

from ltm.evalset.evalfile import Family
from ltm.evalset.language import Language, packaged
from ltm.evalset.sentences import sentences
from ltm.records import Book

_WORD = re.compile(r"\S+")
_CAPITAL = re.compile(r"\b[A-ZÀ-ÖØ-ÞА-ЯЁ][^\W\d_]{2,}")
_CAPITAL_BEFORE = re.compile(r"\b[A-ZÀ-ÖØ-ÞА-ЯЁ][\w’'-]* \Z")
_TITLES = {
    "Mrs",
    "Miss",
    "Messrs",
    "Sir",
    "Lord",
    "Lady",
    "Madame",
    "Monsieur",
    "Mon",
    "Mons",
    "Mme",
    "Mlle",
    "Mademoiselle",
}  # they name nobody in particular
_SAME_PERSON = re.compile(r" (?:[A-ZА-ЯЁ][\w’']*\.? ){0,2}")  # what stands between two names of one person
_SAME_STEM = 4  # letters
_FULL = 2 / 3  # a piece with fewer of the wanted words is too short
_MAX_CHARS = 600_000  # of one book: a bank takes a few dozen items from each
_MIN_CHAPTER_WORDS = 400  # chapters shorter than this on average are no bounds for scenes


@dataclass(frozen=True, slots=True)
class Draft:
    """An item without id, bank and rule."""

    cluster: str
    language: str
    contexts: list[str]
    continuations: list[str]
    gold: int = 0
    level: int = 0  # 0 = that of the family's step


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a book: character offsets and the index of the sentence after it."""

    start: int
    end: int
    next_sentence: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths in words of one family in one language, scaled to the study."""

    context: int
    option: int
    gap: int
    neutral: str
    shots: int = 4

    @classmethod
    def of(cls, family: Family, language: Language, factor: float) -> Sizes:
        """Scale the sizes of a family; `factor` is study length over the eval file's length."""

        def scaled(words: int) -> int:
            return max(1, round(words * factor * language.words_scale))

        gap = scaled(family.gap_words) if family.gap_words else 0
        return cls(scaled(family.context_words), scaled(family.option_words), gap, language.neutral, family.shots)


@dataclass
class EvalBook:
    """A held-out book as sentences: `starts[i]:ends[i]` are offsets into `text`, `words[i]` counts its words.

    Long sentences are in pieces. `opens[i]` says whether a passage may begin with sentence i, `closes[i]` whether one
    may end with it; see `ltm.evalset.sentences`.
    """

    book: Book
    text: str
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    opens: list[bool] = field(default_factory=list)
    closes: list[bool] = field(default_factory=list)
    chapters: list[int] = field(default_factory=list)  # sentence index where a chapter begins, ascending
    bounds: list[int] = field(default_factory=list)  # sentence index that no piece crosses, ascending
    _places: dict[frozenset[str], list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, book: Book, text: str) -> EvalBook:
        """Cut the middle of a book into sentences."""
        low = max(int(len(text) * 0.02), (len(text) - _MAX_CHARS) // 2)  # title pages say nothing about linking
        high = min(len(text), low + _MAX_CHARS)
        self = cls(book, text)
        walls = []
        for index, found in enumerate(sentences(text, low, high, _titles(book))):
            self.starts.append(found.start)
            self.ends.append(found.end)
            self.words.append(len(text[found.start : found.end].split()))
            self.opens.append(found.opens)
            self.closes.append(found.closes)
            walls += [index] * (found.fenced or not found.sound) + [index + 1] * (not found.sound)
        n_words, n_chapters = sum(self.words), max(1, len(book.chapter_starts))
        if n_words / n_chapters >= _MIN_CHAPTER_WORDS:
            self.chapters = [bisect.bisect_left(self.starts, offset) for offset in book.chapter_starts[1:]]
        self.bounds = sorted({*walls, *self.chapters})
        return self

    @cached_property
    def word_counts(self) -> Counter[str]:
        """Return how often each word stands in the sentences, as written."""
        return Counter(re.findall(r"\w+", self.text[self.starts[0] : self.ends[-1]])) if self.starts else Counter()

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Return the words of the sentences in small letters."""
        return frozenset(word.lower() for word in self.word_counts)

    def places_of(self, words: frozenset[str]) -> list[int]:
        """Return the offsets at which any of the words stands, as written."""
        if words not in self._places:
            low, high = (self.starts[0], self.ends[-1]) if self.starts else (0, 0)
            known = words & self.word_counts.keys()
            found = re.finditer(r"\w+", self.text[low:high]) if known else iter(())
            self._places[words] = [low + match.start() for match in found if match[0] in known]
        return self._places[words]

    @cached_property
    def names(self) -> list[tuple[int, str]]:
        """Return offset and text of every name: a capitalised word inside sentences that is never written small."""
        if not self.starts:
            return []
        spans = [(m.start(), m[0]) for m in _CAPITAL.finditer(self.text, self.starts[0], self.ends[-1])]
        inside = Counter(word for start, word in spans if _mid_sentence(self.text, start))
        small = self.word_counts
        names = {word for word, n in inside.items() if n >= 3 and small[word.lower()] <= 0.05 * n}
        no_names = _TITLES | set(packaged(self.book.language).function_words)  # a book may write Thou, or Who
        names = {word for word in names - _TITLES if word.lower() not in no_names and not set(word) <= set("IVXLCDM")}
        return [(start, word) for start, word in spans if word in names]

    @cached_property
    def _called(self) -> dict[str, set[str]]:
        """Return, for the beginning of each name, the beginnings of those that stand next to it somewhere."""
        found: dict[str, set[str]] = {}
        for (start, one), (after, two) in pairwise(self.names):
            if _SAME_PERSON.fullmatch(self.text, start + len(one), after):
                found.setdefault(name_stem(one), set()).add(name_stem(two))
                found.setdefault(name_stem(two), set()).add(name_stem(one))
        return found

    def namesakes(self, stem: str) -> set[str]:
        """Return the beginnings of names that may be the same person's: Ivanovna and Petrova of Arina."""
        return self._called.get(stem, set()) - {stem}

    def belongs_to_the_word_before(self, start: int) -> bool:
        """Say whether a name follows a capitalised word inside a sentence: who it is has been said by then.

        Mr. and the like do not count; Lord, and New before Jersey, do.
        """
        before = _CAPITAL_BEFORE.search(self.text, max(0, start - 40), start)
        return before is not None and _mid_sentence(self.text, before.start())

    def span(self, first: int, n_words: int) -> Span | None:
        """Return whole sentences from `first` with at most `n_words` and at least two thirds of that."""
        if first >= len(self.starts) or not self.opens[first]:
            return None
        stop = self.bound_after(first)
        total, index, best = 0, first, first
        while index < stop and total + self.words[index] <= n_words:
            total += self.words[index]
            index += 1
            if total >= _FULL * n_words and self.closes[index - 1]:
                best = index
        return Span(self.starts[first], self.ends[best - 1], best) if best > first else None

    def exact(self, first: int, n_words: int) -> str | None:
        """Return exactly `n_words` words from the beginning of a sentence.

        Returns None where no sentence begins, or where the chapter ends before.
        """
        if first >= len(self.starts) or not self.opens[first]:
            return None
        stop = self.ends[self.bound_after(first) - 1]
        words = islice(_WORD.finditer(self.text, self.starts[first], stop), n_words)
        bounds = [match.span() for match in words]
        return self.text[bounds[0][0] : bounds[-1][1]] if len(bounds) == n_words else None

    def slice(self, span: Span) -> str:
        """Return the text of a span."""
        return self.text[span.start : span.end]

    def breaks(self, span: Span) -> list[int]:
        """Return the places inside a span, from its beginning, between one sentence and the next."""
        first = bisect.bisect_left(self.starts, span.start)
        inside = range(first, span.next_sentence - 1)
        return [self.ends[i] - span.start for i in inside if self.closes[i] and self.opens[i + 1]]

    def tiles(self, n_words: int, rng: np.random.Generator) -> Iterator[int]:
        """Yield first sentences of pieces of `n_words` in random order.

        The pieces do not overlap; when all are used up, those that start half a piece later follow.
        """
        for half in (False, True):
            firsts, total = [], n_words // 2 if half else n_words
            for index, words in enumerate(self.words):
                if total >= n_words and self.opens[index]:
                    firsts.append(index)
                    total = 0
                total += words
            for position in rng.permutation(len(firsts)):
                yield firsts[position]

    def bound_after(self, first: int) -> int:
        """Return the end of what a piece that begins with a sentence may hold: a chapter's, or that of sound text."""
        place = bisect.bisect_right(self.bounds, first)
        return self.bounds[place] if place < len(self.bounds) else len(self.starts)


def _titles(book: Book) -> set[str]:
    """Return the lines that name the book or its author, in small letters."""
    return {line for name in (book.author, book.title) if (line := name.lower().strip(" ."))}


def name_stem(name: str) -> str:
    """Return the beginning of a name: Simon and Simons, or a Russian name in two cases, are not two names."""
    return name[:_SAME_STEM].lower()


def _mid_sentence(text: str, start: int) -> bool:
    before = text[max(0, start - 2) : start]
    return before.endswith(" ") and len(before) == 2 and (before[0].isalpha() or before[0] == ",")
