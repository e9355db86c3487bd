"""An archive holds what it says, nothing it may not hold; and whatever is changed in a study is found."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

import tiny_study
from ltm.errors import InputError
from ltm.progress import Progress
from ltm.records import Variant
from ltm.store import read_json, read_rows, write_json, write_rows
from ltm.study import pack as packing
from ltm.study.archive import opened
from ltm.study.verify import OK, UNKNOWN, WRONG, verify_archive, verify_folder

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_study.finished(tmp_path_factory.mktemp("packed") / "w")


@pytest.fixture
def study(made, tmp_path):
    shutil.copytree(made.work.root, tmp_path / "w")
    return tiny_study.load(tmp_path / "w")


@pytest.fixture(scope="module")
def archive(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "a.zip"
    packing.pack(made.work, path, weights=False, texts="none")
    return path


def verdicts(report):
    return {check.name: check.verdict for check in report.checks}


def changed(archive, path, change):
    """Write a copy of an archive after `change(name, data) -> (name, data) | None` on every file."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            made = change(info.filename, source.read(info))
            if made is not None:
                target.writestr(made[0], made[1])
    return path


def test_the_same_study_gives_the_same_bytes_without_texts_or_paths(made, study, archive, tmp_path):
    again = packing.pack(study.work, tmp_path / "b.zip", weights=False, texts="none")
    assert again.path.read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        data = b"".join(file.read(name) for name in names)
        manifest = json.loads(file.read(packing.MANIFEST))
    assert names[-1] == packing.MANIFEST
    assert set(manifest["files"]) == set(names[:-1])
    assert str(made.work.root).encode() not in data
    assert not any(name.startswith("books/text") or name.endswith((".bin", ".lock")) for name in names)
    assert b"In the beginning" not in data
    assert len(manifest["library"]) == 66
    assert {row["why"] for row in manifest["left_out"]} == {
        "it holds texts of books, which were not asked for (--text allowed|all)"
    }


def test_a_whole_archive_is_fine(archive):
    report = verify_archive(archive, 0, None, QUIET)
    assert report.ok
    found = verdicts(report)
    assert [found[name] for name in ("files", "design", "run ids", "runs")] == [OK] * 4
    assert [found[name] for name in ("left out", "weights", "findings")] == [UNKNOWN] * 3


def test_texts_come_along_when_asked_or_allowed(made, tmp_path):
    everything = packing.pack(made.work, tmp_path / "all.zip", weights=False, texts="all")
    allowed = packing.pack(made.work, tmp_path / "allowed.zip", weights=False, texts="allowed")
    names = zipfile.ZipFile(everything.path).namelist()
    assert "tokens/tokens.bin" in names
    assert sum(name.startswith("books/text/") for name in names) >= 60
    assert zipfile.ZipFile(allowed.path).namelist() == names  # the King James Bible is in the public domain


def test_a_book_with_unclear_rights_stays(study, tmp_path):
    import dataclasses

    from ltm.records import Book

    path = study.work.path("books", "catalogue.parquet")
    books = read_rows(path, Book)
    used = {book for v in read_rows(study.work.path("sets", "variants.parquet"), Variant) for book in v.book_ids}
    closed = next(b for b in books if b.book_id in used)
    write_rows(path, [dataclasses.replace(b, licence="") if b is closed else b for b in books], Book)
    made = packing.pack(study.work, tmp_path / "a.zip", weights=False, texts="allowed")
    names = zipfile.ZipFile(made.path).namelist()
    assert "tokens/tokens.bin" not in names
    assert not any(name.startswith("books/text/") for name in names)
    assert all(closed.title in row["why"] for row in made.left_out)


@pytest.mark.parametrize(
    ("licence", "is_open"),
    [
        ("public domain", True), ("Public Domain in the USA", True), ("CC0 1.0", True), ("CC BY 4.0", True),
        ("CC-BY-SA-4.0", True), ("Creative Commons Attribution 3.0", True), ("общественное достояние", True),
        ("CC BY-NC 4.0", False), ("CC-BY-ND", False), ("cc by-nc-sa 4.0", False), ("", False), ("unknown", False),
        ("All rights reserved", False), ("© 1999 Somebody", False), ("not in the public domain", False),
        ("Creative Commons Attribution-NonCommercial", False), ("CC BY-SA-NC", False),
    ],
)  # fmt: skip
def test_rights(licence, is_open):
    assert packing.is_open(licence) is is_open


def test_nothing_is_overwritten(made, tmp_path):
    path = tmp_path / "a.zip"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        packing.pack(made.work, path, weights=False, texts="none")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["sets/variants.parquet", "runs/jobs.json", "tokens/tokenizer.json", "study.yaml"])
def test_one_flipped_bit_is_found(archive, tmp_path, name):
    def flip(found, data):
        middle = len(data) // 2
        return found, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if found == name else data

    report = verify_archive(changed(archive, tmp_path / "a.zip", flip), 0, None, QUIET)
    assert not report.ok
    assert any(name in line for line in report.checks[0].details)


def test_missing_added_and_renamed_files_are_found(archive, tmp_path):
    report = verify_archive(
        changed(archive, tmp_path / "a.zip", lambda n, d: None if n == "sets/design.json" else (n, d)), 0, None, QUIET
    )
    assert "sets/design.json is missing" in report.checks[0].details
    path = tmp_path / "b.zip"
    shutil.copy(archive, path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../outside.txt", "x")
        file.writestr("runs/more/run.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("ltm.json", "{}")
    details = verify_archive(path, 0, None, QUIET).checks[0].details
    assert any("../outside.txt" in line for line in details)
    assert any("runs/more/run.json is not on the list" in line for line in details)
    assert "ltm.json is there twice" in details


def test_a_list_that_leads_out_or_bursts_is_refused(archive, tmp_path):
    def evil(name, data):
        if name != packing.MANIFEST:
            return name, data
        value = json.loads(data)
        value["files"]["../../evil"] = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
        value["files"]["bomb"] = {"sha256": "0" * 64, "bytes": 10}
        value["id"] = packing.manifest_id(value)
        return name, json.dumps(value).encode()

    path = changed(archive, tmp_path / "a.zip", evil)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../evil", "x")
        file.writestr("bomb", b"0" * 50_000_000)
    with opened(path) as (folder, _, problems):
        assert not (folder.parent.parent / "evil").exists()
        assert not (folder / "bomb").exists()
    assert any("leads out" in line for line in problems)
    assert any(line.startswith("bomb: its hash") for line in problems)


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"no zip at all", b"PK\x05\x06" + b"\0" * 18],
    ids=["empty", "short", "text", "empty zip"],
)
def test_what_is_no_archive_is_said(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError):
        verify_archive(tmp_path / "a.zip", 0, None, QUIET)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "x"}', '{"format": 1}', '{"format": 1, "files": []}'])
def test_a_damaged_list_is_said(tmp_path, text):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(packing.MANIFEST, text)
    with pytest.raises(InputError, match=r"MANIFEST|ltm"):
        verify_archive(tmp_path / "a.zip", 0, None, QUIET)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr(packing.MANIFEST, json.dumps({"format": 99, "files": {}, "ltm": "9"}))
    with pytest.raises(InputError, match="newer ltm"):
        verify_archive(tmp_path / "b.zip", 0, None, QUIET)


def test_an_edited_design_is_found(study):
    import dataclasses

    path = study.work.path("sets", "variants.parquet")
    variants = read_rows(path, Variant)
    variants[0] = dataclasses.replace(variants[0], book_ids=variants[0].book_ids[::-1])
    write_rows(path, variants, Variant)
    assert verdicts(verify_folder(study, 0, QUIET))["design"] == WRONG
    design = study.work.path("sets", "design.json")  # even when the hash is put right
    from ltm.sets.stage import hash_of

    write_json(design, {**read_json(design), "hash": hash_of(variants)})
    assert not verify_folder(study, 0, QUIET).ok


def test_an_edited_queue_or_row_is_found(study):
    path = study.work.path("runs", "jobs.json")
    before = read_json(path)
    write_json(path, {**before, "runs": {**before["runs"], "lr": 0.1}})
    assert verdicts(verify_folder(study, 0, QUIET))["run ids"] == WRONG
    write_json(path, {**before, "jobs": before["jobs"][1:]})
    assert verdicts(verify_folder(study, 0, QUIET))["run ids"] == WRONG
    write_json(path, before)
    assert verify_folder(study, 0, QUIET).ok
    tiny_study.write_run(study, study.jobs()[0], n_tokens=99)
    assert verdicts(verify_folder(study, 0, QUIET))["runs"] == WRONG


def test_a_file_that_was_damaged_in_place_is_found(study):
    path = study.work.path("runs", study.jobs()[0].run_id, "run.json")
    path.write_bytes(path.read_bytes().replace(b"12.5", b"12.6"))
    report = verify_folder(study, 0, QUIET)
    assert report.checks[0].verdict == WRONG
    assert f"runs/{study.jobs()[0].run_id}/run.json" in report.checks[0].details


def test_the_command_line(archive, made, tmp_path):
    def run(*words):
        command = [sys.executable, "-m", "ltm.cli", *words]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False, cwd=tmp_path)

    packed = run("pack", str(made.work.root), "--out", "x/y.zip", "--json")
    assert json.loads(packed.stdout)["path"] == "x/y.zip"
    fine = run("verify", "x/y.zip", "--json")
    assert (fine.returncode, json.loads(fine.stdout)["ok"]) == (0, True)
    assert run("verify", str(made.work.root)).stdout.endswith("fine\n")
    changed(archive, tmp_path / "bad.zip", lambda n, d: (n, d + b" " if n == "ltm.json" else d))
    assert run("verify", "bad.zip").returncode == 1
    for words in (("verify", "nothing.zip"), ("verify", "x/y.zip", "--rerun", "-1"), ("pack", "nothing")):
        wrong = run(*words)
        assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)


@pytest.mark.slow
def test_runs_are_trained_again_to_the_bit_here_and_from_the_archive(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    study = tiny_study.load(tmp_path / "w", **{"sets.count": 4})
    study.run(until="runs", progress=QUIET)
    report = verify_folder(study, 2, QUIET)
    assert verdicts(report)["trained again"] == OK
    assert "2 runs, 2 with the same bits" in report.checks[-1].words
    packed = packing.pack(study.work, tmp_path / "a.zip", weights=True, texts="none")
    elsewhere = verify_archive(packed.path, 1, None, QUIET)
    found = verdicts(elsewhere)
    assert [found[name] for name in ("library", "tokens", "weights", "trained again")] == [OK] * 4
    assert "1 with the same bits" in elsewhere.checks[-1].words
    path = study.work.path("runs", study.jobs()[0].run_id, "weights.safetensors")
    weights = load_file(path)
    name = sorted(weights)[0]
    weights[name] = weights[name] + torch.full_like(weights[name], 1e-6)
    save_file(weights, path)
    assert verdicts(verify_folder(study, 0, QUIET))["weights"] == WRONG
