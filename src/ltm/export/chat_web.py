"""Talk to models on one page of this machine: bound to 127.0.0.1, behind a token, nothing loaded from elsewhere.

The token stands in the address that is printed, then travels in a header that other sites cannot set; a cookie for this
page alone lets it be loaded again. A foreign `Host` is refused too (else a name that points here could read the page).
Pieces of answers come as lines of JSON.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlparse

from ltm.errors import InputError, LtmError
from ltm.export.conversation import Conversation

HOST = "127.0.0.1"
_LARGEST_BODY_BYTES = 1 << 20
_PORTS_TRIED = 50


class ChatServer:
    """The page and what answers it.

    Args:
        conversation: One for all who have the token.
        port: 0 = any that is free.

    Raises:
        InputError: the port is in use or not allowed; names the nearest that is free.
    """

    def __init__(self, conversation: Conversation, port: int) -> None:
        self.conversation = conversation
        self.token = secrets.token_urlsafe(24)
        self.lock = threading.Lock()  # one answer at a time: models remember what they read
        self.stopped = threading.Event()
        handler = type("Handler", (_Handler,), {"chat": self})
        try:
            self._server = _Server((HOST, port), handler)
        except (OSError, OverflowError) as error:
            raise _port_error(port, error) from None
        self.port = int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """Where the page is, with the token."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def serve(self) -> None:
        """Answer until interrupted."""
        with contextlib.suppress(KeyboardInterrupt):
            self._server.serve_forever(poll_interval=0.2)
        self.close()

    def close(self) -> None:
        """Stop answers, and free the port."""
        self.stopped.set()
        self._server.server_close()

    def shutdown(self) -> None:
        """End `serve` from another thread."""
        self._server.shutdown()

    def page(self, nonce: str) -> bytes:
        """Return the page."""
        text = (files("ltm.export") / "assets" / "chat.html").read_text(encoding="utf-8")
        return text.replace("@NONCE@", nonce).encode()

    def about(self) -> dict[str, Any]:
        """Return who answers, and how."""
        return {
            "speakers": [speaker.name for speaker in self.conversation.speakers],
            "sampling": vars(self.conversation.sampling),
            "rag": self.conversation.library is not None,
            "turns": [
                {"text": turn.text, "passages": [p.source for p in turn.passages], "answers": turn.answers}
                for turn in self.conversation.turns
            ],
        }

    def say(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield a turn row by row: passages, then pieces of answers.

        Raises:
            InputError: there is no text, or a setting makes no sense.
        """
        text = body.get("text")
        if not isinstance(text, str) or not text.strip():
            raise InputError("there is no text", "write something first")
        sampling = body.get("sampling")
        for name, value in sampling.items() if isinstance(sampling, dict) else ():
            if not isinstance(value, (int, float)):
                raise InputError(f"{name} is no number", "give a number")
            self.conversation.set(str(name), value)
        return self._turn(text)

    def _turn(self, text: str) -> Iterator[dict[str, Any]]:
        self.stopped.clear()
        turn = self.conversation.ask(text)
        for passage in turn.passages:
            yield {"passage": passage.source}
        for which, speaker in enumerate(self.conversation.speakers):
            row = {"speaker": which, "name": speaker.name}
            yield {**row, "piece": ""}
            for piece in self.conversation.answer(which, self.stopped.is_set):
                yield {**row, "piece": piece}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False  # a port that another program listens on is busy

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a browser that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ltm", ""

    def log_message(self, *_: Any) -> None:
        """Say nothing: addresses hold the token."""

    def do_GET(self) -> None:
        """Give the page to whoever has the token."""
        address = urlparse(self.path)
        token = (parse_qs(address.query).get("token") or [""])[0]
        if not self._is_ours() or not (self._knows(token) or self._knows(self._cookie())):
            self._json(403, {"error": "open the address that `ltm chat --web` printed: it holds a token"})
            return
        if address.path != "/":
            self._json(404, {"error": "there is only one page"})
            return
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        cookie = f"{self._cookie_name()}={self.chat.token}; HttpOnly; SameSite=Strict; Path=/"
        more = {"Content-Security-Policy": policy, "Set-Cookie": cookie}
        self._send(200, "text/html; charset=utf-8", self.chat.page(nonce), more)

    def do_POST(self) -> None:
        """Answer what the page asks."""
        body = self._body()
        if body is None:
            return
        calls: dict[str, Callable[[], Any]] = {
            "/api/about": self.chat.about,
            "/api/stop": self._stop,
            "/api/reset": self._reset,
        }
        if self.path == "/api/say":
            self._say(body)
        elif self.path in calls:
            self._json(200, calls[self.path]())
        else:
            self._json(404, {"error": "there is no such call"})

    def _say(self, body: dict[str, Any]) -> None:
        if not self.chat.lock.acquire(timeout=2.0):
            self._json(409, {"error": "another answer is still being written; stop it with Esc"})
            return
        try:
            rows = self.chat.say(body)
            self.send_response(200)
            self._headers("application/x-ndjson", {"Transfer-Encoding": "chunked"})
            for row in rows:
                self._chunk(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            self._chunk(b"")
        except LtmError as error:
            self._json(400, {"error": str(error)})
        except (BrokenPipeError, ConnectionResetError):
            self.chat.stopped.set()
            self.close_connection = True
        finally:
            self.chat.lock.release()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _stop(self) -> dict[str, Any]:
        self.chat.stopped.set()
        return {}

    def _reset(self) -> dict[str, Any]:
        self.chat.stopped.set()
        with self.chat.lock:
            self.chat.conversation.reset()
        return {}

    def _body(self) -> dict[str, Any] | None:
        """Return the body of a call that is allowed; else None, and the answer is given."""
        if not self._is_ours() or not self._knows(self.headers.get("x-ltm-token", "")):
            self.close_connection = True
            self._json(403, {"error": "the token is missing or wrong"})
            return None
        try:
            size = int(self.headers.get("content-length") or 0)
            if not 0 <= size <= _LARGEST_BODY_BYTES:
                raise ValueError
            value = json.loads(self.rfile.read(size) or b"{}")
            if not isinstance(value, dict):
                raise ValueError
        except ValueError:
            self.close_connection = True
            self._json(400, {"error": "the call is damaged or too long"})
            return None
        return value

    def _knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.chat.token.encode())

    def _cookie_name(self) -> str:
        return f"ltm_chat_{self.chat.port}"  # cookies are shared by all ports

    def _cookie(self) -> str:
        """Return the token of the cookie; empty where there is none."""
        for part in self.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie_name():
                return value
        return ""

    def _is_ours(self) -> bool:
        return self.headers.get("host", "") in (f"{HOST}:{self.chat.port}", f"localhost:{self.chat.port}")

    def _json(self, code: int, value: Any) -> None:
        self._send(code, "application/json", json.dumps(value, ensure_ascii=False).encode(), {})

    def _send(self, code: int, kind: str, data: bytes, more: dict[str, str]) -> None:
        self.send_response(code)
        self._headers(kind, {"Content-Length": str(len(data)), **more})
        self.wfile.write(data)

    def _headers(self, kind: str, more: dict[str, str]) -> None:
        fixed = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
        fixed |= {"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin"}
        for name, value in {"Content-Type": kind, **fixed, **more}.items():
            self.send_header(name, value)
        self.end_headers()


def _port_error(port: int, error: Exception) -> InputError:
    if isinstance(error, OverflowError) or not 0 <= port <= 65535:
        return InputError(f"{port} is no port", "nearest: 0 (any free one), or 1024 to 65535")
    reason = "is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be used ({error})"
    return InputError(f"port {port} {reason}", f"nearest that is free: --port {_nearest_free(port)}")


def _nearest_free(port: int) -> int:
    for other in range(max(1024, port + 1), min(65535, max(1024, port) + _PORTS_TRIED)):
        with socket.socket() as trial:
            try:
                trial.bind((HOST, other))
            except OSError:
                continue
            return other
    return 0
