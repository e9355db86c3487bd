"""One library from several sources, mixed by weight: a recipe says how many tokens in all and which share of each.

Reads: a recipe (YAML). Writes: the files of its sources, `manifest.csv`, and `mix.json`: what each source was to give
and what it gave. Before there is a tokenizer, tokens are told from bytes (`bytes_per_token`, about 4 for English with
32,000 tokens).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ltm.books.fetch import gutenberg, hub, standard_ebooks
from ltm.books.fetch.client import Client
from ltm.books.fetch.corpus import Binding, Filled, fill, is_small, source_of
from ltm.books.fetch.fetching import Check, fetch_all
from ltm.books.fetch.plan import Estimate, Wanted, estimate
from ltm.books.fetch.record import Record
from ltm.config import Count, Section, read_yaml, validate
from ltm.progress import Progress

# bytes of a file per byte of the text in it; other tables are about as large as their text
_PART_BYTES = 3 * 1024**2  # of a table of which a part is read: its directory, and what is read ahead
_BYTES_PER_TOKEN = 4.0
_PACKED = ((".parquet", 0.55), (".gz", 0.4), (".zst", 0.35))


class Part(Section):
    """One source of a mix."""

    source: str
    """`gutenberg`, `standard-ebooks` or `hf:OWNER/NAME`."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the tokens; the weights of all sources are normalised to one."""
    language: list[str] = Field(default_factory=list)
    """Languages to take, as two letters; for a dataset: the language of its rows, where it does not say."""
    top: int | None = Field(default=None, ge=1)
    """Of gutenberg: the most read ones."""
    author: str = ""
    """Of gutenberg: part of an author's name."""
    subject: str = ""
    """Of gutenberg: part of a subject or bookshelf (poetry, for example)."""
    feed: Literal["all", "new-releases"] = "all"
    """Of standard-ebooks."""
    user: str = ""
    """Of standard-ebooks: the e-mail address of a member."""
    split: str = "train"
    """Of a dataset."""
    config: str = ""
    """Of a dataset with several subsets."""
    revision: str = "main"
    """Of a dataset: branch, tag or commit."""
    column: str = ""
    """Of a dataset: the column with the text; empty = found."""
    form: Literal["auto", "documents", "volumes"] = "auto"
    """Whether rows are books or are bound into volumes; auto binds short ones."""
    volume_tokens: Annotated[Count, Field(ge=100)] = 50_000
    """Size of a volume."""

    @field_validator("source")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("gutenberg", "standard-ebooks") and not value.startswith("hf:"):
            raise ValueError(f"must be gutenberg, standard-ebooks or hf:OWNER/NAME, not {value!r}")
        return value

    @field_validator("language", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Recipe(Section):
    """A mix."""

    tokens: Annotated[Count, Field(ge=1000)]
    """In all."""
    sources: Annotated[list[Part], Field(min_length=1)]
    """What it is mixed from."""
    bytes_per_token: float = Field(default=4.0, gt=0.5, le=16)
    """UTF-8 bytes that one token stands for."""
    seed: int = 0
    """Of the order in which books and shards are taken."""

    @model_validator(mode="after")
    def _differ(self) -> Recipe:
        if len({part.model_dump_json(exclude={"weight"}) for part in self.sources}) < len(self.sources):
            raise ValueError("names the same source twice: give it one weight")
        return self

    def share_bytes(self, part: Part) -> int:
        """Return the bytes of text that a source is to give."""
        share = part.weight / sum(other.weight for other in self.sources)
        return round(self.tokens * share * self.bytes_per_token)


class Chosen:
    """A source whose catalogue has been read: what could be fetched of it."""

    def __init__(
        self,
        part: Part,
        client: Client,
        wanted_bytes: int | None,
        recipe_seed: int,
        cache: Path,
        any_rights: bool = False,
        limit: int | None = None,
    ) -> None:
        self.part, self.wanted_bytes, self.seed = part, wanted_bytes, recipe_seed
        self.files: list[Wanted] = []
        self.headers: dict[str, str] = {}
        self.dataset: hub.Dataset | None = None
        self.check: Check | None = None
        languages = tuple(part.language)
        if part.source == "gutenberg":
            question = gutenberg.Question(languages, part.top, limit, part.author, part.subject, any_rights)
            self.files = gutenberg.choose(client, question, cache, client.say)
            self.check = gutenberg.check_text
            if part.top is None and wanted_bytes is not None:
                self.files = _mixed(self.files, recipe_seed)
        elif part.source == "standard-ebooks":
            self.files, self.headers = standard_ebooks.choose(client, part.feed, part.user, languages, limit)
        else:
            self.dataset = hub.find_dataset(client, part.source[3:], part.split, part.config, part.revision)

    def estimate(self, client: Client, record_folder: Path, record: Record | None) -> Estimate:
        """Return what it takes to fetch this source."""
        files = self.files
        if self.dataset is not None:
            files = _as_wanted(self.dataset, self.seed, self._binding(_BYTES_PER_TOKEN), self.wanted_bytes)
        elif self.wanted_bytes is not None:
            files = _until_bytes(files, self.wanted_bytes)
        new = [item for item in files if record is None or record.find(item.source) is None]
        return estimate(new, len(files) - len(new), client, record_folder)

    def _binding(self, bytes_per_token: float) -> Binding:
        part = self.part
        language = part.language[0] if len(part.language) == 1 else ""
        return Binding(part.column, part.form, round(part.volume_tokens * bytes_per_token), language)

    def take(self, client: Client, record: Record, progress: Progress, bytes_per_token: float) -> dict[str, Any]:
        """Fetch it; returns what it gave."""
        part = self.part
        if self.dataset is not None:
            binding = self._binding(bytes_per_token)
            filled: Filled = fill(client, self.dataset, record, progress, binding, self.wanted_bytes, self.seed)
            return {
                "source": part.source,
                "commit": self.dataset.commit,
                "licence": self.dataset.licence,
                "bytes": filled.n_bytes,
                "books": filled.n_books,
                "failed": [],
            }
        outcome = fetch_all(client, self.files, record, progress, self.check, self.headers, self.wanted_bytes)
        return {
            "source": part.source,
            "bytes": outcome.n_bytes + outcome.there_bytes,
            "books": outcome.fetched + outcome.there,
            "failed": [list(pair) for pair in outcome.failed],
        }


def read_recipe(path: Path) -> Recipe:
    """Return a recipe.

    Raises:
        InputError: there is no such file.
        ConfigError: lists everything wrong with it, with line and column.
    """
    return validate(Recipe, read_yaml(path))


def outcome_text(wanted_bytes: int | None, given: dict[str, Any], bytes_per_token: float) -> str:
    """Return in words what a source gave."""
    from ltm.units import format_bytes, format_count

    tokens = format_count(given["bytes"] / bytes_per_token)
    text = f"{given['source']}: {given['books']} books, {format_bytes(given['bytes'])}, about {tokens} tokens"
    if wanted_bytes is not None and given["bytes"] < 0.98 * wanted_bytes:
        text += f" ({given['bytes'] / wanted_bytes:.0%} of what was wanted: the source has no more)"
    if given["failed"]:
        text += f"; {len(given['failed'])} could not be had, the first: {given['failed'][0][1]}"
    return text


def _mixed(files: list[Wanted], seed: int) -> list[Wanted]:
    """Return files in a random order, so that a part of a source is not its beginning."""
    import numpy as np

    return [files[int(i)] for i in np.random.default_rng([seed, 0x6D1C]).permutation(len(files))]


def _as_wanted(dataset: hub.Dataset, seed: int, binding: Binding, wanted_bytes: int | None) -> list[Wanted]:
    """Return the shards that are fetched for so much text, the last one perhaps in part."""
    found: list[Wanted] = []
    left = wanted_bytes
    for file in hub.shuffled(dataset, seed):
        if left is not None and left <= 0:
            break
        packed = next((ratio for end, ratio in _PACKED if file.path.endswith(end)), 1.05)
        part = is_small(file, left)
        n_bytes = round((left or 0) * packed) + _PART_BYTES if part else file.n_bytes
        found.append(Wanted(source_of(dataset, file, binding, None), file.path, (file.url,), n_bytes, not part))
        left = None if left is None else left - round(file.n_bytes / packed)
    return found


def _until_bytes(files: list[Wanted], n_bytes: int | None) -> list[Wanted]:
    if n_bytes is None:
        return files
    chosen: list[Wanted] = []
    for item in files:
        if n_bytes <= 0:
            break
        chosen.append(item)
        n_bytes -= item.n_bytes
    return chosen
