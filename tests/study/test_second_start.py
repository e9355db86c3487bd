"""A start that finds nothing to do is quick: no stage brings PyTorch or scipy.stats before it has something to make."""

import subprocess
import sys

_LOOK = """
import sys
from importlib import import_module
import ltm.cli, ltm.study.build
from ltm.study.standing import STAGES
for name in STAGES:
    if name != "runs":
        import_module(f"ltm.{name}.stage")
print(*sorted({"torch", "scipy.stats", "transformers", "altair"} & set(sys.modules)))
"""


def test_stages_that_make_nothing_import_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
