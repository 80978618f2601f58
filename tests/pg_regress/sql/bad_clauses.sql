-- Clauses that are refused, and how.
-- After each call: its SQLSTATE and the number of jobs.
\set after 'SELECT :''SQLSTATE'' || '', jobs: '' || count(*) FROM backfill_internal.job;'
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA bad_clauses;
SET search_path = bad_clauses, public;
CREATE TABLE t (id bigint PRIMARY KEY, a int, b text, c int[], ok boolean, "odd;--/*'" int, "FROM" int);
CREATE TABLE lookup (id bigint PRIMARY KEY, v int);

-- Empty, or none
SELECT backfill.start('t', set_clause => ''); :after
SELECT backfill.start('t', set_clause => E' \n\t'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => ''); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => '  '); :after
SELECT backfill.define('t', NULL); :after
SELECT backfill.start('t', where_clause => 'a > 1'); :after

-- A second statement, a comment
SELECT backfill.start('t', set_clause => 'a = 1;'); :after
SELECT backfill.start('t', set_clause => 'a = 1; DROP TABLE bad_clauses.t'); :after
SELECT backfill.start('t', set_clause => 'a = 1 -- all of them'); :after
SELECT backfill.start('t', set_clause => 'a = 1 /* all of them */'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a > 0; DELETE FROM t'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a > 0 -- x'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a > /* x */ 0'); :after
SELECT backfill.start('t', set_clause => 'a = (SELECT 1; SELECT 2)'); :after

-- What is not closed, or closes what is not the clause's
SELECT backfill.start('t', set_clause => 'b = ''x'); :after
SELECT backfill.start('t', set_clause => 'b = "x'); :after
SELECT backfill.start('t', set_clause => 'b = $x$ y $$'); :after
SELECT backfill.start('t', set_clause => 'a = (1'); :after
SELECT backfill.start('t', set_clause => 'a = 1)'); :after
SELECT backfill.start('t', set_clause => 'c = c[1'); :after
SELECT backfill.start('t', set_clause => 'c = (c[1)]'); :after
SELECT backfill.start('t', set_clause => 'a = 1) , (b'); :after
SELECT backfill.start('t', set_clause => 'b = ''a\''; x'''); :after
SELECT backfill.start('t', set_clause => 'b = E''a\'''); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a > 0) OR (true'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'true) UNION SELECT (1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'b = ''x'); :after

-- Other parts of an UPDATE
SELECT backfill.start('t', set_clause => 'a = 1 WHERE true'); :after
SELECT backfill.start('t', set_clause => 'a = 1, b = 2 WHERE true'); :after
SELECT backfill.start('t', set_clause => 'a = v FROM lookup'); :after
SELECT backfill.start('t', set_clause => 'a = 1 RETURNING id'); :after
SELECT backfill.start('t', set_clause => 'a = 1 WHERE CURRENT OF x'); :after
SELECT backfill.start('t', set_clause => 'SET a = 1'); :after
SELECT backfill.start('t', set_clause => 'UPDATE t SET a = 1'); :after
SELECT backfill.start('t', set_clause => 'a'); :after
SELECT backfill.start('t', set_clause => 'a = 1,'); :after
SELECT backfill.start('t', set_clause => 'a = = 1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'WHERE a > 0'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a > 0 RETURNING a'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a > 0 FROM lookup'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'a > 0 LIMIT 1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'ok, ok'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'ok AS x'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'ok x'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => '*'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'ok ORDER BY 1'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => 'CURRENT OF x'); :after

SET client_min_messages = warning;
DROP SCHEMA bad_clauses CASCADE;
