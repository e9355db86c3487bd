"""The page in a real browser without a network: it draws, switches language, sorts, searches and asks for nothing."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from open_page import Opened, axe_script, until, violations
from synthetic_study import HOSTILE, write_study

from chromium import CHROMIUM
from ltm.dashboard.section import DashboardSection
from ltm.dashboard.stage import build
from ltm.progress import Progress

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium"),
]
OVERLAP = """() => {
  const page = document.documentElement.clientWidth;
  return [...document.querySelectorAll('main *')].filter((node) => !node.closest('.scroll, svg, .summary, pre') &&
    node.getBoundingClientRect().right > page + 1).map((node) => node.outerHTML.slice(0, 90));
}"""


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = write_study(tmp_path_factory.mktemp("browser"), titles=HOSTILE)
    return build(DashboardSection(), work, Progress(quiet=True))


@pytest.fixture
def opened(browser: object, page_path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    width = getattr(request, "param", 1440)
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, accept_downloads=True)
    context.set_default_timeout(20_000)
    yield Opened(context.new_page(), page_path.as_uri())
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


@pytest.mark.parametrize("opened", [360, 768, 2560], indirect=True)
def test_nothing_is_wider_than_the_window(opened: Opened) -> None:
    opened.draw_all()
    run = opened.page.locator("#figure-board a[data-run]").first.get_attribute("data-run")
    other = opened.page.locator("#figure-board a[data-run]").nth(4).get_attribute("data-run")
    for hash_ in ("", f"#run={run}", f"#compare={run},{other}"):
        opened.page.goto(opened.address + hash_)
        assert opened.overflow() <= 0, hash_
        assert opened.page.evaluate(OVERLAP) == [], hash_


def test_language_switches_without_loading(opened: Opened) -> None:
    page = opened.page
    opened.draw_all()
    opened.bring("book")
    assert page.locator("h2#heading-answer span[lang=en]").is_visible()
    page.click(".top [data-language=ru]")
    until(page, "document.querySelector('#figure-book .plot').dataset.drawn === 'ru'")
    assert page.locator("h2#heading-answer span[lang=ru]").is_visible()
    assert not page.locator("h2#heading-answer span[lang=en]").is_visible()
    assert page.evaluate("document.documentElement.lang") == "ru"
    assert "повышает способность" in page.locator("#figure-book .plot svg").text_content()
    opened.bring("board")
    until(page, "document.querySelector('#figure-board thead').textContent.includes('Место')")  # drawn when it is seen
    assert "Место" in page.locator("#figure-board thead").text_content()
    assert "+1,92" in page.locator("#figure-board tbody").text_content()
    assert opened.said == opened.asked == []


def test_leaderboard_sorts_searches_and_narrows(opened: Opened) -> None:
    page, board = opened.page, opened.bring("board")
    board.get_by_role("button", name="Raw score").click()
    assert board.locator("th[data-key=raw]").get_attribute("aria-sort") == "ascending"
    lowest = board.locator("tbody tr").first.text_content()
    board.get_by_role("button", name="Raw score").click()
    assert board.locator("th[data-key=raw]").get_attribute("aria-sort") == "descending"
    assert board.locator("tbody tr").first.text_content() != lowest
    assert page.evaluate("document.activeElement.closest('th').dataset.key") == "raw"
    board.locator("input[type=search]").fill("no such book at all")
    assert board.locator("tbody tr").count() == 0
    board.locator("input[type=search]").fill("reversed emoji")
    assert 0 < board.locator("tbody tr").count() <= 25
    board.locator("input[type=search]").fill("")
    board.locator("select[data-key=order]").select_option("reverse")
    total = board.locator(".foot span").text_content()
    assert total.startswith("25 of 25") or "of" in total
    assert set(board.locator("tbody tr").evaluate_all("rows => rows.map(r => r.textContent.includes('reversed'))")) == {
        True
    }
    assert opened.said == []


def test_a_run_opens_and_the_back_button_returns(opened: Opened) -> None:
    page, board = opened.page, opened.bring("board")
    before = page.evaluate("scrollY")
    link = board.locator("a[data-run]").first
    run = link.get_attribute("data-run")
    link.focus()
    page.keyboard.press("Enter")
    view = page.locator("#view")
    assert view.locator("h2").text_content() == f"Run {run}"
    assert page.evaluate("document.activeElement.id") == "view-heading"
    assert not page.locator("#chapters").is_visible()
    assert view.locator("#figure-run_books tbody tr").count() == 25
    until(page, "document.querySelector('#figure-run_scores .plot svg') !== null")
    until(page, "(scrollTo(0, 9e9), document.querySelector('#figure-run_curve .plot svg') !== null)")
    assert "Place 1 of the ranking" in view.text_content()
    page.click(".top [data-language=ru]")
    assert view.locator("h2").text_content() == f"Запуск {run}"
    page.go_back()
    until(page, "document.getElementById('view').hidden")
    assert abs(page.evaluate("scrollY") - before) < 60
    assert page.evaluate("document.title").startswith("demo")
    assert opened.said == opened.asked == []


def test_two_runs_are_compared_book_by_book(opened: Opened) -> None:
    page, board = opened.page, opened.bring("board")
    boxes = board.locator("input.pick")
    for k in (0, 1, 3):  # the third takes the place of the first
        boxes.nth(k).check()
    assert [boxes.nth(k).is_checked() for k in (0, 1, 3)] == [False, True, True]
    runs = [board.locator("a[data-run]").nth(k).get_attribute("data-run") for k in (1, 3)]
    board.get_by_role("link", name="Compare the two").click()
    view = page.locator("#view")
    assert page.evaluate("location.hash") == f"#compare={runs[0]},{runs[1]}"
    until(page, "document.getElementById('view').textContent.includes('books are in both')")  # a step later
    told = re.search(r"(\d+) books are in both; (\d+) only in A, (\d+) only in B", view.text_content())
    shared, first, second = map(int, told.groups())
    assert shared + first == shared + second == 25
    assert view.locator("tr[data-differs=true]").count() >= 1
    until(page, "document.querySelector('#figure-compare_scores .plot svg') !== null")
    view.get_by_role("link", name="swap A and B").click()
    until(page, f"location.hash === '#compare={runs[1]},{runs[0]}'")
    page.keyboard.press("Escape")
    until(page, "document.getElementById('view').hidden")
    assert opened.said == []


@pytest.mark.parametrize(
    "hash_", ["#run=nosuch", "#run=", "#compare=a,b", "#compare=x", "#run=<img src=x onerror=alert(1)>"]
)
def test_an_unknown_run_is_said_so(opened: Opened, hash_: str) -> None:
    opened.page.goto(opened.address + hash_)
    opened.page.reload()
    assert "knows no finished run" in opened.page.locator("#view").text_content()
    assert opened.page.locator("#view img").count() == 0
    opened.page.get_by_role("link", name="All sets").click()
    until(opened.page, "!document.getElementById('chapters').inert")
    assert opened.said == []


KEEP = """() => { const make = URL.createObjectURL; window.kept = [];
  URL.createObjectURL = (blob) => { window.kept.push(blob); return make.call(URL, blob); };
  HTMLAnchorElement.prototype.click = () => {}; }"""  # the browser itself allows ten downloads at once
READ = """async () => { const bytes = new Uint8Array(await window.kept.pop().arrayBuffer());
  let text = ''; for (const byte of bytes) text += String.fromCharCode(byte); return btoa(text); }"""


def saved(opened: Opened, figure: Any, name: str) -> bytes:
    figure.get_by_role("button", name=f"Download {name}").click()
    until(opened.page, "window.kept.length > 0")
    return base64.b64decode(opened.page.evaluate(READ))


def parquet_of(opened: Opened, figure: Any) -> Any:
    return pyarrow.parquet.read_table(io.BytesIO(saved(opened, figure, "Parquet")))


def csv_of(opened: Opened, figure: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(saved(opened, figure, "CSV").decode("utf-8-sig"))))


def is_same(value: object, written: str) -> bool:
    if value is None or isinstance(value, str):
        return written.removeprefix("'") == (value or "")
    if isinstance(value, bool):
        return written == str(value).lower()
    return float(written) == value


def test_csv_and_parquet_hold_the_rows_that_are_drawn(opened: Opened) -> None:
    figure = opened.bring("book")
    figure.get_by_role("button", name="Table").click()
    assert figure.locator("tbody tr").count() == 25
    assert figure.locator("caption").text_content().startswith("Effect of having a book")
    figure.get_by_role("button", name="transfer").click()
    assert "transfer" in figure.locator("tbody tr").first.text_content()
    opened.page.evaluate(KEEP)
    rows = csv_of(opened, figure)
    assert len(rows) == 50 * 4
    assert {row["ability"] for row in rows} == {"linking", "transfer", "synthesis", "fluency"}
    assert any(row["label"] == HOSTILE[0] for row in rows)
    assert any(row["label"].startswith("'=HYPERLINK") for row in rows)  # no formula for a spreadsheet to run
    table = parquet_of(opened, figure)
    assert table.column_names == list(rows[0])
    assert str(table.schema.field("n").type) == "int64"
    for parquet, written in zip(table.to_pylist(), rows, strict=True):
        assert all(is_same(value, written[key]) for key, value in parquet.items()), (parquet, written)
    assert any(row["label"] == HOSTILE[5] for row in table.to_pylist())
    assert opened.said == []


def test_a_download_is_a_file_with_a_name(opened: Opened) -> None:
    figure = opened.bring("book")
    with opened.page.expect_download() as waiting:
        figure.get_by_role("button", name="Download Parquet").click()
    assert waiting.value.suggested_filename == "ltm_book.parquet"
    assert Path(waiting.value.path()).read_bytes()[:4] == b"PAR1"
    assert opened.said == opened.asked == []


def test_every_figure_can_be_taken_away(opened: Opened) -> None:
    opened.page.evaluate(KEEP)
    for name in opened.names():
        figure = opened.bring(name)
        table = parquet_of(opened, figure)
        assert table.num_rows > 0, name
        assert len(csv_of(opened, figure)) == table.num_rows, name
        if figure.get_by_role("button", name="Download SVG").count():
            drawing = saved(opened, figure, "SVG").decode()
            assert drawing.startswith("<svg"), name
            assert "<path" in drawing, name
            assert saved(opened, figure, "PNG").startswith(b"\x89PNG"), name
    board = parquet_of(opened, opened.bring("board")).to_pylist()
    assert len(board) == 96
    assert {len(row["books"]) for row in board} == {25}
    assert opened.said == []


def test_theme_switch_redraws_in_other_colours(opened: Opened) -> None:
    page = opened.page
    opened.bring("book")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.evaluate("window.drawn = document.querySelector('#figure-book .plot svg').innerHTML")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    opened.bring("book")
    until(page, "(s => s && s.innerHTML !== window.drawn)(document.querySelector('#figure-book .plot svg'))")
    assert opened.said == []


def test_the_keyboard_reaches_everything(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#answer"
    figure = opened.bring("book")
    figure.locator(".switch button").first.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "synthesis"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    opened.bring("board").locator("a[data-run]").first.focus()
    page.keyboard.press("ArrowDown")
    second = opened.page.locator("#figure-board a[data-run]").nth(1).get_attribute("data-run")
    assert page.evaluate("document.activeElement.dataset.run") == second
    loose = "[...document.querySelectorAll('main :is(button, a, input, select)')].filter(n => n.tabIndex < 0).length"
    assert page.evaluate(loose) == 0


@pytest.mark.skipif(axe_script() is None, reason="needs axe-core (npm install axe-core; LTM_AXE=path of axe.min.js)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ru"])
def test_axe_finds_nothing(browser: object, page_path: Path, scheme: str, language: str) -> None:
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        offline=True,
        bypass_csp=True,
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    opened = Opened(context.new_page(), page_path.as_uri())
    opened.page.click(f".top [data-language={language}]")
    opened.draw_all()
    opened.page.evaluate(axe_script())
    assert violations(opened.page) == []
    runs = opened.page.locator("#figure-board a[data-run]").evaluate_all(
        "all => all.slice(0, 2).map(a => a.dataset.run)"
    )
    for hash_ in (f"#run={runs[0]}", f"#compare={runs[0]},{runs[1]}"):
        opened.page.evaluate("hash => { location.hash = hash; }", hash_)
        until(
            opened.page, "!document.getElementById('view').hidden && document.querySelector('#view .plot svg') !== null"
        )
        assert violations(opened.page) == [], hash_
    context.close()


def test_a_screen_reader_is_told_what_a_chart_shows(opened: Opened) -> None:
    described = 0
    for name in opened.names():
        figure = opened.bring(name)
        plot = figure.locator(".plot")
        if not plot.is_visible():
            continue
        assert plot.get_attribute("role") == "img"
        assert len(plot.get_attribute("aria-label")) > 5, name
        if told := plot.get_attribute("aria-describedby"):
            described += len(opened.page.locator(f"#{told}").text_content()) > 20
    assert described >= 5


def test_paper_has_whole_charts_in_light_colours(browser: object, page_path: Path, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True, color_scheme="dark")
    opened = Opened(context.new_page(), page_path.as_uri())
    opened.bring("book")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.page.emulate_media(media="print")
    charts = "[...document.querySelectorAll('#chapters .plot:not([hidden])')]"
    assert opened.page.evaluate(f"{charts}.every(plot => plot.querySelector('svg, .note'))")
    assert (
        opened.page.evaluate(f"Math.max(...{charts}.map(plot => plot.getBoundingClientRect().height))") < 980
    )  # of A4
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not opened.page.locator(".controls").first.is_visible()
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    opened.page.emulate_media(media="screen")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    printed = tmp_path / "page.pdf"
    opened.page.pdf(path=printed, format="A4", prefer_css_page_size=True)
    assert printed.stat().st_size > 50_000
    assert opened.said == []
    context.close()
