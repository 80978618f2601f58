-- What a role may not do to another's job, and not have done by a job of its own.
-- After each call: its SQLSTATE.
\set after 'SELECT :''SQLSTATE'';'
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA rights;
SET search_path = rights, public;
CREATE TABLE t (id bigint PRIMARY KEY, a int, b int);

-- Somebody else's job: neither seen nor touched.
CREATE ROLE regress_backfill_other;
GRANT USAGE ON SCHEMA rights TO regress_backfill_other;
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 1300;
SELECT backfill.define('t', 'a = 4', name => 'mine');
SET ROLE regress_backfill_other;
SELECT backfill.pause(1300); :after
SELECT backfill.resume(1300); :after
SELECT backfill.cancel(1300); :after
SELECT backfill.cancel(1300, true); :after
SELECT backfill.alter(1300, 10); :after
SELECT backfill.status(1300); :after
SELECT backfill.forget(1300); :after
CALL backfill.wait(1300); :after
SELECT backfill.start('t', name => 'mine'); :after
SELECT backfill.start('t'); :after
SELECT backfill.pause_all(), backfill.resume_all();
SELECT count(*) FROM backfill.progress;
SELECT count(*) FROM backfill.events;
SELECT * FROM backfill_internal.job;
DELETE FROM backfill_internal.event;
SELECT nextval('backfill_internal.job_id_seq');
-- Rights on the table that he lacks
SELECT backfill.define('t', 'a = 5'); :after
RESET ROLE;
GRANT UPDATE (a) ON t TO regress_backfill_other;
SET ROLE regress_backfill_other;
SELECT backfill.define('t', 'a = 5'); :after
RESET ROLE;
GRANT SELECT (id) ON t TO regress_backfill_other;
SET ROLE regress_backfill_other;
SELECT backfill.define('t', 'a = 5, b = 5'); :after
SELECT backfill.define('t', 'a = b'); :after
SELECT backfill.define('t', 'a = 5', options => '{"settings": {"log_statement": "all"}}'); :after
RESET ROLE;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON t USING (true);
SET ROLE regress_backfill_other;
SELECT backfill.define('t', 'a = 5'); :after
RESET ROLE;
SELECT state FROM backfill.progress WHERE job_id = 1300;

-- A member of the owner's role acts for it; a monitor sees the job and may not touch it.
CREATE ROLE regress_backfill_owner LOGIN;
GRANT USAGE ON SCHEMA rights TO regress_backfill_owner;
CREATE TABLE own (id bigint PRIMARY KEY, a int);
ALTER TABLE own OWNER TO regress_backfill_owner;
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 1400;
SET ROLE regress_backfill_owner;
SELECT backfill.define('own', 'a = 1', name => 'own');
SELECT owner, state FROM backfill.progress;
RESET ROLE;
GRANT regress_backfill_owner TO regress_backfill_other;
SET ROLE regress_backfill_other;
SELECT job_id, owner, state FROM backfill.progress;
SELECT backfill.define('own', 'a = 1', name => 'own'); :after
SELECT backfill.alter(1400, 10); :after
SELECT event, actor, old, new FROM backfill.events ORDER BY event_id;
RESET ROLE;
REVOKE regress_backfill_owner FROM regress_backfill_other;
GRANT pg_monitor TO regress_backfill_other;
SET ROLE regress_backfill_other;
SELECT job_id, owner, state FROM backfill.progress ORDER BY job_id;
SELECT (backfill.status(1400)).state;
SELECT backfill.cancel(1400); :after
SELECT backfill.alter(1400, 20); :after
SELECT backfill.forget(1400); :after
CALL backfill.wait(1400); :after
RESET ROLE;

-- Nothing is left when all is forgotten.
SELECT count(backfill.cancel(job_id)) FROM backfill.progress;
SELECT count(backfill.forget(job_id)::text) FROM backfill.progress;
SELECT count(*) FROM backfill_internal.event WHERE event <> 'forget';
SET client_min_messages = warning;
DROP SCHEMA rights CASCADE;
DROP ROLE regress_backfill_other, regress_backfill_owner;
