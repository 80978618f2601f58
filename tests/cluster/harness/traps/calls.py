"""Every call that there is, as the catalog has it: functions, procedures, views, and each option.

Nothing is listed here but how an argument of a name or a type is made; what is not known gets a value of its type.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from harness.database import Database
from harness.traps.states import Job

ROUTINES = """
SELECT p.pronamespace::regnamespace::text, p.proname, p.prokind = 'p', coalesce(p.pronargdefaults, 0),
       (SELECT coalesce(json_agg(json_build_array(p.proargnames[a.at], format_type(a.kind, NULL)) ORDER BY a.at), '[]')
        FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY a (kind, at)
        WHERE p.proargmodes IS NULL OR p.proargmodes[a.at] IN ('i', 'b', 'v'))
FROM pg_proc p WHERE p.pronamespace::regnamespace::text ~ '^backfill' ORDER BY p.proname, p.oid
"""
VIEWS = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'backfill'::regnamespace AND relkind IN ('v', 'm') ORDER BY 1"
)
OWN_TABLE = "'neutral.t'"
# By the name of a parameter, the ordinary value first; else by its type.
BY_NAME = {
    "check_clause": ("'n > 0'", "'n = trap.number(''the check clause'', 1)'"),
    "format": ("'json'", "'text'", "'html'", "'markdown'", "'rows'"),
    "style": ("'standalone'", "'batch'"),
    "column_name": ("'n'",),
    "source": (OWN_TABLE,),
    "target": ("'neutral.gone'", "'trap.t'"),
    "columns": ("'n'",),
    "select_list": ("'n'",),
    "on_conflict": ("'nothing'",),
    "statement": ("'SELECT n FROM batch'",),
    "timeout_ms": ("1",),
}
BY_TYPE = {
    "bigint": ("5",),
    "integer": ("5",),
    "text": ("'x'",),
    "name": ("'x'",),
    "boolean": ("true", "false"),
    "jsonb": ("'{}'",),
    "double precision": ("1",),
    "regclass": ("'trap.t'",),
}
# Without it a call may wait for ever.
ALWAYS = ("timeout_ms",)
# Text that the caller gives is the caller's own: a definition of theirs is made on a table of theirs.
OWN_TEXT = ("set_clause", "where_clause", "statement")
# What an option may be is found out by trying these.
CANDIDATES = (
    "true", "1", "2", '"1MB"', '"10s"', '"2"', '["x"]', '"SELECT false"', '"SELECT 1"', '"physical"', '"key"', '"auto"',
    '"waves"', '"sequential"', '"skip"', '"wait"', '"fire"', '"t_pkey"', '"22:00-06:00 UTC"', '{"work_mem": "1MB"}',
    '"complete"',
)  # fmt: skip
# Options that are not for every call.
OF_OTHERS = {
    "archive_into": ('"neutral.gone"', '"trap.t"'),
    "lock": ('"none"', '"update"'),
    "from": ('"neutral.gone r"', '"trap.t r"'),
}


@dataclass(frozen=True)
class Routine:
    """A function or procedure: its parameters with their types, the last of which have defaults."""

    schema: str
    name: str
    procedure: bool
    parameters: tuple[tuple[str, str], ...]
    defaults: int


@dataclass(frozen=True)
class Call:
    """A statement, and what it is about."""

    about: str
    statement: str
    block: bool = True
    # Who makes it; None: everybody.
    caller: str | None = None


def routines(db: Database) -> list[Routine]:
    """All of them."""
    rows = db.sql(ROUTINES)
    return [
        Routine(schema, name, procedure, tuple((arg or "", kind) for arg, kind in arguments), defaults)
        for schema, name, procedure, defaults, arguments in rows
    ]


def views(db: Database) -> list[str]:
    """All of them."""
    return [name for (name,) in db.sql(VIEWS)]


def options(connection: psycopg.Connection) -> dict[str, list[str]]:
    """The options that the extension says it knows, and what it takes for each."""
    plan = "SELECT count(*) FROM backfill.plan('neutral.t', set_clause => 'n = 1', options => %s)"
    with pytest.raises(psycopg.Error) as error:
        connection.execute(plan, ['{"no such option at all": 1}'])
    known = re.search(r"Known options: (.*)\.", error.value.diag.message_hint or "")
    assert known, error.value
    found: dict[str, list[str]] = {}
    for name in known.group(1).split(", "):
        found[name] = []
        for value in CANDIDATES:
            with contextlib.suppress(psycopg.Error):
                connection.execute(plan, [f"{{{json.dumps(name)}: {value}}}"])
                found[name].append(value)
        found[name] += OF_OTHERS.get(name, ())
        assert found[name], f"no value for option {name} is among those that are tried"
    return found


class Calls:
    """All calls that are about a job."""

    def __init__(self, db: Database) -> None:
        self.routines, self.views, self.options = routines(db), views(db), options(db.connect())

    def about(self, job: Job, *, every_option: bool) -> list[Call]:
        """Each routine in each of its forms, and each view; without `every_option` one call with several."""
        return [*self._looks(), *self._calls(job, every_option)]

    def _looks(self) -> Iterator[Call]:
        for view in self.views:
            yield Call(view, f"SELECT v::text FROM backfill.{view} v")

    def _calls(self, job: Job, every_option: bool) -> Iterator[Call]:
        for routine in self.routines:
            for arguments in self._forms(routine, job, every_option):
                shown = ", ".join(f'"{name}" => {value}' if name else value for name, value in arguments)
                given = f"{routine.schema}.{routine.name}({shown})"
                verb = "CALL" if routine.procedure else "SELECT * FROM"
                yield Call(routine.name, f"{verb} {given}", not routine.procedure)
            if routine.name == "copy":
                theirs = f"SELECT * FROM backfill.copy({OWN_TABLE}, '{job.table}')"
                yield Call(routine.name, theirs, caller="postgres")
                theirs = f"SELECT * FROM backfill.copy('{job.table}', 'neutral.gone')"
                yield Call(routine.name, theirs, caller="postgres")
            # A superuser's own text on the owner's table: indexes and constraints of that are the owner's text.
            if {"relation", "set_clause"} <= {name for name, _ in routine.parameters}:
                theirs = f"SELECT * FROM backfill.{routine.name}(relation => '{job.table}', set_clause => 'n = 1')"
                yield Call(routine.name, theirs, caller="postgres")

    def _forms(self, routine: Routine, job: Job, every_option: bool) -> Iterator[list[tuple[str, str]]]:
        required = routine.parameters[: len(routine.parameters) - routine.defaults]
        optional = routine.parameters[len(required) :]
        own = any(name in OWN_TEXT for name, _ in required)
        always = [parameter for parameter in optional if parameter[0] in ALWAYS]
        by_name = routine.parameters[:1] == (("name", "text"),) and routine.name != "require_completed"
        least = [(name, self._values(name, kind, job, own, by_name)[0]) for name, kind in (*required, *always)]
        yield least
        # A definition is found by its name, too.
        names = [] if own else [("name", _quoted(job.name)) for name, _ in optional if name == "name"]
        if names:
            yield least + names
        base = least + names
        # Given to a job, it is looked at together with what the job has.
        about_job = by_name or any(name == "job_id" for name, _ in required)
        for name, kind in optional:
            if (name in OWN_TEXT and not about_job) or name in ALWAYS or name == "name":
                continue
            for value in self._values(name, kind, job, own):
                yield [*base, (name, value)]
            if name == "options":
                for document in self._documents(job, every_option):
                    yield [*base, (name, document)]

    def _values(self, name: str, kind: str, job: Job, own: bool, by_name: bool = False) -> tuple[str, ...]:
        if name == "job_id":
            return (str(job.id),)
        if name == "relation":
            return (OWN_TABLE if own else f"'{job.table}'",)
        if name == "name":
            # Where it stands for a job, the caller may have one of the same name, of an earlier call.
            return (_quoted(f"{job.table.split('.')[0]}.{job.name}" if by_name else job.name),)
        if name in OWN_TEXT:
            return ("'n = 1'",)
        return BY_NAME.get(name) or BY_TYPE.get(kind) or (f"NULL::{kind}",)

    def _documents(self, job: Job, every_option: bool) -> Iterator[str]:
        if every_option:
            for name, values in self.options.items():
                for value in [*values, *(job.kind.keys if name.startswith("key_") else ())]:
                    yield _quoted(f"{{{json.dumps(name)}: {value}}}")
        else:
            key = (job.kind.keys or ("2",))[0]
            yield _quoted(f'{{"key_from": {key}, "max_active_backends": 1000}}')


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
