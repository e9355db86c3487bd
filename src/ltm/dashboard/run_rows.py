"""The rows of all runs, packed by column: what the leaderboard, the page of one run and a comparison are made of.

Reads: Run, Variant, Measure, Reliability, Ranked, Effect, Shard and Book rows. Writes: nothing; the result is a part of
the page's JSON. Ten thousand runs of a hundred books are a million entries: a sequence of books is stored once however
many variants read it, as places in the page's list of titles; words are places in dictionaries; scores and curves are
16-bit steps of their range (65535 = unknown), in base64.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltm.dashboard import curves
from ltm.dashboard.effect_units import units
from ltm.dashboard.figures import ability_order
from ltm.dashboard.inputs import Inputs, number
from ltm.records import Book, Measure, Reliability, Run, Variant
from ltm.units import format_bytes

UNKNOWN = 0xFFFF
_STEPS = UNKNOWN - 1
_ACCURACY_STEPS = 10_000
_Z90 = 1.6449
_FINE_CURVES = 2000  # runs up to which every curve keeps all its points
_FEWER_POINTS = 24
_VARIANT_WORDS = ("round", "template", "arm", "order", "gap_kind", "law", "recipe")
_RUN_WORDS: dict[str, Callable[[Run], str]] = {
    "model": lambda run: run.model,
    "device": lambda run: run.device,
    "dtype": lambda run: run.dtype,
    "worker": lambda run: run.worker,
    "recipe": lambda run: run.recipe,
    "versions": lambda run: listed(run.versions),
    "hardware": lambda run: listed(run.hardware),
}


def titled(inputs: Inputs) -> list[Book]:
    """Return the books that stand in some variant, in the library's order: the page's list of titles."""
    used = {book_id for variant in inputs.variants for book_id in variant.book_ids}
    return sorted((book for book in inputs.books if book.book_id in used), key=lambda b: (b.rank, b.book_id))


def listed(values: dict[str, str]) -> str:
    """Return `name value; name value`, in the order of the names.

    >>> listed({"torch": "2.9", "ltm": "0.1"})
    'ltm 0.1; torch 2.9'
    """
    shown = {name: value for name, value in values.items() if name != "memory_bytes"}
    if values.get("memory_bytes", "").isdecimal():
        shown["memory"] = format_bytes(int(values["memory_bytes"]))
    return "; ".join(f"{name} {value}" for name, value in sorted(shown.items()))


def pack_runs(inputs: Inputs) -> dict[str, Any]:
    """Return everything that is known of single runs, by column; see the module for how numbers are stored."""
    runs = sorted(inputs.runs, key=lambda run: run.run_id)
    books = titled(inputs)
    place = {book.book_id: i for i, book in enumerate(books)}
    sequences = _Sequences(place)
    variants = _variants(inputs.variants, sequences)
    return {
        "n": len(runs),
        **_runs(runs, inputs),
        "variants": variants,
        "sequences": sequences.packed(),
        "books": {"tokens": _stored_tokens(inputs, books), "words": [book.n_words for book in books]},
        "contributions": _contributions(inputs, place),
        "units": units(inputs),
        "scores": _scores(runs, inputs.measures, inputs.reliability),
        "curves": _curves(runs),
    }


class _Codes:
    """A dictionary of words and the place of each value in it."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    def codes(self, values: Iterable[str]) -> list[int]:
        return [self.words.setdefault(value, len(self.words)) for value in values]


class _Sequences:
    """Books in training order, each different sequence once, as places in the list of titles."""

    def __init__(self, place: dict[str, int]) -> None:
        self.place = place
        self.width = 1 if len(place) < 255 else 2 if len(place) < 65_535 else 3
        self.found: dict[bytes, int] = {}

    def add(self, book_ids: Sequence[str]) -> int:
        missing = 256**self.width - 1
        packed = b"".join(self.place.get(b, missing).to_bytes(self.width, "little") for b in book_ids)
        return self.found.setdefault(packed, len(self.found))

    def packed(self) -> dict[str, Any]:
        lengths = [len(one) // self.width for one in self.found]
        data = base64.b64encode(b"".join(self.found)).decode()
        return {"n": len(lengths), "width": self.width, "lengths": lengths, "data": data}


def _variants(variants: Sequence[Variant], sequences: _Sequences) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {
        "id": [v.variant_id for v in variants],
        "block": [v.block for v in variants],
        "set": [v.set_id for v in variants],
        "spacing": [v.spacing for v in variants],
        "sequence": [sequences.add(v.book_ids) for v in variants],
        "density": [_short(v.density) for v in variants],
        "drawn": [int(v.drawn) for v in variants],
        "aside": [int(v.aside) for v in variants],
    }
    dictionaries = {}
    for name in _VARIANT_WORDS:
        codes = _Codes()
        columns[name] = codes.codes(str(getattr(v, name)) for v in variants)
        dictionaries[name] = list(codes.words)
    return {"n": len(variants), "columns": columns, "dictionaries": dictionaries}


def _runs(runs: Sequence[Run], inputs: Inputs) -> dict[str, Any]:
    at = {variant.variant_id: i for i, variant in enumerate(inputs.variants)}
    columns: dict[str, list[Any]] = {
        "run": [run.run_id for run in runs],
        "variant": [at.get(run.variant_id, -1) for run in runs],
        "seed": [run.init_seed for run in runs],
        "params": [run.n_params for run in runs],
        "tokens": [run.n_tokens for run in runs],
        "steps": [run.n_steps for run in runs],
        "micro_batch": [run.micro_batch_tokens for run in runs],
        "seconds": [_short(run.seconds) for run in runs],
        "rate": [_short(run.tokens_per_second) for run in runs],
        "mfu": [_short(run.mfu) for run in runs],
        "loss": [_short(run.final_loss) for run in runs],
        "started": [_moment(run.started_at) for run in runs],
        "finished": [_moment(run.finished_at) for run in runs],
        "weights": [run.weights_sha256[:16] for run in runs],
        "cuts": [run.cuts for run in runs],
        "compiled": [int(run.compiled) for run in runs],
    }
    dictionaries = {}
    for name, word in _RUN_WORDS.items():
        codes = _Codes()
        columns[name] = codes.codes(word(run) for run in runs)
        dictionaries[name] = list(codes.words)
    recipes = [flat(inputs.recipes.get(name, {})) for name in dictionaries["recipe"]]
    ranked = {row.variant_id: row for row in inputs.ranked}
    rows = [ranked.get(run.variant_id) for run in runs]
    columns["place"] = [row.place if row else None for row in rows]
    for name in ("posterior", "low", "high", "raw"):
        columns[name] = [_short(getattr(row, name)) if row else None for row in rows]
    columns["tied"] = [int(row.tied_with_best) if row else None for row in rows]
    abilities = sorted({name for row in inputs.ranked for name in row.abilities}, key=ability_order)
    by_ability = {name: [_short(row.abilities.get(name)) if row else None for row in rows] for name in abilities}
    return {"columns": columns, "dictionaries": dictionaries, "recipes": recipes, "by_ability": by_ability}


def flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return what runs are made from by name as in the study file, values as text.

    >>> flat({"runs": {"lr": 0.004, "compile": True}, "version": 3, "seal": "x"})
    {'runs.lr': '0.004', 'runs.compile': 'true', 'training code': '3'}
    """
    found: dict[str, str] = {}
    for key, value in recipe.items():
        name = f"{prefix}{'training code' if key == 'version' and not prefix else key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif name != "seal":
            told = {None: "(none)", True: "true", False: "false"}
            found[name] = told[value] if value is None or isinstance(value, bool) else str(value)
    return found


def _short(value: Any) -> float | None:
    found = number(value)
    return None if found is None else float(f"{found:.5g}")


def _moment(text: str) -> int | None:
    """Return seconds since 1970 (UTC) of an ISO 8601 moment; None for anything else.

    >>> _moment("1970-01-02T00:00:00+00:00"), _moment("yesterday")
    (86400, None)
    """
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return round((found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp())


def _stored_tokens(inputs: Inputs, books: Sequence[Book]) -> list[int | None]:
    tokens = {shard.book_id: shard.n_tokens for shard in inputs.shards}
    return [tokens.get(book.book_id) for book in books]


def _contributions(inputs: Inputs, place: dict[str, int]) -> dict[str, Any]:
    """Return what each book's presence is expected to add to each ability (shrunken effects), by title."""
    mine = [effect for effect in inputs.effects if effect.kind == "book" and effect.name in place]
    abilities = sorted({effect.ability for effect in mine}, key=ability_order)
    values: dict[str, list[float | None]] = {name: [None] * len(place) for name in abilities}
    for effect in mine:
        values[effect.ability][place[effect.name]] = _short(effect.shrunk)
    return {"abilities": abilities, "values": [values[name] for name in abilities]}


def _scores(runs: Sequence[Run], measures: Iterable[Measure], reliability: Iterable[Reliability]) -> dict[str, Any]:
    """Return the scores of every run in every item family, and what a family's scores can be trusted for."""
    at = {run.run_id: i for i, run in enumerate(runs)}
    rows = [m for m in measures if m.run_id in at]
    keys = sorted({(m.ability, m.family) for m in rows}, key=lambda key: (ability_order(key[0]), key[1]))
    column = {key: i for i, key in enumerate(keys)}
    value = np.full((len(runs), len(keys)), np.nan)
    accuracy = np.full((len(runs), len(keys)), np.nan)
    for m in rows:
        value[at[m.run_id], column[m.ability, m.family]] = m.value
        accuracy[at[m.run_id], column[m.ability, m.family]] = m.accuracy
    known = {(r.ability, r.family): r for r in reliability}
    metric = {(m.ability, m.family): m.metric for m in rows}
    families = []
    for i, key in enumerate(keys):
        row, has_accuracy = known.get(key), bool(np.isfinite(accuracy[:, i]).any())
        families.append({**_family(key, row), "metric": metric[key], "accuracy": has_accuracy})
    low, step, codes = quantise(value)
    right = np.where(np.isfinite(accuracy), np.round(accuracy * _ACCURACY_STEPS), UNKNOWN)
    return {"families": families, "low": low, "step": step, "values": codes, "accuracies": _base64(right)}


def _family(key: tuple[str, str], row: Reliability | None) -> dict[str, Any]:
    sd = _short(row.seed_sd) if row else None
    return {
        "ability": key[0],
        "family": key[1],
        "chance": _short(row.chance) if row else None,
        "mean": _short(row.mean) if row else None,
        "seed_sd": sd,
        "half_width": _short(_Z90 * sd) if sd else None,
        "admitted": bool(row and row.admitted),
    }


def quantise(values: NDArray[np.float64]) -> tuple[list[float], list[float], str]:
    """Return (low, step, base64 of 16-bit codes) of a table, each column over its own range; NaN = 65535.

    Args:
        values: Shape (rows, columns).
    """
    if not values.size:
        return [0.0] * values.shape[1], [1.0] * values.shape[1], ""
    finite = np.isfinite(values)
    some = finite.any(axis=0)
    low, high = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    low[some] = np.min(np.where(finite, values, np.inf), axis=0)[some]
    high[some] = np.max(np.where(finite, values, -np.inf), axis=0)[some]
    step = np.where(high > low, (high - low) / _STEPS, 1.0)
    codes = np.where(finite, np.round((np.where(finite, values, low) - low) / step), UNKNOWN)
    return [float(f"{x:.9g}") for x in low], [float(f"{x:.9g}") for x in step], _base64(codes)


def _base64(codes: NDArray[np.float64]) -> str:
    return base64.b64encode(np.clip(codes, 0, UNKNOWN).astype("<u2").tobytes()).decode()


def _curves(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the loss of every run on one grid of tokens; a run without a usable curve has no row."""
    usable = [i for i, run in enumerate(runs) if curves.is_drawable(run)]
    if not usable:
        return {"tokens": [], "low": 0.0, "step": 1.0, "losses": "", "n": 0, "curve_of": [-1] * len(runs)}
    mine = [runs[i] for i in usable]
    grid = curves.grid_of(mine, None if len(mine) <= _FINE_CURVES else _FEWER_POINTS)
    table = np.array([curves.on_grid(run, grid) for run in mine])
    low, step, codes = quantise(table.reshape(-1, 1))
    row = {i: k for k, i in enumerate(usable)}
    return {
        "tokens": [int(t) for t in grid],
        "low": low[0],
        "step": step[0],
        "losses": codes,
        "n": len(mine),
        "curve_of": [row.get(i, -1) for i in range(len(runs))],
    }
