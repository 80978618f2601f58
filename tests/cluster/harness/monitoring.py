"""Prometheus and exporters, as a DBA would run them, on what monitoring/ has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import free_port
from harness.database import Database
from harness.server import REPOSITORY, clean_environment
from harness.wait import wait_until

FILES = REPOSITORY / "monitoring"
MONITOR = "backfill_monitor"

# A series: its metric and labels, and its value.
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')


def tool(name: str) -> str:
    """The program of that name; without it, the test is skipped."""
    cache = os.environ.get("BACKFILL_CACHE")
    own = f"{cache}/monitoring/usr/bin" if cache else ""
    found = shutil.which(name, path=f"{own}:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"there is no {name} on this machine: scripts/setup fetches it where the distribution has it")
    return found


@contextlib.contextmanager
def serving(command: Sequence[str | Path], port: int, ready: str, folder: Path, **env: str) -> Iterator[str]:
    """Runs a server until the block ends; gives its address as soon as the path `ready` answers."""
    address = f"http://127.0.0.1:{port}"
    log = folder / f"log-{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, env=clean_environment() | env, cwd=folder
        )
    try:

        def answers() -> bool:
            assert process.poll() is None, f"{command[0]} has ended:\n{log.read_text()[-3000:]}"
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                return fetch(address + ready) is not None
            return False

        wait_until(answers, 30, f"{command[0]} to answer", every=0.1)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fetch(url: str) -> str:
    """What is at that address."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


@contextlib.contextmanager
def postgres_exporter(db: Database, folder: Path) -> Iterator[str]:
    """prometheus-postgres-exporter with our queries, and nothing else, as the role for monitoring."""
    port = free_port()
    exporter = tool("prometheus-postgres-exporter")
    # The name changed with version 0.12.
    told = subprocess.run([exporter, "--help"], capture_output=True, text=True, check=False)
    bgwriter = next(name for name in ("stat_bgwriter", "bgwriter") if f"collector.{name}" in told.stdout + told.stderr)
    command: list[str | Path] = [
        exporter,
        *["--disable-default-metrics", "--disable-settings-metrics", f"--no-collector.{bgwriter}"],
        f"--web.listen-address=127.0.0.1:{port}",
        f"--extend.query-path={FILES / 'postgres_exporter.yaml'}",
    ]
    with serving(command, port, "/", folder, DATA_SOURCE_NAME=f"{db.dsn(MONITOR)} sslmode=disable") as address:
        yield address


@contextlib.contextmanager
def sql_exporter(db: Database, folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """prometheus-sql-exporter with our configuration, but for whom it connects to and how often it looks."""
    port = free_port()
    job = config["jobs"][0]
    where = urllib.parse.urlencode({"host": db.cluster.folder, "port": db.cluster.port, "sslmode": "disable"})
    job |= {"interval": "1s", "connections": [f"postgres://{MONITOR}@/{db.name}?{where}"]}
    file = folder / "sql_exporter.json"
    file.write_text(json.dumps(config))
    command = [tool("prometheus-sql-exporter"), f"-config.file={file}", f"-web.listen-address=127.0.0.1:{port}"]
    with serving(command, port, "/metrics", folder) as address:
        yield address


@contextlib.contextmanager
def prometheus(targets: Mapping[str, tuple[str, list[Any]]], folder: Path) -> Iterator[Prometheus]:
    """Prometheus with our alerts, scraping each second the addresses of the targets, relabelled as given."""
    port = free_port()
    scrapes = [
        {
            "job_name": name,
            "static_configs": [{"targets": [address.removeprefix("http://")]}],
            "metric_relabel_configs": relabelling,
        }
        for name, (address, relabelling) in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FILES / "alerts.yaml")],
        "scrape_configs": scrapes,
    }
    file = folder / "prometheus.json"
    file.write_text(json.dumps(config))
    command = [
        tool("prometheus"),
        *[f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"],
    ]
    with serving(command, port, "/-/ready", folder) as address:
        yield Prometheus(address)


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **parameters: str) -> Any:
        """What the API answers; an AssertionError with its message if that is an error."""
        try:
            body = fetch(f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        return json.loads(body)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Evaluates an expression now; gives the labels and the value of each series."""
        return [(one["metric"], float(one["value"][1])) for one in self.ask("query", query=expression)["result"]]


def scrape(address: str, prefix: str = "backfill") -> tuple[Series, dict[str, str]]:
    """The series at an exporter whose names begin so, and the types of the metrics."""
    series: Series = {}
    types: dict[str, str] = {}
    for line in fetch(address + "/metrics").splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            types[name] = kind
        elif line.startswith(prefix):
            match = LINE.match(line)
            assert match, line
            name, labels, value = match.groups()
            found = {key: _plain(text) for key, text in LABEL.findall(labels or "")}
            series[name, frozenset(found.items())] = float(value)
    return series, {name: kind for name, kind in types.items() if name.startswith(prefix)}


def _plain(text: str) -> str:
    return text.replace(r"\"", '"').replace(r"\n", "\n").replace("\\\\", "\\")
