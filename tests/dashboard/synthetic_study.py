"""A work folder as a real study leaves it, made from records: runs, books and effects in any number."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ltm.records import Book, Effect, Gain, Item, Measure, Ranked, Rejected, Reliability, Run, Shard, Tuned, Variant
from ltm.store import WorkFolder, as_json, fingerprint, write_json, write_rows

WORDS = [
    "Quiet",
    "River",
    "Letters",
    "Shadow",
    "Harvest",
    "Winter",
    "Garden",
    "Machine",
    "Island",
    "Candle",
    "Voyage",
    "Law",
    "Mirror",
    "House",
    "Salt",
]
WORDS_RU = [
    "Тихая",
    "река",
    "Письма",
    "Тень",
    "Жатва",
    "Зима",
    "Сад",
    "Машина",
    "Остров",
    "Свеча",
    "Закон",
    "Зеркало",
    "Дом",
    "Соль",
]
GENRES = ["fiction", "science", "poetry", "history", "drama", "letters"]
FAMILIES = {"linking": ["L1", "L2", "L3"], "transfer": ["T0", "T1", "T2"], "synthesis": ["S1"], "fluency": ["F0"]}
ADMITTED = {"linking": True, "transfer": True, "synthesis": False, "fluency": True}
HOSTILE = [
    "<script>alert(1)</script>",
    "A \"quoted\" & 'single' title</script><img src=x onerror=alert(2)>",
    "كتاب ألف ليلة وليلة \u202e reversed",
    "Emoji 📚🔥 and \u2028 a line separator",
    "Long " + "word " * 58,
    '=HYPERLINK("http://example.invalid","x")',
]


def make_books(n_books: int, rng: np.random.Generator, titles: list[str] | None = None) -> list[Book]:
    books = []
    for i in range(n_books):
        russian = i % 5 == 4
        words = WORDS_RU if russian else WORDS
        title = " ".join(rng.choice(words, size=2 + i % 3, replace=False))
        if titles and i < len(titles):
            title = titles[i]
        books.append(
            Book(
                book_id=fingerprint(["book", i]),
                title=title,
                author=("Автор " if russian else "Author ") + chr(ord("A") + i % 26),
                year=None if i % 11 == 0 else 1700 + (i * 37) % 240,
                language="ru" if russian else "en",
                genre=GENRES[i % len(GENRES)],
                source=f"lib/{i:04d}.txt",
                licence="public domain",
                rank=i,
                pool="eval_a" if i % 9 == 8 else "train",
                n_words=int(rng.integers(8_000, 160_000)),
                n_bytes=400_000,
                chapter_starts=[0],
                features={"reading_ease": float(rng.normal())},
            )
        )
    return books


def make_variants(
    n_runs: int, books: list[Book], rng: np.random.Generator, set_size: int | None = None
) -> list[Variant]:
    """Blocks of order (base, reverse) and of gaps (base, gap, truncated), one seed each, until there are enough."""
    train = [book.book_id for book in books if book.pool == "train"]
    variants: list[Variant] = []
    block = 0
    while len(variants) < n_runs:
        chosen = [str(b) for b in rng.permutation(train)[: set_size or max(2, len(train) // 2)]]
        seed = int(rng.integers(1, 2**31))
        kind, density = ["scattered", "blocks", "chapters"][block // 2 % 3], [0.75, 0.5, 0.25][block // 6 % 3]
        arms = [("base", "random", "none", 1.0)]
        if block % 2:
            arms += [("gap", "random", kind, density), ("truncated", "random", "truncated", density)]
        else:
            arms += [("reverse", "reverse", "none", 1.0)]
        for arm, order, gap_kind, share in arms:
            ids = chosen[::-1] if order == "reverse" else chosen
            variants.append(
                Variant(
                    variant_id=fingerprint([block, arm], 12),
                    index=len(variants),
                    round="exploration",
                    block=block,
                    set_id=block,
                    template="gaps" if block % 2 else "order",
                    arm=arm,
                    book_ids=ids,
                    order=order,
                    gap_kind=gap_kind,
                    density=share,
                    spacing=1,
                    stream_seed=block,
                    init_seeds=[seed],
                )
            )
        block += 1
    return variants[:n_runs]


def make_runs(variants: list[Variant], rng: np.random.Generator) -> list[Run]:
    runs = []
    for variant in variants:
        final = float(rng.normal(4.6, 0.12)) + (0.15 if variant.gap_kind != "none" else 0)
        tokens = [2048 * k for k in range(1, 101)]
        curve = [final + 3.2 * math.exp(-t / 40_000) + float(rng.normal(0, 0.03)) for t in tokens]
        runs.append(
            Run(
                run_id=fingerprint(["run", variant.variant_id]),
                variant_id=variant.variant_id,
                init_seed=variant.init_seeds[0],
                model="llama 0.5M (4 layers, 128 wide)",
                n_params=524_288,
                n_tokens=204_800,
                n_steps=100,
                seconds=float(rng.normal(14, 1)),
                tokens_per_second=14_600.0,
                mfu=0.21,
                device="cpu",
                dtype="float32",
                final_loss=final,
                curve_tokens=tokens,
                curve_loss=curve,
                worker="0",
                started_at="2026-01-01T10:00:00+00:00",
                finished_at="2026-01-01T10:00:14+00:00",
                versions={"torch": "2.13.0", "ltm": "0.1.0"},
            )
        )
    return runs


def make_scores(
    runs: list[Run], variants: list[Variant], rng: np.random.Generator
) -> tuple[list[Measure], list[Reliability]]:
    gap_of = {v.variant_id: v for v in variants}
    measures, reliability = [], []
    for ability, families in FAMILIES.items():
        for family in families:
            for run in runs:
                variant = gap_of[run.variant_id]
                value = float(rng.normal(0.02, 0.004))
                value -= 0.006 * (1 - variant.density) * (1.6 if variant.gap_kind == "truncated" else 1)
                measures.append(Measure(run.run_id, ability, family, value, 0.7, value, value, 240))
        for family in [*families, "*"]:
            good = ADMITTED[ability]
            icc = float(rng.uniform(0.4, 0.8)) if good else 0.08
            low, high = max(0.0, icc - 0.2), min(1.0, icc + 0.15)
            reason = "" if good else "ICC 0.08 is below 0.30: the seed drowns the set"
            entry = (12.0 if good else 1.2, 0.71, 0.82 if good else 0.2, icc, low, high, 0.004, good, reason)
            reliability.append(Reliability(ability, family, len(runs), 240, 0.02, 0.0, *entry))
    return measures, reliability


def make_effects(books: list[Book], rng: np.random.Generator) -> list[Effect]:
    named = [("book", b.book_id, b.title) for b in books if b.pool == "train"]
    named += [
        ("feature", f, f.replace("_", " "))
        for f in ("flesch", "log_words", "dialogue_share", "verse_share", "own_idea")
    ]
    named += [("order", n, n) for n in ("shuffled_vs_random", "late:flesch", "late:log_words")]
    named += [("gap", n, n) for n in ("gaps_vs_truncated", "scattered_vs_truncated", "truncated_vs_full", "gap_dose")]
    effects = []
    for ability in FAMILIES:
        for place, (kind, name, label) in enumerate(named):
            se = 0.22 if kind == "book" else 0.12
            strong = (kind == "book" and place % 9 == 1) or name in ("truncated_vs_full", "flesch")
            estimate = float(rng.normal(0, se)) + (1.0 if strong and place % 2 else -0.9 if strong else 0)
            p = math.erfc(abs(estimate) / se / math.sqrt(2))
            q = min(1.0, p * 8)
            claimed = ADMITTED[ability] and q <= 0.1
            low, high = estimate - 1.645 * se, estimate + 1.645 * se
            effects.append(
                Effect(kind, name, label, ability, estimate, se, low, high, p, q, estimate * 0.8, 40, claimed)
            )
    return effects


def make_ranking(runs: list[Run], rng: np.random.Generator) -> list[Ranked]:
    posteriors = sorted(rng.normal(0, 0.8, size=len(runs)), reverse=True)
    return [
        Ranked(
            place=i + 1,
            run_id=run.run_id,
            variant_id=run.variant_id,
            posterior=float(value),
            low=float(value) - 0.7,
            high=float(value) + 0.7,
            raw=float(value) * 1.4,
            tied_with_best=bool(posteriors[0] - value < 0.8),
            abilities={"linking": float(value) + 0.1, "transfer": float(value) - 0.1},
        )
        for i, (run, value) in enumerate(zip(runs, posteriors, strict=True))
    ]


def make_findings(effects: list[Effect]) -> dict[str, object]:
    claimed = sorted((e for e in effects if e.claimed), key=lambda e: -abs(e.estimate))[:8]
    return {
        "findings": [
            {
                "kind": e.kind,
                "name": e.name,
                "ability": e.ability,
                "estimate": e.estimate,
                "low": e.low,
                "high": e.high,
                "q": e.q,
                "claimed": True,
                "text": {
                    "en": f"Linking scenes: sets with “{e.label}” score {abs(e.estimate):.2f} seed sd "
                    f"{'higher' if e.estimate > 0 else 'lower'} than sets without it "
                    f"(90 % interval {e.low:.2f} to {e.high:.2f}; q < 0.001; 40 sets).",
                    "ru": f"Связывание сцен: у наборов с книгой «{e.label}» результат на "
                    f"{abs(e.estimate):.2f} σ повторов {'выше' if e.estimate > 0 else 'ниже'}, чем у наборов без неё "
                    f"(90 %-й интервал от {e.low:.2f} до {e.high:.2f}; q < 0,001; 40 наборов).",
                },
            }
            for e in claimed
        ],
        "not_told_apart": [
            {
                "text": {
                    "en": "Reversed and random order cannot be told apart.",
                    "ru": "Обратный и случайный порядок неразличимы.",
                }
            }
        ],
        "notes": [{"en": "Synthesis is not measurable at this size.", "ru": "Синтез при таком размере не измеряется."}],
    }


def write_study(
    root: Path,
    n_runs: int = 96,
    n_books: int = 56,
    titles: list[str] | None = None,
    finished: int | None = None,
    set_size: int | None = None,
) -> WorkFolder:
    """Write a whole study; `finished` leaves all but so many runs out, with everything that follows from runs."""
    rng = np.random.default_rng(7)
    work = WorkFolder(root)
    work.create()
    books = make_books(n_books, rng, titles)
    variants = make_variants(n_runs, books, rng, set_size)
    runs = make_runs(variants, rng)
    study = {"name": "demo", "question": "Which books make a micro model link the scenes of a story?", "seed": 7}
    write_json(work.path("study.json"), study)
    write_rows(work.path("books", "catalogue.parquet"), books, Book)
    rejected = [
        Rejected("lib/bad.epub", "read", "the archive is damaged"),
        Rejected("lib/x.txt", "duplicate", "of y.txt"),
    ]
    write_rows(work.path("books", "rejected.parquet"), rejected, Rejected)
    write_rows(work.path("sets", "variants.parquet"), variants, Variant)
    shards = [Shard(b.book_id, 1000 * i, 1000, [0]) for i, b in enumerate(books)]
    write_rows(work.path("tokens", "shards.parquet"), shards, Shard)
    items = [Item(f"i{i}", "a", "linking", "L1", "en", books[8].book_id, "pair", ["a"], ["b"], 0) for i in range(40)]
    write_rows(work.path("evalset", "bank_a.parquet"), items, Item)
    forecast = [("books", 5, 3, 8), ("sets", 1, 0.5, 2), ("tokens", 12, 8, 18)]
    forecast += [("runs", n_runs * 13.0, n_runs * 9.0, n_runs * 19.0)]
    forecast += [("scores", n_runs * 1.1, n_runs * 0.6, n_runs * 1.9), ("patterns", 20, 10, 40)]
    stages = [dict(zip(("stage", "seconds", "low", "high"), entry, strict=True)) for entry in forecast]
    write_json(work.path("forecast.json"), {"stages": stages})
    for run in runs[:finished]:
        write_json(work.path("runs", run.run_id, "run.json"), as_json(run))
    if finished is not None and finished < len(runs):
        return work
    measures, reliability = make_scores(runs, variants, rng)
    effects = make_effects(books, rng)
    write_rows(work.path("scores", "measures.parquet"), measures, Measure)
    write_rows(work.path("scores", "reliability.parquet"), reliability, Reliability)
    write_rows(work.path("patterns", "effects.parquet"), effects, Effect)
    ranking = make_ranking(runs, rng)
    write_rows(work.path("patterns", "ranking.parquet"), ranking, Ranked)
    tuned = [Tuned(r.run_id, r.place, "full", 900, 90, 56, 3.1, 2.1, 1.8, 40.0) for r in ranking[:3]]
    write_rows(work.path("dialogue", "tuned.parquet"), tuned, Tuned)
    gains = [Gain(t.run_id, "linking", f, 0.01, 0.02, 0.4, 0.6, 0.7) for t in tuned for f in ("L1", "L2")]
    gains += [Gain(t.run_id, "fluency", "F0", -2.1, -2.2, -1.5, float("nan"), float("nan")) for t in tuned]
    write_rows(work.path("dialogue", "gains.parquet"), gains, Gain)
    write_json(work.path("patterns", "findings.json"), make_findings(effects))
    measured = {"books": 6.1, "sets": 0.8, "tokens": 15.0, "runs": sum(r.seconds for r in runs), "scores": n_runs * 1.3}
    write_json(work.path("timings.json"), {"stages": measured | {"patterns": 22.0}})
    return work
