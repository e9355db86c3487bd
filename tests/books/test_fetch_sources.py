"""The real loaders against servers that behave like their sources; what lands in the folder is a library."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from source_server import (
    SourceServer,
    always,
    cut,
    gutenberg_text,
    other_body,
    parquet,
    redirect,
    serving,
    standard_ebooks,
    status,
)
from source_server import gutenberg as serve_gutenberg
from source_server import hub as serve_hub

from ltm.books.fetch import corpus, fetching, gutenberg, hub, plan
from ltm.books.fetch.client import Client, Manners, SourceError
from ltm.books.fetch.mix import read_recipe
from ltm.books.fetch.record import open_record
from ltm.books.folder import list_files
from ltm.books.manifest import read_manifest
from ltm.books.readers import read_file
from ltm.cli import main
from ltm.errors import BusyError, InputError

BOOKS: list[dict[str, Any]] = [
    {"number": n, "language": "ru" if n % 3 == 0 else "en", "downloads": n * 37 % 101} for n in range(5, 25)
] + [
    {"number": 1342, "language": "en", "title": "Pride and Prejudice: a novel", "downloads": 90000,
     "authors": "Austen, Jane, 1775-1817; Brock, C. E., 1870-1938 [Illustrator]", "subjects": "Courtship -- Fiction"},
    {"number": 2000, "language": "en; fr", "rights": "Copyrighted. Read the copyright notice.", "downloads": 99999},
    {"number": 3000, "language": "en", "type": "Sound"},
    {"number": 76, "language": "en", "place": "/7/76/76-8.txt", "authors": "", "title": "Anonymous, \\n a tale"},
]  # fmt: skip
Fetch = Callable[..., int]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SourceServer]:
    with serving() as server:
        for name in ("LTM_GUTENBERG_URL", "LTM_STANDARD_EBOOKS_URL", "HF_ENDPOINT"):
            monkeypatch.setenv(name, server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("LTM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.setattr(plan, "_SPARE_BYTES", 0)
        serve_gutenberg(server, BOOKS)
        yield server


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    def run(*arguments: str, yes: bool = True) -> int:
        extra = ["--yes"] if yes else []
        return main(["books", "fetch", *arguments, "--to", str(tmp_path / "library"), "--rate", "20", *extra])

    return run


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(Manners(requests_per_second=1000.0), sleep=lambda _: None) as client:
        yield client


def manifest(tmp_path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((tmp_path / "library" / "manifest.csv").read_text(encoding="utf-8"))))


# --- Project Gutenberg ---


def test_the_most_read_books_of_a_language_with_their_proof(server, fetch, tmp_path) -> None:
    assert fetch("gutenberg", "--language", "en", "--top", "4") == 0
    rows = manifest(tmp_path)
    read_most = sorted((b for b in BOOKS if "en" in b["language"] and b.get("type") is None and "rights" not in b),
                       key=lambda b: -b.get("downloads", 0))[:4]  # fmt: skip
    assert [row["source"] for row in rows] == [f"gutenberg:{b['number']}" for b in read_most]
    first = rows[0]
    assert (first["title"], first["author"], first["language"]) == ("Pride and Prejudice: a novel", "Jane Austen", "en")
    assert first["licence"] == "Public domain in the USA."
    assert first["url"] == f"{server.url}/cache/epub/1342/pg1342.txt"
    for row in rows:
        data = (tmp_path / "library" / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert str(len(data)) == row["bytes"]


def test_what_was_fetched_is_a_library_that_the_books_stage_reads(server, fetch, tmp_path) -> None:
    fetch("gutenberg", "--language", "ru", "--limit", "3")
    root = tmp_path / "library"
    found = read_manifest(root, None)
    files = list_files(root)
    assert len(files) == 3
    assert all(found.find(file.relative) for file in files)
    assert found.find(files[0].relative)[1]["author"] == "Some Author12"


def test_nothing_is_fetched_twice_and_the_rest_is(server, fetch, tmp_path) -> None:
    fetch("gutenberg", "--language", "ru", "--limit", "2")
    before = len(server.requests)
    fetch("gutenberg", "--language", "ru", "--limit", "4")
    texts = [path for path, _, _ in server.requests[before:] if path.endswith(".txt") and "robots" not in path]
    assert len(texts) == 2
    assert len(manifest(tmp_path)) == 4
    (tmp_path / "library" / manifest(tmp_path)[0]["file"]).write_bytes(b"damaged")
    fetch("gutenberg", "--language", "ru", "--limit", "4")
    assert (tmp_path / "library" / manifest(tmp_path)[0]["file"]).read_bytes().startswith(b"The Project Gutenberg")


def test_texts_are_looked_for_where_they_may_lie_and_on_every_mirror(server, fetch, tmp_path, monkeypatch) -> None:
    with serving() as mirror:
        monkeypatch.setenv("LTM_GUTENBERG_MIRRORS", f"{mirror.url}, {server.url}")
        mirror.files["/1/3/4/1342/1342-0.txt"] = gutenberg_text(1342)
        assert fetch("gutenberg", "--author", "Austen") == 0
        assert manifest(tmp_path)[0]["url"].startswith(mirror.url)
        assert fetch("gutenberg", "--subject", "fiction", "--limit", "30", "--language", "en") == 0
    urls = {row["source"]: row["url"] for row in manifest(tmp_path)}
    assert urls["gutenberg:76"].endswith("/7/76/76-8.txt")
    assert "gutenberg:3000" not in urls


def test_works_in_copyright_are_left_out_unless_asked_for(server, fetch, tmp_path) -> None:
    fetch("gutenberg", "--language", "fr", "--top", "5")
    assert not (tmp_path / "library" / "manifest.csv").exists()
    fetch("gutenberg", "--language", "fr", "--top", "5", "--any-rights")
    assert manifest(tmp_path)[0]["licence"].startswith("Copyrighted")


def test_a_book_that_cannot_be_had_costs_itself_alone(server, fetch, tmp_path, capsys) -> None:
    del server.files["/cache/epub/6/pg6.txt"]
    server.fail("/cache/epub/9/pg9.txt", other_body(b"<!DOCTYPE html><html>Busy</html>"))
    server.files["/cache/epub/12/pg12.txt"] = gutenberg_text(12)[:4000]
    assert fetch("gutenberg", "--language", "ru", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    failed = dict(said["sources"][0]["failed"])
    assert set(failed) == {"gutenberg:6", "gutenberg:9", "gutenberg:12"}
    assert "not found" in failed["gutenberg:6"]
    assert "a web page came in place of" in failed["gutenberg:9"]
    assert "breaks off before its end" in failed["gutenberg:12"]
    names = [path.name for path in (tmp_path / "library" / "gutenberg" / "ru").iterdir()]
    assert len(names) == len(manifest(tmp_path)) == 4
    assert fetch("gutenberg", "--language", "ru", "--json") == 1  # 9 is well again
    assert len(manifest(tmp_path)) == 5


def test_a_source_that_gives_nothing_any_more_ends_the_fetch(server, fetch, tmp_path, capsys) -> None:
    for n in range(9, 25):
        server.special[f"/cache/epub/{n}/pg{n}.txt"] = always(status(500))
    assert fetch("gutenberg", "--language", "ru") == 1
    assert "3 files in a row could not be fetched" in capsys.readouterr().err
    assert [row["source"] for row in manifest(tmp_path)] == ["gutenberg:6"]


def test_a_silent_host_is_not_asked_for_every_spelling_of_a_name(server, fetch, tmp_path) -> None:
    for n in range(9, 25):
        server.special[f"/cache/epub/{n}/pg{n}.txt"] = always(status(500))
    fetch("gutenberg", "--language", "ru")
    assert len(server.asked("/cache/epub/9/pg9.txt")) == 5
    assert server.asked("/0/9/9-0.txt") == []


def test_an_interrupt_keeps_what_came(server, fetch, tmp_path, monkeypatch) -> None:
    original, came = fetching.download, []

    def interrupted(*arguments):
        if len(came) == 2:
            raise KeyboardInterrupt
        came.append(arguments)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "download", interrupted)
        assert fetch("gutenberg", "--language", "ru") == 130
    assert [row["source"] for row in manifest(tmp_path)] == ["gutenberg:6", "gutenberg:9"]
    assert fetch("gutenberg", "--language", "ru") == 0
    assert len(manifest(tmp_path)) == 7


def test_before_anything_is_fetched_it_says_what_it_takes(server, fetch, tmp_path, capsys) -> None:
    assert fetch("gutenberg", "--language", "en", "--top", "3", yes=False) == 0
    out, err = capsys.readouterr()
    assert "3 files to fetch" in out
    assert "KiB" in out
    assert "add --yes to start" in err
    assert not (tmp_path / "library").exists()
    assert not [path for path, _, _ in server.requests if path.endswith(".txt") and "robots" not in path]
    assert fetch("gutenberg", "--language", "en", "--top", "3", "--json", yes=False) == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["files"] == 3


def test_what_the_disk_cannot_hold_is_refused(server, fetch, tmp_path, capsys, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert fetch("gutenberg", "--language", "en", "--top", "3") == 3
    assert "1000 B free; the fetch needs" in capsys.readouterr().err
    assert not (tmp_path / "library").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gutenberg", "--language", "xx"], "has no texts in 'xx'"),
        (["gutenberg", "--author", "Nobody Atall"], "nothing in Project Gutenberg fits"),
        (["gutenberg", "--top", "0"], "greater than or equal to 1"),
        (["gutenburg"], "must be gutenberg, standard-ebooks or hf:OWNER/NAME, not 'gutenburg'"),
        (["mix"], "a mix needs a recipe"),
        (["mix", "nowhere.yaml"], "no such file"),
        (["gutenberg", "recipe.yaml"], "takes no recipe"),
        (["hf:../../etc"], "is no dataset name"),
        (["hf:a/b", "--tokens", "many"], "not a count"),
        (["standard-ebooks", "--feed", "old"], "'all' or 'new-releases'"),
    ],
)
def test_bad_questions_are_explained(server, fetch, capsys, arguments, said) -> None:
    assert fetch(*arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "body", [b"", b"\x1f\x8bnonsense", b"<html>moved</html>", gzip.compress(mtime=0, data=b"a,b\n1,2\n")]
)
def test_a_catalogue_that_is_none_is_noticed(server, fetch, capsys, body) -> None:
    server.files["/cache/epub/feeds/pg_catalog.csv.gz"] = body
    assert fetch("gutenberg", "--language", "en") == 1
    assert "catalogue of Project Gutenberg" in capsys.readouterr().err


def test_damaged_rdf_files_are_noticed_and_fetched_again(server, fetch, capsys, tmp_path) -> None:
    good = server.files["/cache/epub/feeds/rdf-files.tar.bz2"]
    server.files["/cache/epub/feeds/rdf-files.tar.bz2"] = good[: len(good) // 2]
    assert fetch("gutenberg", "--language", "en", "--top", "2") == 1
    assert "RDF files of Project Gutenberg came damaged" in capsys.readouterr().err
    server.files["/cache/epub/feeds/rdf-files.tar.bz2"] = good
    assert fetch("gutenberg", "--language", "en", "--top", "2") == 0


def test_names_are_turned_the_right_way(server) -> None:
    for text, names in {
        "Austen, Jane, 1775-1817": "Jane Austen",
        "Homer, 751? BCE-651? BCE": "Homer",
        "Tolstoy, Leo, graf, 1828-1910; Maude, Aylmer, 1858-1938 [Translator]": "Leo, graf Tolstoy",
        "Wells, H. G. (Herbert George), 1866-1946": "H. G. Wells",
        "Unknown [Editor]": "Unknown",
        "Anonymous": "Anonymous",
        "Saint-Exupéry, Antoine de, 1900-1944": "Antoine de Saint-Exupéry",
        "Engels, Friedrich, 1820-1895; Marx, Karl, 1818-1883": "Friedrich Engels; Karl Marx",
    }.items():
        assert "; ".join(gutenberg._names(text)) == names


def test_two_fetches_into_one_folder_do_not_mix(server, tmp_path) -> None:
    with open_record(tmp_path), pytest.raises(BusyError), open_record(tmp_path):
        pass


def test_a_manifest_of_ones_own_is_kept_and_added_to(server, fetch, tmp_path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "manifest.csv").write_text("file,title,stars\nmine.txt,Mine,5\n", encoding="utf-8")
    fetch("gutenberg", "--language", "ru", "--limit", "1")
    rows = manifest(tmp_path)
    assert (rows[0]["file"], rows[0]["stars"], rows[1]["source"]) == ("mine.txt", "5", "gutenberg:6")
    (library / "manifest.csv").write_text("a;b\n1;2\n", encoding="utf-8")
    assert fetch("gutenberg", "--language", "ru", "--limit", "1") == 2


# --- Standard Ebooks ---


def epub() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("mimetype", "application/epub+zip")
        file.writestr("x", "y" * 5000)
    return buffer.getvalue()


def test_members_get_all_pages_of_the_feed(server, fetch, tmp_path) -> None:
    standard_ebooks(server, ["jane-austen/emma", "leo-tolstoy/anna-karenina", "mark-twain/tom"], epub())
    assert fetch("standard-ebooks", "--user", "me@example.org") == 0
    rows = manifest(tmp_path)
    assert [row["title"] for row in rows] == ["emma & Co", "anna-karenina & Co", "tom & Co"]
    assert rows[0]["author"] == "jane-austen"
    assert rows[0]["language"] == "en"
    assert rows[0]["licence"].startswith("CC0")
    assert rows[0]["file"] == "standard-ebooks/jane-austen_emma.epub"
    assert "advanced" not in rows[0]["url"]


def test_others_are_told_how_and_get_the_new_releases(server, fetch, tmp_path, capsys) -> None:
    standard_ebooks(server, ["jane-austen/emma", "leo-tolstoy/anna"], epub())
    assert fetch("standard-ebooks") == 1
    assert "members of its Patrons Circle only" in capsys.readouterr().err
    assert fetch("standard-ebooks", "--feed", "new-releases") == 0
    assert len(manifest(tmp_path)) == 1


def test_feeds_from_strangers_do_no_harm(server, fetch, tmp_path, capsys) -> None:
    bomb = (
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
        '<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>../../../etc/x</id><title>&a;</title>'
        '<link type="application/epub+zip" href="/e.epub"/></entry></feed>'
    )
    server.files["/feeds/atom/new-releases"] = bomb.encode()
    server.files["/e.epub"] = epub()
    assert fetch("standard-ebooks", "--feed", "new-releases") == 0
    row = manifest(tmp_path)[0]
    assert row["title"] == ""
    assert ".." not in row["file"]
    server.files["/feeds/atom/new-releases"] = b"<html><body>hello"
    assert fetch("standard-ebooks", "--feed", "new-releases") == 1
    assert "is no feed" in capsys.readouterr().err


# --- Hugging Face Hub ---


STORIES = [{"text": f"Once upon a time there was a cat number {n}. " * 12, "id": n} for n in range(900)]


def test_short_rows_are_bound_into_volumes_until_there_is_enough(server, fetch, tmp_path) -> None:
    files = {f"data/train-{k:05d}-of-00003.parquet": parquet(STORIES[k * 300 : k * 300 + 300]) for k in range(3)}
    files |= {"data/validation-00000-of-00001.parquet": parquet(STORIES[:5]), "README.md": b"# card"}
    commit = serve_hub(server, "me/Stories", files, {"license": "mit", "language": ["en"]})
    assert fetch("hf:me/Stories", "--tokens", "60k") == 0
    rows = manifest(tmp_path)
    assert sum(int(row["text_bytes"]) for row in rows) >= 240_000
    assert 1 <= len(rows) < 3
    assert rows[0]["source"].startswith(f"hf:me/Stories@{commit[:12]}/data/train-0000")
    assert rows[0]["licence"] == "mit"
    found = read_file((tmp_path / "library" / rows[0]["file"]).read_bytes(), rows[0]["file"])
    assert found[0].book.title.startswith("Stories train-0000")
    assert found[0].book.language == "en"
    assert "cat number" in found[0].book.text
    assert not (tmp_path / "library" / ".shards").exists()


def test_all_rows_come_once_and_in_order(server, fetch, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(corpus, "_FILE_BYTES", 60_000)
    serve_hub(server, "me/Stories", {"train.parquet": parquet(STORIES)})
    assert fetch("hf:me/Stories", "--form", "documents") == 0
    texts = []
    for row in manifest(tmp_path):
        texts += pq.read_table(tmp_path / "library" / row["file"]).column("text").to_pylist()
    assert texts == [story["text"] for story in STORIES]
    assert len(manifest(tmp_path)) > 5
    before = len(server.requests)
    assert fetch("hf:me/Stories", "--form", "documents") == 0
    assert not [path for path, _, _ in server.requests[before:] if path.startswith("/store")]


def test_more_of_a_dataset_is_added_to_what_is_there(server, fetch, tmp_path) -> None:
    lines = [json.dumps(story) + "\n" for story in STORIES]
    files = {f"train-{k}.jsonl": "".join(lines[k * 90 : k * 90 + 90]).encode() for k in range(10)}
    serve_hub(server, "me/Stories", files)
    fetch("hf:me/Stories", "--tokens", "30k", "--form", "documents")
    few = sum(int(row["text_bytes"]) for row in manifest(tmp_path))
    before = len(server.requests)
    fetch("hf:me/Stories", "--tokens", "60k", "--form", "documents")
    many = sum(int(row["text_bytes"]) for row in manifest(tmp_path))
    assert 119_000 < few < 125_000
    assert 239_000 < many < 245_000
    again = [path for path, _, _ in server.requests[before:] if path.startswith("/store")]
    assert len(again) == 3  # two shards were whole


@pytest.mark.parametrize("gives_parts", [True, False])
def test_of_a_large_table_only_the_wanted_part_is_read(server, fetch, tmp_path, capsys, gives_parts) -> None:
    rng = random.Random(3)
    rows = [{"text": f"{n} " + rng.randbytes(1500).hex(), "more": rng.randbytes(900).hex()} for n in range(2500)]
    body = parquet(rows, group_rows=50)
    serve_hub(server, "me/large", {"train.parquet": body})
    store = f"/store/{hashlib.sha256(body).hexdigest()}"
    if not gives_parts:
        server.special[store] = lambda handler: handler.answer(200, body)
    assert fetch("hf:me/large", "--tokens", "100k", "--form", "documents", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["estimate"]["bytes"] < len(body)
    table = pq.read_table(tmp_path / "library" / manifest(tmp_path)[0]["file"])
    assert table.column("text").to_pylist() == [row["text"] for row in rows[: table.num_rows]]
    assert 400_000 <= said["sources"][0]["bytes"] < 410_000
    ranges = [h["range"][6:].split("-") for h in server.asked(store) if "range" in h]
    read = sum(int(end) - int(start) + 1 for start, end in ranges)
    assert len(ranges) == len(server.asked(store)) if gives_parts else len(server.asked(store)) == 2
    assert read < len(body) / 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("train.jsonl.gz", gzip.compress(b"".join(json.dumps(s).encode() + b"\n" for s in STORIES[:50]))),
        ("poem.txt", b"a line of verse\n" * 500),
    ],
)
def test_other_formats(server, fetch, tmp_path, path, body) -> None:
    serve_hub(server, "me/data", {path: body, "README.txt" if path != "poem.txt" else "x.md": b"not data"})
    assert fetch("hf:me/data", "--form", "documents") == 0
    table = pq.read_table(tmp_path / "library" / manifest(tmp_path)[0]["file"])
    assert table.num_rows == (50 if path != "poem.txt" else 1)


def test_a_dataset_in_other_formats_is_read_as_the_hub_converts_it(server, fetch, tmp_path) -> None:
    serve_hub(server, "me/odd", {"data.arrow": b"x"})
    serve_hub(server, "me/odd", {"default/train/0000.parquet": parquet(STORIES[:20])}, revision="refs/convert/parquet")
    assert fetch("hf:me/odd") == 0
    assert manifest(tmp_path)[0]["books"] == "1"


def test_datasets_behind_a_form_and_their_token(server, fetch, tmp_path, capsys, monkeypatch) -> None:
    serve_hub(server, "me/gated", {"train.parquet": parquet(STORIES[:20])}, token="secret")
    assert fetch("hf:me/gated") == 1
    assert "set HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert fetch("hf:me/gated") == 0
    assert fetch("hf:me/nowhere") == 1
    assert "there is no dataset me/nowhere" in capsys.readouterr().err


def test_splits_subsets_columns_and_pages(server, client) -> None:
    files = {f"{c}/{s}-0000{k}.parquet": b"PAR1" for c in ("en", "ru") for s in ("train", "test") for k in range(3)}
    serve_hub(server, "me/many", files, page_size=5)
    chosen = hub.find_dataset(client, "me/many", "train", "ru")
    assert [file.path for file in chosen.files] == [f"ru/train-0000{k}.parquet" for k in range(3)]
    with pytest.raises(InputError, match="no subset 'de'") as caught:
        hub.find_dataset(client, "me/many", "train", "de")
    assert "en, ru" in caught.value.hint
    with pytest.raises(InputError, match="no split 'validation'"):
        hub.find_dataset(client, "me/many", "validation", "ru")
    serve_hub(server, "me/none", {"a.bin": b"x"})
    with pytest.raises(InputError, match="no Parquet"):
        hub.find_dataset(client, "me/none")


def test_a_wrong_column_and_a_damaged_shard(server, fetch, capsys) -> None:
    serve_hub(server, "me/Stories", {"train.parquet": parquet(STORIES[:20])})
    assert fetch("hf:me/Stories", "--column", "body") == 2
    assert "has no column 'body'" in capsys.readouterr().err
    serve_hub(server, "me/bad", {"train.parquet": b"PAR1 nonsense"})
    assert fetch("hf:me/bad") == 1
    assert "train.parquet is damaged" in capsys.readouterr().err


def test_a_shard_that_is_cut_goes_on_and_one_that_is_wrong_is_refused(server, fetch, tmp_path, capsys) -> None:
    body = parquet(STORIES)
    serve_hub(server, "me/Stories", {"train.parquet": body})
    store = f"/store/{hashlib.sha256(body).hexdigest()}"
    server.fail(store, cut(2000))
    assert fetch("hf:me/Stories") == 0
    assert [h.get("range") for h in server.asked(store)] == [None, "bytes=2000-"]
    serve_hub(server, "me/wrong", {"train.parquet": parquet(STORIES[:50])})
    place = hashlib.sha256(parquet(STORIES[:50])).hexdigest()
    server.files[f"/store/{place}"] = parquet(STORIES[:51])
    assert fetch("hf:me/wrong") == 1
    assert "should have" in capsys.readouterr().err


def test_redirects_between_mirrors_end(server, client, tmp_path) -> None:
    server.special["/a"] = always(redirect("/a"))
    with pytest.raises(SourceError, match="in circles"):
        client.get(f"{server.url}/a")


# --- a mix ---


RECIPE = """
tokens: 120k
seed: 4
sources:
  - source: hf:me/Stories
    weight: 3
  - source: hf:me/code
    column: content
    weight: 1
  - source: gutenberg
    language: en
    weight: 2
"""


def test_a_mix_keeps_its_weights(server, fetch, tmp_path, capsys) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    serve_hub(server, "me/Stories", {f"train-{k}.parquet": parquet(STORIES[k * 300 : k * 300 + 300]) for k in range(3)})
    code = [{"content": f"def f{n}(x):\n    return x + {n}\n" * 30, "path": f"a{n}.py"} for n in range(400)]
    serve_hub(server, "me/code", {"data/train-0.parquet": parquet(code)}, {"license": "apache-2.0"})
    assert fetch("mix", str(tmp_path / "recipe.yaml"), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    shares = {part["source"]: part["bytes"] / 480_000 for part in said["sources"]}
    assert shares["hf:me/Stories"] == pytest.approx(3 / 6, abs=0.03)
    assert shares["hf:me/code"] == pytest.approx(1 / 6, abs=0.03)
    assert shares["gutenberg"] == pytest.approx(2 / 6, abs=0.06)
    stored = json.loads((tmp_path / "library" / "mix.json").read_text())
    assert stored["sources"][1]["licence"] == "apache-2.0"
    before = (tmp_path / "library" / "manifest.csv").read_bytes()
    assert fetch("mix", str(tmp_path / "recipe.yaml")) == 0
    assert (tmp_path / "library" / "manifest.csv").read_bytes() == before


def test_a_source_that_has_too_little_is_named(server, fetch, tmp_path, capsys) -> None:
    (tmp_path / "recipe.yaml").write_text("tokens: 1M\nsources:\n  - source: hf:me/Stories\n")
    serve_hub(server, "me/Stories", {"train.parquet": parquet(STORIES[:300])})
    assert fetch("mix", str(tmp_path / "recipe.yaml")) == 0
    assert "of what was wanted: the source has no more" in capsys.readouterr().out


def test_everything_wrong_with_a_recipe_is_said_with_its_line(server, fetch, tmp_path, capsys) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("tokens: lots\nsources:\n  - source: gutenburg\n    wieght: 2\n")
    assert fetch("mix", str(path)) == 2
    said = capsys.readouterr().err
    assert f"{path}:1:1: `tokens`" in said
    assert f"{path}:3:5: `sources.0.source` must be gutenberg" in said
    assert f"{path}:4:5: unknown key `sources.0.wieght`; did you mean `weight`?" in said


def test_the_recipe_in_the_docs_is_one(tmp_path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "fetch.md").read_text(encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    recipe = read_recipe(path)
    assert recipe.tokens == 10_000_000_000
    assert sum(recipe.share_bytes(part) for part in recipe.sources) == pytest.approx(40e9, rel=1e-6)
