"""Dry runs and previews: what a backfill would do, without changing a byte of the table."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import complete, fail, progress, start, wait_for
from harness.tables import make_table

ROWS = 5000
TABLE = """
CREATE TABLE orders (
    id bigint PRIMARY KEY, rate text, rate_new integer CONSTRAINT not_77 CHECK (rate_new <> 77), kept integer,
    twice integer GENERATED ALWAYS AS (rate_new * 2) STORED, CONSTRAINT small CHECK (twice < 9990)
);
INSERT INTO orders (id, rate) SELECT id, id::text FROM generate_series(1, 5000) id;
UPDATE orders SET rate = 'none' WHERE id IN (5, 777, 4000);
UPDATE orders SET rate_new = rate::integer WHERE id BETWEEN 100 AND 119;
VACUUM (FREEZE, ANALYZE) orders
"""
# 'none' thrice; 77; and 4995 and above, whose double is too large.
FAILING = [5, 77, 777, 4000, *range(4995, 5001)]


def make(db: Database) -> None:
    """A table of which most rows can be done, some are done, and some would fail."""
    for statement in TABLE.split(";"):
        db.sql(statement)


def files(cluster: Cluster, db: Database, table: str) -> dict[str, str]:
    """The table's files as they are on the disk, with its indexes'."""
    db.sql("CHECKPOINT")
    paths = db.sql(
        "SELECT pg_relation_filepath(oid) FROM pg_class"
        " WHERE oid = %s::regclass OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = %s::regclass)",
        [table, table],
    )
    data = Path(str(cluster.data))
    return {path: hashlib.sha256((data / path).read_bytes()).hexdigest() for (path,) in paths}


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"target_ms": 50}])
def test_a_dry_run_counts_what_would_become_of_each_row(db: Database, options: dict[str, Any]) -> None:
    """Those that would change, those that have the value already, and those that would fail, each with its error."""
    make(db)
    job = start(db, "orders", "rate_new = rate::integer", options={"dry_run": True, **options})
    row = complete(db, job)
    assert row["kind"] == "dry run"
    same = 20
    would_change = ROWS - len(FAILING) - same
    assert (row["rows_done"], row["rows_updated"], row["rows_failed"]) == (ROWS, would_change, len(FAILING))
    assert f"of {ROWS} rows {would_change} would change, {same} would get what they have" in row["note"]
    failed = db.sql(
        "SELECT key[1]::int, sqlstate, constraint_name FROM backfill.failed_rows WHERE job_id = %s ORDER BY 1", [job]
    )
    assert [key for key, _, _ in failed] == FAILING
    kinds = {key: (sqlstate, constraint) for key, sqlstate, constraint in failed}
    assert kinds[5] == ("22P02", None)
    assert kinds[77] == ("23514", "not_77")
    assert kinds[5000] == ("23514", "small")
    detail = db.value("SELECT detail FROM backfill.failed_rows WHERE job_id = %s AND key = '{77}'", [job])
    assert detail == "Failing row contains (77, 77, 77, null, 154)."
    assert db.value("SELECT count(rate_new) FROM orders") == same


def test_not_a_byte_of_the_table_changes(new_cluster: Callable[..., Cluster]) -> None:
    """Neither by a dry run nor by a preview; a preview writes no WAL."""
    cluster = new_cluster(conf={"autovacuum": "off"})
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    make(db)
    db.sql("SELECT count(*) FROM orders WHERE rate <> ''")
    before = files(cluster, db, "orders")
    assert len(before) == 2
    preview = "SELECT * FROM backfill.preview('orders', set_clause => 'rate_new = rate::integer')"
    # The first settles the hint bits of the catalogs, which are logged where there are checksums.
    assert len(db.sql(preview)) == 10
    start_lsn = db.value("SELECT pg_current_wal_insert_lsn()")
    assert len(db.sql(preview)) == 10
    assert db.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", [start_lsn]) < 2000
    options = {"dry_run": True, "vacuum": True}
    complete(db, start(db, "orders", "rate_new = rate::integer", options=options))
    assert files(cluster, db, "orders") == before


def test_the_same_rows_are_done_for_real(db: Database) -> None:
    """What the dry run says is what the run does; both may have the same name."""
    make(db)
    clause = "rate_new IS NULL AND id > 1000"
    options = {"max_failed_rows": 100}
    dry = start(db, "orders", "rate_new = rate::integer", where=clause, name="rates", options={"dry_run": True})
    said = complete(db, dry)
    real = start(db, "orders", "rate_new = rate::integer", where=clause, name="rates", options=options)
    assert real != dry
    done = complete(db, real)
    assert (said["rows_updated"], said["rows_failed"]) == (done["rows_updated"], done["rows_failed"])
    keys = "SELECT array_agg(key ORDER BY key) FROM backfill.failed_rows WHERE job_id = %s"
    assert db.value(keys, [dry]) == db.value(keys, [real])
    # Each is found again by the same call.
    again = start(db, "orders", "rate_new = rate::integer", where=clause, name="rates", options={"dry_run": True})
    assert again == dry


@pytest.mark.parametrize(
    "clause, value",
    [
        ("(kept, rate_new) = (SELECT id, id + 1)", {"kept": "7", "rate_new": "8"}),
        ("kept = DEFAULT, rate_new = 3", {"kept": None, "rate_new": "3"}),
        ("rate_new = id / 2.0", {"rate_new": "4"}),
        ("kept = (SELECT count(*) FROM orders o WHERE o.id <= orders.id)", {"kept": "7"}),
    ],
)
def test_any_set_clause_is_evaluated(db: Database, clause: str, value: dict[str, str | None]) -> None:
    """With the casts of an assignment, defaults, and several columns at once."""
    make(db)
    rows = db.sql("SELECT after FROM backfill.preview('orders', set_clause => %s, where_clause => 'id = 7')", [clause])
    assert rows == [(value,)]
    complete(db, start(db, "orders", clause, where="id < 10", options={"dry_run": True}))
    complete(db, start(db, "orders", clause, where="id = 7"))
    stored = db.value("SELECT to_jsonb(o) FROM orders o WHERE id = 7")
    assert {name: stored[name] for name in value} == {
        name: None if text is None else int(text) for name, text in value.items()
    }


def test_a_length_is_checked_and_not_cut(db: Database) -> None:
    """An assignment does not cut what is too long, as a cast would."""
    db.sql("CREATE TABLE t (id integer PRIMARY KEY, short varchar(3)); INSERT INTO t VALUES (1), (12), (123)")
    job = start(db, "t", "short = 'x' || id", options={"dry_run": True})
    assert complete(db, job)["rows_failed"] == 1
    assert db.sql("SELECT key, sqlstate FROM backfill.failed_rows") == [(["123"], "22001")]


def test_functions_that_write_are_refused(db: Database) -> None:
    """Nothing is written by a dry run: the job fails, and says why."""
    make(db)
    db.sql("CREATE TABLE log (id bigint)")
    db.sql(
        "CREATE FUNCTION noted(bigint) RETURNS integer LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.log VALUES ($1); RETURN 1; END $$"
    )
    assert "read-only transaction" in fail(db, start(db, "orders", "kept = noted(id)", options={"dry_run": True}))
    db.sql("CREATE SEQUENCE numbers")
    error = fail(db, start(db, "orders", "kept = nextval('numbers')", options={"dry_run": True}))
    assert "cannot execute nextval() in a read-only transaction" in error
    assert db.value("SELECT count(*) FROM log") == 0
    assert db.value("SELECT is_called FROM numbers") is False


def test_what_a_read_only_transaction_may_do_is_undone(db: Database) -> None:
    """It may notify, and in older servers write large objects: not in a dry run, a preview or a plan."""
    make(db)
    db.sql(
        "CREATE FUNCTION told(bigint) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('told', $1::text);"
        " IF current_setting('server_version_num')::int < 160000 THEN PERFORM lo_create(0); END IF; RETURN 1; END $$"
    )
    with psycopg.connect(db.dsn(), autocommit=True) as listener:
        listener.execute("LISTEN told")
        row = complete(db, start(db, "orders", "kept = told(id)", where="told(id) = 1", options={"dry_run": True}))
        assert row["rows_updated"] == ROWS
        call = "backfill.preview('orders', set_clause => 'kept = told(id)', where_clause => 'told(id) = 1')"
        assert db.sql(f"SELECT after FROM {call}") == [({"kept": "1"},)] * 10
        db.sql("SELECT FROM backfill.plan('orders', set_clause => 'kept = 1', where_clause => 'told(id) = 1')")
        db.sql("NOTIFY told, 'the end'")
        assert [said.payload for said in listener.notifies(timeout=30, stop_after=1)] == ["the end"]
    assert db.value("SELECT count(*) FROM pg_largeobject_metadata") == 0


def test_partitions_and_pages(db: Database) -> None:
    """A partitioned table leaf by leaf; a table without a key page by page."""
    db.sql("CREATE TABLE p (a integer, b integer, n integer, PRIMARY KEY (a, b)) PARTITION BY LIST (a)")
    db.sql("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)")
    db.sql("INSERT INTO p SELECT 1 + id % 2, id FROM generate_series(1, 3000) id")
    row = complete(db, start(db, "p", "n = p.b", where="b > 1000", options={"dry_run": True}))
    assert (row["rows_done"], row["rows_updated"]) == (3000, 2000)
    db.sql("CREATE TABLE heap (v integer, n integer); INSERT INTO heap SELECT id FROM generate_series(1, 3000) id")
    db.sql("ANALYZE heap")
    row = complete(db, start(db, "heap", "n = v", where="n IS NULL AND v > 500", options={"dry_run": True}))
    assert row["rows_updated"] == 2500
    assert row["rows_done"] == pytest.approx(3000, rel=0.1)


def test_no_end_and_no_overlap(db: Database) -> None:
    """A dry run runs no on_end, and is in nobody's way."""
    make(db)
    db.sql("CREATE TABLE ended (id bigint)")
    options = {"dry_run": True, "on_end": "INSERT INTO ended VALUES (1)"}
    real = start(db, "orders", "kept = 1", batch=10, sleep_ms=100)
    dry = start(db, "orders", "kept = 2", batch=100, options=options)
    complete(db, dry)
    assert progress(db, real)["state"] == "running"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="only reads"):
        db.sql("SELECT backfill.retry_failed(%s)", [dry])
    db.sql("SELECT backfill.cancel(%s, true)", [real])
    wait_for(db, real, "cancelled")
    assert db.value("SELECT count(*) FROM ended") == 0


def test_a_preview_is_spread_over_the_table(db: Database) -> None:
    """Not the first ten rows; errors are shown row by row."""
    db.sql("CREATE TABLE wide (id integer PRIMARY KEY, n text, m integer, pad text)")
    db.sql("INSERT INTO wide SELECT id, id, NULL, repeat('x', 500) FROM generate_series(1, 20000) id")
    db.sql("UPDATE wide SET n = 'none' WHERE id BETWEEN 9000 AND 11000")
    db.sql("VACUUM FULL wide")
    rows = db.sql("SELECT * FROM backfill.preview('wide', set_clause => 'm = n::integer', \"limit\" => 20)")
    assert len(rows) == 20
    keys = [int(key.removeprefix("id = ")) for key, *_ in rows]
    for part in range(5):
        assert [key for key in keys if part * 4000 < key <= (part + 1) * 4000], keys
    assert len(set(keys)) == 20
    for key, before, after, error in rows:
        number = int(key.removeprefix("id = "))
        if db.value("SELECT n = 'none' FROM wide WHERE id = %s", [number]):
            assert "invalid input syntax" in error and "22P02" in error and after is None
        else:
            assert (before, after, error) == ({"m": None}, {"m": str(number)}, None)
    assert any(error for *_, error in rows)


def test_a_preview_runs_with_the_owners_rights(db: Database) -> None:
    """A superuser who looks at somebody's definition lends him nothing; and it goes by the definition's settings."""
    db.sql("DROP ROLE IF EXISTS dreamer; CREATE ROLE dreamer LOGIN; GRANT ALL ON SCHEMA public TO dreamer")
    db.sql("SET ROLE dreamer; CREATE TABLE t (id integer PRIMARY KEY, who text); INSERT INTO t VALUES (1)")
    db.sql(
        "SET ROLE dreamer; CREATE FUNCTION who() RETURNS text LANGUAGE plpgsql VOLATILE AS"
        " $$ BEGIN RETURN current_user || ' ' || current_setting('DateStyle'); END $$"
    )
    db.sql("SET ROLE dreamer; SET DateStyle = 'German'; SELECT backfill.define('t', 'who = public.who()')")
    [(after,)] = db.sql("SELECT after FROM backfill.preview('t')")
    assert after == {"who": "dreamer German, DMY"}
    db.sql(
        "SET ROLE dreamer; CREATE OR REPLACE FUNCTION who() RETURNS text LANGUAGE plpgsql VOLATILE AS"
        " $$ BEGIN RESET ROLE; RETURN current_user; END $$"
    )
    # There is nobody above them in the session that this runs in.
    [(after, error)] = db.sql("SELECT after, error FROM backfill.preview('t')")
    assert (after, error) == ({"who": "dreamer"}, None)
    db.sql("DROP TABLE t; DROP FUNCTION who(); DROP OWNED BY dreamer; DROP ROLE dreamer")


@pytest.mark.parametrize(
    "call, message",
    [
        ("preview('orders', set_clause => 'rate_new = 1', \"limit\" => 0)", "limit must be between 1 and 1000"),
        ("preview('orders', set_clause => 'nothing = 1')", 'column "nothing" of relation "orders" does not exist'),
        ("preview('orders')", "no backfill is defined for table public.orders"),
        ("rehearse(99)", "backfill job 99 does not exist"),
        ("rehearse(1, 0)", "rows must be between 1 and 100000, not 0"),
    ],
)
def test_bad_calls(db: Database, call: str, message: str) -> None:
    """Each says what is wrong, and what to do."""
    make(db)
    if "rehearse(1" in call:
        db.sql("SELECT backfill.define('orders', 'kept = 1')")
    with pytest.raises(psycopg.Error) as caught:
        db.sql(f"SELECT * FROM backfill.{call}")
    assert message in str(caught.value)
    assert caught.value.diag.message_hint


def test_a_rehearsal_is_rolled_back(db: Database) -> None:
    """Triggers fire, also those that are deferred; rows that fail are named; nothing of it stays."""
    make(db)
    db.sql("CREATE TABLE log (id bigint)")
    db.sql(
        "CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (new.id);"
        " IF new.id % 1000 = 1 THEN RAISE EXCEPTION 'no % for %', new.rate_new, current_user; END IF;"
        " RETURN NULL; END $$"
    )
    db.sql(
        "CREATE CONSTRAINT TRIGGER fired AFTER UPDATE ON orders DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION fired()"
    )
    job = db.value("SELECT backfill.define('orders', 'rate_new = 1', 'id <= 3000')")
    with db.connect() as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        rows = connection.execute("SELECT * FROM backfill.rehearse(%s, 3000)", [job]).fetchall()
    all_rows, failed = rows[0], rows[1:]
    tried = all_rows[1]
    assert tried > 1000 and all_rows[2] == len(failed) > 0
    assert all_rows[3] > 0 and all_rows[4] > 50
    for what, *_, error in failed:
        assert int(what.removeprefix("id = ")) % 1000 == 1
        assert error == "no 1 for postgres (SQLSTATE P0001)"
    assert "are updated and rolled back: that writes WAL and leaves dead tuples" in notices[0]
    assert f"{tried - len(failed)} dead tuples are left" in notices[-1]
    assert db.value("SELECT count(*) FROM log") == 0
    assert db.value("SELECT count(rate_new) FROM orders") == 20
    assert progress(db, job)["state"] == "pending"


def test_a_rehearsal_of_which_all_fails(db: Database) -> None:
    """Thousands of long errors: a hundred are shown, all are counted. Meanwhile the job can be controlled."""
    make_table(db, 5000)
    db.sql(
        "CREATE FUNCTION fail(id int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " IF id = 1 THEN PERFORM pg_sleep(3); END IF; RAISE EXCEPTION '%', repeat('x', 8000); END $$"
    )
    job = db.value("SELECT backfill.define('t', 'n = fail(id)')")
    with db.connect() as other:
        connection = db.connect()
        rows: list[tuple] = []
        query = "SELECT * FROM backfill.rehearse(%s, 5000)"
        thread = threading.Thread(target=lambda: rows.extend(connection.execute(query, [job]).fetchall()))
        thread.start()
        naps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: db.value(naps) == 1, 30, "the rehearsal")
        other.execute("SET lock_timeout = '1s'")
        other.execute("SELECT backfill.alter(%s, batch_size => 500)", [job])
        thread.join()
    assert rows[0][1] == rows[0][2] > 4000
    assert len(rows) == 101


def test_a_dry_run_can_be_required(db: Database) -> None:
    """A superuser's setting: no start without a dry run of the same thing, and a recent one."""
    make(db)
    required = "SET backfill.require_dry_run = '1h'"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="wants a dry run within 60 minutes"):
        start(db, "orders", "kept = 1", session=required)
    assert db.value("SELECT count(*) FROM backfill.progress") == 0
    complete(db, start(db, "orders", "kept = 1", session=required, options={"dry_run": True}))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        start(db, "orders", "kept = 1", where="id > 1", session=required)
    assert "No dry run of this table" in (caught.value.diag.message_detail or "")
    db.sql("UPDATE backfill_internal.outcome SET at = at - interval '2 hours'")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        start(db, "orders", "kept = 1", session=required)
    assert caught.value.diag.message_detail == "The last one was 2 hours ago."
    db.sql("UPDATE backfill_internal.outcome SET at = at + interval '2 hours'")
    for other in ({"settings": {"search_path": "pg_catalog"}}, {"key_to": 1}):
        complete(db, start(db, "orders", "kept = 2", session=required, options={"dry_run": True} | other))
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="wants a dry run"):
            start(db, "orders", "kept = 2", session=required)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="wants a dry run"):
        start(db, "orders", "kept = 1", session=f"{required}; SET search_path = public")
    complete(db, start(db, "orders", "kept = 1", session=required))
    db.sql("DROP ROLE IF EXISTS carl; CREATE ROLE carl LOGIN")
    with psycopg.connect(db.dsn("carl")) as carl, pytest.raises(psycopg.errors.InsufficientPrivilege):
        carl.execute("LOAD 'backfill'")
        carl.execute("SET backfill.require_dry_run = 0")
    db.sql("DROP ROLE carl")


def test_a_dry_run_of_a_definition(db: Database) -> None:
    """What a developer has defined can be tried before it is started; the definition stays as it is."""
    make(db)
    db.sql("DROP ROLE IF EXISTS dora; CREATE ROLE dora LOGIN; GRANT SELECT, UPDATE ON orders TO dora")
    db.sql("SET ROLE dora; SELECT backfill.define('orders', 'kept = id', 'id > 10', 'keep')")
    dry = db.value("SELECT backfill.start('orders', options => '{\"dry_run\": true}')")
    row = complete(db, dry)
    assert (row["kind"], row["owner"], row["name"], row["rows_updated"]) == ("dry run", "dora", "keep", ROWS - 10)
    assert db.value("SELECT backfill.start('orders', name => 'keep', options => '{\"dry_run\": true}')") == dry
    job = db.value("SET backfill.require_dry_run = '1h'; SELECT backfill.start('orders')")
    assert job != dry
    assert complete(db, job)["rows_updated"] == ROWS - 10
    db.sql("DROP OWNED BY dora; DROP ROLE dora")
