"""Rows of backfill.job that the functions did not write, or whose owner is another role now: they stand still."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from harness import Cluster, Database, Server
from harness.dumps import dump, restore
from harness.jobs import complete, progress, start, start_count, wait_for, wait_for_nap_between_batches
from harness.tables import counts, make_table

DENIED = psycopg.errors.InsufficientPrivilege
REFUSED = psycopg.errors.ObjectNotInPrerequisiteState
MINUTE = 60_000


@pytest.fixture(scope="module")
def shared_cluster(server: Server) -> Iterator[Cluster]:
    """A server whose launcher looks each second."""
    with Cluster(server=server, conf={"backfill.launcher_interval": "1s"}) as cluster:
        cluster.sql("CREATE ROLE app LOGIN; CREATE ROLE member LOGIN IN ROLE app; CREATE ROLE stranger LOGIN")
        yield cluster


@pytest.fixture
def app(db: Database) -> Database:
    """A database with a table of app's."""
    make_table(db, 1000)
    db.sql("ALTER TABLE t OWNER TO app")
    return db


def launcher_was_there(db: Database) -> None:
    """Waits until the launcher has taken up another job."""
    make_table(db, 1000, "proof")
    job = start_count(db, "proof", 10, 20)
    db.terminate_worker(job)
    complete(db, job)


def paused(db: Database, user: str = "app") -> int:
    """A job that has begun and is paused."""
    job = start_count(db, "t", 100, MINUTE, user=user)
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    return job


# Each thing that decides what runs with whose rights; by a superuser, whom the guard lets pass.
FORGERIES = {
    "id": "id = id + 1000",
    "relation": "relation = 'other'",
    "owner": "owner = 'postgres', owner_name = 'postgres'",
    "set_clause": "set_clause = 'n = 666'",
    "where_clause": "where_clause = 'id > 0'",
    "no where_clause": "where_clause = ''",
    "set_columns": "set_columns = '{m}'",
    "key_columns": "key_columns = '{n}'",
    "options": """options = '{"on_end": "ALTER ROLE app SUPERUSER"}'""",
    "verifies": "verifies = id",
    "check_clause": "check_clause = 'true'",
    "recompute": "recompute = true",
    "session": """session = '{"search_path": "evil"}'""",
    "seal": "seal = NULL",
    "a short seal": "seal = substr(seal, 1, 31)",
    "an empty seal": "seal = ''",
    "a long seal": "seal = seal || 'x'",
    "another's seal": "seal = (SELECT o.seal FROM backfill.job o WHERE o.id <> j.id ORDER BY o.id LIMIT 1)",
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_row_that_was_changed_by_hand(app: Database, what: str) -> None:
    """It is paused whatever it wishes, says why, and goes on if a superuser wants it as it is."""
    db = app
    make_table(db, 10, "other")
    complete(db, start(db, "other", "n = 5"))
    job = paused(db)
    db.sql("ALTER TABLE backfill.job ALTER COLUMN id DROP IDENTITY; SET session_replication_role = replica;"
           f"UPDATE backfill.job j SET wish = 'run', version = version + 1, {FORGERIES[what]} WHERE id = {job}")
    if what == "id":
        job += 1000
    launcher_was_there(db)
    row = progress(db, job)
    assert (row["state"], row["workers"]) == ("paused", 0)
    assert "was not written by backfill's functions" in row["waiting_for"], row
    assert counts(db) == [(0, 900), (1, 100)]
    if what != "owner":
        with pytest.raises(DENIED) as error:
            db.sql("SELECT backfill.resume(%s)", [job], user="member")
        assert "superuser" in error.value.diag.message_hint
    # Neither are others' calls about it, nor does a change of its pace make it good.
    db.sql("SELECT backfill.alter(%s, 50, 0)", [job])
    assert progress(db, job)["state"] == "paused"
    for call in ("verify({0}, 'true')", "rehearse({0})", "retry_failed({0})", "reapply({0})", "procedure({0})"):
        with pytest.raises(REFUSED, match="was not written by backfill's functions"):
            db.sql(f"SELECT backfill.{call.format(job)}")
    with db.connect() as connection:
        notices = []
        connection.add_notice_handler(lambda diag: notices.append(diag.message_primary))
        assert connection.execute("SELECT backfill.resume_all()").fetchone() == (0,)
        assert any("left alone" in text and text.endswith(f"job {job}") for text in notices), notices
        if what in ("seal", "where_clause"):
            notices.clear()
            assert connection.execute("SELECT backfill.resume(%s)", [job]).fetchone() == ("running",)
            assert any("somebody has changed it by hand" in text for text in notices), notices
            complete(db, job)
            assert counts(db) == [(1, 1000)]
        else:
            assert connection.execute("SELECT backfill.cancel(%s)", [job]).fetchone() == ("cancelled",)
            connection.execute("SELECT backfill.forget(%s)", [job])


def test_a_row_that_was_inserted(app: Database) -> None:
    """As a job of a superuser's: it does not run, whatever place it names."""
    db = app
    job = start_count(db, user="app")
    complete(db, job)
    columns = db.value(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'backfill.job'::regclass"
        " AND attnum > 0 AND NOT attisdropped AND NOT attname IN ('id', 'owner', 'owner_name', 'set_clause', 'name')"
    )
    forged = db.value(
        f"INSERT INTO backfill.job (owner, owner_name, set_clause, {columns})"
        f" SELECT 10, 'postgres', 'n = 666', {columns} FROM backfill.job WHERE id = {job} RETURNING id"
    )
    launcher_was_there(db)
    assert progress(db, forged)["state"] == "paused"
    assert counts(db) == [(1, 1000)]


def test_a_definition_that_was_changed_by_hand(app: Database) -> None:
    """It is neither started nor planned; a definition anew is."""
    db = app
    job = db.value("SELECT backfill.define('t', 'n = n + 1', name => 'mine')", user="app")
    db.sql(f"UPDATE backfill.job SET set_clause = 'n = 666' WHERE id = {job}")
    assert progress(db, job)["state"] == "pending"
    assert "was not written by backfill's functions" in progress(db, job)["waiting_for"]
    for user in ("app", "postgres"):
        for call in ("start('t')", "start('t', name => 'mine')", "plan('t')", "preview('t')",
                     "start('t', name => 'mine', set_clause => 'n = 666')",
                     """start('t', options => '{"dry_run": true}')"""):  # fmt: skip
            with pytest.raises(REFUSED, match="was not written by backfill's functions") as error:
                db.sql(f"SELECT backfill.{call}", user=user)
            assert f"SELECT backfill.cancel({job})" in error.value.diag.message_hint
    db.sql(f"SELECT backfill.cancel({job}); SELECT backfill.forget({job})", user="app")
    again = db.value("SELECT backfill.define('t', 'n = n + 1', name => 'mine')", user="app")
    db.sql("SELECT backfill.start('t', name => 'mine')")
    complete(db, again)
    assert counts(db) == [(1, 1000)]


def test_a_definition_of_a_copy(shared_cluster: Cluster, app: Database) -> None:
    """Its owner starts it, for whom it is checked again; nobody else does."""
    db = app
    job = db.value("SELECT backfill.define('t', 'n = n + 1')", user="app")
    path = dump(db, "-Fc")
    copy = restore(shared_cluster, f"{db.name}_copy", path)
    shared_cluster.close_connections()
    shared_cluster.sql(f"CREATE DATABASE {db.name}_twin TEMPLATE {db.name}")
    twin = shared_cluster.database(f"{db.name}_twin")
    for each in (copy, twin):
        assert "copy" in progress(each, job)["waiting_for"]
        for user in ("postgres", "member"):
            with pytest.raises(REFUSED, match="of which this one is a copy") as error:
                each.sql("SELECT backfill.start('t')", user=user)
            assert "SET ROLE app" in error.value.diag.message_hint
        # What define would refuse is refused here.
        each.sql("ALTER TABLE t RENAME COLUMN n TO m")
        with pytest.raises(psycopg.errors.UndefinedColumn):
            each.sql("SELECT backfill.start('t')", user="app")
        each.sql("ALTER TABLE t RENAME COLUMN m TO n")
        assert each.value("SELECT backfill.start('t')", user="app") == job
        complete(each, job)
        assert counts(each) == [(1, 1000)]
        shared_cluster.sql(f"DROP DATABASE {each.name} WITH (FORCE)")
    assert progress(db, job)["waiting_for"] == "backfill.start()"


def test_a_role_whose_oid_is_used_again(shared_cluster: Cluster, app: Database) -> None:
    """A new role does not inherit the jobs of one that was dropped: neither the launcher nor the role runs them."""
    db = app
    db.sql("CREATE ROLE former LOGIN; GRANT ALL ON t TO former; GRANT USAGE ON SCHEMA public TO former")
    job = paused(db, "former")
    pending = db.value("SELECT backfill.define('t', 'n = 7', name => 'later')", user="former")
    oid = db.value("SELECT 'former'::regrole::oid")
    db.sql(f"UPDATE backfill.job SET wish = 'run' WHERE id = {job}")
    db.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'former'")
    db.sql(f"UPDATE backfill.job SET wish = 'pause' WHERE id = {job}")
    db.sql("DROP OWNED BY former; DROP ROLE former")
    # As when OIDs have gone once round.
    db.sql("CREATE ROLE heir LOGIN SUPERUSER")
    db.sql(f"SET allow_system_table_mods = on; UPDATE pg_authid SET oid = {oid} WHERE rolname = 'heir'")
    try:
        db.sql(f"UPDATE backfill.job SET wish = 'run', wished_at = now() WHERE id = {job}")
        launcher_was_there(db)
        row = progress(db, job)
        assert (row["state"], row["workers"], row["owner"]) == ("paused", 0, "heir")
        assert "OID used again" in row["waiting_for"], row
        assert "OID used again" in progress(db, pending)["waiting_for"]
        assert counts(db) == [(0, 900), (1, 100)]
        db.sql("ALTER ROLE heir NOSUPERUSER; GRANT ALL ON t TO heir; GRANT USAGE ON SCHEMA public TO heir")
        with pytest.raises(DENIED) as error:
            db.sql("SELECT backfill.resume(%s)", [job], user="heir")
        assert "superuser" in error.value.diag.message_hint
        for user in ("heir", "postgres"):
            with pytest.raises(REFUSED, match="another role"):
                db.sql("SELECT backfill.start('t', name => 'later')", user=user)
        assert db.value("SELECT backfill.resume_all()", user="heir") == 0
        db.sql("SELECT backfill.alter(%s, 100, 0)", [job])
        assert db.value("SELECT backfill.resume(%s)", [job]) == "running"
        complete(db, job)
        trail = "SELECT actor, old, new FROM backfill.events WHERE job_id = %s AND event = 'owner'"
        assert db.sql(trail, [job]) == [("postgres", "former", "heir")]
        assert db.value(f"SELECT owner_name::text FROM backfill.job WHERE id = {job}") == "heir"
    finally:
        db.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'heir'")
        db.sql("DROP OWNED BY heir; DROP ROLE heir")


def test_nobody_can_have_a_row_sealed(app: Database) -> None:
    """The function of the upgrade is gone; made anew by a superuser it refuses; and no other one gives a seal."""
    db = app
    functions = db.sql("SELECT proname::text FROM pg_proc WHERE pronamespace = 'backfill'::regnamespace")
    assert ("seal_all",) not in functions and ("standing",) in functions
    db.sql("CREATE FUNCTION seal_all() RETURNS void LANGUAGE c AS '$libdir/backfill', 'seal_all_wrapper'")
    for user in ("postgres", "app"):
        with pytest.raises(DENIED):
            db.sql("SELECT seal_all()", user=user)


def test_jobs_of_the_version_before_are_sealed(shared_cluster: Cluster, db: Database) -> None:
    """Here, and of copies; their owners are known by name then."""
    from harness.versions import install_old

    install_old(shared_cluster.server)
    name = f"old_{db.name}"
    shared_cluster.sql(f"CREATE DATABASE {name}")
    old = shared_cluster.database(name)
    old.sql("CREATE EXTENSION backfill VERSION '0.2.0'")
    make_table(old, 1000)
    insert = (
        "INSERT INTO backfill.job (name, relation, relation_name, owner, set_clause, set_columns, key_columns, session,"
        " batch_size, sleep_ms, wish, attempt, system_identifier, database_oid) SELECT %s, 't', 'public.t', 'postgres',"
        " 'n = n + 1', '{n}', '{id}', '{}', 100, 0, %s, 1, system_identifier + %s,"
        " ('backfill.job'::regclass::oid::bigint << 32) | (SELECT oid FROM pg_database WHERE datname ="
        " current_database())::bigint FROM pg_control_system() RETURNING id"
    )
    here, copy = old.value(insert, ["a", "pause", 0]), old.value(insert, ["b", "run", 1])
    old.sql("ALTER EXTENSION backfill UPDATE")
    assert progress(old, here)["waiting_for"] is None
    assert "copy" in progress(old, copy)["waiting_for"]
    assert old.sql("SELECT DISTINCT owner_name::text, length(seal) FROM backfill.job") == [("postgres", 32)]
    assert old.value("SELECT backfill.resume_all()") == 1
    complete(old, here)
    assert counts(old) == [(1, 1000)]
    shared_cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")
