"""backfill.copy: something is inserted into another table for each row, once, whatever happens meanwhile."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress, wait_for
from harness.wait import wait_until

ROWS = 5_000


def make(db: Database, key: str = "id int PRIMARY KEY") -> None:
    """A table with rows, and one without any constraint that gets them."""
    db.sql(f"""
        CREATE TABLE t ({key}, n int, note text);
        INSERT INTO t (id, n, note) SELECT g, g % 10, 'row ' || g FROM generate_series(1, {ROWS}) g;
        CREATE TABLE new (note text, id bigint, n int, made text DEFAULT 'by default')
    """)


def copy(db: Database, source: str = "t", target: str = "new", **given: Any) -> int:
    """Starts a job."""
    user = given.pop("user", None)
    options = json.dumps(given.pop("options", {}))
    names = ("columns", "select_list", "where_clause", "on_conflict", "name")
    values = [source, target, given.pop("batch", 300), given.pop("sleep_ms", 0)]
    values += [given.pop(name, None) for name in names]
    assert not given
    call = "SELECT backfill.copy(%s::regclass, %s::regclass, %s, %s, %s, %s, %s, %s, %s, %s)"
    return int(db.value(call, [*values, options], **({"user": user} if user else {})))


def same(db: Database, where: str = "true") -> bool:
    """Whether the rows of both tables agree, each as often as in the other."""
    ours, theirs = f"SELECT id, n, note FROM t WHERE {where}", "SELECT id::int, n, note FROM new"
    both = f"({ours} EXCEPT ALL {theirs}) UNION ALL ({theirs} EXCEPT ALL {ours})"
    return bool(db.value(f"SELECT count(*) FROM ({both}) s") == 0)


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "by key": ("id int PRIMARY KEY", {}),
    "by key of two columns": ("b int DEFAULT 1, id int, PRIMARY KEY (b, id)", {}),
    "by several workers": ("id int PRIMARY KEY", {"workers": 3}),
    "locked rows later": ("id int PRIMARY KEY", {"locked_rows": "skip"}),
    "locked rows of two columns later": ("b int DEFAULT 1, id int, PRIMARY KEY (b, id)", {"locked_rows": "skip"}),
    "without locks": ("id int PRIMARY KEY", {"lock": "none", "locked_rows": "skip"}),
    "locked for update": ("id int PRIMARY KEY", {"lock": "update"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", [None, "n < 3"])
def test_each_row_is_there_once(db: Database, way: str, where: str | None) -> None:
    """Also in a table without any constraint, and whatever the order of its columns."""
    key, options = WAYS[way]
    make(db, key)
    row = complete(db, copy(db, options=options, where_clause=where))
    assert same(db, where or "true")
    assert row["kind"] == "copy" and row["rows_done"] == ROWS and row["percent"] == 100, row
    assert row["rows_updated"] == db.value("SELECT count(*) FROM new WHERE made = 'by default'"), row


def test_values_are_computed(db: Database) -> None:
    """By expressions, with subqueries, as the target's types."""
    make(db)
    db.sql("CREATE TABLE lookup AS SELECT g AS n, 'n' || g AS name FROM generate_series(0, 9) g")
    values = "t.id * 2, '7', (SELECT name FROM lookup l WHERE l.n = t.n), upper(note)"
    complete(db, copy(db, columns='"id", n, made, note', select_list=values))
    assert db.value("SELECT count(*) FROM new JOIN t ON t.id * 2 = new.id WHERE new.made = 'n' || t.n") == ROWS
    assert db.sql("SELECT note, n FROM new WHERE id = 8") == [("ROW 4", 7)]


def test_identity_columns_keep_their_values(db: Database) -> None:
    """Also GENERATED ALWAYS; the sequence stays behind, which is said with the statement that moves it."""
    db.sql(f"""
        CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int);
        INSERT INTO t (n) SELECT g FROM generate_series(1, {ROWS}) g;
        CREATE TABLE new (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int,
                          twice int GENERATED ALWAYS AS (n * 2) STORED)
    """)
    connection = db.connect()
    hints: list[str] = []
    connection.add_notice_handler(lambda diag: hints.append(f"{diag.message_primary} {diag.message_hint}"))
    job = connection.execute("SELECT backfill.copy('t', 'new')").fetchone()
    assert job is not None
    complete(db, job[0])
    assert db.value("SELECT count(*) FROM new JOIN t USING (id, n) WHERE twice = n * 2") == ROWS
    said = [hint for hint in hints if "sequence is not moved" in hint]
    assert len(said) == 1, hints
    db.sql(said[0][said[0].index("SELECT") :].rstrip(";"))
    assert db.value("INSERT INTO new (n) VALUES (1) RETURNING id") == ROWS + 1


def test_partitions_on_both_sides(db: Database) -> None:
    """Rows of all partitions go where they belong."""
    db.sql("""
        CREATE TABLE p (id int, a int, PRIMARY KEY (a, id)) PARTITION BY LIST (a);
        CREATE TABLE p0 PARTITION OF p FOR VALUES IN (0);
        CREATE TABLE p1 (a int NOT NULL, id int NOT NULL, PRIMARY KEY (a, id));
        ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1);
        INSERT INTO p SELECT g, g % 2 FROM generate_series(1, 2000) g;
        CREATE TABLE q (id int, a int) PARTITION BY RANGE (id);
        CREATE TABLE q0 PARTITION OF q FOR VALUES FROM (0) TO (1000); CREATE TABLE q1 PARTITION OF q DEFAULT
    """)
    complete(db, copy(db, "p", "q", where_clause="p.id > 10"))
    assert db.sql("SELECT tableoid::regclass::text, count(*), count(DISTINCT id) FROM q GROUP BY 1 ORDER BY 1") == [
        ("q0", 989, 989),
        ("q1", 1001, 1001),
    ]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="part of both"):
        copy(db, "p0", "p")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="part of both"):
        copy(db, "p", "p0")


CONFLICTS = {
    None: "fails",
    "error": "fails",
    "nothing": "stays",
    "(id) DO UPDATE SET note = excluded.note WHERE new.n = 3": "some",
    "ON CONFLICT ON CONSTRAINT single DO UPDATE SET note = excluded.note": "all",
}


@pytest.mark.parametrize("on_conflict", CONFLICTS)
def test_rows_that_are_there_already(db: Database, on_conflict: str | None) -> None:
    """An error, left as they are, or treated as ON CONFLICT says."""
    make(db)
    db.sql("ALTER TABLE new ADD CONSTRAINT single UNIQUE (id)")
    db.sql("INSERT INTO new (id, n, note) SELECT id, n, 'old' FROM t WHERE id % 10 < 5")
    job = copy(db, on_conflict=on_conflict)
    what = CONFLICTS[on_conflict]
    if what == "fails":
        error = fail(db, job)
        assert "duplicate key" in error and "on_conflict" in error, error
        return
    row = complete(db, job)
    assert db.value("SELECT count(*) FROM new") == ROWS
    old = {"stays": ROWS // 2, "some": ROWS * 4 // 10, "all": 0}[what]
    assert db.value("SELECT count(*) FROM new WHERE note = 'old'") == old
    assert row["rows_updated"] == ROWS - old


def test_rows_that_fail_are_stepped_over(db: Database) -> None:
    """One by one, each named; once mended they are tried again."""
    make(db)
    db.sql("ALTER TABLE new ADD CONSTRAINT odd CHECK (id % 1000 <> 7)")
    row = complete(db, copy(db, options={"max_failed_rows": 10}))
    assert row["rows_failed"] == 5 and db.value("SELECT count(*) FROM new") == ROWS - 5
    db.sql("ALTER TABLE new DROP CONSTRAINT odd")
    assert db.value("SELECT backfill.retry_failed(%s)", [row["job_id"]]) == 5
    complete(db, row["job_id"])
    assert same(db)


def test_one_at_a_time_with_its_checkpoint(db: Database) -> None:
    """Through a pause, a killed worker, a crash, and a target that is renamed meanwhile."""
    make(db)
    job = copy(db, batch=100, sleep_ms=60_000)
    wait_until(lambda: progress(db, job)["rows_updated"], 30, "the first batch")
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    assert db.value("SELECT count(*) FROM new") == progress(db, job)["rows_updated"]
    db.sql("ALTER TABLE new RENAME TO newer; CREATE TABLE new (LIKE newer)")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 5)", [job])
    db.sql("SELECT backfill.resume(%s)", [job])
    wait_until(lambda: progress(db, job)["rows_updated"] > 300, 30, "further batches")
    db.crash_worker(job)
    complete(db, job)
    assert db.value("SELECT count(*) FROM new") == 0
    db.sql("DROP TABLE new; ALTER TABLE newer RENAME TO new")
    assert same(db)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP TABLE new", "no longer exists"),
        ("ALTER TABLE new DROP COLUMN note", "note"),
        ("ALTER TABLE t RENAME COLUMN note TO remark; ALTER TABLE t RENAME COLUMN n TO note", "is called"),
        ("CREATE RULE r AS ON INSERT TO new DO INSTEAD NOTHING", "into something else"),
    ],
)
def test_changes_in_the_middle_of_the_run(db: Database, change: str, said: str) -> None:
    """They fail the job, rather than that it copies something else."""
    make(db)
    job = copy(db, batch=100, sleep_ms=60_000)
    wait_until(lambda: progress(db, job)["rows_updated"], 30, "the first batch")
    db.sql(change)
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    error = fail(db, job)
    assert said in error, error


def test_rows_that_are_deleted_meanwhile_do_not_come_back(db: Database) -> None:
    """An application that writes both tables: the lock of a row that is copied makes its DELETE wait."""
    make(db)
    db.sql("CREATE UNIQUE INDEX ON new (id)")
    with db.connect(autocommit=False) as other:
        other.execute("DELETE FROM t WHERE id = 150")
        job = copy(db, batch=100)
        wait_until(lambda: "lock" in (progress(db, job)["waiting_for"] or ""), 30, "the copy to wait for the row")
        other.execute("DELETE FROM new WHERE id = 150")
        other.commit()
    complete(db, job)
    assert db.value("SELECT count(*) FROM new WHERE id = 150") == 0
    assert same(db)


def test_a_verification(db: Database) -> None:
    """Of rows that are missing, or that are other ones; of a copy that takes what is there, of missing ones only."""
    make(db)
    job = copy(db, where_clause="id <= 4000")
    complete(db, job)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot be told apart"):
        db.sql("SELECT backfill.verify(%s)", [job])
    db.sql("ALTER TABLE new ADD PRIMARY KEY (id)")
    assert "is verified" in complete(db, db.value("SELECT backfill.verify(%s)", [job]))["note"]
    db.sql("DELETE FROM new WHERE id IN (5, 6); UPDATE new SET note = NULL WHERE id = 7")
    found = complete(db, db.value("SELECT backfill.verify(%s)", [job]))
    assert "3 of " in found["note"] and "not verified" in found["note"], found["note"]
    keys = db.sql("SELECT key FROM backfill.verify_failures WHERE verification_id = %s ORDER BY 1", [found["job_id"]])
    assert keys == [(["5"],), (["6"],), (["7"],)]
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        db.sql("SELECT backfill.reapply(%s)", [job])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no set_clause"):
        db.sql("SELECT backfill.verify(%s, recompute => true)", [job])
    upsert = copy(db, on_conflict="nothing")
    complete(db, upsert)
    assert "is verified" in complete(db, db.value("SELECT backfill.verify(%s)", [upsert]))["note"]


def test_what_is_stored_is_what_is_compared(db: Database) -> None:
    """Values that the target rounds, pads or cuts as an assignment does."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, a numeric, b text, c timestamptz, d text);
        INSERT INTO t SELECT g, g / 7.0, 'b' || g, now(), CASE WHEN g % 2 = 0 THEN 'd' END
        FROM generate_series(1, 500) g;
        CREATE TABLE new (id int8 PRIMARY KEY, a numeric(10, 2), b char(9), c timestamp(0), d varchar(3))
    """)
    job = copy(db)
    complete(db, job)
    assert "is verified" in complete(db, db.value("SELECT backfill.verify(%s)", [job]))["note"]


def test_a_dry_run(db: Database) -> None:
    """It computes the values, counts, and inserts nothing."""
    make(db)
    dry = complete(db, copy(db, where_clause="n < 3", options={"dry_run": True}))
    assert f"dry run: of {ROWS} rows {ROWS * 3 // 10} would be copied" in dry["note"], dry["note"]
    values = "id, 1 / (id - 77)"
    dry = complete(db, copy(db, columns="id, n", select_list=values, options={"dry_run": True}))
    assert f"of {ROWS} rows {ROWS - 1} would be copied, 1 would fail" in dry["note"], dry["note"]
    assert db.value("SELECT count(*) FROM new") == 0


def test_a_name_makes_it_repeatable(db: Database) -> None:
    """The same call finds the same job; another one is an error. Two copies into one table at once are refused."""
    make(db)
    job = copy(db, name="once", sleep_ms=60_000)
    assert copy(db, name="once") == job
    others: list[dict[str, Any]] = [{"columns": "id"}, {"on_conflict": "nothing"}, {"where_clause": "n = 1"}]
    for other in (*others, {"options": {"lock": "share"}}):
        with pytest.raises(psycopg.errors.DuplicateObject):
            copy(db, name="once", **other)
    with pytest.raises(psycopg.errors.ObjectInUse, match="already being copied"):
        copy(db)
    db.sql("CREATE TABLE third (LIKE new)")
    complete(db, copy(db, target="third"))
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(db, job)
    db.sql("SELECT backfill.require_completed('once')")
    assert same(db)


def test_a_definition_is_planned_previewed_and_started(db: Database) -> None:
    """Like any other."""
    make(db)
    db.value("SELECT backfill.define_copy('t', 'new', 'id, note', 'id, upper(note)', name => 'later')")
    plan = dict(db.sql("SELECT item, value FROM backfill.plan('t', name => 'later')"))
    assert "INSERT INTO" in plan["batch"] and "FOR KEY SHARE" in plan["batch"]
    assert "Index Scan using t_pkey" in plan["plan of the first batch"]
    assert "rows in table" in plan["not known"]
    shown = db.sql("SELECT before, after FROM backfill.preview('t', name => 'later', \"limit\" => 3)")
    for before, after in shown:
        assert after["note"] == before["note"].upper() and set(after) == {"id", "note"}, shown
    assert len(shown) == 3
    job = db.value("SELECT job_id FROM backfill.progress")
    tried = db.sql("SELECT tried, failed FROM backfill.rehearse(%s, 100) LIMIT 1", [job])
    assert tried == [(100, 0)]
    assert db.value("SELECT count(*) FROM new") == 0
    job = db.value("SELECT backfill.start('t', 500, 0, name => 'later')")
    complete(db, job)
    assert db.value("SELECT count(*) FROM new WHERE note LIKE 'ROW%%'") == ROWS
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="copied"):
        db.sql("SELECT backfill.procedure(%s)", [job])
    report = db.value("SELECT backfill.report(%s, 'text')", [job])
    assert "rows copied" in report and "public.new" in report, report
    # What it says repeats the job.
    again = report[report.index("SELECT backfill.copy(") :].split(";")[0]
    complete(db, db.value(again))
    assert db.value("SELECT count(*) FROM new") == 2 * ROWS


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "itself": ({"target": "t"}, "22023", "same table"),
    "a view": ({"target": "v"}, "42809", "view"),
    "from a view": ({"source": "v"}, "42809", "view"),
    "values without columns": ({"select_list": "id"}, "22004", "columns"),
    "no such column": ({"columns": "id, nope"}, "42P10", "nope"),
    "twice": ({"columns": "id, id"}, "42P10", "twice"),
    "not a list of columns": ({"columns": "id + 1"}, "42601", "syntax error"),
    "a part of a column": ({"columns": "id, note[1]"}, "42601", "whole columns"),
    "no such value": ({"columns": "id", "select_list": "nope"}, "42703", "nope"),
    "no value of that name": ({"columns": "id, made"}, "42703", "made"),
    "too few values": ({"columns": "id, n", "select_list": "id"}, "42601", "1 values for 2 columns"),
    "a star": ({"columns": "id, n", "select_list": "*"}, "42601", "*"),
    "more than a list": ({"columns": "id", "select_list": "id FROM t"}, "42601", "FROM"),
    "a second statement": ({"columns": "id", "select_list": "id; SELECT 1"}, "42601", "semicolon"),
    "a comment": ({"columns": "id", "select_list": "id --"}, "42601", "comment"),
    "an aggregate": ({"columns": "id", "select_list": "max(id)"}, "0A000", "aggregate"),
    "several rows of one": ({"columns": "id", "select_list": "generate_series(1, 2)"}, "0A000", "set-returning"),
    "another type": ({"columns": "id", "select_list": "note"}, "42804", "id"),
    "a NOT NULL column": ({"target": "strict"}, "23502", "need"),
    "no action": ({"on_conflict": "ignore"}, "22023", "on_conflict"),
    "no such constraint": ({"on_conflict": "(id) DO NOTHING"}, "42P10", "ON CONFLICT"),
    "in physical order": ({"options": {"walk": "physical"}}, "0A000", "physical order"),
    "without a key": ({"source": "keyless"}, "0A000", "has no key"),
    "no such lock": ({"options": {"lock": "shared"}}, "22023", "lock"),
    "an archive": ({"options": {"archive_into": "new"}}, "22023", "deleted"),
    "triggers that do not fire": ({"options": {"triggers": "skip"}}, "22023", "triggers"),
    "a rule": ({"target": "ruled"}, "0A000", "rule"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(db: Database, case: str) -> None:
    """With a SQLSTATE, the thing at fault, and a hint; nothing stays behind."""
    make(db)
    db.sql("""
        CREATE VIEW v AS SELECT * FROM t; CREATE TABLE keyless AS SELECT * FROM t;
        CREATE TABLE strict (id int, need int NOT NULL);
        CREATE TABLE ruled (LIKE new); CREATE RULE r AS ON INSERT TO ruled DO INSTEAD NOTHING
    """)
    given, state, said = BAD[case]
    with pytest.raises(psycopg.Error) as caught:
        copy(db, **given)
    assert caught.value.sqlstate == state and said in str(caught.value), (caught.value.sqlstate, caught.value)
    assert caught.value.diag.message_hint, caught.value
    assert db.value("SELECT count(*) FROM backfill.progress") == 0


def test_the_option_is_for_rows_that_stay(db: Database) -> None:
    """An update or a delete takes the locks that it needs."""
    make(db)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="stay as they are"):
        db.sql("""SELECT backfill.start('t', set_clause => 'n = 1', options => '{"lock": "share"}')""")


def test_rights(db: Database) -> None:
    """It takes SELECT on what is read, UPDATE to lock it, and INSERT on the target."""
    make(db)
    db.sql("CREATE ROLE copyist LOGIN; GRANT SELECT ON t TO copyist")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            copy(db, user="copyist")
        db.sql("GRANT INSERT ON new TO copyist")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            copy(db, user="copyist")
        complete(db, copy(db, user="copyist", options={"lock": "none"}))
        db.sql("TRUNCATE new; GRANT UPDATE (n) ON t TO copyist")
        job = copy(db, user="copyist", batch=100, sleep_ms=60_000)
        wait_until(lambda: progress(db, job)["rows_updated"], 30, "the first batch")
        db.sql("REVOKE INSERT ON new FROM copyist")
        db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
        assert "permission denied" in fail(db, job)
        db.sql("GRANT INSERT ON new TO copyist")
        db.sql("SELECT backfill.resume(%s)", [job])
        complete(db, job)
        assert same(db)
    finally:
        db.sql("SELECT backfill.forget(job_id) FROM backfill.progress")
        db.sql("DROP OWNED BY copyist; DROP ROLE copyist")


def test_a_superusers_copy_into_somebody_elses_table(db: Database) -> None:
    """Its triggers and defaults would run as the superuser."""
    make(db)
    db.sql(f"ALTER DATABASE {db.value('SELECT current_database()')} SET backfill.allow_superuser_jobs = off")
    db.sql("CREATE ROLE outlander; ALTER TABLE new OWNER TO outlander")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="outlander"):
            copy(db)
    finally:
        db.sql("DROP OWNED BY outlander; DROP ROLE outlander")
