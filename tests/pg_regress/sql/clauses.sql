-- Clauses: where a fault is said to be, and what is not to be refused.
-- After each call: its SQLSTATE and the number of jobs.
\set after 'SELECT :''SQLSTATE'' || '', jobs: '' || count(*) FROM backfill_internal.job;'
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA clauses;
SET search_path = clauses, public;
CREATE TABLE t (id bigint PRIMARY KEY, a int, b text, c int[], ok boolean, "odd;--/*'" int, "FROM" int);
CREATE TABLE lookup (id bigint PRIMARY KEY, v int);

-- The fault is found in the line and column that it is in, beyond letters of several bytes, too.
SELECT backfill.start('t', set_clause => E'b = ''äöü'',\n  ä = 1'); :after
SELECT backfill.start('t', set_clause => E'b = ''äöü'',\n  a = 1 /* x'); :after
SELECT backfill.start('t', set_clause => 'a = 1', where_clause => E'b = ''äöü''\n  AND nosuch'); :after
SELECT backfill.start('t', set_clause => 'b = ''ok''', where_clause => 'ok AND nosuch = ''ok'''); :after

-- None of this is refused within literals and quoted names. Taken back right away.
BEGIN;
SELECT backfill.define('t', $$b = 'x;y--z/*(["'$$) > 0;
SELECT backfill.define('t', $$b = 'it''s; --'$$) > 0;
SELECT backfill.define('t', $$b = E'it\'s; --' || U&'\0061;'$$) > 0;
SELECT backfill.define('t', $c$b = $x$ ' ; -- /* ( $y$ $x$ || $$;$$$c$) > 0;
SELECT backfill.define('t', $$b = 'a\' || '; x'$$) > 0;
SELECT backfill.define('t', $$b = E'a\\' || E'\''$$) > 0;
SELECT backfill.define('t', $$"odd;--/*'" = 1$$) > 0;
SELECT backfill.define('t', $$b = 'a WHERE b FROM c RETURNING d'$$) > 0;
SELECT backfill.define('t', $$"FROM" = 1$$) > 0;
SELECT backfill.define('t', 'a = 1', $$b = ';' AND b <> '--' AND "odd;--/*'" = 1 OR b = ')'$$) > 0;
SELECT backfill.define('t', 'a = 1', E'b = ''x;''\n''y;''') > 0;
ROLLBACK;
:after

-- What an UPDATE takes, a backfill takes.
BEGIN;
SELECT backfill.define('t', '(a, b) = (SELECT 1, ''2'')') > 0;
SELECT backfill.define('t', '(a, b) = ROW (1, DEFAULT)') > 0;
SELECT backfill.define('t', 'c[1] = 2, c[2:3] = ''{1,2}''') > 0;
SELECT backfill.define('t', 'a = DEFAULT') > 0;
SELECT backfill.define('t', 'a = t.a + 1 - -1') > 0;
SELECT backfill.define('t', 'a = clauses.t.a / 2 * 3') > 0;
SELECT backfill.define('t', 'a = (SELECT max(v) FROM lookup WHERE lookup.id = t.id)') > 0;
SELECT backfill.define('t', 'a = (WITH x AS (SELECT 1 AS v) SELECT v FROM x), b = NULL') > 0;
SELECT backfill.define('t', E'\n a = 1,\n b = ''2''\n', E'\n a > 0\n') > 0;
SELECT backfill.define('t', 'a = 1', 'a > 0 OR b IS NULL AND EXISTS (SELECT FROM lookup WHERE v = a LIMIT 1)') > 0;
SELECT backfill.define('t', 'a = 1', 'NULL') > 0;
SELECT backfill.define('t', 'a = extract(year FROM now())', 'b IS DISTINCT FROM ''x''') > 0;
SELECT set_clause, where_clause FROM backfill.progress WHERE set_clause LIKE '%,%b =%' ORDER BY job_id;
ROLLBACK;
:after

-- Strings are read as the standard has them, whatever the session's setting: \' does not go on.
SET standard_conforming_strings = off;
SET escape_string_warning = off;
BEGIN;
SELECT backfill.define('t', $$b = 'a\'$$) > 0;
ROLLBACK;
SELECT backfill.start('t', set_clause => $$b = 'a\' ; DROP TABLE clauses.t --'$$); :after
RESET standard_conforming_strings;
SET client_min_messages = warning;
DROP SCHEMA clauses CASCADE;
