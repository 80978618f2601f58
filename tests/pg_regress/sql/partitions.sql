-- Partitioned tables: what is checked of each partition, and whose rights count.
-- Each refusal names the thing, says what to do, and leaves nothing behind. After each call: its
-- SQLSTATE and the number of jobs (of a visitor, who may not count them: the SQLSTATE).
\set after 'SELECT :''SQLSTATE'' || '', jobs: '' || count(*) FROM backfill_internal.job;'
\set code 'SELECT :''SQLSTATE'';'
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA parts;
SET search_path = parts, public;
CREATE TABLE orders (
    id bigint, region text NOT NULL, day date NOT NULL, a int, b int, "Odd" int,
    PRIMARY KEY (id, region, day)
) PARTITION BY LIST (region);

-- Without partitions there is nothing to do; mistakes are found all the same.
BEGIN;
SELECT backfill.define('orders', 'a = 1') > 0;
SELECT key_columns FROM backfill_internal.job ORDER BY id;
ROLLBACK;
SELECT backfill.define('orders', 'nosuch = 1'); :after
SELECT backfill.define('orders', 'id = 1'); :after

CREATE TABLE orders_eu PARTITION OF orders FOR VALUES IN ('eu');
CREATE TABLE orders_us PARTITION OF orders FOR VALUES IN ('us') PARTITION BY RANGE (day);
CREATE TABLE orders_us_1 PARTITION OF orders_us FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE orders_us_rest PARTITION OF orders_us DEFAULT;
-- Other order of columns
CREATE TABLE orders_rest (b int, "Odd" int, a int, gone int, day date NOT NULL, region text NOT NULL, id bigint NOT NULL);
ALTER TABLE orders_rest DROP COLUMN gone;
ALTER TABLE orders ATTACH PARTITION orders_rest DEFAULT;
BEGIN;
SELECT backfill.define('orders', 'a = 1, "Odd" = 2') > 0;
SELECT relation, key_columns FROM backfill_internal.job ORDER BY id;
-- The clauses may call each partition by the name of the whole.
SELECT backfill.define('orders', 'a = (SELECT max(o.b) FROM orders o WHERE o.id = orders.id)', 'orders.b > 0') > 0;
ROLLBACK;
:after

-- What decides where a row is: of the table itself, of one below, of those above
SELECT backfill.define('orders', 'a = 1, region = ''eu'''); :after
SELECT backfill.define('orders', 'day = day + 1'); :after
SELECT backfill.define('orders_us', 'region = ''us'''); :after
SELECT backfill.define('orders_us_1', 'day = day + 1'); :after
SELECT backfill.define('orders_us_1', 'region = ''us'''); :after
CREATE TABLE hidden (id bigint, day date, a int) PARTITION BY RANGE ((day + 1), (id + 1));
SELECT backfill.define('hidden', 'day = NULL'); :after
SELECT backfill.define('hidden', 'a = 1, id = 1'); :after
-- A partition by itself
BEGIN;
SELECT backfill.define('orders_us_1', 'a = 1') > 0, backfill.define('orders_us', 'a = 1') > 0;
ROLLBACK;
:after

-- The option "key" names an index of the whole, or one that each partition has.
ALTER TABLE orders ADD COLUMN code int NOT NULL;
CREATE UNIQUE INDEX orders_code ON orders (code, region, day);
BEGIN;
SELECT backfill.define('orders', 'a = 1', options => '{"key": "orders_code"}') > 0;
SELECT key_columns FROM backfill_internal.job ORDER BY id;
ROLLBACK;
SELECT backfill.define('orders', 'a = 1', options => '{"key": "nosuch"}'); :after
CREATE UNIQUE INDEX only_eu ON orders_eu (code);
SELECT backfill.define('orders', 'a = 1', options => '{"key": "only_eu"}'); :after
SELECT backfill.define('orders', 'a = 1, code = 2', options => '{"key": "orders_code"}'); :after

-- Rights: those on the partitions count.
CREATE ROLE "regress backfill_visitor";
GRANT USAGE ON SCHEMA parts TO "regress backfill_visitor";
GRANT SELECT, UPDATE ON orders TO "regress backfill_visitor";
SET ROLE "regress backfill_visitor";
SELECT backfill.define('orders', 'a = 1, "Odd" = 2'); :code
RESET ROLE;
GRANT SELECT, UPDATE ON orders_eu, orders_us_1 TO "regress backfill_visitor";
GRANT SELECT ON orders_rest TO "regress backfill_visitor";
SET ROLE "regress backfill_visitor";
SELECT backfill.define('orders', 'a = 1, "Odd" = 2'); :code
RESET ROLE;
-- The hint, pasted
GRANT SELECT, UPDATE ("a", "Odd") ON parts.orders_us_rest, parts.orders_rest TO "regress backfill_visitor";
CREATE TABLE lookup (id bigint);
SET ROLE "regress backfill_visitor";
BEGIN;
SELECT backfill.define('orders', 'a = 1, "Odd" = 2') > 0;
ROLLBACK;
-- Not the partitions' fault
SELECT backfill.define('orders', 'a = (SELECT 1 FROM lookup)'); :code
RESET ROLE;
DO $$
BEGIN
    FOR i IN 1 .. 20 LOOP
        EXECUTE format('CREATE TABLE orders_%s PARTITION OF orders FOR VALUES IN (%L)', i, i);
    END LOOP;
END $$;
SET ROLE "regress backfill_visitor";
SELECT backfill.define('orders', 'b = 1'); :code
RESET ROLE;
-- The hint, pasted
SELECT format('GRANT SELECT, UPDATE ("b") ON %s TO "regress backfill_visitor"', relid::regclass) FROM pg_partition_tree('parts.orders') WHERE isleaf \gexec
SET ROLE "regress backfill_visitor";
BEGIN;
SELECT backfill.define('orders', 'b = 1') > 0;
ROLLBACK;
RESET ROLE;

-- Row security: of the whole, of one between, of a partition
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SET ROLE "regress backfill_visitor";
SELECT backfill.define('orders', 'b = 1'); :code
RESET ROLE;
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;
ALTER TABLE orders_us ENABLE ROW LEVEL SECURITY;
SET ROLE "regress backfill_visitor";
SELECT backfill.define('orders', 'b = 1'); :code
RESET ROLE;
ALTER TABLE orders_us DISABLE ROW LEVEL SECURITY;
ALTER TABLE orders_rest ENABLE ROW LEVEL SECURITY;
SET ROLE "regress backfill_visitor";
SELECT backfill.define('orders', 'b = 1'); :code
RESET ROLE;
ALTER TABLE orders_rest DISABLE ROW LEVEL SECURITY;

-- Partitions that can't be walked
CREATE RULE r AS ON UPDATE TO orders_us_1 DO INSTEAD NOTHING;
SELECT backfill.define('orders', 'b = 1'); :after
ALTER TABLE orders_us_1 DISABLE RULE r;
CREATE FOREIGN DATA WRAPPER parts_wrapper;
CREATE SERVER parts_server FOREIGN DATA WRAPPER parts_wrapper;
CREATE TABLE logs (id bigint, a int) PARTITION BY LIST (id);
CREATE FOREIGN TABLE logs_far PARTITION OF logs FOR VALUES IN (1) SERVER parts_server;
SELECT backfill.define('logs', 'a = 1'); :after
DROP FOREIGN TABLE logs_far;
CREATE UNLOGGED TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);
CREATE UNLOGGED TABLE logs_2 PARTITION OF logs FOR VALUES IN (2);
-- One has a key, the other has none.
ALTER TABLE logs_1 ADD PRIMARY KEY (id);
SELECT backfill.define('logs', 'a = 1'); :after
BEGIN;
SELECT backfill.define('logs', 'a = 1', 'a IS NULL') > 0;
SELECT key_columns FROM backfill_internal.job ORDER BY id;
ROLLBACK;
DROP TABLE logs_1;
BEGIN;
SELECT backfill.define('logs', 'a = 1', 'a IS NULL') > 0;
SELECT key_columns FROM backfill_internal.job ORDER BY id;
ROLLBACK;

-- Two jobs on the same rows: of the whole and of its parts
BEGIN;
SELECT backfill.start('orders', set_clause => 'a = 1') > 0;
DO $$
BEGIN
    PERFORM backfill.start('parts.orders_us_1', set_clause => 'b = 2, a = 2');
EXCEPTION WHEN object_in_use THEN
    RAISE INFO '%', regexp_replace(SQLERRM, '\d+$', 'N');
END $$;
SELECT backfill.start('orders_us_1', set_clause => 'b = 2') > 0;
DO $$
BEGIN
    PERFORM backfill.start('parts.orders_us', set_clause => 'b = 2');
EXCEPTION WHEN object_in_use THEN
    RAISE INFO '%', regexp_replace(SQLERRM, '\d+$', 'N');
END $$;
SELECT backfill.start('orders_eu', set_clause => 'b = 2') > 0;
ROLLBACK;
:after

SET client_min_messages = warning;
DROP SCHEMA parts CASCADE;
DROP FOREIGN DATA WRAPPER parts_wrapper CASCADE;
DROP ROLE "regress backfill_visitor";
