"""A hostile owner with all that he can put in a batch's way, for the tests of attacks."""

from __future__ import annotations

from harness.database import Database
from harness.jobs import start

# Run by the owner's code within a batch. These may work, but give it no other role's rights.
ALLOWED = [
    "SET ROLE postgres",
    "SET ROLE none",
    "RESET ROLE",
    "SET LOCAL ROLE none",
    "SET SESSION AUTHORIZATION postgres",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET LOCAL SESSION AUTHORIZATION DEFAULT",
    "RESET SESSION AUTHORIZATION",
    "RESET ALL",
    "DISCARD ALL",
    "SELECT set_config('role', 'none', false)",
    "SELECT set_config('role', 'postgres', true)",
    "SELECT set_config('session_authorization', 'postgres', false)",
    "SELECT set_config('session_authorization', 'default', true)",
    "SELECT set_config('is_superuser', 'on', false)",
    "UPDATE pg_settings SET setting = 'none' WHERE name = 'role'",
    "SELECT hostile.by_clause()",
    "SELECT hostile.by_definer()",
    "SELECT hostile.by_parallel_query()",
    "DO $do$ BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN EXECUTE 'RESET SESSION AUTHORIZATION'; END $do$",
    "ALTER ROLE SESSION_USER PASSWORD 'mine'",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'checkpointer'",
    "LISTEN hostile",
]
# These have to be errors, wherever they are tried.
REFUSED = [
    "SET backfill.enabled = off",
    "SET session_replication_role = replica",
    "SET log_statement = 'all'",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "CREATE ROLE evil SUPERUSER",
    "GRANT pg_read_all_data TO CURRENT_USER",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT * FROM private.secret",
    "ALTER EXTENSION backfill UPDATE",
    "SELECT * FROM backfill_internal.job",
    "SELECT * FROM backfill_internal.checkpoint",
    "UPDATE backfill_internal.job SET owner = 10",
    "UPDATE backfill_internal.checkpoint SET key = NULL",
    "DELETE FROM backfill_internal.checkpoint",
    "DELETE FROM backfill_internal.slice",
    "INSERT INTO backfill_internal.outcome (job_id, outcome, attempt, at) VALUES (1, 'completed', 1, now())",
    "TRUNCATE backfill_internal.event",
    "CREATE TABLE backfill.mine ()",
    "CREATE OR REPLACE FUNCTION backfill.pause(bigint) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
    "SET LOCAL session_replication_role = 'replica'",
    "SET backfill.max_workers = 100",
    "SET LOCAL backfill.launcher_interval = 0",
    "ALTER SYSTEM SET backfill.enabled = off",
    "ALTER SYSTEM SET shared_preload_libraries = ''",
    "SELECT pg_reload_conf()",
    "LOAD 'pg_upgrade_support'",
    "CREATE FUNCTION hostile.c() RETURNS int LANGUAGE c AS 'backfill', 'start_wrapper'",
    "CREATE FUNCTION hostile.internal() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
    "CREATE EVENT TRIGGER hostile ON ddl_command_end EXECUTE FUNCTION hostile.fire()",
    "SELECT pg_read_binary_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_stat_file('PG_VERSION')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(lo_create(0), '/tmp/hostile')",
    "COPY hostile.attacks TO '/tmp/hostile'",
    "COPY hostile.attacks FROM '/etc/passwd'",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT mine",
    "START TRANSACTION",
    "PREPARE TRANSACTION 'mine'",
    "COMMIT PREPARED 'mine'",
    "CALL hostile.by_procedure()",
    "DO $do$ BEGIN COMMIT; END $do$",
    "VACUUM hostile.t",
    "GRANT postgres TO CURRENT_USER",
    "GRANT pg_write_all_data TO CURRENT_USER",
    "ALTER ROLE postgres PASSWORD 'mine'",
    "DROP ROLE postgres",
    "REASSIGN OWNED BY postgres TO CURRENT_USER",
    "DROP OWNED BY postgres",
    "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO CURRENT_USER",
    "ALTER EXTENSION backfill ADD TABLE hostile.t",
    "ALTER EXTENSION backfill DROP TABLE backfill_internal.job",
    "DROP EXTENSION backfill CASCADE",
    "DROP SCHEMA backfill CASCADE",
    "ALTER SCHEMA backfill RENAME TO mine",
    "ALTER TABLE backfill_internal.job OWNER TO CURRENT_USER",
    "ALTER TABLE backfill_internal.checkpoint DISABLE TRIGGER ALL",
    "ALTER TABLE backfill_internal.job ADD CHECK (hostile.matches(1))",
    "ALTER FUNCTION backfill.pause(bigint) SECURITY DEFINER",
    "DROP FUNCTION backfill_internal.guard() CASCADE",
    "CREATE TRIGGER mine BEFORE INSERT ON backfill_internal.checkpoint FOR EACH ROW EXECUTE FUNCTION hostile.fire()",
    "CREATE RULE mine AS ON INSERT TO backfill_internal.checkpoint DO INSTEAD NOTHING",
    "CREATE POLICY mine ON backfill_internal.job",
    "CREATE INDEX ON backfill_internal.job (hostile.value(1))",
    "CREATE TABLE hostile.child () INHERITS (backfill_internal.job)",
    "CREATE OPERATOR backfill.= (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.equal)",
    "GRANT ALL ON backfill_internal.job TO CURRENT_USER",
    "LOCK TABLE backfill_internal.job IN ACCESS EXCLUSIVE MODE",
    "COPY backfill_internal.job TO STDOUT",
    "INSERT INTO backfill_internal.job SELECT * FROM backfill_internal.job",
    "UPDATE backfill_internal.slice SET relation = 'hostile.attacks'",
    "UPDATE backfill_internal.walk SET tables = ARRAY['hostile.attacks'::regclass]",
    "UPDATE backfill_internal.failed_row SET relation = 'hostile.attacks'",
    "DELETE FROM backfill.progress",
    "UPDATE backfill.events SET actor = 10",
    "SELECT nextval('backfill_internal.job_id_seq')",
    "SELECT setval('backfill_internal.job_id_seq', 1)",
    "SELECT backfill.define('private.secret', 'id = 1')",
    "CALL backfill.wait(1)",
    "SELECT pg_catalog.pg_extension_config_dump('backfill_internal.job', '')",
]
ATTACKS = ALLOWED + REFUSED

# As the owner makes them, but for `by_clause`, which he could not: a superuser gives it to him.
HOSTILE = r"""
CREATE SCHEMA hostile AUTHORIZATION {owner};
CREATE SCHEMA private; CREATE TABLE private.secret (id int);
CREATE TABLE hostile.attacks (attack text);
CREATE TABLE hostile.log (place text, attack text, who name, failed text);
GRANT SELECT ON hostile.attacks TO PUBLIC; GRANT ALL ON hostile.log TO {owner};
CREATE FUNCTION hostile.by_clause() RETURNS name LANGUAGE sql SET role = 'postgres' AS 'SELECT current_user';
ALTER FUNCTION hostile.by_clause() OWNER TO {owner};
SET ROLE {owner};
CREATE FUNCTION hostile.by_definer() RETURNS name LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN RESET ROLE; RESET SESSION AUTHORIZATION; RETURN current_user; END $$;
CREATE PROCEDURE hostile.by_procedure() LANGUAGE plpgsql AS $$ BEGIN COMMIT; RESET ROLE; END $$;
CREATE FUNCTION hostile.whoami() RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN
    BEGIN SET ROLE postgres; EXCEPTION WHEN OTHERS THEN NULL; END;
    IF current_user <> '{owner}' THEN RAISE LOG 'BREACH as %', current_user; END IF;
    RETURN current_user; END $$;
CREATE FUNCTION hostile.by_parallel_query() RETURNS name LANGUAGE plpgsql AS $$
    DECLARE who name; BEGIN
        PERFORM set_config(name, 'on', true) FROM pg_settings
        WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
        SELECT hostile.whoami() INTO who FROM pg_class LIMIT 1; RETURN who; END $$;
CREATE FUNCTION hostile.attack(place text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE attack text; BEGIN
    INSERT INTO hostile.log VALUES (place, 'as it comes', current_user);
    IF (SELECT count(*) FROM hostile.log l WHERE l.place = attack.place) > 1 THEN RETURN; END IF;
    FOR attack IN SELECT a.attack FROM hostile.attacks a LOOP
        BEGIN
            EXECUTE attack;
            INSERT INTO hostile.log VALUES (place, attack, current_user);
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO hostile.log VALUES (place, attack, current_user, SQLERRM);
        END;
    END LOOP; END $$;
CREATE FUNCTION hostile.fire() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS
    $$ BEGIN PERFORM hostile.attack(TG_ARGV[0]); RETURN NEW; END $$;
CREATE FUNCTION hostile.fire_later() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
    -- A held cursor is run to its end while the transaction commits.
    EXECUTE format('DECLARE %I CURSOR WITH HOLD FOR SELECT hostile.attack(''held cursor'')', 'c' || clock_timestamp());
    RETURN NEW; END $$;
CREATE FUNCTION hostile.value(n int) RETURNS int LANGUAGE plpgsql SET search_path = pg_catalog AS
    $$ BEGIN PERFORM hostile.attack('set_clause'); RETURN n + 1; END $$;
CREATE FUNCTION hostile.matches(n int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN PERFORM hostile.attack('where_clause'); RETURN true; END $$;
CREATE FUNCTION hostile.constant() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM hostile.attack('constant'); RETURN true; END $$;
CREATE FUNCTION hostile.checked(v int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN PERFORM hostile.attack('domain'); RETURN true; END $$;
CREATE DOMAIN hostile.key AS int CHECK (hostile.checked(value));
CREATE TABLE hostile.t (id hostile.key PRIMARY KEY, n int DEFAULT 0);
INSERT INTO hostile.t SELECT generate_series(1, 30);
CREATE TRIGGER a BEFORE UPDATE ON hostile.t FOR EACH ROW EXECUTE FUNCTION hostile.fire('before row');
CREATE TRIGGER b AFTER UPDATE ON hostile.t FOR EACH STATEMENT EXECUTE FUNCTION hostile.fire('after statement');
CREATE TRIGGER c AFTER UPDATE ON hostile.t FOR EACH STATEMENT EXECUTE FUNCTION hostile.fire_later();
CREATE CONSTRAINT TRIGGER d AFTER UPDATE ON hostile.t DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION hostile.fire('deferred');
"""
# Operators and functions named like those that the extension's own statements use.
OPERATORS = ["=", "<>", "<", "<=", ">", ">=", "<<", "|", "||", "+", "-", "/", "*"]
TYPES = ["bigint", "integer", "text", "oid", "boolean", "float8", "text[]"]
PLACES = ["after statement", "before row", "deferred", "held cursor", "set_clause", "where_clause"]


def evil_operators() -> str:
    """Operators of the owner's that would be found first, were they looked for on his search_path."""
    made = []
    for number, kind in enumerate(TYPES):
        made.append(f"""CREATE FUNCTION hostile.op{number}({kind}, {kind}) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN PERFORM hostile.attack('operator'); RETURN true; END $$""")
        for operator in OPERATORS:
            made.append(f"""CREATE OPERATOR hostile.{operator}
                (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = hostile.op{number})""")
    for function in ("now()", "clock_timestamp()", "current_setting(text)", "to_json(text[])", "count(bigint)"):
        made.append(f"""CREATE FUNCTION hostile.{function} RETURNS text LANGUAGE plpgsql AS
            $$ BEGIN PERFORM hostile.attack('function'); RETURN ''; END $$""")
    return "; ".join(made)


class Scene:
    """The owner, the session that he comes by, and his objects."""

    def __init__(self, db: Database, owner: str, user: str, session: str) -> None:
        self.db, self.owner, self.user, self.session = db, owner, user, session

    def run(self, set_clause: str = "n = hostile.value(n)", where: str | None = None, path: str = "public") -> int:
        """Starts the job as the owner."""
        session = f"{self.session}; SET search_path = {path}"
        return start(self.db, "hostile.t", set_clause, where=where, batch=7, user=self.user, session=session)

    def add(self, ddl: str) -> None:
        """Has the owner make more objects. His code is called by some DDL already: not before they are there."""
        self.db.sql("TRUNCATE hostile.attacks")
        self.db.sql(f"SET ROLE {self.owner}; {ddl}")
        self.arm()

    def arm(self) -> None:
        """From now on his code attacks."""
        self.db.sql("INSERT INTO hostile.attacks SELECT * FROM unnest(%s::text[])", [ATTACKS])
        self.db.sql("TRUNCATE hostile.log")

    def assert_harmless(self, *places: str) -> None:
        """All attacks were made in these places, and all as the owner."""
        db = self.db
        assert db.sql("SELECT * FROM hostile.log WHERE who <> %s", [self.owner]) == []
        made = dict(db.sql("SELECT place, count(DISTINCT attack) FROM hostile.log GROUP BY place"))
        for place in places:
            assert made.get(place) == len(ATTACKS) + 1, f"not all attacks in {place}: {made}"
        worked = "SELECT place, attack FROM hostile.log WHERE failed IS NULL AND attack = ANY (%s)"
        left = db.sql(worked, [REFUSED])
        assert left == [], f"these worked: {left}"
        supers = db.sql("SELECT rolname FROM pg_roles WHERE rolsuper OR rolname = 'evil' ORDER BY 1")
        assert supers == [("postgres",)]
        assert db.value("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'")
        assert not db.value("SELECT pg_has_role(%s, 'pg_read_all_data', 'MEMBER')", [self.owner])
        log = db.cluster.log.read_text(errors="replace").splitlines()
        assert [line for line in log if "BREACH" in line and f"@{db.name} " in line] == []


OWNERS = {
    "login": ("mallory", "mallory", "SET application_name = 'x'"),
    "no login": ("cuckoo", "postgres", "SET ROLE cuckoo"),
}
# What an attack that succeeds leaves to the tests that come after it.
CLEAN = """
    DROP ROLE IF EXISTS evil; ALTER ROLE mallory NOSUPERUSER; ALTER ROLE cuckoo NOSUPERUSER;
    REVOKE pg_read_all_data FROM mallory, cuckoo; ALTER ROLE postgres PASSWORD NULL
"""
