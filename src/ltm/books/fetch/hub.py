"""Datasets of the Hugging Face Hub, by its HTTP interface: which files a dataset has, and their rows.

Files are asked for at the commit that the dataset has now, so that a fetch that goes on tomorrow reads the same files.
Parquet, JSON Lines (also packed) and plain text are read as they lie in the dataset; of a dataset in other formats the
Parquet files that the Hub makes of it are taken. The address is a setting (`HF_ENDPOINT`), a token for datasets that
ask for one too (`HF_TOKEN`); it is sent to that address alone.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urljoin

import numpy as np

from ltm.books.fetch.client import Client, SourceError
from ltm.books.fetch.remote import RemoteFile
from ltm.errors import InputError

SITE = "https://huggingface.co"
_CONVERTED = "refs/convert/parquet"
_ROWS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".json.gz", ".txt", ".txt.gz")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_TEXTS = ("text", "content", "book_text", "full_text", "raw_content", "body", "story", "document", "poem", "code")
_TITLES = ("title", "book_title", "name", "path", "id")
_AUTHORS = ("author", "authors", "creator", "poet", "repo_name")
_MOST_PAGES = 1000


@dataclass(frozen=True)
class DataFile:
    """One file of a dataset."""

    path: str
    n_bytes: int
    sha256: str  # empty where the Hub does not tell it
    url: str


@dataclass(frozen=True)
class Dataset:
    """A dataset at one commit."""

    name: str
    commit: str
    licence: str
    languages: tuple[str, ...]
    files: tuple[DataFile, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all its chosen files."""
        return sum(file.n_bytes for file in self.files)


@dataclass(frozen=True)
class Document:
    """One row: a text and what the row says of it."""

    text: str
    title: str = ""
    author: str = ""


def find_dataset(client: Client, name: str, split: str = "train", config: str = "", revision: str = "main") -> Dataset:
    """Return a dataset and the files of one split.

    Args:
        client: Asks.
        name: `owner/name`, or `name` alone for old ones.
        split: Part of the dataset; files are taken whose path names it, or all where none names any split.
        config: Subset, where the dataset has several: a folder or a part of the file's name.
        revision: Branch, tag or commit.

    Raises:
        InputError: the name is none, or the dataset has no such split or config.
        SourceError: it does not exist, asks for permission, or the Hub cannot be reached.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no dataset name", "write hf:OWNER/NAME, as on huggingface.co/datasets")
    site = os.environ.get("HF_ENDPOINT", SITE).rstrip("/")
    about = _json(client, f"{site}/api/datasets/{name}/revision/{quote(revision, safe='')}", name)
    commit = str(about.get("sha") or revision)
    files = _files(client, site, name, commit)
    if not files:
        files = _files(client, site, name, _CONVERTED)
    if not files:
        raise InputError(f"{name} has no Parquet, JSON Lines or text files", "choose another dataset")
    chosen = _chosen(files, name, split, config)
    card = about.get("cardData") or {}
    return Dataset(name, commit, _words(card.get("license")), tuple(_list(card.get("language"))), tuple(chosen))


def token_headers() -> dict[str, str]:
    """Return the header that shows who one is, where a token is set."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return {"authorization": f"Bearer {token}"} if token else {}


def shuffled(dataset: Dataset, seed: int) -> list[DataFile]:
    """Return the files in a random order, so that a part of a dataset is not its beginning; same seed, same order."""
    rng = np.random.default_rng([seed, zlib.crc32(dataset.name.encode())])
    return [dataset.files[int(i)] for i in rng.permutation(len(dataset.files))]


def read_documents(path: Path, column: str = "", remote: RemoteFile | None = None) -> Iterator[Document]:
    """Yield the rows of a fetched file that have a text, a few at a time in memory.

    Args:
        path: The file.
        column: The column with the text; empty = the first known name, else the one with the longest values.
        remote: A Parquet file to read in its place, which lies elsewhere.

    Raises:
        InputError: no such column.
        SourceError: the file is damaged.
    """
    lower = path.name.lower()
    try:
        if lower.endswith(".parquet"):
            rows = _parquet_rows(remote or path)
        elif lower.endswith((".txt", ".txt.gz")):
            with _opened(path) as file:
                rows = iter([{"text": file.read().decode("utf-8", "replace"), "title": path.stem}])
        else:
            rows = _json_rows(path)
        names: dict[str, str] = {}
        for row in rows:
            names = names or _columns(row, column, path)
            text = row.get(names["text"])
            if isinstance(text, str) and text.strip():
                yield Document(text, _words(row.get(names["title"])), _words(row.get(names["author"])))
    except (OSError, EOFError, ValueError, zlib.error) as error:  # Arrow's own are of these kinds
        said = (str(error).splitlines() or ["empty"])[0][:100]
        raise SourceError(f"{path.name} is damaged ({said})", "fetch it again") from None


def _columns(row: dict[str, Any], column: str, path: Path) -> dict[str, str]:
    """Return which columns hold text, title and author."""
    lower = {key.lower(): key for key in row}
    if column:
        if column not in row:
            raise InputError(
                f"{path.name} has no column {column!r}", f"it has {', '.join(sorted(map(str, row)))} (--column)"
            )
        text = column
    else:
        strings = [key for key, value in row.items() if isinstance(value, str)]
        known = [lower[name] for name in _TEXTS if lower.get(name) in strings]
        if not strings:
            raise InputError(f"no column of {path.name} holds text", f"it has {', '.join(sorted(map(str, row)))}")
        text = known[0] if known else max(strings, key=lambda key: len(row[key]))
    return {
        "text": text,
        "title": next((lower[name] for name in _TITLES if name in lower and lower[name] != text), ""),
        "author": next((lower[name] for name in _AUTHORS if name in lower and lower[name] != text), ""),
    }


def _parquet_rows(source: Path | RemoteFile) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source, pre_buffer=True) as file:
        for group in range(file.num_row_groups):  # one after another, so that no more is read than is asked for
            for batch in file.iter_batches(batch_size=256, row_groups=[group], use_threads=False):
                yield from batch.to_pylist()


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as file:
        for line in file:
            if line.strip():
                row = json.loads(line)
                yield row if isinstance(row, dict) else {"text": row}


def _opened(path: Path) -> Any:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")
    if path.name.lower().endswith(".zst"):
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return open(path, "rb")


def _files(client: Client, site: str, name: str, revision: str) -> list[DataFile]:
    """Return the files with rows of one revision; a page of the list may be followed by others."""
    marked = quote(revision, safe="")
    url: str | None = f"{site}/api/datasets/{name}/tree/{marked}?recursive=true&expand=false"
    found: list[DataFile] = []
    for _ in range(_MOST_PAGES):
        if url is None:
            break
        try:
            answer = client.get(url, token_headers() if url.startswith(site) else {})
        except SourceError as error:
            if revision == _CONVERTED and error.status == 404:
                return []
            raise _explained(error, name) from None
        for item in _parsed(answer.body, url, list):
            path = str(item.get("path", ""))
            if (
                item.get("type") != "file"
                or not path.lower().endswith(_ROWS)
                or PurePosixPath(path).name.startswith(".")
            ):
                continue
            sha256 = str((item.get("lfs") or {}).get("oid", ""))
            place = f"{site}/datasets/{name}/resolve/{marked}/{quote(path)}"
            found.append(DataFile(path, int(item.get("size", 0)), sha256 if len(sha256) == 64 else "", place))
        following = _NEXT.search(answer.headers.get("link", ""))
        url = urljoin(url, following[1]) if following else None
    text_only = [file for file in found if file.path.lower().endswith((".txt", ".txt.gz"))]
    return [file for file in found if file not in text_only] or text_only  # a README.txt beside tables is no data


def _chosen(files: list[DataFile], name: str, split: str, config: str) -> list[DataFile]:
    """Return the files of a config and a split, by the words in their paths."""
    if config:
        fitting = [file for file in files if config in _path_words(file.path)]
        if not fitting:
            known = sorted({word for file in files for word in PurePosixPath(file.path).parts[:-1]})
            raise InputError(
                f"{name} has no subset {config!r}", f"it has {', '.join(known[:12]) or 'one only'} (--config)"
            )
        files = fitting
    splits = {word for file in files for word in _path_words(file.path)} & {
        "train",
        "validation",
        "valid",
        "test",
        "dev",
    }
    if not splits or not split:
        return sorted(files, key=lambda file: file.path)
    fitting = [file for file in files if split in _path_words(file.path)]
    if not fitting:
        raise InputError(f"{name} has no split {split!r}", f"it has {', '.join(sorted(splits))} (--split)")
    return sorted(fitting, key=lambda file: file.path)


def _path_words(path: str) -> set[str]:
    """Return the folders of a path and the parts of its name: `en/train-00000-of-00002.parquet` has en and train."""
    pure = PurePosixPath(path)
    return {*pure.parts[:-1], *re.split(r"[-_.]", pure.name), pure.name.split(".")[0]}


def _json(client: Client, url: str, name: str) -> dict[str, Any]:
    try:
        body = client.get(url, token_headers()).body
    except SourceError as error:
        raise _explained(error, name) from None
    found: dict[str, Any] = _parsed(body, url, dict)
    return found


def _parsed(body: bytes, url: str, kind: type) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise SourceError(f"{url} is no answer of the Hub", "check HF_ENDPOINT")
    return value


def _explained(error: SourceError, name: str) -> SourceError:
    if error.status in (401, 403):
        # the Hub answers so for what does not exist, too
        return SourceError(
            f"the Hub shows no dataset {name}: it does not exist, or asks for permission",
            "check the name; for a dataset behind a form, accept it on the Hub and set HF_TOKEN",
            error.status,
        )
    if error.status == 404:
        return SourceError(f"there is no dataset {name} (or no such revision)", "check the name on the Hub", 404)
    return error


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def _list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []
