"""Runs scenarios: each contender in turn on a fresh copy of its table, and again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import psycopg
from harness import Database

from bench import host
from bench.contenders import Task
from bench.figures import MB, Figures
from bench.foreground import Application, Load
from bench.meter import checkpoint, measure
from bench.results import Run, ScenarioResult
from bench.scenarios import Entry, Scenario
from bench.server import BenchServer
from bench.waiter import Waiter


@dataclass
class Runner:
    """`run` does it all; every result is on disk before the next begins."""

    folder: Path
    quick: bool = False
    memory_cgroup: Path | None = None

    def run(self, scenarios: Iterable[Scenario]) -> list[ScenarioResult]:
        """One server for all neighbours with the same settings."""
        results = []
        for (conf, confined), group in groupby(scenarios, lambda one: (dict(one.conf), one.small_memory)):
            cgroup = self.memory_cgroup if confined else None
            with BenchServer(conf, quick=self.quick, memory_cgroup=cgroup) as server:
                left = [*group]
                while left:
                    scenario = left.pop(0)
                    results.append(self._scenario(server, scenario))
                    needed = {entry.dataset.name for later in left for entry in later.entries}
                    for entry in scenario.entries:
                        if entry.dataset.name not in needed:
                            server.forget(entry.dataset)
        return results

    def _scenario(self, server: BenchServer, scenario: Scenario) -> ScenarioResult:
        say(f"{scenario.name}: {scenario.title}")
        for entry in scenario.entries:
            server.build(entry.dataset)
        settings = {
            "PostgreSQL": server.version,
            "shared_buffers": server.show("shared_buffers"),
            "autovacuum": server.show("autovacuum"),
            "memory": _limit(server.memory_cgroup),
        }
        rate = None
        if scenario.application:
            rate = self._calibrate(server, scenario)
            clients = scenario.application.clients
            settings["application"] = f"pgbench, {clients} clients, {rate:,.0f} transactions a second"
        result = ScenarioResult(scenario.name, host.look(server.cluster.folder), settings)
        for repetition in range(scenario.repetitions):
            for entry in scenario.entries:
                if repetition < (entry.repetitions or scenario.repetitions):
                    run = self._once(server, scenario, entry, repetition, rate)
                    say(f"  {repetition + 1}/{scenario.repetitions} {entry.name:<20} {_line(run)}")
                    result.runs.append(run)
                    result.save(self.folder)
        return result

    def _calibrate(self, server: BenchServer, scenario: Scenario) -> float:
        """On a copy of its own: what the application reaches alone, and the share of it that it is to do."""
        assert scenario.application
        dataset = scenario.entries[0].dataset
        with server.copy(dataset, warm=scenario.warm) as db:
            return self._sized(scenario.application).calibrate(db, dataset.rows)

    def _sized(self, application: Application) -> Application:
        return application.quick() if self.quick else application

    @contextlib.contextmanager
    def _used(self, scenario: Scenario, task: Task, rate: float | None) -> Iterator[tuple[Load | None, Waiter | None]]:
        """The table is in use, in the way that the scenario is about."""
        with contextlib.ExitStack() as stack:
            if scenario.open_transaction:
                stack.enter_context(_open_transaction(task.db))
            checkpoint(task.db)
            load = waiter = None
            if scenario.application and rate:
                application = self._sized(scenario.application)
                load = stack.enter_context(application.load(task.db, task.dataset.rows, rate))
            if scenario.waiter:
                waiter = stack.enter_context(Waiter(task.db))
            yield load, waiter

    def _once(self, server: BenchServer, scenario: Scenario, entry: Entry, repetition: int, rate: float | None) -> Run:
        """An error of one contender is a result, too: the others go on."""
        try:
            with server.copy(entry.dataset, warm=scenario.warm) as db:
                task = Task(db, entry.dataset, timeout=60 if self.quick else 3600, watch=scenario.open_transaction)
                task.idle = 2 if self.quick else task.idle
                entry.contender.prepare(task)
                with self._used(scenario, task, rate) as (load, waiter):
                    figures = measure(entry.contender, task, load, waiter)
                verify(task, entry.contender.works)
            return Run(entry.name, repetition, figures)
        except (AssertionError, psycopg.Error) as error:
            return Run(entry.name, repetition, None, f"{type(error).__name__}: {error}")


def verify(task: Task, done: bool = True) -> None:
    """Every row is there and as it should be, or the contender has not done the work."""
    work = task.dataset
    assert task.db.value(f"SELECT {work.kept}"), f"not true at the end: {work.kept}"
    if not done:
        return
    rows, right = task.db.sql(f"SELECT count(*), count(*) FILTER (WHERE {work.right}) FROM {work.table}")[0]
    assert rows == right == work.rows, f"of {work.rows:,} rows {rows:,} are there, {right:,} as they should be"


def say(text: str) -> None:
    """Tells whoever waits how far it is."""
    print(text, flush=True)


@contextlib.contextmanager
def _open_transaction(db: Database) -> Iterator[None]:
    """Somebody's session with a snapshot, forgotten."""
    with psycopg.connect(db.dsn()) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM pg_class")
        yield
        connection.rollback()


def _limit(cgroup: Path | None) -> str:
    if cgroup is None:
        return "not limited"
    for name in ("memory.max", "memory.limit_in_bytes"):
        if (cgroup / name).exists():
            text = (cgroup / name).read_text().strip()
            return f"limited to {int(text) // MB} MB" if text.isdigit() else "not limited"
    return "not limited"


def _line(run: Run) -> str:
    found = run.figures
    if found is None:
        return f"FAILED: {run.error}"
    hot = "" if found.hot_share is None else f", HOT {found.hot_share:.0%}"
    if seen := found.latency:
        hot += "".join(f", {name} {getattr(seen, name) * 1000:,.1f}" for name in ("p50", "p95", "p99", "worst")) + " ms"
    if waits := found.waits:
        hot += f", {waits.count} waits, p50 {waits.p50 * 1000:.1f}, p99 {waits.p99 * 1000:.1f} ms"
    return f"{found.seconds:8.2f} s, WAL {found.wal / MB:,.0f} MB, {_growth(found)}{hot}"


def _growth(found: Figures) -> str:
    return f"heap {found.heap_growth:.2f}x, indexes {found.index_growth:.2f}x"
