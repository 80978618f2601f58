"""No verdict without proof: what `start` and `require_completed` take for the backfill that is meant, and for done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, progress, start, start_count, wait_for, wait_for_rows
from harness.tables import make_table

NOT_YET = psycopg.errors.ObjectNotInPrerequisiteState


def gate(db: Database, name: str, more: str = "", *, session: str = "", user: str = "postgres") -> None:
    """Asks whether the backfill of this name has completed."""
    with psycopg.connect(db.dsn(user), autocommit=True, connect_timeout=10) as connection:
        if session:
            connection.execute(session)
        connection.execute(f"SELECT backfill.require_completed(%s{more})", [name])


def refused(db: Database, name: str, more: str = "", error: type[psycopg.Error] = NOT_YET, **how: Any) -> str:
    """The error of the gate; message, detail and hint."""
    with pytest.raises(error) as caught:
        gate(db, name, more, **how)
    diag = caught.value.diag
    assert diag.message_hint
    return "\n".join(filter(None, [diag.message_primary, diag.message_detail, diag.message_hint]))


def make_inventory(db: Database, *schemas: str) -> None:
    """The same table for each tenant."""
    for schema in schemas:
        db.sql(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.inv (id int PRIMARY KEY, old int, new int)")
        db.sql(f"INSERT INTO {schema}.inv SELECT i, i FROM generate_series(1, 100) i")


def test_a_walk_that_ends_with_rows_that_match(db: Database) -> None:
    """A trigger keeps them from being updated: the job ends, and nobody may rely on it before it is verified."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 50)")
    db.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    db.sql("CREATE TRIGGER no BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()")
    job = start(db, "t", "n = 1", where="n = 0", name="t.n")
    assert "50 rows of public.t match still" in complete(db, job)["note"]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="rows matched its where_clause still"):
        db.sql("SELECT backfill.require_completed('t.n')")
    complete(db, db.value("SELECT backfill.verify(%s)", [job]))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="rows matched its where_clause still"):
        db.sql("SELECT backfill.require_completed('t.n')")
    db.sql("DROP TRIGGER no ON t; UPDATE t SET n = 1")
    complete(db, db.value("SELECT backfill.verify(%s)", [job]))
    db.sql("SELECT backfill.require_completed('t.n')")


@pytest.fixture
def tenants(db: Database) -> int:
    """Two of them, and a job on the first one's table that is done."""
    make_inventory(db, "a", "b")
    job = start(db, "a.inv", "new = old", name="inv.new")
    complete(db, job)
    return job


def test_the_table_of_another_tenant_is_not_done(db: Database, tenants: int) -> None:
    """The one that the name means here, or the one that is given."""
    in_a, in_b = "SET search_path = a", "SET search_path = b"
    gate(db, "inv.new", session=in_a)
    gate(db, "inv.new")
    error = refused(db, "inv.new", session=in_b)
    assert "a.inv" in error and "b.inv" in error and "relation =>" in error
    gate(db, "inv.new", ", relation => 'a.inv'", session=in_b)
    for session in (in_a, in_b, ""):
        error = refused(db, "inv.new", ", relation => 'b.inv'", session=session)
        assert f'job {tenants} ("inv.new") is on a.inv, not on b.inv' in error
    complete(db, db.value("SELECT backfill.verify(%s, 'new = old')", [tenants]))
    gate(db, "inv.new", ", true, 'a.inv'")
    db.sql("CREATE TABLE b.inv_too (LIKE b.inv)")
    assert "is on a.inv" in refused(db, "inv.new", ", relation => 'inv_too'", session=in_b)


def test_a_table_that_is_gone_is_not_done(db: Database, tenants: int) -> None:
    """Nor is another one that was created in its place; both are said."""
    db.sql("DROP TABLE a.inv")
    error = refused(db, "inv.new", error=psycopg.errors.UndefinedTable)
    assert f'table a.inv of backfill job {tenants} ("inv.new") no longer exists' in error
    db.sql("CREATE TABLE a.inv (id int PRIMARY KEY, old int, new int)")
    for more in ("", ", relation => 'a.inv'"):
        error = refused(db, "inv.new", more, error=psycopg.errors.UndefinedTable, session="SET search_path = a")
        assert "a.inv was dropped and created again since" in error
    for call in ("start('a.inv', set_clause => 'new = old'", "define('a.inv', 'new = old'", "start('a.inv'"):
        with pytest.raises(psycopg.Error) as caught:
            db.sql(f"SELECT backfill.{call}, name => 'inv.new')")
        assert "a.inv was dropped and created again since" in str(caught.value), call
        assert f"backfill.forget({tenants})" in (caught.value.diag.message_hint or "")
    db.sql("SELECT backfill.forget(%s)", [tenants])
    complete(db, start(db, "a.inv", "new = old", name="inv.new"))
    gate(db, "inv.new", ", relation => 'a.inv'")


def test_a_renamed_table_is_the_same_one(db: Database, tenants: int) -> None:
    """And another one that has its name now is not."""
    db.sql("ALTER TABLE a.inv RENAME TO inv_old; CREATE TABLE a.inv (id int PRIMARY KEY, old int, new int)")
    gate(db, "inv.new", ", relation => 'a.inv_old'", session="SET search_path = a")
    assert "is on a.inv_old, not on a.inv" in refused(db, "inv.new", ", relation => 'a.inv'")


@pytest.fixture
def shop(db: Database) -> Iterator[Database]:
    """A table of keeper's, of which clerk may update one column; chief has keeper's rights."""
    for role in ("keeper", "clerk", "chief"):
        if not db.value("SELECT to_regrole(%s) IS NOT NULL", [role]):
            db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql("""
        GRANT keeper TO chief;
        CREATE SCHEMA shop AUTHORIZATION keeper;
        CREATE TABLE shop.t (id int PRIMARY KEY, n int);
        ALTER TABLE shop.t OWNER TO keeper;
        INSERT INTO shop.t SELECT generate_series(1, 100);
        GRANT USAGE ON SCHEMA shop TO clerk; GRANT SELECT, UPDATE (n) ON shop.t TO clerk
    """)
    yield db
    db.sql("DROP SCHEMA shop CASCADE; DROP OWNED BY keeper, clerk, chief")


def left(db: Database) -> int:
    """Rows that are not done."""
    return db.value("SELECT count(*) FROM shop.t WHERE n IS DISTINCT FROM id")


def test_a_name_that_somebody_else_took(shop: Database) -> None:
    """A role that may update a column is not to be trusted with the table: its job is no proof."""
    clerks = start(shop, "shop.t", "n = id", name="shop.n", user="clerk")
    complete(shop, clerks)
    shop.sql("UPDATE shop.t SET n = NULL", user="clerk")
    gate(shop, "shop.n", user="clerk")
    error = refused(shop, "shop.n")
    assert f'job {clerks} ("shop.n") is of role clerk' in error and "keeper" in error
    with pytest.raises(psycopg.Error, match="clerk"):
        shop.sql("SELECT backfill.start('shop.t', name => 'shop.n')")
    own = start(shop, "shop.t", "n = id", name="shop.n", session="SET backfill.allow_superuser_jobs = on")
    assert own != clerks
    complete(shop, own)
    assert left(shop) == 0
    gate(shop, "shop.n")


@pytest.mark.parametrize("owner", ["keeper", "chief"])
def test_a_job_of_one_who_has_the_tables_owners_rights(shop: Database, owner: str) -> None:
    """Whoever could do anything to the table anyway is believed; whose job it is, is said."""
    job = start(shop, "shop.t", "n = id", name="shop.n", user=owner)
    complete(shop, job)
    gate(shop, "shop.n")
    notices: list[str] = []
    with psycopg.connect(shop.dsn(), autocommit=True) as session:
        session.execute("SET backfill.allow_superuser_jobs = on")
        session.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
        again = session.execute("SELECT backfill.start('shop.t', set_clause => 'n = id', name => 'shop.n')").fetchone()
    assert again == (job,)
    assert [n for n in notices if f'job {job} ("shop.n") of role {owner} has already completed' in n], notices


def test_two_definitions_of_one_name(shop: Database) -> None:
    """The caller's own goes first, and the table decides between others'."""
    shop.sql(
        "CREATE SCHEMA other; CREATE TABLE other.t (id int PRIMARY KEY, n int); ALTER TABLE other.t OWNER TO clerk"
    )
    shop.sql("GRANT USAGE ON SCHEMA other TO clerk")
    keepers = shop.value("SELECT backfill.define('shop.t', 'n = id', name => 'ord')", user="keeper")
    clerks = shop.value("SELECT backfill.define('other.t', 'n = id', name => 'ord')", user="clerk")
    mine = "SET backfill.allow_superuser_jobs = on; SELECT backfill.define('shop.t', 'n = 7', name => 'ord2')"
    own = shop.value(mine)
    assert shop.value("SELECT backfill.start('other.t', name => 'ord')") == clerks
    # Without a name, too.
    assert shop.value("SELECT backfill.start('shop.t')") == own
    complete(shop, own)
    assert shop.value("SELECT backfill.start('shop.t', name => 'ord')") == keepers
    for job in (keepers, clerks):
        complete(shop, job)
    shop.sql("DROP SCHEMA other CASCADE")


def test_two_definitions_of_one_name_and_table(shop: Database) -> None:
    """Of two others', the caller has to say whose."""
    for owner in ("keeper", "clerk"):
        shop.sql("SELECT backfill.define('shop.t', 'n = id', name => 'ord')", user=owner)
    with pytest.raises(NOT_YET) as caught:
        shop.sql("SELECT backfill.start('shop.t', name => 'ord')")
    assert "clerk, keeper" in (caught.value.diag.message_detail or "")
    assert "SET ROLE" in (caught.value.diag.message_hint or "")
    job = shop.value("SELECT backfill.start('shop.t', name => 'ord')", user="keeper")
    complete(shop, job)
    assert progress(shop, job)["owner"] == "keeper"


def waited(db: Database, job: int) -> psycopg.Error:
    """The error that a CALL of wait ends with, long before its time is over."""
    with pytest.raises(psycopg.Error) as caught:
        db.sql("CALL backfill.wait(%s, 30000)", [job])
    assert caught.value.sqlstate != "57014", caught.value
    return caught.value


@pytest.mark.parametrize("option", ['{"limit_rows": 50}', '{"key_to": 50}', '{"key_from": 50}'])
def test_wait_ends_at_a_job_that_paused_by_itself(db: Database, option: str) -> None:
    """It would never go on: why it stands still and what to do is said."""
    make_table(db, 100)
    job = db.value("SELECT backfill.start('t', 10, 0, 'n = n + 1', options => %s)", [option])
    error = waited(db, job)
    name = option.split('"')[1]
    assert error.sqlstate == "55000" and f"job {job} is paused" in str(error) and name in str(error)
    assert f"backfill.resume({job})" in (error.diag.message_hint or "")
    db.sql(f"SELECT backfill.alter({job}, options => '{{\"{name}\": null}}'); SELECT backfill.resume({job})")
    db.sql("CALL backfill.wait(%s, 30000)", [job])
    assert progress(db, job)["rows_done"] == 100


def test_wait_does_not_end_while_somebody_pauses_the_job(db: Database) -> None:
    """Who paused it is there to resume it."""
    make_table(db, 100)
    job = start_count(db, batch_size=10, sleep_ms=100)
    db.sql("SELECT backfill.pause(%s)", [job])
    with pytest.raises(psycopg.errors.QueryCanceled, match="is still paus"):
        db.sql("CALL backfill.wait(%s, 500)", [job])


def test_a_job_between_bounds_ends(db: Database) -> None:
    """If that is wanted, it completes, says between what, and is no proof for the whole table."""
    make_table(db, 100)
    options = {"key_from": 21, "key_to": 40, "at_bounds": "complete"}
    job = start(db, "t", "n = n + 1", name="part", options=options)
    db.sql("CALL backfill.wait(%s, 30000)", [job])
    row = complete(db, job)
    assert (row["rows_done"], row["rows_total"], row["rows_updated"]) == (20, 20, 20)
    assert "from key_from (21) to key_to (40) only" in row["note"]
    error = refused(db, "part")
    assert f'job {job} ("part") has completed, but from key_from (21) to key_to (40) only' in error
    assert db.value("SELECT count(*) FROM t WHERE n = 1") == 20
    # One that has paused can be told so afterwards; and its column is free for the next one then.
    rest = start(db, "t", "n = n + 1", name="rest", options={"key_from": 41})
    wait_for(db, rest, "paused")
    db.sql('SELECT backfill.alter(%s, options => \'{"at_bounds": "complete"}\')', [rest])
    db.sql("SELECT backfill.resume(%s)", [rest])
    assert "from key_from (41) only" in complete(db, rest)["note"]
    whole = start(db, "t", "n = n + 1", where="n = 0", name="whole", options={"at_bounds": "complete"})
    assert complete(db, whole)["rows_updated"] == 20
    gate(db, "whole")
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 100)]


MEASURES = """
    CREATE TABLE m (id int, d int, v int, w int, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
    CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
    CREATE TABLE m_rest PARTITION OF m DEFAULT;
    INSERT INTO m SELECT i, i % 20, i FROM generate_series(1, 20000) i;
"""
ATTACH = """
    CREATE TABLE m2 (LIKE m INCLUDING ALL);
    WITH gone AS (DELETE FROM m_rest WHERE d BETWEEN 10 AND 19 RETURNING *) INSERT INTO m2 SELECT * FROM gone;
    ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20)
"""


def begin_measures(db: Database, set_clause: str, where: str | None, options: dict[str, Any] | None = None) -> int:
    """A job that has begun with the first partition; then rows go over to another one."""
    db.sql(MEASURES)
    job = start(db, "m", set_clause, where=where, batch=1000, sleep_ms=600_000, name="m.w", options=options)
    wait_for_rows(db, job, 1)
    db.sql(ATTACH)
    return job


def go(db: Database, job: int) -> dict[str, Any]:
    """Lets it run to its end."""
    db.sql("SELECT backfill.alter(%s, 1000, 0)", [job])
    return complete(db, job)


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"walk": "physical"}])
@pytest.mark.parametrize("where", ["w IS NULL", None])
def test_rows_that_come_with_a_partition_are_done(db: Database, where: str | None, options: dict[str, Any]) -> None:
    """Where doing a row again that was done before does no harm."""
    if options.get("walk") and where is None:
        pytest.skip("a walk in physical order needs a where_clause")
    job = begin_measures(db, "w = v", where, options)
    row = go(db, job)
    assert db.value("SELECT count(*) FROM m WHERE w IS DISTINCT FROM v") == 0
    assert "partition public.m2 came during the run" in row["note"]
    # Without a where_clause nobody knows of those that were done before they came.
    assert row["rows_updated"] == 20_000 or (where is None and row["rows_updated"] <= 21_000)
    gate(db, "m.w")


def test_rows_that_may_have_been_done_before_they_came(db: Database) -> None:
    """They are not done twice, and the gate says no until somebody has seen to them."""
    job = begin_measures(db, "w = COALESCE(w, 0) + 1", None)
    row = go(db, job)
    assert "partition public.m2 came during the run: its rows are not done" in row["note"]
    assert db.sql("SELECT w, count(*) FROM m GROUP BY w ORDER BY w") == [(1, 10_000), (None, 10_000)]
    error = refused(db, "m.w")
    assert "public.m2" in error
    again = start(db, "m2", "w = COALESCE(w, 0) + 1", where="w IS NULL", name="m2.w")
    refused(db, "m.w")
    complete(db, again)
    # That was a job on other rows: whether these were all that are not done, a look at them says.
    refused(db, "m.w")
    complete(db, db.value("SELECT backfill.verify(%s, 'w = 1')", [job]))
    gate(db, "m.w")


def test_a_partition_that_is_empty_or_gone_is_no_matter(db: Database) -> None:
    """As the ones are that are created each day; what comes after the end is no matter, either."""
    job = begin_measures(db, "w = COALESCE(w, 0) + 1", None)
    db.sql("CREATE TABLE m3 PARTITION OF m FOR VALUES FROM (20) TO (30)")
    row = go(db, job)
    assert "m3" not in row["note"]
    db.sql("ALTER TABLE m DETACH PARTITION m2; CREATE TABLE m4 PARTITION OF m FOR VALUES FROM (30) TO (40)")
    db.sql("INSERT INTO m VALUES (1, 35, 1, NULL)")
    gate(db, "m.w")


def test_what_comes_after_the_end_is_not_done_with_rows_that_failed(db: Database) -> None:
    """To try these again does not begin the walk anew."""
    db.sql(MEASURES)
    db.sql("ALTER TABLE m ADD CONSTRAINT small CHECK (w <> 7)")
    job = start(db, "m", "w = v", name="m.w", options={"max_failed_rows": 1})
    assert complete(db, job)["rows_failed"] == 1
    assert "1 row failed" in refused(db, "m.w")
    db.sql("ALTER TABLE m DROP CONSTRAINT small; CREATE TABLE m4 PARTITION OF m FOR VALUES FROM (30) TO (40)")
    db.sql("INSERT INTO m VALUES (1, 35, 1, -1)")
    db.sql("SELECT backfill.retry_failed(%s)", [job])
    row = complete(db, job)
    assert (row["rows_updated"], row["rows_done"]) == (20_000, 20_000)
    assert db.sql("SELECT v, w FROM m4") == [(1, -1)]
    gate(db, "m.w")


@pytest.mark.parametrize("stranger", [True, False])
def test_a_superusers_job_does_not_run_what_a_partitions_owner_wrote(db: Database, stranger: bool) -> None:
    """One that comes with another owner is left out, as `start` would have refused it."""
    if not db.value("SELECT to_regrole('stranger') IS NOT NULL"):
        db.sql("CREATE ROLE stranger LOGIN")
    db.sql(MEASURES)
    db.sql("CREATE TABLE ran (who text); GRANT INSERT ON ran TO PUBLIC; CREATE SCHEMA strange AUTHORIZATION stranger")
    db.sql("""
        CREATE TABLE strange.m2 (id int, d int, v int, w int, PRIMARY KEY (id, d));
        INSERT INTO strange.m2 VALUES (1, 30, 5);
        CREATE FUNCTION strange.trap() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.ran VALUES (current_user); RETURN new; END';
        CREATE TRIGGER trap BEFORE UPDATE ON strange.m2 FOR EACH ROW EXECUTE FUNCTION strange.trap()
    """)
    if stranger:
        db.sql("ALTER TABLE strange.m2 OWNER TO stranger")
    db.sql(f"ALTER DATABASE {db.name} SET backfill.allow_superuser_jobs = off")
    job = start(db, "m", "w = v", where="w IS NULL", batch=1000, sleep_ms=600_000, name="m.w")
    wait_for_rows(db, job, 1)
    db.sql("ALTER TABLE m ATTACH PARTITION strange.m2 FOR VALUES FROM (30) TO (40)")
    row = go(db, job)
    assert (": its rows are not done" in row["note"]) == stranger
    assert db.sql("SELECT who FROM ran") == ([] if stranger else [("postgres",)])
    if stranger:
        assert "strange.m2" in refused(db, "m.w")
    db.sql("DROP TABLE m; DROP SCHEMA strange CASCADE; DROP OWNED BY stranger")


def test_a_partition_that_cannot_be_done_fails_the_job(db: Database) -> None:
    """It says which one, and goes on when that is mended."""
    if not db.value("SELECT to_regrole('walker') IS NOT NULL"):
        db.sql("CREATE ROLE walker LOGIN")
    db.sql(MEASURES)
    db.sql("GRANT SELECT, UPDATE ON m, m1, m_rest TO walker")
    job = start(db, "m", "w = v", where="w IS NULL", batch=1000, sleep_ms=600_000, name="m.w", user="walker")
    wait_for_rows(db, job, 1)
    db.sql(ATTACH)
    db.sql("SELECT backfill.alter(%s, 1000, 0)", [job])
    row = wait_for(db, job, "failed")
    assert "permission denied for table m2" in row["last_error"]
    assert "has failed" in refused(db, "m.w", user="walker")
    db.sql("GRANT SELECT, UPDATE ON m2 TO walker")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.value("SELECT count(*) FROM m WHERE w IS DISTINCT FROM v") == 0
    db.sql("DROP TABLE m; DROP OWNED BY walker")


def test_reapply_counts_its_rows(db: Database) -> None:
    """As many as were wrong, of as many."""
    make_table(db, 20_000)
    job = start(db, "t", "n = id")
    complete(db, job)
    db.sql("UPDATE t SET n = 0")
    complete(db, db.value("SELECT backfill.verify(%s, recompute => true)", [job]))
    row = complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    assert (row["rows_done"], row["rows_total"], row["rows_updated"]) == (20_000, 20_000, 20_000)


def test_reapply_wants_a_dry_run_where_that_is_required(db: Database) -> None:
    """One of the job that it does again, or a verification that has computed the rows."""
    make_table(db, 100)
    job = start(db, "t", "n = id")
    complete(db, job)
    db.sql("UPDATE t SET n = 0 WHERE id < 10")
    reapply = f"SET backfill.require_dry_run = '1h'; SELECT backfill.reapply({job})"
    for make_up in ("SELECT backfill.verify(%s, recompute => true)", None):
        complete(db, db.value("SELECT backfill.verify(%s, 'n = id')", [job]))
        with pytest.raises(NOT_YET, match="wants a dry run within") as caught:
            db.sql(reapply)
        assert f"backfill.verify({job}, recompute => true)" in (caught.value.diag.message_hint or "")
        assert db.value("SELECT count(*) FROM t WHERE n <> id") == 9
        complete(db, db.value(make_up, [job]) if make_up else start(db, "t", "n = id", options={"dry_run": True}))
        assert complete(db, db.value(reapply))["rows_updated"] == 9
        db.sql("UPDATE t SET n = 0 WHERE id < 10")


def test_a_clause_that_reads_what_it_sets_is_verified(db: Database) -> None:
    """A row that it leaves as it is is right; of others nobody can tell, and they are not done again."""
    db.sql("CREATE TABLE people (id int PRIMARY KEY, email text)")
    db.sql("INSERT INTO people SELECT i, 'A' || i || '@X' FROM generate_series(1, 1000) i")
    job = start(db, "people", "email = lower(email)", name="people.email")
    complete(db, job)
    verify = "SELECT backfill.verify(%s, recompute => true)"
    assert "is verified: none of 1000 rows" in complete(db, db.value(verify, [job]))["note"]
    gate(db, "people.email", ", true")
    db.sql("UPDATE people SET email = upper(email) WHERE id IN (7, 8)")
    row = complete(db, db.value(verify, [job]))
    assert "2 of 1000 rows are undecided" in row["note"] and '"email"' in row["note"]
    error = refused(db, "people.email", ", true")
    assert "2 of 1000 rows" in error and "check_clause" in error
    with pytest.raises(NOT_YET, match='reads column "email", which it sets') as caught:
        db.sql("SELECT backfill.reapply(%s)", [job])
    assert "check_clause" in (caught.value.diag.message_hint or "")
    complete(db, db.value("SELECT backfill.verify(%s, 'email = lower(email)')", [job]))
    assert complete(db, db.value("SELECT backfill.reapply(%s)", [job]))["rows_updated"] == 2
    assert db.value("SELECT count(*) FROM people WHERE email <> lower(email)") == 0


def test_a_count_that_was_verified_by_computing_it_again(db: Database) -> None:
    """Every row would change once more: none of them is called right or wrong."""
    make_table(db, 100)
    job = start_count(db)
    complete(db, job)
    row = complete(db, db.value("SELECT backfill.verify(%s, recompute => true)", [job]))
    assert "100 of 100 rows are undecided" in row["note"]
    with pytest.raises(NOT_YET, match='reads column "n", which it sets'):
        db.sql("SELECT backfill.reapply(%s)", [job])
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 100)]
