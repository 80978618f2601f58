"""What must not grow with the length of a run: the worker's memory, and the pages that a poll reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Database, Server, wait_until
from harness.jobs import start_count, wait_for_state
from harness.soak import Soak
from harness.soakjobs import SoakJobs
from harness.tables import counts

MEGABYTE = 1 << 20
SEQ = """
SELECT coalesce(max(seq), 0) FROM backfill_internal.checkpoint
WHERE slice_id IN (SELECT id FROM backfill_internal.slice WHERE job_id = %s)
"""


def leave_alone(db: Database, job: int, n: int) -> None:
    """Nothing but the batches."""


def alter_it(db: Database, job: int, n: int) -> None:
    """The job's row is read again, and its settings are pinned again."""
    db.sql("SELECT backfill.alter(%s, batch_size => %s)", [job, 5 + n % 2])


def change_the_table(db: Database, job: int, n: int) -> None:
    """The statements are analysed again."""
    db.sql(f"ALTER TABLE t ALTER n SET STATISTICS {n % 2 + 50}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("disturb", "batches"), [(leave_alone, 5000), (alter_it, 2000), (change_the_table, 2000)])
def test_a_worker_does_not_grow(db: Database, disturb: Callable[[Database, int, int], None], batches: int) -> None:
    """Its own memory after thousands of batches equals that after 500, within 1 MB; a long key and a WHERE included."""
    db.sql(
        "CREATE TABLE t (a text, id int, at date DEFAULT now(), n int NOT NULL DEFAULT 0, PRIMARY KEY (a, id, at));"
        "INSERT INTO t SELECT repeat(md5((id / 10)::text), 3), id FROM generate_series(1, 40000) id"
    )
    db.sql("VACUUM ANALYZE t")
    job = db.value(
        # The list of keys that are read ahead is short, and has the same length all the time; nor are there waves,
        # which would ask who holds them up, and so fill the process' caches of the catalogs.
        "SELECT backfill.start('t', 5, 1, set_clause => 'n = n + 1', where_clause => 'id % 3 > 0 OR id % 2 > 0',"
        """ options => '{"scan_limit": 200, "strategy": "sequential"}')"""
    )
    pid = db.worker_pid(job)
    # Not a new one each time: a thousand a second would keep the worker from its work.
    look = db.connect()

    def memory_after(number: int) -> int:
        n = 0

        def there() -> bool:
            nonlocal n
            n += 1
            disturb(db, job, n)
            return look.execute(SEQ, [job]).fetchone()[0] >= number

        wait_until(there, 200, f"{number} batches", every=0.001)
        return db.cluster.rss_anon(pid)

    # The first time that the server has its statements planned again takes memory that then stays with the process: an
    # autovacuum's ANALYZE does that at any moment, so it is done here before the first measurement.
    for n in range(20):
        alter_it(db, job, n)
        change_the_table(db, job, n)
        db.sql("ANALYZE t, backfill_internal.job, backfill_internal.checkpoint, backfill_internal.slice")
    db.sql("SELECT backfill.alter(%s, batch_size => 5)", [job])
    before = memory_after(500)
    after = memory_after(batches)
    assert abs(after - before) < MEGABYTE, f"{before:,} bytes after 500 batches, {after:,} after {batches}"
    db.sql("SELECT backfill.alter(%s, batch_size => 1000, sleep_ms => 0)", [job])
    wait_for_state(db, job, "completed")
    assert counts(db)[-1][0] == 1
    assert db.worker_pids(job) in ([], [pid])


def test_an_old_snapshot_makes_no_poll_dearer(server: Server) -> None:
    """A short scripts/soak; the times that it compares mean something only on a quiet machine."""
    soak = Soak(batches=6000)
    soak.run(server)
    assert soak.pages_late <= soak.pages_early
    assert max(soak.memory.values()) - min(soak.memory.values()) < MEGABYTE
    assert soak.counts == [(1, 80_000)]


def test_many_ended_jobs_do_not_slow_down_a_control_call(db: Database) -> None:
    """A call on one job reads that job, not all that ever were."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t VALUES (1)")
    wait_for_state(db, start_count(db), "completed")

    def pages() -> int:
        job = db.value("SELECT max(job_id) FROM backfill.progress")
        plan = db.value(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM backfill.status({job})")
        return plan[0]["Plan"]["Shared Hit Blocks"]

    few = pages()
    db.sql("DO $$ BEGIN FOR i IN 1..500 LOOP PERFORM backfill.cancel(backfill.define('t', 'n = 0')); END LOOP; END $$")
    db.sql("ANALYZE backfill_internal.job")
    db.sql("ANALYZE backfill_internal.outcome")
    many = pages()
    assert many < few + 100, f"{few} pages with 1 job, {many} with 501"


def test_nothing_is_left_of_jobs_that_are_disturbed(server: Server) -> None:
    """Four jobs at a time; paused, altered, cancelled, terminated, killed: the small version of scripts/soak jobs."""
    soak = SoakJobs(minutes=0.2, seed=7, rows=4000)
    soak.run(server)
    assert soak.problems == []
    assert soak.ended.total() >= 4 and soak.events.total() > 5, (soak.ended, soak.events)
