//! `backfill.rehearse`: real batches of some rows, with triggers and constraints, that are rolled back.

use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

use super::backfill::Backfill;
use super::caller::{known_job, refuse_read_only, required};
use super::sample::{Part, shown};
use super::subject::Subject;
use crate::error::{Error, Result, sqlstate};
use crate::pg::report::notice;
use crate::pg::spi::{self, Arg};
use crate::pg::tid::Tid;
use crate::pg::{relation, server, settings, wal};
use crate::store::event;
use crate::stranger::errand::{Errand, carry_out};

/// Rows that a call may ask for.
const MOST: i32 = 100_000;
/// Number of failed rows that are listed with their errors.
const SHOWN: usize = 100;

/// A line of the result: first all rows, then the failed ones, one by one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tried {
    /// The rows that the line is about.
    pub what: String,
    /// Number of rows.
    pub rows: i64,
    /// Number of rows that failed.
    pub failed: i64,
    /// Milliseconds per row.
    pub ms_per_row: Option<f64>,
    /// Bytes of WAL per row.
    pub wal_bytes_per_row: Option<f64>,
    /// Dead tuples left behind.
    pub dead_tuples: i64,
    /// The error, if there is one.
    pub error: Option<String>,
}

/// Sums over the batches.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sum {
    rows: i64,
    batches: i64,
    time: Duration,
    wal: u64,
    images: u64,
    dead: i64,
    /// Rows that failed.
    failures: i64,
    /// Failures that are shown.
    failed: Vec<Tried>,
}

/// Tries rows from all over the table, in batches of the job's size.
pub fn rehearse(job_id: Option<i64>, rows: Option<i32>) -> Result<Vec<Tried>> {
    let job = known_job(job_id, "backfill.rehearse()")?;
    refuse_read_only(&job)?;
    let rows = required(rows, "rows")?;
    if !(1..=MOST).contains(&rows) {
        let message = format!("rows must be between 1 and {MOST}, not {rows}");
        return Err(
            Error::invalid(message).hint("It is how many rows to try at most; 1000 will do.")
        );
    }
    if relation::describe(job.relation)?.is_none() {
        return Err(Error::new(
            sqlstate::UNDEFINED_TABLE,
            format!("table {} no longer exists", job.relation_name),
        )
        .hint("There is nothing to be tried."));
    }
    notice(
        &format!(
            "up to {rows} rows of {} are {} and rolled back: that writes WAL and leaves dead tuples",
            job.relation_name,
            job.definition.action.as_action().done()
        ),
        Some(
            "Their triggers fire. What does not belong to the transaction, as sequences do not, stays changed.",
        ),
    );
    let sum = carry_out(RehearsalOf {
        subject: Subject::of(&job),
        batch_size: i64::from(job.batch_size),
        rows: i64::from(rows),
    })?;
    let me = server::current_user();
    event::record(
        job.id,
        me,
        "rehearse",
        None,
        Some(&format!("{} rows", sum.rows)),
    )?;
    notice(
        &format!(
            "rolled back: {} bytes of WAL were written, {}, and {} dead tuples are left",
            sum.wal,
            sum.images(),
            sum.dead
        ),
        (sum.dead > 0).then_some("VACUUM removes them."),
    );
    Ok(sum.report())
}

/// The rehearsal of a stored job. It runs what batches run, so it is always sent to a process of the owner's.
#[derive(Serialize, Deserialize)]
pub struct RehearsalOf {
    subject: Subject,
    batch_size: i64,
    rows: i64,
}

impl Errand for RehearsalOf {
    const NAME: &'static str = "rehearse";
    const LIMIT: Option<Duration> = None;
    const ALWAYS_SENT: bool = true;
    type Answer = Sum;

    fn owner(&self) -> Oid {
        self.subject.owner()
    }

    fn run(self) -> Result<Sum> {
        let backfill = self.subject.open()?;
        backfill.under_its_settings(|| batches(&backfill, self.batch_size, self.rows))
    }
}

fn batches(backfill: &Backfill, batch_size: i64, rows: i64) -> Result<Sum> {
    let timeout = backfill.options.lock_timeout_ms().to_string();
    settings::set_text_local("lock_timeout", &timeout)?;
    let mut sum = Sum::default();
    let found = backfill.parts(rows)?;
    let mut batch: Vec<(&Part, Tid, &str)> = Vec::new();
    for part in &found.parts {
        // A batch is about one table.
        if batch
            .first()
            .is_some_and(|(first, ..)| first.table.oid != part.table.oid)
        {
            sum.batch(&batch);
            batch.clear();
        }
        match &part.rows {
            // No rows of these pages were tried.
            Err(error) => sum.show(Tried {
                what: format!("pages {} to {}", part.pages.0, part.pages.1 - 1),
                error: Some(shown(error)),
                ..Tried::default()
            }),
            Ok(rows) => {
                for (tid, key) in rows {
                    batch.push((part, *tid, key));
                    if batch.len() as i64 >= batch_size {
                        sum.batch(&batch);
                        batch.clear();
                    }
                }
            }
        }
    }
    sum.batch(&batch);
    Ok(sum)
}

impl Sum {
    /// Tries a batch; if it fails, tries its rows one by one.
    fn batch(&mut self, rows: &[(&Part, Tid, &str)]) {
        let Some((part, ..)) = rows.first() else {
            return;
        };
        self.batches += 1;
        let places: Vec<Tid> = rows.iter().map(|(_, tid, _)| *tid).collect();
        let Err(error) = self.measured(part, &places) else {
            return;
        };
        if let [(_, _, key)] = rows {
            self.fail(key, &error);
            return;
        }
        for (part, tid, key) in rows {
            if let Err(error) = self.measured(part, &[*tid]) {
                self.fail(key, &error);
            }
        }
    }

    fn fail(&mut self, key: &str, error: &Error) {
        self.rows += 1;
        self.failures += 1;
        self.show(Tried {
            what: key.to_owned(),
            rows: 1,
            failed: 1,
            error: Some(shown(error)),
            ..Tried::default()
        });
    }

    /// Keeps the failure, if it is one of the first.
    fn show(&mut self, tried: Tried) {
        if self.failed.len() < SHOWN {
            self.failed.push(tried);
        }
    }

    /// Updates rows and rolls that back. Deferred constraints and triggers are run at once.
    fn measured(&mut self, part: &Part, places: &[Tid]) -> Result<()> {
        let (begun, before, images) = (Instant::now(), wal::written(), wal::images());
        let updated = spi::undone(|| {
            let args = [Arg::Tids(places)];
            let updated = spi::query(&part.statement, &args)?.processed;
            spi::query("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
            Ok(updated)
        });
        self.wal += wal::written() - before;
        self.images += wal::images() - images;
        let updated = updated?;
        self.time += begun.elapsed();
        self.rows += updated;
        self.dead += updated;
        Ok(())
    }

    fn images_counted(&self) -> String {
        let s = if self.images == 1 { "" } else { "s" };
        format!("{} full-page image{s}", self.images)
    }

    /// Describes the part of the WAL that is not the rows' own: in a long run, the rows of a page share its image.
    fn images(&self) -> String {
        format!(
            "{} included (of each page that changes for the first time after a checkpoint)",
            self.images_counted()
        )
    }

    fn report(self) -> Vec<Tried> {
        let good = self.rows - self.failures;
        let per_row = |all: f64| (good > 0).then(|| (all / good as f64 * 1000.0).round() / 1000.0);
        let s = if self.batches == 1 { "" } else { "es" };
        let all = Tried {
            what: format!(
                "all, in {} batch{s}; WAL with {}",
                self.batches,
                self.images_counted()
            ),
            rows: self.rows,
            failed: self.failures,
            ms_per_row: per_row(self.time.as_secs_f64() * 1000.0),
            wal_bytes_per_row: per_row(self.wal as f64),
            dead_tuples: self.dead,
            error: None,
        };
        std::iter::once(all).chain(self.failed).collect()
    }
}
