"""Tables to walk, and the proof that a job did what one UPDATE would have done."""

from __future__ import annotations

import pytest

from harness.database import Database


def make_table(db: Database, rows: int, name: str = "t") -> None:
    """A table (id primary key, n = 0), analysed; `n = n + 1` counts how often a row was updated."""
    db.sql(
        f"CREATE TABLE {name} (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);"
        f"INSERT INTO {name} SELECT generate_series(1, {rows})"
    )
    db.sql(f"ANALYZE {name}")


def counts(db: Database, name: str = "t") -> list[tuple[int, int]]:
    """How many rows were updated how often."""
    return db.sql(f"SELECT n, count(*) FROM {name} GROUP BY n ORDER BY n")


def sleep_at(db: Database, row: int, seconds: float = 60, name: str = "t") -> None:
    """Lets every batch that reaches the row sleep in a trigger."""
    db.sql(
        f"CREATE FUNCTION sleep_at_{row}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({seconds}); RETURN new; END $$;"
        f"CREATE TRIGGER sleep_at_{row} BEFORE UPDATE ON {name} FOR EACH ROW"
        f" WHEN (old.id = {row}) EXECUTE FUNCTION sleep_at_{row}()"
    )


def assert_same(db: Database, one: str, other: str) -> None:
    """Both tables hold the same rows, each as often."""
    for a, b in ((one, other), (other, one)):
        rows = db.sql(f"SELECT * FROM {a} EXCEPT ALL SELECT * FROM {b} LIMIT 3")
        assert rows == [], f"only in {a}: {rows}"


def need(db: Database, *what: str) -> None:
    """Skips the test where the server was built without ICU or comes without contrib's modules."""
    questions = {
        "icu": "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')",
        "citext": "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext')",
    }
    for name in what:
        if not db.value(questions[name]):
            pytest.skip(f"this server comes without {name}")
