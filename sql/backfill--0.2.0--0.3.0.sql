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
            FOR EACH STATEMENT EXECUTE FUNCTION backfill.guard()', own);
        EXECUTE pg_catalog.format('CREATE OR REPLACE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON %s
            FOR EACH ROW EXECUTE FUNCTION backfill.guard()', own);
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
            SELECT 'SCHEMA backfill', a.grantee, a.is_grantable, a.privilege_type, a.privilege_type = 'USAGE'
            FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
            WHERE n.nspname = 'backfill' AND a.grantee <> n.nspowner
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
        WHERE j.oid = 'backfill.job'::pg_catalog.regclass AND o.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND c.relkind IN ('r', 'v') AND c.relowner <> j.relowner
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;

-- Last, in each such script: workers that run look between two batches whether their job's row has
-- changed, and see then that the extension is not that of their library any more.
UPDATE backfill.job SET version = version + 1;
