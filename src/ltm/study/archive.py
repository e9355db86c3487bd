"""Open an archive that `ltm pack` wrote, or somebody changed: every file is checked before it is believed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ltm.errors import InputError
from ltm.study.pack import FORMAT, MANIFEST, manifest_id

_LARGEST_MANIFEST_BYTES = 256 << 20
_CHUNK_BYTES = 1 << 20


def is_archive(path: Path) -> bool:
    """Return whether a path is a file that may be an archive."""
    return path.is_file() and zipfile.is_zipfile(path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Path, dict[str, Any], list[str]]]:
    """Give a temporary folder with the archive's files, its manifest, and what is wrong with its files.

    Nothing is unpacked that the manifest does not name, that is larger than it says, or that would leave the folder.

    Raises:
        InputError: it is not an archive of `ltm pack`, or of a newer ltm's.
    """
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not an archive of ltm: {error}", "pack a study: ltm pack STUDY") from None
        manifest = _manifest(archive, path)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ltm-verify-")))
        yield folder, manifest, _unpack(archive, manifest, folder)


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    hint = "pack the study again: ltm pack STUDY"
    try:
        info = archive.getinfo(MANIFEST)
        if info.file_size > _LARGEST_MANIFEST_BYTES:
            raise ValueError("too large")
        manifest = json.loads(archive.read(info))
        version = int(manifest["format"])
        if version > FORMAT:
            raise InputError(f"{path} was packed by a newer ltm ({manifest.get('ltm')})", "upgrade ltm")
        for about in manifest["files"].values():
            str(about["sha256"]), int(about["bytes"])
    except KeyError:
        raise InputError(f"{path} holds no {MANIFEST} of ltm", hint) from None
    except (ValueError, TypeError, AttributeError, zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        raise InputError(f"{path}: its {MANIFEST} is damaged", hint) from None
    return dict(manifest)


def _unpack(archive: zipfile.ZipFile, manifest: dict[str, Any], folder: Path) -> list[str]:
    """Write the files that are what the manifest says; returns what is wrong, a line each."""
    problems: list[str] = []
    if manifest_id(manifest) != manifest.get("id"):
        problems.append(f"{MANIFEST} was changed: its id is {manifest.get('id')}, its contents give another")
    files: dict[str, Any] = manifest["files"]
    seen: set[str] = set()
    for info in archive.infolist():
        name = info.filename
        if name == MANIFEST and name not in seen:
            seen.add(name)
        elif name in seen:
            problems.append(f"{name} is there twice")
        elif name not in files:
            problems.append(f"{name} is not on the list of files")
        elif not _is_inside(name):
            problems.append(f"{name} leads out of the archive")
        else:
            seen.add(name)
            problem = _write(archive, info, files[name], folder / name)
            problems += [f"{name}: {problem}"] if problem else []
    problems += [f"{name} is missing" for name in sorted(set(files) - seen)]
    return problems


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, about: dict[str, Any], path: Path) -> str:
    digest, size = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, open(path, "wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > int(about["bytes"]):
                    break
                digest.update(chunk)
                target.write(chunk)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        path.unlink(missing_ok=True)
        return f"cannot be unpacked ({error})"
    except Exception as error:  # zlib has an error of its own for damaged streams
        path.unlink(missing_ok=True)
        return f"cannot be unpacked ({type(error).__name__})"
    if size != int(about["bytes"]) or digest.hexdigest() != about["sha256"]:
        path.unlink(missing_ok=True)
        return f"its hash is {digest.hexdigest()[:16]}..., not {str(about['sha256'])[:16]}..."
    return ""
