"""Tables of many kinds, and jobs on them: what backfill.plan foretells of each, and what it then takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.database import Database

# As far as an estimate may be off.
BOUND = 0.3
# Growth of less than this is within what a relation is extended by at once.
FEW_PAGES = 200 * 8192
FIGURES = ("wal_bytes", "heap_growth_bytes", "index_growth_bytes", "seconds")
CONF = {"autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "8GB", "shared_buffers": "512MB"}


@dataclass(frozen=True)
class Case:
    """A table, and the work."""

    make: str
    set_clause: str
    where: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 10_000


ORDERS = """
CREATE TABLE t (id bigint PRIMARY KEY, a integer, b integer, c text, at timestamptz, v integer, note text);
INSERT INTO t SELECT g, g % 1000, (g * 7919) % 100000, md5(g::text), timestamptz '2026-01-01' + g * interval '1 s',
    NULL, repeat('n', 60) FROM generate_series(1, 150000) g
"""
INDEXES = "; CREATE INDEX ON t (a); CREATE INDEX ON t (b); CREATE INDEX ON t (c); CREATE INDEX ON t (at)"
RANDOM = "(SELECT string_agg(md5(random()::text || {g} || r), '') FROM generate_series(1, {n}) r)"


def documents(rows: int, value: str, kind: str = "text", storage: str = "extended") -> str:
    """A table of large values."""
    return (
        f"CREATE TABLE t (id integer PRIMARY KEY, doc {kind}, v {kind});"
        f"ALTER TABLE t ALTER doc SET STORAGE {storage}; ALTER TABLE t ALTER v SET STORAGE {storage};"
        f"INSERT INTO t SELECT g, {value} FROM generate_series(1, {rows}) g"
    )


def indexed(method: str, kind: str, rows: int = 30_000) -> str:
    """A table with an index of this kind on the column that is set."""
    return (
        f"CREATE TABLE t (id integer PRIMARY KEY, a integer, v {kind});"
        f"INSERT INTO t SELECT g, (g * 7919) % 100003 FROM generate_series(1, {rows}) g;"
        f"CREATE INDEX t_v ON t USING {method} (v)"
    )


CASES: dict[str, Case] = {
    "one index": Case(ORDERS, "v = a"),
    "five indexes": Case(ORDERS + INDEXES, "v = a", "v IS NULL"),
    "two workers": Case(ORDERS + INDEXES, "v = a", options={"workers": 2}),
    "sequential": Case(ORDERS + INDEXES, "v = a", options={"strategy": "sequential"}),
    "room on the pages": Case(ORDERS.replace("note text)", "note text) WITH (fillfactor = 60)") + INDEXES, "v = a"),
    "few rows": Case(ORDERS.replace("NULL,", "CASE WHEN g % 100 <> 0 THEN 0 END,") + INDEXES, "v = a", "v IS NULL"),
    "wide values": Case(ORDERS, "note = repeat(md5(a::text), 20)"),
    "wide values, five indexes": Case(ORDERS + INDEXES, "note = md5(a::text) || md5(b::text)"),
    "documents": Case(documents(1000, RANDOM.format(g="g", n=780)), "doc = doc || '{\"v\":2}'", batch_size=200),
    "documents that compress": Case(
        documents(3000, "repeat(md5(g::text) || 'lorem ipsum dolor', 400)"), "doc = doc || 'more'", batch_size=200
    ),
    "new documents": Case(documents(3000, "'x'", storage="external"), "v = repeat(md5(id::text), 200)", batch_size=200),
    "json": Case(
        documents(3000, "(SELECT jsonb_object_agg(md5(r::text || g), r) FROM generate_series(1, 60) r)", "jsonb"),
        "v = doc || '{\"seen\": true}'",
        batch_size=500,
    ),
    "a dear function": Case(
        ORDERS.replace("150000", "4000") + ";CREATE FUNCTION dear(i integer) RETURNS integer LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM count(*) FROM generate_series(1, 3000); RETURN i; END $$",
        "v = dear(a)",
        batch_size=500,
    ),
    "a lookup without an index": Case(
        ORDERS.replace("150000", "3000") + "; CREATE TABLE l AS SELECT id, a FROM t; ANALYZE l",
        "v = (SELECT l.a FROM l WHERE l.id = t.id)",
        batch_size=500,
    ),
    "a hashed lookup": Case(
        ORDERS + "; CREATE TABLE l AS SELECT id FROM t; ANALYZE l",
        "v = CASE WHEN t.b IN (SELECT id FROM l) THEN 1 ELSE 0 END",
        batch_size=5000,
    ),
    "partitions": Case(
        "CREATE TABLE t (id integer, a integer, v integer, note text, PRIMARY KEY (a, id)) PARTITION BY LIST (a);"
        + ";".join(f"CREATE TABLE t{n} PARTITION OF t FOR VALUES IN ({n})" for n in range(4))
        + ";INSERT INTO t SELECT g, g % 4, NULL, repeat('n', 80) FROM generate_series(1, 120000) g;"
        "CREATE INDEX ON t (note); CREATE INDEX ON t (id)",
        "v = id",
        "v IS NULL",
    ),
    "physical order": Case(
        "CREATE TABLE t (id uuid PRIMARY KEY, a integer, v integer, note text);"
        "INSERT INTO t SELECT md5(g::text)::uuid, g, NULL, repeat('n', 80) FROM generate_series(1, 120000) g",
        "v = a",
        "v IS NULL",
        {"walk": "physical"},
    ),
    "btree on what is set": Case(indexed("btree", "integer", 100_000), "v = a"),
    "hash on what is set": Case(indexed("hash", "integer"), "v = a"),
    "GiST on what is set": Case(indexed("gist", "point"), "v = point(a, id)"),
    "GIN on what is set": Case(indexed("gin", "integer[]"), "v = ARRAY[a, a + 1, a + 2]"),
    "BRIN on what is set": Case(indexed("brin", "integer", 100_000), "v = a"),
    "GIN on another column": Case(
        ORDERS + "; ALTER TABLE t ADD tags text[]; UPDATE t SET tags = ARRAY[c, a::text]; VACUUM FULL t;"
        "CREATE INDEX t_tags ON t USING gin (tags); CREATE INDEX ON t (a)",
        "v = a",
    ),
    "a trigger": Case(
        ORDERS + ";CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN new.note = repeat(md5(new.id::text), 10); RETURN new; END $$;"
        "CREATE TRIGGER noted BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION noted()",
        "v = a",
    ),
    "a sequence": Case(indexed("btree", "bigint") + "; CREATE SEQUENCE s", "v = nextval('s')"),
}

SIZES = """
SELECT sum(pg_table_size(relid)), sum(pg_indexes_size(relid)) FROM (
    SELECT relid FROM pg_partition_tree(%(table)s) UNION SELECT %(table)s::regclass
) s
"""
RUN = "SELECT wal_bytes, EXTRACT(epoch FROM finished_at - started_at) FROM backfill.progress WHERE job_id = %s"


@dataclass(frozen=True)
class Comparison:
    """A figure of the plan, `None` where it says that it does not know, what it is at least, and that of the run."""

    plan: float | None
    least: float
    run: float

    @property
    def ratio(self) -> float:
        """Of what is foretold and what it was."""
        foretold = self.least if self.plan is None else self.plan
        return foretold / self.run if self.run else float(foretold == 0)

    def is_right(self, bound: float = BOUND, little: float = 0) -> bool:
        """Whether it is near, or nothing is claimed; less than `little` more or less is near, too."""
        foretold = self.least if self.plan is None else self.plan
        if abs(foretold - self.run) <= little:
            return True
        if self.plan is None:
            return self.ratio <= 1 + bound
        return abs(self.ratio - 1) <= bound


def make(db: Database, case: Case) -> None:
    """Makes the table t."""
    # A function has semicolons of its own, and VACUUM wants to be alone.
    for part in [case.make] if "$$" in case.make else case.make.split(";"):
        if part.strip():
            db.sql(part)
    db.sql("VACUUM (ANALYZE) t")


def compare(db: Database, case: Case, table: str = "t") -> tuple[dict[str, Comparison], dict[str, Any]]:
    """Makes the table if it has to, asks for the plan, runs the job; gives the figures and the numbers of the plan."""
    if case.make:
        make(db, case)
    db.sql("CHECKPOINT")
    given = json.dumps(dict(case.options) | {"vacuum": False, "analyze": False})
    clauses = [case.batch_size, case.set_clause, case.where, given]
    call = f"('{table}'::regclass, %s, set_clause => %s, where_clause => %s, options => %s{{}})"
    numbers = json.loads(
        db.value(f"SELECT value FROM backfill.plan{call.format(', format => ' + repr('json'))}", clauses)
    )["numbers"]
    [(heap, indexes)] = db.sql(SIZES, {"table": table})
    job = db.value(f"SELECT backfill.start{call.format('')}", clauses)
    db.sql("CALL backfill.wait(%s)", [job])
    [(wal, seconds)] = db.sql(RUN, [job])
    [(heap_after, indexes_after)] = db.sql(SIZES, {"table": table})
    taken = {
        "wal_bytes": float(wal),
        "heap_growth_bytes": float(heap_after - heap),
        "index_growth_bytes": float(indexes_after - indexes),
        "seconds": float(seconds),
    }
    figures = {
        name: Comparison(numbers[name], numbers["at_least"].get(name, numbers[name] or 0), run)
        for name, run in taken.items()
    }
    return figures, numbers
