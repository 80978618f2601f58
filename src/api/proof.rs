//! What speaks against a completed job having done all of its table.

use super::existing;
use crate::error::{Error, Result, sqlstate};
use crate::store::job::Job;
use crate::store::{failed_row, left_out, walk};

/// Why the job, which has completed, has not done all of its table; nothing if it has.
pub fn lacking(job: &Job) -> Result<Option<Error>> {
    let (id, shown) = (job.id, existing::with_owner(job));
    let but = |what: &str, hint: String| {
        let message = format!("backfill {shown} has completed, but {what}");
        let error = Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message);
        Ok(Some(error.hint(hint)))
    };
    let failed = failed_row::count(id)?;
    if failed > 0 {
        let rows = if failed == 1 { "row" } else { "rows" };
        return but(
            &format!("{failed} {rows} failed"),
            format!(
                "See backfill.failed_rows; once the cause is mended, SELECT backfill.retry_failed({id})."
            ),
        );
    }
    if let Some(bounds) = walk::bounds(id)? {
        return but(
            &format!("{} only", bounds.shown()),
            format!(
                "Start another job for the rest, or for all of it with a where_clause that leaves out the rows that are done; SELECT backfill.forget({id}) frees the name."
            ),
        );
    }
    let left = left_out::of(job)?;
    if let Some(first) = left.first() {
        let (partition, rows) = match left.len() {
            1 => ("partition", "its rows are"),
            _ => ("partitions", "their rows are"),
        };
        return but(
            &format!(
                "{partition} {} came during the run, and {rows} not done",
                left.join(", ")
            ),
            format!(
                "Some of them may have been done where they were before, which the job can't tell. Start a job on {first} alone, with a where_clause that is true of rows that are not done, and come back when it has completed."
            ),
        );
    }
    Ok(None)
}
