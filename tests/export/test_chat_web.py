"""The chat page: only with its token, only from this machine, nothing from elsewhere; and in a real browser."""

import http.client
import json
import re
import socket
import threading
import time

import pytest

from chromium import CHROMIUM
from ltm.errors import InputError
from ltm.export.chat_web import ChatServer
from ltm.export.conversation import Conversation
from ltm.export.generate import Sampling
from ltm.export.retrieve import Passage

EVIL = "<img src=x onerror=document.title='owned'> \"&'"


def until(page, expression, seconds=20.0):
    """Wait for a condition; the page's policy forbids the browser's own way, which evaluates text in the page."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


class Echo:
    """Answers with what it is asked, word by word, and waits when told to."""

    template = None
    context_tokens = 1000

    def __init__(self, name):
        self.name = name
        self.sampling = None

    def go_on(self, prompt, sampling, stopped):
        self.sampling = sampling
        text = prompt.rpartition("\n")[2]
        for word in [self.name, *text.split(" ")]:
            yield f"{word} "
        while "wait" in text and not stopped():
            threading.Event().wait(0.02)


class Shelf:
    """Finds one passage with a title that would like to be HTML."""

    def find(self, question, count):
        return [Passage(EVIL, "Nobody", "chapter 1, at 5%", question)]


@pytest.fixture
def server():
    chat = ChatServer(Conversation([Echo("one"), Echo("two")], Sampling(), Shelf()), 0)
    thread = threading.Thread(target=chat.serve, daemon=True)
    thread.start()
    yield chat
    chat.shutdown()
    thread.join(5)


def call(server, method, path, body=None, token=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    if token is not None:
        headers["x-ltm-token"] = token
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data, answer.headers


def test_the_page_needs_its_token(server):
    for path in ("/", "/?token=", "/?token=wrong", f"/?tokens={server.token}"):
        assert call(server, "GET", path)[0] == 403, path
    status, page, headers = call(server, "GET", f"/?token={server.token}")
    assert status == 200
    cookie = headers["set-cookie"]
    assert "HttpOnly; SameSite=Strict" in cookie
    assert call(server, "GET", "/", cookie=cookie.partition(";")[0])[0] == 200
    assert call(server, "GET", "/", cookie=f"ltm_chat_{server.port}=wrong")[0] == 403
    assert call(server, "POST", "/api/about", {}, cookie=cookie.partition(";")[0])[0] == 403  # the header alone counts
    assert server.token.encode() not in page
    policy = headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)[1]
    assert f'<script nonce="{nonce}">'.encode() in page
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert call(server, "GET", f"/?token={server.token}")[1] != page  # another nonce every time
    assert not re.search(rb'(src|href)="?(https?:)?//', page)


def test_calls_need_the_token_in_a_header_and_the_right_host(server):
    assert call(server, "POST", "/api/about", {})[0] == 403
    assert call(server, "POST", f"/api/about?token={server.token}", {})[0] == 403
    assert call(server, "POST", "/api/about", {}, "wrong")[0] == 403
    assert call(server, "POST", "/api/about", {}, server.token, host="evil.example")[0] == 403
    assert call(server, "GET", f"/?token={server.token}", host=f"evil.example:{server.port}")[0] == 403
    assert call(server, "POST", "/api/about", {}, server.token)[0] == 200
    assert call(server, "POST", "/api/nothing", {}, server.token)[0] == 404
    assert call(server, "OPTIONS", "/api/about", None, server.token)[0] == 501  # no other site may ask


def test_it_listens_on_this_machine_alone(server):
    assert server._server.server_address[0] == "127.0.0.1"
    with socket.socket() as other:
        other.settimeout(1)
        assert other.connect_ex(("127.0.0.2", server.port)) != 0


def test_an_answer_comes_row_by_row(server):
    status, data, _ = call(server, "POST", "/api/say", {"text": "hello there", "sampling": {"seed": 7}}, server.token)
    rows = [json.loads(line) for line in data.splitlines()]
    assert status == 200
    assert rows[0] == {"passage": f"{EVIL} by Nobody, chapter 1, at 5%"}
    for which, name in enumerate(("one", "two")):
        text = "".join(row["piece"] for row in rows if row.get("speaker") == which)
        assert text == f"{name} hello there "
    assert server.conversation.speakers[0].sampling.seed == 7
    assert call(server, "POST", "/api/reset", {}, server.token)[0] == 200
    assert server.conversation.turns == []


@pytest.mark.parametrize(
    "body",
    [
        {}, {"text": ""}, {"text": 5}, {"text": "x", "sampling": {"temperature": -1}},
        {"text": "x", "sampling": {"temperature": "hot"}}, {"text": "x", "sampling": {"nothing": 1}},
    ],
)  # fmt: skip
def test_wrong_calls_are_answered_in_words(server, body):
    status, data, _ = call(server, "POST", "/api/say", body, server.token)
    assert status == 400
    assert json.loads(data)["error"]
    assert call(server, "POST", "/api/say", {"text": "still here"}, server.token)[0] == 200


@pytest.mark.parametrize(
    ("length", "data"), [("9999999999", b""), ("-1", b""), ("x", b""), ("4", b"[1]\n"), ("2", b"\xff{")]
)
def test_damaged_calls_do_not_hurt(server, length, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
        head = f"POST /api/about HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nx-ltm-token: {server.token}\r\n"
        raw.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + data)
        assert b" 400 " in raw.recv(100)
    assert call(server, "POST", "/api/about", {}, server.token)[0] == 200


def test_a_reader_who_goes_away_stops_the_answer(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", "/api/say", json.dumps({"text": "wait"}), {"x-ltm-token": server.token})
    connection.getresponse().read(10)
    assert call(server, "POST", "/api/stop", {}, server.token)[0] == 200
    connection.close()
    assert call(server, "POST", "/api/say", {"text": "next"}, server.token)[0] in (200, 409)


def test_a_busy_port_is_said_with_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is in use") as error:
            ChatServer(Conversation([Echo("one")], Sampling()), port)
        free = int(error.value.hint.rpartition(" ")[2])
        assert free != port
    for port in (-1, 70000):
        with pytest.raises(InputError, match="no port"):
            ChatServer(Conversation([Echo("one")], Sampling()), port)


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
def test_a_person_talks_with_the_keyboard_alone(server, browser):
    context = browser.new_context()
    page = context.new_page()
    wrong, elsewhere = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on("request", lambda r: elsewhere.append(r.url) if f":{server.port}/" not in r.url else None)
    page.goto(server.address)
    until(page, "document.querySelectorAll('#settings input').length === 6")
    assert "token" not in page.url
    assert page.inner_text("#names") == "one and two, with passages of the library"
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("first line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type(EVIL)
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.answer').length === 2 && !document.querySelector('.busy')")
    answers = page.locator(".answer").all_inner_texts()
    assert [text.split()[0] for text in answers] == ["one", "two"]
    assert EVIL in page.inner_text(".sources")
    assert EVIL in page.inner_text(".asked")
    assert page.title() == "ltm chat: one, two"  # no script of a title or an answer ran
    assert page.locator("main img").count() == 0
    one, two = (page.locator(".answer").nth(i).bounding_box() for i in (0, 1))
    assert abs(one["y"] - two["y"]) < 2  # side by side
    assert one["x"] + one["width"] <= two["x"] + 1
    page.reload()  # the address has no token any more
    until(page, "document.querySelectorAll('.answer').length === 2 && !document.querySelector('.busy')")
    assert page.locator(".answer").all_inner_texts() == answers
    assert EVIL in page.inner_text(".sources")
    page.focus("#text")
    page.keyboard.press("ArrowUp")
    assert page.input_value("#text").startswith("first line")
    page.fill("#text", "wait for me")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('state').textContent === 'answering'")
    until(page, "document.querySelectorAll('.answer').length >= 3")
    page.keyboard.press("Escape")
    until(page, "document.getElementById('state').textContent === ''")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.press("Alt+n")
    until(page, "document.querySelectorAll('.turn').length === 0")
    assert wrong == []
    assert elsewhere == []
    context.close()


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
def test_the_page_fits_a_narrow_screen_and_says_a_lost_token(server, browser):
    context = browser.new_context(viewport={"width": 320, "height": 640})
    page = context.new_page()
    page.goto(server.address)
    until(page, "document.querySelectorAll('#settings input').length === 6")
    page.fill("#text", "w" * 300)
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.answer').length === 2 && !document.querySelector('.busy')")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    server.token = "another"
    page.fill("#text", "x")
    page.keyboard.press("Enter")
    page.wait_for_selector(".error")
    assert "token" in page.inner_text(".error")
    context.close()
