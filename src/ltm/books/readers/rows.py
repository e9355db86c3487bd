"""JSON Lines and Parquet as Hugging Face datasets have them: one book or document a row.

The text is the column that the study names, else the first known name (`text`, `content`, ...), else the text column
with the longest values. Columns called title, author and so on, also inside a `meta` column, are the row's metadata.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ltm.books.readers.base import HEADING, MAX_FILE_BYTES, Found, RawBook
from ltm.errors import BookError
from ltm.units import format_bytes

SUFFIXES = (".jsonl", ".ndjson", ".parquet")
_TEXT_NAMES = ("text", "content", "book_text", "full_text", "raw_content", "body", "story", "document", "markdown")
_META_NAMES = ("meta", "metadata", "info")
_NAMES: dict[str, tuple[str, ...]] = {  # what a field may be called, best first
    "title": ("title", "book_title", "name", "work_title", "short_book_title"),
    "author": ("author", "authors", "creator", "book_author", "author_name", "writer"),
    "year": ("year", "publication_year", "first_publication_year", "date", "publication_date", "published", "created"),
    "language": ("language", "lang", "languages", "language_code"),
    "genre": ("genre", "genres", "category", "subject", "subjects"),
    "rights": ("rights", "licence", "license", "copyright", "usage_rights"),
}
_MAX_LINE_BYTES = MAX_FILE_BYTES
_GUESS_ROWS = 50


def read_rows(data: bytes, name: str, text_column: str = "") -> Iterator[Found]:
    """Yield the book of every row.

    Args:
        data: The whole file.
        name: Its name; the suffix tells Parquet from JSON Lines.
        text_column: The column that holds the text; empty = find it.

    Raises:
        BookError: the file is damaged, or no column holds text.
    """
    return _parquet(data, text_column) if name.lower().endswith(".parquet") else _json_lines(data, text_column)


def _json_lines(data: bytes, text_column: str) -> Iterator[Found]:
    column = text_column
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip(b" \t\r\n\x00\xef\xbb\xbf"):
            continue
        member = f"line {number}"
        if len(line) > _MAX_LINE_BYTES:
            yield Found(member, None, f"the line has more than {format_bytes(_MAX_LINE_BYTES)}")
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            yield Found(member, None, f"the line is not JSON: {str(error)[:100]}")
            continue
        if isinstance(row, str):
            row = {"text": row}
        if not isinstance(row, dict):
            yield Found(member, None, f"the line holds a {type(row).__name__}, not an object with a text")
            continue
        column = column or _text_column([row])
        yield _found(row, column, member)


def _parquet(data: bytes, text_column: str) -> Iterator[Found]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        expected = sum(_unpacked_bytes(file, group) for group in range(file.num_row_groups))
        if expected > 20 * MAX_FILE_BYTES:
            raise BookError(
                f"the table unpacks to {format_bytes(expected)}; at most {format_bytes(20 * MAX_FILE_BYTES)}"
            )
        column, place = text_column, 0
        for batch in file.iter_batches(batch_size=64):
            rows = batch.to_pylist()
            column = column or _text_column(rows[:_GUESS_ROWS])
            for row in rows:
                yield _found(row, column, f"row {place}")
                place += 1
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        raise BookError(f"the Parquet file is damaged or cut off ({str(error).splitlines()[0][:120]})") from None


def _unpacked_bytes(file: Any, group: int) -> int:
    return int(file.metadata.row_group(group).total_byte_size)


def _text_column(rows: list[dict[str, Any]]) -> str:
    """Return the name of the column that holds the text; empty if none does."""
    if not rows:
        return ""
    for name in _TEXT_NAMES:
        for key in rows[0]:
            if key.lower() == name and isinstance(rows[0][key], str):
                return key
    lengths = {
        key: sum(len(row[key]) for row in rows if isinstance(row.get(key), str))
        for key in rows[0]
        if isinstance(rows[0][key], str)
    }
    return max(lengths, key=lambda key: lengths[key]) if lengths else ""


def _found(row: Mapping[str, Any], column: str, member: str) -> Found:
    text = row.get(column)
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = "\n\n".join(text)
    if not isinstance(text, str):
        said = f"column `{column}` holds no text" if column else "no column holds a text"
        return Found(member, None, f"{said} (columns: {', '.join(map(str, list(row)[:8]))})")
    if not text.strip():
        return Found(member, None, "the text of the row is empty")
    fields = {field: _field(row, names) for field, names in _NAMES.items()}
    return Found(member, RawBook(text=text.replace(HEADING, ""), **fields))


def _field(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    places: list[Mapping[str, Any]] = [row]
    for name in _META_NAMES:
        inner = row.get(name)
        if isinstance(inner, str) and inner.startswith("{"):
            try:
                inner = json.loads(inner)
            except (ValueError, RecursionError):
                inner = None
        if isinstance(inner, dict):
            places.append(inner)
    for place in places:
        lower = {str(key).lower(): value for key, value in place.items()}
        for name in names:
            value = _plain(lower.get(name))
            if value:
                return value
    return ""


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(filter(None, (_plain(part) for part in value[:5])))
    if isinstance(value, dict):
        return _plain(value.get("name") or value.get("value") or "")
    if isinstance(value, bool) or value is None:
        return ""
    return str(value).strip()[:300]
