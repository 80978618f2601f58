"""backfill.procedure: what was defined here runs as a plain procedure, also on a server without the extension."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from harness import Cluster, Database, Server, wait_until
from harness.jobs import wait_for
from harness.server import clean_environment
from harness.tables import counts, make_table

ROWS = 5000


@pytest.fixture(scope="module")
def bare_cluster(server: Server) -> Iterator[Cluster]:
    """A server that knows nothing of the extension."""
    with Cluster(server=server, preload=False) as cluster:
        yield cluster


_numbers = iter(range(1, 1_000_000))


@pytest.fixture
def bare(bare_cluster: Cluster) -> Database:
    """A database of it."""
    name = f"bare_{next(_numbers)}"
    bare_cluster.sql(f"CREATE DATABASE {name}")
    return bare_cluster.database(name)


def script(db: Database, table: str, set_clause: str, where: str | None = None, **more: str) -> str:
    """The script of a backfill that is defined for that."""
    job = db.value(
        "SELECT backfill.define(%s::text::regclass, %s, %s, options => %s::jsonb)",
        [table, set_clause, where, more.get("options", "{}")],
    )
    return db.value("SELECT backfill.procedure(%s::bigint, %s)", [job, more.get("style", "standalone")])


def routine(db: Database) -> str:
    """The procedure that is there, as it is called."""
    return db.value("SELECT oid::regproc::text FROM pg_proc WHERE proname LIKE 'backfill%' AND prokind = 'p'")


def call(db: Database, arguments: str = "", *, procedure: str | None = None) -> list[str]:
    """Calls it; gives what it said."""
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        said: list[str] = []
        connection.add_notice_handler(lambda diagnostic: said.append(str(diagnostic.message_primary)))
        connection.execute(f"CALL {procedure or routine(db)}({arguments})")
        return said


def background(db: Database, arguments: str) -> subprocess.Popen[str]:
    """The same in a psql of its own."""
    command = [db.cluster.server.program("psql"), "-X", "-c", f"CALL {routine(db)}({arguments})", db.dsn()]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment()
    )


def calling(db: Database) -> list[int]:
    """The sessions that are at it."""
    found = db.sql(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL%%' AND state = 'active' AND datname = %s", [db.name]
    )
    return [pid for (pid,) in found]


def updated(db: Database) -> int:
    """How many rows the checkpoint tells of."""
    return db.value("SELECT COALESCE(sum(rows_updated), 0)::int FROM backfill_t_checkpoint")


def is_flushed(db: Database, place: str) -> bool:
    """Whether the WAL is on disk up to there."""
    return db.value("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", [place])


TABLES = {
    "bigint": ("id bigint PRIMARY KEY", "g"),
    "two columns": ('region text COLLATE "C", id int, PRIMARY KEY (region, id)', "chr(97 + g % 26), g"),
    "uuid": ("id uuid PRIMARY KEY", "md5(g::text)::uuid"),
    "collation": ("id text PRIMARY KEY", "CASE g % 2 WHEN 0 THEN upper(md5(g::text)) ELSE md5(g::text) END"),
    "dates": ("at timestamptz PRIMARY KEY", "'epoch'::timestamptz + g * interval '1 hour'"),
    "odd names": ('"The ""Key""\n{{x}} 100%" bigint PRIMARY KEY', "g"),
    "char(n)": ("code char(6) PRIMARY KEY", "lpad(g::text, 6, '0')"),
    "bit(n)": ("code bit(16) PRIMARY KEY", "g::bit(16)"),
    "a long name and its number": (f'{"k" * 63} bigint, "1" bigint, PRIMARY KEY ({"k" * 63}, "1")', "g, g"),
    "variables": ("_rows bigint, found int, _after__rows int, PRIMARY KEY (_rows)", "g, g, g"),
    "long names": (f"{'k' * 63} bigint, {'k' * 62}l bigint, PRIMARY KEY ({'k' * 63}, {'k' * 62}l)", "g, g"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_it_does_what_the_job_does(db: Database, bare: Database, kind: str) -> None:
    """The same table on both servers: one is changed by the job, one by the procedure."""
    key, values = TABLES[kind]
    for one in (db, bare):
        one.sql(f'CREATE TABLE "T %" ({key}, n int DEFAULT 0, v int)')
        one.sql(f'INSERT INTO "T %" SELECT {values}, 0, g FROM generate_series(1, {ROWS}) g')
    text = script(db, '"T %"', "n = n + v", "v % 3 > 0")
    assert "backfill.define" not in text and "backfill.start" not in text
    bare.psql(text)
    said = call(bare, "100, 0")
    updated = ROWS - ROWS // 3
    assert said[-1].endswith(f"{updated} rows updated in {ROWS // 100} batches"), said
    job = db.value("SELECT backfill.start('\"T %\"', set_clause => 'n = n + v', where_clause => 'v % 3 > 0')")
    db.sql("CALL backfill.wait(%s)", [job])
    rows = 'SELECT t::text FROM "T %" t ORDER BY v'
    assert db.sql(rows) == bare.sql(rows)
    # Once more: done is done.
    assert call(bare)[-1] == said[-1]
    assert db.sql(rows) == bare.sql(rows)


@pytest.mark.parametrize(
    "index",
    ["(k DESC)", "(k NULLS FIRST)", "(k DESC NULLS LAST)", '(k COLLATE "C")'],
    ids=lambda name: name.strip("()"),
)
def test_odd_indexes_are_read_in_their_order(db: Database, bare: Database, index: str) -> None:
    """No sort: the index gives the rows as they are wanted."""
    for one in (db, bare):
        one.sql("CREATE TABLE t (k text NOT NULL, n int DEFAULT 0)")
        one.sql(f"INSERT INTO t SELECT 'k' || g FROM generate_series(1, {ROWS}) g")
        one.sql(f"CREATE UNIQUE INDEX t_k ON t {index}")
        one.sql("ANALYZE t")
    bare.psql(script(db, "t", "n = n + 1"))
    assert call(bare, "300, 0")
    assert counts(bare) == [(1, ROWS)]
    text = script(db, "t", "n = n + 1")
    batch_end = next(part for part in text.split(";") if "OFFSET _batch_size - 1" in part)
    query = batch_end[batch_end.index("SELECT") :].replace("INTO _end_k", "").replace("_batch_size - 1", "99")
    query = query.replace("_first_k", "'k1'").replace("_last_k", "'k9'")
    plan = "\n".join(line for (line,) in bare.sql(f"EXPLAIN {query}"))
    assert "Sort" not in plan and "Index" in plan, plan


def test_a_partitioned_table(db: Database, bare: Database) -> None:
    """It goes by the key of the whole."""
    for one in (db, bare):
        one.sql("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0) PARTITION BY HASH (id)")
        for part in range(3):
            one.sql(f"CREATE TABLE t{part} PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER {part})")
        one.sql(f"INSERT INTO t SELECT generate_series(1, {ROWS})")
    bare.psql(script(db, "t", "n = t.n + 1"))
    call(bare, "300, 0")
    assert counts(bare) == [(1, ROWS)]


def test_without_a_key_it_goes_by_pages(db: Database, bare: Database) -> None:
    """Several passes, since rows move; a clause that still holds afterwards is found out."""
    for one in (db, bare):
        one.sql("CREATE TABLE t (v int, n int DEFAULT 0)")
        one.sql(f"INSERT INTO t SELECT generate_series(1, {ROWS})")
    text = script(db, "t", "n = n + 1", "n = 0")
    bare.psql(text)
    call(bare, "1, 0")
    assert counts(bare) == [(1, ROWS)]
    bare.psql(text.replace("(n = 0)", "(n >= 0)").replace("backfill_t", "backfill_other"))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="still holds") as caught:
        call(bare, procedure="backfill_other")
    assert caught.value.diag.message_hint
    assert counts(bare) == [(1, ROWS)]


def test_whatever_kills_it_each_row_is_done_once(db: Database, bare: Database) -> None:
    """Backends are killed by -9, which takes the server down, and the server crashes as a whole."""
    rows, chance = 60_000, random.Random(3)
    make_table(db, rows)
    make_table(bare, rows)
    bare.psql(script(db, "t", "n = n + 1"))
    for blow in range(6):
        one = background(bare, "50, 5")
        before = updated(bare)
        goal = before + chance.randint(100, 1000)
        wait_until(lambda goal=goal: updated(bare) > goal, 60, "some progress")
        # Commits don't wait for the disk: what is not there yet is lost with its checkpoint.
        place = bare.value("SELECT pg_current_wal_insert_lsn()::text")
        wait_until(lambda place=place: is_flushed(bare, place), 60, "the disk")
        if blow == 5:
            bare.cluster.crash()
            bare.cluster.start()
        else:
            (pid,) = calling(bare)
            assert bare.cluster.kill_backend(pid)
        one.communicate(timeout=60)
        assert one.returncode != 0
    done = bare.sql("SELECT batches, rows_updated, finished_at IS NULL FROM backfill_t_checkpoint")
    assert done[0][1] > 600 and done[0][1] < rows and done[0][2], done
    assert counts(bare) == [(0, rows - done[0][1]), (1, done[0][1])]
    call(bare, "500, 0")
    assert counts(bare) == [(1, rows)]


def test_calls_at_the_same_time_take_turns(db: Database, bare: Database) -> None:
    """Both come to the end, and no row is done twice."""
    make_table(db, ROWS)
    make_table(bare, ROWS)
    bare.psql(script(db, "t", "n = n + 1"))
    several = [background(bare, "20, 1") for _ in range(3)]
    outputs = [one.communicate(timeout=120)[0] for one in several]
    assert all(f"{ROWS} rows updated" in output for output in outputs), outputs
    assert counts(bare) == [(1, ROWS)]


def test_it_gives_way_to_locks(db: Database, bare: Database) -> None:
    """A row that somebody has locked is waited for a little, then again; it says so, and gives up in the end."""
    make_table(db, ROWS)
    make_table(bare, ROWS)
    bare.psql(script(db, "t", "n = n + 1"))
    blocker = bare.connect(autocommit=False)
    blocker.execute("SELECT FROM t WHERE id = 2500 FOR UPDATE")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        call(bare, "1000, 0, 20, 1")
    assert counts(bare) == [(0, ROWS - 2000), (1, 2000)]
    one = background(bare, "1000, 0, 20")
    resting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: bare.value(resting) > 0, 60, "a pause after a wait in vain")
    blocker.rollback()
    output = one.communicate(timeout=60)[0]
    assert "the batch is tried again" in output and f"{ROWS} rows updated" in output
    assert counts(bare) == [(1, ROWS)]


def test_nothing_is_held_in_a_pause(db: Database, bare: Database) -> None:
    """No lock on the table, no transaction id."""
    make_table(db, ROWS)
    make_table(bare, ROWS)
    bare.psql(script(db, "t", "n = n + 1"))
    one = background(bare, "1000, 60000")
    sleeping = "SELECT pid, backend_xid::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    [(pid, xid)] = wait_until(lambda: bare.sql(sleeping), 60, "a pause")
    assert xid is None
    assert bare.sql("SELECT relation::regclass FROM pg_locks WHERE pid = %s AND relation = 't'::regclass", [pid]) == []
    assert counts(bare) == [(0, ROWS - 1000), (1, 1000)]
    bare.value("SELECT pg_cancel_backend(%s)", [pid])
    one.communicate(timeout=60)
    call(bare, "1000, 0")
    assert counts(bare) == [(1, ROWS)]


def test_an_error_ends_it_and_it_goes_on_where_it_was(db: Database, bare: Database) -> None:
    """What was committed stays."""
    for one in (db, bare):
        make_table(one, ROWS)
        one.sql("ALTER TABLE t ADD d int DEFAULT 1")
    bare.sql("UPDATE t SET d = 0 WHERE id = 3333")
    bare.psql(script(db, "t", "n = n + 1 / d"))
    with pytest.raises(psycopg.errors.DivisionByZero):
        call(bare, "1000, 0")
    assert counts(bare) == [(0, ROWS - 3000), (1, 3000)]
    bare.sql("UPDATE t SET d = 1")
    call(bare, "1000, 0")
    assert counts(bare) == [(1, ROWS)]


def test_within_a_transaction_block_it_changes_nothing(db: Database, bare: Database) -> None:
    """It commits, and can't there."""
    make_table(db, ROWS)
    make_table(bare, ROWS)
    bare.psql(script(db, "t", "n = n + 1"))
    result = bare.psql("BEGIN; CALL backfill_t(); COMMIT;", check=False)
    assert "invalid transaction termination" in result.stderr
    assert counts(bare) == [(0, ROWS)]
    assert bare.sql("TABLE backfill_t_checkpoint") == []


def test_clauses_mean_what_they_mean_in_the_job(db: Database, bare: Database) -> None:
    """Settings of who defined it; columns of other tables that are called as its variables; dollar quotes."""
    for one in (db, bare):
        one.sql(
            "CREATE SCHEMA s; CREATE TABLE s.other (k int, _rows int, _batches int);"
            "INSERT INTO s.other VALUES (1, 7, 8)"
        )
        one.sql("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, d text DEFAULT '02/03/2024', e text)")
        one.sql("INSERT INTO t SELECT generate_series(1, 10)")
    with psycopg.connect(db.dsn(), autocommit=True) as author:
        author.execute("SET search_path = s, public; SET DateStyle = 'ISO, DMY'")
        job = author.execute(
            "SELECT backfill.define('t', $x$n ="
            " (SELECT _rows + _batches FROM other WHERE k = $backfill$1$backfill$::int),"
            " e = to_char(d::date, 'FMMonth') || '%' || $backfill$'$backfill$$x$)"
        ).fetchall()[0][0]
    bare.psql(db.value("SELECT backfill.procedure(%s::bigint)", [job]))
    call(bare)
    assert bare.sql("SELECT DISTINCT n, e FROM t") == [(15, "March%'")]
    assert bare.value("SHOW DateStyle") == "ISO, MDY"


def test_bounds_triggers_and_pace_are_the_jobs(db: Database, bare: Database) -> None:
    """Options that say what is done are part of it."""
    for one in (db, bare):
        make_table(one, ROWS)
        one.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it fired'; END $$;"
            "CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    options = '{"key_from": 1000, "key_to": 1999, "triggers": "skip", "lock_timeout_ms": 77}'
    text = script(db, "t", "n = n + 1", options=options)
    assert "_lock_timeout_ms integer DEFAULT 77" in text
    bare.psql(text)
    call(bare, "64, 0")
    assert counts(bare) == [(0, ROWS - 1000), (1, 1000)]
    assert bare.sql("SELECT min(id), max(id) FROM t WHERE n = 1") == [(1000, 1999)]
    assert bare.value("SHOW session_replication_role") == "origin"


def test_one_batch_as_a_function(db: Database, bare: Database) -> None:
    """For review: the statement with its range, and nothing else."""
    make_table(db, ROWS)
    make_table(bare, ROWS)
    bare.psql(script(db, "t", "n = n + 1", "id % 2 = 0", style="batch"))
    assert bare.value("SELECT backfill_t_batch(11, 20)") == 5
    assert bare.sql("SELECT id FROM t WHERE n > 0 ORDER BY id") == [(12,), (14,), (16,), (18,), (20,)]


def test_bounds_mean_what_they_meant_to_their_author(db: Database, bare: Database) -> None:
    """Under other settings, too: for the job, and for the procedure."""
    for one in (db, bare):
        one.sql("CREATE TABLE t (at timestamptz PRIMARY KEY, n int DEFAULT 0)")
        one.sql(
            "INSERT INTO t SELECT '2024-01-01 00:00+00'::timestamptz + g * interval '1h' FROM generate_series(0, 99) g"
        )
    bounds = '{"key_from": "02/01/2024 00:00", "key_to": "03/01/2024 00:00"}'
    define = f"backfill.define('t', 'n = n + 1', options => '{bounds}')"
    job = db.value(f"SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'; SELECT {define}")
    bare.psql(db.value("SELECT backfill.procedure(%s::bigint)", [job]))
    bare.sql(f"ALTER DATABASE {bare.name} SET TimeZone = 'America/Los_Angeles'")
    call(bare)
    db.sql("SELECT backfill.start('t')")
    wait_for(db, job, "paused")
    wanted = "at BETWEEN '2024-01-02 00:00+09' AND '2024-01-03 00:00+09'"
    for one in (db, bare):
        assert one.sql(f"SELECT ({wanted}) = (n = 1), count(*) FROM t GROUP BY 1") == [(True, 100)]
        assert one.value("SELECT count(*) FROM t WHERE n = 1") == 25


def test_no_other_index_is_used(db: Database, bare: Database) -> None:
    """One that the WHERE clause could use would be read to its end in each batch, where statistics are old."""
    for one in (db, bare):
        one.sql("CREATE TABLE t (id bigint PRIMARY KEY, g int, kilos numeric) WITH (autovacuum_enabled = off)")
        one.sql("INSERT INTO t SELECT g, g, 1 FROM generate_series(1, 1000) g; CREATE INDEX t_kilos ON t (kilos)")
        one.sql("ANALYZE t; INSERT INTO t SELECT g, g FROM generate_series(1001, 20000) g")
    bare.psql(script(db, "t", "kilos = g", "kilos IS NULL"))
    bare.sql("SELECT pg_stat_reset()")
    call(bare, "500, 0")
    scans = "SELECT idx_tup_read FROM pg_stat_all_indexes WHERE indexrelname = 't_kilos'"
    assert bare.value(scans) == 0
    assert bare.value("SELECT count(*) FROM t WHERE kilos IS NULL") == 0


def test_isolation_is_its_own(db: Database, bare: Database) -> None:
    """Under a stricter default calls would fail where they are to take turns."""
    for one in (db, bare):
        make_table(one, ROWS)
    bare.psql(script(db, "t", "n = n + 1"))
    bare.sql(f"ALTER DATABASE {bare.name} SET default_transaction_isolation = 'repeatable read'")
    calls = [background(bare, "50, 1") for _ in range(3)]
    for one in calls:
        assert one.communicate(timeout=60)[0].endswith("CALL\n"), one
        assert one.returncode == 0
    assert counts(bare) == [(1, ROWS)]


def test_install_creates_it(db: Database) -> None:
    """With the caller's rights, once; by name and by id."""
    make_table(db, ROWS)
    job = db.value("SELECT backfill.define('t', 'n = n + 1', name => 'Tick 100%')")
    text = db.value("SELECT backfill.procedure('Tick 100%', install => true)")
    assert text == db.value("SELECT backfill.procedure(%s::bigint)", [job])
    call(db, "1000, 0")
    assert counts(db) == [(1, ROWS)]
    with pytest.raises(psycopg.errors.DuplicateTable) as caught:
        db.sql("SELECT backfill.procedure('Tick 100%', install => true)")
    assert "DROP ROUTINE" in str(caught.value.diag.message_hint) and not caught.value.diag.context
    db.psql(str(caught.value.diag.message_hint).split(" by ")[1])
    db.sql("SELECT backfill.procedure('Tick 100%', install => true)")


def test_bad_calls_say_what_is_wrong(db: Database) -> None:
    """Each with a hint; nothing is created."""
    make_table(db, 10)
    db.sql("CREATE TABLE p (id int, n int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT")
    db.sql("CREATE ROLE passer_by LOGIN; CREATE ROLE author LOGIN; GRANT ALL ON t TO author")
    mine = db.value("SELECT backfill.define('t', 'n = 1')")
    theirs = db.value("SELECT backfill.define('t', 'n = 2')", user="author")
    parted = db.value("SELECT backfill.define('p', 'n = 3', 'n IS NULL')")
    dry = db.value("SELECT backfill.start('t', set_clause => 'n = 1', options => '{\"dry_run\": true}')")
    bad = [
        ("99::bigint", "postgres", "42704", "does not exist"),
        ("'nobody'", "postgres", "42704", "no backfill is called"),
        ("NULL::bigint", "postgres", "22004", "job_id"),
        ("NULL::text", "postgres", "22004", "name"),
        (f"{mine}, 'fancy'", "postgres", "22023", "style"),
        (f"{mine}, install => NULL", "postgres", "22004", "install"),
        (f"{mine}", "passer_by", "42501", f"job {mine}"),
        (f"{theirs}, install => true", "author", "42501", "permission denied for schema public"),
        (f"{parted}", "postgres", "0A000", "no key"),
        (f"{dry}", "postgres", "42809", "changes nothing"),
    ]
    for arguments, user, sqlstate, part in bad:
        with pytest.raises(psycopg.Error) as caught:
            db.sql(f"SELECT backfill.procedure({arguments})", user=user)
        assert caught.value.sqlstate == sqlstate, (arguments, caught.value)
        assert part in str(caught.value.diag.message_primary), (arguments, caught.value)
        assert caught.value.diag.message_hint, arguments
    assert db.sql("SELECT FROM pg_proc WHERE proname LIKE 'backfill%' AND pronamespace = 'public'::regnamespace") == []
    db.sql("DROP TABLE t; DROP OWNED BY author, passer_by; DROP ROLE author, passer_by")
    with pytest.raises(psycopg.errors.UndefinedTable, match="no longer exists"):
        db.sql(f"SELECT backfill.procedure({mine})")
