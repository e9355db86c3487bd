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


def patterns_verb(options: argparse.Namespace, load: Any, print_json: Any) -> int | None:
    """Answer `ltm patterns STUDY --scores FILE`; None = the plain stage was asked for."""
    if not options.scores:
        return None
    from ltm.patterns.elsewhere import analyse_scores
    from ltm.study.report import stage_text

    study = load(options)
    value = analyse_scores(study.settings.patterns, study.work, study.settings.seed, Path(options.scores))
    print_json(value) if options.json else print(stage_text("patterns", value))
    return 2 if not value["effects"] and not value["variants"] else 0
