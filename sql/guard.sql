-- The predefined role pg_write_all_data may write to every table. What a worker does with whose rights
-- stands in these, where it goes on, and who did what: they are not for it.
--
-- ALWAYS, since triggers can be kept from firing: whoever may SET session_replication_role does so. And
-- one for rows, since what logical replication applies fires no trigger for statements. It is enabled where rows count as
-- replicated, which is how the extension's own functions write as well: it lets these pass. This block stands in upgrade scripts, too.
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
