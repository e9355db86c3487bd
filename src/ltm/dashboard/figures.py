"""The data of every figure, as plain records: what is drawn, shown as a table and downloaded as CSV is the same rows.

Reads: Book, Variant, Run, Measure, Reliability, Effect, Ranked rows and the two time files. Writes: nothing.
Pure functions; drawing is in `ltm.dashboard.charts`. A number that is not finite becomes None, so that it leaves the
drawing but stays visible as a dash in the table.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltm.dashboard.inputs import number
from ltm.records import ABILITIES, FLUENCY, Book, Effect, Measure, Ranked, Reliability, Run, Variant

Record = dict[str, Any]

DRAWN_EFFECTS = 30  # per ability, strongest first by shrunken effect; the table has all of them
TABLE_EFFECTS = 3000  # per kind; beyond that the page would grow past what a browser opens at once
DRAWN_RANKS = 30
TABLE_BOOKS = 2000
TABLE_REJECTED = 500
DRAWN_CURVES = 24
CURVE_POINTS = 48


def ability_order(name: str) -> tuple[int, str]:
    """Return the sort key of an ability: the three of the study, then fluency, then anything else by name."""
    known = (*ABILITIES, FLUENCY)
    return (known.index(name) if name in known else len(known), name)


def by_ability(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the entries of a mapping by ability, abilities in their usual order; nothing for anything else."""
    found = value.items() if isinstance(value, dict) else []
    kept = [(str(name), own) for name, own in found if isinstance(own, dict)]
    return sorted(kept, key=lambda pair: ability_order(pair[0]))


def effect_rows(effects: Iterable[Effect], kind: str, unit: Mapping[str, str] | None = None) -> list[Record]:
    """Return the effects of one kind, by ability and then best first; `shown` marks those that are drawn.

    `verdict` is `raises` or `lowers` for a claimed effect and `unclear` for all others: an effect that is not claimed
    is never given a direction.

    Args:
        effects: Of any kind.
        kind: That of the rows.
        unit: What one is in each ability's effects; seed standard deviations where nothing is said.
    """
    by_ability: dict[str, list[Effect]] = defaultdict(list)
    for effect in effects:
        if effect.kind == kind:
            by_ability[effect.ability].append(effect)
    rows: list[Record] = []
    share = max(1, TABLE_EFFECTS // max(1, len(by_ability)))
    for ability in sorted(by_ability, key=ability_order):
        mine = sorted(by_ability[ability], key=_strength, reverse=True)[:share]
        usable = [e for e in mine if all(number(v) is not None for v in (e.estimate, e.low, e.high))]
        shown = {e.name for e in usable[:DRAWN_EFFECTS]}
        labels = _unique_labels(mine)
        mine.sort(key=lambda e: (-(number(e.estimate) or 0.0), e.name))
        one = (unit or {}).get(ability, "seed")
        rows += [_effect_row(effect, labels[effect.name], effect.name in shown, one) for effect in mine]
    return rows


def _strength(effect: Effect) -> tuple[bool, float, str]:
    size = number(effect.shrunk) or number(effect.estimate) or 0.0
    return (effect.claimed, abs(size), effect.name)


def family_of(effect: Effect) -> str:
    """Return the family of tests that an effect belongs to, as the omnibus tests name it.

    Orders against each other are one; terms of place one; shapes beyond the schedule's kernel another.
    """
    if effect.kind != "order" or "_vs_" in effect.name:
        return effect.kind
    return "order_shape" if effect.name.startswith(("late:", "middle:", "first:", "last:")) else "order_place"


def verdict(effect: Effect) -> str:
    """Return raises, lowers or unclear."""
    estimate = number(effect.estimate)
    if not effect.claimed or not estimate:
        return "unclear"
    return "raises" if estimate > 0 else "lowers"


def _effect_row(effect: Effect, label: str, shown: bool, unit: str) -> Record:
    return {
        "name": effect.name,
        "label": label,
        "ability": effect.ability,
        "estimate": number(effect.estimate),
        "low": number(effect.low),
        "high": number(effect.high),
        "p": number(effect.p),
        "q": number(effect.q),
        "shrunk": number(effect.shrunk),
        "n": effect.n,
        "lfsr": number(effect.lfsr),
        "adjusted": number(effect.adjusted),
        "survives": effect.survives if effect.refits else None,
        "refits": effect.refits or None,
        "unit": unit,
        "axis": unit,
        "verdict": verdict(effect),
        "shown": shown,
    }


def _unique_labels(effects: Sequence[Effect]) -> dict[str, str]:
    """Return a label for each name; two books of one title get a number, or the chart would draw them on one line."""
    seen: Counter[str] = Counter()
    labels = {}
    for effect in sorted(effects, key=lambda e: e.name):
        label = effect.label.strip() or effect.name
        seen[label] += 1
        labels[effect.name] = label if seen[label] == 1 else f"{label} ({seen[label]})"
    return labels


def rank_rows(ranked: Iterable[Ranked], variants: Iterable[Variant], unit: str = "seed") -> list[Record]:
    """Return the first places of the ranking, best first.

    Args:
        ranked: The ranking; it may name variants that the design does not hold any more.
        variants: The design.
        unit: What one is in a score.

    Returns:
        One record per place, as many as are drawn.
    """
    design = {variant.variant_id: variant for variant in variants}
    rows: list[Record] = []
    for entry in sorted(ranked, key=lambda r: (r.place, r.run_id))[:DRAWN_RANKS]:
        variant = design.get(entry.variant_id)
        row: Record = {
            "place": entry.place,
            "run": entry.run_id,
            "label": f"{entry.place} · {entry.run_id[:8]}",
            "posterior": number(entry.posterior),
            "low": number(entry.low),
            "high": number(entry.high),
            "raw": number(entry.raw),
            "tied": "tied" if entry.tied_with_best else "behind",
            "order": variant.order if variant else None,
            "gap_kind": variant.gap_kind if variant else None,
            "density": number(variant.density) if variant else None,
            "set": variant.set_id if variant else None,
            "axis": unit,
        }
        row["shown"] = None not in (row["posterior"], row["low"], row["high"])
        rows.append(row)
    return rows


def dose_rows(
    variants: Iterable[Variant], runs: Iterable[Run], measures: Iterable[Measure], reliability: Iterable[Reliability]
) -> list[Record]:
    """Return how far each gap kind and density lies from the ungapped variant of the same books, order and seed.

    A plain paired mean per item family, in seed standard deviations of that family, with a 90 % Student interval over
    pairs; it describes, and the tested effects stand beside it. `truncated` is the control: as
    few unique tokens, no gaps.
    """
    seed_sd = {(r.ability, r.family): number(r.seed_sd) for r in reliability}
    design = {v.variant_id: v for v in variants}
    run_of = {run.run_id: run for run in runs}
    base: dict[tuple[str, int, int], float] = {}
    gapped: list[tuple[Variant, Run, Measure, float]] = []
    for measure in measures:
        run = run_of.get(measure.run_id)
        variant = design.get(run.variant_id) if run else None
        value = number(measure.value)
        if run is None or variant is None or value is None:
            continue
        if variant.gap_kind == "none" and variant.arm == "base":
            base[measure.family, variant.block, run.init_seed] = value
        elif variant.gap_kind != "none":
            gapped.append((variant, run, measure, value))
    differences: dict[tuple[str, str, str, float], list[float]] = defaultdict(list)
    for variant, run, measure, value in gapped:
        start = base.get((measure.family, variant.block, run.init_seed))
        scale = seed_sd.get((measure.ability, measure.family))
        if start is None or not scale:
            continue
        key = (measure.ability, measure.family, variant.gap_kind, variant.density)
        differences[key].append((value - start) / scale)
    return _dose_records(differences)


def _dose_records(differences: dict[tuple[str, str, str, float], list[float]]) -> list[Record]:
    rows = []
    for (ability, family, kind, density), values in sorted(
        differences.items(), key=lambda pair: (ability_order(pair[0][0]), *pair[0][1:])
    ):
        mean, half = mean_and_half_width(values)
        rows.append(
            {
                "ability": ability,
                "family": family,
                "gap_kind": kind,
                "dropped": round(1 - density, 6),
                "estimate": mean,
                "low": None if half is None else mean - half,
                "high": None if half is None else mean + half,
                "n": len(values),
                "shown": half is not None,
            }
        )
    return rows


def mean_and_half_width(values: Sequence[float], level: float = 0.9) -> tuple[float, float | None]:
    """Return the mean and the half width of its Student interval; no width for fewer than two values.

    >>> mean_and_half_width([1.0])
    (1.0, None)
    """
    from scipy.stats import t

    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, float(t.ppf(0.5 + level / 2, len(values) - 1)) * math.sqrt(variance / len(values))


def time_rows(forecast: dict[str, Any], timings: dict[str, Any]) -> list[Record]:
    """Return the forecast and the measured seconds of each stage, in the order of the forecast."""
    stages = forecast.get("stages")
    rows: dict[str, Record] = {}
    for entry in stages if isinstance(stages, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("stage"), str):
            rows[entry["stage"]] = {
                "stage": entry["stage"],
                "forecast": number(entry.get("seconds")),
                "low": number(entry.get("low")),
                "high": number(entry.get("high")),
                "measured": None,
            }
    measured = timings.get("stages")
    beside = {"start": other} if (other := number(timings.get("other"))) else {}
    for stage, seconds in ({**beside, **measured} if isinstance(measured, dict) else beside).items():
        blank = {"stage": stage, "forecast": None, "low": None, "high": None}
        rows.setdefault(stage, blank)["measured"] = number(seconds)
    return list(rows.values())


def bill_rows(forecast: dict[str, Any], rows: Iterable[Record]) -> list[Record]:
    """Return time, energy and money, forecast and measured, of the stages that have both.

    Energy and money follow from time at the power and the prices that the forecast was made with.
    """
    paired = [row for row in rows if row["forecast"] and row["measured"]]
    whole = number(forecast.get("seconds"))
    ends = [number(forecast.get(key)) for key in ("seconds_low", "seconds_high")]
    if not paired or not whole or None in ends:
        return []
    expected, measured = (sum(row[key] for row in paired) for key in ("forecast", "measured"))
    made = []
    for what, per_second in (
        ("minutes", 1 / 60),
        ("watt_hours", 1000 * (number(forecast.get("energy_kwh")) or 0.0) / whole),
        ("usd", (number(forecast.get("cost_usd")) or 0.0) / whole),
    ):
        low, high = (expected * float(end or 0.0) / whole * per_second for end in ends)
        middle = {"what": what, "forecast": expected * per_second, "low": low, "high": high}
        made.append({**middle, "measured": measured * per_second})
    return made


def book_rows(books: Iterable[Book]) -> list[Record]:
    """Return the library, in its own order."""
    return [
        {
            "title": book.title,
            "author": book.author,
            "year": book.year,
            "language": book.language,
            "genre": book.genre,
            "pool": "train" if book.pool == "train" else "held_out",
            "n_words": book.n_words,
            "licence": book.licence,
        }
        for book in sorted(books, key=lambda b: (b.rank, b.book_id))[:TABLE_BOOKS]
    ]


def genre_rows(books: Iterable[Book], limit: int = 18) -> list[Record]:
    """Return the number of books and words per genre and pool, large genres first; small ones become `other_genres`."""
    counts: Counter[tuple[str, str]] = Counter()
    words: Counter[tuple[str, str]] = Counter()
    by_genre = Counter(book.genre or "unknown" for book in books)
    kept = {genre for genre, _ in sorted(by_genre.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]}
    for book in books:
        genre = book.genre or "unknown"
        key = (genre if genre in kept else "other_genres", "train" if book.pool == "train" else "held_out")
        counts[key] += 1
        words[key] += book.n_words
    size = {genre: counts[genre, "train"] + counts[genre, "held_out"] for genre, _ in counts}
    order = sorted(counts, key=lambda key: (key[0] == "other_genres", -size[key[0]], key[0], key[1] != "train"))
    return [{"genre": g, "pool": p, "books": counts[g, p], "n_words": words[g, p]} for g, p in order]
