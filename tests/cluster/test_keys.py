"""The same walk over every kind of key: each row once, as one single UPDATE would have done it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from harness import Cluster, Database
from harness.jobs import complete, progress, start, wait_for
from harness.tables import assert_same, need
from harness.wait import wait_until

ROWS = 20_000
FEW = 10_000

# What text forms and arrays have to quote, and what sorts differently from one collation to the next.
ODD = r"""(ARRAY['a', 'A', 'Ä', 'ä', 'b''', '"', '\', '{', '}', ',', 'ß', 'z ', 'NULL', '日本', E'\t', E'\n', '-', '_',
    '(', 'é', E'e\u0301', '%s', '$1', ';--'])[1 + g % 24]"""
WORDS = f"{ODD} || substr(md5(g::text), 1, 5) || {ODD.replace('g % 24', 'g * 7 % 24')}"
ODD_WORDS = r"""'', ' ', 'NULL', 'null', '{}', '{NULL}', '""', '\', '\\', '''', ',', '(,)', 'a  b', E'\x01', '🙂'"""


@dataclass
class Case:
    """A table: the key's columns, what they hold for g = 1, 2, …, and what they hold besides."""

    columns: str
    values: str
    extra: str = ""
    rows: int = ROWS
    setup: str = ""
    session: str = ""
    index: str = "ALTER TABLE t ADD PRIMARY KEY ({key})"
    key: str = ""


def one(kind: str, values: str, extra: str = "", *, cast: str = "", **more: str | int) -> Case:
    """A key of one column, k; `extra` lists further values, `cast` says how they become what they are."""
    if extra:
        extra = f"SELECT v::{cast or kind} FROM unnest(ARRAY[{extra}]) v"
    return Case(f"k {kind} NOT NULL", values, extra, **more)  # type: ignore[arg-type]


BERLIN = "SET TimeZone = 'Europe/Berlin'; SET DateStyle = 'SQL, DMY'"
# 20,000 points in time in the days around the two changes of the clock in 2024.
AROUND_DST = """timestamptz '2024-03-30 12:00Z' + (g % 2) * interval '210 days' + (g / 2) * interval '8.641973 s'"""

CASES = {
    "int2": one("int2", "g * 2 - 20000", "-32768, 32767"),
    "int4": one("int4", "hashint4(g)", "-2147483648, 2147483647, 0, -1", cast="int8::int4"),
    "int8": one("int8", "hashint8extended(g, 0)", "-9223372036854775808, 9223372036854775807, 0", cast="numeric::int8"),
    "oid": one("oid", "hashint4(g)::oid", "0, 4294967295", cast="int8::oid", rows=FEW),
    "numeric": one(
        "numeric",
        "hashint4(g)::numeric / (ARRAY[1, 7, 1000, 1.5000])[1 + g % 4]",
        "'NaN', 'Infinity', '-Infinity', '1.50', '-1.5000', '0.000', '1e300', '-1e300', '1e-300', '1e1000'",
    ),
    "float8": one(
        "float8",
        "hashint4(g) / 7.0",
        "'NaN', 'Infinity', '-Infinity', '-0', '1e308', '4.9e-324', '0.1', '0.30000000000000004'",
        session="SET extra_float_digits = -10",
    ),
    "float4": one(
        "float4", "hashint4(g) / 7.0", "'NaN', 'Infinity', '-0'", session="SET extra_float_digits = -3", rows=FEW
    ),
    "uuid": one("uuid", "gen_random_uuid()"),
    "text": one("text", WORDS, ODD_WORDS),
    "text_c": one('text COLLATE "C"', WORDS, ODD_WORDS),
    "text_icu": one('text COLLATE "und-x-icu"', WORDS, ODD_WORDS),
    "text_nondeterministic": one(
        "text COLLATE ci",
        WORDS,
        ODD_WORDS,
        setup="CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    ),
    "text_index_collation": one(
        "text", WORDS, ODD_WORDS, index='CREATE UNIQUE INDEX ON t (k COLLATE "und-x-icu")', key="k"
    ),
    "varchar": one("varchar(40)", WORDS, ODD_WORDS),
    "bpchar": one(
        "char(12)",
        "(ARRAY['', ' ', 'é'])[1 + g % 3] || substr(md5(g::text), 1, 4 + g % 5) || repeat(' ', g % 3)",
        "'', 'a', ' a', 'abc  '",
    ),
    "bpchar_bare": one("bpchar", "substr(md5(g::text), 1, 4 + g % 9) || repeat(' ', g % 3)", "'', 'a', ' a'", rows=FEW),
    "name": one("name", WORDS, "'', 'pg_class'", rows=FEW),
    "internal_char": one('"char"', """chr(1 + g % 126)::"char" """, rows=200),
    "citext": one("citext", WORDS, setup="CREATE EXTENSION citext", rows=FEW),
    "timestamptz": one(
        "timestamptz", AROUND_DST, "'infinity', '-infinity', '0044-03-15 BC', '294276-12-31 23:59:59Z'", session=BERLIN
    ),
    "timestamp": one(
        "timestamp",
        "timestamp '2024-10-27 01:00' + g * interval '1.000001 s'",
        "'infinity', '-infinity', '0044-03-15 BC'",
        session=BERLIN,
    ),
    "date": one(
        "date",
        "date '0900-01-01' + (g - 10000) * 50",
        "'infinity', '-infinity', '4713-01-01 BC', '5874897-12-31'",
        session=BERLIN,
    ),
    "time": one("time", "time '00:00' + g * interval '1.7 s'", "'00:00', '24:00'"),
    "timetz": one(
        "timetz",
        "(time '00:00' + g * interval '1.7 s') AT TIME ZONE make_interval(mins => g % 9 * 30)",
        session=BERLIN,
        rows=FEW,
    ),
    "interval": one(
        "interval",
        "make_interval(months => g % 50 - 25, days => hashint4(g) % 99, secs => g / 7.0)",
        "'0', '-1 mon +1 day', '178000000 years'",
        session="SET IntervalStyle = 'sql_standard'",
    ),
    "enum": one(
        "mood",
        "('m' || g)::mood",
        rows=300,
        setup="""DO $$ BEGIN EXECUTE 'CREATE TYPE mood AS ENUM (' ||
            (SELECT string_agg(quote_literal('m' || g), ', ' ORDER BY md5(g::text)) FROM generate_series(1, 300) g)
            || ')'; END $$; ALTER TYPE mood ADD VALUE 'it''s, "odd"' BEFORE 'm7'""",
        extra="""'it''s, "odd"'""",
    ),
    "domain_text": one(
        "code",
        WORDS,
        ODD_WORDS,
        setup="CREATE DOMAIN code AS text COLLATE \"C\" CHECK (value ~ '' AND length(value) < 99)",
    ),
    "domain_int": one("positive", "g", setup="CREATE DOMAIN positive AS int CHECK (value > 0)"),
    "domain_domain": one(
        "tiny", "g", setup="CREATE DOMAIN small AS int8; CREATE DOMAIN tiny AS small CHECK (value < 60000)", rows=FEW
    ),
    "bytea": one(
        "bytea",
        "decode(substr(md5(g::text), 1, 2 * (3 + g % 10)), 'hex')",
        r"'', '\x00', '\x5c', '\xff'",
        session="SET bytea_output = 'escape'",
    ),
    "inet": one(
        "inet",
        "CASE g % 3 WHEN 0 THEN inet '10.0.0.0' + g WHEN 1 THEN inet '2001:db8::' + g ELSE inet '10.1.0.0/16' + g END",
        "'0.0.0.0/0', '10.0.0.3/8', '::1'",
    ),
    "cidr": one("cidr", "set_masklen(cidr '10.0.0.0/32' + g, 32)", "'10.0.0.0/8', '::/0'", rows=FEW),
    "macaddr": one("macaddr", "substr(md5(g::text), 1, 12)::macaddr", rows=FEW),
    "varbit": one("varbit", "g::bit(20)::varbit", "'', '0', '000'", rows=FEW),
    "money": one("money", "(g - 25000) * money '1.37'", rows=5000),
    "pg_lsn": one("pg_lsn", "pg_lsn '0/0' + g * 1000003::numeric", rows=5000),
    "int_array": one("int[]", "ARRAY[g % 100, g, NULL]", "'{}', '{1}', '{{1,2},{3,4}}', '[5:6]={1,2}'", rows=FEW),
    "text_array": one(
        "text[]", f"ARRAY[{ODD}, NULL, md5(g::text)]", """'{}', '{NULL}', '{"NULL"}', '{"a,b","{}"}'""", rows=FEW
    ),
    "range": one("int4range", "int4range(g % 100, 100 + g)", "'empty', '(,)', '(,5)'", rows=5000),
    "jsonb": one("jsonb", f"jsonb_build_object({ODD}, g)", "'null', '[]', '\"a\"'", rows=5000),
    "bool_int": Case("a bool NOT NULL, b int NOT NULL", "g % 2 = 0, g / 2"),
    "int_int": Case("a int NOT NULL, b int NOT NULL", "g % 20 - 10, hashint4(g)"),
    "int_int_few": Case("a int NOT NULL, b int NOT NULL", "g % 10000, g / 10000"),
    "text_uuid_timestamptz": Case(
        "a text NOT NULL, b uuid NOT NULL, c timestamptz NOT NULL",
        f"{ODD}, md5((g % 500)::text)::uuid, {AROUND_DST}",
        session=BERLIN,
    ),
    "enum_date": Case(
        "a mood NOT NULL, b date NOT NULL",
        "('{sad,ok,happy,\"so, so\"}'::mood[])[1 + g % 4], date '0001-01-01' - 5000 + g",
        setup="CREATE TYPE mood AS ENUM ('sad', 'so, so', 'ok', 'happy')",
        session=BERLIN,
    ),
    "icu_and_c": Case(
        'a text COLLATE "und-x-icu" NOT NULL, b text COLLATE "C" NOT NULL', f"{ODD}, {ODD} || md5(g::text)"
    ),
    "descending": Case(
        "a int NOT NULL, b text NOT NULL",
        f"g % 20, {WORDS}",
        index="CREATE UNIQUE INDEX ON t (a DESC, b DESC)",
        key="a, b",
    ),
    "descending_one": one(
        "timestamptz", AROUND_DST, index="CREATE UNIQUE INDEX ON t (k DESC)", key="k", session=BERLIN
    ),
    "descending_nulls_last": Case(
        "a int NOT NULL, b int NOT NULL",
        "g % 20, g",
        index="CREATE UNIQUE INDEX ON t (a DESC NULLS LAST, b DESC NULLS LAST)",
        key="a, b",
        rows=FEW,
    ),
    "nulls_first": Case(
        "a int NOT NULL, b int NOT NULL",
        "g % 20, g",
        index="CREATE UNIQUE INDEX ON t (a NULLS FIRST, b NULLS LAST)",
        key="a, b",
        rows=FEW,
    ),
    "nulls_mixed_descending": Case(
        "a int NOT NULL, b int NOT NULL",
        "g % 20, g",
        index="CREATE UNIQUE INDEX ON t (a DESC NULLS LAST, b DESC NULLS FIRST)",
        key="a, b",
        rows=FEW,
    ),
    "including": Case(
        "a int NOT NULL, b int NOT NULL",
        "g, g",
        index="CREATE UNIQUE INDEX ON t (b) INCLUDE (a, id)",
        key="b",
        rows=FEW,
    ),
}


def fill(db: Database, case: Case) -> tuple[str, int]:
    """Makes the table in random order of its keys, without duplicates; returns its key and its rows."""
    key = case.key or ", ".join(column.split()[0] for column in case.columns.split(", "))
    if case.setup:
        for statement in case.setup.split("; ") if "$$" not in case.setup else [case.setup]:
            db.sql(statement)
    db.sql(f"CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, {case.columns}, n int DEFAULT 0, m int DEFAULT 0)")
    db.sql(case.index.format(key=key))
    columns = ", ".join(column.split()[0] for column in case.columns.split(", "))
    rows = f"SELECT {case.values} FROM generate_series(1, {case.rows}) g ORDER BY md5(g::text)"
    db.sql(f"INSERT INTO t ({columns}) {rows} ON CONFLICT DO NOTHING")
    if case.extra:
        db.sql(f"INSERT INTO t ({columns}) {case.extra} ON CONFLICT DO NOTHING")
    return key, db.value("SELECT count(*) FROM t")


def walk_and_compare(db: Database, case: Case) -> None:
    """A walk of all rows and one of some, against two UPDATEs of a copy."""
    key, count = fill(db, case)
    assert count > case.rows * 0.5
    db.sql("CREATE TABLE copy AS TABLE t")
    db.sql("UPDATE copy SET n = n + 1")
    db.sql("UPDATE copy SET m = m + 1 WHERE id % 3 = 0")

    row = complete(db, start(db, "t", "n = n + 1", session=case.session))
    assert row["key_columns"] == key.split(", ")
    assert (row["rows_done"], row["rows_updated"], row["rows_total"]) == (count, count, count)

    some = start(db, "t", "m = m + 1", where="id % 3 = 0", session=case.session, options={"scan_limit": 3331})
    row = complete(db, some)
    assert (row["rows_done"], row["rows_updated"]) == (count, db.value("SELECT count(*) FROM t WHERE id % 3 = 0"))
    assert_same(db, "t", "copy")


@pytest.mark.parametrize("name", CASES)
def test_a_walk_does_what_one_update_does(db: Database, name: str) -> None:
    """Every row once, none forgotten, whatever the key."""
    text = f"{CASES[name]}"
    need(db, *(["icu"] if "icu" in text else []), *(["citext"] if "citext" in text else []))
    walk_and_compare(db, CASES[name])


def walk_in_waves_and_compare(db: Database, case: Case) -> None:
    """The same in waves, by three workers, stopped and changed in the middle of open regions."""
    _, count = fill(db, case)
    db.sql("CREATE TABLE copy AS TABLE t")
    db.sql("UPDATE copy SET n = n + 1")
    db.sql("UPDATE copy SET m = m + 1 WHERE id % 3 = 0")
    db.sql("ANALYZE t")
    # As large as takes several slices.
    db.sql("UPDATE pg_class SET reltuples = 400000 WHERE oid = 't'::regclass")

    waves = {"strategy": "waves", "waves": 7, "workers": 3, "walk": "key", "vacuum": False, "analyze": False}
    job = start(db, "t", "n = n + 1", batch=200, sleep_ms=5, session=case.session, options=waves)
    wait_until(lambda: progress(db, job)["rows_done"] > 0, 30, "the first batches")
    for change in ('{"waves": 5}', '{"workers": 1}', '{"strategy": "sequential", "workers": 2}'):
        try:
            db.sql(f"SELECT backfill.pause({job})")
            wait_for(db, job, "paused")
        except (psycopg.errors.ObjectNotInPrerequisiteState, AssertionError):
            # Of few rows: it was quicker.
            assert progress(db, job)["state"] == "completed"
            break
        db.sql("SELECT backfill.alter(%s, 222, 2, %s)", [job, change])
        db.sql(f"SELECT backfill.resume({job})")
    row = complete(db, job)
    assert (row["rows_done"], row["rows_updated"]) == (count, count)
    assert db.value("SELECT count(*) FROM t WHERE n <> 1") == 0

    some = start(db, "t", "m = m + 1", where="id % 3 = 0", batch=300, session=case.session, options=waves)
    row = complete(db, some)
    assert (row["rows_done"], row["rows_updated"]) == (count, db.value("SELECT count(*) FROM t WHERE id % 3 = 0"))
    assert_same(db, "t", "copy")


@pytest.mark.parametrize("name", CASES)
def test_waves_do_what_one_update_does(db: Database, name: str) -> None:
    """Every row once, whatever gives its key a wave, and whatever is changed in the middle of a region."""
    text = f"{CASES[name]}"
    need(db, *(["icu"] if "icu" in text else []), *(["citext"] if "citext" in text else []))
    walk_in_waves_and_compare(db, CASES[name])


@pytest.fixture
def locale_db(shared_cluster: Cluster) -> Iterator[Database]:
    """A database whose default collation is not C but a language's."""
    need(shared_cluster, "icu")
    shared_cluster.sql(
        "CREATE DATABASE german TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C' ENCODING 'UTF8'"
    )
    database = shared_cluster.database("german")
    database.sql("CREATE EXTENSION backfill")
    yield database
    shared_cluster.sql("DROP DATABASE german WITH (FORCE)")


@pytest.mark.parametrize("name", ["text", "text_c", "varchar", "text_array", "descending"])
def test_the_default_collation_of_the_database_orders_the_walk(locale_db: Database, name: str) -> None:
    """The order of a default collation that is no C collation is followed."""
    walk_and_compare(locale_db, CASES[name])


def test_an_index_of_mixed_directions_is_passed_over(db: Database) -> None:
    """Not the primary key, which can't be walked by one comparison, but the next that can."""
    db.sql("""
        CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int NOT NULL, n int DEFAULT 0);
        INSERT INTO t SELECT g % 7, g, -g FROM generate_series(1, 5000) g;
        CREATE UNIQUE INDEX t_mixed ON t (a, b DESC);
        CREATE UNIQUE INDEX t_partial ON t (b) WHERE b > 0;
        CREATE UNIQUE INDEX t_expression ON t ((c + 1));
        CREATE UNIQUE INDEX t_pattern ON t (c, (a::text) text_pattern_ops);
        CREATE UNIQUE INDEX t_usable ON t (c, a)
    """)
    row = complete(db, start(db, "t", "n = n + 1"))
    assert row["key_columns"] == ["c", "a"]
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 5000)]


def test_only_unusable_indexes_are_refused_with_reasons(db: Database) -> None:
    """Every index is named with what is wrong with it."""
    db.sql("""
        CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int, n int DEFAULT 0, w text NOT NULL);
        CREATE UNIQUE INDEX t_mixed ON t (a, b DESC);
        CREATE UNIQUE INDEX t_partial ON t (b) WHERE b > 0;
        CREATE UNIQUE INDEX t_nullable ON t (c);
        CREATE UNIQUE INDEX t_pattern ON t (w text_pattern_ops);
        ALTER TABLE t ADD CONSTRAINT t_deferred UNIQUE (b) DEFERRABLE;
        CREATE INDEX t_plain ON t (a)
    """)
    with pytest.raises(psycopg.errors.FeatureNotSupported) as error:
        start(db, "t", "n = n + 1")
    for name in ("t_mixed", "t_partial", "t_nullable", "t_pattern", "t_deferred", "t_plain"):
        assert name in error.value.diag.message_detail
        with pytest.raises(psycopg.errors.FeatureNotSupported, match=name):
            start(db, "t", "n = n + 1", options={"key": name})
    assert db.sql("SELECT * FROM backfill.progress") == []


def test_the_option_key_names_the_index(db: Database) -> None:
    """A named index is walked though there is a primary key, and the primary key may then be written."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, "other Key" uuid NOT NULL DEFAULT gen_random_uuid(), n int DEFAULT 0);
        INSERT INTO t SELECT g FROM generate_series(1, 5000) g;
        CREATE UNIQUE INDEX "odd ""index"" " ON t ("other Key")
    """)
    job = start(db, "t", "id = -id, n = n + 1", options={"key": 'odd "index" '})
    assert complete(db, job)["key_columns"] == ["other Key"]
    assert db.sql("SELECT min(id), max(id), min(n), max(n) FROM t") == [(-5000, -1, 1, 1)]
    with pytest.raises(psycopg.errors.UndefinedObject):
        start(db, "t", "n = n + 1", options={"key": "nothing"})


def test_a_user_defined_type_is_walked_by_its_own_operators(db: Database) -> None:
    """An operator class of the user's, in a schema that isn't on the search_path."""
    need(db, "citext")
    db.sql("""
        CREATE SCHEMA hidden; CREATE EXTENSION citext SCHEMA hidden;
        CREATE TABLE t (k hidden.citext PRIMARY KEY, n int DEFAULT 0);
        INSERT INTO t SELECT chr(65 + g % 2 * 32) || g FROM generate_series(1, 5000) g
    """)
    complete(db, start(db, "t", "n = n + 1"))
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 5000)]
