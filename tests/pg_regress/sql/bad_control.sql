-- Control calls that come to nothing. After each call: its SQLSTATE.
-- Jobs that are to stand still sleep for an hour after their first batch.
\set after 'SELECT :''SQLSTATE'';'
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA bad_control;
SET search_path = bad_control, public;
CREATE TABLE t (id bigint PRIMARY KEY, a int, b int);
INSERT INTO t SELECT i, 0, 0 FROM generate_series(1, 20) i;
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 1000;
-- Polls until the job looks as wanted and, where it is not to run, its worker has left; says how it looks if that takes too long.
CREATE PROCEDURE await(job bigint, wanted text, rows bigint DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '30 s';
    p backfill.progress;
BEGIN
    LOOP
        p := backfill.status(job);
        EXIT WHEN p.state = wanted AND p.rows_done >= rows AND (p.workers = 0 OR wanted = 'running');
        IF clock_timestamp() > deadline THEN
            RAISE EXCEPTION 'job is % with % rows done: %', p.state, p.rows_done, p.last_error;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;

-- Ids that nobody has
SELECT backfill.pause(1); :after
SELECT backfill.resume(1); :after
SELECT backfill.cancel(1); :after
SELECT backfill.cancel(1, now => true); :after
SELECT backfill.alter(1, 500); :after
SELECT backfill.status(1); :after
SELECT backfill.forget(1); :after
CALL backfill.wait(1); :after
SELECT backfill.pause(-1); :after
SELECT backfill.pause(NULL); :after
SELECT backfill.resume(NULL); :after
SELECT backfill.cancel(NULL); :after
SELECT backfill.alter(NULL); :after
SELECT backfill.status(NULL); :after
SELECT backfill.forget(NULL); :after
CALL backfill.wait(NULL); :after
SELECT backfill.cancel(1, NULL); :after

-- Within a SECURITY DEFINER function the job would be the function owner's.
CREATE FUNCTION definer(bool) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = bad_control AS
$$ SELECT CASE WHEN $1 THEN backfill.start('t', set_clause => 'a = 1') ELSE backfill.define('t', 'a = 1') END $$;
\set SHOW_CONTEXT never
SELECT definer(true); :after
SELECT definer(false); :after
\set SHOW_CONTEXT errors
SELECT count(*) || ' jobs' FROM backfill_internal.job;

-- A definition that nobody has started
SELECT backfill.define('t', 'a = 1', name => 'pending');
SELECT backfill.pause(1000); :after
SELECT backfill.resume(1000); :after
SELECT backfill.forget(1000); :after
CALL backfill.wait(1000); :after
SELECT backfill.alter(1000, 0); :after
SELECT backfill.alter(1000, 1000001); :after
SELECT backfill.alter(1000, sleep_ms => -1); :after
SELECT backfill.alter(1000, sleep_ms => 86400001); :after
SELECT backfill.alter(1000, options => NULL); :after
SELECT backfill.alter(1000, options => '{"kye": "t_pkey"}'); :after
SELECT backfill.alter(1000, options => '{"key": "t_pkey"}'); :after
SELECT backfill.alter(1000, options => '{"settings": {"default_statistics_target": "0"}}'); :after
SELECT batch_size, sleep_ms, state FROM backfill.progress WHERE job_id = 1000;

-- CALL wait where it cannot let its snapshot go
BEGIN;
CALL backfill.wait(1000); \echo :SQLSTATE
ROLLBACK;
CREATE FUNCTION waits() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL backfill.wait(1000); END $$;
\set SHOW_CONTEXT never
SELECT waits(); :after
\set SHOW_CONTEXT errors
CALL backfill.wait(1000, -1); :after

-- One that runs
SELECT backfill.start('t', 10, 3600000, name => 'pending');
CALL await(1000, 'running', 10);
SELECT backfill.resume(1000); :after
SELECT backfill.forget(1000); :after
CALL backfill.wait(1000, 0); :after
CALL backfill.wait(1000, 50); :after
-- A second one that sets the same column, given at once or defined before
SELECT backfill.start('t', set_clause => 'b = 1, a = 2'); :after
BEGIN;
SELECT backfill.define('t', 'a = 3', name => 'overlap') > 0;
SELECT backfill.start('t', name => 'overlap'); \echo :SQLSTATE
ROLLBACK;
SELECT count(*) || ' job' FROM backfill_internal.job;

-- One that is paused; a second pause is no error.
SELECT backfill.pause(1000) IN ('pausing', 'paused');
CALL await(1000, 'paused');
SELECT backfill.pause(1000); :after
SELECT backfill.forget(1000); :after
SELECT backfill.start('t', set_clause => 'a = 2'); :after

-- One that is cancelled; a second cancel is no error.
SELECT backfill.cancel(1000); :after
SELECT backfill.cancel(1000); :after
SELECT backfill.cancel(1000, now => true); :after
SELECT backfill.pause(1000); :after
SELECT backfill.resume(1000); :after
SELECT backfill.alter(1000, 10); :after
CALL backfill.wait(1000); :after
SELECT backfill.start('t', name => 'pending'); :after

-- One that has completed
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 1100;
SELECT backfill.start('t', set_clause => 'b = 1', name => 'completed');
CALL await(1100, 'completed');
SELECT backfill.pause(1100); :after
SELECT backfill.resume(1100); :after
SELECT backfill.cancel(1100); :after
SELECT backfill.alter(1100, 10); :after
SET client_min_messages = warning; CALL backfill.wait(1100); RESET client_min_messages; :after
SELECT backfill.start('t', set_clause => 'b = 1', name => 'completed'); :after

-- One that has failed
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 1200;
SELECT backfill.start('t', set_clause => 'a = 1 / (id - 15)', name => 'failing');
CALL await(1200, 'failed');
SELECT backfill.pause(1200); :after
CALL backfill.wait(1200); :after
SELECT backfill.start('t', name => 'failing'); :after
SELECT backfill.cancel(1200); :after

-- Nothing is left when all is forgotten, but that they were: numbers are used once.
SELECT count(backfill.forget(job_id)::text) FROM backfill.progress;
SELECT count(*) FROM backfill_internal.event WHERE event <> 'forget';
SET client_min_messages = warning;
DROP SCHEMA bad_control CASCADE;
