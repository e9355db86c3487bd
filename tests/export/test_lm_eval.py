"""Stock lm-evaluation-harness on an exported model and an exported bank, against ltm's own scores, item by item."""

import dataclasses
import json
import math
import os

import numpy as np
import pytest

from ltm.errors import InputError
from ltm.export.hf import export_hf
from ltm.export.lm_eval import GROUP, export_tasks, select
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.section import ModelSection
from ltm.records import Item
from ltm.runs import queue
from ltm.runs.section import RunsSection
from ltm.scores.measures import family_tables
from ltm.scores.score import score_items
from ltm.sets.section import SetsSection
from ltm.store import WorkFolder, write_rows
from ltm.tokens import tokenizer

WORDS = ["river", "stone", "bread", "house", "road", "king", "ship", "night", "Ёлка", "дом", "«да»", "well,"]


def bank(n: int = 6) -> list[Item]:
    rng = np.random.default_rng(5)

    def text(k: int) -> str:
        return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), size=k))

    items = []
    for k in range(n):
        a, b, c = text(9), text(7), text(5)
        options = [" " + text(2) for _ in range(3)]
        yes, no = " " + text(1) + " ship", " " + text(1) + " road"
        make = [
            ("L1", "pair", ["", ""], [f"{a}\n\n{b}", f"{b}\n\n{a}"], k % 2),
            ("L2", "choice", [a] * 3 + ["And so."] * 3, options * 2, k % 3),
            ("L4", "pair", [a, b], [f"\n\n{c}"] * 2, 0),
            ("T2", "contrast", [a, b, a, b], [yes, yes, no, no], 0),
            ("S1", "gain", [b, f"{a}\n\n{b}", f"{c}\n\n{b}"], [f"\n\n{text(6)}"] * 3, 0),
            ("S2", "synergy", [x for x in (f"{a} {b}", a, b, c) for _ in "12"], [yes, no] * 4, 0),
            ("U1", "likelihood", [a] * 3, options, k % 3),
            ("F0", "bits_per_byte", [""], [text(20)], 0),
        ]
        for family, rule, contexts, continuations, gold in make:
            items.append(
                Item(f"{family}-a-{k}", "a", "linking", family, "en", f"b{k}", rule, contexts, continuations, gold)
            )
    return items


def prepare(tmp_path, size: str):
    work = WorkFolder(tmp_path / "work")
    items = bank()
    long = Item("L4-a-long", "a", "linking", "L4", "en", "b0", "pair", ["river " * 300] * 2, [" ship", " road"], 0)
    write_rows(work.path("evalset", "bank_a.parquet"), [*items, long], Item)
    made = tokenizer.train([text for item in items for text in item.continuations + item.contexts], 400)
    tokenizer.save(made, work.path("tokens", "tokenizer.json"))
    section = ModelSection(size=size, parametrization="standard")
    queue.write_jobs(work, queue.Recipe(SetsSection(), section, RunsSection(device="cpu")), [])
    model = GPT(section.shape(made.vocab_size))
    init_weights(model, 1)
    for parameter in model.parameters():
        parameter.data.mul_(2)
    export_hf(model.eval(), made, tmp_path / "model")
    return work, items, made, model


def stock(tmp_path, dtype: str):
    """Return the harness' results and samples."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    args = {"pretrained": str(tmp_path / "model"), "add_bos_token": True, "dtype": dtype, "softmax_dtype": dtype}
    return simple_evaluate(model="hf", model_args=args, tasks=[GROUP], task_manager=manager, batch_size=8,
                           device="cpu", log_samples=True, bootstrap_iters=0)  # fmt: skip


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("lm_eval", reason="pip install 'ltm[evals]'")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


def compare(work, items, made, model, found, rel: float):
    block = model.config.block_size
    rows = score_items(model, made.encode, made.bos_id, items, block)
    lp, nb = np.array([[r[2] for r in rows]]), np.array([[r[3] for r in rows]], dtype=float)
    own = {(r[0], r[1]): r[2] for r in rows}
    for table in family_tables(items, lp, nb):
        samples = found["samples"][f"{GROUP}_{table.family.lower()}"]
        by_id = {sample["doc"]["id"]: sample for sample in samples}
        assert set(by_id) == set(table.items)
        for place, item_id in enumerate(table.items):
            for cell, response in enumerate(by_id[item_id]["resps"]):
                assert own[item_id, cell] == pytest.approx(float(response[0][0]), rel=rel)
            if not np.isnan(table.correct_RI[0, place]):
                assert by_id[item_id]["acc"] == table.correct_RI[0, place]
        result = found["results"][f"{GROUP}_{table.family.lower()}"]
        assert result["bits_per_byte,none"] == pytest.approx(table.gold_bits_per_byte()[0], rel=rel)
        if table.family != "F0":
            assert result["acc,none"] == pytest.approx(table.accuracy()[0], rel=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_the_harness_says_the_same_item_by_item(tmp_path, offline):
    work, items, made, model = prepare(tmp_path, "gpt2-0.5m")
    told = export_tasks(work, tmp_path / "tasks")
    assert sum(told["tasks"].values()) == len(items)
    assert told["left_out"] == {"longer than the block size": 1}
    compare(work, items, made, model.double(), stock(tmp_path, "float64"), 1e-9)


# transformers rounds the norms of Llama and Mistral to float32 whatever the precision is: 1e-9 is for GPT-2 alone
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("size", "dtype"),
    [("llama-0.5m", "float32"), ("llama-0.5m", "float64"), ("mistral-0.5m", "float32"), ("gpt2-0.5m", "float32")],
)
def test_the_harness_agrees_for_other_families_and_in_float32(tmp_path, offline, size, dtype):
    work, items, made, model = prepare(tmp_path, size)
    export_tasks(work, tmp_path / "tasks")
    compare(work, items, made, model.to(getattr(__import__("torch"), dtype)), stock(tmp_path, dtype), 3e-6)


def test_items_that_the_harness_would_read_otherwise_are_left_out_and_counted(tmp_path):
    work, items, made, _ = prepare(tmp_path, "llama-0.1m")
    one = items[2]
    glued = dataclasses.replace(one, item_id="glued", contexts=["the riv", "a riv"], continuations=["er", "er"])
    spaced = dataclasses.replace(one, item_id="spaced", contexts=["the river ", "a river "])
    asked = dataclasses.replace(one, item_id="asked", rule="generate")
    good, left_out = select([one, glued, spaced, asked], made, 128)
    assert [item.item_id for item in good] == [one.item_id]
    assert sum(left_out.values()) == 3
    write_rows(work.path("evalset", "bank_a.parquet"), [asked], Item)
    with pytest.raises(InputError, match="none of the 1 items"):
        export_tasks(work, tmp_path / "tasks")
    assert not (tmp_path / "tasks").exists()
    (tmp_path / "tasks").mkdir()
    write_rows(work.path("evalset", "bank_a.parquet"), [one], Item)
    with pytest.raises(InputError, match="exists"):
        export_tasks(work, tmp_path / "tasks")


def test_the_formulas_of_the_folder_are_those_of_the_scores():
    """The folder's own file needs the harness; its formulas do not."""
    import ast
    from importlib.resources import files

    source = (files("ltm") / "data" / "lm_eval" / "ltm_task.py").read_text("utf-8")
    tree = ast.parse(source)
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.Assign)]
    space: dict = {"math": math}
    exec(compile(ast.Module(wanted, []), "ltm_task", "exec"), space)
    items = bank(4)
    rng = np.random.default_rng(0)
    for item in items:
        n_bytes = [len(text.encode()) for text in item.continuations]
        lp = -rng.exponential(3, len(n_bytes)) * n_bytes
        (table,) = family_tables([item], lp[None], np.array([n_bytes], dtype=float))
        neutral = item.rule == "choice"
        assert space["margin"](item.rule, lp.tolist(), n_bytes, item.gold, neutral) == pytest.approx(table.values()[0])
        if item.rule != "bits_per_byte":
            assert space["correct"](item.rule, lp.tolist(), n_bytes, item.gold, neutral) == table.correct_RI[0, 0]


def test_lines_hold_the_items(tmp_path):
    work, items, _, _ = prepare(tmp_path, "llama-0.5m")
    export_tasks(work, tmp_path / "tasks")
    lines = [json.loads(line) for line in (tmp_path / "tasks" / "ltm_l2.jsonl").read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == [item.item_id for item in items if item.family == "L2"]
    assert all(line["neutral"] for line in lines)


def test_the_command_says_what_was_written_and_knows_no_other_tool(tmp_path, capsys):
    from types import SimpleNamespace

    from ltm.cli.export import write_tasks

    work, items, _, _ = prepare(tmp_path, "llama-0.5m")
    from ltm.model.section import ModelSection

    # before any run is laid out, the study says how long a text its models will read
    work.path("runs", "jobs.json").unlink()
    study = SimpleNamespace(work=work, settings=SimpleNamespace(model=ModelSection(size="llama-0.5m")))
    assert write_tasks(study, ["lm-eval", str(tmp_path / "tasks")], as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["tasks"].values()) == len(items)
    assert "add_bos_token=True" in told["command"]
    with pytest.raises(InputError, match="no such tool"):
        write_tasks(study, ["helm", str(tmp_path / "other")], as_json=False)
