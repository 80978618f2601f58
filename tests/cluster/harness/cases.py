"""Random backfills: a table, a clause, settings, and what happens meanwhile, all from a seed and a number."""

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import dataclass, field
from typing import Any

# Each kind of key: its columns' definitions, and their values for row number g.
KEYS: dict[str, tuple[list[str], list[str]]] = {
    "int": (["id int"], ["g::int"]),
    "backwards": (["id int"], ["(1000000 - g)::int"]),
    "strided": (["id bigint"], ["g * 1000"]),
    "gaps": (["id bigint"], ["(g / 50 - 20) * 100000000 + g % 50"]),
    "scattered": (["id int"], ["(g * 7919 % 1000003)::int"]),
    "uuid": (["id uuid"], ["md5(g::text)::uuid"]),
    "text": (["id text"], ["repeat(chr(97 + (g % 26)::int), (g % 7)::int) || md5(g::text)"]),
    "composite": (["a int", "b text"], ["(g % 17)::int", "'x' || g"]),
    "triple": (
        ["a date", "b uuid", "c smallint"],
        ["date '2020-01-01' + (g % 40)::int", "md5(g::text)::uuid", "1::int2"],
    ),
    "time": (["id timestamptz"], ["timestamptz '2001-02-03 04:05Z' + g * interval '1234567 us'"]),
    "numeric": (["id numeric"], ["g / 3.0 + 0.000000001"]),
}
# How a table is partitioned, by the column part, which is g % 20.
PARTITIONS = ("hash", "list", "range", "nested", "attached")
# Clauses whose rows no longer match once they are done: these may go in physical order.
EXTINGUISHED = ("n = 0", "n < 1", "n = 0 AND p = 3", "n = 0 AND p % 5 < 2", "NOT n > 0", "coalesce(n, 0) = 0")
OTHERS = (None, None, "n < p", "p = 3", "p % 3 = 0", "p < 0", "true", "p IN (1, 7) OR p IS NULL", "rid % 3 = 0")
INDEXES = (
    "(w)",
    "(p)",
    "(p, w)",
    "(rid)",
    "(n)",
    "(rid) WHERE n = 0",
    "((w + 1))",
    "USING hash (pad)",
    "USING brin (rid)",
)
# Those of them that leave updates of n heap-only.
HARMLESS = ("(w)", "(p)", "(p, w)", "(rid)", "((w + 1))", "USING hash (pad)")

WRITERS = ("touch", "widen", "insert", "delete", "hammer", "widest")
CALLS = ("pause", "alter batch", "alter workers", "alter strategy", "alter target", "alter sleep", "resume")
BLOWS = ("kill", "kill", "terminate", "immediate", "fast", "crash", "cancel query", "switch")
REWRITES = ("vacuum full", "cluster", "rewrite column", "set fillfactor")
DISTURBANCES = ("vacuum", "add column", "add index", "drop index", "hold snapshot", "lock row", "analyze")
RARE = ("another job", "another job", "detach", "drop partition", "cancel")


@dataclass(frozen=True)
class Case:
    """All that there is to a run; the same seed and number give the same."""

    seed: int
    number: int
    rows: int
    key: str | None
    primary: bool
    partitions: str | None
    fillfactor: int
    width: int
    indexes: tuple[str, ...]
    autovacuum: bool
    slices: int
    """What the statistics are made to say, so that a small table is cut into so many slices."""
    where: str | None
    batch_size: int
    options: dict[str, Any]
    writers: tuple[str, ...]
    events: tuple[tuple[float, str, int], ...] = field(default=())
    """When (a share of the time that the run is made to last), what, and a number to draw from."""
    failing: bool = False
    """Whether some rows fail, until the job has done all others and their cause is mended."""

    @property
    def calm(self) -> bool:
        """Whether nobody but the workers does anything."""
        return not self.writers and not self.events

    @property
    def physical(self) -> bool:
        """Whether it goes in physical order, surely."""
        return self.key is None or self.options.get("walk") == "physical"

    def shown(self) -> str:
        """For people, and for replaying: everything."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @property
    def column_definitions(self) -> list[str]:
        """The columns of the table; rid numbers its rows for good."""
        key = [f"{column} NOT NULL" for column in KEYS[self.key][0]] if self.key else []
        return [
            *key,
            "part int NOT NULL",
            "rid bigint NOT NULL",
            "p int",
            "w int NOT NULL DEFAULT 0",
            "pad text",
            "n int DEFAULT 0",
        ]

    @property
    def key_columns(self) -> list[str]:
        """The columns of the unique key."""
        if not self.key:
            return []
        names = [column.split()[0] for column in KEYS[self.key][0]]
        return (
            ["part", *names] if self.partitions and self.number % 2 else [*names, "part"] if self.partitions else names
        )

    @property
    def values(self) -> str:
        """The expressions that make row number g, for the columns up to pad."""
        key = KEYS[self.key][1] if self.key else []
        width = f"repeat('x', ({self.width} * (0.5 + g % 7 / 7.0))::int)"
        return ", ".join([*key, "(g % 20)::int", "g", "nullif((g % 10)::int, 9)", "0", width])

    def statements(self) -> list[str]:
        """What makes the table, and fills it."""
        table = f"CREATE TABLE t ({', '.join(self.column_definitions)})"
        storage = f"WITH (fillfactor = {self.fillfactor}, autovacuum_enabled = {str(self.autovacuum).lower()})"
        made = ["CREATE SEQUENCE rids"]
        if self.partitions:
            method = self.partitions if self.partitions in ("hash", "list") else "range"
            made += [f"{table} PARTITION BY {method} (part)", *self._partitions(storage)]
        else:
            made += [f"{table} {storage}"]
        names = ", ".join(self.key_columns)
        if self.key:
            made.append(
                f"ALTER TABLE t ADD PRIMARY KEY ({names})"
                if self.primary
                else f"CREATE UNIQUE INDEX t_key ON t ({names})"
            )
        made += [f"CREATE INDEX t_{i} ON t {index}" for i, index in enumerate(self.indexes)]
        if self.failing:
            made.append("ALTER TABLE t ADD CONSTRAINT failing CHECK (rid % 37 <> 5 OR n = 0)")
        made.append(
            f"INSERT INTO t SELECT {self.values} FROM (SELECT nextval('rids') g FROM generate_series(1, {self.rows})) s"
        )
        return made

    def _partitions(self, storage: str) -> list[str]:
        if self.partitions == "hash":
            return [
                f"CREATE TABLE t_h{i} PARTITION OF t FOR VALUES WITH (MODULUS 5, REMAINDER {i}) {storage}"
                for i in range(5)
            ]
        if self.partitions == "list":
            lists = [range(0, 1), range(1, 9), range(9, 15)]
            made = [
                f"CREATE TABLE t_l{i} PARTITION OF t FOR VALUES IN ({', '.join(map(str, parts))}) {storage}"
                for i, parts in enumerate(lists)
            ]
            return [*made, f"CREATE TABLE t_rest PARTITION OF t DEFAULT {storage}"]
        made = [f"CREATE TABLE t_r0 PARTITION OF t FOR VALUES FROM (MINVALUE) TO (5) {storage}"]
        if self.partitions == "nested":
            made += [
                "CREATE TABLE t_r1 PARTITION OF t FOR VALUES FROM (5) TO (15) PARTITION BY RANGE (part)",
                f"CREATE TABLE t_r1_a PARTITION OF t_r1 FOR VALUES FROM (5) TO (6) {storage}",
                f"CREATE TABLE t_r1_b PARTITION OF t_r1 DEFAULT {storage}",
                "CREATE TABLE t_r2 PARTITION OF t FOR VALUES FROM (15) TO (50) PARTITION BY LIST (part)",
                f"CREATE TABLE t_r2_a PARTITION OF t_r2 FOR VALUES IN (15, 16, 17, 18, 19, 20) {storage}",
            ]
        elif self.partitions == "attached":
            # Another order of columns, and one that was dropped.
            columns = ", ".join(["gone text", *reversed(self.column_definitions)])
            made += [
                f"CREATE TABLE t_r1 ({columns}) {storage}",
                "ALTER TABLE t_r1 DROP COLUMN gone",
                "ALTER TABLE t ATTACH PARTITION t_r1 FOR VALUES FROM (5) TO (50)",
            ]
        else:
            made += [f"CREATE TABLE t_r1 PARTITION OF t FOR VALUES FROM (5) TO (12) {storage}"]
            made += [f"CREATE TABLE t_r2 PARTITION OF t DEFAULT {storage}"]
        return made


def make(seed: int, number: int, *, blows: bool = True, keyless: bool = True, partitions: bool = True) -> Case:
    """The case with this number; `blows` are those events that take the server down or kill a worker."""
    rng = random.Random(f"{seed}/{number}")
    rows = int(rng.choice([1, 30, 300, 1000, 3000, 6000, 6000, 15000]) * rng.uniform(0.7, 1.3)) + rng.choice([0, 1])
    key = rng.choice([*KEYS, *KEYS, None, None])
    parts = rng.choice([None, None, *PARTITIONS]) if rng.random() < 0.6 else None
    key = key if keyless else key or "int"
    parts = parts if partitions else None
    physical = key is None or rng.random() < 0.35
    where = rng.choice(EXTINGUISHED if physical else [*EXTINGUISHED[:3], *OTHERS])
    pool = HARMLESS if rng.random() < 0.7 else INDEXES
    case = Case(
        seed=seed,
        number=number,
        rows=rows,
        key=key,
        primary=rng.random() < 0.7,
        partitions=parts,
        fillfactor=rng.choice([100, 100, 100, 90, 70, 30]),
        width=rng.choice([0, 10, 60, 200, 900]),
        indexes=tuple(rng.sample(pool, rng.randint(0, 4))),
        autovacuum=rng.random() < 0.5,
        slices=rng.choice([1, 1, 2, 5, 12]),
        where=where,
        batch_size=rng.choice([1, 7, 50, 50, 200, 200, 1000, 5000])
        if rows < 4000
        else rng.choice([40, 100, 300, 1000, 5000]),
        options=_options(rng, physical, key is None, rows),
        writers=tuple(rng.sample(WRITERS, rng.choice([0, 1, 1, 2, 3]))),
        events=_events(rng, blows),
    )
    case = _trap(case) if random.Random(f"{seed}/{number}/trap").random() < 0.08 else case
    return _hinder(case, random.Random(f"{seed}/{number}/hinder"))


def _hinder(case: Case, rng: random.Random) -> Case:
    """Lets batches pass over rows: those that others have locked, and those that fail."""
    options = dict(case.options)
    if rng.random() < 0.3:
        options["locked_rows"] = "skip"
    # Where a row fails, the walk goes on by key; of a partition that is detached, the constraint stays.
    unsuited = case.physical or {"detach", "drop partition", "cancel"} & {kind for _, kind, _ in case.events}
    failing = rng.random() < 0.25 and not unsuited
    if failing:
        options["max_failed_rows"] = 1_000_000
    return dataclasses.replace(case, options=options, failing=failing)


def _trap(case: Case) -> Case:
    """Makes it one that goes in physical order by itself, and finds in the middle that it must not."""
    rng = random.Random(f"{case.seed}/{case.number}/trap")
    options = {name: value for name, value in case.options.items() if name not in ("walk", "scan_limit")}
    return dataclasses.replace(
        case,
        rows=9000,
        key=rng.choice(["uuid", "text", "scattered"]),
        partitions=rng.choice([None, None, case.partitions]),
        fillfactor=100,
        width=900,
        where=rng.choice(["n < p", "n < 2 AND p = 3", "n < 2", "n < 3 - p"]),
        batch_size=200,
        options=options | {"workers": rng.randint(1, 4)},
    )


def _options(rng: random.Random, physical: bool, keyless: bool, rows: int) -> dict[str, Any]:
    options: dict[str, Any] = {}

    def maybe(name: str, share: float, *values: Any) -> None:
        if rng.random() < share:
            options[name] = rng.choice(values)

    maybe("strategy", 0.8, "waves", "waves", "waves", "sequential", "auto")
    maybe("waves", 0.4, 2, 3, 7, 16, 64)
    maybe("workers", 0.7, 2, 3, 4, 4)
    maybe("target_ms", 0.2, 1, 5, 50)
    maybe("scan_limit", 0.3, max(1, rows // 100), max(1, rows // 10), max(1, rows))
    maybe("vacuum", 0.5, False)
    maybe("analyze", 0.5, False)
    if physical:
        maybe("walk", 0.9, "physical") if not keyless else maybe("walk", 0.5, "physical", "auto")
    else:
        maybe("walk", 0.3, "key")
    return options


def _events(rng: random.Random, blows: bool) -> tuple[tuple[float, str, int], ...]:
    kinds = [CALLS, CALLS, REWRITES, DISTURBANCES, *([BLOWS] if blows else [])]
    count = rng.choice([0, 0, 1, 2, 3, 5])
    if count and rng.random() < 0.2:
        kinds = [*kinds, RARE, RARE]
    chosen = [(round(rng.random(), 3), rng.choice(rng.choice(kinds)), rng.randrange(1_000_000)) for _ in range(count)]
    return tuple(sorted(chosen))
