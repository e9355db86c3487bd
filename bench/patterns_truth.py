"""Check the patterns against studies whose truth is known: python bench/patterns_truth.py [PART] [N] [--first SEED]

Prints a line or a table per part. Everything is simulated; no model is trained.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import kstest

import ltm
from ltm.patterns.effects import Estimated, estimate_effects
from ltm.patterns.prediction import exaggeration, predict_sets, spearman
from ltm.patterns.ranking import rank
from ltm.patterns.recommend import recommend
from ltm.patterns.simulate import Planted, simulate, true_book_effects, true_mean
from ltm.patterns.surrogate import fit
from ltm.patterns.table import Ability, Rows, Table, make_table, read_input
from ltm.patterns.truth import Truth
from ltm.progress import Progress
from ltm.records import Book, Variant
from ltm.store import WorkFolder, read_rows, write_rows
from ltm.study.campaign import play

PLAIN = {"n_seeds": 0, "n_order": 0, "n_gaps": 0, "set_sd": 0.0, "block_sd": 0.0}
GAPS = ("scattered", "blocks", "chapters", "head")


def study(planted: Planted, seed: int, redraws: int = 1999) -> tuple[Rows, Table, Estimated]:
    rows = simulate(planted, seed)
    table = make_table(rows)
    return rows, table, estimate_effects(table, rows.books, 0.1, redraws, seed)


def books(n: int, first: int) -> None:
    """200 books, 1000 sets, 20 books planted at .3: who is found."""
    both = {i: 0.3 if i % 2 else -0.3 for i in range(20)}
    planted = Planted(200, 100, n_single=1000, book_effects=both, **PLAIN)
    auc, sign, power, fdp, cover = [], [], [], [], []
    for seed in range(first, first + max(2, n // 2)):
        rows, table, found = study(planted, seed, 9999)
        unit = table.abilities["linking"].unit_sd
        ids, truth = sorted(rows.books), true_book_effects(planted, rows.books)
        effects = {e.name: e for e in found.effects if e.kind == "book"}
        real = {ids[i] for i in both}
        z = {b: abs(e.estimate) / e.se for b, e in effects.items()}
        auc.append(np.mean([z[a] > z[b] for a in real for b in effects if b not in real]))
        sign.append(np.mean([np.sign(effects[ids[i]].estimate) == np.sign(v) for i, v in both.items()]))
        claimed = {b for b, e in effects.items() if e.claimed}
        power.append(len(claimed & real) / len(real))
        fdp.append(len(claimed - real) / max(1, len(claimed)))
        cover += [e.low * unit <= truth[b] <= e.high * unit for b, e in effects.items()]
    print(f"B=200 N=1000 d=.3, {len(auc)} studies: AUC {np.mean(auc):.4f}, sign {np.mean(sign):.4f}, ", end="")
    print(f"power {np.mean(power):.3f}, FDP {np.mean(fdp):.3f}, coverage {np.mean(cover):.3f}")


def null(n: int, first: int) -> None:
    """Split-plot studies where nothing matters; half of the single sets were chosen because they scored well."""
    rng = np.random.default_rng(first)
    one: dict[str, list[float]] = {}
    claims, studies = 0, 10 * n
    for seed in range(first, first + studies):
        rows = simulate(Planted(40, 20, n_single=40, n_seeds=8, n_order=14, n_gaps=14), 10_000 + seed)
        value = {m.run_id: m.value for m in rows.measures}
        score = {r.variant_id: value[r.run_id] for r in rows.runs}
        singles = sorted((v.variant_id for v in rows.variants if v.template == "single"), key=lambda v: -score[v])
        best = set(singles[:20])
        variants = [
            dataclasses.replace(v, drawn=False, round="adaptive") if v.variant_id in best else v for v in rows.variants
        ]
        table = make_table(dataclasses.replace(rows, variants=variants))
        found = estimate_effects(table, rows.books, 0.1, 999, seed)
        claims += any(e.claimed for e in found.effects)
        for kind in ("book", "feature", "order", "gap", "interaction"):
            p = [e.p for e in found.effects if e.kind == kind]
            if p:
                one.setdefault(kind, []).append(float(rng.choice(p)))
    ks = {kind: round(float(kstest(p, "uniform").pvalue), 3) for kind, p in one.items()}
    print(f"null: any claim in {claims} of {studies} studies ({claims / studies:.1%}); KS p, one p a study: {ks}")


def coverage(n: int, first: int) -> None:
    """How many 90 % intervals hold the truth, stratum by stratum."""
    inside: dict[str, list[bool]] = {}
    for seed in range(first, first + 2 * n):
        rng = np.random.default_rng(seed)
        effects = {i: float(0.6 * rng.standard_normal()) for i in range(10)} | {10: 0.7, 11: 0.7}  # 10, 11: twins
        planted = Planted(
            40, 20, n_single=120, n_seeds=10, n_order=30, n_gaps=30, book_effects=effects,
            late_effects={"feature_1": 1.2}, gap_effects=dict.fromkeys(GAPS, -2.0), less_text=-1.0, shuffled=-0.5,
            set_sd=0.3, block_sd=0.3,
        )  # fmt: skip
        rows, table, found = study(planted, 900 + seed, 99)
        unit = table.abilities["linking"].unit_sd
        truth, ids = true_book_effects(planted, rows.books), sorted(rows.books)
        of_gap = {"gap_dose": -2.0, "shuffled_vs_random": -0.5}
        for e in found.effects:
            true, stratum = of_gap.get(e.name, 0.0), e.kind
            if e.kind == "book":
                true = truth[e.name]
                stratum = "book large" if abs(true) > 0.5 else "book small" if abs(true) > 0.1 else "book null"
                stratum = "book twins" if e.name in (ids[10], ids[11]) else stratum
            elif (e.kind == "gap" and e.name != "gap_dose") or e.name.endswith(":feature_1"):
                continue
            inside.setdefault(stratum, []).append(e.low * unit <= true <= e.high * unit)
    for stratum, hits in sorted(inside.items()):
        print(f"coverage {stratum:<12} {np.mean(hits):.3f}  ({len(hits)} intervals)")


def rare(n: int, first: int) -> None:
    """Over-dispersed sets of a large library: books in few sets, clusters and features planted."""
    inside, z, p = [], [], []
    for seed in range(first, first + max(2, n // 4)):
        rng = np.random.default_rng(seed)
        table, books_of, clusters, effects = dispersed(300, 20_000, 50, rng)
        found = estimate_effects(table, books_of, 0.1, 499, seed, clusters)
        for e in found.effects:
            if e.kind == "book":
                inside.append(e.low <= effects[e.name] <= e.high)
                z.append((e.estimate - effects[e.name]) / e.se)
                p.append(e.p)
    print(f"rare books of 20,000 in 300 dispersed sets: coverage {np.mean(inside):.3f}, z sd {np.std(z):.2f}, ", end="")
    print(f"{len(z)} intervals")


def dispersed(
    n_sets: int, n_books: int, size: int, rng: np.random.Generator, n_features: int = 8
) -> tuple[Table, dict[str, Book], dict[str, int], dict[str, float]]:
    """Return a table of single runs over Dirichlet sets of 64 clusters, its books, clusters and true effects."""
    cluster = rng.integers(0, 64, n_books)
    features = rng.standard_normal((n_books, n_features))
    effect = 0.1 * rng.standard_normal(64)[cluster] + 0.1 * features[:, 0] + 0.1 * rng.standard_normal(n_books)
    effect -= effect.mean()
    of_cluster = [np.flatnonzero(cluster == c) for c in range(64)]
    variants, score = [], np.zeros(n_sets)
    for i in range(n_sets):
        counts = rng.multinomial(size, rng.dirichlet(np.full(64, 0.1)))
        counts = [min(c, len(own)) for c, own in zip(counts, of_cluster, strict=True)]
        held = np.concatenate([rng.choice(own, c, replace=False) for c, own in zip(counts, of_cluster, strict=True)])
        score[i] = effect[held].sum() * size / len(held) + rng.standard_normal()
        ids = [f"b{j:07d}" for j in held]
        variants.append(
            Variant(f"v{i}", i, "exploration", i, i, "single", "base", ids, "random", "none", 1.0, 1, i, [1])
        )
    facts = Ability("linking", True, "", ("given",), "score", 1.0, n_sets, 0, False)
    runs = tuple(v.variant_id for v in variants)
    table = Table(runs, tuple(variants), np.arange(n_sets), {"linking": score}, {"linking": facts})
    used = sorted({b for v in variants for b in v.book_ids})
    books_of = {
        b: Book(b, b, "", None, "en", "", "", "", 0, "train", 1, 1, [0],
                {f"f{k}": float(features[int(b[1:]), k]) for k in range(n_features)})
        for b in used
    }  # fmt: skip
    place = {b: int(b[1:]) for b in used}
    return (
        table,
        books_of,
        {b: int(cluster[i]) for b, i in place.items()},
        {b: float(effect[i]) for b, i in place.items()},
    )


def prediction(n: int, first: int) -> None:
    """Prediction of fresh sets, luck of the ten best, twins, the order variance that the first shape explains."""
    ratio, expected, kept, share, twin = [], [], [], [], []
    for seed in range(first, first + n):
        rng = np.random.default_rng(seed)
        effects = {i: float(e) for i, e in enumerate(0.5 * rng.standard_normal(60))}  # h2 of about .8
        effects |= {i + 30: effects[i] for i in range(5)}  # twins
        planted = Planted(n_single=800, book_effects=effects, **PLAIN)
        rows, table, found = study(planted, seed, 99)
        unit, ids = table.abilities["linking"].unit_sd, sorted(rows.books)
        sets = [[ids[i] for i in rng.permutation(60)[:30]] for _ in range(200)]
        truth = np.array([sum(effects[ids.index(b)] for b in s) for s in sets])
        h2 = float(np.var(truth) / (np.var(truth) + 1.0))
        scored = truth + rng.standard_normal(200)
        ratio.append(spearman(fit(table, rows.books).predict(sets)[0], scored) / np.sqrt(h2))
        ranked = rank(table).rows
        means = {v.variant_id: true_mean(planted, rows.books, v) for v in rows.variants}
        average = float(np.mean(list(means.values())))
        luck = exaggeration(np.array([r.raw for r in ranked]), np.array([r.posterior for r in ranked]), 10)
        expected.append(luck["posterior"] * unit)
        best = sorted(ranked, key=lambda r: -r.raw)[:10]
        kept.append(np.mean([means[r.variant_id] - average for r in best]))
        own = {e.name: e for e in found.effects if e.kind == "book"}
        twin += [
            (own[ids[i]].estimate - own[ids[i + 30]].estimate) / np.hypot(own[ids[i]].se, own[ids[i + 30]].se)
            for i in range(5)
        ]
        predict_sets(found.models["linking"], 0.1, seed, "linking")
        late = Planted(n_order=60, n_seeds=10, n_gaps=0, late_effects={"feature_1": 1.5}, set_sd=0.3, block_sd=0.3)
        share.append(study(late, seed, 99)[2].inside["linking"][1].by_kernel)  # type: ignore[union-attr]
    print(f"LDS on 200 fresh sets / ceiling {np.mean(ratio):.3f}; luck of the top 10: expected to keep ", end="")
    print(f"{np.mean(expected):.2f}, kept {np.mean(kept):.2f}; twins' z sd {np.std(twin):.2f}, worst ", end="")
    print(f"{np.max(np.abs(twin)):.1f}; order variance explained by the first shape {np.mean(share):.2f}")


def ideal(n: int, first: int) -> None:
    """How often the range of a recommended set holds what it is worth, where few, many or no books matter."""
    truths: dict[str, Callable[[np.random.Generator], dict[int, float]]] = {
        "nothing": lambda _: {},
        "one strong book": lambda _: {7: 1.8},
        "five books": lambda _: {i: (1.0 if i % 2 else -1.0) for i in range(5)},
        "all books a little": lambda rng: {i: float(e) for i, e in enumerate(0.5 * rng.standard_normal(40))},
    }
    for name, truth in truths.items():
        rows = [of_recommended(truth(np.random.default_rng(seed)), seed) for seed in range(first, first + 2 * n)]
        made = np.array([row for row in rows if row is not None])
        held, predicted, worth, sure, above = made.mean(axis=0)
        print(f"ideal set, {name:<18} range holds {held:.2f}; predicted {predicted:.2f}, worth {worth:.2f}; ", end="")
        print(f"books called sure {sure:.1f}; range above zero {above:.2f} ({len(made)} of {len(rows)} studies)")


def of_recommended(effects: dict[int, float], seed: int) -> tuple[float, ...] | None:
    """Return whether the range of one study's best set holds its worth, and what was said; None = no set."""
    rows = simulate(Planted(40, 20, n_single=60, n_seeds=10, n_order=16, n_gaps=16, book_effects=effects), seed)
    table = make_table(rows)
    found = recommend(fit(table, rows.books), [], "", 0, seed, told=True)
    if found is None:
        return None
    own = np.array([effects.get(i, 0.0) for i in range(40)]) / table.abilities["linking"].unit_sd
    chosen = [sorted(rows.books).index(b) for b in found.book_ids]
    worth = float(own[chosen].sum() - own.mean() * len(chosen))
    return found.low <= worth <= found.high, found.predicted, worth, len(found.sure), found.low > 0


def campaigns(n: int, first: int) -> None:
    """Whole campaigns in rounds where nothing is real: adaptive sets are proposed from the scores that luck gave."""
    claims, one = 0, dict[str, list[float]]()
    rng = np.random.default_rng(first + 1)
    with tempfile.TemporaryDirectory() as scratch:
        source = WorkFolder(Path(scratch, "source"))
        made = simulate(Planted(60, 20, n_single=4), 1).books.values()
        write_rows(source.path("books", "catalogue.parquet"), list(made), Book)
        for seed in range(first, first + 4 * n):
            found = null_campaign(source, Path(scratch, str(seed)), seed)
            claims += any(e.claimed for e in found.effects)
            for kind in ("book", "feature", "order", "gap"):
                if p := [e.p for e in found.effects if e.kind == kind]:
                    one.setdefault(kind, []).append(float(rng.choice(p)))
    ks = {kind: round(float(kstest(p, "uniform").pvalue), 3) for kind, p in one.items()}
    print(f"null campaigns in rounds: any claim in {claims} of {4 * n}; KS p, one p a campaign: {ks}")


def null_campaign(source: WorkFolder, folder: Path, seed: int) -> Estimated:
    """Play one campaign in which nothing is real, and analyse it as a study is."""
    changes = {
        "seed": seed, "sets.count": 240, "sets.books_per_set": 20, "sets.base_order": "random",
        "sets.contrast_orders": ["reverse", "shuffled"],
    }  # fmt: skip
    play(ltm.load("demo", changes).settings, source, Truth(set_sd=0.5), seed, folder, Progress(quiet=True))
    work = WorkFolder(folder)
    rows = read_input(work)
    books_of = {b.book_id: b for b in read_rows(work.path("books", "catalogue.parquet"), Book)}
    return estimate_effects(make_table(rows), books_of, 0.1, 999, seed)


def speed(_n: int, first: int) -> None:
    """Time and memory of the largest tables."""
    for n_sets, n_books, size, n_features in ((10_000, 10_000, 100, 53), (1_000, 1_000_000, 100, 8)):
        rng = np.random.default_rng(first)
        table, books_of, clusters, _effects = dispersed(n_sets, n_books, size, rng, n_features)
        began, cpu = time.perf_counter(), time.process_time()
        estimate_effects(table, books_of, 0.1, 9999, 1, clusters if n_books > n_sets else None)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{n_sets} runs x {n_books} books, {n_features} features, 9999 redraws: ", end="")
        print(f"{time.perf_counter() - began:.0f} s wall, ", end="")
        print(f"{time.process_time() - cpu:.0f} CPU s, peak {rss:.1f} GiB")


PARTS: dict[str, Callable[[int, int], None]] = {
    "books": books, "null": null, "campaigns": campaigns, "coverage": coverage, "rare": rare, "prediction": prediction,
    "ideal": ideal, "speed": speed,
}  # fmt: skip


def main() -> None:
    meanings = [f"  {name:<11} {(part.__doc__ or '').splitlines()[0]}" for name, part in PARTS.items()]
    parser = argparse.ArgumentParser(
        description="Check the patterns against studies whose truth is known.",
        epilog="\n".join(["parts:", *meanings]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="?", choices=[*PARTS, "all"], default="all", help="what is checked (all)")
    parser.add_argument("n", nargs="?", type=int, default=20, help="more studies for a greater one (20)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="seed of the first study (0)")
    options = parser.parse_args()
    if options.n < 1 or options.first < 0:
        parser.error("n must be at least 1, and the seed at least 0")
    for name in PARTS if options.part == "all" else [options.part]:
        PARTS[name](options.n, options.first)


if __name__ == "__main__":
    main()
