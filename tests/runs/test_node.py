"""A machine without the work folder: inputs fetched once, outputs brought home, through memory or a storage address."""

import pytest

from ltm.errors import MissingPartError, StoreError
from ltm.runs.executors import node
from ltm.runs.executors.base import Job
from ltm.runs.executors.node import Inputs, NodeFolder
from ltm.store import WorkFolder


@pytest.fixture
def work(tmp_path):
    folder = WorkFolder(tmp_path / "home")
    for name, text in {
        "sets/variants.parquet": "v", "tokens/tokens.bin": "t" * 1000, "runs/jobs.json": "{}",
        "scores/baselines.json": "{}",
        "runs/a/checkpoint.safetensors": "c", "runs/a/heartbeat.json": "h", "runs/b/checkpoint.safetensors": "other",
        "study.json": "not for nodes",
    }.items():  # fmt: skip
        folder.path(name).parent.mkdir(parents=True, exist_ok=True)
        folder.path(name).write_text(text)
    return folder


@pytest.mark.parametrize("storage", [False, True])
def test_inputs_are_fetched_once_and_again_when_they_change(work, tmp_path, monkeypatch, storage):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(node, "PART_BYTES", 300)
    address = f"file://{tmp_path}/storage"
    sent, brought = [], []

    def send(name, data):
        sent.append(name)
        return node.put(address, name, data) if storage else data

    def bring(part):
        brought.append(part)
        return node.get(part) if storage else part

    inputs, folder = Inputs(work, send), NodeFolder("study", bring)
    assert folder.fetch(inputs.of("a")) == 5
    assert (folder.root / "tokens/tokens.bin").read_text() == "t" * 1000
    assert len([name for name in sent if name.startswith("tokens/tokens.bin")]) == 4
    assert not (folder.root / "runs/b").exists()
    assert not (folder.root / "runs/a/heartbeat.json").exists()
    assert not (folder.root / "study.json").exists()
    before = len(brought)
    assert folder.fetch(inputs.of("a")) == 0
    assert len(brought) == before
    work.path("runs/jobs.json").write_text('{"more": 1}')
    assert NodeFolder("study", bring).fetch(inputs.of("b")) == 2  # another worker of the same machine


def test_what_arrives_damaged_is_refused(work, tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path / "cache"))
    folder = NodeFolder("study", lambda part: part[:-1])
    with pytest.raises(StoreError, match="arrived damaged"):
        folder.fetch(Inputs(work, lambda name, data: data).of("a"))


def test_jobs_move_to_the_node_and_their_files_home(work, tmp_path, monkeypatch):
    monkeypatch.setenv("LTM_CACHE", str(tmp_path / "cache"))
    folder = NodeFolder("study", bytes)
    root = str(work.root)
    here = folder.here(Job("a", (root, "a", 3), log=f"{root}/runs/a/log.txt"), root)
    assert here.arguments == (str(folder.root), "a", 3)
    assert here.log == str(folder.root / "runs/a/log.txt")
    for name in ("runs/a/run.json", "runs/a/weights.safetensors", "runs/b/run.json", "scores/a.parquet"):
        (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.root / name).write_text(name)
    made = list(folder.made("a", {}))
    assert [name for name, _, _ in made] == ["runs/a/weights.safetensors", "scores/a.parquet", "runs/a/run.json"]
    assert list(folder.made("a", {name: stamp for name, stamp, _ in made})) == []
    folder.forget("a")
    assert not (folder.root / "runs/a").exists()
    assert (folder.root / "runs/b/run.json").exists()


def test_a_storage_that_cannot_be_used_is_named():
    with pytest.raises((MissingPartError, StoreError), match=r"runs\.cluster\.storage"):
        node.storage("nosuchthing://bucket/study")
