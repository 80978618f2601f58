//! What a backfill takes: WAL, growth, time. Rules of thumb, whose constants were measured on the table of the
//! benchmark's main scenario (a million rows of 172 bytes, five indexes; PostgreSQL 15, two cores), in waves and
//! without; what a job on the same table took is better, where there was one.

/// Bytes of WAL of a heap-only update beside what the row's new values take: the record of the update, and
/// its share of those that prune the page.
const HOT_RECORD: f64 = 125.0;
/// Bytes of WAL of an update that is not heap-only, beside the new version.
const UPDATE_RECORD: f64 = 90.0;
/// Bytes of WAL of an index entry.
const ENTRY_RECORD: f64 = 75.0;
/// Share of the updates that are heap-only in waves.
const HOT_IN_WAVES: f64 = 0.88;
/// Growth of the heap in waves, and of the indexes, as shares of their sizes.
const GROWTH_IN_WAVES: (f64, f64) = (0.11, 0.08);
/// Microseconds of an update of the row itself, of an index entry, and of a row that is only read.
const MICROSECONDS: (f64, f64, f64) = (4.3, 3.5, 0.3);
/// So much more two workers do than one, as a power of their number.
const PARALLEL: f64 = 0.66;
/// Bytes of a page.
const PAGE: f64 = 8192.0;

/// What is known of the table and the walk.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// Rows of the table.
    pub rows: f64,
    /// Rows that will be updated.
    pub matching: f64,
    /// Bytes of the heap.
    pub heap: f64,
    /// Bytes of its indexes.
    pub indexes: f64,
    /// How many indexes there are.
    pub index_count: f64,
    /// Whether it goes in waves.
    pub waves: bool,
    /// Whether the server writes full page images.
    pub full_page_writes: bool,
    /// Whether the table has WAL at all.
    pub logged: bool,
    /// Rows of a batch, at most.
    pub batch_size: f64,
    /// Pause after a batch, in seconds.
    pub sleep: f64,
    /// Workers.
    pub workers: f64,
}

/// What a row took in a job that has run on the same table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// Seconds of work for each row updated.
    pub seconds: f64,
    /// Bytes of WAL for each.
    pub wal: f64,
}

/// What it will take.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// Commits.
    pub batches: f64,
    /// Bytes of WAL.
    pub wal: f64,
    /// Bytes that the heap grows by.
    pub heap_growth: f64,
    /// Bytes that its indexes grow by.
    pub index_growth: f64,
    /// Seconds of work, by all workers.
    pub seconds: f64,
}

impl Estimate {
    /// Adds that of another table.
    pub fn add(&mut self, other: &Estimate) {
        self.batches += other.batches;
        self.wal += other.wal;
        self.heap_growth += other.heap_growth;
        self.index_growth += other.index_growth;
        self.seconds += other.seconds;
    }
}

/// By these rules, or by what is known of a job before.
pub fn estimate(given: &Given, known: Option<Known>) -> Estimate {
    let share = (given.matching / given.rows.max(1.0)).min(1.0);
    // Without waves, new versions go elsewhere, and need entries.
    let hot = if given.waves { HOT_IN_WAVES } else { 0.0 };
    let entries = given.matching * (1.0 - hot) * given.index_count;
    let batches = (given.rows / given.batch_size.max(1.0)).ceil();
    let parallel = given.workers.max(1.0).powf(PARALLEL);
    let pauses = batches * given.sleep / given.workers.max(1.0);
    let (row, entry, read) = MICROSECONDS;
    let work = given.matching * row + entries * entry + (given.rows - given.matching) * read;
    let seconds = match known {
        Some(known) => known.seconds * given.matching,
        None => work / 1e6,
    };
    let wal = match (given.logged, known) {
        (false, _) => 0.0,
        (true, Some(known)) => known.wal * given.matching,
        (true, None) => wal(given, share, hot, entries),
    };
    let (heap, indexes) = match given.waves {
        true => GROWTH_IN_WAVES,
        false => (1.0, 1.0),
    };
    Estimate {
        batches,
        wal,
        heap_growth: given.heap * share * heap,
        index_growth: given.indexes * share * indexes,
        seconds: seconds / parallel + pauses,
    }
}

fn wal(given: &Given, share: f64, hot: f64, entries: f64) -> f64 {
    let row = given.heap / given.rows.max(1.0);
    let images = if given.full_page_writes {
        let per_page = PAGE / row.max(1.0);
        let pages = given.heap * touched(share, per_page);
        let per_index_page = given.rows * given.index_count / (given.indexes / PAGE).max(1.0);
        pages + given.indexes * touched(share * (1.0 - hot), per_index_page)
    } else {
        0.0
    };
    let records = given.matching * (hot * HOT_RECORD + (1.0 - hot) * (UPDATE_RECORD + row));
    images + records + entries * ENTRY_RECORD
}

/// Share of the pages that are touched, where a share of the rows on them is.
fn touched(share: f64, per_page: f64) -> f64 {
    1.0 - (1.0 - share.clamp(0.0, 1.0)).powf(per_page.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The benchmark's main scenario.
    const MAIN: Given = Given {
        rows: 1e6,
        matching: 1e6,
        heap: 172e6,
        indexes: 108e6,
        index_count: 5.0,
        waves: true,
        full_page_writes: true,
        logged: true,
        batch_size: 10_000.0,
        sleep: 0.0,
        workers: 1.0,
    };

    fn near(value: f64, measured: f64) {
        let ratio = value / measured;
        assert!((0.8..1.25).contains(&ratio), "{value} of {measured}");
    }

    #[test]
    fn the_rules_fit_what_they_were_measured_on() {
        let waves = estimate(&MAIN, None);
        near(waves.wal, 421e6);
        near(waves.seconds, 6.5);
        near(waves.heap_growth, 19e6);
        let sequential = estimate(
            &Given {
                waves: false,
                ..MAIN
            },
            None,
        );
        near(sequential.wal, 880e6);
        near(sequential.seconds, 22.0);
        near(sequential.heap_growth, 180e6);
        let two = estimate(
            &Given {
                workers: 2.0,
                ..MAIN
            },
            None,
        );
        near(two.seconds, 4.1);
    }

    #[test]
    fn few_rows_touch_few_pages() {
        let few = estimate(
            &Given {
                matching: 1000.0,
                ..MAIN
            },
            None,
        );
        // An image of a page of the heap for each row, and of each index for some.
        assert!(few.wal > 8e6 && few.wal < 14e6, "{few:?}");
        assert!(few.seconds > 0.25 && few.seconds < 0.5, "{few:?}");
    }

    #[test]
    fn what_is_known_is_better_than_a_rule() {
        let known = Known {
            seconds: 1e-3,
            wal: 10.0,
        };
        let slow = estimate(&MAIN, Some(known));
        assert!((slow.seconds - 1000.0).abs() < 1e-6);
        assert!((slow.wal - 1e7).abs() < 1e-3);
        let paused = estimate(&Given { sleep: 0.1, ..MAIN }, None);
        assert!(paused.seconds > 15.0);
        let unlogged = estimate(
            &Given {
                logged: false,
                ..MAIN
            },
            None,
        );
        assert_eq!(unlogged.wal, 0.0);
    }
}
