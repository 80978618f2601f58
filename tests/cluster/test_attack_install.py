"""The extension's own objects: what is put in their way before, at and after the installation."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from harness import Cluster, Database
from harness.jobs import complete, progress, start
from harness.tables import make_table
from harness.versions import install_old

DENIED = psycopg.errors.InsufficientPrivilege
ROLES = {
    "squatter": "LOGIN",
    "scribe": "LOGIN IN ROLE pg_write_all_data, pg_read_all_data",
    "dumper": "LOGIN IN ROLE pg_read_all_data",
}


@pytest.fixture
def bare(shared_cluster: Cluster) -> Iterator[Database]:
    """A database without the extension, in which the role squatter may create schemas."""
    for role, attributes in ROLES.items():
        if not shared_cluster.value("SELECT to_regrole(%s) IS NOT NULL", [role]):
            shared_cluster.sql(f"CREATE ROLE {role} {attributes}")
    shared_cluster.sql("CREATE DATABASE squatted")
    shared_cluster.sql("GRANT CREATE ON DATABASE squatted TO squatter")
    yield shared_cluster.database("squatted")
    shared_cluster.close_connections()
    shared_cluster.sql("DROP DATABASE squatted WITH (FORCE)")


def harmless(cluster: Cluster) -> bool:
    """Whether the role squatter is what it was, and its code was not even called in what was rolled back."""
    raised = cluster.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'squatter'")
    cluster.sql("ALTER ROLE squatter NOSUPERUSER")
    return not raised and "BREACH as postgres" not in cluster.log.read_text(errors="replace")


# An operator for each comparison of OIDs with the reg* types, which PostgreSQL has none of its own for.
OPERATORS = """
    CREATE FUNCTION backfill.evil({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN RAISE LOG 'BREACH as %', current_user; ALTER ROLE squatter SUPERUSER; RETURN false; END $$;
    CREATE OPERATOR backfill.= (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = backfill.evil, RESTRICT = eqsel);
    CREATE OPERATOR backfill.<> (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = backfill.evil, RESTRICT = neqsel);
"""


@pytest.mark.parametrize("owner", ["squatter", "postgres"])
def test_operators_that_wait_for_the_installation(bare: Database, owner: str) -> None:
    """The schema is the extension's, so what is in it could be found first by what a superuser runs."""
    bare.sql(f"CREATE SCHEMA backfill AUTHORIZATION {owner}; GRANT ALL ON SCHEMA backfill TO squatter")
    for left in ("oid", "name", "char"):
        for right in ("regclass", "regnamespace", "oid", "text"):
            bare.sql(OPERATORS.format(left=f'pg_catalog."{left}"', right=right), user="squatter")
    # With statistics, even planning a comparison calls its function.
    bare.sql("ANALYZE pg_catalog.pg_depend, pg_catalog.pg_namespace")
    try:
        with pytest.raises(psycopg.Error) as error:
            bare.sql("CREATE EXTENSION backfill")
    finally:
        assert harmless(bare.cluster), "CREATE EXTENSION has run what was put in its way"
    assert error.value.sqlstate == "55000" and "DROP SCHEMA" in error.value.diag.message_hint, error.value


@pytest.mark.parametrize("owner", ["squatter", "postgres"])
@pytest.mark.parametrize("way", ["CREATE EXTENSION backfill", "ALTER EXTENSION backfill UPDATE"])
def test_a_schema_that_waits_for_the_tables(bare: Database, owner: str, way: str) -> None:
    """The extension makes the schema of its tables itself: one that is there is somebody's, also an empty one."""
    if "UPDATE" in way:
        install_old(bare.cluster.server)
        bare.sql("CREATE EXTENSION backfill VERSION '0.2.0'")
    bare.sql(
        f"CREATE SCHEMA backfill_internal AUTHORIZATION {owner}; GRANT ALL ON SCHEMA backfill_internal TO squatter"
    )
    with pytest.raises(
        psycopg.errors.ObjectNotInPrerequisiteState, match='schema "backfill_internal" is there'
    ) as error:
        bare.sql(way)
    assert "DROP SCHEMA backfill_internal" in error.value.diag.message_hint
    bare.sql(
        """
        CREATE FUNCTION backfill_internal.state_of(text, integer, text, integer, boolean, text) RETURNS text
            LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'BREACH as %', current_user; RETURN 'running'; END $$
        """,
        user="squatter",
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        bare.sql(way)
    assert harmless(bare.cluster)
    bare.sql(f"DROP SCHEMA backfill_internal CASCADE; {way}")
    make_table(bare, 10)
    complete(bare, start(bare, "t", "n = 1"))


def test_nothing_is_looked_up_by_the_search_path(db: Database) -> None:
    """Neither do the views call what a caller's path or the schema itself comes to hold later."""
    db.sql("DO $$ BEGIN CREATE ROLE squatter LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    db.sql("CREATE SCHEMA squat; GRANT ALL ON SCHEMA squat, backfill, backfill_internal TO squatter")
    for schema in ("squat", "backfill", "backfill_internal"):
        for kind in ("int", "bigint", "text", "name", "oid", "numeric", "float8", "boolean"):
            db.sql(
                f"""
                CREATE FUNCTION {schema}.evil({kind}, {kind}) RETURNS boolean LANGUAGE plpgsql AS
                    $$ BEGIN RAISE 'evil {schema} {kind}' USING ERRCODE = 'P0666'; END $$;
                CREATE OPERATOR {schema}.= (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = {schema}.evil);
                CREATE OPERATOR {schema}.> (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = {schema}.evil)
                """,
                user="squatter",
            )
        db.sql(
            f"""
            CREATE FUNCTION {schema}.concat(VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS
                $$ BEGIN RAISE 'evil' USING ERRCODE = 'P0666'; END $$;
            CREATE FUNCTION {schema}.current_database() RETURNS name LANGUAGE plpgsql AS
                $$ BEGIN RAISE 'evil' USING ERRCODE = 'P0666'; END $$
            """,
            user="squatter",
        )
    make_table(db, 100)
    session = "SET search_path = squat, backfill, backfill_internal, pg_catalog, public"
    job = start(db, "public.t", "n = 1", session=session)
    complete(db, job)
    calls = f"""
        SELECT count(*) FROM backfill.progress; SELECT count(*) FROM backfill.events;
        SELECT count(*) FROM backfill.failed_rows; SELECT count(*) FROM backfill.skipped_rows;
        SELECT state FROM backfill.status({job}); SELECT backfill.pause_all(); SELECT backfill.resume_all();
        SELECT backfill.define('public.t', 'n = 2'); SELECT backfill.start('public.t');
        SELECT backfill.cancel({job} + 1); SELECT backfill.forget({job})
    """
    for call in calls.split(";"):
        db.sql(f"{session}; {call}")


TABLES = ["job", "walk", "slice", "outcome", "failed_row", "checkpoint", "event", "sample"]
ESCALATION = {
    "job": "SET owner = 10, work = '{}'",
    "walk": "SET tables = ARRAY['squat.t'::regclass]",
    "slice": "SET relation = 'squat.t'",
    "outcome": "SET outcome = 'failed'",
    "failed_row": "SET relation = 'squat.t'",
    "checkpoint": "SET rows_done = 0",
    "event": "SET actor = 10",
    "sample": "SET rows_done = 0",
}


@pytest.mark.parametrize("table", TABLES)
def test_who_may_write_all_data_may_not_write_these(db: Database, bare: Database, table: str) -> None:
    """pg_write_all_data is no superuser, and would be one with a job that bears another role's name."""
    make_table(db, 100)
    db.sql("CREATE SCHEMA squat; CREATE TABLE squat.t (id int PRIMARY KEY, n int)")
    job = start(db, "t", "n = 1 / (id - 50)", options={"max_failed_rows": 1})
    complete(db, job)
    own = f"backfill_internal.{table}"
    before = db.sql(f"SELECT * FROM {own}")
    assert before
    attacks = [
        f"UPDATE {own} {ESCALATION[table]}",
        f"UPDATE {own} SET {ESCALATION[table].split()[1]} = DEFAULT WHERE false",
        f"DELETE FROM {own}",
        f"INSERT INTO {own} SELECT * FROM {own}",
        f"MERGE INTO {own} t USING (SELECT 1) s ON true WHEN MATCHED THEN UPDATE {ESCALATION[table]}",
        f"WITH w AS (UPDATE {own} {ESCALATION[table]} RETURNING 1) SELECT * FROM w",
    ]
    for attack in attacks:
        with pytest.raises(psycopg.Error) as error:
            db.sql(attack, user="scribe")
        assert error.value.sqlstate in ("42501", "428C9"), (attack, error.value)
    connection = db.connect("scribe")
    with pytest.raises(DENIED, match="written by its functions only"):
        connection.execute(attacks[2])
    with pytest.raises(DENIED), connection.cursor().copy(f"COPY {own} FROM STDIN"):
        pass
    assert db.sql(f"SELECT * FROM {own}") == before
    # Superusers may, as pg_restore does.
    db.sql(f"DELETE FROM {own}")


def test_a_dump_takes_the_right_to_read_only(db: Database, bare: Database) -> None:
    """A backup role without superuser rights can dump a database with jobs in it."""
    make_table(db, 10)
    complete(db, start(db, "t", "n = 1"))
    for table in ("job", "walk", "slice", "checkpoint", "outcome", "event"):
        assert db.value(f"SET row_security = off; SELECT count(*) > 0 FROM backfill_internal.{table}", user="dumper")


def test_a_schema_in_the_place_of_a_renamed_one(db: Database, bare: Database) -> None:
    """Tables of somebody else's, called like the extension's, are not believed; not as to who owns a job."""
    make_table(db, 10)
    job = start(db, "t", "n = 1")
    complete(db, job)
    db.sql("ALTER SCHEMA backfill_internal RENAME TO elsewhere")
    db.sql(f"GRANT CREATE ON DATABASE {db.name} TO squatter")
    db.sql("GRANT USAGE ON SCHEMA elsewhere TO squatter; GRANT SELECT ON ALL TABLES IN SCHEMA elsewhere TO squatter")
    db.sql("CREATE SCHEMA backfill_internal", user="squatter")
    for table in ("job", "walk", "slice", "checkpoint", "region", "leftover", "outcome", "failed_row", "event"):
        db.sql(f"CREATE TABLE backfill_internal.{table} AS TABLE elsewhere.{table}", user="squatter")
    db.sql(
        "UPDATE backfill_internal.job SET wish = 'run', owner = 10; DELETE FROM backfill_internal.outcome",
        user="squatter",
    )
    refused(db, "backfill", job)
    db.sql("DROP SCHEMA backfill_internal CASCADE; ALTER SCHEMA elsewhere RENAME TO backfill_internal")
    assert progress(db, job)["state"] == "completed"
    complete(db, start(db, "t", "n = 2"))


def test_a_view_in_the_place_of_one_of_a_renamed_schema(db: Database, bare: Database) -> None:
    """The extension's own statements read its views as the extension's owner: never one of somebody else's."""
    make_table(db, 10)
    job = start(db, "t", "n = 1")
    complete(db, job)
    db.sql("ALTER SCHEMA backfill RENAME TO elsewhere")
    db.sql(f"GRANT CREATE ON DATABASE {db.name} TO squatter")
    db.sql(
        """
        CREATE SCHEMA backfill; GRANT ALL ON SCHEMA backfill TO PUBLIC;
        CREATE FUNCTION backfill.evil() RETURNS bigint LANGUAGE plpgsql AS
            $$ BEGIN RAISE LOG 'BREACH as %', current_user; ALTER ROLE squatter SUPERUSER; RETURN 1; END $$
        """,
        user="squatter",
    )
    for view in ("progress", "events", "failed_rows", "samples", "verify_failures", "skipped_rows"):
        columns = db.value(
            "SELECT string_agg(concat('NULL::', format_type(atttypid, atttypmod), ' AS ', quote_ident(attname)), ', '"
            " ORDER BY attnum) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
            [f"elsewhere.{view}"],
        )
        db.sql(f"CREATE VIEW backfill.{view} AS SELECT {columns} WHERE backfill.evil() = 1", user="squatter")
    refused(db, "elsewhere", job)
    for call in (f"report({job})", f"report({job}, 'html')", f"status({job})", f"verify({job}, recompute => true)"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            db.sql(f"SELECT elsewhere.{call}")
    assert harmless(db.cluster)
    db.sql("DROP SCHEMA backfill CASCADE; ALTER SCHEMA elsewhere RENAME TO backfill")
    assert progress(db, job)["state"] == "completed"
    complete(db, start(db, "t", "n = 2"))


def refused(db: Database, schema: str, job: int) -> None:
    """No call does anything; each says which names the schemas have to have."""
    for call in (f"pause({job})", f"resume({job})", "resume_all()", "start('t', set_clause => 'n = 2')"):
        with pytest.raises(psycopg.Error) as error:
            db.sql(f"SELECT {schema}.{call}")
        assert error.value.sqlstate == "55000" and "RENAME TO backfill" in error.value.diag.message_hint, error.value


def test_an_event_trigger_of_a_superuser_does_not_meet_the_worker(db: Database) -> None:
    """Batches, VACUUM and ANALYZE are no DDL; where the owner's code runs some, the trigger runs as the owner."""
    db.sql("DO $$ BEGIN CREATE ROLE squatter LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    make_table(db, 100)
    login = db.value("SELECT current_setting('server_version_num')::int >= 170000")
    db.sql("""
        CREATE TABLE seen (tag text, who name, process text); GRANT INSERT, SELECT ON seen TO PUBLIC;
        GRANT CREATE ON SCHEMA public TO squatter; GRANT ALL ON t TO squatter;
        CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.seen SELECT tg_tag, current_user, backend_type
                     FROM pg_stat_activity WHERE pid = pg_backend_pid(); END $$;
        CREATE EVENT TRIGGER see ON ddl_command_end EXECUTE FUNCTION see()
    """)
    if login:
        db.sql("CREATE EVENT TRIGGER enter ON login EXECUTE FUNCTION see(); TRUNCATE seen")
    complete(db, start(db, "t", "n = 1", user="squatter"))
    assert db.sql("SELECT * FROM seen WHERE process <> 'client backend'") == []
    assert not login or db.value("SELECT count(*) FROM seen WHERE upper(tag) = 'LOGIN'") > 0
    db.sql(
        """
        CREATE FUNCTION make() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN EXECUTE 'CREATE TABLE made_' || NEW.id || ' ()'; RETURN NEW; END $$
        """,
        user="squatter",
    )
    db.sql("CREATE TRIGGER make BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.id < 4) EXECUTE FUNCTION make()")
    complete(db, start(db, "t", "n = 2", user="squatter"))
    made = db.sql("SELECT who, count(*) FROM seen WHERE tag = 'CREATE TABLE' GROUP BY who")
    assert made == [("squatter", 3)]


def test_an_event_trigger_of_a_superuser_on_the_installation(bare: Database) -> None:
    """It sees the extension come, be changed and go, and breaks nothing."""
    bare.sql("""
        CREATE TABLE seen (tag text);
        CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.seen SELECT tg_tag FROM pg_event_trigger_ddl_commands(); END $$;
        CREATE EVENT TRIGGER see ON ddl_command_end EXECUTE FUNCTION see()
    """)
    bare.sql("CREATE EXTENSION backfill")
    assert "CREATE EXTENSION" in {tag for (tag,) in bare.sql("SELECT DISTINCT tag FROM seen")}
    make_table(bare, 10)
    complete(bare, start(bare, "t", "n = 1"))
    bare.sql("DROP EXTENSION backfill")
