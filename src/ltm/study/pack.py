"""Pack a study into one archive that others can check and repeat: all rows, none of the books unless it may be.

Writes: a ZIP file, the same bytes for the same study: `MANIFEST.json` (every file with its SHA-256, what was left out
and why, the books by id, title and rights, the runs), `study.yaml` (the settings, without paths), and the work folder's
files under their own names. With the same library, `ltm verify ARCHIVE --rerun N --library DIR` trains runs again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from ltm.books.catalogue import columns
from ltm.errors import InputError, LtmError, StoreError
from ltm.runs import queue
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, fingerprint, read_json, read_table, store_error
from ltm.study.edits import EARLIER

FORMAT = 1
MANIFEST, STUDY, EVAL_FILE = "MANIFEST.json", "study.yaml", "inputs/eval_set.yaml"
WEIGHTS = "weights.safetensors"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file in the archive: the same study, the same bytes
_PARTS = ("books", "sets", "tokens", "evalset", "runs", "scores", "patterns", "dashboard", EARLIER)
_TOP = ("ltm.json", "forecast.json", "timings.json", "design_steps.json", "ltm_result_dashboard.html")
_LEFT = re.compile(r"(^|/)(\.|checkpoint\.|heartbeat\.|log\.txt$|index\.parquet$|.*\.tmp$)")
_STORED = (".parquet", ".safetensors", ".bin", ".zst", ".gz")  # compressed already, or hardly compressible
_PATHS: tuple[tuple[str, str], ...] = (
    *(("books", "path"), ("books", "manifest"), ("sets", "among"), ("tokens", "tokenizer"), ("evalset", "path")),
    ("model", "base"),
)
_OPEN = re.compile(
    r"public\s*domain|gemeinfrei|общественн\w+ достояни|\bcc0\b|\bpdm?\b|creative commons zero|\bunlicen[cs]e\b"
    r"|\b(cc|creative commons)[\s-]*(by|attribution)([\s-]*(sa|share[\s-]*alike))?([\s-]*\d\.\d)?\b(?![\s-]*n[cd])",
    re.IGNORECASE,
)
_CLOSED = re.compile(r"all rights reserved|©|non[\s-]*commercial|no[\s-]*deriv|\bnc\b|\bnd\b|\bnot\b", re.IGNORECASE)
_CHUNK_BYTES = 1 << 20
Texts = Literal["none", "allowed", "all"]


@dataclass(frozen=True)
class Packed:
    """An archive that was written."""

    path: Path
    id: str  # fingerprint of all that it holds: equal studies, equal ids
    n_files: int
    n_bytes: int
    left_out: list[dict[str, Any]]


def pack(work: WorkFolder, out: Path, weights: bool, texts: Texts) -> Packed:
    """Write a study as one archive, whole.

    Args:
        work: The study's work folder; it is only read.
        out: The file to be made.
        weights: Whether the weights of the runs that kept them come along.
        texts: Whether texts of books come along (clean texts, tokens, questions): none, those of books whose rights
            allow it where that holds for all books of a file, or all.

    Raises:
        InputError: the file exists, or the folder has no study.
        StoreError: something in the work folder is missing or damaged, or the archive cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists already", "delete it, or choose another --out")
    if not work.path("study.json").exists():
        raise InputError(f"{work.root} has no study", "run it first: ltm run STUDY")
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(6)}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w+b") as file:
            manifest = _write(work, file, weights, texts)
            file.flush()
            os.fsync(file.fileno())
        if out.exists():
            raise InputError(f"{out} exists already", "delete it, or choose another --out")
        temporary.rename(out)
    except OSError as error:
        raise store_error(error, out) from error
    finally:
        temporary.unlink(missing_ok=True)
    return Packed(out, manifest["id"], len(manifest["files"]), out.stat().st_size, manifest["left_out"])


def _write(work: WorkFolder, file: IO[bytes], weights: bool, texts: Texts) -> dict[str, Any]:
    settings = read_json(work.path("study.json"))
    refused = _refused_texts(work, texts)
    files: dict[str, dict[str, Any]] = {}
    left_out: list[dict[str, Any]] = []
    with zipfile.ZipFile(file, "w") as archive:
        extra = {STUDY: _study_text(settings)}
        if (path := settings.get("evalset", {}).get("path")) and Path(path).is_file():
            extra[EVAL_FILE] = Path(path).read_bytes()
        for name, data in sorted(extra.items()):
            _add(archive, name, data)
            files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for path in _files(work):
            name = path.relative_to(work.root).as_posix()
            why = "weights were not asked for" if path.name == WEIGHTS and not weights else _why_left(name, refused)
            about = _hashed(path) if why else _add_file(archive, path, name)
            if why:
                left_out.append({"path": name, **about, "why": why})
            else:
                files[name] = about
        manifest = {**_about(work, settings, weights, texts), "files": files, "left_out": left_out}
        manifest["id"] = manifest_id(manifest)
        _add(archive, MANIFEST, json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return manifest


def manifest_id(manifest: dict[str, Any]) -> str:
    """Return the fingerprint of a manifest, its own `id` left out."""
    return fingerprint({key: value for key, value in manifest.items() if key != "id"}, 32)


def is_open(licence: str) -> bool:
    """Return whether rights that are written so let anybody pass a text on.

    >>> [is_open(x) for x in ("public domain (Project Gutenberg)", "CC BY-SA 4.0", "CC BY-NC 4.0", "", "© 2020 X")]
    [True, True, False, False, False]
    """
    return _OPEN.search(licence) is not None and _CLOSED.search(licence) is None


def _about(work: WorkFolder, settings: dict[str, Any], weights: bool, texts: Texts) -> dict[str, Any]:
    from importlib import metadata

    runs = {run.run_id: run for run in queue.complete_runs(work)} if work.path("runs", "jobs.json").exists() else {}
    names = ("book_id", "title", "author", "language", "licence", "n_bytes", "pool")
    table = columns(work, list(names)).to_pylist() if work.path("books", "catalogue.parquet").exists() else []
    return {
        "format": FORMAT,
        "ltm": metadata.version("ltm"),
        "study": settings.get("name", ""),
        "question": settings.get("question", ""),
        "seed": settings.get("seed"),
        "weights": "kept" if weights else "none",
        "texts": texts,
        "library": sorted(([row[name] for name in names] for row in table), key=lambda row: str(row[0])),
        "library_columns": list(names),
        "runs": [[run_id, runs[run_id].weights_sha256] for run_id in sorted(runs)],
    }


def _study_text(settings: dict[str, Any]) -> bytes:
    """Return the settings as a study file; JSON is YAML. Paths of this machine are left out."""
    clean = json.loads(json.dumps({k: v for k, v in settings.items() if k not in ("overrides", "work", "trackers")}))
    for section, key in _PATHS:
        if isinstance(clean.get(section), dict) and clean[section].get(key) is not None:
            clean[section][key] = None
    text = json.dumps(clean, indent=1, sort_keys=True, ensure_ascii=False)
    return f"# made by `ltm pack`; for a library of your own: --set books.path=DIR\n{text}\n".encode()


def _files(work: WorkFolder) -> Iterator[Path]:
    """Yield the files of a study, in the order of their names; links and what is under way are left out."""
    found = [work.path(name) for name in _TOP]
    for part in _PARTS:
        for folder, _, names in os.walk(work.path(part)):
            found += [Path(folder, name) for name in names]
    for path in sorted(found, key=lambda path: path.relative_to(work.root).as_posix()):
        name = path.relative_to(work.root).as_posix()
        if path.is_file() and not path.is_symlink() and not _LEFT.search(name):
            yield path


def _refused_texts(work: WorkFolder, texts: Texts) -> dict[str, str]:
    """Return why the files that hold texts of books stay here, by the beginning of their names."""
    holders = ("books/text/", "tokens/tokens.bin", "evalset/")
    if texts == "all":
        return {}
    if texts == "none":
        return dict.fromkeys(holders, "it holds texts of books, which were not asked for (--text allowed|all)")
    table = columns(work, ["book_id", "title", "licence"]).to_pylist()
    closed = {row["book_id"]: row["title"] for row in table if not is_open(row["licence"])}
    inside = {
        "books/text/": {row["book_id"] for row in table},
        "tokens/tokens.bin": {book for variant in read_variants(work) for book in variant.book_ids},
        "evalset/": _asked_books(work),
    }
    refused = {}
    for name, books in inside.items():
        if titles := sorted(closed[book] for book in books & closed.keys()):
            more = f" and {len(titles) - 3} more" if len(titles) > 3 else ""
            refused[name] = (
                f"it holds texts of {len(titles)} books whose rights do not say that they may be passed on: "
            )
            refused[name] += ", ".join(titles[:3]) + more
    return refused


def _asked_books(work: WorkFolder) -> set[str]:
    found: set[str] = set()
    for path in work.path("evalset").glob("bank_*.parquet"):
        try:
            found |= set(read_table(path, ["cluster"]).column("cluster").to_pylist())
        except (LtmError, KeyError):
            raise StoreError(f"{path} cannot be read", "delete the evalset folder and run the study again") from None
    return found


def _why_left(name: str, refused: dict[str, str]) -> str:
    """Return why a file stays here; empty where it may come along. A stage's marker holds no text."""
    if name.endswith("/done.json"):
        return ""
    return next((why for start, why in refused.items() if name.startswith(start)), "")


def _hashed(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return {"sha256": digest.hexdigest(), "bytes": size}


def _add_file(archive: zipfile.ZipFile, path: Path, name: str) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as source, archive.open(_info(name), "w", force_zip64=True) as target:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
    return {"sha256": digest.hexdigest(), "bytes": size}


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    with archive.open(_info(name), "w") as target:
        target.write(data)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info
