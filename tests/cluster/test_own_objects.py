"""The extension's own tables: who has rights on them, what is on them, and who may write to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.dumps import dump, restore
from harness.jobs import complete, progress, start, start_count, wait_for_nap_between_batches, wait_for_no_worker
from harness.server import REPOSITORY
from harness.tables import counts, make_table
from harness.versions import inventory

New = Callable[..., Cluster]
DENIED = psycopg.errors.InsufficientPrivilege
ROLES = {
    "app": "LOGIN",
    "helper": "LOGIN",
    "scribe": "LOGIN IN ROLE pg_write_all_data, pg_read_all_data",
}
TABLES = """
SELECT c.relname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_class c ON c.oid = d.objid
WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
  AND e.extname = 'backfill' AND c.relkind = 'r' ORDER BY 1
"""
# Rights that somebody who is neither the owner nor PUBLIC has; and what PUBLIC has beside looking and calling.
STRANGERS = """
WITH object AS (
    SELECT c.oid::regclass::text AS name, c.relowner AS owner, c.relacl AS acl FROM pg_class c
    WHERE c.relnamespace::regnamespace::text ~ '^backfill' AND c.relkind IN ('r', 'v', 'S')
    UNION ALL SELECT p.oid::regprocedure::text, p.proowner, p.proacl FROM pg_proc p
    WHERE p.pronamespace::regnamespace::text ~ '^backfill'
    UNION ALL SELECT nspname, nspowner, nspacl FROM pg_namespace WHERE nspname ~ '^backfill'
    UNION ALL SELECT format('%s.%s', c.oid::regclass, a.attname), c.relowner, a.attacl
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace::regnamespace::text ~ '^backfill'
)
SELECT o.name, a.grantee::regrole::text, a.privilege_type, a.is_grantable
FROM object o CROSS JOIN LATERAL aclexplode(o.acl) a
WHERE a.grantee <> o.owner
  AND (a.is_grantable OR NOT a.privilege_type IN ('SELECT', 'USAGE', 'EXECUTE')
       OR a.grantee <> 0 AND a.privilege_type <> 'EXECUTE'
       OR o.name = 'backfill_internal')
"""
DEFAULTS = """
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO helper;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO app WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO app WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO app WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO app WITH GRANT OPTION;
"""
NO_DEFAULTS = DEFAULTS.replace("GRANT ALL", "REVOKE ALL").replace("TO ", "FROM ").replace(" WITH GRANT OPTION", "")


@pytest.fixture
def bare(shared_cluster: Cluster) -> Iterator[Database]:
    """A database without the extension, and some people."""
    for role, attributes in ROLES.items():
        if not shared_cluster.value("SELECT to_regrole(%s) IS NOT NULL", [role]):
            shared_cluster.sql(f"CREATE ROLE {role} {attributes}")
    shared_cluster.sql("CREATE DATABASE bare")
    yield shared_cluster.database("bare")
    shared_cluster.close_connections()
    shared_cluster.sql("DROP DATABASE bare WITH (FORCE)")


def evil(db: Database) -> None:
    """A trigger function of app's, and a table in which it notes as whom it ran."""
    db.sql("CREATE SCHEMA app AUTHORIZATION app")
    db.sql(
        """
        CREATE TABLE app.ran (who name); GRANT ALL ON app.ran TO PUBLIC; GRANT USAGE ON SCHEMA app TO PUBLIC;
        CREATE FUNCTION app.fire() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO app.ran VALUES (current_user); RETURN COALESCE(NEW, OLD); END $$
        """,
        user="app",
    )


@pytest.mark.parametrize("schema", [False, True])
def test_default_privileges_leave_nobody_rights(bare: Database, schema: bool) -> None:
    """Of the role that installs, global ones and those of the schema, with the right to hand them on."""
    bare.sql(DEFAULTS)
    if schema:
        bare.sql("CREATE SCHEMA backfill")
        bare.sql(
            "".join(
                line.replace("PRIVILEGES", "PRIVILEGES IN SCHEMA backfill") + ";"
                for line in DEFAULTS.split(";")
                if line.strip() and "SCHEMAS" not in line
            )
        )
    try:
        bare.sql("CREATE EXTENSION backfill")
        assert bare.sql(STRANGERS) == []
        evil(bare)
        with pytest.raises(DENIED):
            bare.sql(
                "CREATE TRIGGER mine BEFORE INSERT ON backfill_internal.job FOR EACH ROW EXECUTE FUNCTION app.fire()",
                user="app",
            )
        make_table(bare, 10)
        bare.sql("GRANT ALL ON t TO helper; SET ROLE helper; SELECT count(*) FROM backfill.progress")
        complete(bare, start(bare, "t", "n = 1", user="helper"))
    finally:
        bare.sql(NO_DEFAULTS)


def test_a_dump_brings_no_rights_back(shared_cluster: Cluster, bare: Database, db: Database) -> None:
    """The dump of a database that was installed under such default privileges restores, to what a new one has."""
    bare.sql(DEFAULTS)
    bare.sql("CREATE EXTENSION backfill; REVOKE EXECUTE ON FUNCTION backfill.define FROM PUBLIC")
    bare.sql(NO_DEFAULTS)
    copy = restore(shared_cluster, "bare_copy", dump(bare, "-Fc"))
    assert copy.sql(STRANGERS) == []
    assert not copy.value(
        "SELECT has_function_privilege('helper', 'backfill.define(regclass,text,text,text,jsonb)', 'EXECUTE')"
    )
    copy.sql("GRANT EXECUTE ON FUNCTION backfill.define TO PUBLIC")
    acl = "SELECT array_agg(a::text ORDER BY a::text) FROM pg_class c, unnest(c.relacl) a WHERE c.oid = %s::regclass"
    for table in ("backfill_internal.job", "backfill.progress", "backfill_internal.job_id_seq"):
        assert copy.value(acl, [table]) == db.value(acl, [table])
    shared_cluster.sql("DROP DATABASE bare_copy WITH (FORCE)")


def test_an_update_takes_rights_back(shared_cluster: Cluster, bare: Database, db: Database) -> None:
    """Those that the old version left, and what somebody granted on; what an administrator closed stays closed."""
    from harness.versions import install_old

    install_old(shared_cluster.server)
    bare.sql(DEFAULTS)
    bare.sql("CREATE EXTENSION backfill VERSION '0.2.0'")
    bare.sql(NO_DEFAULTS)
    bare.sql("GRANT TRIGGER ON backfill.slice TO helper; GRANT ALL ON SCHEMA backfill TO helper", user="app")
    bare.sql("GRANT UPDATE (owner) ON backfill.job TO helper")
    bare.sql("REVOKE EXECUTE ON FUNCTION backfill.define FROM PUBLIC, app")
    assert bare.sql(STRANGERS) != []
    bare.sql("ALTER EXTENSION backfill UPDATE")
    # Looking and calling is everybody's; who may hand it on does not any more.
    left = [row for row in bare.sql(STRANGERS) if row[2] not in ("SELECT", "USAGE") or row[3]]
    assert left == []
    assert not bare.value(
        "SELECT has_function_privilege('app', 'backfill.define(regclass,text,text,text,jsonb)', 'EXECUTE')"
    )
    assert not bare.value("SELECT has_table_privilege('helper', 'backfill_internal.slice', 'TRIGGER')")
    assert not bare.value("SELECT has_column_privilege('helper', 'backfill_internal.job', 'owner', 'UPDATE')")


@pytest.mark.parametrize("name", ["guard", "revoke"])
def test_the_update_has_the_blocks_of_the_installation(name: str) -> None:
    """Word by word."""
    script = (REPOSITORY / "sql" / f"{name}.sql").read_text()
    block = script[script.index("DO $$") :]
    assert block in (REPOSITORY / "sql" / "backfill--0.2.0--0.3.0.sql").read_text()


def test_every_table_is_guarded(db: Database) -> None:
    """By a trigger for statements that fires always, and one for rows that fires for what is replicated."""
    guards = db.sql(
        "SELECT c.relname::text, t.tgname::text, t.tgenabled::text, t.tgtype::int FROM pg_trigger t"
        " JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace::regnamespace::text ~ '^backfill' ORDER BY 1, 2"
    )
    tables = [name for (name,) in db.sql(TABLES)]
    # Bits: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate.
    wanted = [row for name in tables for row in ((name, "guard", "A", 62), (name, "guard_row", "R", 31))]
    assert guards == wanted
    source = (REPOSITORY / "src" / "pg" / "intact.rs").read_text()
    assert [name for name in tables if f'c"{name}"' not in source] == []


@pytest.mark.parametrize("role", ["origin", "replica", "local"])
def test_no_setting_keeps_the_guards_from_firing(db: Database, bare: Database, role: str) -> None:
    """session_replication_role, which may be granted for triggers: skip."""
    make_table(db, 100)
    job = start(db, "t", "n = 1 / (id - 50)", options={"max_failed_rows": 1})
    complete(db, job)
    if db.value("SELECT current_setting('server_version_num')::int >= 150000"):
        db.sql("GRANT SET ON PARAMETER session_replication_role TO scribe")
    connection = db.connect("scribe")
    connection.execute(f"SET session_replication_role = {role}")
    for (table,) in db.sql(TABLES):
        # No column of it is worth changing where no row is: the guard is asked all the same.
        column = db.value(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND attidentity = '' ORDER BY attnum LIMIT 1",
            [f"backfill_internal.{table}"],
        )
        for attack in (
            f"UPDATE backfill_internal.{table} SET {column} = {column}",
            f"DELETE FROM backfill_internal.{table}",
            f"INSERT INTO backfill_internal.{table} SELECT * FROM backfill_internal.{table}",
            f"TRUNCATE backfill_internal.{table}",
        ):
            with pytest.raises(psycopg.Error) as error:
                connection.execute(attack)
            assert error.value.sqlstate in ("42501", "428C9"), (attack, error.value)
    with pytest.raises(DENIED, match="written by its functions only"):
        connection.execute("UPDATE backfill_internal.job SET owner = 10")


def test_a_job_that_skips_triggers_writes_its_checkpoints(db: Database) -> None:
    """Its worker runs with session_replication_role = replica, where the guard for rows fires as well."""
    make_table(db, 3000)
    db.sql(
        "CREATE FUNCTION nay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$;"
        "CREATE TRIGGER nay BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION nay()"
    )
    complete(db, start_count(db, "t", 100, options={"triggers": "skip", "workers": 2}))
    assert counts(db) == [(1, 3000)]


GRANT = """
GRANT ALL ON ALL TABLES IN SCHEMA backfill_internal TO app; GRANT USAGE ON SCHEMA backfill_internal TO app;
GRANT USAGE ON SCHEMA app TO PUBLIC
"""


@pytest.mark.parametrize("table", ["job", "checkpoint", "event"])
def test_a_trigger_after_a_grant_by_mistake(db: Database, bare: Database, table: str) -> None:
    """app's trigger on a table of the extension's: nothing goes on, calls say which and how to drop it."""
    evil(db)
    make_table(db, 1000)
    db.sql(GRANT)
    job = start_count(db, "t", 100, 60_000)
    wait_for_nap_between_batches(db, job)
    db.sql(
        f"CREATE TRIGGER mine BEFORE INSERT OR UPDATE ON backfill_internal.{table}"
        " FOR EACH ROW EXECUTE FUNCTION app.fire();"
        f"CREATE TRIGGER too AFTER INSERT OR UPDATE ON backfill_internal.{table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION app.fire()",
        user="app",
    )
    for call in (
        "pause({0})",
        "alter({0}, 100, 0)",
        "cancel({0})",
        "start('t', set_clause => 'n = 2')",
        "resume_all()",
    ):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
            db.sql(f"SELECT backfill.{call.format(job)}")
        diag = error.value.diag
        assert f"backfill_internal.{table} has a trigger mine" in diag.message_primary
        assert f"DROP TRIGGER mine ON backfill_internal.{table};" in diag.message_hint
    # Awake, the worker goes without a further batch.
    db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'backfill worker'")
    wait_for_no_worker(db, job)
    wait_until(
        lambda: "has a trigger mine" in (progress(db, job)["waiting_for"] or ""),
        30,
        "the view to say what it waits for",
    )
    assert db.sql("SELECT * FROM app.ran") == []
    db.sql(f"DROP TRIGGER mine ON backfill_internal.{table}; DROP TRIGGER too ON backfill_internal.{table}")
    db.sql(f"SELECT backfill.alter({job}, 100, 0); SELECT backfill.resume({job})")
    complete(db, job)
    assert counts(db) == [(1, 1000)]
    assert db.sql("SELECT * FROM app.ran") == []


def test_a_foreign_key_of_somebody_elses(db: Database, bare: Database) -> None:
    """Its check runs with the rights of its owner, and could keep a job from being forgotten."""
    evil(db)
    make_table(db, 100)
    db.sql(GRANT)
    job = start_count(db)
    complete(db, job)
    db.sql(
        f"CREATE TABLE app.refers (job bigint REFERENCES backfill_internal.job); INSERT INTO app.refers VALUES ({job})",
        user="app",
    )
    db.sql(f"SELECT backfill.forget({job})")
    assert db.value("SELECT count(*) FROM backfill.progress") == 0


def test_another_owner_of_a_table(db: Database, bare: Database) -> None:
    """Its owner could do anything with it."""
    db.sql("ALTER TABLE backfill_internal.slice OWNER TO app")
    make_table(db, 10)
    with pytest.raises(
        psycopg.errors.ObjectNotInPrerequisiteState, match=r"backfill_internal\.slice belongs to another role"
    ):
        db.sql("SELECT backfill.start('t', set_clause => 'n = 1')")
    db.sql("ALTER TABLE backfill_internal.slice OWNER TO postgres")
    complete(db, start(db, "t", "n = 1"))


def test_default_inventory(bare: Database, db: Database) -> None:
    """Whatever default privileges there were, the extension is the same."""
    bare.sql(DEFAULTS)
    bare.sql("CREATE EXTENSION backfill")
    bare.sql(NO_DEFAULTS)
    here, there = inventory(bare), inventory(db)
    # Who may call what may differ: that is what they are for.
    differ = {line for line in set(here) ^ set(there) if "app=X" not in line and not line.startswith("rights ")}
    assert differ == set()
