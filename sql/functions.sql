-- The functions that users call, and three that the views use.

-- A server with an older library preloaded would run the new SQL with it. Each upgrade script
-- begins like this, too. The first version had no such function.
DO $$
DECLARE
    wanted text := (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'backfill');
    found  text := 'an older one';
BEGIN
    CREATE FUNCTION backfill.library_version() RETURNS text
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'library_version_wrapper';
    found := 'of version ' || backfill.library_version();
    IF backfill.library_version() <> wanted THEN
        RAISE EXCEPTION undefined_function;
    END IF;
EXCEPTION WHEN undefined_function THEN
    RAISE EXCEPTION 'extension "backfill" is to be of version %, but the loaded library is %', wanted, found
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Restart the server if the library is preloaded, else connect again.';
END $$;
COMMENT ON FUNCTION backfill.library_version IS 'The version of the library that this session has loaded';

CREATE FUNCTION backfill.define(
    relation     regclass,
    set_clause   text,
    where_clause text  DEFAULT NULL,
    name         text  DEFAULT NULL,
    options      jsonb DEFAULT '{}'
) RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'define_wrapper';
COMMENT ON FUNCTION backfill.define IS 'Checks and stores a backfill without starting it; the caller becomes its owner. Returns the job''s id.';

CREATE FUNCTION backfill.start(
    relation     regclass,
    batch_size   integer DEFAULT 1000,
    sleep_ms     integer DEFAULT 0,
    set_clause   text    DEFAULT NULL,
    where_clause text    DEFAULT NULL,
    name         text    DEFAULT NULL,
    options      jsonb   DEFAULT '{}'
) RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'start_wrapper';
COMMENT ON FUNCTION backfill.start IS 'Starts a backfill at commit: the one given by set_clause, or the table''s one pending definition. Returns the job''s id; a repeated call with the same name returns the same job.';

CREATE FUNCTION backfill.define_delete(relation regclass, where_clause text, name text DEFAULT NULL, options jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'define_delete_wrapper';
COMMENT ON FUNCTION backfill.define_delete IS 'Checks and stores a job that deletes rows, for backfill.plan, preview, rehearse and approve by its name, and for backfill.start. Returns the job''s id; a repeated call with the same name returns the same job.';

CREATE FUNCTION backfill.delete(
    relation     regclass,
    batch_size   integer DEFAULT 1000,
    sleep_ms     integer DEFAULT 0,
    where_clause text    DEFAULT NULL,
    name         text    DEFAULT NULL,
    options      jsonb   DEFAULT '{}'
) RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'delete_wrapper';
COMMENT ON FUNCTION backfill.delete IS 'Starts a job at commit that deletes the rows of which where_clause is true (''true'' for all), in batches; with option archive_into they go into another table by the same statement. Returns the job''s id; a repeated call with the same name returns the same job.';

CREATE FUNCTION backfill.define_copy(
    source       regclass,
    target       regclass,
    columns      text    DEFAULT NULL,
    select_list  text    DEFAULT NULL,
    where_clause text    DEFAULT NULL,
    on_conflict  text    DEFAULT NULL,
    name         text    DEFAULT NULL,
    options      jsonb   DEFAULT '{}'
) RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'define_copy_wrapper';
COMMENT ON FUNCTION backfill.define_copy IS 'Checks and stores a job that copies rows, for backfill.plan, rehearse and approve by its name, and for backfill.start. Returns the job''s id; a repeated call with the same name returns the same job.';

CREATE FUNCTION backfill.copy(
    source       regclass,
    target       regclass,
    batch_size   integer DEFAULT 1000,
    sleep_ms     integer DEFAULT 0,
    columns      text    DEFAULT NULL,
    select_list  text    DEFAULT NULL,
    where_clause text    DEFAULT NULL,
    on_conflict  text    DEFAULT NULL,
    name         text    DEFAULT NULL,
    options      jsonb   DEFAULT '{}'
) RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'copy_wrapper';
COMMENT ON FUNCTION backfill.copy IS 'Starts a job at commit that inserts into target, for each row of source, the values of select_list into columns (left out: columns of the same names), each row once. on_conflict: error, nothing, or what follows ON CONFLICT. Returns the job''s id; a repeated call with the same name returns the same job.';

CREATE FUNCTION backfill.define_execute(relation regclass, statement text, where_clause text DEFAULT NULL, name text DEFAULT NULL, options jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'define_execute_wrapper';
COMMENT ON FUNCTION backfill.define_execute IS 'Checks and stores a job that runs a statement for each batch, for backfill.plan and approve by its name, and for backfill.start. Returns the job''s id; a repeated call with the same name returns the same job.';

CREATE FUNCTION backfill.execute(
    relation     regclass,
    statement    text,
    batch_size   integer DEFAULT 1000,
    sleep_ms     integer DEFAULT 0,
    where_clause text    DEFAULT NULL,
    name         text    DEFAULT NULL,
    options      jsonb   DEFAULT '{}'
) RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'execute_wrapper';
COMMENT ON FUNCTION backfill.execute IS 'Starts a job at commit that runs one INSERT, UPDATE, DELETE, MERGE or SELECT for each batch of rows; the statement reads them as the table batch. Each row is in one batch that commits. Returns the job''s id; a repeated call with the same name returns the same job.';

CREATE FUNCTION backfill.pause(job_id bigint) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'pause_wrapper';
COMMENT ON FUNCTION backfill.pause(bigint) IS 'Holds a job after the batch it is in. For its owner, and for the owner of its table. Returns the state that results.';

CREATE FUNCTION backfill.pause(job_id bigint, now boolean) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'pause_now_wrapper';
COMMENT ON FUNCTION backfill.pause(bigint, boolean) IS 'The same; with now => true at once: the batch it is in is rolled back.';

CREATE FUNCTION backfill.resume(job_id bigint) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'resume_wrapper';
COMMENT ON FUNCTION backfill.resume(bigint) IS 'Lets a paused or failed job, or a running one that has lost its worker, go on from its checkpoint. Returns the state that results.';

CREATE FUNCTION backfill.cancel(job_id bigint, now boolean DEFAULT false) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'cancel_wrapper';
COMMENT ON FUNCTION backfill.cancel(bigint, boolean) IS 'Ends a job for good after the batch it is in, or at once with now => true (the batch is rolled back). Batches already committed stay. For its owner, and for the owner of its table. Returns the state that results.';

CREATE FUNCTION backfill.pause_all() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'pause_all_wrapper';
COMMENT ON FUNCTION backfill.pause_all IS 'Pauses every running job that the caller may act on. Returns how many.';

CREATE FUNCTION backfill.resume_all() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'resume_all_wrapper';
COMMENT ON FUNCTION backfill.resume_all IS 'Resumes every paused job that the caller may act on, and gives every running one that has lost its worker a new one. Returns how many.';

CREATE FUNCTION backfill.alter(
    job_id     bigint,
    batch_size integer DEFAULT NULL,
    sleep_ms   integer DEFAULT NULL,
    options    jsonb   DEFAULT '{}'
) RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'alter_wrapper';
COMMENT ON FUNCTION backfill.alter(bigint, integer, integer, jsonb) IS 'Changes the pace of a job, in force with its next batch. What is NULL or absent stays.';

CREATE FUNCTION backfill.redefine(job_id bigint, set_clause text DEFAULT NULL, where_clause text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'redefine_wrapper';
COMMENT ON FUNCTION backfill.redefine(bigint, text, text) IS 'Gives a failed or paused job other clauses, which backfill.resume goes on with from its checkpoint: rows that are done are not done again. What is NULL stays.';

CREATE FUNCTION backfill.retry_failed(job_id bigint) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'retry_failed_wrapper';
COMMENT ON FUNCTION backfill.retry_failed(bigint) IS 'Lets a running, completed or failed job try the rows of backfill.failed_rows again, once it has done all others. Returns how many.';

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
COMMENT ON FUNCTION backfill.plan IS 'Tells what backfill.start with the same arguments would do: the walk, estimates of rows, time, WAL and growth, warnings with advice, and the statements. With format => ''json'' or ''text'' as one document. Changes nothing.';

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
COMMENT ON FUNCTION backfill.rehearse(bigint, integer) IS 'Updates some rows from all over a job''s table in real batches, with triggers and constraints, and rolls that back: what it takes for a row, and which rows fail. Writes WAL and leaves dead tuples.';

CREATE FUNCTION backfill.report(job_id bigint, format text DEFAULT 'text') RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'report_wrapper';
COMMENT ON FUNCTION backfill.report(bigint, text) IS 'The record of a job: what was done, by whom, when, the call to repeat it, counts, time, growth, failed rows, timeline. As text, json, markdown or html, which has plots and is one file.';

CREATE FUNCTION backfill.procedure(job_id bigint, style text DEFAULT 'standalone', install boolean DEFAULT false) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'procedure_wrapper';
COMMENT ON FUNCTION backfill.procedure(bigint, text, boolean) IS 'A script that creates a procedure which does what the job does and needs nothing of this extension; with style "batch", a function that does one batch. With install, it is run at once.';

CREATE FUNCTION backfill.procedure(name text, style text DEFAULT 'standalone', install boolean DEFAULT false) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'procedure_named_wrapper';
COMMENT ON FUNCTION backfill.procedure(text, text, boolean) IS 'The same for the backfill of this name.';

CREATE FUNCTION backfill.approve(job_id bigint) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'approve_wrapper';
COMMENT ON FUNCTION backfill.approve(bigint) IS 'Lets a job run that was started and waits for approval, where backfill.require_approval is on. Not for who started it, nor for its owner. Returns the state that results.';

CREATE FUNCTION backfill.require_completed(name text, verified boolean DEFAULT false, relation regclass DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'require_completed_of_wrapper';
COMMENT ON FUNCTION backfill.require_completed IS 'An error unless the backfill of this name, on this relation, has completed all of it, without a failed row; with verified, unless it was found to be right since. For the next migration. Never waits.';

CREATE FUNCTION backfill.verify(
    job_id       bigint,
    check_clause text    DEFAULT NULL,
    recompute    boolean DEFAULT false,
    options      jsonb   DEFAULT '{}'
) RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'verify_wrapper';
COMMENT ON FUNCTION backfill.verify(bigint, text, boolean, jsonb) IS 'Starts a job at commit that looks, and changes nothing: at rows of which check_clause is not true, or which set_clause would change (recompute), or of which where_clause is true still. Returns its id; the verdict is in the note of backfill.progress, the rows in backfill.verify_failures.';

CREATE FUNCTION backfill.reapply(job_id bigint) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'reapply_wrapper';
COMMENT ON FUNCTION backfill.reapply(bigint) IS 'Starts a job at commit that does those rows again which the last verification of a job has found to be wrong. Returns its id; NULL: there are none.';

CREATE FUNCTION backfill.forget(job_id bigint) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'forget_wrapper';
COMMENT ON FUNCTION backfill.forget(bigint) IS 'Removes an ended job with all that is recorded of it';

CREATE PROCEDURE backfill.wait(job_id bigint, timeout_ms integer DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'wait_wrapper';
COMMENT ON PROCEDURE backfill.wait(bigint, integer) IS 'Waits until a job has completed, holding no snapshot meanwhile, and says what came of it; an error if it fails, is cancelled, or the time is over. For its owner, and for the owner of its table. Not within a transaction block.';

-- Each of these for a job by its name, or by a number as text.
CREATE FUNCTION backfill.pause(name text, now boolean DEFAULT false) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'pause_named_wrapper';
COMMENT ON FUNCTION backfill.pause(text, boolean) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.resume(name text) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'resume_named_wrapper';
COMMENT ON FUNCTION backfill.resume(text) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.cancel(name text, now boolean DEFAULT false) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'cancel_named_wrapper';
COMMENT ON FUNCTION backfill.cancel(text, boolean) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.alter(name text, batch_size integer DEFAULT NULL, sleep_ms integer DEFAULT NULL, options jsonb DEFAULT '{}') RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'alter_named_wrapper';
COMMENT ON FUNCTION backfill.alter(text, integer, integer, jsonb) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.redefine(name text, set_clause text DEFAULT NULL, where_clause text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'redefine_named_wrapper';
COMMENT ON FUNCTION backfill.redefine(text, text, text) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.retry_failed(name text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'retry_failed_named_wrapper';
COMMENT ON FUNCTION backfill.retry_failed(text) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.rehearse(name text, rows integer DEFAULT 1000) RETURNS TABLE (what text, tried bigint, failed bigint, ms_per_row double precision, wal_bytes_per_row double precision,
               dead_tuples bigint, error text)
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 10 AS 'MODULE_PATHNAME', 'rehearse_named_wrapper';
COMMENT ON FUNCTION backfill.rehearse(text, integer) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.report(name text, format text DEFAULT 'text') RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'report_named_wrapper';
COMMENT ON FUNCTION backfill.report(text, text) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.approve(name text) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'approve_named_wrapper';
COMMENT ON FUNCTION backfill.approve(text) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.verify(name text, check_clause text DEFAULT NULL, recompute boolean DEFAULT false, options jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'verify_named_wrapper';
COMMENT ON FUNCTION backfill.verify(text, text, boolean, jsonb) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.reapply(name text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'reapply_named_wrapper';
COMMENT ON FUNCTION backfill.reapply(text) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE FUNCTION backfill.forget(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'forget_named_wrapper';
COMMENT ON FUNCTION backfill.forget(text) IS 'The same for the job of this name; the schema of its table may stand before it';
CREATE PROCEDURE backfill.wait(name text, timeout_ms integer DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'wait_named_wrapper';
COMMENT ON PROCEDURE backfill.wait(text, integer) IS 'The same for the job of this name; the schema of its table may stand before it';

-- What decides what runs with whose rights: the seal in backfill_internal.job is made of this.
CREATE FUNCTION backfill_internal.digest_of(job backfill_internal.job) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.sha256(pg_catalog.convert_to(
        pg_catalog.jsonb_build_array(
            ($1).id, ($1).relation::pg_catalog.oid::bigint, ($1).owner::pg_catalog.oid::bigint, ($1).owner_name::text,
            ($1).action, ($1).work, ($1).where_clause, ($1).key_columns, ($1).options, ($1).session,
            ($1).system_identifier, ($1).database_oid)::text,
        pg_catalog.getdatabaseencoding()))
$$;
COMMENT ON FUNCTION backfill_internal.digest_of IS 'Internal: the digest of what a job runs, on what, and as whom';

CREATE FUNCTION backfill_internal.standing(
    owner oid, owner_name text, system_identifier bigint, database_oid bigint, digest bytea, seal bytea
) RETURNS text LANGUAGE c STABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'standing_wrapper';
COMMENT ON FUNCTION backfill_internal.standing IS 'Internal: whether a job may be run as it stands in its table: here, copy, owner changed or unsealed';

CREATE FUNCTION backfill_internal.state_of(
    wish text, attempt integer, outcome text, outcome_attempt integer, live boolean, standing text
) RETURNS text LANGUAGE c STABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'state_of_job_wrapper';
COMMENT ON FUNCTION backfill_internal.state_of IS 'Internal: derives a job''s state for backfill.progress';

CREATE FUNCTION backfill_internal.waiting_for(
    state text, job_id bigint, workers integer, slots_in_use integer, wished_seconds_ago double precision, standing text
) RETURNS text LANGUAGE c STABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'waiting_for_job_wrapper';
COMMENT ON FUNCTION backfill_internal.waiting_for IS 'Internal: says what a job waits for, for backfill.progress';

CREATE FUNCTION backfill_internal.guard() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'guard_wrapper';
COMMENT ON FUNCTION backfill_internal.guard IS 'Internal: lets only the extension''s functions, and superusers, write to its tables';

CREATE FUNCTION backfill_internal.visible_job(job_id bigint) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'visible_job_wrapper';
COMMENT ON FUNCTION backfill_internal.visible_job IS 'Internal: the id given, if it is a job that the caller may see; else an error';

CREATE FUNCTION backfill_internal.visible_named(name text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'visible_named_wrapper';
COMMENT ON FUNCTION backfill_internal.visible_named IS 'Internal: the id of the job of this name, if it is one that the caller may see; else an error';
