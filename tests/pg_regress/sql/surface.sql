-- What the extension consists of: names, arguments, comments, rights.
SELECT e.extname, n.nspname AS schema
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'backfill';

-- The functions: what later versions add goes into options, so that these lines never change.
SELECT p.proname AS name, p.prokind AS kind,
       replace(pg_get_function_arguments(p.oid), ', ', E',\n') AS arguments,
       pg_get_function_result(p.oid) AS result
FROM pg_proc p WHERE p.pronamespace = 'backfill'::regnamespace
ORDER BY p.proname, p.oid::regprocedure::text;

-- What the views, the triggers and status call: not for users, who have no way into that schema.
SELECT p.proname AS name, p.prokind AS kind,
       replace(pg_get_function_arguments(p.oid), ', ', E',\n') AS arguments,
       pg_get_function_result(p.oid) AS result
FROM pg_proc p WHERE p.pronamespace = 'backfill_internal'::regnamespace
ORDER BY p.proname, p.oid::regprocedure::text;

-- Nothing of it runs with more rights than its caller's, or without being told of NULLs.
SELECT p.proname FROM pg_proc p
WHERE p.pronamespace::regnamespace::text ~ '^backfill' AND (p.prosecdef OR p.proisstrict)
ORDER BY 1;

-- The view that monitoring reads: the first 19 columns keep their place.
SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a
WHERE a.attrelid = 'backfill.progress'::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a
WHERE a.attrelid = 'backfill.events'::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- What lacks a comment. No rows.
SELECT pg_describe_object(classid, objid, objsubid) AS without_comment
FROM (
    SELECT 'pg_proc'::regclass, oid, 0 FROM pg_proc WHERE pronamespace::regnamespace::text ~ '^backfill'
    UNION ALL
    SELECT 'pg_class'::regclass, oid, 0 FROM pg_class
    WHERE relnamespace::regnamespace::text ~ '^backfill' AND relkind IN ('r', 'v', 'm', 'p')
    UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace::regnamespace::text ~ '^backfill' AND c.relkind IN ('r', 'v', 'm', 'p')
      AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'pg_namespace'::regclass, oid, 0 FROM pg_namespace WHERE nspname ~ '^backfill'
    UNION ALL
    SELECT 'pg_extension'::regclass, oid, 0 FROM pg_extension WHERE extname = 'backfill'
) AS o(classid, objid, objsubid)
WHERE NOT EXISTS (
    SELECT FROM pg_description d
    WHERE d.classoid = o.classid AND d.objoid = o.objid AND d.objsubid = o.objsubid AND d.description <> ''
)
ORDER BY 1;

-- The settings, and those that say too little about themselves (none).
SELECT name, boot_val AS "default", unit, vartype, context, min_val, max_val FROM pg_settings
WHERE name LIKE 'backfill.%' ORDER BY name;
SELECT name FROM pg_settings
WHERE name LIKE 'backfill.%' AND (short_desc IS NULL OR extra_desc IS NULL OR short_desc = '' OR extra_desc = '');

-- A mistyped setting is an error, not a setting that nobody reads.
SET backfill.enable = off;
SET backfill.enabled = off;

-- Tables without a primary key. No rows.
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'backfill_internal'::regnamespace AND c.relkind IN ('r', 'p')
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')
ORDER BY 1;

-- Columns that hold relations and roles have a type that shows their names and follows a rename.
SELECT a.attrelid::regclass AS relation, a.attname, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'backfill_internal'::regnamespace AND c.relkind = 'r'
  AND a.attname IN ('relation', 'owner', 'actor')
ORDER BY 1, 2;

-- What PUBLIC may do: use the schema, read the views, call every function. Nothing else.
SELECT 'schema' AS kind, nspname AS name, x.privilege_type
FROM pg_namespace, aclexplode(nspacl) x WHERE nspname ~ '^backfill' AND x.grantee = 0
UNION ALL
SELECT 'relation', c.relname, x.privilege_type
FROM pg_class c, aclexplode(c.relacl) x WHERE c.relnamespace::regnamespace::text ~ '^backfill' AND x.grantee = 0
UNION ALL
SELECT 'column', a.attrelid::regclass || '.' || a.attname, x.privilege_type
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, aclexplode(a.attacl) x
WHERE c.relnamespace::regnamespace::text ~ '^backfill'
UNION ALL
SELECT 'closed function', p.proname, NULL FROM pg_proc p
WHERE p.pronamespace::regnamespace::text ~ '^backfill' AND NOT has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY 1, 2, 3;

-- A view that filters by role must not run a caller's function on rows that it hides.
SELECT c.relname, c.reloptions FROM pg_class c
WHERE c.relnamespace = 'backfill'::regnamespace AND c.relkind = 'v' ORDER BY 1;

-- What a dump of the database takes along: every table, and the sequences that number rows.
SELECT t.oid::regclass AS dumped, t.condition
FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS t(oid, condition)
WHERE e.extname = 'backfill' ORDER BY 1;
SELECT c.oid::regclass AS not_dumped FROM pg_class c, pg_extension e
WHERE e.extname = 'backfill' AND c.relnamespace = 'backfill_internal'::regnamespace AND c.relkind IN ('r', 'S')
  AND c.oid <> ALL (e.extconfig)
ORDER BY 1;
