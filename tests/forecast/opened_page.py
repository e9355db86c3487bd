"""A page of the forecaster in a real browser without a network, for the tests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

HOSTILE = {"name": "<img src=x onerror=alert(1)>", "memory_gib": 24.0, "bandwidth_gbps": 1000.0, "bf16_tflops": 100.0}


def same(a: float, b: float, tolerance: float = 1e-9) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or abs(a - b) <= tolerance * max(abs(a), abs(b))


class Opened:
    """A page in the browser and everything it said or asked for."""

    def __init__(self, page: Any, path: Path, fragment: str = "") -> None:
        self.page, self.said, self.asked = page, [], []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri() + fragment)
        self.settle()
        self.asked = [url for url in self.asked if not url.startswith(path.as_uri())]

    def settle(self) -> None:
        """Wait for two frames: one draws the answer to the last change."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def ask(self, change: dict[str, Any]) -> None:
        self.page.evaluate("change => ltm.ask(change)", change)
        self.settle()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text().replace("\u00a0", " ")

    def overflow(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
