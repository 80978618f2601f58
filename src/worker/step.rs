//! What a batch is given, and what it comes to.

use pgrx::pg_sys::Oid;

use crate::catalog::job::Job;
use crate::error::Result;
use crate::job::reader::Reader;
use crate::job::sizer::Sizer;
use crate::pg::hot;
use crate::plan::position::{Key, Position};

/// What a batch is given, and what it leaves for the next.
#[derive(Debug)]
pub struct Work<'a> {
    /// The job.
    pub job: &'a Job,
    /// Measures batches.
    pub sizer: &'a Sizer,
    /// Measures how long it takes to read rows.
    pub reader: &'a mut Reader,
    /// Whether a read should be no longer than a batch.
    pub careful: bool,
    /// In physical order: rows that the slice has found to match so far.
    pub found: i64,
    /// Rows that the slice may still have, by its estimate.
    pub left: Option<i64>,
    /// What the batch in progress is about, once that is known: for when it fails.
    pub attempt: &'a mut Option<Attempt>,
    /// A remark for a person.
    pub note: Option<String>,
    /// The size in force.
    pub batch_rows: Option<i32>,
}

/// What a batch is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// Keys after the position's, up to this one.
    Keys(Key),
    /// The same, to be read only.
    ReadKeys(Key),
    /// Keys of the present pass, up to this one.
    Wave(Key),
    /// Pages, from the first to before the second.
    Pages(i64, i64),
    /// The same, to be read only.
    ReadPages(i64, i64),
}

/// What a batch has come to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Done {
    /// Where the slice stands now.
    pub position: Position,
    /// Rows passed.
    pub scanned: i64,
    /// Rows changed.
    pub updated: i64,
    /// Heap-only ones among them.
    pub hot: i64,
    /// In physical order: rows found to match.
    pub found: i64,
    /// Rows of the UPDATE, whether or not it changed them.
    pub tried: i64,
    /// Rows that were only read.
    pub read: i64,
    /// Whether a region was opened: the batches that follow update its rows.
    pub opened: bool,
    /// Whether that was the last of the slice.
    pub last: bool,
}

impl Done {
    /// The slice has no more rows.
    pub fn nothing_left(position: Position) -> Done {
        Done {
            position,
            last: true,
            ..Done::default()
        }
    }
}

impl Work<'_> {
    /// Rows of the next UPDATE: `most`, or fewer.
    pub fn size(&mut self, most: i64) -> i64 {
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        let size = self.sizer.size(most, self.job.definition.options.target_ms);
        self.batch_rows = Some(size);
        i64::from(size)
    }

    /// Rows to be read for a region, of the number wanted: no more than a statement may read, and
    /// if not much would be left of the slice after it, all of that too.
    pub fn region_rows(&self, wanted: i64) -> i64 {
        let options = &self.job.definition.options;
        let all = match self.left {
            Some(left) if left < wanted * 3 / 2 => wanted * 2,
            _ => wanted,
        };
        let limit = match self.job.definition.where_clause {
            Some(_) => options.scan_limit.unwrap_or(i64::MAX),
            None => i64::MAX,
        };
        let most = all.min(limit).min(self.reader.most(options.target_ms));
        if self.careful {
            most.min(i64::from(self.job.batch_size))
        } else {
            most
        }
    }
}

/// Runs an UPDATE; gives the rows changed, and the heap-only ones among them.
pub fn changed_by(relation: Oid, update: impl FnOnce() -> Result<i64>) -> Result<(i64, i64)> {
    let (_, before) = hot::xact_counts(relation);
    let updated = update()?;
    let (_, after) = hot::xact_counts(relation);
    Ok((updated, (after - before).clamp(0, updated)))
}
