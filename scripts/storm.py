"""Runs a backfill of pgbench's accounts while clients write them, workers are killed and the server restarts.

Not part of CI, which has a small version (tests/cluster/test_exactly_once.py): a run takes some minutes.
Run it through scripts/storm, which builds and installs the extension first.
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
        prog="scripts/storm [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-s", "--scale", type=int, default=20, help="pgbench's scale: 100,000 rows each (default 20)")
    parser.add_argument("-b", "--batch", type=int, default=5000, help="rows per commit (default 5000)")
    parser.add_argument("-c", "--clients", type=int, default=4, help="clients of pgbench (default 4)")
    parser.add_argument("-k", "--kills", type=int, default=3, help="how many workers get kill -9 (default 3)")
    parser.add_argument(
        "-m", "--mode", choices=["fast", "immediate"], default="immediate", help="how the server is restarted"
    )
    parser.add_argument("-t", "--timeout", type=float, default=900, help="seconds until it gives up (default 900)")
    return parser.parse_args()


def main() -> int:
    """One run and its report; 0 if every row was updated exactly once and no client's work was lost."""
    args = arguments()
    from harness import Server
    from harness.storm import Storm

    server = Server()
    server.hold()
    storm = Storm(
        scale=args.scale,
        batch_size=args.batch,
        clients=args.clients,
        kills=args.kills,
        restart_mode=args.mode,
        timeout=args.timeout,
        conf={"shared_buffers": "256MB", "max_wal_size": "4GB"},
    )
    storm.run(server)
    once = storm.counts == [(1, storm.rows)]
    whole = len(set(storm.balances)) == 1
    struck = ", ".join(f"{rows:,}" for rows in storm.struck_at)
    for name, value in {
        "PostgreSQL": server.major,
        "rows, batch size": f"{storm.rows:,}, {storm.batch_size:,}",
        "kill -9, restarts": f"{storm.kills}, 1 ({storm.restart_mode}), after rows {struck}",
        "workers started": storm.workers,
        "seconds": f"{storm.seconds:.1f}",
        "pgbench": f"{storm.clients} clients, started {storm.load_starts} times, {storm.transactions:,} transactions",
        "balances agree": "yes" if whole else f"NO: {storm.balances}",
        "n | count": "; ".join(f"{n} | {count:,}" for n, count in storm.counts),
        "result": "each row exactly once" if once else "WRONG",
    }.items():
        print(f"{name:<18} {value}")
    return 0 if once and whole else 1


if __name__ == "__main__":
    sys.exit(main())
