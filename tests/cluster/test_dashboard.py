"""The view for `\\watch`: a line a job, in 80 columns."""

from __future__ import annotations

import unicodedata

import pytest
from harness import Database
from harness.jobs import complete, progress, start, wait_for_rows, wait_for_state
from harness.tables import make_table
from harness.throttles import throttled

WIDTH = 80


def shown(db: Database, *, encoding: str = "UTF8", user: str = "postgres") -> list[str]:
    """The lines that psql prints."""
    options = ["-P", "pager=off", "-P", "border=1", "-v", f"ENCODING={encoding}"]
    text = f"SET client_encoding = '{encoding}'; SELECT * FROM backfill.dashboard"
    printed = db.psql(text, user=user, options=options).stdout
    return [line for line in printed.splitlines() if line and not line.startswith("SET")]


def columns(line: str) -> int:
    """Columns of a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def test_a_line_a_job(db: Database) -> None:
    """What runs comes first, then what stands still, then what ended within the hour."""
    make_table(db, 1000)
    for name in ("done", "waits", "sleeps", "later"):
        db.sql(f"CREATE TABLE {name} AS TABLE t; ALTER TABLE {name} ADD PRIMARY KEY (id)")
    complete(db, start(db, "done", "n = n + 1", name="first"))
    db.sql("SELECT backfill.define('later', 'n = 1', name => 'not yet')")
    waits = start(db, "waits", "n = n + 1", options={"throttle_query": "SELECT true"})
    sleeps = start(db, "sleeps", "n = n + 1", batch=500, sleep_ms=60_000, name="half")
    throttled(db, waits, "throttle_query")
    paused = start(db, "t", "n = n + 1", batch=10, sleep_ms=60_000)
    db.sql("SELECT backfill.pause(%s)", [paused])
    wait_for_state(db, paused, "paused")
    lines = [[cell.strip() for cell in line.split("|")] for line in shown(db)]
    assert lines[0] == ["job", "table", "done", "rate", "eta", "doing"]
    found = {line[0].split()[0]: line for line in lines[2:-1]}
    assert [*found] == [str(job) for job in (waits, sleeps, 2, paused, 1)]
    assert found[str(waits)][1] == "waits" and found[str(waits)][5] == "throttle_query"
    assert found[str(sleeps)][2] == "██░░░  50%" and found[str(sleeps)][5] == "running"
    assert found["2"][2:] == ["░░░░░   ?%", "", "", "pending"] and found["2"][0] == "2 not yet"
    assert found[str(paused)][5] == "paused"
    assert found["1"][2:] == ["█████ 100%", "", "", "completed"]
    db.sql("UPDATE backfill_internal.outcome SET at = at - interval '61 minutes'")
    assert not any(line.lstrip().startswith("1 ") for line in shown(db))


NAMES = ["a name that is much longer than its column", "日本語の名前はとても長い", "né à l'été de l'année", "W" * 63]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_never_wider_than_a_terminal(db: Database, name: str) -> None:
    """Whatever jobs and tables are called, and however large the numbers are."""
    table = name[:20] + "\n\t|"
    db.sql(f'CREATE TABLE "{table}" (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)')
    db.sql(f'INSERT INTO "{table}" SELECT generate_series(1, 3000)')
    options = {"max_rows_per_second": 300, "vacuum": False}
    job = start(db, f'"{table}"', "n = n + 1", batch=10, name=name, options=options)
    throttled(db, job, "max_rows_per_second")
    db.sql("""
        CREATE TABLE huge (id int PRIMARY KEY, n int); INSERT INTO huge VALUES (1)
    """)
    for rate, left in ((999_499, 10**9), (9_999_999, 10**13), (0.4, 10**6), (123_456, 10**5)):
        db.sql("UPDATE backfill_internal.checkpoint SET rows_per_second = %s, rows_total = %s", [rate, left])
        lines = shown(db)
        assert max(columns(line) for line in lines) <= WIDTH, "\n".join(lines)
        assert len(lines) == 4, lines
    assert progress(db, job)["state"] == "running"
    db.sql("SELECT backfill.cancel(%s, true)", [job])


def test_a_terminal_without_blocks(db: Database) -> None:
    """Of another encoding."""
    make_table(db, 1000)
    job = start(db, "t", "n = n + 1", batch=500, sleep_ms=60_000)
    wait_for_rows(db, job, 500)
    assert any("##...  50%" in line for line in shown(db, encoding="LATIN1"))
    db.sql("SELECT backfill.cancel(1, true)")


def test_tables_of_the_same_name_are_told_apart(db: Database) -> None:
    """Of another schema than those that are searched, it says which."""
    db.sql("CREATE SCHEMA eu; CREATE SCHEMA us")
    for schema in ("public", "eu", "us"):
        db.sql(f"CREATE TABLE {schema}.payments (id int PRIMARY KEY, n int)")
        complete(db, start(db, f"{schema}.payments", "n = 1"))
    assert [line.split("|")[1].strip() for line in shown(db)[2:-1]] == ["payments", "eu.payments", "us.payments"]


def test_a_role_sees_its_own(db: Database) -> None:
    """As in backfill.progress, of which it is made."""
    db.sql("DROP ROLE IF EXISTS nobody_else")
    db.sql("CREATE ROLE nobody_else LOGIN")
    make_table(db, 10)
    complete(db, start(db, "t", "n = n + 1"))
    assert len(shown(db)) == 4
    assert shown(db, user="nobody_else")[2:] == ["(0 rows)"]
