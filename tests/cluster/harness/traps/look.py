"""What could have been gained by a call, in the server, or left by it, in the caller's session."""

from __future__ import annotations

from typing import Any

import psycopg

from harness.traps.spring import OWNER

# Of the whole server. What the owner makes of its own (large objects, tables) is its own affair.
WORLD = f"""
SELECT 'role', rolname::text, concat_ws(',', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
    rolreplication, rolbypassrls, rolpassword, rolvaliduntil) FROM pg_authid
UNION ALL SELECT 'member of ' || roleid::regrole, member::regrole::text, admin_option::text FROM pg_auth_members
UNION ALL SELECT 'rights on database', datname, concat(datacl, datdba::regrole) FROM pg_database
UNION ALL SELECT 'rights on schema', nspname, concat(nspacl, nspowner::regrole) FROM pg_namespace
    WHERE nspname !~ '^pg_(temp|toast)'
UNION ALL SELECT 'rights on relation', oid::regclass::text, concat(relacl, relowner::regrole) FROM pg_class
    WHERE relnamespace::regnamespace::text ~ '^backfill' OR relacl IS NOT NULL AND relnamespace <> 'trap'::regnamespace
UNION ALL SELECT 'rights on function', oid::regprocedure::text, concat(proacl, proowner::regrole, prosecdef)
    FROM pg_proc WHERE pronamespace::regnamespace::text ~ '^backfill'
    OR (proacl IS NOT NULL OR prosecdef) AND proowner <> '{OWNER}'::regrole
UNION ALL SELECT 'rights on parameter', parname, paracl::text FROM pg_parameter_acl
UNION ALL SELECT 'default rights', oid::text, defaclacl::text FROM pg_default_acl
UNION ALL SELECT 'settings of', concat(setdatabase, '/', setrole), setconfig::text FROM pg_db_role_setting
UNION ALL SELECT 'event trigger', evtname, evtenabled::text FROM pg_event_trigger
UNION ALL SELECT 'extension', extname, concat(extowner::regrole, extversion) FROM pg_extension
UNION ALL SELECT 'guard', tgrelid::regclass::text || '.' || tgname, tgenabled::text FROM pg_trigger
    WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace::regnamespace::text ~ '^backfill')
UNION ALL SELECT 'large object of', lomowner::regrole::text, 'some' FROM pg_largeobject_metadata
    WHERE lomowner <> '{OWNER}'::regrole
UNION ALL SELECT 'language', lanname, lanacl::text FROM pg_language
UNION ALL SELECT 'ALTER SYSTEM', '', pg_read_file('postgresql.auto.conf')
"""
# Of the session. Names are qualified: the path may be another by now, and temporary tables come first on any.
SESSION = """
SELECT 'prepared statement', name::text, statement FROM pg_catalog.pg_prepared_statements
UNION ALL SELECT 'cursor', name, statement FROM pg_catalog.pg_cursors WHERE name <> ''
UNION ALL SELECT 'temporary relation', relname::text, '' FROM pg_catalog.pg_class
    WHERE relnamespace = pg_catalog.pg_my_temp_schema()
UNION ALL SELECT 'temporary function', proname::text, '' FROM pg_catalog.pg_proc
    WHERE pronamespace = pg_catalog.pg_my_temp_schema()
UNION ALL SELECT 'temporary type', typname::text, '' FROM pg_catalog.pg_type
    WHERE typnamespace = pg_catalog.pg_my_temp_schema()
UNION ALL SELECT 'channel', pg_catalog.pg_listening_channels(), ''
UNION ALL SELECT 'lock', pg_catalog.concat(classid, '/', objid, '/', objsubid), mode FROM pg_catalog.pg_locks
    WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'advisory'
UNION ALL SELECT 'setting', name, setting FROM pg_catalog.pg_settings
UNION ALL SELECT 'setting', 'trap.mine', pg_catalog.current_setting('trap.mine', true)
UNION ALL SELECT 'setting', 'trap.sprung', pg_catalog.current_setting('trap.sprung', true)
UNION ALL SELECT 'setting', 'trap.path', pg_catalog.current_setting('trap.path', true)
UNION ALL SELECT 'user', current_user::text, session_user::text
"""
State = frozenset[tuple[Any, ...]]


class Look:
    """What a query has shown before, and what is different now. As long as nothing is, a hash is all that is sent."""

    def __init__(self, connection: psycopg.Connection, query: str) -> None:
        self._connection, self._query = connection, query
        self._hash = f"SELECT pg_catalog.sum(pg_catalog.hashtextextended(seen::text, 0)) FROM ({query}) AS seen"
        self.again()

    def again(self) -> None:
        """Takes what is there now for what is right."""
        self._state, self._sum = self._rows(), self._connection.execute(self._hash).fetchone()

    def differences(self) -> list[str]:
        """What has come and what has gone."""
        if self._connection.execute(self._hash).fetchone() == self._sum:
            return []
        return differences(self._state, self._rows())

    def _rows(self) -> State:
        return frozenset(self._connection.execute(self._query).fetchall())


def differences(before: State, after: State) -> list[str]:
    """What has come and what has gone, for people."""
    came = [f"{kind} {name} = {value!s:.80}" for kind, name, value in sorted(after - before, key=str)]
    gone = [f"no more: {kind} {name} = {value!s:.80}" for kind, name, value in sorted(before - after, key=str)]
    return came + gone
