"""The walk itself: what a batch reads, what it counts, and what progress says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from harness import Database, Server, wait_until
from harness.jobs import complete, fail, progress, start, wait_for

# Every checkpoint that was ever written, so that a test sees each batch. Set up by a superuser.
WATCH = """
    CREATE TABLE steps (
        slice_id int, seq bigint, rows_done bigint, rows_updated bigint, rows_total bigint, percent real);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.steps
            VALUES (NEW.slice_id, NEW.seq, NEW.rows_done, NEW.rows_updated, NEW.rows_total, NEW.percent);
        RETURN NEW; END $$;
    CREATE TRIGGER note AFTER INSERT ON backfill_internal.checkpoint FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE backfill_internal.checkpoint ENABLE ALWAYS TRIGGER note
"""


def table(db: Database, rows: str, *, columns: str = "") -> None:
    """Makes `t` with the ids that the query yields, and lets every batch be seen."""
    db.sql(f"CREATE TABLE t (id bigint PRIMARY KEY, n int DEFAULT 0 {columns}); INSERT INTO t {rows}; {WATCH}")


def batches(db: Database) -> list[tuple[int, int]]:
    """Rows passed and rows changed, batch by batch."""
    rows = db.sql("""
        SELECT rows_done - lag(rows_done, 1, 0::bigint) OVER w, rows_updated - lag(rows_updated, 1, 0::bigint) OVER w
        FROM steps WINDOW w AS (ORDER BY seq)
    """)
    return [(done, updated) for done, updated in rows if done]


@pytest.mark.parametrize("count", [1, 776, 777, 778, 10_000])
def test_gaps_cost_nothing(db: Database, count: int) -> None:
    """Ids spread over 10^12: as many batches as the rows need, full to the last."""
    table(db, f"SELECT g * (10^12 / {count})::bigint - 5 * 10^11 FROM generate_series(1, {count}) g")
    row = complete(db, start(db, "t", "n = n + 1"))
    sizes = [777] * (count // 777) + [count % 777] * (count % 777 > 0)
    assert batches(db) == [(size, size) for size in sizes]
    assert (row["rows_done"], row["rows_updated"], row["rows_total"]) == (count, count, count)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, count)]


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("where", [None, "n = 0", "n = 7"])
def test_almost_nothing_to_do(db: Database, count: int, where: str | None) -> None:
    """An empty table, and one of one row."""
    table(db, f"SELECT generate_series(1, {count})")
    row = complete(db, start(db, "t", "n = n + 1", where=where))
    changed = count if where != "n = 7" else 0
    assert (row["rows_done"], row["rows_updated"], row["rows_total"]) == (count, changed, count)
    assert db.value("SELECT count(*) FROM t WHERE n = 1") == changed


def test_a_sparse_predicate_is_bounded_by_rows_scanned(db: Database) -> None:
    """One row in a thousand matches: no batch reads more than its limit, and none is forgotten."""
    table(db, "SELECT generate_series(1, 50000)")
    row = complete(db, start(db, "t", "n = n + 1", where="id % 1000 = 500", options={"scan_limit": 3000}))
    assert (row["rows_done"], row["rows_updated"]) == (50_000, 50)
    done = batches(db)
    assert max(rows for rows, _ in done) <= 3000
    # A look at 3,000 rows, and an UPDATE of the three that match.
    assert len(done) <= 2 * (50_000 / 3000 + 2)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n ORDER BY n") == [(0, 49_950), (1, 50)]


def test_a_dense_predicate_is_bounded_by_rows_updated(db: Database) -> None:
    """Matches at the end only: a batch reads far through the rest, and changes no more than its size there."""
    table(db, "SELECT generate_series(1, 30000)")
    row = complete(db, start(db, "t", "n = n + 1", where="id > 20000", options={"scan_limit": 5000}))
    assert (row["rows_done"], row["rows_updated"]) == (30_000, 10_000)
    done = batches(db)
    assert max(rows for rows, _ in done) <= 5000 and max(updated for _, updated in done) == 777
    assert len(done) <= 20_000 / 5000 + 10_000 / 777 + 3


PREDICATES = {
    "never": ("false", "n = n + 1", 0),
    "never, by NULL": ("NULL::boolean", "n = n + 1", 0),
    "always": ("true", "n = n + 1", 20_000),
    "false once done": ("n = 0", "n = n + 1", 20_000),
    "still true when done": ("n >= 0", "n = n + 1", 20_000),
    "true of every other": ("n IS DISTINCT FROM 1 AND id % 2 = 0", "n = coalesce(n, 0) + 1", 10_000),
    "of a subquery on the table itself": ("id <= (SELECT max(id) / 2 FROM t x)", "n = n + 1", 10_000),
}


@pytest.mark.parametrize("predicate", PREDICATES)
def test_each_matching_row_once(db: Database, predicate: str) -> None:
    """Whatever the update does to the predicate."""
    where, set_clause, changed = PREDICATES[predicate]
    table(db, "SELECT generate_series(1, 20000)")
    row = complete(db, start(db, "t", set_clause, where=where))
    assert (row["rows_done"], row["rows_updated"], row["rows_total"]) == (20_000, changed, 20_000)
    assert db.value("SELECT count(*) FROM t WHERE n = 1") == changed
    assert db.value("SELECT count(*) FROM t WHERE n NOT IN (0, 1)") == 0


def test_rows_that_come_and_go_during_a_run(db: Database) -> None:
    """Rows beyond the last key are not chased, those ahead are met, deleted ones are not missed."""
    table(db, "SELECT generate_series(10, 20000, 10)")
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=60_000)
    wait_until(lambda: progress(db, job)["rows_done"] == 100, 30, "the first batch")
    db.sql("""
        INSERT INTO t SELECT generate_series(20001, 40000);
        INSERT INTO t VALUES (5), (15005), (19999);
        DELETE FROM t WHERE id BETWEEN 500 AND 1500 OR id BETWEEN 5000 AND 15000 OR id = 20000
    """)
    db.sql(f"SELECT backfill.alter({job}, sleep_ms => 0)")
    row = complete(db, job)
    assert db.value("SELECT count(*) FROM t WHERE id > 20000 AND n = 0") == 20_000
    assert db.sql("SELECT id FROM t WHERE id <= 20000 AND n <> 1") == [(5,)]
    passed = db.value("SELECT count(*) FROM t WHERE n = 1")
    # Those deleted behind the cursor were passed as well.
    assert row["rows_done"] == row["rows_updated"] == passed + 51


def test_a_row_whose_key_moves_is_met_at_most_where_it_is(db: Database) -> None:
    """Not promised to be met, but the walk ends."""
    table(db, "SELECT generate_series(1, 2000)")
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=20)
    with db.load("UPDATE t SET id = id + 100000 WHERE id = (SELECT min(id) FROM t WHERE n = 0 AND id < 100000);"):
        complete(db, job)


# What progress says

ESTIMATES = {
    "never analysed": None,
    "far too low": "UPDATE pg_class SET reltuples = 10, relpages = 200 WHERE oid = 't'::regclass",
    "far too high": "UPDATE pg_class SET reltuples = 1e9, relpages = 200 WHERE oid = 't'::regclass",
    "none": "UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE oid = 't'::regclass",
    "empty once": "UPDATE pg_class SET reltuples = 0, relpages = 0 WHERE oid = 't'::regclass",
}


def watch(db: Database, job: int) -> list[dict[str, Any]]:
    """Polls the view until the job has ended; every row that was seen."""
    seen: list[dict[str, Any]] = []

    def ended() -> bool:
        seen.append(progress(db, job))
        return seen[-1]["state"] in ("completed", "failed")

    wait_until(ended, 60, "the job to end")
    return seen


@pytest.mark.parametrize("where", [None, "id % 3 = 0"])
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_the_percentage_neither_jumps_back_nor_passes_100(db: Database, estimate: str, where: str | None) -> None:
    """However wrong the statistics are; at the end it is 100, of the rows that there were."""
    db.sql("CREATE TABLE t (id bigint PRIMARY KEY, n int DEFAULT 0) WITH (autovacuum_enabled = off)")
    db.sql("INSERT INTO t SELECT generate_series(1, 20000)")
    db.sql(WATCH)
    if update := ESTIMATES[estimate]:
        db.sql(update)
    seen = watch(db, start(db, "t", "n = n + 1", batch=200, sleep_ms=10, where=where, options={"scan_limit": 250}))
    shown = [row["percent"] for row in seen if row["percent"] is not None]
    assert shown == sorted(shown) and shown[-1] == 100
    # The view's rows are samples; these are all, of each slice: too high an estimate may make several.
    slices = db.sql("SELECT array_agg(percent ORDER BY seq) FROM steps WHERE percent IS NOT NULL GROUP BY slice_id")
    for (steps,) in slices:
        assert steps == sorted(steps) and max(steps[:-1], default=0) < 100
    for row in seen:
        if row["state"] != "completed":
            assert row["percent"] is None or 0 <= row["percent"] < 100
            assert row["rows_total"] is None or row["rows_total"] >= row["rows_done"]
    last = seen[-1]
    assert (last["state"], last["percent"]) == ("completed", 100)
    assert last["rows_done"] == last["rows_total"] == 20_000
    assert last["eta"] is None and last["rows_per_second"] is None


def test_progress_goes_on_where_it_was_after_a_pause(db: Database) -> None:
    """Counts and percentage live in the checkpoint, not in the worker."""
    table(db, "SELECT generate_series(1, 20000)")
    db.sql("ANALYZE t")
    job = start(db, "t", "n = n + 1", batch=200, sleep_ms=10)
    wait_until(lambda: progress(db, job)["rows_done"] > 3000, 30, "some batches")
    db.sql(f"SELECT backfill.pause({job})")
    before = wait_for(db, job, "paused")
    assert before["percent"] == pytest.approx(before["rows_done"] / 200, abs=0.2)
    assert before["rows_per_second"] is None and before["eta"] is None
    db.sql(f"SELECT backfill.resume({job})")
    wait_until(lambda: progress(db, job)["rows_done"] > before["rows_done"], 30, "more batches")
    assert progress(db, job)["percent"] >= before["percent"]
    db.sql(f"SELECT backfill.alter({job}, sleep_ms => 0)")
    assert complete(db, job)["rows_done"] == 20_000


# Triggers


def test_rows_that_a_trigger_suppresses_are_passed_not_changed(db: Database) -> None:
    """A BEFORE trigger that returns NULL: the walk goes on, and the counts tell."""
    table(db, "SELECT generate_series(1, 5000)")
    db.sql("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.id % 5 = 0 THEN RETURN NULL; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    row = complete(db, start(db, "t", "n = n + 1"))
    assert (row["rows_done"], row["rows_updated"]) == (5000, 4000)
    row = complete(db, start(db, "t", "n = n + 1", where="n < 2"))
    assert (row["rows_done"], row["rows_updated"]) == (5000, 4000)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n ORDER BY n") == [(0, 1000), (2, 4000)]


def test_a_failure_at_commit_is_one_of_the_batch(db: Database) -> None:
    """A deferred constraint that doesn't hold: failed, nothing of the batch is left, resumable."""
    table(db, "SELECT generate_series(1, 5000)")
    db.sql("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.id = 3000 THEN RAISE EXCEPTION 'not % yet', NEW.id USING ERRCODE = 'P0007'; END IF;
            RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    job = start(db, "t", "n = n + 1", batch=1000, options={"strategy": "sequential"})
    error = fail(db, job)
    assert "not 3000 yet (SQLSTATE P0007)" in error and "(id) = (3000)" in error
    assert db.value("SELECT max(id) FROM t WHERE n = 1") == 2999
    row = progress(db, job)
    assert (row["rows_done"], row["rows_updated"]) == (2999, 2999)
    db.sql(f"DROP TRIGGER refuse ON t; SELECT backfill.resume({job})")
    row = complete(db, job)
    assert (row["rows_done"], row["rows_updated"]) == (5000, 5000)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 5000)]


# The plan


@pytest.mark.parametrize("where", [None, "n = 0 AND pad = 'x'"])
def test_a_batch_goes_by_the_key_index_whatever_statistics_say(
    server: Server, new_cluster: Any, where: str | None
) -> None:
    """Random keys, an index on the predicate's column, wrong statistics: by the key's index nevertheless."""
    if not (Path(server.ask("--pkglibdir")) / "auto_explain.so").exists():
        pytest.skip("this server comes without auto_explain")
    conf = {
        "shared_preload_libraries": "backfill, auto_explain",
        "auto_explain.log_min_duration": "0",
        "auto_explain.log_analyze": "on",
        "auto_explain.log_timing": "off",
        # As if the table were so big that compiling looks worth its while.
        "jit_above_cost": "1",
    }
    db = new_cluster(conf=conf)
    db.sql("""
        CREATE EXTENSION backfill;
        SET auto_explain.log_min_duration = -1;
        CREATE TABLE t (id uuid PRIMARY KEY, n int, pad text) WITH (autovacuum_enabled = off);
        INSERT INTO t SELECT gen_random_uuid(), 0, 'x' FROM generate_series(1, 100);
        CREATE INDEX t_n ON t (n); CREATE INDEX t_pad ON t (pad, n)
    """)
    db.sql("ANALYZE t")
    db.sql("""
        SET auto_explain.log_min_duration = -1;
        INSERT INTO t SELECT gen_random_uuid(), 0, 'x' FROM generate_series(101, 300000)
    """)
    job = start(db, "t", "n = n + 1", batch=7001, where=where, options={"walk": "key"})
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 300_000)]

    plans = db.log.read_text(errors="replace").split("LOG:  duration: ")[1:]
    updates = [plan for plan in plans if re.search(r'Query Text: UPDATE ONLY "public"."t"', plan)]
    selects = [plan for plan in plans if re.search(r'Query Text: SELECT [^;]*?FROM ONLY "public"."t"', plan)]
    counts = [plan for plan in selects if "count(*)" in plan and "TABLESAMPLE" in plan]
    sample = [plan for plan in selects if "TABLESAMPLE" in plan and plan not in counts]
    assert len(counts) == 1 and len(sample) == 1 and "JIT:" not in sample[0]
    selects = [plan for plan in selects if plan not in counts + sample]
    assert len(updates) >= 300_000 // 7001 and len(selects) >= 300_000 // 100_000
    for plan in [plan for plan in selects if "ORDER BY" in plan]:
        # In the index' order: a sort would read all that is left of the table for each batch.
        assert re.search(r"Index (Only )?Scan.* using t_pkey on t", plan) and "Sort" not in plan, plan
    for plan in [*updates, *selects]:
        scans = re.findall(r"(?:Seq|Index|Index Only|Bitmap Index) Scan.* (?:using|on) (\w+)", plan)
        by_place = plan in updates and where is not None and "->  Tid Scan on t" in plan
        assert by_place != ("t_pkey" in plan) and set(scans) <= {"t", "t_pkey"} and "Seq Scan" not in plan, plan
        most = 10 * 7001 if plan in updates else 200_000
        assert all(int(rows) <= most for rows in re.findall(r"actual rows=(\d+)", plan)), plan
        # A plan that is kept would be compiled anew for each batch.
        assert "JIT:" not in plan, plan


def test_statistics_are_reported_while_it_runs(db: Database) -> None:
    """Autovacuum sees the work: n_tup_upd grows before the job has ended, and nothing was read sequentially."""
    table(db, "SELECT generate_series(1, 20000)")
    # Building the index of the empty table counts as a scan, which its session may report late.
    db.sql("SELECT pg_stat_force_next_flush()")
    inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 't'"
    wait_until(lambda: db.value(inserted) == 20_000, 30, "statistics of the table's making")
    seq = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 't'"
    before = db.value(seq)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=50)
    changed = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 't'"
    wait_until(lambda: db.value(changed) > 500, 30, "statistics of the batches")
    assert progress(db, job)["state"] == "running"
    db.sql(f"SELECT backfill.alter({job}, sleep_ms => 0)")
    complete(db, job)
    assert wait_until(lambda: db.value(changed) == 20_000, 30, "statistics of all batches")
    assert db.value(seq) == before
