"""One of the processes that share a run: `torchrun -m ltm.runs.engines.rank WORK RUN MICRO_TOKENS`."""

from __future__ import annotations

import signal
import sys
import threading

from torch import distributed

from ltm.errors import LtmError
from ltm.runs.engines.start import train_here
from ltm.runs.train import Stopped


def main() -> int:
    """Train, and say in one line what went wrong."""
    root, run_id, micro_tokens = sys.argv[1:]
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        train_here(root, run_id, int(micro_tokens), asked.is_set)
    except Stopped:
        return 0
    except LtmError as error:
        print(f"ltm: {error.message}", flush=True)
        return 1
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
