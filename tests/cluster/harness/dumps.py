"""pg_dump and pg_restore, as a DBA runs them."""

from __future__ import annotations

import itertools
from pathlib import Path

from harness.cluster import Cluster
from harness.database import Database

_numbers = itertools.count()


def dump(db: Database, *options: str) -> Path:
    """Dumps the database to a file, or a folder, and returns that."""
    cluster: Cluster = db.cluster
    path = cluster.folder / f"dump-{next(_numbers)}"
    cluster.run("pg_dump", "-d", db.dsn(), "-f", path, *options)
    return path


def restore(cluster: Cluster, name: str, path: Path, *options: str) -> Database:
    """Makes a database and restores the dump there; an error if one statement fails."""
    cluster.sql(f"CREATE DATABASE {name} TEMPLATE template0")
    copy = cluster.database(name)
    load(copy, path, *options)
    return copy


def load(db: Database, path: Path, *options: str, check: bool = True) -> str:
    """Loads the dump into a database that is there; returns what the program has said."""
    if path.is_file() and path.read_bytes()[:5] != b"PGDMP":
        arguments = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", db.dsn(), "-f", path, *options]
    else:
        arguments = ["pg_restore", "--exit-on-error", "-d", db.dsn(), *options, path]
    return db.cluster.run(str(arguments[0]), *arguments[1:], check=check).stdout
