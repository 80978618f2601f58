"""pg_upgrade from an older major: jobs come along with their tables, and wait for resume."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Cluster, Server
from harness.jobs import complete, progress, start, start_count, wait_for, wait_for_nap_between_batches
from harness.tables import counts, make_table

MINUTE = 60_000
ONCE = [(1, 1000)]


def installed(server: Server) -> set[str]:
    """The extension's SQL that is installed in this major, line by line: in what order it is generated varies."""
    folder = Path(server.ask("--sharedir")) / "extension"
    scripts = [path for path in folder.glob("backfill--*.sql") if path.name != "backfill--0.2.0.sql"]
    return {line for path in scripts for line in path.read_text().splitlines()}


@pytest.fixture(scope="session")
def older(server: Server) -> Server:
    """The next older major that is prepared, with the same build of the extension in it."""
    for major in range(server.major - 1, 14, -1):
        try:
            found = Server(major)
        except subprocess.CalledProcessError:
            continue
        found.hold()
        if installed(found) == installed(server):
            return found
    pytest.skip("no older major is prepared that has the same build of the extension")


@pytest.fixture
def pair(older: Server, server: Server) -> Iterator[tuple[Cluster, Cluster]]:
    """A server of the older major that runs, and an empty one of this major that does not."""
    with Cluster(server=older) as old:
        new = Cluster(server=server, conf={"backfill.launcher_interval": "1s"})
        try:
            checksums = ["--no-data-checksums"] if server.major >= 18 else []
            new.run("initdb", "-D", new.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", *checksums)
            new.write_conf()
            yield old, new
        finally:
            new.destroy()


def fit(old: Cluster, new: Cluster) -> None:
    """Some minors mark columns with an option that the pg_dump of an older minor can't restore: takes it away."""
    if b"pg_attver" not in Path(new.server.program("pg_dump")).read_bytes():
        old.sql(
            "SET allow_system_table_mods = on; UPDATE pg_attribute SET attoptions = NULL"
            " WHERE attrelid >= 16384 AND attoptions::text LIKE '{pg_attver=%}'"
        )


def upgrade(old: Cluster, new: Cluster) -> None:
    """Stops the old server, and makes the new one of its files."""
    fit(old, new)
    old.stop()
    result = new.run(
        "pg_upgrade", "-U", "postgres", "--link", "-s", new.folder,
        "-b", old.server.bindir, "-B", new.server.bindir, "-d", old.data, "-D", new.data,
        "-p", old.port, "-P", new.port, check=False,
    )  # fmt: skip
    logs = [path.read_text(errors="replace")[-2000:] for path in new.data.glob("pg_upgrade_output.d/*/log/*dump*.log")]
    assert result.returncode == 0, "\n".join([result.stdout, *logs])
    new.start()


@pytest.mark.timeout(300)
def test_jobs_go_on_after_pg_upgrade(pair: tuple[Cluster, Cluster]) -> None:
    """Nothing runs during the upgrade or after it, until resume: then each goes on where it was, also within waves."""
    old, new = pair
    old.sql("CREATE EXTENSION backfill")
    for name in ("running", "waves", "pages"):
        make_table(old, 1000, name)
        old.sql(f"ALTER TABLE {name} ADD pad text DEFAULT repeat('x', 500)")
        old.sql(f"VACUUM ANALYZE {name}")
    jobs = {
        "waves": start_count(old, "waves", 100, MINUTE, options={"strategy": "waves"}),
        "pages": start(
            old, "pages", "n = n + 1", batch=100, sleep_ms=MINUTE, where="n = 0", options={"walk": "physical"}
        ),
    }
    for job in jobs.values():
        wait_for_nap_between_batches(old, job)
        old.sql("SELECT backfill.pause(%s)", [job])
        wait_for(old, job, "paused")
    # Each start of the server lets it do a batch.
    jobs["running"] = start_count(old, "running", 100, MINUTE)
    wait_for_nap_between_batches(old, jobs["running"])
    before = {name: counts(old, name) for name in jobs}
    assert all(len(each) == 2 for each in before.values()), before
    open_region = (
        "SELECT region_key, waves, spread, wave FROM backfill_internal.checkpoint WHERE region_key IS NOT NULL"
    )
    region = old.sql(open_region)
    assert region
    upgrade(old, new)
    # A job of its own that is taken up shows that the launcher has been there.
    make_table(new, 1000, "own")
    own = start_count(new, "own", 10, 20)
    new.terminate_worker(own)
    complete(new, own)
    assert {name: counts(new, name) for name in jobs} == before
    assert new.sql(open_region)[: len(region)] == region
    for name, job in jobs.items():
        row = progress(new, job)
        assert row["state"] == "paused" and f"backfill.resume({job}) runs it here" in row["waiting_for"], (name, row)
        assert "pg_upgrade" in row["waiting_for"], row
        new.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    # Each by itself: what came from elsewhere is not for resume_all.
    assert new.value("SELECT backfill.resume_all()") == 0
    for job in jobs.values():
        assert new.value("SELECT backfill.resume(%s)", [job]) == "running"
    for name, job in jobs.items():
        complete(new, job)
        assert counts(new, name) == ONCE, name
