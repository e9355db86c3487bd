"""`ltm export`: runs of a work folder become folders, whole or not at all, and say what they were trained on."""

import json
import subprocess
import sys

import pytest

import ltm.export.hf
from hugging_face import logits, our_config, our_model, quiet_transformers, some_tokens, their_model
from ltm.cli import main
from ltm.errors import InputError, StoreError
from ltm.export.hf import export_hf, whole_folder
from ltm.export.runs import Order, export_runs
from ltm.model.section import ModelSection
from ltm.records import Book, Measure, Run, Variant
from ltm.runs import checkpoint, queue
from ltm.runs.section import RunsSection
from ltm.sets.section import SetsSection
from ltm.store import WorkFolder, as_json, write_json, write_rows
from ltm.tokens import tokenizer as tokens

pytest.importorskip("transformers")
GOOD, WAITING, DROPPED, NEIGHBOUR = "aa01aa01aa01", "bb02bb02bb02", "cc03cc03cc03", "aa09aa09aa09"
TITLES = ["War & <b>Peace</b>", "_Emma_\n# by J\u202eA", "Тихая река"]
HIDDEN = "a secret sentence of the book"


@pytest.fixture
def work(tmp_path):
    """A work folder with two finished runs, one that waits, and one whose weights were not kept."""
    folder = WorkFolder(tmp_path / "work")
    folder.create()
    books = [
        Book(f"b{i}", title, "Somebody", 1900, "ru" if i == 2 else "en", "fiction", "/home/me/x.txt", "", i, "train",
             10, 10, [0])
        for i, title in enumerate(TITLES)
    ]  # fmt: skip
    write_rows(folder.path("books", "catalogue.parquet"), books, Book)
    variant = Variant("v1", 0, "pilot", 0, 0, "order", "base", ["b2", "b0", "b1"], "random", "none", 1.0, 1, 7, [1])
    write_rows(folder.path("sets", "variants.parquet"), [variant], Variant)
    tokenizer = tokens.train([HIDDEN * 50], 280)
    tokens.save(tokenizer, folder.path("tokens", "tokenizer.json"))
    recipe = queue.Recipe(SetsSection(), ModelSection(), RunsSection())
    queue.write_jobs(folder, recipe, [queue.Job(i, 0, 1) for i in (GOOD, WAITING, DROPPED, NEIGHBOUR)])
    model = our_model(our_config(vocab_size=tokenizer.vocab_size))
    for run_id in (GOOD, DROPPED, NEIGHBOUR):
        run = Run(run_id, "v1", 1, "llama-0.1m", 1234, 99, 9, 1.0, 99.0, 0.1, "cpu", "float32", 3.21, [99], [3.21],
                  "secret-host:1", "", "")  # fmt: skip
        write_json(folder.path("runs", run_id, "run.json"), as_json(run))
        if run_id != DROPPED:
            checkpoint.save_weights(
                folder.path("runs", run_id, checkpoint.WEIGHTS), dict(model.named_parameters()), model.config
            )
    return folder


def export(work, *wanted, out=None):
    return export_runs(Order(work, wanted, out, "my_study", "Do *old* books help?"))


def test_a_run_becomes_a_folder_that_transformers_load(work):
    (folder,) = export(work, GOOD).values()
    assert folder == work.path("export", GOOD)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    model, _ = checkpoint.load_model(work, GOOD, "cpu")
    some = some_tokens(model.config.vocab_size)
    assert (logits(their_model(folder), some) - logits(model, some)).abs().max() <= 1e-4
    ids = quiet_transformers().AutoTokenizer.from_pretrained(folder)("secret").input_ids
    assert ids == tokens.load(work).encode("secret")


def test_the_lines_of_the_readme_run(work, tmp_path):
    (folder,) = export(work, GOOD).values()
    readme = (folder / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("In the beginning")


def test_the_readme_says_what_the_model_was_trained_on_and_no_more(work):
    measures = [
        Measure(GOOD, "fluency", "F0", -2.5, float("nan"), 0, 0, 10),
        Measure(GOOD, "linking", "L1", 0.125, 0.75, 0, 0, 12),
        Measure(NEIGHBOUR, "linking", "L1", 9.0, 0.75, 0, 0, 12),
    ]
    write_rows(work.path("scores", "measures.parquet"), measures, Measure)
    (folder,) = export(work, GOOD).values()
    text = (folder / "README.md").read_text(encoding="utf-8")
    titles = ["1. Тихая река", r"2. War \& \<b\>Peace\</b\>", r"3. \_Emma\_ \# by JA"]
    assert [line for line in text.splitlines() if line[:2] in ("1.", "2.", "3.")] == titles
    assert r"Do \*old\* books help?" in text
    assert 'language: ["en", "ru"]' in text
    assert "| linking | L1 | 0.12500 | 0.750 | 12 |" in text
    assert "| fluency | F0 | -2.50000 |  | 10 |" in text
    assert "9.0" not in text
    for hidden in (HIDDEN, "Somebody", "/home/me", "secret-host", str(work.root)):
        assert hidden not in text


def test_without_scores_there_is_no_table(work):
    (folder,) = export(work, GOOD).values()
    assert "## Scores" not in (folder / "README.md").read_text(encoding="utf-8")


def test_several_runs_by_their_beginnings_each_once(work, tmp_path):
    folders = export(work, "aa09", GOOD, "aa01", out=tmp_path / "out")
    assert list(folders) == [NEIGHBOUR, GOOD]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [GOOD, NEIGHBOUR]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("zz", "no run in .* begins with `zz`"),
        ("", "no run in .* begins with ``"),
        ("../runs", "no run in"),
        ("aa", f"`aa` is the beginning of 2 runs: {GOOD}, {NEIGHBOUR}"),
        (WAITING, f"run {WAITING} is waiting: it has no weights"),
        (DROPPED, "its weights were not kept"),
    ],
)
def test_a_run_that_cannot_be_exported_stops_all_before_anything_is_written(work, wanted, reason):
    with pytest.raises(InputError, match=reason) as caught:
        export(work, GOOD, wanted)
    assert caught.value.hint
    assert not work.path("export").exists()


def test_an_existing_folder_is_never_overwritten(work):
    folder = work.path("export", GOOD)
    folder.mkdir(parents=True)
    (folder / "mine").write_text("keep")
    with pytest.raises(InputError, match="exists already"):
        export(work, NEIGHBOUR, GOOD)
    assert (folder / "mine").read_text() == "keep"
    assert not work.path("export", NEIGHBOUR).exists()


def test_damaged_weights_are_said(work):
    path = work.path("runs", GOOD, checkpoint.WEIGHTS)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StoreError, match="damaged"):
        export(work, GOOD)
    assert not work.path("export", GOOD).exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ltm.export.hf, "save_file", full_disk)
    with pytest.raises(StoreError, match="the disk is full"):
        export_hf(our_model(our_config()), None, tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        _stopped_half_way(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def _stopped_half_way(folder):
    with whole_folder(folder) as temporary:
        (temporary / "half").write_text("x")
        raise KeyboardInterrupt


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InputError, match="the tokenizer has .* tokens, the model's vocabulary 300"):
        export_hf(
            our_model(our_config()), tokens.train([HIDDEN * 3, *map(chr, range(300, 2000))], 400), tmp_path / "out"
        )


def test_the_command_line_prints_where_they_lie(work, tmp_path, capsys):
    arguments = ["export", "demo", "aa01", "aa09", "--work", str(work.root)]
    assert main([*arguments, "--out", str(tmp_path / "x"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == [{"run_id": i, "path": str(tmp_path / "x" / i)} for i in (GOOD, NEIGHBOUR)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [str(work.path("export", i)) for i in (GOOD, NEIGHBOUR)]
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", "demo", "ff", "--work", str(work.root)]) == 2
    assert "begins with `ff`" in capsys.readouterr().err
    assert main(["export", "demo", "ff", "--work", str(tmp_path / "nowhere")]) == 1
    assert "jobs.json is missing" in capsys.readouterr().err


def test_a_tuned_model_of_ltms_own_leaves_with_its_template(work):
    from ltm.dialogue.template import template_of

    tuned = work.path("dialogue", GOOD)
    tuned.mkdir(parents=True)
    with pytest.raises(InputError, match="no dialogue layer"):
        export_runs(Order(work, [GOOD], None, "s", "", tuned=True))
    model = our_model(our_config(vocab_size=tokens.load(work).vocab_size), seed=9)
    checkpoint.save_weights(tuned / checkpoint.WEIGHTS, dict(model.named_parameters()), model.config)
    write_json(tuned / "tuned.json", {"n_train": 7, "held_out_before": 3.0, "held_out_after": 2.5})
    (folder,) = export_runs(Order(work, [GOOD], None, "s", "", tuned=True)).values()
    assert folder == work.path("export", f"{GOOD}-tuned")
    some = some_tokens(model.config.vocab_size)
    assert (logits(their_model(folder), some) - logits(model, some)).abs().max() <= 1e-4
    said = [{"role": "user", "content": "secret?"}, {"role": "assistant", "content": "a book."}]
    stock = quiet_transformers().AutoTokenizer.from_pretrained(folder)
    asked = stock.apply_chat_template(said, return_dict=True)["input_ids"]
    assert asked == tokens.load(work).encode_marked(template_of(work).text(said))
    assert asked[0] == asked[-2] == tokens.load(work).bos_id
    assert "tuned on 7 conversations" in (folder / "README.md").read_text(encoding="utf-8")
