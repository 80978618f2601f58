-- From 0.2.0 to 0.3.0: the security release.
--
-- Columns come last here that come earlier in a new database: their order means nothing. Views get
-- new columns at their end only, so that they can be replaced, whatever of the user's refers to them.

-- Nobody's operators, as in sql/tables.sql.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Batches in progress end first, and others wait. So does whoever looks at the views, and whoever would put something on a table.
LOCK TABLE backfill.job, backfill.walk, backfill.slice, backfill.checkpoint, backfill.outcome, backfill.event, backfill.region,
    backfill.leftover, backfill.setback, backfill.failed_row, backfill.verify_failure, backfill.sample IN ACCESS EXCLUSIVE MODE;

-- What follows runs as whoever updates, a superuser. What somebody else has put on the tables or into the schema, by a right
-- that ALTER DEFAULT PRIVILEGES or a GRANT gave, would run as that one, too. No trigger and no rule fires that the owner of its table
-- has not enabled for that; and the update is refused until nothing is there that is not the extension's. This block belongs
-- to the beginning of each upgrade script.
SET LOCAL session_replication_role = replica;
DO $$
DECLARE
    found text;
    remedy text;
BEGIN
    WITH extension AS (
        SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname = 'backfill'
    ), member AS (
        SELECT d.classid, d.objid
        FROM extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND d.deptype = 'e'
    ), relation AS (
        SELECT c.oid, c.relkind, c.relowner, c.relrowsecurity, c.oid::pg_catalog.regclass AS shown
        FROM member m JOIN pg_catalog.pg_class c ON m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objid = c.oid
    ), part AS (
        -- What belongs to a table or view, and what it refers to: a function, an operator, a type. Those of PostgreSQL are in no list.
        SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass AS classid, a.oid AS objid FROM pg_catalog.pg_attrdef a JOIN relation r ON r.oid = a.adrelid
        UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid FROM pg_catalog.pg_constraint k JOIN relation r ON r.oid = k.conrelid
        UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid FROM pg_catalog.pg_index i JOIN relation r ON r.oid = i.indrelid
        UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, r.oid FROM relation r
        UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid FROM pg_catalog.pg_rewrite w JOIN relation r ON r.oid = w.ev_class
    ), strange AS (
        SELECT pg_catalog.format('trigger %I on %s', t.tgname, r.shown) AS what, pg_catalog.format('DROP TRIGGER %I ON %s;', t.tgname, r.shown) AS remedy
        FROM relation r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid
        WHERE NOT t.tgisinternal
          AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.objid = t.tgfoid)
        UNION ALL
        SELECT pg_catalog.format('foreign key %I of %s, which refers to %s', k.conname, k.conrelid::pg_catalog.regclass, r.shown),
               pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I;', k.conrelid::pg_catalog.regclass, k.conname)
        FROM relation r JOIN pg_catalog.pg_constraint k ON k.confrelid = r.oid
        UNION ALL
        SELECT pg_catalog.format('rule %I on %s', w.rulename, r.shown), pg_catalog.format('DROP RULE %I ON %s;', w.rulename, r.shown)
        FROM relation r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
        WHERE r.relkind <> 'v' OR w.rulename <> '_RETURN'
        UNION ALL
        SELECT pg_catalog.format('row-level security of %s', r.shown), pg_catalog.format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY;', r.shown)
        FROM relation r WHERE r.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = r.oid)
        UNION ALL
        SELECT pg_catalog.format('child %s of %s', i.inhrelid::pg_catalog.regclass, r.shown),
               pg_catalog.format('ALTER TABLE %s NO INHERIT %s;', i.inhrelid::pg_catalog.regclass, r.shown)
        FROM relation r JOIN pg_catalog.pg_inherits i ON i.inhparent = r.oid
        UNION ALL
        SELECT pg_catalog.format('owner %s of %s', r.relowner::pg_catalog.regrole, r.shown), 'ALTER TABLE ... OWNER TO the owner of backfill.job;'
        FROM relation r JOIN pg_catalog.pg_class j ON j.oid = 'backfill.job'::pg_catalog.regclass WHERE r.relowner <> j.relowner
        UNION ALL
        SELECT pg_catalog.format('%s, which %s refers to', pg_catalog.pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid),
                                 pg_catalog.pg_describe_object(p.classid, p.objid, 0)),
               'Take it out.'
        FROM part p JOIN pg_catalog.pg_depend d ON d.classid = p.classid AND d.objid = p.objid
        WHERE d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass,
                               'pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_opfamily'::pg_catalog.regclass, 'pg_catalog.pg_collation'::pg_catalog.regclass)
          AND NOT EXISTS (SELECT FROM member m WHERE m.classid = d.refclassid AND m.objid = d.refobjid)
          -- The row types of its own tables.
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t JOIN relation r ON r.oid = t.typrelid
                          WHERE d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = d.refobjid)
        UNION ALL
        SELECT pg_catalog.format('%s in its schema', pg_catalog.pg_describe_object(d.classid, d.objid, 0)), 'DROP it, or ALTER ... SET SCHEMA.'
        FROM pg_catalog.pg_depend d
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = 'backfill'::pg_catalog.regnamespace
          -- What ALTER DEFAULT PRIVILEGES gives is taken back below; a publication of the schema runs nothing.
          AND NOT d.classid IN ('pg_catalog.pg_extension'::pg_catalog.regclass, 'pg_catalog.pg_default_acl'::pg_catalog.regclass,
                                'pg_catalog.pg_publication_namespace'::pg_catalog.regclass)
          AND NOT EXISTS (SELECT FROM member m WHERE m.classid = d.classid AND m.objid = d.objid)
    )
    SELECT s.what, s.remedy INTO found, remedy FROM strange s ORDER BY s.remedy = 'Take it out.', s.what COLLATE pg_catalog."C" LIMIT 1;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'extension "backfill" cannot be updated: % is not the extension''s', found
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'It may run somebody else''s code with the rights of whoever updates.',
                  HINT = pg_catalog.concat(remedy, ' And take back what let somebody create it: ALTER DEFAULT PRIVILEGES, or a GRANT on the schema or its tables.');
    END IF;
END $$;

-- Not with the library of before: it would run the new SQL.
DO $$
BEGIN
    IF backfill.library_version() <> '0.3.0' THEN
        RAISE EXCEPTION 'extension "backfill" cannot be updated to version 0.3.0: the loaded library is of another version'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Install the library of version 0.3.0. Where it is installed, restart the server if the library is preloaded, else connect again.';
    END IF;
END $$;

-- What no user reads or calls goes to a schema of its own, as in sql/tables.sql: sequences and indexes go with their tables.
-- Views and triggers know them by their numbers.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'backfill_internal') THEN
        RAISE EXCEPTION 'schema "backfill_internal" is there already, and not the extension''s'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'DROP SCHEMA backfill_internal, or rename it, and try again.';
    END IF;
END $$;
CREATE SCHEMA backfill_internal;
REVOKE ALL ON SCHEMA backfill_internal FROM PUBLIC;
COMMENT ON SCHEMA backfill_internal IS 'What the extension backfill keeps and calls itself: nothing in it is for users';
ALTER TABLE backfill.job SET SCHEMA backfill_internal;
ALTER TABLE backfill.walk SET SCHEMA backfill_internal;
ALTER TABLE backfill.slice SET SCHEMA backfill_internal;
ALTER TABLE backfill.checkpoint SET SCHEMA backfill_internal;
ALTER TABLE backfill.region SET SCHEMA backfill_internal;
ALTER TABLE backfill.leftover SET SCHEMA backfill_internal;
ALTER TABLE backfill.setback SET SCHEMA backfill_internal;
ALTER TABLE backfill.outcome SET SCHEMA backfill_internal;
ALTER TABLE backfill.failed_row SET SCHEMA backfill_internal;
ALTER TABLE backfill.verify_failure SET SCHEMA backfill_internal;
ALTER TABLE backfill.sample SET SCHEMA backfill_internal;
ALTER TABLE backfill.event SET SCHEMA backfill_internal;
ALTER FUNCTION backfill.guard() SET SCHEMA backfill_internal;
ALTER FUNCTION backfill.visible_job(bigint) SET SCHEMA backfill_internal;

ALTER TABLE backfill_internal.job ADD COLUMN owner_name name, ADD COLUMN seal bytea;
UPDATE backfill_internal.job SET owner_name = pg_catalog.pg_get_userbyid(owner);
ALTER TABLE backfill_internal.job ALTER COLUMN owner_name SET NOT NULL;
COMMENT ON COLUMN backfill_internal.job.owner_name IS 'What the owner is called: where the role with its OID has another name, the job stands still';
COMMENT ON COLUMN backfill_internal.job.seal IS 'What the functions set that wrote the row, under a secret of the cluster: without it the job stands still';
COMMENT ON COLUMN backfill_internal.job.system_identifier IS 'The cluster that the job was defined or last started in';
COMMENT ON COLUMN backfill_internal.job.database_oid IS 'The database that the job was defined or last started in; above its 32 bits the OID of backfill_internal.job, which is another one where the extension was created anew';

ALTER TABLE backfill_internal.job ADD COLUMN action text, ADD COLUMN work jsonb;
UPDATE backfill_internal.job SET
    action = CASE WHEN verifies IS NOT NULL OR options @> '{"dry_run": true}' THEN 'look' ELSE 'update' END,
    work = pg_catalog.jsonb_build_object('set_clause', set_clause, 'set_columns', set_columns)
        || CASE WHEN verifies IS NOT NULL THEN pg_catalog.jsonb_build_object('question', pg_catalog.jsonb_build_object(
                    'verify', pg_catalog.jsonb_build_object('job', verifies, 'check',
                        CASE WHEN check_clause IS NOT NULL THEN pg_catalog.jsonb_build_object('clause', check_clause)
                             WHEN recompute THEN '"recompute"' ELSE '"pending"' END)))
                WHEN options @> '{"dry_run": true}' THEN '{"question": "dry_run"}' ELSE '{}' END;
ALTER TABLE backfill_internal.job ALTER COLUMN action SET NOT NULL, ALTER COLUMN work SET NOT NULL;
COMMENT ON COLUMN backfill_internal.job.action IS 'What is done to the rows of a batch: update, delete, copy, execute, or look (a dry run, a verification)';
COMMENT ON COLUMN backfill_internal.job.work IS 'The action''s own data: the SET list and the columns that it writes; of a look, what is asked of the rows';
COMMENT ON COLUMN backfill_internal.job.where_clause IS 'The WHERE clause, if any: which rows it is about';

ALTER TABLE backfill_internal.walk ADD COLUMN left_out regclass[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN backfill_internal.checkpoint.spread IS 'What gives a key its wave in the open region: mod 16 from 3, or dealt (see backfill_internal.region)';
COMMENT ON COLUMN backfill_internal.walk.tables IS 'The table, or its partitions: those that there were when the walk began, then those that came during the run and are done';
COMMENT ON COLUMN backfill_internal.walk.left_out IS 'Partitions that came during the run with rows that are not done: some of these may have been done where they were before';

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
COMMENT ON FUNCTION backfill_internal.state_of(text, integer, text, integer, boolean, text) IS 'Internal: derives a job''s state for backfill.progress';

CREATE FUNCTION backfill_internal.waiting_for(
    state text, job_id bigint, workers integer, slots_in_use integer, wished_seconds_ago double precision, standing text
) RETURNS text LANGUAGE c STABLE PARALLEL SAFE CALLED ON NULL INPUT
AS 'MODULE_PATHNAME', 'waiting_for_job_wrapper';
COMMENT ON FUNCTION backfill_internal.waiting_for(text, bigint, integer, integer, double precision, text) IS 'Internal: says what a job waits for, for backfill.progress';

CREATE FUNCTION backfill.pause(job_id bigint, now boolean) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'pause_now_wrapper';
COMMENT ON FUNCTION backfill.pause(bigint, boolean) IS 'The same; with now => true at once: the batch it is in is rolled back.';

-- Jobs that are there are taken for what they say. Who could call this function later could have any row sealed.
CREATE FUNCTION backfill_internal.seal_all() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'seal_all_wrapper';
SELECT backfill_internal.seal_all();
DROP FUNCTION backfill_internal.seal_all();

CREATE OR REPLACE VIEW backfill.progress WITH (security_barrier) AS
WITH locks AS MATERIALIZED (
    -- 7701: held by each worker of a job; 7702 and 7708: a worker slot of the server; 7704: a slice; 7705: by one that decides
    -- for the whole job, or records its end (src/pg/lock.rs)
    SELECT l.database, (l.classid::bigint << 32) | l.objid::bigint AS id, l.objsubid, l.pid, l.granted, l.locktype, l.relation, l.mode,
           l.waitstart
    FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid IN (7701, 7702, 7704, 7705, 7708) AND l.granted OR NOT l.granted
), here AS (
    SELECT l.id, l.objsubid, l.pid
    FROM locks l
    JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
    WHERE l.granted
), hung AS (
    -- Workers that wait for a lock now, and who holds it. Without a lock of ours: what is read is the server's own memory.
    SELECT worker.id AS job_id, pg_catalog.min(l.waitstart) AS since,
           pg_catalog.string_agg(DISTINCT pg_catalog.concat(
               CASE l.locktype WHEN 'relation' THEN pg_catalog.concat('a lock on ', l.relation::pg_catalog.regclass, ' (', l.mode, ')')
                               WHEN 'tuple' THEN pg_catalog.concat('a row of ', l.relation::pg_catalog.regclass)
                               WHEN 'transactionid' THEN 'a row that another transaction has changed or locked'
                               ELSE pg_catalog.concat('a lock (', l.locktype, ')') END,
               ', held by ' || h.holders), '; ') AS waits
    FROM locks l
    JOIN here worker ON worker.objsubid = 7701 AND worker.pid = l.pid
    CROSS JOIN LATERAL (
        SELECT pg_catalog.string_agg(pg_catalog.concat('pid ', b.pid, ' (' || pg_catalog.pg_get_userbyid(a.usesysid)::text COLLATE pg_catalog."default", NULLIF(', ' || a.application_name, ', '),
                                                       CASE WHEN a.pid IS NOT NULL THEN ')' END), ', ' ORDER BY b.pid) AS holders
        FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) AS b (pid)
        LEFT JOIN LATERAL pg_catalog.pg_stat_get_activity(b.pid) a ON true
    ) h
    WHERE NOT l.granted
    GROUP BY worker.id
), live AS (
    SELECT h.id AS job_id, (pg_catalog.count(*) FILTER (WHERE h.objsubid = 7701))::integer AS workers,
           pg_catalog.count(*)::integer AS attending
    FROM here h WHERE h.objsubid IN (7701, 7705) GROUP BY h.id
), slots AS (
    SELECT pg_catalog.count(DISTINCT l.id)::integer AS used FROM locks l WHERE l.objsubid IN (7702, 7708) AND l.granted
), going AS MATERIALIZED (
    -- Jobs that may get further. Of the others, the end has the sums over their slices.
    SELECT y.job_id AS id FROM backfill_internal.walk y WHERE NOT y.summed
), walked AS (
    -- Each slice's share never shrinks, and weights are fixed: nor does the sum.
    SELECT sl.job_id,
           pg_catalog.sum(sl.weight * COALESCE(c.percent, 0)) FILTER (WHERE sl.weight > 0)
               / NULLIF(pg_catalog.sum(sl.weight), 0) AS percent,
           -- In physical order a new version may lie ahead of the walk: its row is counted as passed when the walk gets there.
           (CASE WHEN pg_catalog.bool_or(sl.end_block IS NOT NULL) THEN GREATEST(pg_catalog.sum(c.rows_done), pg_catalog.sum(c.rows_updated))
                 ELSE pg_catalog.sum(c.rows_done) END)::bigint AS rows_done,
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
    CROSS JOIN LATERAL (SELECT i.id, i.job_id, i.weight, i.done, i.end_block FROM backfill_internal.slice i WHERE i.job_id = g.id OFFSET 0) sl
    CROSS JOIN LATERAL (
        SELECT k.rows_done, k.rows_updated, k.rows_hot, k.rows_total, k.percent, k.past_estimate, k.rows_per_second,
               k.batch_rows, k.batch_ms, k.batch_ms_p95, k.worked_ms, k.slept_ms, k.waited_ms, k.wal_bytes,
               k.note, k.waits_for, k.waits_until, k.at
        FROM backfill_internal.checkpoint k
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
           pg_catalog.min(t.since) AS since,
           pg_catalog.count(DISTINCT t.pid) AS workers
    FROM backfill_internal.setback t
    JOIN here worker ON worker.objsubid = 7701 AND worker.id = t.job_id AND worker.pid = t.pid
    GROUP BY t.job_id
)
SELECT j.id AS job_id,
       j.name,
       j.relation,
       s.state,
       CASE WHEN s.state = 'completed' THEN 100.0
            WHEN r.percent > 99.9 THEN 99.9
            ELSE pg_catalog.round(r.percent::numeric, 1) END AS percent,
       r.done AS rows_done,
       CASE WHEN s.state = 'completed' THEN r.done
            WHEN r.done > 0 AND r.percent > 0 AND r.total IS NOT NULL THEN GREATEST(r.done, pg_catalog.round(r.done * 100 / r.percent)::bigint)
            ELSE r.total END AS rows_total,
       COALESCE(p.rows_updated, o.rows_updated, 0) AS rows_updated,
       f.rows AS rows_failed,
       CASE WHEN s.state = 'running' AND l.workers > 0 THEN
            CASE WHEN b.workers >= l.workers THEN 0 ELSE pg_catalog.round(p.rows_per_second::numeric, 1) END END AS rows_per_second,
       CASE WHEN s.state = 'running' AND l.workers > 0 AND (b.workers >= l.workers) IS NOT TRUE THEN
            CASE WHEN p.past_estimate THEN interval '0'
                 WHEN p.rows_per_second > 0 AND r.settled THEN pg_catalog.make_interval(
                     secs => LEAST(pg_catalog.ceil(p.rows_left / p.rows_per_second), 1e10)) END
       END AS eta,
       j.batch_size,
       j.sleep_ms,
       COALESCE(l.workers, 0) AS workers,
       COALESCE(CASE WHEN s.state = 'pending' AND j.asked_by IS NOT NULL
                     THEN pg_catalog.concat('approval: SELECT backfill.approve(', j.id, ')') END,
                CASE WHEN s.state = 'running' AND COALESCE(l.attending, 0) = 0 AND j.options ? 'after' THEN (
                     SELECT 'the end of job ' || pg_catalog.string_agg(pg_catalog.concat('"', a.name, '"', CASE
                                WHEN ahead.id IS NULL THEN ', which does not exist'
                                WHEN ahead.wish = 'define' THEN ', which has not been started'
                                WHEN ahead.wish = 'cancel' THEN ', which was cancelled'
                                WHEN done.outcome = 'failed' AND done.attempt = ahead.attempt THEN ', which has failed'
                                WHEN ahead.wish = 'pause' THEN ', which is paused' END), ', and of ' ORDER BY a.no)
                     FROM pg_catalog.jsonb_array_elements_text(j.options -> 'after') WITH ORDINALITY a (name, no)
                     LEFT JOIN backfill_internal.job ahead ON ahead.name = a.name AND ahead.owner = j.owner AND NOT ahead.options @> '{"dry_run": true}'
                     LEFT JOIN backfill_internal.outcome done ON done.job_id = ahead.id AND done.attempt >= ahead.retry_attempt
                     WHERE done.outcome IS DISTINCT FROM 'completed') END,
                backfill_internal.waiting_for(s.state, j.id, COALESCE(l.attending, 0), slots.used,
                                     extract(epoch FROM pg_catalog.clock_timestamp() - j.wished_at)::double precision,
                                     s.standing),
                CASE WHEN s.state = 'running' AND l.workers = 0 THEN 'its worker, which is ending'
                     WHEN s.state IN ('running', 'pausing', 'cancelling') THEN COALESCE(hung.waits, b.waits, p.waits) END) AS waiting_for,
       CASE WHEN o.outcome = 'failed' AND o.attempt = j.attempt THEN
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
       j.work ->> 'set_clause' AS set_clause,
       COALESCE(j.work ->> 'on', j.where_clause) AS where_clause,
       j.key_columns,
       COALESCE((j.options ->> 'workers')::integer, 1) AS workers_wanted,
       CASE WHEN s.state IN ('running', 'pausing', 'cancelling') THEN p.batch_rows END AS batch_rows,
       CASE WHEN j.action NOT IN ('delete', 'copy', 'execute') THEN
            pg_catalog.round(COALESCE(p.rows_hot, o.rows_hot) * 100.0 / NULLIF(COALESCE(p.rows_updated, o.rows_updated), 0), 1) END AS hot_percent,
       CASE WHEN NOT s.state IN ('pending', 'completed', 'cancelled') THEN w.phase END AS phase,
       NULLIF(pg_catalog.concat_ws('; ', CASE WHEN f.rows > 0 THEN pg_catalog.concat(f.rows, CASE f.rows WHEN 1 THEN ' row' ELSE ' rows' END,
                                                                           ' failed: see backfill.failed_rows') END,
                                   p.note, NULLIF(pg_catalog.array_to_string(w.notes, '; '), '')), '') AS note,
       j.attempt,
       CASE WHEN s.state = 'running' AND l.workers > 0 THEN
            CASE WHEN b.workers >= l.workers THEN 'waiting'
                 WHEN p.past_estimate THEN 'due'
                 WHEN p.rows_left IS NULL OR (p.rows_per_second > 0 AND r.settled) IS NOT TRUE THEN 'measuring' END END AS eta_state,
       CASE WHEN s.state IN ('running', 'pausing', 'cancelling') THEN COALESCE(b.since, hung.since) END AS waiting_since,
       pg_catalog.round(COALESCE(p.worked_ms, o.worked_ms, 0) / 1000.0, 1) AS seconds_working,
       pg_catalog.round(COALESCE(p.slept_ms, o.slept_ms, 0) / 1000.0, 1) AS seconds_sleeping,
       pg_catalog.round(COALESCE(p.waited_ms, o.waited_ms, 0) / 1000.0, 1) AS seconds_throttled,
       pg_catalog.round(p.batch_ms::numeric, 1) AS batch_ms,
       pg_catalog.round(p.batch_ms_p95::numeric, 1) AS batch_ms_p95,
       COALESCE(p.wal_bytes, o.wal_bytes, 0) AS wal_bytes,
       CASE WHEN j.options ? 'settings' THEN
            pg_catalog.jsonb_set(u.options, '{settings}', (SELECT pg_catalog.jsonb_object_agg(k, '...') FROM pg_catalog.jsonb_object_keys(j.options -> 'settings') k))
            ELSE u.options END AS options,
       CASE WHEN j.work #>> '{question,verify,job}' IS NOT NULL THEN 'verification' WHEN j.action = 'look' THEN 'dry run' WHEN j.action IN ('delete', 'copy', 'execute') THEN j.action ELSE 'backfill' END AS kind,
       (j.work #>> '{question,verify,job}')::bigint AS verifies,
       NULLIF(j.work - '{set_clause,set_columns,from,on,question,asked,overriding}'::text[], '{}') AS work
FROM backfill_internal.job j
CROSS JOIN slots
LEFT JOIN backfill_internal.outcome o ON o.job_id = j.id AND o.attempt >= j.retry_attempt
LEFT JOIN live l ON l.job_id = j.id
LEFT JOIN walked p ON p.job_id = j.id
LEFT JOIN held_up b ON b.job_id = j.id
LEFT JOIN hung ON hung.job_id = j.id
LEFT JOIN backfill_internal.walk w ON w.job_id = j.id
CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS rows FROM backfill_internal.failed_row x WHERE x.job_id = j.id) f
CROSS JOIN LATERAL (
    -- Slices that have ended say how good the estimate was of those that have not: the share that is passed tells more of
    -- all rows than the sum of estimates does.
    SELECT COALESCE(p.rows_done, o.rows_done, 0) AS done, COALESCE(p.rows_total, o.rows_total) AS total,
           COALESCE(p.percent, o.percent) AS percent,
           -- What the first batches took tells little of the others.
           p.percent >= 20 OR p.worked_ms + p.slept_ms + p.waited_ms >= 3000 AS settled
) r
CROSS JOIN LATERAL (
    -- Its literals are nobody else's business.
    SELECT CASE WHEN j.options ? 'on_end' AND NOT pg_catalog.pg_has_role(j.owner, 'USAGE')
                THEN pg_catalog.jsonb_set(j.options, '{on_end}', '"..."') ELSE j.options END AS options
) u
CROSS JOIN LATERAL (
    -- OFFSET 0: else it is called for each place above that asks for the state.
    SELECT backfill_internal.state_of(j.wish, j.attempt, o.outcome, o.attempt, COALESCE(l.workers, 0) > 0, y.standing) AS state, y.standing
    FROM (
        -- What has ended is not looked into.
        SELECT CASE WHEN j.wish = 'cancel' OR o.outcome = 'completed' OR o.outcome = 'failed' AND o.attempt = j.attempt THEN 'here'
                    ELSE backfill_internal.standing(j.owner::oid, j.owner_name::text COLLATE pg_catalog."default", j.system_identifier, j.database_oid,
                                           backfill_internal.digest_of(j), j.seal) END AS standing
        OFFSET 0
    ) y
    OFFSET 0
) s
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));

-- Owners of tables see the jobs on these; slots are counted by what no user code can let go of.

CREATE OR REPLACE VIEW backfill.failed_rows WITH (security_barrier) AS
SELECT f.id AS failed_row_id, f.job_id, j.name, f.relation, f.key_columns,
       CASE WHEN r.may_read THEN f.key END AS key,
       f.sqlstate,
       CASE WHEN r.may_read THEN f.message ELSE '(may hold row data: it takes SELECT on the relation)' END AS message,
       CASE WHEN r.may_read THEN f.detail END AS detail,
       CASE WHEN r.may_read THEN f.hint END AS hint,
       CASE WHEN r.may_read THEN f.context END AS context,
       f.constraint_name, f.at
FROM backfill_internal.failed_row f
JOIN backfill_internal.job j ON j.id = f.job_id
CROSS JOIN LATERAL (
    SELECT COALESCE(pg_catalog.has_table_privilege(f.relation, 'SELECT') AND NOT pg_catalog.row_security_active(f.relation), pg_catalog.pg_has_role(j.owner, 'USAGE')) AS may_read
) r
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));

CREATE OR REPLACE VIEW backfill.verify_failures WITH (security_barrier) AS
SELECT f.id AS verify_failure_id, f.job_id AS verification_id, (j.work #>> '{question,verify,job}')::bigint AS job_id, f.relation, f.key_columns,
       CASE WHEN COALESCE(pg_catalog.has_table_privilege(f.relation, 'SELECT') AND NOT pg_catalog.row_security_active(f.relation), pg_catalog.pg_has_role(j.owner, 'USAGE')) THEN f.key END AS key,
       f.at
FROM backfill_internal.verify_failure f
JOIN backfill_internal.job j ON j.id = f.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));

CREATE OR REPLACE VIEW backfill.skipped_rows WITH (security_barrier) AS
SELECT s.job_id, j.name, s.relation, s.key_columns,
       CASE WHEN COALESCE(pg_catalog.has_table_privilege(s.relation, 'SELECT') AND NOT pg_catalog.row_security_active(s.relation), pg_catalog.pg_has_role(j.owner, 'USAGE')) THEN l.key END AS key,
       l.at
FROM backfill_internal.leftover l
JOIN backfill_internal.slice s ON s.id = l.slice_id
JOIN backfill_internal.job j ON j.id = s.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));

-- Who was logged in. Of what was done before, nobody knows.
ALTER TABLE backfill_internal.event ADD COLUMN login name;
COMMENT ON COLUMN backfill_internal.event.login IS 'The role that was logged in where it was done, which SET ROLE does not change';
CREATE OR REPLACE VIEW backfill.events WITH (security_barrier) AS
SELECT e.id AS event_id, e.job_id, j.name, e.at, e.actor, e.event, e.old, e.new, e.login
FROM backfill_internal.event e
JOIN backfill_internal.job j ON j.id = e.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));
COMMENT ON COLUMN backfill.events.login IS 'The role that was logged in (session_user) where it was done: the person, where that one has used SET ROLE';

CREATE OR REPLACE VIEW backfill.samples WITH (security_barrier) AS
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
    FROM backfill_internal.sample p WINDOW jobs AS (PARTITION BY p.job_id ORDER BY p.at)
) s
JOIN backfill_internal.job j ON j.id = s.job_id
CROSS JOIN LATERAL (SELECT extract(epoch FROM s.at - s.at_before) AS seconds) t
LEFT JOIN LATERAL (
    SELECT pg_catalog.sum(d.seconds) AS seconds,
           pg_catalog.jsonb_object_agg(d.key, d.seconds) FILTER (WHERE d.seconds > 0) AS by_signal
    FROM (SELECT e.key, pg_catalog.round((e.value::bigint - COALESCE((s.waited_before ->> e.key)::bigint, 0)) / 1000.0, 1) AS seconds
          FROM pg_catalog.jsonb_each_text(s.waited_ms) e) d
) w ON true
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));

COMMENT ON VIEW backfill.progress IS 'One row per job that is the caller''s, or on a table of the caller''s: its state, how far it is, how fast, and what it waits for';
COMMENT ON FUNCTION backfill.pause(bigint) IS 'Holds a job after the batch it is in. For its owner, and for the owner of its table. Returns the state that results.';
COMMENT ON COLUMN backfill.progress.eta_state IS 'Why eta is NULL or zero: measuring, due, or waiting';
COMMENT ON COLUMN backfill.progress.rows_per_second IS 'Rows passed per second over the last minute of running; 0 while the job waits';
COMMENT ON COLUMN backfill.progress.eta IS 'Time left at this rate; NULL: no estimate yet (for the first three seconds, or 20 percent), or the job waits; zero: more rows than estimated were met, the end is due';
COMMENT ON COLUMN backfill.progress.seconds_working IS 'Time spent in batches, those included that failed and were rolled back, summed over the job''s workers';
COMMENT ON COLUMN backfill.progress.seconds_throttled IS 'Time spent waiting for signals, for the transactions of others between two waves, and before batches were tried again, summed over the job''s workers';
COMMENT ON COLUMN backfill.progress.rows_total IS 'Estimate of all rows of the walk: rows_done by percent; NULL: no estimate yet';
COMMENT ON COLUMN backfill.samples.seconds_throttled IS 'Time spent waiting for signals, for the transactions of others between two waves, and before batches were tried again';
COMMENT ON COLUMN backfill.samples.throttled_by IS 'That time by what for: the option of the signal, horizon (transactions of others), or retry';
COMMENT ON COLUMN backfill.progress.kind IS 'What the job does: backfill (an update), delete, copy, execute, or it only reads: dry run, or verification';
COMMENT ON COLUMN backfill.dashboard.eta IS 'Time left at this rate; due: more rows than estimated were met; ...: there is no estimate yet; waits: the job does';
COMMENT ON FUNCTION backfill.plan IS 'Tells what backfill.start with the same arguments would do: the walk, estimates of rows, time, WAL and growth, warnings with advice, and the statements. With format => ''json'' or ''text'' as one document. Changes nothing.';
COMMENT ON FUNCTION backfill.cancel(bigint, boolean) IS 'Ends a job for good after the batch it is in, or at once with now => true (the batch is rolled back). Batches already committed stay. For its owner, and for the owner of its table. Returns the state that results.';
COMMENT ON PROCEDURE backfill.wait(bigint, integer) IS 'Waits until a job has completed, holding no snapshot meanwhile, and says what came of it; an error if it fails, is cancelled, or the time is over. For its owner, and for the owner of its table. Not within a transaction block.';
COMMENT ON FUNCTION backfill.status(bigint) IS 'One job''s row of backfill.progress; an error if there is no such job, or it is not for the caller to see';

DROP FUNCTION backfill.state_of(text, integer, text, integer, boolean, bigint, bigint);
DROP FUNCTION backfill.waiting_for(text, bigint, integer, integer, double precision, bigint, bigint);

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

CREATE FUNCTION backfill.redefine(job_id bigint, set_clause text DEFAULT NULL, where_clause text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'redefine_wrapper';
COMMENT ON FUNCTION backfill.redefine(bigint, text, text) IS 'Gives a failed or paused job other clauses, which backfill.resume goes on with from its checkpoint: rows that are done are not done again. What is NULL stays.';

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

CREATE FUNCTION backfill_internal.visible_named(name text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'visible_named_wrapper';
COMMENT ON FUNCTION backfill_internal.visible_named IS 'Internal: the id of the job of this name, if it is one that the caller may see; else an error';

COMMENT ON COLUMN backfill.events.event IS 'define, start, approve, pause, resume, cancel, alter, redefine, retry failed rows (by calls); worker started, worker left, worker stopped, walk by key, paused, cancelled, completed, failed (by the workers)';

-- It has one more argument now.
DROP FUNCTION backfill.require_completed(text, boolean);
CREATE FUNCTION backfill.require_completed(name text, verified boolean DEFAULT false, relation regclass DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'require_completed_of_wrapper';
COMMENT ON FUNCTION backfill.require_completed IS 'An error unless the backfill of this name, on this relation, has completed all of it, without a failed row; with verified, unless it was found to be right since. For the next migration. Never waits.';

-- As in sql/guard.sql.
DO $$
DECLARE
    own pg_catalog.regclass;
BEGIN
    FOR own IN
        SELECT c.oid
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
        JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
        WHERE e.extname = 'backfill' AND d.deptype = 'e' AND c.relkind = 'r'
        ORDER BY c.oid
    LOOP
        EXECUTE pg_catalog.format('CREATE OR REPLACE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s
            FOR EACH STATEMENT EXECUTE FUNCTION backfill_internal.guard()', own);
        EXECUTE pg_catalog.format('CREATE OR REPLACE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON %s
            FOR EACH ROW EXECUTE FUNCTION backfill_internal.guard()', own);
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER guard, ENABLE REPLICA TRIGGER guard_row', own);
    END LOOP;
END $$;

-- As in sql/revoke.sql.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        WITH member AS (
            SELECT d.classid, d.objid
            FROM pg_catalog.pg_extension e
            JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
            WHERE e.extname = 'backfill' AND d.deptype = 'e'
        ), relation AS (
            SELECT c.oid, c.relkind, c.relowner, c.relacl,
                   pg_catalog.concat(CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END, c.oid::pg_catalog.regclass) AS object
            FROM member m
            JOIN pg_catalog.pg_class c ON m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objid = c.oid
            WHERE c.relkind IN ('r', 'v', 'S')
        ), granted AS (
            SELECT r.object, a.grantee, a.is_grantable, a.privilege_type AS privilege, r.relkind = 'v' AND a.privilege_type = 'SELECT' AS stays
            FROM relation r CROSS JOIN LATERAL pg_catalog.aclexplode(r.relacl) a
            WHERE a.grantee <> r.relowner
            UNION ALL
            SELECT r.object, a.grantee, a.is_grantable, pg_catalog.format('%s (%I)', a.privilege_type, t.attname),
                   r.relkind = 'v' AND a.privilege_type = 'SELECT'
            FROM relation r
            JOIN pg_catalog.pg_attribute t ON t.attrelid = r.oid
            CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) a
            WHERE a.grantee <> r.relowner
            UNION ALL
            SELECT pg_catalog.concat('ROUTINE ', p.oid::pg_catalog.regprocedure), a.grantee, a.is_grantable, a.privilege_type, true
            FROM member m
            JOIN pg_catalog.pg_proc p ON m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.objid = p.oid
            CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) a
            WHERE a.grantee <> p.proowner
            UNION ALL
            SELECT pg_catalog.concat('SCHEMA ', n.nspname), a.grantee, a.is_grantable, a.privilege_type,
                   n.nspname = 'backfill' AND a.privilege_type = 'USAGE'
            FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
            WHERE n.nspname IN ('backfill', 'backfill_internal') AND a.grantee <> n.nspowner
        )
        SELECT pg_catalog.format('REVOKE %s%s ON %s FROM %s CASCADE', CASE WHEN g.stays THEN 'GRANT OPTION FOR ' END, g.privilege, g.object,
                                 CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::pg_catalog.regrole::text END)
        FROM granted g
        WHERE NOT g.stays OR g.is_grantable
    LOOP
        EXECUTE statement;
    END LOOP;

    -- What another superuser's update has made belongs to the owner of the rest.
    FOR statement IN
        SELECT pg_catalog.format('ALTER %s %s OWNER TO %s', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
                                 c.oid::pg_catalog.regclass, j.relowner::pg_catalog.regrole)
        FROM pg_catalog.pg_class j
        JOIN pg_catalog.pg_depend o ON o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.objid = j.oid AND o.deptype = 'e'
        JOIN pg_catalog.pg_depend d ON d.refclassid = o.refclassid AND d.refobjid = o.refobjid AND d.classid = o.classid AND d.deptype = 'e'
        JOIN pg_catalog.pg_class c ON c.oid = d.objid
        WHERE j.oid = 'backfill_internal.job'::pg_catalog.regclass AND o.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND c.relkind IN ('r', 'v') AND c.relowner <> j.relowner
        UNION ALL
        SELECT pg_catalog.format('ALTER SCHEMA backfill_internal OWNER TO %s', j.relowner::pg_catalog.regrole)
        FROM pg_catalog.pg_class j JOIN pg_catalog.pg_namespace n ON n.oid = j.relnamespace
        WHERE j.oid = 'backfill_internal.job'::pg_catalog.regclass AND n.nspname = 'backfill_internal' AND n.nspowner <> j.relowner
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;

COMMENT ON COLUMN backfill.progress.work IS 'Of copy: the target (OID, schema, name), columns, select_list, on_conflict and lock; of execute: statement and lock; of delete: the archive';
COMMENT ON COLUMN backfill.progress.last_error IS 'Why it failed, until it is resumed: message, SQLSTATE, what the batch was about (a range of keys or pages); in full only with SELECT on the relation';
CREATE OR REPLACE VIEW backfill.dashboard WITH (security_barrier) AS
SELECT CASE WHEN pg_catalog.length(n.job) > w.job THEN pg_catalog.left(n.job, w.job - pg_catalog.length(b.more)) || b.more ELSE n.job END AS job,
       CASE WHEN pg_catalog.length(n.relation) > w.relation THEN pg_catalog.left(n.relation, w.relation - pg_catalog.length(b.more)) || b.more
            ELSE n.relation END AS "table",
       CASE WHEN p.percent IS NULL THEN pg_catalog.repeat(b.empty, 5) || '   ?%'
            ELSE pg_catalog.repeat(b.full, f.fifths) || pg_catalog.repeat(b.empty, 5 - f.fifths)
                 || pg_catalog.lpad(pg_catalog.trunc(p.percent)::text, 4) || '%' END AS done,
       CASE WHEN p.rows_per_second >= 9950000 THEN pg_catalog.round(p.rows_per_second / 1000000) || 'M/s'
            WHEN p.rows_per_second >= 999500 THEN pg_catalog.round(p.rows_per_second / 1000000, 1) || 'M/s'
            WHEN p.rows_per_second >= 9950 THEN pg_catalog.round(p.rows_per_second / 1000) || 'k/s'
            WHEN p.rows_per_second >= 999.5 THEN pg_catalog.round(p.rows_per_second / 1000, 1) || 'k/s'
            ELSE pg_catalog.round(p.rows_per_second) || '/s' END AS rate,
       CASE WHEN p.eta_state = 'due' THEN 'due' WHEN p.eta_state = 'measuring' THEN '...' WHEN p.eta_state = 'waiting' THEN 'waits'
            WHEN e.seconds >= 8640000 THEN '>99d'
            WHEN e.seconds >= 86400 THEN pg_catalog.concat(e.seconds / 86400, 'd', e.seconds % 86400 / 3600, 'h')
            WHEN e.seconds >= 3600 THEN pg_catalog.concat(e.seconds / 3600, 'h', e.seconds % 3600 / 60, 'm')
            WHEN e.seconds >= 60 THEN pg_catalog.concat(e.seconds / 60, 'm', e.seconds % 60, 's')
            ELSE e.seconds || 's' END AS eta,
       CASE WHEN pg_catalog.length(d.doing) > 15 THEN pg_catalog.left(d.doing, 15 - pg_catalog.length(b.more)) || b.more ELSE d.doing END AS doing
FROM backfill.progress p
CROSS JOIN LATERAL (
    SELECT pg_catalog.regexp_replace(pg_catalog.concat_ws(' ', p.job_id, p.name), '[[:cntrl:]]', ' ', 'g') AS job,
           pg_catalog.regexp_replace(COALESCE((SELECT CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN c.relname::text
                                                             ELSE pg_catalog.concat(c.relnamespace::pg_catalog.regnamespace, '.', c.relname) END
                                                 FROM pg_catalog.pg_class c WHERE c.oid = p.relation), '(dropped)'),
                                     '[[:cntrl:]]', ' ', 'g') AS relation
) n
CROSS JOIN LATERAL (
    SELECT CASE WHEN n.job ~ '[^\u0001-\u07FF]' THEN 7 ELSE 14 END AS job,
           CASE WHEN n.relation ~ '[^\u0001-\u07FF]' THEN 6 ELSE 12 END AS relation
) w
CROSS JOIN LATERAL (
    SELECT CASE WHEN p.state <> 'running' THEN p.state
                WHEN p.waiting_for IS NULL THEN CASE WHEN p.phase LIKE 'walk%' OR p.phase IS NULL THEN 'running' ELSE pg_catalog.split_part(p.phase, ' ', 1) END
                WHEN p.waiting_for LIKE 'a lock%' THEN 'lock'
                WHEN p.waiting_for LIKE '%: %' THEN pg_catalog.regexp_replace(pg_catalog.split_part(p.waiting_for, ':', 1), '^(max_|yield_to_)', '')
                ELSE p.waiting_for END AS doing
) d
CROSS JOIN LATERAL (SELECT extract(epoch FROM p.eta)::bigint AS seconds) e
CROSS JOIN LATERAL (SELECT pg_catalog.trunc(p.percent / 20)::integer AS fifths) f
CROSS JOIN (
    -- convert_from is not IMMUTABLE, so that it is called in databases alone that have these signs.
    SELECT CASE WHEN u.utf8 THEN pg_catalog.convert_from('\xe29688', 'UTF8') COLLATE pg_catalog."default" ELSE '#' END AS full,
           CASE WHEN u.utf8 THEN pg_catalog.convert_from('\xe29691', 'UTF8') COLLATE pg_catalog."default" ELSE '.' END AS empty,
           CASE WHEN u.utf8 THEN pg_catalog.convert_from('\xe280a6', 'UTF8') COLLATE pg_catalog."default" ELSE '...' END AS more
    FROM (SELECT pg_catalog.pg_client_encoding() = 'UTF8' AND pg_catalog.getdatabaseencoding() = 'UTF8' AS utf8) u
) b
WHERE NOT p.state IN ('completed', 'cancelled') OR p.finished_at > pg_catalog.now() - interval '1 hour'
ORDER BY CASE WHEN p.state IN ('running', 'pausing', 'cancelling') THEN 1 WHEN p.state IN ('completed', 'cancelled') THEN 3 ELSE 2 END, p.job_id;
COMMENT ON COLUMN backfill.dashboard."table" IS 'The table, with its schema where that is not in the search_path';

-- Its names are looked up here, once.
CREATE VIEW backfill.queue WITH (security_barrier) AS
SELECT pg_catalog.row_number() OVER (ORDER BY q.held, q.turn, q.since, q.job_id)::integer AS position,
       q.job_id, q.name, q.relation, q.owner, q.priority, q.since AS waiting_since, q.workers_wanted, q.waiting_for
FROM (
    SELECT w.*, pg_catalog.row_number() OVER (PARTITION BY w.held, w.owner ORDER BY w.priority DESC, w.since, w.job_id) AS turn
    FROM (
        SELECT p.job_id, p.name, p.relation, p.owner, p.workers_wanted, p.waiting_for,
               COALESCE((p.options ->> 'priority')::integer, 0) AS priority,
               p.waiting_for LIKE 'the end of job %' AS held,
               GREATEST(j.wished_at, (SELECT pg_catalog.max(e.at) FROM backfill_internal.event e
                                      WHERE e.job_id = j.id AND e.event = 'worker left')) AS since
        FROM backfill.progress p JOIN backfill_internal.job j ON j.id = p.job_id
        WHERE p.state = 'running' AND p.workers = 0
    ) w
) q
ORDER BY 1;

COMMENT ON VIEW backfill.queue IS 'Jobs that wait for a worker, in the order in which they get one, as far as the caller may see them';
COMMENT ON COLUMN backfill.queue.position IS 'Who is next: 1 is the first. Jobs that come after others (option after) are last';
COMMENT ON COLUMN backfill.queue.job_id IS 'The job''s id';
COMMENT ON COLUMN backfill.queue.name IS 'The job''s name';
COMMENT ON COLUMN backfill.queue.relation IS 'The table';
COMMENT ON COLUMN backfill.queue.owner IS 'The role that defined the job; roles take turns';
COMMENT ON COLUMN backfill.queue.priority IS 'Option priority: of the jobs of a role, those with a higher number come first';
COMMENT ON COLUMN backfill.queue.waiting_since IS 'When it was started or resumed, or gave its worker back';
COMMENT ON COLUMN backfill.queue.workers_wanted IS 'Workers asked for with the option workers';
COMMENT ON COLUMN backfill.queue.waiting_for IS 'What it waits for, and what to do about it';
GRANT SELECT ON backfill.queue TO PUBLIC;

CREATE OR REPLACE FUNCTION backfill.status(job_id bigint) RETURNS backfill.progress
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT backfill_internal.visible_job($1);
    SELECT p FROM backfill.progress p WHERE p.job_id OPERATOR(pg_catalog.=) $1;
END;

CREATE FUNCTION backfill.status(name text) RETURNS backfill.progress
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT backfill.status(backfill_internal.visible_named($1));
END;
COMMENT ON FUNCTION backfill.status(text) IS 'The same for the job of this name; the schema of its table may stand before it';

-- set_not_null on a table of another role's: the steps run as that role.
CREATE OR REPLACE PROCEDURE backfill.set_not_null(
    relation        regclass,
    column_name     name,
    lock_timeout_ms integer DEFAULT 1000,
    retries         integer DEFAULT 30
) LANGUAGE c AS 'MODULE_PATHNAME', 'set_not_null_wrapper';
COMMENT ON PROCEDURE backfill.set_not_null IS 'Sets a column NOT NULL while the table is in use: in steps of one transaction each, with lock timeouts and retries. From the first step on writes that leave it NULL fail. Nothing is done where it is NOT NULL. Not within a transaction block.';
DROP PROCEDURE backfill.outside_block(text);

-- No view reads them any more.
ALTER TABLE backfill_internal.job DROP COLUMN set_clause, DROP COLUMN set_columns, DROP COLUMN verifies, DROP COLUMN check_clause,
    DROP COLUMN recompute;

-- Last, in each such script: workers that run look between two batches whether their job's row has
-- changed, and see then that the extension is not that of their library any more.
UPDATE backfill_internal.job SET version = version + 1;
