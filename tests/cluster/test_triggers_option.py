"""The option triggers: whether the table's triggers fire, and where that is refused."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress, start, wait_for_rows
from harness.tables import counts, make_table

SKIP = {"triggers": "skip"}


def make_stamped(db: Database, rows: int = 1000) -> None:
    """A table with a trigger that stamps rows and one that copies them."""
    make_table(db, rows)
    db.sql("""
        ALTER TABLE t ADD updated_at timestamptz;
        CREATE TABLE audit (id int);
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN new.updated_at := now(); RETURN new; END';
        CREATE FUNCTION copy() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO audit VALUES (new.id); RETURN NULL; END';
        CREATE TRIGGER stamp BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
        CREATE TRIGGER copy AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION copy()
    """)


def refusal(
    db: Database, set_clause: str, *, user: str = "postgres", options: dict[str, Any] | None = None
) -> psycopg.Error:
    """The error of a start that must fail, and leaves no job."""
    with pytest.raises(psycopg.Error) as caught:
        start(db, "t", set_clause, user=user, options=options or SKIP)
    assert db.sql("SELECT job_id FROM backfill.progress") == []
    return caught.value


def notices(db: Database, options: dict[str, Any]) -> tuple[int, list[str]]:
    """A job, and what its start says."""
    said: list[str] = []
    with db.connect() as connection:
        connection.add_notice_handler(lambda d: said.append(d.message_primary or ""))
        row = connection.execute(
            "SELECT backfill.start('t', set_clause => 'n = n + 1', options => %s)", [json.dumps(options)]
        ).fetchone()
    assert row is not None
    return row[0], said


@pytest.mark.parametrize("walk", [{}, {"walk": "physical"}])
def test_triggers_fire_unless_told_otherwise(db: Database, walk: dict[str, Any]) -> None:
    """Those of the table do not with 'skip', and each row is done all the same."""
    make_stamped(db)
    where = "n = 0" if walk else None
    job = start(db, "t", "n = n + 1", where=where, options={**SKIP, **walk})
    complete(db, job)
    assert counts(db) == [(1, 1000)]
    assert db.value("SELECT count(updated_at) FROM t") == 0 and db.value("SELECT count(*) FROM audit") == 0
    job = start(db, "t", "n = n + 1", options={"triggers": "fire"})
    complete(db, job)
    assert counts(db) == [(2, 1000)]
    assert db.value("SELECT count(updated_at) FROM t") == 1000 and db.value("SELECT count(*) FROM audit") == 1000


def test_start_says_which_fire_and_which_do_not(db: Database) -> None:
    """Those that are ENABLE REPLICA or ALWAYS fire just then."""
    make_stamped(db)
    db.sql("""
        ALTER TABLE t ENABLE ALWAYS TRIGGER copy;
        CREATE TRIGGER replica AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION copy();
        ALTER TABLE t ENABLE REPLICA TRIGGER replica;
        CREATE TRIGGER off BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
        ALTER TABLE t DISABLE TRIGGER off
    """)
    job, said = notices(db, SKIP)
    assert said == [
        "triggers of public.t that fire all the same: copy, replica",
        "triggers of public.t that do not fire: stamp",
    ]
    complete(db, job)
    assert db.value("SELECT count(updated_at) FROM t") == 0 and db.value("SELECT count(*) FROM audit") == 2000
    _, said = notices(db, {})
    assert said == []


def test_it_takes_a_right(db: Database) -> None:
    """That of a superuser, or one that was granted; without it start says how to get it."""
    make_stamped(db)
    db.sql("CREATE ROLE clerk LOGIN; ALTER TABLE t OWNER TO clerk; GRANT CREATE ON SCHEMA public TO clerk")
    db.sql("ALTER FUNCTION stamp OWNER TO clerk; GRANT INSERT ON audit TO clerk")
    error = refusal(db, "n = n + 1", user="clerk")
    assert error.sqlstate == "42501"
    assert error.diag.message_primary == 'permission denied to set parameter "session_replication_role"'
    assert "GRANT SET ON PARAMETER session_replication_role TO clerk" in (error.diag.message_hint or "")
    db.sql("GRANT SET ON PARAMETER session_replication_role TO clerk")
    job = start(db, "t", "n = n + 1", user="clerk", options=SKIP)
    complete(db, job)
    assert db.value("SELECT count(updated_at) FROM t") == 0 and counts(db) == [(1, 1000)]
    # Taken away again, a job that has it does not go on.
    job = start(db, "t", "n = n + 1", user="clerk", batch=10, sleep_ms=20, options=SKIP)
    wait_for_rows(db, job, 50)
    db.sql("SELECT backfill.pause(%s)", [job])
    db.sql("REVOKE SET ON PARAMETER session_replication_role FROM clerk")
    db.sql("SELECT backfill.resume(%s)", [job])
    assert "permission denied to set parameter" in fail(db, job)
    db.sql("DROP OWNED BY clerk CASCADE")


UNCHECKED = {
    "foreign key, referencing": (
        "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (0);"
        "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (n) REFERENCES p",
        "foreign key c of table public.t",
    ),
    "foreign key, referenced": (
        "ALTER TABLE t ADD UNIQUE (id, n);"
        "CREATE TABLE d (id int, n int, CONSTRAINT c FOREIGN KEY (id, n) REFERENCES t (id, n))",
        "foreign key c of table public.d",
    ),
    "deferrable unique": (
        "ALTER TABLE t ADD CONSTRAINT c UNIQUE (id, n) DEFERRABLE",
        "deferrable unique constraint c of table public.t",
    ),
    "deferrable exclusion": (
        "ALTER TABLE t ADD CONSTRAINT c EXCLUDE USING btree ((n + id) WITH =) DEFERRABLE INITIALLY DEFERRED",
        "deferrable exclusion constraint c of table public.t",
    ),
    "generated": (
        "ALTER TABLE t ADD g int GENERATED ALWAYS AS (n + id) STORED;"
        "ALTER TABLE t ADD CONSTRAINT c UNIQUE (g) DEFERRABLE",
        "deferrable unique constraint c of table public.t",
    ),
}


@pytest.mark.parametrize("case", UNCHECKED)
def test_it_is_refused_where_constraints_would_not_be_checked(db: Database, case: str) -> None:
    """These are checked by triggers, too."""
    make_table(db, 100)
    ddl, named = UNCHECKED[case]
    db.sql(ddl)
    error = refusal(db, "n = n + 1")
    assert error.sqlstate == "0A000" and named in (error.diag.message_primary or ""), error
    assert "stay unnoticed" in (error.diag.message_hint or "")
    # Other columns are nobody's business.
    db.sql("ALTER TABLE t ADD m int NOT NULL DEFAULT 0")
    complete(db, start(db, "t", "m = m + 1", options=SKIP))
    assert db.value("SELECT min(m) FROM t") == 1


def test_a_constraint_that_comes_during_the_run_ends_it(db: Database) -> None:
    """Between two batches nobody can have slipped through unchecked."""
    make_table(db, 1000)
    db.sql("CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (0), (1)")
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=20, options=SKIP)
    wait_for_rows(db, job, 50)
    db.sql("ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (n) REFERENCES p")
    assert "foreign key c of table public.t" in fail(db, job)
    db.sql("ALTER TABLE t DROP CONSTRAINT c")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert counts(db) == [(1, 1000)]


def test_partitions_are_looked_at_too(db: Database) -> None:
    """A constraint of one partition counts."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (1000);
        CREATE TABLE p (id int PRIMARY KEY); INSERT INTO t VALUES (1); INSERT INTO p VALUES (0);
        ALTER TABLE t1 ADD CONSTRAINT c FOREIGN KEY (n) REFERENCES p
    """)
    assert "foreign key c of table public.t1" in (refusal(db, "n = n + 1").diag.message_primary or "")


def test_it_cannot_be_altered_nor_set_by_hand(db: Database) -> None:
    """It is part of what the job is."""
    make_table(db, 1000)
    error = refusal(db, "n = n + 1", options={"settings": {"session_replication_role": "replica"}})
    assert error.sqlstate == "22023" and '"triggers": "skip"' in (error.diag.message_hint or "")
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=100)
    with pytest.raises(psycopg.Error, match='option "triggers" cannot be altered'), db.connect() as connection:
        connection.execute("""SELECT backfill.alter(%s, options => '{"triggers": "skip"}')""", [job])
    assert progress(db, job)["state"] == "running"
