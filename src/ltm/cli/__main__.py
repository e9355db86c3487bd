"""`python -m ltm.cli` is `ltm`."""

import sys

from ltm.cli import main

if __name__ == "__main__":
    sys.exit(main())
