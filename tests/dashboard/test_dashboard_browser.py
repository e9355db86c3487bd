"""The page in a real browser without a network: it draws, switches language, sorts, searches and asks for nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_study import HOSTILE, write_study

from chromium import CHROMIUM
from ltm.dashboard.section import DashboardSection
from ltm.dashboard.stage import build
from ltm.progress import Progress

CHARTS = ("ranks", "book", "feature", "order", "dose", "gap", "reliability", "curves", "time", "genres")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium"),
]


class Opened:
    """A page in the browser and everything it said or asked for."""

    def __init__(self, page: object, path: Path) -> None:
        self.page, self.said, self.asked = page, [], []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())
        self.asked = [url for url in self.asked if url != path.as_uri()]

    def draw_all(self) -> None:
        for name in CHARTS:
            self.page.locator(f"#figure-{name}").scroll_into_view_if_needed()
            self.page.wait_for_selector(f"#figure-{name} .plot svg", timeout=20_000)

    def overflow(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = write_study(tmp_path_factory.mktemp("browser"), titles=HOSTILE)
    return build(DashboardSection(), work, Progress(quiet=True))


@pytest.fixture
def opened(browser: object, page_path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    width = getattr(request, "param", 1440)
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, accept_downloads=True)
    context.set_default_timeout(20_000)
    yield Opened(context.new_page(), page_path)
    context.close()


@pytest.mark.parametrize("opened", [360, 1440], indirect=True)
def test_page_draws_every_chart_and_asks_for_nothing(opened: Opened) -> None:
    first = opened.page.locator(".finding-item").first
    assert first.is_visible()
    assert first.bounding_box()["y"] < 900  # on the first screen
    opened.draw_all()
    assert opened.page.locator("#figure-book .plot svg path").count() > 20
    assert opened.overflow() <= 0
    assert opened.said == []
    assert opened.asked == []


def test_language_switches_without_loading(opened: Opened) -> None:
    page = opened.page
    opened.draw_all()
    assert page.get_by_text("Which").count()
    assert page.locator("h2#heading-answer span[lang=en]").is_visible()
    page.click(".top [data-language=ru]")
    page.wait_for_function("document.querySelector('#figure-book .plot').dataset.drawn === 'ru'")
    assert page.locator("h2#heading-answer span[lang=ru]").is_visible()
    assert not page.locator("h2#heading-answer span[lang=en]").is_visible()
    assert page.evaluate("document.documentElement.lang") == "ru"
    assert "повышает способность" in page.locator("#figure-book .plot svg").text_content()
    assert "Место" in page.locator("#figure-board thead").text_content()
    assert "+1,92" in page.locator("#figure-board tbody").text_content()
    assert opened.said == opened.asked == []


def test_leaderboard_sorts_searches_and_opens_its_books(opened: Opened) -> None:
    page = opened.page
    board = page.locator("#figure-board")
    board.get_by_role("button", name="Raw score").click()
    assert board.locator("th[data-key=raw]").get_attribute("aria-sort") == "ascending"
    lowest = board.locator("tbody tr").first.text_content()
    board.get_by_role("button", name="Raw score").click()
    assert board.locator("th[data-key=raw]").get_attribute("aria-sort") == "descending"
    assert board.locator("tbody tr").first.text_content() != lowest
    opener = board.locator("button.open").first
    opener.focus()
    page.keyboard.press("Enter")
    assert board.locator(".detail-row li").count() == 25
    assert board.locator("button.open").first.get_attribute("aria-expanded") == "true"
    board.locator("input[type=search]").fill("no such book at all")
    assert board.locator("tbody tr").count() == 0
    board.locator("input[type=search]").fill("reversed emoji")
    assert 0 < board.locator("tbody tr").count() <= 25
    assert opened.said == []


def test_chart_has_a_table_and_a_csv_of_the_same_rows(opened: Opened) -> None:
    page = opened.page
    figure = page.locator("#figure-book")
    figure.scroll_into_view_if_needed()
    figure.get_by_role("button", name="Table").click()
    assert figure.locator("tbody tr").count() == 25
    assert figure.locator("thead th[scope=col]").count() == 10
    assert figure.locator("caption").text_content().startswith("Effect of having a book")
    figure.get_by_role("button", name="transfer").click()
    assert "transfer" in figure.locator("tbody tr").first.text_content()
    with page.expect_download() as waiting:
        figure.get_by_role("button", name="Download CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8-sig"))))
    assert len(rows) == 50 * 4
    assert {row["ability"] for row in rows} == {"linking", "transfer", "synthesis", "fluency"}
    assert any(row["label"] == HOSTILE[0] for row in rows)
    assert any(row["label"].startswith("'=HYPERLINK") for row in rows)  # no formula for a spreadsheet to run
    assert opened.said == []


def test_theme_switch_redraws_in_other_colours(opened: Opened) -> None:
    page = opened.page
    opened.draw_all()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    drawn = page.locator("#figure-book .plot svg").inner_html()
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.wait_for_function(
        "old => { const s = document.querySelector('#figure-book .plot svg'); return s && s.innerHTML !== old; }",
        arg=drawn,
    )
    assert opened.said == []
