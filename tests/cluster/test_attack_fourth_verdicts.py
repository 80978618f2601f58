"""What a fourth reader found: verdicts on rows that nobody has done, or seen."""

from __future__ import annotations

import json

import psycopg
import pytest
from harness import wait_until
from test_attack_outsider import STATE, make_tables, server  # noqa: F401
from test_attack_third_verdicts import Make, end, pause, run

NULLS = "transform_null_equals"


# Verdicts


def test_settings_altered_after_rows_were_only_passed(server: Make) -> None:  # noqa: F811
    """None matched under the first ones."""
    cluster = server()
    cluster.sql("CREATE TABLE b (id int PRIMARY KEY, a int, n int DEFAULT 0)", user="bob")
    cluster.sql("INSERT INTO b SELECT i FROM generate_series(1, 2000) i; ANALYZE b", user="bob")
    options = {"walk": "key", "strategy": "sequential", "key_to": 1000, "settings": {NULLS: "off"}}
    job = cluster.value(
        "SELECT backfill.start('b', 100, 0, 'n = 1', 'a = NULL', 'a', %s)",
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
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r"cannot alter key_to .* it completed"):
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
            psycopg.errors.ObjectNotInPrerequisiteState, match=r"answers for what it was started with|it has completed"
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
    with pytest.raises(psycopg.Error, match=r"found to be wrong|does not tell"):
        cluster.sql("SELECT backfill.require_completed('a', verified => true)", user="bob")


def test_an_audit_trigger_leaves_the_verdict(server: Make) -> None:  # noqa: F811
    """It writes to another table, and takes no row out of sight."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE b (id int PRIMARY KEY, country text, n int DEFAULT 0); CREATE TABLE log (id int)", user="bob"
    )
    cluster.sql(
        "INSERT INTO b SELECT i, CASE WHEN i % 2 = 0 THEN 'DE' ELSE 'FR' END FROM generate_series(1, 100) i;"
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.log VALUES (new.id); RETURN NULL; END';"
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
        "SELECT backfill.start('w', 100, 600, 'n = 1', 'n = 0', 'd', %s)",
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
