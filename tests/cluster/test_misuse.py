"""Mistakes that are easily made: they are refused, or said at once, and what is advised does no harm."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress, start, wait_for_rows, wait_for_state
from harness.tables import counts, make_table

UNSUPPORTED = psycopg.errors.FeatureNotSupported


@pytest.mark.parametrize(
    ("session", "set_clause", "where"),
    [
        ("CREATE TEMP TABLE rates AS SELECT 1 AS id, 42 AS r", "n = (SELECT r FROM rates LIMIT 1)", None),
        ("CREATE TEMP VIEW rates AS SELECT 1 AS id, 42 AS r", "n = (SELECT r FROM rates LIMIT 1)", None),
        ("CREATE TEMP SEQUENCE numbers", "n = nextval('numbers')", None),
        ("CREATE TEMP TABLE mine (id int)", "n = 1", "id IN (SELECT id FROM pg_temp.mine)"),
    ],
)
def test_what_is_temporary_is_not_the_workers(db: Database, session: str, set_clause: str, where: str | None) -> None:
    """Also where a permanent table has the same name: the job would take other values than an UPDATE here."""
    make_table(db, 100)
    db.sql("CREATE TABLE rates (id int, r int); INSERT INTO rates VALUES (1, 1); CREATE SEQUENCE numbers START 1000")
    with pytest.raises(UNSUPPORTED, match="which is temporary") as refused:
        start(db, "t", set_clause, where=where, session=session)
    assert "permanent" in (refused.value.diag.message_hint or "")
    assert db.sql("SELECT * FROM backfill.progress") == []
    if where is None:
        complete(db, start(db, "t", set_clause))


def test_what_is_advised_after_a_cancel_does_no_row_twice(db: Database) -> None:
    """Not the same again, but for the rows that are left."""
    make_table(db, 1000)
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=50, name="once")
    wait_for_rows(db, job, 50)
    db.sql("SELECT backfill.cancel(%s)", [job])
    wait_for_state(db, job, "cancelled")
    for call in ("SELECT backfill.resume(%s)", "CALL backfill.wait(%s)"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
            db.sql(call, [job])
        hint = refused.value.diag.message_hint or ""
        assert "committed batches stay" in hint and "leaves out the rows that are done" in hint
    complete(db, start(db, "t", "n = n + 1", where="n = 0"))
    assert counts(db) == [(1, 1000)]


def test_rows_that_fail_cannot_be_stepped_over_without_a_key(db: Database) -> None:
    """That is said when it is asked for."""
    db.sql("CREATE TABLE bare (n int, s text); INSERT INTO bare (s) VALUES ('1'), ('x')")
    with db.connect() as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        connection.execute(
            "SELECT backfill.start('bare', set_clause => 'n = s::int', where_clause => 'n IS NULL',"
            " options => '{\"max_failed_rows\": 5}')"
        )
    assert any("no row that fails can be stepped over" in notice for notice in notices), notices
    assert "22P02" in fail(db, 1)


def test_too_many_failed_rows(db: Database) -> None:
    """The error says what may be done about it."""
    make_table(db, 100)
    job = start(db, "t", "n = 1 / (id % 10)", options={"max_failed_rows": 3})
    error = fail(db, job)
    assert "22012" in error and "max_failed_rows (3) rows have failed before" in error and "backfill.alter" in error
    assert progress(db, job)["rows_failed"] == 3


@pytest.mark.parametrize("sqlstate", ["XX001", "XX000"])
def test_damage_is_of_a_row(db: Database, sqlstate: str) -> None:
    """A value that can't be read any more, for one."""
    make_table(db, 300)
    db.sql(f"""
        CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.id = 77 THEN RAISE 'missing chunk' USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER broken BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION broken()
    """)
    job = start(db, "t", "n = n + 1", options={"max_failed_rows": 3})
    assert complete(db, job)["rows_failed"] == 1
    assert db.sql("SELECT key, sqlstate FROM backfill.failed_rows") == [(["77"], sqlstate)]
    assert counts(db) == [(0, 1), (1, 299)]


def test_settings_are_tried_with_the_owners_rights(db: Database) -> None:
    """By whoever alters the job: a superuser's would end it."""
    db.sql("DROP ROLE IF EXISTS modest")
    db.sql("CREATE ROLE modest LOGIN")
    make_table(db, 100)
    db.sql("ALTER TABLE t OWNER TO modest")
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=60_000, user="modest")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="log_min_messages"):
        db.sql('SELECT backfill.alter(%s, options => \'{"settings": {"log_min_messages": "debug1"}}\')', [job])
    db.sql('SELECT backfill.alter(%s, sleep_ms => 0, options => \'{"settings": {"work_mem": "1MB"}}\')', [job])
    complete(db, job)
    db.sql("ALTER TABLE t OWNER TO postgres; DROP OWNED BY modest")


def test_skipped_triggers_and_one_that_fires_all_the_same(db: Database) -> None:
    """It may write to a column whose foreign key is not checked."""
    db.sql("""
        CREATE TABLE ref (id int PRIMARY KEY); INSERT INTO ref VALUES (1);
        CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, r int REFERENCES ref); INSERT INTO t VALUES (1, 0, 1);
        CREATE FUNCTION wrong() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.r := 99; RETURN NEW; END $$;
        CREATE TRIGGER wrong BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION wrong();
        ALTER TABLE t ENABLE ALWAYS TRIGGER wrong
    """)
    with pytest.raises(UNSUPPORTED, match="foreign key t_r_fkey") as refused:
        start(db, "t", "n = n + 1", options={"triggers": "skip"})
    assert "Trigger wrong fires all the same" in (refused.value.diag.message_hint or "")
    db.sql("ALTER TABLE t DISABLE TRIGGER wrong")
    complete(db, start(db, "t", "n = n + 1", options={"triggers": "skip"}))
    assert db.sql("SELECT * FROM t") == [(1, 1, 1)]


def test_the_server_log_has_no_line_for_each_row(db: Database) -> None:
    """Of a thousand that fail."""
    make_table(db, 1000)
    before = db.cluster.log.read_text().count("steps over")
    job = start(db, "t", "n = 1 / (id - id)", options={"max_failed_rows": 1000})
    assert complete(db, job)["rows_failed"] == 1000
    lines = db.cluster.log.read_text().count("steps over") - before
    assert 4 <= lines <= 30
