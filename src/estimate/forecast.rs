//! What a backfill takes: WAL, growth, time. Of the rows that are updated, a few are evaluated: how long that takes,
//! and how many bytes the new versions have. What PostgreSQL takes for it to store them goes by constants, measured on the table of the
//! benchmark's main scenario (a million rows of 172 bytes, five indexes; PostgreSQL 15, two cores). What a job with the same
//! set_clause on the same table took is better, where there was one. Where a figure depends on what neither tells, it says so.

use crate::estimate::toast::CHUNK;

/// Bytes of WAL of a heap-only update beside what the row's new values take: the record of the update, and
/// its share of those that prune the page.
const HOT_RECORD: f64 = 121.0;
/// Bytes of WAL of an update that is not heap-only, beside the new version.
const UPDATE_RECORD: f64 = 90.0;
/// Bytes of WAL of an index entry, of a column of 8 bytes.
const ENTRY_RECORD: f64 = 75.0;
/// Bytes of WAL of a chunk in the TOAST table beside its data, with its entry in the index there.
const CHUNK_RECORD: f64 = 150.0;
/// Bytes of WAL of a chunk that is deleted.
const DELETE_RECORD: f64 = 60.0;
/// Bytes that a chunk takes in the TOAST table beside its data, its entry in the index included.
const CHUNK_STORED: f64 = 75.0;
/// Growth of an index by waves, as a share of what as many entries take in it: others take the place of those that are dead.
const REUSED_IN_WAVES: f64 = 0.67;
/// How full pages of an index are that gets entries in no order.
const FILLED: f64 = 0.75;
/// Microseconds of an update of the row itself, of an index entry, and of a row that is only read.
const MICROSECONDS: (f64, f64, f64) = (4.3, 3.5, 0.3);
/// Microseconds of a chunk that is written, and of one that is deleted.
const CHUNK_MICROSECONDS: (f64, f64) = (14.0, 3.0);
/// Throughput grows with the workers to this power: they meet in the same pages and in the WAL.
const PARALLEL: f64 = 0.66;
/// Bytes of a page.
const PAGE: f64 = 8192.0;
/// Access methods whose indexes get an entry for each row, of the size of those that are there.
const ENTRY_FOR_ENTRY: [&str; 4] = ["btree", "hash", "gist", "spgist"];

/// An index, as far as its growth depends on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its access method.
    pub method: String,
    /// Bytes of it.
    pub bytes: f64,
    /// Whether the update changes what it holds.
    pub changed: bool,
    /// Bytes of a new entry's columns, where they are known.
    pub width: Option<f64>,
}

/// What was seen of rows that were evaluated; each figure is an average.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// How many rows.
    pub rows: f64,
    /// Seconds of the evaluation of a row.
    pub seconds: f64,
    /// Seconds of each statement before its first row.
    pub startup: f64,
    /// Bytes of a row before, in the table itself.
    pub before: f64,
    /// Bytes of its new version there.
    pub after: f64,
    /// Bytes of the values that are set, there.
    pub set: f64,
    /// Bytes of values in the TOAST table that are new, and that are replaced.
    pub toast: (f64, f64),
    /// Chunks there that are new.
    pub chunks: f64,
}

/// What is known of the table and the walk.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Rows of the table.
    pub rows: f64,
    /// Rows that will be updated.
    pub matching: f64,
    /// Bytes of the heap.
    pub heap: f64,
    /// Its indexes.
    pub indexes: Vec<Index>,
    /// Whether it goes in waves.
    pub waves: bool,
    /// The share of the new versions that go to another page, from 0 to 1.
    pub elsewhere: f64,
    /// Bytes that pages of the heap have free.
    pub free: f64,
    /// Whether all updates need index entries, wherever they go.
    pub blocked: bool,
    /// Whether the server writes full page images.
    pub full_page_writes: bool,
    /// Whether the table has WAL at all.
    pub logged: bool,
    /// Whether WAL has what logical decoding needs.
    pub logical: bool,
    /// Whether rows are only looked at.
    pub read_only: bool,
    /// Rows of a batch, at most.
    pub batch_size: f64,
    /// Pause after a batch, in seconds.
    pub sleep: f64,
    /// Workers.
    pub workers: f64,
    /// Processors.
    pub processors: f64,
    /// Seconds to read a row and see whether it matches, where that was measured.
    pub reading: f64,
    /// Rows that were evaluated.
    pub sample: Option<Sample>,
    /// How many times as long the processor takes as the one on which the constants were measured.
    pub slower: f64,
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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Estimate {
    /// Commits.
    pub batches: f64,
    /// Bytes of WAL.
    pub wal: f64,
    /// Bytes that the heap grows by, its TOAST table included.
    pub heap_growth: f64,
    /// Bytes that its indexes grow by.
    pub index_growth: f64,
    /// Seconds of work, by all workers.
    pub seconds: f64,
    /// What is not in the figures of indexes, nor in those of WAL and time: names of indexes, with their methods.
    pub unknown_indexes: Vec<String>,
}

impl Estimate {
    /// Adds that of another table.
    pub fn add(&mut self, other: Estimate) {
        self.batches += other.batches;
        self.wal += other.wal;
        self.heap_growth += other.heap_growth;
        self.index_growth += other.index_growth;
        self.seconds += other.seconds;
        self.unknown_indexes.extend(other.unknown_indexes);
    }
}

/// By the sample and the rules, or by what is known of a job before.
pub fn estimate(given: &Given, known: Option<Known>) -> Estimate {
    let sample = given.sample();
    let batches = (given.rows / given.batch_size.max(1.0)).ceil();
    let pauses = batches * given.sleep / given.workers.max(1.0);
    if given.read_only {
        return Estimate {
            batches,
            seconds: given.evaluated(&sample, batches) + pauses,
            ..Estimate::default()
        };
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
    /// The rows that were evaluated; without any, new versions like the old.
    fn sample(&self) -> Sample {
        self.sample.unwrap_or(Sample {
            before: self.row(),
            after: self.row(),
            set: 4.0,
            ..Sample::default()
        })
    }

    /// Bytes of a row, its share of the page included.
    fn row(&self) -> f64 {
        self.heap / self.rows.max(1.0)
    }

    /// Share of the rows that are updated.
    fn share(&self) -> f64 {
        (self.matching / self.rows.max(1.0)).min(1.0)
    }

    /// Share of the updates that need an entry in each index.
    fn entries(&self) -> f64 {
        if self.blocked { 1.0 } else { self.elsewhere }
    }

    fn parallel(&self) -> f64 {
        self.workers.max(1.0).powf(PARALLEL)
    }

    fn seconds(&self, sample: &Sample, batches: f64) -> f64 {
        let (row, entry, read) = MICROSECONDS;
        let (write, delete) = CHUNK_MICROSECONDS;
        let entries = self.entries() * self.indexes.len() as f64;
        let old = sample.toast.1 / CHUNK as f64;
        let of_row = row + entries * entry + sample.chunks * write + old * delete;
        let others = (self.rows - self.matching).max(0.0);
        let stored = (self.matching * of_row + others * read) / 1e6 * self.slower / self.parallel();
        stored + self.evaluated(sample, batches)
    }

    /// Seconds of the clauses themselves: whoever evaluates needs a processor.
    fn evaluated(&self, sample: &Sample, batches: f64) -> f64 {
        // Rows that match are looked at once more by the UPDATE.
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
        // What is known at least: nothing of an index that may write less, or much more.
        let known = self.indexes.iter().filter(|i| self.growth(i).is_some());
        let indexed: f64 = known.map(of_entry).sum();
        let row = (1.0 - self.elsewhere) * hot + self.elsewhere * moved + toast;
        images + self.matching * (row + entries * indexed)
    }

    /// Bytes of the pages that are written for the first time after a checkpoint.
    fn images(&self, share: f64, entries: f64) -> f64 {
        // What is free on a page is not in its image.
        let used = (1.0 - self.free / PAGE).max(0.0);
        let heap = self.heap * used * touched(share, PAGE / self.row().max(1.0));
        let of_index = |index: &Index| {
            let per_page = self.rows / (index.bytes / PAGE).max(1.0);
            index.bytes * touched(share * entries, per_page)
        };
        let known = self.indexes.iter().filter(|i| self.growth(i).is_some());
        heap + known.map(of_index).sum::<f64>()
    }

    /// Bytes that an index grows by; `None` where its kind does not tell.
    fn growth(&self, index: &Index) -> Option<f64> {
        if index.method == "brin" {
            // It tells of pages: new ones of the heap are a few bytes.
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

/// Share of the pages that are touched, where a share of the rows on them is.
fn touched(share: f64, per_page: f64) -> f64 {
    1.0 - (1.0 - share.clamp(0.0, 1.0)).powf(per_page.max(1.0))
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
