-- {{title}}
-- Written by backfill {{version}} from {{job}}: the statement of its batches, for review and for trying it out.
-- Gives the number of rows that it has updated. It commits nothing and remembers nothing.

CREATE FUNCTION {{function}}(
    {{parameters}}
) RETURNS bigint LANGUAGE plpgsql AS {{quote}}
#variable_conflict use_column
DECLARE
    {{v}}rows bigint;
BEGIN
    PERFORM pg_catalog.set_config(s.name, s.value, true)
    FROM (VALUES
            {{settings}}
    ) AS s (name, value);
    UPDATE {{from}}
    SET {{set_clause}}
    WHERE {{range}}{{and_where}};
    GET DIAGNOSTICS {{v}}rows = ROW_COUNT;
    RETURN {{v}}rows;
END
{{quote}};

COMMENT ON FUNCTION {{function}} IS {{comment}};
