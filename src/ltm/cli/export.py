"""`ltm export STUDY RUN...`: trained runs as folders that Hugging Face transformers load."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path


def add_export(verb: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    verb.add_argument("runs", nargs="+", metavar="RUN", help="a run id, or the beginning of one")
    verb.add_argument("--out", metavar="DIR", help="gets a folder for each run (default: export in the work folder)")


def export_verb(options: argparse.Namespace) -> int:
    """Write the runs and print where they lie."""
    from ltm.study import load

    study = load(options.study, options.set, options.work, recorded=True)
    from ltm.export.runs import export_runs  # torch comes with it: not for a study file that is wrong

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary folder goes too
    out = Path(options.out).expanduser() if options.out else None
    settings = study.settings
    folders = export_runs(study.work, options.runs, out, settings.name, settings.question)
    if options.json:
        rows = [{"run_id": run_id, "path": str(path)} for run_id, path in folders.items()]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        print("\n".join(str(path) for path in folders.values()))
    return 0
