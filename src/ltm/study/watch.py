"""Stop a study when its budget is reached while it runs, with a checkpoint of every run under way.

A thread looks once a second and interrupts the main thread as Ctrl-C does, so that every stage ends in the way that is
known to lose nothing. That holds for a study in the background too, whose shell told it to ignore Ctrl-C.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from ltm.errors import BudgetError
from ltm.study.budget import amount

OF_THIS_START = " of this start"
_EVERY_SECONDS = 1.0
_DISK_EVERY_SECONDS = 20.0  # walking the folder of a large study takes a while
_AGAIN_SECONDS = 30.0  # an interrupt may be swallowed; sooner it would cut the workers' last checkpoints short
_JOIN_SECONDS = 2.0  # the thread may be walking a large folder; it can no longer do anything then


class Watch:
    """Interrupts the main thread when a limit is passed; tells afterwards which.

    Args:
        limits: The limits by name; `hours of this start` and so on are those of one command.
        spent: Returns what is spent, by name of the limit; called with whether the disk is to be measured.
    """

    def __init__(self, limits: Mapping[str, float], spent: Callable[[bool], dict[str, float]]) -> None:
        self.limits, self._spent = dict(limits), spent
        self.reached = ""
        self._over = threading.Event()
        self._lock = threading.Lock()  # held to send the interrupt, and to end the watch
        self._sent = False
        self._thread: threading.Thread | None = None
        self._before: Any = None

    def __enter__(self) -> Watch:
        if self.limits and threading.current_thread() is threading.main_thread():
            self._check(True)
            if self.reached:
                raise self.error()
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is not None:  # else it is none of Python's, and could not be put back
                signal.signal(signal.SIGINT, self._on_interrupt)
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        with self._lock:
            self._over.set()
        if self._thread is not None:
            if self._before is not None:
                signal.signal(signal.SIGINT, self._before)  # an interrupt that still waits is dealt with before
            self._thread.join(_JOIN_SECONDS)
        if self.reached and kind is not None and issubclass(kind, KeyboardInterrupt):
            raise self.error() from None

    def error(self) -> BudgetError:
        """Return what is to be said."""
        if OF_THIS_START in self.reached:
            return BudgetError(
                f"stopped as asked: {self.reached}", "nothing is lost; the same command goes on from here"
            )
        return BudgetError(
            f"the budget is reached: {self.reached}",
            "nothing is lost; raise the budget (or give --over-budget) and the same command goes on where it was",
        )

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise for a limit that is reached; else do what was done before. What comes too late does nothing."""
        ending = self._over.is_set() or (frame is not None and frame.f_code is Watch.__exit__.__code__)
        if self._sent:
            if not ending:
                raise KeyboardInterrupt
        elif callable(self._before):
            self._before(number, frame)
        elif self._before != signal.SIG_IGN:
            raise KeyboardInterrupt

    def _look(self) -> None:
        """Look until the watch ends; what cannot be measured now (a file vanished) is looked at again."""
        main = threading.main_thread().ident or 0
        measured, interrupted = time.monotonic(), float("-inf")
        while not self._over.wait(_EVERY_SECONDS):
            now = time.monotonic()
            with_disk = now - measured >= _DISK_EVERY_SECONDS
            if not self.reached:
                try:
                    self._check(with_disk)
                except Exception:
                    continue
                measured = now if with_disk else measured
            if self.reached and now - interrupted >= _AGAIN_SECONDS:
                interrupted = now
                self._interrupt(main)

    def _interrupt(self, thread: int) -> None:
        with self._lock:
            if not self._over.is_set():
                self._sent = True
                signal.pthread_kill(thread, signal.SIGINT)  # wakes it from whatever it waits for

    def _check(self, with_disk: bool) -> None:
        gone = self._spent(with_disk and "disk" in self.limits)
        for name, limit in self.limits.items():
            if name in gone and gone[name] >= limit:
                self.reached = f"{amount(name, gone[name])} spent of {amount(name, limit)} ({name})"
