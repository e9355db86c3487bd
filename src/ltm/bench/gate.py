"""Between a contender's steps: warm it up, let it run when it is its turn, count what it did.

A contender calls `gate.passed()` after every step, wherever its loop lives - a plain loop, or a callback of somebody
else's trainer. The gate keeps it waiting between its turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

_UNSETTLED_STEPS = 2  # the first compiles, the second may compile again
_FEWEST_WARM_STEPS, _MOST_WARM_STEPS = 5, 20
_FEWEST_STEPS = 2  # of a turn
_WARM_SECONDS = 2.0  # until the heap has its size and the caches are filled


@dataclass(frozen=True)
class Ready:
    """A process is warm."""

    first_step_seconds: float  # compiling, loading kernels
    step_seconds: float  # of a step, once warm
    about: dict[str, Any] = field(default_factory=dict)  # what the contender says of itself


@dataclass(frozen=True)
class Turn:
    """What one process did in one turn."""

    amount: float  # tokens trained, or FLOPs multiplied
    seconds: float
    processor_seconds: float  # of all its threads
    peak_bytes: float  # of its memory, since it started


@dataclass(frozen=True)
class Broken:
    """A contender could not go on."""

    message: str
    trace: str


class Gate:
    """Lets a contender pass when it is its turn.

    Args:
        pipe: Commands come in as seconds of a turn, None ends; `Ready` and `Turn` go out.
        amount: What one step achieves: its tokens (or FLOPs).
        wait_for_device: Returns when everything that was started is done.
        peak_bytes: Returns the peak memory of this process.
    """

    def __init__(
        self, pipe: Connection, amount: float, wait_for_device: Callable[[], None], peak_bytes: Callable[[], float]
    ) -> None:
        self.amount = amount
        self._pipe, self._wait_for_device, self._peak_bytes = pipe, wait_for_device, peak_bytes
        self._about: dict[str, Any] = {}
        self._warm = False
        self._began = self._until = 0.0
        self._processor = 0.0
        self._warm_steps: list[float] = []  # seconds
        self._n_steps = 0

    def begin(self, **about: Any) -> None:
        """Say that the first step comes next, and what there is to know of the contender."""
        self._about = about
        self._began = time.perf_counter()

    def passed(self) -> bool:
        """Count a step; wait here if the turn is over. Returns whether to go on."""
        self._n_steps += 1
        if not self._warm:
            return self._warming()
        if time.perf_counter() < self._until or self._n_steps < _FEWEST_STEPS:
            return True
        self._wait_for_device()
        seconds = time.perf_counter() - self._began
        used = time.process_time() - self._processor
        self._pipe.send(Turn(self._n_steps * self.amount, seconds, used, self._peak_bytes()))
        return self._next_turn()

    def _warming(self) -> bool:
        self._wait_for_device()
        self._warm_steps.append(time.perf_counter() - self._began - sum(self._warm_steps))
        settled = self._warm_steps[_UNSETTLED_STEPS:]
        if self._n_steps < _FEWEST_WARM_STEPS or (sum(settled) < _WARM_SECONDS and len(settled) < _MOST_WARM_STEPS):
            return True
        self._warm = True
        self._pipe.send(Ready(self._warm_steps[0], statistics.median(settled), self._about))
        return self._next_turn()

    def _next_turn(self) -> bool:
        seconds = self._pipe.recv()
        if seconds is None:
            return False
        self._n_steps = 0
        self._processor = time.process_time()
        self._began = time.perf_counter()
        self._until = self._began + float(seconds)
        return True
