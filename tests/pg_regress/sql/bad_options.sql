-- Arguments out of their bounds, options, names. After each call: its SQLSTATE and the number of jobs.
\set after 'SELECT :''SQLSTATE'' || '', jobs: '' || count(*) FROM backfill_internal.job;'
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA bad_options;
SET search_path = bad_options, public;
CREATE TABLE t (id bigint PRIMARY KEY, a int, b int);

-- batch_size and sleep_ms
SELECT backfill.start('t', 0, set_clause => 'a = 1'); :after
SELECT backfill.start('t', -1, set_clause => 'a = 1'); :after
SELECT backfill.start('t', 1000001, set_clause => 'a = 1'); :after
SELECT backfill.start('t', 2147483647, set_clause => 'a = 1'); :after
SELECT backfill.start('t', 2147483648, set_clause => 'a = 1'); :after
SELECT backfill.start('t', NULL, set_clause => 'a = 1'); :after
SELECT backfill.start('t', 1000, -1, set_clause => 'a = 1'); :after
SELECT backfill.start('t', 1000, 86400001, set_clause => 'a = 1'); :after
SELECT backfill.start('t', 1000, NULL, set_clause => 'a = 1'); :after

-- options
SELECT backfill.start('t', set_clause => 'a = 1', options => NULL); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '[]'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '"key"'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => 'null'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"kye": "t_pkey"}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"setting": {}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"Key": "t_pkey"}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"scanlimit": 5}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"completely_else": 1}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"": 1}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"key": "t_pkey", "sleep": 1}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"key": 5}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"key": null}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"scan_limit": "5"}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"scan_limit": 5.5}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"scan_limit": 0}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"scan_limit": -5}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"scan_limit": 99999999999999999999}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"strategy": "wave"}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"walk": "ctid"}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"waves": 1}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"workers": 65}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"target_ms": 99999999999}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"vacuum": "off"}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": []}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"work_mem": 64}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"work_mem": "much"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"default_statistics_target": "0"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"work_memory": "64MB"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"max_connections": "5"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"backfill.enabled": "off"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"row_security": "on"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"Statement_Timeout": "5s"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"role": "postgres"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => '{"settings": {"": "x"}}'); :after
SELECT backfill.start('t', set_clause => 'a = 1', options => 'not json'); :after
SELECT backfill.define('t', 'a = 1', options => '{"kye": "t_pkey"}'); :after
-- What was tried is not left in force.
SHOW work_mem;

-- name
SELECT backfill.start('t', set_clause => 'a = 1', name => ''); :after
SELECT backfill.start('t', set_clause => 'a = 1', name => E' \t'); :after
SELECT backfill.start('t', set_clause => 'a = 1', name => repeat('x', 64)); :after
SELECT backfill.start('t', set_clause => 'a = 1', name => repeat('ä', 32)); :after
SELECT backfill.define('t', 'a = 1', name => repeat('ä', 32)); :after
BEGIN;
SELECT backfill.define('t', 'a = 1', name => repeat('x', 63)) > 0;
SELECT backfill.define('t', 'a = 1', name => repeat('ä', 31)) > 0;
SELECT backfill.define('t', 'a = 1', name => '"odd" ''name''; -- ü') > 0;
SELECT name FROM backfill.progress ORDER BY name COLLATE "C";
ROLLBACK;
:after

-- Nothing defined, several defined, another table's
SELECT backfill.start('t'); :after
SELECT backfill.start('t', name => 'nosuch'); :after
ALTER SEQUENCE backfill_internal.job_id_seq RESTART 2000;
BEGIN;
SELECT backfill.define('t', 'a = 1', name => 'rates'), backfill.define('t', 'b = 1');
SELECT backfill.start('t');
ROLLBACK;
BEGIN;
CREATE TABLE other (id bigint PRIMARY KEY, a int);
SELECT backfill.define('other', 'a = 1', name => 'rates') > 0;
SELECT backfill.start('t', name => 'rates');
ROLLBACK;
-- Options to start a stored definition
BEGIN;
SELECT backfill.define('t', 'a = 1', name => 'rates', options => '{"key": "t_pkey"}');
SAVEPOINT s;
SELECT backfill.start('t', name => 'rates', options => '{"key": "other"}');
ROLLBACK TO s;
SELECT backfill.start('t', name => 'rates', options => '{"walk": "physical"}');
ROLLBACK TO s;
SELECT backfill.start('t', name => 'rates', options => '{"key": "t_pkey", "workers": 2}');
ROLLBACK;
-- The same name for something else
BEGIN;
SELECT backfill.define('t', 'a = 1', 'b > 0', name => 'rates');
SAVEPOINT s;
SELECT backfill.define('t', 'a = 2', 'b > 0', name => 'rates');
ROLLBACK TO s;
SELECT backfill.define('t', 'a = 1', 'b > 1', name => 'rates');
ROLLBACK TO s;
SELECT backfill.start('t', set_clause => 'a = 1', name => 'rates');
ROLLBACK TO s;
CREATE TABLE other (id bigint PRIMARY KEY, a int, b int);
SELECT backfill.define('other', 'a = 1', 'b > 0', name => 'rates');
ROLLBACK TO s;
-- The same thing again is no error.
SELECT backfill.define('t', 'a = 1', 'b > 0', name => 'rates');
ROLLBACK;
:after

-- The names of the arguments and their types are PostgreSQL's business.
SELECT backfill.start('t', set => 'a = 1'); :after
SELECT backfill.start('t', 'many', set_clause => 'a = 1'); :after
SELECT backfill.start(); :after

SET client_min_messages = warning;
DROP SCHEMA bad_options CASCADE;
