"""The `books` section of a study: which library to read and whose books to hold out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ltm.config import Count, Section


class BooksSection(Section):
    """Which books there are, and which authors are kept for the eval set."""

    source: Literal["kjv", "folder"] = "kjv"
    """Where the books come from: `kjv` is the library inside ltm (66 books), `folder` is a folder of your own
    (`path`)."""
    path: str | None = None
    """The folder of books, from the current directory; setting it makes `source` a folder."""
    manifest: str | None = None
    """A CSV file with a `file` column and any of language, title, author, year, genre, licence, and the column that
    `rank_by` names; by default `manifest.csv` in the folder or in the one above it."""
    text_column: str = ""
    """The column that holds the text in JSON Lines and Parquet files; empty finds it (`text`, `content`, ...)."""
    languages: list[str] = []
    """Languages to keep, as two letters (`en`, `ru`); empty keeps all."""
    min_words: Count = Field(default=1000, ge=0)
    """Shorter books are rejected; the library inside ltm is kept whole."""
    max_books: Count | None = Field(default=None, ge=4)
    """At most this many books, drawn with the study's seed."""
    held_out_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the books whose authors are held out for the eval set; at least 3 books are."""
    held_out_authors: list[str] = []
    """Authors to hold out, in place of the share; name at least two."""
    dedupe: bool = True
    """Reject a book whose text is, for the greater part, in another book."""
    rank_by: str = ""
    """What makes a book better: a column of the manifest with numbers (`rating`, `downloads`; `-place` = less is
    better) or `quality`, ltm's own score of how sound a text is; empty keeps the library's order."""
    keep_best: Count | None = Field(default=None, ge=4)
    """Keep so many books, the best by `rank_by`; the others are rejected, with their place as the reason."""

    @model_validator(mode="after")
    def _best_of_what(self) -> BooksSection:
        if self.keep_best is not None and not self.rank_by:
            raise ValueError("keep_best needs rank_by: a column of the manifest, or `quality`")
        return self

    @model_validator(mode="before")
    @classmethod
    def _path_means_folder(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("path"):
            return {**data, "source": "folder"}
        return data
