"""A study edited half-way: what is kept, what would be lost, and that nothing is written before somebody agrees."""

import hashlib
import shutil

import pytest

import tiny_study
from ltm.errors import InputError
from ltm.progress import Progress
from ltm.study import edits


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    work = tmp_path_factory.mktemp("edited") / "w"
    return tiny_study.finished(work)


@pytest.fixture
def study(made, tmp_path):
    """The finished study in a folder of this test's own."""
    shutil.copytree(made.work.root, tmp_path / "w")

    def load(**changes):
        return tiny_study.load(tmp_path / "w", **changes)

    return load


def snapshot(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in (".lock", ".owner")
    }


def look(study):
    return edits.look(study.settings, study.document, study.work)


def test_the_same_study_changes_nothing(study):
    same = study()
    found = look(same)
    assert (found.changed, found.causes, found.dropped, found.added, found.rescored) == ([], [], [], 0, 0)
    assert found.kept == len(same.jobs())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runs.lr": 0.001}, "runs.lr: 0.004 -> 0.001"),
        ({"model.n_embd": 64}, "model.n_embd: 32 -> 64"),
        ({"tokens.vocab_size": 500}, "tokens.vocab_size: 400 -> 500"),
        ({"sets.book_tokens": 2048}, "sets.book_tokens: 1024 -> 2048"),
        ({"sets.books_per_set": 6}, "sets.books_per_set: 5 -> 6"),
        ({"seed": 2}, "seed: 1 -> 2"),
    ],
)
def test_an_edit_that_loses_runs_is_refused_and_nothing_is_written(study, change, words):
    edited = study(**change)
    before = snapshot(edited.work.root)
    with pytest.raises(InputError) as error:
        edited.run(until="tokens", progress=Progress(quiet=True))
    n_runs = len(edited.jobs())
    assert words in error.value.message
    assert "kept: 0 finished runs" in error.value.message
    assert f"no longer used: {n_runs} finished runs ({n_runs * 12.5:.0f} s" in error.value.message or n_runs > 4
    assert "--accept-changes" in error.value.hint
    assert error.value.exit_code == 2
    assert snapshot(edited.work.root) == before


def test_a_change_that_is_undone_finds_its_runs_again(study):
    edited, progress = study(**{"runs.lr": 0.001}), Progress(quiet=True)
    edited.run(until="tokens", progress=progress, accept_changes=True)
    earlier = list(edited.work.path(edits.EARLIER).iterdir())
    assert {p.name for p in earlier[0].iterdir()} == {"about.json", "jobs.json", "study.json", "variants.parquet"}
    back = study()
    found = look(back)
    assert found.changed
    assert found.kept == len(back.jobs())
    assert not found.loses
    back.run(until="tokens", progress=progress)  # goes on without a word: nothing is lost


@pytest.mark.parametrize(
    "change",
    [
        {"patterns.redraws": 99},
        {"budget.hours": 3},
        {"runs.workers": 2},
        {"runs.retries": 0},
        {"dashboard.language": "ru"},
        {"question": "Why?"},
    ],
)
def test_what_changes_no_result_is_no_edit(study, change):
    found = look(study(**change))
    assert found.changed == []
    assert not found.loses


def test_an_edit_that_only_adds_goes_on(study, made):
    from ltm.runs import queue

    some = study()
    for job in some.jobs()[3:]:
        shutil.rmtree(some.work.path("runs", job.run_id))
    found = look(some)
    assert (found.kept, found.added, found.loses) == (3, len(some.jobs()) - 3, False)
    # runs that were never finished are no loss, whatever changes
    for job in some.jobs()[:3]:
        shutil.rmtree(some.work.path("runs", job.run_id))
    edited = study(**{"runs.lr": 0.001})
    assert not look(edited).loses
    edited.run(until="tokens", progress=Progress(quiet=True))
    assert queue.plan_jobs(edited.work, edited.recipe)[0].run_id != made.jobs()[0].run_id


def test_a_changed_library_is_told_from_changed_settings(study, monkeypatch):
    from ltm.books import stage

    edited = study()
    monkeypatch.setattr(stage, "VERSION", stage.VERSION + 1)
    found = look(edited)
    assert found.causes == ["the library's files, or ltm's way of reading, changed"]
    assert found.added is None
    assert len(found.dropped) == len(edited.jobs())
    assert edited.run(until="books", progress=Progress(quiet=True), accept_changes=True)["built"] == ["books"]


def test_a_setting_that_a_newer_ltm_brought_is_no_edit(study):
    from ltm.store import read_json, write_json

    same = study()
    value = read_json(same.work.path("study.json"))
    del value["runs"]["document_mask"], value["sets"]["common_init"]
    write_json(same.work.path("study.json"), value)
    assert look(same).changed == []


def test_the_place_in_the_file_is_named(made, tmp_path):
    import ltm

    shutil.copytree(made.work.root, tmp_path / "w")
    text = "name: demo\nbooks:\n  source: kjv\nruns:\n  lr: 0.002\n"
    (tmp_path / "s.yaml").write_text(text)
    settings = dict(tiny_study.SETTINGS)
    study = ltm.load(tmp_path / "s.yaml", settings, work=str(tmp_path / "w"))
    found = look(study)
    assert any(line.startswith(f"{tmp_path}/s.yaml:5:3: runs.lr: 0.004 -> 0.002") for line in found.changed)


@pytest.mark.parametrize("name", ["study.json", "runs/jobs.json", "sets/done.json", "sets/variants.parquet"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null"])
def test_damaged_files_are_no_reason_to_stop(study, name, content):
    damaged = study()
    damaged.work.path(*name.split("/")).write_bytes(content)
    assert not look(study()).loses


def test_a_study_in_rounds_is_looked_at_too(tmp_path):
    from ltm.study.verify import verify_folder

    rounds = {"rounds.enabled": True, "sets.count": 400}
    study = tiny_study.finished(tmp_path / "w", n_complete=5, **rounds)
    found = look(study)
    assert (found.changed, found.causes, found.dropped, found.kept) == ([], [], [], 5)
    report = {check.name: check.verdict for check in verify_folder(study, 0, Progress(quiet=True)).checks}
    assert (report["design"], report["run ids"]) == ("ok", "ok")
    edited = tiny_study.load(tmp_path / "w", **rounds, **{"runs.lr": 0.001})
    assert len(look(edited).dropped) == 5


def test_more_sets_keep_every_finished_run(study):
    edited = study(**{"sets.count": 14})
    found = look(edited)
    assert (found.dropped, found.causes, found.loses) == ([], [], False)
    assert found.kept == len(study().jobs())
    assert found.added == sum(len(v.init_seeds) for v in edits.drawn(edited.settings, edited.work)) - found.kept
    before = {job.run_id for job in study().jobs()}
    edited.run(until="tokens", progress=Progress(quiet=True))
    assert before <= {job.run_id for job in tiny_study.lay_out(edited)}
    back = look(study())  # fewer again: the first design as it was
    assert back.kept == len(before)


def test_more_sets_with_another_size_are_drawn_anew_and_it_is_said(study):
    edited = study(**{"sets.count": 14, "sets.books_per_set": 6})
    found = look(edited)
    assert found.kept == 0
    assert any("only added to" in cause for cause in found.causes)
