"""Whose session a batch runs in, whatever the roles' own settings say."""

from __future__ import annotations

import pytest
from harness import Database
from harness.jobs import complete, start

# What the batch's own code sees and may do; the table belongs to whoever owns the job.
TABLE = """
    CREATE SCHEMA s AUTHORIZATION {owner}; CREATE TABLE public.seen (who name, session name, failed text);
    GRANT INSERT ON public.seen TO PUBLIC;
    CREATE TABLE s.t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); ALTER TABLE s.t OWNER TO {owner};
    INSERT INTO s.t SELECT generate_series(1, 500);
    CREATE FUNCTION s.see() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE failed text; BEGIN
        {attempt}
        INSERT INTO public.seen VALUES (current_user, session_user, failed);
        RETURN new; END $$;
    CREATE TRIGGER see BEFORE UPDATE ON s.t FOR EACH ROW WHEN (old.id % 10 = 0) EXECUTE FUNCTION s.see()
"""
SEEN = "SELECT DISTINCT who, session FROM seen"


def prepare(db: Database, owner: str, attempt: str = "") -> None:
    """The owner's table, with a trigger that notes whose session it is in."""
    db.sql(TABLE.format(owner=owner, attempt=attempt))


def roles(db: Database, script: str) -> None:
    """Makes roles, which outlive the database, unless an earlier test has made them."""
    db.sql(f"DO $$ BEGIN {script} EXCEPTION WHEN duplicate_object THEN NULL; END $$")


def complaints(db: Database) -> list[str]:
    """What the workers of this database have complained of."""
    log = db.cluster.log.read_text(errors="replace").splitlines()
    return [line for line in log if "cannot clear the worker's session" in line and f"@{db.name} " in line]


def test_a_role_setting_of_the_owner_changes_no_batch(db: Database) -> None:
    """ALTER ROLE owner SET role = another: the batches run as the owner, with the owner's rights."""
    roles(
        db, "CREATE ROLE other1; CREATE ROLE owner1 LOGIN; GRANT other1 TO owner1; ALTER ROLE owner1 SET role = other1;"
    )
    prepare(db, "owner1")
    job = start(db, "s.t", "n = n + 1", batch=10, user="owner1", session="SET ROLE none")
    assert complete(db, job)["owner"] == "owner1"
    assert db.sql(SEEN) == [("owner1", "owner1")]
    assert db.sql("SELECT n, count(*) FROM s.t GROUP BY n") == [(1, 500)]
    assert complaints(db) == []


def test_a_deployer_whose_setting_is_the_owner(db: Database) -> None:
    """ALTER ROLE deployer SET role = app_owner, who cannot log in: usual, and nothing to complain of in each batch."""
    roles(
        db,
        "CREATE ROLE app_owner1; CREATE ROLE deployer1 LOGIN; GRANT app_owner1 TO deployer1;"
        " ALTER ROLE deployer1 SET role = app_owner1;",
    )
    prepare(db, "app_owner1")
    job = start(db, "s.t", "n = n + 1", batch=10, user="deployer1")
    assert complete(db, job)["owner"] == "app_owner1"
    assert db.sql(SEEN) == [("app_owner1", "app_owner1")]
    assert db.sql("SELECT n, count(*) FROM s.t GROUP BY n") == [(1, 500)]
    assert complaints(db) == []


@pytest.mark.parametrize(
    "attempt",
    [
        "RESET SESSION AUTHORIZATION",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET SESSION AUTHORIZATION postgres",
        "SET LOCAL SESSION AUTHORIZATION DEFAULT",
        "RESET ALL",
    ],
)
def test_the_session_of_an_owner_without_login_is_his_own(db: Database, attempt: str) -> None:
    """session_user is the owner, not who defined the job or the server; user code does not get it back."""
    roles(db, "CREATE ROLE locked1;")
    prepare(
        db,
        "locked1",
        f"BEGIN {attempt}; EXCEPTION WHEN OTHERS THEN failed := SQLERRM; END;",
    )
    complete(db, start(db, "s.t", "n = n + 1", batch=100, session="SET ROLE locked1"))
    assert db.sql(SEEN) == [("locked1", "locked1")]
    assert db.value("SELECT count(*) FROM seen") == 50
