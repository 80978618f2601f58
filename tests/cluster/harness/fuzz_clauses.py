"""Random SET lists and WHERE clauses: from a grammar of typed expressions, from a list of tricks, and mutated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

# The table, but for its name; the clauses say {T} for that.
COLUMNS = """
    i int, b bigint, s smallint DEFAULT 7, n numeric(8,2), d double precision, t text, v varchar(10), c char(5),
    f boolean, dt date, ts timestamptz, iv interval, u uuid, j jsonb, a int[], ta text[], y bytea, e mood, dm positive,
    r pair, ip inet, rg int4range, bs bit(4), nn int NOT NULL DEFAULT 1, ck int CHECK (ck < 1000), "odd ""Name" text
"""
NAMES = 'id, i, b, s, n, d, t, v, c, f, dt, ts, iv, u, j, a, ta, y, e, dm, r, ip, rg, bs, nn, ck, "odd ""Name"'
# What the clauses may use besides, and the rows that each table begins with.
WORLD = f"""
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (x int, y text);
CREATE TABLE look (k int PRIMARY KEY, x int, y text);
INSERT INTO look SELECT g, g * 3, 'y' || g FROM generate_series(0, 30) g;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION steady(text) RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN upper($1); END';
CREATE SEQUENCE bumps;
CREATE FUNCTION bump(int) RETURNS int LANGUAGE sql VOLATILE AS $$SELECT nextval('bumps')::int + $1$$;
CREATE FUNCTION strict_one(x int, y int DEFAULT 3) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN IF x = 13 THEN RAISE EXCEPTION 'thirteen'; END IF; RETURN x + y; END$$;
CREATE TABLE template (id int, {COLUMNS});
INSERT INTO template SELECT g, nullif(g % 11, 7), g * 1000000007::bigint, g % 5, (g - 20) * 1.25, (g - 20) / 3.0,
    'text ' || g, 'v' || g, 'c' || g % 9, g % 3 = 0, date '2024-02-27' + g,
    timestamptz '2024-03-30 12:00Z' + g * interval '7 hours',
    g * interval '1 day 2 hours', md5(g::text)::uuid, jsonb_build_object('k', g, 'w', jsonb_build_array(g, NULL, 'x')),
    ARRAY[g, g + 1, NULL], ARRAY['p' || g, 'q'], ('\\x' || lpad(to_hex(g), 4, '0'))::bytea, 'ok', g,
    ROW(g, 'r' || g)::pair,
    ('10.0.0.' || g)::inet, int4range(g, g + 5), g::bit(4), g, g, 'odd ' || g
    FROM generate_series(1, 40) g;
"""

# A result that depends on when, where and in which order rows are done, or on rows done before: not compared.
UNSTEADY = re.compile(
    r"random|nextval|currval|lastval|clock|now\b|timeofday|current_|local|\bctid|xmin|xmax|cmin|cmax|tableoid|txid|pg_|"
    r"gen_|_uuid|session|statement_|transaction|bump|public|\buser\b|\bone\b|\b(from|join|table|only|,)\s*\S*rows_|"
    r"settings?\b|sample|version|inet_|today|tomorrow|yesterday|backfill|query_to|table_to|schema_to|age\(",
    re.I,
)

# What each kind of expression is made of: #kind is another one of that kind, {T} the table.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "int": (
        "i", "id", "nn", "ck", "s", "dm", "(r).x", "a[1]", "a[#int]", "1", "0", "-7", "2147483647", "NULL", "13",
        "#int + #int", "#int - #int", "(#int * #int)", "#int / #int", "#int % #int", "(#num)::int", "length(#text)",
        "coalesce(#int, #int)", "CASE WHEN #bool THEN #int ELSE #int END", "CASE #int WHEN #int THEN #int END",
        "abs(#int)", "extract(day FROM #date)::int", "array_length(#ints, 1)", "(#json ->> 'k')::int", "(#text)::int",
        "(SELECT x FROM look WHERE k = #int)", "(SELECT count(*)::int FROM look WHERE look.k < {T}.i)",
        "(SELECT max(x) FROM look l WHERE l.k = {T}.id)", "(SELECT x FROM look ORDER BY k LIMIT 1 OFFSET 2)",
        "twice(#int)", "strict_one(#int)", "strict_one(y => #int, x => #int)", "greatest(#int, #int)", "(#bool)::int",
        "nullif(#int, #int)", "{T}.i", "ascii(#text)", "width_bucket(#num, 0, 10, 5)", "(#int)::smallint", "bump(#int)",
        "random()::int", "(WITH w AS (SELECT #int AS z) SELECT z FROM w)", "(VALUES (#int))", "lower(rg)", "#int << 2",
        "(SELECT z FROM unnest(#ints) AS q(z) LIMIT 1)", "(SELECT sum(z)::int FROM unnest(#ints) z)", "$q$12$q$::int",
    ),
    "num": (
        "n", "1.5", "#int", "#num * 1.1", "#num + #num", "round(#num, 1)", "(d)::numeric", "#num / #num", "1e3", "0.0",
        "(#int)::numeric(6,1)", "power(#num, 2)", "trunc(#num)", "'NaN'::numeric", "CASE WHEN #bool THEN #num END",
    ),
    "float": (
        "d", "#num", "sqrt(#num)", "ln(#num)", "#float * 2", "'infinity'::float8", "#float / #float", "exp(#num)",
    ),
    "text": (
        "t", "v", "c", "'x'", "''", "NULL", "E'a\\n\\'b'", "$$dol;lar--$$", "$a$in $$ side$a$", "U&'\\0441'", "'it''s'",
        "#text || #text", "upper(#text)", "left(#text, #int)", "repeat(#text, 3)", "(#int)::text", "md5(#text)",
        "format('%s-%s', #text, #int)", "to_char(#date, 'YYYY-MM')", "replace(#text, 'x', #text)", "(#json)::text",
        "coalesce(#text, '-')", "CASE WHEN #bool THEN #text ELSE #text END", "steady(#text)", "(r).y", "ta[1]",
        "{T}::text", "(SELECT y FROM look WHERE k = #int)", "(SELECT string_agg(y, ',' ORDER BY k) FROM look)",
        "#json ->> 'k'", "regexp_replace(#text, '[0-9]+', '#')", "concat_ws(':', #text, #int)",
        '"odd ""Name"', "e::text",
        "convert_from(y, 'UTF8')", "substring(#text FROM 2 FOR 3)", "trim(BOTH 'x' FROM #text)", "'é☃' || #text",
        "(#date)::text", "#text COLLATE \"C\"", "current_user", "quote_literal(#text)", "chr(#int)", "'a'\n'b'",
    ),
    "bool": (
        "f", "true", "#int > #int", "#int = #int", "#text LIKE '%1%'", "#text IS NULL", "#int IS NOT NULL",
        "NOT (#bool)",
        "(#bool AND #bool)", "(#bool OR #bool)", "#int BETWEEN #int AND #int", "#int IN (1, 2, #int)",
        "#int = ANY (#ints)", "EXISTS (SELECT FROM look WHERE k = #int)", "#text ~ '[0-9]'", "#date > '2024-03-01'",
        "#int IS DISTINCT FROM #int", "(i, s) = (#int, #int)", "(i, s) IN (SELECT k, x FROM look)", "#json ? 'k'",
        "#json @> '{\"k\": 3}'", "rg @> #int", "ip << '10.0.0.0/8'", "#bool IS TRUE", "{T} IS NOT NULL", "e > 'sad'",
        "r = ROW(3, 'r3')", "SELECT #int > 3", "#text SIMILAR TO '(a|b)%'", "#text LIKE 'a!%' ESCAPE '!'", "id < 20",
        "id % 3 = 0", "#int >= ALL (SELECT x FROM look WHERE k < 3)", "#num > #num", "(#text)::boolean",
        "(dt, dt + 2) OVERLAPS (#date, #date)", "#int = ANY (VALUES (1), (2))", "i OPERATOR(pg_catalog.>) 3",
    ),
    "date": ("dt", "#date + #int", "'2024-02-29'", "(#text)::date", "(ts)::date", "make_date(2024, #int, 1)", "NULL"),
    "stamp": ("ts", "ts + iv", "dt::timestamptz", "date_trunc('day', ts)", "ts AT TIME ZONE 'UTC'", "now()", "'epoch'"),
    "span": ("iv", "iv * 2", "make_interval(days => #int)", "'1 day 3:04'", "ts - '2024-01-01'", "(#text)::interval"),
    "json": (
        "j", "jsonb_build_object('z', #int)", "to_jsonb(#text)", "j || '{\"n\": 1}'",
        "jsonb_set(j, '{k}', to_jsonb(#int))",
        "j -> 'w'", "'[1, 2]'", "NULL", "to_jsonb({T})", "(#text)::jsonb",
        "jsonb_path_query_first(j, '$.w[0]')", "j - 'k'",
    ),
    "ints": (
        "a", "a || #int", "ARRAY[#int, #int]", "'{}'", "array_append(a, #int)", "a[1:2]", "ARRAY(SELECT x FROM look)",
    ),
    "texts": ("ta", "ARRAY[#text, #text]", "string_to_array(#text, ' ')", "ta || #text", "'{\"x, y\", NULL}'"),
    "uuid": ("u", "md5(#text)::uuid", "'00000000-0000-0000-0000-000000000001'", "gen_random_uuid()", "(#text)::uuid"),
    "bytes": ("y", "convert_to(#text, 'UTF8')", "'\\x00ff'", "y || y", "decode(#text, 'hex')", "sha256(y)"),
    "mood": ("e", "'happy'", "'furious'", "(#text)::mood", "CASE WHEN #bool THEN 'sad' ELSE e END", "NULL"),
    "pair": ("r", "ROW(#int, #text)", "'(1,z)'", "ROW(#int, #text)::pair", "(#int, #text)", "NULL"),
    "inet": ("ip", "ip + #int", "'::1'", "(#text)::inet", "set_masklen(ip, #int)"),
    "range": ("rg", "int4range(#int, #int)", "rg + int4range(1, 90)", "'[3,7)'", "rg * int4range(2, 9)"),
    "bits": ("bs", "B'1010'", "~bs", "bs & B'0011'", "(#int)::bit(4)", "'101'"),
}  # fmt: skip
TARGETS = {
    "i": "int", "b": "int", "s": "int", "n": "num", "d": "float", "t": "text", "v": "text", "c": "text", "f": "bool",
    "dt": "date", "ts": "stamp", "iv": "span", "u": "uuid", "j": "json", "a": "ints", "ta": "texts", "y": "bytes",
    "e": "mood", "dm": "int", "r": "pair", "ip": "inet", "rg": "range", "bs": "bits", "nn": "int", "ck": "int",
    '"odd ""Name"': "text", "a[2]": "int", "a[1:2]": "ints", "r.x": "int", "r.y": "text", "j['k']": "json", "I": "int",
    '"t"': "text", 'U&"t"': "text",
}  # fmt: skip
# SET lists that are odd, or no SET lists at all.
TRICKS = (
    "(i, s) = (#int, #int)", "(i, t) = (SELECT x, y FROM look WHERE k = {T}.id)", "(t, v) = ROW(#text, #text)",
    "(i, s) = (SELECT #int, #int)", "i = DEFAULT", "(s, i) = (DEFAULT, #int)", "nn = DEFAULT, ck = DEFAULT",
    "id = #int", "i = #int, i = #int", "i = #int -- end", "i = /* in */ #int", "i = #int;",
    "i = #int; DROP TABLE look", "i = $1", "i = :x", "i = #int WHERE true", "i = #int WHERE true --",
    "i = #int FROM look", "i = look.x FROM look WHERE look.k = id", "i = ?", "i = #int RETURNING i",
    "i = #int RETURNING (SELECT 1)", "i = sum(i)", "i = count(*) OVER ()", "i = max(i) OVER ()",
    "i = generate_series(1, 2)", "i = (SELECT generate_series(1, 2))", "t = unnest(ta)", "i = (SELECT x FROM look)",
    "i", "i = (SELECT k, x FROM look LIMIT 1)", "i = #int) , (b = 2", "i = (#int", "SET i = 1", "i == 1", "i = 1,",
    ", i = 1", "=", "i = (WITH w AS (UPDATE look SET x = 1 RETURNING x) SELECT x FROM w)", "i = nope", "nope = 1",
    "i = {T}.nope", "* = 1", "{T}.i = 1", "public.{T}.i = 1", "i = public.{T}.i", "i = ({T}).i", "i = ({T}.*).i",
    "t = ({T}.*)::text", "t = {T}.*::text", "(i, s) = ({T}.i, {T}.s)", "(i) = (#int)", "(i) = ROW(#int)",
    "(i, s) = #int", "(i, s) = (1, 2, 3)", "() = ()", "i = OLD.i", "i = NEW.i", "i = EXCLUDED.i", "i = 'x'", "dt = 5",
    "j = 'no json'", "e = 'furious'", "u = t", "a = 1", "ctid = '(0,1)'", "tableoid = 1", "xmin = 1",
    "t = ctid::text", "t = tableoid::regclass::text", "t = xmin::text", "b = id", "i = (SELECT count(*) FROM {T})",
    "i = (SELECT i FROM {T} q WHERE q.id = {T}.id - 1)", "i = (SELECT count(*) FROM pg_class)",
    "i = #int WHERE CURRENT OF c", "i = 0x1F", "i = 1_000", "i = 0o17", "i = 1e10", "i = 99999999999", "s = 40000",
    "v = repeat('x', 11)", "t = 'a' UESCAPE '!'", "t = U&'!0041' UESCAPE '!'", "i = VARIADIC ARRAY[1]",
    "t = concat(VARIADIC ta)", "bs = X'A'", "t = N'x'", "t = XMLELEMENT(name x)", "i = (SELECT x INTO i FROM look)",
    "i = (SELECT 1 FOR UPDATE)", "i = (SELECT k FROM look LIMIT 1 FOR UPDATE)", "i = pg_sleep(0)",
    "t = pg_backend_pid()::text", "t = current_setting('search_path')", "t = set_config('a.b', 'x', false)",
    "t = current_setting('no.such')", "i = (TABLE look)", "i = (VALUES (1), (2))",
    "i = \"backfill keys\".\"backfill key 1\"", "\"\" = 1", "i = GROUPING(i)", "i = i ORDER BY i", "i = 1 LIMIT 1",
    "i = 1 UNION SELECT 1", "i = (1) ON CONFLICT DO NOTHING", "i = 1 AS x", "t = 'a' 'b'", "t = $a$x$a", "t = 'x",
    "t = \"x", "t = E'\\'", "t = E'\\x00'", "t = 'a\\'", "i = i::nope", "i = nope(i)", "i = i i", "i = i + t",
    "t = 1 + '2'", "f = i", "n = 1e7", "n = 'NaN'", "dm = -1", "dm = NULL", "nn = NULL", "ck = 1000", "a['x'] = 1",
    "a[] = 1", "r.nope = 1", "r.x.y = 1", "j.k = 1", "rg = '[5,1]'", "t = CAST(NULL AS text)", "i = CAST(t AS int)",
    "i = t::regclass::oid::int", "t = i::regclass", "i = (#int)::oid::regclass::oid::int", "t = to_regclass(t)::text",
    "i = 'pg_class'::regclass::int", "j = row_to_json({T})", "e = enum_first(e)", "t = string_agg(t, ',')",
    "t = (SELECT string_agg(t, ',') FROM look)", "f = bool_or(f)", "i = (SELECT sum({T}.i))",
    "i = (SELECT sum(id) FROM look)", "i = rank() WITHIN GROUP (ORDER BY i)", "i = sum(1) FILTER (WHERE true)",
    "t = t COLLATE nope", "ts = ts AT TIME ZONE 'Nope/Zone'", "ts = 'nope'", "ts = t", "iv = t", "i = lastval()",
    "t = pg_catalog.upper(t)", "t = public.steady(t)", "i = twice(i, i)", "i = strict_one(z => 1)", "i = 1 % 0",
    "i = id / (id - 20)", "i = 1 / (id - id)", "i = 2147483647 + id", "t = repeat('x', 100000)", "i = (SELECT i)",
    "i = (SELECT {T}.i FROM look l WHERE l.k = 3)", "t = merge_action()", "t = JSON_VALUE(j, '$.k')", "f = j IS JSON",
)  # fmt: skip
# WHERE clauses of that kind.
CONDITIONS = (
    "true --", "true; SELECT 1", "true) OR (true", "true ORDER BY i", "true LIMIT 1", "true FOR UPDATE",
    "true UNION SELECT true", "true, false", "i", "1", "NULL", "t", "'t'", "'nope'", "count(*) > 0",
    "row_number() OVER () > 1", "generate_series(1, 2) > 1", "VALUES (true)", "TABLE look", "SELECT true, false",
    "SELECT true FROM look", "SELECT true FROM look LIMIT 1", "WHERE true", "", " ", "SELECT true INTO x", "i = $1",
    "ROW(true)", "(true, false)", "(true)", "((i > 1))", "true AS x", "true x", "i > 0 WHERE true", "*",
    "CURRENT OF c", "{T}.i > 1", "public.{T}.i > 1", "nope > 1", "ctid = '(0,1)'", "ctid IN (SELECT ctid FROM {T})",
    "tableoid > 0", "id IN (SELECT id FROM {T} WHERE i > 2)", "EXISTS (SELECT FROM {T} q WHERE q.id > {T}.id)",
    "random() < 0.5", "i > (SELECT avg(i) FROM {T})", "{T} = {T}", "{T}.*::text > ''", "xmin::text > '0'",
    "WITH w AS (SELECT true AS z) SELECT z FROM w", "true COLLATE \"C\"", "i > 'x'",
    "WITH w AS (DELETE FROM look RETURNING true) SELECT true FROM w", "true IS JSON", "f AND", "AND f", "NOT", "()",
    "(", ")", "f\n-- x\n", "f /*", "f\v", "f\f", "\tf\r\n", "f\u00a0", "\u2003f", "i > 0 \\", "i > 0 \\g", "DEFAULT",
    "f IS", "f::nope", "nope(f)", "i BETWEEN 1", "i IN ()", "SELECT f GROUP BY f", "SELECT f HAVING true",
    "SELECT f WINDOW w AS ()", "SELECT f FOR UPDATE", "SELECT f FROM {T} q WHERE q.id = {T}.id",
)  # fmt: skip
# What a mutation puts in.
DICTIONARY = (
    "(", ")", "[", "]", ",", ";", "--", "/*", "*/", "'", '"', "$$", "$1", "$a$", ".", "=", "::", ":=", "=>", "*", "+",
    "%", "\\", "E'", "U&'", "NULL", "DEFAULT", "WHERE", "FROM", "SELECT", "RETURNING", "SET", "AND", "OR", "NOT",
    "CASE", "END", "OVER ()", "AS", "IN", "ANY", "ROW", "ARRAY", "i", "id", "t", "1", "0", "-1", "1e999", "'x'",
    "{T}", "look", "\u00a0", "é", "\U0001f600", "\x01", "\x7f", "\v", "\n", "\r", "\t", "public", "ctid", "f", "true",
    "0x", "$",
)  # fmt: skip
TOKENS = re.compile(r"\{T\}|\w+|'[^']*'|\s+|.", re.S)


@dataclass(frozen=True)
class Clauses:
    """A SET list and a WHERE clause, with the table's name in them."""

    set_clause: str
    where_clause: str | None

    @property
    def steady(self) -> bool:
        """Whether one UPDATE has to come to the same."""
        return not UNSTEADY.search(f"{self.set_clause} {self.where_clause or ''}")


def expression(draw: Random, kind: str, depth: int = 3) -> str:
    """An expression of the kind, as deep as that."""
    options = GRAMMAR[kind]
    if depth <= 0:
        options = tuple(option for option in options if "#" not in option) or ("NULL",)
    form = draw.choice(options)
    return re.sub(r"#([a-z]+)", lambda found: expression(draw, found[1], depth - 1), form) if depth > 0 else form


def fill(draw: Random, form: str) -> str:
    """A trick with its blanks filled."""
    return re.sub(r"#([a-z]+)", lambda found: expression(draw, found[1], 2), form)


def mutate(draw: Random, text: str) -> str:
    """The text with a few of its tokens lost, doubled, exchanged, or in strange company."""
    tokens = TOKENS.findall(text)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(tokens) + 1)
        what = draw.randrange(6)
        if what == 0 and tokens:
            del tokens[min(at, len(tokens) - 1)]
        elif what == 1 and tokens:
            tokens.insert(at, draw.choice(tokens))
        elif what == 2 and len(tokens) > 1:
            one, other = draw.sample(range(len(tokens)), 2)
            tokens[one], tokens[other] = tokens[other], tokens[one]
        elif what == 3:
            tokens = tokens[:at]
        elif what == 4 and tokens:
            tokens[at - 1] = tokens[at - 1].swapcase()
        else:
            tokens.insert(at, draw.choice(DICTIONARY))
    return "".join(tokens)


def set_list(draw: Random) -> str:
    """Some assignments to columns, now and then of an expression of another kind."""
    columns = draw.sample(list(TARGETS), draw.choice((1, 1, 2, 3)))
    kinds = [draw.choice(list(GRAMMAR)) if draw.random() < 0.05 else TARGETS[column] for column in columns]
    return ", ".join(
        f"{column} = {expression(draw, kind, draw.randrange(4))}" for column, kind in zip(columns, kinds, strict=True)
    )


def make(draw: Random, table: str) -> Clauses:
    """Clauses for the table."""
    chance = draw.random()
    set_clause = fill(draw, draw.choice(TRICKS)) if chance < 0.25 else set_list(draw)
    where: str | None = None
    if draw.random() < 0.5:
        odd = draw.random() < 0.2
        where = fill(draw, draw.choice(CONDITIONS)) if odd else expression(draw, "bool", draw.randrange(4))
    if table.endswith("bare") and draw.random() < 0.7:
        # Without a key, the clause has to fall out.
        set_clause, where = f"f = false, {set_clause}", "f" if where is None else f"f AND ({where})"
    if 0.25 <= chance < 0.45:
        set_clause = mutate(draw, set_clause)
    if where is not None and draw.random() < 0.2:
        where = mutate(draw, where)
    return Clauses(set_clause.replace("{T}", table), None if where is None else where.replace("{T}", table))
