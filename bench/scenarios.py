"""What is compared with what, on which table, and what is expected of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bench import datasets
from bench.bars import Bar
from bench.contenders import (
    Contender,
    DjangoBulkUpdate,
    Gitlab,
    Idle,
    KeysetProcedure,
    MaintenanceTasks,
    OneUpdate,
    OnlineMigrations,
    Pgroll,
    PredicateProcedure,
    Standalone,
    TableRewrite,
    ours,
    with_all_defaults,
)
from bench.datasets import Dataset
from bench.foreground import Application

# Repetitions for a factor; for a few percent; for a few percent of what takes minutes.
FACTOR, PERCENT, LONG_PERCENT = 3, 10, 6


@dataclass(frozen=True)
class Entry:
    """A contender on a table. `repetitions`: fewer than the scenario has, where fewer will do."""

    contender: Contender
    dataset: Dataset
    repetitions: int | None = None
    drawn: bool = True
    """Whether the picture shows it, too."""

    @property
    def name(self) -> str:
        """Unique within the scenario."""
        return self.contender.name


@dataclass(frozen=True)
class Scenario:
    """One run of each entry in turn, and again. Ratios are to the first entry."""

    name: str
    title: str
    entries: tuple[Entry, ...]
    bars: tuple[Bar, ...]
    repetitions: int = FACTOR
    conf: Mapping[str, str] = field(default_factory=dict)
    warm: bool = True
    """Whether the table is read into shared_buffers before each run."""
    small_memory: bool = False
    """Whether it is meant for a memory cgroup, if there is one."""
    open_transaction: bool = False
    """Whether a session holds a snapshot from before the start until after the end."""
    application: Application | None = None
    """Who uses the table meanwhile, and has its latency measured."""
    waiter: bool = False
    """Whether somebody all the time wants a row of the batch at work."""

    def scaled(self, scale: float, at_most: int | None, repetitions: int | None) -> Scenario:
        """With other numbers of rows and, if given, of repetitions."""
        entries = tuple(
            replace(
                entry,
                dataset=entry.dataset.scaled(scale, at_most),
                repetitions=min(entry.repetitions, repetitions)
                if entry.repetitions and repetitions
                else entry.repetitions,
            )
            for entry in self.entries
        )
        return replace(self, entries=entries, repetitions=repetitions or self.repetitions)

    def only(self, names: set[str]) -> Scenario:
        """With these of its entries."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.name in names))


def _on(
    dataset: Dataset, *contenders: Contender, repetitions: int | None = None, drawn: bool = True
) -> tuple[Entry, ...]:
    return tuple(Entry(contender, dataset, repetitions, drawn) for contender in contenders)


AUTO = ours("ours", "1 worker")
AUTO_2 = ours("ours-2", "2 workers", workers=2)
SEQUENTIAL = ours("ours-sequential", "sequential, 1 worker", strategy="sequential")
SEQUENTIAL_2 = ours("ours-sequential-2", "sequential, 2 workers", strategy="sequential", workers=2)
WAVES = tuple(ours(f"ours-waves-{k}", f"{k} waves, 1 worker", strategy="waves", waves=k) for k in (8, 12, 16, 24))
PHYSICAL = ours("ours-physical", "physical order, 1 worker", walk="physical")
PEERS = (KeysetProcedure(), Pgroll(), OnlineMigrations(), Gitlab(), MaintenanceTasks())
SLOW_PEERS = (PredicateProcedure(), DjangoBulkUpdate())
PEER_NAMES = tuple(peer.name for peer in (*PEERS, *SLOW_PEERS))

MAIN = Scenario(
    "main",
    "A million rows, 5 indexes, fillfactor 100",
    (
        *_on(datasets.ORDERS, OneUpdate(), *PEERS, repetitions=FACTOR),
        *_on(datasets.ORDERS, *SLOW_PEERS, repetitions=1),
        *_on(datasets.ORDERS, Standalone(), SEQUENTIAL, SEQUENTIAL_2, PHYSICAL, repetitions=FACTOR),
        *_on(datasets.ORDERS, *WAVES, drawn=False),
        *_on(datasets.ORDERS, AUTO, AUTO_2, TableRewrite()),
        *_on(datasets.ORDERS, with_all_defaults(), repetitions=FACTOR),
    ),
    (
        Bar("1 worker, time against one UPDATE", "ours", 0.30, ("one-update",)),
        Bar("1 worker, WAL against one UPDATE", "ours", 0.50, ("one-update",), "wal"),
        Bar("1 worker, heap after against before", "ours", 1.20, measure="heap_growth"),
        Bar("1 worker, indexes after against before", "ours", 1.40, measure="index_growth"),
        Bar("2 workers, time against one UPDATE", "ours-2", 0.20, ("one-update",)),
        Bar("2 workers, heap after against before", "ours-2", 1.22, measure="heap_growth"),
        Bar("1 worker, time against the quickest that commits per batch", "ours", 0.40, PEER_NAMES),
        Bar("2 workers, time against the offline table rewrite", "ours-2", 0.95, ("table-rewrite",)),
        Bar(
            "1 worker, time against the best fixed number of waves",
            "ours",
            1.10,
            tuple(waves.name for waves in WAVES),
        ),
    ),
    repetitions=PERCENT,
)
AUTOVACUUM_OFF = Scenario(
    "autovacuum-off",
    "The same with autovacuum off",
    _on(datasets.ORDERS, OneUpdate(), KeysetProcedure(), SEQUENTIAL, AUTO, AUTO_2, TableRewrite()),
    (
        Bar("1 worker, time against one UPDATE", "ours", 0.30, ("one-update",)),
        Bar("1 worker, WAL against one UPDATE", "ours", 0.50, ("one-update",), "wal"),
        Bar("2 workers, time against one UPDATE", "ours-2", 0.20, ("one-update",)),
    ),
    conf={"autovacuum": "off"},
)
TEN_INDEXES = Scenario(
    "ten-indexes",
    "A million rows, 10 indexes",
    _on(datasets.TEN_INDEXES, OneUpdate(), KeysetProcedure(), AUTO, AUTO_2),
    (Bar("1 worker, time against one UPDATE", "ours", 0.25, ("one-update",)),),
)
KEY_ONLY = Scenario(
    "key-only",
    "A million rows, primary key only",
    (
        *_on(datasets.KEY_ONLY, OneUpdate(), AUTO),
        *_on(
            datasets.KEY_ONLY,
            KeysetProcedure(),
            ours("ours-waves", "waves, 1 worker", strategy="waves"),
            repetitions=FACTOR,
        ),
    ),
    (
        Bar("1 worker, time against one UPDATE", "ours", 1.10, ("one-update",)),
        Bar("waves, heap after against before", "ours-waves", 1.20, measure="heap_growth"),
    ),
    repetitions=PERCENT,
)
UUID = Scenario(
    "uuid",
    "Three million rows with a uuid v4 key, 3 indexes, small shared_buffers",
    _on(datasets.UUID, OneUpdate(), KeysetProcedure(), ours("ours-key", "by key, 1 worker", walk="key"), AUTO),
    (
        Bar("1 worker, time against the keyset procedure", "ours", 0.5, ("procedure-keyset",)),
        Bar("1 worker, pages read against the keyset procedure", "ours", 0.5, ("procedure-keyset",), "pages_read"),
    ),
    conf={"shared_buffers": "64MB"},
    warm=False,
    small_memory=True,
)
TARGET_MS = 100
SPARSE = Scenario(
    "sparse",
    "Five million rows, 1 in 1,000 to do",
    _on(
        datasets.SPARSE,
        OneUpdate(),
        KeysetProcedure(),
        ours("ours", f"1 worker, target_ms {TARGET_MS}", target_ms=TARGET_MS),
    ),
    (
        Bar("1 worker, time against one UPDATE", "ours", 1.5, ("one-update",)),
        Bar("longest transaction, 5 times target_ms", "ours", 5 * TARGET_MS / 1000, measure="longest", unit="s"),
    ),
    repetitions=5,
)
GAPS = Scenario(
    "gaps",
    "A million rows spread over 10^12 keys, against keys without gaps",
    (
        *_on(datasets.ORDERS, ours("ours-dense", "keys without gaps, 1 worker")),
        *_on(datasets.GAPS, ours("ours-gaps", "keys with gaps, 1 worker")),
    ),
    (Bar("time with gaps against without", "ours-gaps", 1.10, ("ours-dense",), at_least=0.90),),
    repetitions=PERCENT,
)
WIDE = Scenario(
    "wide",
    "100,000 wide rows: 20 columns, 8 KB of TOAST each",
    _on(datasets.WIDE, OneUpdate(), AUTO) + _on(datasets.WIDE, KeysetProcedure(), repetitions=FACTOR),
    (
        Bar("1 worker, time against one UPDATE", "ours", 1.0, ("one-update",)),
        Bar("TOAST after against before", "ours", 1.001, measure="toast_growth"),
    ),
    repetitions=PERCENT,
)
PARTITIONS = Scenario(
    "partitions",
    "24 partitions of 100,000 rows, 5 indexes each",
    _on(datasets.PARTITIONED, OneUpdate(), KeysetProcedure(), AUTO, AUTO_2),
    (Bar("2 workers, time against 1 worker", "ours-2", 0.6, ("ours",)),),
)
SIZE = Scenario(
    "size",
    "Ten million rows against one million",
    (
        *_on(datasets.ORDERS, ours("ours-1m", "1,000,000 rows, 1 worker")),
        *_on(datasets.ORDERS_LARGE, ours("ours-10m", "10,000,000 rows, 1 worker")),
    ),
    (Bar("time per row, 10 million against 1 million", "ours-10m", 1.15, ("ours-1m",), "seconds_per_row"),),
    repetitions=LONG_PERCENT,
)
BATCH_SIZE = Scenario(
    "batch-size",
    "Batches of 100 rows against batches of 10,000",
    _on(
        datasets.ORDERS,
        ours("ours-10000", "batch_size 10,000, 1 worker", batch_size=10_000),
        ours("ours-1000", "batch_size 1,000, 1 worker"),
        ours("ours-100", "batch_size 100, 1 worker", batch_size=100),
    ),
    (Bar("time with batch_size 100 against 10,000", "ours-100", 1.4, ("ours-10000",)),),
)
OPEN_TRANSACTION = Scenario(
    "open-transaction",
    "A transaction left open elsewhere from the start",
    _on(datasets.ORDERS, KeysetProcedure(), AUTO),
    (
        Bar("1 worker, time against the keyset procedure", "ours", 1.0, ("procedure-keyset",)),
        Bar("the view says so", "ours", 1.0, measure="noticed", at_least=1.0, unit=""),
    ),
    repetitions=LONG_PERCENT,
    open_transaction=True,
)

# As docs/throttling.md has it for peak hours: small batches by time, and a pause about as long as a batch.
BUSY = {"batch_size": 20_000, "sleep_ms": 20, "target_ms": 20, "max_lock_waiters": 0}
FOREGROUND = Scenario(
    "foreground",
    "An application at a quarter of what the machine can do, on the very table",
    _on(
        datasets.ACCOUNTS,
        Idle(),
        OneUpdate(),
        KeysetProcedure(),
        ours("ours", "full speed"),
        ours("ours-throttled", "target_ms 20, sleep_ms 20", **BUSY),
        ours("ours-calm", "target_ms 20, sleep_ms 60", **BUSY | {"sleep_ms": 60}),
    ),
    (
        Bar("p99, throttled against nothing else", "ours-throttled", 1.20, ("idle",), "p99"),
        Bar("p99, calmer against nothing else", "ours-calm", 1.20, ("idle",), "p99"),
        Bar("p99, full speed against the procedure", "ours", 1.00, ("procedure-keyset",), "p99"),
        Bar("time, full speed against the procedure", "ours", 1.00, ("procedure-keyset",)),
    ),
    repetitions=5,
    application=Application(),
)
WAITED = (20, 50, 100)
LOCK_WAITER = Scenario(
    "lock-waiter",
    "Somebody who wants a row of the batch at work, all the time",
    tuple(
        entry
        for target in WAITED
        for entry in _on(
            datasets.ACCOUNTS,
            ours(f"ours-{target}", f"target_ms {target}", batch_size=20_000, target_ms=target),
            ours(
                f"ours-sequential-{target}",
                f"sequential, target_ms {target}",
                batch_size=20_000,
                target_ms=target,
                strategy="sequential",
            ),
        )
    ),
    tuple(
        Bar(
            f"{text}: a wait, p99, 2 times target_ms", f"{name}-{target}", 2 * target / 1000, measure="waited", unit="s"
        )
        for target in WAITED
        for name, text in (("ours", f"target_ms {target}"), ("ours-sequential", f"sequential, target_ms {target}"))
    ),
    waiter=True,
)

# Those with the same settings stand together: they share a server.
SCENARIOS = (
    MAIN,
    TEN_INDEXES,
    KEY_ONLY,
    GAPS,
    BATCH_SIZE,
    OPEN_TRANSACTION,
    WIDE,
    SPARSE,
    PARTITIONS,
    SIZE,
    FOREGROUND,
    LOCK_WAITER,
    AUTOVACUUM_OFF,
    UUID,
)
