"""The verbs of inference beside the stage: scores from elsewhere, proxy tables, simulated truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_patterns(verb: argparse.ArgumentParser) -> None:
    """Add the flags of `ltm patterns` that need no run of the study."""
    verb.add_argument(
        "--scores",
        metavar="FILE.csv",
        help="analyse the stored design with scores from elsewhere: columns run_id (or variant id), ability, score",
    )
    verb.add_argument("--language", choices=("en", "ru"), help="of the sentences (default: that of the dashboard)")


def add_simulate(verbs: Any, study_verb: Any, load: Any, print_json: Any) -> None:
    """Add the verb `simulate`."""
    verb = study_verb(
        verbs, "simulate", lambda options: _simulate(options, load, print_json),
        "write scores with a known truth for the stored design of a study, to check what `patterns` makes of them",
    )  # fmt: skip
    verb.add_argument("--out", default="simulated", metavar="DIR", help="where scores.csv and truth.json go")
    verb.add_argument(
        "--truth", metavar="FILE.json", help="the whole planted truth; the flags below are not needed then"
    )
    verb.add_argument("--seed", type=int, default=0, help="of planting and noise (default: 0)")
    verb.add_argument("--books", type=int, default=0, metavar="N", help="plant N books, half of them harmful")
    verb.add_argument("--effect", type=float, default=0.5, help="of a planted book, seed sd (default: 0.5)")
    for name, meaning in _PLANTED.items():
        verb.add_argument(f"--{name}", action="append", default=[], metavar="NAME=EFFECT", help=meaning)
    verb.add_argument("--less-text", type=float, default=0.0, help="effect per share of text left out, gaps or not")
    verb.add_argument("--set-sd", type=float, default=0.0, help="luck of a set beyond its books, seed sd")
    verb.add_argument("--seed-sd", type=float, default=1.0, help="noise of one run (default: 1)")
    verb.add_argument("--abilities", default="linking", help="comma-separated (default: linking)")
    verb.add_argument(
        "--rounds", action="store_true",
        help="play the study's rounds: adaptive and confirmation sets are chosen by the simulated scores, in DIR",
    )  # fmt: skip


def add_proxies(verbs: Any, print_json: Any) -> None:
    """Add the verb `proxies`."""
    text = "learn from a table of mixtures and scores (RegMix, Olmix) which mixture is best; needs no study"
    verb = verbs.add_parser("proxies", help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("weights", metavar="WEIGHTS.csv", help="one row per trained proxy, one column per domain")
    verb.add_argument("scores", metavar="SCORES.csv", help="one row per trained proxy, one column per measure")
    verb.add_argument("--target", default="", metavar="COLUMN", help="the measure (default: the first)")
    verb.add_argument("--predict", metavar="WEIGHTS.csv", help="mixtures to predict")
    verb.add_argument("--check", metavar="SCORES.csv", help="their true scores: prints the rank correlation")
    verb.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
    verb.set_defaults(call=lambda options: _proxies(options, print_json))


def _proxies(options: argparse.Namespace, print_json: Any) -> int:
    from ltm.patterns.proxies import read_columns, report, sentences

    unseen = read_columns(Path(options.predict)) if options.predict else None
    truth = read_columns(Path(options.check)) if options.check else None
    tables = read_columns(Path(options.weights)), read_columns(Path(options.scores))
    value = report(*tables, options.target, unseen, truth)
    print_json(value) if options.json else print("\n".join(sentences(value)))
    return 0


_PLANTED = {
    "feature": "effect per sd of a set's mean feature",
    "place": "effect per sd of a term of place, such as kernel:flesch or late:flesch",
    "order": "effect of an order against random, such as shuffled=-0.5",
    "gap": "effect per share left out of a kind of gaps against as much text without; `*` = all kinds",
    "interaction": "what two books together add: 'ID x ID=EFFECT'",
}


def _simulate(options: argparse.Namespace, load: Any, print_json: Any) -> int:
    from ltm.patterns.truth import random_truth, read_truth, write_simulation

    study = load(options)
    if not study.work.path("sets", "variants.parquet").exists():
        from ltm.progress import Progress

        study.run("sets", Progress(quiet=options.quiet))  # a design that is only described is drawn first
    if options.truth:
        truth = read_truth(Path(options.truth))
    else:
        pairs = {name: _pairs(getattr(options, name)) for name in _PLANTED}
        truth = random_truth(
            study.work, options.books, options.effect, options.seed,
            features=pairs["feature"], places=pairs["place"], orders=pairs["order"], gaps=pairs["gap"],
            interactions=pairs["interaction"], less_text=options.less_text, set_sd=options.set_sd,
            seed_sd=options.seed_sd, abilities=tuple(a.strip() for a in options.abilities.split(",") if a.strip()),
        )  # fmt: skip
    if options.rounds:
        from ltm.progress import Progress
        from ltm.study.campaign import play

        progress = Progress(quiet=options.quiet or options.json)
        written = play(study.settings, study.work, truth, options.seed, Path(options.out), progress)
    else:
        written = write_simulation(study.work, truth, options.seed, Path(options.out))
    if options.json:
        print_json(written)
    else:
        print(f"wrote {written['scores']} ({written['runs']} runs) and {written['truth']}")
        more = f" --work {written['work']}" if options.rounds else ""
        print(f"next: ltm patterns {options.study}{more} --scores {written['scores']}")
    return 0


def _pairs(texts: list[str]) -> dict[str, float]:
    from ltm.errors import InputError

    found = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise InputError(f"`{text}` is not NAME=EFFECT", "for example flesch=0.5") from None
    return found


def patterns_text(study: Any, options: argparse.Namespace, value: dict[str, Any]) -> str:
    """Return what the patterns say as a table and in sentences."""
    from ltm.patterns.words import report_lines
    from ltm.study.report import stage_text

    language = options.language or study.settings.dashboard.language
    return "\n".join([stage_text("patterns", value), *report_lines(value, language)])


def patterns_verb(options: argparse.Namespace, load: Any, print_json: Any) -> int | None:
    """Answer `ltm patterns STUDY --scores FILE`; None = the plain stage was asked for."""
    if not options.scores:
        return None
    from ltm.patterns.elsewhere import analyse_scores

    study = load(options)
    value = analyse_scores(study.settings.patterns, study.work, study.settings.seed, Path(options.scores))
    print_json(value) if options.json else print(patterns_text(study, options, value))
    return 2 if not value["effects"] and not value["variants"] else 0
