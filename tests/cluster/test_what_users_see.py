"""What psql shows a user: what is in the schema backfill is for users, and documented; the rest is elsewhere."""

from __future__ import annotations

import os
import pty
import re
import select
import time
from collections.abc import Iterator

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, progress, start
from harness.server import REPOSITORY, clean_environment
from harness.tables import make_table

DENIED = psycopg.errors.InsufficientPrivilege
# Members of the extension: kind, schema, name.
MEMBERS = """
SELECT CASE d.classid WHEN 'pg_class'::regclass THEN c.relkind::text WHEN 'pg_proc'::regclass THEN 'routine'
                      WHEN 'pg_namespace'::regclass THEN 'schema' ELSE d.classid::regclass::text END,
       coalesce(c.relnamespace, p.pronamespace)::regnamespace::text, coalesce(c.relname, p.proname, n.nspname)::text
FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
LEFT JOIN pg_namespace n ON d.classid = 'pg_namespace'::regclass AND d.objid = n.oid
-- From 16 on row types are members of their own.
WHERE e.extname = 'backfill' AND d.deptype = 'e' AND d.classid <> 'pg_type'::regclass
"""
OWN = re.compile(r"\bbackfill\.(\w+)")


@pytest.fixture
def visitor(db: Database) -> Iterator[str]:
    """A role without any rights of its own."""
    db.sql("DO $$ BEGIN IF to_regrole('visitor') IS NULL THEN CREATE ROLE visitor LOGIN; END IF; END $$")
    yield "visitor"


def users(db: Database) -> dict[str, set[str]]:
    """The names in the schema backfill, by kind."""
    kinds: dict[str, set[str]] = {}
    for kind, schema, name in db.sql(MEMBERS):
        if schema == "backfill":
            kinds.setdefault(kind, set()).add(name)
    return kinds


def test_tables_are_in_a_schema_of_their_own(db: Database) -> None:
    """With their sequences, indexes and types; of backfill there are only views, functions and procedures."""
    members = db.sql(MEMBERS)
    assert ("schema", None, "backfill_internal") in members
    assert {kind for kind, schema, _ in members if schema == "backfill"} == {"routine", "v"}
    assert {kind for kind, schema, _ in members if schema == "backfill_internal"} == {"routine", "r", "S"}
    assert {schema for kind, schema, _ in members if kind != "schema"} == {"backfill", "backfill_internal"}
    # Nor is there anything else of which the extension does not know.
    stray = "SELECT relname FROM pg_class WHERE relnamespace = 'backfill'::regnamespace AND relkind <> 'v'"
    assert db.sql(stray) == []


def test_what_users_see_is_documented(db: Database) -> None:
    """docs/reference.md names each function, procedure and view of the schema backfill, and no other one."""
    text = (REPOSITORY / "docs" / "reference.md").read_text()
    section = text[text.index("## Calls and views") : text.index("## Options")]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == set().union(*users(db).values())


def test_internal_functions_say_so(db: Database) -> None:
    """In their comments, all of them and no others."""
    internal = db.sql(
        "SELECT pronamespace::regnamespace::text, proname::text FROM pg_proc"
        " WHERE pronamespace::regnamespace::text ~ '^backfill' AND obj_description(oid, 'pg_proc') LIKE 'Internal:%'"
    )
    routines = {(schema, name) for kind, schema, name in db.sql(MEMBERS) if kind == "routine"}
    assert set(internal) == {(schema, name) for schema, name in routines if schema == "backfill_internal"}


def test_what_psql_lists(db: Database, visitor: str) -> None:
    """By the commands for tables, views and functions, for a role without rights."""
    kinds = users(db)

    def listed(command: str) -> set[str]:
        lines = db.psql(command, user=visitor, options=["-At"]).stdout.splitlines()
        return {line.split("|")[1] for line in lines if line.startswith("backfill|")}

    assert listed(r"\dt backfill.*") == set() == listed(r"\ds backfill.*") == listed(r"\di backfill.*")
    assert listed(r"\dv backfill.*") == kinds["v"]
    assert listed(r"\df backfill.*") == kinds["routine"]
    everything = db.psql(r"\dx+ backfill", options=["-At"]).stdout
    assert set(OWN.findall(everything)) == kinds["v"] | kinds["routine"]


def test_nobody_has_a_way_in(db: Database, visitor: str) -> None:
    """Not by name, to a table or a function; what the views and the calls need works all the same."""
    make_table(db, 100)
    db.sql(f"GRANT ALL ON t TO {visitor}")
    job = start(db, "t", "n = 1 / (id - 50)", options={"max_failed_rows": 1}, user=visitor)
    complete(db, job)
    assert progress(db, job)["rows_failed"] == 1
    for view in sorted(users(db)["v"]):
        db.sql(f"SELECT * FROM backfill.{view}", user=visitor)
    assert db.value(f"SELECT state FROM backfill.status({job})", user=visitor) == "completed"
    assert db.value(f"SELECT backfill.report({job})", user=visitor)
    for statement in (
        "SELECT FROM backfill_internal.job",
        f"SELECT backfill_internal.visible_job({job})",
        "SELECT backfill_internal.state_of('run', 1, NULL, NULL, true, 'here')",
        f"SELECT backfill_internal.waiting_for('running', {job}, 0, 0, 100, 'here')",
        "CREATE TABLE backfill_internal.mine ()",
    ):
        with pytest.raises(DENIED, match="permission denied for schema backfill_internal"):
            db.sql(statement, user=visitor)
    assert not db.value("SELECT has_schema_privilege(%s, 'backfill_internal', 'USAGE, CREATE')", [visitor])


def test_a_table_of_the_extension_is_not_for_backfills(db: Database) -> None:
    """Of either schema."""
    with pytest.raises(psycopg.Error) as error:
        db.sql("SELECT backfill.start('backfill_internal.job', set_clause => 'sleep_ms = 1')")
    assert error.value.diag.message_hint


def test_it_goes_as_a_whole(db: Database) -> None:
    """DROP EXTENSION takes the schema of the tables along, so that it can be created again."""
    db.sql("DROP EXTENSION backfill")
    assert db.sql("SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^backfill'") == [("backfill",)]
    db.sql("CREATE EXTENSION backfill")
    make_table(db, 10)
    complete(db, start(db, "t", "n = 1"))


class Terminal:
    """psql at a terminal."""

    def __init__(self, db: Database) -> None:
        environment = {
            **clean_environment(),
            "TERM": "dumb",
            "INPUTRC": "/dev/null",
            "PAGER": "cat",
            "PSQL_HISTORY": "/dev/null",
        }
        program = db.cluster.server.program("psql")
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execve(program, [program, "-X", db.dsn()], environment)
        self.read()

    def read(self, seconds: float = 10) -> str:
        """What comes until nothing comes for a while."""
        text, end, quiet = "", time.monotonic() + seconds, 2.0
        while time.monotonic() < end:
            ready, _, _ = select.select([self._fd], [], [], quiet)
            if not ready:
                break
            try:
                text += os.read(self._fd, 65536).decode(errors="replace")
            except OSError:
                # It has ended.
                break
            quiet = 0.7
        return text

    def complete(self, text: str) -> str:
        """What two tabs after the text show; the line is thrown away."""
        os.write(self._fd, f"{text}\t\t".encode())
        shown = self.read()
        os.write(self._fd, b"\x15")
        self.read(1)
        return shown

    def close(self) -> None:
        """Ends it."""
        os.write(self._fd, b"\x15\\q\n")
        self.read(1)
        os.close(self._fd)
        os.waitpid(self._pid, 0)


def test_what_psql_completes(db: Database) -> None:
    """Two tabs after the schema's name: what may stand there for a user, and nothing of ours that may not."""
    kinds = users(db)
    terminal = Terminal(db)
    try:
        if "pg_stat_activity" not in terminal.complete("SELECT * FROM pg_catalog.pg_stat_activit"):
            pytest.skip("this psql completes nothing")
        for text, wanted in {
            "SELECT * FROM backfill.": kinds["v"],
            "CALL backfill.": {"wait", "set_not_null"},
            "DROP FUNCTION backfill.": kinds["routine"] - {"wait", "set_not_null"},
        }.items():
            shown = terminal.complete(text)
            assert set(OWN.findall(shown)) >= wanted, (text, shown)
            assert set(OWN.findall(shown)) - {""} <= wanted, (text, shown)
    finally:
        terminal.close()
