"""The live page: only with its token, only this machine; it renews itself and leaves the reader where he is."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from open_page import Opened, until
from synthetic_study import write_study

from chromium import CHROMIUM
from ltm.dashboard import live
from ltm.dashboard.live import LivePage, Snapshot, signature
from ltm.errors import InputError, StoreError
from ltm.store import WorkFolder, read_json, write_json

needs_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium")


class Growing:
    """A study whose runs come in one after the other: a whole one, and a folder that gets its files bit by bit."""

    def __init__(self, folder: Path) -> None:
        self.whole = write_study(folder / "whole", n_runs=24, n_books=20)
        self.work = WorkFolder(folder / "work")
        shutil.copytree(self.whole.root, self.work.root, ignore=lambda *_: {"runs", "scores", "patterns", "dialogue"})
        self.runs = sorted(path.parent.name for path in self.whole.path("runs").glob("*/run.json"))
        self.done: list[str] = []

    def finish(self, n: int) -> None:
        for run in self.runs[len(self.done) : len(self.done) + n]:
            write_json(self.work.path("runs", run, "run.json"), read_json(self.whole.path("runs", run, "run.json")))
            self.done.append(run)

    def conclude(self) -> None:
        for name in ("scores", "patterns", "dialogue"):
            shutil.copytree(self.whole.path(name), self.work.path(name))

    def status(self) -> dict[str, Any]:
        n, total = len(self.done), len(self.runs)
        stages = dict.fromkeys(("books", "runs", "patterns"), "complete" if n == total else "waiting")
        return {
            "stages": stages, "working_on": "runs" if n < total else None, "paused": False,
            "runs": {"waiting": total - n, "running": 0, "complete": n, "failed": 0, "lost": 0, "stopped": 0},
            "rate": {"runs_per_hour": 120.0, "tokens_per_second_per_worker": 9000.0}, "cost_usd": 0.25,
            "eta_seconds": 60.0 * (total - n), "eta_low": 50.0 * (total - n), "eta_high": 80.0 * (total - n),
            "elapsed_seconds": 90.0,
        }  # fmt: skip


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Growing:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(live, "_SHARE", 0.9)
    study = Growing(tmp_path)
    study.finish(4)
    return study


@pytest.fixture
def served(growing: Growing) -> Iterator[LivePage]:
    page = LivePage(growing.work, "en", growing.status, 0)
    thread = threading.Thread(target=page.serve, daemon=True)
    thread.start()
    yield page
    page.shutdown()
    thread.join(5)


def call(page: LivePage, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data, answer.headers


def test_only_who_has_the_token_reads_it(served: LivePage) -> None:
    for path in ("/", "/?token=", "/?token=wrong", "/changes"):
        status, data, _ = call(served, "GET", path)
        assert status == 403
        assert "ltm dashboard --live" in json.loads(data)["error"]
    status, data, headers = call(served, "GET", f"/?token={served.token}")
    assert status == 200
    assert b"connect-src &#x27;self&#x27;" in data
    cookie = headers["Set-Cookie"].split(";")[0]
    assert call(served, "GET", "/", Cookie=cookie)[0] == 200
    assert call(served, "GET", "/", Cookie=cookie, Host="evil.example")[0] == 403
    assert call(served, "GET", "/etc/passwd", Cookie=cookie)[0] == 404
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_calls_of_other_sites_and_damaged_ones_are_refused(served: LivePage) -> None:
    path = f"/changes?token={served.token}"
    assert call(served, "POST", "/changes", b"{}", Content_Type="application/json")[0] == 403
    assert call(served, "POST", path, b"{}", Content_Type="text/plain")[0] == 400  # all that a form can send
    for body in (b"", b"[1]", b"{", b"x" * 70_000):
        assert call(served, "POST", path, body, Content_Type="application/json")[0] == 400
    status, data, _ = call(served, "POST", path, b"{}", Content_Type="application/json")
    assert status == 200
    told = json.loads(data)
    assert told["parts"].keys() == told["digests"].keys()
    known = json.dumps(told["digests"]).encode()
    assert json.loads(call(served, "POST", path, known, Content_Type="application/json")[1])["parts"] == {}


def test_only_what_changed_is_handed_on(growing: Growing) -> None:
    from ltm.dashboard.inputs import read_inputs
    from ltm.dashboard.page import make_parts

    first = Snapshot.of(make_parts(read_inputs(growing.work), "en"))
    growing.finish(2)
    second = Snapshot.of(make_parts(read_inputs(growing.work), "en"))
    assert {"banner", "runs"} <= second.beyond(first.digests).keys()
    assert "section.library" not in second.beyond(first.digests)
    assert second.beyond(second.digests) == {}


def test_the_signature_sees_new_changed_and_removed_files(growing: Growing) -> None:
    seen = [signature(growing.work)]
    growing.finish(1)
    seen.append(signature(growing.work))
    write_json(growing.work.path("forecast.json"), {"stages": []})
    seen.append(signature(growing.work))
    growing.work.path("forecast.json").unlink()
    seen.append(signature(growing.work))
    write_json(growing.work.path("runs", "x", "failed.json"), {"error": "no"})
    seen.append(signature(growing.work))
    assert len(set(seen)) == 5
    growing.work.path("runs", "x", "heartbeat.json").write_text("{}", encoding="utf-8")  # not shown: no reason to build
    assert signature(growing.work) == seen[-1]
    assert signature(WorkFolder(growing.work.root / "nowhere")) == signature(WorkFolder(growing.work.root / "nobody"))


def test_a_busy_port_is_said_with_a_free_one(growing: Growing) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="is in use") as caught:
            LivePage(growing.work, "en", growing.status, taken.getsockname()[1])
    assert "--port" in str(caught.value.hint)


def test_a_status_that_cannot_be_read_is_no_end(growing: Growing) -> None:
    def broken() -> dict[str, Any]:
        raise StoreError("half a file", "wait")

    page = LivePage(growing.work, "en", broken, 0)
    assert page.changes({})["status"] is None
    page.close()


@needs_browser
@pytest.mark.browser
def test_it_renews_itself_and_leaves_the_reader_where_he_is(browser: Any, growing: Growing, served: LivePage) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Opened(context.new_page(), served.address)
    page = opened.page
    assert "token" not in page.evaluate("location.href")
    until(page, "document.getElementById('live').textContent.includes('4\\u00a0complete')")
    assert "20 min 0" not in page.locator("#live").text_content()
    assert "left" in page.locator("#live").text_content()
    opened.bring("library").locator("input[type=search]").click()
    page.keyboard.type("qui")
    page.locator("#library details, #method details").first.evaluate("list => { list.open = true; }")
    page.locator("#figure-library input[type=search]").focus()
    page.evaluate("document.activeElement.scrollIntoView({block: 'center', behavior: 'instant'})")
    page.wait_for_timeout(500)  # chapters that come near get their true height
    place = page.locator("#figure-library input[type=search]").bounding_box()["y"]
    growing.finish(6)
    until(page, "document.getElementById('live').textContent.includes('10\\u00a0complete')")
    until(page, "document.getElementById('banner').textContent.includes('10')")
    field = page.locator("#figure-library input[type=search]")
    assert field.input_value() == "qui"
    assert page.evaluate("document.activeElement.type") == "search"
    assert abs(field.bounding_box()["y"] - place) < 3
    page.keyboard.type("et")
    assert field.input_value() == "quiet"
    assert page.locator("#library details, #method details").first.evaluate("list => list.open")
    growing.finish(14)
    growing.conclude()
    until(page, "document.querySelectorAll('.finding-item').length > 0")
    assert "complete" in page.locator("#live").text_content()
    assert abs(field.bounding_box()["y"] - place) < 3
    opened.bring("book")
    page.click(".top [data-language=ru]")
    until(page, "document.getElementById('live').textContent.includes('Вживую')")
    assert opened.said == []
    assert {url.split("?")[0] for url in opened.asked} <= {f"http://127.0.0.1:{served.port}/changes"}
    context.close()


@needs_browser
@pytest.mark.browser
def test_an_open_run_and_a_chosen_ability_stay(browser: Any, growing: Growing, served: LivePage) -> None:
    growing.finish(20)
    growing.conclude()
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Opened(context.new_page(), served.address)
    page = opened.page
    until(page, "document.querySelectorAll('.finding-item').length > 0")
    figure = opened.bring("book")
    figure.get_by_role("button", name="transfer").click()
    figure.get_by_role("button", name="Table").click()
    run = opened.bring("board").locator("a[data-run]").first.get_attribute("data-run")
    page.evaluate(f"location.hash = 'run={run}'")
    until(page, "document.querySelector('#view .plot svg') !== null")
    page.evaluate("scrollTo(0, 700)")
    gone = growing.work.path("runs", growing.runs[-1] if growing.runs[-1] != run else growing.runs[-2], "run.json")
    gone.unlink()
    until(page, "document.getElementById('banner').textContent.includes('23')")
    assert page.locator("#view h2").text_content() == f"Run {run}"
    assert page.evaluate("scrollY") == 700
    page.go_back()
    until(page, "document.getElementById('view').hidden")
    assert figure.get_by_role("button", name="transfer").get_attribute("aria-pressed") == "true"
    assert figure.get_by_role("button", name="Table").get_attribute("aria-pressed") == "true"
    assert opened.said == []
    served.shutdown()
    served.close()
    until(page, "document.getElementById('live').className === 'live lost'")
    context.close()
