"""Take the pictures of README: `python bench/screenshot.py PAGE.html docs/img` (needs Debian's chromium)."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
LANGUAGES = ("en", "ru")


def main(page: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for language in LANGUAGES:
            tab = browser.new_page(viewport={"width": 1200, "height": 1000}, locale=language)
            tab.goto(page.resolve().as_uri())
            button = tab.locator(f'button[data-language="{language}"]')
            if button.is_visible():
                button.click()
            tab.wait_for_timeout(1500)
            tab.screenshot(path=str(folder / f"dashboard_{language}.png"))
            tab.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
