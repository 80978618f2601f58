-- A job as a DBA sees it: defined by a migration, started, watched, paused, ended, forgotten.
CREATE SCHEMA life;
SET search_path = life, public;
CREATE TABLE orders (
    id bigint PRIMARY KEY, rate_old int, rate_new numeric, touched boolean NOT NULL DEFAULT false
);
INSERT INTO orders SELECT i, i % 100 FROM generate_series(1, 1000) i;
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 4000;

-- The developer's line in a migration
SELECT backfill.define('orders', 'rate_new = rate_old', 'rate_new IS NULL', name => 'rates');
SELECT job_id, name, relation, state, percent, rows_done, rows_total, rows_updated, rows_failed,
       rows_per_second, eta, batch_size, sleep_ms, workers, waiting_for, last_error,
       started_at, updated_at IS NOT NULL AS updated, finished_at
FROM backfill.progress \gx
SELECT set_clause, where_clause, key_columns, owner = current_user::regrole AS mine FROM backfill.progress;

-- The DBA's: runs the one definition, with a pace of its own.
SELECT backfill.start('orders', 100, 1);
SET client_min_messages = warning; CALL backfill.wait(4000); RESET client_min_messages;
SELECT job_id, name, relation, state, percent, rows_done, rows_total, rows_updated, rows_failed,
       rows_per_second, eta, batch_size, sleep_ms, waiting_for, last_error,
       started_at <= updated_at AS updated, started_at <= finished_at AS finished
FROM backfill.status(4000) \gx
SELECT count(*), count(*) FILTER (WHERE rate_new = rate_old) AS done FROM orders;
SELECT event, actor = current_user::regrole AS mine, old, new FROM backfill.events WHERE job_id = 4000 ORDER BY event_id;
-- Again: the same job, and nothing to do.
SELECT backfill.start('orders', 100, 1, 'rate_new = rate_old', 'rate_new IS NULL', 'rates');
SELECT backfill.define('orders', 'rate_new = rate_old', 'rate_new IS NULL', 'rates');
SELECT backfill.forget(4000);
SELECT count(*) FROM backfill.progress;
SELECT count(*) FROM backfill.events;
SELECT backfill.status(4000);

-- All in one call, stopped by a bad row, mended, resumed from its checkpoint.
UPDATE orders SET rate_old = 0 WHERE id = 555;
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 4100;
\set VERBOSITY terse
SELECT backfill.start('orders', 100, set_clause => 'rate_new = 100 / rate_old', where_clause => 'id > 500 AND id < 600');
CALL backfill.wait(4100);
\set VERBOSITY default
SELECT state, rows_updated, last_error FROM backfill.progress \gx
UPDATE orders SET rate_old = 1 WHERE id = 555;
SELECT backfill.resume(4100);
SET client_min_messages = warning; CALL backfill.wait(4100); RESET client_min_messages;
SELECT state, percent, rows_done, rows_total, rows_updated, last_error FROM backfill.progress;
SELECT event, old, new FROM backfill.events ORDER BY event_id;
SELECT backfill.forget(4100);

-- Changed while it runs: it sleeps for an hour, and is told to hurry.
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 4200;
SELECT backfill.start('orders', 10, 3600000, 'touched = NOT touched', name => 'flags');
SELECT backfill.alter(4200, 500, 0, '{"scan_limit": 20000}');
SET client_min_messages = warning; CALL backfill.wait(4200, 60000); RESET client_min_messages;
SELECT state, batch_size, sleep_ms, rows_updated FROM backfill.progress;
SELECT touched, count(*) FROM orders GROUP BY 1;
SELECT event, old, new FROM backfill.events WHERE event LIKE 'alter%' ORDER BY event_id;
SELECT backfill.forget(4200);

-- Nothing starts that is rolled back.
BEGIN;
SELECT backfill.start('orders', set_clause => 'touched = NOT touched') > 0;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT backfill.start('orders', set_clause => 'touched = NOT touched') > 0;
ROLLBACK TO s;
COMMIT;
SELECT count(*) FROM backfill.progress;
SELECT touched, count(*) FROM orders GROUP BY 1;

-- An empty table, and one whose rows do not match
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 4300;
CREATE TABLE nothing (id bigint PRIMARY KEY, a int);
SELECT backfill.start('nothing', set_clause => 'a = 1');
SET client_min_messages = warning; CALL backfill.wait(4300); RESET client_min_messages;
SELECT backfill.start('orders', set_clause => 'touched = false', where_clause => 'id < 0');
SET client_min_messages = warning; CALL backfill.wait(4301); RESET client_min_messages;
SELECT job_id, state, percent, rows_done, rows_total, rows_updated FROM backfill.progress ORDER BY 1;

-- Names that need quotes, from the first call to the error
CREATE TABLE "Odd ""Table"" of ünïcode" ("Select" text PRIMARY KEY, "a b" int);
INSERT INTO "Odd ""Table"" of ünïcode" VALUES ('it''s', 1), ('"', 2), ('{a,b}', 3), ('NULL', 4), ('', 5), ('\', 6);
SELECT backfill.start('"Odd ""Table"" of ünïcode"', 2, set_clause => '"a b" = "a b" + 10', name => 'it''s "odd"');
SET client_min_messages = warning; CALL backfill.wait(4302); RESET client_min_messages;
SELECT relation, name, state, rows_updated FROM backfill.progress WHERE job_id = 4302;
SELECT * FROM "Odd ""Table"" of ünïcode" ORDER BY 2;

SELECT count(backfill.forget(job_id)::text) FROM backfill.progress;
SET client_min_messages = warning;
DROP SCHEMA life CASCADE;
