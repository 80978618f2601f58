-- What people and monitoring look at. A role sees its own jobs, those of roles it is a member of, those on tables that it
-- owns (or whose partitioned table it owns), and all of them as superuser or member of pg_monitor.

CREATE VIEW backfill.progress WITH (security_barrier) AS
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

COMMENT ON VIEW backfill.progress IS 'One row per job that is the caller''s, or on a table of the caller''s: its state, how far it is, how fast, and what it waits for';
COMMENT ON COLUMN backfill.progress.job_id IS 'The job, as pause, resume, cancel and the others take it';
COMMENT ON COLUMN backfill.progress.name IS 'The name given at define or start';
COMMENT ON COLUMN backfill.progress.relation IS 'The table';
COMMENT ON COLUMN backfill.progress.state IS 'pending, running, pausing, paused, cancelling, cancelled, completed or failed';
COMMENT ON COLUMN backfill.progress.percent IS 'Share of rows passed; NULL while there is no estimate, 100 only when completed, never backwards';
COMMENT ON COLUMN backfill.progress.rows_done IS 'Rows passed by the walk, whether or not they matched the WHERE clause';
COMMENT ON COLUMN backfill.progress.rows_total IS 'Estimate of all rows of the walk: rows_done by percent; NULL: no estimate yet';
COMMENT ON COLUMN backfill.progress.rows_updated IS 'Rows changed; of a dry run, those that would change; of a verification, those that are wrong';
COMMENT ON COLUMN backfill.progress.rows_failed IS 'Rows stepped over because of an error: see backfill.failed_rows';
COMMENT ON COLUMN backfill.progress.rows_per_second IS 'Rows passed per second over the last minute of running; 0 while the job waits';
COMMENT ON COLUMN backfill.progress.eta IS 'Time left at this rate; NULL: no estimate yet (for the first three seconds, or 20 percent), or the job waits; zero: more rows than estimated were met, the end is due';
COMMENT ON COLUMN backfill.progress.batch_size IS 'Rows per commit, at most';
COMMENT ON COLUMN backfill.progress.sleep_ms IS 'Pause between two commits, in milliseconds';
COMMENT ON COLUMN backfill.progress.workers IS 'Workers that hold the job now';
COMMENT ON COLUMN backfill.progress.waiting_for IS 'What the job waits for, if it does, and what to do about it';
COMMENT ON COLUMN backfill.progress.last_error IS 'Why it failed, until it is resumed: message, SQLSTATE, what the batch was about (a range of keys or pages); in full only with SELECT on the relation';
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
COMMENT ON COLUMN backfill.progress.eta_state IS 'Why eta is NULL or zero: measuring, due, or waiting';
COMMENT ON COLUMN backfill.progress.waiting_since IS 'Since when the job gives way to a signal, or waits for a table that is locked';
COMMENT ON COLUMN backfill.progress.seconds_working IS 'Time spent in batches, those included that failed and were rolled back, summed over the job''s workers';
COMMENT ON COLUMN backfill.progress.seconds_sleeping IS 'Time spent in the pauses that sleep_ms asks for, summed over the job''s workers';
COMMENT ON COLUMN backfill.progress.seconds_throttled IS 'Time spent waiting for signals, for the transactions of others between two waves, and before batches were tried again, summed over the job''s workers';
COMMENT ON COLUMN backfill.progress.batch_ms IS 'What the last batch took, in milliseconds; of several workers, the longest';
COMMENT ON COLUMN backfill.progress.batch_ms_p95 IS 'What 95 per cent of a worker''s last 200 batches took at most, in milliseconds; of several workers, the longest';
COMMENT ON COLUMN backfill.progress.wal_bytes IS 'WAL that the job''s workers have written, in bytes';
COMMENT ON COLUMN backfill.progress.options IS 'The options of the job, without the values of settings, which may be secrets';
COMMENT ON COLUMN backfill.progress.kind IS 'What the job does: backfill (an update), delete, copy, execute, or it only reads: dry run, or verification';
COMMENT ON COLUMN backfill.progress.verifies IS 'Of a verification: the job whose rows it looks at';
COMMENT ON COLUMN backfill.progress.work IS 'Of copy: the target (OID, schema, name), columns, select_list, on_conflict and lock; of execute: statement and lock; of delete: the archive';

CREATE VIEW backfill.failed_rows WITH (security_barrier) AS
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
SELECT f.id AS verify_failure_id, f.job_id AS verification_id, (j.work #>> '{question,verify,job}')::bigint AS job_id, f.relation, f.key_columns,
       CASE WHEN COALESCE(pg_catalog.has_table_privilege(f.relation, 'SELECT') AND NOT pg_catalog.row_security_active(f.relation), pg_catalog.pg_has_role(j.owner, 'USAGE')) THEN f.key END AS key,
       f.at
FROM backfill_internal.verify_failure f
JOIN backfill_internal.job j ON j.id = f.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));

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
FROM backfill_internal.leftover l
JOIN backfill_internal.slice s ON s.id = l.slice_id
JOIN backfill_internal.job j ON j.id = s.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));

COMMENT ON VIEW backfill.skipped_rows IS 'Rows that a job has passed and will come back to: others had them locked (option locked_rows), or backfill.retry_failed tries them again';
COMMENT ON COLUMN backfill.skipped_rows.job_id IS 'The job';
COMMENT ON COLUMN backfill.skipped_rows.name IS 'The job''s name';
COMMENT ON COLUMN backfill.skipped_rows.relation IS 'The table, or the partition, that the row is in';
COMMENT ON COLUMN backfill.skipped_rows.key_columns IS 'The columns of its key';
COMMENT ON COLUMN backfill.skipped_rows.key IS 'Its key, as text; only with SELECT on the relation';
COMMENT ON COLUMN backfill.skipped_rows.at IS 'When it was passed';

CREATE VIEW backfill.events WITH (security_barrier) AS
SELECT e.id AS event_id, e.job_id, j.name, e.at, e.actor, e.event, e.old, e.new, e.login
FROM backfill_internal.event e
JOIN backfill_internal.job j ON j.id = e.job_id
WHERE pg_catalog.pg_has_role(j.owner, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid IN (j.relation, pg_catalog.pg_partition_root(j.relation))
                                                  AND pg_catalog.pg_has_role(c.relowner, 'USAGE'));

COMMENT ON VIEW backfill.events IS 'The audit trail: who did what to which job, when, and what it changed';
COMMENT ON COLUMN backfill.events.event_id IS 'Orders the events';
COMMENT ON COLUMN backfill.events.job_id IS 'The job';
COMMENT ON COLUMN backfill.events.name IS 'The job''s name';
COMMENT ON COLUMN backfill.events.at IS 'When';
COMMENT ON COLUMN backfill.events.actor IS 'The role that called, or the owner for what the worker did';
COMMENT ON COLUMN backfill.events.event IS 'define, start, approve, pause, resume, cancel, alter, redefine, retry failed rows (by calls); worker started, worker left, worker stopped, walk by key, paused, cancelled, completed, failed (by the workers)';
COMMENT ON COLUMN backfill.events.old IS 'The state or value before';
COMMENT ON COLUMN backfill.events.new IS 'The state or value after';
COMMENT ON COLUMN backfill.events.login IS 'The role that was logged in (session_user) where it was done: the person, where that one has used SET ROLE';

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
COMMENT ON COLUMN backfill.samples.seconds_throttled IS 'Time spent waiting for signals, for the transactions of others between two waves, and before batches were tried again';
COMMENT ON COLUMN backfill.samples.throttled_by IS 'That time by what for: the option of the signal, horizon (transactions of others), or retry';
COMMENT ON COLUMN backfill.samples.lag_bytes IS 'WAL that the furthest-behind standby or slot lacked at the end, in bytes; NULL where no bound is set, or there is none';

-- A line a job, 80 columns wide in psql: what is wide in a terminal counts as two columns, what would break the
-- line is a blank.
CREATE VIEW backfill.dashboard WITH (security_barrier) AS
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

COMMENT ON VIEW backfill.dashboard IS 'A line a job, for \watch in psql: what runs, then what stands still, then what ended within the last hour';
COMMENT ON COLUMN backfill.dashboard.job IS 'The job''s id, and its name';
COMMENT ON COLUMN backfill.dashboard."table" IS 'The table, with its schema where that is not in the search_path';
COMMENT ON COLUMN backfill.dashboard.done IS 'Share of rows passed';
COMMENT ON COLUMN backfill.dashboard.rate IS 'Rows passed per second, over the last minute of running';
COMMENT ON COLUMN backfill.dashboard.eta IS 'Time left at this rate; due: more rows than estimated were met; ...: there is no estimate yet; waits: the job does';
COMMENT ON COLUMN backfill.dashboard.doing IS 'What it does: the state, or what a running one waits for: the name of the option, without max_, or the beginning of waiting_for in backfill.progress';

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
