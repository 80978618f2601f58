"""What a fourth reader found: a second person's statement with a stranger's call moved into it, dry runs of something else,
verdicts on rows that nobody has done, names that are no text."""

from __future__ import annotations

import json
import time

import psycopg
import pytest
from harness import Cluster, wait_until
from test_attack_outsider import STATE, make_tables, server  # noqa: F401
from test_attack_third_verdicts import DRY, Make, end, pause, run

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
    """PostgreSQL puts the body of a function in SQL into the statement that calls it; whoever wrote it has chosen its place."""
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


# Verdicts


def test_settings_altered_after_rows_were_only_passed(server: Make) -> None:  # noqa: F811
    """None matched under the first ones."""
    cluster = server()
    cluster.sql("CREATE TABLE b (id int PRIMARY KEY, a int, n int DEFAULT 0)", user="bob")
    cluster.sql("INSERT INTO b SELECT i FROM generate_series(1, 2000) i; ANALYZE b", user="bob")
    options = {"walk": "key", "strategy": "sequential", "key_to": 1000, "settings": {NULLS: "off"}}
    job = cluster.value(
        "SELECT backfill.start('b', 100, 0, set_clause => 'n = 1', where_clause => 'a = NULL', name => 'a', options => %s)",
        [json.dumps(options)],
        user="bob",
    )
    assert end(cluster, job) == "paused"
    wider = json.dumps({"key_to": None, "settings": {NULLS: "on"}})
    cluster.sql("SELECT backfill.alter(%s, options => %s)", [job, wider], user="bob")
    cluster.sql("SELECT backfill.resume(%s)", [job], user="bob")
    wait_until(lambda: cluster.value(STATE, [job]) == "completed", 30, "the rest")
    assert cluster.value("SELECT count(*) FROM b WHERE n = 0") == 1000
    with pytest.raises(psycopg.Error, match="settings were changed"):
        cluster.sql("SELECT backfill.require_completed('a')", user="bob")


def test_children_done_under_other_settings_are_not_done(server: Make) -> None:  # noqa: F811
    """Their rows did not match there."""
    cluster = server()
    cluster.sql("CREATE TABLE p (id int PRIMARY KEY, a int, n int DEFAULT 0)", user="bob")
    cluster.sql("CREATE TABLE k (PRIMARY KEY (id)) INHERITS (p)", user="bob")
    cluster.sql("INSERT INTO p VALUES (1); INSERT INTO k VALUES (2)", user="bob")
    start = "SELECT backfill.start('{}', set_clause => 'n = 1', where_clause => 'a = NULL'{})"
    gate = "SELECT backfill.require_completed('b')"
    with cluster.connect("bob") as bob:
        bob.execute(f"SET {NULLS} = on")
        job = bob.execute(start.format("p", ", name => 'b', options => '{\"only\": true}'")).fetchone()
        assert job is not None and end(cluster, job[0]) == "completed"
        assert run(cluster, start.format("k", "")) == "completed"
        with pytest.raises(psycopg.Error, match=r"public\.k"):
            cluster.sql(gate, user="bob")
        job = bob.execute(start.format("k", "")).fetchone()
        assert job is not None and end(cluster, job[0]) == "completed"
    cluster.sql(gate, user="bob")
    assert cluster.value("SELECT count(*) FROM p WHERE n = 0") == 0


def test_what_has_completed_is_not_widened(server: Make) -> None:  # noqa: F811
    """Rows that came to it since were in none of its walks."""
    cluster = server()
    cluster.sql("CREATE TABLE w (id int PRIMARY KEY, n int DEFAULT 0, CHECK (id <> 5 OR n < 1))", user="bob")
    cluster.sql("INSERT INTO w SELECT i FROM generate_series(1, 100) i", user="bob")
    job = cluster.value(
        "SELECT backfill.start('w', set_clause => 'n = n + 1', name => 'c', options => %s)",
        [json.dumps({"key_to": 50, "at_bounds": "complete", "max_failed_rows": 5})],
        user="bob",
    )
    assert end(cluster, job) == "completed"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot alter key_to .* it completed"):
        cluster.sql("SELECT backfill.alter(%s, options => '{\"key_to\": null}')", [job], user="bob")
    # Its pace is another matter: rows that failed may be tried again.
    cluster.sql("SELECT backfill.alter(%s, 10, 0)", [job], user="bob")


def test_a_verification_saw_what_the_job_has_left(server: Make) -> None:  # noqa: F811
    """Not what was there before the job went on, though it ended later."""
    cluster = server()
    make_tables(cluster, "b", 1000, "bob")
    cluster.sql("ANALYZE b")
    job = cluster.value("SELECT backfill.start('b', 10, 600000, set_clause => 'n = 7', name => 'a')", user="bob")
    pause(cluster, job, "bob")
    cluster.sql("SELECT backfill.alter(%s, 200, 500)", [job], user="bob")
    check = "n = 0 OR id <= 10"
    verification = cluster.value("SELECT backfill.verify(%s, check_clause => %s)", [job, check], user="bob")
    rows = f"SELECT rows_done >= 200 FROM backfill.progress WHERE job_id = {verification}"
    wait_until(lambda: cluster.value(rows), 30, "a part of the verification")
    cluster.sql("SELECT backfill.alter(%s, 1000, 0), backfill.resume(%s)", [job, job], user="bob")
    wait_until(lambda: cluster.value(STATE, [job]) == "completed", 30, "the job")
    cluster.sql("SELECT backfill.alter(%s, 1000, 0)", [verification], user="bob")
    assert end(cluster, verification) == "completed"
    with pytest.raises(psycopg.Error, match=r"went on after it was verified|was found to be wrong"):
        cluster.sql("SELECT backfill.require_completed('a', verified => true)", user="bob")


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_verification_is_of_all_rows(server: Make, when: str) -> None:  # noqa: F811
    """Its bounds are the job's."""
    cluster = server()
    make_tables(cluster, "b", 1000, "bob")
    job = cluster.value("SELECT backfill.start('b', 100, 0, set_clause => 'n = 7', name => 'b')", user="bob")
    assert end(cluster, job) == "completed"
    with cluster.connect("bob", autocommit=False) as bob:
        found = bob.execute("SELECT backfill.verify(%s, check_clause => 'n = 7')", [job]).fetchone()
        assert found is not None
        if when == "later":
            bob.commit()
            end(cluster, found[0])
        with pytest.raises(
            psycopg.errors.ObjectNotInPrerequisiteState, match="answers for what it was started with|it has completed"
        ):
            bob.execute("SELECT backfill.alter(%s, options => '{\"key_to\": 400}')", [found[0]])


@pytest.mark.parametrize("way", ["check_clause => 'n = 1'", "recompute => true"])
def test_rows_that_a_trigger_took_out_of_sight_are_not_verified(server: Make, way: str) -> None:  # noqa: F811
    """They do not match what the where_clause says of other columns any more, and are wrong."""
    cluster = server()
    cluster.sql("CREATE TABLE b (id int PRIMARY KEY, status text DEFAULT 'open', n int DEFAULT 0)", user="bob")
    cluster.sql(
        "INSERT INTO b SELECT i FROM generate_series(1, 100) i;"
        "CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF pg_trigger_depth() < 2 THEN"
        " UPDATE public.b SET status = 'closed', n = -1 WHERE id = new.id; END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER after AFTER UPDATE ON b FOR EACH ROW EXECUTE FUNCTION after()",
        user="bob",
    )
    job = cluster.value(
        "SELECT backfill.start('b', set_clause => 'n = 1', where_clause => $$status = 'open'$$, name => 'a')",
        user="bob",
    )
    assert end(cluster, job) == "completed"
    verification = cluster.value(f"SELECT backfill.verify(%s, {way})", [job], user="bob")
    assert end(cluster, verification) == "completed"
    note = cluster.value("SELECT note FROM backfill.progress WHERE job_id = %s", [verification])
    assert f"job {job} is not verified" in note
    with pytest.raises(psycopg.Error, match="found to be wrong|does not tell"):
        cluster.sql("SELECT backfill.require_completed('a', verified => true)", user="bob")


def test_an_audit_trigger_leaves_the_verdict(server: Make) -> None:  # noqa: F811
    """It writes to another table, and takes no row out of sight."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE b (id int PRIMARY KEY, country text, n int DEFAULT 0); CREATE TABLE log (id int)", user="bob"
    )
    cluster.sql(
        "INSERT INTO b SELECT i, CASE WHEN i % 2 = 0 THEN 'DE' ELSE 'FR' END FROM generate_series(1, 100) i;"
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (new.id); RETURN NULL; END';"
        "CREATE TRIGGER audit AFTER UPDATE ON b FOR EACH ROW EXECUTE FUNCTION audit()",
        user="bob",
    )
    job = cluster.value(
        "SELECT backfill.start('b', set_clause => 'n = 1', where_clause => $$country = 'DE'$$, name => 'a')", user="bob"
    )
    assert end(cluster, job) == "completed"
    for way in ("recompute => true", "check_clause => $$country <> 'DE' OR n = 1$$"):
        verification = cluster.value(f"SELECT backfill.verify(%s, {way})", [job], user="bob")
        assert end(cluster, verification) == "completed"
        cluster.sql("SELECT backfill.require_completed('a', verified => true)", user="bob")


def test_a_table_that_got_the_jobs_tables_name_is_not_done(server: Make) -> None:  # noqa: F811
    """They changed places, as in a rebuild."""
    cluster = server()
    make_tables(cluster, "t", 100, "bob")
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = 1', name => 'x')", user="bob")
    assert end(cluster, job) == "completed"
    cluster.sql("SELECT backfill.require_completed('x')", user="bob")
    cluster.sql("ALTER TABLE t RENAME TO t_old", user="bob")
    cluster.sql("SELECT backfill.require_completed('x')", user="bob")
    make_tables(cluster, "t", 100, "bob")
    with pytest.raises(psycopg.Error, match=r"public\.t is another table now"):
        cluster.sql("SELECT backfill.require_completed('x')", user="bob")
    cluster.sql("SELECT backfill.require_completed('x', relation => 't_old')", user="bob")


def test_a_verification_computes_under_the_jobs_settings(server: Make) -> None:  # noqa: F811
    """Under others wrong rows are right."""
    cluster = server()
    make_tables(cluster, "b", 100, "bob")
    clause = "$$n = coalesce(current_setting('app.n', true), '1')::int$$"
    job = cluster.value(f"SELECT backfill.start('b', set_clause => {clause}, name => 'a')", user="bob")
    assert end(cluster, job) == "completed"
    cluster.sql("UPDATE b SET n = 666", user="bob")
    options = '{"settings": {"app.n": "666"}}'
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='option "settings" cannot be given to verify'):
        cluster.sql("SELECT backfill.verify(%s, recompute => true, options => %s)", [job, options], user="bob")


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


def test_rows_of_a_partition_that_went_before_its_turn(server: Make) -> None:  # noqa: F811
    """They may be in another one, which was done. A verification tells."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE w (id int, k int, n int DEFAULT 0, PRIMARY KEY (id, k)) PARTITION BY LIST (k);"
        "CREATE TABLE w1 PARTITION OF w FOR VALUES IN (1, 2); CREATE TABLE w3 PARTITION OF w FOR VALUES IN (3);"
        "INSERT INTO w SELECT i, 1, 0 FROM generate_series(1, 500) i;"
        "INSERT INTO w SELECT i, 3, 0 FROM generate_series(1, 500) i; ANALYZE w",
        user="bob",
    )
    job = cluster.value(
        "SELECT backfill.start('w', 100, 600, set_clause => 'n = 1', where_clause => 'n = 0', name => 'd', options => %s)",
        ['{"strategy": "sequential"}'],
        user="bob",
    )
    pause(cluster, job, "bob", "rows_updated >= 500")
    cluster.sql(
        "ALTER TABLE w DETACH PARTITION w3; INSERT INTO w SELECT id + 1000, 2, n FROM w3; DROP TABLE w3", user="bob"
    )
    cluster.sql("SELECT backfill.resume(%s)", [job], user="bob")
    wait_until(lambda: cluster.value(STATE, [job]) == "completed", 30, "its end")
    gate = "SELECT backfill.require_completed('d')"
    with pytest.raises(psycopg.Error, match="a partition was dropped before all of it was done"):
        cluster.sql(gate, user="bob")
    verification = cluster.value("SELECT backfill.verify(%s)", [job], user="bob")
    assert end(cluster, verification) == "completed"
    with pytest.raises(psycopg.Error, match="a partition was dropped before all of it was done"):
        cluster.sql(gate, user="bob")
    cluster.sql("UPDATE w SET n = 1", user="bob")
    verification = cluster.value("SELECT backfill.verify(%s)", [job], user="bob")
    assert end(cluster, verification) == "completed"
    cluster.sql(gate, user="bob")


def test_a_verdict_is_not_forgotten(server: Make) -> None:  # noqa: F811
    """With the verification that gave it, the one before it does not count again."""
    cluster = server()
    make_tables(cluster, "b", 100, "bob")
    job = cluster.value("SELECT backfill.start('b', set_clause => 'n = 1', name => 'a')", user="bob")
    assert end(cluster, job) == "completed"
    gate = "SELECT backfill.require_completed('a', verified => true)"
    check = "SELECT backfill.verify(%s, check_clause => 'n = 1')"
    assert end(cluster, cluster.value(check, [job], user="bob")) == "completed"
    cluster.sql(gate, user="bob")
    cluster.sql("UPDATE b SET n = 2", user="bob")
    second = cluster.value(check, [job], user="bob")
    assert end(cluster, second) == "completed"
    cluster.sql("SELECT backfill.forget(%s)", [second], user="bob")
    with pytest.raises(psycopg.Error, match="which was forgotten"):
        cluster.sql(gate, user="bob")
    cluster.sql("UPDATE b SET n = 1", user="bob")
    assert end(cluster, cluster.value(check, [job], user="bob")) == "completed"
    cluster.sql(gate, user="bob")


# What is written again


@pytest.mark.parametrize(
    ("settings", "clause"),
    [
        ("SET extra_float_digits = -14", "f < '9.4'::float8"),
        (
            "SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'SQL, DMY'",
            "at < timestamptz '2026-01-01 15:35+05:30' AND id > 0",
        ),
        ("SET DateStyle = 'German'", "at < timestamptz '2026-01-01 15:35+05:30' AND id > 0"),
        ("SET IntervalStyle = 'sql_standard'", "v < interval '-1 day' + interval '1 hour 34 minutes' AND id > 0"),
    ],
)
def test_the_conditions_of_a_verification_are_those_of_the_job(server: Make, settings: str, clause: str) -> None:  # noqa: F811
    """Whatever the settings under which PostgreSQL writes them anew; where they can't be, it says so."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE b (id int PRIMARY KEY, f float8, at timestamptz, v interval, n int DEFAULT 0)", user="bob"
    )
    cluster.sql(
        "INSERT INTO b SELECT i, i / 10.0, timestamptz '2026-01-01 00:00+05:30' + i * interval '10 min',"
        " interval '-1 day' + i * interval '1 min', 0 FROM generate_series(1, 200) i",
        user="bob",
    )
    with cluster.connect("bob") as bob:
        bob.execute(settings)
        found = bob.execute(
            "SELECT backfill.start('b', set_clause => 'n = 1', where_clause => %s, name => 'v')", [clause]
        ).fetchone()
        assert found is not None and end(cluster, found[0]) == "completed"
        assert bob.execute("SELECT min(id), max(id), count(*) FROM b WHERE n = 1").fetchone() == (1, 93, 93)
        bob.execute("UPDATE b SET n = 0 WHERE id IN (2, 92, 93)")
        verification = bob.execute("SELECT backfill.verify(%s, check_clause => 'n = 1')", found).fetchone()
        assert verification is not None and end(cluster, verification[0]) == "completed"
        assert cluster.value("SELECT count(*) FROM backfill.verify_failures") == 3
        again = bob.execute("SELECT backfill.reapply(%s)", found).fetchone()
        assert again is not None and end(cluster, again[0]) == "completed"
        assert bob.execute("SELECT min(id), max(id), count(*) FROM b WHERE n = 1").fetchone() == (1, 93, 93)


def test_what_is_proposed_means_the_same_where_backslashes_escape(server: Make) -> None:  # noqa: F811
    """Names end no quotes there."""
    cluster = server()
    cluster.sql("CREATE DATABASE d OWNER eve")
    d = cluster.database("d")
    d.sql("CREATE EXTENSION backfill")
    d.sql("ALTER DATABASE d SET standard_conforming_strings = off", user="eve")
    name = "x\\'; ALTER ROLE eve SUPERUSER; --"
    d.sql(f'CREATE TABLE "{name}" (id int PRIMARY KEY, n int)', user="eve")
    oid = d.value("SELECT max(oid)::bigint FROM pg_class WHERE relkind = 'r' AND relowner = 'eve'::regrole")
    job = d.value("SELECT backfill.start(%s::oid::regclass, set_clause => 'n = 1')", [oid], user="eve")
    wait_until(lambda: d.value("SELECT state FROM backfill.progress") == "completed", 20, "its end")
    report = str(d.value("SELECT backfill.report(%s)", [job]))
    repeated = report[report.index("To repeat it") :]
    scripts = [
        str(d.value("SELECT backfill.procedure(%s)", [job])),
        repeated[repeated.index("SELECT") : repeated.index("Made ")],
    ]
    for script in scripts:
        assert "ALTER ROLE" in script
        d.psql(script, check=False)
        assert cluster.value("SELECT NOT rolsuper FROM pg_roles WHERE rolname = 'eve'"), script


# The wall


@pytest.mark.parametrize(
    "function",
    [
        "set_config('backfill.allow_superuser_jobs', 'on', false) <> ''",
        "pg_notify('x', 'y') IS NULL",
        "lo_unlink(1) > 0",
        "pg_terminate_backend(1)",
    ],
)
def test_conditions_that_somebody_left_have_no_effects(server: Make, function: str) -> None:  # noqa: F811
    """eve had TRIGGER on a superuser's table once, and nothing tells who wrote the conditions of its triggers."""
    cluster = server()
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    cluster.sql("GRANT SELECT, TRIGGER ON t TO eve")
    cluster.sql(
        "CREATE FUNCTION trap(integer) RETURNS integer LANGUAGE plpgsql AS"
        " 'BEGIN ALTER ROLE eve SUPERUSER; RETURN 1; END';"
        f"CREATE TRIGGER a BEFORE UPDATE ON t FOR EACH ROW WHEN ({function}) EXECUTE FUNCTION suppress_redundant_updates_trigger();"
        "CREATE TRIGGER b BEFORE UPDATE ON t FOR EACH ROW WHEN (public.trap(new.n) > 0) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        user="eve",
    )
    cluster.sql("REVOKE ALL ON t FROM eve")
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = n + 10')")
    assert end(cluster, job) == "failed"
    error = cluster.value("SELECT last_error FROM backfill.progress")
    assert "would run with the rights of a superuser" in error
    assert cluster.value("SELECT NOT rolsuper FROM pg_roles WHERE rolname = 'eve'")
    assert cluster.value("SELECT min(n) FROM t") == 1


def test_superusers_own_functions_have_effects(server: Make) -> None:  # noqa: F811
    """What their triggers notify, lock and set is theirs."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;"
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('x', new.id::text);"
        " PERFORM set_config('app.x', 'y', true); PERFORM pg_advisory_xact_lock(1); RETURN new; END $$;"
        "CREATE TRIGGER tell BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell();"
        "CREATE SEQUENCE s"
    )
    with cluster.connect() as session:
        session.execute("LISTEN x")
        job = cluster.value("SELECT backfill.start('t', set_clause => 'n = nextval(''s'')')")
        assert end(cluster, job) == "completed"
        assert len(list(session.notifies(timeout=5, stop_after=20))) == 20


def test_a_superusers_function_does_not_take_the_wall_down(server: Make) -> None:  # noqa: F811
    """Nor may it lend the setting to what comes after it."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;"
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM set_config('backfill.allow_superuser_jobs', 'on', false); RETURN new; END $$;"
        "CREATE TRIGGER tell BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell()"
    )
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = n + 10')")
    assert end(cluster, job) == "failed"
    assert "backfill.allow_superuser_jobs" in cluster.value("SELECT last_error FROM backfill.progress")


def test_the_wall_stands_where_workers_would_help(server: Make) -> None:  # noqa: F811
    """They have a superuser's rights, and no hooks of ours."""
    cluster = server()
    setting = "force_parallel_mode" if cluster.server.major < 16 else "debug_parallel_query"
    cluster.sql(
        "CREATE FUNCTION spring(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$ BEGIN"
        " RAISE WARNING 'sprung as %', current_user; RETURN true; END $$;"
        "CREATE DOMAIN dom AS integer CHECK (public.spring(VALUE))",
        user="eve",
    )
    cluster.sql("CREATE TABLE s (id int PRIMARY KEY, t text, n int)")
    cluster.sql("INSERT INTO s SELECT i, '{1}', 0 FROM generate_series(1, 3000) i; ANALYZE s")
    notices: list[str] = []
    with cluster.connect() as session:
        session.add_notice_handler(lambda it: notices.append(str(it.message_primary)))
        session.execute(f"SET {setting} = on")
        call = "backfill.{}('s', set_clause => 'n = 1', where_clause => $$t::public.dom[] IS NOT NULL$$)"
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to role eve"):
            session.execute(f"SELECT * FROM {call.format('plan')}")
        rows = session.execute(f"SELECT error FROM {call.format('preview')}").fetchall()
        assert rows and all("belongs to role eve" in error for (error,) in rows), rows
    assert not [notice for notice in notices if "sprung" in notice]


@pytest.mark.parametrize("helper", ["volatile", "not for everybody"])
def test_conditions_that_somebody_left_call_no_helpers(server: Make, helper: str) -> None:  # noqa: F811
    """Nor does CREATE TRIGGER ask whether their author may call them. Where the job's own clauses name them, it is the job's matter."""
    cluster = server()
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    cluster.sql("GRANT SELECT, TRIGGER ON t TO eve; CREATE TABLE told (n int)")
    kind = "VOLATILE" if helper == "volatile" else "IMMUTABLE"
    cluster.sql(
        f"CREATE FUNCTION dba(integer) RETURNS integer LANGUAGE plpgsql {kind} AS"
        " 'BEGIN INSERT INTO public.told VALUES ($1); RETURN $1; END';"
        + ("" if helper == "volatile" else "REVOKE EXECUTE ON FUNCTION dba FROM PUBLIC")
    )
    cluster.sql(
        "CREATE TRIGGER a BEFORE UPDATE ON t FOR EACH ROW WHEN (public.dba(new.n) > 0)"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        user="eve",
    )
    cluster.sql("REVOKE ALL ON t FROM eve")
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = n + 10')")
    assert end(cluster, job) == "failed"
    assert "would run with the rights of a superuser" in cluster.value("SELECT last_error FROM backfill.progress")
    assert cluster.value("SELECT count(*) FROM told") == 0
    cluster.sql("DROP TRIGGER a ON t; SELECT backfill.cancel(job_id) FROM backfill.progress")
    if helper == "volatile":
        job = cluster.value("SELECT backfill.start('t', set_clause => 'n = dba(n)')")
        assert end(cluster, job) == "completed"
        assert cluster.value("SELECT count(*) FROM told") == 20


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_conditions_on_tables_that_triggers_write_to(server: Make, event: str) -> None:  # noqa: F811
    """eve has TRIGGER there, which nobody looks at: a function of the superuser's is around what her conditions call."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;"
        "CREATE TABLE audit (id int PRIMARY KEY, n int); INSERT INTO audit SELECT i + 100, 0 FROM generate_series(1, 20) i;"
        "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit VALUES (new.id, new.n);"
        " UPDATE public.audit SET n = 1 WHERE id = new.id + 100; RETURN new; END $$;"
        "CREATE TRIGGER log AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log();"
        "GRANT SELECT, TRIGGER ON audit TO eve;"
        "CREATE FUNCTION dba(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN $1; END'"
    )
    cluster.sql(
        f"CREATE TRIGGER a BEFORE {event} ON audit FOR EACH ROW WHEN (public.dba('ALTER ROLE eve SUPERUSER') = '')"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        user="eve",
    )
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = n + 10')")
    assert end(cluster, job) == "failed"
    assert "function dba is volatile, and nothing of a superuser's names it" in cluster.value(
        "SELECT last_error FROM backfill.progress"
    )
    assert cluster.value("SELECT NOT rolsuper FROM pg_roles WHERE rolname = 'eve'")


def test_what_superusers_have_written_names_functions(server: Make) -> None:  # noqa: F811
    """Defaults of their tables, bodies and defaults of their functions, whatever the language."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE told (n int);"
        "CREATE FUNCTION tell(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.told VALUES (n); RETURN n; END';"
        "CREATE FUNCTION in_sql(n int) RETURNS int LANGUAGE sql AS 'SELECT public.tell(n)';"
        "CREATE FUNCTION atomic(n int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT public.tell(n); END;"
        "CREATE FUNCTION by_default(n int DEFAULT public.tell(3)) RETURNS int LANGUAGE sql AS 'SELECT n';"
        "CREATE TABLE audit (id int, n int DEFAULT public.tell(4), m int CHECK (public.tell(5) > 0));"
        "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit (id) VALUES (new.id); RETURN new; END';"
    )
    for number, clause in enumerate(("n = in_sql(1)", "n = atomic(2)", "n = by_default()", "n = 6")):
        cluster.sql(f"CREATE TABLE t{number} (id int PRIMARY KEY, n int); INSERT INTO t{number} VALUES (1, 0)")
        if clause == "n = 6":
            cluster.sql(f"CREATE TRIGGER log AFTER UPDATE ON t{number} FOR EACH ROW EXECUTE FUNCTION log()")
        job = cluster.value("SELECT backfill.start(%s, set_clause => %s)", [f"t{number}", clause])
        assert end(cluster, job) == "completed", cluster.sql("SELECT last_error FROM backfill.progress")
    assert cluster.value("SELECT array_agg(n ORDER BY n) FROM told") == [1, 2, 3, 4, 5]


def test_arguments_of_triggers_have_an_author(server: Make) -> None:  # noqa: F811
    """Who may create triggers on a superuser's table says to what an extension's functions are applied."""
    cluster = server()
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, a text, b tsvector); GRANT SELECT, TRIGGER ON t TO eve")
    cluster.sql(
        "CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW"
        " EXECUTE FUNCTION tsvector_update_trigger('b', 'pg_catalog.simple', 'a')",
        user="eve",
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="arguments of trigger x"):
        cluster.sql("SELECT backfill.start('t', set_clause => $$a = 'x'$$)")


# Places


def test_jobs_have_nothing_looked_at_by_others_processes(server: Make) -> None:  # noqa: F811
    """As many roles would ask as somebody is a member of, and leave no process to others."""
    cluster = server()
    cluster.sql("CREATE ROLE x; CREATE ROLE y; GRANT x TO y; GRANT y TO eve; GRANT ALL ON SCHEMA public TO x, y")
    for role in ("x", "y"):
        cluster.sql(
            f"SET ROLE {role}; CREATE TABLE of_{role} (id int PRIMARY KEY, n int); INSERT INTO of_{role} VALUES (1, 1)",
            user="eve",
        )
    others = cluster.value("SET ROLE x; SELECT backfill.define('of_x', 'n = 2', name => 'xs')", user="eve")
    cluster.sql(
        "SET ROLE y; CREATE FUNCTION asks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" PERFORM backfill.rehearse({others}); RETURN new; END $$;"
        "CREATE TRIGGER asks BEFORE UPDATE ON of_y FOR EACH ROW EXECUTE FUNCTION asks()",
        user="eve",
    )
    job = cluster.value("SET ROLE y; SELECT backfill.start('of_y', set_clause => 'n = 3')", user="eve")
    assert end(cluster, job) == "failed"
    error = cluster.value("SELECT last_error FROM backfill.progress WHERE job_id = %s", [job])
    assert "code of a backfill job can't have looked at what role x wrote" in error


# Names that are no text


ENCODINGS = {"SQL_ASCII": b"\xff", "WIN1252": b"\x81"}


class Bytes:
    """A database whose encoding has strings that no other has a form for."""

    def __init__(self, cluster: Cluster, encoding: str) -> None:
        cluster.sql(f"CREATE DATABASE a TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        self.cluster = cluster
        self.sql("CREATE EXTENSION backfill; GRANT ALL ON SCHEMA public TO PUBLIC")

    def sql(self, statement: str | bytes, user: str = "postgres") -> list[str]:
        """The first column of what a statement gives."""
        place = {"host": str(self.cluster.folder), "port": self.cluster.port, "dbname": "a", "user": user}
        with psycopg.connect(**place, autocommit=True, client_encoding="sql_ascii") as session:
            cursor = session.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            return [row[0].decode("latin1") if isinstance(row[0], bytes) else row[0] for row in rows]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_name_that_is_no_text_stops_nobody_else(server: Make, encoding: str) -> None:  # noqa: F811
    """There names are bytes, or have no form in UTF-8."""
    d = Bytes(server(**{"backfill.max_workers": "1", "backfill.launcher_interval": "2"}), encoding)
    for table, user in (("eve", "eve"), ("bob", "bob"), ("bob2", "bob")):
        d.sql(
            f"CREATE TABLE {table} (id int PRIMARY KEY, n int); INSERT INTO {table} SELECT generate_series(1, 100)",
            user,
        )
    d.sql("SELECT backfill.start('bob', 10, 300, set_clause => 'n = 1')", "bob")
    d.sql("SELECT backfill.start('eve', 10, 0, set_clause => 'n = 1')", "eve")
    d.sql("SELECT backfill.start('bob2', 10, 0, set_clause => 'n = 1')", "bob")
    d.sql(b'ALTER TABLE eve RENAME TO "%s"' % ENCODINGS[encoding], "eve")
    d.sql("SELECT backfill.pause_all()")
    time.sleep(1)
    d.sql("SELECT backfill.resume_all()")
    states = "SELECT state FROM backfill.progress WHERE relation IN ('bob', 'bob2')"
    wait_until(lambda: set(d.sql(states)) == {"completed"}, 40, "the others' jobs")
    d.sql("SELECT * FROM backfill.progress; SELECT * FROM backfill.dashboard")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_error_whose_text_is_none_is_caught_by_who_expects_it(server: Make, encoding: str) -> None:  # noqa: F811
    """A trigger that handles it goes on, as it would in an UPDATE; what reaches the job keeps its SQLSTATE."""
    d = Bytes(server(), encoding)
    d.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT generate_series(1, 10), 0", "bob")
    raised = b"RAISE unique_violation USING MESSAGE = 'a %s b'" % ENCODINGS[encoding]
    d.sql(
        b"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN BEGIN " + raised + b";"
        b" EXCEPTION WHEN unique_violation THEN new.m = 1; END; IF new.n = 2 THEN "
        + raised
        + b"; END IF; RETURN new; END $$;"
        b"ALTER TABLE t ADD m int; CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "bob",
    )
    d.sql("SELECT backfill.start('t', set_clause => 'n = 1')", "bob")
    states = "SELECT state FROM backfill.progress ORDER BY job_id"
    wait_until(lambda: d.sql(states)[0] in ("completed", "failed"), 30, "its end")
    assert d.sql("SELECT count(*) FROM t WHERE m = 1 AND n = 1") == [10], d.sql(
        "SELECT last_error FROM backfill.progress"
    )
    d.sql("SELECT backfill.start('t', set_clause => 'n = 2')", "bob")
    wait_until(lambda: d.sql(states)[1] in ("completed", "failed"), 30, "its end")
    error = d.sql("SELECT last_error FROM backfill.progress WHERE job_id = 2")[0]
    assert "a \xef\xbf\xbd b" in error or "a ? b" in error, error
    assert "SQLSTATE 23505" in error


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_error_whose_context_is_none_ends(server: Make, encoding: str) -> None:  # noqa: F811
    """The statement that failed is part of it. To copy it raised an error with the same context, and so on for ever."""
    d = Bytes(server(), encoding)
    d.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT generate_series(1, 10), 0", "bob")
    insert = b"INSERT INTO public.u VALUES ('%s')" % ENCODINGS[encoding]
    d.sql(
        b"CREATE TABLE u (t text PRIMARY KEY); "
        + insert
        + b"; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        + insert
        + b"; RETURN new; END $$; CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "bob",
    )
    d.sql("SELECT backfill.start('t', set_clause => 'n = 1')", "bob")
    wait_until(lambda: d.sql("SELECT state FROM backfill.progress") == ["failed"], 30, "its end")
    assert "SQLSTATE 23505" in d.sql("SELECT last_error FROM backfill.progress")[0]
    assert d.sql("SELECT error FROM backfill.preview('t', set_clause => 'n = 1')", "bob")


def test_nothing_is_looked_up_on_a_path_that_begins_with_somebody_elses_schema(server: Make) -> None:  # noqa: F811
    """Operators of eve's come before PostgreSQL's own there. They say so in the server's log, which a rollback keeps."""
    cluster = server()
    make_tables(cluster, "b", 100, "bob")
    cluster.sql("CREATE SCHEMA evil AUTHORIZATION eve; GRANT USAGE ON SCHEMA evil TO PUBLIC")
    types = ("oid", "name", "text", "int2", "int4", "int8", "bool", '"char"', "regclass")
    cluster.sql(
        "SET search_path = evil, public;"
        + "".join(
            f"CREATE FUNCTION evil.spring({kind}, {kind}) RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE LOG 'sprung'; RETURN true; END $$;"
            + "".join(
                f"CREATE OPERATOR evil.{sign} (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = evil.spring);"
                for sign in ("=", "<>", ">", ">=", "<", "<=")
            )
            for kind in types
        ),
        user="eve",
    )
    with cluster.connect("bob") as bob:
        bob.execute("SET search_path = evil, pg_catalog, public")
        for number, call in enumerate(
            (
                "backfill.plan('public.b', set_clause => 'n = 1', where_clause => 'n IS NULL')",
                "backfill.preview('public.b', set_clause => 'n = 1', where_clause => 'n IS NULL')",
                "backfill.define('public.b', 'n = 1', name => 'x')",
                "backfill.start('public.b', name => 'x')",
                "backfill.report(1::bigint)",
                "backfill.procedure(1::bigint)",
                "backfill.set_not_null_statements('public.b', 'n')",
                "backfill.verify(1, check_clause => 'n IS NOT NULL')",
            )
        ):
            bob.execute(f"SELECT * FROM {call}")
            if number == 3:
                assert end(cluster, 1) == "completed"
        views = [row[0] for row in cluster.sql("SELECT viewname FROM pg_views WHERE schemaname = 'backfill'")]
        assert len(views) > 4
        for view in views:
            bob.execute(f"SELECT * FROM backfill.{view}")
        bob.execute("CALL backfill.set_not_null('public.b', 'n')")
        bob.execute("SELECT backfill.require_completed('x')")
    assert "sprung" not in cluster.log.read_text(errors="replace")
