"""Check the patterns against studies whose truth is known: python bench/patterns_truth.py [campaigns]

Prints one line per question: false claims in null studies, planted books found, coverage of intervals, planted gaps and
orders, honesty of the ranking, and speed. Everything is simulated; no model is trained.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from scipy.stats import kstest, rankdata

from ltm.patterns.effects import Estimated, estimate_effects
from ltm.patterns.order import late_weight
from ltm.patterns.ranking import rank
from ltm.patterns.simulate import Planted, simulate, true_book_effects, true_mean
from ltm.patterns.table import Rows, make_table

SPLIT_PLOT = {"n_books": 40, "set_size": 20, "n_single": 8, "n_seeds": 8, "n_order": 14, "n_gaps": 14}


def study(planted: Planted, seed: int, redraws: int = 1999) -> tuple[Rows, Estimated]:
    rows = simulate(planted, seed)
    return rows, estimate_effects(make_table(rows), rows.books, 0.1, redraws, seed)


def null(campaigns: int) -> None:
    rng = np.random.default_rng(0)
    p_of: dict[str, list[float]] = {}
    claims = 0
    for seed in range(campaigns):
        _, found = study(Planted(**SPLIT_PLOT), 10_000 + seed, 4999)
        claims += any(e.claimed for e in found.effects)
        for kind in ("book", "feature", "order", "gap"):
            p_of.setdefault(kind, []).append(rng.choice([e.p for e in found.effects if e.kind == kind]))
    ks = {kind: round(float(kstest(p, "uniform").pvalue), 3) for kind, p in p_of.items()}
    print(f"null: any claim in {claims} of {campaigns} studies at level .1; KS p of one p-value per study {ks}")


def planted_books(label: str, planted: Planted, campaigns: int, redraws: int) -> None:
    power, fdp, auc, signs, cover, seconds = [], [], [], [], [], []
    for seed in range(campaigns):
        rows = simulate(planted, seed)
        started = time.perf_counter()
        found = estimate_effects(make_table(rows), rows.books, 0.1, redraws, seed)
        seconds.append(time.perf_counter() - started)
        truth = true_book_effects(planted, rows.books)
        ids = sorted(rows.books)
        real = {ids[i] for i in planted.book_effects}
        effects = [e for e in found.effects if e.kind == "book"]
        claimed = {e.name for e in effects if e.claimed}
        power.append(len(claimed & real) / len(real))
        fdp.append(len(claimed - real) / max(1, len(claimed)))
        size = np.array([abs(e.estimate) for e in effects])
        is_real = np.array([e.name in real for e in effects])
        ranks = rankdata(size)
        n = is_real.sum()
        auc.append((ranks[is_real].sum() - n * (n + 1) / 2) / (n * (~is_real).sum()))
        signs.append(np.mean([np.sign(e.estimate) == np.sign(truth[e.name]) for e in effects if e.name in real]))
        cover += [e.low <= truth[e.name] <= e.high for e in effects]
    print(
        f"{label}: power {np.mean(power):.2f}, FDP {np.mean(fdp):.3f}, AUC {np.mean(auc):.3f}, "
        f"sign {np.mean(signs):.3f}, coverage {np.mean(cover):.3f}; {np.mean(seconds):.1f} s a study"
    )


ALL_GAPS = dict.fromkeys(("scattered", "blocks", "chapters", "head"), -2.0)


def lateness_spread(rows: Rows) -> float:
    """Effects are per observed standard deviation of lateness; the planted one is per its expected value."""
    values = {b: book.features["feature_1"] for b, book in rows.books.items()}
    ordered = [v for v in rows.variants if v.template == "order" and v.order != "shuffled"]
    return float(np.std([late_weight(v, values) for v in ordered]) * np.sqrt(3.0 * len(ordered[0].book_ids)))


def within(campaigns: int) -> None:
    planted = Planted(
        n_seeds=8, n_order=40, n_gaps=40, gap_effects=ALL_GAPS,
        less_text=-1.0, late_effects={"feature_1": 0.7}, shuffled=-0.5,
    )  # fmt: skip
    truth = {"shuffled_vs_random": -0.5, "late:feature_1": 0.7, "gap_dose": -2.0}
    cover: dict[str, list[bool]] = {name: [] for name in truth}
    claimed: dict[str, list[bool]] = {}
    for seed in range(campaigns):
        rows, found = study(planted, seed)
        truth["late:feature_1"] = 0.7 * lateness_spread(rows)
        for e in found.effects:
            if e.name in truth:
                cover[e.name].append(e.low <= truth[e.name] <= e.high)
            if e.kind in ("order", "gap"):
                claimed.setdefault(e.name, []).append(e.claimed)
    print("within blocks: coverage", {k: round(float(np.mean(v)), 3) for k, v in cover.items()})
    print("within blocks: share claimed", {k: round(float(np.mean(v)), 2) for k, v in sorted(claimed.items())})


def ranking(campaigns: int) -> None:
    cover, tied, raw, shrunk, true = [], [], [], [], []
    for seed in range(campaigns):
        rng = np.random.default_rng(seed)
        effects = {i: float(e) for i, e in enumerate(0.3 * rng.standard_normal(60))}
        planted = Planted(
            n_single=60, n_seeds=10, n_order=20, n_gaps=20, book_effects=effects, set_sd=0.0, block_sd=0.0
        )
        rows = simulate(planted, seed)
        result = rank(make_table(rows)).rows
        means = {v.variant_id: true_mean(planted, rows.books, v) for v in rows.variants}
        average = np.mean(list(means.values()))
        cover += [r.low <= means[r.variant_id] - average <= r.high for r in result]
        best = max(means, key=lambda v: means[v])
        tied.append(next(r.tied_with_best for r in result if r.variant_id == best))
        raw += [r.raw for r in sorted(result, key=lambda r: -r.raw)[:10]]
        shrunk += [r.posterior for r in result[:10]]
        true += [means[r.variant_id] - average for r in result[:10]]
    print(
        f"ranking: coverage {np.mean(cover):.3f}; true best among the tied {np.mean(tied):.2f}; "
        f"top 10: raw {np.mean(raw):.2f}, posterior {np.mean(shrunk):.2f}, true {np.mean(true):.2f} seed sd"
    )


def null_ranking(campaigns: int) -> None:
    broken, apart = 0, []
    for seed in range(campaigns):
        rows = simulate(Planted(**SPLIT_PLOT, set_sd=0.0, block_sd=0.0), 20_000 + seed)
        behind = [not r.tied_with_best for r in rank(make_table(rows)).rows]
        broken += any(behind)
        apart.append(np.mean(behind))
    print(
        f"null ranking: any variant told from the best in {broken} of {campaigns} studies at level .1; "
        f"{np.mean(apart):.4f} of all variants"
    )


def main(campaigns: int) -> None:
    harmful = dict.fromkeys(range(10), -1.0)
    both = {i: 0.3 if i % 2 else -0.3 for i in range(20)}
    many = {"n_seeds": 0, "n_order": 0, "n_gaps": 0, "set_sd": 0.0, "block_sd": 0.0}
    small = {"n_books": 60, "set_size": 30, "n_seeds": 24, "n_order": 36, "n_gaps": 36}
    for n_single in (24, 104):
        planted = Planted(n_single=n_single, book_effects=harmful, **small)
        planted_books(f"10 harmful of 60, {n_single + 96} sets", planted, campaigns // 4, 4999)
    planted = Planted(n_books=200, set_size=100, n_single=1000, book_effects=both, **many)
    planted_books("20 of 200 at .3, 1000 runs", planted, max(2, campaigns // 20), 9999)
    within(campaigns // 2)
    ranking(campaigns // 4)
    null_ranking(campaigns)
    null(campaigns)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
