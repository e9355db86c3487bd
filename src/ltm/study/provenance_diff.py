"""What differs between two runs, or two studies: settings, books, order, gaps, machines, scores."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from ltm.errors import LtmError, StoreError
from ltm.records import Effect, Measure, Reliability, Run, Variant
from ltm.runs import queue
from ltm.sets.stage import read_variants
from ltm.store import WorkFolder, read_json, read_rows
from ltm.study import provenance
from ltm.study.provenance import Origin
from ltm.study.settings import differences

_SHOWN = 20


def diff_runs(one: tuple[WorkFolder, str], two: tuple[WorkFolder, str]) -> dict[str, Any]:
    """Return what differs between two runs, of one work folder or of two.

    Raises:
        InputError: no run, or several, are called so.
        StoreError: a study has no runs yet.
    """
    (origin_a, run_a), (origin_b, run_b) = _side(*one), _side(*two)
    titles = _titles(one[0], origin_a) | _titles(two[0], origin_b)
    measures_a, measures_b = _measures(one[0], origin_a.run_id), _measures(two[0], origin_b.run_id)
    return {
        "kind": "runs",
        "a": origin_a.run_id,
        "b": origin_b.run_id,
        "same": origin_a.run_id == origin_b.run_id,
        "made_from": provenance.changes(origin_a.made_from(), origin_b.made_from(), titles),
        "where": _where_changes(run_a, run_b),
        "outcome": _outcomes(run_a, run_b),
        "scores": _scores(measures_a, measures_b, _noise(one[0])),
    }


def diff_studies(one: WorkFolder, two: WorkFolder) -> dict[str, Any]:
    """Return what differs between two studies.

    Raises:
        StoreError: a work folder has no study.
    """
    settings_a, settings_b = _settings(one), _settings(two)
    books_a, books_b = _library(one), _library(two)
    titles = {**books_a, **books_b}
    variants_a, variants_b = _variants(one), _variants(two)
    runs_a, runs_b = _runs(one), _runs(two)
    return {
        "kind": "studies",
        "a": str(settings_a.get("name", one.root)),
        "b": str(settings_b.get("name", two.root)),
        "settings": differences(settings_a, settings_b),
        "library": {
            "common": len(books_a.keys() & books_b.keys()),
            "only_a": sorted(titles[i] for i in books_a.keys() - books_b.keys()),
            "only_b": sorted(titles[i] for i in books_b.keys() - books_a.keys()),
        },
        "design": {
            "a": _design(variants_a),
            "b": _design(variants_b),
            "common": len(_ids(variants_a) & _ids(variants_b)),
        },
        "runs": {"a": len(runs_a), "b": len(runs_b), "common": len(runs_a.keys() & runs_b.keys())},
        "other_bits": sorted(
            i
            for i in runs_a.keys() & runs_b.keys()
            if runs_a[i].weights_sha256 != runs_b[i].weights_sha256 and runs_a[i].weights_sha256
        ),
        "scores": _mean_scores(one, two),
        "findings": _findings(one, two, titles),
    }


def diff_text(value: Mapping[str, Any]) -> str:
    """Return a difference as a person reads it."""
    return _runs_text(value) if value["kind"] == "runs" else _studies_text(value)


def _runs_text(value: Mapping[str, Any]) -> str:
    lines = [f"{value['a']} -> {value['b']}"]
    same = ["nothing: they are made from the same"] if value["same"] else ["nothing that is recorded"]
    lines += ["made from", *(f"  {line}" for line in value["made_from"] or same)]
    if value["where"]:
        lines += ["trained elsewhere", *(f"  {line}" for line in value["where"])]
    if value["outcome"]:
        lines += ["outcome", *(f"  {line}" for line in value["outcome"])]
    if value["scores"]:
        lines += ["scores (more is better)", *(f"  {_score_line(row)}" for row in value["scores"])]
    return "\n".join(lines)


def _score_line(row: Mapping[str, Any]) -> str:
    noise = f", {row['difference'] / row['seed_sd']:+.1f} seed sd" if row["seed_sd"] else ""
    return f"{row['ability']:<10} {row['family']:<4} {row['a']:.4f} -> {row['b']:.4f} ({row['difference']:+.4f}{noise})"


def _studies_text(value: Mapping[str, Any]) -> str:
    lines = [f"{value['a']} -> {value['b']}"]
    lines += ["settings", *(f"  {line}" for line in value["settings"] or ["the same"])]
    library = value["library"]
    lines.append(f"library: {library['common']} common books")
    for key, name in (("only_a", value["a"]), ("only_b", value["b"])):
        if library[key]:
            more = f", ... ({len(library[key])})" if len(library[key]) > _SHOWN else ""
            lines.append(f"  only in {name}: {', '.join(library[key][:_SHOWN])}{more}")
    design = value["design"]
    lines.append(f"design: {design['common']} common variants")
    lines += [f"  {key}: {design['a'].get(key, 0)} -> {design['b'].get(key, 0)}" for key in _all_keys(design)]
    runs = value["runs"]
    lines.append(f"runs: {runs['a']} -> {runs['b']} finished, {runs['common']} the same")
    if value["other_bits"]:
        lines.append(
            f"  {len(value['other_bits'])} of the same runs came out with other bits: {value['other_bits'][0]}"
        )
    if value["scores"]:
        lines += ["mean scores", *(f"  {_score_line(row)}" for row in value["scores"])]
    lines += ["findings", *(f"  {line}" for line in value["findings"] or ["the same are claimed"])]
    return "\n".join(lines)


def _all_keys(design: Mapping[str, Any]) -> list[str]:
    return sorted(
        key for key in design["a"].keys() | design["b"].keys() if design["a"].get(key) != design["b"].get(key)
    )


def _side(work: WorkFolder, wanted: str) -> tuple[Origin, Run | None]:
    known = provenance.origins(work)
    run_id = provenance.find_run(work, wanted, known)
    return known[run_id], queue.read_run(work, run_id)


def _titles(work: WorkFolder, origin: Origin) -> dict[str, str]:
    return provenance.titles_of(work, [] if origin.variant is None else origin.variant.book_ids)


def _where_changes(a: Run | None, b: Run | None) -> list[str]:
    if a is None or b is None:
        return []
    fields = ("device", "dtype", "compiled", "micro_batch_tokens")
    one = {**{f: getattr(a, f) for f in fields}, **_named("version", a.versions), **_named("machine", a.hardware)}
    two = {**{f: getattr(b, f) for f in fields}, **_named("version", b.versions), **_named("machine", b.hardware)}
    return provenance.changes(one, two, {})


def _named(word: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"{word} of {key}" if word == "version" else f"{word}.{key}": value for key, value in values.items()}


def _outcomes(a: Run | None, b: Run | None) -> list[str]:
    if a is None or b is None:
        return []
    bits = "the same" if a.weights_sha256 == b.weights_sha256 else "differ"
    loss, rates = b.final_loss - a.final_loss, f"{a.tokens_per_second:,.0f} -> {b.tokens_per_second:,.0f} tokens/s"
    return [
        f"loss at the end: {a.final_loss:.4f} -> {b.final_loss:.4f} nats per token ({loss:+.4f})",
        f"training: {a.seconds:.1f} s -> {b.seconds:.1f} s, {rates}",
        *([f"bits of the weights: {bits}"] if a.weights_sha256 and b.weights_sha256 else []),
    ]


def _measures(work: WorkFolder, run_id: str) -> dict[tuple[str, str], float]:
    rows = _rows(work, Measure, "scores", "measures.parquet")
    return {(m.ability, m.family): m.value for m in rows if m.run_id == run_id}


def _noise(work: WorkFolder) -> dict[tuple[str, str], float]:
    rows = _rows(work, Reliability, "scores", "reliability.parquet")
    return {(row.ability, row.family): row.seed_sd for row in rows}


def _scores(
    one: Mapping[tuple[str, str], float],
    two: Mapping[tuple[str, str], float],
    noise: Mapping[tuple[str, str], float],
) -> list[dict[str, Any]]:
    return [
        {
            "ability": key[0],
            "family": key[1],
            "a": one[key],
            "b": two[key],
            "difference": two[key] - one[key],
            "seed_sd": sd if (sd := noise.get(key, 0.0)) and sd > 0 else None,
        }
        for key in sorted(one.keys() & two.keys())
    ]


def _mean_scores(one: WorkFolder, two: WorkFolder) -> list[dict[str, Any]]:
    def means(work: WorkFolder) -> dict[tuple[str, str], float]:
        grouped: dict[tuple[str, str], list[float]] = {}
        for row in _rows(work, Measure, "scores", "measures.parquet"):
            grouped.setdefault((row.ability, row.family), []).append(row.value)
        return {key: statistics.fmean(values) for key, values in grouped.items()}

    return _scores(means(one), means(two), _noise(one))


def _settings(work: WorkFolder) -> dict[str, Any]:
    value: dict[str, Any] = read_json(work.path("study.json"))
    return {key: item for key, item in value.items() if key not in ("overrides", "work")}


def _library(work: WorkFolder) -> dict[str, str]:
    from ltm.books.catalogue import columns

    try:
        table = columns(work, ["book_id", "title"])
    except LtmError:
        return {}
    return dict(zip(table.column("book_id").to_pylist(), table.column("title").to_pylist(), strict=True))


def _variants(work: WorkFolder) -> list[Variant]:
    try:
        return read_variants(work)
    except LtmError:
        return []


def _ids(variants: list[Variant]) -> set[str]:
    return {variant.variant_id for variant in variants}


def _design(variants: list[Variant]) -> dict[str, int]:
    """Return how many variants there are of each order and gap."""
    counts: dict[str, int] = {"variants": len(variants), "sets": len({v.set_id for v in variants})}
    for variant in variants:
        gap = "no gaps" if variant.gap_kind == "none" else f"gaps {variant.gap_kind} at density {variant.density:g}"
        for key in (f"order {variant.order}", gap, f"template {variant.template}"):
            counts[key] = counts.get(key, 0) + 1
    return counts


def _runs(work: WorkFolder) -> dict[str, Run]:
    try:
        return {run.run_id: run for run in queue.complete_runs(work)}
    except StoreError:
        return {}


def _findings(one: WorkFolder, two: WorkFolder, titles: Mapping[str, str]) -> list[str]:
    def claimed(work: WorkFolder) -> dict[tuple[str, str, str], Effect]:
        rows = _rows(work, Effect, "patterns", "effects.parquet")
        return {(row.kind, row.name, row.ability): row for row in rows if row.claimed}

    a, b = claimed(one), claimed(two)

    def line(key: tuple[str, str, str], effect: Effect, words: str) -> str:
        return f"{words}: {key[0]} {titles.get(key[1], effect.label)} on {key[2]} ({effect.estimate:+.2f} seed sd)"

    lines = [line(key, a[key], "no longer claimed") for key in sorted(a.keys() - b.keys())]
    lines += [line(key, b[key], "newly claimed") for key in sorted(b.keys() - a.keys())]
    lines += [
        f"turned: {key[0]} {titles.get(key[1], a[key].label)} on {key[2]}: "
        f"{a[key].estimate:+.2f} -> {b[key].estimate:+.2f} seed sd"
        for key in sorted(a.keys() & b.keys())
        if a[key].estimate * b[key].estimate < 0
    ]
    return lines


def _rows(work: WorkFolder, cls: type[Any], *parts: str) -> list[Any]:
    try:
        return read_rows(work.path(*parts), cls)
    except LtmError:
        return []
