"""Talk to models in the terminal: answers appear as they are made; two models answer side by side."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from ltm.errors import InputError, LtmError
from ltm.export.conversation import Conversation, Turn
from ltm.export.speakers import Speaker
from ltm.store import write_text

HELP = """/set NAME VALUE    temperature, top_k, top_p, repeat_penalty, max_tokens, seed (/set shows them)
/compare RUN       let another model answer beside this one; /compare alone ends it
/retry             answer the last line again, with the next seed
/undo              forget the last line and its answer
/reset             forget the conversation
/history           show the conversation
/save FILE         write the conversation to a new text file
/quit              leave (also Ctrl-D); Ctrl-C stops an answer"""
_NARROWEST = 60  # columns, below which two answers stand one under the other


class Chat:
    """The terminal's side of a conversation.

    Args:
        conversation: With one or two models.
        open_speaker: Returns the model that a word names, for `/compare`.
        out: Where answers go.
    """

    def __init__(
        self, conversation: Conversation, open_speaker: Callable[[str], Speaker], out: TextIO = sys.stdout
    ) -> None:
        self.conversation, self._open, self.out = conversation, open_speaker, out
        self.first_token_seconds = 0.0  # of the newest answer

    def run(self, lines: Iterator[str]) -> None:
        """Answer line after line until there are no more, or `/quit`."""
        self._say(f"{self._names()}: type, or /help")
        for line in lines:
            try:
                if not self.line(line.rstrip("\n")):
                    return
            except LtmError as error:
                self._say(f"error: {error}")

    def line(self, line: str) -> bool:
        """Do what one line says; returns whether to go on."""
        if not line.strip():
            return True
        if not line.startswith("/"):
            self._answer(self.conversation.ask(line))
            return True
        word, _, rest = line[1:].partition(" ")
        if word in ("quit", "exit", "q"):
            return False
        commands = {
            "help": lambda _: self._say(HELP), "set": self._set, "compare": self._compare, "retry": self._retry,
            "undo": self._undo, "reset": self._reset, "history": self._history, "save": self._save,
        }  # fmt: skip
        if word not in commands:
            raise InputError(f"there is no /{word}", "/help lists what there is")
        commands[word](rest.strip())
        return True

    def _answer(self, turn: Turn) -> None:
        for number, passage in enumerate(turn.passages, 1):
            self._say(f"  [{number}] {passage.source}")
        began, self.first_token_seconds = time.monotonic(), 0.0
        with _interruptible() as stopped:
            if len(self.conversation.speakers) == 1:
                for piece in self.conversation.answer(0, stopped.is_set):
                    self.first_token_seconds = self.first_token_seconds or time.monotonic() - began
                    self.out.write(piece)
                    self.out.flush()
                self._say("")
                return
            for which in range(len(self.conversation.speakers)):
                for _ in self.conversation.answer(which, stopped.is_set):
                    self.first_token_seconds = self.first_token_seconds or time.monotonic() - began
        width = shutil.get_terminal_size((100, 24)).columns
        names = [speaker.name for speaker in self.conversation.speakers]
        self._say(side_by_side(names, turn.answers, width))

    def _set(self, rest: str) -> None:
        name, _, value = rest.replace("=", " ").partition(" ")
        if not rest:
            for key, item in vars(self.conversation.sampling).items():
                self._say(f"  {key} {item:g}")
            return
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"`{value.strip()}` is no number", "for example /set temperature 0.7") from None
        self.conversation.set(name, number)

    def _compare(self, rest: str) -> None:
        speakers = self.conversation.speakers[:1]
        if rest:
            speakers.append(self._open(rest))
        self.conversation.speakers = speakers
        for turn in self.conversation.turns:
            turn.answers = [*turn.answers, ""][: len(speakers)]
        self._say(self._names())

    def _retry(self, _: str) -> None:
        if not self.conversation.turns:
            raise InputError("nothing was said yet", "type a line first")
        text = self.conversation.turns[-1].text
        self.conversation.undo()
        self.conversation.set("seed", self.conversation.sampling.seed + 1)
        self._answer(self.conversation.ask(text))

    def _undo(self, _: str) -> None:
        if not self.conversation.undo():
            raise InputError("nothing was said yet", "type a line first")

    def _reset(self, _: str) -> None:
        self.conversation.reset()

    def _history(self, _: str) -> None:
        self._say(self._transcript())

    def _save(self, rest: str) -> None:
        path = Path(rest).expanduser()
        if not rest or path.exists():
            raise InputError(
                f"{rest or 'no file'} cannot be written anew", "name a file that does not exist: /save FILE"
            )
        write_text(path, self._transcript() + "\n")
        self._say(f"wrote {path}")

    def _transcript(self) -> str:
        lines = []
        for turn in self.conversation.turns:
            lines.append(f"> {turn.text}")
            lines += [f"  [{number}] {passage.source}" for number, passage in enumerate(turn.passages, 1)]
            lines += [
                f"{speaker.name}: {answer}"
                for speaker, answer in zip(self.conversation.speakers, turn.answers, strict=False)
            ]
        return "\n".join(lines)

    def _names(self) -> str:
        return " and ".join(speaker.name for speaker in self.conversation.speakers)

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)


def side_by_side(names: list[str], texts: list[str], width: int) -> str:
    """Return two texts in two columns, or one under the other where there is no room.

    >>> print(side_by_side(["a", "b"], ["one two", "three"], 61).replace(" ", "."))
    a..............................|.b
    one.two........................|.three
    """
    if width < _NARROWEST or len(texts) != 2:
        return "\n".join(f"{name}:\n{text}" for name, text in zip(names, texts, strict=True))
    column = (width - 3) // 2
    wrapped = []
    for name, text in zip(names, texts, strict=True):
        lines = [name]
        for line in text.splitlines() or [""]:
            lines += textwrap.wrap(line, column, break_long_words=True) or [""]
        wrapped.append(lines)
    height = max(map(len, wrapped))
    rows = zip(*(lines + [""] * (height - len(lines)) for lines in wrapped), strict=True)
    return "\n".join(f"{left:<{column + 2}}| {right}".rstrip() for left, right in rows)


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Let Ctrl-C stop an answer, and not the program."""
    import signal

    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def typed_lines(prompt: str = "> ") -> Iterator[str]:
    """Yield what a person types, with the terminal's own editing and history of lines; the end of input ends it."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() uses it once it is there
    while True:
        try:
            yield input(prompt)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /quit to leave)")
