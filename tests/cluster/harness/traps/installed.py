"""What an installation leaves to others: rights on the extension's objects, triggers that don't fire."""

from __future__ import annotations

from harness.database import Database

# All may look through the views and call functions, those of the schema backfill by name; nobody has anything beside
# that, or may hand it on.
RIGHTS = """
WITH object AS (
    SELECT c.oid::regclass::text AS name, c.relkind::text AS kind, c.relowner AS owner, c.relacl AS acl
    FROM pg_class c WHERE c.relnamespace::regnamespace::text ~ '^backfill'
    UNION ALL SELECT p.oid::regprocedure::text, 'f', p.proowner, p.proacl FROM pg_proc p
    WHERE p.pronamespace::regnamespace::text ~ '^backfill'
    UNION ALL SELECT t.oid::regtype::text, 't', t.typowner, t.typacl FROM pg_type t
    WHERE t.typnamespace::regnamespace::text ~ '^backfill'
    UNION ALL SELECT nspname, 'n', nspowner, nspacl FROM pg_namespace WHERE nspname ~ '^backfill'
    UNION ALL SELECT concat(c.oid::regclass, '.', a.attname), 'a', c.relowner, a.attacl
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace::regnamespace::text ~ '^backfill'
)
SELECT format('%s on %s for %s', a.privilege_type, o.name, coalesce(r.rolname, 'PUBLIC'))
FROM object o CROSS JOIN LATERAL aclexplode(o.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE a.grantee <> o.owner
  AND (a.is_grantable OR NOT CASE o.kind
       WHEN 'v' THEN a.privilege_type = 'SELECT' WHEN 'f' THEN a.privilege_type = 'EXECUTE'
       WHEN 't' THEN a.privilege_type = 'USAGE' WHEN 'n' THEN a.privilege_type = 'USAGE' AND o.name = 'backfill'
       ELSE false END)
ORDER BY 1
"""
# Of tables: triggers that others have made, and the lack of one that fires whatever session_replication_role says.
TRIGGERS = """
SELECT format('trigger %s on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE c.relnamespace::regnamespace::text ~ '^backfill' AND NOT t.tgisinternal
  AND p.pronamespace <> 'backfill_internal'::regnamespace
UNION ALL SELECT format('no guard of %s that always fires', c.oid::regclass) FROM pg_class c
WHERE c.relnamespace::regnamespace::text ~ '^backfill' AND c.relkind = 'r' AND NOT EXISTS (
    SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = c.oid AND t.tgenabled = 'A' AND p.proname = 'guard')
"""
KINDS = ("TABLES", "SEQUENCES", "FUNCTIONS", "TYPES", "SCHEMAS")


def grant_by_default(db: Database, role: str) -> None:
    """From now on whatever the superuser makes here is the role's to use, and to give away."""
    for kind in KINDS:
        db.sql(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO {role} WITH GRANT OPTION")


def grant_no_more(db: Database, role: str) -> None:
    """Takes that back; what it has given to objects stays."""
    for kind in KINDS:
        db.sql(f"ALTER DEFAULT PRIVILEGES REVOKE ALL ON {kind} FROM {role}")


def open_doors(db: Database) -> list[str]:
    """What somebody could come in by."""
    return [what for (what,) in db.sql(RIGHTS) + db.sql(TRIGGERS)]
