"""Measure the result page on large studies: bytes, build seconds, opening, and how long each click takes.

`python bench/dashboard_scale.py [--runs 10000 --books 2000 --set 100] [--rounds 6] [--demo WORK] [--json FILE]` (needs
Debian's chromium). A synthetic study is written to a temporary folder, its page is built in a process of its own, and
the page is driven in a real browser without a network. An interaction is timed in the page from the event to the end of
the next frame that was painted; the median of the rounds is shown, with the longest.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "dashboard"), str(ROOT / "src")]
LIMITS = {"demo": 2.0, 1_000: 6.0, 10_000: 15.0}  # MB
BUILD = """
import resource, sys, time
sys.path.insert(0, {src!r})
from pathlib import Path
from ltm.dashboard.section import DashboardSection
from ltm.dashboard.stage import build
from ltm.progress import Progress
from ltm.store import WorkFolder
began = time.perf_counter()
build(DashboardSection(path={page!r}), WorkFolder(Path({work!r})), Progress(quiet=True))
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
"""
TIMED = """async ([name, argument]) => {
  const acts = {
    search: (text) => { const field = document.querySelector('#figure-board input[type=search]'); field.value = text;
      field.dispatchEvent(new Event('input', {bubbles: true})); },
    sort: (key) => document.querySelector(`#figure-board th[data-key="${key}"] button`).click(),
    filter: ([key, value]) => { const list = document.querySelector(`#figure-board select[data-key="${key}"]`);
      list.value = value; list.dispatchEvent(new Event('change', {bubbles: true})); },
    language: (code) => document.querySelector(`.top [data-language=${code}]`).click(),
    theme: () => document.getElementById('theme').click(),
    more: () => document.querySelector('#figure-board .foot button').click(),
    hash: (text) => { location.hash = text; },
    choice: (k) => document.querySelectorAll('#figure-book .switch button')[k].click(),
  };
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => {
    const after = new MessageChannel(); // its message is the first task after the paint
    after.port1.onmessage = resolve;
    after.port2.postMessage(0);
  }));
  await frame();
  const began = performance.now();
  acts[name](argument);
  if (name === 'hash') await new Promise((resolve) => setTimeout(resolve)); // hashchange comes as a task of its own
  await frame();
  return performance.now() - began;
}"""


def write_study(work: Path, n_runs: int, n_books: int, set_size: int) -> None:
    import synthetic_study
    from whole_study import write_whole_study

    from ltm.store import write_json

    def quickly(path: Path, value: Any) -> None:
        write_json(path, value, durable=False)  # ten thousand runs need not outlive a power cut

    synthetic_study.write_json = quickly
    write_whole_study(work, n_runs, n_books, set_size)


def build_page(work: Path, page: Path) -> dict[str, float]:
    text = BUILD.format(src=str(ROOT / "src"), page=str(page), work=str(work))
    wall, cpu, peak = subprocess.run(
        [sys.executable, "-c", text], check=True, capture_output=True, text=True
    ).stdout.split()
    return {
        "MB": page.stat().st_size / 1e6,
        "build_seconds": float(wall),
        "build_cpu_seconds": float(cpu),
        "peak_MB": float(peak) / 1e6,
    }


class Browser:
    """The page in Chromium, offline, with what it says and asks for."""

    def __init__(self, play: Any, page: Path) -> None:
        from chromium import ARGUMENTS, CHROMIUM

        self.browser = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        self.address, self.said, self.asked = page.as_uri(), [], []

    def _hear(self, message: Any) -> None:
        if message.type != "verbose":  # hints about layout, which no reader sees
            self.said.append(message.text)

    def open(self) -> Any:
        context = self.browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
        tab = context.new_page()
        tab.set_default_timeout(120_000)
        tab.on("console", self._hear)
        tab.on("pageerror", lambda error: self.said.append(str(error)))
        tab.on("request", lambda request: self.asked.append(request.url))
        return tab


FIRST = """(() => { const look = () => { const found = document.querySelector('.finding-item, #answer .lead');
  const seen = () => { window.firstSeen ??= performance.now(); };
  if (found && found.getBoundingClientRect().height) requestAnimationFrame(seen);
  else requestAnimationFrame(look); }; requestAnimationFrame(look); })();"""


def opening(browser: Browser, rounds: int) -> dict[str, float]:
    """Return milliseconds until the first finding is painted, and until the script is done."""
    seen, ready = [], []
    for _ in range(rounds):
        tab = browser.open()
        tab.add_init_script(FIRST)
        tab.goto(browser.address)
        wait_for(tab, "window.firstSeen > 0")
        seen.append(tab.evaluate("window.firstSeen"))
        ready.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        tab.context.close()
    return {
        "first_finding_ms": statistics.median(seen),
        "first_finding_worst_ms": max(seen),
        "loaded_ms": statistics.median(ready),
    }


def wait_for(tab: Any, expression: str) -> None:
    deadline = time.monotonic() + 120
    while not tab.evaluate(expression):
        if time.monotonic() > deadline:
            raise TimeoutError(expression)
        time.sleep(0.05)


def interactions(browser: Browser, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of every interaction, a value a round."""
    tab = browser.open()
    tab.goto(browser.address)
    tab.evaluate("document.getElementById('figure-board').scrollIntoView({behavior: 'instant'})")
    wait_for(tab, "document.querySelector('#figure-board tbody') !== null")
    runs = tab.evaluate(
        "[...document.querySelectorAll('#figure-board a[data-run]')].slice(0, 25).map(a => a.dataset.run)"
    )
    found: dict[str, list[float]] = {}

    def act(label: str, name: str, argument: Any = None) -> None:
        tab.wait_for_timeout(400)  # a person does not click faster; charts that were asked for are drawn
        found.setdefault(label, []).append(tab.evaluate(TIMED, [name, argument]))

    sortable = tab.evaluate("[...document.querySelectorAll('#figure-board th[data-key]')].map(th => th.dataset.key)")
    for k in range(rounds):
        for text in ("q", "qu", "quiet", "quiet river", ""):
            act("search", "search", text)
        for key in sortable:
            act("sort", "sort", key)
        act("filter", "filter", ["order", "reverse"])
        act("filter", "filter", ["order", ""])
        act("more rows", "more")
        act("language", "language", "ru" if k % 2 == 0 else "en")
        act("theme", "theme")
        act("open a run", "hash", f"run={runs[k]}")
        act("another run", "hash", f"run={runs[k + 1]}")
        act("compare", "hash", f"compare={runs[k]},{runs[k + 2]}")
        act("language on a comparison", "language", "en" if k % 2 == 0 else "ru")
        act("back to the sets", "hash", "sets")
        tab.evaluate("document.getElementById('figure-book').scrollIntoView({behavior: 'instant', block: 'center'})")
        wait_for(tab, "document.querySelector('#figure-book .plot svg') !== null")
        act("theme over charts", "theme")
        act("language over charts", "language", "ru" if k % 2 else "en")
        act("choose an ability", "choice", 1 + k % 2)
        tab.evaluate("document.getElementById('figure-board').scrollIntoView({behavior: 'instant'})")
    tab.context.close()
    return found


def measure(work: Path, rounds: int, folder: Path) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    page = folder / "page.html"
    found: dict[str, Any] = build_page(work, page)
    with sync_playwright() as play:
        browser = Browser(play, page)
        found |= opening(browser, max(3, rounds // 2))
        found["interactions"] = interactions(browser, rounds)
        found["requests"] = len({url for url in browser.asked if url.split("#")[0] != browser.address})
        found["console"] = sorted(set(browser.said))
        browser.browser.close()
    return found


def print_table(label: str, limit: float, build_limit: float, found: dict[str, Any]) -> bool:
    lines = [
        ("page, MB", found["MB"], limit),
        ("build, CPU s (10 s are asked for up to 1,000 runs)", found["build_cpu_seconds"], build_limit),
        ("first finding painted, ms", found["first_finding_ms"], 1500.0),
        ("network requests", found["requests"], 0),
        ("console messages", len(found["console"]), 0),
    ]
    for name, values in found["interactions"].items():
        lines.append((f"{name}, ms: median of {len(values)}", statistics.median(values), 100.0))
        lines.append((f"{name}, ms: longest", max(values), 100.0))
    memory = f"build {found['build_seconds']:.1f} s, at most {found['peak_MB']:.0f} MB of memory"
    print(f"\n{label} ({memory}; loaded after {found['loaded_ms']:.0f} ms)")
    for name, value, most in lines:
        print(f"  {name:<46} {value:>9.2f}   at most {most:g}   {'yes' if value <= most else 'NO'}")
    for text in found["console"]:
        print(f"  said: {text[:200]}")
    return all(value <= most for _, value, most in lines)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, nargs="+", default=[1_000, 10_000])
    options.add_argument("--books", type=int, nargs="+", default=[200, 2_000])
    options.add_argument("--set", type=int, default=100, dest="set_size", help="books of a set")
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--demo", type=Path, help="work folder of a finished demo, to be measured too")
    options.add_argument("--keep", type=Path, help="where studies and pages are kept")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if chosen.demo:
            results["demo"] = measure(chosen.demo, chosen.rounds, folder)
            print_table("demo", LIMITS["demo"], 10.0, results["demo"])
        for n_runs, n_books in zip(chosen.runs, chosen.books, strict=True):
            work = folder / f"study_{n_runs}"
            if not work.exists():
                write_study(work, n_runs, n_books, chosen.set_size)
            label = f"{n_runs} runs x {n_books} books, sets of {chosen.set_size}"
            results[label] = measure(work, chosen.rounds, folder)
            print_table(label, LIMITS.get(n_runs, 15.0), 10.0 * max(1.0, n_runs / 1_000), results[label])
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(f"\nCPU of this script: {sum(resource.getrusage(resource.RUSAGE_SELF)[:2]):.0f} s")


if __name__ == "__main__":
    main()
