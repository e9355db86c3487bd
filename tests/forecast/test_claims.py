"""Claims are set beside the forecast with what they imply, never clipped; wrong files are answered with file:line."""

from __future__ import annotations

import pytest

from ltm.errors import ConfigError, InputError
from ltm.forecast.claims import COLUMNS, claims_table, judge, read_claims

HEAD = "what,model,gpu,n_gpu,tokens,claimed_low_hours,claimed_high_hours\n"


def _one(tmp_path, line: str):
    path = tmp_path / "claims.csv"
    path.write_text(HEAD + line + "\n")
    return judge(read_claims(str(path))[0])


def test_the_example_holds_both_tables_of_claims():
    judged = [judge(claim) for claim in read_claims("example")]
    assert len(judged) == 8
    for one in judged[:4]:  # 10B tokens in hours: two to four times the peak of the card
        assert one.verdict.startswith("impossible: ")
        assert 1.9 < one.implied_share[0] < one.implied_share[1] < 4.5
    for one in judged[4:]:  # books in half an hour to ten days: a thousandth of the peak
        assert "times too slow" in one.verdict
        assert 0.0005 < one.implied_share[0] <= one.implied_share[1] < 0.002
        assert 400 < one.implied_tokens_per_second[0] <= one.implied_tokens_per_second[1] < 1300


def test_the_implied_share_is_six_flops_per_parameter_and_token(tmp_path):
    one = _one(tmp_path, "x,1.3b,A100,8,1B,1,1")
    parameters = one.claim.asked.shape.parameters
    assert one.implied_share[0] == pytest.approx(6 * parameters * 1e9 / 3600 / (8 * 312e12), rel=1e-6)
    assert one.implied_tokens_per_second == (pytest.approx(1e9 / 3600),) * 2


def test_a_claim_inside_the_forecast_is_plausible(tmp_path):
    hours = _one(tmp_path, "x,125m,RTX 5090,1,10.5B,1,1").forecast_hours
    assert _one(tmp_path, f"x,125m,RTX 5090,1,10.5B,{hours.value},{hours.value}").verdict.startswith("plausible")
    # a published run: GPT-2 124M on 10.5B tokens in 14.5 h
    assert _one(tmp_path, "x,gpt2-125m,RTX 5090,1,10.5B,14.5,14.5").verdict.startswith("plausible")


def test_fast_and_slow_claims_say_by_how_much(tmp_path):
    hours = _one(tmp_path, "x,125m,RTX 5090,1,10B,1,1").forecast_hours
    slow = _one(tmp_path, f"x,125m,RTX 5090,1,10B,{20 * hours.value},{20 * hours.value}")
    assert slow.verdict.startswith("20 times too slow")
    fast = _one(tmp_path, f"x,125m,RTX 5090,1,10B,{0.9 * hours.low},{0.9 * hours.low}")
    assert fast.verdict.startswith("too fast")


def test_every_problem_is_told_with_its_line(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text(HEAD + "x,125m,RTX 9999,1,0,5,3\n,,H100,1,1B,abc,\ngood,125m,H100,1,1B,5,6\n")
    with pytest.raises(ConfigError) as caught:
        read_claims(str(path))
    text = str(caught.value)
    for line, word in (
        (2, "claimed_high_hours 3 is below"),
        (2, "unknown card"),
        (2, "--tokens is 0"),
        (3, "`model` is empty"),
        (3, "abc"),
    ):
        assert any(p.startswith(f"{path}:{line}: ") and word in p for p in caught.value.problems), (line, word)
    assert ":4:" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model,gpu,claimed_low_hour,tokens\n", "nearest: claimed_low_hours"),
        ("model,gpu\n", "`claimed_low_hours` is missing"),
        (HEAD, "no claims below the heading"),
        ("", "is missing"),
        (HEAD + "x,125m,H100,1,1B,5,6,7,8\n", "more cells than columns"),
    ],
)
def test_wrong_files_are_explained(tmp_path, text, words):
    path = tmp_path / "c.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_claims(str(path))


def test_a_missing_file_and_another_encoding_are_explained(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_claims(str(tmp_path / "none.csv"))
    path = tmp_path / "c.csv"
    path.write_bytes(HEAD.encode() + "книга,125m,H100,1,1B,5,6\n".encode("cp1251"))
    with pytest.raises(InputError, match="UTF-8"):
        read_claims(str(path))


def test_semicolons_and_decimal_commas_of_other_locales_are_read(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("\ufeff" + HEAD.replace(",", ";") + "x;125m;H100;1;1B;1,5;2,5\n")
    claim = read_claims(str(path))[0]
    assert (claim.low_hours, claim.high_hours) == (1.5, 2.5)


def test_the_table_carries_numbers_for_files():
    table = claims_table(read_claims("example"))
    assert {c.key for c in table.more} >= {"share_of_peak_low", "implied_tokens_per_s_high"}
    assert all(isinstance(row["share_of_peak_low"], float) for row in table.rows)
    assert "claimed_low_hours" in COLUMNS
