"""Runs 100,000 small batches while an old snapshot is held elsewhere, and compares the first with the last.

The question is what grows with the length of a run: the cost of a batch, the pages that a poll of backfill.progress
reads, and the worker's memory. Not part of CI, which has short versions (tests/cluster/test_long_runs.py): times
mean something only on a machine that does nothing else. Run it through scripts/soak, which builds and installs first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", "--batches", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("-b", "--batch", type=int, default=10, help="rows per commit (default 10)")
    return parser.parse_args()


def main() -> int:
    """One run and its report; 0 if all bounds are kept."""
    args = arguments()
    from harness import Server, process
    from harness.soak import Soak

    process.exit_on_sigterm()
    server = Server()
    server.hold()
    soak = Soak(batches=args.batches, batch_size=args.batch)
    soak.run(server)
    ratio, cpu_ratio = soak.last / soak.first, soak.last_cpu / soak.first_cpu
    memory = soak.memory
    growth = max(memory.values()) - memory[500]
    checks = {
        "batch, by the clock": (
            f"{soak.first * 1e6:.0f} us first, {soak.last * 1e6:.0f} us last: {ratio:.2f}",
            ratio <= 1.3,
        ),
        "batch, processor": (
            f"{soak.first_cpu * 1e6:.0f} us first, {soak.last_cpu * 1e6:.0f} us last: {cpu_ratio:.2f}",
            cpu_ratio <= 1.3,
        ),
        "pages of a poll": (f"{soak.pages_early} early, {soak.pages_late} late", soak.pages_late <= soak.pages_early),
        "RssAnon, kB": (", ".join(f"{n:,}: {size // 1024:,}" for n, size in memory.items()), growth < 1 << 20),
        "n | count": ("; ".join(f"{n} | {count:,}" for n, count in soak.counts), len(soak.counts) == 1),
    }
    print(f"PostgreSQL {server.major}, {args.batches:,} batches of {args.batch} rows in {soak.seconds:.1f} s")
    for name, (value, good) in checks.items():
        print(f"{name:<20} {'ok ' if good else 'BAD'}  {value}")
    return 0 if all(good for _, good in checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
