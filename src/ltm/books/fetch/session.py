"""One fetch from beginning to end: read catalogues, say what it takes, fetch, and say what came.

Writes: the library folder (see `record`), `mix.json` (what each source was to give and gave).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ltm.books.fetch.client import Client
from ltm.books.fetch.mix import Chosen, Part, Recipe, outcome_text
from ltm.books.fetch.plan import Estimate, check_disk, free_bytes
from ltm.books.fetch.record import Record, open_record
from ltm.errors import InputError
from ltm.progress import Progress
from ltm.store import cache_folder, write_json
from ltm.units import parse_count

_BYTES_PER_TOKEN = 4.0


@dataclass(frozen=True)
class Request:
    """A mix, or one source without a number of tokens."""

    parts: tuple[Part, ...]
    wanted_bytes: tuple[int | None, ...]  # of text, by part
    bytes_per_token: float
    seed: int = 0
    limit: int | None = None
    any_rights: bool = False


@dataclass(frozen=True)
class Given:
    """What a fetch brought."""

    parts: tuple[dict[str, Any], ...]
    wanted_bytes: tuple[int | None, ...]
    bytes_per_token: float

    @property
    def failed(self) -> int:
        """Books that could not be had."""
        return sum(len(part["failed"]) for part in self.parts)

    def text(self) -> str:
        """Return it in words."""
        pairs = zip(self.wanted_bytes, self.parts, strict=True)
        return "\n".join(outcome_text(wanted, part, self.bytes_per_token) for wanted, part in pairs)

    def as_json(self) -> dict[str, Any]:
        """Return it as numbers; `share` is of all tokens."""
        total = sum(part["bytes"] for part in self.parts) or 1
        rows = [
            {**part, "wanted_bytes": wanted, "share": round(part["bytes"] / total, 4)}
            for wanted, part in zip(self.wanted_bytes, self.parts, strict=True)
        ]
        return {"bytes_per_token": self.bytes_per_token, "sources": rows}


def single(source: str, tokens: str | None, limit: int | None, any_rights: bool, fields: Mapping[str, Any]) -> Request:
    """Return the request for one source.

    Raises:
        InputError: it is none, or a number makes no sense.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit} asks for no books", "leave it out to take all")
    try:
        part = Part(source=source, **fields)
        wanted = None if tokens is None else round(parse_count(tokens) * _BYTES_PER_TOKEN)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(word) for word in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where} {said}" if where != "source" else said, "`ltm books fetch --help`") from None
    except ValueError as error:
        raise InputError(f"--tokens: {error}", "write 1000000, 10M or 10B") from None
    return Request((part,), (wanted,), _BYTES_PER_TOKEN, 0, limit, any_rights)


def of_recipe(recipe: Recipe) -> Request:
    """Return the request of a mix."""
    shares = tuple(recipe.share_bytes(part) for part in recipe.sources)
    return Request(tuple(recipe.sources), shares, recipe.bytes_per_token, recipe.seed)


class Session:
    """A fetch into one folder."""

    def __init__(self, client: Client, request: Request | Recipe, folder: Path, progress: Progress) -> None:
        self._client, self._folder, self._progress = client, folder, progress
        self._request = of_recipe(request) if isinstance(request, Recipe) else request
        self._chosen: list[Chosen] = []

    def estimate(self) -> Estimate:
        """Read the catalogues and return what the fetch takes; nothing else is fetched.

        Raises:
            SourceError: a catalogue cannot be had.
            InputError: nothing fits.
        """
        request = self._request
        cache = cache_folder() / "fetch"
        self._chosen = [
            Chosen(part, self._client, wanted, request.seed, cache, request.any_rights, request.limit)
            for part, wanted in zip(request.parts, request.wanted_bytes, strict=True)
        ]
        record = Record(self._folder) if self._folder.is_dir() else None
        parts = [chosen.estimate(self._client, self._folder, record) for chosen in self._chosen]
        return Estimate(
            files=sum(part.files for part in parts),
            there=sum(part.there for part in parts),
            n_bytes=sum(part.n_bytes for part in parts),
            exact=all(part.exact for part in parts),
            seconds_low=sum(part.seconds_low for part in parts),
            seconds_high=sum(part.seconds_high for part in parts),
            free_bytes=free_bytes(self._folder),
        )

    def check_room(self, bill: Estimate) -> None:
        """Refuse what the disk cannot hold.

        Raises:
            DiskError: it cannot.
        """
        check_disk(bill.n_bytes, self._folder, bill.exact)

    def fetch(self) -> Given:
        """Fetch what is not there.

        Raises:
            SourceError: a source gives nothing any more; what came is recorded.
            StoreError: the folder cannot be written, or another fetch works in it.
        """
        request = self._request
        with open_record(self._folder) as record:
            parts = tuple(
                chosen.take(self._client, record, self._progress, request.bytes_per_token) for chosen in self._chosen
            )
        given = Given(parts, request.wanted_bytes, request.bytes_per_token)
        write_json(self._folder / "mix.json", given.as_json())
        return given
