"""Runs random backfills through random trouble, and checks that each row was updated exactly once.

Tables, keys, clauses, settings, writers and events all come from a seed and a number. What fails is printed with both,
and can be run again alone: scripts/property 16 --seed N --case K. Events come at random moments of a run,
so a failure may need some repetitions (--repeat).
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

import psycopg  # noqa: E402 - like the next, from the environment that scripts/setup made
from harness import Cluster, Server, process  # noqa: E402 - found by the line above
from harness.cases import Case, make  # noqa: E402
from harness.property import Violation, run  # noqa: E402


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/property [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--minutes", type=float, default=60, help="how long to go on (default 60)")
    parser.add_argument("-s", "--seed", type=int, default=int(time.time()), help="default: from the clock")
    parser.add_argument("-k", "--case", type=int, help="this case only")
    parser.add_argument("-f", "--first", type=int, default=0, help="the first case (default 0)")
    parser.add_argument("-r", "--repeat", type=int, default=1, help="how often each case (default 1)")
    parser.add_argument("-x", "--stop", action="store_true", help="stop at the first failure")
    parser.add_argument("-w", "--without", action="append", default=[], help="no writer or event of this name")
    parser.add_argument("--walk", choices=["key", "physical"], help="only cases of this order")
    parser.add_argument("--no-blows", action="store_true", help="no kills, no restarts")
    parser.add_argument("--no-keyless", action="store_true", help="no tables without a key")
    parser.add_argument("--no-partitions", action="store_true", help="no partitioned tables")
    return parser.parse_args()


def chosen(args: argparse.Namespace, number: int) -> Case | None:
    """The case with this number; none if it is not wanted."""
    case = make(
        args.seed, number, blows=not args.no_blows, keyless=not args.no_keyless, partitions=not args.no_partitions
    )
    if args.walk and args.case is None and case.physical != (args.walk == "physical"):
        return None
    return dataclasses.replace(
        case,
        writers=tuple(kind for kind in case.writers if kind not in args.without),
        events=tuple(event for event in case.events if event[1] not in args.without),
    )


class Runs:
    """Runs cases on one server, as long as it does no wrong, and counts."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cluster: Cluster | None = None
        self.failures: list[int] = []
        self.events: collections.Counter[str] = collections.Counter()
        self.runs = self.rows = 0

    def run(self, case: Case) -> str | None:
        """Runs a case; gives what went wrong."""
        if self.cluster is None:
            self.cluster = Cluster(server=self.server, conf={"backfill.max_workers": 6}).__enter__()
            self.cluster.sql("CREATE EXTENSION backfill")
        self.runs += 1
        try:
            row = run(self.cluster, case)
        except (Violation, psycopg.Error) as error:
            self.failures.append(case.number)
            log = self.cluster.log_tail(30)
            self.stop()
            return f"{error}\n\nThe end of the server's log:\n{log}"
        self.events.update(row["events"])
        self.rows += row["rows_updated"]
        return None

    def stop(self) -> None:
        """Ends the server."""
        if self.cluster:
            self.cluster.destroy()
        self.cluster = None


def main() -> int:
    """Cases until the time is over, and the figures; 0 if all went well."""
    args = arguments()
    process.exit_on_sigterm()
    server = Server()
    server.hold()
    runs = Runs(server)
    numbers = [args.case] if args.case is not None else itertools.count(args.first)
    until = time.monotonic() + args.minutes * 60
    print(f"PostgreSQL {server.major}, seed {args.seed}", flush=True)
    try:
        for number in numbers:
            if time.monotonic() > until or (args.stop and runs.failures):
                break
            case = chosen(args, number)
            for _ in range(args.repeat if case else 0):
                if wrong := runs.run(case):
                    print(f"\nFAILED: --seed {args.seed} --case {number}\n{case.shown()}\n{wrong}\n", flush=True)
                    break
            if number % 25 == 24:
                print(f"{runs.runs} cases, {runs.rows:,} rows, {len(runs.failures)} failures", flush=True)
    finally:
        runs.stop()
    print(f"{runs.runs} runs, {runs.rows:,} rows updated, failures: {runs.failures or 'none'}")
    print("events: " + ", ".join(f"{name} {count}" for name, count in runs.events.most_common()))
    return 1 if runs.failures else 0


if __name__ == "__main__":
    sys.exit(main())
