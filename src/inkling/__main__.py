"""`python -m inkling`."""

from __future__ import annotations

import os
import sys

from inkling.cli import main

if __name__ == "__main__":
    status = main()
    if (
        "RANK" in os.environ
    ):  # one of several processes: torch's threads for talking to the others abort at a normal exit
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
