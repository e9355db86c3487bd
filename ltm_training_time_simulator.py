"""How long will it take on my card? The forecaster of ltm under the name that users know; runs from a clone.

    python ltm_training_time_simulator.py                          training from scratch on one RTX PRO 6000
    python ltm_training_time_simulator.py table books              1, 10, 100, 1000 books
    python ltm_training_time_simulator.py --model 7b --method lora --gpu "RTX 4090" --tokens 10M

All arguments are those of `ltm forecast`. It needs Python 3.11 or newer and numpy, nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

_NUMPY = "numpy>=2"
_MORE = """
More: --gpu "RTX 4090" --gpus 2 --model 1.3b --tokens 20B    one answer in detail
      table books|speedups|feasible|campaign                 other tables
      --claim                                                claims from elsewhere beside the forecast
      --help                                                 everything"""


def main(arguments: list[str]) -> int:
    """Run `ltm forecast` with these arguments; without any, print the table of training from scratch."""
    if sys.version_info < (3, 11):  # noqa: UP036 - a clone is run with whatever Python is there
        print(f"error: Python {sys.version.split()[0]} is too old\n  hint: use Python 3.11 or newer", file=sys.stderr)
        return 2
    sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
    try:
        import numpy  # noqa: F401 - only to say how to install it
    except ImportError:
        print(f'error: numpy is not installed\n  hint: {sys.executable} -m pip install "{_NUMPY}"', file=sys.stderr)
        return 2
    from ltm.cli import main as ltm

    code = ltm(["forecast", *(arguments or ["table", "train"])])
    if not arguments:
        print(_MORE)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
