"""Versions of the extension: an old one to come from, and everything that a database has of it, as text."""

from __future__ import annotations

import os
from pathlib import Path

from harness.database import Database
from harness.server import REPOSITORY, Server

OLD = REPOSITORY / "tests" / "upgrade"

MEMBERS = """
WITH member AS (
    SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS what
    FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE e.extname = 'backfill' AND d.deptype = 'e'
), relation AS (
    SELECT c.*, c.oid::regclass AS shown
    FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
), facts AS (
    SELECT 'version ' || extversion AS fact FROM pg_extension WHERE extname = 'backfill'
    UNION ALL SELECT 'member: ' || what FROM member
    UNION ALL SELECT format('schema: %s, %s, %s, %s', nspname, nspowner::regrole, nspacl,
            obj_description(oid, 'pg_namespace')) FROM pg_namespace WHERE nspname ~ '^backfill'
    UNION ALL SELECT format('%s: kind %s, %s, persistence %s, identity %s, rights %s, owner %s', shown, relkind,
            reloptions, relpersistence, relreplident, relacl, relowner::regrole) FROM relation
    UNION ALL SELECT format('%s.%s: %s%s%s%s%s%s', r.shown, a.attname, format_type(a.atttypid, a.atttypmod),
            CASE WHEN r.relkind = 'v' THEN ', column ' || a.attnum END,
            CASE WHEN a.attnotnull THEN ', not null' END, ', identity ' || nullif(a.attidentity::text, ''),
            ', default ' || pg_get_expr(d.adbin, d.adrelid), ', rights ' || a.attacl::text)
        FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
    UNION ALL SELECT format('%s: constraint %s: %s', r.shown, c.conname, pg_get_constraintdef(c.oid))
        FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid WHERE c.contype <> 'n'
    UNION ALL SELECT pg_get_indexdef(i.indexrelid) FROM relation r JOIN pg_index i ON i.indrelid = r.oid
    UNION ALL SELECT format('%s: trigger %s, %s', r.shown, t.tgenabled, pg_get_triggerdef(t.oid))
        FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid
    UNION ALL SELECT format(E'%s:\n%s', shown, pg_get_viewdef(oid)) FROM relation WHERE relkind = 'v'
    UNION ALL SELECT format('%s: sequence of %s, %s, %s', r.shown, s.seqtypid::regtype, s.seqstart, s.seqmax)
        FROM relation r JOIN pg_sequence s ON s.seqrelid = r.oid
    UNION ALL SELECT format(E'rights %s, owner %s:\n%s', p.proacl, p.proowner::regrole, pg_get_functiondef(p.oid))
        FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
    UNION ALL SELECT format('comment on %s: %s', pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description)
        FROM pg_description d JOIN member m ON m.classid = d.classoid AND m.objid = d.objoid
    UNION ALL SELECT format('rights that a dump leaves out, %s: %s',
            pg_describe_object(i.classoid, i.objoid, i.objsubid), i.initprivs)
        FROM pg_init_privs i JOIN member m ON m.classid = i.classoid AND m.objid = i.objoid
    UNION ALL SELECT format('in dumps: %s %s', c.id::regclass, c.condition)
        FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS c(id, condition) WHERE e.extname = 'backfill'
)
SELECT fact FROM facts ORDER BY fact COLLATE "C"
"""


# An old version's SQL refuses the library of today; here that is the only one there is.
SAME_VERSION = "IF backfill.library_version() <> wanted THEN"


def install_old(server: Server, version: str = "0.2.0") -> None:
    """Lets `CREATE EXTENSION backfill VERSION …` find an old version's SQL; scripts/install takes it away again."""
    name = f"backfill--{version}.sql"
    folder = Path(server.ask("--sharedir")) / "extension"
    partial = folder / f"{name}.{os.getpid()}"
    script = (OLD / name).read_text()
    assert SAME_VERSION in script, f"{name} does not ask for the library's version"
    partial.write_text(script.replace(SAME_VERSION, "IF false THEN"))
    partial.chmod(0o644)
    partial.rename(folder / name)


def inventory(db: Database) -> list[str]:
    """All that the database has of the extension, one line or more a fact; the order of a table's columns is none."""
    facts: list[str] = [fact for (fact,) in db.sql(MEMBERS)]
    return "\n".join(facts).splitlines()
