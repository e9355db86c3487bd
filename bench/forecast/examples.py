"""Run the examples of docs/forecast.md and put their output below them; `--check` only says whether they still hold.

    python bench/forecast/examples.py [--check]

An example is a fenced block whose first line is `$ ltm forecast ...`; what follows up to the fence is its output.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from pathlib import Path

from ltm.cli import main as ltm

DOCS = Path(__file__).parents[2] / "docs/forecast.md"
_EXAMPLE = re.compile(r"```console\n\$ ltm (.*)\n(?:.*\n)*?```")


def output_of(command: str) -> str:
    out = io.StringIO()
    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        ltm(shlex.split(command))
    return out.getvalue().rstrip("\n")


def renewed(text: str) -> str:
    return _EXAMPLE.sub(lambda found: f"```console\n$ ltm {found[1]}\n{output_of(found[1])}\n```", text)


def main() -> int:
    text = DOCS.read_text(encoding="utf-8")
    new = renewed(text)
    if "--check" in sys.argv:
        print("the examples hold" if new == text else "the examples have changed: run bench/forecast/examples.py")
        return int(new != text)
    DOCS.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
