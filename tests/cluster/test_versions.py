"""A library and SQL that do not belong together: nothing runs, nothing breaks, and the error says what to do."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from harness import Cluster, Database
from harness.jobs import (
    progress,
    start_count,
    wait_for_nap_between_batches,
    wait_for_no_worker,
    wait_for_rows,
    wait_for_state,
)
from harness.tables import counts, make_table

New = Callable[..., Cluster]
CALLS = (
    "SELECT backfill.define('t', 'n = n + 1')",
    "SELECT backfill.start('t', set_clause => 'n = n + 1')",
    "SELECT backfill.pause({job})",
    "SELECT backfill.resume({job})",
    "SELECT backfill.cancel({job})",
    "SELECT backfill.pause_all()",
    "SELECT backfill.resume_all()",
    "SELECT backfill.alter({job}, batch_size => 7)",
    "SELECT backfill.forget({job})",
    "SELECT backfill.status({job})",
    "CALL backfill.wait({job})",
)
RESTART = (
    "Install the library of that version. Where it is installed, restart the server if the library is preloaded,"
    " else connect again."
)


def pretend(db: Database, version: str | None) -> str:
    """Lets the database say that its extension is of another version (None: of the library's own), as an update does.

    Together with that it makes what a later version may: tables that the library's statements do not fit.
    """
    own: str = db.value("SELECT backfill.library_version()")
    script = (
        "ALTER TABLE backfill_internal.checkpoint ADD COLUMN later integer NOT NULL DEFAULT 0;"
        "ALTER TABLE backfill_internal.checkpoint ALTER COLUMN later DROP DEFAULT"
        if version
        else "ALTER TABLE backfill_internal.checkpoint DROP COLUMN later"
    )
    db.sql(
        "SET allow_system_table_mods = on; LOCK TABLE backfill_internal.job IN ACCESS EXCLUSIVE MODE;"
        f"UPDATE pg_extension SET extversion = '{version or own}' WHERE extname = 'backfill'; {script};"
        "UPDATE backfill_internal.job SET version = version + 1"
    )
    return own


@pytest.mark.parametrize("version, hint", [("0.0.9", "ALTER EXTENSION backfill UPDATE;"), ("99.0.0", RESTART)])
def test_every_call_says_what_to_do(db: Database, version: str, hint: str) -> None:
    """Old SQL with the new library, and the reverse; the views can be read, and say it, too."""
    make_table(db, 10)
    job = db.value("SELECT backfill.define('t', 'n = n + 1')")
    own = pretend(db, version)
    for call in CALLS:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
            db.sql(call.format(job=job))
        diag = caught.value.diag
        assert (diag.message_primary, diag.message_hint) == (
            f'extension "backfill" is of version {version} in this database,'
            f" but the loaded library is of version {own}",
            hint,
        ), call
    waits = progress(db, job)["waiting_for"]
    assert version in waits and waits.endswith(hint), waits
    pretend(db, None)
    assert progress(db, job)["waiting_for"] == "backfill.start()"


@pytest.mark.parametrize("preload", [True, False])
def test_workers_leave_when_the_extension_is_updated(new_cluster: New, preload: bool) -> None:
    """In the middle, awake or asleep: no batch fails, the job is still to run, and goes on once both fit again."""
    cluster = new_cluster(preload=preload, conf={"backfill.launcher_interval": "1s"} if preload else {})
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, 30_000)
    make_table(cluster, 1000, "asleep")
    job = start_count(cluster, batch_size=20, sleep_ms=1)
    asleep = start_count(cluster, "asleep", batch_size=500, sleep_ms=60_000)
    wait_for_rows(cluster, job, 500)
    wait_for_nap_between_batches(cluster, asleep)
    pretend(cluster, "99.0.0")
    wait_for_no_worker(cluster, job)
    done = progress(cluster, job)
    assert (done["state"], done["last_error"]) == ("running", None), done
    assert done["rows_done"] < 30_000 and "99.0.0" in done["waiting_for"], done
    assert "its worker stops: extension" in cluster.log.read_text()
    # The one that sleeps holds its job, and is as good as gone: what it would write does not fit.
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'backfill worker'")
    wait_for_no_worker(cluster, asleep)
    pretend(cluster, None)
    cluster.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [asleep])
    if not preload:
        assert cluster.value("SELECT backfill.resume_all()") == 2
    for each in (job, asleep):
        wait_for_state(cluster, each, "completed")
    assert counts(cluster) == [(1, 30_000)]
    assert counts(cluster, "asleep") == [(1, 1000)]
