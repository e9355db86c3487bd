"""A study in which every chapter of the page has something to show: rounds, confirmation, emergence, losses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_study import FAMILIES, write_study

from ltm.patterns import confirmed
from ltm.patterns.describe import Kind
from ltm.patterns.recommend import Recommendation, as_plain
from ltm.patterns.words import kind as kind_words
from ltm.records import Book, Effect, Ranked, Rejected, Reliability, Run, Snapshot, Variant
from ltm.store import WorkFolder, read_json, read_rows, write_json, write_rows

REASONS = {"untrained": (1.2, 5.0), "split_half": (0.31, 0.7), "icc": (0.08, 0.3)}
UNITS = {"linking": "seed", "transfer": "residual", "synthesis": "residual", "fluency": "seed"}
PLACE_TERMS = [
    "kernel:flesch", "late:vector_03", "middle:log_words", "first:verse_share", "last:mtld", "poetry before drama",
    "class 1 before class 2", "adjacency",
]  # fmt: skip
MORE_TERMS = [
    *(("order", name) for name in (*PLACE_TERMS, "readability_up_vs_random", "in_turns_vs_random")),
    *(("gap", name) for name in ("filled_vs_gaps", "head_vs_truncated", "scattered_dose", "gap_curve")),
    *(("interaction", name) for name in ("poetry x drama", "class 2 x class 5")),
    *(("feature", name) for name in ("vector_11", "set:diversity", "novelty", "narrator_share")),
]


def write_whole_study(root: Path, n_runs: int = 96, n_books: int = 56, set_size: int | None = None) -> WorkFolder:
    """Write a study with rounds, in which something was confirmed and something failed."""
    work = write_study(root, n_runs, n_books, set_size=set_size)
    rng = np.random.default_rng(11)
    _settings(work)
    _books(work)
    variants = _rounds(work)
    runs = [Run(**read_json(path)) for path in sorted(work.path("runs").glob("*/run.json"))]
    effects = _effects(work, rng)
    _reliability(work)
    _snapshots(work, runs, rng)
    _losses(work)
    _findings(work, variants, effects)
    return work


def _settings(work: WorkFolder) -> None:
    study = read_json(work.path("study.json"))
    study |= {
        "hypothesis": "Stories help more than lists.",
        "runs": {
            "optimizer": "adamw", "lr": 0.004, "schedule": "wsd", "warmup_share": 0.05, "decay_share": 0.3,
            "weight_decay": 0.1, "batch_tokens": 512, "document_mask": False,
        },
        "sets": {"books_per_set": 25, "book_tokens": 7000, "epochs": 1, "base_order": "random", "common_init": True},
        "model": {"size": "llama-0.5m", "parametrization": "mup"},
        "tokens": {"vocab_size": 1024},
        "rounds": {"enabled": True},
        "forecast": {"usd_per_kwh": 0.2, "usd_per_hour": 0.0},
    }  # fmt: skip
    write_json(work.path("study.json"), study)
    forecast = read_json(work.path("forecast.json"))
    total = {"seconds": 1500.0, "seconds_low": 1000.0, "seconds_high": 2200.0, "watts": 130.0}
    write_json(work.path("forecast.json"), forecast | total | {"energy_kwh": 0.05, "cost_usd": 0.01})


def _books(work: WorkFolder) -> None:
    books = read_rows(work.path("books", "catalogue.parquet"), Book)
    books = [
        dataclasses.replace(
            book,
            unit=books[0].book_id if i < 2 else book.book_id,
            licence="CC BY 4.0" if i % 7 == 3 else book.licence,
            features=book.features | {"flesch": float(60 + i % 9), "verse_share": (i % 5) / 10},
            rating=4.5 if i == 0 else None,
        )
        for i, book in enumerate(books)
    ]
    write_rows(work.path("books", "catalogue.parquet"), books, Book)
    rejected = read_rows(work.path("books", "rejected.parquet"), Rejected)
    rejected.append(Rejected("lib/twin.txt", "duplicate", "the same text", books[3].source, "en"))
    write_rows(work.path("books", "rejected.parquet"), rejected, Rejected)


def _rounds(work: WorkFolder) -> list[Variant]:
    """Make the first blocks the pilot, the last ones the confirmation."""
    path = work.path("sets", "variants.parquet")
    variants = read_rows(path, Variant)
    n = len(variants)
    made = []
    for i, variant in enumerate(variants):
        name = (
            "pilot" if i < n // 6 else "exploration" if i < n // 2 else "adaptive" if i < 5 * n // 6 else "confirmation"
        )
        template = variant.template
        if name == "confirmation":
            template = "control" if i % 2 else "finalist"
        aside = name == "pilot" and i % 4 == 3
        changes: dict[str, Any] = {"round": name, "template": template, "drawn": name != "confirmation", "aside": aside}
        made.append(dataclasses.replace(variant, recipe="recipe 1" if aside else "", **changes))
    write_rows(path, made, Variant)
    write_json(work.path("sets", "design.json"), {"hash": "0123456789abcdef", "books_hash": "fedcba9876543210"})
    ability = {"h2": 0.62, "h2_low": 0.35, "h2_high": 0.8, "order_and_gaps_over_seed": 0.4, "n_runs": 16}
    recipe = {"h2": 0.6, "seconds": 14.0, "findings_per_hour": 154.0}
    learned = {
        "abilities": {"linking": ability, "fluency": ability | {"h2": 0.9, "h2_high": 0.95}},
        "counted": ["linking"], "h2": 0.62, "go": True, "recipe": "recipe 1",
        "recipes": {"": recipe | {"findings_per_hour": 98.0}, "recipe 1": recipe}, "shares": {"single": 0.6},
        "slow_lr": {"linking": {"n_sets": 8, "agreement": 0.7, "ceiling": 0.8}},
    }  # fmt: skip
    write_json(work.path("sets", "pilot", "learned.json"), learned)
    proposed = {"round": "adaptive", "made": {"thompson": 10, "crossover": 4}, "expected_gain": 1.4}
    for name, about in (("pilot", {"round": "pilot"}), ("adaptive", proposed)):
        write_json(work.path("sets", name, "round.json"), about)
    return made


def _effects(work: WorkFolder, rng: np.random.Generator) -> list[Effect]:
    path = work.path("patterns", "effects.parquet")
    effects = read_rows(path, Effect)
    effects = [dataclasses.replace(e, lfsr=0.01 if e.claimed else 0.4, refits=4, survives=3) for e in effects]
    pair = [effect for effect in effects if effect.kind == "book" and effect.ability == "linking"][:2]
    more = [*MORE_TERMS, ("interaction", f"{pair[0].name} x {pair[1].name}")]
    for ability in FAMILIES:
        for kind, name in more:
            estimate = float(rng.normal(0, 0.15)) + (1.2 if name == "kernel:flesch" else 0.0)
            claimed = name == "kernel:flesch" and ability in ("linking", "fluency")
            label = f"{pair[0].label} together with {pair[1].label}" if name.startswith(pair[0].name) else name
            ends = (estimate - 0.25, estimate + 0.25)
            q = 0.01 if claimed else 0.6
            effects.append(
                Effect(kind, name, label, ability, estimate, 0.15, *ends, q, q, estimate * 0.8, 24, claimed, 0.1)
            )
    write_rows(path, effects, Effect)
    gaps = [dataclasses.replace(e, estimate=0.5, claimed=False) for e in effects if e.kind == "gap"]
    write_rows(work.path("patterns", "emergence.parquet"), gaps, Effect)
    return effects


def _reliability(work: WorkFolder) -> None:
    path = work.path("scores", "reliability.parquet")
    rows = []
    for row in read_rows(path, Reliability):
        simple = (
            {} if row.family == "*" or row.ability == "fluency" else {"unigram": 0.5, "ngram": 0.58, "ending": 0.55}
        )
        more = {"snr": 4.2, "detectable": 0.006, "decision_accuracy": 0.8, "z_over_ngram": 6.0, "item_sd": 0.002}
        why = {} if row.admitted else {"no_family": (0.0, 1.0)} if row.family == "*" else REASONS
        reasons = {code: value for code, (value, _) in why.items()}
        needed = {code: value for code, (_, value) in why.items()}
        rows.append(dataclasses.replace(row, **simple, **more, reasons=reasons, needed=needed))
    write_rows(path, rows, Reliability)
    report = {
        "metrics": {"linking": "margin", "transfer": "logit"},
        "correlations": [
            {"one": "linking", "two": "transfer", "raw": 0.3, "without_fluency": 0.2, "disattenuated": 0.4},
            {"one": "linking", "two": "synthesis", "raw": 0.1, "without_fluency": 0.1, "disattenuated": None},
            {"one": "transfer", "two": "synthesis", "raw": 0.9, "without_fluency": 0.9, "disattenuated": 1.0,
             "one_factor": True},
        ],
        "dropped_items": {"the same for all runs": 3, "a reason of another version": 1},
        "items_without_answer": {"L2": 5}, "cut_cells": {"contexts": 4},
    }  # fmt: skip
    write_json(work.path("scores", "report.json"), report)
    banks = {"a": {"families": {"L1": {"dropped": {"the same item twice": 2}}}}}
    write_json(work.path("evalset", "report.json"), {"banks": banks})


def _snapshots(work: WorkFolder, runs: list[Run], rng: np.random.Generator) -> None:
    rows = []
    for run in runs:
        for tokens in (12_800, 25_600, 51_200, 102_400, 204_800):
            for ability, families in FAMILIES.items():
                for family in families:
                    grown = 0.004 * (np.log2(tokens / 12_800) - 0.5) if ability != "synthesis" else 0.0
                    value = float(grown + rng.normal(0, 0.001))
                    rows.append(Snapshot(run.run_id, tokens, ability, family, value, 0.6))
    write_rows(work.path("scores", "snapshots.parquet"), rows, Snapshot)


def _losses(work: WorkFolder) -> None:
    failed = {"error": "loss is not finite at step 12", "attempts": 3, "log": "step 11\nstep 12 <b>nan</b>\n"}
    write_json(work.path("runs", "failed-run", "failed.json"), failed)
    write_json(work.path("runs", "stopped-run", "stopped.json"), {"reason": "the worse half at a quarter", "step": 25})
    write_json(work.path("runs", "begun-run", "heartbeat.json"), {"beat": 7})
    work.path("runs", "broken-run").mkdir()
    work.path("runs", "broken-run", "run.json").write_text("{", encoding="utf-8")


def _findings(work: WorkFolder, variants: list[Variant], effects: list[Effect]) -> None:
    path = work.path("patterns", "findings.json")
    ranking = read_rows(work.path("patterns", "ranking.parquet"), Ranked)
    books = sorted({e.name for e in effects if e.kind == "book"})
    finalists = [v for v in variants if v.template == "finalist"]
    write_json(
        path,
        read_json(path)
        | {
            "level": 0.1, "redraws": 9999, "ranked_by": ["linking", "transfer"], "dropped": {"runs without a score": 2},
            "abilities": {
                name: {"unit": unit, "seed_sd": 1.0, "admitted": name != "synthesis", "smallest_book_effect": 0.6}
                for name, unit in UNITS.items()
            },
            "omnibus": [
                {"ability": a, "kind": k, "n": 9, "p": 0.01, "q": 0.04, "passed": a == "linking" and k == "book"}
                for a in FAMILIES
                for k in ("book", "feature", "order", "order_place", "order_shape", "gap", "interaction")
            ],
            "prediction": {"linking": {"lds": 0.7, "null_high": 0.2}, "transfer": {"lds": 0.1, "null_high": 0.2}},
            "luck": {"n": 10, "share_of_luck": 0.3},
            "dose_curve": {
                "linking": {"left_out": [0.25, 0.5, 0.75], "mean": [0.1, 0.3, 0.2], "low": [-0.1, 0.1, -0.1],
                            "high": [0.3, 0.5, 0.5], "n": [8, 8, 8], "best_left_out": 0.5, "monotone_p": 0.04},
            },
            "order_share": {"linking": {"by_kernel": 0.55, "n_blocks": 12, "variance": 0.2}},
            "ideal_set": as_plain(
                Recommendation(
                    books[:12], 1.9, 1.1, 2.7, books[:5], books[8:16], "readability_up", ["kernel:flesch"],
                    "scattered", ranking[0].variant_id, 4, "mixed", ("linking", "transfer"), True,
                ),
                {},
            ),
            "confirmed": confirmation([v.variant_id for v in finalists]),
            "kinds": [kind_words(Kind("class 2", 9, (("dialogue_share", 1.2), ("flesch", -0.8))))],
        },
    )  # fmt: skip


def confirmation(variant_ids: list[str]) -> dict[str, Any]:
    """Return what the patterns say of finalists, of which two are better than random sets."""
    rows = [
        {"variant_id": v, "n_runs": 4, "confirmed": c, "low": c - 0.5, "high": c + 0.5, "expected": 1.6}
        for v, c in zip(variant_ids, (1.4, 0.9, 0.2, -0.3), strict=False)
    ]
    found = {
        "abilities": ["linking", "transfer"], "unit": "mixed", "n_controls": 6, "finalists": rows, "n_better": 2,
        "mean_expected": 1.6, "mean_confirmed": 0.55, "mean_low": 0.2, "mean_high": 0.9,
    }  # fmt: skip
    return found | {"text": {language: confirmed._words(found, language) for language in ("en", "ru")}}
