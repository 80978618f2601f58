-- Whatever ALTER DEFAULT PRIVILEGES of whoever installs gave to others, or somebody granted later: nobody
-- but the extension's owner has rights on its tables and sequences, may put a trigger on its views, create
-- in its schema, or hand on what everybody may do. What everybody may do (look at the views, call the
-- functions) stays as the administrator has it. This block stands in upgrade scripts, too.
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
