-- Everybody may call the functions: a job runs with the rights of who defined it, no more. The
-- tables are closed; the views filter by role themselves.

REVOKE ALL ON ALL TABLES IN SCHEMA backfill, backfill_internal FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA backfill_internal FROM PUBLIC;
-- What PUBLIC gets below, and somebody has by default privileges besides.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT pg_catalog.format('REVOKE ALL ON %s FROM %s CASCADE', c.oid::pg_catalog.regclass, a.grantee::pg_catalog.regrole)
        FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
        WHERE c.relnamespace = 'backfill'::pg_catalog.regnamespace AND c.relkind = 'v' AND NOT a.grantee IN (0, c.relowner)
        UNION
        SELECT pg_catalog.format('REVOKE ALL ON SCHEMA backfill FROM %s CASCADE', a.grantee::pg_catalog.regrole)
        FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
        WHERE n.nspname = 'backfill' AND NOT a.grantee IN (0, n.nspowner)
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;
GRANT USAGE ON SCHEMA backfill TO PUBLIC;
GRANT SELECT ON backfill.progress, backfill.failed_rows, backfill.verify_failures, backfill.skipped_rows, backfill.events, backfill.samples, backfill.dashboard, backfill.queue TO PUBLIC;
