"""backfill.plan: it names each trap, its estimates are of the right size, and it changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from harness import Cluster, Database
from harness.jobs import complete, start

TABLE = """
CREATE TABLE orders (id bigint PRIMARY KEY, rate integer NOT NULL, rate_new integer DEFAULT 0);
INSERT INTO orders SELECT id, id FROM generate_series(1, 20000) id;
CREATE INDEX ON orders (rate);
ANALYZE orders
"""
CALL = "rate_new = rate"
CLAUSE = "rate_new = 0"


def make(db: Database) -> None:
    """A table that has nothing odd."""
    db.sql(TABLE)


def plan(db: Database, **arguments: Any) -> dict[str, dict[str, tuple[str, str | None]]]:
    """The lines: by section and item the value and the advice."""
    given = {"set_clause": CALL, "where_clause": CLAUSE} | arguments
    names = ", ".join(f"{name} => %({name})s" for name in given)
    lines: dict[str, dict[str, tuple[str, str | None]]] = {}
    for section, item, value, advice in db.sql(f"SELECT * FROM backfill.plan('orders', {names})", given):
        assert item not in lines.setdefault(section, {}), item
        lines[section][item] = (value, advice)
    return lines


def test_a_table_that_has_nothing_odd(db: Database) -> None:
    """No warning but that the source may change; what is to be known is there."""
    make(db)
    lines = plan(db, batch_size=500)
    assert set(lines["warnings"]) == {"source changes"} and lines["warnings"]["source changes"][0] == "rate"
    assert "warnings" not in plan(db, set_clause="rate_new = id")
    assert lines["walk"]["order"][0].startswith("by key (id)")
    waves = re.fullmatch(r"(\d+) waves in (\d+) passes: most updates will be heap-only", lines["walk"]["waves"][0])
    assert waves and 2 <= int(waves[2]) <= int(waves[1]) <= 255
    assert lines["estimates"]["rows"][0] == "20,000"
    assert lines["estimates"]["rows that match"][0] == "20,000, by a sample"
    assert lines["estimates"]["batches"][0] == "40"
    batch = lines["statements"]["batch"][0]
    assert batch.startswith('UPDATE ONLY "public"."orders" SET rate_new = rate\n')
    assert "Index Scan using orders_pkey" in lines["statements"]["plan of the first read"][0]
    assert "Tid Scan on orders" in lines["statements"]["plan of the first batch"][0]
    text = db.value("SELECT value FROM backfill.plan('orders', set_clause => %s, format => 'text')", [CALL])
    assert text.startswith("walk\n  table: public.orders\n  order: by key (id)")


TRAPS: dict[str, tuple[str, str]] = {
    "triggers": (
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;"
        "CREATE TRIGGER noted BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION noted()",
        "noted (before each row, public.noted)",
    ),
    "time of the last change": ("ALTER TABLE orders ADD updated_at timestamptz", "updated_at"),
    "indexes on columns that are set": ("CREATE INDEX odd ON orders (rate_new)", "odd"),
    "unique indexes on columns that are set": ("CREATE UNIQUE INDEX odd ON orders (rate_new, id)", "odd"),
    "foreign keys of columns that are set": (
        "CREATE TABLE rates (id integer PRIMARY KEY); INSERT INTO rates VALUES (0);"
        "ALTER TABLE orders ADD CONSTRAINT known FOREIGN KEY (rate_new) REFERENCES rates",
        "known",
    ),
    "foreign keys that refer to columns that are set": (
        "ALTER TABLE orders ADD no integer; UPDATE orders SET no = -id, rate_new = -id;"
        "ALTER TABLE orders ADD UNIQUE (rate_new);"
        "CREATE TABLE lines (rate integer CONSTRAINT to_rate REFERENCES orders (rate_new))",
        "lines.to_rate",
    ),
    "logical replication": ("CREATE PUBLICATION news FOR TABLE orders", "news"),
    "REPLICA IDENTITY FULL": ("ALTER TABLE orders REPLICA IDENTITY FULL", "the whole old row"),
    "row security": ("ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "not for the owner of the table"),
    "foreign keys that change other tables along": (
        "ALTER TABLE orders ADD no integer; UPDATE orders SET no = -id, rate_new = -id;"
        "ALTER TABLE orders ADD UNIQUE (rate_new);"
        "CREATE TABLE lines (rate integer CONSTRAINT to_rate REFERENCES orders (rate_new) ON UPDATE CASCADE)",
        "lines.to_rate (ON UPDATE CASCADE)",
    ),
    "new rows": ("ALTER TABLE orders ALTER rate_new DROP DEFAULT", "rate_new"),
    "constraints NOT VALID": ("ALTER TABLE orders ADD CONSTRAINT even CHECK (rate % 2 = 0) NOT VALID", "even"),
    "generated columns": (
        "ALTER TABLE orders ADD twice integer GENERATED ALWAYS AS (rate_new * 2) STORED",
        "twice",
    ),
    "autovacuum": ("ALTER TABLE orders SET (autovacuum_enabled = off)", "off for the table"),
    "children": ("CREATE TABLE more () INHERITS (orders)", "more"),
    "unlogged table": ("ALTER TABLE orders SET UNLOGGED", "it is empty after a crash"),
    "fillfactor": ("DROP INDEX orders_rate_idx", "pages are full"),
}


@pytest.mark.parametrize("item", TRAPS)
def test_each_trap_is_named(db: Database, item: str) -> None:
    """With what it is about, and what to do; the other traps are not."""
    make(db)
    statement, value = TRAPS[item]
    db.sql(statement)
    found = plan(db)["warnings"]
    assert value in found[item][0], found[item]
    assert found[item][1]
    others = set(found) - {item, "source changes"} - ALONG.get(item, set())
    assert not others, others


# What comes with a trap by its nature.
ALONG = {
    "foreign keys that refer to columns that are set": {"unique indexes on columns that are set", "new rows"},
    "children": {"fillfactor"},
    "foreign keys that change other tables along": {
        "foreign keys that refer to columns that are set",
        "unique indexes on columns that are set",
        "new rows",
    },
}


@pytest.mark.parametrize("index", ["(rate) WHERE rate_new IS NULL", "((rate_new + 1))", "(rate) INCLUDE (rate_new)"])
def test_indexes_that_read_what_is_set(db: Database, index: str) -> None:
    """In their predicates and expressions, too."""
    make(db)
    db.sql(f"CREATE INDEX odd ON orders {index}")
    assert plan(db)["warnings"]["indexes on columns that are set"][0] == "public.odd"


def test_new_rows_of_a_column_that_cannot_be_null(db: Database) -> None:
    """They have a value, or are refused: there is nothing to warn of."""
    make(db)
    db.sql("ALTER TABLE orders ALTER rate_new DROP DEFAULT, ALTER rate_new SET NOT NULL")
    assert "new rows" not in plan(db).get("warnings", {})


def test_traps_of_the_clauses(db: Database) -> None:
    """A job that cannot be told from one that is done, and batches that are long."""
    make(db)
    found = plan(db, where_clause=None, batch_size=100_000)["warnings"]
    assert "no where_clause tells" in found["a second run"][0]
    assert found["batch size"][0] == "100000 rows a commit"
    found = plan(db, where_clause="rate > 5")["warnings"]
    assert "sets no column that where_clause reads" in found["a second run"][0]


def test_traps_of_the_server(new_cluster: Callable[..., Cluster]) -> None:
    """Slots, long transactions, missing preload, workers that are taken; and wraparound."""
    conf = {"max_prepared_transactions": 2, "wal_level": "logical", "backfill.max_workers": 1}
    cluster = new_cluster(preload=False, conf=conf)
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    make(db)
    db.sql("BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION 'left over'")
    db.sql("SELECT pg_create_physical_replication_slot('old', true)")
    db.sql("SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 1000000))) FROM generate_series(1, 100)")
    found = plan(db, options=json.dumps({"workers": 2}))["warnings"]
    assert found["prepared transactions"][0] == "left over"
    assert found["replication lag"][0].startswith("old ")
    assert "shared_preload_libraries" in found["preload"][0]
    assert found["worker slots"][0] == "0 of 1 are taken, 2 wanted"


def test_it_changes_nothing(new_cluster: Callable[..., Cluster]) -> None:
    """Nothing is written at all; also as JSON, and of a definition."""
    cluster = new_cluster(conf={"autovacuum": "off"})
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    make(db)
    db.sql("VACUUM (FREEZE, ANALYZE) orders")
    db.sql("SELECT backfill.define('orders', 'rate_new = rate', 'rate_new = 0')")
    db.sql("CHECKPOINT")
    # With checksums, the default from PostgreSQL 18 on, the first who reads a page after that writes it to the WAL.
    call = "SELECT value::json FROM backfill.plan('orders', format => 'json')"
    for _ in range(2):
        db.sql(call)
    before = db.value("SELECT pg_current_wal_insert_lsn()")
    document = db.value(call)
    assert db.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", [before]) < 1000
    assert document["numbers"]["matching_rows"] == 20_000
    assert [line["item"] for line in document["walk"]][:2] == ["table", "order"]
    assert db.value("SELECT count(*) FROM backfill.progress WHERE state <> 'pending'") == 0


def test_what_a_job_took_is_better_than_a_rule(db: Database) -> None:
    """The next plan for the same clause goes by it; one for another clause does not."""
    make(db)
    assert "by 100 rows that were evaluated" in plan(db)["estimates"]["WAL"][0]
    complete(db, start(db, "orders", CALL, where=CLAUSE))
    db.sql("UPDATE orders SET rate_new = 0")
    db.sql("VACUUM ANALYZE orders")
    assert plan(db)["estimates"]["WAL"][0].endswith("as job 1 took on this table")
    assert "evaluated" in plan(db, set_clause="rate_new = rate + 1")["estimates"]["WAL"][0]


def test_few_rows_that_match(db: Database) -> None:
    """Are counted by a sample, not taken from the planner's guess."""
    make(db)
    db.sql("UPDATE orders SET rate_new = 1 WHERE id % 10 <> 0")
    db.sql("VACUUM FULL orders")
    found = plan(db)["estimates"]["rows that match"][0]
    assert found == "2,000, by a sample"


PARTS = [
    ({"key_from": 5001, "key_to": 6000}, 1000, "from key (5001), to key (6000); then it pauses"),
    ({"limit_rows": 500}, 500, "500 rows; then it pauses"),
    ({"key_from": 10001, "limit_rows": 200}, 200, "from key (10001), 200 rows; then it pauses"),
]


@pytest.mark.parametrize("options, rows, part", PARTS)
def test_a_small_first_run(db: Database, options: dict[str, int], rows: int, part: str) -> None:
    """What it takes is what the part takes; a preview shows rows of the part."""
    make(db)
    whole = plan(db)
    lines = plan(db, options=json.dumps(options))
    assert lines["walk"]["part"][0] == part and "part" not in whole["walk"]
    matching = lines["estimates"]["rows that match"][0].split(",")
    assert rows * 0.9 <= int("".join(matching[:-1])) <= rows * 1.1, matching
    shown = "SELECT key FROM backfill.preview('orders', set_clause => %s, options => %s)"
    keys = [int(key.removeprefix("id = ")) for (key,) in db.sql(shown, [CALL, json.dumps(options)])]
    assert len(keys) == 10
    assert options.get("key_from", 0) <= min(keys) and max(keys) <= options.get("key_to", 20_000)


def test_partitions(db: Database) -> None:
    """Sums of all, and the same warning once."""
    db.sql(
        "CREATE TABLE orders (id integer, kind integer, rate integer, rate_new integer, PRIMARY KEY (kind, id))"
        " PARTITION BY LIST (kind)"
    )
    for kind in range(5):
        db.sql(f"CREATE TABLE orders_{kind} PARTITION OF orders FOR VALUES IN ({kind})")
    db.sql("INSERT INTO orders SELECT id, id % 5, id FROM generate_series(1, 5000) id; ANALYZE orders")
    lines = plan(db, where_clause="orders.rate_new IS NULL")
    assert lines["walk"]["partitions"][0] == "5"
    assert lines["estimates"]["rows"][0] == "5,000"
    assert lines["warnings"]["new rows"][0].count("orders_") == 3
    assert "and 2 more" in lines["warnings"]["new rows"][0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"format": "xml"}, 'format must be "rows", "text" or "json", not "xml"'),
        ({"batch_size": 0}, "batch_size must be between 1 and 1000000"),
        ({"set_clause": "nothing = 1"}, 'column "nothing" of relation "orders" does not exist'),
        ({"set_clause": None, "where_clause": None}, "no backfill is defined for table public.orders"),
    ],
)
def test_bad_calls(db: Database, arguments: dict[str, Any], message: str) -> None:
    """As start would say it."""
    make(db)
    with pytest.raises(psycopg.Error) as caught:
        plan(db, **arguments)
    assert message in str(caught.value) and caught.value.diag.message_hint
