-- The predefined role pg_write_all_data may write to every table. What a worker does with whose rights
-- stands in these, so they are not for it. The others hold no more than positions and records.

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
