"""The harness does what the other tests trust it with. None of this needs the extension."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from harness import DURABLE, Cluster, Server, process, wait_until

New = Callable[..., Cluster]


@pytest.fixture(scope="module")
def plain(server: Server) -> Iterator[Cluster]:
    """A server for the tests that leave it as it was."""
    with Cluster(server=server, preload=False) as cluster:
        yield cluster


def test_runs_the_major_asked_for(plain: Cluster, server: Server) -> None:
    """The server is of the wanted major and has the settings of the harness."""
    assert int(plain.value("SHOW server_version_num")) // 10000 == server.major
    assert plain.value("SHOW fsync") == "off"
    assert plain.value("SHOW shared_preload_libraries") == ""


def test_settings_change_with_a_reload(new_cluster: New) -> None:
    """A test's own settings win over the defaults, at the start and later."""
    cluster = new_cluster(preload=False, conf=DURABLE | {"work_mem": "5MB"})
    assert (cluster.value("SHOW fsync"), cluster.value("SHOW work_mem")) == ("on", "5MB")
    cluster.set(work_mem="6MB")
    cluster.reload()
    wait_until(lambda: cluster.value("SHOW work_mem") == "6MB", 10, "the new work_mem")


def test_roles_come_in_as_themselves(plain: Cluster) -> None:
    """`user` is who the server sees, and what he may not do he can't."""
    plain.sql("CREATE ROLE alice LOGIN; CREATE TABLE secret (id int)")
    assert plain.value("SELECT current_user", user="alice") == "alice"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        plain.sql("SELECT * FROM secret", user="alice")


def test_psql_stops_at_the_first_error(plain: Cluster) -> None:
    """The real psql ran, its output is there, and an error is not passed over."""
    assert plain.psql("SELECT 6 * 7;", options=["-At"]).stdout == "42\n"
    failed = plain.psql("SELECT 1/0; SELECT 'later';", check=False)
    assert failed.returncode == 3
    assert "division by zero" in failed.stderr
    assert "later" not in failed.stdout


def test_an_immediate_restart_keeps_what_was_committed(new_cluster: New) -> None:
    """Restarting works in the mode that needs recovery."""
    cluster = new_cluster(preload=False)
    cluster.sql("CREATE TABLE kept AS SELECT 1 AS id")
    before = cluster.pid
    cluster.restart("immediate")
    assert cluster.pid != before
    assert cluster.value("SELECT id FROM kept") == 1


def test_a_crash_leaves_no_process_and_loses_no_commit(new_cluster: New) -> None:
    """All processes die at once; the next start recovers."""
    cluster = new_cluster(preload=False, conf=DURABLE)
    cluster.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
    family = [cluster.pid, *process.children(cluster.pid)]
    assert len(family) > 3
    cluster.crash()
    assert not cluster.running
    assert not any(map(process.alive, family))
    cluster.start()
    assert "automatic recovery in progress" in cluster.log_tail()
    assert cluster.value("SELECT count(*) FROM kept") == 1000


def test_killing_a_backend_resets_the_server_and_load_comes_back(new_cluster: New) -> None:
    """One kill -9 throws every client out; pgbench is started anew and works on."""
    cluster = new_cluster(preload=False)
    cluster.sql("CREATE TABLE hits (n int)")
    done = "SELECT count(*) FROM hits"
    with cluster.load("INSERT INTO hits VALUES (1);") as load:
        wait_until(lambda: cluster.value(done) > 10, 30, "pgbench to work")
        connection = cluster.connect()
        cluster.kill_backend(connection.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        before = cluster.value(done)
        wait_until(lambda: cluster.value(done) > before + 10, 30, "pgbench to work again")
        assert load.starts > 1, load.messages
    # A backend learns that its client is gone when it answers, after its statement.
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'"
    wait_until(lambda: cluster.value(left) == 0, 30, "pgbench's connections to end")
    after = cluster.value(done)
    assert cluster.value(done) == after


def test_a_standby_follows_and_takes_over(new_cluster: New) -> None:
    """The standby has what the primary wrote, and takes writes once promoted."""
    primary = new_cluster(preload=False)
    primary.sql("CREATE TABLE moved (id int)")
    with primary.standby("second") as standby:
        primary.sql("INSERT INTO moved VALUES (1)")
        primary.wait_for_replay(standby)
        assert standby.value("SELECT pg_is_in_recovery()")
        assert primary.sql("SELECT application_name, state FROM pg_stat_replication") == [("second", "streaming")]
        primary.crash()
        standby.promote()
        standby.sql("INSERT INTO moved VALUES (2)")
        assert standby.sql("SELECT id FROM moved ORDER BY id") == [(1,), (2,)]


def test_private_memory_is_read_from_the_kernel(plain: Cluster) -> None:
    """RssAnon of a backend grows with what it sorts, not with the shared buffers it touches."""
    connection = plain.connect()
    connection.execute("SET work_mem = '200MB'; SET max_parallel_workers_per_gather = 0")
    pid = connection.info.backend_pid
    before = plain.rss_anon(pid)
    assert 100_000 < before < 50_000_000
    connection.execute("DECLARE held CURSOR WITH HOLD FOR SELECT repeat('x', 100) FROM generate_series(1, 200000) g")
    assert plain.rss_anon(pid) > before + 10_000_000


def test_waiting_ends_at_the_deadline() -> None:
    """What never becomes true is an error that says what it was."""
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for the impossible; last seen: 0"):
        wait_until(lambda: 0, 0.05, "the impossible")


def test_nothing_is_left_behind(server: Server) -> None:
    """Whatever happens in a test, server and folder are gone afterwards."""
    with pytest.raises(ZeroDivisionError), Cluster(server=server, preload=False) as cluster:
        postmaster = cluster.pid
        cluster.value("SELECT 1")
        raise ZeroDivisionError
    assert not process.alive(postmaster)
    assert not cluster.folder.exists()
