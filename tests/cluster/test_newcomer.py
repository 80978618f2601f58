"""What somebody meets who has read the guide alone: each call says what became of it, and what to do next."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for
from harness.tables import make_table


def said(db: Database, call: str) -> list[tuple[str, str, str]]:
    """Severity, text and hint of what a call says."""
    notices: list[tuple[str, str, str]] = []

    def note(diag: Any) -> None:
        notices.append((diag.severity_nonlocalized or "", diag.message_primary or "", diag.message_hint or ""))

    with psycopg.connect(db.dsn(), autocommit=True) as session:
        session.add_notice_handler(note)
        session.execute(call)
    return notices


def test_wait_says_what_came_of_it(db: Database) -> None:
    """Rows, time and rows that failed; of a job that only reads, what it has found."""
    make_table(db, 100)
    job = start(db, "t", "n = 7 / (id - 50)", options={"max_failed_rows": 5}, name="t.n")
    [done, lacks] = said(db, f"CALL backfill.wait({job})")
    pattern = rf'backfill job {job} \("t.n"\) has completed: 99 rows updated in \d+\.\d s, 1 failed'
    assert done[0] == "NOTICE" and re.fullmatch(pattern, done[1]), done
    assert "but 1 row failed" in lacks[1] and f"backfill.retry_failed({job})" in lacks[2]
    dry = start(db, "t", "n = 8", options={"dry_run": True})
    [(_, text, _)] = said(db, f"CALL backfill.wait({dry})")
    assert (
        text == f"backfill job {dry} has completed: dry run: of 100 rows 100 would change, 0 would get what they have"
    )
    check = db.value("SELECT backfill.verify(%s, 'n <> 1')", [job])
    [(_, text, _)] = said(db, f"CALL backfill.wait({check})")
    assert f"job {job} is not verified: " in text and "do not pass the check" in text


def test_wait_says_how_far_it_is(db: Database) -> None:
    """Each ten seconds, so that nobody takes it for hung."""
    make_table(db, 1000)
    job = start(db, "t", "n = 1", batch=100, sleep_ms=600_000)
    notices: list[str] = []
    with psycopg.connect(db.dsn(), autocommit=True) as session:
        session.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute(f"CALL backfill.wait({job}, 11000)")
    assert [f"backfill job {job} is running: " in text and "100 of 1000 rows" in text for text in notices] == [True]
    db.sql("SELECT backfill.cancel(%s, true)", [job])


@pytest.mark.parametrize("ran", [True, False])
def test_a_name_whose_job_was_cancelled(db: Database, ran: bool) -> None:
    """Each of the ways that the hint names leads on."""
    make_table(db, 1000)
    if ran:
        job = start(db, "t", "n = n + 1", batch=100, name="t.n", options={"limit_rows": 300})
        wait_for(db, job, "paused")
    else:
        job = db.value("SELECT backfill.define('t', 'n = n + 1', name => 't.n')")
    db.sql("SELECT backfill.cancel(%s)", [job])
    again = "SELECT backfill.start('t', set_clause => 'n = n + 1', name => 't.n')"
    [(kind, text, hint)] = said(db, again)
    assert kind == "NOTICE" and text.endswith("has already been cancelled")
    assert "another name" in hint and f"backfill.forget({job})" in hint and ("where_clause" in hint) == ran
    assert [hint] == [hint for _, _, hint in said(db, again.replace("start", "define"))]
    rest = start(db, "t", "n = n + 1", where="id > 300", name="t.n, the rest")
    complete(db, rest)
    db.sql("SELECT backfill.forget(%s)", [job])
    assert complete(db, start(db, "t", "n = n + 1", where="id < 300", name="t.n"))["rows_updated"] == 299


SOURCES = """
    CREATE TABLE o (id int PRIMARY KEY, a int, b int, "C d" int, n int);
    INSERT INTO o SELECT i, i, i, i FROM generate_series(1, 10) i;
    CREATE TABLE lookup (id int PRIMARY KEY, x int)
"""


@pytest.mark.parametrize(
    "clauses, columns",
    [
        ("'n = a'", "a changes"),
        ("'n = a + b'", "a, b change"),
        ("'n = \"C d\"', 'n IS NULL'", '"C d" changes'),
        ("'n = (SELECT x FROM lookup l WHERE l.id = o.b)'", "b changes"),
        ("'n = length(o::text)'", "any column changes"),
        ("'n = n + 1'", None),
        ("'n = id'", None),
        ("'n = 7', 'a > 3'", None),
        ("'n = a', 'n IS DISTINCT FROM a'", None),
        ("'n = a', options => '{\"dry_run\": true}'", None),
    ],
)
def test_source_columns_that_may_change(db: Database, clauses: str, columns: str | None) -> None:
    """One NOTICE, and no WARNING, where a row that changes after it was done keeps what was computed before."""
    db.sql(SOURCES)
    first, *rest = clauses.split(", ", 1)
    rest = [f"where_clause => {rest[0]}" if rest[0].startswith("'") else rest[0]] if rest else []
    arguments = ", ".join([f"set_clause => {first}", *rest])
    notices = said(db, f"SELECT backfill.start('o', {arguments})")
    planned = dict(db.sql(f"SELECT item, value FROM backfill.plan('o', {arguments}) WHERE section = 'warnings'"))
    if columns is None:
        assert notices == []
        assert "dry_run" in clauses or "source changes" not in planned
        return
    [(kind, text, hint)] = notices
    assert kind == "NOTICE"
    assert text == f"rows of public.o whose {columns} after they were done keep the value computed then"
    assert "write n, too" in hint and "recompute => true" in hint and "\n" not in hint
    assert planned["source changes"] == columns.rsplit(" ", 1)[0]


@pytest.mark.parametrize("body, quiet", [("new.n := new.a", True), ("NEW.N = NEW.A", True), ("new.b := 7", False)])
def test_a_trigger_that_keeps_the_value_right(db: Database, body: str, quiet: bool) -> None:
    """One that sets the column; not one that does something else."""
    db.sql(SOURCES)
    db.sql(f"CREATE FUNCTION along() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body}; RETURN new; END'")
    db.sql("CREATE TRIGGER along BEFORE INSERT OR UPDATE ON o FOR EACH ROW EXECUTE FUNCTION along()")
    notices = said(db, "SELECT backfill.start('o', set_clause => 'n = a')")
    assert [True] * (not quiet) == ["whose a changes" in text for _, text, _ in notices]


def test_the_first_step_of_set_not_null(db: Database) -> None:
    """It says that writes of NULL fail from there on."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)")
    notices = said(db, "CALL backfill.set_not_null('t', 'n')")
    assert "leaves the column NULL fails" in notices[0][2] and "NOT VALID" in notices[0][1]
    assert [hint for _, _, hint in notices[1:]] == [""] * (len(notices) - 1)


def test_an_eta_is_worth_something(db: Database) -> None:
    """There is none after the first batches, and one when some seconds or a part of the rows are over."""
    make_table(db, 10_000)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=600, options={"strategy": "sequential"})
    wait_until(lambda: (progress(db, job)["rows_per_second"] or 0) > 0, 30, "a rate")
    early = progress(db, job)
    assert early["percent"] >= 10 or (early["eta"], early["eta_state"]) == (None, "measuring")
    late = wait_until(lambda: (row := progress(db, job))["eta"] is not None and row, 30, "an eta")
    assert late["rows_done"] >= 400 and late["eta_state"] is None
    db.sql("SELECT backfill.alter(%s, 1000, 0)", [job])
    complete(db, job)


def test_the_dashboard_marks_what_it_cuts(db: Database) -> None:
    """A long name ends with an ellipsis; one that fits does not."""
    db.sql(
        "CREATE TABLE a_table_of_a_long_name (id int PRIMARY KEY, n int); CREATE TABLE t (id int PRIMARY KEY, n int)"
    )
    complete(db, start(db, "a_table_of_a_long_name", "n = 1", name="a name that is too long"))
    complete(db, start(db, "t", "n = 1", name="just as long"))
    shown = db.sql('SELECT job, "table" FROM backfill.dashboard ORDER BY job')
    assert shown == [("1 a name that…", "a_table_of_…"), ("2 just as long", "t")]


def test_reapply_after_a_recomputation(db: Database) -> None:
    """It sets the rows that were found, once more, also those that are right by then; and says that it does."""
    make_table(db, 100)
    job = start(db, "t", "n = id")
    complete(db, job)
    db.sql("UPDATE t SET n = 0 WHERE id <= 2")
    complete(db, db.value("SELECT backfill.verify(%s, recompute => true)", [job]))
    db.sql("UPDATE t SET n = 1 WHERE id = 1")
    row = complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    assert row["rows_updated"] == 2 and "if still so" not in row["note"]
    db.sql("UPDATE t SET n = 0 WHERE id <= 2")
    complete(db, db.value("SELECT backfill.verify(%s, 'n = id')", [job]))
    db.sql("UPDATE t SET n = 1 WHERE id = 1")
    row = complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    assert row["rows_updated"] == 1 and "if still so" in row["note"]


def test_a_failed_job_goes_on_past_the_row(db: Database) -> None:
    """The hint names the option with which it steps over the row, and that works."""
    make_table(db, 100)
    job = start(db, "t", "n = 7 / (id - 50)")
    wait_for(db, job, "failed")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        db.sql("CALL backfill.wait(%s)", [job])
    [alter] = re.findall(r"SELECT backfill.alter\(.*?'\)", caught.value.diag.message_hint or "")
    db.sql(alter)
    db.sql("SELECT backfill.resume(%s)", [job])
    assert complete(db, job)["rows_failed"] == 1
