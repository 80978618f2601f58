-- Everybody may call the functions: a job runs with the rights of who defined it, no more. The
-- tables are closed; the views filter by role themselves.

REVOKE ALL ON ALL TABLES IN SCHEMA backfill FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA backfill FROM PUBLIC;
GRANT USAGE ON SCHEMA backfill TO PUBLIC;
GRANT SELECT ON backfill.progress, backfill.failed_rows, backfill.verify_failures, backfill.skipped_rows, backfill.events, backfill.samples, backfill.dashboard TO PUBLIC;
