"""All processes of one contender: started once, warmed up, told when it is their turn, all at the same time."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ltm.bench.gate import Broken, Ready, Turn
from ltm.bench.seat import Seat
from ltm.bench.worker import serve
from ltm.errors import TrainError

_CONTEXT = multiprocessing.get_context("spawn")  # fork after torch has started threads can hang
_CLOSE_SECONDS = 5.0
_LOG_CHARACTERS = 300


class Crew:
    """The processes of one contender.

    Args:
        name: Who they are, for messages.
        seats: One for each process.
        folder: For logs.
    """

    def __init__(self, name: str, seats: Sequence[Seat], folder: Path) -> None:
        self.name = name
        self.ready: list[Ready] = []
        self._members: list[tuple[Any, Connection, Path]] = []
        for index, seat in enumerate(seats):
            ours, theirs = _CONTEXT.Pipe()
            log = folder / f"{name}-{index}.log".replace(" ", "-")
            process = _CONTEXT.Process(target=serve, args=(theirs, seat, str(log)), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours, log))

    def warm(self) -> None:
        """Wait until every process has taken its first steps.

        Raises:
            TrainError: one of them could not.
        """
        self.ready = self._answers(Ready)

    def turn(self, seconds: float) -> list[Turn]:
        """Let all processes run at once for so long; return what each did.

        Raises:
            TrainError: one of them could not.
        """
        for _, pipe, _ in self._members:
            with contextlib.suppress(BrokenPipeError):  # its end is noticed when it is asked for its answer
                pipe.send(seconds)
        return self._answers(Turn)

    def close(self) -> None:
        """End the processes."""
        for _, pipe, _ in self._members:
            with contextlib.suppress(BrokenPipeError, OSError):
                pipe.send(None)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for process, pipe, _ in self._members:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
        self._members.clear()

    def _answers(self, kind: type[Any]) -> list[Any]:
        answers: dict[int, Any] = {}
        waiting = {pipe: index for index, (_, pipe, _) in enumerate(self._members)}
        while waiting:
            for pipe in wait(list(waiting)):
                assert isinstance(pipe, Connection)
                index = waiting.pop(pipe)
                answers[index] = self._answer(index, kind)
        return [answers[index] for index in range(len(self._members))]

    def _answer(self, index: int, kind: type[Any]) -> Any:
        process, pipe, log = self._members[index]
        try:
            answer = pipe.recv()
        except (EOFError, OSError):
            process.join(1.0)
            raise TrainError(
                f"{self.name}: its process ended (exit code {process.exitcode}); last words: {_last_words(log)}",
                "if it was killed, memory may have run out: try smaller --sizes or --batch-tokens",
            ) from None
        if isinstance(answer, Broken):
            raise TrainError(f"{self.name}: {answer.message}") from RuntimeError(answer.trace)  # --debug shows where
        assert isinstance(answer, kind)
        return answer


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return " | ".join(line.strip() for line in lines if line.strip())[-_LOG_CHARACTERS:] or "none"
