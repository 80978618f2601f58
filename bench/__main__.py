"""`python -m bench`, which scripts/bench calls."""

import sys
from pathlib import Path

# The harness of the cluster tests starts the servers here, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "cluster"))

from bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
