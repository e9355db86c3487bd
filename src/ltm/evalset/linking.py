"""Linking scenes: order, suffix, names, coherence. Items are cut from held-out books.

Every builder yields drafts of one book in random order, without end but the book's own; the caller takes what it
needs. Source of the kinds: next-sentence and suffix identification (ChapterBreak), LAMBADA, minimal pairs with the
same text on both sides, so that neither length nor words give the answer away.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ltm.evalset.evalfile import Family
from ltm.evalset.language import packaged
from ltm.evalset.passages import Draft, EvalBook, Sizes, name_stem
from ltm.evalset.sentences import is_heading_like

_NAME = re.compile(r"[^\W\d_]{3,}")
_TRIES = 40  # places looked at for the distractors of one item
_MANY_TRIES = 120  # the same where all words are compared
_MARK = "\n\n* * *"
_JOINT = f"{_MARK}\n\n"  # five tokens or more: who counts five in a row sees no scene from the other
_LONGER = 1.15  # a broken passage may be so much longer than the true one, or shorter
_WORD = re.compile(r"\w+")
_HEADINGS = 12  # sentences at most between the mark of a chapter and its text
_CASE_ENDS = ("ом", "ем", "ём", "ой", "ей", "ым", "им", "ам", "ям", "ах", "ях")
_MAX_ODDS = 2  # a name said more often than this many times every distractor would be an answer by its frequency


def scene_order(book: EvalBook, family: Family, sizes: Sizes, rng: np.random.Generator) -> Iterator[Draft]:
    """Yield two adjacent scenes in both orders: the cells hold the same text."""
    del family
    for first in book.tiles(2 * sizes.option, rng):
        scenes = _scenes(book, first, sizes.option)
        if scenes is None:
            continue
        a, b = scenes
        # the mark stands before and after both, so that either order has the same tokens and untrained models tie
        cells, gold = _shuffled([f"{_JOINT}{one}{_JOINT}{two}{_MARK}" for one, two in ((a, b), (b, a))], rng)
        yield Draft(book.book.book_id, book.book.language, ["", ""], cells, gold)


def suffix(book: EvalBook, family: Family, sizes: Sizes, rng: np.random.Generator) -> Iterator[Draft]:
    """Yield a context, its true next words, and equally long pieces of the same book that share as many names.

    The first half of the cells has the context, the second half the neutral one.
    """
    for first in book.tiles(sizes.context + sizes.option, rng):
        found = _continued(book, first, sizes)
        if found is None:
            continue
        context, gold_text = found
        start = book.starts[first]
        avoid = (start, start + len(context) + len(gold_text) + 2)
        others = _like(book, family, context, gold_text, avoid, sizes.option, rng)
        if len(others) < family.options - 1:
            continue
        options, gold = _shuffled([gold_text, *others[: family.options - 1]], rng)
        yield _choice(book, context, sizes.neutral, [f" {option}" for option in options], gold)


def chapter_suffix(book: EvalBook, family: Family, sizes: Sizes, rng: np.random.Generator) -> Iterator[Draft]:
    """Yield the end of a chapter, the beginning of the next, and beginnings of other chapters of the same book.

    Headings are left out, so that numbers give nothing away. Source: ChapterBreak (Sun, Thai, Iyyer 2022).
    """
    openings = _openings(book, sizes.option)
    for index in rng.permutation(len(openings)):
        chapter, text = openings[int(index)]
        context = _chapter_close(book, chapter, sizes.context)
        if context is None:
            continue
        known = _shared_kind(context, False)
        wanted = len(known & _shared_kind(text, False))
        mixed = [openings[int(i)][1] for i in rng.permutation(len(openings)) if openings[int(i)][1] != text]
        others = sorted(mixed, key=lambda other: abs(len(known & _shared_kind(other, False)) - wanted))
        if len(others) < family.options - 1:
            return
        options, gold = _shuffled([text, *others[: family.options - 1]], rng)
        yield _choice(book, context, sizes.neutral, [f"\n\n{option}" for option in options], gold)


def name_recall(book: EvalBook, family: Family, sizes: Sizes, rng: np.random.Generator) -> Iterator[Draft]:
    """Yield a context that stops before a name that was last said `gap` words ago, with other names of the context.

    No option is named within the last `gap` words, and the others are those that are named about as often as the
    right one: "the name said last" and "the name said most" are no answers. Forms of a name count as the name. Where
    names are declined, the others stand in a form that ends like the right one, so that the case is no answer either.
    """
    found = book.names
    declined = "gen" in packaged(book.book.language).cases.get("m", {})
    offsets = [start for start, _ in found]
    taken: list[int] = []
    for index in rng.permutation(len(found)):
        start, name = found[index]
        if any(abs(start - other) < 3 * sizes.context for other in taken):  # about half a context in characters
            continue
        begin = _context_start(book, start, sizes.context)
        if begin is None or book.text[start - 1] != " " or book.belongs_to_the_word_before(start):
            continue
        inside = found[bisect.bisect_left(offsets, begin) : index]
        recent = {name_stem(other) for offset, other in inside if len(book.text[offset:start].split()) <= sizes.gap}
        if name_stem(name) in recent or all(other != name for _, other in inside):
            continue
        own = book.namesakes(name_stem(name))  # Arina, Ivanovna: who is called by both is one person
        named = [other for _, other in inside if other == name or name_stem(other) not in own]
        picked = _rivals(name, named, recent, family.options - 1, rng, declined)
        if not picked:
            continue
        options, gold = _shuffled([name, *picked], rng)
        taken.append(start)
        yield _choice(book, book.text[begin:start].rstrip(), sizes.neutral, [f" {option}" for option in options], gold)


def coherence(book: EvalBook, family: Family, sizes: Sizes, rng: np.random.Generator) -> Iterator[Draft]:
    """Yield one continuation after its own paragraph, and after one from elsewhere in the book.

    With `opening` the same text stands before both paragraphs, and each has half of the context.
    """
    n_words = sizes.context // 2 if family.opening else sizes.context
    for first in book.tiles(sizes.context + sizes.option, rng):
        before = book.span(first, n_words) if family.opening else None
        start = before.next_sentence if before else first
        true = None if family.opening and before is None else book.span(start, n_words)
        after = book.exact(true.next_sentence, sizes.option) if true else None
        if true is None or after is None or _crosses(book, first, true.next_sentence + 1):
            continue
        whole = (before or true).start, true.end + len(after)
        broken = _elsewhere(book, whole, book.slice(true), after, family.alike == "names", rng)
        if broken is None:
            continue
        opening = f"{book.slice(before)}\n\n" if before else ""
        contexts, gold = _shuffled([f"{opening}{book.slice(true)}", f"{opening}{broken}"], rng)
        yield Draft(book.book.book_id, book.book.language, contexts, [f" {after}"] * 2, gold)


def _scenes(book: EvalBook, first: int, n_words: int) -> tuple[str, str] | None:
    one = book.span(first, n_words)
    two = book.span(one.next_sentence, n_words) if one else None
    if one is None or two is None or _crosses(book, first, two.next_sentence):
        return None
    return book.slice(one), book.slice(two)


def _continued(book: EvalBook, first: int, sizes: Sizes) -> tuple[str, str] | None:
    span = book.span(first, sizes.context)
    text = book.exact(span.next_sentence, sizes.option) if span else None
    if span is None or text is None or _crosses(book, first, span.next_sentence + 1):
        return None
    return book.slice(span), text


def _choice(book: EvalBook, context: str, neutral: str, options: list[str], gold: int) -> Draft:
    n = len(options)
    return Draft(book.book.book_id, book.book.language, [context] * n + [neutral] * n, options * 2, gold)


def _shuffled(options: list[str], rng: np.random.Generator) -> tuple[list[str], int]:
    """Return options in random order and where the first of them went."""
    order = rng.permutation(len(options))
    return [options[i] for i in order], int(np.flatnonzero(order == 0)[0])


def _crosses(book: EvalBook, first: int, last: int) -> bool:
    """Say whether a chapter, or sound text, ends between two sentences, `last` excluded."""
    return book.bound_after(first) < last


def _like(
    book: EvalBook,
    family: Family,
    context: str,
    gold: str,
    avoid: tuple[int, int],
    n_words: int,
    rng: np.random.Generator,
) -> list[str]:
    """Return pieces of the same book outside `avoid`, those first that share with `context` what `gold` shares.

    The easy kind is compared by names only: other known words may tell it. The hard kind is compared by all words,
    with pieces that share more before those that share less.
    """
    easy = family.alike == "names"
    known = _shared_kind(context, easy)
    wanted = len(known & _shared_kind(gold, easy))
    pieces: list[tuple[float, str]] = []
    used = [avoid]
    for index in rng.integers(0, len(book.starts), size=_TRIES if easy else _MANY_TRIES):
        piece = book.exact(int(index), n_words)
        if piece is None or piece == gold:
            continue
        start = book.starts[int(index)]
        end = start + len(piece)
        if any(start < high and end > low for low, high in used):
            continue
        used.append((start, end))
        more = len(known & _shared_kind(piece, easy)) - wanted
        pieces.append((abs(more + (0.0 if easy else -0.5)), piece))
    return [piece for _, piece in sorted(pieces, key=lambda pair: pair[0])]


def _shared_kind(text: str, names_only: bool) -> set[str]:
    return set(_capitals(text)) if names_only else set(_WORD.findall(text.lower()))


def _elsewhere(
    book: EvalBook, avoid: tuple[int, int], true: str, after: str, names_only: bool, rng: np.random.Generator
) -> str | None:
    """Return a passage outside `avoid`, about as long as the true one, that shares as many words with what follows.

    With `names_only` names are compared, and no other words.
    """
    later = _shared_kind(after, names_only)
    wanted, n_words = len(later & _shared_kind(true, names_only)), len(true.split())
    more = 0.5 * float(rng.integers(2))  # so that what shares most is right as often as wrong
    best: tuple[float, str] | None = None
    for index in rng.integers(0, len(book.starts), size=_MANY_TRIES):
        span = book.span(int(index), round(n_words * _LONGER))
        if span is None or not (span.end <= avoid[0] or span.start >= avoid[1]):
            continue
        text = book.slice(span)
        longer = len(text.split()) / n_words - 1
        if abs(longer) > _LONGER - 1:
            continue
        far = abs(len(later & _shared_kind(text, names_only)) - wanted - more)
        if best is None or far < best[0]:
            best = (far, text)
        if far < 1:
            break
    return best[1] if best else None


def _openings(book: EvalBook, n_words: int) -> list[tuple[int, str]]:
    """Return (sentence that opens a chapter, its first words), headings left out; the book's first chapter is none."""
    found = []
    for chapter in book.chapters:
        for sentence in range(chapter, min(chapter + _HEADINGS, len(book.starts))):
            if book.opens[sentence] and not _is_heading(book, sentence):
                text = book.exact(sentence, n_words)
                if text is not None:
                    found.append((chapter, text))
                break
    return found


def _is_heading(book: EvalBook, sentence: int) -> bool:
    return is_heading_like(book.text[book.starts[sentence] : book.ends[sentence]])


def _chapter_close(book: EvalBook, chapter: int, n_words: int) -> str | None:
    """Return the last whole sentences before a chapter; the next one's heading and notes are left out."""
    last = chapter
    while last > max(0, chapter - _HEADINGS) and not book.closes[last - 1]:
        last -= 1
    first, total = last, 0
    while (
        first > 0
        and total + book.words[first - 1] <= n_words
        and (first == last or book.bound_after(first - 1) > first)
    ):
        first -= 1
        total += book.words[first]
    while first < last and not book.opens[first]:
        total -= book.words[first]
        first += 1
    if total < 0.6 * n_words:
        return None
    return book.text[book.starts[first] : book.ends[last - 1]]


def _capitals(text: str) -> list[str]:
    return [word for word in _NAME.findall(text) if word[0].isupper()]


def _context_start(book: EvalBook, end: int, n_words: int) -> int | None:
    """Return the first sentence start that leaves at most `n_words` words before `end`."""
    here = index = bisect.bisect_right(book.starts, end) - 1
    total = len(book.text[book.starts[index] : end].split())
    if total > n_words:
        return None
    while index > 0 and total + book.words[index - 1] <= n_words and book.bound_after(index - 1) > here:
        index -= 1
        total += book.words[index]
    while index < here and not book.opens[index]:
        total -= book.words[index]
        index += 1
    return book.starts[index] if book.opens[index] and total >= 0.6 * n_words else None


def _rivals(
    name: str, names: list[str], recent: set[str], n: int, rng: np.random.Generator, declined: bool = False
) -> list[str]:
    """Return at most `n` names, none `recent`, said about as often as `name`; none where it is said far more often."""
    said = Counter(name_stem(other) for other in names)
    own = said[name_stem(name)]
    alike = [other for other in names if not declined or _ending(other) == _ending(name)]
    others = [other for other in _other_names(name, alike) if name_stem(other) not in recent]
    mixed = [others[i] for i in rng.permutation(len(others))]
    picked = sorted(mixed, key=lambda other: abs(said[name_stem(other)] - own))[:n]
    most = max((said[name_stem(other)] for other in picked), default=0)
    return picked if own <= _MAX_ODDS * most else []


def _ending(name: str) -> str:
    """Return the last letters of a name where they may tell its case and gender.

    >>> _ending("Ольги"), _ending("Кистунов"), _ending("Иваном"), _ending("Щукиной")
    ('и', 'consonant', 'ом', 'ой')
    """
    last = name[-1]
    if last not in "бвгджзйклмнпрстфхцчшщ":
        return last
    return name[-2:] if name[-2:] in _CASE_ENDS else "consonant"


def _other_names(name: str, names: list[str]) -> list[str]:
    """Return the distinct names that are not a form of `name` or of each other, in order of appearance."""
    stems = {name_stem(name)}
    others = []
    for other in names:
        if name_stem(other) not in stems:
            stems.add(name_stem(other))
            others.append(other)
    return others
