//! Estimates what a backfill takes: WAL, growth, time. A few of the rows that would be updated are evaluated, to measure how long that
//! takes and how many bytes the new versions have. The time to store them comes from the same costs as the choice of waves
//! (`waves::costs`); their WAL from constants, measured on the table of the benchmark's main scenario (a million rows of 172 bytes, five
//! indexes; PostgreSQL 15, two cores). If a job with the same set_clause has
//! run on the same table, its figures are used instead. A figure that depends on something neither can tell is marked as such.

use crate::estimate::toast::CHUNK;
use crate::waves::costs;

/// Bytes of WAL of a heap-only update in addition to the row's new values: the update's record, and its share of the records that prune
/// the page.
const HOT_RECORD: f64 = 121.0;
/// Bytes of WAL of an update that is not heap-only, in addition to the new version.
const UPDATE_RECORD: f64 = 90.0;
/// Bytes of WAL of a deleted row.
const DELETED_RECORD: f64 = 54.0;
/// Bytes of WAL of an index entry for a column of 8 bytes.
const ENTRY_RECORD: f64 = 75.0;
/// Bytes of WAL of a chunk in the TOAST table in addition to its data, with its index entry there.
const CHUNK_RECORD: f64 = 150.0;
/// Bytes of WAL of a deleted chunk.
const DELETE_RECORD: f64 = 60.0;
/// Bytes that a chunk takes in the TOAST table in addition to its data, its index entry included.
const CHUNK_STORED: f64 = 75.0;
/// Growth of an index in waves, as a share of the space that its new entries take: some of them reuse the space of dead ones.
const REUSED_IN_WAVES: f64 = 0.67;
/// Fill factor of the pages of an index whose entries come in random order.
const FILLED: f64 = 0.75;
/// Exponent: throughput grows with workers^0.66, since workers compete for pages and for the WAL.
const PARALLEL: f64 = 0.66;
/// Size of a page in bytes.
const PAGE: f64 = 8192.0;
/// Access methods whose indexes get one entry for each row, of the size of the existing entries.
const ENTRY_FOR_ENTRY: [&str; 4] = ["btree", "hash", "gist", "spgist"];

/// An index, as far as its growth depends on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// Name of the index.
    pub name: String,
    /// Access method of the index.
    pub method: String,
    /// Size of the index in bytes.
    pub bytes: f64,
    /// Whether the update changes the contents of the index.
    pub changed: bool,
    /// Size of the columns of a new entry in bytes, if known.
    pub width: Option<f64>,
    /// Correlation of the index's order with the table's, from -1 to 1; 0 if unknown.
    pub correlation: f64,
}

/// Measurements on the rows that were evaluated; each figure is an average.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Number of rows.
    pub rows: f64,
    /// Seconds to evaluate a row.
    pub seconds: f64,
    /// Seconds that each statement takes before its first row.
    pub startup: f64,
    /// Size of the old row in the table itself, in bytes.
    pub before: f64,
    /// Size of the new version in the table itself, in bytes.
    pub after: f64,
    /// Size of the new values of the columns that are set, in the table itself, in bytes.
    pub set: f64,
    /// Bytes of new and of replaced values in the TOAST table.
    pub toast: (f64, f64),
    /// Number of new chunks in the TOAST table.
    pub chunks: f64,
}

/// Facts about the table and the walk.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Number of rows of the table.
    pub rows: f64,
    /// Number of rows that will be updated.
    pub matching: f64,
    /// Size of the heap in bytes.
    pub heap: f64,
    /// Indexes of the table.
    pub indexes: Vec<Index>,
    /// Whether the walk uses waves.
    pub waves: bool,
    /// Number of passes over each page.
    pub passes: f64,
    /// Share of the new versions that go to another page, from 0 to 1.
    pub elsewhere: f64,
    /// Free space per page of the heap, in bytes.
    pub free: f64,
    /// Whether all updates need index entries, wherever the new version goes.
    pub blocked: bool,
    /// Whether the server writes full page images.
    pub full_page_writes: bool,
    /// Whether changes of the table are written to the WAL at all.
    pub logged: bool,
    /// Whether the WAL contains what logical decoding needs.
    pub logical: bool,
    /// Whether rows are only looked at.
    pub read_only: bool,
    /// Whether rows are removed.
    pub removes: bool,
    /// Maximum number of rows of a batch.
    pub batch_size: f64,
    /// Pause after a batch, in seconds.
    pub sleep: f64,
    /// Number of workers.
    pub workers: f64,
    /// Number of processors.
    pub processors: f64,
    /// Seconds to read a row and check whether it matches, if measured.
    pub reading: f64,
    /// Measurements on rows that were evaluated.
    pub sample: Option<Sample>,
    /// Time that this processor takes, relative to the one on which the constants were measured.
    pub slower: f64,
}

/// Figures per row of a job that has run on the same table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// Seconds of work per updated row.
    pub seconds: f64,
    /// Bytes of WAL per updated row.
    pub wal: f64,
}

/// The estimate of what a run will take.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimate {
    /// Number of commits.
    pub batches: f64,
    /// Bytes of WAL.
    pub wal: f64,
    /// Growth of the heap in bytes, its TOAST table included.
    pub heap_growth: f64,
    /// Growth of the indexes in bytes.
    pub index_growth: f64,
    /// Seconds until all workers are done, pauses included.
    pub seconds: f64,
    /// Indexes that the figures for growth and WAL leave out (the time counts their entries like all others): their names, with their
    /// access methods.
    pub unknown_indexes: Vec<String>,
}

impl Estimate {
    /// Adds the estimate for another table.
    pub fn add(&mut self, other: Estimate) {
        self.batches += other.batches;
        self.wal += other.wal;
        self.heap_growth += other.heap_growth;
        self.index_growth += other.index_growth;
        self.seconds += other.seconds;
        self.unknown_indexes.extend(other.unknown_indexes);
    }
}

/// Estimates from the sample and the rules, or from the figures of an earlier job.
pub fn estimate(given: &Given, known: Option<Known>) -> Estimate {
    let sample = given.sample();
    let batches = (given.rows / given.batch_size.max(1.0)).ceil();
    let pauses = batches * given.sleep / given.workers.max(1.0);
    if given.read_only {
        let seconds = match known {
            Some(known) => known.seconds * given.matching / given.parallel(),
            None => given.evaluated(&sample, batches),
        };
        return Estimate {
            batches,
            seconds: seconds + pauses,
            // What the statement of an earlier job has written elsewhere.
            wal: known.map_or(0.0, |known| known.wal * given.matching),
            ..Estimate::default()
        };
    }
    if given.removes {
        return given.removed(batches, pauses, known);
    }
    let seconds = match known {
        Some(known) => known.seconds * given.matching / given.parallel(),
        None => given.seconds(&sample, batches),
    };
    let wal = match (given.logged, known) {
        (false, _) => 0.0,
        (true, Some(known)) => known.wal * given.matching,
        (true, None) => given.wal(&sample),
    };
    let (new, _) = sample.toast;
    let heap = given.elsewhere * (given.row() + sample.after - sample.before);
    let indexes = given.indexes.iter();
    Estimate {
        batches,
        wal,
        heap_growth: given.matching * (heap + new + sample.chunks * CHUNK_STORED),
        index_growth: indexes.filter_map(|index| given.growth(index)).sum(),
        seconds: seconds + pauses,
        unknown_indexes: given.unknown_indexes(),
    }
}

impl Given {
    /// Returns the measurements; without any, assumes new versions like the old ones.
    fn sample(&self) -> Sample {
        self.sample.unwrap_or(Sample {
            before: self.row(),
            after: self.row(),
            set: 4.0,
            ..Sample::default()
        })
    }

    /// Returns the bytes of a row, its share of the page's overhead included.
    fn row(&self) -> f64 {
        self.heap / self.rows.max(1.0)
    }

    /// Returns the share of the rows that are updated.
    fn share(&self) -> f64 {
        (self.matching / self.rows.max(1.0)).min(1.0)
    }

    /// Returns the share of the updates that need an entry in each index.
    fn entries(&self) -> f64 {
        if self.blocked { 1.0 } else { self.elsewhere }
    }

    fn parallel(&self) -> f64 {
        self.workers.max(1.0).powf(PARALLEL)
    }

    /// Returns the seconds until all rows are stored, pauses not included.
    fn seconds(&self, sample: &Sample, batches: f64) -> f64 {
        let pages = self.heap / PAGE * touched(self.share(), PAGE / self.row().max(1.0));
        let moved = costs::ELSEWHERE + costs::BYTE * sample.after;
        let old = sample.toast.1 / CHUNK as f64;
        let of_row = costs::ROW
            + self.elsewhere * moved
            + self.entries() * self.of_entries()
            + sample.chunks * costs::CHUNK_WRITTEN
            + old * costs::CHUNK_DELETED;
        let others = (self.rows - self.matching).max(0.0);
        let all =
            self.matching * of_row + pages * self.passes * costs::VISIT + others * costs::READ;
        all / 1e6 * self.slower / self.parallel() + self.evaluated(sample, batches)
    }

    /// Returns the estimate for rows that are removed: nothing grows.
    fn removed(&self, batches: f64, pauses: f64, known: Option<Known>) -> Estimate {
        let share = self.share();
        let others = (self.rows - self.matching).max(0.0) * costs::READ;
        let pages = self.heap / PAGE * touched(share, PAGE / self.row().max(1.0));
        let all = self.matching * costs::REMOVED + pages * costs::VISIT + others;
        let looked = self.reading * (self.rows + self.matching);
        let seconds = (all / 1e6 * self.slower + looked) / self.parallel();
        let images = match self.full_page_writes {
            true => self.images(share, 0.0),
            false => 0.0,
        };
        let wal = match self.logged {
            true => images + self.matching * DELETED_RECORD,
            false => 0.0,
        };
        Estimate {
            batches,
            wal: known.map_or(wal, |known| known.wal * self.matching),
            seconds: known.map_or(seconds, |known| {
                known.seconds * self.matching / self.parallel()
            }) + pauses,
            ..Estimate::default()
        }
    }

    /// Returns the microseconds of a row's entries in all indexes.
    fn of_entries(&self) -> f64 {
        let several = !self.waves && self.workers > 1.0;
        let of_index = |index: &Index| match (index.method.as_str(), several || index.changed) {
            ("brin", _) => costs::ENTRY_OF_BRIN,
            (_, true) => costs::entry(index.correlation, costs::ENTRY_WITHOUT_SEARCH),
            (_, false) => costs::entry(index.correlation, costs::ENTRY),
        };
        self.indexes.iter().map(of_index).sum()
    }

    /// Returns the seconds for evaluating the clauses. Evaluation runs in parallel, but on no more workers than there are
    /// processors.
    fn evaluated(&self, sample: &Sample, batches: f64) -> f64 {
        // The UPDATE checks the rows that match once more.
        let looked = self.reading * (self.rows + self.matching);
        let evaluated = self.matching * sample.seconds + batches * sample.startup + looked;
        evaluated / self.workers.clamp(1.0, self.processors.max(1.0))
    }

    fn wal(&self, sample: &Sample) -> f64 {
        let (share, entries) = (self.share(), self.entries());
        let images = match self.full_page_writes {
            true => self.images(share, entries) + self.matching * sample.toast.1,
            false => 0.0,
        };
        let whole = if self.logical { sample.after } else { 0.0 };
        let hot = HOT_RECORD + sample.set + whole;
        let moved = UPDATE_RECORD + sample.after;
        let old = sample.toast.1 / CHUNK as f64;
        let toast = sample.toast.0 + sample.chunks * CHUNK_RECORD + old * DELETE_RECORD;
        let of_entry = |index: &Index| ENTRY_RECORD + (index.width.unwrap_or(8.0) - 8.0).max(0.0);
        // A lower bound: leaves out indexes that may write less, or much more.
        let known = self.indexes.iter().filter(|i| self.growth(i).is_some());
        let indexed: f64 = known.map(of_entry).sum();
        let row = (1.0 - self.elsewhere) * hot + self.elsewhere * moved + toast;
        images + self.matching * (row + entries * indexed)
    }

    /// Returns the bytes of page images: pages that are written for the first time after a checkpoint.
    fn images(&self, share: f64, entries: f64) -> f64 {
        // The free space of a page is not in its image.
        let used = (1.0 - self.free / PAGE).max(0.0);
        let heap = self.heap * used * touched(share, PAGE / self.row().max(1.0));
        let of_index = |index: &Index| {
            let per_page = self.rows / (index.bytes / PAGE).max(1.0);
            index.bytes * touched(share * entries, per_page)
        };
        let known = self.indexes.iter().filter(|i| self.growth(i).is_some());
        heap + known.map(of_index).sum::<f64>()
    }

    /// Returns the bytes that an index grows by; `None` if that can't be told from its access method.
    fn growth(&self, index: &Index) -> Option<f64> {
        if index.method == "brin" {
            // BRIN summarises pages: new pages of the heap take a few bytes.
            return Some(0.0);
        }
        let entries = self.matching * self.entries();
        match (index.changed, index.width) {
            _ if entries < 1.0 => Some(0.0),
            (false, _) if ENTRY_FOR_ENTRY.contains(&index.method.as_str()) => {
                let reused = if self.waves { REUSED_IN_WAVES } else { 1.0 };
                Some(index.bytes * self.share() * self.entries() * reused)
            }
            (true, Some(width)) if index.method == "btree" => {
                Some(entries * (12.0 + (width / 8.0).ceil() * 8.0) / FILLED)
            }
            _ => None,
        }
    }

    fn unknown_indexes(&self) -> Vec<String> {
        let unknown = self.indexes.iter().filter(|i| self.growth(i).is_none());
        unknown
            .map(|index| format!("{} ({})", index.name, index.method))
            .collect()
    }
}

/// Returns the share of the pages that are touched if this share of their rows is.
fn touched(share: f64, per_page: f64) -> f64 {
    1.0 - (1.0 - share.clamp(0.0, 1.0)).powf(per_page.max(1.0))
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
