-- Expressions that an UPDATE does not take, or not there. After each call: its SQLSTATE and the
-- number of jobs.
\set after 'SELECT :''SQLSTATE'' || '', jobs: '' || count(*) FROM backfill_internal.job;'
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA bad_expressions;
SET search_path = bad_expressions, public;
CREATE TABLE t (id bigint PRIMARY KEY, a int, b text, c int[], ok boolean, "odd;--/*'" int, "FROM" int);
CREATE TABLE lookup (id bigint PRIMARY KEY, v int);

SELECT backfill.start('t', set_clause => 'a = max(id)'); :after
SELECT backfill.start('t', set_clause => 'a = row_number() OVER ()'); :after
SELECT backfill.start('t', set_clause => 'a = generate_series(1, 3)'); :after
SELECT backfill.start('t', set_clause => 'a = $1'); :after
SELECT backfill.start('t', set_clause => 'a = (SELECT v, v FROM lookup)'); :after
SELECT backfill.start('t', set_clause => '(a, b) = (SELECT 1)'); :after
SELECT backfill.start('t', set_clause => 'c[1] = ''x'''); :after
SELECT backfill.start('t', set_clause => 'a.x = 1'); :after
SELECT backfill.start('t', set_clause => 'a = excluded.a'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a + 1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'count(*) > 1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'row_number() OVER () > 1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'generate_series(1, 2) > 1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a = $1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a = DEFAULT'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'b = '''); :after
SELECT backfill.start('t', set_clause => 'a = (WITH x AS (DELETE FROM lookup RETURNING v) SELECT v FROM x)'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'EXISTS (WITH x AS (DELETE FROM lookup RETURNING v) SELECT FROM x)'); :after

SET client_min_messages = warning;
DROP SCHEMA bad_expressions CASCADE;
