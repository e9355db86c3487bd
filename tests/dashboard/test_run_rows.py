"""The packed rows of all runs: what a script unpacks is what the rows say, and ten thousand runs fit the page."""

from __future__ import annotations

import base64
import dataclasses
import json
import math

import numpy as np
import pytest
from synthetic_study import make_books, make_ranking, make_runs, make_scores, make_variants, write_study

from ltm.dashboard.inputs import Inputs, read_inputs
from ltm.dashboard.run_rows import pack_runs, quantise, titled

LIMIT_BYTES_PER_RUN = 1100  # 10,000 runs have 15 MB: the drawing library takes 1, effects and ranks the rest


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return read_inputs(write_study(tmp_path_factory.mktemp("study"), n_runs=40, n_books=30))


def sequence(packed: dict[str, object], which: int) -> list[int]:
    """Return the book places of one sequence, as the page's script reads them."""
    data = base64.b64decode(packed["data"])
    width, lengths = packed["width"], packed["lengths"]
    start = sum(lengths[:which]) * width
    cut = data[start : start + lengths[which] * width]
    return [int.from_bytes(cut[i : i + width], "little") for i in range(0, len(cut), width)]


def codes(text: str, n_columns: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<u2").reshape(-1, n_columns)


def test_a_run_unpacks_to_its_own_books_scores_and_curve(inputs: Inputs) -> None:
    packed = pack_runs(inputs)
    books = titled(inputs)
    design = {v.variant_id: v for v in inputs.variants}
    measures = {(m.run_id, m.family): m for m in inputs.measures}
    families = packed["scores"]["families"]
    values = codes(packed["scores"]["values"], len(families))
    right = codes(packed["scores"]["accuracies"], len(families))
    losses = codes(packed["curves"]["losses"], len(packed["curves"]["tokens"]))
    by_id = {run.run_id: run for run in inputs.runs}
    assert packed["columns"]["run"] == sorted(by_id)
    for i, run_id in enumerate(packed["columns"]["run"]):
        run, columns = by_id[run_id], packed["columns"]
        variant = design[run.variant_id]
        row = packed["variants"]["columns"]
        at = columns["variant"][i]
        assert row["id"][at] == run.variant_id
        assert packed["variants"]["dictionaries"]["order"][row["order"][at]] == variant.order
        assert packed["dictionaries"]["versions"][columns["versions"][i]] == "ltm 0.1.0; torch 2.13.0"
        places = sequence(packed["sequences"], row["sequence"][at])
        assert [books[p].book_id for p in places] == variant.book_ids
        for k, family in enumerate(families):
            found = packed["scores"]["low"][k] + packed["scores"]["step"][k] * values[i, k]
            assert found == pytest.approx(measures[run_id, family["family"]].value, abs=1e-6)
            assert right[i, k] == 7000
        curve = packed["curves"]
        drawn = curve["low"] + curve["step"] * losses[curve["curve_of"][i]]
        inside = np.interp(curve["tokens"], run.curve_tokens, run.curve_loss)
        assert np.allclose(drawn, inside, atol=2e-4)


def test_what_is_unknown_stays_unknown(inputs: Inputs) -> None:
    first, second, *rest = sorted(inputs.runs, key=lambda r: r.run_id)
    broken = dataclasses.replace(first, variant_id="gone", curve_loss=[], final_loss=math.nan, started_at="then")
    odd = [m if m.run_id != second.run_id else dataclasses.replace(m, value=math.nan) for m in inputs.measures]
    packed = pack_runs(dataclasses.replace(inputs, runs=[broken, second, *rest], measures=odd, ranked=[]))
    columns = packed["columns"]
    assert (columns["variant"][0], columns["loss"][0], columns["started"][0], columns["place"][0]) == (-1,) + (
        None,
    ) * 3
    assert packed["curves"]["curve_of"][0] == -1
    assert packed["curves"]["n"] == len(inputs.runs) - 1
    assert set(codes(packed["scores"]["values"], len(packed["scores"]["families"]))[1]) == {65535}
    json.dumps(packed, allow_nan=False)


def test_books_that_left_the_library_keep_their_place_in_the_sequence(inputs: Inputs) -> None:
    gone = inputs.variants[0].book_ids[1]
    packed = pack_runs(dataclasses.replace(inputs, books=[b for b in inputs.books if b.book_id != gone]))
    assert sequence(packed["sequences"], packed["variants"]["columns"]["sequence"][0])[1] == 255


def test_an_empty_study_packs_to_nothing() -> None:
    packed = pack_runs(Inputs())
    assert (packed["n"], packed["sequences"]["n"], packed["curves"]["n"], packed["contributions"]["values"]) == (
        0,
        0,
        0,
        [],
    )
    assert packed["scores"]["families"] == []


@pytest.mark.parametrize("column", [[1.0, 1.0, 1.0], [math.nan] * 3, [0.0, math.nan, -5.0], [1e9, 1e-9, 0.0]])
def test_steps_are_finer_than_the_eye(column: list[float]) -> None:
    values = np.array(column)[:, None]
    low, step, text = quantise(values)
    found = codes(text, 1)[:, 0].astype(float)
    back = np.where(found == 65535, np.nan, low[0] + step[0] * found)
    spread = np.nanmax(values) - np.nanmin(values) if np.isfinite(values).any() else 1.0
    assert np.array_equal(np.isnan(back), np.isnan(values[:, 0]))
    assert np.nanmax(np.abs(back - values[:, 0]), initial=0.0) <= spread / 60_000 + 1e-6 * abs(low[0])


def test_a_run_of_a_hundred_books_takes_little_room() -> None:
    rng = np.random.default_rng(8)
    books = [dataclasses.replace(book, pool="train") for book in make_books(2000, rng)]
    variants = make_variants(2_500, books, rng)
    variants = [dataclasses.replace(v, book_ids=v.book_ids[:100]) for v in variants]
    runs = [
        dataclasses.replace(r, curve_tokens=[0, 9, 99], curve_loss=[8.0, 5.0, 4.0]) for r in make_runs(variants, rng)
    ]
    measures, reliability = make_scores(runs, variants, rng)
    inputs = Inputs(
        books=books, variants=variants, runs=runs, measures=measures, reliability=reliability,
        ranked=make_ranking(runs, rng),
    )  # fmt: skip
    packed = pack_runs(inputs)
    assert packed["n"] == 2_500
    assert len(json.dumps(packed, separators=(",", ":"))) / packed["n"] < LIMIT_BYTES_PER_RUN
