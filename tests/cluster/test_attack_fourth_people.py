"""What a fourth reader found: a second person whose statement had a stranger's call moved into it, and dry runs
of something else."""

from __future__ import annotations

import json
import time

import psycopg
import pytest
from harness import Cluster
from test_attack_outsider import STATE, make_tables, server  # noqa: F401
from test_attack_third_verdicts import DRY, Make, end, run

NULLS = "transform_null_equals"


# A second person


@pytest.fixture
def app(server: Make) -> Cluster:  # noqa: F811
    """eve and ann are members of the owner of a table; eve has started a job."""
    cluster = server(**{"backfill.require_approval": "on"})
    make_tables(cluster, "t", 100, "eve")
    cluster.sql("CREATE ROLE app; CREATE ROLE ann LOGIN; GRANT app TO eve, ann; ALTER TABLE t OWNER TO app")
    cluster.sql("SET ROLE app; SELECT backfill.start('t', set_clause => 'n = 666')", user="eve")
    return cluster


@pytest.mark.parametrize(
    "sent",
    [
        "SELECT note('I have seen it, {call} later')",
        "/* for {call} */ SELECT note('x')",
        "SELECT note('x') AS \"{call}\"",
        "SELECT 1; /*   {call} */ SELECT note('x')",
    ],
)
@pytest.mark.parametrize("user", ["ann", "postgres"])
def test_a_call_that_is_moved_to_where_its_words_are(app: Cluster, sent: str, user: str) -> None:
    """PostgreSQL puts the body of a function in SQL into the statement that calls it, where its author chose."""
    job = app.value("SELECT job_id FROM backfill.progress")
    sent = sent.replace("{call}", "backfill.approve(")
    body = "SELECT".ljust(sent.index("backfill.approve(")) + f"backfill.approve({job})"
    app.sql(f"CREATE FUNCTION note(text) RETURNS text LANGUAGE sql AS $x${body}$x$", user="eve")
    with app.connect(user) as session, pytest.raises(psycopg.errors.InsufficientPrivilege, match="second person"):
        session.execute(sent)
    assert app.value(STATE, [job]) == "pending"


@pytest.mark.parametrize(
    "call",
    [
        "backfill.approve(hers())",
        "backfill.approve((SELECT hers()))",
        "backfill.approve({job} + hers() - hers())",
        "backfill.approve({job}) FROM hers()",
        "backfill.approve({job}) WHERE hers() > 0",
    ],
)
def test_what_is_approved_is_said_by_who_approves_it(app: Cluster, call: str) -> None:
    """Not by a function of the one who has started it."""
    job = app.value("SELECT job_id FROM backfill.progress")
    app.sql(f"CREATE FUNCTION hers() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT {job}::bigint'", user="eve")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="second person"):
        app.sql(f"SELECT {call.format(job=job)}", user="ann")
    assert app.value(STATE, [job]) == "pending"


@pytest.mark.parametrize(
    "call",
    [
        "SELECT backfill.approve({job})",
        "select \"backfill\" . Approve ('{job}'::bigint);",
        "SELECT 1; SELECT backfill.approve(job_id => {job})",
        "/* a remark */ SELECT backfill.approve(CAST({job} AS bigint)) -- and one",
    ],
)
def test_any_spelling_of_a_call_will_do(app: Cluster, call: str) -> None:
    """As drivers, and people, write it."""
    job = app.value("SELECT job_id FROM backfill.progress")
    with app.connect("ann") as ann:
        ann.execute(call.format(job=job))
    assert end(app, job) == "completed"


def test_a_number_that_a_driver_binds_will_do(app: Cluster) -> None:
    """It is the client's own."""
    job = app.value("SELECT job_id FROM backfill.progress")
    app.sql("SELECT backfill.approve(%s)", [job], user="ann")
    assert end(app, job) == "completed"


@pytest.mark.parametrize("how", ["defined", "altered"])
def test_who_has_written_it_does_not_approve_it(app: Cluster, how: str) -> None:
    """Whoever has said start, as a migration does, has not seen its text."""
    make_tables(app, "u", 100, "eve")
    app.sql("ALTER TABLE u OWNER TO app")
    define = "SET ROLE app; SELECT backfill.define('u', 'n = {}', name => 'nightly'{})"
    author = "eve" if how == "defined" else "ann"
    job = app.value(define.format(5, ""), user=author)
    app.sql(
        {
            "defined": "SELECT 1",
            "altered": f"SET ROLE app; SELECT backfill.alter({job}, options => '{{\"limit_rows\": 7}}')",
        }[how],
        user="eve",
    )
    app.sql("SELECT backfill.start('u', name => 'nightly')", user="ann")
    assert app.value(STATE, [job]) == "pending"
    for who in ("eve", "ann"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="second person"):
            app.sql("SELECT backfill.approve(%s)", [job], user=who)
    app.sql("SELECT backfill.approve(%s)", [job])
    assert end(app, job) in ("completed", "paused")


@pytest.mark.parametrize("sent", ["SELECT note('do not call {call}) by hand')", "SELECT note('x') /* {call} */"])
def test_nor_is_it_who_has_started_a_job(app: Cluster, sent: str) -> None:
    """eve could approve what ann has started."""
    make_tables(app, "u", 100, "eve")
    app.sql("ALTER TABLE u OWNER TO app; SET ROLE app; SELECT backfill.define('u', 'n = 666', name => 'x')", user="eve")
    sent = sent.replace("{call}", "backfill.start(")
    body = "SELECT".ljust(sent.index("backfill.start(")) + "backfill.start('u', name => 'x')"
    app.sql(f"CREATE FUNCTION note(text) RETURNS bigint LANGUAGE sql AS $x${body}$x$", user="eve")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="takes a client's statement of its own"):
        app.sql(sent, user="ann")


# A dry run


def test_a_dry_run_under_other_settings_of_the_session(server: Make) -> None:  # noqa: F811
    """Its clauses meant something else there. The message names what differs."""
    cluster = server(**{"backfill.require_dry_run": "3600"})
    cluster.sql("CREATE TABLE b (id int PRIMARY KEY, a int, n int DEFAULT 0)", user="bob")
    cluster.sql("INSERT INTO b SELECT i FROM generate_series(1, 100) i", user="bob")
    start = "SELECT backfill.start('b', set_clause => 'n = 1', where_clause => 'a = NULL'{})"
    with cluster.connect("bob") as bob:
        dry = bob.execute(start.format(", options => '{\"dry_run\": true}'")).fetchone()
        assert dry is not None and end(cluster, dry[0]) == "completed"
        bob.execute(f"SET {NULLS} = on")
        with pytest.raises(psycopg.Error, match="wants a dry run") as raised:
            bob.execute(start.format(""))
        assert raised.value.diag.message_detail == f"Dry run {dry[0]} was another one: session.{NULLS}."
        bob.execute(f"RESET {NULLS}")
        job = bob.execute(start.format("")).fetchone()
        assert job is not None and end(cluster, job[0]) == "completed"


def test_settings_are_not_altered_past_the_dry_run(server: Make) -> None:  # noqa: F811
    """A running job would do what no dry run has shown."""
    cluster = server(**{"backfill.require_dry_run": "3600"})
    make_tables(cluster, "b", 100, "bob")
    clause = "$$n = coalesce(current_setting('app.n', true), '1')::int$$"
    assert run(cluster, DRY.format("b", clause, "")) == "completed"
    job = cluster.value(f"SELECT backfill.start('b', 1, 600000, set_clause => {clause})", user="bob")
    alter = 'SELECT backfill.alter(%s, options => \'{"settings": {"app.n": "666"}}\')'
    with pytest.raises(psycopg.Error, match="wants a dry run") as raised:
        cluster.sql(alter, [job], user="bob")
    assert "settings.app.n" in str(raised.value.diag.message_detail)
    # What changes no meaning asks for none; nor does what was tried.
    cluster.sql('SELECT backfill.alter(%s, options => \'{"settings": {"work_mem": "1MB"}}\')', [job], user="bob")
    assert run(cluster, DRY.format("b", clause, ', "settings": {"app.n": "666"}')) == "completed"
    cluster.sql(alter, [job], user="bob")


@pytest.mark.parametrize("option", ['"key_to": null', '"settings": {"app.n": "2"}', '"limit_rows": null'])
def test_a_dry_run_proves_what_it_was_started_for(server: Make, option: str) -> None:  # noqa: F811
    """It is not made into one of something else, when it runs or later."""
    cluster = server(**{"backfill.require_dry_run": "3600"})
    make_tables(cluster, "b", 100, "bob")
    bounds = ', "key_to": 1, "limit_rows": 50, "at_bounds": "complete", "max_failed_rows": 5'
    start = DRY.format("b", "'n = 5 / (id - 1)'", bounds)
    job = cluster.value(start, user="bob")
    assert end(cluster, job) == "completed"
    running = cluster.value(
        "SELECT backfill.start('b', 1, 600000, set_clause => 'n = 2', options => %s)",
        [json.dumps({"dry_run": True, "limit_rows": 50, "key_to": 50})],
        user="bob",
    )
    for one in (job, running):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="answers for what it was started with"):
            cluster.sql(f"SELECT backfill.alter({one}, options => '{{{option}}}')", user="bob")
    with pytest.raises(psycopg.Error, match="wants a dry run"):
        cluster.sql("SELECT backfill.start('b', set_clause => 'n = 5 / (id - 1)')", user="bob")


def test_the_age_of_a_dry_run_is_not_rounded(server: Make) -> None:  # noqa: F811
    """However few digits of a number who calls wants to see."""
    cluster = server(**{"backfill.require_dry_run": "2"})
    make_tables(cluster, "b", 100, "bob")
    assert run(cluster, DRY.format("b", "'n = 1'", "")) == "completed"
    time.sleep(2.2)
    with cluster.connect("bob") as bob:
        bob.execute("SET extra_float_digits = -15")
        dry = bob.execute(DRY.format("b", "'n = 1'", "")).fetchone()
        assert dry is not None and end(cluster, dry[0]) == "completed"
        time.sleep(2.2)
        with pytest.raises(psycopg.Error, match="wants a dry run"):
            bob.execute("SELECT backfill.start('b', set_clause => 'n = 1')")
