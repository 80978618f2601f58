-- From 0.2.0 to 0.3.0: the security release.
--
-- Columns come last here that come earlier in a new database: their order means nothing. Views get
-- new columns at their end only, so that they can be replaced, whatever of the user's refers to them.

-- Nobody's operators, as in sql/tables.sql.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Not with the library of before: it would run the new SQL.
DO $$
BEGIN
    IF backfill.library_version() <> '0.3.0' THEN
        RAISE EXCEPTION 'extension "backfill" cannot be updated to version 0.3.0: the loaded library is of another version'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Install the library of version 0.3.0. Where it is installed, restart the server if the library is preloaded, else connect again.';
    END IF;
END $$;

-- Batches in progress end first, and others wait. So does whoever looks at the views.
LOCK TABLE backfill.job, backfill.walk, backfill.slice, backfill.checkpoint, backfill.outcome, backfill.event IN ACCESS EXCLUSIVE MODE;

-- Last, in each such script: workers that run look between two batches whether their job's row has
-- changed, and see then that the extension is not that of their library any more.
UPDATE backfill.job SET version = version + 1;
