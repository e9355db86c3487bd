"""One book as a person wants to see it: what is known of it, and what the cleaning took away, step by step.

Reads: the book's row, and its file again, which is never changed; so whatever was taken away can be seen and had back.
"""

from __future__ import annotations

from typing import Any

from ltm.books.catalogue import book_id
from ltm.books.chapters import find_layout
from ltm.books.clean import clean, trace
from ltm.books.folder import check_folder, list_files, read_bytes
from ltm.books.readers import RawBook, read_file
from ltm.books.section import BooksSection
from ltm.errors import BookError
from ltm.records import Book
from ltm.store import as_json

_PIECES = 3  # of each step, for people
_PIECE_CHARS = 160
_JSON_PIECE_CHARS = 4000


def describe(section: BooksSection, book: Book) -> dict[str, Any]:
    """Return a book's row and, by step, what the cleaning took away (`removed_text`: offset, removed, inserted).

    Only changes of letters and signs are listed; joined lines and spaces are counted (`spaces_changed`).

    Raises:
        LibraryError: the library is not where it was.
    """
    row = as_json(book)
    if section.source == "kjv":
        return row | {"removed_text": {}, "note": "a book inside ltm is clean already"}
    try:
        raw = read_again(section, book.source)
    except BookError as error:
        return row | {"removed_text": {}, "note": f"the file cannot be read again: {error.message}"}
    if book_id(find_layout(clean(raw.text).text).text) != book.book_id:
        return row | {"removed_text": {}, "note": "the file or the cleaning has changed since; run `ltm books` again"}
    removed: dict[str, Any] = {}
    for name, edits in trace(raw.text):
        telling = [edit for edit in edits if edit.removed.split() != edit.inserted.split()]
        if edits:
            removed[name] = {
                "spaces_changed": len(edits) - len(telling),
                "pieces": [[e.start, e.removed[:_JSON_PIECE_CHARS], e.inserted[:_JSON_PIECE_CHARS]] for e in telling],
            }
    return row | {"removed_text": removed}


def read_again(section: BooksSection, source: str) -> RawBook:
    """Return the raw text of a book from the library.

    Args:
        section: Where the library is.
        source: As in the catalogue: a file, or a file and the name of a member or row.

    Raises:
        LibraryError: the library is not where it was.
        BookError: the file is gone or cannot be read.
    """
    root = check_folder(section.path)
    for file in list_files(root, section.manifest):
        if source != file.relative and not source.startswith(f"{file.relative}/"):
            continue
        for found in read_file(read_bytes(file), file.relative, section.text_column):
            if found.book is not None and source in (file.relative, f"{file.relative}/{found.member}"):
                return found.book
    raise BookError(f"{source} is not in the library any more")


def text_of(value: dict[str, Any]) -> str:
    """Return a described book for people."""
    lines = []
    for key, item in value.items():
        if key in ("removed_text", "features", "removed"):
            continue
        shown = f"{len(item)}, the first at {item[:6]}" if isinstance(item, list) else item
        lines.append(f"  {key}: {shown}")
    lines.append("  features: " + ", ".join(f"{name} {number:.3g}" for name, number in value["features"].items()))
    lines.append("  taken away by the cleaning:")
    for name, step in value["removed_text"].items():
        pieces = step["pieces"]
        n_chars = value["removed"].get(name, 0)
        lines.append(
            f"    {name}: {n_chars} characters, {len(pieces)} places, spaces changed {step['spaces_changed']} times"
        )
        for start, removed, inserted in pieces[:_PIECES]:
            became = f" -> {_short(inserted)}" if inserted.strip() else ""
            lines.append(f"      at {start}: {_short(removed)}{became}")
        if len(pieces) > _PIECES:
            lines.append(f"      ... {len(pieces) - _PIECES} more (--json shows all)")
    if not value["removed_text"]:
        lines.append(f"    nothing{'; ' + value['note'] if value.get('note') else ''}")
    return "\n".join(lines)


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return repr(plain if len(plain) <= _PIECE_CHARS else f"{plain[:100]} ... {plain[-50:]}")
