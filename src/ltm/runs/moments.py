"""Moments of a run at which something looks at it, without touching it.

Reads: `runs/moments.json`: after how many tokens, and the function to call. A later stage writes it; training knows its
name and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ltm.store import WorkFolder, read_json

if TYPE_CHECKING:
    from ltm.runs.train import Trainer

FILE = "moments.json"
FOLDER = "moments"  # of a run
_OWN = "ltm."  # a work folder from elsewhere must not name any function it likes


class Moments:
    """The moments of one run."""

    def __init__(self, work: WorkFolder, run_id: str) -> None:
        path = work.path("runs", FILE)
        value: dict[str, Any] = read_json(path) if path.exists() else {}
        self.tokens = frozenset(value.get("tokens", ()))
        self.work, self.run_id, self.bank = work, run_id, str(value.get("bank", "a"))
        self._name = str(value.get("call", ""))
        self._call: Callable[..., None] | None = None

    def look(self, trainer: Trainer) -> None:
        """Call the function where this is one of the moments."""
        if trainer.state.step * trainer.section.batch_tokens not in self.tokens:
            return
        if self._call is None:
            module, _, function = self._name.partition(":")
            if not module.startswith(_OWN):
                return
            self._call = getattr(import_module(module), function)
        self._call(self.work, self.run_id, trainer, self.bank)
