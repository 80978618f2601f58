"""What backfill.plan foretells of a run, next to what the run then takes.

First tables of many kinds (tests/cluster/harness/estimates.py), a fresh server for each; then that of the benchmark's
main scenario, a fresh copy for each way of running. Autovacuum is off, as it would make room meanwhile, which the plan
can't foretell. A figure in brackets is what the plan says it is at least, where it says that it does not know. Times
mean something only on a machine that does nothing else. Run it through scripts/estimates, which builds and installs
first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "cluster")]

WAYS: dict[str, dict[str, Any]] = {
    "1 worker": {},
    "2 workers": {"workers": 2},
    "sequential": {"strategy": "sequential"},
    "physical": {"walk": "physical"},
}
# A run that takes less time says nothing of time.
SHORTEST = 1.0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    from harness.estimates import CASES

    parser = argparse.ArgumentParser(
        prog="scripts/estimates [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-t", "--tables", nargs="*", choices=CASES, default=[*CASES], help="of many kinds (default: all)"
    )
    parser.add_argument(
        "-w", "--ways", nargs="*", choices=WAYS, default=[*WAYS], help="of the benchmark (default: all)"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the benchmark's table (default 1,000,000)")
    parser.add_argument("--bound", type=float, default=0.3, help="how far an estimate may be off (default 0.3)")
    return parser.parse_args()


def tables(names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of each table."""
    from harness import Cluster, Server
    from harness.estimates import CASES, CONF, compare

    server = Server()
    server.hold()
    for name in names:
        with Cluster(server=server, conf=CONF | {"fsync": "off"}) as cluster:
            db = cluster.database("postgres")
            db.sql("CREATE EXTENSION backfill")
            yield name, compare(db, CASES[name])[0]


def benchmark(ways: list[str], rows: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of the benchmark's table, for each way of running."""
    from harness.estimates import Case, compare

    from bench import datasets
    from bench.server import BenchServer

    dataset = datasets.ORDERS.scaled(1, rows)
    with BenchServer({"autovacuum": "off"}, quick=False, memory_cgroup=None) as server:
        server.build(dataset)
        for way in ways:
            with server.copy(dataset, warm=True) as db:
                yield way, compare(db, Case("", dataset.set_clause, dataset.where, WAYS[way]), dataset.table)[0]


def main() -> int:
    """All tables and ways and their figures; 0 if each estimate is within the bound."""
    args = arguments()
    from harness import process
    from harness.estimates import FEW_PAGES

    process.exit_on_sigterm()
    off, unknown = [], 0
    print(f"{'table':<26} {'figure':<20} {'plan':>15} {'run':>15} {'ratio':>7}")
    found = [tables(args.tables)] if args.tables else []
    found += [benchmark(args.ways, args.rows)] if args.ways else []
    for name, figures in (pair for pairs in found for pair in pairs):
        for figure, compared in figures.items():
            unknown += compared.plan is None
            little = SHORTEST if figure == "seconds" else FEW_PAGES
            if not compared.is_right(args.bound, little):
                off.append(f"{name}: {figure}")
            plan = f"({compared.least:,.1f})" if compared.plan is None else f"{compared.plan:,.1f}"
            print(f"{name:<26} {figure:<20} {plan:>15} {compared.run:>15,.1f} {compared.ratio:>7.2f}", flush=True)
    said = f"off by more than {args.bound:.0%}: {'; '.join(off)}" if off else f"all are within {args.bound:.0%}"
    print(f"{said}; of {unknown} the plan says that it does not know")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
