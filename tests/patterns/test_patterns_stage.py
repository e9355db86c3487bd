"""The stage in a work folder: same bytes for same rows, words for every case, clear errors."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from ltm.errors import DataError, LtmError, StoreError
from ltm.patterns import stage
from ltm.patterns.section import PatternsSection
from ltm.patterns.simulate import Planted, simulate
from ltm.progress import Progress
from ltm.records import Book, Effect, Measure, Ranked, Reliability, Variant
from ltm.store import WorkFolder, as_json, fingerprint, read_rows, write_json, write_rows

SECTION = PatternsSection(redraws=999)
PLANTED = Planted(
    16, 8, n_single=6, n_seeds=6, n_order=12, n_gaps=12, book_effects={3: 4.0}, shuffled=-2.0, less_text=-4.0,
    late_effects={"feature_1": 1.5}, abilities=("linking", "transfer", "fluency"), not_admitted=("transfer",),
)  # fmt: skip


def _write(work, rows):
    write_rows(work.path("books", "catalogue.parquet"), rows.books.values(), Book)
    write_rows(work.path("sets", "variants.parquet"), rows.variants, Variant)
    write_rows(work.path("scores", "measures.parquet"), rows.measures, Measure)
    write_rows(work.path("scores", "reliability.parquet"), rows.reliability, Reliability)
    for run in rows.runs:
        write_json(work.path("runs", run.run_id, "run.json"), as_json(run))


def _build(root, rows, section=SECTION, seed=5):
    work = WorkFolder(root)
    _write(work, rows)
    return work, stage.build(section, work, seed, Progress(quiet=True))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    rows = simulate(PLANTED, 2)
    return (rows, *_build(tmp_path_factory.mktemp("study"), rows))


def test_the_same_rows_in_another_order_give_the_same_bytes(done, tmp_path):
    rows, work, output = done
    turned = dataclasses.replace(
        rows, measures=rows.measures[::-1], variants=rows.variants[::-1], reliability=rows.reliability[::-1]
    )
    other, again = _build(tmp_path / "elsewhere", turned)
    for name in ("findings.json", "effects.parquet", "ranking.parquet"):
        assert work.path("patterns", name).read_bytes() == other.path("patterns", name).read_bytes()
    assert fingerprint(output) == fingerprint(again)
    text = work.path("patterns", "findings.json").read_text()
    assert str(work.root) not in text
    assert not re.search(r"\d{4}-\d\d-\d\d", text)


def test_another_seed_moves_only_the_p_values(done, tmp_path):
    rows, work, _ = done
    other, _ = _build(tmp_path / "s", rows, seed=6)
    a = read_rows(work.path("patterns", "effects.parquet"), Effect)
    b = read_rows(other.path("patterns", "effects.parquet"), Effect)
    assert [(e.name, e.estimate, e.low) for e in a] == [(e.name, e.estimate, e.low) for e in b]
    assert [e.p for e in a] != [e.p for e in b]


def test_report_has_what_the_command_prints(done):
    _, work, _ = done
    report = stage.report(work)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    keys = {"kind", "name", "label", "ability", "estimate", "low", "high", "p", "q", "claimed"}
    assert keys <= report["effects"][0].keys()
    assert [row["place"] for row in report["top"]] == list(range(1, 11))
    assert {"run_id", "variant_id", "posterior", "low", "high"} <= report["top"][0].keys()
    assert report["abilities"]["linking"]["smallest_book_effect"] > 0
    assert 0 < report["abilities"]["linking"]["set_share"] < 1
    ranked = read_rows(work.path("patterns", "ranking.parquet"), Ranked)
    assert len(ranked) == report["n_variants"]
    assert ranked[0].run_id == report["top"][0]["run_id"]


def test_claims_are_exactly_q_at_most_the_level_in_admitted_abilities(done):
    _, work, _ = done
    effects = read_rows(work.path("patterns", "effects.parquet"), Effect)
    assert {e.ability for e in effects} == {"linking", "transfer", "fluency"}
    for e in effects:
        assert e.claimed == (e.ability != "transfer" and e.q <= SECTION.level)
        assert e.low <= e.estimate <= e.high
        if e.ability == "transfer":
            assert e.q == 1.0
    assert any(e.claimed for e in effects)


def test_findings_are_sentences_in_both_languages(done):
    output = done[2]
    by_name = {(f["ability"], f["name"]): f for f in output["findings"]}
    book = by_name["linking", "book00003"]
    assert re.fullmatch(
        r"Linking scenes: sets with “Book 3” score \d\.\d\d seed sd higher than sets without it "
        r"\(90 % interval \d\.\d\d to \d\.\d\d; q [=<] 0\.\d+; 36 sets\)\. It holds in [0-5] of 5 other fits\.",
        book["text"]["en"],
    )
    assert re.fullmatch(
        r"Связывание сцен: у наборов с книгой «Book 3» результат на \d,\d\d σ повторов выше, чем у наборов без неё "
        r"\(90 %-й интервал от \d,\d\d до \d,\d\d; q [=<] 0,\d+; 36 наборов\)\. "
        r"Сохраняется в других расчётах: [0-5] из 5\.",
        book["text"]["ru"],
    )
    assert "shuffled passages” scores" in by_name["linking", "shuffled_vs_random"]["text"]["en"]
    assert "«перемешанные отрывки» даёт результат на" in by_name["linking", "shuffled_vs_random"]["text"]["ru"]
    assert "do better late in the order" in by_name["linking", "late:feature_1"]["text"]["en"]
    assert "полезнее в конце порядка" in by_name["linking", "late:feature_1"]["text"]["ru"]
    bounds = [min(abs(f["low"]), abs(f["high"])) if f["low"] * f["high"] > 0 else 0 for f in output["findings"]]
    assert bounds == sorted(bounds, reverse=True)


def test_what_cannot_be_told_apart_is_said(done):
    output = done[2]
    said = {(n["ability"], n["kind"]): n["text"] for n in output["not_told_apart"]}
    assert "split-half 0.31" in said["transfer", "*"]["en"]
    assert "ничего не утверждается" in said["transfer", "*"]["ru"]
    assert re.match(r"Linking scenes: the other \d+ of 16 books could not be told apart", said["linking", "book"]["en"])
    assert not any(f["ability"] == "transfer" for f in output["findings"])
    assert any("Synthesis of ideas has no scores" in n["text"]["en"] for n in output["notes"])


def test_noise_instead_of_scores_is_answered_with_nothing_found(tmp_path):
    # one of the nine in ten: of 60 such noise studies six claim something, at a level of 0.1
    rows = simulate(Planted(16, 8, n_seeds=8, n_order=8, n_gaps=8), 2)
    _, output = _build(tmp_path, rows)
    assert output["findings"] == []
    texts = [n["text"]["en"] for n in output["not_told_apart"]]
    assert any(re.match(r"Linking scenes: none of 16 books could be told apart", t) for t in texts)


def test_too_few_blocks_are_noted_and_nothing_is_estimated(tmp_path):
    rows = simulate(Planted(12, 6, n_seeds=4, n_order=2, n_gaps=0), 1)
    work, output = _build(tmp_path, rows)
    assert read_rows(work.path("patterns", "effects.parquet"), Effect) == []
    text = " ".join(n["text"]["en"] for n in output["notes"])
    assert "Effects of books (linking scenes): too few sets" in text
    assert "Effects of gaps (linking scenes): too few blocks" in text
    assert len(output["top"]) == 10


@pytest.mark.parametrize(
    "planted",
    [
        Planted(6, 3, n_seeds=0, n_order=1, n_gaps=0),
        Planted(6, 3, n_seeds=0, n_order=0, n_gaps=1),
        Planted(6, 3, n_seeds=1, n_order=0, n_gaps=0),
        Planted(6, 3, n_single=1, n_seeds=0, n_order=0, n_gaps=0),
        Planted(6, 6, n_seeds=12, n_order=6, n_gaps=6),  # every set holds every book
        Planted(6, 1, n_single=20, n_seeds=0, n_order=5, n_gaps=5),
        Planted(6, 3, n_single=20, n_features=0),
    ],
)  # fmt: skip
def test_odd_studies_get_an_answer(tmp_path, planted):
    work, output = _build(tmp_path, simulate(planted, 1))
    fingerprint(output)
    assert stage.report(work)["notes"]


def test_constant_scores_are_said_and_ranked_by_nothing(tmp_path):
    rows = simulate(Planted(8, 4), 1)
    rows = dataclasses.replace(rows, measures=[dataclasses.replace(m, value=0.5) for m in rows.measures])
    _, output = _build(tmp_path, rows)
    assert output["top"] == []
    assert "all runs have the same score" in output["not_told_apart"][0]["text"]["en"]


def test_an_adaptive_round_enters_the_ranking_but_no_p_value(tmp_path):
    rows = simulate(Planted(16, 8, n_single=30), 1)
    late = {v.variant_id for v in rows.variants if v.template == "single" and v.index % 2}
    changed = [
        dataclasses.replace(v, round="adaptive", drawn=False) if v.variant_id in late else v for v in rows.variants
    ]
    work, output = _build(tmp_path, dataclasses.replace(rows, variants=changed))
    books = [e for e in read_rows(work.path("patterns", "effects.parquet"), Effect) if e.kind == "book"]
    assert {e.n for e in books} == {output["n_sets"] - len(late)}
    assert len(read_rows(work.path("patterns", "ranking.parquet"), Ranked)) == output["n_variants"]


def test_without_an_admitted_ability_fluency_ranks(tmp_path):
    planted = Planted(12, 6, abilities=("linking", "fluency"), not_admitted=("linking",))
    _, output = _build(tmp_path, simulate(planted, 1))
    assert output["ranked_by"] == ["fluency"]


def test_missing_and_damaged_input_is_explained(done, tmp_path):
    rows = done[0]
    work = WorkFolder(tmp_path)
    with pytest.raises(StoreError, match="missing"):
        stage.build(SECTION, work, 1, Progress(quiet=True))
    _write(work, dataclasses.replace(rows, runs=[]))
    with pytest.raises(DataError, match="no run has a score"):
        stage.build(SECTION, work, 1, Progress(quiet=True))
    for content in ("{", "[]", '{"run_id": "a", "variant_id": "b", "init_seed": 1}'):
        work.path("runs", "x").mkdir(parents=True, exist_ok=True)
        work.path("runs", "x", "run.json").write_text(content)
        with pytest.raises(LtmError) as caught:
            stage.build(SECTION, work, 1, Progress(quiet=True))
        assert caught.value.hint
    assert not work.path("patterns", "findings.json").exists()


def test_lost_base_runs_leave_the_rest_of_their_blocks_usable(tmp_path):
    rows = simulate(Planted(12, 6, n_gaps=16, less_text=-3.0), 1)
    base = {v.variant_id for v in rows.variants if v.template == "gaps" and v.arm == "base"}
    lost = sorted(r.run_id for r in rows.runs if r.variant_id in base)[:14]
    kept = [r for r in rows.runs if r.run_id not in lost]
    work, output = _build(tmp_path, dataclasses.replace(rows, runs=kept))
    gap = {e.name: e for e in read_rows(work.path("patterns", "effects.parquet"), Effect) if e.kind == "gap"}
    heads = sum(v.gap_kind == "head" for v in rows.variants)
    assert gap["gaps_vs_truncated"].n == 16 - heads
    assert "truncated_vs_full" not in gap
    assert output["dropped"]["planned runs that are missing"] == 14
