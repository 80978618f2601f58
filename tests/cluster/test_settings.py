"""Settings that change how a value is read or written: the walk's own keys know none of them."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for, wait_for_rows

SETTINGS = {
    "array_nulls": "off",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "America/St_Johns",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "xmloption": "document",
    "lc_monetary": "C.UTF-8",
    "lc_numeric": "C.UTF-8",
    "lc_time": "C.UTF-8",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "escape_string_warning": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "default_text_search_config": "pg_catalog.german",
    "search_path": "pg_temp",
    "default_with_oids": "off",
    "check_function_bodies": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "default_toast_compression": "pglz",
    "enable_indexscan": "off",
    "enable_tidscan": "off",
    "constraint_exclusion": "on",
    "plan_cache_mode": "force_custom_plan",
    "from_collapse_limit": "1",
    "join_collapse_limit": "1",
    "geqo_threshold": "2",
}
# Type, and the value of row g: some of them are read otherwise under one of the settings, or not at all.
KEYS = {
    "text[]": "CASE WHEN g % 2 = 0 THEN ARRAY[NULL, g::text] ELSE ARRAY['NULL', g::text] END",
    "timestamptz": "timestamptz '2026-03-04 05:06:07+00' + g * interval '1 hour'",
    "timestamp": "timestamp '2026-03-04' + g * interval '7 hours'",
    "date": "date '2026-01-02' + g",
    "interval": "make_interval(days => g % 5 - 2, hours => g - 150, mins => g % 60)",
    "float8": "g / 7.0::float8 + 1e-9",
    "float4": "(g / 7.0)::float4",
    "bytea": r"decode(lpad(to_hex(g * 77), 8, '0'), 'hex') || '\x5c27ff'::bytea",
    "money": "(g * 1.25)::numeric::money",
    "text": r"g || E'\\''x'",
    "tstzrange": "tstzrange(timestamptz '2026-03-04 05:06:07+00' + g * interval '1 hour', NULL)",
    "float8[]": "ARRAY[g / 3.0::float8, NULL]",
}
ROWS = 300


def known(db: Database) -> dict[str, str]:
    """Those that this server has."""
    names = {name for (name,) in db.sql("SELECT lower(name) FROM pg_settings")}
    return {name: value for name, value in SETTINGS.items() if name.lower() in names}


def tables(db: Database) -> dict[str, str]:
    """A table for each type of key, by its name."""
    made = {}
    for n, (of_type, value) in enumerate(KEYS.items()):
        table = f"k{n}"
        db.sql(f"CREATE TABLE {table} (k {of_type} PRIMARY KEY, n int NOT NULL DEFAULT 0)")
        db.sql(f"INSERT INTO {table} (k) SELECT {value} FROM generate_series(1, {ROWS}) g")
        made[table] = of_type
    return made


def at_its_end(db: Database, job: int) -> tuple[Any, ...]:
    """Without times, which a client can't read that are written under odd settings."""
    query = "SELECT state, rows_done, rows_updated, last_error FROM backfill.progress WHERE job_id = %s"
    return wait_until(
        lambda: next((row for row in db.sql(query, [job]) if row[0] in ("completed", "failed")), None), 60, "its end"
    )


def all_once(db: Database, table: str, times: int = 1) -> None:
    """Each row was done so often."""
    assert db.sql(f"SELECT n, count(*) FROM {table} GROUP BY n") == [(times, ROWS)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [{}, {"strategy": "waves"}, {"locked_rows": "skip"}])
def test_keys_under_odd_settings_of_the_database(db: Database, options: dict[str, Any]) -> None:
    """ALTER DATABASE, before the job is defined: in the defining session and in the worker's."""
    made = tables(db)
    name = db.value("SELECT current_database()")
    for setting, value in known(db).items():
        quoted = value if setting in ("search_path", "DateStyle") else f"'{value}'"
        db.sql(f"ALTER DATABASE {name} SET {setting} TO {quoted}")
    for table, of_type in made.items():
        job = start(db, f"public.{table}", "n = n + 1", batch=7, options=options)
        assert at_its_end(db, job) == ("completed", ROWS, ROWS, None), of_type
        all_once(db, f"public.{table}")


@pytest.mark.timeout(300)
def test_keys_under_odd_settings_of_the_job(db: Database) -> None:
    """The option, and the session: what the clauses mean, and nothing else."""
    wanted = {
        name: value
        for name, value in known(db).items()
        if name
        in (
            "array_nulls",
            "DateStyle",
            "IntervalStyle",
            "TimeZone",
            "extra_float_digits",
            "bytea_output",
            "quote_all_identifiers",
            "lc_monetary",
            "transform_null_equals",
            "xmlbinary",
            "xmloption",
        )
    }
    for table, of_type in tables(db).items():
        job = complete(db, start(db, table, "n = n + 1", batch=7, options={"settings": wanted}))
        assert job["rows_updated"] == ROWS, of_type
        all_once(db, table)


@pytest.mark.timeout(300)
def test_settings_that_change_during_a_pause(db: Database) -> None:
    """A checkpoint that was written under some is read under others."""
    made = tables(db)
    jobs = {table: start(db, table, "n = n + 1", batch=7, sleep_ms=100_000) for table in made}
    for job in jobs.values():
        wait_for_rows(db, job, 7)
        db.sql("SELECT backfill.pause(%s)", [job])
        wait_for(db, job, "paused")
    name = db.value("SELECT current_database()")
    for setting, value in known(db).items():
        quoted = value if setting in ("search_path", "DateStyle") else f"'{value}'"
        db.sql(f"ALTER DATABASE {name} SET {setting} TO {quoted}")
    for table, job in jobs.items():
        db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
        db.sql("SELECT backfill.resume(%s)", [job])
        assert at_its_end(db, job) == ("completed", ROWS, ROWS, None)
        all_once(db, f"public.{table}")


@pytest.mark.parametrize(("table", "of_type", "value"), [(f"k{n}", t, v) for n, (t, v) in enumerate(KEYS.items())])
def test_bounds_under_odd_settings(db: Database, table: str, of_type: str, value: str) -> None:
    """The option key_from, given under the settings of a session: the same rows as by a WHERE clause, or an error."""
    tables(db)
    wanted = {
        name: setting
        for name, setting in known(db).items()
        if name in ("DateStyle", "TimeZone", "extra_float_digits", "bytea_output", "IntervalStyle", "array_nulls")
    }
    bound = db.value(f"SELECT t.k::text FROM {table} t ORDER BY t.k OFFSET 100 LIMIT 1")
    job = start(db, table, "n = n + 1", batch=7, options={"key_from": [bound], "settings": wanted})
    row = wait_for(db, job, "completed", "paused", "failed")
    if row["state"] == "failed":
        assert of_type in ("interval", "text[]", "float8[]", "money")
        assert "would be read as another value" in row["last_error"] and "HINT" in row["last_error"]
        assert db.value(f"SELECT sum(n) FROM {table}") == 0
    else:
        assert db.value(f"SELECT count(*) FROM {table} WHERE n = 1") == ROWS - 100, of_type
        assert progress(db, job)["rows_updated"] == ROWS - 100
