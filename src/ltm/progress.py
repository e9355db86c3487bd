"""Messages and progress for people, on stderr; a bar only on a terminal, plain lines elsewhere.

Stages report through this one object, so that `--quiet`, `--json` and pipes behave the same everywhere.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

from ltm.units import format_seconds

_LINE_EVERY_SECONDS = 15.0  # between two plain lines of one task when stderr is not a terminal
_BAR_EVERY_SECONDS = 0.2


class Progress:
    """Print what happens; `quiet` prints nothing."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.seconds_ahead = 0.0  # forecast of the stages after this one, so that people see when all is done
        self._drawn_at = 0.0
        self._bar_width = 0

    def say(self, text: str) -> None:
        """Print one line."""
        if self.quiet:
            return
        try:
            self._clear_bar()
            print(text, file=self.stream, flush=True)
        except BrokenPipeError:  # whoever read the messages went away; the study goes on
            self.quiet = True

    def task(self, stage: str, total: int, unit: str) -> Task:
        """Start counting `total` units of work of a stage."""
        return Task(self, stage, total, unit)

    def draw(self, text: str, finished: bool) -> None:
        """Show the state of a task: in place on a terminal, as a line now and then elsewhere."""
        now = time.monotonic()
        wait = _BAR_EVERY_SECONDS if self.terminal else _LINE_EVERY_SECONDS
        if self.quiet or (now - self._drawn_at < wait and not finished):
            return
        self._drawn_at = now
        if not self.terminal or finished:
            self.say(text)
            return
        try:
            self._draw_bar(text)
        except BrokenPipeError:
            self.quiet = True

    def _draw_bar(self, text: str) -> None:
        self._clear_bar()
        width = os.get_terminal_size(self.stream.fileno()).columns if self.terminal else 80
        self.stream.write(text[: width - 1])
        self.stream.flush()
        self._bar_width = min(len(text), width - 1)

    def _clear_bar(self) -> None:
        if self._bar_width:
            self.stream.write("\r" + " " * self._bar_width + "\r")
            self._bar_width = 0


class Task:
    """Progress of one stage; the time left is judged from the units done so far."""

    def __init__(self, progress: Progress, stage: str, total: int, unit: str) -> None:
        self.progress = progress
        self.stage, self.total, self.unit = stage, total, unit
        self.done = 0
        self.skipped = 0  # of `done`: finished before this start, so no measure of speed
        self.started = time.monotonic()

    def advance(self, count: int = 1, note: str = "", seconds_left: float | None = None) -> None:
        """Count finished units; `seconds_left` overrides the plain estimate."""
        self.done += count
        elapsed = time.monotonic() - self.started
        if seconds_left is None:
            here = self.done - self.skipped
            seconds_left = elapsed / here * (self.total - self.done) if here else float("nan")
        left = f", about {format_seconds(seconds_left)} left" if self.done < self.total else ""
        if left and self.progress.seconds_ahead:
            left += f" ({format_seconds(seconds_left + self.progress.seconds_ahead)} to the end of the study)"
        took = f" in {format_seconds(elapsed)}" if self.done >= self.total else ""
        text = f"{self.stage:<9} {self.done}/{self.total} {self.unit}{left}{took}"
        self.progress.draw(f"{text} · {note}" if note else text, self.done >= self.total)
