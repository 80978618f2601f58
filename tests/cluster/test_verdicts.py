"""What `completed` and `verified` mean is what one UPDATE would have meant; else a gate says what is missing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, start, wait_for, wait_for_rows

NOT_YET = psycopg.errors.ObjectNotInPrerequisiteState

FAMILY = """
    CREATE TABLE par (id int PRIMARY KEY, v int);
    CREATE TABLE ch (PRIMARY KEY (id)) INHERITS (par);
    CREATE TABLE empty (PRIMARY KEY (id)) INHERITS (par);
    INSERT INTO par SELECT generate_series(1, 100);
    INSERT INTO ch SELECT generate_series(1, 50)
"""
# A job that counts its rows, so that none may be done twice; rows come with a partition while it runs.
MEASURES = """
    CREATE TABLE m (id int, d int, w int, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
    CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
    CREATE TABLE m_rest PARTITION OF m DEFAULT;
    INSERT INTO m SELECT i, i % 20 FROM generate_series(1, 4000) i
"""
ATTACH = """
    CREATE TABLE m2 (LIKE m INCLUDING ALL);
    WITH gone AS (DELETE FROM m_rest WHERE d BETWEEN 10 AND 19 RETURNING *) INSERT INTO m2 SELECT * FROM gone;
    ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20)
"""
COUNT = "w = COALESCE(w, 0) + 1"


def gate(db: Database, name: str, more: str = "") -> None:
    """Asks whether the backfill of this name has completed."""
    db.sql(f"SELECT backfill.require_completed(%s{more})", [name])


def refused(db: Database, name: str, more: str = "") -> str:
    """The error of the gate; message, detail and hint."""
    with pytest.raises(NOT_YET) as caught:
        gate(db, name, more)
    diag = caught.value.diag
    assert diag.message_hint
    return "\n".join(filter(None, [diag.message_primary, diag.message_detail, diag.message_hint]))


def said(db: Database, call: str) -> list[tuple[str, str]]:
    """Severity and text of what a call says."""
    notices: list[tuple[str, str]] = []
    with psycopg.connect(db.dsn(), autocommit=True) as session:
        session.add_notice_handler(lambda d: notices.append((d.severity_nonlocalized or "", d.message_primary or "")))
        session.execute(call)
    return notices


def test_a_parent_alone_is_not_all_of_it(db: Database) -> None:
    """With `only` the rows of what inherits are not done: the gate names them until a job has done the same there."""
    db.sql(FAMILY)
    job = start(db, "par", "v = id", name="par.v", options={"only": True})
    assert "of public.par alone" in complete(db, job)["note"]
    for more in ("", ", relation => 'par'"):
        error = refused(db, "par.v", more)
        assert "public.ch" in error and "public.empty" not in error and '"only"' in error
    assert [
        (kind, "public.ch" in text)
        for kind, text in said(
            db, "SELECT backfill.start('par', set_clause => 'v = id', name => 'par.v', options => '{\"only\": true}')"
        )
    ] == [("WARNING", True)]
    check = complete(db, db.value("SELECT backfill.verify(%s, 'v = id')", [job]))
    assert "none of 100 rows is wrong" in check["note"] and "of public.par alone" in check["note"]
    assert "public.ch" in refused(db, "par.v", ", true")
    complete(db, start(db, "ch", "v = id + 1", name="other.v"))
    refused(db, "par.v")
    complete(db, start(db, "ch", "v = id", where="v IS NULL", name="some.v"))
    refused(db, "par.v")
    complete(db, start(db, "ch", "v = id", name="ch.v"))
    gate(db, "par.v")
    gate(db, "par.v", ", true")
    assert db.value("SELECT count(*) FROM par WHERE v IS DISTINCT FROM id") == 0


def test_a_parent_alone_and_then_all(db: Database) -> None:
    """A job on the whole with the same clauses has done the rest, too."""
    db.sql(FAMILY)
    complete(db, start(db, "par", "v = par.id", where="v IS NULL", name="par.v", options={"only": True}))
    refused(db, "par.v")
    complete(db, start(db, "par", "v = par.id", where="v IS NULL", name="all.v"))
    gate(db, "par.v")
    gate(db, "all.v")


def test_a_parent_alone_without_others(db: Database) -> None:
    """Where nothing inherits from it, or nothing with rows, all is done."""
    db.sql("CREATE TABLE par (id int PRIMARY KEY, v int); INSERT INTO par SELECT generate_series(1, 100)")
    job = start(db, "par", "v = id", name="par.v", options={"only": True})
    assert "alone" not in (complete(db, job)["note"] or "")
    gate(db, "par.v")
    db.sql("CREATE TABLE ch () INHERITS (par)")
    gate(db, "par.v")


@pytest.fixture
def counted(db: Database) -> int:
    """A job that has left out the rows of a partition that came."""
    db.sql(MEASURES)
    job = start(db, "m", COUNT, batch=100, sleep_ms=600_000, name="m.w")
    wait_for_rows(db, job, 1)
    db.sql(ATTACH)
    db.sql("SELECT backfill.alter(%s, 1000, 0)", [job])
    assert "m2 came during the run: its rows are not done" in complete(db, job)["note"]
    return job


@pytest.mark.parametrize(
    "how",
    [{"set_clause": "w = 7"}, {"where": "false"}, {"where": "id < 0"}, {"options": {"settings": {"a.b": "1"}}}],
    ids=str,
)
def test_another_job_on_a_partition_that_was_left_out(db: Database, counted: int, how: dict[str, Any]) -> None:
    """What sets the same column otherwise, or of other rows, is no proof that the rows are done."""
    assert "public.m2" in refused(db, "m.w")
    complete(db, start(db, "m2", how.pop("set_clause", COUNT), **how))
    assert "public.m2" in refused(db, "m.w")


def test_the_same_job_on_a_partition_that_was_left_out(db: Database, counted: int) -> None:
    """With both clauses the same, on that partition or on what it belongs to."""
    # One that began before the rows were left out may not have seen them.
    other = db.value("SELECT backfill.define('m2', %s, name => 'again')", [COUNT])
    complete(db, db.value("SELECT backfill.start('m2', name => 'again')"))
    assert other > counted
    gate(db, "m.w")
    assert db.value("SELECT count(*) FROM m2 WHERE w IS DISTINCT FROM 1") == 0


def test_a_verification_clears_a_partition_that_was_left_out(db: Database, counted: int) -> None:
    """It has looked at the rows of the partition, too; whatever has done them."""
    bad = complete(db, db.value("SELECT backfill.verify(%s, 'w = 1')", [counted]))
    assert bad["rows_updated"] > 0
    assert "public.m2" in refused(db, "m.w")
    complete(db, start(db, "m2", COUNT, where="w IS NULL"))
    assert "backfill.verify" in refused(db, "m.w")
    complete(db, db.value("SELECT backfill.verify(%s, 'w = 1')", [counted]))
    gate(db, "m.w")


def test_reapply_is_no_job_on_all_rows(db: Database, counted: int) -> None:
    """It does single rows; what it has not done is not done."""
    db.sql("UPDATE m1 SET w = NULL WHERE id = 1")
    job = start(db, "m", "w = 1", where="w IS NULL AND id = 1", name="one")
    complete(db, job)
    assert "public.m2" in refused(db, "m.w")


def test_what_a_repeated_start_says_of_rows_that_match_still(db: Database) -> None:
    """Not only that it has completed."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 50)")
    db.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    db.sql("CREATE TRIGGER no BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()")
    assert "match still" in complete(db, start(db, "t", "n = 1", where="n = 0", name="t.n"))["note"]
    assert "rows matched its where_clause still" in refused(db, "t.n")
    call = "SELECT backfill.start('t', set_clause => 'n = 1', where_clause => 'n = 0', name => 't.n')"
    [(kind, text)] = said(db, call)
    assert kind == "WARNING" and "rows matched its where_clause still" in text


def redefined(db: Database) -> int:
    """A job whose first rows have the value of another clause than the others."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT generate_series(1, 1000)")
    job = start(db, "t", "v = id", where="v IS NULL", batch=100, name="t.v", options={"limit_rows": 300})
    wait_for(db, job, "paused")
    db.sql("SELECT backfill.redefine(%s, 'v = id + 1')", [job])
    db.sql("SELECT backfill.alter(%s, options => '{\"limit_rows\": null}'), backfill.resume(%s)", [job, job])
    complete(db, job)
    return job


def test_rows_done_before_a_set_clause_was_redefined(db: Database) -> None:
    """That none matches still is no proof of their value; what looks at the values is."""
    job = redefined(db)
    assert "clauses or settings were changed" in refused(db, "t.v")
    pending = complete(db, db.value("SELECT backfill.verify(%s)", [job]))
    assert f"job {job} is not verified" in pending["note"] and "recompute" in pending["note"]
    for more in ("", ", true"):
        error = refused(db, "t.v", more)
        assert "recompute => true" in error, error
    again = complete(db, db.value("SELECT backfill.verify(%s, recompute => true)", [job]))
    assert again["rows_updated"] == 300
    refused(db, "t.v")
    complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    complete(db, db.value("SELECT backfill.verify(%s, recompute => true)", [job]))
    gate(db, "t.v")
    gate(db, "t.v", ", true")
    assert db.value("SELECT count(*) FROM t WHERE v IS DISTINCT FROM id + 1") == 0


def test_rows_passed_before_a_where_clause_was_redefined(db: Database) -> None:
    """None of them was done, as none matched; by the new clause they would be."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int, raw text)")
    db.sql("INSERT INTO t SELECT i, NULL, CASE i WHEN 800 THEN 'x' ELSE i::text END FROM generate_series(1, 1000) i")
    job = start(
        db, "t", "v = raw::int", where="v IS NULL AND id >= 800", batch=100, name="t.v", options={"scan_limit": 100}
    )
    fail(db, job)
    db.sql("UPDATE t SET raw = '800' WHERE id = 800")
    db.sql("SELECT backfill.redefine(%s, where_clause => 'v IS NULL')", [job])
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.value("SELECT count(*) FROM t WHERE v IS NULL") > 0
    assert "clauses or settings were changed" in refused(db, "t.v")
    assert complete(db, db.value("SELECT backfill.verify(%s)", [job]))["rows_updated"] > 0
    refused(db, "t.v")
    complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    complete(db, db.value("SELECT backfill.verify(%s)", [job]))
    gate(db, "t.v")


def test_settings_that_were_altered_midway(db: Database) -> None:
    """Rows that were done before may have another value, if the setting is one that clauses read."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT generate_series(1, 1000)")
    clause, settings = "v = current_setting('app.v')", {"app.v": "a"}
    job = start(db, "t", clause, batch=100, name="t.v", options={"limit_rows": 300, "settings": settings})
    wait_for(db, job, "paused")
    alter = "SELECT backfill.alter(%s, options => %s)"
    db.sql(alter, [job, '{"settings": {"app.v": "a", "work_mem": "8MB"}, "limit_rows": 600}'])
    db.sql("SELECT backfill.resume(%s)", [job])
    wait_for_rows(db, job, 600)
    wait_for(db, job, "paused")
    assert "altered" not in (db.value("SELECT note FROM backfill.progress WHERE job_id = %s", [job]) or "")
    db.sql(alter, [job, '{"settings": {"app.v": "b"}, "limit_rows": null}'])
    db.sql("SELECT backfill.resume(%s)", [job])
    assert "settings altered after 600 rows" in complete(db, job)["note"]
    assert db.sql("SELECT v, count(*) FROM t GROUP BY v ORDER BY v") == [("a", 600), ("b", 400)]
    assert "clauses or settings were changed" in refused(db, "t.v")
    complete(db, db.value("SELECT backfill.verify(%s, recompute => true)", [job]))
    refused(db, "t.v")
    complete(db, db.value("SELECT backfill.verify(%s, $$v IN ('a', 'b')$$)", [job]))
    gate(db, "t.v")


def test_a_dry_run_of_the_parent_alone(db: Database) -> None:
    """It says nothing of the rows of the others."""
    db.sql(FAMILY)
    db.sql(f"ALTER DATABASE {db.name} SET backfill.require_dry_run = '1h'")
    complete(db, start(db, "par", "v = id", options={"only": True, "dry_run": True}))
    with pytest.raises(psycopg.Error, match="dry run"):
        start(db, "par", "v = id", where=None)
    complete(db, start(db, "par", "v = id", options={"only": True}))
    complete(db, start(db, "par", "v = id", options={"dry_run": True}))
    complete(db, start(db, "par", "v = id"))


def test_the_same_name_with_other_rows(db: Database) -> None:
    """A call about the table alone, and one about all that inherits, are not the same."""
    db.sql(FAMILY)
    job = start(db, "par", "v = id", name="par.v", options={"only": True, "limit_rows": 10})
    wait_for(db, job, "paused")
    with pytest.raises(psycopg.errors.DuplicateObject) as caught:
        start(db, "par", "v = id", name="par.v")
    assert '"only" is true' in (caught.value.diag.message_detail or "")
    assert "redefine" not in (caught.value.diag.message_hint or "")
    assert start(db, "par", "v = id", name="par.v", options={"only": True}) == job
