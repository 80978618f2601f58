"""Promotion in the middle, of a standby that commits wait for or not, and recovery to a moment in the middle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from harness import DURABLE, Cluster, wait_until
from harness.jobs import complete, progress, start_count, wait_for_nap_between_batches, wait_for_rows
from harness.tables import counts, make_table

New = Callable[..., Cluster]
MINUTE = 60_000
ROWS = 20_000
# Each row that was done says so in a table that is written in the same transaction.
LOGGED = """
    CREATE TABLE done (id int);
    CREATE FUNCTION log_done() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO done SELECT id FROM changed; RETURN NULL; END $$;
    CREATE TRIGGER log_done AFTER UPDATE ON t REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION log_done()
"""


def with_job_table(cluster: Cluster) -> Cluster:
    """The same cluster, with the extension and a table that logs which rows were done."""
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    cluster.sql(LOGGED)
    return cluster


def assert_once(cluster: Cluster) -> None:
    """Each row was updated once, also by the log of it."""
    assert counts(cluster) == [(1, ROWS)]
    assert cluster.sql("SELECT count(*), count(DISTINCT id) FROM done") == [(ROWS, ROWS)]


@pytest.mark.parametrize("synchronous", [True, False])
def test_the_primary_is_lost_in_the_middle(new_cluster: New, synchronous: bool) -> None:
    """The new primary goes on by itself, two workers in waves, from checkpoints that belong to its rows."""
    primary = with_job_table(new_cluster(conf=DURABLE))
    with primary.standby() as standby:
        if synchronous:
            primary.set(synchronous_standby_names="standby")
            primary.reload()
        job = start_count(primary, batch_size=100, sleep_ms=1, options={"workers": 2, "strategy": "waves", "waves": 4})
        wait_for_rows(primary, job, 2000)
        if not synchronous:
            wait_for_rows(standby, job, 1000)
            standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
            standby.reload()
            wait_until(lambda: standby.sql("SELECT 1 FROM pg_stat_wal_receiver") == [], 30, "the stream to end")
            # What comes now is lost for good: commits that the primary has shown to everybody.
            wait_for_rows(primary, job, progress(standby, job)["rows_done"] + 3000)
        assert progress(primary, job)["state"] == "running"
        lost = progress(primary, job)["rows_done"]
        primary.crash()
        if not synchronous:
            assert progress(standby, job)["rows_done"] < lost
        standby.promote()
        standby.sql("SELECT backfill.alter(%s, sleep_ms => 0, batch_size => 5000)", [job])
        complete(standby, job)
        assert_once(standby)
        events = [event for (event,) in standby.sql("SELECT event FROM backfill.events ORDER BY event_id")]
        assert events.count("worker started") >= 3 and events.count("resume") == 0, events


def test_the_old_primary_comes_back_as_a_standby(new_cluster: New) -> None:
    """Switched over, and rewound to follow the new primary: it runs nothing, and shows what the new one does."""
    primary = with_job_table(new_cluster(conf=DURABLE | {"wal_log_hints": "on"}))
    with primary.standby() as standby:
        job = start_count(primary, batch_size=100, sleep_ms=MINUTE)
        wait_for_nap_between_batches(primary, job)
        primary.wait_for_replay(standby)
        primary.stop()
        standby.promote()
        wait_for_nap_between_batches(standby, job)
        standby.sql("CHECKPOINT")
        primary.run("pg_rewind", "-D", primary.data, f"--source-server={standby.dsn()}", "-R", "--no-sync")
        primary.write_conf()
        primary.start()
        assert primary.value("SELECT pg_is_in_recovery()")
        standby.wait_for_replay(primary)
        row = progress(primary, job)
        assert row["state"] == "running" and row["workers"] == 0, row
        assert row["waiting_for"] == "nothing here: this server is a standby, the primary runs the job"
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="on a standby"):
            primary.sql("SELECT backfill.pause(%s)", [job])
        standby.sql("SELECT backfill.alter(%s, sleep_ms => 0, batch_size => 5000)", [job])
        complete(standby, job)
        standby.wait_for_replay(primary)
        for each in (standby, primary):
            assert_once(each)


@pytest.fixture
def archiving(new_cluster: New) -> Cluster:
    """A server that archives its WAL."""
    cluster = new_cluster(conf=DURABLE)
    archive = cluster.folder / "archive"
    archive.mkdir()
    if cluster.os_user:
        shutil.chown(archive, cluster.os_user)
    cluster.set(archive_mode="on", archive_command=f"cp %p {archive}/%f")
    cluster.restart()
    return with_job_table(cluster)


def backup(cluster: Cluster, **conf: Any) -> Cluster:
    """A base backup that is to be recovered from the archive, with these settings; not started."""
    settings = cluster.conf | {"archive_mode": "off", "restore_command": f"cp {cluster.folder}/archive/%f %p"} | conf
    copy = Cluster(conf=settings, server=cluster.server)
    cluster.run("pg_basebackup", "-d", cluster.dsn(), "-D", copy.data, "-c", "fast", "--no-sync")
    return copy


def recover(cluster: Cluster) -> None:
    """Starts it, and waits until it has become a primary."""
    (cluster.data / "recovery.signal").touch()
    cluster.write_conf()
    if cluster.os_user:
        shutil.chown(cluster.data / "recovery.signal", cluster.os_user)
    cluster.start()
    wait_until(lambda: not cluster.value("SELECT pg_is_in_recovery()"), 60, "the recovery to end")


def test_recovery_to_a_moment_in_the_middle(archiving: Cluster) -> None:
    """To a restore point, where the job goes on by itself; to a time, where the switch keeps it from doing so."""
    target = {"recovery_target_action": "promote"}
    with_point = backup(archiving, recovery_target_name="middle", **target)
    with_time = backup(archiving, **target)
    try:
        job = start_count(archiving, batch_size=100, sleep_ms=1, options={"workers": 2, "strategy": "waves"})
        wait_for_rows(archiving, job, 2000)
        archiving.sql("SELECT pg_create_restore_point('middle')")
        moment = archiving.value("SELECT clock_timestamp()::text")
        archiving.sql("SELECT backfill.alter(%s, sleep_ms => 0, batch_size => 5000)", [job])
        complete(archiving, job)
        last = archiving.value("SELECT pg_walfile_name(pg_switch_wal())")
        done = "SELECT coalesce(last_archived_wal, '') >= %s FROM pg_stat_archiver"
        wait_until(lambda: archiving.value(done, [last]), 60, f"{last} to be archived")

        recover(with_point)
        with_point.sql("SELECT backfill.alter(%s, sleep_ms => 0, batch_size => 5000)", [job])
        complete(with_point, job)
        assert_once(with_point)

        with_time.set(recovery_target_time=moment, **{"backfill.enabled": "off"})
        recover(with_time)
        row = progress(with_time, job)
        assert (row["state"], row["waiting_for"], row["workers"]) == ("running", "backfill.enabled is off", 0), row
        assert 2000 <= row["rows_done"] < ROWS
        # Long enough for a sweep that would do harm.
        with_time.sql("CREATE DATABASE another")
        with_time.reload()
        assert counts(with_time)[1] == (1, row["rows_updated"])
        with_time.set(**{"backfill.enabled": "on"})
        with_time.reload()
        with_time.sql("SELECT backfill.alter(%s, sleep_ms => 0, batch_size => 5000)", [job])
        complete(with_time, job)
        assert_once(with_time)
    finally:
        with_point.destroy()
        with_time.destroy()
