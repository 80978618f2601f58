"""What follows the last batch: VACUUM and ANALYZE, and notes about what could not be done."""

from __future__ import annotations

from typing import Any

from harness import Database, wait_until
from harness.jobs import complete, progress, start
from harness.tables import make_table


def upkeep_of(db: Database, table: str) -> tuple[Any, ...]:
    """How often the table was vacuumed and analysed by hand (a worker's counts as such), and its all-visible pages."""
    return db.sql(
        "SELECT vacuum_count, analyze_count, relallvisible > 0"
        " FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid WHERE relid = %s::regclass",
        [table],
    )[0]


def note_of(db: Database, job: int) -> str | None:
    """What the job has to say."""
    return db.value("SELECT note FROM backfill.progress WHERE job_id = %s", [job])


def wait_for_statement(db: Database, job: int, statement: str) -> int:
    """Waits until the worker waits for a lock within that statement; returns its pid."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
        " AND query = %s AND wait_event_type = 'Lock'"
    )
    rows = wait_until(lambda: db.sql(query, [f"backfill job {job}:%", statement]), 60, f"{statement} to wait")
    return rows[0][0]


def test_a_job_ends_with_vacuum_and_analyze(db: Database) -> None:
    """Its pages are all-visible then, and its new column has statistics."""
    make_table(db, 3000)
    before = upkeep_of(db, "t")
    assert note_of(db, complete(db, start(db, "t", "n = n + 1"))["job_id"]) is None
    wait_until(lambda: upkeep_of(db, "t")[:2] == (1, before[1] + 1), 30, "the statistics")
    assert upkeep_of(db, "t")[2]
    assert db.value("SELECT n_distinct FROM pg_stats WHERE tablename = 't' AND attname = 'n'") == 1


def test_they_can_be_left_out(db: Database) -> None:
    """Each by its option."""
    make_table(db, 300)
    complete(db, start(db, "t", "n = n + 1", options={"vacuum": False}))
    wait_until(lambda: upkeep_of(db, "t")[:2] == (0, 2), 30, "the ANALYZE")
    complete(db, start(db, "t", "n = n + 1", options={"analyze": False}))
    wait_until(lambda: upkeep_of(db, "t")[:2] == (1, 2), 30, "the VACUUM")


def test_who_may_not_is_told_what_to_run(db: Database) -> None:
    """A role with privileges on the table but no ownership: the job completes, and its note has the statement."""
    make_table(db, 300)
    db.sql("DROP ROLE IF EXISTS visitor; CREATE ROLE visitor LOGIN")
    db.sql("GRANT SELECT, UPDATE ON t TO visitor; GRANT USAGE ON SCHEMA backfill TO visitor")
    job = start(db, "t", "n = n + 1", user="visitor")
    complete(db, job)
    note = note_of(db, job)
    assert note and "role visitor may not" in note and note.endswith("Run: VACUUM (ANALYZE) public.t"), note
    assert upkeep_of(db, "t")[:2] == (0, 1)
    if int(db.value("SHOW server_version_num")) >= 170000:
        db.sql("GRANT MAINTAIN ON t TO visitor")
        job = start(db, "t", "n = n + 1", user="visitor")
        complete(db, job)
        assert note_of(db, job) is None
    db.sql("DROP OWNED BY visitor")


def test_a_partitioned_table_gets_statistics_of_its_own(db: Database) -> None:
    """Each partition once, and the root, whose statistics autovacuum never takes."""
    db.sql(
        "CREATE TABLE p (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);"
        "CREATE TABLE p2 PARTITION OF p DEFAULT;"
        "INSERT INTO p SELECT generate_series(1, 2000)"
    )
    complete(db, start(db, "p", "n = n + 1"))
    for leaf in ("p1", "p2"):
        wait_until(lambda leaf=leaf: upkeep_of(db, leaf) == (1, 1, True), 30, f"upkeep of {leaf}")
    assert db.value("SELECT n_distinct FROM pg_stats WHERE tablename = 'p' AND attname = 'n' AND inherited") == 1


def test_a_cancelled_vacuum_does_not_fail_the_job(db: Database) -> None:
    """pg_cancel_backend ends the statement; ANALYZE still follows, and the note names what is left."""
    make_table(db, 300)
    blocker = db.connect(autocommit=False)
    blocker.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
    job = start(db, "t", "n = n + 1")
    pid = wait_for_statement(db, job, "VACUUM public.t")
    db.sql("SELECT pg_cancel_backend(%s)", [pid])
    wait_for_statement(db, job, "ANALYZE public.t")
    blocker.rollback()
    complete(db, job)
    note = note_of(db, job)
    assert note and note.startswith("VACUUM of public.t failed with SQLSTATE 57014"), note
    assert note.endswith("Run: VACUUM public.t"), note


def test_a_cancel_leaves_it_at_that(db: Database) -> None:
    """Every row is done by then: the job completes, and its note says what was left out."""
    make_table(db, 300)
    blocker = db.connect(autocommit=False)
    blocker.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
    job = start(db, "t", "n = n + 1")
    wait_for_statement(db, job, "VACUUM public.t")
    assert db.value("SELECT phase FROM backfill.progress WHERE job_id = %s", [job]) == "vacuum public.t"
    db.sql("SELECT backfill.cancel(%s, true)", [job])
    # A look just when the worker ends may find it gone and its outcome not there yet: cancelled.
    wait_until(lambda: progress(db, job)["state"] == "completed", 60, "the job to be completed")
    note = note_of(db, job)
    assert note and "VACUUM of public.t failed with SQLSTATE 57014" in note, note
    assert "ANALYZE of public.t was skipped: the job was told to stop. Run: ANALYZE public.t" in note, note


def test_a_terminated_vacuum_ends_the_process(db: Database) -> None:
    """SIGTERM is obeyed at once; the job is done all the same, once it is taken up again."""
    make_table(db, 300)
    blocker = db.connect(autocommit=False)
    blocker.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
    job = start(db, "t", "n = n + 1")
    pid = wait_for_statement(db, job, "VACUUM public.t")
    assert db.value("SELECT pg_terminate_backend(%s, 5000)", [pid])
    blocker.rollback()
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.sql("SELECT DISTINCT n FROM t") == [(1,)]


def test_user_code_gains_nothing_by_analyze(db: Database) -> None:
    """ANALYZE evaluates expressions: as the table's owner, also where the server opened the session (no LOGIN)."""
    db.sql("""
        DO $$ BEGIN CREATE ROLE hostile NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        CREATE SCHEMA h AUTHORIZATION hostile;
        GRANT USAGE ON SCHEMA backfill TO hostile;
        SET ROLE hostile;
        CREATE TABLE h.seen (how text, session_role name, current_role_ name, super text, outcome text);
        CREATE FUNCTION h.attack() RETURNS int VOLATILE LANGUAGE plpgsql AS $$
        DECLARE statement text; result text;
        BEGIN
            FOREACH statement IN ARRAY ARRAY['RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION postgres',
                                             'RESET ROLE', 'SET ROLE postgres', 'SET application_name = ''evil'''] LOOP
                BEGIN EXECUTE statement; result := 'done'; EXCEPTION WHEN OTHERS THEN result := SQLSTATE; END;
                INSERT INTO h.seen
                VALUES (statement, session_user, current_user, current_setting('is_superuser'), result);
            END LOOP;
            RETURN 1;
        END $$;
        CREATE FUNCTION h.f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN h.attack(); END $$;
        CREATE TABLE h.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
        INSERT INTO h.t SELECT generate_series(1, 20);
        CREATE STATISTICS h.s ON (h.f(id)) FROM h.t;
    """)
    job = start(db, "h.t", "n = n", session="SET ROLE hostile")
    complete(db, job)
    seen = db.sql("SELECT DISTINCT how, session_role, current_role_, super, outcome FROM h.seen")
    assert seen, "the expression was not evaluated"
    for how, session_role, current_role, superuser, outcome in seen:
        assert (session_role, current_role, superuser) == ("hostile", "hostile", "off"), (how, seen)
        assert outcome != "done" or "application_name" in how, seen
    assert db.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'evil'") == 0
