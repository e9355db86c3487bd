"""Claims from elsewhere beside the forecast: what they imply, and whether that is possible, plausible or far off.

Reads: a CSV file of claims; `data/claims.csv` is the example. A claim is never clipped: one that needs four times the
card's peak says so.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ltm.errors import ConfigError, InputError
from ltm.forecast import answer as answers
from ltm.forecast.question import Asked, Question, ask
from ltm.forecast.render import Amount, Column, Table, single

COLUMNS = ("what", "model", "gpu", "n_gpu", "tokens", "books", "pages", "epochs", "method", "claimed_low_hours",
           "claimed_high_hours", "source")  # fmt: skip
_NEEDED = ("model", "gpu", "claimed_low_hours")
EXAMPLE = "example"
_FLOPS_PER_PARAMETER = {"full": 6.0, "lora": 4.0, "qlora": 4.0}  # adapters spare the gradients of the frozen weights
_FARTHEST_LINE_BYTES = 100_000


@dataclass(frozen=True)
class Claim:
    """Somebody's hours for a training."""

    what: str
    asked: Asked
    low_hours: float
    high_hours: float
    source: str


@dataclass(frozen=True)
class Judged:
    """A claim beside the forecast."""

    claim: Claim
    forecast_hours: Amount
    fixed_hours: float
    implied_tokens_per_second: tuple[float, float]  # of the longest and of the shortest time claimed
    implied_share: tuple[float, float]  # of the nominal dense peak; may be above 1
    verdict: str


def read_claims(path: str) -> list[Claim]:
    """Return the claims of a file; `example` is the one that comes with ltm.

    Raises:
        ConfigError: the file cannot be read as claims; every problem with file:line.
    """
    if path == EXAMPLE:
        text, name = (files("ltm.forecast") / "data" / "claims.csv").read_text(encoding="utf-8"), "claims.csv"
    else:
        text, name = _text(path), path
    lines = text.splitlines()
    separator = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    reader = csv.DictReader(lines, delimiter=separator)
    heads = [head.strip() for head in reader.fieldnames or []]
    reader.fieldnames = heads
    problems = _head_problems(heads, name)
    claims = []
    try:
        for row in [] if problems else reader:
            try:
                claims.append(_claim(row))
            except ConfigError as error:
                problems += [f"{name}:{reader.line_num}: {problem}" for problem in error.problems]
            except InputError as error:
                problems.append(f"{name}:{reader.line_num}: {error.message} ({error.hint})")
    except csv.Error as error:
        problems.append(f"{name}:{reader.line_num}: not CSV: {error}")
    if not problems and not claims:
        problems.append(f"{name}:1: no claims below the heading")
    if problems:
        raise ConfigError(problems, f"columns: {', '.join(COLUMNS)}")
    return claims


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", f"give a CSV file, or `--claim {EXAMPLE}`") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from error


def _head_problems(heads: list[str], name: str) -> list[str]:
    problems = []
    for head in heads:
        if head not in COLUMNS:
            near = difflib.get_close_matches(head, COLUMNS, n=1, cutoff=0.0)[0]
            problems.append(f"{name}:1: unknown column `{head}` (nearest: {near})")
    problems += [f"{name}:1: the column `{need}` is missing" for need in _NEEDED if need not in heads]
    return problems


def _claim(row: Mapping[str, str | None]) -> Claim:
    cells = {key: (row.get(key) or "").strip() or None for key in COLUMNS}
    problems: list[str] = []
    if None in row:
        problems.append("more cells than columns (put text with commas in quotes)")
    problems += [f"`{need}` is empty" for need in _NEEDED if not cells[need]]
    low = _hours(cells["claimed_low_hours"], "claimed_low_hours", problems)
    high = _hours(cells["claimed_high_hours"], "claimed_high_hours", problems) or low
    if high < low:
        problems.append(f"claimed_high_hours {high:g} is below claimed_low_hours {low:g} (exchange them)")
    if not cells["tokens"] and not cells["books"]:
        problems.append("neither `tokens` nor `books` says how much text (fill one)")
    names = ("model", "gpu", "tokens", "books", "pages", "epochs", "method")
    question = Question(gpus=cells["n_gpu"], **{name: cells[name] for name in names})
    asked = None
    try:
        asked = ask(question)
    except ConfigError as error:
        problems += error.problems
    except InputError as error:
        problems.append(f"{error.message} ({error.hint})")
    if problems or asked is None:
        raise ConfigError(problems)
    return Claim(cells["what"] or answers.what_text(asked), asked, low, high, cells["source"] or "")


def _hours(text: str | None, name: str, problems: list[str]) -> float:
    if text is None:
        return 0.0
    try:
        value = float(text.replace(",", ".")) if text.count(",") == 1 and "." not in text else float(text)
    except ValueError:
        problems.append(f"{name} is not a number: {text}")
        return 0.0
    if not 0 < value < 1e9:
        problems.append(f"{name} is {text} (it must be above 0)")
        return 0.0
    return value


def judge(claim: Claim) -> Judged:
    """Return a claim beside the forecast of the same training in its best usual setting."""
    found = answers.answer(claim.asked)
    case, card = claim.asked.case, claim.asked.device
    method = ("full", "lora", "qlora")[int(case.method)]
    flops = _FLOPS_PER_PARAMETER[method] * claim.asked.shape.parameters * claim.asked.tokens
    seconds = (claim.high_hours * 3600, claim.low_hours * 3600)
    shares = tuple(flops / (s * card.peak_flops * case.n_devices) for s in seconds)
    rates = tuple(claim.asked.tokens / s for s in seconds)
    took = answers.hours(found.bill)
    fixed = (sum(found.bill.fixed_seconds.values()) + sum(found.bill.extra_seconds.values())) / 3600
    verdict = _verdict(claim, took, (shares[0], shares[1]), rates[0], found)
    return Judged(claim, took, fixed, (rates[0], rates[1]), (shares[0], shares[1]), verdict)


def _verdict(claim: Claim, took: Amount, shares: tuple[float, float], slowest: float, found: answers.Answer) -> str:
    many = " of all cards" if claim.asked.case.n_devices > 1 else ""
    if shares[0] > 1:
        return f"impossible: {_times(shares[0], shares[1])} times the card's dense peak{many}"
    if shares[1] > 1:
        return f"impossible at its short end: {shares[1]:.1f} times the card's dense peak{many}"
    sustained = found.asked.device.bf16_flops or found.asked.device.fp16_flops or found.asked.device.fp32_flops
    limit = sustained / found.asked.device.peak_flops
    if shares[0] > limit:
        return f"impossible in practice: large products alone reach {limit:.0%} of the peak, this needs {shares[0]:.0%}"
    if claim.high_hours < took.low:
        return f"too fast: {took.value / claim.high_hours:.1f} times faster than forecast"
    if claim.low_hours > took.high:
        whole = (claim.low_hours / took.value, claim.high_hours / took.value)
        text = f"{_times(*whole)} times too slow"
        alone = found.forecast.tokens_per_second / slowest
        if alone > 1.5 * whole[1]:
            text += f", in training alone {_round(alone)} times: start-up and compiling outweigh so little text"
        return text
    inside = took.low <= claim.low_hours and claim.high_hours <= took.high
    return "plausible: " + ("inside the forecast's range" if inside else "its range overlaps the forecast's")


def _times(low: float, high: float) -> str:
    first, last = _round(low), _round(high)
    return first if first == last else f"{first} to {last}"


def _round(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{float(f'{value:.2g}'):,.0f}"


def claims_table(claims: Iterable[Claim]) -> Table:
    """Return claims beside forecasts."""
    columns = (
        Column("claim", "claim"), Column("claimed", "claimed"), Column("forecast_hours", "forecast", "hours"),
        Column("implied", "implied tokens/s"), Column("share_of_peak", "of peak"), Column("verdict", "verdict"),
    )  # fmt: skip
    return Table(
        name="claims",
        title="Claims beside the forecast (90 % range, fixed costs included)",
        columns=columns,
        rows=[_row(judge(claim)) for claim in claims],
        more=(*(Column(name, name, "plain") for name in _NUMBERS), Column("source", "source")),
        notes=(
            "Implied: tokens over the claimed time, and 6 FLOPs per parameter and token over that time and the dense "
            "peak of all cards (4 with adapters). Above 100 % nothing can be that fast.",
        ),
    )


_NUMBERS = ("claimed_low_hours", "claimed_high_hours", "implied_tokens_per_s_low", "implied_tokens_per_s_high",
            "share_of_peak_low", "share_of_peak_high")  # fmt: skip


def _row(judged: Judged) -> dict[str, str | float | int | Amount | None]:
    claim = judged.claim
    low, high = claim.low_hours, claim.high_hours
    shares = judged.implied_share
    numbers = (low, high, *judged.implied_tokens_per_second, *shares)
    return {
        "claim": claim.what,
        "claimed": _span(low, high, "hours"),
        "forecast_hours": judged.forecast_hours,
        "implied": _span(*judged.implied_tokens_per_second, "tokens_per_s"),
        "share_of_peak": _span(*shares, "share"),
        "verdict": judged.verdict,
        "source": claim.source,
        **dict(zip(_NUMBERS, numbers, strict=True)),
    }


def _span(low: float, high: float, kind: str) -> str:
    first, last = single(low, kind), single(high, kind)
    if first == last:
        return first
    unit = last.split(" ")[-1]
    return f"{first.removesuffix(' ' + unit)} to {last}" if first.endswith(" " + unit) else f"{first} to {last}"
