"""The owner of a table, and the jobs that others run on it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, start_count, wait_for, wait_for_nap_between_batches
from harness.tables import counts, make_table

MINUTE = 60_000
VIEWS = ("progress", "dashboard", "events", "samples", "failed_rows", "verify_failures", "skipped_rows")


@pytest.fixture
def shared(db: Database) -> Iterator[Database]:
    """A table of landlord's that tenant may update a column of, and stranger nothing."""
    for role in ("landlord", "tenant", "stranger"):
        if not db.value("SELECT to_regrole(%s) IS NOT NULL", [role]):
            db.sql(f"CREATE ROLE {role} LOGIN")
    make_table(db, 500)
    db.sql("ALTER TABLE t OWNER TO landlord; GRANT SELECT, UPDATE (n) ON t TO tenant")
    yield db
    db.sql("SELECT backfill.cancel(job_id) FROM backfill.progress WHERE NOT state IN ('completed', 'cancelled')")


def jobs_seen(db: Database, user: str, view: str = "progress") -> int:
    """Rows of a view that a role sees."""
    return db.value(f"SELECT count(*) FROM backfill.{view}", user=user)


def test_the_owner_of_the_table_sees_pauses_waits_and_cancels(shared: Database) -> None:
    """And does nothing else to another's job; a stranger does neither."""
    db = shared
    job = start_count(db, user="tenant", sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    for view in ("progress", "dashboard", "events"):
        assert jobs_seen(db, "landlord", view) == jobs_seen(db, "tenant", view) > 0
        assert jobs_seen(db, "stranger", view) == 0
    assert db.value("SELECT (backfill.status(%s)).state", [job], user="landlord") == "running"
    for call in (
        "alter({}, 7)",
        "resume({})",
        "verify({}, 'true')",
        "reapply({})",
        "retry_failed({})",
        "rehearse({})",
        "procedure({})",
        "forget({})",
        "approve({})",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.sql(f"SELECT backfill.{call.format(job)}", user="landlord")
    for call in (
        "SELECT backfill.status({})",
        "SELECT backfill.pause({})",
        "SELECT backfill.cancel({})",
        "CALL backfill.wait({}, 1)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.sql(call.format(job), user="stranger")
    assert db.value("SELECT backfill.pause(%s)", [job], user="landlord") == "pausing"
    wait_for(db, job, "paused")
    with pytest.raises(psycopg.errors.QueryCanceled, match="still paused"):
        db.sql(f"CALL backfill.wait({job}, 1)", user="landlord")
    assert db.value("SELECT backfill.cancel(%s)", [job], user="landlord") == "cancelled"
    actor = "SELECT actor::text FROM backfill.events WHERE job_id = %s AND event = 'cancel'"
    assert db.value(actor, [job], user="tenant") == "landlord"


def test_the_owner_of_the_partitioned_table_too(shared: Database) -> None:
    """Of a job on one of its partitions."""
    db = shared
    db.sql(
        "CREATE TABLE p (id int PRIMARY KEY, n int DEFAULT 0) PARTITION BY RANGE (id);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000); INSERT INTO p SELECT generate_series(1, 300);"
        "ALTER TABLE p OWNER TO landlord; ALTER TABLE p1 OWNER TO tenant; GRANT SELECT ON p1 TO landlord"
    )
    job = start(db, "p1", "n = n + 1", user="tenant", sleep_ms=MINUTE, batch=10)
    assert jobs_seen(db, "landlord") == 1 and jobs_seen(db, "stranger") == 0
    db.sql("SELECT backfill.cancel(%s)", [job], user="landlord")
    wait_for(db, job, "cancelled")


def test_keys_and_messages_are_for_those_who_may_read_the_table(shared: Database) -> None:
    """An owner that has taken SELECT from itself sees the job, and not what its rows hold."""
    db = shared
    db.sql("ALTER TABLE t ADD CHECK (id <> 50 OR n < 1)")
    job = start(db, "t", "n = n + 1", user="tenant")
    wait_for(db, job, "failed")
    assert "Failing row contains" in progress(db, job, user="landlord")["last_error"]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        db.sql(f"CALL backfill.wait({job})", user="landlord")
    assert caught.value.diag.message_detail is None
    db.sql("REVOKE ALL ON t FROM landlord")
    assert "it takes SELECT" in progress(db, job, user="landlord")["last_error"]
    db.sql("DROP TABLE t")
    assert jobs_seen(db, "landlord") == 0 and jobs_seen(db, "tenant") == 1


@pytest.mark.parametrize("state", ["running", "paused", "failed"])
def test_a_job_whose_owner_lost_update_blocks_nobody(shared: Database, state: str) -> None:
    """It is cancelled by the call that it is in the way of, also while it sleeps; the events and a notice say why."""
    db = shared
    db.sql("ALTER TABLE t ADD CHECK (id <> 250 OR n < 1) NOT VALID") if state == "failed" else None
    job = start_count(db, user="tenant", sleep_ms=0 if state == "failed" else 86_400_000)
    if state == "failed":
        wait_for(db, job, "failed")
        db.sql("ALTER TABLE t DROP CONSTRAINT t_check")
    else:
        wait_for_nap_between_batches(db, job)
    if state == "paused":
        db.sql("SELECT backfill.pause(%s)", [job])
        wait_for(db, job, "paused")
    call = "SELECT backfill.start('t', set_clause => 'n = 7')"
    with pytest.raises(psycopg.errors.ObjectInUse, match=f"by job {job}"):
        db.sql(call, user="landlord")
    db.sql("REVOKE UPDATE (n) ON t FROM tenant")
    with psycopg.connect(db.dsn("landlord"), autocommit=True) as connection:
        said: list[str] = []
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        row = connection.execute(call).fetchone()
    assert row is not None
    assert f"backfill job {job} was in the way and is cancelled: its owner has lost UPDATE of column n" in said
    complete(db, row[0])
    wait_for(db, job, "cancelled")
    wait_until(lambda: not db.worker_pids(job), 10, "its worker to end")
    assert counts(db) == [(7, 500)]
    event = "SELECT actor::text, new FROM backfill.events WHERE job_id = %s AND event = 'owner lost rights'"
    assert db.sql(event, [job], user="tenant") == [("landlord", "UPDATE of column n")]


def test_who_has_lost_the_schema_has_lost_the_table(shared: Database) -> None:
    """USAGE of its schema, too."""
    db = shared
    db.sql("CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO tenant, landlord; ALTER TABLE t SET SCHEMA s")
    job = start(db, "s.t", "n = n + 1", user="tenant", sleep_ms=MINUTE, batch=10)
    wait_for_nap_between_batches(db, job)
    db.sql("REVOKE USAGE ON SCHEMA s FROM tenant")
    complete(db, start(db, "s.t", "n = 7", user="landlord"))
    wait_for(db, job, "cancelled")


@pytest.mark.parametrize("lost", ["the root", "the root's schema", "one leaf", "all leaves"])
def test_what_counts_of_a_partitioned_table_is_its_leaves(shared: Database, lost: str) -> None:
    """A healthy job is not cancelled by the next one: its batches name the leaves alone."""
    db = shared
    db.sql("""
        CREATE SCHEMA IF NOT EXISTS apart;
        CREATE TABLE apart.p (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF apart.p FOR VALUES FROM (1) TO (300);
        CREATE TABLE p2 PARTITION OF apart.p DEFAULT;
        INSERT INTO apart.p SELECT generate_series(1, 600);
        GRANT USAGE ON SCHEMA apart TO tenant, landlord;
        GRANT SELECT, UPDATE (n) ON apart.p, p1, p2 TO tenant, landlord
    """)
    job = start_count(db, "apart.p", user="tenant", sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    db.sql({
        "the root": "REVOKE ALL ON apart.p FROM tenant; REVOKE UPDATE (n) ON apart.p FROM tenant",
        "the root's schema": "REVOKE ALL ON SCHEMA apart FROM tenant",
        "one leaf": "REVOKE UPDATE (n) ON p2 FROM tenant",
        "all leaves": "REVOKE UPDATE (n) ON p1, p2 FROM tenant",
    }[lost])  # fmt: skip
    call = "SELECT backfill.start('apart.p', set_clause => 'n = n + 1')"
    if lost == "all leaves":
        db.sql(call, user="landlord")
        wait_for(db, job, "cancelled")
    else:
        with pytest.raises(psycopg.errors.ObjectInUse):
            db.sql(call, user="landlord")
        assert progress(db, job)["state"] == "running"
    db.sql("SELECT backfill.cancel(job_id) FROM backfill.progress WHERE NOT state IN ('completed', 'cancelled')")
    wait_until(lambda: db.value("SELECT count(*) FROM backfill.progress WHERE workers > 0") == 0, 20, "their end")
    db.sql("DROP SCHEMA apart CASCADE")


def test_what_is_stored_of_a_long_error_is_bounded(db: Database) -> None:
    """A message of 10 MB: each look at the view stays small, and says how long it was."""
    make_table(db, 300)
    db.sql(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION '%', repeat('é', 5000000) USING DETAIL = repeat('d', 10000000),"
        " HINT = repeat('h', 9000); END $$;"
        "CREATE TRIGGER shout BEFORE UPDATE ON t FOR EACH ROW WHEN (old.id = 7) EXECUTE FUNCTION shout()"
    )
    job = start(db, "t", "n = n + 1", options={"max_failed_rows": 1})
    complete_row = wait_for(db, job, "completed")
    assert complete_row["rows_failed"] == 1
    message, detail, hint = db.sql("SELECT message, detail, hint FROM backfill.failed_rows")[0]
    assert [len(text.encode()) <= 8192 for text in (message, detail, hint)] == [True] * 3
    assert message.startswith("éé") and message.endswith("é... (10000000 bytes)")
    assert detail.endswith("d... (10000000 bytes)") and hint.endswith("h... (9000 bytes)")
    failing = start(db, "t", "n = n + 1")
    error = wait_for(db, failing, "failed")["last_error"]
    assert len(error.encode()) < 40_000 and "(10000000 bytes)" in error
