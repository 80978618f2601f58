"""Tables that others inherit from: a job does what one UPDATE would do, or UPDATE ONLY if that is wanted."""

from __future__ import annotations

from typing import Any

import psycopg
import psycopg.types.json
import pytest
from harness import Database
from harness.jobs import complete, fail, progress, start, wait_for_rows

# Children have their columns in another order, and keys of their own or none; one inherits in two ways.
TABLE = """
    CREATE TABLE par (id int PRIMARY KEY, v int);
    CREATE TABLE ch () INHERITS (par);
    CREATE TABLE grand (more text) INHERITS (ch);
    CREATE TABLE side (extra int, v int, gone int, id int NOT NULL UNIQUE);
    ALTER TABLE side DROP gone;
    ALTER TABLE side INHERIT par;
    CREATE TABLE both_ways () INHERITS (ch, side);
    INSERT INTO par SELECT generate_series(1, 1000);
    INSERT INTO ch SELECT generate_series(1, 1000);
    INSERT INTO grand SELECT generate_series(501, 1500);
    INSERT INTO side (id) SELECT generate_series(1, 1000);
    INSERT INTO both_ways (id) SELECT generate_series(1, 500)
"""
ALL = 4500


def left(db: Database, table: str = "par") -> int:
    """Rows that are not done."""
    return db.value(f"SELECT count(*) FROM {table} WHERE v IS DISTINCT FROM id")


@pytest.mark.parametrize("options", [{}, {"workers": 3}, {"walk": "physical"}], ids=str)
def test_children_are_done_too(db: Database, options: dict[str, Any]) -> None:
    """As UPDATE does, each row once; and it is said."""
    db.sql(TABLE)
    notices: list[str] = []
    with psycopg.connect(db.dsn(), autocommit=True) as session:
        session.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
        [(job,)] = session.execute(
            "SELECT backfill.start('par', 100, 0, 'v = par.id', 'v IS NULL', 'par.v', %s)",
            [psycopg.types.json.Jsonb(options)],
        ).fetchall()
    assert any("inherit from public.par" in notice for notice in notices), notices
    row = complete(db, job)
    assert left(db) == 0 and row["rows_updated"] == ALL
    check = complete(db, db.value("SELECT backfill.verify(%s)", [job]))
    assert f"none of {ALL} rows is wrong" in check["note"]
    db.sql("SELECT backfill.require_completed('par.v', verified => true)")


def test_only_the_table_itself(db: Database) -> None:
    """With the option; a child is another job's then, at the same time."""
    db.sql(TABLE)
    options = {"only": True}
    job = start(db, "par", "v = id", where="v IS NULL", batch=10, sleep_ms=600_000, options=options)
    wait_for_rows(db, job, 1)
    with pytest.raises(psycopg.errors.ObjectInUse):
        start(db, "par", "v = id", where="v IS NULL")
    children = complete(db, start(db, "ch", "v = id", where="v IS NULL"))
    assert children["rows_updated"] == 2500
    db.sql("SELECT backfill.alter(%s, 1000, 0)", [job])
    assert complete(db, job)["rows_updated"] == 1000
    assert (left(db, "ONLY par"), left(db, "ch"), left(db, "ONLY side")) == (0, 0, 1000)
    check = complete(db, db.value("SELECT backfill.verify(%s)", [job]))
    assert "none of 1000 rows is wrong" in check["note"]


def test_children_and_the_whole_are_not_done_at_once(db: Database) -> None:
    """Whatever they have in common: also two tables with one child."""
    db.sql(TABLE)
    job = start(db, "ch", "v = id", where="v IS NULL", batch=1, sleep_ms=600_000)
    for table in ("par", "side", "grand", "both_ways"):
        with pytest.raises(psycopg.errors.ObjectInUse, match=f"being backfilled by job {job}"):
            start(db, table, "v = id", where="v IS NULL")
    db.sql("SELECT backfill.cancel(%s, now => true)", [job])


def test_a_child_that_comes_during_the_run(db: Database) -> None:
    """Its rows are done before the job ends."""
    db.sql(TABLE)
    job = start(db, "par", "v = id", where="v IS NULL", batch=100, sleep_ms=600_000, name="par.v")
    wait_for_rows(db, job, 1)
    db.sql("CREATE TABLE late (id int PRIMARY KEY, v int); INSERT INTO late SELECT generate_series(1, 700)")
    db.sql("ALTER TABLE late INHERIT par; ALTER TABLE side NO INHERIT par")
    db.sql("SELECT backfill.alter(%s, 1000, 0)", [job])
    row = complete(db, job)
    assert left(db) == 0 and row["rows_updated"] == ALL + 700
    assert "table public.late came during the run" in row["note"]
    assert "public.side was detached during the run" in row["note"]
    db.sql("SELECT backfill.require_completed('par.v')")


def test_plan_preview_and_rehearse(db: Database) -> None:
    """They are about the same rows as the job."""
    db.sql(TABLE)
    db.sql("ANALYZE")

    def estimate(options: str) -> dict[str, str]:
        call = "backfill.plan('par', set_clause => 'v = id', where_clause => 'v IS NULL', options => %s)"
        asked = f"SELECT item, value FROM {call}"
        return dict(db.sql(asked, [options]))

    whole, alone = estimate("{}"), estimate('{"only": true}')
    assert whole["and tables"] == "4 that inherit from it" and "and tables" not in alone
    job = db.value("SELECT backfill.define('par', 'v = id', 'v IS NULL')")
    assert db.value("SELECT max(tried) FROM backfill.rehearse(%s, 10000)", [job]) == ALL
    db.sql(f"SELECT backfill.cancel({job}); DELETE FROM ONLY par")
    previewed = (
        "SELECT count(*) FROM backfill.preview('par', set_clause => 'v = id', where_clause => 'v IS NULL',"
        ' options => %s, "limit" => 1000)'
    )
    assert db.value(previewed, ["{}"]) > 0
    assert db.value(previewed, ['{"only": true}']) == 0


def test_a_procedure_is_of_one_table(db: Database) -> None:
    """It has one order for all rows."""
    db.sql(TABLE)
    job = db.value("SELECT backfill.define('par', 'v = id', 'v IS NULL')")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="inherits from") as caught:
        db.sql("SELECT backfill.procedure(%s)", [job])
    assert '"only": true' in (caught.value.diag.message_hint or "")
    db.sql("SELECT backfill.cancel(%s)", [job])
    job = db.value("SELECT backfill.define('par', 'v = id', options => '{\"only\": true}')")
    assert "UPDATE ONLY" in db.value("SELECT backfill.procedure(%s)", [job])


def test_what_cannot_be_done_is_refused(db: Database) -> None:
    """A child without the right, without a key, with a rule; a partitioned table alone."""
    db.sql(TABLE)
    if not db.value("SELECT to_regrole('heir') IS NOT NULL"):
        db.sql("CREATE ROLE heir LOGIN")
    db.sql("GRANT SELECT, UPDATE ON par TO heir")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as denied:
        start(db, "par", "v = id", where="v IS NULL", user="heir")
    assert 'GRANT SELECT, UPDATE ("v") ON public.ch, ' in (denied.value.diag.message_hint or "")
    assert complete(db, start(db, "par", "v = id", options={"only": True}, user="heir"))["rows_updated"] == 1000
    with pytest.raises(psycopg.Error, match="ch has no key to walk it by"):
        start(db, "par", "v = v + 1")
    db.sql("CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY LIST (id)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='"only" leaves nothing'):
        start(db, "p", "v = id", options={"only": True})
    db.sql("DROP OWNED BY heir")


def test_a_superusers_job_on_children_of_somebody_elses(db: Database) -> None:
    """Their triggers would run as the superuser."""
    if not db.value("SELECT to_regrole('heir') IS NOT NULL"):
        db.sql("CREATE ROLE heir LOGIN")
    db.sql(TABLE)
    db.sql("ALTER TABLE grand OWNER TO heir")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="what role heir wrote"):
        start(db, "par", "v = id", where="v IS NULL", session="SET backfill.allow_superuser_jobs = off")
    db.sql("DROP OWNED BY heir")


def test_a_child_that_fails(db: Database) -> None:
    """The error names it, and the job goes on from there."""
    db.sql(TABLE)
    db.sql("ALTER TABLE grand ADD CHECK (v < 1000) NOT VALID")
    job = start(db, "par", "v = id", where="v IS NULL", batch=100)
    assert '"grand"' in fail(db, job)
    db.sql("ALTER TABLE grand DROP CONSTRAINT grand_v_check")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert left(db) == 0 and progress(db, job)["rows_updated"] == ALL
