-- Tables without a key, and walks in physical order: allowed where each updated row falls out of
-- the WHERE clause. After each call: its SQLSTATE and the number of jobs.
\set after 'SELECT :''SQLSTATE'' || '', jobs: '' || count(*) FROM backfill_internal.job;'
\set code 'SELECT :''SQLSTATE'';'
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA phys;
SET search_path = phys, public;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION dice() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 4';
CREATE TABLE k (a int, b int);
CREATE TABLE p (id int PRIMARY KEY, a int, b int);

-- Allowed
BEGIN;
SELECT backfill.define('k', 'b = 1', 'b IS NULL') > 0;
SELECT backfill.define('k', 'b = 1', 'b IS NULL AND k.a < 3', options => '{"walk": "physical"}') > 0;
SELECT backfill.define('p', 'b = 1', 'b IS NULL', options => '{"walk": "physical"}') > 0;
-- There, the key may be written.
SELECT backfill.define('p', 'id = -id', 'id > 0', options => '{"walk": "physical"}') > 0;
SELECT relation, key_columns FROM backfill_internal.job ORDER BY id;
ROLLBACK;

-- No where_clause
SELECT backfill.define('k', 'b = 1'); :after
SELECT backfill.define('k', 'b = 1', options => '{"walk": "key"}'); :after
SELECT backfill.define('k', 'b = 1', options => '{"walk": "physical"}'); :after
SELECT backfill.define('p', 'b = 1', options => '{"walk": "physical"}'); :after
CREATE UNIQUE INDEX k_nullable ON k (a);
SELECT backfill.define('k', 'b = 1'); :after
SELECT backfill.define('k', 'b = 1', 'b IS NULL', options => '{"walk": "key"}'); :after

-- A volatile one, also in a subquery
SELECT backfill.define('k', 'b = 1', 'b IS NULL AND dice() > 3'); :after
SELECT backfill.define('k', 'b = 1', 'b IN (SELECT dice())'); :after
SELECT backfill.define('p', 'b = 1', 'random() > b', options => '{"walk": "physical"}'); :after
-- What is stable, or volatile elsewhere, is not.
BEGIN;
SELECT backfill.define('k', 'a = dice()', 'a IS NULL AND now() > ''2000-01-01''') > 0;
ROLLBACK;
-- One that does not hold water is refused as ever.
SELECT backfill.define('k', 'b = 1', 'nosuch IS NULL'); :after
SELECT backfill.define('k', 'b = 1', 'b'); :after

-- Triggers that run after the UPDATE: by row, by statement, of a constraint
CREATE TRIGGER "After Row" AFTER INSERT OR UPDATE ON k FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT backfill.define('k', 'b = 1', 'b IS NULL'); :after
ALTER TABLE k DISABLE TRIGGER "After Row";
CREATE TRIGGER by_statement AFTER UPDATE ON k EXECUTE FUNCTION nothing();
SELECT backfill.define('k', 'b = 1', 'b IS NULL'); :after
DROP TRIGGER by_statement ON k;
CREATE CONSTRAINT TRIGGER of_constraint AFTER UPDATE ON k DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT backfill.define('k', 'b = 1', 'b IS NULL', options => '{"walk": "physical"}'); :after
DROP TRIGGER of_constraint ON k;
-- Those that do not
CREATE TRIGGER before_row BEFORE UPDATE ON k FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER after_insert AFTER INSERT ON k FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER after_truncate AFTER TRUNCATE ON k EXECUTE FUNCTION nothing();
CREATE TRIGGER after_delete AFTER DELETE ON k FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER on_replicas AFTER UPDATE ON k FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE k ENABLE REPLICA TRIGGER on_replicas;
ALTER TABLE p ADD FOREIGN KEY (a) REFERENCES p, ADD COLUMN up int CONSTRAINT far REFERENCES p ON UPDATE NO ACTION;
BEGIN;
SELECT backfill.define('k', 'b = 1', 'b IS NULL') > 0;
SELECT backfill.define('p', 'b = 1', 'b IS NULL', options => '{"walk": "physical"}') > 0;
ROLLBACK;
-- A foreign key that writes other rows of the table
ALTER TABLE p ADD COLUMN boss int CONSTRAINT chain REFERENCES p ON UPDATE CASCADE;
SELECT backfill.define('p', 'b = 1', 'b IS NULL', options => '{"walk": "physical"}'); :after

-- A trigger of the partitioned table is one of its partitions.
CREATE TABLE parted (a int, b int) PARTITION BY LIST (a);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TRIGGER inherited AFTER UPDATE ON parted FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT backfill.define('parted', 'b = 1', 'b IS NULL'); :after
DROP TRIGGER inherited ON parted;
-- Its triggers by statement are not fired.
CREATE TRIGGER not_inherited AFTER UPDATE ON parted EXECUTE FUNCTION nothing();
BEGIN;
SELECT backfill.define('parted', 'b = 1', 'b IS NULL AND parted.a = 1') > 0;
ROLLBACK;

-- It reads where the rows are.
CREATE ROLE regress_backfill_reader;
GRANT USAGE ON SCHEMA phys TO regress_backfill_reader;
GRANT SELECT (a, b), UPDATE (b) ON k TO regress_backfill_reader;
SET ROLE regress_backfill_reader;
SELECT backfill.define('k', 'b = 1', 'b IS NULL'); :code
RESET ROLE;
-- The hint, pasted
GRANT SELECT ("ctid") ON "phys"."k" TO regress_backfill_reader;
SET ROLE regress_backfill_reader;
BEGIN;
SELECT backfill.define('k', 'b = 1', 'b IS NULL') > 0;
ROLLBACK;
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA phys CASCADE;
DROP ROLE regress_backfill_reader;
