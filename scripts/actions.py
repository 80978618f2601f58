"""What backfill.delete, copy and execute take, next to one statement that does the same.

Each on a table of its own, of the shape of pgbench_accounts, in turn: one statement, then the job, as often as is asked
for. A ratio is the median of the pairs'. `--load` adds clients that insert, update and delete meanwhile; their pace
depends on the machine, so that ratios are then of that one. Times mean something only on a machine that does nothing
else. Run it through scripts/actions, which builds and installs first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "cluster")]

from harness import Cluster, Database, Server  # noqa: E402
from harness.cluster import DURABLE  # noqa: E402

CONF = DURABLE | {"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
MAKE = """
CREATE TABLE a (aid int, bid int, abalance int, filler char(84));
INSERT INTO a SELECT g, g / 100000 + 1, 0, '' FROM generate_series(1, {rows}) g;
ALTER TABLE a ADD PRIMARY KEY (aid);
CREATE TABLE b (LIKE a);
{more}
"""
INDEXES = "CREATE INDEX ON b (aid); CREATE INDEX ON b (bid); CREATE INDEX ON b (abalance, bid)"
# Two tables that refer to it, one row for a hundred; in the second no index helps to find them.
CHILDREN = """
CREATE INDEX ON a (bid); CREATE INDEX ON a (abalance);
CREATE TABLE child (a int REFERENCES a ON DELETE CASCADE); INSERT INTO child SELECT aid FROM a WHERE aid % 100 = 0;
CREATE INDEX ON child (a)
"""
CLIENT = """
\\set id random(1, :rows)
\\set what random(1, 3)
\\if :what = 1
UPDATE a SET abalance = abalance + 1 WHERE aid = :id;
\\elif :what = 2
DELETE FROM a WHERE aid = :id;
\\else
INSERT INTO a VALUES (:id, 1, 0, '') ON CONFLICT DO NOTHING;
\\endif
"""
# One statement is followed by nothing either.
QUIET = '{"vacuum": false, "analyze": false}'
SELECT = "INSERT INTO b SELECT aid, bid, abalance, filler FROM a"


@dataclass(frozen=True)
class Case:
    """A statement, and the call whose job does the same."""

    one: str
    call: str
    more: str = ""


LOCKED = f"{SELECT} FOR KEY SHARE"
DELETE = "DELETE FROM a WHERE aid % 10 > 0"
DELETED = f"backfill.delete('a', 10000, 0, 'aid % 10 > 0', options => '{QUIET}')"


def copied(rows: int, options: str = QUIET) -> str:
    """The call, for batches of this many rows."""
    return f"backfill.copy('a', 'b', {rows}, options => '{options}')"


CASES = {
    "copy, batches of 10,000": Case(LOCKED, copied(10_000)),
    "copy, batches of 1,000": Case(LOCKED, copied(1_000)),
    "copy without locks": Case(SELECT, copied(10_000, '{"lock": "none", "analyze": false}')),
    "copy, 3 indexes": Case(LOCKED, copied(10_000), INDEXES),
    "copy, 3 indexes, batches of 1,000": Case(LOCKED, copied(1_000), INDEXES),
    "execute, an INSERT": Case(
        f"{SELECT} FOR NO KEY UPDATE",
        "backfill.execute('a', 'INSERT INTO b SELECT aid, bid, abalance, filler FROM batch', 10000)",
    ),
    "delete nine of ten": Case(DELETE, DELETED),
    "delete nine of ten, 3 indexes, a child": Case(DELETE, DELETED, CHILDREN),
    "delete into an archive": Case(
        f"WITH gone AS ({DELETE} RETURNING *) INSERT INTO b SELECT * FROM gone",
        DELETED.replace("{", '{"archive_into": "b", '),
    ),
}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="scripts/actions [MAJOR]", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--cases", nargs="*", choices=CASES, default=[*CASES], metavar="CASE", help="some only")
    parser.add_argument("--rows", type=int, default=2_000_000, help="default 2,000,000")
    parser.add_argument("--pairs", type=int, default=3, help="default 3")
    parser.add_argument("--load", action="store_true", help="clients write the table meanwhile")
    return parser.parse_args()


def make(db: Database, case: Case, rows: int) -> None:
    """The tables, and nothing dirty."""
    db.sql("DROP TABLE IF EXISTS child, a, b")
    db.sql(MAKE.format(rows=rows, more=case.more))
    db.sql("VACUUM ANALYZE a")
    db.sql("CHECKPOINT")


def timed(db: Database, case: Case, as_job: bool) -> float:
    """Seconds until it has committed."""
    began = time.monotonic()
    if not as_job:
        db.sql(case.one)
        return time.monotonic() - began
    job = db.value(f"SELECT {case.call}")
    while (state := db.value("SELECT state FROM backfill.progress WHERE job_id = %s", [job])) == "running":
        time.sleep(0.02)
    assert state == "completed", db.sql("SELECT last_error FROM backfill.progress WHERE job_id = %s", [job])
    return time.monotonic() - began


def main() -> int:
    """Prints a table."""
    args = arguments()
    server = Server()
    server.hold()
    print("| what | one statement, s | job, s | ratio |\n| --- | --- | --- | --- |")
    with Cluster(server=server, conf=CONF) as cluster:
        db = cluster.database("postgres")
        db.sql("CREATE EXTENSION backfill")
        for name in args.cases:
            case = CASES[name]
            pairs: list[tuple[float, float]] = []
            for _ in range(args.pairs):
                both = []
                for as_job in (False, True):
                    make(db, case, args.rows)
                    if args.load:
                        with cluster.load(CLIENT, clients=2, options=["-D", f"rows={args.rows}", "-R", "500"]):
                            both.append(timed(db, case, as_job))
                    else:
                        both.append(timed(db, case, as_job))
                pairs.append((both[0], both[1]))
            one, job = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(job / one for one, job in pairs)
            print(f"| {name} | {one:.2f} | {job:.2f} | {ratio:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
