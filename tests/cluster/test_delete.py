"""backfill.delete: rows are deleted in batches, and may go into an archive by the same statement."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress, wait_for
from harness.wait import wait_until

ROWS = 5_000
# Of each ten rows, these are old.
OLD = 7


def make(db: Database, key: str = "id int PRIMARY KEY") -> None:
    """Rows of which seven of ten are old."""
    db.sql(f"""
        CREATE TABLE t ({key}, old boolean, note text);
        INSERT INTO t (id, old, note) SELECT g, g % 10 < {OLD}, 'row ' || g FROM generate_series(1, {ROWS}) g
    """)


def delete(db: Database, where: str | None = "old", table: str = "t", **given: Any) -> int:
    """Starts a job."""
    user = given.pop("user", None)
    options = json.dumps(given.pop("options", {}))
    call = "SELECT backfill.delete(%s::regclass, %s, %s, %s, %s, %s)"
    values = [table, given.pop("batch", 300), given.pop("sleep_ms", 0), where, given.pop("name", None), options]
    assert not given
    return int(db.value(call, values, **({"user": user} if user else {})))


WAYS = {
    "by key": ("id int PRIMARY KEY", {}),
    "by key of two columns": ("b int DEFAULT 1, id int, PRIMARY KEY (b, id)", {"walk": "key"}),
    "by several workers": ("id int PRIMARY KEY", {"workers": 3}),
    "in physical order": ("id int PRIMARY KEY", {"walk": "physical"}),
    "without a key": ("id int", {}),
    "locked rows later": ("id int PRIMARY KEY", {"locked_rows": "skip"}),
    "sequentially": ("id int PRIMARY KEY", {"strategy": "sequential"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("archived", [False, True], ids=["", "archived"])
def test_what_matches_is_gone(db: Database, way: str, archived: bool) -> None:
    """And nothing else; what is archived is what was there, each row once."""
    key, options = WAYS[way]
    make(db, key)
    db.sql("CREATE TABLE before AS SELECT * FROM t")
    if archived:
        # Its columns are in another order, and it has more of them.
        db.sql("CREATE TABLE gone (at timestamptz DEFAULT now(), note text, old boolean, id int, b int)")
        options = options | {"archive_into": "gone"}
    row = complete(db, delete(db, options=options))
    deleted = ROWS * OLD // 10
    assert row["rows_updated"] == deleted, row
    assert db.value("SELECT count(*) FROM t") == ROWS - deleted
    assert db.value("SELECT count(*) FROM t WHERE old") == 0
    if archived:
        assert db.value("SELECT count(*) FROM gone WHERE at IS NOT NULL") == deleted
        both = "SELECT id, old, note FROM t UNION ALL SELECT id, old, note FROM gone"
        assert db.sql(f"({both}) EXCEPT ALL SELECT id, old, note FROM before") == []
        assert db.value(f"SELECT count(*) FROM ({both}) s") == ROWS


def test_partitions_and_children(db: Database) -> None:
    """Rows of all of them go, into one archive."""
    db.sql("""
        CREATE TABLE p (id int, a int, PRIMARY KEY (a, id)) PARTITION BY LIST (a);
        CREATE TABLE p0 PARTITION OF p FOR VALUES IN (0);
        CREATE TABLE p1 (a int NOT NULL, id int NOT NULL, PRIMARY KEY (a, id));
        ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1);
        INSERT INTO p SELECT g, g % 2 FROM generate_series(1, 2000) g;
        CREATE TABLE gone (LIKE p);
        CREATE TABLE par (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (par);
        INSERT INTO par SELECT generate_series(1, 100); INSERT INTO child SELECT generate_series(101, 200)
    """)
    complete(db, delete(db, "p.id <= 1500", "p", options={"archive_into": "gone"}))
    assert db.value("SELECT count(*) FROM p") == 500
    assert db.sql("SELECT a, count(*) FROM gone GROUP BY a ORDER BY a") == [(0, 750), (1, 750)]
    complete(db, delete(db, "id > 50", "par"))
    assert db.sql("SELECT count(*), max(id) FROM par") == [(50, 50)]


def test_rows_that_are_referred_to(db: Database) -> None:
    """They fail like others: the job does, or they are stepped over and named. Those of CASCADE go along."""
    make(db)
    db.sql("""
        CREATE TABLE child (t int REFERENCES t); INSERT INTO child VALUES (1), (11), (4001);
        CREATE TABLE owned (t int REFERENCES t ON DELETE CASCADE); INSERT INTO owned SELECT id FROM t WHERE id % 100 = 1
    """)
    job = delete(db)
    error = fail(db, job)
    assert "violates foreign key constraint" in error and "child" in error, error
    db.sql("SELECT backfill.cancel(%s)", [job])
    row = complete(db, delete(db, options={"max_failed_rows": 10}))
    assert db.sql("SELECT id FROM t WHERE old ORDER BY id") == [(1,), (11,), (4001,)]
    assert "3 rows failed" in row["note"]
    keys = db.sql("SELECT key FROM backfill.failed_rows WHERE job_id = %s ORDER BY key[1]::int", [row["job_id"]])
    assert keys == [(["1"],), (["11"],), (["4001"],)]
    # Those that refer to the rows that were kept.
    assert db.value("SELECT count(*) FROM owned o WHERE NOT EXISTS (SELECT FROM t WHERE t.id = o.t)") == 0


def test_one_at_a_time_with_its_checkpoint(db: Database) -> None:
    """Paused in the middle, with the archive complete so far; it goes on from there."""
    make(db)
    db.sql("CREATE TABLE gone (LIKE t)")
    job = delete(db, batch=100, sleep_ms=60_000, options={"archive_into": "gone"})
    wait_until(lambda: progress(db, job)["rows_updated"], 30, "the first batch")
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    assert db.value("SELECT count(*) FROM t") + db.value("SELECT count(*) FROM gone") == ROWS
    assert 0 < db.value("SELECT count(*) FROM gone") <= 200
    # It has another name, and a table of its name takes its place.
    db.sql("ALTER TABLE gone RENAME TO went; CREATE TABLE gone (LIKE t)")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.value("SELECT count(*) FROM gone") == 0
    assert db.value("SELECT count(*) FROM t") + db.value("SELECT count(*) FROM went") == ROWS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE t ADD extra int", "has no place"),
        ("ALTER TABLE t RENAME old TO new; ALTER TABLE t RENAME note TO old", "is called"),
        ("DROP TABLE gone", "no longer exists"),
        (
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "CREATE TRIGGER keep BEFORE INSERT ON gone FOR EACH ROW EXECUTE FUNCTION keep()",
            "could keep rows out",
        ),
        ("CREATE RULE r AS ON INSERT TO gone DO INSTEAD NOTHING", "could keep rows out"),
    ],
)
def test_no_row_is_lost_on_its_way(db: Database, change: str, said: str) -> None:
    """The archive changes in the middle of the run: the job fails, with all rows in one of the tables."""
    make(db)
    db.sql("CREATE TABLE gone (LIKE t)")
    job = delete(db, batch=100, sleep_ms=60_000, options={"archive_into": "gone"})
    wait_until(lambda: progress(db, job)["rows_updated"], 30, "the first batch")
    gone = db.value("SELECT count(*) FROM gone")
    db.sql(change)
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    assert said in fail(db, job)
    assert db.value("SELECT count(*) FROM t") + gone == ROWS


BAD: dict[str, tuple[str | None, dict[str, Any], str, str]] = {
    "no clause": (None, {}, "22004", "where_clause must not be NULL"),
    "no such column": ("nope", {}, "42703", "nope"),
    "itself": ("old", {"archive_into": "t"}, "22023", "the table itself"),
    "no such archive": ("old", {"archive_into": "nowhere"}, "42P01", "nowhere"),
    "no place": ("old", {"archive_into": "narrow"}, "42703", '"note"'),
    "another type": ("old", {"archive_into": "typed"}, "42804", "old"),
    "a view": ("old", {"archive_into": "v"}, "42809", "view"),
    "not a name": ("old", {"archive_into": 7}, "22023", "archive_into"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(db: Database, case: str) -> None:
    """With a SQLSTATE, the thing at fault, and a hint; nothing stays behind."""
    make(db)
    db.sql("""
        CREATE TABLE narrow (id int, old boolean); CREATE VIEW v AS SELECT * FROM t;
        CREATE TABLE typed (id int, old point, note text)
    """)
    where, options, state, said = BAD[case]
    with pytest.raises(psycopg.Error) as caught:
        delete(db, where, options=options)
    assert caught.value.sqlstate == state and said in str(caught.value), caught.value
    assert caught.value.diag.message_hint, caught.value
    assert db.value("SELECT count(*) FROM backfill.progress") == 0


def test_the_option_is_for_deletes_only(db: Database) -> None:
    """An update has nothing to archive."""
    make(db)
    db.sql("CREATE TABLE gone (LIKE t)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="rows that are deleted"):
        db.sql("""SELECT backfill.start('t', set_clause => 'old = false', options => '{"archive_into": "gone"}')""")


def test_a_dry_run_and_a_verification(db: Database) -> None:
    """The dry run counts and deletes nothing; the verification finds what is left, and reapply deletes that."""
    make(db)
    dry = complete(db, delete(db, options={"dry_run": True}, name="purge"))
    assert f"dry run: of {ROWS} rows {ROWS * OLD // 10} would be deleted" in dry["note"], dry["note"]
    assert db.value("SELECT count(*) FROM t") == ROWS
    job = delete(db, name="purge")
    complete(db, job)
    assert delete(db, name="purge") == job
    db.sql("SELECT backfill.require_completed('purge')")
    db.sql("INSERT INTO t SELECT g, true, 'new' FROM generate_series(9001, 9003) g")
    verification = db.value("SELECT backfill.verify(%s)", [job])
    assert "3 of 1503 rows still match" in complete(db, verification)["note"]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no set_clause"):
        db.sql("SELECT backfill.verify(%s, recompute => true)", [job])
    complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    assert db.value("SELECT count(*) FROM t WHERE old") == 0
    with pytest.raises(psycopg.errors.DuplicateObject, match="another definition"):
        delete(db, "NOT old", name="purge")


def test_rights(db: Database) -> None:
    """It takes DELETE on the table, SELECT on what the clauses read, and INSERT on the archive."""
    make(db)
    db.sql("CREATE ROLE janitor LOGIN; CREATE TABLE gone (LIKE t); GRANT SELECT ON t TO janitor")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            delete(db, user="janitor")
        db.sql("GRANT DELETE ON t TO janitor")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="gone"):
            delete(db, user="janitor", options={"archive_into": "gone"})
        db.sql("GRANT INSERT ON gone TO janitor")
        complete(db, delete(db, user="janitor", options={"archive_into": "gone"}))
        assert db.value("SELECT count(*) FROM gone") == ROWS * OLD // 10
    finally:
        db.sql("SELECT backfill.forget(job_id) FROM backfill.progress")
        db.sql("DROP OWNED BY janitor; DROP ROLE janitor")


def test_a_superusers_archive_of_somebody_else(db: Database) -> None:
    """Its triggers and defaults would run as the superuser."""
    make(db)
    db.sql(f"ALTER DATABASE {db.value('SELECT current_database()')} SET backfill.allow_superuser_jobs = off")
    db.sql("CREATE ROLE gatecrasher; CREATE TABLE gone (LIKE t); ALTER TABLE gone OWNER TO gatecrasher")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="gatecrasher"):
            delete(db, options={"archive_into": "gone"})
    finally:
        db.sql("DROP OWNED BY gatecrasher; DROP ROLE gatecrasher")


def test_triggers_that_are_skipped(db: Database) -> None:
    """Not where a foreign key refers to the table: rows that refer to a deleted one would stay."""
    make(db)
    db.sql("""
        CREATE TABLE log (n int); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO log VALUES (1); RETURN NULL; END';
        CREATE TRIGGER noted AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()
    """)
    complete(db, delete(db, "id <= 100", options={"triggers": "skip"}))
    assert db.value("SELECT count(*) FROM log") == 0 and db.value("SELECT count(*) FROM t") == ROWS - 100
    complete(db, delete(db, "id <= 200", options={"walk": "physical"}))
    assert db.value("SELECT count(*) FROM log") == 100
    db.sql("CREATE TABLE child (t int REFERENCES t)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot be skipped"):
        delete(db, options={"triggers": "skip"})


@pytest.mark.parametrize("walk", ["key", "physical"])
def test_a_trigger_that_keeps_rows(db: Database, walk: str) -> None:
    """As one DELETE would: they stay, are not counted, and the job ends."""
    make(db)
    db.sql("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF old.id % 100 = 1 THEN RETURN NULL; END IF; RETURN old; END';
        CREATE TRIGGER keep BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION keep()
    """)
    row = complete(db, delete(db, options={"walk": walk}))
    assert db.value("SELECT count(*) FROM t WHERE old") == ROWS // 100
    assert row["rows_updated"] == ROWS * OLD // 10 - ROWS // 100


def test_the_clock_may_decide(db: Database) -> None:
    """The most usual clause of all, also without a key."""
    db.sql("""
        CREATE TABLE e (at timestamptz, n int);
        INSERT INTO e SELECT now() - g * interval '1 hour', g FROM generate_series(0, 999) g
    """)
    complete(db, delete(db, "at < now() - interval '10 days'", "e"))
    assert 239 <= db.value("SELECT count(*) FROM e") <= 242


def test_a_subquery_on_the_table_itself_is_warned_of(db: Database) -> None:
    """It sees what the batches before have deleted."""
    make(db)
    connection = db.connect()
    notices: list[str] = []
    connection.add_notice_handler(lambda diag: notices.append(f"{diag.severity} {diag.message_primary}"))
    connection.execute("SELECT backfill.delete('t', where_clause => 'id > (SELECT avg(id) FROM t x)')")
    connection.execute("SELECT backfill.delete('t', where_clause => ' true ')")
    warnings = [notice for notice in notices if notice.startswith("WARNING")]
    assert len(warnings) == 2 and "whose rows the backfill deletes" in warnings[0] and "every row" in warnings[1]
