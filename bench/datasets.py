"""The tables that are filled: how each is made, and what filling it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

# Columns that most tables here share, and their values for row number g.
COLUMNS = """customer_id int, status text, created_at timestamptz, amount double precision, payload text,
    amount_new numeric"""
VALUES = """(random() * 100000)::int, (ARRAY['new', 'paid', 'shipped', 'done'])[1 + (g % 4)],
    now() - (random() * 1000) * interval '1 hour', random() * 1000, repeat(md5(g::text), 3), NULL"""
FOUR_INDEXES = ["customer_id", "created_at", "amount", "status, created_at"]
NINE_INDEXES = [
    *FOUR_INDEXES,
    "amount, customer_id",
    "created_at, amount",
    "status, amount",
    "customer_id, created_at",
    "customer_id, status, created_at",
]
# Twenty columns in all, one of them with 8 KB that stand out of line and uncompressed.
WIDE_COLUMNS = ", ".join(["body text", *(f"c{n} int" for n in range(1, 13))])
WIDE_VALUES = ", ".join(["repeat(md5(g::text), 256)", *(f"g + {n}" for n in range(1, 13))])


@dataclass(frozen=True)
class Dataset:
    """A table before the work, and the work. `make` returns the statements that build it with so many rows."""

    name: str
    title: str
    rows: int
    make: Callable[[int], list[str]]
    table: str = "orders"
    key: str = "id"
    key_floor: str = "0"
    """An SQL literal below every key."""
    column: str = "amount_new"
    expression: str = "amount"
    where: str = "amount_new IS NULL"
    right: str = "amount_new = amount::numeric"
    """True for each row, touched or not, when the work is done."""
    kept: str = "true"
    """True whether or not the work is done: nothing that the application did meanwhile is lost."""

    @property
    def set_clause(self) -> str:
        """The SET list of the work."""
        return f"{self.column} = {self.expression}"

    def statements(self) -> list[str]:
        """What builds the table, in order; the same rows each time."""
        return ["SELECT setseed(0.5)", *self.make(self.rows), f"VACUUM (FREEZE, ANALYZE) {self.table}"]

    def scaled(self, scale: float, at_most: int | None = None) -> Dataset:
        """The same table with another number of rows."""
        rows = max(1, round(self.rows * scale))
        return replace(self, rows=min(rows, at_most) if at_most else rows)


def _orders(indexes: list[str], key: str = "g") -> Callable[[int], list[str]]:
    def make(rows: int) -> list[str]:
        return [
            f"CREATE TABLE orders (id bigint, {COLUMNS})",
            f"INSERT INTO orders SELECT {key}, {VALUES} FROM generate_series(1, {rows}) g",
            *_indexes(indexes),
        ]

    return make


def _accounts(rows: int) -> list[str]:
    # Tellers, branches and a history are TPC-B's; the orders are its accounts.
    return [
        *_orders(FOUR_INDEXES)(rows),
        "ALTER TABLE orders ADD balance bigint NOT NULL DEFAULT 0",
        "CREATE TABLE branches (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 10)",
        "CREATE TABLE tellers (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 10)",
        "CREATE TABLE history (order_id bigint, teller_id int, branch_id int, delta bigint)",
        "INSERT INTO branches SELECT g, 0 FROM generate_series(1, 50) g",
        "INSERT INTO tellers SELECT g, 0 FROM generate_series(1, 500) g",
        "ANALYZE branches, tellers",
    ]


def _uuid(rows: int) -> list[str]:
    # md5 of the row's number: as random as version 4, and the same each time.
    return [
        f"CREATE TABLE orders (id uuid, {COLUMNS})",
        f"INSERT INTO orders SELECT overlay(md5(g::text) PLACING '4' FROM 13)::uuid, {VALUES}"
        f" FROM generate_series(1, {rows}) g",
        *_indexes(["customer_id", "created_at"]),
    ]


def _wide(rows: int) -> list[str]:
    return [
        f"CREATE TABLE orders (id bigint, {COLUMNS}, {WIDE_COLUMNS})",
        "ALTER TABLE orders ALTER body SET STORAGE EXTERNAL",
        f"INSERT INTO orders SELECT g, {VALUES}, {WIDE_VALUES} FROM generate_series(1, {rows}) g",
        *_indexes(["customer_id", "created_at"]),
    ]


def _sparse(rows: int) -> list[str]:
    return [
        "CREATE TABLE orders (id bigint, status text, amount double precision)",
        "INSERT INTO orders SELECT g, CASE g % 1000 WHEN 0 THEN 'stale' ELSE 'idle' END, random() * 1000"
        f" FROM generate_series(1, {rows}) g",
        *_indexes([]),
    ]


def _partitioned(rows: int, parts: int = 24) -> list[str]:
    bounds = [1 + rows * part // parts for part in range(parts + 1)]
    leaves = [
        f"CREATE TABLE orders_{n} PARTITION OF orders FOR VALUES FROM ({low}) TO ({high})"
        for n, (low, high) in enumerate(pairwise(bounds), 1)
    ]
    return [
        f"CREATE TABLE orders (id bigint, {COLUMNS}) PARTITION BY RANGE (id)",
        *leaves,
        f"INSERT INTO orders SELECT g, {VALUES} FROM generate_series(1, {rows}) g",
        *_indexes(FOUR_INDEXES),
    ]


def _indexes(more: list[str]) -> list[str]:
    return [
        "ALTER TABLE orders ADD PRIMARY KEY (id)",
        *(f"CREATE INDEX ON orders ({columns})" for columns in more),
    ]


MILLION = 1_000_000
ORDERS = Dataset("orders", "bigint key, 5 indexes", MILLION, _orders(FOUR_INDEXES))
ORDERS_LARGE = Dataset("orders-10m", "bigint key, 5 indexes", 10 * MILLION, _orders(FOUR_INDEXES))
TEN_INDEXES = Dataset("ten-indexes", "bigint key, 10 indexes", MILLION, _orders(NINE_INDEXES))
ACCOUNTS = Dataset(
    "accounts",
    "bigint key, 5 indexes, and the rest of TPC-B",
    MILLION,
    _accounts,
    kept="(SELECT sum(balance) FROM orders) = (SELECT coalesce(sum(delta), 0) FROM history)",
)
KEY_ONLY = Dataset("key-only", "bigint key, no other index", MILLION, _orders([]))
GAPS = Dataset(
    "gaps",
    "bigint key spread at random over 10^12, 5 indexes",
    MILLION,
    _orders(FOUR_INDEXES, key="g * 1000000::bigint - (random() * 999999)::int"),
)
UUID = Dataset(
    "uuid",
    "uuid v4 key, 3 indexes",
    3 * MILLION,
    _uuid,
    key_floor="'00000000-0000-0000-0000-000000000000'",
)
WIDE = Dataset("wide", "20 columns, 8 KB of TOAST a row, 3 indexes", 100_000, _wide)
SPARSE = Dataset(
    "sparse",
    "bigint key, no other index, 1 row in 1,000 to do",
    5 * MILLION,
    _sparse,
    column="status",
    expression="'fresh'",
    where="status = 'stale'",
    right="status = CASE id % 1000 WHEN 0 THEN 'fresh' ELSE 'idle' END",
)
PARTITIONED = Dataset("partitioned", "24 partitions, 5 indexes each", 2_400_000, _partitioned)
