-- SET NOT NULL without a lock that is held while the table is read. ALTER TABLE … SET NOT NULL by itself reads the
-- table under an ACCESS EXCLUSIVE lock, unless a valid constraint says already that there is no NULL. PL/pgSQL with the
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

CREATE PROCEDURE backfill.outside_block(called text)
LANGUAGE c AS 'MODULE_PATHNAME', 'outside_block_wrapper';
COMMENT ON PROCEDURE backfill.outside_block IS 'Internal: an error where the procedure that calls it may not commit';

CREATE FUNCTION backfill.not_null_step(relation regclass, column_name text, statement text, lock_timeout_ms integer) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'not_null_step_wrapper';
COMMENT ON FUNCTION backfill.not_null_step IS 'Internal: runs a statement of backfill.set_not_null_statements in a process of the table''s owner';

-- A procedure that commits can have no SET clause: it pins the path anew in each of its transactions, before all else.
CREATE PROCEDURE backfill.set_not_null(
    relation        regclass,
    column_name     name,
    lock_timeout_ms integer DEFAULT 1000,
    retries         integer DEFAULT 30
) LANGUAGE plpgsql AS $$
DECLARE
    todo text;
    undo text;
    undo_step text;
    done text;
    violation text;
    late boolean;
    tries integer := 0;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    CALL backfill.outside_block('backfill.set_not_null');
    IF lock_timeout_ms IS NULL OR lock_timeout_ms < 1 OR retries IS NULL OR retries < 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'lock_timeout_ms must be at least 1, and retries at least 0',
            HINT = 'Others wait behind each try for lock_timeout_ms at most; after it, it lets them pass and tries again, so many times.';
    END IF;
    IF NOT (SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') FROM pg_catalog.pg_class c WHERE c.oid = relation) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = pg_catalog.format('must be owner of table %s', relation),
            HINT = 'It runs ALTER TABLE with your rights: SET ROLE to the owner.';
    END IF;
    LOOP
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        PERFORM pg_catalog.set_config('lock_timeout', lock_timeout_ms::text, true);
        IF violation IS NULL THEN
            SELECT s.statement, s.undo INTO todo, undo_step
            FROM backfill.set_not_null_statements(relation, column_name) s ORDER BY s.step LIMIT 1;
            EXIT WHEN NOT FOUND;
            IF todo = done THEN
                RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                    MESSAGE = format('"%s" did not bring column "%s" of %s any further', todo, column_name, relation),
                    HINT = 'Somebody else takes back what is done here. Call it again when they are through.';
            END IF;
        ELSE
            todo := undo;
        END IF;
        late := false;
        IF tries = 0 AND todo LIKE '%NOT VALID' THEN
            RAISE NOTICE USING MESSAGE = todo,
                HINT = 'From here on an INSERT or UPDATE that leaves the column NULL fails, also an UPDATE of other columns in a row that is not filled yet.';
        ELSIF tries = 0 THEN
            RAISE NOTICE USING MESSAGE = todo;
        END IF;
        BEGIN
            -- Not by EXECUTE. The table's own constraints are text of its owner's, and ALTER TABLE evaluates what is constant in
            -- them; and what is named so when it waits for the lock may be another table when it has it.
            PERFORM backfill.not_null_step(relation, column_name::text, todo, lock_timeout_ms);
            done := todo;
        EXCEPTION
            -- Also where another call has done this step meanwhile.
            WHEN lock_not_available OR deadlock_detected OR object_not_in_prerequisite_state THEN late := true;
            -- Another call was faster.
            WHEN duplicate_object OR undefined_object THEN
                IF tries >= least(retries, 5) THEN
                    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM,
                        HINT = 'A child of the table has another constraint of that name: rename it.';
                END IF;
                late := true;
            WHEN check_violation OR not_null_violation THEN violation := SQLERRM;
        END;
        COMMIT;
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        IF late THEN
            tries := tries + 1;
            IF tries > retries THEN
                RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
                    MESSAGE = format('the lock for "%s" was not to be had in %s tries of %s ms', todo, tries, lock_timeout_ms),
                    HINT = 'pg_locks shows who uses the table. Call it again to go on from here.'
                        || COALESCE(' Or take back what was done: ' || undo || ';', '');
            END IF;
            -- Others get their turn; 0.1 s at first, 5 s at most.
            PERFORM pg_sleep(least(0.1 * 2 ^ least(tries - 1, 10), 5));
        ELSE
            undo := COALESCE(undo_step, undo);
            EXIT WHEN violation IS NOT NULL AND (undo IS NULL OR todo = undo);
            tries := 0;
        END IF;
    END LOOP;
    IF violation IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'not_null_violation',
            MESSAGE = format('column "%s" of %s cannot be set NOT NULL: rows of it are NULL', column_name, relation),
            DETAIL = violation || CASE WHEN undo IS NULL THEN '.' ELSE '; it was dropped again.' END,
            HINT = format('Look at them: SELECT * FROM %s WHERE %I IS NULL. Rows that come in with NULL need a DEFAULT, or a change of the application.', relation, column_name);
    END IF;
END
$$;
COMMENT ON PROCEDURE backfill.set_not_null IS 'Sets a column NOT NULL while the table is in use: in steps of one transaction each, with lock timeouts and retries. From the first step on writes that leave it NULL fail. Nothing is done where it is NOT NULL. Not within a transaction block.';
