"""Random calls of everything in the schema `backfill`: arguments, how it is called, by whom, and under what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random

from harness.fuzz_clauses import make as make_clauses
from harness.fuzz_clauses import mutate

ROLES = ("postgres", "anna", "otto", "watcher")
RELATIONS = (
    "t", "t", "t", "u", "parts", "parts_1", "keyless", "v", "mv", "seq", "t_pkey", "shape", "far", "ruled", "guarded",
    "unlogged", "pg_class", "pg_catalog.pg_authid", "backfill_internal.job", "backfill.progress",
    "information_schema.tables", "nothing",
    "no.such", "", ".", 'odd "" näme', "rows_plain", "fresh", "0", "4294967295", "99999999999", "-1",
    "a.b.c.d", "hers.t", "T", "'", "pg_toast.pg_toast_1262",
)  # fmt: skip
# What makes them, for the roles above.
WORLD = """
CREATE ROLE anna LOGIN; CREATE ROLE otto LOGIN; CREATE ROLE idle; CREATE ROLE watcher LOGIN;
GRANT pg_monitor TO watcher; GRANT idle TO anna;
GRANT ALL ON SCHEMA public TO anna; GRANT ALL ON SCHEMA public TO idle;
CREATE SCHEMA hers AUTHORIZATION anna;
CREATE FOREIGN DATA WRAPPER away; CREATE SERVER away FOREIGN DATA WRAPPER away;
CREATE FOREIGN TABLE far (i int) SERVER away;
CREATE TABLE u (id int PRIMARY KEY, n int); INSERT INTO u SELECT g, 0 FROM generate_series(1, 50) g;
CREATE TABLE guarded (id int PRIMARY KEY, n int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SET SESSION AUTHORIZATION anna;
CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, note text);
INSERT INTO t SELECT g, 0 FROM generate_series(1, 200) g;
CREATE TABLE hers.t (id int PRIMARY KEY, n int DEFAULT 0); CREATE TABLE "odd "" näme" (id int PRIMARY KEY, n int);
CREATE TABLE fresh (id int PRIMARY KEY, n int); CREATE TABLE keyless (id int, n int); CREATE TYPE shape AS (x int);
CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
CREATE VIEW v AS SELECT * FROM t; CREATE MATERIALIZED VIEW mv AS SELECT * FROM t; CREATE SEQUENCE seq;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, n int);
CREATE TABLE ruled (id int PRIMARY KEY, n int); CREATE RULE r AS ON UPDATE TO ruled DO INSTEAD NOTHING;
RESET SESSION AUTHORIZATION
"""  # fmt: skip
NASTY = (
    "", " ", "'", '"', "\\", "x", "n = n + 1", "é☃\U0001f600", "\u202eabc", "a\nb", "\x01\x02\x1b[31m", "\x7f",
    "%s %n %d", "{0}", "$1", "--", "/*", ";", "NULL", "a" * 63, "é" * 32, "a" * 64, "\t", "\ufeff", "\u0000"[:0],
    "DROP TABLE t", "' OR 1 = 1 --", "\u00a0", "n=0", "running", "completed", "cancel", "pause", "0", "-1",
)  # fmt: skip
# A megabyte, and more, made by the server.
HUGE = (
    "repeat('x', 1000000)", "repeat('n = 1, ', 150000)", "'n = ' || repeat('(', 3000) || '1' || repeat(')', 3000)",
    "'n = ' || repeat('1+', 2000) || '1'", "repeat('(', 500000)", "'n = ''' || repeat('é', 500000) || ''''",
    "repeat(E'\\n', 1000000)", "'n = ' || repeat('-', 999999) || '1'", "repeat('\"', 1000001)",
    "'n = ' || repeat('- ', 30000) || '1'", "'note = $' || repeat('a', 100000) || '$ x'",
    "'n IN (' || repeat('1,', 20000) || '2)'", "repeat(chr(1), 1000)",
    "'n = ' || repeat('abs(', 5000) || 'n' || repeat(')', 5000)",
    "'n = CASE ' || repeat('WHEN n = 1 THEN 2 ', 5000) || 'END'", "repeat('$x', 300000)",
    # About the bounds, and far beyond.
    "'n = ' || repeat('1', 1048572)", "'n = ' || repeat('1', 1048573)", "'n = 1 ' || repeat(' ', 1048570)",
    "'n IN (' || repeat('1,', 524280) || '2)'", "'n = length(''' || repeat('é', 524270) || ''')'",
    "'n = 1 ' || repeat('x', 250000000)", "repeat('n', 500000000)", "repeat('é', 200000000)", "repeat('x', 252)",
    "repeat('x', 253)", "repeat(chr(92), 1048576)", "'n = ' || repeat('(1)::int+', 100000) || '1'",
)  # fmt: skip
KEYS = (
    "key", "walk", "strategy", "waves", "workers", "target_ms", "scan_limit", "max_failed_rows", "locked_rows",
    "triggers", "lock_timeout_ms", "statement_timeout_ms", "settings", "vacuum", "analyze", "Workers", "worker", "",
    "dry_run", "limit_rows", "key_from", "key_to", "on_end", "throttle_query", "max_lag", "max_lock_waiters",
    "max_rows_per_second", "max_wal_rate", "run_window", "max_growth",
    "é", "set_clause", "__proto__",
)  # fmt: skip
VALUES = (
    "1", "0", "-1", "2", "64", "65", "1.5", "1e3", "1e400", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", "null", "true", "false", '""', '"auto"', '"key"', '"physical"', '"waves"', '"sequential"',
    '"skip"', '"wait"', '"fire"', "[]", "{}", "[1]", '"1"', '"t_pkey"', '{"a.b": "c"}', '{"work_mem": "1MB"}',
    '{"a": {"b": 1}}', '{"work_mem": "-1"}', '{"search_path": "x, y"}', '{"role": "postgres"}', '{"nope": "1"}',
    '{"": ""}', '{"a.b": 1}', '{"TimeZone": "Nope"}', '{"DateStyle": "German"}', '"\\u0001"',
    '["7"]', '["1", "2"]', '"é"', '"22:00-06:00 UTC"', '"10s"', '"1MB"', '"SELECT false"', '"SELECT 1 / 0"',
    '{"client_encoding": "LATIN1"}', '{"log_statement": "all"}', '{"statement_timeout": "1"}', '{"a.\\"b": "x"}',
    '{"é.ü": "ß"}', '{"datestyle": "x\'y"}', '{"backfill.enabled": "off"}',
)  # fmt: skip
JSON = (
    "'{}'", "'[]'", "'null'", "'1'", "'\"x\"'", "'true'", "repeat('[', 5000) || repeat(']', 5000)",
    "repeat('{\"a\":', 200) || '1' || repeat('}', 200)",
    "'{\"settings\": ' || repeat('[', 2000) || repeat(']', 2000) || '}'", "'{\"' || repeat('k', 1000000) || '\": 1}'",
    "'{\"key\": \"' || repeat('x', 1000000) || '\"}'", "'{'", "''", "'{\"workers\": 1, \"workers\": 2}'",
    "'{\"key\": \"\\u0000\"}'", "'{\"workers\": ' || repeat('9', 100000) || '}'",
    "'{\"waves\": 1e131071}'", "'{\"key_from\": [' || repeat('1e100000,', 3000) || '1]}'",
    "'{\"key\": \"' || repeat('x', 200000000) || '\"}'",
    "'{\"on_end\": \"' || repeat(chr(92) || 'u0001', 160000) || '\"}'",
    "'{\"throttle_query\": \"SELECT ' || repeat('1,', 500000) || '1\"}'", "'[' || repeat('[],', 340000) || '1]'",
    "(SELECT json_object_agg('k' || g, g)::text FROM generate_series(1, 20000) g)",
    "'{\"settings\": ' || (SELECT json_object_agg('a.k' || g, g::text)::text FROM generate_series(1, 3000) g) || '}'",
)  # fmt: skip
NUMBERS = (
    "NULL",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "10",
    "100",
    "1000",
    "2147483647",
    "-2147483648",
    "9223372036854775807",
    "-9223372036854775808",
)
ODD_NUMBERS = ("'x'", "1.5", "1e30", "'1'", "' 7 '", "99999999999999999999", "''", "'NaN'", "true", "now()", "'{1}'")
SETTINGS = (
    "statement_timeout = 1", "statement_timeout = 3", "lock_timeout = 1", "search_path = ''", "search_path = nothing",
    "search_path = pg_temp", "search_path = backfill, public", "DateStyle = 'German, DMY'",
    "client_encoding = LATIN1", "client_encoding = SQL_ASCII", "client_encoding = SJIS", "client_encoding = UTF8",
    "standard_conforming_strings = off", "escape_string_warning = off", "IntervalStyle = iso_8601",
    "row_security = off", "work_mem = '64kB'", "max_stack_depth = '100kB'", "client_min_messages = debug5",
    "client_min_messages = error", "default_transaction_read_only = on", "extra_float_digits = -15",
    "jit_above_cost = 0", "default_transaction_isolation = serializable",
    "default_transaction_isolation = 'repeatable read'", "default_transaction_deferrable = on",
    "transform_null_equals = on", "quote_all_identifiers = on", "array_nulls = off", "bytea_output = escape",
    "enable_indexscan = off", "enable_seqscan = off", "TimeZone = 'Asia/Kathmandu'", "xmloption = document",
    "plan_cache_mode = force_generic_plan", "min_parallel_table_scan_size = 0", "parallel_setup_cost = 0",
    "temp_buffers = 100", "cursor_tuple_fraction = 0.01",
    "geqo_threshold = 2", "from_collapse_limit = 1", "constraint_exclusion = on", "lc_messages = 'C'",
    "backslash_quote = off", "application_name = 'é'", "role = idle", "session_replication_role = replica",
    "role = none", "log_min_messages = debug1", "password_encryption = md5", "gin_fuzzy_search_limit = 1",
    "synchronous_commit = off", "compute_query_id = on", "track_activities = off",
)  # fmt: skip


@dataclass(frozen=True)
class Function:
    """A function or procedure as the catalog has it."""

    schema: str
    name: str
    procedure: bool
    arguments: tuple[tuple[str, str], ...]
    defaults: int


@dataclass(frozen=True)
class Script:
    """What a session does: statements before, the calls, and what ends it. `stays`: what the calls did may stay."""

    user: str
    before: tuple[str, ...]
    calls: tuple[str, ...]
    after: tuple[str, ...]
    stays: bool
    extended: bool


def quoted(text: str) -> str:
    """A literal that means the same whatever standard_conforming_strings says."""
    body = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{body}'"


def text_value(draw: Random) -> str:
    """A text for whatever argument."""
    chance = draw.random()
    if chance < 0.10:
        return "NULL"
    if chance < 0.40:
        return quoted(draw.choice(NASTY))
    if chance < 0.50:
        return draw.choice(HUGE)
    if chance < 0.60:
        return quoted("".join(chr(draw.choice((*range(1, 300), 0x2028, 0xFFFD, 0x1F4A9))) for _ in range(40)))
    if chance < 0.62:
        return quoted(draw.choice("xé'(") * 1_000_000)
    clauses = make_clauses(draw, "t")
    text = clauses.where_clause or clauses.set_clause if chance < 0.7 else clauses.set_clause
    return quoted(draw.choice(("n = n + 1", "n = 1", "note = 'x'", mutate(draw, "n = n + 1"), text)))


def json_value(draw: Random) -> str:
    """Options, or what is none."""
    chance = draw.random()
    if chance < 0.08:
        return "NULL"
    if chance < 0.3:
        return f"({draw.choice(JSON)})::jsonb"
    pairs = (f"{json.dumps(draw.choice(KEYS))}: {draw.choice(VALUES)}" for _ in range(draw.choice((0, 1, 1, 2, 4))))
    return quoted(f"{{{', '.join(pairs)}}}")


def value(draw: Random, name: str, kind: str, jobs: list[int]) -> str:
    """An expression for an argument of this name and type."""
    if draw.random() < 0.03:
        return draw.choice(
            (
                "DEFAULT",
                "ARRAY[1]",
                "ROW(1)",
                "(SELECT 1)",
                "pg_sleep(0)",
                "x'ff'",
                "'x'::bytea",
                "1.5::float4",
                "$1",
                ":x",
                "*",
            )
        )
    if kind in ("text", "name"):
        return text_value(draw)
    if kind == "jsonb":
        return json_value(draw)
    if kind == "boolean":
        return draw.choice(("NULL", "true", "false", "'maybe'", "1", "'t'"))
    if kind == "regclass":
        found = draw.choice(RELATIONS)
        return draw.choice(
            (quoted(found), quoted(found), f"{quoted(found)}::regclass", f"to_regclass({quoted(found)})", "NULL")
        )
    if name == "job_id" and jobs and draw.random() < 0.7:
        return str(draw.choice(jobs))
    if draw.random() < 0.1:
        return draw.choice(ODD_NUMBERS)
    return draw.choice(NUMBERS) if draw.random() < 0.8 else str(draw.randrange(-(2**33), 2**33))


def invocation(draw: Random, function: Function, jobs: list[int]) -> str:
    """The function with its arguments: by position, by name, or both; some left out."""
    arguments, least = function.arguments, len(function.arguments) - function.defaults
    count = draw.randint(least, len(arguments)) if draw.random() < 0.95 else draw.randrange(len(arguments) + 2)
    named_from = draw.choice((0, count, len(arguments), min(1, count)))
    shown = []
    for at, (name, kind) in enumerate((*arguments, ("more", "integer"))[:count]):
        shown.append((f"{name} => " if at >= named_from else "") + value(draw, name, kind, jobs))
    if named_from < count and draw.random() < 0.3:
        shown[named_from:] = draw.sample(shown[named_from:], count - named_from)
    if function.name in ("start", "plan", "preview") and draw.random() < 0.4:
        # One that has a chance.
        name = draw.choice(("NULL", quoted(f"job {draw.randrange(4)}")))
        relation, extra = draw.choice(("t", "u", "fresh", "parts", "unlogged")), json_value(draw)
        shown = [
            f"'{relation}'",
            "10",
            "0",
            "'n = n + 1'",
            draw.choice(("NULL", "'n < 3'")),
            name,
            draw.choice(("'{}'", extra)),
        ]
    return f"{function.schema}.{function.name}({', '.join(shown)})"


def statement(draw: Random, function: Function, jobs: list[int]) -> str:
    """A statement that calls the function."""
    call = invocation(draw, function, jobs)
    if function.procedure:
        if function.name == "wait" and "timeout_ms" not in call and call.count(",") != 1:
            call = (
                f"backfill.wait({draw.choice([*map(str, jobs), '1', 'NULL'])}, {draw.choice(('0', '1', '20', '-1'))})"
            )
        if function.name == "set_not_null" and draw.random() < 0.7:
            table, column = draw.choice(("t", "u", "parts", "fresh", "v")), draw.choice(("n", "id", "none"))
            call = f"backfill.set_not_null('{table}', '{column}', {draw.choice(('1', '20', '0'))}, 1)"
        return draw.choice((f"CALL {call}", f"CALL {call}", f"DO $w$ BEGIN CALL {call}; END $w$", f"SELECT {call}"))
    form = draw.randrange(14)
    if form == 0:
        return f"SELECT * FROM {call}"
    if form == 1:
        return f"SELECT {call} FROM generate_series(1, 2)"
    if form == 2:
        return f"SELECT 1 WHERE {call} IS NOT NULL"
    if form == 3:
        return f"EXPLAIN (ANALYZE, COSTS off) SELECT {call}"
    if form == 4 and "$w$" not in call:
        return f"DO $w$ BEGIN PERFORM {call}; END $w$"
    if form == 5 and "$w$" not in call:
        caught = "PERFORM set_config('fuzz.caught', SQLSTATE, false)"
        return f"DO $w$ BEGIN PERFORM {call}; EXCEPTION WHEN OTHERS THEN {caught}; END $w$"
    if form == 6:
        return f"WITH c AS MATERIALIZED (SELECT {call} AS r) SELECT count(*) FROM c a, c b"
    if form == 7:
        return f"SELECT CASE WHEN random() < 2 THEN {call}::text END"
    if form == 8:
        return f"CREATE TEMP TABLE made AS SELECT {call} AS r"
    return f"SELECT {call}"


def look(draw: Random, views: list[str]) -> str:
    """A look at one of the views."""
    view = draw.choice(views)
    where = draw.choice(
        (
            "",
            "",
            "WHERE job_id = 1",
            "WHERE job_id::text ~ '1'",
            "WHERE name IS NOT NULL AND length(name) > 1 / (job_id - 1)",
        )
    )
    return f"SELECT {draw.choice(('*', 'count(*)', 'v::text', 'to_jsonb(v)'))} FROM backfill.{view} v {where}"


def make(draw: Random, functions: list[Function], views: list[str], jobs: list[int], crowd: bool = False) -> Script:
    """What a session does, as anybody and under whatever; in a crowd, what it did can be known from its answers."""
    user = draw.choice(ROLES)
    before = [f"SET {setting}" for setting in draw.sample(SETTINGS, draw.choice((0, 0, 1, 1, 2, 4)))]

    def one() -> str:
        if draw.random() < 0.08:
            return look(draw, views)
        return statement(draw, draw.choice(functions), jobs)

    calls = [one() for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    if any("EXCEPTION WHEN OTHERS" in call for call in calls):
        # PostgreSQL 15.20 itself crashes, once in some thousand tries, without the extension loaded: a timeout that
        # comes while a block of PL/pgSQL catches, within a savepoint (plpgsql_subxact_cb).
        before = [setting for setting in before if "statement_timeout" not in setting]
    extended = draw.random() < 0.3
    frame = "autocommit" if crowd else draw.choice(FRAMES)
    if crowd:
        calls = [
            call for call in calls if not call.startswith(("DO", "CREATE", "EXPLAIN", "WITH", "SELECT 1 WHERE"))
        ] or ["SELECT backfill.pause_all()"]
    opening, closing, stays = FRAME[frame]
    return Script(user, (*before, *opening), tuple(calls), closing, stays, extended)


# How a transaction begins, how it ends, and whether what was done in it may stay.
FRAME: dict[str, tuple[tuple[str, ...], tuple[str, ...], bool]] = {
    "autocommit": ((), (), True),
    "block": (("BEGIN",), ("COMMIT",), True),
    "rolled back": (("BEGIN",), ("ROLLBACK",), False),
    "savepoint": (("BEGIN", "SAVEPOINT s"), ("ROLLBACK TO s", "COMMIT"), False),
    "released": (("BEGIN", "SAVEPOINT s"), ("RELEASE s", "ROLLBACK"), False),
    "aborted": (("BEGIN", "SELECT 1 / 0"), ("COMMIT",), False),
    "prepared": (("BEGIN", "SELECT 1"), ("PREPARE TRANSACTION 'fuzz'", "ROLLBACK PREPARED 'fuzz'"), False),
    "read only": (("BEGIN READ ONLY",), ("COMMIT",), False),
    "serializable": (("BEGIN ISOLATION LEVEL SERIALIZABLE",), ("ROLLBACK",), False),
    "snapshot": (("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM pg_class"), ("COMMIT",), True),
    "deferred error": (("BEGIN",), ("SELECT 1 / 0", "COMMIT"), False),
    "cursor": (("BEGIN", "DECLARE k CURSOR FOR SELECT 1"), ("CLOSE k", "ROLLBACK"), False),
}
FRAMES = ("autocommit", "autocommit", "autocommit", *FRAME)
