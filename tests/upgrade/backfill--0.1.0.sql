-- The extension's tables. Nobody but its owner has rights on them: users see the views.
--
-- What users write (job) and what workers write (slice, checkpoint, outcome) is kept apart, so
-- that a control call in an open transaction never holds up a batch. Events are only inserted.

-- The schema may be there already (a dump brings it), but nobody else may own it or have put
-- something into it: he could change what the names in it mean.
DO $$
DECLARE
    schema_owner oid := (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'backfill');
BEGIN
    IF NOT (SELECT r.rolsuper OR r.rolname = current_user FROM pg_catalog.pg_roles r WHERE r.oid = schema_owner)
       OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                    AND d.refobjid = 'backfill'::pg_catalog.regnamespace
                    AND d.deptype = 'n' AND d.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass)
    THEN
        RAISE EXCEPTION 'schema "backfill" belongs to another role or is not empty'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'DROP SCHEMA backfill, or rename it, and try again.';
    END IF;
END $$;

COMMENT ON SCHEMA backfill IS 'Changes the data of a huge table in batches, inside the server: backfill.start() begins, backfill.progress shows';

CREATE TABLE backfill.job (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text        CHECK (name <> '' AND octet_length(name) <= 63),
    relation          regclass    NOT NULL,
    relation_name     text        NOT NULL,
    owner             regrole     NOT NULL,
    set_clause        text        NOT NULL,
    where_clause      text,
    set_columns       text[]      NOT NULL,
    key_columns       text[]      NOT NULL,
    options           jsonb       NOT NULL DEFAULT '{}',
    session           jsonb       NOT NULL,
    batch_size        integer     NOT NULL CHECK (batch_size BETWEEN 1 AND 1000000),
    sleep_ms          integer     NOT NULL CHECK (sleep_ms BETWEEN 0 AND 86400000),
    wish              text        NOT NULL CHECK (wish IN ('define', 'run', 'pause', 'cancel')),
    attempt           integer     NOT NULL DEFAULT 0,
    version           bigint      NOT NULL DEFAULT 1,
    system_identifier bigint,
    database_oid      bigint,
    defined_at        timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    wished_at         timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX job_owner_name ON backfill.job (owner, name);
CREATE INDEX job_relation ON backfill.job (relation);
COMMENT ON TABLE backfill.job IS 'What users define and wish: one row per job. Written by their calls only; workers read it.';
COMMENT ON COLUMN backfill.job.id IS 'The job''s id, as given by backfill.define and backfill.start';
COMMENT ON COLUMN backfill.job.name IS 'Name that makes define and start repeatable; unique per owner';
COMMENT ON COLUMN backfill.job.relation IS 'The table that is walked';
COMMENT ON COLUMN backfill.job.relation_name IS 'The table''s name when the job was defined: what it is called once it is dropped';
COMMENT ON COLUMN backfill.job.owner IS 'The role that defined the job; its rights are used by every batch';
COMMENT ON COLUMN backfill.job.set_clause IS 'The SET list of the UPDATE';
COMMENT ON COLUMN backfill.job.where_clause IS 'The WHERE clause of the UPDATE, if any';
COMMENT ON COLUMN backfill.job.set_columns IS 'The columns that the SET list writes';
COMMENT ON COLUMN backfill.job.key_columns IS 'The columns that order the walk';
COMMENT ON COLUMN backfill.job.options IS 'The options of the call';
COMMENT ON COLUMN backfill.job.session IS 'Settings of the defining session that can change what the clauses mean; in force in every batch';
COMMENT ON COLUMN backfill.job.batch_size IS 'Rows per commit, at most';
COMMENT ON COLUMN backfill.job.sleep_ms IS 'Pause between two commits, in milliseconds';
COMMENT ON COLUMN backfill.job.wish IS 'What the last call wants: define, run, pause or cancel';
COMMENT ON COLUMN backfill.job.attempt IS 'How often the job was started or resumed';
COMMENT ON COLUMN backfill.job.version IS 'Counts the changes of this row';
COMMENT ON COLUMN backfill.job.system_identifier IS 'The cluster that the job was started in';
COMMENT ON COLUMN backfill.job.database_oid IS 'The database that the job was started in';
COMMENT ON COLUMN backfill.job.defined_at IS 'When the job was defined';
COMMENT ON COLUMN backfill.job.started_at IS 'When the job was started';
COMMENT ON COLUMN backfill.job.wished_at IS 'When the last call changed the wish';

CREATE TABLE backfill.slice (
    id                 integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id             bigint  NOT NULL,
    no                 integer NOT NULL,
    last_key           text[]  NOT NULL,
    key_columns        text[]  NOT NULL,
    key_order          text[]  NOT NULL,
    UNIQUE (job_id, no)
);
COMMENT ON TABLE backfill.slice IS 'The parts of a walk. Written once, by the worker''s first transaction.';
COMMENT ON COLUMN backfill.slice.id IS 'The slice, as its checkpoints name it';
COMMENT ON COLUMN backfill.slice.job_id IS 'The job';
COMMENT ON COLUMN backfill.slice.no IS 'Number of the slice within its job';
COMMENT ON COLUMN backfill.slice.last_key IS 'The last key that the first transaction saw; rows beyond it are not chased';
COMMENT ON COLUMN backfill.slice.key_columns IS 'The columns that the keys of this slice consist of';
COMMENT ON COLUMN backfill.slice.key_order IS 'What makes the order of each key column: operator family, type, collation and its version';

-- A short key: under an old snapshot its index keeps an entry for every batch there was, and
-- should stay two levels deep for long.
CREATE TABLE backfill.checkpoint (
    slice_id        integer          NOT NULL,
    seq             integer          NOT NULL,
    epoch           bigint           NOT NULL,
    key             text[],
    rows_done       bigint           NOT NULL,
    rows_updated    bigint           NOT NULL,
    rows_total      bigint,
    percent         real,
    past_estimate   boolean          NOT NULL,
    rows_per_second double precision,
    at              timestamptz      NOT NULL,
    PRIMARY KEY (slice_id, seq)
);
COMMENT ON TABLE backfill.checkpoint IS 'Where a slice stands. Each batch inserts a row and deletes its predecessor, in its own transaction; never updated in place, so that an old snapshot elsewhere cannot slow it down.';
COMMENT ON COLUMN backfill.checkpoint.slice_id IS 'The slice';
COMMENT ON COLUMN backfill.checkpoint.seq IS 'Counts the checkpoints; the greatest is in force';
COMMENT ON COLUMN backfill.checkpoint.epoch IS 'Fencing: counts the workers that have held the slice; only the last may write';
COMMENT ON COLUMN backfill.checkpoint.key IS 'Everything up to this key is done; NULL before the first batch';
COMMENT ON COLUMN backfill.checkpoint.rows_done IS 'Rows passed';
COMMENT ON COLUMN backfill.checkpoint.rows_updated IS 'Rows changed';
COMMENT ON COLUMN backfill.checkpoint.rows_total IS 'Estimate of the rows of the walk';
COMMENT ON COLUMN backfill.checkpoint.percent IS 'Highest percentage shown so far';
COMMENT ON COLUMN backfill.checkpoint.past_estimate IS 'Whether more rows were met than estimated';
COMMENT ON COLUMN backfill.checkpoint.rows_per_second IS 'Rows per second over the last minute of running';
COMMENT ON COLUMN backfill.checkpoint.at IS 'When the batch committed, nearly';

CREATE TABLE backfill.outcome (
    job_id   bigint      PRIMARY KEY,
    outcome  text        NOT NULL CHECK (outcome IN ('completed', 'failed', 'cancelled')),
    attempt  integer     NOT NULL,
    at       timestamptz NOT NULL,
    sqlstate text,
    message  text,
    detail   text,
    hint     text,
    context  text,
    batch    text
);
COMMENT ON TABLE backfill.outcome IS 'How a job''s last worker ended it. Written by workers only.';
COMMENT ON COLUMN backfill.outcome.job_id IS 'The job';
COMMENT ON COLUMN backfill.outcome.outcome IS 'completed, failed or cancelled';
COMMENT ON COLUMN backfill.outcome.attempt IS 'The attempt that ended so; a failure counts for its attempt only';
COMMENT ON COLUMN backfill.outcome.at IS 'When';
COMMENT ON COLUMN backfill.outcome.sqlstate IS 'SQLSTATE of the error';
COMMENT ON COLUMN backfill.outcome.message IS 'Message of the error';
COMMENT ON COLUMN backfill.outcome.detail IS 'Detail of the error';
COMMENT ON COLUMN backfill.outcome.hint IS 'Hint of the error';
COMMENT ON COLUMN backfill.outcome.context IS 'Context of the error';
COMMENT ON COLUMN backfill.outcome.batch IS 'The range of keys that failed';

CREATE TABLE backfill.event (
    id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id bigint      NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor  regrole     NOT NULL,
    event  text        NOT NULL,
    old    text,
    new    text
);
CREATE INDEX event_job ON backfill.event (job_id, id);
COMMENT ON TABLE backfill.event IS 'The audit trail: who did what to a job, and what the worker did. Only ever inserted into.';
COMMENT ON COLUMN backfill.event.id IS 'Orders the events';
COMMENT ON COLUMN backfill.event.job_id IS 'The job';
COMMENT ON COLUMN backfill.event.at IS 'When';
COMMENT ON COLUMN backfill.event.actor IS 'The role that acted: the caller, or the job''s owner for what its worker did';
COMMENT ON COLUMN backfill.event.event IS 'What was done';
COMMENT ON COLUMN backfill.event.old IS 'What was before';
COMMENT ON COLUMN backfill.event.new IS 'What is now';

SELECT pg_catalog.pg_extension_config_dump('backfill.job', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.slice', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.slice_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.outcome', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.event', '');
SELECT pg_catalog.pg_extension_config_dump('backfill.event_id_seq', '');

-- The functions that users call, and three that the views use.

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

CREATE FUNCTION backfill.pause(job_id bigint) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'pause_wrapper';
COMMENT ON FUNCTION backfill.pause IS 'Holds a job after the batch it is in. Returns the state that results.';

CREATE FUNCTION backfill.resume(job_id bigint) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'resume_wrapper';
COMMENT ON FUNCTION backfill.resume IS 'Lets a paused or failed job, or a running one that has lost its worker, go on from its checkpoint. Returns the state that results.';

CREATE FUNCTION backfill.cancel(job_id bigint, now boolean DEFAULT false) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'cancel_wrapper';
COMMENT ON FUNCTION backfill.cancel IS 'Ends a job for good after the batch it is in, or at once with now => true (the batch is rolled back). Batches already committed stay. Returns the state that results.';

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
COMMENT ON FUNCTION backfill.alter IS 'Changes the pace of a job, in force with its next batch. What is NULL or absent stays.';

CREATE FUNCTION backfill.forget(job_id bigint) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'forget_wrapper';
COMMENT ON FUNCTION backfill.forget IS 'Removes an ended job with all that is recorded of it';

CREATE PROCEDURE backfill.wait(job_id bigint, timeout_ms integer DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', 'wait_wrapper';
COMMENT ON PROCEDURE backfill.wait IS 'Waits until a job has completed, holding no snapshot meanwhile; an error if it fails, is cancelled, or the time is over. Not within a transaction block.';

CREATE FUNCTION backfill.state_of(
    wish text, attempt integer, outcome text, outcome_attempt integer, live boolean,
    system_identifier bigint, database_oid bigint
) RETURNS text LANGUAGE c STABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'state_of_wrapper';
COMMENT ON FUNCTION backfill.state_of IS 'Internal: derives a job''s state for backfill.progress';

CREATE FUNCTION backfill.waiting_for(
    state text, job_id bigint, workers integer, slots_in_use integer, wished_seconds_ago double precision,
    system_identifier bigint, database_oid bigint
) RETURNS text LANGUAGE c STABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'waiting_for_wrapper';
COMMENT ON FUNCTION backfill.waiting_for IS 'Internal: says what a job waits for, for backfill.progress';

CREATE FUNCTION backfill.visible_job(job_id bigint) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'visible_job_wrapper';
COMMENT ON FUNCTION backfill.visible_job IS 'Internal: the id given, if it is a job that the caller may see; else an error';

-- What people and monitoring look at. A role sees its own jobs, those of roles it is a member of,
-- and all of them as superuser or member of pg_monitor.

CREATE VIEW backfill.progress WITH (security_barrier) AS
WITH locks AS MATERIALIZED (
    -- 7701: the lock that the worker of a job holds; 7702: a worker slot of the server (src/pg/lock.rs)
    SELECT l.database, (l.classid::bigint << 32) | l.objid::bigint AS id, l.objsubid
    FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid IN (7701, 7702) AND l.granted
), live AS (
    SELECT l.id AS job_id, pg_catalog.count(*)::integer AS workers
    FROM locks l
    JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
    WHERE l.objsubid = 7701
    GROUP BY l.id
), slots AS (
    SELECT pg_catalog.count(*)::integer AS used FROM locks l WHERE l.objsubid = 7702
)
SELECT j.id AS job_id,
       j.name,
       j.relation,
       s.state,
       CASE WHEN s.state = 'completed' THEN 100.0 ELSE pg_catalog.round(p.percent::numeric, 1) END AS percent,
       COALESCE(p.rows_done, 0) AS rows_done,
       CASE WHEN s.state = 'completed' THEN COALESCE(p.rows_done, 0) ELSE p.rows_total END AS rows_total,
       COALESCE(p.rows_updated, 0) AS rows_updated,
       0::bigint AS rows_failed,
       CASE WHEN s.state = 'running' AND l.workers > 0 THEN pg_catalog.round(p.rows_per_second::numeric, 1) END AS rows_per_second,
       CASE WHEN s.state = 'running' AND l.workers > 0 THEN
            CASE WHEN p.past_estimate THEN interval '0'
                 WHEN p.rows_per_second > 0 THEN pg_catalog.make_interval(
                     secs => pg_catalog.ceil(GREATEST(p.rows_total - p.rows_done, 0) / p.rows_per_second)) END
       END AS eta,
       j.batch_size,
       j.sleep_ms,
       COALESCE(l.workers, 0) AS workers,
       backfill.waiting_for(s.state, j.id, COALESCE(l.workers, 0), slots.used,
                            extract(epoch FROM pg_catalog.clock_timestamp() - j.wished_at)::double precision,
                            j.system_identifier, j.database_oid) AS waiting_for,
       CASE WHEN o.outcome = 'failed' THEN
            CASE WHEN COALESCE(pg_catalog.has_table_privilege(j.relation, 'SELECT'), pg_catalog.pg_has_role(j.owner, 'USAGE'))
                 THEN pg_catalog.concat(o.message, ' (SQLSTATE ', o.sqlstate, ')', ' in batch ' || o.batch,
                                        E'\nDETAIL: ' || o.detail, E'\nHINT: ' || o.hint, E'\nCONTEXT: ' || o.context)
                 ELSE pg_catalog.concat('SQLSTATE ', o.sqlstate, ' (the message may hold row data: it takes SELECT on the relation)') END
       END AS last_error,
       j.started_at,
       GREATEST(p.at, o.at, j.wished_at) AS updated_at,
       CASE WHEN s.state IN ('completed', 'failed') THEN o.at
            WHEN s.state = 'cancelled' THEN COALESCE(o.at, j.wished_at) END AS finished_at,
       j.owner,
       j.set_clause,
       j.where_clause,
       j.key_columns
FROM backfill.job j
CROSS JOIN slots
LEFT JOIN backfill.outcome o ON o.job_id = j.id
LEFT JOIN live l ON l.job_id = j.id
LEFT JOIN LATERAL (
    SELECT pg_catalog.max(c.percent) AS percent,
           pg_catalog.sum(c.rows_done)::bigint AS rows_done,
           pg_catalog.sum(c.rows_total)::bigint AS rows_total,
           pg_catalog.sum(c.rows_updated)::bigint AS rows_updated,
           pg_catalog.sum(c.rows_per_second) AS rows_per_second,
           pg_catalog.bool_or(c.past_estimate) AS past_estimate,
           pg_catalog.max(c.at) AS at
    FROM backfill.slice sl
    CROSS JOIN LATERAL (
        SELECT * FROM backfill.checkpoint k
        WHERE k.slice_id = sl.id
        ORDER BY k.seq DESC LIMIT 1
    ) c
    WHERE sl.job_id = j.id
) p ON true
CROSS JOIN LATERAL (
    SELECT backfill.state_of(j.wish, j.attempt, o.outcome, o.attempt, COALESCE(l.workers, 0) > 0,
                             j.system_identifier, j.database_oid) AS state
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
COMMENT ON COLUMN backfill.progress.rows_updated IS 'Rows changed';
COMMENT ON COLUMN backfill.progress.rows_failed IS 'Rows stepped over because of an error';
COMMENT ON COLUMN backfill.progress.rows_per_second IS 'Rows passed per second over the last minute of running';
COMMENT ON COLUMN backfill.progress.eta IS 'Time left at this rate; NULL: no estimate yet; zero: more rows than estimated were met, the end is due';
COMMENT ON COLUMN backfill.progress.batch_size IS 'Rows per commit, at most';
COMMENT ON COLUMN backfill.progress.sleep_ms IS 'Pause between two commits, in milliseconds';
COMMENT ON COLUMN backfill.progress.workers IS 'Workers that hold the job now';
COMMENT ON COLUMN backfill.progress.waiting_for IS 'What the job waits for, if it does, and what to do about it';
COMMENT ON COLUMN backfill.progress.last_error IS 'The last failure: message, SQLSTATE, the batch''s range of keys; in full only with SELECT on the relation';
COMMENT ON COLUMN backfill.progress.started_at IS 'When the job was started';
COMMENT ON COLUMN backfill.progress.updated_at IS 'When the job last got further or was changed';
COMMENT ON COLUMN backfill.progress.finished_at IS 'When the job completed, failed or was cancelled';
COMMENT ON COLUMN backfill.progress.owner IS 'The role that defined the job and with whose rights it runs';
COMMENT ON COLUMN backfill.progress.set_clause IS 'The SET list';
COMMENT ON COLUMN backfill.progress.where_clause IS 'The WHERE clause, if any';
COMMENT ON COLUMN backfill.progress.key_columns IS 'The columns that order the walk';

CREATE VIEW backfill.events WITH (security_barrier) AS
SELECT e.id AS event_id, e.job_id, j.name, e.at, e.actor, e.event, e.old, e.new
FROM backfill.event e
JOIN backfill.job j ON j.id = e.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW backfill.events IS 'The audit trail: who did what to which job, when, and what it changed';
COMMENT ON COLUMN backfill.events.event_id IS 'Orders the events';
COMMENT ON COLUMN backfill.events.job_id IS 'The job';
COMMENT ON COLUMN backfill.events.name IS 'The job''s name';
COMMENT ON COLUMN backfill.events.at IS 'When';
COMMENT ON COLUMN backfill.events.actor IS 'The role that called, or the owner for what the worker did';
COMMENT ON COLUMN backfill.events.event IS 'define, start, pause, resume, cancel, alter (by calls); worker started, worker stopped, paused, cancelled, completed, failed (by the worker)';
COMMENT ON COLUMN backfill.events.old IS 'The state or value before';
COMMENT ON COLUMN backfill.events.new IS 'The state or value after';

-- Needs both the view (its row type) and the functions.

CREATE FUNCTION backfill.status(job_id bigint) RETURNS backfill.progress
LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
    SELECT backfill.visible_job($1);
    SELECT p FROM backfill.progress p WHERE p.job_id OPERATOR(pg_catalog.=) $1
$$;
COMMENT ON FUNCTION backfill.status IS 'One job''s row of backfill.progress; an error if there is no such job';

-- Everybody may call the functions: a job runs with the rights of who defined it, no more. The
-- tables are closed; the views filter by role themselves.

REVOKE ALL ON ALL TABLES IN SCHEMA backfill FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA backfill FROM PUBLIC;
GRANT USAGE ON SCHEMA backfill TO PUBLIC;
GRANT SELECT ON backfill.progress, backfill.events TO PUBLIC;
