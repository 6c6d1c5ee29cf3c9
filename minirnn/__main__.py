"""`python -m minirnn` is the command `minirnn`."""

from __future__ import annotations

import sys

from minirnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
