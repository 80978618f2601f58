"""What a third reader found, who looked for verdicts that are not true, for rows that are seen without a right to them,
and for ways around the house rules: a second person, a dry run, EXECUTE that was revoked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from harness import Cluster, wait_until
from test_attack_outsider import STATE, make_tables, server  # noqa: F401

Make = Callable[..., Cluster]
ENDED = ("completed", "failed", "paused", "cancelled")
IN_KEY_ORDER = '{"walk": "key", "strategy": "sequential"}'
SET_BACK = "SELECT setval(pg_get_serial_sequence('backfill_internal.job', 'id'), %s, %s)"


def end(cluster: Cluster, job: int) -> str:
    """The state that the job ends in."""
    wait_until(lambda: cluster.value(STATE, [job]) in ENDED, 40, "its end")
    return str(cluster.value(STATE, [job]))


def pause(cluster: Cluster, job: int, user: str, rows: str = "rows_updated > 0") -> None:
    """Once it has done some."""
    wait_until(lambda: cluster.value(f"SELECT {rows} FROM backfill.progress WHERE job_id = {job}"), 30, "some rows")
    cluster.sql("SELECT backfill.pause(%s)", [job], user=user)
    wait_until(lambda: cluster.value(STATE, [job]) == "paused", 20, "the pause")


# Verdicts


@pytest.mark.parametrize("walk", ["sequential", "waves"])
def test_other_rows_are_meant_after_some_were_passed(server: Make, walk: str) -> None:  # noqa: F811
    """None of them matched, so that none was updated: they were passed all the same."""
    cluster = server()
    make_tables(cluster, "b", 1000, "bob")
    cluster.sql("ANALYZE b")
    job = cluster.value(
        "SELECT backfill.start('b', 10, 100, 'n = 1', 'n = 5', name => 'm', options => %s)",
        [json.dumps({"walk": "key", "strategy": walk, "scan_limit": 10})],
        user="bob",
    )
    pause(cluster, job, "bob", "rows_done >= 200")
    cluster.sql("SELECT backfill.redefine(%s, where_clause => 'n = 0')", [job], user="bob")
    cluster.sql("SELECT backfill.alter(%s, 1000, 0)", [job], user="bob")
    cluster.sql("SELECT backfill.resume(%s)", [job], user="bob")
    assert end(cluster, job) == "completed"
    assert cluster.value("SELECT count(*) FROM b WHERE n = 0") >= 200
    assert cluster.value("SELECT count(*) FROM backfill.events WHERE event = 'redefined midway'") == 1
    with pytest.raises(psycopg.Error, match="its clauses or settings were changed"):
        cluster.sql("SELECT backfill.require_completed('m')", user="bob")


def test_another_set_list_after_rows_were_only_passed(server: Make) -> None:  # noqa: F811
    """Those do not match before and after: nothing is in doubt."""
    cluster = server()
    make_tables(cluster, "b", 1000, "bob")
    cluster.sql("UPDATE b SET n = 5 WHERE id > 900; ANALYZE b", user="bob")
    job = cluster.value(
        "SELECT backfill.start('b', 10, 50, 'n = 1/(id-1000)', 'n = 5', name => 'm', options => %s)",
        ['{"walk": "key", "strategy": "sequential", "scan_limit": 10}'],
        user="bob",
    )
    pause(cluster, job, "bob", "rows_done >= 100")
    cluster.sql("SELECT backfill.redefine(%s, set_clause => 'n = 1')", [job], user="bob")
    cluster.sql("SELECT backfill.alter(%s, 1000, 0)", [job], user="bob")
    cluster.sql("SELECT backfill.resume(%s)", [job], user="bob")
    assert end(cluster, job) == "completed"
    cluster.sql("SELECT backfill.require_completed('m')", user="bob")


NAMES = {
    "array": ("", "regclass[]", "ARRAY[('e'||i)::regclass]"),
    "row": ("CREATE TYPE kt AS (r regclass, n int)", "kt", "row(('e'||i)::regclass, 1)::kt"),
    "domain of an array": ("CREATE DOMAIN kt AS regrole[]", "kt", "ARRAY[i::oid::regrole]"),
    "range": ("CREATE TYPE kt AS RANGE (subtype = regclass)", "kt", "kt(('e'||i)::regclass, NULL)"),
}
ROWS = {
    "row": ("CREATE TYPE kt AS (a int, b int)", "kt", "row(i, 1000 - i)::kt"),
    "array of rows": ("CREATE TYPE kt AS (a int, b int)", "kt[]", "ARRAY[row(i, 1000 - i)::kt]"),
    "domain of a row": ("CREATE TYPE kr AS (a int, b int); CREATE DOMAIN kt AS kr", "kt", "row(i, 1000 - i)::kr::kt"),
}


def keyed(cluster: Cluster, kind: tuple[str, str, str]) -> None:
    """A table of bob's with a key of a type, 40 rows."""
    made, of_type, value = kind
    cluster.sql(f"DROP OWNED BY bob; GRANT ALL ON SCHEMA public TO bob; {made}")
    cluster.sql(f"CREATE TABLE b (k {of_type} PRIMARY KEY, n int); ALTER TABLE b OWNER TO bob")
    cluster.sql(f"INSERT INTO b SELECT {value}, 0 FROM generate_series(1, 40) i; ANALYZE b", user="bob")


START_IN_KEY_ORDER = "SELECT backfill.start('b', 1, 150, set_clause => 'n = 1', options => %s)"


def test_a_key_with_names_within(server: Make) -> None:  # noqa: F811
    """Other roles exchange the names of two tables of theirs: what was kept of a key would be another place."""
    cluster = server()
    for n in range(1, 41):
        cluster.sql(f"CREATE TABLE e{n} (x int)", user="eve")
    for kind in NAMES.values():
        keyed(cluster, kind)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="no key to walk it by") as refused:
            cluster.sql(START_IN_KEY_ORDER, [IN_KEY_ORDER], user="bob")
        assert "are read as names" in str(refused.value.diag.message_detail)
        cluster.sql("DROP TABLE b; DROP TYPE IF EXISTS kt")


def test_a_key_of_a_row_type(server: Make) -> None:  # noqa: F811
    """The owner of the type drops an attribute and adds another one: what was kept of a key would be another place."""
    cluster = server()
    for kind in ROWS.values():
        keyed(cluster, kind)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="no key to walk it by") as refused:
            cluster.sql(START_IN_KEY_ORDER, [IN_KEY_ORDER], user="bob")
        assert "row type" in str(refused.value.diag.message_detail)
        # Its rows tell which of them are done.
        job = cluster.value("SELECT backfill.start('b', set_clause => 'n = 1', where_clause => 'n = 0')", user="bob")
        assert end(cluster, job) == "completed"
        assert cluster.value("SELECT count(*) FROM b WHERE n = 1") == 40
        cluster.sql("DROP TABLE b; DROP TYPE IF EXISTS kt; DROP TYPE IF EXISTS kr")


def test_the_last_verification_is_the_one_begun_last(server: Make) -> None:  # noqa: F811
    """Whichever number it has: who may write to all sequences sets that of jobs back."""
    cluster = server()
    cluster.sql("GRANT pg_write_all_data TO eve")
    make_tables(cluster, "b", 100, "bob")
    start = "SELECT backfill.start('b', set_clause => 'n = 1', where_clause => 'n = 0', name => 'm')"
    job = cluster.value(start, user="bob")
    end(cluster, job)
    cluster.sql(SET_BACK, [1000, True], user="eve")
    first = cluster.value("SELECT backfill.verify(%s)", [job], user="bob")
    end(cluster, first)
    cluster.sql("SELECT backfill.require_completed('m', verified => true)", user="bob")
    cluster.sql(SET_BACK, [500, True], user="eve")
    cluster.sql("UPDATE b SET n = 0 WHERE id < 50", user="bob")
    second = cluster.value("SELECT backfill.verify(%s)", [job], user="bob")
    end(cluster, second)
    assert second < first
    with pytest.raises(psycopg.Error, match=r"is not verified|was found to be wrong"):
        cluster.sql("SELECT backfill.require_completed('m', verified => true)", user="bob")
    again = cluster.value("SELECT backfill.reapply(%s)", [job], user="bob")
    assert end(cluster, again) == "completed"
    assert cluster.value("SELECT count(*) FROM b WHERE n = 1") == 100


# What is in rows, and what others do


def secret(cluster: Cluster) -> None:
    """A table whose column n eve may write, and not read."""
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, n text)")
    cluster.sql("INSERT INTO t SELECT i, 'pin-' || (i * 7) FROM generate_series(1, 5) i")
    cluster.sql("GRANT SELECT (id), UPDATE (n) ON t TO eve")


def test_a_dry_run_does_not_compare_what_may_not_be_read(server: Make) -> None:  # noqa: F811
    """It would tell whether a guess is right."""
    cluster = server()
    secret(cluster)
    found = []
    for guess in ("pin-20", "pin-21"):
        job = cluster.value(
            "SELECT backfill.start('t', set_clause => %s, where_clause => 'id = 3', options => '{\"dry_run\": true}')",
            [f"n = '{guess}'"],
            user="eve",
        )
        assert end(cluster, job) == "failed"
        found.append(cluster.value("SELECT last_error FROM backfill.progress WHERE job_id = %s", [job], user="eve"))
        assert "42501" in found[-1]
    assert 'column "n"' in cluster.value("SELECT last_error FROM backfill.progress WHERE job_id = %s", [job])
    assert "GRANT SELECT" in cluster.value("SELECT last_error FROM backfill.progress WHERE job_id = %s", [job])
    # The job itself does what an UPDATE may.
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = $$x$$', where_clause => 'id = 3')", user="eve")
    assert end(cluster, job) == "completed"


def test_a_verification_does_not_either(server: Make) -> None:  # noqa: F811
    """Where it computes the rows again."""
    cluster = server()
    secret(cluster)
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = $$x$$', where_clause => 'id = 3')", user="eve")
    end(cluster, job)
    cluster.sql("UPDATE t SET n = 'y' WHERE id = 3")
    job = cluster.value("SELECT backfill.verify(%s, recompute => true)", [job], user="eve")
    assert end(cluster, job) == "failed"
    assert "42501" in cluster.value("SELECT last_error FROM backfill.progress WHERE job_id = %s", [job], user="eve")


def test_previews_and_plans_do_not_show_what_may_not_be_read(server: Make) -> None:  # noqa: F811
    """Also where the place of a row may be read. And nothing is weighed: how long a value is tells of it as well."""
    cluster = server()
    secret(cluster)
    cluster.sql("GRANT SELECT (ctid) ON t TO eve")
    shown = cluster.sql("SELECT (backfill.preview('t', set_clause => 'n = $$x$$')).*", user="eve")
    assert len(shown) == 5 and "pin-" not in str(shown) and "permission denied" in str(shown)
    plan = cluster.sql("SELECT (backfill.plan('t', set_clause => 'n = $$x$$')).*", user="eve")
    assert "permission denied" in str(plan) and "pin-" not in str(plan), "\n".join(map(str, plan))
    cluster.sql("GRANT SELECT (n) ON t TO eve")
    assert "pin-21" in str(cluster.sql("SELECT (backfill.preview('t', set_clause => 'n = $$x$$')).*", user="eve"))
    assert "permission denied" not in str(
        cluster.sql("SELECT backfill.plan('t', set_clause => 'n = $$x$$')", user="eve")
    )


def old_transaction(cluster: Cluster, seconds: int) -> psycopg.Connection:
    """bob's, which has been open for so long."""
    holder = cluster.connect("bob", autocommit=False)
    holder.execute("CREATE TABLE IF NOT EXISTS bobs (x int)")
    wait_until(
        lambda: cluster.value(
            "SELECT xact_start < clock_timestamp() - make_interval(secs => %s) FROM pg_stat_activity"
            " WHERE usename = 'bob' AND xact_start IS NOT NULL",
            [seconds],
        ),
        seconds + 30,
        "the transaction to be old",
    )
    return holder


@pytest.mark.timeout(500)
@pytest.mark.skipif(not os.environ.get("BACKFILL_LONG"), reason="takes five minutes: BACKFILL_LONG=1")
def test_plans_tell_of_others_what_the_server_does(server: Make) -> None:  # noqa: F811
    """Since when a transaction of somebody else's is open is hidden in pg_stat_activity."""
    cluster = server()
    make_tables(cluster, "t", 1)
    cluster.sql(
        "CREATE ROLE watcher LOGIN; GRANT pg_read_all_stats TO watcher; GRANT SELECT, UPDATE ON t TO watcher, bob"
    )
    holder = old_transaction(cluster, 301)
    found = "SELECT value FROM backfill.plan('t', set_clause => 'n = 2') WHERE item = 'long transactions'"
    assert cluster.value(found, user="eve") == "another transaction"
    for user in ("watcher", "bob"):
        assert "pid " in cluster.value(found, user=user) and "since" in cluster.value(found, user=user)
    holder.rollback()


def test_errors_tell_of_others_what_the_server_does(server: Make) -> None:  # noqa: F811
    """Who holds a lock is public, since when is not; of a session of one's own it is."""
    cluster = server()
    make_tables(cluster, "t", 10)
    cluster.sql("GRANT SELECT, UPDATE ON t TO bob; CREATE ROLE other LOGIN; GRANT SELECT, UPDATE ON t TO other")
    with cluster.connect("bob", autocommit=False) as holder:
        holder.execute("SELECT backfill.define('t', 'n = 2')")
        for user, shown in (("other", False), ("bob", True)):
            with pytest.raises(psycopg.errors.LockNotAvailable) as busy:
                cluster.sql("SELECT backfill.define('t', 'n = 3')", user=user)
            detail = str(busy.value.diag.message_detail)
            assert "of role bob" in detail and ("open since" in detail) is shown
        holder.rollback()


# House rules


WAYS = [
    "-c backfill.require_dry_run=1 -c backfill.require_approval=on",
    "-c Backfill.Require_Dry_Run=1",
    r"--b\ackfill.require-approval=on --backfill.require-dry-run=1",
]


def test_a_connection_does_not_hide_the_servers_settings(server: Make) -> None:  # noqa: F811
    """Where the library is loaded by the first call, a connection's setting would take the place of the server's."""
    cluster = server(preload=False, **{"backfill.require_approval": "on", "backfill.require_dry_run": "3600"})
    make_tables(cluster, "t", 1)
    for options in WAYS:
        for call in ("SELECT backfill.library_version()", "SELECT backfill.start('t', set_clause => 'n = 2')"):
            with psycopg.connect(cluster.dsn("eve"), options=options, autocommit=True) as session:
                for _again in range(2):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="connection has given a value"):
                        session.execute(call)
        with psycopg.connect(cluster.dsn(), options=options, autocommit=True) as session:
            session.execute("SELECT backfill.library_version()")
            assert session.execute("SHOW backfill.require_dry_run").fetchone() == ("1s",)
    # What a session sets for itself, or a role for its sessions, does not last.
    with psycopg.connect(cluster.dsn("eve"), autocommit=True) as session:
        session.execute("SET backfill.require_approval = off; SET backfill.require_dry_run = 0")
        with pytest.raises(psycopg.Error, match="wants a dry run within 60 minutes"):
            session.execute("SELECT backfill.start('t', set_clause => 'n = 2')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        cluster.sql("ALTER ROLE eve SET backfill.require_approval = off", user="eve")
    assert cluster.value("SELECT count(*) FROM backfill.progress") == 0


@pytest.fixture
def app(server: Make) -> Cluster:  # noqa: F811
    """eve and bob are members of the owner of a table."""
    cluster = server(**{"backfill.require_approval": "on"})
    make_tables(cluster, "t", 100, "eve")
    cluster.sql("CREATE ROLE app; GRANT app TO eve, bob; ALTER TABLE t OWNER TO app")
    return cluster


def test_a_job_of_before_is_not_changed_by_one_alone(app: Cluster) -> None:
    """It was started when that took no approval; what it does now, it was not."""
    app.sql("ALTER SYSTEM SET backfill.require_approval = off")
    app.sql("SELECT pg_reload_conf()")
    wait_until(lambda: app.value("SHOW backfill.require_approval") == "off", 20, "the setting")
    start = "SET ROLE app; SELECT backfill.start('t', 10, 60000, set_clause => 'n = 1', where_clause => 'n = 0')"
    job = app.value(start, user="eve")
    pause(app, job, "eve")
    app.sql("ALTER SYSTEM SET backfill.require_approval = on")
    app.sql("SELECT pg_reload_conf()")
    wait_until(lambda: app.value("SHOW backfill.require_approval") == "on", 20, "the setting")
    changes = [
        f"SELECT backfill.redefine({job}, set_clause => 'n = 666')",
        *[
            f"SELECT backfill.alter({job}, options => '{option}')"
            for option in (
                '{"on_end": "UPDATE t SET n = n + 1000"}',
                '{"throttle_query": "SELECT true"}',
                '{"limit_rows": 50}',
            )
        ],
    ]
    for change in changes:
        for user in ("eve", "bob"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"backfill\.require_approval"):
                app.sql(f"SET ROLE app; {change}", user=user)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"backfill\.require_approval"):
                app.sql(change, user=user)
    # Its pace is the owner's, and it goes on.
    app.sql(f"SET ROLE app; SELECT backfill.alter({job}, 1000, 0); SELECT backfill.resume({job})", user="eve")
    assert end(app, job) == "completed"
    assert app.sql("SELECT DISTINCT n FROM t") == [(1,)]


NOTES = "CREATE TABLE notes (x text); GRANT ALL ON notes TO bob;"
NESTED = {
    "trigger": (
        NOTES + "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {call}; RETURN new;"
        " EXCEPTION WHEN OTHERS THEN RETURN new; END $$;"
        "CREATE TRIGGER x BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION f()",
        "INSERT INTO notes VALUES ('hello')",
    ),
    "rule": (
        NOTES + "CREATE RULE r AS ON INSERT TO notes DO ALSO SELECT {call}",
        "INSERT INTO notes VALUES ('hello')",
    ),
    "view": ("CREATE VIEW v AS SELECT {call}::text; GRANT SELECT ON v TO bob", "SELECT * FROM v"),
    "default": (
        "CREATE TABLE notes (x text, y text DEFAULT {call}::text); GRANT ALL ON notes TO bob",
        "INSERT INTO notes VALUES ('hello')",
    ),
    "function": ("CREATE FUNCTION hello() RETURNS text LANGUAGE sql AS $$ SELECT {call}::text $$", "SELECT hello()"),
    "function that is inlined where it is typed": (
        "CREATE FUNCTION hello() RETURNS text LANGUAGE sql AS $$SELECT {call}::text$$",
        "SELECT hello() /* backfill.approve(1) */",
    ),
    "function of the same name": (
        "CREATE FUNCTION approve(bigint) RETURNS text LANGUAGE sql AS $$SELECT {call}::text$$",
        "SELECT approve(1)",
    ),
    "second statement": (
        "CREATE FUNCTION hello() RETURNS text LANGUAGE sql AS $$SELECT {call}::text$$",
        "SELECT backfill.library_version(); SELECT hello()",
    ),
    "loop": (
        "CREATE FUNCTION hello() RETURNS text LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN"
        " FOR r IN SELECT {call} LOOP END LOOP; RETURN 'x'; END $$",
        "SELECT hello()",
    ),
    "prepared": (
        "CREATE FUNCTION hello() RETURNS text LANGUAGE plpgsql AS $$ BEGIN"
        " EXECUTE 'PREPARE p AS SELECT {call}'; RETURN 'x'; END $$",
        "SELECT hello(); EXECUTE p",
    ),
    "block": ("", "DO $$ BEGIN PERFORM {call}; END $$"),
}


CLEAN = "DROP TABLE IF EXISTS notes; DROP FUNCTION IF EXISTS f, hello, approve; DROP VIEW IF EXISTS v"


@pytest.mark.parametrize("what", ["approve", "alter"])
def test_only_who_types_it_acts_as_a_second_person(app: Cluster, what: str) -> None:
    """Whatever else calls it, with bob's rights, may be what eve wrote."""
    job = app.value("SET ROLE app; SELECT backfill.start('t', set_clause => 'n = 666')", user="eve")
    typed = {
        "approve": f"backfill.approve({job})",
        "alter": f"""backfill.alter({job}, NULL, NULL, '{{"limit_rows": 5}}')""",
    }[what]
    for way, (made, statement) in NESTED.items():
        if made:
            app.sql(made.replace("{call}", typed.replace("'", "''") if way == "prepared" else typed), user="eve")
        with app.connect("bob") as bob:
            try:
                bob.execute(statement.replace("{call}", typed))
            except psycopg.errors.InsufficientPrivilege as error:
                assert "second person" in str(error), way
            else:
                assert way == "trigger", f"{way} does it"
        assert app.value("SELECT state FROM backfill.progress") == "pending", way
        assert app.value("SELECT options ->> 'limit_rows' FROM backfill_internal.job") is None, way
        app.sql(CLEAN, user="eve")
    app.sql(f"SELECT {typed}", user="bob")
    if what == "alter":
        assert app.value("SELECT options ->> 'limit_rows' FROM backfill_internal.job") == "5"
    else:
        assert end(app, job) == "completed"


@pytest.mark.parametrize("way", ["trigger", "worker"])
def test_who_is_made_to_start_is_not_who_has_started(app: Cluster, way: str) -> None:
    """eve would be the second person then, of a job that she has written."""
    app.sql("ALTER ROLE app LOGIN")
    start = "PERFORM backfill.start('t', set_clause => 'n = 666', name => 'hers')"
    body = f"BEGIN SET ROLE app; {start}; RESET ROLE; RETURN new; EXCEPTION WHEN OTHERS THEN RETURN new; END"
    app.sql(
        f"{NOTES} CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$;"
        "CREATE TRIGGER x BEFORE INSERT OR UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION f()",
        user="eve",
    )
    if way == "trigger":
        app.sql("INSERT INTO notes VALUES ('hello')", user="bob")
    else:
        app.sql("INSERT INTO notes VALUES ('hello'); ALTER TABLE notes ADD id int PRIMARY KEY DEFAULT 1", user="eve")
        app.sql("GRANT ALL ON notes TO app", user="eve")
        app.sql("SET ROLE app; SELECT backfill.start('notes', set_clause => 'x = 2')", user="eve")
        job = app.value("SELECT job_id FROM backfill.progress")
        app.sql(f"SELECT backfill.approve({job})", user="bob")
        assert end(app, job) == "completed"
    assert app.value("SELECT count(*) FROM backfill.progress WHERE name = 'hers'") == 0


def test_it_may_be_typed_in_any_way(app: Cluster) -> None:
    """With the schema, in one of several statements."""
    for how in ("SELECT backfill.approve({})", 'select  "backfill" . "approve" (job_id => {}::int8) as x'):
        job = app.value("SET ROLE app; SELECT backfill.start('t', set_clause => 'n = 2')", user="eve")
        app.sql(f"SET work_mem = '8MB'; {how.format(job)}; SELECT 1", user="bob")
        assert end(app, job) == "completed"


def test_it_may_be_sent_with_parameters(app: Cluster) -> None:
    """As drivers do, prepared or not."""
    with app.connect("bob") as bob:
        for n in range(1, 8):
            job = app.value(f"SET ROLE app; SELECT backfill.start('t', set_clause => 'n = {n}')", user="eve")
            bob.execute("SELECT backfill.approve(%s)", [job], prepare=n > 1)
            assert end(app, job) == "completed"


def test_a_number_is_given_to_one_job_only(app: Cluster) -> None:
    """The one that bob has looked at is gone when he approves."""
    app.sql("GRANT pg_write_all_data TO eve")
    start = "SET ROLE app; SELECT backfill.start('t', set_clause => 'n = {}')"
    job = app.value(start.format(1), user="eve")
    app.sql(f"SELECT backfill.cancel({job})", user="eve")
    with app.connect("eve") as old:
        # A snapshot in which it is there still.
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        app.sql(f"SELECT backfill.forget({job})", user="eve")
        app.sql(SET_BACK, [1, False], user="eve")
        with pytest.raises(psycopg.Error, match=f"number {job} "):
            old.execute(start.format(666))
        old.rollback()
    app.sql(SET_BACK, [1, False], user="eve")
    with pytest.raises(psycopg.Error, match=f"number {job} "):
        app.sql(start.format(666), user="eve")
    # The next number is a new one.
    other = app.value(start.format(2), user="eve")
    assert other != job
    with pytest.raises(psycopg.Error, match=f"{job} does not exist"):
        app.sql(f"SELECT backfill.approve({job})", user="bob")
    assert app.sql("SELECT * FROM backfill.events WHERE job_id = %s", [job]) == []


DRY = "SELECT backfill.start('{}', set_clause => {}, options => '{{\"dry_run\": true{}}}')"


def run(cluster: Cluster, statement: str, *args: Any) -> str:
    """Starts a job of bob's, which ends."""
    return end(cluster, cluster.value(statement, list(args) or None, user="bob"))


def test_a_dry_run_of_the_parent_alone_is_none_of_its_children(server: Make) -> None:  # noqa: F811
    """In these it would have found the row that fails."""
    cluster = server(**{"backfill.require_dry_run": "3600"})
    cluster.sql("CREATE TABLE p (id int PRIMARY KEY, n int, m int)", user="bob")
    cluster.sql("CREATE TABLE k (PRIMARY KEY (id)) INHERITS (p)", user="bob")
    cluster.sql("INSERT INTO p VALUES (1, 1, 1); INSERT INTO k VALUES (2, 2, 0)", user="bob")
    start = "SELECT backfill.start('p', set_clause => 'n = 10 / m'{})"
    assert run(cluster, DRY.format("p", "'n = 10 / m'", ', "only": true')) == "completed"
    with pytest.raises(psycopg.Error, match="wants a dry run"):
        cluster.sql(start.format(""), user="bob")
    assert run(cluster, start.format(", options => '{\"only\": true}'")) == "completed"


def test_settings_that_come_with_the_start_were_in_the_dry_run(server: Make) -> None:  # noqa: F811
    """They decide what the clauses give."""
    cluster = server(**{"backfill.require_dry_run": "3600"})
    make_tables(cluster, "b", 100, "bob")
    clause = "$$n = coalesce(current_setting('app.n', true), '1')::int$$"
    cluster.sql(f"SELECT backfill.define('b', {clause}, name => 'x')", user="bob")
    assert run(cluster, DRY.format("b", clause, "")) == "completed"
    start = "SELECT backfill.start('b', name => 'x', options => '{\"settings\": {\"app.n\": \"666\"}}')"
    with pytest.raises(psycopg.Error, match="wants a dry run"):
        cluster.sql(start, user="bob")
    assert run(cluster, DRY.format("b", clause, ', "settings": {"app.n": "666"}')) == "completed"
    assert run(cluster, start) == "completed"


def test_who_may_not_define_does_not_redefine(server: Make) -> None:  # noqa: F811
    """Nor alter what a job runs, nor have rows done again, which is another job."""
    cluster = server()
    make_tables(cluster, "t", 10)
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = 1/(id-5)')", user="eve")
    assert end(cluster, job) == "failed"
    cluster.sql("REVOKE EXECUTE ON FUNCTION backfill.define, backfill.start FROM PUBLIC")
    for statement in (
        f"SELECT backfill.redefine({job}, set_clause => 'n = 2')",
        f"SELECT backfill.redefine({job}, where_clause => 'true')",
        f'SELECT backfill.alter({job}, options => \'{{"on_end": "UPDATE t SET n = 3"}}\')',
        f'SELECT backfill.alter({job}, options => \'{{"throttle_query": "SELECT true"}}\')',
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"function backfill\.define"):
            cluster.sql(statement, user="eve")
    # The pace is another matter.
    cluster.sql(f"SELECT backfill.alter({job}, 5, 0)", user="eve")
    cluster.sql("GRANT EXECUTE ON FUNCTION backfill.define TO eve")
    cluster.sql(f"SELECT backfill.redefine({job}, set_clause => 'n = 2')", user="eve")
    cluster.sql(f"SELECT backfill.resume({job})", user="eve")
    assert end(cluster, job) == "completed"
    cluster.sql("UPDATE t SET n = 7 WHERE id = 3", user="eve")
    verification = cluster.value(f"SELECT backfill.verify({job}, recompute => true)", user="eve")
    assert end(cluster, verification) == "completed"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"function backfill\.start"):
        cluster.sql(f"SELECT backfill.reapply({job})", user="eve")
