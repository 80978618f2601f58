"""What would do rows twice, leave some out, or stop a job in the ordinary traffic of an application."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress, start, wait_for
from harness.tables import counts
from harness.wait import wait_until

QUIET = {"vacuum": False, "analyze": False}


def in_slices(db: Database, table: str = "t") -> None:
    """Makes a small table look as large as takes several slices."""
    db.sql(f"ANALYZE {table}")
    db.sql(f"UPDATE pg_class SET reltuples = 600000 WHERE oid = '{table}'::regclass")


# Clauses that RETURNING shows as extinguished, and that match again later

TIMELY = {
    "now": "at < now()",
    "a special form": "at < CURRENT_TIMESTAMP",
    "a setting": "at < now() AND current_setting('TimeZone') <> ''",
    "a stable function": "at < just_now()",
    "another row": "at < (SELECT max(m.at) FROM t m) + interval '1 s'",
}


@pytest.mark.parametrize("where", TIMELY)
def test_a_clause_that_depends_on_the_time_is_not_walked_by_pages(db: Database, where: str) -> None:
    """Each row has been done when it is written, but matches again a moment later."""
    db.sql("""
        CREATE TABLE t (id int, n int DEFAULT 0, at timestamptz DEFAULT now() - interval '1 day');
        CREATE FUNCTION just_now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT now()';
        INSERT INTO t SELECT generate_series(1, 3000)
    """)
    for options in ({}, {"walk": "physical"}):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match=r"physical order|no key"):
            start(db, "t", "n = n + 1, at = now()", where=TIMELY[where], options=options)
    db.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
    complete(db, start(db, "t", "n = n + 1, at = now()", where=TIMELY[where]))
    assert counts(db) == [(1, 3000)]


def test_random_keys_do_not_make_it_go_by_pages_either(db: Database) -> None:
    """Where `auto` would prefer pages."""
    db.sql("""
        CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int DEFAULT 0,
            at timestamptz DEFAULT now() - interval '1 day', filler text DEFAULT repeat('x', 500));
        INSERT INTO t SELECT FROM generate_series(1, 20000)
    """)
    in_slices(db)
    row = complete(db, start(db, "t", "n = n + 1, at = now()", where="at < now()", options=QUIET))
    assert row["key_columns"] == ["id"]
    assert counts(db) == [(1, 20000)]


def test_a_disproved_order_does_no_row_twice_with_several_workers(db: Database) -> None:
    """All of them find out at the same time, in the middle of what each has."""
    db.sql("""
        CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int DEFAULT 0,
            filler text DEFAULT repeat('x', 500));
        INSERT INTO t SELECT FROM generate_series(1, 20000)
    """)
    in_slices(db)
    row = complete(db, start(db, "t", "n = n + 1", where="n < 3", batch=100, options=QUIET | {"workers": 4}))
    assert "goes by key" in row["note"]
    assert counts(db) == [(1, 20000)]


def test_a_foreign_key_to_the_same_table_that_cascades(db: Database) -> None:
    """It writes what makes the row match again; of a partition it refers to the whole table."""
    db.sql("""
        CREATE TABLE t (part int, code int, parent int, n int DEFAULT 0, UNIQUE (part, code)) PARTITION BY LIST (part);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1);
        ALTER TABLE t ADD FOREIGN KEY (part, parent) REFERENCES t (part, code) ON UPDATE CASCADE;
        INSERT INTO t SELECT 1, g, g FROM generate_series(1, 2000) g
    """)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="foreign key"):
        start(db, "t", "code = code + 1000000, n = n + 1", where="code = parent", options={"walk": "physical"})


def test_a_trigger_that_comes_during_the_run(db: Database) -> None:
    """A walk by pages can't go on when an AFTER trigger could undo what it did."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 5000)")
    job = start(db, "t", "n = n + 1", where="n = 0", batch=50, sleep_ms=20)
    wait_until(lambda: progress(db, job)["rows_updated"] > 200, 30, "some batches")
    db.sql("""
        CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN UPDATE t SET n = 0 WHERE id = new.id AND n > 0; RETURN NULL; END $$;
        CREATE TRIGGER undo AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION undo()
    """)
    assert "trigger undo" in fail(db, job)
    done = db.value("SELECT sum(n) FROM t")
    db.sql(f"SELECT backfill.resume({job})")
    assert "trigger undo" in fail(db, job)
    assert db.value("SELECT sum(n) FROM t") == done
    db.sql("DROP TRIGGER undo ON t; DROP FUNCTION undo")
    db.sql(f"SELECT backfill.alter({job}, 1000, 0); SELECT backfill.resume({job})")
    complete(db, job)
    assert counts(db) == [(1, 5000)]


def test_a_key_that_comes_after_a_walk_by_pages_was_disproved(db: Database) -> None:
    """The hint says that it helps: the rows that are not done yet go by that key."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 5000)")
    job = start(db, "t", "n = n + 1", where="n < 3")
    assert "still match where_clause" in fail(db, job)
    db.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
    db.sql(f"SELECT backfill.resume({job})")
    assert "goes by key" in complete(db, job)["note"]
    assert counts(db) == [(1, 5000)]


def insert_behind(db: Database, job: int, first: int, last: int) -> None:
    """Inserts rows once the walk has begun, which sleeps after its first batch; then it goes on without."""
    wait_until(lambda: progress(db, job)["rows_updated"] > 0, 30, "a batch")
    db.sql(f"INSERT INTO t SELECT generate_series({first}, {last})")
    db.sql(f"SELECT backfill.alter({job}, 300, 0)")


def test_rows_that_move_are_all_found(db: Database) -> None:
    """More than one statement takes, inserted behind the walk: the second pass sees to them."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 3000)")
    job = start(db, "t", "n = n + 1", where="n = 0", batch=100, sleep_ms=60_000, options=QUIET)
    insert_behind(db, job, 3001, 8000)
    complete(db, job)
    assert counts(db) == [(1, 8000)]


def test_rows_that_move_are_all_found_in_a_table_too_large_for_one_look(db: Database) -> None:
    """More than 512 MB of pages; range by range, until none is left."""
    # One row on a page.
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0, pad text DEFAULT repeat('x', 700)) WITH (fillfactor = 10)")
    db.sql("INSERT INTO t SELECT generate_series(1, 66000)")
    db.sql("ANALYZE t")
    job = start(db, "t", "n = n + 1", where="n = 0", batch=2000, sleep_ms=60_000, options=QUIET)
    insert_behind(db, job, 66_001, 80_000)
    row = complete(db, job)
    assert counts(db) == [(1, 80_000)]
    assert "match still" not in row["note"]
    passes = (
        "SELECT max(pass), bool_or(end_block < 1000000) FROM backfill_internal.slice WHERE job_id = %s AND pass > 1"
    )
    assert db.sql(passes, [job]) == [(3, True)]


MESSAGES = ["rows still match where_clause after they were updated", "another worker has taken over this slice"]


@pytest.mark.parametrize("message", MESSAGES)
def test_nobody_else_speaks_for_the_worker(db: Database, message: str) -> None:
    """The text of an error of a trigger's means nothing, whatever it is."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 3000)")
    db.sql(f"""
        CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{message}'; END $$;
        CREATE TRIGGER boom BEFORE UPDATE ON t FOR EACH ROW WHEN (old.id = 2500) EXECUTE FUNCTION boom()
    """)
    job = start(db, "t", "n = n + 1", batch=500)
    assert f"{message} (SQLSTATE P0001)" in fail(db, job)
    db.sql(f"DROP TRIGGER boom ON t; SELECT backfill.resume({job})")
    complete(db, job)
    assert counts(db) == [(1, 3000)]


# Others at work on the same table


def test_many_rows_that_others_move(db: Database) -> None:
    """Another job updates all rows meanwhile: none is left out, however many passes it takes."""
    db.sql("""
        CREATE TABLE t (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int DEFAULT 0, m int DEFAULT 0, x int);
        INSERT INTO t (x) SELECT generate_series(1, 60000);
        CREATE INDEX ON t (x);
        ANALYZE t
    """)
    pages = start(db, "t", "n = n + 1", where="n = 0", batch=500, options={"walk": "physical", "workers": 2})
    keys = start(db, "t", "m = m + 1", batch=500, options={"walk": "key", "workers": 2})
    complete(db, keys)
    complete(db, pages)
    assert db.sql("SELECT n, m, count(*) FROM t GROUP BY n, m") == [(1, 1, 60000)]


def test_workers_that_meet_in_rows_of_a_trigger(db: Database) -> None:
    """Their deadlocks are theirs to get over."""
    db.sql("""
        CREATE TABLE customer (id int PRIMARY KEY, orders int DEFAULT 0);
        INSERT INTO customer SELECT generate_series(0, 19);
        CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, customer int);
        INSERT INTO t SELECT g, 0, abs(hashint4(g)) % 20 FROM generate_series(1, 2000) g;
        CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN UPDATE customer SET orders = orders + 1 WHERE id = new.customer; RETURN NULL; END $$;
        CREATE TRIGGER counted AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION counted()
    """)
    in_slices(db)
    options = QUIET | {"workers": 2, "settings": {"deadlock_timeout": "50ms"}}
    complete(db, start(db, "t", "n = n + 1", batch=50, options=options), timeout=120)
    assert counts(db) == [(1, 2000)]
    assert db.value("SELECT sum(orders) FROM customer") == 2000


def test_rows_that_change_their_partition(db: Database) -> None:
    """What the application does all day fails no job; a clause that tells done rows keeps each from a second time."""
    db.sql("""
        CREATE TABLE t (id int NOT NULL, part int, n int DEFAULT 0) PARTITION BY LIST (part);
        CREATE TABLE t_0 PARTITION OF t FOR VALUES IN (0);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1);
        CREATE UNIQUE INDEX ON t_0 (id);
        CREATE UNIQUE INDEX ON t_1 (id);
        INSERT INTO t SELECT g, g % 2 FROM generate_series(1, 10000) g;
        ANALYZE t
    """)
    job = start(db, "t", "n = n + 1", where="n = 0", batch=50, sleep_ms=5, options=QUIET | {"walk": "key"})
    with db.load(r"\set id random(1, 10000)" + "\nUPDATE t SET part = 1 - part WHERE id = :id;", clients=4):
        complete(db, job)
    assert {n for n, _ in counts(db)} <= {0, 1}


# Names


@pytest.mark.parametrize(
    "name",
    [
        "backfill keys",
        "backfill key 1",
        "backfill keys 1",
    ],
)
def test_names_of_a_joined_list_of_keys(db: Database, name: str) -> None:
    """Table, key and column are called as the list is that a composite key is joined to."""
    db.sql(f"""
        CREATE TABLE "{name}" (a int, b int, "{name}" int DEFAULT 1, n int DEFAULT 0, PRIMARY KEY (a, b));
        INSERT INTO "{name}" SELECT g % 9, g FROM generate_series(1, 3000) g
    """)
    options = QUIET | {"strategy": "waves", "waves": 3}
    complete(db, start(db, f'"{name}"', f'n = n + "{name}"', where=f'"{name}" > 0', options=options))
    assert counts(db, f'"{name}"') == [(1, 3000)]


# What a person is told


@pytest.mark.parametrize("walk", ["key", "physical"])
def test_an_error_of_the_where_clause_says_where(db: Database, walk: str) -> None:
    """Not the whole slice, but about as many rows as a batch has."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 60000)")
    job = start(db, "t", "n = 1", where="n = 0 AND 1 / (id - 50000) < 2", batch=100, options={"walk": walk})
    error = fail(db, job)
    batch = error.split(" in batch ")[1].splitlines()[0]
    if walk == "key":
        assert batch == "(id) = (50000)"
        return
    else:
        first, end = (int(word) for word in batch.split() if word.isdigit())
        after, last = db.sql(
            "SELECT min(id) - 1, max(id) FROM t WHERE ctid >= %s::tid AND ctid < %s::tid",
            [f"({first},0)", f"({end + 1},0)"],
        )[0]
    assert after < 50000 <= last and last - after < 2000, error


def test_the_range_of_an_error_names_the_partition(db: Database) -> None:
    """There may be the same keys in another one."""
    db.sql("""
        CREATE TABLE t (id int, part int, n int DEFAULT 0) PARTITION BY LIST (part);
        CREATE TABLE t_0 PARTITION OF t (PRIMARY KEY (id)) FOR VALUES IN (0);
        CREATE TABLE t_1 PARTITION OF t (PRIMARY KEY (id)) FOR VALUES IN (1);
        INSERT INTO t SELECT g / 2, g % 2 FROM generate_series(1, 2000) g
    """)
    assert "in batch public.t_1 (id)" in fail(db, start(db, "t", "n = 1 / (500 - id * part)", batch=100))


# Waiting


def test_waiting_for_the_table_holds_back_no_vacuum(db: Database) -> None:
    """Not even before the first batch: no snapshot is held while somebody else has the table locked."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 3000)")
    job = db.value("SELECT backfill.define('t', 'n = n + 1', options => '{\"workers\": 2}')")
    with db.connect(autocommit=False) as other:
        other.execute("LOCK TABLE t IN SHARE MODE")
        db.sql("SELECT backfill.start('t')")
        waits = "SELECT backend_xmin::text FROM pg_stat_activity WHERE pid = ANY (%s) AND wait_event = 'relation'"
        seen = wait_until(lambda: db.sql(waits, [db.worker_pids(job)]), 30, "a worker that waits")
        assert [xmin for (xmin,) in seen if xmin is not None] == []
        other.rollback()
    complete(db, job)
    assert counts(db) == [(1, 3000)]


def test_a_call_left_open_holds_up_nothing(db: Database) -> None:
    """BEGIN; SELECT backfill.alter(...) and no commit: the job goes on to its end."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 5000)")
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=10, options={"workers": 2})
    wait_for(db, job, "running")
    with db.connect(autocommit=False) as other:
        other.execute("SELECT backfill.alter(%s, 500, 0)", [job])
        complete(db, job)
        other.rollback()
    assert counts(db) == [(1, 5000)]
