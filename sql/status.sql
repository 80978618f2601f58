-- Needs both the view (its row type) and the functions. Its names are looked up here, once: who calls it has no way into
-- the schema backfill_internal.

CREATE FUNCTION backfill.status(job_id bigint) RETURNS backfill.progress
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT backfill_internal.visible_job($1);
    SELECT p FROM backfill.progress p WHERE p.job_id OPERATOR(pg_catalog.=) $1;
END;
COMMENT ON FUNCTION backfill.status(bigint) IS 'One job''s row of backfill.progress; an error if there is no such job, or it is not for the caller to see';

CREATE FUNCTION backfill.status(name text) RETURNS backfill.progress
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT backfill.status(backfill_internal.visible_named($1));
END;
COMMENT ON FUNCTION backfill.status(text) IS 'The same for the job of this name; the schema of its table may stand before it';
