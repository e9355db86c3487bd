"""Manners and persistence: what the client does when a server is busy, slow, forbidding or lying."""

from __future__ import annotations

import email.utils
import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator

import pytest
from source_server import (
    SourceServer,
    always,
    cut,
    drip,
    other_body,
    redirect,
    serving,
    shorter_than_promised,
    silence,
    status,
)

from ltm.books.fetch.client import AGENT, Client, CutError, Manners, SourceError
from ltm.books.fetch.download import Expected, download
from ltm.errors import StoreError

BODY = random.Random(1).randbytes(300_000)
FAST = Manners(requests_per_second=1000.0, attempts=4, silence_seconds=0.4, window_seconds=0.2)


@pytest.fixture
def server() -> Iterator[SourceServer]:
    with serving() as server:
        server.files["/book"] = BODY
        yield server


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(waits: list[float]) -> Iterator[Client]:
    with Client(FAST, sleep=waits.append) as client:
        yield client


def test_it_says_who_it_is_and_asks_for_plain_bytes(server, client) -> None:
    assert client.get(f"{server.url}/book").body == BODY
    headers = server.asked("/book")[0]
    assert headers["user-agent"] == AGENT
    assert headers["accept-encoding"] == "identity"


def test_robots_are_obeyed_once_asked_for_each_host(server, client) -> None:
    server.files["/robots.txt"] = (
        b"User-agent: *\nDisallow: /private\nCrawl-delay: 7\n\nUser-agent: other\nDisallow: /\n"
    )
    client.get(f"{server.url}/book")
    client.get(f"{server.url}/book")
    with pytest.raises(SourceError, match=r"asks programs not to fetch /private/x"):
        client.get(f"{server.url}/private/x")
    assert len(server.asked("/robots.txt")) == 1
    assert server.asked("/private/x") == []
    assert client.interval(server.url) == 7.0


@pytest.mark.parametrize(("code", "allowed"), [(404, True), (403, True), (500, False), (503, False)])
def test_a_site_without_rules_allows_and_one_that_cannot_tell_them_is_left_alone(server, client, code, allowed) -> None:
    server.special["/robots.txt"] = always(status(code))
    if allowed:
        assert client.get(f"{server.url}/book").body == BODY
    else:
        with pytest.raises(SourceError, match="does not say what programs may fetch"):
            client.get(f"{server.url}/book")
        assert server.asked("/book") == []


def test_requests_to_one_host_keep_their_distance(server) -> None:
    now, waits = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    with Client(Manners(requests_per_second=0.5), sleep=sleep, clock=lambda: now[0]) as client:
        for _ in range(4):
            client.get(f"{server.url}/book")
    assert waits == [2.0] * 4  # robots.txt is a request, too
    assert client.counted.waited_seconds == 8.0


def test_retry_after_is_kept_in_seconds_and_as_a_date(server, client, waits) -> None:
    server.fail("/book", status(429, Retry_After="90"))
    client.get(f"{server.url}/book")
    assert 90.0 in waits
    moment = email.utils.formatdate(time.time() + 45, usegmt=True)
    server.fail("/book", status(503, Retry_After=moment))
    client.get(f"{server.url}/book")
    assert any(43 <= seconds <= 45 for seconds in waits)


def test_a_server_that_asks_for_hours_is_asked_another_day(server, client) -> None:
    server.fail("/book", status(429, Retry_After="7200"))
    with pytest.raises(SourceError, match=r"answers 429 and asks to come back in 2 h") as caught:
        client.get(f"{server.url}/book")
    assert "goes on where it was" in caught.value.hint


def test_waits_grow_and_end(server, client, waits) -> None:
    server.special["/book"] = always(status(503))
    with pytest.raises(SourceError, match=r"answers 503 \(tried 4 times\)"):
        client.get(f"{server.url}/book")
    grown = [seconds for seconds in waits if seconds >= 0.001]
    assert grown == sorted(grown)
    assert len(server.asked("/book")) == 4


@pytest.mark.parametrize("fault", [cut(1000), shorter_than_promised(50), silence(0.8), status(500), status(502)])
def test_faults_that_pass_are_outlived(server, client, fault) -> None:
    server.fail("/book", fault)
    assert client.get(f"{server.url}/book").body == BODY


def test_redirects_are_followed_and_circles_and_dead_ends_are_not(server, client) -> None:
    server.special["/old"] = always(redirect("/book"))
    assert client.get(f"{server.url}/old").body == BODY
    server.special["/a"], server.special["/b"] = always(redirect("/b")), always(redirect("/a"))
    with pytest.raises(SourceError, match="redirects in circles"):
        client.get(f"{server.url}/a")
    server.special["/file"] = always(redirect("file:///etc/passwd"))
    with pytest.raises(SourceError, match="no web address"):
        client.get(f"{server.url}/file")


def test_a_login_is_not_carried_to_another_host(server, client) -> None:
    with serving() as other:
        other.files["/book"] = BODY
        server.special["/away"] = always(redirect(f"{other.url}/book"))
        client.get(f"{server.url}/away", {"authorization": "Basic secret"})
        assert "authorization" in {name.lower() for name in server.asked("/away")[0]}
        assert "authorization" not in {name.lower() for name in other.asked("/book")[0]}


@pytest.mark.parametrize(("code", "said"), [(404, "not found"), (401, "asks for permission"), (451, "answers 451")])
def test_refusals_are_not_asked_twice(server, client, code, said) -> None:
    server.special["/no"] = always(status(code))
    with pytest.raises(SourceError, match=said):
        client.get(f"{server.url}/no")
    assert len(server.asked("/no")) == 1


def test_no_network_is_said_in_words(client) -> None:
    with pytest.raises(SourceError, match=r"cannot be reached|does not say") as caught:
        client.get("http://127.0.0.1:9/book")
    assert "network" in caught.value.hint
    with pytest.raises(SourceError, match="not a web address"):
        Client(Manners(obey_robots=False, requests_per_second=1000)).get("nonsense")


def test_a_catalogue_without_end_is_refused(server, client) -> None:
    with pytest.raises(SourceError, match="sends more than"):
        client.get(f"{server.url}/book", most_bytes=1000)


# --- files ---


def test_a_file_arrives_whole_with_its_checksum(server, client, tmp_path) -> None:
    found = download(client, f"{server.url}/book", tmp_path / "sub" / "b.bin")
    assert found.path.read_bytes() == BODY
    assert found.sha256 == hashlib.sha256(BODY).hexdigest()
    assert [p.name for p in found.path.parent.iterdir()] == ["b.bin"]


def test_a_cut_transfer_goes_on_where_it_was(server, client, tmp_path) -> None:
    server.fail("/book", cut(120_000), cut(60_000))
    assert download(client, f"{server.url}/book", tmp_path / "b").path.read_bytes() == BODY
    asked = server.asked("/book")
    assert [h.get("range") for h in asked] == [None, "bytes=120000-", "bytes=180000-"]
    assert all("if-range" in h for h in asked[1:])


def test_an_interrupted_fetch_is_taken_up_by_the_next_process(server, tmp_path) -> None:
    server.fail("/book", cut(40_000), status(404))
    with Client(FAST, sleep=lambda _: None) as first, pytest.raises(SourceError):
        download(first, f"{server.url}/book", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    with Client(FAST, sleep=lambda _: None) as second:
        download(second, f"{server.url}/book", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == BODY
    assert server.asked("/book")[-1]["range"] == "bytes=40000-"


def test_a_file_that_changed_meanwhile_is_begun_anew(server, client, tmp_path) -> None:
    def change(handler, body):
        cut(50_000)(handler, body)
        server.files["/book"] = BODY[::-1]
        return True

    server.fail("/book", change)
    assert download(client, f"{server.url}/book", tmp_path / "b").path.read_bytes() == BODY[::-1]


def test_a_server_that_ignores_ranges_is_no_trouble(server, client, tmp_path) -> None:
    server.fail("/book", cut(50_000), other_body(BODY))
    assert download(client, f"{server.url}/book", tmp_path / "b").path.read_bytes() == BODY


def test_a_server_that_sends_another_part_is_not_believed(server, client, tmp_path) -> None:
    def wrong_part(handler, body):
        handler.answer(206, body[100:], {"Content-Range": f"bytes 100-{len(body) - 1}/{len(body)}"})
        return True

    server.fail("/book", cut(50_000), wrong_part)
    assert download(client, f"{server.url}/book", tmp_path / "b").path.read_bytes() == BODY


def test_a_damaged_transfer_is_fetched_again_and_a_wrong_file_refused(server, client, tmp_path) -> None:
    right = Expected(len(BODY), hashlib.sha256(BODY).hexdigest())
    server.fail("/book", other_body(b"x" * len(BODY)))
    assert download(client, f"{server.url}/book", tmp_path / "b", right).path.read_bytes() == BODY
    with pytest.raises(SourceError, match="its checksum differs"):
        download(client, f"{server.url}/book", tmp_path / "c", Expected(sha256="0" * 64))
    with pytest.raises(SourceError, match="it should have 7"):
        download(client, f"{server.url}/book", tmp_path / "d", Expected(7))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


def test_a_drip_is_given_up_in_time(server, client, tmp_path) -> None:
    server.special["/drip"] = lambda handler: (drip(3.0)(handler, BODY), None)[1]
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"bytes a second \(tried 4 times\)"):
        download(client, f"{server.url}/drip", tmp_path / "b")
    assert time.monotonic() - began < 3.0


def test_too_large_is_refused_before_it_comes(server, client, tmp_path) -> None:
    with pytest.raises(SourceError, match="at most 1000 B"):
        download(client, f"{server.url}/book", tmp_path / "b", Expected(most_bytes=1000))
    assert not (tmp_path / "b").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_explained(server, client, tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="permission"):
        download(client, f"{server.url}/book", tmp_path / "sub" / "b")


def test_a_full_disk_is_explained(server, client, tmp_path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    (tmp_path / ".b.part").symlink_to("/dev/full")
    (tmp_path / ".b.part.json").write_text("{}")
    with pytest.raises(StoreError, match="disk is full"):
        download(client, f"{server.url}/book", tmp_path / "b")


def test_a_cut_error_is_a_source_error() -> None:
    assert issubclass(CutError, SourceError)
    assert threading.active_count() >= 1
