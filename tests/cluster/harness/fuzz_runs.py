"""Gives random clauses to `start`, and compares what the worker makes of them with one UPDATE."""

from __future__ import annotations

import collections
import json
import re
import time
from random import Random
from typing import Any

import psycopg

from harness.cluster import Cluster
from harness.database import Database
from harness.fuzz import Violation, Watch, judge, short, source
from harness.fuzz_clauses import COLUMNS, NAMES, WORLD, Clauses, make

# A table of each kind, and one in the schema `one` that the single UPDATE goes to.
VARIANTS = ("plain", "plain", "pair", "parts", "fired", "bare")
TABLES = f"""
CREATE TABLE rows_plain (id int PRIMARY KEY, {COLUMNS});
CREATE TABLE rows_fired (id int PRIMARY KEY, {COLUMNS});
CREATE TABLE rows_pair (id int, {COLUMNS}, PRIMARY KEY (nn, id));
CREATE TABLE rows_bare (id int, {COLUMNS});
CREATE TABLE rows_parts (id int PRIMARY KEY, {COLUMNS}) PARTITION BY HASH (id);
CREATE TABLE rows_parts_0 PARTITION OF rows_parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE rows_parts_1 PARTITION OF rows_parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER pass BEFORE UPDATE ON rows_fired FOR EACH ROW EXECUTE FUNCTION pass();
CREATE SCHEMA one;
CREATE TABLE one.rows_plain (LIKE rows_plain INCLUDING ALL);
CREATE TABLE one.rows_fired (LIKE rows_fired INCLUDING ALL);
CREATE TABLE one.rows_pair (LIKE rows_pair INCLUDING ALL);
CREATE TABLE one.rows_bare (LIKE rows_bare INCLUDING ALL);
CREATE TABLE one.rows_parts (LIKE rows_parts INCLUDING ALL);
"""
# Refused for what a walk cannot do, or because a clause has more in it than it may: the one UPDATE can still work.
OWN_REFUSALS = re.compile(
    r"contains (a comment|a semicolon|a zero byte|an unclosed|an unbalanced)"
    r"|must be one |is empty$|which is part of the key"
    r"|cannot be walked|has no key to walk it by|decides in which partition"
)
SQLSTATE = re.compile(r"\(SQLSTATE (\w{5})\)")
# Of a row's data. Others are of what the clauses say, and `start` could have found them.
OF_DATA = re.compile(r"^(2[0-24]|23|38|39|P0|54)")
TIMEOUT = 60
# What the single UPDATE comes to, row by row: those that fail are left as they are.
ROW_BY_ROW = """
DO $fuzz$ DECLARE one int; failed int := 0; BEGIN
    FOR one IN SELECT id FROM one.{table} LOOP
        BEGIN EXECUTE format($clause${update}$clause$, one); EXCEPTION WHEN OTHERS THEN failed := failed + 1; END;
    END LOOP;
    PERFORM set_config('fuzz.failed', failed::text, false);
END $fuzz$
"""


class ClauseRuns:
    """A database, its tables, and the runs of clauses in it."""

    def __init__(self, cluster: Cluster, seed: int, name: str = "clauses") -> None:
        self.seed = seed
        self.watch = Watch(cluster)
        self.counts: collections.Counter[str] = collections.Counter()
        self.refusals: collections.Counter[str] = collections.Counter()
        cluster.sql(f"CREATE DATABASE {name}")
        self.db: Database = cluster.database(name)
        self.db.sql("CREATE EXTENSION backfill")
        self.db.sql("DO $$ BEGIN CREATE ROLE clara LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        self.db.sql(f"ALTER DATABASE {name} OWNER TO clara; GRANT ALL ON SCHEMA public TO clara")
        self.db.sql(WORLD + TABLES, user="clara")
        self.owner = self.db.connect("clara")
        self.one = self.db.connect("clara")
        self.one.execute("SET search_path = one, public; SET statement_timeout = '30s'")

    def close(self) -> None:
        """Ends the sessions."""
        self.owner.close()
        self.one.close()

    def run(self, number: int) -> None:
        """One case; a Violation tells what is wrong with it."""
        draw = source(self.seed, "clauses", number)
        variant = draw.choice(VARIANTS)
        table = f"rows_{variant}"
        clauses = make(draw, table)
        batch, options = draw.choice((1, 3, 7, 50)), _options(draw)
        try:
            self._run(table, clauses, batch, options)
            self.watch.look()
        except (Violation, psycopg.Error) as violation:
            seen = ""
            try:
                self.watch.look()
            except Violation as also:
                seen = f"\n{also}"
            shown = f"table {table}, batch_size {batch}, options {json.dumps(options)}"
            clause = f"set_clause: {short(clauses.set_clause)}\nwhere_clause: {clauses.where_clause}"
            raise Violation(f"{violation}{seen}\n{shown}\n{clause}") from None

    def _run(self, table: str, clauses: Clauses, batch: int, options: dict[str, Any]) -> None:
        self._fill("public", table)
        self._fill("one", table)
        call = "SELECT backfill.start(%s, %s, 0, %s, %s, NULL, %s)"
        values = [table, batch, clauses.set_clause, clauses.where_clause, json.dumps(options)]
        try:
            row = self.owner.execute(call, values).fetchone()
        except psycopg.Error as error:
            judge(error, f"backfill.start {values}")
            self.counts["refused"] += 1
            self.refusals[f"{error.sqlstate} {(error.diag.message_primary or '')[:60]}"] += 1
            self._check_refusal(table, clauses, error)
            return
        except UnicodeError:
            self.counts["not sent"] += 1
            return
        assert row is not None
        try:
            end = self._end(row[0])
            self._check(table, clauses, options, end)
        finally:
            self._forget(row[0])

    def _fill(self, schema: str, table: str) -> None:
        self.one.execute(f"TRUNCATE {schema}.{table}")
        self.one.execute(f"INSERT INTO {schema}.{table} ({NAMES}) SELECT {NAMES} FROM template")

    def _end(self, job: int) -> dict[str, Any]:
        """The job's row when it has ended."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = self.owner.execute(
                "SELECT state, last_error, rows_failed, waiting_for, workers FROM backfill.progress WHERE job_id = %s",
                [job],
            ).fetchone()
            assert found is not None
            row = dict(zip(("state", "last_error", "rows_failed", "waiting_for", "workers"), found, strict=True))
            if row["state"] in ("completed", "failed") and row["workers"] == 0:
                return row
            if time.monotonic() > deadline:
                raise Violation(f"no end after {TIMEOUT} s: {row}")
            time.sleep(0.004)

    def _forget(self, job: int) -> None:
        state = self.owner.execute("SELECT state FROM backfill.progress WHERE job_id = %s", [job]).fetchone()
        if state and state[0] in ("completed", "cancelled"):
            self.owner.execute("SELECT backfill.forget(%s)", [job])
        else:
            self.owner.execute("SELECT backfill.cancel(%s, true)", [job])

    def _check_refusal(self, table: str, clauses: Clauses, error: psycopg.Error) -> None:
        """What one UPDATE can do is refused for a reason that is known here."""
        if OWN_REFUSALS.search(error.diag.message_primary or ""):
            return
        found = self._update(table, clauses)
        if found is None:
            raise Violation(
                f"refused, though one UPDATE works: {error.sqlstate} {error} HINT {error.diag.message_hint}"
            )

    def _update(self, table: str, clauses: Clauses) -> psycopg.Error | None:
        """What one UPDATE of the other table comes to: its error, if it has one."""
        try:
            self.one.execute(_statement(table, clauses))
        except psycopg.Error as error:
            return error
        return None

    def _check(self, table: str, clauses: Clauses, options: dict[str, Any], end: dict[str, Any]) -> None:
        """The end that a job has come to is the one that is promised."""
        self.counts[end["state"]] += 1
        try:
            self.one.execute(f"EXPLAIN {_statement(table, clauses)}")
        except psycopg.Error as error:
            if clauses.steady:
                raise Violation(f"accepted, though the UPDATE cannot be planned: {error}, and then {end}") from None
            return
        code = SQLSTATE.search(end["last_error"] or "")
        if end["state"] == "failed" and code is None:
            raise Violation(f"failed without an SQLSTATE: {end}")
        if options.get("max_failed_rows") and end["state"] == "completed":
            if clauses.steady:
                self._row_by_row(table, clauses, end)
            return
        error = self._update(table, clauses)
        if code is not None and table == "rows_bare" and end["last_error"].startswith("rows still match where_clause"):
            # In physical order, this is found out by the rows.
            self.counts["failed since rows match still"] += 1
            return
        if code is not None and "cannot compare dissimilar column types" in end["last_error"]:
            # Fails with the first row that it is looked at for; an index on another condition may spare that.
            return
        if "lastval" in clauses.set_clause:
            # A worker has used sequences of the extension: another error than in a session that has used none.
            return
        if code is not None and (
            code[1].startswith("XX") or (not OF_DATA.search(code[1]) and code[1] != (error and error.sqlstate))
        ):
            raise Violation(f"accepted, and then failed with an error that is of no row: {end}; one UPDATE: {error!r}")
        if not clauses.steady:
            return
        if (error is None) != (end["state"] == "completed"):
            raise Violation(f"one UPDATE has come to {error!r}, the job to {end}")
        if error is None:
            self._compare(table)

    def _row_by_row(self, table: str, clauses: Clauses, end: dict[str, Any]) -> None:
        where = "" if clauses.where_clause is None else f" AND (\n{clauses.where_clause.strip()}\n)"
        update = f"UPDATE {table} SET {clauses.set_clause.strip()} WHERE id = %s{where}"
        if "$clause$" in update or "$fuzz$" in update:
            return
        escaped = update.replace("%", "%%").replace("id = %%s", "id = %s", 1)
        self.one.execute(ROW_BY_ROW.format(table=table, update="{update}").replace("{update}", escaped))
        found = self.one.execute("SELECT current_setting('fuzz.failed')::int").fetchone()
        assert found is not None
        if found[0] != end["rows_failed"]:
            raise Violation(f"row by row, {found[0]} fail, but of the job {end}")
        self._compare(table)
        self.counts["rows that failed"] += found[0]

    def _compare(self, table: str) -> None:
        job, one = (f"SELECT whole::text FROM {schema}.{table} whole" for schema in ("public", "one"))
        wrong = self.one.execute(
            f"WITH job AS ({job}), one AS ({one})"
            " (TABLE job EXCEPT ALL TABLE one) UNION ALL (TABLE one EXCEPT ALL TABLE job) LIMIT 4"
        ).fetchall()
        self.counts["compared"] += 1
        if wrong:
            raise Violation(f"rows of the job, and of one UPDATE: {short(str(wrong))}")


def _statement(table: str, clauses: Clauses) -> str:
    """One UPDATE. White space around a clause is taken away, also what PostgreSQL takes for part of a name."""
    where = "" if clauses.where_clause is None else f"\nWHERE (\n{clauses.where_clause.strip()}\n)"
    return f"UPDATE {table} SET {clauses.set_clause.strip()}{where}"


def _options(draw: Random) -> dict[str, Any]:
    options: dict[str, Any] = {"vacuum": False, "analyze": False}
    for name, values in {
        "strategy": ("waves", "sequential"),
        "walk": ("key", "auto"),
        "max_failed_rows": (1000,),
        "scan_limit": (1, 10),
        "locked_rows": ("skip",),
        "target_ms": (5,),
    }.items():
        if draw.random() < 0.15:
            options[name] = draw.choice(values)
    return options
