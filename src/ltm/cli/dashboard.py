"""`ltm dashboard STUDY`: write the result page, or serve it while the study runs."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ltm.errors import InputError

if TYPE_CHECKING:
    from ltm.study import Study


def add_dashboard(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("--lang", choices=("en", "ru"), help="language that the page opens in (default: the study's)")
    verb.add_argument("--live", action="store_true", help="serve it on this machine, and renew it while the study runs")
    verb.add_argument("--port", type=int, help="with --live: the port (default: any that is free)")


def dashboard_verb(
    options: argparse.Namespace, load: Callable[[argparse.Namespace], Study], print_json: Callable[[Any], None]
) -> int:
    """Write the page, or serve it until Ctrl-C.

    Raises:
        InputError: `--port` without `--live`, or a port that cannot be used.
    """
    from ltm.dashboard.stage import build
    from ltm.progress import Progress

    if options.port is not None and not options.live:
        raise InputError("--port is that of the live page", "add --live")
    study = load(options)
    section = study.settings.dashboard
    if options.lang:
        section = section.model_copy(update={"language": options.lang})
    if options.live:
        return _serve(study, section.language, options, print_json)
    study.work.create()
    path = build(section, study.work, Progress(quiet=options.quiet))
    print_json({"path": str(path)}) if options.json else print(path)
    return 0


def _serve(study: Study, language: str, options: argparse.Namespace, print_json: Callable[[Any], None]) -> int:
    from ltm.dashboard.live import LivePage

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page = LivePage(study.work, language, study.status, options.port or 0)
    if options.json:
        print_json({"address": page.address})
    else:
        print(f"{page.address}\nThe page renews itself while the study runs. Ctrl-C ends it; the study goes on.")
    page.serve()
    return 0
