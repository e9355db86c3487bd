"""The stage on a real tokenizer and micro models with different weights."""

import time

import numpy as np
import pytest
import torch

from ltm.errors import StoreError
from ltm.evalset.bank import bank_fingerprint
from ltm.model.gpt import GPT
from ltm.model.init import init_weights
from ltm.model.section import ModelSection
from ltm.progress import Progress
from ltm.query import query
from ltm.records import Item, Measure, Reliability, Run, Shard, Variant
from ltm.runs import checkpoint, queue
from ltm.runs.section import RunsSection
from ltm.scores import baselines, stage
from ltm.scores.section import ScoresSection
from ltm.sets.section import SetsSection
from ltm.store import WorkFolder, read_rows, write_json, write_rows
from ltm.tokens import tokenizer

SECTION = ScoresSection(untrained=2, min_runs=3, baselines=1)


def bank(n: int) -> list[Item]:
    rng = np.random.default_rng(n)
    words = ["river", "stone", "bread", "house", "road", "king", "ship", "night"]

    def text(k: int) -> str:
        return " ".join(words[i] for i in rng.integers(0, 8, size=k))

    items = []
    for k in range(n):
        cluster = f"book{k % 5}"
        a, b = text(12), text(12)
        items.append(Item(f"L1-{k}", "a", "linking", "L1", "en", cluster, "pair", ["", ""],
                          [f"{a}\n\n{b}", f"{b}\n\n{a}"], k % 2))  # fmt: skip
        items.append(Item(f"F0-{k}", "a", "fluency", "F0", "en", cluster, "bits_per_byte", [""], [text(30)], 0))
    return items


@pytest.fixture
def work(tmp_path):
    work = WorkFolder(tmp_path)
    items = bank(20)
    write_rows(work.path("evalset", "bank_a.parquet"), items, Item)
    made = tokenizer.train([text for item in items for text in item.continuations], 300)
    tokenizer.save(made, work.path("tokens", "tokenizer.json"))
    made_tokens = np.array(made.encode(" ".join(items[0].continuations) * 40), dtype=np.uint16)
    made_tokens.tofile(work.path("tokens", "tokens.bin"))
    write_rows(work.path("tokens", "shards.parquet"), [Shard("b", 0, len(made_tokens), [0])], Shard)
    write_json(work.path("scores", "settings.json"), SECTION.model_dump())
    design = [Variant(f"v{k}", k, "exploration", k, k, "seeds", "base", ["b"], "random", "none", 1.0, 1, 0, [0, 1])
              for k in range(150)]  # fmt: skip
    write_rows(work.path("sets", "variants.parquet"), design, Variant)
    section = ModelSection(size="llama-0.1m")
    queue.write_jobs(
        work, queue.Recipe(SetsSection(books_per_set=1, book_tokens=600), section, RunsSection(device="cpu")), []
    )
    config = section.shape(made.vocab_size)
    for k in range(4):
        model = GPT(config)
        init_weights(model, k)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + k)
        path = work.path("runs", f"r{k}", "weights.safetensors")
        checkpoint.save_weights(path, dict(model.named_parameters()), config)
    return work


def runs(n: int = 4) -> list[Run]:
    return [Run(f"r{k}", f"v{k // 2}", k % 2, "m", 1, 1, 1, 1.0, 1.0, 0.0, "cpu", "float32", 1.0, [], [], "w", "", "")
            for k in range(n)]  # fmt: skip


SIMPLE = ["unigram-1", "ngram-1", "ending-1"]


def score_all(work):
    baselines.choose(work, SECTION, runs())
    for run_id in ["r0", "r1", "r2", "r3", *stage.untrained_ids(SECTION), *SIMPLE]:
        stage.score_run(str(work.root), run_id)


def test_scores_to_reliability_and_the_same_bytes_again(work):
    mark = bank_fingerprint(work, "a")
    ids = [run.run_id for run in runs()]
    assert stage.pending(work, ids, mark) == ids
    score_all(work)
    assert stage.pending(work, ids, mark) == []
    result = stage.condense(SECTION, work, runs(), Progress(quiet=True))
    rows = read_rows(work.path("scores", "measures.parquet"), Measure)
    assert [(row.run_id, row.family) for row in rows[:3]] == [("r0", "L1"), ("r0", "F0"), ("r1", "L1")]
    assert all(np.isfinite([row.value, row.half_1, row.half_2]).all() for row in rows)
    reliability = read_rows(work.path("scores", "reliability.parquet"), Reliability)
    assert {(row.ability, row.family) for row in reliability} == {
        ("linking", "L1"), ("fluency", "F0"), ("linking", "*"), ("fluency", "*"),
    }  # fmt: skip
    before = work.path("scores", "r1.parquet").read_bytes()
    stage.score_run(str(work.root), "r1")
    assert work.path("scores", "r1.parquet").read_bytes() == before
    assert stage.condense(SECTION, work, runs(), Progress(quiet=True)) == result
    told = stage.report(work)
    assert told["n_runs"] == 4
    assert {row["family"] for row in told["items_against_rest"]} == {"L1", "F0"}
    assert all(-1 <= row["median"] <= 1 and 0 <= row["below_zero"] <= 1 for row in told["items_against_rest"])


def test_items_without_contexts_are_not_asked_of_endings(work):
    score_all(work)
    stage.condense(SECTION, work, runs(), Progress(quiet=True))
    rows = {r.family: r for r in read_rows(work.path("scores", "reliability.parquet"), Reliability) if r.family != "*"}
    assert np.isnan([rows["L1"].ending, rows["F0"].ending]).all()
    assert np.isfinite([rows["L1"].ngram, rows["L1"].unigram, rows["F0"].ngram]).all()
    assert 0 <= rows["L1"].ngram <= 1
    assert rows["F0"].ngram > rows["F0"].chance  # words are more than nothing


def test_untrained_model_is_near_a_uniform_one(work):
    score_all(work)
    stage.condense(SECTION, work, runs(), Progress(quiet=True))
    rows = {r.family: r for r in read_rows(work.path("scores", "reliability.parquet"), Reliability) if r.family != "*"}
    assert abs(rows["L1"].chance) < 0.01
    vocabulary = tokenizer.load(work).vocab_size
    assert -rows["F0"].chance < np.log2(vocabulary) * 1.2


def test_cells_without_an_answer_do_not_break_what_reads_them(work):
    cut = Item("L4-0", "a", "linking", "L4", "en", "book0", "pair", ["river stone " * 200] * 2, [" ship", " king"], 0)
    write_rows(work.path("evalset", "bank_a.parquet"), [*bank(20), cut], Item)
    score_all(work)
    result = stage.condense(SECTION, work, runs(), Progress(quiet=True))
    assert stage.condense(SECTION, work, runs(), Progress(quiet=True)) == result
    rows = {row.family: row for row in read_rows(work.path("scores", "measures.parquet"), Measure)}
    assert (rows["L1"].n_items, rows["F0"].n_items, rows["L4"].n_items) == (20, 20, 0)
    judged = {row["family"]: row for row in stage.report(work)["reliability"]}
    assert judged["L4"]["n_items"] == 0
    assert judged["L1"]["accuracy"] is not None
    work.path("scores", "r0.parquet").rename(work.path("scores", "aaaabbbbcccc.parquet"))
    sql = "select count(*), count(*) filter (isnan(logprob)), sum(logprob) filter (not isnan(logprob)) < 0 from scores"
    assert query(work, sql)[1] == [(20 * 3 + 2, 2, True)]
    assert query(work, "select count(*) from scores where not isnan(logprob)")[1] == [(20 * 3,)]


def test_design_that_is_missing_is_told(work):
    score_all(work)
    work.path("sets", "variants.parquet").unlink()
    with pytest.raises(StoreError, match="variants"):
        stage.condense(SECTION, work, runs(), Progress(quiet=True))


def test_changed_bank_is_noticed(work):
    score_all(work)
    write_rows(work.path("evalset", "bank_a.parquet"), bank(21), Item)
    mark = bank_fingerprint(work, "a")
    assert stage.pending(work, ["r0", "r1"], mark) == ["r0", "r1"]
    with pytest.raises(StoreError, match="another bank"):
        stage.condense(SECTION, work, runs(), Progress(quiet=True))
    score_all(work)  # the warm worker must not keep the tokens of the old bank
    assert stage.pending(work, ["r0", "r1"], mark) == []
    stage.condense(SECTION, work, runs(), Progress(quiet=True))


def test_damaged_or_missing_scores_are_pending_and_told(work):
    score_all(work)
    work.path("scores", "r2.parquet").write_bytes(b"PAR1 broken")
    assert stage.pending(work, ["r1", "r2", "r9"], bank_fingerprint(work, "a")) == ["r2", "r9"]
    with pytest.raises(StoreError) as caught:
        stage.condense(SECTION, work, runs(), Progress(quiet=True))
    assert caught.value.hint


def test_condensing_many_runs_is_fast(work):
    score_all(work)
    data = work.path("scores", "r0.parquet").read_bytes()
    many = runs()[:1]  # the simple models are made from it
    for k in range(300):
        work.path("scores", f"m{k}.parquet").write_bytes(data)
        many.append(Run(f"m{k}", f"v{k // 2}", k % 2, *[getattr(runs()[0], n) for n in Run.__dataclass_fields__][3:]))
    started = time.process_time()
    stage.condense(SECTION, work, many, Progress(quiet=True))
    assert time.process_time() - started < 10
