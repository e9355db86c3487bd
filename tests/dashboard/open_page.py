"""A result page in a real browser, with everything that it says or asks for; and axe-core, where it is installed."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

_AXE = "node_modules/axe-core/axe.min.js"
AXE = [
    Path(os.environ.get("LTM_AXE", "axe.min.js")),
    Path(__file__).parents[2] / _AXE,
    Path(tempfile.gettempdir()) / "axe" / _AXE,
]
DRAWN = """(() => { const holder = document.querySelector(NAME);
  return ['.plot:not([hidden]) svg', '.plot:not([hidden]) .note', '.table:not([hidden]) table'].some(
    (part) => holder.querySelector(part) !== null); })()"""


def until(page: Any, expression: str, seconds: float = 20.0) -> Any:
    """Wait for a condition; the page's policy forbids the browser's own way, which evaluates text in the page."""
    deadline = time.monotonic() + seconds
    while not (value := page.evaluate(expression)):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)
    return value


class Opened:
    """A page in the browser and everything it said or asked for."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.said, self.asked, self.address = page, [], [], address
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)
        self.asked = [url for url in self.asked if url != address]

    def _hear(self, message: Any) -> None:
        if message.type != "verbose":  # the browser's own hints, when a test asks for the layout of hidden chapters
            self.said.append(f"{message.type}: {message.text}")

    def names(self) -> list[str]:
        """Return every figure of the chapters."""
        return self.page.evaluate(
            "[...document.querySelectorAll('#chapters [data-figure]')].map(h => h.dataset.figure)"
        )

    def bring(self, name: str) -> Any:
        """Scroll to a figure, wait until it is drawn and return its locator."""
        holder = self.page.locator(f"#figure-{name}")
        holder.evaluate("node => node.scrollIntoView({block: 'center', behavior: 'instant'})")
        until(self.page, DRAWN.replace("NAME", json.dumps(f"#figure-{name}")))
        return holder

    def draw_all(self) -> None:
        """Scroll through the page until every figure is drawn."""
        for name in self.names():
            self.bring(name)

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def axe_script() -> str | None:
    """Return axe-core, from $LTM_AXE, the project's node_modules or the folder of temporary files; None = not there."""
    found = next((path for path in AXE if path.is_file()), None)
    return found.read_text(encoding="utf-8") if found else None


def violations(page: Any) -> list[str]:
    """Return what axe-core finds wrong with a page that it was added to."""
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
    return [f"{rule['id']}: {[node['html'][:160] for node in rule['nodes'][:3]]}" for rule in found]
