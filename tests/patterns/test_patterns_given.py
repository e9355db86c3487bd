"""Scores from elsewhere over a stored design: names of runs, bad rows, and planted truth through the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ltm.cli import main
from ltm.errors import DataError, InputError
from ltm.patterns.given import read_scores, table_of
from ltm.patterns.simulate import Planted, simulate


def _csv(tmp_path, lines, name="s.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def variants():
    return simulate(Planted(12, 6, n_single=3, n_seeds=4, n_order=2, n_gaps=2), 1).variants


def _table(tmp_path, variants, rows, jobs=None):
    path = _csv(tmp_path, ["run_id,ability,score", *rows])
    return table_of(read_scores(path), variants, jobs or {}, "s.csv").table


def test_every_name_of_a_run_finds_it(tmp_path, variants):
    two = next(v for v in variants if len(v.init_seeds) == 2)
    one = next(v for v in variants if len(v.init_seeds) == 1)
    jobs = {"aaaa": (two.index, two.init_seeds[0]), "bbbb": (two.index, two.init_seeds[1])}
    names = {
        "stored": (["aaaa", "bbbb"], jobs),
        "repeated": ([two.variant_id, two.variant_id], {}),
        "numbered": ([f"{two.variant_id}/0", f"{two.variant_id}-1"], {}),
        "seeded": ([f"{two.variant_id}:{two.init_seeds[0]}", f"{two.variant_id}_{two.init_seeds[1]}"], {}),
    }
    for runs, known in names.values():
        rows = [f"{name},linking,{i}" for i, name in enumerate(runs)] + [f"{one.variant_id},linking,5"]
        table = _table(tmp_path, variants, rows, known)
        assert sorted(table.scores["linking"]) == [0, 1, 5]
        of_two = [i for i in range(3) if table.variant(i).variant_id == two.variant_id]
        assert [table.scores["linking"][i] for i in of_two] == [0, 1]
    assert set(_table(tmp_path, variants, ["aaaa,linking,1"], jobs).run_ids) == {"aaaa"}


def test_missing_numbers_and_abilities_are_counted_and_nothing_is_made_up(tmp_path, variants):
    ids = [v.variant_id for v in variants]
    rows = [f"{i},linking,{k}" for k, i in enumerate(ids)] + [f"{ids[0]},transfer,nan", f"{ids[1]},transfer,"]
    rows += [f"{ids[2]},transfer,3.5", f"{ids[2]},transfer,3.5", "unknown,linking,1"]
    table = _table(tmp_path, variants, [*rows, f"{ids[0]}/0,linking,0"])
    assert np.isnan(table.scores["transfer"]).sum() == len(ids) - 1
    assert table.abilities["transfer"].constant
    assert table.dropped["scores that are not a number"] == 2
    assert table.dropped["rows that name no run of this design"] == 1
    assert table.dropped["duplicated rows"] == 1


def test_contradicting_rows_name_both_lines(tmp_path, variants):
    run = f"{variants[0].variant_id}/0"
    with pytest.raises(DataError, match="lines 2 and 3 give run"):
        _table(tmp_path, variants, [f"{run},linking,1", f"{run},linking,2"])


def test_a_table_of_another_design_says_how_runs_are_called(tmp_path, variants):
    with pytest.raises(DataError) as error:
        _table(tmp_path, variants, ["x,linking,1"])
    assert variants[0].variant_id in str(error.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["run,ability,score", "a,b,1"], "no column run_id"),
        (["run_id,ability,score", "a,linking,high"], "s.csv:2: `high` is not a number"),
        (["run_id,ability,score", "a,linking"], "s.csv:2: 2 columns"),
        (["run_id,ability,score"], "has no rows"),
        ([""], "no column"),
    ],
)
def test_bad_tables_are_explained(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        read_scores(_csv(tmp_path, lines))


def test_semicolons_tabs_and_a_byte_order_mark_are_read(tmp_path):
    for mark in (";", "\t"):
        path = tmp_path / "s.csv"
        path.write_text(f"\ufeffRun_ID{mark}ability{mark}score\na{mark}linking{mark}1e-3\n", encoding="utf-8")
        assert [(r.run, r.score) for r in read_scores(path)] == [("a", 0.001)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A design over the embedded library, never trained."""
    root = tmp_path_factory.mktemp("given")
    file = root / "study.yaml"
    file.write_text("name: given\nseed: 4\nsets: {count: 150, books_per_set: 20}\n", encoding="utf-8")
    assert main(["sets", str(file), "--work", str(root / "work"), "--quiet", "--json"]) == 0
    return file, root / "work"


def _answer(capsys, study, path, code=0):
    capsys.readouterr()
    file, work = study
    assert main(["patterns", str(file), "--work", str(work), "--scores", str(path), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def _scores(study, tmp_path, effects, seed=0, gaps=0.0, abilities=("linking",)):
    from ltm.records import Variant
    from ltm.store import WorkFolder, read_rows

    variants = read_rows(WorkFolder(study[1]).path("sets", "variants.parquet"), Variant)
    books = sorted({b for v in variants for b in v.book_ids})
    rng = np.random.default_rng(seed)
    rows = ["run_id,ability,score"]
    for ability in abilities:
        for v in variants:
            true = sum(effects.get(books.index(b), 0.0) for b in v.book_ids)
            true += gaps * (v.density < 1 and v.gap_kind != "truncated")
            rows += [
                f"{v.variant_id}/{k},{ability},{10 + true + rng.standard_normal()}" for k in range(len(v.init_seeds))
            ]
    return _csv(tmp_path, rows), books


def test_planted_books_and_gaps_are_found_by_the_command(study, tmp_path, capsys):
    path, books = _scores(study, tmp_path, {i: 1.2 * (-1) ** i for i in range(6)}, gaps=-2.5)
    answer = _answer(capsys, study, path)
    by_name = {(e["kind"], e["name"]): e for e in answer["effects"]}
    for i in range(6):
        effect = by_name["book", books[i]]
        assert effect["estimate"] * (-1) ** i > 0.4
        assert effect["q"] <= 0.1
        assert effect["lfsr"] < 0.1
    assert sum(e["q"] <= 0.1 for e in answer["effects"] if e["kind"] == "book") <= 9
    gap = by_name["gap", "gaps_vs_truncated"]
    assert gap["low"] <= -2.5 <= gap["high"]
    assert answer["top"][0]["run_id"] == answer["variants"][0]["run_id"]
    assert {o["kind"] for o in answer["omnibus"] if o["passed"]} >= {"book", "gap"}
    assert answer["scores"]["unit"] == "score"
    assert answer["abilities"]["linking"]["seed_sd"] == pytest.approx(1.0, rel=0.4)
    again = _answer(capsys, study, path)
    assert again == answer


def test_scores_on_another_scale_give_the_same_claims(study, tmp_path, capsys):
    path, _ = _scores(study, tmp_path, {0: 1.5, 1: -1.5})
    one = _answer(capsys, study, path)
    lines = path.read_text().splitlines()
    scaled = [lines[0]] + [f"{r},{a},{float(s) * 0.01 - 3}" for r, a, s in (line.split(",") for line in lines[1:])]
    two = _answer(capsys, study, _csv(tmp_path, scaled, "scaled.csv"))
    for a, b in zip(one["effects"], two["effects"], strict=True):
        assert b["estimate"] == pytest.approx(0.01 * a["estimate"], abs=1e-6)
        assert (b["name"], b["claimed"]) == (a["name"], a["claimed"])


def test_what_can_still_be_said_of_poor_tables(study, tmp_path, capsys):
    path, _ = _scores(study, tmp_path, {0: 1.0}, abilities=("linking", "transfer"))
    lines = path.read_text().splitlines()
    few = _answer(capsys, study, _csv(tmp_path, lines[:6]))
    assert not [e for e in few["effects"] if e["kind"] == "book"]
    assert any("too few" in note["text"]["en"] for note in few["notes"])
    flat = [line.rsplit(",", 1)[0] + ",7" if ",transfer," in line else line for line in lines]
    constant = _answer(capsys, study, _csv(tmp_path, flat))
    assert {e["ability"] for e in constant["effects"]} == {"linking"}
    assert any("all runs have the same score" in row["text"]["en"] for row in constant["not_told_apart"])
    empty = [line.rsplit(",", 1)[0] + ",nan" for line in lines]
    nothing = _answer(capsys, study, _csv(tmp_path, [lines[0], *empty[1:]]), code=2)
    assert nothing["effects"] == nothing["variants"] == nothing["top"] == []


def test_an_edited_design_gives_no_effect(study, tmp_path, capsys):
    import shutil

    from ltm.records import Variant
    from ltm.store import WorkFolder, read_rows, write_rows

    path, _ = _scores(study, tmp_path, {0: 2.0})
    file, work = study
    copy = tmp_path / "copy"
    shutil.copytree(work, copy)
    where = WorkFolder(copy).path("sets", "variants.parquet")
    rows = read_rows(where, Variant)
    rows[3].book_ids[0], rows[4].book_ids[0] = rows[4].book_ids[0], rows[3].book_ids[0]
    write_rows(where, rows, Variant)
    answer = _answer(capsys, (file, copy), path, code=2)
    assert answer["effects"] == []
    assert any("changed after it was drawn" in note["text"]["en"] for note in answer["notes"])


def _simulate(study, tmp_path, *flags):
    file, work = study
    out = tmp_path / "sim"
    code = main(["simulate", str(file), "--work", str(work), "--out", str(out), "--json", *flags])
    return code, out


def test_simulated_truth_comes_back(study, tmp_path, capsys):
    from ltm.records import Book
    from ltm.store import WorkFolder, read_rows

    books = read_rows(WorkFolder(study[1]).path("books", "catalogue.parquet"), Book)
    feature = next(name for name in ("flesch", "mtld") if name in books[0].features)
    flags = [
        "--books",
        "6",
        "--effect",
        "1.2",
        "--place",
        f"kernel:{feature}=1.5",
        "--gap",
        "*=-4",
        "--order",
        "shuffled=-2",
    ]
    code, out = _simulate(study, tmp_path, *flags, "--seed", "3")
    assert code == 0
    truth = json.loads((out / "truth.json").read_text())
    answer = _answer(capsys, study, out / "scores.csv")
    true = {(e["kind"], e["name"]): e["value"] for e in truth["effects"]}
    found = {(e["kind"], e["name"]): e for e in answer["effects"]}
    inside = [found[key]["low"] <= value <= found[key]["high"] for key, value in true.items() if key in found]
    assert np.mean(inside) >= 0.75
    for key in (("order", f"kernel:{feature}"), ("gap", "gaps_vs_truncated"), ("order", "shuffled_vs_random")):
        assert found[key]["estimate"] * true[key] > 0
        assert abs(found[key]["estimate"]) > 2 * found[key]["se"]
    again = _simulate(study, tmp_path / "again", "--truth", str(out / "truth.json"), "--seed", "3")[1]
    assert (again / "scores.csv").read_bytes() == (out / "scores.csv").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--books", "9999"], "cannot be planted among"),
        (["--feature", "nosuch=1"], "no feature of the books is called nosuch"),
        (["--place", "late:nosuch=1"], "no term of place is called"),
        (["--gap", "scattered"], "is not NAME=EFFECT"),
        (["--truth", "/nowhere.json"], "there is no file"),
    ],
)
def test_a_truth_that_the_design_cannot_have_is_refused(study, tmp_path, capsys, flags, message):
    assert _simulate(study, tmp_path, *flags)[0] == 2
    assert message in capsys.readouterr().err
