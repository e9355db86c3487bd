"""A polite HTTP client: says who it is, keeps to robots.txt, waits between requests, and tries again where it helps.

Robots rules are those of RFC 9309 (a site that cannot tell them is left alone; one that has none allows everything);
`Retry-After` is that of RFC 9110. A wait longer than people have patience for ends the fetch with the time at which to
come back; nothing that was fetched is lost.
"""

from __future__ import annotations

import contextlib
import email.utils
import time
import urllib.robotparser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ltm.errors import LtmError
from ltm.units import format_bytes, format_seconds

if TYPE_CHECKING:
    import httpx2

AGENT = "ltm-fetch/1"
_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_MOVED = frozenset((301, 302, 303, 307, 308))
_MOST_REDIRECTS = 8


class SourceError(LtmError):
    """A source cannot be reached, refuses, or sends something that is not what was asked for."""

    def __init__(self, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


class CutError(SourceError):
    """A transfer broke off or crept; asking again may give the rest."""


class UnreachableError(SourceError):
    """A host does not answer, or not in time, however often it is asked."""


@dataclass(frozen=True)
class Manners:
    """How a source is treated."""

    requests_per_second: float = 1.0  # to one host; robots.txt may ask for less
    attempts: int = 5  # of one request, without progress
    patience_seconds: float = 600.0  # a server that asks for a longer wait is asked again another day
    connect_seconds: float = 20.0
    silence_seconds: float = 30.0  # without a byte
    slowest_bytes_per_second: float = 512.0  # over a minute; slower counts as broken off
    window_seconds: float = 60.0
    obey_robots: bool = True


@dataclass
class Counted:
    """What a client has done."""

    requests: int = 0
    n_bytes: int = 0
    transfer_seconds: float = 0.0
    waited_seconds: float = 0.0


@dataclass
class Client:
    """Asks one or several hosts; not for use by several threads at once."""

    manners: Manners = field(default_factory=Manners)
    say: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], None] = field(default_factory=lambda: time.sleep)
    clock: Callable[[], float] = time.monotonic
    counted: Counted = field(default_factory=Counted)
    _session: httpx2.Client | None = None
    _next: dict[str, float] = field(default_factory=dict)  # by origin: when it may be asked again
    _robots: dict[str, urllib.robotparser.RobotFileParser] = field(default_factory=dict)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            self._session.close()

    def get(self, url: str, headers: Mapping[str, str] | None = None, most_bytes: int = 256 * 1024**2) -> Answer:
        """Return a whole answer, held in memory.

        Raises:
            SourceError: as `open`, or the answer is larger than `most_bytes`.
        """

        def read(stream: Stream) -> Answer:
            parts: list[bytes] = []
            for chunk in stream.chunks():
                parts.append(chunk)
                if sum(map(len, parts)) > most_bytes:
                    raise SourceError(
                        f"{stream.url} sends more than {format_bytes(most_bytes)}", "this is no catalogue"
                    )
            body = b"".join(parts)
            if stream.length is not None and len(body) != stream.length:
                raise CutError(f"{stream.url} sent {len(body)} of {stream.length} bytes")
            return Answer(stream.url, stream.status, stream.headers, body)

        return self.patiently(lambda: self._use(url, headers, read), url)

    def patiently(self, action: Callable[[], Answer], url: str) -> Answer:
        """Do something until it goes well, as often as manners allow."""
        for attempt in range(1, self.manners.attempts + 1):
            try:
                return action()
            except CutError as error:
                if attempt == self.manners.attempts:
                    raise UnreachableError(f"{error.message} (tried {attempt} times)", _LATER) from None
                self.wait(self.pause(attempt), f"{error.message}; trying again")
        raise AssertionError(url)

    def _use(self, url: str, headers: Mapping[str, str] | None, read: Callable[[Stream], Answer]) -> Answer:
        with self.open(url, headers) as stream:
            return read(stream)

    @contextlib.contextmanager
    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Stream]:
        """Send a GET and give the answer as a stream, redirects followed; waits and tries again where that helps.

        Raises:
            CutError: the connection broke while the answer was read.
            SourceError: robots.txt forbids it, it is not there, it cannot be reached, it redirects in circles, or it
                asks for more patience than there is.
        """
        import httpx2

        response = self._respond(url, dict(headers or {}))
        stream = Stream(self, response)
        began = self.clock()
        try:
            yield stream
        except (httpx2.TransportError, httpx2.StreamError, httpx2.DecodingError) as error:
            raise CutError(f"{stream.url}: the transfer broke off ({_words(error)})") from None
        finally:
            self.counted.transfer_seconds += self.clock() - began
            self.counted.n_bytes += stream.n_bytes
            response.close()

    def _respond(self, url: str, headers: dict[str, str]) -> httpx2.Response:
        import httpx2

        first = url
        for attempt in range(1, self.manners.attempts + 1):
            try:
                response = self._follow(first, headers)
            except (httpx2.TransportError, httpx2.InvalidURL) as error:
                if isinstance(error, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
                    raise SourceError(f"{first} is not a web address", "check the source's address") from None
                if attempt == self.manners.attempts:
                    where = urlsplit(first).netloc
                    raise UnreachableError(
                        f"{where} cannot be reached: {_words(error)} (tried {attempt} times)",
                        "check the network and the address, then run the same command again: it goes on where it was",
                    ) from None
                self.wait(self.pause(attempt), f"{urlsplit(first).netloc}: {_words(error)}; trying again")
                continue
            if response.status_code not in _AGAIN:
                if response.status_code >= 400:
                    response.close()
                    raise _refused(first, response.status_code)
                return response
            response.close()
            self._wait_as_asked(response, attempt)
        raise AssertionError(first)

    def _wait_as_asked(self, response: httpx2.Response, attempt: int) -> None:
        """Wait as long as the server asks, or as one does."""
        said = f"{urlsplit(str(response.url)).netloc} answers {response.status_code}"
        asked = _retry_after(response.headers.get("retry-after", ""))
        seconds = self.pause(attempt) if asked is None else asked
        if attempt == self.manners.attempts:
            raise UnreachableError(f"{said} (tried {attempt} times)", _LATER, response.status_code)
        if seconds > self.manners.patience_seconds:
            raise UnreachableError(
                f"{said} and asks to come back in {format_seconds(seconds)}",
                "run the same command again then: it goes on where it was",
                response.status_code,
            )
        self.wait(seconds, f"{said}; waiting {format_seconds(seconds)}")

    def _follow(self, url: str, headers: dict[str, str]) -> httpx2.Response:
        """Send one request, and those that it is redirected to."""
        seen: list[str] = []
        while True:
            if url in seen or len(seen) > _MOST_REDIRECTS:
                raise SourceError(f"{seen[0]} redirects in circles ({len(seen)} times)", "choose another mirror")
            seen.append(url)
            self._check_robots(url)
            response = self._send(url, headers)
            if response.status_code not in _MOVED or "location" not in response.headers:
                return response
            response.close()
            target = urljoin(url, response.headers["location"])
            if urlsplit(target).scheme not in ("http", "https"):
                raise SourceError(f"{url} redirects to {target[:80]}, which is no web address", "choose another mirror")
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
                raise SourceError(
                    f"{url} redirects to a place without encryption: {target[:80]}", "choose another mirror"
                )
            if urlsplit(target).netloc != urlsplit(url).netloc:
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            url = target

    def _send(self, url: str, headers: dict[str, str]) -> httpx2.Response:
        import httpx2

        origin = _origin(url)
        pause = self._next.get(origin, 0.0) - self.clock()
        if pause > 0:
            self.counted.waited_seconds += pause
            self.sleep(pause)
        self._next[origin] = self.clock() + self.interval(origin)
        if self._session is None:
            timeout = httpx2.Timeout(self.manners.silence_seconds, connect=self.manners.connect_seconds)
            # plain bytes: a length and a range then mean what they say
            base = {"user-agent": AGENT, "accept": "*/*", "accept-encoding": "identity"}
            self._session = httpx2.Client(timeout=timeout, headers=base, follow_redirects=False)
        self.counted.requests += 1
        return self._session.send(self._session.build_request("GET", url, headers=headers), stream=True)

    def interval(self, origin: str) -> float:
        """Return the seconds between two requests to a host."""
        robots = self._robots.get(origin)
        delay = robots.crawl_delay(AGENT) if robots is not None else None
        return max(1.0 / self.manners.requests_per_second, float(delay or 0.0))

    def _check_robots(self, url: str) -> None:
        if not self.manners.obey_robots:
            return
        origin = _origin(url)
        if origin not in self._robots:
            self._robots[origin] = self._read_robots(origin)
        if not self._robots[origin].can_fetch(AGENT, url):
            raise SourceError(
                f"{origin}/robots.txt asks programs not to fetch {urlsplit(url).path}",
                "use a mirror that allows it (docs/fetch.md says how)",
                403,
            )

    def _read_robots(self, origin: str) -> urllib.robotparser.RobotFileParser:
        rules = urllib.robotparser.RobotFileParser()
        allowing = urllib.robotparser.RobotFileParser()
        allowing.parse([])
        self._robots[origin] = allowing  # robots.txt itself may be read
        try:
            lines = self.get(f"{origin}/robots.txt", most_bytes=1024**2).body.decode("utf-8", "replace").splitlines()
        except SourceError as error:
            del self._robots[origin]
            if 400 <= error.status < 500 and error.status != 429:
                return allowing
            raise UnreachableError(
                f"{origin} does not say what programs may fetch: {error.message}", error.hint
            ) from None
        rules.parse(lines)
        return rules

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait before the next attempt: 1, 2, 4, ... times the usual interval."""
        return min(60.0, (1.0 / self.manners.requests_per_second) * 2.0 ** (attempt - 1))

    def wait(self, seconds: float, why: str) -> None:
        """Wait, and say why."""
        self.say(why)
        self.counted.waited_seconds += seconds
        self.sleep(seconds)


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream:
    """An answer that is being read."""

    def __init__(self, client: Client, response: httpx2.Response) -> None:
        self._client, self._response = client, response
        self.url = str(response.url)
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.n_bytes = 0

    @property
    def length(self) -> int | None:
        """Bytes that the server says it sends, or None where it does not say."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdigit() else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes.

        Raises:
            CutError: it comes too slowly to ever end.
        """
        manners, clock = self._client.manners, self._client.clock
        mark, at_mark = clock(), 0
        # as it comes: bytes that are held back to fill a chunk would be lost with the connection
        for chunk in self._response.iter_raw():
            self.n_bytes += len(chunk)
            yield chunk
            passed = clock() - mark
            if passed >= manners.window_seconds:
                if self.n_bytes - at_mark < manners.slowest_bytes_per_second * passed:
                    raise CutError(f"{self.url} sends {(self.n_bytes - at_mark) / passed:.0f} bytes a second")
                mark, at_mark = clock(), self.n_bytes


_LATER = "run the same command again later: it goes on where it was"


def _refused(url: str, status: int) -> SourceError:
    if status in (404, 410):
        return SourceError(f"not found: {url}", "check the name; `--help` shows how a source is written", status)
    if status in (401, 403):
        return SourceError(
            f"{url} asks for permission (status {status})", "see docs/fetch.md about sources that do", status
        )
    if status == 416:
        return SourceError(f"{url} has no such part", _LATER, status)
    return SourceError(f"{url} answers {status}", "check the source's address", status)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _retry_after(text: str) -> float | None:
    """Return the seconds of a Retry-After header, given as seconds or as a date; None if there is none."""
    text = text.strip()
    if text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - time.time())


def _words(error: Exception) -> str:
    text = str(error).strip()
    name = type(error).__name__
    plain = {
        "ConnectTimeout": "no connection in time",
        "ReadTimeout": "no answer in time",
        "ReadError": "the connection was closed",
        "RemoteProtocolError": "the server hung up",
    }
    return plain.get(name, text or name)
