"""Runs PostgreSQL's own pg_regress over tests/pg_regress against a throw-away server.

Arguments are names of tests; without any, all files of sql/ run in the order of their names.
`UPDATE=1` takes the output of this run as the expected one: read the diff before you commit it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

from harness import Cluster, Server  # noqa: E402
from harness.server import clean_environment  # noqa: E402

TESTS = ROOT / "tests" / "pg_regress"


def main() -> int:
    """Returns the exit code of pg_regress."""
    names = sys.argv[1:] or sorted(path.stem for path in (TESTS / "sql").glob("*.sql"))
    if not names:
        print("no psql regression tests")
        return 0
    server = Server()
    server.hold()
    with Cluster(server=server) as cluster, tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        result = run(cluster, output, names)
        diffs = output / "regression.diffs"
        if result != 0 and diffs.exists():
            print(diffs.read_text())
            print(cluster.log_tail(20))
        if os.environ.get("UPDATE"):
            for name in names:
                shutil.copy(output / "results" / f"{name}.out", TESTS / "expected" / f"{name}.out")
            print(f"expected output rewritten: {', '.join(names)}")
        return result


def run(cluster: Cluster, output: Path, names: list[str]) -> int:
    """Runs pg_regress as a client of the cluster."""
    server = cluster.server
    tool = Path(server.ask("--pgxs")).parents[1] / "test" / "regress" / "pg_regress"
    if os.environ.get("UPDATE"):
        for name in names:
            (TESTS / "expected" / f"{name}.out").touch()
    command = [
        tool,
        f"--inputdir={TESTS}",
        f"--outputdir={output}",
        f"--bindir={server.bindir}",
        f"--host={cluster.folder}",
        f"--port={cluster.port}",
        "--user=postgres",
        "--dbname=regression",
        "--load-extension=backfill",
        *names,
    ]
    # Since 16 the expected output is looked for in the current folder, before in inputdir.
    return subprocess.run([str(part) for part in command], env=clean_environment(), cwd=TESTS).returncode


if __name__ == "__main__":
    sys.exit(main())
