"""The chapter of the library: sizes, languages, genres, rights, and what was left out with its reason.

Reads: Book and Rejected rows. Writes: nothing. No text of a book is shown, whatever its rights allow.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable

from ltm.dashboard import charts, figures, tables
from ltm.dashboard.figures import Record
from ltm.dashboard.inputs import Inputs
from ltm.dashboard.layout import Chapter, note
from ltm.dashboard.tables import Figure
from ltm.dashboard.words import Argument, Fixed, Quoted, Several, Term, both, joined, spans, texts
from ltm.records import Book, Rejected

NEEDS = ("books/catalogue.parquet", "books/rejected.parquet")
_MOST_GROUPS = 40


def library(inputs: Inputs) -> Chapter:
    """Return what the library holds and what was left out."""
    books = inputs.books
    chapter = Chapter(spans(_finding(inputs)), needs=NEEDS)
    if books:
        genre_rows = figures.genre_rows(books)
        genres = Figure(genre_rows, tables.GENRE_COLUMNS, charts.genres(), summary=_genre_words(genre_rows))
        chapter.add("genres", genres, "library.figure", "library.subtitle")
        chapter.body += note(*_sizes(books))
        _add_groups(chapter, books)
        table = Figure(
            figures.book_rows(books),
            tables.BOOK_COLUMNS,
            caption="caption.library",
            search="js.search_books",
            prefix={"language": "term.lang."},
        )
        chapter.add("library", table)
    _add_rejected(chapter, inputs)
    return chapter


def _finding(inputs: Inputs) -> dict[str, str]:
    if not inputs.books:
        told = texts("library.none")
    else:
        languages = sorted({book.language for book in inputs.books})
        told = texts(
            "library.some",
            n=len(inputs.books),
            authors=len({book.author for book in inputs.books}),
            languages=Several(tuple(Term(f"term.lang.{code}", code) for code in languages)),
            held_out=sum(book.pool != "train" for book in inputs.books),
        )
    n = len(inputs.rejected)
    if n:
        return joined(told, texts("library.rejected", n=n))
    return joined(told, texts("library.none_rejected")) if inputs.books else told


def _add_groups(chapter: Chapter, books: list[Book]) -> None:
    """Put languages and rights into the chapter: a table where there are several, else a sentence."""
    prefix = {"group": "term.lang."}
    languages = group_rows(books, lambda book: book.language)
    rights = group_rows(books, lambda book: book.licence or "unknown")
    sentences = []
    if len(languages) > 1:
        chapter.add("languages", Figure(languages, tables.GROUP_COLUMNS, caption="caption.languages", prefix=prefix))
    else:
        code = languages[0]["group"]
        sentences.append(both("library.one_language", tongue=Term(f"term.lang.{code}", code)))
    if len(rights) > 1:
        chapter.add("rights", Figure(rights, tables.RIGHTS_COLUMNS, caption="caption.rights"))
    else:
        sentences.append(both("library.one_right", right=rights[0]["group"]))
    chapter.body += note(*sentences, both("library.no_text"))


def _sizes(books: Iterable[Book]) -> list[str]:
    words = sorted((book.n_words, book.title) for book in books)
    middle = statistics.median(n for n, _ in words)
    values: dict[str, Argument] = {"total": sum(n for n, _ in words), "middle": Fixed(middle, 0)}
    ends: dict[str, Argument] = {
        "low": words[0][0],
        "high": words[-1][0],
        "short": Quoted(words[0][1]),
        "long": Quoted(words[-1][1]),
    }
    return [both("library.sizes", **values, **ends)]


def _genre_words(rows: list[Record]) -> dict[str, str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["genre"]] += row["books"]
    parts = tuple(Term(f"term.{genre}", genre) for genre, _ in counts.most_common(3))
    return texts("library.genres", n=len(counts), list=Several(parts))


def group_rows(books: Iterable[Book], key: Callable[[Book], str]) -> list[Record]:
    """Return books and words by group, large groups first."""
    counts: Counter[str] = Counter()
    words: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for book in books:
        group = key(book)
        counts[group] += 1
        words[group] += book.n_words
        held[group] += book.pool != "train"
    ordered = sorted(counts, key=lambda group: (-counts[group], group))[:_MOST_GROUPS]
    return [{"group": group, "books": counts[group], "held": held[group], "n_words": words[group]} for group in ordered]


def _add_rejected(chapter: Chapter, inputs: Inputs) -> None:
    """Put the files that were left out into the chapter: counts by step, and each with its reason."""
    if not inputs.rejected:
        return
    steps = Counter(row.step for row in inputs.rejected)
    languages: dict[str, Counter[str]] = {}
    for row in inputs.rejected:
        languages.setdefault(row.step, Counter())[row.language or "unknown"] += 1
    counted = [{"step": step, "files": count} for step, count in sorted(steps.items(), key=lambda p: (-p[1], p[0]))]
    chapter.add("rejected_steps", Figure(counted, tables.REJECTED_STEP_COLUMNS, caption="caption.rejected_steps"))
    rows = rejected_rows(inputs.rejected, inputs.books)
    columns = [c for c in tables.REJECTED_COLUMNS if any(row.get(c[0]) for row in rows)]
    prefix = {"language": "term.lang."}
    table = Figure(rows, columns, caption="caption.rejected", search="js.search_rows", prefix=prefix)
    chapter.add("rejected", table)
    if len(inputs.rejected) > len(rows):
        chapter.body += note(both("library.rejected_cut", n=len(rows), total=len(inputs.rejected)))


def rejected_rows(rejected: Iterable[Rejected], books: Iterable[Book]) -> list[Record]:
    """Return the files that were left out, with their reasons, and the book that stays instead of a duplicate."""
    title = {book.source: book.title for book in books}
    rows = [
        {
            "source": row.source,
            "step": row.step,
            "reason": row.reason,
            "instead": title.get(row.instead, row.instead),
            "language": row.language,
        }
        for row in rejected
    ]
    return sorted(rows, key=lambda row: (row["step"], row["source"]))[: figures.TABLE_REJECTED]
