"""Names and texts that somebody else reads, pastes or logs: they are shown, never obeyed."""

from __future__ import annotations

import re

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress, start

ESCAPES = "\x1b]0;owned\x07\x1b[2J"


def ident(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def make(db: Database, name: str) -> str:
    """A table of that name; gives it as SQL."""
    db.sql(f"CREATE TABLE {ident(name)} (id int PRIMARY KEY, n int DEFAULT 0)")
    db.sql(f"INSERT INTO {ident(name)} SELECT generate_series(1, 30)")
    return ident(name)


@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\x1b", "\x07", "\x7f", "\x85"])
@pytest.mark.parametrize("call", ["define", "start"])
def test_a_job_s_name_is_one_line_of_text(db: Database, call: str, character: str) -> None:
    """It is put into notices, errors and log lines, where psql and the log show it as it is."""
    make(db, "t")
    with pytest.raises(psycopg.errors.InvalidName, match="control character") as error:
        db.sql(f"SELECT backfill.{call}('t', set_clause => 'n = 1', name => %s)", [f"a{character}b"])
    assert character not in str(error.value.diag.message_primary) and error.value.diag.message_hint
    assert db.sql("SELECT * FROM backfill.progress") == []


@pytest.mark.parametrize("name", [f"x{ESCAPES}", "x\n2026-01-01 00:00:00 UTC FATAL:  forged", "x\r\nLOG:  forged"])
def test_a_table_s_name_forges_no_line_of_the_log(db: Database, name: str) -> None:
    """PostgreSQL indents what follows a line feed; and the process has one line in pg_stat_activity."""
    table = make(db, name)
    job = start(db, table, "n = 1 / (id - 30)", batch=7)
    assert "division by zero" in fail(db, job)
    forged = [
        line for line in db.cluster.log.read_text(errors="replace").split("\n") if re.match(r"(2026-01|LOG:)", line)
    ]
    assert forged == []
    labels = db.sql("SELECT application_name FROM pg_stat_activity WHERE application_name ~ '[[:cntrl:]]'")
    assert labels == []
    shown = db.psql("SELECT relation, last_error FROM backfill.progress").stdout
    assert "\x1b" not in shown, "psql shows escapes, not their effect"


def test_an_error_s_text_forges_no_line_of_the_log(db: Database) -> None:
    """Nor any other outcome of the job: what a trigger raises is kept as text."""
    table = make(db, "t")
    db.sql(r"""
        CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE E'no\nLOG:  backfill job 1 completed' USING ERRCODE = '22000',
                DETAIL = E'\nHINT: SELECT backfill.forget(1)', HINT = E'x\n\x1b[2J%s%n', CONSTRAINT = E'c\n';
        END $$;
        CREATE TRIGGER raise BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION raise()
    """)
    error = fail(db, start(db, table, "n = 1"))
    assert error.startswith("no\nLOG:  backfill job 1 completed (SQLSTATE 22000)")
    lines = db.cluster.log.read_text(errors="replace").split("\n")
    assert [line for line in lines if line.startswith("LOG:  backfill job 1 completed")] == []


def test_hints_can_be_pasted_whatever_the_names(db: Database) -> None:
    """A quote in a name ends no literal in a statement that a hint proposes."""
    name = "x'); DROP TABLE keep; --"
    table = make(db, name)
    db.sql("CREATE TABLE keep ()")
    first = db.value("SELECT backfill.define(%s::regclass, 'n = 1', name => %s)", [table, "o'clock"])
    db.sql("SELECT backfill.define(%s::regclass, 'n = 2')", [table])
    literal = db.value("SELECT quote_literal('public.' || quote_ident(%s))", [name])
    hints = []
    for call in (f"SELECT backfill.start({psql_literal(table)})", f"SELECT backfill.pause({first})"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
            db.sql(call)
        hints.append(error.value.diag.message_hint)
        assert literal in hints[-1], hints[-1]
    # The last one is a whole statement.
    proposed = hints[1][hints[1].index("SELECT") :].rstrip(".")
    assert db.value(proposed) == first
    complete(db, first)
    assert db.value("SELECT to_regclass('keep') IS NOT NULL")


def psql_literal(text: str) -> str:
    """The text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def test_a_proposed_grant_survives_percent_signs(db: Database) -> None:
    """The statement for many partitions is a format string, in which column and role are text."""
    column, role = "50%s off'", '%I "%1$s" o\'clock'
    db.sql(
        f"DO $do$ BEGIN CREATE ROLE {ident(role)}; EXCEPTION WHEN duplicate_object THEN NULL; END $do$".replace(
            "%", "%%"
        ),
        [],
    )
    col = ident(column)
    db.sql(f"CREATE TABLE parts (id int PRIMARY KEY, {col} int) PARTITION BY RANGE (id)".replace("%", "%%"), [])
    for number in range(21):
        db.sql(f"CREATE TABLE part_{number} PARTITION OF parts FOR VALUES FROM ({number}) TO ({number + 1})")
    db.sql("INSERT INTO parts SELECT generate_series(0, 20)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
        start(db, "parts", f"{col} = 1", session=f"SET ROLE {ident(role)}")
    hint = error.value.diag.message_hint
    assert hint is not None
    statement = hint[hint.index("SELECT format") :]
    db.psql(statement + "\n")
    complete(db, start(db, "parts", f"{col} = 1", session=f"SET ROLE {ident(role)}"))
    assert db.sql("SELECT count(*) FROM parts p WHERE to_jsonb(p) ->> %s = '1'", [column]) == [(21,)]
    db.sql(f"DROP OWNED BY {ident(role)}".replace("%", "%%"), [])


def test_a_definition_cannot_look_like_another_job(db: Database) -> None:
    """Clauses with line feeds and escapes are shown as text of their own column."""
    table = make(db, "t")
    db.sql("ALTER TABLE t ADD note text")
    clause = f"note = '{ESCAPES}\n| 2 | all done | completed'"
    job = start(db, table, clause)
    complete(db, job)
    assert progress(db, job)["set_clause"] == clause
    shown = db.psql("\\pset border 2\nSELECT job_id, set_clause FROM backfill.progress").stdout
    assert "\x1b" not in shown and "\x07" not in shown
    assert [line for line in shown.splitlines() if line.startswith("| 2 |")] == []
