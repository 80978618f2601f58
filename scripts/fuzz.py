"""Gives everything in the schema backfill what it should not be given, and looks at what comes of it.

Three things take turns. `calls`: every function, procedure and view, with odd arguments, as several roles, in odd
transactions and under odd settings; no worker runs, so what a failed call has left behind is seen. `crowd`: the same by
many sessions at once, with workers. `clauses`: SET lists and WHERE clauses from a grammar and mutated; what start
accepts has to run, and to come to what one UPDATE comes to. Wrong are: a crash, a panic, an internal error (XX000), an
error without a message or a hint, rows left by a call that failed, a job that start should have refused.

What fails is printed with its seed and number, and can be run again alone:
scripts/fuzz 16 --seed N --kind clauses --case K
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

KINDS = {"calls": 100, "clauses": 50, "crowd": 1}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--minutes", type=float, default=30, help="how long to go on (default 30)")
    parser.add_argument("-s", "--seed", type=int, default=int(time.time()), help="default: from the clock")
    parser.add_argument("-k", "--kind", choices=list(KINDS), action="append", help="only these (default: all)")
    parser.add_argument("-c", "--case", type=int, help="this case only, once of each kind")
    parser.add_argument(
        "--memory", type=int, metavar="MB", help="address space that each process of the server may take"
    )
    parser.add_argument("-x", "--stop", action="store_true", help="stop at the first failure")
    return parser.parse_args()


def main() -> int:
    """Cases until the time is over, and the figures; 0 if nothing was wrong."""
    args = arguments()
    from harness import Server, process
    from harness.fuzz import Violation
    from harness.fuzzer import Fuzz

    process.exit_on_sigterm()
    server = Server()
    server.hold()
    kinds = args.kind or list(KINDS)
    print(f"PostgreSQL {server.major}, seed {args.seed}", flush=True)
    until = time.monotonic() + args.minutes * 60
    numbers = dict.fromkeys(kinds, args.case or 0)
    failures: list[str] = []
    counts: collections.Counter[str] = collections.Counter()
    fuzz = Fuzz(server, args.seed, args.memory and args.memory << 20)

    def once(kind: str, run: Callable[[int], None]) -> None:
        number = numbers[kind]
        numbers[kind] += 1
        try:
            run(number)
        except Violation as violation:
            failures.append(f"{kind} {number}")
            print(f"\nFAILED: --seed {args.seed} --kind {kind} --case {number}\n{violation}\n", flush=True)
            # A server that has done wrong is not asked again.
            fuzz.stop()

    try:
        while time.monotonic() < until and not (args.stop and failures):
            for kind in kinds:
                for _ in range(1 if args.case is not None else KINDS[kind]):
                    if time.monotonic() < until and not (args.stop and failures):
                        once(kind, getattr(fuzz, kind))
            if args.case is not None:
                break
        counts = fuzz.counts()
    finally:
        fuzz.stop()
    print(", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())))
    print(f"failures: {', '.join(failures) or 'none'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
