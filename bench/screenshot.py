"""Take the pictures of README: `python bench/screenshot.py PAGE.html docs/img` (needs Debian's chromium).

Six pictures: the first screen in both languages, light, and in English dark; the chapter of books in Russian; the page
of the best run; a comparison of two runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from chromium import ARGUMENTS, CHROMIUM

WIDTH, HEIGHT = 1200, 1000


def main(page: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        for name, language, scheme, place in (
            ("dashboard_en", "en", "light", ""),
            ("dashboard_ru", "ru", "light", ""),
            ("dashboard_dark", "en", "dark", "#sets"),
            ("dashboard_books_ru", "ru", "light", "#books"),
            ("dashboard_run", "en", "light", "run"),
            ("dashboard_compare", "en", "light", "compare"),
        ):
            tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, locale=language, color_scheme=scheme)
            tab.goto(page.resolve().as_uri())
            tab.click(f'.top [data-language="{language}"]')
            until(tab, "!!document.querySelector('#figure-board a[data-run]')")
            if place in ("run", "compare"):
                runs = tab.evaluate(
                    "[...document.querySelectorAll('#figure-board a[data-run]')].map(a => a.dataset.run)"
                )
                place = f"#run={runs[0]}" if place == "run" else f"#compare={runs[0]},{runs[-1]}"
            if place:
                tab.evaluate("place => { location.hash = place; }", place)
            tab.wait_for_timeout(2500)
            tab.screenshot(path=str(folder / f"{name}.png"))
            tab.close()
        browser.close()


def until(tab: Any, expression: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not tab.evaluate(expression):
        if time.monotonic() > deadline:
            raise TimeoutError(expression)
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
