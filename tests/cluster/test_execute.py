"""backfill.execute: a statement is run for each batch, which reads the rows of the batch as the table batch."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress
from harness.wait import wait_until

ROWS = 5_000


def make(db: Database, key: str = "id int PRIMARY KEY") -> None:
    """Notes of authors, some of whom are inactive, and a history, some of which is there already."""
    db.sql(f"""
        CREATE TABLE t ({key}, author int, note text);
        INSERT INTO t (id, author, note) SELECT g, g % 20, 'note ' || g FROM generate_series(1, {ROWS}) g;
        CREATE TABLE author AS SELECT g AS id, g % 4 > 0 AS active FROM generate_series(0, 19) g;
        CREATE TABLE history (note_id int, entry text, UNIQUE (note_id, entry));
        INSERT INTO history SELECT id, note FROM t WHERE id % 7 = 0;
        CREATE TABLE calls (ids int[])
    """)


def execute(db: Database, statement: str, **given: Any) -> int:
    """Starts a job."""
    user = given.pop("user", None)
    options = json.dumps(given.pop("options", {}))
    values = [given.pop("table", "t"), statement, given.pop("batch", 300), given.pop("sleep_ms", 0)]
    values += [given.pop("where", None), given.pop("name", None), options]
    assert not given
    call = "SELECT backfill.execute(%s::regclass, %s, %s, %s, %s, %s, %s)"
    return int(db.value(call, values, **({"user": user} if user else {})))


# The statement for a batch, and the query that shows what it did. One statement for all rows does the same.
STATEMENTS = {
    "insert": (
        """INSERT INTO history SELECT b.id, b.note FROM batch b JOIN author a ON a.id = b.author
           WHERE a.active ON CONFLICT DO NOTHING""",
        "SELECT * FROM history ORDER BY 1, 2",
    ),
    "update": (
        """UPDATE t SET note = upper(t.note) FROM batch b JOIN author a ON a.id = b.author
           WHERE t.id = b.id AND a.active""",
        "SELECT * FROM t ORDER BY 1",
    ),
    "delete": ("DELETE FROM history h USING batch b WHERE h.note_id = b.id", "SELECT * FROM history ORDER BY 1, 2"),
    "merge": (
        """MERGE INTO history h USING batch b ON b.id = h.note_id
           WHEN MATCHED THEN UPDATE SET entry = 'again'
           WHEN NOT MATCHED AND b.author > 3 THEN INSERT VALUES (b.id, 'new')""",
        "SELECT * FROM history ORDER BY 1, 2",
    ),
    "two tables": (
        """WITH done AS (INSERT INTO history SELECT id, note || '!' FROM batch RETURNING note_id), marked AS (
               UPDATE t SET author = -1 FROM done WHERE t.id = done.note_id AND t.id % 2 = 0)
           INSERT INTO calls SELECT ARRAY[note_id] FROM done""",
        """SELECT * FROM t UNION ALL SELECT note_id, 0, entry FROM history UNION ALL SELECT ids[1], 1, '' FROM calls
           ORDER BY 1, 2, 3""",
    ),
    "recursive": (
        """WITH RECURSIVE up AS (SELECT id, author FROM batch UNION SELECT id, author + 7 FROM up WHERE author < 14)
           INSERT INTO history SELECT id, 'up to ' || max(author) FROM up GROUP BY id""",
        "SELECT * FROM history ORDER BY 1, 2",
    ),
}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "by key": ("id int PRIMARY KEY", {}),
    "by key of two columns": ("b int DEFAULT 1, id int, PRIMARY KEY (b, id)", {}),
    "by several workers": ("id int PRIMARY KEY", {"workers": 3}),
    "locked rows later": ("id int PRIMARY KEY", {"locked_rows": "skip"}),
    "without locks": ("id int PRIMARY KEY", {"lock": "none"}),
}


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("where", [None, "id % 3 = 0"])
def test_batches_do_what_one_statement_does(db: Database, statement: str, where: str | None) -> None:
    """Joins, upserts, common table expressions: what is there afterwards is the same."""
    make(db)
    text, query = STATEMENTS[statement]
    with db.connect(autocommit=False) as once:
        once.execute(f"CREATE TEMP VIEW batch AS SELECT * FROM t WHERE {where or 'true'}")
        once.execute(text)
        wanted = once.execute(query).fetchall()
        once.rollback()
    assert wanted != db.sql(query)
    row = complete(db, execute(db, text, where=where))
    assert db.sql(query) == wanted
    assert row["kind"] == "execute" and row["rows_done"] == ROWS and row["percent"] == 100, row


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", [None, "author < 5"])
def test_a_function_gets_the_rows_of_a_batch(db: Database, way: str, where: str | None) -> None:
    """Each row in one call that commits; no call has more of them than a batch."""
    key, options = WAYS[way]
    make(db, key)
    db.sql("""CREATE FUNCTION take(ids int[]) RETURNS int LANGUAGE plpgsql AS
              'BEGIN INSERT INTO calls VALUES (ids); RETURN cardinality(ids); END'""")
    complete(db, execute(db, "SELECT take(array_agg(id)) FROM batch", where=where, options=options))
    taken = db.sql("SELECT unnest(ids) FROM calls ORDER BY 1")
    assert taken == db.sql(f"SELECT id FROM t WHERE {where or 'true'} ORDER BY 1")
    assert db.value("SELECT max(cardinality(ids)) FROM calls") <= 300


def test_more_or_fewer_rows_than_the_batch_has(db: Database) -> None:
    """They are counted as what the statement did, and progress is about the rows of the table."""
    make(db)
    row = complete(db, execute(db, "INSERT INTO calls SELECT ARRAY[id, g] FROM batch, generate_series(1, 3) g"))
    assert (row["rows_done"], row["rows_total"], row["rows_updated"], row["percent"]) == (ROWS, ROWS, 3 * ROWS, 100)
    row = complete(db, execute(db, "SELECT count(*) FROM batch"))
    assert (row["rows_done"], row["rows_updated"]) == (ROWS, row["rows_done"] // 300 + 1)


def test_rows_that_fail_are_stepped_over(db: Database) -> None:
    """The statement is run for the rows around them, and for each of them by itself."""
    make(db)
    text = "INSERT INTO calls SELECT ARRAY[1000 / (id % 1000 - 7), id] FROM batch"
    job = execute(db, text, options={"max_failed_rows": 9})
    row = complete(db, job)
    assert row["rows_failed"] == 5
    assert db.value("SELECT count(DISTINCT ids[2]) FROM calls") == db.value("SELECT count(*) FROM calls") == ROWS - 5
    db.sql("UPDATE t SET author = 0 WHERE id % 1000 = 7")
    keys = db.sql("SELECT key FROM backfill.failed_rows WHERE job_id = %s ORDER BY key[1]::int LIMIT 2", [job])
    assert keys == [(["7"],), (["1007"],)]


def test_one_at_a_time_with_its_checkpoint(db: Database) -> None:
    """Through killed workers and a crash: without a constraint anywhere, each row is done once."""
    make(db)
    job = execute(db, "INSERT INTO calls SELECT ARRAY[id] FROM batch", batch=50, sleep_ms=10)
    for rows in (200, 700, 1500):
        wait_until(lambda rows=rows: progress(db, job)["rows_done"] > rows, 30, "further batches")
        db.crash_worker(job)
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(db, job)
    assert db.sql("SELECT count(*), count(DISTINCT ids[1]) FROM calls") == [(ROWS, ROWS)]


def test_the_rows_are_locked(db: Database) -> None:
    """What the statement reads is what is there, until it commits; without a lock it does not wait."""
    make(db)
    with db.connect(autocommit=False) as other:
        other.execute("UPDATE t SET note = 'changed' WHERE id = 150")
        job = execute(db, "INSERT INTO history SELECT id, note FROM batch WHERE id % 7 > 0", batch=100)
        wait_until(lambda: "lock" in (progress(db, job)["waiting_for"] or ""), 30, "the batch to wait for the row")
        text = "INSERT INTO calls SELECT ARRAY[id] FROM batch WHERE note <> 'changed'"
        complete(db, execute(db, text, options={"lock": "none"}))
        other.commit()
    complete(db, job)
    assert db.value("SELECT entry FROM history WHERE note_id = 150") == "changed"
    assert db.value("SELECT count(*) FROM calls") == ROWS


def test_an_index_for_what_the_statement_joins(db: Database) -> None:
    """A batch of a large table does not read another large one, or all of its own: only what it needs."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, grp int, note text); CREATE INDEX ON t (grp);
        INSERT INTO t SELECT g, g / 10, '' FROM generate_series(1, 100000) g;
        CREATE TABLE other (id int PRIMARY KEY, w int); INSERT INTO other SELECT g, g FROM generate_series(1, 100000) g;
        CREATE TABLE out (id int, w int); ANALYZE t, other
    """)
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s"
    read = "SELECT coalesce(seq_tup_read, 0) + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = %s"
    for index, table, text in (
        ("other_pkey", "other", "INSERT INTO out SELECT b.id, o.w FROM batch b JOIN other o USING (id)"),
        ("t_grp_idx", "t", "UPDATE t SET note = b.note FROM batch b WHERE t.grp = b.grp"),
    ):
        complete(db, execute(db, text, batch=10))
        # The figures come a little later.
        wait_until(lambda index=index: db.value(scans, [index]) >= 10_000, 30, f"{index} to be used")
        # Merged or hashed, each of 10,000 batches would read half of the table.
        assert db.value(read, [table]) < 10_000_000


BAD = {
    "no batch": ("SELECT 1", "22023", "does not read batch"),
    "no batch but a string": ("SELECT 'batch'", "22023", "does not read batch"),
    "a call": ("CALL x(1)", "42601", "CALL"),
    "another statement": ("VACUUM", "42601", "INSERT, UPDATE, DELETE, MERGE or SELECT"),
    "a new table": ("SELECT * INTO batch2 FROM batch", "42601", "INTO"),
    "two statements": ("TABLE batch; TABLE batch", "42601", "semicolon"),
    "a comment": ("TABLE batch -- all", "42601", "comment"),
    "nothing": (" ", "22023", "empty"),
    "no SQL": ("batch", "42601", "syntax error"),
    "a closing parenthesis": ("TABLE batch) SELECT 1", "42601", "unbalanced"),
    "no such column": ("SELECT nope FROM batch", "42703", "nope"),
    "a parameter": ("SELECT $1 FROM batch", "42P02", "parameter $1"),
    "batch as a target": ("DELETE FROM batch", "42P01", "batch"),
    "its own batch": ("WITH batch AS (SELECT 1) TABLE batch", "42712", "batch"),
    "a temporary table": ("INSERT INTO fleeting SELECT id FROM batch", "0A000", "temporary"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(db: Database, case: str) -> None:
    """With a SQLSTATE, the thing at fault, and a hint; nothing stays behind."""
    make(db)
    statement, state, said = BAD[case]
    with db.connect() as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute("CREATE TEMP TABLE fleeting (id int)")
        connection.execute("SELECT backfill.execute('t', %s)", [statement])
    assert caught.value.sqlstate == state and said in str(caught.value), (caught.value.sqlstate, caught.value)
    assert caught.value.diag.message_hint, caught.value
    assert db.value("SELECT count(*) FROM backfill.progress") == 0


def test_dry_run_verify_and_the_rest(db: Database) -> None:
    """As far as anything can be said of a statement."""
    make(db)
    text = "INSERT INTO calls SELECT ARRAY[id] FROM batch"
    dry = complete(db, execute(db, text, where="id <= 70", options={"dry_run": True}))
    assert f"dry run: of {ROWS} rows 70 would be handled" in dry["note"], dry["note"]
    assert db.value("SELECT count(*) FROM calls") == 0
    job = execute(db, text, name="once")
    complete(db, job)
    assert execute(db, text, name="once") == job
    with pytest.raises(psycopg.errors.DuplicateObject, match="Its statement is"):
        execute(db, "TABLE batch", name="once")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="nothing tells"):
        db.sql("SELECT backfill.verify(%s)", [job])
    check = "EXISTS (SELECT FROM calls WHERE ids[1] = t.id)"
    found = db.value("SELECT backfill.verify(%s, check_clause => %s)", [job, check])
    assert "is verified" in complete(db, found)["note"]
    for call in ("reapply(%s)", "procedure(%s)"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="handled"):
            db.sql(f"SELECT backfill.{call}", [job])
    report = db.value("SELECT backfill.report(%s, 'text')", [job])
    assert "rows affected" in report and text in report, report
    complete(db, db.value(report[report.index("SELECT backfill.execute(") :].split(";")[0]))
    assert db.value("SELECT count(*) FROM calls") == 2 * ROWS


def test_rights(db: Database) -> None:
    """The statement runs with the rights of whoever defined it."""
    make(db)
    db.sql("CREATE ROLE auditor LOGIN; GRANT SELECT, UPDATE ON t TO auditor")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="calls"):
            execute(db, "INSERT INTO calls SELECT ARRAY[id] FROM batch", user="auditor")
        db.sql("GRANT INSERT ON calls TO auditor")
        job = execute(db, "INSERT INTO calls SELECT ARRAY[id] FROM batch", user="auditor", batch=100, sleep_ms=60_000)
        wait_until(lambda: progress(db, job)["rows_updated"], 30, "the first batch")
        db.sql("REVOKE INSERT ON calls FROM auditor")
        db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
        assert "permission denied" in fail(db, job)
    finally:
        db.sql("SELECT backfill.forget(job_id) FROM backfill.progress")
        db.sql("DROP OWNED BY auditor; DROP ROLE auditor")
