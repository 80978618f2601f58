"""The code in every trap: it says in the server's log where it ran, seizes what it can, and leaves what it can.

The log survives what the caller rolls back, is written in read-only transactions too, and a trap can't take it back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.cluster import Cluster

OWNER = "trapper"
# Run as a superuser, once for the roles and once in each database.
ROLES = f"""
DO $do$ BEGIN
    IF to_regrole('{OWNER}') IS NULL THEN
        CREATE ROLE {OWNER} LOGIN; CREATE ROLE ally LOGIN IN ROLE {OWNER};
        CREATE ROLE overseer LOGIN IN ROLE pg_monitor; CREATE ROLE outsider LOGIN;
    END IF;
    IF to_regrole('proprietor') IS NULL THEN CREATE ROLE proprietor LOGIN; END IF;
END $do$
"""
# What undoes a success, for the tests that follow.
CLEAN = f"""
    DROP ROLE IF EXISTS evil; ALTER ROLE {OWNER} NOSUPERUSER NOCREATEROLE; REVOKE pg_read_all_data FROM {OWNER};
    REVOKE ally FROM {OWNER}
"""
# What a session could keep, although the transaction that did it is rolled back; each is tried by itself.
REMAINS = {
    "prepared statement": "DEALLOCATE driver; PREPARE driver AS SELECT trap.spring('a prepared statement')",
    "another prepared statement": "PREPARE mine AS SELECT trap.spring('a prepared statement')",
    "held cursor": "DECLARE mine CURSOR WITH HOLD FOR SELECT trap.spring('a held cursor')",
    "deferred trigger": "INSERT INTO trap.queue DEFAULT VALUES",
    "temporary table": "CREATE TEMP TABLE pg_class (oid oid)",
    "temporary function": "CREATE FUNCTION pg_temp.version() RETURNS text LANGUAGE sql AS 'SELECT ''mine'''",
    "setting": "SELECT set_config('search_path', 'trap, pg_catalog', false)",
    "setting of its own": "SELECT set_config('trap.mine', 'left', false)",
    "application_name": "SELECT set_config('application_name', 'mine', false)",
    "advisory lock": "SELECT pg_try_advisory_lock(666, 666)",
    "LISTEN": "LISTEN mine",
    "sequence": "SELECT nextval('trap.number')",
    "large object": "SELECT lo_create(0)",
    "role": "SET SESSION AUTHORIZATION DEFAULT; SET ROLE none",
}
# What whoever is more than the owner could give it.
SEIZES = [
    f"ALTER ROLE {OWNER} SUPERUSER",
    f"GRANT pg_read_all_data TO {OWNER}",
    "CREATE ROLE evil SUPERUSER",
    f"GRANT ally TO {OWNER}",
    f"RESET ROLE; ALTER ROLE {OWNER} SUPERUSER",
    f"RESET SESSION AUTHORIZATION; SET ROLE none; ALTER ROLE {OWNER} SUPERUSER",
]
SPRING = f"""
GRANT CREATE ON DATABASE {{database}} TO {OWNER};
SET ROLE {OWNER};
CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
CREATE SEQUENCE trap.number;
CREATE TABLE trap.remains (what text, statement text);
CREATE TABLE trap.seizes (statement text);
CREATE TABLE trap.queue (place text DEFAULT 'a deferred trigger');
GRANT ALL ON ALL TABLES IN SCHEMA trap TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA trap TO PUBLIC;
CREATE FUNCTION trap.attempt(statement text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
CREATE FUNCTION trap.spring(place text) RETURNS void LANGUAGE plpgsql AS $$ DECLARE
    what record; sprung text := pg_catalog.concat(pg_catalog.current_setting('trap.sprung', true), '/');
BEGIN
    -- Once in a transaction is enough, and keeps a trap from calling itself for ever.
    IF pg_catalog.strpos(sprung, pg_catalog.concat('/', place, '/')) OPERATOR(pg_catalog.>) 0 THEN RETURN; END IF;
    RAISE LOG 'TRAP "%" as % of %', place, current_user, session_user;
    PERFORM pg_catalog.set_config('trap.sprung', pg_catalog.concat(sprung, place), true);
    FOR what IN SELECT * FROM trap.remains LOOP PERFORM trap.attempt(what.statement); END LOOP;
    IF current_user OPERATOR(pg_catalog.<>) '{OWNER}' OR session_user OPERATOR(pg_catalog.<>) '{OWNER}' THEN
        FOR what IN SELECT * FROM trap.seizes LOOP
            IF trap.attempt(what.statement) OPERATOR(pg_catalog.=) 'done' THEN
                RAISE LOG 'TRAP SEIZED by "%": %', place, what.statement;
            END IF;
        END LOOP;
    END IF;
END $$;
CREATE FUNCTION trap.deferred() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM trap.spring(NEW.place); RETURN NEW; END $$;
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON trap.queue DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION trap.deferred();
-- Called when a statement is planned, as its arguments are constants.
CREATE FUNCTION trap.constant(place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM trap.spring(place); RETURN true; END $$;
CREATE FUNCTION trap.stable(place text) RETURNS boolean LANGUAGE plpgsql STABLE AS
    $$ BEGIN PERFORM trap.spring(place); RETURN true; END $$;
CREATE FUNCTION trap.volatile(place text) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN PERFORM trap.spring(place); RETURN true; END $$;
-- A domain is checked when a text is read as one, so while a statement is analysed.
CREATE DOMAIN trap.dom AS int CHECK (trap.volatile('the CHECK of a domain'));
CREATE TYPE trap.pair AS (a trap.dom, b int)
"""
SPRUNG = re.compile(r'\[(\d+)\].*LOG:  TRAP "([^"]*)" as (\S+) of (\S+)')
SEIZED = re.compile(r'LOG:  TRAP SEIZED by "([^"]*)": (.*)')


@dataclass(frozen=True)
class Sprung:
    """A trap that was sprung: where, as whom, in whose session, in which process."""

    place: str
    user: str
    session: str
    pid: int


class Watch:
    """The server's log since the last look at it."""

    def __init__(self, cluster: Cluster) -> None:
        self._log = cluster.log
        self._read = cluster.log.stat().st_size

    def look(self) -> tuple[list[Sprung], list[str]]:
        """The traps that were sprung since, and what they have seized."""
        with self._log.open(errors="replace") as log:
            log.seek(self._read)
            lines = log.read()
            self._read = log.tell()
        sprung = [Sprung(place, user, session, int(pid)) for pid, place, user, session in SPRUNG.findall(lines)]
        seized = [f"{statement} (by {place})" for place, statement in SEIZED.findall(lines)]
        return sprung, seized


def arm(db) -> None:
    """From now on the traps do harm. Before, they only say that they were sprung: DDL of the owner's calls some."""
    db.sql("INSERT INTO trap.remains SELECT * FROM unnest(%s::text[], %s::text[])", [[*REMAINS], [*REMAINS.values()]])
    db.sql("INSERT INTO trap.seizes SELECT * FROM unnest(%s::text[])", [SEIZES])


def lay(db) -> None:
    """The roles, and the schema of the owner with the spring."""
    db.sql(ROLES)
    db.sql(SPRING.format(database=db.name))
