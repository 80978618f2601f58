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
-- The rows are walked in the order of {{key_names}}. Each batch is a transaction, which also records how far it
-- came. So a row is updated once, whether the call is cancelled, its session is killed or the server crashes.
-- Calls from several sessions take turns. While the walk lasts, nothing else may change {{key_names}}. Rows that
-- are inserted meanwhile have to get their values by themselves.
--
-- What the extension does, and this does not: waves (several passes over a region, so that most updates need no new
-- index entries), several workers, giving way to replication lag and load, batches sized by time, stepping over rows
-- that fail, going on by itself after a crash. An error ends the call; what is committed stays.

CREATE TABLE {{checkpoint}} (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    {{checkpoint_columns}}
    batches bigint NOT NULL DEFAULT 0,
    rows_updated bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz
);

CREATE PROCEDURE {{procedure}}(
    {{v}}batch_size integer DEFAULT {{batch_size}}, -- rows of a transaction
    {{v}}sleep_ms integer DEFAULT {{sleep_ms}}, -- pause after each
    {{v}}lock_timeout_ms integer DEFAULT {{lock_timeout_ms}}, -- how long it waits for a lock before it gives way; 0: for ever
    {{v}}max_retries integer DEFAULT 20 -- how often in a row it gives way before that is an error
) LANGUAGE plpgsql AS {{quote}}
#variable_conflict use_column
DECLARE
    {{variables}}
    {{v}}finished_at timestamptz;
    {{v}}batches bigint;
    {{v}}rows_updated bigint;
    {{v}}rows bigint;
    {{v}}retries integer := 0;
    {{v}}told_at timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF {{v}}batch_size < 1 OR LEAST({{v}}sleep_ms, {{v}}lock_timeout_ms, {{v}}max_retries) < 0
        OR pg_catalog.num_nulls({{v}}batch_size, {{v}}sleep_ms, {{v}}lock_timeout_ms, {{v}}max_retries) > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'the batch size has to be 1 or more, all others 0 or more';
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
            -- The first call notes where the walk is to end.
            INSERT INTO {{checkpoint}} DEFAULT VALUES ON CONFLICT DO NOTHING;
            IF FOUND THEN
                SELECT {{columns}} INTO {{last}} FROM {{from}}{{where_bounds}}
                ORDER BY {{descending}} LIMIT 1;
                UPDATE {{checkpoint}} SET {{set_last}};
            END IF;
        END IF;
        SELECT {{checkpoint_names}}, batches, rows_updated, finished_at
        INTO {{state}}, {{v}}batches, {{v}}rows_updated, {{v}}finished_at
        FROM {{checkpoint}} FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the checkpoint was removed: call it again to begin anew';
        END IF;
        EXIT WHEN {{v}}finished_at IS NOT NULL;
        {{v}}rows := 0;
        BEGIN
            PERFORM pg_catalog.set_config('lock_timeout', {{v}}lock_timeout_ms::text, true);

            -- It begins with the first row that is not done,
            IF {{first_after}} IS NULL THEN
                SELECT {{columns}} INTO {{first}} FROM {{from}}
                WHERE {{from_bound}}{{up_to_last}}
                ORDER BY {{ascending}} LIMIT 1;
            ELSE
                SELECT {{columns}} INTO {{first}} FROM {{from}}
                WHERE {{after_done}} AND {{up_to_last}}
                ORDER BY {{ascending}} LIMIT 1;
            END IF;

            IF FOUND THEN
                -- and ends so many rows further, or with the last one.
                SELECT {{columns}} INTO {{end}} FROM {{from}}
                WHERE {{from_first}} AND {{up_to_last}}
                ORDER BY {{ascending}} OFFSET {{v}}batch_size - 1 LIMIT 1;
                IF NOT FOUND THEN
                    {{end_is_last}}
                END IF;

                {{why_case}}UPDATE {{from}}
                SET {{set_clause}}
                WHERE {{from_first}} AND {{up_to_end}}{{and_where}};
                GET DIAGNOSTICS {{v}}rows = ROW_COUNT;
                UPDATE {{checkpoint}}
                SET {{set_done}}, batches = batches + 1, rows_updated = rows_updated + {{v}}rows;
            ELSE
                -- The end waits for the disk, and for all commits before it.
                SET LOCAL synchronous_commit = on;
                UPDATE {{checkpoint}} SET finished_at = pg_catalog.clock_timestamp();
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
