"""The fixtures of the cluster tests, and what a failing test shows."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Cluster, Database, Server
from harness.cluster import LIVE
from harness.hostile import CLEAN, HOSTILE, OWNERS, Scene
from harness.jobs import cancel_running


def _destroy_all() -> None:
    for cluster in [*LIVE]:
        cluster.destroy()


atexit.register(_destroy_all)
Cluster.in_memory = True
# Being told to stop is an ordinary end too: servers must not outlive the tests.
signal.signal(signal.SIGTERM, lambda *_: pytest.exit("told to stop", returncode=143))


@pytest.fixture(scope="session")
def server() -> Server:
    """The PostgreSQL that is tested: PG=16 in the environment picks the major."""
    found = Server()
    found.hold()
    return found


@pytest.fixture(scope="session")
def shared_cluster(server: Server) -> Iterator[Cluster]:
    """One server for all tests that don't crash it and don't change its settings; they take `db`."""
    with Cluster(server=server) as cluster:
        yield cluster


# With the extension, and closed to everybody, so that nothing keeps it from being copied: a third of the time.
TEMPLATE = "with_extension"


def _copy_template(cluster: Cluster, name: str) -> None:
    if not cluster.sql("SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE]):
        cluster.sql(f"CREATE DATABASE {TEMPLATE}")
        cluster.database(TEMPLATE).sql("CREATE EXTENSION backfill")
        cluster.sql(f"ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")
    cluster.sql(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")


_numbers = iter(range(1, 1_000_000))


@pytest.fixture
def db(shared_cluster: Cluster) -> Iterator[Database]:
    """A database of the test's own in the shared server, with the extension."""
    name = f"test_{next(_numbers)}"
    _copy_template(shared_cluster, name)
    database = shared_cluster.database(name)
    yield database
    shared_cluster.close_connections()
    shared_cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def new_cluster(server: Server) -> Iterator[Callable[..., Cluster]]:
    """Makes servers of the test's own, `new_cluster(preload=False, conf={"wal_level": "logical"})`; all end with it."""
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        cluster = Cluster(server=server, **options)
        made.append(cluster)
        return cluster.__enter__()

    yield make
    for cluster in reversed(made):
        cluster.destroy()


@pytest.fixture(params=OWNERS)
def scene(request: pytest.FixtureRequest, db: Database) -> Iterator[Scene]:
    """A database with everything that the owner has made."""
    for role, may in (("mallory", "LOGIN"), ("cuckoo", "NOLOGIN")):
        if not db.value("SELECT to_regrole(%s) IS NOT NULL", [role]):
            db.sql(f"CREATE ROLE {role} {may}")
    owner, user, session = OWNERS[request.param]
    db.sql(HOSTILE.format(owner=owner))
    made = Scene(db, owner, user, session)
    made.arm()
    yield made
    cancel_running(db)
    db.sql(CLEAN)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failing test shows the end of its servers' logs."""
    report = yield
    if report.failed:
        for cluster in LIVE:
            report.sections.append((f"log of the server in {cluster.folder}", cluster.log_tail()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes the names of the tests that failed into the file that BACKFILL_FAILED names, for a second try."""
    if not (path := os.environ.get("BACKFILL_FAILED")):
        return
    failed = {report.nodeid for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, [])}
    Path(path).write_text("".join(f"{name}\n" for name in sorted(failed)))
