"""Stop a study when its budget is reached while it runs, with a checkpoint of every run under way.

A thread looks once a second and interrupts the main thread as Ctrl-C does, so that every stage ends in the way that is
known to lose nothing.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from ltm.errors import BudgetError
from ltm.forecast.section import BudgetSection
from ltm.study.budget import amount

_EVERY_SECONDS = 1.0
_DISK_EVERY_SECONDS = 20.0  # walking the folder of a large study takes a while


class Watch:
    """Interrupts the main thread when a limit is passed; tells afterwards which.

    Args:
        section: The limits.
        spent: Returns what is spent, by name of the limit; called with whether the disk is to be measured.
    """

    def __init__(self, section: BudgetSection, spent: Callable[[bool], dict[str, float]]) -> None:
        self.limits, self._spent = section.limits(), spent
        self.reached = ""
        self._over = threading.Event()

    def __enter__(self) -> Watch:
        if self.limits and threading.current_thread() is threading.main_thread():
            self._check(time.monotonic())
            if self.reached:
                raise self.error()
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._over.set()
        if self.reached and kind is not None and issubclass(kind, KeyboardInterrupt):
            raise self.error() from None

    def error(self) -> BudgetError:
        """Return what is to be said."""
        return BudgetError(
            f"the budget is reached: {self.reached}",
            "nothing is lost; raise the budget (or give --over-budget) and the same command goes on where it was",
        )

    def _look(self) -> None:
        measured = time.monotonic()
        main = threading.main_thread().ident or 0
        while not self._over.wait(_EVERY_SECONDS):
            measured = self._check(measured)
            if self.reached and not self._over.is_set():
                signal.pthread_kill(main, signal.SIGINT)  # wakes it from whatever it waits for
                return

    def _check(self, measured: float) -> float:
        now = time.monotonic()
        with_disk = "disk" in self.limits and (now - measured >= _DISK_EVERY_SECONDS or not hasattr(self, "_thread"))
        gone = self._spent(with_disk)
        for name, limit in self.limits.items():
            if name in gone and gone[name] >= limit:
                self.reached = f"{amount(name, gone[name])} spent of {amount(name, limit)} ({name})"
        return now if with_disk else measured
