"""How well books are read: language, title, author, chapters, licence left, prose lost, against a manifest.

    python bench/books_quality.py ../shared/books [--rows] [--neutral]

Every file of the manifest is read without it, as a stranger's file would be; then the manifest is the truth.
`--neutral` hides the file's name, so that only the text can tell title and author. Prose lost is looked for by a rule
that shares no code with the cleaning: of the raw text between Gutenberg's own lines, the first and the last 60 words
that stand in paragraphs of 200 characters or more must all be in the clean text.
"""

from __future__ import annotations

import argparse
import csv
import re
import time
from collections import Counter
from pathlib import Path

from ltm.books.names import author_keys, slug, title_key
from ltm.books.prepare import Prepared, Wanted, prepare
from ltm.books.readers import RawBook, read_file
from ltm.records import Rejected

LICENCE = re.compile(r"project gutenberg|gutenberg-tm|small print!|pglaf|\betexts?\b", re.IGNORECASE)
FRAME = re.compile(
    r"\*\*\* ?START OF TH[^\n]*\n(.*?)\n[^\n]*(?:\*\*\* ?END OF TH|End of (?:the )?Project Gutenberg)", re.S
)
CREDIT = re.compile(r"produced by|prepared by|transcriber|gutenberg|proofread", re.IGNORECASE)
ANY = Wanted(frozenset(), 0)


def main() -> None:
    """Print one line a measure, and with `--rows` one a book that is wrong."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("library", type=Path)
    options.add_argument("--rows", action="store_true", help="say which books are wrong, and how")
    options.add_argument("--neutral", action="store_true", help="hide the names of the files")
    options.add_argument("--limit", type=int, default=100_000)
    given = options.parse_args()
    with open(given.library / "manifest.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))[: given.limit]
    right, n_bytes, seconds = Counter[str](), 0, 0.0
    prepare(
        RawBook("Der Fluss und das Meer. " * 50), "warm.txt", {}, ANY, 0
    )  # models and tables are loaded once a process
    for number, row in enumerate(rows):
        data = (given.library / row["file"]).read_bytes()
        suffix = Path(row["file"]).suffix
        begin = time.process_time()
        raw = read_file(data, row["file"])[0].book
        assert raw is not None, row["file"]
        found = prepare(raw, f"{number}{suffix}" if given.neutral else row["file"], {}, ANY, 0)
        seconds += time.process_time() - begin
        n_bytes += len(data)
        assert not isinstance(found, Rejected), found
        wrong = {name: said for name, said in judge(row, raw, found).items() if said is not None}
        right.update(
            name for name in ("language", "title", "author", "year", "licence", "head", "tail") if name not in wrong
        )
        if given.rows and wrong:
            print(f"{row['file'][:50]}: {wrong}")
    print(f"{len(rows)} books, {n_bytes / 1e6:.1f} MB, {n_bytes / 1e6 / seconds:.1f} MB per second of computing")
    for name in ("language", "title", "author", "year", "licence", "head", "tail"):
        print(f"{name:10s} {right[name] / len(rows):7.2%}")


def judge(row: dict[str, str], raw: RawBook, found: Prepared) -> dict[str, str | None]:
    """Return for each measure what is wrong, or None."""
    book = found.book
    keys = {key[0] for key in author_keys(row["author"])}
    left = LICENCE.search(found.text)
    head, tail = lost(raw.text, found.text)
    return {
        "language": None if book.language == row["language"] else book.language,
        "title": None if same_title(book.title, row["title"]) else f"{book.title!r} for {row['title']!r}",
        "author": None
        if not keys or keys & {k[0] for k in author_keys(book.author)}
        else f"{book.author!r} for {row['author']!r}",
        "year": None if not row["year"] or book.year is not None else f"none for {row['year']}",
        "licence": None if left is None else found.text[max(0, left.start() - 40) : left.end() + 40],
        "head": head,
        "tail": tail,
    }


def same_title(one: str, other: str) -> bool:
    """Compare titles without subtitle, spelling and marks; one may be the beginning of the other."""
    a, b = title_key(one).partition("#")[0], title_key(other).partition("#")[0]
    return a == b or (min(len(a), len(b)) >= 6 and (a.startswith(b) or b.startswith(a))) or slug(one) == slug(other)


def lost(raw: str, clean: str) -> tuple[str | None, str | None]:
    """Return the words of prose that the clean text lacks at its head and at its tail, or None."""
    text = raw.replace("\r\n", "\n").replace("\ue000", "")
    frame = FRAME.search(text)
    body = frame[1] if frame else text
    paragraphs = [p for p in re.split(r"\n\s*\n", body) if len(p) >= 200 and not CREDIT.search(p)]
    if not paragraphs:
        return None, None
    first, last = words(paragraphs[0])[:60], words(paragraphs[-1])[-60:]
    cleaned = words(clean)
    # footnote marks go, so words are compared without numbers
    head, tail = " ".join(cleaned[:12_000]), " ".join(cleaned[-12_000:])
    return (
        None if " ".join(first) in head else " ".join(first)[:80],
        None if " ".join(last) in tail else " ".join(last)[-80:],
    )


def words(text: str) -> list[str]:
    """Return the words of a text without numbers, marks and case."""
    joined = re.sub(r"(?<=[^\W\d_])[-\u00ac]\s*\n\s*(?=[^\W\d_])", "", text)
    return re.findall(r"[^\W\d_]+", joined.replace("_", " ").casefold())


if __name__ == "__main__":
    main()
