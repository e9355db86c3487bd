"""`why` and `diff`: the id is recomputed, and what changed is named with both values."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import tiny_study
from ltm.errors import InputError
from ltm.progress import Progress
from ltm.runs import queue
from ltm.store import WorkFolder, read_json, write_json
from ltm.study import edits, provenance
from ltm.study.provenance_diff import diff_runs, diff_studies, diff_text
from ltm.study.provenance_why import why, why_text
from ltm.study.targets import find, find_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_study.finished(tmp_path_factory.mktemp("provenance") / "w")


@pytest.fixture
def study(made, tmp_path):
    shutil.copytree(made.work.root, tmp_path / "work" / "w")
    return lambda **changes: tiny_study.load(tmp_path / "work" / "w", **changes)


def edited(study, **changes):
    """Return the study after an accepted edit, its queue laid out anew."""
    new = study(**changes)
    new.run(until="tokens", progress=Progress(quiet=True), accept_changes=True)
    queue.plan_jobs(new.work, new.recipe)
    return new


def test_every_id_is_recomputed_from_what_is_stored(made):
    known = provenance.origins(made.work)
    assert set(known) == {job.run_id for job in made.jobs()}
    assert all(origin.recomputed == run_id for run_id, origin in known.items())


def test_why_names_all_that_the_id_is_made_of(made):
    job = made.jobs()[0]
    value = why(made.work, job.run_id[:8])
    assert value["run_id"] == value["recomputed_id"] == job.run_id
    assert value["made_from"]["runs.lr"] == 0.004
    assert value["made_from"]["init_seed"] == job.init_seed
    assert len(value["books"]) == 5
    assert value["compared_with"] is None
    text = why_text(value)
    assert "the study asks for it" in text
    assert "recomputed: the same" in text
    assert value["books"][0] in text


def test_why_a_run_is_trained_again_names_what_changed(study, made):
    new = edited(study, **{"runs.lr": 0.001, "runs.weight_decay": 0.2})
    for job in new.jobs():
        value = why(new.work, job.run_id)
        assert value["state"] == "waiting"
        assert value["changed"] == ["runs.lr: 0.004 -> 0.001", "runs.weight_decay: 0.1 -> 0.2"]
        old = next(j for j in made.jobs() if j.run_id == value["compared_with"]["run_id"])
        assert (old.variant_id, old.init_seed) == (job.variant_id, job.init_seed)
    assert "it is not" in why_text(value)


def test_why_an_old_run_is_no_longer_used(study, made):
    new = edited(study, **{"sets.book_tokens": 2048})
    value = why(new.work, made.jobs()[3].run_id)
    assert (value["wanted"], value["state"]) == (False, "complete")
    assert "sets.book_tokens: 1024 -> 2048" in value["changed"]
    assert value["recomputed_id"] == value["run_id"]
    text = why_text(value)
    assert "no finding uses it" in text
    assert "in its place the study asks for" in text


def test_a_new_tokenizer_is_named(study, made):
    new = edited(study, **{"tokens.vocab_size": 500})
    changed = why(new.work, new.jobs()[0].run_id)["changed"]
    assert any(line.startswith("tokenizer: ") for line in changed)
    assert any(line.startswith("cuts: ") for line in changed)


def test_a_queue_that_is_older_than_rebuilt_tokens_is_still_explained(study, made):
    new = study(**{"tokens.vocab_size": 500})
    new.run(until="tokens", progress=Progress(quiet=True), accept_changes=True)  # stopped before the runs
    known = provenance.origins(new.work)
    assert all(known[job.run_id].recomputed == job.run_id for job in made.jobs())


def test_an_edited_recipe_is_noticed(study):
    same = study()
    run_id = same.jobs()[0].run_id
    path = same.work.path("runs", "jobs.json")
    value = read_json(path)
    value["runs"]["lr"] = 0.123
    write_json(path, value)
    found = why(same.work, run_id)
    assert found["recomputed_id"] != run_id
    assert "a file was edited" in why_text(found)


def test_a_pending_edit_of_the_file_is_told(study):
    same = study(**{"runs.lr": 0.001})
    edit = edits.look(same.settings, same.document, same.work)
    value = why(same.work, same.jobs()[0].run_id, edit)
    assert value["pending_drops"]
    assert "runs.lr: 0.004 -> 0.001" in "".join(value["pending_edit"])


@pytest.mark.parametrize(
    ("files", "state", "words"),
    [
        ({"failed.json": {"error": "boom\nmore", "attempts": 3}}, "failed", "(3 attempts): boom"),
        ({"heartbeat.json": {"state": "stopped", "step": 5, "n_steps": 20}}, "stopped", "it was stopped (25% done)"),
        ({"checkpoint.safetensors": "x"}, "lost", "goes on from its last checkpoint"),
        ({}, "waiting", "not begun yet"),
    ],
)
def test_why_a_run_is_not_finished(study, files, state, words):
    same = study()
    run_id = same.jobs()[0].run_id
    folder = same.work.path("runs", run_id)
    (folder / "run.json").unlink()
    for name, value in files.items():
        write_json(folder / name, value) if isinstance(value, dict) else (folder / name).write_text(value)
    found = why(same.work, run_id)
    assert found["state"] == state
    assert words in found["reason"]


def test_diff_of_runs_names_books_order_and_gaps(made):
    variants = {v.variant_id: v for v in provenance._variants(made.work).values()}
    jobs = made.jobs()
    by_arm = {(variants[j.variant_id].template, variants[j.variant_id].arm): j for j in jobs}
    whole, gap = by_arm["gaps", "base"], by_arm["gaps", "gap"]
    value = diff_runs((made.work, whole.run_id), (made.work, gap.run_id))
    names = {line.split(":")[0] for line in value["made_from"]}
    assert names == {"variant.density", "variant.gap_kind"}
    other = next(j for j in jobs if variants[j.variant_id].set_id != variants[whole.variant_id].set_id)
    text = diff_text(diff_runs((made.work, whole.run_id), (made.work, other.run_id)))
    left = set(variants[whole.variant_id].book_ids) - set(variants[other.variant_id].book_ids)
    titles = provenance.titles_of(made.work, left)
    assert all(title in text for title in titles.values())
    assert "bits of the weights: differ" in text
    assert diff_runs((made.work, whole.run_id), (made.work, whole.run_id))["made_from"] == []


def test_book_changes_tell_order_from_membership():
    lines = provenance.book_changes(["a", "b", "c", "x"], ["c", "b", "a", "y"], {"x": "Xenia", "a": "Anna"})
    assert lines[:2] == ["1 book left: Xenia", "1 book came: y"]
    assert "0% of pairs stand in the same order; first at place 1: Anna -> c" in lines[2]
    assert provenance.book_changes(["a", "b"], ["a", "b"], {}) == []


def test_diff_of_studies(study, made, tmp_path):
    new = edited(study, **{"runs.lr": 0.001})
    value = diff_studies(made.work, new.work)
    assert value["settings"] == ["runs.lr: 0.004 -> 0.001"]
    assert value["runs"]["common"] == 0
    assert value["design"]["common"] == len({job.variant_id for job in made.jobs()})
    assert diff_studies(made.work, made.work)["settings"] == []
    assert "library: 66 common books" in diff_text(value)


def test_targets(made, study, tmp_path, monkeypatch):
    root = study().work.root
    run_id = made.jobs()[0].run_id
    assert find(str(root)).work.root == root
    assert find_run([str(root / "runs" / run_id)]).run_id == run_id
    assert find_run([str(root), run_id]).run_id == run_id
    monkeypatch.chdir(tmp_path)
    assert find_run([run_id[:6]]).work.root.resolve() == root
    shutil.copytree(root, root.with_name("w2"))
    with pytest.raises(InputError, match="lie in work/w, work/w2"):
        find(run_id)
    for words in (["nothing"], [str(root)], [str(root / "runs" / run_id), "x"]):
        with pytest.raises(InputError):
            find_run(words)
    with pytest.raises(InputError, match="no run in"):
        why(WorkFolder(root), "zzz")
    with pytest.raises(InputError, match="beginning of"):
        provenance.find_run(WorkFolder(root), "a", ["ab", "ac"])


def test_the_command_line(made):
    def answer(*words):
        command = [sys.executable, "-m", "ltm.cli", *words]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)

    root, (one, two) = str(made.work.root), [job.run_id for job in made.jobs()[:2]]
    assert json.loads(answer("why", root, one, "--json").stdout)["run_id"] == one
    assert one in answer("why", f"{root}/runs/{one}").stdout
    assert json.loads(answer("diff", root, one, two, "--json").stdout)["kind"] == "runs"
    assert json.loads(answer("diff", root, root, "--json").stdout)["kind"] == "studies"
    wrong = answer("diff", root, f"{root}/runs/{one}")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
