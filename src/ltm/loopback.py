"""Serve a page to the user of this machine alone: bound to 127.0.0.1, behind a token, closed to other sites.

The token stands in the address that is printed; a cookie for this page alone lets it be loaded again. A foreign `Host`
is refused too, else a name that points here could read the page. Whoever serves says what is answered.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import secrets
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

from ltm.errors import InputError

HOST = "127.0.0.1"
_PORTS_TRIED = 50


class Loopback:
    """A server of this machine.

    Args:
        handler: What answers; a class made of it gets this server as `owner`.
        port: 0 = any that is free.

    Raises:
        InputError: the port is in use or not allowed; names the nearest that is free.
    """

    def __init__(self, handler: type[Answering], port: int) -> None:
        self.token = secrets.token_urlsafe(24)
        try:
            self._server = _Server((HOST, port), type("Handler", (handler,), {"owner": self}))
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
        """Free the port."""
        self._server.server_close()

    def shutdown(self) -> None:
        """End `serve` from another thread."""
        self._server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = False  # a port that another program listens on is busy

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a browser that goes away is no error."""


class Answering(BaseHTTPRequestHandler):
    """What every page of this machine answers with; `printed_by` is the command that prints the address."""

    owner: Loopback
    printed_by = "ltm"
    cookie_prefix = "ltm"
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ltm", ""

    def log_message(self, *_: Any) -> None:
        """Say nothing: addresses hold the token."""

    def is_let_in(self) -> bool:
        """Tell whether a request may be answered; else it is refused here."""
        token = (parse_qs(urlparse(self.path).query).get("token") or [""])[0]
        if self.is_ours() and (self.knows(token) or self.knows(self._cookie())):
            return True
        self.reply_json(403, {"error": f"open the address that `{self.printed_by}` printed: it holds a token"})
        return False

    def knows(self, token: str) -> bool:
        """Tell whether a token is the right one."""
        return hmac.compare_digest(token.encode(), self.owner.token.encode())

    def is_ours(self) -> bool:
        """Tell whether the request names this machine."""
        return self.headers.get("host", "") in (f"{HOST}:{self.owner.port}", f"localhost:{self.owner.port}")

    def cookie_to_set(self) -> str:
        """Return the header that lets the page be loaded again."""
        return f"{self._cookie_name()}={self.owner.token}; HttpOnly; SameSite=Strict; Path=/"

    def _cookie_name(self) -> str:
        return f"{self.cookie_prefix}_{self.owner.port}"  # cookies are shared by all ports

    def _cookie(self) -> str:
        """Return the token of the cookie; empty where there is none."""
        for part in self.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie_name():
                return value
        return ""

    def reply_json(self, code: int, value: Any) -> None:
        """Answer with JSON."""
        self.reply(code, "application/json", json.dumps(value, ensure_ascii=False).encode(), {})

    def reply(self, code: int, kind: str, data: bytes, more: dict[str, str]) -> None:
        """Answer with bytes."""
        self.send_response(code)
        self.reply_headers(kind, {"Content-Length": str(len(data)), **more})
        self.wfile.write(data)

    def reply_headers(self, kind: str, more: dict[str, str]) -> None:
        """Send the headers: nothing is stored, nothing is given to other sites."""
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
