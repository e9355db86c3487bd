"""Talk to models on one page of this machine, behind a token (`ltm.loopback`); nothing is loaded from elsewhere.

Calls bring the token in a header that other sites cannot set. Pieces of answers come as lines of JSON.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import urlparse

from ltm.errors import InputError, LtmError
from ltm.export.conversation import Conversation
from ltm.loopback import Answering, Loopback

_LARGEST_BODY_BYTES = 1 << 20


class ChatServer(Loopback):
    """The page and what answers it.

    Args:
        conversation: One for all who have the token.
        port: 0 = any that is free.

    Raises:
        InputError: the port is in use or not allowed; names the nearest that is free.
    """

    def __init__(self, conversation: Conversation, port: int) -> None:
        self.conversation = conversation
        self.lock = threading.Lock()  # one answer at a time: models remember what they read
        self.stopped = threading.Event()
        super().__init__(_Handler, port)

    def close(self) -> None:
        """Stop answers, and free the port."""
        self.stopped.set()
        super().close()

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


class _Handler(Answering):
    owner: ChatServer
    printed_by = "ltm chat --web"
    cookie_prefix = "ltm_chat"

    def do_GET(self) -> None:
        """Give the page to whoever has the token."""
        if not self.is_let_in():
            return
        if urlparse(self.path).path != "/":
            self.reply_json(404, {"error": "there is only one page"})
            return
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        more = {"Content-Security-Policy": policy, "Set-Cookie": self.cookie_to_set()}
        self.reply(200, "text/html; charset=utf-8", self.owner.page(nonce), more)

    def do_POST(self) -> None:
        """Answer what the page asks."""
        body = self._body()
        if body is None:
            return
        calls: dict[str, Callable[[], Any]] = {
            "/api/about": self.owner.about,
            "/api/stop": self._stop,
            "/api/reset": self._reset,
        }
        if self.path == "/api/say":
            self._say(body)
        elif self.path in calls:
            self.reply_json(200, calls[self.path]())
        else:
            self.reply_json(404, {"error": "there is no such call"})

    def _say(self, body: dict[str, Any]) -> None:
        if not self.owner.lock.acquire(timeout=2.0):
            self.reply_json(409, {"error": "another answer is still being written; stop it with Esc"})
            return
        try:
            rows = self.owner.say(body)
            self.send_response(200)
            self.reply_headers("application/x-ndjson", {"Transfer-Encoding": "chunked"})
            for row in rows:
                self._chunk(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            self._chunk(b"")
        except LtmError as error:
            self.reply_json(400, {"error": str(error)})
        except (BrokenPipeError, ConnectionResetError):
            self.owner.stopped.set()
            self.close_connection = True
        finally:
            self.owner.lock.release()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _stop(self) -> dict[str, Any]:
        self.owner.stopped.set()
        return {}

    def _reset(self) -> dict[str, Any]:
        self.owner.stopped.set()
        with self.owner.lock:
            self.owner.conversation.reset()
        return {}

    def _body(self) -> dict[str, Any] | None:
        """Return the body of a call that is allowed; else None, and the answer is given."""
        if not self.is_ours() or not self.knows(self.headers.get("x-ltm-token", "")):
            self.close_connection = True
            self.reply_json(403, {"error": "the token is missing or wrong"})
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
            self.reply_json(400, {"error": "the call is damaged or too long"})
            return None
        return value
