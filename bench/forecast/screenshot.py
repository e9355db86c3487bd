"""Take pictures of the forecaster's page: `python bench/forecast/screenshot.py FOLDER` (needs Debian's chromium).

One picture per language, theme and width, of the whole page; `--hash 'model=7b&n_devices=8'` asks another question.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from ltm.forecast.page import write_page

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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--hash", default="")
    options.add_argument("--widths", type=int, nargs="*", default=[1280, 390])
    options.add_argument("--themes", nargs="*", default=["light", "dark"])
    options.add_argument("--languages", nargs="*", default=["en", "ru"])
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page = write_page(Path(folder) / "forecast.html")
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for language in given.languages:
            for theme in given.themes:
                for width in given.widths:
                    tab = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=theme)
                    tab.goto(f"{page.as_uri()}#{given.hash}&lang={language}")
                    tab.wait_for_selector("#time:not(:empty)")  # a function would be stopped by the page's own policy
                    path = given.folder / f"forecast_{language}_{theme}_{width}.png"
                    tab.screenshot(path=str(path), full_page=True)
                    print(path, tab.evaluate("document.documentElement.dataset.milliseconds"), "ms to draw")
                    tab.close()
        browser.close()


if __name__ == "__main__":
    main()
