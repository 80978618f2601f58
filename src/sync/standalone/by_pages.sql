-- {{title}}
-- Written by backfill {{version}} from {{job}}. It needs nothing of that extension.
--
-- To begin, and to go on after an interruption, not within a transaction block:
--     CALL {{procedure}}();
-- A statement_timeout counts for the whole of a call: SET statement_timeout = 0 first.
-- To see how far it is, from another session:
--     TABLE {{checkpoint}};
-- When it is done:
--     VACUUM (ANALYZE) {{table}};
--     DROP PROCEDURE {{procedure}};
--     DROP TABLE {{checkpoint}};
--
-- The table is walked page by page. An update moves its row, so that only the WHERE clause tells which rows are done:
-- it must no longer hold for a row that was updated. That is checked; a batch that shows otherwise is rolled back and
-- is an error. The table is walked again until a pass finds no row, since rows move while it is walked. Each batch is
-- a transaction, which also records how far it came; after an interruption the next call goes on from there. Calls
-- from several sessions take turns.
--
-- What the extension does, and this does not: several passes over a region, so that most updates need no new index
-- entries, several workers, giving way to replication lag and load, batches sized by time, going on by itself after a
-- crash. An error ends the call; what is committed stays.

CREATE TABLE {{checkpoint}} (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    pass integer NOT NULL DEFAULT 1,
    next_page bigint NOT NULL DEFAULT 0,
    rows_of_pass bigint NOT NULL DEFAULT 0,
    batches bigint NOT NULL DEFAULT 0,
    rows_updated bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz
);

CREATE PROCEDURE {{procedure}}(
    {{v}}batch_pages integer DEFAULT {{batch_pages}}, -- pages of a transaction
    {{v}}sleep_ms integer DEFAULT {{sleep_ms}}, -- pause after each
    {{v}}lock_timeout_ms integer DEFAULT {{lock_timeout_ms}}, -- how long it waits for a lock before it gives way; 0: for ever
    {{v}}max_retries integer DEFAULT 20 -- how often in a row it gives way before that is an error
) LANGUAGE plpgsql AS {{quote}}
#variable_conflict use_column
DECLARE
    {{v}}page bigint; -- the first page of the batch
    {{v}}pages bigint; -- how many the table has
    {{v}}from tid; -- the place where the batch begins,
    {{v}}until tid; -- and before which it ends
    {{v}}finished_at timestamptz;
    {{v}}batches bigint;
    {{v}}rows_updated bigint;
    {{v}}rows bigint;
    {{v}}still bigint;
    {{v}}retries integer := 0;
    {{v}}told_at timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF {{v}}batch_pages < 1 OR LEAST({{v}}sleep_ms, {{v}}lock_timeout_ms, {{v}}max_retries) < 0
        OR pg_catalog.num_nulls({{v}}batch_pages, {{v}}sleep_ms, {{v}}lock_timeout_ms, {{v}}max_retries) > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'the pages of a batch have to be 1 or more, all others 0 or more';
    END IF;
    COMMIT; -- an error where the caller has a transaction open
    LOOP
        -- From here to the COMMIT is one batch. The lock on the checkpoint keeps other calls from the same rows.
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        PERFORM pg_catalog.set_config(s.name, s.value, true)
        FROM (VALUES
            {{settings}}
        ) AS s (name, value);
        IF {{v}}batches IS NULL THEN
            INSERT INTO {{checkpoint}} DEFAULT VALUES ON CONFLICT DO NOTHING;
        END IF;
        SELECT next_page, batches, rows_updated, finished_at
        INTO {{v}}page, {{v}}batches, {{v}}rows_updated, {{v}}finished_at
        FROM {{checkpoint}} FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the checkpoint was removed: call it again to begin anew';
        END IF;
        EXIT WHEN {{v}}finished_at IS NOT NULL;
        {{v}}rows := 0;
        BEGIN
            PERFORM pg_catalog.set_config('lock_timeout', {{v}}lock_timeout_ms::text, true);
            {{v}}pages := pg_catalog.pg_relation_size({{table_literal}}) / pg_catalog.current_setting('block_size')::bigint;
            IF {{v}}page < {{v}}pages THEN
                {{v}}from := pg_catalog.format('(%s,0)', {{v}}page)::tid;
                {{v}}until := pg_catalog.format('(%s,0)', {{v}}page + {{v}}batch_pages)::tid;
                {{why_case}}WITH changed AS (
                    UPDATE {{from}}
                    SET {{set_clause}}
                    WHERE {{name}}.ctid >= {{v}}from AND {{name}}.ctid < {{v}}until{{and_where}}
                    RETURNING ({{where}}) AS still
                )
                SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE still) INTO {{v}}rows, {{v}}still FROM changed;
                IF {{v}}still > 0 THEN
                    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                        MESSAGE = pg_catalog.format('the WHERE clause still holds for %s rows that were updated', {{v}}still),
                        HINT = 'Without a key, it has to tell which rows are done.';
                END IF;
                UPDATE {{checkpoint}}
                SET next_page = next_page + {{v}}batch_pages, rows_of_pass = rows_of_pass + {{v}}rows,
                    batches = batches + 1, rows_updated = rows_updated + {{v}}rows;
            ELSE
                -- The end of a pass. One that has found no row is the last. It waits for the disk, and for all
                -- commits before it.
                SET LOCAL synchronous_commit = on;
                UPDATE {{checkpoint}}
                SET finished_at = CASE WHEN rows_of_pass = 0 THEN pg_catalog.clock_timestamp() END,
                    pass = CASE WHEN rows_of_pass = 0 THEN pass ELSE pass + 1 END, next_page = 0, rows_of_pass = 0;
            END IF;
            {{v}}retries := 0;
        EXCEPTION WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
            -- The batch is rolled back. It is tried again after the pause, or after a second.
            {{v}}retries := {{v}}retries + 1;
            IF {{v}}retries > {{v}}max_retries THEN
                RAISE;
            END IF;
            RAISE NOTICE '%; the batch is tried again', SQLERRM;
        END;
        COMMIT;

        IF pg_catalog.clock_timestamp() > {{v}}told_at + interval '5 seconds' THEN
            {{v}}told_at := pg_catalog.clock_timestamp();
            RAISE NOTICE '% rows updated in % batches', {{v}}rows_updated + {{v}}rows, {{v}}batches + 1;
        END IF;
        IF {{v}}retries > 0 THEN
            PERFORM pg_catalog.pg_sleep(GREATEST({{v}}sleep_ms, 1000) / 1000.0);
        ELSIF {{v}}rows > 0 THEN
            PERFORM pg_catalog.pg_sleep({{v}}sleep_ms / 1000.0);
        END IF;
        COMMIT; -- nothing is held from the pause on
    END LOOP;
    COMMIT;
    RAISE NOTICE 'done at %: % rows updated in % batches', {{v}}finished_at, {{v}}rows_updated, {{v}}batches;
END
{{quote}};

COMMENT ON PROCEDURE {{procedure}} IS {{comment}};
COMMENT ON TABLE {{checkpoint}} IS {{checkpoint_comment}};
