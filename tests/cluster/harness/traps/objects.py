"""The owner's tables: whatever of them can hold code is a trap.

Event triggers are not among them: before PostgreSQL 16 only a superuser can create one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.traps.spring import OWNER

# Functions for each place, since the place is what is reported; the operators are found by the owner's search_path.
FUNCTIONS = """
CREATE FUNCTION trap.number(place text, n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM trap.spring(place); RETURN n; END $$;
CREATE FUNCTION trap.moment(place text, n int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM trap.spring(place); RETURN n; END $$;
CREATE FUNCTION trap.fire() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM trap.spring(TG_ARGV[0]); RETURN NEW; END $$;
CREATE FUNCTION trap.to_int(trap.pair) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM trap.spring('a cast'); RETURN $1.b; END $$;
CREATE CAST (trap.pair AS int) WITH FUNCTION trap.to_int(trap.pair);
CREATE FUNCTION trap.equal(int, int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM trap.spring('an operator'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR trap.= (LEFTARG = int, RIGHTARG = int, FUNCTION = trap.equal, RESTRICT = eqsel);
CREATE FUNCTION trap.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM trap.spring('an operator'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.equal);
CREATE FUNCTION trap.equal(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM trap.spring('an operator'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.equal);
CREATE FUNCTION trap.equal(oid, oid) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM trap.spring('an operator'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR trap.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.equal);
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS
    $$ BEGIN PERFORM trap.spring('a function on the path'); RETURN pg_catalog.now(); END $$;
CREATE DOMAIN trap.checked AS int CHECK (trap.volatile('the CHECK of a column''s domain'));
"""
# What a table gets, by the place: constants are for expressions that are folded when the table is only opened.
DDL = {
    "default": "ALTER TABLE {t} ALTER m SET DEFAULT trap.moment('a column default', 0)",
    "check": "ALTER TABLE {t} ADD CHECK (trap.moment('a CHECK', n) >= 0)",
    "check of constants": "ALTER TABLE {t} ADD CHECK (trap.number('a CHECK of constants', 1) > 0 OR n IS NULL)",
    "generated column": "ALTER TABLE {t} ADD g int GENERATED ALWAYS AS (trap.number('a generated column', n)) STORED",
    "index expression": "CREATE INDEX ON {t} (trap.number('an index expression', n))",
    "index of constants": "CREATE INDEX ON {t} ((n + trap.number('an index expression of constants', 0)))",
    "index predicate": "CREATE INDEX ON {t} (n) WHERE trap.number('an index predicate', n) >= 0",
    "predicate of constants": "CREATE INDEX ON {t} (n) WHERE trap.number('an index predicate of constants', 1) > 0",
    "statistics": "CREATE STATISTICS {t}_1 ON (trap.number('statistics', n)), id FROM {t}",
    "statistics of constants": "CREATE STATISTICS {t}_2 ON (n + trap.number('statistics of constants', 0)) FROM {t}",
    "policy": "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY;"
    " CREATE POLICY p ON {t} USING (trap.moment('a policy', n) >= 0 AND trap.constant('a policy of constants'))",
    "row trigger": "CREATE TRIGGER a BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION trap.fire('a row trigger')",
    "condition of a trigger": "CREATE TRIGGER b BEFORE UPDATE ON {t} FOR EACH ROW"
    " WHEN (trap.moment('the WHEN of a trigger', NEW.n) >= 0) EXECUTE FUNCTION trap.fire('a row trigger')",
    "statement trigger": "CREATE TRIGGER c AFTER UPDATE ON {t} FOR EACH STATEMENT"
    " EXECUTE FUNCTION trap.fire('a statement trigger')",
    "deferred trigger": "CREATE CONSTRAINT TRIGGER d AFTER UPDATE ON {t} DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION trap.fire('a deferred trigger')",
}
WHERE = (
    "trap.constant('an IMMUTABLE function') AND trap.stable('a STABLE function')"
    " AND trap.volatile('a VOLATILE function') AND '{0}'::trap.dom[] IS NOT NULL AND '(1,2)'::trap.pair IS NOT NULL"
    " AND CAST('(1,2)'::trap.pair AS int) OPERATOR(pg_catalog.>) 0 AND 1 OPERATOR(trap.=) 1"
)
SET = "n = 1 + trap.number('the SET clause', 0), m = DEFAULT"
OPTIONS: dict[str, Any] = {
    "throttle_query": "SELECT NOT (trap.constant('the throttle query') AND 1 OPERATOR(trap.=) 1)",
    "on_end": "SELECT trap.constant('the statement at the end')",
    "settings": {"search_path": "trap, pg_catalog", "trap.path": "left"},
}
EVERYTHING = tuple(DDL)
# Partitions by an expression: keys are those of the leaves.
PARTED = (
    "default",
    "check",
    "check of constants",
    "index expression",
    "index of constants",
    "row trigger",
    "statistics",
)


@dataclass(frozen=True)
class Kind:
    """A kind of table: its columns, its rows, its traps, and the job on it."""

    columns: str
    rows: str
    traps: tuple[str, ...] = EVERYTHING
    after: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    table_owner: str = OWNER
    # Keys of its walk, as options have them.
    keys: tuple[str, ...] = ()

    def create(self, table: str) -> str:
        """The table with all its traps."""
        made = [f"CREATE TABLE {table} {self.columns}", self.after.format(t=table)]
        made += [DDL[trap].format(t=table) for trap in self.traps]
        made += [f"INSERT INTO {table} (id, n) {self.rows}", f"ANALYZE {table}"]
        return "; ".join(filter(None, made))


KINDS = {
    "domains": Kind(
        "(id trap.checked PRIMARY KEY, n trap.checked, m int)", "SELECT g, 0 FROM generate_series(1, 12) g"
    ),
    "arrays of domains": Kind(
        "(id trap.dom[] PRIMARY KEY, n int, m int)",
        "SELECT ARRAY[g], 0 FROM generate_series(1, 12) g",
        options={"key_from": "{2}"},
        keys=('"{3}"',),
    ),
    "partitions": Kind(
        "(id int, n int, m int) PARTITION BY RANGE ((id + trap.number('a partition key of constants', 0)))",
        "SELECT g, 0 FROM generate_series(1, 12) g",
        PARTED,
        after="CREATE TABLE {t}_1 PARTITION OF {t} FOR VALUES FROM (0) TO (7); "
        "CREATE TABLE {t}_2 PARTITION OF {t} FOR VALUES FROM (7) TO (100);"
        "ALTER TABLE {t}_1 ADD PRIMARY KEY (id); ALTER TABLE {t}_2 ADD PRIMARY KEY (id)",
    ),
    # The table of somebody else, on which the owner of the job may update a column.
    "a lodger": Kind(
        "(id int PRIMARY KEY, n int, m int)", "SELECT g, 0 FROM generate_series(1, 12) g", (), table_owner="proprietor"
    ),
}
