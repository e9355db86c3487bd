"""The conversations that models are tuned on, and those that only test them: from the user's file or from the books.

Reads: `books/catalogue.parquet` and clean texts, or a JSONL file. Writes: `dialogue/train.jsonl`,
`dialogue/held_out.jsonl`. What tests comes from other books (other lines of a file) than what is learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm.books.catalogue import TextStore, read_catalogue
from ltm.dialogue.extract import conversations, messages
from ltm.dialogue.section import DialogueSection
from ltm.errors import ConfigError, InputError
from ltm.progress import Progress
from ltm.store import WorkFolder, write_text

TRAIN, HELD_OUT = "train.jsonl", "held_out.jsonl"
_MOST_TURNS = 8  # of one conversation; longer ones are cut into several
_MOST_LINE_BYTES = 1_000_000
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Conversation:
    """One conversation and where it came from."""

    source: str  # book_id, or `line 12`
    messages: list[dict[str, str]]


def gather(section: DialogueSection, work: WorkFolder, progress: Progress) -> tuple[int, int]:
    """Write what is learned and what tests; returns how many of each.

    Raises:
        ConfigError: lines of the user's file are malformed; names each.
        InputError: the file cannot be read.
    """
    found = list(read_file(Path(section.path)) if section.path else _of_books(work, progress))
    step = max(1.0, len(found) / section.most_conversations)
    found = [found[int(i * step)] for i in range(int(len(found) / step))]
    held = [_share(one.source) < section.held_out_share for one in found]
    if found and not any(held):  # one book, or very few: the last of its conversations test
        held[-max(1, len(found) // 10) :] = [True] * max(1, len(found) // 10)
    for name, wanted in ((TRAIN, False), (HELD_OUT, True)):
        lines = [_line(one) for one, kept in zip(found, held, strict=True) if kept is wanted]
        write_text(work.path("dialogue", name), "".join(f"{line}\n" for line in lines))
    return held.count(False), held.count(True)


def read_stored(work: WorkFolder, name: str) -> list[Conversation]:
    """Return the conversations that `gather` wrote."""
    lines = work.path("dialogue", name).read_text(encoding="utf-8").splitlines()
    return [Conversation(row["source"], row["messages"]) for row in map(json.loads, lines)]


def read_file(path: Path) -> Iterator[Conversation]:
    """Yield the conversations of a JSONL file in the messages format.

    Raises:
        InputError: it cannot be read.
        ConfigError: names every malformed line, at most twenty.
    """
    problems: list[str] = []
    found: list[Conversation] = []
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    problem, value = _checked(raw)
                    if problem:
                        problems.append(f"{path}:{number}: {problem}")
                    else:
                        found.append(Conversation(f"line {number}", value))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", "name a JSONL file of conversations in dialogue.path") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
    if problems:
        more = [f"... and {len(problems) - 20} more lines"] if len(problems) > 20 else []
        hint = 'a line is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
        raise ConfigError([*problems[:20], *more], hint)
    yield from found


def _checked(raw: bytes) -> tuple[str, list[dict[str, str]]]:
    """Return what is wrong with a line, or its messages."""
    if len(raw) > _MOST_LINE_BYTES:
        return f"longer than {_MOST_LINE_BYTES:,} bytes", []
    try:
        value: Any = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start})", []
    except (json.JSONDecodeError, RecursionError):
        return "not JSON", []
    turns = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(turns, list) or not turns:
        return "has no list `messages`", []
    clean = []
    for place, turn in enumerate(turns):
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
            return f"message {place + 1} needs a `role` of {', '.join(_ROLES)} and a text `content`", []
        clean.append({"role": str(turn["role"]), "content": str(turn["content"])})
    if not any(turn["role"] == "assistant" and turn["content"].strip() for turn in clean):
        return "has no answer: no message of role assistant", []
    if clean[0]["role"] == "assistant":
        return "begins with an answer: the first message must be of role user or system", []
    return "", clean


def _of_books(work: WorkFolder, progress: Progress) -> Iterator[Conversation]:
    store = TextStore(work)
    books = sorted((book for book in read_catalogue(work) if book.pool == "train"), key=lambda book: book.book_id)
    task = progress.task("dialogue", len(books), "books")
    for book in books:
        for running in conversations(store.read(book.book_id), book.language):
            turns = messages(running)
            for start in range(0, len(turns), _MOST_TURNS):
                yield Conversation(book.book_id, turns[start : start + _MOST_TURNS])
        task.advance()


def _share(source: str) -> float:
    """Return a fixed number in [0, 1) for a source: what decides whether it tests."""
    return int(hashlib.sha256(source.encode()).hexdigest()[:8], 16) / 16**8


def _line(one: Conversation) -> str:
    return json.dumps({"source": one.source, "messages": one.messages}, ensure_ascii=False)


def sources(found: Sequence[Conversation]) -> int:
    """Return from how many books or lines conversations come."""
    return len({one.source for one in found})
