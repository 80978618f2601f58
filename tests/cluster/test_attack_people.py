"""Who else wants to get at a job: members of its owner, strangers, monitoring; and what they are told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import cancel_running, complete, progress, start, wait_for

DENIED = psycopg.errors.InsufficientPrivilege
ROLES = {
    "boss": "LOGIN",
    "stranger": "LOGIN",
    "lookout": "LOGIN IN ROLE pg_monitor",
    "heir": "LOGIN INHERIT",
    "disinherited": "LOGIN NOINHERIT",
    "borrower": "LOGIN",
    "steward": "LOGIN",
}


@pytest.fixture
def office(db: Database) -> Iterator[Database]:
    """The table vault.accounts, of the role boss, and what others would like to know of it."""
    for role, attributes in ROLES.items():
        if not db.value("SELECT to_regrole(%s) IS NOT NULL", [role]):
            db.sql(f"CREATE ROLE {role} {attributes}")
            if role in ("heir", "disinherited"):
                db.sql(f"GRANT boss TO {role}")
    db.sql("""
        CREATE SCHEMA vault AUTHORIZATION boss;
        CREATE TABLE vault.accounts (id int PRIMARY KEY, n int DEFAULT 0, secret text DEFAULT 'hush');
        INSERT INTO vault.accounts SELECT generate_series(1, 300);
        UPDATE vault.accounts SET secret = 'top secret' WHERE id = 77;
        ALTER TABLE vault.accounts OWNER TO boss
    """)
    yield db
    cancel_running(db)


def held(db: Database) -> int:
    """A job of boss's that sleeps after its first batch."""
    job = start(
        db, "vault.accounts", "n = n + 4711", batch=100, sleep_ms=60_000, name="sale of the company", user="boss"
    )
    wait_until(lambda: progress(db, job)["rows_done"], 30, "the first batch")
    return job


def sees(db: Database, user: str) -> bool:
    """Whether the views show the role anything."""
    return db.sql("SELECT 1 FROM backfill.progress", user=user) != []


CALLS = [
    "SELECT backfill.pause({})",
    "SELECT backfill.resume({})",
    "SELECT backfill.cancel({})",
    "SELECT backfill.cancel({}, now => true)",
    "SELECT backfill.alter({}, batch_size => 7)",
    """SELECT backfill.alter({}, options => '{{"settings": {{"search_path": "stranger"}}}}')""",
    "SELECT backfill.forget({})",
    "SELECT backfill.retry_failed({})",
    "SELECT * FROM backfill.status({})",
    "CALL backfill.wait({}, 1000)",
]


@pytest.mark.parametrize("user", ["stranger", "lookout"])
def test_what_a_refusal_tells(office: Database, user: str) -> None:
    """That the job is not his: neither its table, nor its name, clauses, owner or state."""
    job = held(office)
    before = office.sql("SELECT * FROM backfill_internal.job")
    for call in CALLS:
        if user == "lookout" and "status" in call:
            continue
        with pytest.raises(DENIED) as error:
            office.sql(call.format(job), user=user)
        diag = error.value.diag
        told = f"{diag.message_primary} {diag.message_detail} {diag.message_hint} {diag.context}"
        for secret in ("vault", "accounts", "sale", "4711", "boss", "running"):
            assert secret not in told, f"{call}: {told}"
        assert diag.message_hint
    assert office.sql("SELECT * FROM backfill_internal.job") == before
    assert progress(office, job)["state"] == "running"


@pytest.mark.parametrize("call", ["define", "start"])
def test_a_name_tells_nothing_of_others_jobs(office: Database, call: str) -> None:
    """Names are each owner's own: a stranger who uses one meets no error, and no job but his own."""
    job = held(office)
    office.sql("CREATE SCHEMA AUTHORIZATION stranger; CREATE TABLE stranger.t (id int PRIMARY KEY, n int)")
    office.sql("ALTER TABLE stranger.t OWNER TO stranger")
    mine = office.value(
        f"SELECT backfill.{call}('stranger.t', set_clause => 'n = 1', name => 'sale of the company')", user="stranger"
    )
    assert mine != job
    assert office.sql("SELECT job_id FROM backfill.progress", user="stranger") == [(mine,)]


def test_a_member_acts_if_he_has_the_rights_themselves(office: Database) -> None:
    """As for a table's owner: a member that inherits may, one that has to SET ROLE first has to SET ROLE first."""
    job = held(office)
    assert sees(office, "heir") and not sees(office, "disinherited")
    office.sql(f"SELECT backfill.alter({job}, batch_size => 77)", user="heir")
    with pytest.raises(DENIED):
        office.sql(f"SELECT backfill.alter({job}, batch_size => 78)", user="disinherited")
    assert office.value("SET ROLE boss; SELECT count(*) FROM backfill.progress", user="disinherited") == 1
    office.sql(f"SET ROLE boss; SELECT backfill.alter({job}, batch_size => 79)", user="disinherited")
    assert progress(office, job)["batch_size"] == 79


@pytest.mark.parametrize(
    ("grant", "may"),
    [
        ("INHERIT TRUE, SET FALSE", True),
        ("INHERIT FALSE, SET TRUE", False),
        ("INHERIT FALSE, SET FALSE, ADMIN TRUE", False),
    ],
)
def test_what_a_grant_of_membership_says(office: Database, grant: str, may: bool) -> None:
    """SET alone, or ADMIN, is not the right itself; INHERIT alone is."""
    if office.value("SELECT current_setting('server_version_num')::int < 160000"):
        pytest.skip("PostgreSQL 15 has no such options of GRANT")
    job = held(office)
    office.sql("REVOKE boss FROM borrower")
    office.sql(f"GRANT boss TO borrower WITH {grant}")
    try:
        assert sees(office, "borrower") == may
        call = f"SELECT backfill.alter({job}, batch_size => 66)"
        if may:
            office.sql(call, user="borrower")
        else:
            with pytest.raises(DENIED):
                office.sql(call, user="borrower")
        assert progress(office, job)["batch_size"] == (66 if may else 100)
    finally:
        office.sql("REVOKE boss FROM borrower")


def test_views_hide_rows_and_values_from_leaky_functions(office: Database) -> None:
    """However cheap a function says it is: it is called with what its caller may see, or not at all."""
    work = {"set_clause": "n = secret::int", "where": "secret <> 'hush'", "user": "boss"}
    complete(office, start(office, "vault.accounts", name="sale", options={"max_failed_rows": 5}, **work))
    failed = start(office, "vault.accounts", **work)
    wait_for(office, failed, "failed")
    for user in ("stranger", "lookout"):
        connection = office.connect(user)
        leaked: list[str] = []
        connection.add_notice_handler(lambda notice, leaked=leaked: leaked.append(notice.message_primary or ""))
        connection.execute("""
            CREATE FUNCTION pg_temp.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
                $$ BEGIN RAISE NOTICE 'leaked: %', $1; RETURN true; END $$
        """)
        for view in ("progress", "failed_rows", "skipped_rows", "events"):
            connection.execute(f"SELECT * FROM backfill.{view} v WHERE pg_temp.leak(v::text) ORDER BY pg_temp.leak(v)")
            connection.execute(f"SELECT 1 / (job_id - job_id + 1) FROM backfill.{view} v GROUP BY 1, job_id")
            connection.execute(
                f"SELECT FROM backfill.{view} v JOIN backfill.{view} w ON pg_temp.leak(v::text || w::text)"
            )
        if user == "stranger":
            assert leaked == []
        else:
            assert leaked, "monitoring sees that there are jobs"
            assert [text for text in leaked if "top secret" in text or "{77}" in text] == []
    assert "top secret" in str(office.sql("SELECT * FROM backfill.failed_rows", user="boss"))


def test_a_stranger_holds_up_no_call_on_a_table_that_he_may_not_write(office: Database) -> None:
    """Functions of his are called while his clauses are planned, before his rights are looked at."""
    office.sql("GRANT USAGE ON SCHEMA vault TO stranger; GRANT SELECT ON vault.accounts TO stranger")
    office.sql("CREATE SCHEMA stranger AUTHORIZATION stranger")
    office.sql(
        """
        CREATE FUNCTION stranger.slow() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN PERFORM pg_sleep(60); RETURN true; END $$
        """,
        user="stranger",
    )
    connection = office.connect("stranger")
    ended: list[str | None] = []

    def occupy() -> None:
        try:
            connection.execute("SELECT backfill.define('vault.accounts', 'n = 1', 'stranger.slow()')")
        except psycopg.Error as error:
            ended.append(error.sqlstate)

    thread = threading.Thread(target=occupy)
    thread.start()
    try:
        sleeps = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: office.value(sleeps, [connection.info.backend_pid]), 30, "the stranger's function")
        office.sql("SET lock_timeout = '3s'; SELECT backfill.define('vault.accounts', 'n = 2')", user="boss")
    finally:
        office.sql("SELECT pg_cancel_backend(%s)", [connection.info.backend_pid])
        thread.join(30)
    assert ended == ["57014"]


def test_settings_are_the_administrators(office: Database) -> None:
    """Nobody else throws the kill switch or takes more workers, in whichever way a setting can be made."""
    refused = (psycopg.errors.CantChangeRuntimeParam, DENIED)
    for name, value in (("enabled", "off"), ("max_workers", "1000"), ("launcher_interval", "0")):
        for statement in (
            f"SET backfill.{name} = {value}",
            f"SET LOCAL backfill.{name} = {value}",
            f"SELECT set_config('backfill.{name}', '{value}', false)",
            f"UPDATE pg_settings SET setting = '{value}' WHERE name = 'backfill.{name}'",
            f"ALTER ROLE boss SET backfill.{name} = {value}",
            f"ALTER SYSTEM SET backfill.{name} = {value}",
        ):
            with pytest.raises(refused):
                office.sql(statement, user="boss")
    with pytest.raises(psycopg.OperationalError, match=r"backfill\.enabled"):
        psycopg.connect(office.dsn("boss"), options="-c backfill.enabled=off")
    # A name of our own that there isn't.
    with pytest.raises(psycopg.errors.InvalidName):
        office.sql("SET backfill.mine = 1", user="boss")


def test_a_setting_made_before_the_library_is_loaded_has_no_effect(new_cluster) -> None:
    """There it is a name that nobody knows yet, which anybody may set; not so once the library is loaded."""
    server = new_cluster(preload=False)
    server.sql("CREATE EXTENSION backfill; CREATE ROLE boss LOGIN; CREATE TABLE t (id int PRIMARY KEY, n int)")
    server.sql("INSERT INTO t SELECT generate_series(1, 10); ALTER TABLE t OWNER TO boss")
    with pytest.raises(DENIED):
        server.sql("ALTER ROLE boss SET backfill.enabled = off", user="boss")
    db = server.database("postgres")
    session = "SET backfill.enabled = off; SET backfill.max_workers = 1"
    complete(db, start(db, "t", "n = 1", user="boss", session=session))
    assert server.value("SET backfill.enabled = off; LOAD 'backfill'; SHOW backfill.enabled") == "on"


def test_execute_can_be_taken_from_everybody(office: Database) -> None:
    """How an administrator says who may run backfills at all: by GRANT and REVOKE, as for any function."""
    names = "backfill.define, backfill.start"
    office.sql(f"REVOKE EXECUTE ON FUNCTION {names} FROM PUBLIC; GRANT EXECUTE ON FUNCTION {names} TO boss")
    office.sql("GRANT ALL ON SCHEMA vault TO stranger; GRANT ALL ON vault.accounts TO stranger")
    for call in ("define", "start"):
        with pytest.raises(DENIED, match=f"permission denied for function {call}"):
            office.sql(f"SELECT backfill.{call}('vault.accounts', set_clause => 'n = 1')", user="stranger")
    complete(office, start(office, "vault.accounts", "n = 1", user="boss"))
