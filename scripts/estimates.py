"""What backfill.plan foretells of a run, next to what the run then takes.

The table is that of the benchmark's main scenario, a fresh copy for each way of running. Autovacuum is off, as it would
make room meanwhile, which the plan can't foretell. Times mean something only on a machine that does nothing else. Run
it through scripts/estimates, which builds and installs first.
"""

from __future__ import annotations

import argparse
import json
import sys
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
SIZES = "SELECT pg_table_size('orders'), pg_indexes_size('orders')"
RUN = """
SELECT rows_done, wal_bytes, EXTRACT(epoch FROM finished_at - started_at) FROM backfill.progress WHERE job_id = %s
"""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/estimates [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-w", "--ways", nargs="+", choices=WAYS, default=[*WAYS], help="of running (default: all)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the table (default 1,000,000)")
    parser.add_argument("--bound", type=float, default=0.3, help="how far an estimate may be off (default 0.3)")
    return parser.parse_args()


def compare(db: Any, dataset: Any, options: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """The figures of the plan and of the run: rows, bytes and seconds."""
    given = json.dumps(options | {"vacuum": False, "analyze": False})
    clauses = [dataset.table, dataset.set_clause, dataset.where, given]
    call = "(%s::regclass, 10000, set_clause => %s, where_clause => %s, options => %s{})"
    foretold = json.loads(
        db.value(f"SELECT value FROM backfill.plan{call.format(', format => ' + repr('json'))}", clauses)
    )["numbers"]
    [(heap, indexes)] = db.sql(SIZES)
    job = db.value(f"SELECT backfill.start{call.format('')}", clauses)
    db.sql("CALL backfill.wait(%s)", [job])
    [(rows, wal, seconds)] = db.sql(RUN, [job])
    [(heap_after, indexes_after)] = db.sql(SIZES)
    taken = {
        "rows": rows,
        "wal_bytes": wal,
        "heap_growth_bytes": heap_after - heap,
        "index_growth_bytes": indexes_after - indexes,
        "seconds": float(seconds),
    }
    return {name: (foretold[name], taken[name]) for name in taken}


def main() -> int:
    """All ways and their figures; 0 if each estimate is within the bound."""
    args = arguments()
    from harness import process

    from bench import datasets
    from bench.server import BenchServer

    process.exit_on_sigterm()
    dataset = datasets.ORDERS.scaled(1, args.rows)
    off = []
    with BenchServer({"autovacuum": "off"}, quick=False, memory_cgroup=None) as server:
        server.build(dataset)
        print(f"PostgreSQL {server.version}: {dataset.title}, {dataset.rows:,} rows")
        print(f"{'way':<12} {'figure':<20} {'plan':>15} {'run':>15} {'ratio':>7}")
        for way in args.ways:
            with server.copy(dataset, warm=True) as db:
                for name, (plan, run) in compare(db, dataset, WAYS[way]).items():
                    ratio = plan / run if run else float(plan == 0)
                    if abs(ratio - 1) > args.bound:
                        off.append(f"{way}: {name}")
                    print(f"{way:<12} {name:<20} {plan:>15,.1f} {run:>15,.1f} {ratio:>7.2f}", flush=True)
    print(f"{'result':<12} {'off by more: ' + '; '.join(off) if off else 'all are'} ({args.bound:.0%})")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
