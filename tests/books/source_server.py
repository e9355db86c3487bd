"""A web server on this machine that behaves like the sources of books do, on good days and on bad ones.

Files are served with lengths, entity tags and ranges. A fault is queued for a path and served once.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Callable[["Handler", bytes], bool]  # True = it answered; False = the file is served after all


class Handler(BaseHTTPRequestHandler):
    """Serves what the server holds."""

    protocol_version = "HTTP/1.1"
    server: SourceServer

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((path, dict(self.headers), time.monotonic()))
        body = self.server.files.get(path)
        faults = self.server.faults[path]
        if faults and faults.popleft()(self, body or b""):
            return
        special = self.server.special.get(path)
        if special is not None:
            special(self)
        elif body is None:
            self.answer(404, b"<html>not found</html>", {"Content-Type": "text/html"})
        else:
            self.serve_file(path, body)

    def serve_file(self, path: str, body: bytes) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range", "")
        condition = self.headers.get("If-Range")
        if wanted.startswith("bytes=") and (condition is None or condition == tag):
            first, _, last = wanted[6:].partition("-")
            start, end = int(first), min(int(last or len(body)), len(body) - 1)
            if start >= len(body):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            self.answer(206, body[start : end + 1], headers)
            return
        self.answer(200, body, headers)

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        if length is not None and length != len(body):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


class SourceServer(ThreadingHTTPServer):
    """The server; `url` is its address."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.special: dict[str, Callable[[Handler], None]] = {}
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.requests: list[tuple[str, dict[str, str], float]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fail(self, path: str, *faults: Fault) -> None:
        self.faults[path].extend(faults)

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of all requests for a path."""
        return [headers for asked, headers, _ in self.requests if asked == path]

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no error."""


@contextmanager
def serving() -> Iterator[SourceServer]:
    server = SourceServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def status(code: int, **headers: str) -> Fault:
    def fault(handler: Handler, _: bytes) -> bool:
        handler.answer(code, b"no", {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def cut(n_bytes: int) -> Fault:
    """Promise the whole (rest of the) file, send so much of it, and hang up."""

    def fault(handler: Handler, body: bytes) -> bool:
        start, headers = 0, {"ETag": f'"{hashlib.sha256(body).hexdigest()[:16]}"'}
        if handler.headers.get("Range", "").startswith("bytes="):
            start = int(handler.headers["Range"][6:].split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start:]
        handler.answer(206 if start else 200, rest[:n_bytes], headers, length=len(rest))
        return True

    return fault


def shorter_than_promised(more: int) -> Fault:
    """Say a length that is too large."""

    def fault(handler: Handler, body: bytes) -> bool:
        handler.answer(200, body, length=len(body) + more)
        return True

    return fault


def other_body(body: bytes, **headers: str) -> Fault:
    def fault(handler: Handler, _: bytes) -> bool:
        handler.answer(200, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def drip(seconds: float) -> Fault:
    """Send a byte now and then, for ever."""

    def fault(handler: Handler, body: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.close_connection = True
        until = time.monotonic() + seconds
        try:
            for byte in body:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(0.02)
                if time.monotonic() > until:
                    break
        except OSError:
            pass
        return True

    return fault


def silence(seconds: float) -> Fault:
    def fault(handler: Handler, _: bytes) -> bool:
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return fault


def redirect(target: str, code: int = 302) -> Fault:
    return status(code, Location=target)


def always(fault: Fault) -> Callable[[Handler], None]:
    return lambda handler: (fault(handler, b""), None)[1]


# --- Project Gutenberg ---


def gutenberg_text(number: int, words: int = 3000) -> bytes:
    body = " ".join(f"word{(number * 31 + i * i) % 997}" for i in range(words))
    text = (
        f"The Project Gutenberg eBook of Book {number}\r\n\r\nTitle: Book {number}\r\n\r\n"
        f"*** START OF THE PROJECT GUTENBERG EBOOK BOOK {number} ***\r\n\r\n{body}\r\n\r\n"
        f"*** END OF THE PROJECT GUTENBERG EBOOK BOOK {number} ***\r\n\r\nlicence\r\n"
    )
    return text.encode()


CATALOGUE_HEADER = "Text#,Type,Issued,Title,Language,Authors,Subjects,LoCC,Bookshelves\n"


def gutenberg(server: SourceServer, books: list[dict[str, Any]]) -> None:
    """Serve a catalogue, RDF files and texts; a book is number, language, and possibly title, authors, downloads..."""
    rows = []
    rdf = io.BytesIO()
    with tarfile.open(fileobj=rdf, mode="w:bz2") as tar:
        for book in books:
            n = book["number"]
            known = {
                "type": "Text",
                "title": f"Book {n}",
                "authors": f"Author{n}, Some, 1800-1870",
                "subjects": "Fiction",
                "rights": "Public domain in the USA.",
                "downloads": 0,
                "place": f"/cache/epub/{n}/pg{n}.txt",
                **book,
            }
            fields = (n, known["type"], "2001-01-01", known["title"], known["language"], known["authors"])
            rows.append(",".join(f'"{field}"' for field in (*fields, known["subjects"], "PS", "Shelf")) + "\n")
            data = rdf_of(known, len(gutenberg_text(n)))
            info = tarfile.TarInfo(f"cache/epub/{n}/pg{n}.rdf")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            if known["type"] == "Text":
                server.files[known["place"]] = gutenberg_text(n)
    server.files["/cache/epub/feeds/pg_catalog.csv.gz"] = gzip.compress((CATALOGUE_HEADER + "".join(rows)).encode())
    server.files["/cache/epub/feeds/rdf-files.tar.bz2"] = rdf.getvalue()


def rdf_of(book: dict[str, Any], text_bytes: int) -> bytes:
    n = book["number"]
    return (
        f'<rdf:RDF><pgterms:ebook rdf:about="ebooks/{n}"><dcterms:rights>{book["rights"]}</dcterms:rights>'
        f'<pgterms:downloads rdf:datatype="http://x#integer">{book["downloads"]}</pgterms:downloads>'
        f'<dcterms:hasFormat><pgterms:file rdf:about="https://www.gutenberg.org/ebooks/{n}.txt.utf-8">'
        f'<dcterms:extent rdf:datatype="x#integer">{text_bytes}</dcterms:extent></pgterms:file></dcterms:hasFormat>'
        "</pgterms:ebook></rdf:RDF>"
    ).encode()


# --- Standard Ebooks ---


def standard_ebooks(server: SourceServer, names: list[str], epub: bytes, member: str = "me@example.org") -> None:
    """Serve an OPDS feed of two pages for members, and a feed of new releases for everyone."""
    import base64

    acquisition = "http://opds-spec.org/acquisition/open-access"

    def link(kind: str, href: str, length: str = "") -> str:
        return f'<link rel="{acquisition}" type="application/{kind}" href="{href}"{length}/>'

    def entries(some: list[str]) -> str:
        return "".join(
            f"<entry><id>{server.url}/ebooks/{name}</id><title>{name.split('/')[1]} &amp; Co</title>"
            f"<author><name>{name.split('/')[0]}</name></author><dcterms:language>en-GB</dcterms:language>"
            f'<category scheme="https://standardebooks.org/vocab/subjects" term="Fiction"/>'
            + link("kepub+zip", "/x.kepub.epub")
            + link("epub+zip", f"/ebooks/{name}/downloads/{name.replace('/', '_')}_advanced.epub")
            + link("epub+zip", f"/ebooks/{name}/downloads/{name.replace('/', '_')}.epub", f' length="{len(epub)}"')
            + "</entry>"
            for name in some
        )

    def page(some: list[str], following: str) -> bytes:
        link = f'<link rel="next" href="{following}"/>' if following else ""
        return (
            '<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom" xmlns:dcterms="http://purl.org/dc/terms/">'
            f"{link}{entries(some)}</feed>"
        ).encode()

    half = (len(names) + 1) // 2
    pages = {"": page(names[:half], "/feeds/opds/all?page=2"), "2": page(names[half:], "")}
    token = "Basic " + base64.b64encode(f"{member}:".encode()).decode()

    def feed(handler: Handler) -> None:
        if handler.headers.get("Authorization") != token:
            handler.answer(401, b"members only", {"WWW-Authenticate": "Basic"})
            return
        number = parse_qs(urlsplit(handler.path).query).get("page", [""])[0]
        handler.answer(200, pages[number], {"Content-Type": "application/atom+xml"})

    server.special["/feeds/opds/all"] = feed
    server.files["/feeds/atom/new-releases"] = page(names[:1], "")
    for name in names:
        server.files[f"/ebooks/{name}/downloads/{name.replace('/', '_')}.epub"] = epub


# --- Hugging Face Hub ---


def hub(
    server: SourceServer,
    name: str,
    files: dict[str, bytes],
    card: dict[str, Any] | None = None,
    token: str = "",
    revision: str = "main",
    page_size: int = 1000,
) -> str:
    """Serve a dataset; returns its commit. Large files lie in a store of their own, as on the Hub."""
    commit = hashlib.sha1(repr(sorted(files)).encode(), usedforsecurity=False).hexdigest()
    guarded = _guarded(token)
    mark = revision
    if revision == "main":
        about = json.dumps({"sha": commit, "cardData": card or {}}).encode()
        server.special[f"/api/datasets/{name}/revision/main"] = guarded(lambda handler: handler.answer(200, about))
        mark = commit
    server.special[f"/api/datasets/{name}/tree/{mark}"] = guarded(_tree(server, files, page_size))
    for path, body in files.items():
        store = f"/store/{hashlib.sha256(body).hexdigest()}"
        server.files[store] = body
        server.special[f"/datasets/{name}/resolve/{mark}/{path}"] = guarded(always(redirect(f"{server.url}{store}")))
    return commit


def _guarded(token: str) -> Callable[[Callable[[Handler], None]], Callable[[Handler], None]]:
    def guard(action: Callable[[Handler], None]) -> Callable[[Handler], None]:
        def answer(handler: Handler) -> None:
            if token and handler.headers.get("Authorization") != f"Bearer {token}":
                handler.answer(401, b'{"error":"Repository not found"}')
            else:
                action(handler)

        return answer

    return guard


def _tree(server: SourceServer, files: dict[str, bytes], page_size: int) -> Callable[[Handler], None]:
    rows = [
        {
            "type": "file",
            "path": path,
            "size": len(body),
            **({"lfs": {"oid": hashlib.sha256(body).hexdigest()}} if path.endswith("parquet") else {}),
        }
        for path, body in sorted(files.items())
    ]

    def tree(handler: Handler) -> None:
        start = int(parse_qs(urlsplit(handler.path).query).get("cursor", ["0"])[0])
        headers = {}
        if start + page_size < len(rows):
            here = urlsplit(handler.path).path
            headers["Link"] = f'<{server.url}{here}?recursive=true&cursor={start + page_size}>; rel="next"'
        handler.answer(200, json.dumps(rows[start : start + page_size]).encode(), headers)

    return tree


def parquet(rows: list[dict[str, Any]], group_rows: int = 1_000_000) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=group_rows)
    return sink.getvalue()
