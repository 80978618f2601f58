"""Row security never hides rows quietly: at the call, in a batch, in what a trigger reads, in the views."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import cancel_running, complete, fail, progress, start

DENIED = psycopg.errors.InsufficientPrivilege
ROLES = {
    "tenant": "LOGIN",
    "writer": "LOGIN",
    "allseeing": "LOGIN BYPASSRLS",
    "auditor": "LOGIN IN ROLE pg_monitor",
}
# Both are walked as one: a table, and one with partitions on two levels.
TABLES = """
    CREATE TABLE plain (id int PRIMARY KEY, n int DEFAULT 0, secret text DEFAULT 'hush');
    INSERT INTO plain SELECT generate_series(1, 300);
    CREATE TABLE whole (id int PRIMARY KEY, n int DEFAULT 0) PARTITION BY RANGE (id);
    CREATE TABLE branch PARTITION OF whole FOR VALUES FROM (0) TO (200) PARTITION BY RANGE (id);
    CREATE TABLE leaf PARTITION OF branch FOR VALUES FROM (0) TO (200);
    CREATE TABLE other PARTITION OF whole DEFAULT;
    INSERT INTO whole SELECT generate_series(1, 300);
    GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO writer, allseeing
"""


@pytest.fixture
def tenants(db: Database) -> Iterator[Database]:
    """Tables of the role tenant, which writer and allseeing may read and write."""
    for role, attributes in ROLES.items():
        if not db.value("SELECT to_regrole(%s) IS NOT NULL", [role]):
            db.sql(f"CREATE ROLE {role} {attributes}")
    db.sql("GRANT CREATE ON SCHEMA public TO tenant")
    db.sql(TABLES, user="tenant")
    yield db
    cancel_running(db)


def enable(db: Database, table: str, *, force: bool = False) -> None:
    """A policy that hides half of the rows."""
    forced = f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;" if force else ""
    db.sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; {forced} CREATE POLICY even ON {table} USING (id % 2 = 0)")


def held(db: Database, user: str) -> int:
    """A job that sleeps after its first batch."""
    job = start(db, "plain", "n = n + 1", batch=100, sleep_ms=60_000, user=user)
    wait_until(lambda: progress(db, job)["rows_done"], 30, "the first batch")
    return job


def test_who_is_refused_and_who_is_not(tenants: Database) -> None:
    """Whoever the policies apply to; so the table's owner only where they are forced."""
    enable(tenants, "plain")
    with pytest.raises(DENIED, match=r"policies of table public\.plain apply to you") as error:
        start(tenants, "plain", "n = n + 1", user="writer")
    assert "BYPASSRLS" in error.value.diag.message_hint and "FORCE" in error.value.diag.message_hint
    complete(tenants, start(tenants, "plain", "n = n + 1", user="tenant"))
    tenants.sql("ALTER TABLE plain FORCE ROW LEVEL SECURITY")
    with pytest.raises(DENIED, match=r"policies of table public\.plain apply to you"):
        start(tenants, "plain", "n = n + 1", user="tenant")
    complete(tenants, start(tenants, "plain", "n = n + 1", user="allseeing"))
    complete(tenants, start(tenants, "plain", "n = n + 1"))
    assert tenants.sql("SELECT n, count(*) FROM plain GROUP BY n") == [(3, 300)]


@pytest.mark.parametrize("table", ["whole", "branch", "leaf", "other"])
@pytest.mark.parametrize("call", ["define", "start"])
def test_policies_of_any_level_of_a_partitioned_table(tenants: Database, table: str, call: str) -> None:
    """The batches are aimed at the leaves, where a policy of the root would not be asked: refused all the same."""
    enable(tenants, table, force=True)
    for user in ("writer", "tenant"):
        with pytest.raises(DENIED, match=f"policies of table public.{table} apply to you"):
            tenants.sql(f"SELECT backfill.{call}('whole', set_clause => 'n = n + 1')", user=user)
    assert tenants.sql("SELECT * FROM backfill.progress") == []
    complete(tenants, start(tenants, "whole", "n = n + 1", user="allseeing"))
    assert tenants.sql("SELECT n, count(*) FROM whole GROUP BY n") == [(1, 300)]


@pytest.mark.parametrize(("relation", "table"), [("plain", "plain"), ("whole", "leaf")])
def test_a_policy_that_comes_between_define_and_start(tenants: Database, relation: str, table: str) -> None:
    """It is looked at again when the definition is started, for its owner, not for who starts it."""
    job = tenants.value(f"SELECT backfill.define('{relation}', 'n = n + 1')", user="writer")
    enable(tenants, table)
    message = rf"policies of table public\.{table} apply to role writer, which defined the backfill"
    with pytest.raises(DENIED, match=message) as error:
        tenants.sql(f"SELECT backfill.start('{relation}')")
    assert "BYPASSRLS" in error.value.diag.message_hint
    assert progress(tenants, job)["state"] == "pending"
    tenants.sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY; SELECT backfill.start('{relation}')")
    complete(tenants, job)
    assert tenants.sql(f"SELECT n, count(*) FROM {relation} GROUP BY n") == [(1, 300)]


@pytest.mark.parametrize("user", ["writer", "tenant"])
def test_a_policy_that_comes_during_the_run_fails_the_batch(tenants: Database, user: str) -> None:
    """Also where it would have let all rows through; the error says what it is about and what helps."""
    job = held(tenants, user)
    tenants.sql("CREATE POLICY all_rows ON plain USING (true); ALTER TABLE plain FORCE ROW LEVEL SECURITY")
    tenants.sql("ALTER TABLE plain ENABLE ROW LEVEL SECURITY")
    tenants.sql(f"SELECT backfill.alter({job}, sleep_ms => 0)")
    error = fail(tenants, job)
    assert 'row-level security policy for table "plain" (SQLSTATE 42501)' in error
    assert "HINT: Batches run with row_security = off" in error and "BYPASSRLS" in error, error
    assert tenants.sql("SELECT n, count(*) FROM plain GROUP BY n ORDER BY n") == [(0, 200), (1, 100)]
    tenants.sql(f"ALTER TABLE plain DISABLE ROW LEVEL SECURITY; SELECT backfill.resume({job})")
    complete(tenants, job)
    assert tenants.sql("SELECT n, count(*) FROM plain GROUP BY n") == [(1, 300)]


def test_bypassrls_that_is_taken_away(tenants: Database) -> None:
    """What let the definition through counts in each batch."""
    enable(tenants, "plain")
    job = held(tenants, "allseeing")
    try:
        tenants.sql("ALTER ROLE allseeing NOBYPASSRLS")
        tenants.sql(f"SELECT backfill.alter({job}, sleep_ms => 0)")
        error = fail(tenants, job)
        assert "row-level security policy" in error and "BYPASSRLS" in error, error
    finally:
        tenants.sql("ALTER ROLE allseeing BYPASSRLS")
    tenants.sql(f"SELECT backfill.resume({job})")
    complete(tenants, job)
    assert tenants.sql("SELECT n, count(*) FROM plain GROUP BY n") == [(1, 300)]


@pytest.mark.parametrize("when", ["BEFORE", "AFTER", "DEFERRED"])
def test_a_table_that_a_trigger_reads(tenants: Database, when: str) -> None:
    """Rows would be hidden from the trigger just as quietly: an error, with the table and a hint."""
    timing = {
        "BEFORE": "TRIGGER read BEFORE UPDATE ON plain",
        "AFTER": "TRIGGER read AFTER UPDATE ON plain",
        "DEFERRED": "CONSTRAINT TRIGGER read AFTER UPDATE ON plain DEFERRABLE INITIALLY DEFERRED",
    }[when]
    tenants.sql(
        f"""
        CREATE TABLE rules (id int); INSERT INTO rules VALUES (1), (2);
        ALTER TABLE rules ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY odd ON rules USING (id % 2 = 1);
        CREATE FUNCTION read() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM count(*) FROM rules; RETURN NEW; END $$;
        CREATE {timing} FOR EACH ROW EXECUTE FUNCTION read()
        """,
        user="tenant",
    )
    # A client's UPDATE reads what the policy lets it; a batch doesn't.
    tenants.sql("UPDATE plain SET n = 0 WHERE id = 1", user="tenant")
    error = fail(tenants, start(tenants, "plain", "n = n + 1", user="tenant"))
    assert 'row-level security policy for table "rules" (SQLSTATE 42501)' in error
    assert "HINT: Batches run with row_security = off" in error and "PL/pgSQL function read()" in error, error
    assert tenants.sql("SELECT n, count(*) FROM plain GROUP BY n") == [(0, 300)]


def test_a_trigger_cannot_switch_it_on(tenants: Database) -> None:
    """SET row_security in a trigger lasts for its own batch at most, and hides no row of the walk."""
    tenants.sql(
        """
        CREATE FUNCTION switch() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN SET row_security = on; RETURN NEW; END $$;
        CREATE TRIGGER switch BEFORE UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION switch()
        """,
        user="tenant",
    )
    job = held(tenants, "writer")
    enable(tenants, "plain")
    tenants.sql(f"SELECT backfill.alter({job}, sleep_ms => 0)")
    assert "row-level security policy" in fail(tenants, job)
    assert tenants.sql("SELECT n, count(*) FROM plain GROUP BY n ORDER BY n") == [(0, 200), (1, 100)]


def test_values_of_hidden_rows_are_not_shown(tenants: Database) -> None:
    """SELECT on the table is not enough to see an error's values where policies apply to who looks."""
    tenants.sql("UPDATE plain SET secret = 'top ' || id WHERE id = 77")
    enable(tenants, "plain")
    tenants.sql("GRANT SELECT ON plain TO auditor")
    stepped = start(
        tenants, "plain", "n = secret::int", where="secret <> 'hush'", user="tenant", options={"max_failed_rows": 5}
    )
    complete(tenants, stepped)
    failed = start(tenants, "plain", "n = secret::int", where="secret <> 'hush'", user="tenant")
    assert "top 77" in fail(tenants, failed)
    assert tenants.sql("SELECT id FROM plain WHERE secret <> 'hush'", user="auditor") == []
    for look in ("progress", "failed_rows", "skipped_rows", "events"):
        shown = str(tenants.sql(f"SELECT * FROM backfill.{look}", user="auditor"))
        assert "top 77" not in shown and "'77'" not in shown and "{77}" not in shown, f"{look}: {shown}"
    assert tenants.sql("SELECT key, sqlstate FROM backfill.failed_rows", user="auditor") == [(None, "22P02")]
    assert "SQLSTATE 22P02" in progress(tenants, failed, user="auditor")["last_error"]
    # The owner sees them, and so does whoever sees the row itself.
    assert tenants.sql("SELECT key FROM backfill.failed_rows", user="tenant") == [(["77"],)]
    tenants.sql("DROP POLICY even ON plain; ALTER TABLE plain DISABLE ROW LEVEL SECURITY")
    assert tenants.sql("SELECT key FROM backfill.failed_rows", user="auditor") == [(["77"],)]
