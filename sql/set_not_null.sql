-- SET NOT NULL without a lock that is held while the table is read. ALTER TABLE ... SET NOT NULL by itself reads the
-- table under an ACCESS EXCLUSIVE lock, unless a valid constraint says already that there is no NULL. With the
-- caller's rights; on a table of another role's each statement runs as that role, in a process of its own.

CREATE FUNCTION backfill.set_not_null_statements(relation regclass, column_name name)
RETURNS TABLE (step integer, statement text, lock text, undo text)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE CALLED ON NULL INPUT ROWS 4 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- The name has to fit into 63 bytes.
    own constant text := 'backfill_not_null_' || CASE WHEN octet_length($2::text) > 45 THEN md5($2::text) ELSE $2::text END;
    brief constant text := 'ACCESS EXCLUSIVE, for a moment';
    reading constant text := 'SHARE UPDATE EXCLUSIVE, while it reads the table';
    t record;
    mine record;
    native text;
    pending text;
    proven boolean;
    alter_table text;
    drop_own text;
BEGIN
    IF $1 IS NULL OR $2 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('%s must not be NULL', CASE WHEN $1 IS NULL THEN 'relation' ELSE 'column_name' END),
            HINT = 'Name the table, and one column of it.';
    END IF;
    SELECT n.nspname, c.relname, c.relkind, a.attnum, a.attnotnull, a.atttypid INTO t
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.oid = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('there is no table with OID %s', $1::oid),
            HINT = 'It was dropped. Give the table by its name.';
    ELSIF t.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('%I.%I is not a table', t.nspname, t.relname),
            HINT = 'Only columns of tables and partitioned tables can be set NOT NULL in steps.';
    ELSIF t.attnum IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column',
            MESSAGE = format('column "%s" of relation "%s" does not exist', $2, t.relname),
            HINT = 'Give the name as it is stored: without quotes, and in lower case unless it was created in quotes.';
    END IF;

    alter_table := format('ALTER TABLE %I.%I ', t.nspname, t.relname);
    drop_own := alter_table || format('DROP CONSTRAINT %I', own);
    SELECT k.contype, k.convalidated, k.conislocal AND k.coninhcount = 0 AS droppable,
           k.contype = 'c' AND NOT k.connoinherit
               AND pg_get_expr(k.conbin, k.conrelid) = format('(%I IS NOT NULL)', $2) AS check_of_column INTO mine
    FROM pg_constraint k WHERE k.conrelid = $1 AND k.conname = own;
    IF mine.contype <> 'n' AND NOT mine.check_of_column THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = format('constraint "%s" of relation "%s" is not the one that this is to be done with', own, t.relname),
            HINT = format('It has to be CHECK (%I IS NOT NULL). Rename it.', $2);
    END IF;
    -- One that children don't have proves nothing of them.
    SELECT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = $1 AND k.contype = 'c' AND k.convalidated
                   AND NOT (k.connoinherit AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = $1))
                   AND pg_get_expr(k.conbin, k.conrelid) = format('(%I IS NOT NULL)', $2)) INTO proven;
    -- From PostgreSQL 18 on a column is marked as NOT NULL with a constraint that is not validated.
    SELECT k.conname INTO pending FROM pg_constraint k
    WHERE k.conrelid = $1 AND k.contype = 'n' AND k.conkey = ARRAY[t.attnum] AND NOT k.convalidated;

    step := 1;
    IF pending IS NOT NULL THEN
        statement := alter_table || format('VALIDATE CONSTRAINT %I', pending);
        lock := reading;
        RETURN NEXT;
        step := step + 1;
    ELSIF NOT t.attnotnull AND NOT proven AND current_setting('server_version_num')::integer >= 180000 THEN
        -- The server's own way takes a strong lock once, not three times, and leaves the name that SET NOT NULL would.
        native := format('%s_%s_not_null', t.relname, $2);
        IF octet_length(native) > 63 OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = $1 AND k.conname = native) THEN
            native := own;
        END IF;
        IF native = own AND mine.contype IS NOT NULL THEN
            native := left(own, 40) || '_' || t.attnum;
        END IF;
        undo := alter_table || format('DROP CONSTRAINT %I', native);
        statement := alter_table || format('ADD CONSTRAINT %I NOT NULL %I NOT VALID', native, $2);
        lock := brief;
        RETURN NEXT;
        step := step + 1;
        statement := alter_table || format('VALIDATE CONSTRAINT %I', native);
        lock := reading;
        RETURN NEXT;
        step := step + 1;
    ELSIF NOT t.attnotnull THEN
        -- For a composite value IS NOT NULL says something else, and PostgreSQL does not take it as a proof.
        IF NOT proven AND EXISTS (
            WITH RECURSIVE base AS (
                SELECT y.typtype, y.typbasetype FROM pg_type y WHERE y.oid = t.atttypid
                UNION ALL SELECT y.typtype, y.typbasetype FROM base b JOIN pg_type y ON b.typtype = 'd' AND y.oid = b.typbasetype
            ) SELECT FROM base WHERE typtype = 'c') THEN
            RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                MESSAGE = format('column "%s" of relation "%s" is of a composite type, which cannot be set NOT NULL in steps', $2, t.relname),
                HINT = 'Before PostgreSQL 18 there is only ALTER TABLE ... SET NOT NULL, which keeps everybody out while it reads the table.';
        END IF;
        lock := brief;
        -- What a parent has handed down can be dropped there only.
        undo := CASE WHEN mine.contype IS NULL OR mine.droppable THEN drop_own END;
        IF mine.contype IS NULL AND NOT proven THEN
            statement := alter_table || format('ADD CONSTRAINT %I CHECK (%I IS NOT NULL) NOT VALID', own, $2);
            RETURN NEXT;
            step := step + 1;
        END IF;
        IF NOT proven THEN
            statement := alter_table || format('VALIDATE CONSTRAINT %I', own);
            lock := reading;
            RETURN NEXT;
            step := step + 1;
        END IF;
        undo := NULL;
        lock := brief;
        statement := alter_table || format('ALTER COLUMN %I SET NOT NULL', $2);
        RETURN NEXT;
        step := step + 1;
        IF mine.contype IS NULL AND NOT proven THEN
            statement := drop_own;
            RETURN NEXT;
        END IF;
    END IF;
    -- Ours, of this time or of an earlier one that did not come to its end.
    IF mine.check_of_column AND mine.droppable THEN
        undo := NULL;
        lock := brief;
        statement := drop_own;
        RETURN NEXT;
    END IF;
END
$$;
COMMENT ON FUNCTION backfill.set_not_null_statements IS 'The statements, one transaction each, that set a column NOT NULL while the table is in use: what is left to be done, so none if it is NOT NULL. undo takes back what has been done so far. Changes nothing.';

CREATE PROCEDURE backfill.set_not_null(
    relation        regclass,
    column_name     name,
    lock_timeout_ms integer DEFAULT 1000,
    retries         integer DEFAULT 30
) LANGUAGE c AS 'MODULE_PATHNAME', 'set_not_null_wrapper';
COMMENT ON PROCEDURE backfill.set_not_null IS 'Sets a column NOT NULL while the table is in use: in steps of one transaction each, with lock timeouts and retries. From the first step on writes that leave it NULL fail. Nothing is done where it is NOT NULL. Not within a transaction block.';
