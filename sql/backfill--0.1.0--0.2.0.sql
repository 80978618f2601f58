-- From 0.1.0 to 0.2.0: waves, several workers, partitions, physical order, rows that fail or are locked.
--
-- Columns come last here that come earlier in a new database: their order means nothing. Views get
-- new columns at their end only, so that they can be replaced, whatever of the user's refers to them.

-- Nobody's operators, as in sql/tables.sql.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Not with the library of before: it would run the new SQL.
DO $$
BEGIN
    CREATE FUNCTION backfill.library_version() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'library_version_wrapper';
    IF backfill.library_version() <> '0.2.0' THEN
        RAISE EXCEPTION undefined_function;
    END IF;
EXCEPTION WHEN undefined_function THEN
    RAISE EXCEPTION 'extension "backfill" cannot be updated to version 0.2.0: the loaded library is of another version'
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Install the library of version 0.2.0. Where it is installed, restart the server if the library is preloaded, else connect again.';
END $$;
COMMENT ON FUNCTION backfill.library_version IS 'The version of the library that this session has loaded';

-- Batches in progress end first, and others wait. So does whoever looks at the views.
LOCK TABLE backfill.job, backfill.slice, backfill.checkpoint, backfill.outcome, backfill.event IN ACCESS EXCLUSIVE MODE;

ALTER TABLE backfill.job
    ADD COLUMN retry_attempt integer NOT NULL DEFAULT 0,
    ADD COLUMN verifies bigint,
    ADD COLUMN check_clause text,
    ADD COLUMN recompute boolean NOT NULL DEFAULT false,
    ADD COLUMN asked_by regrole,
    ADD COLUMN asked_session regrole;
DROP INDEX backfill.job_owner_name;
-- A dry run may go by the name of the run that it is for.
CREATE UNIQUE INDEX job_owner_name ON backfill.job (owner, name, (options @> '{"dry_run": true}'));
COMMENT ON COLUMN backfill.job.asked_by IS 'Who started the job where that needs an approval; NULL: it needed none';
COMMENT ON COLUMN backfill.job.asked_session IS 'The role that asked_by had logged in as';
COMMENT ON COLUMN backfill.job.verifies IS 'The job whose rows this one looks at, to verify them; NULL: it changes rows, or is a dry run';
COMMENT ON COLUMN backfill.job.check_clause IS 'Of a verification: what is to be true of each row';
COMMENT ON COLUMN backfill.job.recompute IS 'Of a verification: whether set_clause is to change nothing; where it has neither, where_clause is to be true of no row';
COMMENT ON COLUMN backfill.job.database_oid IS 'The database that the job was started in; above its 32 bits the OID of backfill.job, which is another one where the extension was created anew';
COMMENT ON COLUMN backfill.job.retry_attempt IS 'The attempt that backfill.retry_failed began: outcomes of earlier ones are void, and rows that failed in them are tried again; 0: none';

CREATE TABLE backfill.walk (
    job_id bigint      PRIMARY KEY,
    pass   integer     NOT NULL,
    phase  text        NOT NULL,
    tables regclass[]  NOT NULL,
    notes  text[]      NOT NULL DEFAULT '{}',
    at     timestamptz NOT NULL,
    summed boolean     NOT NULL DEFAULT false,
    key_from text[],
    key_to   text[],
    sizes    jsonb       NOT NULL DEFAULT '{}',
    bytes_before bigint[],
    bytes_after  bigint[]
);
CREATE INDEX walk_going ON backfill.walk (job_id) WHERE NOT summed;
COMMENT ON TABLE backfill.walk IS 'What the workers of a job have in common: one row per job that has begun. Written by workers only, a few times per job.';
COMMENT ON COLUMN backfill.walk.job_id IS 'The job';
COMMENT ON COLUMN backfill.walk.pass IS 'The pass over the table: a walk in physical order looks again for rows that moved';
COMMENT ON COLUMN backfill.walk.phase IS 'What is being done: walk, or after the last batch vacuum or analyze, with the table''s name';
COMMENT ON COLUMN backfill.walk.tables IS 'The table, or the partitions that there were when the walk began';
COMMENT ON COLUMN backfill.walk.notes IS 'What its owner should know';
COMMENT ON COLUMN backfill.walk.at IS 'When the phase began';
COMMENT ON COLUMN backfill.walk.key_from IS 'The first key of what is cut into slices, as the option has it; NULL: from the first row on';
COMMENT ON COLUMN backfill.walk.key_to IS 'The last key of it; NULL: to the last row';
COMMENT ON COLUMN backfill.walk.sizes IS 'For max_growth: by table, its size when that was first looked at or since its last VACUUM, and the number of its VACUUMs';
COMMENT ON COLUMN backfill.walk.bytes_before IS 'Bytes of the tables, with TOAST, and of their indexes, when the walk began';
COMMENT ON COLUMN backfill.walk.bytes_after IS 'The same when the job completed';
COMMENT ON COLUMN backfill.walk.summed IS 'Whether the job has ended for good, and its outcome has the sums over its slices';

-- All that was walked was one slice of one table, by key.
INSERT INTO backfill.walk (job_id, pass, phase, tables, at)
SELECT j.id, 1, 'walk', ARRAY[j.relation], COALESCE(j.started_at, j.defined_at)
FROM backfill.job j WHERE EXISTS (SELECT FROM backfill.slice s WHERE s.job_id = j.id);

ALTER TABLE backfill.slice
    ADD COLUMN pass          integer,
    ADD COLUMN relation      regclass,
    ADD COLUMN relation_name text,
    ADD COLUMN walk          text CHECK (walk IN ('key', 'physical')),
    ADD COLUMN weight        double precision,
    ADD COLUMN after_key     text[],
    ADD COLUMN first_block   bigint,
    ADD COLUMN end_block     bigint,
    ADD COLUMN filenode      oid,
    ADD COLUMN attributes    jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN done          boolean NOT NULL DEFAULT false;
UPDATE backfill.slice s
SET pass = 1, relation = j.relation, relation_name = j.relation_name, walk = 'key',
    weight = GREATEST((SELECT pg_catalog.max(c.rows_total) FROM backfill.checkpoint c WHERE c.slice_id = s.id), 1),
    done = EXISTS (SELECT FROM backfill.outcome o WHERE o.job_id = s.job_id AND o.outcome = 'completed')
FROM backfill.job j WHERE j.id = s.job_id;
ALTER TABLE backfill.slice
    ALTER COLUMN pass          SET NOT NULL,
    ALTER COLUMN relation      SET NOT NULL,
    ALTER COLUMN relation_name SET NOT NULL,
    ALTER COLUMN walk          SET NOT NULL,
    ALTER COLUMN weight        SET NOT NULL,
    ALTER COLUMN last_key      DROP NOT NULL,
    ALTER COLUMN key_columns   DROP NOT NULL,
    ALTER COLUMN key_order     DROP NOT NULL,
    ADD CHECK (CASE walk WHEN 'key' THEN last_key IS NOT NULL AND key_columns IS NOT NULL AND key_order IS NOT NULL
                         ELSE first_block IS NOT NULL AND end_block IS NOT NULL AND filenode IS NOT NULL END);
COMMENT ON TABLE backfill.slice IS 'The parts of a walk; one worker at a time holds a slice. Written when a pass begins, and marked when done.';
COMMENT ON COLUMN backfill.slice.pass IS 'The pass that it belongs to';
COMMENT ON COLUMN backfill.slice.relation IS 'The table, or the partition, that it is a part of';
COMMENT ON COLUMN backfill.slice.relation_name IS 'What that was called when the pass began';
COMMENT ON COLUMN backfill.slice.walk IS 'In which order its rows are passed: key or physical';
COMMENT ON COLUMN backfill.slice.weight IS 'Its share of the job''s progress: the rows it was expected to have';
COMMENT ON COLUMN backfill.slice.after_key IS 'It begins after this key; NULL: at the first row';
COMMENT ON COLUMN backfill.slice.last_key IS 'It ends with this key. The last slice''s is the last key that the first transaction saw; rows beyond it are not chased.';
COMMENT ON COLUMN backfill.slice.key_columns IS 'The columns that its keys consist of';
COMMENT ON COLUMN backfill.slice.first_block IS 'In physical order: its first page';
COMMENT ON COLUMN backfill.slice.end_block IS 'In physical order: the page after its last';
COMMENT ON COLUMN backfill.slice.filenode IS 'In physical order: the file that the pages are in; another one means that the table was rewritten';
COMMENT ON COLUMN backfill.slice.attributes IS 'The numbers of the columns that the clauses use, and of the key''s: a renamed column is told from another one by them';
COMMENT ON COLUMN backfill.slice.done IS 'Whether all of it has been passed';

ALTER TABLE backfill.checkpoint
    ADD COLUMN block bigint,
    ADD COLUMN region_key text[],
    ADD COLUMN waves smallint,
    ADD COLUMN spread text,
    ADD COLUMN wave smallint,
    ADD COLUMN wave_to smallint,
    ADD COLUMN wave_key text[],
    ADD COLUMN rows_hot bigint NOT NULL DEFAULT 0,
    ADD COLUMN rows_found bigint NOT NULL DEFAULT 0,
    ADD COLUMN batch_rows integer,
    ADD COLUMN batch_ms real,
    ADD COLUMN batch_ms_p95 real,
    ADD COLUMN worked_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN slept_ms bigint NOT NULL DEFAULT 0,
    ADD COLUMN waited_ms jsonb,
    ADD COLUMN wal_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN note text,
    ADD COLUMN waits_for text,
    ADD COLUMN waits_until timestamptz;
ALTER TABLE backfill.checkpoint
    ALTER COLUMN rows_hot DROP DEFAULT,
    ALTER COLUMN rows_found DROP DEFAULT;
COMMENT ON COLUMN backfill.checkpoint.block IS 'In physical order: every page before this one is done';
COMMENT ON COLUMN backfill.checkpoint.region_key IS 'Last key of the region that is passed over in waves; NULL: no region is open';
COMMENT ON COLUMN backfill.checkpoint.waves IS 'Waves that the rows of the open region are dealt out to; a pass does one or several';
COMMENT ON COLUMN backfill.checkpoint.spread IS 'What gives a key its wave in the open region: mod 16 from 3, or dealt (see backfill.region)';
COMMENT ON COLUMN backfill.checkpoint.wave IS 'The first wave of the present pass: all before it are done in the open region';
COMMENT ON COLUMN backfill.checkpoint.wave_to IS 'The last wave of the present pass';
COMMENT ON COLUMN backfill.checkpoint.wave_key IS 'The present pass is done up to this key; NULL: at its start';
COMMENT ON COLUMN backfill.checkpoint.rows_hot IS 'Rows changed without a new entry in any index (heap-only tuples)';
COMMENT ON COLUMN backfill.checkpoint.rows_found IS 'In physical order: rows that were found to match the WHERE clause';
COMMENT ON COLUMN backfill.checkpoint.rows_total IS 'Estimate of the rows of the slice';
COMMENT ON COLUMN backfill.checkpoint.percent IS 'Highest percentage of the slice so far';
COMMENT ON COLUMN backfill.checkpoint.batch_rows IS 'Rows per commit in force';
COMMENT ON COLUMN backfill.checkpoint.batch_ms IS 'What the worker''s last batch took, in milliseconds';
COMMENT ON COLUMN backfill.checkpoint.batch_ms_p95 IS 'What 95 per cent of its last 200 batches took at most, in milliseconds';
COMMENT ON COLUMN backfill.checkpoint.worked_ms IS 'Time that the slice has taken in batches, in milliseconds';
COMMENT ON COLUMN backfill.checkpoint.slept_ms IS 'Time that it has taken in pauses between batches, in milliseconds';
COMMENT ON COLUMN backfill.checkpoint.waited_ms IS 'Time that it has taken waiting, in milliseconds, by what for: an option''s name, or retry';
COMMENT ON COLUMN backfill.checkpoint.wal_bytes IS 'WAL that it has written, in bytes';
COMMENT ON COLUMN backfill.checkpoint.note IS 'What the worker would tell: why it does not go in waves, for one';
COMMENT ON COLUMN backfill.checkpoint.waits_for IS 'Why the next batch is tried again: what was in its way; no row data';
COMMENT ON COLUMN backfill.checkpoint.waits_until IS 'When it is tried again';

ALTER TABLE backfill.outcome
    ADD COLUMN percent      double precision,
    ADD COLUMN rows_done    bigint,
    ADD COLUMN rows_total   bigint,
    ADD COLUMN rows_updated bigint,
    ADD COLUMN rows_hot     bigint,
    ADD COLUMN worked_ms    bigint,
    ADD COLUMN slept_ms     bigint,
    ADD COLUMN waited_ms    bigint,
    ADD COLUMN wal_bytes    bigint;
COMMENT ON COLUMN backfill.outcome.percent IS 'Of a job that has ended for good: how far it had come';
COMMENT ON COLUMN backfill.outcome.rows_done IS 'The same: rows passed';
COMMENT ON COLUMN backfill.outcome.rows_total IS 'The same: estimate of all rows';
COMMENT ON COLUMN backfill.outcome.rows_updated IS 'The same: rows changed';
COMMENT ON COLUMN backfill.outcome.rows_hot IS 'The same: rows changed without a new entry in any index';
COMMENT ON COLUMN backfill.outcome.worked_ms IS 'The same: time spent in batches, in milliseconds';
COMMENT ON COLUMN backfill.outcome.slept_ms IS 'The same: time spent in pauses, in milliseconds';
COMMENT ON COLUMN backfill.outcome.waited_ms IS 'The same: time spent waiting, in milliseconds';
COMMENT ON COLUMN backfill.outcome.wal_bytes IS 'The same: WAL written, in bytes';

CREATE TABLE backfill.region (
    slice_id integer PRIMARY KEY,
    waves    bytea   NOT NULL
);
COMMENT ON TABLE backfill.region IS 'Which wave the rows of an open region belong to, where that is no function of a few numbers. Written once per region.';
COMMENT ON COLUMN backfill.region.slice_id IS 'The slice';
COMMENT ON COLUMN backfill.region.waves IS 'A key has the wave at the hash of it, modulo the length';

CREATE TABLE backfill.leftover (
    id       bigint      GENERATED ALWAYS AS IDENTITY,
    slice_id integer     NOT NULL,
    key      text[]      NOT NULL,
    at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (slice_id, id)
);
COMMENT ON TABLE backfill.leftover IS 'Rows that a slice has passed and takes up at its end: others had them locked, or they failed and are tried again. Written with the batch that leaves or does them.';
COMMENT ON COLUMN backfill.leftover.id IS 'In the order in which they were left';
COMMENT ON COLUMN backfill.leftover.slice_id IS 'The slice';
COMMENT ON COLUMN backfill.leftover.key IS 'The row''s key';
COMMENT ON COLUMN backfill.leftover.at IS 'When it was left';

CREATE TABLE backfill.setback (
    job_id      bigint      NOT NULL,
    pid         integer     NOT NULL,
    waits_for   text        NOT NULL,
    waits_until timestamptz,
    since       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (job_id, pid)
);
COMMENT ON TABLE backfill.setback IS 'What workers wait for between batches: a signal that is over its bound, or, while they hold no slice, a table that somebody has locked. Gone when they get on.';
COMMENT ON COLUMN backfill.setback.job_id IS 'The job';
COMMENT ON COLUMN backfill.setback.pid IS 'The worker';
COMMENT ON COLUMN backfill.setback.waits_for IS 'What was in its way; no row data';
COMMENT ON COLUMN backfill.setback.waits_until IS 'When it tries again; NULL: it looks each second';
COMMENT ON COLUMN backfill.setback.since IS 'When the wait began';

COMMENT ON COLUMN backfill.outcome.batch IS 'What the batch was about that failed: a range of keys or pages';
ALTER TABLE backfill.outcome
    ADD COLUMN on_end text CHECK (on_end IN ('due', 'done', 'failed')),
    ADD COLUMN on_end_tries integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN backfill.outcome.on_end IS 'What became of the statement that the owner wants run at the end: due, done or failed; NULL: there was none';
COMMENT ON COLUMN backfill.outcome.on_end_tries IS 'How often it was begun: a worker that is lost in it leaves it due, and one that takes the server along would do so for ever';

CREATE TABLE backfill.verify_failure (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id        bigint      NOT NULL,
    relation      regclass    NOT NULL,
    relation_name text        NOT NULL,
    key_columns   text[]      NOT NULL,
    key           text[]      NOT NULL,
    at            timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX verify_failure_job_id ON backfill.verify_failure (job_id);
COMMENT ON TABLE backfill.verify_failure IS 'Rows that a verification has found to be wrong, each recorded in the transaction that looked at it; the first hundred thousand';
COMMENT ON COLUMN backfill.verify_failure.id IS 'In the order in which they were found';
COMMENT ON COLUMN backfill.verify_failure.job_id IS 'The verification';
COMMENT ON COLUMN backfill.verify_failure.relation IS 'The table, or the partition, that the row is in';
COMMENT ON COLUMN backfill.verify_failure.relation_name IS 'What that was called';
COMMENT ON COLUMN backfill.verify_failure.key_columns IS 'The columns of its key; ctid where the table has none';
COMMENT ON COLUMN backfill.verify_failure.key IS 'Its key';
COMMENT ON COLUMN backfill.verify_failure.at IS 'When';

CREATE TABLE backfill.sample (
    job_id         bigint      NOT NULL,
    at             timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    spacing        integer     NOT NULL,
    rows_done      bigint      NOT NULL,
    rows_updated   bigint      NOT NULL,
    wal_bytes      bigint      NOT NULL,
    worked_ms      bigint      NOT NULL,
    slept_ms       bigint      NOT NULL,
    waited_ms      jsonb,
    batch_ms       real,
    lag_bytes      bigint,
    PRIMARY KEY (job_id, at)
);
COMMENT ON TABLE backfill.sample IS 'How far a job was at a time: what it had done and taken in all. Written by one of its workers each ten seconds; of more than a thousand of a job every second one goes, and the next ones are twice as far apart.';
COMMENT ON COLUMN backfill.sample.job_id IS 'The job';
COMMENT ON COLUMN backfill.sample.at IS 'When';
COMMENT ON COLUMN backfill.sample.spacing IS 'How many seconds the next one is to be later';
COMMENT ON COLUMN backfill.sample.rows_done IS 'Rows passed so far';
COMMENT ON COLUMN backfill.sample.rows_updated IS 'Rows changed so far';
COMMENT ON COLUMN backfill.sample.wal_bytes IS 'WAL written so far, in bytes';
COMMENT ON COLUMN backfill.sample.worked_ms IS 'Time that its workers have spent in batches so far, in milliseconds';
COMMENT ON COLUMN backfill.sample.slept_ms IS 'Time that they have spent in pauses so far, in milliseconds';
COMMENT ON COLUMN backfill.sample.waited_ms IS 'Time that they have spent waiting so far, in milliseconds, by what for: an option''s name, or retry';
COMMENT ON COLUMN backfill.sample.batch_ms IS 'What the last batch took, in milliseconds; the longest of its workers''';
COMMENT ON COLUMN backfill.sample.lag_bytes IS 'WAL that the furthest-behind standby or slot lacked, in bytes, if that has a bound';

CREATE TABLE backfill.failed_row (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id          bigint      NOT NULL,
    attempt         integer     NOT NULL,
    relation        regclass    NOT NULL,
    relation_name   text        NOT NULL,
    key_columns     text[]      NOT NULL,
    key             text[]      NOT NULL,
    sqlstate        text        NOT NULL,
    message         text        NOT NULL,
    detail          text,
    hint            text,
    context         text,
    constraint_name text,
    at              timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX failed_row_job_id ON backfill.failed_row (job_id);
COMMENT ON TABLE backfill.failed_row IS 'Rows that were stepped over because of an error, each recorded in the transaction that did so';
COMMENT ON COLUMN backfill.failed_row.id IS 'In the order in which they failed';
COMMENT ON COLUMN backfill.failed_row.job_id IS 'The job';
COMMENT ON COLUMN backfill.failed_row.attempt IS 'The attempt in which it failed';
COMMENT ON COLUMN backfill.failed_row.relation IS 'The table, or the partition, that the row is in';
COMMENT ON COLUMN backfill.failed_row.relation_name IS 'What that was called';
COMMENT ON COLUMN backfill.failed_row.key_columns IS 'The columns of its key';
COMMENT ON COLUMN backfill.failed_row.key IS 'Its key';
COMMENT ON COLUMN backfill.failed_row.sqlstate IS 'SQLSTATE of the error';
COMMENT ON COLUMN backfill.failed_row.message IS 'Message of the error';
COMMENT ON COLUMN backfill.failed_row.detail IS 'Detail of the error';
COMMENT ON COLUMN backfill.failed_row.hint IS 'Hint of the error';
COMMENT ON COLUMN backfill.failed_row.context IS 'Context of the error';
COMMENT ON COLUMN backfill.failed_row.constraint_name IS 'The constraint that was violated, if it was one';
COMMENT ON COLUMN backfill.failed_row.at IS 'When';

CREATE FUNCTION backfill.guard() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'guard_wrapper';
COMMENT ON FUNCTION backfill.guard IS 'Internal: lets only the extension''s functions, and superusers, write to its tables';

CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.job
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.walk
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.slice
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.outcome
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.failed_row
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.verify_failure
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.region
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.leftover
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.setback
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.sample
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON backfill.event
    FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard();

CREATE FUNCTION backfill.plan(
    relation     regclass,
    batch_size   integer DEFAULT 1000,
    sleep_ms     integer DEFAULT 0,
    set_clause   text    DEFAULT NULL,
    where_clause text    DEFAULT NULL,
    name         text    DEFAULT NULL,
    options      jsonb   DEFAULT '{}',
    format       text    DEFAULT 'rows'
) RETURNS TABLE (section text, item text, value text, advice text)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 30 AS 'MODULE_PATHNAME', 'plan_wrapper';
COMMENT ON FUNCTION backfill.plan IS 'Tells what backfill.start with the same arguments would do: the walk, estimates of rows, time, WAL and growth, warnings with advice, and the statements. With format => ''json'' as one document. Changes nothing.';

CREATE FUNCTION backfill.preview(
    relation     regclass,
    batch_size   integer DEFAULT 1000,
    sleep_ms     integer DEFAULT 0,
    set_clause   text    DEFAULT NULL,
    where_clause text    DEFAULT NULL,
    name         text    DEFAULT NULL,
    options      jsonb   DEFAULT '{}',
    "limit"      integer DEFAULT 10
) RETURNS TABLE (key text, before json, after json, error text)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'preview_wrapper';
COMMENT ON FUNCTION backfill.preview IS 'Shows what backfill.start with the same arguments would make of some rows from all over the table, and which of them would fail. Changes nothing.';

CREATE FUNCTION backfill.rehearse(job_id bigint, rows integer DEFAULT 1000)
RETURNS TABLE (what text, tried bigint, failed bigint, ms_per_row double precision, wal_bytes_per_row double precision,
               dead_tuples bigint, error text)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'rehearse_wrapper';
COMMENT ON FUNCTION backfill.rehearse IS 'Updates some rows from all over a job''s table in real batches, with triggers and constraints, and rolls that back: what it takes for a row, and which rows fail. Writes WAL and leaves dead tuples.';

CREATE FUNCTION backfill.report(job_id bigint, format text DEFAULT 'text') RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'report_wrapper';
COMMENT ON FUNCTION backfill.report IS 'The record of a job: what was done, by whom, when, the call to repeat it, counts, time, growth, failed rows, timeline. As text, json, markdown or html, which has plots and is one file.';

CREATE FUNCTION backfill.procedure(job_id bigint, style text DEFAULT 'standalone', install boolean DEFAULT false) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'procedure_wrapper';
COMMENT ON FUNCTION backfill.procedure(bigint, text, boolean) IS 'A script that creates a procedure which does what the job does and needs nothing of this extension; with style "batch", a function that does one batch. With install, it is run at once.';

CREATE FUNCTION backfill.procedure(name text, style text DEFAULT 'standalone', install boolean DEFAULT false) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'procedure_named_wrapper';
COMMENT ON FUNCTION backfill.procedure(text, text, boolean) IS 'The same for the backfill of this name.';

CREATE FUNCTION backfill.approve(job_id bigint) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'approve_wrapper';
COMMENT ON FUNCTION backfill.approve IS 'Lets a job run that was started and waits for approval, where backfill.require_approval is on. Not for who started it, nor for its owner. Returns the state that results.';

CREATE FUNCTION backfill.require_completed(name text, verified boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'require_completed_wrapper';
COMMENT ON FUNCTION backfill.require_completed IS 'An error unless the backfill of this name has completed, without a failed row; with verified, unless it was found to be right since. For the next migration. Never waits.';

-- As in sql/set_not_null.sql.
CREATE FUNCTION backfill.set_not_null_statements(relation regclass, column_name name)
RETURNS TABLE (step integer, statement text, lock text, undo text)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 4 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- The name has to fit into 63 bytes.
    own constant text := 'backfill_not_null_' || CASE WHEN octet_length($2::text) > 45 THEN md5($2::text) ELSE $2::text END;
    brief constant text := 'ACCESS EXCLUSIVE, for a moment';
    reading constant text := 'SHARE UPDATE EXCLUSIVE, while it reads the table';
    t record;
    mine record;
    native text;
    pending text;
    proven boolean;
    alter_table text;
    drop_own text;
BEGIN
    IF $1 IS NULL OR $2 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('%s must not be NULL', CASE WHEN $1 IS NULL THEN 'relation' ELSE 'column_name' END),
            HINT = 'Name the table, and one column of it.';
    END IF;
    SELECT n.nspname, c.relname, c.relkind, a.attnum, a.attnotnull, a.atttypid INTO t
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.oid = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('there is no table with OID %s', $1::oid),
            HINT = 'It was dropped. Give the table by its name.';
    ELSIF t.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('%I.%I is not a table', t.nspname, t.relname),
            HINT = 'Only columns of tables and partitioned tables can be set NOT NULL in steps.';
    ELSIF t.attnum IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column',
            MESSAGE = format('column "%s" of relation "%s" does not exist', $2, t.relname),
            HINT = 'Give the name as it is stored: without quotes, and in lower case unless it was created in quotes.';
    END IF;

    alter_table := format('ALTER TABLE %I.%I ', t.nspname, t.relname);
    drop_own := alter_table || format('DROP CONSTRAINT %I', own);
    SELECT k.contype, k.convalidated, k.conislocal AND k.coninhcount = 0 AS droppable,
           k.contype = 'c' AND NOT k.connoinherit
               AND pg_get_expr(k.conbin, k.conrelid) = format('(%I IS NOT NULL)', $2) AS check_of_column INTO mine
    FROM pg_constraint k WHERE k.conrelid = $1 AND k.conname = own;
    IF mine.contype <> 'n' AND NOT mine.check_of_column THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = format('constraint "%s" of relation "%s" is not the one that this is to be done with', own, t.relname),
            HINT = format('It has to be CHECK (%I IS NOT NULL). Rename it.', $2);
    END IF;
    -- One that children don't have proves nothing of them.
    SELECT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = $1 AND k.contype = 'c' AND k.convalidated
                   AND NOT (k.connoinherit AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = $1))
                   AND pg_get_expr(k.conbin, k.conrelid) = format('(%I IS NOT NULL)', $2)) INTO proven;
    -- From PostgreSQL 18 on a column is marked as NOT NULL with a constraint that is not validated.
    SELECT k.conname INTO pending FROM pg_constraint k
    WHERE k.conrelid = $1 AND k.contype = 'n' AND k.conkey = ARRAY[t.attnum] AND NOT k.convalidated;

    step := 1;
    IF pending IS NOT NULL THEN
        statement := alter_table || format('VALIDATE CONSTRAINT %I', pending);
        lock := reading;
        RETURN NEXT;
        step := step + 1;
    ELSIF NOT t.attnotnull AND NOT proven AND current_setting('server_version_num')::integer >= 180000 THEN
        -- The server's own way takes a strong lock once, not three times, and leaves the name that SET NOT NULL would.
        native := format('%s_%s_not_null', t.relname, $2);
        IF octet_length(native) > 63 OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = $1 AND k.conname = native) THEN
            native := own;
        END IF;
        IF native = own AND mine.contype IS NOT NULL THEN
            native := left(own, 40) || '_' || t.attnum;
        END IF;
        undo := alter_table || format('DROP CONSTRAINT %I', native);
        statement := alter_table || format('ADD CONSTRAINT %I NOT NULL %I NOT VALID', native, $2);
        lock := brief;
        RETURN NEXT;
        step := step + 1;
        statement := alter_table || format('VALIDATE CONSTRAINT %I', native);
        lock := reading;
        RETURN NEXT;
        step := step + 1;
    ELSIF NOT t.attnotnull THEN
        -- For a composite value IS NOT NULL says something else, and PostgreSQL does not take it as a proof.
        IF NOT proven AND EXISTS (
            WITH RECURSIVE base AS (
                SELECT y.typtype, y.typbasetype FROM pg_type y WHERE y.oid = t.atttypid
                UNION ALL SELECT y.typtype, y.typbasetype FROM base b JOIN pg_type y ON b.typtype = 'd' AND y.oid = b.typbasetype
            ) SELECT FROM base WHERE typtype = 'c') THEN
            RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                MESSAGE = format('column "%s" of relation "%s" is of a composite type, which cannot be set NOT NULL in steps', $2, t.relname),
                HINT = 'Before PostgreSQL 18 there is only ALTER TABLE ... SET NOT NULL, which keeps everybody out while it reads the table.';
        END IF;
        lock := brief;
        -- What a parent has handed down can be dropped there only.
        undo := CASE WHEN mine.contype IS NULL OR mine.droppable THEN drop_own END;
        IF mine.contype IS NULL AND NOT proven THEN
            statement := alter_table || format('ADD CONSTRAINT %I CHECK (%I IS NOT NULL) NOT VALID', own, $2);
            RETURN NEXT;
            step := step + 1;
        END IF;
        IF NOT proven THEN
            statement := alter_table || format('VALIDATE CONSTRAINT %I', own);
            lock := reading;
            RETURN NEXT;
            step := step + 1;
        END IF;
        undo := NULL;
        lock := brief;
        statement := alter_table || format('ALTER COLUMN %I SET NOT NULL', $2);
        RETURN NEXT;
        step := step + 1;
        IF mine.contype IS NULL AND NOT proven THEN
            statement := drop_own;
            RETURN NEXT;
        END IF;
    END IF;
    -- Ours, of this time or of an earlier one that did not come to its end.
    IF mine.check_of_column AND mine.droppable THEN
        undo := NULL;
        lock := brief;
        statement := drop_own;
        RETURN NEXT;
    END IF;
END
$$;
COMMENT ON FUNCTION backfill.set_not_null_statements IS 'The statements, one transaction each, that set a column NOT NULL while the table is in use: what is left to be done, so none if it is NOT NULL. undo takes back what has been done so far. Changes nothing.';

CREATE PROCEDURE backfill.outside_block(called text)
LANGUAGE c AS 'MODULE_PATHNAME', 'outside_block_wrapper';
COMMENT ON PROCEDURE backfill.outside_block IS 'Internal: an error where the procedure that calls it may not commit';

-- A procedure that commits can have no SET clause: it pins the path anew in each of its transactions, before all else.
CREATE PROCEDURE backfill.set_not_null(
    relation        regclass,
    column_name     name,
    lock_timeout_ms integer DEFAULT 1000,
    retries         integer DEFAULT 30
) LANGUAGE plpgsql AS $$
DECLARE
    todo text;
    undo text;
    undo_step text;
    done text;
    violation text;
    late boolean;
    tries integer := 0;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    CALL backfill.outside_block('backfill.set_not_null');
    IF lock_timeout_ms IS NULL OR lock_timeout_ms < 1 OR retries IS NULL OR retries < 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'lock_timeout_ms must be at least 1, and retries at least 0',
            HINT = 'Others wait behind each try for lock_timeout_ms at most; after it, it lets them pass and tries again, so many times.';
    END IF;
    IF NOT (SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class c WHERE c.oid = relation) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = pg_catalog.format('must be owner of table %s', relation),
            HINT = 'It runs ALTER TABLE with your rights: SET ROLE to the owner.';
    END IF;
    LOOP
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        PERFORM pg_catalog.set_config('lock_timeout', lock_timeout_ms::text, true);
        IF violation IS NULL THEN
            SELECT s.statement, s.undo INTO todo, undo_step
            FROM backfill.set_not_null_statements(relation, column_name) s ORDER BY s.step LIMIT 1;
            EXIT WHEN NOT FOUND;
            IF todo = done THEN
                RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                    MESSAGE = format('"%s" did not bring column "%s" of %s any further', todo, column_name, relation),
                    HINT = 'Somebody else takes back what is done here. Call it again when they are through.';
            END IF;
        ELSE
            todo := undo;
        END IF;
        late := false;
        IF tries = 0 THEN
            RAISE NOTICE USING MESSAGE = todo;
        END IF;
        BEGIN
            EXECUTE todo;
            done := todo;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN late := true;
            -- Another call was faster.
            WHEN duplicate_object OR undefined_object THEN
                IF tries >= least(retries, 5) THEN
                    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM,
                        HINT = 'A child of the table has another constraint of that name: rename it.';
                END IF;
                late := true;
            WHEN check_violation OR not_null_violation THEN violation := SQLERRM;
        END;
        COMMIT;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        IF late THEN
            tries := tries + 1;
            IF tries > retries THEN
                RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
                    MESSAGE = format('the lock for "%s" was not to be had in %s tries of %s ms', todo, tries, lock_timeout_ms),
                    HINT = 'pg_locks shows who uses the table. Call it again to go on from here.'
                        || COALESCE(' Or take back what was done: ' || undo || ';', '');
            END IF;
            -- Others get their turn; 0.1 s at first, 5 s at most.
            PERFORM pg_sleep(least(0.1 * 2 ^ least(tries - 1, 10), 5));
        ELSE
            undo := COALESCE(undo_step, undo);
            EXIT WHEN violation IS NOT NULL AND (undo IS NULL OR todo = undo);
            tries := 0;
        END IF;
    END LOOP;
    IF violation IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'not_null_violation',
            MESSAGE = format('column "%s" of %s cannot be set NOT NULL: rows of it are NULL', column_name, relation),
            DETAIL = violation || CASE WHEN undo IS NULL THEN '.' ELSE '; it was dropped again.' END,
            HINT = format('Look at them: SELECT * FROM %s WHERE %I IS NULL. Rows that come in with NULL need a DEFAULT, or a change of the application.', relation, column_name);
    END IF;
END
$$;
COMMENT ON PROCEDURE backfill.set_not_null IS 'Sets a column NOT NULL while the table is in use: in steps of one transaction each, with lock timeouts and retries. Nothing is done where it is NOT NULL. Not within a transaction block.';

CREATE FUNCTION backfill.verify(
    job_id       bigint,
    check_clause text    DEFAULT NULL,
    recompute    boolean DEFAULT false,
    options      jsonb   DEFAULT '{}'
) RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'verify_wrapper';
COMMENT ON FUNCTION backfill.verify IS 'Starts a job at commit that looks, and changes nothing: at rows of which check_clause is not true, or which set_clause would change (recompute), or of which where_clause is true still. Returns its id; the verdict is in the note of backfill.progress, the rows in backfill.verify_failures.';

CREATE FUNCTION backfill.reapply(job_id bigint) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'reapply_wrapper';
COMMENT ON FUNCTION backfill.reapply IS 'Starts a job at commit that does those rows again which the last verification of a job has found to be wrong. Returns its id; NULL: there are none.';

CREATE FUNCTION backfill.retry_failed(job_id bigint) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'retry_failed_wrapper';
COMMENT ON FUNCTION backfill.retry_failed IS 'Lets a running, completed or failed job try the rows of backfill.failed_rows again, once it has done all others. Returns how many.';

CREATE OR REPLACE VIEW backfill.progress WITH (security_barrier) AS
WITH locks AS MATERIALIZED (
    -- 7701: held by each worker of a job; 7702: a worker slot of the server; 7704: a slice; 7705: by one that decides for
    -- the whole job, or records its end (src/pg/lock.rs)
    SELECT l.database, (l.classid::bigint << 32) | l.objid::bigint AS id, l.objsubid, l.pid
    FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid IN (7701, 7702, 7704, 7705) AND l.granted
), here AS (
    SELECT l.id, l.objsubid, l.pid
    FROM locks l
    JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
), live AS (
    SELECT h.id AS job_id, (pg_catalog.count(*) FILTER (WHERE h.objsubid = 7701))::integer AS workers,
           pg_catalog.count(*)::integer AS attending
    FROM here h WHERE h.objsubid IN (7701, 7705) GROUP BY h.id
), slots AS (
    SELECT pg_catalog.count(*)::integer AS used FROM locks l WHERE l.objsubid = 7702
), going AS MATERIALIZED (
    -- Jobs that may get further. Of the others, the end has the sums over their slices.
    SELECT y.job_id AS id FROM backfill.walk y WHERE NOT y.summed
), walked AS (
    -- Each slice's share never shrinks, and weights are fixed: nor does the sum.
    SELECT sl.job_id,
           pg_catalog.sum(sl.weight * COALESCE(c.percent, 0)) FILTER (WHERE sl.weight > 0)
               / NULLIF(pg_catalog.sum(sl.weight), 0) AS percent,
           pg_catalog.sum(c.rows_done)::bigint AS rows_done,
           pg_catalog.sum(CASE WHEN sl.done THEN c.rows_done ELSE c.rows_total END)::bigint AS rows_total,
           pg_catalog.sum(GREATEST(c.rows_total - c.rows_done, 0)) FILTER (WHERE NOT sl.done) AS rows_left,
           pg_catalog.sum(c.rows_updated)::bigint AS rows_updated,
           pg_catalog.sum(c.rows_hot)::bigint AS rows_hot,
           pg_catalog.sum(c.rows_per_second) FILTER (WHERE held.id IS NOT NULL) AS rows_per_second,
           pg_catalog.min(c.batch_rows) FILTER (WHERE held.id IS NOT NULL) AS batch_rows,
           pg_catalog.max(c.batch_ms) FILTER (WHERE held.id IS NOT NULL) AS batch_ms,
           pg_catalog.max(c.batch_ms_p95) FILTER (WHERE held.id IS NOT NULL) AS batch_ms_p95,
           pg_catalog.sum(c.worked_ms)::bigint AS worked_ms,
           pg_catalog.sum(c.slept_ms)::bigint AS slept_ms,
           COALESCE(pg_catalog.sum(CASE WHEN c.waited_ms IS NOT NULL THEN
               (SELECT pg_catalog.sum(e.value::bigint) FROM pg_catalog.jsonb_each_text(c.waited_ms) e) END), 0)::bigint AS waited_ms,
           pg_catalog.sum(c.wal_bytes)::bigint AS wal_bytes,
           pg_catalog.bool_and(c.past_estimate) FILTER (WHERE NOT sl.done) AS past_estimate,
           pg_catalog.string_agg(DISTINCT c.note, '; ') FILTER (WHERE held.id IS NOT NULL) AS note,
           pg_catalog.string_agg(DISTINCT pg_catalog.concat(c.waits_for, ', next at ',
                                                            pg_catalog.to_char(c.waits_until, 'HH24:MI:SS')), '; ')
               FILTER (WHERE held.id IS NOT NULL AND c.waits_for IS NOT NULL) AS waits,
           pg_catalog.max(c.at) AS at
    FROM going g
    -- Job by job: those that have ended have many slices, too.
    CROSS JOIN LATERAL (SELECT i.id, i.job_id, i.weight, i.done FROM backfill.slice i WHERE i.job_id = g.id OFFSET 0) sl
    CROSS JOIN LATERAL (
        SELECT k.rows_done, k.rows_updated, k.rows_hot, k.rows_total, k.percent, k.past_estimate, k.rows_per_second,
               k.batch_rows, k.batch_ms, k.batch_ms_p95, k.worked_ms, k.slept_ms, k.waited_ms, k.wal_bytes,
               k.note, k.waits_for, k.waits_until, k.at
        FROM backfill.checkpoint k
        WHERE k.slice_id = sl.id
        ORDER BY k.seq DESC LIMIT 1
    ) c
    LEFT JOIN here held ON held.objsubid = 7704 AND held.id = sl.id AND NOT sl.done
    GROUP BY sl.job_id
), held_up AS (
    SELECT t.job_id,
           pg_catalog.string_agg(DISTINCT pg_catalog.concat(t.waits_for, ', next at ' || pg_catalog.to_char(t.waits_until, 'HH24:MI:SS'),
                                                            CASE WHEN t.waits_until IS NULL THEN ', since ' || pg_catalog.to_char(t.since, 'HH24:MI:SS') END),
                                 '; ') AS waits,
           pg_catalog.min(t.since) AS since
    FROM backfill.setback t
    JOIN here worker ON worker.objsubid = 7701 AND worker.id = t.job_id AND worker.pid = t.pid
    GROUP BY t.job_id
)
SELECT j.id AS job_id,
       j.name,
       j.relation,
       s.state,
       CASE WHEN s.state = 'completed' THEN 100.0
            WHEN COALESCE(p.percent, o.percent) > 99.9 THEN 99.9
            ELSE pg_catalog.round(COALESCE(p.percent, o.percent)::numeric, 1) END AS percent,
       COALESCE(p.rows_done, o.rows_done, 0) AS rows_done,
       CASE WHEN s.state = 'completed' THEN COALESCE(p.rows_done, o.rows_done, 0) ELSE COALESCE(p.rows_total, o.rows_total) END AS rows_total,
       COALESCE(p.rows_updated, o.rows_updated, 0) AS rows_updated,
       f.rows AS rows_failed,
       CASE WHEN s.state = 'running' AND l.workers > 0 THEN pg_catalog.round(p.rows_per_second::numeric, 1) END AS rows_per_second,
       CASE WHEN s.state = 'running' AND l.workers > 0 THEN
            CASE WHEN p.past_estimate THEN interval '0'
                 WHEN p.rows_per_second > 0 THEN pg_catalog.make_interval(
                     secs => pg_catalog.ceil(p.rows_left / p.rows_per_second)) END
       END AS eta,
       j.batch_size,
       j.sleep_ms,
       COALESCE(l.workers, 0) AS workers,
       COALESCE(CASE WHEN s.state = 'pending' AND j.asked_by IS NOT NULL
                     THEN pg_catalog.concat('approval: SELECT backfill.approve(', j.id, ')') END,
                backfill.waiting_for(s.state, j.id, COALESCE(l.attending, 0), slots.used,
                                     extract(epoch FROM pg_catalog.clock_timestamp() - GREATEST(p.at, w.at, j.wished_at))::double precision,
                                     j.system_identifier, j.database_oid),
                CASE WHEN s.state = 'running' AND l.workers = 0 THEN 'its worker, which is ending'
                     WHEN s.state IN ('running', 'pausing', 'cancelling') THEN COALESCE(b.waits, p.waits) END) AS waiting_for,
       CASE WHEN o.outcome = 'failed' THEN
            CASE WHEN COALESCE(pg_catalog.has_table_privilege(j.relation, 'SELECT') AND NOT pg_catalog.row_security_active(j.relation), pg_catalog.pg_has_role(j.owner, 'USAGE'))
                 THEN pg_catalog.concat(o.message, ' (SQLSTATE ', o.sqlstate, ')', ' in batch ' || o.batch,
                                        E'\nDETAIL: ' || o.detail, E'\nHINT: ' || o.hint, E'\nCONTEXT: ' || o.context)
                 ELSE pg_catalog.concat('SQLSTATE ', o.sqlstate, ' (the message may hold row data: it takes SELECT on the relation)') END
       END AS last_error,
       j.started_at,
       GREATEST(p.at, w.at, o.at, j.wished_at) AS updated_at,
       CASE WHEN s.state IN ('completed', 'failed') THEN o.at
            WHEN s.state = 'cancelled' THEN COALESCE(o.at, j.wished_at) END AS finished_at,
       j.owner,
       j.set_clause,
       j.where_clause,
       j.key_columns,
       COALESCE((j.options ->> 'workers')::integer, 1) AS workers_wanted,
       CASE WHEN s.state IN ('running', 'pausing', 'cancelling') THEN p.batch_rows END AS batch_rows,
       pg_catalog.round(COALESCE(p.rows_hot, o.rows_hot) * 100.0 / NULLIF(COALESCE(p.rows_updated, o.rows_updated), 0), 1) AS hot_percent,
       CASE WHEN NOT s.state IN ('pending', 'completed', 'cancelled') THEN w.phase END AS phase,
       NULLIF(pg_catalog.concat_ws('; ', CASE WHEN f.rows > 0 THEN pg_catalog.concat(f.rows, CASE f.rows WHEN 1 THEN ' row' ELSE ' rows' END,
                                                                           ' failed: see backfill.failed_rows') END,
                                   p.note, NULLIF(pg_catalog.array_to_string(w.notes, '; '), '')), '') AS note,
       j.attempt,
       CASE WHEN s.state = 'running' AND l.workers > 0 THEN
            CASE WHEN p.past_estimate THEN 'due'
                 WHEN p.rows_left IS NULL OR p.rows_per_second > 0 IS NOT TRUE THEN 'measuring' END END AS eta_state,
       CASE WHEN s.state IN ('running', 'pausing', 'cancelling') THEN b.since END AS waiting_since,
       pg_catalog.round(COALESCE(p.worked_ms, o.worked_ms, 0) / 1000.0, 1) AS seconds_working,
       pg_catalog.round(COALESCE(p.slept_ms, o.slept_ms, 0) / 1000.0, 1) AS seconds_sleeping,
       pg_catalog.round(COALESCE(p.waited_ms, o.waited_ms, 0) / 1000.0, 1) AS seconds_throttled,
       pg_catalog.round(p.batch_ms::numeric, 1) AS batch_ms,
       pg_catalog.round(p.batch_ms_p95::numeric, 1) AS batch_ms_p95,
       COALESCE(p.wal_bytes, o.wal_bytes, 0) AS wal_bytes,
       CASE WHEN j.options ? 'settings' THEN
            pg_catalog.jsonb_set(j.options, '{settings}', (SELECT pg_catalog.jsonb_object_agg(k, '...') FROM pg_catalog.jsonb_object_keys(j.options -> 'settings') k))
            ELSE j.options END AS options,
       CASE WHEN j.verifies IS NOT NULL THEN 'verification' WHEN j.options @> '{"dry_run": true}' THEN 'dry run' ELSE 'backfill' END AS kind,
       j.verifies
FROM backfill.job j
CROSS JOIN slots
LEFT JOIN backfill.outcome o ON o.job_id = j.id AND o.attempt >= j.retry_attempt
LEFT JOIN live l ON l.job_id = j.id
LEFT JOIN walked p ON p.job_id = j.id
LEFT JOIN held_up b ON b.job_id = j.id
LEFT JOIN backfill.walk w ON w.job_id = j.id
CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS rows FROM backfill.failed_row r WHERE r.job_id = j.id) f
CROSS JOIN LATERAL (
    -- OFFSET 0: else it is called for each place above that asks for the state.
    SELECT backfill.state_of(j.wish, j.attempt, o.outcome, o.attempt, COALESCE(l.workers, 0) > 0,
                             j.system_identifier, j.database_oid) AS state
    OFFSET 0
) s
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW backfill.progress IS 'One row per job: its state, how far it is, how fast, and what it waits for';
COMMENT ON COLUMN backfill.progress.job_id IS 'The job, as pause, resume, cancel and the others take it';
COMMENT ON COLUMN backfill.progress.name IS 'The name given at define or start';
COMMENT ON COLUMN backfill.progress.relation IS 'The table';
COMMENT ON COLUMN backfill.progress.state IS 'pending, running, pausing, paused, cancelling, cancelled, completed or failed';
COMMENT ON COLUMN backfill.progress.percent IS 'Share of rows passed; NULL while there is no estimate, 100 only when completed, never backwards';
COMMENT ON COLUMN backfill.progress.rows_done IS 'Rows passed by the walk, whether or not they matched the WHERE clause';
COMMENT ON COLUMN backfill.progress.rows_total IS 'Estimate of all rows of the walk, raised when it proves low; NULL: no estimate yet';
COMMENT ON COLUMN backfill.progress.rows_updated IS 'Rows changed; of a dry run, those that would change; of a verification, those that are wrong';
COMMENT ON COLUMN backfill.progress.rows_failed IS 'Rows stepped over because of an error: see backfill.failed_rows';
COMMENT ON COLUMN backfill.progress.rows_per_second IS 'Rows passed per second over the last minute of running';
COMMENT ON COLUMN backfill.progress.eta IS 'Time left at this rate; NULL: no estimate yet; zero: more rows than estimated were met, the end is due';
COMMENT ON COLUMN backfill.progress.batch_size IS 'Rows per commit, at most';
COMMENT ON COLUMN backfill.progress.sleep_ms IS 'Pause between two commits, in milliseconds';
COMMENT ON COLUMN backfill.progress.workers IS 'Workers that hold the job now';
COMMENT ON COLUMN backfill.progress.waiting_for IS 'What the job waits for, if it does, and what to do about it';
COMMENT ON COLUMN backfill.progress.last_error IS 'The last failure: message, SQLSTATE, what the batch was about (a range of keys or pages); in full only with SELECT on the relation';
COMMENT ON COLUMN backfill.progress.started_at IS 'When the job was started';
COMMENT ON COLUMN backfill.progress.updated_at IS 'When the job last got further or was changed';
COMMENT ON COLUMN backfill.progress.finished_at IS 'When the job completed, failed or was cancelled';
COMMENT ON COLUMN backfill.progress.owner IS 'The role that defined the job and with whose rights it runs';
COMMENT ON COLUMN backfill.progress.set_clause IS 'The SET list';
COMMENT ON COLUMN backfill.progress.where_clause IS 'The WHERE clause, if any';
COMMENT ON COLUMN backfill.progress.key_columns IS 'The columns that order the walk, unless it goes in physical order, which note says';
COMMENT ON COLUMN backfill.progress.workers_wanted IS 'Workers asked for with the option workers';
COMMENT ON COLUMN backfill.progress.batch_rows IS 'Rows per commit in force now: batch_size, or less with target_ms or waves';
COMMENT ON COLUMN backfill.progress.hot_percent IS 'Share of the updates that needed no new entry in any index (heap-only tuples)';
COMMENT ON COLUMN backfill.progress.phase IS 'What is being done: walk, another pass of it, or the vacuum and analyze after the last batch';
COMMENT ON COLUMN backfill.progress.note IS 'What the owner should know: why waves rest, what was left out';
COMMENT ON COLUMN backfill.progress.attempt IS 'How often the job was started or resumed';
COMMENT ON COLUMN backfill.progress.eta_state IS 'Why eta is NULL or zero: measuring, or due';
COMMENT ON COLUMN backfill.progress.waiting_since IS 'Since when the job gives way to a signal, or waits for a table that is locked';
COMMENT ON COLUMN backfill.progress.seconds_working IS 'Time spent in batches, summed over the job''s workers';
COMMENT ON COLUMN backfill.progress.seconds_sleeping IS 'Time spent in the pauses that sleep_ms asks for, summed over the job''s workers';
COMMENT ON COLUMN backfill.progress.seconds_throttled IS 'Time spent waiting for signals, and before batches were tried again, summed over the job''s workers';
COMMENT ON COLUMN backfill.progress.batch_ms IS 'What the last batch took, in milliseconds; of several workers, the longest';
COMMENT ON COLUMN backfill.progress.batch_ms_p95 IS 'What 95 per cent of a worker''s last 200 batches took at most, in milliseconds; of several workers, the longest';
COMMENT ON COLUMN backfill.progress.wal_bytes IS 'WAL that the job''s workers have written, in bytes';
COMMENT ON COLUMN backfill.progress.options IS 'The options of the job, without the values of settings, which may be secrets';
COMMENT ON COLUMN backfill.progress.kind IS 'What the job does: backfill, or it only reads: dry run, or verification';
COMMENT ON COLUMN backfill.progress.verifies IS 'Of a verification: the job whose rows it looks at';

CREATE VIEW backfill.failed_rows WITH (security_barrier) AS
SELECT f.id AS failed_row_id, f.job_id, j.name, f.relation, f.key_columns,
       CASE WHEN r.may_read THEN f.key END AS key,
       f.sqlstate,
       CASE WHEN r.may_read THEN f.message ELSE '(may hold row data: it takes SELECT on the relation)' END AS message,
       CASE WHEN r.may_read THEN f.detail END AS detail,
       CASE WHEN r.may_read THEN f.hint END AS hint,
       CASE WHEN r.may_read THEN f.context END AS context,
       f.constraint_name, f.at
FROM backfill.failed_row f
JOIN backfill.job j ON j.id = f.job_id
CROSS JOIN LATERAL (
    SELECT COALESCE(pg_catalog.has_table_privilege(f.relation, 'SELECT') AND NOT pg_catalog.row_security_active(f.relation), pg_catalog.pg_has_role(j.owner, 'USAGE')) AS may_read
) r
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW backfill.failed_rows IS 'Rows that a job has stepped over because of an error, as max_failed_rows lets it; in full only with SELECT on the relation';
COMMENT ON COLUMN backfill.failed_rows.failed_row_id IS 'In the order in which they failed';
COMMENT ON COLUMN backfill.failed_rows.job_id IS 'The job';
COMMENT ON COLUMN backfill.failed_rows.name IS 'The job''s name';
COMMENT ON COLUMN backfill.failed_rows.relation IS 'The table, or the partition, that the row is in';
COMMENT ON COLUMN backfill.failed_rows.key_columns IS 'The columns of its key';
COMMENT ON COLUMN backfill.failed_rows.key IS 'Its key, as text';
COMMENT ON COLUMN backfill.failed_rows.sqlstate IS 'SQLSTATE of the error';
COMMENT ON COLUMN backfill.failed_rows.message IS 'Message of the error';
COMMENT ON COLUMN backfill.failed_rows.detail IS 'Detail of the error';
COMMENT ON COLUMN backfill.failed_rows.hint IS 'Hint of the error';
COMMENT ON COLUMN backfill.failed_rows.context IS 'Where it came up: function, trigger';
COMMENT ON COLUMN backfill.failed_rows.constraint_name IS 'The constraint that was violated, if it was one';
COMMENT ON COLUMN backfill.failed_rows.at IS 'When';

CREATE VIEW backfill.verify_failures WITH (security_barrier) AS
SELECT f.id AS verify_failure_id, f.job_id AS verification_id, j.verifies AS job_id, f.relation, f.key_columns,
       CASE WHEN COALESCE(pg_catalog.has_table_privilege(f.relation, 'SELECT') AND NOT pg_catalog.row_security_active(f.relation), pg_catalog.pg_has_role(j.owner, 'USAGE')) THEN f.key END AS key,
       f.at
FROM backfill.verify_failure f
JOIN backfill.job j ON j.id = f.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW backfill.verify_failures IS 'Rows that a verification has found to be wrong: see backfill.verify, and backfill.reapply, which does them again';
COMMENT ON COLUMN backfill.verify_failures.verify_failure_id IS 'In the order in which they were found';
COMMENT ON COLUMN backfill.verify_failures.verification_id IS 'The verification, a job of its own';
COMMENT ON COLUMN backfill.verify_failures.job_id IS 'The job that was verified';
COMMENT ON COLUMN backfill.verify_failures.relation IS 'The table, or the partition, that the row is in';
COMMENT ON COLUMN backfill.verify_failures.key_columns IS 'The columns of its key; ctid, its place at the time, where the table has none';
COMMENT ON COLUMN backfill.verify_failures.key IS 'Its key, as text; only with SELECT on the relation';
COMMENT ON COLUMN backfill.verify_failures.at IS 'When it was found';

CREATE VIEW backfill.skipped_rows WITH (security_barrier) AS
SELECT s.job_id, j.name, s.relation, s.key_columns,
       CASE WHEN COALESCE(pg_catalog.has_table_privilege(s.relation, 'SELECT') AND NOT pg_catalog.row_security_active(s.relation), pg_catalog.pg_has_role(j.owner, 'USAGE')) THEN l.key END AS key,
       l.at
FROM backfill.leftover l
JOIN backfill.slice s ON s.id = l.slice_id
JOIN backfill.job j ON j.id = s.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW backfill.skipped_rows IS 'Rows that a job has passed and will come back to: others had them locked (option locked_rows), or backfill.retry_failed tries them again';
COMMENT ON COLUMN backfill.skipped_rows.job_id IS 'The job';
COMMENT ON COLUMN backfill.skipped_rows.name IS 'The job''s name';
COMMENT ON COLUMN backfill.skipped_rows.relation IS 'The table, or the partition, that the row is in';
COMMENT ON COLUMN backfill.skipped_rows.key_columns IS 'The columns of its key';
COMMENT ON COLUMN backfill.skipped_rows.key IS 'Its key, as text; only with SELECT on the relation';
COMMENT ON COLUMN backfill.skipped_rows.at IS 'When it was passed';

CREATE OR REPLACE FUNCTION backfill.status(job_id bigint) RETURNS backfill.progress
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT backfill.visible_job($1);
    SELECT p FROM backfill.progress p WHERE p.job_id OPERATOR(pg_catalog.=) $1
$$;

COMMENT ON COLUMN backfill.events.event IS 'define, start, approve, pause, resume, cancel, alter, retry failed rows (by calls); worker started, worker left, worker stopped, walk by key, paused, cancelled, completed, failed (by the workers)';

-- New tables and views only: what the DBA has granted on the others is his.
CREATE VIEW backfill.samples WITH (security_barrier) AS
SELECT s.job_id, j.name, s.at,
       pg_catalog.round(t.seconds, 1) AS interval_seconds,
       s.rows_done, s.rows_updated,
       pg_catalog.round((s.rows_done - s.rows_before) / NULLIF(t.seconds, 0), 1) AS rows_per_second,
       pg_catalog.round(s.batch_ms::numeric, 1) AS batch_ms,
       s.wal_bytes - s.wal_before AS wal_bytes,
       pg_catalog.round((s.worked_ms - s.worked_before) / 1000.0, 1) AS seconds_working,
       pg_catalog.round((s.slept_ms - s.slept_before) / 1000.0, 1) AS seconds_sleeping,
       COALESCE(w.seconds, 0) AS seconds_throttled,
       w.by_signal AS throttled_by,
       s.lag_bytes
FROM (
    SELECT p.job_id, p.at, p.rows_done, p.rows_updated, p.wal_bytes, p.worked_ms, p.slept_ms, p.waited_ms, p.batch_ms, p.lag_bytes,
           pg_catalog.lag(p.at) OVER jobs AS at_before, pg_catalog.lag(p.rows_done) OVER jobs AS rows_before,
           pg_catalog.lag(p.wal_bytes) OVER jobs AS wal_before, pg_catalog.lag(p.worked_ms) OVER jobs AS worked_before,
           pg_catalog.lag(p.slept_ms) OVER jobs AS slept_before, pg_catalog.lag(p.waited_ms) OVER jobs AS waited_before
    FROM backfill.sample p WINDOW jobs AS (PARTITION BY p.job_id ORDER BY p.at)
) s
JOIN backfill.job j ON j.id = s.job_id
CROSS JOIN LATERAL (SELECT extract(epoch FROM s.at - s.at_before) AS seconds) t
LEFT JOIN LATERAL (
    SELECT pg_catalog.sum(d.seconds) AS seconds,
           pg_catalog.jsonb_object_agg(d.key, d.seconds) FILTER (WHERE d.seconds > 0) AS by_signal
    FROM (SELECT e.key, pg_catalog.round((e.value::bigint - COALESCE((s.waited_before ->> e.key)::bigint, 0)) / 1000.0, 1) AS seconds
          FROM pg_catalog.jsonb_each_text(s.waited_ms) e) d
) w ON true
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW backfill.samples IS 'The history of jobs, for a plot: a row each ten seconds of running, or more seldom in jobs that run for hours';
COMMENT ON COLUMN backfill.samples.job_id IS 'The job';
COMMENT ON COLUMN backfill.samples.name IS 'The job''s name';
COMMENT ON COLUMN backfill.samples.at IS 'When the interval ended';
COMMENT ON COLUMN backfill.samples.interval_seconds IS 'Length of the interval: the time since the job''s sample before, in which all the others below were measured; NULL in the first';
COMMENT ON COLUMN backfill.samples.rows_done IS 'Rows passed so far';
COMMENT ON COLUMN backfill.samples.rows_updated IS 'Rows changed so far';
COMMENT ON COLUMN backfill.samples.rows_per_second IS 'Rows passed per second';
COMMENT ON COLUMN backfill.samples.batch_ms IS 'What the last batch took, in milliseconds; of several workers, the longest';
COMMENT ON COLUMN backfill.samples.wal_bytes IS 'WAL written by the job, in bytes';
COMMENT ON COLUMN backfill.samples.seconds_working IS 'Time that its workers have spent in batches; summed over its workers, like the others of time';
COMMENT ON COLUMN backfill.samples.seconds_sleeping IS 'Time spent in the pauses that sleep_ms asks for';
COMMENT ON COLUMN backfill.samples.seconds_throttled IS 'Time spent waiting for signals, and before batches were tried again';
COMMENT ON COLUMN backfill.samples.throttled_by IS 'That time by what for: the option of the signal, or retry';
COMMENT ON COLUMN backfill.samples.lag_bytes IS 'WAL that the furthest-behind standby or slot lacked at the end, in bytes; NULL where no bound is set, or there is none';

-- A line a job, 80 columns wide in psql: what is wide in a terminal counts as two columns, what would break the
-- line is a blank.
CREATE VIEW backfill.dashboard WITH (security_barrier) AS
SELECT CASE WHEN n.job ~ '[^\u0001-\u07FF]' THEN pg_catalog.left(n.job, 5) ELSE pg_catalog.left(n.job, 11) END AS job,
       CASE WHEN n.relation ~ '[^\u0001-\u07FF]' THEN pg_catalog.left(n.relation, 5) ELSE pg_catalog.left(n.relation, 10) END AS "table",
       CASE WHEN p.percent IS NULL THEN pg_catalog.repeat(b.empty, 10) || '   ?%'
            ELSE pg_catalog.repeat(b.full, f.tenths) || pg_catalog.repeat(b.empty, 10 - f.tenths)
                 || pg_catalog.lpad(pg_catalog.trunc(p.percent)::text, 4) || '%' END AS done,
       CASE WHEN p.rows_per_second >= 9950000 THEN pg_catalog.round(p.rows_per_second / 1000000) || 'M/s'
            WHEN p.rows_per_second >= 999500 THEN pg_catalog.round(p.rows_per_second / 1000000, 1) || 'M/s'
            WHEN p.rows_per_second >= 9950 THEN pg_catalog.round(p.rows_per_second / 1000) || 'k/s'
            WHEN p.rows_per_second >= 999.5 THEN pg_catalog.round(p.rows_per_second / 1000, 1) || 'k/s'
            ELSE pg_catalog.round(p.rows_per_second) || '/s' END AS rate,
       CASE WHEN p.eta_state = 'due' THEN 'due' WHEN p.eta_state = 'measuring' THEN '...'
            WHEN e.seconds >= 8640000 THEN '>99d'
            WHEN e.seconds >= 86400 THEN pg_catalog.concat(e.seconds / 86400, 'd', e.seconds % 86400 / 3600, 'h')
            WHEN e.seconds >= 3600 THEN pg_catalog.concat(e.seconds / 3600, 'h', e.seconds % 3600 / 60, 'm')
            WHEN e.seconds >= 60 THEN pg_catalog.concat(e.seconds / 60, 'm', e.seconds % 60, 's')
            ELSE e.seconds || 's' END AS eta,
       CASE WHEN p.state <> 'running' THEN p.state
            WHEN p.waiting_for IS NULL THEN CASE WHEN p.phase LIKE 'walk%' OR p.phase IS NULL THEN 'running' ELSE pg_catalog.split_part(p.phase, ' ', 1) END
            WHEN p.waiting_for LIKE 'a lock%' THEN 'lock'
            WHEN p.waiting_for LIKE '%: %' THEN pg_catalog.left(pg_catalog.regexp_replace(pg_catalog.split_part(p.waiting_for, ':', 1), '^(max_|yield_to_)', ''), 15)
            ELSE pg_catalog.left(p.waiting_for, 15) END AS doing
FROM backfill.progress p
CROSS JOIN LATERAL (
    SELECT pg_catalog.regexp_replace(pg_catalog.concat_ws(' ', p.job_id, p.name), '[[:cntrl:]]', ' ', 'g') AS job,
           pg_catalog.regexp_replace(COALESCE((SELECT c.relname FROM pg_catalog.pg_class c WHERE c.oid = p.relation), '(dropped)'),
                                     '[[:cntrl:]]', ' ', 'g') AS relation
) n
CROSS JOIN LATERAL (SELECT extract(epoch FROM p.eta)::bigint AS seconds) e
CROSS JOIN LATERAL (SELECT pg_catalog.trunc(p.percent / 10)::integer AS tenths) f
CROSS JOIN (
    SELECT CASE pg_catalog.pg_client_encoding() WHEN 'UTF8' THEN pg_catalog.chr(9608) ELSE '#' END AS full,
           CASE pg_catalog.pg_client_encoding() WHEN 'UTF8' THEN pg_catalog.chr(9617) ELSE '.' END AS empty
) b
WHERE NOT p.state IN ('completed', 'cancelled') OR p.finished_at > pg_catalog.now() - interval '1 hour'
ORDER BY CASE WHEN p.state IN ('running', 'pausing', 'cancelling') THEN 1 WHEN p.state IN ('completed', 'cancelled') THEN 3 ELSE 2 END, p.job_id;

COMMENT ON VIEW backfill.dashboard IS 'A line a job, for \watch in psql: what runs, then what stands still, then what ended within the last hour';
COMMENT ON COLUMN backfill.dashboard.job IS 'The job''s id, and its name';
COMMENT ON COLUMN backfill.dashboard."table" IS 'The table, without its schema';
COMMENT ON COLUMN backfill.dashboard.done IS 'Share of rows passed';
COMMENT ON COLUMN backfill.dashboard.rate IS 'Rows passed per second, over the last minute of running';
COMMENT ON COLUMN backfill.dashboard.eta IS 'Time left at this rate; due: more rows than estimated were met; ...: there is no estimate yet';
COMMENT ON COLUMN backfill.dashboard.doing IS 'What it does: the state, or what a running one waits for: the name of the option, without max_, or the beginning of waiting_for in backfill.progress';

REVOKE ALL ON backfill.walk, backfill.region, backfill.leftover, backfill.setback, backfill.failed_row, backfill.verify_failure, backfill.sample FROM PUBLIC;
REVOKE ALL ON SEQUENCE backfill.leftover_id_seq, backfill.failed_row_id_seq, backfill.verify_failure_id_seq FROM PUBLIC;
GRANT SELECT ON backfill.failed_rows, backfill.verify_failures, backfill.skipped_rows, backfill.samples, backfill.dashboard TO PUBLIC;

-- A table or role that was dropped would be but a number in a dump.
SELECT pg_catalog.pg_extension_config_dump('backfill.job',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)
       AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = owner)');
SELECT pg_catalog.pg_extension_config_dump('backfill.walk', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.slice',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('backfill.region', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.leftover', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.leftover_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.setback', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.failed_row',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('backfill.failed_row_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.verify_failure',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('backfill.verify_failure_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.sample', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.event',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = actor)');

-- Last, in each such script: workers that run look between two batches whether their job's row has
-- changed, and see then that the extension is not that of their library any more.
UPDATE backfill.job
SET version = version + 1,
    database_oid = ('backfill.job'::pg_catalog.regclass::pg_catalog.oid::bigint << 32) | database_oid;
