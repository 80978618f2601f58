"""An application that uses the table meanwhile: pgbench with statements in the style of TPC-B, at a fixed rate."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from harness import Database, wait_until
from harness.server import clean_environment

from bench.latency import Latency, of_window, parse_log

BRANCHES = 50
# The account's row is one of the table that is filled. The rest is TPC-B's.
WRITE = f"""\
\\set id random(1, :rows)
\\set branch random(1, {BRANCHES})
\\set teller random(1, {10 * BRANCHES})
\\set delta random(-5000, 5000)
BEGIN;
UPDATE orders SET balance = balance + :delta WHERE id = :id;
SELECT balance FROM orders WHERE id = :id;
UPDATE tellers SET balance = balance + :delta WHERE id = :teller;
UPDATE branches SET balance = balance + :delta WHERE id = :branch;
INSERT INTO history (order_id, teller_id, branch_id, delta) VALUES (:id, :teller, :branch, :delta);
END;
"""
READ = """\
\\set id random(1, :rows)
\\set customer random(0, 100000)
SELECT status, amount, balance FROM orders WHERE id = :id;
SELECT id, created_at, amount FROM orders WHERE customer_id = :customer;
"""
# Beside one row to do, this is next to nothing: the rest of the machine is for the work, and for peaks.
SHARE = 0.25
PROGRESS = re.compile(r"progress: .* lag ([0-9.]+) ms")
TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Application:
    """How many sessions there are, and how long things take that are not measured themselves."""

    clients: int = 8
    calibration: int = 20
    """Seconds in which pgbench alone shows what it reaches."""
    lead: float = 5.0
    """Seconds of pgbench alone before the work begins."""

    def quick(self) -> Application:
        """To see that it works."""
        return Application(self.clients, calibration=2, lead=1.0)

    def calibrate(self, db: Database, rows: int) -> float:
        """Transactions a second: a share of what there is without a limit."""
        with tempfile.TemporaryDirectory() as folder:
            found = subprocess.run(
                [*self._command(db, rows, Path(folder)), "-T", str(self.calibration)],
                env=clean_environment(),
                capture_output=True,
                text=True,
            )
        reached = TPS.search(found.stdout)
        assert found.returncode == 0 and reached, f"pgbench: {found.stderr}"
        return max(1.0, round(float(reached[1]) * SHARE))

    def load(self, db: Database, rows: int, rate: float) -> Load:
        """The application at work, as a context manager."""
        return Load(self, db, rows, rate)

    def _command(self, db: Database, rows: int, folder: Path) -> list[str]:
        for name, text in (("write.sql", WRITE), ("read.sql", READ)):
            (folder / name).write_text(text)
        scripts = [f"-f{folder / 'write.sql'}@1", f"-f{folder / 'read.sql'}@1"]
        return [
            *(db.cluster.server.program("pgbench"), "-n", "-M", "prepared", "-j", "1"),
            *("-c", str(self.clients), "-D", f"rows={rows}", *scripts),
            *("-h", str(db.cluster.folder), "-p", str(db.cluster.port), "-U", "postgres", db.name),
        ]


class Load:
    """pgbench at a rate: transactions are due at random moments, whether or not the ones before are done."""

    def __init__(self, application: Application, db: Database, rows: int, rate: float) -> None:
        self.application = application
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        self._command = [
            *application._command(db, rows, Path(self._folder.name)),
            *("-R", str(rate), "-T", "36000", "-P", "1", "-l", f"--log-prefix={self._log}"),
        ]
        self._lag: float | None = None
        self._reports = 0
        self._said: list[str] = []

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            self._command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        time.sleep(self.application.lead)
        self._check_alive()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._folder.cleanup()

    def finish(self, began: float, ended: float) -> Latency:
        """Ends it when those who still wait are done; what it saw between these moments."""
        first = self._reports
        # Both may be of the second in which the work ended.
        wait_until(
            lambda: self._process.poll() is not None or (self._reports > first + 1 and self._caught_up()),
            600,
            "pgbench to do what was due meanwhile",
        )
        self._check_alive()
        # As if its -T were over: it ends the transactions that it is at, and writes its log.
        self._process.send_signal(signal.SIGALRM)
        self._process.wait(60)
        [log] = self._log.parent.glob("log.*")
        with log.open() as lines:
            return of_window(parse_log(lines), began, ended)

    def _caught_up(self) -> bool:
        return self._lag is not None and self._lag < 1000

    def _check_alive(self) -> None:
        assert self._process.poll() is None, f"pgbench ended: {''.join(self._said)}"

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            if found := PROGRESS.search(line):
                self._lag = float(found[1])
                self._reports += 1
            else:
                self._said.append(line)
