"""Runs backfills of 1,000,000 rows while clients write the table, workers are killed and the server restarts.

Most kills hit a worker at its work; some hit one that has just taken over, the launcher, the checkpointer. Every
third restart comes while the server still recovers from a kill of its own.

Each kind in turn: in key order with waves and `n = n + 1`; in physical order and `n = n + 1 WHERE n = 0`; both over
eight partitions, too. Clients update, insert and delete all the while. Who is killed, and after how many rows, comes
from the seed. At the end each row that was there at the start has to be 1, and no other one more than 1.

Not part of CI, which has a small version (tests/cluster/test_exactly_once.py): a run takes some minutes.
Run it through scripts/storm, which builds and installs the extension first.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

from harness import Server, process  # noqa: E402 - found by the line above
from harness.storm import KINDS, Storm  # noqa: E402


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/storm [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"default: all of {', '.join(KINDS)}")
    parser.add_argument("-n", "--rows", type=int, default=1_000_000, help="rows of the table (default 1000000)")
    parser.add_argument("-b", "--batch", type=int, default=1000, help="rows per commit, at most (default 1000)")
    parser.add_argument("-w", "--workers", type=int, default=4, help="workers of the job (default 4)")
    parser.add_argument("-c", "--clients", type=int, default=4, help="clients of pgbench (default 4)")
    parser.add_argument("-k", "--kills", type=int, default=20, help="how many processes get kill -9 (default 20)")
    parser.add_argument("-r", "--restarts", type=int, default=1, help="how many restarts of the server (default 1)")
    parser.add_argument("-s", "--seed", type=int, default=int(time.time()), help="default: from the clock")
    parser.add_argument(
        "-m", "--mode", choices=["fast", "immediate"], default="immediate", help="how the server is restarted"
    )
    parser.add_argument("-t", "--timeout", type=float, default=900, help="seconds until it gives up (default 900)")
    args = parser.parse_args()
    if unknown := [kind for kind in args.kinds if kind not in KINDS]:
        parser.error(f"no kind {unknown[0]}: there are {', '.join(KINDS)}")
    return args


def shown(rows: list[int]) -> str:
    """The numbers; of very many the first and the last."""
    words = [f"{n:,}" for n in rows]
    return ", ".join(words if len(words) <= 30 else [*words[:5], "...", *words[-5:]])


def report(storm: Storm) -> bool:
    """Prints the figures of a run; whether every row was updated exactly once and no client's work was lost."""
    whole = storm.sums[0] == storm.sums[1]
    deleted, inserted = storm.client_rows
    for name, value in {
        "kind, seed": f"{storm.kind}, {storm.seed}",
        "rows, batch size": f"{storm.rows:,}, {storm.batch_size:,}",
        "kill -9, restarts": f"{storm.kills}, {storm.restarts} ({storm.restart_mode})",
        "blows": ", ".join(f"{count} {blow}" for blow, count in storm.blows.most_common()),
        "after rows": shown(storm.struck_at),
        "workers started": f"{storm.workers_started}, {storm.workers} at a time",
        "seconds": f"{storm.seconds:.1f}",
        "clients": f"{storm.clients}, started {storm.load_starts} times; deleted {deleted:,}, inserted {inserted:,}",
        "sums agree": "yes" if whole else f"NO: {storm.sums}",
        "there at the start": "; ".join(f"{count:,} are {n}" for early, n, count in storm.counts if early),
        "inserted later": "; ".join(f"{count:,} are {n}" for early, n, count in storm.counts if not early),
        "note": storm.note or "none",
        "result": "each row exactly once" if storm.once else "WRONG",
    }.items():
        print(f"{name:<18} {value}", flush=True)
    return storm.once and whole


def main() -> int:
    """The runs and their reports; 0 if all are as they should be."""
    args = arguments()
    process.exit_on_sigterm()
    server = Server()
    server.hold()
    good = True
    for number, kind in enumerate(args.kinds or KINDS):
        storm = Storm(
            kind=kind,
            rows=args.rows,
            batch_size=args.batch,
            workers=args.workers,
            slices=0,
            clients=args.clients,
            kills=args.kills,
            restarts=args.restarts,
            restart_mode=args.mode,
            seed=args.seed,
            timeout=args.timeout,
            conf={"shared_buffers": "256MB", "max_wal_size": "4GB"},
        )
        print("" if number else f"PostgreSQL {server.major}")
        storm.run(server)
        good = report(storm) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
