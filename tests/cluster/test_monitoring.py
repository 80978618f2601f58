"""monitoring/ as it is used: real exporters, Prometheus and promtool, on jobs in every state."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Cluster, Server, wait_until
from harness.jobs import complete, fail, progress, start, wait_for, wait_for_rows
from harness.monitoring import FILES, MONITOR, Series, postgres_exporter, prometheus, scrape, sql_exporter
from harness.server import REPOSITORY
from harness.tables import make_table

DOCUMENT = (REPOSITORY / "docs" / "monitoring.md").read_text()
ODD = 'O\'Neil "x\\y" #1'

# What each metric of a job has to be, by its row of backfill.progress.
EXPECTED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "progress_ratio": lambda row: row["percent"] / 100 if row["percent"] is not None else None,
    "rows_done_total": lambda row: row["rows_done"],
    "rows_updated_total": lambda row: row["rows_updated"],
    "rows_estimated": lambda row: row["rows_total"],
    "rows_failed": lambda row: row["rows_failed"],
    "rows_per_second": lambda row: row["rows_per_second"],
    "eta_seconds": lambda row: row["eta"] and row["eta"].total_seconds(),
    "hot_ratio": lambda row: row["hot_percent"] / 100 if row["hot_percent"] is not None else None,
    "batch_seconds": lambda row: row["batch_ms"] / 1000 if row["batch_ms"] is not None else None,
    "batch_p95_seconds": lambda row: row["batch_ms_p95"] / 1000 if row["batch_ms_p95"] is not None else None,
    "batch_rows": lambda row: row["batch_rows"],
    "workers": lambda row: row["workers"],
    "workers_wanted": lambda row: row["workers_wanted"],
    "attempt": lambda row: row["attempt"],
    "wal_bytes_total": lambda row: row["wal_bytes"] or 0,
    "working_seconds_total": lambda row: row["seconds_working"] or 0,
    "sleeping_seconds_total": lambda row: row["seconds_sleeping"] or 0,
    "throttled_seconds_total": lambda row: row["seconds_throttled"] or 0,
    "started_timestamp_seconds": lambda row: row["started_at"] and row["started_at"].timestamp(),
    "updated_timestamp_seconds": lambda row: row["updated_at"] and row["updated_at"].timestamp(),
    "finished_timestamp_seconds": lambda row: row["finished_at"] and row["finished_at"].timestamp(),
}
COUNTERS = [name for name in EXPECTED if name.endswith("_total")]


def block(language: str) -> str:
    """The first block of that language in the document."""
    return DOCUMENT.split(f"```{language}\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def cluster(server: Server) -> Iterator[Cluster]:
    """A server whose jobs stand, run, wait, failed and ended; a slot that nobody reads holds one up."""
    with Cluster(server=server) as made:
        made.sql("CREATE EXTENSION backfill")
        made.psql(block("sql"))
        yield made


@pytest.fixture(scope="module")
def jobs(cluster: Cluster) -> dict[str, int]:
    """The jobs, by what became of them."""
    db = cluster
    made: dict[str, int] = {}
    for table in ("half", "done", "bad", "skipped", "slow", "lagging", '"Sh op"."Or ders"'):
        if "." in table:
            db.sql('CREATE SCHEMA "Sh op"')
        make_table(db, 3000, table)
    db.sql("CHECKPOINT")
    db.sql("SELECT pg_create_physical_replication_slot('nobody', true)")
    made["lagging"] = start(
        db, "lagging", "n = n + 1", batch=20, sleep_ms=100, name="lagging", options={"max_lag_bytes": "200kB"}
    )
    made["slow"] = start(db, "slow", "n = n + 1", batch=1, sleep_ms=100, name="slow", options={"workers": 2})
    made["half"] = start(db, "half", "n = n + 1", batch=100, sleep_ms=50)
    wait_for_rows(db, made["half"], 500)
    db.sql("SELECT backfill.pause(%s)", [made["half"]])
    wait_for(db, made["half"], "paused")
    made["done"] = start(db, "done", "n = n + 1", name="done")
    complete(db, made["done"])
    made["bad"] = start(db, "bad", "n = 1 / (id - 1500)", name="bad")
    fail(db, made["bad"])
    made["skipped"] = start(db, "skipped", "n = 1 / (id - 1500)", name="skipped", options={"max_failed_rows": 5})
    wait_for(db, made["skipped"], "completed")
    define = "SELECT backfill.define(%s, 'n = n + 1', name => %s)"
    made["pending"] = db.value(define, ['"Sh op"."Or ders"', ODD])
    made["old"] = start(db, "done", "n = n + 1", name="old")
    complete(db, made["old"])
    db.sql("UPDATE backfill_internal.outcome SET at = now() - interval '25 hours' WHERE job_id = %s", [made["old"]])
    wait_until(lambda: (progress(db, made["lagging"])["waiting_for"] or "").startswith("max_lag_bytes: "), 60, "lag")
    return made


STILL = ("half", "done", "bad", "skipped", "pending")


def of_job(series: Series, job: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The series of one job, by metric."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for (metric, labels), value in series.items():
        plain = dict(labels)
        if plain.get("job_id") == str(job):
            found.setdefault(metric, []).append((plain, value))
    return found


def same(value: float, wanted: Any) -> bool:
    """Whether a metric has the value of the view; NaN is its NULL."""
    return math.isnan(value) if wanted is None else math.isclose(value, float(wanted), rel_tol=1e-9, abs_tol=1e-9)


def test_postgres_exporter_shows_what_the_view_says(cluster: Cluster, jobs: dict[str, int], tmp_path: Path) -> None:
    """Each metric of each job that stands still is what a plain member of pg_monitor reads in the view."""
    assert cluster.value("SELECT NOT rolsuper FROM pg_roles WHERE rolname = %s", [MONITOR])
    with postgres_exporter(cluster, tmp_path) as address:
        series, types = scrape(address)
        assert scrape(address, "pg_exporter_last_scrape_error")[0].popitem()[1] == 0
    for name in STILL:
        row, found = progress(cluster, jobs[name], user=MONITOR), of_job(series, jobs[name])
        for metric, wanted in EXPECTED.items():
            ((labels, value),) = found[f"backfill_job_{metric}"]
            assert same(value, wanted(row)), f"{name}, {metric}: {value}, not {wanted(row)}"
            assert labels["datname"] == "postgres" and labels["name"] == (row["name"] or "")
        ((labels, value),) = found["backfill_job_state"]
        assert (labels["state"], value) == (row["state"], 1)
        assert "backfill_job_waiting_seconds" not in found and "backfill_sample_lag_bytes" not in found
    pending = of_job(series, jobs["pending"])["backfill_job_workers"][0][0]
    assert (pending["name"], pending["relation"]) == (ODD, '"Sh op"."Or ders"')
    assert of_job(series, jobs["half"])["backfill_job_workers"][0][0]["relation"] == "public.half"
    assert of_job(series, jobs["old"]) == {}, "a job that completed more than a day ago"
    assert {metric for metric, kind in types.items() if kind == "counter"} == {f"backfill_job_{m}" for m in COUNTERS}


def test_postgres_exporter_on_jobs_that_run(cluster: Cluster, jobs: dict[str, int], tmp_path: Path) -> None:
    """Of jobs that run, each metric lies between what the view says before and after."""
    with postgres_exporter(cluster, tmp_path) as address:
        running = ("slow", "lagging")

        def sampled() -> bool:
            found = of_job(scrape(address)[0], jobs["lagging"])
            return "backfill_sample_throttled_ratio" in found

        wait_until(sampled, 60, "a sample of the job that waits", every=0.5)
        before = {name: progress(cluster, jobs[name]) for name in running}
        series, types = scrape(address)
        after = {name: progress(cluster, jobs[name]) for name in running}
    # The table in the docs is of all there are.
    assert dict(re.findall(r"^\| `(backfill_[a-z0-9_]+)` \| (gauge|counter) \|", DOCUMENT, re.M)) == types
    for name in running:
        found = of_job(series, jobs[name])
        for metric in (*COUNTERS, "updated_timestamp_seconds", "rows_failed", "attempt"):
            ((_, value),) = found[f"backfill_job_{metric}"]
            least, most = (float(EXPECTED[metric](rows[name])) for rows in (before, after))
            assert least - 1e-6 <= value <= most + 1e-6, f"{name}, {metric}"
        for metric in ("workers_wanted", "batch_rows", "rows_estimated", "started_timestamp_seconds"):
            ((_, value),) = found[f"backfill_job_{metric}"]
            assert same(value, EXPECTED[metric](before[name])), f"{name}, {metric}"
        assert found["backfill_job_state"][0][0]["state"] == "running"
    slow, lagging = (of_job(series, jobs[name]) for name in running)
    assert slow["backfill_job_workers"][0][1] == 1 and slow["backfill_job_sleeping_seconds_total"][0][1] > 0
    assert "backfill_job_waiting_seconds" not in slow
    # The other may have found the slot behind before its first batch.
    for metric in ("batch_seconds", "batch_p95_seconds", "wal_bytes_total"):
        assert slow[f"backfill_job_{metric}"][0][1] > 0, metric
    ((labels, waited),) = lagging["backfill_job_waiting_seconds"]
    assert labels["reason"] == "max_lag_bytes" and waited > 0
    assert lagging["backfill_sample_lag_bytes"][0][1] > 200 * 1024
    ((labels, ratio),) = lagging["backfill_sample_throttled_ratio"]
    assert labels["signal"] == "max_lag_bytes" and 0 < ratio < 1.5
    assert lagging["backfill_job_throttled_seconds_total"][0][1] > 0


def test_prometheus_and_the_dashboard(cluster: Cluster, jobs: dict[str, int], tmp_path: Path) -> None:
    """Prometheus scrapes both exporters, which agree; each query of the dashboard has a result; the alerts fire."""
    relabelling = yaml.safe_load(block("yaml"))
    config = yaml.safe_load((FILES / "sql_exporter.yaml").read_text())
    folders = [tmp_path / name for name in ("postgres", "sql", "prometheus")]
    for folder in folders:
        folder.mkdir()
    with postgres_exporter(cluster, folders[0]) as one, sql_exporter(cluster, folders[1], config) as other:
        targets = {"postgres": (one, []), "sql": (other, relabelling["metric_relabel_configs"])}
        with prometheus(targets, folders[2]) as server:
            wait_until(lambda: server.query('backfill_job_state{job="sql"}'), 60, "the other exporter", every=0.5)
            wait_until(
                lambda: all(count > 3 for _, count in server.query("count_over_time(backfill_job_workers[1m])")),
                60,
                "some scrapes",
                every=0.5,
            )
            # On a busy machine a scrape of it may just have timed out.
            wait_until(lambda: server.query('backfill_job_state{job="postgres"}'), 60, "the one exporter", every=0.5)
            # The first sample of the job that waits comes after some seconds.
            sample = "backfill_sample_throttled_ratio"
            wait_until(lambda: server.query(sample), 60, "a sample of the job that waits", every=0.5)
            compare(server, jobs)
            for title, expression in dashboard_queries():
                found = server.query(expression)
                assert any(not math.isnan(value) for _, value in found), f"panel {title} shows nothing: {expression}"
            firing = {labels["alertname"] for labels, _ in server.query("ALERTS")}
            assert {"BackfillFailed", "BackfillFailedRows"} <= firing
            assert not firing & {"BackfillStalled", "BackfillPausedForLong", "BackfillPastItsWindow"}
            assert all(rule["health"] == "ok" for group in server.ask("rules")["groups"] for rule in group["rules"])


def compare(server: Any, jobs: dict[str, int]) -> None:
    """Both exporters give the same names, labels and values for jobs that stand still."""
    kept = ("__name__", "datname", "job_id", "name", "relation", "state")
    found: dict[str, dict[tuple[str | None, ...], str]] = {"postgres": {}, "sql": {}}
    numbers = "|".join(str(jobs[name]) for name in STILL)
    for labels, value in server.query(f'{{__name__=~"backfill.*", job_id=~"{numbers}"}}'):
        found[labels["job"]][tuple(labels.get(key) for key in kept)] = repr(value)
    assert found["postgres"] and found["postgres"] == found["sql"]


def dashboard_queries() -> list[tuple[str, str]]:
    """Title and query of each target of each panel, with Grafana's variables filled in."""
    dashboard = json.loads((FILES / "grafana_dashboard.json").read_text())
    values = {"$database": ".*", "$job": ".*", "$__rate_interval": "30s"}
    queries = []
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in values.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression, expression
            queries.append((panel["title"], expression))
    return queries
