"""What others have attached to the tables that a superuser's copy, statement or joined update names never runs."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database
from harness.wait import wait_until

SPY = "INSERT INTO m.log SELECT current_user FROM pg_roles WHERE rolname = current_user AND rolsuper"
SET_UP = f"""
CREATE TABLE public.t (id int PRIMARY KEY, n int); INSERT INTO public.t SELECT g, 0 FROM generate_series(1, 10) g;
SET ROLE planter;
CREATE TABLE m.log (who text); GRANT ALL ON m.log TO PUBLIC;
CREATE FUNCTION m.fired() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {SPY}; RETURN new; END';
CREATE FUNCTION m.spy(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN {SPY}; RETURN $1; END';
CREATE FUNCTION m.fixed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN {SPY}; RETURN $1; END';
CREATE TABLE m.triggered (id int);
CREATE TRIGGER fired BEFORE INSERT ON m.triggered FOR EACH ROW EXECUTE FUNCTION m.fired();
CREATE TABLE m.constant (id int, d int DEFAULT m.fixed(1)); CREATE TABLE m.defaulted (id int, d int DEFAULT m.spy(1));
CREATE TABLE m.checked (id int CHECK (m.spy(id) > 0));
CREATE TABLE m.indexed (id int); CREATE INDEX ON m.indexed (m.fixed(id));
CREATE TABLE m.generated (id int, g int GENERATED ALWAYS AS (m.fixed(id)) STORED);
CREATE TABLE m.ruled (id int); CREATE RULE r AS ON INSERT TO m.ruled DO ALSO SELECT m.spy(1);
CREATE DOMAIN m.small AS int CHECK (m.spy(value) > 0); CREATE TABLE m.typed (id m.small);
CREATE VIEW m.seen AS SELECT m.spy(1) AS id; CREATE VIEW m.behind AS SELECT id FROM m.triggered;
CREATE TABLE m.policed (id int); ALTER TABLE m.policed ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON m.policed USING (m.spy(id) > 0);
GRANT ALL ON ALL TABLES IN SCHEMA m TO PUBLIC;
RESET ROLE
"""
TARGETS = ["triggered", "constant", "defaulted", "checked", "indexed", "generated", "ruled", "typed", "behind"]
INTO = "INSERT INTO m.{} (id) SELECT id FROM batch"
JOINED = "set_clause => 'n = seen.id', where_clause => 'seen.id = t.id', options => '{\"from\": \"m.seen\"}'"
MERGE = "MERGE INTO m.triggered x USING batch b ON b.id = x.id WHEN NOT MATCHED THEN INSERT VALUES (b.id)"
CALLS = {
    **{f"execute into {one}": f"backfill.execute('t', '{INTO.format(one)}')" for one in TARGETS},
    **{f"by CTE into {one}": f"backfill.execute('t', 'WITH x AS ({INTO.format(one)}) SELECT')" for one in TARGETS},
    **{f"copy into {one}": f"backfill.copy('t', 'm.{one}', columns => 'id', select_list => 'id')" for one in TARGETS},
    "execute reads": "backfill.execute('t', 'SELECT seen.id FROM batch, m.seen')",
    "copy reads": "backfill.copy('t', 'public.mine', columns => 'id', select_list => '(SELECT id FROM m.seen)')",
    "from": f"backfill.start('t', {JOINED})",
    "execute calls": "backfill.execute('t', 'SELECT m.spy(id) FROM batch')",
    "merge": f"backfill.execute('t', '{MERGE}')",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_superuser_runs_nothing_of_others(db: Database, call: str) -> None:
    """The call is refused, or the job fails; the code has not run as the superuser."""
    db.sql(f"ALTER DATABASE {db.value('SELECT current_database()')} SET backfill.allow_superuser_jobs = off")
    # A role is the server's: tests beside this one make others.
    role = f"planter_{db.value('SELECT current_database()')}"
    db.sql(f"CREATE ROLE {role}; CREATE SCHEMA m AUTHORIZATION {role}; CREATE TABLE public.mine (id int)")
    try:
        db.sql(SET_UP.replace("planter", role))
        with db.connect() as connection:
            try:
                job = connection.execute(f"SELECT {CALLS[call]}").fetchone()
            except psycopg.Error as error:
                assert error.sqlstate in ("42501", "0A000", "42809"), (error.sqlstate, error)
            else:
                assert job is not None
                ended = "SELECT state FROM backfill.progress WHERE job_id = %s"
                wait_until(lambda: db.value(ended, [job[0]]) in ("failed", "completed"), 30, "the job to end")
        assert db.value("SELECT count(*) FROM m.log") == 0, call
    finally:
        db.sql(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
