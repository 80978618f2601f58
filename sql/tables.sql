-- The extension's tables. Nobody but its owner has rights on them: users see the views. They have a schema of their own,
-- with the functions that nobody calls by hand: in the schema backfill is what users use, and nothing else.
--
-- What users write (job) and what workers write (walk, slice, checkpoint, outcome) is kept apart, so
-- that a control call in an open transaction never holds up a batch. Events are only inserted.

-- In an extension's script the extension's schema comes first on the search_path. Whoever may create
-- things in it (see below) could have an operator of his found there, and run by whoever installs.
SET LOCAL search_path = pg_catalog, pg_temp;

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
    -- No dump brings this one: it is a member of the extension, comes with it, and goes with it.
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'backfill_internal') THEN
        RAISE EXCEPTION 'schema "backfill_internal" is there already, and not the extension''s'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'DROP SCHEMA backfill_internal, or rename it, and try again.';
    END IF;
END $$;

CREATE SCHEMA backfill_internal;
REVOKE ALL ON SCHEMA backfill_internal FROM PUBLIC;
COMMENT ON SCHEMA backfill_internal IS 'What the extension backfill keeps and calls itself: nothing in it is for users';

COMMENT ON SCHEMA backfill IS 'Changes the data of a huge table in batches, inside the server: backfill.start() begins, backfill.progress shows';

CREATE TABLE backfill_internal.job (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name              text        CHECK (name <> '' AND octet_length(name) <= 63),
    relation          regclass    NOT NULL,
    relation_name     text        NOT NULL,
    owner             regrole     NOT NULL,
    action            text        NOT NULL,
    work              jsonb       NOT NULL,
    where_clause      text,
    key_columns       text[]      NOT NULL,
    options           jsonb       NOT NULL DEFAULT '{}',
    session           jsonb       NOT NULL,
    batch_size        integer     NOT NULL CHECK (batch_size BETWEEN 1 AND 1000000),
    sleep_ms          integer     NOT NULL CHECK (sleep_ms BETWEEN 0 AND 86400000),
    wish              text        NOT NULL CHECK (wish IN ('define', 'run', 'pause', 'cancel')),
    attempt           integer     NOT NULL DEFAULT 0,
    retry_attempt     integer     NOT NULL DEFAULT 0,
    version           bigint      NOT NULL DEFAULT 1,
    system_identifier bigint,
    database_oid      bigint,
    defined_at        timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    wished_at         timestamptz NOT NULL DEFAULT now(),
    asked_by          regrole,
    asked_session     regrole,
    owner_name        name        NOT NULL,
    seal              bytea
);
-- A dry run may go by the name of the run that it is for.
CREATE UNIQUE INDEX job_owner_name ON backfill_internal.job (owner, name, (options @> '{"dry_run": true}'));
CREATE INDEX job_relation ON backfill_internal.job (relation);
COMMENT ON TABLE backfill_internal.job IS 'What users define and wish: one row per job. Written by their calls only; workers read it.';
COMMENT ON COLUMN backfill_internal.job.id IS 'The job''s id, as given by backfill.define and backfill.start';
COMMENT ON COLUMN backfill_internal.job.name IS 'Name that makes define and start repeatable; unique per owner';
COMMENT ON COLUMN backfill_internal.job.relation IS 'The table that is walked';
COMMENT ON COLUMN backfill_internal.job.relation_name IS 'The table''s name when the job was defined: what it is called once it is dropped';
COMMENT ON COLUMN backfill_internal.job.owner IS 'The role that defined the job; its rights are used by every batch';
COMMENT ON COLUMN backfill_internal.job.action IS 'What is done to the rows of a batch: update, delete, copy, execute, or look (a dry run, a verification)';
COMMENT ON COLUMN backfill_internal.job.work IS 'The action''s own data: the SET list and the columns that it writes; of a look, what is asked of the rows';
COMMENT ON COLUMN backfill_internal.job.where_clause IS 'The WHERE clause, if any: which rows it is about';
COMMENT ON COLUMN backfill_internal.job.key_columns IS 'The columns that order the walk';
COMMENT ON COLUMN backfill_internal.job.options IS 'The options of the call';
COMMENT ON COLUMN backfill_internal.job.session IS 'Settings of the defining session that can change what the clauses mean; in force in every batch';
COMMENT ON COLUMN backfill_internal.job.batch_size IS 'Rows per commit, at most';
COMMENT ON COLUMN backfill_internal.job.sleep_ms IS 'Pause between two commits, in milliseconds';
COMMENT ON COLUMN backfill_internal.job.wish IS 'What the last call wants: define, run, pause or cancel';
COMMENT ON COLUMN backfill_internal.job.attempt IS 'How often the job was started or resumed';
COMMENT ON COLUMN backfill_internal.job.retry_attempt IS 'The attempt that backfill.retry_failed began: outcomes of earlier ones are void, and rows that failed in them are tried again; 0: none';
COMMENT ON COLUMN backfill_internal.job.version IS 'Counts the changes of this row';
COMMENT ON COLUMN backfill_internal.job.system_identifier IS 'The cluster that the job was defined or last started in';
COMMENT ON COLUMN backfill_internal.job.database_oid IS 'The database that the job was defined or last started in; above its 32 bits the OID of backfill_internal.job, which is another one where the extension was created anew';
COMMENT ON COLUMN backfill_internal.job.defined_at IS 'When the job was defined';
COMMENT ON COLUMN backfill_internal.job.started_at IS 'When the job was started';
COMMENT ON COLUMN backfill_internal.job.wished_at IS 'When the last call changed the wish';
COMMENT ON COLUMN backfill_internal.job.asked_by IS 'Who started the job where that needs an approval; NULL: it needed none';
COMMENT ON COLUMN backfill_internal.job.asked_session IS 'The role that asked_by had logged in as';
COMMENT ON COLUMN backfill_internal.job.owner_name IS 'What the owner is called: where the role with its OID has another name, the job stands still';
COMMENT ON COLUMN backfill_internal.job.seal IS 'What the functions set that wrote the row, under a secret of the cluster: without it the job stands still';

CREATE TABLE backfill_internal.walk (
    job_id bigint      PRIMARY KEY,
    pass   integer     NOT NULL,
    phase  text        NOT NULL,
    tables regclass[]  NOT NULL,
    left_out regclass[] NOT NULL DEFAULT '{}',
    notes  text[]      NOT NULL DEFAULT '{}',
    at     timestamptz NOT NULL,
    summed boolean     NOT NULL DEFAULT false,
    key_from text[],
    key_to   text[],
    sizes    jsonb       NOT NULL DEFAULT '{}',
    bytes_before bigint[],
    bytes_after  bigint[]
);
CREATE INDEX walk_going ON backfill_internal.walk (job_id) WHERE NOT summed;
COMMENT ON TABLE backfill_internal.walk IS 'What the workers of a job have in common: one row per job that has begun. Written by workers only, a few times per job.';
COMMENT ON COLUMN backfill_internal.walk.job_id IS 'The job';
COMMENT ON COLUMN backfill_internal.walk.pass IS 'The pass over the table: a walk in physical order looks again for rows that moved';
COMMENT ON COLUMN backfill_internal.walk.phase IS 'What is being done: walk, or after the last batch vacuum or analyze, with the table''s name';
COMMENT ON COLUMN backfill_internal.walk.tables IS 'The table, or its partitions: those that there were when the walk began, then those that came during the run and are done';
COMMENT ON COLUMN backfill_internal.walk.left_out IS 'Partitions that came during the run with rows that are not done: some of these may have been done where they were before';
COMMENT ON COLUMN backfill_internal.walk.notes IS 'What its owner should know';
COMMENT ON COLUMN backfill_internal.walk.at IS 'When the phase began';
COMMENT ON COLUMN backfill_internal.walk.key_from IS 'The first key of what is cut into slices, as the option has it; NULL: from the first row on';
COMMENT ON COLUMN backfill_internal.walk.key_to IS 'The last key of it; NULL: to the last row';
COMMENT ON COLUMN backfill_internal.walk.sizes IS 'For max_growth: by table, its size when that was first looked at or since its last VACUUM, and the number of its VACUUMs';
COMMENT ON COLUMN backfill_internal.walk.bytes_before IS 'Bytes of the tables, with TOAST, and of their indexes, when the walk began';
COMMENT ON COLUMN backfill_internal.walk.bytes_after IS 'The same when the job completed';
COMMENT ON COLUMN backfill_internal.walk.summed IS 'Whether the job has ended for good, and its outcome has the sums over its slices';

CREATE TABLE backfill_internal.slice (
    id            integer          GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id        bigint           NOT NULL,
    no            integer          NOT NULL,
    pass          integer          NOT NULL,
    relation      regclass         NOT NULL,
    relation_name text             NOT NULL,
    walk          text             NOT NULL CHECK (walk IN ('key', 'physical')),
    weight        double precision NOT NULL,
    after_key     text[],
    last_key      text[],
    key_columns   text[],
    key_order     text[],
    first_block   bigint,
    end_block     bigint,
    filenode      oid,
    attributes    jsonb            NOT NULL DEFAULT '{}',
    done          boolean          NOT NULL DEFAULT false,
    UNIQUE (job_id, no),
    CHECK (CASE walk WHEN 'key' THEN last_key IS NOT NULL AND key_columns IS NOT NULL AND key_order IS NOT NULL
                     ELSE first_block IS NOT NULL AND end_block IS NOT NULL AND filenode IS NOT NULL END)
);
COMMENT ON TABLE backfill_internal.slice IS 'The parts of a walk; one worker at a time holds a slice. Written when a pass begins, and marked when done.';
COMMENT ON COLUMN backfill_internal.slice.id IS 'The slice, as its checkpoints name it';
COMMENT ON COLUMN backfill_internal.slice.job_id IS 'The job';
COMMENT ON COLUMN backfill_internal.slice.no IS 'Number of the slice within its job';
COMMENT ON COLUMN backfill_internal.slice.pass IS 'The pass that it belongs to';
COMMENT ON COLUMN backfill_internal.slice.relation IS 'The table, or the partition, that it is a part of';
COMMENT ON COLUMN backfill_internal.slice.relation_name IS 'What that was called when the pass began';
COMMENT ON COLUMN backfill_internal.slice.walk IS 'In which order its rows are passed: key or physical';
COMMENT ON COLUMN backfill_internal.slice.weight IS 'Its share of the job''s progress: the rows it was expected to have';
COMMENT ON COLUMN backfill_internal.slice.after_key IS 'It begins after this key; NULL: at the first row';
COMMENT ON COLUMN backfill_internal.slice.last_key IS 'It ends with this key. The last slice''s is the last key that the first transaction saw; rows beyond it are not chased.';
COMMENT ON COLUMN backfill_internal.slice.key_columns IS 'The columns that its keys consist of';
COMMENT ON COLUMN backfill_internal.slice.key_order IS 'What makes the order of each key column: operator family, type, collation and its version';
COMMENT ON COLUMN backfill_internal.slice.first_block IS 'In physical order: its first page';
COMMENT ON COLUMN backfill_internal.slice.end_block IS 'In physical order: the page after its last';
COMMENT ON COLUMN backfill_internal.slice.filenode IS 'In physical order: the file that the pages are in; another one means that the table was rewritten';
COMMENT ON COLUMN backfill_internal.slice.attributes IS 'The numbers of the columns that the clauses use, and of the key''s: a renamed column is told from another one by them';
COMMENT ON COLUMN backfill_internal.slice.done IS 'Whether all of it has been passed';

-- A short key: under an old snapshot its index keeps an entry for every batch there was, and
-- should stay two levels deep for long.
CREATE TABLE backfill_internal.checkpoint (
    slice_id        integer          NOT NULL,
    seq             integer          NOT NULL,
    epoch           bigint           NOT NULL,
    key             text[],
    block           bigint,
    region_key      text[],
    waves           smallint,
    spread          text,
    wave            smallint,
    wave_to         smallint,
    wave_key        text[],
    rows_done       bigint           NOT NULL,
    rows_updated    bigint           NOT NULL,
    rows_hot        bigint           NOT NULL,
    rows_found      bigint           NOT NULL,
    rows_total      bigint,
    percent         real,
    past_estimate   boolean          NOT NULL,
    rows_per_second double precision,
    batch_rows      integer,
    batch_ms        real,
    batch_ms_p95    real,
    worked_ms       bigint           NOT NULL DEFAULT 0,
    slept_ms        bigint           NOT NULL DEFAULT 0,
    waited_ms       jsonb,
    wal_bytes       bigint           NOT NULL DEFAULT 0,
    note            text,
    waits_for       text,
    waits_until     timestamptz,
    at              timestamptz      NOT NULL,
    PRIMARY KEY (slice_id, seq)
);
COMMENT ON TABLE backfill_internal.checkpoint IS 'Where a slice stands. Each batch inserts a row and deletes its predecessor, in its own transaction; never updated in place, so that an old snapshot elsewhere cannot slow it down.';
COMMENT ON COLUMN backfill_internal.checkpoint.slice_id IS 'The slice';
COMMENT ON COLUMN backfill_internal.checkpoint.seq IS 'Counts the checkpoints; the greatest is in force';
COMMENT ON COLUMN backfill_internal.checkpoint.epoch IS 'Fencing: counts the workers that have held the slice; only the last may write';
COMMENT ON COLUMN backfill_internal.checkpoint.key IS 'Everything up to this key is done; NULL before the first batch';
COMMENT ON COLUMN backfill_internal.checkpoint.block IS 'In physical order: every page before this one is done';
COMMENT ON COLUMN backfill_internal.checkpoint.region_key IS 'Last key of the region that is passed over in waves; NULL: no region is open';
COMMENT ON COLUMN backfill_internal.checkpoint.waves IS 'Waves that the rows of the open region are dealt out to; a pass does one or several';
COMMENT ON COLUMN backfill_internal.checkpoint.spread IS 'What gives a key its wave in the open region: mod 16 from 3, or dealt (see backfill_internal.region)';
COMMENT ON COLUMN backfill_internal.checkpoint.wave IS 'The first wave of the present pass: all before it are done in the open region';
COMMENT ON COLUMN backfill_internal.checkpoint.wave_to IS 'The last wave of the present pass';
COMMENT ON COLUMN backfill_internal.checkpoint.wave_key IS 'The present pass is done up to this key; NULL: at its start';
COMMENT ON COLUMN backfill_internal.checkpoint.rows_done IS 'Rows passed';
COMMENT ON COLUMN backfill_internal.checkpoint.rows_updated IS 'Rows changed';
COMMENT ON COLUMN backfill_internal.checkpoint.rows_hot IS 'Rows changed without a new entry in any index (heap-only tuples)';
COMMENT ON COLUMN backfill_internal.checkpoint.rows_found IS 'In physical order: rows that were found to match the WHERE clause';
COMMENT ON COLUMN backfill_internal.checkpoint.rows_total IS 'Estimate of the rows of the slice';
COMMENT ON COLUMN backfill_internal.checkpoint.percent IS 'Highest percentage of the slice so far';
COMMENT ON COLUMN backfill_internal.checkpoint.past_estimate IS 'Whether more rows were met than estimated';
COMMENT ON COLUMN backfill_internal.checkpoint.rows_per_second IS 'Rows per second over the last minute of running';
COMMENT ON COLUMN backfill_internal.checkpoint.batch_rows IS 'Rows per commit in force';
COMMENT ON COLUMN backfill_internal.checkpoint.batch_ms IS 'What the worker''s last batch took, in milliseconds';
COMMENT ON COLUMN backfill_internal.checkpoint.batch_ms_p95 IS 'What 95 per cent of its last 200 batches took at most, in milliseconds';
COMMENT ON COLUMN backfill_internal.checkpoint.worked_ms IS 'Time that the slice has taken in batches, in milliseconds';
COMMENT ON COLUMN backfill_internal.checkpoint.slept_ms IS 'Time that it has taken in pauses between batches, in milliseconds';
COMMENT ON COLUMN backfill_internal.checkpoint.waited_ms IS 'Time that it has taken waiting, in milliseconds, by what for: an option''s name, or retry';
COMMENT ON COLUMN backfill_internal.checkpoint.wal_bytes IS 'WAL that it has written, in bytes';
COMMENT ON COLUMN backfill_internal.checkpoint.note IS 'What the worker would tell: why it does not go in waves, for one';
COMMENT ON COLUMN backfill_internal.checkpoint.waits_for IS 'Why the next batch is tried again: what was in its way; no row data';
COMMENT ON COLUMN backfill_internal.checkpoint.waits_until IS 'When it is tried again';
COMMENT ON COLUMN backfill_internal.checkpoint.at IS 'When the batch committed, nearly';

CREATE TABLE backfill_internal.region (
    slice_id integer PRIMARY KEY,
    waves    bytea   NOT NULL
);
COMMENT ON TABLE backfill_internal.region IS 'Which wave the rows of an open region belong to, where that is no function of a few numbers. Written once per region.';
COMMENT ON COLUMN backfill_internal.region.slice_id IS 'The slice';
COMMENT ON COLUMN backfill_internal.region.waves IS 'A key has the wave at the hash of it, modulo the length';

CREATE TABLE backfill_internal.leftover (
    id       bigint      GENERATED ALWAYS AS IDENTITY,
    slice_id integer     NOT NULL,
    key      text[]      NOT NULL,
    at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (slice_id, id)
);
COMMENT ON TABLE backfill_internal.leftover IS 'Rows that a slice has passed and takes up at its end: others had them locked, or they failed and are tried again. Written with the batch that leaves or does them.';
COMMENT ON COLUMN backfill_internal.leftover.id IS 'In the order in which they were left';
COMMENT ON COLUMN backfill_internal.leftover.slice_id IS 'The slice';
COMMENT ON COLUMN backfill_internal.leftover.key IS 'The row''s key';
COMMENT ON COLUMN backfill_internal.leftover.at IS 'When it was left';

CREATE TABLE backfill_internal.setback (
    job_id      bigint      NOT NULL,
    pid         integer     NOT NULL,
    waits_for   text        NOT NULL,
    waits_until timestamptz,
    since       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (job_id, pid)
);
COMMENT ON TABLE backfill_internal.setback IS 'What workers wait for between batches: a signal that is over its bound, or, while they hold no slice, a table that somebody has locked. Gone when they get on.';
COMMENT ON COLUMN backfill_internal.setback.job_id IS 'The job';
COMMENT ON COLUMN backfill_internal.setback.pid IS 'The worker';
COMMENT ON COLUMN backfill_internal.setback.waits_for IS 'What was in its way; no row data';
COMMENT ON COLUMN backfill_internal.setback.waits_until IS 'When it tries again; NULL: it looks each second';
COMMENT ON COLUMN backfill_internal.setback.since IS 'When the wait began';

CREATE TABLE backfill_internal.outcome (
    job_id   bigint      PRIMARY KEY,
    outcome  text        NOT NULL CHECK (outcome IN ('completed', 'failed', 'cancelled')),
    attempt  integer     NOT NULL,
    at       timestamptz NOT NULL,
    sqlstate text,
    message  text,
    detail   text,
    hint     text,
    context  text,
    batch    text,
    -- Sums over the slices of a job that has ended for good, so that the view need not look at them.
    percent      double precision,
    rows_done    bigint,
    rows_total   bigint,
    rows_updated bigint,
    rows_hot     bigint,
    worked_ms    bigint,
    slept_ms     bigint,
    waited_ms    bigint,
    wal_bytes    bigint,
    on_end       text        CHECK (on_end IN ('due', 'done', 'failed')),
    on_end_tries integer     NOT NULL DEFAULT 0
);
COMMENT ON TABLE backfill_internal.outcome IS 'How a job''s last worker ended it. Written by workers only.';
COMMENT ON COLUMN backfill_internal.outcome.job_id IS 'The job';
COMMENT ON COLUMN backfill_internal.outcome.outcome IS 'completed, failed or cancelled';
COMMENT ON COLUMN backfill_internal.outcome.attempt IS 'The attempt that ended so; a failure counts for its attempt only';
COMMENT ON COLUMN backfill_internal.outcome.at IS 'When';
COMMENT ON COLUMN backfill_internal.outcome.sqlstate IS 'SQLSTATE of the error';
COMMENT ON COLUMN backfill_internal.outcome.message IS 'Message of the error';
COMMENT ON COLUMN backfill_internal.outcome.detail IS 'Detail of the error';
COMMENT ON COLUMN backfill_internal.outcome.hint IS 'Hint of the error';
COMMENT ON COLUMN backfill_internal.outcome.context IS 'Context of the error';
COMMENT ON COLUMN backfill_internal.outcome.batch IS 'What the batch was about that failed: a range of keys or pages';
COMMENT ON COLUMN backfill_internal.outcome.percent IS 'Of a job that has ended for good: how far it had come';
COMMENT ON COLUMN backfill_internal.outcome.rows_done IS 'The same: rows passed';
COMMENT ON COLUMN backfill_internal.outcome.rows_total IS 'The same: estimate of all rows';
COMMENT ON COLUMN backfill_internal.outcome.rows_updated IS 'The same: rows changed';
COMMENT ON COLUMN backfill_internal.outcome.rows_hot IS 'The same: rows changed without a new entry in any index';
COMMENT ON COLUMN backfill_internal.outcome.worked_ms IS 'The same: time spent in batches, in milliseconds';
COMMENT ON COLUMN backfill_internal.outcome.slept_ms IS 'The same: time spent in pauses, in milliseconds';
COMMENT ON COLUMN backfill_internal.outcome.waited_ms IS 'The same: time spent waiting, in milliseconds';
COMMENT ON COLUMN backfill_internal.outcome.wal_bytes IS 'The same: WAL written, in bytes';
COMMENT ON COLUMN backfill_internal.outcome.on_end IS 'What became of the statement that the owner wants run at the end: due, done or failed; NULL: there was none';
COMMENT ON COLUMN backfill_internal.outcome.on_end_tries IS 'How often it was begun: a worker that is lost in it leaves it due, and one that takes the server along would do so for ever';

CREATE TABLE backfill_internal.failed_row (
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
CREATE INDEX failed_row_job_id ON backfill_internal.failed_row (job_id);
COMMENT ON TABLE backfill_internal.failed_row IS 'Rows that were stepped over because of an error, each recorded in the transaction that did so';
COMMENT ON COLUMN backfill_internal.failed_row.id IS 'In the order in which they failed';
COMMENT ON COLUMN backfill_internal.failed_row.job_id IS 'The job';
COMMENT ON COLUMN backfill_internal.failed_row.attempt IS 'The attempt in which it failed';
COMMENT ON COLUMN backfill_internal.failed_row.relation IS 'The table, or the partition, that the row is in';
COMMENT ON COLUMN backfill_internal.failed_row.relation_name IS 'What that was called';
COMMENT ON COLUMN backfill_internal.failed_row.key_columns IS 'The columns of its key';
COMMENT ON COLUMN backfill_internal.failed_row.key IS 'Its key';
COMMENT ON COLUMN backfill_internal.failed_row.sqlstate IS 'SQLSTATE of the error';
COMMENT ON COLUMN backfill_internal.failed_row.message IS 'Message of the error';
COMMENT ON COLUMN backfill_internal.failed_row.detail IS 'Detail of the error';
COMMENT ON COLUMN backfill_internal.failed_row.hint IS 'Hint of the error';
COMMENT ON COLUMN backfill_internal.failed_row.context IS 'Context of the error';
COMMENT ON COLUMN backfill_internal.failed_row.constraint_name IS 'The constraint that was violated, if it was one';
COMMENT ON COLUMN backfill_internal.failed_row.at IS 'When';

CREATE TABLE backfill_internal.verify_failure (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id        bigint      NOT NULL,
    relation      regclass    NOT NULL,
    relation_name text        NOT NULL,
    key_columns   text[]      NOT NULL,
    key           text[]      NOT NULL,
    at            timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE INDEX verify_failure_job_id ON backfill_internal.verify_failure (job_id);
COMMENT ON TABLE backfill_internal.verify_failure IS 'Rows that a verification has found to be wrong, each recorded in the transaction that looked at it; the first hundred thousand';
COMMENT ON COLUMN backfill_internal.verify_failure.id IS 'In the order in which they were found';
COMMENT ON COLUMN backfill_internal.verify_failure.job_id IS 'The verification';
COMMENT ON COLUMN backfill_internal.verify_failure.relation IS 'The table, or the partition, that the row is in';
COMMENT ON COLUMN backfill_internal.verify_failure.relation_name IS 'What that was called';
COMMENT ON COLUMN backfill_internal.verify_failure.key_columns IS 'The columns of its key; ctid where the table has none';
COMMENT ON COLUMN backfill_internal.verify_failure.key IS 'Its key';
COMMENT ON COLUMN backfill_internal.verify_failure.at IS 'When';

CREATE TABLE backfill_internal.sample (
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
COMMENT ON TABLE backfill_internal.sample IS 'How far a job was at a time: what it had done and taken in all. Written by one of its workers each ten seconds; of more than a thousand of a job every second one goes, and the next ones are twice as far apart.';
COMMENT ON COLUMN backfill_internal.sample.job_id IS 'The job';
COMMENT ON COLUMN backfill_internal.sample.at IS 'When';
COMMENT ON COLUMN backfill_internal.sample.spacing IS 'How many seconds the next one is to be later';
COMMENT ON COLUMN backfill_internal.sample.rows_done IS 'Rows passed so far';
COMMENT ON COLUMN backfill_internal.sample.rows_updated IS 'Rows changed so far';
COMMENT ON COLUMN backfill_internal.sample.wal_bytes IS 'WAL written so far, in bytes';
COMMENT ON COLUMN backfill_internal.sample.worked_ms IS 'Time that its workers have spent in batches so far, in milliseconds';
COMMENT ON COLUMN backfill_internal.sample.slept_ms IS 'Time that they have spent in pauses so far, in milliseconds';
COMMENT ON COLUMN backfill_internal.sample.waited_ms IS 'Time that they have spent waiting so far, in milliseconds, by what for: an option''s name, or retry';
COMMENT ON COLUMN backfill_internal.sample.batch_ms IS 'What the last batch took, in milliseconds; the longest of its workers''';
COMMENT ON COLUMN backfill_internal.sample.lag_bytes IS 'WAL that the furthest-behind standby or slot lacked, in bytes, if that has a bound';

CREATE TABLE backfill_internal.event (
    id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id bigint      NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor  regrole     NOT NULL,
    event  text        NOT NULL,
    old    text,
    new    text,
    login  name
);
CREATE INDEX event_job ON backfill_internal.event (job_id, id);
COMMENT ON TABLE backfill_internal.event IS 'The audit trail: who did what to a job, and what the worker did. Only ever inserted into.';
COMMENT ON COLUMN backfill_internal.event.id IS 'Orders the events';
COMMENT ON COLUMN backfill_internal.event.job_id IS 'The job';
COMMENT ON COLUMN backfill_internal.event.at IS 'When';
COMMENT ON COLUMN backfill_internal.event.actor IS 'The role that acted: the caller, or the job''s owner for what its worker did';
COMMENT ON COLUMN backfill_internal.event.event IS 'What was done';
COMMENT ON COLUMN backfill_internal.event.old IS 'What was before';
COMMENT ON COLUMN backfill_internal.event.new IS 'What is now';
COMMENT ON COLUMN backfill_internal.event.login IS 'The role that was logged in where it was done, which SET ROLE does not change';

-- What dumps take along. A table or role that was dropped would be but a number in there, and could
-- be another one's where the dump is restored.
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.job',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)
       AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = owner)');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.walk', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.slice',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.slice_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.region', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.leftover', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.leftover_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.setback', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.outcome', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.failed_row',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.failed_row_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.verify_failure',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.verify_failure_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.sample', '');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.event',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = actor)');
SELECT pg_catalog.pg_extension_config_dump('backfill_internal.event_id_seq', '');

-- Workers of an extension that was dropped may be asleep, and hold the locks of its jobs and slices: the
-- ids of this one go on behind theirs, so that nobody takes a job for one that has workers.
SELECT pg_catalog.setval(h.ids, h.held)
FROM (SELECT CASE l.objsubid WHEN 7701 THEN 'backfill_internal.job_id_seq' ELSE 'backfill_internal.slice_id_seq' END::pg_catalog.regclass AS ids,
             pg_catalog.max((l.classid::bigint << 32) | l.objid::bigint) AS held
      FROM pg_catalog.pg_locks l
      WHERE l.locktype = 'advisory' AND l.objsubid IN (7701, 7704)
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      GROUP BY 1) AS h;
